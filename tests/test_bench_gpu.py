"""The benchmarks that need a GPU: what they do without one, and what they write. No figure is made here.

Engines on a GPU are stood in for by ONNX Runtime on the CPU under another name; none of this was run on a device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehem import kernels
from edgehem.backends import DEFAULT, OPEN_S, DeviceSession, DeviceTiming
from edgehem.backends.onnxruntime import OnnxRuntime, OnnxRuntimeSession
from edgehem.benchmarks import gpu_engines, gpu_kernels, gpu_run
from edgehem.benchmarks.gpu_run import NotHereError, WrongError
from edgehem.bundle import Bundle, find
from edgehem.errors import BackendError

ROOT = Path(__file__).resolve().parent.parent


def test_without_a_gpu_it_measures_nothing_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_kernels.py", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # also where there is one
    )
    assert done.returncode == gpu_kernels.NO_GPU == 3
    assert done.stdout == ""
    assert done.stderr.startswith("Nothing was measured: ") and done.stderr.count("\n") == 1
    assert not out.exists()


def test_the_page_says_what_was_measured_and_where() -> None:
    times = {"median": 200.0, "lower_quartile": 190.0, "upper_quartile": 210.0}
    record = {
        "date": "2000-01-01",
        "command": "python benchmarks/gpu_kernels.py",
        "repeats": 50,
        "checked": 15,
        "gpu": {
            "name": "A GPU",
            "driver": None,
            "driver_cuda": 13000,
            "pycuda": "2026.1",
            "code": {"detail": "built ahead, sm_90"},
        },
        "bandwidth": [
            {"dtype": "int8", "slices": 700, "pass_gb_per_s": 1234.5, "copy_gb_per_s": 2469.0, "share_of_copy": 0.5}
        ],
        "study": [
            {"dtype": "int8", "kernel_us": times, "with_copy_us": times, "copy_us": times, "link_gb_per_s": 25.0}
        ],
        "sanitizer": {"run": True, "tools": {"memcheck": {"clean": True}, "initcheck": {"clean": False}}},
    }
    page = gpu_kernels.page(record)
    for words in ("# Preprocessing on A GPU", "driver unknown, CUDA 13.0", "built ahead, sm_90", "| int8 | 700 | 1234"):
        assert words in page
    assert "- memcheck: clean\n- initcheck: NOT clean" in page
    assert "Not run: no tool" in gpu_kernels.page({**record, "sanitizer": {"run": False, "why_not": "no tool"}})
    assert "sanitizer" not in gpu_kernels.page({**record, "sanitizer": None})


def test_a_spread_is_the_median_between_its_quartiles() -> None:
    assert gpu_kernels.spread([5.0, 1.0, 4.0, 2.0, 3.0]) == {
        "median": 3.0,
        "lower_quartile": 1.5,
        "upper_quartile": 4.5,
    }


# The engines


class Stand:
    """ONNX Runtime on the CPU as an engine on a GPU, with a device path on the host; and what may go wrong with it."""

    name, forms, patience_s, on_request, needs_plan = "fake-gpu", ("float",), OPEN_S, False, True

    def __init__(self, *, device: bool = True, gain: float = 1.0, gain_on_device: float = 1.0) -> None:
        self.device, self.gain, self.gain_on_device = device, gain, gain_on_device
        self.addresses: list[int] = []

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return "1"

    def arithmetics(self) -> tuple[str, ...]:
        return ("f32", "tf32")

    def open(self, graph: bytes, options: Any = DEFAULT) -> Any:
        assert options.build is not None and options.cache is None, "a benchmark keeps no plans"
        if options.arithmetic == "tf32":
            raise BackendError("a fake has no TensorFloat-32")
        return (OnDevice if self.device else FromHost)(self, graph)


class FromHost:
    def __init__(self, stand: Stand, graph: bytes) -> None:
        self.stand, self.session = stand, OnnxRuntimeSession(graph)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.stand.addresses += [array.ctypes.data for array in inputs.values() if array.nbytes > 1 << 20]
        return {name: array * self.stand.gain for name, array in self.session.run(inputs).items()}


class OnDevice(FromHost):
    def analyse(
        self, stack: Any, target: Any, windows: Any, *, image: str, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], DeviceTiming]:
        assert image not in inputs
        made = kernels.preprocess(stack, target, windows)[None]
        outputs = self.session.run({**inputs, image: made})
        timing = DeviceTiming(preprocess_ms=1.0, infer_ms=2.0, fetch_ms=3.0)
        return {name: array * self.stand.gain_on_device for name, array in outputs.items()}, timing


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return find("hemorrhagenet")


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stand]:
    """The maker of the only engine there is."""
    monkeypatch.setattr(gpu_engines, "WARM_UP", 1)

    def make(**how: Any) -> Stand:
        made = Stand(**how)
        monkeypatch.setattr(gpu_engines, "engines", lambda: [OnnxRuntime(), made])
        return made

    return make


def test_an_engine_is_compared_before_it_is_timed(stand: Callable[..., Stand], bundle: Bundle) -> None:
    stand()
    found = json.loads(json.dumps(gpu_engines.engine("fake-gpu", bundle, count=1, rounds=2), allow_nan=False))
    right, refused = found["rows"]
    assert right["apart"]["fidelity_db"] > 80 and right["apart"]["flips"] == 0
    assert right["run"]["count"] == right["cpu_f32"]["count"] == 2 and right["run"]["p50_ms"] > 0
    assert refused["why_not"] == "a fake has no TensorFloat-32" and "run" not in refused
    assert found["bundle"]["sha256"] == bundle.sha256


def test_a_wrong_engine_gets_no_time(stand: Callable[..., Stand], bundle: Bundle) -> None:
    stand(gain=1.5)
    row = gpu_engines.engine("fake-gpu", bundle, count=1, rounds=2)["rows"][0]
    assert "run" not in row and "nothing was timed" in row["why_not"]
    stand(gain=float("nan"))
    assert "not a number" in gpu_engines.engine("fake-gpu", bundle, count=1, rounds=2)["rows"][0]["why_not"]


def test_no_run_sees_memory_of_an_earlier_one(stand: Callable[..., Stand], bundle: Bundle) -> None:
    made = stand()
    kept = [array for head in gpu_engines.heads(bundle, 1) for array in (head.volume.pixels,)]
    assert gpu_engines.fresh(gpu_engines.heads(bundle, 1)[0].volume).pixels.ctypes.data != kept[0].ctypes.data
    session = FromHost(made, bundle.read(bundle.manifest.graphs[0]))
    head = gpu_engines.heads(bundle, 1)[0]
    inputs = [gpu_engines.host_inputs(bundle, bundle.manifest.graphs[0], head)]
    gpu_engines.in_turns((session, inputs), (session, inputs), 1)
    (image,) = (array for array in inputs[0].values() if array.nbytes > 1 << 20)
    assert image.ctypes.data not in made.addresses and len(made.addresses) == 4


def test_the_device_path_beside_the_hosts(stand: Callable[..., Stand], bundle: Bundle) -> None:
    made = stand()
    graph = next(graph for graph in bundle.manifest.graphs if graph.form == "float")
    assert isinstance(OnDevice(made, bundle.read(graph)), DeviceSession)
    row, refused = gpu_engines.device("fake-gpu", bundle, count=2, rounds=2)["rows"]
    assert row["ways_agree"] > 80 and row["apart"]["fidelity_db"] > 80
    assert row["device"]["count"] == row["host"]["count"] == 2
    assert row["on_device_ms"] == {"preprocess_ms": 1.0, "infer_ms": 2.0, "fetch_ms": 3.0}
    assert refused["why_not"]


@pytest.mark.parametrize("how", [{"gain_on_device": 1.5}, {"gain": 1.5}])
def test_a_wrong_way_is_named(stand: Callable[..., Stand], bundle: Bundle, how: dict[str, float]) -> None:
    stand(**how)
    row = gpu_engines.device("fake-gpu", bundle, count=1, rounds=2)["rows"][0]
    where = "on the device" if "gain_on_device" in how else "from the host"
    assert where in row["why_not"] and "device" not in row


def test_what_is_not_here_is_said(
    stand: Callable[..., Stand], bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stand(device=False)
    with pytest.raises(NotHereError, match="fed from the host"):
        gpu_engines.device("fake-gpu", bundle, count=1, rounds=2)
    with pytest.raises(NotHereError, match="no engine nonsense"):
        gpu_engines.engine("nonsense", bundle)
    monkeypatch.setattr(made, "forms", ("float64",), raising=False)
    with pytest.raises(NotHereError, match="takes none of the bundle's graphs"):
        gpu_engines.engine("fake-gpu", bundle)
    monkeypatch.setattr(made, "dla_core", 0, raising=False)
    with pytest.raises(NotHereError, match="no deep learning accelerator"):
        gpu_engines.engine("fake-gpu", bundle)
    monkeypatch.setattr(made, "missing", lambda: "no such library")
    assert gpu_engines.main(["engine", "fake-gpu"]) == 3
    assert capsys.readouterr().err == "fake-gpu: no such library.\n"
    assert gpu_engines.main(["names"]) == 0
    assert capsys.readouterr().out == "fake-gpu\n"


def test_rows_that_are_wrong_end_in_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"why_not": ""}, {"why_not": "it is off"}]
    monkeypatch.setattr(gpu_engines, "engine", lambda name, bundle: {"rows": rows})
    assert gpu_engines.main(["engine", "any"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"rows": rows}  # what was measured is not lost
    assert said.err == "1 of 2 graphs: it is off.\n"


def test_percentiles() -> None:
    assert gpu_engines.spread(list(np.arange(1, 102) / 1e3)) == {"p50_ms": 51.0, "p95_ms": 96.0, "count": 101}


# Around them


@pytest.mark.parametrize(
    ("code", "last", "expected"),
    [
        (0, "7 passed, 3 skipped in 1.0s", 7),
        (0, "10 skipped in 1.0s", NotHereError),
        (5, "100 deselected in 1.0s", NotHereError),
        (1, "1 failed, 7 passed in 1.0s", WrongError),
        (3, "internal error", WrongError),
    ],
)
def test_skipped_tests_have_not_passed(monkeypatch: pytest.MonkeyPatch, code: int, last: str, expected: Any) -> None:
    done = subprocess.CompletedProcess([], code, stdout=f"...\n{last}\n")
    monkeypatch.setattr(gpu_run.subprocess, "run", lambda *given, **how: done)
    if isinstance(expected, int):
        assert gpu_run.tests("gpu") == expected
    else:
        with pytest.raises(expected):
            gpu_run.tests("gpu")


def test_the_commit_is_told_where_there_is_one(tmp_path: Path) -> None:
    assert gpu_run.commit(tmp_path) == ""


def test_without_a_gpu_the_script_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = subprocess.run(
        [ROOT / "benchmarks/gpu.sh", "--out", out],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("no GPU can be used here: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


STUB = """\
#!/bin/bash
echo "$*" >>"$CALLS"
case "$*" in
*"gpu_engines.py probe")
    echo '{"date": "a day", "commit": "abc+", "tensorrt": {"version": "11.0"},' \
        '"gpus": {"found": [{"name": "Stub GPU", "driver": "1.2"}]}}' ;;
*"gpu_engines.py names") printf 'tensorrt\nonnxruntime-cuda\nabsent\n' ;;
*"tests tensorrt") echo "every test was skipped." >&2; exit 3 ;;
*"engine tensorrt") echo "it | is	off." >&2; exit $BROKEN ;;
*"engine absent") echo "absent: not installed." >&2; exit 3 ;;
"-c import torch"*) exit 1 ;;
*"gpu_engines.py summary"*) exec "$REAL" "$@" ;;
esac
"""


@pytest.mark.parametrize("broken", [0, 1])
def test_the_script_goes_on_after_a_failure_and_tells_it(tmp_path: Path, broken: int) -> None:
    """Its own control flow; what it starts is a stub that answers at once."""
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    names = {"PYTHON": stub, "REAL": sys.executable, "CALLS": tmp_path / "calls", "BROKEN": broken, "TMPDIR": scratch}
    done = subprocess.run(
        [ROOT / "benchmarks/gpu.sh", "--out", tmp_path / "results"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **{name: str(value) for name, value in names.items()}},
    )
    assert done.returncode == broken, done.stderr
    (out,) = (tmp_path / "results").iterdir()
    record = json.loads((out / "summary.json").read_text())
    states = {step["name"]: step["state"] for step in record["steps"]}
    assert record["failed"] == broken and record["machine"]["commit"] == "abc+"
    assert states["engine-tensorrt"] == ("FAILED" if broken else "passed")
    assert states["tests-tensorrt"] == states["engine-absent"] == states["triage-absent"] == "passed over"
    assert states["bench-engines"] == "passed over" and states["bench-intake"] == "passed"
    assert states["warm-onnxruntime"] == states["cold-onnxruntime-cuda"] == "passed"
    assert ("cold-tensorrt" in states) is not bool(broken)
    sentences = {step["name"]: step["sentence"] for step in record["steps"]}
    assert sentences["engine-absent"] == "absent: not installed."
    if broken:
        assert sentences["engine-tensorrt"] == "exit code 1: it   is off."
    page = (out / "summary.md").read_text()
    assert "# A run on Stub GPU (driver 1.2)" in page and "| engine-absent | passed over |" in page
    calls = (tmp_path / "calls").read_text()
    assert calls.index("engine tensorrt") < calls.index("device tensorrt") < calls.index("compile hemorrhagenet")
    assert list(scratch.iterdir()) == []  # plans and kernels went with it
