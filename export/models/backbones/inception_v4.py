"""Inception-v4.

Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning,
arXiv:1602.07261, section 3.1, figures 3 to 9; k, l, m, n of the first reduction from table 1.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import nn

from edgehem.export.models.backbones.encoder import Encoder, Layout, initialise
from edgehem.export.models.backbones.inception import EPSILON, Branches, Conv, averaged, chain, shrunk


def _stem(channels: int) -> list[nn.Module]:
    """Figure 3: [B, C, 299, 299] -> [B, 384, 35, 35]."""
    return [
        Conv(channels, 32, 3, stride=2, valid=True),
        Conv(32, 32, 3, valid=True),
        Conv(32, 64, 3),
        Branches(shrunk(), Conv(64, 96, 3, stride=2, valid=True)),
        Branches(
            nn.Sequential(Conv(160, 64), Conv(64, 96, 3, valid=True)),
            nn.Sequential(Conv(160, 64), Conv(64, 64, (1, 7)), Conv(64, 64, (7, 1)), Conv(64, 96, 3, valid=True)),
        ),
        Branches(Conv(192, 192, 3, stride=2, valid=True), shrunk()),
    ]


def _block_a() -> nn.Module:
    """Figure 4: 384 -> 384 channels."""
    return Branches(
        Conv(384, 96), chain(384, (64, 1), (96, 3)), chain(384, (64, 1), (96, 3), (96, 3)), averaged(384, 96)
    )


def _reduction_a() -> nn.Module:
    """Figure 7 with k, l, m, n = 192, 224, 256, 384: 384 -> 1024 channels, 35 -> 17 pixels."""
    return Branches(
        Conv(384, 384, 3, stride=2, valid=True), chain(384, (192, 1), (224, 3), (256, 3), shrink=True), shrunk()
    )


def _block_b() -> nn.Module:
    """Figure 5: 1024 -> 1024 channels."""
    return Branches(
        Conv(1024, 384),
        chain(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
        chain(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
        averaged(1024, 128),
    )


def _reduction_b() -> nn.Module:
    """Figure 8: 1024 -> 1536 channels, 17 -> 8 pixels."""
    return Branches(
        chain(1024, (192, 1), (192, 3), shrink=True),
        chain(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3), shrink=True),
        shrunk(),
    )


def _block_c() -> nn.Module:
    """Figure 6: 1536 -> 1536 channels; two branches end in a split."""
    return Branches(
        Conv(1536, 256),
        chain(1536, (384, 1), split=Branches(Conv(384, 256, (1, 3)), Conv(384, 256, (3, 1)))),
        chain(
            1536,
            *((384, 1), (448, (3, 1)), (512, (1, 3))),
            split=Branches(Conv(512, 256, (1, 3)), Conv(512, 256, (3, 1))),
        ),
        averaged(1536, 256),
    )


def _public(key: str) -> str:
    """Our name to that of the public implementations: ``stages.6.branches.1.0.conv`` is ``features.6.branch1.0.conv``.

    They call the one convolution beside a pooling ``conv``, number none that is alone in its branch, and letter those
    after a split.
    """
    stage, rest = re.fullmatch(r"stages\.(\d+)\.(.+)", key).groups()  # type: ignore[union-attr]
    if stage in {"3", "5"}:
        rest = re.sub(r"^branches\.\d+\.", "conv.", rest)
    elif int(stage) >= 19:
        rest = re.sub(
            r"^branches\.([12])\.(\d)\.branches\.(\d)",
            lambda m: f"branch{m[1]}_{m[2]}{'ab'[int(m[3])]}",
            rest,
        )
        rest = re.sub(r"^branches\.([12])\.(\d)", r"branch\1_\2", rest)
    return f"features.{stage}." + re.sub(r"^branches\.", "branch", rest)


class InceptionV4(Encoder):
    """Inception-v4 without its classifier.

    [B, C, H, W] -> map [B, 1536, h, w] -> features [B, 1536]; 299 × 299 pixels give 8 × 8.
    """

    epsilon = EPSILON
    first = "stages.0.conv"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(source="edgehem", rename=str, classifiers=(), epsilon=EPSILON),
        Layout(source="timm, pretrainedmodels", rename=_public, classifiers=("last_linear",), epsilon=EPSILON),
    )

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            *_stem(in_channels),
            *(_block_a() for _ in range(4)),
            _reduction_a(),
            *(_block_b() for _ in range(7)),
            _reduction_b(),
            *(_block_c() for _ in range(3)),
        )
        initialise(self)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 1536, h, w]."""
        return self.stages(x)  # type: ignore[no-any-return]
