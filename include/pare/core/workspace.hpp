// Scratch memory that a caller keeps between calls.
#pragma once

#include "view.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

namespace pare {
inline namespace PARE_ISA {

/// A block of memory that grows and is used again. One call at a time may use it.
class workspace {
  public:
    workspace() = default;
    /// Scratch is no value: a copy, of an accumulator that holds it for example, starts empty.
    workspace(const workspace&) noexcept {}
    workspace& operator=(const workspace&) noexcept { return *this; }

    /// `count` elements of T aligned to 64 bytes, uninitialised; valid until the next get().
    template <class T>
    T* get(index_t count) {
        constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 2 - alignment;
        // More than there can be is asked for as that, and fails as an allocation does.
        const std::size_t need =
            std::min(static_cast<std::size_t>(count), most / sizeof(T)) * sizeof(T) + alignment;
        if (need > size_) {
            memory_.reset(new unsigned char[need]);
            size_ = need;
        }
        auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
        address = (address + alignment - 1) / alignment * alignment;
        return reinterpret_cast<T*>(address);
    }
    /// A workspace for what is called while this one's memory is in use.
    workspace& inner() {
        if (!inner_) inner_ = std::make_unique<workspace>();
        return *inner_;
    }
    /// Bytes held.
    std::size_t size() const { return size_ + (inner_ ? inner_->size() : 0); }

  private:
    static constexpr std::size_t alignment = 64;
    std::unique_ptr<unsigned char[]> memory_;
    std::size_t size_ = 0;
    std::unique_ptr<workspace> inner_;
};

namespace detail {

/// The workspace of a call that is given none: as a default argument it lives until the call returns.
inline workspace& of_this_call(workspace&& scratch) {
    return static_cast<workspace&>(scratch); // which C++23 takes for a temporary otherwise
}

/// For vectors whose functions are this unit's: those of std::vector<double>, say, have one name in
/// all units, whatever their instruction sets.
template <class T>
struct allocator : std::allocator<T> {
    template <class U>
    struct rebind {
        using other = allocator<U>;
    };
    allocator() = default;
    template <class U>
    allocator(const allocator<U>&) noexcept {}
};

/// The offsets of one segment of all rows, which need no memory.
struct offsets_of_one {
    index_t rows;
    constexpr index_t operator[](index_t i) const { return i == 0 ? 0 : rows; }
};
struct set_offsets_of_one {
    index_t* offsets;
    index_t rows;
    constexpr void operator()(index_t i) const { offsets[i] = offsets_of_one{rows}[i]; }
};
/// f(offsets) with them [2] in the policy's memory.
template <class Policy, class F>
auto with_offsets_of_one(const Policy& policy, index_t rows, const F& f) {
    if constexpr (Policy::on_host) {
        index_t offsets[2] = {0, rows};
        return f(view<index_t, 1>(offsets, index_t{2}));
    } else {
        workspace scratch;
        const auto memory = policy.template temporary<index_t>(scratch, 2);
        policy.for_each(2, set_offsets_of_one{memory.data(), rows});
        return f(view<index_t, 1>(memory.data(), index_t{2}));
    }
}

} // namespace detail

} // namespace PARE_ISA
} // namespace pare
