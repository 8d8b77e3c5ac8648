"""An ONNX graph as a file of ours: cleaned of what leaks, marked, checked; and a user's ready graph taken in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, external_data_helper, shape_inference

from edgehem.errors import UsageError

MAX_BYTES = 2**31 - 1
"""protobuf's limit of one message."""
OPSETS = range(13, 25)
"""13 brought Q/DQ per channel; 24 is the last one that TensorRT 10.15 documents (its parser's operators.md)."""


def cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without source paths, stack traces and the exporter's notes, which leak and make hashes unstable; in place."""
    for graph in _graphs(model.graph):
        _tidy(graph)
        for node in graph.node:
            _tidy(node)
        for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
            _tidy(value)
    for function in model.functions:
        _tidy(function)
        for node in function.node:
            _tidy(node)
    _tidy(model)
    model.producer_name, model.producer_version = "edgehem", ""
    model.domain = ""
    model.model_version = 0
    return model


def marked(model: onnx.ModelProto, *, system: str) -> onnx.ModelProto:
    """With our own metadata, in place: our version, the system, inputs and outputs. No times, no paths."""
    import edgehem

    for key, value in (
        ("edgehem.version", edgehem.__version__),
        ("edgehem.system", system),
        ("edgehem.interface", json.dumps(interface(model), separators=(",", ":"))),
    ):
        model.metadata_props.add(key=key, value=value)
    return model


def interface(model: onnx.ModelProto) -> dict[str, dict[str, dict[str, Any]]]:
    """Inputs and outputs: name to type and shape; a dynamic axis by its name, an unknown one null."""
    stored = {tensor.name for tensor in model.graph.initializer}

    def described(value: onnx.ValueInfoProto) -> dict[str, Any]:
        tensor = value.type.tensor_type
        shape = [
            axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or None) for axis in tensor.shape.dim
        ]
        return {"type": TensorProto.DataType.Name(tensor.elem_type).lower(), "shape": shape}

    return {
        "inputs": {value.name: described(value) for value in model.graph.input if value.name not in stored},
        "outputs": {value.name: described(value) for value in model.graph.output},
    }


def finished(model: onnx.ModelProto, *, system: str) -> tuple[onnx.ModelProto, bytes]:
    """A graph as it is shipped: named, cleaned, with inferred shapes, marked, checked, and in bytes.

    Raises
    ------
    UsageError
        If ONNX's own checker or its shape inference finds it wrong.
    """
    named(model)
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        marked(cleaned(inferred), system=system)
        onnx.checker.check_model(inferred, full_check=True)
    except Exception as error:  # the checker's, inference's and protobuf's share no base but Exception
        reason = str(error).strip().partition("\n")[0][:300]
        raise UsageError(f"ONNX's checker refuses the graph: {reason}") from error
    return inferred, inferred.SerializeToString(deterministic=True)


def named(model: onnx.ModelProto) -> None:
    """Give every node a name of its own, in place, that depends on the graph alone: rules and engines name nodes.

    Names that are there are kept; of nodes that share one, the first keeps it.
    """
    for graph in _graphs(model.graph):
        taken = {node.name for node in graph.node}
        seen: set[str] = {""}
        for number, node in enumerate(graph.node):
            if node.name not in seen:
                seen.add(node.name)
            else:
                name = f"{node.op_type}_{number}"
                while name in taken:
                    name += "_"
                taken.add(name)
                node.name = name


def record_of(model: onnx.ModelProto, data: bytes) -> dict[str, Any]:
    """What a stage says of a graph it wrote."""
    return {
        "opset": opset(model),
        "nodes": len(model.graph.node),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "interface": interface(model),
    }


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators; 0 if there are none."""
    return int(next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0))


def take_onnx(source: Path, out: Path, *, system: str) -> dict[str, Any]:
    """Take a user's ONNX as it is: same computation, without what leaks, with our marks.

    Parameters
    ----------
    source, out : Path
        ``.onnx``; external data beside `source` goes into `out`.
    system : str
        For the metadata.

    Returns
    -------
    dict
        :func:`record_of`, with the source's SHA-256, producer, and how much external data was taken in.

    Raises
    ------
    UsageError
        If the file is missing, empty, too large, damaged, no ONNX, of an opset out of :data:`OPSETS`, invalid, or has
        external data that lies elsewhere or is missing.
    """
    model, digest = opened(source)
    if opset(model) not in OPSETS:
        raise UsageError(
            f"{source.name} uses opset {opset(model)}; {OPSETS[0]} to {OPSETS[-1]} are supported: export it again, or "
            "see onnx.version_converter"
        )
    embedded = _embed(model, source)
    producer = f"{model.producer_name} {model.producer_version}".strip()
    checked, data = finished(model, system=system)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return {
        **record_of(checked, data),
        "format": "onnx",
        "source_sha256": digest,
        "source_producer": producer,
        "embedded_bytes": embedded,
        "versions": {"onnx": onnx.__version__},
    }


def opened(source: Path) -> tuple[onnx.ModelProto, str]:
    """A graph from a file, without its external data, and the file's SHA-256.

    Raises
    ------
    UsageError
        If it is missing, empty, too large or no ONNX.
    """
    if not source.is_file():
        raise UsageError(f"{source} is not a file")
    if not 0 < source.stat().st_size <= MAX_BYTES:
        raise UsageError(f"{source.name} has {source.stat().st_size} bytes; an ONNX file has 1 to {MAX_BYTES}")
    data = source.read_bytes()
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf has no types
        raise UsageError(f"{source.name} is damaged, or no ONNX file") from error
    if not model.ir_version or not model.graph.node or not model.opset_import:
        raise UsageError(f"{source.name} is no ONNX model: it has no version, no operator sets or no nodes")
    return model, hashlib.sha256(data).hexdigest()


def _embed(model: onnx.ModelProto, source: Path) -> int:
    """Take in external data from the graph's own folder, in place; the bytes taken."""
    folder, total = source.parent.resolve(), 0
    for tensor in _tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        info = external_data_helper.ExternalDataInfo(tensor)
        place = folder / info.location
        if Path(info.location).is_absolute() or place.is_symlink() or folder not in place.resolve().parents:
            raise UsageError(f"{source.name} wants data from {info.location!r}, which is not in its own folder")
        if not place.is_file():
            raise UsageError(f"{source.name} wants data from {info.location!r}, which is not there")
        start, length = info.offset or 0, info.length if info.length is not None else place.stat().st_size
        total += length
        if start + length > place.stat().st_size or total > MAX_BYTES:
            raise UsageError(f"{source.name} wants more data from {info.location!r} than there is, or than fits 2 GiB")
        external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.ClearField("data_location")  # as in a file that never had any: same bytes, same hash
        del tensor.external_data[:]
    return total


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor, attributes included."""
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph in its nodes' attributes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _tidy(message: Any) -> None:
    if hasattr(message, "metadata_props"):
        del message.metadata_props[:]
    if hasattr(message, "doc_string"):
        message.doc_string = ""
