"""Engines: one is chosen or refused by name, and ONNX Runtime runs a graph or says why not."""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgehem import backends, kernels
from edgehem.backends import Backend, Options, choose
from edgehem.backends.onnxruntime import OnnxRuntime
from edgehem.backends.openvino import OpenVino
from edgehem.bundle import find
from edgehem.errors import BackendError

ABSENT = OpenVino().missing()
needs_openvino = pytest.mark.skipif(bool(ABSENT), reason=f"openvino: {ABSENT}")


class Engine:
    """A pretended engine."""

    forms = ("float",)
    patience_s = backends.OPEN_S
    on_request = False
    needs_plan = False

    def __init__(self, name: str, missing: str = "") -> None:
        self.name, self._missing = name, missing

    def missing(self) -> str:
        return self._missing

    def version(self) -> str:
        return "" if self._missing else "1"

    def arithmetics(self) -> tuple[str, ...]:
        return ("f32",)

    def open(self, graph: bytes, options: Options = backends.DEFAULT) -> backends.Session:
        raise NotImplementedError


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Two engines, of which the one that is preferred is absent."""
    engines = [Engine("fast", "library not found"), Engine("slow")]
    monkeypatch.setattr(backends, "engines", lambda: engines)
    return engines


def test_auto_takes_the_first_engine_that_is_there(pretended: list[Engine]) -> None:
    assert choose() is choose("auto") is pretended[1]


def test_a_named_engine_is_taken_by_name(pretended: list[Engine]) -> None:
    assert choose("slow") is pretended[1]


def test_a_named_engine_that_is_absent_is_an_error_and_never_another_one(pretended: list[Engine]) -> None:
    with pytest.raises(BackendError, match="fast: library not found") as refused:
        choose("fast")
    assert "slow" not in str(refused.value)


def test_an_unknown_engine_is_answered_with_the_known_ones(pretended: list[Engine]) -> None:
    with pytest.raises(BackendError, match="auto, fast, slow"):
        choose("tpu")


def test_without_any_engine_every_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = [Engine("fast", "library not found"), Engine("slow", "not installed")]
    monkeypatch.setattr(backends, "engines", lambda: engines)
    with pytest.raises(BackendError, match="fast: library not found; slow: not installed"):
        choose()


def test_onnx_runtime_is_there() -> None:
    assert choose("onnxruntime").missing() == ""


# Two engines, one graph. What one of them answers, the other must.

TINY = runpy.run_path(str(Path(__file__).parent / "engines" / "tiny.py"))
model: Callable[..., bytes] = TINY["model"]

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 10, np.float32)


@pytest.fixture(params=[OnnxRuntime, pytest.param(OpenVino, marks=needs_openvino)], ids=["onnxruntime", "openvino"])
def engine(request: pytest.FixtureRequest) -> Backend:
    """Each engine."""
    made: Backend = request.param()
    return made


def test_an_engine_that_is_here_says_its_version_and_computes_in_f32(engine: Backend) -> None:
    assert engine.missing() == ""
    assert engine.version()[0].isdigit()
    assert engine.arithmetics()[0] == "f32"


def test_a_graph_is_run_from_its_bytes(engine: Backend) -> None:
    """Inputs and outputs go by name, for any batch, and one after the other; what was given is not written to."""
    session = engine.open(model("Add"))
    for rows in (1, 2, 1, 2):
        outputs = session.run({"b": B[:rows], "a": A[:rows]})
        assert set(outputs) == {"total", "copy"}
        np.testing.assert_array_equal(outputs["total"], A[:rows] + B[:rows])
        np.testing.assert_array_equal(outputs["copy"], A[:rows])
        assert outputs["total"].dtype == np.float32
    assert A.max() == 5


def test_outputs_belong_to_the_caller(engine: Backend) -> None:
    """The next run, a change of the input or of another output leaves them alone."""
    session = engine.open(model("Add"))
    a, b = A[:1].copy(), B[:1].copy()
    first = session.run({"a": a, "b": b})
    a += 100
    second = session.run({"a": a, "b": b})
    second["copy"][:] = -1
    np.testing.assert_array_equal(first["total"], A[:1] + B[:1])
    np.testing.assert_array_equal(first["copy"], A[:1])
    np.testing.assert_array_equal(second["total"], A[:1] + 100 + B[:1])
    np.testing.assert_array_equal(a, A[:1] + 100)


def test_arrays_of_every_make_are_read(engine: Backend) -> None:
    """Read-only, strided, reversed, and on any address."""
    session = engine.open(model("Add"))
    fixed = A[1:].copy()
    fixed.flags.writeable = False
    shifted = np.zeros(4 * 4 + 1, np.uint8)[1:13].view(np.float32).reshape(1, 3)
    for a in (fixed, np.asfortranarray(A)[1:], A[1:, ::-1], np.repeat(A[1:], 2, axis=1)[:, ::2], shifted):
        np.testing.assert_array_equal(session.run({"a": a, "b": B[:1]})["total"], a + B[:1])


@pytest.mark.parametrize("graph", [b"", b"not a graph", model("NoSuchOperator"), model("Add")[:-10]])
def test_what_is_no_graph_is_refused(engine: Backend, graph: bytes) -> None:
    """With the engine's own exception as the cause."""
    with pytest.raises(BackendError, match="refuses") as refused:
        engine.open(graph)
    assert refused.value.__cause__ is not None


@pytest.mark.parametrize(
    "inputs",
    [
        {"a": A},
        {"a": A, "b": B, "c": B},
        {"a": A, "b": B[:, :2]},
        {"a": A, "b": B.astype(np.float64)},
        {"a": A, "b": B[0]},
    ],
    ids=["one missing", "one too many", "wrong shape", "wrong type", "wrong rank"],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_an_error_of_the_backend(engine: Backend, inputs: dict[str, np.ndarray]) -> None:
    """Also when what fitted came before: OpenVINO would go on with that."""
    session = engine.open(model("Add"))
    session.run({"a": A, "b": B})
    with pytest.raises(BackendError, match="failed"):
        session.run(inputs)


def test_threads_do_not_get_each_others_answers(engine: Backend) -> None:
    session = engine.open(model("Add"))
    wrong = []

    def work(number: int) -> None:
        a = np.full((1, 3), number, np.float32)
        for step in range(50):
            b = np.full((1, 3), step, np.float32)
            if not (session.run({"a": a, "b": b})["total"] == number + step).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1000, 5000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_an_engine_cannot_do_is_refused_and_not_replaced(engine: Backend) -> None:
    """Another arithmetic than the CPU has; OpenVINO itself would quietly take one that it has."""
    lacking = {"f32", "bf16", "f16"} - set(engine.arithmetics())
    for arithmetic in lacking:
        with pytest.raises(BackendError, match=arithmetic):
            engine.open(model("Add"), Options(arithmetic=arithmetic))


@pytest.mark.parametrize("changes", [{"arithmetic": "int4"}, {"threads": 0}])
def test_options_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"arithmetic|threads"):
        Options(**changes)


def test_onnx_runtime_runs_a_graph_as_it_is_written() -> None:
    session = OnnxRuntime().open(model("Add"), Options(optimise=False, threads=1))
    np.testing.assert_array_equal(session.run({"a": A, "b": B})["total"], A + B)
    assert [(port.name, port.shape, port.dtype) for port in session.inputs] == [
        ("a", (None, 3), "float32"),
        ("b", (None, 3), "float32"),
    ]


# OpenVINO beside ONNX Runtime, on what ships


@pytest.fixture(scope="module")
def image() -> dict[str, np.ndarray]:
    """Noise, and a mask with planes that are not covered."""
    tensor = kernels.empty((1, 40, 3, 224, 224), "float32")
    tensor[...] = np.random.default_rng(3).random(tensor.shape, dtype=np.float32)
    valid = np.ones((1, 40), np.float32)
    valid[:, :4] = 0
    return {"image": tensor, "valid": valid}


@needs_openvino
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("int8", 0.1)])
def test_both_engines_answer_the_same_on_the_shipped_graphs(
    precision: str, tolerance: float, image: dict[str, np.ndarray]
) -> None:
    """Logits. Of int8, two engines round sums to either side of a step."""
    bundle = find("hemorrhagenet")
    graph = bundle.read(bundle.graph(precision))
    before = image["image"].tobytes()
    wanted, given = OnnxRuntime().open(graph).run(image), OpenVino().open(graph).run(image)
    assert wanted.keys() == given.keys()
    for name, array in wanted.items():
        assert given[name].shape == array.shape
    np.testing.assert_allclose(given["logits"], wanted["logits"], atol=tolerance)
    assert image["image"].tobytes() == before


@needs_openvino
def test_bfloat16_is_near_float32(image: dict[str, np.ndarray]) -> None:
    if "bf16" not in OpenVino().arithmetics():
        pytest.skip("this CPU has no bfloat16")
    bundle = find("hemorrhagenet")
    graph = bundle.read(bundle.graph("fp32"))
    exact = OpenVino().open(graph).run(image)["logits"]
    rough = OpenVino().open(graph, Options(arithmetic="bf16")).run(image)["logits"]
    assert 0 < np.abs(rough - exact).max() < 0.1


# Plans of OpenVINO


@needs_openvino
def test_a_plan_is_kept_and_gives_the_same_answers(tmp_path: Path) -> None:
    """For this user alone, and one for each graph and arithmetic."""
    folder = tmp_path / "plans"
    for _ in range(2):
        session = OpenVino().open(model("Add"), Options(cache=folder))
        np.testing.assert_array_equal(session.run({"a": A[:1], "b": B[:1]})["total"], A[:1] + B[:1])
        np.testing.assert_array_equal(session.run({"a": A, "b": B})["total"], A + B)
        assert len(list(folder.iterdir())) == 1
    assert folder.stat().st_mode & 0o077 == 0
    OpenVino().open(model("Sub"), Options(cache=folder))
    OpenVino().open(model("Add"), Options(cache=folder, threads=1))
    assert len(list(folder.iterdir())) == 3


@needs_openvino
@pytest.mark.parametrize("spoil", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_plan_is_not_believed(spoil: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """OpenVINO's own cache would load it, and answer anything."""
    folder = tmp_path / "plans"
    options = Options(cache=folder)
    OpenVino().open(model("Add"), options)
    (plan,) = folder.iterdir()
    whole = plan.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 64
    plan.write_bytes({"flipped": flipped, "cut": whole[:-9], "empty": b"", "foreign": b"<xml/>"}[spoil])
    with caplog.at_level(logging.WARNING):
        session = OpenVino().open(model("Add"), options)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(session.run({"a": A[:1], "b": B[:1]})["total"], A[:1] + B[:1])
    assert plan.read_bytes() == whole or plan.read_bytes()[:16] == whole[:16]


@needs_openvino
@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_folder_that_others_can_write_to_is_no_place_for_plans(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A plan is code. The graph is compiled, and nothing is kept."""
    folder = tmp_path / "plans"
    folder.mkdir(mode=0o700)
    OpenVino().open(model("Add"), Options(cache=folder))
    (plan,) = folder.iterdir()
    folder.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        session = OpenVino().open(model("Add"), Options(cache=folder))
        OpenVino().open(model("Sub"), Options(cache=folder))
    assert "open to others" in caplog.text
    assert list(folder.iterdir()) == [plan]
    np.testing.assert_array_equal(session.run({"a": A[:1], "b": B[:1]})["total"], A[:1] + B[:1])


# What is not installed, and what is not sent


def test_an_engine_that_cannot_be_imported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent or broken: a reason, no traceback."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "cannot be imported" in OnnxRuntime().missing()
    with pytest.raises(BackendError, match="cannot be imported"):
        choose("onnxruntime")


def test_openvino_that_cannot_be_imported_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgehem.backends.openvino._core", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "edgehem[cpu]" in OpenVino().missing()
    with pytest.raises(BackendError, match="openvino: cannot be imported"):
        choose("openvino")
    assert choose("auto").name == "onnxruntime"


def test_an_engine_that_is_not_wanted_is_not_loaded() -> None:
    """``auto`` without a device file takes ONNX Runtime, and pays for nothing else."""
    code = (
        "import sys; from edgehem.backends import choose, engines; choose(); choose('onnxruntime'); "
        "[e.version() for e in engines()]; sys.exit('openvino' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


WATCHED = """
import socket, sys

def refuse(*_, **__):
    raise SystemExit("a socket was opened")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

from edgehem.backends import choose
import threading
engine = choose("openvino")
assert engine.arithmetics()
told = [name for name in sys.modules if name.partition(".")[0] == "openvino_telemetry"]
sys.exit(", ".join(told + [thread.name for thread in threading.enumerate()[1:]]) or 0)
"""


@needs_openvino
def test_openvino_reports_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """On its own it reports to Google Analytics when it is imported, and leaves an identifier at home."""
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "LOCALAPPDATA", "USERPROFILE")
    continuous = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS")  # where these are set, it keeps quiet by itself
    environment = {key: value for key, value in os.environ.items() if key not in continuous}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env={**environment, **dict.fromkeys(names, str(tmp_path))},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == []
