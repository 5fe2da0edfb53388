/* dicom/sc: pictures that can be stored, and that say what they are. */
#include "tests/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "dicom/sc.h"
#include "tests/fixture/report_world.h"

static void write_all(report_world *w)
{
    hp_report_object object[HP_REPORT_OBJECTS_MAX];
    int count;
    hp_error e = HP_ERROR_INIT;

    if (hp_report_write(&w->report, w->dir, object, &count, &e) != HP_OK)
        fail_msg("%s", e.msg);
}

static void test_sc__draws_a_key_image(void **state)
{
    report_world w;

    (void)state;
    report_world_init(&w, 15);
    write_all(&w);
    report_world_done(&w);
    report_world_init(&w, 7);
    report_world_outcome(&w, HP_OUTCOME_DETECTED);
    write_all(&w);
    report_world_done(&w);
    report_world_init(&w, 15);
    report_world_outcome(&w, HP_OUTCOME_NOT_ACCEPTED);
    write_all(&w);
    report_world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sc__draws_a_key_image),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
