"""Defaults that do not mislead: the demo corpus, untrained encoders, encoders of other languages, and the next step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Finished, Hbt
from toolkit.config.toml_file import recipe_from
from toolkit.evaluation.standing import Standing
from toolkit.modeling.known_encoders import BANGLA, LATIN, MULTILINGUAL, unfit_encoder
from toolkit.utils.errors import InputError

ENGLISH, BENGALI = "the camera is good and it works for you", "ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে"


def test_training_without_data_says_that_it_is_the_demo_corpus(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise InputError("seen")

    monkeypatch.setattr("toolkit.workflows.pipeline._try_models", stop)
    hbt("train", "--model", "shape:1x32")
    assert "the data are the embedded demo corpus" in capsys.readouterr().err
    hbt("train", "--data", "comments.csv", "--model", "shape:1x32")
    assert capsys.readouterr().err == "hbt: seen\n"


def test_an_untrained_encoder_gets_a_learning_rate_that_works_unless_one_is_given(tmp_path: Path) -> None:
    assert recipe_from(None, {"model": "shape:1x32"}).training.learning_rate == 1e-3
    assert recipe_from(None, {"model": "shape:1x32", "learning_rate": 2e-5}).training.learning_rate == 2e-5
    assert recipe_from(None, {"model": "shape:1x32", "learning_rate": "auto"}).training.learning_rate == "auto"
    assert recipe_from(None, {"model": "folder"}).training.learning_rate == 2e-5
    (tmp_path / "recipe.toml").write_text("[training]\nlearning_rate = 3e-4\n[model]\nmodel = 'shape:1x32'\n", "utf-8")
    assert recipe_from(tmp_path / "recipe.toml", {}).training.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("model", "text", "better"),
    [
        (BANGLA.model, ENGLISH, LATIN.model),
        (LATIN.model, BENGALI, BANGLA.model),
        (LATIN.model, "die Kamera ist gut, aber der Akku hält nicht", MULTILINGUAL.model),
        (BANGLA.model, BENGALI, None),
        (MULTILINGUAL.model, ENGLISH, None),
        ("own/folder", ENGLISH, None),
    ],
)
def test_an_encoder_for_another_language_is_named_with_a_better_one(model: str, text: str, better: str | None) -> None:
    found = unfit_encoder(model, [text])
    assert (f"--model {better} is for" in found) if better else found == ""


def test_training_says_so_before_it_loads_the_encoder(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"the row {i} is for you and it has words,{'ab'[i % 2]}" for i in range(60)]
    (workplace / "english.csv").write_text("\n".join(["text,label", *lines]) + "\n", "utf-8")
    assert hbt("train", "--data", "english.csv") == 2  # no hub here
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == (
        "--model sagorsarker/bangla-bert-base: is for texts in Bangla, and 100% of the letters here are Latin; "
        "--model sentence-transformers/all-MiniLM-L6-v2 is for English"
    )


def test_a_training_that_fails_the_linear_baseline_does_not_lead_to_compress(
    at_home: Finished, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = Standing(60, 0.5, (0.4, 0.6), 0.9, (-0.5, -0.3), 0.3)
    for standing, leads in ((worse, False), (replace(worse, macro_f1=0.95, difference_interval=(0.01, 0.1)), True)):
        outcome = replace(at_home.outcome, standing=standing)
        monkeypatch.setattr("toolkit.workflows.pipeline.train_pipeline", lambda *_, made=outcome: made)
        assert hbt("train", "--data", "comments.csv", "--model", "shape:1x32") == 0
        page = capsys.readouterr().out
        assert ("next: hbt compress" in page) is leads
        assert ("next: --learning-rate auto" in page) is not leads


@pytest.mark.parametrize("verb", ["train", "run"])
def test_a_recipe_may_hold_tables_that_the_pipeline_does_not_use(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    from toolkit.workflows import pipeline

    lines = [
        "[corpus]",
        "data = 'comments.csv'",
        "[model]",
        "model = 'shape:1x32'",
        "[pruning]",
        "prune_sparsity = 0.3",
    ]
    if verb == "run":
        lines += ["[distillation]", "student = 'layers:1'", "[run]", "pipeline = 'baseline_quant'"]
    (workplace / "recipe.toml").write_text("\n".join(lines), "utf-8")

    def stop(*_: Any) -> None:
        raise InputError("all checks passed")

    monkeypatch.setattr(pipeline, "_try_models", stop)
    assert hbt(verb, "--recipe", "recipe.toml") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "hbt: all checks passed"
