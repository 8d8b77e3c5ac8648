"""The scanner of the CT phantom: sharpness, noise, beam hardening, ranges, and repeatability."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgehem.dicom import read_study
from edgehem.errors import UsageError
from edgehem.phantom import Bleed, Protocol, draw_bleeds, make_case
from edgehem.phantom.anatomy import Anatomy, synthesise
from edgehem.phantom.beam import BONE_DENSITY, FULL_BONE_HU, GRID, back_project, expose, project
from edgehem.phantom.cases import Case, draw_optics, draw_scan
from edgehem.phantom.couch import CHANCES, SUPPORTS, Couch, Support, draw_couch
from edgehem.phantom.files import describe, write_study
from edgehem.phantom.gantry import acquire
from edgehem.phantom.head import draw_head
from edgehem.phantom.materials import FINDINGS
from edgehem.phantom.optics import KERNELS, Grain, Optics, spread
from edgehem.phantom.scan import Scan
from edgehem.phantom.shapes import F32

CELL_MM = 3.0
TINY = Protocol(slices=12, matrix=64)


def cylinder(radius_mm: float, hu: float, *, skull_mm: float = 0.0) -> F32:
    """A slice of a cylinder, with or without a ring of bone, in air: float32 [1, GRID, GRID]."""
    at = (np.arange(GRID) - (GRID - 1) / 2) * CELL_MM
    away = np.hypot(at[:, None], at[None])
    slice_ = np.where(away < radius_mm, hu, -1000.0)
    slice_[(away >= radius_mm - skull_mm) & (away < radius_mm)] = 1200.0
    return slice_[None].astype(np.float32)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return synthesise(draw_head(17, surgery=None, thrombosis=None, infarct=None), 2.0)


def scan(anatomy: Anatomy, *, noise_hu: float = 0.0, optics: Optics | None = None, tilt: float = 0.0) -> F32:
    """Four slices above the base without drift and table, float32 [4, 256, 256] HU."""
    wanted = Scan(
        seed=3, positions=(20.0, 25.0, 30.0, 35.0), thickness_mm=(5.0,) * 4, matrix=256, fov_mm=230.0, tilt_deg=tilt,
        noise_hu=noise_hu, streaks=0, drift_hu=0, intercept=0, bits=16,
    )  # fmt: skip
    seen = acquire(anatomy, anatomy.hu, {}, wanted, optics or Optics(hardening=0.0), Couch())
    return seen.volume.pixels.astype(np.float32)


# Beam


def test_projections_conserve_mass_and_are_adjoint() -> None:
    rng = np.random.default_rng(1)
    slices = np.zeros((2, GRID, GRID), np.float32)
    slices[:, 20:60, 20:60] = rng.random((2, 40, 40), np.float32)
    sums = project(slices)
    per_angle = sums.reshape(4, 2, 12, GRID).sum(axis=-1)
    np.testing.assert_allclose(
        per_angle, np.broadcast_to(slices.sum((1, 2))[None, :, None], per_angle.shape), rtol=1e-4
    )
    other = rng.random(sums.shape, np.float32)
    np.testing.assert_allclose((sums * other).sum(), (slices * back_project(other)).sum() * 48, rtol=1e-3)


def test_water_alone_shows_no_artefact() -> None:
    artefact, _ = expose(cylinder(75, 0.0), CELL_MM)
    inside = cylinder(60, 0.0)[0] > -500
    assert np.abs(artefact[0][inside]).max() < 1.5


def test_a_skull_brightens_the_brain_beside_it() -> None:
    """The rim inside the bone is brighter than the middle, by the HU that head scans are known for: some, not tens."""
    artefact, _ = expose(cylinder(75, 35.0, skull_mm=9.0), CELL_MM)
    at = (np.arange(GRID) - (GRID - 1) / 2) * CELL_MM
    away = np.hypot(at[:, None], at[None])
    rim, middle = artefact[0][(away > 54) & (away < 60)].mean(), artefact[0][away < 15].mean()
    assert 4 < rim - middle < 25


def test_between_two_dense_bones_runs_a_dark_band() -> None:
    slice_ = cylinder(75, 35.0)
    slice_[0, 38:42, 20:30] = slice_[0, 38:42, 50:60] = 1500.0
    artefact, _ = expose(slice_, CELL_MM)
    assert artefact[0, 39:41, 38:42].mean() < artefact[0, 22:26, 38:42].mean() - 5


def test_noise_is_largest_in_the_middle_and_behind_more() -> None:
    _, noise = expose(np.concatenate([cylinder(75, 35.0), cylinder(75, 35.0, skull_mm=9.0)]), CELL_MM)
    assert noise[0, 40, 40] > 1.15 * noise[0, 40, 18]
    assert noise[1, 40, 40] > 1.12 * noise[0, 40, 40]


def test_solid_bone_is_as_dense_as_bone() -> None:
    assert 1400 < FULL_BONE_HU < 2600 and pytest.approx(1.92) == BONE_DENSITY


# Kernels


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_point_spread_keeps_what_is_even(kernel: str) -> None:
    places, samples = np.linspace(-20, 20, 90, dtype=np.float32), np.arange(-60, 60, 1, dtype=np.float32)
    np.testing.assert_allclose(spread(Optics(kernel=kernel), places, samples).sum(axis=1), 1, atol=1e-4)


def test_sharper_kernels_have_steeper_edges_and_finer_noise(anatomy: Anatomy) -> None:
    slopes, centres = [], []
    for kernel in KERNELS:
        image = scan(anatomy, optics=Optics(kernel=kernel, hardening=0.0))
        slopes.append(float(np.percentile(np.abs(np.diff(image[1], axis=0)), 99.5)))
        plane = Grain(Optics(kernel=kernel), 256, 0.9).draw(np.random.default_rng(2))
        power = np.abs(np.fft.fft2(plane)) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256, 0.9), np.fft.fftfreq(256, 0.9)))
        centres.append(float((power * frequency).sum() / power.sum()))
    assert slopes == sorted(slopes) and centres == sorted(centres)


@pytest.mark.parametrize("kernel", KERNELS)
def test_noise_has_unit_variance_and_little_at_low_frequencies(kernel: str) -> None:
    rng = np.random.default_rng(4)
    planes = np.stack([Grain(Optics(kernel=kernel), 128, 0.45).draw(rng) for _ in range(20)])
    assert planes.std() == pytest.approx(1, abs=0.03)
    power = (np.abs(np.fft.fft2(planes)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128, 0.45), np.fft.fftfreq(128, 0.45)))
    low, middle = (
        power[(frequency > 0) & (frequency < 0.04)].mean(),
        power[(frequency > 0.2) & (frequency < 0.3)].mean(),
    )
    assert low < 0.6 * middle


def test_iterative_reconstruction_makes_noise_coarser() -> None:
    def centre(iterative: float) -> float:
        plane = Grain(Optics(iterative=iterative), 256, 0.45).draw(np.random.default_rng(2))
        power = np.abs(np.fft.fft2(plane)) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256, 0.45), np.fft.fftfreq(256, 0.45)))
        return float((power * frequency).sum() / power.sum())

    assert centre(0.8) < 0.9 * centre(0.0)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match="kernel"):
        Optics(kernel="velvet")
    with pytest.raises(UsageError, match="kernel"):
        Protocol(kernel="velvet")
    with pytest.raises(UsageError, match="coverage"):
        Protocol(coverage="half")


# Scans


def test_stated_noise_is_what_the_middle_of_the_head_shows(anatomy: Anatomy) -> None:
    noisy = scan(anatomy, noise_hu=4.0) - scan(anatomy, noise_hu=0.0)
    middle = noisy[:, 108:148, 108:148].std()
    assert middle == pytest.approx(4.0, rel=0.35)


def test_hardening_brightens_the_brain_beside_the_bone(anatomy: Anatomy) -> None:
    change = scan(anatomy, optics=Optics(hardening=1.0)) - scan(anatomy)
    brain = (scan(anatomy) > 15) & (scan(anatomy) < 60)
    at = (np.arange(256) - 127.5) * 230 / 256
    away = np.hypot(at[:, None], at[None])
    assert change[:, away < 15].mean() < change[brain & (away > 45)[None]].mean() - 3


def test_a_tilted_scan_shows_the_same_tissue(anatomy: Anatomy) -> None:
    straight, tilted = scan(anatomy), scan(anatomy, tilt=15.0)
    brain = [float(np.median(v[(v > 10) & (v < 60)])) for v in (straight, tilted)]
    assert brain[0] == pytest.approx(brain[1], abs=2)


@pytest.mark.parametrize(("coverage", "lost"), [("no vertex", "top"), ("no base", "bottom")])
def test_incomplete_scans_miss_one_end(coverage: str, lost: str) -> None:
    whole, cut = (
        make_case(5, protocol=replace(TINY, slices=20, coverage=name), voxel_mm=4.0) for name in ("whole", coverage)
    )
    kept = slice(0, 16) if lost == "top" else slice(4, None)
    assert cut.scan.positions == whole.scan.positions[kept]


def test_blood_that_was_not_scanned_is_not_visible() -> None:
    item = (Bleed(subtype="intraparenchymal", ml=4, site="cerebellum"),)
    case = make_case(5, bleeds=item, protocol=replace(TINY, slices=24, coverage="no base"), voxel_mm=3.0)
    assert case.visible_ml["intraparenchymal"] < 3.9 < case.ml["intraparenchymal"]


# Repeatability


def digest(case: Case) -> str:
    return hashlib.sha256(case.volume.pixels.tobytes() + case.mask.tobytes()).hexdigest()


def test_the_same_version_and_seed_give_the_same_study() -> None:
    bleeds = draw_bleeds(21)
    first, again = (make_case(21, bleeds=bleeds, protocol=TINY, voxel_mm=4.0) for _ in range(2))
    assert digest(first) == digest(again) and describe(first) == describe(again)
    assert digest(make_case(22, bleeds=bleeds, protocol=TINY, voxel_mm=4.0)) != digest(first)


def test_optics_and_heads_are_drawn_as_they_were() -> None:
    """Golden: float64 draws of NumPy's PCG64, to eight digits, are the same on every machine."""
    lines = []
    for seed in range(50):
        for drawn in (draw_head(seed), draw_optics(seed, Protocol()), *draw_bleeds(seed)):
            values = asdict(drawn).values()
            lines.append(" ".join(f"{value:.8g}" if isinstance(value, float) else str(value) for value in values))
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == GOLDEN_DRAWS


GOLDEN_DRAWS = "73d42c21f9e2e50a434b6f582c4ffe80d7e237dc94fb7f3b2977062b168c7497"
"""Of the drawn numbers: it changes only with the version."""

_OTHER_MACHINE = """
import sys, numpy as np
from edgehem.phantom import Bleed, Protocol, make_case
case = make_case(9, bleeds=(Bleed(subtype="intraparenchymal", ml=12),), protocol=Protocol(slices=12, matrix=64),
                 voxel_mm=4.0)
np.savez(sys.argv[1], pixels=case.volume.pixels, mask=case.mask)
"""


def test_another_machine_gives_the_same_image_but_for_rounding(tmp_path: pytest.TempPathFactory) -> None:
    """Without AVX-512 and with another BLAS kernel: sums in float32 differ in their last bit, a few pixels by a HU."""
    made: list[dict[str, npt.NDArray[np.generic]]] = []
    off = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    for name, variables in (("here", {}), ("there", {"NPY_DISABLE_CPU_FEATURES": off, "OPENBLAS_CORETYPE": "Haswell"})):
        path = f"{tmp_path}/{name}.npz"
        environment = {**os.environ, **variables, "PYTHONWARNINGS": "ignore"}
        subprocess.run([sys.executable, "-c", _OTHER_MACHINE, path], env=environment, check=True, capture_output=True)
        with np.load(path) as file:
            made.append({key: file[key] for key in file})
    here, there = made
    np.testing.assert_array_equal(here["mask"], there["mask"])
    apart = np.abs(here["pixels"].astype(int) - there["pixels"].astype(int))
    assert (apart > 0).mean() < 0.001 and apart.max() <= 2


def test_optics_are_drawn_from_the_seed_unless_asked_for(anatomy: Anatomy) -> None:
    kernels = {draw_optics(seed, Protocol()).kernel for seed in range(200)}
    assert kernels == set(KERNELS) - {"bone"}
    assert draw_optics(3, Protocol(kernel="bone")).kernel == "bone"
    assert draw_scan(3, anatomy, Protocol(slices=20)) == draw_scan(3, anatomy, Protocol(slices=20, kernel="bone"))


# What the head lies on


@pytest.mark.parametrize("kind", SUPPORTS)
def test_a_support_lies_behind_the_head_and_touches_no_tissue(kind: str) -> None:
    protocol = replace(TINY, slices=16, matrix=128, support=kind, noise_hu=0.0, tilt_deg=0.0)
    made = make_case(31, protocol=protocol, voxel_mm=3.0)
    plain = make_case(31, protocol=replace(protocol, support="none"), voxel_mm=3.0)
    here, there = (case.volume.pixels.astype(int) for case in (made, plain))
    apart = np.abs(here - there) > 3
    assert apart.any() == (kind != "none")
    tissue = there + made.scan.intercept > -200
    assert not (apart & tissue).any()
    if kind != "none":
        rows = np.flatnonzero(apart.any(axis=(0, 2)))
        assert rows.min() > 50, "nothing lies beside or before the face"


def test_a_sloping_table_moves_from_slice_to_slice(anatomy: Anatomy) -> None:
    offsets = (np.arange(256, dtype=np.float32) - 127.5) * np.float32(0.9)
    couch = replace(draw_couch(3, anatomy, "table"), slope=0.1, curve_per_mm=0.0)
    support = Support(couch, offsets, 0.0)
    deepest = []
    for z in (-40.0, 40.0):
        rows, over_air = support.over_air(z)
        deepest.append(float(offsets[rows][over_air[:, 128].argmax()]))
    assert deepest[1] - deepest[0] == pytest.approx(0.1 * 80, abs=1.0)


def test_supports_are_drawn_as_often_as_said(anatomy: Anatomy) -> None:
    kinds = [draw_couch(seed, anatomy).kind for seed in range(150)]
    for kind, chance in zip(SUPPORTS, CHANCES, strict=True):
        assert kinds.count(kind) / 150 == pytest.approx(chance, abs=0.12)
    with pytest.raises(UsageError, match="support"):
        Protocol(support="pillow")
    with pytest.raises(UsageError, match="noise"):
        Protocol(noise_hu=-1.0)


@pytest.mark.parametrize("seed", [101, 102, 103, 104, 105])
def test_the_intake_takes_what_is_drawn(tmp_path: Path, seed: int) -> None:
    """A demonstration that its own intake refuses would be none."""
    write_study(tmp_path / "study", seed=seed, protocol=Protocol(matrix=256, slices=24))
    assert read_study(tmp_path / "study" / "dicom").volume.pixels.shape == (24, 256, 256)


# What is labelled besides blood


def test_findings_are_labelled_where_they_are() -> None:
    wanted = {
        "infarct": "mca", "infarct_side": 1, "infarct_drop_hu": 12.0, "infarct_hours": 24.0, "lacunes": 0,
        "old_infarct": "pca", "old_infarct_side": -1, "thrombosis": "straight", "thrombosis_hu": 85.0,
    }  # fmt: skip
    protocol = Protocol(matrix=128, slices=30, tilt_deg=0.0, noise_hu=0.0)
    case = make_case(6, protocol=protocol, voxel_mm=1.5, head=wanted)
    assert case.found is not None
    named = {name for name, value in FINDINGS.items() if (case.found == value).any()}
    assert {"acute infarct", "old infarct", "thrombosed sinus"} <= named
    hu = case.volume.pixels.astype(int) + case.scan.intercept
    old, acute = (case.found == FINDINGS[name] for name in ("old infarct", "acute infarct"))
    left = np.arange(128) > 64
    assert (acute[..., left]).sum() > 0.95 * acute.sum() and (old[..., left]).sum() < 0.05 * old.sum()
    sound = make_case(6, protocol=protocol, voxel_mm=1.5, head={**wanted, "infarct": None})
    darker = (sound.volume.pixels.astype(int) - case.volume.pixels.astype(int))[acute & (hu > 5) & (hu < 60)]
    assert np.median(darker) > 5


def test_labels_move_with_the_brain() -> None:
    infarct = {
        "infarct": "aca",
        "infarct_side": 1,
        "infarct_extent": 1.0,
        "infarct_drop_hu": 9.0,
        "infarct_hours": 2.0,
    }
    protocol = Protocol(matrix=128, slices=30, tilt_deg=0.0)
    bleeds = (Bleed(subtype="subdural", ml=90, site="parietal", side=1),)
    still, pushed = (make_case(6, protocol=protocol, voxel_mm=2.0, head=infarct, bleeds=b) for b in ((), bleeds))
    assert still.found is not None and pushed.found is not None
    middle = [float((np.flatnonzero(c.found == 1) % 128).mean()) for c in (still, pushed) if c.found is not None]
    assert pushed.midline_shift_mm < -2 and middle[1] < middle[0] - 0.5


def test_a_head_without_findings_has_no_labels() -> None:
    calcium = ("choroid", "pineal", "basal_ganglia", "falx", "tentorium", "dentate", "carotid", "mca")
    nothing = dict.fromkeys((f"{name}_hu" for name in calcium), 0.0)
    rest = {"infarct": None, "old_infarct": None, "lacunes": 0, "thrombosis": None, "surgery": None}
    assert make_case(6, protocol=TINY, voxel_mm=4.0, head={**nothing, **rest}).found is None


def test_swelling_can_be_set_apart_from_age() -> None:
    with pytest.raises(UsageError, match="infarct_swelling"):
        draw_head(1, infarct_swelling=1.4)
    with pytest.raises(UsageError, match="finite"):
        draw_head(1, grey_hu=float("nan"))
    acute = {"infarct": "mca", "infarct_drop_hu": 8.0, "infarct_hours": 2.0, "sulcus_mm": 2.0}
    flat, swollen = (synthesise(draw_head(4, infarct_swelling=share, **acute), 3.0).tissue for share in (None, 1.0))
    assert (swollen.fluid > 0.5).sum() < (flat.fluid > 0.5).sum()
