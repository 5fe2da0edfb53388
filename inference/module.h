/* The CUDA back end's door: a shared object with one symbol.
 *
 * Programs of the house are linked without CUDA. What crosses is this struct, the
 * operations it points to, and the structs that they take; a module built from
 * other sources may lay those out differently, so it is asked first.
 */
#ifndef HP_INFERENCE_MODULE_H
#define HP_INFERENCE_MODULE_H

#include <stdint.h>

#include "inference/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever something that crosses changes its meaning. */
#define HP_MODULE_ABI 3
/* Catches the change that nobody raised it for. */
#define HP_MODULE_LAYOUT                                                                 \
    ((uint32_t)(sizeof(hp_graph) + (sizeof(hp_op) << 8) + (sizeof(hp_value) << 14) +     \
                (sizeof(hp_stage_name) << 20) + (sizeof(hp_backend_options) << 4) +      \
                sizeof(hp_backend_ops) + (sizeof(hp_backend) << 2) + sizeof(hp_error) +  \
                (sizeof(hp_ports) << 10) + (sizeof(hp_slices) << 6) +                    \
                sizeof(hp_decoded)))

#define HP_MODULE_SYMBOL "hp_backend_module_entry"
#define HP_MODULE_FILE "hepar-cuda.so"

typedef struct hp_backend_module {
    uint32_t abi; /* stays first: every version can read it */
    uint32_t layout;
    const hp_backend_ops *ops;
} hp_backend_module;

/* Loads and checks; the module stays for the life of the process. HP_E_NOT_FOUND:
 * no file; HP_E_UNSUPPORTED: not loadable, or of another version. The error says
 * which file and why. */
hp_code hp_module_load(const char *path, const hp_backend_ops **ret, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
