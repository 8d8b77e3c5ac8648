"""What the two Inception networks share: branches side by side, joined along the channels.

Both public checkpoints come from the same training code, with an epsilon of 1e-3 in every BatchNorm and average pooling
that does not count the padding; neither is in the paper.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from edgehem.export.models.backbones.encoder import ConvNorm

EPSILON = 1e-3
Conv = partial(ConvNorm, epsilon=EPSILON)
"""Convolution, BatchNorm, ReLU as both networks have it."""


class Branches(nn.Module):
    """Branches that read the same input; their outputs are joined along the channels.

    [B, C, H, W] -> [B, sum of the branches' channels, h, w].
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run every branch and join."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def chain(
    channels: int, *steps: tuple[int, int | tuple[int, int]], shrink: bool = False, split: nn.Module | None = None
) -> nn.Sequential:
    """One branch: convolutions one after another.

    Parameters
    ----------
    channels : int
        Of the input.
    steps : (int, kernel)
        Channels and kernel of each convolution.
    shrink : bool
        The last convolution has stride 2 and no padding: a branch of a reduction block.
    split : module
        What follows the convolutions.
    """
    layers: list[nn.Module] = []
    for index, (width, kernel) in enumerate(steps):
        last = shrink and index == len(steps) - 1
        layers.append(Conv(channels, width, kernel, stride=2 if last else 1, valid=last))
        channels = width
    if split is not None:
        layers.append(split)
    return nn.Sequential(*layers)


def averaged(channels: int, width: int) -> nn.Sequential:
    """The pooling branch: 3 × 3 mean of the pixels that exist, then 1 × 1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), Conv(channels, width))


def shrunk() -> nn.MaxPool2d:
    """Maximum over 3 × 3 with stride 2 and no padding."""
    return nn.MaxPool2d(3, stride=2)
