"""A provider with a batch interface, as OpenAI documents it, without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx

URL = "https://provider.example/v1"
Body = Mapping[str, Any]


def said(body: Body) -> dict[str, Any]:
    """The answer to a chat: its last message, in capitals."""
    text = body["messages"][-1]["content"].upper()
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}


class Provider:
    """Keeps files and batches; a batch ends after it was looked at as often as `looks` says.

    Attributes:
        files: Name of a file -> its content.
        batches: Name of a batch -> what is told of it.
        asked: Method and path of every request.
        answered: Number of chats that were answered, which is what costs.
        broken: Called with every request; may answer it instead, or raise.
    """

    def __init__(
        self, looks: int = 2, answer: Callable[[Body], tuple[int, Any]] = lambda body: (200, said(body))
    ) -> None:
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.answered = 0
        self.broken: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.after: Callable[[httpx.Request], None] = lambda _: None
        self.status = "completed"
        self.reason: Mapping[str, Any] | None = None
        self._looks, self._answer, self._seen = looks, answer, dict[str, int]()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"{URL}/", transport=httpx.MockTransport(self._handle))

    @contextmanager
    def served(self) -> Iterator[str]:
        """The same on this machine, at the address that is given."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._pass_on()

            def do_POST(self) -> None:
                self._pass_on()

            def log_message(self, *_: object) -> None:
                pass

            def _pass_on(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                url = f"{URL}{self.path.removeprefix('/v1')}"
                kind = {"content-type": self.headers.get("content-type", "")}
                told = provider._handle(httpx.Request(self.command, url, headers=kind, content=content))
                body = told.read()
                self.send_response(told.status_code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
            server.shutdown()
            thread.join()

    def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().removeprefix("/v1/")
        self.asked.append(f"{request.method} {path}")
        told = self.broken(request)
        if told is None:
            told = self._told(request, path)
            self.after(request)
        return httpx.Response(told.status_code, headers=told.headers, content=iter([told.content]))

    def _told(self, request: httpx.Request, path: str) -> httpx.Response:
        begun: dict[tuple[str, str], Callable[[], httpx.Response]] = {
            ("POST", "files"): lambda: self._upload(request),
            ("POST", "batches"): lambda: self._begin(json.loads(request.content)),
            ("POST", "chat/completions"): lambda: self._at_once(json.loads(request.content)),
            ("GET", "batches?limit=100"): lambda: httpx.Response(200, json={"data": list(self.batches.values())}),
        }
        if (request.method, path) in begun:
            return begun[request.method, path]()
        if path.startswith("batches/"):
            return self._look(path.removeprefix("batches/"))
        if (found := re.fullmatch(r"files/(.+)/content", path)) and found[1] in self.files:
            return httpx.Response(200, text=self.files[found[1]])
        return httpx.Response(404, json={"error": {"message": "there is no such thing"}})

    def _at_once(self, body: Body) -> httpx.Response:
        status, told = self._answer(body)
        return httpx.Response(status, json=told)

    def _upload(self, request: httpx.Request) -> httpx.Response:
        boundary = request.headers["content-type"].partition("boundary=")[2]
        parts = [part.partition("\r\n\r\n") for part in request.content.decode("ascii").split(f"--{boundary}")]
        fields = {
            re.findall(r'name="(\w+)"', head)[0]: body.removesuffix("\r\n")
            for head, _, body in parts
            if "name=" in head
        }
        assert fields["purpose"] == "batch"
        name = f"file-{len(self.files)}"
        self.files[name] = fields["file"]
        return httpx.Response(200, json={"id": name, "object": "file"})

    def _begin(self, wanted: dict[str, Any]) -> httpx.Response:
        assert wanted["completion_window"] == "24h"
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {"id": name, "status": "validating", **wanted, "request_counts": {"total": 0}}
        return httpx.Response(200, json=self.batches[name])

    def _look(self, name: str) -> httpx.Response:
        if name not in self.batches:
            return httpx.Response(404, json={"error": {"message": "no batch"}})
        batch = self.batches[name]
        self._seen[name] = self._seen.get(name, 0) + 1
        if self._seen[name] > self._looks and batch["status"] == "validating":
            self._end(batch)
        return httpx.Response(200, json=batch)

    def _end(self, batch: dict[str, Any]) -> None:
        lines: dict[bool, list[str]] = {True: [], False: []}
        for line in map(json.loads, self.files[batch["input_file_id"]].splitlines()):
            assert (line["method"], line["url"]) == ("POST", batch["endpoint"])
            status, body = self._answer(line["body"])
            self.answered += 1
            row = {"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
            lines[status == 200].insert(0, json.dumps(row))  # in another order than they went
        batch |= {"status": self.status, "errors": self.reason}
        batch["request_counts"] = {"completed": len(lines[True]), "failed": len(lines[False])}
        for fine, key in ((True, "output_file_id"), (False, "error_file_id")):
            if lines[fine]:
                batch[key] = f"{key}-{batch['id']}"
                self.files[batch[key]] = "\n".join(lines[fine]) + "\n"
