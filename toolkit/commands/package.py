"""`hbt compress`, `targets`, `predict`, `verify` and `sign`: packages."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from toolkit.commands.completion import COMPLETE, packages, runs
from toolkit.commands.shared import (
    FOLDER,
    force_option,
    json_option,
    print_json,
    ship_option,
    show_next,
    show_standing,
    show_table,
)
from toolkit.config.cli_options import given, options_of
from toolkit.config.grouped_help import Verb
from toolkit.config.settings import CorpusSettings, ExportSettings, PruningSettings
from toolkit.utils.console import json_line, printable
from toolkit.utils.errors import InputError
from toolkit.utils.overwrite import refuse_file


@click.command(
    cls=Verb, examples=("hbt compress runs/NAME --target onnx-int8", "hbt compress runs/NAME --prune-to-ms 1")
)
@click.argument("source", shell_complete=runs)
@options_of(ExportSettings, PruningSettings, complete=COMPLETE)
@click.option("-o", "--output", type=FOLDER, help="Folder of the package [default: models/NAME-TARGET].")
@options_of(CorpusSettings, leave_out=("data_fraction", "folds"), complete=COMPLETE)
@click.option(
    "--max-length", type=int, help="Maximum number of tokens per text; longer texts are cut [default: that of SOURCE]."
)
@ship_option
@json_option
def compress(source: str, output: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Make a package from SOURCE: a run, a checkpoint folder, or a Hugging Face classifier (folder or hub id).

    A run has its own data. Any other source needs --data: labeled rows to evaluate it on. With any --prune option, the
    classifier is pruned first. The candidates of the target are evaluated on validation rows, and the fastest that
    loses at most --max-drop is selected. If none passes, or the selected one is worse than the linear baseline or near
    chance on the test rows, the exit code is 3 and no package is made without --force.
    """
    from toolkit.workflows.compress import compress_source

    outcome = compress_source(source, given(options), output, force)
    if as_json:
        print_json(asdict(outcome))
        return
    show_table(outcome)
    assert outcome.package is not None
    show_next(outcome.package)
    show_standing("the package", outcome.standing)


@click.command("targets", cls=Verb, examples=("hbt targets",))
@json_option
def list_targets(as_json: bool) -> None:
    """List every target, whether it is available on this machine, and what to install if not."""
    from toolkit.export.targets import list_targets, render

    found = list_targets()
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        render(found)


@click.command(
    cls=Verb,
    examples=(
        'hbt predict models/NAME "text"',
        "hbt predict models/NAME --input new.csv --output labeled.csv",
        "hbt predict models/NAME --input comments/ --output labeled/",
    ),
)
@click.argument("package", type=FOLDER, shell_complete=packages)
@click.argument("texts", nargs=-1)
@click.option("--input", "source", type=FOLDER, help="Table (CSV, Parquet, …) or .txt, or a folder of them.")
@click.option("--output", type=FOLDER, help="Labeled file to write, whose suffix selects the format, or a folder.")
@click.option("--text-column", help="Column with the texts (default: found by name).")
@click.option("--encoding", help="Encoding of a CSV, TSV or text file, such as cp1252 (default: recognized).")
@click.option("--separator", help="Character between the fields of a CSV file, or tab (default: recognized).")
@click.option("--processes", type=click.IntRange(1, 1024), help="Processes that label (default: one a core).")
@click.option("--engine", metavar="ENGINE", help="spark or ray, or one of its clusters as spark://… or ray://…")
@force_option
@json_option
def predict(
    package: Path,
    texts: tuple[str, ...],
    source: Path | None,
    output: Path | None,
    processes: int | None,
    engine: str | None,
    force: bool,
    as_json: bool,
    **table: str | None,
) -> None:
    """Label TEXTS, or the texts of a file or of every file in a folder, with a PACKAGE.

    Files are read and written in parts and may be larger than the memory. With a folder, or a quoted pattern such as
    'new/*.csv', a file that is complete in --output from the same input and PACKAGE is skipped.

    A text in a script, or with a share of characters or n-grams, that the training texts do not have is marked as out
    of scope, in files in the column out_of_scope.
    """
    from toolkit import package as loading
    from toolkit.evaluation.reliability.scope import COLUMN, OUT_OF_SCOPE
    from toolkit.workflows.predict_file import label_file_in_processes, refuse_blank
    from toolkit.workflows.scoring.flags import flags_of
    from toolkit.workflows.scoring.folder import is_many, label_files
    from toolkit.workflows.scoring.labeler import TableOptions

    if engine is not None and source is None:
        raise InputError("--engine labels files: give --input and --output")
    if bool(texts) == bool(source):
        raise InputError("give either texts or --input FILE with --output FILE")
    if source is not None and output is None:
        raise InputError("--output: name the file to write")
    refuse_blank(texts)
    if source is not None and output is not None:
        separator = CorpusSettings(separator=table["separator"]).separator  # checked
        options = TableOptions(table["text_column"], table["encoding"], separator)
        if engine is not None:
            from toolkit.workflows.scoring.clusters import label_on_cluster

            _show_files(label_on_cluster(engine, package, source, output, options, processes, force), as_json)
            return
        if is_many(source):
            _show_files(label_files(package, source, output, options, processes, force), as_json)
            return
        refuse_file(output, force, "--output")
        loading.read_manifest(package)  # before the file is read
        rows = label_file_in_processes(package, source, output, options, processes)
        click.echo(json.dumps({"rows": rows, "output": str(output)}) if as_json else f"{rows} rows labeled: {output}")
        return
    found = loading.predict(loading.load(package), texts)
    flags = flags_of(package)
    for text, (label, probability), reason in zip(texts, found, flags.reasons(texts), strict=True):
        answer = flags.answer(label, probability)
        line = {"text": text, "label": label, "probability": round(probability, 6)}
        line |= {} if flags.below is None else {"answer": answer}
        line |= {} if flags.scope is None else {COLUMN: reason or None}
        plain = f"{printable(answer)}\t{probability:.4f}\t{printable(text)}"
        plain += f"\t{OUT_OF_SCOPE}: {reason}" if reason else ""
        click.echo(json_line(line) if as_json else plain)


def _show_files(found: Any, as_json: bool) -> None:
    """Print what was done with the files of a folder; exit code 2 if one of them is not labeled."""
    if as_json:
        print_json(asdict(found) | {"rows_per_second": round(found.rows_per_second, 1)})
    else:
        done = f"; {found.skipped} files were complete" if found.skipped else ""
        click.echo(
            f"{found.rows} rows of {found.files} files labeled{done}: {found.output}  "
            f"({found.rows_per_second:,.0f} rows/s, {found.processes} process{'es' * (found.processes > 1)})"
        )
    if found.failed and not as_json:
        raise InputError(f"{len(found.failed)} files are not labeled, for the reasons above; fix them and rerun")
    sys.exit(2 if found.failed else 0)


@click.command(cls=Verb, examples=("hbt verify models/NAME",))
@click.argument("package", type=FOLDER, shell_complete=packages)
@click.option("--public-key", type=FOLDER, help="PEM file of the key that must have signed the package.")
@json_option
def verify(package: Path, public_key: Path | None, as_json: bool) -> None:
    """Check that the files of a PACKAGE are unchanged and that it reproduces its golden scores.

    Who changes both files and manifest.json is found out only by a signature and its --public-key.
    """
    from toolkit import package as loading

    found = loading.verify(package, public_key)
    if as_json:
        print_json(asdict(found))
        sys.exit(2 if found.problems else 0)
    if found.problems:
        raise InputError(f"{package}: {'; '.join(found.problems)}")
    shown = {"valid": ", signature valid", "not checked": "; signed, not checked: give --public-key"}
    click.echo(
        f"{package}: {found.files} files unchanged, {found.golden_texts} golden texts, "
        f"largest score difference {found.largest_score_gap:.1e}{shown.get(found.signature, '')}"
    )


@click.command(cls=Verb, examples=("hbt sign models/NAME --private-key KEY.pem",))
@click.argument("package", type=FOLDER, shell_complete=packages)
@click.option("--private-key", type=FOLDER, required=True, help="PEM file of an elliptic-curve key without a password.")
@force_option
@json_option
def sign(package: Path, private_key: Path, force: bool, as_json: bool) -> None:
    """Sign all files of a PACKAGE, so that others can check with your public key that it is from you.

    The signature, model.sig, follows OpenSSF Model Signing. Needs the extra hbt-toolkit[sign].
    """
    from toolkit import signature

    file = signature.sign(package, private_key, force)
    if as_json:
        print_json({"signature": file})
        return
    click.echo(f"signed: {file}\nnext: hbt verify {package} --public-key PUBLIC.pem")
