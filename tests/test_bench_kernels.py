"""``edgehem bench kernels``: that it compares what it says it compares. How long things take decides nothing here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehem import cli
from edgehem.benchmarks import aims, commands, growth, kernels, ours, peers, timing
from edgehem.benchmarks.case import ANTIALIASED, JOBS, LEVEL_WIDTH, TRILINEAR, Case, Job
from edgehem.benchmarks.contender import Contender, Pass, PassedOverError
from edgehem.benchmarks.crew import Crew
from edgehem.benchmarks.memcpy import Copy
from edgehem.volume import Volume

TINY = Case(slices=8, matrix=64, planes=8, size=32)
NATIVE = ("edgehem-float", "edgehem-int8", "edgehem-unaligned", "edgehem-new")
PEERS = ("OpenCV", "SimpleITK", "SciPy", "PyTorch", "MONAI")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


# The case


def windowed(hu: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.stack([np.clip((hu - (level - width / 2)) / width, 0, 1) for level, width in LEVEL_WIDTH[:3]], 1)


def test_the_antialiased_job_is_the_mean_of_four_pixels(rng: np.random.Generator) -> None:
    stack = TINY.stacks(rng)()
    means = stack.pixels.reshape(8, 32, 2, 32, 2).mean((2, 4))
    assert np.allclose(ours.truth(TINY, ANTIALIASED, stack), windowed(means - 1024), atol=1e-5)


def test_the_trilinear_job_lies_between_slices_and_inside_the_stack(rng: np.random.Generator) -> None:
    stack = TINY.stacks(rng)()
    start, step = TINY.start_and_step(TRILINEAR)
    z = start[0] + step[0] * np.arange(8)
    assert (z > 0).all() and (z < 7).all() and (z % 1 != 0).all()
    below = z.astype(int)
    means = stack.pixels.reshape(8, 32, 2, 32, 2).mean((2, 4))
    weight = (z - below)[:, None, None]
    hu = (1 - weight) * means[below] + weight * means[below + 1] - 1024
    assert np.allclose(ours.truth(TINY, TRILINEAR, stack), windowed(hu), atol=1e-4)


def test_stacks_are_fresh_and_look_like_a_head(rng: np.random.Generator) -> None:
    fresh = Case(slices=8, matrix=128, planes=8, size=64).stacks(rng)
    first = fresh()
    kept = first.pixels.copy()
    assert (fresh().pixels != kept).mean() > 0.9
    hu = kept.astype(int) - 1024
    assert hu.min() < -950 and hu.max() > 1000 and 0.1 < ((hu > 0) & (hu < 80)).mean() < 0.6


def test_bytes_moved() -> None:
    case = Case()
    assert case.bytes_in() == 40 * 512 * 512 * 2
    assert case.bytes_moved("float32") == case.bytes_in() + 40 * 3 * 256 * 256 * 4
    assert case.bytes_moved("int8") == case.bytes_in() + 40 * 3 * 256 * 256


def test_thin_slices_fill_the_same_length() -> None:
    for what, value, case in growth.points(Case(), quick=False):
        assert case.slices * case.gap_mm == pytest.approx(200)
        assert value == {"slices": case.slices, "windows": case.channels, "size": case.size}[what]
        assert case.target(ANTIALIASED).spacing_mm == pytest.approx((5, 256 / case.size, 256 / case.size))


# Agreement


def fake(name: str, do: Callable[[Case, Job], Pass], **options: Any) -> Contender:
    return Contender(name=name, library="fake", how="a fake", make=lambda case, job, threads: do(case, job), **options)


def measure(*contenders: Contender, jobs: tuple[Job, ...] = (ANTIALIASED,), rounds: int = 1) -> dict[str, Any]:
    settings = kernels.Settings(rounds=rounds, growth=False, case=TINY)
    return kernels.run(settings, jobs=jobs, contenders=lambda job: contenders)


def the_only(result: dict[str, Any]) -> dict[str, Any]:
    (entry,) = (entry for entry in result["jobs"][0]["contenders"] if entry["library"] == "fake")
    return entry


def right(case: Case, job: Job) -> Pass:
    return lambda stack: ours.truth(case, job, stack)


def shifted(case: Case, job: Job) -> Pass:
    return lambda stack: np.roll(ours.truth(case, job, stack), 1, axis=3)


def stale(case: Case, job: Job) -> Pass:
    answers: list[npt.NDArray[Any]] = []

    def run(stack: Volume) -> npt.NDArray[Any]:
        answers.append(ours.truth(case, job, stack))
        return answers[0]

    return run


def test_who_agrees_is_timed() -> None:
    entry = the_only(measure(fake("right", right), rounds=3))
    assert entry["state"] == "timed"
    assert len(entry["ns"]) == 3
    assert entry["agreement"]["largest"] == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (shifted, "off by"),
        (stale, "off by"),
        (lambda case, job: lambda stack: ours.truth(case, job, stack).astype(np.float64), "float64"),
        (lambda case, job: lambda stack: ours.truth(case, job, stack)[:, :, ::2], r"\[8, 3, 16, 32\]"),
        (lambda case, job: lambda stack: ours.truth(case, job, stack) * np.nan, "not numbers"),
    ],
    ids=["shifted by a voxel", "the first answer for ever", "another type", "another shape", "not a number"],
)
def test_who_disagrees_gets_no_timing(wrong: Callable[[Case, Job], Pass], words: str) -> None:
    result = measure(fake("wrong", wrong))
    entry = the_only(result)
    assert entry["state"] == "DISAGREES"
    assert not {"ns", "ms", "over_ours"} & set(entry)
    assert json.loads(commands.document(result)) == json.loads(json.dumps(result))
    text = commands.text(result)
    (line,) = (line for line in text.splitlines() if "DISAGREES" in line)
    assert "wrong" in line
    assert re.search(words, line)


def test_edgehem_itself_must_agree_to_the_bit() -> None:
    def nearly(case: Case, job: Job) -> Pass:
        return lambda stack: ours.truth(case, job, stack) + np.float32(1e-7)

    assert the_only(measure(fake("nearly", nearly)))["state"] == "timed"
    assert the_only(measure(fake("nearly", nearly, tolerance_hu=0)))["state"] == "DISAGREES"


def test_a_missing_peer_is_passed_over_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cv2", "SimpleITK", "scipy", "torch", "monai"):
        monkeypatch.setitem(sys.modules, module, None)
    for job in JOBS:
        result = measure(*peers.contenders(job), jobs=(job,))
        for entry in result["jobs"][0]["contenders"]:
            if entry["library"] in PEERS:
                assert entry["state"] == "passed over"
                assert entry["why"].endswith("is not installed")
        assert "passed over: cv2 is not installed" in commands.text(result)


def test_who_fails_ends_only_its_own_part() -> None:
    def broken(case: Case, job: Job) -> Pass:
        raise AttributeError("no such call in this version")

    def unable(case: Case, job: Job) -> Pass:
        raise PassedOverError("not on this machine")

    result = measure(fake("broken", broken), fake("unable", unable), fake("right", right))
    states = {entry["name"]: (entry["state"], entry.get("why", "")) for entry in result["jobs"][0]["contenders"]}
    assert states["broken"] == ("passed over", "failed: AttributeError: no such call in this version")
    assert states["unable"] == ("passed over", "not on this machine")
    assert states["right"][0] == states["memcpy-float32"][0] == "timed"


# Timing


def test_rounds_are_interleaved_on_fresh_stacks(rng: np.random.Generator) -> None:
    log: list[Any] = []
    made = iter(range(100))
    names = ("a", "b", "c", "d")
    taken = timing.interleave(
        {name: lambda stack, name=name: log.append((name, stack)) for name in names},
        lambda: next(made),  # type: ignore[arg-type, return-value]
        rounds=6,
        rng=rng,
        sweep=lambda: log.append("sweep"),
        warm_up=1,
    )
    assert {name: len(ns) for name, ns in taken.items()} == dict.fromkeys(names, 6)
    assert log[::2] == ["sweep"] * 28
    rounds = [log[1::2][i : i + 4] for i in range(0, 28, 4)]
    assert [{stack for _, stack in seen} for seen in rounds] == [{i} for i in range(7)]
    orders = ["".join(name for name, _ in seen) for seen in rounds]
    assert {"".join(sorted(order)) for order in orders} == {"abcd"}
    assert len(set(orders)) > 1


def test_the_ratio_is_of_pairs() -> None:
    slow_machine = np.array([1, 5, 2, 40, 3, 9]) * 1000
    measured = timing.ratio((slow_machine * 3).tolist(), slow_machine.tolist())
    assert measured == timing.Interval(value=3, low=3, high=3)
    noisy = timing.ratio([30, 31, 29, 300, 30], [10, 10, 10, 10, 10])
    assert noisy.low <= noisy.value == 3 <= noisy.high
    assert timing.ratio([30, 31, 29, 300, 30], [10, 10, 10, 10, 10]) == noisy


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_memcpy_moves_what_it_says(threads: int) -> None:
    copy = Copy(20_006, threads, sets=2)
    first, second, third = (np.array(copy()) for _ in range(3))
    assert first.size * 2 == 20_006
    assert len(np.unique(first)) == len(np.unique(second)) == 1
    assert first[0] != second[0]
    assert (first == third).all()


@pytest.mark.parametrize(("threads", "count"), [(1, 5), (2, 5), (3, 9), (16, 5)])
def test_a_crew_shares_out_all_work_once(threads: int, count: int) -> None:
    done = np.zeros(count, int)

    def work(first: int, end: int) -> None:
        assert first < end
        done[first:end] += 1

    Crew(threads)(work, count)
    assert (done == 1).all()


def test_a_crew_passes_on_what_went_wrong() -> None:
    def work(first: int, end: int) -> None:
        if first == 0:
            raise ValueError("in another thread")

    with pytest.raises(ValueError, match="in another thread"):
        Crew(2)(work, 4)


def test_verdicts() -> None:
    assert aims.FLOOR.verdict(1.5, 1.9) == "met"
    assert aims.FLOOR.verdict(1.9, 2.1) == "unclear"
    assert aims.FLOOR.verdict(2.1, 2.4) == "not met"
    opencv = aims.PEERS[0]
    assert [opencv.verdict(*interval) for interval in ((3, 4), (2.9, 3.1), (1, 2))] == ["met", "unclear", "not met"]


# The command


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], str]:
    """One tiny run of the real command with every peer there is: text, JSON, SVG."""
    out = tmp_path_factory.mktemp("bench")
    line = ["bench", "kernels", "--quick", "--rounds", "2", "--size", "8x64"]
    files = ["--json", str(out / "result.json"), "--plot", str(out / "result.svg")]
    command = [sys.executable, "-m", "edgehem.cli", *line, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["result.json", "result.svg"]
    return done.stdout, json.loads((out / "result.json").read_bytes()), (out / "result.svg").read_text("utf-8")


def has_native(result: dict[str, Any]) -> bool:
    found: str = result["environment"]["kernels"]["implementation"]
    return found == "native"


def test_every_installed_contender_agrees(measured: tuple[str, dict[str, Any], str]) -> None:
    for job in measured[1]["jobs"]:
        libraries = {entry["library"] for entry in job["contenders"]}
        assert libraries == {"edgehem", "memcpy", *PEERS}
        for entry in job["contenders"]:
            here = entry["library"] not in PEERS or not entry.get("why", "").endswith("is not installed")
            able = not entry["name"].startswith(NATIVE) or has_native(measured[1])
            assert (entry["state"] == "timed") == (here and able), entry


def test_the_json_has_its_schema(measured: tuple[str, dict[str, Any], str]) -> None:
    result = measured[1]
    assert result["schema"] == kernels.SCHEMA == "edgehem.bench.kernels/1"
    assert set(result) == {
        "schema", "settings", "environment", "load", "seconds", "case", "jobs", "growth", "aims",
    }  # fmt: skip
    assert result["settings"] | {"swept_bytes": 0} == {
        "rounds": 2, "warm_up": timing.WARM_UP, "threads": 2, "quick": True, "seed": 0, "swept_bytes": 0,
    }  # fmt: skip
    assert result["environment"]["cpu"] and result["environment"]["kernels"]["compiler_flags"]
    assert result["case"]["slices"] == 8 and result["case"]["size"] == 32
    for job in result["jobs"]:
        for entry in job["contenders"]:
            assert {"name", "library", "how", "state"} <= set(entry)
            if entry["state"] == "timed":
                assert len(entry["ns"]) == 2
                assert all(isinstance(ns, int) and ns > 0 for ns in entry["ns"])
                assert ("over_ours" in entry) == has_native(result)
    assert {aim["verdict"] for aim in result["aims"]} <= {"met", "not met", "unclear", "not measured"}
    grown = [(point["what"], point["value"]) for point in result["growth"]]
    expected = [("slices", 20), ("slices", 160), ("windows", 1), ("windows", 6), ("size", 16), ("size", 64)]
    assert grown == (expected if has_native(result) else [])


def test_the_text_and_the_picture_tell_it(measured: tuple[str, dict[str, Any], str]) -> None:
    text, result, svg = measured
    assert text == commands.text(result).rstrip("\n") + "\n"
    for job in result["jobs"]:
        for entry in job["contenders"]:
            assert entry["name"] in text
            assert entry["how"] in text
            assert (f">{entry['name']}<" in svg) == (entry["state"] == "timed")
    assert "Aims, as measured" in text
    assert ET.fromstring(svg).tag.endswith("svg")


@pytest.mark.parametrize(
    "line",
    ["kernels --rounds 0", "kernels --threads 0", "kernels --size 8", "kernels --size 8x", "kernels x"],
)
def test_wrong_arguments_exit_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", *line.split()])
    assert stop.value.code == cli.EXIT_USAGE
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_said_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr(commands, "kernels", lambda **options: pytest.fail("measured first"))
    for path in (tmp_path, tmp_path / "no folder" / "file"):
        assert cli.main(["bench", "kernels", option, str(path)]) == cli.EXIT_USAGE
        assert option in capsys.readouterr().err


def test_options_reach_the_measurement(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(commands, "kernels", lambda **options: seen.append(options) or {})
    monkeypatch.setattr(commands, "text", lambda result: "as text")
    assert cli.main(["bench", "kernels"]) == 0
    line = "--rounds 7 --threads 4 --quick --no-growth --size 4x32"
    assert cli.main(["bench", "kernels", *line.split()]) == 0
    for options in seen:
        options.pop("progress")
    assert seen == [
        {"rounds": None, "threads": 2, "quick": False, "growth": True, "size": None},
        {"rounds": 7, "threads": 4, "quick": True, "growth": False, "size": (4, 32)},
    ]
    assert capsys.readouterr().out == "as text\nas text\n"
