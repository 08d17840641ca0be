// Pooling to one value a channel, and the product of a tensor with one factor a channel: the two ends of squeeze and
// excitation, channels side by side.
#include <torch/csrc/autograd/custom_function.h>

#include "native/rows.h"

using namespace torchx;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Pooled [n,c,1,1] and the input itself, handed through: what comes back for it and for the pooled values is summed in
// one pass.
class PoolFunction : public torch::autograd::Function<PoolFunction> {
 public:
  static variable_list forward(AutogradContext *ctx, at::Tensor x) {
    int64_t n = x.size(0), c = x.size(1), area = x.size(2) * x.size(3);
    auto sum = at::zeros({n, 1, 1, c}, x.options().dtype(at::kFloat).requires_grad(false)).permute({0, 3, 1, 2});
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      at::parallel_for(0, n, 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++) loops<T>().row_sums(data<T>(x) + i * area * c, sum.data_ptr<float>() + i * c, area, c);
      });
    });
    ctx->saved_data["height"] = x.size(2);
    ctx->saved_data["width"] = x.size(3);
    return {sum.div_(static_cast<double>(area)).to(x.scalar_type()), x.view_as(x)};
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    double area = static_cast<double>(ctx->saved_data["height"].toInt() * ctx->saved_data["width"].toInt());
    if (!grads[0].defined()) return {grads[1]};
    auto share = grads[0].to(at::kFloat).div(area).contiguous();
    if (!grads[1].defined()) {
      auto sizes = grads[0].sizes().vec();
      sizes[2] = ctx->saved_data["height"].toInt();
      sizes[3] = ctx->saved_data["width"].toInt();
      return {share.to(grads[0].scalar_type()).expand(sizes)};
    }
    auto dy = grads[1].contiguous(at::MemoryFormat::ChannelsLast), dx = empty_like_rows(dy);
    int64_t n = dx.size(0), c = dx.size(1), rows = dx.size(2) * dx.size(3);
    by_type(dx, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      at::parallel_for(0, n, 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++)
          loops<T>().row_add(data<T>(dy) + i * rows * c, share.data_ptr<float>() + i * c, data<T>(dx) + i * rows * c, rows, c);
      });
    });
    return {dx};
  }
};

class ScaleFunction : public torch::autograd::Function<ScaleFunction> {
 public:
  static at::Tensor forward(AutogradContext *ctx, at::Tensor x, at::Tensor s) {
    int64_t n = x.size(0), c = x.size(1), area = x.size(2) * x.size(3);
    auto y = empty_like_rows(x);
    auto by = s.to(at::kFloat).contiguous();
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      at::parallel_for(0, n, 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++)
          loops<T>().scale_apply(data<T>(x) + i * area * c, by.data_ptr<float>() + i * c, data<T>(y) + i * area * c, area, c);
      });
    });
    ctx->save_for_backward({x, s});
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto &x = saved[0], &s = saved[1];
    int64_t n = x.size(0), c = x.size(1), area = x.size(2) * x.size(3);
    auto dy = as_rows(grads[0], x), dx = empty_like_rows(x);
    auto by = s.to(at::kFloat).contiguous(), ds = at::zeros(s.sizes(), by.options());
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      at::parallel_for(0, n, 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++)
          loops<T>().scale_back(data<T>(dy) + i * area * c, data<T>(x) + i * area * c, by.data_ptr<float>() + i * c,
                                data<T>(dx) + i * area * c, ds.data_ptr<float>() + i * c, area, c);
      });
    });
    return {dx, ds.to(s.scalar_type())};
  }
};

}  // namespace

extern "C" {

tx_error tx_pool_beside(tx_tensor t, tx_tensor *pooled, tx_tensor *same) {
  return guard([&] {
    auto &x = in(t);
    *pooled = *same = nullptr;
    if (!kernel_on(TX_SQUEEZE) || !rows_of_channels(x)) return;
    auto both = PoolFunction::apply(x);
    give(pooled, both[0]);
    give(same, both[1]);
  });
}

tx_error tx_scale_channels(tx_tensor t, tx_tensor factors, tx_tensor *out) {
  return guard([&] {
    auto &x = in(t);
    auto &s = in(factors);
    TORCH_CHECK(x.dim() == 4 && s.dim() == 4 && s.size(0) == x.size(0) && s.size(1) == x.size(1) && s.size(2) == 1 && s.size(3) == 1,
                "torchx: factors ", s.sizes(), " are not one for each channel of ", x.sizes());
    *out = nullptr;
    if (kernel_on(TX_SQUEEZE) && rows_of_channels(x)) give(out, ScaleFunction::apply(x, s));
  });
}

}  // extern "C"
