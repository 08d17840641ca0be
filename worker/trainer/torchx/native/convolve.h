// Convolutions that are ours, as steps of autograd.
#pragma once
#include "native/common.h"

namespace torchx {

bool autocasts();  // to bfloat16 on the CPU

// x [n,c,h,w], channels side by side, weight [c,1,k,k] float32.
at::Tensor depthwise_convolution(const at::Tensor &x, const at::Tensor &weight, int64_t stride, int64_t padding);

// x [n,ic,h,w], channels side by side, weight [oc,ic,k,k] float32, bias [oc] float32 or undefined.
bool dense_fits(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, int64_t stride, int64_t padding);
at::Tensor dense_convolution(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, int64_t stride, int64_t padding);

}  // namespace torchx
