/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_output.h"

#include "mir_clock.h"

static const int64_t DAY_NS = INT64_C(86400) * MIR_NS_PER_S;

int64_t mir_tlog_day_of(int64_t time_ns)
{
    return time_ns / DAY_NS - (time_ns % DAY_NS < 0 ? 1 : 0);
}

static void temporary_path(const mir_tlog *tlog, char *path, uint64_t id)
{
    mir_tlog_path(tlog, path, id, "seg.tmp");
}

static mir_tlog_output *output_of(mir_tlog_outputs *all, int64_t day)
{
    for (uint32_t i = 0; i < all->count; i++) {
        if (all->list[i].day == day) return &all->list[i];
    }
    if (all->count < MIR_TLOG_OUTPUTS_MAX) {
        mir_tlog_output *fresh = &all->list[all->count++];
        fresh->day = day;
        return fresh;
    }
    return &all->list[MIR_TLOG_OUTPUTS_MAX];
}

mir_status mir_tlog_output_ready(mir_tlog_outputs *all, mir_tlog_output *output, mir_error *error)
{
    if (output->writer != NULL) return MIR_OK;
    char path[MIR_TLOG_PATH_BYTES_MAX];
    output->id = mir_tlog_number_take(all->tlog);
    temporary_path(all->tlog, path, output->id);
    mir_tlog_segment_head head = all->head;
    head.id = output->id;
    return mir_tlog_segment_begin(all->tlog->files, path, &head, &output->writer, error);
}

mir_status mir_tlog_outputs_put(mir_tlog_outputs *all, mir_tlog_codec *codec, mir_view measurement,
                                mir_view device, const mir_tlog_gather *gather, uint32_t first,
                                uint32_t last, mir_error *error)
{
    mir_status status = MIR_OK;
    while (first < last && status == MIR_OK) {
        int64_t day = mir_tlog_day_of(gather->times[first]);
        mir_tlog_output *output = output_of(all, day);
        /* Times ascend: when the last one is of the same day, all are. */
        uint32_t end = mir_tlog_day_of(gather->times[last - 1]) == day ? last : first + 1;
        for (; end < last; end++) {
            const int64_t other = mir_tlog_day_of(gather->times[end]);
            if (other == day) continue;
            if (output_of(all, other) != output) break;
            day = other;
        }
        status = mir_tlog_output_ready(all, output, error);
        if (status == MIR_OK) {
            status = mir_tlog_segment_put(output->writer, codec, measurement, device, gather, first,
                                          end, all->head.generation_max, error);
        }
        first = end;
    }
    return status;
}

void mir_tlog_outputs_abandon(mir_tlog_outputs *all)
{
    for (uint32_t i = 0; i <= MIR_TLOG_OUTPUTS_MAX; i++) {
        mir_tlog_segment_abandon(all->list[i].writer);
        all->list[i].writer = NULL;
    }
}

mir_status mir_tlog_outputs_end(mir_tlog_outputs *all, mir_tlog_codec *codec,
                                mir_tlog_segment **segments, uint32_t *count, mir_error *error)
{
    mir_tlog *tlog = all->tlog;
    const mir_tlog_files *files = tlog->files;
    mir_status status = MIR_OK;
    *count = 0;
    for (uint32_t i = 0; i <= MIR_TLOG_OUTPUTS_MAX && status == MIR_OK; i++) {
        mir_tlog_output *output = &all->list[i];
        if (output->writer == NULL) continue;
        char from[MIR_TLOG_PATH_BYTES_MAX];
        char to[MIR_TLOG_PATH_BYTES_MAX];
        temporary_path(tlog, from, output->id);
        mir_tlog_path(tlog, to, output->id, "seg");
        uint64_t size;
        mir_tlog_segment_writer *writer = output->writer;
        output->writer = NULL;
        status = mir_tlog_segment_end(writer, codec, &size, error);
        if (status != MIR_OK) break;
        const int result = files->rename(files->context, from, to);
        if (result < 0) {
            status = mir_error_os(error, -result, "rename %s", from);
            (void)files->unlink(files->context, from);
            break;
        }
        status = mir_tlog_segment_open(files, to, output->id, codec, &segments[*count], error);
        if (status != MIR_OK) {
            (void)files->unlink(files->context, to);
            break;
        }
        (*count)++;
    }
    if (status == MIR_OK) {
        const int result = files->sync_directory(files->context, tlog->directory);
        if (result < 0) status = mir_error_os(error, -result, "sync %s", tlog->directory);
    }
    if (status == MIR_OK) return MIR_OK;
    mir_tlog_outputs_abandon(all);
    for (uint32_t i = 0; i < *count; i++) {
        char path[MIR_TLOG_PATH_BYTES_MAX];
        mir_tlog_path(tlog, path, segments[i]->head.id, "seg");
        (void)files->unlink(files->context, path);
        mir_tlog_segment_release(segments[i]);
    }
    *count = 0;
    return status;
}
