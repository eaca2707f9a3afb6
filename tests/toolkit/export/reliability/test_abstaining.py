"""A package made with --abstain-risk says `unsure` everywhere, and refuses a risk that it cannot keep."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import Hbt
from toolkit import package

OUT = Path("models/unsure")
MADE = ("compress", "runs/tiny", "--target", "onnx-fp32", "--search", "off", "-o", str(OUT), "--force")


@pytest.mark.slow
def test_the_package_answers_unsure_below_its_threshold(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt(*MADE, "--abstain-risk", "0.001") == 2
    error = capsys.readouterr().err
    assert "--abstain-risk 0.001" in error and "give a larger risk" in error
    assert not OUT.exists()
    assert hbt(*MADE, "--abstain-risk", "0.75", "--confidence", "0.5") == 0
    stated = json.loads((OUT / "config.json").read_text("utf-8"))["abstain"]
    facts = package.read_manifest(OUT)["evaluation"]["abstention"]
    assert stated == {"below": facts["threshold"], "risk": 0.75, "confidence": 0.5}
    assert facts["test"]["answered"] <= facts["test"]["rows"]
    card = (OUT / "README.md").read_text("utf-8").split("## Abstention")[1].split("\n## ")[0]
    assert f"({100 * facts['test']['coverage']:.1f} %) are answered" in card
    assert (OUT / "abstention.svg").is_file()
    assert package.verify(OUT).problems == []

    # With a threshold between the two scores, one text is answered.
    texts = ["ক্যামেরা ভালো", "ব্যাটারি একদম বাজে"]
    scores = [score for _, score in package.load(OUT).predict(texts)]
    config = json.loads((OUT / "config.json").read_text("utf-8"))
    config["abstain"]["below"] = sum(scores) / 2
    (OUT / "config.json").write_text(json.dumps(config), "utf-8")
    from tests.helpers import rehash

    rehash(OUT)
    expected = [label if score >= sum(scores) / 2 else "unsure" for label, score in package.load(OUT).predict(texts)]
    assert sorted(answer == "unsure" for answer in expected) == [False, True]
    capsys.readouterr()
    assert hbt("predict", str(OUT), *texts) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == expected
    assert hbt("predict", str(OUT), *texts, "--json") == 0
    assert [json.loads(line)["answer"] for line in capsys.readouterr().out.splitlines()] == expected
    with Path("new.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts), [""]])
    assert hbt("predict", str(OUT), "--input", "new.csv", "--output", "labeled.csv") == 0
    script = [sys.executable, str(OUT / "how_to_load.py")]
    done = subprocess.run([*script, *texts], capture_output=True, text=True, encoding="utf-8", check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == expected
    subprocess.run([*script, "--file", "new.csv", "--output", "other.csv"], check=True, capture_output=True)
    for name in ("labeled.csv", "other.csv"):
        with Path(name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["answer"] for row in rows] == [*expected, ""]
        assert [row["predicted_label"] for row in rows[:2]] == [label for label, _ in package.load(OUT).predict(texts)]


@pytest.mark.parametrize(
    ("option", "value"), [("--abstain-risk", "0"), ("--abstain-risk", "1.5"), ("--confidence", "1")]
)
def test_impossible_values_are_refused(
    hbt: Hbt, capsys: pytest.CaptureFixture[str], option: str, value: str, tmp_path: Path
) -> None:
    assert hbt("compress", str(tmp_path), option, value) == 2
    assert f"{option}: {float(value)} is outside (0, 1)" in capsys.readouterr().err
