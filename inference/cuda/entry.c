/* The module's one symbol. */
#include "inference/cuda/backend_cuda.h"
#include "inference/module.h"

__attribute__((
    visibility("default"))) extern const hp_backend_module hp_backend_module_entry;

const hp_backend_module hp_backend_module_entry = {
    .abi = HP_MODULE_ABI, .layout = HP_MODULE_LAYOUT, .ops = &hp_backend_cuda};
