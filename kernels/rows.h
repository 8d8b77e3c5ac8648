// What native.cpp and the per-instruction-set builds of rows.cpp say to each other.
#ifndef EDGEHEM_ROWS_H
#define EDGEHEM_ROWS_H

#include <stddef.h>

#include "formulas.h"

enum EhDtype { EH_FLOAT32 = 0, EH_FLOAT16 = 1, EH_INT8 = 2 };

// One call of the pass.
struct EhJob {
  const struct EhPlan* plan;
  struct EhTables tables;
  const int16_t* pixels;  // [Z, Y, X] with the plan's strides
  void* out;              // [planes, channels, height, width], contiguous
  int dtype;
  int streaming;  // write past the cache: rows are whole cache lines, and too many to keep
};

// Where the columns of a row fall: the position of the first, and what the slice takes from it.
struct EhColumns {
  float base, offset;
};

// Which line of which slice, sampled where.
struct EhKey {
  int32_t slice, row;
  struct EhColumns columns;
};

// Not operators: those would be shared between builds for different instruction sets.
static inline bool eh_same(struct EhColumns a, struct EhColumns b) { return a.base == b.base && a.offset == b.offset; }

static inline bool eh_same(struct EhKey a, struct EhKey b) {
  return a.slice == b.slice && a.row == b.row && eh_same(a.columns, b.columns);
}

// Working memory of one thread, laid out in one allocation by eh_scratch_bytes and eh_scratch_init.
struct EhScratch {
  float* hu;                   // [width] the row in HU
  float* value;                // [width] one channel of it, in the output's type
  float* air;                  // [width]
  float* reduced;              // [reduced_columns] a line of a reduced slice
  float* lines;                // [kept_slices][kept_rows][width] such lines, sampled at the grid's columns
  EhKey* keys;                 // [kept_slices][kept_rows] what they hold
  int kept_slices, kept_rows;  // powers of two
  int32_t *lower, *upper;      // [width] column taps
  float* weight;               // [width]
  EhColumns columns;           // for which the taps were found
  bool found;
  int begin, end;  // columns inside the image
};

// Vector loads may read this many elements past what counts: every array above has room for them.
enum { EH_SLACK = 32 };

size_t eh_scratch_bytes(const struct EhPlan* plan);
void eh_scratch_init(struct EhScratch* scratch, const struct EhPlan* plan, void* memory);

// Rows [from, to) of one plane.
typedef void (*EhRows)(const struct EhJob* job, struct EhScratch* scratch, int plane, int from, int to);

extern "C" {
void eh_rows_baseline(const struct EhJob*, struct EhScratch*, int plane, int from, int to);
void eh_rows_avx2(const struct EhJob*, struct EhScratch*, int plane, int from, int to);
void eh_rows_avx512(const struct EhJob*, struct EhScratch*, int plane, int from, int to);
}

#endif  // EDGEHEM_ROWS_H
