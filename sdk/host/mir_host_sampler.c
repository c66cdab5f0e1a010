/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_host_sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "host.pb-c.h"
#include "mir_clock.h"
#include "mir_log.h"

enum { FILE_BYTES_MAX = 4 << 20, READ_BYTES = 16 << 10 };
enum {
    SOURCE_STAT,
    SOURCE_MEMINFO,
    SOURCE_LOADAVG,
    SOURCE_UPTIME,
    SOURCE_DISKS,
    SOURCE_NETWORK,
    SOURCE_ROOT
};

/* ---- Files ---- */

/* Files of /proc are made while they are read and have no size: read until the end. */
static mir_status read_file(mir_host_sampler *sampler, const char *name, mir_view *text,
                            mir_error *error)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", sampler->proc, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mir_error_os(error, errno, "open %.300s", path);
    mir_status status = MIR_OK;
    sampler->text.size = 0;
    sampler->text.size_max = FILE_BYTES_MAX;
    for (;;) {
        uint8_t *to = mir_bytes_reserve(&sampler->text, READ_BYTES);
        if (to == NULL) {
            status = mir_error_set(error, MIR_E_TOO_LARGE, "%.300s is over %d bytes", path,
                                   FILE_BYTES_MAX);
            mir_bytes_free(&sampler->text);
            sampler->text = (mir_bytes){0};
            break;
        }
        ssize_t got = read(fd, to, READ_BYTES);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = mir_error_os(error, errno, "read %.300s", path);
        if (got <= 0) break;
        sampler->text.size += (size_t)got;
    }
    (void)close(fd);
    *text = mir_bytes_as_view(&sampler->text);
    return status;
}

/* Says it once when a source begins to fail and once when it is back. */
static bool judge(mir_host_sampler *sampler, int source, mir_status status, const char *text)
{
    unsigned bit = 1u << source;
    bool failed_before = (sampler->failing & bit) != 0;
    if (status != MIR_OK && !failed_before) {
        sampler->failing |= bit;
        mir_log_warn("not reported: %s", text);
    } else if (status == MIR_OK && failed_before) {
        sampler->failing &= ~bit;
        mir_log_info("reported again after a failure");
    }
    return status == MIR_OK;
}

static bool read_source(mir_host_sampler *sampler, int source, const char *name, mir_view *text)
{
    mir_error error = {{0}};
    mir_status status = read_file(sampler, name, text, &error);
    return judge(sampler, source, status, error.text);
}

static bool understood(mir_host_sampler *sampler, int source, const char *name, mir_status status)
{
    mir_error error;
    (void)mir_error_set(&error, status, "%s/%.40s is not understood", sampler->proc, name);
    return judge(sampler, source, status, error.text);
}

/* ---- Messages ---- */

typedef struct sink {
    mir_host_emit emit;
    void *context;
    int count;
} sink;

static void emit(sink *to, const ProtobufCMessage *message)
{
    if (to->emit == NULL) return;
    to->emit(message, to->context);
    to->count++;
}

static void sample_cpu(mir_host_sampler *sampler, sink *to)
{
    mir_view text = {NULL, 0};
    mir_host_cpu *now = &sampler->cpu[sampler->now];
    const mir_host_cpu *before = &sampler->cpu[!sampler->now];
    bool had = sampler->has_cpu;
    sampler->has_cpu = read_source(sampler, SOURCE_STAT, "stat", &text) &&
                       understood(sampler, SOURCE_STAT, "stat", mir_host_parse_stat(text, now));
    if (!had || !sampler->has_cpu) return;
    static _Thread_local double core[MIR_HOST_CORES_MAX];
    for (size_t i = 0; i < now->core_count; i++)
        core[i] = mir_host_share(&before->cores[i], &now->cores[i]).total;
    mir_host_shares shares = mir_host_share(&before->all, &now->all);
    Host__V1__Cpu message = HOST__V1__CPU__INIT;
    message.ts = mir_clock_wall_ns();
    message.total = shares.total;
    message.user = shares.user;
    message.system = shares.system;
    message.iowait = shares.iowait;
    message.steal = shares.steal;
    message.n_core = now->core_count;
    message.core = core;
    emit(to, &message.base);
}

static void sample_memory(mir_host_sampler *sampler, sink *to)
{
    mir_view text = {NULL, 0};
    mir_host_memory memory;
    if (!read_source(sampler, SOURCE_MEMINFO, "meminfo", &text) ||
        !understood(sampler, SOURCE_MEMINFO, "meminfo", mir_host_parse_meminfo(text, &memory)))
        return;
    Host__V1__Memory message = HOST__V1__MEMORY__INIT;
    message.ts = mir_clock_wall_ns();
    message.total = memory.total;
    message.used = memory.total - memory.available;
    message.available = memory.available;
    message.free = memory.free;
    message.buffers = memory.buffers;
    message.cached = memory.cached;
    message.swap_total = memory.swap_total;
    message.swap_used = memory.swap_total - memory.swap_free;
    emit(to, &message.base);
}

static void sample_load(mir_host_sampler *sampler, sink *to)
{
    mir_view text = {NULL, 0};
    mir_host_load load;
    if (!read_source(sampler, SOURCE_LOADAVG, "loadavg", &text) ||
        !understood(sampler, SOURCE_LOADAVG, "loadavg", mir_host_parse_loadavg(text, &load)))
        return;
    Host__V1__Load message = HOST__V1__LOAD__INIT;
    message.ts = mir_clock_wall_ns();
    message.load1 = load.load1;
    message.load5 = load.load5;
    message.load15 = load.load15;
    message.running = load.running;
    message.threads = load.threads;
    if (read_source(sampler, SOURCE_UPTIME, "uptime", &text))
        (void)understood(sampler, SOURCE_UPTIME, "uptime",
                         mir_host_parse_uptime(text, &message.uptime));
    emit(to, &message.base);
}

/* Partitions have no directory of their own in /sys/block. */
static bool is_whole(const char *name, void *context)
{
    const mir_host_sampler *sampler = context;
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/block/%s", sampler->sys, name);
    return access(path, F_OK) == 0;
}

static bool has_sysfs(const mir_host_sampler *sampler)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/block", sampler->sys);
    return access(path, F_OK) == 0;
}

static const mir_host_disk *find_disk(const mir_host_disks *disks, const char *name)
{
    for (size_t i = 0; i < disks->count; i++)
        if (strcmp(disks->items[i].name, name) == 0) return &disks->items[i];
    return NULL;
}

static void sample_disks(mir_host_sampler *sampler, sink *to)
{
    mir_view text = {NULL, 0};
    mir_host_disks *now = &sampler->disks[sampler->now];
    const mir_host_disks *before = &sampler->disks[!sampler->now];
    bool had = sampler->has_disks;
    sampler->has_disks = read_source(sampler, SOURCE_DISKS, "diskstats", &text) &&
                         understood(sampler, SOURCE_DISKS, "diskstats",
                                    mir_host_parse_diskstats(
                                        text, has_sysfs(sampler) ? is_whole : NULL, sampler, now));
    int64_t read_ns = mir_clock_mono_ns();
    int64_t elapsed = read_ns - sampler->disks_ns;
    sampler->disks_ns = read_ns;
    if (!had || !sampler->has_disks) return;

    Host__V1__Disk__Device devices[MIR_HOST_DISKS_MAX];
    Host__V1__Disk__DeviceEntry entries[MIR_HOST_DISKS_MAX];
    Host__V1__Disk__DeviceEntry *list[MIR_HOST_DISKS_MAX];
    Host__V1__Disk message = HOST__V1__DISK__INIT;
    message.device = list;
    for (size_t i = 0; i < now->count; i++) {
        mir_host_disk *disk = &now->items[i];
        const mir_host_disk *old = find_disk(before, disk->name);
        if (old == NULL) continue; /* plugged in just now: told from the next reading on */
        Host__V1__Disk__Device *device = &devices[message.n_device];
        host__v1__disk__device__init(device);
        device->read = mir_host_rate(old->read_bytes, disk->read_bytes, elapsed);
        device->write = mir_host_rate(old->write_bytes, disk->write_bytes, elapsed);
        device->reads = mir_host_rate(old->reads, disk->reads, elapsed);
        device->writes = mir_host_rate(old->writes, disk->writes, elapsed);
        device->busy = mir_host_rate(old->busy_ms, disk->busy_ms, elapsed) / 10; /* ms/s to % */
        if (device->busy > 100) device->busy = 100;
        if (!disk->is_stacked) {
            message.read += device->read;
            message.write += device->write;
        }
        Host__V1__Disk__DeviceEntry *entry = &entries[message.n_device];
        host__v1__disk__device_entry__init(entry);
        entry->key = disk->name;
        entry->value = device;
        list[message.n_device++] = entry;
    }
    struct statvfs root;
    if (statvfs("/", &root) == 0) {
        message.root_total = (uint64_t)root.f_blocks * root.f_frsize;
        message.root_used = (uint64_t)(root.f_blocks - root.f_bfree) * root.f_frsize;
        message.root_available = (uint64_t)root.f_bavail * root.f_frsize;
    } else {
        mir_error error;
        mir_status status = mir_error_os(&error, errno, "file system of /");
        (void)judge(sampler, SOURCE_ROOT, status, error.text);
    }
    message.ts = mir_clock_wall_ns();
    emit(to, &message.base);
}

static const mir_host_interface *find_interface(const mir_host_interfaces *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->items[i].name, name) == 0) return &all->items[i];
    return NULL;
}

static void sample_network(mir_host_sampler *sampler, sink *to)
{
    mir_view text = {NULL, 0};
    mir_host_interfaces *now = &sampler->interfaces[sampler->now];
    const mir_host_interfaces *before = &sampler->interfaces[!sampler->now];
    bool had = sampler->has_interfaces;
    sampler->has_interfaces =
        read_source(sampler, SOURCE_NETWORK, "net/dev", &text) &&
        understood(sampler, SOURCE_NETWORK, "net/dev", mir_host_parse_net_dev(text, now));
    int64_t read_ns = mir_clock_mono_ns();
    int64_t elapsed = read_ns - sampler->interfaces_ns;
    sampler->interfaces_ns = read_ns;
    if (!had || !sampler->has_interfaces) return;

    Host__V1__Network__Interface interfaces[MIR_HOST_INTERFACES_MAX];
    Host__V1__Network__InterfaceEntry entries[MIR_HOST_INTERFACES_MAX];
    Host__V1__Network__InterfaceEntry *list[MIR_HOST_INTERFACES_MAX];
    Host__V1__Network message = HOST__V1__NETWORK__INIT;
    message.interface = list;
    for (size_t i = 0; i < now->count; i++) {
        mir_host_interface *item = &now->items[i];
        const mir_host_interface *old = find_interface(before, item->name);
        if (old == NULL) continue;
        Host__V1__Network__Interface *interface = &interfaces[message.n_interface];
        host__v1__network__interface__init(interface);
        interface->receive = mir_host_rate(old->receive_bytes, item->receive_bytes, elapsed);
        interface->transmit = mir_host_rate(old->transmit_bytes, item->transmit_bytes, elapsed);
        interface->receive_packets =
            mir_host_rate(old->receive_packets, item->receive_packets, elapsed);
        interface->transmit_packets =
            mir_host_rate(old->transmit_packets, item->transmit_packets, elapsed);
        interface->errors = mir_host_rate(old->errors, item->errors, elapsed);
        interface->drops = mir_host_rate(old->drops, item->drops, elapsed);
        message.receive += interface->receive;
        message.transmit += interface->transmit;
        Host__V1__Network__InterfaceEntry *entry = &entries[message.n_interface];
        host__v1__network__interface_entry__init(entry);
        entry->key = item->name;
        entry->value = interface;
        list[message.n_interface++] = entry;
    }
    message.ts = mir_clock_wall_ns();
    emit(to, &message.base);
}

int mir_host_sampler_sample(mir_host_sampler *sampler, mir_host_emit function, void *context)
{
    sink to = {.emit = function, .context = context};
    sampler->now = !sampler->now;
    sample_cpu(sampler, &to);
    sample_memory(sampler, &to);
    sample_load(sampler, &to);
    sample_disks(sampler, &to);
    sample_network(sampler, &to);
    return to.count;
}

void mir_host_sampler_init(mir_host_sampler *sampler, const char *proc, const char *sys)
{
    memset(sampler, 0, sizeof *sampler);
    sampler->proc = proc;
    sampler->sys = sys;
    (void)mir_host_sampler_sample(sampler, NULL, NULL);
}

void mir_host_sampler_fini(mir_host_sampler *sampler)
{
    mir_bytes_free(&sampler->text);
}
