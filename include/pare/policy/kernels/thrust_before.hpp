// How much comes before each of many places, where blocks of threads need to know: once, by one block,
// in place of each block that adds it up for itself.
#pragma once

#include "thrust_blocks.hpp"

#include <cstddef>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// before[i] = f(0) + ... + f(i - 1), i <= count. One block: what comes behind has a block for each
/// place, and takes longer.
template <class F>
struct sums_before_block {
    static constexpr int threads = 1024, each = 8;
    struct shared {
        index_t scan[2][threads];
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    F f;
    index_t count;
    index_t* before;

    PARE_HD void operator()(index_t, unsigned char* memory) const {
        const block_of<threads> all;
        shared& m = *reinterpret_cast<shared*>(memory);
        index_t sum_of_all = 0;
        for (index_t begin = 0; begin <= count; begin += threads * each) {
            all.step([&](int thread) {
                const index_t first = begin + thread * each;
                index_t sum = 0;
                for (index_t i = first; i < first + each && i < count; ++i) sum += f(i);
                m.scan[0][thread] = sum;
            });
            const int now = running_sums(all, m.scan);
            all.step([&](int thread) {
                const index_t first = begin + thread * each;
                index_t sum = sum_of_all + (thread > 0 ? m.scan[now][thread - 1] : 0);
                for (index_t i = first; i < first + each && i <= count; ++i) {
                    before[i] = sum;
                    if (i < count) sum += f(i);
                }
            });
            sum_of_all += m.scan[now][threads - 1];
            all.step([](int) {}); // m.scan is used again
        }
    }
};
template <class Policy, class F>
void sums_before(const Policy& policy, index_t count, const F& f, index_t* before) {
    policy.for_blocks(1, sums_before_block<F>{f, count, before});
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
