"""Clients that hold the operator's ports: python -m tests.integration.hostile_clients METRICS_PORT PROBE_PORT [...].

They connect to loopback only. Readers ask for `/metrics` again and again, a quarter of them without reading the answer;
half-open connections send nothing, or half a request. On the end of standard input they stop, and print what they did.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import sys
from collections import Counter

HOST = "127.0.0.1"
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
READER_SECONDS = 20.0
MAX_SECONDS = 600.0


async def read(port: int, done: Counter[str]) -> None:
    """Read the metrics, over and over."""
    while True:
        reader, writer = None, None
        try:
            async with asyncio.timeout(READER_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(REQUEST)
                text = await reader.read(-1)
            done["answers" if text.startswith(b"HTTP/1.1 200") else "closed"] += 1
            done["bytes"] += len(text)
        except (OSError, TimeoutError):
            done["errors"] += 1
            await asyncio.sleep(0.05)
        finally:
            if writer:
                writer.close()


async def ask(port: int, done: Counter[str]) -> None:
    """Ask for the metrics and read nothing, over and over."""
    while True:
        with socket.socket() as client:
            client.setblocking(False)
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_connect(client, (HOST, port))
                await asyncio.get_running_loop().sock_sendall(client, REQUEST)
                done["unread"] += 1
            await asyncio.sleep(5.0)


async def hold(ports: list[int], count: int, seconds: float, done: Counter[str]) -> None:
    """Open so many connections at once, hold them, close them, and begin again."""
    while count:
        held = [socket.socket() for _ in range(count)]
        for number, client in enumerate(held):
            client.setblocking(False)
            client.connect_ex((HOST, ports[number % len(ports)]))
            if number % 500 == 0:
                await asyncio.sleep(0)
        done["connections"] += count
        await asyncio.sleep(seconds / 2)
        for client in held[::2]:
            with contextlib.suppress(OSError):
                client.send(REQUEST[:20])
        await asyncio.sleep(seconds / 2)
        for client in held:
            client.close()


async def run(ports: list[int], readers: int, connections: int, seconds: float) -> Counter[str]:
    """All of it, until the input ends."""
    done: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    tasks = [
        *(loop.create_task(ask(ports[0], done)) for _ in range(readers // 4)),
        *(loop.create_task(read(ports[0], done)) for _ in range(readers - readers // 4)),
        loop.create_task(hold(ports, connections, seconds, done)),
    ]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.to_thread(sys.stdin.read), MAX_SECONDS)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [each for each in ended if not isinstance(each, asyncio.CancelledError)]
    assert not failed, failed
    return done


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ports", type=int, nargs=2, metavar="port")
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long connections are held before new ones")
    arguments = parser.parse_args()
    done = asyncio.run(run(arguments.ports, arguments.readers, arguments.connections, arguments.seconds))
    print(json.dumps(done))


if __name__ == "__main__":
    main()
