"""Differences between YAML documents, in the words of Kubernetes' strategic merge patch.

A difference repeats only what differs. Mappings merge by key, and null removes a key. Lists of named things (objects,
pods, containers, conditions, attempts, ...) merge by that name, and `$patch: delete` removes one; all other lists are
replaced. `$patch: replace` replaces what it stands in. A new key follows the one before it in the difference, or
stands last; so a difference gives back the order, too.
"""

import itertools
import json
from typing import Any

NAMES = (("mountPath",), ("step", "number"), ("name",), ("type",), ("role",))
"""The fields that name an item of a list, the first that it has. An object or a pod is named by kind and metadata."""

Mapping = dict[Any, Any]


def same(one: Any, other: Any) -> bool:
    """Whether both are equal, the order of their keys included."""
    return json.dumps(one) == json.dumps(other)


def patched(base: Any, patch: Any) -> Any:
    """`base` with the difference `patch`; `base` is left as it is."""
    if isinstance(patch, dict) and isinstance(base, dict) and "$patch" not in patch:
        return _merged(base, patch)
    if isinstance(patch, list):
        by_name, patches = _by_name(base), _by_name(patch)
        if by_name is None or patches is None:
            return [item for item in patch if item != {"$patch": "replace"}]
        deleted = {name: None if item.get("$patch") == "delete" else item for name, item in patches.items()}
        return list(_merged(by_name, deleted).values())
    return {key: value for key, value in patch.items() if key != "$patch"} if isinstance(patch, dict) else patch


def _merged(base: Mapping, patch: Mapping) -> Mapping:
    order = list(base)
    for before, key in zip((None, *patch), patch, strict=False):
        if key not in base:
            order.insert(len(order) if before is None else order.index(before) + 1, key)
    values = {key: patched(base.get(key), patch[key]) if key in patch else base[key] for key in order}
    return {key: value for key, value in values.items() if value is not None or key not in patch}


def difference(base: Any, new: Any) -> Any:
    """The difference that makes `new` of `base`, as small as this module can; they must differ."""
    for ordered in (False, True):
        patch = _attempt(base, new, ordered)
        if same(patched(base, patch), new):
            return patch
    return {"$patch": "replace", **new} if isinstance(new, dict) else [{"$patch": "replace"}, *new]


def _attempt(base: Any, new: Any, ordered: bool) -> Any:
    """A difference that may give another order, or fail where a value of `new` looks like a part of a difference."""
    if isinstance(base, dict) and isinstance(new, dict):
        return _difference(base, new, ordered)
    by_name, new_by_name = _by_name(base), _by_name(new)
    if by_name is None or new_by_name is None:
        return new
    changed = _difference(by_name, new_by_name, ordered)
    return [
        {**_name(by_name[key]), "$patch": "delete"} if patch is None else {**_name(new_by_name[key]), **patch}
        for key, patch in changed.items()
    ]


def _difference(base: Mapping, new: Mapping, ordered: bool) -> Mapping:
    """What differs between two mappings; where `ordered`, also the key before each new one."""
    patch: Mapping = {}
    for key, after in itertools.zip_longest(new, list(new)[1:]):
        if key not in base:
            patch[key] = new[key]
        elif not same(base[key], new[key]):
            patch[key] = difference(base[key], new[key])
        elif ordered and after is not None and after not in base:
            patch[key] = {} if isinstance(new[key], dict) else new[key]
    return patch | dict.fromkeys(key for key in base if key not in new)


def _by_name(items: Any) -> dict[str, Mapping] | None:
    """The items of a list by their names; None where they are not named, or not uniquely."""
    if not isinstance(items, list) or not items:
        return None
    names = [json.dumps(_name(item)) for item in items]
    return dict(zip(names, items, strict=True)) if len({*names, "{}"}) == len(items) + 1 else None


def _name(item: Any) -> Mapping:
    """The part of an item of a list that names it; empty where nothing does."""
    if not isinstance(item, dict):
        return {}
    if "name" in item.get("metadata", {}):
        kind = {"kind": item["kind"]} if "kind" in item else {}
        return kind | {"metadata": {"name": item["metadata"]["name"]}}
    fields = next((fields for fields in NAMES if all(field in item for field in fields)), ())
    return {field: item[field] for field in fields}
