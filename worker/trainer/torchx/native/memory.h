// Memory of tensors on the CPU: an allocator that keeps what a training step frees for the next step, in huge pages.
#pragma once
#include <cstdint>

namespace torchx {

// Makes it libtorch's. Tensors made before go back to where they came from.
void own_memory();

struct Memory {
  uint64_t live, peak;  // bytes held by tensors, now and at most
};

Memory memory();
void memory_from_here();  // the peak is that from here on

}  // namespace torchx
