"""A float32 graph, plain or with Q/DQ pairs, written in float16: for engines that take their precision from the graph.

Every operator computes in float16 unless it cannot, or is told to stay *wide*, in float32; Cast stands between the two.
Which operators should stay wide is decided by measurement (:mod:`edgehem.export.half_search`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference, version_converter

from edgehem.errors import UsageError
from edgehem.export.graph import named, opset

HALF, WIDE = TensorProto.FLOAT16, TensorProto.FLOAT
TOP, SMALLEST = float(np.finfo(np.float16).max), float(np.finfo(np.float16).smallest_normal)
"""65504, and 6.1e-5: what is smaller loses digits, and is zero below 6e-8."""
CLOSE = 2.0**-10
"""A stored tensor may move by this share of its norm, two roundings, when it becomes float16; a scale of Q/DQ, each."""
QDQ_OPSET = 19
"""The first whose QuantizeLinear and DequantizeLinear take scales of float16."""
PAIR = ("QuantizeLinear", "DequantizeLinear")
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")
"""Attributes that say what type comes out."""


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that can be converted: functions inlined, constants stored, nodes named, every type known.

    Names of nodes are those that :func:`halved` and its callers use; a graph with Q/DQ is raised to
    :data:`QDQ_OPSET` if it is older.

    Raises
    ------
    UsageError
        If ONNX finds the graph wrong, or cannot raise it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        if copy.functions:
            copy = inliner.inline_local_functions(copy)
        if opset(copy) < QDQ_OPSET and any(node.op_type in PAIR for node in copy.graph.node):
            copy = version_converter.convert_version(copy, QDQ_OPSET)
        _store_constants(copy.graph)
        named(copy)
        return shape_inference.infer_shapes(copy, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # the converter's, inference's and protobuf's share no base but Exception
        reason = str(error).strip().partition("\n")[0][:300]
        raise UsageError(f"the graph cannot be written in float16: {reason}") from error


def forced(model: onnx.ModelProto) -> dict[str, str]:
    """Nodes of a :func:`prepared` graph that have to stay wide whatever is measured, by name, and why.

    Those with a graph inside, which are computed as a whole; those that ONNX does not define in float16; and those that
    read a stored tensor that float16 cannot hold: beyond 65504, as some masks are, or so small that it loses digits.
    """
    wiring = _Wiring(model)
    found = {}
    for node in model.graph.node:
        slots = wiring.slots(node)
        if reason := wiring.obstacle(node):
            found[node.name] = reason
        elif slots.floats and not slots.halves:
            found[node.name] = f"{node.op_type} is not defined in float16"
        else:
            for name in slots.halves:
                if name in wiring.stored and (reason := _misfit(wiring.stored[name], scale=node.op_type in PAIR)):
                    found[node.name] = f"{name} {reason}"
    return found


def halved(model: onnx.ModelProto, *, inputs: Collection[str] = (), wide: Collection[str] = ()) -> onnx.ModelProto:
    """Write a graph in float16.

    Parameters
    ----------
    model : onnx.ModelProto
        :func:`prepared`; not changed.
    inputs : collection of str
        Inputs that become float16. All others, and all outputs, stay as they are.
    wide : collection of str
        Nodes that stay float32, beside those that are :func:`forced` to.

    Returns
    -------
    onnx.ModelProto
        In topological order; the same for the same graph, byte by byte.

    Raises
    ------
    UsageError
        If `inputs` or `wide` name what the graph has not, or an input that is not float32 or is also an output.
    """
    wiring = _Wiring(model)
    ends = {value.name for value in model.graph.output}
    known = {value.name for value in model.graph.input if wiring.types.get(value.name) == WIDE} - ends
    if unknown := sorted(set(inputs) - known):
        raise UsageError(f"the graph has no float32 input {', '.join(unknown)} that could be float16")
    if unknown := sorted(set(wide) - {node.name for node in model.graph.node}):
        raise UsageError(f"the graph has no node {', '.join(unknown)}")
    return _Writer(wiring, frozenset(inputs), frozenset(wide) | forced(model).keys()).write()


@dataclass(frozen=True, kw_only=True)
class _Slots:
    """Positions of a node's float32 tensors, and those of them that ONNX also defines in float16."""

    inputs: dict[int, bool]
    outputs: dict[int, bool]
    names: tuple[tuple[str, bool], ...]

    @property
    def floats(self) -> list[str]:
        return [name for name, _ in self.names]

    @property
    def halves(self) -> list[str]:
        return [name for name, half in self.names if half]


class _Wiring:
    """What is known of a prepared graph's tensors and operators."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph, self.version = model, model.graph, opset(model)
        self.stored = {tensor.name: tensor for tensor in self.graph.initializer}
        self.types = {name: tensor.data_type for name, tensor in self.stored.items()}
        for value in (*self.graph.value_info, *self.graph.input, *self.graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type  # 0 for what is no tensor

    def obstacle(self, node: onnx.NodeProto) -> str:
        """Why a node stays float32 as a whole; empty if it need not."""
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            return "it holds a graph of its own"
        if self._schema(node) is None:
            return f"{node.domain}.{node.op_type} is no operator of standard ONNX"
        if any(not self.types.get(name) for name in (*node.input, *node.output) if name):
            return "it reads or makes something that is no tensor"
        makes = any(self.types.get(name) == WIDE for name in node.output)
        reads = any(self.types.get(name) == WIDE for name in node.input)
        if makes and not reads and node.op_type not in ("Cast", "ConstantOfShape"):
            return f"{node.op_type} makes its numbers in float32"
        return ""

    def slots(self, node: onnx.NodeProto) -> _Slots:
        """Where a node's float32 tensors are."""
        schema = self._schema(node)
        formal = (schema.inputs, schema.outputs) if schema is not None else ((), ())
        sides: list[dict[int, bool]] = []
        names: list[tuple[str, bool]] = []
        for tensors, parameters in zip((node.input, node.output), formal, strict=True):
            side = {}
            for index, name in enumerate(tensors):
                if self.types.get(name) == WIDE:
                    # The last parameter stands for all that follow: Concat has one.
                    takes = parameters and "tensor(float16)" in parameters[min(index, len(parameters) - 1)].types
                    side[index] = bool(takes)
                    names.append((name, bool(takes)))
            sides.append(side)
        return _Slots(inputs=sides[0], outputs=sides[1], names=tuple(names))

    def _schema(self, node: onnx.NodeProto) -> onnx.defs.OpSchema | None:
        try:
            return onnx.defs.get_schema(node.op_type, self.version, node.domain)
        except Exception:  # onnx.defs.SchemaError, which some versions do not export
            return None


@dataclass
class _Writer:
    """Writes the float16 graph, node by node in the order of the float32 one."""

    wiring: _Wiring
    inputs: frozenset[str]
    wide: frozenset[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    stored: dict[str, onnx.TensorProto] = field(default_factory=dict)
    native: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Tensor to the type it was made in, and its name in that type."""
    given: dict[tuple[str, int], str] = field(default_factory=dict)
    """Names of tensors in the types that were asked for."""

    def write(self) -> onnx.ModelProto:
        graph = self.wiring.graph
        self.taken = {*self.wiring.types, *(name for node in graph.node for name in (*node.input, *node.output))}
        self.labels = {node.name for node in graph.node}
        self.ends = {value.name for value in graph.output}
        for value in graph.input:
            if value.name not in self.wiring.stored:
                kind = HALF if value.name in self.inputs else self.wiring.types[value.name]
                self.native[value.name] = kind, value.name
        for node in graph.node:
            self._add(node)
        for name in self.ends & self.wiring.stored.keys():
            self._get(name, self.wiring.types[name])
        out = onnx.ModelProto()
        out.CopyFrom(self.wiring.model)
        del out.graph.node[:], out.graph.value_info[:], out.graph.initializer[:]
        out.graph.node.extend(self.nodes)
        out.graph.initializer.extend(self.stored.values())
        kept = [value for value in out.graph.input if value.name not in self.wiring.stored]
        del out.graph.input[:]
        out.graph.input.extend(kept)
        for value in out.graph.input:
            if value.name in self.inputs:
                value.type.tensor_type.elem_type = HALF
        return out

    def _add(self, source: onnx.NodeProto) -> None:
        node, slots = onnx.NodeProto(), self.wiring.slots(source)
        node.CopyFrom(source)
        narrow = source.name not in self.wide
        for index, name in enumerate(source.input):
            if name:
                takes = slots.inputs.get(index)
                wanted = self.wiring.types.get(name, 0) if takes is None else (HALF if takes and narrow else WIDE)
                node.input[index] = self._get(name, wanted)
        for item in node.attribute:
            for inner in (*([item.g] if item.HasField("g") else ()), *item.graphs):
                self._feed(inner)
        after = []
        for index, name in enumerate(source.output):
            takes = slots.outputs.get(index)
            if not (takes and narrow):
                self.native[name] = (self.wiring.types.get(name, 0), name)
                continue
            made = self._fresh(f"{name}_f16") if name in self.ends else name
            node.output[index] = made
            self.native[name] = (HALF, made)
            if made != name:
                after.append(self._cast(made, name, WIDE))
                self.given[name, WIDE] = name
        if narrow and any(slots.outputs.values()):
            _retype(node)
        self.nodes += [node, *after]

    def _get(self, name: str, wanted: int) -> str:
        """A tensor's name in a type; a Cast or a stored copy makes it where it is not there yet."""
        if (name, wanted) in self.given:
            return self.given[name, wanted]
        if name in self.wiring.stored:
            tensor = self.wiring.stored[name]
            self.given[name, wanted] = here = name if name not in self.stored else self._fresh(_called(name, wanted))
            self.stored[here] = _converted(tensor, here, wanted)
            return here
        kind, made = self.native.get(name, (wanted, name))  # else a graph's own inner tensor
        if kind == wanted or wanted not in (HALF, WIDE) or kind not in (HALF, WIDE):
            return made
        self.given[name, wanted] = here = self._fresh(_called(name, wanted))
        self.nodes.append(self._cast(made, here, wanted))
        return here

    def _feed(self, graph: onnx.GraphProto) -> None:
        """Give a graph inside of a node what it takes from around it, in its own type."""
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {name for node in graph.node for name in node.output}
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name and name not in own:
                    node.input[index] = self._get(name, self.wiring.types.get(name, 0))
            for item in node.attribute:
                for inner in (*([item.g] if item.HasField("g") else ()), *item.graphs):
                    self._feed(inner)

    def _cast(self, source: str, target: str, to: int) -> onnx.NodeProto:
        label = f"cast_{target}"
        while label in self.labels:
            label += "_"
        self.labels.add(label)
        return helper.make_node("Cast", [source], [target], name=label, to=to)

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _called(name: str, kind: int) -> str:
    return f"{name}_{'f16' if kind == HALF else 'f32'}"


def _converted(tensor: onnx.TensorProto, name: str, kind: int) -> onnx.TensorProto:
    if tensor.data_type != kind:
        with np.errstate(over="ignore"):  # of what is infinite; nodes with other large numbers stay wide
            return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _retype(node: onnx.NodeProto) -> None:
    """Attributes that say float32, in place."""
    for item in node.attribute:
        if item.name in _TYPE_ATTRIBUTES and item.i == WIDE:
            item.i = HALF
    if node.op_type == "ConstantOfShape":
        value = next((numpy_helper.to_array(item.t) for item in node.attribute if item.name == "value"), np.zeros(1))
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(value.astype(np.float16))))


def _misfit(tensor: onnx.TensorProto, *, scale: bool) -> str:
    """What float16 would do to a stored tensor's numbers, in words; empty where it holds them."""
    values: npt.NDArray[np.float32] = numpy_helper.to_array(tensor)
    finite = values[np.isfinite(values)].astype(np.float64).reshape(-1)
    if not finite.size or not finite.any():
        return ""
    largest = float(np.abs(finite).max())
    if largest > TOP:
        return f"holds {largest:g}, more than float16 has"
    if largest < SMALLEST:
        return f"holds nothing above {largest:g}, where float16 has few digits"
    lost = np.abs(finite.astype(np.float16) - finite)
    share = float((lost / np.abs(finite)).max()) if scale else float(np.linalg.norm(lost) / np.linalg.norm(finite))
    return f"would move by {share:.1%} of its size" if share > CLOSE else ""


def _store_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes as stored tensors, in place, so that there is one kind of constant; not those of inner graphs."""
    kept = []
    for node in graph.node:
        tensor = _constant(node) if node.op_type == "Constant" and node.domain in ("", "ai.onnx") else None
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    for item in node.attribute:
        if item.name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(item.t)
            tensor.name = node.output[0]
            return tensor
        if item.name in ("value_float", "value_floats", "value_int", "value_ints"):
            kind = np.float32 if "float" in item.name else np.int64
            return numpy_helper.from_array(np.asarray(helper.get_attribute_value(item), kind), node.output[0])
    return None


def made_by(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Every float32 tensor that a node of a prepared graph makes, with its node."""
    wiring = _Wiring(model)
    return (
        (node, name) for node in model.graph.node for name in node.output if name and wiring.types.get(name) == WIDE
    )
