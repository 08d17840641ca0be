// What torchx calls of NCCL, over the host's memory and Unix sockets between processes: transfers run on a thread of the
// communicator, in the order of their groups, and the state is ncclInProgress until they are done. It is a test's, compiled by it.
//
//   STANDIN_DIR      folder for sockets and the file log, to which each abort adds a line
//   STANDIN_VERSION  what ncclGetVersion tells; 22705 if not set
//   STANDIN_FAULT    "RANKS RANK GROUP hang|error": what a communicator of so many ranks does at one, in which of its groups
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

enum { kSuccess = 0, kSystem = 2, kArgument = 4, kUsage = 5, kRemote = 6, kInProgress = 7 };

struct Op {
  bool out;
  int peer;
  char *at;
  size_t bytes, done = 0;
  uint64_t size;  // goes before the data: both ends have to agree
  size_t head = 0;
};

struct Comm {
  std::string dir;
  int rank, ranks, wake = eventfd(0, EFD_NONBLOCK);
  std::vector<int> fds;
  std::atomic<int> state{kInProgress};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::deque<std::vector<Op>> groups;
  int begun = 0, fault_at = -1;
  std::string fault;
  std::thread thread;

  void run() {
    if (!connect_all()) return;
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (groups.empty()) state = kSuccess;
    }
    while (!stop && state != kRemote && state != kUsage && state != kSystem) {
      std::vector<Op> ops;
      {
        std::lock_guard<std::mutex> lock(mutex);
        if (!groups.empty()) ops = groups.front();
      }
      if (ops.empty()) {
        idle();
        continue;
      }
      if (begun++ == fault_at) {
        if (fault == "error") {
          state = kSystem;
          return;
        }
        while (!stop) wait_for(nullptr, 0);
        return;
      }
      if (!transfer(ops)) return;
      std::lock_guard<std::mutex> lock(mutex);
      groups.pop_front();
      if (groups.empty()) state = kSuccess;
    }
  }

  void wait_for(pollfd *more, int n) {
    std::vector<pollfd> all(more, more + n);
    all.push_back({wake, POLLIN, 0});
    poll(all.data(), all.size(), 100);
    uint64_t drop;
    if (read(wake, &drop, sizeof drop) < 0) drop = 0;
    for (int i = 0; i < n; i++) more[i].revents = all[i].revents;
  }

  bool connect_all() {
    sockaddr_un own = address(rank);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (sockaddr *)&own, sizeof own) || listen(listener, ranks)) return fail(kSystem);
    for (int peer = 0; peer < rank && !stop;) {
      int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_un there = address(peer);
      if (connect(s, (sockaddr *)&there, sizeof there)) {
        close(s);
        usleep(1000);
        continue;
      }
      if (write(s, &rank, sizeof rank) != sizeof rank) return fail(kRemote);
      fcntl(s, F_SETFL, O_NONBLOCK);
      fds[peer++] = s;
    }
    for (int missing = ranks - 1 - rank; missing > 0 && !stop;) {
      pollfd p{listener, POLLIN, 0};
      wait_for(&p, 1);
      int s = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      int who = 0;
      if (s < 0) continue;
      if (read(s, &who, sizeof who) != sizeof who || who <= rank || who >= ranks) return fail(kSystem);
      fcntl(s, F_SETFL, O_NONBLOCK);
      fds[who] = s;
      missing--;
    }
    close(listener);
    return !stop;
  }

  sockaddr_un address(int of) {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    snprintf(a.sun_path, sizeof a.sun_path, "%s/%d", dir.c_str(), of);
    return a;
  }

  bool fail(int with) {
    state = with;
    return false;
  }

  // A link that ends means that its rank has died, or aborted.
  void idle() {
    std::vector<pollfd> p;
    for (int fd : fds)
      if (fd >= 0) p.push_back({fd, 0, 0});
    wait_for(p.data(), p.size());
    for (auto &e : p)
      if (e.revents & (POLLHUP | POLLERR)) state = kRemote;
  }

  bool transfer(std::vector<Op> &ops) {
    for (;;) {
      std::vector<pollfd> p;
      std::vector<Op *> next;
      for (int peer = 0; peer < ranks; peer++) {
        for (bool out : {false, true}) {
          for (auto &o : ops) {
            if (o.peer == peer && o.out == out && o.done < o.bytes) {
              p.push_back({fds[peer], static_cast<short>(out ? POLLOUT : POLLIN), 0});
              next.push_back(&o);
              break;
            }
          }
        }
      }
      if (p.empty()) return true;
      wait_for(p.data(), p.size());
      if (stop) return false;
      for (size_t i = 0; i < p.size(); i++) {
        if (!p[i].revents) continue;
        auto &o = *next[i];
        bool head = o.head < sizeof o.size;
        char *at = head ? reinterpret_cast<char *>(&o.size) + o.head : o.at + o.done;
        size_t left = head ? sizeof o.size - o.head : o.bytes - o.done;
        ssize_t n = o.out ? send(p[i].fd, at, left, MSG_NOSIGNAL) : recv(p[i].fd, at, left, 0);
        if (n < 0 && errno == EAGAIN) continue;
        if (n <= 0) return fail(kRemote);
        (head ? o.head : o.done) += n;
        if (head && o.head == sizeof o.size && o.size != o.bytes) return fail(kUsage);
      }
    }
  }
};

thread_local std::vector<Op> group;
thread_local Comm *grouped;

int add(bool out, void *at, size_t n, int type, int peer, Comm *c) {
  if (type != 7 || peer < 0 || peer >= c->ranks || peer == c->rank || n == 0) return kArgument;
  Op o{out, peer, static_cast<char *>(at), 4 * n};
  o.size = out ? o.bytes : 0;
  group.push_back(o);
  grouped = c;
  return kSuccess;
}

const char *setting(const char *name, const char *otherwise) {
  const char *v = getenv(name);
  return v && *v ? v : otherwise;
}

}  // namespace

extern "C" {

struct Id {
  char bytes[128];
};

struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

int ncclGetVersion(int *v) {
  *v = atoi(setting("STANDIN_VERSION", "22705"));
  return kSuccess;
}

int ncclGetUniqueId(Id *id) {
  memset(id->bytes, 0, sizeof id->bytes);
  snprintf(id->bytes, sizeof id->bytes, "%s/XXXXXX", setting("STANDIN_DIR", "/tmp"));
  return mkdtemp(id->bytes) ? kSuccess : kSystem;
}

int ncclCommInitRankConfig(Comm **out, int ranks, Id id, int rank, Config *config) {
  if (config->magic != 0xcafebeef || config->blocking != 0 || config->size < sizeof *config) return kArgument;
  auto *c = new Comm;
  c->dir = id.bytes;
  c->rank = rank;
  c->ranks = ranks;
  c->fds.assign(ranks, -1);
  int of, at, in;
  char what[16] = "";
  if (sscanf(setting("STANDIN_FAULT", ""), "%d %d %d %15s", &of, &at, &in, what) == 4 && of == ranks && at == rank) {
    c->fault_at = in;
    c->fault = what;
  }
  c->thread = std::thread([c] { c->run(); });
  *out = c;
  return kInProgress;
}

int ncclCommGetAsyncError(Comm *c, int *state) {
  *state = c->state;
  return kSuccess;
}

int ncclCommAbort(Comm *c) {
  c->stop = true;
  uint64_t one = 1;
  if (write(c->wake, &one, sizeof one) < 0) return kSystem;
  c->thread.join();
  std::string log = std::string(setting("STANDIN_DIR", "/tmp")) + "/log";
  if (FILE *f = fopen(log.c_str(), "a")) {
    fprintf(f, "rank %d of %d aborted in group %d, state %d\n", c->rank, c->ranks, c->begun, c->state.load());
    fclose(f);
  }
  for (int fd : c->fds)
    if (fd >= 0) close(fd);
  close(c->wake);
  delete c;
  return kSuccess;
}

int ncclSend(const void *at, size_t n, int type, int peer, Comm *c, void *) { return add(true, const_cast<void *>(at), n, type, peer, c); }

int ncclRecv(void *at, size_t n, int type, int peer, Comm *c, void *) { return add(false, at, n, type, peer, c); }

int ncclGroupStart() {
  group.clear();
  grouped = nullptr;
  return kSuccess;
}

int ncclGroupEnd() {
  if (!grouped) return kUsage;
  std::lock_guard<std::mutex> lock(grouped->mutex);
  grouped->groups.push_back(group);
  if (grouped->state == kSuccess) grouped->state = kInProgress;
  uint64_t one = 1;
  if (write(grouped->wake, &one, sizeof one) < 0) return kSystem;
  return kInProgress;
}

const char *ncclGetErrorString(int r) { return r == kRemote ? "remote process exited or there was a network error" : r == kSystem ? "unhandled system error" : "an error"; }
}
