// The arithmetic of the helper kernels around a model, shared by masks.cu and masks.cpp: back from the grid to the
// acquired slices, and quantisation. masks_oracle.py defines both; the rules of formulas.h hold here too.
#ifndef EDGEHEM_MASKS_H
#define EDGEHEM_MASKS_H

#include "formulas.h"

// The slices of a stack on a grid. Three numbers are one each for the grid's planes, rows and columns; masks_oracle.py
// says what they mean and masks.py mirrors the layout. `start`, float [slices][3], travels beside it.
struct EhReturn {
  int32_t size;                   // sizeof(EhReturn) as the caller knows it
  int32_t slices, rows, columns;  // fewer than 2^31 pixels
  int32_t planes, height, width;  // fewer than 2^31 voxels
  float per_row[3], per_column[3];
};

// Position on one axis of the grid of a slice's row, before its columns are added.
EH_FN float eh_return_base(const struct EhReturn& p, const float* start, int slice, int row, int axis) {
  return start[slice * (int64_t)3 + axis] + (float)(row - p.rows / 2) * p.per_row[axis];
}

EH_FN float eh_return_at(const struct EhReturn& p, float base, int column, int axis) {
  return base + (float)(column - p.columns / 2) * p.per_column[axis];
}

// The nearer of a tap's two; halves go up.
EH_FN int eh_nearer(struct EhTap tap) { return tap.weight >= 0.5f ? tap.upper : tap.lower; }

EH_FN int64_t eh_line(const struct EhReturn& p, int plane, int row) {
  return ((int64_t)plane * p.height + row) * p.width;
}

// One column of the grid between two planes and two rows.
EH_FN float eh_between(const struct EhReturn& p, const float* values, struct EhTap z, struct EhTap y, int x) {
  float first = eh_lerp(values[eh_line(p, z.lower, y.lower) + x], values[eh_line(p, z.upper, y.lower) + x], z.weight);
  float second = eh_lerp(values[eh_line(p, z.lower, y.upper) + x], values[eh_line(p, z.upper, y.upper) + x], z.weight);
  return eh_lerp(first, second, y.weight);
}

// One pixel, given where it falls on the three axes of the grid.
EH_FN uint8_t eh_return_nearest(const struct EhReturn& p, const uint8_t* values, struct EhTap z, struct EhTap y,
                                struct EhTap x) {
  if (!(z.inside && y.inside && x.inside)) return 0;
  return values[eh_line(p, eh_nearer(z), eh_nearer(y)) + eh_nearer(x)];
}

EH_FN float eh_return_linear(const struct EhReturn& p, const float* values, struct EhTap z, struct EhTap y,
                             struct EhTap x) {
  if (!(z.inside && y.inside && x.inside)) return 0.0f;
  return eh_lerp(eh_between(p, values, z, y, x.lower), eh_between(p, values, z, y, x.upper), x.weight);
}

// NaN becomes -127 here; whoever calls looks for it.
EH_FN int8_t eh_quantum(float value, float inverse_scale) {
  return (int8_t)(int)eh_round(eh_clip(value * inverse_scale, -127.0f, 127.0f));
}

#endif  // EDGEHEM_MASKS_H
