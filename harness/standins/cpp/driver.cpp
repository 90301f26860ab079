// A stand-in for the CUDA driver, for tests: one device whose memory is the host's. A module is its PTX, which says what kernels
// there are and what they take; their code is the host build of the same sources in the libraries that $STANDIN_KERNELS names.
// What the program asked for is added to the file that $STANDIN_LOG names when the process ends.
#include <dlfcn.h>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <regex>
#include <string>
#include <vector>
#define API extern "C" __attribute__((visibility("default"))) int
enum { SUCCESS = 0, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

using Launch = int (*)(void *, const char *, void **, const unsigned *, int);
struct Library {
  std::string path;
  void *handle;
  Launch launch;
};

struct Function {
  std::string name, kinds;
  void *code = nullptr;
  Launch launch = nullptr;
  bool synchronises = false;
  unsigned threads = 1024;  // most that a block may have
};
struct Module {
  std::map<std::string, Function> functions;
};

// Libraries of host builds, as $STANDIN_KERNELS lists them with colons between.
static const std::vector<Library> &libraries() {
  static std::vector<Library> all = [] {
    std::vector<Library> found;
    const char *list = getenv("STANDIN_KERNELS");
    if (!list) fprintf(stderr, "stand-in driver: STANDIN_KERNELS is not set\n");
    for (std::string rest = list ? list : ""; !rest.empty();) {
      size_t end = rest.find(':');
      std::string path = rest.substr(0, end);
      rest = end == std::string::npos ? "" : rest.substr(end + 1);
      void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (!handle) fprintf(stderr, "stand-in driver: %s\n", dlerror());
      else found.push_back({path, handle, (Launch)dlsym(handle, "host_launch")});
    }
    return found;
  }();
  return all;
}

// The one library that has a kernel of this name; modules of a card have names of their own, libraries here share them.
static void *find(const std::string &name, Launch *launch) {
  void *code = nullptr;
  for (auto &library : libraries())
    if (void *here = dlsym(library.handle, name.c_str())) {
      if (code) {
        fprintf(stderr, "stand-in driver: two kernels are called %s\n", name.c_str());
        return nullptr;
      }
      code = here;
      *launch = library.launch;
    }
  return code;
}

// Counts by name, written when the process ends.
struct Log {
  std::mutex lock;
  std::map<std::string, uint64_t> counts;
  void add(const std::string &what, uint64_t n = 1) {
    std::lock_guard<std::mutex> held(lock);
    counts[what] += n;
  }
  ~Log() {
    const char *path = getenv("STANDIN_LOG");
    FILE *f = path && !counts.empty() ? fopen(path, "a") : nullptr;
    if (!f) return;
    for (auto &[what, n] : counts) fprintf(f, "%s %llu\n", what.c_str(), (unsigned long long)n);
    fclose(f);
  }
};
static Log &log_of() {
  static Log log;
  return log;
}

// The stream that is another one in each thread: work that threads hand to each other is in no order on a card.
static void see_stream(void *stream) {
  if (stream == (void *)2) log_of().add("stream per-thread");
}

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int *v) { return *v = 13000, SUCCESS; }
API cuDeviceGetCount(int *n) { return *n = 1, SUCCESS; }
API cuDeviceGet(int *d, int ordinal) { return *d = ordinal, ordinal == 0 ? SUCCESS : 101; }
API cuDeviceGetName(char *s, int n, int) { return snprintf(s, n, "host stand-in"), SUCCESS; }
API cuDeviceGetAttribute(int *v, int attribute, int) {
  switch (attribute) {
    case 75: *v = 9; break;  // compute capability 9.0
    case 76: *v = 0; break;
    default: *v = 1;
  }
  return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t *n, int) { return *n = size_t(8) << 30, SUCCESS; }
API cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = *total = size_t(8) << 30, SUCCESS; }
static int context;
API cuDevicePrimaryCtxRetain(void **c, int) { return *c = &context, SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void *) { return SUCCESS; }
API cuCtxGetCurrent(void **c) { return *c = &context, SUCCESS; }
API cuCtxSynchronize() { return SUCCESS; }
API cuStreamCreate(void **s, unsigned) { return *s = (void *)16, SUCCESS; }
API cuStreamDestroy_v2(void *) { return SUCCESS; }
API cuStreamSynchronize(void *) { return log_of().add("wait stream"), SUCCESS; }
API cuStreamWaitEvent(void *, void *, unsigned) { return SUCCESS; }
API cuStreamIsCapturing(void *, int *v) { return *v = 0, SUCCESS; }
API cuEventCreate(void **e, unsigned) { return *e = (void *)16, SUCCESS; }
API cuEventDestroy_v2(void *) { return SUCCESS; }
API cuEventRecord(void *, void *) { return SUCCESS; }
API cuEventSynchronize(void *) { return SUCCESS; }
API cuEventQuery(void *) { return SUCCESS; }

// Memory is full of what is no number until it is written, so that reading it shows.
API cuMemAlloc_v2(void **p, size_t n) {
  size_t bytes = (n + 15) / 16 * 16 + 16;
  *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!*p) return 2;
  memset(*p, 0xff, bytes);
  return SUCCESS;
}
API cuMemAllocAsync(void **p, size_t n, void *stream) { return see_stream(stream), cuMemAlloc_v2(p, n); }
API cuMemFree_v2(void *p) { return free(p), SUCCESS; }
API cuMemFreeAsync(void *p, void *) { return free(p), SUCCESS; }
API cuMemcpyHtoDAsync_v2(void *d, const void *s, size_t n, void *stream) {
  see_stream(stream);
  log_of().add("copy to-device");
  return memcpy(d, s, n), SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void *d, const void *s, size_t n, void *stream) {
  see_stream(stream);
  log_of().add("copy to-host");
  log_of().add("bytes to-host", n);
  return memcpy(d, s, n), SUCCESS;
}
API cuMemcpyDtoDAsync_v2(void *d, const void *s, size_t n, void *stream) {
  see_stream(stream);
  return memmove(d, s, n), SUCCESS;
}
API cuMemsetD8Async(void *d, unsigned char v, size_t n, void *stream) { return see_stream(stream), memset(d, v, n), SUCCESS; }
API cuGetErrorName(int code, const char **s) { return *s = code == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR", SUCCESS; }
API cuGetErrorString(int, const char **s) { return *s = "from the stand-in driver", SUCCESS; }

API cuModuleLoadData(void **m, const void *image) {
  auto *module = new Module;
  std::string ptx(static_cast<const char *>(image));
  static const std::regex entry(R"(\.entry\s+(\w+)\s*\(([^)]*)\))"), bound(R"(\.maxntid\s+(\d+))"), param(R"(\.param\s+(?:\.align\s+\d+\s+)?\.(\w)(\d+))");
  std::vector<std::smatch> found(std::sregex_iterator(ptx.begin(), ptx.end(), entry), {});
  for (size_t i = 0; i < found.size(); ++i) {
    Function f;
    f.name = found[i][1];
    std::string params = found[i][2];
    for (auto j = std::sregex_iterator(params.begin(), params.end(), param); j != std::sregex_iterator(); ++j) {
      std::string kind = (*j)[1], bits = (*j)[2];
      f.kinds += kind == "f" ? (bits == "64" ? 'd' : 'f') : bits == "64" ? 'q' : bits == "32" ? 'i' : bits == "16" ? 'h' : 'b';
    }
    size_t begin = found[i].position(), end = i + 1 < found.size() ? found[i + 1].position() : ptx.size();
    std::string body = ptx.substr(begin, end - begin);
    std::smatch most;
    std::string before = body.substr(0, body.find('{'));
    if (std::regex_search(before, most, bound)) f.threads = std::stoul(most[1]);
    f.synchronises = body.find("bar.") != std::string::npos || body.find("barrier") != std::string::npos || body.find("shfl") != std::string::npos;
    module->functions[f.name] = f;
  }
  *m = module;
  return SUCCESS;
}
API cuModuleUnload(void *m) { return delete static_cast<Module *>(m), SUCCESS; }
API cuModuleGetFunction(void **f, void *m, const char *name) {
  auto &functions = static_cast<Module *>(m)->functions;
  auto found = functions.find(name);
  if (found != functions.end() && !found->second.code) found->second.code = find(name, &found->second.launch);
  if (found == functions.end() || !found->second.code) {
    fprintf(stderr, "stand-in driver: no host build of the kernel %s\n", name);
    return NOT_FOUND;
  }
  *f = &found->second;
  return SUCCESS;
}
API cuFuncGetAttribute(int *v, int, void *) { return *v = 1024, SUCCESS; }
API cuFuncSetAttribute(void *, int, int) { return SUCCESS; }
API cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **args, void **) {
  // limits of a launch that every card since compute capability 7.5 has, and the kernel's own __launch_bounds__
  if (gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || bx * by * bz == 0 || bx * by * bz > f->threads || bz > 64) {
    fprintf(stderr, "stand-in driver: %s: a grid of %u %u %u blocks of %u %u %u threads\n", f->name.c_str(), gx, gy, gz, bx, by, bz);
    return 1;
  }
  (void)shared;
  see_stream(stream);
  log_of().add("launch " + f->name);
  static std::mutex one;  // threads of the program launch at once; blocks run one after the other
  std::lock_guard<std::mutex> held(one);
  unsigned dims[] = {gx, gy, gz, bx, by, bz};
  return f->launch(f->code, f->kinds.c_str(), args, dims, f->synchronises) ? LAUNCH_FAILED : SUCCESS;
}

// linked by candle and never called here
#define ABSENT(name)                                            \
  API name() {                                                  \
    fprintf(stderr, "stand-in driver: no " #name "\n");         \
    abort();                                                    \
  }
ABSENT(cuCtxDestroy_v2)
ABSENT(cuMemcpyPeerAsync)
ABSENT(cuModuleLoad)
ABSENT(cuEventElapsedTime)
ABSENT(cuEventElapsedTime_v2)
