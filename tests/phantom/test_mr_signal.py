"""Signal equations and tables: tissues and blood of every age are as light or dark as textbooks say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehem.errors import UsageError
from edgehem.phantom.bleeds import SUBTYPES, Bleed
from edgehem.phantom.materials import MATERIALS as PAINTED
from edgehem.phantom.mr import stages_of
from edgehem.phantom.mr_signal import (
    KINDS,
    PulseSequence,
    draw_sequence,
    fluid_null_ms,
    inversion_recovery,
    signal,
    spoiled_gradient_echo,
)
from edgehem.phantom.mr_tissue import BLOOD, BY_SUBTYPE, CLOTS, DILUTED, MATERIALS, NAMES, STAGES, SUBSTANCES, stage_at

FIELDS = (1.5, 3.0)
SEEDS = range(6)
ISO = (0.72, 1.1)
"""Signal over grey matter that a reader still calls isointense, or slightly darker."""

# Bradley, Radiology 1993;189:15-26: the parenchymal clot beside brain, by stage. The stage is named by what the blood
# has become; a chronic clot has a dark rim on both.
BRADLEY = [
    ("oxy", "t1", "iso"),
    ("oxy", "t2", "bright"),
    ("deoxy", "t1", "iso"),
    ("deoxy", "t2", "dark"),
    ("met_cell", "t1", "bright"),
    ("met_cell", "t2", "dark"),
    ("met_free", "t1", "bright"),
    ("met_free", "t2", "bright"),
    ("haemosiderin", "t1", "dark"),
    ("haemosiderin", "t2", "dark"),
]


def beside_grey(name: str, sequence: PulseSequence) -> float:
    """Magnitude of a substance's signal over that of grey matter."""
    return abs(signal(name, sequence)) / abs(signal("grey", sequence))


@pytest.mark.parametrize("field_t", FIELDS)
@pytest.mark.parametrize(("blood", "kind", "looks"), BRADLEY)
def test_blood_of_every_stage_looks_as_in_the_classic_table(blood: str, kind: str, looks: str, field_t: float) -> None:
    for seed in SEEDS:
        ratio = beside_grey(blood, draw_sequence(kind, seed, field_t))
        if looks == "iso":
            assert ISO[0] <= ratio <= ISO[1]
        else:
            assert ratio > 1.25 if looks == "bright" else ratio < 0.65


@pytest.mark.parametrize("field_t", FIELDS)
def test_the_gradient_echo_shows_what_holds_iron_dark_and_what_holds_none_light(field_t: float) -> None:
    for seed in SEEDS:
        for kind in ("t2star", "swi"):
            sequence = draw_sequence(kind, seed, field_t)
            for dark in ("deoxy", "met_cell", "haemosiderin", "calcium"):
                assert beside_grey(dark, sequence) < 0.62
            assert beside_grey("oxy", sequence) > 1
            assert beside_grey("haemosiderin", sequence) < beside_grey("deoxy", sequence)


@pytest.mark.parametrize("field_t", FIELDS)
def test_tissues_of_every_series_are_as_textbooks_show_them(field_t: float) -> None:
    for seed in SEEDS:
        t1, t2, flair, star = (draw_sequence(kind, seed, field_t) for kind in ("t1", "t2", "flair", "t2star"))
        assert beside_grey("white", t1) > 1.08
        assert beside_grey("fat", t1) > 1.5
        assert beside_grey("csf", t1) < 0.62
        assert beside_grey("white", t2) < 0.9
        assert beside_grey("csf", t2) > 1.6
        assert beside_grey("csf", flair) < 0.08
        assert beside_grey("white", flair) < 1
        assert beside_grey("gliosis", flair) > 1.25
        assert beside_grey("oedema", flair) > 1.25
        assert beside_grey("csf", star) > 1.1
        assert max(beside_grey("bone", s) for s in (t1, t2, flair, star)) < 0.06
        assert beside_grey("vessel", t2) < 0.2  # flow leaves a spin echo empty


def test_subarachnoid_blood_shows_on_flair_while_fresh() -> None:
    for field_t in FIELDS:
        sequence = draw_sequence("flair", 1, field_t)
        assert signal(DILUTED["acute"].core, sequence) > 10 * abs(signal("csf", sequence))
        assert beside_grey(DILUTED["acute"].core, sequence) > 1.2


def test_deoxygenated_blood_is_darker_at_the_higher_field() -> None:
    low, high = (draw_sequence("t2", 2, field_t) for field_t in FIELDS)
    assert beside_grey("deoxy", high) < 0.7 * beside_grey("deoxy", low)


@given(st.floats(1, 89), st.floats(100, 4000), st.floats(5, 3000))
def test_the_ernst_angle_gives_the_most_signal(flip: float, t1: float, tr: float) -> None:
    tissue = replace(SUBSTANCES["grey"], t1=(t1, t1))

    def at(angle: float) -> float:
        return spoiled_gradient_echo(
            tissue, PulseSequence(kind="t1", physics="gradient_echo", field_t=1.5, te=2, tr=tr, flip_deg=angle)
        )

    ernst = float(np.degrees(np.arccos(np.exp(-tr / t1))))
    assert at(flip) <= at(ernst) * (1 + 1e-9)


@given(st.floats(200, 5000), st.floats(1500, 12000))
def test_inversion_recovery_is_nothing_at_the_null(t1: float, tr: float) -> None:
    fluid = replace(SUBSTANCES["csf"], t1=(t1, t1))
    sequence = PulseSequence(
        kind="flair", physics="inversion_recovery", field_t=3.0, te=10, tr=tr, ti=fluid_null_ms(t1, tr)
    )
    assert abs(inversion_recovery(fluid, sequence)) < 1e-9
    later = replace(sequence, ti=sequence.ti + 50)
    earlier = replace(sequence, ti=sequence.ti - 50)
    assert inversion_recovery(fluid, earlier) < 0 < inversion_recovery(fluid, later)


@pytest.mark.parametrize("kind", ["t2star", "t2", "flair", "t1"])
def test_a_longer_echo_time_never_gives_more(kind: str) -> None:
    sequence = draw_sequence(kind, 3, 3.0)
    for name in NAMES:
        short, long = signal(name, sequence), signal(name, replace(sequence, te=sequence.te * 2))
        assert abs(long) <= abs(short)


def test_a_voxel_of_every_material_the_anatomy_paints_has_a_signal_entry() -> None:
    assert set(PAINTED) == set(MATERIALS)
    assert NAMES[: len(PAINTED)] == tuple(PAINTED)


@pytest.mark.parametrize("field_t", [1.5, 3.0])
def test_what_is_left_of_blood_on_flair_depends_on_where_it_was(field_t: float) -> None:
    """A cavity in the brain holds fluid and is dark; a subdural one is full of protein; the ventricles are washed."""
    for seed in range(20):
        sequence = draw_sequence("flair", seed, field_t)

        def old(subtype: str, sequence: PulseSequence = sequence) -> float:
            return beside_grey(BY_SUBTYPE[subtype]["chronic"].core, sequence)

        assert old("intraventricular") < 0.08
        assert 1.5 * old("intraventricular") < old("intraparenchymal") < 0.75
        assert old("subdural") == old("epidural") > 1.2


def test_every_stage_is_made_of_blood_in_the_table() -> None:
    assert tuple(BY_SUBTYPE) == SUBTYPES
    assert BY_SUBTYPE["intraparenchymal"] is CLOTS and BY_SUBTYPE["subarachnoid"] is DILUTED
    for clots in BY_SUBTYPE.values():
        assert tuple(clots) == STAGES
        for clot in clots.values():
            assert {clot.core, clot.rim, clot.before} <= {*BLOOD, "csf"}
            assert 0 <= clot.lag < 1


def test_relaxation_is_physical() -> None:
    for name, s in SUBSTANCES.items():
        for k in range(2):
            assert 0 < s.t2_star[k] <= s.t2[k] <= 2 * s.t1[k], name
        assert s.t1[1] >= s.t1[0], name  # T1 grows with the field
        assert s.t2_star[1] <= s.t2_star[0], name
        assert 0 <= s.density <= 1


@pytest.mark.parametrize(
    ("hours", "stage"),
    [
        (0, "hyperacute"),
        (23.9, "hyperacute"),
        (24, "acute"),
        (100, "early_subacute"),
        (200, "late_subacute"),
        (1000, "chronic"),
    ],
)
def test_hours_become_stages(hours: float, stage: str) -> None:
    assert stage_at(hours) == stage


@pytest.mark.parametrize("hours", [-1, float("nan")])
def test_an_impossible_age_is_refused(hours: float) -> None:
    with pytest.raises(UsageError, match="hours"):
        stage_at(hours)


def test_stages_follow_the_bleeds_unless_they_are_named() -> None:
    bleeds = (Bleed(subtype="subdural", ml=20, age="chronic"), Bleed(subtype="subarachnoid", ml=5))
    assert stages_of(bleeds, None) == {"subdural": "chronic", "subarachnoid": "acute"}
    assert stages_of(bleeds, "late_subacute") == dict.fromkeys(("subdural", "subarachnoid"), "late_subacute")
    named = {"subdural": "acute", "subarachnoid": "hyperacute"}
    assert stages_of(bleeds, named) == named
    assert stages_of((), "acute") == {}
    for wrong in ("old", {"subdural": "acute"}):
        with pytest.raises(UsageError, match="one of hyperacute"):
            stages_of(bleeds, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_stay_in_the_range_of_common_protocols(kind: str) -> None:
    for seed in range(40):
        for field_t in FIELDS:
            s = draw_sequence(kind, seed, field_t)
            assert s == draw_sequence(kind, seed, field_t)
            assert 0 < s.te < s.tr
            assert 5 <= s.flip_deg <= 90
            assert s.physics == "gradient_echo" or s.flip_deg == 90
            assert (s.ti > 0) == (kind == "flair")
            if kind == "flair":
                assert 2000 < s.ti < 2800


def test_an_unknown_series_or_field_is_refused() -> None:
    with pytest.raises(UsageError, match="t2star, flair"):
        draw_sequence("pd", 0, 1.5)
    for field_t in (0.2, 7.0, float("nan")):
        with pytest.raises(UsageError, match=r"outside 1\.5-3"):
            draw_sequence("t1", 0, field_t)
