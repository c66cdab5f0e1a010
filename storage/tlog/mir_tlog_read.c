/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "mir_thread.h"
#include "mir_tlog_scan.h"
#include "mir_tlog_rollup_read.h"
#include "mir_workers.h"

/* Rows as they are, device by device, as blocks of columns. */

typedef struct reading {
    const mir_tlog_query_spec *spec;
    mir_tlog_scan scan;
    uint32_t device;
    mir_tlog_rows_column *columns;
    uint32_t column_capacity;
    mir_tlog_rows_fn sink;
    void *context;
    mir_tlog_query_info *info;
} reading;

static int column_compare(const void *a, const void *b)
{
    return mir_tlog_column_compare(&((const mir_tlog_rows_column *)a)->column,
                                   &((const mir_tlog_rows_column *)b)->column);
}

/* What was gathered, in blocks of at most so many rows. */
static mir_status piece_take(void *context)
{
    reading *r = context;
    const mir_tlog_gather *gather = &r->scan.gather;
    if (gather->column_count > r->column_capacity) {
        mir_tlog_rows_column *more = realloc(r->columns, gather->column_count * sizeof *more);
        if (more == NULL) return mir_tlog_scan_failed(&r->scan, MIR_E_NO_MEMORY);
        r->columns = more;
        r->column_capacity = gather->column_count;
    }
    mir_status status = MIR_OK;
    for (uint32_t first = 0; first < gather->row_count && status == MIR_OK;
         first += MIR_TLOG_ROWS_MAX) {
        uint32_t rows = gather->row_count - first;
        if (rows > MIR_TLOG_ROWS_MAX) rows = MIR_TLOG_ROWS_MAX;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < gather->column_count; i++) {
            const mir_tlog_gather_column *from = &gather->columns[i];
            if (memchr(from->present + first, 1, rows) == NULL) continue;
            r->columns[kept++] = (mir_tlog_rows_column){
                .column = {(const char *)from->name.data, (uint32_t)from->name.size, from->type},
                .values = from->values + first,
                .present = from->present + first,
            };
        }
        qsort(r->columns, kept, sizeof *r->columns, column_compare);
        const mir_tlog_rows block = {
            .device = r->device,
            .row_count = rows,
            .column_count = kept,
            .times_ns = gather->times + first,
            .columns = r->columns,
            .texts = gather->texts,
        };
        r->info->rows += rows;
        mir_thread_offer();
        status = r->sink(r->context, &block);
    }
    return status;
}

static mir_status devices_read(reading *r, const uint32_t *order, uint32_t count)
{
    const mir_tlog_query_spec *spec = r->spec;
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < count && status == MIR_OK; i++) {
        const mir_view id = spec->device_ids[order[i]];
        int64_t first_ns = spec->from_ns;
        const int64_t last_ns = spec->to_ns - 1;
        if (spec->after) {
            const int side = mir_view_compare(id, spec->after_device);
            if (side < 0 || (side == 0 && spec->after_ns >= last_ns)) continue;
            if (side == 0 && spec->after_ns >= first_ns) first_ns = spec->after_ns + 1;
        }
        r->device = order[i];
        mir_workers_breathe();
        if (mir_tlog_scan_cancelled(&r->scan)) {
            status = mir_tlog_scan_failed(&r->scan, MIR_E_CANCELLED);
        }
        /* First, since the sink may end it among its rows. */
        if (status == MIR_OK) {
            status = mir_tlog_rollup_missed(&r->scan, id, first_ns, last_ns);
        }
        if (status == MIR_OK) {
            status = mir_tlog_scan_pieces(&r->scan, id, first_ns, last_ns, piece_take, r);
        }
    }
    return status;
}

mir_status mir_tlog_read(mir_tlog *tlog, const mir_tlog_query_spec *spec, mir_tlog_rows_fn sink,
                         void *context, mir_tlog_query_info *info, mir_error *error)
{
    mir_tlog_query_info unread;
    if (info == NULL) info = &unread;
    *info = (mir_tlog_query_info){0};
    if (spec->from_ns >= spec->to_ns) {
        return mir_error_set(error, MIR_E_INVALID, "the start time is not before the end time");
    }
    atomic_ullong bytes = 0;
    reading r = {.spec = spec, .sink = sink, .context = context, .info = info};
    uint32_t *order = NULL;
    uint32_t count = 0;
    if (mir_tlog_scan_order(spec, &order, &count) != MIR_OK)
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    r.scan = (mir_tlog_scan){
        .tlog = tlog,
        .spec = spec,
        .version = mir_tlog_version_acquire(tlog),
        .bytes = &bytes,
        .bytes_max = spec->bytes_max == 0 ? MIR_TLOG_QUERY_BYTES_DEFAULT : spec->bytes_max,
    };
    mir_status status = mir_tlog_scan_init(&r.scan);
    if (status == MIR_OK) status = devices_read(&r, order, count);
    info->rows_read = r.scan.rows_read;
    info->chunks_corrupt = mir_tlog_version_damage(tlog, r.scan.version) + r.scan.chunks_corrupt;
    info->left_out = r.scan.left_out;
    info->left_out_until_ns = r.scan.left_out_until_ns;
    if (status != MIR_OK && error != NULL && r.scan.error.text[0] != '\0') *error = r.scan.error;
    mir_tlog_scan_fini(&r.scan);
    mir_tlog_version_release(r.scan.version);
    free(r.columns);
    free(order);
    return status;
}
