"""What makes a graph take INT8 better: channels of equal range, and biases that expect the rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgehem.export.int8.places import Wiring
from edgehem.export.int8.qdq import quantised_weight, weight_axis
from edgehem.export.int8.ranges import Seen

Float = npt.NDArray[np.float64]

SHARE = 0.5
"""How much of a channel's range moves from the activation into the next weight (SmoothQuant's alpha)."""
MOST = 32.0
"""No channel is scaled by more, up or down."""


def picked_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which 1 × 1 convolutions with a stride read what a pool of one value has picked for them.

    The same arithmetic, and exactly the same values; the pool works on int8, once for all that read it. OpenVINO does
    so by itself, but after it has looked for int8: the convolution is then left in float.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    made: dict[tuple[str, tuple[int, ...]], str] = {}
    ordered = []
    for node in copy.graph.node:
        attributes = {a.name: list(a.ints) for a in node.attribute}
        strides, kernel = attributes.get("strides", []), attributes.get("kernel_shape", [])
        if (
            node.op_type == "Conv"
            and kernel
            and max(kernel) == 1 < max(strides, default=1)
            and not any(attributes.get("pads", []))
        ):
            key = (node.input[0], tuple(strides))
            if key not in made:
                made[key] = f"{node.input[0]}_every_{'x'.join(map(str, strides))}"
                ordered.append(
                    onnx.helper.make_node(
                        "MaxPool", [node.input[0]], [made[key]], name=made[key], kernel_shape=kernel, strides=strides
                    )
                )
            node.input[0] = made[key]
            for attribute in node.attribute:
                if attribute.name == "strides":
                    attribute.ints[:] = [1] * len(strides)
        ordered.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(ordered)
    return copy


def equalised(wiring: Wiring, seen: Mapping[str, Seen], layers: Sequence[str]) -> tuple[onnx.ModelProto, list[str]]:
    """Even out the ranges of channels between two convolutions with nothing but a ReLU between them.

    A channel of the first is divided by a factor, and what the second multiplies it with is multiplied: the float graph
    computes the same. Activations share one scale per tensor, so channels of small range gain resolution; the second
    weight pays, which has a scale per output channel (M. Nagel et al., Data-free quantization, ICCV 2019; G. Xiao et
    al., SmoothQuant, ICML 2023).

    Parameters
    ----------
    wiring : Wiring
    seen : dict of tensor name to Seen
        Of the inputs of `layers`.
    layers : sequence of str
        Layers that will be quantised.

    Returns
    -------
    onnx.ModelProto
        A changed copy.
    list of str
        The layers whose input was equalised.
    """
    model = onnx.ModelProto()
    model.CopyFrom(wiring.model)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    changed = []
    for name in layers:
        second = wiring.node(name)
        first = _only_source(wiring, second)
        if first is None or second.input[0] not in seen:
            continue
        reach = seen[second.input[0]].channel_largest
        weight = numpy_helper.to_array(stored[second.input[1]]).astype(np.float64)
        if reach is None or weight.shape[1] != len(reach):
            continue  # grouped
        factor = _factors(reach, np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != 1)))
        scaled = numpy_helper.to_array(stored[first.input[1]]).astype(np.float64)
        shape = (-1,) + (1,) * (scaled.ndim - 1)
        _replace(stored, first.input[1], scaled / factor.reshape(shape))
        if len(first.input) > 2:
            _replace(stored, first.input[2], numpy_helper.to_array(stored[first.input[2]]) / factor)
        _replace(stored, second.input[1], weight * factor.reshape((1, -1) + (1,) * (weight.ndim - 2)))
        changed.append(name)
    return model, changed


def _only_source(wiring: Wiring, second: onnx.NodeProto) -> onnx.NodeProto | None:
    """The convolution before a convolution, if nothing else reads what lies between; None otherwise."""
    if second.op_type != "Conv" or len(wiring.readers[second.input[1]]) > 1:
        return None
    tensor = second.input[0]
    for _ in range(2):
        index = wiring.producer.get(tensor)
        if index is None or tensor in wiring.outputs or len(wiring.readers[tensor]) > 1:
            return None
        node = wiring.nodes[index]
        if node.op_type == "Conv":
            parameters = [name for name in node.input[1:] if name in wiring.stored]
            own = all(len(wiring.readers[name]) == 1 for name in parameters)
            return node if wiring.weight(index) and len(parameters) == len(node.input) - 1 and own else None
        if node.op_type != "Relu":
            return None
        tensor = node.input[0]
    return None


def _factors(reach: Float, weight: Float) -> Float:
    """What the channels of an activation are divided by, float64 [C]; 1 where a channel is dead."""
    alive = (reach > 0) & (weight > 0)
    factor = np.ones_like(reach)
    factor[alive] = reach[alive] ** SHARE / weight[alive] ** (1 - SHARE)
    if alive.any():
        factor[alive] /= np.exp(np.log(factor[alive]).mean())  # only the differences matter
    return np.clip(factor, 1 / MOST, MOST)


def _replace(stored: dict[str, onnx.TensorProto], name: str, value: Float) -> None:
    stored[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))


def bias_corrections(
    wiring: Wiring, seen: Mapping[str, Seen], layers: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """What rounding the weights adds to the mean of every output channel, with the sign turned.

    The error of a weight times the mean of what it multiplies, summed; borders are taken as the rest (Nagel et al.,
    2019, 4.2, from observed means).

    Returns
    -------
    dict of layer to float32 array [O]
        Convolutions and Gemm; a MatMul has no bias to hold it.
    """
    out = {}
    for name in layers:
        node = wiring.node(name)
        watched = seen.get(node.input[0])
        if node.op_type == "MatMul" or watched is None or watched.channel_sum is None:
            continue
        weight = numpy_helper.to_array(wiring.stored[node.input[1]])
        axis = weight_axis(node)
        whole, scale = quantised_weight(weight, axis)
        shape = [1] * weight.ndim
        shape[axis] = -1
        error = whole * scale.reshape(shape).astype(np.float64) - weight
        if axis == 1:
            error = error.T
        per_input = error.reshape(*error.shape[:2], -1).sum(axis=2)  # [O, I / groups]
        mean = watched.channel_mean
        groups = len(mean) // per_input.shape[1]
        if groups * per_input.shape[1] != len(mean) or per_input.shape[0] % groups:
            continue
        blocks = per_input.reshape(groups, -1, per_input.shape[1])
        shift = np.einsum("goi,gi->go", blocks, mean.reshape(groups, -1)).reshape(-1)
        out[name] = (-shift).astype(np.float32)
    return out
