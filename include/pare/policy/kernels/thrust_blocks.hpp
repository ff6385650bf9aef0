// Blocks of threads that share memory: a GPU's, or loops of the host that do the same.
#pragma once

#include "../../core/ops.hpp"

#include <cstddef>
#include <type_traits>
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
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
        for (int thread = 0; thread < size; ++thread) f(thread);
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

#ifdef __CUDACC__
template <class Kernel>
__global__ void __launch_bounds__(threads_of<Kernel>) run_block(const Kernel kernel) {
    extern __shared__ __align__(128) unsigned char memory[];
    kernel(static_cast<index_t>(blockIdx.x), memory);
}
/// Kernel::together: so many blocks fit the registers of a multiprocessor.
template <class Kernel>
__global__ void __launch_bounds__(threads_of<Kernel>, Kernel::together)
    run_block_together(const Kernel kernel) {
    extern __shared__ __align__(128) unsigned char memory[];
    kernel(static_cast<index_t>(blockIdx.x), memory);
}
template <class Kernel, class = void>
struct launched {
    static constexpr void (*run)(Kernel) = run_block<Kernel>;
};
template <class Kernel>
struct launched<Kernel, std::void_t<decltype(Kernel::together)>> {
    static constexpr void (*run)(Kernel) = run_block_together<Kernel>;
};
#endif

/// Products of tiles in a block's shared memory: 64 x Width numbers of type T in rows of `stride`.
/// Thread by thread, sums of 8 x 4 of them in registers; a tile of sums is of type C, 64 x 64 in
/// rows of `sum_stride`.
template <class T, int Width>
struct tiles {
    using C = compute_t<T>;
    static constexpr int rows = 64;
    // Of half types, tensor cores load 16 bytes at a time; else neighbours of a column are in
    // different banks.
    static constexpr int padding = sizeof(T) == 2 ? 8 : 1;
    static constexpr int stride = Width + padding;
    static constexpr int square_stride = rows + padding; ///< of a 64 x 64 tile of T
    static constexpr int sum_stride = rows + 4;

    /// A thread's part of 64 x Width sums: rows 8 * (thread / 16) and on, every 16th column.
    struct sums {
        C of[8][Width / 16];
    };

    /// s = a b', over `terms` columns.
    PARE_HD static void multiply_transposed(int thread, const T* a, const T* b, int terms, C* s) {
        const int row = thread / 16 * 8, column = thread % 16;
        C x[8][4] = {};
        for (int e = 0; e < terms; ++e)
            for (int j = 0; j < 4; ++j) {
                const C y = static_cast<C>(b[(column + 16 * j) * stride + e]);
                for (int i = 0; i < 8; ++i)
                    x[i][j] += static_cast<C>(a[(row + i) * stride + e]) * y;
            }
        for (int i = 0; i < 8; ++i)
            for (int j = 0; j < 4; ++j) s[(row + i) * sum_stride + column + 16 * j] = x[i][j];
    }
    /// sums += p v, p [64 x 64], of `columns` columns of v.
    PARE_HD static void add(int thread, const T* p, const T* v, int columns, sums& to) {
        const int row = thread / 16 * 8, column = thread % 16;
        for (int k = 0; k < rows; ++k)
            for (int j = 0; j < Width / 16; ++j) {
                if (16 * j >= columns) break;
                const C y = static_cast<C>(v[k * stride + column + 16 * j]);
                for (int i = 0; i < 8; ++i)
                    to.of[i][j] += static_cast<C>(p[(row + i) * square_stride + k]) * y;
            }
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

#ifdef __CUDACC__
/// The same by tensor cores, for a GPU's half types: each warp has 16 rows.
template <class T, int Width>
struct tensor_tiles : tiles<T, Width> {
    using base = tiles<T, Width>;
    using base::rows, base::stride, base::square_stride, base::sum_stride;
    using row_major = nvcuda::wmma::row_major;
    template <class Use, class... Layout>
    using fragment = nvcuda::wmma::fragment<Use, 16, 16, 16, Layout...>;
    using left = fragment<nvcuda::wmma::matrix_a, T, row_major>;
    using total = fragment<nvcuda::wmma::accumulator, float>;

    struct sums {
        total of[Width / 16];
    };

    static __device__ int first_row(int thread) { return thread / 32 * 16; }

    static __device__ void multiply_transposed(int thread, const T* a, const T* b, int terms,
                                               float* s) {
        using namespace nvcuda::wmma;
        total x[rows / 16];
        for (total& part : x) fill_fragment(part, 0.f);
        for (int e = 0; e < terms; e += 16) {
            left y;
            load_matrix_sync(y, a + first_row(thread) * stride + e, stride);
#pragma unroll
            for (int j = 0; j < rows / 16; ++j) {
                fragment<matrix_b, T, col_major> z;
                load_matrix_sync(z, b + 16 * j * stride + e, stride);
                mma_sync(x[j], y, z, x[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < rows / 16; ++j)
            store_matrix_sync(s + first_row(thread) * sum_stride + 16 * j, x[j], sum_stride,
                              mem_row_major);
    }
    static __device__ void add(int thread, const T* p, const T* v, int columns, sums& to) {
        using namespace nvcuda::wmma;
        for (int k = 0; k < rows; k += 16) {
            left y;
            load_matrix_sync(y, p + first_row(thread) * square_stride + k, square_stride);
#pragma unroll
            for (int j = 0; j < Width / 16; ++j) {
                if (16 * j >= columns) continue; // to.of stays in registers
                fragment<matrix_b, T, row_major> z;
                load_matrix_sync(z, v + k * stride + 16 * j, stride);
                mma_sync(to.of[j], y, z, to.of[j]);
            }
        }
    }
    static __device__ void clear(sums& of) {
        for (total& part : of.of) nvcuda::wmma::fill_fragment(part, 0.f);
    }
    static __device__ void store(int thread, const sums& from, int first, float* s) {
#pragma unroll
        for (int j = 0; j < Width / 16; ++j)
            if (16 * j >= first && 16 * j < first + rows)
                nvcuda::wmma::store_matrix_sync(s + first_row(thread) * sum_stride + 16 * j - first,
                                                from.of[j], sum_stride,
                                                nvcuda::wmma::mem_row_major);
    }
};
#endif

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
