// The sums of an accumulator, which stay in the memory of the policies that add to them until they are
// asked for.
#pragma once

#include "view.hpp"

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// A number that counts what its object owns: 0 once that has gone to another one.
template <class T>
class owned {
  public:
    owned(T value = 0) : value_(value) {}
    owned(const owned&) = default;
    owned(owned&& other) noexcept : value_(std::exchange(other.value_, T(0))) {}
    owned& operator=(owned other) noexcept {
        value_ = other.value_;
        return *this;
    }
    operator T&() { return value_; }
    operator const T&() const { return value_; }

  private:
    T value_;
};

/// Sums of double in memory that the host does not read. It outlives the policies that add to it.
class sums_there {
  public:
    virtual ~sums_there() = default;
    /// Copies them to the host's memory, behind all that policies have queued.
    virtual void fetch(double* to) const = 0;
    /// Whether policies whose kept_memory has this mark can add to them now.
    virtual bool is_of(const void* mark) const = 0;
};

struct add_numbers {
    double* sums;
    const double* numbers;
    constexpr void operator()(index_t i) const { sums[i] += numbers[i]; }
};

/// Sums, at first 0, of which each is a number of Acc in the host's memory, plus what policies have
/// added in theirs. Reading brings that to the host, for which threads may ask at the same time. A
/// copy has all of it in the host's memory.
template <class Acc>
class kept_sums {
  public:
    kept_sums() = default;
    explicit kept_sums(index_t count) : here_(static_cast<std::size_t>(count)) {}
    kept_sums(const kept_sums& other) : here_(other.here()) {}
    kept_sums(kept_sums&& other) noexcept
        : here_(std::move(other.here_)), there_(std::move(other.there_)) {}
    kept_sums& operator=(kept_sums other) noexcept {
        here_.swap(other.here_);
        there_.swap(other.there_);
        return *this;
    }

    index_t size() const { return static_cast<index_t>(here_.size()); }

    /// Complete, in the host's memory; the policies' is given back.
    const std::vector<Acc>& here() const {
        const std::lock_guard<std::mutex> one(reading_);
        if (!there_) return here_;
        std::vector<double> more(here_.size());
        there_->fetch(more.data());
        for (std::size_t i = 0; i < more.size(); ++i) here_[i] += static_cast<Acc>(more[i]);
        there_.reset();
        return here_;
    }
    std::vector<Acc>& here() { return const_cast<std::vector<Acc>&>(std::as_const(*this).here()); }

    /// Those in the policy's memory: data() as long as what is returned lives. Only for policies
    /// whose memory the host does not read; throws bad_alloc.
    template <class Policy>
    auto there(const Policy& policy) {
        using memory = typename Policy::kept_memory;
        if (there_ && !there_->is_of(&memory::mark)) here(); // another policy's
        if (!there_) there_ = std::make_unique<memory>(policy.exec(), size());
        return static_cast<memory&>(*there_).lend(policy.exec());
    }

    /// Adds numbers [size], which are in the policy's memory. Does not throw after prepare().
    template <class Policy>
    void add(const Policy& policy, const double* numbers) {
        if constexpr (Policy::on_host) {
            for (Acc& sum : here_) sum += static_cast<Acc>(*numbers++);
        } else {
            const auto sums = there(policy);
            policy.for_each(size(), add_numbers{sums.data(), numbers});
        }
    }
    template <class Policy>
    void prepare([[maybe_unused]] const Policy& policy) {
        if constexpr (!Policy::on_host) there(policy);
    }
    void add(const kept_sums& other) {
        const std::vector<Acc>& more = other.here();
        for (std::size_t i = 0; i < here_.size(); ++i) here_[i] += more[i];
    }

  private:
    mutable std::vector<Acc> here_;
    mutable std::unique_ptr<sums_there> there_;
    mutable std::mutex reading_;
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
