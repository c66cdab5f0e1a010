/* SPDX-License-Identifier: Apache-2.0 */
/* mir_influx: answers InfluxQL from the state store and the telemetry log.
 *
 * Why        A measurement is a message, a series one of its devices, tags are what the device is called
 *            now. Sums over windows are the log's own; what InfluxQL adds to them (fill, calculations,
 *            functions of one row after the other) is done here on what comes out.
 * Ownership  The caller owns request and answer; both stores must outlive the call.
 * Affinity   Any thread, any number at once. It blocks: not on a shard.
 * Bounds     Of one statement: memory_bytes_max for devices and rows, MIR_INFLUX_WINDOWS_MAX windows, as
 *            many values of one fill as there is memory for, the bounds of the log's queries. Of the
 *            answer: answer_bytes_max. What takes long ends when `cancel` is set.
 * Errors     In the answer, as InfluxDB says them. */
#ifndef MIR_INFLUX_H
#define MIR_INFLUX_H

#include <stdatomic.h>

#include "mir_bytes.h"
#include "mir_influx_json.h"
#include "mir_influx_tags.h"
#include "mir_influxql.h"
#include "mir_state.h"
#include "mir_tlog.h"

/* The one database, and its one retention policy. */
#define MIR_INFLUX_DATABASE "mir"
#define MIR_INFLUX_POLICY   "autogen"

enum { MIR_INFLUX_WINDOWS_MAX = 1000000, MIR_INFLUX_MEASUREMENTS_MAX = 4096 };

typedef struct mir_influx_request {
    mir_state *state;
    mir_tlog *tlog;
    struct mir_schemas *schemas; /* null: fields that were renamed are two */
    mir_view text;
    mir_view database; /* empty: the one that there is */
    int64_t now_ns;
    int64_t epoch_ns;    /* times are numbers of these; 0: RFC 3339 */
    uint64_t chunk_rows; /* 0: one document */
    int64_t keep_ns;     /* what SHOW RETENTION POLICIES says; 0: for ever */
    size_t memory_bytes_max;
    size_t answer_bytes_max;
    const atomic_bool *cancel; /* may be null */
} mir_influx_request;

typedef struct mir_influx_info {
    uint32_t statements;
    uint32_t failed; /* statements that were answered with an error */
    uint64_t rows;   /* of the log */
    bool damaged;    /* something was left out */
    bool rolled_up;  /* rollups could not tell something */
} mir_influx_info;

/* Appends the answer. MIR_OK: whatever the statements came to; otherwise the query was not
 * understood, and the answer is the error (docs/formats/influxql.md). MIR_E_NO_MEMORY: nothing was
 * appended. */
MIR_MUST_CHECK mir_status mir_influx_answer(const mir_influx_request *request, mir_bytes *answer,
                                            mir_influx_info *info);

/* ---- What the parts share ---- */

/* One statement's. */
typedef struct mir_influx_work {
    const mir_influx_request *request;
    const mir_influxql_statement *statement;
    mir_influx_json *json;
    mir_influx_info *info;
    mir_arena arena;
    mir_error *error;
} mir_influx_work;

/* A SELECT of one measurement, from these devices, which are those that meet its condition.
 * `series` counts those that were written and passed over, for SLIMIT and SOFFSET. */
MIR_MUST_CHECK mir_status mir_influx_select(mir_influx_work *work, mir_view measurement,
                                            const mir_influx_devices *devices, uint64_t *series);
MIR_MUST_CHECK mir_status mir_influx_no_memory(mir_influx_work *work);

#endif
