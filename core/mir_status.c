/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *mir_status_name(mir_status status)
{
    switch (status) {
    case MIR_OK: return "ok";
    case MIR_E_INVALID: return "invalid";
    case MIR_E_TOO_LARGE: return "too large";
    case MIR_E_NOT_FOUND: return "not found";
    case MIR_E_EXISTS: return "already exists";
    case MIR_E_FULL: return "full";
    case MIR_E_EMPTY: return "empty";
    case MIR_E_AGAIN: return "try again";
    case MIR_E_NO_MEMORY: return "out of memory";
    case MIR_E_NO_SPACE: return "no space left";
    case MIR_E_IO: return "input/output error";
    case MIR_E_CORRUPT: return "corrupt";
    case MIR_E_UNSUPPORTED: return "unsupported";
    case MIR_E_PERMISSION: return "not permitted";
    case MIR_E_TIMEOUT: return "timed out";
    case MIR_E_CANCELLED: return "cancelled";
    case MIR_E_CLOSED: return "closed";
    case MIR_E_UNREACHABLE: return "unreachable";
    }
    return "unknown status";
}

mir_status mir_status_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0: return MIR_OK;
    case ENOENT: return MIR_E_NOT_FOUND;
    case EEXIST: return MIR_E_EXISTS;
    case ENOMEM: return MIR_E_NO_MEMORY;
    case ENOSPC:
    case EDQUOT: return MIR_E_NO_SPACE;
    case EACCES:
    case EPERM:
    case EROFS: return MIR_E_PERMISSION;
    case EINVAL: return MIR_E_INVALID;
    case EAGAIN: return MIR_E_AGAIN;
    case ECONNREFUSED:
    case ENETUNREACH:
    case EHOSTUNREACH: return MIR_E_UNREACHABLE;
    case ETIMEDOUT: return MIR_E_TIMEOUT;
    case ECONNRESET:
    case EPIPE: return MIR_E_CLOSED;
    default: return MIR_E_IO;
    }
}

mir_status mir_error_set(mir_error *error, mir_status status, const char *format, ...)
{
    if (error != NULL) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return status;
}

mir_status mir_error_os(mir_error *error, int errno_value, const char *format, ...)
{
    if (error != NULL) {
        va_list args;
        va_start(args, format);
        int used = vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof error->text) {
            char buffer[128];
            (void)snprintf(error->text + used, sizeof error->text - (size_t)used, ": %s",
                           strerror_r(errno_value, buffer, sizeof buffer));
        }
    }
    return mir_status_from_errno(errno_value);
}

void mir_error_wrap(mir_error *error, const char *format, ...)
{
    if (error == NULL) return;
    char old[MIR_ERROR_TEXT_BYTES_MAX];
    memcpy(old, error->text, sizeof old);
    old[sizeof old - 1] = '\0';
    va_list args;
    va_start(args, format);
    int used = vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof error->text)
        (void)snprintf(error->text + used, sizeof error->text - (size_t)used, ": %s", old);
}
