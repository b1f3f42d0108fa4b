"""Builds the Go tools that no Debian package supplies into a cache that all clones share.

A tool's folder in the cache is named by a hash of its sources, go.sum, Go's version and the flags, and holds the
binaries with their checksums. A folder whose checksums are wrong is thrown away and built again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from dev.cluster import paths
from dev.cluster.say import say, step
from dev.lock import locked

KUBERNETES_VERSION = "v1.35.4"
CHECKSUMS = "SHA256SUMS"
VERIFIED = "VERIFIED"
_VERSION = "k8s.io/component-base/version"
_HELM = "helm.sh/helm/v3"


@dataclass(frozen=True)
class Tool:
    """A Go module under tools/: its packages by the name of the binary, linker variables, how long it takes.

    `by_default`: whether it is built where no tools are named.
    """

    packages: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    minutes: int = 2
    by_default: bool = True


TOOLS = {
    "kubernetes": Tool(
        packages={
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            )
        },
        variables={
            f"{_VERSION}.gitVersion": KUBERNETES_VERSION,
            f"{_VERSION}.gitMajor": "1",
            f"{_VERSION}.gitMinor": "35",
        },
        minutes=10,
    ),
    "registry": Tool({"registry": "github.com/distribution/distribution/v3/cmd/registry"}),
    "addons": Tool(
        packages={
            "coredns": "./coredns",
            "local-path-provisioner": "github.com/rancher/local-path-provisioner",
            "kwok": "sigs.k8s.io/kwok/cmd/kwok",
        },
        minutes=5,
    ),
    "firewall": Tool({"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"}, minutes=5),
    "node": Tool({command: f"./{command}" for command in ("pause", "volume", "probe")}, minutes=1),
    "helm": Tool(
        packages={"helm": f"{_HELM}/cmd/helm"},
        variables={
            f"{_HELM}/internal/version.version": "v3.22.0",
            # Without these `helm template` and `helm lint` take the cluster for Kubernetes 1.20.
            **{f"{_HELM}/pkg/{package}.k8sVersionMajor": "1" for package in ("lint/rules", "chartutil")},
            **{f"{_HELM}/pkg/{package}.k8sVersionMinor": "35" for package in ("lint/rules", "chartutil")},
        },
    ),
    "kubeconform": Tool({"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"}, minutes=1),
    "peers": Tool(
        packages={
            "trainer-controller-manager": "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager",
            "jobset": "sigs.k8s.io/jobset",
        },
        minutes=5,
        by_default=False,
    ),
    "store": Tool({"versitygw": "github.com/versity/versitygw/cmd/versitygw"}, by_default=False),
}
NODE_TOOLS = ("kubernetes", "registry", "addons", "firewall", "node")
CONTROL_PLANE_TOOLS = ("kubernetes", "addons")


def go() -> str:
    """The path of the Go command.

    Raises SystemExit, saying what to install, where there is none.
    """
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if not go:
        sys.exit("error: no `go` command in PATH: install Go 1.26 or newer (from 1.21 on, an older one fetches it)")
    return go


@cache
def _go_version() -> str:
    result = subprocess.run([go(), "env", "GOVERSION"], check=True, capture_output=True, text=True, env=_environment())
    return result.stdout.strip()


def _environment() -> dict[str, str]:
    """An older Go may fetch the one that a tool asks for, unless the user forbids it."""
    return {**os.environ, "GOTOOLCHAIN": os.environ.get("GOTOOLCHAIN", "auto")}


def linker_flags(tool: Tool) -> str:
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in tool.variables.items())])


def key(sources: Path, tool: Tool, go_version: str) -> str:
    """Hash of all that decides what the binaries are; 16 hex digits."""
    digest = hashlib.sha256(f"{go_version}\n{sorted(tool.packages.items())}\n{linker_flags(tool)}\n".encode())
    for file in sorted(p for p in sources.rglob("*") if p.suffix in {".go", ".mod", ".sum"}):
        digest.update(f"{file.relative_to(sources)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def folder(name: str) -> Path:
    """Where the binaries of tool `name` are or will be."""
    return paths.tools() / f"{name}-{key(paths.TOOL_SOURCES / name, TOOLS[name], _go_version())}"


def commands() -> dict[str, str]:
    """The tool that builds each command."""
    return {command: name for name, tool in TOOLS.items() for command in tool.packages}


def tool_of(command: str) -> str:
    """The tool that builds `command`.

    Raises KeyError, with the known ones, when none does.
    """
    try:
        return commands()[command]
    except KeyError:
        raise KeyError(f"no tool builds {command!r}; known: {', '.join(sorted(commands()))}") from None


def module(name: str, path: str) -> Path:
    """The folder with the sources of a Go module that a tool is built from, downloaded if it is missing.

    Raises subprocess.CalledProcessError when it cannot be downloaded.
    """
    command = [go(), "mod", "download", "-json", path]
    where, environment = paths.TOOL_SOURCES / name, {**_environment(), "GOWORK": "off"}
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=where, env=environment)
    return Path(json.loads(result.stdout)["Dir"])


def binary(command: str) -> Path:
    """The path of a built command, such as "helm"; see `ensure`."""
    return folder(tool_of(command)) / command


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problem(where: Path, commands: Iterable[str]) -> str | None:
    """Why the binaries in `where` cannot be used, or None: each must be there, executable, and have its checksum.

    A file that has not changed since its checksum was found right is not read again: that takes seconds.
    """
    listing = where / CHECKSUMS
    if not listing.is_file():
        return "no checksums"
    entries = (line.partition("  ") for line in listing.read_text().splitlines())
    known = {file: digest for digest, _, file in entries}
    seen = where / VERIFIED
    before = seen.read_text() if seen.is_file() else ""
    stamps = []
    for command in commands:
        path = where / command
        if not path.is_file() or not os.access(path, os.X_OK):
            return f"{command} is missing or not executable"
        stat = path.stat()
        stamp = f"{command} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n"
        if stamp not in before and known.get(command) != checksum(path):
            return f"the checksum of {command} is wrong"
        stamps.append(stamp)
    if before != "".join(stamps):
        seen.write_text("".join(stamps))
    return None


def ensure(names: Iterable[str]) -> None:
    """Build those of the named tools that are not in the cache, or are broken there.

    Raises SystemExit with the compiler's last words when a build fails.
    """
    for name in names:
        where, tool = folder(name), TOOLS[name]
        if where.exists() and problem(where, tool.packages) is None:
            continue
        # Two clones must not build the same tool at once; the second then finds it built.
        with locked(paths.tools() / f".{name}.lock", f"another build of {name}"):
            if where.exists():
                reason = problem(where, tool.packages)
                if reason is None:
                    continue
                say(f"{name}: the cached build is broken ({reason}); building it again")
                shutil.rmtree(where)
            _build(name, tool, where)


def _build(name: str, tool: Tool, where: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=paths.tools()))
    try:
        command = [
            "nice",
            "-n",
            "5",
            go(),
            "build",
            "-v",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            linker_flags(tool),
            "-o",
            f"{scratch}/",
            *tool.packages.values(),
        ]
        _run_go(name, tool, command)
        lines = [f"{checksum(scratch / command)}  {command}\n" for command in tool.packages]
        (scratch / CHECKSUMS).write_text("".join(lines))
        scratch.chmod(0o755)
        scratch.rename(where)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_go(name: str, tool: Tool, command: list[str]) -> None:
    environment = {**_environment(), "CGO_ENABLED": "0", "GOWORK": "off"}
    lines: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=paths.TOOL_SOURCES / name,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()

    def detail() -> str:
        return f"{len(lines)} packages, last {lines[-1].strip()}" if lines else ""

    say(f"building {name} ({', '.join(tool.packages)}), up to {tool.minutes} min when nothing is cached")
    with step(f"building {name}", detail):
        code = process.wait()
        reader.join()
        if code:
            sys.exit(f"error: `go build` of {name} failed (exit code {code}):\n{''.join(lines[-30:])}")
