"""`hbt predict --input FOLDER`: label many files, each of which is done or not, so that a killed job resumes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from glob import has_magic
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

from exporters.loaders.base.files import sha256_of as file_sha256
from exporters.loaders.command.label_file import BATCH
from toolkit.data.batches.layout import KINDS, Layout
from toolkit.data.batches.reading import first_texts, read_batches
from toolkit.data.decoding import refuse_unknown
from toolkit.manifest import MANIFEST_FILE, sha256_of
from toolkit.package import labels_of
from toolkit.utils import console
from toolkit.utils.errors import InputError
from toolkit.utils.files import read_json, whole_file, write_text
from toolkit.utils.locks import locked
from toolkit.workflows.scoring.flags import Flags, flags_of
from toolkit.workflows.scoring.labeled_file import say_blank, write_labeled
from toolkit.workflows.scoring.labeler import SUFFIXES, Labeled, Labeling, TableOptions, Task, layout_to_label
from toolkit.workflows.scoring.pool import labeling, processes_for

RECORDS = ".hbt-predict"
"""Folder in the output with a JSON file for each labeled file: of which input and package it is."""


@dataclass(frozen=True)
class Job:
    """One file to label. `name` is its path below the folders of input and output."""

    name: str
    source: Path
    out: Path
    record: Path


@dataclass(frozen=True)
class FolderResult:
    """What was done. `dataclasses.asdict` makes it JSON."""

    output: str
    files: int
    """Labeled by this command."""
    skipped: int
    """Found complete, from the same input and package."""
    failed: tuple[str, ...]
    """One line for each file that cannot be labeled."""
    rows: int
    seconds: float
    processes: int

    @property
    def rows_per_second(self) -> float:
        """Rows labeled per second, with reading and writing."""
        return self.rows / max(self.seconds, 1e-9)


def is_many(source: Path) -> bool:
    """Return whether `--input` names a folder or, with a wildcard, a set of files."""
    return source.is_dir() or (has_magic(str(source)) and not source.exists())


def label_files(
    package: Path, source: Path, output: Path, options: TableOptions, processes: int | None = None, force: bool = False
) -> FolderResult:
    """Label every file of a folder, or of a glob pattern, into the folder `output`, under its path.

    A file that is complete there, from the same content and package, is skipped. A file that cannot be read is one line
    on stderr, and the others are labeled.

    options: how the files are read.
    processes: None uses every core if there is enough to do.
    force: overwrite files of `output` that no earlier command has written for this input.
    Raises: InputError if there is no such file, `output` cannot be written, or the package does not load.
    """
    refuse_unknown(options.encoding)
    jobs = find_jobs(source, output)
    identity = {"package": sha256_of(package / MANIFEST_FILE) if (package / MANIFEST_FILE).is_file() else None}
    labels = labels_of(package) if identity["package"] else _not_a_package(package)
    identity |= asdict(options)
    started = time.monotonic()
    with locked(output, "give another --output"):
        pending = [job for job in jobs if not is_done(job, identity)]
        foreign = next((job.out for job in pending if job.out.exists() and not job.record.exists()), None)
        if foreign is not None and not force:
            raise InputError(f"{foreign}: exists; give another --output, or overwrite it with --force")
        count = processes_for(sum(job.source.stat().st_size for job in pending), processes)
        failed: list[str] = []
        rows = done = 0
        if pending:
            flags = flags_of(package)
            probe, known = _probe(jobs, options)
            with labeling(package, probe, count) as workers:

                def ahead(job: Job) -> Callable[[], Layout]:
                    if job.name in known:
                        return lambda: known[job.name]
                    return workers.ahead(layout_to_label, job.source, job.out, options)

                for layout, error in _label_jobs(workers, pending, ahead, identity, labels, flags):
                    done, rows = done + (error is None), rows + (layout.rows if layout and error is None else 0)
                    failed += [] if error is None else [error]
        return FolderResult(
            str(output), done, len(jobs) - len(pending), tuple(failed), rows, time.monotonic() - started, count
        )


def find_jobs(source: Path, output: Path) -> list[Job]:
    """Return the files to label, in the order of their names. Hidden files and files of other types are left out.

    Raises: InputError if there are none, two have the same output, or the output is not a folder of its own.
    """
    if source.is_dir():
        root, found = source, [path for path in source.rglob("*") if path.is_file()]
    else:
        root = Path(*takewhile(lambda part: not has_magic(part), source.parts[:-1]))
        found = [path for path in root.glob(str(source.relative_to(root))) if path.is_file()]
    if not output.is_dir() and (output.exists() or output.suffix.lower() in SUFFIXES):
        raise InputError(f"--output {output}: is a file; --input {source} names several, so give a folder")
    out = output.resolve()
    if (source.is_dir() and out.is_relative_to(root.resolve())) or any(p.resolve().is_relative_to(out) for p in found):
        raise InputError(f"--output {output}: is in --input {source}, whose files it would join; give a folder outside")
    jobs: dict[str, Job] = {}
    for path in sorted(found):
        relative = path.relative_to(root)
        if path.suffix.lower() not in KINDS or any(part.startswith((".", "_")) for part in relative.parts):
            continue
        suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".csv"
        name = relative.with_suffix(suffix).as_posix()
        if name in jobs:
            raise InputError(f"{jobs[name].source} and {path}: both would become {name}; rename one")
        jobs[name] = Job(name, path, output / name, output / RECORDS / f"{name}.json")
    if not jobs:
        raise InputError(f"--input {source}: no file there that ends in {', '.join(KINDS)}")
    return list(jobs.values())


def is_done(job: Job, identity: dict[str, Any]) -> bool:
    """Return whether the output of a job is complete and of the same input, package and options."""
    record = read_json(job.record)
    if not isinstance(record, dict) or any(record.get(key) != value for key, value in identity.items()):
        return False
    with suppress(OSError):
        sizes = record.get("input_bytes") == job.source.stat().st_size, record.get("bytes") == job.out.stat().st_size
        return all(sizes) and _hashes(job.source, job.out) == (record.get("input_sha256"), record.get("sha256"))
    return False


def _hashes(source: Path, out: Path) -> tuple[str, str]:
    return file_sha256(source), file_sha256(out)


def _not_a_package(package: Path) -> tuple[str, ...]:
    raise InputError(f"{package}: not a package (no {MANIFEST_FILE}); make one with hbt compress")


def _probe(jobs: list[Job], options: TableOptions) -> tuple[list[str], dict[str, Layout]]:
    """Return the first texts of all files, the same when the job resumes, and the layouts that were needed for them."""
    found: list[str] = []
    layouts: dict[str, Layout] = {}
    for job in jobs:
        with suppress(InputError):
            layouts[job.name] = layout_to_label(job.source, job.out, options)
            found += first_texts(layouts[job.name], BATCH - len(found))
        if len(found) >= BATCH:
            break
    return found, layouts


Ahead = Callable[[Job], Callable[[], Layout]]
"""Starts the survey of a file; what it returns waits for it."""


def _label_jobs(
    workers: Labeling,
    jobs: list[Job],
    ahead: Ahead,
    identity: dict[str, Any],
    labels: tuple[str, ...],
    flags: Flags,
) -> Iterator[tuple[Layout | None, str | None]]:
    """Label each file; yield its layout, or the line that says what is wrong with it."""
    layouts: dict[int, Layout] = {}
    size = [job.source.stat().st_size for job in jobs]
    with console.bar("predicting", sum(size), "rows") as advance:
        labeled = workers.label(_tasks(jobs, ahead, layouts))
        for number, group in groupby(labeled, key=lambda pair: pair[0]):
            job, layout = jobs[number], layouts.get(number)
            results = _counted((result for _, result in group), layout, size[number], advance)
            try:
                if layout is None:  # the only result is why there is none
                    raise next(error for error in results if isinstance(error, InputError))
                _write(job, layout, results, identity, labels, flags)
            except InputError as error:
                console.say(console.printable(f"hbt: {error}"))
                yield layout, str(error)
            else:
                yield layout, None


def _tasks(jobs: list[Job], ahead: Ahead, layouts: dict[int, Layout]) -> Iterator[tuple[int, Task | InputError]]:
    """Yield the batches of all files, and the error of a file that cannot be read. The next file is surveyed ahead."""
    surveys: list[Callable[[], Layout]] = []
    for number, job in enumerate(jobs):
        surveys += map(ahead, jobs[len(surveys) : number + 2])
        try:
            layouts[number] = surveys[number]()
            for batch in read_batches(layouts[number]):
                yield number, Task(batch, layouts[number], job.out.suffix.lower())
        except InputError as error:
            yield number, error


def _counted(
    results: Iterator[Labeled | InputError], layout: Layout | None, size: int, advance: console.Advance
) -> Iterator[Labeled | InputError]:
    """Pass results on, and show how much of the input, in bytes, they are."""
    rows = steps = 0
    for result in results:
        yield result
        if isinstance(result, Labeled) and layout is not None:
            rows += result.rows
            before, steps = steps, size * rows // layout.rows
            advance(steps - before, result.rows)


def _write(
    job: Job,
    layout: Layout,
    results: Iterator[Labeled | InputError],
    identity: dict[str, Any],
    labels: tuple[str, ...],
    flags: Flags,
) -> None:
    """Write one labeled file and, just before it gets its name, the record of what it is."""
    try:
        before, input_sha256 = job.source.stat(), file_sha256(job.source)
        job.out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(job.out) as partial:
            blank = write_labeled(results, layout, partial, job.out.suffix.lower(), labels, flags)
            record = identity | {
                "input": str(job.source),
                "input_bytes": before.st_size,
                "input_sha256": input_sha256,
                "rows": layout.rows,
                "bytes": partial.stat().st_size,
                "sha256": file_sha256(partial),
            }
            if job.source.stat().st_mtime_ns != before.st_mtime_ns:
                raise InputError(f"{job.source}: has changed while it was read; try again")
            write_text(job.record, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{job.out}: cannot be written ({error.strerror}); give another --output") from None
    say_blank(layout, blank)
