"""Scores as text: two decimals, or powers of ten where two would hide the figure."""

MAX_PLAIN = 1e9
"""The column has 64 characters for a score with its interval."""


def text(value: float) -> str:
    """Two decimals; in powers of ten where two would hide the figure, or need hundreds of digits before them."""
    return f"{value:.2f}" if value == 0 or 0.01 <= abs(value) < MAX_PLAIN else f"{value:.1e}"


def interval(value: float, lower: float, upper: float) -> str:
    """A figure with its bounds, such as `0.62 [0.55, 0.69]`."""
    return f"{text(value)} [{text(lower)}, {text(upper)}]"
