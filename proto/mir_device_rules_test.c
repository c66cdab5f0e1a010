/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void ids(void **state)
{
    (void)state;
    static const char *const good[] = {
        "a",       "pump-7", "a/b",     "A_b",    "\xc3\xa9t\xc3\xa9",
        "clients", "Device", "_INBOXx", "a,b;c=d"};
    static const char *const bad[] = {"",
                                      "a.b",
                                      "*",
                                      "a>",
                                      "a b",
                                      "a\tb",
                                      "a\n",
                                      "\x7f",
                                      "client",
                                      "device",
                                      "event",
                                      "_INBOX",
                                      "\xff",
                                      "\xc3",
                                      "\xc0\xaf",
                                      "\xed\xa0\x80",
                                      "a\xc2\xa0-",
                                      "a\xc2\x85-",
                                      "\xe2\x80\xa8",
                                      "\xe3\x80\x80",
                                      "\xf4\x90\x80\x80"};
    mir_error error;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (mir_device_id_check(mir_view_cstr(good[i]), &error) != MIR_OK)
            fail_msg("%s: %s", good[i], error.text);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error.text[0] = '\0';
        if (mir_device_id_check(mir_view_cstr(bad[i]), &error) == MIR_OK)
            fail_msg("row %zu was accepted", i);
        assert_true(error.text[0] != '\0');
    }
    assert_int_equal(mir_device_id_check(mir_view_of("a\0b", 3), NULL), MIR_E_INVALID);
    uint8_t longest[MIR_DEVICE_ID_BYTES_MAX + 1];
    memset(longest, 'x', sizeof longest);
    assert_int_equal(mir_device_id_check(mir_view_of(longest, sizeof longest - 1), NULL), MIR_OK);
    assert_int_equal(mir_device_id_check(mir_view_of(longest, sizeof longest), &error),
                     MIR_E_INVALID);
    assert_non_null(strstr(error.text, "use at most 128"));
    assert_int_equal(mir_device_id_check((mir_view){NULL, 0}, &error), MIR_E_INVALID);
    assert_string_equal(error.text, "device id is missing");
}

static void names(void **state)
{
    (void)state;
    mir_error error;
    assert_int_equal(mir_device_name_check(mir_view_cstr("Pump 7 (north)"), &error), MIR_OK);
    assert_int_equal(mir_device_name_check(mir_view_cstr("a.b>c"), &error), MIR_OK);
    static const char *const bad[] = {"", "a/b", "a*", "a\x01", "\xfe"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(mir_device_name_check(mir_view_cstr(bad[i]), &error), MIR_E_INVALID);
        assert_int_equal(mir_device_namespace_check(mir_view_cstr(bad[i]), &error), MIR_E_INVALID);
        assert_true(strncmp(error.text, "namespace ", 10) == 0);
    }
}

static void labels_and_annotations(void **state)
{
    (void)state;
    mir_error error;
    mir_view key = mir_view_cstr("a.b/c d-e"), any = mir_view_cstr("x*y=\"<>&' \xc3\xa9");
    assert_int_equal(mir_device_label_check(key, any, &error), MIR_OK);
    assert_int_equal(mir_device_label_check(key, mir_view_cstr(""), &error), MIR_OK);
    assert_int_equal(mir_device_label_check(mir_view_cstr(""), any, &error), MIR_E_INVALID);
    assert_int_equal(mir_device_label_check(key, mir_view_cstr("a\nb"), &error), MIR_E_INVALID);
    assert_int_equal(mir_device_annotation_check(key, mir_view_cstr("a\nb"), &error), MIR_OK);
    static uint8_t big[MIR_DEVICE_ANNOTATION_VALUE_BYTES_MAX + 1];
    memset(big, 'x', sizeof big);
    assert_int_equal(mir_device_annotation_check(key, mir_view_of(big, sizeof big), &error),
                     MIR_E_INVALID);
    assert_int_equal(mir_device_annotation_check(key, mir_view_of(big, sizeof big - 1), &error), 0);
    assert_int_equal(
        mir_device_label_check(key, mir_view_of(big, MIR_DEVICE_LABEL_VALUE_BYTES_MAX + 1), &error),
        MIR_E_INVALID);
    assert_int_equal(
        mir_device_label_check(mir_view_of(big, MIR_DEVICE_LABEL_KEY_BYTES_MAX + 1), any, &error),
        MIR_E_INVALID);
}

static void patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool matches;
    } rows[] = {
        {"abc", "abc", true},
        {"abc", "abcd", false},
        {"a.c", "abc", false},
        {"abc*", "abc", true},
        {"abc*", "abcd", true},
        {"abc*", "xabc", false},
        {"*abc", "xabc", true},
        {"*abc", "abcx", false},
        {"*abc*", "xxabcxx", true},
        {"*abc*", "ab", false},
        {"a*b", "ab", true},
        {"a*b", "axxb", true},
        {"a*b", "axxbx", false},
        {"*a*b", "xaybb", true},
        {"*a*b", "xaybx", false},
        {"*", "", true},
        {"*", "x", true},
        {"**", "anything", true},
        {"", "", true},
        {"", "x", false},
        {"a*a", "a", false},
        {"a**b*c", "a--b-c", true},
        {"ABC", "abc", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (mir_pattern_match(mir_view_cstr(rows[i].pattern), mir_view_cstr(rows[i].text)) !=
            rows[i].matches)
            fail_msg("%s on %s", rows[i].pattern, rows[i].text);
    assert_true(mir_pattern_has_star(mir_view_cstr("a*")));
    assert_false(mir_pattern_has_star((mir_view){NULL, 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),
        cmocka_unit_test(names),
        cmocka_unit_test(labels_and_annotations),
        cmocka_unit_test(patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
