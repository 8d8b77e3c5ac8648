"""INT8 by measurement: where to quantise, from which ranges, and what to leave in float until the budget holds."""
