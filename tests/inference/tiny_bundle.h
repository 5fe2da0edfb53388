/* A bundle of tiny seeded networks in a temporary folder, and a patient made of
 * two ellipsoids: enough to walk through every stage in a second. */
#ifndef HP_TESTS_INFERENCE_TINY_BUNDLE_H
#define HP_TESTS_INFERENCE_TINY_BUNDLE_H

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/path.h"
#include "base/sha256.h"
#include "inference/net.h"
#include "inference/pipeline.h"
#include "tests/inference/world.h"

/* Widths that a GPU takes too. */
static const char TINY_LIVER[] =
    "{\"widths\":[8,16],\"strides\":[[1,1,1],[2,2,2]],\"grid\":[16,32,40],"
    "\"spacing_mm\":[16,12,12]}";
static const char TINY_DETECTOR[] =
    "{\"stacks\":1,\"dims\":[4,4],\"modules\":[1,1],\"stem\":4,\"stem_kernel\":[3,7,7],"
    "\"stem_stride\":[1,2,2],\"res_stride\":[2,2,2],\"hg_strides\":[[2,2,2]],"
    "\"grid\":[12,44,64]}";
static const char TINY_SEG[] =
    "{\"slices\":3,\"interval_mm\":2,\"spacing_mm\":2,\"widths\":[8,8]}";
static const char TINY_KSF[] =
    "{\"depth\":18,\"width\":0.0625,\"output_stride\":8,\"D\":8,\"K\":3,\"classes\":2,"
    "\"mask_input\":false}";
static const char TINY_CLASSIFY[] =
    "{\"depth\":18,\"width\":0.0625,\"output_stride\":8,\"D\":8,\"K\":3,\"classes\":4,"
    "\"mask_input\":true}";

static char tiny_dir[64];
static char tiny_sha[8][HP_SHA256_HEX];
static const char *const TINY_FILE[7] = {"liver", "detector", "seg25d", "ksf",
                                         "cls0",  "cls1",     "cls2"};

static inline void tiny_path(const char *name, char *ret, size_t size)
{
    snprintf(ret, size, "%s/%s", tiny_dir, name);
}

static inline void tiny_network(int i, const char *arch, const char *params)
{
    hp_error err = HP_ERROR_INIT;
    hp_net_params p;
    hp_weights *w = NULL;
    hp_graph *g = NULL;
    json_t *j = NULL;
    char name[32], path[160];
    bool flat = strcmp(arch, "sadt") == 0 || strcmp(arch, "unet25d") == 0;

    assert_ok(hp_json_parse(params, strlen(params), &j, &err), &err);
    assert_ok(hp_net_params_read(arch, j, NULL, &p, &err), &err);
    assert_ok(hp_weights_random((uint64_t)i + 41, &w, &err), &err);
    assert_ok(
        hp_net_build(&p, w, flat ? (int[3]){1, 32, 32} : (int[3]){8, 32, 32}, &g, &err),
        &err);
    snprintf(name, sizeof name, "%s.safetensors", TINY_FILE[i]);
    tiny_path(name, path, sizeof path);
    assert_ok(hp_weights_write(w, path, &err), &err);
    assert_ok(hp_sha256_file(path, tiny_sha[i], &err), &err);
    json_decref(j);
    hp_graph_free(g);
    hp_weights_free(w);
}

#define TINY_INPUT "{window: [-175, 275], mean: 0.5, std: 0.25, pad_hu: -1024}"
#define TINY_PATCH                                                                       \
    "{window: [-175, 275], mean: 0.5, std: 0.25, pad_hu: -1024, spacing_mm: 2, crop: "   \
    "64, "                                                                               \
    "ring_px: 4}"

static const char *tiny_report_min = "0.01";

/* Writes bundle.yaml; `extra` goes verbatim behind it. */
static inline void tiny_yaml(const char *extra)
{
    char path[160];
    hp_error err = HP_ERROR_INIT;
    hp_buf b = HP_BUF_INIT;

    hp_buf_printf(&b, "schema: 1\nname: tiny\nversion: \"1\"\npreset: tiny\n"
                      "intended_use: \"Research use only.\"\nphases: [NC, A, V, D]\n"
                      "classes:\n"
                      "  - {id: a, label: A, code: [\"1\", SCT, a]}\n"
                      "  - {id: b, label: B, code: [\"2\", SCT, b]}\n"
                      "  - {id: c, label: C, code: [\"3\", SCT, c]}\n"
                      "  - {id: d, label: D, code: [\"4\", SCT, d]}\n"
                      "stages:\n");
    hp_buf_printf(
        &b,
        "  liver: {arch: unet3d, file: liver.safetensors, sha256: \"%s\", params: %s, "
        "input: " TINY_INPUT ", threshold: 0.5}\n",
        tiny_sha[0], TINY_LIVER);
    hp_buf_printf(
        &b,
        "  detector: {arch: hourglass3d, file: detector.safetensors, sha256: \"%s\", "
        "params: %s, input: " TINY_INPUT ", crop_margin_mm: [5, 10, 10], topk: 100, "
        "score_min: 0.01, report_min: %s, nms_iou: 0.3, keep: 10}\n",
        tiny_sha[1], TINY_DETECTOR, tiny_report_min);
    hp_buf_printf(&b,
                  "  keyslice: {arch: unet25d, file: seg25d.safetensors, sha256: \"%s\", "
                  "params: %s, input: " TINY_INPUT ", phases: [V, A], threshold: 0.5}\n",
                  tiny_sha[2], TINY_SEG);
    hp_buf_printf(&b,
                  "  ksf: {arch: sadt, files: [{file: ksf.safetensors, sha256: \"%s\"}], "
                  "params: %s, input: " TINY_PATCH ", threshold: 0.5}\n",
                  tiny_sha[3], TINY_KSF);
    hp_buf_printf(&b, "  classify: {arch: sadt, files: [");
    for (int i = 4; i < 7; i++)
        hp_buf_printf(&b, "%s{file: %s.safetensors, sha256: \"%s\"}", i > 4 ? ", " : "",
                      TINY_FILE[i], tiny_sha[i]);
    hp_buf_printf(
        &b, "], params: %s, input: " TINY_PATCH ", vote: majority, temperature: 1.0}\n",
        TINY_CLASSIFY);
    hp_buf_printf(&b, "provenance: {training: none}\n%s", extra);
    tiny_path("bundle.yaml", path, sizeof path);
    assert_ok(hp_file_write(path, b.data, b.len, 0644, &err), &err);
    hp_buf_done(&b);
}

static inline int tiny_setup(void **state)
{
    (void)state;
    snprintf(tiny_dir, sizeof tiny_dir, "/tmp/hepar-tiny.XXXXXX");
    if (mkdtemp(tiny_dir) == NULL)
        return -1;
    tiny_network(0, "unet3d", TINY_LIVER);
    tiny_network(1, "hourglass3d", TINY_DETECTOR);
    tiny_network(2, "unet25d", TINY_SEG);
    tiny_network(3, "sadt", TINY_KSF);
    for (int i = 4; i < 7; i++)
        tiny_network(i, "sadt", TINY_CLASSIFY);
    tiny_yaml("");
    return 0;
}

static inline int tiny_teardown(void **state)
{
    (void)state;
    return hp_path_remove(tiny_dir, NULL) == HP_OK ? 0 : -1;
}

/* A body with something liver-like on the patient's right. */
static inline hp_volume *tiny_volume(int phase)
{
    hp_geom g =
        hp_geom_axial(30, 64, 80, 6, 5, 5, (double[3]){-200, -160, -90 + 2 * phase});
    hp_error err = HP_ERROR_INIT;
    hp_volume *v = NULL;
    size_t i = 0;

    assert_ok(hp_volume_new(&g, &v, &err), &err);
    for (int z = 0; z < g.n[0]; z++)
        for (int y = 0; y < g.n[1]; y++)
            for (int x = 0; x < g.n[2]; x++) {
                double by = (y - 32) / 26.0, bx = (x - 40) / 34.0;
                double lz = (z - 15) / 11.0, ly = (y - 30) / 15.0, lx = (x - 26) / 15.0;
                int hu = by * by + bx * bx > 1             ? -1000
                         : lz * lz + ly * ly + lx * lx > 1 ? -20
                                                           : 60 + 20 * phase;

                v->hu[i] = (int16_t)(hu + (int)(i * 7919 % 31) - 15);
                i++;
            }
    return v;
}

#endif
