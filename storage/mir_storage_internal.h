/* SPDX-License-Identifier: Apache-2.0 */
/* mir_storage_internal: what the parts of mir_storage share; nothing outside includes it. */
#ifndef MIR_STORAGE_INTERNAL_H
#define MIR_STORAGE_INTERNAL_H

#include <sys/types.h>

#include "mir_storage.h"
#include "mir_tlog_internal.h"

enum {
    MIR_STORAGE_PATH_BYTES_MAX = MIR_TLOG_PATH_BYTES_MAX,
    MIR_STORAGE_NAME_BYTES_MAX = 64,
    MIR_STORAGE_MEASUREMENT_BYTES_MAX = MIR_TLOG_MEASUREMENT_BYTES_MAX + 16,
};

/* The files of a telemetry directory that count, at one moment. */
typedef struct mir_storage_files {
    mir_tlog_manifest manifest; /* its list, or all segments that are there if it is lost */
    mir_status manifest_status; /* MIR_OK, _NOT_FOUND (no rows yet, or lost), _CORRUPT */
    mir_error manifest_error;
    uint64_t number_max;    /* of all of these files, those that are set aside among them */
    uint32_t segment_count; /* that are there */
    uint64_t *segments;
    uint32_t log_count; /* that are there and not sealed */
    uint64_t *logs;
    uint32_t set_aside; /* by a start, in files of these names: their rows are missing */
    char (*aside)[MIR_STORAGE_NAME_BYTES_MAX];
    bool manifest_lost; /* there are segments, but nothing says which of them count */
} mir_storage_files;

/* MIR_E_NOT_FOUND: there is no such directory; _UNSUPPORTED: the manifest is of a newer version. */
MIR_MUST_CHECK mir_status mir_storage_files_list(const char *telemetry, mir_storage_files *files,
                                                 mir_error *error);
void mir_storage_files_fini(mir_storage_files *files);
/* One moment of the telemetry log beside a server: what its manifest lists stays there, opened, although
 * the server merges it away. */
enum { MIR_STORAGE_HOLDS_MAX = 1000 };
typedef struct mir_storage_held {
    mir_storage_files files;
    int *handles; /* of the segments of the manifest, -1: it is missing, or cannot be opened */
} mir_storage_held;
/* One try: MIR_E_AGAIN when the manifest was replaced meanwhile. To be finished in any case. */
MIR_MUST_CHECK mir_status mir_storage_hold(const char *telemetry, mir_storage_held *held,
                                           mir_error *error);
mir_status mir_storage_hold_gives_up(mir_error *error);
void mir_storage_held_fini(mir_storage_held *held);
bool mir_storage_number_in(const uint64_t *numbers, uint32_t count, uint64_t number);

/* What rows came to is named by theirs: "m.v1.T (10m)"; `text` is used for that alone. */
mir_view mir_storage_measurement_shown(mir_view stored,
                                       char text[MIR_STORAGE_MEASUREMENT_BYTES_MAX]);

/* `<directory>/<name>`, MIR_STORAGE_PATH_BYTES_MAX bytes. */
MIR_MUST_CHECK mir_status mir_storage_path(char *path, const char *directory, const char *name,
                                           mir_error *error);
uint64_t mir_storage_file_bytes(const char *directory, const char *name);
/* A file's or a directory's own bytes are on the disk. */
MIR_MUST_CHECK mir_status mir_storage_sync(const char *path, mir_error *error);
/* The name of what says that not all of its files are there, of a restore or a backup that did not
 * finish, and in words; or null. */
const char *mir_storage_unfinished(const char *data, const char **text);
/* Somebody holds the lock of the data directory. */
bool mir_storage_served(const char *data);

/* Work on the state store in a child process, whose end by a signal is MIR_E_CORRUPT here. It writes
 * what it has to say to `out`. The process waits for nobody and ends when nobody reads. */
typedef mir_status (*mir_storage_state_fn)(const char *path, int out, mir_error *error);
typedef struct mir_storage_child {
    pid_t pid;
    int from; /* what it writes, to the end */
    int said; /* its status and text, behind the end of `from` */
} mir_storage_child;
MIR_MUST_CHECK mir_status mir_storage_child_begin(const char *path, mir_storage_state_fn work,
                                                  mir_storage_child *child, mir_error *error);
/* Closes `from`, which ends it if it still writes, and gives its status. */
MIR_MUST_CHECK mir_status mir_storage_child_end(mir_storage_child *child, mir_error *error);

/* The parts of that work. */
mir_status mir_storage_state_copy(const char *path, int out, mir_error *error);
mir_status mir_storage_state_check(const char *path, int out, mir_error *error);
/* Writes the count of proved links as 8 bytes; MIR_E_CORRUPT: the chain is broken. */
mir_status mir_storage_state_events(const char *path, int out, mir_error *error);

/* The list of a backup: lines of text, the last one with a checksum of the others. */
typedef struct mir_storage_entry {
    char name[MIR_STORAGE_NAME_BYTES_MAX]; /* "telemetry/0000000000000001.seg" */
    uint64_t size;
    bool hashed;
    uint64_t hash;
} mir_storage_entry;
typedef struct mir_storage_marker {
    int64_t at_ns;
    uint64_t bytes;
    uint32_t count;
    mir_storage_entry *entries;
} mir_storage_marker;
/* MIR_E_NOT_FOUND, _CORRUPT, _UNSUPPORTED. */
MIR_MUST_CHECK mir_status mir_storage_marker_read(const char *backup, mir_storage_marker *marker,
                                                  mir_error *error);
MIR_MUST_CHECK mir_status mir_storage_marker_parse(mir_view text, mir_storage_marker *marker,
                                                   mir_error *error);
void mir_storage_marker_format(const mir_storage_marker *marker, mir_bytes *text);
MIR_MUST_CHECK mir_status mir_storage_marker_add(mir_storage_marker *marker,
                                                 const mir_storage_entry *entry);
void mir_storage_marker_fini(mir_storage_marker *marker);

/* Reads a file to its end. MIR_E_CANCELLED when progress says so. */
typedef struct mir_storage_progress {
    const mir_storage_watch *watch;
    uint64_t done;
    uint64_t total;
} mir_storage_progress;
MIR_MUST_CHECK mir_status mir_storage_advance(mir_storage_progress *progress, uint64_t bytes,
                                              mir_error *error);
/* From where `from` stands to its end; `to` -1: only its hash. With `unread`, what the disk cannot read
 * of a file is zeros, and its bytes are added to that. */
MIR_MUST_CHECK mir_status mir_storage_pump(int from, int to, mir_storage_progress *progress,
                                           uint64_t *size, uint64_t *hash, uint64_t *unread,
                                           mir_error *error);
/* All of a log, which the caller frees; what the disk cannot read is zeros, and *unread counts it.
 * MIR_E_NOT_FOUND, _CORRUPT (larger than any log). */
MIR_MUST_CHECK mir_status mir_storage_log_bytes(const char *path, uint8_t **bytes, size_t *size,
                                                uint64_t *unread, mir_error *error);

/* Reads every chunk of a segment. Zeroed but for the file's name, the progress and what is to be called
 * with the context: `tell` with each damage (may be null), `keep` with each whole chunk (may be null;
 * what it returns ends the walk unless it is MIR_OK). The bytes are to be freed. */
typedef struct mir_storage_walk {
    const char *file; /* below the data directory */
    mir_storage_progress *progress;
    void *context;
    void (*tell)(void *context, const mir_storage_damage *damage);
    bool tells_spares; /* also damage to what is there twice, which costs no row */
    mir_status (*keep)(void *context, const mir_tlog_index_cursor *at, const mir_tlog_chunk *chunk,
                       mir_view bytes, mir_error *error);
    mir_bytes bytes;
    uint64_t damage;
    uint64_t chunks; /* that are whole */
    uint64_t rows;
    uint64_t chunks_listed;
    uint64_t rows_listed;
} mir_storage_walk;
MIR_MUST_CHECK mir_status mir_storage_walk_segment(mir_storage_walk *walk,
                                                   mir_tlog_segment *segment, mir_tlog_codec *codec,
                                                   mir_error *error);

#endif
