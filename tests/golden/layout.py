"""The layout of golden YAML: what holds only scalars stands on one line, so that a condition or a mount is one line."""

from typing import Any

import yaml

WIDTH = 200
MAPPING_WIDTH = 180
LIST_WIDTH = 100


class Dumper(yaml.SafeDumper):
    """YAML without anchors, so that each part can be read by itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        scalars = [item for pair in node.value for item in pair]
        node.flow_style = _is_short(scalars, MAPPING_WIDTH)
        return node

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = _is_short(node.value, LIST_WIDTH)
        return node

    def serialize(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.CollectionNode) and node.value:
            node.flow_style = False  # The top level never stands on one line.
        super().serialize(node)


def _is_short(nodes: list[yaml.Node], width: int) -> bool:
    """Whether these are scalars that fit in `width` columns with a comma or a colon after each; true of none."""
    return (
        all(isinstance(node, yaml.ScalarNode) for node in nodes) and sum(len(node.value) + 2 for node in nodes) <= width
    )


# Without it, PyYAML would sort the keys of a dict before represent_mapping sees them.
Dumper.add_representer(dict, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data))


def dump(data: Any) -> str:
    """`data` as YAML, in its own order."""
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
