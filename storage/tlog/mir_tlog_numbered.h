/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_numbered: rows that say which they are; for tests alone.
 *
 * Why        Row n has the time n (steps) and says so in its fields, so that an answer proves by itself which rows
 *            are there, and whole, whatever happened to the disk meanwhile.
 * Ownership  present_rows.seen is the caller's, to be freed.
 * Affinity   One thread at a time.
 * Errors     What can only be a fault of the log fails the test. */
#ifndef MIR_TLOG_NUMBERED_H
#define MIR_TLOG_NUMBERED_H

#include "mir_clock.h"
#include "mir_tlog.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_sim.h"

enum { DEVICES = 4, TEXT = 24 };

/* Row n has the time n times this. */
static int64_t row_step_ns = 1;

static const mir_column columns[] = {
    {"n", 1, MIR_COLUMN_I64}, {"square", 6, MIR_COLUMN_U64}, {"text", 4, MIR_COLUMN_STRING}};
static const mir_view ids[DEVICES] = {MIR_VIEW_LITERAL("d0"), MIR_VIEW_LITERAL("d1"),
                                      MIR_VIEW_LITERAL("d2"), MIR_VIEW_LITERAL("d3")};

static inline mir_status open_with(const mir_tlog_files *files, const char *directory,
                                   uint32_t writers, uint32_t sync_ms, mir_tlog **tlog)
{
    const mir_tlog_options options = {.directory = directory,
                                      .files = files,
                                      .writer_count = writers,
                                      .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN,
                                      .sync_ms = sync_ms};
    return mir_tlog_open(&options, tlog, NULL);
}

static inline mir_status put_row(mir_tlog *tlog, mir_row *row, int64_t n)
{
    const uint32_t device = (uint32_t)(n % DEVICES);
    mir_tlog_writer *writer = mir_tlog_writer_of(tlog, device % tlog->options.writer_count);
    mir_tlog_series *series;
    mir_status status =
        mir_tlog_series_open(writer, ids[device], mir_view_cstr("m.v1.T"), columns, 3, &series);
    if (status != MIR_OK) return status;
    static char text[TEXT];
    const int size = snprintf(text, sizeof text, "row %lld", (long long)n);
    row->column_count = 3;
    row->time_ns = n * row_step_ns;
    row->present[0] = 7;
    row->cells[0].i64 = n;
    row->cells[1].u64 = (uint64_t)n * (uint64_t)n;
    row->cells[2].string = mir_view_of(text, (size_t)size);
    row->dynamic_count = n % 7 == 0 ? 1 : 0;
    row->dynamic[0] =
        (mir_dynamic_cell){.name = n % 14 == 0 ? mir_view_cstr("k_a") : mir_view_cstr("k_b"),
                           .type = MIR_COLUMN_I64,
                           .value.i64 = -n};
    return mir_tlog_append(writer, series, row);
}

static inline mir_status commit_all(mir_tlog *tlog)
{
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        const mir_status one = mir_tlog_commit_turn(mir_tlog_writer_of(tlog, i), NULL);
        if (one != MIR_OK) status = one;
    }
    return status;
}

/* Which rows are there; every one that is must be right, and there once. */
typedef struct present_rows {
    uint8_t *seen;
    int64_t limit;
    uint64_t count;
    uint64_t corrupt;
    int wrong;
    int column[5]; /* n, square, text, k_a, k_b */
} present_rows;

static inline mir_status see_columns(void *context, const mir_column *header, uint32_t count)
{
    static const char *const names[5] = {"n", "square", "text", "k_a", "k_b"};
    present_rows *rows = context;
    for (int k = 0; k < 5; k++) {
        rows->column[k] = -1;
        for (uint32_t i = 0; i < count; i++) {
            if (strcmp(header[i].name, names[k]) == 0) rows->column[k] = (int)i;
        }
    }
    return MIR_OK;
}

static inline mir_status see_rows(void *context, const mir_tlog_batch *batch)
{
    present_rows *rows = context;
    for (uint32_t r = 0; r < batch->row_count; r++) {
        const int64_t n = batch->times_ns[r] / row_step_ns;
        const mir_cell *cells = batch->cells + (size_t)r * batch->column_count;
        const uint8_t *present = batch->present + (size_t)r * batch->column_count;
        char text[TEXT];
        const int size = snprintf(text, sizeof text, "row %lld", (long long)n);
        bool right = batch->times_ns[r] % row_step_ns == 0 && n >= 0 && n < rows->limit &&
                     rows->seen[n] == 0 && batch->devices[r] == n % DEVICES;
        for (int k = 0; k < 5 && right; k++) {
            const bool want = k < 3 || (n % 7 == 0 && (n % 14 == 0) == (k == 3));
            const bool have = rows->column[k] >= 0 && present[rows->column[k]] != 0;
            right = want == have;
            if (!right || !have) continue;
            const mir_cell *cell = &cells[rows->column[k]];
            if (k == 0) right = cell->i64 == n;
            if (k == 1) right = cell->u64 == (uint64_t)n * (uint64_t)n;
            if (k == 2) right = mir_view_eq(cell->string, mir_view_of(text, (size_t)size));
            if (k > 2) right = cell->i64 == -n;
        }
        if (!right) {
            rows->wrong++;
            continue;
        }
        rows->seen[n] = 1;
        rows->count++;
    }
    return MIR_OK;
}

static inline mir_status look(mir_tlog *tlog, int64_t limit, present_rows *rows)
{
    *rows = (present_rows){.limit = limit};
    rows->seen = calloc((size_t)limit + 1, 1);
    const mir_tlog_query_spec spec = {.device_ids = ids,
                                      .device_count = DEVICES,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .from_ns = INT64_MIN,
                                      .to_ns = INT64_MAX};
    const mir_tlog_sink sink = {.context = rows, .columns = see_columns, .rows = see_rows};
    mir_tlog_query_info info;
    const mir_status status = mir_tlog_query(tlog, &spec, &sink, &info, NULL);
    rows->corrupt = info.chunks_corrupt;
    return status;
}

static inline void see(mir_tlog *tlog, int64_t limit, present_rows *rows)
{
    assert_int_equal(look(tlog, limit, rows), MIR_OK);
}

static inline bool all_below(const present_rows *rows, int64_t end)
{
    for (int64_t n = 0; n < end; n++) {
        if (rows->seen[n] == 0) return false;
    }
    return true;
}

static inline bool wait_settled(mir_tlog *tlog)
{
    return mir_tlog_settle(tlog, 60000, NULL) == MIR_OK;
}

static inline void freeze_all(mir_tlog *tlog)
{
    const int64_t until = mir_clock_mono_ns() + 20 * MIR_NS_PER_S;
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        while (mir_tlog_freeze(mir_tlog_writer_of(tlog, i)) != MIR_OK) {
            assert_true(mir_clock_mono_ns() < until);
            sim_pause_us(200);
        }
    }
}

static inline sim_inode *file_with(sim_disk *disk, const char *suffix, uint32_t nth)
{
    sim_inode *found = NULL;
    (void)pthread_mutex_lock(&disk->mutex);
    for (uint32_t i = 0; i < disk->now.count && found == NULL; i++) {
        sim_entry *entry = &disk->now.entries[i];
        const size_t size = strlen(entry->name);
        if (size < 4 || strcmp(entry->name + size - strlen(suffix), suffix) != 0) continue;
        /* An untouched spare log has a header alone. */
        if (strcmp(suffix, "log") == 0 && mir_tlog_get_u32(entry->inode->data + 128) == 0) continue;
        if (nth-- == 0) found = entry->inode;
    }
    (void)pthread_mutex_unlock(&disk->mutex);
    return found;
}

/* A disk with `turns` turns of 3 rows each in a log, or sealed. */
static inline sim_disk *disk_with(int turns, bool sealed)
{
    sim_disk *disk = sim_disk_new(5);
    mir_tlog *tlog;
    mir_row row;
    assert_int_equal(open_with(&disk->files, "/t", 1, 1, &tlog), MIR_OK);
    assert_int_equal(mir_row_init(&row, 8, 8, 64), MIR_OK);
    for (int64_t n = 0; n < turns * 3; n++) {
        assert_int_equal(put_row(tlog, &row, n), MIR_OK);
        if (n % 3 == 2) assert_int_equal(commit_all(tlog), MIR_OK);
    }
    if (sealed) {
        freeze_all(tlog);
        assert_true(wait_settled(tlog));
    }
    mir_row_fini(&row);
    mir_tlog_close(tlog);
    return disk;
}

#endif
