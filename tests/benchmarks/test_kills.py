"""SIGKILL at random moments of jobs on Spark, on Ray and of a service; toolkit/workflows/scoring has the local ones."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from benchmarks.studies.scale.kills import kill_predict, kill_serve

pytestmark = pytest.mark.slow
DEMO = Path(__file__).parents[2] / "models" / "demo-onnx-int8"


@pytest.mark.parametrize("engine", ["spark", "ray"])
def test_a_killed_job_leaves_no_half_output_and_a_rerun_is_right(tmp_path: Path, engine: str) -> None:
    needed = {"spark": "pyspark", "ray": "ray"}[engine]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed: pip install 'hbt-toolkit[{engine}]'")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    found = kill_predict(tmp_path, DEMO, engine, kills=2, rows=400, seed=14)
    assert found["failures"] == []
    assert sum(found["left"].values()) == 2


def test_a_killed_service_starts_again_on_its_port_with_the_same_answers(tmp_path: Path) -> None:
    if importlib.util.find_spec("starlette") is None or importlib.util.find_spec("uvicorn") is None:
        pytest.skip("the service is not installed: pip install 'hbt-toolkit[serve]'")
    assert kill_serve(tmp_path, DEMO, "serve", kills=2, rows=0, seed=14)["failures"] == []
