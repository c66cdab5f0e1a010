/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_clock.h"
#include "mir_command_store.h"
#include "mir_event_testing.h"

static const int64_t day_ns = INT64_C(24) * 3600 * MIR_NS_PER_S;

static int set_up(void **state)
{
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    *state = f;
    for (int i = 0; i < 3; i++) {
        char device[64];
        (void)snprintf(device, sizeof device, "{\"spec\": {\"deviceId\": \"d%d\"}}", i);
        assert_int_equal(create(f, device), MIR_OK);
    }
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

/* Queues one; its number. */
static uint64_t queue(fixture *f, const char *device, const char *payload, int64_t expires_ns)
{
    char id[MIR_COMMAND_ID_BYTES_MAX];
    assert_int_equal(mir_command_id_new(id), MIR_OK);
    mir_command_add one = {.id = id,
                           .device_id = mir_view_cstr(device),
                           .message = "p.v1.Go",
                           .payload = mir_view_cstr(payload),
                           .expires_ns = expires_ns,
                           .timeout_s = 5};
    mir_command_adds adds = {&one, 1};
    mir_event_cause cause = {.actor = MIR_VIEW_LITERAL("anna")};
    f->request.cause = &cause;
    mir_command_prepare_add(&f->request, &adds);
    assert_int_equal(run(f), MIR_OK);
    f->request.cause = NULL;
    if (one.status != MIR_OK) return 0;
    assert_string_equal(one.record->actor, "anna");
    assert_int_equal(mir_command_state_of(one.record), MIR_COMMAND_QUEUED);
    return one.record->number;
}

static mir_status step(fixture *f, uint64_t number, mir_command_state from, mir_command_state to)
{
    mir_command_step one = {.number = number, .from = from, .to = to};
    if (to == MIR_COMMAND_DONE) {
        one.response_name = "p.v1.Gone";
        one.response_payload = MIR_VIEW_LITERAL("r");
    }
    if (to == MIR_COMMAND_FAILED) one.error = "it is stuck";
    mir_command_steps steps = {&one, 1};
    f->request.cause = NULL;
    mir_command_prepare_steps(&f->request, &steps);
    assert_int_equal(run(f), MIR_OK);
    return one.status;
}

static uint64_t first_of(fixture *f, const char *device)
{
    mir_command_record *record;
    mir_error error;
    mir_status status =
        mir_command_first(f->state, mir_view_cstr(device), &f->arena, &record, &error);
    if (status == MIR_E_NOT_FOUND) return 0;
    assert_int_equal(status, MIR_OK);
    return record->number;
}

static size_t listed(fixture *f, const mir_command_filter *filter, mir_command_record ***records)
{
    mir_command_listing list = {0};
    mir_error error;
    /* Two at a time: in parts it is what it would be at once. */
    while (!list.is_over)
        assert_int_equal(mir_command_list(f->state, filter, 2, &f->arena, &list, &error), MIR_OK);
    assert_int_equal(list.cut, filter->rows_max != 0 && list.count == filter->rows_max);
    *records = list.records;
    return list.count;
}

static void commands_of_a_device_wait_in_the_order_of_queueing(void **state)
{
    fixture *f = *state;
    int64_t later_ns = mir_clock_wall_ns() + day_ns;
    uint64_t one = queue(f, "d0", "a", later_ns), other = queue(f, "d1", "b", later_ns),
             two = queue(f, "d0", "c", later_ns);
    assert_true(one < other && other < two);
    assert_int_equal(first_of(f, "d0"), one);
    assert_int_equal(step(f, one, MIR_COMMAND_QUEUED, MIR_COMMAND_SENT), MIR_OK);
    assert_int_equal(first_of(f, "d0"), one);
    assert_int_equal(step(f, one, MIR_COMMAND_SENT, MIR_COMMAND_DONE), MIR_OK);
    assert_int_equal(first_of(f, "d0"), two);
    assert_int_equal(first_of(f, "d1"), other);
    assert_int_equal(first_of(f, "d2"), 0);
    /* Ids that begin alike are other devices. */
    assert_int_equal(first_of(f, "d"), 0);
    assert_int_equal(queue(f, "nobody", "", later_ns), 0);
}

static void a_command_moves_on_once(void **state)
{
    fixture *f = *state;
    uint64_t number = queue(f, "d0", "a", mir_clock_wall_ns() + day_ns);
    assert_int_equal(step(f, number, MIR_COMMAND_QUEUED, MIR_COMMAND_SENT), MIR_OK);
    assert_int_equal(step(f, number, MIR_COMMAND_QUEUED, MIR_COMMAND_SENT), MIR_E_EXISTS);
    assert_int_equal(step(f, number, MIR_COMMAND_QUEUED, MIR_COMMAND_CANCELLED), MIR_E_EXISTS);
    assert_int_equal(step(f, number, MIR_COMMAND_SENT, MIR_COMMAND_FAILED), MIR_OK);
    assert_int_equal(step(f, number, MIR_COMMAND_SENT, MIR_COMMAND_DONE), MIR_E_EXISTS);
    assert_int_equal(step(f, number + 1, MIR_COMMAND_SENT, MIR_COMMAND_DONE), MIR_E_NOT_FOUND);
    mir_command_record **records;
    assert_int_equal(listed(f, &(mir_command_filter){0}, &records), 1);
    assert_int_equal(records[0]->n_steps, 3);
    assert_string_equal(records[0]->error, "it is stuck");
    assert_null(records[0]->response_name);
}

static void what_is_queued_outlives_the_store(void **state)
{
    fixture *f = *state;
    uint64_t number = queue(f, "d0", "body", mir_clock_wall_ns() + day_ns);
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_OFF, 64 << 20);
    mir_command_record *record;
    mir_error error;
    assert_int_equal(mir_command_first(f->state, mir_view_cstr("d0"), &f->arena, &record, &error),
                     MIR_OK);
    assert_int_equal(record->number, number);
    assert_memory_equal(record->payload.data, "body", 4);
    assert_string_equal(record->message, "p.v1.Go");
    assert_int_equal(record->timeout_s, 5);
    assert_string_equal(record->namespace_, "default");
    assert_true(queue(f, "d0", "", mir_clock_wall_ns() + day_ns) > number);
}

static void lists_are_newest_first_and_narrowed(void **state)
{
    fixture *f = *state;
    int64_t later_ns = mir_clock_wall_ns() + day_ns;
    uint64_t numbers[6];
    for (int i = 0; i < 6; i++) numbers[i] = queue(f, i % 2 == 0 ? "d0" : "d1", "x", later_ns);
    assert_int_equal(step(f, numbers[2], MIR_COMMAND_QUEUED, MIR_COMMAND_CANCELLED), MIR_OK);
    mir_command_record **records;
    assert_int_equal(listed(f, &(mir_command_filter){0}, &records), 6);
    for (int i = 0; i < 6; i++) assert_int_equal(records[i]->number, numbers[5 - i]);
    const char *ids[] = {records[1]->id, "nothing"};
    const char *devices[] = {"d0", "d00"};
    assert_int_equal(
        listed(f, &(mir_command_filter){.device_ids = devices, .device_count = 2}, &records), 3);
    assert_int_equal(records[0]->number, numbers[4]);
    assert_int_equal(listed(f, &(mir_command_filter){.ids = ids, .id_count = 2}, &records), 1);
    assert_int_equal(records[0]->number, numbers[4]);
    assert_int_equal(
        listed(f, &(mir_command_filter){.states = 1u << MIR_COMMAND_CANCELLED}, &records), 1);
    assert_int_equal(records[0]->number, numbers[2]);
    assert_int_equal(listed(f, &(mir_command_filter){.rows_max = 2}, &records), 2);
    assert_int_equal(records[1]->number, numbers[4]);
}

static void what_is_over_its_time_is_due(void **state)
{
    fixture *f = *state;
    int64_t now_ns = mir_clock_wall_ns();
    mir_command_record **records;
    size_t count;
    int64_t next_ns;
    mir_error error;
    assert_int_equal(
        mir_command_due(f->state, now_ns, 10, &f->arena, &records, &count, &next_ns, &error),
        MIR_OK);
    assert_true(count == 0 && next_ns == INT64_MAX);
    uint64_t later = queue(f, "d0", "a", now_ns + day_ns);
    uint64_t sooner = queue(f, "d0", "b", now_ns + 1000);
    assert_int_equal(
        mir_command_due(f->state, now_ns, 10, &f->arena, &records, &count, &next_ns, &error),
        MIR_OK);
    assert_true(count == 0 && next_ns == now_ns + 1000);
    assert_int_equal(
        mir_command_due(f->state, now_ns + 1000, 10, &f->arena, &records, &count, &next_ns, &error),
        MIR_OK);
    assert_true(count == 1 && records[0]->number == sooner && next_ns == now_ns + day_ns);
    /* What was sent has no time any more: its answer is awaited. */
    assert_int_equal(step(f, later, MIR_COMMAND_QUEUED, MIR_COMMAND_SENT), MIR_OK);
    assert_int_equal(step(f, sooner, MIR_COMMAND_QUEUED, MIR_COMMAND_EXPIRED), MIR_OK);
    assert_int_equal(mir_command_due(f->state, now_ns + 2 * day_ns, 10, &f->arena, &records, &count,
                                     &next_ns, &error),
                     MIR_OK);
    assert_int_equal(count, 0);
    assert_true(next_ns > now_ns + 29 * day_ns && next_ns < now_ns + 31 * day_ns);
}

static void a_device_has_a_bounded_queue(void **state)
{
    fixture *f = *state;
    int64_t later_ns = mir_clock_wall_ns() + day_ns;
    static mir_command_add list_of[MIR_COMMANDS_WAITING_MAX + 1];
    for (size_t i = 0; i <= MIR_COMMANDS_WAITING_MAX; i++)
        list_of[i] = (mir_command_add){
            .device_id = MIR_VIEW_LITERAL("d0"), .message = "p.v1.Go", .expires_ns = later_ns};
    mir_command_adds adds = {list_of, MIR_COMMANDS_WAITING_MAX + 1};
    f->request.cause = NULL;
    mir_command_prepare_add(&f->request, &adds);
    assert_int_equal(run(f), MIR_OK);
    assert_int_equal(list_of[MIR_COMMANDS_WAITING_MAX - 1].status, MIR_OK);
    assert_int_equal(list_of[MIR_COMMANDS_WAITING_MAX].status, MIR_E_FULL);
    assert_true(queue(f, "d1", "a", later_ns) != 0);
}

static mir_status count_visit(void *ctx, const mir_command_record *record)
{
    assert_non_null(record->device_id);
    ++*(size_t *)ctx;
    return MIR_OK;
}

static void all_that_wait_are_visited(void **state)
{
    fixture *f = *state;
    int64_t later_ns = mir_clock_wall_ns() + day_ns;
    uint64_t done = queue(f, "d0", "a", later_ns), sent = queue(f, "d1", "b", later_ns);
    (void)queue(f, "d2", "c", later_ns);
    assert_int_equal(step(f, done, MIR_COMMAND_QUEUED, MIR_COMMAND_CANCELLED), MIR_OK);
    assert_int_equal(step(f, sent, MIR_COMMAND_QUEUED, MIR_COMMAND_SENT), MIR_OK);
    size_t count = 0;
    mir_error error;
    assert_int_equal(mir_command_waiting_each(f->state, count_visit, &count, &error), MIR_OK);
    assert_int_equal(count, 2);
}

static void an_event_is_stored_with_its_command_alone(void **state)
{
    fixture *f = *state;
    mir_event_item event;
    mir_error error;
    assert_int_equal(make(f, &(told){.reason = "CommandQueued"}, &event, &error), MIR_OK);
    mir_command_add list_of[2] = {
        {.id = "1", .device_id = MIR_VIEW_LITERAL("nobody"), .message = "p.v1.Go", .event = &event},
        {.id = "2", .device_id = MIR_VIEW_LITERAL("d0"), .message = "p.v1.Go", .event = &event}};
    mir_state_stats before, after;
    mir_state_stats_get(f->state, &before);
    mir_command_adds adds = {list_of, 1};
    f->request.cause = NULL;
    mir_command_prepare_add(&f->request, &adds);
    assert_int_equal(run(f), MIR_OK);
    assert_int_equal(list_of[0].status, MIR_E_NOT_FOUND);
    mir_state_stats_get(f->state, &after);
    assert_int_equal(after.event_sequence, before.event_sequence);
    adds = (mir_command_adds){list_of + 1, 1};
    f->request.cause = NULL;
    mir_command_prepare_add(&f->request, &adds);
    assert_int_equal(run(f), MIR_OK);
    mir_state_stats_get(f->state, &after);
    assert_int_equal(after.event_sequence, before.event_sequence + 1);
    assert_int_equal(event.sequence, after.event_sequence);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(commands_of_a_device_wait_in_the_order_of_queueing),
        TEST(a_command_moves_on_once),
        TEST(what_is_queued_outlives_the_store),
        TEST(lists_are_newest_first_and_narrowed),
        TEST(what_is_over_its_time_is_due),
        TEST(a_device_has_a_bounded_queue),
        TEST(all_that_wait_are_visited),
        TEST(an_event_is_stored_with_its_command_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
