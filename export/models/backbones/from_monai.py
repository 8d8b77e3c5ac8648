"""DenseNet169 and SE-ResNet101: MONAI's modules, less their classifiers, under our interface.

Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, arXiv:1608.06993, table 1. Hu, Shen,
Albanie, Sun, Wu: Squeeze-and-Excitation Networks, arXiv:1709.01507, table 1 and section 3.2.

MONAI can fetch public weights itself; its key patterns miss every block of SE-ResNet101 with a number of two digits and
the names DenseNet checkpoints have been saved under since 2018, and what they miss stays random without a word. The
layouts here are complete, and loading refuses what is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import nn

from edgehem.errors import MissingExtraError
from edgehem.export.models.backbones.encoder import Encoder, Layout

EPSILON = 1e-5
"""torch's default for BatchNorm, here and in every public checkpoint of the two."""
_CLASSIFIERS = ("classifier", "last_linear", "class_layers.out")


def _dense_layer(key: str) -> str:
    """MONAI's ``denselayer1.layers.norm1`` is ``denselayer1.norm1`` in torchvision."""
    return key.replace(".layers.", ".")


def _dense_layer_old(key: str) -> str:
    """And was ``denselayer1.norm.1``, as torchvision's published files still have it."""
    return re.sub(r"\.layers\.(norm|conv)([12])\.", r".\1.\2.", key)


def _squeezing(key: str) -> str:
    """MONAI's ``layer1.0.conv1.adn.N`` is ``layer1.0.bn1`` in the original."""
    key = re.sub(r"\.se_layer\.fc\.([02])\.", lambda m: f".se_module.fc{1 + int(m[1]) // 2}.", key)
    key = key.replace(".project.conv.", ".downsample.0.").replace(".project.adn.N.", ".downsample.1.")
    return re.sub(r"\.conv(\d)\.adn\.N\.", r".bn\1.", re.sub(r"\.conv(\d)\.conv\.", r".conv\1.", key))


class DenseNet169(Encoder):
    """DenseNet-169 with growth 32: [B, C, H, W] -> map [B, 1664, h, w] -> features [B, 1664].

    Raises
    ------
    MissingExtraError
        Without MONAI.
    """

    epsilon = EPSILON
    first = "features.conv0"
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(source="edgehem, MONAI", rename=str, classifiers=_CLASSIFIERS, epsilon=EPSILON),
        Layout(
            source="torchvision, timm, pretrainedmodels", rename=_dense_layer, classifiers=_CLASSIFIERS, epsilon=EPSILON
        ),
        Layout(
            source="torchvision with names of before 2018",
            rename=_dense_layer_old,
            classifiers=_CLASSIFIERS,
            epsilon=EPSILON,
        ),
    )

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        try:
            from monai.networks.nets.densenet import DenseNet169 as Network
        except ImportError as error:
            raise MissingExtraError("the encoder DenseNet169 (MONAI's)", "export") from error
        self.features: nn.Module = Network(spatial_dims=2, in_channels=in_channels, out_channels=1).features

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 1664, h, w], behind the last ReLU."""
        return torch.relu(self.features(x))


class SEResNet101(Encoder):
    """SE-ResNet-101: [B, C, H, W] -> map [B, 2048, h, w] -> features [B, 2048].

    The original with stride in a block's first convolution and a pooling that rounds up: timm's ``legacy_seresnet101``,
    not its ``seresnet101``, which has as many weights of the same shapes and computes something else.

    Raises
    ------
    MissingExtraError
        Without MONAI.
    """

    epsilon = EPSILON
    first = "layer0.conv1"
    lookalikes: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "layer1.0.se.fc1.weight": (
                "these are the names of timm's seresnet101, which has the stride in a block's second convolution and "
                "pads its pooling; use legacy_seresnet101"
            )
        }
    )
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(source="edgehem, MONAI", rename=str, classifiers=("last_linear",), epsilon=EPSILON),
        Layout(
            source="pretrainedmodels, timm (legacy_seresnet101)",
            rename=_squeezing,
            classifiers=("last_linear",),
            epsilon=EPSILON,
        ),
    )

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        try:
            from monai.networks.nets.senet import SEResNet101 as Network
        except ImportError as error:
            raise MissingExtraError("the encoder SEResNet101 (MONAI's)", "export") from error
        network = Network(spatial_dims=2, in_channels=in_channels, num_classes=1)
        self.layer0: nn.Module = network.layer0
        self.layer1: nn.Module = network.layer1
        self.layer2: nn.Module = network.layer2
        self.layer3: nn.Module = network.layer3
        self.layer4: nn.Module = network.layer4

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 2048, h, w]."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.layer0(x)))))  # type: ignore[no-any-return]
