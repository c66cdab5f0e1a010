/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_text.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

static const char replacement[] = "\xEF\xBF\xBD";
static const char ellipsis[] = "\xE2\x80\xA6";

typedef struct glyph {
    const char *bytes;
    size_t size;  /* of `bytes` */
    size_t taken; /* of the text */
    size_t columns;
} glyph;

/* The code point at the front, strictly: shortest form, no surrogates, at most U+10FFFF. */
static glyph next_glyph(const char *text)
{
    const uint8_t *at = (const uint8_t *)text;
    size_t size = at[0] < 0x80 ? 1 : at[0] >= 0xF0 ? 4 : at[0] >= 0xE0 ? 3 : at[0] >= 0xC2 ? 2 : 0;
    uint32_t point = size == 1   ? at[0]
                     : size == 2 ? at[0] & 0x1F
                     : size == 3 ? at[0] & 0xF
                                 : at[0] & 0x7;
    glyph bad = {replacement, sizeof replacement - 1, 1, 1};
    if (size == 0) return bad;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xC0) != 0x80) return bad;
        point = point << 6 | (at[i] & 0x3F);
    }
    if ((size == 3 && point < 0x800) || (size == 4 && point < 0x10000) || point > 0x10FFFF ||
        (point >= 0xD800 && point < 0xE000))
        return bad;
    bad.taken = size;
    if (point < 0x20 || (point >= 0x7F && point < 0xA0)) return bad;
    /* Marks that turn the direction of text or hide it. */
    if ((point >= 0x200B && point <= 0x200F) || (point >= 0x202A && point <= 0x202E) ||
        (point >= 0x2066 && point <= 0x2069) || point == 0xFEFF)
        return bad;
    int columns = wcwidth((wchar_t)point);
    return (glyph){text, size, size, columns < 0 ? 1 : (size_t)columns};
}

size_t mir_cli_text_columns(const char *text)
{
    size_t columns = 0;
    while (text != NULL && *text != '\0') {
        glyph each = next_glyph(text);
        columns += each.columns;
        text += each.taken;
    }
    return columns;
}

size_t mir_cli_text_fit(mir_bytes *out, const char *text, size_t columns)
{
    if (text == NULL) return 0;
    bool cut = mir_cli_text_columns(text) > columns;
    if (cut && columns == 0) return 0;
    size_t room = cut ? columns - 1 : columns;
    size_t used = 0;
    while (*text != '\0') {
        glyph each = next_glyph(text);
        if (used + each.columns > room) break;
        mir_bytes_append(out, each.bytes, each.size);
        used += each.columns;
        text += each.taken;
    }
    if (!cut) return used;
    while (used > 0 && out->size > 0 && out->data[out->size - 1] == ' ') {
        out->size--;
        used--;
    }
    mir_bytes_text(out, ellipsis);
    return used + 1;
}

void mir_cli_text_print_visible(FILE *out, const char *text)
{
    while (text != NULL && *text != '\0') {
        if (*text == '\n') {
            (void)fputc(*text++, out);
            continue;
        }
        glyph each = next_glyph(text);
        (void)fwrite(each.bytes, 1, each.size, out);
        text += each.taken;
    }
}

void mir_cli_text_print_wrapped(FILE *out, const char *text, size_t columns)
{
    size_t used = 0;
    while (text != NULL && *text != '\0') {
        size_t size = strcspn(text, " \n");
        char word[256];
        /* A longer word is no word of a language; it is shown in pieces. */
        if (size >= sizeof word) size = sizeof word - 1;
        memcpy(word, text, size);
        word[size] = '\0';
        size_t wide = mir_cli_text_columns(word);
        bool breaks = used > 0 && used + 1 + wide > columns;
        if (breaks) used = 0;
        if (size > 0) {
            (void)fputs(breaks ? "\n" : used > 0 ? " " : "", out);
            mir_cli_text_print_visible(out, word);
            used += wide + (used > 0);
        }
        text += size;
        if (*text == '\n') {
            (void)fputc('\n', out);
            used = 0;
        }
        if (*text == ' ' || *text == '\n') text++;
    }
    if (used > 0) (void)fputc('\n', out);
}

bool mir_cli_text_colours(FILE *out)
{
    const char *off = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    return (off == NULL || off[0] == '\0') && term != NULL && strcmp(term, "dumb") != 0 &&
           isatty(fileno(out));
}

size_t mir_cli_text_terminal_columns(FILE *out)
{
    struct winsize size;
    if (!isatty(fileno(out))) return 0;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    const char *columns = getenv("COLUMNS");
    long value = columns != NULL ? strtol(columns, NULL, 10) : 0;
    return value > 0 && value < 10000 ? (size_t)value : 80;
}

size_t mir_cli_text_terminal_lines(FILE *out)
{
    struct winsize size;
    if (!isatty(fileno(out))) return 0;
    return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

void mir_cli_text_size(double value, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(text, size, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value,
                   units[unit]);
}
