"""The command `hbt`: its verbs, and the one place where errors become a line and an exit code."""

import os
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from toolkit import __version__
from toolkit.commands.auto import auto
from toolkit.commands.explain import explain
from toolkit.commands.look import list_runs, show
from toolkit.commands.measure import bench, compare, sync, ui
from toolkit.commands.package import compress, list_targets, predict, sign, verify
from toolkit.commands.serve import serve
from toolkit.commands.train import data, run, students, train
from toolkit.commands.transfer import pull, push
from toolkit.config.grouped_help import Verbs
from toolkit.utils.console import printable, use_utf8
from toolkit.utils.errors import InputError, NothingPasses, full_disk, out_of_memory
from toolkit.utils.scratch import remove_leftovers


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="hbt")
@click.pass_context
def verbs(ctx: click.Context) -> None:
    """Turn labeled texts into a small classifier for any CPU, and measure what each step loses.

    \b
    hbt auto comments.csv                                from a file to a package, in one command
    hbt train --data comments.csv --student layers:4     or step by step: fine-tune on folds, then distill
    hbt compress runs/NAME --target onnx-int8            make a package from the run
    hbt bench models/NAME                                compare it with the linear baseline and its teacher
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


MAKING = (auto, data, train, run, students, compress)
LOOKING = (list_runs, show, compare, bench, list_targets)
USING = (predict, explain, serve, verify, sign, push, pull, sync, ui)
for command in (*MAKING, *LOOKING, *USING):
    verbs.add_command(command)


def main() -> None:
    """Run a command. Errors are one line on stderr; exit code 2 (input, disk, memory) or 3 (no candidate passes)."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with suppress(OSError):  # no temporary folder can be written
            remove_leftovers(Path(tempfile.gettempdir()))
        use_utf8(sys.argv[1:])
        _run()
    except InputError as error:
        _stop(str(error), 2)
    except click.ClickException as error:
        _stop(error.format_message(), 2)
    except NothingPasses as error:
        _stop(str(error), 3)
    except (KeyboardInterrupt, click.Abort):
        _stop(f"interrupted; {_resume()}", 130)
    except Exception as error:
        message = full_disk(error)
        if out_of_memory(error):
            message = "not enough memory; give a smaller --batch-size or --max-length, or close other programs, and"
        if message is None:
            raise
        _stop(f"{message} {_resume()}", 2)


def _run() -> None:
    """Run the verb; on one of the processes of torchrun, as its rank does."""
    command = partial(verbs, prog_name="hbt", standalone_mode=False)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a warning about a setting of the Trainer, on every rank
        from toolkit.training.processes.launch import run_on_all

        run_on_all(command)
    else:
        command()


def _resume() -> str:
    restarts = "--force" in sys.argv[1:] and sys.argv[1] in ("auto", "train", "run", "students")
    return f"rerun the same command{' without --force' * restarts} to resume"


def _stop(message: str, code: int) -> None:
    click.echo(f"hbt: {printable(' '.join(message.split()))}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
