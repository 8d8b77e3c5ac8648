"""What treatment and sedation truly do in the dynamics, beside what the chart makes of them: ``python -m`` this module.

The generator can be run again with the same patients and tosses under an intervention. A system that learns from the
chart sees the association only; the two differ on purpose.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import Patients
from edgehem.export.cohorts.dynamics import draw_block, region_column
from edgehem.export.cohorts.dynamics_course import DOCTORS, WINDOW_H, Intervention
from edgehem.regions import load_regions

Float = npt.NDArray[np.float64]

EARLY_H = 1.0
"""Treatment begun by then counts as treatment where doctors decide."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Differences of rates or means, treated less untreated, sedated less not; `n` patients.

    Parameters
    ----------
    expansion_by_treatment : float
        All treated at admission, less nobody treated: the causal effect.
    expansion_naive : float
        Early treated less others, as charted.
    expansion_adjusted : float
        The same at equal admission pressure, coma scale, volume, density and anticoagulation: a linear model.
    gcs_by_sedation, poor_by_sedation : float
        All sedated less nobody, treatment being fixed.
    gcs_naive, poor_naive : float
        Sedated in the window less others, as charted.
    """

    n: int
    expansion_by_treatment: float
    expansion_naive: float
    expansion_adjusted: float
    gcs_by_sedation: float
    gcs_naive: float
    poor_by_sedation: float
    poor_naive: float


def measure(blocks: int = 16, *, seed: int = 0, shifted: bool = False) -> Effects:
    """Run the worlds.

    Parameters
    ----------
    blocks : int
        Of :data:`edgehem.export.cohorts.core.BLOCK` patients.
    seed : int
    shifted : bool

    Raises
    ------
    UsageError
        If there is no block.
    """
    if blocks < 1:
        raise UsageError("effects need a block of patients at least")
    worlds = {
        name: [draw_block(np.random.default_rng([seed, number, 401]), shifted, done) for number in range(blocks)]
        for name, done in (
            ("seen", DOCTORS),
            ("treated", Intervention(treatment=True)),
            ("untreated", Intervention(treatment=False)),
            ("asleep", Intervention(treatment=True, sedation=True)),
            ("awake", Intervention(treatment=True, sedation=False)),
        )
    }

    def joined(world: str, label: str) -> Float:
        return np.concatenate([block.complete[label] for block in worlds[world]]).astype(np.float64)

    def hidden(world: str, name: str) -> Float:
        return np.concatenate([block.truth[name] for block in worlds[world]])

    early = hidden("seen", "treated_h") <= EARLY_H
    asleep = hidden("seen", "sedated_h") <= WINDOW_H
    at_end = round(WINDOW_H)
    grew, poor = joined("seen", "expansion"), joined("seen", "poor_outcome_90d")
    seen_gcs = hidden("seen", "gcs_charted")[:, at_end]
    known = np.concatenate([_confounders(block) for block in worlds["seen"]])
    ones = np.ones(len(early))
    adjusted = np.linalg.lstsq(np.column_stack([ones, early, known]), grew, rcond=None)[0][1]
    gcs = {name: hidden(name, "gcs_charted")[:, at_end].mean() for name in ("asleep", "awake")}
    return Effects(
        n=len(early),
        expansion_by_treatment=float(joined("treated", "expansion").mean() - joined("untreated", "expansion").mean()),
        expansion_naive=float(grew[early].mean() - grew[~early].mean()),
        expansion_adjusted=float(adjusted),
        gcs_by_sedation=float(gcs["asleep"] - gcs["awake"]),
        gcs_naive=float(seen_gcs[asleep].mean() - seen_gcs[~asleep].mean()),
        poor_by_sedation=float((joined("asleep", "poor_outcome_90d") - joined("awake", "poor_outcome_90d")).mean()),
        poor_naive=float(poor[asleep].mean() - poor[~asleep].mean()),
    )


def _confounders(block: Patients) -> Float:
    """What doctors saw at admission, [N, K]."""
    read = np.stack([block.inputs[region_column(name)] for name in load_regions().names], axis=1).sum(1)
    gcs = np.nan_to_num(block.truth["chart_gcs"][:, 0], nan=3.0)
    sbp = block.truth["chart_sbp"][:, 0]
    density = block.inputs["density_sd_hu"]
    inr = np.nan_to_num(block.inputs["inr"], nan=1.0)
    direct = block.inputs["anticoagulant"] == "doac"
    return np.column_stack([sbp, np.maximum(sbp - 140, 0), gcs, read, np.log1p(read), density, inr, direct])


def main() -> None:
    """Print them for both places."""
    for place, shifted in (("usual place", False), ("other place", True)):
        found = measure(shifted=shifted)
        sys.stdout.write(f"{place}, n = {found.n}\n")
        for name in Effects.__dataclass_fields__:
            if name != "n":
                sys.stdout.write(f"  {name:24s} {getattr(found, name):+.3f}\n")


if __name__ == "__main__":
    main()
