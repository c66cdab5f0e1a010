/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_table.h"

#include "mir_cli_text.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* Two text columns and a number, in a table of that width. */
static char *render(size_t width, bool colours, size_t *left_out)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    mir_cli_table *table = mir_cli_table_new();
    assert_non_null(table);
    mir_cli_table_column(table, "NAME", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "NOTE", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "RATE", "l/s", MIR_TABLE_NUMBER);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, "a");
    mir_cli_table_cell(table, MIR_TONE_GOOD, "the quick brown fox");
    mir_cli_table_cell(table, MIR_TONE_PLAIN, "1.5");
    mir_cli_table_cell(table, MIR_TONE_PLAIN, "\xE6\xB0\xB4 water");
    mir_cli_table_cell(table, MIR_TONE_PLAIN, "");
    mir_cli_table_cellf(table, MIR_TONE_PLAIN, "%d", 1234567);
    assert_int_equal(mir_cli_table_rows(table), 2);
    assert_int_equal(mir_cli_table_print(table, out, width, colours, left_out), MIR_OK);
    mir_cli_table_free(table);
    (void)fclose(out);
    return text;
}

static void columns_are_aligned_and_have_units(void **state)
{
    (void)state;
    size_t left_out = 9;
    char *text = render(0, false, &left_out);
    assert_string_equal(text, "NAME      NOTE                    RATE\n"
                              "                                   l/s\n"
                              "a         the quick brown fox      1.5\n"
                              "\xE6\xB0\xB4 water                       1234567\n");
    assert_int_equal(left_out, 0);
    free(text);
}

static void text_is_cut_to_fit_and_numbers_are_not(void **state)
{
    (void)state;
    for (size_t width = 27; width < 40; width++) {
        size_t left_out = 9;
        char *text = render(width, false, &left_out);
        assert_int_equal(left_out, 0);
        assert_non_null(strstr(text, "1234567\n"));
        char *rest = NULL;
        for (char *line = strtok_r(text, "\n", &rest); line != NULL;
             line = strtok_r(NULL, "\n", &rest))
            assert_in_range(mir_cli_text_columns(line), 1, width);
        free(text);
    }
    char *text = render(30, false, NULL);
    assert_non_null(strstr(text, "the quick\xE2\x80\xA6"));
    free(text);
}

static void a_column_without_room_is_left_out_whole(void **state)
{
    (void)state;
    size_t left_out = 0;
    char *text = render(20, false, &left_out);
    assert_int_equal(left_out, 1);
    assert_null(strstr(text, "RATE"));
    assert_non_null(strstr(text, "the quick\xE2\x80\xA6"));
    free(text);
    text = render(5, false, &left_out);
    assert_int_equal(left_out, 2);
    assert_non_null(strstr(text, "\xE6\xB0\xB4 w\xE2\x80\xA6\n"));
    free(text);
}

static void colours_do_not_count_as_columns(void **state)
{
    (void)state;
    char *text = render(0, true, NULL);
    assert_non_null(strstr(text, "\033[32mthe quick brown fox\033[0m      1.5\n"));
    free(text);
}

static void what_is_no_text_becomes_harmless(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *shown;
        size_t columns;
    } cases[] = {
        {"\x1b[2J", "\xEF\xBF\xBD[2J", 4},
        {"a\tb",
         "a\xEF\xBF\xBD"
         "b",
         3},
        {"\xC3\xA9", "\xC3\xA9", 1},
        {"\xC0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD", 2},
        {"\xE2\x80\xAE", "\xEF\xBF\xBD", 1},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 3},
        {"\xE6\xB0\xB4", "\xE6\xB0\xB4", 2},
        {"e\xCC\x81", "e\xCC\x81", 1},
        {"\xF0\x9F\x98", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mir_bytes out = {0};
        assert_int_equal(mir_cli_text_columns(cases[i].text), cases[i].columns);
        assert_int_equal(mir_cli_text_fit(&out, cases[i].text, 100), cases[i].columns);
        mir_bytes_u8(&out, 0);
        assert_true(mir_bytes_ok(&out));
        assert_string_equal((const char *)out.data, cases[i].shown);
        mir_bytes_free(&out);
    }
}

int main(void)
{
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_aligned_and_have_units),
        cmocka_unit_test(text_is_cut_to_fit_and_numbers_are_not),
        cmocka_unit_test(a_column_without_room_is_left_out_whole),
        cmocka_unit_test(colours_do_not_count_as_columns),
        cmocka_unit_test(what_is_no_text_becomes_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
