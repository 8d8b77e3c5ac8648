"""``python -m edgehem.export.cohorts.golden [FILE]``: fingerprints of every cohort and variant, to stdout or a file.

The tests hold this machine to ``tests/export/cohorts/golden.json``, which this command wrote elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgehem.export.cohorts.core import Variant
from edgehem.export.cohorts.registry import COHORTS, cohort
from edgehem.export.cohorts.tables import fingerprint


def fingerprints(names: tuple[str, ...] = tuple(COHORTS), workers: int = 1) -> dict[str, dict[str, dict[str, str]]]:
    """Fingerprints by cohort (with its version) and variant."""
    kinds = [cohort(name) for name in names]
    return {
        f"{kind.name} {kind.version}": {
            variant.value: fingerprint(kind, variant=variant, workers=workers) for variant in Variant
        }
        for kind in kinds
    }


def main() -> None:
    """Write them."""
    text = json.dumps(fingerprints(), indent=1) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
