/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "mir_clock.h"
#include "mir_thread.h"

enum {
    RUNTIME = 3,
    WORDS = 6,
    CRUNCH_MS = 200
}; /* of the kernel's attributes, in words of 64 bits */

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

/* Both on one processor; what each of them has used of it, and how often it had to wait for it. */
typedef struct cruncher {
    bool offers;
    long switches;
} cruncher;

static int64_t used_ns(void)
{
    struct timespec used;
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used), 0);
    return used.tv_sec * MIR_NS_PER_S + used.tv_nsec;
}

static void *crunch(void *context)
{
    cruncher *c = context;
    while (used_ns() < CRUNCH_MS * MIR_NS_PER_MS)
        if (c->offers) mir_thread_offer();
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
    c->switches = usage.ru_nvcsw + usage.ru_nivcsw;
    return NULL;
}

static long switches_of_two(bool offers)
{
    cruncher two[2] = {{.offers = offers}, {.offers = offers}};
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crunch, &two[i]), 0);
    for (unsigned i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    return two[0].switches + two[1].switches;
}

static void who_computes_for_long_lets_others_between(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    const long offering = switches_of_two(true), plain = switches_of_two(false);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_true(offering > 3 * plain);
}

static void *where_it_may_run(void *context)
{
    assert_int_equal(sched_getaffinity(0, sizeof(cpu_set_t), context), 0);
    return NULL;
}

static void a_thread_beside_runs_on_other_processors(void **state)
{
    (void)state;
    cpu_set_t before, one, its;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    pthread_attr_t attributes;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    if (CPU_COUNT(&before) > 1) {
        pthread_t thread;
        assert_true(mir_thread_beside(&attributes));
        assert_int_equal(pthread_create(&thread, &attributes, where_it_may_run, &its), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(CPU_COUNT(&its), CPU_COUNT(&before) - 1);
    }
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_false(mir_thread_beside(&attributes));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(pthread_attr_destroy(&attributes), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_has_its_nice_level_and_its_policy),
        cmocka_unit_test(a_thread_has_the_slice_where_the_kernel_has_slices),
        cmocka_unit_test(a_thread_beside_runs_on_other_processors),
        cmocka_unit_test(who_computes_for_long_lets_others_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
