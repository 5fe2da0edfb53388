/* A module whose device is the CPU back end and likes batches: with it a test sees
 * that a stage gives the same answer however many items it hands over at once. */
#include "inference/module.h"

static hp_backend_ops ops; /* hp_backend_cpu's, but for the batch */

static hp_code batching_open(const hp_backend_options *opt, hp_backend **ret,
                             hp_error *reterr)
{
    hp_code r = hp_backend_cpu.open(opt, ret, reterr);

    if (r == HP_OK)
        (*ret)->ops = &ops;
    return r;
}

__attribute__((constructor)) static void fill_in(void)
{
    ops = hp_backend_cpu;
    ops.batch_max = 3; /* neither four phases nor ten crops are a multiple of it */
    ops.open = batching_open;
}

const hp_backend_module hp_backend_module_entry = {
    .abi = HP_MODULE_ABI, .layout = HP_MODULE_LAYOUT, .ops = &ops};
