"""What reading a study gives: the chosen series as a volume, and everything worth saying about the choice."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgehem.result import InputInfo, Note
from edgehem.volume import Volume


@dataclass(frozen=True, kw_only=True)
class SeriesSummary:
    """One series found in a study, without identifiers.

    ``reason`` says why it was passed over; empty for the one that was chosen.
    """

    modality: str
    slices: int
    orientation: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A readable head CT.

    Parameters
    ----------
    volume : Volume
        The chosen series.
    digest : str
        SHA-256 (hex) over stored values, rescale and geometry of the volume; the same whatever the files' order.
    notes : tuple of Note
        Reasons for review found while reading (FLAG codes).
    series : tuple of SeriesSummary
        Everything found, the chosen one first.
    age_years : float or None
        From the header, where it is there.
    timings_ms : dict
        ``read``, ``select``, ``decode``.
    """

    volume: Volume
    digest: str
    notes: tuple[Note, ...] = ()
    series: tuple[SeriesSummary, ...] = ()
    age_years: float | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def info(self) -> InputInfo:
        """The input's description as it stands in a result."""
        volume = self.volume
        return InputInfo(
            digest=self.digest,
            slices=len(volume.pixels),
            tilt_deg=round(volume.tilt_deg, 2),
            spacing_mm=(round(volume.slice_spacing, 3), *volume.pixel_spacing),
        )
