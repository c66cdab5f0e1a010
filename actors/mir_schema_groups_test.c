/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "mir_pb.h"
#include "mir_schema_groups.h"

/* A set of empty files with these names, in this order. */
static mir_schema *schema_of(const char *first, const char *second)
{
    Google__Protobuf__FileDescriptorProto files[2] = {
        GOOGLE__PROTOBUF__FILE_DESCRIPTOR_PROTO__INIT,
        GOOGLE__PROTOBUF__FILE_DESCRIPTOR_PROTO__INIT};
    files[0].name = (char *)(uintptr_t)first;
    files[1].name = (char *)(uintptr_t)second;
    Google__Protobuf__FileDescriptorProto *list[2] = {&files[0], &files[1]};
    Google__Protobuf__FileDescriptorSet set = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_SET__INIT;
    set.n_file = 2;
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

static MirStore__V1__DeviceRecord records[64];

static void test_content_makes_the_group(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_schema_groups groups = {.arena = &arena};
    mir_schema *one = schema_of("a.proto", "b.proto");
    mir_schema *same = schema_of("b.proto", "a.proto");
    mir_schema *other = schema_of("a.proto", "c.proto");
    mir_view h1 = MIR_VIEW_LITERAL("hash 1"), h2 = MIR_VIEW_LITERAL("hash 2"),
             h3 = MIR_VIEW_LITERAL("hash 3");
    assert_null(mir_schema_groups_find(&groups, h1));
    mir_schema_group *g1, *g2, *g3;
    assert_int_equal(mir_schema_groups_of_schema(&groups, h1, one, &g1), MIR_OK);
    assert_int_equal(mir_schema_groups_of_schema(&groups, h2, other, &g2), MIR_OK);
    assert_int_equal(mir_schema_groups_of_schema(&groups, h3, same, &g3), MIR_OK);
    assert_ptr_equal(g1, g3);
    assert_ptr_not_equal(g1, g2);
    assert_ptr_equal(mir_schema_groups_find(&groups, h1), g1);
    assert_ptr_equal(mir_schema_groups_find(&groups, h2), g2);
    assert_ptr_equal(mir_schema_groups_find(&groups, h3), g1);
    /* Lists have the groups with devices, by their first ones. */
    assert_int_equal(groups.schemas.count, 0);
    assert_int_equal(mir_schema_groups_add(&groups, g2, &records[0]), MIR_OK);
    assert_int_equal(mir_schema_groups_add(&groups, g1, &records[1]), MIR_OK);
    assert_int_equal(mir_schema_groups_add(&groups, g2, &records[2]), MIR_OK);
    assert_ptr_equal(groups.schemas.first, g2);
    assert_ptr_equal(g2->next, g1);
    assert_int_equal(groups.schemas.count, 2);
    /* The groups keep what they need. */
    mir_schema_unref(one);
    mir_schema_unref(same);
    mir_schema_unref(other);
    assert_int_equal(mir_schema_file_count(g1->schema), 2);
    mir_schema_groups_free(&groups);
    mir_arena_free(&arena);
}

static void test_one_group_for_each_error(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_schema_groups groups = {.arena = &arena};
    for (size_t i = 0; i < 60; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "error %zu", i % 3);
        mir_schema_group *group;
        assert_int_equal(mir_schema_groups_of_error(&groups, (mir_view){0}, text, &group), MIR_OK);
        assert_int_equal(mir_schema_groups_add(&groups, group, &records[i]), MIR_OK);
    }
    assert_int_equal(groups.errors.count, 3);
    size_t place = 0;
    for (mir_schema_group *group = groups.errors.first; group != NULL;
         group = group->next, place++) {
        char text[16];
        (void)snprintf(text, sizeof text, "error %zu", place);
        assert_string_equal(group->error, text);
        assert_int_equal(group->count, 20);
        for (size_t i = 0; i < 20; i++)
            assert_ptr_equal(group->records[i], &records[3 * i + place]);
    }
    assert_null(mir_schema_groups_find(&groups, (mir_view){0}));
    mir_schema_groups_free(&groups);
    mir_arena_free(&arena);
}

static void test_without_memory(void **state)
{
    (void)state;
    mir_arena arena = {.bytes_max = 1};
    mir_schema_groups groups = {.arena = &arena};
    mir_schema *one = schema_of("a.proto", "b.proto");
    mir_schema_group *group;
    assert_int_equal(mir_schema_groups_of_schema(&groups, MIR_VIEW_LITERAL("h"), one, &group),
                     MIR_E_NO_MEMORY);
    assert_int_equal(mir_schema_groups_of_error(&groups, (mir_view){0}, "e", &group),
                     MIR_E_NO_MEMORY);
    assert_int_equal(groups.schemas.count + groups.errors.count, 0);
    mir_schema_unref(one);
    mir_schema_groups_free(&groups);
    mir_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_makes_the_group),
        cmocka_unit_test(test_one_group_for_each_error),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
