"""HemorrhageNet's imaging path: a 2.5D slice encoder and attention over slices.

Our own compact design for the published description (Mao & Wang, Front Neurol 2026, 10.3389/fneur.2026.1725732),
whose layer sizes are not public. Chosen to quantise well: plain convolutions and ReLU, no squeeze-excite, no
hard-swish; neighbouring slices exchange channels by shifting, which costs no arithmetic; the attention head is 0.1 % of
the work and stays in float.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

LABELS = ("any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
"""RSNA 2019 order."""
RARE_BLOOD = -4.5
"""First guess of the blood map's logit: one cell in a hundred."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Channels of the encoder's stages and of the sequence head."""

    stem: int = 12
    quarter: int = 32
    eighth: int = 48
    sixteenth: int = 96
    sequence: int = 64


def _conv(channels_in: int, channels_out: int, *, stride: int = 1, activate: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    if activate:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two 3×3 convolutions with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), _conv(channels, channels, activate=False))
        self.activate = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.activate(x + self.body(x))  # type: ignore[no-any-return]


class SliceShift(nn.Module):
    """Give every slice a quarter of the channels of the slice below and a quarter of the one above."""

    def __init__(self, slices: int) -> None:
        super().__init__()
        self.slices = slices

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N·S, C, H, W] -> [N·S, C, H, W]."""
        quarter = x.shape[1] // 4
        y = x.reshape(-1, self.slices, *x.shape[1:])
        below, above, rest = y[:, :, :quarter], y[:, :, quarter : 2 * quarter], y[:, :, 2 * quarter :]
        zero = torch.zeros_like(below[:, :1])
        below = torch.cat([zero, below[:, :-1]], dim=1)
        above = torch.cat([above[:, 1:], zero], dim=1)
        return torch.cat([below, above, rest], dim=2).reshape(x.shape)


class HemorrhageNet(nn.Module):
    """Classification of a head CT on the canonical grid.

    Parameters
    ----------
    slices : int
        Planes of the grid; fixed, so that node counts are.
    channels : int
        Windows.
    widths : Widths
    """

    def __init__(self, slices: int = 40, channels: int = 3, widths: Widths | None = None) -> None:
        super().__init__()
        w = widths or Widths()
        self.slices = slices
        self.to_half = _conv(channels, w.stem, stride=2)
        self.to_quarter = _conv(w.stem, w.quarter, stride=2)
        self.shift_quarter = SliceShift(slices)
        self.to_eighth = nn.Sequential(_conv(w.quarter, w.eighth, stride=2), Residual(w.eighth))
        self.shift_eighth = SliceShift(slices)
        self.to_sixteenth = nn.Sequential(_conv(w.eighth, w.sixteenth, stride=2), Residual(w.sixteenth))
        self.map_quarter = nn.Conv2d(w.quarter, 1, 1)
        self.map_eighth = nn.Conv2d(w.eighth, 4, 1)
        self.map_sixteenth = nn.Conv2d(w.sixteenth, 16, 1)
        nn.init.constant_(self.map_quarter.bias, RARE_BLOOD)  # type: ignore[arg-type]
        self.reduce = nn.Linear(2 * w.sixteenth + 1, w.sequence)
        self.sequence = nn.Sequential(
            nn.Conv1d(w.sequence, w.sequence, 3, padding=1), nn.ReLU(), nn.Conv1d(w.sequence, w.sequence, 3, padding=1)
        )
        self.slice_logits = nn.Linear(w.sequence, len(LABELS))
        self.slice_weights = nn.Linear(w.sequence, len(LABELS))

    def set_slices(self, slices: int) -> None:
        """Read stacks of another height: training sees parts of a head; the exported graph reads all planes."""
        self.slices = self.shift_quarter.slices = self.shift_eighth.slices = slices

    def forward(
        self, image: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Classify studies.

        Parameters
        ----------
        image : float32 [N, S, C, H, W]
            Windowed planes, 0..1.
        valid : float32 [N, S]
            1 where a plane was scanned.

        Returns
        -------
        logits : float32 [N, 6]
            Of :data:`LABELS`, one study each.
        attention : float32 [N, S]
            Weight of every plane in the logit of "any"; sums to 1.
        slice_logits : float32 [N, S, 6]
        blood_map : float32 [N, S, H / 4, W / 4]
            Logit of blood per 4 × 4 pixels.
        """
        n = image.shape[0]
        x = self.to_half(image.reshape(-1, *image.shape[2:]))
        quarter = self.to_quarter(x)
        eighth = self.to_eighth(self.shift_quarter(quarter))
        sixteenth = self.to_sixteenth(self.shift_eighth(eighth))
        blood = (
            self.map_quarter(quarter)
            + nn.functional.pixel_shuffle(self.map_eighth(eighth), 2)
            + nn.functional.pixel_shuffle(self.map_sixteenth(sixteenth), 4)
        )
        features = torch.cat([sixteenth.mean(dim=(2, 3)), sixteenth.amax(dim=(2, 3)), blood.amax(dim=(2, 3))], dim=1)
        h = torch.relu(self.reduce(features)).reshape(n, self.slices, -1)
        h = torch.relu(h + self.sequence(h.transpose(1, 2)).transpose(1, 2))
        slice_logits = self.slice_logits(h)
        # Planes that were not scanned get no weight. A finite number keeps the softmax exact in float16 as well.
        scores = self.slice_weights(h) + (valid[..., None] - 1) * 1e4
        attention = torch.softmax(scores, dim=1)
        logits = (attention * slice_logits).sum(dim=1)
        return logits, attention[..., 0], slice_logits, blood.reshape(n, self.slices, *blood.shape[2:])
