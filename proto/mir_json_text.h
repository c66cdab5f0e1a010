/* SPDX-License-Identifier: Apache-2.0 */
/* mir_json_text: the pieces of JSON text that all of its writers share, and what is carried inside
 * of strings: base64, times and durations.
 *
 * Ownership  Output is appended to the caller's mir_bytes, which turns failed when it cannot grow.
 * Affinity   Any thread.
 * Errors     The parsers return false for text that is not what they read. */
#ifndef MIR_JSON_TEXT_H
#define MIR_JSON_TEXT_H

#include "mir_bytes.h"

typedef enum mir_json_escape {
    MIR_JSON_ESCAPE_NEEDED = 0,
    MIR_JSON_ESCAPE_HTML, /* also `<`, `>`, `&`, U+2028, U+2029 */
    /* Also these, \b and \f by their numbers, and U+FFFD for each byte that is not UTF-8. */
    MIR_JSON_ESCAPE_LENIENT,
} mir_json_escape;

/* With quotes around it. The text is UTF-8, or may be anything where the escape is lenient. */
void mir_json_put_string(mir_bytes *text, mir_view value, mir_json_escape escape);
/* The shortest digits that read back as the same number; finite only. */
void mir_json_put_number(mir_bytes *text, double value, bool is_float);

void mir_json_put_base64(mir_bytes *text, mir_view value);
/* Standard or URL alphabet, padded or not. */
bool mir_json_parse_base64(mir_view text, mir_bytes *value);

/* RFC 3339 with `Z` and 0, 3, 6 or 9 digits of fraction; years 1 to 9999. */
bool mir_json_put_time(mir_bytes *text, int64_t seconds, int32_t nanos);
bool mir_json_parse_time(mir_view text, int64_t *seconds, int32_t *nanos);
/* `-1.500s`; both parts of one sign, at most 10,000 years. */
bool mir_json_put_duration(mir_bytes *text, int64_t seconds, int32_t nanos);
bool mir_json_parse_duration(mir_view text, int64_t *seconds, int32_t *nanos);

#endif
