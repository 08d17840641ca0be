// The sums of a step over all members of a meeting, made on their devices: each member sends the owner of a piece its nodes'
// sums of it, the owner completes the tree in its order and sends the result to all. The additions are those of the way through
// the host (run_sums), in the same order, so the bits are too.
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "native/buckets.h"

#if defined(WITH_CUDA)
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

using namespace torchx;
using namespace std::chrono_literals;

namespace torchx {

namespace {


nccl::Stream raw(c10::Stream stream) {
#if defined(WITH_CUDA)
  if (stream.device_type() == at::kCUDA) return c10::cuda::CUDAStream(stream).stream();
#endif
  TORCH_CHECK(stream.device_type() == at::kCPU, "nccl: sums on ", stream.device(), " cannot be moved");
  return nullptr;
}

// Waits for what a stream has, also where the meeting ends meanwhile: its memory is used again afterwards.
void drain(Communicator &meeting, c10::Stream stream) {
  c10::Event end(stream.device_type());
  end.record(stream);
  std::chrono::steady_clock::time_point limit{};
  while (!end.query()) {
    auto now = std::chrono::steady_clock::now();
    if (meeting.ended() && limit == decltype(limit){}) limit = now + Communicator::kDrain;
    TORCH_CHECK(limit == decltype(limit){} || now < limit, "CUDA error: ", stream.device(), " did not end a transfer within ",
                Communicator::kDrain.count(), " s of its abort (", meeting.why(), ")");
    std::this_thread::sleep_for(50us);
  }
}

}  // namespace

// Waits for a bucket, whatever others are complete before it.
bool Buckets::take(int bucket, int64_t call, std::optional<c10::Event> &made) {
  std::unique_lock<std::mutex> lock(mutex_);
  auto drops = drops_;
  auto found = ready_.end();
  auto stop = [&] { return ended_ || stopped_ >= call || dropped_ || drops != drops_; };
  wake_.wait(lock, [&] {
    found = std::find_if(ready_.begin(), ready_.end(), [&](auto &r) { return r.first == bucket; });
    return stop() || found != ready_.end();
  });
  if (stop()) return false;
  made = std::move(found->second);
  ready_.erase(found);
  return true;
}

// Carries a program out on the device: in[to] + in[from] for each pair, the last of them into out. in stays as it is.
void Buckets::sum(const std::vector<float *> &in, at::ArrayRef<int32_t> program, float *out, int64_t floats) {
  int merges = static_cast<int>(program.size()) / 2;
  if (host_only_) {
    run_sums(out, in.data(), static_cast<int>(in.size()), program.data(), merges, floats);
    return;
  }
  auto options = at::TensorOptions(at::kFloat).device(device_);
  auto result = at::from_blob(out, {floats}, options);
  std::vector<at::Tensor> partial;
  for (auto *p : in) partial.push_back(at::from_blob(p, {floats}, options));
  for (int m = 0; m < merges; m++) {
    int to = program[2 * m], from = program[2 * m + 1];
    if (m == merges - 1 && to == 0)
      at::add_out(result, partial[to], partial[from]);
    else
      partial[to] = partial[to] + partial[from];
  }
  if (merges == 0 || program[2 * (merges - 1)] != 0) result.copy_(partial[0]);
}

bool Buckets::exchange(Communicator &meeting, int bucket, int64_t call, int rank, at::ArrayRef<int32_t> first,
                       at::ArrayRef<int64_t> cuts, at::ArrayRef<int32_t> program) {
  TORCH_CHECK(meeting.device == device_, "buckets: sums on ", device_, " and a meeting of ", meeting.device);
  torch::NoGradGuard no_grad;
  int members = static_cast<int>(first.size()) - 1, own = first[rank + 1] - first[rank];
  std::optional<c10::Event> made;
  if (own > 0 && !take(bucket, call, made)) return false;

  int64_t start = starts_[bucket], mine = cuts[rank + 1] - cuts[rank], foreign = (first[members] - own) * mine;
  if (!host_only_ && !whole_ && !result_on_device_.defined())
    result_on_device_ = at::zeros({total_}, at::TensorOptions(at::kFloat).device(device_));
  if (!received_.defined() || received_.numel() < foreign)
    received_ = at::empty({foreign}, at::TensorOptions(at::kFloat).device(device_));
  c10::impl::VirtualGuardImpl impl(device_.type());
  if (!beside_) beside_ = host_only_ ? impl.getStream(device_) : impl.getStreamFromGlobalPool(device_);
  auto beside = *beside_;
  c10::StreamGuard aside(beside);
  std::optional<c10::Event> here;  // what this thread started: memory that was made, and what had it before
  if (!host_only_) {
    here.emplace(device_.type());
    here->record(aside.original_stream());
    here->block(beside);
    began_->block(beside);
    if (made) made->block(beside);
  }
  // Of a step whose shards are all here the contribution is the result: its pieces come back when they were sent.
  float *result = (whole_ ? place(0) : host_only_ ? result_.data_ptr<float>() : result_on_device_.data_ptr<float>()) + start;
  float *received = received_.data_ptr<float>();

  std::vector<Communicator::Move> there, back;
  std::vector<float *> in;
  for (int r = 0; r < members; r++) {
    int64_t piece = cuts[r + 1] - cuts[r];
    for (int32_t k = first[r]; k < first[r + 1]; k++) {
      if (r == rank) {
        in.push_back(place(k - first[r]) + start + cuts[rank]);
      } else if (mine > 0) {
        there.push_back({false, r, received, mine});
        in.push_back(received);
        received += mine;
      }
    }
    if (r == rank) continue;
    for (int k = 0; k < own && piece > 0; k++) there.push_back({true, r, place(k) + start + cuts[r], piece});
    if (mine > 0) back.push_back({true, r, result + cuts[rank], mine});
    if (piece > 0) back.push_back({false, r, result + cuts[r], piece});
  }
  try {
    meeting.move(there, raw(beside));
    if (mine > 0 && in[0] != result + cuts[rank]) sum(in, program, result + cuts[rank], mine);
    meeting.move(back, raw(beside));
  } catch (...) {
    meeting.end("a transfer failed");
    if (!host_only_) drain(meeting, beside);
    throw;
  }
  if (!host_only_) drain(meeting, beside);
  TORCH_CHECK(!meeting.ended(), meeting.why());  // an aborted transfer ends as others do, with a part of its data
  moved_ = true;
  return true;
}

}  // namespace torchx

namespace {

using Handle = std::shared_ptr<Buckets>;

}  // namespace

extern "C" {

tx_error tx_nccl_open(const char *path, tx_nccl *out, char **version, char **found) {
  return guard([&] {
    auto &l = nccl::Library::open(path);
    *out = const_cast<nccl::Library *>(&l);
    *version = text(l.version_text().c_str());
    *found = text(l.path.c_str());
  });
}

tx_error tx_nccl_id(tx_nccl library, char *id) {
  return guard([&] {
    auto &l = *static_cast<nccl::Library *>(library);
    nccl::UniqueId unique;
    l.check(l.get_unique_id(&unique), "ncclGetUniqueId");
    memcpy(id, unique.bytes, sizeof unique.bytes);
  });
}

tx_error tx_meeting_new(tx_nccl library, const char *id, int rank, int members, const char *device, tx_meeting *out) {
  return guard([&] { *out = new Communicator(*static_cast<nccl::Library *>(library), id, rank, members, at::Device(device)); });
}

tx_error tx_device_identity(const char *device, char **name) {
  return guard([&] {
    at::Device d(device);
#if defined(WITH_CUDA)
    if (d.is_cuda()) {
      cudaDeviceProp properties;
      auto r = cudaGetDeviceProperties(&properties, d.has_index() ? d.index() : 0);
      TORCH_CHECK(r == cudaSuccess, "CUDA error: ", cudaGetErrorString(r), " for the properties of ", d);
      std::string id = "GPU-";
      for (unsigned char byte : properties.uuid.bytes) {
        char two[3];
        snprintf(two, sizeof two, "%02x", byte);
        id += two;
      }
      *name = text(id.c_str());
      return;
    }
#endif
    TORCH_CHECK(false, "device ", d, " has no identity that others know it by");
  });
}

void tx_meeting_abort(tx_meeting m, const char *why) { static_cast<Communicator *>(m)->abort(why); }

void tx_meeting_free(tx_meeting m) { delete static_cast<Communicator *>(m); }

tx_error tx_buckets_exchange(tx_buckets b, tx_meeting m, int bucket, int64_t call, int rank, int members, const int32_t *first,
                             const int64_t *cuts, const int32_t *program, int merges, int *done) {
  return guard([&] {
    TORCH_CHECK(b && m, "buckets: freed, or the meeting has ended");
    *done = (*static_cast<Handle *>(b))
                ->exchange(*static_cast<Communicator *>(m), bucket, call, rank, {first, static_cast<size_t>(members) + 1},
                           {cuts, static_cast<size_t>(members) + 1}, {program, 2 * static_cast<size_t>(merges)});
  });
}

}  // extern "C"
