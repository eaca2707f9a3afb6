"""A calibrated classifier has scaled logits and the same labels, whatever its network; so does its package."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import Finished
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.reliability.scaling import Scaling
from toolkit.export.reliability.calibrated import scaled, scaling_for
from toolkit.modeling.classifier import Classifier, SequenceClassifier
from toolkit.modeling.ngram import PAD_ID, NgramConfig, NgramNetwork, character_tokenizer
from toolkit.stages.result import StageResult

TEXTS = ["sea number 3 of the made-up texts", "sun", "a sea and a sun"]


def ngram(labels: int = 2) -> Classifier:
    outputs = 1 if labels == 2 else labels
    network = NgramNetwork(NgramConfig(512, outputs))
    random = np.random.default_rng(0)
    table = random.normal(size=(512, 1 + outputs)).astype(np.float32)
    table[:, 0] **= 2
    table[0] = 0
    network.table.data.copy_(network.table.new_tensor(table))
    network.intercept.data += 0.3
    names = tuple(f"label {i}" for i in range(labels))
    return Classifier(network, character_tokenizer(TEXTS), PAD_ID, names, DecisionRule(0.4 if labels == 2 else None))


@pytest.fixture
def hugging_face(learned: Classifier) -> Classifier:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=learned.tokenizer.get_vocab_size(), num_labels=2, **sizes)
    return replace(learned, network=SequenceClassifier(BertForSequenceClassification(config)).eval())


@pytest.mark.parametrize("scaling", [Scaling(0.4), Scaling(2.5, -0.7)])
@pytest.mark.parametrize("kind", ["ngram", "pooled", "hugging face"])
def test_logits_are_scaled_and_the_original_is_as_before(
    kind: str, scaling: Scaling, learned: Classifier, hugging_face: Classifier
) -> None:
    original = {"ngram": ngram(), "pooled": learned, "hugging face": hugging_face}[kind]
    before = original.predict_logits(TEXTS)
    found = scaled(original, scaling)
    after = found.predict_logits(TEXTS)
    margin = before[:, 1] - before[:, 0]
    assert after[:, 1] - after[:, 0] == pytest.approx(scaling.scale * margin + scaling.shift, rel=1e-4, abs=1e-5)
    assert original.rule is not None and found.rule is not None
    labels = [each.rule.predict(each.predict_proba(TEXTS)).tolist() for each in (original, found)]
    assert labels[0] == labels[1]
    assert (original.predict_logits(TEXTS) == before).all()


def test_many_labels_of_an_ngram_student() -> None:
    original = ngram(4)
    found = scaled(original, Scaling(0.5)).predict_logits(TEXTS)
    assert found == pytest.approx(0.5 * original.predict_logits(TEXTS), rel=1e-4)


def test_a_network_that_cannot_be_scaled_is_left_alone(toy: Corpus, learned: Classifier) -> None:
    rows = np.arange(len(toy.texts))
    timid = Predictions(rows, (0.05 * np.eye(2)[toy.labels]).astype(np.float32))
    assert scaling_for(learned, timid, toy).method != "none"

    class Odd(Classifier):
        """Does not end in a linear layer."""

        def predict_logits(self, texts, *more, **options):  # type: ignore[no-untyped-def]
            return super().predict_logits(texts, *more, **options) ** 2

    odd = Odd(learned.network, learned.tokenizer, learned.pad_id, learned.labels, learned.rule)
    assert scaling_for(odd, timid, toy).method == "none"


def test_the_package_is_calibrated_and_its_labels_are_those_of_the_student(at_home: Finished) -> None:
    student, artifact = (
        StageResult.load(Path("runs/tiny") / stage) for stage in ("2-distillation", "4-export-onnx-int8")
    )
    facts = artifact.details["calibration"]
    config = json.loads(Path("models/tiny-onnx-int8/config.json").read_text("utf-8"))
    assert config["threshold"] == artifact.rule.threshold
    original = next(each for each in artifact.details["versus"] if each["a"].startswith("original"))
    assert original["comparison"]["agreement"] > 0.9  # what int8 changes
    if facts["scaling"]["method"] != "none":
        assert facts["scaling"]["loss_after"] < facts["scaling"]["loss_before"]
        assert artifact.rule != student.rule
        assert "before" in facts
    assert set(facts["beside"]) == {"linear baseline", "fold ensemble"}
    card = Path("models/tiny-onnx-int8/README.md").read_text("utf-8").split("## Calibration")[1].split("\n## ")[0]
    assert f"| this package | {100 * facts['package']['ece']:.2f} |" in card
    assert Path("models/tiny-onnx-int8/calibration.svg").read_text("utf-8").startswith("<?xml")
