// Depthwise convolutions, channels side by side. libtorch hands them to oneDNN, whose backward for the weights has no
// kernel for many of these shapes and takes a general, slow one.
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "native/convolve.h"
#include "native/rows.h"

using namespace torchx;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// [c,1,k,k] -> [k*k, c].
at::Tensor taps_first(const at::Tensor &weight) {
  return weight.detach().to(at::kFloat).reshape({weight.size(0), -1}).t().contiguous();
}

class DepthwiseFunction : public torch::autograd::Function<DepthwiseFunction> {
 public:
  static at::Tensor forward(AutogradContext *ctx, at::Tensor x, at::Tensor weight, int64_t stride, int64_t padding) {
    auto g = window(x.sizes(), weight.size(2), stride, padding);
    auto taps = taps_first(weight);
    auto y = at::empty({x.size(0), g.c, g.oh, g.ow}, x.options().requires_grad(false), at::MemoryFormat::ChannelsLast);
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T *in = data<T>(x);
      T *out = data<T>(y);
      each_row(x.size(0), g.oh, g.ow * g.c * g.kernel * g.kernel, [&](int64_t n, int64_t from, int64_t to) {
        loops<T>().depthwise(g, in + n * g.h * g.w * g.c, taps.data_ptr<float>(), out + n * g.oh * g.ow * g.c, from, to);
      });
    });
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["padding"] = padding;
    ctx->save_for_backward({x, weight});
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto &x = saved[0], &weight = saved[1];
    auto g = window(x.sizes(), weight.size(2), ctx->saved_data["stride"].toInt(), ctx->saved_data["padding"].toInt());
    auto dy = as_rows(grads[0], x);
    at::Tensor dx, dweight;
    int64_t images = x.size(0), in_area = g.h * g.w * g.c, out_area = g.oh * g.ow * g.c, taps_size = g.kernel * g.kernel * g.c;
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T *in = data<T>(x), *d = data<T>(dy);
      if (ctx->needs_input_grad(0)) {
        dx = empty_like_rows(x);
        auto taps = taps_first(weight);
        T *out = data<T>(dx);
        each_row(images, g.h, g.w * g.c * g.kernel * g.kernel, [&](int64_t n, int64_t from, int64_t to) {
          loops<T>().depthwise_back(g, d + n * out_area, taps.data_ptr<float>(), out + n * in_area, from, to);
        });
      }
      if (ctx->needs_input_grad(1)) {
        // An image's sum, then the sum of images, then of threads: long sums of floats lose digits.
        int64_t threads = at::get_num_threads();
        auto parts = at::zeros({threads, taps_size}, at::kFloat);
        at::parallel_for(0, images, 1, [&](int64_t from, int64_t to) {
          std::vector<float> one(taps_size);
          float *all = parts.data_ptr<float>() + at::get_thread_num() * taps_size;
          for (int64_t n = from; n < to; n++) {
            std::fill(one.begin(), one.end(), 0.f);
            loops<T>().depthwise_weight(g, in + n * in_area, d + n * out_area, one.data());
            for (int64_t i = 0; i < taps_size; i++) all[i] += one[i];
          }
        });
        auto sum = threads == 1 ? parts[0] : parts.sum(0);
        auto format = weight.is_contiguous(at::MemoryFormat::Contiguous) ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
        dweight = sum.view({g.kernel * g.kernel, g.c}).t().contiguous().view(weight.sizes()).to(weight.scalar_type()).contiguous(format);
      }
    });
    return {dx, dweight, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

namespace torchx {

at::Tensor depthwise_convolution(const at::Tensor &x, const at::Tensor &weight, int64_t stride, int64_t padding) {
  return DepthwiseFunction::apply(x, weight, stride, padding);
}

}  // namespace torchx
