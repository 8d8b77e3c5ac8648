"""What takes part in the comparison of whole pipelines, and what it is told: plain values, for each has its process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy.typing as npt

READ, PREPROCESS, NETWORK = "read", "preprocess", "network"
STAGES = (READ, PREPROCESS, NETWORK)
OURS, PEER, FLOOR = "ours", "peer", "floor"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """An engine with a graph of the bundle in an arithmetic.

    Parameters
    ----------
    engine, graph, arithmetic : str
    form : str
        Of the graph: ``float``, ``qdq-s8`` or ``qdq-u8``.
    """

    engine: str
    graph: str
    arithmetic: str
    form: str = "float"

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.engine}, {self.graph}, {self.arithmetic}"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What every contender computes, and where its files are.

    Parameters
    ----------
    shape : tuple of int
        Planes, rows, columns of the network's grid.
    spacing_mm : tuple of float
        Of planes, rows, columns.
    windows : tuple of (level, width), HU
    outputs : tuple of str
        All that the network returns, in order.
    bundle : str
        Folder with the graphs.
    graph : str
        The float graph, ``.onnx``.
    weights : str
        The same weights for torch: a state dict.
    nncf : str
        What NNCF made of the graph (``.xml``); empty if nothing.
    no_nncf : str
        Why there is nothing.
    choice : Choice, optional
        What edgehem serves, for its own contenders and their floors.
    threads : int
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    windows: tuple[tuple[float, float], ...]
    outputs: tuple[str, ...]
    bundle: str
    graph: str
    weights: str
    nncf: str = ""
    no_nncf: str = ""
    choice: Choice | None = None
    threads: int = 1

    @property
    def channels(self) -> int:
        """One for each window."""
        return len(self.windows)


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """A study on disk, and the grid that peers are handed.

    Parameters
    ----------
    folder : str
        Of one series' slices, uncompressed.
    origin : tuple of float
        Patient coordinates (LPS, mm) of the grid's first voxel, a whole number of grid voxels from the series' own.
    valid : tuple of float
        1 for every plane that was scanned, else 0.
    """

    folder: str
    origin: tuple[float, float, float]
    valid: tuple[float, ...]


class Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        begun = time.perf_counter_ns()
        try:
            yield
        finally:
            self.ms[name] = (time.perf_counter_ns() - begun) / 1e6


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a contender made of a study.

    Parameters
    ----------
    outputs : mapping of str to array
        Of the network.
    tensor : array [1, Z, C, Y, X] or None
        What the network read; None where it was given.
    """

    outputs: Mapping[str, npt.NDArray[Any]]
    tensor: npt.NDArray[Any] | None


def nothing(study: Study) -> None:
    """Prepare nothing."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A contender that is ready.

    Parameters
    ----------
    run : callable
        A study to its answer; this is timed.
    fresh : callable
        Called with the study before; not timed.
    overhead : callable, optional
        ``overhead(study, rounds)``: nanoseconds of edgehem's session and of the library's bare call, by round.
    """

    run: Callable[[Study, Clock], Answer]
    fresh: Callable[[Study], None] = nothing
    overhead: Callable[[Study, int], dict[str, list[int]]] | None = None


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way from a folder to logits.

    Parameters
    ----------
    name, title, how : str
        ``title`` and ``how`` are for people.
    where : str
        ``module:function``: gets the job, and gives the pipeline. Imported in the contender's own process.
    role : {"ours", "peer", "floor"}
    distributions : tuple of str
        Whose versions are told.
    choice : str
        Which of edgehem's choices it gets: ``auto``, or an engine's name; empty for peers.
    resampling : str
        What its tensor is compared with: see :class:`edgehem.kernels.Target`.
    places_itself : bool
        It finds the head; the others are handed the grid.
    int8 : bool
        Its graph may be quantised: another tolerance for what the network answers.
    variables : tuple of (name, value)
        Environment variables of its process.
    """

    name: str
    title: str
    how: str
    where: str
    role: str = PEER
    distributions: tuple[str, ...] = ()
    choice: str = ""
    resampling: str = "trilinear"
    places_itself: bool = False
    int8: bool = False
    variables: tuple[tuple[str, str], ...] = ()
