"""What a head is made of: shares of materials per point, kept beside the Hounsfield units while they are painted.

A CT needs one number a voxel; another modality needs to know what is there. Shares are kept only when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgehem.phantom.shapes import F32, blend

MATERIALS = (
    "air", "fat", "muscle", "bone", "marrow", "csf", "grey", "white", "dura", "vessel", "calcium", "gliosis",
)  # fmt: skip
"""Every material, in the order of :attr:`Layers.shares`. Skin, lens and clot-free soft tissue count as muscle."""

FINDINGS = {
    "acute infarct": 1, "old infarct": 2, "lacune": 3, "calcification": 4, "thrombosed sinus": 5,
    "dense artery": 6, "resection cavity": 7,
}  # fmt: skip
"""What inside the skull is labelled besides blood, with its value in the labels; the later wins where two meet."""

Labels = npt.NDArray[np.uint8]


class Layers:
    """Paint over points: Hounsfield units always, shares of materials where they are kept.

    Parameters
    ----------
    shares : float32 array [materials, N] or None
        0..1, adding up to 1 in every column; None keeps none.
    """

    def __init__(self, shares: F32 | None = None) -> None:
        self.shares = shares

    @classmethod
    def of(cls, count: int, keep: bool, ground: str = "fat") -> Layers:
        """Layers over `count` points that are all `ground`."""
        if not keep:
            return cls()
        shares = np.zeros((len(MATERIALS), count), np.float32)
        shares[MATERIALS.index(ground)] = 1
        return cls(shares)

    def paint(self, value: F32, hu: float | npt.NDArray[np.generic], coverage: F32, material: str) -> None:
        """Paint `hu` of a material over `value` by coverage, both in place."""
        blend(value, hu, coverage)
        self.over(material, coverage)

    def over(self, material: str, coverage: F32 | float) -> None:
        """Let a material take `coverage` of what is there."""
        if self.shares is not None:
            covered = np.clip(np.asarray(coverage, np.float32), 0, 1)
            self.shares *= 1 - covered
            self.shares[MATERIALS.index(material)] += covered

    def at(self, points: npt.NDArray[np.int64]) -> Layers:
        """A copy of the layers at some of the points; :meth:`put` writes it back."""
        return Layers(None if self.shares is None else self.shares[:, points])

    def put(self, points: npt.NDArray[np.int64], part: Layers) -> None:
        """Write back what :meth:`at` gave."""
        if self.shares is not None and part.shares is not None:
            self.shares[:, points] = part.shares

    def merge(self, points: npt.NDArray[np.int64], part: Layers, coverage: F32) -> None:
        """Blend another set of layers over some of the points."""
        if self.shares is not None and part.shares is not None:
            self.shares[:, points] += (part.shares - self.shares[:, points]) * coverage


def blocks(shape: tuple[int, ...], keep: bool) -> dict[str, F32] | None:
    """Empty blocks of air [Z, Y, X] for every material, or None."""
    if not keep:
        return None
    made = {name: np.zeros(shape, np.float32) for name in MATERIALS}
    made["air"].fill(1)
    return made


def scatter(made: Mapping[str, F32] | None, start: int, points: npt.NDArray[np.int64], layers: Layers) -> None:
    """Write layers into the blocks: the points count from the block's plane `start`."""
    if made is None or layers.shares is None:
        return
    for name, share in zip(MATERIALS, layers.shares, strict=True):
        made[name][start:].reshape(-1)[points] = share
