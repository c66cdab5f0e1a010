/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_histogram.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static mir_histogram a;
static mir_histogram b;

static int empty(void **state)
{
    (void)state;
    mir_histogram_reset(&a);
    mir_histogram_reset(&b);
    return 0;
}

static void buckets_cover_every_value_without_gap_or_overlap(void **state)
{
    (void)state;
    assert_int_equal(mir_histogram_lowest(0), 0);
    for (uint32_t i = 0; i < MIR_HISTOGRAM_BUCKETS; i++) {
        int64_t lowest = mir_histogram_lowest(i);
        int64_t highest = mir_histogram_highest(i);
        assert_int_equal(mir_histogram_index(lowest), i);
        assert_int_equal(mir_histogram_index(highest), i);
        assert_true(highest - lowest <= lowest / MIR_HISTOGRAM_SUB_BUCKETS);
        if (i > 0) assert_int_equal(mir_histogram_highest(i - 1) + 1, lowest);
    }
    assert_int_equal(mir_histogram_index(INT64_MAX), MIR_HISTOGRAM_BUCKETS - 1);
    assert_int_equal(mir_histogram_index(-5), 0);
}

static void percentiles_are_those_of_the_values_within_the_precision(void **state)
{
    (void)state;
    for (int64_t v = 1; v <= 100000; v++) mir_histogram_record(&a, v);
    assert_int_equal(mir_histogram_count(&a), 100000);
    assert_int_equal(mir_histogram_max(&a), 100000);
    assert_true(mir_histogram_mean(&a) == 50000.5);
    static const double percentiles[] = {1, 25, 50, 90, 99, 99.9, 99.99};
    for (size_t i = 0; i < sizeof percentiles / sizeof percentiles[0]; i++) {
        double exact = percentiles[i] * 1000;
        double told = (double)mir_histogram_percentile(&a, percentiles[i]);
        assert_true(told >= exact - 1 && told <= exact * (1 + 1.0 / MIR_HISTOGRAM_SUB_BUCKETS));
    }
    assert_int_equal(mir_histogram_percentile(&a, 0), 1);
    assert_int_equal(mir_histogram_percentile(&a, 100), 100000);
    assert_int_equal(mir_histogram_percentile(&a, 250), 100000);
}

static void an_empty_one_answers_zero(void **state)
{
    (void)state;
    assert_int_equal(mir_histogram_count(&a), 0);
    assert_int_equal(mir_histogram_percentile(&a, 99), 0);
    assert_int_equal(mir_histogram_max(&a), 0);
    assert_true(mir_histogram_mean(&a) == 0);
}

static void the_extremes_are_recorded(void **state)
{
    (void)state;
    mir_histogram_record(&a, -1);
    mir_histogram_record(&a, INT64_MAX);
    mir_histogram_record(&a, INT64_MAX);
    mir_histogram_record(&a, INT64_MAX);
    assert_int_equal(mir_histogram_percentile(&a, 1), 0);
    assert_int_equal(mir_histogram_percentile(&a, 100), INT64_MAX);
    assert_true(mir_histogram_mean(&a) > 4e18); /* the sum stopped, it did not wrap */
}

static void merging_equals_recording_into_one(void **state)
{
    (void)state;
    static mir_histogram both;
    mir_histogram_reset(&both);
    unsigned seed = 7;
    for (int i = 0; i < 20000; i++) {
        int64_t value = (int64_t)rand_r(&seed) >> (rand_r(&seed) % 30);
        mir_histogram_record(i % 3 == 0 ? &a : &b, value);
        mir_histogram_record(&both, value);
    }
    mir_histogram_merge(&a, &b);
    assert_memory_equal(&a, &both, sizeof a);
}

static void a_stall_counts_for_everything_that_waited_behind_it(void **state)
{
    (void)state;
    /* Each against the definition, one value at a time. */
    static const int64_t cases[][2] = {{1000, 10}, {999, 10},   {15, 10},      {20, 10},
                                       {10, 10},   {9, 10},     {1000000, 3},  {5, 0},
                                       {5, -1},    {100000, 1}, {77777, 1234}, {-4, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = cases[i][0];
        int64_t interval = cases[i][1];
        mir_histogram_reset(&a);
        mir_histogram_reset(&b);
        mir_histogram_record_corrected(&a, value, interval);
        mir_histogram_record(&b, value);
        for (int64_t v = value - interval; interval > 0 && v >= interval; v -= interval)
            mir_histogram_record(&b, v);
        assert_memory_equal(&a, &b, sizeof a);
    }
}

static void a_stall_of_any_length_is_recorded_at_once(void **state)
{
    (void)state;
    mir_histogram_record_corrected(&a, INT64_MAX, 1);
    assert_true(mir_histogram_count(&a) == (uint64_t)INT64_MAX);
    int64_t half = mir_histogram_percentile(&a, 50);
    assert_true(half >= INT64_MAX / 2 &&
                half - INT64_MAX / 2 <= INT64_MAX / MIR_HISTOGRAM_SUB_BUCKETS);
}

static _Atomic bool done;

static void *write_values(void *argument)
{
    (void)argument;
    for (int64_t i = 0; i < 200000; i++) mir_histogram_record(&a, i % 1000);
    atomic_store(&done, true);
    return NULL;
}

static void another_thread_reads_while_one_writes(void **state)
{
    (void)state;
    pthread_t writer;
    uint64_t count = 0;
    atomic_store(&done, false);
    assert_int_equal(pthread_create(&writer, NULL, write_values, NULL), 0);
    while (!atomic_load(&done)) {
        uint64_t now = mir_histogram_count(&a);
        assert_true(now >= count && now <= 200000);
        assert_true(mir_histogram_percentile(&a, 99) <= 999);
        count = now;
    }
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_int_equal(mir_histogram_count(&a), 200000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(buckets_cover_every_value_without_gap_or_overlap, empty),
        cmocka_unit_test_setup(percentiles_are_those_of_the_values_within_the_precision, empty),
        cmocka_unit_test_setup(an_empty_one_answers_zero, empty),
        cmocka_unit_test_setup(the_extremes_are_recorded, empty),
        cmocka_unit_test_setup(merging_equals_recording_into_one, empty),
        cmocka_unit_test_setup(a_stall_counts_for_everything_that_waited_behind_it, empty),
        cmocka_unit_test_setup(a_stall_of_any_length_is_recorded_at_once, empty),
        cmocka_unit_test_setup(another_thread_reads_while_one_writes, empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
