"""The INT8 stage: a bundle's float graph to INT8 graphs, chosen by measurement on labelled studies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgehem import kernels
from edgehem.bundle import Head
from edgehem.durable import write_whole
from edgehem.errors import BudgetError, UsageError
from edgehem.export.graph import finished
from edgehem.export.half_search import budget_beside, write_half
from edgehem.export.int8.judge import Budget, Figures, Judge
from edgehem.export.int8.ranges import Inputs
from edgehem.export.int8.search import RECIPES, Recipe, Search, run_all
from edgehem.export.parity import Draw, between_optimisations
from edgehem.export.readiness import require_ready
from edgehem.export.samples import Cache
from edgehem.preprocess import PreprocessSpec

BY_KIND = {"image": "image", "valid": "valid"}
CALIBRATED = 64
"""Studies that ranges are taken from; the choice is made on the others."""
SELECTED = 160
"""Studies that the choice is made on, at most."""
SIGNED, UNSIGNED, HALF = "int8.onnx", "int8_u8.onnx", "int8_f16.onnx"


@dataclass(frozen=True, kw_only=True)
class Studies(Sequence[dict[str, npt.NDArray[Any]]]):
    """Cached studies as a graph reads them, windowed when they are asked for: a cohort is larger than memory.

    Parameters
    ----------
    cache : Cache
    spec : PreprocessSpec
    inputs : dict of kind to str
        The graph's names of ``image`` and ``valid``.
    which : int array
        Indices into the cache.
    """

    cache: Cache
    spec: PreprocessSpec
    inputs: Mapping[str, str]
    which: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Studies(cache=self.cache, spec=self.spec, inputs=self.inputs, which=self.which[index])
        made = network_input(self.cache, int(self.which[index]), self.spec)
        return {name: made[kind] for kind, name in self.inputs.items()}


def network_input(cache: Cache, index: int, spec: PreprocessSpec) -> dict[str, npt.NDArray[Any]]:
    """A cached sample by kind: image [1, Z, C, Y, X], valid [1, Z]."""
    image = kernels.window(cache.hu[index].astype(np.float32), spec.kernel_windows)
    return {"image": image[None], "valid": cache.valid[index][None].astype(np.float32)}


def split(cache: Cache, calibrated: int = CALIBRATED, selected: int = SELECTED, seed: int = 0) -> tuple[Any, Any]:
    """Indices for calibration and for selection: whole heads go to one side, drawn by seed.

    Raises
    ------
    UsageError
        If there are not two heads.
    """
    heads = np.random.default_rng(seed).permutation(np.unique(cache.group))
    if len(heads) < 2:
        raise UsageError("quantisation needs studies of at least two patients: one side calibrates, the other chooses")
    share = min(0.5, calibrated / len(cache))
    first = heads[: max(1, round(share * len(heads)))]
    side = np.isin(cache.group, first)
    return np.flatnonzero(side)[:calibrated], np.flatnonzero(~side)[:selected]


def quantize(
    source: Path,
    folder: Path,
    cache: Cache,
    spec: PreprocessSpec,
    head: Head,
    *,
    inputs: Mapping[str, str] = BY_KIND,
    system: str = "",
    budget: Budget | None = None,
    recipes: Sequence[Recipe] = RECIPES,
    seed: int = 0,
    half: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Quantise a float graph: ``int8.onnx`` for TensorRT and OpenVINO, ``int8_u8.onnx`` for ONNX Runtime on the CPU.

    And ``int8_f16.onnx``, the first with its float remainder in float16, for TensorRT.

    Parameters
    ----------
    source : Path
        ``.onnx``, float.
    folder : Path
        Where the graphs are written.
    cache : Cache
        Labelled studies. Some give ranges, others choose.
    spec : PreprocessSpec
    head : Head
        Whose decisions must hold.
    inputs : dict of kind to str
        The graph's names of ``image`` and ``valid``.
    system : str
        For the graphs' metadata.
    budget : Budget, optional
    recipes : sequence of Recipe
    seed : int
        Of the split.
    half : bool
        Whether to write ``int8_f16.onnx``. Where it leaves its budget it is left out, and the record says why.
    say : callable
        Told one line for every step.

    Returns
    -------
    dict
        The stage's record, with the search; ``half`` is that of the float16 variant.

    Raises
    ------
    UsageError
        If there are too few studies, or there is nothing to quantise.
    BudgetError
        If INT8 leaves its budget whatever is tried, or TensorRT would refuse the result.
    """
    model = onnx.load(source)
    calibration, selection = (
        Studies(cache=cache, spec=spec, inputs=inputs, which=which) for which in split(cache, seed=seed)
    )
    say(f"{len(calibration)} studies give ranges, {len(selection)} choose")
    judge = Judge(run_all(model, selection), head=head, labels=cache.labels[selection.which, 0], seed=seed)
    search = Search(model, calibration=calibration, selection=selection, judge=judge, say=say)
    budget = budget or Budget()
    record = _chosen(search, source, folder, system=system, budget=budget, recipes=recipes, seed=seed)
    if half:
        record["half"] = _halved(search, folder, Figures(**record["figures"]), inputs, budget=budget, system=system)
        if "sha256" in record["half"]:
            record["graphs"][HALF] = {key: record["half"][key] for key in ("form", "bytes", "sha256")}
    return record


def quantize_file(
    source: Path,
    folder: Path,
    data: Path,
    *,
    system: str = "",
    kinds: Sequence[str] = ("Conv",),
    budget: Budget | None = None,
    recipes: Sequence[Recipe] = RECIPES,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Quantise any float graph on any inputs: judged by numbers, for nothing is known of what they mean.

    Parameters
    ----------
    source, folder
        As for :func:`quantize`.
    data : Path
        A folder of ``.npz`` files, each with the graph's inputs by name, the batch first. A half of them gives ranges.
    system, budget, recipes, seed, say
        As for :func:`quantize`; the budget's ``sqnr_db`` counts.
    kinds : sequence of str
        Operators to quantise: ``Conv``, ``Gemm``, ``MatMul``.

    Returns
    -------
    dict
        The stage's record.

    Raises
    ------
    UsageError, BudgetError
    """
    model = onnx.load(source)
    files = Files(paths=tuple(sorted(data.glob("*.npz"))))
    if len(files) < 2:
        raise UsageError(f"{data} holds no two .npz files of inputs: one part gives ranges, the other chooses")
    order = np.random.default_rng(seed).permutation(len(files))
    half = min(CALIBRATED, len(files) // 2)
    calibration, selection = (Files(paths=tuple(files.paths[i] for i in part)) for part in (order[:half], order[half:]))
    say(f"{len(calibration)} inputs give ranges, {len(selection)} choose")
    judge = Judge(run_all(model, selection), seed=seed)
    search = Search(model, calibration=calibration, selection=selection, judge=judge, kinds=kinds, say=say)
    return _chosen(search, source, folder, system=system, budget=budget or Budget(), recipes=recipes, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Files(Sequence[dict[str, npt.NDArray[Any]]]):
    """Inputs in files, read when they are asked for."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Files(paths=self.paths[index])
        try:
            with np.load(self.paths[index], allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.paths[index].name} holds no arrays") from error


def _chosen(
    search: Search,
    source: Path,
    folder: Path,
    *,
    system: str,
    budget: Budget,
    recipes: Sequence[Recipe],
    seed: int,
) -> dict[str, Any]:
    """Search, hold both forms against the budget and their own optimised selves, and write them."""
    found = search.run(recipes, budget)
    require_ready(found.model)
    record = {"seed": seed, "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(), **found.record}
    if over := search.judge.figures(run_all(found.unsigned, search.selection)).over(budget):
        raise BudgetError(f"the graph with uint8 activations leaves the budget: {'; '.join(over)}")
    record["graphs"] = {}
    for name, one, form in ((SIGNED, found.model, "qdq-s8"), (UNSIGNED, found.unsigned, "qdq-u8")):
        _, data = finished(one, system=system)
        between_optimisations(data, drawn_from(search.selection))
        write_whole(folder / name, data)
        record["graphs"][name] = {"form": form, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return record


def _halved(
    search: Search, folder: Path, figures: Figures, inputs: Mapping[str, str], *, budget: Budget, system: str
) -> dict[str, Any]:
    """The float16 variant's record, of the INT8 graph that was written and what it differs from the float one by."""
    try:
        record = write_half(
            folder / SIGNED,
            folder / HALF,
            form="qdq-s8-f16",
            inputs=(inputs["image"],),
            feed=search.selection,
            judge=search.judge,
            draw=drawn_from(search.selection),
            budget=budget_beside(figures, budget),
            system=system,
            ready=True,
            say=search.say,
        )
    except (BudgetError, UsageError) as error:
        search.say(f"no {HALF}: {error}")
        return {"form": "qdq-s8-f16", "left_out": str(error)}
    return record


def drawn_from(selection: Sequence[Inputs]) -> Draw:
    """Inputs for the gate on optimisation: noise would say little about a graph that was calibrated on heads."""

    def draw(rng: np.random.Generator, batch: int) -> dict[str, npt.NDArray[Any]]:
        chosen = [selection[int(index)] for index in rng.integers(len(selection), size=batch)]
        return {name: np.concatenate([study[name] for study in chosen]) for name in chosen[0]}

    return draw
