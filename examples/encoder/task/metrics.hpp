// Measures of quality: of numbers against numbers, and of classes against classes.
#pragma once

#include <Eigen/Core>

#include <vector>

namespace encoder {

/// Correlation of two lists of the same length. NaN where one of them is constant.
double pearson(const std::vector<double>& a, const std::vector<double>& b);
/// The same of ranks; equal values share the mean of theirs.
double spearman(const std::vector<double>& a, const std::vector<double>& b);

/// How many are of each class, were taken for it, and both; [classes] each.
struct class_counts {
    Eigen::VectorXd there, found, right;

    explicit class_counts(Eigen::Index classes);
    /// One more of class `is` that was taken for `taken`.
    void add(Eigen::Index is, Eigen::Index taken);
};

double accuracy(const class_counts& counts);
/// Of two classes, that of class 1; of more, the mean over those that are there or were found. A
/// class that was never found, or is not there, has 0.
double f1(const class_counts& counts);
/// Matthews' correlation coefficient, for any number of classes. 0 where one class is all there is,
/// or all that was found.
double matthews(const class_counts& counts);

} // namespace encoder
