// Scratch memory that a caller keeps between calls.
#pragma once

#include "config.hpp"

#include <cstdint>
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
        const std::size_t need = static_cast<std::size_t>(count) * sizeof(T) + alignment;
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

} // namespace PARE_ISA
} // namespace pare
