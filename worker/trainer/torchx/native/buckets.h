// The memory of a member of a group: see buckets.cc.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <c10/core/Event.h>

#include "native/common.h"
#include "native/nccl.h"
#include "native/tree.h"

namespace torchx {

class Buckets : public std::enable_shared_from_this<Buckets> {
 public:
  static constexpr int64_t kMostShards = 4096;  // as the setting shards has it
  static constexpr int kSlots = 2 * 12 + 1;     // sums of a member at a time: 2*log2 of that + 1

  Buckets(at::ArrayRef<at::Tensor> params, at::ArrayRef<at::Tensor> statistics, int64_t bucket_bytes);
  void hook();

  // Buckets lie in a slot at starts()[i] to starts()[i+1]; slots, total() floats each, one after the other in the segment,
  // that of the owner's results after the sums.
  int count() const { return static_cast<int>(starts_.size()) - 1; }
  const int64_t *starts() const { return starts_.data(); }
  int64_t total() const { return total_; }
  int64_t segment_bytes() const { return (kSlots + 1) * total_ * static_cast<int64_t>(sizeof(float)); }
  void use(void *segment);  // zeros

  void begin(int64_t from, int64_t to, int64_t present);
  void arm(int64_t shard, double weight);
  void fired(size_t param);
  void done();
  void apply();
  void drop();
  float *result();

  int wait(int64_t call);  // the next bucket; -1: stopped
  // A bucket's sums over all members, made with the others of a meeting: rank r has the nodes first[r] to first[r+1] of all,
  // and sums the piece cuts[r] to cuts[r+1]; the program completes the tree. false: stopped.
  bool exchange(Communicator &meeting, int bucket, int64_t call, int rank, at::ArrayRef<int32_t> first, at::ArrayRef<int64_t> cuts,
                at::ArrayRef<int32_t> program);
  void stop(int64_t call);  // ends that and earlier ones
  void end();               // ends all

 private:
  struct Piece {
    at::Tensor tensor, committed;  // the latter of statistics
    std::vector<int64_t> sizes, strides;
    int64_t at = 0, size = 0;  // floats, in a slot
    int bucket = 0;
    bool taken = false;
    std::shared_ptr<torch::autograd::Node> accumulator;  // the parameter itself does not keep it
  };

  void lay(Piece &p, const at::Tensor &t, size_t number, int64_t &at);
  void take(Piece &p);
  void fold(const Piece &p, at::Tensor leaf);
  void complete(int bucket);
  void close(bool dropped);
  bool take(int bucket, int64_t call, std::optional<c10::Event> &made);
  void sum(const std::vector<float *> &in, at::ArrayRef<int32_t> program, float *out, int64_t floats);
  float *place(int slot) { return host_only_ ? this->slot(slot) : on_device(slot).data_ptr<float>(); }
  float *slot(int k) const { return segment_ + k * total_; }
  at::Tensor on_device(int slot);

  at::Device device_;
  std::vector<Piece> params_, statistics_;
  std::vector<int64_t> starts_;
  int64_t total_ = 0;
  bool host_only_ = true;  // else sums are made on the device and copied when a bucket is complete
  std::vector<at::Tensor> slots_on_device_;
  float *segment_ = nullptr;
  at::Tensor result_;  // on the host; made when a step is not this member's alone
  at::Tensor result_on_device_, received_;  // made when sums are moved between devices
  std::optional<c10::Stream> beside_;       // on which they are

  // The step.
  bool whole_ = false, armed_ = false, moved_ = false;
  std::optional<c10::Event> began_;  // on a GPU: what used the results of the step before
  int64_t next_ = 0, to_ = 0;  // shards
  int nodes_ = 0;
  TreeStack stack_;
  int merges_ = 0, under_ = 0;  // of the shard in hand
  double weight_ = 1;
  std::unique_ptr<std::atomic<int>[]> left_;  // parameters of a bucket whose last gradient is to come

  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::deque<std::pair<int, std::optional<c10::Event>>> ready_;
  bool open_ = false, dropped_ = false, ended_ = false;
  int64_t drops_ = 0, stopped_ = 0;
};

}  // namespace torchx
