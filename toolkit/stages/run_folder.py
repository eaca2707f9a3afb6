"""A run: one folder with the recipe, the split and every finished stage of one experiment.

A `Run` is opened once and passed to every stage and command. It holds the paths and results of the finished stages,
so that callers do not read them from disk again.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from toolkit.config.recipe import Recipe
from toolkit.config.settings import ExportSettings, PruningSettings
from toolkit.config.toml_file import recipe_from, write_recipe
from toolkit.data.corpus import Corpus, describe_split, load_corpus
from toolkit.data.moved import beside_owners, found_again, same_corpus
from toolkit.manifest import MANIFEST_FILE, read_manifest
from toolkit.stages.result import RESULT_FILE, StageResult
from toolkit.utils.console import say
from toolkit.utils.errors import InputError
from toolkit.utils.files import PARTIAL, content_sha256, file_part, is_partial, read_json, remove_replaced, whole_folder
from toolkit.utils.overwrite import refuse_folder
from toolkit.utils.scratch import remove_folder

RUNS, MODELS = Path("runs"), Path("models")
CACHE = RUNS / "cache"
"""Teacher logits and measured costs, keyed by the hash of their inputs; shared by all runs."""
RECIPE_FILE, CORPUS_FILE = "recipe.toml", "corpus.json"
INPUTS_FILE = "inputs.json"
"""Hashes of the inputs outside the folder; see `toolkit.stages.inputs`. Older runs have none."""
FORCED_FILE = "forced.json"
"""The package that an unfinished run may replace, because it was started with --force."""
LINEAR_BASELINE, BASELINE, DISTILLATION = "0-floor", "1-baseline", "2-distillation"
CASCADE_NGRAM = "2-cascade-ngram"
"""The n-gram student of a cascade."""
PRUNING, EXPORT = "3-pruning", "4-export"
"""Folder names of the stages; those of pruning and export are prefixes, as in 4-export-onnx-int8."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder."""

    folder: Path
    recipe: Recipe
    fingerprint: str | None
    """Fingerprint of the corpus recorded in the folder; None for a new run."""
    results: dict[str, StageResult] = field(default_factory=dict)
    """Results of the finished stages, keyed by folder name."""
    data: str | None = None
    """Path of the data file, if the user gives another than the one in the recipe."""
    relative: Path | None = None
    """Run whose linear baseline may be copied, if it has the same rows in each split."""

    @staticmethod
    def open(folder: Path) -> "Run":
        """Return the run in `folder`. Raises: InputError if it is not a run folder."""
        if not is_run(folder):
            raise InputError(f"{folder}: not a run folder (no {RECIPE_FILE}); create one with hbt train")
        finished = (file.parent for file in sorted(folder.glob(f"*/{RESULT_FILE}")) if not is_partial(file.parent))
        loaded = {stage.name: _result_of(stage) for stage in finished}
        results = {name: result for name, result in loaded.items() if result is not None}
        return Run(folder, recipe_from(folder / RECIPE_FILE, {}), _fingerprint(folder), results)

    @staticmethod
    def of_recipe(recipe: Recipe, force: bool = False) -> "Run":
        """Return the new or resumed run of a recipe, without writing anything.

        force: start a new run even if the folder of a run exists.
        Raises: InputError if the folder exists and has another recipe or is not a run folder, or cannot be written.
        """
        folder = run_folder(recipe)
        if force or not folder.exists():
            refuse_folder(folder, force, "run", "--name")
            return Run(folder, recipe, None)
        if not is_run(folder):
            raise InputError(f"{folder}: exists and is not a run folder; give another --name")
        existing = Run.open(folder)
        if existing.recipe.sha256() != recipe.sha256():
            before = existing.recipe.flat()
            differ = [key for key, value in recipe.flat().items() if before[key] != value]
            if differ == ["data"]:  # a file that moved; `corpus` compares its rows
                kept = replace(recipe, corpus=existing.recipe.corpus)
                return replace(existing, recipe=kept, data=recipe.corpus.data)
            if differ == ["pipeline"] and recipe.stages == (*existing.recipe.stages, "export"):
                raise InputError(
                    f"{folder}: is a run of {existing.recipe.run.pipeline}; make its package with hbt compress "
                    f"{folder}, or give another --name"
                )
            raise InputError(
                f"{folder}: is a run with a different {', '.join(differ)}; give another --name, or --force to redo it"
            )
        return replace(existing, recipe=recipe)

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus of the run, read from its file, which may have moved.

        Raises: InputError if the file is missing or its rows are not those the run was started with.
        """
        if self.fingerprint is None:
            return load_corpus(self.recipe.corpus)
        return same_corpus(self.recipe.corpus, self.fingerprint, self.folder, self.data)

    @property
    def located(self) -> Recipe:
        """The recipe with teachers and unlabeled texts where they are now, which may have moved with the run."""
        given = self.recipe.distillation
        teachers = tuple(found_again(teacher, self.folder) for teacher in given.teacher)
        texts = None if given.unlabelled is None else found_again(given.unlabelled, self.folder)
        return replace(self.recipe, distillation=replace(given, teacher=teachers, unlabelled=texts))

    def require_rows(self) -> None:
        """Load the corpus now, so that missing or changed rows are reported early. Raises: InputError as `corpus`."""
        _ = self.corpus

    def begin(self, replaces: Path | None = None, inputs: dict[str, str] | None = None) -> None:
        """Create the folder with recipe.toml, corpus.json and inputs.json; do nothing for a resumed run.

        An old run in the folder is kept beside it until `finish`.

        replaces: package that the run may replace when it is resumed.
        inputs: hashes of the inputs, see `toolkit.stages.inputs`.
        """
        corpus = self.corpus
        if self.fingerprint is not None:
            return
        remove_folder(self.folder.with_name(self.folder.name + PARTIAL))  # its recipe may be another one
        with whole_folder(self.folder, keep_replaced=True) as partial:
            if replaces is not None:
                (partial / FORCED_FILE).write_text(json.dumps({"package": replaces.as_posix()}) + "\n", "utf-8")
            (partial / "outputs").mkdir(exist_ok=True)
            text = json.dumps(describe_split(corpus), ensure_ascii=False)
            (partial / CORPUS_FILE).write_text(text + "\n", "utf-8")
            inputs_text = json.dumps(inputs or {}, indent=2, ensure_ascii=False)
            (partial / INPUTS_FILE).write_text(inputs_text + "\n", "utf-8")
            write_recipe(self.recipe, partial / RECIPE_FILE)

    def may_replace(self, package: Path) -> bool:
        """Return whether this run was started with --force for `package` and is not finished yet."""
        replaces = read_json(self.folder / FORCED_FILE)
        return self.fingerprint is not None and replaces == {"package": package.as_posix()}

    def finish(self) -> None:
        """Remove the old run that this one replaces, now that this one is complete."""
        (self.folder / FORCED_FILE).unlink(missing_ok=True)
        remove_replaced(self.folder)

    def using(self, export: ExportSettings, pruning: PruningSettings | None = None) -> "Run":
        """Return this run with new export settings and, unless None, new pruning settings."""
        recipe = replace(self.recipe, export=export, pruning=pruning or self.recipe.pruning)
        return replace(self, recipe=recipe)

    def version_of(self, stage: str) -> str:
        """Return name and hash of the result of a finished stage: another one if it is made again."""
        return f"{stage} {content_sha256(self.folder / stage / RESULT_FILE)[:16]}"

    def checkpoint(self, stage: str) -> Path:
        """Return the checkpoint folder of a finished stage; for the baseline, that of the best fold."""
        return self.folder / stage / self.results[stage].checkpoint

    def stages(self, kind: str) -> list[str]:
        """Return the finished stages named `kind` or with the prefix `kind`, in order."""
        return sorted(name for name in self.results if name == kind or name.startswith(f"{kind}-"))

    @property
    def last_trained(self) -> str:
        """The last finished stage before pruning. Raises: InputError if there is none."""
        found = [stage for stage in (DISTILLATION, BASELINE) if stage in self.results]
        if not found:
            raise InputError(f"{self.folder}: no finished stage; rerun its hbt train command to resume")
        return found[0]

    @property
    def last_stage(self) -> str:
        """The last finished stage with a checkpoint. Raises: InputError if there is none."""
        pruned = pruning_stage(self.recipe.pruning)
        return pruned if self.recipe.prunes and pruned in self.results else self.last_trained

    @property
    def baseline_folder(self) -> Path | None:
        """The folder of the baseline if it is the teacher; None if the recipe names another teacher.

        With --no-teacher, the folder of the linear baseline.
        """
        if self.recipe.distillation.no_teacher:
            return self.folder / LINEAR_BASELINE
        return None if self.recipe.distillation.teacher else self.folder / BASELINE

    @property
    def teacher_checkpoint(self) -> Path | None:
        """Checkpoint of one teacher network: the best fold, or the first of --teacher; None if it no longer exists."""
        if BASELINE in self.results:
            return self.checkpoint(BASELINE)
        given = self.located.distillation.teacher
        return checkpoint_of(Path(given[0])) if given and Path(given[0]).is_dir() else None


@dataclass(frozen=True)
class Place:
    """A run, or one of its stages, that a path given by the user refers to."""

    run: Run
    stage: str | None
    """Folder name of the stage; None for the run itself."""


def locate(path: Path) -> Place | None:
    """Return the run or stage in `path`, or the export stage of the package in `path`; None for any other."""
    if is_run(path):
        return Place(Run.open(path), None)
    if (path / RESULT_FILE).is_file() and is_run(path.parent):
        return Place(Run.open(path.parent), path.name)
    if (path / MANIFEST_FILE).is_file():
        origin = str(read_manifest(path).get("lineage", {}).get("run", ""))
        if Path(origin).name:
            # Run and package may have been moved together; a path that is not absolute starts where hbt was called.
            for folder in dict.fromkeys(Path(each) for each in (origin, *beside_owners(origin, [path]))):
                run = Run.open(folder) if is_run(folder) else None
                stage = None if run is None else _maker(run, path)
                if run is not None and stage is not None:
                    return Place(run, stage)
    return None


def _maker(run: Run, package: Path) -> str | None:
    """Return the export stage of a run that made a package; None if the run has not, or has made another one since."""
    for stage in run.stages(EXPORT):
        made = run.results[stage].details["package"]
        places = [Path(place) for place in (made, *beside_owners(made, [run.folder]))]
        if any(place.resolve() == package.resolve() or _is_copy(package, place) for place in places):
            return stage
    return None


def _is_copy(path: Path, package: Path) -> bool:
    """Return whether `path` is a copy of a package, whose manifest has the hashes of its files."""
    original = package / MANIFEST_FILE
    return original.is_file() and original.read_bytes() == (path / MANIFEST_FILE).read_bytes()


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint for a path: the best fold of a run or baseline, or the student of a run without baseline.

    Any other path is returned unchanged.
    """
    place = locate(path)
    if place is None:
        return path
    if place.stage is not None:
        return place.run.checkpoint(place.stage) if place.stage == BASELINE else path
    return place.run.checkpoint(BASELINE if BASELINE in place.run.results else place.run.last_trained)


def is_run(folder: Path) -> bool:
    """Return whether `folder` is a run folder."""
    return (folder / RECIPE_FILE).is_file()


def run_folder(recipe: Recipe) -> Path:
    """Return the folder of a run: from the name in the recipe, else from data and model."""
    data = "demo" if recipe.corpus.data == "demo" else Path(recipe.corpus.data).stem
    return RUNS / (recipe.run.name or f"{file_part(data)}-{file_part(recipe.model.model)}")


def package_folder(run: str, export: ExportSettings, stage: str) -> Path:
    """Return the default folder for the package of a stage."""
    return MODELS / "-".join(filter(None, [run, export.target, tag_of(stage), export.suffix]))


def pruning_stage(pruning: PruningSettings) -> str:
    """Return the folder name of the pruning stage for these settings: one per method and budget."""
    return f"{PRUNING}-{pruning.tag}"


def export_stage(target: str, stage: str, suffix: str = "") -> str:
    """Return the folder name of the export stage for the artifact exported from `stage`.

    suffix: as in `ExportSettings`.
    """
    return "-".join(filter(None, [EXPORT, target, tag_of(stage), suffix]))


def tag_of(stage: str) -> str:
    """Return method and budget from the name of a pruning stage; an empty string for any other stage."""
    return stage.removeprefix(f"{PRUNING}-") if stage.startswith(f"{PRUNING}-") else ""


def _fingerprint(folder: Path) -> str | None:
    file = folder / CORPUS_FILE
    try:
        return str(read_json(file)["fingerprint"])
    except (LookupError, TypeError):
        raise InputError(
            f"{file}: missing or damaged, so the split is not known; restore it, or redo the run with --force"
        ) from None


def _result_of(stage: Path) -> StageResult | None:
    """Return the result of a finished stage; None if its file is damaged, so that the stage is made again."""
    try:
        return StageResult.load(stage)
    except (ValueError, TypeError, RecursionError):
        say(f"{stage / RESULT_FILE}: damaged; the stage is not finished")
        return None
