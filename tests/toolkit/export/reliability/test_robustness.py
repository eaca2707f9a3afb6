"""Flips and macro-F1 on perturbed rows, and functional tests, against counts by hand."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import Hbt
from toolkit.data.corpus import Corpus
from toolkit.export.reliability.robustness import functional_facts, robustness_facts
from toolkit.utils.errors import InputError


def by_word(texts: list[str]) -> np.ndarray:
    return np.array([int("sun" in text.split()) for text in texts])


def constant(texts: list[str]) -> np.ndarray:
    return np.zeros(len(texts), dtype=np.int64)


def test_flips_are_counted_against_the_unchanged_rows(toy: Corpus) -> None:
    found = robustness_facts(toy, {"word": by_word, "constant": constant}, 30)  # type: ignore[dict-item]
    assert found["rows"] == 30 and found["clean"]["word"] == 1.0
    for line in found["changes"].values():
        assert line["models"]["constant"] == {"flips": 0, "macro_f1": pytest.approx(found["clean"]["constant"])}
        assert 0 <= line["models"]["word"]["flips"] <= line["changed"] <= 30
    assert found["changes"]["other case"]["models"]["word"]["flips"] > 0  # SUN is not sun
    assert found["changes"]["emoji added"]["models"]["word"]["flips"] == 0
    assert found == robustness_facts(toy, {"word": by_word, "constant": constant}, 30)  # type: ignore[dict-item]


def test_functional_tests_are_counted_by_functionality(tmp_path: Path) -> None:
    file = tmp_path / "tests.csv"
    file.write_text("text,label,functionality\nsun,yes,plain\nsea,no,plain\nno sun,no,negation\n", "utf-8")
    found = functional_facts(str(file), ("no", "yes"), by_word)  # type: ignore[arg-type]
    assert found == {
        "rows": 3,
        "right": 2,
        "functionalities": [
            {"functionality": "plain", "rows": 2, "right": 2},
            {"functionality": "negation", "rows": 1, "right": 0},
        ],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("text,label\na,no\n", "no column functionality"),
        ("text,label,functionality\na,maybe,x\n", "'maybe'"),
    ],
)
def test_unusable_functional_tests_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "tests.csv"
    if content is not None:
        file.write_text(content, "utf-8")
    with pytest.raises(InputError, match=message):
        functional_facts(str(file), ("no", "yes"), by_word)  # type: ignore[arg-type]


def test_a_missing_file_is_reported_before_anything_is_made(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("compress", "runs/tiny", "-o", "models/x", "--functional-tests", "gone.csv")
    assert hbt(*arguments) == 2
    assert "--functional-tests gone.csv: no such file" in capsys.readouterr().err
    assert not Path("models/x").exists()
