// Attention and FFN of a layer over sequences of one length, without a cache, and backwards.
#pragma once

#include "model.hpp"

#include "decoder/decoder.hpp"

#include <optional>

namespace language {

using decoder::unit_rows;

/// A norm of rows, or of each head's part of them.
class norm {
  public:
    /// Keeps the gain's address. An empty gain leaves rows as they are.
    norm(const matrix& x, const vector& gain, double epsilon);
    const matrix& out() const { return out_; }
    matrix backward(const matrix& at_out) const;

  private:
    const vector& gain_;
    std::optional<unit_rows> rows_; ///< parts, one behind another
    matrix out_;
};

class attention_sublayer {
  public:
    /// Of the stream [tokens x hidden], whose sequences have `length` tokens. Keeps addresses.
    attention_sublayer(const model& m, const layer& l, const matrix& x, index_t length);
    /// [tokens x heads * head size]
    const matrix& units() const { return context_; }
    /// From the gradient at the units to that at the stream, by this way alone.
    matrix backward(const matrix& at_units) const;

  private:
    void turn(matrix& x, float direction) const;
    decoder::causal_attention attention() const;

    const model& m_;
    const layer& l_;
    index_t length_;
    norm in_, query_, key_;
    matrix q_, k_, v_, context_; // q and k: turned
};

class ffn_sublayer {
  public:
    ffn_sublayer(const model& m, const layer& l, const matrix& x);
    /// [tokens x filters]
    const matrix& units() const { return active_; }
    matrix backward(const matrix& at_units) const;

  private:
    const layer& l_;
    norm in_;
    matrix gate_, up_, active_;
};

} // namespace language
