// Layers that gotorch lacks: activations, stochastic depth.
#include "native/common.h"

using namespace torchx;

extern "C" {

tx_error tx_activate(tx_tensor t, int kind, tx_tensor *out) {
  return guard([&] {
    auto &x = in(t);
    switch (kind) {
      // SiLU and hardswish need their input in backward: in place they would copy it first, so a new tensor costs
      // the same memory and one pass less.
      case TX_SILU: return give(out, at::silu(x));
      case TX_HARDSWISH: return give(out, at::hardswish(x));
      // These need their output only, or are tiny.
      // libtorch 1.13 has no backward of relu6 in bfloat16 on the CPU.
      case TX_RELU6: return give(out, x.is_cpu() && x.scalar_type() == at::kBFloat16 ? at::clamp(x, 0, 6) : at::relu6_(x));
      case TX_HARDSIGMOID: return give(out, at::hardsigmoid_(x));
    }
    TORCH_CHECK(false, "torchx: no activation ", kind);
  });
}

tx_error tx_depth_factors(tx_tensor t, double p, tx_tensor *out) {
  return guard([&] {
    auto &x = in(t);
    TORCH_CHECK(p >= 0 && p <= 1, "torchx: probability ", p, " of dropping a row is not in 0..1");
    auto kept = at::empty({x.size(0)}, x.options().dtype(at::kFloat).requires_grad(false)).bernoulli_(1 - p);
    if (p < 1) kept.div_(1 - p);
    give(out, kept);
  });
}

}  // extern "C"
