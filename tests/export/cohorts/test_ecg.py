"""The synthetic ECG: leads and their relations, waves in their order, planted signs, flaws, and the file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import TwelveLeadECGWaveformStorage

from edgehem.dicom.kinds import Kind, what_is_at
from edgehem.errors import UsageError
from edgehem.export.cohorts.ecg import SECONDS, record
from edgehem.export.cohorts.ecg_files import to_dicom, write_ecg
from edgehem.export.cohorts.ecg_heart import Heart, dipole, ventricles
from edgehem.export.cohorts.ecg_leads import DOWER, LEADS, MEASURED, POTENTIALS, projection, twelve
from edgehem.export.cohorts.ecg_machine import QUIET, RAIL_MV, Flaws, Machine, Recording, draw_flaws
from edgehem.export.cohorts.ecg_rhythm import ATRIAL, SHORTEST_S, VENTRICULAR, Rhythm, beats
from edgehem.export.cohorts.pe_ecg import PeEcg
from edgehem.export.cohorts.pe_recordings import OTHER_MACHINE, recording_of

REST = Heart(rhythm=Rhythm(rate=64.0))


def recorded(heart: Heart = REST, *, machine: Machine | None = None, flaws: Flaws = QUIET, seed: int = 0) -> Recording:
    return record(heart, machine=machine or Machine(), flaws=flaws, rng=np.random.default_rng([seed, 7]))


def qrs(heart: Heart) -> dict[str, np.ndarray]:
    """Leads of one noiseless beat on Dower's own chest, 0.8 s from 0.1 s before QRS at 1 kHz."""
    waves = ventricles(heart)
    time = np.arange(-0.1, 0.7, 0.001)
    signal = (waves.size.T[:, :, None] * np.exp(-0.5 * ((time - waves.at[:, None]) / waves.width[:, None]) ** 2)).sum(1)
    eight = DOWER @ signal
    return dict(zip(LEADS, twelve(np.rint(eight * 1e6).astype(np.int32)) / 1e6, strict=True))


# Leads


def test_electrodes_give_the_leads_they_were_made_from() -> None:
    assert np.allclose(MEASURED @ POTENTIALS, np.eye(8))
    assert np.allclose(POTENTIALS[:3].sum(axis=0), 0)  # Wilson's central terminal


def test_derived_leads_of_the_dipole_are_those_of_the_full_table() -> None:
    # III = II - I, aVF = (II + III) / 2 on Frank's axes, from the same coefficients by hand.
    assert np.allclose(DOWER[1] - DOWER[0], [-0.397, 1.301, -0.191])
    assert np.allclose(DOWER[1] - DOWER[0] / 2, [-0.081, 1.1835, -0.1615])


def test_a_chest_is_like_dowers_and_like_no_other() -> None:
    chests = np.array([projection(np.random.default_rng(seed)) for seed in range(400)])
    assert np.abs(chests.mean(axis=0) - DOWER).max() < 0.08
    assert chests.std(axis=0).max() > 0.05


@pytest.mark.parametrize("machine", [Machine(), OTHER_MACHINE], ids=["A", "B"])
@given(seed=st.integers(0, 10**6))
def test_einthoven_and_goldberger_hold_to_the_last_bit(machine: Machine, seed: int) -> None:
    flaws = replace(draw_flaws(np.random.default_rng(seed), 2.0), off=None)
    counts = recorded(machine=machine, flaws=flaws, seed=seed).counts.astype(np.int64)
    one, two, three, avr, avl, avf = counts[:6]
    assert (two == one + three).all()
    assert (2 * avr == -(one + two)).all()
    assert (2 * avl == one - three).all()
    assert (2 * avf == two + three).all()
    assert (avr + avl + avf == 0).all()


# Rhythm


def test_rate_is_the_rate_that_was_asked_for() -> None:
    for rate in (48.0, 75.0, 130.0):
        found = [
            60 / np.diff(beats(Rhythm(rate=rate), 60, np.random.default_rng(seed)).onset).mean() for seed in range(8)
        ]
        assert np.mean(found) == pytest.approx(rate, rel=0.02)


def test_fibrillation_is_irregular_and_sinus_rhythm_breathes() -> None:
    sinus = np.diff(beats(Rhythm(rate=70.0), 60, np.random.default_rng(1)).onset)
    wild = np.diff(beats(Rhythm(rate=70.0, fibrillation=True), 60, np.random.default_rng(1)).onset)
    assert wild.std() / wild.mean() > 0.12
    assert 0.01 < sinus.std() / sinus.mean() < 0.05
    assert abs(np.corrcoef(wild[1:], wild[:-1])[0, 1]) < 0.35 < np.corrcoef(sinus[1:], sinus[:-1])[0, 1]


def test_premature_beats_are_early_and_a_ventricular_one_pauses() -> None:
    led = beats(Rhythm(rate=70.0, atrial=0.1, ventricular=0.1), 300, np.random.default_rng(2))
    before, mean = np.diff(led.onset), led.rr
    kind = led.kind
    assert (kind == ATRIAL).any() and (kind == VENTRICULAR).any()
    assert (before[kind[1:] > 0] < 0.85 * mean).all()
    after = before[1:][kind[1:-1] == VENTRICULAR]
    assert (after > 1.15 * mean).all()
    assert not ((kind[1:] > 0) & (kind[:-1] > 0)).any()


@given(rate=st.floats(40, 180), scatter=st.booleans(), seed=st.integers(0, 1000))
def test_beats_never_overlap_and_cover_the_recording(rate: float, scatter: bool, seed: int) -> None:
    rhythm = Rhythm(rate=rate, fibrillation=scatter, ventricular=0.1)
    led = beats(rhythm, 12, np.random.default_rng(seed))
    assert (np.diff(led.onset) >= SHORTEST_S - 1e-9).all()
    assert led.onset[0] <= 0 and led.onset[-1] > 12 - 3 * led.rr


# Waves


def test_waves_come_in_their_order_and_look_as_they_do_at_rest() -> None:
    signal, led = dipole(REST, seconds=10, hertz=1000, rng=np.random.default_rng(3))
    two = DOWER[1] @ signal
    onset = led.onset[(led.onset > 1) & (led.onset < 9)]
    for begin in (np.rint(onset * 1000)).astype(int):
        p = begin - 160 + np.argmax(two[begin - 160 : begin - 30])
        r = begin + np.argmax(two[begin : begin + 100])
        t = begin + 150 + np.argmax(two[begin + 150 : begin + 450])
        assert p < begin < r < t
        assert two[r] > two[t] > two[p] > 0.05
        assert 100 < begin - p < 150  # P in front of QRS by about PR less half of P


def test_r_grows_and_s_shrinks_across_the_chest() -> None:
    leads = qrs(REST)
    beat = slice(90, 195)
    tall = np.array([leads[f"V{n}"][beat].max() for n in range(1, 7)])
    deep = -np.array([leads[f"V{n}"][beat].min() for n in range(1, 7)])
    assert (np.diff(tall[:4]) > 0).all() and tall[3] > 1
    assert (np.diff(deep[1:]) < 0).all() and deep[1] > 0.8
    assert tall[0] < deep[0] and tall[5] > deep[5]
    assert leads["aVR"][beat].min() < -0.5 and leads["II"][beat].max() > 0.8
    t = slice(350, 480)
    assert all(leads[name][t].max() > 0.08 for name in ("I", "II", "V2", "V3", "V4", "V5", "V6"))
    assert leads["aVR"][t].min() < -0.1


def test_qt_follows_fridericia() -> None:
    slow, fast = Heart(rhythm=Rhythm(rate=60.0)), Heart(rhythm=Rhythm(rate=120.0))
    assert slow.qt_ms() == pytest.approx(410) and fast.qt_ms() == pytest.approx(410 * 0.5 ** (1 / 3))


def test_s1q3t3_is_what_its_name_says() -> None:
    usual, marked = qrs(REST), qrs(replace(REST, s1=1.0, q3=1.0, t3=1.0))
    assert marked["I"][140:200].min() < -0.2 < usual["I"][140:200].min()
    assert marked["III"][95:125].min() < -0.15 < usual["III"][95:125].min()
    assert marked["III"][350:480].min() < -0.05 and usual["III"][350:480].max() > 0.1


def test_inverted_t_is_in_v1_to_v3_and_iii_and_not_in_v6() -> None:
    leads = qrs(replace(REST, t_inversion=1.0, t_voltage=0.75))
    t = slice(350, 480)
    assert all(leads[name][t].min() < -0.1 for name in ("V1", "V2", "V3", "III"))
    assert leads["V4"][t].min() < 0 < leads["V6"][t].max()


def test_right_bundle_branch_block_has_a_late_r_in_v1_and_a_wide_s_in_i_and_v6() -> None:
    leads = qrs(replace(REST, rbbb=1.0, rbbb_ms=140.0))
    late = slice(180, 245)
    assert leads["V1"][late].max() > 0.4 and leads["I"][late].min() < -0.15 and leads["V6"][late].min() < -0.15
    small = qrs(replace(REST, rbbb=0.55, rbbb_ms=110.0))
    assert 0.1 < small["V1"][160:215].max() < leads["V1"][late].max()


def test_first_deflection_of_qr_in_v1_is_down_and_the_last_up() -> None:
    leads = qrs(replace(REST, qr_v1=1.0))
    first = leads["V1"][95:]
    assert np.argmax(first < -0.1) < np.argmax(first > 0.1)
    usual = qrs(REST)["V1"][95:]
    assert np.argmax(usual > 0.05) < np.argmax(usual < -0.1)


def test_axis_and_rotation_turn_the_right_way() -> None:
    right = qrs(replace(REST, axis_deg=60.0))
    area = {name: right[name][90:195].sum() for name in ("I", "aVF")}
    assert area["I"] < 0 < area["aVF"]
    turned = qrs(replace(REST, turn_deg=42.0))
    assert turned["V4"][90:195].min() + turned["V4"][90:195].max() < 0  # S still outweighs R
    assert qrs(REST)["V4"][90:195].min() + qrs(REST)["V4"][90:195].max() > 0


# Machine and flaws


def test_a_quiet_recording_has_ten_seconds_in_steps_of_the_converter() -> None:
    for machine, samples in ((Machine(), 5000), (OTHER_MACHINE, 10000)):
        recording = recorded(machine=machine)
        assert recording.counts.shape == (12, samples) and recording.counts.dtype == np.int16
        assert samples == SECONDS * machine.hertz
        chest = recording.counts[6:]
        assert (chest % 2 == 0).all() and recording.lsb_mv == machine.step_uv / 2000


def spectrum(recording: Recording) -> np.ndarray:
    """Amplitude of V2, one value each 0.1 Hz."""
    signal = recording.millivolts()[7]
    return 2 * np.abs(np.fft.rfft(signal)) / len(signal)


def test_hum_sits_at_the_mains_and_a_notch_takes_it_out() -> None:
    flaws = replace(QUIET, hum_mv=0.1)
    plain = spectrum(recorded(flaws=flaws)) - spectrum(recorded())
    assert np.argmax(plain) == 500 and plain[500] > 0.004
    sixty = spectrum(recorded(machine=Machine(mains=60.0), flaws=flaws)) - spectrum(recorded())
    assert np.argmax(sixty) == 600
    notched = spectrum(recorded(machine=Machine(notch=True), flaws=flaws)) - spectrum(recorded())
    assert abs(notched[500]) < plain[500] / 10


def test_filters_do_what_they_say() -> None:
    slow, fast = replace(QUIET, wander_mv=0.2), replace(QUIET, muscle_mv=0.05)
    drift = [np.abs(spectrum(recorded(machine=Machine(high_pass=f), flaws=slow))[1:4]).sum() for f in (0.05, 0.5)]
    assert drift[1] < 0.5 * drift[0]
    muscle = [spectrum(recorded(machine=Machine(low_pass=f), flaws=fast))[800:].sum() for f in (150.0, 40.0)]
    assert muscle[1] < 0.35 * muscle[0]


def test_noise_has_the_size_that_was_asked_for() -> None:
    machine = Machine(high_pass=0.001, low_pass=249.0)
    still = recorded(Heart(rhythm=Rhythm(rate=60.0), voltage=0.0), machine=machine).millivolts()
    noisy = recorded(
        Heart(rhythm=Rhythm(rate=60.0), voltage=0.0), machine=machine, flaws=replace(QUIET, muscle_mv=0.05)
    ).millivolts()
    # A chest lead has the electrode's own noise and a third of each limb electrode's.
    sizes = (noisy - still)[6:].std(axis=1)
    assert sizes.mean() == pytest.approx(0.05 * np.sqrt(4 / 3), rel=0.15)


def test_confused_arms_turn_lead_i_over_and_leave_the_chest_alone() -> None:
    right, wrong = recorded(), recorded(flaws=replace(QUIET, swapped=("RA", "LA")))
    assert np.array_equal(right.counts[0], -wrong.counts[0])
    # The rest is rounded after the exchange, to steps of two.
    for after, before in ((1, 2), (3, 4), (5, 5), *((lead, lead) for lead in range(6, 12))):
        assert np.abs(right.counts[before].astype(int) - wrong.counts[after]).max() <= 4


def test_confused_chest_electrodes_change_places() -> None:
    right, wrong = recorded(), recorded(flaws=replace(QUIET, swapped=("V1", "V2")))
    assert np.array_equal(right.counts[[6, 7]], wrong.counts[[7, 6]])
    assert np.array_equal(right.counts[:6], wrong.counts[:6])


def test_an_electrode_that_fell_off_is_a_flat_lead_and_no_other() -> None:
    spans = np.ptp(recorded(flaws=replace(QUIET, off="V4")).counts, axis=1)
    assert spans[LEADS.index("V4")] == 0 and np.count_nonzero(spans) == 11


def test_strong_motion_reaches_the_rail_and_no_further() -> None:
    # Whatever electrode moves, some lead sees it; not each excursion reaches the rail of a chest lead.
    tops = [
        np.abs(recorded(flaws=replace(QUIET, motion_mv=9.0), seed=s).millivolts()[[0, 1, *range(6, 12)]]).max()
        for s in range(6)
    ]
    assert max(tops) == pytest.approx(RAIL_MV)
    assert recorded(flaws=replace(QUIET, pops=2)).counts.max() != recorded().counts.max()


def test_flaws_come_as_often_as_is_said() -> None:
    rng = np.random.default_rng(5)
    drawn = [draw_flaws(rng) for _ in range(4000)]
    swapped = np.mean([flaws.swapped is not None for flaws in drawn])
    assert 0.014 < swapped < 0.027
    assert 0.005 < np.mean([flaws.off is not None for flaws in drawn]) < 0.016
    assert 0.04 < np.mean([flaws.pops > 0 for flaws in drawn]) < 0.08


@pytest.mark.parametrize(
    "make",
    [
        lambda: Machine(hertz=250),
        lambda: Machine(low_pass=250.0),
        lambda: Machine(high_pass=0.0),
        lambda: Machine(step_uv=0.0),
        lambda: Flaws(off="LL"),
        lambda: Flaws(off="V7"),
        lambda: Flaws(swapped=("RA", "X")),
        lambda: Rhythm(rate=0.0),
        lambda: Rhythm(rate=70.0, atrial=0.7, ventricular=0.6),
        lambda: Heart(rhythm=Rhythm(rate=70.0), width=0.0),
        lambda: Heart(rhythm=Rhythm(rate=70.0), voltage=-1.0),
    ],
)
def test_what_cannot_be_is_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


def test_the_same_numbers_give_the_same_signal() -> None:
    flaws = draw_flaws(np.random.default_rng(9))
    assert np.array_equal(recorded(flaws=flaws, seed=4).counts, recorded(flaws=flaws, seed=4).counts)
    assert not np.array_equal(recorded(flaws=flaws, seed=4).counts, recorded(flaws=flaws, seed=5).counts)


# Files


@pytest.mark.parametrize("machine", [Machine(), OTHER_MACHINE], ids=["mV, MDC", "uV, SCPECG"])
def test_a_file_reads_back_to_the_last_bit(machine: Machine, tmp_path: Path) -> None:
    recording = recorded(machine=machine, flaws=draw_flaws(np.random.default_rng(1)))
    path = tmp_path / "ecg.dcm"
    write_ecg(path, recording, identity="one", age=64.0)
    read = pydicom.dcmread(path)
    group = read.WaveformSequence[0]
    assert np.array_equal(np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).T, recording.counts)
    per_mv = {"mV": 1.0, "uV": 1000.0}[group.ChannelDefinitionSequence[0].ChannelSensitivityUnitsSequence[0].CodeValue]
    signal = read.waveform_array(0).T / per_mv
    assert np.allclose(signal, recording.millivolts(), rtol=0, atol=1e-9)
    assert (float(group.SamplingFrequency), read.PatientAge, read.PatientID) == (machine.hertz, "064Y", "PHANTOM")


def test_the_intake_calls_it_an_ecg(tmp_path: Path) -> None:
    write_ecg(tmp_path / "ecg.dcm", recorded(), identity="one")
    (part,) = what_is_at(tmp_path / "ecg.dcm")
    assert part.kind is Kind.WAVEFORM
    assert pydicom.dcmread(tmp_path / "ecg.dcm").SOPClassUID == TwelveLeadECGWaveformStorage


def test_uids_follow_from_the_identity() -> None:
    recording = recorded()
    a, b, c = (to_dicom(recording, identity=name) for name in ("one", "one", "two"))
    assert a.SOPInstanceUID == b.SOPInstanceUID != c.SOPInstanceUID
    assert len({a.StudyInstanceUID, a.SeriesInstanceUID, a.SOPInstanceUID}) == 3


def test_a_file_has_the_structure_of_a_real_one() -> None:
    folder = os.environ.get("EDGEHEM_TEST_DATA")
    if not folder:
        pytest.skip("EDGEHEM_TEST_DATA is not set")
    real = pydicom.dcmread(Path(folder) / "ecg" / "12lead_1khz.dcm")
    ours = to_dicom(recorded(machine=OTHER_MACHINE), identity="one")
    theirs, group = real.WaveformSequence[0], ours.WaveformSequence[0]
    assert {element.keyword for element in theirs} <= {element.keyword for element in group}
    for a, b in zip(theirs.ChannelDefinitionSequence, group.ChannelDefinitionSequence, strict=True):
        assert {element.keyword for element in a} == {element.keyword for element in b}
        codes = [channel.ChannelSourceSequence[0] for channel in (a, b)]
        assert codes[0] == codes[1]
        assert a.ChannelSensitivityUnitsSequence[0] == b.ChannelSensitivityUnitsSequence[0]
    assert (theirs.NumberOfWaveformSamples, theirs.SamplingFrequency) == (group.NumberOfWaveformSamples, 1000)


def bands(millivolts: np.ndarray, hertz: int) -> np.ndarray:
    """Root mean square of the measured leads in bands from wander to muscles, uV."""
    samples = millivolts.shape[1]
    frequency = np.fft.rfftfreq(samples, 1 / hertz)
    power = np.abs(np.fft.rfft(millivolts - millivolts.mean(axis=1, keepdims=True))) ** 2 * 2 / samples**2
    edges = ((0.05, 0.5), (0.5, 5), (5, 15), (15, 40), (60, 95), (105, 145))
    measured = power[[0, 1, *range(6, 12)]]
    return 1e3 * np.sqrt([measured[:, (frequency >= a) & (frequency < b)].sum(axis=1).mean() for a, b in edges])


def test_two_real_recordings_lie_among_the_phantoms_in_every_band() -> None:
    folder = os.environ.get("EDGEHEM_TEST_DATA")
    if not folder:
        pytest.skip("EDGEHEM_TEST_DATA is not set")
    dicom = pydicom.dcmread(Path(folder) / "ecg" / "12lead_1khz.dcm").waveform_array(0).T / 1000
    wfdb = np.fromfile(Path(folder) / "ecg" / "s0010_re.dat", "<i2").reshape(-1, 12).T[:, :10_000] / 2000
    patients = PeEcg().draw(90, seed=9)
    made = [recording_of(patients, row, int(patients.seeds[row])) for row in range(90)]
    spread = np.array([bands(one.millivolts(), 500) for one in made if one.machine.low_pass == 150])
    low, high = np.percentile(spread, [1, 99], axis=0)
    for real in (dicom, wfdb):
        found = bands(real, 1000)
        assert ((found > low) & (found < high)).all(), (
            f"{np.round(found, 1)} outside {np.round(low, 1)}, {np.round(high, 1)}"
        )
