"""One process that is one contender: ``python -m edgehem.benchmarks.pipelines.worker``. JSON, a line each way."""

from __future__ import annotations

import gc
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgehem.benchmarks import environment
from edgehem.benchmarks.child import serve
from edgehem.benchmarks.contender import PassedOverError
from edgehem.benchmarks.pipelines.contender import Clock, Job, Pipeline, Study


class Worker:
    """Answers one question after the other."""

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a message says: ``prepare``, ``show``, ``round``, ``overhead`` or ``end``."""
        work = {
            "prepare": self._prepare, "show": self._show, "round": self._round, "overhead": self._overhead,
            "end": self._end,
        }  # fmt: skip
        return work[message["do"]](message)

    def _prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Make the contender ready; ``passed_over`` says why it cannot be."""
        module, _, name = message["where"].partition(":")
        try:
            self._pipeline = getattr(import_module(module), name)(msgspec.convert(message["job"], Job))
        except ModuleNotFoundError as error:
            return {"passed_over": f"{error.name} is not installed"}
        except PassedOverError as error:
            return {"passed_over": str(error)}
        return {}

    def _show(self, message: dict[str, Any]) -> dict[str, Any]:
        """Leave what the contender makes of a study in a file."""
        pipeline, study = self._asked(message)
        answer = pipeline.run(study, Clock())
        arrays = {f"output.{name}": np.asarray(value) for name, value in answer.outputs.items()}
        if answer.tensor is not None:
            arrays["tensor"] = answer.tensor
        np.savez(Path(message["out"]), allow_pickle=False, **arrays)
        return {}

    def _round(self, message: dict[str, Any]) -> dict[str, Any]:
        pipeline, study = self._asked(message)
        clock = Clock()
        gc.collect()
        gc.disable()
        try:
            begun = time.perf_counter_ns()
            answer = pipeline.run(study, clock)
            taken = time.perf_counter_ns() - begun
        finally:
            gc.enable()
        del answer
        return {"ns": taken, "stages_ms": clock.ms}

    def _overhead(self, message: dict[str, Any]) -> dict[str, Any]:
        pipeline, study = self._asked(message)
        return {} if pipeline.overhead is None else dict(pipeline.overhead(study, message["rounds"]))

    def _end(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"peak_bytes": environment.peak_memory()}

    def _asked(self, message: dict[str, Any]) -> tuple[Pipeline, Study]:
        assert self._pipeline is not None
        study = msgspec.convert(message["study"], Study)
        self._pipeline.fresh(study)
        return self._pipeline, study


def main() -> None:
    """Answer until the parent closes its end."""
    warnings.simplefilter("ignore")  # a peer's own affair
    serve(Worker().answer)


if __name__ == "__main__":
    main()
