"""`hbt predict --engine spark|ray`: the engine reads, spreads and writes the rows; the package goes to its workers."""

import io
import logging
import os
import re
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.loaders.command.label_file import ANSWER, BLANK, LABEL, PROBABILITY, safe_batch_size
from exporters.loaders.command.model import UNSURE
from toolkit import package as packages
from toolkit.data.batches.layout import survey
from toolkit.data.batches.reading import ROWS
from toolkit.data.columns import TEXT_COLUMNS, find_column
from toolkit.data.decoding import UTF_8_BOM
from toolkit.data.tables import Dialect, Table, delimited_rows
from toolkit.evaluation.reliability import scope
from toolkit.utils import letters
from toolkit.utils.errors import InputError, reason_of
from toolkit.utils.overwrite import refuse_no_folder
from toolkit.utils.scratch import remove_folder, remove_leftovers, scratch_name
from toolkit.workflows.scoring import remote
from toolkit.workflows.scoring.flags import flags_of
from toolkit.workflows.scoring.folder import FolderResult, find_jobs
from toolkit.workflows.scoring.labeler import TableOptions
from toolkit.workflows.scoring.pool import THREADS, processes_for

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
_ENGINE = re.compile(r"(spark|ray)(?:://(.+))?")


def engine_of(given: str) -> tuple[str, str | None]:
    """Return the name of an engine and the address of its cluster; None is this machine. Raises: InputError."""
    found = _ENGINE.fullmatch(given)
    if found is None:
        raise InputError(f"--engine {given}: give spark, spark://HOST:PORT, ray, ray://HOST:PORT, or none of them")
    name, address = found[1], found[2]
    if name == "spark" and address is not None and re.fullmatch(r"[^/\[]+:\d+", address):
        address = given  # of a standalone cluster; others, such as yarn, are named without their host
    return name, address


def label_on_cluster(
    engine: str, package: Path, source: Path, output: Path, options: TableOptions, workers: int | None, force: bool
) -> FolderResult:
    """Label all files of a folder or pattern, of one format, into Parquet files in the new folder `output`.

    engine: spark or ray, with :// and the address of a cluster, or this machine.
    workers: cores or actors that label; None takes one a core of this machine, or all that the Spark cluster gives.
    Raises: InputError for what cannot be read, or if the engine is not installed or fails.
    """
    name, address = engine_of(engine)
    jobs = find_jobs(source, output)
    formats = {FORMATS.get(job.source.suffix.lower(), job.source.suffix) for job in jobs}
    if len(formats) > 1 or not formats <= set(FORMATS.values()):
        raise InputError(f"--input {source}: --engine reads CSV, JSON Lines or Parquet, of one kind; give a pattern")
    refuse_no_folder(output, "--output")
    if output.exists() and not force:
        raise InputError(f"{output}: exists; give another --output, or replace it with --force")
    model = packages.load(package, THREADS)
    golden = [entry["text"] for entry in packages.read_manifest(package)["golden"]]
    flags = flags_of(package)
    how = {"batch_size": safe_batch_size(model, golden), "added": flags.columns, "blank": BLANK.pattern}
    how |= {"below": flags.below, "unsure": UNSURE, "scope": flags.scope}
    first = survey(jobs[0].source, options.text_column, options.encoding, options.separator)
    count = processes_for(sum(job.source.stat().st_size for job in jobs), workers)
    started = time.monotonic()
    files = [os.fspath(job.source.resolve()) for job in jobs]
    run = {"spark": _spark, "ray": _ray}[name]
    with _whole(output) as partial:
        try:
            rows = run(
                _Work(address, package.resolve(), files, formats.pop(), first.dialect, options, how, partial, count)
            )
        except ImportError as error:
            raise InputError(f"--engine {name} needs {error.name}: pip install 'hbt-toolkit[{name}]'") from None
        except InputError:
            raise
        except Exception as error:  # the engines raise types of their own
            raise InputError(f"--engine {engine}: {reason_of(error)}") from error
    return FolderResult(str(output), len(jobs), 0, (), rows, time.monotonic() - started, count)


@dataclass(frozen=True)
class _Work:
    """What an engine is to do."""

    address: str | None
    package: Path
    files: list[str]
    format: str
    dialect: Dialect
    """Of the first CSV file, and so of all."""
    options: TableOptions
    how: dict[str, Any]
    """Arguments of `remote.Labeler`, but for the text column."""
    out: Path
    count: int


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """Yield a folder beside `output`, which it becomes when the block ends; after an error it is removed."""
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output.parent)  # of a job that was killed
    partial = output.with_name(scratch_name())
    try:
        yield partial
        remove_folder(output)
        partial.rename(output)
    finally:
        remove_folder(partial)


def _text_column(columns: list[str], source: str, options: TableOptions) -> str:
    for name in (LABEL, PROBABILITY, ANSWER, scope.COLUMN):
        if name in columns:
            raise InputError(f"{source}: already has a column {name!r}; rename it")
    table = Table(source, {name: [] for name in columns})
    return find_column(table, options.text_column, "--text-column", TEXT_COLUMNS)


def _spark(work: _Work) -> int:
    from pyspark import cloudpickle
    from pyspark.sql import SparkSession
    from pyspark.sql.types import DoubleType, StringType, StructField, StructType

    for module in (remote, scope, letters):
        cloudpickle.register_pickle_by_value(module)
    if work.address is None:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        SparkSession.builder.master(work.address or f"local[{work.count}]")
        .appName("hbt predict")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", ROWS)
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
    try:
        spark.sparkContext.addFile(work.package.as_uri(), recursive=True)
        uris = [Path(file).as_uri() for file in work.files]
        if work.format == "csv":
            dialect = {"sep": work.dialect.separator, "encoding": work.dialect.encoding, "escape": '"'}
            read = spark.read.options(header=True, multiLine=True, **dialect).csv(uris)
        else:
            read = getattr(spark.read, work.format)(uris)
        column = _text_column(read.columns, work.files[0], work.options)
        if not isinstance(read.schema[column].dataType, StringType):
            raise InputError(f"{work.files[0]}: column {column!r} is not text; name the text column with --text-column")
        kinds = {PROBABILITY: DoubleType()}
        added = [StructField(name, kinds.get(name, StringType())) for name in work.how["added"]]
        schema = StructType([*read.schema.fields, *added])
        if read.rdd.getNumPartitions() < work.count:
            read = read.repartition(work.count)
        label = remote.partition_labeler(work.package.name, work.how | {"text_column": column})
        read.mapInArrow(label, schema).write.parquet(work.out.as_uri())
        return int(spark.read.parquet(work.out.as_uri()).count())
    finally:
        spark.stop()


def _ray(work: _Work) -> int:
    import ray
    import ray.cloudpickle
    import ray.data

    for module in (remote, scope, letters):
        ray.cloudpickle.register_pickle_by_value(module)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    where: dict[str, Any] = {"num_cpus": work.count + 1, "include_dashboard": False} if work.address is None else {}
    ray.init(f"ray://{work.address}" if work.address else None, log_to_driver=False, logging_level="ERROR", **where)
    try:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        read = _ray_rows(ray.data, work)
        schema = read.schema()
        column = _text_column(schema.names, work.files[0], work.options)
        archive = [ray.put(_tar(work.package))]
        labeled = read.map_batches(
            remote.UnpackedLabeler,
            fn_constructor_args=(archive, work.how | {"text_column": column}),
            batch_format="pyarrow",
            batch_size=ROWS,
            compute=ray.data.ActorPoolStrategy(size=work.count),
            num_cpus=1,
        )
        labeled.write_parquet(os.fspath(work.out))
        return int(ray.data.read_parquet(os.fspath(work.out)).count())
    finally:
        ray.shutdown()


def _ray_rows(data: Any, work: _Work) -> Any:
    """Return Ray's dataset of the files. data: the module ray.data."""
    import pyarrow
    from pyarrow import csv

    if work.format != "csv":
        return getattr(data, f"read_{work.format}")(work.files)
    separator, encoding = work.dialect.separator, work.dialect.encoding
    with Path(work.files[0]).open(encoding=encoding, newline="") as stream:
        header = next(delimited_rows(stream, Path(work.files[0]), separator))
    return data.read_csv(
        work.files,
        read_options=csv.ReadOptions(encoding="utf-8" if encoding == UTF_8_BOM else encoding),
        parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(header, pyarrow.string()), strings_can_be_null=False
        ),
    )


def _tar(package: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file in sorted(package.rglob("*")):
            if file.is_file():
                archive.add(file, file.relative_to(package).as_posix())
    return packed.getvalue()
