/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_field_names.h"

#include "google/protobuf/descriptor.pb-c.h"
#include "mir_pb.h"
#include "mir_state_testing.h"

typedef Google__Protobuf__FieldDescriptorProto field_proto;

/* mir.device.v1.message_type */
enum { MESSAGE_TYPE_OPTION = 50001, FIELDS_MOST = 2100 };

typedef struct named {
    int32_t number;
    const char *name;
} named;

/* A schema of one telemetry message v.v1.Air. */
static mir_bytes schema_of(const named *fields, size_t count)
{
    Google__Protobuf__FileDescriptorProto file = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_PROTO__INIT;
    Google__Protobuf__DescriptorProto message = GOOGLE__PROTOBUF__DESCRIPTOR_PROTO__INIT;
    Google__Protobuf__MessageOptions options = GOOGLE__PROTOBUF__MESSAGE_OPTIONS__INIT;
    uint8_t telemetry = 1;
    ProtobufCMessageUnknownField type = {MESSAGE_TYPE_OPTION, PROTOBUF_C_WIRE_TYPE_VARINT, 1,
                                         &telemetry};
    options.base.n_unknown_fields = 1;
    options.base.unknown_fields = &type;
    static field_proto protos[FIELDS_MOST], *list[FIELDS_MOST];
    assert_in_range(count, 0, FIELDS_MOST);
    for (size_t i = 0; i < count; i++) {
        list[i] = &protos[i];
        google__protobuf__field_descriptor_proto__init(&protos[i]);
        protos[i].name = (char *)(uintptr_t)fields[i].name;
        protos[i].has_number = 1;
        protos[i].number = fields[i].number;
        protos[i].has_label = 1;
        protos[i].label = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__LABEL__LABEL_OPTIONAL;
        protos[i].has_type = 1;
        protos[i].type = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_INT32;
    }
    message.name = (char *)(uintptr_t) "Air";
    message.n_field = count;
    message.field = list;
    message.options = &options;
    Google__Protobuf__DescriptorProto *messages[] = {&message};
    file.name = (char *)(uintptr_t) "v.proto";
    file.package = (char *)(uintptr_t) "v.v1";
    file.syntax = (char *)(uintptr_t) "proto3";
    file.n_message_type = 1;
    file.message_type = messages;
    Google__Protobuf__FileDescriptorProto *files[] = {&file};
    Google__Protobuf__FileDescriptorSet set = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_SET__INIT;
    set.n_file = 1;
    set.file = files;
    mir_bytes packed = {0};
    MIR_PB_PACK(&set, &packed);
    assert_true(mir_bytes_ok(&packed));
    return packed;
}

static void note(fixture *f, const named *fields, size_t count)
{
    mir_bytes raw = schema_of(fields, count);
    mir_arena_free(&f->request.arena);
    f->request = (mir_state_request){.op = MIR_STATE_SET_SCHEMA};
    f->request.set_schema.device_id = MIR_VIEW_LITERAL("a");
    f->request.set_schema.schema = (mir_state_schema){.raw = mir_bytes_as_view(&raw)};
    assert_int_equal(run(f), MIR_OK);
    mir_bytes_free(&raw);
}

/* "2 a b, 3 c": numbers in the order of the record, and what they were called. */
static void expect(fixture *f, const char *text)
{
    MirStore__V1__FieldNames *names = NULL;
    mir_error error = {""};
    assert_int_equal(
        mir_field_names_get(f->state, MIR_VIEW_LITERAL("v.v1.Air"), &f->arena, &names, &error),
        MIR_OK);
    mir_bytes shown = {0};
    for (size_t i = 0; i < names->n_fields; i++) {
        mir_bytes_printf(&shown, "%s%u", i == 0 ? "" : ", ", names->fields[i]->number);
        for (size_t k = 0; k < names->fields[i]->n_names; k++)
            mir_bytes_printf(&shown, " %s", names->fields[i]->names[k]);
    }
    mir_bytes_u8(&shown, 0);
    assert_true(mir_bytes_ok(&shown));
    assert_string_equal((const char *)shown.data, text);
    mir_bytes_free(&shown);
}

static void names_are_kept_by_number(void **state)
{
    fixture *f = *state;
    MirStore__V1__FieldNames *names = NULL;
    mir_error error = {""};
    assert_int_equal(
        mir_field_names_get(f->state, MIR_VIEW_LITERAL("v.v1.Air"), &f->arena, &names, &error),
        MIR_E_NOT_FOUND);
    note(f, (named[]){{2, "degrees"}, {3, "level"}}, 2);
    expect(f, "2 degrees, 3 level");
    note(f, (named[]){{2, "celsius"}, {4, "open"}}, 2);
    expect(f, "2 degrees celsius, 3 level, 4 open");
    /* Back again: the one that was met last stands last. A schema that is known already is not met. */
    note(f, (named[]){{2, "degrees"}}, 1);
    expect(f, "2 celsius degrees, 3 level, 4 open");
}

static void a_field_has_a_bounded_number_of_names(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < MIR_FIELD_NAMES_KEPT + 2; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%d", i);
        note(f, (named[]){{1, name}}, 1);
    }
    expect(f, "1 n2 n3 n4 n5 n6 n7 n8 n9");
}

static void a_type_of_very_many_fields_is_not_noted(void **state)
{
    fixture *f = *state;
    static named fields[FIELDS_MOST];
    static char names[FIELDS_MOST][16];
    for (int i = 0; i < FIELDS_MOST; i++) {
        (void)snprintf(names[i], sizeof names[i], "n%d", i);
        fields[i] = (named){i + 1, names[i]};
    }
    note(f, fields, FIELDS_MOST);
    MirStore__V1__FieldNames *record = NULL;
    mir_error error = {""};
    assert_int_equal(
        mir_field_names_get(f->state, MIR_VIEW_LITERAL("v.v1.Air"), &f->arena, &record, &error),
        MIR_E_NOT_FOUND);
    note(f, fields, 3);
    expect(f, "1 n0, 2 n1, 3 n2");
}

static void schemas_of_an_older_program_are_noted_at_the_start(void **state)
{
    fixture *f = *state;
    note(f, (named[]){{2, "degrees"}}, 1);
    MDB_txn *txn = NULL;
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_drop(txn, f->state->db.field_names, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_OFF, 64 << 20);
    expect(f, "2 degrees");
}

/* It costs the earlier names, and no schema. */
static void a_damaged_record_is_made_anew(void **state)
{
    fixture *f = *state;
    note(f, (named[]){{2, "degrees"}}, 1);
    MDB_txn *txn = NULL;
    MDB_val key = {8, (void *)(uintptr_t) "v.v1.Air"};
    MDB_val bad = {5, (void *)(uintptr_t) "\xff\xff\xff\xff\xff"};
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, f->state->db.field_names, &key, &bad, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    MirStore__V1__FieldNames *names = NULL;
    mir_error error = {""};
    assert_int_equal(
        mir_field_names_get(f->state, MIR_VIEW_LITERAL("v.v1.Air"), &f->arena, &names, &error),
        MIR_E_CORRUPT);
    note(f, (named[]){{2, "celsius"}}, 1);
    expect(f, "2 celsius");
}

static int set_up(void **state)
{
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    add(f, "a", "a", "s");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_are_kept_by_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_field_has_a_bounded_number_of_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_type_of_very_many_fields_is_not_noted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_record_is_made_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(schemas_of_an_older_program_are_noted_at_the_start, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
