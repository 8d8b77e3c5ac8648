// Helper kernels on a GPU: back from the grid to the acquired slices, and quantisation. One thread an element, in C
// order; threads beyond the end return. The formulas are those of masks.h.
#include "masks.h"

namespace {

struct EhPixel {
  int slice, row, column, inside;
  struct EhTap tap[3];
};

// Where element `index` of [slices, rows, columns] lies on the grid.
__device__ EhPixel eh_pixel_of(const EhReturn& p, const float* start, uint32_t index) {
  EhPixel pixel;
  const uint32_t line = index / (uint32_t)p.columns;
  pixel.slice = (int)(line / (uint32_t)p.rows);
  pixel.inside = pixel.slice < p.slices;
  if (!pixel.inside) return pixel;
  pixel.row = (int)(line % (uint32_t)p.rows);
  pixel.column = (int)(index % (uint32_t)p.columns);
  const int sizes[3] = {p.planes, p.height, p.width};
  for (int axis = 0; axis < 3; ++axis) {
    const float base = eh_return_base(p, start, pixel.slice, pixel.row, axis);
    pixel.tap[axis] = eh_tap(eh_return_at(p, base, pixel.column, axis), sizes[axis]);
  }
  return pixel;
}

}  // namespace

extern "C" {

// values [planes, height, width] -> out [slices, rows, columns]
__global__ void eh_to_slices_nearest(EhReturn p, const float* start, const uint8_t* values, uint8_t* out) {
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  const EhPixel pixel = eh_pixel_of(p, start, index);
  if (pixel.inside) out[index] = eh_return_nearest(p, values, pixel.tap[0], pixel.tap[1], pixel.tap[2]);
}

__global__ void eh_to_slices_linear(EhReturn p, const float* start, const float* values, float* out) {
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  const EhPixel pixel = eh_pixel_of(p, start, index);
  if (pixel.inside) out[index] = eh_return_linear(p, values, pixel.tap[0], pixel.tap[1], pixel.tap[2]);
}

// `nan` is set to 1 where a value is NaN; the caller zeroes it before and looks at it afterwards.
__global__ void eh_quantize(const float* values, int8_t* out, uint32_t count, float inverse_scale, int32_t* nan) {
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= count) return;
  const float value = values[index];
  if (value != value) *nan = 1;
  out[index] = eh_quantum(value, inverse_scale);
}
}
