// Parts of a call, and tasks that fail.
#include "policies.hpp"
#include "support.hpp"
#include <pare/core/executor.hpp>

#include <atomic>
#include <thread>

namespace executor_test {

TEST_CASE("parts of a call make up its tasks, each once") {
    constexpr index_t most = std::numeric_limits<index_t>::max();
    for (const index_t tasks : {0, 1, 2, 7, 100})
        for (const index_t nth : {1, 2, 3, 7, 200}) {
            std::vector<int> made(static_cast<std::size_t>(tasks), 0);
            for (index_t ith = 0; ith < nth; ++ith)
                pare::part{ith, nth}.run(
                    tasks, [&](index_t task, index_t) { ++made[static_cast<std::size_t>(task)]; });
            CHECK(made == std::vector<int>(made.size(), 1));
        }
    int made = 0;
    pare::part{3, most}.run(10, [&](index_t task, index_t) { made += task == 3 ? 1 : 100; });
    CHECK(made == 1);
    pare::part{most - 1, most}.run(10, [&](index_t, index_t) { ++made; });
    CHECK(made == 1);
    for (const auto& [ith, nth] :
         {std::pair<index_t, index_t>{0, 0}, {-1, 2}, {2, 2}, {0, -1}, {5, 3}}) {
        const pare::part wrong{ith, nth};
        CHECK_THAT(sentence_of<pare::value_error>([&] { wrong.run(4, [](index_t, index_t) {}); }),
                   ContainsSubstring("part " + std::to_string(ith) + " of " + std::to_string(nth)));
    }
}

#ifdef _OPENMP
TEST_CASE("threads take all tasks, each once, and none runs twice at a time in a slot") {
    for (const index_t tasks : {0, 1, 2, 7, 100, 1000})
        for (const int threads : {1, 2, 3, 7, 70}) {
            CAPTURE(tasks, threads);
            std::vector<int> made(static_cast<std::size_t>(tasks), 0);
            std::vector<std::atomic<int>> in_slot(static_cast<std::size_t>(threads));
            std::atomic<bool> alone{true};
            std::atomic<index_t> done{0};
            pare::openmp{threads}.run(tasks, [&](index_t task, index_t slot) {
                std::atomic<int>& here = in_slot[static_cast<std::size_t>(slot)];
                if (here++ > 0) alone = false;
                // A long one, whose thread's share is done by others.
                for (int i = 0; task == 0 && i < 1000 && done < tasks - 1; ++i)
                    std::this_thread::yield();
                ++made[static_cast<std::size_t>(task)];
                ++done;
                --here;
            });
            CHECK(made == std::vector<int>(made.size(), 1));
            CHECK(alone);
        }
}
#endif

template <class Policy>
void check_first(const Policy& policy) {
    constexpr index_t piece = 4096; // of a task
    for (const index_t n :
         {index_t{0}, index_t{1}, index_t{63}, index_t{65}, piece, piece + 1, 3 * piece + 70}) {
        CHECK(policy.first(n, [](index_t) { return false; }) == -1);
        for (const index_t from : {index_t{0}, index_t{1}, index_t{64}, n / 2, piece, n - 1})
            for (const index_t apart : {index_t{1}, index_t{7}, piece}) {
                if (from < 0 || from >= n) continue;
                const auto holds = [&](index_t i) { return i >= from && (i - from) % apart == 0; };
                CHECK(policy.first(n, holds) == from);
            }
    }
}

TEST_CASE("a check finds the first of many, by any number of threads") {
    check_first(pare::seq);
    check_first(pare::sequential<pare::part>(pare::part{1, 3}));
#ifdef _OPENMP
    check_first(pare::sequential<pare::openmp>(pare::openmp{3}));
    check_first(pare::simd.with(pare::openmp{2}));
#endif
}

template <class Executor>
void check_failing(const Executor& executor) {
    std::atomic<int> made{0};
    const auto run = [&](index_t failing) {
        pare::detail::run_allocating(executor, 20, [&](index_t task, index_t) {
            ++made;
            if (task >= failing) throw std::bad_alloc();
        });
    };
    CHECK_NOTHROW(run(20));
    CHECK(made == 20);
    CHECK_THROWS_AS(run(19), std::bad_alloc);
    CHECK_THROWS_AS(run(0), std::bad_alloc);
}

TEST_CASE("what a task cannot allocate, the call says when all tasks have ended") {
    check_failing(pare::serial{});
#ifdef _OPENMP
    check_failing(pare::openmp{3});
    std::atomic<int> made{0};
    CHECK_THROWS_AS(pare::openmp{3}.run(20,
                                        [&](index_t task, index_t) {
                                            ++made;
                                            if (task % 7 == 3) throw std::bad_alloc();
                                        }),
                    std::bad_alloc);
    CHECK(made == 20);
#endif
}

} // namespace executor_test
