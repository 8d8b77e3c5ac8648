// The arithmetic of the preprocessing pass, shared by the CUDA kernels (preprocess.cu) and the native twin
// (native.cpp).
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
#define EH_ROLLED _Pragma("unroll 1")
#else
#define EH_FN static inline
#define EH_ROLLED
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

// How reduced pixels are read: one by one, in pairs of two rows, or as many as the factor says.
enum { EH_ANY = 0, EH_WHOLE = 1, EH_PAIRS = 2 };

EH_FN int eh_reader(const struct EhPlan& p) {
  return p.factor == 1 ? EH_WHOLE : p.factor == 2 && p.paired ? EH_PAIRS : EH_ANY;
}

// Two lines of reduced pixels in one slice, and where between them voxels lie. Elements are counted in 32 bits.
struct EhLines {
  uint32_t upper, lower;
  float weight, column_offset, gain, intercept, per_padded;
  int inside;
};

EH_FN struct EhLines eh_lines(const struct EhPlan& p, const struct EhTables& t, int slice, float u) {
  struct EhTap r = eh_tap(u - t.row_offset[slice], p.reduced_rows);
  uint32_t first = (uint32_t)slice * (uint32_t)p.slice_stride, step = (uint32_t)p.factor * (uint32_t)p.row_stride;
  struct EhLines lines = {first + (uint32_t)r.lower * step,
                          first + (uint32_t)r.upper * step,
                          r.weight,
                          t.column_offset[slice],
                          t.gain[slice],
                          t.intercept[slice],
                          t.padded[slice],
                          r.inside};
  return lines;
}

// HU of the reduced pixel whose first stored one is element `at`.
template <int READER, bool MASKED>
EH_FN float eh_pixel(const struct EhPlan& p, const int16_t* pixels, const struct EhLines& lines, uint32_t at) {
  const uint32_t line = (uint32_t)p.row_stride;
  int sum = 0, padded = 0;
  auto add = [&](int stored) {
    int air = MASKED && stored >= p.padding_low && stored <= p.padding_high;
    sum += air ? 0 : stored;
    padded += air;
  };
  if (READER == EH_WHOLE) {
    add(pixels[at]);
  } else if (READER == EH_PAIRS) {
    int32_t above, below;  // two pixels each, in one access
    memcpy(&above, __builtin_assume_aligned(pixels + at, 4), 4);
    memcpy(&below, __builtin_assume_aligned(pixels + (at + line), 4), 4);
    add((int16_t)above);
    add(above >> 16);
    add((int16_t)below);
    add(below >> 16);
  } else {
    EH_ROLLED for (int y = 0; y < p.factor; ++y) EH_ROLLED for (int x = 0; x < p.factor; ++x)
        add(pixels[at + (uint32_t)y * line + (uint32_t)x]);
  }
  return eh_hounsfield(sum, padded, lines.gain, lines.intercept, lines.per_padded);
}

// Bilinear sample; v is the voxel's column in the middle slice.
template <int READER, bool MASKED>
EH_FN float eh_sample(const struct EhPlan& p, const int16_t* pixels, const struct EhLines& lines, float v) {
  struct EhTap c = eh_tap(v - lines.column_offset, p.reduced_columns);
  if (!(lines.inside && c.inside)) return EH_AIR_HU;
  const uint32_t factor = READER == EH_WHOLE ? 1 : READER == EH_PAIRS ? 2 : p.factor;
  const uint32_t left = c.lower * factor, right = c.upper * factor;
  float upper = eh_lerp(eh_pixel<READER, MASKED>(p, pixels, lines, lines.upper + left),
                        eh_pixel<READER, MASKED>(p, pixels, lines, lines.upper + right), c.weight);
  float lower = eh_lerp(eh_pixel<READER, MASKED>(p, pixels, lines, lines.lower + left),
                        eh_pixel<READER, MASKED>(p, pixels, lines, lines.lower + right), c.weight);
  return eh_lerp(upper, lower, lines.weight);
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
  float pending = 0.0f;                        // weight of the upper slice, to which the next segment adds
  for (bool last = false; !last; ++segment) {  // one place that visits: what it does is long
    float next = 0.0f;
    int below = slice;
    last = !(segment <= p.slices && t.knots[segment] < span.high);
    if (!last) {
      float from = t.knots[segment] > span.low ? t.knots[segment] : span.low;
      float to = t.knots[segment + 1] < span.high ? t.knots[segment + 1] : span.high;
      float length = (to - from) * p.share;
      float upper = length * (((from + to) * 0.5f - t.knots[segment]) * t.inverse_gap[segment]);
      below = eh_below(segment);
      pending = pending + (length - upper);
      slice = eh_above(segment, p.slices);
      if (below == slice) {
        pending = pending + upper;
        continue;
      }
      next = upper;
    }
    visit(below, pending);
    pending = next;
  }
}

// HU of N voxels that differ in nothing but their columns v.
template <int N, int READER, bool MASKED>
EH_FN void eh_voxels(const struct EhPlan& p, const struct EhTables& t, const int16_t* pixels, float s, float u,
                     const float v[N], float hu[N]) {
  if (p.share != 0.0f) {
    struct EhSpan span = eh_span(p, t, s);
    for (int n = 0; n < N; ++n) hu[n] = span.air * EH_AIR_HU;
    eh_average(p, t, span, [&](int slice, float weight) {
      struct EhLines lines = eh_lines(p, t, slice, u);
      for (int n = 0; n < N; ++n) hu[n] = hu[n] + weight * eh_sample<READER, MASKED>(p, pixels, lines, v[n]);
    });
    return;
  }
  for (int n = 0; n < N; ++n) hu[n] = EH_AIR_HU;
  if (!(s >= t.knots[0] && s <= t.knots[p.slices + 1])) return;
  int segment = eh_segment(p, t.knots, s), below = eh_below(segment), above = eh_above(segment, p.slices);
  float weight = eh_clip((s - t.knots[segment]) * t.inverse_gap[segment], 0.0f, 1.0f);
  struct EhLines lines = eh_lines(p, t, below, u);
  for (int n = 0; n < N; ++n) hu[n] = eh_sample<READER, MASKED>(p, pixels, lines, v[n]);
  // Skipped where it cannot count: lerp(a, b, 0) and lerp(a, a, w) are a, to the bit.
  if (weight == 0.0f || below == above) return;
  lines = eh_lines(p, t, above, u);
  for (int n = 0; n < N; ++n) hu[n] = eh_lerp(hu[n], eh_sample<READER, MASKED>(p, pixels, lines, v[n]), weight);
}

template <int READER, bool MASKED>
EH_FN float eh_voxel_read(const struct EhPlan& p, const struct EhTables& t, const int16_t* pixels, int k, int j,
                          int i) {
  float hu, v = eh_at(p.column, eh_base(p.column, k, j), i);
  eh_voxels<1, READER, MASKED>(p, t, pixels, eh_at(p.along, eh_base(p.along, k, j), i),
                               eh_at(p.row, eh_base(p.row, k, j), i), &v, &hu);
  return hu;
}

// HU of voxel [k, j, i].
EH_FN float eh_voxel(const struct EhPlan& p, const struct EhTables& t, const int16_t* pixels, int k, int j, int i) {
  const bool masked = p.padding_low <= p.padding_high;
  switch (eh_reader(p)) {
    case EH_WHOLE: return eh_voxel_read<EH_WHOLE, true>(p, t, pixels, k, j, i);
    case EH_PAIRS:
      return masked ? eh_voxel_read<EH_PAIRS, true>(p, t, pixels, k, j, i)
                    : eh_voxel_read<EH_PAIRS, false>(p, t, pixels, k, j, i);
    default: return eh_voxel_read<EH_ANY, true>(p, t, pixels, k, j, i);
  }
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
