"""Which peers there are, where their code is, and what each needs."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Peer:
    """One library or recipe, with the models that it makes."""

    module: str
    """Below `benchmarks.peers`; has `train(rows, folder, given)` and `load(folder, names, model)`."""
    models: tuple[str, ...]
    group: str = "words"
    """In the figure: "words" or "compressed"."""
    files: dict[str, str] = field(default_factory=dict)
    """Model -> its file, for its size, where several models share the folder; without, the whole folder."""
    environment: str | None = None
    """Name of the Python environment that it needs, for --python; None for that of the toolkit."""


PEERS = {
    "fasttext": Peer(
        "fasttext",
        ("fasttext", "fasttext-quantized"),
        files={"fasttext": "model.bin", "fasttext-quantized": "model.ftz"},
    ),
    "vowpal_wabbit": Peer("vowpal_wabbit", ("vowpal-wabbit",)),
    "scikit_learn": Peer(
        "scikit_learn",
        ("tfidf-logistic-regression", "tfidf-linear-svc"),
        files={"tfidf-logistic-regression": "logistic.skops", "tfidf-linear-svc": "svm.skops"},
    ),
    "nbsvm": Peer("nbsvm", ("nbsvm",)),
    "model2vec": Peer("static_embeddings", ("model2vec",)),
    "setfit": Peer("set_fit", ("setfit",), "compressed"),
    "torch_padded": Peer("compressed.torch_padded", ("torch-padded-128",), "compressed"),
    "torch_dynamic": Peer("compressed.torch_dynamic", ("torch-dynamic-int8",), "compressed"),
    "onnxruntime": Peer("compressed.onnxruntime_dynamic", ("onnxruntime-dynamic-int8",), "compressed"),
    "optimum": Peer(
        "compressed.optimum_cli", ("optimum-int8", "optimum-int8-session"), "compressed", environment="optimum"
    ),
    "transformers_exporters": Peer("compressed.transformers_exporters", ("transformers-exporters-int8",), "compressed"),
    "nncf": Peer("compressed.nncf_static", ("nncf-int8",), "compressed"),
    "fastformers": Peer("compressed.fastformers", ("fastformers",), "compressed"),
}
"""Name -> peer. The folder of a peer in the output has its name."""
