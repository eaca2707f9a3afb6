"""The code of a package that is logged to MLflow ("models from code"): MLflow runs this file, hbt never imports it.

Input: a DataFrame with the column `text`. Output: a DataFrame with the label of each text, the probability of this
label (`score`), and a column `probability LABEL` for each label.
"""

import runpy
from pathlib import Path
from typing import Any

import mlflow
import numpy
import pandas


class Package(mlflow.pyfunc.PythonModel):
    """A package, loaded by its own how_to_load.py, which checks all of its files first."""

    def load_context(self, context: Any) -> None:
        file = Path(context.artifacts["package"]) / "how_to_load.py"
        self.model = runpy.run_path(str(file))["load"](file.parent)  # an import would write bytecode into the folder

    def predict(self, context: Any, model_input: pandas.DataFrame, params: Any = None) -> pandas.DataFrame:
        texts = list(model_input["text"])
        answers = self.model.predict(texts)
        columns: dict[str, Any] = {"label": [label for label, _ in answers], "score": [score for _, score in answers]}
        probabilities = numpy.asarray(self.model.predict_proba(texts), dtype=float)  # (texts, labels)
        for i, label in enumerate(self.model.labels):
            columns[f"probability {label}"] = probabilities[:, i]
        return pandas.DataFrame(columns)


mlflow.models.set_model(Package())
