import random
import re
from pathlib import Path

import pandas
import pytest
from mlflow.utils.validation import _validate_metric_name

from toolkit.evaluation.label_keys import LONGEST_KEY, label_keys, label_of, label_titles
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration
from toolkit.stages.results_table import Row, write_pipeline_summary

ODD = (
    ("C", "c"),
    ("non_hate", "non hate", "non-hate", "Non-Hate"),
    ("ভালো", "ভালি", "ভাল"),
    ("km/h/", "a|b", "../x", "a//b", "/"),
    ("_", "__", ".", "..", ",", '"', "'", "a\nb", "\x00", "\u200d", "🙂"),
    (".2f.", "/", "2f", ".2e."),
    ("straße", "strasse", "STRASSE"),
    (" a", "a ", "a  b", "a b"),
    ("x" * 300, "x" * 301, "ো" * 100),
    ("positive", "negative"),
    ("positive", "Negative"),
)


@pytest.mark.parametrize(
    "labels",
    [("non_hate", "hate"), ("negative", "positive"), ("calm", "very bad", "0"), ("negative", "neutral", "positive")],
)
def test_plain_labels_stay_as_they_are(labels: tuple[str, ...]) -> None:
    assert label_keys(labels) == labels


@pytest.mark.parametrize(
    ("label", "title"),
    [("hate", "Hate"), ("non_hate", "Non-Hate"), ("very bad", "Very-Bad"), ("0", "0"), ("ভালো", "ভালো"), ("_", "_")],
)
def test_labels_are_titled_as_in_the_published_tables(label: str, title: str) -> None:
    assert label_titles((label,)) == (title,)


@pytest.mark.parametrize("labels", ODD)
def test_odd_labels_are_unique_and_safe_and_reversible(labels: tuple[str, ...]) -> None:
    check(labels)


def check(labels: tuple[str, ...]) -> None:
    keys, titles = label_keys(labels), label_titles(labels)
    assert len({key.casefold() for key in keys}) == len(labels)
    assert len(set(titles)) == len(labels)
    for label, key, title in zip(labels, keys, titles, strict=True):
        _validate_metric_name(f"fold_1_epoch_10_val_f1_{key}")
        assert title
        assert len(key) <= LONGEST_KEY
        assert re.fullmatch(r"[\w\-. ]+", key)
        if len(label) < 20:
            assert label_of(key) == label


def test_random_labels_are_unique_and_safe_and_reversible() -> None:
    dice = random.Random(0)
    alphabet = "aAbB_ -./|,é\u0301ßsSভালো০\n\u200dİi🙂2fe"
    for _ in range(2_000):
        check(tuple({"".join(dice.choices(alphabet, k=dice.randint(1, 6))) for _ in range(dice.randint(2, 6))}))


def test_no_label_replaces_the_metric_of_another() -> None:
    truth, scores = [0, 0, 0, 1], [0.1, 0.2, 0.9, 0.9]
    for labels in (("positive", "negative"), ("C", "c")):
        found = calculate_metrics_with_threshold_exploration(truth, scores, 0.5, labels)  # type: ignore[arg-type]
        first, second = (found[f"f1_{key}"] for key in label_keys(labels))
        assert (found["f1_negative"], found["f1"]) == (first, second)
        assert first != second


def test_every_label_has_a_column_of_its_own(tmp_path: Path) -> None:
    labels = ("non_hate", "non hate", "C", "c", "a,b")
    values = {f"f1_{key}": i / 10 for i, key in enumerate(label_keys(labels))}
    row = Row("one", {"accuracy": 0.5, "macro_f1": 0.25, "roc_auc": 0.5} | values)
    write_pipeline_summary([row], labels, tmp_path / "summary.csv")
    table = pandas.read_csv(tmp_path / "summary.csv")
    assert [table[f"F1 ({title})"][0] for title in label_titles(labels)] == [0, 0.1, 0.2, 0.3, 0.4]
