/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_schema.h"

#include "mir_schema_testing.h"

static const char *load_error(mir_view set, const mir_schema_limits *limits, mir_status expected)
{
    static mir_error error;
    error.text[0] = 0;
    mir_schema *schema = NULL;
    mir_status status = mir_schema_load(set, limits, &schema, &error);
    if (status != expected) {
        fail_msg("%s instead of %s: %s", mir_status_name(status), mir_status_name(expected),
                 error.text);
    }
    assert_null(schema);
    return error.text;
}

/* Descriptors by hand */

static void put_text(mir_bytes *to, uint32_t number, const char *text)
{
    mir_pbwire_put_bytes(to, number, mir_view_cstr(text));
}

static void put_number(mir_bytes *to, uint32_t number, uint64_t value)
{
    mir_pbwire_put_varint(to, mir_pbwire_make_tag(number, MIR_PBWIRE_VARINT));
    mir_pbwire_put_varint(to, value);
}

static void put_taken(mir_bytes *to, uint32_t number, mir_bytes *from)
{
    mir_pbwire_put_bytes(to, number, mir_bytes_as_view(from));
    mir_bytes_free(from);
}

static mir_bytes make_field(const char *name, uint32_t number, uint32_t type, const char *type_name)
{
    mir_bytes field = {0};
    put_text(&field, 1, name);
    put_number(&field, 3, number);
    if (type != 0) put_number(&field, 5, type);
    if (type_name != NULL) put_text(&field, 6, type_name);
    return field;
}

static mir_bytes make_file(const char *path, const char *package)
{
    mir_bytes file = {0};
    put_text(&file, 1, path);
    if (package != NULL) put_text(&file, 2, package);
    put_text(&file, 12, "proto3");
    return file;
}

static void put_message(mir_bytes *file, const char *name, const char *field_name,
                        const char *type_name)
{
    mir_bytes message = {0};
    put_text(&message, 1, name);
    if (field_name != NULL) {
        mir_bytes field =
            make_field(field_name, 1, type_name == NULL ? MIR_KIND_INT32 : 0, type_name);
        put_taken(&message, 2, &field);
    }
    put_taken(file, 4, &message);
}

static void sample_set_loads(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("environment"));
    assert_int_equal(mir_schema_file_count(schema), 3);
    uint32_t count = 0;
    const char *const *packages = mir_schema_packages(schema, &count);
    assert_int_equal(count, 3);
    assert_string_equal(packages[0], "environment.v1");
    assert_string_equal(packages[1], "google.protobuf");
    assert_string_equal(packages[2], "mir.device.v1");
    const mir_schema_message *const *list = mir_schema_list(schema, MIR_MESSAGE_TELEMETRY, &count);
    assert_int_equal(count, 1);
    assert_string_equal(list[0]->name, "environment.v1.EnvironmentTlm");
    list = mir_schema_list(schema, MIR_MESSAGE_TELECOMMAND, &count);
    assert_int_equal(count, 1);
    assert_string_equal(list[0]->name, "environment.v1.ActivateHVAC");
    list = mir_schema_list(schema, MIR_MESSAGE_TELECONFIG, &count);
    assert_int_equal(count, 1);
    assert_string_equal(list[0]->name, "environment.v1.DataRateProp");

    const mir_schema_message *message = testing_message(schema, ".environment.v1.EnvironmentTlm");
    assert_int_equal(message->field_count, 5);
    const mir_schema_field *time = mir_schema_timestamp_field(message);
    assert_non_null(time);
    assert_string_equal(time->name, "ts");
    assert_int_equal(time->timestamp_type, MIR_TIMESTAMP_NANO);
    assert_string_equal(time->message->name, "mir.device.v1.Timestamp");
    const mir_schema_field *wind = mir_schema_field_by_number(message, 5);
    assert_string_equal(wind->name, "wind_speed");
    assert_string_equal(wind->json_name, "windSpeed");
    assert_ptr_equal(wind, mir_schema_field_by_name(message, MIR_VIEW_LITERAL("wind_speed")));
    assert_ptr_equal(wind, mir_schema_field_by_json_name(message, MIR_VIEW_LITERAL("windSpeed")));
    assert_ptr_equal(wind, mir_schema_field_by_json_name(message, MIR_VIEW_LITERAL("wind_speed")));
    assert_null(mir_schema_field_by_number(message, 6));
    assert_null(mir_schema_field_by_name(message, MIR_VIEW_LITERAL("wind")));
    assert_null(mir_schema_timestamp_field(
        testing_message(schema, "google.protobuf.FieldDescriptorProto")));
    mir_schema_unref(schema);
}

static void names_that_are_no_messages_are_refused(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("kinds"));
    const mir_schema_message *message = NULL;
    mir_error error = {0};
    assert_int_equal(mir_schema_find(schema, MIR_VIEW_LITERAL("kinds.v1.Nope"), &message, &error),
                     MIR_E_NOT_FOUND);
    assert_string_equal(error.text, "proto: not found");
    assert_int_equal(mir_schema_find(schema, MIR_VIEW_LITERAL(""), &message, &error),
                     MIR_E_NOT_FOUND);
    assert_int_equal(mir_schema_find(schema, MIR_VIEW_LITERAL("kinds.v1.Mode"), &message, &error),
                     MIR_E_INVALID);
    assert_int_equal(
        mir_schema_find(schema, MIR_VIEW_LITERAL("mir.device.v1.message_type"), &message, &error),
        MIR_E_INVALID);
    assert_null(message);
    mir_schema_unref(schema);
}

static void short_names_are_found_when_unique(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("kinds"));
    const mir_schema_message *message = NULL;
    mir_error error = {0};
    assert_int_equal(
        mir_schema_find_short(schema, MIR_VIEW_LITERAL("time_milli"), &message, &error), MIR_OK);
    assert_string_equal(message->name, "kinds.v1.TimeMilli");
    assert_int_equal(mir_schema_find_short(schema, MIR_VIEW_LITERAL("V1.Tree"), &message, &error),
                     MIR_OK);
    assert_string_equal(message->name, "kinds.v1.Tree");
    assert_int_equal(mir_schema_find_short(schema, MIR_VIEW_LITERAL("ree"), &message, &error),
                     MIR_E_NOT_FOUND);
    assert_int_equal(mir_schema_find_short(schema, MIR_VIEW_LITERAL("Timestamp"), &message, &error),
                     MIR_E_INVALID);
    assert_non_null(strstr(error.text, "google.protobuf.Timestamp"));
    mir_schema_unref(schema);
}

static void every_construct_is_understood(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("kinds"));
    const mir_schema_message *message = testing_message(schema, "kinds.v1.Optionals");
    for (uint32_t i = 0; i < message->field_count; i++) {
        assert_true(message->fields[i].has_presence);
        assert_int_equal(message->fields[i].oneof, -1);
    }
    message = testing_message(schema, "kinds.v1.Choice");
    assert_int_equal(message->oneof_count, 2);
    assert_string_equal(message->oneof_names[1], "other");
    assert_int_equal(message->fields[0].oneof, 0);
    assert_int_equal(message->fields[4].oneof, -1);
    assert_false(message->fields[4].has_presence);
    assert_int_equal(message->fields[6].oneof, 1);
    assert_true(message->fields[6].has_presence);
    assert_int_equal(message->fields[6].enumeration->value_count, 4);
    assert_int_equal(message->fields[6].enumeration->values[3].number, -1);
    message = testing_message(schema, "kinds.v1.Maps");
    for (uint32_t i = 0; i < message->field_count; i++) assert_true(message->fields[i].is_map);
    message = testing_message(schema, "kinds.v1.Lists");
    assert_true(message->fields[0].is_packed);
    assert_false(message->fields[1].is_packed);
    assert_false(message->fields[2].is_packed);
    message = testing_message(schema, "kinds.v1.Outer.Inner.Deep");
    assert_false(message->is_top_level);
    message = testing_message(schema, "kinds.v1.Names");
    assert_string_equal(message->fields[0].json_name, "someLongName");
    assert_string_equal(message->fields[1].json_name, "@custom");
    mir_schema_unref(schema);
}

static void proto2_is_understood(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("legacy"));
    const mir_schema_message *old = testing_message(schema, "legacy.v1.Old");
    assert_true(old->fields[0].is_required);
    assert_true(old->fields[1].has_presence);
    assert_false(old->fields[2].is_packed);
    assert_true(old->fields[3].is_packed);
    assert_int_equal(old->fields[4].kind, MIR_KIND_GROUP);
    assert_string_equal(old->fields[4].message->name, "legacy.v1.Old.Part");
    mir_schema_unref(schema);
}

static void timestamp_option_counts_in_telemetry_only(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("kinds"));
    assert_null(mir_schema_timestamp_field(testing_message(schema, "kinds.v1.TimeOfCommand")));
    const mir_schema_field *first =
        mir_schema_timestamp_field(testing_message(schema, "kinds.v1.TimeSec"));
    assert_string_equal(first->name, "ts");
    mir_schema_unref(schema);
}

/* The files of a set in another order, and with some left out. */
static mir_bytes reorder(mir_view set, bool reverse, const char *without)
{
    mir_view files[64];
    size_t count = 0;
    mir_pbwire wire = mir_pbwire_of(set);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view bytes, path;
        assert_true(mir_pbwire_next(&wire, &tag, &value, &bytes));
        mir_pbwire inner = mir_pbwire_of(bytes);
        assert_true(mir_pbwire_next(&inner, &tag, &value, &path));
        if (without != NULL && mir_view_eq_cstr(path, without)) continue;
        files[count++] = bytes;
    }
    mir_bytes out = {0};
    for (size_t i = 0; i < count; i++) {
        mir_pbwire_put_bytes(&out, 1, files[reverse ? count - 1 - i : i]);
    }
    return out;
}

static void files_come_in_any_order(void **state)
{
    (void)state;
    mir_bytes set = testing_read(SET("kinds"));
    mir_bytes reversed = reorder(mir_bytes_as_view(&set), true, NULL);
    assert_memory_not_equal(set.data, reversed.data, set.size);
    mir_schema *a = NULL, *b = NULL;
    assert_int_equal(mir_schema_load(mir_bytes_as_view(&set), NULL, &a, NULL), MIR_OK);
    assert_int_equal(mir_schema_load(mir_bytes_as_view(&reversed), NULL, &b, NULL), MIR_OK);
    assert_true(mir_schema_equal(a, b));
    assert_int_equal(mir_schema_hash(a), mir_schema_hash(b));
    mir_schema *other = testing_load(SET("environment"));
    assert_false(mir_schema_equal(a, other));
    mir_view kept = mir_schema_set_bytes(b);
    assert_int_equal(kept.size, reversed.size);
    assert_memory_equal(kept.data, reversed.data, kept.size);
    mir_schema_unref(a);
    mir_schema_unref(b);
    mir_schema_unref(other);
    mir_bytes_free(&set);
    mir_bytes_free(&reversed);
}

/* The fuzz targets load a copy that is kept in the tree. */
static void kept_copy_is_fresh(void **state)
{
    (void)state;
    mir_bytes set = testing_read(SET("kinds"));
    mir_bytes less = reorder(mir_bytes_as_view(&set), false, "google/protobuf/descriptor.proto");
    mir_bytes kept = testing_read(MIR_SOURCE_DIR "/tests/data/schema/kinds.binpb");
    assert_int_equal(kept.size, less.size);
    assert_memory_equal(kept.data, less.data, kept.size);
    mir_bytes_free(&set);
    mir_bytes_free(&less);
    mir_bytes_free(&kept);
}

static mir_bytes tagged_set(const char *first, const char *second)
{
    mir_bytes meta = {0};
    const char *keys[] = {first, second};
    for (int i = 0; i < 2; i++) {
        mir_bytes entry = {0};
        put_text(&entry, 1, keys[i]);
        put_text(&entry, 2, "value");
        put_taken(&meta, 1, &entry);
    }
    mir_bytes options = {0}, message = {0}, set = {0};
    put_taken(&options, 50002, &meta);
    put_text(&message, 1, "M");
    put_taken(&message, 7, &options);
    mir_bytes file = make_file("a.proto", "a");
    put_taken(&file, 4, &message);
    put_taken(&set, 1, &file);
    return set;
}

static void equality_ignores_the_order_of_tags_only(void **state)
{
    (void)state;
    mir_bytes sets[3] = {tagged_set("x", "y"), tagged_set("y", "x"), tagged_set("x", "z")};
    mir_schema *schemas[3] = {0};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mir_schema_load(mir_bytes_as_view(&sets[i]), NULL, &schemas[i], NULL),
                         MIR_OK);
    }
    assert_true(mir_schema_equal(schemas[0], schemas[1]));
    assert_false(mir_schema_equal(schemas[0], schemas[2]));
    for (int i = 0; i < 3; i++) {
        mir_schema_unref(schemas[i]);
        mir_bytes_free(&sets[i]);
    }
}

static void absent_imports_matter_only_when_needed(void **state)
{
    (void)state;
    mir_bytes set = testing_read(SET("kinds"));
    mir_bytes less = reorder(mir_bytes_as_view(&set), false, "google/protobuf/descriptor.proto");
    mir_schema *schema = NULL;
    mir_error error = {0};
    assert_int_equal(mir_schema_load(mir_bytes_as_view(&less), NULL, &schema, &error), MIR_OK);
    mir_schema_unref(schema);
    mir_bytes_free(&less);
    less = reorder(mir_bytes_as_view(&set), false, "google/protobuf/duration.proto");
    const char *text = load_error(mir_bytes_as_view(&less), NULL, MIR_E_INVALID);
    assert_non_null(strstr(text, "kinds.v1.WellKnown.duration"));
    assert_non_null(strstr(text, "google/protobuf/duration.proto"));
    mir_bytes_free(&less);
    mir_bytes_free(&set);
}

/* As built at run time by a device: no labels, no json names, names relative to the scope, a path
 * that has nothing to do with the package. */
static void relative_type_names_resolve_outwards(void **state)
{
    (void)state;
    mir_bytes file = make_file("swarm.ns.pump/group.proto", "swarm.ns.pump");
    put_message(&file, "Inner", "some_value", NULL);
    mir_bytes outer = {0}, nested = {0};
    put_text(&outer, 1, "Outer");
    mir_bytes field = make_field("a", 1, MIR_KIND_MESSAGE, "Inner");
    put_taken(&outer, 2, &field);
    field = make_field("b", 2, 0, "pump.Inner");
    put_taken(&outer, 2, &field);
    field = make_field("c", 3, MIR_KIND_MESSAGE, "Nearer");
    put_taken(&outer, 2, &field);
    field = make_field("d", 4, MIR_KIND_MESSAGE, ".swarm.ns.pump.Inner");
    put_taken(&outer, 2, &field);
    put_text(&nested, 1, "Nearer");
    put_taken(&outer, 3, &nested);
    put_taken(&file, 4, &outer);
    put_message(&file, "Nearer", NULL, NULL);
    mir_bytes set = {0};
    put_taken(&set, 1, &file);
    mir_schema *schema = NULL;
    mir_error error = {0};
    if (mir_schema_load(mir_bytes_as_view(&set), NULL, &schema, &error) != MIR_OK) {
        fail_msg("%s", error.text);
    }
    const mir_schema_message *message = testing_message(schema, "swarm.ns.pump.Outer");
    assert_string_equal(message->fields[0].message->name, "swarm.ns.pump.Inner");
    assert_string_equal(message->fields[1].message->name, "swarm.ns.pump.Inner");
    assert_string_equal(message->fields[2].message->name, "swarm.ns.pump.Outer.Nearer");
    assert_string_equal(message->fields[3].message->name, "swarm.ns.pump.Inner");
    assert_int_equal(message->fields[1].kind, MIR_KIND_MESSAGE);
    assert_string_equal(message->fields[0].message->fields[0].json_name, "someValue");
    assert_false(message->fields[0].message->fields[0].is_repeated);
    mir_schema_unref(schema);
    mir_bytes_free(&set);
}

static void empty_set_is_a_schema(void **state)
{
    (void)state;
    mir_schema *schema = NULL;
    assert_int_equal(mir_schema_load((mir_view){NULL, 0}, NULL, &schema, NULL), MIR_OK);
    uint32_t count = 1;
    (void)mir_schema_messages(schema, &count);
    assert_int_equal(count, 0);
    const mir_schema_message *message;
    assert_int_equal(mir_schema_find(schema, MIR_VIEW_LITERAL("a"), &message, NULL),
                     MIR_E_NOT_FOUND);
    mir_schema_unref(schema);
}

static void contradictions_name_the_culprit(void **state)
{
    (void)state;
    mir_bytes set = {0};
    for (int i = 0; i < 2; i++) {
        mir_bytes file = make_file("same.proto", "a");
        put_taken(&set, 1, &file);
    }
    assert_non_null(strstr(load_error(mir_bytes_as_view(&set), NULL, MIR_E_INVALID),
                           "\"same.proto\" is in the set twice"));
    mir_bytes_free(&set);

    mir_bytes file = make_file("a.proto", "a");
    put_message(&file, "M", "f", NULL);
    put_message(&file, "M", "f", NULL);
    put_taken(&set, 1, &file);
    assert_non_null(
        strstr(load_error(mir_bytes_as_view(&set), NULL, MIR_E_INVALID), "\"a.M\" is declared"));
    mir_bytes_free(&set);

    file = make_file("a.proto", "a");
    mir_bytes message = {0};
    put_text(&message, 1, "M");
    mir_bytes field = make_field("one", 7, MIR_KIND_INT32, NULL);
    put_taken(&message, 2, &field);
    field = make_field("two", 7, MIR_KIND_INT32, NULL);
    put_taken(&message, 2, &field);
    put_taken(&file, 4, &message);
    put_taken(&set, 1, &file);
    const char *text = load_error(mir_bytes_as_view(&set), NULL, MIR_E_INVALID);
    assert_string_equal(text, "message \"a.M\": fields \"one\" and \"two\" have the number 7");
    mir_bytes_free(&set);

    file = make_file("a.proto", "a");
    put_message(&file, "M", "f", "b.Missing");
    put_taken(&set, 1, &file);
    text = load_error(mir_bytes_as_view(&set), NULL, MIR_E_INVALID);
    assert_string_equal(text, "field \"a.M.f\": its type \"b.Missing\" is not in the set");
    mir_bytes_free(&set);

    const char *paths[] = {"a.proto", "b.proto", "c.proto"};
    for (int i = 0; i < 3; i++) {
        file = make_file(paths[i], NULL);
        put_text(&file, 3, paths[(i + 1) % 3]);
        put_taken(&set, 1, &file);
    }
    text = load_error(mir_bytes_as_view(&set), NULL, MIR_E_INVALID);
    assert_string_equal(text, "import cycle: \"a.proto\" imported by \"c.proto\" imported by "
                              "\"b.proto\" imported by \"a.proto\"");
    mir_bytes_free(&set);

    file = make_file("a.proto", NULL);
    put_text(&file, 12, "editions");
    put_taken(&set, 1, &file);
    text = load_error(mir_bytes_as_view(&set), NULL, MIR_E_UNSUPPORTED);
    assert_string_equal(text, "\"a.proto\": syntax \"editions\" is not supported");
    mir_bytes_free(&set);

    file = make_file("a.proto", "a");
    put_message(&file, "not a name", NULL, NULL);
    put_taken(&set, 1, &file);
    text = load_error(mir_bytes_as_view(&set), NULL, MIR_E_INVALID);
    assert_non_null(strstr(text, "\"not a name\" is not a name"));
    mir_bytes_free(&set);

    file = make_file("a.proto", "a");
    message = (mir_bytes){0};
    put_text(&message, 1, "M");
    field = make_field("f", 0, MIR_KIND_INT32, NULL);
    put_taken(&message, 2, &field);
    put_taken(&file, 4, &message);
    put_taken(&set, 1, &file);
    text = load_error(mir_bytes_as_view(&set), NULL, MIR_E_INVALID);
    assert_non_null(strstr(text, "field \"a.M.f\": number 0"));
    mir_bytes_free(&set);
}

static void bombs_are_refused_within_bounds(void **state)
{
    (void)state;
    mir_bytes nested = {0};
    put_text(&nested, 1, "Deep");
    for (int i = 0; i < 200; i++) {
        mir_bytes outer = {0};
        put_text(&outer, 1, "Deep");
        put_taken(&outer, 3, &nested);
        nested = outer;
    }
    mir_bytes file = make_file("deep.proto", NULL), set = {0};
    put_taken(&file, 4, &nested);
    put_taken(&set, 1, &file);
    assert_non_null(
        strstr(load_error(mir_bytes_as_view(&set), NULL, MIR_E_TOO_LARGE), "deeper than 32"));
    mir_bytes_free(&set);

    /* A million empty fields in two megabytes. */
    mir_bytes message = {0};
    put_text(&message, 1, "Wide");
    for (int i = 0; i < 1000000; i++) mir_pbwire_put_bytes(&message, 2, (mir_view){NULL, 0});
    file = make_file("wide.proto", NULL);
    put_taken(&file, 4, &message);
    put_taken(&set, 1, &file);
    assert_non_null(
        strstr(load_error(mir_bytes_as_view(&set), NULL, MIR_E_TOO_LARGE), "more than 65536"));
    mir_bytes_free(&set);

    file = make_file("many.proto", NULL);
    for (int i = 0; i < 5000; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "M%d", i);
        put_message(&file, name, NULL, NULL);
    }
    put_taken(&set, 1, &file);
    assert_non_null(
        strstr(load_error(mir_bytes_as_view(&set), NULL, MIR_E_TOO_LARGE), "more than 4096"));
    mir_schema_limits limits = MIR_SCHEMA_LIMITS_DEFAULT;
    limits.set_bytes_max = 1000;
    (void)load_error(mir_bytes_as_view(&set), &limits, MIR_E_TOO_LARGE);
    limits = MIR_SCHEMA_LIMITS_DEFAULT;
    limits.message_count_max = 10000;
    limits.memory_bytes_max = set.size + 100000;
    (void)load_error(mir_bytes_as_view(&set), &limits, MIR_E_TOO_LARGE);
    mir_bytes_free(&set);
}

static void truncated_sets_are_refused(void **state)
{
    (void)state;
    mir_bytes set = testing_read(SET("environment"));
    for (size_t size = 1; size < set.size; size++) {
        mir_schema *schema = NULL;
        mir_error error;
        mir_status status = mir_schema_load(mir_view_of(set.data, size), NULL, &schema, &error);
        /* Only a cut between two files leaves a set, and then something may be unresolved. */
        if (status == MIR_OK) mir_schema_unref(schema);
    }
    for (size_t i = 0; i < set.size; i++) {
        mir_schema *schema = NULL;
        set.data[i] ^= 0x55;
        mir_status status = mir_schema_load(mir_bytes_as_view(&set), NULL, &schema, NULL);
        if (status == MIR_OK) mir_schema_unref(schema);
        set.data[i] ^= 0x55;
    }
    mir_bytes_free(&set);
    (void)load_error(MIR_VIEW_LITERAL("\x0a\x05"), NULL, MIR_E_INVALID);
    (void)load_error(MIR_VIEW_LITERAL("\x0a\x01\x0a"), NULL, MIR_E_INVALID);
    (void)load_error(MIR_VIEW_LITERAL("\x0a\x00"), NULL, MIR_E_INVALID);
}

static void labels_follow_the_paths(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("kinds"));
    static const char *const expected[][2] = {
        {"__tag_area", "east, \"1=2\""},
        {"__tag_inner.deep.value.side", "left"},
        {"__tag_inner.more.value.side", "left"},
        {"__tag_inner.named.value.value.side", "left"},
        {"__tag_inners.deep.value.side", "left"},
        {"__tag_inners.more.value.side", "left"},
        {"__tag_inners.named.value.value.side", "left"},
        {"__tag_other.deep.value.side", "left"},
        {"__tag_other.more.value.side", "left"},
        {"__tag_other.named.value.value.side", "left"},
        {"__tag_room", "kitchen"},
        {"__unit_inner.deep.value", "bar"},
        {"__unit_inner.more.value", "bar"},
        {"__unit_inner.named.value.value", "bar"},
        {"__unit_inners.deep.value", "bar"},
        {"__unit_inners.more.value", "bar"},
        {"__unit_inners.named.value.value", "bar"},
        {"__unit_other.deep.value", "bar"},
        {"__unit_other.more.value", "bar"},
        {"__unit_other.named.value.value", "bar"},
    };
    mir_arena arena = {0};
    const mir_schema_label *labels = NULL;
    uint32_t count = 0;
    assert_int_equal(
        mir_schema_labels(testing_message(schema, "kinds.v1.Outer"), &arena, &labels, &count),
        MIR_OK);
    assert_int_equal(count, sizeof expected / sizeof *expected);
    for (uint32_t i = 0; i < count; i++) {
        if (!mir_view_eq_cstr(labels[i].key, expected[i][0]) ||
            !mir_view_eq_cstr(labels[i].value, expected[i][1])) {
            fail_msg("%.*s=%.*s", MIR_VIEW_ARGS(labels[i].key), MIR_VIEW_ARGS(labels[i].value));
        }
    }
    /* A type inside itself ends. */
    assert_int_equal(
        mir_schema_labels(testing_message(schema, "kinds.v1.Tree"), &arena, &labels, &count),
        MIR_OK);
    assert_int_equal(count, 0);
    mir_arena_free(&arena);
    mir_schema_unref(schema);
}

static void stored_names_lead_back_to_fields(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("kinds"));
    static const struct {
        const char *message, *name, *unit;
        mir_schema_kind kind; /* 0: none */
    } cases[] = {
        {"kinds.v1.Lists", "packed_0", "rpm", MIR_KIND_INT32},
        {"kinds.v1.Lists", "packed_12", "rpm", MIR_KIND_INT32},
        {"kinds.v1.Lists", "packed_", NULL, 0},
        {"kinds.v1.Lists", "packed", NULL, 0},
        {"kinds.v1.Lists", "packed_1x", NULL, 0},
        {"kinds.v1.Lists", "leaves_3.x", "mm", MIR_KIND_INT32},
        {"kinds.v1.Lists", "leaves_3.name", NULL, MIR_KIND_STRING},
        {"kinds.v1.Lists", "leaves_3", NULL, 0},
        {"kinds.v1.Maps", "by_text_any.key_at all", "V", MIR_KIND_INT32},
        {"kinds.v1.Maps", "by_text_", "V", MIR_KIND_INT32},
        {"kinds.v1.Maps", "by_bool_true", NULL, MIR_KIND_DOUBLE},
        {"kinds.v1.Maps", "leaves_7.x", "mm", MIR_KIND_INT32},
        {"kinds.v1.Maps", "leaves_7.z", NULL, 0},
        {"kinds.v1.Outer", "inner.deep.value", "bar", MIR_KIND_DOUBLE},
        {"kinds.v1.Outer", "inners_1.named_a.b.value", "bar", MIR_KIND_DOUBLE},
        {"kinds.v1.Outer", "after", NULL, MIR_KIND_INT32},
        {"kinds.v1.Outer", "inner", NULL, 0},
        {"kinds.v1.Outer", "", NULL, 0},
        {"kinds.v1.Scalars", "f_mode", NULL, MIR_KIND_ENUM},
        {"kinds.v1.Tree", "children_0.children_1.value", NULL, MIR_KIND_INT32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mir_schema_origin origin = {0};
        mir_status status = mir_schema_origin_of(testing_message(schema, cases[i].message),
                                                 mir_view_cstr(cases[i].name), &origin);
        if (status != (cases[i].kind == 0 ? MIR_E_NOT_FOUND : MIR_OK))
            fail_msg("%s", cases[i].name);
        if (status != MIR_OK) continue;
        assert_int_equal(origin.field->kind, cases[i].kind);
        if (cases[i].unit == NULL) {
            assert_null(origin.unit);
        } else {
            assert_string_equal(origin.unit, cases[i].unit);
        }
    }
    mir_schema_unref(schema);
}

/* As if in another version the fields with these numbers had had these names. */
static uint32_t number_of_other_name(void *context, const mir_schema_message *type, mir_view name)
{
    (void)context;
    static const struct {
        const char *type, *name;
        uint32_t number;
    } others[] = {
        {"kinds.v1.Leaf", "width", 1},       {"kinds.v1.Leaf", "name", 2},
        {"kinds.v1.Lists", "speeds", 1},     {"kinds.v1.Lists", "old_leaves", 4},
        {"kinds.v1.Maps", "volts", 1},       {"kinds.v1.Maps", "by_id", 4},
        {"kinds.v1.Outer", "core", 1},       {"kinds.v1.Outer.Inner.Deep", "pressure", 1},
        {"kinds.v1.Outer.Inner", "of", 4},   {"kinds.v1.Scalars", "f_old_int", 3},
        {"kinds.v1.Scalars", "no_more", 99},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(others[i].type, type->name) == 0 && mir_view_eq_cstr(name, others[i].name))
            return others[i].number;
    }
    return 0;
}

static void names_of_other_versions_lead_to_those_of_today(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("kinds"));
    static const struct {
        const char *message, *stored, *today; /* null: none */
    } cases[] = {
        {"kinds.v1.Scalars", "f_old_int", "f_int32"},
        {"kinds.v1.Scalars", "f_double", "f_double"},
        {"kinds.v1.Scalars", "f_older_int", NULL},
        {"kinds.v1.Scalars", "no_more", NULL},
        {"kinds.v1.Lists", "speeds_12", "packed_12"},
        {"kinds.v1.Lists", "speeds", NULL},
        {"kinds.v1.Lists", "leaves_3.width", "leaves_3.x"},
        {"kinds.v1.Lists", "old_leaves_3.width", "leaves_3.x"},
        {"kinds.v1.Lists", "old_leaves_x.width", NULL},
        /* That is its name today, whatever had it before. */
        {"kinds.v1.Lists", "leaves_3.name", "leaves_3.name"},
        {"kinds.v1.Maps", "volts_left.bank", "by_text_left.bank"},
        {"kinds.v1.Maps", "by_id_7.width", "leaves_7.x"},
        {"kinds.v1.Outer", "core.deep.pressure", "inner.deep.value"},
        {"kinds.v1.Outer", "inners_1.of_a.b.pressure", "inners_1.named_a.b.value"},
        {"kinds.v1.Outer", "", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[MIR_SCHEMA_PATH_BYTES_MAX];
        size_t size = 0;
        const mir_status status = mir_schema_name_today(testing_message(schema, cases[i].message),
                                                        mir_view_cstr(cases[i].stored),
                                                        number_of_other_name, NULL, name, &size);
        assert_int_equal(status, cases[i].today == NULL ? MIR_E_NOT_FOUND : MIR_OK);
        if (status != MIR_OK) continue;
        if (!mir_view_eq_cstr(mir_view_of(name, size), cases[i].today))
            fail_msg("%s: %.*s", cases[i].stored, (int)size, name);
    }
    mir_schema_unref(schema);
}

static void references_keep_the_schema(void **state)
{
    (void)state;
    mir_schema *schema = testing_load(SET("environment"));
    mir_schema *again = mir_schema_ref(schema);
    mir_schema_unref(schema);
    assert_int_equal(mir_schema_file_count(again), 3);
    assert_true(mir_schema_memory_bytes(again) > 10000);
    mir_schema_unref(again);
    mir_schema_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sample_set_loads),
        cmocka_unit_test(names_that_are_no_messages_are_refused),
        cmocka_unit_test(short_names_are_found_when_unique),
        cmocka_unit_test(every_construct_is_understood),
        cmocka_unit_test(proto2_is_understood),
        cmocka_unit_test(timestamp_option_counts_in_telemetry_only),
        cmocka_unit_test(files_come_in_any_order),
        cmocka_unit_test(kept_copy_is_fresh),
        cmocka_unit_test(equality_ignores_the_order_of_tags_only),
        cmocka_unit_test(absent_imports_matter_only_when_needed),
        cmocka_unit_test(relative_type_names_resolve_outwards),
        cmocka_unit_test(empty_set_is_a_schema),
        cmocka_unit_test(contradictions_name_the_culprit),
        cmocka_unit_test(bombs_are_refused_within_bounds),
        cmocka_unit_test(truncated_sets_are_refused),
        cmocka_unit_test(labels_follow_the_paths),
        cmocka_unit_test(stored_names_lead_back_to_fields),
        cmocka_unit_test(names_of_other_versions_lead_to_those_of_today),
        cmocka_unit_test(references_keep_the_schema),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
