/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_text: text on a terminal: how wide it is, how it is cut, and what must not reach it raw.
 *
 * Why        Names and labels come from devices. A control character in one of them must not move
 *            the cursor, and a wide character must not break a table.
 * Affinity   The main thread, after setlocale(LC_CTYPE, a UTF-8 locale).
 * Units      Columns of the terminal.
 * Bounds     A null text is an empty one.
 * Errors     Bytes that are not UTF-8, and control characters, are shown as one U+FFFD each. */
#ifndef MIR_CLI_TEXT_H
#define MIR_CLI_TEXT_H

#include "mir_bytes.h"

#include <stdio.h>

size_t mir_cli_text_columns(const char *text);
/* Appends what fits in `columns`, ending with an ellipsis when it was cut. Returns the columns
 * that were used. */
size_t mir_cli_text_fit(mir_bytes *out, const char *text, size_t columns);
/* Writes the text with control characters made harmless; line feeds stay. */
void mir_cli_text_print_visible(FILE *out, const char *text);

/* The same in lines of at most so many columns, broken between words, with a line end. */
void mir_cli_text_print_wrapped(FILE *out, const char *text, size_t columns);

/* Whether colours are welcome on the stream: a terminal, TERM not dumb, NO_COLOR not set. */
bool mir_cli_text_colours(FILE *out);
/* Columns of the terminal that the stream is, or 0 when it is none. */
size_t mir_cli_text_terminal_columns(FILE *out);
/* Lines of the terminal that the stream is, or 0 when it is none. */
size_t mir_cli_text_terminal_lines(FILE *out);
/* So many bytes, such as `1.5 MiB`. */
void mir_cli_text_size(double value, char *text, size_t size);

#endif
