"""A run: one folder with the recipe, the split and every finished stage of one experiment.

A `Run` is opened once and handed on. It knows where its stages lie, which of them are finished and what they
measured, so that nothing after it has to ask the disk again.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from toolkit.config.recipe import Recipe
from toolkit.config.settings import ExportSettings, PruningSettings
from toolkit.config.toml_file import recipe_from, write_recipe
from toolkit.data.corpus import Corpus, describe_split, load_corpus
from toolkit.package import MANIFEST_FILE, read_manifest
from toolkit.stages.result import RESULT_FILE, StageResult
from toolkit.utils.errors import InputError
from toolkit.utils.files import file_part, is_partial, whole_folder

RUNS, MODELS = Path("runs"), Path("models")
CACHE = RUNS / "cache"
"""Teacher logits and measured costs, under the hash of what they were computed from; shared by all runs."""
RECIPE_FILE, CORPUS_FILE = "recipe.toml", "corpus.json"
LINEAR_BASELINE, BASELINE, DISTILLATION = "0-floor", "1-baseline", "2-distillation"
PRUNING, EXPORT = "3-pruning", "4-export"
"""Folder names of the stages; pruning and export are followed by what they made: 4-export-onnx-int8."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder."""

    folder: Path
    recipe: Recipe
    fingerprint: str | None
    """Of the corpus, as the folder records it; None for a new run."""
    results: dict[str, StageResult] = field(default_factory=dict)
    """Results of the finished stages, by the name of their folder."""

    @staticmethod
    def open(folder: Path) -> "Run":
        """Return the run in `folder`. Raises InputError if there is none."""
        if not is_run(folder):
            raise InputError(f"{folder}: not a run (no {RECIPE_FILE}); make one with hbt train")
        finished = (file.parent for file in sorted(folder.glob(f"*/{RESULT_FILE}")) if not is_partial(file.parent))
        results = {stage.name: StageResult.load(stage) for stage in finished}
        return Run(folder, recipe_from(folder / RECIPE_FILE, {}), _fingerprint(folder), results)

    @staticmethod
    def of_recipe(recipe: Recipe, force: bool = False) -> "Run":
        """Return the run that a recipe begins or resumes; nothing is written.

        force: begin anew, whatever is there.
        Raises: InputError if the folder belongs to another recipe or is not a run.
        """
        folder = run_folder(recipe)
        if force or not folder.exists():
            return Run(folder, recipe, None)
        if not is_run(folder):
            raise InputError(f"{folder}: exists and is not a run; give another --name, or --force to remove it")
        there = Run.open(folder)
        if there.recipe.sha256() != recipe.sha256():
            before = there.recipe.flat()
            differ = [key for key, value in recipe.flat().items() if before[key] != value]
            raise InputError(
                f"{folder}: a run with another {', '.join(differ)}; give another --name, or --force to remove it"
            )
        return replace(there, recipe=recipe)

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus of the run, read from its file.

        Raises: InputError if the file is gone, or does not hold the rows that the run began with.
        """
        corpus = load_corpus(self.recipe.corpus)
        if self.fingerprint not in (None, corpus.fingerprint):
            raise InputError(
                f"{self.recipe.corpus.data}: not the rows that {self.folder} was trained on; bring that file back, or "
                "train on the new rows under another --name"
            )
        return corpus

    def require_rows(self) -> None:
        """Read the rows now. Raises: InputError as `corpus`."""
        _ = self.corpus

    def begin(self) -> None:
        """Write the folder with recipe.toml and corpus.json, in place of whatever is there; a begun run stays."""
        corpus = self.corpus
        if self.fingerprint is not None:
            return
        with whole_folder(self.folder) as partial:
            (partial / "outputs").mkdir(exist_ok=True)
            text = json.dumps(describe_split(corpus), ensure_ascii=False)
            (partial / CORPUS_FILE).write_text(text + "\n", "utf-8")
            write_recipe(self.recipe, partial / RECIPE_FILE)

    def using(self, export: ExportSettings, pruning: PruningSettings | None = None) -> "Run":
        """Return this run with other export settings and, unless None, other pruning settings."""
        recipe = replace(self.recipe, export=export, pruning=pruning or self.recipe.pruning)
        return replace(self, recipe=recipe)

    def checkpoint(self, stage: str) -> Path:
        """Return the folder of the checkpoint that a finished stage left; of a baseline the best fold."""
        return self.folder / stage / self.results[stage].checkpoint

    def stages(self, kind: str) -> list[str]:
        """Return the finished stages whose folder name begins with `kind`, in order."""
        return sorted(name for name in self.results if name == kind or name.startswith(f"{kind}-"))

    @property
    def last_trained(self) -> str:
        """The last finished stage before pruning. Raises InputError if there is none."""
        found = [stage for stage in (DISTILLATION, BASELINE) if stage in self.results]
        if not found:
            raise InputError(f"{self.folder}: no finished stage; rerun the hbt train command that began it to resume")
        return found[0]

    @property
    def last_stage(self) -> str:
        """The last finished stage that left a checkpoint. Raises InputError if there is none."""
        pruned = pruning_stage(self.recipe.pruning)
        return pruned if self.recipe.prunes and pruned in self.results else self.last_trained

    @property
    def baseline_folder(self) -> Path | None:
        """The folder of the baseline that teaches; None if the recipe names another teacher."""
        return None if self.recipe.distillation.teacher else self.folder / BASELINE

    @property
    def teacher_checkpoint(self) -> Path | None:
        """One network of the teacher: the best fold, or the first checkpoint of --teacher; None if that is gone."""
        if BASELINE in self.results:
            return self.checkpoint(BASELINE)
        given = self.recipe.distillation.teacher
        return checkpoint_of(Path(given[0])) if given and Path(given[0]).is_dir() else None


@dataclass(frozen=True)
class Place:
    """What a path given by a user means: a run, or one stage of it."""

    run: Run
    stage: str | None
    """Folder name of the stage; None for the run as a whole."""


def locate(path: Path) -> Place | None:
    """Return the run or stage that `path` is, or the export stage that a package came from; None for anything else."""
    if is_run(path):
        return Place(Run.open(path), None)
    if (path / RESULT_FILE).is_file() and is_run(path.parent):
        return Place(Run.open(path.parent), path.name)
    if (path / MANIFEST_FILE).is_file():
        origin = Path(str(read_manifest(path).get("lineage", {}).get("run", "")))
        if origin.name and is_run(origin):
            run = Run.open(origin)
            for stage in run.stages(EXPORT):
                if Path(run.results[stage].details["package"]).resolve() == path.resolve():
                    return Place(run, stage)
    return None


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint that a path means: of a run or baseline the best fold, else of a run its student."""
    place = locate(path)
    if place is None:
        return path
    if place.stage is not None:
        return place.run.checkpoint(place.stage) if place.stage == BASELINE else path
    return place.run.checkpoint(BASELINE if BASELINE in place.run.results else place.run.last_trained)


def is_run(folder: Path) -> bool:
    """Return whether `folder` is a run."""
    return (folder / RECIPE_FILE).is_file()


def run_folder(recipe: Recipe) -> Path:
    """Return the folder of a run: named in the recipe, else after data and model."""
    data = "demo" if recipe.corpus.data == "demo" else Path(recipe.corpus.data).stem
    return RUNS / (recipe.run.name or f"{file_part(data)}-{file_part(recipe.model.model)}")


def package_folder(run: str, target: str, stage: str) -> Path:
    """Return where the package of a stage goes unless the user names another folder."""
    return MODELS / "-".join(filter(None, [run, target, tag_of(stage)]))


def pruning_stage(pruning: PruningSettings) -> str:
    """Return the stage that keeps what was pruned so: one for each method and budget."""
    return f"{PRUNING}-{pruning.tag}"


def export_stage(target: str, stage: str) -> str:
    """Return the stage that keeps the result of the artifact made of `stage`."""
    return "-".join(filter(None, [EXPORT, target, tag_of(stage)]))


def tag_of(stage: str) -> str:
    """Return method and budget of a pruning stage, from its name; empty for any other stage."""
    return stage.removeprefix(f"{PRUNING}-") if stage.startswith(f"{PRUNING}-") else ""


def _fingerprint(folder: Path) -> str | None:
    file = folder / CORPUS_FILE
    return json.loads(file.read_text("utf-8"))["fingerprint"] if file.is_file() else None
