"""`hbt serve`: packages behind a port."""

from typing import Any

import click

from toolkit.commands.completion import packages
from toolkit.config.cli_options import given, options_of
from toolkit.config.grouped_help import Verb
from toolkit.serving.settings import Limits, ServeSettings, attributes_of, named_packages


@click.command(
    cls=Verb,
    examples=("hbt serve models/NAME", "hbt serve spam=models/A hate=models/B --workers 4 --attribute TOXICITY=hate"),
)
@click.argument("folders", metavar="PACKAGE...", nargs=-1, required=True, shell_complete=packages)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes, of a core each.")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=LABEL",
    help="Attribute of Perspective's comments:analyze and the label, or LABEL+LABEL, whose probability it is [default: "
    "TOXICITY, of the second of two labels, or of labels named like toxic or hate].",
)
@options_of(Limits)
def serve(
    folders: tuple[str, ...], host: str, port: int, workers: int, attributes: tuple[str, ...], **limits: Any
) -> None:
    """Answer HTTP requests with packages, each given as FOLDER or NAME=FOLDER.

    POST /predict takes {"text": ...} or {"texts": [...]}; /predict/NAME asks another package than the first. POST
    /v1alpha1/comments:analyze answers as Perspective does. GET /healthz, /packages, /metrics. A new package in the
    folder of an old one replaces it as soon as it is verified and loaded. Needs the extra hbt-toolkit[serve].
    """
    settings = ServeSettings(named_packages(folders), attributes_of(attributes), Limits(**given(limits)))
    from toolkit.serving.server import serve as run

    run(settings, host, port, workers)
