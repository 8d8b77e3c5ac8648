"""Write edgehem/regions.json from the atlas of blast-ct: ``python docs/make_regions.py ATLAS_DIR`` (needs nibabel).

ATLAS_DIR holds ``atlas_template_space.nii.gz``, ``atlas_labels.csv`` and ``ct_template_mask.nii.gz`` as they are in
github.com/biomedia-mira/blast-ct (Apache-2.0). A test holds the shipped table to what this makes.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = Path(__file__).resolve().parent.parent / "edgehem" / "regions.json"
PAIRED = {
    "frontal": ("lobe", ("FrontalLobe-inferior-orbital", "FrontalLobe-lateral", "FrontalLobe-medial")),
    "parietal": ("lobe", ("ParietalLobe",)),
    "temporal": ("lobe", ("TemporalLobe", "Hippocampus")),
    "occipital": ("lobe", ("OccipitalLobe",)),
    "insula": ("lobe", ("Insula",)),
    "lentiform": ("deep", ("Basalganglia-lentiform-nucleus", "BasalGanglia-lentiform-nucleus")),
    "caudate": ("deep", ("Caudate", "BasalGanglia", "BasalForebrain")),
    "thalamus": ("deep", ("ThalamusProper",)),
    "cerebellum": ("infratentorial", ("Cerebellum",)),
}
"""Name: kind and ROIs of each side. The grouping is ours. The atlas spells the lentiform nucleus in two ways; its small
"BasalGanglia" lies below the head of the caudate nucleus, and goes with it as the basal forebrain does."""
MIDLINE = {
    "vermis": ("infratentorial", ("Cerebellum",)),
    "brainstem": ("infratentorial", ("BrainStem",)),
    "ventricles": ("ventricle", ("Ventricle",)),
}
"""The atlas has one ROI for all ventricles; its midline "Cerebellum" is the vermis."""


def groups(rois: dict[str, int]) -> list[dict[str, Any]]:
    """Name, side, kind and ROI numbers of every region."""
    out = [
        {
            "name": f"{side}_{name}",
            "side": side,
            "kind": kind,
            "rois": sorted(rois[side.title() + part] for part in parts if side.title() + part in rois),
        }
        for side in ("left", "right")
        for name, (kind, parts) in PAIRED.items()
    ]
    return out + [
        {"name": name, "side": "midline", "kind": kind, "rois": sorted(rois[part] for part in parts)}
        for name, (kind, parts) in MIDLINE.items()
    ]


def contacts(regions: npt.NDArray[np.int64], count: int, areas: list[float]) -> npt.NDArray[np.float64]:
    """Area of the voxel faces between each two regions: [R, R] mm2; regions are numbered from 1."""
    out = np.zeros((count + 1, count + 1))
    for axis, area in enumerate(areas):
        along = np.moveaxis(regions, axis, 0)
        pairs = along[:-1].ravel() * (count + 1) + along[1:].ravel()
        out += area * np.bincount(pairs, minlength=(count + 1) ** 2).reshape(count + 1, count + 1)
    out = out[1:, 1:] + out[1:, 1:].T
    np.fill_diagonal(out, 0)
    return out


def measure(atlas: Path) -> dict[str, Any]:
    """The table: what is measured in the atlas inside its brain mask."""
    import nibabel

    image: Any = nibabel.loadsave.load(atlas / "atlas_template_space.nii.gz")
    mask: Any = nibabel.loadsave.load(atlas / "ct_template_mask.nii.gz")
    if nibabel.orientations.aff2axcodes(image.affine) != ("R", "A", "S"):
        raise SystemExit("the atlas is not stored right, anterior, superior")
    with (atlas / "atlas_labels.csv").open(encoding="utf-8", newline="") as file:
        rois = {row["ROIName"]: int(row["ROIIndex"]) for row in csv.DictReader(file)}
    named = groups(rois)
    number = np.zeros(max(rois.values()) + 1, np.int64)
    for place, region in enumerate(named, start=1):
        number[region["rois"]] = place
    brain = np.asarray(mask.dataobj) > 0
    # [L, P, S]: the first two axes turned round. Labels outside of the mask are those of the nearest brain.
    regions = np.where(brain, number[np.asarray(image.dataobj).astype(np.int64)], 0)[::-1, ::-1]
    brain = brain[::-1, ::-1]
    spacing = np.abs(np.diag(image.affine)[:3])  # [L, P, S] mm
    spots = np.argwhere(brain)
    low, high = spots.min(0), spots.max(0) + 1
    for place, region in enumerate(named, start=1):
        spots = np.argwhere(regions == place)
        extent = spots.max(0) + 1 - spots.min(0)
        centroid = 2 * (spots.mean(0) + 0.5 - low) / (high - low) - 1
        region["volume_ml"] = round(float(len(spots) * spacing.prod() / 1000), 3)
        region["centroid"] = [round(float(value), 4) for value in centroid]
        region["extent_mm"] = [round(float(value), 1) for value in extent * spacing]
        region["extent_share"] = [round(float(value), 4) for value in extent / (high - low)]
    faces = [float(spacing.prod() / side) for side in spacing]
    return {
        "source": "atlas_template_space.nii.gz of github.com/biomedia-mira/blast-ct, grouped by docs/make_regions.py",
        "licence": "Apache-2.0",
        "brain_mm": [round(float(value), 1) for value in (high - low) * spacing],
        "regions": named,
        "contact_mm2": [[round(float(v), 1) for v in row] for row in contacts(regions, len(named), faces)],
    }


def render(table: dict[str, Any]) -> str:
    """JSON with a region a line."""
    lines = [f'  "{key}": {json.dumps(table[key])},' for key in ("source", "licence", "brain_mm")]
    for key in ("regions", "contact_mm2"):
        lines += [f'  "{key}": [', ",\n".join(f"    {json.dumps(row)}" for row in table[key]), "  ],"]
    lines[-1] = "  ]"
    return "{\n" + "\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python docs/make_regions.py ATLAS_DIR")
    PAGE.write_text(render(measure(Path(sys.argv[1]))), encoding="utf-8")
