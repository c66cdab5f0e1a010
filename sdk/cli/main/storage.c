/* SPDX-License-Identifier: Apache-2.0 */
#include "storage.h"

#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mir_cli_progress.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_paths.h"
#include "mir_storage.h"

enum {
    MEASUREMENTS_SHOWN = 20,
    NICE = 19,
    IOPRIO_WHO_PROCESS = 1,
    IOPRIO_LOWEST = 2 << 13 | 7, /* the last level of the class that is served at all times */
};

static volatile sig_atomic_t stopping;

typedef struct showing {
    mir_cli_progress progress;
    json_t *damage; /* null: lines of text */
    json_t *steps;
    uint64_t lines;
} showing;

static void stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

static bool show_progress(void *context, uint64_t done, uint64_t total)
{
    showing *s = context;
    mir_cli_progress_set(&s->progress, done >> 20, total >> 20);
    if (s->progress.total > 0) mir_cli_progress_tick(&s->progress);
    return stopping == 0;
}

static void bytes_text(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;
    for (; value >= 1024 && unit < 3; unit++) value /= 1024;
    if (bytes < 1024)
        (void)snprintf(text, 32, "%" PRIu64 " B", bytes);
    else
        (void)snprintf(text, 32, "%.1f %s", value, units[unit]);
}

static json_t *view_json(mir_view view)
{
    json_t *text = json_stringn((const char *)view.data, view.size);
    return text != NULL ? text : json_string("(not UTF-8)");
}

static void show_damage_json(showing *s, const mir_storage_damage *d)
{
    json_t *one = json_pack("{s:s,s:s,s:o}", "kind", mir_storage_kind_name(d->kind), "file",
                            d->file, "text", view_json(mir_view_cstr(d->text)));
    char text[MIR_CLOCK_TEXT_BYTES];
    if (d->measurement.size > 0) {
        (void)json_object_set_new(one, "measurement", view_json(d->measurement));
        (void)json_object_set_new(one, "device", view_json(d->device));
    }
    if (d->has_range) {
        (void)mir_clock_rfc3339(d->from_ns, text);
        (void)json_object_set_new(one, "from", json_string(text));
        (void)mir_clock_rfc3339(d->to_ns, text);
        (void)json_object_set_new(one, "to", json_string(text));
    }
    if (d->bytes > 0) {
        (void)json_object_set_new(one, "offset", json_integer((json_int_t)d->offset));
        (void)json_object_set_new(one, "bytes", json_integer((json_int_t)d->bytes));
    }
    if (d->rows > 0) (void)json_object_set_new(one, "rows", json_integer((json_int_t)d->rows));
    (void)json_array_append_new(s->damage, one);
}

static void show_damage(void *context, const mir_storage_damage *d)
{
    showing *s = context;
    s->lines++;
    if (s->damage != NULL) {
        show_damage_json(s, d);
        return;
    }
    mir_bytes line = {0};
    mir_bytes_printf(&line, "%s", d->file);
    if (d->bytes > 0)
        mir_bytes_printf(&line, " at %" PRIu64 ", %" PRIu64 " bytes", d->offset, d->bytes);
    mir_bytes_printf(&line, ": %s: %s", mir_storage_kind_name(d->kind), d->text);
    if (d->measurement.size > 0) {
        mir_bytes_text(&line, "\n    ");
        mir_bytes_view(&line, d->measurement);
        mir_bytes_text(&line, " of ");
        mir_bytes_view(&line, d->device);
        if (d->rows > 0) mir_bytes_printf(&line, ", %" PRIu64 " rows", d->rows);
    }
    if (d->has_range) {
        char from[MIR_CLOCK_TEXT_BYTES], to[MIR_CLOCK_TEXT_BYTES];
        (void)mir_clock_rfc3339(d->from_ns, from);
        (void)mir_clock_rfc3339(d->to_ns, to);
        mir_bytes_printf(&line, ", %s to %s", from, to);
    }
    mir_bytes_append(&line, "\n", 2);
    mir_cli_progress_hide(&s->progress);
    if (mir_bytes_ok(&line)) mir_cli_text_print_visible(stdout, (const char *)line.data);
    mir_bytes_free(&line);
}

static int print_json(json_t *value)
{
    char *text = value != NULL ? json_dumps(value, JSON_INDENT(2)) : NULL;
    json_decref(value);
    if (text == NULL) return mir_cli_fail("out of memory");
    (void)puts(text);
    free(text);
    return MIR_EXIT_OK;
}

static int conclude(mir_status status, const mir_error *error)
{
    if (status == MIR_OK) return MIR_EXIT_OK;
    (void)mir_cli_fail("%s", error->text);
    return status == MIR_E_CANCELLED && stopping != 0 ? MIR_EXIT_STOPPED : MIR_EXIT_FAILED;
}

static int verify(const char *data, const mir_cli_args *args, bool json, showing *s)
{
    const mir_storage_watch watch = {s, show_progress, show_damage, NULL};
    mir_storage_checked done;
    mir_error error = {{0}};
    const bool events = mir_cli_flag(args, MIR_OPT_EVENTS);
    const mir_status status = mir_storage_verify(data, events, &watch, &done, &error);
    mir_cli_progress_hide(&s->progress);
    if (status != MIR_OK) return conclude(status, &error);
    const int code = done.damage > 0 ? MIR_EXIT_DAMAGED : MIR_EXIT_OK;
    if (json) {
        json_t *all = json_pack("{s:b,s:I,s:I,s:I,s:I,s:I,s:O}", "intact", done.damage == 0,
                                "files", (json_int_t)done.files, "bytes", (json_int_t)done.bytes,
                                "chunks", (json_int_t)done.chunks, "rows", (json_int_t)done.rows,
                                "set_aside", (json_int_t)done.set_aside, "damage", s->damage);
        if (events && all != NULL)
            (void)json_object_set_new(all, "events", json_integer((json_int_t)done.events));
        const int printed = print_json(all);
        return printed != MIR_EXIT_OK ? printed : code;
    }
    char bytes[32];
    bytes_text(done.bytes, bytes);
    (void)printf("%s: %" PRIu64 " files, %s, %" PRIu64 " chunks, %" PRIu64 " rows", data,
                 done.files, bytes, done.chunks, done.rows);
    if (events && done.events > 0) (void)printf(", %" PRIu64 " events", done.events);
    if (done.damage == 0)
        (void)printf(": all whole\n");
    else
        (void)printf(" whole; %" PRIu64 " damaged place%s\n", done.damage,
                     done.damage == 1 ? "" : "s");
    if (done.set_aside > 0)
        (void)printf("%" PRIu64 " file%s that a start set aside (*.damaged)\n", done.set_aside,
                     done.set_aside == 1 ? "" : "s");
    return code;
}

static void show_step(void *context, const char *file, const char *text)
{
    showing *s = context;
    if (s->steps != NULL) {
        (void)json_array_append_new(s->steps, json_pack("{s:s,s:s}", "file", file, "text", text));
        return;
    }
    mir_cli_progress_hide(&s->progress);
    (void)printf("%s: %s\n", file, text);
}

static void repaired_tell(const char *data, const mir_storage_repaired *done, bool dry)
{
    mir_cli_text_print_visible(stdout, data);
    if (done->steps == 0) {
        (void)printf(": nothing is damaged\n");
        return;
    }
    const uint64_t files = done->steps - done->beyond;
    (void)printf(": %" PRIu64 " damaged file%s %s; %" PRIu64 " of their rows %s", files,
                 files == 1 ? "" : "s", dry ? "would be repaired" : "repaired", done->rows_kept,
                 dry ? "would be kept" : "are kept");
    if (done->lost == 0)
        (void)printf(", none is lost\n");
    else
        (void)printf(", and %" PRIu64 " known to be lost, as told above\n", done->rows_lost);
    if (done->beyond > 0) (void)printf("not all of it can be repaired\n");
}

static int repair(const char *data, const mir_cli_args *args, bool json, showing *s)
{
    const mir_storage_watch watch = {s, show_progress, show_damage, show_step};
    mir_storage_repaired done;
    mir_error error = {{0}};
    const bool dry = mir_cli_flag(args, MIR_OPT_DRY_RUN);
    const mir_status status = mir_storage_repair(data, dry, &watch, &done, &error);
    mir_cli_progress_hide(&s->progress);
    if (status != MIR_OK) return conclude(status, &error);
    const int code = done.beyond > 0 || (dry && done.steps > 0) ? MIR_EXIT_DAMAGED : MIR_EXIT_OK;
    if (!json) {
        repaired_tell(data, &done, dry);
        return code;
    }
    const int printed = print_json(
        json_pack("{s:b,s:b,s:I,s:I,s:I,s:O,s:O}", "dry_run", dry, "intact", code == MIR_EXIT_OK,
                  "rows_kept", (json_int_t)done.rows_kept, "rows_lost", (json_int_t)done.rows_lost,
                  "beyond_repair", (json_int_t)done.beyond, "lost", s->damage, "steps", s->steps));
    return printed != MIR_EXIT_OK ? printed : code;
}

static json_t *measurement_json(const mir_storage_measurement *m)
{
    char oldest[MIR_CLOCK_TEXT_BYTES], newest[MIR_CLOCK_TEXT_BYTES];
    json_t *one =
        json_pack("{s:I,s:I,s:I,s:I}", "rows", (json_int_t)m->rows, "values", (json_int_t)m->values,
                  "bytes", (json_int_t)m->bytes, "series", (json_int_t)m->series);
    if (m->name != NULL)
        (void)json_object_set_new(one, "measurement", view_json(mir_view_cstr(m->name)));
    if (m->rows > 0) {
        (void)mir_clock_rfc3339(m->oldest_ns, oldest);
        (void)mir_clock_rfc3339(m->newest_ns, newest);
        (void)json_object_set_new(one, "oldest", json_string(oldest));
        (void)json_object_set_new(one, "newest", json_string(newest));
    }
    return one;
}

static void measurement_row(mir_cli_table *table, const mir_storage_measurement *m)
{
    char bytes[32], oldest[64] = "", newest[64] = "";
    bytes_text(m->bytes, bytes);
    mir_cli_table_cell(table, m->name == NULL ? MIR_TONE_STRONG : MIR_TONE_PLAIN,
                       m->name == NULL ? "all" : m->name);
    mir_cli_table_cellf(table, MIR_TONE_PLAIN, "%" PRIu64, m->series);
    mir_cli_table_cellf(table, MIR_TONE_PLAIN, "%" PRIu64, m->rows);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, bytes);
    mir_cli_table_cellf(table, MIR_TONE_PLAIN, "%.2f",
                        m->values == 0 ? 0 : (double)m->bytes / (double)m->values);
    if (m->rows > 0) {
        mir_cli_when_clock(m->oldest_ns, true, 0, false, oldest, sizeof oldest);
        mir_cli_when_clock(m->newest_ns, true, 0, false, newest, sizeof newest);
    }
    mir_cli_table_cell(table, MIR_TONE_PLAIN, oldest);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, newest);
}

static int stats_table(const char *data, const mir_storage_stats *stats, uint32_t shown)
{
    char segments[32], logs[32], state[32];
    bytes_text(stats->segment_bytes, segments);
    bytes_text(stats->log_bytes, logs);
    bytes_text(stats->state_bytes, state);
    mir_cli_text_print_visible(stdout, data);
    (void)printf(": %" PRIu64 " segments, %s; %" PRIu64 " logs, %s not yet in segments; state "
                 "store %s\n",
                 stats->segments, segments, stats->logs, logs, state);
    if (stats->damaged > 0)
        (void)printf("%" PRIu64 " damaged files or index blocks are not counted: `mir storage "
                     "verify` tells which\n",
                     stats->damaged);
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "MEASUREMENT", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "SERIES", NULL, MIR_TABLE_NUMBER);
    mir_cli_table_column(table, "ROWS", NULL, MIR_TABLE_NUMBER);
    mir_cli_table_column(table, "SIZE", NULL, MIR_TABLE_NUMBER);
    mir_cli_table_column(table, "BYTES/VALUE", NULL, MIR_TABLE_NUMBER);
    mir_cli_table_column(table, "OLDEST", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "NEWEST", NULL, MIR_TABLE_FIXED);
    for (uint32_t i = 0; i < shown; i++) measurement_row(table, &stats->measurements[i]);
    measurement_row(table, &stats->all);
    size_t left_out = 0;
    const mir_status status =
        mir_cli_table_print(table, stdout, mir_cli_text_terminal_columns(stdout),
                            mir_cli_text_colours(stdout), &left_out);
    mir_cli_table_free(table);
    if (status != MIR_OK) return mir_cli_fail("out of memory");
    if (shown < stats->measurement_count)
        mir_cli_note("%" PRIu32 " more measurements; --limit shows them",
                     stats->measurement_count - shown);
    return MIR_EXIT_OK;
}

static int stats(mir_cli *cli, const char *data, const mir_cli_args *args, bool json, showing *s)
{
    const mir_storage_watch watch = {s, show_progress, NULL, NULL};
    const char *limit = mir_cli_value(args, MIR_OPT_LIMIT);
    uint64_t wanted = json ? UINT64_MAX : MEASUREMENTS_SHOWN;
    if (limit != NULL && !mir_cli_number(limit, false, &wanted))
        return mir_cli_usage(cli, "--limit is a number from 1");
    mir_storage_stats found;
    mir_error error = {{0}};
    const mir_status status = mir_storage_stats_read(data, &watch, &found, &error);
    mir_cli_progress_hide(&s->progress);
    if (status != MIR_OK) return conclude(status, &error);
    const uint32_t shown =
        wanted < found.measurement_count ? (uint32_t)wanted : found.measurement_count;
    int code;
    if (json) {
        json_t *rows = json_array();
        for (uint32_t i = 0; i < shown; i++)
            (void)json_array_append_new(rows, measurement_json(&found.measurements[i]));
        code = print_json(json_pack(
            "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o}", "segments", (json_int_t)found.segments,
            "segment_bytes", (json_int_t)found.segment_bytes, "logs", (json_int_t)found.logs,
            "log_bytes", (json_int_t)found.log_bytes, "state_bytes", (json_int_t)found.state_bytes,
            "set_aside", (json_int_t)found.set_aside, "damaged", (json_int_t)found.damaged, "all",
            measurement_json(&found.all), "measurements", rows));
    } else {
        code = stats_table(data, &found, shown);
    }
    mir_storage_stats_fini(&found);
    return code;
}

static int saved(const mir_storage_saved *saved, const char *what, const char *where,
                 const showing *s)
{
    char at[MIR_CLOCK_TEXT_BYTES], bytes[32];
    (void)mir_clock_rfc3339(saved->at_ns, at);
    if (s->damage != NULL)
        return print_json(json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:O}", "directory", where, "at",
                                    at, "files", (json_int_t)saved->files, "bytes",
                                    (json_int_t)saved->bytes, "linked", (json_int_t)saved->linked,
                                    "damaged", (json_int_t)saved->damaged, "unread",
                                    (json_int_t)saved->unread, "lost", s->damage));
    bytes_text(saved->bytes, bytes);
    (void)printf("%s %s: %" PRIu64 " files, %s", what, where, saved->files, bytes);
    if (saved->linked > 0) (void)printf(" (%" PRIu64 " shared with the original)", saved->linked);
    (void)printf(", as of %s\n", at);
    if (saved->damaged > 0)
        mir_cli_note("%" PRIu64 " damaged files are not in it: `mir storage verify` tells which",
                     saved->damaged);
    if (saved->unread > 0)
        mir_cli_note("%" PRIu64 " bytes could not be read: replace the disk; after a restore, "
                     "answers are partial until `mir storage repair` has accepted the loss",
                     saved->unread);
    return MIR_EXIT_OK;
}

int mir_main_storage(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    char data_default[MIR_PATH_BYTES_MAX];
    const char *data = mir_cli_value(args, MIR_OPT_DATA);
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    const bool json = format != NULL && strcmp(format, "json") == 0;
    const bool restores = strcmp(command->name, "restore") == 0;
    if (mir_cli_value(args, MIR_OPT_TARGET) != NULL || mir_cli_value(args, MIR_OPT_ADMIN) != NULL)
        return mir_cli_usage(cli,
                             "this works on files, also beside a running server: name its data "
                             "directory%s, not the server",
                             restores ? "" : " with --data");
    if (data == NULL && !restores) {
        if (mir_paths_data_dir(data_default) != MIR_OK)
            return mir_cli_usage(cli, "there is no default data directory; name one with --data");
        data = data_default;
        if (access(data, F_OK) != 0)
            return mir_cli_fail("there is no data directory at %s; name another with --data", data);
    }
    (void)sigaction(SIGINT, &(struct sigaction){.sa_handler = stop}, NULL);
    (void)sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    (void)sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    if (!restores) {
        (void)setpriority(PRIO_PROCESS, 0, NICE);
        (void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_LOWEST);
    }
    showing s = {.progress = mir_cli_progress_begin(),
                 .damage = json ? json_array() : NULL,
                 .steps = json ? json_array() : NULL};
    s.progress.unit = " MiB";
    const mir_storage_watch watch = {&s, show_progress, show_damage, NULL};
    mir_storage_saved done;
    mir_error error = {{0}};
    mir_status status;
    int code;
    if (strcmp(command->name, "verify") == 0) {
        code = verify(data, args, json, &s);
    } else if (strcmp(command->name, "repair") == 0) {
        code = repair(data, args, json, &s);
    } else if (strcmp(command->name, "stats") == 0) {
        code = stats(cli, data, args, json, &s);
    } else if (restores) {
        status = mir_storage_restore(args->words[0], args->words[1], &watch, &done, &error);
        mir_cli_progress_hide(&s.progress);
        code = status != MIR_OK ? conclude(status, &error)
                                : saved(&done, "restored into", args->words[1], &s);
    } else {
        status = mir_storage_backup(data, args->words[0], mir_cli_flag(args, MIR_OPT_COPY), &watch,
                                    &done, &error);
        mir_cli_progress_hide(&s.progress);
        code = status != MIR_OK ? conclude(status, &error)
                                : saved(&done, "backed up into", args->words[0], &s);
    }
    json_decref(s.damage);
    json_decref(s.steps);
    return code;
}
