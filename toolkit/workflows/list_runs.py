"""`hbt runs` and `hbt show`: the runs and packages of this folder with their figures, from stored results.

Nothing is computed again, so neither the data file nor a model is needed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.config.recipe import Recipe
from toolkit.evaluation import comparison
from toolkit.evaluation.comparison import Versus
from toolkit.evaluation.significance import Comparison
from toolkit.evaluation.standing import Standing
from toolkit.manifest import MANIFEST_FILE, read_manifest
from toolkit.stages import results_table
from toolkit.stages.results_table import Row
from toolkit.stages.run_folder import CORPUS_FILE, EXPORT, LINEAR_BASELINE, MODELS, RUNS, Run, is_run, locate
from toolkit.utils.console import print_table
from toolkit.utils.errors import InputError
from toolkit.utils.files import MB, folder_size, is_partial, read_json
from toolkit.workflows.run_summary import SUMMARY_FILE

PICTURES = (".svg", ".png")


@dataclass(frozen=True)
class ListedRun:
    """One run; macro-F1 on its test rows."""

    run: str
    data: str
    model: str
    """The student or, without one, the encoder."""
    stages: list[str]
    """The finished ones."""
    finished: bool
    macro_f1: float | None
    """Of the last stage; None if it has only a linear baseline."""
    linear_macro_f1: float | None
    problem: str = ""
    """Why it cannot be read; empty if it can."""


@dataclass(frozen=True)
class ListedPackage:
    """One package; None for a figure that is in its run, if that is not here."""

    package: str
    target: str
    run: str | None
    model: str
    package_mb: float
    macro_f1: float | None
    linear_macro_f1: float | None
    p50_ms: float | None


def list_runs() -> list[ListedRun]:
    """Return the runs in runs/, by name."""
    folders = sorted(RUNS.iterdir()) if RUNS.is_dir() else []
    return [_listed_run(folder) for folder in folders if is_run(folder) and not is_partial(folder)]


def list_packages() -> list[ListedPackage]:
    """Return the packages in models/, by name."""
    folders = sorted(MODELS.iterdir()) if MODELS.is_dir() else []
    found = (_listed_package(each) for each in folders if (each / MANIFEST_FILE).is_file() and not is_partial(each))
    return [package for package in found if package is not None]


def _listed_run(folder: Path) -> ListedRun:
    try:
        run = Run.open(folder)
    except InputError as error:
        return ListedRun(folder.as_posix(), "", "", [], False, None, None, str(error))
    linear = run.results.get(LINEAR_BASELINE)
    trained = [stage for stage in run.results if stage != LINEAR_BASELINE]
    return ListedRun(
        run=folder.as_posix(),
        data=run.recipe.corpus.data,
        model=_model(run.recipe),
        stages=list(run.results),
        finished=(folder / SUMMARY_FILE).is_file(),
        macro_f1=run.results[trained[-1]].metrics["macro_f1"] if trained else None,
        linear_macro_f1=None if linear is None else linear.metrics["macro_f1"],
    )


def _model(recipe: Recipe) -> str:
    return recipe.distillation.student or recipe.model.model


def _listed_package(folder: Path) -> ListedPackage | None:
    try:
        manifest, place = read_manifest(folder), locate(folder)
    except InputError:
        return None
    lineage = manifest.get("lineage", {})
    size = folder_size(folder) / MB
    model = str(lineage.get("student") or lineage.get("model") or "")
    if place is None or place.stage is None:
        return ListedPackage(folder.as_posix(), str(manifest["target"]), None, model, size, None, None, None)
    result, linear = place.run.results[place.stage], place.run.results.get(LINEAR_BASELINE)
    return ListedPackage(
        package=folder.as_posix(),
        target=str(manifest["target"]),
        run=place.run.folder.as_posix(),
        model=model,
        package_mb=size,
        macro_f1=result.metrics["macro_f1"],
        linear_macro_f1=None if linear is None else linear.metrics["macro_f1"],
        p50_ms=result.details.get("p50_ms"),
    )


def render_list(runs: list[ListedRun], packages: list[ListedPackage]) -> None:
    """Print both lists on stdout."""
    if runs:
        lines = [
            {
                "Run": run.run,
                "Model": run.model,
                "Macro F1": _number(run.macro_f1, 4),
                "Linear baseline": _number(run.linear_macro_f1, 4),
                "Finished": "yes" if run.finished else "damaged" if run.problem else "no",
            }
            for run in runs
        ]
        print_table(lines, "runs; macro-F1 of the last stage on test rows", left=("Run", "Model", "Finished"))
    if packages:
        lines = [
            {
                "Package": each.package,
                "Macro F1": _number(each.macro_f1, 4),
                "Linear baseline": _number(each.linear_macro_f1, 4),
                "MB": f"{each.package_mb:.2f}",
                "p50 ms": _number(each.p50_ms, 2),
            }
            for each in packages
        ]
        print_table(lines, "packages", left=("Package",))
    if not runs and not packages:
        print(f"no runs in {RUNS}/ and no packages in {MODELS}/; make one with hbt auto FILE")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


@dataclass(frozen=True)
class StoredRun:
    """A run as its summary recorded it."""

    run: ListedRun
    rows: list[Row]
    comparisons: list[Versus]
    labels: tuple[str, ...]
    packages: list[str]
    pictures: list[str]
    recipe: Recipe


def stored_run(path: Path) -> StoredRun:
    """Return the run in `path`, or the run that made the package in `path`. Raises: InputError if there is none."""
    place = locate(path)
    if place is None:
        raise InputError(f"{path}: not a run, nor a package of a run that is here; hbt runs lists them")
    run = place.run
    found = read_json(run.folder / SUMMARY_FILE) or {"rows": [], "comparisons": []}
    packages = [Path(run.results[stage].details["package"]) for stage in run.stages(EXPORT)]
    folders = [run.folder, *(package for package in packages if package.is_dir())]
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.suffix in PICTURES)
    return StoredRun(
        run=_listed_run(run.folder),
        rows=[_row(entries) for entries in found["rows"]],
        comparisons=[Versus(each["b"], each["a"], Comparison(**each["comparison"])) for each in found["comparisons"]],
        labels=tuple((read_json(run.folder / CORPUS_FILE) or {}).get("label_names", ())),
        packages=[package.as_posix() for package in packages if package.is_dir()],
        pictures=[file.as_posix() for file in files],
        recipe=run.recipe,
    )


def _row(entries: dict[str, Any]) -> Row:
    standing = entries.get("standing")
    return Row(**entries | {"standing": None if standing is None else Standing(**standing)})


def render_run(found: StoredRun) -> None:
    """Print the tables of a run on stdout, and where its files are."""
    run = found.run
    print(f"{run.run}: {run.data}, {found.recipe.run.pipeline}, {run.model}")
    if found.rows:
        results_table.render(found.rows, found.labels, "test rows (held out: never used for model selection)")
        comparison.render(found.comparisons)
    if not run.finished:
        print(f"not finished; stages so far: {', '.join(run.stages) or 'none'}; rerun its command to resume")
    for title, paths in (("package", found.packages), ("picture", found.pictures)):
        for path in paths:
            print(f"{title}: {path}")
    print(f"tables: {run.run}/outputs   recipe: {run.run}/recipe.toml")
