/* SPDX-License-Identifier: Apache-2.0 */
/* Rows as messages: what is in them, and what is refused with which words. That stored rows come back
 * as they were, tests/e2e tells. */
#include "mir_cli_encode.h"

#include "mir_cli_file.h"
#include "mir_json_codec.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { COLUMNS_MAX = 24 };

static mir_schema *kinds;

static mir_schema *load(const char *path)
{
    mir_bytes set = {0};
    mir_schema *schema = NULL;
    mir_error error = {0};
    if (mir_cli_file_read(path, &set, &error) != MIR_OK ||
        mir_schema_load(mir_bytes_as_view(&set), NULL, &schema, &error) != MIR_OK)
        fail_msg("%s", error.text);
    mir_bytes_free(&set);
    return schema;
}

static const mir_schema_message *message_of(const char *name)
{
    const mir_schema_message *message = NULL;
    mir_error error = {0};
    char full[128];
    (void)snprintf(full, sizeof full, "kinds.v1.%s", name);
    if (mir_schema_find(kinds, mir_view_cstr(full), &message, &error) != MIR_OK)
        fail_msg("%s", error.text);
    return message;
}

static int set_up(void **state)
{
    (void)state;
    kinds = load(MIR_BINARY_DIR "/schema_sets/kinds.binpb");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mir_schema_unref(kinds);
    return 0;
}

typedef struct pair {
    const char *column;
    const char *text; /* null: absent */
    mir_cli_text_form form;
} pair;

static mir_cli_encoder *encoder_of(const char *name, const pair *pairs, size_t count)
{
    mir_view columns[COLUMNS_MAX];
    mir_cli_encoder *encoder = NULL;
    mir_error error = {0};
    for (size_t i = 0; i < count; i++) columns[i] = mir_view_cstr(pairs[i].column);
    if (mir_cli_encoder_new(message_of(name), columns, count, &encoder, &error) != MIR_OK)
        fail_msg("%s", error.text);
    return encoder;
}

static mir_status encode(const char *name, int64_t time_ns, const pair *pairs, size_t count,
                         mir_bytes *payload, const char **cause, mir_error *error)
{
    mir_cli_text_value values[COLUMNS_MAX] = {0};
    mir_cli_encoder *encoder = encoder_of(name, pairs, count);
    for (size_t i = 0; i < count; i++) {
        if (pairs[i].text == NULL) continue;
        values[i].text = mir_view_cstr(pairs[i].text);
        values[i].form = pairs[i].form != 0 ? pairs[i].form : MIR_TEXT_ANY;
    }
    mir_status status = mir_cli_encoder_row(encoder, time_ns, values, payload, cause, error);
    mir_cli_encoder_free(encoder);
    return status;
}

#define PAIRS(...) (const pair[]){__VA_ARGS__}, sizeof((const pair[]){__VA_ARGS__}) / sizeof(pair)

static void is_read_as(const char *name, int64_t time_ns, const char *expected, const pair *pairs,
                       size_t count)
{
    mir_bytes payload = {0};
    mir_error error = {0};
    const char *cause = NULL;
    if (encode(name, time_ns, pairs, count, &payload, &cause, &error) != MIR_OK)
        fail_msg("%s", error.text);
    mir_bytes text = {0};
    assert_int_equal(mir_json_from_proto(message_of(name), mir_bytes_as_view(&payload),
                                         MIR_JSON_DEFAULTS_OMITTED, &text, &error),
                     MIR_OK);
    mir_bytes_u8(&text, '\0');
    assert_string_equal((const char *)text.data, expected);
    mir_bytes_free(&text);
    mir_bytes_free(&payload);
}

static void is_refused(const char *name, int64_t time_ns, const char *words, const char *kind,
                       const pair *pairs, size_t count)
{
    mir_bytes payload = {0};
    mir_error error = {0};
    const char *cause = NULL;
    mir_bytes_text(&payload, "kept");
    assert_int_not_equal(encode(name, time_ns, pairs, count, &payload, &cause, &error), MIR_OK);
    if (strstr(error.text, words) == NULL) fail_msg("%s: not '%s'", error.text, words);
    assert_string_equal(cause, kind);
    assert_int_equal(payload.size, 4);
    mir_bytes_free(&payload);
}

static void times_are_of_the_unit_of_their_field(void **state)
{
    (void)state;
    is_read_as("TimeSec", -3000000000, "{\"before\":1,\"ts\":\"-3\"}", PAIRS({"before", "1", 0}));
    is_read_as("TimeMilli", 5000000, "{\"ts\":\"5\",\"value\":1}", PAIRS({"value", "1", 0}));
    is_read_as("TimeMicro", INT64_MAX / 1000 * 1000, "{\"ts\":\"9223372036854775\",\"value\":1}",
               PAIRS({"value", "1", 0}));
    is_read_as("TimeNano", INT64_MIN, "{\"ts\":\"-9223372036854775808\",\"a\":1}",
               PAIRS({"a", "1", 0}));
    is_read_as("TimeFraction", -1, "{\"ts\":\"1969-12-31T23:59:59.999999999Z\"}",
               PAIRS({"value", "0", 0}));
    static const char cannot[] = "a time that the message cannot carry";
    is_refused("TimeSec", 1500000000, "as many digits", cannot, PAIRS({"before", "1", 0}));
    is_refused("TimeMilli", -1000000, "does not fit", cannot, PAIRS({"value", "1", 0}));
    is_refused("TimeNano", 0, "time 0", cannot, PAIRS({"a", "1", 0}));
}

static void a_message_without_a_time_is_none_to_import(void **state)
{
    (void)state;
    mir_cli_encoder *encoder = NULL;
    mir_error error = {0};
    mir_view column = MIR_VIEW_LITERAL("f_int32");
    assert_int_equal(mir_cli_encoder_new(message_of("Scalars"), &column, 1, &encoder, &error),
                     MIR_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "time of their arrival"));
    assert_int_equal(mir_cli_encoder_new(message_of("TimeUnusable"), &column, 1, &encoder, &error),
                     MIR_E_UNSUPPORTED);
}

static void only_columns_with_values_have_to_be_there(void **state)
{
    (void)state;
    is_read_as("TimeNano", 7, "{\"ts\":\"7\",\"b\":-2}",
               PAIRS({"nothing", NULL, 0}, {"b", "-2", 0}, {"a", NULL, 0}));
    is_refused("TimeNano", 7, "there is no field 'nothing'",
               "a field that the schema does not have", PAIRS({"nothing", "1", 0}));
    is_refused("TimeNano", 7, "no value", "no value at all", PAIRS({"a", NULL, 0}));
    /* The time wins over a column of the name of its field. */
    is_read_as("TimeNano", 7, "{\"ts\":\"7\"}", PAIRS({"ts", "9", 0}));
}

static void numbers_are_read_strictly(void **state)
{
    (void)state;
    static const char *const good[][2] = {{"12i", "12"},
                                          {"12u", "12"},
                                          {"3.0", "3"},
                                          {"1e3", "1000"},
                                          {"+4", "4"},
                                          {"2147483647", "2147483647"},
                                          {"-2147483648", "-2147483648"}};
    static const char *const bad[] = {"",  "i",   "2147483648", "1.5", "0x10", " 1", "1 ",
                                      "-", "NaN", "1e99",       "one", "1ii",  "--1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char expected[64];
        (void)snprintf(expected, sizeof expected, "{\"ts\":\"7\",\"a\":%s}", good[i][1]);
        is_read_as("TimeNano", 7, expected, PAIRS({"a", good[i][0], 0}));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        is_refused("TimeNano", 7, "is no value of a", "a value of another type",
                   PAIRS({"a", bad[i], 0}));
    /* What line protocol says is a text is no number. */
    is_refused("TimeNano", 7, "is no value of a", "a value of another type",
               PAIRS({"a", "1", MIR_TEXT_QUOTED}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_of_the_unit_of_their_field),
        cmocka_unit_test(a_message_without_a_time_is_none_to_import),
        cmocka_unit_test(only_columns_with_values_have_to_be_there),
        cmocka_unit_test(numbers_are_read_strictly),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
