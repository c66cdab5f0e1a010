/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_json_codec.h"

#include "mir_json_text.h"
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

static void expect_out(const char *name, mir_view payload, mir_json_defaults defaults,
                       const char *expected)
{
    mir_bytes text = {0};
    mir_error error = {0};
    if (mir_json_from_proto(testing_message(kinds, name), payload, defaults, &text, &error) !=
        MIR_OK) {
        fail_msg("%s", error.text);
    }
    expect_text(&text, expected);
}

static mir_bytes parse(const char *name, const char *json)
{
    mir_bytes payload = {0};
    mir_error error = {0};
    if (mir_json_to_proto(testing_message(kinds, name), mir_view_cstr(json), &payload, &error) !=
        MIR_OK) {
        fail_msg("%s: %s", json, error.text);
    }
    return payload;
}

/* protoc's text form to JSON, and that JSON back to bytes that protoc reads the same way. */
static void expect_both(const char *name, const char *proto_text, const char *json)
{
    mir_bytes payload = testing_encode(SET("kinds"), name, proto_text);
    expect_out(name, mir_bytes_as_view(&payload), MIR_JSON_DEFAULTS_OMITTED, json);
    mir_bytes back = parse(name, json);
    mir_bytes first = testing_protoc(SET("kinds"), "decode", name, mir_bytes_as_view(&payload));
    mir_bytes second = testing_protoc(SET("kinds"), "decode", name, mir_bytes_as_view(&back));
    mir_bytes_u8(&first, 0);
    mir_bytes_u8(&second, 0);
    assert_string_equal((const char *)first.data, (const char *)second.data);
    mir_bytes_free(&payload);
    mir_bytes_free(&back);
    mir_bytes_free(&first);
    mir_bytes_free(&second);
}

/* What is read comes out in this form. */
static void expect_read(const char *name, const char *json, const char *expected)
{
    mir_bytes payload = parse(name, json);
    expect_out(name, mir_bytes_as_view(&payload), MIR_JSON_DEFAULTS_OMITTED, expected);
    mir_bytes_free(&payload);
}

static void expect_refused(const char *name, const char *json, const char *expected)
{
    mir_bytes payload = {0};
    mir_bytes_text(&payload, "kept");
    mir_error error = {0};
    mir_status status =
        mir_json_to_proto(testing_message(kinds, name), mir_view_cstr(json), &payload, &error);
    if (status == MIR_OK) fail_msg("%s was accepted", json);
    assert_string_equal(error.text, expected);
    assert_int_equal(payload.size, 4);
    mir_bytes_free(&payload);
}

static void scalars_go_both_ways(void **state)
{
    (void)state;
    expect_both("kinds.v1.Scalars",
                "f_double: 0.1 f_float: 123.33 f_int32: -2147483648 f_int64: -9223372036854775808 "
                "f_uint32: 4294967295 f_uint64: 18446744073709551615 f_sint32: -5 "
                "f_sint64: 9007199254740993 f_fixed32: 7 f_fixed64: 8 f_sfixed32: -9 "
                "f_sfixed64: -10 f_bool: true f_string: 'a\"\\\\\\n\\001\\303\\251<' "
                "f_bytes: '\\377\\376' f_mode: MODE_MANUAL far: 7",
                "{\"fDouble\":0.1,\"fFloat\":123.33,\"fInt32\":-2147483648,"
                "\"fInt64\":\"-9223372036854775808\",\"fUint32\":4294967295,"
                "\"fUint64\":\"18446744073709551615\",\"fSint32\":-5,"
                "\"fSint64\":\"9007199254740993\",\"fFixed32\":7,\"fFixed64\":\"8\","
                "\"fSfixed32\":-9,\"fSfixed64\":\"-10\",\"fBool\":true,"
                "\"fString\":\"a\\\"\\\\\\n\\u0001\xc3\xa9<\",\"fBytes\":\"//4=\","
                "\"fMode\":\"MODE_MANUAL\",\"far\":7}");
    expect_both("kinds.v1.Scalars", "f_double: nan f_float: -inf f_mode: MODE_BROKEN",
                "{\"fDouble\":\"NaN\",\"fFloat\":\"-Infinity\",\"fMode\":\"MODE_BROKEN\"}");
    expect_both("kinds.v1.Scalars", "f_double: -0.0 f_float: 1e30",
                "{\"fDouble\":-0,\"fFloat\":1e+30}");
    expect_both("kinds.v1.Scalars", "f_mode: 77", "{\"fMode\":77}");
    expect_both("kinds.v1.Scalars", "", "{}");
}

static void composites_go_both_ways(void **state)
{
    (void)state;
    expect_both("kinds.v1.Lists",
                "packed: [1, 0] loose: [-1] texts: ['', 'x'] leaves { x: 1 } leaves { } "
                "modes: [MODE_AUTO] flags: [false] blobs: ['']",
                "{\"packed\":[1,0],\"loose\":[\"-1\"],\"texts\":[\"\",\"x\"],"
                "\"leaves\":[{\"x\":1},{}],\"modes\":[\"MODE_AUTO\"],\"flags\":[false],"
                "\"blobs\":[\"\"]}");
    expect_both("kinds.v1.Maps",
                "by_text { key: 'b' value: 1 } by_text { key: 'a' } by_int { key: 5 value: 'x' } "
                "by_int { key: -5 } by_bool { key: true value: 1 } by_bool { value: 2.5 } "
                "leaves { key: 10 value { x: 3 } } leaves { key: 9 } modes { key: -1 value: 1 }",
                "{\"byText\":{\"a\":0,\"b\":1},\"byInt\":{\"-5\":\"\",\"5\":\"x\"},"
                "\"byBool\":{\"false\":2.5,\"true\":1},\"leaves\":{\"9\":{},\"10\":{\"x\":3}},"
                "\"modes\":{\"-1\":\"MODE_AUTO\"}}");
    expect_both("kinds.v1.Choice", "text: '' plain: 1", "{\"text\":\"\",\"plain\":1}");
    expect_both("kinds.v1.Choice", "leaf { y: 0 } yes: false",
                "{\"leaf\":{\"y\":0},\"yes\":false}");
    expect_both("kinds.v1.Optionals", "f_int64: 0 f_string: '' leaf { }",
                "{\"fInt64\":\"0\",\"fString\":\"\",\"leaf\":{}}");
    expect_both("kinds.v1.Tree", "left { left { value: 1 } } children { } named { key: 'k' }",
                "{\"left\":{\"left\":{\"value\":1}},\"children\":[{}],\"named\":{\"k\":{}}}");
    expect_both("kinds.v1.Names", "some_long_name: 1 custom: 2 _lead__double_: 3",
                "{\"someLongName\":1,\"@custom\":2,\"LeadDouble\":3}");
}

static void well_known_types_have_their_forms(void **state)
{
    (void)state;
    expect_both("kinds.v1.WellKnown",
                "timestamp { seconds: 1700000000 nanos: 120000000 } "
                "duration { seconds: -1 nanos: -500000 } mask { paths: 'a.b_c' paths: 'd' } "
                "empty { } w_double { value: 1.5 } w_float { } w_int64 { value: -1 } "
                "w_uint64 { value: 1 } w_int32 { value: 2 } w_uint32 { } w_bool { value: true } "
                "w_string { value: 's' } w_bytes { value: 'b' } "
                "times { key: 'k' value { seconds: -62135596800 } }",
                "{\"timestamp\":\"2023-11-14T22:13:20.120Z\",\"duration\":\"-1.000500s\","
                "\"mask\":\"a.bC,d\",\"empty\":{},\"wDouble\":1.5,\"wFloat\":0,\"wInt64\":\"-1\","
                "\"wUint64\":\"1\",\"wInt32\":2,\"wUint32\":0,\"wBool\":true,\"wString\":\"s\","
                "\"wBytes\":\"Yg==\",\"times\":{\"k\":\"0001-01-01T00:00:00Z\"}}");
    expect_both("kinds.v1.WellKnown",
                "struct { fields { key: 'a' value { list_value { values { number_value: 1 } "
                "values { null_value: 0 } values { struct_value { } } } } } } "
                "value { string_value: 'v' } list { values { bool_value: true } } "
                "values { null_value: 0 } values { number_value: 1e300 }",
                "{\"struct\":{\"a\":[1,null,{}]},\"value\":\"v\",\"list\":[true],"
                "\"values\":[null,1e+300]}");
    expect_both("kinds.v1.WellKnown", "set_null: NULL_VALUE", "{\"setNull\":null}");
    expect_both("kinds.v1.WellKnown", "value { null_value: NULL_VALUE }", "{\"value\":null}");
    expect_read("kinds.v1.WellKnown", "{\"timestamp\":\"2024-02-29T12:00:00.5+01:30\"}",
                "{\"timestamp\":\"2024-02-29T10:30:00.500Z\"}");
    expect_read("kinds.v1.WellKnown", "{\"duration\":\"+1.5s\",\"mask\":\"\"}",
                "{\"duration\":\"1.500s\",\"mask\":\"\"}");
    static const char *const bad_times[] = {"2023-02-29T00:00:00Z",
                                            "2024-01-01T00:00:00",
                                            "2024-01-01 00:00:00Z",
                                            "2024-13-01T00:00:00Z",
                                            "0000-01-01T00:00:00Z",
                                            "2024-01-01T24:00:00Z",
                                            "2024-01-01T00:00:00.1234567890Z",
                                            ""};
    for (size_t i = 0; i < sizeof bad_times / sizeof *bad_times; i++) {
        char json[80], expected[160];
        (void)snprintf(json, sizeof json, "{\"timestamp\":\"%s\"}", bad_times[i]);
        (void)snprintf(expected, sizeof expected,
                       "(line 1:14): invalid google.protobuf.Timestamp value \"%s\"", bad_times[i]);
        expect_refused("kinds.v1.WellKnown", json, expected);
    }
    expect_refused("kinds.v1.WellKnown", "{\"duration\":\"1\"}",
                   "(line 1:13): invalid google.protobuf.Duration value \"1\"");
    expect_refused("kinds.v1.WellKnown", "{\"any\":{\"@type\":\"x\"}}",
                   "google.protobuf.Any is not supported in JSON");
    expect_refused("kinds.v1.WellKnown", "{\"struct\":{\"a\":1,\"\\u0061\":2}}",
                   "(line 1:29): duplicate map key \"a\"");
}

static void lenient_forms_are_accepted(void **state)
{
    (void)state;
    expect_read("kinds.v1.Scalars",
                " { \"f_int32\" : \"1e2\" , \"f_int64\":1.0,\"f_uint64\":18446744073709551615,"
                "\"f_double\":\"1.5\",\"fFloat\":2,\"fMode\":2,\"fBytes\":\"_-8\",\"far\":100e-1,"
                "\"fSint32\":null,\"fFixed32\":0} ",
                "{\"fDouble\":1.5,\"fFloat\":2,\"fInt32\":100,\"fInt64\":\"1\","
                "\"fUint64\":\"18446744073709551615\",\"fBytes\":\"/+8=\",\"fMode\":"
                "\"MODE_MANUAL\",\"far\":10}");
    expect_read("kinds.v1.Scalars", "{\"fString\":\"\\u00e9\\ud83d\\ude00\\/\\b\"}",
                "{\"fString\":\"\xc3\xa9\xf0\x9f\x98\x80/\\b\"}");
    expect_read("kinds.v1.Choice", "{\"number\":null,\"text\":\"t\"}", "{\"text\":\"t\"}");
    expect_read("kinds.v1.Lists", "{\"packed\":[],\"leaves\":null}", "{}");
}

static void bad_input_is_refused_with_a_reason(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"Leaf", "{\"foo\":1}", "(line 1:2): unknown field \"foo\" in kinds.v1.Leaf"},
        {"Leaf", "{\n \"x\":1,\n \"x\":2}", "(line 3:2): duplicate field \"x\" in kinds.v1.Leaf"},
        {"Names", "{\"someLongName\":1,\"some_long_name\":1}",
         "(line 1:19): duplicate field \"some_long_name\" in kinds.v1.Names"},
        {"Leaf", "{\"x\":1.5}",
         "(line 1:6): invalid value for int32 field x in kinds.v1.Leaf: 1.5"},
        {"Leaf", "{\"x\":2147483648}",
         "(line 1:6): invalid value for int32 field x in kinds.v1.Leaf: 2147483648"},
        {"Leaf", "{\"x\":\" 1\"}",
         "(line 1:6): invalid value for int32 field x in kinds.v1.Leaf: \" 1\""},
        {"Leaf", "{\"x\":1e999999999999}",
         "(line 1:6): invalid value for int32 field x in kinds.v1.Leaf: 1e999999999999"},
        {"Leaf", "{\"x\":true}", "(line 1:6): syntax error: unexpected token true"},
        {"Leaf", "{\"x\":01}", "(line 1:7): syntax error: unexpected token 1"},
        {"Leaf", "{\"name\":1}", "(line 1:9): syntax error: unexpected token 1"},
        {"Leaf", "{\"name\":\"\\ud800\"}", "(line 1:10): syntax error: invalid escape in a string"},
        {"Leaf", "{\"name\":\"a", "(line 1:9): syntax error: a string does not end"},
        {"Leaf", "{\"x\":1,}", "(line 1:8): syntax error: unexpected token }"},
        {"Leaf", "{\"x\":1", "(line 1:7): syntax error: unexpected end of text"},
        {"Leaf", "{\"x\":1}}", "(line 1:8): syntax error: text behind the value"},
        {"Leaf", "", "(line 1:1): syntax error: unexpected end of text"},
        {"Leaf", "null", "(line 1:1): syntax error: unexpected token null"},
        {"Leaf", "[]", "(line 1:1): syntax error: unexpected token ["},
        {"Scalars", "{\"fUint32\":-1}",
         "(line 1:12): invalid value for uint32 field f_uint32 in kinds.v1.Scalars: -1"},
        {"Scalars", "{\"fUint64\":18446744073709551616}",
         "(line 1:12): invalid value for uint64 field f_uint64 in kinds.v1.Scalars: "
         "18446744073709551616"},
        {"Scalars", "{\"fMode\":\"MODE_X\"}",
         "(line 1:10): invalid value for enum field f_mode in kinds.v1.Scalars: \"MODE_X\""},
        {"Scalars", "{\"fBytes\":\"a\"}",
         "(line 1:11): invalid value for bytes field f_bytes in kinds.v1.Scalars: \"a\""},
        {"Scalars", "{\"fDouble\":1e400}",
         "(line 1:12): invalid value for double field f_double in kinds.v1.Scalars: 1e400"},
        {"Scalars", "{\"fFloat\":1e39}",
         "(line 1:11): invalid value for float field f_float in kinds.v1.Scalars: 1e39"},
        {"Lists", "{\"packed\":[null]}", "(line 1:12): syntax error: unexpected token null"},
        {"Lists", "{\"packed\":1}", "(line 1:11): syntax error: unexpected token 1"},
        {"Maps", "{\"byInt\":{\"1.0\":\"\"}}",
         "(line 1:11): invalid key \"1.0\" of map field by_int in kinds.v1.Maps"},
        {"Maps", "{\"byBool\":{\"1\":1}}",
         "(line 1:12): invalid key \"1\" of map field by_bool in kinds.v1.Maps"},
        {"Maps", "{\"byText\":{\"a\":1,\"a\":1}}", "(line 1:24): duplicate map key \"a\""},
        {"Choice", "{\"number\":1,\"text\":\"\"}",
         "(line 1:13): field \"text\" in kinds.v1.Choice: oneof value is already set"},
        {"Leaf", "{\"name\":\"\xff\"}", "syntax error: the text is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "kinds.v1.%s", cases[i][0]);
        expect_refused(name, cases[i][1], cases[i][2]);
    }
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    mir_bytes json = {0}, payload = {0};
    mir_error error = {0};
    const mir_schema_message *tree = testing_message(kinds, "kinds.v1.Tree");
    for (int i = 0; i < 70; i++) mir_bytes_text(&json, "{\"left\":");
    assert_int_equal(mir_json_to_proto(tree, mir_bytes_as_view(&json), &payload, &error),
                     MIR_E_TOO_LARGE);
    mir_bytes_free(&json);
    mir_bytes_text(&json, "{\"value\":");
    for (int i = 0; i < 100000; i++) mir_bytes_u8(&json, '[');
    assert_int_equal(mir_json_to_proto(testing_message(kinds, "kinds.v1.WellKnown"),
                                       mir_bytes_as_view(&json), &payload, &error),
                     MIR_E_TOO_LARGE);
    mir_bytes_free(&json);
    for (int i = 0; i < 70; i++) {
        mir_bytes outer = {0};
        mir_pbwire_put_bytes(&outer, 2, mir_bytes_as_view(&payload));
        mir_bytes_free(&payload);
        payload = outer;
    }
    assert_int_equal(mir_json_from_proto(tree, mir_bytes_as_view(&payload),
                                         MIR_JSON_DEFAULTS_OMITTED, &json, &error),
                     MIR_E_TOO_LARGE);
    assert_int_equal(json.size, 0);
    mir_bytes_free(&payload);
    mir_bytes_free(&json);
}

static void defaults_are_emitted_when_asked_for(void **state)
{
    (void)state;
    expect_out("kinds.v1.Choice", (mir_view){NULL, 0}, MIR_JSON_DEFAULTS_EMITTED, "{\"plain\":0}");
    expect_out("kinds.v1.Optionals", (mir_view){NULL, 0}, MIR_JSON_DEFAULTS_EMITTED, "{}");
    expect_out("kinds.v1.Tree", MIR_VIEW_LITERAL("\x12\x00"), MIR_JSON_DEFAULTS_EMITTED,
               "{\"value\":0,\"left\":{\"value\":0,\"children\":[],\"named\":{}},\"children\":[],"
               "\"named\":{}}");
    expect_out(
        "kinds.v1.Scalars", (mir_view){NULL, 0}, MIR_JSON_DEFAULTS_EMITTED,
        "{\"fDouble\":0,\"fFloat\":0,\"fInt32\":0,\"fInt64\":\"0\",\"fUint32\":0,"
        "\"fUint64\":\"0\",\"fSint32\":0,\"fSint64\":\"0\",\"fFixed32\":0,\"fFixed64\":\"0\","
        "\"fSfixed32\":0,\"fSfixed64\":\"0\",\"fBool\":false,\"fString\":\"\","
        "\"fBytes\":\"\",\"fMode\":\"MODE_UNSPECIFIED\",\"far\":0}");
}

static void parts_merge_and_the_last_member_counts(void **state)
{
    (void)state;
    /* left { value 1 } left { children {} }; then number, leaf, leaf of a oneof. */
    expect_out("kinds.v1.Tree",
               MIR_VIEW_LITERAL("\x12\x02\x08\x01\x12\x02\x1a\x00\x08\x05\x08\x06"),
               MIR_JSON_DEFAULTS_OMITTED, "{\"value\":6,\"left\":{\"value\":1,\"children\":[{}]}}");
    expect_out("kinds.v1.Choice",
               MIR_VIEW_LITERAL("\x1a\x02\x08\x01\x08\x07\x1a\x02\x10\x02\x1a\x00\x28\x03"),
               MIR_JSON_DEFAULTS_OMITTED, "{\"leaf\":{\"y\":2},\"plain\":3}");
    expect_out("kinds.v1.Lists", MIR_VIEW_LITERAL("\x08\x01\x0a\x02\x02\x03\x12\x01\x01\x10\x02"),
               MIR_JSON_DEFAULTS_OMITTED, "{\"packed\":[1,2,3],\"loose\":[\"-1\",\"1\"]}");
}

static void empty_parts_are_not_values(void **state)
{
    (void)state;
    /* A packed list of nothing, and bits above those of an int32. */
    expect_out("kinds.v1.Lists", MIR_VIEW_LITERAL("\x0a\x00"), MIR_JSON_DEFAULTS_OMITTED, "{}");
    expect_out("kinds.v1.Leaf", MIR_VIEW_LITERAL("\x08\x80\x80\x80\x80\x10"),
               MIR_JSON_DEFAULTS_OMITTED, "{}");
}

static void payloads_are_checked(void **state)
{
    (void)state;
    mir_error error = {0};
    const mir_schema_message *outer = testing_message(kinds, "kinds.v1.Lists");
    assert_int_equal(mir_json_check_proto(outer, MIR_VIEW_LITERAL("\x22\x02\x08\x01"), &error),
                     MIR_OK);
    assert_int_equal(mir_json_check_proto(outer, MIR_VIEW_LITERAL("\x22\x02\x08"), &error),
                     MIR_E_INVALID);
    assert_int_equal(mir_json_check_proto(outer, MIR_VIEW_LITERAL("\x22\x01\x08"), &error),
                     MIR_E_INVALID);
    assert_string_equal(error.text,
                        "proto: cannot parse invalid wire-format data of kinds.v1.Leaf");
    assert_int_equal(mir_json_check_proto(outer, MIR_VIEW_LITERAL("\x1a\x01\xff"), &error),
                     MIR_E_INVALID);
    assert_string_equal(error.text, "proto: field kinds.v1.Lists.texts contains invalid UTF-8");
    mir_schema *legacy = testing_load(SET("legacy"));
    const mir_schema_message *old = testing_message(legacy, "legacy.v1.Old");
    assert_int_equal(mir_json_check_proto(old, (mir_view){NULL, 0}, &error), MIR_E_INVALID);
    assert_string_equal(error.text, "proto: required field legacy.v1.Old.id not set");
    mir_bytes payload = {0};
    assert_int_equal(mir_json_to_proto(old, MIR_VIEW_LITERAL("{}"), &payload, &error),
                     MIR_E_INVALID);
    assert_string_equal(error.text, "(line 1:1): required field legacy.v1.Old.id not set");
    assert_int_equal(mir_json_to_proto(old, MIR_VIEW_LITERAL("{\"id\":0}"), &payload, &error),
                     MIR_OK);
    assert_int_equal(payload.size, 2);
    mir_bytes_free(&payload);
    mir_schema_unref(legacy);
}

static void expect_template(const char *name, mir_json_template_form form, const char *expected)
{
    mir_bytes text = {0};
    mir_error error = {0};
    if (mir_json_template(testing_message(kinds, name), form, &text, &error) != MIR_OK) {
        fail_msg("%s", error.text);
    }
    expect_text(&text, expected);
}

static void templates_show_the_shape(void **state)
{
    (void)state;
    expect_template("kinds.v1.Scalars", MIR_JSON_TEMPLATE_SAMPLES,
                    "{\"fDouble\":0.0,\"fFloat\":0.0,\"fInt32\":0,\"fInt64\":0,\"fUint32\":0,"
                    "\"fUint64\":0,\"fSint32\":0,\"fSint64\":0,\"fFixed32\":0,\"fFixed64\":0,"
                    "\"fSfixed32\":0,\"fSfixed64\":0,\"fBool\":false,\"fString\":\"\","
                    "\"fBytes\":[0, 255],"
                    "\"fMode\":\"MODE_UNSPECIFIED|MODE_AUTO|MODE_MANUAL|MODE_BROKEN\",\"far\":0}");
    expect_template("kinds.v1.Maps", MIR_JSON_TEMPLATE_SAMPLES,
                    "{\"byText\":{\"string\":0},\"byInt\":{\"0\":\"\"},\"byBool\":{\"0\":0.0},"
                    "\"leaves\":{\"0\":{\"x\":0,\"y\":0,\"name\":\"\"}},"
                    "\"modes\":{\"0\":\"MODE_UNSPECIFIED|MODE_AUTO|MODE_MANUAL|MODE_BROKEN\"},"
                    "\"blobs\":{\"string\":[0, 255]}}");
    expect_template("kinds.v1.Maps", MIR_JSON_TEMPLATE_DEFAULTS,
                    "{\"byText\":{},\"byInt\":{},\"byBool\":{},\"leaves\":{},\"modes\":{},"
                    "\"blobs\":{}}");
    expect_template("kinds.v1.Tree", MIR_JSON_TEMPLATE_SAMPLES,
                    "{\"value\":0,\"left\":{},\"children\":[{}],\"named\":{\"string\":{}}}");
    expect_template("kinds.v1.Tree", MIR_JSON_TEMPLATE_DEFAULTS,
                    "{\"value\":0,\"left\":{},\"children\":[],\"named\":{}}");
    expect_template("kinds.v1.Nothing", MIR_JSON_TEMPLATE_SAMPLES, "{}");
    mir_schema *legacy = testing_load(SET("legacy"));
    mir_bytes text = {0};
    mir_error error = {0};
    assert_int_equal(mir_json_template(testing_message(legacy, "legacy.v1.Old"),
                                       MIR_JSON_TEMPLATE_SAMPLES, &text, &error),
                     MIR_E_UNSUPPORTED);
    assert_string_equal(error.text, "unsupported field kind: group");
    assert_int_equal(text.size, 0);
    mir_bytes_free(&text);
    mir_schema_unref(legacy);
}

static void generic_json_is_canonical(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{ \"b\" : [1, 2.0, 24.50], \"a\" : {\"\": null} }",
         "{\"a\":{\"\":null},\"b\":[1,2,24.5]}"},
        {"[0.000001, 0.0000001, 1e20, 1e21, -0.0, 123456789012345678]",
         "[0.000001,1e-7,100000000000000000000,1e+21,-0,123456789012345680]"},
        {"[5e-324, 1.7976931348623157e308, 0.1, 0.30000000000000004, 100]",
         "[5e-324,1.7976931348623157e+308,0.1,0.30000000000000004,100]"},
        {"\"<a>&\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\x9c\\u0000\\u001f\"",
         "\"\\u003ca\\u003e\\u0026\\u2028\\u2029\xe2\x80\x9c\\u0000\\u001f\""},
        {"{\"a\":1,\"B\":2,\"A\":3,\"\xc3\xa9\":4}", "{\"A\":3,\"B\":2,\"a\":1,\"\xc3\xa9\":4}"},
        {"true", "true"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mir_bytes text = {0};
        mir_error error = {0};
        if (mir_json_generic_text(mir_view_cstr(cases[i][0]), &text, &error) != MIR_OK) {
            fail_msg("%s", error.text);
        }
        expect_text(&text, cases[i][1]);
    }
    mir_bytes text = {0};
    mir_error error = {0};
    assert_int_equal(mir_json_generic_text(MIR_VIEW_LITERAL("{\"a\":}"), &text, &error),
                     MIR_E_INVALID);
    assert_int_equal(mir_json_generic_text((mir_view){NULL, 0}, &text, &error), MIR_E_INVALID);
    mir_bytes_free(&text);
}

static void numbers_read_back_as_themselves(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        double wide;
        float narrow;
        uint32_t half = (uint32_t)random;
        memcpy(&wide, &random, sizeof wide);
        memcpy(&narrow, &half, sizeof narrow);
        mir_bytes text = {0};
        if (wide - wide == 0) {
            mir_json_put_number(&text, wide, false);
            mir_bytes_u8(&text, 0);
            assert_true(strtod((const char *)text.data, NULL) == wide);
        }
        text.size = 0;
        if (narrow - narrow == 0) {
            mir_json_put_number(&text, (double)narrow, true);
            mir_bytes_u8(&text, 0);
            assert_true(strtof((const char *)text.data, NULL) == narrow);
        }
        mir_bytes_free(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_go_both_ways),
        cmocka_unit_test(composites_go_both_ways),
        cmocka_unit_test(well_known_types_have_their_forms),
        cmocka_unit_test(lenient_forms_are_accepted),
        cmocka_unit_test(bad_input_is_refused_with_a_reason),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(defaults_are_emitted_when_asked_for),
        cmocka_unit_test(parts_merge_and_the_last_member_counts),
        cmocka_unit_test(empty_parts_are_not_values),
        cmocka_unit_test(payloads_are_checked),
        cmocka_unit_test(templates_show_the_shape),
        cmocka_unit_test(generic_json_is_canonical),
        cmocka_unit_test(numbers_read_back_as_themselves),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
