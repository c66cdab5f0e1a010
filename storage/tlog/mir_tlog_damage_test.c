/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_hash.h"
#include "mir_log.h"
#include "mir_tlog_numbered.h"
#include "mir_tlog_output.h"

/* Files that are not as they were left: bits, ends and whole files are gone, before a start or under
 * a log that serves. An answer is whole or says that it is not; what is there is right. */

enum { TURNS = 30, ROWS = TURNS * 3 };

static int setup(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    return 0;
}

static mir_tlog *open_copy(sim_disk *disk)
{
    mir_tlog *tlog = NULL;
    assert_int_equal(open_with(&disk->files, "/t", 1, 1, &tlog), MIR_OK);
    return tlog;
}

static sim_entry *entry_with(sim_disk *disk, const char *suffix)
{
    for (uint32_t i = 0; i < disk->now.count; i++) {
        sim_entry *entry = &disk->now.entries[i];
        const size_t size = strlen(entry->name);
        if (size >= strlen(suffix) && strcmp(entry->name + size - strlen(suffix), suffix) == 0) {
            return entry;
        }
    }
    return NULL;
}

/* Opens, looks, closes; how many rows are there. That a log ended later, at the end of a turn, nothing
 * can tell. */
static uint64_t rows_of(sim_disk *disk, uint64_t *corrupt)
{
    const bool in_log = file_with(disk, "seg", 0) == NULL && entry_with(disk, ".damaged") == NULL;
    mir_tlog *tlog = open_copy(disk);
    present_rows rows;
    see(tlog, ROWS, &rows);
    assert_int_equal(rows.wrong, 0);
    if (rows.count < ROWS && (!in_log || rows.count % 3 != 0)) {
        mir_tlog_stats stats;
        mir_tlog_stats_read(tlog, &stats, NULL);
        assert_true(stats.corrupt_chunks + stats.corrupt_frames + stats.torn_bytes_cut > 0 ||
                    rows.corrupt > 0);
    }
    *corrupt = rows.corrupt;
    const uint64_t count = rows.count;
    free(rows.seen);
    mir_tlog_close(tlog);
    return count;
}

/* ---- While it serves ---- */

enum { COLUMNS = 3, DEVICE_ROWS_MAX = ROWS / DEVICES + 1 };

typedef struct counted {
    uint32_t column[COLUMNS]; /* where the counts of n, square and text are */
    uint64_t counts[DEVICES][COLUMNS];
    uint32_t rows;
} counted;

static mir_status counted_columns(void *context, const mir_column *header, uint32_t count)
{
    counted *to = context;
    for (uint32_t k = 0; k < COLUMNS; k++) {
        to->column[k] = UINT32_MAX;
        char name[32];
        const int size = snprintf(name, sizeof name, "count(%s)", columns[k].name);
        for (uint32_t i = 0; i < count; i++) {
            const mir_view each = mir_view_of(header[i].name, header[i].name_size);
            if (mir_view_eq(each, mir_view_of(name, (size_t)size))) to->column[k] = i;
        }
    }
    return MIR_OK;
}

static mir_status counted_rows(void *context, const mir_tlog_batch *batch)
{
    counted *to = context;
    for (uint32_t r = 0; r < batch->row_count; r++) {
        to->rows++;
        for (uint32_t k = 0; k < COLUMNS; k++) {
            if (to->column[k] == UINT32_MAX) continue;
            const size_t at = (size_t)r * batch->column_count + to->column[k];
            if (batch->present[at] != 0) {
                to->counts[batch->devices[r]][k] += batch->cells[at].u64;
            }
        }
    }
    return MIR_OK;
}

/* A damaged chunk is left out of all columns, or of none. */
static void totals_agree(mir_tlog *tlog, uint32_t functions, const present_rows *rows)
{
    counted got = {.rows = 0};
    const mir_tlog_query_spec spec = {.device_ids = ids,
                                      .device_count = DEVICES,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .from_ns = 0,
                                      .to_ns = ROWS,
                                      .functions = functions};
    const mir_tlog_sink sink = {.context = &got, .columns = counted_columns, .rows = counted_rows};
    mir_tlog_query_info info;
    assert_int_equal(mir_tlog_query(tlog, &spec, &sink, &info, NULL), MIR_OK);
    uint64_t all = 0;
    for (uint32_t d = 0; d < DEVICES; d++) {
        for (uint32_t k = 1; k < COLUMNS; k++) {
            assert_int_equal(got.counts[d][k], got.counts[d][0]);
        }
        all += got.counts[d][0];
    }
    assert_int_equal(all, rows->count);
    assert_int_equal(info.chunks_corrupt > 0, rows->corrupt > 0);
}

static mir_status block_count(void *context, const mir_tlog_rows *block)
{
    *(uint64_t *)context += block->row_count;
    return MIR_OK;
}

static void read_agrees(mir_tlog *tlog, const present_rows *rows)
{
    uint64_t count = 0;
    const mir_tlog_query_spec spec = {.device_ids = ids,
                                      .device_count = DEVICES,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .from_ns = INT64_MIN,
                                      .to_ns = INT64_MAX};
    mir_tlog_query_info info;
    assert_int_equal(mir_tlog_read(tlog, &spec, block_count, &count, &info, NULL), MIR_OK);
    assert_int_equal(count, rows->count);
    assert_int_equal(info.chunks_corrupt > 0, rows->corrupt > 0);
}

static mir_status name_pass(void *context, mir_view name)
{
    (void)name;
    ++*(uint32_t *)context;
    return MIR_OK;
}

static void flipped_bits_under_a_log_that_serves(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, true);
    sim_inode *segment = file_with(disk, "seg", 0);
    mir_tlog *tlog = open_copy(disk);
    uint64_t partial = 0;
    const uint64_t index =
        mir_tlog_get_u64(segment->data + segment->size - MIR_TLOG_SEGMENT_TRAILER_BYTES);
    const uint64_t gap = index - MIR_TLOG_SPARE_GAP_BYTES;
    for (uint64_t at = 0; at < segment->size; at++) {
        if (at == gap + 8) at = index - 8; /* zeros that nobody reads who asks */
        const uint8_t bit = (uint8_t)(1u << (at % 8));
        segment->data[at] ^= bit;
        present_rows rows;
        see(tlog, ROWS, &rows);
        assert_int_equal(rows.wrong, 0);
        assert_int_equal(rows.count<ROWS, rows.corrupt> 0);
        totals_agree(tlog, MIR_TLOG_COUNT | MIR_TLOG_FIRST, &rows);
        totals_agree(tlog, MIR_TLOG_COUNT | MIR_TLOG_LAST, &rows);
        read_agrees(tlog, &rows);
        uint32_t names = 0;
        uint64_t blocks = 0;
        assert_int_equal(
            mir_tlog_devices(tlog, mir_view_cstr("m.v1.T"), 0, name_pass, &names, &blocks, NULL),
            MIR_OK);
        assert_true(names == DEVICES || blocks > 0);
        (void)!mir_tlog_fields(tlog, mir_view_cstr("m.v1.T"), 0, name_pass, &names, NULL);
        partial += rows.corrupt > 0;
        free(rows.seen);
        segment->data[at] ^= bit;
    }
    assert_true(partial > (segment->size - MIR_TLOG_SPARE_GAP_BYTES) / 2);
    present_rows rows;
    see(tlog, ROWS, &rows);
    assert_int_equal(rows.count, ROWS);
    assert_int_equal(rows.corrupt, 0);
    free(rows.seen);
    mir_tlog_close(tlog);
    sim_disk_free(disk);
}

static void merge_and_retention_leave_a_damaged_segment_alone(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, true);
    sim_inode *segment = file_with(disk, "seg", 0);
    segment->data[MIR_TLOG_SEGMENT_HEADER_BYTES + MIR_TLOG_CHUNK_HEADER_BYTES + 3] ^= 4;
    mir_tlog *tlog = open_copy(disk);
    mir_row row;
    assert_int_equal(mir_row_init(&row, 8, 8, 64), MIR_OK);
    for (int64_t n = ROWS; n < ROWS + 300; n++) {
        assert_int_equal(put_row(tlog, &row, n), MIR_OK);
        if (n % 30 != 29) continue;
        assert_int_equal(commit_all(tlog), MIR_OK);
        freeze_all(tlog);
    }
    assert_true(wait_settled(tlog));
    mir_tlog_stats stats;
    mir_tlog_stats_read(tlog, &stats, NULL);
    assert_true(stats.merges > 0);
    present_rows rows;
    see(tlog, ROWS + 300, &rows);
    assert_int_equal(rows.wrong, 0);
    assert_int_equal(rows.corrupt, 1);
    assert_true(rows.count >= 300 + ROWS - DEVICE_ROWS_MAX);
    free(rows.seen);
    mir_row_fini(&row);
    mir_tlog_close(tlog);
    sim_disk_free(disk);
}

static sim_inode *unreadable;

static int64_t bad_pread(void *context, int handle, void *data, size_t size, uint64_t offset)
{
    sim_disk *disk = context;
    (void)pthread_mutex_lock(&disk->mutex);
    const bool bad = disk->handles[handle] == unreadable;
    (void)pthread_mutex_unlock(&disk->mutex);
    return bad ? -EIO : sim_pread(context, handle, data, size, offset);
}

static _Atomic int64_t now_ns;

static int64_t wall_ns(void)
{
    return now_ns;
}

/* Neither stops for the others, and it goes when it is old, whether or not a merge has met it. */
static void a_segment_that_the_disk_cannot_read_keeps_no_others(void **state)
{
    (void)state;
    for (int64_t more = 0; more <= 300; more += 300) {
        sim_disk *disk = disk_with(TURNS, true);
        disk->files.pread = bad_pread;
        now_ns = ROWS;
        const mir_tlog_options options = {.directory = "/t",
                                          .files = &disk->files,
                                          .writer_count = 2,
                                          .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN,
                                          .retention_age_ns = 1000 * MIR_NS_PER_S,
                                          .wall_ns = wall_ns};
        mir_tlog *tlog;
        assert_int_equal(mir_tlog_open(&options, &tlog, NULL), MIR_OK);
        unreadable = file_with(disk, "seg", 0);
        mir_row row;
        assert_int_equal(mir_row_init(&row, 8, 8, 64), MIR_OK);
        for (int64_t n = ROWS; n < ROWS + more; n++) {
            assert_int_equal(put_row(tlog, &row, n), MIR_OK);
            if (n % 30 != 29) continue;
            assert_int_equal(commit_all(tlog), MIR_OK);
            freeze_all(tlog);
        }
        /* The first merge finds out. */
        for (int again = 0; again < 3; again++) assert_true(wait_settled(tlog));
        mir_tlog_stats stats;
        mir_tlog_stats_read(tlog, &stats, NULL);
        assert_int_equal(stats.merges > 0, more > 0);
        present_rows rows;
        see(tlog, ROWS + more, &rows);
        assert_int_equal(rows.wrong, 0);
        assert_int_equal(rows.count, more);
        free(rows.seen);
        now_ns = 5000 * MIR_NS_PER_S;
        assert_true(wait_settled(tlog));
        mir_tlog_stats_read(tlog, &stats, NULL);
        assert_int_equal(stats.segments, 0);
        unreadable = NULL;
        mir_row_fini(&row);
        mir_tlog_close(tlog);
        sim_disk_free(disk);
    }
}

/* ---- At a start ---- */

static void a_missing_segment_is_told_by_every_answer(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, true);
    sim_remove(disk, entry_with(disk, ".seg"));
    /* At this start and later ones, until it is accepted. */
    for (int start = 0; start < 3; start++) {
        uint64_t corrupt;
        assert_int_equal(rows_of(disk, &corrupt), 0);
        assert_int_equal(corrupt, 1);
    }
    sim_remove(disk, entry_with(disk, ".seg.damaged"));
    mir_tlog *tlog = open_copy(disk);
    present_rows rows;
    see(tlog, ROWS, &rows);
    assert_int_equal(rows.count + rows.corrupt, 0);
    free(rows.seen);
    mir_tlog_close(tlog);
    sim_disk_free(disk);
}

static void truncated_files_are_told(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        sim_disk *disk = disk_with(TURNS, kind == 0);
        const char *suffix = kind == 0 ? "seg" : "log";
        uint64_t end = file_with(disk, suffix, 0)->size;
        while (kind == 1 && file_with(disk, suffix, 0)->data[end - 1] == 0) end--;
        for (uint64_t size = 0; size < end; size += 1 + size % 13) {
            sim_disk *copy = sim_power_cut(disk, 1);
            file_with(copy, suffix, 0)->size = size;
            uint64_t corrupt;
            const uint64_t count = rows_of(copy, &corrupt);
            assert_true(count < ROWS);
            assert_true(kind == 1 || corrupt == 1);
            sim_disk_free(copy);
        }
        sim_disk_free(disk);
    }
}

/* Whatever is asked for might have been in it; once the log is sealed, nothing tells of it any more. */
static void a_damaged_region_of_a_log_makes_answers_partial_until_it_is_sealed(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, false);
    sim_inode *log = file_with(disk, "log", 0);
    /* The one in the middle: others have the names that it has. */
    uint8_t *frame = log->data;
    for (int turn = 0; turn <= TURNS / 2; turn++) {
        frame = memmem(frame + 4, (size_t)(log->data + log->size - frame - 4), "MFRM", 4);
        assert_non_null(frame);
    }
    frame[MIR_TLOG_FRAME_HEADER_BYTES + 5] ^= 1;
    /* After the manifest of the start, segments cannot be finished. */
    disk->fail_calls = SIM_RENAME;
    disk->fail_errno = EIO;
    disk->calls = 0;
    disk->fail_at = 2;
    disk->fail_count = UINT64_MAX;
    mir_tlog *tlog = open_copy(disk);
    present_rows rows;
    see(tlog, ROWS, &rows);
    assert_int_equal(rows.count, ROWS - 3);
    assert_int_equal(rows.wrong, 0);
    assert_int_equal(rows.corrupt, 1);
    read_agrees(tlog, &rows);
    free(rows.seen);
    uint32_t names = 0;
    uint64_t blocks_corrupt;
    assert_int_equal(mir_tlog_devices(tlog, mir_view_cstr("m.v1.T"), INT64_MIN, name_pass, &names,
                                      &blocks_corrupt, NULL),
                     MIR_OK);
    assert_int_equal(names, DEVICES);
    assert_int_equal(blocks_corrupt, 1);
    mir_tlog_log_look look; /* as who verifies does */
    mir_error error = {{0}};
    assert_int_equal(mir_tlog_log_look_bytes(mir_view_of(log->data, log->size),
                                             mir_tlog_get_u64(log->data + 16), &look, &error),
                     MIR_OK);
    assert_int_equal(look.found.corrupt_frames, 1);
    (void)pthread_mutex_lock(&disk->mutex);
    disk->fail_at = 0;
    (void)pthread_mutex_unlock(&disk->mutex);
    if (mir_tlog_settle(tlog, 20000, &error) != MIR_OK) fail_msg("%s", error.text);
    see(tlog, ROWS, &rows);
    assert_int_equal(rows.count, ROWS - 3);
    assert_int_equal(rows.corrupt, 0);
    free(rows.seen);
    mir_tlog_close(tlog);
    sim_disk_free(disk);
}

static void a_log_whose_header_is_gone_is_set_aside(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, false);
    sim_inode *log = file_with(disk, "log", 0);
    memset(log->data, 0, MIR_TLOG_LOG_HEADER_BYTES);
    for (int start = 0; start < 2; start++) {
        uint64_t corrupt;
        assert_int_equal(rows_of(disk, &corrupt), 0);
        assert_int_equal(corrupt, 1);
    }
    assert_ptr_equal(entry_with(disk, ".log.damaged")->inode, log);
    sim_disk_free(disk);
}

/* A crash, or a full disk, while a log was made. */
static void a_log_whose_header_was_never_finished_is_none(void **state)
{
    (void)state;
    for (size_t size = 0; size <= MIR_TLOG_LOG_HEADER_BYTES; size += 16) {
        sim_disk *disk = disk_with(TURNS, true);
        uint8_t header[MIR_TLOG_LOG_HEADER_BYTES];
        mir_tlog_log_header(header, 99, 1);
        int handle = -1;
        assert_int_equal(sim_create(disk, "/t/0000000000000063.log", &handle), 0);
        assert_int_equal(sim_allocate(disk, handle, 4096), 0);
        if (size > 0) assert_int_equal(sim_pwrite(disk, handle, header, size, 0), size);
        assert_int_equal(sim_close(disk, handle), 0);
        uint64_t corrupt;
        assert_int_equal(rows_of(disk, &corrupt), ROWS);
        assert_int_equal(corrupt, 0);
        assert_null(entry_with(disk, ".damaged"));
        sim_disk_free(disk);
    }
}

static void flip_header(sim_disk *disk)
{
    file_with(disk, "seg", 0)->data[17] ^= 1;
}

/* It would take the place of what may still be repaired, once it is damaged itself. */
static void no_file_gets_the_number_of_one_that_is_set_aside(void **state)
{
    (void)state;
    for (int sealed = 0; sealed < 2; sealed++) {
        sim_disk *disk = disk_with(TURNS, sealed != 0);
        sim_inode *file = file_with(disk, sealed != 0 ? "seg" : "log", 0);
        memset(file->data, 0, MIR_TLOG_LOG_HEADER_BYTES);
        uint64_t corrupt;
        assert_int_equal(rows_of(disk, &corrupt), 0);
        char aside[64];
        (void)snprintf(aside, sizeof aside, "%s", entry_with(disk, ".damaged")->name);
        for (uint32_t i = 0; i < disk->now.count;) {
            if (strstr(disk->now.entries[i].name, ".damaged") == NULL)
                sim_remove(disk, &disk->now.entries[i]);
            else
                i++;
        }
        mir_tlog *tlog = open_copy(disk);
        const uint64_t next = mir_tlog_number_take(tlog);
        assert_true(next > strtoull(aside, NULL, 16));
        mir_tlog_close(tlog);
        sim_disk_free(disk);
    }
}

/* Somebody may have put it back by hand. */
static void what_is_set_aside_is_never_replaced(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, true);
    char path[80];
    (void)snprintf(path, sizeof path, "%s.damaged", entry_with(disk, ".seg")->name);
    int handle = -1;
    assert_int_equal(sim_create(disk, path, &handle), 0);
    assert_int_equal(sim_pwrite(disk, handle, "rows", 4, 0), 4);
    assert_int_equal(sim_close(disk, handle), 0);
    const sim_inode *aside = entry_with(disk, ".seg.damaged")->inode;
    flip_header(disk);
    for (int start = 0; start < 2; start++) {
        uint64_t corrupt;
        assert_int_equal(rows_of(disk, &corrupt), 0);
        assert_true(corrupt > 0);
        assert_ptr_equal(entry_with(disk, ".seg.damaged")->inode, aside);
    }
    flip_header(disk);
    uint64_t corrupt;
    assert_int_equal(rows_of(disk, &corrupt), ROWS);
    sim_disk_free(disk);
}

/* The rename is on the disk, and the manifest that no longer has the segment is not. */
static void a_crash_after_setting_aside_changes_nothing(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, true);
    flip_header(disk);
    sim_entry *entry = entry_with(disk, ".seg");
    (void)strcat(entry->name, ".damaged");
    for (int start = 0; start < 2; start++) {
        uint64_t corrupt;
        assert_int_equal(rows_of(disk, &corrupt), 0);
        assert_int_equal(corrupt, 1);
    }
    sim_disk_free(disk);
}

static void what_cannot_be_set_aside_is_not_forgotten(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, true);
    flip_header(disk);
    disk->fail_calls = SIM_RENAME;
    disk->fail_errno = EIO;
    disk->calls = 0;
    disk->fail_at = 1;
    disk->fail_count = 1;
    uint64_t corrupt;
    assert_int_equal(rows_of(disk, &corrupt), 0);
    assert_int_equal(corrupt, 1);
    assert_int_equal(disk->failed, 1);
    flip_header(disk);
    assert_int_equal(rows_of(disk, &corrupt), ROWS);
    assert_int_equal(corrupt, 0);
    sim_disk_free(disk);
}

static void an_unreadable_segment_is_there_again_when_it_can_be_read(void **state)
{
    (void)state;
    const int codes[3] = {EIO, EMFILE, ENFILE};
    for (int i = 0; i < 3; i++) {
        sim_disk *disk = disk_with(TURNS, true);
        disk->fail_calls = SIM_OPEN;
        disk->fail_errno = codes[i];
        disk->calls = 0;
        disk->fail_at = 2; /* behind the manifest */
        disk->fail_count = 1;
        uint64_t corrupt;
        assert_int_equal(rows_of(disk, &corrupt), 0);
        assert_int_equal(corrupt, 1);
        assert_int_equal(disk->failed, 1);
        assert_int_equal(rows_of(disk, &corrupt), ROWS);
        assert_int_equal(corrupt, 0);
        sim_disk_free(disk);
    }
}

static void a_sealed_log_that_cannot_be_unlinked_is_never_replayed(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(TURNS, false);
    disk->fail_calls = SIM_UNLINK;
    disk->fail_errno = EIO;
    for (int start = 0; start < 5; start++) {
        disk->fail_at = start < 4 ? 1 : 0;
        disk->fail_count = UINT64_MAX;
        mir_tlog *tlog = open_copy(disk);
        assert_true(wait_settled(tlog));
        mir_tlog_stats stats;
        mir_tlog_stats_read(tlog, &stats, NULL);
        assert_int_equal(stats.replayed_rows, start == 0 ? ROWS : 0);
        assert_int_equal(stats.segment_rows, ROWS);
        mir_tlog_close(tlog);
        assert_int_equal(file_with(disk, "log", 0) != NULL, start < 4);
    }
    sim_disk_free(disk);
}

/* ---- Versions ---- */

static void refused(sim_disk *disk, const char *words)
{
    sim_directory before = disk->now;
    mir_tlog *tlog;
    const mir_tlog_options options = {.directory = "/t", .files = &disk->files};
    mir_error error = {{0}};
    assert_int_equal(mir_tlog_open(&options, &tlog, &error), MIR_E_UNSUPPORTED);
    if (strstr(error.text, words) == NULL) fail_msg("%s", error.text);
    assert_int_equal(disk->now.count, before.count);
    assert_memory_equal(disk->now.entries, before.entries, before.count * sizeof(sim_entry));
}

static void files_of_other_versions_are_refused_and_untouched(void **state)
{
    (void)state;
    const uint32_t versions[3] = {0, 9, UINT32_MAX};
    for (int i = 0; i < 3; i++) {
        const char *words =
            versions[i] == 0 ? "restore it from a backup" : "start the newer program";
        sim_disk *disk = disk_with(TURNS, true);
        sim_inode *segment = file_with(disk, "seg", 0);
        (void)mir_tlog_put_u32(segment->data + 8, versions[i]);
        (void)mir_tlog_put_u64(segment->data + 56, mir_hash_fixed(segment->data, 56));
        refused(disk, words);
        sim_disk_free(disk);
        disk = disk_with(TURNS, true);
        sim_inode *manifest = entry_with(disk, "MANIFEST")->inode;
        (void)mir_tlog_put_u32(manifest->data + 8, versions[i]);
        (void)mir_tlog_put_u64(manifest->data + 16,
                               XXH3_64bits_withSeed(manifest->data + 24, manifest->size - 24,
                                                    mir_tlog_get_u64(manifest->data + 8)));
        refused(disk, words);
        sim_disk_free(disk);
        disk = disk_with(TURNS, false);
        sim_inode *log = file_with(disk, "log", 0);
        for (int copy = 0; copy < 2; copy++) {
            uint8_t *header = log->data + copy * (MIR_TLOG_LOG_HEADER_BYTES / 2);
            (void)mir_tlog_put_u32(header + 8, versions[i]);
            (void)mir_tlog_put_u64(header + 56, mir_hash_fixed(header, 56));
        }
        mir_tlog *tlog;
        mir_error error = {{0}};
        const mir_tlog_options options = {.directory = "/t", .files = &disk->files};
        assert_int_equal(mir_tlog_open(&options, &tlog, &error), MIR_E_UNSUPPORTED);
        assert_non_null(strstr(error.text, words));
        assert_ptr_equal(file_with(disk, "log", 0), log);
        sim_disk_free(disk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flipped_bits_under_a_log_that_serves),
        cmocka_unit_test(merge_and_retention_leave_a_damaged_segment_alone),
        cmocka_unit_test(a_segment_that_the_disk_cannot_read_keeps_no_others),
        cmocka_unit_test(a_missing_segment_is_told_by_every_answer),
        cmocka_unit_test(truncated_files_are_told),
        cmocka_unit_test(a_damaged_region_of_a_log_makes_answers_partial_until_it_is_sealed),
        cmocka_unit_test(a_log_whose_header_is_gone_is_set_aside),
        cmocka_unit_test(no_file_gets_the_number_of_one_that_is_set_aside),
        cmocka_unit_test(what_is_set_aside_is_never_replaced),
        cmocka_unit_test(a_log_whose_header_was_never_finished_is_none),
        cmocka_unit_test(a_crash_after_setting_aside_changes_nothing),
        cmocka_unit_test(what_cannot_be_set_aside_is_not_forgotten),
        cmocka_unit_test(an_unreadable_segment_is_there_again_when_it_can_be_read),
        cmocka_unit_test(a_sealed_log_that_cannot_be_unlinked_is_never_replayed),
        cmocka_unit_test(files_of_other_versions_are_refused_and_untouched),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
