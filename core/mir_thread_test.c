/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "mir_thread.h"

enum { RUNTIME = 3, WORDS = 6 }; /* of the kernel's attributes, in words of 64 bits */

typedef struct seen {
    int wanted_nice, nice;
    long status;
    uint64_t attributes[WORDS];
} seen;

static void *give_way(void *context)
{
    seen *s = context;
    mir_thread_give_way(s->wanted_nice);
    s->nice = getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid));
    s->status = syscall(SYS_sched_getattr, 0, s->attributes, sizeof s->attributes, 0);
    return NULL;
}

static seen in_a_thread(int nice_level)
{
    seen s = {.wanted_nice = nice_level};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, give_way, &s), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return s;
}

static void a_thread_has_its_nice_level_and_its_policy(void **state)
{
    (void)state;
    int before = getpriority(PRIO_PROCESS, 0);
    seen as_others = in_a_thread(0), last = in_a_thread(MIR_THREAD_NICE_LAST);
    assert_int_equal(as_others.nice, before);
    assert_int_equal(last.nice, MIR_THREAD_NICE_LAST);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), before);
    assert_int_equal(last.status, 0);
    assert_int_equal(last.attributes[0] >> 32, 0); /* SCHED_OTHER */
}

static void a_thread_has_the_slice_where_the_kernel_has_slices(void **state)
{
    (void)state;
    uint64_t own[WORDS] = {0};
    if (syscall(SYS_sched_getattr, 0, own, sizeof own, 0) != 0 || own[RUNTIME] == 0) skip();
    seen s = in_a_thread(MIR_THREAD_NICE_LAST);
    assert_int_equal(s.status, 0);
    assert_int_equal(s.attributes[RUNTIME], (uint64_t)MIR_THREAD_SLICE_US * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_has_its_nice_level_and_its_policy),
        cmocka_unit_test(a_thread_has_the_slice_where_the_kernel_has_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
