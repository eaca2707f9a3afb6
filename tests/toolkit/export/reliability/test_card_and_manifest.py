"""Every figure of the card is in the manifest."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helpers import Finished

NUMBER = re.compile(r"(?<![\w.,-])[-+]?\d[\d,]*\.\d+(?:e-?\d+)?(?![\w.])")
"""A number with decimals: the integers of a card are also parts of names."""


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def test_every_decimal_number_of_the_card_is_a_rounded_number_of_the_manifest(at_home: Finished) -> None:
    package = Path("models/tiny-onnx-int8")
    manifest = json.loads((package / "manifest.json").read_text("utf-8"))
    known = [*numbers(manifest["evaluation"]), manifest["tolerance"]]
    slices = [each for report in manifest["evaluation"]["forgotten"] for each in report["slices"]]
    known += [value / 2**20 for value in known if value > 1000] + [value / 1e6 for value in known if value > 1000]
    known += [each["difference"] for each in slices] + [each / 100 for each in (0.5, 1.0)]
    card = (package / "README.md").read_text("utf-8")
    for section in ("What compression forgot", "Calibration", "Robustness", "Paired comparisons", "Results"):
        text = card.split(f"## {section}\n")[1].split("\n## ")[0]
        found = NUMBER.findall(text)
        assert found, section
        for shown in found:
            value, decimals = float(shown.replace(",", "")), len(shown.split("e")[0].split(".")[1])
            close = 0.5001 * 10**-decimals if "e" not in shown else 0.06 * abs(value)
            assert any(min(abs(each - value), abs(100 * each - value)) <= close for each in known), (section, shown)
