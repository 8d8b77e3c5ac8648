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

// Working memory of one thread, laid out in one allocation by eh_scratch_bytes and eh_scratch_init.
struct EhScratch {
  int32_t *lower, *upper;  // [width] column taps
  float* weight;           // [width]
  float *sum, *sample;     // [width] HU of the row, and of one slice's contribution
  float* line;             // [max(reduced_columns, width) + EH_SLACK] between two rows of one slice; a row of halves
  float* cache;            // [slots][reduced_columns + EH_SLACK] reduced rows in HU
  int64_t* key;            // [slots] which row a slot holds
  int slots;
  // The taps hold for this position of the row's first column and this slice offset.
  float base, offset;
  int begin, end;  // columns inside the image
  int filled;
};

// Vector loads may read this many elements past what counts.
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
