"""SetFit (Tunstall et al. 2022): the encoder trained on pairs of texts, then logistic regression on its embeddings.

Its own defaults would train on all pairs, which takes hours on a CPU: the number of steps is limited.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Missing, Rows, best_of, score

STEPS, BATCH, LENGTH = 100, 16, 128
RATES = (2e-5, 1e-4)
PENALTIES = (1.0, 10.0, 100.0)
BODY, HEAD_FILE = "model", "head.skops"


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Train encoder and head with the learning rate and penalty that are best on validation rows, and write both."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments
    from skops.io import dump

    if given.encoder is None:
        raise Missing("needs --encoder")
    data = Dataset.from_dict({"text": rows.texts, "label": [rows.names.index(name) for name in rows.labels]})

    def fit(settings: dict[str, Any]) -> tuple[Any, Any]:
        from sklearn.linear_model import LogisticRegression

        model = SetFitModel(model_body=_body(given.encoder), model_head=LogisticRegression())
        arguments = TrainingArguments(
            output_dir=str(folder / "work"),
            batch_size=BATCH,
            max_steps=STEPS,
            body_learning_rate=settings["body_learning_rate"],
            seed=0,
            report_to="none",
            save_strategy="no",
            show_progress_bar=False,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=data)
        trainer.train_embeddings(rows.texts, data["label"], args=arguments)
        embedded = model.model_body.encode(rows.texts)  # (rows, width)
        heads = [LogisticRegression(C=c, max_iter=1000).fit(embedded, rows.labels) for c in PENALTIES]
        body = model.model_body
        return body, max(heads, key=lambda head: score(rows, _labels((body, head))))

    (body, head), settings, best = best_of(rows, [{"body_learning_rate": rate} for rate in RATES], fit, _labels)
    body.save(str(folder / BODY))
    dump(head, folder / BODY / HEAD_FILE)
    return {"settings": settings | {"C": head.C, "steps": STEPS}, "validation": {"setfit": best}}


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts."""
    from sentence_transformers import SentenceTransformer
    from skops.io import load as load_skops

    body = SentenceTransformer(str(folder / BODY), device="cpu", trust_remote_code=False)
    return _labels((body, load_skops(folder / BODY / HEAD_FILE)))


def _body(encoder: Path | None) -> Any:
    from sentence_transformers import SentenceTransformer, models

    reader = models.Transformer(str(encoder), max_seq_length=LENGTH)
    pooling = models.Pooling(reader.get_word_embedding_dimension(), "mean")
    return SentenceTransformer(modules=[reader, pooling], device="cpu")


def _labels(model: tuple[Any, Any]) -> Label:
    body, head = model

    def label(texts: Sequence[str]) -> list[str]:
        return [str(name) for name in head.predict(body.encode(list(texts), show_progress_bar=False))]

    return label
