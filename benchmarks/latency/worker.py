"""One process that measures one case, a round whenever it is asked: ``python -m edgehem.benchmarks.latency.worker``.

It speaks JSON, a line each way. Another build of edgehem answers the same questions, so that two installs can take
turns: see ``edgehem bench ab``.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgehem.benchmarks.child import serve
from edgehem.errors import EdgehemError

PROTOCOL = 1
INJECTED = "EDGEHEM_BENCH_SLOWER"
"""Environment variable, ``CASE=SHARE``: the case takes longer by so much, in its timed part: to test the gate."""


class Worker:
    """One case at a time."""

    def __init__(self) -> None:
        self._ready: Any = None
        self._rng = np.random.default_rng(0)
        self._slower = 0.0

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a message says: ``hello``, ``prepare``, ``round`` or ``end``."""
        work = {"hello": self._hello, "prepare": self._prepare, "round": self._round, "end": self._end}
        return work[message["do"]](message)

    def _hello(self, message: dict[str, Any]) -> dict[str, Any]:
        """Who is here, and what it can measure."""
        from edgehem.benchmarks import environment
        from edgehem.benchmarks.latency.cases import cases
        from edgehem.bundle import find

        known = [
            {
                "name": case.name, "group": case.group, "what": case.what, "slices": case.slices,
                "compressed": case.compressed, "share": case.share,
            }
            for case in cases(message["bundle"])
        ]  # fmt: skip
        return {
            "protocol": PROTOCOL,
            "edgehem": environment.version("edgehem"),
            "environment": environment.describe(),
            "served": self._served(message),
            "system": find(message["bundle"]).manifest.system,
            "cases": known,
        }

    def _served(self, message: dict[str, Any]) -> dict[str, Any]:
        from edgehem.backends import engines
        from edgehem.bundle import find
        from edgehem.serving import Serving

        bundle = find(message["bundle"])
        served = Serving(bundle, backend=message["backend"], precision=message["precision"]).served
        return {
            "engine": served.engine,
            "engine_version": next(engine.version() for engine in engines() if engine.name == served.engine),
            "graph": served.graph.file,
            "arithmetic": served.arithmetic,
            "bundle": f"{bundle.manifest.name} {bundle.manifest.version}",
            "sha256": bundle.sha256,
        }

    def _prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Make a case ready and warm it up."""
        from edgehem.benchmarks.latency.cases import Settings, cases

        case = next(case for case in cases(message["bundle"]) if case.name == message["case"])
        settings = Settings(
            bundle=message["bundle"], backend=message["backend"], precision=message["precision"]
        )  # fmt: skip
        named, _, share = os.environ.get(INJECTED, "").partition("=")
        self._slower = float(share) if named == case.name else 0.0
        self._rng = np.random.default_rng(message["seed"])
        try:
            self._ready = case.make(Path(message["folder"]), settings)
        except (LookupError, EdgehemError) as error:
            return {"passed_over": str(error.args[0] if error.args else error)}
        warm = [self._round({})["ms"][""] for _ in range(message["warm_up"])]
        gc.collect()
        gc.disable()
        return {"bytes_moved": self._ready.bytes_moved, "about_ms": min(warm)}

    def _round(self, message: dict[str, Any]) -> dict[str, Any]:
        """Time every call of the case, on fresh input, in orders drawn anew: once, or the quickest of several turns."""
        ready, taken = self._ready, dict[str, float]()
        ready.fresh(self._rng)
        for _ in range(message.get("turns", 1)):
            for name in map(str, self._rng.permutation(list(ready.calls))):
                begun = time.perf_counter_ns()
                said = ready.calls[name]()
                spent = (time.perf_counter_ns() - begun) / 1e6
                if ready.own_clock:
                    spent = float(said)
                if self._slower and not name:
                    spent += _linger(spent * self._slower)
                taken[name] = min(spent, taken.get(name, spent))
                del said
        return {"ms": taken}

    def _end(self, message: dict[str, Any]) -> dict[str, Any]:
        from edgehem.benchmarks import environment

        unit = 1 if sys.platform == "darwin" else 1024
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
        peak = children if self._ready.own_clock else environment.peak_memory()
        return {"peak_bytes": peak, "details": self._ready.details}


def _linger(ms: float) -> float:
    """Wait without sleeping; how long that took, ms."""
    begun = time.perf_counter_ns()
    while time.perf_counter_ns() - begun < ms * 1e6:
        pass
    return (time.perf_counter_ns() - begun) / 1e6


def main() -> None:
    """Answer until the parent closes its end."""
    serve(Worker().answer)


if __name__ == "__main__":
    main()
