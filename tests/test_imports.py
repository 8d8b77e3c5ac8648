"""What may import what: the thin runtime stays thin, and the layers point one way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgehem

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = (
    "torch", "onnx", "onnxscript", "PIL", "scipy", "pycuda", "tensorrt", "openvino", "cv2", "SimpleITK", "monai",
    "cryptography",
)  # fmt: skip

BLOCK = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""

IMPORT_ALL = """
import importlib, pkgutil
import edgehem, edgehem.benchmarks, edgehem.kernels

failed = []
for package in (edgehem, edgehem.benchmarks, edgehem.kernels):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.startswith("edgehem.export"):
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed.append(f"{module.name}: {type(error).__name__}: {error}")
sys.exit("\\n".join(failed) or 0)
"""

IMPORT_ONE = f"""
import sys
import edgehem
loaded = {{name.partition(".")[0] for name in sys.modules}}
heavy = loaded & {{*{OPTIONAL!r}, "onnxruntime", "pydicom", "numpy", "msgspec"}}
sys.exit(", ".join(sorted(heavy)) or 0)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_every_runtime_module_imports_without_the_extras() -> None:
    done = run(BLOCK + IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_import_edgehem_loads_nothing_heavy() -> None:
    done = run(IMPORT_ONE)
    assert done.returncode == 0, done.stderr


def imported(path: Path, package: str) -> Iterator[tuple[str, bool]]:
    """Every module a file imports, by its full name, and whether that happens at the top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                yield f"{base}.{alias.name}", id(node) in top


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def sources(folder: str, package: str) -> list[tuple[Path, str]]:
    """Every file under a top-level folder, with the dotted name of the package it is in."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        inner = path.parent.relative_to(ROOT / folder).parts
        found.append((path, ".".join([package, *inner])))
    assert found
    return found


def test_the_runtime_never_imports_export_or_benchmarks() -> None:
    allowed = (
        {
            ("edgehem/cli.py", name)
            for name in (
                "edgehem.export.commands",
                "edgehem.export.compile.compile_bundle",
                "edgehem.export.compile.document",
                "edgehem.export.compile.table",
            )
        }
        | {
            ("edgehem/cli_cohorts.py", name)
            for name in ("edgehem.export.cohorts.commands", "edgehem.export.cohorts.exam_report")
        }
        | {
            ("edgehem/cli_bench.py", name)
            for name in (
                "edgehem.benchmarks.commands",
                "edgehem.benchmarks.latency.compare_commands",
                "edgehem.benchmarks.latency.page",
                "edgehem.benchmarks.latency.replay",
                "edgehem.benchmarks.latency.run",
                "edgehem.benchmarks.phantoms",
                "edgehem.benchmarks.phantoms_report",
                "edgehem.benchmarks.realism.report",
                "edgehem.benchmarks.realism.run",
                "edgehem.benchmarks.realism.sheet",
            )
        }
    )
    above = ("edgehem.export", "export", "edgehem.benchmarks", "benchmarks", "kernels")
    broken = []
    for path, package in sources("edgehem", "edgehem"):
        place = path.relative_to(ROOT).as_posix()
        for name, at_top in imported(path, package):
            if not any(within(name, other) for other in above):
                continue
            if (place, name) not in allowed or at_top:
                broken.append(f"{place} imports {name}")
    assert not broken


def test_kernels_stand_alone() -> None:
    broken = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, package in sources("kernels", "edgehem.kernels")
        for name, _ in imported(path, package)
        if (within(name, "edgehem") and not within(name, "edgehem.kernels")) or within(name, "export")
    ]
    assert not broken


def test_benchmarks_import_the_runtime_and_the_kernels_only() -> None:
    """Peers are imported where they are used: one that is missing must not stop the others.

    What the engines are compared on is made by the toolchain, which is imported where it is used, too; so are the
    worker processes that phantoms are made in.
    """
    files = ("engines", "networks", "gpu_engines", "phantoms", "pipelines/network", "peers/pipeline_monai")
    toolchain = {ROOT / f"benchmarks/{name}.py" for name in files}
    broken = []
    for path, package in sources("benchmarks", "edgehem.benchmarks"):
        for name, at_top in imported(path, package):
            if (within(name, "edgehem.export") or within(name, "export")) and (path not in toolchain or at_top):
                broken.append(f"{path.relative_to(ROOT)} imports {name}")
            if at_top and name.partition(".")[0] in OPTIONAL:
                broken.append(f"{path.relative_to(ROOT)} imports {name} at the top")
    assert not broken


def test_the_layer_check_sees_every_form_of_import(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import a.b\nfrom a import c\ndef f():\n    from ..d import e\n    from . import g\n")
    assert list(imported(file, "edgehem.dicom")) == [
        ("a.b", True),
        ("a.c", True),
        ("edgehem.d.e", False),
        ("edgehem.dicom.g", False),
    ]


@pytest.mark.parametrize("name", edgehem.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(edgehem, name) is not None
    assert name in dir(edgehem)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = edgehem.nonsense  # type: ignore[attr-defined]


def test_nothing_is_reported_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """ONNX Runtime would leave a device identifier at home, and a session of its reporting in TMPDIR."""
    pytest.importorskip("onnxruntime")
    names = {"HOME": tmp_path, "TMPDIR": tmp_path, "XDG_CACHE_HOME": tmp_path, "LOCALAPPDATA": tmp_path}
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    done = subprocess.run(
        [sys.executable, "-c", "import edgehem; edgehem.load()"],
        env={**environment, **{key: str(value) for key, value in names.items()}},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == []


def test_a_wheel_holds_every_package() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {"edgehem"} | {
        ".".join(("edgehem", *(path.parent.relative_to(ROOT / "edgehem").parts if top == "edgehem" else
                              path.parent.relative_to(ROOT).parts)))
        for top in ("edgehem", "export", "kernels", "benchmarks")
        for path in (ROOT / top).rglob("__init__.py")
    }  # fmt: skip
    assert set(listed) == found
