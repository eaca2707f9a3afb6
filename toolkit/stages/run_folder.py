"""The folder of a run: its name, its recipe, where its stages lie, and whether a command may go on with it."""

import json
import shutil
from pathlib import Path

from toolkit.config.settings import PruningSettings, Recipe
from toolkit.config.toml_file import recipe_from, write_recipe
from toolkit.data.corpus import Corpus, describe_split
from toolkit.stages.result import RESULT_FILE, StageResult
from toolkit.utils.errors import InputError
from toolkit.utils.files import file_part

RUNS, MODELS = Path("runs"), Path("models")
CACHE = RUNS / "cache"
"""Logits of teachers, under the hash of network and texts: every run may use them."""
RECIPE_FILE, CORPUS_FILE = "recipe.toml", "corpus.json"
FLOOR, BASELINE, DISTILLATION, PRUNING, EXPORT = "0-floor", "1-baseline", "2-distillation", "3-pruning", "4-export"


def run_folder(recipe: Recipe) -> Path:
    """The folder of a run, named in the recipe or after data and model."""
    data = "demo" if recipe.corpus.data == "demo" else Path(recipe.corpus.data).stem
    return RUNS / (recipe.run.name or f"{file_part(data)}-{file_part(recipe.model.model)}")


def refuse_other_recipe(folder: Path, recipe: Recipe, force: bool) -> None:
    """Raises InputError if `folder` is there and is not a run of this very recipe; `force` lets it be removed."""
    if force or not (folder / RECIPE_FILE).is_file():
        if folder.exists() and not force:
            raise InputError(f"{folder}: exists and is no run; give another --name, or --force to remove it")
        return
    before, now = recipe_from(folder / RECIPE_FILE, {}), recipe
    if before.sha256() != now.sha256():
        differ = [key for key, value in now.flat().items() if before.flat()[key] != value]
        raise InputError(
            f"{folder}: a run with another {', '.join(differ)}; give another --name, or --force to remove it"
        )


def open_folder(folder: Path, recipe: Recipe, corpus: Corpus, force: bool) -> None:
    """Make the run's folder with recipe.toml and corpus.json, unless it is there already.

    Raises: InputError if it began with other rows.
    """
    if force and folder.exists():
        shutil.rmtree(folder)
    recorded = recorded_fingerprint(folder)
    if recorded is not None:
        if recorded != corpus.fingerprint:
            raise InputError(f"{folder}: began with other rows in {recipe.corpus.data}; give --force or another --name")
        return
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    (folder / CORPUS_FILE).write_text(json.dumps(describe_split(corpus), ensure_ascii=False) + "\n", "utf-8")
    write_recipe(recipe, folder / RECIPE_FILE)


def recorded_fingerprint(folder: Path) -> str | None:
    """Fingerprint of the corpus that a run began with, None if `folder` is no run."""
    file = folder / CORPUS_FILE
    return json.loads(file.read_text("utf-8"))["fingerprint"] if file.is_file() else None


def read_run_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder. Raises InputError if it is none or has no finished training stage."""
    if not (folder / RECIPE_FILE).is_file():
        raise InputError(f"{folder}: not a run (no {RECIPE_FILE}); make one with hbt train")
    last_checkpoint(folder)
    return recipe_from(folder / RECIPE_FILE, {})


def pruning_stage(folder: Path, pruning: PruningSettings) -> Path:
    """Where a run keeps what was pruned so: one folder for each method and budget."""
    return folder / f"{PRUNING}-{pruning.tag}"


def export_stage_folder(folder: Path, target: str, stage: Path) -> Path:
    """Where a run keeps what is known of the artefact made of `stage`."""
    return folder / "-".join(filter(None, [EXPORT, target, tag_of(stage)]))


def pruning_stages(folder: Path) -> list[Path]:
    """The finished pruning stages of a run."""
    return [file.parent for file in sorted(folder.glob(f"{PRUNING}-*/{RESULT_FILE}"))]


def tag_of(stage: Path) -> str:
    """Method and budget of a pruning stage, from its folder's name; empty for any other stage."""
    return stage.name.removeprefix(f"{PRUNING}-") if stage.name.startswith(f"{PRUNING}-") else ""


def last_trained(folder: Path) -> Path:
    """The last finished stage of a run before pruning. Raises InputError if there is none."""
    for stage in (folder / DISTILLATION, folder / BASELINE):
        if (stage / RESULT_FILE).is_file():
            return stage
    raise InputError(f"{folder}: no finished stage; go on with the hbt train command that began it")


def last_stage(folder: Path) -> Path:
    """The last finished stage of a run that left a checkpoint. Raises InputError if there is none."""
    recipe = recipe_from(folder / RECIPE_FILE, {})
    pruned = pruning_stage(folder, recipe.pruning)
    return pruned if recipe.prunes and (pruned / RESULT_FILE).is_file() else last_trained(folder)


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint that a run came to: pruned, a student, or its best fold."""
    stage = last_stage(folder)
    return stage / StageResult.load(stage).checkpoint


def teacher_checkpoint(folder: Path) -> Path | None:
    """The best fold of a run, or the first checkpoint that it was given as the teacher; None if that is gone."""
    if (folder / BASELINE / RESULT_FILE).is_file():
        return folder / BASELINE / StageResult.load(folder / BASELINE).checkpoint
    given = recipe_from(folder / RECIPE_FILE, {}).distillation.teacher
    return checkpoint_behind(Path(given[0])) if given and Path(given[0]).is_dir() else None


def checkpoint_behind(folder: Path) -> Path:
    """The best fold of a run or of a baseline stage, else a run's student; any other folder is a checkpoint itself."""
    stage = baseline_stage(folder)
    if stage is None and (folder / DISTILLATION / RESULT_FILE).is_file():
        stage = folder / DISTILLATION
    return folder if stage is None else stage / StageResult.load(stage).checkpoint


def baseline_stage(folder: Path) -> Path | None:
    """The baseline stage of a run folder, or `folder` itself if it is one, or None."""
    for stage in (folder, *sorted(folder.glob("*-baseline"))):
        if (stage / RESULT_FILE).is_file() and StageResult.load(stage).stage == "baseline":
            return stage
    return None
