/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_devices.h"

#include <pthread.h>
#include <stdatomic.h>

#include "mir_clock.h"
#include "mir_state_testing.h"

typedef struct world {
    fixture *store;
    mir_tlm_devices *devices;
} world;

static int set_up(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->store = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    assert_int_equal(mir_tlm_devices_create(w->store->state, &w->devices), MIR_OK);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    world *w = *state;
    mir_tlm_devices_destroy(w->devices);
    fixture_free(w->store);
    free(w);
    return 0;
}

static const mir_tlm_device_list *find(world *w, const char *target)
{
    const mir_view key = mir_view_cstr(target);
    const mir_tlm_device_list *found = NULL;
    mir_error error = {{0}};
    if (mir_tlm_devices_find(w->devices, &key, target_of(&w->store->arena, target), &found,
                             &error) != MIR_OK)
        fail_msg("%s", error.text);
    return found;
}

/* The ids of a target, joined with ','; and whether they came without a look into the store. */
static const char *ids_of(world *w, const char *target)
{
    const mir_tlm_device_list *found = find(w, target);
    mir_bytes text = {0};
    for (size_t i = 0; i < found->count; i++) {
        assert_true(mir_view_eq_cstr(found->ids[i], found->records[i]->device_id));
        mir_bytes_printf(&text, "%s%s", i == 0 ? "" : ",", found->records[i]->device_id);
    }
    mir_tlm_device_list_release(found);
    char *copy = mir_arena_strdup(&w->store->arena, mir_bytes_as_view(&text));
    mir_bytes_free(&text);
    return copy;
}

static bool is_remembered(world *w, const char *target)
{
    const mir_tlm_device_list *one = find(w, target);
    const mir_tlm_device_list *other = find(w, target);
    mir_tlm_device_list_release(one);
    mir_tlm_device_list_release(other);
    return one == other;
}

static void lists_are_remembered_in_order_of_ids(void **state)
{
    world *w = *state;
    add(w->store, "b", "x", "s");
    add(w->store, "a", "y", "s");
    add(w->store, "c", "w", "r");
    assert_string_equal(ids_of(w, "{}"), "a,b,c");
    assert_string_equal(ids_of(w, "{\"namespaces\":[\"s\"]}"), "a,b");
    assert_string_equal(ids_of(w, "{\"ids\":[\"nobody\"]}"), "");
    assert_true(is_remembered(w, "{}"));
    assert_true(is_remembered(w, "{\"ids\":[\"nobody\"]}"));
    /* Without a key it is read each time. */
    const mir_tlm_device_list *found[2];
    mir_error error = {{0}};
    for (int i = 0; i < 2; i++)
        assert_int_equal(mir_tlm_devices_find(w->devices, NULL, NULL, &found[i], &error), MIR_OK);
    assert_ptr_not_equal(found[0], found[1]);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(found[i]->count, 3);
        mir_tlm_device_list_release(found[i]);
    }
}

static void what_was_changed_is_seen_at_once(void **state)
{
    world *w = *state;
    static const char all[] = "{}";
    static const char blue[] = "{\"labels\":{\"colour\":\"blue\"}}";
    assert_string_equal(ids_of(w, all), "");
    add(w->store, "a", "a", "s");
    add(w->store, "b", "b", "s");
    assert_string_equal(ids_of(w, all), "a,b");
    assert_string_equal(ids_of(w, blue), "");
    assert_int_equal(update(w->store, "{\"ids\":[\"b\"]}", "{\"labels\":{\"colour\":\"blue\"}}"),
                     MIR_OK);
    assert_string_equal(ids_of(w, blue), "b");
    const mir_tlm_device_list *found = find(w, blue);
    assert_string_equal(label(found->records[0], "colour"), "blue");
    assert_string_equal(found->records[0]->namespace_, "s");
    assert_string_equal(found->records[0]->name, "b");
    assert_int_equal(update(w->store, "{\"ids\":[\"b\"]}", "{\"id\":\"z\"}"), MIR_OK);
    assert_string_equal(ids_of(w, blue), "z");
    /* Who holds the list of before has it as it was. */
    assert_string_equal(found->records[0]->device_id, "b");
    mir_tlm_device_list_release(found);
    assert_int_equal(update(w->store, "{\"ids\":[\"z\"]}", "{\"labels\":{\"colour\":\"red\"}}"),
                     MIR_OK);
    assert_string_equal(ids_of(w, blue), "");
    assert_int_equal(delete_them(w->store, "{\"ids\":[\"a\"]}"), MIR_OK);
    assert_string_equal(ids_of(w, all), "z");
}

/* A heartbeat is written every few minutes, of each device. */
static void what_no_target_means_leaves_lists_alone(void **state)
{
    world *w = *state;
    add(w->store, "a", "a", "s");
    mir_state_heartbeat beat = {.device_id = mir_view_cstr("a"), .at_ns = MIR_NS_PER_S};
    assert_int_equal(heartbeats(w->store, &beat, 1, false), MIR_OK);
    const uint64_t before = mir_state_changes_of_fleet(w->store->state);
    const mir_tlm_device_list *one = find(w, "{}");
    beat.at_ns += 600 * MIR_NS_PER_S;
    assert_int_equal(heartbeats(w->store, &beat, 1, true), MIR_OK);
    assert_int_equal(update(w->store, "{\"ids\":[\"a\"]}", "{\"annotations\":{\"k\":\"v\"}}"),
                     MIR_OK);
    const mir_tlm_device_list *other = find(w, "{}");
    assert_ptr_equal(one, other);
    assert_int_equal(mir_state_changes_of_fleet(w->store->state), before);
    mir_tlm_device_list_release(one);
    mir_tlm_device_list_release(other);
}

static void what_is_remembered_is_bounded(void **state)
{
    world *w = *state;
    add(w->store, "a", "a", "s");
    const mir_tlm_device_list *first = find(w, "{}");
    char target[64];
    for (int i = 0; i < 3 * MIR_TLM_DEVICES_KEPT; i++) {
        (void)snprintf(target, sizeof target, "{\"ids\":[\"a\",\"%d\"]}", i);
        assert_string_equal(ids_of(w, target), "a");
    }
    assert_true(is_remembered(w, target));
    /* Its place was taken, it is held all the same. */
    const mir_tlm_device_list *again = find(w, "{}");
    assert_ptr_not_equal(again, first);
    assert_string_equal(first->records[0]->device_id, "a");
    mir_tlm_device_list_release(first);
    mir_tlm_device_list_release(again);
    /* A list that is too large is not remembered: each of these has a label of some size. */
    static char many[6 << 20];
    static char value[1025];
    memset(value, 'v', sizeof value - 1);
    size_t size = 0;
    enum { DEVICES = MIR_TLM_DEVICES_LIST_BYTES_MAX / sizeof value + 1 };
    for (unsigned i = 0; i < DEVICES; i++) {
        size += (size_t)snprintf(many + size, sizeof many - size,
                                 "%s{\"meta\":{\"name\":\"n%u\",\"namespace\":\"t\",\"labels\":"
                                 "{\"l\":\"%s\"}},\"spec\":{\"deviceId\":\"n%u\"}}",
                                 i == 0 ? "[" : ",", i, value, i);
    }
    (void)snprintf(many + size, sizeof many - size, "]");
    if (create_many(w->store, many) != MIR_OK) fail_msg("%s", w->store->request.error);
    assert_false(is_remembered(w, "{\"namespaces\":[\"t\"]}"));
    assert_true(is_remembered(w, "{\"namespaces\":[\"s\"]}"));
}

typedef struct reader {
    world *world;
    mir_view target;
    MirApi__V1__DeviceTarget *parsed;
    atomic_bool *ends;
    uint64_t lists;
    pthread_t thread;
} reader;

static void *read_lists(void *context)
{
    reader *r = context;
    do {
        const mir_tlm_device_list *found = NULL;
        mir_error error = {{0}};
        if (mir_tlm_devices_find(r->world->devices, &r->target, r->parsed, &found, &error) !=
            MIR_OK)
            return NULL;
        for (size_t i = 0; i < found->count; i++)
            if (strcmp(found->records[i]->device_id, "a") != 0) return NULL;
        mir_tlm_device_list_release(found);
        r->lists++;
    } while (!atomic_load(r->ends));
    return r;
}

/* What threads find is either what was before a change or what is after it; and whoever looks after
 * the change was answered finds what is after it. */
static void many_may_look_while_it_changes(void **state)
{
    world *w = *state;
    enum { READERS = 3, CHANGES = 300 };
    atomic_bool ends = false;
    static const char text[] = "{\"labels\":{\"k\":\"v\"}}";
    add(w->store, "a", "a", "s");
    reader readers[READERS];
    for (int i = 0; i < READERS; i++) {
        readers[i] = (reader){.world = w,
                              .target = mir_view_cstr(text),
                              .parsed = target_of(&w->store->arena, text),
                              .ends = &ends};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_lists, &readers[i]), 0);
    }
    for (int i = 0; i < CHANGES; i++) {
        const bool there = i % 2 == 0;
        assert_int_equal(
            update(w->store, "{\"ids\":[\"a\"]}",
                   there ? "{\"labels\":{\"k\":\"v\"}}" : "{\"labels\":{\"k\":\"w\"}}"),
            MIR_OK);
        assert_string_equal(ids_of(w, text), there ? "a" : "");
    }
    atomic_store(&ends, true);
    for (int i = 0; i < READERS; i++) {
        void *result = NULL;
        assert_int_equal(pthread_join(readers[i].thread, &result), 0);
        assert_ptr_equal(result, &readers[i]);
        assert_true(readers[i].lists > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lists_are_remembered_in_order_of_ids, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_changed_is_seen_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_no_target_means_leaves_lists_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_remembered_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_may_look_while_it_changes, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
