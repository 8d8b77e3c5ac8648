"""What the machine is said to run, and why not the rest: with a fake GPU, and without any."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgehem import doctor
from edgehem.kernels import build, cuda_code, fused, native
from edgehem.kernels.cuda import CudaPreprocessor
from edgehem.kernels.selection import Candidate, candidates, selection

Fake = Callable[..., Any]

NAMES = ["cuda prebuilt", "cuda compiled here", "native", "numpy"]


@pytest.fixture(autouse=True)
def fresh_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The choice of the CPU's implementation is made once a process; here it is made once a test."""
    monkeypatch.delenv(fused.CHOICE, raising=False)
    fused.implementation.cache_clear()
    yield
    fused.implementation.cache_clear()


def by_name() -> dict[str, Candidate]:
    return {candidate.name: candidate for candidate in candidates()}


def build_ahead(cuda: Any, *architectures: int) -> None:
    content = cuda.module.code(*architectures)
    record = {
        "source": build.cuda_hash(),
        "architectures": list(architectures),
        "ptx": max(architectures),
        "nvcc": "Build cuda_13.0.r13.0/compiler.1",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (cuda_code.FOLDER / build.FATBIN).write_bytes(content)
    (cuda_code.FOLDER / build.FATBIN).with_suffix(".json").write_text(json.dumps(record))


def test_candidates_come_in_loading_order_and_each_says_something() -> None:
    found = candidates()
    assert [candidate.name for candidate in found] == NAMES
    assert all(candidate.detail for candidate in found)
    assert found[-1].ready, "NumPy is always there"


def test_without_pycuda_both_cuda_candidates_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    for name in NAMES[:2]:
        assert not by_name()[name].ready
        assert "pycuda" in by_name()[name].detail


def test_the_native_twin_names_its_instruction_set_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", object)
    monkeypatch.setattr(native, "instruction_set", lambda: "avx512")
    for threads, words in ((1, "avx512, 1 thread"), (6, "avx512, 6 threads")):
        monkeypatch.setattr(fused, "usable_threads", lambda count=threads: count)
        assert by_name()["native"] == Candidate(name="native", ready=True, detail=words)
    found = candidates()
    assert selection(found).cpu == "native"


def test_a_native_twin_that_is_missing_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "why_not", lambda: "not built: no C++ compiler at installation")
    found = candidates()
    assert by_name()["native"].detail == "not built: no C++ compiler at installation"
    assert selection(found).cpu == "numpy"


@pytest.mark.parametrize("ahead", [True, False])
def test_a_gpu_engine_gets_the_first_cuda_candidate_that_is_ready(ahead: bool, fake_cuda: Fake) -> None:
    cuda = fake_cuda()
    if ahead:
        build_ahead(cuda, 80, 90)
    found = by_name()
    assert found["cuda prebuilt"].ready is ahead
    assert "Fake GPU" in found["cuda compiled here"].detail and "at first use" in found["cuda compiled here"].detail
    assert selection(tuple(found.values())).gpu == ("cuda prebuilt" if ahead else "cuda compiled here")
    with CudaPreprocessor() as preprocessor:
        assert preprocessor.origin == selection(tuple(found.values())).gpu
    if not ahead:
        assert by_name()["cuda compiled here"].detail == "compiled here for sm_90, cached (Fake GPU)"


def test_looking_opens_and_compiles_nothing(fake_cuda: Fake) -> None:
    cuda = fake_cuda()
    build_ahead(cuda, 90)
    candidates()
    assert not cuda.calls and not cuda.compiled
    assert not cuda_code.cache_folder().exists()


def test_a_gpu_without_code_says_what_it_needs(fake_cuda: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    build_ahead(fake_cuda(capability=(7, 2)), 75, 90)
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    found = by_name()
    assert "not for 72" in found["cuda prebuilt"].detail
    assert found["cuda compiled here"].detail.startswith("no nvcc")
    chosen = selection(tuple(found.values()))
    assert chosen.gpu == chosen.cpu, "a GPU engine then reads what the CPU made"


def test_nothing_raises_whatever_is_broken(fake_cuda: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = fake_cuda()
    cuda.failures["init"] = ZeroDivisionError("a driver that does as it likes")

    def broken() -> None:
        raise OSError("input/output error")

    monkeypatch.setattr(native, "library", broken)
    found = by_name()
    assert found["cuda prebuilt"].detail == "cannot be examined: ZeroDivisionError: a driver that does as it likes"
    assert found["native"].detail == "cannot be examined: OSError: input/output error"
    assert found["numpy"].ready


def test_a_choice_that_cannot_be_served_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fused.CHOICE, "cuda-please")
    chosen = selection(candidates())
    assert (chosen.cpu, chosen.gpu) == (None, None) and "cuda-please" in chosen.why_not


# The doctor


def test_the_doctor_shows_every_candidate_and_who_runs(fake_cuda: Fake) -> None:
    build_ahead(fake_cuda(), 90)
    examination = json.loads(json.dumps(doctor.examine()))
    kernels = examination["kernels"]
    assert [entry["name"] for entry in kernels["candidates"]] == NAMES
    assert kernels["gpu"] == "cuda prebuilt" and kernels["cpu"] in ("native", "numpy") and not kernels["why_not"]
    text = doctor.render_examination(examination)
    assert "Preprocessing kernels" in text and "built ahead, sm_90 (Fake GPU)" in text
    assert f"an engine on the CPU takes {kernels['cpu']}, one on a GPU would take cuda prebuilt" in text
    assert max(map(len, text.splitlines())) <= doctor.WIDTH
