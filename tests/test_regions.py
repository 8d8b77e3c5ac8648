"""The table of regions: what every anatomy has, and that it is what the atlas says."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from edgehem.errors import UsageError
from edgehem.regions import TABLE, load_regions

MAKE = Path(__file__).resolve().parent.parent / "docs" / "make_regions.py"
REGIONS = load_regions()


def test_about_twenty_regions_and_every_roi_in_one_of_them() -> None:
    assert len(REGIONS) == 21
    assert len(set(REGIONS.names)) == 21
    assert sorted(roi for region in REGIONS.regions for roi in region.rois) == list(range(1, 32))
    assert REGIONS.licence == "Apache-2.0" and "blast-ct" in REGIONS.source


def test_values_are_in_range() -> None:
    assert (np.abs(REGIONS.centroids()) < 1).all()
    for region in REGIONS.regions:
        share, extent = np.array(region.extent_share), np.array(region.extent_mm)
        assert ((share > 0) & (share <= 1)).all()
        assert share == pytest.approx(extent / np.array(REGIONS.brain_mm), abs=1e-4)
        assert 5 < region.volume_ml < extent.prod() / 1000
    assert 1000 < REGIONS.volumes().sum() < 2200


def test_left_is_positive_and_mirrors_right() -> None:
    centroids, volumes, contact = REGIONS.centroids(), REGIONS.volumes(), REGIONS.contact()
    mirror = [REGIONS.index(region.mirror) for region in REGIONS.regions]
    assert (centroids[REGIONS.is_side("left"), 0] > 0.05).all()
    assert (centroids[REGIONS.is_side("right"), 0] < -0.05).all()
    assert np.abs(centroids[REGIONS.is_side("midline"), 0]).max() < 0.03
    assert np.abs(centroids[mirror] * [-1, 1, 1] - centroids).max() < 0.06
    assert np.abs(np.log(volumes[mirror] / volumes)).max() < 0.1
    large = contact > 500
    ratio = contact[np.ix_(mirror, mirror)][large] / contact[large]
    assert ratio.min() > 0.6 and ratio.max() < 1 / 0.6


def test_places_are_those_of_anatomy() -> None:
    at = dict(zip(REGIONS.names, REGIONS.centroids(), strict=True))
    assert at["left_frontal"][1] < at["left_parietal"][1] < at["left_occipital"][1]
    assert at["brainstem"][2] < at["left_thalamus"][2] < at["left_parietal"][2]
    assert at["left_insula"][0] > at["left_lentiform"][0] > at["left_thalamus"][0]


def test_adjacency_is_symmetric_and_connected() -> None:
    contact, adjacency = REGIONS.contact(), REGIONS.adjacency()
    assert (contact == contact.T).all() and (np.diag(contact) == 0).all() and (contact >= 0).all()
    assert adjacency == pytest.approx(adjacency.T)
    assert np.abs(np.linalg.eigvalsh(adjacency)).max() == pytest.approx(1)
    reached = np.linalg.matrix_power(np.eye(len(REGIONS)) + (contact > 0), len(REGIONS)) > 0
    assert reached.all()


def test_neighbours_are_those_of_anatomy() -> None:
    contact = REGIONS.contact()
    for a, b in (("ventricles", "left_thalamus"), ("ventricles", "right_caudate"), ("brainstem", "left_cerebellum")):
        assert contact[REGIONS.index(a), REGIONS.index(b)] > 1000
    for a, b in (("left_frontal", "left_cerebellum"), ("left_occipital", "right_frontal")):
        assert contact[REGIONS.index(a), REGIONS.index(b)] == 0
    distances = REGIONS.distances()
    assert 30 < distances[REGIONS.index("left_thalamus"), REGIONS.index("right_thalamus")] < 40


def test_unknown_region_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no region is called 'left_liver'"):
        REGIONS.index("left_liver")


@pytest.mark.skipif("EDGEHEM_TEST_DATA" not in os.environ, reason="EDGEHEM_TEST_DATA is not set: no atlas")
def test_the_table_is_what_the_command_makes() -> None:
    pytest.importorskip("nibabel")
    spec = importlib.util.spec_from_file_location("make_regions", MAKE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.render(module.measure(Path(os.environ["EDGEHEM_TEST_DATA"]) / "atlas"))
    assert made == TABLE.read_text(encoding="utf-8")
