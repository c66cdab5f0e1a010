/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_journal: which commands with an id this device has begun, and what it answered.
 *
 * Why        A server that did not hear an answer sends a command with an id again. Whatever
 *            happened in between (a lost answer, kill -9, a power cut), the handler must not run
 *            twice: the id is on the disk before the handler is called.
 *
 *                never seen ──begin──► running ──finish──► answered: the answer is given again
 *                                         │
 *                                         └─ the process ended ─► unknown: begun, no more is known
 *
 * Ownership  The struct is the caller's, its content the journal's until _close. Ids and answers
 *            are copied.
 * Affinity   Any thread; _open and _close by one, with no other about.
 * Bounds     The latest MIR_DEVICE_JOURNAL_IDS_MAX ids. Answers of up to
 *            MIR_DEVICE_JOURNAL_ANSWER_BYTES_MAX bytes are kept, all together
 *            MIR_DEVICE_JOURNAL_ANSWERS_BYTES_MAX; an id whose answer is not kept is unknown. The
 *            file is rewritten when more than half of it is of no use.
 * Errors     _open: MIR_E_EXISTS (another process has the directory), MIR_E_CORRUPT,
 *            MIR_E_UNSUPPORTED (a newer version), MIR_E_INVALID, MIR_E_TOO_LARGE and what the disk
 *            says, with a text. A command that cannot be recorded must not run: _begin says why.
 *            Without a directory everything is in memory, and nothing can fail but memory.
 * Source     docs/formats/device-state.md */
#ifndef MIR_DEVICE_JOURNAL_H
#define MIR_DEVICE_JOURNAL_H

#include <pthread.h>

#include "mir_bytes.h"

enum {
    MIR_DEVICE_COMMAND_ID_BYTES_MAX = 64,
    MIR_DEVICE_JOURNAL_IDS_MAX = 4096,
    MIR_DEVICE_JOURNAL_NAME_BYTES_MAX = 1024,
    MIR_DEVICE_JOURNAL_ANSWER_BYTES_MAX = 256 << 10,
    MIR_DEVICE_JOURNAL_ANSWERS_BYTES_MAX = 8 << 20,
    MIR_DEVICE_JOURNAL_FILE_BYTES_MAX = 64 << 20,
    MIR_DEVICE_JOURNAL_WAITERS_MAX = 16, /* requests that wait for one command that runs */
};

/* Who else is to be answered when a command that runs is through. */
typedef struct mir_device_waiter {
    struct mir_device_waiter *next;
    bool zstd;
    char to[];
} mir_device_waiter;

typedef enum mir_device_verdict {
    MIR_DEVICE_RUN = 0,  /* never seen: run it now, then _finish */
    MIR_DEVICE_ANSWERED, /* it ran; `answer` is what it answered */
    MIR_DEVICE_RUNNING,  /* it runs; the request is answered with it */
    MIR_DEVICE_UNKNOWN,  /* it was begun, and its answer is not known */
} mir_device_verdict;

typedef struct mir_device_answer {
    char *name; /* of the message; null: none */
    mir_bytes bytes;
} mir_device_answer;

typedef struct mir_device_journal_entry {
    char id[MIR_DEVICE_COMMAND_ID_BYTES_MAX + 1];
    mir_device_verdict state; /* RUNNING, ANSWERED or UNKNOWN */
    uint64_t hash;
    mir_device_answer answer;
    mir_device_waiter *waiters;
} mir_device_journal_entry;

typedef struct mir_device_journal {
    pthread_mutex_t lock; /* initialized statically, so nothing is to be destroyed */
    /* In a ring, oldest first. */
    mir_device_journal_entry *entries;
    size_t capacity;
    size_t first;
    size_t count;
    size_t answer_bytes;
    /* On the disk; dir is null without one. */
    char *dir;
    int lock_fd;
    int fd;
    uint64_t seed;
    uint64_t file_size;
    uint64_t live_size; /* of the file, were it rewritten now */
    bool outdated;      /* not what the table says, or a write failed: rewritten before more */
    uint64_t damaged;   /* bytes that made no sense when the file was opened */
} mir_device_journal;

/* Empty, in memory; may be closed. */
void mir_device_journal_init(mir_device_journal *journal);
/* Opens an empty one. `state_dir` null: memory alone. Else <state_dir>/<device id> is made if need be. */
MIR_MUST_CHECK mir_status mir_device_journal_open(mir_device_journal *journal,
                                                  const char *state_dir, const char *device_id,
                                                  mir_error *error);
/* Frees everything and leaves it as _init does. */
void mir_device_journal_close(mir_device_journal *journal);

/* 1 to 64 bytes without blanks and control characters. */
MIR_MUST_CHECK mir_status mir_device_journal_check_id(const char *id);

/* Says what to do about a command, and records it as begun when that is to run it. `to` (may be
 * null) and `zstd` are kept for MIR_DEVICE_RUNNING. The caller frees `answer`. */
MIR_MUST_CHECK mir_status mir_device_journal_begin(mir_device_journal *journal, const char *id,
                                                   const char *to, bool zstd,
                                                   mir_device_verdict *verdict,
                                                   mir_device_answer *answer, mir_error *error);
/* Records the answer of a command that ran. Not MIR_OK: it is remembered only as long as the
 * process lives. In both cases `waiters` (to be freed) want the answer, too. */
MIR_MUST_CHECK mir_status mir_device_journal_finish(mir_device_journal *journal, const char *id,
                                                    const char *name, mir_view bytes,
                                                    mir_device_waiter **waiters, mir_error *error);

void mir_device_answer_free(mir_device_answer *answer);

/* ---- The file, for tests ---- */

/* Takes in what a file says. Whatever cannot be read is counted in `damaged` and skipped. */
MIR_MUST_CHECK mir_status mir_device_journal_read(mir_device_journal *journal, mir_view file,
                                                  mir_error *error);
/* What a rewritten file says. */
void mir_device_journal_write(const mir_device_journal *journal, mir_bytes *file);

#endif
