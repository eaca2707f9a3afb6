"""`hbt compare A B`: is B worse than A on the test rows, from what both once said of them; no model is run."""

from dataclasses import replace
from pathlib import Path

from toolkit.config.toml_file import recipe_from
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.comparison import Versus, versus
from toolkit.evaluation.significance import MARGIN
from toolkit.package import MANIFEST_FILE, read_manifest
from toolkit.stages.result import RESULT_FILE, StageResult
from toolkit.stages.run_folder import EXPORT, RECIPE_FILE, last_stage, recorded_fingerprint
from toolkit.utils.errors import InputError
from toolkit.workflows.run_comparisons import contender


def compare_stages(a: Path, b: Path, margin: float = MARGIN) -> Versus:
    """B against A, each a run, a stage of one, or a package that a run made.

    Raises: InputError if one is none of these, or they were not split alike.
    """
    stages = [stage_behind(path) for path in (a, b)]
    splits = [recorded_fingerprint(stage.parent) for stage in stages]
    if splits[0] != splits[1]:
        raise InputError(f"{b}: its rows were split otherwise than those of {a}, so they cannot be compared in pairs")
    found, other = (
        replace(contender(stage, ""), name=path.as_posix()) for stage, path in zip(stages, (a, b), strict=True)
    )
    return versus(_corpus_of(stages[0].parent), other, found, margin)


def stage_behind(path: Path) -> Path:
    """The stage that a path means: a run's last one, itself, or the one whose artefact a package holds.

    Raises: InputError if there is none.
    """
    if (path / RECIPE_FILE).is_file():
        return last_stage(path)
    if (path / RESULT_FILE).is_file() and (path.parent / RECIPE_FILE).is_file():
        return path
    if (path / MANIFEST_FILE).is_file():
        run = Path(str(read_manifest(path).get("lineage", {}).get("run", "")))
        for file in sorted(run.glob(f"{EXPORT}-*/{RESULT_FILE}")) if run.name else []:
            if Path(StageResult.load(file.parent).details["package"]).resolve() == path.resolve():
                return file.parent
        raise InputError(f"{path}: the run that made it is not here any more (or made another since); name its stage")
    raise InputError(f"{path}: no run, no stage of a run and no package; name one, such as runs/NAME/2-distillation")


def _corpus_of(run: Path) -> Corpus:
    recipe = recipe_from(run / RECIPE_FILE, {})
    corpus = load_corpus(recipe.corpus)
    if corpus.fingerprint != recorded_fingerprint(run):
        raise InputError(f"{recipe.corpus.data}: not the file that {run} was trained on; bring that one back")
    return corpus
