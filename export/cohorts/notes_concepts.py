"""What a simple reader finds in an admission note: concepts that are affirmed, denied or left open, and the last dose.

A clause at a time: a negation before the concept denies it, a hedge in its clause leaves it open. Misspelt words are
missed, and text that was copied forward is believed: this reader is a floor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

CONCEPTS = {
    "seizure": ("seizure", " sz", " fit"),
    "found_down": ("found down", "found on the floor", "last seen well"),
    "vomiting": ("vomit",),
    "alcohol": ("alcohol", " etoh", "intoxicated"),
    "anticoagulant": ("anticoagulant", "warfarin", "vitamin k antagonist", "apixaban", "rivaroxaban", " doac"),
    "ventricular": ("intraventricular", " ivh", " ventricles"),
    "mixed_density": ("swirl", "black hole"),
    "dependent": ("needs help", "full care", " carers", " walks with", " frame"),
    "independent": ("independent", " manages", "no limits before"),
}
"""Concept: words in lower case; a space before one is the start of a word."""
BEFORE = re.compile(r"\b(?:no|not|den(?:y|ies)|without|w/o)\b")
"""Denies what comes after it in its clause."""
AFTER = re.compile(r"clear of|since stopped")
"""Denies what comes before it."""
HEDGE = re.compile(r"possible|cannot be excluded|unclear|\?")
DOSE = re.compile(r"last dose (\d+) ?(?:hours|hrs|h)\b")


def read_note(text: str) -> dict[str, float]:
    """Counts by ``note_<concept>`` and ``note_no_<concept>``; a clause that hedges counts half.

    Returns
    -------
    dict
        The counts, ``note_last_dose_h`` (NaN where none is told) and ``note_words``.
    """
    lowered = " " + text.lower().replace("\n", "\n ")
    found = dict.fromkeys([f"note_{no}{name}" for name in CONCEPTS for no in ("", "no_")], 0.0)
    for name, words in CONCEPTS.items():
        clauses: dict[int, tuple[str, int]] = {}
        for word in words:
            at = lowered.find(word)
            while at >= 0:
                start = max(lowered.rfind(".", 0, at), lowered.rfind("\n", 0, at)) + 1
                ends = [end for end in (lowered.find(".", at), lowered.find("\n", at)) if end >= 0]
                clauses.setdefault(start, (lowered[start : min(ends, default=len(lowered))], at - start))
                at = lowered.find(word, at + 1)
        for clause, place in clauses.values():
            denial = BEFORE.search(clause)
            denied = AFTER.search(clause) is not None or (denial is not None and denial.start() < place)
            found[f"note_{'no_' if denied else ''}{name}"] += 0.5 if HEDGE.search(clause) else 1.0
    dose = DOSE.search(lowered)
    found["note_last_dose_h"] = float(dose.group(1)) if dose else float("nan")
    found["note_words"] = float(len(lowered.split()))
    return found


def read_notes(texts: Iterable[str]) -> dict[str, Float]:
    """The same for many: float64 [N] by name."""
    read = [read_note(text) for text in texts]
    names = list(read[0]) if read else []
    return {name: np.array([one[name] for one in read], np.float64) for name in names}
