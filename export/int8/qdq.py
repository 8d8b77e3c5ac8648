"""Explicit symmetric INT8: QuantizeLinear and DequantizeLinear around layers, as a strongly typed TensorRT takes them.

Activations: int8, one scale a tensor, zero point 0, a pair of its own before every layer. Weights: stored as int8
behind a lone DequantizeLinear, one scale an output channel. Biases stay float: TensorRT refuses an Int32 bias behind
DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgehem.export.int8.places import Span, Wiring
from edgehem.export.int8.ranges import Seen, merged, threshold

TOP = 127
"""Largest int8 magnitude in use: -128 would make a symmetric range lopsided."""
MIDDLE = 128
"""Zero point of a uint8 tensor that takes the values of a symmetric int8 one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a graph is quantised.

    Parameters
    ----------
    layers : tuple of str
    spans : tuple of Span
    scales : tuple of float
        One for every span.
    joins : tuple of (str, int, float)
        Tensors read between layers: name, position of the node that reads it, scale.
    biases : dict of str to float32 array [O]
        What is added to layers' biases.
    """

    layers: tuple[str, ...]
    spans: tuple[Span, ...]
    scales: tuple[float, ...]
    joins: tuple[tuple[str, int, float], ...]
    biases: Mapping[str, npt.NDArray[np.float32]]


def plan(
    wiring: Wiring,
    seen: Mapping[str, Seen],
    layers: Sequence[str],
    *,
    method: str,
    percentile: float,
    through: bool,
    joins: bool,
    biases: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> Plan:
    """Choose scales from what was observed.

    Parameters
    ----------
    wiring : Wiring
    seen : dict of tensor name to Seen
        Every source of the spans, and every join; constants need not be there.
    layers : sequence of str
    method, percentile
        See :func:`edgehem.export.int8.ranges.threshold`.
    through : bool
        See :meth:`Wiring.spans`.
    joins : bool
        Also quantise what additions, products and means between layers read: see :meth:`Wiring.joins`.
    biases : dict, optional
    """
    spans = wiring.spans(layers, through=through)
    scales = []
    for span in spans:
        found = [seen[source] for source in span.sources if source in seen]
        scales.append(_scale(threshold(merged(found), method, percentile)))
    known = {source: scale for span, scale in zip(spans, scales, strict=True) for source in span.sources}
    joined = []
    for tensor, index in wiring.joins(layers) if joins else ():
        if tensor not in known:
            known[tensor] = _scale(threshold(seen[tensor], method, percentile))
        joined.append((tensor, index, known[tensor]))
    chosen = {name: bias for name, bias in (biases or {}).items() if name in layers}
    return Plan(layers=tuple(layers), spans=tuple(spans), scales=tuple(scales), joins=tuple(joined), biases=chosen)


def _scale(magnitude: float) -> float:
    return max(float(np.float32(magnitude / TOP)), float(np.finfo(np.float32).tiny))


def watched(wiring: Wiring, layers: Sequence[str]) -> list[str]:
    """Tensors to observe for any plan with these layers or fewer: what they read and make, where that arises, joins."""
    inputs = [t for name in layers for t in (wiring.node(name).input[0], wiring.node(name).output[0])]
    sources = [source for span in wiring.spans(layers) for source in span.sources if source not in wiring.constants]
    return list(dict.fromkeys([*inputs, *sources, *(tensor for tensor, _ in wiring.joins(layers))]))


def quantised(wiring: Wiring, chosen: Plan, *, unsigned: bool = False) -> onnx.ModelProto:
    """Build the graph.

    Parameters
    ----------
    wiring : Wiring
    chosen : Plan
    unsigned : bool
        uint8 activations, for ONNX Runtime on the CPU, whose kernels want them: under the same scale, with zero point
        128, or 0 where no value is negative (it then absorbs the ReLU before). TensorRT refuses this form.

    Returns
    -------
    onnx.ModelProto
    """
    builder = _Builder(wiring, unsigned=unsigned)
    for span, scale in zip(chosen.spans, chosen.scales, strict=True):
        builder.quantise_span(span, scale)
    for tensor, index, scale in chosen.joins:
        builder.quantise_input(index, tensor, scale, not_negative=wiring.not_negative(tensor))
    for name in chosen.layers:
        builder.quantise_weight(name, chosen.biases.get(name))
    return builder.finish()


def quantised_weight(
    weight: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A weight as int8 with one scale a channel of an axis; a channel that is all zero gets scale 1."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    scale = np.where(largest > 0, largest / TOP, 1.0).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    whole = np.clip(np.rint(weight / scale.reshape(shape)), -TOP, TOP)
    return whole.astype(np.int8), scale


def weight_axis(node: onnx.NodeProto) -> int:
    """The output channels' axis of a layer's weight."""
    if node.op_type == "Conv":
        return 0
    transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else 1


class _Builder:
    """Rewrites a copy of a graph."""

    def __init__(self, wiring: Wiring, *, unsigned: bool) -> None:
        self._wiring = wiring
        self._unsigned = unsigned
        self._model = onnx.ModelProto()
        self._model.CopyFrom(wiring.model)
        self._nodes = list(self._model.graph.node)
        self._before: dict[int, list[onnx.NodeProto]] = {}
        self._added: dict[str, onnx.TensorProto] = {}
        self._dropped: set[str] = set()
        self._pairs = 0

    def quantise_span(self, span: Span, scale: float) -> None:
        """Pairs where values arise, if they are then moved, and before every layer."""
        for index in span.moved:
            for name in dict.fromkeys(self._wiring.nodes[index].input):
                if name in span.sources:
                    self._pair(index, name, scale, not_negative=span.not_negative)
        for layer in span.layers:
            index = self._wiring.position[layer]
            self._pair(index, self._wiring.nodes[index].input[0], scale, not_negative=span.not_negative)

    def quantise_input(self, index: int, tensor: str, scale: float, *, not_negative: bool) -> None:
        """A pair before one input of a node."""
        self._pair(index, tensor, scale, not_negative=not_negative)

    def _pair(self, index: int, tensor: str, scale: float, *, not_negative: bool) -> None:
        node = self._nodes[index]
        if tensor not in node.input:
            return  # rewired already
        self._pairs += 1
        stem = f"q{self._pairs}_{tensor}"
        step = self._store(f"{stem}_scale", np.array(scale, np.float32))
        zero = self._zero(not_negative=not_negative)
        whole, back = f"{stem}_int", f"{stem}_back"
        self._before.setdefault(index, []).extend([
            onnx.helper.make_node("QuantizeLinear", [tensor, step, zero], [whole], name=f"{stem}_q"),
            onnx.helper.make_node("DequantizeLinear", [whole, step, zero], [back], name=f"{stem}_dq"),
        ])  # fmt: skip
        for position, name in enumerate(node.input):
            if name == tensor:
                node.input[position] = back

    def _zero(self, *, not_negative: bool) -> str:
        if not self._unsigned:
            return self._store("int8_zero", np.array(0, np.int8))
        if not_negative:
            return self._store("uint8_zero", np.array(0, np.uint8))
        return self._store("uint8_middle", np.array(MIDDLE, np.uint8))

    def quantise_weight(self, layer: str, bias: npt.NDArray[np.float32] | None) -> None:
        """A layer's weight as int8 behind DequantizeLinear, and its bias corrected."""
        index = self._wiring.position[layer]
        node = self._nodes[index]
        name, axis = node.input[1], weight_axis(node)
        stored, zero = f"{name}_int8", f"{name}_zero"
        if stored not in self._added:
            whole, scale = quantised_weight(numpy_helper.to_array(self._wiring.stored[name]), axis)
            self._store(stored, whole)
            self._store(f"{name}_scale", scale)
            self._store(zero, np.zeros(len(scale), np.int8))
        back = f"{layer}_weight"
        self._before.setdefault(index, []).append(
            onnx.helper.make_node(
                "DequantizeLinear", [stored, f"{name}_scale", zero], [back], name=f"{layer}_weight_dq", axis=axis
            )
        )
        node.input[1] = back
        self._dropped.add(name)
        if bias is not None:
            self._add_to_bias(node, layer, bias)

    def _add_to_bias(self, node: onnx.NodeProto, layer: str, bias: npt.NDArray[np.float32]) -> None:
        if node.op_type == "MatMul":
            return  # has none
        old = numpy_helper.to_array(self._wiring.stored[node.input[2]]) if len(node.input) > 2 else 0.0
        name = self._store(f"{layer}_bias", np.asarray(old + bias, np.float32))
        if len(node.input) > 2:
            self._dropped.add(node.input[2])
            node.input[2] = name
        else:
            node.input.append(name)

    def _store(self, name: str, value: npt.NDArray[np.generic]) -> str:
        if name not in self._added:
            self._added[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def finish(self) -> onnx.ModelProto:
        graph = self._model.graph
        ordered = [new for index, node in enumerate(self._nodes) for new in (*self._before.get(index, ()), node)]
        used = {name for node in ordered for name in node.input} | {value.name for value in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name not in self._dropped or tensor.name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(ordered)
        graph.initializer.extend([*kept, *self._added.values()])
        return onnx.shape_inference.infer_shapes(self._model)
