/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_sim: a disk in memory that fails and loses power on demand; for tests alone.
 *
 * Why        Whether the telemetry log survives a full disk or a power cut must not depend on luck.
 *            Faults: any call of chosen kinds fails with a chosen error, once or from then on;
 *            reads and writes are short; at a power cut every unsynced write is kept or lost by sectors of 512
 *            bytes, each by itself, and unsynced changes of the directory end at a random point.
 * Ownership  The caller owns the disk, and frees it when nothing uses it.
 * Affinity   Any thread; a mutex serializes calls. power_cut: when nothing else runs.
 * Bounds     128 files and handles.
 * Errors     Negative errno values, as mir_tlog_file.h says. */
#ifndef MIR_TLOG_SIM_H
#define MIR_TLOG_SIM_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mir_assert.h"
#include "mir_tlog_file.h"

enum { SIM_FILES_MAX = 256, SIM_SECTOR = 512 };

typedef enum sim_call {
    SIM_CREATE = 1 << 0,
    SIM_WRITE = 1 << 1,
    SIM_ALLOCATE = 1 << 2,
    SIM_SYNC = 1 << 3,
    SIM_SYNC_DIRECTORY = 1 << 4,
    SIM_RENAME = 1 << 5,
    SIM_UNLINK = 1 << 6,
    SIM_OPEN = 1 << 7,
    SIM_READ = 1 << 8,
    SIM_SIZE = 1 << 9,
    SIM_LIST = 1 << 10,
    SIM_CHANGES = (1 << 7) - 1,
    SIM_CALLS = (1 << 11) - 1,
} sim_call;

typedef struct sim_write {
    uint64_t offset;
    size_t size;
    uint8_t *data;
} sim_write;

typedef struct sim_inode {
    uint8_t *data;
    uint64_t size;
    uint8_t *durable;
    uint64_t durable_size;
    sim_write *pending;
    uint32_t pending_count;
} sim_inode;

typedef struct sim_entry {
    char name[64];
    sim_inode *inode;
} sim_entry;

typedef struct sim_directory {
    sim_entry entries[SIM_FILES_MAX];
    uint32_t count;
} sim_directory;

typedef struct sim_disk {
    pthread_mutex_t mutex;
    mir_tlog_files files;
    sim_directory now;
    sim_directory *steps; /* the directory after each unsynced change; [0]: what is durable */
    uint32_t step_count;
    sim_inode *inodes[4096];
    uint32_t inode_count;
    sim_inode *handles[SIM_FILES_MAX];
    uint64_t random;
    uint32_t fail_calls; /* of sim_call: which are counted and may fail */
    uint64_t calls;      /* of these, so far */
    uint64_t fail_at;    /* the one that fails, counted from 1; 0: none */
    uint64_t fail_count; /* so many from there on */
    uint64_t failed;     /* how many did */
    int fail_errno;
    bool short_writes;
    bool short_reads;
    atomic_ullong free_bytes;
    atomic_ullong disk_bytes;
} sim_disk;

static inline uint64_t sim_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline const char *sim_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static inline sim_entry *sim_find(sim_disk *disk, const char *path)
{
    for (uint32_t i = 0; i < disk->now.count; i++) {
        if (strcmp(disk->now.entries[i].name, sim_name(path)) == 0) return &disk->now.entries[i];
    }
    return NULL;
}

/* True when this call is the one to fail. */
static inline bool sim_fails(sim_disk *disk, sim_call call)
{
    if ((disk->fail_calls & call) == 0) return false;
    disk->calls++;
    if (disk->fail_at == 0 || disk->calls < disk->fail_at ||
        disk->calls - disk->fail_at >= disk->fail_count) {
        return false;
    }
    disk->failed++;
    return true;
}

static inline void sim_step(sim_disk *disk)
{
    disk->steps = realloc(disk->steps, (disk->step_count + 1) * sizeof *disk->steps);
    disk->steps[disk->step_count++] = disk->now;
}

static inline int sim_handle(sim_disk *disk, sim_inode *inode, int *handle)
{
    for (int i = 0; i < SIM_FILES_MAX; i++) {
        if (disk->handles[i] == NULL) {
            disk->handles[i] = inode;
            *handle = i;
            return 0;
        }
    }
    return -EMFILE;
}

/* Between two looks at a condition, or until a random instant. */
static inline void sim_pause_us(int64_t microseconds)
{
    struct timespec pause = {.tv_sec = microseconds / 1000000,
                             .tv_nsec = microseconds % 1000000 * 1000};
    (void)nanosleep(&pause, NULL);
}

#define SIM_ENTER(disk)                                                                            \
    sim_disk *(disk) = (context);                                                                  \
    (void)pthread_mutex_lock(&(disk)->mutex)
#define SIM_RETURN(disk, value)                                                                    \
    do {                                                                                           \
        (void)pthread_mutex_unlock(&(disk)->mutex);                                                \
        return (value);                                                                            \
    } while (0)

static inline int sim_make_directory(void *context, const char *path)
{
    (void)context;
    (void)path;
    return 0;
}

static inline sim_inode *sim_inode_new(sim_disk *disk)
{
    sim_inode *inode = calloc(1, sizeof *inode);
    disk->inodes[disk->inode_count++] = inode;
    return inode;
}

static inline int sim_create(void *context, const char *path, int *handle)
{
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_CREATE)) SIM_RETURN(disk, -disk->fail_errno);
    if (sim_find(disk, path) != NULL) SIM_RETURN(disk, -EEXIST);
    if (disk->now.count == SIM_FILES_MAX || disk->inode_count == 4096) SIM_RETURN(disk, -EMFILE);
    sim_entry *entry = &disk->now.entries[disk->now.count++];
    (void)snprintf(entry->name, sizeof entry->name, "%s", sim_name(path));
    entry->inode = sim_inode_new(disk);
    sim_step(disk);
    const int result = sim_handle(disk, entry->inode, handle);
    SIM_RETURN(disk, result);
}

static inline int sim_open(void *context, const char *path, int *handle)
{
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_OPEN)) SIM_RETURN(disk, -disk->fail_errno);
    const sim_entry *entry = sim_find(disk, path);
    if (entry == NULL) SIM_RETURN(disk, -ENOENT);
    const int result = sim_handle(disk, entry->inode, handle);
    SIM_RETURN(disk, result);
}

static inline int sim_lock(void *context, const char *path, int *handle)
{
    (void)path;
    SIM_ENTER(disk);
    const int result = sim_handle(disk, sim_inode_new(disk), handle);
    SIM_RETURN(disk, result);
}

static inline int sim_close(void *context, int handle)
{
    SIM_ENTER(disk);
    disk->handles[handle] = NULL;
    SIM_RETURN(disk, 0);
}

static inline int64_t sim_pread(void *context, int handle, void *data, size_t size, uint64_t offset)
{
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_READ)) SIM_RETURN(disk, -disk->fail_errno);
    const sim_inode *inode = disk->handles[handle];
    if (offset >= inode->size) SIM_RETURN(disk, 0);
    if (size > inode->size - offset) size = (size_t)(inode->size - offset);
    if (disk->short_reads && size > 1) size = 1 + sim_random(&disk->random) % (size - 1);
    memcpy(data, inode->data + offset, size);
    SIM_RETURN(disk, (int64_t)size);
}

static inline void sim_grow(sim_inode *inode, uint64_t size)
{
    if (size <= inode->size) return;
    inode->data = realloc(inode->data, size);
    memset(inode->data + inode->size, 0, size - inode->size);
    inode->size = size;
}

static inline int64_t sim_pwrite(void *context, int handle, const void *data, size_t size,
                                 uint64_t offset)
{
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_WRITE)) SIM_RETURN(disk, -disk->fail_errno);
    sim_inode *inode = disk->handles[handle];
    if (disk->short_writes && size > 1) size = 1 + sim_random(&disk->random) % (size - 1);
    sim_grow(inode, offset + size);
    memcpy(inode->data + offset, data, size);
    inode->pending = realloc(inode->pending, (inode->pending_count + 1) * sizeof *inode->pending);
    sim_write *pending = &inode->pending[inode->pending_count++];
    *pending = (sim_write){.offset = offset, .size = size, .data = malloc(size)};
    memcpy(pending->data, data, size);
    SIM_RETURN(disk, (int64_t)size);
}

static inline int sim_allocate(void *context, int handle, uint64_t size)
{
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_ALLOCATE)) SIM_RETURN(disk, -disk->fail_errno);
    sim_grow(disk->handles[handle], size);
    SIM_RETURN(disk, 0);
}

static inline int sim_free_bytes(void *context, const char *path, uint64_t *bytes, uint64_t *size)
{
    (void)path;
    sim_disk *disk = context;
    *bytes = atomic_load(&disk->free_bytes);
    *size = atomic_load(&disk->disk_bytes);
    return 0;
}

static inline int sim_size(void *context, int handle, uint64_t *size)
{
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_SIZE)) SIM_RETURN(disk, -disk->fail_errno);
    *size = disk->handles[handle]->size;
    SIM_RETURN(disk, 0);
}

/* By sectors, as a file system does by blocks. */
static inline int sim_data(void *context, int handle, uint64_t from, uint64_t *start, uint64_t *end)
{
    SIM_ENTER(disk);
    const sim_inode *inode = disk->handles[handle];
    while (from < inode->size && inode->data[from] == 0) from++;
    if (from >= inode->size) SIM_RETURN(disk, -ENXIO);
    *start = from / SIM_SECTOR * SIM_SECTOR;
    bool zeros = false;
    for (*end = *start; *end < inode->size && !zeros;) {
        uint64_t next = *end + SIM_SECTOR;
        if (next > inode->size) next = inode->size;
        zeros = true;
        for (uint64_t i = *end; i < next && zeros; i++) zeros = inode->data[i] == 0;
        if (!zeros) *end = next;
    }
    SIM_RETURN(disk, 0);
}

static inline void sim_forget_pending(sim_inode *inode)
{
    for (uint32_t i = 0; i < inode->pending_count; i++) free(inode->pending[i].data);
    free(inode->pending);
    inode->pending = NULL;
    inode->pending_count = 0;
}

static inline int sim_sync(void *context, int handle)
{
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_SYNC)) SIM_RETURN(disk, -disk->fail_errno);
    sim_inode *inode = disk->handles[handle];
    if (inode->durable_size != inode->size) {
        inode->durable = realloc(inode->durable, inode->size);
        memset(inode->durable + inode->durable_size, 0, inode->size - inode->durable_size);
        inode->durable_size = inode->size;
    }
    for (uint32_t i = 0; i < inode->pending_count; i++) {
        const sim_write *pending = &inode->pending[i];
        memcpy(inode->durable + pending->offset, pending->data, pending->size);
    }
    sim_forget_pending(inode);
    SIM_RETURN(disk, 0);
}

static inline int sim_sync_directory(void *context, const char *path)
{
    (void)path;
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_SYNC_DIRECTORY)) SIM_RETURN(disk, -disk->fail_errno);
    disk->steps[0] = disk->now;
    disk->step_count = 1;
    SIM_RETURN(disk, 0);
}

static inline void sim_remove(sim_disk *disk, sim_entry *entry)
{
    *entry = disk->now.entries[--disk->now.count];
}

static inline int sim_rename(void *context, const char *from, const char *to)
{
    SIM_ENTER(disk);
    if (sim_fails(disk, SIM_RENAME)) SIM_RETURN(disk, -disk->fail_errno);
    sim_entry *target = sim_find(disk, to);
    if (target != NULL) sim_remove(disk, target);
    sim_entry *entry = sim_find(disk, from);
    if (entry == NULL) SIM_RETURN(disk, -ENOENT);
    (void)snprintf(entry->name, sizeof entry->name, "%s", sim_name(to));
    sim_step(disk);
    SIM_RETURN(disk, 0);
}

static inline int sim_unlink(void *context, const char *path)
{
    SIM_ENTER(disk);
    sim_entry *entry = sim_find(disk, path);
    if (entry == NULL) SIM_RETURN(disk, -ENOENT);
    if (sim_fails(disk, SIM_UNLINK)) SIM_RETURN(disk, -disk->fail_errno);
    sim_remove(disk, entry);
    sim_step(disk);
    SIM_RETURN(disk, 0);
}

static inline int sim_list(void *context, const char *path,
                           int (*each)(void *each_context, const char *name), void *each_context)
{
    (void)path;
    sim_disk *disk = context;
    (void)pthread_mutex_lock(&disk->mutex);
    int result = sim_fails(disk, SIM_LIST) ? -disk->fail_errno : 0;
    sim_directory *copy = malloc(sizeof *copy);
    *copy = disk->now;
    (void)pthread_mutex_unlock(&disk->mutex);
    for (uint32_t i = 0; i < copy->count && result == 0; i++) {
        result = each(each_context, copy->entries[i].name);
    }
    free(copy);
    return result;
}

static inline sim_disk *sim_disk_new(uint64_t seed)
{
    sim_disk *disk = calloc(1, sizeof *disk);
    (void)pthread_mutex_init(&disk->mutex, NULL);
    disk->random = seed;
    disk->fail_calls = SIM_CHANGES;
    disk->fail_errno = ENOSPC;
    atomic_init(&disk->free_bytes, UINT64_MAX);
    atomic_init(&disk->disk_bytes, UINT64_MAX);
    disk->files = (mir_tlog_files){.context = disk,
                                   .make_directory = sim_make_directory,
                                   .lock = sim_lock,
                                   .create = sim_create,
                                   .open = sim_open,
                                   .close = sim_close,
                                   .pread = sim_pread,
                                   .pwrite = sim_pwrite,
                                   .allocate = sim_allocate,
                                   .size = sim_size,
                                   .data = sim_data,
                                   .sync = sim_sync,
                                   .sync_directory = sim_sync_directory,
                                   .free_bytes = sim_free_bytes,
                                   .rename = sim_rename,
                                   .unlink = sim_unlink,
                                   .list = sim_list};
    sim_step(disk);
    return disk;
}

static inline void sim_disk_free(sim_disk *disk)
{
    for (uint32_t i = 0; i < disk->inode_count; i++) {
        sim_forget_pending(disk->inodes[i]);
        free(disk->inodes[i]->data);
        free(disk->inodes[i]->durable);
        free(disk->inodes[i]);
    }
    free(disk->steps);
    (void)pthread_mutex_destroy(&disk->mutex);
    free(disk);
}

/* The disk as it might be found after the power went at this instant. `disk` itself goes on. */
static inline sim_disk *sim_power_cut(sim_disk *disk, uint64_t seed)
{
    (void)pthread_mutex_lock(&disk->mutex);
    sim_disk *after = sim_disk_new(seed);
    const sim_directory *kept = &disk->steps[sim_random(&after->random) % disk->step_count];
    for (uint32_t i = 0; i < kept->count; i++) {
        const sim_inode *from = kept->entries[i].inode;
        sim_inode *to = sim_inode_new(after);
        sim_grow(to, from->durable_size);
        if (from->durable_size > 0) memcpy(to->data, from->durable, from->durable_size);
        for (uint32_t w = 0; w < from->pending_count; w++) {
            const sim_write *pending = &from->pending[w];
            for (uint64_t at = pending->offset; at < pending->offset + pending->size;) {
                uint64_t end = (at / SIM_SECTOR + 1) * SIM_SECTOR;
                if (end > pending->offset + pending->size) end = pending->offset + pending->size;
                if ((sim_random(&after->random) & 1) != 0) {
                    sim_grow(to, end);
                    MIR_ASSERT(to->data != NULL);
                    memcpy(to->data + at, pending->data + (at - pending->offset), end - at);
                }
                at = end;
            }
        }
        to->durable = malloc(to->size + 1);
        if (to->size > 0) memcpy(to->durable, to->data, to->size);
        to->durable_size = to->size;
        after->now.entries[i] = kept->entries[i];
        after->now.entries[i].inode = to;
    }
    after->now.count = kept->count;
    after->steps[0] = after->now;
    (void)pthread_mutex_unlock(&disk->mutex);
    return after;
}

#endif
