"""Ways around the key of a server, byte by byte: none of them may be answered by anything behind the guard."""

import base64
import re

OLD, ALICE, BOB = "old-key-of-alice-0123456789", "key-of-alice-0123456789abcdef", "key-of-bob-0123456789abcdef"
"""A key that no longer counts, and those of two clients."""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n")
CHAT, MODELS = b"/v1/chat/completions", b"/v1/models"
PROMPT = b'{"model": "support", "messages": [{"role": "user", "content": "1+2="}], "max_tokens": 4}'
"""What a server that calls its model `support` answers to whoever has a key."""
KEY = f"authorization: Bearer {ALICE}\r\n".encode()


def request(
    path: bytes = MODELS, headers: bytes = b"", method: bytes = b"GET", body: bytes = b"", version: bytes = b"1.1"
) -> bytes:
    """A request whose length is announced where it has a body, which vLLM reads as JSON."""
    length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body) if body else b""
    return b"%s %s HTTP/%s\r\nhost: x\r\n%s%s\r\n%s" % (method, path, version, headers, length, body)


def bearer(key: str) -> bytes:
    """The header with a key."""
    return f"authorization: Bearer {key}\r\n".encode()


HEALTH = request(b"/health")
BASIC = base64.b64encode(f":{ALICE}".encode())
SMUGGLED = request(MODELS)
WEBSOCKET = (
    b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
WAYS = {
    # Without a key.
    "no key": request(),
    "chat without a key": request(CHAT, method=b"POST", body=PROMPT),
    "chat with a wrong key": request(CHAT, bearer("x" * 32), b"POST", PROMPT),
    "chat with the key in the query": request(CHAT + b"?api_key=" + ALICE.encode(), b"", b"POST", PROMPT),
    "no key, HTTP/1.0": request(version=b"1.0"),
    "no key, no host": b"GET /v1/models HTTP/1.0\r\n\r\n",
    "HTTP/0.9": b"GET /v1/models\r\n",
    # Keys that are none.
    "empty key": request(headers=b"authorization: Bearer \r\n"),
    "no word but the scheme": request(headers=b"authorization: Bearer\r\n"),
    "empty header": request(headers=b"authorization:\r\n"),
    "wrong key": request(headers=bearer("x" * 32)),
    "key with a letter less": request(headers=bearer(ALICE[:-1])),
    "key with a letter more": request(headers=bearer(ALICE + "x")),
    "key in capitals": request(headers=bearer(ALICE.upper())),
    "key and another one": request(headers=bearer(f"{ALICE},{BOB}")),
    "key of before the rotation": request(headers=bearer(OLD)),
    "name of a key": request(headers=bearer("alice")),
    "a key that is too short to count": request(headers=bearer("short")),
    "a star": request(headers=bearer("*")),
    "key with a zero byte": request(headers=b"authorization: Bearer \0\r\n"),
    "two headers, one of them right": request(headers=bearer("x" * 32) + KEY),
    "the right header twice": request(headers=KEY + KEY),
    # Other places for the key.
    "key as a password": request(headers=b"authorization: Basic " + BASIC + b"\r\n"),
    "key without a scheme": request(headers=f"authorization: {ALICE}\r\n".encode()),
    "key in the query": request(b"/v1/models?api_key=%s&key=%s&token=%s" % ((ALICE.encode(),) * 3)),
    "key in a cookie": request(headers=f"cookie: authorization=Bearer {ALICE}\r\n".encode()),
    "key in x-api-key": request(headers=f"x-api-key: {ALICE}\r\n".encode()),
    "key in a proxy's header": request(headers=b"proxy-" + KEY),
    # Headers by which proxies tell who asks, or what is asked for.
    "headers of proxies": request(
        headers=b"x-forwarded-for: 127.0.0.1\r\nx-real-ip: ::1\r\nforwarded: for=::1\r\nx-remote-user: admin\r\n"
    ),
    "another path in a header": request(
        b"/health", b"x-original-url: /v1/models\r\nx-rewrite-url: /v1/models\r\nx-forwarded-prefix: /v1/models\r\n"
    ),
    "another method in a header": request(headers=b"x-http-method-override: OPTIONS\r\n"),
    "host of loopback": b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    # Methods.
    "OPTIONS": request(CHAT, method=b"OPTIONS"),
    "preflight of a browser": request(
        CHAT, b"origin: http://x\r\naccess-control-request-method: POST\r\n", method=b"OPTIONS"
    ),
    "OPTIONS *": request(b"*", method=b"OPTIONS"),
    "HEAD": request(method=b"HEAD"),
    "TRACE": request(method=b"TRACE"),
    "CONNECT": request(b"x:443", method=b"CONNECT"),
    "method in small letters": request(method=b"get"),
    "POST to the health": request(b"/health", method=b"POST", body=b"{}"),
    # Paths that look like the health's.
    "two slashes": request(b"//v1/models"),
    "two slashes before the health": request(b"//health"),
    "slash at the end": request(b"/v1/models/"),
    "dots after the health": request(b"/health/../v1/models"),
    "encoded dots after the health": request(b"/health/%2e%2e/v1/models"),
    "doubly encoded dots": request(b"/health/%252e%252e/v1/models"),
    "encoded slash": request(b"/health%2f..%2fv1%2fmodels"),
    "backslashes": request(b"/health\\..\\v1\\models"),
    "encoded letters": request(b"/%76%31/%6d%6f%64%65%6c%73"),
    "path in capitals": request(b"/V1/MODELS"),
    "zero byte after the health": request(b"/health%00/v1/models"),
    "parameter of a path": request(b"/health;/v1/models"),
    "newline in the path": request(b"/health%0d%0a/v1/models"),
    "health as the query": request(b"/v1/models?/health"),
    "health as the fragment": request(b"/v1/models#/health"),
    "letters of another alphabet": request("/ｖ1/models".encode()),
    "no path": request(b""),
    "target with a host": request(b"http://x/v1/models"),
    "target with a host and the health": request(b"http://x/health/../v1/models"),
    "target with a user": request(b"http://health@x/v1/models"),
    # Paths that vLLM's own key leaves open.
    "metrics": request(b"/metrics"),
    "classes": request(b"/classify", method=b"POST", body=b"{}"),
    "pooling": request(b"/pooling", method=b"POST", body=b"{}"),
    "invocations": request(b"/invocations", method=b"POST", body=b"{}"),
    "tokens": request(b"/tokenize", method=b"POST", body=b"{}"),
    "documentation": request(b"/openapi.json"),
    "version": request(b"/version"),
    "ping": request(b"/ping"),
    # Connections.
    "second on a connection": HEALTH + request(),
    "twenty on a connection": HEALTH + 20 * request(),
    "second after a good one": request(CHAT, KEY, b"POST", b"{}").replace(CHAT, b"/none") + request(),
    "inside the body of the health": request(b"/health", body=SMUGGLED),
    "two lengths": request(b"/health", b"content-length: 0\r\n", body=SMUGGLED),
    "length and chunks": (
        b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        + SMUGGLED
    ),
    "chunks of another name": (
        b"POST /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED
    ),
    "folded header": request(headers=b"x: y\r\n authorization: Bearer " + ALICE.encode() + b"\r\n"),
    "space before the colon": request(headers=b"authorization : Bearer " + ALICE.encode() + b"\r\n"),
    "bare line feeds": b"GET /v1/models HTTP/1.1\nhost: x\n\n",
    "WebSocket": request(b"/v1/realtime", WEBSOCKET),
    "WebSocket with a key": request(b"/v1/realtime", WEBSOCKET.replace(b"key: ", b"key: ") + KEY),
    "HTTP/2 in the clear": request(
        headers=b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    ),
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("160301002f0100002b0303") + bytes(37),
    # Size.
    "huge header": request(headers=b"x: " + b"y" * (1 << 20) + b"\r\n"),
    "huge key": request(headers=bearer("x" * (1 << 20))),
    "a thousand headers": request(headers=b"".join(b"x%d: y\r\n" % number for number in range(1000))),
    "10 MB body without a key": request(CHAT, method=b"POST", body=b"x" * 10_000_000),
    "10 MB body with a key": request(CHAT, KEY, b"POST", b"x" * 10_000_000),
    "10 MB in chunks with a key": (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + KEY + b"transfer-encoding: chunked\r\n\r\n"
        b"989680\r\n" + b"x" * 10_000_000 + b"\r\n0\r\n\r\n"
    ),
    # With a key: what is not the server's API.
    "another API": request(b"/classify", KEY, b"POST", b"{}"),
    "metrics with a key": request(b"/metrics", KEY),
    "adapters of vLLM's developers": request(b"/v1/load_lora_adapter", KEY, b"POST", b"{}"),
    "path below one of the API's": request(b"/v1/models/../../metrics", KEY),
    "another method": request(CHAT, KEY, b"DELETE"),
}


def answered(answer: bytes) -> bool:
    """Whether more came back than refusals and empty answers, as those of the health are."""
    pieces = _STATUS.split(answer)
    if pieces[0]:
        return True
    return any(_is_content(int(status), rest) for status, rest in zip(pieces[1::2], pieces[2::2], strict=True))


def _is_content(status: int, rest: bytes) -> bool:
    head, _, body = rest.partition(b"\r\n\r\n")
    return status < 400 and (status != 200 or bool(body) or b"content-length: 0" not in head.lower())
