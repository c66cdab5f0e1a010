/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_records: rows of telemetry out of a file: CSV or Influx line protocol.
 *
 * Why        import reads what export and other databases write, of any length, in bounded memory,
 *            and says in which line something is wrong.
 * Ownership  The caller closes the reader. A record is valid until the next one is read.
 * Affinity   One thread at a time.
 * Units      Nanoseconds since 1970 UTC.
 * Bounds     MIR_RECORD_BYTES_MAX of one record, MIR_RECORD_COLUMNS_MAX of its columns.
 * Errors     open, next: what concerns the whole file: MIR_E_NOT_FOUND, MIR_E_IO, MIR_E_TOO_LARGE,
 *            MIR_E_INVALID with a text for the user. next: MIR_E_EMPTY at the end, MIR_E_CANCELLED. A record that
 *            cannot be read alone is no error: its `cause` says why, and reading goes on.
 * Source     As mir_cli_rows. CSV may have several sections, each with its header, an empty line
 *            between them. Line protocol: lines that begin with # are comments; `\n` inside of a
 *            text is part of it. */
#ifndef MIR_CLI_RECORDS_H
#define MIR_CLI_RECORDS_H

#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_cli_encode.h"

enum { MIR_RECORD_BYTES_MAX = 16 << 20, MIR_RECORD_COLUMNS_MAX = MIR_CLI_ENCODE_COLUMNS_MAX };

typedef enum mir_cli_records_format {
    MIR_RECORDS_GUESS, /* CSV when the first line has a column of times */
    MIR_RECORDS_CSV,
    MIR_RECORDS_LINE,
} mir_cli_records_format;

typedef struct mir_cli_record {
    uint64_t line;     /* where it begins, from 1 */
    const char *cause; /* constant; null: it can be used */
    char text[160];    /* what is wrong with it */
    bool has_time;
    int64_t time_ns;
    mir_view device_id; /* empty: it names none */
    mir_view measurement;
    const mir_view *columns;
    const mir_cli_text_value *values;
    size_t count;
    uint64_t columns_hash;
} mir_cli_record;

typedef struct mir_cli_records mir_cli_records;

/* `-` is standard input. `tick_ns` is the length of a unit of the times of line protocol. */
MIR_MUST_CHECK mir_status mir_cli_records_open(const char *path, mir_cli_records_format format,
                                               int64_t tick_ns, mir_cli_records **records,
                                               mir_error *error);
MIR_MUST_CHECK mir_status mir_cli_records_next(mir_cli_records *records, mir_cli_record *record,
                                               mir_error *error);
/* Bytes read so far, and in all (0 when that is not known). */
void mir_cli_records_progress(const mir_cli_records *records, uint64_t *done, uint64_t *total);
/* The line that is looked at next. */
uint64_t mir_cli_records_line(const mir_cli_records *records);
/* next ends with MIR_E_CANCELLED, instead of waiting for more of the file, once `fd` is readable. */
void mir_cli_records_stop_on(mir_cli_records *records, int fd);
void mir_cli_records_close(mir_cli_records *records);

#endif
