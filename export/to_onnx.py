"""Checkpoint to ONNX: weights checked key by key, graph exported, cleaned, checked, and compared with torch."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.errors import BudgetError, UsageError
from edgehem.export.models.hemorrhagenet import HemorrhageNet
from edgehem.preprocess import PreprocessSpec

INPUTS = ("image", "valid")
OUTPUTS = ("logits", "attention", "slice_logits", "blood_map")
PARITY = 1e-4
"""Largest difference from torch, relative to the output's own range, on seeded random inputs."""


def load_checkpoint(path: Path, spec: PreprocessSpec) -> HemorrhageNet:
    """Load a state dict into HemorrhageNet.

    Parameters
    ----------
    path : Path
        ``.pt``, loaded with ``weights_only``; a Lightning-style ``state_dict`` entry and ``model.`` or ``module.``
        prefixes are understood.
    spec : PreprocessSpec
        Gives planes and channels.

    Raises
    ------
    UsageError
        If the file is missing, is a pickled module, or has other keys or shapes; the message lists them.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the unpickler meets
        raise UsageError(
            f"{path.name} is no state dict that can be loaded safely ({type(error).__name__}); "
            "save one with torch.save(model.state_dict(), path)"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UsageError(f"{path.name} holds no state dict of tensors")
    for prefix in ("model.", "module."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    model = HemorrhageNet(slices=spec.shape[0], channels=len(spec.windows))
    expected = model.state_dict()
    problems = [f"missing {k}" for k in expected if k not in state]
    problems += [f"unexpected {k}" for k in state if k not in expected]
    problems += [
        f"{k} has shape {tuple(v.shape)}, not {tuple(expected[k].shape)}"
        for k, v in state.items()
        if k in expected and v.shape != expected[k].shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise UsageError(f"{path.name} does not fit hemorrhagenet: {shown}")
    model.load_state_dict(state)
    return model.eval()


def fuse_batch_norms(model: nn.Module) -> None:
    """Fold every BatchNorm into the convolution before it, in place: quantisation wants plain convolutions."""
    for module in model.modules():
        if isinstance(module, nn.Sequential) and len(module) >= 2:
            first, second = module[0], module[1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(first, second), nn.Identity()


def to_onnx(model: HemorrhageNet, spec: PreprocessSpec, out: Path) -> dict[str, Any]:
    """Export a model and hold it against torch.

    Parameters
    ----------
    model : HemorrhageNet
        In evaluation mode; its BatchNorms are folded in place.
    spec : PreprocessSpec
    out : Path
        ``.onnx``.

    Returns
    -------
    dict
        The stage's record: opset, nodes, hash, parity per output.

    Raises
    ------
    BudgetError
        If an output leaves the parity budget; nothing is written then.
    """
    fuse_batch_norms(model)
    planes, rows, columns = spec.shape
    shape = (planes, len(spec.windows), rows, columns)
    example = (torch.rand(2, *shape), torch.ones(2, planes))
    batch = torch.export.Dim("batch", min=1, max=64)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # it names every operator of torchvision it does without
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch itself
            program = torch.onnx.export(
                model,
                example,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: batch}, {0: batch}),
                dynamo=True,
                opset_version=18,
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    if program is None:
        raise ValueError("torch.onnx.export returned nothing")
    graph = cleaned(program.model_proto)
    onnx.checker.check_model(graph, full_check=True)
    data = graph.SerializeToString()
    differences = parity(model, data, shape)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return {
        "opset": graph.opset_import[0].version,
        "nodes": len(graph.graph.node),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parity": differences,
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__},
    }


def cleaned(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Without source paths, stack traces and the exporter's notes, which leak and make hashes unstable."""
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
        value.doc_string = ""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    graph.doc_string = graph.graph.doc_string = ""
    graph.producer_name = "edgehem"
    return graph


def parity(model: nn.Module, graph: bytes, shape: tuple[int, ...], seed: int = 0) -> dict[str, float]:
    """Largest difference between torch and ONNX Runtime per output, relative to the output's range.

    Raises
    ------
    BudgetError
        Above :data:`PARITY`.
    """
    rng = np.random.default_rng(seed)
    image = rng.random((1, *shape), np.float32)
    valid = np.ones((1, shape[0]), np.float32)
    valid[:, :5] = 0
    with torch.inference_mode():
        expected = model(torch.from_numpy(image), torch.from_numpy(valid))
    got = OnnxRuntimeSession(graph).run({"image": image, "valid": valid})
    worst = {}
    for name, value in zip(OUTPUTS, expected, strict=True):
        reference = value.numpy()
        span = float(np.abs(reference).max()) or 1.0
        worst[name] = float(np.abs(got[name] - reference).max()) / span
    bad = {name: value for name, value in worst.items() if not value <= PARITY}
    if bad:
        raise BudgetError(f"ONNX and torch disagree: {bad} (budget {PARITY})")
    return worst
