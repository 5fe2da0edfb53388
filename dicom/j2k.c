/* JPEG 2000 by OpenJPEG, from memory.
 *
 * The header is read first and compared with what the dataset said; a stream
 * that promises another size is refused before a sample is allocated, so a
 * small file cannot ask for a large decode. Samples are taken as they are: no
 * colour transform, no alpha, one component.
 */
#include "dicom/j2k.h"

#include <openjpeg.h>
#include <string.h>

typedef struct source {
    const uint8_t *data;
    size_t len, at;
} source;

static OPJ_SIZE_T source_read(void *buffer, OPJ_SIZE_T n, void *user)
{
    source *s = user;
    size_t left = s->len - s->at;

    if (left == 0)
        return (OPJ_SIZE_T)-1;
    if (n > left)
        n = left;
    memcpy(buffer, s->data + s->at, n);
    s->at += n;
    return n;
}

static OPJ_OFF_T source_skip(OPJ_OFF_T n, void *user)
{
    source *s = user;

    if (n < 0)
        return -1;
    if ((uint64_t)n > s->len - s->at)
        n = (OPJ_OFF_T)(s->len - s->at);
    s->at += (size_t)n;
    return n;
}

static OPJ_BOOL source_seek(OPJ_OFF_T to, void *user)
{
    source *s = user;

    if (to < 0 || (uint64_t)to > s->len)
        return OPJ_FALSE;
    s->at = (size_t)to;
    return OPJ_TRUE;
}

static void hush(const char *msg, void *user)
{
    (void)msg;
    (void)user;
}

static hp_code check_header(const opj_image_t *img, int rows, int columns,
                            hp_error *reterr)
{
    if (img->numcomps != 1)
        return hp_fail(reterr, HP_E_UNSUPPORTED, "JPEG 2000: %u components",
                       img->numcomps);
    if (img->comps[0].w != (OPJ_UINT32)columns || img->comps[0].h != (OPJ_UINT32)rows)
        return hp_fail(reterr, HP_E_MISMATCH,
                       "JPEG 2000: %u x %u samples, header says %d x %d", img->comps[0].w,
                       img->comps[0].h, columns, rows);
    if (img->comps[0].prec > 16)
        return hp_fail(reterr, HP_E_UNSUPPORTED, "JPEG 2000: %u bits",
                       img->comps[0].prec);
    return HP_OK;
}

hp_code hp_j2k_decode(const uint8_t *data, size_t len, int rows, int columns,
                      uint16_t *ret_words, hp_error *reterr)
{
    source src = {data, len, 0};
    opj_stream_t *stream = NULL;
    opj_codec_t *codec = NULL;
    opj_image_t *img = NULL;
    opj_dparameters_t par;
    hp_code r;

    /* PS3.5 A.4.4: a bare code stream; a JP2 box file is a common mistake. */
    codec = opj_create_decompress(
        len >= 12 && memcmp(data + 4, "jP  ", 4) == 0 ? OPJ_CODEC_JP2 : OPJ_CODEC_J2K);
    stream = opj_stream_create(64 * 1024, OPJ_TRUE);
    if (codec == NULL || stream == NULL) {
        r = hp_fail(reterr, HP_E_NO_MEMORY, "JPEG 2000");
        goto out;
    }
    opj_set_error_handler(codec, hush, NULL);
    opj_set_warning_handler(codec, hush, NULL);
    opj_set_info_handler(codec, hush, NULL);
    opj_stream_set_user_data(stream, &src, NULL);
    opj_stream_set_user_data_length(stream, len);
    opj_stream_set_read_function(stream, source_read);
    opj_stream_set_skip_function(stream, source_skip);
    opj_stream_set_seek_function(stream, source_seek);
    opj_set_default_decoder_parameters(&par);

    if (!opj_setup_decoder(codec, &par) || !opj_read_header(stream, codec, &img)) {
        r = hp_fail(reterr, HP_E_CORRUPT, "JPEG 2000: no readable header");
        goto out;
    }
    r = check_header(img, rows, columns, reterr);
    if (r != HP_OK)
        goto out;
    if (!opj_decode(codec, stream, img) || img->comps[0].data == NULL) {
        r = hp_fail(reterr, HP_E_CORRUPT, "JPEG 2000: stream does not decode");
        goto out;
    }
    for (size_t i = 0; i < (size_t)rows * (size_t)columns; i++)
        ret_words[i] = (uint16_t)img->comps[0].data[i];
out:
    opj_image_destroy(img);
    opj_stream_destroy(stream);
    opj_destroy_codec(codec);
    return r;
}
