#include "linear.hpp"

#include <pare/core/executor.hpp>

#include <algorithm>
#include <vector>

#ifdef PARE_HAVE_DNNL
#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include <array>
#else
#include "kernel.hpp"
#endif

namespace encoder {

using Eigen::Index;

#ifdef PARE_HAVE_DNNL

namespace {

using dims = dnnl::memory::dims;
using layout = dnnl::memory::format_tag;

dnnl::engine& the_cpu() {
    static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
    return cpu;
}

dnnl::memory::desc describe(const dims& sizes, layout tag) {
    return {sizes, dnnl::memory::data_type::f32, tag};
}

dnnl::memory wrap(const dnnl::memory::desc& desc, const float* data) {
    return {desc, the_cpu(), const_cast<float*>(data)}; // oneDNN has no read-only memory
}

/// oneDNN plans for the number of threads that it sees; ours run primitives one thread each.
class one_thread {
  public:
    one_thread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
    ~one_thread() { omp_set_num_threads(before_); }
    one_thread(const one_thread&) = delete;
    one_thread& operator=(const one_thread&) = delete;

  private:
    int before_;
};

} // namespace

// Creating a primitive takes as long as a product, and each is for one number of rows. So there are
// some sizes of blocks for the rows of any batch; what is left is padded to the smallest one, which
// is about as fast for a row as the largest.
struct linear::packed {
    struct product {
        dnnl::matmul assign, add;
        dnnl::memory::desc source, target, scratch;
        dnnl::memory weight;
    };
    static constexpr Index sizes[] = {block, 16, unit};
    dnnl::memory bias;
    std::array<product, std::size(sizes)> products;

    packed(const matrix& weight, const Eigen::VectorXf& b) {
        const one_thread guard;
        const auto plain = wrap_plain(weight);
        bias = dnnl::memory(describe({1, weight.rows()}, layout::ab), the_cpu());
        for (std::size_t i = 0; i < products.size(); ++i)
            products[i] = plan(sizes[i], plain, products[0].weight);
        replace(weight, b);
    }

    void replace(const matrix& weight, const Eigen::VectorXf& b) {
        const one_thread guard;
        std::copy_n(b.data(), b.size(), static_cast<float*>(bias.get_data_handle()));
        dnnl::memory plain = wrap_plain(weight);
        dnnl::stream stream(the_cpu());
        for (product& p : products)
            if (&p == &products[0] || p.weight != products[0].weight)
                dnnl::reorder(plain, p.weight).execute(stream, plain, p.weight);
        stream.wait();
    }

    static dnnl::memory wrap_plain(const matrix& weight) {
        return wrap(describe({weight.cols(), weight.rows()}, layout::ba), weight.data());
    }

    /// With memory for the packed weights: `shared`, if its layout is the right one here, too.
    product plan(Index rows, const dnnl::memory& plain, const dnnl::memory& shared) const {
        const dims shape = plain.get_desc().dims();
        product p;
        p.source = describe({rows, shape[0]}, layout::ab);
        p.target = describe({rows, shape[1]}, layout::ab);
        const auto describe_product = [&](bool accumulate, const dnnl::memory::desc& weight) {
            dnnl::post_ops after;
            if (accumulate) after.append_sum();
            dnnl::primitive_attr attributes;
            attributes.set_post_ops(after);
            attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user); // calls run concurrently
#if DNNL_VERSION_MAJOR >= 3
            return dnnl::matmul::primitive_desc(the_cpu(), p.source, weight, bias.get_desc(),
                                                p.target, attributes);
#else
            return dnnl::matmul::primitive_desc({p.source, weight, bias.get_desc(), p.target},
                                                attributes, the_cpu());
#endif
        };
        const auto assign = describe_product(false, describe(shape, layout::any));
        const auto add = describe_product(true, assign.weights_desc());
        p.assign = dnnl::matmul(assign);
        p.add = dnnl::matmul(add);
        const auto a = assign.scratchpad_desc(), b = add.scratchpad_desc();
        p.scratch = a.get_size() > b.get_size() ? a : b;
        const bool same = shared && shared.get_desc() == assign.weights_desc();
        p.weight = same ? shared : dnnl::memory(assign.weights_desc(), the_cpu());
        return p;
    }

    void multiply(const product& p, const float* x, float* y, bool accumulate) const {
        thread_local dnnl::stream stream(the_cpu());
        thread_local std::vector<float> scratch;
        scratch.resize(std::max(scratch.size(), p.scratch.get_size() / sizeof(float) + 1));
        (accumulate ? p.add : p.assign)
            .execute(stream, {{DNNL_ARG_SRC, wrap(p.source, x)},
                              {DNNL_ARG_WEIGHTS, p.weight},
                              {DNNL_ARG_BIAS, bias},
                              {DNNL_ARG_DST, wrap(p.target, y)},
                              {DNNL_ARG_SCRATCHPAD, wrap(p.scratch, scratch.data())}});
    }

    void run(const float* x, Index rows, float* y, bool accumulate) const {
        const Index inputs = products[0].source.dims()[1], outputs = products[0].target.dims()[1];
        for (std::size_t i = 0; i < products.size(); ++i)
            for (const Index n = sizes[i]; rows >= n; rows -= n, x += n * inputs, y += n * outputs)
                multiply(products[i], x, y, accumulate);
        if (rows == 0) return;
        thread_local std::vector<float> padded;
        padded.assign(static_cast<std::size_t>(unit * (inputs + outputs)), 0.f);
        float* const y_padded =
            std::copy_n(x, rows * inputs, padded.data()) + (unit - rows) * inputs;
        if (accumulate) std::copy_n(y, rows * outputs, y_padded);
        multiply(products.back(), padded.data(), y_padded, accumulate);
        std::copy_n(y_padded, rows * outputs, y);
    }
};

#else

struct linear::packed {
    Index inputs, outputs;
    Eigen::VectorXf weight, bias;

    packed(const matrix& w, const Eigen::VectorXf& b)
        : inputs(w.cols()), outputs(w.rows()),
          weight(inputs * kernel::round_up(outputs, kernel::panel_width)) {
        replace(w, b);
    }

    void replace(const matrix& w, const Eigen::VectorXf& b) {
        bias = b;
        kernel::pack(inputs, outputs, w.data(), 1, inputs, weight.data());
    }

    void run(const float* x, Index rows, float* y, bool accumulate) const {
        const Index stride = kernel::round_up(outputs, kernel::width);
        thread_local std::vector<float> product; // whole batches wide
        product.resize(std::max(product.size(), static_cast<std::size_t>(block * stride)));
        for (; rows > 0; rows -= block, x += block * inputs, y += block * outputs) {
            const Index m = std::min(block, rows);
            kernel::multiply(m, inputs, outputs, x, inputs, weight.data(), product.data(), stride);
            const Eigen::Map<const matrix, 0, Eigen::OuterStride<>> result(
                product.data(), m, outputs, Eigen::OuterStride<>(stride));
            Eigen::Map<matrix> target(y, m, outputs);
            if (accumulate)
                target += result.rowwise() + bias.transpose();
            else
                target = result.rowwise() + bias.transpose();
        }
    }
};

#endif

linear::linear(const matrix& weight, const Eigen::VectorXf& bias)
    : inputs_(weight.cols()), outputs_(weight.rows()),
      bias_(bias.size() == 0 ? Eigen::VectorXf::Zero(outputs_).eval() : bias) {
    if (weight.size() > 0) packed_ = std::make_unique<packed>(weight, bias_);
}
linear::~linear() = default;
linear::linear(linear&&) noexcept = default;
linear& linear::operator=(linear&&) noexcept = default;

void linear::replace(const matrix& weight, const Eigen::VectorXf& bias) {
    if (!packed_ || weight.rows() != outputs_ || weight.cols() != inputs_) {
        *this = linear(weight, bias);
        return;
    }
    bias_ = bias.size() == 0 ? Eigen::VectorXf::Zero(outputs_).eval() : bias;
    packed_->replace(weight, bias_);
}

void linear::run(const float* x, Index rows, float* y, bool accumulate) const {
    if (packed_) return packed_->run(x, rows, y, accumulate);
    // Nothing goes in or nothing comes out.
    Eigen::Map<matrix> target(y, rows, outputs_);
    if (!accumulate) target.setZero();
    target.rowwise() += bias_.transpose();
}

void add_weight_gradient(Index rows, const float* g, Index stride, const float* x,
                         linear::matrix& weight, Eigen::VectorXf& bias) {
    const Index outputs = weight.rows(), inputs = weight.cols();
    // Outputs that one thread takes at a time: at least two tasks, as a product that is alone would
    // be spread over threads by its library, in an order that depends on their number.
    const Index chunk = std::min<Index>(96, std::max<Index>(1, (outputs + 1) / 2));
    pare::openmp{}.run((outputs + chunk - 1) / chunk, [&](Index task, Index) {
        const Index first = task * chunk, n = std::min(chunk, outputs - first);
        const Eigen::Map<const linear::matrix, 0, Eigen::OuterStride<>> some(
            g + first, rows, n, Eigen::OuterStride<>(stride));
        bias.segment(first, n) += some.colwise().sum().transpose();
        if (inputs == 0 || rows == 0) return;
        float* const to = weight.data() + first * inputs;
#ifdef PARE_HAVE_DNNL
        const one_thread alone;
        dnnl::sgemm('T', 'N', n, inputs, rows, 1, g + first, stride, x, inputs, 1, to, inputs);
#else
        Eigen::Map<linear::matrix>(to, n, inputs).noalias() +=
            some.transpose() * Eigen::Map<const linear::matrix>(x, rows, inputs);
#endif
    });
}

} // namespace encoder
