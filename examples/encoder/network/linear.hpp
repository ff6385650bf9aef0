// A dense layer with its weights packed once for fast products.
#pragma once

#include <Eigen/Core>

#include <memory>

namespace encoder {

/// y = x weight' + bias for blocks of rows. By oneDNN where PARE_HAVE_DNNL is defined, else by the
/// micro-kernel of attention. The calling thread does all the work, so that each of a pool of
/// threads may take a block of rows through several layers while it is in its cache; such calls may
/// run concurrently.
class linear {
  public:
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

    /// weight is [outputs x inputs]; either may be 0. An empty bias counts as zeros.
    linear() : linear(matrix(), Eigen::VectorXf()) {}
    linear(const matrix& weight, const Eigen::VectorXf& bias);
    ~linear();
    linear(linear&&) noexcept;
    linear& operator=(linear&&) noexcept;

    /// Takes new weights; of the same shape, that costs less than a new layer.
    void replace(const matrix& weight, const Eigen::VectorXf& bias);

    /// Rows of the largest block that is one product, and what rows are padded to a multiple of.
    static constexpr Eigen::Index block = 64, unit = 4;

    /// y [rows x outputs] = x [rows x inputs] weight' + bias.
    void assign(const float* x, Eigen::Index rows, float* y) const { run(x, rows, y, false); }
    /// y += x weight' + bias.
    void add(const float* x, Eigen::Index rows, float* y) const { run(x, rows, y, true); }

  private:
    void run(const float* x, Eigen::Index rows, float* y, bool accumulate) const;

    struct packed;
    Eigen::Index inputs_, outputs_;
    Eigen::VectorXf bias_;
    std::unique_ptr<packed> packed_; // none for a matrix without elements
};

/// The adjoint of a dense layer in its weights, for the rows x that it was given and the gradient g
/// of its result, whose rows are `stride` apart: weight [outputs x inputs] += g' x, bias
/// [outputs] += sum of rows of g. On all threads; the result does not depend on their number.
void add_weight_gradient(Eigen::Index rows, const float* g, Eigen::Index stride, const float* x,
                         linear::matrix& weight, Eigen::VectorXf& bias);

} // namespace encoder
