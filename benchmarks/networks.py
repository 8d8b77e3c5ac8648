"""Networks to compare engines with: public encoders and ours, their weights drawn by seed, as graphs of every form.

Weights are random, but activations are not absurd: BatchNorms get their statistics from images of smooth noise. So
speed is that of trained networks; what INT8 costs in accuracy is another matter, and needs trained weights and studies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgehem.backends import Backend
from edgehem.benchmarks.peers import nncf
from edgehem.bundle import MANIFEST, SCHEMA, Bundle, Graph, Head, Manifest
from edgehem.errors import EdgehemError, MissingExtraError
from edgehem.preprocess import PreprocessSpec

LARGE = ("DenseNet169", "InceptionResNetV2", "InceptionV4", "SEResNet101")
"""Those that geometric means are taken over."""
NAMES = ("Compact", "MobileNetV3Small", *LARGE)
SMALL = NAMES[:2]

CHANNELS, SIZE = 3, 256
SETTLING, CALIBRATION, PROBES = 16, 16, 2
"""Images for BatchNorms' statistics and for INT8's ranges; inputs that engines are asked. No image comes twice."""
SHIFT = 1.0
"""Bias of every BatchNorm. With 0, random layers make more and more of a rounding error, as trained ones do not:
InceptionV4 (149 layers, no shortcuts) in float32 is 80 dB from float64; with 0.5 it is 95 dB, with 1 it is 110 dB,
where the others are (128 pixels). It was raised to 1 after 0.5 had left InceptionV4 in bfloat16 with 12 dB: SQNR
follows it, so it tells engines and graphs of one network apart, and nothing of trained ones."""
EXPORTED_BATCHES, EXPORTED_WORST, EXPORTED_DB = (1, 2), 1e-3, 70.0
"""How the graph is held against torch: random weights make more of rounding than trained ones."""
INPUT, OUTPUT = "image", "features"
NO_DECISIONS = "features"
"""Kind of a head that means nothing by its numbers: engines are compared by noise, not by decisions."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A network that is ready to be measured.

    Parameters
    ----------
    bundle : Bundle
        Its float graph and whatever INT8 graphs there are, with a head without decisions.
    probes : list of dict of input name to array
    peer : Backend or None
        Timed beside what may be chosen.
    no_peer : str
        Why there is none.
    peer_folder : Path or None
        For :func:`edgehem.benchmarks.peers.nncf.offered`.
    about : dict
        For the result, plain values; ``int8`` says what was quantised, or why nothing was.
    """

    bundle: Bundle
    probes: list[dict[str, npt.NDArray[Any]]]
    peer: Backend | None = None
    no_peer: str = ""
    peer_folder: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)


def check_extra() -> None:
    """Raises MissingExtraError where networks cannot be made."""
    for module in ("torch", "onnx", "onnxscript"):
        if util.find_spec(module) is None:
            raise MissingExtraError("making networks to compare engines with", "export")


def make(name: str, folder: Path, *, batch: int, seed: int, size: int = SIZE, say: Say = lambda line: None) -> Made:
    """Make a network of the registry, its graphs, and what NNCF makes of it.

    Parameters
    ----------
    name : str
        Of ``edgehem.export.models.backbones``.
    folder : Path
        Empty; everything is written there.
    batch : int
        Images at once, written into the graphs: a free batch would cost engines what they are not asked about here.
    seed : int
    size : int
        Rows and columns.
    say : callable
        Gets a line for each step.

    Raises
    ------
    MissingExtraError
        If a library is missing.
    UsageError
        If there is no such encoder, or it cannot be exported.
    BudgetError
        If the graph differs from torch.
    """
    import onnx
    import torch

    from edgehem.export.models.backbones import BACKBONES
    from edgehem.export.parity import Budget
    from edgehem.export.to_onnx import export_onnx

    say("drawing weights")
    drawn = smooth_noise(SETTLING + CALIBRATION + PROBES * batch, size, seed=seed)
    description = BACKBONES[name]
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (description.mean, description.std))
    drawn = (drawn - mean) / std
    encoder = _settled(name, drawn[:SETTLING], seed)
    calibration = list(drawn[SETTLING : SETTLING + CALIBRATION, None])
    probes = [{INPUT: images} for images in np.split(drawn[SETTLING + CALIBRATION :], PROBES)]
    source = folder / "free.onnx"
    say("exporting")
    export_onnx(
        encoder,
        {INPUT: torch.from_numpy(calibration[0])},
        source,
        outputs=(OUTPUT,),
        system=name,
        budget=Budget(worst=EXPORTED_WORST, sqnr_db=EXPORTED_DB),
        batches=EXPORTED_BATCHES,
        seed=seed,
    )
    del encoder
    model = onnx.load(source)
    content = {("fp32", "float", "fp32.onnx"): fixed(model, batch)}
    say("quantising")
    try:
        quantised, int8 = _quantised(model, calibration, batch)
    except EdgehemError as error:  # its float graph is compared all the same
        quantised, int8 = {}, {"why_none": str(error)}
    content |= quantised
    shipped = content["fp32", "float", "fp32.onnx"]
    peer_folder = folder / "nncf"
    say("quantising with NNCF")
    no_peer = nncf.prepare(source, shipped, calibration, peer_folder, batch=batch)
    source.unlink()
    bundle_folder = folder / "bundle"
    bundle_folder.mkdir()
    return Made(
        bundle=_bundle(bundle_folder, name, content),
        probes=probes,
        peer=None if no_peer else nncf.Nncf(),
        no_peer=no_peer,
        peer_folder=None if no_peer else peer_folder,
        about={
            "parameters": description.parameters,
            "input": [batch, CHANNELS, size, size],
            "weights": "random",
            "seed": seed,
            "batch_norm_bias": SHIFT,
            "calibration_images": CALIBRATION,
            "probes": PROBES,
            "int8": int8,
        },
    )


def smooth_noise(count: int, size: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Images [count, 3, size, size] in 0..1 whose amplitudes fall as 1 / f, like those of pictures."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = math.inf  # the mean goes; the range is set below
    images = np.empty((count, CHANNELS, size, size), np.float32)
    for image in images:
        white = rng.standard_normal((CHANNELS, size, size))
        drawn = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(size, size))
        low, high = (bound(axis=(1, 2), keepdims=True) for bound in (drawn.min, drawn.max))
        image[...] = (drawn - low) / (high - low)
    return images


def fixed(model: Any, batch: int) -> bytes:
    """A graph with its batch written down; the model is not changed."""
    import onnx

    written = onnx.ModelProto()
    written.CopyFrom(model)
    for value in (*written.graph.input, *written.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del written.graph.value_info[:]  # inferred with the batch free
    data: bytes = written.SerializeToString(deterministic=True)
    return data


def _settled(name: str, images: npt.NDArray[np.float32], seed: int) -> Any:
    """An encoder with seeded weights whose BatchNorms, one after the other, got the statistics of some images."""
    import torch

    from edgehem.export.models.backbones import backbone

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        encoder = backbone(name, in_channels=CHANNELS).eval()
    settle(encoder, torch.from_numpy(images))
    return encoder


def settle(network: Any, *inputs: Any, shift: float = SHIFT) -> None:
    """Give every BatchNorm of a network the statistics of what reaches it, one after the other, in place.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    *inputs : torch.Tensor
        Of its ``forward``.
    shift : float
        Bias of every BatchNorm; see :data:`SHIFT`.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    def take(norm: _BatchNorm, arguments: tuple[torch.Tensor]) -> None:
        values = arguments[0].double()
        axes = [axis for axis in range(values.ndim) if axis != 1]
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(values.mean(axes))
        norm.running_var.copy_(values.var(axes, unbiased=False))
        torch.nn.init.constant_(norm.bias, shift)

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    handles = [norm.register_forward_pre_hook(take) for norm in norms]
    with torch.no_grad():
        network(*inputs)
    for handle in handles:
        handle.remove()


def _quantised(
    model: Any, calibration: list[npt.NDArray[np.float32]], batch: int
) -> tuple[dict[tuple[str, str, str], bytes], dict[str, Any]]:
    """Both INT8 graphs by one plain recipe, no layer put back: there are no labels to search by."""
    from edgehem.export.int8.judge import Judge
    from edgehem.export.int8.places import Wiring
    from edgehem.export.int8.search import Recipe, Search, run_all

    feed = [{INPUT: image} for image in calibration]
    recipe = Recipe(method="minmax")
    # There is no head to be kept in float, only features.
    first = sorted(Wiring(model).first())
    search = Search(
        model, calibration=feed, selection=feed[:1], judge=Judge(run_all(model, feed[:1])), keep_float=first
    )
    found = {
        ("int8", form, file): fixed(search.build(recipe, search.layers, unsigned=unsigned), batch)
        for form, file, unsigned in (("qdq-s8", "int8.onnx", False), ("qdq-u8", "int8_u8.onnx", True))
    }
    return found, {"recipe": recipe.words, "layers": len(search.layers), "left_float": len(search.left)}


def _bundle(folder: Path, name: str, content: dict[tuple[str, str, str], bytes]) -> Bundle:
    """A bundle that ``edgehem compile`` takes; its preprocessing and head are stand-ins."""
    graphs = []
    for (precision, form, file), data in content.items():
        (folder / file).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        graphs.append(Graph(precision=precision, form=form, file=file, sha256=sha256, bytes=len(data)))
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        version="0",
        system="backbone",
        intended_use="Comparing engines.",
        demonstration=True,
        preprocess=PreprocessSpec(shape=(1, SIZE, SIZE), spacing_mm=(1.0, 1.0, 1.0), windows=((40, 80),)),
        inputs={"image": INPUT},
        graphs=tuple(graphs),
        default_precision={},
        heads=(Head(name=OUTPUT, kind=NO_DECISIONS, output=OUTPUT, rules=()),),
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return Bundle(folder)
