/* SPDX-License-Identifier: Apache-2.0 */
/* mir_storage: a data directory as a whole, for who looks after it: verify, stats, backup, restore,
 * repair.
 *
 * Why        These work on the files, in a process of their own, beside a server or without one: a
 *            check of all bytes costs the server no thread and no memory, and what a damaged file
 *            does to the process that reads it does not reach the server. Segments never change, a
 *            manifest is replaced as a whole, logs are appended to, and LMDB has readers in other
 *            processes; so nobody has to be asked. LMDB has no checksums and may end a process that
 *            reads a damaged file: that is done in a child process.
 * Ownership  What a watch is shown is valid during the call.
 * Affinity   One thread; the process has no other threads (it forks). SIGPIPE must be ignored.
 * Units      Bytes; nanoseconds since 1970.
 * Bounds     Memory: one chunk, one log, and 8 bytes for each series that stats count. Files open at
 *            once in a backup: all segments, for the time of the snapshot.
 * Errors     MIR_E_CANCELLED when progress returns false; _NOT_FOUND (no data directory); _IO,
 *            _NO_SPACE, _PERMISSION, _NO_MEMORY. Damage is no error of verify: it is shown.
 * Source     docs/formats/telemetry-log.md, docs/formats/backup.md. */
#ifndef MIR_STORAGE_H
#define MIR_STORAGE_H

#include "mir_status.h"
#include "mir_view.h"

#define MIR_STORAGE_MARKER "BACKUP" /* the file that makes a backup complete */
/* There from the first moment of a backup until its marker is. */
#define MIR_STORAGE_MARKER_HALF "BACKUP.tmp"
#define MIR_STORAGE_RESTORING   "restoring" /* in a data directory: a restore did not finish */
#define MIR_STORAGE_DAMAGED     "damaged"   /* in it: the files that a repair has replaced */

typedef enum mir_storage_kind {
    MIR_STORAGE_MANIFEST,
    MIR_STORAGE_SEGMENT, /* all of it */
    MIR_STORAGE_INDEX,   /* the series of a block of its index */
    MIR_STORAGE_CHUNK,
    MIR_STORAGE_LOG, /* a region of a log, or all of it */
    MIR_STORAGE_STATE,
    MIR_STORAGE_EVENTS, /* their chain */
    MIR_STORAGE_BACKUP, /* a file is not what the backup's list says */
} mir_storage_kind;

/* MIR_E_INVALID: a restore into it did not finish, or it is a backup, which has to stay as it is. */
MIR_MUST_CHECK mir_status mir_storage_servable(const char *data, mir_error *error);

const char *mir_storage_kind_name(mir_storage_kind kind);

typedef struct mir_storage_damage {
    mir_storage_kind kind;
    const char *file;     /* below the data directory */
    mir_view measurement; /* empty: not of one series */
    mir_view device;
    bool has_range;
    int64_t from_ns; /* of the rows in it, both inclusive */
    int64_t to_ns;
    uint64_t offset; /* in the file, and how many; 0 bytes: all of it */
    uint64_t bytes;
    uint64_t rows; /* that are lost; 0: not known */
    const char *text;
} mir_storage_damage;

typedef struct mir_storage_watch {
    void *context;
    bool (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes); /* may be null */
    void (*damage)(void *context, const mir_storage_damage *damage);            /* may be null */
    /* Of a repair: what is done with a file; may be null. */
    void (*step)(void *context, const char *file, const char *text);
} mir_storage_watch;

typedef struct mir_storage_checked {
    uint64_t files;
    uint64_t bytes;
    uint64_t chunks;
    uint64_t rows;      /* of the chunks that are whole, and of logs */
    uint64_t damage;    /* how often the watch was told */
    uint64_t set_aside; /* *.damaged files that are there */
    uint64_t events;    /* links of their chain that were proved */
} mir_storage_checked;

MIR_MUST_CHECK mir_status mir_storage_verify(const char *data, bool events,
                                             const mir_storage_watch *watch,
                                             mir_storage_checked *checked, mir_error *error);

typedef struct mir_storage_measurement {
    char *name;
    uint64_t rows;
    uint64_t values; /* at most: rows by the columns of their chunks */
    uint64_t bytes;  /* of chunks */
    uint64_t series;
    int64_t oldest_ns;
    int64_t newest_ns;
} mir_storage_measurement;

typedef struct mir_storage_stats {
    uint64_t segments;
    uint64_t segment_bytes;
    uint64_t logs;
    uint64_t log_bytes; /* written, not yet in segments */
    uint64_t state_bytes;
    uint64_t set_aside;
    uint64_t damaged; /* files or index blocks that could not be counted */
    uint64_t chunks;
    mir_storage_measurement all; /* its name is null */
    uint32_t measurement_count;
    mir_storage_measurement *measurements; /* by bytes, the largest first */
} mir_storage_stats;

MIR_MUST_CHECK mir_status mir_storage_stats_read(const char *data, const mir_storage_watch *watch,
                                                 mir_storage_stats *stats, mir_error *error);
void mir_storage_stats_fini(mir_storage_stats *stats);

typedef struct mir_storage_saved {
    uint64_t files;
    uint64_t bytes;
    uint64_t linked;  /* of the files: not copied, but another name of the same file */
    uint64_t damaged; /* files that are missing or of which nothing can be read: named alone */
    uint64_t unread;  /* bytes of others that the disk could not read: zeros instead */
    int64_t at_ns;
} mir_storage_saved;

/* Of a data directory, served or not, into a directory that is empty or not there; with `copy` no file
 * is shared with the original. It is on the disk when this returns MIR_OK; until then there is no
 * MIR_STORAGE_MARKER in it. The watch's `damage` is told of what the disk could not read of segments and
 * logs; all else is saved. MIR_E_EXISTS: the target is not empty; _INVALID: the data directory is
 * the half of a backup or of a restore, or the target is inside of it. */
MIR_MUST_CHECK mir_status mir_storage_backup(const char *data, const char *target, bool copy,
                                             const mir_storage_watch *watch,
                                             mir_storage_saved *saved, mir_error *error);
/* Into a directory that is empty or not there. MIR_E_NOT_FOUND: no complete backup; _CORRUPT: a file is
 * not what the backup's list says; _EXISTS: the data directory is not empty. A server does not start
 * on a directory whose restore did not finish. */
MIR_MUST_CHECK mir_status mir_storage_restore(const char *backup, const char *data,
                                              const mir_storage_watch *watch,
                                              mir_storage_saved *saved, mir_error *error);

typedef struct mir_storage_repaired {
    uint64_t steps;     /* how often the watch was told what is done; 0: nothing is damaged */
    uint64_t lost;      /* and of a loss */
    uint64_t rows_lost; /* where it is known how many */
    uint64_t rows_kept; /* of damaged files */
    uint64_t beyond;    /* what cannot be repaired: of a backup it can be restored */
} mir_storage_repaired;

/* Makes a data directory that opens again out of one that is damaged, with all rows that can be read.
 * The watch's `damage` is told what is lost. Files that are replaced stay in MIR_STORAGE_DAMAGED. `dry`:
 * changes nothing and says what it would do. As root it works as the directory's owner.
 * MIR_E_EXISTS: a server runs on it; _INVALID: see mir_storage_servable; _UNSUPPORTED: a file of a newer
 * version. After a failure, or when it was killed, it can be run again. */
MIR_MUST_CHECK mir_status mir_storage_repair(const char *data, bool dry,
                                             const mir_storage_watch *watch,
                                             mir_storage_repaired *repaired, mir_error *error);

#endif
