// Dense convolutions as matrix products over images (kernels.h, Products).
//
// A tile of a product holds several images at one place of the picture, so padding is left out exactly and small pictures
// with many channels, where oneDNN's kernels are far from what the CPU can do, run as fast as large ones. Weights are
// packed from float32 straight into what the product reads, and the weight's gradient comes in float32 and in the weight's layout:
// no cast, no reordering.
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "native/convolve.h"
#include "native/rows.h"

using namespace torchx;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct Dense {
  int64_t n, ic, ih, iw, oc, oh, ow, kernel, stride, padding;

  Dense(const at::Tensor &x, const at::Tensor &w, int64_t s, int64_t p)
      : n(x.size(0)), ic(x.size(1)), ih(x.size(2)), iw(x.size(3)), oc(w.size(0)), oh((ih + 2 * p - w.size(2)) / s + 1),
        ow((iw + 2 * p - w.size(2)) / s + 1), kernel(w.size(2)), stride(s), padding(p) {}
  int64_t taps() const { return kernel * kernel; }
};

struct Panels {
  at::Tensor memory;
  int32_t *at;
  explicit Panels(int64_t units) : memory(at::empty({units}, at::kInt)), at(memory.data_ptr<int32_t>()) {}
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The height of tiles that covers n rows with the fewest computed in vain; of equals the tallest. From 8 rows on a tile
// keeps the multipliers busy.
int64_t tile_height(int64_t n, int64_t tallest) {
  int64_t best = 0, least = 0;
  for (int64_t h = std::min<int64_t>(n, tallest); h >= std::min<int64_t>(n, 8); h--) {
    int64_t rows = ceil_div(n, h) * h;
    if (!best || rows < least) best = h, least = rows;
  }
  return best;
}

// One place of the picture read: its number and the tap that meets it there.
struct Meeting {
  int64_t place, tap;
};

// to[n, places_to, c_to] = from[n, places_from, c_from] times weights. pack(column, panels) packs those of 32 columns, a panel
// a tap; meetings(place) are what a place reads.
template <typename T, typename G, typename F>
void through(const T *from, int64_t n, int64_t places_from, int64_t c_from, int64_t taps, T *to, int64_t places_to, int64_t c_to,
             const float *bias, G pack, F meetings) {
  using P = Products<T>;
  auto &p = *products<T>();
  int64_t units = ceil_div(c_from, P::per), height = tile_height(n, P::tallest), blocks = ceil_div(n, height);
  Panels packed(places_from * blocks * units * height);
  at::parallel_for(0, places_from * blocks, ceil_div(65536, height * c_from), [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) {
      int64_t place = i / blocks, image = i % blocks * height;
      p.pack_rows(from + (image * places_from + place) * c_from, places_from * c_from, std::min(height, n - image), c_from, height,
                  packed.at + i * units * height);
    }
  });
  int64_t groups = ceil_div(c_to, P::columns);
  at::parallel_for(0, groups * places_to, 1, [&](int64_t first, int64_t end) {
    std::vector<Meeting> read;
    std::vector<Stretch> stretches;
    Panels weights(taps * units * P::columns);  // a group's stay in the second cache while it is worked on
    for (int64_t i = first; i < end; i++) {
      int64_t group = i / places_to, place = i % places_to, column = group * P::columns;
      if (i == first || place == 0) pack(column, weights.at);
      read.clear();
      meetings(place, read);
      for (int64_t b = 0; b < blocks; b++) {
        stretches.clear();
        for (auto &m : read)
          stretches.push_back({packed.at + (m.place * blocks + b) * units * height, weights.at + m.tap * units * P::columns, units});
        int64_t image = b * height;
        p.values(height, stretches.data(), stretches.size(), to + (image * places_to + place) * c_to + column, places_to * c_to,
                 std::min(height, n - image), std::min(c_to - column, P::columns), bias ? bias + column : nullptr, false);
      }
    }
  });
}

template <typename T>
void dense_forward(const Dense &d, const T *x, const float *w, const float *bias, T *y) {
  using P = Products<T>;
  int64_t units = ceil_div(d.ic, P::per), taps = d.taps();
  auto pack = [&](int64_t column, int32_t *panels) {
    for (int64_t tap = 0; tap < taps; tap++)
      products<T>()->pack_weight_rows(w + (column * taps + tap) * d.ic, taps * d.ic, std::min(P::columns, d.oc - column), d.ic, P::columns,
                                      panels + tap * units * P::columns);
  };
  through(x, d.n, d.ih * d.iw, d.ic, taps, y, d.oh * d.ow, d.oc, bias, pack, [&](int64_t place, std::vector<Meeting> &read) {
    int64_t top = place / d.ow * d.stride - d.padding, left = place % d.ow * d.stride - d.padding;
    for (int64_t kh = 0; kh < d.kernel; kh++)
      for (int64_t kw = 0; kw < d.kernel; kw++)
        if (top + kh >= 0 && top + kh < d.ih && left + kw >= 0 && left + kw < d.iw)
          read.push_back({(top + kh) * d.iw + left + kw, kh * d.kernel + kw});
  });
}

template <typename T>
void dense_back(const Dense &d, const T *dy, const float *w, T *dx) {
  using P = Products<T>;
  int64_t units = ceil_div(d.oc, P::per), taps = d.taps();
  auto pack = [&](int64_t column, int32_t *panels) {
    for (int64_t tap = 0; tap < taps; tap++)
      products<T>()->pack_weight_pairs(w + tap * d.ic + column, taps * d.ic, d.oc, std::min(P::columns, d.ic - column), P::columns,
                                       panels + tap * units * P::columns);
  };
  through(dy, d.n, d.oh * d.ow, d.oc, taps, dx, d.ih * d.iw, d.ic, nullptr, pack, [&](int64_t place, std::vector<Meeting> &read) {
    int64_t down = place / d.iw + d.padding, right = place % d.iw + d.padding;
    for (int64_t kh = 0; kh < d.kernel; kh++)
      for (int64_t kw = 0; kw < d.kernel; kw++) {
        int64_t h = down - kh, v = right - kw;
        if (h < 0 || v < 0 || h % d.stride || v % d.stride || h / d.stride >= d.oh || v / d.stride >= d.ow) continue;
        read.push_back({h / d.stride * d.ow + v / d.stride, kh * d.kernel + kw});
      }
  });
}

template <typename T>
void dense_weight(const Dense &d, const T *x, const T *dy, float *dw) {
  using P = Products<T>;
  auto &p = *products<T>();
  int64_t units = ceil_div(d.n, P::per), height = tile_height(d.oc, P::tallest), taps = d.taps();
  int64_t rights = ceil_div(d.ic, P::columns), lefts = ceil_div(d.oc, height), in = d.ih * d.iw, out = d.oh * d.ow;
  Panels left(lefts * out * units * height), right(rights * in * units * P::columns);
  at::parallel_for(0, out, ceil_div(32768, d.n * d.oc), [&](int64_t first, int64_t end) {
    for (int64_t place = first; place < end; place++)
      for (int64_t i = 0; i < lefts; i++)
        p.pack_pairs(dy + place * d.oc + i * height, out * d.oc, d.n, std::min(height, d.oc - i * height), height,
                     left.at + (i * out + place) * units * height);
  });
  at::parallel_for(0, in, ceil_div(32768, d.n * d.ic), [&](int64_t first, int64_t end) {
    for (int64_t place = first; place < end; place++)
      for (int64_t i = 0; i < rights; i++)
        p.pack_pairs(x + place * d.ic + i * P::columns, in * d.ic, d.n, std::min(P::columns, d.ic - i * P::columns), P::columns,
                     right.at + (i * in + place) * units * P::columns);
  });
  // Rows of the result's picture whose part of a right panel stays in the second cache.
  int64_t deep = std::max<int64_t>(1, 49152 / (d.iw * d.stride * units * P::columns));
  auto multiply = [&](int64_t l, int64_t r, int64_t tap, int64_t row, std::vector<Stretch> &stretches) {
    int64_t kh = tap / d.kernel - d.padding, kw = tap % d.kernel - d.padding;
    stretches.clear();
    for (int64_t h = row; h < std::min(d.oh, row + deep); h++) {
      int64_t from_h = h * d.stride + kh;
      if (from_h < 0 || from_h >= d.ih) continue;
      for (int64_t v = 0; v < d.ow; v++) {
        int64_t from_v = v * d.stride + kw;
        if (from_v < 0 || from_v >= d.iw) continue;
        Stretch s{left.at + (l * out + h * d.ow + v) * units * height, right.at + (r * in + from_h * d.iw + from_v) * units * P::columns, units};
        if (!stretches.empty()) {
          auto &e = stretches.back();
          if (e.a + e.units * height == s.a && e.b + e.units * P::columns == s.b) {
            e.units += units;
            continue;
          }
        }
        stretches.push_back(s);
      }
    }
    p.floats(height, stretches.data(), stretches.size(), dw + (l * height * taps + tap) * d.ic + r * P::columns, taps * d.ic,
             std::min(height, d.oc - l * height), std::min(P::columns, d.ic - r * P::columns), nullptr, row > 0);
  };
  if (deep >= d.oh) {  // the result is larger than what it is made of: written from end to end
    at::parallel_for(0, lefts, 1, [&](int64_t first, int64_t end) {
      std::vector<Stretch> stretches;
      for (int64_t l = first; l < end; l++)
        for (int64_t tap = 0; tap < taps; tap++)
          for (int64_t r = 0; r < rights; r++) multiply(l, r, tap, 0, stretches);
    });
    return;
  }
  at::parallel_for(0, rights * lefts, 1, [&](int64_t first, int64_t end) {
    std::vector<Stretch> stretches;
    while (first < end) {
      int64_t r = first / lefts, stop = std::min(end, (r + 1) * lefts);
      for (int64_t row = 0; row < d.oh; row += deep)
        for (int64_t tap = 0; tap < taps; tap++)
          for (int64_t i = first; i < stop; i++) multiply(i % lefts, r, tap, row, stretches);
      first = stop;
    }
  });
}

// Which of the three products are ours. Measured against oneDNN 2.6 (BENCHMARKS.md): on large pictures its kernels need no
// packing and win; the weight's gradient is theirs last. The shape alone decides, so that a run repeats its bits.
struct Ours {
  bool through, weight;

  explicit Ours(const Dense &d) : through(d.ih * d.iw <= (d.kernel > 1 ? 64 : 16)), weight(through || (d.kernel > 1 && d.ih * d.iw <= 256)) {}
};

at::Tensor in_type(const at::Tensor &w, const at::Tensor &x) { return w.detach().to(x.scalar_type()); }

class DenseFunction : public torch::autograd::Function<DenseFunction> {
 public:
  static at::Tensor forward(AutogradContext *ctx, at::Tensor x, at::Tensor weight, c10::optional<at::Tensor> bias, int64_t stride, int64_t padding) {
    const Dense d(x, weight, stride, padding);
    at::Tensor y;
    if (Ours(d).through) {
      y = at::empty({d.n, d.oc, d.oh, d.ow}, x.options().requires_grad(false), at::MemoryFormat::ChannelsLast);
      by_type(x, [&](auto *type) {
        using T = std::remove_pointer_t<decltype(type)>;
        dense_forward<T>(d, data<T>(x), weight.data_ptr<float>(), bias ? bias->data_ptr<float>() : nullptr, data<T>(y));
      });
    } else {
      c10::optional<at::Tensor> b;
      if (bias) b = in_type(*bias, x);
      y = at::conv2d(x.detach(), in_type(weight, x), b, {stride, stride}, {padding, padding});
    }
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["padding"] = padding;
    ctx->saved_data["bias"] = bias.has_value();
    ctx->save_for_backward({x, weight});
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto &x = saved[0], &weight = saved[1];
    int64_t stride = ctx->saved_data["stride"].toInt(), padding = ctx->saved_data["padding"].toInt();
    const Dense d(x, weight, stride, padding);
    auto dy = as_rows(grads[0], x);
    const Ours mine(d);
    bool wants_x = ctx->needs_input_grad(0), wants_weight = ctx->needs_input_grad(1);
    at::Tensor dx, dweight, dbias;
    by_type(x, [&](auto *type) {
      using T = std::remove_pointer_t<decltype(type)>;
      if (wants_x && mine.through) {
        dx = empty_like_rows(x);
        dense_back<T>(d, data<T>(dy), weight.data_ptr<float>(), data<T>(dx));
      }
      if (wants_weight && mine.weight) {
        dweight = at::empty_like(weight, weight.options().requires_grad(false));
        dense_weight<T>(d, data<T>(x), data<T>(dy), dweight.template data_ptr<float>());
      }
    });
    bool rest_x = wants_x && !mine.through, rest_weight = wants_weight && !mine.weight;
    if (rest_x || rest_weight) {
      auto rest = at::convolution_backward(dy, x, in_type(weight, x), c10::nullopt, {stride, stride}, {padding, padding}, {1, 1}, false, {0, 0}, 1,
                                           {rest_x, rest_weight, false});
      if (rest_x) dx = std::get<0>(rest);
      if (rest_weight) dweight = std::get<1>(rest).to(weight.scalar_type());
    }
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) dbias = at::sum(dy, {0, 2, 3}, false, at::kFloat);
    return {dx, dweight, dbias, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

namespace torchx {

bool dense_fits(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, int64_t stride, int64_t padding) {
  bool known = x.scalar_type() == at::kBFloat16 ? products<Bf16>() != nullptr : products<float>() != nullptr;
  if (!known || weight.size(1) != x.size(1) || !weight.is_contiguous(at::MemoryFormat::ChannelsLast)) return false;
  if (bias.defined() && !(bias.scalar_type() == at::kFloat && bias.is_contiguous() && bias.numel() == weight.size(0))) return false;
  const Dense d(x, weight, stride, padding);
  return d.n >= 8 && d.ic >= 16 && d.oc >= 16 && Ours(d).weight;
}

at::Tensor dense_convolution(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, int64_t stride, int64_t padding) {
  c10::optional<at::Tensor> b;
  if (bias.defined()) b = bias;
  return DenseFunction::apply(x, weight, b, stride, padding);
}

}  // namespace torchx
