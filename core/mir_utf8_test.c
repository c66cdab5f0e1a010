/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mir_utf8.h"

static size_t encode(uint32_t point, uint8_t *to)
{
    if (point < 0x80) {
        to[0] = (uint8_t)point;
        return 1;
    }
    size_t more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t leads[] = {0, 0xc0, 0xe0, 0xf0};
    to[0] = (uint8_t)(leads[more] | point >> (6 * more));
    for (size_t k = 1; k <= more; k++) to[k] = (uint8_t)(0x80 | (point >> (6 * (more - k)) & 0x3f));
    return more + 1;
}

/* In memory of just this size, so that a sanitizer sees a look behind it. */
static size_t sequence_of(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    size_t got = mir_utf8_sequence((mir_view){copy, size});
    assert_int_equal(mir_utf8_valid((mir_view){copy, size}), got == size);
    free(copy);
    return got;
}

static void every_character_and_nothing_else_is_a_sequence(void **state)
{
    (void)state;
    for (uint32_t point = 0; point < 0x120000; point += point < 0x11000 ? 1 : 0x3f) {
        uint8_t bytes[8];
        size_t size = encode(point, bytes);
        bool sound = point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
        assert_int_equal(sequence_of(bytes, size), sound ? size : 0);
        for (size_t cut = 1; cut < size; cut++) assert_int_equal(sequence_of(bytes, cut), 0);
    }
}

static void what_is_not_well_formed_is_seen_anywhere(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "\x80",         "\xbf",         "\xc0\x80",         "\xc1\xbf",         "\xc3(",
        "\xe0\x80\x80", "\xe0\x9f\xbf", "\xe2\x28\xa1",     "\xe2\x82(",        "\xed\xa0\x80",
        "\xf5\x80\x80", "\xff",         "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[32];
        assert_int_equal(mir_utf8_sequence(mir_view_cstr(wrong[i])), 0);
        for (size_t before = 0; before < 9; before++) {
            memcpy(text, "plain \xc3\xa9 ", 9);
            /* Not in the middle of a character. */
            strcpy(text + (before == 7 ? 8 : before), wrong[i]);
            strcat(text, "behind");
            assert_false(mir_utf8_valid(mir_view_cstr(text)));
        }
    }
    assert_true(mir_utf8_valid((mir_view){NULL, 0}));
    assert_true(mir_utf8_valid(mir_view_of("a\0\xe2\x82\xac", 5)));
}

static void a_copy_ends_between_characters(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
    char to[sizeof text + 2];
    for (size_t size = 1; size <= sizeof to; size++) {
        memset(to, 'x', sizeof to);
        assert_ptr_equal(mir_utf8_copy(text, to, size), to);
        size_t length = strlen(to);
        assert_true(length < size);
        assert_memory_equal(to, text, length);
        assert_true(mir_utf8_valid(mir_view_cstr(to)));
        /* No character that fits is left out. */
        if (length < strlen(text))
            assert_true(length + mir_utf8_sequence(mir_view_cstr(text + length)) >= size);
    }
}

/* What is looked at eight bytes at a time, and what is not, at each offset. */
static void a_fault_is_found_wherever_it_stands(void **state)
{
    (void)state;
    char text[40];
    for (size_t size = 1; size < sizeof text; size++)
        for (size_t at = 0; at < size; at++) {
            memset(text, 'x', sizeof text);
            assert_true(mir_utf8_valid((mir_view){(const uint8_t *)text, size}));
            text[at] = (char)0xff;
            assert_false(mir_utf8_valid((mir_view){(const uint8_t *)text, size}));
            if (at + 1 == size) continue;
            memcpy(text + at, "\xc3\xa4", 2);
            assert_true(mir_utf8_valid((mir_view){(const uint8_t *)text, size}));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_is_found_wherever_it_stands),
        cmocka_unit_test(every_character_and_nothing_else_is_a_sequence),
        cmocka_unit_test(what_is_not_well_formed_is_seen_anywhere),
        cmocka_unit_test(a_copy_ends_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
