"""HemorrhageNet's slice encoder by itself."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgehem.export.models.backbones.encoder import Encoder, Layout
from edgehem.export.models.hemorrhagenet import HemorrhageNet

EPSILON = 1e-5
"""torch's default, HemorrhageNet's."""


class Compact(Encoder):
    """The encoder of :class:`edgehem.export.models.hemorrhagenet.HemorrhageNet`, its modules under their names there.

    [B, C, H, W] -> map [B, 96, H / 16, W / 16] -> features [B, 96]: half of what HemorrhageNet's head pools, the means.

    Images are independent of one another unless :meth:`set_slices` says that they come in stacks. HemorrhageNet's own
    weights were trained on stacks; without it they give other features.
    """

    epsilon = EPSILON
    first = "to_half.0"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(
            source="edgehem, HemorrhageNet",
            rename=str,
            classifiers=(
                *("map_quarter", "map_eighth", "map_sixteenth"),
                *("reduce", "sequence", "slice_logits", "slice_weights"),
            ),
            epsilon=EPSILON,
        ),
    )

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        network = HemorrhageNet(slices=1, channels=in_channels)
        self.slices: int | None = None
        self.to_half = network.to_half
        self.to_quarter = network.to_quarter
        self.shift_quarter = network.shift_quarter
        self.to_eighth = network.to_eighth
        self.shift_eighth = network.shift_eighth
        self.to_sixteenth = network.to_sixteenth

    def set_slices(self, slices: int | None) -> None:
        """Take the images for stacks of so many planes, one after another, whose neighbours exchange channels."""
        self.slices = slices
        self.shift_quarter.slices = self.shift_eighth.slices = slices or 1

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 96, H / 16, W / 16]."""
        quarter = self.to_quarter(self.to_half(x))
        # A stack of one plane would not be left alone by the shift: half of its channels would become zero.
        eighth = self.to_eighth(quarter if self.slices is None else self.shift_quarter(quarter))
        return self.to_sixteenth(eighth if self.slices is None else self.shift_eighth(eighth))  # type: ignore[no-any-return]
