"""How much autograd saves of a model's layers, by the tokens of a micro-batch."""

from dataclasses import dataclass

from hone.contract.settings import Lora


@dataclass(frozen=True)
class Mode:
    """How a model is trained, as far as it decides what autograd saves.

    Attributes:
        rank: of the adapter; None: all weights are trained.
        dropout: of the adapter.
        targets: names of the layers that it is put on; None: all.
        precision: torch's name of the weights' type.
        autocast: whether float32 weights are computed with in bfloat16.
        masked: whether rows are padded or packed, so that attention has a mask for each pair of tokens.
    """

    rank: int | None
    dropout: float
    targets: tuple[str, ...] | None
    precision: str
    autocast: bool
    masked: bool

    @classmethod
    def of(cls, lora: Lora | None, precision: str, *, autocast: bool, masked: bool) -> "Mode":
        """That of a planned adapter, or of none."""
        if lora is None:
            return cls(None, 0.0, None, precision, autocast, masked)
        targets = tuple(lora.target_modules) if lora.target_modules else None
        return cls(lora.rank, lora.dropout or 0.0, targets, precision, autocast, masked)


@dataclass(frozen=True)
class Growth:
    """Bytes that grow with the rows of a micro-batch.

    Attributes:
        fixed: whatever the rows: copies of weights, such as those by autocast.
        linear: for each token.
        quadratic: for each pair of tokens of one row: of attention that is not fused, or of a mask.
    """

    fixed: float
    linear: float
    quadratic: float

    def at(self, rows: int, length: int) -> float:
        """Bytes of so many rows of so many tokens."""
        return self.fixed + rows * (self.linear * length + self.quadratic * length**2)


@dataclass(frozen=True)
class SavedActivations:
    """What a forward pass leaves for the backward pass.

    Attributes:
        all_layers: what autograd saves of all layers, and of what they share, such as masks.
        largest_layer: of the layer that leaves most.
        between_layers: what all layers are given: all that is saved with gradient checkpointing, but for one layer.
        backward: what the backward pass of that layer takes in addition, its weights' gradients aside.
    """

    all_layers: Growth
    largest_layer: Growth
    between_layers: Growth
    backward: Growth

    def at(self, rows: int, length: int, *, checkpointing: bool) -> float:
        """Bytes that are saved of so many rows of so many tokens."""
        if checkpointing:
            return self.between_layers.at(rows, length) + self.largest_layer.at(rows, length)
        return self.all_layers.at(rows, length)
