/* Greedy box suppression and the merge across phases (inference/stage_detect.c). */
#ifndef HP_KERNELS_NMS_H
#define HP_KERNELS_NMS_H

#include "base/volume.h"

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

#ifdef __cplusplus
}
#endif
#endif
