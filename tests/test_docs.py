"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSTALL = ROOT / "docs/jetson/install.sh"


def test_the_page_of_codes_is_made_from_the_enum() -> None:
    module = runpy.run_path(str(ROOT / "docs" / "make_codes.py"))
    assert (ROOT / "docs" / "codes.md").read_text(encoding="utf-8") == module["render"](), "run: make docs"


def test_the_page_of_the_intake_is_made_from_the_matrix_of_defects() -> None:
    module = runpy.run_path(str(ROOT / "docs" / "make_intake.py"))
    assert (ROOT / "docs" / "intake.md").read_text(encoding="utf-8") == module["render"](), "run: make docs"


def test_python_in_the_readme_compiles_and_uses_public_names() -> None:
    import edgehem

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
        for name in re.findall(r"\bedgehem\.(\w+)\(", block):
            assert name in edgehem.__all__, name


def test_commands_in_the_readme_parse() -> None:
    """Every `edgehem ...` line of the documentation is one the parser accepts."""
    from edgehem.cli import build_parser

    lines: list[str] = []
    commands = "triage|phantom|train|export|quantize|evaluate|keys|sign|verify|compile|bench|doctor"
    for page in (ROOT / "README.md", ROOT / "docs" / "phantom.md"):
        text = page.read_text(encoding="utf-8")
        lines += re.findall(rf"^(?:    )?(edgehem (?:{commands}) .*)$", text, re.M)
    assert len(lines) >= 8
    for line in lines:
        build_parser().parse_args(line.split()[1:])


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("script", ["docs/jetson/install.sh", "benchmarks/gpu.sh"])
def test_scripts_are_sound(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(path)], check=True)


def _layouts() -> ModuleType:
    """The folders that look like Jetsons, from the other test file."""
    spec = importlib.util.spec_from_file_location("test_jetson", ROOT / "tests/test_jetson.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dry_run(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGEHEM_JETSON_ROOT": str(root), "HOME": str(root / "home")}
    return subprocess.run(
        ["bash", str(INSTALL), *options], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("layout", "architecture", "first"),
    [("ORIN", "87", "Orin, Jetson Linux 36.4.3, JetPack 6"), ("THOR", "110", "Thor, Jetson Linux 38.2.0, JetPack 7")],
)
def test_the_installation_on_a_jetson_can_be_shown(tmp_path: Path, layout: str, architecture: str, first: str) -> None:
    layouts = _layouts()
    layouts.laid_out(tmp_path, getattr(layouts, layout))
    before = sorted(tmp_path.rglob("*"))
    done = _dry_run(tmp_path, "--dry-run", "--venv", str(tmp_path / "venv"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(first)
    for words in (
        "python3 -m venv --system-site-packages",
        "CUDA_ENABLE_CURAND = False",
        f"-m edgehem.kernels.build --arch {architecture}\n",
        "edgehem doctor",
        "edgehem compile hemorrhagenet",
    ):
        assert words in done.stdout
    assert sorted(tmp_path.rglob("*")) == before
    short = _dry_run(tmp_path, "--dry-run", "--no-compile", "--from", "a.whl", "--venv", str(tmp_path / "venv")).stdout
    assert "pip install --upgrade a.whl" in short and "edgehem compile hemorrhagenet" not in short


def test_an_orin_with_jetpack_7_gets_code_for_an_orin(tmp_path: Path) -> None:
    """From JetPack 7.2 on the release does not tell the chip."""
    layouts = _layouts()
    release = {"etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n"}
    layouts.laid_out(tmp_path, layouts.ORIN, release)
    done = _dry_run(tmp_path, "--dry-run")
    assert done.stdout.startswith("Orin, Jetson Linux 39.2.0, JetPack 7: kernels for sm_87\n")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 1\n"}, "Jetson Linux '35.4.1' is not known"),
        ({"etc/nv_tegra_release": "nonsense\n"}, "'of no version' is not known"),
        ({"proc/device-tree/compatible": "nvidia,tegra194\0"}, "the chip 'tegra194' is not known"),
    ],
)
def test_another_device_is_refused(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    layouts = _layouts()
    layouts.laid_out(tmp_path, layouts.ORIN, changes)
    done = _dry_run(tmp_path, "--dry-run")
    assert done.returncode == 1 and reason in done.stderr and "would run" not in done.stdout


def test_the_installation_refuses_what_it_must_not_do(tmp_path: Path) -> None:
    layouts = _layouts()
    layouts.laid_out(tmp_path, layouts.ORIN, {"venv/pyvenv.cfg": "include-system-site-packages = false\n"})
    assert "is for --dry-run" in _dry_run(tmp_path).stderr
    assert _dry_run(tmp_path, "--what").returncode == 2
    done = _dry_run(tmp_path, "--dry-run", "--venv", str(tmp_path / "venv"))
    assert done.returncode == 1 and "does not see system packages" in done.stderr
    assert "this is no Jetson" in _dry_run(tmp_path / "empty", "--dry-run").stderr


def test_the_memory_of_a_study_is_counted_from_the_code() -> None:
    from edgehem.preprocess import CANONICAL

    page = (ROOT / "docs/jetson.md").read_text(encoding="utf-8")
    slices = 40 * 512 * 512 * 2
    values = CANONICAL.shape[0] * len(CANONICAL.windows) * CANONICAL.shape[1] * CANONICAL.shape[2]
    graph = (ROOT / "edgehem/bundles/hemorrhagenet/fp32.onnx").stat().st_size
    assert f"{slices / 1e6:.1f} |" in page
    assert f"{values * 4 / 1e6:.1f} ({values * 2 / 1e6:.1f}) |" in page
    total, half = (3 * slices + 2 * values * size + graph for size in (4, 2))
    assert f"**{total / 1e6:.0f} ({half / 1e6:.0f})**" in page
