/* SPDX-License-Identifier: Apache-2.0 */
/* mir_host_proc: readers of the kernel's text files, as pure functions of their text.
 *
 * Why        What is read is tested on texts of machines that nobody here has.
 * Ownership  Values; names are copied.
 * Affinity   Any thread.
 * Units      As each member says; counters count since the machine started and may wrap or begin
 *            anew, which mir_host_rate takes for "nothing known".
 * Bounds     MIR_HOST_CORES_MAX, _DISKS_MAX, _INTERFACES_MAX; what is beyond is counted in
 *            `left_out` where there is one, and not reported.
 * Errors     MIR_E_INVALID when the text lacks what the message is for. Unknown lines and further
 *            columns are skipped: kernels add them. */
#ifndef MIR_HOST_PROC_H
#define MIR_HOST_PROC_H

#include "mir_status.h"
#include "mir_view.h"

enum {
    MIR_HOST_CORES_MAX = 1024,
    MIR_HOST_DISKS_MAX = 64,
    MIR_HOST_INTERFACES_MAX = 64,
    MIR_HOST_NAME_BYTES = 64,
};

/* /proc/stat, in ticks. */
typedef struct mir_host_ticks {
    uint64_t user;   /* with nice; the kernel counts guests in here */
    uint64_t system; /* with interrupts */
    uint64_t idle;
    uint64_t iowait;
    uint64_t steal;
} mir_host_ticks;

typedef struct mir_host_cpu {
    mir_host_ticks all;
    /* By core number; a core that is offline has all zeros. */
    mir_host_ticks cores[MIR_HOST_CORES_MAX];
    size_t core_count; /* highest number + 1 */
    uint32_t running;  /* processes */
} mir_host_cpu;

MIR_MUST_CHECK mir_status mir_host_parse_stat(mir_view text, mir_host_cpu *cpu);

/* /proc/meminfo, in bytes. */
typedef struct mir_host_memory {
    uint64_t total;
    uint64_t available; /* estimated when the kernel is too old to say */
    uint64_t free;
    uint64_t buffers;
    uint64_t cached;
    uint64_t swap_total;
    uint64_t swap_free;
} mir_host_memory;

MIR_MUST_CHECK mir_status mir_host_parse_meminfo(mir_view text, mir_host_memory *memory);

/* /proc/loadavg */
typedef struct mir_host_load {
    double load1;
    double load5;
    double load15;
    uint32_t running;
    uint32_t threads;
} mir_host_load;

MIR_MUST_CHECK mir_status mir_host_parse_loadavg(mir_view text, mir_host_load *load);

/* /proc/uptime, in seconds */
MIR_MUST_CHECK mir_status mir_host_parse_uptime(mir_view text, double *seconds);

/* /proc/diskstats */
typedef struct mir_host_disk {
    char name[MIR_HOST_NAME_BYTES]; /* fit for a field name */
    bool is_stacked;                /* made of other devices: not to be added to them */
    uint64_t reads;
    uint64_t read_bytes;
    uint64_t writes;
    uint64_t write_bytes;
    uint64_t busy_ms;
} mir_host_disk;

typedef struct mir_host_disks {
    mir_host_disk items[MIR_HOST_DISKS_MAX];
    size_t count;
    size_t left_out;
} mir_host_disks;

/* `is_whole` tells whole devices from partitions by the name that the kernel gives (in sysfs
 * spelling, `!` for `/`); null: by the usual way of naming partitions. */
typedef bool (*mir_host_is_whole)(const char *name, void *context);
MIR_MUST_CHECK mir_status mir_host_parse_diskstats(mir_view text, mir_host_is_whole is_whole,
                                                   void *context, mir_host_disks *disks);

/* /proc/net/dev */
typedef struct mir_host_interface {
    char name[MIR_HOST_NAME_BYTES];
    uint64_t receive_bytes;
    uint64_t receive_packets;
    uint64_t transmit_bytes;
    uint64_t transmit_packets;
    uint64_t errors;
    uint64_t drops;
} mir_host_interface;

typedef struct mir_host_interfaces {
    mir_host_interface items[MIR_HOST_INTERFACES_MAX];
    size_t count;
    size_t left_out;
} mir_host_interfaces;

MIR_MUST_CHECK mir_status mir_host_parse_net_dev(mir_view text, mir_host_interfaces *interfaces);

/* /proc/<pid>/stat */
typedef struct mir_host_process {
    int32_t pid;
    char name[MIR_HOST_NAME_BYTES]; /* UTF-8, whatever the process calls itself */
    uint64_t ticks;                 /* of processors, for itself and in the kernel */
    uint64_t started;               /* ticks after the machine; with the pid, no other process */
    uint64_t resident_pages;
} mir_host_process;

MIR_MUST_CHECK mir_status mir_host_parse_process(mir_view text, mir_host_process *process);

/* Change per second, 0 when the counter went back or no time passed. */
double mir_host_rate(uint64_t before, uint64_t now, int64_t elapsed_ns);

/* Shares between two readings, in percent; all zero when no tick passed. */
typedef struct mir_host_shares {
    double total;
    double user;
    double system;
    double iowait;
    double steal;
} mir_host_shares;

mir_host_shares mir_host_share(const mir_host_ticks *before, const mir_host_ticks *now);

#endif
