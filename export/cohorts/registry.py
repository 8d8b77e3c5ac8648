"""Cohorts by name; each is imported when it is asked for."""

from __future__ import annotations

import importlib

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import Cohort

COHORTS = {
    "ich_outcome": "ich_outcome:IchOutcome",
    "ich_outcome_ct": "ich_outcome:IchOutcomeCt",
    "dynamics": "dynamics:Dynamics",
    "cvt": "cvt:Cvt",
    "post_intervention": "post_intervention:PostIntervention",
    "post_intervention_large": "post_intervention:PostInterventionLarge",
    "pe_ecg": "pe_ecg:PeEcg",
    "pe_lysis": "pe_lysis:PeLysis",
}
"""Module below this package and class, by the name on the command line."""


def cohort(name: str) -> Cohort:
    """A cohort by name.

    Parameters
    ----------
    name : str

    Raises
    ------
    UsageError
        If there is none of this name.
    """
    if name not in COHORTS:
        raise UsageError(f"there is no cohort {name!r}; choose from {', '.join(COHORTS)}")
    module, _, kind = COHORTS[name].partition(":")
    made: Cohort = getattr(importlib.import_module(f"{__package__}.{module}"), kind)()
    return made
