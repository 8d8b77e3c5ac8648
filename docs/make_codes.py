"""Write docs/codes.md from the one enum of codes: ``make docs``; a test holds the two together."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
ERRORS = HERE.parent / "edgehem" / "errors.py"
PAGE = HERE / "codes.md"


def render() -> str:
    """The page: every code with its meaning, NO-RESULT first."""
    source = ERRORS.read_text(encoding="utf-8")
    body = next(n.body for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Code")
    first_flag = source[: source.index("# FLAG:")].count("\n") + 1
    tables: dict[bool, list[str]] = {False: [], True: []}
    for member, meaning in pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(meaning, ast.Expr) and isinstance(meaning.value, ast.Constant):
            tables[member.lineno > first_flag].append(f"| `{ast.literal_eval(member.value)}` | {meaning.value.value} |")
    made = "Made from `edgehem/errors.py` by `make docs`."
    parts = [f"# Codes\n\nPart of the public contract: codes are added, never renamed. {made}"]
    for flag, title in ((False, "NO-RESULT: not analysed"), (True, "FLAG: analysed, and worth knowing")):
        parts.append(f"## {title}\n\n| code | meaning |\n|---|---|\n" + "\n".join(tables[flag]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
