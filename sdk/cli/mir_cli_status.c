/* SPDX-License-Identifier: Apache-2.0 */
/* mir status: asks the server how it does and shows whatever it tells. What is wrong comes first.
 * Nothing here depends on a key being there: a newer server may tell more, an older one less. Units
 * are read from the end of a key (_us, _bytes, _seconds, _percent). */
#include "mir_cli_devices.h"

#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"

#include <math.h>

#define SAMPLE_GAP_NS (300 * MIR_NS_PER_MS)
enum { INDENT = 2, COLUMNS_DEFAULT = 100 };

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text);
    size_t end_size = strlen(end);
    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

/* 1234567 as 1,234,567. */
static void count_text(long long value, char *text, size_t size)
{
    char digits[32];
    char out[64];
    size_t used = 0;
    int length = snprintf(digits, sizeof digits, "%lld", value);
    for (int i = 0; i < length && used + 2 < sizeof out; i++) {
        out[used++] = digits[i];
        int left = length - 1 - i;
        if (left > 0 && left % 3 == 0 && digits[i] != '-') out[used++] = ',';
    }
    out[used] = '\0';
    (void)snprintf(text, size, "%s", out);
}

static void micros_text(double value, char *text, size_t size)
{
    if (value >= 1e6)
        (void)snprintf(text, size, "%.2f s", value / 1e6);
    else if (value >= 1e3)
        (void)snprintf(text, size, "%.2f ms", value / 1e3);
    else
        (void)snprintf(text, size, value == floor(value) ? "%.0f us" : "%.1f us", value);
}

/* A value as people read it; the key tells the unit. */
static void value_text(const char *key, const json_t *value, char *text, size_t size)
{
    double number = json_number_value(value);
    /* bytes_in and bytes_out are sizes too */
    bool bytes = ends_with(key, "_bytes") || strncmp(key, "bytes_", 6) == 0;
    if (json_is_string(value))
        (void)snprintf(text, size, "%s", json_string_value(value));
    else if (json_is_boolean(value))
        (void)snprintf(text, size, "%s", json_is_true(value) ? "yes" : "no");
    else if (!json_is_number(value))
        (void)snprintf(text, size, "-");
    else if (bytes)
        mir_cli_text_size(number, text, size);
    else if (ends_with(key, "_us"))
        micros_text(number, text, size);
    else if (ends_with(key, "_ns"))
        micros_text(number / 1e3, text, size);
    else if (ends_with(key, "_ms"))
        micros_text(number * 1e3, text, size);
    else if (ends_with(key, "_seconds"))
        mir_cli_when_span((int64_t)(fmin(fmax(number, 0), 9e9) * 1e9), text, size);
    else if (ends_with(key, "_percent"))
        (void)snprintf(text, size, "%.1f %%", number);
    else if (json_is_integer(value))
        count_text((long long)json_integer_value(value), text, size);
    else
        (void)snprintf(text, size, "%.3g", number);
}

/* The key without its unit, with blanks: rows_accepted -> "rows accepted". */
static void key_text(const char *key, char *text, size_t size)
{
    static const char *const units[] = {"_bytes", "_us", "_ns", "_ms", "_seconds"};
    (void)snprintf(text, size, "%s", key);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (ends_with(text, units[i]) && strlen(text) > strlen(units[i]))
            text[strlen(text) - strlen(units[i])] = '\0';
    for (char *c = text; *c != '\0'; c++)
        if (*c == '_') *c = ' ';
}

/* Counters, whose growth between two looks is a rate. */
static bool is_counter(const char *key)
{
    static const char *const starts[] = {"messages_", "bytes_in", "bytes_out",
                                         "rows_",     "commits",  "turns"};
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++)
        if (strncmp(key, starts[i], strlen(starts[i])) == 0) return true;
    return false;
}

static bool rate_text(const char *key, const json_t *before, const json_t *now, double seconds,
                      char *text, size_t size)
{
    if (!is_counter(key) || !json_is_number(before) || seconds <= 0) return false;
    double rate = (json_number_value(now) - json_number_value(before)) / seconds;
    if (rate <= 0) return false;
    if (strncmp(key, "bytes_", 6) == 0) {
        mir_cli_text_size(rate, text, size);
        (void)snprintf(text + strlen(text), size - strlen(text), "/s");
    } else if (rate >= 100) {
        char count[48];
        count_text((long long)rate, count, sizeof count);
        (void)snprintf(text, size, "%s/s", count);
    } else {
        (void)snprintf(text, size, "%.1f/s", rate);
    }
    return true;
}

typedef struct wrapped {
    size_t width;
    size_t used;
    size_t indent;
} wrapped;

static void put_piece(wrapped *line, const char *text)
{
    size_t columns = mir_cli_text_columns(text);
    if (line->used > line->indent && line->used + 2 + columns > line->width) {
        (void)printf("\n%*s", (int)line->indent, "");
        line->used = line->indent;
    } else if (line->used > line->indent) {
        (void)fputs(", ", stdout);
        line->used += 2;
    }
    mir_cli_text_print_visible(stdout, text);
    line->used += columns;
}

/* One line (or more) of "key value, key value" for the scalars of an object. */
static void print_section(const char *name, const json_t *object, const json_t *before,
                          double seconds, size_t names, size_t width, bool colours)
{
    char title[64];
    key_text(name, title, sizeof title);
    (void)printf("%s%-*s%s", mir_cli_table_tone_on(MIR_TONE_STRONG, colours), (int)names, title,
                 mir_cli_table_tone_off(MIR_TONE_STRONG, colours));
    wrapped line = {.width = width, .used = names, .indent = names};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (json_is_object(value) || json_is_array(value)) continue;
        if (json_is_string(value) && json_string_length(value) == 0) continue;
        char what[64], text[128], rate[64], piece[320];
        key_text(key, what, sizeof what);
        value_text(key, value, text, sizeof text);
        bool moving =
            rate_text(key, json_object_get(before, key), value, seconds, rate, sizeof rate);
        (void)snprintf(piece, sizeof piece, "%s %s%s%s%s", text, what, moving ? " (" : "",
                       moving ? rate : "", moving ? ")" : "");
        put_piece(&line, piece);
    }
    (void)fputc('\n', stdout);
}

/* Objects of one kind as rows: an array of them, or an object of them by name. */
static void print_rows(const char *name, const json_t *rows, const json_t *before, double seconds,
                       size_t width, bool colours)
{
    const char *columns[32];
    size_t count = 0;
    const char *key;
    json_t *value;
    size_t total = json_is_array(rows) ? json_array_size(rows) : json_object_size(rows);
    if (total == 0) return;
    mir_cli_table *table = mir_cli_table_new();
    char title[64];
    for (size_t pass = 0; pass < 2; pass++) {
        void *at = json_is_array(rows) ? NULL : json_object_iter((json_t *)(uintptr_t)rows);
        for (size_t i = 0; i < total; i++) {
            const json_t *row =
                json_is_array(rows) ? json_array_get(rows, i) : json_object_iter_value(at);
            const char *row_name = at != NULL ? json_object_iter_key(at) : NULL;
            const json_t *old =
                json_is_array(rows) ? json_array_get(before, i) : json_object_get(before, row_name);
            if (pass == 0) {
                json_object_foreach((json_t *)(uintptr_t)row, key, value)
                {
                    bool known = json_is_object(value) || json_is_array(value);
                    for (size_t c = 0; c < count && !known; c++)
                        known = strcmp(columns[c], key) == 0;
                    if (!known && count < sizeof columns / sizeof columns[0])
                        columns[count++] = key;
                }
            } else {
                char text[128], rate[64];
                if (row_name != NULL) {
                    key_text(row_name, text, sizeof text);
                    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
                }
                for (size_t c = 0; c < count; c++) {
                    const json_t *cell = json_object_get(row, columns[c]);
                    /* The unit may be in the key, or in the name of the whole ("latency_us"). */
                    char unit_key[160];
                    bool own = ends_with(name, "_us") && json_is_number(cell) &&
                               strcmp(columns[c], "count") != 0;
                    (void)snprintf(unit_key, sizeof unit_key, "%s%s", columns[c], own ? "_us" : "");
                    value_text(unit_key, cell, text, sizeof text);
                    if (rate_text(columns[c], json_object_get(old, columns[c]), cell, seconds, rate,
                                  sizeof rate))
                        mir_cli_table_cellf(table, MIR_TONE_PLAIN, "%s (%s)", text, rate);
                    else
                        mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
                }
            }
            if (at != NULL) at = json_object_iter_next((json_t *)(uintptr_t)rows, at);
        }
        if (pass == 1) break;
        key_text(name, title, sizeof title);
        if (!json_is_array(rows)) mir_cli_table_column(table, title, NULL, MIR_TABLE_TEXT);
        for (size_t c = 0; c < count; c++) {
            char column[64];
            key_text(columns[c], column, sizeof column);
            mir_cli_table_column(
                table, json_is_array(rows) && strcmp(columns[c], "id") == 0 ? title : column, NULL,
                MIR_TABLE_NUMBER);
        }
    }
    (void)fputc('\n', stdout);
    if (mir_cli_table_print(table, stdout, width, colours, NULL) != MIR_OK)
        (void)mir_cli_fail("no memory for the table");
    mir_cli_table_free(table);
}

static void complain(size_t *count, bool colours, const char *text)
{
    (void)printf("%s%s%s", mir_cli_table_tone_on(MIR_TONE_BAD, colours),
                 *count == 0 ? "wrong: " : "       ",
                 mir_cli_table_tone_off(MIR_TONE_BAD, colours));
    mir_cli_text_print_visible(stdout, text);
    (void)fputc('\n', stdout);
    (*count)++;
}

/* What the server complains about, and what its figures say. Returns how much that is. */
static size_t print_problems(const json_t *status, bool colours)
{
    size_t count = 0;
    char text[512];
    const json_t *problems = json_object_get(status, "problems");
    for (size_t i = 0; i < json_array_size(problems); i++) {
        const json_t *each = json_array_get(problems, i);
        const char *device = json_string_value(json_object_get(each, "device"));
        const char *kind = json_string_value(json_object_get(each, "kind"));
        const char *words = json_string_value(json_object_get(each, "text"));
        json_int_t times = json_integer_value(json_object_get(each, "count"));
        char what[64] = "";
        if (kind != NULL) key_text(kind, what, sizeof what);
        char often[48] = "";
        if (times > 1) (void)snprintf(often, sizeof often, " (%lld times)", (long long)times);
        (void)snprintf(text, sizeof text, "%s%s%s%s%s%s", device != NULL ? device : "",
                       device != NULL && device[0] != '\0' ? ": " : "", what,
                       words != NULL && what[0] != '\0' ? ": " : "", words != NULL ? words : "",
                       often);
        complain(&count, colours, text);
    }
    int64_t slow = (int64_t)json_integer_value(json_object_get(status, "slow_consumers"));
    if (slow > 0) {
        (void)snprintf(text, sizeof text,
                       "%lld slow consumer%s dropped: clients that do not read "
                       "what they subscribed to",
                       (long long)slow, slow == 1 ? " was" : "s were");
        complain(&count, colours, text);
    }
    if (count == 0)
        (void)printf("%severything is fine%s\n", mir_cli_table_tone_on(MIR_TONE_GOOD, colours),
                     mir_cli_table_tone_off(MIR_TONE_GOOD, colours));
    return count;
}

static void print_head(const json_t *status, const char *where)
{
    const char *version = json_string_value(json_object_get(status, "version"));
    const char *backend = json_string_value(json_object_get(status, "io_backend"));
    const json_t *uptime = json_object_get(status, "uptime_seconds");
    char text[64];
    (void)fputs("mir ", stdout);
    mir_cli_text_print_visible(stdout, version != NULL ? version : "?");
    (void)fputs(" at ", stdout);
    mir_cli_text_print_visible(stdout, where);
    if (json_is_number(uptime)) {
        value_text("uptime_seconds", uptime, text, sizeof text);
        (void)printf(", up %s", text);
    }
    if (backend != NULL) {
        (void)fputs(", io ", stdout);
        mir_cli_text_print_visible(stdout, backend);
    }
    (void)fputc('\n', stdout);
}

static void print_status(const json_t *status, const json_t *before, double seconds,
                         const char *where)
{
    static const char *const in_head[] = {"version", "uptime_seconds", "io_backend", "problems"};
    bool colours = mir_cli_text_colours(stdout);
    size_t terminal = mir_cli_text_terminal_columns(stdout);
    size_t width = terminal != 0 ? terminal : COLUMNS_DEFAULT;
    size_t names = strlen("server") + INDENT;
    const char *key;
    json_t *value;
    (void)print_problems(status, colours);
    print_head(status, where);
    json_t *loose = json_object();
    json_object_foreach((json_t *)(uintptr_t)status, key, value)
    {
        if (strlen(key) + INDENT > names) names = strlen(key) + INDENT;
        bool shown = json_is_object(value) || json_is_array(value);
        for (size_t i = 0; i < sizeof in_head / sizeof in_head[0]; i++)
            shown |= strcmp(key, in_head[i]) == 0;
        if (!shown) (void)json_object_set(loose, key, value);
    }
    (void)fputc('\n', stdout);
    if (json_object_size(loose) > 0)
        print_section("server", loose, before, seconds, names, width, colours);
    json_decref(loose);
    /* Sections first, then tables. */
    for (int tables = 0; tables < 2; tables++)
        json_object_foreach((json_t *)(uintptr_t)status, key, value)
        {
            bool rows = json_is_array(value) ||
                        (json_is_object(value) &&
                         json_is_object(json_object_iter_value(json_object_iter(value))));
            if ((!json_is_object(value) && !json_is_array(value)) || strcmp(key, "problems") == 0)
                continue;
            const json_t *old = json_object_get(before, key);
            if (rows && tables == 1) print_rows(key, value, old, seconds, terminal, colours);
            if (!rows && tables == 0 && json_object_size(value) > 0)
                print_section(key, value, old, seconds, names, width, colours);
        }
}

int mir_cli_status_ask(mir_cli_session *session, json_t **status)
{
    mir_bytes reply = {0};
    int code =
        mir_cli_connect_ask_bytes(session, "sys.v1alpha.status", mir_view_of(NULL, 0), &reply);
    if (code == MIR_EXIT_OK) {
        json_error_t problem;
        *status = json_loadb((const char *)reply.data, reply.size, 0, &problem);
        if (!json_is_object(*status))
            code =
                mir_cli_fail("the status of %s cannot be read: %s", session->where, problem.text);
    }
    mir_bytes_free(&reply);
    return code;
}

int mir_cli_status(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    json_t *status = NULL;
    json_t *before = NULL;
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    int code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK) code = mir_cli_status_ask(&session, &status);
    if (code == MIR_EXIT_OK && format != NULL && strcmp(format, "table") != 0) {
        code = mir_cli_devices_print_value(status, format);
    } else if (code == MIR_EXIT_OK) {
        /* Rates are what happens between two looks. */
        int64_t start_ns = mir_clock_mono_ns();
        struct timespec gap = {.tv_nsec = SAMPLE_GAP_NS};
        (void)nanosleep(&gap, NULL);
        before = status;
        status = NULL;
        code = mir_cli_status_ask(&session, &status);
        double seconds = (double)(mir_clock_mono_ns() - start_ns) / 1e9;
        if (code == MIR_EXIT_OK) print_status(status, before, seconds, session.where);
    }
    json_decref(before);
    json_decref(status);
    mir_cli_connect_close(&session);
    return code;
}
