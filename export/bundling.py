"""Writing bundles: manifest, hashes, records and model card, each whole or not at all."""

from __future__ import annotations

import hashlib
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgehem.bundle import MANIFEST, SCHEMA, Bundle, Graph, Head, Manifest, check_names, contents
from edgehem.durable import remove, sync, sync_folder, write_whole
from edgehem.export.evaluate import spell_figure
from edgehem.signature import SIGNATURE

if TYPE_CHECKING:
    from edgehem.export.interface import Interface  # it needs torch, and a manifest does not

CARD = "MODEL_CARD.md"
CARD_WIDTH = 116


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut; see :mod:`edgehem.durable`."""
    write_whole(path, data)


def write_record(folder: Path, name: str, record: dict[str, Any]) -> None:
    """Write a stage's record into a bundle."""
    write_atomic(folder / "records" / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())


def graph_entry(folder: Path, file: str, precision: str, form: str) -> Graph:
    """A graph's line in the manifest."""
    data = (folder / file).read_bytes()
    return Graph(precision=precision, form=form, file=file, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def new_manifest(
    interface: Interface,
    *,
    name: str,
    version: str,
    graph: Graph,
    head: Head,
    demonstration: bool,
    provenance: dict[str, Any],
) -> Manifest:
    """The manifest of a bundle with its float graph."""
    return Manifest(
        schema=SCHEMA,
        name=name,
        version=version,
        system=interface.system,
        intended_use=interface.intended_use,
        demonstration=demonstration,
        preprocess=interface.preprocess,
        inputs=interface.inputs,
        graphs=(graph,),
        default_precision={"onnxruntime": "fp32"},
        heads=(head,),
        evidence=interface.evidence,
        budgets=interface.budgets,
        provenance={**provenance, "architecture": interface.architecture},
    )


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write the model card and the manifest with the hashes of all other files, and open the result.

    The manifest comes last, once everything it names is on the disk: a process that is killed leaves the old manifest,
    beside files that it names or refuses, or the new one. A signature goes first, since it is of the old manifest.

    Raises
    ------
    BundleError
        If a file's name cannot be in a bundle, or what was written does not verify.
    """
    graphs = {graph.file for graph in manifest.graphs}
    names = {CARD, *contents(folder)} - {MANIFEST, SIGNATURE} - graphs
    check_names([*graphs, *names])  # before anything is changed
    remove(folder / SIGNATURE)
    write_atomic(folder / CARD, model_card(manifest).encode())
    others = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(names)}
    for name in (*graphs, *others):
        sync(folder / name)
    for place in {(folder / name).parent for name in (*graphs, *others)}:
        sync_folder(place)
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
    if architecture := manifest.provenance.get("architecture"):
        lines += [*textwrap.wrap(f"Architecture: {architecture}", CARD_WIDTH), ""]
    lines += [
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
    lines += [*_tensorrt(manifest)]
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


def _tensorrt(manifest: Manifest) -> list[str]:
    """Whether the bundle may be called ready for TensorRT."""
    found = manifest.provenance.get("tensorrt")
    if not found:
        return []
    if found["ready"]:
        files = ", ".join(f"`{file}`" for file in found["graphs"])
        return [
            f"TensorRT: {files} pass edgehem's {found['rules']} readiness rules. No TensorRT runtime has built them.",
            "",
        ]
    failed = "; ".join(
        f"`{file}`: {', '.join(each['errors'])}" for file, each in found["graphs"].items() if each["errors"]
    )
    return [f"**Not ready for TensorRT**: {failed}.", ""]


def _where_rules_come_from(manifest: Manifest) -> str:
    if "calibration" not in manifest.provenance:
        return "Not calibrated: the probabilities are the network's own, and every threshold is one half."
    return (
        'The operating point of "any" is the 98th percentile of calibration studies without hemorrhage, kept between '
        f"0.50 and 0.98; the conformal bounds allow {manifest.heads[0].conformal_error:.0%} wrong exclusions per label "
        "and class."
    )
