"""Rows that are left out of the data, counted by reason."""

from dataclasses import dataclass, field

from hone.contract.plan import BadRows
from hone_trainer.protocol.errors import clip

MAX_REASONS = 8


@dataclass
class Faults:
    """Rows that were left out, counted by reason."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count one row; `where` is stored if it is the first with this reason."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    @property
    def total(self) -> int:
        """Rows left out for any reason."""
        return sum(self.counts.values())

    def summary(self) -> list[BadRows]:
        """The most frequent reasons, the rest as one, at most `MAX_REASONS`."""
        ordered = sorted(self.counts, key=lambda reason: -self.counts[reason])
        shown = ordered if len(ordered) <= MAX_REASONS else ordered[: MAX_REASONS - 1]
        result = [
            BadRows(reason=clip(reason, 512), count=self.counts[reason], first=clip(self.first[reason], 512))
            for reason in shown
        ]
        if rest := ordered[len(shown) :]:
            result.append(
                BadRows(reason="other faults", count=sum(self.counts[r] for r in rest), first=self.first[rest[0]])
            )
        return result
