/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_pb.h"
#include "mir_tlm_table.h"

typedef MirApi__V1__QueryTelemetry__Row row;
typedef MirApi__V1__QueryTelemetry__Row__DataPoint point;

enum { TIMES_MAX = 8, COLUMNS = 6 };

static const mir_column columns[COLUMNS] = {
    {"a_bool", 6, MIR_COLUMN_BOOL}, {"b_double", 8, MIR_COLUMN_F64},
    {"c_int", 5, MIR_COLUMN_I64},   {"d_text", 6, MIR_COLUMN_STRING},
    {"d_text", 6, MIR_COLUMN_U64},  {"e_uint", 6, MIR_COLUMN_U64},
};

static const mir_view devices[] = {
    {(const uint8_t *)"first", 5},
    {(const uint8_t *)"second", 6},
};

static const char *unit_by_name(void *context, uint32_t device, mir_view field)
{
    *(uint32_t *)context = device;
    return mir_view_eq_cstr(field, "b_double") ? "m/s" : NULL;
}

static void feed(mir_tlm_table *table, const mir_tlog_batch *batch, mir_status expected)
{
    mir_tlog_sink sink = mir_tlm_table_sink(table);
    assert_int_equal(sink.columns(sink.context, columns, batch->column_count), MIR_OK);
    assert_int_equal(sink.rows(sink.context, batch), expected);
}

/* Reads with protobuf-c and, before, with our checker, which is as strict as other readers. */
static MirApi__V1__QueryTelemetry *read_back(mir_tlm_table *table, mir_arena *arena)
{
    mir_view packed = {0};
    assert_int_equal(mir_tlm_table_end(table, &(mir_tlog_query_info){0}, &packed), MIR_OK);
    MirApi__V1__QueryTelemetryResponse *response;
    mir_error error = {{0}};
    if (mir_pb_unpack(&mir_api__v1__query_telemetry_response__descriptor, packed, arena, &response,
                      &error) != MIR_OK) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(response->response_case, MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_OK);
    /* It is also written as protobuf-c would write it. */
    mir_bytes again = {0};
    mir_pb_pack(&response->base, &again);
    assert_int_equal(again.size, packed.size);
    assert_memory_equal(again.data, packed.data, packed.size);
    mir_bytes_free(&again);
    return response->ok;
}

static void test_head_and_cells(void **state)
{
    (void)state;
    const int64_t times[] = {INT64_C(1700000000123456789), -1, 0};
    const uint32_t owners[] = {1, 0, 1};
    mir_cell cells[3 * COLUMNS] = {
        {.boolean = false}, {.f64 = -0.1},
        {.i64 = INT64_MIN}, {.string = MIR_VIEW_LITERAL("gr\xc3\xbc\xc3\x9f")},
        {.u64 = 0},         {.u64 = UINT64_MAX},
        {.boolean = true},  {.f64 = INFINITY},
        {.i64 = 0},         {.string = {0}},
        {.u64 = 300},       {.u64 = 0},
    };
    uint8_t present[3 * COLUMNS] = {1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0};
    uint32_t unit_device = 99;
    mir_tlm_table table = {
        .device_ids = devices, .unit = unit_by_name, .unit_context = &unit_device};
    feed(&table,
         &(mir_tlog_batch){.row_count = 3,
                           .column_count = COLUMNS,
                           .times_ns = times,
                           .devices = owners,
                           .cells = cells,
                           .present = present},
         MIR_OK);
    mir_arena arena = {0};
    MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
    assert_int_equal(unit_device, 1);

    const char *headers[] = {"_time", "__id",   "a_bool", "b_double",
                             "c_int", "d_text", "d_text", "e_uint"};
    const char *units[] = {"RFC3339", "", "", "m/s", "", "", "", ""};
    const MirApi__V1__DataType types[] = {
        MIR_API__V1__DATA_TYPE__DATA_TYPE_TIMESTAMP, MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING,
        MIR_API__V1__DATA_TYPE__DATA_TYPE_BOOL,      MIR_API__V1__DATA_TYPE__DATA_TYPE_DOUBLE,
        MIR_API__V1__DATA_TYPE__DATA_TYPE_INT64,     MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING,
        MIR_API__V1__DATA_TYPE__DATA_TYPE_UINT64,    MIR_API__V1__DATA_TYPE__DATA_TYPE_UINT64};
    assert_int_equal(got->n_headers, 8);
    assert_int_equal(got->n_units, 8);
    assert_int_equal(got->n_datatypes, 8);
    for (size_t i = 0; i < 8; i++) {
        assert_string_equal(got->headers[i], headers[i]);
        assert_string_equal(got->units[i], units[i]);
        assert_int_equal(got->datatypes[i], types[i]);
    }
    assert_int_equal(got->n_rows, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(got->rows[i]->n_datapoints, 8);
        MirApi__V1__Timestamp *time = got->rows[i]->datapoints[0]->value_timestamp;
        assert_int_equal(time->seconds * 1000000000 + time->nanos, times[i]);
        assert_true(time->nanos >= 0);
        assert_string_equal(got->rows[i]->datapoints[1]->value_string,
                            (const char *)devices[owners[i]].data);
    }
    point **p = got->rows[0]->datapoints + 2;
    assert_true(p[0]->has_value_bool && !p[0]->value_bool);
    assert_true(p[1]->has_value_double && p[1]->value_double == -0.1);
    assert_true(p[2]->has_value_int64 && p[2]->value_int64 == INT64_MIN);
    assert_string_equal(p[3]->value_string, "gr\xc3\xbc\xc3\x9f");
    assert_int_equal(protobuf_c_message_get_packed_size(&p[4]->base), 0);
    assert_true(p[5]->has_value_uint64 && p[5]->value_uint64 == UINT64_MAX);
    p = got->rows[1]->datapoints + 2;
    assert_true(p[0]->has_value_bool && p[0]->value_bool);
    assert_true(p[1]->has_value_double && isinf(p[1]->value_double));
    assert_true(p[2]->has_value_int64 && p[2]->value_int64 == 0);
    assert_string_equal(p[3]->value_string, "");
    assert_true(p[4]->has_value_uint64 && p[4]->value_uint64 == 300);
    for (size_t i = 2; i < 8; i++) {
        point *empty = got->rows[2]->datapoints[i];
        assert_int_equal(protobuf_c_message_get_packed_size(&empty->base), 0);
    }
    mir_arena_free(&arena);
    mir_tlm_table_free(&table);
}

static void test_nothing_is_ok_without_anything(void **state)
{
    (void)state;
    mir_tlm_table table = {.device_ids = devices};
    mir_arena arena = {0};
    MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
    assert_int_equal(got->n_headers + got->n_units + got->n_datatypes + got->n_rows, 0);
    mir_arena_free(&arena);
    mir_tlm_table_free(&table);
}

/* One column of texts of the given size: lengths of rows cross one, two and three bytes. */
static void test_rows_of_every_length(void **state)
{
    (void)state;
    static char long_text[20000];
    memset(long_text, 'x', sizeof long_text);
    const size_t sizes[] = {1, 90, 100, 127, 128, 1, 16250, 16300, 16384, 20000, 3, 0};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    const mir_column text = {"text", 4, MIR_COLUMN_STRING};
    mir_tlm_table table = {.device_ids = devices};
    mir_tlog_sink sink = mir_tlm_table_sink(&table);
    assert_int_equal(sink.columns(sink.context, &text, 1), MIR_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const int64_t time = 1700000000000000000;
        const uint32_t owner = 0;
        const uint8_t present = 1;
        mir_cell cell = {.string = mir_view_of(long_text, sizes[i])};
        mir_tlog_batch batch = {1, 1, &time, &owner, &cell, &present};
        assert_int_equal(sink.rows(sink.context, &batch), MIR_OK);
    }
    mir_arena arena = {0};
    MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
    assert_int_equal(got->n_rows, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(strlen(got->rows[i]->datapoints[2]->value_string), sizes[i]);
    mir_arena_free(&arena);
    mir_tlm_table_free(&table);
}

static void test_text_that_is_no_text(void **state)
{
    (void)state;
#define R "\xef\xbf\xbd"
    static const struct {
        mir_view stored;
        const char *answered;
    } cases[] = {
        {MIR_VIEW_LITERAL("\xff"), R},
        {MIR_VIEW_LITERAL("a\0b"), "a" R "b"},
        {MIR_VIEW_LITERAL("\xc3"), R},
        {MIR_VIEW_LITERAL("\xc3\xa9\xc3"), "\xc3\xa9" R},
        {MIR_VIEW_LITERAL("\xed\xa0\x80"), R R R}, /* a surrogate */
        {MIR_VIEW_LITERAL("\xc0\xaf"), R R},       /* overlong */
        {MIR_VIEW_LITERAL("\xf0\x9f\x98\x80!\xf0\x9f"), "\xf0\x9f\x98\x80!" R R},
    };
    const mir_column text = {"text\xfe", 5, MIR_COLUMN_STRING};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mir_tlm_table table = {.device_ids = devices};
        mir_tlog_sink sink = mir_tlm_table_sink(&table);
        assert_int_equal(sink.columns(sink.context, &text, 1), MIR_OK);
        const int64_t time = 5;
        const uint32_t owner = 1;
        const uint8_t present = 1;
        mir_cell cell = {.string = cases[i].stored};
        mir_tlog_batch batch = {1, 1, &time, &owner, &cell, &present};
        assert_int_equal(sink.rows(sink.context, &batch), MIR_OK);
        mir_arena arena = {0};
        MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
        assert_string_equal(got->headers[2], "text" R);
        assert_string_equal(got->rows[0]->datapoints[2]->value_string, cases[i].answered);
        mir_arena_free(&arena);
        mir_tlm_table_free(&table);
    }
#undef R
}

static void test_more_than_a_message_may_have(void **state)
{
    (void)state;
    const mir_column number = {"n", 1, MIR_COLUMN_I64};
    mir_tlm_table table = {.device_ids = devices, .bytes_max = 1000};
    mir_tlog_sink sink = mir_tlm_table_sink(&table);
    assert_int_equal(sink.columns(sink.context, &number, 1), MIR_OK);
    const int64_t time = 1700000000000000000;
    const uint32_t owner = 0;
    const uint8_t present = 1;
    mir_cell cell = {.i64 = 1};
    mir_tlog_batch batch = {1, 1, &time, &owner, &cell, &present};
    size_t rows = 0;
    while (sink.rows(sink.context, &batch) == MIR_OK) rows++;
    assert_int_equal(sink.rows(sink.context, &batch), MIR_E_TOO_LARGE);
    assert_in_range(rows, 20, 60);
    assert_in_range(table.bytes.size, 1000, 1100);
    mir_tlm_table_free(&table);
}

enum { RUN_ROWS = 700, RUN_COLUMNS = 5 };

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 11 ^ *state << 41;
}

/* Of each length in bytes as many. */
static uint64_t any_bits(uint64_t *state)
{
    const uint64_t choice = next_random(state);
    if (choice % 16 == 0) return UINT64_MAX;
    if (choice % 16 == 1) return 0;
    return next_random(state) >> (choice >> 8) % 64;
}

static int64_t any_time(uint64_t *state, uint32_t place)
{
    static const int64_t edges[] = {
        INT64_MIN,
        -1,
        0,
        1,
        999999999,
        1000000000,
        -1000000000,
        INT64_MAX,
        /* Around where seconds get their fifth byte, and full seconds. */
        INT64_C(268435455999999999),
        INT64_C(268435456000000000),
        INT64_C(268435456000000001),
        INT64_C(1700000000000000000),
        INT64_C(1700000127999999999),
        INT64_C(1700000128000000001),
    };
    const uint64_t choice = next_random(state);
    if (choice % 4 == 0) return edges[(choice >> 8) % (sizeof edges / sizeof edges[0])];
    if (choice % 4 == 1) return (int64_t)next_random(state);
    return INT64_C(1700000000000000000) + (int64_t)place * 1000000000 +
           (int64_t)(any_bits(state) % 1000000000);
}

/* The same rows taken one by one and as a run make the same bytes, and those are what protobuf-c
 * makes of them. */
static void test_runs_are_written_as_rows_are(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    static const char text[] = "some text, or a part of it \xff and more";
    static char long_id[300];
    memset(long_id, 'i', sizeof long_id);
    static int64_t times[RUN_ROWS];
    static uint32_t owners[RUN_ROWS];
    static uint64_t values[RUN_COLUMNS][RUN_ROWS];
    static uint8_t present[RUN_COLUMNS][RUN_ROWS];
    static mir_view texts[RUN_ROWS];
    static mir_cell cells[RUN_ROWS * RUN_COLUMNS];
    static uint8_t there[RUN_ROWS * RUN_COLUMNS];
    uint64_t random = 7;
    for (uint32_t round = 0; round < 60; round++) {
        const mir_view id = mir_view_of(long_id, 1 + round * 5);
        const uint32_t count = 1 + round % RUN_COLUMNS;
        /* Every other round has numbers alone. */
        const uint32_t types = round % 2 == 0 ? MIR_COLUMN_STRING - 1 : MIR_COLUMN_STRING;
        mir_column head[RUN_COLUMNS];
        for (uint32_t i = 0; i < count; i++) {
            const mir_column_type type = (mir_column_type)(1 + (round / 2 + i) % types);
            head[i] = (mir_column){names[i], 1, type};
        }
        for (uint32_t r = 0; r < RUN_ROWS; r++) {
            times[r] = any_time(&random, r);
            texts[r] = mir_view_of(text, next_random(&random) % sizeof text);
            owners[r] = 0;
            for (uint32_t i = 0; i < count; i++) {
                mir_cell *cell = &cells[r * count + i];
                uint64_t bits = any_bits(&random);
                if (head[i].type == MIR_COLUMN_BOOL) bits &= 1;
                if (head[i].type == MIR_COLUMN_STRING) bits %= r + 1;
                there[r * count + i] = present[i][r] = next_random(&random) % 8 != 0;
                values[i][r] = bits;
                *cell = (mir_cell){.u64 = bits};
                if (head[i].type == MIR_COLUMN_BOOL) *cell = (mir_cell){.boolean = bits != 0};
                if (head[i].type == MIR_COLUMN_STRING) cell->string = texts[bits];
            }
        }
        mir_tlm_table one = {.device_ids = &id};
        mir_tlm_table other = {.device_ids = &id};
        mir_tlog_sink by_row = mir_tlm_table_sink(&one);
        mir_tlog_sink by_run = mir_tlm_table_sink(&other);
        assert_int_equal(by_row.columns(by_row.context, head, count), MIR_OK);
        assert_int_equal(by_run.columns(by_run.context, head, count), MIR_OK);
        const mir_tlog_batch batch = {RUN_ROWS, count, times, owners, cells, there};
        assert_int_equal(by_row.rows(by_row.context, &batch), MIR_OK);
        for (uint32_t first = 0; first < RUN_ROWS;) {
            const uint32_t some = first + 99 < RUN_ROWS ? 99 : RUN_ROWS - first;
            mir_tlog_rows_column part[RUN_COLUMNS];
            for (uint32_t i = 0; i < count; i++)
                part[i] = (mir_tlog_rows_column){head[i], values[i] + first, present[i] + first};
            const mir_tlog_rows run = {0, some, count, times + first, part, texts};
            assert_int_equal(by_run.run(by_run.context, &run), MIR_OK);
            first += some;
        }
        assert_int_equal(other.bytes.size, one.bytes.size);
        assert_memory_equal(other.bytes.data + 11, one.bytes.data + 11, one.bytes.size - 11);
        assert_int_equal(other.rows, RUN_ROWS);
        assert_int_equal(other.last_ns, times[RUN_ROWS - 1]);
        mir_arena arena = {0};
        MirApi__V1__QueryTelemetry *got = read_back(&other, &arena);
        assert_int_equal(got->n_rows, RUN_ROWS);
        for (uint32_t r = 0; r < RUN_ROWS; r++) {
            const row *answered = got->rows[r];
            assert_int_equal(answered->n_datapoints, 2 + count);
            const MirApi__V1__Timestamp *time = answered->datapoints[0]->value_timestamp;
            assert_in_range(time->nanos, 0, 999999999);
            assert_true((__int128)time->seconds * 1000000000 + time->nanos == times[r]);
            for (uint32_t i = 0; i < count; i++) {
                const point *p = answered->datapoints[2 + i];
                uint64_t bits = 0;
                if (present[i][r] == 0) {
                    assert_int_equal(protobuf_c_message_get_packed_size(&p->base), 0);
                    continue;
                }
                switch (head[i].type) {
                case MIR_COLUMN_I64: bits = (uint64_t)p->value_int64; break;
                case MIR_COLUMN_U64: bits = p->value_uint64; break;
                case MIR_COLUMN_F64: memcpy(&bits, &p->value_double, sizeof bits); break;
                case MIR_COLUMN_BOOL: bits = p->value_bool != 0; break;
                case MIR_COLUMN_STRING: bits = values[i][r]; break;
                }
                assert_true(bits == values[i][r]);
            }
        }
        mir_arena_free(&arena);
        mir_tlm_table_free(&one);
        mir_tlm_table_free(&other);
    }
}

/* As windows are: at the same times, of devices whose ids differ in length. */
static void test_rows_of_many_devices(void **state)
{
    (void)state;
    enum { DEVICES = 50, TIMES = 40, ROWS = DEVICES * TIMES };
    static char id_text[DEVICES * 9];
    memset(id_text, 'z', sizeof id_text);
    mir_view ids[DEVICES];
    for (uint32_t i = 0; i < DEVICES; i++) ids[i] = mir_view_of(id_text, 1 + i * 8 + i % 3);
    static int64_t times[ROWS];
    static uint32_t owners[ROWS];
    static mir_cell cells[ROWS * 2];
    static uint8_t present[ROWS * 2];
    uint64_t random = 3;
    for (uint32_t r = 0; r < ROWS; r++) {
        times[r] = any_time(&random, r / DEVICES);
        if (r % DEVICES != 0) times[r] = times[r - 1];
        owners[r] = r % DEVICES;
        for (uint32_t i = 0; i < 2; i++) {
            present[r * 2 + i] = next_random(&random) % 5 != 0;
            cells[r * 2 + i].u64 = any_bits(&random);
        }
    }
    const mir_column head[] = {{"a", 1, MIR_COLUMN_F64}, {"b", 1, MIR_COLUMN_I64}};
    mir_tlm_table table = {.device_ids = ids, .front_bytes = 77};
    mir_tlog_sink sink = mir_tlm_table_sink(&table);
    assert_int_equal(sink.columns(sink.context, head, 2), MIR_OK);
    for (uint32_t first = 0; first < ROWS; first += 500) {
        const mir_tlog_batch batch = {
            500, 2, times + first, owners + first, cells + first * 2, present + first * 2};
        assert_int_equal(sink.rows(sink.context, &batch), MIR_OK);
    }
    mir_arena arena = {0};
    MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
    assert_int_equal(got->n_rows, ROWS);
    for (uint32_t r = 0; r < ROWS; r++) {
        point *const *p = got->rows[r]->datapoints;
        const MirApi__V1__Timestamp *time = p[0]->value_timestamp;
        assert_true((__int128)time->seconds * 1000000000 + time->nanos == times[r]);
        assert_int_equal(strlen(p[1]->value_string), ids[owners[r]].size);
        assert_int_equal(p[2]->has_value_double, present[r * 2]);
        assert_int_equal(p[3]->has_value_int64, present[r * 2 + 1]);
        if (present[r * 2] != 0)
            assert_memory_equal(&p[2]->value_double, &cells[r * 2].f64, sizeof(double));
        if (present[r * 2 + 1] != 0) assert_true(p[3]->value_int64 == cells[r * 2 + 1].i64);
    }
    mir_arena_free(&arena);
    mir_tlm_table_free(&table);
}

enum { STRETCH_DEVICES = 40, STRETCH_TIMES = 30, STRETCHES = 7 };

/* Rows of devices that miss some of the times, and the same in the order of an answer. */
typedef struct stretched {
    int64_t all_times[STRETCH_TIMES];
    int64_t times[STRETCH_DEVICES][STRETCH_TIMES];
    uint64_t values[2][STRETCH_DEVICES][STRETCH_TIMES];
    uint8_t present[2][STRETCH_DEVICES][STRETCH_TIMES];
    uint32_t counts[STRETCH_DEVICES];
    uint32_t row_count;
    int64_t row_times[STRETCH_DEVICES * STRETCH_TIMES];
    uint32_t owners[STRETCH_DEVICES * STRETCH_TIMES];
    mir_cell cells[STRETCH_DEVICES * STRETCH_TIMES * 2];
    uint8_t there[STRETCH_DEVICES * STRETCH_TIMES * 2];
} stretched;

static int time_order(const void *a, const void *b)
{
    const int64_t left = *(const int64_t *)a;
    const int64_t right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

static void stretched_make(stretched *of, uint32_t columns_made, uint32_t round)
{
    uint64_t random = round + 1;
    memset(of, 0, sizeof *of);
    for (uint32_t t = 0; t < STRETCH_TIMES; t++) of->all_times[t] = any_time(&random, t);
    qsort(of->all_times, STRETCH_TIMES, sizeof of->all_times[0], time_order);
    for (uint32_t t = 0; t < STRETCH_TIMES; t++) {
        if (t > 0 && of->all_times[t] == of->all_times[t - 1]) continue;
        for (uint32_t d = 0; d < STRETCH_DEVICES; d++) {
            if (d % 5 == 3 && next_random(&random) % 4 == 0) continue;
            const uint32_t to = of->row_count++;
            const uint32_t at = of->counts[d]++;
            of->times[d][at] = of->row_times[to] = of->all_times[t];
            of->owners[to] = d;
            for (uint32_t i = 0; i < columns_made; i++) {
                const uint64_t bits = any_bits(&random);
                of->values[i][d][at] = of->cells[to * columns_made + i].u64 = bits;
                const bool is_there = next_random(&random) % 8 != 0;
                of->present[i][d][at] = of->there[to * columns_made + i] = is_there;
            }
        }
    }
}

/* Where in the answer, or in a device's rows, the stretches end. */
static void stretches_end(const stretched *of, const int64_t *times, uint32_t count, uint32_t *ends)
{
    for (uint32_t s = 0; s < STRETCHES; s++) {
        ends[s] = s == 0 ? 0 : ends[s - 1];
        const uint32_t until = STRETCH_TIMES * (s + 1) / STRETCHES;
        while (ends[s] < count &&
               (until == STRETCH_TIMES || times[ends[s]] < of->all_times[until])) {
            ends[s]++;
        }
    }
}

/* Rows that are put where they belong make the same bytes as rows one after the other, in whatever order
 * it is done, and reach no further than was said. */
static void test_rows_are_put_where_they_belong(void **state)
{
    (void)state;
    static stretched of;
    static char id_text[STRETCH_DEVICES * 9];
    memset(id_text, 'y', sizeof id_text);
    mir_view ids[STRETCH_DEVICES];
    for (uint32_t i = 0; i < STRETCH_DEVICES; i++) ids[i] = mir_view_of(id_text, 1 + i * 5 + i % 3);
    const mir_column head[] = {{"a", 1, MIR_COLUMN_F64}, {"b", 1, MIR_COLUMN_I64}};
    for (uint32_t round = 0; round < 40; round++) {
        const uint32_t count = 1 + round % 2;
        const mir_column *first = &head[round / 2 % 2 & (count == 1)];
        stretched_make(&of, count, round);
        mir_tlm_table one = {.device_ids = ids, .front_bytes = 40};
        mir_tlog_sink in_turn = mir_tlm_table_sink(&one);
        assert_int_equal(in_turn.columns(in_turn.context, first, count), MIR_OK);
        const mir_tlog_batch all = {of.row_count, count,    of.row_times,
                                    of.owners,    of.cells, of.there};
        assert_int_equal(in_turn.rows(in_turn.context, &all), MIR_OK);
        /* With as much room as it takes, and with one byte less. */
        for (uint32_t missing = 0; missing < 2; missing++) {
            mir_tlm_table other = {
                .device_ids = ids, .front_bytes = 40, .bytes_max = one.bytes.size - 40 - missing};
            mir_tlog_sink put = mir_tlm_table_sink(&other);
            assert_int_equal(put.columns(put.context, first, count), MIR_OK);
            size_t sizes[STRETCHES] = {0};
            for (uint32_t d = 0; d < STRETCH_DEVICES; d++) {
                mir_tlog_rows_column part[2];
                uint32_t ends[STRETCHES];
                for (uint32_t i = 0; i < count; i++) {
                    part[i] = (mir_tlog_rows_column){first[i], of.values[i][d], of.present[i][d]};
                }
                const mir_tlog_rows rows = {d, of.counts[d], count, of.times[d], part, NULL};
                stretches_end(&of, of.times[d], of.counts[d], ends);
                assert_int_equal(put.measure(put.context, &rows, ends, STRETCHES, sizes), MIR_OK);
            }
            size_t size = 0;
            for (uint32_t s = 0; s < STRETCHES; s++) size += sizes[s];
            uint8_t *places[STRETCHES + 1];
            assert_int_equal(put.reserve(put.context, 0, of.row_count, size, &places[0]),
                             missing == 0 ? MIR_OK : MIR_E_TOO_LARGE);
            uint32_t ends[STRETCHES];
            stretches_end(&of, of.row_times, of.row_count, ends);
            for (uint32_t s = 0; s < STRETCHES && missing == 0; s++) {
                places[s + 1] = places[s] + sizes[s];
            }
            for (uint32_t s = STRETCHES; s > 0 && missing == 0; s--) {
                uint8_t *at = places[s - 1];
                for (uint32_t r = s == 1 ? 0 : ends[s - 2]; r < ends[s - 1];) {
                    const uint32_t some = ends[s - 1] - r < 33 ? ends[s - 1] - r : 33;
                    const mir_tlog_batch batch = {some,
                                                  count,
                                                  of.row_times + r,
                                                  of.owners + r,
                                                  of.cells + r * count,
                                                  of.there + r * count};
                    assert_int_equal(put.place(put.context, &batch, &at, places[s]), MIR_OK);
                    r += some;
                }
                assert_ptr_equal(at, places[s]);
            }
            if (missing == 0) {
                assert_int_equal(other.bytes.size, one.bytes.size);
                assert_memory_equal(other.bytes.data + 51, one.bytes.data + 51,
                                    one.bytes.size - 51);
                assert_int_equal(other.rows, of.row_count);
            }
            mir_tlm_table_free(&other);
        }
        mir_arena arena = {0};
        assert_int_equal(read_back(&one, &arena)->n_rows, of.row_count);
        mir_arena_free(&arena);
        mir_tlm_table_free(&one);
    }
}

/* A run ends with the row that passes the bound, as rows do. */
static void test_a_run_that_is_too_large(void **state)
{
    (void)state;
    enum { ROWS = 500 };
    static int64_t times[ROWS];
    static uint64_t values[ROWS];
    static uint8_t present[ROWS];
    for (uint32_t r = 0; r < ROWS; r++) {
        times[r] = INT64_C(1700000000000000001) + r;
        values[r] = 1;
        present[r] = 1;
    }
    const mir_column number = {"n", 1, MIR_COLUMN_I64};
    const mir_tlog_rows_column column = {number, values, present};
    const mir_tlog_rows run = {0, ROWS, 1, times, &column, NULL};
    for (size_t bytes_max = 60; bytes_max < 9000; bytes_max += 37) {
        mir_tlm_table table = {.device_ids = devices, .bytes_max = bytes_max};
        mir_tlog_sink sink = mir_tlm_table_sink(&table);
        assert_int_equal(sink.columns(sink.context, &number, 1), MIR_OK);
        assert_int_equal(sink.run(sink.context, &run), MIR_E_TOO_LARGE);
        assert_in_range(table.bytes.size, bytes_max + 1, bytes_max + 100);
        mir_tlm_table_free(&table);
    }
    mir_tlm_table table = {.device_ids = devices, .bytes_max = 100000};
    mir_tlog_sink sink = mir_tlm_table_sink(&table);
    assert_int_equal(sink.columns(sink.context, &number, 1), MIR_OK);
    assert_int_equal(sink.run(sink.context, &run), MIR_OK);
    mir_tlm_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_and_cells),
        cmocka_unit_test(test_nothing_is_ok_without_anything),
        cmocka_unit_test(test_rows_of_every_length),
        cmocka_unit_test(test_text_that_is_no_text),
        cmocka_unit_test(test_more_than_a_message_may_have),
        cmocka_unit_test(test_runs_are_written_as_rows_are),
        cmocka_unit_test(test_rows_of_many_devices),
        cmocka_unit_test(test_rows_are_put_where_they_belong),
        cmocka_unit_test(test_a_run_that_is_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
