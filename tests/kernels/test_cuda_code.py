"""Where a device's code comes from, on a fake machine: built ahead, cached, compiled here, or a reason for none."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgehem.kernels import build, cuda_code
from edgehem.kernels.cuda import CudaPreprocessor
from edgehem.kernels.cuda_code import CodeError, Machine
from edgehem.kernels.errors import KernelUnavailableError

Fake = Callable[..., Any]
H100 = Machine(capability=90, driver=13000)


@pytest.fixture
def cuda(fake_cuda: Fake) -> Any:
    return fake_cuda()


def write_fatbin(
    content: bytes,
    *,
    architectures: tuple[int, ...] | None = (75, 80, 86, 87, 89, 90),
    ptx: int = 90,
    nvcc: str = "Build cuda_13.0.r13.0/compiler.36424714_0",
    **changes: Any,
) -> None:
    """A fatbin and its record where the package would have them."""
    record = {
        "schema": "edgehem.fatbin/1",
        "source": build.cuda_hash(),
        "architectures": architectures,
        "ptx": ptx,
        "nvcc": nvcc,
        "sha256": hashlib.sha256(content).hexdigest(),
        **changes,
    }
    (cuda_code.FOLDER / build.FATBIN).write_bytes(content)
    (cuda_code.FOLDER / build.FATBIN).with_suffix(".json").write_text(json.dumps(record))


def origin() -> tuple[str, str]:
    """Where a preprocessor's code came from."""
    with CudaPreprocessor() as preprocessor:
        return preprocessor.origin, preprocessor.detail


def entries() -> list[Path]:
    return sorted(cuda_code.cache_folder().iterdir())


# Built ahead


def test_a_prebuilt_fatbin_is_used_and_nothing_compiled(cuda: Any) -> None:
    write_fatbin(cuda.module.code(80, 90))
    assert origin() == ("cuda prebuilt", "built ahead, sm_90")
    assert not cuda.compiled and not cuda_code.cache_folder().exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": "0" * 64}, "built from other sources"),
        ({"sha256": "0" * 64}, "not the one its record describes"),
        ({"ptx": "new"}, "record cannot be read: ValueError"),
        ({"architectures": None}, "record cannot be read: TypeError"),
        ({"nvcc": "Build cuda_14.1.r14.1/compiler.1"}, "built with CUDA 14.1, and the driver knows up to 13.0"),
    ],
)
def test_a_fatbin_that_is_not_right_is_passed_over(changes: dict[str, Any], reason: str, cuda: Any) -> None:
    write_fatbin(cuda.module.code(90), **changes)
    with pytest.raises(CodeError, match=reason):
        cuda_code.prebuilt(H100)
    assert origin()[0] == "cuda compiled here"


def test_a_fatbin_or_a_record_that_is_missing_or_broken_is_passed_over(cuda: Any) -> None:
    fatbin = cuda_code.FOLDER / build.FATBIN
    with pytest.raises(CodeError, match="not built ahead"):
        cuda_code.prebuilt(H100)
    write_fatbin(cuda.module.code(90))
    fatbin.unlink()
    with pytest.raises(CodeError, match="not built ahead"):
        cuda_code.prebuilt(H100)
    write_fatbin(cuda.module.code(90))
    for text in ("{", "[]", "{}", "\xff"):
        fatbin.with_suffix(".json").write_text(text, encoding="latin-1")
        with pytest.raises(CodeError, match="record cannot be read"):
            cuda_code.prebuilt(H100)


@pytest.mark.parametrize(
    ("capability", "driver", "expected"),
    [
        (90, 13000, "sm_90"),
        (86, 13000, "sm_86"),
        (88, 13000, "sm_86"),  # later of the same generation
        (87, 13000, "sm_87"),
        (121, 13000, "PTX of 9.0"),
        (103, 13020, "PTX of 9.0"),
        (72, 13000, "not for 72"),
        (90, 12080, "built with CUDA 13.0, and the driver knows up to 12.8"),
        (121, 12080, "built with CUDA 13.0"),
    ],
)
def test_what_a_fatbin_has_for_a_machine(capability: int, driver: int, expected: str, cuda: Any) -> None:
    write_fatbin(b"any")
    machine = Machine(capability=capability, driver=driver)
    try:
        said = cuda_code.prebuilt(machine).detail
    except CodeError as error:
        said = str(error)
    assert expected in said


def test_a_jetsons_code_is_its_own(cuda: Any) -> None:
    """Code for a desktop GPU of the same generation does not run on a Jetson, nor the other way round."""
    write_fatbin(b"any", architectures=(80, 86), ptx=86)
    assert "PTX" in cuda_code.prebuilt(Machine(capability=87, driver=13000)).detail
    write_fatbin(b"any", architectures=(87,), ptx=87)
    assert "PTX" in cuda_code.prebuilt(Machine(capability=89, driver=13000)).detail


def test_ptx_wants_a_driver_at_least_as_new_as_its_compiler(cuda: Any) -> None:
    write_fatbin(b"any", nvcc="Build cuda_13.2.r13.2/compiler.1")
    assert cuda_code.prebuilt(Machine(capability=90, driver=13000)).detail.endswith("sm_90")
    with pytest.raises(CodeError, match=r"CUDA 13\.2, and the driver knows up to 13\.0"):
        cuda_code.prebuilt(Machine(capability=120, driver=13000))


def test_what_the_driver_does_not_load_is_compiled_here(cuda: Any) -> None:
    """The record may be right and the driver still refuse."""
    write_fatbin(cuda.module.code(75))
    assert origin()[0] == "cuda compiled here"
    write_fatbin(b"not code at all")
    assert origin() == ("cuda compiled here", "compiled here for sm_90, cached")


# Compiled here


def test_compiled_once_then_cached(cuda: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert origin() == ("cuda compiled here", "compiled here for sm_90")
    assert "compiling for sm_90" in caplog.text
    assert origin() == ("cuda compiled here", "compiled here for sm_90, cached")
    assert [call["arch"] for call in cuda.compiled] == ["sm_90"]
    assert "-fmad=false" in cuda.compiled[0]["options"]
    (entry,) = entries()
    assert "sm_90" in entry.name
    assert entry.parent.stat().st_mode & 0o077 == 0


def test_another_architecture_source_or_compiler_is_another_entry(
    fake_cuda: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = fake_cuda()
    origin()
    cuda.capability = (8, 7)
    origin()
    assert [call["arch"] for call in cuda.compiled] == ["sm_90", "sm_87"]
    monkeypatch.setattr(build, "nvcc_version", lambda nvcc: "Build cuda_13.1")
    origin()
    monkeypatch.setattr(build, "cuda_hash", lambda: "f" * 64)
    origin()
    assert len(cuda.compiled) == len(entries()) == 4
    origin()
    assert len(cuda.compiled) == 4


@pytest.mark.parametrize("damage", [b"", b"edgehem.cubin/1", b"edgehem.cubin/1 00\nfake code", b"\x00\n"])
def test_a_damaged_entry_is_compiled_again(damage: bytes, cuda: Any, caplog: pytest.LogCaptureFixture) -> None:
    origin()
    (entry,) = entries()
    whole = entry.read_bytes()
    entry.write_bytes(damage)
    assert origin() == ("cuda compiled here", "compiled here for sm_90")
    assert "damaged" in caplog.text
    assert entry.read_bytes() == whole and len(cuda.compiled) == 2
    for cut in (len(whole) // 2, len(whole) - 1):
        entry.write_bytes(whole[:cut])
        assert origin()[1] == "compiled here for sm_90"
    assert entries() == [entry]


def test_an_entry_that_cannot_be_read_is_compiled_again(cuda: Any) -> None:
    origin()
    (entry,) = entries()
    entry.unlink()
    entry.mkdir()
    assert origin()[1] == "compiled here for sm_90"


def test_an_entry_that_the_driver_does_not_load_is_compiled_again(cuda: Any) -> None:
    cuda_code.keep(H100, cuda.module.code(75))
    assert origin()[1] == "compiled here for sm_90"
    assert origin()[1] == "compiled here for sm_90, cached"


def test_what_the_driver_does_not_load_is_not_kept(cuda: Any) -> None:
    cuda.failures["module_from_buffer"] = cuda.driver.Error("device kernel image is invalid")
    with pytest.raises(
        KernelUnavailableError, match=r"not built ahead.*compiled here for sm_90: the driver does not load"
    ):
        origin()
    assert not cuda_code.cache_folder().exists()


@pytest.mark.parametrize("how", ["a file in its place", "read-only", "no home"])
def test_a_cache_that_cannot_be_written_costs_time_only(
    how: str, cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "elsewhere"
    if how == "a file in its place":
        folder.write_text("")
    elif how == "read-only":
        folder.mkdir()
        # A superuser may write anywhere, so the refusal is made.
        monkeypatch.setattr(cuda_code.tempfile, "mkstemp", refuse)
    monkeypatch.setenv(cuda_code.CACHE, str(folder))
    if how == "no home":
        for name in (cuda_code.CACHE, "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", homeless)
    for _ in range(2):
        assert origin()[1] == "compiled here for sm_90"
    assert caplog.text.count("not kept for the next start") == 2
    assert len(cuda.compiled) == 2


def refuse(**_: Any) -> None:
    raise PermissionError("read-only file system")


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_an_interrupted_write_leaves_nothing(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        cuda_code.keep(H100, b"code")
    assert entries() == []


RACE = """
import sys
from pathlib import Path
from edgehem.kernels import build, cuda_code
build.find_nvcc = lambda: None
build.nvcc_version = lambda nvcc: "one"
machine = cuda_code.Machine(capability=90, driver=13000)
content = bytes([int(sys.argv[1])]) * 300_000
for _ in range(60):
    cuda_code.keep(machine, content)
    found = cuda_code.cached(machine).content
    assert len(found) == 300_000 and len(set(found)) == 1
"""


def test_processes_that_race_never_see_half_a_file(cuda: Any) -> None:
    racers = [subprocess.Popen([sys.executable, "-c", RACE, str(n)], stderr=subprocess.PIPE, text=True) for n in (1, 2)]
    for racer in racers:
        _, said = racer.communicate(timeout=120)
        assert racer.returncode == 0, said
    assert len(entries()) == 1


# Without a compiler


def test_without_a_compiler_an_older_entry_of_any_compiler_serves(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    origin()
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    assert origin()[1] == "compiled here for sm_90, cached"
    cuda.capability = (8, 7)
    with pytest.raises(KernelUnavailableError, match="no nvcc"):
        origin()


def test_a_compiler_that_fails_is_quoted(cuda: Any, caplog: pytest.LogCaptureFixture) -> None:
    cuda.failures["compile"] = cuda.driver.CompileError("nvcc fatal: Unsupported gpu architecture\n[stderr: more]")
    with pytest.raises(KernelUnavailableError, match="does not compile for sm_90: nvcc fatal: Unsupported") as caught:
        origin()
    assert "more" not in str(caught.value) and "more" in caplog.text
    cuda.failures["compile"] = FileNotFoundError("nvcc")
    with pytest.raises(KernelUnavailableError, match="does not compile for sm_90: nvcc"):
        origin()


def test_a_compiler_without_a_version_still_compiles(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(nvcc: str) -> str:
        raise build.BuildError("nvcc: exec format error")

    monkeypatch.setattr(build, "nvcc_version", broken)
    assert origin()[1] == "compiled here for sm_90"
    assert origin()[1] == "compiled here for sm_90, cached"


def test_what_a_compiler_says_is_no_warning_here(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """pycuda turns nvcc's output into warnings, which a user's filters may turn into errors."""
    import warnings

    compile_quietly = cuda.compiler.compile

    def compile_loudly(*args: Any, **options: Any) -> bytes:
        warnings.warn("nvcc said something", stacklevel=1)
        return bytes(compile_quietly(*args, **options))

    monkeypatch.setattr(cuda.compiler, "compile", compile_loudly)
    assert origin()[1] == "compiled here for sm_90"


def test_missing_sources_are_a_reason(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError("preprocess.cu")

    monkeypatch.setattr(build, "cuda_hash", missing)
    for place in (cuda_code.cached,):
        with pytest.raises(CodeError, match="sources are not installed"):
            place(H100)


def test_nvcc_is_found_beside_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert build.find_nvcc() == str(nvcc)
    monkeypatch.setenv("PATH", f"/nowhere{os.pathsep}{tmp_path / 'bin'}")
    monkeypatch.delenv("CUDA_HOME")
    assert build.find_nvcc() == str(nvcc)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (cuda_code.CACHE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cuda_code.cache_folder() == tmp_path / ".cache" / "edgehem"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cuda_code.cache_folder() == tmp_path / "x" / "edgehem"
    monkeypatch.setenv(cuda_code.CACHE, str(tmp_path / "named"))
    assert cuda_code.cache_folder() == tmp_path / "named"


# The real compiler


@pytest.mark.slow
def test_every_architecture_builds(tmp_path: Path) -> None:
    """nvcc takes the sources for all architectures, and the fatbin holds what its record says."""
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    record = build.compile_cuda(tmp_path)
    content = (tmp_path / build.FATBIN).read_bytes()
    assert json.loads((tmp_path / build.FATBIN).with_suffix(".json").read_text()) == record
    assert record["architectures"] == sorted(build.ARCHITECTURES) and record["ptx"] == max(build.ARCHITECTURES)
    assert record["source"] == build.cuda_hash() and record["sha256"] == hashlib.sha256(content).hexdigest()
    cuobjdump = shutil.which("cuobjdump")
    if cuobjdump is None:
        return  # the toolkit's compiler may be installed without its inspector
    listed = subprocess.run(
        [cuobjdump, "--list-elf", "--list-ptx", str(tmp_path / build.FATBIN)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for architecture in build.ARCHITECTURES:
        assert f"sm_{architecture}.cubin" in listed
    assert f"sm_{record['ptx']}.ptx" in listed
