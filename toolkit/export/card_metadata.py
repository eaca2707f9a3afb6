"""The YAML metadata of a model card for the Hugging Face Hub."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.data.corpus import Corpus
from toolkit.evaluation.slices import script_of
from toolkit.stages.result import StageResult

LANGUAGES = {
    "Bengali": "bn", "Tamil": "ta", "Telugu": "te", "Kannada": "kn", "Malayalam": "ml", "Gujarati": "gu",
    "Gurmukhi": "pa", "Oriya": "or", "Sinhala": "si", "Thai": "th", "Lao": "lo", "Khmer": "km", "Myanmar": "my",
    "Georgian": "ka", "Armenian": "hy", "Hebrew": "he", "Greek": "el", "Hangul": "ko", "Hiragana": "ja",
}  # fmt: skip
"""Scripts that one language is mostly written in. Latin, Arabic or Devanagari letters do not tell the language."""
SHARE = 0.05
"""A language is named if at least this share of the texts is in its script."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def front_matter(
    name: str, corpus: Corpus, result: StageResult, distributions: Sequence[str], lineage: dict[str, Any]
) -> str:
    """Return the YAML, with every metric on the test rows in `model-index`."""
    from huggingface_hub import EvalResult, ModelCardData

    def measured(kind: str, title: str, value: float) -> EvalResult:
        return EvalResult(
            task_type="text-classification",
            dataset_type=corpus.name,
            dataset_name=corpus.name,
            dataset_split="test",
            metric_type=kind,
            metric_name=title,
            metric_value=round(value, 4),
        )

    details = result.details
    scores = [measured("f1", "Macro F1", result.metrics["macro_f1"])]
    scores.append(measured("accuracy", "Accuracy", result.metrics["accuracy"]))
    for key, value in result.metrics.items():
        if key not in ("macro_f1", "accuracy", "best_threshold") and "_th_" not in key and value == value:
            scores.append(measured(key.split("_")[0] if key != "roc_auc" else key, key, value))
    if "calibration" in details:
        scores.append(measured("ece", "Expected calibration error", details["calibration"]["package"]["ece"]))
    taught = not str(lineage.get("teacher", "")).startswith("none")  # labels alone: no encoder was used
    base = str(lineage.get("model", "")) if taught else ""
    kinds = ["cascade"] if "cascade" in details else []
    return ModelCardData(
        license=lineage.get("license"),
        language=languages(corpus) or None,
        base_model=base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        tags=["hbt", details["target"], *kinds],
        pipeline_tag="text-classification",
        library_name=distributions[0] if distributions else None,
        datasets=[corpus.name],
        model_name=f"{name} ({details['target']})",
        eval_results=scores,
    ).to_yaml()


def languages(corpus: Corpus) -> list[str]:
    """Return the codes of the languages that the scripts of the texts tell, the most frequent first."""
    found = Counter(script_of(text) for text in corpus.texts)
    return [
        LANGUAGES[script]
        for script, count in found.most_common()
        if script in LANGUAGES and count >= SHARE * len(corpus.texts)
    ]
