"""The settings of the export; see `toolkit.config.settings`."""

import re
from dataclasses import dataclass
from typing import Literal

from toolkit.utils.errors import require

CASCADE_TARGETS = ("onnx-int8", "onnx-fp32")
"""Targets that support both models of a cascade."""
NGRAM_TARGETS = ("c", "js", "python")
"""Targets that support only n-gram students."""


@dataclass(frozen=True)
class ExportSettings:
    """How the last checkpoint of a run is exported."""

    target: str = "onnx-int8"
    """Target to export; `hbt targets` lists them."""
    quant_method: Literal["dynamic", "static", "qat", "fp16", "int4"] | None = None
    """dynamic, static: evaluate only such candidates of onnx-int8; qat: fine-tune with fake quantization before static
    quantization; fp16, int4: other names of the targets onnx-fp16 and onnx-int4."""
    quant_dtype: Literal["int8", "uint8", "fp16", "int4"] | None = None
    """int8, uint8: evaluate only candidates of onnx-int8 with such weights; fp16, int4: other names of the targets
    onnx-fp16 and onnx-int4."""
    max_drop: float = 0.005
    """Largest loss of macro-F1 on validation rows with which a candidate passes the quality gate."""
    search: Literal["fast", "full", "off"] = "fast"
    """Candidates of the target to evaluate: a few good ones (fast), all (full) or only the first (off)."""
    this_cpu_only: bool = False
    """Also evaluate candidates of onnx-int8 with eight-bit weights, which are wrong on x86 processors without VNNI."""
    trim_vocabulary: int | None = None
    """Remove the vocabulary pieces that neither the corpus nor --unlabelled uses; with N, keep N pieces in total."""
    cascade: bool = False
    """Make one package of two models: an n-gram student that answers most texts, and the transformer, to which it
    defers those whose two best labels are close."""
    cascade_share: float | None = None
    """Largest share of the texts that a cascade defers to its transformer (default: all texts for which a gain in
    accuracy of 5 points is expected)."""
    cascade_ms: float | None = None
    """Largest mean latency of a cascade in milliseconds on this machine, instead of a share."""
    budget_kb: int | None = None
    """Largest size in KB of what is flashed or downloaded, for the targets c, js and python: model.bin and its program
    (c: 18 KB of machine code; js: model.mjs; python: how_to_load.py). An n-gram student with a larger table is fitted
    again with fewer rows."""
    page: bool = False
    """Also write page.html, in which a person can try the model offline, for the target js."""
    abstain_risk: float | None = None
    """Largest share of wrong answers: the package answers `unsure` below a probability that keeps it, chosen on the
    validation rows."""
    confidence: float = 0.95
    """Confidence with which --abstain-risk is kept."""
    no_robustness: bool = False
    """Do not measure how typos and other small changes of the test rows change labels."""
    functional_tests: str | None = None
    """Table with the columns text, label and functionality, as HateCheck: the card has the accuracy of each
    functionality."""
    describe: str | None = None
    """TOML file with what the package is for (`purpose`) and what each label means (table `labels`), for the card."""
    license: str | None = None
    """License of the package, for its card: an identifier of the Hugging Face Hub, such as mit or cc-by-4.0."""
    data_license: str | None = None
    """License of the data, for the card."""
    register: str | None = None
    """Name in the MLflow model registry under which the package of a run gets a new version."""

    def __post_init__(self) -> None:
        name = self.register
        fine = name is None or re.fullmatch(r"[\w\-. ]{1,200}", name.strip())
        require(bool(fine), "--register", f"{name!r} is no name of a model; use letters, digits, '-', '_', '.' and ' '")
        share, budget = self.cascade_share, self.cascade_ms
        require(share is None or 0 <= share <= 1, "--cascade-share", f"{share} is outside [0, 1]")
        require(budget is None or budget > 0, "--cascade-ms", f"{budget} is not above 0")
        require(share is None or budget is None, "--cascade-ms", "give it or --cascade-share, not both")
        for option, dial in (("--cascade-share", share), ("--cascade-ms", budget)):
            require(dial is None or self.cascade, option, "needs --cascade")
        wrong, confidence = self.abstain_risk, self.confidence
        require(wrong is None or 0 < wrong < 1, "--abstain-risk", f"{wrong} is outside (0, 1)")
        require(0 < confidence < 1, "--confidence", f"{confidence} is outside (0, 1)")
        size = self.trim_vocabulary
        require(size is None or size >= 0, "--trim-vocabulary", f"{size} is negative")
        require(0 <= self.max_drop <= 1, "--max-drop", f"{self.max_drop} is outside [0, 1]")
        for option, value in (("--quant-method", self.quant_method), ("--quant-dtype", self.quant_dtype)):
            target = {None: self.target, "fp16": "onnx-fp16", "int4": "onnx-int4"}.get(value, "onnx-int8")
            fits = self.target in (target, "onnx-int8") or (
                value in ("dynamic", "int8") and self.target.endswith("-int8")
            )
            require(fits, option, f"{value} is not available for --target {self.target}; leave one of them out")
            if self.target == "onnx-int8":  # the default: the other two options are more specific
                object.__setattr__(self, "target", target)
        require(not self.this_cpu_only or self.target == "onnx-int8", "--this-cpu-only", "needs --target onnx-int8")
        fits = self.budget_kb is None or self.target in NGRAM_TARGETS
        require(fits, "--budget-kb", f"not for --target {self.target}; use {', '.join(NGRAM_TARGETS)}")
        require(not self.page or self.target == "js", "--page", f"not for --target {self.target}; use js")
        if self.cascade:
            fits = self.target in CASCADE_TARGETS
            require(fits, "--cascade", f"not for --target {self.target}; use {' or '.join(CASCADE_TARGETS)}")

    @property
    def suffix(self) -> str:
        """What a cascade adds to the names of its package and stage."""
        return "cascade" if self.cascade else ""
