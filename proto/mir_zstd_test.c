/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_zstd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zstd.h>

/* As a streaming encoder writes it: no content size, a checksum. */
static void put_stream(mir_bytes *to, mir_view raw)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    assert_non_null(context);
    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)));
    uint8_t buffer[4096];
    ZSTD_inBuffer in = {raw.data, raw.size, 0};
    size_t rest = 1;
    while (rest != 0) {
        /* The end is announced only when all is taken in, so that the size stays unknown. */
        ZSTD_EndDirective step = in.pos < in.size ? ZSTD_e_continue : ZSTD_e_end;
        ZSTD_outBuffer out = {buffer, sizeof buffer, 0};
        rest = ZSTD_compressStream2(context, &out, &in, step);
        assert_false(ZSTD_isError(rest));
        mir_bytes_append(to, buffer, out.pos);
        if (step == ZSTD_e_continue) rest = 1;
    }
    ZSTD_freeCCtx(context);
}

static mir_bytes sample(size_t size)
{
    mir_bytes raw = {0};
    for (size_t i = 0; i < size; i++) mir_bytes_u8(&raw, (uint8_t)(i * i >> 7));
    return raw;
}

static void bytes_survive_the_way(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 100, 65536, 65537, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        mir_bytes raw = sample(sizes[i]), frame = {0}, back = {0};
        assert_int_equal(mir_zstd_compress(mir_bytes_as_view(&raw), &frame, NULL), MIR_OK);
        assert_int_equal(mir_zstd_decompress(mir_bytes_as_view(&frame), sizes[i], &back, NULL),
                         MIR_OK);
        assert_int_equal(back.size, raw.size);
        assert_memory_equal(back.data, raw.data, raw.size);
        mir_bytes_free(&raw);
        mir_bytes_free(&frame);
        mir_bytes_free(&back);
    }
}

static void nothing_is_nothing(void **state)
{
    (void)state;
    mir_bytes out = {0};
    assert_int_equal(mir_zstd_compress((mir_view){NULL, 0}, &out, NULL), MIR_OK);
    assert_int_equal(mir_zstd_decompress((mir_view){NULL, 0}, 10, &out, NULL), MIR_OK);
    assert_int_equal(out.size, 0);
}

static void streamed_and_concatenated_frames_are_read(void **state)
{
    (void)state;
    mir_bytes raw = sample(150000), frames = {0}, back = {0};
    put_stream(&frames, mir_bytes_as_view(&raw));
    put_stream(&frames, MIR_VIEW_LITERAL("tail"));
    assert_int_equal(mir_zstd_decompress(mir_bytes_as_view(&frames), 1 << 20, &back, NULL), MIR_OK);
    assert_int_equal(back.size, raw.size + 4);
    assert_memory_equal(back.data, raw.data, raw.size);
    assert_memory_equal(back.data + raw.size, "tail", 4);
    mir_bytes_free(&raw);
    mir_bytes_free(&frames);
    mir_bytes_free(&back);
}

static void output_is_bounded(void **state)
{
    (void)state;
    mir_bytes raw = {0}, frame = {0}, back = {0};
    uint8_t *zeros = mir_bytes_reserve(&raw, 4 << 20);
    assert_non_null(zeros);
    memset(zeros, 0, 4 << 20);
    raw.size = 4 << 20;
    mir_bytes_text(&back, "kept");
    put_stream(&frame, mir_bytes_as_view(&raw));
    assert_true(frame.size < 4096);
    mir_error error = {0};
    assert_int_equal(mir_zstd_decompress(mir_bytes_as_view(&frame), (4 << 20) - 1, &back, &error),
                     MIR_E_TOO_LARGE);
    assert_int_equal(back.size, 4);
    assert_true(back.capacity < 16 << 20);
    assert_int_equal(mir_zstd_decompress(mir_bytes_as_view(&frame), 4 << 20, &back, &error),
                     MIR_OK);
    assert_int_equal(back.size, 4 + (4 << 20));
    mir_bytes_free(&raw);
    mir_bytes_free(&frame);
    mir_bytes_free(&back);
}

static void damage_is_refused(void **state)
{
    (void)state;
    mir_bytes raw = sample(5000), frame = {0}, back = {0};
    put_stream(&frame, mir_bytes_as_view(&raw));
    for (size_t size = 1; size < frame.size; size++) {
        assert_int_equal(mir_zstd_decompress(mir_view_of(frame.data, size), 10000, &back, NULL),
                         MIR_E_INVALID);
        assert_int_equal(back.size, 0);
    }
    frame.data[frame.size - 1] ^= 1; /* the checksum */
    assert_int_equal(mir_zstd_decompress(mir_bytes_as_view(&frame), 10000, &back, NULL),
                     MIR_E_INVALID);
    assert_int_equal(mir_zstd_decompress(MIR_VIEW_LITERAL("not zstd"), 100, &back, NULL),
                     MIR_E_INVALID);
    mir_bytes_free(&raw);
    mir_bytes_free(&frame);
    mir_bytes_free(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_survive_the_way),
        cmocka_unit_test(nothing_is_nothing),
        cmocka_unit_test(streamed_and_concatenated_frames_are_read),
        cmocka_unit_test(output_is_bounded),
        cmocka_unit_test(damage_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
