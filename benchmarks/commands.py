"""What ``edgehem bench`` does, behind the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from edgehem.benchmarks import engines as engines_run
from edgehem.benchmarks import engines_report, intake_report, picture, report
from edgehem.benchmarks import gates as gates_run
from edgehem.benchmarks import intake as intake_run
from edgehem.benchmarks import networks as network_list
from edgehem.benchmarks.case import Case
from edgehem.benchmarks.kernels import QUICK_ROUNDS, ROUNDS, Settings, run
from edgehem.benchmarks.pipelines import report as pipelines_report
from edgehem.benchmarks.pipelines import run as pipelines_run


def kernels(
    *,
    rounds: int | None = None,
    threads: int = 2,
    quick: bool = False,
    growth: bool = True,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure the kernels; see ``edgehem bench kernels --help``.

    Parameters
    ----------
    size : tuple of int, optional
        Slices and matrix of another stack than the usual one; the grid has as many planes, of half the matrix.
    """
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    case = Case(slices=size[0], matrix=size[1], planes=size[0], size=size[1] // 2) if size else Case()
    return run(Settings(rounds=rounds, threads=threads, quick=quick, growth=growth, case=case), progress=progress)


def intake(
    *,
    rounds: int | None = None,
    quick: bool = False,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure the reading of studies; see ``edgehem bench intake --help``.

    Parameters
    ----------
    size : tuple of int, optional
        Slices and matrix of the only series, instead of the usual ones.
    """
    rounds = rounds or (intake_run.QUICK_ROUNDS if quick else intake_run.ROUNDS)
    slices = intake_run.SLICES[:1] if quick else intake_run.SLICES
    settings = intake_run.Settings(rounds=rounds, slices=slices)
    if size:
        settings = intake_run.Settings(rounds=rounds, slices=size[:1], matrix=size[1])
    return intake_run.run(settings, progress=progress)


def gates(
    *, heads: int | None = None, quick: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Count how often the intake's gates are right; see ``edgehem bench gates --help``."""
    return gates_run.run(heads or (gates_run.QUICK_HEADS if quick else gates_run.HEADS), progress=progress)


def engines(
    *,
    networks: Sequence[str] | None = None,
    batch: int | None = None,
    rounds: int | None = None,
    quick: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure the engines; see ``edgehem bench engines --help``."""
    chosen = networks or (network_list.SMALL if quick else network_list.NAMES)
    settings = engines_run.Settings(
        networks=chosen,
        batch=batch or engines_run.BATCH,
        rounds=rounds or (engines_run.QUICK_ROUNDS if quick else engines_run.ROUNDS),
    )
    return engines_run.run(settings, say=say)


def pipelines(
    *,
    rounds: int | None = None,
    slices: int | None = None,
    quick: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure whole pipelines; see ``edgehem bench pipelines --help``."""
    return pipelines_run.pipelines(rounds=rounds, slices=slices, quick=quick, say=say)


def text(result: dict[str, Any]) -> str:
    """The result for a terminal."""
    renders = {
        intake_run.SCHEMA: intake_report.render,
        gates_run.SCHEMA: gates_run.render,
        engines_run.SCHEMA: engines_report.render,
        pipelines_run.SCHEMA: pipelines_report.render,
    }
    return renders.get(result["schema"], report.render)(result)


def document(result: dict[str, Any]) -> str:
    """The result as JSON."""
    return json.dumps(result, allow_nan=False) + "\n"


def markdown(result: dict[str, Any]) -> str:
    """The result of :func:`pipelines` as a table for a README."""
    return pipelines_report.markdown(result)


def drawing(result: dict[str, Any]) -> str:
    """The result as SVG."""
    return picture.draw(result)
