"""A network to ONNX: BatchNorms folded, exported with a dynamic batch, cleaned, checked, and compared with torch."""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from edgehem.errors import UsageError
from edgehem.export import checkpoint, parity
from edgehem.export.graph import cleaned, finished, interface, record_of
from edgehem.export.models.hemorrhagenet import HemorrhageNet
from edgehem.preprocess import PreprocessSpec

__all__ = [
    "cleaned",
    "export_onnx",
    "fuse_batch_norms",
    "load_checkpoint",
]

OPSET = 18
"""What the exporter writes of itself: asked for less it converts, and sometimes silently does not."""
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
LARGEST_BATCH = 64
"""Upper bound of the batch while exporting; the graph itself has none."""


def load_checkpoint(path: Path, spec: PreprocessSpec, *, weights: str | None = None) -> HemorrhageNet:
    """Load a checkpoint into HemorrhageNet; see :mod:`edgehem.export.checkpoint` for the record and for other systems.

    Parameters
    ----------
    path : Path
    spec : PreprocessSpec
        Gives planes and channels.
    weights : str, optional
        ``raw`` or ``ema``, where the file has both.

    Raises
    ------
    UsageError
        If the file cannot be read safely, or has other keys or shapes; the message lists them.
    """
    model = HemorrhageNet(slices=spec.shape[0], channels=len(spec.windows))
    checkpoint.load(model, checkpoint.read(path, weights=weights), called="hemorrhagenet")
    return model.eval()


def fuse_batch_norms(model: nn.Module) -> int:
    """Fold every BatchNorm into the convolution before it, in place: quantisation wants plain convolutions.

    Where modules say that one follows the other: in an ``nn.Sequential`` whose ``forward`` is its own, nested ones and
    MONAI's ``Convolution`` included. A convolution that is used twice, hooked or parametrised is left alone. The
    arithmetic is in float64, so that the folded weights are the nearest float32 to the exact ones.

    Parameters
    ----------
    model : Module
        In evaluation mode.

    Returns
    -------
    int
        How many were folded.
    """
    uses = Counter(id(child) for module in model.modules() for child in module._modules.values() if child is not None)
    owners = Counter(id(tensor) for module in model.modules() for tensor in module._parameters.values())
    folded = 0
    for module in list(model.modules()):
        previous: tuple[nn.Module, str, nn.Module] | None = None
        for parent, name, leaf in list(_chain(module)):
            if isinstance(leaf, (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)):
                continue
            if previous is not None and _foldable(previous[2], leaf, uses, owners):
                holder, key, convolution = previous
                setattr(holder, key, _folded(convolution, leaf))
                setattr(parent, name, nn.Identity())
                folded += 1
                previous = None
            else:
                previous = parent, name, leaf
    return folded


def export_onnx(
    model: nn.Module,
    examples: Mapping[str, torch.Tensor],
    out: Path,
    *,
    outputs: Sequence[str],
    system: str,
    draw: parity.Draw | None = None,
    budget: parity.Budget = parity.FLOAT,
    batches: Sequence[int] = parity.BATCHES,
    seed: int = 0,
) -> dict[str, Any]:
    """Export a network and hold it against torch, and its optimised form against itself.

    Same weights, same versions: same bytes, wherever and whenever.

    Parameters
    ----------
    model : Module
        Not changed. Exported in evaluation mode and float32.
    examples : mapping of str to tensor
        One for each argument of ``forward``, in order; the names are the graph's. Axis 0 is the batch.
    out : Path
        ``.onnx``.
    outputs : sequence of str
        Names of what the network returns, in order.
    system : str
        For the graph's metadata.
    draw : callable, optional
        Makes the inputs of the comparison; by default of the examples' shapes and ranges.
    budget, batches, seed
        Of the comparison.

    Returns
    -------
    dict
        The stage's record: opset, nodes, hash, interface, folded BatchNorms, agreement per output.

    Raises
    ------
    UsageError
        If torch cannot export the network, or it returns other than `outputs`.
    BudgetError
        If an output leaves the budget at any batch size; nothing is written then.
    """
    network = copy.deepcopy(model).eval().to(device="cpu", dtype=torch.float32)
    plain = copy.deepcopy(network)  # with its BatchNorms: what was trained is what the graph is held against
    folded = fuse_batch_norms(network)
    pairs = {name: _pair(name, value) for name, value in examples.items()}
    _check_outputs(plain, pairs, outputs)
    graph, data = finished(_exported(network, pairs, outputs), system=system)
    if unused := set(pairs) - set(interface(graph)["inputs"]):
        raise UsageError(f"the network does not use its input {', '.join(sorted(unused))}")
    draw = draw or parity.like(pairs)
    with_torch = parity.against_torch(plain, data, draw, outputs=outputs, batches=batches, seed=seed, budget=budget)
    optimised = parity.between_optimisations(data, draw, batches=batches[:1], seed=seed, budget=budget)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return {
        **record_of(graph, data),
        "folded_batch_norms": folded,
        "left_batch_norms": sum(node.op_type == "BatchNormalization" for node in graph.graph.node),
        "parity": {name: agreement.worst for name, agreement in with_torch.items()},
        "against_torch": parity.as_record(with_torch),
        "optimised": parity.as_record(optimised),
        "batches": list(batches),
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__},
    }


def _chain(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """What runs in a plain sequence one after the other: holder, name, module."""
    if not _plain_sequence(module):
        return
    for name, child in module._modules.items():
        if child is None:
            continue
        if _plain_sequence(child):
            yield from _chain(child)
        else:
            yield module, name, child


def _plain_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and not _hooked(module)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _foldable(first: nn.Module, second: nn.Module, uses: Counter[int], owners: Counter[int]) -> bool:
    """Whether a convolution's output goes to this BatchNorm alone, and its weights are its own."""
    return (
        isinstance(first, CONVOLUTIONS)
        and isinstance(second, _BatchNorm)
        and first.out_channels == second.num_features
        and second.running_mean is not None
        and not (isinstance(first, TRANSPOSED) and first.groups > 1)  # its weights have other axes
        and not any(module.training or _hooked(module) or is_parametrized(module) for module in (first, second))
        and uses[id(first)] == uses[id(second)] == 1
        and all(owners[id(tensor)] == 1 for tensor in first.parameters())
    )


def _folded(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    wide: Any = copy.deepcopy(convolution).double()
    statistics: Any = copy.deepcopy(norm).double()
    fused: nn.Module = fuse_conv_bn_eval(wide, statistics, transpose=isinstance(convolution, TRANSPOSED))
    return fused.float()


def _pair(name: str, value: torch.Tensor) -> torch.Tensor:
    """An example with a batch of two: torch.export takes a batch of one for a constant."""
    if not value.ndim or not value.shape[0]:
        raise UsageError(f"the example of {name!r} has no batch axis")
    return value[:1].repeat(2, *[1] * (value.ndim - 1)) if value.shape[0] == 1 else value[:2]


def _check_outputs(model: nn.Module, examples: Mapping[str, torch.Tensor], outputs: Sequence[str]) -> None:
    try:
        with torch.inference_mode():
            returned = model(*examples.values())
    except Exception as error:  # whatever the user's network raises
        shapes = {name: tuple(value.shape) for name, value in examples.items()}
        raise UsageError(f"the network fails on the examples {shapes} ({type(error).__name__}: {error})") from error
    count = len(parity.flat(returned))
    if count != len(outputs) or len(set(outputs)) < count:
        raise UsageError(f"the network returns {count} tensors; named were {', '.join(outputs) or 'none'}")
    if isinstance(returned, Mapping) and list(returned) != list(outputs):
        raise UsageError(f"the network returns {', '.join(map(str, returned))}; named were {', '.join(outputs)}")


def _exported(model: nn.Module, examples: Mapping[str, torch.Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # it names every operator of torchvision it does without
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch itself
            program = torch.onnx.export(
                model,
                tuple(examples.values()),
                input_names=list(examples),
                output_names=list(outputs),
                dynamic_shapes=tuple({0: batch} for _ in examples),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # torch.export's reasons come as many types
        reason = str(error.__cause__ or error).strip().partition("\n")[0][:300]
        raise UsageError(
            f"torch cannot export the network with a dynamic batch ({type(error).__name__}: {reason}); a branch on "
            "values or a batch written down as a number are the usual causes"
        ) from error
    finally:
        exporter.setLevel(level)
    if program is None:
        raise UsageError("torch.onnx.export returned nothing")
    model_proto: onnx.ModelProto = program.model_proto
    return model_proto
