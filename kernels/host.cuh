/* CUDA's execution model on the host, as far as this room's kernels use it, so
 * that their index arithmetic runs in the ordinary test suite.
 *
 * DESIGN: blocks run one after another, in an order permuted by a seed. The
 * threads of a block are fibers on one OS thread; a fiber runs until it meets a
 * barrier or a warp operation. When no fiber can run, either all threads of the
 * block stand at the same __syncthreads(), or all lanes of some mask stand at the
 * same warp operation, and they go on; or somebody waits for a thread that never
 * comes, and that is the error the launch returns.
 *
 * Stricter than a device where a device would be silently lucky:
 *   - shared memory remembers for each element who wrote and read it since which
 *     barrier: a read of what nobody wrote in this block, an index out of range,
 *     and two threads at one element without a barrier between them are faults,
 *     in whatever order the fibers happened to run;
 *   - a barrier counts only if every thread of the block reaches the same line;
 *     a thread that has returned does not count as arrived;
 *   - a lane read by a shuffle must be in the mask and alive;
 *   - a vector load or store must be aligned.
 * Not modelled: memory order between blocks, occupancy, speed. Global memory is
 * the host's, so AddressSanitizer sees every access.
 *
 * The first fault ends the launch; its words come back as the launch's error.
 * Not thread-safe: one launch at a time.
 */
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

#include "kernels/half.h"

/* ucontext asks the kernel for the signal mask at every switch, which is most of a
 * switch's time. On x86-64 ten instructions do without; AddressSanitizer knows
 * ucontext alone, so there it stays. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define HP_HOST_SWITCH 1
#else
#define HP_HOST_SWITCH 0
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;

    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
        : x(x_), y(y_), z(z_)
    {
    }
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace hp_host
{

enum { WARP = 32, STACK_BYTES = 128 * 1024, MAX_THREADS = 1024 };

enum class wait { none, block, warp, gone };

#if HP_HOST_SWITCH
/* Keeps what the ABI lets a callee keep, changes stacks, and returns over there. */
[[gnu::naked, gnu::noinline]] inline void switch_stacks(void **, void *)
{
    asm volatile(
        "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
}
#endif

/* Where a fiber, or the scheduler, left off. */
struct place {
#if HP_HOST_SWITCH
    void *sp = nullptr;
#else
    ucontext_t context;
#endif
};

struct fiber {
    place left;
    char *stack = nullptr;
    uint3 index{};
    wait at = wait::none;
    int line = 0;              /* of the barrier or warp operation */
    unsigned mask = 0;         /* lanes of the warp operation */
    uint64_t given = 0;        /* what this lane brought */
    uint64_t taken[WARP] = {}; /* what all lanes of the mask brought */
    unsigned warp_epoch = 0;   /* __syncwarp()s passed */
};

struct machine {
    std::vector<fiber> fibers;
    place scheduler;
    std::function<void()> kernel;
    int current = -1, count = 0;
    unsigned block_epoch = 0;  /* barriers passed in this block */
    uint64_t block_serial = 0; /* never repeats: shared memory's lifetime */
    uint64_t seed = 0, state = 0;
    char fault[200] = {};
};

inline machine the_machine;

inline machine &the()
{
    return the_machine;
}

inline void go(place &from, place &to)
{
#if HP_HOST_SWITCH
    switch_stacks(&from.sp, to.sp);
#else
    swapcontext(&from.context, &to.context);
#endif
}

inline uint64_t random_next(machine &m)
{
    m.state += 0x9e3779b97f4a7c15u;
    uint64_t z = m.state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Seed 0 keeps the natural order. */
inline void permute(machine &m, std::vector<int> &v)
{
    for (size_t i = v.size(); m.seed != 0 && i > 1; i--)
        std::swap(v[i - 1], v[random_next(m) % i]);
}

inline void to_scheduler()
{
    machine &m = the();

    go(m.fibers[m.current].left, m.scheduler);
}

/* Keeps the first fault and leaves the fiber for good. */
[[gnu::format(printf, 1, 2)]] inline void fault(const char *fmt, ...)
{
    machine &m = the();

    if (m.fault[0] == 0) {
        va_list args;
        int n = 0;

        if (m.current >= 0)
            n = snprintf(m.fault, sizeof m.fault,
                         "block (%u,%u,%u) thread %d: ", blockIdx.x, blockIdx.y,
                         blockIdx.z, m.current);
        va_start(args, fmt);
        vsnprintf(m.fault + n, sizeof m.fault - (size_t)n, fmt, args);
        va_end(args);
    }
    if (m.current >= 0) {
        m.fibers[m.current].at = wait::gone;
        to_scheduler();
    }
}

inline void entry()
{
    machine &m = the();

    m.kernel();
    m.fibers[m.current].at = wait::gone;
    m.fibers[m.current].line = 0;
    to_scheduler();
}

inline void prepare(machine &m, int i)
{
    fiber &f = m.fibers[i];

    if (f.stack == nullptr)
        f.stack = static_cast<char *>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
#if HP_HOST_SWITCH
    void **top = reinterpret_cast<void **>(f.stack + STACK_BYTES);

    *--top = nullptr; /* entry() never returns; this keeps its stack aligned */
    *--top = reinterpret_cast<void *>(entry);
    f.left.sp = top - 6; /* the registers popped on the way in: whatever */
#else
    getcontext(&f.left.context);
    f.left.context.uc_stack.ss_sp = f.stack;
    f.left.context.uc_stack.ss_size = STACK_BYTES;
    f.left.context.uc_link = nullptr;
    makecontext(&f.left.context, entry, 0);
#endif
    f.index.x = (unsigned)i % blockDim.x;
    f.index.y = (unsigned)i / blockDim.x % blockDim.y;
    f.index.z = (unsigned)i / blockDim.x / blockDim.y;
    f.at = wait::none;
    f.warp_epoch = 0;
}

/* Everybody at one barrier: pass. True when somebody may go on. */
inline bool pass_barrier(machine &m)
{
    int line = m.fibers[0].line;

    for (int i = 0; i < m.count; i++)
        if (m.fibers[i].at != wait::block || m.fibers[i].line != line)
            return false;
    for (int i = 0; i < m.count; i++)
        m.fibers[i].at = wait::none;
    m.block_epoch++;
    return true;
}

/* The lanes of fiber i's mask at one warp operation: exchange and pass. */
inline bool pass_warp(machine &m, int i)
{
    const fiber &f = m.fibers[i];
    int first = i / WARP * WARP;

    for (int k = 0; k < WARP; k++) {
        const fiber *o = first + k < m.count ? &m.fibers[first + k] : nullptr;

        if (f.mask >> k & 1u && (o == nullptr || o->at != wait::warp ||
                                 o->line != f.line || o->mask != f.mask))
            return false;
    }
    unsigned mask = f.mask;
    uint64_t all[WARP] = {};

    for (int k = 0; k < WARP; k++)
        if (mask >> k & 1u)
            all[k] = m.fibers[first + k].given;
    for (int k = 0; k < WARP; k++)
        if (mask >> k & 1u) {
            memcpy(m.fibers[first + k].taken, all, sizeof all);
            m.fibers[first + k].at = wait::none;
        }
    return true;
}

inline void report_stuck(machine &m)
{
    for (int i = 0; i < m.count; i++) {
        const fiber &f = m.fibers[i];

        if (f.at != wait::block && f.at != wait::warp)
            continue;
        for (int o = 0; o < m.count; o++)
            if (m.fibers[o].at != f.at || m.fibers[o].line != f.line) {
                m.current = -1;
                fault("block (%u,%u,%u): the %s at line %d is reached by thread %d, "
                      "never by thread %d",
                      blockIdx.x, blockIdx.y, blockIdx.z,
                      f.at == wait::block ? "barrier" : "warp operation", f.line, i, o);
                return;
            }
    }
    m.current = -1;
    fault("a warp operation waits for lanes that are not there");
}

inline void run_block(machine &m)
{
    std::vector<int> order;

    m.block_epoch = 0;
    m.block_serial++;
    for (int i = 0; i < m.count; i++) {
        prepare(m, i);
        order.push_back(i);
    }
    for (;;) {
        bool ran = false, all_gone = true;

        permute(m, order);
        for (int i : order) {
            if (m.fibers[i].at != wait::none)
                continue;
            ran = true;
            m.current = i;
            threadIdx = m.fibers[i].index;
            go(m.scheduler, m.fibers[i].left);
            m.current = -1;
            if (m.fault[0] != 0)
                return;
        }
        for (int i = 0; i < m.count; i++)
            all_gone = all_gone && m.fibers[i].at == wait::gone;
        if (all_gone)
            return;
        if (ran)
            continue;
        bool passed = pass_barrier(m);
        for (int i = 0; i < m.count; i++)
            if (m.fibers[i].at == wait::warp && pass_warp(m, i))
                passed = true;
        if (!passed) {
            report_stuck(m);
            return;
        }
    }
}

/* The fault's words, or NULL. */
inline const char *run(dim3 grid, dim3 block, std::function<void()> kernel)
{
    machine &m = the();
    uint64_t count = (uint64_t)block.x * block.y * block.z;
    std::vector<int> order;

    m.fault[0] = 0;
    m.state = m.seed;
    m.current = -1;
    if (count == 0 || count > MAX_THREADS || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
        grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
        fault("a grid of (%u,%u,%u) blocks of (%u,%u,%u) threads", grid.x, grid.y, grid.z,
              block.x, block.y, block.z);
        return m.fault;
    }
    gridDim = grid;
    blockDim = block;
    m.kernel = std::move(kernel);
    m.count = (int)count;
    if (m.fibers.empty())
        m.fibers.resize(MAX_THREADS);
    for (unsigned i = 0; i < grid.x * grid.y * grid.z; i++)
        order.push_back((int)i);
    permute(m, order);
    for (int i : order) {
        blockIdx.x = (unsigned)i % grid.x;
        blockIdx.y = (unsigned)i / grid.x % grid.y;
        blockIdx.z = (unsigned)i / grid.x / grid.y;
        run_block(m);
        if (m.fault[0] != 0)
            return m.fault;
    }
    return nullptr;
}

inline void meet(wait at, int line, unsigned mask, uint64_t given)
{
    fiber &f = the().fibers[the().current];

    f.at = at;
    f.line = line;
    f.mask = mask;
    f.given = given;
    to_scheduler();
}

/* What each lane brought to a warp operation. */
inline const uint64_t *meet_warp(unsigned mask, int line, uint64_t given)
{
    machine &m = the();

    if (!(mask >> m.current % WARP & 1u))
        fault("line %d: a lane outside its own mask", line);
    meet(wait::warp, line, mask, given);
    return m.fibers[m.current].taken;
}

template <typename T> T shuffle(unsigned mask, int line, T v, int from)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves 8 bytes");
    int self = the().current % WARP;
    uint64_t given = 0;

    memcpy(&given, &v, sizeof v);
    const uint64_t *taken = meet_warp(mask, line, given);
    if (from < 0 || from >= WARP)
        from = self; /* as the device: beyond the warp, one's own value */
    if (!(mask >> from & 1u))
        fault("line %d: a shuffle from lane %d, outside the mask", line, from);
    memcpy(&v, &taken[from], sizeof v);
    return v;
}

/* --- shared memory ----------------------------------------------------- */

/* One access: by whom, and after how many barriers. */
struct access {
    int thread = -1; /* -1 none, -2 several of one warp, -3 of several warps */
    int warp = -1;
    unsigned block_epoch = 0, warp_epoch = 0;
    bool atomic = false;
};

/* Is `a` ordered before what fiber f of warp w does now? */
inline bool ordered(const access &a, int thread, unsigned warp_epoch)
{
    machine &m = the();

    if (a.thread == -1 || a.thread == thread || a.block_epoch != m.block_epoch)
        return true;
    return a.warp == thread / WARP && a.warp_epoch < warp_epoch;
}

template <typename T, int N> class shared_array
{
  public:
    class ref
    {
      public:
        ref(shared_array &a, int i) : array(a), at(i) {}
        operator T() const { return array.read(at); }
        ref &operator=(T v)
        {
            array.write(at, v, false);
            return *this;
        }
        ref &operator=(const ref &o) { return *this = (T)o; }
        ref &operator+=(T v) { return *this = (T) * this + v; }

      private:
        shared_array &array;
        int at;
    };

    ref operator[](int i) { return ref(*this, i); }

    template <typename F> T update(int i, F f)
    {
        check(i);
        if (!written[i])
            fault("shared memory %s[%d] is updated before anybody wrote it", name, i);
        T old = data[i];
        write(i, f(old), true);
        return old;
    }

    explicit shared_array(const char *n) : name(n) {}

  private:
    void check(int i)
    {
        if (serial != the().block_serial) { /* another block: all is poison again */
            serial = the().block_serial;
            memset(written, 0, sizeof written);
            for (int k = 0; k < N; k++)
                writer[k] = reader[k] = access();
        }
        if (i < 0 || i >= N)
            fault("shared memory %s[%d] of %d", name, i, N);
    }

    access now(bool atomic) const
    {
        machine &m = the();

        return {m.current, m.current / WARP, m.block_epoch,
                m.fibers[m.current].warp_epoch, atomic};
    }

    T read(int i)
    {
        check(i);
        access a = now(false);

        if (!written[i])
            fault("shared memory %s[%d] is read before anybody wrote it", name, i);
        if (!ordered(writer[i], a.thread, a.warp_epoch))
            fault("shared memory %s[%d]: read without a barrier after thread %d wrote it",
                  name, i, writer[i].thread);
        if (!ordered(reader[i], a.thread, a.warp_epoch)) {
            a.warp_epoch = std::max(a.warp_epoch, reader[i].warp_epoch);
            if (reader[i].warp == a.warp) {
                a.thread = -2;
            } else {
                a.thread = -3;
                a.warp = -1;
            }
        }
        reader[i] = a;
        return data[i];
    }

    void write(int i, T v, bool atomic)
    {
        check(i);
        access a = now(atomic);

        if (!ordered(reader[i], a.thread, a.warp_epoch))
            fault("shared memory %s[%d]: written without a barrier after it was read",
                  name, i);
        if (!ordered(writer[i], a.thread, a.warp_epoch) && !(atomic && writer[i].atomic))
            fault("shared memory %s[%d]: written without a barrier after thread %d wrote "
                  "it",
                  name, i, writer[i].thread);
        writer[i] = a;
        written[i] = true;
        data[i] = v;
    }

    const char *name;
    uint64_t serial = 0;
    T data[N] = {};
    bool written[N] = {};
    access writer[N], reader[N];
};

} // namespace hp_host

/* The lines tell barriers apart. */
#define __syncthreads() hp_host::meet(hp_host::wait::block, __LINE__, 0, 0)
#define __syncwarp()                                                                     \
    do {                                                                                 \
        hp_host::meet_warp(0xffffffffu, __LINE__, 0);                                    \
        hp_host::the().fibers[hp_host::the().current].warp_epoch++;                      \
    } while (0)
#define __shfl_sync(mask, v, from) hp_host::shuffle(mask, __LINE__, v, from)
#define __shfl_down_sync(mask, v, by)                                                    \
    hp_host::shuffle(mask, __LINE__, v, hp_host::the().current % 32 + (int)(by))
#define __shfl_xor_sync(mask, v, with)                                                   \
    hp_host::shuffle(mask, __LINE__, v, (hp_host::the().current % 32) ^ (int)(with))

static inline unsigned hp_host_ballot(unsigned mask, int line, int predicate)
{
    const uint64_t *taken = hp_host::meet_warp(mask, line, predicate != 0);
    unsigned bits = 0;

    for (int k = 0; k < 32; k++)
        bits |= (mask >> k & 1u && taken[k] != 0) ? 1u << k : 0u;
    return bits;
}
#define __ballot_sync(mask, predicate) hp_host_ballot(mask, __LINE__, predicate)

#define HP_SHARED(type, name, count)                                                     \
    static hp_host::shared_array<type, (count)> name(#name)

/* One fiber at a time: global atomics are plain. */
template <typename T> static inline T atomicAdd(T *at, T v)
{
    T old = *at;

    *at = old + v;
    return old;
}
template <typename T> static inline T atomicMax(T *at, T v)
{
    T old = *at;

    *at = old > v ? old : v;
    return old;
}

static inline unsigned __float_as_uint(float f)
{
    return hp_float_bits(f);
}
static inline float __uint_as_float(unsigned u)
{
    return hp_bits_float(u);
}
static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline double __dmul_rn(double a, double b)
{
    return a * b;
}
static inline double __dadd_rn(double a, double b)
{
    return a + b;
}
