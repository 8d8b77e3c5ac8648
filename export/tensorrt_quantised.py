"""Rules of TensorRT readiness about quantisation: what explicit symmetric INT8 Q/DQ must look like.

What TensorRT does is read from its open parser (onnx-tensorrt, ``QuantDequantLinearHelper``, release 10) and from its
documentation ("Working with Quantized Types"), or was seen on a builder.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from edgehem.export.tensorrt_view import ERROR, WARNING, Place, Rule, View, attribute, label, type_name

PAIR = ("QuantizeLinear", "DequantizeLinear")
QOPERATORS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Selu", "PRelu")
FLOAT_ONLY = (
    *("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization"),
    *("Gelu", "Erf", "Exp", "Log", "Sqrt", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "LSTM", "GRU", "RNN"),
)
"""Operators without INT8 kernels: a pair before them only rounds."""
CHANNELS = 4
"""INT8 convolutions read channels four at a time; a stem of three was reported to have no kernel at all."""


def _zero_point(view: View, node: onnx.NodeProto) -> str:
    return node.input[2] if len(node.input) > 2 else ""


def _zero_point_missing(view: View) -> Iterator[Place]:
    for node in view.of("QuantizeLinear"):
        if not _zero_point(view, node) and not attribute(node, "output_dtype", 0):
            yield label(node), "no zero point, which means uint8"


def _zero_point_computed(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        name = _zero_point(view, node)
        if name and name not in view.stored:
            yield label(node), f"{name} is computed, not stored"


def _zero_point_value(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        values = view.values(_zero_point(view, node))
        if values is not None and np.asarray(values, np.float64).any():
            yield label(node), f"zero point {int(np.asarray(values, np.float64).flat[np.argmax(values != 0)])}"


def _quantised_types(view: View, node: onnx.NodeProto) -> set[int]:
    """Of the quantised tensor of a Q or DQ, as far as the graph says."""
    found = {view.types.get(_zero_point(view, node), 0), int(attribute(node, "output_dtype", 0))}
    if node.op_type == "DequantizeLinear":
        found = {view.types.get(_zero_point(view, node), 0), view.types.get(node.input[0], 0)}
    return found - {TensorProto.UNDEFINED}


def _unsigned(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        if TensorProto.UINT8 in _quantised_types(view, node):
            yield label(node), "UINT8"


def _integer_bias(view: View) -> Iterator[Place]:
    for node in view.of("DequantizeLinear"):
        if TensorProto.INT32 in _quantised_types(view, node):
            yield label(node), f"{node.input[0]} is INT32"


def _other_types(view: View) -> Iterator[Place]:
    known = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32}
    for node in view.of(*PAIR):
        for code in sorted(_quantised_types(view, node) - known):
            yield label(node), type_name(code)


def _blocked(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        shape = view.shapes.get(node.input[1])
        if attribute(node, "block_size", 0) or (shape is not None and len(shape) > 1):
            yield label(node), f"scale of shape {shape}"


def _qoperator(view: View) -> Iterator[Place]:
    for node in view.nodes:
        if node.op_type in QOPERATORS or node.op_type.startswith("QLinear"):
            yield label(node), node.op_type


def _scale_computed(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        if node.input[1] not in view.stored:
            yield label(node), f"{node.input[1]} is computed, not stored"


def _scale_value(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        values = view.values(node.input[1])
        if values is None:
            continue
        values = np.asarray(values, np.float64).reshape(-1)
        bad = values[~(np.isfinite(values) & (values > 0))]
        if bad.size:
            yield label(node), f"scale {bad[0]:g}"


def _scale_type(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        code = view.types.get(node.input[1], 0)
        if code not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UNDEFINED):
            yield label(node), f"scale of type {type_name(code)}"


def _axis(view: View, node: onnx.NodeProto) -> int:
    """Of a per-channel scale, from the front where the rank is known."""
    axis = int(attribute(node, "axis", 1))
    shape = view.shapes.get(node.input[0])
    return axis + len(shape) if axis < 0 and shape is not None else axis


def _scale_size(view: View, node: onnx.NodeProto) -> int:
    values = view.values(node.input[1])
    return 1 if values is None else int(values.size)


def _scale_shape(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        count, shape, axis = _scale_size(view, node), view.shapes.get(node.input[0]), _axis(view, node)
        zero = view.values(_zero_point(view, node))
        if zero is not None and zero.size != count and node.input[1] in view.stored:
            yield label(node), f"{count} scales and {zero.size} zero points"
        elif count > 1 and shape is not None:
            if not 0 <= axis < len(shape):
                yield label(node), f"axis {axis} of {len(shape)} axes"
            elif isinstance(shape[axis], int) and shape[axis] != count:
                yield label(node), f"{count} scales for {shape[axis]} channels on axis {axis}"


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    """Axis of a linear operator's weights that counts its outputs."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else rank - 1


def _scale_axis(view: View) -> Iterator[Place]:
    for node in view.of("DequantizeLinear"):
        shape = view.shapes.get(node.input[0])
        if _scale_size(view, node) < 2 or not view.is_weight(node) or shape is None:
            continue
        for user in view.consumers.get(node.output[0], ()):
            if user.op_type in LINEAR and len(user.input) > 1 and user.input[1] == node.output[0]:
                wanted = _output_axis(user, len(shape))
                if _axis(view, node) != wanted:
                    yield label(node), f"axis {_axis(view, node)}; the outputs of {user.op_type} are on axis {wanted}"


def _activation_scales(view: View) -> Iterator[Place]:
    for node in view.of(*PAIR):
        if _scale_size(view, node) > 1 and not view.is_weight(node):
            yield label(node), f"{_scale_size(view, node)} scales"


def _same(view: View, a: str, b: str) -> bool:
    if a == b:
        return True
    first, second = view.values(a), view.values(b)
    return first is not None and second is not None and bool(np.array_equal(first.reshape(-1), second.reshape(-1)))


def _pair_scale(view: View) -> Iterator[Place]:
    for node in view.of("DequantizeLinear"):
        source = view.producer.get(node.input[0])
        if source is None or source.op_type != "QuantizeLinear":
            continue
        if not _same(view, source.input[1], node.input[1]):
            yield label(node), f"another scale than {label(source)}"
        elif _scale_size(view, node) > 1 and _axis(view, node) != _axis(view, source):
            yield label(node), f"another axis than {label(source)}"


def _pair_missing(view: View) -> Iterator[Place]:
    ends = {value.name for value in view.outputs}
    starts = {value.name for value in view.inputs}
    for node in view.of("QuantizeLinear"):
        users = view.consumers.get(node.output[0], [])
        other = sorted({user.op_type for user in users if user.op_type != "DequantizeLinear"})
        if other or (not users and node.output[0] not in ends):
            yield label(node), f"its integers go to {', '.join(other) or 'nothing'}"
    for node in view.of("DequantizeLinear"):
        source = view.producer.get(node.input[0])
        stored = node.input[0] in view.stored or node.input[0] in starts
        if not stored and (source is None or source.op_type != "QuantizeLinear"):
            yield label(node), f"its integers come from {source.op_type if source is not None else 'nowhere'}"


def _half_quantised(view: View) -> Iterator[Place]:
    for node in view.of(*LINEAR):
        if len(node.input) < 2:
            continue
        data, weights = (view.fed_by_dq(node, index) is not None for index in (0, 1))
        if data != weights:
            yield label(node), "weights in float" if data else "activations in float"


def _unfused(view: View) -> Iterator[Place]:
    for node in view.of("DequantizeLinear"):
        users = view.consumers.get(node.output[0], [])
        if view.is_weight(node) or not users:
            continue
        if all(user.op_type in FLOAT_ONLY for user in users):
            yield label(node), f"before {users[0].op_type}"
        for user in users:
            shape = view.shapes.get(user.input[1]) if len(user.input) > 1 else None
            if user.op_type == "ConvTranspose" and shape is not None and len(shape) == 5:
                yield label(user), "ConvTranspose in three dimensions"


def _before_activation(view: View) -> Iterator[Place]:
    for node in view.of("DequantizeLinear"):
        pair = view.producer.get(node.input[0])
        source = view.producer.get(pair.input[0]) if pair is not None and pair.op_type == "QuantizeLinear" else None
        users = view.consumers.get(node.output[0], [])
        if source is not None and source.op_type in LINEAR and users:
            kinds = {user.op_type for user in users}
            if kinds <= set(ACTIVATIONS):
                yield label(node), f"between {source.op_type} and {', '.join(sorted(kinds))}"


def _channels(view: View) -> Iterator[Place]:
    for node in view.of("Conv"):
        shape = view.shapes.get(node.input[1])
        if view.fed_by_dq(node, 0) is None or view.fed_by_dq(node, 1) is None or shape is None:
            continue
        if isinstance(shape[1], int) and shape[1] % CHANNELS and int(attribute(node, "group", 1)) == 1:
            yield label(node), f"{shape[1]} input channels"


_SYMMETRIC = "quantise with ActivationSymmetric and WeightSymmetric, activations and weights QInt8"

RULES = (
    Rule(
        id="zero-point-missing",
        severity=ERROR,
        looks_for="QuantizeLinear without a zero point or output type",
        why="ONNX takes uint8 then, TensorRT int8: the same file computes two things",
        remedy="store a zero point: INT8, zero",
        find=_zero_point_missing,
        stricter="for int8, which is not what ONNX says",
    ),
    Rule(
        id="zero-point-computed",
        severity=ERROR,
        looks_for="a zero point that other nodes compute",
        why="the parser must see at build time that it is zero",
        remedy="fold constants, or quantise statically instead of dynamically",
        find=_zero_point_computed,
        stricter="it folds what leads to the zero point, which older parsers do not",
    ),
    Rule(
        id="zero-point-value",
        severity=ERROR,
        looks_for="a zero point other than zero",
        why="TensorRT's quantisation is symmetric: the parser refuses it (outside DLA)",
        remedy=_SYMMETRIC,
        find=_zero_point_value,
    ),
    Rule(
        id="unsigned-type",
        severity=ERROR,
        looks_for="uint8 behind QuantizeLinear or DequantizeLinear",
        why="the parser warns and takes it for int8, which clips at 127: wrong numbers, not a refusal",
        remedy=_SYMMETRIC,
        find=_unsigned,
    ),
    Rule(
        id="integer-bias",
        severity=ERROR,
        looks_for="an INT32 tensor behind DequantizeLinear: ONNX Runtime's quantised biases",
        why="DequantizeLinear takes 8- and 4-bit types only",
        remedy="quantise with QuantizeBias: False; biases stay float and are fused all the same",
        find=_integer_bias,
    ),
    Rule(
        id="quantised-type",
        severity=ERROR,
        looks_for="a quantised type other than INT8: int4, float8, float4, int16",
        why="one file serves devices from Orin on, which have neither FP8 nor FP4; INT16 nothing has",
        remedy="quantise to INT8",
        find=_other_types,
    ),
    Rule(
        id="scale-blocked",
        severity=ERROR,
        looks_for="scales in blocks",
        why="TensorRT takes blocks for INT4 and FP4 weights only",
        remedy="one scale per tensor for activations, one per output channel for weights",
        find=_blocked,
    ),
    Rule(
        id="qoperator",
        severity=ERROR,
        looks_for="QLinearConv, ConvInteger, DynamicQuantizeLinear and other operators on integers",
        why="the parser knows quantisation as Q/DQ pairs only",
        remedy="quantise with QuantFormat.QDQ, statically",
        find=_qoperator,
    ),
    Rule(
        id="scale-computed",
        severity=ERROR,
        looks_for="a scale that other nodes compute",
        why="scales are constants of the engine",
        remedy="fold constants, or quantise statically",
        find=_scale_computed,
        stricter="it folds what leads to the scale, which older parsers do not",
    ),
    Rule(
        id="scale-value",
        severity=ERROR,
        looks_for="a scale that is zero, negative, infinite or not a number",
        why="the parser demands positive scales; a scale of zero is a channel that calibration never saw",
        remedy="calibrate on more samples; give dead channels any positive scale",
        find=_scale_value,
        stricter="an infinite scale, behind which every value is zero",
    ),
    Rule(
        id="scale-type",
        severity=ERROR,
        looks_for="scales other than float32, or float16 in a float16 network",
        why="in a strongly typed network the scale's type is the type that follows",
        remedy="store scales as float32",
        find=_scale_type,
    ),
    Rule(
        id="scale-shape",
        severity=ERROR,
        looks_for="as many scales as the axis has no channels, or another count of zero points",
        why="the parser compares the counts and refuses",
        remedy="one scale, or one for each channel of the axis",
        find=_scale_shape,
    ),
    Rule(
        id="scale-axis",
        severity=ERROR,
        looks_for="weights with scales on another axis than their output channels",
        why="INT8 kernels rescale sums, and a sum has one output channel: only those scales can be taken out of it",
        remedy="axis 0 for Conv and transposed Gemm, 1 for ConvTranspose and Gemm, the last for MatMul",
        find=_scale_axis,
        stricter="what it makes of the weights it does not say",
    ),
    Rule(
        id="activation-per-channel",
        severity=ERROR,
        looks_for="activations with a scale per channel",
        why="TensorRT takes activations per tensor",
        remedy="per_channel applies to weights; calibrate activations per tensor",
        find=_activation_scales,
        stricter="what it makes of the scales it does not say",
    ),
    Rule(
        id="pair-scale",
        severity=ERROR,
        looks_for="a DequantizeLinear with another scale than the QuantizeLinear before it",
        why="the pair stands for rounding; with two scales it also multiplies, and fusion is free to take either",
        remedy="share one scale; see DedicatedQDQPair",
        find=_pair_scale,
        stricter="which of the two scales counts it does not say",
    ),
    Rule(
        id="pair-missing",
        severity=ERROR,
        looks_for="integers that go to, or come from, something else than the other half of a pair",
        why="only pairs, stored weights and integer inputs or outputs are understood; no operator has INT8 of its own",
        remedy="put DequantizeLinear right behind QuantizeLinear",
        find=_pair_missing,
        stricter="a Transpose, which only moves values, may stand between; older parsers refuse it",
    ),
    Rule(
        id="half-quantised",
        severity=WARNING,
        looks_for="a convolution or product of which only one operand is quantised",
        why="it runs in float, and the pair costs accuracy for nothing",
        remedy="quantise both operands or neither",
        find=_half_quantised,
    ),
    Rule(
        id="pair-unfused",
        severity=WARNING,
        looks_for="a pair before an operator without INT8 kernels (ConvTranspose in 3D, Softmax, gates, ...)",
        why="TensorRT rounds, converts back and computes in float",
        remedy="leave these operators out of the quantisation",
        find=_unfused,
    ),
    Rule(
        id="pair-before-activation",
        severity=WARNING,
        looks_for="a pair between a convolution and its activation",
        why="it keeps the two from being fused, and spends half of the range on values that the activation removes",
        remedy="quantise behind the activation: list it among the operators to quantise, or remove the pair",
        find=_before_activation,
    ),
    Rule(
        id="int8-channels",
        severity=WARNING,
        looks_for=f"a quantised convolution whose input channels are no multiple of {CHANNELS}",
        why="INT8 kernels read channels in fours: padding at best; a stem of three was reported to have no kernel",
        remedy="leave it in float: it is the first layer, mostly, and cheap",
        find=_channels,
    ),
)
