// A warp reads what another one writes in the same step: what looks for races has to find this one.
#include <pare/policy/thrust.hpp>

struct missing_step {
    static constexpr std::size_t shared_bytes = pare::detail::thread_block::size * sizeof(int);
    int* out;

    void operator()(pare::index_t, unsigned char* memory) const {
        int* const shared = reinterpret_cast<int*>(memory);
        constexpr int size = pare::detail::thread_block::size;
        pare::detail::thread_block().step([&](int thread) {
            shared[thread] = thread;
            out[thread] = shared[(thread + 32) % size];
        });
    }
};

int main() {
    int out[pare::detail::thread_block::size];
    pare::on(thrust::cpp::par).for_blocks(1, missing_step{out});
}
