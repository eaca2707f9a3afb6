"""The functions behind `import hbt`: the verbs of the command line as typed Python calls.

Paths may be strings or `os.PathLike`. What a user can get wrong raises `InputError` with the fix in its message.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.registry import LoadedArtifact
    from toolkit.config.recipe import Recipe
    from toolkit.evaluation.comparison import Versus
    from toolkit.package import Verification
    from toolkit.workflows.run_summary import RunSummary

AnyPath = str | PathLike[str]


def load(package: AnyPath, threads: int | None = None) -> "LoadedArtifact":
    """Return the classifier in a package folder, ready to predict.

    It has `predict(texts)`, a list of label and probability, `predict_proba(texts)`, float32 (texts, labels),
    `predict_logits(texts)`, and the attributes `labels` and `threshold`.

    threads: of the runtime; None leaves the choice to it.
    Raises: InputError if `package` is no package, a file of it is missing or damaged, or its runtime is not installed.
    """
    from toolkit import package as packages

    return packages.load(Path(package), threads)


def verify(package: AnyPath) -> "Verification":
    """Check every file of a package and its golden scores; `problems` of the result is empty if all is well.

    Raises: InputError if `package` is no package.
    """
    from toolkit import package as packages

    return packages.verify(Path(package))


def predict_file(
    package: AnyPath, source: AnyPath, output: AnyPath, text_column: str | None = None, force: bool = False
) -> int:
    """Label the texts of a CSV, TSV, JSON Lines or Parquet file and return the number of rows.

    output: file to write, with the columns of `source` and predicted_label and probability; its suffix is its format.
    text_column: column of the texts; None finds it by name.
    force: replace `output` if it exists.
    Raises: InputError, before anything is written, for files that cannot be read or written.
    """
    from toolkit.utils.errors import refuse_existing
    from toolkit.workflows.predict_file import label_file

    refuse_existing(Path(output), force, "force")
    return label_file(load(package), Path(source), Path(output), text_column)


def read_recipe(file: AnyPath | None = None, **settings: Any) -> "Recipe":
    """Return the recipe of a TOML file, or the defaults, with `settings` by name over it.

    The names are those of the command-line options, with underscores: `read_recipe(data="comments.csv", folds=3)`.
    Raises: InputError for an unreadable file, an unknown setting, or a value that cannot be.
    """
    from toolkit.config.toml_file import recipe_of

    return recipe_of(None if file is None else Path(file), settings)


def train(recipe: "Recipe", force: bool = False) -> "RunSummary":
    """Fine-tune on folds and, if the recipe names a student, distil the folds into it.

    A run that was interrupted resumes, and one that is finished is only summarized.
    force: begin anew.
    Returns: the run's folder, the rows of its table and its paired comparisons.
    Raises: InputError, before anything is written, for settings or data that cannot work.
    """
    from toolkit.workflows.pipeline import train_pipeline

    return train_pipeline(recipe, force)


def run(recipe: "Recipe", package: AnyPath | None = None, force: bool = False) -> "RunSummary":
    """Run all stages of the recipe's pipeline: train, distil, prune, export, as far as it has them.

    package: folder of the package [default: models/NAME-TARGET].
    force: begin anew.
    Raises: InputError as `train`; NothingPasses if no candidate of the target passes its quality gate.
    """
    from toolkit.workflows.pipeline import run_pipeline

    return run_pipeline(recipe, force, None if package is None else Path(package))


def compress(source: AnyPath, output: AnyPath | None = None, force: bool = False, **settings: Any) -> "RunSummary":
    """Make a package of a run, a checkpoint folder, or a Hugging Face classifier (folder or hub id).

    settings: the options of `hbt compress`, with underscores: `target`, `max_drop`, `prune_sparsity`, and for
    anything but a run `data`, the labeled rows to check it on.
    force: replace `output`, and ship even a package that fails its quality gate.
    Raises: InputError for what cannot work; NothingPasses if no candidate passes.
    """
    from toolkit.workflows.compress import compress_source

    return compress_source(str(source), settings, None if output is None else Path(output), force)


def compare(a: AnyPath, b: AnyPath, margin: float = 0.01) -> "Versus":
    """Compare B with A on the same test rows: each a run, a stage of one, or a package. No model is run.

    margin: a difference of macro-F1 below this does not matter.
    Raises: InputError if one is none of these, or they were not split alike.
    """
    from toolkit.workflows.compare import compare_stages

    return compare_stages(Path(a), Path(b), margin)


def bench(
    packages: AnyPath | Sequence[AnyPath],
    output: AnyPath = "bench",
    data: str | None = None,
    teacher: AnyPath | None = None,
    threads: int = 1,
) -> Path:
    """Measure packages beside the linear baseline and the fp32 teacher, and return the JSON file with all figures.

    output: folder for the JSON, the CSV and the picture.
    data: where the rows of the packages are now, if not where they were.
    teacher: checkpoint to compare with [default: that of the first package's run].
    Raises: InputError if a folder is no package, the packages have different corpora, or the data are gone.
    """
    from benchmarks.bench import bench_packages

    folders = [Path(packages)] if isinstance(packages, str | PathLike) else [Path(each) for each in packages]
    checkpoint = None if teacher is None else Path(teacher)
    return bench_packages(folders, data, checkpoint, threads, Path(output), quiet=True)
