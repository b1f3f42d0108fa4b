"""A real S3-compatible store for the cluster: versitygw over a directory, with one key."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.cluster import build

BUCKET, REGION = "team", "us-east-1"
SECONDS = 30


@dataclass(frozen=True)
class ObjectStore:
    """A store with one bucket.

    Attributes:
        url: its address.
        client: boto3's, with the store's key.
    """

    url: str
    client: Any

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def keys(self) -> list[str]:
        """The keys of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def objects(self) -> dict[str, bytes]:
        """What is in the bucket now."""
        return {key: self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in self.keys()}


def client(url: str, access: str, secret: str) -> Any:
    """boto3's client of a store, with a key."""
    import boto3

    keys = {"aws_access_key_id": access, "aws_secret_access_key": secret}
    return boto3.client("s3", endpoint_url=url, region_name=REGION, **keys)


@contextmanager
def serving(directory: Path, host: str, access: str, secret: str) -> Iterator[ObjectStore]:
    """Serve a directory's `objects`, on a free port, to who has the key.

    Raises:
        RuntimeError: the server ended or did not listen in time, with its last words.
    """
    build.ensure(["store"])
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    objects, log = directory / "objects", directory / "versitygw.log"
    objects.mkdir()
    environment = {"PATH": os.environ["PATH"], "ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret}
    command = [str(build.binary("versitygw")), "--port", f"{host}:{port}", "--region", REGION, "posix", str(objects)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _listens(process, host, port, log)
        store = ObjectStore(f"http://{host}:{port}", client(f"http://{host}:{port}", access, secret))
        store.client.create_bucket(Bucket=BUCKET)
        yield store
    finally:
        process.terminate()
        process.wait(SECONDS)


def _listens(process: "subprocess.Popen[bytes]", host: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"versitygw does not listen: {log.read_text(errors='replace')[-2000:]}")
