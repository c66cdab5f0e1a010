/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_encode: a row of texts as the telemetry message that has this row.
 *
 * Why        What is imported enters as devices send it, so that every rule of telemetry holds for
 *            it. This is mir_plan the other way round: stored names (`a.b`, `f_0`, `f_key.sub`)
 *            become places in a message.
 * Ownership  The caller frees the encoder; it points into the schema, which has to outlive it.
 *            Payloads are appended to the caller's buffer, and left as they were on failure.
 * Affinity   One thread at a time.
 * Units      Nanoseconds since 1970 UTC.
 * Bounds     MIR_CLI_ENCODE_COLUMNS_MAX columns, MIR_CLI_ENCODE_DEPTH_MAX levels.
 * Errors     new: MIR_E_UNSUPPORTED when rows of the message take the time of their arrival,
 *            MIR_E_TOO_LARGE, MIR_E_NO_MEMORY. Columns that the message does not have are no error
 *            until a row has a value there: row: MIR_E_NOT_FOUND for these, MIR_E_INVALID for a value
 *            that the field cannot have, and for a time that the message cannot carry. */
#ifndef MIR_CLI_ENCODE_H
#define MIR_CLI_ENCODE_H

#include "mir_bytes.h"
#include "mir_schema.h"

enum { MIR_CLI_ENCODE_COLUMNS_MAX = 8192, MIR_CLI_ENCODE_DEPTH_MAX = 32 };

typedef enum mir_cli_text_form {
    MIR_TEXT_ABSENT = 0,
    MIR_TEXT_ANY,    /* of CSV: the field decides what it is */
    MIR_TEXT_QUOTED, /* of line protocol: a text */
    MIR_TEXT_BARE,   /* of line protocol: a number or a boolean */
} mir_cli_text_form;

typedef struct mir_cli_text_value {
    mir_cli_text_form form;
    mir_view text;
} mir_cli_text_value;

typedef struct mir_cli_encoder mir_cli_encoder;

MIR_MUST_CHECK mir_status mir_cli_encoder_new(const mir_schema_message *message,
                                              const mir_view *columns, size_t count,
                                              mir_cli_encoder **encoder, mir_error *error);
/* `values` has one for each column. `*cause` is a constant text that says for a count of such rows
 * what is wrong with this one. */
MIR_MUST_CHECK mir_status mir_cli_encoder_row(mir_cli_encoder *encoder, int64_t time_ns,
                                              const mir_cli_text_value *values, mir_bytes *payload,
                                              const char **cause, mir_error *error);
void mir_cli_encoder_free(mir_cli_encoder *encoder);

#endif
