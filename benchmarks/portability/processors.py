"""Processors that this machine can emulate, each with a Python of its own.

QEMU's user mode runs the programs of another processor as ordinary processes. QEMU and the Pythons are packages of
Debian, the Python packages are wheels from PyPI. Everything is unpacked in one cache folder: nothing is installed, and
root is not needed. The newest Debian is used whatever this machine runs, since ONNX Runtime for ARM needs
/proc/cpuinfo, which older releases of QEMU do not emulate.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.utils.console import working
from toolkit.utils.errors import InputError
from toolkit.utils.files import content_sha256
from toolkit.utils.locks import locked
from toolkit.utils.scratch import scratch_folder

DEBIAN, PYTHON = "trixie", "3.13"
"""Release of Debian, and the version of its Python."""
MIRROR, KEYRING = "http://deb.debian.org/debian", Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CACHE = Path.home() / ".cache" / "hbt" / "portability"
WAIT_S = 600
"""How long to wait for another process that prepares the same cache."""


@dataclass(frozen=True)
class Processor:
    """A processor that QEMU emulates."""

    name: str
    cpu: str
    """Its name for QEMU."""
    architecture: str
    """Name of the emulator: x86_64 or aarch64."""

    @property
    def shown(self) -> str:
        """Its name in tables and manifests."""
        return f"{self.name} (emulated)"


PROCESSORS = (
    Processor("Nehalem", "Nehalem", "x86_64"),
    Processor("Haswell", "Haswell", "x86_64"),
    Processor("Cortex-A72", "cortex-a72", "aarch64"),
    Processor("Cortex-A76", "cortex-a76", "aarch64"),
    Processor("Neoverse-N1", "neoverse-n1", "aarch64"),
)
"""x86 without AVX2; with AVX2 and without VNNI; ARM without 8-bit dot products; two with them."""
_DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_WHEELS = ("2_28", "2_27", "2_17", "2014")
"""Versions of glibc that wheels may need (manylinux)."""


def refuse_unready() -> None:
    """Raise InputError if this machine lacks what unpacks packages of Debian."""
    if sys.platform != "linux":
        raise InputError("portability: processors are emulated on Linux only")
    missing = [program for program in ("apt-get", "dpkg", "dpkg-deb") if shutil.which(program) is None]
    if missing:
        raise InputError(f"portability: needs {', '.join(missing)}, so Debian or a distribution made of it")
    if not KEYRING.is_file():
        raise InputError(f"portability: no {KEYRING}; apt-get install debian-archive-keyring")


def prepare(processors: Sequence[Processor], requirements: Path, cache: Path = CACHE) -> None:
    """Fetch and unpack what is not yet in the cache: QEMU, and a Python with the requirements per architecture.

    requirements: requirements.txt of a package.
    Raises: InputError if a package cannot be fetched.
    """
    refuse_unready()
    with locked(cache, "give another --cache", WAIT_S):
        cache.mkdir(parents=True, exist_ok=True)
        architectures = list(dict.fromkeys(each.architecture for each in processors))
        emulators = [_emulator(architecture, cache) for architecture in architectures]
        if not all(emulator.exists() for emulator in emulators):
            with working("portability: fetching QEMU"):
                _unpack_emulators(emulators, cache)
        for architecture in architectures:
            root, site = cache / architecture, _site(architecture, requirements, cache)
            if not root.exists():
                with working(f"portability: fetching Python for {architecture}"):
                    _unpack_python(architecture, root, cache)
            if not site.exists():
                with working(f"portability: fetching {_one_line(requirements)} for {architecture}"):
                    _install(architecture, requirements, site, cache)


def emulated(processor: Processor, requirements: Path, cache: Path = CACHE) -> tuple[list[str], dict[str, str]]:
    """Return the command that starts Python on a processor, and its environment. See `prepare`."""
    root = cache / processor.architecture
    command = [str(_emulator(processor.architecture, cache)), "-cpu", processor.cpu, "-L", str(root)]
    environment = {"PYTHONPATH": str(_site(processor.architecture, requirements, cache)), "OMP_NUM_THREADS": "1"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}  # of this processor
    return [*command, str(root / f"usr/bin/python{PYTHON}"), "-B"], own | environment


def _emulator(architecture: str, cache: Path) -> Path:
    return cache / f"qemu-{architecture}"


def _site(architecture: str, requirements: Path, cache: Path) -> Path:
    """Return the folder of the Python packages: one for each architecture and content of requirements.txt."""
    return cache / f"site-{architecture}-{content_sha256(requirements)[:16]}"


def _one_line(requirements: Path) -> str:
    return " ".join(requirements.read_text("utf-8").split())


def _unpack_emulators(emulators: Sequence[Path], cache: Path) -> None:
    """Fetch QEMU for this machine, which has an emulator for each architecture, and keep some of them."""
    names = {f"./usr/bin/{emulator.name}": emulator for emulator in emulators}
    with scratch_folder(cache) as scratch:
        _apt(_run(["dpkg", "--print-architecture"]).strip(), scratch, "qemu-user")
        (archive,) = scratch.rglob("qemu-user_*.deb")
        unpack = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        with (
            subprocess.Popen(unpack, stdout=subprocess.PIPE) as unpacking,
            tarfile.open(fileobj=unpacking.stdout, mode="r|") as files,
        ):
            for file in files:
                if file.name in names:
                    files.extract(file, scratch, filter="data")
        for name, emulator in names.items():
            (scratch / name).rename(emulator)


def _unpack_python(architecture: str, root: Path, cache: Path) -> None:
    """Fetch Python and the libraries that it needs, and unpack them as the root folder of another system."""
    with scratch_folder(cache) as scratch:
        _apt(_DEBIAN_NAMES[architecture], scratch, f"python{PYTHON}", "libstdc++6")
        made = scratch / "root"
        (made / "usr").mkdir(parents=True)
        for link in ("bin", "lib", "lib64"):  # where programs look for the loader of libraries
            (made / "usr" / link).mkdir()
            (made / link).symlink_to(f"usr/{link}")
        for archive in scratch.rglob("*.deb"):
            _run(["dpkg-deb", "--extract", str(archive), str(made)])
        made.rename(root)


def _install(architecture: str, requirements: Path, site: Path, cache: Path) -> None:
    platforms = [f"--platform=manylinux{'' if '_' not in each else '_'}{each}_{architecture}" for each in _WHEELS]
    if not requirements.read_text("utf-8").strip():
        site.mkdir()
        return
    with scratch_folder(cache) as scratch:
        words = [
            "--quiet",
            "--disable-pip-version-check",
            "--no-compile",
            "--only-binary=:all:",
            f"--python-version={PYTHON}",
        ]
        target = ["--target", str(scratch / "site"), "--requirement", str(requirements)]
        _run([sys.executable, "-m", "pip", "install", *words, *platforms, *target])
        (scratch / "site").rename(site)


def _apt(architecture: str, scratch: Path, *packages: str) -> None:
    """Fetch packages of an architecture and all that they need into a folder, whatever this machine has and runs."""
    source, status = scratch / "sources.list", scratch / "status"
    source.write_text(f"deb [signed-by={KEYRING}] {MIRROR} {DEBIAN} main\n", "utf-8")
    status.touch()  # nothing is installed
    for folder in ("lists", "archives"):
        (scratch / folder / "partial").mkdir(parents=True)
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "1",
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "-",
        "Dir::State": scratch,
        "Dir::State::status": status,
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch,
        "Dir::Cache::archives": scratch / "archives",
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", "-qq", *given, "update"])
    _run(["apt-get", "-qq", "-y", *given, "install", "--download-only", "--no-install-recommends", *packages])


def _run(command: list[str]) -> str:
    """Return the output of a command. Raises InputError, in one line, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        wrong = next((line for line in lines if line.startswith(("E:", "ERROR:"))), lines[-1])
        raise InputError(f"portability: {Path(command[0]).name} fails: {wrong}")
    return done.stdout
