/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_influx.h"

#include <math.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_state_testing.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_sim.h"

/* Queries against three devices and two measurements; what is expected was worked out by hand. */

static const int64_t start_s = 1700000000;

typedef struct world {
    fixture *store;
    sim_disk *disk;
    mir_tlog *tlog;
    mir_row row;
    mir_influx_request request;
    mir_influx_info info;
    mir_status status;
} world;

static const mir_column columns[] = {
    {"level", 5, MIR_COLUMN_I64},   {"temperature", 11, MIR_COLUMN_F64},
    {"note", 4, MIR_COLUMN_STRING}, {"big", 3, MIR_COLUMN_U64},
    {"on", 2, MIR_COLUMN_BOOL},
};

typedef struct report {
    const char *device;
    int second;
    int64_t level; /* -1: absent, as NaN and null are */
    double temperature;
    const char *note;
} report;

static void append(world *w, const char *measurement, const report *r)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(w->tlog, 0);
    mir_tlog_series *series = NULL;
    assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr(r->device),
                                          mir_view_cstr(measurement), columns, 5, &series),
                     MIR_OK);
    mir_row *row = &w->row;
    row->time_ns = (start_s + r->second) * MIR_NS_PER_S;
    row->column_count = 5;
    row->dynamic_count = 0;
    row->present[0] = 0;
    row->cells[0].i64 = r->level;
    row->cells[1].f64 = r->temperature;
    if (r->level >= 0) mir_row_set_present(row, 0);
    if (!isnan(r->temperature)) mir_row_set_present(row, 1);
    if (r->note != NULL) {
        row->cells[2].string = mir_view_cstr(r->note);
        row->cells[3].u64 = UINT64_MAX;
        row->cells[4].boolean = true;
        row->present[0] |= 4 | 8 | 16;
    }
    assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
    mir_tlog_series_close(writer, series);
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
}

static world *world_new(void)
{
    static const report env[] = {
        {"a", 0, 10, 1, NULL},     {"a", 5, 20, 2, NULL},   {"a", 10, 30, 3, NULL},
        {"a", 25, 60, 6, NULL},    {"b", 0, -1, 5.5, NULL}, {"b", 10, -1, 7, NULL},
        {"c", 3, -1, NAN, "x\"y"},
    };
    static const report wind[] = {{"a", 1, 1, 0.5, NULL}};
    mir_log_set_level(MIR_LOG_ERROR);
    world *w = calloc(1, sizeof *w);
    w->store = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    assert_int_equal(create(w->store, "{\"meta\":{\"name\":\"pump-1\",\"namespace\":\"plant\","
                                      "\"labels\":{\"site\":\"north\"}},"
                                      "\"spec\":{\"deviceId\":\"a\"}}"),
                     MIR_OK);
    assert_int_equal(create(w->store, "{\"meta\":{\"name\":\"pump-2\",\"namespace\":\"plant\","
                                      "\"labels\":{\"site\":\"south\",\"a b\":\"c,d\"}},"
                                      "\"spec\":{\"deviceId\":\"b\"}}"),
                     MIR_OK);
    add(w->store, "c", "valve", "plant");
    add(w->store, "silent", "silent", "default");
    w->disk = sim_disk_new(7);
    const mir_tlog_options options = {.directory = "/tlog",
                                      .files = &w->disk->files,
                                      .writer_count = 1,
                                      .log_bytes_max = 8 << 20,
                                      .sync_ms = 1};
    mir_error error = {{0}};
    if (mir_tlog_open(&options, &w->tlog, &error) != MIR_OK) fail_msg("%s", error.text);
    assert_int_equal(mir_row_init(&w->row, 16, 16, 1024), MIR_OK);
    for (size_t i = 0; i < sizeof env / sizeof env[0]; i++) append(w, "env.v1.Air", &env[i]);
    append(w, "wind.v1.Wind", &wind[0]);
    w->request = (mir_influx_request){.state = w->store->state,
                                      .tlog = w->tlog,
                                      .now_ns = (start_s + 100) * MIR_NS_PER_S,
                                      .epoch_ns = MIR_NS_PER_S,
                                      .memory_bytes_max = 16 << 20,
                                      .answer_bytes_max = 1 << 20};
    return w;
}

static void world_free(world *w)
{
    mir_tlog_close(w->tlog);
    mir_row_fini(&w->row);
    sim_disk_free(w->disk);
    fixture_free(w->store);
    free(w);
}

static mir_bytes ask(world *w, const char *query)
{
    mir_bytes answer = {0};
    w->request.text = mir_view_cstr(query);
    w->status = mir_influx_answer(&w->request, &answer, &w->info);
    mir_bytes_u8(&answer, 0);
    return answer;
}

static void expect(world *w, const char *query, const char *wanted)
{
    mir_bytes answer = ask(w, query);
    if (strcmp((const char *)answer.data, wanted) != 0)
        fail_msg("%s\nis   %s\nwant %s", query, answer.data, wanted);
    mir_bytes_free(&answer);
}

/* One statement's series, in short: what stands between the brackets. */
static void expect_series(world *w, const char *query, const char *series)
{
    mir_bytes wanted = {0};
    mir_bytes_text(&wanted, "{\"results\":[{\"statement_id\":0");
    if (series[0] != '\0') mir_bytes_printf(&wanted, ",\"series\":[%s]", series);
    mir_bytes_text(&wanted, "}]}\n");
    mir_bytes_u8(&wanted, 0);
    expect(w, query, (const char *)wanted.data);
    mir_bytes_free(&wanted);
}

static void expect_error(world *w, const char *query, const char *says)
{
    mir_bytes answer = ask(w, query);
    if (strstr((const char *)answer.data, "\"error\":\"") == NULL ||
        strstr((const char *)answer.data, says) == NULL)
        fail_msg("%s\nis   %s\nwant %s", query, answer.data, says);
    mir_bytes_free(&answer);
}

static int setup(void **state)
{
    *state = world_new();
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    return 0;
}

static void names_are_listed(void **state)
{
    world *w = *state;
    expect_series(w, "SHOW DATABASES",
                  "{\"name\":\"databases\",\"columns\":[\"name\"],\"values\":[[\"mir\"]]}");
    expect_series(w, "SHOW RETENTION POLICIES ON \"mir\"",
                  "{\"columns\":[\"name\",\"duration\",\"shardGroupDuration\",\"replicaN\","
                  "\"default\"],\"values\":[[\"autogen\",\"0s\",\"168h0m0s\",1,true]]}");
    expect_series(w, "SHOW MEASUREMENTS",
                  "{\"name\":\"measurements\",\"columns\":[\"name\"],\"values\":[[\"env.v1.Air\"],"
                  "[\"wind.v1.Wind\"]]}");
    expect_series(
        w, "SHOW MEASUREMENTS WITH MEASUREMENT =~ /(?i)AIR/ LIMIT 100",
        "{\"name\":\"measurements\",\"columns\":[\"name\"],\"values\":[[\"env.v1.Air\"]]}");
    expect_series(
        w, "SHOW MEASUREMENTS WHERE \"__name\" = 'pump-1' OFFSET 1",
        "{\"name\":\"measurements\",\"columns\":[\"name\"],\"values\":[[\"wind.v1.Wind\"]]"
        "}");
    expect_series(
        w, "SHOW MEASUREMENTS WHERE \"__name\" = 'valve'",
        "{\"name\":\"measurements\",\"columns\":[\"name\"],\"values\":[[\"env.v1.Air\"]]}");
    expect_series(w, "SHOW MEASUREMENTS WHERE \"__name\" = 'nobody'", "");
    expect_series(w, "SHOW FIELD KEYS FROM \"env.v1.Air\"",
                  "{\"name\":\"env.v1.Air\",\"columns\":[\"fieldKey\",\"fieldType\"],\"values\":[["
                  "\"big\",\"unsigned\"],[\"level\",\"integer\"],[\"note\",\"string\"],[\"on\","
                  "\"boolean\"],[\"temperature\",\"float\"]]}");
    expect_series(w, "SHOW TAG KEYS FROM \"wind.v1.Wind\"",
                  "{\"name\":\"wind.v1.Wind\",\"columns\":[\"tagKey\"],\"values\":[[\"__id\"],"
                  "[\"__name\"],[\"__namespace\"],[\"site\"]]}");
    expect_series(
        w, "SHOW TAG VALUES FROM \"env.v1.Air\" WITH KEY = \"__name\"",
        "{\"name\":\"env.v1.Air\",\"columns\":[\"key\",\"value\"],\"values\":[[\"__name\","
        "\"pump-1\"],[\"__name\",\"pump-2\"],[\"__name\",\"valve\"]]}");
    expect_series(w, "SHOW TAG VALUES WITH KEY IN (\"site\") WHERE \"__id\" != 'b'",
                  "{\"name\":\"env.v1.Air\",\"columns\":[\"key\",\"value\"],\"values\":[[\"site\","
                  "\"north\"]]},{\"name\":\"wind.v1.Wind\",\"columns\":[\"key\",\"value\"],"
                  "\"values\":[[\"site\",\"north\"]]}");
    expect_series(w, "SHOW TAG VALUES FROM /wind/ WITH KEY =~ /^__n/",
                  "{\"name\":\"wind.v1.Wind\",\"columns\":[\"key\",\"value\"],\"values\":[["
                  "\"__name\",\"pump-1\"],[\"__namespace\",\"plant\"]]}");
    expect_series(
        w, "SHOW SERIES FROM \"env.v1.Air\" WHERE site != 'north'",
        "{\"columns\":[\"key\"],\"values\":[[\"env.v1.Air,__id=b,__name=pump-2,__namespace="
        "plant,a\\\\ b=c\\\\,d,site=south\"],[\"env.v1.Air,__id=c,__name=valve,__namespace="
        "plant\"]]}");
    /* As of a time after the last row. */
    expect_series(w, "SHOW TAG KEYS FROM \"wind.v1.Wind\" WHERE time > now() - 1s", "");
}

#define AIR           "\"env.v1.Air\""
#define HEAD(columns) "{\"name\":\"env.v1.Air\",\"columns\":[\"time\"," columns "],\"values\":"

static void rows_come_as_they_are(void **state)
{
    world *w = *state;
    expect_series(w, "SELECT temperature FROM " AIR " WHERE __id = 'a'",
                  HEAD("\"temperature\"") "[[1700000000,1],[1700000005,2],[1700000010,3],"
                                          "[1700000025,6]]}");
    expect_series(
        w,
        "SELECT temperature, level, __name FROM " AIR " WHERE time < 1700000005s AND site =~ /./",
        HEAD("\"temperature\",\"level\",\"__name\"") "[[1700000000,1,10,\"pump-1\"],"
                                                     "[1700000000,5.5,null,\"pump-2\"]]}");
    expect_series(w, "SELECT * FROM " AIR " WHERE __name = 'valve'",
                  HEAD("\"__id\",\"__name\",\"__namespace\",\"big\",\"level\",\"note\",\"on\","
                       "\"temperature\"") "[[1700000003,\"c\",\"valve\",\"plant\","
                                          "18446744073709551615,null,\"x\\\"y\",true,null]]}");
    expect_series(
        w, "SELECT *::field FROM " AIR " WHERE __name = 'valve' AND \"on\" = ''",
        HEAD("\"big\",\"level\",\"note\",\"on\",\"temperature\"") "[[1700000003,"
                                                                  "18446744073709551615,null,"
                                                                  "\"x\\\"y\",true,null]]}");
    expect_series(w, "SELECT temperature FROM " AIR " ORDER BY time DESC LIMIT 2",
                  HEAD("\"temperature\"") "[[1700000025,6],[1700000010,7]]}");
    expect_series(w, "SELECT temperature FROM " AIR " LIMIT 2 OFFSET 1",
                  HEAD("\"temperature\"") "[[1700000000,5.5],[1700000005,2]]}");
    expect_series(
        w, "SELECT temperature AS t FROM " AIR " GROUP BY \"__name\" LIMIT 1",
        "{\"name\":\"env.v1.Air\",\"tags\":{\"__name\":\"pump-1\"},\"columns\":[\"time\",\"t\"],"
        "\"values\":[[1700000000,1]]},{\"name\":\"env.v1.Air\",\"tags\":{\"__name\":\"pump-2\"},"
        "\"columns\":[\"time\",\"t\"],\"values\":[[1700000000,5.5]]}");
    expect_series(
        w,
        "SELECT temperature * 2 - 1, level / 4, level % 4, level + 1, temperature FROM " AIR
        " WHERE __id = 'a' LIMIT 1",
        HEAD(
            "\"temperature\",\"level\",\"level_1\",\"level_2\",\"temperature_1\"") "[[1700000000,1,"
                                                                                   "2.5,2,11,1]]}");
    expect_series(w, "SELECT big + 1, big / 0 FROM " AIR " WHERE __id = 'c'",
                  HEAD("\"big\",\"big_1\"") "[[1700000003,18446744073709552000,null]]}");
    expect_series(
        w, "SELECT difference(level), derivative(temperature, 10s) FROM " AIR " WHERE __id = 'a'",
        HEAD("\"difference\",\"derivative\"") "[[1700000005,10,2],[1700000010,10,2],"
                                              "[1700000025,30,2]]}");
    expect_series(w,
                  "SELECT moving_average(level, 2), cumulative_sum(level) FROM " AIR
                  " WHERE __id = 'a' ORDER BY time DESC LIMIT 3",
                  HEAD("\"moving_average\",\"cumulative_sum\"") "[[1700000025,45,120],[1700000010,"
                                                                "25,60],[1700000005,15,30]]}");
    expect_series(
        w, "SELECT temperature FROM " AIR " GROUP BY site ORDER BY time DESC LIMIT 1 OFFSET 1",
        "{\"name\":\"env.v1.Air\",\"tags\":{\"site\":\"north\"},\"columns\":[\"time\","
        "\"temperature\"],\"values\":[[1700000010,3]]},{\"name\":\"env.v1.Air\",\"tags\":{\"site\":"
        "\"south\"},\"columns\":[\"time\",\"temperature\"],\"values\":[[1700000000,5.5]]}");
    expect_series(w, "SELECT nothing FROM " AIR, "");
    expect_series(w, "SELECT temperature FROM nothing", "");
    expect_series(w, "SELECT time, level FROM " AIR " WHERE time = 1700000005s",
                  HEAD("\"level\"") "[[1700000005,20]]}");
    expect_series(w, "SELECT temperature FROM " AIR " WHERE time > 5 AND time < 5", "");
}

static void windows_are_filled(void **state)
{
    world *w = *state;
    const char *range = " WHERE __id = 'a' AND time >= 1700000000s AND time < 1700000040s ";
    char query[512];
    static const struct {
        const char *fill, *values;
    } cases[] = {
        {"", "[[1700000000,1.5],[1700000010,3],[1700000020,6],[1700000030,null]]}"},
        {"fill(none)", "[[1700000000,1.5],[1700000010,3],[1700000020,6]]}"},
        {"fill(7.5)", "[[1700000000,1.5],[1700000010,3],[1700000020,6],[1700000030,7.5]]}"},
        {"fill(previous)", "[[1700000000,1.5],[1700000010,3],[1700000020,6],[1700000030,6]]}"},
        {"fill(null) ORDER BY time DESC LIMIT 2 OFFSET 1", "[[1700000020,6],[1700000010,3]]}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char wanted[512];
        (void)snprintf(query, sizeof query, "SELECT mean(temperature) FROM " AIR "%s%s%s", range,
                       "GROUP BY time(10s) ", cases[i].fill);
        (void)snprintf(wanted, sizeof wanted, HEAD("\"mean\"") "%s", cases[i].values);
        expect_series(w, query, wanted);
    }
    (void)snprintf(query, sizeof query,
                   "SELECT last(level) FROM " AIR "%sGROUP BY time(5s) fill(linear)", range);
    expect_series(w, query,
                  HEAD("\"last\"") "[[1700000000,10],[1700000005,20],[1700000010,30],[1700000015,"
                                   "40],[1700000020,50],[1700000025,60],[1700000030,null],"
                                   "[1700000035,null]]}");
    (void)snprintf(query, sizeof query,
                   "SELECT count(level), sum(level) FROM " AIR "%sGROUP BY time(20s)", range);
    expect_series(w, query, HEAD("\"count\",\"sum\"") "[[1700000000,3,60],[1700000020,1,60]]}");
    (void)snprintf(query, sizeof query, "SELECT count(level) FROM " AIR "%sGROUP BY time(10s)",
                   range);
    expect_series(
        w, query,
        HEAD("\"count\"") "[[1700000000,2],[1700000010,1],[1700000020,1],[1700000030,0]]}");
    /* Windows that begin elsewhere, and the end of the range in the middle of one. */
    expect_series(w,
                  "SELECT max(temperature) FROM " AIR " WHERE __id = 'a' AND time >= 1700000000s "
                  "AND time <= 1700000010s GROUP BY time(10s, 5s)",
                  HEAD("\"max\"") "[[1699999995,1],[1700000005,3]]}");
    /* Without a lower bound from the first value on, without an upper one to now. */
    expect_series(w, "SELECT sum(level) FROM " AIR " WHERE __id = 'a' GROUP BY time(1m) fill(0)",
                  HEAD("\"sum\"") "[[1699999980,120],[1700000040,0],[1700000100,0]]}");
    expect_error(w, "SELECT mean(level) FROM " AIR " WHERE time > 0 GROUP BY time(1s)",
                 "more than 1000000 windows");
    expect_series(w, "SELECT mean(level) FROM " AIR " WHERE time > 0 GROUP BY time(1m) fill(none)",
                  HEAD("\"mean\"") "[[1699999980,30]]}");
}

static void values_come_together(void **state)
{
    world *w = *state;
    expect_series(
        w,
        "SELECT mean(temperature), min(temperature), max(temperature), "
        "spread(temperature), percentile(temperature, 50), count(note) FROM " AIR
        " WHERE time >= 1700000000s",
        HEAD("\"mean\",\"min\",\"max\",\"spread\",\"percentile\",\"count\"") "[[1700000000,4."
                                                                             "083333333333333,1,7,"
                                                                             "6,3,1]]}");
    expect_series(w, "SELECT last(temperature) FROM " AIR, HEAD("\"last\"") "[[1700000025,6]]}");
    expect_series(w, "SELECT first(level) FROM " AIR, HEAD("\"first\"") "[[1700000000,10]]}");
    /* What one row has comes with its time; of several values the first row's. */
    expect_series(w, "SELECT min(level) FROM " AIR " WHERE time > 1700000000s",
                  HEAD("\"min\"") "[[1700000005,20]]}");
    expect_series(w, "SELECT percentile(temperature, 50) FROM " AIR " WHERE __id = 'a'",
                  HEAD("\"percentile\"") "[[1700000005,2]]}");
    expect_series(w, "SELECT first(note) FROM " AIR,
                  HEAD("\"first\"") "[[1700000003,\"x\\\"y\"]]}");
    expect_series(w, "SELECT max(level) - min(level) FROM " AIR, HEAD("\"max_min\"") "[[0,50]]}");
    expect_series(
        w, "SELECT sum(temperature) FROM " AIR " GROUP BY site",
        "{\"name\":\"env.v1.Air\",\"tags\":{\"site\":\"north\"},\"columns\":[\"time\",\"sum\"],"
        "\"values\":[[0,12]]},{\"name\":\"env.v1.Air\",\"tags\":{\"site\":\"south\"},"
        "\"columns\":[\"time\",\"sum\"],\"values\":[[0,12.5]]}");
    expect_series(
        w, "SELECT sum(temperature) FROM " AIR " GROUP BY __namespace, /^__namesp/",
        "{\"name\":\"env.v1.Air\",\"tags\":{\"__namespace\":\"plant\"},\"columns\":[\"time\","
        "\"sum\"],\"values\":[[0,24.5]]}");
    expect_series(
        w, "SELECT max(*) FROM " AIR " GROUP BY * SLIMIT 1 SOFFSET 1",
        "{\"name\":\"env.v1.Air\",\"tags\":{\"__id\":\"b\",\"__name\":\"pump-2\",\"__namespace\":"
        "\"plant\",\"a b\":\"c,d\",\"site\":\"south\"},\"columns\":[\"time\",\"max_big\","
        "\"max_level\",\"max_temperature\"],\"values\":[[0,null,null,7]]}");
    expect_series(w, "SELECT count(*) FROM " AIR " WHERE __id = 'c'",
                  HEAD("\"count_big\",\"count_level\",\"count_note\",\"count_on\","
                       "\"count_temperature\"") "[[0,1,null,1,1,null]]}");
    expect_series(
        w,
        "SELECT non_negative_derivative(max(level), 1s), difference(max(level)) AS d "
        "FROM " AIR " WHERE __id = 'a' AND time >= 1700000000s AND time < 1700000040s "
        "GROUP BY time(10s)",
        HEAD("\"non_negative_derivative\",\"d\"") "[[1700000010,1,10],[1700000020,3,30]]}");
    expect_series(w,
                  "SELECT 100 * last(level) / max(level) AS share FROM " AIR
                  " WHERE __id = 'a' AND time >= 1700000000s",
                  HEAD("\"share\"") "[[1700000000,100]]}");
    expect_series(w, "SELECT max(temperature) FROM /v1/ WHERE __id = 'a'",
                  HEAD("\"max\"") "[[1700000025,6]]},{\"name\":\"wind.v1.Wind\","
                                  "\"columns\":[\"time\",\"max\"],"
                                  "\"values\":[[1700000001,0.5]]}");
    /* The name that a device has now, for what it said under the one before. */
    assert_int_equal(update(w->store, "{\"ids\":[\"a\"]}", "{\"name\":\"main\"}"), MIR_OK);
    expect_series(
        w, "SELECT count(temperature) FROM " AIR " WHERE __name = 'main' GROUP BY __name",
        "{\"name\":\"env.v1.Air\",\"tags\":{\"__name\":\"main\"},\"columns\":[\"time\",\"count\"],"
        "\"values\":[[0,4]]}");
}

static void answers_have_their_forms(void **state)
{
    world *w = *state;
    const char *query = "SELECT level FROM " AIR " WHERE __id = 'a' LIMIT 1";
    w->request.epoch_ns = 0;
    expect_series(w, query, HEAD("\"level\"") "[[\"2023-11-14T22:13:20Z\",10]]}");
    w->request.epoch_ns = 1;
    expect_series(w, query, HEAD("\"level\"") "[[1700000000000000000,10]]}");
    w->request.epoch_ns = MIR_NS_PER_S;
    w->request.chunk_rows = 2;
    expect(w, "SELECT level FROM " AIR " GROUP BY __id; SHOW DATABASES; SELECT x FROM y",
           "{\"results\":[{\"statement_id\":0,\"series\":[{\"name\":\"env.v1.Air\",\"tags\":{"
           "\"__id\":\"a\"},\"columns\":[\"time\",\"level\"],\"values\":[[1700000000,10],"
           "[1700000005,20]],\"partial\":true}],\"partial\":true}]}\n"
           "{\"results\":[{\"statement_id\":0,\"series\":[{\"name\":\"env.v1.Air\",\"tags\":{"
           "\"__id\":\"a\"},\"columns\":[\"time\",\"level\"],\"values\":[[1700000010,30],"
           "[1700000025,60]]}]}]}\n"
           "{\"results\":[{\"statement_id\":1,\"series\":[{\"name\":\"databases\",\"columns\":["
           "\"name\"],\"values\":[[\"mir\"]]}]}]}\n"
           "{\"results\":[{\"statement_id\":2}]}\n");
    w->request.chunk_rows = 0;
    expect(w, "SHOW DATABASES; SELECT x FROM z.y.x; SHOW DATABASES",
           "{\"results\":[{\"statement_id\":0,\"series\":[{\"name\":\"databases\",\"columns\":["
           "\"name\"],\"values\":[[\"mir\"]]}]},{\"statement_id\":1,\"error\":\"database not "
           "found: z (there is mir; a measurement with dots in its name stands in double "
           "quotes)\"},{\"statement_id\":2,\"error\":\"not executed\"}]}\n");
    assert_int_equal(w->info.statements, 3);
    assert_int_equal(w->info.failed, 2);
    mir_bytes answer = ask(w, "SHOW DATABASES"), pretty = {0};
    assert_int_equal(mir_influx_json_indent(mir_view_cstr((const char *)answer.data), &pretty),
                     MIR_OK);
    mir_bytes_u8(&pretty, 0);
    assert_string_equal((const char *)pretty.data,
                        "{\n    \"results\": [\n        {\n            \"statement_id\": 0,\n"
                        "            \"series\": [\n                {\n"
                        "                    \"name\": \"databases\",\n"
                        "                    \"columns\": [\n                        \"name\"\n"
                        "                    ],\n                    \"values\": [\n"
                        "                        [\n                            \"mir\"\n"
                        "                        ]\n                    ]\n                }\n"
                        "            ]\n        }\n    ]\n}\n");
    mir_bytes_free(&answer);
    mir_bytes_free(&pretty);
}

/* A byte of the first chunk of the first segment: that of device a. */
static void damage_chunk(world *w)
{
    static const uint8_t magic[] = {'M', 'C', 'H', 'K'};
    mir_error error = {{0}};
    /* Full until the thread of files has a spare log ready. */
    const int64_t until = mir_clock_mono_ns() + 20 * MIR_NS_PER_S;
    while (mir_tlog_freeze(mir_tlog_writer_of(w->tlog, 0)) != MIR_OK) {
        assert_true(mir_clock_mono_ns() < until);
        sim_pause_us(200);
    }
    if (mir_tlog_settle(w->tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
    for (uint32_t i = 0; i < w->disk->now.count; i++) {
        const sim_inode *inode = w->disk->now.entries[i].inode;
        if (strstr(w->disk->now.entries[i].name, ".seg") == NULL) continue;
        uint8_t *chunk = memmem(inode->data, inode->size, magic, sizeof magic);
        assert_non_null(chunk);
        chunk[MIR_TLOG_CHUNK_HEADER_BYTES] ^= 1;
        return;
    }
    fail_msg("no segment");
}

static void an_answer_without_damaged_rows_says_so(void **state)
{
    world *w = *state;
    damage_chunk(w);
    expect(
        w, "SELECT level, temperature FROM " AIR " WHERE site =~ /./ GROUP BY __id; SHOW DATABASES",
        "{\"results\":[{\"statement_id\":0,\"series\":[{\"name\":\"env.v1.Air\",\"tags\":{"
        "\"__id\":\"b\"},\"columns\":[\"time\",\"level\",\"temperature\"],\"values\":["
        "[1700000000,null,5.5],[1700000010,null,7]]}],\"partial\":true,\"messages\":[{\"level\":"
        "\"warning\",\"text\":\"the answer is incomplete: damaged parts of the telemetry log were "
        "left out\"}]},{\"statement_id\":1,\"series\":[{\"name\":\"databases\",\"columns\":["
        "\"name\"],\"values\":[[\"mir\"]]}]}]}\n");
    assert_true(w->info.damaged);
}

static void what_is_wrong_is_said(void **state)
{
    world *w = *state;
    expect_error(w, "SELECT", "error parsing query: found EOF");
    assert_int_equal(w->status, MIR_E_INVALID);
    expect_error(w, "SELECT a FROM \"mir\".\"other\".\"m\"", "retention policy not found: other");
    expect_error(w, "SHOW MEASUREMENTS ON other", "database not found: other");
    expect_error(w, "SELECT a FROM m WHERE b =~ /(/", "the regular expression /(/");
    assert_int_equal(w->status, MIR_OK);
    expect_error(w, "SELECT level FROM " AIR " WHERE note = 'x'", "note is a field");
    expect_error(w, "SELECT mean(note) FROM " AIR, "the field's values are texts");
    expect_error(w, "SELECT spread(\"on\") FROM " AIR, "the field's values are booleans");
    expect_error(w, "SELECT level FROM " AIR " WHERE __name =~ /^(.?.?.?){30}[QR]$/",
                 "takes too many steps");
    expect_error(w,
                 "SELECT percentile(level, 1), percentile(level, 2), percentile(level, 3), "
                 "percentile(level, 4), percentile(level, 5) FROM " AIR,
                 "more than 4 different percentiles");
    w->request.database = MIR_VIEW_LITERAL("telegraf");
    expect_error(w, "SHOW MEASUREMENTS", "database not found: telegraf");
    w->request.database = MIR_VIEW_LITERAL("mir");
    expect_series(
        w, "SHOW MEASUREMENTS LIMIT 1",
        "{\"name\":\"measurements\",\"columns\":[\"name\"],\"values\":[[\"env.v1.Air\"]]}");
    w->request.answer_bytes_max = 200;
    expect_error(w, "SELECT * FROM " AIR, "the answer is larger than 200 bytes");
    w->request.memory_bytes_max = 3000;
    expect_error(w, "SHOW SERIES", "needs more");
    atomic_bool cancel = true;
    w->request.memory_bytes_max = 16 << 20;
    w->request.cancel = &cancel;
    expect_error(w, "SELECT * FROM " AIR, "cancelled");
}

/* The time of one value is found in the memory that the value took, however many rows there are. */
static void what_is_chosen_of_many_has_its_time(void **state)
{
    world *w = *state;
    enum { ROWS = 80000, LEAST = 61234, MOST = 71000 };
    char query[160], wanted[160];
    for (int n = 0; n < ROWS; n++) {
        /* Both are there twice. */
        const int64_t level = n == LEAST || n == ROWS - 2  ? 5
                              : n == MOST || n == ROWS - 1 ? 9000
                                                           : 10 + n * 7 % 1000;
        append(w, "many.v1.Many", &(report){n % 2 == 0 ? "a" : "b", n, level, NAN, NULL});
    }
    w->request.memory_bytes_max = 1 << 20;
    expect_error(w, "SELECT level FROM \"many.v1.Many\"", "bytes");
    static const struct {
        const char *function;
        int64_t value;
        int at;
    } cases[] = {{"first", 10, 0}, {"min", 5, LEAST}, {"max", 9000, MOST}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        (void)snprintf(query, sizeof query, "SELECT %s(level) FROM \"many.v1.Many\"",
                       cases[i].function);
        (void)snprintf(wanted, sizeof wanted,
                       "{\"name\":\"many.v1.Many\",\"columns\":[\"time\",\"%s\"],\"values\":[[%lld,"
                       "%lld]]}",
                       cases[i].function, (long long)(start_s + cases[i].at),
                       (long long)cases[i].value);
        expect_series(w, query, wanted);
    }
}

/* With less and less of it: all of the answer, or an error, and never a part without its head. */
static void an_answer_is_whole_whatever_memory_there_is(void **state)
{
    world *w = *state;
    enum { DEVICES = 20, COLUMNS = 250, MOST = 1 << 20, LEAST = 16 << 10, STEP = 8 << 10 };
    for (int i = 0; i < DEVICES; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "many-%d", i);
        add(w->store, id, id, "default");
        append(w, "many.v1.Many", &(report){id, i, i, NAN, NULL});
    }
    mir_bytes query = {0};
    for (int i = 0; i < COLUMNS; i++)
        mir_bytes_printf(&query, "%s count(level) AS c%d", i == 0 ? "SELECT" : ",", i);
    mir_bytes_text(&query, " FROM \"many.v1.Many\" GROUP BY __id");
    mir_bytes_u8(&query, 0);
    mir_bytes full = ask(w, (const char *)query.data);
    assert_null(strstr((const char *)full.data, "error"));
    unsigned whole = 0, refused = 0;
    for (size_t bytes_max = MOST; bytes_max >= LEAST; bytes_max -= STEP) {
        w->request.memory_bytes_max = bytes_max;
        mir_bytes answer = ask(w, (const char *)query.data);
        const char *text = (const char *)answer.data;
        if (strcmp(text, (const char *)full.data) == 0)
            whole++;
        else if (strstr(text, "\"error\":") != NULL && strstr(text, "\"series\"") == NULL)
            refused++;
        else
            fail_msg("with %zu bytes: %s", bytes_max, text);
        mir_bytes_free(&answer);
    }
    mir_bytes_free(&full);
    mir_bytes_free(&query);
    assert_true(whole > 0 && refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_are_listed, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_come_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(windows_are_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(values_come_together, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_have_their_forms, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_without_damaged_rows_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_chosen_of_many_has_its_time, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_is_whole_whatever_memory_there_is, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
