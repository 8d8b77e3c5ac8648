// The arithmetic of the preprocessing pass, shared by the CUDA kernels (preprocess.cu) and the native twin (native.cpp).
//
// oracle.py defines what is computed and was written apart from this file; both round once per operation, in the same
// order, so that their results are equal bit for bit. That holds only without contraction of a*b + c into one rounding:
// compile with -ffp-contract=off (host) and -fmad=false (device), never with fast-math.
#ifndef EDGEHEM_FORMULAS_H
#define EDGEHEM_FORMULAS_H

#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define EH_FN __host__ __device__ __forceinline__
#else
#define EH_FN static inline
#endif

#if defined(__FAST_MATH__)
#error "fast-math would change the results"
#endif
#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "intermediate results must be rounded to their type"
#endif

#define EH_ABI 1
#define EH_MAX_WINDOWS 16
#define EH_MAX_FACTOR 4
#define EH_AIR_HU (-1024.0f)

// One stack on one grid; plan.py says what the fields mean and native.py mirrors the layout.
struct EhPlan {
  int32_t size;  // sizeof(EhPlan) as the caller knows it
  int32_t slices, rows, columns;
  int32_t factor, reduced_rows, reduced_columns;
  int32_t planes, height, width, channels;
  int32_t padding_low, padding_high;  // low > high: no padding
  int32_t paired;                     // rows start at addresses from which two pixels can be read at once
  float along[4], row[4], column[4];  // start, per plane, per row, per column
  float half_extent, share;           // share 0: interpolate between two slices
  float mean_inverse_gap;             // where to begin looking for a segment
  float reserved;
  int64_t slice_stride, row_stride;  // of the stored pixels, in elements; columns are adjacent
  float window[EH_MAX_WINDOWS][4];   // factor, addend, lowest, highest
};

// Per-slice tables, one after the other in one float array of 7 * slices + 3.
struct EhTables {
  const float *knots, *inverse_gap, *row_offset, *column_offset, *gain, *intercept, *padded;
};

EH_FN struct EhTables eh_tables(const float* base, int slices) {
  struct EhTables t;
  t.knots = base;
  t.inverse_gap = t.knots + slices + 2;
  t.row_offset = t.inverse_gap + slices + 1;
  t.column_offset = t.row_offset + slices;
  t.gain = t.column_offset + slices;
  t.intercept = t.gain + slices;
  t.padded = t.intercept + slices;
  return t;
}

EH_FN float eh_clip(float value, float lowest, float highest) {
  value = value > lowest ? value : lowest;
  return value < highest ? value : highest;
}

EH_FN float eh_lerp(float a, float b, float weight) { return a + weight * (b - a); }

// Position of row j of plane k before its columns are added.
EH_FN float eh_base(const float axis[4], int k, int j) { return (axis[0] + (float)k * axis[1]) + (float)j * axis[2]; }

EH_FN float eh_at(const float axis[4], float base, int i) { return base + (float)i * axis[3]; }

// Index of the knot below s, within 0..slices.
EH_FN int eh_segment(const struct EhPlan& p, const float* knots, float s) {
  // Most stacks are evenly spaced: a guess hits, and the search that bounds the rest is seldom needed.
  int low = (int)eh_clip((s - knots[1]) * p.mean_inverse_gap + 1.0f, 0.0f, (float)p.slices);
  if (knots[low] <= s && s < knots[low + 1]) return low;
  low = 0;
  int high = p.slices + 1;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (knots[middle] <= s)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// Where a position falls between two pixels of a line.
struct EhTap {
  int lower, upper, inside;
  float weight;
};

EH_FN struct EhTap eh_tap(float position, int size) {
  struct EhTap tap;
  tap.inside = position >= -0.5f && position <= (float)size - 0.5f;
  position = eh_clip(position, 0.0f, (float)(size - 1));
  tap.lower = (int)position;
  tap.upper = tap.lower + 1 < size ? tap.lower + 1 : size - 1;
  tap.weight = position - (float)tap.lower;
  return tap;
}

EH_FN float eh_hounsfield(int sum, int padded, float gain, float intercept, float per_padded) {
  float hu = (float)sum * gain + intercept;
  return padded ? hu + (float)padded * per_padded : hu;  // adding 0 would give the same bits
}

// HU of one reduced pixel.
EH_FN float eh_pixel(const struct EhPlan& p, const struct EhTables& t, const int16_t* pixels, int slice, int row,
                     int column) {
  const int16_t* at = pixels + slice * p.slice_stride + (int64_t)row * p.factor * p.row_stride + column * p.factor;
  int sum = 0, padded = 0;
  if (p.padding_low > p.padding_high) {
    if (p.factor == 1) {
      sum = at[0];
    } else if (p.factor == 2 && p.paired) {
      int32_t above, below;  // two pixels each, in one access
      memcpy(&above, __builtin_assume_aligned(at, 4), 4);
      memcpy(&below, __builtin_assume_aligned(at + p.row_stride, 4), 4);
      sum = ((int16_t)above + (above >> 16)) + ((int16_t)below + (below >> 16));
    } else {
      for (int y = 0; y < p.factor; ++y)
        for (int x = 0; x < p.factor; ++x) sum += at[y * p.row_stride + x];
    }
  } else {
    for (int y = 0; y < p.factor; ++y)
      for (int x = 0; x < p.factor; ++x) {
        int stored = at[y * p.row_stride + x];
        int air = stored >= p.padding_low && stored <= p.padding_high;
        sum += air ? 0 : stored;
        padded += air;
      }
  }
  return eh_hounsfield(sum, padded, t.gain[slice], t.intercept[slice], t.padded[slice]);
}

// Bilinear sample of one slice; u and v are the voxel's row and column in the middle slice.
EH_FN float eh_sample(const struct EhPlan& p, const struct EhTables& t, const int16_t* pixels, int slice, float u,
                      float v) {
  struct EhTap r = eh_tap(u - t.row_offset[slice], p.reduced_rows);
  struct EhTap c = eh_tap(v - t.column_offset[slice], p.reduced_columns);
  if (!(r.inside && c.inside)) return EH_AIR_HU;
  float upper = eh_lerp(eh_pixel(p, t, pixels, slice, r.lower, c.lower),
                        eh_pixel(p, t, pixels, slice, r.lower, c.upper), c.weight);
  float lower = eh_lerp(eh_pixel(p, t, pixels, slice, r.upper, c.lower),
                        eh_pixel(p, t, pixels, slice, r.upper, c.upper), c.weight);
  return eh_lerp(upper, lower, r.weight);
}

EH_FN int eh_below(int segment) { return segment > 0 ? segment - 1 : 0; }

EH_FN int eh_above(int segment, int slices) { return segment < slices ? segment : slices - 1; }

// The part of the stack that a voxel at distance s averages, and the share of it that is air beyond the faces.
struct EhSpan {
  float low, high, air;
};

EH_FN struct EhSpan eh_span(const struct EhPlan& p, const struct EhTables& t, float s) {
  struct EhSpan span;
  float first = t.knots[0], last = t.knots[p.slices + 1];
  span.low = eh_clip(s - p.half_extent, first, last);
  span.high = eh_clip(s + p.half_extent, first, last);
  span.air = 1.0f - (span.high - span.low) * p.share;
  return span;
}

// Calls visit(slice, weight) for every slice that counts in a span, from below to above.
template <class Visit>
EH_FN void eh_average(const struct EhPlan& p, const struct EhTables& t, struct EhSpan span, Visit visit) {
  if (!(span.high > span.low)) return;
  int segment = eh_segment(p, t.knots, span.low), slice = 0;
  float pending = 0.0f;  // weight of the upper slice, to which the next segment adds
  for (; segment <= p.slices && t.knots[segment] < span.high; ++segment) {
    float from = t.knots[segment] > span.low ? t.knots[segment] : span.low;
    float to = t.knots[segment + 1] < span.high ? t.knots[segment + 1] : span.high;
    float length = (to - from) * p.share;
    float upper = length * (((from + to) * 0.5f - t.knots[segment]) * t.inverse_gap[segment]);
    int below = eh_below(segment);
    pending = pending + (length - upper);
    slice = eh_above(segment, p.slices);
    if (below != slice) {
      visit(below, pending);
      pending = upper;
    } else {
      pending = pending + upper;
    }
  }
  visit(slice, pending);
}

// HU of voxel [k, j, i].
EH_FN float eh_voxel(const struct EhPlan& p, const struct EhTables& t, const int16_t* pixels, int k, int j, int i) {
  float s = eh_at(p.along, eh_base(p.along, k, j), i);
  float u = eh_at(p.row, eh_base(p.row, k, j), i);
  float v = eh_at(p.column, eh_base(p.column, k, j), i);
  if (p.share != 0.0f) {
    struct EhSpan span = eh_span(p, t, s);
    float total = span.air * EH_AIR_HU;
    eh_average(p, t, span, [&](int slice, float weight) {
      total = total + weight * eh_sample(p, t, pixels, slice, u, v);
    });
    return total;
  }
  if (!(s >= t.knots[0] && s <= t.knots[p.slices + 1])) return EH_AIR_HU;
  int segment = eh_segment(p, t.knots, s), below = eh_below(segment), above = eh_above(segment, p.slices);
  float weight = eh_clip((s - t.knots[segment]) * t.inverse_gap[segment], 0.0f, 1.0f);
  float lower = eh_sample(p, t, pixels, below, u, v);
  // Skipped where it cannot count: lerp(a, b, 0) and lerp(a, a, w) are a, to the bit.
  if (weight == 0.0f || below == above) return lower;
  return eh_lerp(lower, eh_sample(p, t, pixels, above, u, v), weight);
}

// One channel of one voxel; never -0, since no window holds one.
EH_FN float eh_window(float hu, const float window[4]) {
  return eh_clip(hu * window[0] + window[1], window[2], window[3]);
}

// Round half to even, for |value| < 2^22: the sum has no room for a fraction.
EH_FN float eh_round(float value) { return (value + 12582912.0f) - 12582912.0f; }

// float -> IEEE half, round half to even; overflow gives infinity. No hardware support needed.
EH_FN uint16_t eh_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 halves are spaced like the last bits of a float near 0.5: an addition does the rounding.
  float shifted, half = 0.5f;
  memcpy(&shifted, &magnitude, 4);
  shifted = shifted + half;
  uint32_t small;
  memcpy(&small, &shifted, 4);
  small -= 0x3f000000u;
  uint32_t result = magnitude < 0x38800000u ? small : normal;
  result = magnitude >= 0x47800000u ? (magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u) : result;
  return (uint16_t)(sign | result);
}

#endif  // EDGEHEM_FORMULAS_H
