// SPDX-License-Identifier: Apache-2.0
// A graphics card of one thread, on which the kernels' own texts run: blocks one after the other, the threads
// of a block as fibres that change at barriers. A load or store outside the memory that a test names is a
// fault, and so is a second store to one place.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

struct Dim {
    int x, y, z;
};
Dim threadIdx, blockIdx;  // not static: the compiler must take it that a barrier changes them

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
using std::max;
using std::min;

struct Range {
    uintptr_t first, last;
    std::vector<uint8_t> stores;
};
std::vector<Range> readable, writable;
long faults, twice;

template <class T> T checked_load(unsigned long long at)
{
    for (const Range& range : readable)
        if (at >= range.first && at + sizeof(T) <= range.last && at % sizeof(T) == 0) return *(const T*)at;
    faults += !readable.empty();
    return readable.empty() ? *(const T*)at : T();
}
template <class T> void checked_store(T* to, T value)
{
    const uintptr_t at = (uintptr_t)to;
    for (Range& range : writable)
        if (at >= range.first && at + sizeof(T) <= range.last) {
            twice += range.stores[(at - range.first) / sizeof(T)]++ > 0;
            *to = value;
            return;
        }
    if (writable.empty())
        *to = value;
    else
        ++faults;
}
template <class To, class From> To bits_as(From value)
{
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &value, sizeof to);
    return to;
}
#define LOAD8(at) checked_load<uint8_t>(at)
#define LOAD16(at) checked_load<uint16_t>(at)
#define LOAD32(at) checked_load<uint32_t>(at)
#define LOAD64(at) checked_load<uint64_t>(at)
#define LOAD(at) checked_load<std::decay_t<decltype(*(at))>>((unsigned long long)(at))
#define STORE(at, value) checked_store(at, value)
#define EXACT_MUL(a, b) ((float)((a) * (b)))  // compiled with -ffp-contract=off
#define EXACT_ADD(a, b) ((float)((a) + (b)))
#define EXACT_SUB(a, b) ((float)((a) - (b)))
#define FLOAT_BITS(value) bits_as<int>((float)(value))
#define BITS_FLOAT(bits) bits_as<float>((int)(bits))
inline unsigned short HALF_BITS(float value)  // from 0 to 1: to nearest, ties to even
{
    if (value < 6.103515625e-05f) return (unsigned short)std::nearbyint(value * 16777216.0f);
    const unsigned bits = (unsigned)FLOAT_BITS(value) - (112u << 23);
    return (unsigned short)((bits + 0xFFFu + ((bits >> 13) & 1u)) >> 13);
}
inline unsigned CHOOSE_BYTES(unsigned low, unsigned high, unsigned digits)
{
    const uint64_t eight = (uint64_t)high << 32 | low;
    unsigned word = 0;
    for (int i = 0; i < 4; ++i) word |= (unsigned)(eight >> 8 * (digits >> 4 * i & 7) & 255) << 8 * i;
    return word;
}
inline unsigned DOT_LOW(unsigned two, unsigned bytes, unsigned sum)
{
    return sum + (two & 0xFFFF) * (bytes & 255) + (two >> 16) * (bytes >> 8 & 255);
}
inline unsigned DOT_HIGH(unsigned two, unsigned bytes, unsigned sum) { return DOT_LOW(two, bytes >> 16, sum); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline void atomicOr(unsigned* at, unsigned bits) { *at |= bits; }
inline void atomicAnd(unsigned* at, unsigned bits) { *at &= bits; }
void __syncthreads();

#include "look.h"
namespace f32 {
#define OUT 0
#define letterbox_batch letterbox_f32
#include "preprocess.cu"
#undef OUT
#undef letterbox_batch
}  // namespace f32
namespace f16 {
#define OUT 1
#define letterbox_batch letterbox_f16
#include "preprocess.cu"
#undef OUT
#undef letterbox_batch
}  // namespace f16
namespace bf16 {
#define OUT 2
#define letterbox_batch letterbox_bf16
#include "preprocess.cu"
}  // namespace bf16
#include "suppress.cu"

// Kernels with one fault each, to try what looks for them.
void one_leaves_before_the_barrier()
{
    if (threadIdx.x == 3) return;
    __syncthreads();
}
void one_does_not_wait(int* seen, int* found)
{
    seen[threadIdx.x] = 1;
    if (threadIdx.x == 3) *found = (int)std::count(seen, seen + 8, 1);
}

struct Fibre {
    ucontext_t context;
    std::vector<char> stack;
    bool ended;
};
std::vector<Fibre> fibres;
ucontext_t scheduler;
int running;
std::function<void()> body;

void __syncthreads() { swapcontext(&fibres[running].context, &scheduler); }

void enter()
{
    body();
    fibres[running].ended = true;
    swapcontext(&fibres[running].context, &scheduler);
}

std::vector<int> order_of(int count, unsigned seed)  // 0 forward, 1 backward, else shuffled
{
    std::vector<int> order(count);
    for (int i = 0; i < count; ++i) order[i] = seed == 1 ? count - 1 - i : i;
    for (int i = count - 1; seed > 1 && i > 0; --i) {
        seed = seed * 1664525u + 1013904223u;
        std::swap(order[i], order[(seed >> 8) % (i + 1)]);
    }
    return order;
}

void begin(Fibre& fibre)
{
    fibre.ended = false;
    fibre.stack.resize(1 << 16);
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.data();
    fibre.context.uc_stack.ss_size = fibre.stack.size();
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, enter, 0);
}

// 0 well; 1 some threads of a block ended while others waited at a barrier; 2 memory that was not named
int run_grid(const int* grid, const int* threads, unsigned seed, std::function<void()> kernel)
{
    body = kernel, faults = twice = 0;
    const int count = threads[0] * threads[1] * threads[2];
    fibres.resize(count);
    const std::vector<int> order = order_of(count, seed);
    for (int b : order_of(grid[0] * grid[1] * grid[2], seed)) {
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / (grid[0] * grid[1])};
        for (Fibre& fibre : fibres) begin(fibre);
        for (int waiting = count; waiting;) {
            waiting = 0;
            for (int t : order) {
                if (fibres[t].ended) continue;
                running = t;
                threadIdx = {t % threads[0], t / threads[0] % threads[1], t / (threads[0] * threads[1])};
                swapcontext(&scheduler, &fibres[t].context);
                waiting += !fibres[t].ended;
            }
            if (waiting && waiting != count) return 1;
        }
    }
    return faults ? 2 : 0;
}

extern "C" {
void host_forget()
{
    readable.clear();
    writable.clear();
}
void host_may_read(unsigned long long at, long bytes) { readable.push_back({at, at + bytes, {}}); }
void host_may_write(unsigned long long at, long bytes)
{
    writable.push_back({at, at + bytes, std::vector<uint8_t>(bytes)});
}
long host_faults() { return faults; }
long host_twice() { return twice; }
void host_look(int* sizes)
{
    const int all[] = {
        sizeof(Look), offsetof(Look, origin), offsetof(Look, across), offsetof(Look, down),
        offsetof(Look, width), offsetof(Look, height), offsetof(Look, matrix), offsetof(Look, offset),
        offsetof(Look, wide), offsetof(Look, left), offsetof(Look, top), offsetof(Look, inner_w),
        offsetof(Look, inner_h), offsetof(Look, ticket)};
    std::copy(std::begin(all), std::end(all), sizes);
}
int host_most_boxes() { return MAX_BOXES; }
int host_letterbox_batch(
    const int* grid, const int* threads, unsigned seed, int out, const Look* looks, void* canvases, int w, int h,
    long long image, int channel, int row, int pixel)
{
    return run_grid(grid, threads, seed, [=] {
        if (out == 0) f32::letterbox_f32(looks, (f32::Out*)canvases, w, h, image, channel, row, pixel);
        if (out == 1) f16::letterbox_f16(looks, (f16::Out*)canvases, w, h, image, channel, row, pixel);
        if (out == 2) bf16::letterbox_bf16(looks, (bf16::Out*)canvases, w, h, image, channel, row, pixel);
    });
}
int host_suppress_ranked(
    const int* grid, const int* threads, unsigned seed, const long long* keys, const float* boxes,
    const int* tickets, int ticket_stride, int num_keys, int num_anchors, int num_classes, int max_boxes,
    float max_iou, int class_aware, int* found)
{
    return run_grid(grid, threads, seed, [=] {
        suppress_ranked(
            keys, boxes, tickets, ticket_stride, num_keys, num_anchors, num_classes, max_boxes, max_iou,
            class_aware, found);
    });
}
int host_leaves_early()
{
    const int one[] = {1, 1, 1}, threads[] = {8, 1, 1};
    return run_grid(one, threads, 0, one_leaves_before_the_barrier);
}
int host_does_not_wait(unsigned seed)
{
    const int one[] = {1, 1, 1}, threads[] = {8, 1, 1};
    int seen[8] = {}, found = 0;
    run_grid(one, threads, seed, [&] { one_does_not_wait(seen, &found); });
    return found;
}
}
