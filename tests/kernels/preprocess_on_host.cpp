// The kernels of preprocess.cu, executed on the host with the launch that cuda.py makes.
#include "cuda_on_host.h"
#include "preprocess.cu"

static unsigned blocks(const EhPlan& plan) {
  return (unsigned)((plan.width + EH_TILE_COLUMNS - 1) / EH_TILE_COLUMNS) *
         ((plan.height + EH_TILE_ROWS - 1) / EH_TILE_ROWS) * plan.planes;
}

extern "C" int run_preprocess(const EhPlan* plan, const float* tables, const int16_t* pixels, int dtype, void* out) {
  if (plan->size != (int32_t)sizeof(EhPlan)) return -1;
  const unsigned threads = EH_LANES * EH_TILE_ROWS;
  if (dtype == 0)
    launch_on_host(blocks(*plan), threads, eh_preprocess_float32, *plan, tables, pixels, (float*)out);
  else if (dtype == 1)
    launch_on_host(blocks(*plan), threads, eh_preprocess_float16, *plan, tables, pixels, (uint16_t*)out);
  else
    launch_on_host(blocks(*plan), threads, eh_preprocess_int8, *plan, tables, pixels, (int8_t*)out);
  return 0;
}
