// Maximum pooling, channels side by side. libtorch keeps an int64 for each output to know where it came from; a byte,
// the place in the window, says the same.
#include <torch/csrc/autograd/custom_function.h>

#include "native/rows.h"

using namespace torchx;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

class MaxPoolFunction : public torch::autograd::Function<MaxPoolFunction> {
 public:
  static at::Tensor forward(AutogradContext *ctx, at::Tensor x, int64_t kernel, int64_t stride, int64_t padding) {
    Window g = window(x.sizes(), kernel, stride, padding);
    auto y = at::empty({x.size(0), g.c, g.oh, g.ow}, x.options().requires_grad(false), at::MemoryFormat::ChannelsLast);
    auto where = at::empty({x.size(0), g.oh, g.ow, g.c}, at::kByte);
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      each_row(x.size(0), g.oh, g.ow * g.c * kernel * kernel, [&](int64_t n, int64_t from, int64_t to) {
        int64_t out = n * g.oh * g.ow * g.c;
        loops<T>().max_pool(g, data<T>(x) + n * g.h * g.w * g.c, data<T>(y) + out, where.data_ptr<uint8_t>() + out, from, to);
      });
    });
    ctx->saved_data["shape"] = x.sizes().vec();
    ctx->saved_data["window"] = std::vector<int64_t>{kernel, stride, padding};
    ctx->save_for_backward({where});
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto where = ctx->get_saved_variables()[0];
    auto shape = ctx->saved_data["shape"].toIntVector(), by = ctx->saved_data["window"].toIntVector();
    Window g = window(shape, by[0], by[1], by[2]);
    auto dy = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    auto dx = at::empty(shape, dy.options(), at::MemoryFormat::ChannelsLast);
    by_type(dy, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      each_row(shape[0], g.h, g.w * g.c * 4, [&](int64_t n, int64_t from, int64_t to) {
        int64_t out = n * g.oh * g.ow * g.c;
        loops<T>().max_pool_back(g, data<T>(dy) + out, where.data_ptr<uint8_t>() + out, data<T>(dx) + n * g.h * g.w * g.c, from, to);
      });
    });
    return {dx, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

extern "C" {

tx_error tx_max_pool(tx_tensor t, int64_t kernel, int64_t stride, int64_t padding, tx_tensor *out) {
  return guard([&] {
    auto &x = in(t);
    TORCH_CHECK(kernel > 0 && stride > 0 && padding >= 0 && 2 * padding <= kernel, "torchx: no pooling with a window of ", kernel, ", stride ",
                stride, " and padding ", padding);
    bool fits = kernel <= 15 && x.dim() == 4 && x.size(2) + 2 * padding >= kernel && x.size(3) + 2 * padding >= kernel;
    *out = nullptr;
    if (kernel_on(TX_MAX_POOL) && fits && rows_of_channels(x)) give(out, MaxPoolFunction::apply(x, kernel, stride, padding));
  });
}

}  // extern "C"
