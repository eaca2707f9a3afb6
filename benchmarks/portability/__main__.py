"""Compare the answers of packages on this machine with those on other, emulated processors.

    python -m benchmarks.portability models/NAME [models/NAME …] --data FILE --rows 500 --out portability.csv

Each package is run by its own how_to_load.py, one text at a time on one thread: the first texts of the file in a fixed
random order, and the golden texts of the package. The table has the number of changed labels and the largest difference
of a score (probability) and of a logit from this machine, and the largest difference of a golden score from
manifest.json. The exit code is 1 if a label changes or a score differs by more than the tolerance of the package.
The first call fetches about 150 MB into the cache; a text takes about 30 times as long as without emulation.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.portability.compare import compare, within_tolerance
from benchmarks.portability.processors import CACHE, PROCESSORS, Processor
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import load_corpus
from toolkit.latency.timing import fixed_order
from toolkit.utils.console import print_table
from toolkit.utils.errors import InputError
from toolkit.utils.files import write_lines


def main() -> None:
    given = _arguments()
    try:
        texts = load_corpus(CorpusSettings(data=given.data)).texts
        chosen = [texts[i] for i in fixed_order(texts)[: given.rows]]
        lines = compare(given.packages, chosen, _processors(given.processors), given.cache, given.record)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if given.out:
        write_lines(lines, given.out)
    cells = [{name: str(value) for name, value in line.items()} for line in lines]
    print_table(cells, "portability", left=("package", "processor"))
    sys.exit(0 if all(map(within_tolerance, lines)) else 1)


def _processors(names: list[str]) -> list[Processor]:
    known = {each.cpu.lower(): each for each in PROCESSORS}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        raise InputError(f"--processors: {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name.lower()] for name in names]


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.portability", description=summary)
    parser.add_argument("packages", nargs="+", type=Path, help="folders of packages that you made")
    parser.add_argument("--data", required=True, help="file with texts and labels, or demo")
    parser.add_argument("--rows", type=int, default=500, help="number of texts (default 500)")
    parser.add_argument("--processors", nargs="+", default=[each.cpu for each in PROCESSORS], help="default: all")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"folder of the emulators (default {CACHE})")
    parser.add_argument("--record", action="store_true", help="add the processors that agree to each manifest.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
