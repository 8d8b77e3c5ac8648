// The helper kernels on CPU threads: connected components, back to the acquired slices, quantisation, nearest pixels.
//
// A plain C interface for ctypes (masks.py). Threads live for one call. Every function returns 0 or a negative code
// (native.py has the words) and writes nothing beyond its outputs.
#include "masks.h"

#include <pthread.h>
#include <stdlib.h>

// One stack and one grid in float64, as masks_oracle.nearest reads them; masks.py mirrors the layout.
struct EhNearest {
  int32_t size;  // sizeof(EhNearest) as the caller knows it
  int32_t slices, rows, columns;
  int32_t planes, height, width;
  int32_t padding_low, padding_high;  // low > high: no padding
  int32_t reserved;
  int64_t slice_stride, row_stride;  // of the stored pixels, in elements; columns are adjacent
  double origin[3], spacing[3];      // of the grid along x, y, z, mm
  double normal[3], down[3], right[3];
  double row_mm, column_mm;
  double lowest, highest;  // where the stack begins and ends along its normal, mm
};

namespace {

enum { OK = 0, HAS_NAN = 1, BAD_LAYOUT = -1, BAD_SIZES = -2, OUT_OF_MEMORY = -3 };
enum { MAX_THREADS = 256, BLOCK_ROWS = 32, BLOCK_VALUES = 1 << 16 };

bool countable(int64_t planes, int64_t rows, int64_t columns) {
  if (planes < 0 || rows < 0 || columns < 0) return false;
  if (planes == 0 || rows == 0 || columns == 0) return true;
  return planes * rows < INT32_MAX && planes * rows * columns < INT32_MAX;
}

// Threads

struct Crew {
  void (*unit)(const void* job, int64_t index, void* scratch);
  const void* job;
  size_t scratch;  // bytes each thread works in, or 0
  int64_t next, units;
};

void* labour(void* argument) {
  Crew* crew = (Crew*)argument;
  void* scratch = crew->scratch ? malloc(crew->scratch) : NULL;
  if (crew->scratch && !scratch) return NULL;  // the others do its share
  for (;;) {
    const int64_t index = __atomic_fetch_add(&crew->next, 1, __ATOMIC_RELAXED);
    if (index >= crew->units) break;
    crew->unit(crew->job, index, scratch);
  }
  free(scratch);
  return NULL;
}

int run(Crew* crew, int threads) {
  crew->next = 0;
  if (threads > crew->units) threads = (int)crew->units;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  pthread_t started[MAX_THREADS];
  int count = 0;
  // Fewer threads than asked for is slower, not wrong.
  while (count < threads - 1 && pthread_create(&started[count], NULL, labour, crew) == 0) ++count;
  labour(crew);
  for (int i = 0; i < count; ++i) pthread_join(started[i], NULL);
  return crew->next >= crew->units ? OK : OUT_OF_MEMORY;
}

// Connected components: union-find over the runs of set voxels in each row. A run's parent is never a later run, so
// that the first run of a component, which holds its first voxel, ends up as its root.

struct EhRun {
  int32_t begin, end;  // columns, half open
};

struct EhRuns {
  EhRun* run;
  int32_t* parent;
  int32_t* first;  // [rows + 1] a row's first run
  int64_t count, room;
};

uint64_t eight(const uint8_t* at) {
  uint64_t word;
  memcpy(&word, at, 8);
  return word;
}

bool all_set(uint64_t word) {
  const uint64_t ones = 0x0101010101010101u, tops = ones << 7;
  return ((word - ones) & ~word & tops) == 0;  // no byte is zero
}

int push(EhRuns* runs, int begin, int end) {
  if (runs->count == runs->room) {
    runs->room += runs->room / 2 + 4096;
    EhRun* more = (EhRun*)realloc(runs->run, (size_t)runs->room * sizeof(EhRun));
    if (!more) return OUT_OF_MEMORY;
    runs->run = more;
  }
  runs->run[runs->count].begin = begin;
  runs->run[runs->count].end = end;
  ++runs->count;
  return OK;
}

int scan(EhRuns* runs, const uint8_t* row, int width) {
  for (int x = 0;;) {
    while (width - x >= 8 && eight(row + x) == 0) x += 8;
    while (x < width && !row[x]) ++x;
    if (x == width) return OK;
    const int begin = x;
    while (width - x >= 8 && all_set(eight(row + x))) x += 8;
    while (x < width && row[x]) ++x;
    if (push(runs, begin, x)) return OUT_OF_MEMORY;
  }
}

int32_t root(int32_t* parent, int32_t run) {
  while (parent[run] != run) run = parent[run] = parent[parent[run]];
  return run;
}

void join(int32_t* parent, int32_t a, int32_t b) {
  if (parent[a] == parent[b]) return;
  a = root(parent, a);
  b = root(parent, b);
  if (a < b)
    parent[b] = a;
  else
    parent[a] = b;
}

// Joins the runs of two rows that touch: with reach 0 those that share a column, with reach 1 diagonal ones too.
void meet(EhRuns* runs, int64_t row, int64_t other, int reach) {
  const EhRun* run = runs->run;
  int32_t a = runs->first[row], b = runs->first[other];
  const int32_t end_a = runs->first[row + 1], end_b = runs->first[other + 1];
  while (a < end_a && b < end_b) {
    if (run[a].begin < run[b].end + reach && run[b].begin < run[a].end + reach) join(runs->parent, a, b);
    // Between two runs of a row is a gap, so the one that ends first touches nothing further.
    if (run[a].end < run[b].end)
      ++a;
    else
      ++b;
  }
}

// Replaces each parent by the component's number, negated.
int32_t number(EhRuns* runs) {
  int32_t count = 0;
  for (int64_t i = 0; i < runs->count; ++i) {
    const int32_t parent = runs->parent[i];
    runs->parent[i] = parent == i ? -++count : runs->parent[parent];
  }
  return count;
}

int components(EhRuns* runs, const uint8_t* mask, int planes, int height, int width, int connectivity, int32_t* labels,
               int32_t* count) {
  const int64_t rows = (int64_t)planes * height;
  runs->first = (int32_t*)malloc((size_t)(rows + 1) * sizeof(int32_t));
  if (!runs->first) return OUT_OF_MEMORY;
  for (int64_t row = 0; row < rows; ++row) {
    runs->first[row] = (int32_t)runs->count;
    if (scan(runs, mask + row * width, width)) return OUT_OF_MEMORY;
  }
  runs->first[rows] = (int32_t)runs->count;
  runs->parent = (int32_t*)malloc((size_t)(runs->count + 1) * sizeof(int32_t));
  if (!runs->parent) return OUT_OF_MEMORY;
  for (int64_t i = 0; i < runs->count; ++i) runs->parent[i] = (int32_t)i;
  const int beside = connectivity > 6, corner = connectivity > 18;
  for (int64_t row = 0; row < rows; ++row) {
    if (runs->first[row] == runs->first[row + 1]) continue;
    const int64_t y = row % height;
    if (y > 0) meet(runs, row, row - 1, beside);
    if (row < height) continue;
    meet(runs, row, row - height, beside);
    if (beside && y > 0) meet(runs, row, row - height - 1, corner);
    if (beside && y + 1 < height) meet(runs, row, row - height + 1, corner);
  }
  *count = number(runs);
  for (int64_t row = 0; row < rows; ++row)
    for (int32_t i = runs->first[row]; i < runs->first[row + 1]; ++i) {
      int32_t* line = labels + row * width;
      const int32_t value = -runs->parent[i];
      for (int x = runs->run[i].begin; x < runs->run[i].end; ++x) line[x] = value;
    }
  return OK;
}

// Back to the slices. Where all pixels of a row lie on the same line of the grid, as in every stack that is not rotated
// about the patient's axes, that line is blended once and its columns are looked up in a table.

struct Return {
  const EhReturn* p;
  const float* start;
  const uint8_t* marks;  // nearest
  const float* shares;   // linear
  void* out;
};

struct Columns {
  EhTap* tap;      // [columns]
  float* line;     // [width]
  float base;      // the table holds for this position
  int begin, end;  // columns inside the grid
  int filled;
};

size_t return_scratch(const EhReturn& p) {
  return sizeof(Columns) + (size_t)p.columns * sizeof(EhTap) + (size_t)p.width * sizeof(float);
}

void find_columns(const EhReturn& p, Columns* columns, float base) {
  if (columns->filled && columns->base == base) return;
  for (int i = 0; i < p.columns; ++i) columns->tap[i] = eh_tap(eh_return_at(p, base, i, 2), p.width);
  // Positions rise or fall along a row, so what lies inside is one run.
  columns->begin = 0;
  columns->end = p.columns;
  while (columns->begin < columns->end && !columns->tap[columns->begin].inside) ++columns->begin;
  while (columns->end > columns->begin && !columns->tap[columns->end - 1].inside) --columns->end;
  columns->base = base;
  columns->filled = 1;
}

void straight_row(const Return& job, Columns* columns, EhTap z, EhTap y, float base, int64_t at) {
  const EhReturn& p = *job.p;
  find_columns(p, columns, base);
  const int begin = columns->begin, end = columns->end;
  const EhTap* tap = columns->tap;
  if (job.marks) {
    const uint8_t* line = job.marks + eh_line(p, eh_nearer(z), eh_nearer(y));
    uint8_t* out = (uint8_t*)job.out + at;
    for (int i = begin; i < end; ++i) out[i] = line[eh_nearer(tap[i])];
  } else {
    float* out = (float*)job.out + at;
    float* __restrict__ line = columns->line;
    for (int x = 0; x < p.width; ++x) line[x] = eh_between(p, job.shares, z, y, x);
    for (int i = begin; i < end; ++i) out[i] = eh_lerp(line[tap[i].lower], line[tap[i].upper], tap[i].weight);
  }
}

void return_row(const Return& job, Columns* columns, int slice, int row) {
  const EhReturn& p = *job.p;
  const int last = p.columns - 1;
  const int64_t at = ((int64_t)slice * p.rows + row) * p.columns;
  const size_t item = job.marks ? 1 : sizeof(float);
  float base[3];
  for (int axis = 0; axis < 3; ++axis) base[axis] = eh_return_base(p, job.start, slice, row, axis);
  const float z = eh_return_at(p, base[0], 0, 0), y = eh_return_at(p, base[1], 0, 1);
  if (z == eh_return_at(p, base[0], last, 0) && y == eh_return_at(p, base[1], last, 1)) {
    const EhTap plane = eh_tap(z, p.planes), line = eh_tap(y, p.height);
    memset((char*)job.out + at * item, 0, p.columns * item);
    if (plane.inside && line.inside) straight_row(job, columns, plane, line, base[2], at);
    return;
  }
  for (int i = 0; i < p.columns; ++i) {
    const EhTap taps[3] = {eh_tap(eh_return_at(p, base[0], i, 0), p.planes),
                           eh_tap(eh_return_at(p, base[1], i, 1), p.height),
                           eh_tap(eh_return_at(p, base[2], i, 2), p.width)};
    if (job.marks)
      ((uint8_t*)job.out)[at + i] = eh_return_nearest(p, job.marks, taps[0], taps[1], taps[2]);
    else
      ((float*)job.out)[at + i] = eh_return_linear(p, job.shares, taps[0], taps[1], taps[2]);
  }
}

void return_block(const void* argument, int64_t index, void* scratch) {
  const Return& job = *(const Return*)argument;
  const EhReturn& p = *job.p;
  Columns* columns = (Columns*)scratch;
  columns->tap = (EhTap*)(columns + 1);
  columns->line = (float*)(columns->tap + p.columns);
  columns->filled = 0;
  const int64_t rows = (int64_t)p.slices * p.rows, from = index * BLOCK_ROWS;
  const int64_t to = from + BLOCK_ROWS < rows ? from + BLOCK_ROWS : rows;
  for (int64_t row = from; row < to; ++row) return_row(job, columns, (int)(row / p.rows), (int)(row % p.rows));
}

int to_slices(const EhReturn* p, const float* start, const uint8_t* marks, const float* shares, void* out,
              int threads) {
  if (p->size != (int32_t)sizeof(EhReturn)) return BAD_LAYOUT;
  if (!countable(p->slices, p->rows, p->columns) || !countable(p->planes, p->height, p->width)) return BAD_SIZES;
  if (p->slices == 0 || p->rows == 0 || p->columns == 0) return OK;
  if (p->planes == 0 || p->height == 0 || p->width == 0) return BAD_SIZES;
  const Return job = {p, start, marks, shares, out};
  const int64_t rows = (int64_t)p->slices * p->rows;
  Crew crew = {return_block, &job, return_scratch(*p), 0, (rows + BLOCK_ROWS - 1) / BLOCK_ROWS};
  return run(&crew, threads);
}

// Quantisation

struct Quantize {
  const float* values;
  int8_t* out;
  int64_t count;
  float inverse_scale;
  int* nan;
};

void quantize_block(const void* argument, int64_t index, void*) {
  const Quantize& job = *(const Quantize*)argument;
  const int64_t from = index * BLOCK_VALUES, left = job.count - from;
  const float* __restrict__ values = job.values + from;
  int8_t* __restrict__ out = job.out + from;
  const float inverse_scale = job.inverse_scale;
  const int count = left < BLOCK_VALUES ? (int)left : (int)BLOCK_VALUES;
  int nan = 0;
  for (int i = 0; i < count; ++i) {
    nan |= values[i] != values[i];
    out[i] = eh_quantum(values[i], inverse_scale);
  }
  if (nan) __atomic_store_n(job.nan, 1, __ATOMIC_RELAXED);
}

// Nearest pixels, in float64

struct Nearest {
  const EhNearest* p;
  const double *middles, *first_row, *first_column;
  const float *slope, *intercept;
  const int16_t* pixels;
  float* out;
};

double along(const double axis[3], double x, double y, double z) { return (x * axis[0] + y * axis[1]) + z * axis[2]; }

// Half to even; positions far outside stay outside.
int64_t rounded(double position, int size) {
  const double shift = 6755399441055744.0, high = (double)size + 1.0;  // 1.5 * 2^52
  position = position > -2.0 ? position : -2.0;
  position = position < high ? position : high;
  return (int64_t)((position + shift) - shift);
}

void nearest_plane(const void* argument, int64_t plane, void*) {
  const Nearest& job = *(const Nearest*)argument;
  const EhNearest& p = *job.p;
  const double z = p.origin[2] + (double)plane * p.spacing[2];
  float* out = job.out + plane * p.height * p.width;
  int slice = 0;
  for (int j = 0; j < p.height; ++j) {
    const double y = p.origin[1] + (double)j * p.spacing[1];
    for (int i = 0; i < p.width; ++i, ++out) {
      const double x = p.origin[0] + (double)i * p.spacing[0];
      const double s = along(p.normal, x, y, z);
      *out = EH_AIR_HU;
      if (!(s > p.lowest && s < p.highest)) continue;
      // The slices whose upper middle lies below s come first; neighbouring voxels seldom differ.
      while (slice < p.slices - 1 && job.middles[slice] < s) ++slice;
      while (slice > 0 && !(job.middles[slice - 1] < s)) --slice;
      const int64_t r = rounded((along(p.down, x, y, z) - job.first_row[slice]) / p.row_mm, p.rows);
      const int64_t c = rounded((along(p.right, x, y, z) - job.first_column[slice]) / p.column_mm, p.columns);
      if (r < 0 || r >= p.rows || c < 0 || c >= p.columns) continue;
      const int stored = job.pixels[slice * p.slice_stride + r * p.row_stride + c];
      if (stored >= p.padding_low && stored <= p.padding_high) continue;
      *out = (float)stored * job.slope[slice] + job.intercept[slice];
    }
  }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// mask, labels [planes, height, width]; any byte but 0 is set. The caller hands over labels zeroed.
int eh_label(const uint8_t* mask, int planes, int height, int width, int connectivity, int32_t* labels,
             int32_t* count) {
  *count = 0;
  if (!countable(planes, height, width)) return BAD_SIZES;
  if (connectivity != 6 && connectivity != 18 && connectivity != 26) return BAD_SIZES;
  if (planes == 0 || height == 0 || width == 0) return OK;
  EhRuns runs = {NULL, NULL, NULL, 0, 0};
  const int code = components(&runs, mask, planes, height, width, connectivity, labels, count);
  free(runs.run);
  free(runs.parent);
  free(runs.first);
  return code;
}

// values [planes, height, width], start [slices, 3] -> out [slices, rows, columns]
int eh_to_slices_nearest(const EhReturn* p, const float* start, const uint8_t* values, uint8_t* out, int threads) {
  return to_slices(p, start, values, NULL, out, threads);
}

int eh_to_slices_linear(const EhReturn* p, const float* start, const float* values, float* out, int threads) {
  return to_slices(p, start, NULL, values, out, threads);
}

// Returns 1 if a value is NaN.
int eh_quantize(const float* values, int8_t* out, int64_t count, float inverse_scale, int threads) {
  if (count < 0) return BAD_SIZES;
  int nan = 0;
  const Quantize job = {values, out, count, inverse_scale, &nan};
  Crew crew = {quantize_block, &job, 0, 0, (count + BLOCK_VALUES - 1) / BLOCK_VALUES};
  const int code = run(&crew, threads);
  return code == OK && nan ? HAS_NAN : code;
}

// middles [slices - 1], first_row, first_column, slope, intercept [slices] -> out [planes, height, width]
int eh_nearest(const EhNearest* p, const double* middles, const double* first_row, const double* first_column,
               const float* slope, const float* intercept, const int16_t* pixels, float* out, int threads) {
  if (p->size != (int32_t)sizeof(EhNearest)) return BAD_LAYOUT;
  if (p->slices < 1 || p->rows < 1 || p->columns < 1 || !countable(p->planes, p->height, p->width)) return BAD_SIZES;
  const Nearest job = {p, middles, first_row, first_column, slope, intercept, pixels, out};
  Crew crew = {nearest_plane, &job, 0, 0, p->planes};
  return run(&crew, threads);
}
}
#pragma GCC visibility pop
