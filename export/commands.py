"""What ``edgehem train``, ``export``, ``quantize`` and ``evaluate`` do: each stage writes its artefact and a record."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.bundle import MANIFEST, Bundle, Head, LabelRule, find
from edgehem.errors import BudgetError, UsageError
from edgehem.export import bundling
from edgehem.export import evaluate as judging
from edgehem.export.calibrate import fit_rules
from edgehem.export.progress import say
from edgehem.export.quantize import network_input
from edgehem.export.quantize import quantize as quantize_graph
from edgehem.export.samples import Cache
from edgehem.export.sources import open_source
from edgehem.export.to_onnx import load_checkpoint, to_onnx
from edgehem.export.train import REFINE, Settings
from edgehem.export.train import train as train_network
from edgehem.machine import usable_cpus
from edgehem.phantom.cases import LABELS
from edgehem.preprocess import CANONICAL, PreprocessSpec

SYSTEMS = ("hemorrhagenet",)
BUNDLE_VERSION = "0.1.0"
FLIP_BUDGET, SHIFT_BUDGET = 0.01, 0.1
"""INT8 against FP32 on labelled studies: share of decisions of "any" that may flip, worst shift of its probability."""


def train(
    system: str, *, data: str, out: Path, minutes: float | None = None, seed: int = 0, initial: Path | None = None
) -> None:
    """Train a system; see ``edgehem train --help``."""
    _check_system(system)
    model = load_checkpoint(initial, CANONICAL) if initial else None
    settings = replace(REFINE if initial else Settings(), seed=seed)
    cache = open_source(data, out.with_suffix(".cache"), split="train", workers=usable_cpus())
    record = train_network(cache, out, settings, minutes=minutes, initial=model)
    if initial:
        record["refined_from"] = _training_record(initial)
        bundling.write_atomic(out.with_suffix(".json"), json.dumps(record, indent=1).encode())
    say(f"{out}: {record['steps']} steps on {record['samples']} studies in {record['seconds']:.0f} s")


def export(
    checkpoint: Path, *, system: str, out: Path, calibration: str | None = None, trained_on: str | None = None
) -> None:
    """Make a bundle of a checkpoint; see ``edgehem export --help``."""
    _check_system(system)
    if (out / MANIFEST).exists():
        raise UsageError(f"{out} is a bundle already; remove it or choose another folder")
    demonstration = _is_demonstration(checkpoint, trained_on)
    spec = CANONICAL
    model = load_checkpoint(checkpoint, spec)
    record = to_onnx(model, spec, out / "fp32.onnx")
    bundling.write_record(out, "export", record)
    say(f"fp32.onnx: {record['nodes']} nodes, worst difference from torch {max(record['parity'].values()):.1e}")
    head, provenance = _plain_head(), _provenance(checkpoint, out)
    if calibration:
        cache = _calibration_cache(calibration, out)
        logits = cached_logits(out / "fp32.onnx", cache, spec)
        head = fit_rules(logits.astype(np.float64), cache.labels)
        provenance["calibration"] = cache.record
        bundling.write_record(out, "calibration", {"data": cache.record, "rules": msgspec.to_builtins(head.rules)})
    else:
        say("no --calibration: probabilities are the network's own, and the operating point is 0.5")
    manifest = bundling.new_manifest(
        name=out.resolve().name,
        version=BUNDLE_VERSION,
        graph=bundling.graph_entry(out, "fp32.onnx", "fp32", "float"),
        head=head,
        spec=spec,
        demonstration=demonstration,
        provenance=provenance,
    )
    bundling.write_manifest(out, manifest)
    say(f"{out}: bundle written")


def quantize(bundle: Path, *, calibration: str, held_out: str | None = None) -> None:
    """Add an INT8 graph to a bundle; see ``edgehem quantize --help``."""
    opened = Bundle(bundle)
    spec = opened.manifest.preprocess
    opened.verify()
    cache = _calibration_cache(calibration, bundle)
    record = quantize_graph(bundle / opened.graph("fp32").file, bundle / "int8.onnx", cache, spec)
    record["data"] = cache.record
    record["latency_ms"] = compare_latency(bundle, cache, spec)
    fastest = min(record["latency_ms"], key=lambda precision: record["latency_ms"][precision])
    bundling.write_record(bundle, "quantization", record)
    graphs = [g for g in opened.manifest.graphs if g.precision != "int8"]
    manifest = msgspec.structs.replace(
        opened.manifest,
        graphs=(*graphs, bundling.graph_entry(bundle, "int8.onnx", "int8", "qdq-s8")),
        default_precision={"onnxruntime": "fp32"},
        metrics={},  # those of the graph that was replaced
    )
    (bundle / "records" / "held_out.json").unlink(missing_ok=True)
    bundling.write_manifest(bundle, manifest)
    times = ", ".join(f"{precision} {ms:.0f} ms" for precision, ms in record["latency_ms"].items())
    say(f"int8.onnx: {record['convolutions']} convolutions quantised; ONNX Runtime here: {times}")
    if not held_out:
        say("no --evaluate: ONNX Runtime serves fp32 until INT8 was judged")
        return
    say(evaluate(bundle, held_out, record=True))
    judged = Bundle(bundle).manifest
    bundling.write_manifest(bundle, msgspec.structs.replace(judged, default_precision={"onnxruntime": fastest}))
    say(f"ONNX Runtime will serve {fastest}, the faster one here")


def evaluate(bundle: str | Path, data: str, *, record: bool = False) -> str:
    """Judge a bundle on held-out studies through the whole runtime; see ``edgehem evaluate --help``.

    Returns
    -------
    str
        The figures.

    Raises
    ------
    BudgetError
        If INT8 leaves its budget against FP32; the figures are in the message, and recorded.
    """
    opened = find(bundle)
    precisions = [graph.precision for graph in opened.manifest.graphs]
    summary = {"source": data, **judging.summarise(judging.judge(opened.folder, data, precisions))}
    if record:
        bundling.write_record(opened.folder, "held_out", summary)
        metrics = {**opened.manifest.metrics, "held_out": summary}
        bundling.write_manifest(opened.folder, msgspec.structs.replace(opened.manifest, metrics=metrics))
    figures = judging.render(summary)
    against = summary["precisions"].get("int8", {}).get("against_fp32")
    if against and (against["flip_rate"] > FLIP_BUDGET or against["worst_shift"] > SHIFT_BUDGET):
        raise BudgetError(
            f"{figures}\nINT8 leaves its budget: at most {FLIP_BUDGET:.0%} of decisions may flip, and no probability "
            f"may shift by more than {SHIFT_BUDGET}"
        )
    return figures


def cached_logits(graph: Path, cache: Cache, spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    """A graph's logits of every cached study, float32 [N, labels]."""
    session = OnnxRuntimeSession(graph.read_bytes())
    return np.concatenate([session.run(network_input(cache, index, spec))["logits"] for index in range(len(cache))])


def compare_latency(bundle: Path, cache: Cache, spec: PreprocessSpec, rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of each graph in ONNX Runtime on this machine, interleaved on the same inputs."""
    sessions = {name: OnnxRuntimeSession((bundle / f"{name}.onnx").read_bytes()) for name in ("fp32", "int8")}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds + 2):
        inputs = network_input(cache, number % len(cache), spec)
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(inputs)
            if number >= 2:  # the first two warm up
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: round(float(np.median(values)), 2) for name, values in times.items()}


def _check_system(system: str) -> None:
    if system not in SYSTEMS:
        raise UsageError(f"unknown system {system!r}; known: {', '.join(SYSTEMS)}")


def _plain_head() -> Head:
    """Rules without calibration."""
    rules = tuple(LabelRule(label=label) for label in LABELS)
    return Head(name="hemorrhage", kind="hierarchical-binary", output="logits", rules=rules)


def _provenance(checkpoint: Path, out: Path) -> dict[str, Any]:
    """Where the weights came from: the checkpoint's hash, and the training record where there is one."""
    provenance: dict[str, Any] = {"checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
    if training := _training_record(checkpoint):
        bundling.write_record(out, "training", training)
        provenance["training"] = {
            key: training[key] for key in ("data", "samples", "steps", "torch") if key in training
        }
    return provenance


def _training_record(checkpoint: Path) -> dict[str, Any]:
    """The record ``edgehem train`` wrote beside a checkpoint; empty where there is none."""
    path = checkpoint.with_suffix(".json")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return record


def _calibration_cache(source: str, bundle: Path) -> Cache:
    """Calibration studies; phantoms are kept beside the bundle, as two commands ask for them."""
    return open_source(source, bundle.parent / f".{bundle.name}.calibration", split="validation", workers=usable_cpus())


def _is_demonstration(checkpoint: Path, trained_on: str | None) -> bool:
    """Whether every output must say that the weights come from phantoms. Nothing is assumed where nothing is known.

    Raises
    ------
    UsageError
        If neither the caller nor the training record says what the weights were trained on.
    """
    runs, record = [], _training_record(checkpoint)
    while record:
        runs.append(str(record.get("data", {}).get("source", "")).startswith("phantom"))
        record = record.get("refined_from", {})
    if runs and all(runs):
        return True
    if trained_on is None:
        raise UsageError("say what the weights were trained on: --trained-on patients, or --trained-on phantoms")
    return trained_on == "phantoms"
