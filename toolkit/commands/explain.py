"""`hbt explain`: why a package gives a label."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from toolkit.commands.completion import packages
from toolkit.commands.shared import FOLDER, force_option, json_option, print_json
from toolkit.config.grouped_help import Verb
from toolkit.utils.errors import InputError
from toolkit.utils.overwrite import refuse_file


@click.command(
    cls=Verb, examples=('hbt explain models/NAME "text"', "hbt explain models/NAME --global --data comments.csv")
)
@click.argument("package", type=FOLDER, shell_complete=packages)
@click.argument("texts", nargs=-1)
@click.option("--label", help="Label to explain [default: the predicted one].")
@click.option("--html", type=FOLDER, help="Also write the explanation as one HTML file.")
@click.option("--global", "overall", is_flag=True, help="The n-grams that weigh most for each label, in --data.")
@click.option("--data", type=FOLDER, help="Table or .txt with texts that have the n-grams to rank, for --global.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="N-grams per label, for --global.")
@force_option
@json_option
def explain(
    package: Path,
    texts: tuple[str, ...],
    label: str | None,
    html: Path | None,
    overall: bool,
    force: bool,
    as_json: bool,
    **ranked: Any,
) -> None:
    """Show which parts of TEXTS decided the label that a PACKAGE gives them.

    For an n-gram package, bias and contributions sum to the logit exactly. For a transformer or a cascade, the value of
    a word is how much the logit falls if it is left out.
    """
    if overall:
        _show_overall(package, texts, ranked["data"], ranked["top"], as_json)
        return
    from toolkit.workflows.explaining.explain import explain_texts
    from toolkit.workflows.explaining.view import page, render
    from toolkit.workflows.predict_file import refuse_blank

    if not texts:
        raise InputError("explain: give texts, or --global with --data FILE")
    if ranked["data"] is not None:
        raise InputError("--data: needs --global; leave it out to explain texts")
    refuse_blank(texts)
    if html is not None:
        refuse_file(html, force, "--html")
    found = explain_texts(package, list(texts), label)
    if html is not None:
        from toolkit.utils.files import write_text

        write_text(html, page(found))
    for each in found:
        if as_json:
            print_json(each.as_dict())
        else:
            render(each)


def _show_overall(package: Path, texts: tuple[str, ...], data: Path | None, top: int, as_json: bool) -> None:
    from toolkit.data.unlabeled import read_unlabeled
    from toolkit.utils.console import print_table
    from toolkit.workflows.explaining.explain import heaviest_ngrams

    if texts:
        raise InputError("--global: takes no texts; put them into --data FILE")
    if data is None:
        raise InputError(
            "--global: the table has hashes instead of n-grams; give texts that have them with --data FILE"
        )
    found = heaviest_ngrams(package, read_unlabeled(data, "--data"), top)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    lines = [
        {
            "label": each.label,
            "n-gram": each.ngram.replace(" ", "␣"),
            "weight": f"{each.weight:+.3f}",
            "texts": f"{each.texts:,}",
        }
        for each in found
    ]
    print_table(lines, f"n-grams of {data} that weigh most for each label", left=("label", "n-gram"))
