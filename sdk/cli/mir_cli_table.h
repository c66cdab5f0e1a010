/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_table: rows in columns that fit the terminal.
 *
 * Why        A table that wraps is no table. Text is cut with an ellipsis; numbers and times never
 *            are, since a cut number is a wrong one: columns at the right are left out instead.
 * Ownership  mir_cli_table_new and mir_cli_table_free. Cells are copied.
 * Affinity   One thread at a time.
 * Units      Columns of the terminal.
 * Bounds     MIR_TABLE_COLUMNS_MAX columns; rows as memory allows.
 * Errors     When memory ends the table remembers it, and mir_cli_table_print reports it. */
#ifndef MIR_CLI_TABLE_H
#define MIR_CLI_TABLE_H

#include "mir_status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { MIR_TABLE_COLUMNS_MAX = 1024 };

typedef enum mir_cli_table_kind {
    MIR_TABLE_TEXT,
    MIR_TABLE_NUMBER,
    MIR_TABLE_FIXED
} mir_cli_table_kind;
typedef enum mir_cli_table_tone {
    MIR_TONE_PLAIN,
    MIR_TONE_GOOD,
    MIR_TONE_BAD,
    MIR_TONE_DIM,
    MIR_TONE_STRONG,
} mir_cli_table_tone;

typedef struct mir_cli_table mir_cli_table;

mir_cli_table *mir_cli_table_new(void);
/* All columns come before the first cell. `unit` is shown below the title; null: none. */
void mir_cli_table_column(mir_cli_table *table, const char *title, const char *unit,
                          mir_cli_table_kind kind);
/* The next cell, row by row. */
void mir_cli_table_cell(mir_cli_table *table, mir_cli_table_tone tone, const char *text);
void mir_cli_table_cellf(mir_cli_table *table, mir_cli_table_tone tone, const char *format, ...)
    MIR_PRINTF(3, 4);
size_t mir_cli_table_rows(const mir_cli_table *table);
/* `width` 0 is without bound. `left_out` gets the number of columns that had no room. */
MIR_MUST_CHECK mir_status mir_cli_table_print(const mir_cli_table *table, FILE *out, size_t width,
                                              bool colours, size_t *left_out);
void mir_cli_table_free(mir_cli_table *table);

/* The text between the escapes of a tone, or "" without colours. */
const char *mir_cli_table_tone_on(mir_cli_table_tone tone, bool colours);
const char *mir_cli_table_tone_off(mir_cli_table_tone tone, bool colours);

#endif
