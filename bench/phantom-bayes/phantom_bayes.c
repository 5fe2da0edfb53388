/* How hard are the phantom's four classes for somebody who knows the law?
 *
 * Closed-form observers: they see a lesion's drawn parameters (some of them)
 * and take the class with the largest posterior under the very distributions
 * the parameters were drawn from. What they reach is the ceiling for what is
 * learnt from images, and it must stay near the paper's difficulty, or the
 * problem has become too easy or hopeless. Exit 1 when one leaves its window. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/phantom/phantom.h"

/* Texture is its length and its amplitude; the correlation between phases needs
 * two registered phases to be seen, so it has an observer of its own. */
enum {
    SEE_CORE_V = 1,
    SEE_CORE = 2,
    SEE_RIM = 4,
    SEE_TEXTURE = 8,
    SEE_RHO = 16,
    N = 40000
};

static const struct observer {
    const char *name;
    int see;
    double overlap, f1, accuracy, slack;
} observers[] = {
    {"V alone", SEE_CORE_V, 1, .33, .59, .05},
    {"four-phase mean HU", SEE_CORE, 1, .565, .68, .04},
    {"four-phase HU and rim", SEE_CORE | SEE_RIM, 1, .68, .76, .04},
    {"texture alone", SEE_TEXTURE, 1, .68, .77, .04},
    {"HU and texture", SEE_CORE | SEE_TEXTURE, 1, .79, .83, .04},
    {"everything", SEE_CORE | SEE_RIM | SEE_TEXTURE, 1, .84, .88, .04},
    {"everything and rho", SEE_CORE | SEE_RIM | SEE_TEXTURE | SEE_RHO, 1, 0, 0, 0},
    {"four-phase HU, overlap 1.25", SEE_CORE, 1.25, .495, -1, .04},
    {"everything, overlap 1.25", SEE_CORE | SEE_RIM | SEE_TEXTURE, 1.25, .81, -1, .04},
};

static double log_normal(double v, double mean, double sd)
{
    double z = (v - mean) / sd;
    return -.5 * z * z - log(sd);
}

/* A, V, D scatter with one common part: covariance sd_i sd_j (.45 + .55 [i = j]).
 * Its inverse is known: with e = z / sd, e'C^-1 e = (sum e^2 - k (sum e)^2) / .55. */
static double log_core(const hp_phantom_lesion *l, const hp_phantom_subtype *s, double o)
{
    double sum = 0, square = 0,
           logs = log_normal(l->core_dhu[0], s->core_dhu[0], hp_phantom_core_sd[0] * o);
    for (int ph = 1; ph < HP_PHASES; ph++) {
        double e = (l->core_dhu[ph] - s->core_dhu[ph]) / (hp_phantom_core_sd[ph] * o);
        sum += e;
        square += e * e;
    }
    return logs - .5 * (square - .45 / (.55 + 3 * .45) * sum * sum) / .55;
}

static double log_likelihood(const hp_phantom_lesion *l, const hp_phantom_subtype *s,
                             int see, double o)
{
    double v = 0;
    if (see & SEE_CORE_V)
        v += log_normal(l->core_dhu[HP_PHASE_V], s->core_dhu[HP_PHASE_V],
                        hp_phantom_core_sd[HP_PHASE_V] * o);
    if (see & SEE_CORE)
        v += log_core(l, s, o);
    for (int ph = 1; (see & SEE_RIM) && ph < HP_PHASES; ph++)
        v += log_normal(l->rim_dhu[ph], s->rim_dhu[ph], hp_phantom_rim_sd[ph] * o);
    if (see & SEE_TEXTURE) {
        v += log_normal(log(l->texture_mm), log(s->texture_mm), .24);
        v += log_normal(log(l->texture_hu), log(s->texture_hu), .20);
    }
    if (see & SEE_RHO)
        v += log_normal(l->rho, s->rho, .18);
    return v;
}

static int decide(const hp_phantom_lesion *l, int see, double overlap, const double *mix)
{
    double p[HP_PH_CLASSES] = {0};
    hp_phantom_subtype s;
    int best = 0;
    for (int kind = 0; hp_phantom_subtype_at(kind, &s); kind++)
        p[s.cls] += mix[s.cls] * s.share * exp(log_likelihood(l, &s, see, overlap));
    for (int c = 1; c < HP_PH_CLASSES; c++)
        best = p[c] > p[best] ? c : best;
    return best;
}

int main(void)
{
    static const double mix[HP_PH_CLASSES] = {.60, .08, .16,
                                              .24}; /* sums to 1.08; normalised below */
    double total = 0;
    bool bad = false;
    for (int c = 0; c < HP_PH_CLASSES; c++)
        total += mix[c];
    printf("%-30s %8s %9s   %s\n", "observer", "mean F1", "accuracy", "window");
    for (size_t k = 0; k < sizeof(observers) / sizeof(observers[0]); k++) {
        const struct observer *o = &observers[k];
        double hit = 0, all[4] = {0}, said[4] = {0}, right[4] = {0}, f1 = 0;
        int seed = 0;
        for (int c = 0; c < HP_PH_CLASSES; c++)
            for (int i = 0; i < (int)(N * mix[c] / total); i++) {
                hp_phantom_lesion l;
                hp_phantom_sample((uint64_t)seed++, c, o->overlap, &l);
                int d = decide(&l, o->see, o->overlap, mix);
                all[c]++;
                said[d]++;
                right[c] += d == c;
                hit += d == c;
            }
        for (int c = 0; c < HP_PH_CLASSES; c++)
            f1 += 2 * right[c] / (all[c] + said[c]) / HP_PH_CLASSES;
        double accuracy = hit / seed;
        if (o->slack == 0) {
            printf("%-30s %8.3f %9.3f   (ceiling)\n", o->name, f1, accuracy);
            continue;
        }
        bool out = fabs(f1 - o->f1) > o->slack ||
                   (o->accuracy > 0 && fabs(accuracy - o->accuracy) > o->slack);
        printf("%-30s %8.3f %9.3f   F1 %.3f +- %.2f%s\n", o->name, f1, accuracy, o->f1,
               o->slack, out ? "   LEFT ITS WINDOW" : "");
        bad = bad || out;
    }
    return bad;
}
