"""`hbt push` and `hbt pull`: packages to and from other places."""

from dataclasses import asdict
from pathlib import Path

import click

from toolkit.commands.completion import packages
from toolkit.commands.shared import FOLDER, force_option, json_option, print_json
from toolkit.config.grouped_help import Verb


@click.command(
    cls=Verb,
    examples=(
        "hbt push models/NAME name.zip",
        "hbt push models/NAME hf:owner/name",
        "hbt push models/NAME /media/usb/NAME",
    ),
)
@click.argument("package", type=FOLDER, shell_complete=packages)
@click.argument("where")
@click.option("--public", is_flag=True, help="Make a new Hugging Face repository public [default: private].")
@force_option
@json_option
def push(package: Path, where: str, public: bool, force: bool, as_json: bool) -> None:
    """Copy a PACKAGE to WHERE: a folder, a .zip file, or a Hugging Face repository, hf:owner/name[@branch].

    The package is verified before, and what has arrived is compared with it. A repository gets one commit; log in with
    `hf auth login`, or set HF_TOKEN.
    """
    from toolkit.workflows.transfer.command import push as push_package

    done = push_package(package, where, force, public)
    if as_json:
        print_json(asdict(done))
        return
    click.echo(f"{done.files} files, {done.size_bytes / 1e6:.1f} MB: {done.where}\nnext: hbt pull {done.where} FOLDER")


@click.command(cls=Verb, examples=("hbt pull name.zip models/NAME", "hbt pull hf:owner/name@v1 models/NAME"))
@click.argument("where")
@click.argument("folder", type=FOLDER)
@click.option("--public-key", type=FOLDER, help="PEM file of the key that must have signed the package.")
@force_option
@json_option
def pull(where: str, folder: Path, public_key: Path | None, force: bool, as_json: bool) -> None:
    """Copy the package at WHERE into a new FOLDER, if it passes the checks of hbt verify.

    WHERE is a folder, a .zip file, or a Hugging Face repository, hf:owner/name[@revision], where a revision is a
    branch, a tag or a commit. Nothing of the package is run but its model, in a process with limits.
    """
    from toolkit.workflows.transfer.command import pull as pull_package

    done = pull_package(where, folder, force, public_key)
    if as_json:
        print_json(asdict(done))
        return
    signed = {"valid": ", signature valid", "not checked": "; signed, not checked: give --public-key"}
    click.echo(
        f"{done.package}: {done.files} files from {done.where}, verified{signed.get(done.verification.signature, '')}\n"
        f'next: hbt predict {done.package} "text"'
    )
