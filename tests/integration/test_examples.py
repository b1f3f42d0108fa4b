"""The manifests of examples/, docs/ and the README on a real API server: accepted by all rules, stored as written."""

from pathlib import Path

import pytest
import yaml

from hone.core.observed import Object
from tests.docs.support import ROOT, TYPES, blocks, documents
from tests.integration.support import Cluster

EXAMPLES = [
    pytest.param(document, id=f"{path.stem}-{document['kind']}")
    for path in sorted(Path(ROOT / "examples").rglob("*.yaml"))
    for document in documents(path)
    if document.get("kind") in TYPES
]
PAGES = [
    pytest.param(manifest, id=f"{path.stem}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(blocks(path.read_text(encoding="utf-8"), "yaml"))
    for manifest in yaml.safe_load_all(block)
    if "kind" in manifest
]


@pytest.mark.parametrize("manifest", [*EXAMPLES, *PAGES])
async def test_is_accepted_as_it_is_written(manifest: Object, cluster: Cluster) -> None:
    stored = await cluster.client.create(cluster.namespace, manifest)
    assert stored["spec"] == manifest["spec"]
