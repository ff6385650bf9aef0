// Calibration by several processes: each passes over its part of the text, and the first one merges
// what all have found and chooses. What it chooses is what one process alone would.
//
//     mpiexec -n 2 11_calibrate_with_mpi STEPS TEXT...
#include "decoder/program.hpp"
#include "gpt/prunable.hpp"

#include <pare/policy/simd.hpp>
#include <pare/prune/statistics_file.hpp>

#include <mpi.h>

#include <numeric>
#include <sstream>

namespace {

/// What all processes have found of each sublayer, at the first of them; {} at the others.
std::vector<pare::sublayer_statistics> collect_together(gpt::prunable& model) {
    int rank = 0, ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    // [example]
    auto statistics = pare::collect(pare::simd, model, pare::part{rank, ranks}).value();
    std::ostringstream file;
    pare::save(file, statistics); // for another process, or another budget tomorrow
    // [example]
    if (rank > 0) {
        const std::string sent = file.str(); // more than 2 GB go by a file each
        MPI_Send(sent.data(), static_cast<int>(sent.size()), MPI_CHAR, 0, 0, MPI_COMM_WORLD);
        return {};
    }
    for (int other = 1; other < ranks; ++other) {
        MPI_Status status;
        int size = 0;
        MPI_Probe(other, 0, MPI_COMM_WORLD, &status);
        MPI_Get_count(&status, MPI_CHAR, &size);
        std::string received(static_cast<std::size_t>(size), '\0');
        MPI_Recv(received.data(), size, MPI_CHAR, other, 0, MPI_COMM_WORLD, &status);
        std::istringstream bytes(received);
        const auto part = pare::load_statistics(bytes);
        for (std::size_t s = 0; s < part.size(); ++s) statistics[s].merge(part[s]);
    }
    return statistics;
}

int run(int argc, char** argv) {
    gpt::model trained = gpt::make_model({}, 1);
    const int steps = decoder::read_steps(argc, argv);
    const decoder::texts text = decoder::read_texts(argc, argv, trained.config.length);
    decoder::train(trained, text.learned, steps, 1); // the same in all processes
    gpt::prunable model{{trained, text.calibration, {}}};

    const auto together = collect_together(model);
    if (together.empty()) return 0;
    const auto alone = pare::collect(pare::simd, model).value();
    const auto plan_of = [&](const std::vector<pare::sublayer_statistics>& statistics) {
        return pare::plan(model, pare::elimination_curves(pare::simd, model, statistics).value(),
                          0.5);
    };
    const pare::prune_plan plan = plan_of(together);
    for (std::size_t s = 0; s < plan.masks.size(); ++s)
        std::printf("sublayer %zu: %d of %zu units\n", s,
                    std::accumulate(plan.masks[s].begin(), plan.masks[s].end(), 0),
                    plan.masks[s].size());
    const bool same = plan.masks == plan_of(alone).masks;
    std::printf("%s by one process alone\n", same ? "the same" : "NOT the same");
    return same ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    try {
        const int status = run(argc, argv);
        MPI_Finalize();
        return status;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        MPI_Abort(MPI_COMM_WORLD, 2); // others would wait for this one
    }
}
