"""Log a package to MLflow as a model that `mlflow models serve` and `mlflow.pyfunc.load_model` run.

The model is the package folder, `pyfunc_model.py`, and the requirements of the package: no torch, unless the target
needs it.
"""

import json
import re
import warnings
from pathlib import Path
from typing import Any

from toolkit.package import CONFIG_FILE, REQUIREMENTS_FILE, read_manifest
from toolkit.utils.scratch import scratch_folder

CODE = Path(__file__).with_name("pyfunc_model.py")
CONTENT_TAG = "hbt.package_sha256"
EXAMPLES = 2
"""Golden texts in the input example."""


def log_package(client: Any, experiment_id: str, run_id: str, package: Path, register: str | None, sha256: str) -> None:
    """Log a package as a model of a run, unless the run has it; register it under a name if one is given.

    sha256: of the content of the package. Raises: errors of any type.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    query = f"source_run_id = '{run_id}' AND tags.`{CONTENT_TAG}` = '{sha256}'"
    known = [each for each in client.search_logged_models([experiment_id], query) if each.status == "READY"]
    if known:
        model = known[0]
    else:
        name = re.sub(r"[^\w\- ]", "_", package.name)
        model = client.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, tags={CONTENT_TAG: sha256}, model_type="hbt package"
        )
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        with scratch_folder() as scratch:
            save_model(package, scratch / "model", run_id, model)
            client.log_model_artifacts(model.model_id, str(scratch / "model"))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    if register is not None:
        _register(client, register, run_id, model)


def save_model(package: Path, folder: Path, run_id: str | None = None, logged: Any = None) -> None:
    """Write a package as an MLflow model into `folder`. run_id, logged: the run and logged model that it is part of."""
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of type hints in the code of MLflow itself
        import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    config = json.loads((package / CONFIG_FILE).read_text("utf-8"))
    labels = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
    scores = ["score", *(f"probability {label}" for label in labels)]
    outputs = [ColSpec(DataType.string, "label"), *(ColSpec(DataType.double, name) for name in scores)]
    signature = ModelSignature(Schema([ColSpec(DataType.string, "text")]), Schema(outputs))
    texts = [entry["text"] for entry in read_manifest(package)["golden"][:EXAMPLES]]
    lines = (package / REQUIREMENTS_FILE).read_text("utf-8").splitlines()
    own = {} if logged is None else {"model_id": logged.model_id, "artifact_path": logged.artifact_location}
    mlflow.pyfunc.save_model(
        path=str(folder),
        python_model=str(CODE),
        artifacts={"package": str(package.resolve())},
        signature=signature,
        input_example=pandas.DataFrame({"text": texts}),
        pip_requirements=[line for line in lines if line and not line.startswith("#")],
        mlflow_model=Model(run_id=run_id, **own),
    )


def _register(client: Any, name: str, run_id: str, model: Any) -> None:
    """Make the model the newest version of the registered model `name`, unless it is a version of it."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    if not any(version.source == model.artifact_location for version in versions):
        client.create_model_version(name, model.artifact_location, run_id, model_id=model.model_id)
