"""A hub on this machine: the endpoints that huggingface_hub's client uses to publish, with faults on demand.

It keeps repositories in memory and behaves as the hub does where it matters here: large files are stored once by their
hash, whether or not a commit names them; a commit appears whole; every call but the transfer itself needs the token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "hf_" + "standin" * 5  # a name, nobody's key
LARGE = 10_000
"""Bytes from which the stand-in stores a file outside git."""

GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class Fault:
    """Something that goes wrong.

    Attributes:
        where: Pattern of `METHOD /path`.
        status: What is answered; None to drop the connection in the middle of the request.
        times: How often; calls after that are served.
        headers: Headers of the answer.
        served: Whether the call is carried out and only its answer is lost.
    """

    where: str
    status: int | None = None
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    served: bool = False


@dataclass
class Repo:
    """A repository: its commits, each a whole tree of path -> (content, whether large)."""

    private: bool
    commits: list[tuple[str, str, dict[str, tuple[bytes, bool]]]] = field(default_factory=list)

    def commit(self, message: str, tree: dict[str, tuple[bytes, bool]]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append((oid, message, tree))
        return oid

    def tree(self, revision: str) -> dict[str, tuple[bytes, bool]]:
        return next(tree for oid, _, tree in reversed(self.commits) if revision in ("main", oid))


@dataclass
class StandIn:
    """The state of the hub.

    Attributes:
        repos: Repositories by name.
        stored: Large files by hash.
        sent: Hash and size of every large file that was received whole, in order.
        calls: `METHOD /path` of every call.
        faults: What is to go wrong.
        token: The token that is good.
        role: What the token may do.
        part: Size of the parts in which large files are asked for; None for one piece.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    token: str = TOKEN
    role: str = "write"
    part: int | None = None
    url: str = ""

    def files(self, name: str) -> dict[str, bytes]:
        """What a repository shows."""
        return {path: content for path, (content, _) in self.repos[name].tree("main").items()}

    def fault(self, call: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.where, call):
                fault.times -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in two small packets wait 40 ms for the client's acknowledgement, a thousand times over.
    disable_nagle_algorithm = True
    wbufsize = -1
    hub: StandIn

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _serve(self) -> None:
        path = urlsplit(self.path)
        call = f"{self.command} {path.path}"
        self.hub.calls.append(call)
        fault = self.hub.fault(call)
        if fault is not None and fault.status is None and not fault.served:
            self.rfile.read(min(1000, int(self.headers.get("Content-Length") or 0)))
            self._drop()
            return
        body = self._body()
        if fault is not None and not fault.served:
            self._answer(fault.status or 500, {"error": "as ordered"}, fault.headers)
            return
        if fault is not None:
            self._answer = lambda *_: self._drop()  # type: ignore[method-assign]
        self._route(call, path.query, body)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _route(self, call: str, query: str, body: bytes) -> None:
        free = call.startswith(("PUT /storage/", "POST /storage/"))
        if not free and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._answer(401, {"error": "Invalid credentials"}, {"X-Error-Message": "Invalid credentials"})
            return
        for pattern, act in self._routes():
            found = re.fullmatch(pattern, call)
            if found:
                act(found, query, body)
                return
        self._answer(404, {"error": f"no such place: {call}"})

    def _routes(self) -> Iterator[tuple[str, Callable[[re.Match[str], str, bytes], None]]]:
        name = r"(?P<name>[\w.-]+/[\w.-]+)"
        yield r"GET /api/whoami-v2", self._whoami
        yield r"POST /api/repos/create", self._create
        yield r"POST /api/validate-yaml", self._validate
        yield rf"GET /api/models/{name}", self._info
        yield rf"GET /api/models/{name}/revision/(?P<revision>\w+)", self._info
        yield rf"GET /api/models/{name}/tree/(?P<revision>\w+)", self._tree
        yield rf"POST /api/models/{name}/preupload/main", self._preupload
        yield rf"POST /api/models/{name}/commit/main", self._commit
        yield rf"POST /{name}\.git/info/lfs/objects/batch", self._batch
        yield r"PUT /storage/(?P<oid>\w+)", self._put
        yield r"POST /storage/complete/(?P<oid>\w+)", self._complete
        yield r"POST /lfs/verify", self._stored

    def _whoami(self, found: re.Match[str], query: str, body: bytes) -> None:
        self._answer(200, {"name": "somebody", "auth": {"accessToken": {"role": self.hub.role}}})

    def _create(self, found: re.Match[str], query: str, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.hub.repos:
            self._answer(409, {"error": "You already created this model repo"})
            return
        repo = self.hub.repos[name] = Repo(wanted.get("visibility") == "private")
        repo.commit("initial commit", {".gitattributes": (GITATTRIBUTES, False)})
        self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _validate(self, found: re.Match[str], query: str, body: bytes) -> None:
        import yaml

        text = json.loads(body)["content"]
        assert isinstance(yaml.safe_load(text.split("---\n")[1]), dict)
        self._answer(200, {"errors": [], "warnings": []})

    def _repo(self, found: re.Match[str]) -> Repo | None:
        repo = self.hub.repos.get(found["name"])
        if repo is None:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return repo

    def _info(self, found: re.Match[str], query: str, body: bytes) -> None:
        if repo := self._repo(found):
            self._answer(200, {"id": found["name"], "private": repo.private, "sha": repo.commits[-1][0]})

    def _tree(self, found: re.Match[str], query: str, body: bytes) -> None:
        """In pages of four, as the hub lists large repositories."""
        if not (repo := self._repo(found)):
            return
        assert parse_qs(query)["recursive"] == ["True"] or parse_qs(query)["recursive"] == ["true"]
        start = int(parse_qs(query).get("cursor", ["0"])[0])
        entries = [_entry(path, *kept) for path, kept in sorted(repo.tree(found["revision"]).items())]
        entries.insert(0, {"type": "directory", "path": "polysafe", "oid": "0" * 40, "size": 0})
        after = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + 4}"
        headers = {"Link": f'<{after}>; rel="next"'} if start + 4 < len(entries) else {}
        self._answer(200, entries[start : start + 4], headers)

    def _preupload(self, found: re.Match[str], query: str, body: bytes) -> None:
        if not (repo := self._repo(found)):
            return
        tree = repo.tree("main")
        answers = []
        for file in json.loads(body)["files"]:
            large = file["size"] > LARGE or file["path"].endswith(".safetensors")
            kept = tree.get(file["path"])
            oid = None if kept is None else (_sha256(kept[0]) if kept[1] else _blob(kept[0]))
            answers.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self._answer(200, {"files": answers})

    def _batch(self, found: re.Match[str], query: str, body: bytes) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.stored:
                verify = {"href": f"{self.hub.url}/lfs/verify"}
                answer["actions"] = {"upload": self._upload(wanted["oid"], wanted["size"]), "verify": verify}
            objects.append(answer)
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _upload(self, oid: str, size: int) -> dict[str, Any]:
        part = self.hub.part
        if part is None:
            return {"href": f"{self.hub.url}/storage/{oid}"}
        numbers = range(1, -(-size // part) + 1)
        urls = {str(number): f"{self.hub.url}/storage/{oid}?part={number}" for number in numbers}
        return {"href": f"{self.hub.url}/storage/complete/{oid}", "header": {"chunk_size": str(part), **urls}}

    def _put(self, found: re.Match[str], query: str, body: bytes) -> None:
        oid = found["oid"]
        number = parse_qs(query).get("part")
        if number:
            self.hub.parts[oid, int(number[0])] = body
        elif not self._store(oid, body):
            return
        self._answer(200, {}, {"ETag": f'"{_sha256(body)}"'})

    def _complete(self, found: re.Match[str], query: str, body: bytes) -> None:
        oid = found["oid"]
        numbers = [part["partNumber"] for part in json.loads(body)["parts"]]
        if self._store(oid, b"".join(self.hub.parts[oid, number] for number in numbers)):
            self._answer(200, {})

    def _store(self, oid: str, data: bytes) -> bool:
        if _sha256(data) != oid:
            self._answer(400, {"error": "the content does not have this hash"})
            return False
        self.hub.stored[oid] = data
        self.hub.sent.append(oid)
        return True

    def _stored(self, found: re.Match[str], query: str, body: bytes) -> None:
        self._answer(200 if json.loads(body)["oid"] in self.hub.stored else 404, {})

    def _commit(self, found: re.Match[str], query: str, body: bytes) -> None:
        if not (repo := self._repo(found)):
            return
        tree = dict(repo.tree("main"))
        message = ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                tree[value["path"]] = (base64.b64decode(value["content"]), False)
            elif entry["key"] == "lfsFile":
                tree[value["path"]] = (self.hub.stored[value["oid"]], True)
            elif entry["key"] == "deletedFile":
                del tree[value["path"]]
        oid = repo.commit(message, tree)
        self._answer(200, {"commitUrl": f"{self.hub.url}/{found['name']}/commit/{oid}", "commitOid": oid})


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, content: bytes, large: bool) -> dict[str, Any]:
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{_sha256(content)}\nsize {len(content)}\n".encode()
    )
    lfs = {"lfs": {"oid": _sha256(content), "size": len(content), "pointerSize": len(pointer)}} if large else {}
    return {"type": "file", "path": path, "size": len(content), "oid": _blob(pointer if large else content), **lfs}


@contextmanager
def standin() -> Iterator[StandIn]:
    """Serves an empty hub."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
