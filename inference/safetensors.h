/* Reading and writing safetensors files: an 8-byte little-endian header length,
 * a JSON header (name -> dtype, shape, data_offsets), the bytes.
 *
 * A file read is foreign until checked: lengths, offsets, shapes, dtypes and
 * overlaps are verified before a pointer is handed out.
 */
#ifndef HP_INFERENCE_SAFETENSORS_H
#define HP_INFERENCE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_TENSOR_RANK = 6 };

typedef enum hp_tensor_type {
    HP_DTYPE_F32,
    HP_DTYPE_F16,
    HP_DTYPE_BF16,
    HP_DTYPE_I16,
    HP_DTYPE_I32,
    HP_DTYPE_U8,
    HP_DTYPES
} hp_tensor_type;

size_t hp_tensor_type_size(hp_tensor_type t);

/* One tensor; `data` is borrowed from whoever made it. */
typedef struct hp_tensor {
    const char *name;
    hp_tensor_type dtype;
    int rank, dim[HP_TENSOR_RANK];
    const void *data;
} hp_tensor;

size_t hp_tensor_count(const hp_tensor *t);
/* The values as f32 (F32, F16 and BF16 only); ret has hp_tensor_count() room. */
hp_code hp_tensor_to_f32(const hp_tensor *t, float *ret, hp_error *reterr);

typedef struct hp_safetensors hp_safetensors;

/* Reads the whole file (at most max_bytes). The error names file and tensor. */
hp_code hp_safetensors_load(const char *path, size_t max_bytes, hp_safetensors **ret,
                            hp_error *reterr);
/* The same from memory; `bytes` is emptied into the result, even on failure. */
hp_code hp_safetensors_parse_take(hp_buf *bytes, hp_safetensors **ret, hp_error *reterr);
void hp_safetensors_free(hp_safetensors *s);
HP_AUTO_DEFINE(hp_safetensors, hp_safetensors_free)

int hp_safetensors_count(const hp_safetensors *s);
const hp_tensor *hp_safetensors_at(const hp_safetensors *s, int i);
const hp_tensor *hp_safetensors_find(const hp_safetensors *s,
                                     const char *name); /* or NULL */

/* The text under `key` in the file's __metadata__, or NULL. */
const char *hp_safetensors_metadata(const hp_safetensors *s, const char *key);

/* Writes `count` tensors as path.part, then renames. No sync: a tool's output. */
hp_code hp_safetensors_write(const char *path, const hp_tensor *tensor, int count,
                             hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
