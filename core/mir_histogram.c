/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_histogram.h"

#include "mir_assert.h"

int64_t mir_histogram_lowest(uint32_t index)
{
    MIR_ASSERT(index < MIR_HISTOGRAM_BUCKETS);
    if (index < MIR_HISTOGRAM_SUB_BUCKETS) return index;
    uint32_t shift = (index >> MIR_HISTOGRAM_BITS) - 1;
    uint64_t leading = MIR_HISTOGRAM_SUB_BUCKETS + (index & (MIR_HISTOGRAM_SUB_BUCKETS - 1));
    return (int64_t)(leading << shift);
}

int64_t mir_histogram_highest(uint32_t index)
{
    return index + 1 == MIR_HISTOGRAM_BUCKETS ? INT64_MAX : mir_histogram_lowest(index + 1) - 1;
}

static void add_to_sum(mir_histogram *histogram, unsigned __int128 value)
{
    unsigned __int128 sum = atomic_load_explicit(&histogram->sum, memory_order_relaxed) + value;
    atomic_store_explicit(&histogram->sum, sum > UINT64_MAX ? UINT64_MAX : (uint64_t)sum,
                          memory_order_relaxed);
}

void mir_histogram_record_corrected(mir_histogram *histogram, int64_t value, int64_t interval)
{
    mir_histogram_record(histogram, value);
    if (interval <= 0) return;
    int64_t missing = value - interval;
    while (missing >= interval) {
        /* All that fall into the bucket of `missing` at once. */
        uint32_t index = mir_histogram_index(missing);
        int64_t lowest = mir_histogram_lowest(index);
        if (lowest < interval) lowest = interval;
        int64_t more = (missing - lowest) / interval;
        int64_t last = missing - more * interval;
        uint64_t count = (uint64_t)more + 1;
        mir_histogram_add(histogram, index, count);
        add_to_sum(histogram, ((unsigned __int128)missing + (unsigned __int128)last) * count / 2);
        missing = last - interval;
    }
}

void mir_histogram_merge(mir_histogram *into, const mir_histogram *from)
{
    for (uint32_t i = 0; i < MIR_HISTOGRAM_BUCKETS; i++) {
        uint64_t count = atomic_load_explicit(&from->counts[i], memory_order_relaxed);
        if (count != 0) mir_histogram_add(into, i, count);
    }
    add_to_sum(into, atomic_load_explicit(&from->sum, memory_order_relaxed));
    int64_t max = mir_histogram_max(from);
    if (max > mir_histogram_max(into)) atomic_store_explicit(&into->max, max, memory_order_relaxed);
}

void mir_histogram_reset(mir_histogram *histogram)
{
    for (uint32_t i = 0; i < MIR_HISTOGRAM_BUCKETS; i++)
        atomic_store_explicit(&histogram->counts[i], 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->sum, 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->max, 0, memory_order_relaxed);
}

uint64_t mir_histogram_count(const mir_histogram *histogram)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < MIR_HISTOGRAM_BUCKETS; i++)
        count += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
    return count;
}

double mir_histogram_mean(const mir_histogram *histogram)
{
    uint64_t count = mir_histogram_count(histogram);
    uint64_t sum = atomic_load_explicit(&histogram->sum, memory_order_relaxed);
    return count == 0 ? 0 : (double)sum / (double)count;
}

int64_t mir_histogram_max(const mir_histogram *histogram)
{
    return atomic_load_explicit(&histogram->max, memory_order_relaxed);
}

int64_t mir_histogram_percentile(const mir_histogram *histogram, double percentile)
{
    uint64_t count = mir_histogram_count(histogram);
    if (count == 0) return 0;
    /* How many values lie at or below the answer: at least one, rounded up, at most all. */
    double exact = percentile <= 0 ? 0 : percentile / 100 * (double)count;
    uint64_t rank = exact >= (double)count ? count : (uint64_t)exact;
    if ((double)rank < exact && rank < count) rank++;
    if (rank == 0) rank = 1;
    uint64_t seen = 0;
    int64_t max = mir_histogram_max(histogram);
    for (uint32_t i = 0; i < MIR_HISTOGRAM_BUCKETS; i++) {
        seen += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        if (seen < rank) continue;
        int64_t highest = mir_histogram_highest(i);
        return highest < max ? highest : max;
    }
    return max;
}
