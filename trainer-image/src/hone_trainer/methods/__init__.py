"""The methods: which weights are trained, and how they are exported and loaded again.

To add one, write a module here with `METHOD`, named like its `MethodType` in lower case, next to its record in
`hone.contract.methods`.
"""

import pkgutil
from collections.abc import Mapping

from hone.contract.methods import MethodType
from hone_trainer.methods.base import Method


def _method(type: MethodType) -> Method:
    method = pkgutil.resolve_name(f"{__name__}.{type.value.lower()}:METHOD")
    assert isinstance(method, Method)
    return method


METHODS: Mapping[MethodType, Method] = {type: _method(type) for type in MethodType}
"""Every method; importing them imports none of the large libraries."""
