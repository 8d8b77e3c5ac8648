// Rows of the preprocessing pass on a CPU, compiled once per instruction set (EH_ROWS names the entry point).
//
// In stacks that are not rotated about the patient's axes, all voxels of a grid row lie between the same slices and on
// the same pixel rows. Then the work is done line by line: reduce stored pixels to HU, sample the columns (both once
// for every line, which is kept for the next row and the next plane), blend lines and slices, apply the windows. The
// compiler vectorises all but two loops, which are written out. Other stacks go voxel by voxel through formulas.h. Both
// give the same bits.
#include "rows.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace {

// Two neighbouring stored pixels; which of them comes first does not matter to a sum.
struct Pair {
  int first, second;
};

inline Pair pair(const int16_t* at) {
  int32_t both;
  memcpy(&both, at, 4);
  return {(int16_t)both, both >> 16};
}

// One line of a reduced slice in HU: sums of Factor x Factor stored pixels.
template <int Factor, bool Padded>
void reduce_by(const EhPlan& p, const EhTables& t, const int16_t* pixels, int slice, int row, float* __restrict__ out) {
  const int16_t* __restrict__ at = pixels + slice * p.slice_stride + (int64_t)row * Factor * p.row_stride;
  const int64_t stride = p.row_stride;
  const float gain = t.gain[slice], intercept = t.intercept[slice], per_padded = t.padded[slice];
  const int columns = p.reduced_columns, low = p.padding_low, high = p.padding_high;
  for (int x = 0; x < columns; ++x) {
    int sum = 0, padded = 0;
    auto add = [&](int stored) {
      if (Padded) {
        const int air = (stored >= low) & (stored <= high);
        padded += air;
        stored = air ? 0 : stored;
      }
      sum += stored;
    };
    for (int dy = 0; dy < Factor; ++dy) {
      const int16_t* line = at + dy * stride + (int64_t)x * Factor;
      int dx = 0;
      if (Factor % 2 == 0 && !Padded)
        for (; dx < Factor; dx += 2) {
          const Pair two = pair(line + dx);
          add(two.first);
          add(two.second);
        }
      for (; dx < Factor; ++dx) add(line[dx]);
    }
    float hu = (float)sum * gain + intercept;
    // Adding nothing changes nothing: intercepts are never -0.
    if (Padded) hu = hu + (float)padded * per_padded;
    out[x] = hu;
  }
}

// The commonest case by hand: 2 x 2 pixels, no padding.
void reduce_pairs(const EhPlan& p, const EhTables& t, const int16_t* pixels, int slice, int row,
                  float* __restrict__ out) {
  const int16_t* above = pixels + slice * p.slice_stride + (int64_t)row * 2 * p.row_stride;
  const int16_t* below = above + p.row_stride;
  const int columns = p.reduced_columns;
  int x = 0;
#if defined(__AVX512F__)
  const __m512 gain = _mm512_set1_ps(t.gain[slice]), intercept = _mm512_set1_ps(t.intercept[slice]);
  const __m512i one = _mm512_set1_epi16(1);  // a sum of neighbours is their scalar product with (1, 1)
  for (; x + 16 <= columns; x += 16) {
    const __m512i sum = _mm512_add_epi32(_mm512_madd_epi16(_mm512_loadu_si512(above + 2 * x), one),
                                         _mm512_madd_epi16(_mm512_loadu_si512(below + 2 * x), one));
    const __m512 value = _mm512_maskz_cvtepi32_ps(0xffff, sum);
    _mm512_storeu_ps(out + x, _mm512_add_ps(_mm512_mul_ps(value, gain), intercept));
  }
#elif defined(__AVX2__)
  const __m256 gain = _mm256_set1_ps(t.gain[slice]), intercept = _mm256_set1_ps(t.intercept[slice]);
  const __m256i one = _mm256_set1_epi16(1);
  for (; x + 8 <= columns; x += 8) {
    const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(_mm256_loadu_si256((const __m256i*)(above + 2 * x)), one),
                                         _mm256_madd_epi16(_mm256_loadu_si256((const __m256i*)(below + 2 * x)), one));
    _mm256_storeu_ps(out + x, _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), gain), intercept));
  }
#elif defined(__SSE2__)
  const __m128 gain = _mm_set1_ps(t.gain[slice]), intercept = _mm_set1_ps(t.intercept[slice]);
  const __m128i one = _mm_set1_epi16(1);
  for (; x + 4 <= columns; x += 4) {
    const __m128i sum = _mm_add_epi32(_mm_madd_epi16(_mm_loadu_si128((const __m128i*)(above + 2 * x)), one),
                                      _mm_madd_epi16(_mm_loadu_si128((const __m128i*)(below + 2 * x)), one));
    _mm_storeu_ps(out + x, _mm_add_ps(_mm_mul_ps(_mm_cvtepi32_ps(sum), gain), intercept));
  }
#elif defined(__aarch64__)
  const float32x4_t gain = vdupq_n_f32(t.gain[slice]), intercept = vdupq_n_f32(t.intercept[slice]);
  for (; x + 4 <= columns; x += 4) {
    const int32x4_t sum = vpadalq_s16(vpaddlq_s16(vld1q_s16(above + 2 * x)), vld1q_s16(below + 2 * x));
    vst1q_f32(out + x, vaddq_f32(vmulq_f32(vcvtq_f32_s32(sum), gain), intercept));
  }
#endif
  for (; x < columns; ++x) {
    const int sum = above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1];
    out[x] = (float)sum * t.gain[slice] + t.intercept[slice];
  }
}

// One line of a reduced slice in HU.
void reduce(const EhPlan& p, const EhTables& t, const int16_t* pixels, int slice, int row, float* out) {
  const bool padded = p.padding_low <= p.padding_high;
  switch (p.factor * 2 + padded) {
    case 2: return reduce_by<1, false>(p, t, pixels, slice, row, out);
    case 3: return reduce_by<1, true>(p, t, pixels, slice, row, out);
    case 4: return reduce_pairs(p, t, pixels, slice, row, out);
    case 5: return reduce_by<2, true>(p, t, pixels, slice, row, out);
    case 6: return reduce_by<3, false>(p, t, pixels, slice, row, out);
    case 7: return reduce_by<3, true>(p, t, pixels, slice, row, out);
    case 8: return reduce_by<4, false>(p, t, pixels, slice, row, out);
    default: return reduce_by<4, true>(p, t, pixels, slice, row, out);
  }
}

void fill(float* __restrict__ out, int from, int to, float value) {
  for (int i = from; i < to; ++i) out[i] = value;
}

void find_columns(const EhPlan& p, EhScratch& scratch, EhColumns wanted) {
  if (scratch.found && eh_same(scratch.columns, wanted)) return;
  const int width = p.width, columns = p.reduced_columns;
  const float step = p.column[3], base = wanted.base, offset = wanted.offset;
  int32_t* __restrict__ lower = scratch.lower;
  int32_t* __restrict__ upper = scratch.upper;
  float* __restrict__ weight = scratch.weight;
  for (int i = 0; i < width; ++i) {
    EhTap tap = eh_tap((base + (float)i * step) - offset, columns);
    lower[i] = tap.lower;
    upper[i] = tap.upper;
    weight[i] = tap.weight;
  }
  // Positions rise or fall along a row, so what lies inside is one run.
  int begin = 0, end = width;
  while (begin < end && !eh_tap((base + (float)begin * step) - offset, columns).inside) ++begin;
  while (end > begin && !eh_tap((base + (float)(end - 1) * step) - offset, columns).inside) --end;
  scratch.begin = begin;
  scratch.end = end;
  scratch.columns = wanted;
  scratch.found = true;
}

// out[i] = lerp(line[lower[i]], line[upper[i]], weight[i])
void sample_columns(const EhScratch& scratch, bool rising, const float* __restrict__ line, float* __restrict__ out) {
  const int32_t *lower = scratch.lower, *upper = scratch.upper;
  const float* weight = scratch.weight;
  int i = scratch.begin;
  const int end = scratch.end;
#if defined(__AVX512F__)
  for (; rising && i + 16 <= end; i += 16) {
    const int first = lower[i];
    if (upper[i + 15] - first >= 32) break;
    const __m512 a = _mm512_loadu_ps(line + first), b = _mm512_loadu_ps(line + first + 16);
    const __m512i origin = _mm512_set1_epi32(first);
    const __m512 near = _mm512_permutex2var_ps(a, _mm512_sub_epi32(_mm512_loadu_si512(lower + i), origin), b);
    const __m512 far = _mm512_permutex2var_ps(a, _mm512_sub_epi32(_mm512_loadu_si512(upper + i), origin), b);
    const __m512 part = _mm512_mul_ps(_mm512_loadu_ps(weight + i), _mm512_sub_ps(far, near));
    _mm512_storeu_ps(out + i, _mm512_add_ps(near, part));
  }
#elif defined(__AVX2__)
  const __m256i seven = _mm256_set1_epi32(7);
  for (; rising && i + 8 <= end; i += 8) {
    const int first = lower[i];
    if (upper[i + 7] - first >= 16) break;
    const __m256 a = _mm256_loadu_ps(line + first), b = _mm256_loadu_ps(line + first + 8);
    const __m256i origin = _mm256_set1_epi32(first);
    const __m256i at_near = _mm256_sub_epi32(_mm256_loadu_si256((const __m256i*)(lower + i)), origin);
    const __m256i at_far = _mm256_sub_epi32(_mm256_loadu_si256((const __m256i*)(upper + i)), origin);
    const __m256 near = _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, at_near), _mm256_permutevar8x32_ps(b, at_near),
                                         _mm256_castsi256_ps(_mm256_cmpgt_epi32(at_near, seven)));
    const __m256 far = _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, at_far), _mm256_permutevar8x32_ps(b, at_far),
                                        _mm256_castsi256_ps(_mm256_cmpgt_epi32(at_far, seven)));
    const __m256 part = _mm256_mul_ps(_mm256_loadu_ps(weight + i), _mm256_sub_ps(far, near));
    _mm256_storeu_ps(out + i, _mm256_add_ps(near, part));
  }
#else
  (void)rising;
#endif
  for (; i < end; ++i) out[i] = eh_lerp(line[lower[i]], line[upper[i]], weight[i]);
}

// A reduced line, sampled at the grid's columns: kept from an earlier row or plane, or made now.
const float* sampled_line(const EhJob& job, EhScratch& scratch, int slice, int row, EhColumns columns) {
  const EhPlan& p = *job.plan;
  const int slot = (slice & (scratch.kept_slices - 1)) * scratch.kept_rows + (row & (scratch.kept_rows - 1));
  float* line = scratch.lines + (size_t)slot * (p.width + EH_SLACK);
  const EhKey key = {slice, row, columns};
  if (!eh_same(scratch.keys[slot], key)) {
    find_columns(p, scratch, columns);
    // What comes next is the same line of the next slice, a plane later, or where many slices make a plane, the line
    // after next of this slice. (In a function of its own GCC drops this: it returns nothing.)
    const int next_slice = p.share != 0.0f ? slice : slice + 1, next_row = p.share != 0.0f ? row + 2 : row;
    if (next_slice < p.slices && next_row < p.reduced_rows) {
      const int16_t* at = job.pixels + next_slice * p.slice_stride + (int64_t)next_row * p.factor * p.row_stride;
      for (int y = 0; y < p.factor; ++y, at += p.row_stride)
        for (int x = 0; x < p.columns; x += 32) __builtin_prefetch(at + x, 0, 2);
    }
    reduce(p, job.tables, job.pixels, slice, row, scratch.reduced);
    fill(line, 0, scratch.begin, EH_AIR_HU);
    sample_columns(scratch, p.column[3] >= 0.0f, scratch.reduced, line);
    fill(line, scratch.end, p.width, EH_AIR_HU);
    scratch.keys[slot] = key;
  }
  return line;
}

// The two lines of a slice between which a grid row runs.
struct Lines {
  const float *upper, *lower;
  float weight;
};

Lines lines_of(const EhJob& job, EhScratch& scratch, int slice, float u, float base) {
  const EhTap row = eh_tap(u - job.tables.row_offset[slice], job.plan->reduced_rows);
  if (!row.inside) return {scratch.air, scratch.air, 0.0f};
  const EhColumns columns = {base, job.tables.column_offset[slice]};
  const float* upper = sampled_line(job, scratch, slice, row.lower, columns);
  // With no weight the other line cannot count: lerp(a, b, 0) is a, to the bit.
  const bool alone = row.weight == 0.0f || row.lower == row.upper;
  return {upper, alone ? upper : sampled_line(job, scratch, slice, row.upper, columns), row.weight};
}

// HU of a row whose voxels share their slices and their pixel rows.
void sample_row(const EhJob& job, EhScratch& scratch, float s, float u, float base) {
  const EhPlan& p = *job.plan;
  const EhTables& t = job.tables;
  const int width = p.width;
  float* __restrict__ hu = scratch.hu;
  if (p.share != 0.0f) {
    const EhSpan span = eh_span(p, t, s);
    fill(hu, 0, width, span.air * EH_AIR_HU);
    eh_average(p, t, span, [&](int slice, float weight) {
      const Lines lines = lines_of(job, scratch, slice, u, base);
      const float* __restrict__ a = lines.upper, * __restrict__ b = lines.lower;
      for (int i = 0; i < width; ++i) hu[i] = hu[i] + weight * eh_lerp(a[i], b[i], lines.weight);
    });
    return;
  }
  if (!(s >= t.knots[0] && s <= t.knots[p.slices + 1])) {
    fill(hu, 0, width, EH_AIR_HU);
    return;
  }
  const int segment = eh_segment(p, t.knots, s), below = eh_below(segment), above = eh_above(segment, p.slices);
  const float weight = eh_clip((s - t.knots[segment]) * t.inverse_gap[segment], 0.0f, 1.0f);
  const Lines near = lines_of(job, scratch, below, u, base);
  const float* __restrict__ a = near.upper, * __restrict__ b = near.lower;
  if (weight == 0.0f || below == above) {
    for (int i = 0; i < width; ++i) hu[i] = eh_lerp(a[i], b[i], near.weight);
    return;
  }
  const Lines far = lines_of(job, scratch, above, u, base);
  const float* __restrict__ c = far.upper, * __restrict__ d = far.lower;
  for (int i = 0; i < width; ++i)
    hu[i] = eh_lerp(eh_lerp(a[i], b[i], near.weight), eh_lerp(c[i], d[i], far.weight), weight);
}

void apply_window(const float* __restrict__ hu, const float window[4], float* __restrict__ out, int width) {
  for (int i = 0; i < width; ++i) out[i] = eh_window(hu[i], window);
}

void apply_window(const float* __restrict__ hu, const float window[4], int8_t* __restrict__ out, int width) {
  for (int i = 0; i < width; ++i) out[i] = (int8_t)(int)eh_round(eh_window(hu[i], window));
}

void apply_window(const float* __restrict__ hu, const float window[4], uint16_t* __restrict__ out, int width) {
  int i = 0;
#if defined(__AVX512F__)
  const __m512 factor = _mm512_set1_ps(window[0]), addend = _mm512_set1_ps(window[1]);
  const __m512 lowest = _mm512_set1_ps(window[2]), highest = _mm512_set1_ps(window[3]);
  const __mmask16 all = 0xffff;  // the forms without a mask make some compilers warn of their own headers
  for (; i + 16 <= width; i += 16) {
    __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(hu + i), factor), addend);
    value = _mm512_maskz_min_ps(all, _mm512_maskz_max_ps(all, value, lowest), highest);
    _mm256_storeu_si256((__m256i*)(out + i), _mm512_maskz_cvtps_ph(all, value, _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__F16C__)
  const __m256 factor = _mm256_set1_ps(window[0]), addend = _mm256_set1_ps(window[1]);
  const __m256 lowest = _mm256_set1_ps(window[2]), highest = _mm256_set1_ps(window[3]);
  for (; i + 8 <= width; i += 8) {
    __m256 value = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(hu + i), factor), addend);
    value = _mm256_min_ps(_mm256_max_ps(value, lowest), highest);
    _mm_storeu_si128((__m128i*)(out + i), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__aarch64__)
  float part[4];
  for (; i + 4 <= width; i += 4) {
    for (int lane = 0; lane < 4; ++lane) part[lane] = eh_window(hu[i + lane], window);
    vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(part))));
  }
#endif
  for (; i < width; ++i) out[i] = eh_half(eh_window(hu[i], window));
}

#if defined(__x86_64__)
// Past the cache: a tensor too large to stay in it need not be read before it is written.
void stream(const void* row, void* out, size_t bytes) {
  const char* from = (const char*)row;
  char* to = (char*)out;
  for (size_t i = 0; i < bytes; i += 64) {
#if defined(__AVX512F__)
    _mm512_stream_si512((__m512i*)(to + i), _mm512_loadu_si512(from + i));
#elif defined(__AVX2__)
    for (size_t part = i; part < i + 64; part += 32)
      _mm256_stream_si256((__m256i*)(to + part), _mm256_loadu_si256((const __m256i*)(from + part)));
#else
    for (size_t part = i; part < i + 64; part += 16)
      _mm_stream_si128((__m128i*)(to + part), _mm_loadu_si128((const __m128i*)(from + part)));
#endif
  }
}
#endif

template <class Out>
void write_row(const EhJob& job, EhScratch& scratch, int plane, int row) {
  const EhPlan& p = *job.plan;
  const int64_t channel = (int64_t)p.height * p.width;
  Out* out = (Out*)job.out + (int64_t)plane * p.channels * channel + (int64_t)row * p.width;
  for (int c = 0; c < p.channels; ++c, out += channel) {
    const float window[4] = {p.window[c][0], p.window[c][1], p.window[c][2], p.window[c][3]};
#if defined(__x86_64__)
    if (job.streaming) {
      apply_window(scratch.hu, window, (Out*)scratch.value, p.width);
      stream(scratch.value, out, (size_t)p.width * sizeof(Out));
      continue;
    }
#endif
    apply_window(scratch.hu, window, out, p.width);
  }
}

}  // namespace

extern "C" void EH_ROWS(const EhJob* job, EhScratch* scratch, int plane, int from, int to) {
  const EhPlan& p = *job->plan;
  const int last = p.width - 1;
  for (int row = from; row < to; ++row) {
    const float s = eh_base(p.along, plane, row), u = eh_base(p.row, plane, row), v = eh_base(p.column, plane, row);
    // Positions are monotone along a row, so equal ends mean equal throughout.
    if (eh_at(p.along, s, 0) == eh_at(p.along, s, last) && eh_at(p.row, u, 0) == eh_at(p.row, u, last)) {
      sample_row(*job, *scratch, eh_at(p.along, s, 0), eh_at(p.row, u, 0), v);
    } else {
      for (int i = 0; i < p.width; ++i) scratch->hu[i] = eh_voxel(p, job->tables, job->pixels, plane, row, i);
    }
    if (job->dtype == EH_FLOAT32)
      write_row<float>(*job, *scratch, plane, row);
    else if (job->dtype == EH_FLOAT16)
      write_row<uint16_t>(*job, *scratch, plane, row);
    else
      write_row<int8_t>(*job, *scratch, plane, row);
  }
#if defined(__x86_64__)
  if (job->streaming) _mm_sfence();
#endif
}
