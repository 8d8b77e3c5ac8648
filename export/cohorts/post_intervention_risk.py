"""Hemorrhage after intervention: its risk, summed over what is not known at the CT. All numbers are ours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Float, sigmoid
from edgehem.export.cohorts.post_intervention_people import Place
from edgehem.export.cohorts.post_intervention_tissue import COLLATERALS, Tissue

LYSIS_MIN = 270.0
"""Time window of intravenous lysis, minutes: 4.5 hours (ECASS III, Hacke et al., N Engl J Med 2008)."""
LYSIS_SBP = 185.0
"""Systolic pressure above which none is given, mmHg: the limit of the usual guidelines."""
LYSED_ANYWAY = 0.04
"""Share that has lysis outside of the rule, ours."""
LYSIS = 0.45
"""What lysis adds to the logit of hemorrhage, ours."""
PROTECTION = -0.45
"""What collaterals add to it, ours."""
REPERFUSION = (1.5, 0.30)
"""Logit of reperfusion with collaterals of 0, and what collaterals add, ours."""
DELAY_SPREAD = 0.4
"""Spread of the logarithm of the time to reperfusion, ours."""
LATE = 0.25
"""What every hour from onset to reperfusion, beyond four, adds to the logit where blood flows again; ours."""
INTO_LARGE = 0.8
"""What a large core adds to it, ours."""
LARGE_CORE_ML = 70.0
"""Reperfusion of more than this bleeds more often: a threshold, ours."""

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
DELAYS = np.asarray(np.exp(DELAY_SPREAD * _NODES), np.float64)
"""Nodes of the sum over the time to reperfusion, in medians: Gauss-Hermite, float64 [9]."""
DELAY_CHANCE = np.asarray(_WEIGHTS / _WEIGHTS.sum(), np.float64)


def lysis_chance(person: Mapping[str, Float], wake_up: npt.NDArray[np.bool_], place: Place) -> Float:
    """Chance that intravenous lysis is given, by the clinic's rule: float64 [N]. It is decided after the CT."""
    may = ~wake_up & (person["onset_to_ct_min"] <= LYSIS_MIN) & (person["anticoagulant"] == 0)
    return np.where(may & (person["sbp"] <= LYSIS_SBP), place.lysed, LYSED_ANYWAY)


def base_risk(person: Mapping[str, Float], leukoaraiosis: Float, core_ml: Float) -> Float:
    """Logit of hemorrhage without lysis or reperfusion, with collaterals of 0: float64 [N]. Coefficients are ours."""
    return np.asarray(
        -1.40
        + 0.22 * (np.sqrt(core_ml) - 6)
        + 0.14 * (np.clip(person["glucose"], 4, 16) - 7)
        + 0.010 * (person["sbp"] - 150)
        + 0.20 * (leukoaraiosis - 1)
        + 0.30 * person["anticoagulant"]
        + 0.30 * person["atrial_fibrillation"]
        + 0.012 * (person["age"] - 71),
        np.float64,
    )


def reperfusion_chance(collaterals: Float) -> Float:
    """Chance that the artery is opened, float64 of the same shape."""
    return sigmoid(REPERFUSION[0] + REPERFUSION[1] * collaterals)


def flow_risk(minutes: Float, core_ml: Float, delay: Float) -> Float:
    """What reperfusion adds to the logit: late blood flow, and flow into a large core, bleeds. Broadcasts."""
    return np.asarray(LATE * ((minutes + delay) / 60 - 4) + INTO_LARGE * (core_ml > LARGE_CORE_ML), np.float64)


def hemorrhage_chance(logit: Float, tissue: Tissue, belief: Float, to_reperfusion: float) -> Float:
    """Chance of hemorrhage, summed over what is not known at the CT: collaterals, reperfusion and its time.

    Parameters
    ----------
    logit : float64 array [N]
        Of hemorrhage before what is summed over.
    tissue : Tissue
    belief : float64 array [N, cells]
        Chances of the collaterals.
    to_reperfusion : float
        Median time from CT to reperfusion, minutes.

    Returns
    -------
    float64 array [N]
    """
    flow = flow_risk(tissue.minutes[:, None], tissue.core_ml[:, None], to_reperfusion * DELAYS)  # [N, delays]
    still = logit[:, None] + PROTECTION * COLLATERALS  # [N, cells]
    without = sigmoid(still)
    flowing = sigmoid(still[:, :, None] + flow[:, None]) @ DELAY_CHANCE
    success = reperfusion_chance(COLLATERALS)
    return np.asarray((belief * (without + success * (flowing - without))).sum(axis=1), np.float64)
