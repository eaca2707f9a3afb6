"""The command `hbt`: its verbs, and the one place where errors become a line and an exit code."""

import os
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from toolkit import __version__
from toolkit.config.grouped_help import Entry, Verbs
from toolkit.utils.console import printable, use_utf8
from toolkit.utils.errors import InputError, NothingPasses, full_disk, out_of_memory
from toolkit.utils.scratch import remove_leftovers


def _entry(name: str, place: str, summary: str) -> Entry:
    return Entry(name, f"toolkit.commands.{place}", summary)


ENTRIES = {
    "Make a package": (
        _entry("auto", "auto:auto", "From a table of labeled texts to a package, in one command."),
        _entry("data", "train:data", "Check a labeled file before training."),
        _entry("train", "train:train", "Fine-tune on folds; with --student, distill them."),
        _entry("run", "train:run", "Run all stages of a pipeline."),
        _entry("students", "train:students", "Train several students and take the best within a budget."),
        _entry("compress", "package:compress", "Make a package from a run, a checkpoint or a hub model."),
    ),
    "Look at results": (
        _entry("runs", "look:list_runs", "List runs and packages with their figures."),
        _entry("show", "look:show", "Show the tables and pictures of a run."),
        _entry("compare", "measure:compare", "Is one model worse than another on the same test rows?"),
        _entry("bench", "measure:bench", "Measure latency, memory and size beside baselines."),
        _entry("targets", "package:list_targets", "List the targets that are available here."),
        _entry("sync", "measure:sync", "Log to MLflow what it lacks of a run."),
        _entry("ui", "measure:ui", "Open the MLflow page of the runs."),
    ),
    "Use a package": (
        _entry("predict", "package:predict", "Label texts, a file or a folder of files."),
        _entry("explain", "explain:explain", "Which parts of a text decided its label?"),
        _entry("drift", "drift:drift", "Are new texts like those the package was measured on?"),
        _entry("serve", "serve:serve", "Answer HTTP requests."),
        _entry("verify", "package:verify", "Check files, signature and scores of a package."),
        _entry("sign", "package:sign", "Sign a package."),
        _entry("push", "transfer:push", "Copy a package to a folder, a .zip file or the hub."),
        _entry("pull", "transfer:pull", "Copy a package from there, if it passes its checks."),
    ),
}


@click.group(
    cls=Verbs,
    entries=ENTRIES,
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
