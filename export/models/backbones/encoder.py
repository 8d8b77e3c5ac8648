"""What every image encoder offers, and the one block that most are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one public implementation names the weights of a network.

    Parameters
    ----------
    source : str
        Implementations that share the layout, for messages.
    rename : callable
        Path of a parameter or buffer in our module to its path there: one to one, over all of ours.
    classifiers : tuple of str
        Module paths of the ImageNet classifier there, which an encoder has no use for.
    epsilon : float
        The BatchNorms' epsilon there. It is no part of a state dict, and the same weights give other answers under
        another one.
    """

    source: str
    rename: Callable[[str], str]
    classifiers: tuple[str, ...]
    epsilon: float


class Encoder(nn.Module):
    """An image encoder: images to a feature map, and the map to one feature vector an image.

    A subclass sets the class variables and implements :meth:`feature_map`; it takes the number of input channels alone.
    """

    layouts: ClassVar[tuple[Layout, ...]]
    """How checkpoints name the weights; our own names among them."""
    first: ClassVar[str]
    """Our path of the first convolution, the only module whose shape depends on the input channels."""
    epsilon: ClassVar[float]
    """Of our BatchNorms."""
    lookalikes: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Names that only a checkpoint of another network has whose shapes could pass for ours, and why it is refused."""

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """Last map before pooling: float32 [B, C, H, W] -> float32 [B, K, H / stride, W / stride]."""
        raise NotImplementedError

    def pooled(self, maps: torch.Tensor) -> torch.Tensor:
        """Features of a map: float32 [B, K, h, w] -> float32 [B, F], what the ImageNet classifier would read."""
        return maps.mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode images.

        Parameters
        ----------
        x : float32 [B, C, H, W]
            Normalised as the weights want it (``Description.mean`` and ``.std``).

        Returns
        -------
        float32 [B, F]
        """
        return self.pooled(self.feature_map(x))


class ConvNorm(nn.Sequential):
    """Convolution without bias, BatchNorm, activation.

    A plain sequence, so that :func:`edgehem.export.to_onnx.fuse_batch_norms` folds it.

    Parameters
    ----------
    channels_in, channels_out : int
    kernel : int or (int, int)
        Rows, columns.
    stride : int
    valid : bool
        Without padding ("V" in the figures of the Inception papers); otherwise half the kernel on each side.
    groups : int
    epsilon, momentum : float
        Of the BatchNorm; momentum in torch's sense, the weight of the new batch.
    activate : callable or None
        Makes the activation.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        valid: bool = False,
        groups: int = 1,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        activate: Callable[[], nn.Module] | None = nn.ReLU,
    ) -> None:
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid else (rows // 2, columns // 2)
        self.conv = nn.Conv2d(
            channels_in, channels_out, (rows, columns), stride=stride, padding=padding, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(channels_out, eps=epsilon, momentum=momentum)
        if activate is not None:
            self.activate = activate()


def initialise(model: nn.Module) -> None:
    """Convolutions from the normal distribution of He et al. (arXiv:1502.01852, section 2.2, fan-out), biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
