/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_host_proc.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_device_check.h"

enum { SECTOR_BYTES = 512 }; /* of /proc/diskstats, whatever the device's own is */

/* ---- Words of a text ---- */

static bool next_line(mir_view *text, mir_view *line)
{
    if (text->size == 0) return false;
    const uint8_t *end = memchr(text->data, '\n', text->size);
    size_t size = end == NULL ? text->size : (size_t)(end - text->data);
    *line = mir_view_of(text->data, size);
    *text = mir_view_from(*text, end == NULL ? size : size + 1);
    return true;
}

static bool next_word(mir_view *line, mir_view *word)
{
    size_t at = 0;
    while (at < line->size && isspace(line->data[at])) at++;
    size_t start = at;
    while (at < line->size && !isspace(line->data[at])) at++;
    *word = mir_view_of(line->data + start, at - start);
    *line = mir_view_from(*line, at);
    return word->size > 0;
}

static bool to_number(mir_view word, uint64_t *number)
{
    uint64_t value = 0;
    if (word.size == 0 || word.size > 20) return false;
    for (size_t i = 0; i < word.size; i++) {
        if (!isdigit(word.data[i]) || value > (UINT64_MAX - 9) / 10) return false;
        value = value * 10 + (uint64_t)(word.data[i] - '0');
    }
    *number = value;
    return true;
}

static bool next_number(mir_view *line, uint64_t *number)
{
    mir_view word;
    return next_word(line, &word) && to_number(word, number);
}

/* As many numbers as there are, at most `max`. */
static size_t numbers(mir_view line, uint64_t *values, size_t max)
{
    size_t count = 0;
    while (count < max && next_number(&line, &values[count])) count++;
    return count;
}

static bool next_decimal(mir_view *line, double *number)
{
    mir_view word;
    char text[32];
    if (!next_word(line, &word) || word.size >= sizeof text || !isdigit(word.data[0])) return false;
    memcpy(text, word.data, word.size);
    text[word.size] = '\0';
    char *end;
    *number = strtod(text, &end);
    return *end == '\0';
}

/* Names become part of a field's name, where dots and blanks would mislead a reader of queries. */
static void copy_name(mir_view name, char *to)
{
    size_t size = name.size < MIR_HOST_NAME_BYTES ? name.size : MIR_HOST_NAME_BYTES - 1;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = name.data[i];
        to[i] = c < 0x80 && (isalnum(c) || c == '-' || c == '_') ? (char)c : '_';
    }
    to[size] = '\0';
}

static bool starts(mir_view word, const char *prefix)
{
    return mir_view_starts(word, mir_view_cstr(prefix));
}

/* ---- /proc/stat ---- */

static bool read_ticks(mir_view line, mir_host_ticks *ticks)
{
    /* user nice system idle iowait irq softirq steal; guest times are contained in user. */
    uint64_t v[8] = {0};
    if (numbers(line, v, 8) < 4) return false;
    *ticks = (mir_host_ticks){.user = v[0] + v[1],
                              .system = v[2] + v[5] + v[6],
                              .idle = v[3],
                              .iowait = v[4],
                              .steal = v[7]};
    return true;
}

mir_status mir_host_parse_stat(mir_view text, mir_host_cpu *cpu)
{
    mir_view line;
    bool found = false;
    memset(cpu, 0, sizeof *cpu);
    while (next_line(&text, &line)) {
        mir_view word;
        uint64_t number;
        if (!next_word(&line, &word)) continue;
        if (mir_view_eq_cstr(word, "cpu")) {
            found = read_ticks(line, &cpu->all);
        } else if (starts(word, "cpu") && to_number(mir_view_from(word, 3), &number)) {
            if (number >= MIR_HOST_CORES_MAX || !read_ticks(line, &cpu->cores[number])) continue;
            if (number >= cpu->core_count) cpu->core_count = (size_t)number + 1;
        } else if (mir_view_eq_cstr(word, "procs_running") && next_number(&line, &number)) {
            cpu->running = (uint32_t)number;
        }
    }
    return found ? MIR_OK : MIR_E_INVALID;
}

static uint64_t grown(uint64_t before, uint64_t now)
{
    return now > before ? now - before : 0; /* iowait may go back a little */
}

mir_host_shares mir_host_share(const mir_host_ticks *before, const mir_host_ticks *now)
{
    uint64_t user = grown(before->user, now->user);
    uint64_t system = grown(before->system, now->system);
    uint64_t iowait = grown(before->iowait, now->iowait);
    uint64_t steal = grown(before->steal, now->steal);
    uint64_t idle = grown(before->idle, now->idle);
    double sum = (double)user + (double)system + (double)iowait + (double)steal + (double)idle;
    if (sum <= 0) return (mir_host_shares){0};
    /* Multiplied first, so that everything is 100 and not 100.00000000000001. */
    return (mir_host_shares){.total = (double)(user + system + steal) * 100 / sum,
                             .user = (double)user * 100 / sum,
                             .system = (double)system * 100 / sum,
                             .iowait = (double)iowait * 100 / sum,
                             .steal = (double)steal * 100 / sum};
}

/* ---- /proc/meminfo ---- */

mir_status mir_host_parse_meminfo(mir_view text, mir_host_memory *memory)
{
    const struct {
        const char *key;
        uint64_t *value;
    } wanted[] = {{"MemTotal:", &memory->total},         {"MemFree:", &memory->free},
                  {"MemAvailable:", &memory->available}, {"Buffers:", &memory->buffers},
                  {"Cached:", &memory->cached},          {"SwapTotal:", &memory->swap_total},
                  {"SwapFree:", &memory->swap_free}};
    *memory = (mir_host_memory){.available = UINT64_MAX};
    mir_view line;
    while (next_line(&text, &line)) {
        mir_view word;
        uint64_t kib;
        if (!next_word(&line, &word)) continue;
        for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
            if (mir_view_eq_cstr(word, wanted[i].key) && next_number(&line, &kib) &&
                kib <= UINT64_MAX / 1024)
                *wanted[i].value = kib * 1024;
    }
    if (memory->total == 0) return MIR_E_INVALID;
    if (memory->available == UINT64_MAX)
        memory->available = memory->free + memory->buffers + memory->cached;
    if (memory->available > memory->total) memory->available = memory->total;
    if (memory->swap_free > memory->swap_total) memory->swap_free = memory->swap_total;
    return MIR_OK;
}

/* ---- /proc/loadavg, /proc/uptime ---- */

mir_status mir_host_parse_loadavg(mir_view text, mir_host_load *load)
{
    mir_host_load read = {0};
    if (!next_decimal(&text, &read.load1) || !next_decimal(&text, &read.load5) ||
        !next_decimal(&text, &read.load15))
        return MIR_E_INVALID;
    mir_view word; /* running/threads */
    if (next_word(&text, &word)) {
        const uint8_t *slash = memchr(word.data, '/', word.size);
        uint64_t running, threads;
        if (slash != NULL &&
            to_number(mir_view_of(word.data, (size_t)(slash - word.data)), &running) &&
            to_number(mir_view_from(word, (size_t)(slash - word.data) + 1), &threads)) {
            read.running = (uint32_t)running;
            read.threads = (uint32_t)threads;
        }
    }
    *load = read;
    return MIR_OK;
}

mir_status mir_host_parse_uptime(mir_view text, double *seconds)
{
    return next_decimal(&text, seconds) ? MIR_OK : MIR_E_INVALID;
}

/* ---- /proc/diskstats ---- */

static bool is_wanted_disk(mir_view name, mir_host_is_whole is_whole, void *context)
{
    static const char *const virtual[] = {"loop", "ram", "zram", "fd", "sr"};
    for (size_t i = 0; i < sizeof virtual / sizeof virtual[0]; i++) {
        size_t size = strlen(virtual[i]);
        if (starts(name, virtual[i]) && name.size > size && isdigit(name.data[size])) return false;
    }
    if (is_whole == NULL) return true;
    char text[MIR_HOST_NAME_BYTES];
    if (name.size >= sizeof text) return false;
    for (size_t i = 0; i < name.size; i++) text[i] = name.data[i] == '/' ? '!' : (char)name.data[i];
    text[name.size] = '\0';
    return is_whole(text, context);
}

/* "sda1" is a part of "sda", "nvme0n1p1" of "nvme0n1": a device ahead of it, perhaps `p`, digits. */
static bool is_partition(const mir_host_disks *disks, const char *name)
{
    for (size_t i = 0; i < disks->count; i++) {
        const char *whole = disks->items[i].name;
        size_t size = strlen(whole);
        if (strncmp(name, whole, size) != 0) continue;
        const char *rest = name + size;
        if (isdigit((unsigned char)name[size - 1]) && *rest++ != 'p') continue;
        if (*rest != '\0' && rest[strspn(rest, "0123456789")] == '\0') return true;
    }
    return false;
}

mir_status mir_host_parse_diskstats(mir_view text, mir_host_is_whole is_whole, void *context,
                                    mir_host_disks *disks)
{
    disks->count = disks->left_out = 0;
    mir_view line;
    while (next_line(&text, &line)) {
        uint64_t major, minor;
        mir_view name;
        /* reads merged sectors ms, writes merged sectors ms, in flight, busy ms … */
        uint64_t v[10];
        if (!next_number(&line, &major) || !next_number(&line, &minor) ||
            !next_word(&line, &name) || numbers(line, v, 10) < 10)
            continue;
        if (!is_wanted_disk(name, is_whole, context)) continue;
        char shown[MIR_HOST_NAME_BYTES];
        copy_name(name, shown);
        if (is_whole == NULL && is_partition(disks, shown)) continue;
        if (disks->count == MIR_HOST_DISKS_MAX) {
            disks->left_out++;
            continue;
        }
        mir_host_disk *disk = &disks->items[disks->count++];
        *disk = (mir_host_disk){.reads = v[0],
                                .read_bytes = v[2] * SECTOR_BYTES,
                                .writes = v[4],
                                .write_bytes = v[6] * SECTOR_BYTES,
                                .busy_ms = v[9],
                                .is_stacked = starts(name, "dm-") || starts(name, "md")};
        memcpy(disk->name, shown, sizeof shown);
    }
    return MIR_OK; /* a machine without disks is a machine */
}

/* ---- /proc/net/dev ---- */

mir_status mir_host_parse_net_dev(mir_view text, mir_host_interfaces *interfaces)
{
    interfaces->count = interfaces->left_out = 0;
    mir_view line;
    while (next_line(&text, &line)) {
        /* "eth0:123 …" is as good as "eth0: 123 …", and aliases have colons in their names. */
        const uint8_t *colon = memrchr(line.data, ':', line.size);
        if (colon == NULL) continue;
        mir_view head = mir_view_of(line.data, (size_t)(colon - line.data));
        mir_view name;
        uint64_t v[16];
        if (!next_word(&head, &name) ||
            numbers(mir_view_from(line, (size_t)(colon - line.data) + 1), v, 16) < 16)
            continue;
        if (mir_view_eq_cstr(name, "lo") || starts(name, "veth")) continue;
        if (interfaces->count == MIR_HOST_INTERFACES_MAX) {
            interfaces->left_out++;
            continue;
        }
        mir_host_interface *item = &interfaces->items[interfaces->count++];
        *item = (mir_host_interface){.receive_bytes = v[0],
                                     .receive_packets = v[1],
                                     .transmit_bytes = v[8],
                                     .transmit_packets = v[9],
                                     .errors = v[2] + v[10],
                                     .drops = v[3] + v[11]};
        copy_name(name, item->name);
    }
    return MIR_OK;
}

/* ---- /proc/<pid>/stat ---- */

mir_status mir_host_parse_process(mir_view text, mir_host_process *process)
{
    /* "12 (a (strange) name) S 1 …": the name may hold anything, so it ends at the last ')'. */
    const uint8_t *open = memchr(text.data, '(', text.size);
    const uint8_t *close = memrchr(text.data, ')', text.size);
    if (open == NULL || close == NULL || close < open) return MIR_E_INVALID;
    mir_view head = mir_view_of(text.data, (size_t)(open - text.data));
    mir_view name = mir_view_of(open + 1, (size_t)(close - open) - 1);
    mir_view rest = mir_view_from(text, (size_t)(close - text.data) + 1);
    uint64_t pid;
    if (!next_number(&head, &pid) || pid > INT32_MAX) return MIR_E_INVALID;
    enum { STATE = 0, UTIME = 11, STIME = 12, STARTED = 19, RESIDENT = 21 };
    uint64_t v[RESIDENT + 1] = {0};
    for (size_t i = 0; i <= RESIDENT; i++) {
        mir_view word;
        if (!next_word(&rest, &word)) return MIR_E_INVALID;
        bool wanted = i == UTIME || i == STIME || i == STARTED || i == RESIDENT;
        if (wanted && !to_number(word, &v[i])) return MIR_E_INVALID;
    }
    *process = (mir_host_process){.pid = (int32_t)pid,
                                  .ticks = v[UTIME] + v[STIME],
                                  .started = v[STARTED],
                                  .resident_pages = v[RESIDENT]};
    size_t size = name.size < MIR_HOST_NAME_BYTES ? name.size : MIR_HOST_NAME_BYTES - 1;
    memcpy(process->name, name.data, size);
    mir_device_make_utf8(process->name);
    return MIR_OK;
}

double mir_host_rate(uint64_t before, uint64_t now, int64_t elapsed_ns)
{
    if (now <= before || elapsed_ns <= 0) return 0;
    return (double)(now - before) * (double)MIR_NS_PER_S / (double)elapsed_ns;
}
