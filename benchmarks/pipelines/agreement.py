"""Whether a pipeline does the same job: its tensor and its logits beside what they are by definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgehem.backends import Options
from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.benchmarks.pipelines.contender import Contender, Study
from edgehem.benchmarks.pipelines.network import Made
from edgehem.kernels import oracle
from edgehem.phantom import Bleed, Protocol, make_case
from edgehem.phantom.files import write_case
from edgehem.preprocess import PreprocessSpec, place, plane_validity
from edgehem.volume import Volume

CLOSE = 0.01
"""Of a window's width: in the brain window 0.8 HU. Positions in float32 are off by 0.2 HU beside bone."""
SHARE = 0.999
"""Of the voxels in planes between the first and the last slice: beyond these, and outside the field of view, libraries
differ by half a voxel in where an image ends."""
REACH = 4
"""Planes to each side that a slice's logits depend on: two shifts and two convolutions of 3. Logits count where all of
these planes count."""
FLOAT_DB, INT8_DB = 20.0, 10.0
"""Least signal to noise of the slices' logits, against the float graph without optimisation on the defined tensor. The
signal is what differs from slice to slice, since a mean that all share would hide any error. In float32 83 dB and more
were seen on the studies that are measured, and 26 where the head touches the image's edge; bfloat16 and INT8 by plain
recipes, with weights that nobody trained, have 13 to 15; a tensor that is off by one pixel has 0."""
VOXEL_MM = 2.0
"""Of the phantoms' heads."""

Arrays = Mapping[str, npt.NDArray[Any]]
Answered = tuple[Arrays, npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Outputs, tensor, and which planes count: bool [Z]."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A study that was written, and what it was made of.

    Parameters
    ----------
    volume : Volume
        As the phantom has it, before it was written: reading is part of what is checked.
    study : Study
    """

    volume: Volume
    study: Study


def written(folder: Path, count: int, spec: PreprocessSpec, *, slices: int, matrix: int, seed: int) -> Iterator[Case]:
    """Write bleeding heads, no two alike, in axial slices.

    Parameters
    ----------
    folder : Path
        Gets a folder for each.
    count : int
    spec : PreprocessSpec
        Whose grid is handed out.
    slices, matrix : int
    seed : int
        Of the first.
    """
    protocol = Protocol(
        slices=slices, matrix=matrix, tilt_deg=0.0, variable_spacing=False, intercept=-1024, bits=16
    )  # fmt: skip
    for number in range(count):
        bleeds = (Bleed(subtype="intraparenchymal", ml=20.0 + 15.0 * number),)
        case = make_case(seed + number, bleeds=bleeds, protocol=protocol, voxel_mm=VOXEL_MM)
        write_case(case, folder / str(number))
        yield Case(volume=case.volume, study=handed(case.volume, spec, folder / str(number) / "dicom"))


def handed(volume: Volume, spec: PreprocessSpec, folder: Path) -> Study:
    """The grid that edgehem finds, moved by at most half a voxel onto whole voxels from the series' first pixel."""
    first, found = volume.origin[0], np.array(place(volume, spec).target.origin)
    step = np.array(spec.spacing_mm[::-1])
    x, y, z = (float(value) for value in first + np.rint((found - first) / step) * step)
    valid = plane_validity(volume, spec.grid((x, y, z)))
    return Study(folder=str(folder), origin=(x, y, z), valid=tuple(float(value) for value in valid))


class Expected:
    """What a contender should answer, by definition: NumPy's tensor, and the float graph as it is written.

    Parameters
    ----------
    made : Made
    cases : sequence of Case
    """

    def __init__(self, made: Made, cases: Sequence[Case]) -> None:
        self.studies = [case.study for case in cases]
        spec = made.bundle.manifest.preprocess
        graph = next(graph for graph in made.bundle.manifest.graphs if graph.file == made.graph)
        session = OnnxRuntimeSession(made.bundle.read(graph), Options(optimise=False))
        self._answers: dict[tuple[bool, str], list[Answered]] = {}
        for itself, resampling in ((True, "antialiased"), (False, "trilinear")):
            kept = self._answers[itself, resampling] = []
            for case in cases:
                origin = place(case.volume, spec).target.origin if itself else case.study.origin
                target = msgspec.structs.replace(spec, resampling=resampling).grid(origin)
                tensor = oracle.preprocess(case.volume, target, spec.kernel_windows)[None]
                made_of = {"image": tensor, "valid": plane_validity(case.volume, target)[None]}
                outputs = session.run({name: made_of[kind] for kind, name in made.bundle.manifest.inputs.items()})
                kept.append((outputs, tensor, between(case.volume, spec, origin)))
        own, theirs = (
            [np.asarray(outputs["slice_logits"]) for outputs, _, _ in self._answers[key]]
            for key in ((True, "antialiased"), (False, "trilinear"))
        )
        self.grids = {"slice_logits_correlation": correlation(own, theirs)}

    def of(self, contender: Contender) -> list[Answered]:
        """For every study: the outputs, the tensor, and which planes count."""
        return self._answers[contender.places_itself, contender.resampling]


def between(volume: Volume, spec: PreprocessSpec, origin: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Planes of a grid that lie between the first and the last slice of an axial stack: bool [Z]."""
    z = origin[2] + np.arange(spec.shape[0]) * spec.spacing_mm[0]
    return np.asarray((z >= volume.origin[0, 2]) & (z <= volume.origin[-1, 2]))


def compared(
    shown: Sequence[Arrays],
    expected: Sequence[Answered],
    *,
    int8: bool,
) -> dict[str, Any]:
    """Whether a contender does the same job.

    Its tensor must be within :data:`CLOSE` of the defined one in :data:`SHARE` of the voxels, and the slices' logits
    within :data:`FLOAT_DB` (:data:`INT8_DB` for what may be quantised) of the float graph's.

    Parameters
    ----------
    shown : sequence of mapping
        Of every study: ``tensor`` where there is one, and ``output.NAME``.
    expected : sequence of (outputs, tensor, planes)
        See :meth:`Expected.of`.
    int8 : bool

    Returns
    -------
    dict
        ``tensor_share`` and ``tensor_mean`` (None where it made no tensor), ``logits_db``, ``logits_correlation``, and
        ``why_not``: empty if it does.
    """
    shares: list[float] = []
    means: list[float] = []
    ours, wanted = [], []
    why_not = ""
    for found, (outputs, tensor, planes) in zip(shown, expected, strict=True):
        if (made := found.get("tensor")) is not None:
            if made.shape != tensor.shape:
                why_not = f"its tensor is {list(made.shape)}, not {list(tensor.shape)}"
                break
            difference = np.abs(made[:, planes].astype(np.float64) - tensor[:, planes])
            shares.append(float((difference <= CLOSE).mean()))
            means.append(float(difference.mean()))
        logits = found.get("output.slice_logits")
        if logits is None or logits.shape != outputs["slice_logits"].shape or not np.isfinite(logits).all():
            why_not = "it gives no logits of the slices, or none of that shape, or no numbers"
            break
        inner = inside(planes)
        ours.append(logits[:, inner])
        wanted.append(np.asarray(outputs["slice_logits"])[:, inner])
    if why_not:
        return {
            "tensor_share": None, "tensor_mean": None, "logits_db": None, "logits_correlation": None,
            "why_not": why_not,
        }  # fmt: skip
    share, least = min(shares, default=None), INT8_DB if int8 else FLOAT_DB
    db = centred_db(ours, wanted)
    if share is not None and share < SHARE:
        why_not = f"only {share:.2%} of its voxels are within {CLOSE:g} of a window of what they should be"
    elif db < least:
        why_not = f"its logits are {db:.1f} dB from the float graph's, and {least:g} are wanted"
    return {
        "tensor_share": share,
        "tensor_mean": max(means, default=None),
        "logits_db": db,
        "logits_correlation": correlation(ours, wanted),
        "why_not": why_not,
    }


def inside(planes: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Planes whose logits depend on no other than these: bool [Z]."""
    near = np.lib.stride_tricks.sliding_window_view(np.pad(planes, REACH), 2 * REACH + 1)
    return np.asarray(near.all(axis=1))


def centred_db(found: Sequence[npt.NDArray[Any]], wanted: Sequence[npt.NDArray[Any]]) -> float:
    """Signal to noise, dB, of the part of `wanted` [1, Z, labels] that differs from plane to plane; at most 200."""
    signal = _centred(wanted)
    noise = _joined(found) - _joined(wanted)
    power = float((noise**2).sum())
    return 200.0 if power == 0 else min(200.0, 10 * float(np.log10((signal**2).sum() / power + 1e-20)))


def correlation(one: Sequence[npt.NDArray[Any]], other: Sequence[npt.NDArray[Any]]) -> float:
    """Pearson's, of what differs from plane to plane."""
    a, b = _centred(one).reshape(-1), _centred(other).reshape(-1)
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else 0.0


def _joined(values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Planes of all studies: [planes, labels]."""
    return np.concatenate([np.asarray(value[0], np.float64) for value in values])


def _centred(values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Without each label's mean over all planes of all studies."""
    joined = _joined(values)
    return np.asarray(joined - joined.mean(axis=0))
