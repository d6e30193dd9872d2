// CUDA C on the CPU, for tests without a GPU: as much of it as mxopt's kernels use. A block's threads are coroutines,
// which take turns at every barrier.

#pragma once
#include <math.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(threads)

struct Index { unsigned x, y; };
static Index threadIdx, blockIdx, blockDim, gridDim;

// Threads.

static const unsigned MOST = 1024;
static ucontext_t scheduler, threads[MOST];
static char stacks[MOST][16384];
static bool ended[MOST];
static long long arguments[8];
static void (*kernel)(long long, long long, long long, long long, long long, long long, long long, long long);

static void thread() {
    const long long *a = arguments;
    kernel(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
    ended[threadIdx.x] = true;
}

static void __syncthreads() { swapcontext(&threads[threadIdx.x], &scheduler); }

static double __shfl_down_sync(unsigned, double x, unsigned delta, unsigned width) {
    static double lanes[MOST];
    lanes[threadIdx.x] = x;
    __syncthreads();
    const double other = threadIdx.x % width + delta < width ? lanes[threadIdx.x + delta] : x;
    __syncthreads();
    return other;
}

static void run_block() {
    for (unsigned t = 0; t < blockDim.x; t++) {
        ended[t] = false;
        getcontext(&threads[t]);
        threads[t].uc_stack.ss_sp = stacks[t];
        threads[t].uc_stack.ss_size = sizeof stacks[t];
        threads[t].uc_link = &scheduler;
        makecontext(&threads[t], thread, 0);
    }
    for (bool all = false; !all;) {
        all = true;
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++)
            if (!ended[threadIdx.x]) {
                const unsigned t = threadIdx.x;
                swapcontext(&scheduler, &threads[t]);
                all = all && ended[t];
            }
    }
}

extern "C" void launch(decltype(kernel) k, unsigned x, unsigned y, unsigned block, const long long *a) {
    kernel = k;
    memcpy(arguments, a, sizeof arguments);
    gridDim = {x, y};
    blockDim = {block, 1};
    for (blockIdx.x = 0; blockIdx.x < x; blockIdx.x++)
        for (blockIdx.y = 0; blockIdx.y < y; blockIdx.y++) run_block();
}

// Bits and halves.

template <typename To, typename From> static To bits_as(From x) {
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static float __uint_as_float(unsigned x) { return bits_as<float>(x); }
static unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }

struct __half { unsigned short bits; };

static double half_value(unsigned bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                      : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits >> 15 ? -size : size;
}

static float __half2float(__half x) {
    static float values[65536];  // half_value of all bits, made once
    static const bool made = [] {
        for (unsigned bits = 0; bits < 65536; bits++) values[bits] = (float)half_value(bits);
        return true;
    }();
    (void)made;
    return values[x.bits];
}

static __half __double2half(double x) {  // to nearest, ties to even, as rint does
    const unsigned sign = signbit(x) ? 0x8000 : 0;
    const double size = fabs(x);
    int exponent;
    const double fraction = frexp(size, &exponent);  // in [0.5, 1)
    if (isnan(x)) return {(unsigned short)(sign | 0x7e00)};
    if (size >= 65520) return {(unsigned short)(sign | 0x7c00)};
    if (size < 0x1p-14) return {(unsigned short)(sign | (int)rint(size * 0x1p24))};
    return {(unsigned short)(sign | (((exponent + 14) << 10) + (int)rint(fraction * 2048) - 1024))};
}
static __half __float2half_rn(float x) { return __double2half(x); }
