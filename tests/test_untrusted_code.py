"""Nothing that a stranger wrote is run: no Python code of a checkpoint, and nobody is asked whether to run it."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Hbt
from toolkit.modeling.classifier import Classifier, save_classifier

ROOT = Path(__file__).parents[1]
FILES = sorted(file for layer in ("toolkit", "exporters", "benchmarks") for file in (ROOT / layer).rglob("*.py"))


def loading_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of `from_pretrained` or `from_config` of an Auto class, with its place."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                is_auto = owner.lower().startswith("auto")
                if node.func.attr == "from_pretrained" or (node.func.attr == "from_config" and is_auto):
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", node


PIPELINE_OF_A_PEER = "benchmarks/peers/static_embeddings.py"
"""It loads what it has saved itself, with a function that has no such argument and refuses unknown types."""


def test_every_call_that_loads_a_model_refuses_remote_code() -> None:
    calls = {place: call for place, call in loading_calls() if not place.startswith(PIPELINE_OF_A_PEER)}
    assert len(calls) >= 8
    for place, call in calls.items():
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("trust_remote_code") == "False", place


@pytest.fixture
def stranger(classifier: Classifier, tmp_path: Path) -> Path:
    """A checkpoint whose configuration names a module in its folder, which would write a file."""
    folder = tmp_path / "stranger"
    save_classifier(classifier, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    names = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    names["AutoModelForSequenceClassification"] = "evil.Evil"
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": names}), "utf-8")
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nclass EvilConfig: pass\nclass Evil: pass\n", "utf-8"
    )
    return folder


@pytest.mark.parametrize("has_table", [True, False], ids=["checkpoint", "hugging-face"])
def test_a_checkpoint_that_names_code_is_refused_without_a_question(
    stranger: Path,
    workplace: Path,
    hbt: Hbt,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    has_table: bool,
) -> None:
    if not has_table:
        config = json.loads((stranger / "config.json").read_text("utf-8"))
        del config["hbt"]
        (stranger / "config.json").write_text(json.dumps(config), "utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks a question"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert hbt("compress", str(stranger), "--data", "comments.csv") == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("hbt: ")]) == 1
    assert "needs Python code of its own, which hbt does not run" in said[-1]
    assert not (stranger.parent / "ran").exists()
    assert not (workplace / "models").exists()
