"""Sources that are not honest, each as a function that meets one: what they do, and how Hone comes to see it."""

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub_server
import published
from store_server import BUCKET, Store
from test_https import DIGEST, Site

from hone.contract.runconfig import Download
from hone.contract.served import Fetch
from hone.contract.stores import S3_KEYS, S3Store
from hone_trainer import fetch
from hone_trainer.data.read import rows
from hone_trainer.data.sources import find_source
from hone_trainer.downloads.download import ensure_downloaded
from hone_trainer.models.untrusted import check_model
from hone_trainer.models.weights import weight_shapes
from hone_trainer.protocol.errors import BadInput

VARIABLES = {key: f"{key}_MODEL" for key in S3_KEYS}
METADATA, API_SERVER = "169.254.169.254", "10.96.0.1"
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
CODE = {"auto_map": {"AutoModel": "evil.Model"}}


@dataclass(frozen=True)
class Meeting:
    """What a source is met with: the servers, and an empty workspace.

    Attributes:
        workspace: its directory.
        hub, store, site: servers on loopback.
    """

    workspace: Path
    hub: hub_server.Hub
    store: Store
    site: Site

    def model_of_hub(self, **files: bytes) -> None:
        """A job downloads a model that has these files."""
        if files:
            self.hub.commits[hub_server.COMMIT] = files
        into = str(self.workspace / "models" / "a-model")
        ensure_downloaded(Download(field="spec.model", uri="hf://acme/tiny", downloaded=into, endpoint=self.hub.url))

    def rows_of_hub(self, *names: str) -> None:
        """A job downloads a data set that has these files."""
        self.hub.commits[hub_server.COMMIT] = dict.fromkeys(names, b"{}")
        into, uri = str(self.workspace / "data" / "a-train"), "hf://datasets/acme/rows"
        field = "spec.dataset.train"
        ensure_downloaded(Download(field=field, uri=uri, downloaded=into, endpoint=self.hub.url, is_data=True))

    def rows_of_store(self, *listed: str, url: str = "", is_trusted: bool = True) -> None:
        """A job downloads rows from a store that lists these names."""
        self.store.listed = list(listed) or None
        download = Download(
            field="spec.dataset.train",
            uri=f"s3://{BUCKET}/data/**",
            downloaded=str(self.workspace / "data" / "a-train"),
            s3=S3Store.model_construct(endpoint=url or self.store.url),
            is_trusted=is_trusted or None,
            is_data=True,
        )
        ensure_downloaded(download)

    def rows_of_site(self, path: str = "/rows.jsonl", digest: str = DIGEST) -> None:
        """A job downloads a file of an HTTPS server."""
        into, uri = str(self.workspace / "data" / "a-train"), self.site.url + path
        ensure_downloaded(Download(field="spec.dataset.train", uri=uri, downloaded=into, sha256=digest, is_data=True))

    def redirected(self, target: str) -> None:
        """The HTTPS server leads elsewhere."""
        self.site.redirect = target
        self.rows_of_site()

    def published_model(self, files: dict[str, bytes], digest: str | None = None) -> None:
        """A server gets a model that was published with these files."""
        self.store.put({f"out/{name}": content for name, content in files.items()})
        into = str(self.workspace / "artifact")
        os.environ.update(dict.fromkeys(VARIABLES.values(), "planted"))
        download = Download(
            field="spec.model",
            uri=f"s3://{BUCKET}/out",
            downloaded=into,
            s3=S3Store(endpoint=self.store.url),
            is_trusted=True,
            credentials=VARIABLES,
            sums=digest or "",
        )
        request = Fetch(directory=into, artifact=download, digest=digest)
        fetch.inspect(request) if digest is None else fetch.fetch_model(request)

    def model_on_claim(self, change: Callable[[Path], object], **config: Any) -> None:
        """A job reads a model on a claim."""
        directory = self.workspace / "model"
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps({**LLAMA, **config}))
        (directory / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        change(directory)
        check_model(directory, "spec.model")
        weight_shapes(directory)

    def rows_on_claim(self, name: str, content: bytes) -> None:
        """A job reads a file with rows on a claim."""
        (self.workspace / name).write_bytes(content)
        for _ in rows(find_source("train", str(self.workspace / name))):
            pass


def _nothing(directory: Path) -> None:
    """The model stays as it is."""


def _pickles_only(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(b"pickle")


def _custom(directory: Path) -> None:
    (directory / "custom_generate").mkdir()


def _pipe(directory: Path) -> None:
    os.mkfifo(directory / "tokenizer.json")


def _header(length: int) -> Callable[[Path], object]:
    return lambda model: (model / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")


def _link(target: str) -> Callable[[Path], object]:
    return lambda model: (model / "tokenizer.json").symlink_to(target)


def _gzip() -> bytes:
    return gzip.compress(b"[" * (300 << 20), 1)


def _zip() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../rows.jsonl", b"\0" * (10 << 20))
    return archive.getvalue()


def _tar() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        entry = tarfile.TarInfo("../../rows.jsonl")
        entry.size = 4
        file.addfile(entry, io.BytesIO(b"rows"))
    return archive.getvalue()


MODEL = published.model()
SUMS = MODEL["SHA256SUMS"]
Row = tuple[str, str, Callable[[Meeting], object]]
ROWS: tuple[Row, ...] = (
    # What a store or a hub lists.
    ("dotdot", "lists the name `../../x.jsonl`", lambda it: it.rows_of_store("data/../../x.jsonl")),
    ("dot", "lists a name with `.` as a part", lambda it: it.rows_of_store("data/./x.jsonl")),
    ("absolute", "lists an absolute name", lambda it: it.rows_of_store("data//etc/passwd")),
    ("backslash", "lists a name with a backslash", lambda it: it.rows_of_store("data/a\\b.jsonl")),
    ("control", "lists a name with a control character", lambda it: it.rows_of_store("data/a\tb.jsonl")),
    ("long", "lists a name of 300 characters", lambda it: it.rows_of_store(f"data/{'a' * 300}.jsonl")),
    ("both", "lists a file that is also a directory", lambda it: it.rows_of_store("data/a", "data/a/b.jsonl")),
    ("many", "lists 20,001 files", lambda it: it.rows_of_store(*(f"data/{n}.jsonl" for n in range(20_001)))),
    ("hidden", "lists hidden files alone", lambda it: it.rows_of_store("data/.git/config")),
    ("script", "a data set with a loading script", lambda it: it.rows_of_hub("rows.py", "README.md")),
    ("zipped rows", "a data set of archives", lambda it: it.rows_of_hub("rows.zip")),
    (
        "hub pickles",
        "a model whose weights are pickles, on the Hub",
        lambda it: it.model_of_hub(**{"config.json": b"{}", "pytorch_model.bin": b"pickle"}),
    ),
    ("lie", "content that is not as listed", lambda it: (setattr(it.hub, "lies", True), it.model_of_hub())),
    # Where servers lead to.
    ("plain store", "a store without HTTPS", lambda it: it.rows_of_store(is_trusted=False)),
    (
        "metadata store",
        "a store at a cloud's metadata address",
        lambda it: it.rows_of_store(url=f"https://{METADATA}", is_trusted=False),
    ),
    (
        "cluster store",
        "a store at the API server's address",
        lambda it: it.rows_of_store(url=f"https://{API_SERVER}", is_trusted=False),
    ),
    (
        "store to metadata",
        "a store that redirects to a cloud's metadata",
        lambda it: (setattr(it.store, "redirect", f"http://{METADATA}/latest/meta-data"), it.rows_of_store()),
    ),
    (
        "hub to metadata",
        "the Hub redirects to a cloud's metadata",
        lambda it: (setattr(it.hub, "redirect", f"http://{METADATA}/latest/meta-data"), it.model_of_hub()),
    ),
    (
        "hub to cluster",
        "the Hub redirects to the API server",
        lambda it: (setattr(it.hub, "redirect", f"https://{API_SERVER}/api"), it.model_of_hub()),
    ),
    ("to metadata", "redirects to a cloud's metadata", lambda it: it.redirected(f"https://{METADATA}/latest")),
    ("to cluster", "redirects to the API server", lambda it: it.redirected(f"https://{API_SERVER}/api")),
    ("to loopback", "redirects to loopback, as IPv6", lambda it: it.redirected("https://[::1]:6443/api")),
    ("mapped", "redirects to an IPv4 address in an IPv6 one", lambda it: it.redirected(f"https://[::ffff:{METADATA}]/")),
    ("nat64", "redirects to one behind NAT64", lambda it: it.redirected("https://[64:ff9b::a9fe:a9fe]/")),
    ("to http", "redirects to `http://`", lambda it: it.redirected("http://example.com/rows.jsonl")),
    ("to file", "redirects to `file://`", lambda it: it.redirected("file:///etc/passwd")),
    ("circle", "redirects without end", lambda it: it.redirected(f"{it.site.url}/again")),
    # What servers send.
    ("digest", "another file than its digest says", lambda it: it.rows_of_site(digest="0" * 64)),
    ("name in a url", "a URL whose last part is `..`", lambda it: it.rows_of_site("/%2e%2e")),
    # What a published model has.
    ("no sums", "a model that no job published", lambda it: it.published_model({"config.json": b"{}"})),
    (
        "sums lead out",
        "`SHA256SUMS` names `../../etc/passwd`",
        lambda it: it.published_model({**MODEL, "SHA256SUMS": b"%s  ../../etc/passwd\n" % (b"0" * 64)}),
    ),
    (
        "large answer",
        "a configuration of 17 MB",
        lambda it: it.published_model(published.model(**{"config.json": b" " * (17 << 20)})),
    ),
    (
        "changed weights",
        "weights that were changed after they were published",
        lambda it: it.published_model({**MODEL, "model.safetensors": b"others"}, published.digest(MODEL)),
    ),
    (
        "changed model",
        "another model at its place",
        lambda it: it.published_model(published.model(**{"README.md": b"other"}), published.digest(MODEL)),
    ),
    (
        "published code",
        "`auto_map` in a published model",
        lambda it: it.published_model(published.model(**{"config.json": b'{"auto_map": {"AutoModel": "evil.Model"}}'})),
    ),
    # What a model on a volume has.
    ("claim pickles", "weights that are pickles", lambda it: it.model_on_claim(_pickles_only)),
    ("code", "`auto_map` in a model's config", lambda it: it.model_on_claim(_nothing, model_type="x", **CODE)),
    ("trust", "`trust_remote_code` in a config", lambda it: it.model_on_claim(_nothing, trust_remote_code=True)),
    ("generate", "`custom_generate` in a model's directory", lambda it: it.model_on_claim(_custom)),
    ("link", "a link to a file of the pod", lambda it: it.model_on_claim(_link("/proc/self/environ"))),
    ("link out", "a link out of its volume by `..`", lambda it: it.model_on_claim(_link("../../../etc/passwd"))),
    ("pipe", "a named pipe in place of a file", lambda it: it.model_on_claim(_pipe)),
    ("layers", "a config with a billion layers", lambda it: it.model_on_claim(_nothing, num_hidden_layers=10**9)),
    ("header", "weights whose header is said to have 1 TB", lambda it: it.model_on_claim(_header(10**12))),
    # What files with rows have.
    ("gzip bomb", "1.4 MB of gzip that expand to 300 MB", lambda it: it.rows_on_claim("rows.jsonl.gz", _gzip())),
    ("zip bomb", "a zip archive with a name that leads out", lambda it: it.rows_on_claim("rows.zip", _zip())),
    ("tar", "a tar archive with a name that leads out", lambda it: it.rows_on_claim("rows.tar", _tar())),
    ("pickled rows", "rows as a pickle", lambda it: it.rows_on_claim("rows.pkl", b"\x80\x04]\x94.")),
)  # fmt: skip
"""A name for each, what the source does, and what meets it."""


def outcome(error: BaseException, it: Meeting) -> str:
    """How it ended, for the page: class and field, and the words without this machine's paths and ports."""
    words = str(error)
    for place, name in ((it.store.url, "https://s3.example.com"), (it.site.url, "https://example.com")):
        words = words.replace(place, name)
    words = words.replace(f"{it.workspace}/", "").replace("|", "\\|")
    if not isinstance(error, BadInput):
        return f"a retry: {words}"
    reason = error.verdict().reason or "BadInput"
    field, _, message = words.partition(": ")
    return f"`{reason}` on `{field}`: {message if len(message) <= 240 else message[:239] + '…'}"
