// What peers.py times: components on a GPU by pointers to its memory and numbers, on the stream
// that `pare_stream` was given. Errors end the program.
#include "pool.hpp"

#include <pare/attention.hpp>
#include <pare/compact.hpp>
#include <pare/importance.hpp>
#include <pare/soft_mask.hpp>

#include <cuda_fp16.h>

#include <memory>

namespace {

using pare::index_t;
template <class T, int Rank>
using view = pare::view<T, Rank>;

std::unique_ptr<bench::pool> memory;

} // namespace

extern "C" {

void pare_stream(cudaStream_t stream) {
    memory = std::make_unique<bench::pool>(stream);
}

void pare_importance(const __half* p, index_t batch, index_t heads, index_t n, float* scores) {
    pare::importance(memory->policy(), view<const __half, 4>(p, batch, heads, n, n),
                     view<const int, 1>(), view<float, 2>(scores, batch, n));
}

double pare_soft_mask(const float* scores, const float* gradient, index_t n, float* mask,
                      float* score_gradient) {
    pare::soft_mask(memory->policy(), view<const float, 1>(scores, n), 0, 0.25,
                    view<float, 1>(mask, n));
    return pare::soft_mask_backward(memory->policy(), view<const float, 1>(mask, n),
                                    view<const float, 1>(gradient, n), 0.25,
                                    view<float, 1>(score_gradient, n));
}

void pare_scale_rows(const __half* mask, const __half* x, index_t tokens, index_t columns,
                     __half* y) {
    pare::scale_rows(memory->policy(), view<const __half, 1>(mask, tokens),
                     view<const __half, 2>(x, tokens, columns),
                     view<__half, 2>(y, tokens, columns));
}

index_t pare_compact(const float* scores, const __half* x, index_t tokens, index_t columns,
                     std::int32_t* index, __half* y) {
    const index_t kept = pare::keep_above(memory->policy(), view<const float, 1>(scores, tokens), 0,
                                          view<std::int32_t, 1>(index, tokens));
    pare::gather_rows(memory->policy(), view<const std::int32_t, 1>(index, kept),
                      pare::from_to(view<const __half, 2>(x, tokens, columns),
                                    view<__half, 2>(y, kept, columns)));
    return kept;
}

void pare_compact_async(const float* scores, const __half* x, index_t tokens, index_t columns,
                        const std::int32_t* offsets, index_t sequences, std::int32_t* kept_offsets,
                        std::int32_t* index, __half* y) {
    const view<std::int32_t, 1> kept(kept_offsets, sequences + 1), positions(index, tokens);
    pare::keep_above_async(memory->policy(), view<const float, 1>(scores, tokens), 0,
                           view<const std::int32_t, 1>(offsets, sequences + 1), positions, kept);
    pare::gather_rows_async(memory->policy(), positions, kept,
                            pare::from_to(view<const __half, 2>(x, tokens, columns),
                                          view<__half, 2>(y, tokens, columns)));
}

void pare_scale_rows_backward(const __half* mask, const __half* x, const __half* dy, index_t tokens,
                              index_t columns, __half* dx, __half* mask_gradient) {
    pare::scale_rows_backward(
        memory->policy(), view<const __half, 1>(mask, tokens),
        view<const __half, 2>(x, tokens, columns), view<const __half, 2>(dy, tokens, columns),
        view<__half, 2>(dx, tokens, columns), view<__half, 1>(mask_gradient, tokens));
}

/// q, k, v and out [batch x n x heads x size].
void pare_attention(const __half* q, const __half* k, const __half* v, const std::int32_t* offsets,
                    index_t batch, index_t n, index_t heads, index_t size, __half* out,
                    float* scores) {
    const index_t tokens = batch * n;
    const auto part = [&](const __half* x) {
        return view<const __half, 3>(x, tokens, heads, size);
    };
    pare::workspace scratch;
    pare::attention(memory->policy(), part(q), part(k), part(v),
                    view<const std::int32_t, 1>(offsets, batch + 1),
                    view<__half, 3>(out, tokens, heads, size), view<float, 1>(scores, tokens), {},
                    scratch);
}

/// q and out [batch x heads x size], k and v [batch x n x groups x size].
void pare_step(const __half* q, const __half* k, const __half* v, const std::int32_t* queries,
               const std::int32_t* keys, index_t batch, index_t n, index_t heads, index_t groups,
               index_t size, __half* out, float* scores) {
    const view<const std::int32_t, 1> of_queries(queries, batch + 1), of_keys(keys, batch + 1);
    const auto part = [&](const __half* x) {
        return view<const __half, 3>(x, batch * n, groups, size);
    };
    pare::workspace scratch;
    pare::attention(memory->policy(), view<const __half, 3>(q, batch, heads, size), part(k),
                    part(v), pare::query_key_offsets{of_queries, of_keys},
                    view<__half, 3>(out, batch, heads, size), view<float, 1>(scores, batch * n), {},
                    scratch);
}

} // extern "C"
