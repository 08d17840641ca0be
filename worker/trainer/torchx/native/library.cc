// Library-wide settings, thread modes, random state.
#include <malloc.h>

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <torch/version.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "native/common.h"
#include "native/kernels.h"
#include "native/memory.h"

using namespace torchx;

namespace {

std::atomic<uint32_t> kernels_on{~0u};

at::Generator generator(const torch::Device &d) {
  if (d.is_cuda()) return at::globalContext().defaultGenerator(d);
  return at::detail::getDefaultCPUGenerator();
}

}  // namespace

bool torchx::kernel_on(int kernel) { return kernels_on >> kernel & 1; }

extern "C" {

const char *tx_version(void) { return TORCH_VERSION; }

const char *tx_instructions(void) { return kernels().name; }

void tx_use_kernels(uint32_t on) { kernels_on = on; }

void tx_free_text(char *text) { free(text); }

tx_error tx_init(void) {
  return guard([] {
    own_memory();
    // What is not a tensor (oneDNN's scratch memory) and small ones: glibc would hand each block above 128 KiB back to the
    // kernel and take fresh, zeroed pages for the next.
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 128 << 20);
    mallopt(M_TOP_PAD, 16 << 20);
  });
}

tx_error tx_set_threads(int n) {
  return guard([&] { torch::set_num_threads(n); });
}

tx_error tx_hands(int64_t *hands) {
  return guard([&] {
    std::vector<int64_t> took(at::get_num_threads(), 0);
    at::parallel_for(0, took.size(), 1, [&](int64_t from, int64_t to) { took[at::get_thread_num()] += to - from; });
    *hands = std::count_if(took.begin(), took.end(), [](int64_t n) { return n > 0; });
  });
}

int tx_has_bf16(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") ? 1 : 0;
#else
  return 0;
#endif
}

tx_error tx_device_ready(const char *device) {
  return guard([&] {
    torch::Device d(device);
    TORCH_CHECK(d.is_cpu() || d.is_cuda(), "device ", device, " is neither cpu nor cuda");
    if (d.is_cuda()) {
      TORCH_CHECK(torch::cuda::is_available(), "device ", device, " asked for, but this libtorch sees no GPU");
      TORCH_CHECK(!d.has_index() || d.index() < static_cast<int>(torch::cuda::device_count()), "device ", device,
                  " asked for, but there are only ", torch::cuda::device_count(), " GPUs");
    }
  });
}

tx_error tx_synchronize(const char *device) {
  return guard([&] {
    torch::Device d(device);
    if (d.is_cuda()) torch::cuda::synchronize(d.has_index() ? d.index() : -1);
  });
}

tx_error tx_deterministic(int on) {
  return guard([&] {
    at::globalContext().setDeterministicCuDNN(on);
    at::globalContext().setBenchmarkCuDNN(!on);
  });
}

void tx_grad_mode(int on, int *before) {
  *before = c10::GradMode::is_enabled() ? 1 : 0;
  c10::GradMode::set_enabled(on != 0);
}

tx_error tx_autocast(const char *device, int bf16, int on) {
  return guard([&] {
    bool cuda = torch::Device(device).is_cuda();
    auto type = bf16 ? at::kBFloat16 : at::kHalf;
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
    auto kind = cuda ? at::kCUDA : at::kCPU;
    at::autocast::set_autocast_dtype(kind, type);
    at::autocast::set_autocast_enabled(kind, on);
#else
    if (cuda) {
      at::autocast::set_autocast_gpu_dtype(type);
      at::autocast::set_enabled(on);
    } else {
      at::autocast::set_autocast_cpu_dtype(type);
      at::autocast::set_cpu_enabled(on);
    }
#endif
    if (!on) at::autocast::clear_cache();
  });
}

tx_error tx_seed(uint64_t seed) {
  return guard([&] { torch::manual_seed(seed); });
}

tx_error tx_rng_get(const char *device, tx_tensor *state) {
  return guard([&] {
    auto g = generator(torch::Device(device));
    std::lock_guard<std::mutex> lock(g.mutex());
    give(state, g.get_state());
  });
}

tx_error tx_rng_set(const char *device, tx_tensor state) {
  return guard([&] {
    auto g = generator(torch::Device(device));
    std::lock_guard<std::mutex> lock(g.mutex());
    g.set_state(in(state));
  });
}

}  // extern "C"
