/* The parts of a result object that need no DICOM library: names, UIDs, which
 * lesions are reported, which objects a study gets. */
#include "dicom/report.h"

#include <stdio.h>
#include <string.h>

#include "base/path.h"
#include "base/sha256.h"
#include "dicom/report_internal.h"
#include "dicom/sc.h"
#include "dicom/sr.h"

const char *hp_result_kind_name(hp_result_kind k)
{
    switch (k) {
    case HP_RESULT_SR:
        return "sr";
    case HP_RESULT_KEY_IMAGE:
        return "key_image";
    case HP_RESULT_NOTE_SR:
        return "note_sr";
    case HP_RESULT_NOTE_PAGE:
        return "note_page";
    case HP_RESULT_KINDS:
        break;
    }
    return "-";
}

const char *hp_result_kind_sop_class(hp_result_kind k)
{
    switch (k) {
    case HP_RESULT_SR:
        return HP_SOP_COMPREHENSIVE_3D_SR;
    case HP_RESULT_NOTE_SR:
        return HP_SOP_BASIC_TEXT_SR;
    case HP_RESULT_KEY_IMAGE:
    case HP_RESULT_NOTE_PAGE:
        return HP_SOP_SECONDARY_CAPTURE;
    case HP_RESULT_KINDS:
        break;
    }
    return "";
}

static void add_part(hp_sha256 *s, const char *part)
{
    hp_sha256_add(s, part, strlen(part));
    hp_sha256_add(s, "\n", 1);
}

hp_uid hp_result_uid(const hp_result_identity *id, const char *kind,
                     const char *sop_class, int index)
{
    hp_sha256 s;
    uint8_t digest[32];
    char number[16];

    snprintf(number, sizeof number, "%d", index);
    hp_sha256_init(&s);
    add_part(&s, id->installation_id);
    add_part(&s, id->study_uid.text);
    add_part(&s, id->input_digest);
    add_part(&s, id->bundle_sha256);
    add_part(&s, kind);
    add_part(&s, sop_class);
    add_part(&s, number);
    hp_sha256_end(&s, digest);
    return hp_uid_from_digest(digest);
}

hp_uid hp_result_device_uid(const char *installation_id)
{
    hp_sha256 s;
    uint8_t digest[32];

    hp_sha256_init(&s);
    add_part(&s, installation_id);
    add_part(&s, "device observer");
    hp_sha256_end(&s, digest);
    return hp_uid_from_digest(digest);
}

bool hp_report_is_measurement(const hp_findings *f)
{
    return (f->outcome == HP_OUTCOME_CLASSIFIED || f->outcome == HP_OUTCOME_DETECTED) &&
           hp_report_lesion(f, 0) >= 0;
}

int hp_report_lesion(const hp_findings *f, int n)
{
    if (n < 0)
        return -1;
    if (f->outcome == HP_OUTCOME_CLASSIFIED)
        return n == 0 && f->primary >= 0 && f->primary < f->candidate_count ? f->primary
                                                                            : -1;
    if (f->outcome == HP_OUTCOME_DETECTED)
        return n < f->candidate_count && f->candidates[n].score >= f->report_min ? n : -1;
    return -1;
}

static void name_object(hp_report_object *o, hp_result_kind kind, const char *file,
                        const char *png)
{
    memset(o, 0, sizeof *o);
    o->kind = kind;
    o->required = true;
    snprintf(o->file, sizeof o->file, "%s", file);
    snprintf(o->png, sizeof o->png, "%s", png);
}

static hp_code write_object(const hp_report *r, const char *dir, int lesion,
                            hp_report_object *o, hp_error *reterr)
{
    char path[HP_PATH_MAX], png[HP_PATH_MAX];
    hp_uid sop_class;
    hp_code c;

    o->series = hp_report__series_uid(r, o->kind);
    c = hp_path_fmt(path, reterr, "%s/%s", dir, o->file);
    if (c == HP_OK)
        c = hp_path_fmt(png, reterr, "%s/%s", dir, o->png);
    if (c != HP_OK)
        return c;
    switch (o->kind) {
    case HP_RESULT_SR:
    case HP_RESULT_NOTE_SR:
        return hp_sr_write(r, path, &o->sop_instance, &sop_class, reterr);
    case HP_RESULT_KEY_IMAGE:
        return hp_sc_write_key_image(r, lesion, path, png, &o->sop_instance, reterr);
    default:
        return hp_sc_write_note(r, path, png, &o->sop_instance, reterr);
    }
}

hp_code hp_report_write(const hp_report *r, const char *dir,
                        hp_report_object ret_object[HP_REPORT_OBJECTS_MAX],
                        int *ret_count, hp_error *reterr)
{
    hp_report_object object[HP_REPORT_OBJECTS_MAX];
    bool measured = hp_report_is_measurement(r->findings);
    int count = 0;
    hp_code c = HP_OK;

    if (measured) {
        name_object(&object[count++], HP_RESULT_SR, "sr.dcm", "");
        for (int n = 0;
             n < HP_REPORT_PICTURES_MAX && hp_report_lesion(r->findings, n) >= 0; n++) {
            char file[24], png[24];

            snprintf(file, sizeof file, "key_%d.dcm", n + 1);
            snprintf(png, sizeof png, "key_%d.png", n + 1);
            name_object(&object[count++], HP_RESULT_KEY_IMAGE, file, png);
        }
    } else {
        name_object(&object[count++], HP_RESULT_NOTE_SR, "note_sr.dcm", "");
        name_object(&object[count++], HP_RESULT_NOTE_PAGE, "note_page.dcm",
                    "note_page.png");
    }
    for (int i = 0; i < count && c == HP_OK; i++) {
        int lesion = object[i].kind == HP_RESULT_KEY_IMAGE
                         ? hp_report_lesion(r->findings, i - 1)
                         : -1;

        c = write_object(r, dir, lesion, &object[i], reterr);
        if (c != HP_OK)
            return hp_wrap(reterr, c, "building %s", object[i].file);
    }
    memcpy(ret_object, object, sizeof object[0] * (size_t)count);
    *ret_count = count;
    return HP_OK;
}
