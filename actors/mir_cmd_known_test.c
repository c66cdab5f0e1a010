/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "mir_cmd_known.h"
#include "mir_pb.h"

static uint8_t hash[MIR_STATE_HASH_BYTES] = "hash";
static char id[] = "d-1", name[] = "pump", name_space[] = "plant", star[] = "d-*", empty[] = "";

static mir_schema *schema_new(void)
{
    Google__Protobuf__FileDescriptorProto file = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_PROTO__INIT;
    file.name = (char *)(uintptr_t) "a.proto";
    Google__Protobuf__FileDescriptorProto *list[] = {&file};
    Google__Protobuf__FileDescriptorSet set = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_SET__INIT;
    set.n_file = 1;
    set.file = list;
    mir_bytes packed = {0};
    MIR_PB_PACK(&set, &packed);
    mir_schema *schema = NULL;
    mir_error error = {{0}};
    if (mir_schema_load(mir_bytes_as_view(&packed), NULL, &schema, &error) != MIR_OK)
        fail_msg("%s", error.text);
    mir_bytes_free(&packed);
    return schema;
}

static MirStore__V1__DeviceRecord record_of(char *device_id)
{
    MirStore__V1__DeviceRecord record = MIR_STORE__V1__DEVICE_RECORD__INIT;
    record.device_id = device_id;
    record.name = name;
    record.namespace_ = name_space;
    record.has_disabled = record.disabled = 1;
    record.has_schema_hash = 1;
    record.schema_hash = (ProtobufCBinaryData){sizeof hash, hash};
    return record;
}

static mir_cmd_known_key by_id(const char *device_id)
{
    return (mir_cmd_known_key){.id = mir_view_cstr(device_id)};
}

static void only_one_id_or_one_name_is_a_key(void **state)
{
    (void)state;
    char *ids[] = {id, star}, *patterns[] = {star}, *nothing[] = {empty}, *names[] = {name},
         *spaces[] = {name_space};
    mir_cmd_known_key key;
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    assert_false(mir_cmd_known_key_of(NULL, &key));
    assert_false(mir_cmd_known_key_of(&target, &key));
    target.ids = ids;
    target.n_ids = 1;
    assert_true(mir_cmd_known_key_of(&target, &key));
    assert_true(mir_view_eq_cstr(key.id, id));
    target.n_ids = 2;
    assert_false(mir_cmd_known_key_of(&target, &key));
    target.n_ids = 1;
    target.ids = patterns;
    assert_false(mir_cmd_known_key_of(&target, &key));
    target.ids = nothing;
    assert_false(mir_cmd_known_key_of(&target, &key));
    target.ids = ids;
    target.names = names;
    target.n_names = 1;
    assert_false(mir_cmd_known_key_of(&target, &key));
    target.n_ids = 0;
    assert_false(mir_cmd_known_key_of(&target, &key));
    target.namespaces = spaces;
    target.n_namespaces = 1;
    assert_true(mir_cmd_known_key_of(&target, &key));
    assert_int_equal(key.id.size, 0);
    assert_true(mir_view_eq_cstr(key.name, name));
    assert_true(mir_view_eq_cstr(key.name_space, name_space));
    target.n_liveness = 1;
    assert_false(mir_cmd_known_key_of(&target, &key));
}

static void an_entry_holds_while_nothing_changes(void **state)
{
    (void)state;
    mir_cmd_known *known = calloc(1, sizeof *known);
    mir_schema *schema = schema_new();
    MirStore__V1__DeviceRecord record = record_of(id);
    mir_cmd_known_key key = by_id(id),
                      other = {.name = mir_view_cstr(id), .name_space = mir_view_cstr(id)};
    assert_null(mir_cmd_known_find(known, &key, 7));
    mir_cmd_known_entry *entry = mir_cmd_known_make(&key, 7, &record, schema);
    mir_schema_unref(schema);
    assert_non_null(entry);
    mir_cmd_known_put(known, entry);
    assert_null(mir_cmd_known_find(known, &other, 7));
    assert_ptr_equal(mir_cmd_known_find(known, &key, 7), entry);
    mir_arena arena = {0};
    MirStore__V1__DeviceRecord *copy = mir_cmd_known_record(entry, &arena);
    assert_non_null(copy);
    assert_null(mir_cmd_known_find(known, &key, 8));
    assert_null(mir_cmd_known_find(known, &key, 7)); /* It went. */
    assert_string_equal(copy->device_id, id);
    assert_string_equal(copy->name, name);
    assert_string_equal(copy->namespace_, name_space);
    assert_true(copy->has_disabled && copy->disabled);
    assert_memory_equal(copy->schema_hash.data, hash, sizeof hash);
    mir_arena_free(&arena);
    mir_cmd_known_free(known);
}

static void a_device_without_a_schema_is_not_remembered(void **state)
{
    (void)state;
    mir_schema *schema = schema_new();
    MirStore__V1__DeviceRecord record = record_of(id);
    mir_cmd_known_key key = by_id(id);
    record.has_schema_hash = 0;
    assert_null(mir_cmd_known_make(&key, 0, &record, schema));
    mir_schema_unref(schema);
}

static void the_table_does_not_grow(void **state)
{
    (void)state;
    mir_cmd_known *known = calloc(1, sizeof *known);
    mir_schema *schema = schema_new();
    enum { DEVICES = 4 * MIR_CMD_KNOWN_MAX };
    size_t found = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < DEVICES; i++) {
            char text[16];
            (void)snprintf(text, sizeof text, "d-%d", i);
            MirStore__V1__DeviceRecord record = record_of(text);
            mir_cmd_known_key key = by_id(text);
            if (pass == 0) {
                mir_cmd_known_put(known, mir_cmd_known_make(&key, 0, &record, schema));
            } else {
                const mir_cmd_known_entry *entry = mir_cmd_known_find(known, &key, 0);
                if (entry == NULL) continue;
                assert_string_equal(entry->record.device_id, text);
                found++;
            }
        }
    }
    assert_in_range(found, 1, MIR_CMD_KNOWN_MAX);
    mir_schema_unref(schema);
    mir_cmd_known_free(known);
    mir_cmd_known_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_one_id_or_one_name_is_a_key),
        cmocka_unit_test(an_entry_holds_while_nothing_changes),
        cmocka_unit_test(a_device_without_a_schema_is_not_remembered),
        cmocka_unit_test(the_table_does_not_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
