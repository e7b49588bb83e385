// The CUDA constructs that AMK's device library uses, on a CPU: each SM is a thread, each of its threads a fiber.
// Included before a kernel's source, from which cuda_emulator.py has removed the functions that contain PTX.
#include <pthread.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local

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
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
static inline unsigned atomicExch(unsigned* p, unsigned value) { return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST); }

// ---- fibers ---------------------------------------------------------------------------------------------------------

constexpr int EMU_THREADS = 288;
constexpr size_t EMU_STACK = 256 << 10;

struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
    unsigned long long* barrier;
    unsigned delay;
};
struct EmuBarrier {
    int arrived = 0;
    unsigned generation = 0;
};
struct Sm {
    ucontext_t scheduler, fiber[EMU_THREADS];
    bool done[EMU_THREADS] = {};
    int running = 0;
    unsigned random = 1;
    EmuBarrier all, consumers, warp[EMU_THREADS / 32];
    unsigned slot[EMU_THREADS][8];
    std::vector<Copy> copies;
};
static thread_local Sm* emu_sm;
static thread_local Index threadIdx, blockIdx;
static thread_local unsigned char* emu_dynamic_shared;

static __attribute__((noinline)) void emu_yield() {
    Sm* sm = emu_sm;
    swapcontext(&sm->fiber[sm->running], &sm->scheduler);
}
static void emu_barrier(EmuBarrier& barrier, int count) {
    const unsigned generation = barrier.generation;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        ++barrier.generation;
        return;
    }
    while (barrier.generation == generation) emu_yield();
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

// ---- what replaces PTX ----------------------------------------------------------------------------------------------

static inline void consumer_barrier() { emu_barrier(emu_sm->consumers, 256); }
static inline unsigned long long now_ns() {
    emu_yield();
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}
static inline unsigned long long* kept(unsigned long long* pointer) { return pointer; }
static inline void store_event(unsigned long long* to, unsigned code, unsigned time) {
    *to = static_cast<unsigned long long>(code) << 32 | time;
}
static inline unsigned clock_word() { return static_cast<unsigned>(now_ns()); }
static inline void signal_counter(unsigned* counter) { __atomic_fetch_add(counter, 1u, __ATOMIC_RELEASE); }
static inline unsigned load_acquire(const unsigned* p) {
    emu_yield();
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline unsigned load_word(const unsigned* p) {
    emu_yield();
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
static inline uint4 load_words(const unsigned* p) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) abort();
    return {load_word(p), load_word(p + 1), load_word(p + 2), load_word(p + 3)};
}
static inline uint4 load_shared_if(const unsigned short* p, bool wanted) {
    return wanted ? *reinterpret_cast<const uint4*>(p) : uint4{0, 0, 0, 0};
}
static inline unsigned thread_number() { return threadIdx.x; }
static inline void send_token(unsigned long long* to, unsigned long long word) { __atomic_store_n(to, word, __ATOMIC_RELAXED); }
static inline void store_word(unsigned* p, unsigned word) { __atomic_store_n(p, word, __ATOMIC_RELAXED); }
static inline float power_of_two(float x) { return x < -126.0f ? 0.0f : exp2f(x); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline unsigned short to_bf16(float value) {
    const unsigned bits = __float_as_uint(value);
    return value != value ? 0x7fff : static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline unsigned fma_bf16x2(unsigned a, unsigned b, unsigned c) {
    unsigned result = 0;
    for (int half = 0; half < 32; half += 16) {
        auto value = [half](unsigned word) { return __uint_as_float((word >> half & 0xffff) << 16); };
        // the sum is exact in double; what the device rounds to bf16 is always exact here too
        const double sum = static_cast<double>(value(a)) * value(b) + value(c);
        result |= static_cast<unsigned>(to_bf16(static_cast<float>(sum))) << half;
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
static inline void order_copies() {}
static inline void __threadfence_block() {}
static inline void start_copy(unsigned char* to, const unsigned char* from, unsigned bytes, unsigned long long* full) {
    if (bytes % 16 || reinterpret_cast<uintptr_t>(from) % 16) abort();
    mbarrier_at(full)->bytes += bytes;
    memset(to, 0xff, bytes);  // NaN until the copy lands
    emu_sm->copies.push_back({to, from, bytes, full, emu_sm->random % 7});
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

// mma.m16n8k32 of signed bytes, likewise
static void mma_s8(int (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    unsigned* mine = emu_sm->slot[threadIdx.x];
    mine[0] = a0, mine[1] = a1, mine[2] = a2, mine[3] = a3, mine[4] = b0, mine[5] = b1;
    __syncwarp();
    const int warp = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    auto byte = [](unsigned word, int k) { return static_cast<int>(static_cast<signed char>(word >> k % 4 * 8)); };
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i / 2) * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 32; ++k) {
            const unsigned* a = emu_sm->slot[warp + row % 8 * 4 + k % 16 / 4];
            const unsigned* b = emu_sm->slot[warp + column * 4 + k % 16 / 4];
            sum[i] += byte(a[row / 8 + k / 16 * 2], k) * byte(b[4 + k / 16], k);
        }
    }
    __syncwarp();
}
static unsigned warp_greatest(unsigned value) {
    for (int distance = 16; distance > 0; distance >>= 1) {
        const unsigned other = __shfl_xor_sync(~0u, value, distance);
        value = other > value ? other : value;
    }
    return value;
}

// ---- launch ---------------------------------------------------------------------------------------------------------

static void (*emu_body)();
static int emu_shared_bytes;
static unsigned emu_seed;

static void* emu_run_sm(void* number) {
    Sm* sm = new Sm;
    emu_sm = sm;
    blockIdx.x = static_cast<unsigned>(reinterpret_cast<uintptr_t>(number));
    sm->random = emu_seed * 2654435761u + blockIdx.x * 40503u + 1;
    void* shared = nullptr;
    if (posix_memalign(&shared, 1024, emu_shared_bytes)) abort();
    memset(shared, 0xff, emu_shared_bytes);  // NaN
    emu_dynamic_shared = static_cast<unsigned char*>(shared);
    std::vector<char> stacks(EMU_STACK * EMU_THREADS);
    for (int t = 0; t < EMU_THREADS; ++t) {
        getcontext(&sm->fiber[t]);
        sm->fiber[t].uc_stack.ss_sp = stacks.data() + t * EMU_STACK;
        sm->fiber[t].uc_stack.ss_size = EMU_STACK;
        sm->fiber[t].uc_link = &sm->scheduler;
        makecontext(&sm->fiber[t], reinterpret_cast<void (*)()>(+[] {
                        emu_body();
                        emu_sm->done[emu_sm->running] = true;
                    }),
                    0);
    }
    for (int left = EMU_THREADS; left > 0;) {
        sm->random = sm->random * 1664525u + 1013904223u;
        const int start = sm->random >> 8;
        for (int n = 0; n < EMU_THREADS; ++n) {
            const int t = (start % EMU_THREADS + n) % EMU_THREADS;
            if (sm->done[t]) continue;
            sm->running = t;
            threadIdx.x = t;
            swapcontext(&sm->scheduler, &sm->fiber[t]);
            left -= sm->done[t];
        }
        for (size_t c = 0; c < sm->copies.size();) {
            Copy& copy = sm->copies[c];
            if (copy.delay-- > 0) {
                ++c;
                continue;
            }
            memcpy(copy.to, copy.from, copy.bytes);
            mbarrier_at(copy.barrier)->bytes -= copy.bytes;
            mbarrier_check(mbarrier_at(copy.barrier));
            sm->copies.erase(sm->copies.begin() + c);
        }
    }
    free(shared);
    delete sm;
    return nullptr;
}

static void emu_launch_grid(void (*body)(), int grid, int shared_bytes, unsigned seed) {
    emu_body = body;
    emu_shared_bytes = shared_bytes;
    emu_seed = seed;
    std::vector<pthread_t> threads(grid);
    for (int s = 0; s < grid; ++s)
        pthread_create(&threads[s], nullptr, emu_run_sm, reinterpret_cast<void*>(static_cast<uintptr_t>(s)));
    for (pthread_t thread : threads) pthread_join(thread, nullptr);
}
