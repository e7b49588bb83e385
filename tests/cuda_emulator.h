// The CUDA constructs that AMK's device library uses, on a CPU: each thread of each SM is a fiber, all of one host thread.
// Included before a kernel's source, from which cuda_emulator.py has removed the functions that contain PTX.
//
// Fibers give way where they poll, at barriers, and now and then around what other SMs may see; which SM goes on, and for
// how long another one is held up, is drawn from the seed. So a seed repeats an execution, and a wait costs no CPU time.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// The kernel itself is compiled without optimisation, because compiling takes longer than running it.
#pragma GCC push_options
#pragma GCC optimize("O2")

#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__

struct Index {
    unsigned x;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
template <typename To, typename From>
static inline To bits_as(From from) {
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline unsigned __float_as_uint(float v) { return bits_as<unsigned>(v); }
static inline float __uint_as_float(unsigned v) { return bits_as<float>(v); }
static inline float __int_as_float(int v) { return bits_as<float>(v); }
static inline int __float2int_rn(float v) { return static_cast<int>(lrintf(v)); }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const unsigned long long both = static_cast<unsigned long long>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(both >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
    return result;
}
static inline unsigned atomicCAS(unsigned* p, unsigned expected, unsigned value) {
    const unsigned found = *p;
    if (found == expected) *p = value;
    return found;
}
static inline unsigned atomicExch(unsigned* p, unsigned value) {
    const unsigned found = *p;
    *p = value;
    return found;
}

// ---- fibers ---------------------------------------------------------------------------------------------------------

// A suspended fiber, or the scheduler. emu_switch(from, to): goes on with `to`, until another switch goes back to `from`.
// emu_prepare: a fiber that begins with `entry`, which does not return.
#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
struct Context {
    void* stack;
};
extern "C" void emu_switch(Context* from, Context* to);
// the registers that calls preserve; ucontext's functions would ask the kernel for the signal mask each time
asm(".text\n.type emu_switch, @function\nemu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq (%rsi), %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nretq\n"
    ".size emu_switch, .-emu_switch\n");
static void emu_prepare(Context* fiber, char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + bytes) - 8;  // six registers, where it begins, no caller
    memset(top, 0, 8 * sizeof(void*));
    top[6] = reinterpret_cast<void*>(entry);
    fiber->stack = top;
}
#else
#include <ucontext.h>
using Context = ucontext_t;
static void emu_switch(Context* from, Context* to) { swapcontext(from, to); }
static void emu_prepare(Context* fiber, char* stack, size_t bytes, void (*entry)()) {
    getcontext(fiber);
    fiber->uc_stack.ss_sp = stack;
    fiber->uc_stack.ss_size = bytes;
    fiber->uc_link = nullptr;
    makecontext(fiber, entry, 0);
}
#endif

constexpr int EMU_THREADS = 288;
constexpr size_t EMU_STACK = 256 << 10;
constexpr int EMU_COPIES = 1024;
constexpr int EMU_WORD_COPIES = 64;

// By the bulk copy engine, or of a lane of the producer warp: every 32nd 16 bytes.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
    unsigned bytes;
    unsigned long long* barrier;
    unsigned delay;
    bool is_bulk;
    unsigned lane;

    template <typename Piece>
    void each_piece(Piece piece) const {
        if (is_bulk) piece(to, from, bytes);
        for (unsigned at = lane * 16; !is_bulk && at < bytes; at += 32 * 16) piece(to + at, from + at, 16u);
    }
};
// Words that a thread copies itself: read at any time after the copy began, there when the thread has waited for its group.
struct WordCopy {
    void* to;
    uint4 words;
    int group;
};
struct EmuBarrier {
    int arrived;
    unsigned generation;
};
struct Sm {
    unsigned number;
    Context scheduler, fiber[EMU_THREADS];
    bool done[EMU_THREADS];
    EmuBarrier* barrier[EMU_THREADS];  // at which it waits, while it has the generation `waited`
    unsigned waited[EMU_THREADS];
    int running, left;
    unsigned held;  // turns that others get before
    EmuBarrier all, consumers, warp[EMU_THREADS / 32];
    unsigned slot[EMU_THREADS][8];
    Copy copies[EMU_COPIES];
    int copy_count;
    WordCopy words[EMU_THREADS][EMU_WORD_COPIES];
    int word_copies[EMU_THREADS], word_groups[EMU_THREADS];
    unsigned char* shared;
};
static Sm* emu_sm;
static Index threadIdx, blockIdx;
static unsigned char* emu_dynamic_shared;
static unsigned emu_random_state;
static unsigned long long emu_events;  // of all that a wait may be for
static unsigned long long emu_clock;   // ns
static unsigned emu_fastest_copy;      // turns that a copy takes at least

static unsigned emu_random(unsigned below) {
    emu_random_state = emu_random_state * 1664525u + 1013904223u;
    return static_cast<unsigned>(static_cast<unsigned long long>(emu_random_state) * below >> 32);
}
static __attribute__((noinline)) void emu_yield() {
    Sm* sm = emu_sm;
    emu_switch(&sm->fiber[sm->running], &sm->scheduler);
}
// Where an SM does what others see, they may come in between.
static void emu_visible(unsigned one_in) {
    ++emu_events;
    if (emu_random(one_in) == 0) emu_yield();
}
static void emu_barrier(EmuBarrier& barrier, int count) {
    const unsigned generation = barrier.generation;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        ++barrier.generation;
        ++emu_events;
        return;
    }
    emu_sm->barrier[emu_sm->running] = &barrier;
    emu_sm->waited[emu_sm->running] = generation;
    emu_yield();  // it goes on when the generation is another one
}
static inline void __syncthreads() { emu_barrier(emu_sm->all, EMU_THREADS); }
static inline void __syncwarp() { emu_barrier(emu_sm->warp[threadIdx.x / 32], 32); }
template <typename T>
static T __shfl_xor_sync(unsigned, T value, int mask) {
    memcpy(emu_sm->slot[threadIdx.x], &value, sizeof value);
    __syncwarp();
    T result;
    memcpy(&result, emu_sm->slot[threadIdx.x ^ mask], sizeof result);
    __syncwarp();
    return result;
}

static inline int __any_sync(unsigned, bool value) {
    emu_sm->slot[threadIdx.x][0] = value;
    __syncwarp();
    unsigned any = 0;
    for (unsigned lane = 0; lane < 32; ++lane) any |= emu_sm->slot[threadIdx.x / 32 * 32 + lane][0];
    __syncwarp();
    return any != 0;
}

// ---- what replaces PTX ----------------------------------------------------------------------------------------------

static inline void consumer_barrier() { emu_barrier(emu_sm->consumers, 256); }
static inline unsigned long long now_ns() {
    emu_yield();
    return emu_clock += 32;
}
static inline unsigned long long* kept(unsigned long long* pointer) { return pointer; }
static inline void store_event(unsigned long long* to, unsigned code, unsigned time) {
    *to = static_cast<unsigned long long>(code) << 32 | time;
}
static inline unsigned clock_word() { return static_cast<unsigned>(now_ns()); }
static inline void signal_counter(unsigned* counter) {
    emu_visible(2);
    ++*counter;
    emu_visible(2);
}
static inline unsigned load_word(const unsigned* p) {
    emu_yield();
    return *p;
}
static inline unsigned load_acquire(const unsigned* p) { return load_word(p); }
static inline uint4 load_words(const unsigned* p) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) abort();
    return {load_word(p), load_word(p + 1), load_word(p + 2), load_word(p + 3)};
}
static inline void start_words(void* to, const unsigned* from) {
    int& count = emu_sm->word_copies[threadIdx.x];
    if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || count == EMU_WORD_COPIES) abort();
    emu_sm->words[threadIdx.x][count++] = {to, load_words(from), emu_sm->word_groups[threadIdx.x]};
    memset(to, 0xff, 16);
}
static inline void prefetch_line(const void*) {}
static inline void commit_words() { ++emu_sm->word_groups[threadIdx.x]; }
static void emu_await_words(int others) {
    int& count = emu_sm->word_copies[threadIdx.x];
    int left = 0;
    for (int n = 0; n < count; ++n) {
        const WordCopy copy = emu_sm->words[threadIdx.x][n];
        if (copy.group < emu_sm->word_groups[threadIdx.x] - others) memcpy(copy.to, &copy.words, 16);
        else emu_sm->words[threadIdx.x][left++] = copy;
    }
    count = left;
}
static inline void await_copied(int later) { emu_await_words(later < 3 ? later : 3); }
static inline uint4 load_shared_if(const unsigned short* p, bool wanted) {
    return wanted ? *reinterpret_cast<const uint4*>(p) : uint4{0, 0, 0, 0};
}
static inline unsigned thread_number() { return threadIdx.x; }
static inline void send_token(unsigned long long* to, unsigned long long word) {
    emu_visible(2);
    *to = word;
}
static inline void store_word(unsigned* p, unsigned word) {
    emu_visible(8);
    *p = word;
}
static inline float power_of_two(float x) { return x < -126.0f ? 0.0f : exp2f(x); }
static inline float reciprocal(float x) { return 1.0f / x; }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline unsigned emu_bf16(float value) {
    const unsigned bits = __float_as_uint(value);
    return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static inline unsigned to_bf16x2(float first, float second) { return emu_bf16(second) << 16 | emu_bf16(first); }
static inline unsigned either(unsigned a, unsigned b) { return a | b; }
static inline unsigned add_difference(unsigned so_far, unsigned word, unsigned epoch) { return so_far | (word ^ epoch); }

static inline unsigned fma_bf16x2(unsigned a, unsigned b, unsigned c) {
    unsigned result = 0;
    for (int half = 0; half < 32; half += 16) {
        auto value = [half](unsigned word) { return __uint_as_float((word >> half & 0xffff) << 16); };
        // the sum is exact in double; what the device rounds to bf16 is always exact here too
        const double sum = static_cast<double>(value(a)) * value(b) + value(c);
        result |= emu_bf16(static_cast<float>(sum)) << half;
    }
    return result;
}
static inline float from_f16(unsigned short bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float value = exponent == 0    ? ldexpf(mantissa, -24)
                        : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                         : ldexpf(1024 + mantissa, exponent - 25);
    return bits >> 15 ? -value : value;
}

// mbarrier: arrivals expected (12 bits), arrivals pending (12), phase (1), bytes pending (32, from bit 32)
struct Mbarrier {
    unsigned expected : 12, pending : 12, phase : 1;
    int bytes;
};
static void mbarrier_check(Mbarrier* b) {
    if (b->pending == 0 && b->bytes == 0) {
        b->phase ^= 1;
        b->pending = b->expected;
        ++emu_events;
    }
}
static inline Mbarrier* mbarrier_at(unsigned long long* p) { return reinterpret_cast<Mbarrier*>(p); }
static inline void mbarrier_init(unsigned long long* p, unsigned arrivals) { *mbarrier_at(p) = {arrivals, arrivals, 0, 0}; }
static inline void mbarrier_arrive(unsigned long long* p) {
    if (mbarrier_at(p)->pending == 0) abort();
    --mbarrier_at(p)->pending;
    mbarrier_check(mbarrier_at(p));
}
static inline bool mbarrier_poll(unsigned long long* p, unsigned parity) {
    emu_yield();
    return mbarrier_at(p)->phase != parity;
}
static inline void publish_barriers() {}
// what moves registers changes no result; of the producer's warpgroup, only the warp that works is there
static inline void give_registers() {}
static inline void take_registers() {}
static inline void hold_off() { emu_yield(); }
static inline void order_copies() {}
static inline void drain_copies() {}
static inline void __threadfence_block() {}
// By the one thread that drives a ring of bulk copies, or by all lanes of the warp that drives another one: their arrivals are
// made when their copies have landed.
static inline void start_copy(unsigned char* to, const unsigned char* from, unsigned bytes, unsigned long long* full) {
    if (bytes % 16 || reinterpret_cast<uintptr_t>(from) % 16) abort();
    const bool is_bulk = mbarrier_at(full)->expected == 1;
    if (!is_bulk && mbarrier_at(full)->expected != 32) abort();
    const Copy copy = {to, from, bytes, full, emu_fastest_copy + emu_random(7), is_bulk, threadIdx.x % 32};
    copy.each_piece([](unsigned char* to, const unsigned char*, unsigned n) { memset(to, 0xff, n); });  // NaN until it lands
    if (emu_sm->copy_count == EMU_COPIES) abort();
    emu_sm->copies[emu_sm->copy_count++] = copy;
}
// The producer's arrival at a barrier of bulk copies, before the copy.
static inline void expect_copy(unsigned long long* full, unsigned bytes) {
    if (mbarrier_at(full)->expected != 1) return;
    mbarrier_at(full)->bytes += bytes;
    mbarrier_arrive(full);
}

// mma.m16n8k16 with the register layout of the PTX manual: lane = 4 * row + pair
static void mma(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    unsigned* mine = emu_sm->slot[threadIdx.x];
    mine[0] = a0, mine[1] = a1, mine[2] = a2, mine[3] = a3, mine[4] = b0, mine[5] = b1;
    __syncwarp();
    const int warp = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    auto half = [](unsigned word, int k) { return __uint_as_float(k % 2 ? word & 0xffff0000u : word << 16); };
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i / 2) * 8, column = lane % 4 * 2 + i % 2;
        double total = sum[i];
        for (int k = 0; k < 16; ++k) {
            const unsigned* a = emu_sm->slot[warp + row % 8 * 4 + k % 8 / 2];
            const unsigned* b = emu_sm->slot[warp + column * 4 + k % 8 / 2];
            total += static_cast<double>(half(a[row / 8 + k / 8 * 2], k)) * half(b[4 + k / 8], k);
        }
        sum[i] = static_cast<float>(total);
    }
    __syncwarp();
}

// ---- launch ---------------------------------------------------------------------------------------------------------

static void (*emu_body)();

static void emu_thread() {
    emu_body();
    Sm* sm = emu_sm;
    sm->done[sm->running] = true;
    --sm->left;
    ++emu_events;
    emu_yield();
    abort();
}

// Runs each fiber of an SM that can go on once, from a random one on, and lets copies land.
static void emu_round(Sm* sm) {
    emu_sm = sm;
    blockIdx.x = sm->number;
    emu_dynamic_shared = sm->shared;
    const int start = emu_random(EMU_THREADS);
    for (int n = 0; n < EMU_THREADS; ++n) {
        const int t = start + n < EMU_THREADS ? start + n : start + n - EMU_THREADS;
        if (sm->done[t]) continue;
        if (sm->barrier[t]) {
            if (sm->barrier[t]->generation == sm->waited[t]) continue;
            sm->barrier[t] = nullptr;
        }
        sm->running = t;
        threadIdx.x = t;
        emu_switch(&sm->scheduler, &sm->fiber[t]);
    }
    int kept = 0;
    for (int c = 0; c < sm->copy_count; ++c) {
        Copy& copy = sm->copies[c];
        if (copy.delay-- > 0) {
            sm->copies[kept++] = copy;
            continue;
        }
        copy.each_piece([](unsigned char* to, const unsigned char* from, unsigned n) { memcpy(to, from, n); });
        if (copy.is_bulk) {
            mbarrier_at(copy.barrier)->bytes -= copy.bytes;
            mbarrier_check(mbarrier_at(copy.barrier));
        } else {
            mbarrier_arrive(copy.barrier);
        }
    }
    if (kept > 0) ++emu_events;
    sm->copy_count = kept;
}

static void* emu_memory(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

static void emu_launch_grid(void (*body)(), int grid, int shared_bytes, unsigned seed) {
    emu_body = body;
    emu_random_state = seed * 2654435761u + 1;
    const size_t stacks = EMU_STACK * EMU_THREADS;
    Sm* sms = static_cast<Sm*>(emu_memory(grid * sizeof(Sm)));
    char* memory = static_cast<char*>(emu_memory(grid * stacks));
    for (int s = 0; s < grid; ++s) {
        sms[s].number = s;
        sms[s].left = EMU_THREADS;
        void* shared = nullptr;
        if (posix_memalign(&shared, 1024, shared_bytes)) abort();
        memset(shared, 0xff, shared_bytes);  // NaN
        sms[s].shared = static_cast<unsigned char*>(shared);
        for (int t = 0; t < EMU_THREADS; ++t)
            emu_prepare(&sms[s].fiber[t], memory + s * stacks + t * EMU_STACK, EMU_STACK, emu_thread);
    }
    unsigned quiet = 0;  // rounds since anything happened
    for (int left = grid; left > 0;) {
        Sm* sm = sms + emu_random(grid);
        if (sm->left == 0) continue;
        if (sm->held > 0) {
            --sm->held;
            continue;
        }
        if (emu_random(256) == 0) sm->held = emu_random(4096);
        const unsigned long long before = emu_events;
        emu_round(sm);
        left -= sm->left == 0;
        quiet = emu_events == before ? quiet + 1 : 0;
        // Only those that were held up can go on, then; or nobody can, and time is all that waits can end by.
        if (quiet == 16u * grid)
            for (int s = 0; s < grid; ++s) sms[s].held = 0;
        emu_clock += quiet < 256u * grid ? 1000 : 1000000;
    }
    for (int s = 0; s < grid; ++s) free(sms[s].shared);
    munmap(memory, grid * stacks);
    munmap(sms, grid * sizeof(Sm));
}

#pragma GCC pop_options
