"""Writing bundles: manifest, hashes, records and model card, each whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec

from edgehem.bundle import MANIFEST, SCHEMA, Bundle, Evidence, Graph, Head, Manifest
from edgehem.export.evaluate import spell_figure
from edgehem.preprocess import PreprocessSpec

CARD = "MODEL_CARD.md"
INTENDED_USE = (
    "Triage of non-contrast adult head CT for intracranial hemorrhage, in parallel to the standard of care. "
    "Not a medical device; for research and integration."
)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    os.replace(temporary, path)  # noqa: PTH105 - atomic by contract


def write_record(folder: Path, name: str, record: dict[str, Any]) -> None:
    """Write a stage's record into a bundle."""
    write_atomic(folder / "records" / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())


def graph_entry(folder: Path, file: str, precision: str, form: str) -> Graph:
    """A graph's line in the manifest."""
    data = (folder / file).read_bytes()
    return Graph(precision=precision, form=form, file=file, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def new_manifest(
    *,
    name: str,
    version: str,
    graph: Graph,
    head: Head,
    spec: PreprocessSpec,
    demonstration: bool,
    provenance: dict[str, Any],
) -> Manifest:
    """The manifest of a HemorrhageNet bundle with its float graph."""
    return Manifest(
        schema=SCHEMA,
        name=name,
        version=version,
        system="hemorrhagenet",
        intended_use=INTENDED_USE,
        demonstration=demonstration,
        preprocess=spec,
        inputs={"image": "image", "valid": "valid"},
        graphs=(graph,),
        default_precision={"onnxruntime": "fp32"},
        heads=(head,),
        evidence=Evidence(attention="attention", blood_map="blood_map"),
        provenance=provenance,
    )


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write the model card and the manifest with the hashes of all other files, and open the result.

    Raises
    ------
    BundleError
        If what was written does not verify.
    """
    write_atomic(folder / CARD, model_card(manifest).encode())
    graphs = {graph.file for graph in manifest.graphs}
    others = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and (name := path.relative_to(folder).as_posix()) not in graphs
    }
    complete = msgspec.structs.replace(manifest, files=others)
    write_atomic(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(complete), indent=1) + b"\n")
    bundle = Bundle(folder)
    bundle.verify()
    return bundle


def model_card(manifest: Manifest) -> str:
    """MODEL_CARD.md: what the model is, what it was trained on, how it did, what it must not be used for."""
    spec, head = manifest.preprocess, manifest.heads[0]
    lines = [f"# {manifest.name} {manifest.version}", "", manifest.intended_use, ""]
    if manifest.demonstration:
        lines += [
            "**Demonstration.** Trained on synthetic phantoms only. It proves that the software works; it says nothing",
            "about any patient, and no figure below is evidence of clinical accuracy.",
            "",
        ]
    lines += [
        "Architecture: 2.5D slice encoder (plain convolutions, ReLU, channel shift between neighbouring slices) with",
        "attention over slices: our own compact design for the imaging path of HemorrhageNet (Mao & Wang, Front Neurol",
        "2026, 10.3389/fneur.2026.1725732), whose layer sizes, code and weights are not public.",
        "",
        f"Input: {spec.shape[0]} planes of {spec.shape[1]} × {spec.shape[2]} pixels, "
        f"{' × '.join(f'{mm:g}' for mm in spec.spacing_mm)} mm, LPS, hung from the vertex; windows (level/width): "
        + ", ".join(f"{level:g}/{width:g}" for level, width in spec.windows)
        + " HU.",
        "",
        "| label | positive from | present from | absent until |",
        "|---|---|---|---|",
        *(f"| {r.label} | {r.threshold:.3f} | {r.present_from:.3f} | {r.absent_until:.3f} |" for r in head.rules),
        "",
        _where_rules_come_from(manifest),
        "",
        "| graph | form | MB |",
        "|---|---|---|",
        *(f"| {g.precision} | {g.form} | {g.bytes / 1e6:.2f} |" for g in manifest.graphs),
        "",
    ]
    held_out = manifest.metrics.get("held_out")
    if held_out:
        lines += [
            f"Held-out studies ({held_out['source']}, {held_out['studies']}, {held_out['bleeding']} with hemorrhage):",
            "",
        ]
        lines += ["| precision | AUC any (95 % interval) | sensitivity | specificity |", "|---|---|---|---|"]
        for precision, f in held_out["precisions"].items():
            cells = [spell_figure(f["auc"]["any"]), spell_figure(f["sensitivity"]), spell_figure(f["specificity"])]
            lines.append(f"| {' | '.join([precision, *cells])} |")
        lines.append("")
    lines.append("`records/` holds a record of every stage that made this bundle.")
    return "\n".join(lines) + "\n"


def _where_rules_come_from(manifest: Manifest) -> str:
    if "calibration" not in manifest.provenance:
        return "Not calibrated: the probabilities are the network's own, and every threshold is one half."
    return (
        'The operating point of "any" is the 98th percentile of calibration studies without hemorrhage, kept between '
        f"0.50 and 0.98; the conformal bounds allow {manifest.heads[0].conformal_error:.0%} wrong exclusions per label "
        "and class."
    )
