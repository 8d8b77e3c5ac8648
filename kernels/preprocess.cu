// The fused pass on a GPU: raw int16 slices to windowed channels on the model's grid, in one launch.
//
// One thread makes all channels of one voxel. Consecutive threads take consecutive columns, so stored pixels are read
// (two at a time where two make one) and channels are written in runs of whole memory sectors, and a stored pixel
// that several voxels need comes from the cache. Blocks are numbered along one dimension, which has room for any grid.
// The caller launches ceil(width / 32) * ceil(height / 8) * planes blocks of 256 threads (cuda.py does).
#include "formulas.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

#define EH_TILE_COLUMNS 32
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

template <class Out>
static __device__ __forceinline__ void eh_preprocess_voxel(const EhPlan& plan, const float* __restrict__ tables,
                                                           const int16_t* __restrict__ pixels, Out* __restrict__ out) {
  const unsigned across = (unsigned)(plan.width + EH_TILE_COLUMNS - 1) / EH_TILE_COLUMNS;
  const unsigned down = (unsigned)(plan.height + EH_TILE_ROWS - 1) / EH_TILE_ROWS;
  const unsigned tile = blockIdx.x / across;
  const int i = (int)(blockIdx.x % across * EH_TILE_COLUMNS + threadIdx.x % EH_TILE_COLUMNS);
  const int j = (int)(tile % down * EH_TILE_ROWS + threadIdx.x / EH_TILE_COLUMNS);
  const int k = (int)(tile / down);
  if (i >= plan.width || j >= plan.height || k >= plan.planes) return;
  const float hu = eh_voxel(plan, eh_tables(tables, plan.slices), pixels, k, j, i);
  const int64_t channel = (int64_t)plan.height * plan.width;
  Out* at = out + (int64_t)k * plan.channels * channel + (int64_t)j * plan.width + i;
  for (int c = 0; c < plan.channels; ++c, at += channel) eh_store(at, eh_window(hu, plan.window[c]));
}

extern "C" __global__ void __launch_bounds__(256)
    eh_preprocess_float32(const EhPlan plan, const float* tables, const int16_t* pixels, float* out) {
  eh_preprocess_voxel(plan, tables, pixels, out);
}

extern "C" __global__ void __launch_bounds__(256)
    eh_preprocess_float16(const EhPlan plan, const float* tables, const int16_t* pixels, uint16_t* out) {
  eh_preprocess_voxel(plan, tables, pixels, out);
}

extern "C" __global__ void __launch_bounds__(256)
    eh_preprocess_int8(const EhPlan plan, const float* tables, const int16_t* pixels, int8_t* out) {
  eh_preprocess_voxel(plan, tables, pixels, out);
}
