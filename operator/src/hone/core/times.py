"""Times and durations as Kubernetes and people write them."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """`moment`, which has a zone, as `2026-01-31T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> datetime:
    """The time that an RFC 3339 text stands for.

    Raises:
        ValueError: the text is not RFC 3339.
    """
    return datetime.fromisoformat(text)


def seconds_since(text: str | None, now: datetime) -> float:
    """Seconds from that time until `now`, at least 0; 0 if there is no time."""
    return max(0.0, (now - parse(text)).total_seconds()) if text else 0.0


def duration(seconds: float) -> str:
    """A duration in at most two units, for a column: `45s`, `12m`, `3h5m`, `2d4h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if hours else f"{days}d"
