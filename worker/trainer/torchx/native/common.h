// What every file of torchx shares: exceptions to texts, pointers to tensors.
#pragma once
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include "torchx.h"

namespace torchx {

inline tx_error text(const char *what) {
  char *r = strdup(what);
  return r ? r : nullptr;
}

// Runs body and turns whatever it throws into a text.
template <typename F>
tx_error guard(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &e) {
    return text(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return text(e.what());
  } catch (...) {
    return text("an exception of unknown type");
  }
}

inline at::Tensor &in(tx_tensor t) {
  TORCH_CHECK(t != nullptr, "torchx: a tensor that was freed or never made");
  return *static_cast<at::Tensor *>(t);
}

// Whether a kernel, TX_DENSE.. of torchx.h, is on.
bool kernel_on(int kernel);

inline void give(tx_tensor *out, at::Tensor t) { *out = new at::Tensor(std::move(t)); }

}  // namespace torchx
