"""A stub of an OpenAI server whose answers, failures and delays are set by environment variables.

    STUB_RIGHT=0.8 STUB_FAILS=0.1 STUB_SECONDS=0.01 python trainer-image/tests/openai_stub.py

It knows the right answer of a prompt: what follows "say " in it. Whether an answer is right or fails depends on the
prompt alone, so it answers the same again.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def share_of(prompt: str, salt: str) -> float:
    """A number from 0 to 1 that follows from the prompt."""
    return int(hashlib.sha256((salt + prompt).encode()).hexdigest()[:8], 16) / 0xFFFFFFFF


class Stub(ThreadingHTTPServer):
    """The server. Attributes: `settings`, and `requests`, the bodies that it got."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", int(settings.get("STUB_PORT", "0"))), Handler)
        self.settings, self.requests = settings, list[dict[str, Any]]()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def number(self, name: str, default: float) -> float:
        """A setting."""
        return float(self.settings.get(name, default))


class Handler(BaseHTTPRequestHandler):
    """Answers /v1/chat/completions and /classify."""

    server: Stub

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """The models."""
        name = self.server.settings.get("STUB_MODEL", "bot")
        self._send(200, {"data": [{"id": f"{name}-base"}, {"id": name}]})

    def do_POST(self) -> None:
        """An answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        key = self.server.settings.get("STUB_KEY")
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self._send(401, {"error": "no key"})
            return
        if len(self.server.requests) <= self.server.number("STUB_LIMITS", 0):
            self._send(
                429, {"error": "too many requests"}, {"Retry-After": self.server.settings.get("STUB_AGAIN", "3")}
            )
            return
        if body["model"] != self.server.settings.get("STUB_MODEL", body["model"]):
            self._send(404, {"error": "no such model"})
            return
        prompt = body.get("input") or body["messages"][-1]["content"]
        time.sleep(self.server.number("STUB_SECONDS", 0))
        if share_of(prompt, "fails") < self.server.number("STUB_FAILS", 0):
            self._send(500, {"error": "the engine is dead"})
            return
        is_right = share_of(prompt, "right") < self.server.number("STUB_RIGHT", 1)
        text = prompt.partition("say ")[2] if is_right else self.server.settings.get("STUB_WRONG", "nonsense")
        if self.path == "/classify":
            self._send(200, {"data": [{"label": text, "probs": [1.0]}]})
            return
        if body.get("stream"):
            self._stream(text)
            return
        reason = self.server.settings.get("STUB_FINISH", "stop")
        self._send(200, {"choices": [{"message": {"content": text}, "finish_reason": reason}]})

    def _stream(self, text: str) -> None:
        """A role, a chunk for each letter after STUB_EACH seconds, and what was used."""
        chunks: list[dict[str, Any]] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
        chunks += [{"choices": [{"delta": {"content": letter}}]} for letter in text]
        chunks.append({"choices": [], "usage": {"completion_tokens": len(text)}})
        self.send_response(200)
        self.end_headers()
        for chunk in chunks:
            if chunk["choices"] and "role" not in chunk["choices"][0]["delta"]:
                time.sleep(self.server.number("STUB_EACH", 0))
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, code: int, body: object, headers: Mapping[str, str] = {}) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def stub(**settings: str | float) -> Iterator[Stub]:
    """A server in a thread, with these settings, such as `right=0.8`."""
    server = Stub({f"STUB_{name.upper()}": str(value) for name, value in settings.items()})
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    Stub(os.environ).serve_forever()
