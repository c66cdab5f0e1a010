/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_codecs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

static void a_codec_that_was_given_is_taken_again(void **state)
{
    (void)state;
    mir_tlog_codecs codecs = {.kept = {NULL}};
    mir_tlog_codec codec = {0};
    mir_tlog_codecs_give(&codecs, &codec); /* none */
    assert_int_equal(mir_tlog_codecs_take(&codecs, &codec), MIR_OK);
    const void *made = codec.decompressor;
    assert_non_null(mir_bytes_reserve(&codec.raw, 100));
    assert_non_null(mir_bytes_reserve(&codec.packed, MIR_TLOG_CODEC_BYTES_KEPT + 1));
    assert_non_null(mir_bytes_reserve(&codec.walked, MIR_TLOG_CODEC_BYTES_KEPT + 1));
    codec.raw.size = codec.packed.size = 100;
    codec.places.failed = true;
    mir_tlog_codecs_give(&codecs, &codec);
    assert_null(codec.decompressor);
    assert_int_equal(mir_tlog_codecs_take(&codecs, &codec), MIR_OK);
    assert_ptr_equal(codec.decompressor, made);
    assert_int_equal(codec.raw.size, 0);
    assert_true(codec.raw.capacity >= 100);
    assert_int_equal(codec.packed.capacity, 0);
    assert_int_equal(codec.walked.capacity, 0);
    assert_true(mir_bytes_ok(&codec.places));
    mir_tlog_codec_fini(&codec);
    mir_tlog_codecs_free(&codecs);
}

static void so_many_are_kept(void **state)
{
    (void)state;
    enum { MORE = MIR_TLOG_CODECS_KEPT + 3 };
    mir_tlog_codecs codecs = {.kept = {NULL}};
    mir_tlog_codec list[MORE];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < MORE; i++) {
            assert_int_equal(mir_tlog_codecs_take(&codecs, &list[i]), MIR_OK);
            for (int k = 0; k < i; k++)
                assert_ptr_not_equal(list[i].decompressor, list[k].decompressor);
        }
        for (int i = 0; i < MORE; i++) mir_tlog_codecs_give(&codecs, &list[i]);
    }
    mir_tlog_codecs_free(&codecs);
    for (int i = 0; i < MIR_TLOG_CODECS_KEPT; i++) assert_null(atomic_load(&codecs.kept[i]));
}

static void *use(void *context)
{
    mir_tlog_codecs *codecs = context;
    static const char text[] = "the same text, the same text, the same text, the same text";
    for (int i = 0; i < 2000; i++) {
        mir_tlog_codec codec;
        mir_bytes packed = {0};
        uint8_t raw[sizeof text];
        if (mir_tlog_codecs_take(codecs, &codec) != MIR_OK) return NULL;
        mir_tlog_compress(&codec, &packed, text, sizeof text);
        const mir_status status =
            mir_tlog_decompress(&codec, raw, sizeof raw, mir_bytes_as_view(&packed));
        mir_bytes_free(&packed);
        mir_tlog_codecs_give(codecs, &codec);
        if (status != MIR_OK || memcmp(raw, text, sizeof text) != 0) return NULL;
    }
    return context;
}

static void threads_share_them(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    mir_tlog_codecs codecs = {.kept = {NULL}};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use, &codecs), 0);
    for (int i = 0; i < THREADS; i++) {
        void *result = NULL;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, &codecs);
    }
    mir_tlog_codecs_free(&codecs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_codec_that_was_given_is_taken_again),
        cmocka_unit_test(so_many_are_kept),
        cmocka_unit_test(threads_share_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
