/* SPDX-License-Identifier: Apache-2.0 */
/* One file in memory, to be read by whatever name it is opened. */
#ifndef FUZZ_FILE_H
#define FUZZ_FILE_H

#include "mir_tlog_file.h"

typedef struct one_file {
    const uint8_t *data;
    size_t size;
} one_file;

static inline int file_open(void *context, const char *path, int *handle)
{
    (void)context;
    (void)path;
    *handle = 1;
    return 0;
}

static inline int file_close(void *context, int handle)
{
    (void)context;
    (void)handle;
    return 0;
}

static inline int64_t file_pread(void *context, int handle, void *data, size_t size,
                                 uint64_t offset)
{
    const one_file *file = context;
    (void)handle;
    if (offset >= file->size) return 0;
    if (size > file->size - offset) size = file->size - (size_t)offset;
    memcpy(data, file->data + offset, size);
    return (int64_t)size;
}

static inline int file_size(void *context, int handle, uint64_t *size)
{
    const one_file *file = context;
    (void)handle;
    *size = file->size;
    return 0;
}

static inline mir_tlog_files file_table(one_file *file)
{
    return (mir_tlog_files){.context = file,
                            .open = file_open,
                            .close = file_close,
                            .pread = file_pread,
                            .size = file_size};
}

#endif
