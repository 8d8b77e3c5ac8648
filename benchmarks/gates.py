"""``edgehem bench gates``: how often the intake's gates are right, on phantoms that are sound and on spoilt ones.

Counts, not times. They say how a gate behaves on the generator's heads; nothing about patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgehem.benchmarks import environment
from edgehem.dicom.gates import pass_gates
from edgehem.errors import Code, Refusal
from edgehem.intervals import wilson
from edgehem.machine import usable_cpus
from edgehem.phantom import Protocol, draw_bleeds, make_case
from edgehem.phantom.flaws import Flaws
from edgehem.preprocess import coverage_notes, locate_head
from edgehem.volume import Volume
from edgehem.workers import ordered

SCHEMA = "edgehem.bench.gates/1"

HEADS, QUICK_HEADS = 100, 4
FIRST_SEED = 70_000
"""No network of ours was trained, calibrated or judged on these, and no threshold was chosen on them."""
VOXEL_MM = 1.5
"""Of the phantom's block."""
MATRIX = 256
"""Half of what scanners write, at a quarter of the time."""
AIR_HU = -1000

Change = Callable[[Volume], Volume]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One kind of study.

    Parameters
    ----------
    name : str
    wanted : tuple of Code
        One of them should be the answer; none for a study that the gates should let pass without a word.
    flaws : Flaws
    thickness_mm : float, optional
        Of the slices; drawn where it is missing.
    """

    name: str
    wanted: tuple[Code, ...] = ()
    flaws: Flaws = field(default_factory=Flaws)
    thickness_mm: float | None = None


SOUND = Condition(name="sound, as they come")
SCANS = (
    SOUND,
    Condition(name="sound, slices of 1.25 mm", thickness_mm=1.25),
    Condition(name="sound, slices of 9 mm", thickness_mm=9.0),
    Condition(name="4 teeth with metal fillings", flaws=Flaws(fillings=4)),
    Condition(name="aneurysm clip of 6 mm", wanted=(Code.METAL,), flaws=Flaws(clip_mm=6)),
    Condition(name="aneurysm clip of 10 mm", wanted=(Code.METAL,), flaws=Flaws(clip_mm=10)),
    Condition(name="titanium plate of 18 mm", wanted=(Code.METAL,), flaws=Flaws(plate_mm=18)),
    Condition(name="moves by up to 2 mm", wanted=(Code.MOTION,), flaws=Flaws(motion_mm=2)),
    Condition(name="moves by up to 5 mm", wanted=(Code.MOTION,), flaws=Flaws(motion_mm=5)),
    Condition(name="moves by up to 10 mm", wanted=(Code.MOTION,), flaws=Flaws(motion_mm=10)),
    Condition(name="vessels of 150 HU", wanted=(Code.CONTRAST_SEEN,), flaws=Flaws(contrast_hu=150)),
    Condition(name="vessels of 250 HU", wanted=(Code.CONTRAST_SEEN,), flaws=Flaws(contrast_hu=250)),
    Condition(name="vessels of 350 HU", wanted=(Code.CONTRAST_SEEN,), flaws=Flaws(contrast_hu=350)),
    Condition(name="hole of 40 mm in the vault", wanted=(Code.POSTOPERATIVE,), flaws=Flaws(craniotomy_mm=40)),
    Condition(name="hole of 80 mm in the vault", wanted=(Code.POSTOPERATIVE,), flaws=Flaws(craniotomy_mm=80)),
    Condition(name="5 mL of air in the skull", wanted=(Code.POSTOPERATIVE,), flaws=Flaws(air_ml=5)),
    Condition(name="20 mL of air in the skull", wanted=(Code.POSTOPERATIVE,), flaws=Flaws(air_ml=20)),
)
"""What is scanned for the purpose."""

OFF = (Code.HU_IMPLAUSIBLE, Code.HU_UNUSUAL)
PART = (Code.COVERAGE, Code.COVERAGE_PARTIAL, Code.NOT_HEAD)
CHANGES: tuple[tuple[str, tuple[Code, ...], Change], ...] = (
    *(
        (f"intercept off by {off:+d}", OFF, lambda volume, off=off: replace(volume, intercept=volume.intercept + off))
        for off in (-40, -24, -16, -8, 8, 16, 24, 40)
    ),
    ("one slice black", (Code.HU_IMPLAUSIBLE,), lambda volume: blackened(volume, 1, 0)),
    ("three slices in a row black", (Code.HU_IMPLAUSIBLE,), lambda volume: blackened(volume, 3, 0)),
    ("lower half of one slice black", (Code.HU_IMPLAUSIBLE,), lambda volume: blackened(volume, 1, MATRIX // 2)),
    ("only the upper 55 mm", PART, lambda volume: kept(volume, 0, 55)),
    ("only the upper 90 mm", PART, lambda volume: kept(volume, 0, 90)),
    ("without the upper 45 mm", PART, lambda volume: kept(volume, 45, 1e3)),
)  # fmt: skip
"""What is done to the sound studies that come as they come."""


def blackened(volume: Volume, count: int, first_row: int) -> Volume:
    """A stack with some slices in its middle overwritten by air, from a row on."""
    pixels = volume.pixels.copy()
    middle = len(pixels) // 2
    pixels[middle : middle + count, first_row:] = round((AIR_HU - volume.intercept[0]) / volume.slope[0])
    return replace(volume, pixels=pixels)


def kept(volume: Volume, start_mm: float, stop_mm: float) -> Volume:
    """The slices whose distance from the highest slice lies in a range, mm."""
    up = 1.0 if volume.normal[2] > 0 else -1.0
    below = up * volume.distances
    below = below.max() - below
    chosen = (below >= start_mm) & (below <= stop_mm)
    return replace(
        volume,
        pixels=volume.pixels[chosen],
        slope=volume.slope[chosen],
        intercept=volume.intercept[chosen],
        origin=volume.origin[chosen],
    )


def answer(volume: Volume) -> tuple[bool, tuple[str, ...]]:
    """Whether the gates refuse a stack, and the codes they give."""
    try:
        notes = [*pass_gates(volume), *coverage_notes(locate_head(volume))]
    except Refusal as refusal:
        return True, (refusal.code.value,)
    return False, tuple(note.code.value for note in notes)


def judge(job: tuple[Condition, int]) -> list[tuple[str, bool, tuple[str, ...]]]:
    """One head scanned under a condition: what the gates answer, to it and to what is done to it."""
    condition, seed = job
    protocol = Protocol(matrix=MATRIX, thickness_mm=condition.thickness_mm)
    bleeds = draw_bleeds(seed) if seed % 2 else ()
    volume = make_case(seed, bleeds=bleeds, protocol=protocol, voxel_mm=VOXEL_MM, flaws=condition.flaws).volume
    found = [(condition.name, *answer(volume))]
    if condition == SOUND:
        found += [(name, *answer(change(volume))) for name, _, change in CHANGES]
    return found


def run(
    heads: int = HEADS,
    *,
    scans: Sequence[Condition] = SCANS,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Count.

    Parameters
    ----------
    heads : int
        Under every condition; every second one has bled.
    scans : sequence of Condition
    workers : int, optional
        Processes; as many as there are CPUs by default.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.bench.gates/1``), ready for JSON.
    """
    jobs = [(condition, FIRST_SEED + number) for condition in scans for number in range(heads)]
    counts: dict[str, Counter[str]] = {}
    for done, found in enumerate(ordered(judge, jobs, workers or usable_cpus()), start=1):
        for name, refused, codes in found:
            count = counts.setdefault(name, Counter())
            count["studies"] += 1
            count["refused"] += refused
            count["flagged"] += bool(codes) and not refused
            count.update(codes)
            count["as wanted"] += _as_wanted(name, scans, codes)
        progress(done, len(jobs))
    wanted = _wanted(scans)
    rows = [
        {
            "name": name,
            "wanted": [code.value for code in wanted[name]],
            "studies": count["studies"],
            "as_wanted": count["as wanted"],
            "interval": list(wilson(count["as wanted"], count["studies"])),
            "refused": count["refused"],
            "flagged": count["flagged"],
            "codes": {code.value: count[code.value] for code in Code if count[code.value]},
        }
        for name, count in counts.items()
    ]
    return {
        "schema": SCHEMA,
        "settings": {"heads": heads, "first_seed": FIRST_SEED, "matrix": MATRIX, "voxel_mm": VOXEL_MM},
        "environment": environment.describe(),
        "rows": rows,
    }


def _wanted(scans: Sequence[Condition]) -> dict[str, tuple[Code, ...]]:
    return {condition.name: condition.wanted for condition in scans} | {name: codes for name, codes, _ in CHANGES}


def _as_wanted(name: str, scans: Sequence[Condition], codes: tuple[str, ...]) -> bool:
    """No code where none is wanted, else one of the wanted: others may stand beside it."""
    wanted = {code.value for code in _wanted(scans)[name]}
    return bool(wanted & set(codes)) if wanted else not codes


def render(result: dict[str, Any]) -> str:
    """The counts as a table, about 110 columns wide.

    Parameters
    ----------
    result : dict
        Of schema ``edgehem.bench.gates/1``.
    """
    settings = result["settings"]
    lines = [
        f"The intake's gates on phantoms, seeds from {settings['first_seed']}: {settings['heads']} heads a line, every "
        "second with blood",
        "Right: the wanted code, or none where none is wanted. In brackets: 95 % interval.",
        "",
        f"  {'':32}{'right':>8}  {'':15}{'refused':>8}{'flagged':>9}  codes",
    ]
    for row in result["rows"]:
        low, high = row["interval"]
        codes = ", ".join(f"{code} {count}" for code, count in row["codes"].items())
        lines.append(
            f"  {row['name']:32}{row['as_wanted'] / row['studies']:8.1%}  {f'({low:.1%}-{high:.1%})':15}"
            f"{row['refused']:8}{row['flagged']:9}  {codes or '-'}"
        )
    return "\n".join(lines) + "\n"
