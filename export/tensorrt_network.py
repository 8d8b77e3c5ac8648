"""Rules of TensorRT readiness about the network itself: operators, types, shapes, interface, names.

Operators and their limits are those that TensorRT 10.15's parser documents (onnx-tensorrt, ``docs/operators.md``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto

from edgehem.export.graph import OPSETS, opset
from edgehem.export.tensorrt_quantised import QOPERATORS
from edgehem.export.tensorrt_view import ERROR, WARNING, Place, Rule, View, attribute, label, sizes, type_name

TRIED_OPSET = 21
"""Latest one seen to be taken by a builder."""
SUPPORTED = frozenset(
    """Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
    GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If
    InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
    LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression
    NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT Scan
    Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze
    Upsample Where Xor""".split()  # noqa: SIM905 - nine lines, not 150
)
CONTROL_FLOW = ("If", "Loop", "Scan")
BY_VALUE = ("NonZero", "NonMaxSuppression", "Compress", "Unique")
"""Operators whose output's shape depends on values."""
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
PLUGINS = ("DeformConv", "RoiAlign")
"""Operators that the parser hands to a plugin."""
MOST_OF_TOP_K = 3839
INTERFACE = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8)
INTEGERS = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)
KNOWN_TYPES = frozenset(
    (
        *(*INTERFACE, *INTEGERS, TensorProto.BFLOAT16),
        # Their own rules name these.
        *(TensorProto.DOUBLE, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT4E2M1, TensorProto.INT4),
    )
)


def _invalid(view: View) -> Iterator[Place]:
    if view.problem:
        yield view.given.graph.name or "graph", view.problem


def _opset(view: View) -> Iterator[Place]:
    version = opset(view.given)
    if version not in OPSETS:
        yield "ai.onnx", f"opset {version}, supported are {OPSETS[0]} to {OPSETS[-1]}"


def _new_opset(view: View) -> Iterator[Place]:
    version = opset(view.given)
    if TRIED_OPSET < version <= OPSETS[-1]:
        yield "ai.onnx", f"opset {version}"


def _domain(view: View) -> Iterator[Place]:
    for node in view.nodes:
        if node.domain not in ("", "ai.onnx"):
            yield label(node), f"{node.domain}.{node.op_type}"


def _unsupported(view: View) -> Iterator[Place]:
    for node in view.nodes:
        if node.domain in ("", "ai.onnx") and node.op_type not in SUPPORTED and node.op_type not in QOPERATORS:
            yield label(node), node.op_type


def _kinds(*kinds: str) -> Callable[[View], Iterator[Place]]:
    return lambda view: ((label(node), node.op_type) for node in view.of(*kinds))


def _constant(view: View, node: onnx.NodeProto, index: int) -> bool:
    """Whether an optional input is absent or stored."""
    return len(node.input) <= index or not node.input[index] or node.input[index] in view.stored


def _pooling(view: View, node: onnx.NodeProto) -> str:
    if any(step != 1 for step in attribute(node, "dilations", [])):
        return "dilations"
    if len(node.output) > 1 and node.output[1]:
        return "the output of indices"
    return "" if len(attribute(node, "kernel_shape", [])) in (2, 3) else "another pooling than in 2 or 3 dimensions"


def _resize(view: View, node: onnx.NodeProto) -> str:
    modes = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
    if attribute(node, "mode", "nearest") not in ("nearest", "linear"):
        return f"mode {attribute(node, 'mode')}"
    if attribute(node, "coordinate_transformation_mode", "half_pixel") not in modes:
        return f"coordinates {attribute(node, 'coordinate_transformation_mode')}"
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return "an aspect ratio policy"
    return "antialiasing" if attribute(node, "antialias", 0) else ""


def _top_k(view: View, node: onnx.NodeProto) -> str:
    count = view.values(node.input[1]) if len(node.input) > 1 else None
    if count is not None and int(np.max(count)) > MOST_OF_TOP_K:
        return f"more than {MOST_OF_TOP_K} values"
    return "" if attribute(node, "sorted", 1) else "an unsorted result"


def _einsum(view: View, node: onnx.NodeProto) -> str:
    operands = str(attribute(node, "equation", "")).partition("->")[0].replace(" ", "")
    if "..." in operands:
        return "an ellipsis"
    return "a diagonal" if any(len(set(part)) < len(part) for part in operands.split(",")) else ""


def _training(view: View, node: onnx.NodeProto) -> str:
    if node.op_type == "BatchNormalization":
        return "training mode" if attribute(node, "training_mode", 0) else ""
    if not _constant(view, node, 2):
        return "a computed training mode"
    values = view.values(node.input[2]) if len(node.input) > 2 else None
    return "training mode" if values is not None and values.any() else ""


def _recurrent(_: View, node: onnx.NodeProto) -> str:
    return next((name for name in ("layout", "input_forget") if attribute(node, name, 0)), "")


def _slice(view: View, node: onnx.NodeProto) -> str:
    shape, starts = view.shapes.get(node.input[0]), view.shapes.get(node.input[1]) if len(node.input) > 1 else None
    if shape is None or not starts or (len(node.input) > 3 and node.input[3]):
        return ""
    return "" if starts[0] == len(shape) else "neither axes nor a start for each axis"


def _l_pooling(view: View, node: onnx.NodeProto) -> str:
    return _pooling(view, node) or ("" if attribute(node, "p", 2) in (1, 2) else f"p = {attribute(node, 'p')}")


def _fourier(view: View, node: onnx.NodeProto) -> str:
    return next((f"a computed {node.input[index]}" for index in (1, 3) if not _constant(view, node, index)), "")


def _token_scatter(view: View, node: onnx.NodeProto) -> str:
    shape = view.shapes.get(node.input[0])
    if attribute(node, "mode", "linear") != "linear":
        return f"mode {attribute(node, 'mode')}"
    return "" if shape is None or len(shape) == 4 else f"{len(shape)} axes instead of 4"


def _no_reduction(_: View, node: onnx.NodeProto) -> str:
    return "" if attribute(node, "reduction", "none") == "none" else "a reduction"


def _float_clip(view: View, node: onnx.NodeProto) -> str:
    return "integers of 8 bits" if view.types.get(node.input[0]) in (TensorProto.INT8, TensorProto.UINT8) else ""


def _grid_sample(view: View, node: onnx.NodeProto) -> str:
    shape = view.shapes.get(node.input[0])
    return "" if shape is None or len(shape) == 4 else f"{len(shape)} axes instead of 4"


def _axes(index: int) -> Callable[[View, onnx.NodeProto], str]:
    return lambda view, node: "" if _constant(view, node, index) else f"a computed {node.input[index]}"


_REDUCTIONS = [name for name in SUPPORTED if name.startswith("Reduce")]
LIMITS: dict[str, Callable[[View, onnx.NodeProto], str]] = {
    **dict.fromkeys(("MaxPool", "AveragePool"), _pooling),
    **dict.fromkeys(("Dropout", "BatchNormalization"), _training),
    **dict.fromkeys((*_REDUCTIONS, "Squeeze", "Unsqueeze", "CumSum", "OneHot"), _axes(1)),
    "Resize": _resize,
    "TopK": _top_k,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    **dict.fromkeys(("ScatterND", "ScatterElements"), _no_reduction),
    # Seen on a builder: most shapes have no kernel of their own, and it takes no other way.
    "Attention": lambda _, node: "queries, keys and values in one operator, which most shapes have no kernel for",
    "Clip": _float_clip,
    "LpPool": _l_pooling,
    "STFT": _fourier,
    "Slice": _slice,
    "TensorScatter": _token_scatter,
    "LayerNormalization": lambda _, node: "a second output" if any(node.output[1:]) else "",
    "GridSample": _grid_sample,
}


def _limits(view: View) -> Iterator[Place]:
    for node in view.nodes:
        if node.op_type in LIMITS and (reason := LIMITS[node.op_type](view, node)):
            yield label(node), f"{node.op_type} with {reason}"


def _interface_type(view: View) -> Iterator[Place]:
    for value in (*view.inputs, *view.outputs):
        if not value.type.HasField("tensor_type"):
            yield value.name, "no tensor"
        elif view.types[value.name] not in (*INTERFACE, *INTEGERS):
            yield value.name, type_name(view.types[value.name])


def _interface_integer(view: View) -> Iterator[Place]:
    for value in (*view.inputs, *view.outputs):
        if view.types.get(value.name) in INTEGERS:
            yield value.name, type_name(view.types[value.name])


def _interface_name(view: View) -> Iterator[Place]:
    for number, value in enumerate((*view.inputs, *view.outputs)):
        if not value.name:
            yield f"number {number}", "no name"


def _dynamic_axis(view: View) -> Iterator[Place]:
    for value in view.inputs:
        shape = sizes(value)
        if shape is None:
            yield value.name, "unknown shape"
        for axis, size in enumerate(shape or ()):
            if axis and not (isinstance(size, int) and size > 0):
                yield value.name, f"axis {axis} is {size or 'unknown'}"


def _fixed_batch(view: View) -> Iterator[Place]:
    for value in view.inputs:
        if (shape := sizes(value)) and isinstance(shape[0], int):
            yield value.name, f"a batch of {shape[0]}"


def _output_shape(view: View) -> Iterator[Place]:
    for value in view.outputs:
        shape = view.shapes.get(value.name)
        if shape is None:
            yield value.name, "unknown shape"
        for axis, size in enumerate(shape or ()):
            if axis and not isinstance(size, int):
                yield value.name, f"axis {axis} is {size or 'unknown'}"


def _shape_unknown(view: View) -> Iterator[Place]:
    batches = {shape[0] for value in view.inputs if (shape := sizes(value))}
    ends = {value.name for value in view.outputs}
    for node in view.graph.node:
        for name in node.output:
            shape = view.shapes.get(name)
            loose = [size for size in (shape or ())[1:] if not isinstance(size, int) and size not in batches - {None}]
            if name and name not in ends and name not in view.stored and (shape is None or loose):
                yield label(node), "unknown shape" if shape is None else f"shape {shape}"


def _int64(view: View) -> Iterator[Place]:
    limits = np.iinfo(np.int32)
    for name, tensor in view.stored.items():
        values = view.values(name) if tensor.data_type == TensorProto.INT64 else None
        if values is None or not values.size or (values.min() >= limits.min and values.max() <= limits.max):
            continue
        # Slice writes "to the end" as the largest number there is, and clips it.
        if any(user.op_type != "Slice" or user.input[0] == name for user in view.consumers.get(name, ())):
            yield name, f"{values.min()} to {values.max()}"


def _typed(view: View) -> Iterator[tuple[str, int]]:
    yield from view.types.items()
    for node in view.of("Cast"):
        yield label(node), int(attribute(node, "to", 0))


def _float64(view: View) -> Iterator[Place]:
    return ((name, "DOUBLE") for name, code in _typed(view) if code == TensorProto.DOUBLE)


def _tensor_type(view: View) -> Iterator[Place]:
    return ((name, type_name(code)) for name, code in _typed(view) if code and code not in KNOWN_TYPES)


def _external(view: View) -> Iterator[Place]:
    for name, tensor in view.stored.items():
        if tensor.data_location == TensorProto.EXTERNAL:
            yield name, "data in another file"


def _sparse(view: View) -> Iterator[Place]:
    return ((tensor.values.name, "sparse") for tensor in view.graph.sparse_initializer)


def _duplicates(view: View) -> Iterator[Place]:
    made = [name for node in view.graph.node for name in node.output if name]
    made += [tensor.name for tensor in view.graph.initializer] + [value.name for value in view.inputs]
    return ((name, f"{count} times") for name, count in Counter(made).items() if count > 1)


def _node_names(view: View) -> Iterator[Place]:
    names = Counter(node.name for node in view.given.graph.node)
    for name, count in names.items():
        if count > 1 or not name:
            yield name or "nodes without a name", f"{count} times"


_EXPORT_AGAIN = "export again, or write the network without it"
STRICTER = {
    "opset": "opsets 12 and 25, of which nothing else was tried",
    "operator-limits": "cubic Resize, Einsum's ellipsis and diagonal and unsorted TopK, which older parsers refuse",
    "control-flow": "an If whose condition is stored; a Loop it refused",
    "random": "with numbers of its own",
    "dynamic-axis": "with a profile over that axis",
    "output-shape": "where the axis is an input's, with a profile over that",
    "int64-range": "where the number fits once it is used",
    "float64": "cast down to float32",
}
"""See :attr:`Rule.stricter`."""

RULES = tuple(
    Rule(
        id=name, severity=severity, looks_for=looks_for, why=why, remedy=remedy, find=find,
        stricter=STRICTER.get(name, ""),
    )
    for name, severity, looks_for, why, remedy, find in (
        ("graph-invalid", ERROR, "what ONNX's checker or shape inference refuses",
         "a parser may take it, and nobody knows for what", "export again; onnx.checker says more", _invalid),
        ("opset", ERROR, f"opsets outside {OPSETS[0]} to {OPSETS[-1]}",
         "Q/DQ per channel begins with 13; 24 is the last that TensorRT 10.15 documents", "export with opset 18",
         _opset),
        ("opset-untried", WARNING, f"opsets above {TRIED_OPSET}",
         f"{TRIED_OPSET} is the latest seen to be taken by a builder; JetPack's parsers are older than the newest",
         "export with opset 18", _new_opset),
        ("custom-domain", ERROR, "operators outside standard ONNX (com.microsoft and others)",
         "TensorRT would need a plugin of that name", "save without ONNX Runtime's optimisation; " + _EXPORT_AGAIN,
         _domain),
        ("operator-unsupported", ERROR, "standard operators that the parser does not know (sequences, strings, ...)",
         "they are not in TensorRT's list", _EXPORT_AGAIN, _unsupported),
        ("operator-limits", ERROR, "supported operators in a form that is not (cubic Resize, indices of MaxPool, ...)",
         "the list names these limits, or a builder was seen to refuse; Einsum's are those of older parsers",
         _EXPORT_AGAIN + "; torch's exporter takes Attention apart up to opset 22", _limits),
        ("operator-plugin", WARNING, "DeformConv, RoiAlign",
         "the parser hands them to plugins: TensorRT needs its library of plugins then, and TensorRT for RTX has none",
         "write the network without them, or stay with TensorRT itself", _kinds(*PLUGINS)),
        ("control-flow", ERROR, "If, Loop, Scan",
         "supported in part, with conditions on shapes and never in INT8; a fixed grid needs none",
         "unroll loops, decide branches while exporting", _kinds(*CONTROL_FLOW)),
        ("shape-by-value", ERROR, "NonZero and others whose output's shape depends on values",
         "memory and time are no longer known before the run", "use masks of fixed shape", _kinds(*BY_VALUE)),
        ("random", ERROR, "random numbers", "TensorRT ignores the seed: no two engines agree",
         "export in evaluation mode; make noise an input", _kinds(*RANDOM)),
        ("interface-type", ERROR, "inputs and outputs other than float32, float16, int8 (or int32, int64, bool)",
         "TensorRT has no such tensors, or takes them only to cast them", "cast outside the graph", _interface_type),
        ("interface-integer", WARNING, "int32, int64 or bool inputs and outputs",
         "they are taken, as indices and tokens are; an image or a score in integers is a mistake",
         "cast outside the graph, unless they are tokens", _interface_integer),
        ("interface-name", ERROR, "inputs and outputs without a name", "an engine is fed by names",
         "name them in the export", _interface_name),
        ("dynamic-axis", ERROR, "inputs with a dynamic axis besides the batch",
         "the canonical grid is fixed: a profile over other axes costs tuning time and speed for nothing",
         "export with the batch as the only dynamic axis", _dynamic_axis),
        ("fixed-batch", WARNING, "inputs with a fixed batch", "batches of another size need another engine",
         "export with a dynamic axis 0", _fixed_batch),
        ("output-shape", ERROR, "outputs whose shape is not known but for the batch",
         "buffers are allocated before the run", "export with shapes that follow from the inputs'", _output_shape),
        ("shape-unknown", WARNING, "tensors in between whose shape cannot be inferred",
         "TensorRT infers more than ONNX, but what depends on values it allocates at run time",
         "fold constants; compute shapes while exporting", _shape_unknown),
        ("int64-range", ERROR, "stored int64 beyond int32, but for the open ends of Slice",
         "parsers before TensorRT 10 clamp them, and kernels index in int32", "store what fits int32", _int64),
        ("float64", ERROR, "float64 tensors", "TensorRT casts them down where it can, and fails where it cannot",
         "export in float32", _float64),
        ("tensor-type", ERROR, "types that TensorRT has not: strings, complex, uint16 to uint64, int16",
         "no kernel takes them", _EXPORT_AGAIN, _tensor_type),
        ("external-data", ERROR, "tensors stored in another file",
         "a bundle's graph is one file under one hash", "embed them: edgehem takes a ready ONNX so", _external),
        ("sparse", ERROR, "sparse tensors", "the parser knows dense ones", "store them dense", _sparse),
        ("duplicate-name", ERROR, "a tensor name given twice", "which of the two is meant is up to the reader",
         _EXPORT_AGAIN, _duplicates),
        ("node-name", WARNING, "nodes without a name of their own", "timings and findings name nodes",
         "name them; edgehem does where it takes in a graph", _node_names),
    )
)  # fmt: skip
