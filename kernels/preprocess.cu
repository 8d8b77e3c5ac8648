// The fused pass on a GPU: raw int16 slices to windowed channels on the model's grid, in one launch.
//
// One thread makes all channels of four voxels of a row, 32 columns apart, so that what a row shares is laid out once
// and consecutive threads still take consecutive columns: stored pixels are read (two at a time where two make one) and
// channels are written in runs of whole memory sectors, and a stored pixel that several voxels need comes from the
// cache. Blocks are numbered along one dimension, which has room for any grid. The caller launches ceil(width / 128) *
// ceil(height / 8) * planes blocks of 256 threads (cuda.py does).
#include "formulas.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

#define EH_LANES 32
#define EH_EACH 4  // voxels of a thread, in one row
#define EH_TILE_COLUMNS (EH_LANES * EH_EACH)
#define EH_TILE_ROWS 8

static __device__ __forceinline__ void eh_store(float* out, float value) { *out = value; }

static __device__ __forceinline__ void eh_store(uint16_t* out, float value) {
#if defined(__CUDA_ARCH__)
  *out = __half_as_ushort(__float2half_rn(value));
#else
  *out = eh_half(value);
#endif
}

static __device__ __forceinline__ void eh_store(int8_t* out, float value) { *out = (int8_t)(int)eh_round(value); }

// One thread makes EH_EACH voxels of a row, EH_LANES columns apart: what a row shares is laid out once.
template <class Out>
static __device__ __forceinline__ void eh_preprocess_voxels(const EhPlan& plan, const float* __restrict__ tables,
                                                            const int16_t* __restrict__ pixels, Out* __restrict__ out) {
  const EhTables t = eh_tables(tables, plan.slices);
  const unsigned across = (unsigned)(plan.width + EH_TILE_COLUMNS - 1) / EH_TILE_COLUMNS;
  const unsigned down = (unsigned)(plan.height + EH_TILE_ROWS - 1) / EH_TILE_ROWS;
  const unsigned tile = blockIdx.x / across;
  const int i = (int)(blockIdx.x % across * EH_TILE_COLUMNS + threadIdx.x % EH_LANES);
  const int j = (int)(tile % down * EH_TILE_ROWS + threadIdx.x / EH_LANES);
  const int k = (int)(tile / down);
  if (i >= plan.width || j >= plan.height || k >= plan.planes) return;
  float hu[EH_EACH];
  if (plan.along[3] == 0.0f && plan.row[3] == 0.0f) {  // then columns make no difference to slice and row
    const float base = eh_base(plan.column, k, j);
    const float s = eh_at(plan.along, eh_base(plan.along, k, j), i), u = eh_at(plan.row, eh_base(plan.row, k, j), i);
    float v[EH_EACH];
    for (int n = 0; n < EH_EACH; ++n) v[n] = eh_at(plan.column, base, i + n * EH_LANES);
    const int reader = eh_reader(plan);
    const bool masked = plan.padding_low <= plan.padding_high;
    if (reader == EH_PAIRS && !masked)
      eh_voxels<EH_EACH, EH_PAIRS, false>(plan, t, pixels, s, u, v, hu);
    else if (reader == EH_PAIRS)
      eh_voxels<EH_EACH, EH_PAIRS, true>(plan, t, pixels, s, u, v, hu);
    else if (reader == EH_WHOLE)
      eh_voxels<EH_EACH, EH_WHOLE, true>(plan, t, pixels, s, u, v, hu);
    else
      eh_voxels<EH_EACH, EH_ANY, true>(plan, t, pixels, s, u, v, hu);
  } else {
    EH_ROLLED for (int n = 0; n < EH_EACH; ++n) hu[n] =
        eh_voxel_read<EH_ANY, true>(plan, t, pixels, k, j, i + n * EH_LANES);
  }
  const int64_t channel = (int64_t)plan.height * plan.width;
  Out* at = out + (int64_t)k * plan.channels * channel + (int64_t)j * plan.width + i;
  EH_ROLLED for (int c = 0; c < plan.channels; ++c, at += channel) for (int n = 0; n < EH_EACH;
                                                                        ++n) if (i + n * EH_LANES < plan.width)
      eh_store(at + n * EH_LANES, eh_window(hu[n], plan.window[c]));
}

extern "C" __global__ void __launch_bounds__(256)
    eh_preprocess_float32(const EhPlan plan, const float* tables, const int16_t* pixels, float* out) {
  eh_preprocess_voxels(plan, tables, pixels, out);
}

extern "C" __global__ void __launch_bounds__(256)
    eh_preprocess_float16(const EhPlan plan, const float* tables, const int16_t* pixels, uint16_t* out) {
  eh_preprocess_voxels(plan, tables, pixels, out);
}

extern "C" __global__ void __launch_bounds__(256)
    eh_preprocess_int8(const EhPlan plan, const float* tables, const int16_t* pixels, int8_t* out) {
  eh_preprocess_voxels(plan, tables, pixels, out);
}
