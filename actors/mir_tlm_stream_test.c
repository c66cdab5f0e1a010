/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_tlm_stream.h"

enum { ROWS = 100 };

static const mir_view devices[] = {MIR_VIEW_LITERAL("first"), MIR_VIEW_LITERAL("second")};

static int64_t times[ROWS];
static uint64_t numbers[ROWS], places[ROWS];
static uint8_t all[ROWS];
static mir_view texts[ROWS];

static const mir_tlog_rows_column columns[] = {
    {.column = {"i", 1, MIR_COLUMN_I64}, .values = numbers, .present = all},
    {.column = {"s", 1, MIR_COLUMN_STRING}, .values = places, .present = all},
};

static mir_tlog_rows block_of(uint32_t device)
{
    for (uint32_t i = 0; i < ROWS; i++) {
        times[i] = INT64_C(1000000000) * (i + 1);
        numbers[i] = (uint64_t) - (int64_t)i;
        places[i] = i;
        all[i] = 1;
        texts[i] = MIR_VIEW_LITERAL("text");
    }
    return (mir_tlog_rows){.device = device,
                           .row_count = ROWS,
                           .column_count = 2,
                           .times_ns = times,
                           .columns = columns,
                           .texts = texts};
}

static mir_tlm_stream stream_of(mir_letters *letters, size_t message_bytes_max, size_t bytes_max)
{
    return (mir_tlm_stream){.letters = letters,
                            .subject = MIR_VIEW_LITERAL("_INBOX.x"),
                            .device_ids = devices,
                            .message_bytes_max = message_bytes_max,
                            .bytes_max = bytes_max};
}

static MirApi__V1__QueryTelemetryResponse *unpack(const mir_letter *letter)
{
    mir_view payload = letter->message.payload;
    MirApi__V1__QueryTelemetryResponse *response =
        mir_api__v1__query_telemetry_response__unpack(NULL, payload.size, payload.data);
    assert_non_null(response);
    assert_int_equal(response->response_case, MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_OK);
    return response;
}

static void free_response(MirApi__V1__QueryTelemetryResponse *response)
{
    mir_api__v1__query_telemetry_response__free_unpacked(response, NULL);
}

/* The same as in a table, whatever a device has sent. */
static void texts_are_shown_as_in_tables(void **state)
{
    (void)state;
    static const struct {
        mir_view from;
        const char *to;
    } cases[] = {
        {MIR_VIEW_LITERAL("plain"), "plain"},
        {MIR_VIEW_LITERAL(""), ""},
        {MIR_VIEW_LITERAL("caf\xc3\xa9"), "caf\xc3\xa9"},
        {MIR_VIEW_LITERAL("a\0b"), "a\xef\xbf\xbd"
                                   "b"},
        {MIR_VIEW_LITERAL("\xc3\xa9\xff"), "\xc3\xa9\xef\xbf\xbd"},
    };
    enum { CASES = sizeof cases / sizeof cases[0] };
    mir_letters letters = {0};
    mir_tlm_stream stream = stream_of(&letters, 4096, 65536);
    mir_tlog_rows rows = block_of(0);
    rows.row_count = CASES;
    for (size_t i = 0; i < CASES; i++) texts[i] = cases[i].from;
    assert_int_equal(mir_tlm_stream_take(&stream, &rows), MIR_OK);
    assert_int_equal(mir_tlm_stream_end(&stream), MIR_OK);
    MirApi__V1__QueryTelemetryResponse *response = unpack(letters.first);
    MirApi__V1__TelemetryBlock__Column *column = response->ok->blocks[0]->columns[1];
    assert_int_equal(column->n_texts, CASES);
    for (size_t i = 0; i < CASES; i++) assert_string_equal(column->texts[i], cases[i].to);
    free_response(response);
    mir_letters_discard(&letters);
    mir_tlm_stream_free(&stream);
}

/* However small a message may be, each row is in one of them once, and in its order. */
static void messages_keep_to_their_size(void **state)
{
    (void)state;
    enum { BYTES_MAX = 100 };
    mir_letters letters = {0};
    mir_tlm_stream stream = stream_of(&letters, BYTES_MAX, 1 << 20);
    for (uint32_t device = 0; device < 2; device++) {
        mir_tlog_rows rows = block_of(device);
        assert_int_equal(mir_tlm_stream_take(&stream, &rows), MIR_OK);
    }
    assert_int_equal(mir_tlm_stream_end(&stream), MIR_OK);
    assert_int_equal(stream.rows, 2 * ROWS);
    assert_false(stream.cut);
    size_t row = 0;
    for (const mir_letter *letter = letters.first; letter != NULL; letter = letter->next) {
        assert_in_range(letter->message.payload.size, 1, BYTES_MAX);
        MirApi__V1__QueryTelemetryResponse *response = unpack(letter);
        for (size_t b = 0; b < response->ok->n_blocks; b++) {
            const MirApi__V1__TelemetryBlock *block = response->ok->blocks[b];
            assert_memory_equal(block->device_id, devices[row / ROWS].data,
                                devices[row / ROWS].size);
            for (size_t i = 0; i < block->columns[0]->n_ints; i++)
                assert_int_equal(block->columns[0]->ints[i], -(int64_t)(row++ % ROWS));
        }
        free_response(response);
    }
    assert_int_equal(row, 2 * ROWS);
    mir_letters_discard(&letters);
    mir_tlm_stream_free(&stream);
}

/* What was taken is told by where it ends; the rest is the next stream's. */
static void what_is_more_is_cut_behind_a_row(void **state)
{
    (void)state;
    mir_letters letters = {0};
    mir_tlm_stream stream = stream_of(&letters, 100, 500);
    mir_tlog_rows rows = block_of(1);
    assert_int_equal(mir_tlm_stream_take(&stream, &rows), MIR_E_EMPTY);
    assert_int_equal(mir_tlm_stream_end(&stream), MIR_OK);
    assert_true(stream.cut);
    assert_in_range(stream.rows, 1, ROWS - 1);
    assert_int_equal(stream.last_ns, times[stream.rows - 1]);
    assert_int_equal(stream.last_device, 1);
    size_t told = 0;
    for (const mir_letter *letter = letters.first; letter != NULL; letter = letter->next) {
        MirApi__V1__QueryTelemetryResponse *response = unpack(letter);
        for (size_t b = 0; b < response->ok->n_blocks; b++)
            told += response->ok->blocks[b]->columns[0]->n_ints;
        free_response(response);
    }
    assert_int_equal(told, stream.rows);
    mir_letters_discard(&letters);
    mir_tlm_stream_free(&stream);
}

static void a_row_larger_than_a_message_is_refused(void **state)
{
    (void)state;
    mir_letters letters = {0};
    mir_tlm_stream stream = stream_of(&letters, 20, 65536);
    mir_tlog_rows rows = block_of(0);
    assert_int_equal(mir_tlm_stream_take(&stream, &rows), MIR_E_TOO_LARGE);
    assert_null(letters.first);
    mir_tlm_stream_free(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_shown_as_in_tables),
        cmocka_unit_test(messages_keep_to_their_size),
        cmocka_unit_test(what_is_more_is_cut_behind_a_row),
        cmocka_unit_test(a_row_larger_than_a_message_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
