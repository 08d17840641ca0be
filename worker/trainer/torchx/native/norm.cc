// Batch normalisation with what follows it (a factor a row, a sum, an activation) as one step of autograd.
//
// Apart, libtorch walks the tensor two to three times for the statistics and the result and once for each follower,
// and keeps an intermediate for each. Here forward reads it twice and writes once; backward reads input and gradient
// twice and writes once; kept are the convolution's output and, behind a sum, what the next layer keeps anyway.
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "native/rows.h"

using namespace torchx;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct Norm {
  double momentum, eps;
  bool training;
  int follow;
  at::Tensor running_mean, running_var, factor;  // no gradients; factor may be undefined
};

// Sums over units (rows or images), split among threads; the order of the parts is fixed for a number of threads.
template <typename F>
void sum_units(int64_t units, int64_t grain, int64_t c, std::vector<double> &sums, F f) {
  int64_t threads = at::get_num_threads();
  std::vector<double> parts(2 * c * threads, 0.);
  at::parallel_for(0, units, grain, [&](int64_t from, int64_t to) {
    double *own = parts.data() + 2 * c * at::get_thread_num();
    f(from, to, own, own + c);
  });
  sums.assign(parts.begin(), parts.begin() + 2 * c);
  for (int64_t t = 1; t < threads; t++)
    for (int64_t i = 0; i < 2 * c; i++) sums[i] += parts[2 * c * t + i];
}

// How the loops walk a tensor: over rows of channels side by side, or over images of planes.
struct Walk {
  bool planes;
  int64_t c, area, rows, units, size, grain, per_image;  // size: elements of a unit; per_image: units

  explicit Walk(const at::Tensor &x)
      : planes(!rows_of_channels(x)), c(x.size(1)), area(x.size(2) * x.size(3)), rows(x.numel() / c),
        units(planes ? x.size(0) : rows), size(planes ? c * area : c), grain(planes ? 1 : row_grain(c)), per_image(planes ? 1 : area) {}

  at::MemoryFormat format() const { return planes ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast; }
  at::Tensor like(const at::Tensor &x) const { return at::empty(x.sizes(), x.options().requires_grad(false), format()); }
};

class NormFunction : public torch::autograd::Function<NormFunction> {
 public:
  static at::Tensor forward(AutogradContext *ctx, at::Tensor x, at::Tensor weight, at::Tensor bias,
                            c10::optional<at::Tensor> shortcut, const Norm &o) {
    auto other = shortcut.value_or(at::Tensor());
    auto &factor = o.factor;
    const Walk walk(x);
    int64_t c = walk.c, rows = walk.rows;
    auto stats = at::empty({4, c}, o.running_mean.options());  // mean, 1/deviation, scale, shift
    float *mean = stats.data_ptr<float>(), *inverse = mean + c, *scale = inverse + c, *shift = scale + c;
    const float *w = weight.data_ptr<float>(), *b = bias.data_ptr<float>();
    float *rm = o.running_mean.data_ptr<float>(), *rv = o.running_var.data_ptr<float>();
    auto y = walk.like(x);
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T *in = data<T>(x);
      if (o.training) {
        std::vector<double> sums;
        // A value of each channel as pivot keeps squares from cancelling where the mean is far from zero.
        auto first = x.detach()[0].select(1, 0).select(1, 0).to(at::kFloat).contiguous();
        const float *pivot = first.data_ptr<float>();
        for (int64_t k = 0; k < c; k++) mean[k] = std::isfinite(pivot[k]) ? pivot[k] : 0;
        sum_units(walk.units, walk.grain, c, sums, [&](int64_t from, int64_t to, double *s, double *q) {
          const T *at = in + from * walk.size;
          if (walk.planes) loops<T>().plane_sums(at, to - from, c, walk.area, mean, s, q);
          else loops<T>().norm_sums(at, to - from, c, mean, s, q);
        });
        for (int64_t k = 0; k < c; k++) {
          double off = sums[k] / rows, var = sums[c + k] / rows - off * off;
          if (var < 0) var = 0;  // of rounding; a NaN stays one
          double m = mean[k] + off;
          mean[k] = static_cast<float>(m);
          inverse[k] = static_cast<float>(1 / std::sqrt(var + o.eps));
          rm[k] = static_cast<float>(o.momentum * m + (1 - o.momentum) * rm[k]);
          rv[k] = static_cast<float>(o.momentum * (var * rows / (rows - 1)) + (1 - o.momentum) * rv[k]);
        }
      } else {
        for (int64_t k = 0; k < c; k++) {
          mean[k] = rm[k];
          inverse[k] = static_cast<float>(1 / std::sqrt(static_cast<double>(rv[k]) + o.eps));
        }
      }
      for (int64_t k = 0; k < c; k++) {
        scale[k] = w[k] * inverse[k];
        shift[k] = b[k] - mean[k] * scale[k];
      }
      const T *add = data<T>(other);
      T *out = data<T>(y);
      auto apply = [&](int64_t from, int64_t to, const float *by, const float *plus) {
        int64_t at = from * walk.size;
        const T *add_at = add ? add + at : nullptr;
        if (walk.planes) loops<T>().plane_apply(o.follow, in + at, add_at, out + at, to - from, c, walk.area, by, plus);
        else loops<T>().norm_apply(o.follow, in + at, add_at, out + at, to - from, c, by, plus);
      };
      if (!factor.defined()) {
        at::parallel_for(0, walk.units, walk.grain, [&](int64_t from, int64_t to) { apply(from, to, scale, shift); });
        return;
      }
      const float *f = factor.template data_ptr<float>();
      at::parallel_for(0, x.size(0), 1, [&](int64_t from, int64_t to) {
        std::vector<float> own(2 * c);
        for (int64_t n = from; n < to; n++) {
          for (int64_t k = 0; k < 2 * c; k++) own[k] = scale[k] * f[n];  // scale and shift lie side by side
          apply(n * walk.per_image, (n + 1) * walk.per_image, own.data(), own.data() + c);
        }
      });
    });
    ctx->saved_data["training"] = o.training;
    ctx->saved_data["follow"] = static_cast<int64_t>(o.follow);
    ctx->saved_data["sum"] = other.defined();
    // Behind a sum the sign of the input no longer tells where ReLU was open: the output does.
    ctx->save_for_backward({x, stats, factor, other.defined() && o.follow == kReLU ? y : at::Tensor()});
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto &x = saved[0], &stats = saved[1], &factor = saved[2], &y = saved[3];
    bool training = ctx->saved_data["training"].toBool(), sum = ctx->saved_data["sum"].toBool();
    int follow = static_cast<int>(ctx->saved_data["follow"].toInt());
    const Walk walk(x);
    int64_t c = walk.c, rows = walk.rows;
    auto dy = grads[0].to(x.scalar_type()).contiguous(walk.format()), dx = walk.like(x);
    auto dparams = at::empty({2, c}, stats.options());
    at::Tensor dother;
    if (sum) dother = follow == kReLU ? walk.like(x) : dy;  // without an activation the gradient goes on as it is
    // By the running statistics the second pass is a product with scale, for which dz must be there.
    auto dz = sum && follow == kReLU ? dother : (follow == kSiLU || (!training && follow != kNone) ? dx : at::Tensor());
    auto table = at::empty({3, c}, stats.options());  // a, b, d of NormRows
    float *a = table.data_ptr<float>(), *b = a + c, *d = b + c;
    const float *mean = stats.data_ptr<float>(), *inverse = mean + c, *scale = inverse + c, *shift = scale + c;
    float *dweight = dparams.data_ptr<float>(), *dbias = dweight + c;
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T *in = data<T>(x), *g = data<T>(dy), *out = data<T>(y);
      T *part = data<T>(dz), *to_x = data<T>(dx);
      // Runs f over stretches that share a factor.
      auto stretches = [&](int64_t from, int64_t to, auto f) {
        if (!factor.defined()) return f(from, to, 1.f);
        const float *by = factor.template data_ptr<float>();
        while (from < to) {
          int64_t n = from / walk.per_image, end = std::min(to, (n + 1) * walk.per_image);
          f(from, end, by[n]);
          from = end;
        }
      };
      std::vector<double> sums;
      sum_units(walk.units, walk.grain, c, sums, [&](int64_t from, int64_t to, double *s, double *q) {
        stretches(from, to, [&](int64_t first, int64_t end, float by) {
          NormRows o{mean, scale, shift, a, b, d, by};
          int64_t i = first * walk.size;
          const T *out_at = out ? out + i : nullptr;
          T *part_at = part ? part + i : nullptr;
          if (walk.planes) loops<T>().plane_back_sums(follow, g + i, in + i, out_at, part_at, end - first, c, walk.area, o, s, q);
          else loops<T>().norm_back_sums(follow, g + i, in + i, out_at, part_at, end - first, c, o, s, q);
        });
      });
      for (int64_t k = 0; k < c; k++) {
        dbias[k] = static_cast<float>(sums[k]);
        dweight[k] = static_cast<float>(sums[c + k] * inverse[k]);
        a[k] = scale[k];
        b[k] = static_cast<float>(-scale[k] * sums[c + k] * inverse[k] * inverse[k] / rows);
        d[k] = static_cast<float>(-scale[k] * sums[k] / rows);
      }
      const T *second = part ? part : g;
      int left = part ? kNone : follow;
      at::parallel_for(0, walk.units, walk.grain, [&](int64_t from, int64_t to) {
        stretches(from, to, [&](int64_t first, int64_t end, float by) {
          int64_t i = first * walk.size;
          if (!training) {
            // dx = factor*dz*scale, whatever the input held: with b = 0 a NaN in it would still come through.
            std::vector<float> own(2 * c, 0);
            for (int64_t k = 0; k < c; k++) own[k] = scale[k] * by;
            if (walk.planes) loops<T>().plane_apply(kNone, second + i, nullptr, to_x + i, end - first, c, walk.area, own.data(), own.data() + c);
            else loops<T>().norm_apply(kNone, second + i, nullptr, to_x + i, end - first, c, own.data(), own.data() + c);
            return;
          }
          NormRows o{mean, scale, shift, a, b, d, by};
          if (walk.planes) loops<T>().plane_back_apply(left, second + i, in + i, to_x + i, end - first, c, walk.area, o);
          else loops<T>().norm_back_apply(left, second + i, in + i, to_x + i, end - first, c, o);
        });
      });
    });
    return {dx, dparams[0], dparams[1], dother, at::Tensor()};
  }
};

}  // namespace

extern "C" {

tx_error tx_norm(tx_tensor t, tx_tensor weight, tx_tensor bias, tx_tensor mean, tx_tensor var, tx_tensor other, tx_tensor factor,
                 int training, double momentum, double eps, int follow, tx_tensor *out) {
  return guard([&] {
    auto &x = in(t);
    auto &w = in(weight);
    at::Tensor add = other ? in(other) : at::Tensor(), by = factor ? in(factor) : at::Tensor();
    TORCH_CHECK(x.dim() == 4 && w.dim() == 1 && x.size(1) == w.size(0), "torchx: normalisation of ", w.sizes(), " channels does not fit ", x.sizes());
    TORCH_CHECK(follow >= kNone && follow <= kHardSwish, "torchx: activation ", follow, " does not follow a normalisation");
    TORCH_CHECK(!add.defined() || add.sizes() == x.sizes(), "torchx: ", add.sizes(), " cannot be added to ", x.sizes());
    bool known = rows_of_channels(x) || planes_of_channels(x);
    // Behind a sum or a factor the loops know no other activation: nobody asks for one.
    bool bare = follow == kNone || follow == kReLU;
    bool sum_known = !add.defined() || (bare && add.scalar_type() == x.scalar_type() &&
                                        (rows_of_channels(x) ? rows_of_channels(add) : planes_of_channels(add)));
    bool factor_known = !by.defined() || (bare && by.scalar_type() == at::kFloat && by.is_contiguous() && by.numel() == x.size(0));
    TORCH_CHECK(!training || x.numel() > x.size(1), "batch normalisation needs more than one value a channel in training, and has ", x.sizes());
    *out = nullptr;
    if (kernel_on(TX_NORM) && known && sum_known && factor_known && w.scalar_type() == at::kFloat) {
      c10::optional<at::Tensor> shortcut;
      if (add.defined()) shortcut = add;
      give(out, NormFunction::apply(x, w, in(bias), shortcut, Norm{momentum, eps, training != 0, follow, in(mean), in(var), by}));
    }
  });
}

}  // extern "C"
