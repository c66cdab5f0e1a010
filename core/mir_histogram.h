/* SPDX-License-Identifier: Apache-2.0 */
/* mir_histogram: how often which value occurred, from 0 to INT64_MAX, in fixed memory.
 *
 * Why        Latencies are told as percentiles, and what a percentile needs is the distribution.
 *            Buckets grow with the value: each power of two has 2^MIR_HISTOGRAM_BITS of them, so
 *            a value is known to 1/2^MIR_HISTOGRAM_BITS of itself, and small ones exactly.
 * Ownership  The caller owns the struct; a zeroed one is empty and ready. Nothing is allocated.
 * Affinity   record, record_corrected, merge's target, reset: one thread, the histogram's writer.
 *            Everything that takes a const histogram may run on any thread meanwhile, and sees
 *            each recorded value wholly or not yet; sums over buckets are then of no one instant.
 * Units      The caller's (nanoseconds, as a rule). Percentiles are from 0 to 100.
 * Bounds     record: a few instructions. record_corrected: at most one step for each bucket.
 * Errors     None. Negative values count as 0. Sums stop at UINT64_MAX.
 * Source     Log-linear buckets and the correction for coordinated omission as in HdrHistogram
 *            (Gil Tene). */
#ifndef MIR_HISTOGRAM_H
#define MIR_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#ifndef MIR_HISTOGRAM_BITS
#define MIR_HISTOGRAM_BITS 5
#endif

enum {
    MIR_HISTOGRAM_SUB_BUCKETS = 1 << MIR_HISTOGRAM_BITS,
    MIR_HISTOGRAM_BUCKETS = (63 - MIR_HISTOGRAM_BITS + 1) * MIR_HISTOGRAM_SUB_BUCKETS,
};

typedef struct mir_histogram {
    _Atomic uint64_t sum;
    _Atomic int64_t max;
    _Atomic uint64_t counts[MIR_HISTOGRAM_BUCKETS];
} mir_histogram;

/* Below 2^BITS the value is the index. Above, the bits after the leading one choose among the
 * sub-buckets of its power of two. */
static inline uint32_t mir_histogram_index(int64_t value)
{
    uint64_t v = value < 0 ? 0 : (uint64_t)value;
    if (v < MIR_HISTOGRAM_SUB_BUCKETS) return (uint32_t)v;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(v) - MIR_HISTOGRAM_BITS;
    return (shift << MIR_HISTOGRAM_BITS) + (uint32_t)(v >> shift);
}

/* The smallest and the largest value of a bucket. */
int64_t mir_histogram_lowest(uint32_t index);
int64_t mir_histogram_highest(uint32_t index);

static inline void mir_histogram_add(mir_histogram *histogram, uint32_t index, uint64_t count)
{
    /* There is one writer: no read-modify-write is needed, only that readers see whole values. */
    _Atomic uint64_t *slot = &histogram->counts[index];
    atomic_store_explicit(slot, atomic_load_explicit(slot, memory_order_relaxed) + count,
                          memory_order_relaxed);
}

static inline void mir_histogram_record(mir_histogram *histogram, int64_t value)
{
    uint64_t sum = atomic_load_explicit(&histogram->sum, memory_order_relaxed);
    if (value < 0) value = 0;
    mir_histogram_add(histogram, mir_histogram_index(value), 1);
    if (__builtin_add_overflow(sum, (uint64_t)value, &sum)) sum = UINT64_MAX;
    atomic_store_explicit(&histogram->sum, sum, memory_order_relaxed);
    if (value > atomic_load_explicit(&histogram->max, memory_order_relaxed))
        atomic_store_explicit(&histogram->max, value, memory_order_relaxed);
}

/* For a source that sends every `interval` and waits for each answer: while it waited for this
 * value it did not send others that would have waited too. Records the value and those: value -
 * interval, value - 2 * interval and so on, down to interval. With interval <= 0 as record. */
void mir_histogram_record_corrected(mir_histogram *histogram, int64_t value, int64_t interval);

/* Adds what `from` has to `into`. */
void mir_histogram_merge(mir_histogram *into, const mir_histogram *from);
void mir_histogram_reset(mir_histogram *histogram);

uint64_t mir_histogram_count(const mir_histogram *histogram);
/* 0 when nothing was recorded. */
double mir_histogram_mean(const mir_histogram *histogram);
int64_t mir_histogram_max(const mir_histogram *histogram);
/* The value that `percentile` of 100 recorded values do not exceed, rounded up to the end of its
 * bucket but never above the maximum; 0 when nothing was recorded. */
int64_t mir_histogram_percentile(const mir_histogram *histogram, double percentile);

#endif
