// NVIDIA's library for moving data between GPUs, found when it is asked for: see nccl.cc.
#pragma once
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "native/common.h"

namespace torchx {

// What is called of NCCL's C interface, after its documentation (NCCL user guide, "NCCL API"): the numbers are its own.
namespace nccl {

using Comm = struct Opaque *;
using Stream = void *;  // a cudaStream_t
using Result = int;
constexpr Result kSuccess = 0, kInProgress = 7;
constexpr int kFloat32 = 7;
constexpr int kUndefined = INT_MIN;

struct UniqueId {
  char bytes[128];
};

// A communicator's configuration as of version 2.18; later ones take it, and their own defaults for what they added.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21800;
  int blocking = kUndefined, cga_cluster_size = kUndefined, min_ctas = kUndefined, max_ctas = kUndefined;
  const char *net_name = nullptr;
  int split_share = kUndefined;
};

// A library that was opened; it is never closed.
struct Library {
  std::string path;  // of the file that was found
  int version = 0;   // 10000*major + 100*minor + patch
  Result (*get_version)(int *);
  Result (*get_unique_id)(UniqueId *);
  Result (*comm_init_rank_config)(Comm *, int ranks, UniqueId, int rank, Config *);
  Result (*comm_get_async_error)(Comm, Result *);
  Result (*comm_abort)(Comm);
  Result (*send)(const void *, size_t, int type, int peer, Comm, Stream);
  Result (*recv)(void *, size_t, int type, int peer, Comm, Stream);
  Result (*group_start)();
  Result (*group_end)();
  const char *(*get_error_string)(Result);

  // Opens path; empty: what the system has under the name. An error says what is missing, and what to do.
  static const Library &open(const std::string &path);
  std::string version_text() const;
  void check(Result r, const char *call) const;  // kSuccess or kInProgress pass
};

}  // namespace nccl

// The members of a view, as one of them sees it. move and settle are called by one thread, abort by any. A thread of its own,
// the watchdog, looks at NCCL's own error and at what was asked of abort, and ends what is under way.
class Communicator {
 public:
  struct Move {
    bool out;
    int rank;  // to or from which
    float *at;
    int64_t floats;
  };

  Communicator(const nccl::Library &library, const char *id, int rank, int members, at::Device device);
  ~Communicator();

  // Starts moves that belong together on a stream, in the order in which both ends of a pair name them, and waits until NCCL
  // has taken them: on a host (stream NULL) until they are done. An error where the meeting has ended.
  void move(const std::vector<Move> &moves, nccl::Stream stream);
  void abort(const std::string &why);  // begins it, and returns
  void end(const std::string &why);    // until NCCL moves nothing any more; an error where that takes longer than kDrain
  bool ended();
  std::string why();

  const at::Device device;
  static constexpr std::chrono::seconds kDrain{10};

 private:
  void settle();
  void watch();

  const nccl::Library &library_;
  std::timed_mutex calls_;  // one call of NCCL at a time, all of them short; but see watch
  nccl::Comm comm_ = nullptr;

  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::string why_;  // empty: it goes on
  bool through_ = false;  // aborted, and NCCL is done with it
  std::thread watchdog_;
};

}  // namespace torchx
