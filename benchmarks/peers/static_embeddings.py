"""model2vec (Tulkens and van Dongen 2024): static embeddings of the encoder's tokens, fine-tuned with a classifier."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Missing, Rows, best_of

RATES = (1e-3, 3e-3, 1e-2)


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Distill the encoder, fine-tune with the learning rate that is best on validation rows, write the pipeline."""
    from model2vec.distill import distill
    from model2vec.train import StaticModelForClassification

    if given.encoder is None:
        raise Missing("model2vec needs --encoder")
    static = distill(str(given.encoder), pca_dims=256)

    def fit(settings: dict[str, Any]) -> Any:
        model = StaticModelForClassification.from_static_model(model=static, out_dim=len(rows.names))
        names = [rows.names[i] for i in rows.validation_labels]
        model.fit(rows.texts, rows.labels, X_val=rows.validation_texts, y_val=names, device="cpu", **settings)
        return model.to_pipeline()

    settings = [{"learning_rate": rate} for rate in RATES]
    model, chosen, best = best_of(rows, settings, fit, _labels)
    model.save_pretrained(str(folder / "pipeline"))
    return {"settings": chosen, "validation": {"model2vec": best}}


def load(folder: Path, names: Sequence[str], variant: str) -> Label:
    """Return the function that labels texts."""
    from model2vec.inference import StaticModelPipeline

    return _labels(StaticModelPipeline.from_pretrained(str(folder / "pipeline")))


def _labels(model: Any) -> Label:
    return partial(_predict, model)


def _predict(model: Any, texts: Sequence[str]) -> list[str]:
    return [str(name) for name in model.predict(list(texts))]
