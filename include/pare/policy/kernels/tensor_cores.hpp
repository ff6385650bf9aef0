// What a warp does together: products of tensor cores and the loads that feed them. On a device thin
// wrappers of PTX instructions (sm_80 and newer), on a host loops that do the same with the same
// layouts. Sections are those of NVIDIA's PTX ISA, whose numbers change from version to version.
#pragma once

#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "thrust_blocks.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Whether tensor cores multiply numbers of type T. On hosts, which play them, any half type.
template <class T, bool OnDevice>
inline constexpr bool
    has_tensor_cores = sizeof(T) == 2 &&
                       !std::is_integral_v<T> && std::is_same_v<compute_t<T>, float> && !OnDevice;
#ifdef __CUDACC__
template <>
inline constexpr bool has_tensor_cores<__half, true> = true;
template <>
inline constexpr bool has_tensor_cores<__nv_bfloat16, true> = true;
#endif

/// What each lane of a warp has for itself, within one step.
template <class X>
class per_lane {
  public:
    PARE_HD X& operator[]([[maybe_unused]] int lane) {
#ifdef __CUDA_ARCH__
        return own_;
#else
        return all_[lane];
#endif
    }

  private:
#ifdef __CUDA_ARCH__
    X own_;
#else
    X all_[32];
#endif
};

/// 32 neighbouring threads of a block.
struct warp {
    static constexpr int size = 32;
    int number;

    /// f(lane) by each lane, in any order.
    template <class F>
    PARE_HD void lanes(const F& f) const {
#ifdef __CUDA_ARCH__
        f(static_cast<int>(threadIdx.x) % size);
#else
        for (int lane = 0; lane < size; ++lane) f(lane);
#endif
    }
    PARE_HD int thread(int lane) const {
        return size * number + lane;
    }
};

/// f(warp) by each warp of a block, none of which waits for another.
template <class F>
PARE_HD void for_warps(const F& f) {
#ifdef __CUDA_ARCH__
    f(warp{static_cast<int>(threadIdx.x) / warp::size});
#else
    block_player::for_warps(thread_block::size / warp::size, [&](int number) { f(warp{number}); });
#endif
}

/// Two numbers of a half type, the first in the low bits.
template <class T>
PARE_HD std::uint32_t pack_two(float first, float second) {
    std::uint32_t bits;
#ifdef __CUDA_ARCH__
    if constexpr (std::is_same_v<T, __half>) {
        const __half2 two = __floats2half2_rn(first, second);
        memcpy(&bits, &two, sizeof bits);
    } else {
        const __nv_bfloat162 two = __floats2bfloat162_rn(first, second);
        memcpy(&bits, &two, sizeof bits);
    }
#else
    const T two[2] = {static_cast<T>(first), static_cast<T>(second)};
    std::memcpy(&bits, two, sizeof bits);
#endif
    return bits;
}

/// 2^x. On a device within 2^-22 of it, and 0 where that is not a normal number ("Floating-Point
/// Instructions: ex2").
PARE_HD inline float power_of_two(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return std::exp2(x);
#endif
}
PARE_HD inline float larger(float x, float y) {
#ifdef __CUDA_ARCH__
    return fmaxf(x, y);
#else
    return x < y ? y : x;
#endif
}

/// Fragments of c [16 x 8] += a [16 x 16] b [16 x 8], of numbers T, sums in float ("Matrix
/// Fragments for mma.m16n8k16 with floating point type"). With g = lane / 4, t = lane % 4:
///
/// a: 4 x 2 numbers  (g, 2t), (g, 2t + 1);  row g + 8;  columns + 8;  both
/// b: 2 x 2 numbers  (2t, g), (2t + 1, g);  rows + 8
/// c: 4 numbers      (g, 2t), (g, 2t + 1);  row g + 8
using left_fragment = std::uint32_t[4];
struct right_fragment {
    std::uint32_t low, high;
};
using sum_fragment = float[4];

#ifdef __CUDACC__
template <class T>
__device__ void mma(sum_fragment& c, const left_fragment& a, right_fragment b) {
#if __CUDA_ARCH__ >= 800
    if constexpr (std::is_same_v<T, __half>)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "r"(b.high));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "r"(b.high));
#else
    __trap(); // older devices have no such instruction
#endif
}
#endif

/// The above by a warp: a(lane), b(lane) and c(lane) are fragments.
template <class T, class Sum, class Left, class Right>
PARE_HD void multiply_add(const Sum& c, const Left& a, const Right& b) {
#ifdef __CUDA_ARCH__
    const int lane = static_cast<int>(threadIdx.x) % warp::size;
    mma<T>(c(lane), a(lane), b(lane));
#else
    float left[16][16], right[16][8];
    const auto unpack = [](std::uint32_t bits, float& first, float& second) {
        T two[2];
        std::memcpy(static_cast<void*>(two), &bits, sizeof bits);
        first = static_cast<float>(two[0]);
        second = static_cast<float>(two[1]);
    };
    for (int lane = 0; lane < warp::size; ++lane) {
        const int g = lane / 4, t = lane % 4 * 2;
        const left_fragment& x = a(lane);
        for (int i = 0; i < 4; ++i) {
            float* const at = &left[g + i % 2 * 8][t + i / 2 * 8];
            unpack(x[i], at[0], at[1]);
        }
        const right_fragment y = b(lane);
        unpack(y.low, right[t][g], right[t + 1][g]);
        unpack(y.high, right[t + 8][g], right[t + 9][g]);
    }
    for (int lane = 0; lane < warp::size; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float sum = c(lane)[i];
            for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
            c(lane)[i] = sum;
        }
#endif
}

/// Four squares of 8 x 8 numbers from shared memory, in the registers to(lane). tile + place(lane) is
/// the row lane % 8 of square lane / 8, 8 numbers at a multiple of 16 bytes. Register i has, of
/// square i, row lane / 4 and columns 2 * (lane % 4) and the next; if Transposed, rows and columns
/// exchanged ("Warp-level matrix load instruction: ldmatrix").
template <bool Transposed, class T, class To, class Place>
PARE_HD void load_squares(const T* tile, const To& to, const Place& place) {
#ifdef __CUDA_ARCH__
    const int lane = static_cast<int>(threadIdx.x) % warp::size;
    std::uint32_t(&x)[4] = to(lane);
    const auto address =
        static_cast<std::uint32_t>(__cvta_generic_to_shared(tile)) +
        static_cast<std::uint32_t>(sizeof(T)) * static_cast<std::uint32_t>(place(lane));
    if constexpr (Transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(address));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(address));
#else
    std::uint16_t squares[32][8];
    for (int lane = 0; lane < warp::size; ++lane)
        std::memcpy(squares[lane], tile + place(lane), sizeof squares[lane]);
    for (int lane = 0; lane < warp::size; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int a = lane / 4, b = lane % 4 * 2;
            std::uint16_t two[2] = {squares[8 * i + a][b], squares[8 * i + a][b + 1]};
            if (Transposed) {
                two[0] = squares[8 * i + b][a];
                two[1] = squares[8 * i + b + 1][a];
            }
            std::memcpy(&to(lane)[i], two, sizeof two);
        }
#endif
}

/// x(lane) of so many neighbours becomes op over all of them ("Data Movement: shfl.sync").
template <int Lanes, class X, class Op>
PARE_HD void fold_lanes(const X& x, const Op& op) {
#ifdef __CUDA_ARCH__
    auto& own = x(static_cast<int>(threadIdx.x) % warp::size);
    PARE_UNROLL_ON_DEVICE
    for (int distance = 1; distance < Lanes; distance *= 2)
        own = op(own, __shfl_xor_sync(0xffffffffu, own, distance));
#else
    using value = std::decay_t<decltype(x(0))>;
    for (int distance = 1; distance < Lanes; distance *= 2) {
        value before[warp::size];
        for (int lane = 0; lane < warp::size; ++lane) before[lane] = x(lane);
        for (int lane = 0; lane < warp::size; ++lane)
            x(lane) = op(before[lane], before[lane ^ distance]);
    }
#endif
}

/// Begins to copy 16 bytes to tile + place in shared memory, or to fill them with zeros and read
/// nothing ("Data Movement: cp.async").
template <class T>
PARE_HD void copy_later(T* tile, int place, const T* from, bool copied) {
#ifdef __CUDA_ARCH__
#if __CUDA_ARCH__ >= 800
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(tile)) +
                         static_cast<std::uint32_t>(sizeof(T)) * static_cast<std::uint32_t>(place);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(copied ? 16 : 0)
                 : "memory");
#else // at once, on older devices
    *reinterpret_cast<uint4*>(tile + place) =
        copied ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
#endif
#else
    block_player::copy_later(tile + place, copied ? from : nullptr);
#endif
}
/// Waits until what this thread began to copy is there; other threads see it after a step.
PARE_HD inline void wait_for_copies() {
#ifdef __CUDA_ARCH__
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
#else
    block_player::wait();
#endif
}

/// Rows of Width half numbers in shared memory as pieces of 8. A row's pieces change places, so that
/// the 8 rows of a square are in different banks.
template <int Width>
struct swizzled {
    static constexpr int pieces = Width / 8;
    static_assert(pieces == 4 || pieces % 8 == 0);

    /// Where piece `piece` of a row begins.
    static constexpr int at(int row, int piece) {
        return row * Width + 8 * (pieces == 4 ? piece ^ (row / 2 % 4) : piece ^ (row % 8));
    }
};

/// What tiles are loaded from: rows of one head of a sequence.
template <class T>
struct tile_source {
    const T* first;
    index_t row, element; // strides
    int rows, columns;
    bool packed; // see in_packs
};
template <class T>
PARE_HD tile_source<T> source_of(const view<const T, 3>& x, bool packed, index_t begin, int rows,
                                 int head) {
    return {x.address(begin, head, 0),     x.stride(0), x.stride(2), rows,
            static_cast<int>(x.extent(2)), packed};
}

/// Begins to copy Rows rows, from row `from` on, to a swizzled tile, with zeros around what there
/// is.
template <int Width, int Rows, class T>
PARE_HD void load_later(int thread, const tile_source<T>& x, int from, T* tile) {
    using places = swizzled<Width>;
    constexpr int in_all = Rows * places::pieces;
    static_assert(in_all % thread_block::size == 0);
    if (!x.packed) {
        PARE_ROLLED_ON_DEVICE
        for (int at = thread; at < Rows * Width; at += thread_block::size) {
            const int row = at / Width, column = at % Width;
            T* const to = tile + places::at(row, column / 8) + column % 8;
            *to = from + row < x.rows && column < x.columns
                      ? x.first[(from + row) * x.row + column * x.element]
                      : static_cast<T>(0.0f);
        }
        return;
    }
    const auto stride = static_cast<int>(x.row); // in 32 bits, by in_packs
    PARE_UNROLL_ON_DEVICE
    for (int i = 0; i < in_all / thread_block::size; ++i) {
        const int at = i * thread_block::size + thread;
        const int row = at / places::pieces, piece = at % places::pieces;
        const bool inside = from + row < x.rows && 8 * piece < x.columns;
        const index_t place = inside ? index_t{from + row} * stride + 8 * piece : 0;
        copy_later(tile, places::at(row, piece), x.first + place, inside);
    }
}

/// Fragments of 16 rows `row` and on, a multiple of 8, of pieces 2 * step and the next, as left
/// factors. That much further in a row is a change of bits.
template <int Width, class T, class To>
PARE_HD void load_left(const T* tile, int row, int step, const To& to) {
    load_squares<false>(tile, to, [&](int lane) {
        return row * Width + (swizzled<Width>::at(lane % 16, lane / 16) ^ (16 * step));
    });
}
/// The same rows as columns of two right factors.
template <int Width, class T, class To>
PARE_HD void load_columns(const T* tile, int row, int step, const To& to) {
    load_squares<false>(tile, to, [&](int lane) {
        return row * Width +
               (swizzled<Width>::at(lane % 8 + lane / 16 * 8, lane / 8 % 2) ^ (16 * step));
    });
}
/// 16 rows as rows of two right factors.
template <int Width, class T, class To>
PARE_HD void load_rows(const T* tile, int row, int step, const To& to) {
    load_squares<true>(tile, to, [&](int lane) {
        return row * Width + (swizzled<Width>::at(lane % 16, lane / 16) ^ (16 * step));
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
