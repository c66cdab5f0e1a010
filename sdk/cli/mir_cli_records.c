/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_records.h"

#include "mir_cli_rows.h"
#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_timestamp.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES = 64 * 1024, TIME_BYTES_MAX = 64, NO_PLACE = -1 };

struct mir_cli_records {
    int fd, stop_fd;
    const char *path;
    mir_cli_records_format format;
    int64_t tick_ns;
    bool ended;
    mir_bytes in; /* bytes read; those before `taken` are done with */
    size_t taken;
    uint64_t line; /* of the next record */
    uint64_t read_bytes, file_bytes;
    /* Of the record, or of the section of CSV. */
    mir_view *columns;
    mir_cli_text_value *values;
    size_t count, capacity;
    /* Of the section: places of what is no field, and the names of all. */
    bool has_header;
    int64_t time_place, device_place, measurement_place;
    mir_arena names;
    uint64_t columns_hash;
};

mir_status mir_cli_records_open(const char *path, mir_cli_records_format format, int64_t tick_ns,
                                mir_cli_records **records, mir_error *error)
{
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (fd < 0) return mir_error_os(error, errno, "cannot open %s", path);
    mir_cli_records *made = calloc(1, sizeof *made);
    if (made == NULL) {
        if (!standard) (void)close(fd);
        return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    }
    *made = (mir_cli_records){.fd = fd,
                              .stop_fd = -1,
                              .path = standard ? "standard input" : path,
                              .format = format,
                              .tick_ns = tick_ns,
                              .line = 1,
                              .in.size_max = 3 * (size_t)MIR_RECORD_BYTES_MAX};
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0)
        made->file_bytes = (uint64_t)about.st_size;
    *records = made;
    return MIR_OK;
}

void mir_cli_records_close(mir_cli_records *records)
{
    if (records == NULL) return;
    if (records->fd != STDIN_FILENO) (void)close(records->fd);
    mir_bytes_free(&records->in);
    mir_arena_free(&records->names);
    free(records->columns);
    free(records->values);
    free(records);
}

uint64_t mir_cli_records_line(const mir_cli_records *records)
{
    return records->line;
}

void mir_cli_records_stop_on(mir_cli_records *records, int fd)
{
    records->stop_fd = fd;
}

void mir_cli_records_progress(const mir_cli_records *records, uint64_t *done, uint64_t *total)
{
    *done = records->read_bytes - (records->in.size - records->taken);
    *total = records->file_bytes;
}

/* Reads some more, as much again as there is: what spans many reads is looked at a few times only. */
MIR_MUST_CHECK static mir_status read_more(mir_cli_records *from, mir_error *error)
{
    if (from->taken > 0) {
        memmove(from->in.data, from->in.data + from->taken, from->in.size - from->taken);
        from->in.size -= from->taken;
        from->taken = 0;
    }
    if (from->in.size > MIR_RECORD_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "%s: line %" PRIu64 ": a row has more than %d MiB: is there a quote "
                             "that is not closed?",
                             from->path, from->line, MIR_RECORD_BYTES_MAX >> 20);
    size_t room = from->in.size > CHUNK_BYTES ? from->in.size : CHUNK_BYTES;
    uint8_t *to = mir_bytes_reserve(&from->in, room);
    if (to == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    for (;;) {
        struct pollfd wait[] = {{.fd = from->fd, .events = POLLIN},
                                {.fd = from->stop_fd, .events = POLLIN}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            return mir_error_os(error, errno, "cannot wait for %s", from->path);
        if ((wait[1].revents & POLLIN) != 0)
            return mir_error_set(error, MIR_E_CANCELLED, "stopped");
        if (wait[0].revents == 0) continue;
        ssize_t size = read(from->fd, to, room);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return mir_error_os(error, errno, "cannot read %s", from->path);
        from->ended = size == 0;
        from->in.size += (size_t)size;
        from->read_bytes += (uint64_t)size;
        return MIR_OK;
    }
}

/* Where the line end behind the record is, or the size when it is not there. */
static size_t csv_end(mir_view text)
{
    bool quoted = false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '"') quoted = !quoted;
        if (text.data[i] == '\n' && !quoted) return i;
    }
    return text.size;
}

static bool is_escaped(uint8_t c)
{
    return c == ',' || c == '=' || c == ' ';
}

/* A text begins with a quote behind an equals sign, behind the first blank. */
static size_t line_end(mir_view text)
{
    bool quoted = false, fields = false;
    if (text.size > 0 && text.data[0] == '#') {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        return end != NULL ? (size_t)(end - text.data) : text.size;
    }
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
            continue;
        }
        if (c == '\n') return i;
        if (c == '\\' && i + 1 < text.size && is_escaped(text.data[i + 1]))
            i++;
        else if (c == ' ')
            fields = true;
        else if (c == '=' && fields && i + 1 < text.size && text.data[i + 1] == '"') {
            quoted = true;
            i++;
        }
    }
    return text.size;
}

MIR_MUST_CHECK static mir_status add_column(mir_cli_records *to, mir_view name, mir_error *error)
{
    if (to->count == MIR_RECORD_COLUMNS_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "%s: line %" PRIu64 ": more than %d columns",
                             to->path, to->line, MIR_RECORD_COLUMNS_MAX);
    if (to->count == to->capacity) {
        size_t capacity = to->capacity * 2 + 64;
        mir_view *columns = realloc(to->columns, capacity * sizeof *columns);
        if (columns != NULL) to->columns = columns;
        mir_cli_text_value *values = realloc(to->values, capacity * sizeof *values);
        if (values != NULL) to->values = values;
        if (columns == NULL || values == NULL)
            return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
        to->capacity = capacity;
    }
    to->columns_hash = (to->columns_hash ^ mir_hash_view(name)) * UINT64_C(0x9e3779b97f4a7c15);
    to->values[to->count] = (mir_cli_text_value){0};
    to->columns[to->count++] = name;
    return MIR_OK;
}

static void unusable(mir_cli_record *record, const char *cause, const char *format, ...)
    MIR_PRINTF(3, 4);
static void unusable(mir_cli_record *record, const char *cause, const char *format, ...)
{
    va_list arguments;
    if (record->cause != NULL) return;
    va_start(arguments, format);
    (void)vsnprintf(record->text, sizeof record->text, format, arguments);
    va_end(arguments);
    record->cause = cause;
}

static const char bad_time[] = "a time that is none";
static const char bad_form[] = "a row of another form";

/* A whole number of ticks. */
static bool parse_ticks(mir_view text, int64_t tick_ns, int64_t *time_ns)
{
    char copy[TIME_BYTES_MAX];
    if (text.size == 0 || text.size >= sizeof copy) return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    const char *digits = copy + (copy[0] == '-');
    errno = 0;
    return digits[0] != '\0' && strspn(digits, "0123456789") == strlen(digits) &&
           !__builtin_mul_overflow(strtoll(copy, NULL, 10), tick_ns, time_ns) && errno == 0;
}

static void take_time(const mir_cli_records *from, mir_view text, mir_cli_record *record)
{
    int64_t seconds = 0;
    int32_t nanos = 0;
    record->has_time = parse_ticks(text, from->tick_ns, &record->time_ns);
    if (!record->has_time && from->format == MIR_RECORDS_CSV &&
        mir_timestamp_parse(text, &seconds, &nanos) == MIR_OK) {
        int64_t rest_ns = nanos;
        if (seconds < 0) { /* the least of all times fits, its whole seconds alone do not */
            seconds++;
            rest_ns -= MIR_NS_PER_S;
        }
        record->has_time = !__builtin_mul_overflow(seconds, MIR_NS_PER_S, &record->time_ns) &&
                           !__builtin_add_overflow(record->time_ns, rest_ns, &record->time_ns);
    }
    if (!record->has_time)
        unusable(record, bad_time, "'%.*s' is no time%s",
                 text.size < TIME_BYTES_MAX ? (int)text.size : TIME_BYTES_MAX,
                 text.size > 0 ? (const char *)text.data : "",
                 from->format == MIR_RECORDS_CSV ? "; write for example 2026-01-31T15:04:05Z" : "");
}

/* The next cell, its quotes taken off in place. */
static bool take_cell(mir_view *rest, mir_view *cell, bool *quoted, bool *closed)
{
    if (rest->data == NULL) return false;
    uint8_t *at = (uint8_t *)(uintptr_t)rest->data;
    size_t size = rest->size, used = 0, kept = 0;
    *quoted = size > 0 && at[0] == '"';
    *closed = true;
    if (*quoted) {
        *closed = false;
        for (used = 1; used < size; used++) {
            if (at[used] == '"' && used + 1 < size && at[used + 1] == '"') {
                used++;
            } else if (at[used] == '"') {
                *closed = true;
                used++;
                break;
            }
            at[kept++] = at[used];
        }
    }
    while (used < size && at[used] != ',') at[kept++] = at[used++];
    *cell = mir_view_of(at, kept);
    *rest = used < size ? mir_view_of(at + used + 1, size - used - 1) : (mir_view){0};
    return true;
}

MIR_MUST_CHECK static mir_status take_header(mir_cli_records *from, mir_view text, mir_error *error)
{
    bool quoted = false, closed = false, has_time = false;
    mir_view cell;
    from->count = 0;
    from->columns_hash = 0;
    from->time_place = from->device_place = from->measurement_place = NO_PLACE;
    mir_arena_free(&from->names);
    for (int64_t i = 0; take_cell(&text, &cell, &quoted, &closed); i++) {
        char *copy = mir_arena_strdup(&from->names, cell);
        if (copy == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
        mir_view name = mir_view_of(copy, cell.size);
        /* The first of each name: those behind are fields, which may be called so, too. */
        if (mir_view_eq_cstr(name, MIR_ROWS_TIME)) {
            if (!has_time) from->time_place = i;
            has_time = true;
        } else if (mir_view_eq_cstr(name, "time")) {
            if (from->time_place == NO_PLACE) from->time_place = i;
        } else if (mir_view_eq_cstr(name, MIR_ROWS_DEVICE)) {
            if (from->device_place == NO_PLACE) from->device_place = i;
        } else if (mir_view_eq_cstr(name, MIR_ROWS_MEASUREMENT)) {
            if (from->measurement_place == NO_PLACE) from->measurement_place = i;
        }
        mir_status status = add_column(from, name, error);
        if (status != MIR_OK) return status;
    }
    if (from->time_place == NO_PLACE)
        return mir_error_set(error, MIR_E_INVALID,
                             "%s: line %" PRIu64 ": this is no header of CSV with a column "
                             "'" MIR_ROWS_TIME "'",
                             from->path, from->line);
    from->has_header = true;
    return MIR_OK;
}

static void take_csv(mir_cli_records *from, mir_view text, mir_cli_record *record)
{
    int64_t count = 0;
    bool quoted = false, closed = false;
    mir_view cell;
    for (; take_cell(&text, &cell, &quoted, &closed); count++) {
        if (!closed) unusable(record, bad_form, "a quote is not closed");
        if (count >= (int64_t)from->count) continue;
        from->values[count] =
            (mir_cli_text_value){cell.size == 0 && !quoted ? MIR_TEXT_ABSENT : MIR_TEXT_ANY, cell};
        /* What is no field is a column without a value. */
        if (count == from->device_place) record->device_id = cell;
        if (count == from->measurement_place) record->measurement = cell;
        if (count == from->time_place) take_time(from, cell, record);
        if (count == from->device_place || count == from->measurement_place ||
            count == from->time_place)
            from->values[count].form = MIR_TEXT_ABSENT;
    }
    if (count != (int64_t)from->count)
        unusable(record, bad_form, "the row has %" PRId64 " cells and the header %zu", count,
                 from->count);
}

/* Up to one of the characters that is not escaped; escapes are taken out in place, in the names of
 * fields those of quotes as well. */
static mir_view take_name(mir_view *rest, const char *ends, bool quotes)
{
    uint8_t *at = (uint8_t *)(uintptr_t)rest->data;
    size_t used = 0, kept = 0;
    while (used < rest->size && (at[used] == '\0' || strchr(ends, at[used]) == NULL)) {
        if (at[used] == '\\' && used + 1 < rest->size &&
            (is_escaped(at[used + 1]) || (quotes && at[used + 1] == '"')))
            used++;
        at[kept++] = at[used++];
    }
    *rest = mir_view_from(*rest, used);
    return mir_view_of(at, kept);
}

static bool skip(mir_view *rest, uint8_t c)
{
    if (rest->size == 0 || rest->data[0] != c) return false;
    *rest = mir_view_from(*rest, 1);
    return true;
}

static bool take_value(mir_view *rest, mir_cli_text_value *value)
{
    if (!skip(rest, '"')) {
        value->form = MIR_TEXT_BARE;
        value->text = take_name(rest, ", ", false);
        return value->text.size > 0;
    }
    uint8_t *at = (uint8_t *)(uintptr_t)rest->data;
    size_t used = 0, kept = 0;
    while (used < rest->size && at[used] != '"') {
        if (at[used] == '\\' && used + 1 < rest->size &&
            (at[used + 1] == '"' || at[used + 1] == '\\'))
            used++;
        at[kept++] = at[used++];
    }
    *value = (mir_cli_text_value){MIR_TEXT_QUOTED, mir_view_of(at, kept)};
    *rest = mir_view_from(*rest, used);
    return skip(rest, '"');
}

MIR_MUST_CHECK static mir_status take_line(mir_cli_records *from, mir_view rest,
                                           mir_cli_record *record, mir_error *error)
{
    from->count = 0;
    from->columns_hash = 0;
    record->measurement = take_name(&rest, ", ", false);
    while (skip(&rest, ',')) {
        mir_view key = take_name(&rest, ",= ", false);
        if (!skip(&rest, '=')) unusable(record, bad_form, "a tag has no value");
        mir_view tag = take_name(&rest, ", ", false);
        if (mir_view_eq_cstr(key, MIR_ROWS_DEVICE)) record->device_id = tag;
    }
    while (skip(&rest, ' ')) continue;
    do {
        mir_view name = take_name(&rest, ",= ", true);
        mir_cli_text_value value;
        if (name.size == 0 || !skip(&rest, '=') || !take_value(&rest, &value)) {
            unusable(record, bad_form, "this is not measurement,tag=value field=value time");
            return MIR_OK;
        }
        mir_status status = add_column(from, name, error);
        if (status != MIR_OK) return status;
        from->values[from->count - 1] = value;
    } while (skip(&rest, ','));
    while (skip(&rest, ' ')) continue;
    if (rest.size == 0)
        unusable(record, bad_time, "the row has no time");
    else
        take_time(from, rest, record);
    return MIR_OK;
}

static void guess(mir_cli_records *from)
{
    mir_view text = mir_view_from(mir_bytes_as_view(&from->in), from->taken);
    const uint8_t *end = text.size > 0 ? memchr(text.data, '\n', text.size) : NULL;
    mir_view first = mir_view_of(text.data, end != NULL ? (size_t)(end - text.data) : text.size);
    bool is_csv = mir_view_starts(first, MIR_VIEW_LITERAL("time,"));
    for (size_t i = 0; i + sizeof MIR_ROWS_TIME - 1 <= first.size && !is_csv; i++)
        is_csv = mir_view_starts(mir_view_from(first, i), MIR_VIEW_LITERAL(MIR_ROWS_TIME)) &&
                 (i == 0 || first.data[i - 1] == ',' || first.data[i - 1] == '"');
    from->format = is_csv ? MIR_RECORDS_CSV : MIR_RECORDS_LINE;
}

static uint64_t line_ends(mir_view text)
{
    uint64_t count = 0;
    for (size_t i = 0; i < text.size; i++) count += text.data[i] == '\n';
    return count;
}

mir_status mir_cli_records_next(mir_cli_records *from, mir_cli_record *record, mir_error *error)
{
    static const uint8_t mark[] = {0xef, 0xbb, 0xbf}; /* that some programs begin UTF-8 with */
    for (;;) {
        mir_view text = mir_view_from(mir_bytes_as_view(&from->in), from->taken);
        size_t size = from->format == MIR_RECORDS_GUESS
                          ? text.size
                          : (from->format == MIR_RECORDS_CSV ? csv_end : line_end)(text);
        if (size == text.size && !from->ended) {
            bool first = from->read_bytes == 0;
            mir_status status = read_more(from, error);
            if (status != MIR_OK) return status;
            if (first && from->in.size >= sizeof mark &&
                memcmp(from->in.data, mark, sizeof mark) == 0)
                from->taken = sizeof mark;
            if (from->format == MIR_RECORDS_GUESS &&
                (from->ended || memchr(from->in.data, '\n', from->in.size) != NULL))
                guess(from);
            continue;
        }
        if (text.size == 0) return mir_error_set(error, MIR_E_EMPTY, "%s has ended", from->path);
        mir_view whole = mir_view_of(text.data, size);
        from->taken += size < text.size ? size + 1 : size;
        *record = (mir_cli_record){.line = from->line};
        uint64_t lines = line_ends(whole) + (size < text.size);
        if (whole.size > 0 && whole.data[whole.size - 1] == '\r') whole.size--;
        mir_status status = MIR_OK;
        bool skipped =
            whole.size == 0 || (from->format == MIR_RECORDS_LINE && whole.data[0] == '#');
        if (whole.size == 0) from->has_header = false;
        if (!skipped && from->format == MIR_RECORDS_CSV && !from->has_header) {
            status = take_header(from, whole, error);
            skipped = true;
        } else if (!skipped && from->format == MIR_RECORDS_CSV) {
            take_csv(from, whole, record);
        } else if (!skipped) {
            status = take_line(from, whole, record, error);
        }
        from->line += lines;
        if (status != MIR_OK) return status;
        if (skipped) continue;
        record->columns = from->columns;
        record->values = from->values;
        record->count = from->count;
        record->columns_hash = from->columns_hash;
        return MIR_OK;
    }
}
