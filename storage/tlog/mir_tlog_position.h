/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_position: how far a spool has been read, as a file.
 *
 * Why        Whoever reads the telemetry log from outside goes on after a crash where it was. The
 *            file is replaced as a whole, so that it says one thing or the one before.
 * Ownership  A position's list is its own; _fini gives it back.
 * Affinity   Any thread, one at a time for one directory.
 * Units      through_ns: nanoseconds since 1970 UTC. Offsets are bytes of the log's file.
 * Bounds     MIR_TLOG_POSITION_LOGS_MAX logs.
 * Errors     Reading: MIR_E_NOT_FOUND, _CORRUPT, _UNSUPPORTED (a newer version), _IO, _NO_MEMORY.
 * Source     Drawn in docs/formats/telemetry-sink.md. */
#ifndef MIR_TLOG_POSITION_H
#define MIR_TLOG_POSITION_H

#include "mir_status.h"
#include "mir_tlog_file.h"

enum { MIR_TLOG_POSITION_LOGS_MAX = 1 << 16 };

typedef struct mir_tlog_position_log {
    uint64_t generation;
    uint64_t offset; /* of the frame that is next */
    uint32_t rows;   /* of that frame, done with */
} mir_tlog_position_log;

typedef struct mir_tlog_position {
    int64_t through_ns; /* all that had come by then is done with; 0: not known */
    mir_tlog_position_log *logs;
    uint32_t log_count;
} mir_tlog_position;

MIR_MUST_CHECK mir_status mir_tlog_position_parse(mir_view bytes, mir_tlog_position *position,
                                                  mir_error *error);
MIR_MUST_CHECK mir_status mir_tlog_position_read(const mir_tlog_files *files, const char *directory,
                                                 mir_tlog_position *position, mir_error *error);
/* On the disk when it returns MIR_OK. MIR_E_NO_SPACE, _IO, _NO_MEMORY, _TOO_LARGE. */
MIR_MUST_CHECK mir_status mir_tlog_position_write(const mir_tlog_files *files,
                                                  const char *directory,
                                                  const mir_tlog_position *position,
                                                  mir_error *error);
void mir_tlog_position_fini(mir_tlog_position *position);

#endif
