/* The C side's handle on the host machine of the kernels. */
#include "kernels/host.cuh"

extern "C" void hp_host_seed(uint64_t seed)
{
    hp_host::the().seed = seed;
}
