"""Inception-ResNet-v2, as its public checkpoint has it.

Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning,
arXiv:1602.07261, sections 3.2 and 3.3, figures 15 to 20. The public weights are those of the variant that was released
with its authors' code: another stem than figure 3, with one mixture of branches at its end, twice the blocks (10, 20,
10 for 5, 10, 5), and other widths where blocks join. Ours is that variant.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import nn

from edgehem.export.models.backbones.encoder import Encoder, Layout, initialise
from edgehem.export.models.backbones.inception import EPSILON, Branches, Conv, averaged, chain, shrunk

SCALE_A, SCALE_B, SCALE_C = 0.17, 0.10, 0.20
"""Of the residuals at 35, 17 and 8 pixels: within the 0.1 to 0.3 of section 3.3, and the checkpoint's own."""


class ScaledResidual(nn.Module):
    """``relu(x + scale * up(branches(x)))``: figure 20.

    Parameters
    ----------
    branches : Branches
    width : int
        Channels of the branches together.
    channels : int
        Of input and output.
    scale : float
    activate : bool
        Whether a ReLU follows the sum; the last block of the network has none.
    """

    def __init__(self, branches: Branches, width: int, channels: int, scale: float, *, activate: bool = True) -> None:
        super().__init__()
        self.mixed = branches
        self.up = nn.Conv2d(width, channels, 1)  # linear, with a bias in place of a BatchNorm
        self.scale = scale
        self.activate = nn.ReLU() if activate else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.activate(x + self.scale * self.up(self.mixed(x)))  # type: ignore[no-any-return]


def _mixed() -> nn.Module:
    """End of the stem: 192 -> 320 channels at 35 pixels."""
    return Branches(
        Conv(192, 96), chain(192, (48, 1), (64, 5)), chain(192, (64, 1), (96, 3), (96, 3)), averaged(192, 64)
    )


def _residual_a() -> nn.Module:
    """Figure 16: 320 channels at 35 pixels."""
    branches = Branches(Conv(320, 32), chain(320, (32, 1), (32, 3)), chain(320, (32, 1), (48, 3), (64, 3)))
    return ScaledResidual(branches, 128, 320, SCALE_A)


def _reduction_a() -> nn.Module:
    """Figure 7 with k, l, m, n = 256, 256, 384, 384: 320 -> 1088 channels, 35 -> 17 pixels."""
    return Branches(
        Conv(320, 384, 3, stride=2, valid=True), chain(320, (256, 1), (256, 3), (384, 3), shrink=True), shrunk()
    )


def _residual_b() -> nn.Module:
    """Figure 17: 1088 channels at 17 pixels."""
    branches = Branches(Conv(1088, 192), chain(1088, (128, 1), (160, (1, 7)), (192, (7, 1))))
    return ScaledResidual(branches, 384, 1088, SCALE_B)


def _reduction_b() -> nn.Module:
    """Figure 18: 1088 -> 2080 channels, 17 -> 8 pixels."""
    return Branches(
        chain(1088, (256, 1), (384, 3), shrink=True),
        chain(1088, (256, 1), (288, 3), shrink=True),
        chain(1088, (256, 1), (288, 3), (320, 3), shrink=True),
        shrunk(),
    )


def _residual_c(scale: float = SCALE_C, *, activate: bool = True) -> nn.Module:
    """Figure 19: 2080 channels at 8 pixels."""
    branches = Branches(Conv(2080, 192), chain(2080, (192, 1), (224, (1, 3)), (256, (3, 1))))
    return ScaledResidual(branches, 448, 2080, scale, activate=activate)


_STEM = {"0": "conv2d_1a", "1": "conv2d_2a", "2": "conv2d_2b", "4": "conv2d_3b", "5": "conv2d_4a", "7": "mixed_5b"}


def _public(key: str) -> str:
    """Our name to that of the public implementations: ``residual_a.3.up`` is ``repeat.3.conv2d``."""
    key = re.sub(r"^stem\.(\d)", lambda m: _STEM[m[1]], key)
    key = re.sub(r"^residual_c\.9\b", "block8", key)
    for ours, theirs in (("residual_a", "repeat"), ("residual_b", "repeat_1"), ("residual_c", "repeat_2")):
        key = re.sub(rf"^{ours}\b", theirs, key)
    key = re.sub(r"^reduction_a\b", "mixed_6a", key)
    key = re.sub(r"^reduction_b\b", "mixed_7a", key)
    key = re.sub(r"^last\b", "conv2d_7b", key)
    return re.sub(r"\.up\b", ".conv2d", re.sub(r"\.(?:mixed\.)?branches\.", ".branch", key))


class InceptionResNetV2(Encoder):
    """Inception-ResNet-v2 without its classifier.

    [B, C, H, W] -> map [B, 1536, h, w] -> features [B, 1536]; 299 × 299 pixels give 8 × 8.
    """

    epsilon = EPSILON
    first = "stem.0.conv"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(source="edgehem", rename=str, classifiers=(), epsilon=EPSILON),
        Layout(
            source="timm, pretrainedmodels", rename=_public, classifiers=("classif", "last_linear"), epsilon=EPSILON
        ),
    )

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(in_channels, 32, 3, stride=2, valid=True),
            Conv(32, 32, 3, valid=True),
            Conv(32, 64, 3),
            shrunk(),
            Conv(64, 80),
            Conv(80, 192, 3, valid=True),
            shrunk(),
            _mixed(),
        )
        self.residual_a = nn.Sequential(*(_residual_a() for _ in range(10)))
        self.reduction_a = _reduction_a()
        self.residual_b = nn.Sequential(*(_residual_b() for _ in range(20)))
        self.reduction_b = _reduction_b()
        # The last residual is taken whole and goes into the last convolution without a ReLU.
        self.residual_c = nn.Sequential(*(_residual_c() for _ in range(9)), _residual_c(1.0, activate=False))
        self.last = Conv(2080, 1536)
        initialise(self)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 1536, h, w]."""
        x = self.reduction_a(self.residual_a(self.stem(x)))
        x = self.reduction_b(self.residual_b(x))
        return self.last(self.residual_c(x))  # type: ignore[no-any-return]
