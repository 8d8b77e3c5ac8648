"""Engines that misbehave. They are imported by name, here and in the children that try them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edgehem.backends import DEFAULT
from edgehem.backends.onnxruntime import OnnxRuntime


class Fake:
    """ONNX Runtime under another name, and what goes wrong."""

    name = "fake"
    only = ("f32",)

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
