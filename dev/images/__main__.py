"""Command line: `python3 -m dev.images build [name...]` builds and pushes missing images; `list` lists all images.

REGISTRY: where to push (default: 127.0.0.1:5005, the local registry). A bare host name gets the folder `hone`.
BASE_IMAGE: an image with Python 3.11 to build on, instead of one that is built from Debian packages.
"""

import argparse
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from dev import uv
from dev.basemodel import cache as basemodel
from dev.cluster.say import say, step
from dev.images import catalog, storage, values
from dev.images.catalog import IMAGES, MODELS, Image
from dev.lock import locked
from dev.smollm2 import cache as smollm2

DEFAULT_REGISTRY = "127.0.0.1:5005"


def registry() -> str:
    """Where images are pushed."""
    return os.environ.get("REGISTRY") or DEFAULT_REGISTRY


def base_image() -> str:
    """The image to build on, or "" for Debian packages."""
    return os.environ.get("BASE_IMAGE", "")


Models = Mapping[str, Path | None]
"""The folder of each model of MODELS, or None where it is not built."""


def models() -> Models:
    """Where the models are."""
    return {"the base model": basemodel.find(), "SmolLM2": smollm2.find()}


def tags(images: list[Image], models: Models) -> dict[str, str]:
    """The tag of each image; the list must hold parents first."""
    by_name: dict[str, str] = {}
    for image in images:
        by_name[image.name] = catalog.content_tag(
            uv.ROOT, image, by_name.get(image.parent, ""), models.get(image.model), base_image()
        )
    return by_name


def check_registry(address: str) -> None:
    """Raises SystemExit, saying what to do, when nothing listens where a loopback registry should."""
    if not catalog.is_loopback(address):
        return
    host, _, port = address.split("/")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout=3).close()
    except (OSError, ValueError) as error:
        sys.exit(
            f"error: no registry answers at {address} ({error}): start the local cluster with `make cluster`, "
            "or name a registry of yours, as in REGISTRY=registry.example.com/team python3 -m dev.images build"
        )


def obtain(image: Image, tag: str, parent_tag: str, models: Models, store: storage.Storage) -> None:
    """Ensure the image in buildah's storage: present, fetched from the registry, or built."""
    local, reference = store.local(image.name, tag), catalog.reference(registry(), image.name, tag)
    if store.has(local):
        return
    if storage.in_registry(reference):
        with step(f"{image.name}: fetching it from the registry", store.last_line):
            store.pull(reference, local, catalog.is_loopback(reference))
        return
    with step(f"{image.name}: building", store.last_line):
        if image.dockerfile:
            context = models.get(image.model) or uv.ROOT
            parent = {image.parent_argument: store.local(image.parent, parent_tag)}
            store.build(uv.ROOT / image.dockerfile, context, local, parent)
        elif base_image():
            store.pull(base_image(), local, catalog.is_loopback(base_image()))
        else:
            store.make_base(local)
    store.prune(image.name, tag)


def publish(image: Image, tag: str, store: storage.Storage) -> None:
    """Ensure the image in the registry; a parent too, so that other machines build on the same layers."""
    reference = catalog.reference(registry(), image.name, tag)
    if storage.in_registry(reference):
        return
    with step(f"{image.name}: pushing {reference}", store.last_line):
        store.push(store.local(image.name, tag), reference, catalog.is_loopback(reference))


def storage_for(name: str) -> storage.Storage:
    """The storage, with its log in a file for this image."""
    logs = uv.cache_dir() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return storage.Storage(logs / f"image-{name}.log")


def build(names: list[str]) -> dict[str, str]:
    """Build and push what the registry lacks of the named images; returns the full reference of each."""
    address = registry()
    storage.check_commands(base_image())
    check_registry(address)
    needed = catalog.with_parents(names)
    folders = models()
    for image in needed:
        if image.model and folders[image.model] is None:
            module = MODELS[image.model]
            sys.exit(f"error: {image.model} is not built: run `.venv/bin/python -m {module} build` first")
    tag = tags(needed, folders)
    references = {image.name: catalog.reference(address, image.name, tag[image.name]) for image in needed}
    missing = [name for name in names if not storage.in_registry(references[name])]
    for name in names:
        say(f"{name}: {'to be built' if name in missing else references[name] + ' is there'}")
    if missing:
        storage_for(missing[0]).prepare()
    for name in missing:
        store = storage_for(name)
        store.log.unlink(missing_ok=True)
        for image in catalog.with_parents([name]):
            obtain(image, tag[image.name], tag.get(image.parent, ""), folders, store)
            publish(image, tag[image.name], store)
    return {name: references[name] for name in names}


def record(references: dict[str, str]) -> dict[str, str]:
    """Add the references to $HONE_CACHE/images.json, which the demo and the tests read; returns all of it."""
    path = uv.cache_dir() / "images.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    known = {name: known[name] for name in known if name in IMAGES and IMAGES[name].published}
    known |= references
    new = path.with_suffix(".new")
    new.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    new.rename(path)
    return known


def listing() -> None:
    """Print each image's reference and whether the registry holds it."""
    folders = models()
    names = [name for name in IMAGES if not IMAGES[name].model or folders[IMAGES[name].model]]
    tag = tags(catalog.with_parents(names), folders)
    for name in (name for name in names if IMAGES[name].published):
        reference = catalog.reference(registry(), name, tag[name])
        print(f"{'pushed ' if storage.in_registry(reference) else 'missing'}  {reference}")


def main() -> None:
    """Run the command line."""
    published = [name for name, image in IMAGES.items() if image.published]
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="build and push the images that the registry does not have")
    builder.add_argument("names", nargs="*", metavar="name", help=f"default: all of {', '.join(published)}")
    commands.add_parser("list", help="list the images, and whether the registry has them")
    commands.add_parser("clean", help="remove local files of earlier builds (gigabytes); the registry keeps its images")
    arguments = parser.parse_args()
    if arguments.command == "list":
        listing()
        return
    with locked(uv.cache_dir() / "images.lock", "another clone that builds images"):
        if arguments.command == "clean":
            storage_for("clean").clean()
            return
        names = arguments.names or published
        try:
            references = build(names)
        except KeyError as error:
            parser.error(error.args[0])
        path = values.write(record(references))
    print(json.dumps(references, indent=2))
    say(f"images are ready. To install or upgrade the chart with them:\n  {values.command(path)}")


if __name__ == "__main__":
    main()
