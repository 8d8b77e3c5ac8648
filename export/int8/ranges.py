"""Ranges of activations, observed on calibration data: one histogram of magnitudes per tensor, four ways to cut it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.errors import UsageError

Inputs = Mapping[str, npt.NDArray[Any]]
Float = npt.NDArray[np.float64]

BINS = 4096
LEVELS = 128
"""Magnitudes that int8 tells apart; zero is one of them."""
METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99
MOST_BYTES = 512 * 2**20
"""Of tensors looked at in one run: larger graphs are run several times."""
_SMALLEST = 1e-8
"""A tensor that is all zero gets a range all the same."""


@dataclass(kw_only=True)
class Seen:
    """What was seen of one tensor.

    Parameters
    ----------
    counts : int64 array [BINS]
        Magnitudes from 0 to `top`, in equal steps; `top` doubles when a larger one comes.
    top : float
    largest : float
    channel_largest, channel_sum : float64 array [C]
        Largest magnitude and sum per channel (axis 1), for tensors of two axes or more.
    per_channel : int
        Values summed in every channel.
    """

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    top: float = 0.0
    largest: float = 0.0
    channel_largest: Float | None = None
    channel_sum: Float | None = None
    per_channel: int = 0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take one tensor in.

        Raises
        ------
        UsageError
            If it holds a value that is not a number.
        """
        size = np.abs(values)
        largest = float(size.max(initial=0.0))
        if not np.isfinite(largest):
            raise UsageError("an activation is not a number on calibration data")
        self.largest = max(self.largest, largest)
        if self.top == 0.0:
            self.top = max(largest, _SMALLEST)
        while largest > self.top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.top *= 2
        bins = np.minimum((size.reshape(-1) * (BINS / self.top)).astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        if values.ndim >= 2:
            others = tuple(axis for axis in range(values.ndim) if axis != 1)
            highest, total = size.max(axis=others).astype(np.float64), values.sum(axis=others, dtype=np.float64)
            before, sums = self.channel_largest, self.channel_sum
            self.channel_largest = highest if before is None else np.maximum(before, highest)
            self.channel_sum = total if sums is None else sums + total
            self.per_channel += values.size // max(1, values.shape[1])

    @property
    def channel_mean(self) -> Float:
        """Mean per channel, float64 [C]."""
        if self.channel_sum is None:
            raise ValueError("the tensor has no channels")
        return np.asarray(self.channel_sum / max(1, self.per_channel))


def observe(
    model: onnx.ModelProto,
    feed: Sequence[Inputs],
    tensors: Iterable[str],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Seen]:
    """Run a float graph over calibration data and watch tensors.

    Parameters
    ----------
    model : onnx.ModelProto
    feed : sequence of dict of input name to array
    tensors : iterable of str
    progress : callable

    Returns
    -------
    dict of tensor name to Seen

    Raises
    ------
    UsageError
        If there is no calibration data, or an activation is not a number.
    """
    names = list(dict.fromkeys(tensors))
    if not len(feed):
        raise UsageError("quantisation needs calibration data")
    seen = {name: Seen() for name in names}
    parts = parts_of(model, names, feed[0])
    done, total = 0, len(parts) * len(feed)
    for part in parts:
        session = OnnxRuntimeSession(with_outputs(model, part).SerializeToString())
        for inputs in feed:
            values = session.run(inputs)
            for name in part:
                seen[name].add(values[name])
            done += 1
            progress(done, total)
    return seen


def with_outputs(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """A copy that also gives some of its inner tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {value.name for value in copy.graph.output}
    for name in tensors:
        if name not in there:
            copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return copy


def parts_of(model: onnx.ModelProto, names: Sequence[str], inputs: Inputs) -> list[list[str]]:
    """Tensors in groups that fit into memory together, by the sizes of inferred shapes."""
    shapes = onnx.shape_inference.infer_shapes(model).graph
    batch = next(iter(inputs.values())).shape[0]
    size = {}
    for value in (*shapes.value_info, *shapes.output, *shapes.input):
        dims = [d.dim_value if d.HasField("dim_value") else batch for d in value.type.tensor_type.shape.dim]
        size[value.name] = 4 * int(np.prod(dims))
    parts: list[list[str]] = [[]]
    room = MOST_BYTES
    for name in names:
        need = size.get(name, MOST_BYTES // 8)
        if need > room and parts[-1]:
            parts.append([])
            room = MOST_BYTES
        parts[-1].append(name)
        room -= need
    return parts


def merged(seen: Sequence[Seen]) -> Seen:
    """Several tensors as one, for a scale that they share; channels are not kept."""
    out = Seen(top=max(s.top for s in seen), largest=max(s.largest for s in seen))
    for one in seen:
        centres = (np.flatnonzero(one.counts) + 0.5) * (one.top / BINS)
        bins = np.minimum((centres * (BINS / out.top)).astype(np.int64), BINS - 1) if out.top else centres.astype(int)
        np.add.at(out.counts, bins, one.counts[one.counts > 0])
    return out


def threshold(seen: Seen, method: str, percentile: float = PERCENTILE) -> float:
    """The magnitude that int8's largest value stands for.

    Parameters
    ----------
    seen : Seen
    method : str
        ``minmax``: the largest seen. ``percentile``: of all magnitudes. ``entropy``: least Kullback-Leibler divergence
        between the values and their quantised form, over all thresholds (S. Migacz, 8-bit inference with TensorRT,
        GTC 2017). ``mse``: least mean squared error of rounding and clipping.
    percentile : float

    Raises
    ------
    ValueError
        For another method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if seen.largest <= _SMALLEST:
        return _SMALLEST
    if method == "minmax":
        return seen.largest
    last = int(np.flatnonzero(seen.counts)[-1]) + 1
    if method == "percentile":
        share = np.cumsum(seen.counts) / seen.counts.sum()
        cut = int(np.searchsorted(share, percentile / 100)) + 1
    elif last <= LEVELS:
        return seen.largest
    else:
        cost = _divergence if method == "entropy" else _squared_error
        counts = seen.counts[:last].astype(np.float64)
        if method == "entropy":
            counts[0] = counts[1]  # zeros cost nothing; as many as a ReLU makes would hide the rest
        cuts = np.unique(np.linspace(LEVELS, last, 128).astype(int))
        cut = int(cuts[int(np.argmin([cost(counts, int(cut)) for cut in cuts]))])
    return min(seen.largest, cut * seen.top / BINS)


def _divergence(counts: Float, cut: int) -> float:
    """KL divergence of a histogram cut at a bin from its form in 128 levels."""
    reference = counts[:cut].copy()
    reference[-1] += counts[cut:].sum()
    # Every level spreads its count evenly over those of its bins that are not empty.
    level = np.minimum(np.arange(cut) * LEVELS // cut, LEVELS - 1)
    filled = counts[:cut] > 0
    total = np.bincount(level, weights=counts[:cut], minlength=LEVELS)
    places = np.bincount(level, weights=filled, minlength=LEVELS)
    spread = np.where(filled, (total / np.maximum(places, 1))[level], 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1.0)
    # What was clipped may fall on a bin that is empty in the quantised form: the smallest count stands for it.
    q = np.where((p > 0) & (q == 0), 1e-12, q)
    use = p > 0
    return float((p[use] * np.log(p[use] / q[use])).sum())


def _squared_error(counts: Float, cut: int) -> float:
    """Squared error (bins²) of rounding to 127 steps up to a bin, and clipping above."""
    centres = np.arange(len(counts)) + 0.5
    step = cut / (LEVELS - 1)
    rounded = np.minimum(np.rint(centres / step), LEVELS - 1) * step
    return float((counts * (centres - rounded) ** 2).sum())
