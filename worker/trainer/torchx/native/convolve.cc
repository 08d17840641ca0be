// Which convolutions are ours.
#include <ATen/autocast_mode.h>
#include <torch/version.h>

#include "native/convolve.h"
#include "native/rows.h"

namespace torchx {

bool autocasts() {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
  return at::autocast::is_autocast_enabled(at::kCPU);
#else
  return at::autocast::is_cpu_enabled();
#endif
}

}  // namespace torchx

using namespace torchx;

extern "C" {

tx_error tx_convolve(tx_tensor t, tx_tensor weight, tx_tensor bias, int64_t stride, int64_t padding, int64_t groups, tx_tensor *out) {
  return guard([&] {
    auto &x = in(t);
    auto &w = in(weight);
    at::Tensor b = bias ? in(bias) : at::Tensor();
    int64_t k = w.dim() == 4 ? w.size(2) : 0;
    bool square = k > 0 && w.size(3) == k && w.scalar_type() == at::kFloat && rows_of_channels(x) && stride > 0 && padding >= 0 &&
                  x.size(2) + 2 * padding >= k && x.size(3) + 2 * padding >= k;
    // Under autocast a float32 input would become bfloat16: libtorch's way then.
    bool cast = x.scalar_type() == at::kFloat && autocasts();
    *out = nullptr;
    if (!square || cast) return;
    bool depthwise = !bias && groups > 1 && w.size(0) == groups && w.size(1) == 1 && (k == 3 || k == 5 || k == 7) && x.size(1) == groups;
    if (depthwise && kernel_on(TX_DEPTHWISE)) return give(out, depthwise_convolution(x, w, stride, padding));
    if (groups == 1 && kernel_on(TX_DENSE) && dense_fits(x, w, b, stride, padding)) give(out, dense_convolution(x, w, b, stride, padding));
  });
}

}  // extern "C"
