"""What ``edgehem train``, ``export``, ``quantize`` and ``evaluate`` do: each stage writes its artefact and a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from edgehem.backends.onnxruntime import OnnxRuntime, OnnxRuntimeSession
from edgehem.bundle import MANIFEST, Bundle, Graph, Head, LabelRule, Manifest, find
from edgehem.errors import BudgetError, UsageError
from edgehem.export import bundling
from edgehem.export import evaluate as judging
from edgehem.export.calibrate import fit_rules
from edgehem.export.factory import arguments_of
from edgehem.export.graph import take_onnx
from edgehem.export.half_search import DRAWN, run_exactly, write_half
from edgehem.export.int8.judge import Budget, Judge
from edgehem.export.int8.search import run_all
from edgehem.export.interface import SYSTEMS, Interface, float_graph
from edgehem.export.interface import read as read_interface
from edgehem.export.progress import say
from edgehem.export.quantize import HALF as INT8_HALF
from edgehem.export.quantize import SELECTED, Studies, drawn_from, quantize_file
from edgehem.export.quantize import quantize as quantize_graph
from edgehem.export.readiness import readiness
from edgehem.export.samples import Cache
from edgehem.export.sources import open_source
from edgehem.export.to_onnx import load_checkpoint
from edgehem.export.train import REFINE, Settings
from edgehem.export.train import train as train_network
from edgehem.machine import usable_cpus
from edgehem.preprocess import CANONICAL
from edgehem.signing import sign_bundle

FLOAT, HALF = "fp32.onnx", "fp16.onnx"
BUNDLE_VERSION = "0.1.0"
INT8_BUDGET = Budget()
"""INT8 against FP32 on labelled studies."""


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
    source: Path,
    *,
    out: Path,
    system: str | None = None,
    interface: Path | None = None,
    target: str | None = None,
    arguments: Sequence[str] = (),
    look_here: bool = False,
    weights: str | None = None,
    prefix: str | None = None,
    calibration: str | None = None,
    trained_on: str | None = None,
    int8: bool = False,
    half: bool = True,
    held_out: str | None = None,
    key: Path | None = None,
) -> None:
    """Make a bundle of a checkpoint or an ONNX; see ``edgehem export --help``."""
    described = _described(system, interface)
    if (out / MANIFEST).exists():
        raise UsageError(f"{out} is a bundle already; remove it or choose another folder")
    if int8 and not calibration:
        raise UsageError("--int8 needs --calibration: studies to take ranges from, and to choose by")
    demonstration = _is_demonstration(source, trained_on)
    record = float_graph(
        source,
        described,
        out / FLOAT,
        target=target,
        arguments=arguments_of(arguments),
        folder=Path.cwd() if look_here else None,
        weights=weights,
        prefix=prefix,
    )
    bundling.write_record(out, "export", record)
    worst = f", worst difference from torch {max(record['parity'].values()):.1e}" if "parity" in record else ""
    say(f"{FLOAT}: {record['nodes']} nodes{worst}")
    head, provenance = _plain_head(described), _provenance(source, out)
    cache: Cache | None = None
    if calibration:
        cache = _calibration_cache(calibration, out)
        logits = cached_logits(out / FLOAT, cache, described)
        head = fit_rules(logits.astype(np.float64), cache.labels, output=described.head)
        provenance["calibration"] = cache.record
        bundling.write_record(out, "calibration", {"data": cache.record, "rules": msgspec.to_builtins(head.rules)})
    else:
        say("no --calibration: probabilities are the network's own, and the operating point is 0.5")
    graph = bundling.graph_entry(out, FLOAT, "fp32", "float")
    manifest = bundling.new_manifest(
        described,
        name=out.resolve().name,
        version=BUNDLE_VERSION,
        graph=graph,
        head=head,
        demonstration=demonstration,
        provenance={**provenance, "tensorrt": readiness(out, [graph])},
    )
    bundling.write_manifest(out, manifest)
    say(f"{out}: bundle written")
    if half:
        _halve(out, described, cache)
    if int8 and calibration:
        quantize(out, calibration=calibration, held_out=held_out, half=half)
    if key is not None:
        say(sign_bundle(out, key))


def _described(system: str | None, interface: Path | None) -> Interface:
    """What is known of the network: a system of ours by name, or the user's description."""
    if interface is not None:
        return read_interface(interface)
    if system is None:
        raise UsageError(f"name a system ({', '.join(SYSTEMS)}), or describe the network: --interface FILE.json")
    _check_system(system)
    return SYSTEMS[system]


def _halve(bundle: Path, described: Interface, cache: Cache | None) -> None:
    """Add the float16 graph, judged on calibration studies or on drawn inputs; where it fails its budget, say so."""
    manifest = Bundle(bundle).manifest
    model = onnx.load(bundle / FLOAT)
    if cache is None:
        rng = np.random.default_rng(0)
        drawn = [described.draw()(rng, 1) for _ in range(DRAWN)]
        judge, draw = Judge(run_exactly(model, drawn)), described.draw()
        feed: Sequence[Mapping[str, npt.NDArray[Any]]] = drawn
    else:
        which = np.arange(len(cache))[:SELECTED]
        feed = studies = Studies(cache=cache, spec=described.preprocess, inputs=described.inputs, which=which)
        judge = Judge(run_all(model, studies), head=manifest.heads[0], labels=cache.labels[which, 0])
        draw = drawn_from(studies)
    try:
        record = write_half(
            bundle / FLOAT,
            bundle / HALF,
            form="float16",
            inputs=(described.inputs["image"],),
            feed=feed,
            judge=judge,
            draw=draw,
            system=described.system,
            say=say,
        )
    except (BudgetError, UsageError) as error:
        bundling.write_record(bundle, "fp16", {"form": "float16", "left_out": str(error)})
        bundling.write_manifest(bundle, manifest)
        say(f"no {HALF}: {error}")
        return
    bundling.write_record(bundle, "fp16", record)
    _write_graphs(bundle, manifest, (*manifest.graphs, bundling.graph_entry(bundle, HALF, "fp16", "float16")))
    left = len(record["wide"]) + len(record["put_back"])
    say(f"{HALF}: {record['operators']} operators in float16, {left} kept in float32")


def _write_graphs(bundle: Path, manifest: Manifest, graphs: Sequence[Graph]) -> None:
    """The manifest with other graphs; whether TensorRT takes them is looked at anew, and old figures are dropped."""
    changed = msgspec.structs.replace(
        manifest,
        graphs=tuple(graphs),
        provenance={**manifest.provenance, "tensorrt": readiness(bundle, graphs)},
        metrics={},
    )
    (bundle / "records" / "held_out.json").unlink(missing_ok=True)
    bundling.write_manifest(bundle, changed)


def quantize(
    bundle: Path,
    *,
    calibration: str,
    held_out: str | None = None,
    max_drop: float | None = None,
    seed: int = 0,
    half: bool = True,
) -> None:
    """Add INT8 graphs to a bundle; see ``edgehem quantize --help``."""
    opened = Bundle(bundle)
    manifest, source = opened.manifest, opened.graph("fp32")
    opened.read(source)  # the rest may be what an interrupted run left, and is written anew
    budget = INT8_BUDGET if max_drop is None else replace(INT8_BUDGET, auc_drop=max_drop)
    cache = _calibration_cache(calibration, bundle)
    record = quantize_graph(
        bundle / source.file,
        bundle,
        cache,
        manifest.preprocess,
        manifest.heads[0],
        inputs=manifest.inputs,
        system=manifest.system,
        budget=budget,
        seed=seed,
        half=half,
        say=say,
    )
    beside = record.pop("half", None)
    if INT8_HALF not in record["graphs"]:
        (bundle / INT8_HALF).unlink(missing_ok=True)  # of an earlier run: it is a variant of another graph
    (bundle / "records" / "int8_f16.json").unlink(missing_ok=True)
    if beside is not None:
        bundling.write_record(bundle, "int8_f16", beside)
    record["data"] = cache.record
    bundling.write_record(bundle, "quantization", record)
    added = [bundling.graph_entry(bundle, file, "int8", written["form"]) for file, written in record["graphs"].items()]
    _write_graphs(bundle, manifest, (*(graph for graph in manifest.graphs if graph.precision != "int8"), *added))
    layers = record["layers"]
    say(
        f"{', '.join(record['graphs'])}: {len(layers['quantised'])} layers in INT8, {len(layers['kept_float'])} kept "
        f"in float, {len(layers['reverted'])} put back for the budget"
    )
    say("each engine serves float until it was measured: edgehem compile")
    if held_out:
        say(evaluate(bundle, held_out, record=True))


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
    # What only GPU engines take is judged where there is one: by edgehem compile.
    served = [graph for graph in opened.manifest.graphs if graph.form in OnnxRuntime.forms]
    precisions = list(dict.fromkeys(graph.precision for graph in served))
    summary = {"source": data, **judging.summarise(judging.judge(opened.folder, data, precisions))}
    if record:
        bundling.write_record(opened.folder, "held_out", summary)
        metrics = {**opened.manifest.metrics, "held_out": summary}
        bundling.write_manifest(opened.folder, msgspec.structs.replace(opened.manifest, metrics=metrics))
    figures = judging.render(summary)
    against = summary["precisions"].get("int8", {}).get("against_fp32")
    if against and (against["flip_rate"] > INT8_BUDGET.flips or against["worst_shift"] > INT8_BUDGET.shift):
        raise BudgetError(
            f"{figures}\nINT8 leaves its budget: at most {INT8_BUDGET.flips:.0%} of decisions may flip, and no "
            f"probability may shift by more than {INT8_BUDGET.shift}"
        )
    return figures


def quantize_onnx(
    source: Path,
    *,
    data: Path,
    out: Path,
    kinds: Sequence[str] = ("Conv",),
    least_db: float | None = None,
    seed: int = 0,
) -> None:
    """Quantise any ONNX on any inputs; see ``edgehem quantize --help``."""
    budget = INT8_BUDGET if least_db is None else replace(INT8_BUDGET, sqnr_db=least_db)
    out.mkdir(parents=True, exist_ok=True)
    taken = take_onnx(source, out / FLOAT, system=source.stem)
    record = quantize_file(out / FLOAT, out, data, system=source.stem, kinds=kinds, budget=budget, seed=seed, say=say)
    bundling.write_record(out, "export", taken)
    bundling.write_record(out, "quantization", record)
    figures = record["figures"]
    say(
        f"{', '.join(record['graphs'])}: {figures['worst_sqnr_db']} dB on the worst output, "
        f"{figures['worst_study_db']} dB on the worst of {figures['studies']} inputs"
    )


def cached_logits(graph: Path, cache: Cache, described: Interface) -> npt.NDArray[np.float32]:
    """A graph's logits of every cached study, float32 [N, labels]."""
    session = OnnxRuntimeSession(graph.read_bytes())
    studies = Studies(cache=cache, spec=described.preprocess, inputs=described.inputs, which=np.arange(len(cache)))
    return np.concatenate([session.run(inputs)[described.head] for inputs in studies])


def _check_system(system: str) -> None:
    if system not in SYSTEMS:
        raise UsageError(f"unknown system {system!r}; known: {', '.join(SYSTEMS)}")


def _plain_head(described: Interface) -> Head:
    """Rules without calibration."""
    rules = tuple(LabelRule(label=label) for label in described.labels)
    return Head(name="hemorrhage", kind="hierarchical-binary", output=described.head, rules=rules)


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
