"""Static INT8: explicit symmetric Q/DQ that a strongly typed TensorRT network takes.

The encoder's convolutions are quantised; the first convolution, the blood map and the attention head stay in float,
where they cost next to nothing and would lose most.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgehem import kernels
from edgehem.errors import BudgetError, UsageError
from edgehem.export.samples import Cache
from edgehem.export.to_onnx import cleaned
from edgehem.preprocess import PreprocessSpec


def network_input(cache: Cache, index: int, spec: PreprocessSpec) -> dict[str, npt.NDArray[Any]]:
    """A cached sample as the graph reads it: image [1, Z, C, Y, X], valid [1, Z]."""
    image = kernels.window(cache.hu[index].astype(np.float32), spec.kernel_windows)
    return {"image": image[None], "valid": cache.valid[index][None].astype(np.float32)}


def quantisable(graph: onnx.ModelProto) -> list[str]:
    """Names of the convolutions to quantise: two-dimensional, not the first, and not a 1 × 1 (the blood map)."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    image = graph.graph.input[0].name
    reached = {image}
    chosen = []
    for node in graph.graph.node:
        if node.op_type == "Reshape" and node.input[0] in reached:
            reached.add(node.output[0])
        if node.op_type != "Conv":
            continue
        kernel = sizes.get(node.input[1], ())[2:]
        if len(kernel) == 2 and min(kernel) > 1 and node.input[0] not in reached:
            chosen.append(node.name)
    return chosen


class _Reader:
    """Feeds calibration samples to ONNX Runtime's quantiser one at a time."""

    def __init__(self, cache: Cache, spec: PreprocessSpec, count: int, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(cache))[:count]
        self._samples: Iterator[dict[str, npt.NDArray[Any]]] = (network_input(cache, int(i), spec) for i in order)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """The next sample, None at the end."""
        return next(self._samples, None)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep ONNX Runtime's advice to pre-process the graph out of the root logger: it was exported for this."""

    def wanted(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)


def quantize(
    source: Path, out: Path, cache: Cache, spec: PreprocessSpec, *, count: int = 48, seed: int = 0
) -> dict[str, Any]:
    """Quantise a float graph.

    Parameters
    ----------
    source, out : Path
        ``.onnx`` in, ``.onnx`` out.
    cache : Cache
        Calibration samples; at most `count` are used.
    spec : PreprocessSpec
    count, seed : int

    Returns
    -------
    dict
        The stage's record.

    Raises
    ------
    UsageError
        If there are no calibration samples or nothing to quantise.
    BudgetError
        If the result is not in the form TensorRT accepts.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if not len(cache):
        raise UsageError("quantisation needs calibration studies")
    names = quantisable(onnx.load(source))
    if not names:
        raise UsageError(f"{source.name} has no convolution to quantise")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _without_advice():
        warnings.simplefilter("ignore")
        target = Path(folder) / "int8.onnx"
        quantize_static(
            str(source),
            str(target),
            _Reader(cache, spec, count, seed),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_quantize=names,
            op_types_to_quantize=["Conv"],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "DedicatedQDQPair": True,
                "QuantizeBias": False,
                "AddQDQPairToWeight": False,
            },
        )
        graph = cleaned(onnx.load(target))
    refused = tensorrt_refusals(graph)
    if refused:
        raise BudgetError(f"TensorRT would refuse the quantised graph: {'; '.join(refused)}")
    onnx.checker.check_model(graph)
    data = graph.SerializeToString()
    out.write_bytes(data)
    return {
        "form": "qdq-s8",
        "method": "MinMax, symmetric, weights per channel",
        "convolutions": len(names),
        "float": "first convolution, blood map, attention head",
        "calibration_studies": min(count, len(cache)),
        "seed": seed,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }


def tensorrt_refusals(graph: onnx.ModelProto) -> list[str]:
    """Why TensorRT's parser would refuse a Q/DQ graph; empty when it would not, by the rules known so far."""
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    found = set()
    for node in graph.graph.node:
        if node.domain not in ("", "ai.onnx"):
            found.add(f"operator {node.domain}.{node.op_type} is not standard ONNX")
        if node.op_type in ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"):
            found.add(f"{node.op_type} is not the Q/DQ form")
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if len(node.input) > 2 and node.input[2]:
            zero = tensors.get(node.input[2])
            if zero is None:
                found.add("a zero point is computed, not stored")
            elif zero.data_type != onnx.TensorProto.INT8:
                found.add(f"zero point of type {onnx.TensorProto.DataType.Name(zero.data_type)}, not INT8")
            elif onnx.numpy_helper.to_array(zero).any():
                found.add("a zero point is not zero")
        stored = tensors.get(node.input[0])
        if stored is not None and stored.data_type == onnx.TensorProto.INT32:
            found.add("a bias is stored as INT32 behind DequantizeLinear")
    return sorted(found)
