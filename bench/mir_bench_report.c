/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_bench.h"

#include "mir_bench_server.h"

#include <errno.h>
#include <jansson.h>
#include <linux/magic.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

void mir_bench_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("mir-bench: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

void mir_bench_series_add(mir_bench_series *series, double value)
{
    if (series->count < MIR_BENCH_ROUNDS_MAX) series->values[series->count++] = value;
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

double mir_bench_series_median(const mir_bench_series *series)
{
    if (series->count == 0) return NAN;
    mir_bench_series sorted = *series;
    qsort(sorted.values, sorted.count, sizeof sorted.values[0], compare_doubles);
    size_t middle = sorted.count / 2;
    if (sorted.count % 2 == 1) return sorted.values[middle];
    return (sorted.values[middle - 1] + sorted.values[middle]) / 2;
}

mir_bench_row *mir_bench_report_add(mir_bench_report *report, const char *unit, double ours,
                                    double peer, mir_bench_bar bar_kind, double bar,
                                    const char *name, ...)
{
    static mir_bench_row spare; /* Takes what the table has no room for. */
    mir_bench_row *row =
        report->row_count < MIR_BENCH_ROWS_MAX ? &report->rows[report->row_count++] : &spare;
    *row =
        (mir_bench_row){.unit = unit, .ours = ours, .peer = peer, .bar_kind = bar_kind, .bar = bar};
    va_list args;
    va_start(args, name);
    (void)vsnprintf(row->name, sizeof row->name, name, args);
    va_end(args);
    return row;
}

void mir_bench_row_add_peer(mir_bench_row *row, const char *name, double value)
{
    if (row->peer_count == MIR_BENCH_PEERS_MAX) return;
    row->peers[row->peer_count++] = (mir_bench_peer){.name = name, .value = value};
    const bool more_is_better =
        row->bar_kind == MIR_BENCH_BAR_RATIO_MIN || row->bar_kind == MIR_BENCH_BAR_VALUE_MIN;
    if (isnan(value)) return;
    if (isnan(row->peer) || (more_is_better ? value > row->peer : value < row->peer))
        row->peer = value;
}

static double ratio_of(const mir_bench_row *row)
{
    return row->ours / row->peer; /* NaN when one is missing. */
}

const char *mir_bench_row_verdict(const mir_bench_row *row)
{
    if (row->failed) return "FAILED";
    /* Judged as printed: two decimals. */
    double ratio = round(ratio_of(row) * 100) / 100;
    switch (row->bar_kind) {
    case MIR_BENCH_BAR_NONE: return "-";
    case MIR_BENCH_BAR_RATIO_MAX: return isnan(ratio) ? "-" : ratio <= row->bar ? "pass" : "miss";
    case MIR_BENCH_BAR_RATIO_MIN: return isnan(ratio) ? "-" : ratio >= row->bar ? "pass" : "miss";
    case MIR_BENCH_BAR_VALUE_MAX:
        return isnan(row->ours) ? "-" : row->ours <= row->bar ? "pass" : "miss";
    case MIR_BENCH_BAR_VALUE_MIN:
        return isnan(row->ours) ? "-" : row->ours >= row->bar ? "pass" : "miss";
    }
    return "-";
}

/* Four significant digits, or a dash. */
static const char *figure(double value, char *text, size_t text_bytes)
{
    if (isnan(value))
        (void)snprintf(text, text_bytes, "-");
    else
        (void)snprintf(text, text_bytes, value >= 1000 ? "%.0f" : "%.4g", value);
    return text;
}

static void bar_text(const mir_bench_row *row, char *text, size_t text_bytes)
{
    char value[32];
    (void)figure(row->bar, value, sizeof value);
    switch (row->bar_kind) {
    case MIR_BENCH_BAR_NONE: (void)snprintf(text, text_bytes, "-"); break;
    case MIR_BENCH_BAR_RATIO_MAX: (void)snprintf(text, text_bytes, "<= %sx", value); break;
    case MIR_BENCH_BAR_RATIO_MIN: (void)snprintf(text, text_bytes, ">= %sx", value); break;
    case MIR_BENCH_BAR_VALUE_MAX:
        (void)snprintf(text, text_bytes, "<= %s %s", value, row->unit);
        break;
    case MIR_BENCH_BAR_VALUE_MIN:
        (void)snprintf(text, text_bytes, ">= %s %s", value, row->unit);
        break;
    }
}

/* What a program prints as its version, in one line. */
static void version_of(const char *path, const char *argument, char *text, size_t text_bytes)
{
    char command[512];
    (void)snprintf(text, text_bytes, "-");
    if (path == NULL || strchr(path, '\'') != NULL) return;
    int size = snprintf(command, sizeof command, "'%s' %s 2>/dev/null", path, argument);
    if (size < 0 || (size_t)size >= sizeof command) return;
    FILE *pipe = popen(command, "re");
    if (pipe == NULL) return;
    if (fgets(text, (int)text_bytes, pipe) == NULL || text[0] == '\n')
        (void)snprintf(text, text_bytes, "version unknown");
    text[strcspn(text, "\n")] = '\0';
    (void)pclose(pipe);
}

void mir_bench_report_add_peer(mir_bench_report *report, const char *name, const char *path,
                               const char *argument)
{
    if (report->peer_count == MIR_BENCH_PEERS_MAX) return;
    mir_bench_peer *added = &report->peers[report->peer_count++];
    *added = (mir_bench_peer){.name = name, .value = NAN};
    version_of(path, argument, added->version, sizeof added->version);
}

static void cpu_model(char *text, size_t text_bytes)
{
    char line[256];
    (void)snprintf(text, text_bytes, "unknown CPU");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL) return;
    while (fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        (void)snprintf(text, text_bytes, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    (void)fclose(file);
}

typedef struct machine {
    long cores;
    char cpu[128], kernel[96], mir[96], peer[96], filesystem[32];
} machine;

static machine describe_machine(const mir_bench_options *options)
{
    machine here = {.cores = sysconf(_SC_NPROCESSORS_ONLN)};
    struct utsname name;
    struct statfs disk;
    cpu_model(here.cpu, sizeof here.cpu);
    if (uname(&name) == 0)
        (void)snprintf(here.kernel, sizeof here.kernel, "%.20s %.64s", name.sysname, name.release);
    version_of(options->mir_path, "version", here.mir, sizeof here.mir);
    version_of(options->peer_path, "--version", here.peer, sizeof here.peer);
    if (statfs(mir_bench_server_root(), &disk) == 0)
        (void)snprintf(here.filesystem, sizeof here.filesystem, "%s",
                       disk.f_type == TMPFS_MAGIC             ? "tmpfs"
                       : disk.f_type == EXT4_SUPER_MAGIC      ? "ext4"
                       : disk.f_type == XFS_SUPER_MAGIC       ? "xfs"
                       : disk.f_type == OVERLAYFS_SUPER_MAGIC ? "overlayfs"
                                                              : "other");
    return here;
}

/* Without named peers it is nats-server's. */
static bool any_unnamed(const mir_bench_report *report)
{
    for (size_t i = 0; i < report->row_count; i++)
        if (report->rows[i].peer_count == 0 && !isnan(report->rows[i].peer)) return true;
    return report->peer_count == 0;
}

static bool same_columns(const mir_bench_row *a, const mir_bench_row *b)
{
    if (a->peer_count != b->peer_count) return false;
    for (size_t i = 0; i < a->peer_count; i++)
        if (strcmp(a->peers[i].name, b->peers[i].name) != 0) return false;
    return true;
}

static int column_width(const char *name)
{
    const int size = (int)strlen(name);
    return size > 8 ? size : 8;
}

static void print_header(const mir_bench_row *row, bool first)
{
    printf("%s%-34s %-7s %8s", first ? "" : "\n", "row", "unit", "ours");
    if (row->peer_count == 0) printf(" %8s", "peer");
    for (size_t i = 0; i < row->peer_count; i++)
        printf(" %*s", column_width(row->peers[i].name), row->peers[i].name);
    printf(" %6s  %-9s %s\n", "ratio", "bar", "result");
}

static void print_row(const mir_bench_row *row)
{
    char value[32], ratio[32], bar[48];
    bar_text(row, bar, sizeof bar);
    if (isnan(ratio_of(row)))
        (void)snprintf(ratio, sizeof ratio, "-");
    else
        (void)snprintf(ratio, sizeof ratio, "%.2f", ratio_of(row));
    printf("%-34s %-7s %8s", row->name, row->unit, figure(row->ours, value, sizeof value));
    if (row->peer_count == 0) printf(" %8s", figure(row->peer, value, sizeof value));
    for (size_t i = 0; i < row->peer_count; i++)
        printf(" %*s", column_width(row->peers[i].name),
               figure(row->peers[i].value, value, sizeof value));
    printf(" %6s  %-9s %s\n", ratio, bar, mir_bench_row_verdict(row));
    if (row->note[0] != '\0') printf("    %s\n", row->note);
}

void mir_bench_report_table(const mir_bench_report *report, const mir_bench_options *options,
                            const char *command)
{
    machine here = describe_machine(options);
    printf("machine  %ld cores, %s, %s\n", here.cores, here.cpu, here.kernel);
    printf("ours     %s, data on %s\n", here.mir, here.filesystem);
    if (any_unnamed(report)) printf("peer     %s\n", here.peer);
    for (size_t i = 0; i < report->peer_count; i++)
        printf("peer     %s: %s\n", report->peers[i].name, report->peers[i].version);
    printf("rounds   %u of about %g s, taken in turn; medians%s\n\n", options->rounds,
           options->seconds, options->quick ? "; QUICK: smaller sizes than the bars ask for" : "");
    for (size_t i = 0; i < report->row_count; i++) {
        if (i == 0 || !same_columns(&report->rows[i - 1], &report->rows[i]))
            print_header(&report->rows[i], i == 0);
        print_row(&report->rows[i]);
    }
    if (report->peak_resident_bytes > 0)
        printf("\npeak resident size of ours: %.1f MiB\n",
               (double)report->peak_resident_bytes / (1 << 20));
    printf("\nrepeat with: %s\n", command);
}

static json_t *number_or_null(double value)
{
    return isnan(value) ? json_null() : json_real(value);
}

mir_status mir_bench_report_json(const mir_bench_report *report, const mir_bench_options *options,
                                 const char *command)
{
    machine here = describe_machine(options);
    json_t *rows = json_array();
    for (size_t i = 0; i < report->row_count; i++) {
        const mir_bench_row *row = &report->rows[i];
        char bar[48];
        bar_text(row, bar, sizeof bar);
        json_t *item =
            json_pack("{s:s, s:s, s:o, s:o, s:o, s:s, s:s, s:s}", "name", row->name, "unit",
                      row->unit, "ours", number_or_null(row->ours), "peer",
                      number_or_null(row->peer), "ratio", number_or_null(ratio_of(row)), "bar", bar,
                      "result", mir_bench_row_verdict(row), "note", row->note);
        json_t *peers = item != NULL && row->peer_count > 0 ? json_object() : NULL;
        for (size_t k = 0; k < row->peer_count && peers != NULL; k++)
            (void)json_object_set_new(peers, row->peers[k].name,
                                      number_or_null(row->peers[k].value));
        if (peers != NULL) (void)json_object_set_new(item, "peers", peers);
        if (item == NULL || json_array_append_new(rows, item) != 0) {
            json_decref(rows);
            return MIR_E_NO_MEMORY;
        }
    }
    json_t *all = json_pack(
        "{s:{s:I, s:s, s:s, s:s}, s:s, s:s, s:i, s:f, s:b, s:I, s:s, s:o}", "machine", "cores",
        (json_int_t)here.cores, "cpu", here.cpu, "kernel", here.kernel, "filesystem",
        here.filesystem, "mir", here.mir, "peer", here.peer, "rounds", (int)options->rounds,
        "seconds", options->seconds, "quick", (int)options->quick, "peak_resident_bytes",
        (json_int_t)report->peak_resident_bytes, "command", command, "rows", rows);
    if (all == NULL) return MIR_E_NO_MEMORY;
    json_t *versions = report->peer_count > 0 ? json_object() : NULL;
    for (size_t i = 0; i < report->peer_count && versions != NULL; i++)
        (void)json_object_set_new(versions, report->peers[i].name,
                                  json_string(report->peers[i].version));
    if (versions != NULL) (void)json_object_set_new(all, "peers", versions);
    int written = json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(all);
    (void)putchar('\n');
    return written == 0 ? MIR_OK : MIR_E_IO;
}
