// The kernels of masks.cu, executed on the host; the caller chooses the launch.
#include "cuda_on_host.h"
#include "masks.cu"

extern "C" {

void run_eh_to_slices_nearest(unsigned blocks, unsigned threads, const EhReturn* p, const float* start,
                              const uint8_t* values, uint8_t* out) {
  launch_on_host(blocks, threads, eh_to_slices_nearest, *p, start, values, out);
}

void run_eh_to_slices_linear(unsigned blocks, unsigned threads, const EhReturn* p, const float* start,
                             const float* values, float* out) {
  launch_on_host(blocks, threads, eh_to_slices_linear, *p, start, values, out);
}

void run_eh_quantize(unsigned blocks, unsigned threads, const float* values, int8_t* out, uint32_t count,
                     float inverse_scale, int32_t* nan) {
  launch_on_host(blocks, threads, eh_quantize, values, out, count, inverse_scale, nan);
}
}
