"""Sizes as messages show them."""

GIB = 1 << 30


def gib(count: int) -> str:
    """Bytes in GiB, with one decimal."""
    return f"{count / GIB:.1f} GiB"
