/* SPDX-License-Identifier: Apache-2.0 */
/* mir_status: the outcome of a function, and the text that a person reads about it.
 *
 * Why        A result leaves through a pointer and the outcome through the return value, so that it
 *            cannot be mistaken for a value. A text is written where a human decides on it.
 * Ownership  Values; mir_error is a fixed buffer owned by the caller.
 * Affinity   Any thread.
 * Bounds     Texts are cut at MIR_ERROR_TEXT_BYTES_MAX - 1 bytes.
 * Errors     None. */
#ifndef MIR_STATUS_H
#define MIR_STATUS_H

#define MIR_MUST_CHECK        __attribute__((warn_unused_result))
#define MIR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

typedef enum mir_status {
    MIR_OK = 0,
    MIR_E_INVALID,   /* malformed input or argument */
    MIR_E_TOO_LARGE, /* over a configured bound */
    MIR_E_NOT_FOUND,
    MIR_E_EXISTS,
    MIR_E_FULL, /* a bounded queue or table has no room */
    MIR_E_EMPTY,
    MIR_E_AGAIN, /* incomplete, or would block: call again later */
    MIR_E_NO_MEMORY,
    MIR_E_NO_SPACE, /* disk or map full */
    MIR_E_IO,
    MIR_E_CORRUPT, /* stored bytes fail their checksum or shape */
    MIR_E_UNSUPPORTED,
    MIR_E_PERMISSION,
    MIR_E_TIMEOUT,
    MIR_E_CANCELLED,
    MIR_E_CLOSED,
    MIR_E_UNREACHABLE, /* nobody answers at the other end */
} mir_status;

enum { MIR_ERROR_TEXT_BYTES_MAX = 512 };

typedef struct mir_error {
    char text[MIR_ERROR_TEXT_BYTES_MAX];
} mir_error;

const char *mir_status_name(mir_status status);
mir_status mir_status_from_errno(int errno_value);

/* Writes a text and returns `status`, for `return mir_error_set(...)`. `error` may be null. */
mir_status mir_error_set(mir_error *error, mir_status status, const char *format, ...)
    MIR_PRINTF(3, 4);
/* The same with ": <strerror>" appended; the status comes from errno_value. */
mir_status mir_error_os(mir_error *error, int errno_value, const char *format, ...)
    MIR_PRINTF(3, 4);
/* Puts "<context>: " before the text that is there. */
void mir_error_wrap(mir_error *error, const char *format, ...) MIR_PRINTF(2, 3);

#endif
