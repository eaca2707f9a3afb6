"""`hbt push` and `hbt pull` with a hub: one commit, pinned, verified on arrival; wrong repositories are one line."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Hbt, contents, write_comments
from tests.toolkit.workflows.transfer.hub_server import GIT, TOKEN, Hub, serve_hub
from toolkit.utils import hub as client

ROOT = Path(__file__).resolve().parents[4]
DEMO = ROOT / "models" / "demo-onnx-int8"
WHERE = "hf:owner/demo"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with no repository, the token that may write to it, and an empty current folder."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    client.require_answer.cache_clear()
    with serve_hub() as served:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield served
    client.require_answer.cache_clear()


def stored(hub: Hub) -> dict[str, bytes]:
    """The newest files of the repository, without that of git."""
    found = hub.repos["owner/demo"].find("main")
    assert found is not None
    return {name: content for name, content in found[1].items() if name != GIT}


def refused(hbt: Hbt, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert hbt(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_a_package_goes_to_a_new_private_repository_in_one_commit_and_comes_back(
    hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("push", str(DEMO), WHERE, "--json") == 0
    pushed = json.loads(capsys.readouterr().out)
    repo = hub.repos["owner/demo"]
    assert repo.private
    assert [message for _, message, _ in repo.commits] == ["initial commit", "hbt push demo-onnx-int8"]
    assert pushed["where"] == f"{WHERE}@{repo.commits[-1][0]}"
    assert stored(hub) == contents(DEMO)
    assert hbt("pull", WHERE, "models/again", "--json") == 0
    assert json.loads(capsys.readouterr().out)["where"] == pushed["where"]
    assert contents(Path("models/again")) == contents(DEMO)
    assert oct(Path("models/again").stat().st_mode)[-3:] == "755"
    assert sorted(path.name for path in Path().iterdir()) == ["models"]
    assert hbt("predict", "models/again", "ক্যামেরা ভালো") == 0


@pytest.mark.slow
def test_an_older_commit_can_be_pulled(hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt("push", str(DEMO), WHERE, "--public") == 0
    repo = hub.repos["owner/demo"]
    assert not repo.private
    repo.add("somebody breaks it", {GIT: b""})
    sha = repo.commits[1][0]
    assert "not a package" in refused(hbt, capsys, "pull", WHERE, "x")
    assert hbt("pull", f"{WHERE}@{sha}", "x") == 0
    assert f"{WHERE}@{sha}, verified" in capsys.readouterr().out


def test_force_replaces_a_package_and_its_stale_files_and_nothing_else(
    hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    old = contents(DEMO)
    manifest = json.loads(old["manifest.json"])
    manifest["files"]["old.bin"] = {"sha256": "0" * 64, "size_bytes": 3}
    hub.new("owner/demo", old | {"manifest.json": json.dumps(manifest).encode(), "old.bin": b"old"})
    assert "has files" in refused(hbt, capsys, "push", str(DEMO), WHERE)
    assert hbt("push", str(DEMO), WHERE, "--force") == 0
    assert stored(hub) == contents(DEMO)
    hub.repos["owner/demo"].add("mine", stored(hub) | {"thesis.txt": b"mine"})
    assert "thesis.txt, which is not part" in refused(hbt, capsys, "push", str(DEMO), WHERE, "--force")
    hub.new("owner/demo", {"thesis.txt": b"mine"})
    assert "not a package" in refused(hbt, capsys, "push", str(DEMO), WHERE, "--force")
    assert stored(hub) == {"thesis.txt": b"mine"}


def test_a_damaged_package_is_not_uploaded(hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(DEMO, "bad")
    Path("bad/config.json").write_text("{}")
    assert "config.json has changed" in refused(hbt, capsys, "push", "bad", WHERE)
    assert not hub.repos


def test_an_upload_that_arrives_damaged_is_noticed(hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    hub.damage = True
    assert "onnx/model.onnx" in (line := refused(hbt, capsys, "push", str(DEMO), WHERE))
    assert "did not arrive as sent" in line


def test_a_wrong_or_missing_token_is_one_line(
    hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf auth login, or set HF_TOKEN" in refused(hbt, capsys, "push", str(DEMO), WHERE)
    hub.new("owner/demo", contents(DEMO), private=True)
    assert "or it is private" in refused(hbt, capsys, "pull", WHERE, "x")


HOSTILE: dict[str, tuple[dict[str, bytes | None], str]] = {
    "a file more": ({"extra.py": b"print()"}, "extra.py is not in the manifest"),
    "a file less": ({"config.json": None}, "config.json is missing"),
    "another size": ({"config.json": b"{}"}, "config.json has 2 bytes instead of"),
    "another content": ({"requirements.txt": b"x" * 140}, "requirements.txt has changed"),
    "no manifest": ({"manifest.json": None}, "not a package"),
    "a damaged manifest": ({"manifest.json": b"{"}, "not a valid manifest"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_repository_is_one_line_and_leaves_nothing(
    hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    changes, message = HOSTILE[case]
    files: dict[str, bytes | None] = {**contents(DEMO), **changes}
    hub.new("owner/demo", {name: content for name, content in files.items() if content is not None})
    assert message in (line := refused(hbt, capsys, "pull", WHERE, "x"))
    assert WHERE in line and ".hbt-" not in line
    assert list(Path().iterdir()) == []


def test_a_revision_or_repository_that_is_not_there_is_one_line(
    hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such repository" in refused(hbt, capsys, "pull", WHERE, "x")
    hub.new("owner/demo", contents(DEMO))
    assert "no such revision" in refused(hbt, capsys, "pull", f"{WHERE}@gone", "x")
    assert "no such revision" in refused(hbt, capsys, "push", str(DEMO), f"{WHERE}@gone")


def test_a_hub_that_does_not_answer_is_one_line(
    hub: Hub, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(client, "ANSWER_S", 0.2)
    with socket.socket() as silent:  # accepts connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for command in (("push", str(DEMO), WHERE), ("pull", WHERE, "x")):
            assert "does not answer" in refused(hbt, capsys, *command)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "does not answer" in refused(hbt, capsys, "pull", WHERE, "x")


def test_a_model_on_a_hub_that_does_not_answer_is_one_line(
    hub: Hub, workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("toolkit.modeling.hugging_face.trusted_config", offline_config)
    assert hbt("data", "comments.csv", "--model", "owner/encoder") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "http://127.0.0.1:9 does not answer" in line
    assert line.endswith("and it is not in the cache); give a folder with --model PATH")


def offline_config(*_: object, local_files_only: bool) -> None:
    assert local_files_only, "the client would retry for half a minute"
    raise OSError("not in the cache")


@pytest.mark.slow
def test_a_model_in_the_cache_is_used_if_the_hub_does_not_answer(hub: Hub, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    encoder = tmp_path / "encoder"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(encoder)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(encoder)
    hub.new("owner/encoder", contents(encoder))
    write_comments(tmp_path / "comments.csv", 60)
    command = [sys.executable, "-m", "hbt", "data", str(tmp_path / "comments.csv"), "--model", "owner/encoder"]
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    for endpoint in (hub.address, "http://127.0.0.1:9"):
        environment["HF_ENDPOINT"] = endpoint
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_environment_of_the_client_is_used(hub: Hub, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_TOKEN, in a process of its own."""
    own = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | own
    command = [sys.executable, "-m", "hbt", "push", str(DEMO), WHERE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored(hub) == contents(DEMO)
