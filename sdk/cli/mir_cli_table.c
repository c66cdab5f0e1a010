/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_table.h"

#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_cli_text.h"

#include <stdarg.h>
#include <stdlib.h>

enum { GAP = 2, TEXT_COLUMNS_MIN = 8, CELL_BYTES = 512 };

typedef struct column {
    const char *title;
    const char *unit;
    mir_cli_table_kind kind;
    size_t natural; /* widest cell */
} column;

typedef struct cell {
    const char *text;
    mir_cli_table_tone tone;
} cell;

struct mir_cli_table {
    mir_arena arena;
    column columns[MIR_TABLE_COLUMNS_MAX];
    size_t columns_count;
    cell *cells;
    size_t cells_count;
    size_t cells_capacity;
    bool failed;
};

const char *mir_cli_table_tone_on(mir_cli_table_tone tone, bool colours)
{
    if (!colours) return "";
    switch (tone) {
    case MIR_TONE_GOOD: return "\033[32m";
    case MIR_TONE_BAD: return "\033[31m";
    case MIR_TONE_DIM: return "\033[2m";
    case MIR_TONE_STRONG: return "\033[1m";
    case MIR_TONE_PLAIN: break;
    }
    return "";
}

const char *mir_cli_table_tone_off(mir_cli_table_tone tone, bool colours)
{
    return colours && tone != MIR_TONE_PLAIN ? "\033[0m" : "";
}

mir_cli_table *mir_cli_table_new(void)
{
    return calloc(1, sizeof(mir_cli_table));
}

static const char *keep(mir_cli_table *table, const char *text)
{
    const char *copy = mir_arena_strdup(&table->arena, mir_view_cstr(text));
    if (copy != NULL) return copy;
    table->failed = true;
    return "";
}

static void widen(column *to, const char *text)
{
    size_t columns = mir_cli_text_columns(text);
    if (columns > to->natural) to->natural = columns;
}

void mir_cli_table_column(mir_cli_table *table, const char *title, const char *unit,
                          mir_cli_table_kind kind)
{
    if (table == NULL) return;
    if (table->columns_count == MIR_TABLE_COLUMNS_MAX) {
        table->failed = true;
        return;
    }
    column *to = &table->columns[table->columns_count++];
    *to = (column){.title = keep(table, title), .kind = kind};
    widen(to, to->title);
    if (unit == NULL || unit[0] == '\0') return;
    to->unit = keep(table, unit);
    widen(to, to->unit);
}

void mir_cli_table_cell(mir_cli_table *table, mir_cli_table_tone tone, const char *text)
{
    if (table == NULL || table->failed || table->columns_count == 0) return;
    if (table->cells_count == table->cells_capacity) {
        size_t want = table->cells_capacity == 0 ? 64 : table->cells_capacity * 2;
        cell *grown = reallocarray(table->cells, want, sizeof *grown);
        if (grown == NULL) {
            table->failed = true;
            return;
        }
        table->cells = grown;
        table->cells_capacity = want;
    }
    const char *copy = keep(table, text);
    widen(&table->columns[table->cells_count % table->columns_count], copy);
    table->cells[table->cells_count++] = (cell){copy, tone};
}

void mir_cli_table_cellf(mir_cli_table *table, mir_cli_table_tone tone, const char *format, ...)
{
    char text[CELL_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mir_cli_table_cell(table, tone, text);
}

size_t mir_cli_table_rows(const mir_cli_table *table)
{
    return table == NULL || table->columns_count == 0 ? 0
                                                      : table->cells_count / table->columns_count;
}

static size_t clamped(const column *each, size_t cap)
{
    if (each->kind != MIR_TABLE_TEXT || each->natural <= cap) return each->natural;
    size_t least = each->natural < TEXT_COLUMNS_MIN ? each->natural : TEXT_COLUMNS_MIN;
    return cap > least ? cap : least;
}

/* How many columns fit, and to how much text columns are cut for that. */
static size_t fit(const mir_cli_table *table, size_t width, size_t *cap)
{
    size_t widest = 0;
    for (size_t i = 0; i < table->columns_count; i++)
        if (table->columns[i].natural > widest) widest = table->columns[i].natural;
    *cap = widest;
    if (width == 0) return table->columns_count;
    for (size_t count = table->columns_count; count > 1; count--) {
        size_t low = TEXT_COLUMNS_MIN;
        size_t high = widest > low ? widest : low;
        for (bool first = true; low <= high; first = false) {
            /* The narrowest first: when that does not fit, a column must go. */
            size_t middle = first ? low : low + (high - low + 1) / 2;
            size_t sum = 0;
            for (size_t i = 0; i < count; i++)
                sum += clamped(&table->columns[i], middle) + (i > 0 ? GAP : 0);
            if (first && sum > width) break;
            if (sum <= width) {
                *cap = low = middle;
                if (low == high) return count;
            } else {
                high = middle - 1;
                if (high <= low) return count;
            }
        }
    }
    *cap = width;
    return 1;
}

static void put(mir_bytes *line, const column *to, size_t columns, const char *text,
                mir_cli_table_tone tone, bool colours, bool last)
{
    mir_bytes piece = {0};
    size_t used = mir_cli_text_fit(&piece, text, columns);
    size_t pad = columns > used ? columns - used : 0;
    if (to->kind == MIR_TABLE_NUMBER) mir_bytes_printf(line, "%*s", (int)pad, "");
    mir_bytes_text(line, mir_cli_table_tone_on(tone, colours));
    mir_bytes_view(line, mir_bytes_as_view(&piece));
    mir_bytes_text(line, mir_cli_table_tone_off(tone, colours));
    if (to->kind != MIR_TABLE_NUMBER && !last) mir_bytes_printf(line, "%*s", (int)pad, "");
    if (!last) mir_bytes_printf(line, "%*s", GAP, "");
    if (!mir_bytes_ok(&piece)) line->failed = true;
    mir_bytes_free(&piece);
}

mir_status mir_cli_table_print(const mir_cli_table *table, FILE *out, size_t width, bool colours,
                               size_t *left_out)
{
    if (left_out != NULL) *left_out = 0;
    if (table == NULL || table->failed) return MIR_E_NO_MEMORY;
    if (table->columns_count == 0) return MIR_OK;
    size_t cap = 0;
    size_t count = fit(table, width, &cap);
    if (left_out != NULL) *left_out = table->columns_count - count;
    bool units = false;
    for (size_t i = 0; i < count; i++) units |= table->columns[i].unit != NULL;
    mir_bytes line = {0};
    size_t rows = mir_cli_table_rows(table);
    for (size_t row = 0; row < rows + 2; row++) {
        if (row == 1 && !units) continue;
        line.size = 0;
        for (size_t i = 0; i < count; i++) {
            const column *to = &table->columns[i];
            const cell *from = row < 2 ? NULL : &table->cells[(row - 2) * table->columns_count + i];
            const char *text = row == 0   ? to->title
                               : row == 1 ? (to->unit != NULL ? to->unit : "")
                                          : from->text;
            mir_cli_table_tone tone = row == 0   ? MIR_TONE_STRONG
                                      : row == 1 ? MIR_TONE_DIM
                                                 : from->tone;
            size_t columns = clamped(to, cap);
            if (count == 1 && columns > cap) columns = cap;
            put(&line, to, columns, text, tone, colours, i + 1 == count);
        }
        while (line.size > 0 && line.data[line.size - 1] == ' ') line.size--;
        mir_bytes_u8(&line, '\n');
        if (mir_bytes_ok(&line)) (void)fwrite(line.data, 1, line.size, out);
    }
    mir_status status = mir_bytes_ok(&line) ? MIR_OK : MIR_E_NO_MEMORY;
    mir_bytes_free(&line);
    return status;
}

void mir_cli_table_free(mir_cli_table *table)
{
    if (table == NULL) return;
    mir_arena_free(&table->arena);
    free(table->cells);
    free(table);
}
