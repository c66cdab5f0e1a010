/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "mir_hash.h"

static int posix_make_directory(void *context, const char *path)
{
    (void)context;
    if (mkdir(path, 0700) == 0 || errno == EEXIST) return 0;
    return -errno;
}

static int posix_lock(void *context, const char *path, int *handle)
{
    (void)context;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        const int code = errno;
        (void)close(fd);
        return -code;
    }
    *handle = fd;
    return 0;
}

static int posix_create(void *context, const char *path, int *handle)
{
    (void)context;
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return -errno;
    *handle = fd;
    return 0;
}

static int posix_open(void *context, const char *path, int *handle)
{
    (void)context;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    *handle = fd;
    return 0;
}

static int posix_close(void *context, int handle)
{
    (void)context;
    return close(handle) == 0 ? 0 : -errno;
}

static int64_t posix_pread(void *context, int handle, void *data, size_t size, uint64_t offset)
{
    (void)context;
    const ssize_t count = pread(handle, data, size, (off_t)offset);
    return count < 0 ? -errno : count;
}

static int64_t posix_pwrite(void *context, int handle, const void *data, size_t size,
                            uint64_t offset)
{
    (void)context;
    const ssize_t count = pwrite(handle, data, size, (off_t)offset);
    return count < 0 ? -errno : count;
}

static int posix_allocate(void *context, int handle, uint64_t size)
{
    (void)context;
    int result;
    do {
        result = fallocate(handle, 0, 0, (off_t)size);
    } while (result != 0 && errno == EINTR);
    if (result == 0) return 0;
    /* A file system without reservations: a full disk is then found by the write itself. */
    return errno == EOPNOTSUPP ? 0 : -errno;
}

static int posix_free_bytes(void *context, const char *path, uint64_t *bytes, uint64_t *size)
{
    (void)context;
    struct statvfs info;
    if (statvfs(path, &info) != 0) return -errno;
    *bytes = (uint64_t)info.f_bavail * info.f_frsize;
    *size = (uint64_t)info.f_blocks * info.f_frsize;
    return 0;
}

static int posix_size(void *context, int handle, uint64_t *size)
{
    (void)context;
    struct stat info;
    if (fstat(handle, &info) != 0) return -errno;
    *size = (uint64_t)info.st_size;
    return 0;
}

static int posix_data(void *context, int handle, uint64_t from, uint64_t *start, uint64_t *end)
{
    uint64_t size = 0;
    const int result = posix_size(context, handle, &size);
    if (result < 0) return result;
    if (from >= size) return -ENXIO;
    *start = from;
    *end = size;
    const off_t first = lseek(handle, (off_t)from, SEEK_DATA);
    if (first < 0) return errno == ENXIO ? -ENXIO : 0; /* perhaps it has no holes to tell of */
    *start = (uint64_t)first;
    const off_t hole = lseek(handle, first, SEEK_HOLE);
    if (hole > first && (uint64_t)hole < size) *end = (uint64_t)hole;
    return 0;
}

static int posix_sync(void *context, int handle)
{
    (void)context;
    return fdatasync(handle) == 0 ? 0 : -errno;
}

static int posix_sync_directory(void *context, const char *path)
{
    (void)context;
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    const int result = fsync(fd) == 0 ? 0 : -errno;
    (void)close(fd);
    return result;
}

static int posix_rename(void *context, const char *from, const char *to)
{
    (void)context;
    return rename(from, to) == 0 ? 0 : -errno;
}

static int posix_link(void *context, const char *from, const char *to)
{
    (void)context;
    return link(from, to) == 0 ? 0 : -errno;
}

static int posix_unlink(void *context, const char *path)
{
    (void)context;
    return unlink(path) == 0 ? 0 : -errno;
}

static int posix_list(void *context, const char *path,
                      int (*each)(void *each_context, const char *name), void *each_context)
{
    (void)context;
    DIR *directory = opendir(path);
    if (directory == NULL) return -errno;
    int result = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (entry == NULL) {
            result = -errno;
            break;
        }
        if (entry->d_name[0] == '.') continue;
        result = each(each_context, entry->d_name);
        if (result != 0) break;
    }
    (void)closedir(directory);
    return result;
}

const mir_tlog_files mir_tlog_files_posix = {
    .make_directory = posix_make_directory,
    .lock = posix_lock,
    .create = posix_create,
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pwrite = posix_pwrite,
    .allocate = posix_allocate,
    .size = posix_size,
    .data = posix_data,
    .sync = posix_sync,
    .sync_directory = posix_sync_directory,
    .free_bytes = posix_free_bytes,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .link = posix_link,
    .list = posix_list,
};

int mir_tlog_file_read(const mir_tlog_files *files, int handle, void *data, size_t size,
                       uint64_t offset)
{
    uint8_t *to = data;
    while (size > 0) {
        const int64_t count = files->pread(files->context, handle, to, size, offset);
        if (count == -EINTR) continue;
        if (count < 0) return (int)count;
        if (count == 0) return -ENODATA;
        to += count;
        offset += (uint64_t)count;
        size -= (size_t)count;
    }
    return 0;
}

int mir_tlog_file_salvage(const mir_tlog_files *files, int handle, void *data, size_t size,
                          uint64_t offset, uint64_t *unread)
{
    enum { PAGE_BYTES = 4096 }; /* a system reads no less of a disk */
    int result = mir_tlog_file_read(files, handle, data, size, offset);
    if (result != -EIO) return result;
    for (size_t at = 0; at < size;) {
        size_t part = PAGE_BYTES - (size_t)((offset + at) % PAGE_BYTES);
        if (part > size - at) part = size - at;
        uint8_t *to = (uint8_t *)data + at;
        result = mir_tlog_file_read(files, handle, to, part, offset + at);
        if (result < 0 && result != -EIO) return result;
        if (result < 0) {
            memset(to, 0, part);
            *unread += part;
        }
        at += part;
    }
    return 0;
}

int mir_tlog_file_write(const mir_tlog_files *files, int handle, const void *data, size_t size,
                        uint64_t offset)
{
    const uint8_t *from = data;
    while (size > 0) {
        const int64_t count = files->pwrite(files->context, handle, from, size, offset);
        if (count == -EINTR) continue;
        if (count < 0) return (int)count;
        if (count == 0) return -EIO;
        from += count;
        offset += (uint64_t)count;
        size -= (size_t)count;
    }
    return 0;
}

mir_status mir_tlog_version_refuse(mir_error *error, const char *what, uint32_t version,
                                   uint32_t newest)
{
    return mir_error_set(error, MIR_E_UNSUPPORTED,
                         "%s has format version %u, this program reads up to %u: %s", what, version,
                         newest,
                         version > newest ? "start the newer program that wrote it"
                                          : "no program wrote that; restore it from a backup");
}

mir_status mir_tlog_file_load(const mir_tlog_files *files, const char *path, uint64_t bytes_max,
                              uint8_t **bytes, size_t *size, mir_error *error)
{
    int handle;
    int result = files->open(files->context, path, &handle);
    if (result == -ENOENT) return MIR_E_NOT_FOUND;
    if (result < 0) return mir_error_os(error, -result, "open %s", path);
    uint64_t found = 0;
    uint8_t *read = NULL;
    mir_status status = MIR_OK;
    result = files->size(files->context, handle, &found);
    if (result == 0 && found > bytes_max) {
        status = MIR_E_TOO_LARGE;
    } else if (result == 0) {
        read = malloc(found + 1);
        if (read == NULL) {
            status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        } else {
            result = mir_tlog_file_read(files, handle, read, found, 0);
        }
    }
    if (result < 0) status = mir_error_os(error, -result, "read %s", path);
    (void)files->close(files->context, handle);
    if (status != MIR_OK) {
        free(read);
        return status;
    }
    *bytes = read;
    *size = (size_t)found;
    return MIR_OK;
}

mir_status mir_tlog_file_replace(const mir_tlog_files *files, const char *directory,
                                 const char *name, mir_view bytes, bool *in_doubt, mir_error *error)
{
    *in_doubt = false;
    char path[MIR_TLOG_PATH_BYTES_MAX];
    char temporary[MIR_TLOG_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    (void)snprintf(temporary, sizeof temporary, "%s/%s.tmp", directory, name);
    (void)files->unlink(files->context, temporary);
    int handle;
    const char *step = "create";
    int result = files->create(files->context, temporary, &handle);
    if (result == 0) {
        step = "write";
        result = mir_tlog_file_write(files, handle, bytes.data, bytes.size, 0);
        if (result == 0) {
            step = "sync";
            result = files->sync(files->context, handle);
        }
        (void)files->close(files->context, handle);
        if (result == 0) {
            step = "rename";
            result = files->rename(files->context, temporary, path);
        }
        if (result == 0) {
            step = "sync the directory of";
            result = files->sync_directory(files->context, directory);
            *in_doubt = result != 0;
        } else {
            (void)files->unlink(files->context, temporary);
        }
    }
    return result == 0 ? MIR_OK : mir_error_os(error, -result, "%s %s", step, temporary);
}

static uint64_t whole_hash(const uint8_t *bytes, size_t size)
{
    return XXH3_64bits_withSeed(bytes + MIR_TLOG_WHOLE_HEADER_BYTES,
                                size - MIR_TLOG_WHOLE_HEADER_BYTES, mir_tlog_get_u64(bytes + 8));
}

mir_status mir_tlog_whole_parse(mir_view bytes, const uint8_t *magic, uint32_t version,
                                const char *what, mir_tlog_reader *payload, mir_error *error)
{
    if (bytes.size < MIR_TLOG_WHOLE_HEADER_BYTES || memcmp(bytes.data, magic, 8) != 0 ||
        mir_tlog_get_u64(bytes.data + 16) != whole_hash(bytes.data, bytes.size) ||
        mir_tlog_get_u32(bytes.data + 12) != bytes.size - MIR_TLOG_WHOLE_HEADER_BYTES) {
        return mir_error_set(error, MIR_E_CORRUPT, "%s is damaged", what);
    }
    if (mir_tlog_get_u32(bytes.data + 8) != version) {
        return mir_tlog_version_refuse(error, what, mir_tlog_get_u32(bytes.data + 8), version);
    }
    *payload = mir_tlog_reader_of(bytes.data + MIR_TLOG_WHOLE_HEADER_BYTES,
                                  bytes.size - MIR_TLOG_WHOLE_HEADER_BYTES);
    return MIR_OK;
}

void mir_tlog_whole_end(mir_bytes *bytes, const uint8_t *magic, uint32_t version)
{
    memcpy(bytes->data, magic, 8);
    (void)mir_tlog_put_u32(bytes->data + 8, version);
    (void)mir_tlog_put_u32(bytes->data + 12, (uint32_t)(bytes->size - MIR_TLOG_WHOLE_HEADER_BYTES));
    (void)mir_tlog_put_u64(bytes->data + 16, whole_hash(bytes->data, bytes->size));
}
