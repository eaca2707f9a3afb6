"""The service through its application, without a port."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs hbt-toolkit[serve]")
pytest.importorskip("starlette", reason="needs hbt-toolkit[serve]")

from starlette.testclient import TestClient

from tests.helpers import rehash
from toolkit import package as packages
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import load_corpus
from toolkit.evaluation.reliability.scope import Scope
from toolkit.evaluation.reliability.scope_file import scope_of, write_scope
from toolkit.serving import app as apps
from toolkit.serving.app import create_app
from toolkit.serving.models import Served, loaded, verified
from toolkit.serving.settings import Limits, ServeSettings
from toolkit.workflows.scoring.flags import Flags

DEMO = Path(__file__).parents[3] / "models" / "demo-onnx-int8"
PERSPECTIVE = "/v1alpha1/comments:analyze"
SMALL = Limits(max_body=1000, max_texts=3, max_characters=50, max_requests=2, body_seconds=0.2, reload_seconds=0)
TEXTS = ["ভালো ক্যামেরা", "একদম বাজে", "🙂"]


@pytest.fixture(scope="module")
def model() -> Any:
    return packages.load(DEMO, 1)


def client(model: Any, limits: Limits = SMALL, **more: Any) -> TestClient:
    served = [Served(name, DEMO, "1" * 64, model, model.labels) for name in ("demo", "other")]
    settings = ServeSettings(tuple((each.name, each.folder) for each in served), limits=limits, **more)
    return TestClient(create_app(settings, served), raise_server_exceptions=False)


@pytest.fixture
def service(model: Any) -> Iterator[TestClient]:
    with client(model) as made:
        yield made


def test_texts_get_the_labels_of_the_package(service: TestClient, model: Any) -> None:
    expected = [{"label": label, "probability": round(chance, 6)} for label, chance in model.predict(TEXTS)]
    found = service.post("/predict", json={"texts": TEXTS})
    assert (found.status_code, found.json()["predictions"]) == (200, expected)
    one = service.post("/predict/other", json={"text": TEXTS[1]})
    assert one.json() == {"package": "other", "version": "1" * 12, "predictions": [expected[1]]}


def test_a_flagged_answer_says_so_and_is_counted(model: Any) -> None:
    """As in files of `hbt predict`: a package that may abstain has `answer`, one with a scope has `out_of_scope`."""
    scope = Scope(scope_of(load_corpus(CorpusSettings())))
    chance = model.predict([TEXTS[0]])[0][1]
    served = Served("demo", DEMO, "1" * 64, model, model.labels, Flags(chance + 0.001, scope))
    settings = ServeSettings((("demo", DEMO),), limits=SMALL)
    with TestClient(create_app(settings, [served])) as service:
        found = service.post("/predict", json={"texts": [TEXTS[0], "это другой язык"]}).json()["predictions"]
        counted = service.get("/metrics").text
    assert [list(each) for each in found] == [["label", "probability", "answer", "out_of_scope"]] * 2
    assert (found[0]["answer"], found[0]["out_of_scope"]) == ("unsure", None)
    assert found[1]["out_of_scope"] == "script"
    assert 'hbt_texts_out_of_scope_total{package="demo",reason="script"} 1.0' in counted


def test_the_flags_of_a_package_are_read_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    shutil.copytree(DEMO, folder)
    write_scope(scope_of(load_corpus(CorpusSettings())), folder)
    assert loaded("demo", folder).flags.scope is None  # the manifest does not list the file
    rehash(folder)
    assert loaded("demo", folder).flags.columns[-1] == "out_of_scope"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 900, 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b"{}", 400, 'either "text" or "texts"'),
        (b'{"text": "a", "texts": ["b"]}', 400, 'either "text" or "texts"'),
        (b'{"texts": []}', 400, "a text is a string"),
        (b'{"texts": ["a", 1]}', 400, "a text is a string"),
        (b'{"texts": "abc"}', 400, "a text is a string"),
        (b'{"texts": ["a", "b", "c", "d"]}', 413, "4 texts, more than 3"),
        (b'{"text": "' + b"x" * 51 + b'"}', 413, "a text of 51 characters, more than 50"),
        (b'{"text": "' + b"x" * 1000 + b'"}', 413, "a body of more than 1000 bytes"),
    ],
)
def test_a_wrong_request_is_an_error_as_json(service: TestClient, body: bytes, code: int, message: str) -> None:
    for route in ("/predict", PERSPECTIVE) if code == 400 and b"text" not in body else ("/predict",):
        found = service.post(route, content=body)
        error = found.json()["error"]
        assert (found.status_code, error["code"]) == (code, code)
        assert message in error["message"] or route == PERSPECTIVE
    assert service.get("/healthz").status_code == 200


def test_what_is_not_there_is_an_error_as_json(service: TestClient) -> None:
    for method, route, code in (
        ("POST", "/predict/none", 404),
        ("GET", "/none", 404),
        ("GET", "/predict", 405),
        ("DELETE", PERSPECTIVE, 405),
    ):
        found = service.request(method, route, content=b'{"text": "a"}' if method == "POST" else None)
        assert (found.status_code, found.json()["error"]["code"]) == (code, code)


def test_a_body_without_a_length_is_limited_too(service: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    assert service.post("/predict", content=parts()).status_code == 413


def test_a_lone_surrogate_and_controls_are_answered(service: TestClient) -> None:
    found = service.post("/predict", content=rb'{"texts": ["\ud800 a", "\u0000", " "]}')
    assert (found.status_code, len(found.json()["predictions"])) == (200, 3)


def asked(app: Any, receive: Any, route: str = "/predict") -> tuple[int, dict[str, Any]]:
    """Send one request whose body `receive` gives; return status and body."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": route, "headers": [], "query_string": b"", "client": ("1", 1)}
    asyncio.run(app(scope | {"http_version": "1.1", "scheme": "http", "server": ("x", 1)}, receive, send))
    return sent[0]["status"], json.loads(b"".join(each.get("body", b"") for each in sent[1:]))


def test_a_slow_body_times_out(model: Any) -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    status, body = asked(client(model).app, receive)
    assert (status, body["error"]["status"]) == (408, "REQUEST_TIMEOUT")


def test_bodies_that_are_being_read_are_limited_together(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "MAX_BUFFERED", 10)
    found = client(model).post("/predict", json={"text": "longer than ten bytes"})
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")


class Waiting:
    """Scores nothing until it is told to."""

    labels = ("a", "b")

    def __init__(self) -> None:
        self.asked, self.go = threading.Semaphore(0), threading.Event()

    def predict(self, texts: list[str], batch_size: int = 1) -> list[tuple[str, float]]:
        self.asked.release()
        assert self.go.wait(60)
        return [("a", 0.5)] * len(texts)


def test_what_exceeds_the_concurrency_is_refused_and_what_waits_is_answered() -> None:
    model = Waiting()
    limits = replace(SMALL, max_requests=2, max_client_requests=3)
    with client(model, limits) as service:
        answers: list[int] = []
        ask = [
            threading.Thread(target=lambda: answers.append(service.post("/predict", json={"text": "a"}).status_code))
            for _ in range(2)
        ]
        for each in ask:
            each.start()
        assert model.asked.acquire(timeout=60)
        state: Any = service.app.state.service  # type: ignore[attr-defined]
        deadline = time.monotonic() + 60
        while state.in_work < 2 and time.monotonic() < deadline:
            pass
        refused = service.post("/predict", json={"text": "a"})
        assert (refused.status_code, refused.json()["error"]["status"]) == (503, "UNAVAILABLE")
        state.clients["testclient"] += 1
        assert service.post("/predict", json={"text": "a"}).status_code == 429
        state.clients["testclient"] -= 1
        model.go.set()
        for each in ask:
            each.join()
        assert answers == [200, 200]
        assert state.in_work == 0 and not state.clients


def test_metrics_count_requests_and_texts(service: TestClient) -> None:
    service.post("/predict", json={"texts": TEXTS})
    service.post("/predict", content=b"{")
    lines = service.get("/metrics").text.splitlines()
    assert 'hbt_requests_total{route="/predict",status="200"} 1.0' in lines
    assert 'hbt_requests_total{route="/predict",status="400"} 1.0' in lines
    assert 'hbt_texts_total{package="demo"} 3.0' in lines
    assert 'hbt_request_seconds_count{route="/predict"} 2.0' in lines
    assert "hbt_requests_in_progress 0.0" in lines


def analyze(service: TestClient, **changed: Any) -> Any:
    body = {"comment": {"text": TEXTS[1]}, "requestedAttributes": {"TOXICITY": {}}, "languages": ["bn"]} | changed
    return service.post(PERSPECTIVE, params={"key": "any"}, json=body)


def test_comments_analyze_has_the_shape_of_perspective(service: TestClient, model: Any) -> None:
    score = pytest.approx(float(model.predict_proba([TEXTS[1]])[0, 1]), abs=1e-6)
    value = {"value": score, "type": "PROBABILITY"}
    assert analyze(service, clientToken="t", doNotStore=True).json() == {
        "attributeScores": {
            "TOXICITY": {
                "spanScores": [{"begin": 0, "end": len(TEXTS[1]), "score": value}],
                "summaryScore": value,
            }
        },
        "languages": ["bn"],
        "clientToken": "t",
    }
    assert analyze(service, requestedAttributes={"TOXICITY": {"scoreThreshold": 1.1}}).json()["attributeScores"] == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"comment": {"text": " "}}, "comment.text"),
        ({"comment": "a"}, "comment.text"),
        ({"comment": {"text": "a", "type": "HTML"}}, "PLAIN_TEXT"),
        ({"requestedAttributes": {}}, "requestedAttributes"),
        ({"requestedAttributes": {"PROFANITY": {}}}, "'PROFANITY' is not served; served: TOXICITY"),
        ({"requestedAttributes": {"TOXICITY": {"scoreThreshold": "x"}}}, "scoreThreshold"),
    ],
)
def test_a_wrong_analyze_request_is_invalid(service: TestClient, changed: dict[str, Any], message: str) -> None:
    error = analyze(service, **changed).json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert message in error["message"]


def test_attributes_sum_the_labels_that_are_given(model: Any) -> None:
    given = (("SPAM", ("complaint", "approval")), ("TOXICITY", ("approval",)))
    with client(model, attributes=given) as service:
        found = analyze(service, requestedAttributes={"SPAM": {}, "TOXICITY": None}).json()["attributeScores"]
    assert found["SPAM"]["summaryScore"]["value"] == pytest.approx(1.0)
    expected = float(model.predict_proba([TEXTS[1]])[0, 0])
    assert found["TOXICITY"]["summaryScore"]["value"] == pytest.approx(expected, abs=1e-6)


def test_a_new_package_replaces_the_old_one_and_a_broken_one_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "live"
    shutil.copytree(DEMO, folder)
    settings = ServeSettings((("live", folder),), limits=SMALL)
    app = create_app(settings, [verified("live", folder)])
    service = app.state.service
    with TestClient(app) as asking:
        before = asking.get("/healthz").json()["packages"]["live"]

        card = folder / "README.md"
        card.write_text("another card")  # a file that manifest.json does not state so
        asyncio.run(service.refresh())
        assert asking.get("/healthz").json()["packages"]["live"] == before

        (folder / "config.json").write_text("{}")
        rehash(folder)  # a new manifest, of a package that does not load
        asyncio.run(service.refresh())
        assert asking.get("/healthz").json()["packages"]["live"] == before
        assert "live: refused, the old one stays" in capsys.readouterr().err
        assert asking.post("/predict", json={"text": "a"}).status_code == 200

        shutil.copy(DEMO / "config.json", folder)
        rehash(folder)
        asyncio.run(service.refresh())
        after = asking.get("/healthz").json()["packages"]["live"]
        assert after != before
        found = asking.post("/predict", json={"text": "a"}).json()
        assert (found["version"], found["package"]) == (after[:12], "live")
        lines = asking.get("/metrics").text.splitlines()
        assert 'hbt_reloads_total{package="live",result="replaced"} 1.0' in lines
        assert 'hbt_reloads_total{package="live",result="refused"} 1.0' in lines


def test_a_folder_that_is_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    shutil.copytree(DEMO, folder)
    app = create_app(ServeSettings((("live", folder),), limits=SMALL), [verified("live", folder)])
    folder.rename(tmp_path / "away")
    asyncio.run(app.state.service.refresh())
    with TestClient(app) as asking:
        assert asking.post("/predict", json={"text": "a"}).status_code == 200
