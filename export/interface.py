"""What a network reads and answers: what a bundle must know of it, and its weights cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import torch

from edgehem.bundle import INPUT_KINDS, REQUIRED_KINDS, Evidence, StageBudget
from edgehem.errors import UsageError
from edgehem.export import checkpoint, factory, parity
from edgehem.export.graph import interface as ports_of
from edgehem.export.graph import take_onnx
from edgehem.export.models.hemorrhagenet import LABELS, HemorrhageNet
from edgehem.export.to_onnx import export_onnx
from edgehem.preprocess import CANONICAL, PreprocessSpec

INTENDED_USE = (
    "Triage of non-contrast adult head CT for intracranial hemorrhage, in parallel to the standard of care. "
    "Not a medical device; for research and integration."
)
LARGEST_BYTES = 2**20


class Interface(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is needed besides the weights, as a JSON file for a network of one's own.

    Parameters
    ----------
    system : str
    intended_use : str
    architecture : str
        For the model card.
    preprocess : PreprocessSpec
        The grid, and the windows on it.
    inputs : dict of kind to str
        ``image`` [N, Z, C, Y, X] and, if the network reads it, ``valid`` [N, Z], to the graph's names. A module gets
        them in this order.
    outputs : tuple of str
        All that the network returns, in order.
    head : str
        The output with the logits [N, labels].
    labels : tuple of str
        The first decides; the others are conditional on it.
    evidence : Evidence, optional
        Outputs that say where the answer came from.
    budgets : dict of stage to StageBudget
        What stages may take on the device it is meant for; what overran is said in the result.
    """

    system: str
    intended_use: str = INTENDED_USE
    architecture: str = ""
    preprocess: PreprocessSpec = CANONICAL
    inputs: dict[str, str]
    outputs: tuple[str, ...]
    head: str
    labels: tuple[str, ...]
    evidence: Evidence | None = None
    budgets: dict[str, StageBudget] = {}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Graph input to its shape without the batch, in the order that a module takes them."""
        planes, rows, columns = self.preprocess.shape
        known = {"image": (planes, len(self.preprocess.windows), rows, columns), "valid": (planes,)}
        return {name: known[kind] for kind, name in self.inputs.items()}

    def draw(self) -> parity.Draw:
        """Inputs to compare with: noise in 0..1, and the first planes not scanned, another number each."""
        shapes, valid = self.shapes(), self.inputs.get("valid")

        def drawn(rng: np.random.Generator, batch: int) -> dict[str, npt.NDArray[Any]]:
            values = {name: rng.random((batch, *shape), np.float32) for name, shape in shapes.items()}
            if valid is not None:
                values[valid] = np.ones((batch, *shapes[valid]), np.float32)
                for number, row in enumerate(values[valid]):
                    row[: (5 + 3 * number) % len(row)] = 0
            return values

        return drawn


HEMORRHAGENET = Interface(
    system="hemorrhagenet",
    architecture=(
        "2.5D slice encoder (plain convolutions, ReLU, channel shift between neighbouring slices) with attention over "
        "slices: our own compact design for the imaging path of HemorrhageNet (Mao & Wang, Front Neurol 2026, "
        "10.3389/fneur.2026.1725732), whose layer sizes, code and weights are not public."
    ),
    inputs={"image": "image", "valid": "valid"},
    outputs=("logits", "attention", "slice_logits", "blood_map"),
    head="logits",
    labels=LABELS,
    evidence=Evidence(attention="attention", blood_map="blood_map"),
    # Two CPU cores, warm, uncompressed; 40 slices: 350 ms in all. ONNX Runtime alone may take longer to infer.
    budgets={
        "read": StageBudget(ms=20, per_slice_ms=0.8),
        "select": StageBudget(ms=10, per_slice_ms=0.3),
        "decode": StageBudget(ms=20, per_slice_ms=1.2),
        "preprocess": StageBudget(ms=60, per_slice_ms=0.2),
        "infer": StageBudget(ms=200),
        "decide": StageBudget(ms=20, per_slice_ms=0.1),
        "total": StageBudget(ms=250, per_slice_ms=2.5),
    },
)
SYSTEMS = {HEMORRHAGENET.system: HEMORRHAGENET}


def read(path: Path) -> Interface:
    """An interface from a JSON file.

    Raises
    ------
    UsageError
        If it cannot be read, or does not describe a network that the runtime could run.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise UsageError(f"{path.name} is too large to describe a network")
        found = msgspec.json.decode(path.read_bytes(), type=Interface)
        found.preprocess.check()
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError(f"{path.name} does not describe a network: {error}") from error
    if unknown := sorted(set(found.inputs) - INPUT_KINDS):
        raise UsageError(f"{path.name} names inputs of unknown kind {', '.join(unknown)}; known: image, valid")
    if missing := sorted(REQUIRED_KINDS - set(found.inputs)):
        raise UsageError(f"{path.name} names no input for {', '.join(missing)}")
    wanted = {found.head, *(() if found.evidence is None else (found.evidence.attention, found.evidence.blood_map))}
    if lacking := sorted(wanted - set(found.outputs)):
        raise UsageError(f"{path.name} uses {', '.join(lacking)}, which is none of the outputs")
    if not found.labels or len(set(found.labels)) < len(found.labels):
        raise UsageError(f"{path.name} needs labels, each once")
    return found


def float_graph(
    source: Path,
    interface: Interface,
    out: Path,
    *,
    target: str | None = None,
    arguments: dict[str, Any] | None = None,
    folder: Path | None = None,
    weights: str | None = None,
    prefix: str | None = None,
) -> dict[str, Any]:
    """The float stage: a checkpoint, or a ready ONNX, to the bundle's float graph, held against what it came from.

    Parameters
    ----------
    source : Path
        A checkpoint (:mod:`edgehem.export.checkpoint`), or ``.onnx``.
    interface : Interface
    out : Path
        ``.onnx``.
    target, arguments, folder
        For a network of one's own: :func:`edgehem.export.factory.build`.
    weights, prefix : str, optional
        See :mod:`edgehem.export.checkpoint`.

    Returns
    -------
    dict
        The stage's record.

    Raises
    ------
    UsageError
        If the source cannot be read, does not fit the network, or the graph does not fit the interface.
    BudgetError
        If the graph answers otherwise than the network, or otherwise when it is optimised or batched.
    """
    if source.suffix == ".onnx":
        record = take_onnx(source, out, system=interface.system)
        _refuse_other(out, interface)
        data, draw = out.read_bytes(), interface.draw()
        record["optimised"] = parity.as_record(parity.between_optimisations(data, draw, batches=(1,)))
        record["batches"] = parity.as_record(parity.across_batches(data, draw, batch=2))
        return record
    if target is not None:
        network = factory.build(target, arguments, folder=folder)
    elif interface.system == HEMORRHAGENET.system:
        spec = interface.preprocess
        network = HemorrhageNet(slices=spec.shape[0], channels=len(spec.windows))
    else:
        raise UsageError("a checkpoint of a network of your own needs --factory package.module:factory")
    loaded = checkpoint.load(network, checkpoint.read(source, weights=weights), prefix=prefix, called=interface.system)
    drawn = interface.draw()(np.random.default_rng(0), 2)
    record = export_onnx(
        network,
        {name: torch.from_numpy(drawn[name]) for name in interface.shapes()},
        out,
        outputs=interface.outputs,
        system=interface.system,
        draw=interface.draw(),
    )
    _refuse_other(out, interface)
    return {**record, "checkpoint": loaded}


def _refuse_other(graph: Path, interface: Interface) -> None:
    """Make sure that a graph reads and answers what the interface says; it is removed if not."""
    model = onnx.load(graph)
    ports = ports_of(model)
    wanted = set(interface.inputs.values())
    problem = ""
    if set(ports["inputs"]) != wanted:
        problem = f"reads {', '.join(ports['inputs'])}, not {', '.join(sorted(wanted))}"
    elif lacking := set(interface.outputs) - set(ports["outputs"]):
        problem = f"has no output {', '.join(sorted(lacking))}"
    else:
        for value in model.graph.input:
            sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            shape = interface.shapes().get(value.name, ())
            if len(sizes) != len(shape) + 1 or any(s not in (0, w) for s, w in zip(sizes[1:], shape, strict=True)):
                problem = f"reads {value.name} of shape {sizes}, not [N, {', '.join(map(str, shape))}]"
    if problem:
        graph.unlink()
        raise UsageError(f"the graph does not fit its interface: it {problem}")
