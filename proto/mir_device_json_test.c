/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mir_timestamp.h"

static const char full_device[] =
    "{\"apiVersion\":\"mir/v1alpha\",\"kind\":\"device\",\"meta\":{\"annotations\":{\"note\":"
    "\"two\\nlines\"},\"labels\":{\"a\":\"1\",\"b\":\"\\u003c\\u0026\\u003e\"},\"name\":\"n\","
    "\"namespace\":\"ns\"},\"properties\":{\"desired\":{\"p.v1.Cfg\":{\"deep\":{\"list\":[1,2.5,"
    "\"x\",null,true,{}]},\"sec\":24}},\"reported\":{\"p.v1.Rep\":{}}},\"spec\":{\"deviceId\":"
    "\"d\",\"disabled\":false},\"status\":{\"events\":[{\"firstAt\":\"2025-01-02T03:04:05.5Z\","
    "\"message\":\"m\",\"reason\":\"r\",\"type\":\"normal\"}],\"lastHearthbeat\":"
    "\"2025-01-02T03:04:05.123456789Z\",\"online\":true,\"properties\":{\"desired\":{\"p.v1.Cfg\":"
    "\"2025-01-02T03:04:05Z\"}},\"schema\":{\"compressedSchema\":\"AAECAw==\","
    "\"lastSchemaFetch\":\"2025-01-02T03:04:06Z\",\"packageNames\":[\"p.v1\",\"x\"]}}}";

static void assert_text(mir_bytes *text, const char *expected)
{
    mir_bytes_u8(text, 0);
    assert_true(mir_bytes_ok(text));
    assert_string_equal((const char *)text->data, expected);
    text->size = 0;
}

static void a_device_survives_both_ways(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_error error;
    MirApi__V1__Device *device = NULL;
    mir_bytes text = {0};
    assert_int_equal(mir_device_json_read(mir_view_cstr(full_device), &arena, &device, &error), 0);
    assert_int_equal(device->status->last_hearthbeat->nanos, 123456789);
    assert_int_equal(device->status->schema->compressed_schema.len, 4);
    mir_device_json_write(device, MIR_JSON_COMPACT, &text);
    assert_text(&text, full_device);
    mir_device_json_write(device, MIR_JSON_PRETTY, &text);
    MirApi__V1__Device *again = NULL;
    assert_int_equal(mir_device_json_read(mir_bytes_as_view(&text), &arena, &again, &error), 0);
    text.size = 0;
    mir_device_json_write(again, MIR_JSON_COMPACT, &text);
    assert_text(&text, full_device);
    mir_bytes_free(&text);
    mir_arena_free(&arena);
}

static void parts_are_there_even_when_empty(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_error error;
    MirApi__V1__Device bare = MIR_API__V1__DEVICE__INIT, *device = NULL;
    mir_bytes text = {0};
    static const char empty[] = "{\"meta\":{},\"properties\":{},\"spec\":{},\"status\":{"
                                "\"properties\":{},\"schema\":{}}}";
    mir_device_json_write(&bare, MIR_JSON_COMPACT, &text);
    assert_text(&text, empty);
    assert_int_equal(
        mir_device_json_read(mir_view_cstr("{\"meta\":null}"), &arena, &device, &error), 0);
    assert_non_null(device->meta);
    assert_non_null(device->status->schema);
    assert_non_null(device->properties->desired);
    mir_device_json_write(device, MIR_JSON_COMPACT, &text);
    assert_text(&text, empty);
    mir_device_json_write(device, MIR_JSON_PRETTY, &text);
    assert_text(&text,
                "{\n  \"meta\": {},\n  \"properties\": {},\n  \"spec\": {},\n  \"status\": {\n"
                "    \"properties\": {},\n    \"schema\": {}\n  }\n}");
    mir_bytes_free(&text);
    mir_arena_free(&arena);
}

static void a_version_is_shown_and_not_taken_back(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_error error = {""};
    MirApi__V1__Device bare = MIR_API__V1__DEVICE__INIT, *device = NULL;
    MirApi__V1__DeviceStatus status = MIR_API__V1__DEVICE_STATUS__INIT;
    mir_bytes text = {0};
    bare.status = &status;
    status.has_version = 1;
    status.version = UINT64_MAX;
    mir_device_json_write(&bare, MIR_JSON_COMPACT, &text);
    mir_bytes_u8(&text, '\0');
    assert_non_null(
        strstr((const char *)text.data, "\"schema\":{},\"version\":18446744073709551615}"));
    assert_int_equal(mir_device_json_read(mir_view_cstr("{\"status\":{\"version\":7}}"), &arena,
                                          &device, &error),
                     MIR_OK);
    assert_false(device->status->has_version);
    mir_bytes_free(&text);
    mir_arena_free(&arena);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"[]", "a device must be a JSON object"},
        {"{\"spec\":{\"foo\":1}}", "unknown field spec.foo: known here are deviceId, disabled"},
        {"{\"Meta\":{}}",
         "unknown field Meta: known here are apiVersion, kind, meta, spec, properties, status"},
        {"{\"meta\":{\"labels\":{\"floor\":2}}}",
         "field meta.labels.floor must be a string; put quotes around it"},
        {"{\"meta\":[]}", "field meta must be an object"},
        {"{\"meta\":{\"name\":1}}", "field meta.name must be a string; put quotes around it"},
        {"{\"spec\":{\"disabled\":\"yes\"}}", "field spec.disabled must be true or false"},
        {"{\"status\":{\"lastHearthbeat\":\"yesterday\"}}",
         "field status.lastHearthbeat must be a time such as \"2025-01-31T12:00:00Z\""},
        {"{\"status\":{\"schema\":{\"compressedSchema\":\"!\"}}}",
         "field status.schema.compressedSchema must be a base64 string"},
        {"{\"status\":{\"schema\":{\"packageNames\":\"p\"}}}",
         "field status.schema.packageNames must be a list of strings"},
        {"{\"properties\":{\"desired\":[]}}", "field properties.desired must be an object"},
        {"{\"a\":1,\"a\":2}", "invalid JSON at line 1, column 10: duplicate object key near "
                              "'\"a\"'"},
        {"{} {}", "invalid JSON at line 1, column 4: end of file expected near '{'"},
        {"", "invalid JSON at line 1, column 0: '[' or '{' expected near end of file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mir_arena arena = {0};
        mir_error error = {""};
        MirApi__V1__Device *device = NULL;
        if (mir_device_json_read(mir_view_cstr(rows[i].text), &arena, &device, &error) == MIR_OK)
            fail_msg("was read: %s", rows[i].text);
        assert_null(device);
        if (rows[i].text[0] != '\0') assert_string_equal(error.text, rows[i].error);
        mir_arena_free(&arena);
    }
}

static void deep_input_is_refused(void **state)
{
    (void)state;
    for (int depth = 50; depth <= 5000; depth *= 10) {
        mir_bytes text = {0};
        mir_bytes_text(&text, "{\"properties\":{\"desired\":{\"a\":");
        for (int i = 0; i < depth; i++) mir_bytes_u8(&text, '[');
        for (int i = 0; i < depth; i++) mir_bytes_u8(&text, ']');
        mir_bytes_text(&text, "}}}");
        mir_arena arena = {0};
        mir_error error;
        MirApi__V1__Device *device = NULL;
        mir_status status = mir_device_json_read(mir_bytes_as_view(&text), &arena, &device, &error);
        assert_int_equal(status, depth == 50 ? MIR_OK : MIR_E_INVALID);
        mir_arena_free(&arena);
        mir_bytes_free(&text);
    }
}

static void every_cut_of_a_device_is_refused(void **state)
{
    (void)state;
    for (size_t size = 0; size < sizeof full_device - 1; size++) {
        mir_arena arena = {0};
        mir_error error;
        MirApi__V1__Device *device = NULL;
        char *copy = malloc(size + 1); /* its end is the end of the heap block */
        assert_non_null(copy);
        memcpy(copy, full_device, size);
        assert_int_equal(mir_device_json_read(mir_view_of(copy, size), &arena, &device, &error),
                         MIR_E_INVALID);
        free(copy);
        mir_arena_free(&arena);
    }
}

static void numbers_have_their_shortest_form(void **state)
{
    (void)state;
    static const struct {
        double number;
        const char *text;
    } rows[] = {
        {0, "0"},
        {-0.0, "-0"},
        {24, "24"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1e20, "100000000000000000000"},
        {1e21, "1e+21"},
        {1.5e300, "1.5e+300"},
        {1e-6, "0.000001"},
        {9.5e-7, "9.5e-7"},
        {1e-7, "1e-7"},
        {123456789.125, "123456789.125"},
        {9007199254740993.0, "9007199254740992"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {3.0000000000000004, "3.0000000000000004"},
        {INFINITY, "\"Infinity\""},
        {-INFINITY, "\"-Infinity\""},
    };
    mir_bytes text = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mir_json_write_number(rows[i].number, &text);
        assert_text(&text, rows[i].text);
    }
    mir_json_write_number(NAN, &text);
    assert_text(&text, "\"NaN\"");
    /* Whatever is written is read back as the same number. */
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
        double number;
        memcpy(&number, &bits, sizeof number);
        if (!isfinite(number)) continue;
        mir_json_write_number(number, &text);
        mir_bytes_u8(&text, 0);
        assert_true(strtod((const char *)text.data, NULL) == number);
        text.size = 0;
    }
    mir_bytes_free(&text);
}

static void strings_are_escaped(void **state)
{
    (void)state;
    mir_bytes text = {0};
    mir_json_write_string(
        mir_view_cstr("a\"\\/\b\f\n\r\t\x01\x7f<>&\xe2\x80\xa8\xe2\x80\xa9\xc3\xa9"), &text);
    assert_text(&text, "\"a\\\"\\\\/\\u0008\\u000c\\n\\r\\t\\u0001\x7f\\u003c\\u003e\\u0026\\u2028"
                       "\\u2029\xc3\xa9\"");
    mir_json_write_string(mir_view_of("\xff\xc3", 2), &text);
    assert_text(&text, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    mir_json_write_string((mir_view){NULL, 0}, &text);
    assert_text(&text, "\"\"");
    mir_bytes_free(&text);
}

static void structs_convert(void **state)
{
    (void)state;
    static const char source[] = "{ \"z\": [1, {\"k\": null}], \"a\": {\"t\": true}, \"e\": {} }";
    static const char expected[] = "{\"a\":{\"t\":true},\"e\":{},\"z\":[1,{\"k\":null}]}";
    mir_arena arena = {0};
    mir_error error;
    Google__Protobuf__Struct *object = NULL;
    mir_bytes text = {0};
    assert_int_equal(mir_struct_parse(mir_view_cstr(source), &arena, &object, &error), MIR_OK);
    mir_struct_write(object, MIR_JSON_COMPACT, &text);
    assert_text(&text, expected);
    json_t *json = NULL;
    assert_int_equal(mir_struct_to_json(object, &json), MIR_OK);
    mir_json_write(json, MIR_JSON_COMPACT, &text);
    assert_text(&text, expected);
    json_decref(json);
    mir_struct_write(NULL, MIR_JSON_COMPACT, &text);
    assert_text(&text, "{}");
    assert_int_equal(mir_struct_parse(mir_view_cstr("[1]"), &arena, &object, &error),
                     MIR_E_INVALID);
    mir_bytes_free(&text);
    mir_arena_free(&arena);
}

static void the_last_of_equal_map_keys_counts(void **state)
{
    (void)state;
    MirApi__V1__Meta__LabelsEntry first = MIR_API__V1__META__LABELS_ENTRY__INIT, last = first,
                                  none = first;
    char key[] = "k", old[] = "old", new[] = "new";
    first.key = last.key = key;
    first.value = old;
    last.value = new;
    MirApi__V1__Meta__LabelsEntry *labels[] = {&first, &none, &last};
    MirApi__V1__Meta meta = MIR_API__V1__META__INIT;
    meta.labels = labels;
    meta.n_labels = 3;
    MirApi__V1__Device device = MIR_API__V1__DEVICE__INIT;
    device.meta = &meta;
    mir_bytes text = {0};
    mir_device_json_write(&device, MIR_JSON_COMPACT, &text);
    mir_bytes_u8(&text, 0);
    assert_non_null(strstr((const char *)text.data, "\"labels\":{\"\":\"\",\"k\":\"new\"}"));
    mir_bytes_free(&text);
}

static void times_are_read_and_written(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds;
        int32_t nanos;
        const char *written; /* null: refused */
    } rows[] = {
        {"1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"},
        {"2025-01-02T03:04:05.120Z", 1735787045, 120000000, "2025-01-02T03:04:05.12Z"},
        {"2025-01-02T05:04:05+02:00", 1735787045, 0, "2025-01-02T03:04:05Z"},
        {"2025-01-01t22:34:05.000000001-04:30", 1735787045, 1, "2025-01-02T03:04:05.000000001Z"},
        {"2024-02-29 00:00:00Z", 1709164800, 0, "2024-02-29T00:00:00Z"},
        {"1969-12-31T23:59:59.9Z", -1, 900000000, "1969-12-31T23:59:59.9Z"},
        {"2023-02-29T00:00:00Z", 0, 0, NULL},
        {"2025-13-01T00:00:00Z", 0, 0, NULL},
        {"2025-01-01T24:00:00Z", 0, 0, NULL},
        {"2025-01-01T00:00:00", 0, 0, NULL},
        {"2025-01-01T00:00:00.Z", 0, 0, NULL},
        {"2025-01-01T00:00:00.1234567890Z", 0, 0, NULL},
        {"2025-01-01T00:00:00Zx", 0, 0, NULL},
        {"2025-01-01T00:00:00+2:00", 0, 0, NULL},
        {"", 0, 0, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t seconds = 0;
        int32_t nanos = 0;
        char text[64];
        mir_status status = mir_timestamp_parse(mir_view_cstr(rows[i].text), &seconds, &nanos);
        if (rows[i].written == NULL) {
            if (status == MIR_OK) fail_msg("was read: %s", rows[i].text);
            continue;
        }
        assert_int_equal(status, MIR_OK);
        assert_int_equal(seconds, rows[i].seconds);
        assert_int_equal(nanos, rows[i].nanos);
        assert_int_equal(mir_timestamp_format(seconds, nanos, text), strlen(rows[i].written));
        assert_string_equal(text, rows[i].written);
    }
    char text[64];
    assert_int_equal(mir_timestamp_format(INT64_MAX, 0, text), 0);
    mir_arena arena = {0};
    MirApi__V1__Timestamp *before_epoch = mir_timestamp_new(&arena, -1);
    assert_int_equal(before_epoch->seconds, -1);
    assert_int_equal(before_epoch->nanos, 999999999);
    assert_int_equal(mir_timestamp_ns(before_epoch), -1);
    before_epoch->seconds = INT64_MAX;
    assert_true(mir_timestamp_ns(before_epoch) == INT64_MAX);
    assert_int_equal(mir_timestamp_ns(NULL), 0);
    mir_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_survives_both_ways),
        cmocka_unit_test(parts_are_there_even_when_empty),
        cmocka_unit_test(a_version_is_shown_and_not_taken_back),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(deep_input_is_refused),
        cmocka_unit_test(every_cut_of_a_device_is_refused),
        cmocka_unit_test(numbers_have_their_shortest_form),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(structs_convert),
        cmocka_unit_test(the_last_of_equal_map_keys_counts),
        cmocka_unit_test(times_are_read_and_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
