/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_file: every call by which the telemetry log touches the disk.
 *
 * Why        One table of functions, so that tests put a disk behind it that is full, fails, tears
 *            writes and loses power at any call.
 * Ownership  A handle belongs to who opened it until close.
 * Affinity   Any thread; calls on one handle may come from several threads at once.
 * Errors     Each returns 0 or a count, or a negative errno value. pread and pwrite may be short;
 *            the mir_tlog_file_* helpers continue until all is done. */
#ifndef MIR_TLOG_FILE_H
#define MIR_TLOG_FILE_H

#include "mir_status.h"
#include "mir_tlog_code.h"
#include "mir_view.h"

enum { MIR_TLOG_PATH_BYTES_MAX = 1024 };

typedef struct mir_tlog_files {
    void *context;
    int (*make_directory)(void *context, const char *path);
    /* Keeps other processes out until the handle is closed; -EWOULDBLOCK when one is there. */
    int (*lock)(void *context, const char *path, int *handle);
    int (*create)(void *context, const char *path, int *handle); /* -EEXIST when it is there */
    int (*open)(void *context, const char *path, int *handle);   /* to read */
    int (*close)(void *context, int handle);
    int64_t (*pread)(void *context, int handle, void *data, size_t size, uint64_t offset);
    int64_t (*pwrite)(void *context, int handle, const void *data, size_t size, uint64_t offset);
    /* Room for so many bytes from the first on, where that can be had beforehand; never less than is
     * there already. Another thread may write meanwhile. */
    int (*allocate)(void *context, int handle, uint64_t size);
    int (*size)(void *context, int handle, uint64_t *size);
    /* The next piece at or behind `from` that is not known to be zeros; -ENXIO when there is none. Who
     * cannot tell says all of it. */
    int (*data)(void *context, int handle, uint64_t from, uint64_t *start, uint64_t *end);
    int (*sync)(void *context, int handle);
    int (*sync_directory)(void *context, const char *path);
    /* How much more the file system of a directory takes, and its size. */
    int (*free_bytes)(void *context, const char *path, uint64_t *bytes, uint64_t *size);
    int (*rename)(void *context, const char *from, const char *to);
    int (*unlink)(void *context, const char *path);
    int (*link)(void *context, const char *from, const char *to); /* a second name of one file */
    /* Calls `each` with every name in the directory until it returns other than 0. */
    int (*list)(void *context, const char *path, int (*each)(void *each_context, const char *name),
                void *each_context);
} mir_tlog_files;

extern const mir_tlog_files mir_tlog_files_posix;

/* All of it, or -errno; -ENODATA when the file ends before. */
int mir_tlog_file_read(const mir_tlog_files *files, int handle, void *data, size_t size,
                       uint64_t offset);
/* The same, but what the disk cannot read is zeros, and *unread counts their bytes: for who takes only
 * what a checksum proves. */
int mir_tlog_file_salvage(const mir_tlog_files *files, int handle, void *data, size_t size,
                          uint64_t offset, uint64_t *unread);
int mir_tlog_file_write(const mir_tlog_files *files, int handle, const void *data, size_t size,
                        uint64_t offset);

/* MIR_E_UNSUPPORTED, with what to do about a file of a version that is not read. */
mir_status mir_tlog_version_refuse(mir_error *error, const char *what, uint32_t version,
                                   uint32_t newest);
/* All of a file, which the caller frees. MIR_E_NOT_FOUND, _TOO_LARGE (over bytes_max, without a text),
 * _IO, _NO_MEMORY. */
MIR_MUST_CHECK mir_status mir_tlog_file_load(const mir_tlog_files *files, const char *path,
                                             uint64_t bytes_max, uint8_t **bytes, size_t *size,
                                             mir_error *error);
/* Replaces a file of a directory as a whole: a crash leaves it or the one before. *in_doubt: it
 * failed so late that the new one may be what a crash leaves. */
MIR_MUST_CHECK mir_status mir_tlog_file_replace(const mir_tlog_files *files, const char *directory,
                                                const char *name, mir_view bytes, bool *in_doubt,
                                                mir_error *error);

/* A small file that is replaced as a whole: 8 bytes of magic, version, size, checksum, payload.
 * MIR_E_CORRUPT, _UNSUPPORTED (another version), with a text that begins with `what`. */
enum { MIR_TLOG_WHOLE_HEADER_BYTES = 24 };
MIR_MUST_CHECK mir_status mir_tlog_whole_parse(mir_view bytes, const uint8_t *magic,
                                               uint32_t version, const char *what,
                                               mir_tlog_reader *payload, mir_error *error);
/* Fills in the header, for which `bytes` begins with room. */
void mir_tlog_whole_end(mir_bytes *bytes, const uint8_t *magic, uint32_t version);

#endif
