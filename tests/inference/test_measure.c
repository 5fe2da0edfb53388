/* What is measured of a lesion, on masks whose size is known. */
#include "tests/inference/world.h"

#include <math.h>
#include <string.h>

#include "inference/stage_internal.h"

enum { NZ = 9, NY = 80, NX = 100 };

/* A liver of 100 HU; the lesion's mask, at 40 HU, is a box or everything. */
typedef struct scene {
    hp_visit v;
    hp_findings f;
    uint8_t liver[NZ * NY * NX];
    uint8_t plane[NZ][NY * NX], *planes[NZ];
} scene;

static void open_scene(scene *s, bool everywhere)
{
    double origin[3] = {0, 0, 0};
    hp_geom g = hp_geom_axial(NZ, NY, NX, 2, 1, 1, origin);
    hp_error err = HP_ERROR_INIT;
    hp_candidate *c = &s->f.candidates[0];

    memset(s, 0, sizeof *s);
    hp_findings_init(&s->f);
    assert_ok(hp_volume_new(&g, &s->v.vol[HP_PHASE_V], &err), &err);
    s->v.f = &s->f;
    s->v.liver = s->liver;
    s->v.liver_box = (hp_voxel_box){{0, 0, 0}, {NZ, NY, NX}};
    s->v.lesions = (hp_lesion_map){.n = {NY, NX}, .spacing_mm = 1, .nz = NZ};
    s->v.lesions.plane = s->planes;
    memset(s->liver, 1, sizeof s->liver);
    for (int z = 0, i = 0; z < NZ; z++) {
        s->planes[z] = s->plane[z];
        for (int y = 0; y < NY; y++)
            for (int x = 0; x < NX; x++, i++) {
                bool lesion = z >= 2 && z < 7 && y >= 20 && y < 40 && x >= 30 && x < 70;

                s->v.vol[HP_PHASE_V]->hu[i] = lesion ? 40 : 100;
                s->plane[z][y * NX + x] = lesion || everywhere;
            }
    }
    s->f.candidate_count = 1;
    c->box_mm = (hp_box){{4, 20, 30}, {14, 40, 70}};
    c->key_slice = 4;
}

static void measure(scene *s)
{
    hp_error err = HP_ERROR_INIT;

    assert_ok(hp_stage_measure(&s->v, &err), &err);
    hp_volume_free(s->v.vol[HP_PHASE_V]);
}

/* 20 x 40 mm: the long axis is the diagonal, and the extent across it 2 A / d. */
static void assert_full_box(const hp_candidate *c)
{
    double d = sqrt(20 * 20 + 40 * 40);

    assert_float_equal(c->long_axis_mm, d, 1);
    assert_float_equal(c->short_axis_mm, 2 * 20 * 40 / d, 1.5);
    assert_float_equal(c->volume_ml, 10 * 20 * 40 / 1000.0, 1e-9);
    assert_float_equal(c->hu_lesion[HP_PHASE_V], 40, 1e-9);
    assert_float_equal(c->hu_liver[HP_PHASE_V], 100, 1e-9);
}

static void test_measure__a_mask_inside_the_box(void **state)
{
    static scene s;

    (void)state;
    open_scene(&s, false);
    measure(&s);
    assert_full_box(&s.f.candidates[0]);
}

static void test_measure__a_mask_that_the_box_cuts(void **state)
{
    static scene s;

    (void)state;
    open_scene(&s, true);
    measure(&s);
    assert_full_box(&s.f.candidates[0]);
}

static void test_measure__nothing_is_measured_without_an_outline(void **state)
{
    static scene s;
    const hp_candidate *c = &s.f.candidates[0];

    (void)state;
    open_scene(&s, false);
    s.f.candidates[0].key_fallback = true;
    measure(&s);
    assert_true(isnan(c->long_axis_mm) && isnan(c->short_axis_mm) && isnan(c->volume_ml));
    assert_float_equal(c->hu_lesion[HP_PHASE_V], 40, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measure__a_mask_inside_the_box),
        cmocka_unit_test(test_measure__a_mask_that_the_box_cuts),
        cmocka_unit_test(test_measure__nothing_is_measured_without_an_outline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
