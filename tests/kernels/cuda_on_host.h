// Enough of CUDA's language for a C++ compiler to run a kernel's own source on the host, thread by thread.
//
// This executes kernel source on the host: index arithmetic, bounds and numbers. It is not a GPU test: nothing here
// knows of warps, memory spaces, alignment rules of the device or launch limits. Kernels that synchronise are out.
#ifndef CUDA_ON_HOST_H
#define CUDA_ON_HOST_H

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct HostDim3 {
  unsigned x, y, z;
};

static thread_local HostDim3 blockIdx, threadIdx, blockDim, gridDim;

// Calls kernel(arguments...) once for every thread of a one-dimensional launch.
template <class Kernel, class... Arguments>
void launch_on_host(unsigned blocks, unsigned threads, Kernel kernel, Arguments... arguments) {
  gridDim = {blocks, 1, 1};
  blockDim = {threads, 1, 1};
  for (unsigned block = 0; block < blocks; ++block)
    for (unsigned thread = 0; thread < threads; ++thread) {
      blockIdx = {block, 0, 0};
      threadIdx = {thread, 0, 0};
      kernel(arguments...);
    }
}

#endif  // CUDA_ON_HOST_H
