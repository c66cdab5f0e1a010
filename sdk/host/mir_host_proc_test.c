/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_host_proc.h"

static mir_host_cpu cpu;
static mir_host_disks disks;
static mir_host_interfaces interfaces;

static bool near(double a, double b)
{
    return a - b < 0.001 && b - a < 0.001;
}

/* ---- stat ---- */

static void stat_of_a_machine(void **state)
{
    (void)state;
    const char text[] = "cpu  5862 10 4888 251980 1000 5 211 568 7 0\n"
                        "cpu0 1637 0 1659 128764 26 0 34 213 0 0\n"
                        "cpu1 4225 10 3229 123215 973 5 177 354 7 0\n"
                        "intr 1 2 3\nctxt 12\nprocs_running 3\nprocs_blocked 0\n";
    assert_int_equal(mir_host_parse_stat(mir_view_cstr(text), &cpu), MIR_OK);
    assert_int_equal(cpu.core_count, 2);
    assert_int_equal(cpu.all.user, 5872);
    assert_int_equal(cpu.all.system, 4888 + 5 + 211);
    assert_int_equal(cpu.all.idle, 251980);
    assert_int_equal(cpu.all.iowait, 1000);
    assert_int_equal(cpu.all.steal, 568);
    assert_int_equal(cpu.cores[1].user, 4235);
    assert_int_equal(cpu.running, 3);
}

static void stat_with_a_core_offline_keeps_the_numbers(void **state)
{
    (void)state;
    const char text[] = "cpu  1 0 1 1\ncpu0 1 0 0 5\ncpu3 2 0 0 7\n";
    assert_int_equal(mir_host_parse_stat(mir_view_cstr(text), &cpu), MIR_OK);
    assert_int_equal(cpu.core_count, 4);
    assert_int_equal(cpu.cores[2].idle, 0);
    assert_int_equal(cpu.cores[3].idle, 7);
}

static void stat_of_an_old_kernel_has_four_columns(void **state)
{
    (void)state;
    assert_int_equal(mir_host_parse_stat(mir_view_cstr("cpu 10 20 30 40"), &cpu), MIR_OK);
    assert_int_equal(cpu.all.user, 30);
    assert_int_equal(cpu.all.steal, 0);
    assert_int_equal(cpu.core_count, 0);
}

static void stat_that_is_none_is_refused(void **state)
{
    (void)state;
    const char *const texts[] = {"",
                                 "\n\n",
                                 "intr 5\n",
                                 "cpu a b c d\n",
                                 "cpu 1 2 3\n",
                                 "cpufreq 1 2 3 4\n",
                                 "cpu0 1 2 3 4\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(mir_host_parse_stat(mir_view_cstr(texts[i]), &cpu), MIR_E_INVALID);
}

static void stat_with_absurd_core_numbers_is_bounded(void **state)
{
    (void)state;
    const char text[] = "cpu 1 2 3 4\ncpu1023 1 1 1 1\ncpu1024 1 1 1 1\n"
                        "cpu99999999999999999999 1 1 1 1\ncpu-1 1 1 1 1\n";
    assert_int_equal(mir_host_parse_stat(mir_view_cstr(text), &cpu), MIR_OK);
    assert_int_equal(cpu.core_count, 1024);
}

static void shares_add_up(void **state)
{
    (void)state;
    mir_host_ticks before = {.user = 100, .system = 50, .idle = 1000, .iowait = 10, .steal = 5};
    mir_host_ticks now = {.user = 130, .system = 60, .idle = 1050, .iowait = 15, .steal = 10};
    mir_host_shares shares = mir_host_share(&before, &now);
    assert_true(near(shares.user, 30));
    assert_true(near(shares.system, 10));
    assert_true(near(shares.iowait, 5));
    assert_true(near(shares.steal, 5));
    assert_true(near(shares.total, 45));
}

static void a_busy_processor_is_at_100_and_never_above(void **state)
{
    (void)state;
    for (uint64_t ticks = 1; ticks < 5000; ticks++) {
        mir_host_ticks before = {0};
        mir_host_ticks now = {.user = ticks};
        assert_true(mir_host_share(&before, &now).total == 100);
    }
}

static void shares_without_time_or_going_back_are_zero(void **state)
{
    (void)state;
    mir_host_ticks high = {.user = 100, .idle = 100, .iowait = 9};
    mir_host_ticks low = {.user = 10, .idle = 10};
    assert_true(near(mir_host_share(&high, &high).total, 0));
    assert_true(near(mir_host_share(&high, &low).total, 0));
}

/* ---- meminfo ---- */

static void meminfo_of_a_machine(void **state)
{
    (void)state;
    const char text[] = "MemTotal:       24684092 kB\nMemFree:        24149372 kB\n"
                        "MemAvailable:   24296152 kB\nBuffers:           30860 kB\n"
                        "Cached:           262716 kB\nSwapCached:            7 kB\n"
                        "SwapTotal:       1048576 kB\nSwapFree:         524288 kB\n"
                        "HugePages_Total:       0\n";
    mir_host_memory memory;
    assert_int_equal(mir_host_parse_meminfo(mir_view_cstr(text), &memory), MIR_OK);
    assert_int_equal(memory.total, UINT64_C(24684092) * 1024);
    assert_int_equal(memory.available, UINT64_C(24296152) * 1024);
    assert_int_equal(memory.cached, 262716 * 1024);
    assert_int_equal(memory.swap_free, 524288 * 1024);
}

static void meminfo_of_an_old_kernel_lacks_available(void **state)
{
    (void)state;
    const char text[] = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 300 kB\n";
    mir_host_memory memory;
    assert_int_equal(mir_host_parse_meminfo(mir_view_cstr(text), &memory), MIR_OK);
    assert_int_equal(memory.available, 420 * 1024);
}

static void meminfo_never_says_more_than_the_total(void **state)
{
    (void)state;
    const char text[] = "MemTotal: 1000 kB\nMemAvailable: 5000 kB\nSwapTotal: 5 kB\nSwapFree: 9 kB";
    mir_host_memory memory;
    assert_int_equal(mir_host_parse_meminfo(mir_view_cstr(text), &memory), MIR_OK);
    assert_int_equal(memory.available, memory.total);
    assert_int_equal(memory.swap_free, memory.swap_total);
}

static void meminfo_without_a_total_is_refused(void **state)
{
    (void)state;
    mir_host_memory memory;
    assert_int_equal(mir_host_parse_meminfo(mir_view_cstr("MemFree: 1 kB\n"), &memory),
                     MIR_E_INVALID);
    assert_int_equal(mir_host_parse_meminfo(mir_view_cstr("MemTotal: x kB\n"), &memory),
                     MIR_E_INVALID);
    assert_int_equal(
        mir_host_parse_meminfo(mir_view_cstr("MemTotal: 99999999999999999999 kB\n"), &memory),
        MIR_E_INVALID);
}

/* ---- loadavg, uptime ---- */

static void loadavg_of_a_machine(void **state)
{
    (void)state;
    mir_host_load load;
    assert_int_equal(mir_host_parse_loadavg(mir_view_cstr("0.21 1.5 12.13 2/95 10380\n"), &load),
                     MIR_OK);
    assert_true(near(load.load1, 0.21) && near(load.load5, 1.5) && near(load.load15, 12.13));
    assert_int_equal(load.running, 2);
    assert_int_equal(load.threads, 95);
}

static void loadavg_with_less(void **state)
{
    (void)state;
    mir_host_load load;
    assert_int_equal(mir_host_parse_loadavg(mir_view_cstr("1 2 3"), &load), MIR_OK);
    assert_int_equal(load.threads, 0);
    assert_int_equal(mir_host_parse_loadavg(mir_view_cstr("1 2 3 4/\n"), &load), MIR_OK);
    assert_int_equal(load.threads, 0);
    assert_int_equal(mir_host_parse_loadavg(mir_view_cstr("1 2"), &load), MIR_E_INVALID);
    assert_int_equal(mir_host_parse_loadavg(mir_view_cstr("nan inf 3"), &load), MIR_E_INVALID);
    assert_int_equal(mir_host_parse_loadavg(mir_view_cstr(""), &load), MIR_E_INVALID);
}

static void uptime_reads_its_first_number(void **state)
{
    (void)state;
    double seconds;
    assert_int_equal(mir_host_parse_uptime(mir_view_cstr("2580.06 4960.88\n"), &seconds), MIR_OK);
    assert_true(near(seconds, 2580.06));
    assert_int_equal(mir_host_parse_uptime(mir_view_cstr("x"), &seconds), MIR_E_INVALID);
}

/* ---- diskstats ---- */

static const char diskstats[] =
    "   7       0 loop0 9 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    " 254       0 vda 100 5 2000 30 50 6 4000 70 0 800 100 0 0 0 0 0 0\n"
    " 254       1 vda1 90 5 1900 30 50 6 4000 70 0 700 100\n"
    " 259       0 nvme0n1 1 0 8 0 2 0 16 0 0 4 4\n"
    " 259       1 nvme0n1p1 1 0 8 0 2 0 16 0 0 4 4\n"
    " 253       0 dm-0 1 0 8 0 2 0 16 0 0 4 4\n"
    " 104       0 cciss/c0d0 1 0 8 0 2 0 16 0 0 4 4\n"
    "   8       3 sda3 4 4 4 4\n"
    "garbage\n";

static void diskstats_without_sysfs(void **state)
{
    (void)state;
    assert_int_equal(mir_host_parse_diskstats(mir_view_cstr(diskstats), NULL, NULL, &disks),
                     MIR_OK);
    assert_int_equal(disks.count, 4);
    assert_string_equal(disks.items[0].name, "vda");
    assert_int_equal(disks.items[0].reads, 100);
    assert_int_equal(disks.items[0].read_bytes, 2000 * 512);
    assert_int_equal(disks.items[0].writes, 50);
    assert_int_equal(disks.items[0].write_bytes, 4000 * 512);
    assert_int_equal(disks.items[0].busy_ms, 800);
    assert_false(disks.items[0].is_stacked);
    assert_string_equal(disks.items[1].name, "nvme0n1");
    assert_string_equal(disks.items[2].name, "dm-0");
    assert_true(disks.items[2].is_stacked);
    assert_string_equal(disks.items[3].name, "cciss_c0d0");
}

static bool whole_is(const char *name, void *context)
{
    return strcmp(name, context) == 0;
}

static void diskstats_asks_sysfs_in_its_spelling(void **state)
{
    (void)state;
    char name[] = "cciss!c0d0";
    assert_int_equal(mir_host_parse_diskstats(mir_view_cstr(diskstats), whole_is, name, &disks),
                     MIR_OK);
    assert_int_equal(disks.count, 1);
    assert_string_equal(disks.items[0].name, "cciss_c0d0");
}

static void diskstats_counts_what_it_leaves_out(void **state)
{
    (void)state;
    char text[100 * 64] = "";
    size_t used = 0;
    for (int i = 0; i < 70; i++)
        used +=
            (size_t)snprintf(text + used, sizeof text - used,
                             "8 %d disk_%c%c 1 1 1 1 1 1 1 1 1 1\n", i, 'a' + i / 26, 'a' + i % 26);
    assert_int_equal(mir_host_parse_diskstats(mir_view_cstr(text), NULL, NULL, &disks), MIR_OK);
    assert_int_equal(disks.count, MIR_HOST_DISKS_MAX);
    assert_int_equal(disks.left_out, 70 - MIR_HOST_DISKS_MAX);
}

/* ---- net/dev ---- */

static void net_dev_of_a_machine(void **state)
{
    (void)state;
    const char text[] =
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
        "drop fifo colls carrier compressed\n"
        "    lo: 50303614   93520    0    0    0     0          0         0 50303614   93520    0 "
        "   0    0     0       0          0\n"
        "  eth0: 81657767    2091    1    2    0     0          0         0   164613    1469    3 "
        "   4    0     0       0          0\n"
        "eth0.100:1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n"
        "eth0:1: 5 6 0 0 0 0 0 0 7 8 0 0 0 0 0 0\n"
        "veth1a2b: 5 6 0 0 0 0 0 0 7 8 0 0 0 0 0 0\n"
        "short: 5 6\n";
    assert_int_equal(mir_host_parse_net_dev(mir_view_cstr(text), &interfaces), MIR_OK);
    assert_int_equal(interfaces.count, 3);
    const mir_host_interface *eth0 = &interfaces.items[0];
    assert_string_equal(eth0->name, "eth0");
    assert_int_equal(eth0->receive_bytes, 81657767);
    assert_int_equal(eth0->receive_packets, 2091);
    assert_int_equal(eth0->transmit_bytes, 164613);
    assert_int_equal(eth0->transmit_packets, 1469);
    assert_int_equal(eth0->errors, 4);
    assert_int_equal(eth0->drops, 6);
    assert_string_equal(interfaces.items[1].name, "eth0_100");
    assert_int_equal(interfaces.items[1].receive_bytes, 1);
    assert_string_equal(interfaces.items[2].name, "eth0_1");
}

static void net_dev_that_is_empty_has_nothing(void **state)
{
    (void)state;
    assert_int_equal(mir_host_parse_net_dev(mir_view_cstr(""), &interfaces), MIR_OK);
    assert_int_equal(interfaces.count, 0);
}

/* Every beginning of a good text is answered without reading past it (the sanitizer watches). */
static void cut_texts_are_read_within_their_bounds(void **state)
{
    (void)state;
    const char whole[] = "cpu  1 2 3 4\nMemTotal: 5 kB\n8 0 sda 1 1 1 1 1 1 1 1 1 1\n"
                         "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
    mir_host_memory memory;
    mir_host_load load;
    for (size_t size = 0; size < sizeof whole; size++) {
        char *copy = malloc(size + 1); /* malloc(0) may be null */
        assert_non_null(copy);
        char *exact = realloc(copy, size == 0 ? 1 : size);
        assert_non_null(exact);
        memcpy(exact, whole, size);
        mir_view view = mir_view_of(exact, size);
        assert_int_equal(mir_host_parse_stat(view, &cpu), size >= 12 ? MIR_OK : MIR_E_INVALID);
        (void)!mir_host_parse_meminfo(view, &memory);
        assert_int_equal(mir_host_parse_loadavg(view, &load), MIR_E_INVALID);
        assert_int_equal(mir_host_parse_diskstats(view, NULL, NULL, &disks), MIR_OK);
        assert_int_equal(mir_host_parse_net_dev(view, &interfaces), MIR_OK);
        free(exact);
    }
    assert_int_equal(disks.count, 1);
    assert_int_equal(interfaces.count, 1);
}

static void rates(void **state)
{
    (void)state;
    assert_true(near(mir_host_rate(100, 300, 2 * MIR_NS_PER_S), 100));
    assert_true(near(mir_host_rate(300, 100, MIR_NS_PER_S), 0));
    assert_true(near(mir_host_rate(100, 300, 0), 0));
    assert_true(near(mir_host_rate(100, 300, -5), 0));
}

/* ---- a process ---- */

#define REST " S 1 1 1 0 -1 0 0 0 0 0 100 23 0 0 20 0 1 0 77 1000 345 18446744073709551615 1 1\n"

static void processes_may_have_any_name(void **state)
{
    (void)state;
    const char *const names[][2] = {
        {"12 (bash)" REST, "bash"},
        {"12 (a (b) c)" REST, "a (b) c"},
        {"12 () S 1 2)" REST, ") S 1 2"},
        {"12 ()" REST, ""},
        {"12 (caf\xe9)" REST, "caf?"},
        {"12 (kworker/u8:0-events_unbound_and_a_name_that_is_longer_than_any_field)" REST,
         "kworker/u8:0-events_unbound_and_a_name_that_is_longer_than_any_"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        mir_host_process process;
        assert_int_equal(mir_host_parse_process(mir_view_cstr(names[i][0]), &process), MIR_OK);
        assert_string_equal(process.name, names[i][1]);
        assert_int_equal(process.pid, 12);
        assert_int_equal(process.ticks, 123);
        assert_int_equal(process.started, 77);
        assert_int_equal(process.resident_pages, 345);
    }
}

static void what_is_no_process_is_refused(void **state)
{
    (void)state;
    const char *const texts[] = {"",
                                 "12",
                                 "12 (x",
                                 ")(",
                                 "12 (x)",
                                 "x (x)" REST,
                                 "(x)" REST,
                                 "4294967296 (x)" REST,
                                 "12 (x) S 1 1 1 0 -1 0 0 0 0 0 a 23 0 0 20 0 1 0 77 1000 345",
                                 "12 (x) S 1 1 1 0 -1 0 0 0 0 0 100 23 0 0 20 0 1 0 77 1000"};
    mir_host_process process;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(mir_host_parse_process(mir_view_cstr(texts[i]), &process), MIR_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stat_of_a_machine),
        cmocka_unit_test(stat_with_a_core_offline_keeps_the_numbers),
        cmocka_unit_test(stat_of_an_old_kernel_has_four_columns),
        cmocka_unit_test(stat_that_is_none_is_refused),
        cmocka_unit_test(stat_with_absurd_core_numbers_is_bounded),
        cmocka_unit_test(shares_add_up),
        cmocka_unit_test(a_busy_processor_is_at_100_and_never_above),
        cmocka_unit_test(shares_without_time_or_going_back_are_zero),
        cmocka_unit_test(meminfo_of_a_machine),
        cmocka_unit_test(meminfo_of_an_old_kernel_lacks_available),
        cmocka_unit_test(meminfo_never_says_more_than_the_total),
        cmocka_unit_test(meminfo_without_a_total_is_refused),
        cmocka_unit_test(loadavg_of_a_machine),
        cmocka_unit_test(loadavg_with_less),
        cmocka_unit_test(uptime_reads_its_first_number),
        cmocka_unit_test(diskstats_without_sysfs),
        cmocka_unit_test(diskstats_asks_sysfs_in_its_spelling),
        cmocka_unit_test(diskstats_counts_what_it_leaves_out),
        cmocka_unit_test(net_dev_of_a_machine),
        cmocka_unit_test(net_dev_that_is_empty_has_nothing),
        cmocka_unit_test(cut_texts_are_read_within_their_bounds),
        cmocka_unit_test(rates),
        cmocka_unit_test(processes_may_have_any_name),
        cmocka_unit_test(what_is_no_process_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
