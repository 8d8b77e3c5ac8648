// The native twin's C interface: the pass on CPU threads, with the best instruction set the machine has.
//
// Threads live for one call: no pool that a fork would break, and at a few milliseconds a study their start is noise.
#include <pthread.h>
#include <stdlib.h>

#include "rows.h"

namespace {

// A unit of work is a band of rows through a run of planes: neighbouring planes read the same slices, so what one plane
// brought into the cache the next one finds there.
enum { BAND_ROWS = 16, RUN_PLANES = 8, MAX_THREADS = 256 };

// A tensor from this size on leaves the cache before it is read, so it is written past it.
enum : size_t { STREAMED_BYTES = 4u << 20 };

enum { OK = 0, BAD_LAYOUT = -1, BAD_SIZES = -2, OUT_OF_MEMORY = -3 };

struct Shared {
  EhJob job;
  EhRows rows;
  int64_t next, units;
  int bands;
};

struct Choice {
  EhRows rows;
  const char* name;
};

Choice choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return {eh_rows_avx512, "avx512"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2"))
    return {eh_rows_avx2, "avx2"};
#endif
  return {eh_rows_baseline, "baseline"};
}

void* work(void* argument) {
  Shared* shared = (Shared*)argument;
  const EhPlan& p = *shared->job.plan;
  void* memory = malloc(eh_scratch_bytes(&p));
  if (!memory) return NULL;
  EhScratch scratch;
  eh_scratch_init(&scratch, &p, memory);
  for (;;) {
    const int64_t unit = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED);
    if (unit >= shared->units) break;
    const int from = (int)(unit % shared->bands) * BAND_ROWS, first = (int)(unit / shared->bands) * RUN_PLANES;
    const int to = from + BAND_ROWS < p.height ? from + BAND_ROWS : p.height;
    const int last = first + RUN_PLANES < p.planes ? first + RUN_PLANES : p.planes;
    for (int plane = first; plane < last; ++plane) shared->rows(&shared->job, &scratch, plane, from, to);
  }
  free(memory);
  return NULL;
}

bool sane(const EhPlan& p) {
  const bool sizes = p.slices > 0 && p.rows > 0 && p.columns > 0 && p.factor > 0 && p.factor <= EH_MAX_FACTOR &&
                     p.planes >= 0 && p.height >= 0 && p.width >= 0 && p.channels >= 0 && p.channels <= EH_MAX_WINDOWS;
  return sizes && p.reduced_rows > 0 && p.reduced_columns > 0 && (int64_t)p.reduced_rows * p.factor <= p.rows &&
         (int64_t)p.reduced_columns * p.factor <= p.columns;
}

// How many slices and rows of lines a thread keeps.
void kept(const EhPlan& p, int* slices, int* rows) {
  // All slices that a voxel can touch; beyond that lines are made again.
  const float touched = p.share != 0.0f ? 2.0f * p.half_extent * p.mean_inverse_gap + 2.0f : 2.0f;
  *slices = 2;
  while (*slices < 64 && (float)*slices < touched) *slices *= 2;
  // With few slices, also all rows of a band for the next plane, which shares one of its slices with this one.
  *rows = *slices <= 4 ? 2 * BAND_ROWS : 2;
}

struct Lengths {
  size_t width, line, lines;
};

Lengths lengths(const EhPlan& p) {
  int slices, rows;
  kept(p, &slices, &rows);
  return {(size_t)p.width + EH_SLACK, (size_t)p.reduced_columns + EH_SLACK, (size_t)slices * rows};
}

}  // namespace

size_t eh_scratch_bytes(const EhPlan* plan) {
  const Lengths n = lengths(*plan);
  return n.lines * (sizeof(EhKey) + n.width * sizeof(float)) + (n.line + 6 * n.width) * sizeof(float);
}

void eh_scratch_init(EhScratch* scratch, const EhPlan* plan, void* memory) {
  const Lengths n = lengths(*plan);
  // What lies past a line's end is read by vector loads and never counts, but must be there and be a number.
  memset(memory, 0, eh_scratch_bytes(plan));
  kept(*plan, &scratch->kept_slices, &scratch->kept_rows);
  scratch->keys = (EhKey*)memory;
  for (size_t i = 0; i < n.lines; ++i) scratch->keys[i].slice = -1;
  float* at = (float*)(scratch->keys + n.lines);
  scratch->lines = at, at += n.lines * n.width;
  scratch->reduced = at, at += n.line;
  scratch->hu = at, at += n.width;
  scratch->value = at, at += n.width;
  scratch->air = at, at += n.width;
  scratch->weight = at, at += n.width;
  scratch->lower = (int32_t*)at, at += n.width;
  scratch->upper = (int32_t*)at;
  for (int i = 0; i < plan->width; ++i) scratch->air[i] = EH_AIR_HU;
  scratch->found = false;
}

extern "C" {

int eh_abi(void) { return EH_ABI; }

// Hash of the sources this library was built from.
const char* eh_source(void) {
#if defined(EH_SOURCE)
  return EH_SOURCE;
#else
  return "";
#endif
}

const char* eh_isa(void) { return choose().name; }

// The instruction sets built in, for tests and comparisons: 0, 1, ... until NULL; those the machine lacks are left out.
const char* eh_isa_at(int index) {
  const char* best = choose().name;
  static const char* const all[] = {"baseline", "avx2", "avx512"};
  for (int i = 0; i < 3; ++i) {
    if (i == index) return all[i];
    if (strcmp(all[i], best) == 0) break;
  }
  return NULL;
}

// The whole pass. `isa` NULL takes the best. Returns 0, or a negative code (native.py has the words).
int eh_preprocess(const EhPlan* plan, const float* tables, const int16_t* pixels, int dtype, void* out, int threads,
                  const char* isa) {
  if (plan->size != (int32_t)sizeof(EhPlan)) return BAD_LAYOUT;
  if (!sane(*plan) || dtype < EH_FLOAT32 || dtype > EH_INT8) return BAD_SIZES;
  if (plan->planes == 0 || plan->height == 0 || plan->width == 0 || plan->channels == 0) return OK;
  Shared shared;
  shared.job.plan = plan;
  shared.job.tables = eh_tables(tables, plan->slices);
  shared.job.pixels = pixels;
  shared.job.out = out;
  shared.job.dtype = dtype;
  shared.rows = choose().rows;
#if defined(__x86_64__)
  if (isa && strcmp(isa, "avx2") == 0) shared.rows = eh_rows_avx2;
#endif
  if (isa && strcmp(isa, "baseline") == 0) shared.rows = eh_rows_baseline;
  static const size_t bytes[] = {4, 2, 1};
  const size_t row = (size_t)plan->width * bytes[dtype];
  const size_t total = row * (size_t)plan->height * (size_t)plan->channels * (size_t)plan->planes;
  shared.job.streaming = total >= STREAMED_BYTES && ((uintptr_t)out | row) % 64 == 0;
  shared.next = 0;
  shared.bands = (plan->height + BAND_ROWS - 1) / BAND_ROWS;
  shared.units = (int64_t)shared.bands * ((plan->planes + RUN_PLANES - 1) / RUN_PLANES);

  if (threads > shared.units) threads = (int)shared.units;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  pthread_t started[MAX_THREADS];
  int count = 0;
  // Fewer threads than asked for is slower, not wrong.
  while (count < threads - 1 && pthread_create(&started[count], NULL, work, &shared) == 0) ++count;
  work(&shared);
  for (int i = 0; i < count; ++i) pthread_join(started[i], NULL);
  // A thread without memory leaves its share to the others; only if none had any is work left.
  return shared.next >= shared.units ? OK : OUT_OF_MEMORY;
}
}
