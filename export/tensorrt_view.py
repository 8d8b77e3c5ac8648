"""What the rules of TensorRT readiness look at and say: one view of a graph, a rule, a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference

from edgehem.export.graph import opset

ERROR, WARNING = "error", "warning"
BUILDER = "TensorRT for RTX 1.7"
"""A real parser and builder that needs no GPU, to which the rules were held."""

Place = tuple[str, str]
"""Name of a node or tensor, and what is wrong with it."""
Size = int | str | None
"""Of an axis: fixed, named, or unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that keeps a graph from being built, or from being built well.

    Attributes
    ----------
    id : str
        Stable: rules are added, never renamed and never given a second meaning.
    severity : str
        ``error``: a strongly typed TensorRT 10 or 11 network refuses it, or would compute something else;
        ``warning``: it builds, and is not what was meant.
    looks_for, why, remedy : str
        For people.
    find : callable
        The places that break it.
    stricter : str
        Why the rule stands although :data:`BUILDER` builds graphs that break it; empty where it refuses them, or was
        not asked. ``tests/export/test_real_builder.py`` holds this to what it does.
    """

    id: str
    severity: str
    looks_for: str
    why: str
    remedy: str
    find: Callable[[View], Iterator[Place]]
    stricter: str = ""

    @property
    def reason(self) -> str:
        """Why, and why all the same."""
        return f"{self.why}. {BUILDER} builds it all the same: {self.stricter}" if self.stricter else self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that a graph breaks, and where."""

    rule: Rule
    places: tuple[Place, ...]


class View:
    """A graph with the questions that rules ask.

    Functions of the model are inlined and shapes inferred where ONNX can; the model given is left as it is.

    Attributes
    ----------
    problem : str
        Why ONNX's checker or inference refuses the graph; empty if they do not.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.given = model
        self.problem = ""
        try:
            onnx.checker.check_model(model)
            if model.functions:
                model = inliner.inline_local_functions(model)
            model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        except Exception as error:  # the checker's, inference's and protobuf's share no base but Exception
            self.problem = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        self.model = model
        self.graph = model.graph
        self.nodes = [node for node in _nodes(self.graph) if _whole(node, opset(model))]
        """Subgraphs' nodes too; without those that lack inputs or outputs, which ONNX's checker names."""
        self.stored: dict[str, TensorProto] = {tensor.name: tensor for tensor in self.graph.initializer}
        """Initializers and constants by name."""
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.output:
                self.producer.setdefault(name, node)
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
            value = attribute(node, "value") if node.op_type == "Constant" else None
            if isinstance(value, TensorProto):
                self.stored[node.output[0]] = value
        self.inputs = [value for value in self.graph.input if value.name not in self.stored]
        self.outputs = list(self.graph.output)
        self.types = {name: tensor.data_type for name, tensor in self.stored.items()}
        self.shapes: dict[str, tuple[Size, ...] | None] = {
            name: tuple(tensor.dims) for name, tensor in self.stored.items()
        }
        for value in (*self.graph.value_info, *self.inputs, *self.outputs):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            self.shapes[value.name] = sizes(value)

    def values(self, name: str) -> npt.NDArray[Any] | None:
        """A stored tensor's values; None if it is computed, or its data is not in the file."""
        tensor = self.stored.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError):  # cut short, or a type NumPy does not know
            return None

    def of(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """Nodes of these operators."""
        return (node for node in self.nodes if node.op_type in kinds)

    def is_weight(self, node: onnx.NodeProto) -> bool:
        """Whether a Q or DQ node works on a stored tensor, directly or behind the Q of its pair."""
        source = self.producer.get(node.input[0])
        if node.op_type == "DequantizeLinear" and source is not None and source.op_type == "QuantizeLinear":
            node = source
        return node.input[0] in self.stored

    def fed_by_dq(self, node: onnx.NodeProto, index: int) -> onnx.NodeProto | None:
        """The DequantizeLinear before an input, if there is one."""
        source = self.producer.get(node.input[index]) if len(node.input) > index else None
        return source if source is not None and source.op_type == "DequantizeLinear" else None


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; text as str."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return default


def label(node: onnx.NodeProto) -> str:
    """How a node is called in findings."""
    return node.name or (f"{node.op_type} of {node.output[0]}" if node.output else node.op_type)


def sizes(value: onnx.ValueInfoProto) -> tuple[Size, ...] | None:
    """A tensor's shape; None if not even the number of axes is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or None) for axis in tensor.shape.dim
    )


def type_name(code: int) -> str:
    """``FLOAT``, ``INT8`` ..."""
    return TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else str(code)


def _whole(node: onnx.NodeProto, version: int) -> bool:
    """Whether a node has the inputs and outputs that its operator must have."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except Exception:  # not a standard operator, or not in this version
        return bool(node.output)
    return len(node.input) >= schema.min_input and len(node.output) >= max(schema.min_output, 1)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for item in node.attribute:
            if item.HasField("g"):
                yield from _nodes(item.g)
            for inner in item.graphs:
                yield from _nodes(inner)
