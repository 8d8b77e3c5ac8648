"""Intervals of what was counted."""

from __future__ import annotations

import math

Z95 = 1.959964
"""Of the normal distribution, two-sided 95 %."""


def wilson(hits: int, total: int) -> tuple[float, float]:
    """95 % score interval of a proportion (E. B. Wilson, 1927); (0, 1) of nothing."""
    if not total:
        return 0.0, 1.0
    p, q = hits / total, Z95**2 / total
    centre, half = p + q / 2, Z95 * math.sqrt(p * (1 - p) / total + q / (4 * total))
    return max(0.0, (centre - half) / (1 + q)), min(1.0, (centre + half) / (1 + q))
