/* SPDX-License-Identifier: Apache-2.0 */
/* Queries of any bytes, asked of three devices and two messages: the answer is JSON that says the same
 * when it is asked again, in parts and with line breaks. The first two bytes choose the form. */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mir_clock.h"
#include "mir_device_json.h"
#include "mir_influx.h"
#include "mir_log.h"
#include "mir_tlog_sim.h"

enum { COLUMNS = 5, ROWS = 40, LEAD = 2, ANSWER_BYTES_MAX = 1 << 20 };

static const int64_t start_s = 1700000000;
static mir_state *state;
static mir_tlog *tlog;

static void device_add(mir_state *to, const char *text)
{
    mir_arena arena = {0};
    mir_error error = {{0}};
    MirApi__V1__CreateDeviceRequest create = MIR_API__V1__CREATE_DEVICE_REQUEST__INIT;
    mir_state_request request = {.op = MIR_STATE_CREATE, .create = &create};
    MIR_ASSERT(mir_device_json_read_new(mir_view_cstr(text), &arena, &create.device, &error) ==
               MIR_OK);
    MIR_ASSERT(mir_state_execute(to, &request) == MIR_OK);
    mir_arena_free(&request.arena);
    mir_arena_free(&arena);
}

static void state_make(void)
{
    char path[] = "/tmp/mir-fuzz-XXXXXX";
    char name[64];
    mir_error error = {{0}};
    const mir_state_options options = {
        .path = path, .map_bytes = 16 << 20, .sync = MIR_STATE_SYNC_OFF};
    MIR_ASSERT(mkdtemp(path) != NULL);
    MIR_ASSERT(mir_state_open(&options, &state, &error) == MIR_OK);
    /* What is open stays when its name goes: nothing is left, however this ends. */
    static const char *const files[] = {"data.mdb", "lock.mdb", "owner"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", path, files[i]);
        (void)unlink(name);
    }
    (void)rmdir(path);
    device_add(state, "{\"meta\":{\"name\":\"pump-1\",\"namespace\":\"plant\",\"labels\":"
                      "{\"site\":\"north\"}},\"spec\":{\"deviceId\":\"a\"}}");
    device_add(state, "{\"meta\":{\"name\":\"pump-2\",\"namespace\":\"plant\",\"labels\":"
                      "{\"site\":\"south\",\"a b\":\"c,d\"}},\"spec\":{\"deviceId\":\"b\"}}");
    device_add(state, "{\"meta\":{\"name\":\"v\\\"l\",\"namespace\":\"default\"},"
                      "\"spec\":{\"deviceId\":\"c\"}}");
}

/* Each column has gaps of its own, and what JSON has no number for. */
static void row_make(uint32_t device, int64_t n, mir_row *row)
{
    static const mir_view words[] = {MIR_VIEW_LITERAL("on"), MIR_VIEW_LITERAL(""),
                                     MIR_VIEW_LITERAL("x\"y\\\n")};
    row->time_ns = start_s * MIR_NS_PER_S + n * (7 + device) * 100000000;
    row->column_count = COLUMNS;
    row->dynamic_count = 0;
    row->present[0] = (uint64_t)(n % 3 == 0 ? 0x1f : n % 3 == 1 ? 0x0b : 0x15);
    row->cells[0].i64 = n == 5 ? INT64_MIN : n * n - 100;
    row->cells[1].f64 = n == 9 ? 0.0 / (double)(n - 9) : n == 12 ? 1e308 * 10 : 0.1 * (double)n;
    row->cells[2].string = words[n % 3];
    row->cells[3].u64 = n == 6 ? UINT64_MAX : (uint64_t)n;
    row->cells[4].boolean = n % 2 != 0;
}

static void tlog_make(void)
{
    static const mir_column columns[COLUMNS] = {
        {"level", 5, MIR_COLUMN_I64},   {"temperature", 11, MIR_COLUMN_F64},
        {"note", 4, MIR_COLUMN_STRING}, {"big", 3, MIR_COLUMN_U64},
        {"on", 2, MIR_COLUMN_BOOL},
    };
    /* The same name with another type. */
    static const mir_column others[COLUMNS] = {
        {"level", 5, MIR_COLUMN_F64},   {"temperature", 11, MIR_COLUMN_F64},
        {"note", 4, MIR_COLUMN_STRING}, {"big", 3, MIR_COLUMN_U64},
        {"on", 2, MIR_COLUMN_BOOL},
    };
    static const char *const ids[] = {"a", "b", "c"};
    static const char *const names[] = {"env.v1.Air", "wind.v1.Wind"};
    sim_disk *disk = sim_disk_new(7);
    const mir_tlog_options options = {.directory = "/tlog",
                                      .files = &disk->files,
                                      .writer_count = 1,
                                      .log_bytes_max = 8 << 20,
                                      .sync_ms = 1};
    mir_error error = {{0}};
    mir_row row;
    MIR_ASSERT(mir_tlog_open(&options, &tlog, &error) == MIR_OK);
    MIR_ASSERT(mir_row_init(&row, 16, 16, 1024) == MIR_OK);
    mir_tlog_writer *writer = mir_tlog_writer_of(tlog, 0);
    for (uint32_t s = 0; s < 5; s++) {
        mir_tlog_series *series;
        MIR_ASSERT(mir_tlog_series_open(writer, mir_view_cstr(ids[s % 3]),
                                        mir_view_cstr(names[s / 3]), s == 1 ? others : columns,
                                        COLUMNS, &series) == MIR_OK);
        for (int64_t n = 0; n < ROWS; n++) {
            row_make(s, n, &row);
            if (s == 1) row.cells[0].f64 = (double)n / 8;
            MIR_ASSERT(mir_tlog_append(writer, series, &row) == MIR_OK);
        }
        MIR_ASSERT(mir_tlog_commit_turn(writer, NULL) == MIR_OK);
    }
    mir_row_fini(&row);
    /* In a segment, so that nothing changes meanwhile. */
    const int64_t until_ns = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    while (mir_tlog_freeze(writer) != MIR_OK) {
        MIR_ASSERT(mir_clock_mono_ns() < until_ns);
        sim_pause_us(200);
    }
    MIR_ASSERT(mir_tlog_settle(tlog, 60000, &error) == MIR_OK);
}

/* What the documents say together. */
typedef struct said {
    uint64_t rows;
    uint32_t documents;
    bool errors;
} said;

static said said_of(const mir_bytes *answer)
{
    said s = {0};
    for (size_t at = 0; at < answer->size;) {
        json_error_t error;
        json_t *document =
            json_loadb((const char *)answer->data + at, answer->size - at,
                       JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
        if (document == NULL) {
            (void)fprintf(stderr, "%s in %.*s\n", error.text, (int)answer->size,
                          (const char *)answer->data);
            abort();
        }
        at += (size_t)error.position;
        while (at < answer->size && (answer->data[at] == '\n' || answer->data[at] == ' ')) at++;
        s.documents++;
        s.errors = s.errors || json_object_get(document, "error") != NULL;
        const json_t *results = json_object_get(document, "results");
        MIR_ASSERT(results != NULL || s.errors);
        for (size_t r = 0; r < json_array_size(results); r++) {
            const json_t *result = json_array_get(results, r);
            s.errors = s.errors || json_object_get(result, "error") != NULL;
            const json_t *all = json_object_get(result, "series");
            for (size_t i = 0; i < json_array_size(all); i++) {
                const json_t *series = json_array_get(all, i);
                const json_t *values = json_object_get(series, "values");
                const size_t columns = json_array_size(json_object_get(series, "columns"));
                for (size_t v = 0; v < json_array_size(values); v++)
                    MIR_ASSERT(json_array_size(json_array_get(values, v)) == columns);
                s.rows += json_array_size(values);
            }
        }
        json_decref(document);
    }
    return s;
}

static mir_bytes ask(mir_influx_request *request, uint64_t chunk_rows, said *s)
{
    mir_bytes answer = {0};
    mir_influx_info info;
    request->chunk_rows = chunk_rows;
    const mir_status status = mir_influx_answer(request, &answer, &info);
    MIR_ASSERT(status != MIR_E_NO_MEMORY && mir_bytes_ok(&answer));
    *s = said_of(&answer);
    MIR_ASSERT(s->documents > 0 && (status == MIR_OK || s->errors) && !info.damaged);
    return answer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t epochs[] = {
        0, 1, MIR_NS_PER_US, MIR_NS_PER_MS, MIR_NS_PER_S, 3600 * MIR_NS_PER_S};
    /* Who reads JSON here takes no key with a zero byte, and a tag may be asked for by any name. */
    if (size < LEAD || memchr(data + LEAD, 0, size - LEAD) != NULL) return 0;
    if (state == NULL) {
        mir_log_set_level(MIR_LOG_ERROR);
        state_make();
        tlog_make();
    }
    mir_influx_request request = {
        .state = state,
        .tlog = tlog,
        .text = mir_view_of(data + LEAD, size - LEAD),
        .database = (data[0] & 0x10) != 0 ? MIR_VIEW_LITERAL("mir") : mir_view_of(NULL, 0),
        .now_ns = (start_s + 30) * MIR_NS_PER_S,
        .epoch_ns = epochs[data[0] % 16 % (sizeof epochs / sizeof *epochs)],
        .memory_bytes_max = 8 << 20,
        .answer_bytes_max = ANSWER_BYTES_MAX};
    said one, again, parts, pretty;
    mir_bytes answer = ask(&request, 0, &one);
    mir_bytes same = ask(&request, 0, &again);
    MIR_ASSERT(one.documents == 1);
    MIR_ASSERT(mir_view_eq(mir_bytes_as_view(&answer), mir_bytes_as_view(&same)));
    mir_bytes_free(&same);
    same = ask(&request, 1 + data[1] % 64, &parts);
    /* In parts there is more to say, and so more to be too large. */
    if (!parts.errors) MIR_ASSERT(!one.errors && parts.rows == one.rows);
    mir_bytes_free(&same);
    mir_bytes indented = {0};
    MIR_ASSERT(mir_influx_json_indent(mir_bytes_as_view(&answer), &indented) == MIR_OK);
    pretty = said_of(&indented);
    MIR_ASSERT(pretty.rows == one.rows && pretty.documents == 1 && pretty.errors == one.errors);
    mir_bytes_free(&indented);
    mir_bytes_free(&answer);
    return 0;
}
