/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_json_normal.h"

#include "mir_schema_testing.h"

static mir_schema *kinds;

static int set_up(void **state)
{
    (void)state;
    kinds = testing_load(SET("kinds"));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mir_schema_unref(kinds);
    return 0;
}

static void expect_text(mir_bytes *text, const char *expected)
{
    mir_bytes_u8(text, 0);
    assert_string_equal((const char *)text->data, expected);
    mir_bytes_free(text);
}

static void expect_normal(const char *name, const char *given, const char *expected)
{
    const mir_schema_message *message = testing_message(kinds, name);
    mir_bytes normal = {0}, again = {0};
    mir_error error = {""};
    if (mir_json_normalize(message, mir_view_cstr(given), &normal, NULL, &error) != MIR_OK)
        fail_msg("%s: %s", given, error.text);
    assert_int_equal(mir_json_normalize(message, mir_bytes_as_view(&normal), &again, NULL, &error),
                     MIR_OK);
    expect_text(&again, expected);
    expect_text(&normal, expected);
}

static void names_and_values_get_one_form(void **state)
{
    (void)state;
    expect_normal("kinds.v1.Scalars", "{ \"f_int32\" : \"7\", \"fInt64\": 9007199254740993 }",
                  "{\"fInt32\":7,\"fInt64\":\"9007199254740993\"}");
    expect_normal("kinds.v1.Scalars", "{\"fUint64\":18446744073709551615}",
                  "{\"fUint64\":\"18446744073709551615\"}");
    expect_normal("kinds.v1.Scalars", "{\"f_int32\":1e2,\"fDouble\":24.0,\"fFloat\":\"0.1\"}",
                  "{\"fDouble\":24,\"fFloat\":0.1,\"fInt32\":100}");
    expect_normal("kinds.v1.Scalars", "{\"fDouble\":\"NaN\",\"fBytes\":\"_-8\"}",
                  "{\"fBytes\":\"/+8=\",\"fDouble\":\"NaN\"}");
    expect_normal("kinds.v1.Scalars", "{\"fMode\":1}", "{\"fMode\":\"MODE_AUTO\"}");
    expect_normal("kinds.v1.Scalars", "{\"fString\":\"\\u003c\\u00e9\"}",
                  "{\"fString\":\"\\u003cé\"}");
}

static void defaults_are_kept_when_given(void **state)
{
    (void)state;
    expect_normal("kinds.v1.Scalars", "{}", "{}");
    expect_normal("kinds.v1.Scalars", "{\"fBool\":false,\"fInt64\":0,\"fString\":\"\",\"fMode\":0}",
                  "{\"fBool\":false,\"fInt64\":\"0\",\"fMode\":\"MODE_UNSPECIFIED\","
                  "\"fString\":\"\"}");
    expect_normal("kinds.v1.Optionals", "{\"f_bool\":false,\"leaf\":{}}",
                  "{\"fBool\":false,\"leaf\":{}}");
    expect_normal("kinds.v1.Lists", "{\"packed\":[]}", "{\"packed\":[]}");
    expect_normal("kinds.v1.Maps", "{\"by_text\":{}}", "{\"byText\":{}}");
}

static void parts_are_treated_alike(void **state)
{
    (void)state;
    expect_normal("kinds.v1.Lists", "{\"leaves\":[{\"x\":0},{},{\"name\":\"b\",\"x\":\"1\"}]}",
                  "{\"leaves\":[{\"x\":0},{},{\"name\":\"b\",\"x\":1}]}");
    expect_normal("kinds.v1.Maps", "{\"leaves\":{\"9\":{\"x\":0},\"10\":{}}}",
                  "{\"leaves\":{\"10\":{},\"9\":{\"x\":0}}}");
    expect_normal("kinds.v1.Choice", "{\"lists\":{\"loose\":[1]},\"yes\":false}",
                  "{\"lists\":{\"loose\":[\"1\"]},\"yes\":false}");
    expect_normal("kinds.v1.Tree", "{\"left\":{\"left\":{\"value\":0}},\"named\":{\"a\":{}}}",
                  "{\"left\":{\"left\":{\"value\":0}},\"named\":{\"a\":{}}}");
    expect_normal("google.protobuf.Struct", "{\"b\":[null,{\"z\":1,\"a\":2}],\"a\":null}",
                  "{\"a\":null,\"b\":[null,{\"a\":2,\"z\":1}]}");
}

static void null_stays_as_what_removes(void **state)
{
    (void)state;
    expect_normal("kinds.v1.Scalars", "{\"f_int32\":null,\"fBool\":true}",
                  "{\"fBool\":true,\"fInt32\":null}");
    expect_normal("kinds.v1.Optionals", "{\"leaf\":null,\"f_int64\":null}",
                  "{\"fInt64\":null,\"leaf\":null}");
    expect_normal("kinds.v1.Lists", "{\"leaves\":null}", "{\"leaves\":null}");
}

static void expect_refused(const char *name, const char *given, const char *reason)
{
    mir_bytes normal = {0}, payload = {0};
    mir_error error = {""};
    mir_bytes_text(&normal, "before");
    mir_bytes_text(&payload, "before");
    assert_int_not_equal(mir_json_normalize(testing_message(kinds, name), mir_view_cstr(given),
                                            &normal, &payload, &error),
                         MIR_OK);
    if (strstr(error.text, reason) == NULL) fail_msg("%s: %s", given, error.text);
    expect_text(&normal, "before");
    expect_text(&payload, "before");
}

static void what_is_no_property_is_refused(void **state)
{
    (void)state;
    expect_refused("kinds.v1.Scalars", "{\"nope\":1}", "unknown field \"nope\"");
    expect_refused("kinds.v1.Scalars", "{\"fInt32\":1,\"f_int32\":1}", "duplicate field");
    expect_refused("kinds.v1.Scalars", "{\"fInt32\":1.5}", "invalid value");
    expect_refused("kinds.v1.Scalars", "[]", "unexpected token");
    expect_refused("kinds.v1.Scalars", "{\"fString\":\"a\\u0000b\"}", "zero byte");
    expect_refused("kinds.v1.Maps", "{\"byText\":{\"a\\u0000\":1}}", "zero byte");
    expect_refused("google.protobuf.Timestamp", "\"2020-01-01T00:00:00Z\"", "has no fields");
}

static void the_payload_comes_with_it(void **state)
{
    (void)state;
    const mir_schema_message *message = testing_message(kinds, "kinds.v1.Scalars");
    mir_bytes normal = {0}, payload = {0}, text = {0};
    mir_error error = {""};
    mir_bytes_text(&payload, "x");
    assert_int_equal(mir_json_normalize(message, mir_view_cstr("{\"f_int32\":5,\"fBool\":false}"),
                                        &normal, &payload, &error),
                     MIR_OK);
    expect_text(&normal, "{\"fBool\":false,\"fInt32\":5}");
    assert_int_equal(mir_json_normal_of_proto(message,
                                              mir_view_from(mir_bytes_as_view(&payload), 1),
                                              MIR_JSON_DEFAULTS_OMITTED, &text, &error),
                     MIR_OK);
    expect_text(&text, "{\"fInt32\":5}");
    mir_bytes_free(&payload);
}

static void expect_default(const char *name, const char *expected)
{
    mir_bytes normal = {0};
    mir_error error = {""};
    if (mir_json_normal_default(testing_message(kinds, name), &normal, &error) != MIR_OK)
        fail_msg("%s", error.text);
    expect_text(&normal, expected);
}

static void defaults_can_be_sent(void **state)
{
    (void)state;
    expect_default("kinds.v1.Optionals",
                   "{\"fBool\":false,\"fBytes\":\"\",\"fDouble\":0,\"fInt64\":\"0\","
                   "\"fMode\":\"MODE_UNSPECIFIED\",\"fString\":\"\","
                   "\"leaf\":{\"name\":\"\",\"x\":0,\"y\":0}}");
    expect_default("kinds.v1.Choice", "{\"plain\":0}");
    expect_default("kinds.v1.Tree", "{\"children\":[],\"named\":{},\"value\":0}");
    expect_default("kinds.v1.Lists",
                   "{\"blobs\":[],\"doubles\":[],\"flags\":[],\"leaves\":[],\"loose\":[],"
                   "\"modes\":[],\"packed\":[],\"texts\":[]}");
}

static json_t *value_of(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

static void expect_merged(const char *object, const char *patch, const char *expected)
{
    json_t *into = value_of(object), *from = value_of(patch), *wanted = value_of(expected);
    assert_int_equal(mir_json_merge(into, from), MIR_OK);
    assert_true(json_equal(into, wanted));
    json_decref(into);
    json_decref(from);
    json_decref(wanted);
}

static void objects_merge(void **state)
{
    (void)state;
    expect_merged("{\"a\":1,\"b\":{\"c\":1,\"d\":2}}", "{\"b\":{\"c\":3,\"e\":4}}",
                  "{\"a\":1,\"b\":{\"c\":3,\"d\":2,\"e\":4}}");
    expect_merged("{\"a\":[1,2]}", "{\"a\":[3]}", "{\"a\":[3]}");
    expect_merged("{\"a\":1,\"b\":2}", "{\"a\":null,\"z\":null}", "{\"b\":2}");
    expect_merged("{\"a\":1}", "{\"a\":{\"b\":null,\"c\":{\"d\":null}}}", "{\"a\":{\"c\":{}}}");
    expect_merged("{\"a\":{\"b\":1}}", "{\"a\":\"text\"}", "{\"a\":\"text\"}");
    /* A text of ": null" is a text. */
    expect_merged("{}", "{\"a\":\"b: null\"}", "{\"a\":\"b: null\"}");
}

static void merging_is_bounded(void **state)
{
    (void)state;
    char deep[4096] = "";
    for (int i = 0; i < 200; i++) (void)strcat(deep, "{\"a\":");
    (void)strcat(deep, "1");
    for (int i = 0; i < 200; i++) (void)strcat(deep, "}");
    json_t *into = json_object(), *patch = value_of(deep);
    assert_int_equal(mir_json_merge(into, patch), MIR_E_TOO_LARGE);
    json_decref(into);
    json_decref(patch);
}

static void expect_covers(const char *whole, const char *part, bool covers, bool same)
{
    json_t *a = value_of(whole), *b = value_of(part);
    if (mir_json_covers(a, b) != covers) fail_msg("%s covers %s", whole, part);
    if (mir_json_same(a, b) != same) fail_msg("%s is %s", whole, part);
    json_decref(a);
    json_decref(b);
}

static void values_compare_by_meaning(void **state)
{
    (void)state;
    expect_covers("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", true, true);
    expect_covers("{\"a\":1,\"b\":2}", "{\"a\":1.0}", true, false);
    expect_covers("{\"a\":1}", "{\"a\":1,\"b\":2}", false, false);
    expect_covers("{\"a\":\"1\"}", "{\"a\":1}", true, true);
    expect_covers("{\"a\":\"1x\"}", "{\"a\":1}", false, false);
    expect_covers("{\"a\":\"A\"}", "{\"a\":\"a\"}", false, false);
    expect_covers("{\"a\":\"1.0\"}", "{\"a\":\"1\"}", false, false);
    expect_covers("{\"a\":[1,2]}", "{\"a\":[1]}", false, false);
    expect_covers("{\"a\":{\"b\":1,\"c\":1}}", "{\"a\":{\"c\":1}}", true, false);
    expect_covers("{\"a\":false}", "{\"a\":null}", false, false);
    expect_covers("{\"a\":false}", "{\"a\":0}", false, false);
    expect_covers("{\"a\":{}}", "{\"a\":[]}", false, false);
}

static void expect_message(const char *name, const char *a, const char *b, bool expected)
{
    bool same = !expected;
    assert_int_equal(mir_json_same_message(testing_message(kinds, name), mir_view_cstr(a),
                                           mir_view_cstr(b), &same),
                     MIR_OK);
    if (same != expected) fail_msg("%s, %s", a, b);
}

static void texts_compare_as_messages(void **state)
{
    (void)state;
    expect_message("kinds.v1.Scalars", "{\"f_int64\":1.0}", "{\"fInt64\":\"1\"}", true);
    expect_message("kinds.v1.Scalars", "{\"fMode\":\"MODE_MANUAL\"}", "{\"f_mode\":2}", true);
    expect_message("kinds.v1.Scalars", "{\"fMode\":1}", "{\"fMode\":2}", false);
    expect_message("kinds.v1.Scalars", "{\"fBool\":true,\"fInt32\":1}",
                   "{\"fInt32\":1,\"fBool\":true}", true);
    expect_message("kinds.v1.Scalars", "{\"fBool\":false}", "{}", true);
    expect_message("kinds.v1.Optionals", "{\"fBool\":false}", "{}", false);
    expect_message("kinds.v1.Scalars", "{\"fString\":\"A\"}", "{\"fString\":\"a\"}", false);
    expect_message("kinds.v1.Maps", "{\"byText\":{\"a\":1,\"b\":2}}",
                   "{\"byText\":{\"b\":2,\"a\":\"1\"}}", true);
    /* Of an older schema. */
    expect_message("kinds.v1.Scalars", "{\"gone\":1}", "{\"gone\":1.0}", true);
    expect_message("kinds.v1.Scalars", "{\"gone\":1}", "{\"fBool\":true}", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_values_get_one_form),
        cmocka_unit_test(defaults_are_kept_when_given),
        cmocka_unit_test(parts_are_treated_alike),
        cmocka_unit_test(null_stays_as_what_removes),
        cmocka_unit_test(what_is_no_property_is_refused),
        cmocka_unit_test(the_payload_comes_with_it),
        cmocka_unit_test(defaults_can_be_sent),
        cmocka_unit_test(objects_merge),
        cmocka_unit_test(merging_is_bounded),
        cmocka_unit_test(values_compare_by_meaning),
        cmocka_unit_test(texts_compare_as_messages),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
