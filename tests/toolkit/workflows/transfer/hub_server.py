"""A Hugging Face hub on the loopback interface, with the few routes that push and pull call."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_of_the_test"
LARGE = 20_000
"""Bytes from which a file is stored with LFS."""
GIT = ".gitattributes"


@dataclass
class Repo:
    private: bool
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)
    """Hash, message and files, the newest last."""

    def add(self, message: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(repr((message, len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits.append((sha, message, files))
        return sha

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Files at a revision: main, or a commit."""
        for sha, _, files in reversed(self.commits):
            if revision in ("main", sha):
                return sha, files
        return None


@dataclass
class Hub:
    address: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    damage: bool = False
    """Whether large files are stored with one byte changed."""
    calls: list[str] = field(default_factory=list)

    def new(self, name: str, files: dict[str, bytes], private: bool = False) -> Repo:
        repo = self.repos[name] = Repo(private)
        repo.add("initial commit", {GIT: b"*.onnx filter=lfs\n"} | files)
        return repo


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def _allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _answer(self, status: int, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _repo(self, name: str) -> Repo | None:
        repo = self.state.repos.get(name)
        if repo is None or (repo.private and not self._allowed):
            self._answer(401 if not self._allowed else 404, b"{}", X_Error_Code="RepoNotFound")
            return None
        return repo

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        self.state.calls.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        info = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if info else parts[:2])
        repo = self._repo(name)
        if repo is None:
            return
        revision = (parts[5] if len(parts) > 5 else "main") if info else parts[3]
        found = repo.find(revision)
        if found is None:
            self._answer(404, b"{}", X_Error_Code="RevisionNotFound")
        elif info and parts[4:5] == ["tree"]:  # of a folder, which no repository of the tests has
            self._answer(404, b"{}", X_Error_Code="EntryNotFound")
        elif info:
            sha, files = found
            siblings = [self._sibling(file, content) for file, content in files.items()]
            self._answer(200, {"id": name, "sha": sha, "siblings": siblings, "tags": []})
        else:
            sha, files = found
            file = "/".join(parts[4:])
            if file in files:
                etag = hashlib.sha256(files[file]).hexdigest()
                self._answer(200, files[file], ETag=f'"{etag}"', X_Repo_Commit=sha)
            else:
                self._answer(404, b"{}", X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    @staticmethod
    def _sibling(name: str, content: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
        if len(content) >= LARGE:
            digest = hashlib.sha256(content).hexdigest()
            found |= {"blobId": "0" * 40, "lfs": {"sha256": digest, "size": len(content), "pointerSize": 130}}
        return found

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.state.lfs[self.path.rsplit("/", 1)[-1]] = content
        self._answer(200)

    def do_POST(self) -> None:
        path, _, _ = self.path.partition("?")
        self.state.calls.append(f"POST {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            self._answer(200, {"warnings": [{"message": "of the test"}]})
        elif not self._allowed:
            self._answer(401, {"error": "Invalid credentials in Authorization header"})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("private") or asked.get("visibility") == "private"
            self.state.new(name, {}, private)
            self._answer(200, {"url": f"{self.state.address}/{name}"})
        elif path.endswith("/objects/batch"):
            self._answer(200, {"objects": [self._upload(each) for each in json.loads(body)["objects"]]})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [("lfs" if file["size"] >= LARGE else "regular") for file in files]
            answer = [
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
                for file, mode in zip(files, modes, strict=True)
            ]
            self._answer(200, {"files": answer})
        else:
            self._commit("/".join(path.split("/")[3:5]), [json.loads(line) for line in body.splitlines()])

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        return asked | {"actions": {"upload": {"href": f"{self.state.address}/lfs/{asked['oid']}"}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repo = self.state.repos[name]
        found = repo.find("main")
        assert found is not None
        sha, files = found[0], dict(found[1])
        header = lines[0]["value"]
        if header["parentCommit"] != sha:
            self._answer(412, {"error": "A commit has happened since."})
            return
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.state.lfs[value["oid"]]
                files[value["path"]] = content[:-1] + b"!" if self.state.damage else content
            else:
                del files[value["path"]]
        sha = repo.add(header["summary"], files)
        self._answer(200, {"success": True, "commitUrl": f"{self.state.address}/{name}/commit/{sha}", "commitOid": sha})
