"""The way from other pods of the gang to the store of pod 0, open only to those that know the run's key.

torch's store and process groups ask nobody who they are, and some of what ranks exchange is pickled. So the store
listens on pod 0's loopback address. In front of it, `entrance` lets a connection through after both sides have proved
that they know the key of the run; in the other pods, `passage` makes such connections for torch. The key is on the
run's own directory of the workspace, which only pods that mount the claim can read.

What ranks send each other later, by gloo or NCCL, is neither encrypted nor proved: it goes to addresses that only the
store tells. NetworkPolicies keep strangers from these.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

LOOPBACK = "127.0.0.1"
KEY_FILE = "gang.key"
"""Name of the key's file in the run's directory."""
_KEY_BYTES = 32
_NONCE_BYTES = 32
_PROOF_BYTES = hashlib.sha256().digest_size
_GREETING = b"hone-gang-1\n"
HANDSHAKE_SECONDS = 10.0
"""How long a connection may take to prove itself."""
_RETRY_SECONDS = 0.5
MAX_UNPROVED = 64
"""Connections that have proved nothing yet. Another one ends the oldest, so that strangers cannot lock peers out."""
_CHUNK_BYTES = 1 << 16
_KEY_WAIT_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Refused(ConnectionError):
    """The other side did not prove that it knows the key."""


def load_key(directory: Path) -> bytes:
    """The run's key; whichever pod comes first makes it.

    Args:
        directory: the run's directory on the workspace.

    Raises:
        TimeoutError: there is a key's file, but it cannot be read; a network file system can show it late.
    """
    path = directory / KEY_FILE
    directory.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + _KEY_WAIT_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == _KEY_BYTES:
                return key
        _offer_key(path)
        time.sleep(0.05)
    raise TimeoutError(f"{path} cannot be read, or does not hold {_KEY_BYTES} bytes")


def _offer_key(path: Path) -> None:
    """Write a key under a temporary name, and link it to `path` unless there is one: no pod sees half of it.

    Some network file systems have no hard links, such as SMB: there, the file is written in its place, unless there is
    one, and other pods wait until it is whole.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        key = secrets.token_bytes(_KEY_BYTES)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:
            with contextlib.suppress(FileExistsError), open(path, "xb", opener=_for_owner) as file:
                file.write(key)
    finally:
        temporary.unlink(missing_ok=True)


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def entrance(port: int, store_port: int, key: bytes) -> Iterator[None]:
    """On pod 0: admit peers at `port` of all addresses to the store at `store_port` of the loopback address.

    Raises:
        OSError: the port is in use.
    """
    with _in_background(_entrance(port, store_port, key)):
        yield


@contextlib.contextmanager
def passage(host: str, port: int, local_port: int, key: bytes, *, seconds: float) -> Iterator[None]:
    """On the other pods: connect what comes to `local_port` of the loopback address with `entrance` at `host`.

    Args:
        host, port: address of pod 0.
        local_port: where this pod's torchrun and its ranks connect to.
        key: of the run.
        seconds: how long to try to reach pod 0.

    Raises:
        OSError: the local port is in use.
    """
    with _in_background(_passage(host, port, local_port, key, seconds)):
        yield


@contextlib.asynccontextmanager
async def _entrance(port: int, store_port: int, key: bytes) -> AsyncIterator[None]:
    unproved: deque[asyncio.StreamWriter] = deque()

    async def admit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unproved.append(writer)
        if len(unproved) > MAX_UNPROVED:
            unproved.popleft().transport.abort()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await _prove(reader, writer, key, server=True)
        finally:
            with contextlib.suppress(ValueError):
                unproved.remove(writer)
        await _join((reader, writer), await asyncio.open_connection(LOOPBACK, store_port))

    server = await asyncio.start_server(_quietly(admit), port=port, limit=_CHUNK_BYTES)
    async with server:
        yield


@contextlib.asynccontextmanager
async def _passage(host: str, port: int, local_port: int, key: bytes, seconds: float) -> AsyncIterator[None]:
    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join((reader, writer), await _connect(host, port, key, seconds))

    server = await asyncio.start_server(_quietly(lead), LOOPBACK, local_port, limit=_CHUNK_BYTES)
    async with server:
        yield


async def _connect(
    host: str, port: int, key: bytes, seconds: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A proved connection to pod 0, which may start later than this pod and has no name until then."""
    until = time.monotonic() + seconds
    while True:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                reader, writer = await asyncio.open_connection(host, port, limit=_CHUNK_BYTES)
                try:
                    await _prove(reader, writer, key, server=False)
                except BaseException:
                    writer.transport.abort()
                    raise
            return reader, writer
        except (OSError, asyncio.IncompleteReadError) as error:
            if time.monotonic() > until:
                raise
            if isinstance(error, Refused):
                logger.warning("pod 0 did not prove that it knows the run's key", extra={"host": host, "port": port})
            await asyncio.sleep(_RETRY_SECONDS)


async def _prove(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes, *, server: bool) -> None:
    """Prove to the other side that we know the key, and make it prove the same; nothing else is sent before.

    Each side sends a random value. Each proof is an HMAC-SHA-256 over both values and the side that sends it, so that
    neither can be used again or sent back. The side that waits for connections proves itself last.

    Raises:
        Refused: the other side does not know the key, or speaks something else.
    """
    mine = secrets.token_bytes(_NONCE_BYTES)
    writer.write(_GREETING + mine)
    await writer.drain()
    greeting = await reader.readexactly(len(_GREETING) + _NONCE_BYTES)
    if not greeting.startswith(_GREETING):
        raise Refused("another protocol")
    theirs = greeting[len(_GREETING) :]
    both = (mine + theirs) if server else (theirs + mine)
    if not server:
        writer.write(_proof(key, b"client", both))
        await writer.drain()
    proof = await reader.readexactly(_PROOF_BYTES)
    if not hmac.compare_digest(proof, _proof(key, b"client" if server else b"server", both)):
        raise Refused("another key")
    if server:
        writer.write(_proof(key, b"server", both))
        await writer.drain()


def _proof(key: bytes, side: bytes, both: bytes) -> bytes:
    return hmac.digest(key, side + both, "sha256")


_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(one: _Connection, other: _Connection) -> None:
    """Pass bytes in both directions until both sides have ended, or one of them is lost."""
    try:
        await asyncio.gather(_copy(one[0], other[1]), _copy(other[0], one[1]))
    finally:
        for _, writer in (one, other):
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _quietly(handle: _Handler) -> _Handler:
    """End the connection with its handler, and log why if it failed: a stranger must not fill the log with traces."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except Refused as error:
            peer = writer.get_extra_info("peername")
            logger.warning("refused a connection to the rendezvous", extra={"peer": str(peer), "why": str(error)})
        except (OSError, asyncio.IncompleteReadError) as error:
            logger.debug("a connection of the rendezvous ended", extra={"why": str(error)})
        except asyncio.CancelledError:
            # Only the end of the block cancels it, and asyncio's streams print a trace for a handler that says so.
            pass
        finally:
            writer.transport.abort()

    return handler


@contextlib.contextmanager
def _in_background(serving: contextlib.AbstractAsyncContextManager[None]) -> Iterator[None]:
    """Serve in a thread with an event loop of its own, from when the port is open until the block ends."""
    open_: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(serving, open_)), name="rendezvous", daemon=True)
    thread.start()
    loop, end = open_.result()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()


async def _serve(
    serving: contextlib.AbstractAsyncContextManager[None],
    open_: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]],
) -> None:
    end = asyncio.Event()
    try:
        async with serving:
            open_.set_result((asyncio.get_running_loop(), end))
            await end.wait()
            # From Python 3.12 on, a server that is closed waits for its connections.
            connections = asyncio.all_tasks() - {asyncio.current_task()}
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
    except Exception as error:
        if open_.done():
            raise
        open_.set_exception(error)
