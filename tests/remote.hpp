// Tests on memory that the host does not read, as a GPU's is: remote::on(exec) is pare::on(exec) for
// views of the host's memory. A call's arrays are moved there when the component asks for them, with
// poison around them, and brought back when it returns; what it wrote elsewhere than to its outputs
// is a failure.
#pragma once

#include "catch.hpp"
#include <pare/policy/thrust.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace remote {

using pare::index_t;

// How a system tells its memory from the host's; far_memory.hpp has its own.
#ifdef __CUDACC__
template <class Derived>
bool is_there(const thrust::cuda_cub::execution_policy<Derived>&, const void* p) {
    cudaPointerAttributes found;
    return cudaPointerGetAttributes(&found, p) == cudaSuccess && found.type == cudaMemoryTypeDevice;
}
#endif

/// The arrays of one call.
template <class Exec>
class call {
    using byte = unsigned char;

  public:
    explicit call(const pare::thrust_policy<Exec>& policy) : policy_(policy) {}
    call(const call&) = delete;
    ~call() {
        for (const auto& w : windows_) bring_back(*w);
    }

    /// Where the bytes first <= p < last of the host's memory are.
    void* take(const byte* first, const byte* last, bool written) {
        window& w = window_of(first, last);
        const index_t begin = first - w.host;
        for (index_t i = begin; i < last - w.host; ++i) {
            const auto at = static_cast<std::size_t>(i);
            w.image[at] = w.host[i];
            if (w.is[at] != use::output) w.is[at] = written ? use::output : use::input;
        }
        policy_.copy_from_host(w.image.data() + begin, last - first, w.there->data() + begin);
        return w.there->data() + begin;
    }

  private:
    enum class use : char { none, input, output };
    using memory =
        decltype(std::declval<const pare::thrust_policy<Exec>&>().template temporary<byte>(
            index_t{0}));

    /// A part of the host's memory; arrays that overlap, as those in place do, share one.
    struct window {
        const byte* host;
        std::vector<byte> image; // what was moved; poison elsewhere
        std::vector<use> is;
        std::unique_ptr<memory> there;
    };

    window& window_of(const byte* first, const byte* last) {
        for (const auto& w : windows_) {
            const auto size = static_cast<index_t>(w->image.size());
            const index_t begin = first - w->host, end = last - w->host;
            bool overlap = false;
            for (index_t i = std::max<index_t>(0, begin); i < std::min(size, end); ++i)
                overlap = overlap || w->is[static_cast<std::size_t>(i)] != use::none;
            if (!overlap) continue;
            if (begin < 0 || end > size) FAIL("arrays overlap by less than these tests have room");
            return *w;
        }
        // As well aligned there as here, with room for a neighbour that overlaps.
        constexpr index_t alignment = 256;
        const index_t room = last - first + alignment;
        const auto place = static_cast<index_t>(reinterpret_cast<std::uintptr_t>(first));
        const index_t before = room + (place - room) % alignment;
        auto w = std::make_unique<window>();
        w->host = first - before;
        w->image.assign(static_cast<std::size_t>(before + (last - first) + room), byte{0xff});
        w->is.assign(w->image.size(), use::none);
        const auto size = static_cast<index_t>(w->image.size());
        w->there.reset(new memory(policy_.template temporary<byte>(size)));
        policy_.copy_from_host(w->image.data(), size, w->there->data());
        windows_.push_back(std::move(w));
        return *windows_.back();
    }

    void bring_back(const window& w) const {
        std::vector<byte> now(w.image.size());
        policy_.copy_to_host(w.there->data(), static_cast<index_t>(now.size()), now.data());
        index_t elsewhere = 0;
        for (std::size_t i = 0; i < now.size(); ++i) {
            if (now[i] == w.image[i]) continue;
            if (w.is[i] == use::output)
                const_cast<byte*>(w.host)[i] = now[i];
            else
                ++elsewhere;
        }
        if (elsewhere > 0) FAIL_CHECK(elsewhere << " bytes changed that are no output's");
    }

    pare::thrust_policy<Exec> policy_;
    std::vector<std::unique_ptr<window>> windows_;
};

/// A view of memory there. The call ends, and its outputs are back, with the last of its views.
template <class T, int Rank, class Exec>
struct view : pare::view<T, Rank> {
    std::shared_ptr<call<Exec>> during;
};

template <class Exec>
class policy : public pare::thrust_policy<Exec> {
    using base = pare::thrust_policy<Exec>;

  public:
    explicit policy(const Exec& exec)
        : base(exec), current_(std::make_shared<std::weak_ptr<call<Exec>>>()) {}

    template <class T, int Rank>
    view<T, Rank, Exec> bring(const pare::view<T, Rank>& v, bool written) const {
        using byte = unsigned char;
        auto during = current_->lock();
        if (!during) *current_ = during = std::make_shared<call<Exec>>(*this);
        std::array<index_t, Rank> extents, strides;
        index_t last = 0;
        for (int i = 0; i < Rank; ++i) {
            const auto d = static_cast<std::size_t>(i);
            extents[d] = v.extent(i);
            strides[d] = v.stride(i);
            last += (extents[d] - 1) * strides[d];
        }
        T* data = v.data_handle();
        if (v.size() > 0 && !is_there(this->exec(), data))
            data = static_cast<T*>(during->take(reinterpret_cast<const byte*>(data),
                                                reinterpret_cast<const byte*>(data + last + 1),
                                                written));
        const pare::view<T, Rank> there(data, extents, strides);
        return {pare::as_view<Rank>(static_cast<const base&>(*this), there), during};
    }

#ifndef __CUDACC__
    bool solve(pare::view<double, 2> g, pare::view<double, 2> b) const {
        return solve_there(this->exec(), g, b); // far_memory.hpp's
    }
#endif

  private:
    std::shared_ptr<std::weak_ptr<call<Exec>>> current_;
};

// Components find these by their policy.
template <int Rank, class Exec, class X>
auto as_view(const policy<Exec>& there, X&& x) {
    const auto v = pare::as_view<Rank>(x);
    return there.bring(v, !std::is_const_v<typename decltype(v)::element_type>);
}
template <int Rank, class Exec, class X>
auto as_input(const policy<Exec>& there, const X& x) {
    return there.bring(pare::as_input<Rank>(x), false);
}

template <class Exec>
policy<Exec> on(const Exec& exec) {
    return policy<Exec>(exec);
}

} // namespace remote
