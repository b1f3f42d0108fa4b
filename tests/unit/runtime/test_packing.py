"""What is packed is what comes out, and objects that Hone makes take few bytes."""

import pytest

from hone.core.observed import Object
from hone.runtime.packing import KNOWN, pack, unpack
from tests.unit.core import make
from tests.unit.runtime.support import pod


def unpacked(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in KNOWN}
    return {**{key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}, "metadata": metadata}


@pytest.mark.parametrize(
    "obj", [make.finetunejob(), make.claim("c"), pod("p"), make.config_map("m", key="ü\x00\ud83d")]
)
def test_what_is_packed_comes_out(obj: Object) -> None:
    assert unpack(pack(obj)) == unpacked(obj)


def test_equal_objects_of_different_versions_are_packed_equally() -> None:
    first, second = make.finetunejob(), make.finetunejob()
    second["metadata"]["resourceVersion"] = "2"
    assert pack(first) == pack(second)
