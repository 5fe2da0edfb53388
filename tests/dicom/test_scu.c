/* dicom/scu against peers that behave, refuse, hang and break. */
#include "tests/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/path.h"
#include "dicom/report.h"
#include "dicom/scu.h"
#include "tests/fixture/fake_pacs.h"
#include "tests/fixture/report_world.h"

typedef struct fixture {
    report_world world;
    hp_report_object object[HP_REPORT_OBJECTS_MAX];
    char path[3][HP_PATH_MAX];
    hp_send_item item[3];
    fake_pacs pacs;
    hp_peer peer;
    int told, told_reached;
} fixture;

/* Item 0 is the SR, items 1 and 2 are key images. */
static int group_setup(void **state)
{
    fixture *x = calloc(1, sizeof *x);
    int count;

    report_world_init(&x->world, 7);
    report_world_outcome(&x->world, HP_OUTCOME_DETECTED);
    if (hp_report_write(&x->world.report, x->world.dir, x->object, &count, NULL) != HP_OK)
        return -1;
    for (int i = 0; i < 3; i++) {
        snprintf(x->path[i], HP_PATH_MAX, "%.900s/%s", x->world.dir, x->object[i].file);
        x->item[i].path = x->path[i];
        x->item[i].sop_instance = x->object[i].sop_instance;
        snprintf(x->item[i].sop_class.text, HP_UID_SIZE, "%s",
                 hp_result_kind_sop_class(x->object[i].kind));
    }
    *state = x;
    return 0;
}

static int group_teardown(void **state)
{
    fixture *x = *state;

    report_world_done(&x->world);
    free(x);
    return 0;
}

static void start(fixture *x, const fake_pacs_script *script)
{
    fake_pacs_start(&x->pacs, script);
    x->peer = (hp_peer){"pacs", "PACS", "127.0.0.1", x->pacs.port, "HEPAR", 2};
}

/* Each item once, in order. */
static void on_answer(const hp_send_item *item, bool reached, void *payload)
{
    fixture *x = payload;

    assert_ptr_equal(item, &x->item[x->told]);
    x->told++;
    x->told_reached += reached;
}

static hp_code send_all(fixture *x)
{
    x->told = x->told_reached = 0;
    return hp_scu_send(&x->peer, x->item, 3, on_answer, x, NULL);
}

static void test_scu__sends_all_over_one_association(void **state)
{
    fixture *x = *state;

    start(x, &(fake_pacs_script){0});
    assert_int_equal(send_all(x), HP_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(x->item[i].code, HP_OK);
        assert_int_equal(x->item[i].status, 0);
    }
    assert_int_equal(x->told_reached, 3);
    assert_int_equal(x->pacs.seen->associations, 1);
    assert_int_equal(x->pacs.seen->contexts,
                     2); /* the classes of the objects, no others */
    assert_int_equal(x->pacs.seen->stores, 3);
    fake_pacs_stop(&x->pacs);
}

static void test_scu__converts_for_a_peer_that_has_only_the_default_syntax(void **state)
{
    fixture *x = *state;

    start(x, &(fake_pacs_script){.implicit_only = 1});
    assert_int_equal(send_all(x), HP_OK);
    assert_int_equal(x->item[0].code, HP_OK);
    assert_int_equal(x->item[2].code, HP_OK);
    fake_pacs_stop(&x->pacs);
}

static void test_scu__echo(void **state)
{
    fixture *x = *state;
    double ms = -1;

    start(x, &(fake_pacs_script){0});
    assert_int_equal(hp_scu_echo(&x->peer, &ms, NULL), HP_OK);
    assert_true(ms >= 0);
    assert_int_equal(x->pacs.seen->echoes, 1);
    fake_pacs_stop(&x->pacs);
    assert_int_equal(hp_scu_echo(&x->peer, &ms, NULL), HP_E_CONNECT);
}

static void test_scu__status_decides(void **state)
{
    static const struct {
        uint16_t status;
        hp_code code;
    } cases[] = {
        {0x0000, HP_OK},         {0xB000, HP_OK},         {0xB006, HP_OK},
        {0xB007, HP_OK},         {0x0107, HP_OK},         {0x0116, HP_OK},
        {0x0111, HP_OK},         {0xA700, HP_E_REJECTED}, {0xA701, HP_E_REJECTED},
        {0x0110, HP_E_REJECTED}, {0x0122, HP_E_REFUSED},  {0x0124, HP_E_REFUSED},
        {0xA900, HP_E_REFUSED},  {0xC000, HP_E_REFUSED},  {0xC123, HP_E_REFUSED},
        {0xFE00, HP_E_REJECTED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(hp_scu_status_code(cases[i].status), cases[i].code);
    assert_true(hp_code_may_retry(HP_E_REJECTED));
    assert_false(hp_code_may_retry(HP_E_REFUSED));
}

static void test_scu__each_item_has_its_own_answer(void **state)
{
    fixture *x = *state;

    start(x, &(fake_pacs_script){.status = {0xA700, 0x0111, 0xC000}});
    assert_int_equal(send_all(x), HP_OK);
    assert_int_equal(x->item[0].code, HP_E_REJECTED);
    assert_int_equal(x->item[0].status, 0xA700);
    assert_int_equal(x->item[1].code, HP_OK);
    assert_int_equal(x->item[1].status, 0x0111);
    assert_int_equal(x->item[2].code, HP_E_REFUSED);
    assert_int_equal(x->item[2].status, 0xC000);
    fake_pacs_stop(&x->pacs);
}

static void test_scu__a_class_not_taken_fails_nobody_else(void **state)
{
    fixture *x = *state;

    start(x, &(fake_pacs_script){.refuse_class = HP_SOP_COMPREHENSIVE_3D_SR,
                                 .refuse_reason = 3});
    assert_int_equal(send_all(x), HP_OK);
    assert_int_equal(x->item[0].code, HP_E_REFUSED);
    assert_int_equal(x->item[0].status, HP_SCU_NO_STATUS);
    assert_string_equal(x->item[0].words, "not accepted by the peer");
    assert_int_equal(x->item[1].code, HP_OK);
    assert_int_equal(x->item[2].code, HP_OK);
    fake_pacs_stop(&x->pacs);
    /* Refused without a reason: perhaps tomorrow. */
    start(x, &(fake_pacs_script){.refuse_class = HP_SOP_COMPREHENSIVE_3D_SR,
                                 .refuse_reason = 1});
    assert_int_equal(send_all(x), HP_OK);
    assert_int_equal(x->item[0].code, HP_E_REJECTED);
    fake_pacs_stop(&x->pacs);
}

static void test_scu__nothing_accepted_at_all(void **state)
{
    fixture *x = *state;

    start(x, &(fake_pacs_script){.refuse_class = HP_SOP_SECONDARY_CAPTURE,
                                 .refuse_reason = 3});
    hp_scu_send(&x->peer, &x->item[1], 2, NULL, NULL, NULL);
    assert_int_equal(x->item[1].code, HP_E_REFUSED);
    assert_int_equal(x->item[2].code, HP_E_REFUSED);
    assert_string_equal(x->item[2].words, "not accepted by the peer");
    fake_pacs_stop(&x->pacs);
}

static void check_all(const fixture *x, hp_code code)
{
    assert_int_equal(x->told, 3);
    assert_int_equal(x->told_reached, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(x->item[i].code, code);
        assert_int_equal(x->item[i].status, HP_SCU_NO_STATUS);
        assert_true(x->item[i].words[0] != 0);
    }
}

static void test_scu__rejected_for_good_or_for_now(void **state)
{
    fixture *x = *state;

    start(x, &(fake_pacs_script){.reject = 1});
    assert_int_equal(send_all(x), HP_E_REFUSED);
    check_all(x, HP_E_REFUSED);
    assert_non_null(strstr(x->item[0].words, "AE title"));
    fake_pacs_stop(&x->pacs);
    start(x, &(fake_pacs_script){.reject = 2});
    assert_int_equal(send_all(x), HP_E_REJECTED);
    check_all(x, HP_E_REJECTED);
    fake_pacs_stop(&x->pacs);
}

static void test_scu__nobody_listens(void **state)
{
    fixture *x = *state;

    start(x, &(fake_pacs_script){0});
    fake_pacs_stop(&x->pacs);
    assert_int_equal(send_all(x), HP_E_CONNECT);
    check_all(x, HP_E_CONNECT);
    snprintf(x->peer.host, sizeof x->peer.host, "no-such-host.invalid");
    assert_true(hp_code_may_retry(send_all(x)));
}

/* Each silence ends at the peer's timeout (2 s here), not in minutes. */
static void test_scu__silence_is_cut_off(void **state)
{
    fixture *x = *state;
    int64_t before = hp_clock_mono_ms();

    start(x, &(fake_pacs_script){.mute = 1});
    assert_int_equal(send_all(x), HP_E_TIMEOUT);
    check_all(x, HP_E_TIMEOUT);
    fake_pacs_stop(&x->pacs);
    start(x, &(fake_pacs_script){.mute_at = 2});
    assert_int_equal(send_all(x), HP_OK);
    assert_int_equal(x->item[0].code, HP_OK);
    assert_int_equal(x->item[1].code, HP_E_TIMEOUT);
    assert_int_equal(x->item[2].code, HP_E_TIMEOUT);
    assert_int_equal(x->told, 3);
    assert_int_equal(x->told_reached, 1);
    fake_pacs_stop(&x->pacs);
    assert_true(hp_clock_mono_ms() - before < 20000);
}

static void test_scu__broken_associations_are_tried_again(void **state)
{
    fixture *x = *state;

    start(x, &(fake_pacs_script){.drop_at = 2});
    assert_int_equal(send_all(x), HP_OK);
    assert_int_equal(x->item[0].code, HP_OK);
    assert_true(hp_code_may_retry(x->item[1].code));
    assert_true(hp_code_may_retry(x->item[2].code));
    assert_int_equal(x->item[1].status, HP_SCU_NO_STATUS);
    fake_pacs_stop(&x->pacs);
    start(x, &(fake_pacs_script){.abort_at = 1});
    assert_int_equal(send_all(x), HP_OK);
    assert_int_equal(x->item[0].code, HP_E_ABORTED);
    assert_int_equal(x->item[2].code, HP_E_ABORTED);
    fake_pacs_stop(&x->pacs);
}

static void test_scu__a_missing_file_fails_alone(void **state)
{
    fixture *x = *state;
    const char *path = x->item[1].path;

    start(x, &(fake_pacs_script){0});
    x->item[1].path = "/nowhere/key.dcm";
    assert_int_equal(send_all(x), HP_OK);
    assert_int_equal(x->item[0].code, HP_OK);
    assert_int_not_equal(x->item[1].code, HP_OK);
    assert_int_equal(x->item[2].code, HP_OK);
    x->item[1].path = path;
    fake_pacs_stop(&x->pacs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scu__sends_all_over_one_association),
        cmocka_unit_test(test_scu__converts_for_a_peer_that_has_only_the_default_syntax),
        cmocka_unit_test(test_scu__echo),
        cmocka_unit_test(test_scu__status_decides),
        cmocka_unit_test(test_scu__each_item_has_its_own_answer),
        cmocka_unit_test(test_scu__a_class_not_taken_fails_nobody_else),
        cmocka_unit_test(test_scu__nothing_accepted_at_all),
        cmocka_unit_test(test_scu__rejected_for_good_or_for_now),
        cmocka_unit_test(test_scu__nobody_listens),
        cmocka_unit_test(test_scu__silence_is_cut_off),
        cmocka_unit_test(test_scu__broken_associations_are_tried_again),
        cmocka_unit_test(test_scu__a_missing_file_fails_alone),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
