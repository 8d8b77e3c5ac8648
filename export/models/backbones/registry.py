"""The image encoders by name: where each comes from, what it costs, and what it expects of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edgehem.errors import UsageError
from edgehem.export.models.backbones.compact import Compact
from edgehem.export.models.backbones.encoder import Encoder
from edgehem.export.models.backbones.from_monai import DenseNet169, SEResNet101
from edgehem.export.models.backbones.inception_resnet_v2 import InceptionResNetV2
from edgehem.export.models.backbones.inception_v4 import InceptionV4
from edgehem.export.models.backbones.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small
from edgehem.export.models.backbones.weights import load

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in 0..1; torchvision's."""
CENTRE: Triple = (0.5, 0.5, 0.5)
"""Mean and standard deviation that take 0..1 to -1..1, as the Inception networks were trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One encoder of the registry.

    Attributes
    ----------
    name : str
    paper : str
        Title, arXiv or DOI, section.
    origin : str
        Whose module it is.
    network : type
        Takes the number of input channels.
    parameters : int
        Of the encoder with three input channels.
    classifier_parameters : int or None
        Of the whole network with a classifier of 1000 classes; None where there is no public classifier.
    width : int
        Features of an image, F.
    map_width : int
        Channels of the feature map, K.
    stride : int
        Pixels of the image per pixel of the map, nominally: the Inception networks lose some at the borders.
    input_size : int
        Pixels, rows and columns, of the public checkpoints.
    minimum_size : int
        Pixels below which there is no map.
    mean, std : tuple of float
        What an image in 0..1 is normalised with, per channel, for the public checkpoints.
    """

    name: str
    paper: str
    origin: str
    network: type[Encoder]
    parameters: int
    classifier_parameters: int | None
    width: int
    map_width: int
    stride: int
    input_size: int
    minimum_size: int
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD


_INCEPTION = "Inception-v4, Inception-ResNet and the Impact of Residual Connections, arXiv:1602.07261"
_MOBILE = "Searching for MobileNetV3, arXiv:1905.02244"

_ENTRIES = (
    Description(
        name="DenseNet169",
        paper="Densely Connected Convolutional Networks, arXiv:1608.06993, table 1",
        origin="MONAI",
        network=DenseNet169,
        parameters=12_484_480,
        classifier_parameters=14_149_480,
        width=1664,
        map_width=1664,
        stride=32,
        input_size=224,
        minimum_size=29,
    ),
    Description(
        name="InceptionResNetV2",
        paper=f"{_INCEPTION}, section 3.2",
        origin="ours",
        network=InceptionResNetV2,
        parameters=54_306_464,
        classifier_parameters=55_843_464,
        width=1536,
        map_width=1536,
        stride=32,
        input_size=299,
        minimum_size=75,
        mean=CENTRE,
        std=CENTRE,
    ),
    Description(
        name="InceptionV4",
        paper=f"{_INCEPTION}, section 3.1",
        origin="ours",
        network=InceptionV4,
        parameters=41_142_816,
        classifier_parameters=42_679_816,
        width=1536,
        map_width=1536,
        stride=32,
        input_size=299,
        minimum_size=75,
        mean=CENTRE,
        std=CENTRE,
    ),
    Description(
        name="MobileNetV3Small",
        paper=f"{_MOBILE}, table 2",
        origin="ours",
        network=MobileNetV3Small,
        parameters=1_517_856,
        classifier_parameters=2_542_856,
        width=1024,
        map_width=576,
        stride=32,
        input_size=224,
        minimum_size=1,
    ),
    Description(
        name="MobileNetV3Large",
        paper=f"{_MOBILE}, table 1",
        origin="ours",
        network=MobileNetV3Large,
        parameters=4_202_032,
        classifier_parameters=5_483_032,
        width=1280,
        map_width=960,
        stride=32,
        input_size=224,
        minimum_size=1,
    ),
    Description(
        name="SEResNet101",
        paper="Squeeze-and-Excitation Networks, arXiv:1709.01507, table 1",
        origin="MONAI",
        network=SEResNet101,
        parameters=47_277_872,
        classifier_parameters=49_326_872,
        width=2048,
        map_width=2048,
        stride=32,
        input_size=224,
        minimum_size=3,
    ),
    Description(
        name="Compact",
        paper="ours: the slice encoder of HemorrhageNet",
        origin="ours",
        network=Compact,
        parameters=267_388,
        classifier_parameters=None,
        width=96,
        map_width=96,
        stride=16,
        input_size=224,
        minimum_size=1,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
)

BACKBONES: Mapping[str, Description] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""All encoders by name."""


def backbone(
    name: str, *, in_channels: int = 3, pretrained_state: Mapping[str, Any] | None = None, prefix: str | None = None
) -> Encoder:
    """Make an encoder.

    Parameters
    ----------
    name : str
        Of :data:`BACKBONES`; case does not matter.
    in_channels : int
        Of the images, for example one a window.
    pretrained_state : mapping, optional
        A state dict or a checkpoint that holds one, in any layout of ``edgehem.export.models.backbones.weights``;
        without it weights are random. Weights for another number of input channels are adapted.
    prefix : str, optional
        What stands before the encoder's names in it; found if not given.

    Returns
    -------
    Encoder
        In training mode, as torch makes modules. float32 [B, C, H, W] -> float32 [B, F]; ``feature_map`` gives
        [B, K, h, w].

    Raises
    ------
    UsageError
        For an unknown name, or weights that do not fit.
    MissingExtraError
        If the encoder is MONAI's and MONAI is not installed.
    """
    found = {entry.casefold(): BACKBONES[entry] for entry in BACKBONES}.get(name.casefold())
    if found is None:
        raise UsageError(f"no encoder is called {name!r}; there are {', '.join(BACKBONES)}")
    if in_channels < 1:
        raise UsageError(f"in_channels is {in_channels}, expected 1 or more")
    encoder = found.network(in_channels)
    if pretrained_state is not None:
        load(encoder, pretrained_state, prefix=prefix)
    return encoder
