// Runs kernels that were compiled with host.h.
#include "host.h"
#include <functional>
#include <memory>
#include <vector>

#ifdef HOST_THREADS
#include <barrier>
#include <thread>
static std::barrier<> *block_barrier;
extern "C" void host_barrier() { block_barrier->arrive_and_wait(); }

static void run_block(const std::function<void()> &kernel, Dim3 at, bool) {
  unsigned n = blockDim.x * blockDim.y * blockDim.z;
  std::barrier<> barrier(n);
  block_barrier = &barrier;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < n; ++t)
    threads.emplace_back([&, t] {
      threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
      blockIdx = at;
      kernel();
      barrier.arrive_and_drop();
    });
  for (auto &thread : threads) thread.join();
}
#else
// A fiber is a stack; switching saves what the calling convention says a call keeps.
#if defined(__x86_64__)
extern "C" void host_switch(void **from, void *to);
asm(R"(
.text
.globl host_switch
.hidden host_switch
.type host_switch, @function
host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size host_switch, .-host_switch
)");
#else
#error "fibers are written for x86-64 only: compile with -DHOST_THREADS"
#endif

constexpr size_t STACK = 64 * 1024;
struct Fiber {
  std::unique_ptr<char[]> stack{new char[STACK]};
  void *top = nullptr;
  bool done = true;
};
static void *scheduler;
static Fiber *running;
static const std::function<void()> *body;

extern "C" void host_barrier() {
  if (running) host_switch(&running->top, scheduler);
}

static void fiber_main() {
  (*body)();
  running->done = true;
  host_switch(&running->top, scheduler);
  abort();  // nobody wakes it again
}

static void set_thread(unsigned t) {
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
}

static void run_block(const std::function<void()> &kernel, Dim3 at, bool synchronises) {
  static std::vector<Fiber> fibers(1024);
  unsigned n = blockDim.x * blockDim.y * blockDim.z;
  blockIdx = at;
  if (!synchronises) {
    for (unsigned t = 0; t < n; ++t) {
      set_thread(t);
      kernel();
    }
    return;
  }
  body = &kernel;
  for (unsigned t = 0; t < n; ++t) {
    Fiber &fiber = fibers[t];
    auto *top = reinterpret_cast<void **>((reinterpret_cast<uintptr_t>(fiber.stack.get()) + STACK) & ~uintptr_t(15));
    *--top = nullptr;                                // where a call would have left its return address
    *--top = reinterpret_cast<void *>(fiber_main);   // what the first switch returns into
    for (int i = 0; i < 6; ++i) *--top = nullptr;    // registers
    fiber.top = top;
    fiber.done = false;
  }
  for (unsigned left = n; left;)
    for (unsigned t = 0; t < n; ++t)
      if (!fibers[t].done) {
        running = &fibers[t];
        set_thread(t);
        host_switch(&scheduler, running->top);
        left -= fibers[t].done;
      }
  running = nullptr;
}
#endif

// Arguments as the System V calling convention of x86-64 has them: integers and pointers in six registers, then on the
// stack; floats in registers of their own.
constexpr int INTEGERS = 6, FLOATS = 8, STACKED = 24;
using Entry = void (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, double, double, double, double, double,
                       double, double, double, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

// Launches `code` over a grid. `kinds` has a letter per argument: q (8 bytes), i (4), h (2), b (1), f (float), d (double);
// `dims` are the grid's and the block's three sizes. Returns 0, or 1 for arguments that do not fit.
extern "C" int host_launch(void *code, const char *kinds, void **args, const unsigned *dims, int synchronises) {
  uint64_t integers[INTEGERS + STACKED] = {};
  double floats[FLOATS] = {};
  int n = 0, m = 0;
  for (int i = 0; kinds[i]; ++i) {
    char kind = kinds[i];
    size_t size = kind == 'q' || kind == 'd' ? 8 : kind == 'i' || kind == 'f' ? 4 : kind == 'h' ? 2 : 1;
    bool is_float = kind == 'f' || kind == 'd';
    if (is_float ? m == FLOATS : n == INTEGERS + STACKED) return 1;
    if (is_float) std::memcpy(&floats[m++], args[i], size);
    else std::memcpy(&integers[n++], args[i], size);
  }
  unsigned threads = dims[3] * dims[4] * dims[5];
  if (threads == 0 || threads > 1024) return 1;
  auto entry = reinterpret_cast<Entry>(code);
  const uint64_t *a = integers, *s = integers + INTEGERS;
  const double *f = floats;
  std::function<void()> kernel = [=] {
    entry(a[0], a[1], a[2], a[3], a[4], a[5], f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], s[0], s[1], s[2], s[3], s[4],
          s[5], s[6], s[7], s[8], s[9], s[10], s[11], s[12], s[13], s[14], s[15], s[16], s[17], s[18], s[19], s[20], s[21],
          s[22], s[23]);
  };
  gridDim = {dims[0], dims[1], dims[2]};
  blockDim = {dims[3], dims[4], dims[5]};
  for (unsigned z = 0; z < gridDim.z; ++z)
    for (unsigned y = 0; y < gridDim.y; ++y)
      for (unsigned x = 0; x < gridDim.x; ++x) run_block(kernel, {x, y, z}, synchronises != 0);
  return 0;
}
