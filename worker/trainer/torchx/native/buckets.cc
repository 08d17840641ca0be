// The gradients of a training whose batches are cut into shards: hooks take each one as backward makes it and add it up along
// the tree over shards, in memory that other processes can map.
//
// Everything but wait is called by one thread at a time; hooks run on autograd's threads, inside the caller's backward.
#include "native/buckets.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <sys/mman.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

using namespace torchx;

namespace torchx {

namespace {

constexpr int64_t kAlign = 16;    // floats, between parameters: a cache line
constexpr int64_t kPage = 1024;   // floats, between slots
constexpr int64_t kFirst = 1 << 20;  // bytes of the first bucket: its sum starts early

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Whether two strides put the elements of one shape into the same order.
bool same_order(at::IntArrayRef sizes, at::IntArrayRef a, at::IntArrayRef b) {
  for (size_t d = 0; d < sizes.size(); d++)
    if (sizes[d] > 1 && a[d] != b[d]) return false;
  return true;
}

struct Hook final : torch::autograd::FunctionPostHook {
  Hook(std::weak_ptr<Buckets> b, size_t i) : buckets(std::move(b)), index(i) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list &outputs,
                                            const torch::autograd::variable_list &) override {
    if (auto b = buckets.lock()) b->fired(index);
    return outputs;
  }
  std::weak_ptr<Buckets> buckets;  // a graph that is kept may outlive them
  size_t index;
};

}  // namespace

Buckets::Buckets(at::ArrayRef<at::Tensor> params, at::ArrayRef<at::Tensor> statistics, int64_t bucket_bytes)
    : device_(at::kCPU), params_(params.size()), statistics_(statistics.size()) {
  TORCH_CHECK(!params.empty(), "buckets: no parameters to train");
  TORCH_CHECK(bucket_bytes > 0, "buckets: ", bucket_bytes, " bytes a bucket");
  device_ = params[0].device();
  int64_t at = 0, limit = std::min(kFirst, bucket_bytes) / int64_t{sizeof(float)};
  for (size_t i = params.size(); i-- > 0;) {
    const auto &p = params[i];
    TORCH_CHECK(p.is_leaf() && p.requires_grad(), "buckets: parameter ", i, " is not a leaf that is trained");
    if (starts_.empty() || (at > starts_.back() && at + p.numel() > starts_.back() + limit)) {
      if (!starts_.empty()) limit = bucket_bytes / int64_t{sizeof(float)};
      starts_.push_back(at);
    }
    lay(params_[i], p, i, at);
  }
  if (!statistics.empty()) starts_.push_back(at);
  for (size_t i = 0; i < statistics.size(); i++) {
    auto &s = statistics_[i];
    lay(s, statistics[i], i, at);
    s.committed = at::empty_strided(s.sizes, s.strides, s.tensor.options());
  }
  starts_.push_back(at);
  total_ = round_up(at, kPage);
  left_.reset(new std::atomic<int>[count()]);
  if (!device_.is_cpu()) {
    host_only_ = false;
    slots_on_device_.resize(kSlots);
  }
}

// Lays a parameter or statistic out at at, in the order of its own memory.
void Buckets::lay(Piece &p, const at::Tensor &t, size_t number, int64_t &at) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.layout() == at::kStrided, "buckets: tensor ", number, " is ", t.toString(),
              "; sums are of float32");
  TORCH_CHECK(t.device() == device_, "buckets: tensor ", number, " is on ", t.device(), ", the others on ", device_);
  p.tensor = t;
  p.sizes = t.sizes().vec();
  p.strides = t.is_non_overlapping_and_dense() ? t.strides().vec() : at::empty(t.sizes(), at::kMeta).strides().vec();
  p.at = at;
  p.size = t.numel();
  p.bucket = static_cast<int>(starts_.size()) - 1;
  at += round_up(p.size, kAlign);
}

void Buckets::hook() {
  for (size_t i = 0; i < params_.size(); i++) {
    params_[i].accumulator = torch::autograd::impl::grad_accumulator(params_[i].tensor);
    params_[i].accumulator->add_post_hook(std::make_unique<Hook>(weak_from_this(), i));
  }
}

void Buckets::use(void *segment) {
  segment_ = static_cast<float *>(segment);
  madvise(segment, segment_bytes(), MADV_HUGEPAGE);
}

void Buckets::begin(int64_t from, int64_t to, int64_t present) {
  TORCH_CHECK(segment_, "buckets: no memory");
  TORCH_CHECK(0 <= from && from <= to && present >= 1 && present <= kMostShards, "buckets: shards ", from, " to ", to, " of ",
              present, "; at most ", kMostShards, " can be present");
  from = std::min(from, present);
  to = std::min(to, present);
  if (open_) drop();
  torch::NoGradGuard no_grad;
  TreeStack plan;
  plan.begin(present);
  for (int64_t leaf = from; leaf < to; leaf++) {
    plan.push(leaf);
    TORCH_CHECK(plan.size() <= kSlots, "buckets: more sums at a time than there is room for");
  }
  nodes_ = plan.size();
  whole_ = from == 0 && to == present;
  if (!whole_ && !result_.defined()) result_ = at::zeros({total_}, at::TensorOptions(at::kFloat));
  for (auto &p : params_) p.tensor.mutable_grad().reset();
  for (auto &s : statistics_) s.committed.copy_(s.tensor);
  moved_ = false;
  if (!host_only_) {
    began_.emplace(device_.type());
    began_->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  }
  stack_.begin(present);
  next_ = from;
  to_ = to;
  for (int b = 0; b < count(); b++) left_[b] = 0;
  for (auto &p : params_) left_[p.bucket]++;
  std::lock_guard<std::mutex> lock(mutex_);
  ready_.clear();
  dropped_ = false;
  open_ = true;
}

void Buckets::arm(int64_t shard, double weight) {
  TORCH_CHECK(open_ && !armed_, "buckets: shard ", shard, armed_ ? " begins before the one before is done" : " outside of a step");
  TORCH_CHECK(shard == next_ && shard < to_, "buckets: shard ", shard, " is not the next one, ", next_, " of those up to ", to_);
  weight_ = weight;
  merges_ = stack_.merges(shard);
  under_ = stack_.size() - merges_;
  for (auto &p : params_) p.taken = false;
  armed_ = true;
}

void Buckets::fired(size_t i) {
  if (armed_) take(params_[i]);
}

// Adds a parameter's gradient up and drops it.
void Buckets::take(Piece &p) {
  TORCH_CHECK(!p.taken, "buckets: a second backward pass of shard ", next_, " after it was armed");
  torch::NoGradGuard no_grad;
  p.taken = true;
  auto &grad = p.tensor.mutable_grad();
  fold(p, grad);
  grad.reset();
  if (next_ == to_ - 1 && --left_[p.bucket] == 0) complete(p.bucket);
}

// Adds a leaf, zeros if undefined, to the sums of its piece.
void Buckets::fold(const Piece &p, at::Tensor leaf) {
  if (leaf.defined()) {
    TORCH_CHECK(leaf.layout() == at::kStrided && leaf.scalar_type() == at::kFloat, "buckets: a gradient that is ", leaf.toString(),
                "; sums are of float32");
    if (!leaf.is_non_overlapping_and_dense() || !same_order(p.sizes, leaf.strides(), p.strides))
      leaf = at::empty_strided(p.sizes, p.strides, leaf.options()).copy_(leaf);
  }
  if (host_only_) {
    const float *from = leaf.defined() ? leaf.data_ptr<float>() : nullptr;
    // The threads share the elements, each of which has its own sum.
    at::parallel_for(0, p.size, 1 << 16, [&](int64_t first, int64_t end) {
      float *slots[kSlots];
      for (int m = 0; m < std::max(merges_, 1); m++) slots[m] = slot(under_ + m) + p.at + first;
      fold_leaf(slots, merges_, from ? from + first : nullptr, end - first);
    });
    return;
  }
  auto flat = leaf.defined() ? leaf.as_strided({p.size}, {1}) : at::zeros({p.size}, p.tensor.options().requires_grad(false));
  for (int m = merges_; m-- > 0;) {
    auto left = on_device(under_ + m).narrow(0, p.at, p.size);
    flat = m == 0 ? left.add_(flat) : left + flat;
  }
  if (merges_ == 0) on_device(under_).narrow(0, p.at, p.size).copy_(flat);
}

at::Tensor Buckets::on_device(int slot) {
  auto &t = slots_on_device_[slot];
  if (!t.defined()) t = at::zeros({total_}, at::TensorOptions(at::kFloat).device(device_));
  return t;
}

// The sums of a bucket are made, on a GPU: their last one is started.
void Buckets::complete(int bucket) {
  std::optional<c10::Event> event;
  if (!host_only_) {
    event.emplace(device_.type());
    event->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ready_.emplace_back(bucket, std::move(event));
  }
  wake_.notify_all();
}

void Buckets::done() {
  TORCH_CHECK(armed_, "buckets: no shard was armed");
  for (auto &p : params_)
    if (!p.taken) take(p);
  armed_ = false;
  torch::NoGradGuard no_grad;
  for (auto &s : statistics_) {
    fold(s, weight_ == 1 ? s.tensor : s.tensor.mul(weight_));
    s.tensor.copy_(s.committed);
  }
  if (!statistics_.empty() && next_ == to_ - 1) complete(count() - 1);
  stack_.push(next_++);
}

float *Buckets::result() { return whole_ ? segment_ : result_.data_ptr<float>(); }

void Buckets::apply() {
  TORCH_CHECK(open_, "buckets: no step to apply");
  TORCH_CHECK(next_ == to_ && !armed_, "buckets: shard ", next_, " of those up to ", to_, " is not done");
  torch::NoGradGuard no_grad;
  at::Tensor sums;
  if (host_only_)
    sums = whole_ ? at::from_blob(segment_, {total_}, at::TensorOptions(at::kFloat)) : result_;
  else
    sums = whole_ ? on_device(0) : moved_ ? result_on_device_ : result_.to(device_);
  for (auto &p : params_) p.tensor.mutable_grad() = sums.as_strided(p.sizes, p.strides, p.at);
  for (auto &s : statistics_) s.tensor.copy_(sums.as_strided(s.sizes, s.strides, s.at));
  close(false);
}

void Buckets::drop() {
  torch::NoGradGuard no_grad;
  for (auto &p : params_) p.tensor.mutable_grad().reset();
  // When all shards are done the statistics are the committed ones, or newer ones that came from another member.
  if (open_ && next_ < to_)
    for (auto &s : statistics_) s.tensor.copy_(s.committed);
  close(true);
}

void Buckets::close(bool dropped) {
  armed_ = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = false;
    if (dropped) {
      dropped_ = true;
      drops_++;
      ready_.clear();
    }
  }
  wake_.notify_all();
}

void Buckets::end() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
  }
  wake_.notify_all();
}

void Buckets::stop(int64_t call) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = std::max(stopped_, call);
  }
  wake_.notify_all();
}

int Buckets::wait(int64_t call) {
  std::unique_lock<std::mutex> lock(mutex_);
  auto drops = drops_;
  wake_.wait(lock, [&] { return ended_ || stopped_ >= call || dropped_ || drops != drops_ || !ready_.empty(); });
  if (ended_ || stopped_ >= call || dropped_ || drops != drops_) return -1;
  auto next = std::move(ready_.front());
  ready_.pop_front();
  if (host_only_) return next.first;
  // Copied here, beside backward, on a stream that waits for the bucket alone.
  int nodes = nodes_;
  lock.unlock();
  torch::NoGradGuard no_grad;
  c10::StreamGuard aside(c10::impl::VirtualGuardImpl(device_.type()).getStreamFromGlobalPool(device_));
  next.second->block(aside.current_stream());
  int64_t at = starts_[next.first], size = starts_[next.first + 1] - at;
  for (int k = 0; k < nodes; k++)
    at::from_blob(slot(k) + at, {size}, at::TensorOptions(at::kFloat)).copy_(on_device(k).narrow(0, at, size));
  return next.first;
}

}  // namespace torchx

namespace {

using Handle = std::shared_ptr<Buckets>;

Buckets &of(tx_buckets b) {
  TORCH_CHECK(b != nullptr, "buckets: freed");
  return **static_cast<Handle *>(b);
}

std::vector<at::Tensor> tensors(tx_tensor *ts, int n) {
  std::vector<at::Tensor> all;
  for (int i = 0; i < n; i++) all.push_back(in(ts[i]));
  return all;
}

}  // namespace

extern "C" {

tx_error tx_buckets_new(tx_tensor *params, int n, tx_tensor *statistics, int m, int64_t bucket_bytes, tx_buckets *out) {
  return guard([&] {
    auto b = std::make_shared<Buckets>(tensors(params, n), tensors(statistics, m), bucket_bytes);
    b->hook();
    *out = new Handle(std::move(b));
  });
}

void tx_buckets_layout(tx_buckets b, int *count, const int64_t **starts, int64_t *slot, int *own) {
  auto &s = of(b);
  *count = s.count();
  *starts = s.starts();
  *slot = s.total();
  *own = Buckets::kSlots;
}

void tx_buckets_use(tx_buckets b, void *segment) { of(b).use(segment); }

tx_error tx_buckets_begin(tx_buckets b, int64_t from, int64_t to, int64_t present) {
  return guard([&] { of(b).begin(from, to, present); });
}

tx_error tx_buckets_arm(tx_buckets b, int64_t shard, double weight) {
  return guard([&] { of(b).arm(shard, weight); });
}

tx_error tx_buckets_done(tx_buckets b) {
  return guard([&] { of(b).done(); });
}

tx_error tx_buckets_apply(tx_buckets b) {
  return guard([&] { of(b).apply(); });
}

tx_error tx_buckets_drop(tx_buckets b) {
  return guard([&] { of(b).drop(); });
}

tx_error tx_buckets_result(tx_buckets b, float **result) {
  return guard([&] { *result = of(b).result(); });
}

tx_error tx_buckets_wait(tx_buckets b, int64_t call, int *bucket) {
  return guard([&] { *bucket = of(b).wait(call); });
}

void tx_buckets_stop(tx_buckets b, int64_t call) { of(b).stop(call); }

void tx_buckets_end(tx_buckets b) { of(b).end(); }

void tx_buckets_free(tx_buckets b) { delete static_cast<Handle *>(b); }

tx_error tx_sum(float *out, const float *const *in, int inputs, const int32_t *program, int merges, int64_t n) {
  return guard([&] { run_sums(out, in, inputs, program, merges, n); });
}

}  // extern "C"
