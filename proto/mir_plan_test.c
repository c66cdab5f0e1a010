/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_plan.h"

#include <inttypes.h>
#include <pthread.h>

#include "mir_schema_testing.h"

enum { RECEIVED_NS = 77 };

static mir_schema *kinds;
static mir_row row;

static int set_up(void **state)
{
    (void)state;
    kinds = testing_load(SET("kinds"));
    return mir_row_init(&row, MIR_ROW_COLUMNS_MAX_DEFAULT, 64, 8192) == MIR_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    mir_row_fini(&row);
    mir_schema_unref(kinds);
    return 0;
}

static mir_plan *compile(const char *name)
{
    mir_plan *plan = NULL;
    mir_error error = {0};
    if (mir_plan_compile(kinds, testing_message(kinds, name), &plan, &error) != MIR_OK) {
        fail_msg("%s", error.text);
    }
    return plan;
}

static void put_value(mir_bytes *text, mir_view name, mir_column_type type, const mir_cell *value)
{
    if (text->size != 0) mir_bytes_text(text, " ");
    mir_bytes_view(text, name);
    switch (type) {
    case MIR_COLUMN_I64: mir_bytes_printf(text, "=%" PRId64, value->i64); break;
    case MIR_COLUMN_U64: mir_bytes_printf(text, "=%" PRIu64 "u", value->u64); break;
    case MIR_COLUMN_F64: mir_bytes_printf(text, "=%.17g", value->f64); break;
    case MIR_COLUMN_BOOL: mir_bytes_text(text, value->boolean ? "=true" : "=false"); break;
    case MIR_COLUMN_STRING: mir_bytes_printf(text, "='%.*s'", MIR_VIEW_ARGS(value->string)); break;
    }
}

/* The present columns, then the dynamic cells. */
static mir_bytes row_text(const mir_plan *plan)
{
    mir_bytes text = {0};
    uint32_t count = 0;
    const mir_column *columns = mir_plan_columns(plan, &count);
    assert_int_equal(count, row.column_count);
    for (uint32_t i = 0; i < count; i++) {
        if (!mir_row_is_present(&row, i)) continue;
        put_value(&text, mir_view_of(columns[i].name, columns[i].name_size), columns[i].type,
                  &row.cells[i]);
    }
    for (uint32_t i = 0; i < row.dynamic_count; i++) {
        put_value(&text, row.dynamic[i].name, row.dynamic[i].type, &row.dynamic[i].value);
    }
    mir_bytes_u8(&text, 0);
    return text;
}

static void expect_bytes(const char *message, mir_view payload, const char *expected)
{
    mir_plan *plan = compile(message);
    mir_status status = mir_plan_decode(plan, payload, RECEIVED_NS, &row);
    if (status != MIR_OK) fail_msg("%s", mir_status_name(status));
    mir_bytes text = row_text(plan);
    assert_string_equal((const char *)text.data, expected);
    mir_bytes_free(&text);
    mir_plan_unref(plan);
}

/* What protoc encodes of each text, one behind the other, as one payload. */
static mir_bytes encode_all(const char *message, const char *first, const char *second)
{
    mir_bytes payload = testing_encode(SET("kinds"), message, first);
    if (second != NULL) {
        mir_bytes more = testing_encode(SET("kinds"), message, second);
        mir_bytes_view(&payload, mir_bytes_as_view(&more));
        mir_bytes_free(&more);
    }
    return payload;
}

static void expect(const char *message, const char *first, const char *second, const char *expected)
{
    mir_bytes payload = encode_all(message, first, second);
    expect_bytes(message, mir_bytes_as_view(&payload), expected);
    mir_bytes_free(&payload);
}

static void expect_status(const char *message, mir_view payload, mir_status expected)
{
    mir_plan *plan = compile(message);
    assert_int_equal(mir_plan_decode(plan, payload, RECEIVED_NS, &row), expected);
    mir_plan_unref(plan);
}

static void sample_telemetry_becomes_a_row(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("environment"));
    const char *name = "environment.v1.EnvironmentTlm";
    mir_plan *plan = NULL;
    assert_int_equal(mir_plan_compile(schema, testing_message(schema, name), &plan, NULL), MIR_OK);
    mir_schema_unref(schema);
    mir_bytes payload = testing_encode(SET("environment"), name,
                                       "ts { seconds: 1700000000 nanos: 123456789 } "
                                       "temperature: -21 pressure: 1013 wind_speed: 2147483647");
    assert_int_equal(mir_plan_decode(plan, mir_bytes_as_view(&payload), RECEIVED_NS, &row), MIR_OK);
    assert_true(row.time_ns == INT64_C(1700000000123456789));
    mir_bytes text = row_text(plan);
    assert_string_equal((const char *)text.data,
                        "temperature=-21 pressure=1013 humidity=0 wind_speed=2147483647");
    mir_bytes_free(&text);
    mir_bytes_free(&payload);
    mir_plan *again = mir_plan_ref(plan);
    mir_plan_unref(plan);
    mir_plan_unref(again);
    mir_plan_unref(NULL);
}

static void every_scalar_is_decoded(void **state)
{
    (void)state;
    expect("kinds.v1.Scalars",
           "f_double: 0.1 f_float: 1.5 f_int32: -2147483648 f_int64: -9223372036854775808 "
           "f_uint32: 4294967295 f_uint64: 18446744073709551615 f_sint32: -2147483648 "
           "f_sint64: -9223372036854775808 f_fixed32: 4294967295 f_fixed64: 18446744073709551615 "
           "f_sfixed32: -1 f_sfixed64: -2 f_bool: true f_string: 'a\"b' f_bytes: '\\000\\377x' "
           "f_mode: MODE_MANUAL far: 7",
           NULL,
           "f_double=0.10000000000000001 f_float=1.5 f_int32=-2147483648 "
           "f_int64=-9223372036854775808 f_uint32=4294967295u f_uint64=18446744073709551615u "
           "f_sint32=-2147483648 f_sint64=-9223372036854775808 f_fixed32=4294967295u "
           "f_fixed64=18446744073709551615u f_sfixed32=-1 f_sfixed64=-2 f_bool=true "
           "f_string='a\"b' f_bytes='AP94' f_mode=2u far=7");
    expect("kinds.v1.Scalars",
           "f_double: nan f_float: -inf f_bytes: 'a' f_int64: 9223372036854775807 f_sint64: 300 "
           "f_uint32: 16383 f_uint64: 16384 f_int32: 2097151 far: -1",
           NULL,
           "f_double=nan f_float=-inf f_int32=2097151 f_int64=9223372036854775807 f_uint32=16383u "
           "f_uint64=16384u f_sint32=0 f_sint64=300 f_fixed32=0u f_fixed64=0u f_sfixed32=0 "
           "f_sfixed64=0 f_bool=false f_string='' f_bytes='YQ==' f_mode=0u far=-1");
}

static void varints_of_every_length_are_read(void **state)
{
    (void)state;
    mir_plan *plan = compile("kinds.v1.Scalars");
    for (unsigned bits = 0; bits <= 64; bits++) {
        uint64_t value = bits == 0 ? 0 : UINT64_MAX >> (64 - bits);
        for (unsigned tail = 0; tail < 12; tail++) {
            mir_bytes payload = {0};
            mir_pbwire_put_varint(&payload, mir_pbwire_make_tag(6, MIR_PBWIRE_VARINT));
            mir_pbwire_put_varint(&payload, value);
            for (unsigned i = 0; i < tail / 2; i++) mir_bytes_append(&payload, "\x18\x01", 2);
            assert_int_equal(mir_plan_decode(plan, mir_bytes_as_view(&payload), 1, &row), MIR_OK);
            assert_true(row.cells[5].u64 == value);
            assert_int_equal(row.cells[2].i64, tail >= 2);
            mir_bytes_free(&payload);
        }
    }
    mir_plan_unref(plan);
}

static void presence_follows_the_declaration(void **state)
{
    (void)state;
    expect("kinds.v1.Optionals", "", NULL, "leaf.x=0 leaf.name=''");
    expect("kinds.v1.Optionals",
           "f_double: 0 f_int64: 0 f_bool: false f_string: '' f_mode: MODE_UNSPECIFIED "
           "f_bytes: '' leaf { y: 0 }",
           NULL,
           "f_double=0 f_int64=0 f_bool=false f_string='' f_mode=0u f_bytes='' leaf.x=0 leaf.y=0 "
           "leaf.name=''");
    expect("kinds.v1.Outer", "", NULL,
           "inner.deep.value=0 inner.count=0 after=0 other.deep.value=0 other.count=0");
}

static void negative_enum_numbers_are_left_out(void **state)
{
    (void)state;
    expect("kinds.v1.Optionals", "f_mode: MODE_BROKEN", NULL, "leaf.x=0 leaf.name=''");
    expect("kinds.v1.Lists", "modes: [MODE_AUTO, MODE_BROKEN, MODE_MANUAL]", NULL,
           "modes_0=1u modes_2=2u");
    expect("kinds.v1.Maps", "modes { key: 1 value: MODE_BROKEN }", "modes { key: -2 }",
           "modes_-2=0u");
}

static void lists_are_numbered(void **state)
{
    (void)state;
    expect("kinds.v1.Lists",
           "packed: [1, -2, 300] loose: [-1, 5] texts: ['a', ''] doubles: [0.5] flags: [true, "
           "false] blobs: ['\\001'] leaves { x: 1 } leaves { y: 2 name: 'n' }",
           NULL,
           "packed_0=1 packed_1=-2 packed_2=300 loose_0=-1 loose_1=5 texts_0='a' texts_1='' "
           "leaves_0.x=1 leaves_0.name='' leaves_1.x=0 leaves_1.y=2 leaves_1.name='n' "
           "doubles_0=0.5 flags_0=true flags_1=false blobs_0='AQ=='");
    /* The numbering goes on in a later part of the payload. */
    expect("kinds.v1.Lists", "packed: [1, 2] leaves { x: 5 }", "packed: [3] leaves { x: 6 }",
           "packed_0=1 packed_1=2 leaves_0.x=5 leaves_0.name='' packed_2=3 leaves_1.x=6 "
           "leaves_1.name=''");
    /* Packed though declared otherwise, and not packed though declared so. */
    expect_bytes("kinds.v1.Lists", MIR_VIEW_LITERAL("\x08\x07\x08\x09\x12\x02\x01\x02"),
                 "packed_0=7 packed_1=9 loose_0=-1 loose_1=1");
}

static void maps_are_named_by_their_keys(void **state)
{
    (void)state;
    /* protoc writes the entries of one map in any order, so each map has one here. */
    expect("kinds.v1.Maps",
           "by_text { key: 'a b' value: 1 } by_int { key: -5 value: 'x' } "
           "by_bool { key: true value: 1.5 } leaves { key: 18446744073709551615 value { x: 3 } } "
           "modes { key: -1 value: MODE_AUTO } blobs { key: 'b' value: 'abc' }",
           "by_text { } by_int { } by_bool { } leaves { key: 1 } modes { } blobs { }",
           "by_text_a b=1 by_int_-5='x' by_bool_true=1.5 leaves_18446744073709551615.x=3 "
           "leaves_18446744073709551615.name='' modes_-1=1u blobs_b='YWJj' by_text_=0 by_int_0='' "
           "by_bool_false=0 leaves_1.x=0 leaves_1.name='' modes_0=0u blobs_=''");
    expect("kinds.v1.Maps", "by_text { key: 'k' value: 1 }", "by_text { key: 'k' value: 2 }",
           "by_text_k=1 by_text_k=2");
    /* The value before the key, in two parts that merge. */
    expect_bytes("kinds.v1.Maps",
                 MIR_VIEW_LITERAL("\x22\x0a\x12\x02\x08\x05\x12\x02\x10\x06\x08\x09"),
                 "leaves_9.x=5 leaves_9.y=6 leaves_9.name=''");
}

static void nested_lists_are_named_through(void **state)
{
    (void)state;
    expect("kinds.v1.Outer",
           "inner { deep { value: 1 } more { value: 2 } named { key: 'n' value { value: 3 } } } "
           "inners { count: 4 more { value: 5 } more { value: 6 } named { key: 'm' } }",
           NULL,
           "inner.deep.value=1 inner.count=0 after=0 other.deep.value=0 other.count=0 "
           "inner.more_0.value=2 inner.named_n.value=3 inners_0.more_0.value=5 "
           "inners_0.more_1.value=6 inners_0.named_m.value=0 inners_0.deep.value=0 "
           "inners_0.count=4");
}

static void later_values_win_and_messages_merge(void **state)
{
    (void)state;
    expect("kinds.v1.Outer", "inner { count: 1 deep { value: 2 } } after: 3",
           "inner { deep { value: 4 } } after: 5",
           "inner.deep.value=4 inner.count=1 after=5 other.deep.value=0 other.count=0");
}

static void one_member_of_a_oneof_is_set(void **state)
{
    (void)state;
    const char *unset = "leaf.x=0 leaf.name='' plain=0";
    expect("kinds.v1.Choice", "", NULL, unset);
    expect("kinds.v1.Choice", "number: 1", "text: 't'", "text='t' leaf.x=0 leaf.name='' plain=0");
    expect("kinds.v1.Choice", "leaf { x: 1 y: 2 name: 'n' } yes: true", "number: 0 mode: MODE_AUTO",
           "number=0 leaf.x=0 leaf.name='' plain=0 mode=1u");
    expect("kinds.v1.Choice", "leaf { x: 1 }", "leaf { y: 2 }",
           "leaf.x=1 leaf.y=2 leaf.name='' plain=0");
    expect("kinds.v1.Choice", "lists { packed: [1, 2] leaves { x: 3 } }", "text: 'now'",
           "text='now' leaf.x=0 leaf.name='' plain=0");
    expect("kinds.v1.Choice", "lists { packed: [1, 2] }", "lists { packed: [3] }",
           "leaf.x=0 leaf.name='' plain=0 lists.packed_0=1 lists.packed_1=2 lists.packed_2=3");
}

static void recursion_is_cut(void **state)
{
    (void)state;
    expect("kinds.v1.Tree", "value: 1 left { value: 2 } children { value: 3 }", NULL, "value=1");
}

static void empty_rows_are_told(void **state)
{
    (void)state;
    expect_status("kinds.v1.Nothing", (mir_view){NULL, 0}, MIR_E_EMPTY);
    expect_status("kinds.v1.Nothing", MIR_VIEW_LITERAL("\x08\x01"), MIR_E_EMPTY);
    expect_status("kinds.v1.Lists", (mir_view){NULL, 0}, MIR_E_EMPTY);
    expect_status("kinds.v1.Maps", (mir_view){NULL, 0}, MIR_E_EMPTY);
}

static void expect_time(const char *message, const char *text, int64_t expected_ns)
{
    mir_bytes payload = testing_encode(SET("kinds"), message, text);
    mir_plan *plan = compile(message);
    assert_int_equal(mir_plan_decode(plan, mir_bytes_as_view(&payload), RECEIVED_NS, &row), MIR_OK);
    if (row.time_ns != expected_ns) {
        fail_msg("%s { %s }: %" PRId64 " instead of %" PRId64, message, text, row.time_ns,
                 expected_ns);
    }
    mir_plan_unref(plan);
    mir_bytes_free(&payload);
}

static void time_comes_from_the_annotated_field(void **state)
{
    (void)state;
    expect_time("kinds.v1.TimeSec", "ts: 5 second: 9", INT64_C(5000000000));
    expect_time("kinds.v1.TimeSec", "ts: -5", INT64_C(-5000000000));
    expect_time("kinds.v1.TimeMilli", "ts: 5", 5000000);
    expect_time("kinds.v1.TimeMicro", "ts: 5", 5000);
    expect_time("kinds.v1.TimeNano", "ts: 1700000000123456789", INT64_C(1700000000123456789));
    expect_time("kinds.v1.TimeFraction", "ts { seconds: 2 nanos: 3 }", INT64_C(2000000003));
    expect_time("kinds.v1.TimeFraction", "ts { nanos: 3 }", 3);
    expect("kinds.v1.TimeSec", "before: 1 ts: 5 second: 9", NULL, "before=1 second=9");
    expect("kinds.v1.TimeFraction", "ts { seconds: 5 } value: 9", NULL, "value=9");
}

static void receive_time_stands_in(void **state)
{
    (void)state;
    expect_time("kinds.v1.TimeSec", "before: 1", RECEIVED_NS);
    expect_time("kinds.v1.TimeSec", "ts: 0", RECEIVED_NS);
    expect_time("kinds.v1.TimeSec", "ts: 9223372036854775807", RECEIVED_NS);
    expect_time("kinds.v1.TimeMilli", "ts: 18446744073709551615", RECEIVED_NS);
    expect_time("kinds.v1.TimeFraction", "ts { }", RECEIVED_NS);
    expect_time("kinds.v1.TimeFraction", "ts { seconds: 9223372036 nanos: 999999999 }",
                RECEIVED_NS);
    expect_time("kinds.v1.Scalars", "f_int64: 5", RECEIVED_NS);
    /* Not telemetry, or of a type that is no time: ordinary data. */
    expect_time("kinds.v1.TimeOfCommand", "ts: 5", RECEIVED_NS);
    expect("kinds.v1.TimeOfCommand", "ts: 5", NULL, "ts=5");
    expect("kinds.v1.TimeUnusable", "ts: 'noon'", NULL, "ts='noon'");
}

static void unknown_fields_are_passed_over(void **state)
{
    (void)state;
    /* A varint, both fixed, bytes, a group with a group inside, a known number of another type. */
    expect_bytes("kinds.v1.TimeNano",
                 MIR_VIEW_LITERAL("\xf8\x01\x05"
                                  "\xf9\x01"
                                  "12345678"
                                  "\xfd\x01"
                                  "1234"
                                  "\xfa\x01\x03"
                                  "abc"
                                  "\xfb\x01\x08\x01\x0b\x08\x01\x0c\xfc\x01"
                                  "\x12\x01x"
                                  "\x18\x2a"),
                 "a=0 b=42 c=0 d=0");
}

static void malformed_payloads_are_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "\x10",                                         /* no value */
        "\x10\x80",                                     /* half a varint */
        "\x06\x01",                                     /* wire type 6 */
        "\x01\x01",                                     /* number 0 */
        "\x14",                                         /* the end of a group that never began */
        "\x13\x10\x01",                                 /* a group that never ends */
        "\xf8",                                         /* half a tag */
        "\xfa\x01\x05zz",                               /* bytes that are not there */
        "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", /* more than 64 bits */
        "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_status("kinds.v1.TimeNano", mir_view_cstr(cases[i]), MIR_E_INVALID);
    }
    expect_status("kinds.v1.TimeFraction", MIR_VIEW_LITERAL("\x0a\x01\x08"), MIR_E_INVALID);
    expect_status("kinds.v1.Lists", MIR_VIEW_LITERAL("\x0a\x02\x01\x80"), MIR_E_INVALID);
    expect_status("kinds.v1.Lists", MIR_VIEW_LITERAL("\x2a\x03xyz"), MIR_E_INVALID);
    expect_status("kinds.v1.Maps", MIR_VIEW_LITERAL("\x0a\x01\x0a"), MIR_E_INVALID);
}

static void every_cut_is_survived(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"kinds.v1.Scalars", "f_double: 1 f_float: 2 f_int64: -1 f_string: 'abc' f_bytes: 'xyz' "
                             "f_fixed32: 1 f_sfixed64: 5 f_mode: MODE_AUTO far: 77"},
        {"kinds.v1.Lists", "packed: [1, 2, 300] texts: 'abc' leaves { x: 1 y: 2 name: 'n' }"},
        {"kinds.v1.Maps", "by_text { key: 'abc' value: 1 } leaves { key: 4 value { x: 3 } }"},
        {"kinds.v1.Outer", "inner { deep { value: 1 } more { value: 2 } } inners { count: 4 }"},
        {"kinds.v1.TimeFraction", "ts { seconds: 5 nanos: 6 } value: 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mir_bytes payload = testing_encode(SET("kinds"), cases[i][0], cases[i][1]);
        mir_plan *plan = compile(cases[i][0]);
        for (size_t size = 0; size < payload.size; size++) {
            /* In memory of its own, so that a sanitizer sees a read past the end. */
            uint8_t *cut = malloc(size + 1);
            assert_non_null(cut);
            memcpy(cut, payload.data, size);
            mir_status status = mir_plan_decode(plan, mir_view_of(cut, size), 1, &row);
            assert_true(status == MIR_OK || status == MIR_E_INVALID || status == MIR_E_EMPTY);
            free(cut);
        }
        for (size_t k = 0; k < payload.size * 8; k++) {
            payload.data[k / 8] ^= (uint8_t)(1 << k % 8);
            mir_status status = mir_plan_decode(plan, mir_bytes_as_view(&payload), 1, &row);
            assert_true(status == MIR_OK || status == MIR_E_INVALID || status == MIR_E_EMPTY);
            payload.data[k / 8] ^= (uint8_t)(1 << k % 8);
        }
        mir_plan_unref(plan);
        mir_bytes_free(&payload);
    }
}

static void rows_are_bounded(void **state)
{
    (void)state;
    /* One element more than there are dynamic cells. */
    uint8_t packed[2 + 65];
    packed[0] = 0x0a;
    packed[1] = 65;
    memset(packed + 2, 1, 65);
    expect_status("kinds.v1.Lists", mir_view_of(packed, sizeof packed), MIR_E_TOO_LARGE);
    packed[1] = 64;
    expect_status("kinds.v1.Lists", mir_view_of(packed, sizeof packed - 1), MIR_OK);

    /* Text made of more bytes than the scratch has room for. */
    mir_bytes payload = {0};
    static const uint8_t many[7000];
    mir_pbwire_put_bytes(&payload, 15, mir_view_of(many, sizeof many));
    expect_status("kinds.v1.Scalars", mir_bytes_as_view(&payload), MIR_E_TOO_LARGE);
    mir_bytes_free(&payload);

    /* A key that is too long for a name. */
    mir_bytes entry = {0};
    mir_pbwire_put_bytes(&entry, 1, mir_view_of(many, 2000));
    mir_pbwire_put_bytes(&payload, 1, mir_bytes_as_view(&entry));
    expect_status("kinds.v1.Maps", mir_bytes_as_view(&payload), MIR_E_TOO_LARGE);
    mir_bytes_free(&entry);
    mir_bytes_free(&payload);

    /* Work without a result: members of a oneof that take turns. */
    for (int i = 0; i < 1000000; i++) mir_bytes_append(&payload, "\x1a\x00\x22\x00", 4);
    expect_status("kinds.v1.Choice", mir_bytes_as_view(&payload), MIR_E_TOO_LARGE);
    mir_bytes_free(&payload);
}

static mir_bytes wide_set(unsigned field_count, const char *type_name, unsigned levels)
{
    mir_bytes file = {0}, set = {0};
    mir_pbwire_put_bytes(&file, 1, MIR_VIEW_LITERAL("wide.proto"));
    mir_pbwire_put_bytes(&file, 12, MIR_VIEW_LITERAL("proto3"));
    for (unsigned level = 0; level < levels; level++) {
        mir_bytes message = {0};
        char text[32];
        (void)snprintf(text, sizeof text, "M%u", level);
        mir_pbwire_put_bytes(&message, 1, mir_view_cstr(text));
        for (unsigned i = 1; i <= field_count; i++) {
            mir_bytes field = {0};
            (void)snprintf(text, sizeof text, "f%u", i);
            mir_pbwire_put_bytes(&field, 1, mir_view_cstr(text));
            mir_pbwire_put_varint(&field, mir_pbwire_make_tag(3, MIR_PBWIRE_VARINT));
            mir_pbwire_put_varint(&field, i);
            if (type_name == NULL || level + 1 == levels) {
                mir_bytes_append(&field, "\x28\x05", 2);
            } else {
                (void)snprintf(text, sizeof text, "%s%u", type_name, level + 1);
                mir_pbwire_put_bytes(&field, 6, mir_view_cstr(text));
            }
            mir_pbwire_put_bytes(&message, 2, mir_bytes_as_view(&field));
            mir_bytes_free(&field);
        }
        mir_pbwire_put_bytes(&file, 4, mir_bytes_as_view(&message));
        mir_bytes_free(&message);
    }
    mir_pbwire_put_bytes(&set, 1, mir_bytes_as_view(&file));
    mir_bytes_free(&file);
    return set;
}

static void expect_compiled(mir_bytes set, mir_status expected, const char *text)
{
    mir_schema *schema = NULL;
    mir_plan *plan = NULL;
    mir_error error = {0};
    assert_int_equal(mir_schema_load(mir_bytes_as_view(&set), NULL, &schema, NULL), MIR_OK);
    assert_int_equal(mir_plan_compile(schema, testing_message(schema, "M0"), &plan, &error),
                     expected);
    assert_string_equal(error.text, text);
    mir_plan_unref(plan);
    mir_schema_unref(schema);
    mir_bytes_free(&set);
}

static void plans_are_bounded(void **state)
{
    (void)state;
    expect_compiled(wide_set(1024, NULL, 1), MIR_OK, "");
    expect_compiled(wide_set(1025, NULL, 1), MIR_E_TOO_LARGE,
                    "M0: more than 1024 telemetry fields");
    /* Ten fields of ten fields of ten fields, and so on. */
    expect_compiled(wide_set(10, "M", 20), MIR_E_TOO_LARGE, "M0: more than 1024 telemetry fields");
}

static void many_fields_are_found(void **state)
{
    (void)state;
    mir_bytes set = wide_set(1000, NULL, 1), payload = {0};
    mir_schema *schema = NULL;
    mir_plan *plan = NULL;
    assert_int_equal(mir_schema_load(mir_bytes_as_view(&set), NULL, &schema, NULL), MIR_OK);
    assert_int_equal(mir_plan_compile(schema, testing_message(schema, "M0"), &plan, NULL), MIR_OK);
    for (uint32_t i = 1000; i > 0; i -= i % 3 == 0 ? 2 : 1) {
        mir_pbwire_put_varint(&payload, mir_pbwire_make_tag(i, MIR_PBWIRE_VARINT));
        mir_pbwire_put_varint(&payload, i);
    }
    assert_int_equal(mir_plan_decode(plan, mir_bytes_as_view(&payload), 1, &row), MIR_OK);
    uint32_t i = 1000, expected = 1000;
    for (; i > 0; i--) {
        assert_int_equal(row.cells[i - 1].i64, i == expected ? i : 0);
        if (i == expected) expected -= i % 3 == 0 ? 2 : 1;
    }
    mir_plan_unref(plan);
    mir_schema_unref(schema);
    mir_bytes_free(&payload);
    mir_bytes_free(&set);
}

enum { THREADS = 4, ROUNDS = 2000 };

static void *decode_alone(void *argument)
{
    mir_plan *shared = argument;
    mir_row own;
    if (mir_row_init(&own, 8, 8, 256) != MIR_OK) return NULL;
    int64_t sum = 0;
    for (int i = 1; i <= ROUNDS; i++) {
        mir_plan *held = mir_plan_ref(shared);
        mir_schema *schema = mir_schema_ref(kinds);
        uint8_t payload[] = {0x08, (uint8_t)(i & 0x7f), 0x10, 0x05};
        if (mir_plan_decode(held, mir_view_of(payload, sizeof payload), 1, &own) != MIR_OK) break;
        sum += own.cells[0].i64;
        mir_schema_unref(schema);
        mir_plan_unref(held);
    }
    mir_row_fini(&own);
    mir_plan_unref(shared);
    return (void *)(intptr_t)sum; // NOLINT(performance-no-int-to-ptr)
}

static void plans_are_shared_by_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    mir_plan *plan = compile("kinds.v1.TimeNano");
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, decode_alone, mir_plan_ref(plan)), 0);
    }
    mir_plan_unref(plan);
    for (int i = 0; i < THREADS; i++) {
        void *sum = NULL;
        assert_int_equal(pthread_join(threads[i], &sum), 0);
        assert_int_equal((intptr_t)sum, 5 * ROUNDS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sample_telemetry_becomes_a_row),
        cmocka_unit_test(every_scalar_is_decoded),
        cmocka_unit_test(varints_of_every_length_are_read),
        cmocka_unit_test(presence_follows_the_declaration),
        cmocka_unit_test(negative_enum_numbers_are_left_out),
        cmocka_unit_test(lists_are_numbered),
        cmocka_unit_test(maps_are_named_by_their_keys),
        cmocka_unit_test(nested_lists_are_named_through),
        cmocka_unit_test(later_values_win_and_messages_merge),
        cmocka_unit_test(one_member_of_a_oneof_is_set),
        cmocka_unit_test(recursion_is_cut),
        cmocka_unit_test(empty_rows_are_told),
        cmocka_unit_test(time_comes_from_the_annotated_field),
        cmocka_unit_test(receive_time_stands_in),
        cmocka_unit_test(unknown_fields_are_passed_over),
        cmocka_unit_test(malformed_payloads_are_refused),
        cmocka_unit_test(every_cut_is_survived),
        cmocka_unit_test(rows_are_bounded),
        cmocka_unit_test(plans_are_bounded),
        cmocka_unit_test(many_fields_are_found),
        cmocka_unit_test(plans_are_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
