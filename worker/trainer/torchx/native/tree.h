// The fixed binary tree over a step's shards: node (level, i) is of the leaves [i*2^level, (i+1)*2^level) of those present; it
// is left + right, or left alone where the right one has no leaf. The worker's group room has the same tree between members.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "native/kernels.h"

namespace torchx {

// The sums that a member has of the leaves it went through so far, greatest whole nodes, in the order of the leaves: a
// binary counter. A slot of memory goes with each.
class TreeStack {
 public:
  void begin(int64_t present) {
    present_ = present;
    nodes_.clear();
  }

  int size() const { return static_cast<int>(nodes_.size()); }

  // How many of the last sums the next leaf is added to; the result is in the first of them, in a new one if 0.
  int merges(int64_t leaf) const { return size() - climb(leaf).second; }

  void push(int64_t leaf) {
    auto [node, under] = climb(leaf);
    nodes_.resize(under);
    nodes_.push_back(node);
  }

 private:
  struct Node {
    int level;
    int64_t i;
  };

  // The greatest node that a leaf completes, and how many sums are left below it.
  std::pair<Node, int> climb(int64_t leaf) const {
    Node at{0, leaf};
    int under = size();
    while ((int64_t{1} << at.level) < present_) {
      if (at.i % 2 == 0) {
        if ((at.i + 1) << at.level < present_) break;  // its right one is still to come
      } else {
        if (under == 0 || nodes_[under - 1].level != at.level || nodes_[under - 1].i != at.i - 1) break;
        under--;
      }
      at = {at.level + 1, at.i / 2};
    }
    return {at, under};
  }

  int64_t present_ = 0;
  std::vector<Node> nodes_;
};

constexpr int64_t kSumBlock = 2048;  // floats: a few of them stay in the first cache

// slots[0] = slots[0] + (slots[1] + .. (slots[merges-1] + leaf)), or leaf if merges is 0. leaf NULL is zeros.
inline void fold_leaf(float *const *slots, int merges, const float *leaf, int64_t n) {
  static const float zeros[kSumBlock] = {};
  float carried[kSumBlock];
  auto add = kernels().add;
  for (int64_t k = 0; k < n; k += kSumBlock) {
    int64_t part = std::min(kSumBlock, n - k);
    const float *right = leaf ? leaf + k : zeros;
    for (int m = merges; m-- > 0; right = carried) add(slots[m] + k, right, m == 0 ? slots[0] + k : carried, part);
    if (merges == 0) memcpy(slots[0] + k, right, part * sizeof(float));
  }
}

// Carries out in[to] += in[from] for each pair of the program, then out = in[0]; in stays as it is. Every input is read once
// and out written once: the sums between are blocks in the cache.
inline void run_sums(float *out, const float *const *in, int inputs, const int32_t *program, int merges, int64_t n) {
  auto add = kernels().add;
  std::vector<float> scratch(inputs * kSumBlock);
  std::vector<const float *> at(inputs);
  for (int64_t k = 0; k < n; k += kSumBlock) {
    int64_t part = std::min(kSumBlock, n - k);
    for (int i = 0; i < inputs; i++) at[i] = in[i] + k;
    for (int m = 0; m < merges; m++) {
      int to = program[2 * m], from = program[2 * m + 1];
      float *sum = scratch.data() + to * kSumBlock;
      add(at[to], at[from], m == merges - 1 && to == 0 ? out + k : sum, part);
      at[to] = sum;
    }
    if (merges == 0 || program[2 * (merges - 1)] != 0) memcpy(out + k, at[0], part * sizeof(float));
  }
}

}  // namespace torchx
