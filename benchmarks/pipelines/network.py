"""The network that all pipelines run: HemorrhageNet with seeded weights, for torch, as a bundle, and as NNCF's INT8.

Not trained: what is compared is time, and that all compute the same. BatchNorms get the statistics of phantom heads,
so that activations are those of a network that sees heads, and answers differ from one head to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem import backends, device
from edgehem.benchmarks import networks
from edgehem.benchmarks.peers import nncf
from edgehem.benchmarks.pipelines.contender import Choice
from edgehem.bundle import Bundle, Head, LabelRule
from edgehem.errors import EdgehemError
from edgehem.phantom import Bleed, Protocol, make_case
from edgehem.preprocess import CANONICAL, fill, place

HEADS, VOXEL_MM = 6, 3.0
"""That INT8's ranges are taken from, and how coarse they are: a second each."""
SETTLED_ON = 2
CALIBRATION_SEED = 900
"""Of the first head; those that are measured come from seeds below."""
SHIFT = 0.5
"""Bias of the BatchNorms; see :data:`edgehem.benchmarks.networks.SHIFT`."""
AUTO = "auto"
CPU_ENGINES = ("onnxruntime", "openvino")

Inputs = dict[str, npt.NDArray[Any]]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Made:
    """The network in every form.

    Parameters
    ----------
    bundle : Bundle
    weights : Path
        A state dict.
    graph : str
        File of the float graph in the bundle.
    outputs : tuple of str
        In the order torch returns them.
    choices : mapping of str to Choice
        What edgehem serves: ``auto``, and what each engine would with itself alone.
    nncf : Path or None
    no_nncf : str
        Why there is none.
    about : dict
        For the result, plain values.
    """

    bundle: Bundle
    weights: Path
    graph: str
    outputs: tuple[str, ...]
    choices: Mapping[str, Choice]
    nncf: Path | None = None
    no_nncf: str = ""
    about: dict[str, Any] = field(default_factory=dict)


def make(folder: Path, *, seed: int, rounds: int, say: Say = lambda line: None) -> Made:
    """Draw, export, quantise, and choose as ``edgehem compile`` does.

    Parameters
    ----------
    folder : Path
        Empty; everything is written there.
    seed : int
        Of the weights.
    rounds : int
        How often candidates are timed before one is chosen.
    say : callable
        Gets a line for each step.

    Raises
    ------
    MissingExtraError
        Without the toolchain.
    EdgehemError
        If a stage leaves its budget.
    """
    networks.check_extra()
    import torch

    from edgehem.export import bundling
    from edgehem.export.compile import compile_bundle
    from edgehem.export.interface import HEMORRHAGENET, float_graph
    from edgehem.export.models.hemorrhagenet import LABELS, HemorrhageNet

    say("drawing heads and weights")
    heads = [_head(CALIBRATION_SEED + i) for i in range(HEADS)]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = HemorrhageNet(slices=CANONICAL.shape[0], channels=len(CANONICAL.windows)).eval()
    seen = {
        name: torch.from_numpy(np.concatenate([inputs[name] for inputs in heads[:SETTLED_ON]])) for name in heads[0]
    }
    networks.settle(network, seen["image"], seen["valid"], shift=SHIFT)
    weights = folder / "weights.pt"
    torch.save(network.state_dict(), weights)
    say("exporting")
    place_of = folder / "bundle"
    place_of.mkdir()
    file = "fp32.onnx"
    record = float_graph(weights, HEMORRHAGENET, place_of / file)
    say("quantising")
    graphs, int8 = [bundling.graph_entry(place_of, file, "fp32", "float")], {}
    try:
        int8 = _quantise(place_of / file, heads)
        graphs += [bundling.graph_entry(place_of, name, "int8", form) for name, form in FILES.items()]
    except EdgehemError as error:  # the float graph is compared all the same
        int8 = {"why_none": str(error)}
    rules = tuple(LabelRule(label=label) for label in LABELS)
    manifest = bundling.new_manifest(
        HEMORRHAGENET,
        name="pipelines",
        version="0",
        graph=graphs[0],
        head=Head(name="hemorrhage", kind="hierarchical-binary", output=HEMORRHAGENET.head, rules=rules),
        demonstration=True,
        provenance={},
    )
    import msgspec

    bundle = bundling.write_manifest(place_of, msgspec.structs.replace(manifest, graphs=tuple(graphs)))
    say("quantising with NNCF")
    peer = folder / "nncf"
    shipped = (place_of / file).read_bytes()
    no_nncf = nncf.prepare(place_of / file, shipped, heads, peer, batch=1)
    engines = [engine for engine in backends.engines() if engine.name in CPU_ENGINES]
    found = compile_bundle(
        bundle, engines=engines, rounds=rounds, keep=False, say=lambda line: say(f"choosing: {line}")
    )
    return Made(
        bundle=bundle,
        weights=weights,
        graph=file,
        outputs=HEMORRHAGENET.outputs,
        choices=choices(found),
        nncf=None if no_nncf else nncf.place(peer, shipped),
        no_nncf=no_nncf,
        about={
            "network": "HemorrhageNet",
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "weights": "random",
            "seed": seed,
            "batch_norm_bias": SHIFT,
            "parity": record["parity"],
            "int8": int8,
            "absent": found.absent,
            "candidates": [
                {
                    "engine": each.engine, "graph": each.graph, "arithmetic": each.arithmetic, "ms": each.median_ms,
                    "passed_over": each.passed_over,
                }
                for each in found.candidates
            ],
        },
    )  # fmt: skip


def choices(record: device.Record) -> dict[str, Choice]:
    """What ``auto`` serves after a measurement, and what it would with each engine alone."""
    found = {AUTO: _choice(record.choice)}
    for engine in dict.fromkeys(each.engine for each in record.candidates):
        own = [each for each in record.candidates if each.engine == engine]
        if (index := device.pick(own)) is not None:
            found[engine] = _choice(own[index])
    return found


def _choice(each: device.Candidate) -> Choice:
    return Choice(engine=each.engine, graph=each.graph, arithmetic=each.arithmetic, form=each.form)


FILES = {"int8.onnx": "qdq-s8", "int8_u8.onnx": "qdq-u8"}


def _quantise(graph: Path, heads: list[Inputs]) -> dict[str, Any]:
    """Both INT8 graphs by one plain recipe, no layer put back: there are no labels to search by."""
    import onnx

    from edgehem.export.int8.judge import Judge
    from edgehem.export.int8.search import Recipe, Search, run_all

    model = onnx.load(graph)
    recipe = Recipe(method="minmax")
    search = Search(model, calibration=heads, selection=heads[:1], judge=Judge(run_all(model, heads[:1])))
    for file, form in FILES.items():
        quantised = search.build(recipe, search.layers, unsigned=form == "qdq-u8")
        (graph.parent / file).write_bytes(quantised.SerializeToString())
    return {"recipe": recipe.words, "layers": len(search.layers), "left_float": len(search.left)}


def _head(seed: int) -> Inputs:
    """A phantom head as the network reads it; every other one bleeds."""
    bleeds = (Bleed(subtype="intraparenchymal", ml=30.0),) if seed % 2 else ()
    case = make_case(seed, bleeds=bleeds, protocol=Protocol(slices=32, matrix=256), voxel_mm=VOXEL_MM)
    placed = place(case.volume, CANONICAL)
    return {"image": np.asarray(fill(case.volume, placed, CANONICAL)), "valid": placed.valid}
