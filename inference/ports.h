/* What a run of a network reads and writes, for `batch` items that lie one after
 * another in each place.
 *
 * Plain floats serve every input and output. Two ends may be left to the device
 * instead, so that less crosses to it: the image, cut from 16-bit slices
 * (kernels/input.h), and CenterNet's heads, decoded to peaks (kernels/peaks.h).
 */
#ifndef HP_INFERENCE_PORTS_H
#define HP_INFERENCE_PORTS_H

#include "inference/graph.h"
#include "kernels/input.h"
#include "kernels/peaks.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One item's image: the part of the sources that becomes it. */
typedef struct hp_slices {
    hp_input cut;                        /* its n and channels are the network's */
    const int16_t *hu[HP_INPUT_SOURCES]; /* on the host; src_n voxels each */
} hp_slices;

/* All is borrowed for the run. */
typedef struct hp_ports {
    const float *in[HP_GRAPH_PORTS]; /* input i: (batch, D, H, W, C) */
    float *out[HP_GRAPH_PORTS];      /* in the order they were named; NULL skips one */
    const hp_slices *slices;         /* (batch) instead of in[0]; (optional) */
    /* (batch) instead of outputs, of which none comes back then: the first three are
     * logits of the map, sizes, offsets, with `min` and `k` as in hp_decode; (optional)
     */
    hp_decoded *decoded;
    float min;
    int k;
} hp_ports;

/* Whether `p` has what the network reads, as it reads it, and asks for what it has:
 * HP_E_INVALID says what does not fit. */
hp_code hp_ports_check(const hp_ports *p, const hp_graph *g, hp_error *reterr);

/* The same ports where item `first` begins. */
hp_ports hp_ports_shift(const hp_ports *p, const hp_graph *g, int first);

/* What decodes the heads (hm, size, offset) of a batch that is stored as the graph has
 * it, and the values that hold them. The ports fit, and p->decoded is set. */
hp_decode hp_ports_decode(const hp_ports *p, const hp_graph *g, int ret_value[3]);

/* HP_E_NUMERIC if a number that decoding met is not finite. */
hp_code hp_ports_look(const hp_ports *p, const hp_graph *g, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
