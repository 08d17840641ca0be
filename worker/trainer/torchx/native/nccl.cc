// NCCL by dlopen: one build serves machines with it and without. Only data is moved with it (ncclSend, ncclRecv): sums are ours
// (exchange.cc), so that no bit depends on NCCL's algorithms.
//
// A communicator is made without blocking, so that every call returns at once and the state is asked for; a hung one is ended
// by ncclCommAbort from the watchdog. NCCL does that soundly from 2.26.2 on (pytorch issue 149153).
#include "native/nccl.h"

#include <dlfcn.h>

#include <chrono>
#include <map>
#include <memory>

#if defined(WITH_CUDA)
#include <c10/cuda/CUDAGuard.h>
#endif

namespace torchx {

namespace nccl {

namespace {

constexpr int kLeast = 22602;
constexpr char kAdvice[] =
    "; install NCCL 2.26.2 or later (the wheel nvidia-nccl-cu12 or nvidia-cuda's packages have it) and name its file in "
    "ATELIER_NCCL, or let sums go through the host's memory: ATELIER_GROUP_TRANSFER=host";

template <typename F>
void find(void *handle, const std::string &path, const char *name, F *&f) {
  f = reinterpret_cast<F *>(dlsym(handle, name));
  TORCH_CHECK(f, "nccl: ", path, " has no ", name, kAdvice);
}

std::string text_of(int version) {
  // Up to 2.8 the numbers had two digits less.
  int major = version >= 10000 ? version / 10000 : version / 1000, rest = version >= 10000 ? version % 10000 : version % 1000;
  return std::to_string(major) + "." + std::to_string(rest / 100) + "." + std::to_string(rest % 100);
}

std::unique_ptr<Library> load(const std::string &asked) {
  auto name = asked.empty() ? std::string("libnccl.so.2") : asked;
  void *handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  TORCH_CHECK(handle, "nccl: ", name, " cannot be loaded: ", dlerror(), kAdvice);
  auto l = std::make_unique<Library>();
  l->path = name;
  find(handle, name, "ncclGetVersion", l->get_version);
  Dl_info where;
  if (dladdr(reinterpret_cast<void *>(l->get_version), &where) && where.dli_fname) l->path = where.dli_fname;
  Result r = l->get_version(&l->version);
  TORCH_CHECK(r == kSuccess, "nccl: ", l->path, " does not tell its version (", r, ")", kAdvice);
  TORCH_CHECK(l->version >= kLeast, "nccl: ", l->path, " is NCCL ", text_of(l->version),
              ", which does not end a transfer that hangs; 2.26.2 is the first that does", kAdvice);
  find(handle, l->path, "ncclGetUniqueId", l->get_unique_id);
  find(handle, l->path, "ncclCommInitRankConfig", l->comm_init_rank_config);
  find(handle, l->path, "ncclCommGetAsyncError", l->comm_get_async_error);
  find(handle, l->path, "ncclCommAbort", l->comm_abort);
  find(handle, l->path, "ncclSend", l->send);
  find(handle, l->path, "ncclRecv", l->recv);
  find(handle, l->path, "ncclGroupStart", l->group_start);
  find(handle, l->path, "ncclGroupEnd", l->group_end);
  find(handle, l->path, "ncclGetErrorString", l->get_error_string);
  return l;
}

}  // namespace

const Library &Library::open(const std::string &path) {
  static std::mutex mutex;
  static std::map<std::string, std::unique_ptr<Library>> open;
  std::lock_guard<std::mutex> lock(mutex);
  auto &l = open[path];
  if (!l) l = load(path);
  return *l;
}

std::string Library::version_text() const { return text_of(version); }

void Library::check(Result r, const char *call) const {
  TORCH_CHECK(r == kSuccess || r == kInProgress, "nccl: ", call, ": ", get_error_string(r), " (", r, ")");
}

}  // namespace nccl

using namespace std::chrono_literals;

namespace {

constexpr auto kLook = 2ms;     // between two looks of the watchdog
constexpr auto kPatience = 1s;  // for a call of NCCL that should be short

// The device is the calling thread's while it lives: NCCL takes the current one.
struct OnDevice {
#if defined(WITH_CUDA)
  explicit OnDevice(at::Device d) {
    if (d.is_cuda()) guard.set_device(d);
  }
  c10::cuda::OptionalCUDAGuard guard;
#else
  explicit OnDevice(at::Device) {}
#endif
};

}  // namespace

Communicator::Communicator(const nccl::Library &library, const char *id, int rank, int members, at::Device d) : device(d), library_(library) {
  OnDevice here(device);
  nccl::UniqueId unique;
  memcpy(unique.bytes, id, sizeof unique.bytes);
  nccl::Config config;
  config.blocking = 0;
  library_.check(library_.comm_init_rank_config(&comm_, members, unique, rank, &config), "ncclCommInitRankConfig");
  watchdog_ = std::thread([this] { watch(); });
}

Communicator::~Communicator() {
  abort("closed");
  watchdog_.join();
}

void Communicator::abort(const std::string &why) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (why_.empty()) why_ = why;
  }
  wake_.notify_all();
}

void Communicator::end(const std::string &why) {
  abort(why);
  std::unique_lock<std::mutex> lock(mutex_);
  TORCH_CHECK(wake_.wait_for(lock, kDrain, [&] { return through_; }), "CUDA error: ncclCommAbort did not return within ",
              kDrain.count(), " s (", why_, ")");
}

bool Communicator::ended() {
  std::lock_guard<std::mutex> lock(mutex_);
  return !why_.empty();
}

std::string Communicator::why() {
  std::lock_guard<std::mutex> lock(mutex_);
  return why_;
}

// The watchdog. It ends the communicator once, whoever wants it, and waits for a call in hand only so long: a call that hangs
// inside NCCL is what the abort is to end.
void Communicator::watch() {
  OnDevice here(device);
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (wake_.wait_for(lock, kLook, [&] { return !why_.empty(); })) break;
    }
    std::unique_lock<std::timed_mutex> call(calls_, std::try_to_lock);
    if (!call) continue;
    nccl::Result state = nccl::kSuccess, r = library_.comm_get_async_error(comm_, &state);
    call.unlock();
    if (r != nccl::kSuccess) state = r;
    if (state != nccl::kSuccess && state != nccl::kInProgress)
      abort(std::string("nccl: ") + library_.get_error_string(state) + " (" + std::to_string(state) + ")");
  }
  std::unique_lock<std::timed_mutex> call(calls_, kPatience);
  library_.comm_abort(comm_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    through_ = true;
  }
  wake_.notify_all();
}

// Waits until what was asked of NCCL is done, or is on its stream.
void Communicator::settle() {
  for (;;) {
    {
      std::lock_guard<std::timed_mutex> call(calls_);
      TORCH_CHECK(!ended(), why());
      nccl::Result state = nccl::kSuccess;
      library_.check(library_.comm_get_async_error(comm_, &state), "ncclCommGetAsyncError");
      library_.check(state, "the communicator");
      if (state == nccl::kSuccess) return;
    }
    std::this_thread::sleep_for(50us);
  }
}

void Communicator::move(const std::vector<Move> &moves, nccl::Stream stream) {
  if (moves.empty()) return;
  OnDevice here(device);
  settle();  // the first time: all have come
  {
    std::lock_guard<std::timed_mutex> call(calls_);
    TORCH_CHECK(!ended(), why());
    library_.check(library_.group_start(), "ncclGroupStart");
    nccl::Result first = nccl::kSuccess;
    for (auto &m : moves) {
      auto r = m.out ? library_.send(m.at, m.floats, nccl::kFloat32, m.rank, comm_, stream)
                     : library_.recv(m.at, m.floats, nccl::kFloat32, m.rank, comm_, stream);
      if (first == nccl::kSuccess && r != nccl::kInProgress) first = r;
    }
    auto r = library_.group_end();  // always: the group is the thread's
    library_.check(first, "ncclSend or ncclRecv");
    library_.check(r, "ncclGroupEnd");
  }
  settle();
}

}  // namespace torchx
