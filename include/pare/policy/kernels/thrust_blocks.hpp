// Blocks of threads that share memory: a GPU's, or loops of the host that do the same.
#pragma once

#include "../../core/ops.hpp"
#include "played_block.hpp"

#include <algorithm>
#include <cstddef>
#include <type_traits>
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

// Arrays stay in registers where the loops over them are unrolled.
#ifdef __CUDA_ARCH__
#define PARE_UNROLL_ON_DEVICE _Pragma("unroll")
#define PARE_ROLLED_ON_DEVICE _Pragma("unroll 1")
#else
#define PARE_UNROLL_ON_DEVICE
#define PARE_ROLLED_ON_DEVICE
#endif

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The threads of a block. What they have in common they do between two steps, not in one.
template <int Threads>
struct block_of {
    static constexpr int size = Threads;

    /// One step: f(thread) by each thread, in any order. All have done it when it returns.
    template <class F>
    PARE_HD void step(const F& f) const {
#ifdef __CUDA_ARCH__
        f(static_cast<int>(threadIdx.x));
        __syncthreads();
#else
        block_player::step(size, f);
#endif
    }
};

using thread_block = block_of<128>;

/// The threads of a kernel's blocks: Kernel::threads, or as many as a thread_block has.
template <class Kernel, class = void>
inline constexpr int threads_of = thread_block::size;
template <class Kernel>
inline constexpr int threads_of<Kernel, std::void_t<decltype(Kernel::threads)>> = Kernel::threads;

/// What each thread of a block has for itself, from step to step.
template <class T, int Threads = thread_block::size>
class per_thread {
  public:
    PARE_HD T& operator[]([[maybe_unused]] int thread) {
#ifdef __CUDA_ARCH__
        return own_;
#else
        return all_[thread];
#endif
    }

  private:
#ifdef __CUDA_ARCH__
    T own_;
#else
    T all_[Threads];
#endif
};

/// join(i, j) pair by pair, until what the threads of a block have, which are a power of two, is the
/// first one's.
template <int Threads, class Join>
PARE_HD void fold(const block_of<Threads>& threads, const Join& join) {
    for (int apart = Threads / 2; apart > 0; apart /= 2)
        threads.step([&](int thread) {
            if (thread < apart) join(thread, thread + apart);
        });
}
/// The sum of parts [threads], in parts[0].
template <int Threads, class T>
PARE_HD void add_up(const block_of<Threads>& threads, T* parts) {
    fold(threads, [&](int i, int j) { parts[i] += parts[j]; });
}
/// Makes scan[now][i] the sum of scan[0][0] .. scan[0][i], and returns `now`.
template <int Threads, class T>
PARE_HD int running_sums(const block_of<Threads>& threads, T (&scan)[2][Threads]) {
    int now = 0;
    for (int step = 1; step < Threads; step *= 2, now = 1 - now)
        threads.step([&](int thread) {
            const T less = thread >= step ? scan[now][thread - step] : 0;
            scan[1 - now][thread] = scan[now][thread] + less;
        });
    return now;
}

#ifdef __CUDACC__
/// As many blocks at a time as a kernel asks for have registers on one of a GPU's processors.
template <class Kernel, class = void>
inline constexpr int blocks_a_processor = 1;
template <class Kernel>
inline constexpr int blocks_a_processor<Kernel, std::void_t<decltype(Kernel::blocks_a_processor)>> =
    Kernel::blocks_a_processor;

template <class Kernel>
__global__ void __launch_bounds__(threads_of<Kernel>, blocks_a_processor<Kernel>)
    run_block(const Kernel kernel) {
    extern __shared__ __align__(128) unsigned char memory[];
    kernel(static_cast<index_t>(blockIdx.x), memory);
}

constexpr int threads_of_each = 256;
/// f(i) for i < n.
template <class F>
__global__ void __launch_bounds__(threads_of_each) run_each(const F f, const index_t n) {
    const index_t i = index_t{blockIdx.x} * threads_of_each + threadIdx.x;
    if (i < n) f(i);
}

/// Whether a kernel says that it needs tensor cores, which are there where it was made for sm_80 or
/// newer.
template <class Kernel, class = void>
inline constexpr bool needs_tensor_cores = false;
template <class Kernel>
inline constexpr bool needs_tensor_cores<Kernel, std::void_t<decltype(Kernel::tensor_cores)>> =
    true;
#endif

/// Whether all that this file is compiled for has tensor cores; hosts play them.
#ifndef __CUDACC__
inline constexpr bool always_tensor_cores = true;
#elif defined(__CUDA_ARCH_LIST__)
inline constexpr bool always_tensor_cores = std::min({__CUDA_ARCH_LIST__}) >= 800;
#else
inline constexpr bool always_tensor_cores = false;
#endif

/// Products of tiles in a block's shared memory: 64 x Width numbers of type T in rows of `stride`.
/// Thread by thread, sums of 8 x 4 of them in registers; a tile of sums is of type C, 64 x 64 in
/// rows of `sum_stride`.
template <class T, int Width>
struct tiles {
    using C = compute_t<T>;
    static constexpr int rows = 64;
    static constexpr int padding = 1; // neighbours of a column are in different banks
    static constexpr int stride = Width + padding;
    /// Columns of two neighbouring rows, and of rows 8 apart, are in different banks.
    static constexpr int sum_stride = rows + 2;

    /// A thread's part of 64 x Width sums: rows 8 * (thread / 16) and on, every 16th column.
    struct sums {
        C of[8][Width / 16];
    };

    /// A thread's part of 64 x 64 products: rows 8 * (thread / 16) and on, every 16th column.
    struct products {
        C of[8][4];
    };

    /// x += a b', over `terms` columns.
    PARE_HD static void add_products(int thread, const T* a, const T* b, int terms, products& x) {
        const int row = thread / 16 * 8, column = thread % 16;
        for (int e = 0; e < terms; ++e)
            for (int j = 0; j < 4; ++j) {
                const C y = static_cast<C>(b[(column + 16 * j) * stride + e]);
                for (int i = 0; i < 8; ++i)
                    x.of[i][j] += static_cast<C>(a[(row + i) * stride + e]) * y;
            }
    }
    /// s = a b', over `terms` columns.
    PARE_HD static void multiply_transposed(int thread, const T* a, const T* b, int terms, C* s) {
        const int row = thread / 16 * 8, column = thread % 16;
        products x{};
        add_products(thread, a, b, terms, x);
        for (int i = 0; i < 8; ++i)
            for (int j = 0; j < 4; ++j) s[(row + i) * sum_stride + column + 16 * j] = x.of[i][j];
    }
    /// sums += p v, p a tile of sums, of `columns` columns of v.
    PARE_HD static void add(int thread, const C* p, const T* v, int columns, sums& to) {
        const int row = thread / 16 * 8, column = thread % 16;
        for (int k = 0; k < rows; ++k)
            for (int j = 0; j < Width / 16; ++j) {
                if (16 * j >= columns) break;
                const C y = static_cast<C>(v[k * stride + column + 16 * j]);
                for (int i = 0; i < 8; ++i) to.of[i][j] += p[(row + i) * sum_stride + k] * y;
            }
    }
    /// Row r of the sums times factors[r].
    PARE_HD static void scale(int thread, const C* factors, sums& of) {
        for (int i = 0; i < 8; ++i)
            for (C& x : of.of[i]) x *= factors[thread / 16 * 8 + i];
    }
    PARE_HD static void clear(sums& of) {
        for (auto& row : of.of)
            for (C& x : row) x = 0;
    }
    /// s = 64 columns of the sums, `first` and on.
    PARE_HD static void store(int thread, const sums& from, int first, C* s) {
        const int row = thread / 16 * 8, column = thread % 16;
        for (int i = 0; i < 8; ++i)
            for (int j = 0; j < Width / 16; ++j)
                if (16 * j >= first && 16 * j < first + rows)
                    s[(row + i) * sum_stride + column + 16 * j - first] = from.of[i][j];
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
