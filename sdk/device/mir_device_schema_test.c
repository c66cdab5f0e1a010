/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "mir_device_schema.h"
#include "mir_device_wire.h"

/* A descriptor set of one file that imports what `imports` names. */
static mir_bytes file_of(const char *path, const char *package, const char *message, char **imports,
                         size_t import_count)
{
    Google__Protobuf__DescriptorProto nested = GOOGLE__PROTOBUF__DESCRIPTOR_PROTO__INIT;
    char nested_name[] = "Inner";
    nested.name = nested_name;
    Google__Protobuf__DescriptorProto *nested_list[] = {&nested};
    Google__Protobuf__DescriptorProto outer = GOOGLE__PROTOBUF__DESCRIPTOR_PROTO__INIT;
    outer.name = (char *)message;
    outer.nested_type = nested_list;
    outer.n_nested_type = 1;
    Google__Protobuf__DescriptorProto *messages[] = {&outer};
    Google__Protobuf__FileDescriptorProto file = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_PROTO__INIT;
    file.name = (char *)path;
    file.package = (char *)package;
    file.message_type = messages;
    file.n_message_type = 1;
    file.dependency = imports;
    file.n_dependency = import_count;
    Google__Protobuf__FileDescriptorProto *files[] = {&file};
    Google__Protobuf__FileDescriptorSet set = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_SET__INIT;
    set.file = files;
    set.n_file = 1;
    mir_bytes out = {0};
    uint8_t *to = mir_bytes_reserve(&out, protobuf_c_message_get_packed_size(&set.base));
    assert_non_null(to);
    out.size = protobuf_c_message_pack(&set.base, to);
    return out;
}

static Google__Protobuf__FileDescriptorSet *read_back(const mir_device_schema *schema)
{
    Google__Protobuf__FileDescriptorSet *set =
        google__protobuf__file_descriptor_set__unpack(NULL, schema->set.size, schema->set.data);
    assert_non_null(set);
    return set;
}

static void files_come_in_order_and_once(void **state)
{
    (void)state;
    char import[] = "mir/device/v1/mir.proto";
    char *imports[] = {import};
    mir_bytes a = file_of("z.proto", "z.v1", "Zed", imports, 1);
    mir_bytes b = file_of("a.proto", "a.v1", "Ay", NULL, 0);
    const mir_view sets[] = {mir_bytes_as_view(&a), mir_bytes_as_view(&b), mir_bytes_as_view(&a)};
    mir_device_schema schema = {0};
    mir_error error = {{0}};
    assert_int_equal(mir_device_schema_build(sets, 3, &schema, &error), MIR_OK);
    Google__Protobuf__FileDescriptorSet *set = read_back(&schema);
    assert_int_equal(set->n_file, 4);
    assert_string_equal(set->file[0]->name, "z.proto");
    assert_string_equal(set->file[1]->name, "a.proto");
    assert_string_equal(set->file[2]->name, "google/protobuf/descriptor.proto");
    assert_string_equal(set->file[3]->name, "mir/device/v1/mir.proto");
    google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
    assert_true(mir_device_schema_has(&schema, "z.v1.Zed"));
    assert_true(mir_device_schema_has(&schema, "z.v1.Zed.Inner"));
    assert_true(mir_device_schema_has(&schema, "mir.device.v1.Void"));
    assert_false(mir_device_schema_has(&schema, "z.v1.Inner"));
    assert_false(mir_device_schema_has(&schema, ""));
    mir_device_schema_free(&schema);
    mir_bytes_free(&a);
    mir_bytes_free(&b);
}

static void no_files_at_all_leave_the_own_two(void **state)
{
    (void)state;
    mir_device_schema schema = {0};
    assert_int_equal(mir_device_schema_build(NULL, 0, &schema, NULL), MIR_OK);
    Google__Protobuf__FileDescriptorSet *set = read_back(&schema);
    assert_int_equal(set->n_file, 2);
    google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
    mir_device_schema_free(&schema);
}

static void a_missing_import_is_named(void **state)
{
    (void)state;
    char import[] = "google/protobuf/timestamp.proto";
    char *imports[] = {import};
    mir_bytes a = file_of("a.proto", "a.v1", "Ay", imports, 1);
    const mir_view sets[] = {mir_bytes_as_view(&a)};
    mir_device_schema schema = {0};
    mir_error error = {{0}};
    assert_int_equal(mir_device_schema_build(sets, 1, &schema, &error), MIR_E_INVALID);
    assert_non_null(strstr(error.text, "google/protobuf/timestamp.proto"));
    assert_int_equal(schema.set.size, 0);
    mir_bytes_free(&a);
}

static void two_files_of_one_path_are_refused(void **state)
{
    (void)state;
    mir_bytes a = file_of("a.proto", "a.v1", "Ay", NULL, 0);
    mir_bytes b = file_of("a.proto", "a.v1", "Bee", NULL, 0);
    const mir_view sets[] = {mir_bytes_as_view(&a), mir_bytes_as_view(&b)};
    mir_device_schema schema = {0};
    mir_error error = {{0}};
    assert_int_equal(mir_device_schema_build(sets, 2, &schema, &error), MIR_E_INVALID);
    assert_non_null(strstr(error.text, "a.proto"));
    mir_bytes_free(&a);
    mir_bytes_free(&b);
}

/* Cut anywhere, a set is a whole one (cut between its files) or refused. */
static void cut_sets_are_refused(void **state)
{
    (void)state;
    mir_bytes a = file_of("a.proto", "a.v1", "Ay", NULL, 0);
    for (size_t size = 1; size < a.size; size++) {
        uint8_t *exact = malloc(size);
        assert_non_null(exact);
        memcpy(exact, a.data, size);
        const mir_view sets[] = {{exact, size}};
        mir_device_schema schema = {0};
        assert_int_equal(mir_device_schema_build(sets, 1, &schema, NULL), MIR_E_INVALID);
        free(exact);
    }
    mir_bytes_free(&a);
}

static mir_bytes nested_lists(int levels)
{
    /* Value{list_value{values{…}}}, from the inside out. */
    mir_bytes bytes = {0};
    for (int i = 0; i < levels * 2; i++) {
        mir_bytes outer = {0};
        mir_bytes_u8(&outer, i % 2 == 0 ? 0x0a : 0x32); /* values = 1, list_value = 6 */
        size_t size = bytes.size;
        for (; size >= 0x80; size >>= 7) mir_bytes_u8(&outer, (uint8_t)(size | 0x80));
        mir_bytes_u8(&outer, (uint8_t)size);
        mir_bytes_view(&outer, mir_bytes_as_view(&bytes));
        mir_bytes_free(&bytes);
        bytes = outer;
    }
    return bytes;
}

static void messages_that_nest_too_deep_are_not_unpacked(void **state)
{
    (void)state;
    mir_bytes shallow = nested_lists(45);
    ProtobufCMessage *message =
        mir_device_unpack(&google__protobuf__value__descriptor, mir_bytes_as_view(&shallow));
    assert_non_null(message);
    protobuf_c_message_free_unpacked(message, NULL);
    mir_bytes deep = nested_lists(5000);
    assert_null(mir_device_unpack(&google__protobuf__value__descriptor, mir_bytes_as_view(&deep)));
    mir_bytes_free(&shallow);
    mir_bytes_free(&deep);
}

static void an_empty_message_is_a_message(void **state)
{
    (void)state;
    ProtobufCMessage *message =
        mir_device_unpack(&google__protobuf__value__descriptor, (mir_view){NULL, 0});
    assert_non_null(message);
    protobuf_c_message_free_unpacked(message, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_come_in_order_and_once),
        cmocka_unit_test(no_files_at_all_leave_the_own_two),
        cmocka_unit_test(a_missing_import_is_named),
        cmocka_unit_test(two_files_of_one_path_are_refused),
        cmocka_unit_test(cut_sets_are_refused),
        cmocka_unit_test(messages_that_nest_too_deep_are_not_unpacked),
        cmocka_unit_test(an_empty_message_is_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
