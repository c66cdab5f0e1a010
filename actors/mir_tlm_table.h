/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlm_table: rows of the telemetry log as a packed QueryTelemetryResponse.
 *
 * Why        An answer has a message for each cell. Built as structures first it would be some
 *            hundred bytes of allocations for each value of eight; here each row is written once, as
 *            it comes out of the log, in the form in which it leaves.
 *
 *              headers     _time      __id    then the columns, as the log orders them
 *                                     (or what a group is called by)
 *              units       RFC3339    empty   the unit of the field, or empty
 *              datatypes   TIMESTAMP  STRING  INT64, UINT64, DOUBLE, BOOL or STRING
 *              rows        one data point per header, one without a value where there is none
 *
 *            A field whose type changed within the time range has a column, and so a header of the
 *            same name, for each type: no value is bent or lost.
 * Ownership  The table owns its bytes until mir_tlm_table_free, unless they are taken out of it once it
 *            has ended; device ids are the caller's.
 * Affinity   One thread at a time, but for `place` of the sink.
 * Bounds     bytes_max, of the packed response; one row more is written before it is noticed.
 * Errors     The sink answers MIR_E_TOO_LARGE or MIR_E_NO_MEMORY. Text that is not UTF-8, which
 *            readers would refuse along with the whole response, has U+FFFD in place of each wrong
 *            byte and of each zero byte. */
#ifndef MIR_TLM_TABLE_H
#define MIR_TLM_TABLE_H

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_tlog.h"

/* Of the place of the last row of a page, as text: `<time_ns>:<device id>`. */
enum { MIR_TLM_CURSOR_BYTES_MAX = 24 + MIR_TLOG_DEVICE_BYTES_MAX };
void mir_tlm_cursor(char *text, int64_t time_ns, mir_view device);

/* A text as answers show it: what is no UTF-8, and zero bytes, would make the whole message unreadable
 * and are replaced. How many bytes that takes, and those. */
size_t mir_tlm_text_bytes(mir_view text);
uint8_t *mir_tlm_text_put(uint8_t *to, mir_view text, size_t clean_size);

/* The unit of a field by the schema of a device (its index); null: none. Called for each column
 * before the first row is written, with the device of that row. */
typedef const char *(*mir_tlm_unit_fn)(void *context, uint32_t device, mir_view field);

typedef struct mir_tlm_table {
    const mir_view *device_ids; /* what the batches' indices mean */
    const char *id_header;      /* null: __id */
    uint64_t limit;             /* with so many rows there is a cursor; 0: never */
    size_t bytes_max;           /* 0: none */
    size_t front_bytes;         /* that are kept free in `bytes` before the response */
    mir_tlm_unit_fn unit;       /* null: no units */
    void *unit_context;
    /* Its own: */
    mir_bytes bytes;
    mir_column *columns;
    uint32_t column_count;
    bool has_texts;  /* of a column */
    mir_view *cells; /* of devices, by their numbers, in texts */
    uint32_t cell_count;
    mir_arena texts;
    size_t cell_bytes_max;      /* of the devices that were measured */
    const int64_t *measured_ns; /* the times of the one measured last */
    uint32_t measured_count;
    uint32_t measured_capacity;
    uint8_t *measured_bytes; /* that each of these times takes */
    size_t length_bytes;     /* that the length of the last row took */
    bool has_rows;
    uint64_t rows;
    int64_t last_ns; /* of the last row */
    uint32_t last_device;
} mir_tlm_table;

/* The type that clients are told of a column's values. */
MirApi__V1__DataType mir_tlm_datatype(mir_column_type type);

/* Where a query writes into the table; valid as long as the table stays where it is. */
mir_tlog_sink mir_tlm_table_sink(mir_tlm_table *table);
/* Completes the response. It is in the table's memory. Without rows: `ok` with nothing in it, or with
 * what `info` says was left out. */
MIR_MUST_CHECK mir_status mir_tlm_table_end(mir_tlm_table *table, const mir_tlog_query_info *info,
                                            mir_view *response);
void mir_tlm_table_free(mir_tlm_table *table);

#endif
