/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_payload: the JSON that a command or a configuration is sent with.
 *
 * Why        It comes from -p, from a file, from a pipe or out of an editor, and is to be checked
 *            before a device sees it.
 * Ownership  The caller frees the text.
 * Affinity   The main thread.
 * Bounds     MIR_PAYLOAD_BYTES_MAX. A pipe that says nothing is not waited for, unless -p - asks
 *            for it: it may be that of a script that has nothing for us. Of a file only one that
 *            nobody has begun to read is taken.
 * Errors     Functions that return int return an exit code and have told the user. */
#ifndef MIR_CLI_PAYLOAD_H
#define MIR_CLI_PAYLOAD_H

#include "mir_bytes.h"
#include "mir_cli.h"

enum { MIR_PAYLOAD_BYTES_MAX = 8 * 1024 * 1024 };

typedef struct mir_cli_payload {
    mir_bytes text;
    bool given;  /* there is a text that is not blank */
    bool silent; /* standard input is a pipe that said nothing */
} mir_cli_payload;

/* From -p, and without it from standard input. With --protobuf any bytes, even none, are one. */
int mir_cli_payload_read(const mir_cli *cli, const mir_cli_args *args, mir_cli_payload *payload);
/* Whether the text is one JSON value. */
MIR_MUST_CHECK mir_status mir_cli_payload_check(mir_view text, mir_error *error);
void mir_cli_payload_free(mir_cli_payload *payload);

/* What the editor is opened with, and what came of it. */
typedef struct mir_cli_payload_edit {
    char path[256];
    mir_bytes last; /* what it was opened with last, without comments */
} mir_cli_payload_edit;

/* Opens $VISUAL or $EDITOR with the JSON and `comment` above it, each line as a comment. On
 * MIR_EXIT_OK `text` is what was saved, without comments; unchanged or empty is a failure that has
 * been told. `begin` makes the file, `end` takes it away. */
int mir_cli_payload_edit_begin(mir_cli_payload_edit *edit);
int mir_cli_payload_edit_open(mir_cli_payload_edit *edit, const char *comment, mir_view json,
                              mir_bytes *text);
void mir_cli_payload_edit_end(mir_cli_payload_edit *edit);

#endif
