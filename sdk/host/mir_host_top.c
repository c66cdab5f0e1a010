/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_host_top.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mir_clock.h"

typedef struct reading {
    mir_host_process *items;
    size_t count;
    size_t capacity;
} reading;

static bool read_process(int proc, const char *pid, mir_host_process *process)
{
    char name[32];
    char text[1024]; /* 52 numbers and a name of 64 bytes fit twice */
    (void)snprintf(name, sizeof name, "%s/stat", pid);
    int fd = openat(proc, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false; /* it ended */
    ssize_t size = read(fd, text, sizeof text);
    (void)close(fd);
    return size > 0 && mir_host_parse_process(mir_view_of(text, (size_t)size), process) == MIR_OK;
}

static bool is_pid(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    return digits > 0 && digits <= 10 && name[digits] == '\0';
}

MIR_MUST_CHECK static mir_status read_all(const char *proc, reading *all, mir_error *error)
{
    DIR *dir = opendir(proc);
    if (dir == NULL) return mir_error_os(error, errno, "open %.300s", proc);
    mir_status status = MIR_OK;
    for (struct dirent *entry; all->count < MIR_HOST_PROCESSES_MAX && (entry = readdir(dir));) {
        if (!is_pid(entry->d_name)) continue;
        if (all->count == all->capacity) {
            size_t capacity = all->capacity == 0 ? 256 : 2 * all->capacity;
            mir_host_process *items = realloc(all->items, capacity * sizeof *items);
            if (items == NULL) {
                status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
                break;
            }
            all->items = items;
            all->capacity = capacity;
        }
        if (read_process(dirfd(dir), entry->d_name, &all->items[all->count])) all->count++;
    }
    (void)closedir(dir);
    if (status == MIR_OK && all->count == 0)
        status = mir_error_set(error, MIR_E_NOT_FOUND, "no process in %.300s", proc);
    return status;
}

static int by_pid(const void *left, const void *right)
{
    const mir_host_process *a = left, *b = right;
    return (a->pid > b->pid) - (a->pid < b->pid);
}

static int by_share(const void *left, const void *right)
{
    const mir_host_top_process *a = left, *b = right;
    if (a->cpu != b->cpu) return a->cpu < b->cpu ? 1 : -1;
    if (a->memory != b->memory) return a->memory < b->memory ? 1 : -1;
    return (a->pid > b->pid) - (a->pid < b->pid);
}

/* Into its place of the list, which loses its last when it is full. */
static void insert(mir_host_top *top, size_t max, const mir_host_top_process *process)
{
    if (top->count == max) {
        if (max == 0 || by_share(process, &top->items[max - 1]) >= 0) return;
        top->count--;
    }
    size_t at = top->count++;
    for (; at > 0 && by_share(process, &top->items[at - 1]) < 0; at--)
        top->items[at] = top->items[at - 1];
    top->items[at] = *process;
}

void mir_host_top_compare(mir_host_process *before, size_t before_count, mir_host_process *now,
                          size_t now_count, int64_t elapsed_ns, size_t count, mir_host_top *top)
{
    const double ticks_per_s = (double)sysconf(_SC_CLK_TCK);
    const uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    const size_t max = count < MIR_HOST_TOP_MAX ? count : MIR_HOST_TOP_MAX;
    *top = (mir_host_top){.total = now_count};
    if (before_count > 0) qsort(before, before_count, sizeof *before, by_pid);
    for (size_t i = 0; i < now_count; i++) {
        const mir_host_process *old =
            before_count == 0 ? NULL
                              : bsearch(&now[i], before, before_count, sizeof *before, by_pid);
        /* A process that is new, be it under a pid that was another's, has done all since. */
        bool same = old != NULL && old->started == now[i].started;
        double ticks_per_wall_s = mir_host_rate(same ? old->ticks : 0, now[i].ticks, elapsed_ns);
        mir_host_top_process process = {.pid = now[i].pid,
                                        .cpu = ticks_per_wall_s / ticks_per_s * 100,
                                        .memory = now[i].resident_pages * page_bytes};
        memcpy(process.name, now[i].name, sizeof process.name);
        insert(top, max, &process);
    }
}

mir_status mir_host_top_read(const char *proc, int64_t window_ns, size_t count, mir_host_top *top,
                             mir_error *error)
{
    reading before = {0}, now = {0};
    int64_t began = mir_clock_mono_ns();
    mir_status status = read_all(proc, &before, error);
    if (status == MIR_OK) {
        struct timespec wait = {.tv_sec = window_ns / MIR_NS_PER_S,
                                .tv_nsec = window_ns % MIR_NS_PER_S};
        while (clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, &wait) == EINTR) {
        }
        int64_t elapsed = mir_clock_mono_ns() - began;
        status = read_all(proc, &now, error);
        if (status == MIR_OK)
            mir_host_top_compare(before.items, before.count, now.items, now.count, elapsed, count,
                                 top);
    }
    free(before.items);
    free(now.items);
    return status;
}
