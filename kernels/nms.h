/* Greedy box suppression and the merge across phases (inference/stage_detect.c). */
#ifndef HP_KERNELS_NMS_H
#define HP_KERNELS_NMS_H

#include "base/volume.h"
#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_scored_box {
    hp_box box; /* mm */
    float score;
    int order;       /* breaks ties: lower first (phase rank, then index) */
    unsigned phases; /* bits of the phases that contributed */
} hp_scored_box;

/* Sorts by score, then order; drops a box that overlaps a kept one by IoU >=
 * `iou`, or whose centre lies in a kept box while their volumes differ by less
 * than a factor of two. A dropped box adds its phases to the first kept one
 * that drops it. Returns how many stay (at most `keep`), in front. */
int hp_nms_ref(hp_scored_box *boxes, int count, double iou, int keep);

enum { HP_NMS_MAX = 1024, HP_NMS_KEEP = 256 };

/* The same in place on device memory: *ret_kept and the boxes in front are the
 * twin's to the bit (finite scores, no two boxes with one order); what is
 * left behind them is not. count <= HP_NMS_MAX, keep <= HP_NMS_KEEP. */
hp_code hp_nms_cuda(hp_scored_box *boxes, int count, double iou, int keep, int *ret_kept,
                    hp_stream stream, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
