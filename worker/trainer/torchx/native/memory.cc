// What a step takes and frees again are the same large blocks. malloc either hands them to the kernel and takes zeroed
// pages anew, which costs up to half of a step, or keeps them on a heap whose holes cost a third more memory.
//
// Here large blocks are pieces of mapped regions. Free pieces are kept, merged with their neighbours and cut to size; when
// the kernel has to be asked for more, as much of what is kept goes back, so that kept and live together stay at the most that
// was ever live at once and a little. Regions are aligned to huge pages and ask for them.
#include "native/memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include "native/common.h"

namespace torchx {

namespace {

constexpr size_t kHuge = 2 << 20;   // a huge page
constexpr size_t kLarge = 1 << 20;  // smaller blocks are malloc's
constexpr size_t kRound = 64 << 10;
constexpr size_t kSpare = 32 << 20;  // kept beyond the peak

size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

class Pool {
 public:
  void *take(size_t n) {
    if (n == 0) return nullptr;
    if (n < kLarge) {
      void *p = nullptr;
      if (posix_memalign(&p, 64, n)) refuse(n);
      std::lock_guard<std::mutex> lock(mutex_);
      grow(malloc_usable_size(p));
      return p;
    }
    size_t size = up(n, kRound);
    std::lock_guard<std::mutex> lock(mutex_);
    char *p = kept(size);
    if (!p) p = fresh(size);
    if (!p) refuse(n);
    taken_[p] = size;
    large_ += size;
    most_ = std::max(most_, large_);
    grow(size);
    trim();
    return p;
  }

  void give(void *p) {
    if (!p) return;
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = taken_.find(p);
    if (it == taken_.end()) {
      live_ -= malloc_usable_size(p);
      free(p);
      return;
    }
    live_ -= it->second;
    large_ -= it->second;
    keep(static_cast<char *>(p), it->second);
    taken_.erase(it);
  }

  Memory counts() {
    std::lock_guard<std::mutex> lock(mutex_);
    return {live_, peak_};
  }

  void from_here() {
    std::lock_guard<std::mutex> lock(mutex_);
    peak_ = live_;
  }

 private:
  [[noreturn]] static void refuse(size_t n) {
    C10_THROW_ERROR(Error, c10::str("can't allocate memory: ", n, " bytes asked for, and the system has no more"));
  }

  void grow(size_t n) {
    live_ += n;
    peak_ = std::max(peak_, live_);
  }

  // The smallest free piece that holds size, cut to it.
  char *kept(size_t size) {
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if (it->second >= size && (best == free_.end() || it->second < best->second)) best = it;
    if (best == free_.end()) return nullptr;
    char *p = best->first;
    size_t rest = best->second - size;
    free_.erase(best);
    if (rest) free_[p + size] = rest;
    free_bytes_ -= size;
    return p;
  }

  // A new region, aligned to huge pages; what is beyond size is kept.
  char *fresh(size_t size) {
    size_t whole = up(size, kHuge);
    char *p = map(whole + kHuge);
    if (!p) {
      release(free_bytes_);
      if (!(p = map(whole + kHuge))) return nullptr;
    }
    char *from = reinterpret_cast<char *>(up(reinterpret_cast<size_t>(p), kHuge)), *end = p + whole + kHuge;
    if (from > p) munmap(p, from - p);
    if (end > from + whole) munmap(from + whole, end - from - whole);
    madvise(from, whole, MADV_HUGEPAGE);
    if (whole > size) keep(from + size, whole - size);
    return from;
  }

  static char *map(size_t n) {
    void *p = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? nullptr : static_cast<char *>(p);
  }

  void keep(char *p, size_t size) {
    free_bytes_ += size;
    auto next = free_.lower_bound(p);
    if (next != free_.end() && p + size == next->first) {
      size += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      auto before = std::prev(next);
      if (before->first + before->second == p) {
        before->second += size;
        return;
      }
    }
    free_[p] = size;
  }

  void trim() {
    size_t allowed = most_ + std::max(kSpare, most_ / 32);
    if (large_ + free_bytes_ > allowed) release(large_ + free_bytes_ - allowed);
  }

  // Hands n bytes of free pieces back to the kernel, of small ones first: they serve fewest.
  void release(size_t n) {
    while (n > 0 && !free_.empty()) {
      auto least = free_.begin();
      for (auto it = free_.begin(); it != free_.end(); ++it)
        if (it->second < least->second) least = it;
      size_t part = std::min(least->second, up(n, kHuge));
      munmap(least->first + least->second - part, part);
      free_bytes_ -= part;
      n -= std::min(n, part);
      least->second -= part;
      if (least->second == 0) free_.erase(least);
    }
  }

  std::mutex mutex_;
  std::unordered_map<void *, size_t> taken_;  // large blocks
  std::map<char *, size_t> free_;             // pieces, by address
  size_t free_bytes_ = 0, large_ = 0, most_ = 0, live_ = 0, peak_ = 0;
};

Pool &pool() {
  static Pool *p = new Pool;  // never ended: tensors outlive what ends at exit
  return *p;
}

void give_back(void *p) { pool().give(p); }

// allocate is const in older versions of libtorch and not in newer ones, which also ask how to copy.
struct Allocator final : c10::Allocator {
  c10::DataPtr block(size_t n) const {
    void *p = pool().take(n);
    return {p, p, &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DataPtr allocate(size_t n) const { return block(n); }
  c10::DataPtr allocate(size_t n) { return block(n); }
  c10::DeleterFnPtr raw_deleter() const { return &give_back; }
  void copy_data(void *to, const void *from, size_t n) const { memcpy(to, from, n); }
};

}  // namespace

void own_memory() {
  static Allocator *a = new Allocator;
  c10::SetCPUAllocator(a, 255);
}

Memory memory() { return pool().counts(); }

void memory_from_here() { pool().from_here(); }

}  // namespace torchx

extern "C" {

void tx_memory(uint64_t *live, uint64_t *peak) {
  auto m = torchx::memory();
  *live = m.live;
  *peak = m.peak;
}

void tx_memory_from_here(void) { torchx::memory_from_here(); }

}  // extern "C"
