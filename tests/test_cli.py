"""The command line's contract: exit codes, what is printed where, what is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgehem
from edgehem import cli
from edgehem.dicom.study import Study
from edgehem.errors import BackendError, BundleError, Code, MissingExtraError, Refusal, UsageError
from edgehem.result import BundleInfo, Finding, KeySlice, Result, Verdict
from edgehem.volume import Volume

SECRET = "DOE^JANE"
BUNDLE = BundleInfo(name="fake", version="0", sha256="0" * 64, precision="fp32", backend="fake", demonstration=True)
ACCEPTED = Result(
    system="fake",
    verdict=Verdict.ACCEPT,
    findings=(Finding(label="any", probability=0.9, positive=True, prediction_set=("present",)),),
    key_slices=(KeySlice(index=0, weight=1.0),),
    bundle=BUNDLE,
)
REFUSED = Result(
    system="fake", verdict=Verdict.NO_RESULT, codes=(Code.NOT_CT,), reasons=("Not a CT: 20 °C × 2.",), bundle=BUNDLE
)
STUDY = Study(
    volume=Volume(
        pixels=np.zeros((1, 8, 8), np.int16),
        slope=np.ones(1, np.float32),
        intercept=np.zeros(1, np.float32),
        origin=np.zeros((1, 3)),
        row_cosines=np.array([1.0, 0.0, 0.0]),
        column_cosines=np.array([0.0, 1.0, 0.0]),
        pixel_spacing=(1.0, 1.0),
    ),
    digest="0" * 64,
)


class FakeModel:
    """Stands in for a loaded bundle: answers what it is told to, or fails as it is told to."""

    def __init__(self, answer: tuple[Result, Study | None] | BaseException) -> None:
        self.answer = answer

    def triage_path(self, path: Path) -> tuple[Result, Study | None]:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make ``edgehem.load`` give a fake model with the given answer; returns the calls it saw."""

    def install(answer: tuple[Result, Study | None] | BaseException) -> list[tuple[str, dict[str, str]]]:
        calls: list[tuple[str, dict[str, str]]] = []

        def load(bundle: str, **options: str) -> FakeModel:
            calls.append((bundle, options))
            return FakeModel(answer)

        monkeypatch.setitem(vars(edgehem), "load", load)
        return calls

    return install


# Arguments


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "triage",
        "triage study --backend abacus",
        "triage study --precision int4",
        "triage study --clinical case.json",
        "phantom",
        "phantom out --bleed subdural",
        "phantom out --bleed subdural:0",
        "phantom out --bleed subdural:-3",
        "phantom out --bleed subdural:nan",
        "phantom out --bleed elbow:10",
        "phantom out --slices 0",
        "phantom out --slices many",
        "phantom out --seed -1",
        "phantom out --thickness 0",
        "phantom out --thickness inf",
        "phantom out --tilt 60",
        "phantom out --cohort 0",
        "phantom out --bits 8",
        "phantom out --intercept 5",
        "phantom out --padding 99999",
        "train hemorrhagenet --out c.pt",
        "train hemorrhagenet --data t.csv",
        "export c.pt --out b",
        "quantize b",
    ],
)
def test_wrong_arguments_exit_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(line.split())
    assert stop.value.code == cli.EXIT_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error:" in captured.err


def test_a_study_that_does_not_exist_exits_2_without_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["triage", str(tmp_path / SECRET)]) == cli.EXIT_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("edgehem: STUDY does not exist")
    assert SECRET not in captured.err


def test_version_and_help_load_nothing_heavy() -> None:
    code = """
import sys
from edgehem.cli import main
try:
    main([sys.argv[1]])
except SystemExit as stop:
    assert stop.code == 0, stop.code
heavy = {"numpy", "pydicom", "onnxruntime", "msgspec", "PIL", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    for option, words in (("--version", f"edgehem {edgehem.__version__}"), ("--help", "triage")):
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


# Triage


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((ACCEPTED, STUDY), 0),
        ((REFUSED, None), 3),
        (Refusal(Code.NOT_CT, "Not a CT."), 3),
        (UsageError("no"), 2),
        (BundleError("no such bundle"), 2),
        (MissingExtraError("this", "report"), 2),
        (BackendError("engine stalled"), 1),
        (RuntimeError(SECRET), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_codes(fake: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: Any, code: int) -> None:
    fake(answer)
    assert cli.main(["triage", str(tmp_path)]) == code
    captured = capsys.readouterr()
    if isinstance(answer, BaseException):
        assert captured.out == ""
        assert captured.err.count("\n") == 1
    else:
        assert captured.out.startswith(answer[0].verdict.value)
        assert captured.err == ""


def test_options_reach_the_model(fake: Any, tmp_path: Path) -> None:
    calls = fake((ACCEPTED, STUDY))
    cli.main(["triage", str(tmp_path)])
    cli.main(["triage", str(tmp_path), "--bundle", "other", "--backend", "onnxruntime", "--precision", "int8"])
    assert calls == [
        ("hemorrhagenet", {"backend": "auto", "precision": "auto"}),
        ("other", {"backend": "onnxruntime", "precision": "int8"}),
    ]


@pytest.mark.parametrize("error", [ValueError(SECRET), FileNotFoundError(2, "No such file", SECRET), OSError(SECRET)])
def test_internal_errors_hide_values(
    fake: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    fake(error)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    assert cli.main(["triage", str(tmp_path), "--json"]) == cli.EXIT_INTERNAL
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"internal error: {type(error).__name__}" in captured.err
    assert SECRET not in captured.err
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    assert cli.main(["triage", str(tmp_path), "--json"]) == cli.EXIT_INTERNAL
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [(ACCEPTED, STUDY), (REFUSED, None)])
def test_json_is_exactly_one_object(
    fake: Any, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], answer: Any
) -> None:
    fake(answer)
    cli.main(["triage", str(tmp_path), "--json", "--out", str(tmp_path / "out")])
    printed = capfdbinary.readouterr().out.decode("utf-8")
    assert printed.count("\n") == 1
    parsed = json.loads(printed)
    assert parsed["schema"] == "edgehem.result/1"
    assert parsed["verdict"] == answer[0].verdict.value
    assert parsed == json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))


# Files


def test_out_writes_three_whole_files(fake: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("PIL")
    fake((ACCEPTED, STUDY))
    out = tmp_path / "new" / "out"
    assert cli.main(["triage", str(tmp_path), "--out", str(out)]) == 0
    assert sorted(entry.name for entry in out.iterdir()) == ["key_slices.png", "report.txt", "result.json"]
    assert (out / "report.txt").read_text(encoding="utf-8") == capsys.readouterr().out
    assert (out / "key_slices.png").read_bytes().startswith(b"\x89PNG")


def test_out_never_mixes_two_studies(fake: Any, tmp_path: Path) -> None:
    fake((ACCEPTED, STUDY))
    cli.main(["triage", str(tmp_path), "--out", str(tmp_path / "out")])
    fake((REFUSED, None))
    assert cli.main(["triage", str(tmp_path), "--out", str(tmp_path / "out")]) == cli.EXIT_NO_RESULT
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["report.txt", "result.json"]
    fake(RuntimeError())
    assert cli.main(["triage", str(tmp_path), "--out", str(tmp_path / "out")]) == cli.EXIT_INTERNAL
    assert not list((tmp_path / "out").iterdir())


def test_out_without_pillow_says_so_once(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake((ACCEPTED, STUDY))
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert cli.main(["triage", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["report.txt", "result.json"]
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "edgehem[report]" in captured.err


def test_out_that_is_a_file_exits_2(fake: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake((ACCEPTED, STUDY))
    (tmp_path / SECRET).write_text("in the way")
    assert cli.main(["triage", str(tmp_path), "--out", str(tmp_path / SECRET)]) == cli.EXIT_USAGE
    captured = capsys.readouterr()
    assert "--out cannot be written to" in captured.err
    assert SECRET not in captured.err


def test_a_failed_write_leaves_no_part_and_does_not_swallow_the_verdict(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake((REFUSED, None))

    def full(self: Path, *_: Any, **__: Any) -> None:
        self.touch()
        raise OSError(28, "No space left on device", SECRET)

    monkeypatch.setattr(Path, "write_text", full)
    assert cli.main(["triage", str(tmp_path), "--out", str(tmp_path / "out")]) == cli.EXIT_INTERNAL
    captured = capsys.readouterr()
    assert captured.out.startswith("NO-RESULT")
    assert "OSError (ENOSPC)" in captured.err
    assert SECRET not in captured.err
    assert not list((tmp_path / "out").iterdir())


def test_a_reader_that_leaves_early_causes_no_noise() -> None:
    code = "import sys; from edgehem.cli import main; sys.exit(main(['doctor']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == cli.EXIT_INTERNAL
    assert done.stderr == ""


def test_reports_print_on_a_terminal_without_unicode() -> None:
    code = "from edgehem.cli import main; import sys; sys.exit(main(['doctor', '--json']))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout.decode("utf-8"))["schema"] == "edgehem.doctor/1"


# The other commands


def test_a_missing_export_package_names_the_extra(
    fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = type(sys)("edgehem.export.commands")

    def train(*_: Any, **__: Any) -> None:
        import torch  # noqa: F401

    vars(commands)["train"] = train
    monkeypatch.setitem(sys.modules, "edgehem.export.commands", commands)
    monkeypatch.setattr("edgehem.export.commands", commands, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["train", "toy", "--data", "t.csv", "--out", "c.pt"]) == cli.EXIT_USAGE
    assert "edgehem[export]" in capsys.readouterr().err


def test_export_commands_get_their_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    commands = type(sys)("edgehem.export.commands")
    for name in ("train", "export", "quantize"):
        vars(commands)[name] = lambda *values, name=name, **options: seen.append((name, values, options))
    vars(commands)["evaluate"] = lambda *values, **options: str((values, options))
    monkeypatch.setitem(sys.modules, "edgehem.export.commands", commands)
    monkeypatch.setattr("edgehem.export.commands", commands, raising=False)
    for line in (
        "train toy --data t.csv --out c.pt --minutes 2 --seed 7 --init a.pt",
        "export c.pt --system toy --out bundle --calibration phantoms:80:2",
        "export c.pt --interface i.json --factory a.b:c --set n=2 --here --weights ema --prefix net. --out b "
        "--trained-on patients --calibration t.csv --int8 --no-fp16 --evaluate u.csv --sign k.pem",
        "quantize bundle --calibration t.csv",
        "evaluate phantoms:9:3 --bundle mine --record",
    ):
        assert cli.main(line.split()) == 0
    assert seen == [
        ("train", ("toy",), {"data": "t.csv", "out": Path("c.pt"), "minutes": 2.0, "seed": 7, "initial": Path("a.pt")}),
        (
            "export",
            (Path("c.pt"),),
            {
                "out": Path("bundle"),
                "system": "toy",
                "interface": None,
                "target": None,
                "arguments": [],
                "look_here": False,
                "weights": None,
                "prefix": None,
                "calibration": "phantoms:80:2",
                "trained_on": None,
                "int8": False,
                "half": True,
                "held_out": None,
                "key": None,
            },
        ),
        (
            "export",
            (Path("c.pt"),),
            {
                "out": Path("b"),
                "system": None,
                "interface": Path("i.json"),
                "target": "a.b:c",
                "arguments": ["n=2"],
                "look_here": True,
                "weights": "ema",
                "prefix": "net.",
                "calibration": "t.csv",
                "trained_on": "patients",
                "int8": True,
                "half": False,
                "held_out": "u.csv",
                "key": Path("k.pem"),
            },
        ),
        (
            "quantize",
            (Path("bundle"),),
            {"calibration": "t.csv", "held_out": None, "max_drop": None, "seed": 0, "half": True},
        ),
    ]
    assert "phantoms:9:3" in (figures := capsys.readouterr().out) and "'record': True" in figures


def test_a_cohort_draws_its_own_bleeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["phantom", str(tmp_path / "out"), "--cohort", "2", "--bleed", "subdural:10"]) == cli.EXIT_USAGE
    assert "--cohort" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_phantom_writes_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "head"
    line = [
        "phantom",
        str(out),
        *["--bleed", "intraparenchymal:25", "--slices", "12", "--matrix", "64", "--tilt", "10", "--seed", "3"],
    ]
    assert cli.main(line) == 0
    assert capsys.readouterr().out == f"{out / 'dicom'}\n"
    assert len(list((out / "dicom").iterdir())) == 12
    truth = json.loads((out / "truth.json").read_text(encoding="utf-8"))
    assert truth["scan"]["tilt_deg"] == 10
    assert truth["volume_ml"]["intraparenchymal"] == pytest.approx(25, rel=0.2)
    assert cli.main([*line[:-1], "4"]) == 0  # an earlier phantom is replaced,
    assert json.loads((out / "truth.json").read_text(encoding="utf-8"))["seed"] == 4
    (out / "notes.txt").write_text("somebody's")
    assert cli.main(line) == cli.EXIT_USAGE  # anything else is left alone
    assert (out / "notes.txt").exists()


def test_a_bleed_no_head_can_hold_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["phantom", str(tmp_path / "head"), "--bleed", "subdural:5000"]) == cli.EXIT_USAGE
    assert "5000" in capsys.readouterr().err


def test_every_engine_can_be_named() -> None:
    """They are written out where arguments are read, so that asking for help imports no engine."""
    from edgehem.arguments import BACKENDS
    from edgehem.backends import engines

    assert ("auto", *(engine.name for engine in engines())) == BACKENDS


# Other phantoms


@pytest.mark.slow
def test_mr_of_a_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named by the intake as what it is, whole or series by series."""
    bled = ["--bleed", "intraparenchymal:12", "--age", "chronic", "--field", "1.5", "--matrix", "96"]
    assert cli.main(["phantom", str(tmp_path / "p"), "--mr", *bled]) == 0
    truth = json.loads((tmp_path / "p" / "truth.json").read_text())
    assert truth["field_t"] == 1.5 and set(truth["stage"].values()) == {"chronic"}
    capsys.readouterr()
    assert cli.main(["triage", str(tmp_path / "p" / "dicom" / "swi")]) == cli.EXIT_NO_RESULT
    assert "NOT_CT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mr", "--slices", "20"], "--slices is of CT"),
        (["--mr", "--variable-spacing"], "--variable-spacing is of CT"),
        (["--age", "acute"], "need --mr"),
        (["--field", "3"], "need --mr"),
        (["--mr", "--field", "9"], "9"),
        (["--mr", "--bleed", "subdural:900"], "900"),
        (["--mr", "--age", "acute"], "needs --bleed"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main(["phantom", str(tmp_path / "p"), *words]) == cli.EXIT_USAGE
    assert said in capsys.readouterr().err
