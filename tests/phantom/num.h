/* Numbers that are the same on every machine: a counter hash, a stream of
 * random numbers on top of it, and exp/sin built from + - * / alone (libm's
 * last digit may differ between versions). Inside the phantom only. */
#ifndef HP_TESTS_PHANTOM_NUM_H
#define HP_TESTS_PHANTOM_NUM_H

#include <math.h> /* sqrt, floor, ldexp, fabs: exact by IEEE 754 */
#include <stdint.h>

static inline uint64_t num_hash(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

typedef struct num_rng {
    uint64_t key, n;
} num_rng;

/* Each purpose has its own stream, so that adding a draw to one leaves the
 * others as they were. */
static inline num_rng num_stream(uint64_t seed, uint64_t purpose)
{
    return (num_rng){num_hash(num_hash(seed) ^ (purpose * 0xd1342543de82ef95u)), 0};
}

static inline uint64_t num_bits(num_rng *r)
{
    return num_hash(r->key + 0x2545f4914f6cdd1du * r->n++);
}

static inline double num_u01(num_rng *r)
{
    return (double)(num_bits(r) >> 11) * (1.0 / 9007199254740992.0);
}

static inline double num_in(num_rng *r, double lo, double hi)
{
    return lo + (hi - lo) * num_u01(r);
}

static inline int num_int(num_rng *r, int lo, int hi) /* inclusive */
{
    return lo + (int)(num_u01(r) * (hi - lo + 1));
}

static inline int num_chance(num_rng *r, double p)
{
    return num_u01(r) < p;
}

static inline double num_clamp(double v, double lo, double hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* Sum of twelve uniforms: near enough to Gauss, and bounded by 6 sd. */
static inline double num_gauss(num_rng *r)
{
    double s = -6;
    for (int i = 0; i < 12; i++)
        s += num_u01(r);
    return s;
}

static inline double num_normal(num_rng *r, double mean, double sd)
{
    return mean + sd * num_gauss(r);
}

/* C does not say which argument of a call, or which element of a list, is
 * worked out first: draws that stand together go through these, in order. */
static inline void num_gauss3(num_rng *r, double ret[3])
{
    for (int c = 0; c < 3; c++)
        ret[c] = num_gauss(r);
}

static inline double num_exp(double x)
{
    x = num_clamp(x, -700, 700);
    double n = floor(x * 1.4426950408889634 + 0.5);
    double f = x - n * 0.69314718055994531;
    double t = 1, s = 1;
    for (int i = 1; i < 16; i++) {
        t = t * f / i;
        s += t;
    }
    return ldexp(s, (int)n);
}

static inline double num_sin(double x)
{
    x -= 6.283185307179586 * floor(x / 6.283185307179586 + 0.5);
    double t = x, s = x;
    for (int i = 1; i < 14; i++) {
        t = -t * x * x / ((2 * i) * (2 * i + 1));
        s += t;
    }
    return s;
}

static inline double num_cos(double x)
{
    return num_sin(x + 1.5707963267948966);
}

static inline double num_lognormal(num_rng *r, double median, double sigma)
{
    return median * num_exp(sigma * num_gauss(r));
}

static inline int num_poisson(num_rng *r, double mean)
{
    double limit = num_exp(-mean), p = 1;
    int k = -1;
    do {
        k++;
        p *= num_u01(r);
    } while (p > limit);
    return k;
}

#endif
