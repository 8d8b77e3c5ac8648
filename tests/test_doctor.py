"""The doctor tells the truth about this machine, and about one with gaps."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from edgehem import backends, cli, doctor, doctor_gpu, gpu
from edgehem.backends import engines
from edgehem.dicom import codec
from edgehem.doctor import Requirement, examine, render_examination
from edgehem.doctor_gpu import examine_gpu, render_gpu
from edgehem.gpu import Gpu
from edgehem.kernels import fused
from edgehem.kernels.errors import KernelUnavailableError
from edgehem.plans import BUNDLE, GRAPH, PlanStore


def test_examination_is_json_and_complete() -> None:
    examination = json.loads(json.dumps(examine()))
    assert examination["schema"] == doctor.SCHEMA
    assert examination["edgehem"] == metadata.version("edgehem")
    assert 1 <= examination["cpus"]["usable"] <= examination["cpus"]["present"]
    assert all(examination["packages"].values())
    assert examination["onnxruntime"]["ready"]
    assert doctor.USED_PROVIDER in examination["onnxruntime"]["providers"]
    kernels = examination["kernels"]
    assert [entry["name"] for entry in kernels["candidates"]] == [
        "cuda prebuilt",
        "cuda compiled here",
        "native",
        "numpy",
    ]
    ready = {entry["name"] for entry in kernels["candidates"] if entry["ready"]}
    assert {"numpy", kernels["cpu"], kernels["gpu"]} <= ready and not kernels["why_not"]
    codecs = {entry["name"]: entry for entry in examination["codecs"]}
    assert codecs["RLE lossless"]["ready"]
    assert codecs["JPEG baseline (8 bit)"]["why_not"].startswith("refused")
    assert all(entry["ready"] is not bool(entry["why_not"]) for entry in codecs.values())
    assert {entry["uid"] for entry in codecs.values()} >= codec.LOSSLESS | codec.LOSSY


def test_every_declared_extra_is_examined_and_explained() -> None:
    declared = set(metadata.metadata("edgehem").get_all("Provides-Extra") or [])
    extras = {extra["name"]: extra for extra in examine()["extras"]}
    assert set(extras) == declared
    assert all(extra["brings"] for extra in extras.values())


def test_text_names_every_package_and_stays_narrow() -> None:
    text = render_examination(examine())
    for words in (*doctor.REQUIRED, *doctor.BRINGS, "usable of", "Preprocessing kernels", "an engine on the CPU takes"):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= doctor.WIDTH


def test_gaps_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version_of
    versions = {"pillow": None, "onnx": "1.2.0"}
    monkeypatch.setattr(doctor, "version_of", lambda name: versions.get(name, "99") if name in versions else real(name))
    examination = examine()
    extras = {extra["name"]: extra for extra in examination["extras"]}
    assert extras["report"]["missing"] == ["pillow"]
    assert "pillow" in extras["dev"]["missing"]  # through edgehem[test]
    assert any(gap.startswith("onnx 1.2.0 is older than") for gap in extras["export"]["missing"])
    text = render_examination(examination)
    assert "missing: pillow" in text
    assert "pip install 'edgehem[report]'" in text


def test_a_broken_engine_is_a_finding_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    examination = examine()
    assert examination["onnxruntime"] == {
        "ready": False,
        "providers": [],
        "why_not": "cannot be imported: ModuleNotFoundError",
    }
    assert "cannot be imported" in render_examination(examination)


def test_kernels_that_cannot_run_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice that cannot be served, and a package that cannot be imported."""
    monkeypatch.setenv(fused.CHOICE, "cuda-please")
    fused.implementation.cache_clear()
    try:
        kernels = examine()["kernels"]
        assert kernels["cpu"] is None and "cuda-please" in kernels["why_not"]
        assert "none runs: EDGEHEM_KERNELS=cuda-please" in render_examination(examine())
    finally:
        fused.implementation.cache_clear()
    monkeypatch.setitem(sys.modules, "edgehem.kernels.selection", None)
    assert examine()["kernels"]["candidates"] == []
    assert "none runs: cannot be imported" in render_examination(examine())


def test_a_damaged_bundle_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, manifest in (("good", '{"version": "1.0", "demonstration": true}'), ("bad", "{"), ("empty", None)):
        (tmp_path / name).mkdir()
        if manifest is not None:
            (tmp_path / name / "bundle.json").write_text(manifest)
    monkeypatch.setattr(doctor.resources, "files", lambda _: tmp_path)
    bundles = {bundle["name"]: bundle for bundle in examine()["bundles"]}
    assert set(bundles) == {"good", "bad"}
    assert bundles["good"] == {"name": "good", "version": "1.0", "demonstration": True, "why_not": ""}
    assert bundles["bad"]["why_not"].startswith("its manifest cannot be read")
    assert "not for patients" in render_examination(examine())


def test_requirement_lines() -> None:
    assert Requirement.parse("numpy>=1.26") is None
    assert Requirement.parse("pillow>=10; extra == 'report'") == Requirement(
        distribution="pillow", lowest="10", extra="report"
    )
    assert Requirement.parse('edgehem[test,bench]; extra == "dev"') == Requirement(
        distribution="edgehem", lowest="", extra="dev", parts=("test", "bench")
    )


def test_command_prints_text_or_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("edgehem ")
    assert cli.main(["doctor", "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed)["schema"] == doctor.SCHEMA


# GPUs: machines that are not here are stood in for


ORIN_GPU = Gpu(
    ordinal=0, name="Orin", capability="8.7", multiprocessors=16, memory_mib=30697, integrated=True, cuda="12.6",
    driver="540.4.0, L4T 36.4.3",
)  # fmt: skip


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """The maker of machines: their GPU, and a module called tensorrt that has a version and nothing else."""
    monkeypatch.setenv("EDGEHEM_STATE", str(tmp_path / "state"))

    def make(*, device: Gpu | None = ORIN_GPU, tensorrt: str | None = "10.3.0.30", lean: bool = False) -> None:
        def gpus() -> list[Gpu]:
            if device is None:
                raise KernelUnavailableError("pycuda is not installed")
            return [device]

        monkeypatch.setattr(gpu, "gpus", gpus)
        monkeypatch.setattr(gpu, "gpu", lambda ordinal=0: gpus()[ordinal])
        monkeypatch.setattr(gpu, "driver_version", lambda: "540.4.0" if device is None else device.driver)
        fake = types.ModuleType("tensorrt")
        parts = {} if lean else {"Builder": object, "Runtime": object, "OnnxParser": object}
        vars(fake).update(__version__=tensorrt, **parts)
        monkeypatch.setitem(sys.modules, "tensorrt", None if tensorrt is None else fake)

    return make


def kept(*, graph: str = "ab" * 32, engine: str = "tensorrt", qualified: bool = True, **changes: str) -> str:
    """A plan in this user's store, for the machine of the fixture."""
    from edgehem.device import plans

    key = {GRAPH: graph, BUNDLE: "cd" * 32, "TensorRT": "10.3.0.30", "arithmetic": "f32", **gpu.key_parts()}
    store = PlanStore(plans())
    name = store.keep(engine, key | changes, graph.encode(), settings={}, details={})
    if qualified:
        figures = {"shift": 0.0, "flips": 0, "sqnr_db": 60.0, "fidelity_db": 60.0}
        store.qualify(name, reference="onnxruntime", probes={}, figures=figures)
    return name


def shown(found: dict[str, Any]) -> str:
    """The text, each line's breaks undone."""
    return "\n".join(line for section in render_gpu(found) for line in section)


def test_a_machine_without_a_gpu_has_a_short_section(machine: Callable[..., None], tmp_path: Path) -> None:
    machine(device=None, tensorrt=None)
    found = examine_gpu(tmp_path)
    assert found["gpus"] == {"found": [], "driver": "540.4.0", "why_not": "pycuda is not installed"}
    assert found["jetson"] is None and found["plans"] == {"found": [], "why_not": ""}
    (section,) = render_gpu(found)
    assert len(section) == 3
    assert "pycuda is not installed; driver 540.4.0 is loaded" in section[1]
    assert section[2].split() == ["no", "TensorRT", "tensorrt", "is", "not", "installed"]
    assert list(tmp_path.iterdir()) == []  # not even the state folder was made


def test_gpu_and_tensorrt_of_jetpack(machine: Callable[..., None], tmp_path: Path) -> None:
    """JetPack's bindings are a system package, of which Python's metadata know nothing."""
    machine()
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: python3-libnvinfer\nStatus: install ok installed\nVersion: 10.3.0.30-1+cuda12.5\n")
    found = examine_gpu(tmp_path)
    assert found["gpus"]["found"][0]["multiprocessors"] == 16
    assert found["tensorrt"] == {
        "version": "10.3.0.30",
        "package": "system package python3-libnvinfer 10.3.0.30-1+cuda12.5",
        "why_not": "",
    }
    text = shown(found)
    for words in ("8.7, 16 multiprocessors", "30697 MiB shared with the CPU", "L4T 36.4.3, CUDA 12.6", "python3-libnv"):
        assert words in text


def test_a_tensorrt_from_the_index_beside_jetpacks(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both have metadata; the one that is imported is named."""
    machine()
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: python3-libnvinfer\nStatus: install ok installed\nVersion: 10.3.0\n")
    monkeypatch.setattr(metadata, "version", lambda name: "10.13.0")
    for place, words in (
        ("/usr/lib/python3.10/dist-packages", "system package python3-libnvinfer 10.3.0"),
        ("/home/venv/lib/python3.10/site-packages", "package tensorrt 10.13.0"),
    ):
        spec = importlib.util.spec_from_loader("tensorrt", None, origin=f"{place}/tensorrt/__init__.py")
        monkeypatch.setattr(sys.modules["tensorrt"], "__spec__", spec)
        assert examine_gpu(tmp_path)["tensorrt"]["package"] == words


def test_a_tensorrt_that_cannot_be_used_is_named(machine: Callable[..., None], tmp_path: Path) -> None:
    machine(tensorrt="8.6.2")
    assert examine_gpu(tmp_path)["tensorrt"]["version"] == "8.6.2"
    assert "none of 10.3 to 11 (8.6.2)" in shown(examine_gpu(tmp_path))
    machine(lean=True)
    assert "not a lean runtime (10.3.0.30)" in shown(examine_gpu(tmp_path))


def test_plans_say_whether_they_fit(machine: Callable[..., None], tmp_path: Path) -> None:
    machine()
    kept()
    kept(graph="01" * 32, qualified=False)
    kept(graph="23" * 32, multiprocessors="8", TensorRT="10.2.0")
    plans = {plan["graph"]: plan for plan in examine_gpu(tmp_path)["plans"]["found"]}
    assert {name: (plan["qualified"], plan["fits"]) for name, plan in plans.items()} == {
        "abababababab": (True, True),
        "010101010101": (False, True),
        "232323232323": (True, False),
    }
    assert set(plans["232323232323"]["unlike"]) == {
        "multiprocessors was 8, is 16",
        "TensorRT was 10.2.0, is 10.3.0.30",
    }
    lines = shown(examine_gpu(tmp_path)).splitlines()
    good = {line.split("graph ")[1][:12]: line.split()[0] for line in lines if " graph " in line}
    assert good == {"abababababab": "yes", "010101010101": "no", "232323232323": "no"}
    # Another engine's TensorRT is not this one, and is not compared with it.
    kept(graph="45" * 32, engine="onnxruntime-tensorrt", TensorRT="11.0")
    assert {plan["engine"]: plan["fits"] for plan in examine_gpu(tmp_path)["plans"]["found"][:1]} == {
        "onnxruntime-tensorrt": True
    }


def test_a_power_mode_that_changed_shows(machine: Callable[..., None], tmp_path: Path) -> None:
    """It switches multiprocessors off: a plan for sixteen is not one for eight."""
    machine()
    kept()
    machine(
        device=Gpu(**{**{name: getattr(ORIN_GPU, name) for name in ORIN_GPU.__struct_fields__}, "multiprocessors": 8})
    )
    assert "does not fit: multiprocessors was 16, is 8" in shown(examine_gpu(tmp_path))
    machine(tensorrt=None)
    assert "does not fit: there is no TensorRT to compare with" in shown(examine_gpu(tmp_path))
    machine(device=None)
    assert "does not fit: there is no GPU to compare with" in shown(examine_gpu(tmp_path))


def test_many_plans_are_counted(machine: Callable[..., None], tmp_path: Path) -> None:
    machine()
    for number in range(10):
        kept(graph=f"{number:02x}" * 32)
    found = examine_gpu(tmp_path)
    assert len(found["plans"]["found"]) == 10
    assert "and 2 older plans" in shown(found)


def test_a_folder_that_others_may_write_to_is_said_to_be_unused(machine: Callable[..., None], tmp_path: Path) -> None:
    machine()
    kept()
    (tmp_path / "state/plans").chmod(0o755)
    found = examine_gpu(tmp_path)
    assert found["plans"]["found"] == [] and "open to others" in found["plans"]["why_not"]
    assert "plans: not used:" in shown(found)


def test_a_jetson_has_its_section(machine: Callable[..., None], tmp_path: Path) -> None:
    machine()
    layouts = _beside("test_jetson")
    layouts.laid_out(tmp_path, layouts.ORIN)
    found = json.loads(json.dumps(examine_gpu(tmp_path)))
    assert found["jetson"]["series"] == "6" and found["jetson"]["hottest"] == "tj-thermal"
    assert [clock["locked"] for clock in found["jetson"]["clocks"]] == [False, False, True]
    text = re.sub(" +", " ", shown(found))
    for words in (
        "model NVIDIA Jetson AGX Orin Developer Kit, tegra234",
        "release Jetson Linux 36.4.3 (JetPack 6), nvidia-jetpack 6.2+b77",
        "power mode MODE_30W (there are MAXN, MODE_15W, MODE_30W)",
        "GPU 17000000.gpu 306 to 612 MHz; CPU 0 729 to 1728 MHz; CPU 4 locked at 1728 MHz",
        "hottest is tj-thermal, 53.1 °C; fan 20 % duty, 1870 rpm",
        "throttling no sign of it",
        "30697 MiB, 20000 available; 15348 MiB of swap, 2 used (2558 in zram)",
        "DLA 2",
    ):
        assert words in text
    bare = tmp_path / "bare"
    layouts.laid_out(bare, {"proc/device-tree/compatible": "nvidia,tegra264\0"})
    text = re.sub(" +", " ", shown(examine_gpu(bare)))
    for words in ("model tegra264", "release unknown", "power mode unknown", "clocks unknown", "heat unknown"):
        assert words in text


def test_engines_on_request_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {engine.name for engine in engines() if engine.on_request}
    assert {found["name"] for found in examine()["engines"] if found["on_request"]} == asked

    class Broken:
        name, on_request = "broken", True

        def version(self) -> str:
            return "1.0"

        def missing(self) -> str:
            raise OSError("/home/somebody/libbroken.so")

    class Careful(Broken):
        """Would open a device to answer."""

        name = "careful"

        def look(self) -> str:
            return "seen without"

    monkeypatch.setattr(backends, "engines", lambda: [Broken(), Careful()])
    assert [found["why_not"] for found in examine()["engines"]] == ["cannot be examined: OSError", "seen without"]
    text = render_examination(examine())
    assert "cannot be examined: OSError (on request)" in text and "somebody" not in text


def test_a_provider_counts_as_used_where_it_is_an_engine() -> None:
    examination = examine()
    examination["onnxruntime"]["providers"] = [
        "CUDAExecutionProvider",
        "TensorrtExecutionProvider",
        "AzureExecutionProvider",
        "CPUExecutionProvider",
    ]
    examination["engines"] = [
        {"name": "onnxruntime-cuda", "version": "1", "arithmetics": ["f32"], "on_request": False, "why_not": ""}
    ]
    text = re.sub(r"\s+", " ", render_examination(examination))
    assert "(listed by this build, never used: TensorrtExecutionProvider, AzureExecutionProvider)" in text


def test_the_gpu_part_survives_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    for name in ("edgehem.gpu", "edgehem.device", "edgehem.plans", "edgehem.backends.tensorrt.api"):
        monkeypatch.setitem(sys.modules, name, None)
    found = doctor_gpu.examine_gpu()
    assert found["gpus"]["why_not"] == found["tensorrt"]["why_not"] == "a needed package is missing"
    assert found["plans"] == {"found": [], "why_not": ""}
    assert render_gpu(found)


def _beside(name: str) -> types.ModuleType:
    """Another test file, which pytest's import mode keeps from being imported by its name."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_doctor_opens_no_device_for_tensorrt(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane would retain a context, load kernels, and compile and keep them where there are none."""
    from edgehem.backends import lane, tensorrt

    def opened(ordinal: int) -> None:
        raise AssertionError("a device was opened")

    machine()
    monkeypatch.setattr(lane, "lane", opened)
    monkeypatch.setattr(backends, "engines", lambda: [tensorrt.TensorRt(), tensorrt.TensorRtDla()])
    found = {each["name"]: each for each in examine()["engines"]}
    assert found["tensorrt"]["why_not"] == "" and found["tensorrt"]["arithmetics"] == ["f32", "tf32"]
    assert found["tensorrt-dla"]["on_request"]
    machine(device=None)
    assert examine()["engines"][0]["why_not"] == "pycuda is not installed"
