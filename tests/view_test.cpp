// Views of users' containers, and executors.
#include "policies.hpp"
#include "support.hpp"
#include <pare/core/workspace.hpp>

#include <array>
#include <atomic>
#include <Eigen/Core>
#include <thread>

namespace view_test {

namespace {

// element(v, i, j) must be p[i * row_stride + j * column_stride].
template <class View>
void check_matrix(View v, const double* p, index_t rows, index_t columns, index_t row_stride,
                  index_t column_stride) {
    REQUIRE(v.extent(0) == rows);
    REQUIRE(v.extent(1) == columns);
    CHECK(v.size() == rows * columns);
    for (index_t i = 0; i < rows; ++i)
        for (index_t j = 0; j < columns; ++j)
            CHECK(&v(i, j) == p + i * row_stride + j * column_stride);
}

template <class View>
void check_vector(View v, const double* p, index_t n, index_t stride) {
    REQUIRE(v.extent(0) == n);
    for (index_t i = 0; i < n; ++i) CHECK(&v(i) == p + i * stride);
}

struct mdspan_like { // as std::mdspan: unsigned extents, static rank
    double* data;
    std::array<std::size_t, 2> extents, strides;
    static constexpr std::size_t rank() { return 2; }
    double* data_handle() const { return data; }
    std::size_t extent(std::size_t i) const { return extents[i]; }
    std::size_t stride(std::size_t i) const { return strides[i]; }
};

/// A host's own pool: threads that take every n-th task.
struct thread_pool {
    index_t threads;
    index_t concurrency() const { return threads; }
    template <class F>
    void run(index_t tasks, const F& f) const {
        std::vector<std::thread> workers;
        for (index_t slot = 0; slot < threads; ++slot)
            workers.emplace_back([&, slot] {
                for (index_t i = slot; i < tasks; i += threads) f(i, slot);
            });
        for (std::thread& w : workers) w.join();
    }
};

template <class Executor>
void check_executor(const Executor& executor) {
    for (index_t tasks : {0, 1, 2, 3, 100}) {
        std::vector<std::atomic<int>> count(static_cast<std::size_t>(tasks));
        std::vector<std::atomic<int>> busy(static_cast<std::size_t>(executor.concurrency()));
        std::atomic<int> bad{0};
        executor.run(tasks, [&](index_t task, index_t slot) {
            if (slot < 0 || slot >= executor.concurrency() || task < 0 || task >= tasks) {
                ++bad;
                return;
            }
            bad += busy[static_cast<std::size_t>(slot)]++ != 0;
            ++count[static_cast<std::size_t>(task)];
            std::this_thread::yield();
            --busy[static_cast<std::size_t>(slot)];
        });
        CHECK(bad == 0);
        for (const auto& c : count) CHECK(c == 1);
    }
}

} // namespace

TEST_CASE("a container is a view where a structure asks for one") {
    std::vector<float> x = {1, 2, 3};
    const std::vector<float> constant = x;
    const pare::view<const float, 1> of_constant = constant, of_variable = x;
    const pare::view<float, 1> written = x;
    written(1) = 7;
    CHECK(of_variable.data_handle() == x.data());
    CHECK(of_variable(1) == 7);
    CHECK(of_constant.extent(0) == 3);
    using constant_view = pare::view<const float, 1>;
    CHECK_FALSE(std::is_convertible_v<const std::vector<float>&, pare::view<float, 1>>);
    CHECK_FALSE(std::is_convertible_v<std::vector<float>, constant_view>); // would be gone
    CHECK_FALSE(std::is_convertible_v<std::vector<double>&, constant_view>);
    CHECK_FALSE(std::is_convertible_v<std::vector<float>&, pare::view<const float, 2>>);
}

TEST_CASE("views of pointers") {
    std::array<double, 64> memory{};
    double* const p = memory.data();
    const double* const reader = p;

    check_vector(pare::view(p, 7), p, 7, 1);
    check_vector(pare::view(p, std::size_t{7}), p, 7, 1);
    check_vector(pare::view(p, {5}, {3}), p, 5, 3);
    check_matrix(pare::view(p, 3, 4), p, 3, 4, 4, 1);
    check_matrix(pare::view(reader, index_t{3}, 4u), p, 3, 4, 4, 1);
    check_matrix(pare::view(p, {3, 4}, {10, 2}), p, 3, 4, 10, 2);
    check_matrix(pare::view(p, {3, 4}, {1, 3}), p, 3, 4, 1, 3);
    check_matrix(pare::view(p + 60, {3, 4}, {-20, -2}), p + 60, 3, 4, -20, -2);
    check_matrix(pare::view(p, 0, 4), p, 0, 4, 4, 1);
    const pare::view cube(p, 2, 3, 4);
    STATIC_REQUIRE(std::is_same_v<decltype(cube), const pare::view<double, 3>>);
    CHECK(&cube(1, 2, 3) == p + 23);
    CHECK(cube.size() == 24);
    const pare::view four(reader, 2, index_t{3}, 4u, std::size_t{2});
    STATIC_REQUIRE(std::is_same_v<decltype(four), const pare::view<const double, 4>>);
    CHECK(&four(1, 2, 3, 1) == p + 47);

    const pare::view<const double, 2> from_writer = pare::view(p, 3, 4);
    check_matrix(from_writer, p, 3, 4, 4, 1);
    pare::view(p, 3, 4)(1, 2) = 5;
    CHECK(memory[6] == 5);

    STATIC_REQUIRE(std::is_same_v<decltype(pare::view(reader, 3)), pare::view<const double, 1>>);
    STATIC_REQUIRE(!std::is_convertible_v<pare::view<const double, 1>, pare::view<double, 1>>);
    STATIC_REQUIRE(std::is_same_v<decltype(pare::as_input<2>(pare::view(p, 3, 4))),
                                  pare::view<const double, 2>>);
    STATIC_REQUIRE(
        std::is_same_v<decltype(pare::as_view<2>(pare::view(p, 3, 4))), pare::view<double, 2>>);
    const pare::view<float, 2> empty;
    CHECK(empty.size() == 0);
}

TEST_CASE("views of Eigen objects") {
    Eigen::MatrixXd a = Eigen::MatrixXd::Zero(5, 7);
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> b(5, 7);
    Eigen::Matrix<double, 3, 4> fixed;
    check_matrix(pare::as_view<2>(a), a.data(), 5, 7, 1, 5);
    check_matrix(pare::as_input<2>(b), b.data(), 5, 7, 7, 1);
    check_matrix(pare::as_view<2>(fixed), fixed.data(), 3, 4, 1, 3);
    check_matrix(pare::as_view<2>(a.transpose()), a.data(), 7, 5, 5, 1);
    check_matrix(pare::as_view<2>(a.block(1, 2, 3, 4)), &a(1, 2), 3, 4, 1, 5);
    check_matrix(pare::as_view<2>(b.block(1, 2, 3, 4)), &b(1, 2), 3, 4, 7, 1);
    check_matrix(pare::as_view<2>(b.block(1, 2, 3, 4).transpose()), &b(1, 2), 4, 3, 1, 7);
    check_matrix(pare::as_view<2>(Eigen::Map<Eigen::MatrixXd, 0, Eigen::Stride<-1, -1>>(
                     a.data(), 2, 3, Eigen::Stride<-1, -1>(11, 3))),
                 a.data(), 2, 3, 3, 11);

    Eigen::VectorXd v(9);
    check_vector(pare::as_view<1>(v), v.data(), 9, 1);
    check_vector(pare::as_view<1>(v.segment(2, 4)), &v(2), 4, 1);
    check_vector(pare::as_view<1>(a.row(2)), &a(2, 0), 7, 5);
    check_vector(pare::as_view<1>(a.col(2)), &a(0, 2), 5, 1);
    check_vector(pare::as_view<1>(b.row(2)), &b(2, 0), 7, 1);
    check_vector(pare::as_input<1>(b.col(2)), &b(0, 2), 5, 7);
    check_matrix(pare::as_view<2>(v), v.data(), 9, 1, 1, 9);
    check_matrix(pare::as_view<2>(v.transpose()), v.data(), 1, 9, 9, 1);

    const Eigen::MatrixXd& reader = a;
    STATIC_REQUIRE(std::is_same_v<decltype(pare::as_view<2>(reader)), pare::view<const double, 2>>);
}

TEST_CASE("views of ranges and of mdspan") {
    std::vector<double> v(6);
    const std::vector<double>& reader = v;
    std::array<double, 6> a{};
    double c[6] = {};
    check_vector(pare::as_view<1>(v), v.data(), 6, 1);
    check_vector(pare::as_input<1>(reader), v.data(), 6, 1);
    check_vector(pare::as_view<1>(a), a.data(), 6, 1);
    check_vector(pare::as_view<1>(c), c, 6, 1);
    STATIC_REQUIRE(std::is_same_v<decltype(pare::as_view<1>(reader)), pare::view<const double, 1>>);

    const mdspan_like m{v.data(), {2, 2}, {3, 1}};
    check_matrix(pare::as_view<2>(m), v.data(), 2, 2, 3, 1);
    check_matrix(pare::as_input<2>(m), v.data(), 2, 2, 3, 1);
}

TEST_CASE("executors run each task once, in a slot of its own") {
    check_executor(pare::serial{});
    check_executor(thread_pool{1});
    check_executor(thread_pool{3});
#ifdef _OPENMP
    for (int threads : {0, 1, 2, 5}) check_executor(pare::openmp{threads});
    CHECK(pare::openmp{5}.concurrency() == 5);
#endif
}

TEST_CASE("the parts of a call cover its tasks once") {
    for (index_t tasks : {0, 1, 2, 7, 100})
        for (index_t parts : {1, 2, 3, 8, 101}) {
            std::vector<int> count(static_cast<std::size_t>(tasks));
            for (index_t ith = 0; ith < parts; ++ith)
                pare::part{ith, parts}.run(tasks, [&](index_t task, index_t slot) {
                    CHECK(slot == 0);
                    ++count[static_cast<std::size_t>(task)];
                });
            CHECK(count == std::vector<int>(static_cast<std::size_t>(tasks), 1));
        }
}

TEST_CASE("a host's own threads give the same bits") {
    random_source random;
    CAPTURE(random);
    const matrix<float> x(700, 250, random);
    const auto gram = [&](auto policy) {
        std::vector<double> g(250 * 250, 0.0);
        pare::workspace scratch;
        policy.gram(1.0, x.view(), x.view(), pare::view(g.data(), 250, 250), true, scratch);
        return g;
    };
    const auto expected = gram(pare::simd.with(pare::serial{}));
    CHECK(same_bits(gram(pare::simd.with(thread_pool{3})), expected));
    CHECK(same_bits(gram(pare::sequential<thread_pool>(thread_pool{3})), gram(pare::seq)));
}

TEST_CASE("a workspace is aligned, grows, and copies empty") {
    pare::workspace scratch;
    CHECK(scratch.size() == 0);
    const float* const small = scratch.get<float>(10);
    CHECK(reinterpret_cast<std::uintptr_t>(small) % 64 == 0);
    CHECK(scratch.get<double>(2) == static_cast<const void*>(small)); // no allocation
    double* const large = scratch.get<double>(1000);
    CHECK(reinterpret_cast<std::uintptr_t>(large) % 64 == 0);
    std::fill(large, large + 1000, 1.0);
    CHECK(scratch.size() >= 8000);

    pare::workspace copy = scratch, moved = std::move(scratch);
    for (pare::workspace* w : {&copy, &moved, &scratch}) {
        float* const again = w->get<float>(10);
        std::fill(again, again + 10, 1.0f);
    }
    CHECK(copy.get<float>(10) != moved.get<float>(10));
}

} // namespace view_test
