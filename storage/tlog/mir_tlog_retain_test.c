/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_oracle.h"
#include "mir_tlog_retain.h"

/* Time here is what `now_ns` says. A row's value is its number, and its time START + number. */

enum { DEVICES = 4 };

static const int64_t MINUTE_NS = 60 * MIR_NS_PER_S;
static const int64_t HOUR_NS = 3600 * MIR_NS_PER_S;
static const int64_t DAY_NS = INT64_C(86400) * MIR_NS_PER_S;
static const int64_t START_NS = INT64_C(1790035200) * MIR_NS_PER_S; /* midnight */

static _Atomic int64_t now_ns;
static _Atomic bool state_fails;
static const char *_Atomic namespace_b;

static const char *const device_names[DEVICES] = {"a", "b", "c", "gone"};
static const mir_column one_int[] = {{"i", 1, MIR_COLUMN_I64}};
static const mir_column int_and_text[] = {{"i", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}};

static int64_t wall_ns(void)
{
    return now_ns;
}

static mir_status namespace_of(void *context, mir_view device, mir_bytes *name_space)
{
    assert_ptr_equal(context, &now_ns);
    if (state_fails) return MIR_E_IO;
    const char *found = NULL;
    if (mir_view_eq_cstr(device, "a")) found = "plant-1";
    if (mir_view_eq_cstr(device, "b")) found = namespace_b;
    if (mir_view_eq_cstr(device, "c")) found = "lab";
    if (found == NULL) return MIR_E_NOT_FOUND;
    mir_bytes_append(name_space, found, strlen(found));
    return mir_bytes_ok(name_space) ? MIR_OK : MIR_E_NO_MEMORY;
}

typedef struct fixture {
    sim_disk *disk;
    mir_tlog_options options;
    mir_tlog *tlog;
    mir_row row;
} fixture;

static void reopen(fixture *x)
{
    mir_error error = {{0}};
    if (mir_tlog_open(&x->options, &x->tlog, &error) != MIR_OK) fail_msg("%s", error.text);
}

static void begin(fixture *x, const mir_tlog_rule *rules, uint32_t rule_count, uint64_t age_ns)
{
    mir_log_set_level(MIR_LOG_ERROR);
    now_ns = START_NS;
    state_fails = false;
    namespace_b = "plant-2";
    *x = (fixture){.disk = sim_disk_new(11)};
    x->options = (mir_tlog_options){.directory = "/tlog",
                                    .files = &x->disk->files,
                                    .log_bytes_max = 8 << 20,
                                    .sync_ms = 1,
                                    .rules = rules,
                                    .rule_count = rule_count,
                                    .retention_age_ns = age_ns,
                                    .namespace_of = namespace_of,
                                    .namespace_context = &now_ns,
                                    .wall_ns = wall_ns};
    assert_int_equal(mir_row_init(&x->row, 4, 4, 1024), MIR_OK);
    reopen(x);
}

static void end(fixture *x)
{
    mir_tlog_close(x->tlog);
    mir_row_fini(&x->row);
    sim_disk_free(x->disk);
}

static void put(fixture *x, const char *message, uint32_t device, int64_t minute)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    mir_tlog_series *series;
    const bool text = minute % 3 == 0;
    assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr(device_names[device]),
                                          mir_view_cstr(message), text ? int_and_text : one_int,
                                          text ? 2 : 1, &series),
                     MIR_OK);
    x->row.time_ns = START_NS + minute * MINUTE_NS;
    x->row.column_count = text ? 2 : 1;
    x->row.dynamic_count = 0;
    x->row.present[0] = 3;
    x->row.cells[0].i64 = minute;
    x->row.cells[1].string = mir_view_cstr("so it is");
    assert_int_equal(mir_tlog_append(writer, series, &x->row), MIR_OK);
}

static void freeze(fixture *x)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    while (mir_tlog_freeze(writer) != MIR_OK) {
        assert_true(mir_clock_mono_ns() < until);
        sim_pause_us(200);
    }
}

static void settle(fixture *x)
{
    mir_error error = {{0}};
    if (mir_tlog_settle(x->tlog, 60000, &error) != MIR_OK) fail_msg("settle: %s", error.text);
}

/* All series have a row each minute of so many hours. */
static void fill(fixture *x, int64_t from_hour, int64_t to_hour)
{
    for (int64_t minute = from_hour * 60; minute < to_hour * 60; minute++) {
        for (uint32_t d = 0; d < DEVICES; d++) {
            put(x, "env.v1.Temp", d, minute);
            put(x, "audit.v1.Entry", d, minute);
        }
        assert_int_equal(mir_tlog_commit_turn(mir_tlog_writer_of(x->tlog, 0), NULL), MIR_OK);
    }
    freeze(x);
    settle(x);
}

/* Which rows of a series are there: they must be the last ones, whole and without a hole. */
static int64_t first_of(fixture *x, const char *message, uint32_t device, int64_t minutes)
{
    const mir_view id = mir_view_cstr(device_names[device]);
    const mir_tlog_query_spec spec = {.device_ids = &id,
                                      .device_count = 1,
                                      .measurement = mir_view_cstr(message),
                                      .from_ns = INT64_MIN,
                                      .to_ns = INT64_MAX};
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    mir_tlog_query_info info;
    assert_int_equal(mir_tlog_query(x->tlog, &spec, &to, &info, NULL), MIR_OK);
    assert_int_equal(info.chunks_corrupt, 0);
    assert_false(sink.disordered);
    assert_true(sink.rows <= (uint64_t)minutes);
    int64_t minute = minutes - (int64_t)sink.rows;
    const int64_t first = minute;
    for (size_t i = 0; i < sink.answer.count; minute++) {
        const oracle_field *field = &sink.answer.fields[i++];
        assert_int_equal(field->time_ns, START_NS + minute * MINUTE_NS);
        assert_int_equal(field->bits, minute);
        if (minute % 3 != 0) continue;
        assert_true(i < sink.answer.count);
        field = &sink.answer.fields[i++];
        assert_string_equal(field->name, "s");
        assert_int_equal(field->bits, mir_hash_view(mir_view_cstr("so it is")));
    }
    assert_int_equal(minute, minutes);
    oracle_free(&sink.answer);
    return first;
}

static void check(fixture *x, const char *message, int64_t hours, const int64_t *first)
{
    for (uint32_t d = 0; d < DEVICES; d++) {
        const int64_t found = first_of(x, message, d, hours * 60);
        if (found != first[d]) {
            fail_msg("%s of %s begins at %lld, not at %lld", message, device_names[d],
                     (long long)found, (long long)first[d]);
        }
    }
}

static mir_tlog_rule rule(const char *name_space, const char *message, int64_t age)
{
    return (mir_tlog_rule){.name_space = mir_view_cstr(name_space),
                           .measurement = mir_view_cstr(message),
                           .age_ns = (uint64_t)age};
}

static void the_first_rule_that_fits_counts(void **state)
{
    (void)state;
    mir_tlog_rule rules[] = {rule("", "audit.*", 0),
                             rule("plant-*", "env.v1.*", 4 * HOUR_NS),
                             rule("plant-1", "", HOUR_NS),
                             {.deleted = true}};
    rules[3].age_ns = (uint64_t)(2 * HOUR_NS);
    fixture x;
    begin(&x, rules, 4, (uint64_t)(8 * HOUR_NS));
    fill(&x, 0, 10);
    /* Nothing is past its age. */
    now_ns = START_NS + 2 * HOUR_NS;
    settle(&x);
    const int64_t all[DEVICES] = {0};
    check(&x, "env.v1.Temp", 10, all);
    now_ns = START_NS + 10 * HOUR_NS;
    settle(&x);
    const int64_t rest[DEVICES] = {6 * 60, 6 * 60, 2 * 60, 8 * 60};
    check(&x, "env.v1.Temp", 10, rest);
    check(&x, "audit.v1.Entry", 10, all);
    mir_tlog_retention told;
    mir_tlog_retention_read(x.tlog, &told);
    const uint64_t removed[] = {0, 2 * 6 * 60, 0, 8 * 60, 2 * 60};
    for (size_t i = 0; i < 5; i++) assert_int_equal(told.rows_removed[i], removed[i]);
    assert_int_equal(told.rows_removed_size, 0);
    assert_true(told.bytes_removed > 0);
    assert_int_equal(told.removed_ns, now_ns);
    assert_int_equal(told.run_ns, now_ns);
    assert_int_equal(told.oldest_ns, START_NS);
    assert_int_equal(told.rows, 2 * 10 * 60 * DEVICES - 2 * 6 * 60 - 8 * 60 - 2 * 60);
    /* The same after a start. */
    mir_tlog_close(x.tlog);
    reopen(&x);
    settle(&x);
    check(&x, "env.v1.Temp", 10, rest);
    check(&x, "audit.v1.Entry", 10, all);
    end(&x);
}

static void a_device_comes_under_the_rule_of_where_it_is_now(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "", HOUR_NS)};
    fixture x;
    begin(&x, rules, 1, 0);
    namespace_b = "lab";
    fill(&x, 0, 4);
    now_ns = START_NS + 4 * HOUR_NS;
    settle(&x);
    const int64_t before[DEVICES] = {180, 0, 0, 0};
    check(&x, "env.v1.Temp", 4, before);
    namespace_b = "plant-9";
    settle(&x);
    const int64_t after[DEVICES] = {180, 180, 0, 0};
    check(&x, "env.v1.Temp", 4, after);
    check(&x, "audit.v1.Entry", 4, after);
    end(&x);
}

static void rows_stay_while_it_is_not_known_whose_they_are(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "env.*", HOUR_NS),
                                   {.deleted = true, .age_ns = 3600000000000}};
    fixture x;
    begin(&x, rules, 2, (uint64_t)HOUR_NS);
    fill(&x, 0, 2);
    state_fails = true;
    now_ns = START_NS + 300 * HOUR_NS;
    settle(&x);
    const int64_t all[DEVICES] = {0};
    check(&x, "env.v1.Temp", 2, all);
    check(&x, "audit.v1.Entry", 2, all);
    state_fails = false;
    settle(&x);
    const int64_t none[DEVICES] = {120, 120, 120, 120};
    check(&x, "env.v1.Temp", 2, none);
    end(&x);
}

/* A segment is not written anew for each row that is past its age, but in time. */
static void removal_waits_for_enough_and_not_for_ever(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("", "env.*", 4 * HOUR_NS)};
    fixture x;
    begin(&x, rules, 1, 0);
    fill(&x, 0, 4);
    const uint64_t id = x.tlog->version->segments[0]->head.id;
    const int64_t all[DEVICES] = {0};
    now_ns = START_NS + 5 * HOUR_NS;
    settle(&x);
    check(&x, "env.v1.Temp", 4, all);
    assert_int_equal(x.tlog->version->segments[0]->head.id, id);
    now_ns = START_NS + 5 * HOUR_NS + 1;
    settle(&x);
    const int64_t rest[DEVICES] = {61, 61, 61, 61};
    check(&x, "env.v1.Temp", 4, rest);
    check(&x, "audit.v1.Entry", 4, all);
    /* Without being asked, once it is due. */
    now_ns = START_NS + 30 * HOUR_NS;
    const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    while (first_of(&x, "env.v1.Temp", 0, 240) != 240) {
        assert_true(mir_clock_mono_ns() < until);
        sim_pause_us(1000);
    }
    check(&x, "audit.v1.Entry", 4, all);
    end(&x);
}

static void whole_days_are_dropped_and_not_written_anew(void **state)
{
    (void)state;
    fixture x;
    begin(&x, NULL, 0, (uint64_t)(8 * DAY_NS));
    for (int64_t day = 0; day < 3; day++) fill(&x, day * 24, day * 24 + 24);
    assert_int_equal(x.tlog->version->segment_count, 3);
    const uint64_t next = x.tlog->next_number;
    const int64_t all[DEVICES] = {0};
    for (int64_t hour = 8 * 24; hour <= 9 * 24; hour += 4) {
        now_ns = START_NS + hour * HOUR_NS - MINUTE_NS;
        settle(&x);
        check(&x, "env.v1.Temp", 72, all);
    }
    now_ns = START_NS + 9 * DAY_NS;
    settle(&x);
    const int64_t rest[DEVICES] = {1440, 1440, 1440, 1440};
    check(&x, "env.v1.Temp", 72, rest);
    assert_int_equal(x.tlog->next_number, next);
    mir_tlog_retention told;
    mir_tlog_retention_read(x.tlog, &told);
    assert_int_equal(told.rows_removed[0], 2 * 1440 * DEVICES);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segments_dropped, 1);
    end(&x);
}

/* Rows that came late, and twice, in other segments than the first ones. */
static void late_rows_and_later_values_end_alike(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("", "env.*", 2 * HOUR_NS)};
    fixture x;
    begin(&x, rules, 1, 0);
    for (int turn = 0; turn < 3; turn++) {
        for (int64_t minute = turn; minute < 240; minute += turn == 2 ? 1 : 2) {
            put(&x, "env.v1.Temp", 1, minute);
        }
        freeze(&x);
        settle(&x);
    }
    assert_int_equal(first_of(&x, "env.v1.Temp", 1, 240), 0);
    now_ns = START_NS + 4 * HOUR_NS;
    settle(&x);
    assert_int_equal(first_of(&x, "env.v1.Temp", 1, 240), 120);
    /* And one that was past its age when it came. */
    put(&x, "env.v1.Temp", 1, 7);
    freeze(&x);
    settle(&x);
    assert_int_equal(first_of(&x, "env.v1.Temp", 1, 240), 120);
    end(&x);
}

/* What a power cut leaves has all that must be there, and nothing by halves. */
static void a_power_cut_at_any_change_keeps_what_is_to_be_kept(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "env.*", HOUR_NS)};
    uint64_t changes = 4;
    uint64_t failures = 0;
    for (uint64_t at = 1; at <= changes; at++) {
        fixture x;
        begin(&x, rules, 1, 0);
        fill(&x, 0, 2);
        (void)pthread_mutex_lock(&x.disk->mutex);
        const uint64_t before = x.disk->calls;
        x.disk->fail_at = before + at;
        x.disk->fail_count = 1000000;
        x.disk->fail_errno = EIO;
        (void)pthread_mutex_unlock(&x.disk->mutex);
        now_ns = START_NS + 2 * HOUR_NS;
        settle(&x);
        (void)pthread_mutex_lock(&x.disk->mutex);
        /* How many a whole run has is seen when none of them failed. */
        if (x.disk->failed > 0) changes = at + 1;
        failures += x.disk->failed > 0;
        (void)pthread_mutex_unlock(&x.disk->mutex);
        const int64_t all[DEVICES] = {0};
        const int64_t rest[DEVICES] = {60, 60, 0, 0};
        const int64_t found = first_of(&x, "env.v1.Temp", 0, 120);
        assert_true(found == 0 || found == 60);
        check(&x, "env.v1.Temp", 2, found == 0 ? all : rest);
        sim_disk *after = sim_power_cut(x.disk, at);
        mir_tlog_close(x.tlog);
        sim_disk_free(x.disk);
        x.disk = after;
        x.options.files = &after->files;
        now_ns = START_NS;
        reopen(&x);
        const int64_t left = first_of(&x, "env.v1.Temp", 0, 120);
        assert_true(left == 0 || left == 60);
        check(&x, "env.v1.Temp", 2, left == 0 ? all : rest);
        check(&x, "audit.v1.Entry", 2, all);
        now_ns = START_NS + 2 * HOUR_NS;
        settle(&x);
        check(&x, "env.v1.Temp", 2, rest);
        check(&x, "audit.v1.Entry", 2, all);
        end(&x);
    }
    assert_true(failures > 4);
}

static void damage_keeps_its_segment_until_all_of_it_is_past_its_age(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "env.*", HOUR_NS), rule("lab", "", 3 * HOUR_NS)};
    fixture x;
    begin(&x, rules, 2, (uint64_t)(4 * HOUR_NS));
    fill(&x, 0, 2);
    assert_int_equal(x.tlog->version->segment_count, 1);
    const uint64_t id = x.tlog->version->segments[0]->head.id;
    char name[32];
    (void)snprintf(name, sizeof name, "%016llx.seg", (unsigned long long)id);
    (void)pthread_mutex_lock(&x.disk->mutex);
    const sim_entry *entry = sim_find(x.disk, name);
    assert_non_null(entry);
    entry->inode->data[MIR_TLOG_SEGMENT_HEADER_BYTES + 40] ^= 4; /* the first chunk */
    (void)pthread_mutex_unlock(&x.disk->mutex);
    now_ns = START_NS + 2 * HOUR_NS;
    settle(&x);
    assert_int_equal(x.tlog->version->segments[0]->head.id, id);
    assert_int_equal(first_of(&x, "env.v1.Temp", 0, 120), 0);
    now_ns = START_NS + 6 * HOUR_NS;
    settle(&x);
    assert_int_equal(x.tlog->version->segment_count, 0);
    end(&x);
}

static void a_low_disk_is_not_filled_with_copies(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "env.*", HOUR_NS)};
    fixture x;
    begin(&x, rules, 1, 0);
    fill(&x, 0, 2);
    mir_tlog_close(x.tlog);
    x.options.disk_reserve_bytes = 1000;
    atomic_store(&x.disk->free_bytes, 500);
    now_ns = START_NS + 2 * HOUR_NS;
    reopen(&x);
    settle(&x);
    assert_int_equal(first_of(&x, "env.v1.Temp", 0, 120), 0);
    atomic_store(&x.disk->free_bytes, 5000);
    mir_tlog_disk_watch(x.tlog);
    settle(&x);
    assert_int_equal(first_of(&x, "env.v1.Temp", 0, 120), 60);
    end(&x);
}

/* Nor is one that is not low, but would be when they are written. */
static void copies_leave_the_disk_its_reserve(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "env.*", HOUR_NS)};
    fixture x;
    begin(&x, rules, 1, 0);
    fill(&x, 0, 2);
    mir_tlog_close(x.tlog);
    x.options.disk_reserve_bytes = 1000;
    atomic_store(&x.disk->free_bytes, 1200);
    now_ns = START_NS + 2 * HOUR_NS;
    reopen(&x);
    settle(&x);
    assert_false(atomic_load(&x.tlog->disk_low));
    assert_int_equal(first_of(&x, "env.v1.Temp", 0, 120), 0);
    atomic_store(&x.disk->free_bytes, 5000);
    settle(&x);
    assert_int_equal(first_of(&x, "env.v1.Temp", 0, 120), 60);
    end(&x);
}

/* A small disk is not all reserve, nor is half of the reserve then. */
static void what_a_copy_may_take_depends_on_the_disk(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "env.*", HOUR_NS)};
    fixture x;
    begin(&x, rules, 1, 0);
    fill(&x, 0, 2);
    mir_tlog_close(x.tlog);
    x.options.disk_reserve_bytes = 1 << 20;
    atomic_store(&x.disk->disk_bytes, 16000);
    atomic_store(&x.disk->free_bytes, 900);
    now_ns = START_NS + 2 * HOUR_NS;
    reopen(&x);
    settle(&x);
    assert_int_equal(first_of(&x, "env.v1.Temp", 0, 120), 0);
    atomic_store(&x.disk->free_bytes, 5000);
    mir_tlog_disk_watch(x.tlog);
    settle(&x);
    assert_int_equal(first_of(&x, "env.v1.Temp", 0, 120), 60);
    end(&x);
}

/* What was looked at while the clock was years ahead is not forgotten until then. */
static void a_clock_that_was_ahead_delays_nothing(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "", HOUR_NS)};
    fixture x;
    begin(&x, rules, 1, 0);
    namespace_b = "lab";
    fill(&x, 0, 4);
    now_ns = START_NS + 80000 * HOUR_NS;
    settle(&x);
    settle(&x);
    now_ns = START_NS + 4 * HOUR_NS;
    namespace_b = "plant-9";
    const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    while (first_of(&x, "env.v1.Temp", 1, 240) != 180) {
        assert_true(mir_clock_mono_ns() < until);
        sim_pause_us(1000);
    }
    end(&x);
}

static mir_tlog_retention told(fixture *x)
{
    mir_tlog_retention now;
    mir_tlog_retention_read(x->tlog, &now);
    return now;
}

/* By what a rule fits, wherever it stands; and a damaged count costs itself alone. */
static void what_was_removed_is_counted_over_restarts(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "env.*", HOUR_NS),
                                   rule("", "audit.*", 2 * HOUR_NS)};
    const mir_tlog_rule swapped[] = {
        {.deleted = true, .age_ns = 9000 * UINT64_C(3600000000000)}, rules[1], rules[0]};
    fixture x;
    begin(&x, rules, 2, 0);
    fill(&x, 0, 4);
    now_ns = START_NS + 4 * HOUR_NS;
    settle(&x);
    const mir_tlog_retention before = told(&x);
    assert_int_equal(before.rows_removed[0], 2 * 180);
    assert_int_equal(before.rows_removed[1], 4 * 120);
    assert_int_equal(before.since_ns, START_NS);
    mir_tlog_close(x.tlog);
    x.options.rules = swapped;
    x.options.rule_count = 3;
    reopen(&x);
    mir_tlog_retention after = told(&x);
    const uint64_t expected[] = {0, before.rows_removed[1], before.rows_removed[0], 0};
    for (int i = 0; i < 4; i++) assert_int_equal(after.rows_removed[i], expected[i]);
    assert_int_equal(after.bytes_removed, before.bytes_removed);
    assert_int_equal(after.removed_ns, before.removed_ns);
    assert_int_equal(after.since_ns, START_NS);
    mir_tlog_close(x.tlog);
    /* Each byte of it, and each length. */
    int handle;
    uint64_t size;
    uint8_t whole[1024];
    const mir_tlog_files *files = &x.disk->files;
    assert_int_equal(files->open(x.disk, "/tlog/RETENTION", &handle), 0);
    assert_int_equal(files->size(x.disk, handle, &size), 0);
    assert_true(size < sizeof whole);
    assert_int_equal(mir_tlog_file_read(files, handle, whole, size, 0), 0);
    (void)files->close(x.disk, handle);
    for (uint64_t at = 0; at < size; at += 5) {
        uint8_t bad[sizeof whole];
        bool in_doubt;
        memcpy(bad, whole, size);
        bad[at] ^= 64;
        const bool cut = at % 2 == 0;
        assert_int_equal(mir_tlog_file_replace(files, "/tlog", "RETENTION",
                                               mir_view_of(cut ? whole : bad, cut ? at : size),
                                               &in_doubt, NULL),
                         MIR_OK);
        reopen(&x);
        assert_int_equal(told(&x).bytes_removed, 0);
        assert_int_equal(told(&x).since_ns, now_ns);
        mir_tlog_close(x.tlog);
    }
    reopen(&x);
    end(&x);
}

/* Late rows that replace earlier ones are in a segment of their own, with older times than the rest of
 * the first one: that goes before them. */
static void what_was_replaced_does_not_come_back(void **state)
{
    (void)state;
    fixture x;
    begin(&x, NULL, 0, 0);
    mir_tlog_close(x.tlog);
    x.options.idle_ms = 1000000; /* no merges */
    reopen(&x);
    for (int64_t minute = 0; minute < 600; minute++) put(&x, "env.v1.Temp", 0, minute);
    freeze(&x);
    settle(&x);
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr(device_names[0]),
                                          mir_view_cstr("env.v1.Temp"), one_int, 1, &series),
                     MIR_OK);
    for (int64_t minute = 0; minute < 100; minute++) {
        x.row.time_ns = START_NS + minute * MINUTE_NS;
        x.row.column_count = 1;
        x.row.dynamic_count = 0;
        x.row.present[0] = 1;
        x.row.cells[0].i64 = -1;
        assert_int_equal(mir_tlog_append(writer, series, &x.row), MIR_OK);
    }
    freeze(&x);
    settle(&x);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segments, 2);
    mir_tlog_close(x.tlog);
    x.options.retention_bytes_max = stats.segment_bytes - 1;
    reopen(&x);
    settle(&x);
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segments, 1);
    const mir_view id = mir_view_cstr(device_names[0]);
    const mir_view field = mir_view_cstr("i");
    const mir_tlog_query_spec spec = {.device_ids = &id,
                                      .device_count = 1,
                                      .measurement = mir_view_cstr("env.v1.Temp"),
                                      .fields = &field,
                                      .field_count = 1,
                                      .from_ns = INT64_MIN,
                                      .to_ns = START_NS + 100 * MINUTE_NS};
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    assert_int_equal(mir_tlog_query(x.tlog, &spec, &to, NULL, NULL), MIR_OK);
    for (size_t i = 0; i < sink.answer.count; i++)
        assert_int_equal((int64_t)sink.answer.fields[i].bits, -1);
    oracle_free(&sink.answer);
    end(&x);
}

enum { MODEL_MINUTES = 8 * 1440, MESSAGES = 2 };

/* What is known of a row. */
typedef struct model_row {
    int64_t value; /* 0: it never came */
    bool may_be_gone;
} model_row;

typedef struct model {
    fixture x;
    uint64_t random;
    int64_t values;
    model_row rows[MESSAGES][DEVICES][MODEL_MINUTES];
} model;

static const char *const model_messages[MESSAGES] = {"env.v1.Temp", "audit.v1.Entry"};

static void model_put(model *m, int64_t minute)
{
    const uint64_t r = sim_random(&m->random);
    const uint32_t message = (uint32_t)(r % MESSAGES);
    const uint32_t device = (uint32_t)(r / MESSAGES % DEVICES);
    if (minute < 0 || minute >= MODEL_MINUTES) return;
    mir_tlog_writer *writer = mir_tlog_writer_of(m->x.tlog, 0);
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr(device_names[device]),
                                          mir_view_cstr(model_messages[message]), one_int, 1,
                                          &series),
                     MIR_OK);
    mir_row *row = &m->x.row;
    row->time_ns = START_NS + minute * MINUTE_NS;
    row->column_count = 1;
    row->dynamic_count = 0;
    row->present[0] = 1;
    row->cells[0].i64 = ++m->values;
    assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
    m->rows[message][device][minute] = (model_row){.value = m->values};
}

/* 0: for ever. By the rules of `whatever_happens_rows_go_in_time`. */
static int64_t model_age(uint32_t message, uint32_t device)
{
    mir_bytes name_space = {0};
    const bool there =
        namespace_of(&now_ns, mir_view_cstr(device_names[device]), &name_space) == MIR_OK;
    const bool is_plant = there && name_space.size > 5 && memcmp(name_space.data, "plant-", 6) == 0;
    mir_bytes_free(&name_space);
    if (is_plant && message == 0) return 5 * HOUR_NS;
    if (!there) return 30 * HOUR_NS;
    return message == 1 ? 0 : 2 * DAY_NS;
}

/* Rows within their age are there, with the value that came last; those that are past it for longer than
 * is promised are not, and no other value of theirs is. */
static void model_check(model *m, uint64_t seed, int turn)
{
    for (uint32_t message = 0; message < MESSAGES; message++) {
        for (uint32_t device = 0; device < DEVICES; device++) {
            const int64_t age_ns = model_age(message, device);
            const int64_t slack_ns = (int64_t)mir_tlog_retain_slack_ns((uint64_t)age_ns);
            const mir_view id = mir_view_cstr(device_names[device]);
            const mir_tlog_query_spec spec = {.device_ids = &id,
                                              .device_count = 1,
                                              .measurement = mir_view_cstr(model_messages[message]),
                                              .from_ns = INT64_MIN,
                                              .to_ns = INT64_MAX};
            oracle_sink sink = {0};
            const mir_tlog_sink to = oracle_sink_of(&sink);
            assert_int_equal(mir_tlog_query(m->x.tlog, &spec, &to, NULL, NULL), MIR_OK);
            assert_false(sink.disordered);
            size_t at = 0;
            for (int64_t minute = 0; minute < MODEL_MINUTES; minute++) {
                model_row *row = &m->rows[message][device][minute];
                const int64_t time_ns = START_NS + minute * MINUTE_NS;
                const bool is_there =
                    at < sink.answer.count && sink.answer.fields[at].time_ns == time_ns;
                const int64_t found = is_there ? (int64_t)sink.answer.fields[at++].bits : 0;
                const bool old = age_ns != 0 && time_ns < now_ns - age_ns;
                const bool overdue = old && time_ns < now_ns - age_ns - slack_ns;
                row->may_be_gone = row->may_be_gone || old;
                const bool right = found == row->value ? row->value == 0 || !overdue
                                                       : found == 0 && row->may_be_gone;
                if (right) continue;
                fail_msg("seed %d, turn %d: %s of %s at minute %d (now %d): %d, want %d%s",
                         (int)seed, turn, model_messages[message], device_names[device],
                         (int)minute, (int)((now_ns - START_NS) / MINUTE_NS), (int)found,
                         (int)row->value, overdue ? " or none" : "");
            }
            assert_int_equal(at, sink.answer.count);
            oracle_free(&sink.answer);
        }
    }
}

/* Rows come, late ones and some again and again, devices move, the clock goes on and back, the program
 * ends and starts. */
static void whatever_happens_rows_go_in_time(void **state)
{
    (void)state;
    const mir_tlog_rule rules[] = {rule("plant-*", "env.*", 5 * HOUR_NS),
                                   {.deleted = true, .age_ns = (uint64_t)(30 * HOUR_NS)},
                                   rule("", "audit.*", 0)};
    const char *more = getenv("MIR_TEST_SEEDS");
    const uint64_t seeds = more == NULL ? 2 : strtoull(more, NULL, 10);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        model *m = calloc(1, sizeof *m);
        m->random = seed;
        begin(&m->x, rules, 3, (uint64_t)(2 * DAY_NS));
        int64_t newest = 1440;
        for (int turn = 0; turn < 60; turn++) {
            const uint64_t r = sim_random(&m->random);
            for (uint64_t n = r % 200; n > 0; n--) {
                const uint64_t q = sim_random(&m->random);
                const int64_t back =
                    q % 16 == 0 ? (int64_t)(q >> 8) % 3000 : (int64_t)(q >> 8) % 90;
                model_put(m, newest - back);
            }
            now_ns = START_NS + newest * MINUTE_NS;
            if ((r >> 8) % 8 == 0) now_ns -= (int64_t)(r >> 16) % (5 * HOUR_NS);
            if ((r >> 12) % 8 == 0) namespace_b = (r >> 15 & 1) != 0 ? "plant-9" : "lab";
            freeze(&m->x);
            settle(&m->x);
            if ((r >> 20) % 8 == 0) {
                mir_tlog_close(m->x.tlog);
                m->x.options.idle_ms = (r >> 23 & 1) != 0 ? 1 : 1000000;
                reopen(&m->x);
                settle(&m->x);
            }
            model_check(m, seed, turn);
            newest += (r >> 24) % 3 == 0 ? (int64_t)(r >> 32) % 500 : (int64_t)(r >> 32) % 60;
        }
        end(&m->x);
        free(m);
    }
}

static void rules_that_cannot_be_are_refused(void **state)
{
    (void)state;
    mir_tlog_rule rules[] = {{.name_space = mir_view_cstr("a"), .deleted = true}};
    sim_disk *disk = sim_disk_new(3);
    mir_tlog_options options = {.directory = "/tlog",
                                .files = &disk->files,
                                .rules = rules,
                                .rule_count = 1,
                                .namespace_of = namespace_of};
    mir_tlog *tlog;
    mir_error error = {{0}};
    assert_int_equal(mir_tlog_open(&options, &tlog, &error), MIR_E_INVALID);
    assert_non_null(strstr(error.text, "no namespace"));
    options.rule_count = MIR_TLOG_RULES_MAX + 1;
    assert_int_equal(mir_tlog_open(&options, &tlog, &error), MIR_E_INVALID);
    assert_non_null(strstr(error.text, "at most"));
    sim_disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_rule_that_fits_counts),
        cmocka_unit_test(a_device_comes_under_the_rule_of_where_it_is_now),
        cmocka_unit_test(rows_stay_while_it_is_not_known_whose_they_are),
        cmocka_unit_test(removal_waits_for_enough_and_not_for_ever),
        cmocka_unit_test(whole_days_are_dropped_and_not_written_anew),
        cmocka_unit_test(late_rows_and_later_values_end_alike),
        cmocka_unit_test(a_power_cut_at_any_change_keeps_what_is_to_be_kept),
        cmocka_unit_test(damage_keeps_its_segment_until_all_of_it_is_past_its_age),
        cmocka_unit_test(a_low_disk_is_not_filled_with_copies),
        cmocka_unit_test(copies_leave_the_disk_its_reserve),
        cmocka_unit_test(what_a_copy_may_take_depends_on_the_disk),
        cmocka_unit_test(a_clock_that_was_ahead_delays_nothing),
        cmocka_unit_test(what_was_removed_is_counted_over_restarts),
        cmocka_unit_test(what_was_replaced_does_not_come_back),
        cmocka_unit_test(whatever_happens_rows_go_in_time),
        cmocka_unit_test(rules_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
