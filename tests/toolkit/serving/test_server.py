"""The command itself: what it refuses, and a real process from its start to SIGTERM."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import Hbt
from toolkit.serving.settings import attributes_of, named_packages
from toolkit.utils.errors import InputError

DEMO = Path(__file__).parents[3] / "models" / "demo-onnx-int8"


def test_packages_have_the_names_of_their_folders_or_given_ones() -> None:
    assert named_packages(("models/a/", "b=models/a")) == (("a", Path("models/a")), ("b", Path("models/a")))
    assert attributes_of(("TOXICITY=hate+abuse", "SPAM=spam")) == (
        ("TOXICITY", ("hate", "abuse")),
        ("SPAM", ("spam",)),
    )


@pytest.mark.parametrize("given", [("a", "b/a"), ("=a",), ("x/y=a",), ("/",)])
def test_names_that_cannot_be_in_a_path_are_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="NAME=FOLDER"):
        named_packages(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: not a package"),
        ([str(DEMO), f"b={DEMO}", str(DEMO)], "another package is named 'demo-onnx-int8'"),
        ([str(DEMO), "--attribute", "TOXICITY"], "--attribute TOXICITY: give ATTRIBUTE=LABEL"),
        ([str(DEMO), "--attribute", "TOXICITY=hate"], "--attribute TOXICITY: no label 'hate'; the labels are approval"),
        ([str(DEMO), "--max-body", "0"], "--max-body: must be 1 or more"),
        ([str(DEMO), "--body-seconds", "-1"], "--body-seconds: must be more than 0"),
        ([str(DEMO), "--host", "256.1.1.1"], "--host 256.1.1.1 --port 8000: cannot be bound"),
        ([str(DEMO), "--port", "70000"], "70000 is not in the range"),
    ],
)
def test_wrong_options_are_one_line(
    hbt: Hbt, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    pytest.importorskip("prometheus_client", reason="needs hbt-toolkit[serve]")
    assert hbt("serve", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_port_in_use_is_one_line(hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("prometheus_client", reason="needs hbt-toolkit[serve]")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert hbt("serve", str(DEMO), "--port", str(taken.getsockname()[1])) == 2
    assert "cannot be bound (Address already in use); give another" in capsys.readouterr().err


def test_without_the_extra_the_line_says_what_to_install(
    hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("toolkit.serving.app", "toolkit.serving.metrics"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert hbt("serve", str(DEMO)) == 2
    assert "hbt serve needs prometheus_client: pip install 'hbt-toolkit[serve]'" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM ends a process at once there")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_process_answers_and_stops_with_code_0(workers: int) -> None:
    pytest.importorskip("prometheus_client", reason="needs hbt-toolkit[serve]")
    command = [sys.executable, "-m", "toolkit.cli", "serve", str(DEMO), "--port", "0", "--workers", str(workers)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line.startswith("serving demo-onnx-int8 on http://127.0.0.1:"), line + process.stderr.read()
            port = int(line.split(" with ")[0].rsplit(":", 1)[1])
            asking = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            asking.request("POST", "/predict", json.dumps({"text": "ভালো"}))
            answer = asking.getresponse()
            assert (answer.status, len(json.loads(answer.read())["predictions"])) == (200, 1)
            asking.request("GET", "/metrics")
            found = asking.getresponse().read().decode()
            assert 'hbt_requests_total{route="/predict",status="200"} 1.0' in found
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 60
            assert process.wait(deadline - time.monotonic()) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
