// Backward, and optimisers that touch each parameter once.
//
// PyTorch's eager SGD walks weight, gradient and momentum in three to four passes and Adam in about ten. Here one loop
// reads and writes each value once; libtorch's TensorIterator splits it over libtorch's own threads and follows any
// layout, so that channels_last weights need no copy. Tensors that are not float32 on the CPU take the operator path, as all
// do where the kernel is off.
#include <ATen/TensorIterator.h>
#include <torch/csrc/autograd/autograd.h>

#include "native/common.h"

using namespace torchx;

namespace {

// Two versions of each loop, chosen by the CPU at load time. Contraction into fused multiply-add is off in both, so
// that a run gives the same bits on machines with and without AVX2.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TX_HOT __attribute__((target_clones("avx2", "default"), optimize("O3", "fp-contract=off")))
#else
#define TX_HOT
#endif

struct Sgd {
  float lr, momentum, decay;
};

TX_HOT void sgd_loop(float *__restrict p, const float *__restrict g, int64_t n, Sgd o) {
  for (int64_t i = 0; i < n; i++) p[i] -= o.lr * (g[i] + o.decay * p[i]);
}

TX_HOT void sgd_momentum_loop(float *__restrict p, float *__restrict m, const float *__restrict g, int64_t n, Sgd o) {
  for (int64_t i = 0; i < n; i++) {
    float v = o.momentum * m[i] + (g[i] + o.decay * p[i]);
    m[i] = v;
    p[i] -= o.lr * v;
  }
}

TX_HOT void sgd_nesterov_loop(float *__restrict p, float *__restrict m, const float *__restrict g, int64_t n, Sgd o) {
  for (int64_t i = 0; i < n; i++) {
    float d = g[i] + o.decay * p[i];
    float v = o.momentum * m[i] + d;
    m[i] = v;
    p[i] -= o.lr * (d + o.momentum * v);
  }
}

struct Adam {
  float beta1, beta2, rest1, rest2, decay, keep, eps, step_size, root2;
};

TX_HOT void adam_loop(float *__restrict p, float *__restrict a, float *__restrict b, const float *__restrict g, int64_t n,
                      Adam o) {
  for (int64_t i = 0; i < n; i++) {
    float q = p[i] * o.keep;
    float d = g[i] + o.decay * q;
    float x = o.beta1 * a[i] + o.rest1 * d;
    float y = o.beta2 * b[i] + o.rest2 * d * d;
    a[i] = x;
    b[i] = y;
    p[i] = q - o.step_size * x / (__builtin_sqrtf(y) / o.root2 + o.eps);
  }
}

struct Rms {
  float lr, alpha, rest, eps, momentum, decay;
};

TX_HOT void rmsprop_loop(float *__restrict p, float *__restrict s, const float *__restrict g, int64_t n, Rms o) {
  for (int64_t i = 0; i < n; i++) {
    float d = g[i] + o.decay * p[i];
    float y = o.alpha * s[i] + o.rest * d * d;
    s[i] = y;
    p[i] -= o.lr * d / (__builtin_sqrtf(y) + o.eps);
  }
}

TX_HOT void rmsprop_momentum_loop(float *__restrict p, float *__restrict s, float *__restrict m, const float *__restrict g,
                                  int64_t n, Rms o) {
  for (int64_t i = 0; i < n; i++) {
    float d = g[i] + o.decay * p[i];
    float y = o.alpha * s[i] + o.rest * d * d;
    float v = o.momentum * m[i] + d / (__builtin_sqrtf(y) + o.eps);
    s[i] = y;
    m[i] = v;
    p[i] -= o.lr * v;
  }
}

constexpr int64_t kGrain = 32768;

at::TensorIteratorConfig &base(at::TensorIteratorConfig &c) {
  return c.set_check_mem_overlap(false).check_all_same_dtype(true).resize_outputs(false);
}

// Calls loop on stretches of consecutive floats; values that do not lie side by side come one at a time.
template <typename F>
void each(at::TensorIterator iter, int operands, F loop) {
  iter.for_each(
      [&](char **data, const int64_t *strides, int64_t n) {
        bool dense = true;
        for (int k = 0; k < operands; k++) dense = dense && strides[k] == sizeof(float);
        if (dense) {
          loop(data, n);
          return;
        }
        char *at[4];
        for (int64_t i = 0; i < n; i++) {
          for (int k = 0; k < operands; k++) at[k] = data[k] + i * strides[k];
          loop(at, 1);
        }
      },
      kGrain);
}

bool plain(const at::Tensor &p, const at::Tensor &g) {
  return kernel_on(TX_OPTIMIZER) && p.is_cpu() && p.scalar_type() == at::kFloat && g.scalar_type() == at::kFloat && !g.is_sparse();
}

float *f(char *p) { return reinterpret_cast<float *>(p); }

std::vector<at::Tensor> grad_norms(tx_tensor *params, int n) {
  std::vector<at::Tensor> norms;
  for (int i = 0; i < n; i++) {
    auto g = in(params[i]).grad();
    if (g.defined()) norms.push_back(g.detach().norm());
  }
  return norms;
}

}  // namespace

extern "C" {

tx_error tx_backward(tx_tensor loss) {
  return guard([&] { in(loss).backward(); });
}

tx_error tx_grad(tx_tensor t, tx_tensor *out) {
  return guard([&] {
    *out = nullptr;
    if (in(t).grad().defined()) give(out, in(t).grad());
  });
}

tx_error tx_grad_of(tx_tensor score, tx_tensor at, tx_tensor *out) {
  return guard([&] {
    auto g = torch::autograd::grad({in(score)}, {in(at)}, {}, /*retain_graph=*/true, /*create_graph=*/false);
    give(out, g.at(0));
  });
}

tx_error tx_drop_grads(tx_tensor *params, int n) {
  return guard([&] {
    for (int i = 0; i < n; i++) in(params[i]).mutable_grad() = at::Tensor();
  });
}

tx_error tx_backward_scaled(tx_tensor loss, double by) {
  return guard([&] { in(loss).backward(torch::full_like(in(loss), by)); });
}

tx_error tx_sgd_step(tx_tensor *params, tx_tensor *momenta, int n, double lr, double momentum, int nesterov, double weight_decay) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    Sgd o{static_cast<float>(lr), static_cast<float>(momentum), static_cast<float>(weight_decay)};
    for (int i = 0; i < n; i++) {
      auto g = in(params[i]).grad();
      if (!g.defined()) continue;
      auto p = in(params[i]).detach();
      if (!plain(p, g)) {
        if (weight_decay != 0) g = g.add(p, weight_decay);
        if (momenta) {
          auto &m = in(momenta[i]).mul_(momentum).add_(g);
          g = nesterov ? g.add(m, momentum) : m;
        }
        p.add_(g, -lr);
        continue;
      }
      at::TensorIteratorConfig c;
      base(c).add_output(p);
      if (!momenta) {
        each(c.add_input(g).build(), 2, [&](char **d, int64_t k) { sgd_loop(f(d[0]), f(d[1]), k, o); });
      } else {
        auto loop = nesterov ? sgd_nesterov_loop : sgd_momentum_loop;
        each(c.add_output(in(momenta[i])).add_input(g).build(), 3,
             [&](char **d, int64_t k) { loop(f(d[0]), f(d[1]), f(d[2]), k, o); });
      }
    }
  });
}

tx_error tx_adam_step(tx_tensor *params, tx_tensor *first, tx_tensor *second, int n, int64_t step, double lr, double beta1,
                      double beta2, double eps, double weight_decay, int decoupled) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    double bias1 = 1 - std::pow(beta1, step), root2 = std::sqrt(1 - std::pow(beta2, step));
    double keep = decoupled ? 1 - lr * weight_decay : 1, decay = decoupled ? 0 : weight_decay;
    Adam o{static_cast<float>(beta1),     static_cast<float>(beta2),
           static_cast<float>(1 - beta1), static_cast<float>(1 - beta2),
           static_cast<float>(decay),     static_cast<float>(keep),
           static_cast<float>(eps),       static_cast<float>(lr / bias1),
           static_cast<float>(root2)};
    for (int i = 0; i < n; i++) {
      auto g = in(params[i]).grad();
      if (!g.defined()) continue;
      auto p = in(params[i]).detach();
      auto &a = in(first[i]);
      auto &b = in(second[i]);
      if (!plain(p, g)) {
        if (keep != 1) p.mul_(keep);
        if (decay != 0) g = g.add(p, decay);
        a.mul_(beta1).add_(g, 1 - beta1);
        b.mul_(beta2).addcmul_(g, g, 1 - beta2);
        p.addcdiv_(a, b.sqrt().div_(root2).add_(eps), -lr / bias1);
        continue;
      }
      at::TensorIteratorConfig c;
      each(base(c).add_output(p).add_output(a).add_output(b).add_input(g).build(), 4,
           [&](char **d, int64_t k) { adam_loop(f(d[0]), f(d[1]), f(d[2]), f(d[3]), k, o); });
    }
  });
}

tx_error tx_rmsprop_step(tx_tensor *params, tx_tensor *squares, tx_tensor *momenta, int n, double lr, double alpha, double eps,
                         double momentum, double weight_decay) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    Rms o{static_cast<float>(lr),  static_cast<float>(alpha),    static_cast<float>(1 - alpha),
          static_cast<float>(eps), static_cast<float>(momentum), static_cast<float>(weight_decay)};
    for (int i = 0; i < n; i++) {
      auto g = in(params[i]).grad();
      if (!g.defined()) continue;
      auto p = in(params[i]).detach();
      auto &s = in(squares[i]);
      if (!plain(p, g)) {
        if (weight_decay != 0) g = g.add(p, weight_decay);
        s.mul_(alpha).addcmul_(g, g, 1 - alpha);
        auto root = s.sqrt().add_(eps);
        if (momenta) {
          p.add_(in(momenta[i]).mul_(momentum).addcdiv_(g, root), -lr);
        } else {
          p.addcdiv_(g, root, -lr);
        }
        continue;
      }
      at::TensorIteratorConfig c;
      base(c).add_output(p).add_output(s);
      if (momenta) {
        each(c.add_output(in(momenta[i])).add_input(g).build(), 4,
             [&](char **d, int64_t k) { rmsprop_momentum_loop(f(d[0]), f(d[1]), f(d[2]), f(d[3]), k, o); });
      } else {
        each(c.add_input(g).build(), 3, [&](char **d, int64_t k) { rmsprop_loop(f(d[0]), f(d[1]), f(d[2]), k, o); });
      }
    }
  });
}

tx_error tx_clip_grads(tx_tensor *params, int n, double max_norm) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    auto norms = grad_norms(params, n);
    if (norms.empty()) return;
    auto by = (max_norm / (torch::stack(norms).norm() + 1e-6)).clamp_max(1.0);  // no value read: a GPU need not be waited for
    for (int i = 0; i < n; i++) {
      if (in(params[i]).grad().defined()) in(params[i]).grad().detach().mul_(by);
    }
  });
}

tx_error tx_unscale_grads(tx_tensor *params, int n, double by, int *finite) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    for (int i = 0; i < n; i++) {
      if (in(params[i]).grad().defined()) in(params[i]).grad().detach().mul_(by);
    }
    auto norms = grad_norms(params, n);
    *finite = norms.empty() || torch::isfinite(torch::stack(norms)).all().item<bool>();
  });
}

tx_error tx_mix(tx_tensor a, tx_tensor b, double share, tx_tensor *out) {
  return guard([&] { give(out, torch::lerp(in(b), in(a), share)); });
}

tx_error tx_average(tx_tensor *averages, tx_tensor *values, int n, double decay) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    for (int i = 0; i < n; i++) in(averages[i]).lerp_(in(values[i]).detach(), 1 - decay);
  });
}

tx_error tx_copy(tx_tensor *to, tx_tensor *from, int n) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    for (int i = 0; i < n; i++) in(to[i]).detach().copy_(in(from[i]).detach());
  });
}

tx_error tx_swap(tx_tensor *a, tx_tensor *b, int n) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    for (int i = 0; i < n; i++) {
      TORCH_CHECK(in(a[i]).sizes() == in(b[i]).sizes(), "swap of tensors of other shapes");
      auto kept = in(a[i]).detach();
      in(a[i]).set_data(in(b[i]).detach());
      in(b[i]).set_data(kept);
    }
  });
}

}  // extern "C"
