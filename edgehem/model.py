"""The main flow: read -> locate and preprocess -> infer -> decide -> result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgehem.bundle import Bundle, find
from edgehem.decide import decide
from edgehem.dicom import Study, read_study
from edgehem.errors import BundleError, Refusal
from edgehem.evidence import key_slices
from edgehem.preprocess import coverage_notes, place
from edgehem.result import BundleInfo, KeySlice, Note, Result, Verdict
from edgehem.serving import Served, Serving


def load(
    bundle: str | Path = "hemorrhagenet",
    *,
    backend: str = "auto",
    precision: str = "auto",
    trust: str | Path | None = None,
    allow_older: bool = False,
) -> Model:
    """Load a model.

    Parameters
    ----------
    bundle : str or Path
        Name of a shipped bundle, or a bundle's folder.
    backend : str
        ``auto`` or an engine's name. A named engine that is absent is an error.
    precision : str
        ``auto``, ``fp32``, ``fp16`` or ``int8``. What is left to ``auto`` is what ``edgehem compile`` measured as
        the fastest on this machine; where it was not run, ONNX Runtime and the bundle's own default.
    trust : str or Path, optional
        Folder of the public keys whose bundles this device runs; ``$EDGEHEM_TRUST`` by default. Without one, unsigned
        bundles run, too.
    allow_older : bool
        Run a bundle that is older than one this device has run.

    Returns
    -------
    Model
        Ready to run; keep it for many studies.

    Raises
    ------
    BundleError, BackendError
    UsageError
        If the trust store is not one.
    MissingExtraError
        If a signature must be checked, and ``[sign]`` is not installed.
    """
    return Model(find(bundle, trust=trust, allow_older=allow_older), backend=backend, precision=precision)


def triage(path: str | Path, bundle: str | Path = "hemorrhagenet", *, backend: str = "auto") -> Result:
    """Load a model and analyse one study: :func:`load` and :meth:`Model.triage_path` for single use."""
    return load(bundle, backend=backend).triage_path(Path(path))[0]


class Model:
    """A bundle on an engine.

    Parameters
    ----------
    bundle : Bundle
    backend, precision : str
        See :func:`load`.
    """

    def __init__(self, bundle: Bundle, *, backend: str = "auto", precision: str = "auto") -> None:
        self.bundle = bundle
        self.serving = Serving(bundle, backend=backend, precision=precision)
        bundle.accept()  # from now on, this device refuses older ones

    @property
    def info(self) -> BundleInfo:
        """The bundle, and what serves it now; ``fallback`` says so if that is only a stand-in."""
        return self._info(self.serving.served)

    def _info(self, served: Served) -> BundleInfo:
        manifest = self.bundle.manifest
        return BundleInfo(
            name=manifest.name,
            version=manifest.version,
            sha256=self.bundle.sha256,
            precision=served.graph.precision,
            arithmetic=served.arithmetic,
            backend=served.engine,
            fallback=served.fallback,
            demonstration=manifest.demonstration,
            signed_by=self.bundle.signed_by,
        )

    def triage_path(self, path: Path) -> tuple[Result, Study | None]:
        """Read and analyse a study; bad data gives a NO-RESULT, not an exception.

        Parameters
        ----------
        path : Path
            A folder or a file.

        Returns
        -------
        result : Result
        study : Study or None
            What was read; None where reading was refused.

        Raises
        ------
        UsageError
            If the path does not exist.
        BackendError, BundleError
            As :meth:`triage`.
        """
        begun = time.perf_counter()
        try:
            study = read_study(path)
        except Refusal as refusal:
            return self._no_result(refusal, {"total": _since(begun)}), None
        return self.triage(study, begun=begun), study

    def triage(self, study: Study, *, begun: float | None = None) -> Result:
        """Analyse a study that was read.

        Parameters
        ----------
        study : Study
        begun : float, optional
            ``time.perf_counter()`` at which the total is counted from; now by default.

        Returns
        -------
        Result

        Raises
        ------
        BackendError
            If the engine fails.
        BundleError
            If the graph does not give what the manifest says, or gives no numbers.
        """
        clock = _Clock(study.timings_ms, begun)
        manifest = self.bundle.manifest
        served = self.serving.served
        try:
            with clock.stage("preprocess"):
                placed = place(study.volume, manifest.preprocess)
                notes = (*study.notes, *coverage_notes(placed.head))
                tensor = served.tensor(study.volume, placed)
        except Refusal as refusal:
            return self._no_result(refusal, clock.finish(), study)
        with clock.stage("infer"):
            outputs, on_device_ms, served = self.serving.answer(study.volume, placed, served, tensor)
        clock.move("infer", "preprocess", on_device_ms)
        with clock.stage("decide"):
            head = manifest.heads[0]
            evidence = manifest.evidence
            (logits,) = _first(outputs, head.output)
            findings, doubts = decide(logits, head)
            keys: tuple[KeySlice, ...] = ()
            if evidence is not None:
                attention, blood = _first(outputs, evidence.attention, evidence.blood_map)
                keys = key_slices(study.volume, placed.target, attention, blood)
            notes = (*notes, *doubts)
        timings = clock.finish()
        return Result(
            system=manifest.system,
            verdict=Verdict.FLAG if notes else Verdict.ACCEPT,
            codes=tuple(note.code for note in notes),
            reasons=tuple(note.reason for note in notes),
            findings=findings,
            key_slices=keys,
            timings_ms=timings,
            overran=self._overran(timings, len(study.volume.pixels)),
            bundle=self._info(served),
            input=study.info,
        )

    def _overran(self, timings_ms: dict[str, float], slices: int) -> tuple[str, ...]:
        """Stages beyond the bundle's budgets. Said, not logged: whoever watches many studies decides what it means."""
        budgets = self.bundle.manifest.budgets
        return tuple(name for name, ms in timings_ms.items() if name in budgets and ms > budgets[name].of(slices))

    def _no_result(self, refusal: Refusal, timings: dict[str, float], study: Study | None = None) -> Result:
        notes = (Note(code=refusal.code, reason=refusal.reason), *(study.notes if study else ()))
        return Result(
            system=self.bundle.manifest.system,
            verdict=Verdict.NO_RESULT,
            codes=tuple(note.code for note in notes),
            reasons=tuple(note.reason for note in notes),
            timings_ms=timings,
            bundle=self.info,
            input=study.info if study else None,
        )


def _first(outputs: Mapping[str, npt.NDArray[np.float32]], *names: str) -> Iterator[npt.NDArray[np.float32]]:
    """The first (and only) study's values of some outputs."""
    for name in names:
        if name not in outputs:
            raise BundleError(f"the graph has no output {name!r}, which its manifest names")
        yield outputs[name][0]


class _Clock:
    """Milliseconds by stage."""

    def __init__(self, before: dict[str, float], begun: float | None) -> None:
        self.begun = time.perf_counter() if begun is None else begun
        self.carried = sum(before.values()) if begun is None else 0.0
        self.stages = dict(before)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = _since(start)

    def move(self, source: str, target: str, ms: float) -> None:
        """Count some of a stage's time to another one: what a device did of it."""
        ms = min(ms, self.stages[source])
        self.stages[source] = round(self.stages[source] - ms, 3)
        self.stages[target] = round(self.stages[target] + ms, 3)

    def finish(self) -> dict[str, float]:
        """All stages and their total. Reading that was timed before counts into the total."""
        return {**self.stages, "total": round(_since(self.begun) + self.carried, 3)}


def _since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)
