// A Thrust policy's memory, kernels and numbers of many.
#pragma once

#include "../../core/config.hpp"

PARE_SIGNED_ARRAYS_BEGIN
#include "../kernels/thrust_folds.hpp"
#include "../kernels/thrust_kept.hpp"
#include "../kernels/thrust_staging.hpp"
#include "../kernels/thrust_system.hpp"
#include "../seq.hpp"

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#ifdef __CUDACC__
#include <thrust/system_error.h>
#endif

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// What primitives of a Thrust policy are made of.
template <class Exec>
class thrust_device : public sequential<thrust_tasks<Exec>> {
    using tasks = thrust_tasks<Exec>;
    using base = sequential<tasks>;

  public:
    explicit thrust_device(const Exec& exec) : base(tasks{exec}) {}

    static constexpr bool on_host = tasks::system != detail::thrust_system::device;
    /// Whether kernels run on a GPU; on_host is false on any system with memory of its own.
    static constexpr bool on_cuda = detail::is_cuda<Exec>;

    const Exec& exec() const { return this->executor().exec; }

    /// Throws value_error for memory that the device cannot read.
    void check_memory([[maybe_unused]] const void* p) const {
#ifdef __CUDACC__
        cudaPointerAttributes found;
        int device = 0, reads_all = 0;
        if (p == nullptr || cudaPointerGetAttributes(&found, p) != cudaSuccess ||
            found.type != cudaMemoryTypeUnregistered)
            return;
        if (cudaGetDevice(&device) == cudaSuccess &&
            cudaDeviceGetAttribute(&reads_all, cudaDevAttrPageableMemoryAccess, device) ==
                cudaSuccess &&
            reads_all == 0)
            detail::fail<value_error>("on", p, " is in memory of the host, which device ", device,
                                      " does not read");
#endif
    }

    template <class T>
    detail::thrust_memory<T, Exec> temporary(workspace&, index_t count) const {
        return temporary<T>(count);
    }
    template <class T>
    detail::thrust_memory<T, Exec> temporary(index_t count) const {
        return {exec(), count};
    }
    /// What keeps sums in the policy's memory between calls, for policies of this type.
    using kept_memory = detail::thrust_kept<Exec>;
    /// Memory of the host for copies that nobody waits for until asked to.
    template <class T>
    detail::thrust_staging<T, Exec> staging(index_t count) const {
        return {exec(), count};
    }

    template <class T>
    T read(const T* p) const {
        T there;
        copy_to_host(p, 1, &there);
        return there;
    }

    /// Copies `count` elements from the host's memory to the policy's, and waits until it has read
    /// them.
    template <class T>
    void copy_from_host(const T* from, index_t count, T* to) const {
        if constexpr (detail::is_cuda<Exec>) {
#ifdef __CUDACC__
            copy_memory(from, count, to, cudaMemcpyHostToDevice);
#endif
        } else {
            for_each(count, [=](index_t i) { to[i] = from[i]; });
        }
    }

    /// Copies `count` elements from the policy's memory to the host's, and waits for them.
    template <class T>
    void copy_to_host(const T* from, index_t count, T* to) const {
        if constexpr (detail::is_cuda<Exec>) {
#ifdef __CUDACC__
            copy_memory(from, count, to, cudaMemcpyDeviceToHost);
#endif
        } else {
            for_each(count, [=](index_t i) { to[i] = from[i]; });
        }
    }

    /// f(i) for i < n, in any order.
    template <class F>
    void for_each(index_t n, const F& f) const {
        if (n <= 0) return;
        if constexpr (detail::is_cuda<Exec>) {
#ifdef __CUDACC__
            constexpr int threads = detail::threads_of_each;
            launch(detail::run_each<F>, (n + threads - 1) / threads, threads, 0, f, n);
#endif
        } else {
            thrust::for_each_n(exec(), thrust::counting_iterator<index_t>(0), n, f);
        }
    }

    /// f(exec()), an algorithm of Thrust's.
    template <class F>
    void by_thrust(const F& f) const {
#ifdef __CUDACC__
        try {
            f(exec());
        } catch (const thrust::system_error& error) {
            detail::fail<device_error>("on", error.what());
        }
#else
        f(exec());
#endif
    }

    /// Whether the device runs a kernel's blocks. They may share 227 KB of memory with sm_90, 163 with
    /// sm_80, and 99 with sm_86 and sm_89, which is too little for doubles in attention; and what was
    /// made for an older device has no tensor cores on any.
    template <class Kernel>
    bool can_run([[maybe_unused]] const Kernel& kernel) const {
#ifdef __CUDACC__
        if constexpr (detail::is_cuda<Exec>) {
            int device = 0, most = 0;
            detail::check_cuda("cudaGetDevice", cudaGetDevice(&device));
            detail::check_cuda(
                "cudaDeviceGetAttribute",
                cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
            if (Kernel::shared_bytes > static_cast<std::size_t>(most)) return false;
            if constexpr (detail::needs_tensor_cores<Kernel> && !detail::always_tensor_cores) {
                cudaFuncAttributes made;
                detail::check_cuda("cudaFuncGetAttributes",
                                   cudaFuncGetAttributes(&made, detail::run_block<Kernel>));
                return made.ptxVersion >= 80;
            }
        }
#endif
        return true;
    }

    /// kernel(i, memory) for i < count, each by a block of threads that share Kernel::shared_bytes
    /// of memory.
    template <class Kernel>
    void for_blocks(index_t count, const Kernel& kernel) const {
        if (count <= 0) return;
        constexpr std::size_t bytes = Kernel::shared_bytes;
        if constexpr (detail::is_cuda<Exec>) {
#ifdef __CUDACC__
            void (*const run)(Kernel) = detail::run_block<Kernel>;
            if constexpr (bytes > 48 * 1024) // which every kernel has
                detail::check_cuda("cudaFuncSetAttribute",
                                   cudaFuncSetAttribute(run,
                                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                        static_cast<int>(bytes)));
            launch(run, count, detail::threads_of<Kernel>, bytes, kernel);
#endif
        } else {
            for_each(count, [=](index_t i) {
                alignas(128) unsigned char memory[bytes];
                detail::block_player::run(detail::threads_of<Kernel>, kernel, i, memory);
            });
        }
    }

    template <class F>
    index_t first(index_t n, const F& f) const {
        const index_t at = n > 0 ? detail::fold_by_blocks(*this, n, detail::first_where<F>{f}) : n;
        return at < n ? at : -1;
    }

    template <class F>
    index_t sum(index_t n, const F& f) const {
        return n > 0 ? detail::fold_by_blocks(*this, n, detail::sum_of_integers<F>{f}) : 0;
    }

    template <class Offset, class F>
    double sum_segments(const Offset* offsets, index_t segments, index_t rows, const F& f) const {
        return sum_in_double(rows, [=] PARE_HD(index_t i) {
            return f(detail::segment_of(offsets, segments, i), i, i + 1);
        });
    }

    /// The sum of the numbers f(i), i < n.
    template <class F>
    double sum_in_double(index_t n, const F& f) const {
        return n > 0 ? detail::fold_by_blocks(*this, n, detail::sum_of_numbers<F>(f)) : 0.0;
    }

    /// sum_segments() of make(how many segments are not empty); `wrong`, and nothing is written, where
    /// offsets do not ascend from 0 to `rows`.
    template <class Offset, class Make>
    detail::checked_sum sum_segments_checked(const Offset* offsets, index_t segments, index_t rows,
                                             const Make& make) const {
        return detail::sum_segments_by_blocks(*this, offsets, segments, rows, make);
    }

    template <class T>
    index_t first_nan(view<const T, 1> x) const {
        return first(x.extent(0), [=] PARE_HD(index_t i) {
            return detail::is_nan(static_cast<compute_t<T>>(x(i)));
        });
    }

  protected:
#ifdef __CUDACC__
    cudaStream_t stream() const {
        Exec found = exec();
        return thrust::cuda_cub::stream(found);
    }

  private:
    /// Queues run(arguments...) and waits for it as the policy does. An error that somebody else's call
    /// has left behind is not this one's.
    template <class... Arguments>
    void launch(void (*run)(Arguments...), index_t blocks, int threads, std::size_t bytes,
                Arguments... arguments) const {
        void* all[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
        detail::check_cuda("cudaLaunchKernel",
                           cudaLaunchKernel(reinterpret_cast<const void*>(run),
                                            dim3(static_cast<unsigned>(blocks)),
                                            dim3(static_cast<unsigned>(threads)), all, bytes,
                                            stream()));
        Exec found = exec();
        detail::check_cuda("cudaStreamSynchronize", thrust::cuda_cub::synchronize_optional(found));
    }

    template <class T>
    void copy_memory(const T* from, index_t count, T* to, cudaMemcpyKind kind) const {
        if (count <= 0) return;
        const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
        detail::check_cuda("cudaMemcpyAsync", cudaMemcpyAsync(to, from, bytes, kind, stream()));
        detail::check_cuda("cudaStreamSynchronize", cudaStreamSynchronize(stream()));
    }
#endif
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
PARE_SIGNED_ARRAYS_END
