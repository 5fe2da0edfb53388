/* C twin of box suppression. */
#include "kernels/nms.h"

#include <stdbool.h>
#include <stdlib.h>

static int by_score(const void *a, const void *b)
{
    const hp_scored_box *p = a, *q = b;

    if (p->score != q->score)
        return p->score > q->score ? -1 : 1;
    return (p->order > q->order) - (p->order < q->order);
}

static bool holds_centre(const hp_box *kept, const hp_box *b)
{
    for (int a = 0; a < 3; a++) {
        double c = (b->lo[a] + b->hi[a]) / 2;

        if (c < kept->lo[a] || c >= kept->hi[a])
            return false;
    }
    return true;
}

static bool suppresses(const hp_box *kept, const hp_box *b, double iou)
{
    double vk = hp_box_volume(kept), vb = hp_box_volume(b);

    if (hp_box_iou(kept, b) >= iou)
        return true;
    return holds_centre(kept, b) && vk < 2 * vb && vb < 2 * vk;
}

int hp_nms_ref(hp_scored_box *boxes, int count, double iou, int keep)
{
    int kept = 0;

    qsort(boxes, (size_t)count, sizeof *boxes, by_score);
    for (int i = 0; i < count; i++) {
        int by = 0;

        while (by < kept && !suppresses(&boxes[by].box, &boxes[i].box, iou))
            by++;
        if (by < kept)
            boxes[by].phases |= boxes[i].phases;
        else if (kept < keep)
            boxes[kept++] = boxes[i];
    }
    return kept;
}
