// expect: pare: this call cannot run as a part
#include <pare/fisher.hpp>

void misuse(pare::fisher<>& fisher, const float* gradients) {
    fisher.add(pare::sequential<pare::part>(pare::part{0, 2}), pare::view(gradients, 4, 3));
}
