/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_host_top.h"

static mir_host_top top;
static mir_error error;

static mir_host_process of(int32_t pid, uint64_t ticks, uint64_t pages)
{
    return (mir_host_process){.pid = pid, .ticks = ticks, .started = 5, .resident_pages = pages};
}

static bool near(double a, double b)
{
    return a - b < 0.001 && b - a < 0.001;
}

static void the_busiest_come_first(void **state)
{
    (void)state;
    uint64_t second = (uint64_t)sysconf(_SC_CLK_TCK);
    mir_host_process before[] = {of(9, 1000, 1), of(2, 50, 1), of(3, 0, 7), of(4, 0, 9)};
    mir_host_process now[] = {of(4, 0, 9), of(3, 0, 7), of(2, 50 + second, 2),
                              of(9, 1000 + second / 2, 1)};
    mir_host_top_compare(before, 4, now, 4, MIR_NS_PER_S, 3, &top);
    assert_int_equal(top.count, 3);
    assert_int_equal(top.total, 4);
    assert_int_equal(top.items[0].pid, 2);
    assert_true(near(top.items[0].cpu, 100));
    assert_int_equal(top.items[0].memory, 2 * (uint64_t)sysconf(_SC_PAGESIZE));
    assert_int_equal(top.items[1].pid, 9);
    assert_true(near(top.items[1].cpu, 50));
    assert_int_equal(top.items[2].pid, 4); /* of equals the larger */
}

static void a_pid_that_is_another_process_now_has_its_own_ticks(void **state)
{
    (void)state;
    uint64_t second = (uint64_t)sysconf(_SC_CLK_TCK);
    mir_host_process before[] = {of(7, 100000, 1)};
    mir_host_process now[] = {of(7, second, 1), of(8, second / 4, 1)};
    now[0].started = 6;
    mir_host_top_compare(before, 1, now, 2, MIR_NS_PER_S, 10, &top);
    assert_true(near(top.items[0].cpu, 100));
    assert_true(near(top.items[1].cpu, 25));
}

static void an_answer_is_bounded(void **state)
{
    (void)state;
    static mir_host_process now[3000];
    for (int32_t i = 0; i < 3000; i++) now[i] = of(i, (uint64_t)((i * 7919) % 3000), 1);
    mir_host_top_compare(NULL, 0, now, 3000, MIR_NS_PER_S, UINT32_MAX, &top);
    assert_int_equal(top.count, MIR_HOST_TOP_MAX);
    assert_int_equal(top.total, 3000);
    for (size_t i = 0; i < top.count; i++)
        assert_int_equal((top.items[i].pid * 7919) % 3000, 2999 - (int)i);
    mir_host_top_compare(NULL, 0, now, 3000, MIR_NS_PER_S, 0, &top);
    assert_int_equal(top.count, 0);
}

static void this_process_is_there(void **state)
{
    (void)state;
    assert_int_equal(mir_host_top_read("/proc", MIR_NS_PER_MS, MIR_HOST_TOP_MAX, &top, &error),
                     MIR_OK);
    assert_true(top.count >= 1 && top.total >= top.count);
    for (size_t i = 0; i < top.count; i++) {
        assert_true(top.items[i].pid > 0 && top.items[i].cpu >= 0);
        assert_true(i == 0 || top.items[i - 1].cpu >= top.items[i].cpu);
    }
}

static void a_folder_of_other_things(void **state)
{
    (void)state;
    char dir[] = "/tmp/mir-top-XXXXXX";
    char path[64];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(mir_host_top_read(dir, 1, 5, &top, &error), MIR_E_NOT_FOUND);
    /* One that ended, one that makes no sense, one that is none, and one. */
    const char *const names[] = {"12", "13", "self", "14"};
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(mkdir(path, 0700), 0);
        (void)snprintf(path, sizeof path, "%s/%s/stat", dir, names[i]);
        FILE *file = i == 0 ? NULL : fopen(path, "w");
        if (file == NULL) continue;
        fputs(i == 3 ? "14 (one) S 1 1 1 0 -1 0 0 0 0 0 5 6 0 0 20 0 1 0 77 1000 3 0\n" : "13 (x",
              file);
        assert_int_equal(fclose(file), 0);
    }
    assert_int_equal(mir_host_top_read(dir, 1, 5, &top, &error), MIR_OK);
    assert_int_equal(top.count, 1);
    assert_int_equal(top.items[0].pid, 14);
    assert_string_equal(top.items[0].name, "one");
    assert_true(near(top.items[0].cpu, 0));
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(mir_host_top_read(dir, 1, 5, &top, &error), MIR_E_NOT_FOUND);
    assert_non_null(strstr(error.text, dir));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_busiest_come_first),
        cmocka_unit_test(a_pid_that_is_another_process_now_has_its_own_ticks),
        cmocka_unit_test(an_answer_is_bounded),
        cmocka_unit_test(this_process_is_there),
        cmocka_unit_test(a_folder_of_other_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
