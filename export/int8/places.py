"""Where a graph is quantised: which layers, which tensors, and which tensors must share a scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators whose arithmetic is worth int8: those that multiply by stored weights."""
TRANSPARENT = frozenset({
    "AveragePool", "Concat", "DepthToSpace", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators whose output takes its values, or means of them, from their input: int8 passes through under one scale."""
MEANS = frozenset({"GlobalAveragePool", "ReduceMean"})
JOINS = frozenset({"Add", "Mul"}) | MEANS
"""Operators between layers that engines also execute in int8."""
NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax"})


@dataclass(frozen=True, kw_only=True)
class Span:
    """Tensors that share a scale, from where values arise to the layers that read them.

    Parameters
    ----------
    sources : tuple of str
        Tensors made by operators that compute.
    moved : tuple of int
        Nodes between (by position): they only move values.
    layers : tuple of str
        Names of the layers that read what comes out.
    not_negative : bool
        No value below zero can arise.
    """

    sources: tuple[str, ...]
    moved: tuple[int, ...]
    layers: tuple[str, ...]
    not_negative: bool


class Wiring:
    """A float graph seen as tensors with a producer and readers.

    Parameters
    ----------
    model : onnx.ModelProto
        Not modified. Every node needs a name of its own.

    Raises
    ------
    ValueError
        If two nodes share a name, or one has none.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names) or "" in names:
            raise ValueError("every node of the graph needs a name of its own")
        self.position = {name: index for index, name in enumerate(names)}
        self.producer = {output: index for index, node in enumerate(self.nodes) for output in node.output if output}
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name for value in model.graph.input} - self.stored.keys()
        self.outputs = {value.name for value in model.graph.output}

    def node(self, name: str) -> onnx.NodeProto:
        """A node by its name."""
        found: onnx.NodeProto = self.nodes[self.position[name]]
        return found

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Tensor to the positions of the nodes that read it."""
        found: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def constants(self) -> frozenset[str]:
        """Tensors that do not depend on a graph input."""
        varying = set(self.inputs)
        for node in self.nodes:
            # The shape of what varies is taken as fixed: a layer never reads it as data.
            if node.op_type != "Shape" and varying & set(node.input):
                varying |= set(node.output)
        return frozenset({*self.producer, *self.stored} - varying)

    def weight(self, index: int) -> str | None:
        """The stored weight of a layer; None where both operands are computed, or it is no layer."""
        node = self.nodes[index]
        if node.op_type not in LAYERS or len(node.input) < 2:
            return None
        name = node.input[1]
        return name if name in self.stored and self.stored[name].data_type == onnx.TensorProto.FLOAT else None

    def layers(self, kinds: Iterable[str] = ("Conv",)) -> list[str]:
        """Names of the layers of some kinds, with stored weights, in the graph's order."""
        wanted = set(kinds)
        return [n.name for i, n in enumerate(self.nodes) if n.op_type in wanted and self.weight(i) is not None]

    def work(self) -> dict[str, float]:
        """Share of all layers' multiplications that each layer does; 0 for all where shapes cannot be inferred."""
        one = onnx.ModelProto()
        one.CopyFrom(self.model)
        del one.graph.value_info[:]
        for value in (*one.graph.input, *one.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.Clear()
                    if value.name in self.inputs:
                        dim.dim_value = 1
        shapes = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
        dims = {
            value.name: [d.dim_value if d.HasField("dim_value") else 1 for d in value.type.tensor_type.shape.dim]
            for value in (*shapes.value_info, *shapes.output, *shapes.input)
        }
        cost: dict[str, float] = {}
        for index, node in enumerate(self.nodes):
            name = self.weight(index)
            if name is None:
                continue
            weight = self.stored[name].dims
            made = float(np.prod(dims.get(node.output[0], [0])))
            # Each output value is a sum over one filter (Conv), or over the axis that is multiplied away.
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            terms = np.prod(weight[1:]) if node.op_type == "Conv" else weight[1 if transposed else 0]
            cost[node.name] = made * float(terms)
        total = sum(cost.values())
        return {name: value / total if total else 0.0 for name, value in cost.items()}

    def first(self) -> set[str]:
        """Layers that read a graph input, unchanged or only moved."""
        return {
            self.nodes[index].name
            for index in range(len(self.nodes))
            if self.weight(index) is not None and set(self._up(self.nodes[index].input[0])[0]) & self.inputs
        }

    def last(self) -> set[str]:
        """Layers with a way to a graph output that passes no other layer: heads and maps."""
        found, seen, open_tensors = set(), set(), list(self.outputs)
        while open_tensors:
            tensor = open_tensors.pop()
            if tensor in seen or (index := self.producer.get(tensor)) is None:
                continue
            seen.add(tensor)
            if self.weight(index) is not None:
                found.add(self.nodes[index].name)
            else:
                open_tensors += self.nodes[index].input
        return found

    def _up(self, tensor: str) -> tuple[list[str], list[int]]:
        """From a tensor up through nodes that only move values: where they arise, and the nodes passed."""
        sources: list[str] = []
        passed: list[int] = []
        seen: set[str] = set()
        open_tensors = [tensor]
        while open_tensors:
            name = open_tensors.pop()
            if name in seen:
                continue
            seen.add(name)
            index = self.producer.get(name)
            if index is None or self.nodes[index].op_type not in TRANSPARENT:
                sources.append(name)
                continue
            passed.append(index)
            data = self.nodes[index].input if self.nodes[index].op_type == "Concat" else self.nodes[index].input[:1]
            open_tensors += data
        return sources, passed

    def spans(self, layers: Sequence[str], *, through: bool = True) -> list[Span]:
        """Group what some layers read into tensors with one scale.

        Parameters
        ----------
        layers : sequence of str
        through : bool
            Follow values up through nodes that only move them, so that those work on int8, too. Otherwise each layer's
            own input is a span.
        """
        reads = {name: self.node(name).input[0] for name in layers}
        ways = {t: self._up(t) if through else ([t], []) for t in dict.fromkeys(reads.values())}
        # Ways that share a source or a node share a scale.
        group: dict[str | int, str] = {}
        root: dict[str, str] = {tensor: tensor for tensor in ways}

        def find(tensor: str) -> str:
            while root[tensor] != tensor:
                tensor = root[tensor]
            return tensor

        for tensor, (sources, passed) in ways.items():
            for key in (*sources, *passed):
                if key in group:
                    root[find(tensor)] = find(group[key])
                group[key] = tensor
        together: dict[str, list[str]] = {}
        for tensor in ways:
            together.setdefault(find(tensor), []).append(tensor)
        spans = []
        for tensors in together.values():
            sources = list(dict.fromkeys(source for tensor in tensors for source in ways[tensor][0]))
            passed = sorted({index for tensor in tensors for index in ways[tensor][1]})
            spans.append(
                Span(
                    sources=tuple(sources),
                    moved=tuple(passed),
                    layers=tuple(name for name in layers if reads[name] in tensors),
                    not_negative=all(self.not_negative(source) for source in sources),
                )
            )
        return spans

    def not_negative(self, tensor: str) -> bool:
        """Whether no value of a tensor can lie below zero, by what makes it."""
        if tensor in self.constants:
            value = self.constant(tensor)
            return value is not None and value >= 0
        index = self.producer.get(tensor)
        return index is not None and self.nodes[index].op_type in NOT_NEGATIVE

    def constant(self, tensor: str) -> float | None:
        """The value of a constant that is one number, expanded or not; None for others."""
        index = self.producer.get(tensor)
        if index is not None and self.nodes[index].op_type == "Expand":
            tensor = self.nodes[index].input[0]
        if tensor not in self.stored:
            return None
        values = onnx.numpy_helper.to_array(self.stored[tensor]).reshape(-1)
        return float(values[0]) if values.size == 1 else None

    def joins(self, layers: Sequence[str]) -> list[tuple[str, int]]:
        """Tensors that additions, products and means between quantised layers read, with the node's position.

        In int8 such a node moves a quarter of the bytes. Of an Add's operands, one that comes straight from a quantised
        layer stays float: engines add the other to that layer's sum. What lies behind the last quantised layer is left
        alone.
        """
        made = {self.node(name).output[0] for name in layers}
        before = self._before(layers)
        found = []
        for index, node in enumerate(self.nodes):
            if index not in before or node.op_type not in JOINS:
                continue
            data = node.input[:1] if node.op_type in MEANS else node.input
            if any(name in self.constants for name in data):
                continue
            summed = next((name for name in data if name in made), None) if node.op_type == "Add" else None
            found += [(name, index) for name in data if name != summed]
        return found

    def _before(self, layers: Sequence[str]) -> set[int]:
        """Positions of the nodes that some layer's input depends on."""
        seen: set[int] = set()
        open_tensors = [self.node(name).input[0] for name in layers]
        while open_tensors:
            index = self.producer.get(open_tensors.pop())
            if index is not None and index not in seen:
                seen.add(index)
                open_tensors += self.nodes[index].input
        return seen
