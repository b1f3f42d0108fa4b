"""Runs buildah, skopeo and mmdebstrap; what they print goes to a log, whose end is shown when one fails."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from dev import uv
from dev.images import catalog

# Debian packages bring each of these under its own name.
COMMANDS = ("buildah", "skopeo", "mmdebstrap")


def check_commands(base: str) -> None:
    """Raises SystemExit, saying what to install, when a command is missing. base: see catalog.content_tag."""
    needed = [command for command in COMMANDS if not (base and command == "mmdebstrap")]
    missing = [command for command in needed if not shutil.which(command)]
    if missing:
        sys.exit(f"error: missing {', '.join(missing)}: run `apt-get install {' '.join(missing)}`, or `make cluster`")


class Storage:
    """buildah's images of this project, in $HONE_CACHE/buildah; one local name for each, whatever the registry."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.root = uv.cache_dir() / "buildah"
        # Named, so that buildah fails rather than fall back to copying five gigabytes for each layer.
        self.options = ("--storage-driver", "overlay", "--root", self.root / "root", "--runroot", self.root / "run")

    def prepare(self) -> None:
        """Remove what an interrupted build left; images that cannot be read are all removed, to be built again."""
        shutil.rmtree(self.root / "tmp", ignore_errors=True)
        (self.root / "tmp").mkdir(parents=True)
        if not self._whole() or any(self._ask(*command).returncode for command in (("rm", "--all"), ("images",))):
            print(f"{self.root} is broken: building all images again", file=sys.stderr)
            self.clean()
            (self.root / "tmp").mkdir(parents=True)

    def _whole(self) -> bool:
        """Whether the records can be read, and the layers that they name are there; buildah itself notices late."""
        records = (self.root / "root" / f"overlay-{kind}" / f"{kind}.json" for kind in ("layers", "images"))
        try:
            layers, images = (json.loads(file.read_text()) if file.exists() else [] for file in records)
            present = {layer["id"] for layer in layers if (self.root / "root/overlay" / layer["id"] / "diff").is_dir()}
            return len(present) == len(layers) and {image.get("layer", "") for image in images} <= present | {""}
        except (ValueError, KeyError, TypeError):
            return False

    def clean(self) -> None:
        """Remove all of buildah's images of this project; the registry keeps its own."""
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(f"{self.root}/")]):
            subprocess.run(["umount", mount], check=True)
        if self.root.exists():
            shutil.rmtree(self.root)

    def local(self, name: str, tag: str) -> str:
        """The name of an image here, before it is pushed."""
        return f"localhost/hone/{name}:{tag}"

    def last_line(self) -> str:
        """The last thing that a command printed, for progress."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 400))
                lines = file.read().decode(errors="replace").replace("\r", "\n").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][-120:] if lines else ""

    def run(self, *command: str | Path) -> None:
        """Run a command; raises SystemExit with the end of its output when it fails."""
        with self.log.open("ab") as log:
            log.write(("\n$ " + " ".join(map(str, command)) + "\n").encode())
            log.flush()
            # chroot: no cgroups or user namespaces are asked for. TMPDIR takes layers of gigabytes.
            environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.root / "tmp")}
            result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        if result.returncode:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
            sys.exit(
                f"error: `{command[0]}` failed with status {result.returncode} (all of it: {self.log}; if its storage "
                f"is to blame, `python3 -m dev.images clean` empties it):\n{tail}"
            )

    def buildah(self, *arguments: str | Path) -> None:
        self.run("buildah", *self.options, *arguments)

    def _ask(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["buildah", *self.options, *arguments], capture_output=True, text=True)

    def has(self, image: str) -> bool:
        """Whether buildah's storage holds the image."""
        return self._ask("inspect", "--type", "image", image).returncode == 0

    def make_base(self, image: str) -> None:
        """Make the base image from Debian packages."""
        with tempfile.TemporaryDirectory(dir=uv.cache_dir()) as folder:
            archive = Path(folder) / "base.tar"
            paths = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")]
            packages = ",".join(catalog.BASE_PACKAGES)
            self.run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", *paths,
                     '--aptopt=Acquire::Languages "none"', catalog.BASE_SUITE, archive)  # fmt: skip
            self._commit(image, lambda container: self.buildah("add", "--quiet", container, archive, "/"))

    def _commit(self, image: str, fill: Callable[[str], None]) -> None:
        container = f"hone-base-{os.getpid()}"
        self.buildah("from", "--name", container, "scratch")
        try:
            fill(container)
            self.buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", "--cmd", "python3", container)
            self.buildah("commit", "--quiet", container, image)
        finally:
            self.buildah("rm", container)

    def build(self, dockerfile: Path, context: Path, image: str, arguments: dict[str, str]) -> None:
        """Build one Dockerfile, with the pinned uv and its cache mounted."""
        ca = Path("/etc/ssl/certs")
        volumes = [(uv.ensure(), "/usr/local/bin/uv:ro"), (uv.cache_dir() / "uv", "/var/cache/uv:rw")]
        if ca.is_dir():
            volumes.append((ca, "/etc/ssl/certs:ro"))  # the machine's own authorities may sign what uv reads
        options: list[str | Path] = ["--layers", "--force-rm", "--tls-verify=false"]
        options += ["--file", dockerfile, "--tag", image]
        for source, target in volumes:
            options += ["--volume", f"{source}:{target}"]
        for key, value in arguments.items():
            options += ["--build-arg", f"{key}={value}"]
        self.buildah("bud", *options, context)

    def push(self, image: str, reference: str, loopback: bool) -> None:
        """Push an image; its layers go as they are to a registry on this machine, else compressed."""
        if loopback:
            # buildah compresses whatever is asked of it, which costs minutes on five gigabytes and saves nothing here.
            source = f"containers-storage:[overlay@{self.root / 'root'}+{self.root / 'run'}]{image}"
            options = ("--quiet", "--preserve-digests", "--dest-tls-verify=false")
            self.run("skopeo", "copy", *options, source, f"docker://{reference}")
        else:
            self.buildah("push", "--quiet", image, f"docker://{reference}")

    def pull(self, reference: str, image: str, loopback: bool) -> None:
        """Fetch an image that another machine built, under its local name."""
        tls = ("--tls-verify=false",) if loopback else ()
        self.buildah("pull", "--quiet", *tls, f"docker://{reference}")
        self.buildah("tag", reference, image)

    def prune(self, name: str, tag: str) -> None:
        """Remove this image's other versions, the layers that only they use, and what failed builds left."""
        for image in self._ask("images", "--format", "{{.Name}}:{{.Tag}}").stdout.split():
            if image.startswith(self.local(name, "")) and image != self.local(name, tag):
                self._ask("rmi", image)  # one that is a parent yet stays


def in_registry(reference: str) -> bool:
    """Whether the registry holds the image."""
    tls = ["--tls-verify=false"] if catalog.is_loopback(reference) else []
    result = subprocess.run(["skopeo", "inspect", "--raw", *tls, f"docker://{reference}"], capture_output=True)
    return result.returncode == 0
