// How tensors meet the loops of kernels.h: which fit, and their memory.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>

#include "native/common.h"
#include "native/kernels.h"

namespace torchx {

// Whether the loops take a tensor: four dimensions on the CPU, channels side by side, float32 or bfloat16.
inline bool rows_of_channels(const at::Tensor &x) {
  return x.is_cpu() && x.dim() == 4 && x.numel() > 0 && x.is_contiguous(at::MemoryFormat::ChannelsLast) &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

template <typename T>
T *data(const at::Tensor &t) {
  return t.defined() ? static_cast<T *>(t.data_ptr()) : nullptr;
}

inline at::Tensor empty_like_rows(const at::Tensor &x) { return at::empty(x.sizes(), x.options().requires_grad(false), at::MemoryFormat::ChannelsLast); }

// A gradient in the form of another tensor: autograd may hand over any layout and a broadcast one.
inline at::Tensor as_rows(const at::Tensor &g, const at::Tensor &like) {
  return g.to(like.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
}

// Calls f(type) with a null pointer of the element's type.
template <typename F>
void by_type(const at::Tensor &x, F f) {
  if (x.scalar_type() == at::kBFloat16) f(static_cast<Bf16 *>(nullptr));
  else f(static_cast<float *>(nullptr));
}

// Whether the loops over planes take it: PyTorch's layout in bfloat16, planes long enough for vectors. In float32 that
// layout keeps libtorch's operators and with them PyTorch's bits, last ones included.
inline bool planes_of_channels(const at::Tensor &x) {
  return x.is_cpu() && x.dim() == 4 && x.numel() > 0 && x.is_contiguous() && x.size(2) * x.size(3) >= 16 &&
         x.scalar_type() == at::kBFloat16;
}

// The window over x: [n,c,h,w] with a kernel.
inline Window window(at::IntArrayRef x, int64_t kernel, int64_t stride, int64_t padding) {
  return {x[1], x[2], x[3], (x[2] + 2 * padding - kernel) / stride + 1, (x[3] + 2 * padding - kernel) / stride + 1, kernel, stride, padding};
}

// Splits the rows of all images among threads: f(image, from, to). cost is that of a row, in multiplications.
template <typename F>
void each_row(int64_t images, int64_t rows, int64_t cost, F f) {
  at::parallel_for(0, images * rows, std::max<int64_t>(1, 65536 / cost), [&](int64_t from, int64_t to) {
    while (from < to) {
      int64_t n = from / rows, end = std::min(to, (n + 1) * rows);
      f(n, from - n * rows, end - n * rows);
      from = end;
    }
  });
}

// Rows worth a thread of their own.
inline int64_t row_grain(int64_t c) { return std::max<int64_t>(1, 32768 / c); }

}  // namespace torchx
