"""The rules of TensorRT readiness beside a real parser and builder: what they accept is built, what they refuse is not.

TensorRT for RTX parses and builds for a GPU that need not be there. Where a rule refuses more, it says why.
"""

from __future__ import annotations

import contextlib
import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx", reason="needs the [export] extra")
pytestmark = pytest.mark.tensorrt

from edgehem.bundle import find  # noqa: E402
from edgehem.export.graph import finished  # noqa: E402
from edgehem.export.half import halved, prepared  # noqa: E402
from edgehem.export.readiness import lint  # noqa: E402

CORPUS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("test_readiness.py")))
Net, CASES, READY, TAKEN = (CORPUS[name] for name in ("Net", "CASES", "READY", "SPOILT_AND_TAKEN"))
CHILD = Path(__file__).with_name("builder_child.py")


class Builder:
    """The child that builds, and another one when it crashed."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.kind = json.loads(self.child.stdout.readline())

    def refusal(self, graph: bytes) -> str:
        """Why a graph is refused; empty if it is built."""
        self.child.stdin.write(len(graph).to_bytes(8, "little") + graph)
        self.child.stdin.flush()
        if answer := self.child.stdout.readline():
            return str(json.loads(answer))
        self.end()
        self.start()
        return "the builder crashed"

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait(60)


@pytest.fixture(scope="module")
def builder() -> Iterator[Builder]:
    """The first that is installed and works here."""
    made = Builder()
    if made.kind["missing"]:
        made.end()
        pytest.skip(f"no TensorRT that builds here ({made.kind['missing']})")
    yield made
    made.end()


@pytest.mark.parametrize("make", [lambda net: None, *READY], ids=["plain", *(make.__name__ for make in READY)])
def test_what_is_called_ready_is_built(make: Callable[[Any], None], builder: Builder) -> None:
    net = Net()
    make(net)
    assert lint(net.model()).ready
    assert builder.refusal(net.model().SerializeToString()) == ""


@pytest.mark.parametrize("spoil", dict.fromkeys(spoil for _, spoil in CASES), ids=lambda spoil: spoil.__name__)
def test_what_is_refused_is_not_built_or_the_rule_says_why(spoil: Callable[[Any], None], builder: Builder) -> None:
    net = Net()
    spoil(net)
    refusal = builder.refusal(net.model().SerializeToString())
    if spoil.__name__ not in TAKEN:
        assert refusal
    elif builder.kind["rtx"]:
        assert refusal == "", "no longer built: the rule is not stricter any more (SPOILT_AND_TAKEN, Rule.stricter)"


def test_unsigned_activations_are_taken_for_signed_ones(builder: Builder) -> None:
    """Why the rule is an error: with zero point 0 nothing is refused, and values above 127 steps are clipped."""
    bundle = find("hemorrhagenet")
    (graph,) = (graph for graph in bundle.manifest.graphs if graph.form == "qdq-u8")
    content = bundle.read(graph)
    assert not lint(onnx.load_from_string(content)).ready
    if builder.kind["rtx"]:
        assert builder.refusal(content) == ""


@pytest.mark.parametrize("half", [False, True], ids=["as shipped", "in float16"])
@pytest.mark.parametrize("form", ["float", "qdq-s8"])
def test_the_shipped_graphs_are_built(form: str, half: bool, builder: Builder) -> None:
    """And their float16 variants, as the bundle's own code writes them."""
    bundle = find("hemorrhagenet")
    (graph,) = (graph for graph in bundle.manifest.graphs if graph.form == form)
    content = bundle.read(graph)
    if half:
        model = halved(prepared(onnx.load_from_string(content)), inputs=["image"])
        content = finished(model, system="hemorrhagenet")[1]
    assert builder.refusal(content) == ""


def test_all_graphs_that_a_bundle_has_for_tensorrt_are_built(builder: Builder) -> None:
    bundle = find("hemorrhagenet")
    for graph in bundle.manifest.graphs:
        if graph.form != "qdq-u8":
            assert builder.refusal(bundle.read(graph)) == "", graph.file
