"""Tables, masks and phantoms become the same samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgehem.errors import UsageError
from edgehem.export.samples import PRESENT_MM2, UNKNOWN, Sample, build_cache, sample
from edgehem.export.sources import open_source, phantom_source, read_mask, read_table, rows_of_split
from edgehem.phantom import Bleed, Case, Protocol, make_case
from edgehem.phantom.bleeds import SUBTYPES
from edgehem.phantom.files import write_case, write_nifti

ML = 25.0


@pytest.fixture(scope="module")
def case() -> Case:
    protocol = Protocol(slices=28, matrix=128, tilt_deg=12.0, variable_spacing=False)
    bleeds = (Bleed(subtype="intraparenchymal", ml=ML, site="frontal lobe"),)
    return make_case(4, bleeds=bleeds, protocol=protocol, voxel_mm=2.0)


def test_a_sample_keeps_the_volume_of_blood(case: Case) -> None:
    """The mask goes through the same resampler as the image: its volume survives tilt and thick slices."""
    item = sample(case.volume, case.labels, case.mask, group=3)
    column = SUBTYPES.index("intraparenchymal")
    assert item.area_mm2[:, column].sum() * 4.5 / 1000 == pytest.approx(ML, rel=0.08)
    assert set(np.flatnonzero(item.area_mm2.any(axis=0))) == {column}
    assert item.blood.sum() / 255 * 16 * 4.5 / 1000 == pytest.approx(ML, rel=0.08)
    assert item.labels.tolist() == [1, 0, 1, 0, 0, 0]
    assert item.mapped and item.group == 3


def test_blood_lies_where_the_image_is_dense(case: Case) -> None:
    item = sample(case.volume, case.labels, case.mask, group=0)
    plane = int(item.area_mm2.sum(axis=1).argmax())
    assert item.area_mm2[plane].sum() > PRESENT_MM2
    cells = item.hu[plane].reshape(56, 4, 56, 4).mean(axis=(1, 3))
    assert cells[item.blood[plane] > 250].mean() > 50
    assert 20 < np.median(cells[(item.blood[plane] == 0) & (cells > 0) & (cells < 100)]) < 45


def test_without_a_mask_nothing_is_claimed_about_place(case: Case) -> None:
    item = sample(case.volume, {"any": 1}, None, group=0)
    assert not item.mapped and not item.blood.any() and not item.area_mm2.any()
    assert item.labels.tolist() == [1, *[UNKNOWN] * 5]


def test_a_mask_is_read_as_it_was_written(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    write_nifti(tmp_path / "mask.nii.gz", case.mask, case.volume)
    assert np.array_equal(read_mask(tmp_path / "mask.nii.gz", case.volume), case.mask)


def test_a_mask_of_other_values_is_refused(case: Case, tmp_path: Path) -> None:
    """255 is what many tools write for "yes"; it names no subtype."""
    pytest.importorskip("nibabel")
    write_nifti(tmp_path / "mask.nii.gz", np.where(case.mask > 0, 255, 0).astype(np.uint8), case.volume)
    with pytest.raises(UsageError, match="5 subdural"):
        read_mask(tmp_path / "mask.nii.gz", case.volume)


def test_a_mask_written_upside_down_is_turned_round(case: Case, tmp_path: Path) -> None:
    """Converters flip rows and say so in the affine; a mask must not end up mirrored."""
    nibabel = pytest.importorskip("nibabel")
    write_nifti(tmp_path / "mask.nii.gz", case.mask, case.volume)
    image = nibabel.load(tmp_path / "mask.nii.gz")
    flipped = image.affine.copy()
    flipped[:3, 3] += flipped[:3, 1] * (image.shape[1] - 1)
    flipped[:3, 1] *= -1
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[:, ::-1], flipped), tmp_path / "flipped.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "flipped.nii.gz", case.volume), case.mask)


def test_a_mask_on_another_grid_is_refused(case: Case, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    turned = np.diag([1.0, 1.0, 1.0, 1.0])[[1, 0, 2, 3]]
    nibabel.save(nibabel.Nifti1Image(case.mask.transpose(2, 1, 0).copy(), turned), tmp_path / "turned.nii.gz")
    with pytest.raises(UsageError, match="another grid"):
        read_mask(tmp_path / "turned.nii.gz", case.volume)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "small.nii.gz")
    with pytest.raises(UsageError, match="the series"):
        read_mask(tmp_path / "small.nii.gz", case.volume)
    with pytest.raises(UsageError, match="does not exist"):
        read_mask(tmp_path / "none.nii.gz", case.volume)


def test_splits_keep_training_and_judgement_apart(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("patient_id,ct,any,split\na,a,1,train\nb,b,0,test\nc,c,0,train\n", encoding="utf-8")
    assert [row.patient_id for row in rows_of_split(table, "train")] == ["a", "c"]
    assert [row.patient_id for row in rows_of_split(table, "test")] == ["b"]
    assert len(rows_of_split(table, None)) == 3
    with pytest.raises(UsageError, match="validation"):
        rows_of_split(table, "validation")
    table.write_text("patient_id,ct,any\na,a,1\nb,b,0\n", encoding="utf-8")
    assert len(rows_of_split(table, "test")) == 2


def test_a_table_of_studies_on_disk_becomes_samples(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user's own path: folders and masks relative to the table; what cannot be read is named and left out."""
    pytest.importorskip("nibabel")
    write_case(case, tmp_path / "p1")
    (tmp_path / "p2").mkdir()
    table = tmp_path / "table.csv"
    table.write_text("patient_id,ct,mask,any\np1,p1/dicom,p1/mask.nii.gz,1\np2,p2,,0\n", encoding="utf-8")
    cache = open_source(str(table), tmp_path / "unused", split="train")
    assert len(cache) == 1 and not (tmp_path / "unused").exists()
    direct = sample(case.volume, case.labels, case.mask, group=0)
    # Decimal strings round positions in the tenth digit, so equal only to a fraction of a pixel.
    assert np.allclose(cache.area_mm2[0], direct.area_mm2, atol=0.5)
    assert np.abs(cache.hu[0] - direct.hu.astype(int)).mean() < 0.01
    assert cache.labels[0].tolist() == [1, *[UNKNOWN] * 5]
    assert "line 3 left out: NO_DICOM" in capsys.readouterr().err


def test_a_build_that_fails_leaves_nothing(case: Case, tmp_path: Path) -> None:
    def samples() -> Iterator[Sample]:
        yield sample(case.volume, case.labels, case.mask, group=0)
        raise UsageError("row 2: the mask does not fit")

    with pytest.raises(UsageError, match="row 2"):
        build_cache(tmp_path / "cache", samples(), 2, record={})
    assert list(tmp_path.iterdir()) == []


def test_a_cache_gives_back_what_went_in(case: Case, tmp_path: Path) -> None:
    items = [sample(case.volume, case.labels, case.mask, group=g) for g in (0, 1)]
    cache = build_cache(tmp_path / "cache", items, 5, record={"source": "test"})
    assert len(cache) == 2
    assert np.array_equal(cache.hu[1], items[1].hu)
    assert np.array_equal(cache.blood[0], items[0].blood)
    assert cache.group.tolist() == [0, 1]


def test_an_empty_cache_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no study"):
        build_cache(tmp_path / "cache", [], 3, record={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient_id,ct\na,b\n", "no column 'any'"),
        ("patient_id,ct,any\na,b,2\n", "line 2: column 'any' must be 0, 1 or empty"),
        ("patient_id,ct,any\na,,1\n", "line 2: no path"),
        ("patient_id,ct,any\n", "no rows"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_table(table)


def test_a_table_resolves_paths_and_unknowns(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "patient_id,ct,mask,any,subdural,split\np1,a/dicom,,1,,train\np2,b,m.nii.gz,0,0,\n", encoding="utf-8"
    )
    first, second = read_table(table)
    assert first.ct == tmp_path / "a/dicom" and first.mask is None and first.split == "train"
    assert first.labels["any"] == 1 and first.labels["subdural"] == UNKNOWN and first.labels["epidural"] == UNKNOWN
    assert second.mask == tmp_path / "m.nii.gz" and second.labels["subdural"] == 0


@pytest.mark.parametrize("source", ["phantoms:", "phantoms:x:1", "phantoms:0:1", "phantom-heads:5", "phantoms:5:-1"])
def test_a_malformed_phantom_source_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="COUNT:SEED"):
        open_source(source, tmp_path / "cache")


def test_sources_are_told_apart() -> None:
    assert phantom_source("phantoms:200:3") == ("phantoms", 200, 3)
    assert phantom_source("phantom-heads:5:1") == ("phantom-heads", 5, 1)
    assert phantom_source("table.csv") is None
