/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <cmocka.h>

#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_clock.h"
#include "mir_status.h"

static void arena_memory_is_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    mir_arena arena = {0};
    enum { PIECES = 400 };
    uint8_t *pieces[PIECES];
    for (size_t i = 0; i < PIECES; i++) {
        size_t size = i % 50 == 49 ? 20000 : i * 7 % 300;
        pieces[i] = mir_arena_alloc(&arena, size);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        for (size_t b = 0; b < size; b++) assert_int_equal(pieces[i][b], 0);
        memset(pieces[i], (int)(i % 255) + 1, size);
    }
    for (size_t i = 0; i < PIECES; i++) {
        size_t size = i % 50 == 49 ? 20000 : i * 7 % 300;
        for (size_t b = 0; b < size; b++) assert_int_equal(pieces[i][b], i % 255 + 1);
    }
    assert_string_equal(mir_arena_strdup(&arena, mir_view_cstr("text")), "text");
    assert_string_equal(mir_arena_strdup(&arena, (mir_view){NULL, 0}), "");
    mir_arena_free(&arena);
    assert_int_equal(arena.bytes_used, 0);
}

static void an_arena_answers_null_past_its_bound_and_goes_on(void **state)
{
    (void)state;
    mir_arena arena = {.bytes_max = 1024};
    assert_null(mir_arena_alloc(&arena, 1025));
    assert_null(mir_arena_alloc(&arena, SIZE_MAX));
    assert_non_null(mir_arena_alloc(&arena, 1000));
    assert_null(mir_arena_alloc(&arena, 17));
    assert_non_null(mir_arena_alloc(&arena, 16));
    assert_null(mir_arena_alloc(&arena, 1));
    mir_arena_free(&arena);
    assert_non_null(mir_arena_alloc(&arena, 1024));
    /* With a block that is kept, and with more than that. */
    for (int i = 0; i < 3; i++) {
        mir_arena_reset(&arena);
        assert_int_equal(arena.bytes_used, 0);
        uint8_t *memory = mir_arena_alloc(&arena, 1024);
        assert_non_null(memory);
        assert_int_equal(memory[0] | memory[1023], 0);
        memset(memory, 0xff, 1024);
        assert_null(mir_arena_alloc(&arena, 1));
    }
    arena.bytes_max = 0;
    assert_non_null(mir_arena_alloc(&arena, 100000));
    mir_arena_reset(&arena);
    assert_null(arena.blocks);
    mir_arena_free(&arena);
}

static void bytes_are_appended_in_every_form(void **state)
{
    (void)state;
    mir_bytes bytes = {0};
    assert_non_null(mir_bytes_reserve(&bytes, 0));
    mir_bytes_text(&bytes, "a");
    mir_bytes_u8(&bytes, 'b');
    mir_bytes_view(&bytes, mir_view_cstr("cd"));
    mir_bytes_view(&bytes, (mir_view){NULL, 0});
    mir_bytes_printf(&bytes, "%d%s", 12, "x");
    mir_bytes_append(&bytes, "yz", 2);
    assert_true(mir_bytes_ok(&bytes));
    assert_true(mir_view_eq_cstr(mir_bytes_as_view(&bytes), "abcd12xyz"));
    for (int i = 0; i < 1000; i++) mir_bytes_printf(&bytes, "%0200d", i);
    assert_int_equal(bytes.size, 9 + 200000);
    mir_bytes_free(&bytes);
    assert_int_equal(bytes.size, 0);
}

static void bytes_turn_failed_at_their_bound_and_take_nothing_more(void **state)
{
    (void)state;
    mir_bytes bytes = {.size_max = 5};
    mir_bytes_text(&bytes, "hello");
    assert_true(mir_bytes_ok(&bytes));
    mir_bytes_u8(&bytes, '!');
    assert_false(mir_bytes_ok(&bytes));
    assert_int_equal(bytes.size, 5);
    mir_bytes_free(&bytes);
    /* A text that just fits needs no room for its terminator. */
    mir_bytes_printf(&bytes, "%s", "hello");
    assert_true(mir_bytes_ok(&bytes));
    assert_true(mir_view_eq_cstr(mir_bytes_as_view(&bytes), "hello"));
    mir_bytes_free(&bytes);
    mir_bytes_printf(&bytes, "%s", "hello!");
    assert_false(mir_bytes_ok(&bytes));
    assert_int_equal(bytes.size, 0);
    assert_null(mir_bytes_reserve(&bytes, 1));
    mir_bytes_free(&bytes);
    assert_null(mir_bytes_reserve(&bytes, SIZE_MAX));
    mir_bytes_free(&bytes);
}

static void a_status_has_a_name_and_comes_from_errno(void **state)
{
    (void)state;
    for (int i = MIR_OK; i <= MIR_E_UNREACHABLE; i++)
        assert_string_not_equal(mir_status_name((mir_status)i), "unknown status");
    assert_string_equal(mir_status_name((mir_status)99), "unknown status");
    assert_int_equal(mir_status_from_errno(0), MIR_OK);
    assert_int_equal(mir_status_from_errno(ENOENT), MIR_E_NOT_FOUND);
    assert_int_equal(mir_status_from_errno(ENOSPC), MIR_E_NO_SPACE);
    assert_int_equal(mir_status_from_errno(EBADF), MIR_E_IO);
}

static void error_texts_are_wrapped_and_cut(void **state)
{
    (void)state;
    mir_error error = {{0}};
    assert_int_equal(mir_error_set(&error, MIR_E_CORRUPT, "block %d", 7), MIR_E_CORRUPT);
    mir_error_wrap(&error, "file %s", "x");
    assert_string_equal(error.text, "file x: block 7");
    assert_int_equal(mir_error_os(&error, ENOENT, "open %s", "y"), MIR_E_NOT_FOUND);
    assert_string_equal(error.text, "open y: No such file or directory");
    char longer[2 * MIR_ERROR_TEXT_BYTES_MAX];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    (void)mir_error_set(&error, MIR_E_IO, "%s", longer);
    assert_int_equal(strlen(error.text), MIR_ERROR_TEXT_BYTES_MAX - 1);
    mir_error_wrap(&error, "more");
    assert_int_equal(strlen(error.text), MIR_ERROR_TEXT_BYTES_MAX - 1);
    assert_int_equal(mir_error_os(&error, EACCES, "%s", longer), MIR_E_PERMISSION);
    assert_int_equal(mir_error_set(NULL, MIR_E_IO, "x"), MIR_E_IO);
    assert_int_equal(mir_error_os(NULL, ENOMEM, "x"), MIR_E_NO_MEMORY);
    mir_error_wrap(NULL, "x");
}

static void times_are_written_with_the_shortest_fraction(void **state)
{
    (void)state;
    char text[MIR_CLOCK_TEXT_BYTES];
    static const struct {
        int64_t wall_ns;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00Z"},
        {1, "1970-01-01T00:00:00.000000001Z"},
        {500 * MIR_NS_PER_MS, "1970-01-01T00:00:00.5Z"},
        {-1, "1969-12-31T23:59:59.999999999Z"},
        {INT64_C(1700000000120000000), "2023-11-14T22:13:20.12Z"},
        {INT64_MAX, "2262-04-11T23:47:16.854775807Z"},
        {INT64_MIN, "1677-09-21T00:12:43.145224192Z"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(mir_clock_rfc3339(cases[i].wall_ns, text), strlen(cases[i].text));
        assert_string_equal(text, cases[i].text);
    }
    static const struct {
        int32_t nanos;
        const char *trimmed, *threes;
    } fractions[] = {
        {0, "", ""},
        {500000000, ".5", ".500"},
        {120000, ".00012", ".000120"},
        {1, ".000000001", ".000000001"},
        {999999990, ".99999999", ".999999990"},
    };
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        (void)mir_clock_write_fraction(fractions[i].nanos, MIR_CLOCK_TRIMMED, text);
        assert_string_equal(text, fractions[i].trimmed);
        (void)mir_clock_write_fraction(fractions[i].nanos, MIR_CLOCK_THREES, text);
        assert_string_equal(text, fractions[i].threes);
    }
    assert_int_equal(mir_clock_write(MIR_CLOCK_SECONDS_MIN, 0, MIR_CLOCK_TRIMMED, text), 20);
    assert_string_equal(text, "0001-01-01T00:00:00Z");
    assert_int_equal(mir_clock_write(MIR_CLOCK_SECONDS_MAX, 999999999, MIR_CLOCK_THREES, text), 30);
    assert_string_equal(text, "9999-12-31T23:59:59.999999999Z");
    assert_int_equal(mir_clock_write(MIR_CLOCK_SECONDS_MIN - 1, 0, MIR_CLOCK_TRIMMED, text), 0);
    assert_int_equal(mir_clock_write(MIR_CLOCK_SECONDS_MAX + 1, 0, MIR_CLOCK_TRIMMED, text), 0);
    assert_int_equal(mir_clock_write(0, -1, MIR_CLOCK_TRIMMED, text), 0);
    assert_int_equal(mir_clock_write(0, 1000000000, MIR_CLOCK_TRIMMED, text), 0);
    assert_string_equal(text, "");
    int64_t before_ns = mir_clock_mono_ns();
    assert_true(mir_clock_mono_ns() >= before_ns);
    assert_true(mir_clock_wall_ns() > INT64_C(1700000000) * MIR_NS_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_memory_is_zeroed_aligned_and_apart),
        cmocka_unit_test(an_arena_answers_null_past_its_bound_and_goes_on),
        cmocka_unit_test(bytes_are_appended_in_every_form),
        cmocka_unit_test(bytes_turn_failed_at_their_bound_and_take_nothing_more),
        cmocka_unit_test(a_status_has_a_name_and_comes_from_errno),
        cmocka_unit_test(error_texts_are_wrapped_and_cut),
        cmocka_unit_test(times_are_written_with_the_shortest_fraction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
