"""The functions behind `import hbt`: the commands of the command line as typed Python functions.

Paths may be strings or `os.PathLike`. Wrong input raises `InputError`, with the fix in its message.
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
    from toolkit.workflows.auto.outcome import Outcome
    from toolkit.workflows.explaining.explain import Explanation
    from toolkit.workflows.monitoring.drift import FileDrift
    from toolkit.workflows.run_summary import RunSummary
    from toolkit.workflows.transfer.command import Transfer

AnyPath = str | PathLike[str]


def load(package: AnyPath, threads: int | None = None) -> "LoadedArtifact":
    """Return the classifier in a package folder, ready to predict.

    Its methods are `predict(texts)`, a list of (label, probability), `predict_proba(texts)`, float32 (texts, labels),
    and `predict_logits(texts)`; its attributes are `labels`, `threshold` and `offsets`.

    threads: number of threads of the runtime; None uses the default of the runtime.
    Raises: InputError if `package` is not a package, one of its files is missing or damaged, or its runtime is not
      installed.
    """
    from toolkit import package as packages

    return packages.load(Path(package), threads)


def verify(package: AnyPath, public_key: AnyPath | None = None) -> "Verification":
    """Check that the files of a package are unchanged and that it reproduces its golden scores.

    public_key: PEM file of the key that must have signed the package; None checks no signature.
    Returns: a report whose `problems` are empty if the package is intact.
    Raises: InputError if `package` is not a package, or the key cannot be used.
    """
    from toolkit import package as packages

    return packages.verify(Path(package), None if public_key is None else Path(public_key))


def sign(package: AnyPath, private_key: AnyPath, force: bool = False) -> Path:
    """Sign every file of a package and return the file of the signature, which is in the package.

    private_key: PEM file of an elliptic-curve key (P-256, P-384 or P-521) without a password.
    force: replace the signature if there is one.
    Raises: InputError if the package is not intact, the key cannot be used, or `hbt-toolkit[sign]` is not installed.
    """
    from toolkit import signature

    return signature.sign(Path(package), Path(private_key), force)


def push(package: AnyPath, where: AnyPath, force: bool = False, public: bool = False) -> "Transfer":
    """Copy a package to a folder, a .zip file or a Hugging Face repository, and compare what has arrived.

    where: a path, or hf:owner/name[@branch].
    force: replace the package that is there.
    public: make a new repository public instead of private.
    Returns: where it is; of a repository, with the commit.
    Raises: InputError if the package is not intact, or cannot be written there.
    """
    from toolkit.workflows.transfer import command

    return command.push(Path(package), str(where), force, public)


def pull(where: AnyPath, folder: AnyPath, force: bool = False, public_key: AnyPath | None = None) -> "Transfer":
    """Copy the package in a folder, a .zip file or a Hugging Face repository into a new folder, if it is intact.

    where: a path, or hf:owner/name[@revision].
    force: replace the package in `folder`.
    public_key: PEM file of the key that must have signed the package; None checks no signature.
    Returns: the report, with the commit of a repository in `where`.
    Raises: InputError if `verify` would report a problem; then nothing is written.
    """
    from toolkit.workflows.transfer import command

    return command.pull(str(where), Path(folder), force, None if public_key is None else Path(public_key))


def predict_file(
    package: AnyPath, source: AnyPath, output: AnyPath, text_column: str | None = None, force: bool = False
) -> int:
    """Label the texts of a CSV, TSV, JSON Lines or Parquet file and return the number of rows.

    output: file to write, with the columns of `source`, predicted_label, probability and, as the package has them,
      answer and out_of_scope; its suffix selects the format.
    text_column: column with the texts; None finds it by name.
    force: overwrite `output` if it exists.
    Raises: InputError, before anything is written, if a file cannot be read or written.
    """
    from toolkit.utils.overwrite import refuse_file
    from toolkit.workflows.predict_file import label_file
    from toolkit.workflows.scoring.flags import flags_of
    from toolkit.workflows.scoring.pool import THREADS

    refuse_file(Path(output), force, "output")
    model = load(package, THREADS)
    return label_file(model, Path(source), Path(output), text_column, flags=flags_of(Path(package)))


def explain(package: AnyPath, text: str, label: str | None = None) -> "Explanation":
    """Return which parts of a text decided the label that a package gives it.

    label: the label whose logit is explained; None takes the predicted one.
    Returns: words (of an n-gram package also characters and n-grams) with what each adds to the logit of every label.
    Raises: InputError if `package` is not a package, does not have the label, or the text is blank.
    """
    from exporters.loaders.base.texts import checked_texts
    from toolkit.workflows.explaining.explain import explain_texts
    from toolkit.workflows.predict_file import refuse_blank

    refuse_blank(checked_texts([text]))
    return explain_texts(Path(package), [text], label)[0]


def drift(package: AnyPath, file: AnyPath, text_column: str | None = None, rows: int = 20_000) -> "FileDrift":
    """Return how the texts of a file, which need no labels, differ from the held-out rows of a package.

    text_column: column with the texts; None finds it by name.
    rows: compare at most so many texts, drawn at random.
    Returns: the lines of the comparison in `report`, and `advice`.
    Raises: InputError if `package` is not a package or has no reference, or the file has no text.
    """
    from toolkit.workflows.monitoring.drift import drift_of
    from toolkit.workflows.scoring.labeler import TableOptions

    return drift_of(Path(package), Path(file), TableOptions(text_column), rows)


def auto(
    file: AnyPath,
    *,
    budget_ms: float = 1.0,
    budget_mb: float = 5.0,
    minutes: float = 60.0,
    output: AnyPath | None = None,
    yes: bool = False,
    force: bool = False,
    **settings: Any,
) -> "Outcome":
    """Turn a file of labeled texts into a small package, as `hbt auto` does; the same call resumes.

    budget_ms, budget_mb: longest latency of a text, and largest package.
    minutes: about how long it may take.
    output: folder of the package [default: models/NAME].
    yes: go on if something about the file is in doubt, instead of raising InputError.
    force: start from the beginning.
    settings: further options of `hbt auto`, with underscores: `model`, `target`, `unlabelled`, `name`, `text_column`.
    Returns: the package, its figures and comparisons, and the three lines that `hbt auto` prints last.
    Raises: InputError for a file or option that cannot be used; NothingPasses if nothing is worth shipping.
    """
    from toolkit.config.toml_file import recipe_of
    from toolkit.utils.errors import InputError
    from toolkit.workflows.auto import command

    def confirm(doubts: tuple[str, ...]) -> None:
        if not yes:
            raise InputError(f"in doubt: {'; '.join(doubts)}; give yes=True to go on, or the options")

    own = {key: settings.pop(key, None) for key in ("model", "name", "unlabelled")}
    target = settings.pop("target", None)
    corpus = recipe_of(None, settings | {"data": str(file)}).corpus
    request = command.request_of(corpus, minutes=minutes, **own, **({"target": target} if target else {}))
    return command.auto(request, budget_ms, budget_mb, None if output is None else Path(output), confirm, force)


def read_recipe(file: AnyPath | None = None, **settings: Any) -> "Recipe":
    """Return the recipe in a TOML file, or the defaults, overridden by `settings`.

    The names are those of the command-line options, with underscores: `read_recipe(data="comments.csv", folds=3)`.
    Raises: InputError for an unreadable file, an unknown setting, or an invalid value.
    """
    from toolkit.config.toml_file import recipe_of

    return recipe_of(None if file is None else Path(file), settings)


def train(recipe: "Recipe", force: bool = False) -> "RunSummary":
    """Fine-tune on folds and, if the recipe names a student, distill the folds into it.

    An interrupted run is resumed; a finished run is only summarized.

    force: remove an existing run of this name and start again.
    Returns: the folder of the run, the rows of its results table and its paired comparisons.
    Raises: InputError, before anything is written, for invalid settings or data.
    """
    from toolkit.workflows.pipeline import train_pipeline

    return train_pipeline(recipe, force)


def run(recipe: "Recipe", package: AnyPath | None = None, force: bool = False) -> "RunSummary":
    """Run all stages of the recipe's pipeline.

    package: folder of the package [default: models/NAME-TARGET].
    force: remove an existing run of this name and start again.
    Returns: as `train`, and the package.
    Raises: InputError as `train`; NothingPasses if no candidate of the target passes its quality gate, or the selected
      one is worse than the linear baseline or near chance.
    """
    from toolkit.workflows.pipeline import run_pipeline

    return run_pipeline(recipe, force, None if package is None else Path(package))


def compress(source: AnyPath, output: AnyPath | None = None, force: bool = False, **settings: Any) -> "RunSummary":
    """Make a package from a run, a checkpoint folder, or a Hugging Face classifier (folder or hub id).

    settings: the options of `hbt compress`, with underscores: `target`, `max_drop`, `prune_sparsity` and
      `data`: labeled rows to evaluate it on or, for a run, its data file, if that was moved.
    force: overwrite `output`, and make a package even if no candidate passes the quality gate, or if the selected one
      is worse than the linear baseline or near chance.
    Raises: InputError for an invalid source or setting; NothingPasses for what needs `force`.
    """
    from toolkit.workflows.compress import compress_source

    return compress_source(str(source), settings, None if output is None else Path(output), force)


def compare(a: AnyPath, b: AnyPath, margin: float = 0.01, data: AnyPath | None = None) -> "Versus":
    """Compare B with A on the same test rows, from their stored predictions. No model is run.

    a, b: each a run, a stage of a run, or a package.
    margin: the smallest difference of macro-F1 that matters.
    data: the data file of the runs, if it was moved.
    Raises: InputError if one is none of these, or their splits differ.
    """
    from toolkit.workflows.compare import compare_stages

    return compare_stages(Path(a), Path(b), margin, None if data is None else str(data))


def bench(
    packages: AnyPath | Sequence[AnyPath],
    output: AnyPath = "bench",
    data: str | None = None,
    teacher: AnyPath | None = None,
    threads: int = 1,
) -> Path:
    """Compare packages with the linear baseline and the fp32 teacher, and return the JSON file with all figures.

    output: folder for the JSON, CSV, SVG and PNG files.
    data: the data file of the packages, if it was moved.
    teacher: checkpoint to compare with [default: that of the run of the first package].
    threads: number of threads per model.
    Raises: InputError if a folder is not a package, the packages have different corpora, or the data file is missing.
    """
    from benchmarks.bench import Output, bench_packages

    folders = [Path(packages)] if isinstance(packages, str | PathLike) else [Path(each) for each in packages]
    checkpoint = None if teacher is None else Path(teacher)
    return bench_packages(folders, data, checkpoint, threads, Output(Path(output), quiet=True))[0]
