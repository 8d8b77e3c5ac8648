"""Engines that misbehave. They are imported by name, here and in the children that try them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edgehem.backends import DEFAULT, OPEN_S
from edgehem.backends.onnxruntime import OnnxRuntime
from edgehem.plans import PlanStore


class Fake:
    """ONNX Runtime under another name, and what goes wrong."""

    name = "fake"
    only = ("f32",)
    forms = ("float", "qdq-s8", "qdq-u8")
    patience_s = OPEN_S
    on_request = False
    needs_plan = False

    def missing(self):
        return ""

    def version(self):
        return "1"

    def arithmetics(self):
        return self.only

    def open(self, graph, options=DEFAULT):
        self._session = OnnxRuntime().open(graph)
        return self

    def run(self, inputs):
        return self._session.run(inputs)


class FakeWrong(Fake):
    """Fast, for it does not compute."""

    name = "wrong"

    def run(self, inputs):
        if not hasattr(self, "_said"):
            self._said = {name: -array for name, array in self._session.run(inputs).items()}
        return self._said


class FakeSlightlyOff(Fake):
    """Half a unit in every logit."""

    name = "off"

    def run(self, inputs):
        return {name: array + 0.5 for name, array in self._session.run(inputs).items()}


class FakeHanging(Fake):
    name = "hanging"

    def open(self, graph, options=DEFAULT):
        while True:
            time.sleep(60)


class FakeWithHelper(FakeHanging):
    """Starts a process of its own, notes its id, and hangs."""

    def open(self, graph, options=DEFAULT):
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(os.environ["NOTE"]).write_text(str(helper.pid))
        return super().open(graph, options)


class FakeCrashing(Fake):
    name = "crashing"

    def open(self, graph, options=DEFAULT):
        os.kill(os.getpid(), signal.SIGSEGV)


class FakeCrashingLater(Fake):
    """Gives its answers, and is gone when it is timed."""

    name = "later"
    runs = 0

    def run(self, inputs):
        self.runs += 1
        if self.runs > 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(inputs)


class FakeRaising(Fake):
    name = "raising"

    def open(self, graph, options=DEFAULT):
        raise RuntimeError("/home/somebody/graph.onnx")


class FakeTalking(Fake):
    """Prints where its parent listens."""

    name = "talking"

    def run(self, inputs):
        os.write(1, b"compiling...\n")
        print("done", flush=True)
        return super().run(inputs)


class FakeWithoutNumbers(Fake):
    name = "nan"

    def run(self, inputs):
        return {name: array * float("nan") for name, array in self._session.run(inputs).items()}


class FakeAbsent(Fake):
    name = "absent"

    def missing(self):
        return "library not found"

    def version(self):
        return ""


class FakePlanner(Fake):
    """Makes plans, which are the graph itself; serves only those that were qualified."""

    name = "planner"
    needs_plan = True
    plan = ""

    def key(self, graph, options):
        return {
            "graph": hashlib.sha256(graph).hexdigest(),
            "bundle": options.bundle,
            "arithmetic": options.arithmetic,
            "driver": os.environ.get("FAKE_DRIVER", "1"),
        }

    def open(self, graph, options=DEFAULT):
        store = options.cache and PlanStore(options.cache)
        key = self.key(graph, options)
        if options.build is None:
            content, record = store.load(self.name, key)
            self.plan = record.id
            return super().open(content)
        options.build.say("looking at the graph")
        options.build.say(f"spending {options.build.workspace_mib} MiB")
        if store:
            self.plan = store.keep(self.name, key, graph, settings={}, details={})
        return super().open(graph)


class FakePlannerWrong(FakePlanner):
    """Builds what does not compute."""

    name = "misplanner"

    def run(self, inputs):
        return {name: -array for name, array in self._session.run(inputs).items()}


class FakeOnRequest(FakePlanner):
    name = "seldom"
    on_request = True
