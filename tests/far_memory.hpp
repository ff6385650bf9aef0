// Memory that the host cannot read, as a GPU's is: a system of Thrust whose memory opens only while
// one of its algorithms runs. What the host reads itself ends the program.
#pragma once

#include <pare/policy/thrust.hpp>
#include <pare/ridge.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/mman.h>
#include <vector>

namespace far {

/// A block of memory that is closed most of the time.
class closed_memory {
  public:
    // As often closed as opened, it is closed.
    void open() {
        if (opened_++ == 0) protect(PROT_READ | PROT_WRITE);
    }
    void close() {
        if (--opened_ == 0) protect(PROT_NONE);
    }

    /// Memory whose numbers are NaN. Throws bad_alloc when `allowed` allocations have been made.
    void* allocate(std::size_t bytes) {
        const std::size_t first = blocks_.empty() ? 0 : blocks_.back().end;
        const std::size_t end = first + (bytes + 63) / 64 * 64;
        if (allowed == 0 || end > size) throw std::bad_alloc();
        --allowed;
        ++held;
        blocks_.push_back({first, end, true});
        used_ = std::max(used_, end);
        most = std::max(most, end);
        open();
        if (opened_ > 1) protect(PROT_READ | PROT_WRITE); // what is new of it, too
        std::memset(memory_ + first, 0xff, end - first);
        close();
        return memory_ + first;
    }
    void give_back(const void* p) {
        const auto first = static_cast<std::size_t>(static_cast<const unsigned char*>(p) - memory_);
        const auto at = std::find_if(blocks_.begin(), blocks_.end(),
                                     [&](const block& b) { return b.used && b.first == first; });
        if (at == blocks_.end()) std::abort();
        at->used = false;
        --held;
        while (!blocks_.empty() && !blocks_.back().used) blocks_.pop_back();
        if (opened_ == 0) used_ = blocks_.empty() ? 0 : blocks_.back().end; // the rest is closed
    }
    bool contains(const void* p) const {
        const auto* const at = static_cast<const unsigned char*>(p);
        return at >= memory_ && at < memory_ + size;
    }

    long allowed = -1, held = 0;
    std::size_t most = 0; ///< bytes so far

  private:
    struct block {
        std::size_t first, end;
        bool used;
    };

    static constexpr std::size_t size = std::size_t{1} << 30;

    void protect(int rights) {
        if (used_ > 0 && mprotect(memory_, used_, rights) != 0) throw std::bad_alloc();
    }

    unsigned char* const memory_ = static_cast<unsigned char*>(
        mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    std::vector<block> blocks_; // one behind another
    std::size_t used_ = 0;      // of them, or what is open behind them
    int opened_ = 0;
};
inline closed_memory device;

struct open_device {
    open_device() { device.open(); }
    ~open_device() { device.close(); }
};

// Thrust, and remote.hpp, find these by their first argument.

struct system : thrust::cpp::execution_policy<system> {};

inline bool is_there(const system&, const void* p) {
    return device.contains(p);
}

pare::detail::system_constant<pare::detail::thrust_system::device> system_of(const system&);

template <class T>
thrust::pair<thrust::pointer<T, system>, std::ptrdiff_t> get_temporary_buffer(system,
                                                                              std::ptrdiff_t n) {
    auto* const memory = device.allocate(static_cast<std::size_t>(n) * sizeof(T));
    return {thrust::pointer<T, system>(static_cast<T*>(memory)), n};
}
template <class Pointer>
void return_temporary_buffer(system, Pointer p, std::ptrdiff_t) {
    device.give_back(thrust::raw_pointer_cast(p));
}
template <class It, class Size, class F>
It for_each_n(system, It first, Size n, F f) {
    const open_device now;
    return thrust::for_each_n(thrust::cpp::par, first, n, f);
}
template <class In, class Out, class T>
Out exclusive_scan(system, In first, In last, Out out, T start) {
    const open_device now;
    return thrust::exclusive_scan(thrust::cpp::par, first, last, out, start);
}
template <class It, class Less>
void sort(system, It first, It last, Less less) {
    const open_device now;
    thrust::sort(thrust::cpp::par, first, last, less);
}

/// What cuSOLVER does on CUDA, for pare::ridge_solve.
inline bool solve_there(const system&, pare::view<double, 2> g, pare::view<double, 2> b) {
    pare::workspace scratch;
    if (!pare::factor_cholesky(pare::seq, g, scratch)) return false;
    pare::solve_cholesky(pare::seq, g, b);
    return true;
}

struct policy : pare::thrust_policy<system> {
    using pare::thrust_policy<system>::thrust_policy;
    bool solve(pare::view<double, 2> g, pare::view<double, 2> b) const {
        return solve_there(exec(), g, b);
    }
};
inline const policy far_policy(system{});

} // namespace far
