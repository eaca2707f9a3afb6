"""Sign a package with a private key and check the signature: the only protection from an edit with consistent hashes.

The format is that of OpenSSF Model Signing (OMS), written and checked by the distribution `model-signing`.
"""

import os
import stat
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from toolkit.manifest import changed_files
from toolkit.utils.errors import InputError
from toolkit.utils.overwrite import SIGNATURE_FILE, refuse_file

MAX_BYTES = 2**20
"""Largest signature or key; a signature of a package has about 100 bytes for each of its files."""
_KEYS = "a PEM file on P-256, P-384 or P-521"


def sign(folder: Path, private_key: Path, force: bool = False) -> Path:
    """Write the signature of every file of a package into its folder and return the file.

    private_key: PEM file without a password, of an elliptic-curve key.
    force: replace the signature if there is one.
    Raises: InputError if the folder is not an unchanged package, the key cannot be used, or `model-signing` is missing.
    """
    problems = changed_files(folder)
    if problems:
        raise InputError(f"{folder}: is not signed, since {problems[0]}")
    file = folder / SIGNATURE_FILE
    refuse_file(file, force, "sign")
    config = _library("signing").Config().set_hashing_config(_hashed_files())
    _refuse_large(private_key, "--private-key")
    try:
        signer = config.use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # cryptography raises types of its own
        raise InputError(
            f"--private-key {private_key}: no usable private key ({_reason(error)}); give {_KEYS} without a password: "
            "openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem"
        ) from None
    partial = file.with_name(f"{SIGNATURE_FILE}.partial")
    try:
        signer.sign(folder, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def signature_problems(folder: Path, public_key: Path) -> list[str]:
    """Return one line if the files of a package are not those that the owner of a key has signed.

    Raises: InputError if the key cannot be used or `model-signing` is missing.
    """
    config = _library("verifying").Config().set_hashing_config(_hashed_files())
    _refuse_large(public_key, "--public-key")
    try:
        verifier = config.use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        raise InputError(
            f"--public-key {public_key}: no usable public key ({_reason(error)}); give {_KEYS}: "
            "openssl ec -in KEY.pem -pubout -out PUBLIC.pem"
        ) from None
    file = folder / SIGNATURE_FILE
    if not is_signed(folder):
        return [f"it is not signed (no {SIGNATURE_FILE})"]
    if file.stat().st_size > MAX_BYTES:
        return [f"{SIGNATURE_FILE} has more than {MAX_BYTES:,} bytes"]
    try:
        with redirect_stdout(StringIO()):  # the library prints warnings
            verifier.verify(folder, file)
    except Exception as error:  # the library raises types of its own, for a damaged file of any kind
        return [f"{SIGNATURE_FILE} is not a signature of these files by this key ({_reason(error)})"]
    return []


def is_signed(folder: Path) -> bool:
    """Return whether a package has a signature, of whatever key."""
    file = folder / SIGNATURE_FILE
    return os.path.lexists(file) and stat.S_ISREG(os.lstat(file).st_mode)


def _library(module: str) -> Any:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise InputError(f"signatures need {error.name}: pip install 'hbt-toolkit[sign]'") from None
    return {"signing": signing, "verifying": verifying}[module]


def _hashed_files() -> Any:
    """Return how files are hashed: all of them but the signature, no links."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)


def _refuse_large(key: Path, option: str) -> None:
    if not key.is_file():
        raise InputError(f"{option} {key}: no such file; give {_KEYS}")
    if key.stat().st_size > MAX_BYTES:
        raise InputError(f"{option} {key}: has more than {MAX_BYTES:,} bytes; give {_KEYS}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
