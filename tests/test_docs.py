"""The documentation says what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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
