"""An OpenAI-compatible server on loopback whose verdicts follow a rule: a judge with a known bias."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

Rule = Callable[[str, str], str]
"""A, B or TIE, for the answers A and B."""
PARTS = re.compile(r"<<answer A>>\n(.*)\n<<end of answer A>>\n<<answer B>>\n(.*)\n<<end of answer B>>", re.DOTALL)


def longer(first: str, second: str) -> str:
    """Prefers the longer answer."""
    return "TIE" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


def first(first: str, second: str) -> str:
    """Prefers the answer that comes first."""
    return "A"


def at_random(seed: int) -> Rule:
    """Draws its verdicts, the same ones whatever the order of the requests."""
    requests, lock = Counter[tuple[str, str]](), threading.Lock()

    def drawn(first: str, second: str) -> str:
        with lock:
            requests[first, second] += 1
            number = requests[first, second]
        return Random(f"{seed} {number} {first} {second}").choice(("A", "B", "TIE"))

    return drawn


def honest(first: str, second: str) -> str:
    """Prefers what is right."""
    points = [text.count("right") for text in (first, second)]
    return "TIE" if points[0] == points[1] else "A" if points[0] > points[1] else "B"


@dataclass
class JudgeServer:
    """What it answers, and what it got.

    Attributes:
        rule: decides.
        statuses: statuses of the next responses, before it answers as it should.
        text: what it answers instead of a verdict.
        body: what it sends instead of a completion.
        keys: the Authorization headers of requests.
        prompts: what it was asked.
        port: where it listens.
    """

    rule: Rule = honest
    statuses: list[int] = field(default_factory=list)
    text: str | None = None
    body: bytes | None = None
    keys: list[str | None] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    port: int = 0

    def answer(self, prompt: str) -> bytes:
        """The body of a response."""
        match = PARTS.search(prompt)
        assert match, prompt
        text = self.text or f"VERDICT: B would be hasty.\nVERDICT: {self.rule(*match.groups())}"
        return self.body or json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@contextmanager
def serving(server: JudgeServer) -> Iterator[JudgeServer]:
    """Serves until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions" and content["temperature"] == 0
            server.keys.append(self.headers.get("Authorization"))
            prompt = content["messages"][0]["content"]
            server.prompts.append(prompt)
            status = server.statuses.pop(0) if server.statuses else 200
            body = server.answer(prompt) if status == 200 else b"secret words"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
