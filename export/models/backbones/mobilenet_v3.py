"""MobileNetV3, Small and Large.

Howard et al.: Searching for MobileNetV3, arXiv:1905.02244, section 5, tables 1 (Large) and 2 (Small); squeeze and
excite from section 5.3, hard-swish from section 5.2, the BatchNorms' decay of 0.99 from section 6.1.1. Public weights
are of the tables less the squeeze and excite that table 2 has in the last convolution; so are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import ClassVar

import torch
from torch import nn

from edgehem.export.models.backbones.encoder import ConvNorm, Encoder, Layout, initialise

EPSILON = 1e-3
"""Of the original training code and torchvision; timm's own weights use 1e-5."""
MOMENTUM = 0.01
Conv = partial(ConvNorm, epsilon=EPSILON, momentum=MOMENTUM)
STEM = 16


@dataclass(frozen=True, slots=True)
class Row:
    """One "bneck" row of the paper's tables, in the order of its columns."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    hard: bool
    """Hard-swish, otherwise ReLU."""
    stride: int


SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)
"""Table 2."""
LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
"""Table 1."""


def multiple_of_eight(channels: float) -> int:
    """Nearest multiple of eight, at least eight, and never less than nine tenths of what was asked."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SqueezeExcite(nn.Module):
    """Weigh every channel by a hard sigmoid of all channels' means, through a bottleneck of a quarter of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = multiple_of_eight(channels / 4)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.restore = nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        return x * nn.functional.hardsigmoid(self.restore(torch.relu(self.reduce(mean))))


class InvertedResidual(nn.Module):
    """Expand, filter every channel, squeeze and excite, project; with a shortcut where shapes allow (figure 4).

    The activation follows the expansion and the depthwise convolution, never the projection; squeeze and excite comes
    after the activation.
    """

    def __init__(self, channels_in: int, row: Row) -> None:
        super().__init__()
        activate: Callable[[], nn.Module] = nn.Hardswish if row.hard else nn.ReLU
        self.expand = (
            Conv(channels_in, row.expanded, activate=activate) if row.expanded != channels_in else nn.Identity()
        )
        self.depthwise = Conv(
            row.expanded, row.expanded, row.kernel, stride=row.stride, groups=row.expanded, activate=activate
        )
        self.squeeze = SqueezeExcite(row.expanded) if row.squeeze else nn.Identity()
        self.project = Conv(row.expanded, row.channels, activate=None)
        self.shortcut = row.stride == 1 and row.channels == channels_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        y: torch.Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.shortcut else y


def _parts(rows: tuple[Row, ...]) -> list[tuple[str, ...]]:
    """What each block has, in order."""
    inputs = (STEM, *(row.channels for row in rows))
    return [
        ("expand",) * (row.expanded != channels) + ("depthwise",) + ("squeeze",) * row.squeeze + ("project",)
        for row, channels in zip(rows, inputs, strict=False)
    ]


@cache
def _torchvision(rows: tuple[Row, ...]) -> dict[str, str]:
    """Our module paths to torchvision's: blocks counted with stem and last convolution, parts counted in a block."""
    names = {"hidden": "classifier.0"}
    groups = {"stem": "features.0", "last": f"features.{len(rows) + 1}"}
    for index, parts in enumerate(_parts(rows)):
        for place, part in enumerate(parts):
            groups[f"blocks.{index}.{part}"] = f"features.{index + 1}.block.{place}"
    for ours, theirs in groups.items():
        if ours.endswith("squeeze"):
            names |= {f"{ours}.reduce": f"{theirs}.fc1", f"{ours}.restore": f"{theirs}.fc2"}
        else:
            names |= {f"{ours}.conv": f"{theirs}.0", f"{ours}.bn": f"{theirs}.1"}
    return names


@cache
def _timm(rows: tuple[Row, ...]) -> dict[str, str]:
    """Our module paths to timm's: runs of blocks of equal width are stages, parts have names, BatchNorms numbers."""
    runs = [len(list(run)) for _, run in groupby(row.channels for row in rows)]
    places = [f"blocks.{stage}.{within}" for stage, length in enumerate(runs) for within in range(length)]
    names = {"stem.conv": "conv_stem", "stem.bn": "bn1", "hidden": "conv_head"}
    names |= {"last.conv": f"blocks.{len(runs)}.0.conv", "last.bn": f"blocks.{len(runs)}.0.bn1"}
    for index, parts in enumerate(_parts(rows)):
        ours, theirs = f"blocks.{index}", places[index]
        # Without an expansion the projection is the first pointwise convolution, and is called so.
        called = {
            "expand": "conv_pw",
            "depthwise": "conv_dw",
            "project": "conv_pwl" if "expand" in parts else "conv_pw",
        }
        for number, part in enumerate((p for p in parts if p != "squeeze"), start=1):
            names |= {f"{ours}.{part}.conv": f"{theirs}.{called[part]}", f"{ours}.{part}.bn": f"{theirs}.bn{number}"}
        names |= {f"{ours}.squeeze.reduce": f"{theirs}.se.conv_reduce"}
        names |= {f"{ours}.squeeze.restore": f"{theirs}.se.conv_expand"}
    return names


def _layouts(rows: tuple[Row, ...]) -> tuple[Layout, ...]:
    def renamed(names: Callable[[tuple[Row, ...]], dict[str, str]], key: str) -> str:
        module, _, leaf = key.rpartition(".")
        return f"{names(rows)[module]}.{leaf}"

    return (
        Layout(source="edgehem", rename=str, classifiers=(), epsilon=EPSILON),
        Layout(
            source="torchvision",
            rename=partial(renamed, _torchvision),
            classifiers=("classifier.3",),
            epsilon=EPSILON,
        ),
        Layout(source="timm", rename=partial(renamed, _timm), classifiers=("classifier",), epsilon=1e-5),
    )


class _MobileNetV3(Encoder):
    """[B, C, H, W] -> map [B, 6 · last row's channels, h, w] -> features [B, hidden]."""

    epsilon = EPSILON
    first = "stem.conv"

    def __init__(self, rows: tuple[Row, ...], hidden: int, in_channels: int) -> None:
        super().__init__()
        self.stem = Conv(in_channels, STEM, 3, stride=2, activate=nn.Hardswish)
        inputs = (STEM, *(row.channels for row in rows))
        self.blocks = nn.Sequential(*(InvertedResidual(c, row) for c, row in zip(inputs, rows, strict=False)))
        width = 6 * rows[-1].channels
        self.last = Conv(rows[-1].channels, width, activate=nn.Hardswish)
        self.hidden = nn.Linear(width, hidden)
        initialise(self)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 6 · last row's channels, h, w]."""
        return self.last(self.blocks(self.stem(x)))  # type: ignore[no-any-return]

    def pooled(self, maps: torch.Tensor) -> torch.Tensor:
        """Mean, the hidden layer behind the pooling, hard-swish: [B, K, h, w] -> [B, hidden]."""
        return nn.functional.hardswish(self.hidden(maps.mean(dim=(2, 3))))


class MobileNetV3Small(_MobileNetV3):
    """[B, C, H, W] -> map [B, 576, h, w] -> features [B, 1024]."""

    layouts: ClassVar[tuple[Layout, ...]] = _layouts(SMALL)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(SMALL, 1024, in_channels)


class MobileNetV3Large(_MobileNetV3):
    """[B, C, H, W] -> map [B, 960, h, w] -> features [B, 1280]."""

    layouts: ClassVar[tuple[Layout, ...]] = _layouts(LARGE)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(LARGE, 1280, in_channels)
