/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_shares.h"

#include <stdlib.h>

#include "mir_assert.h"
#include "mir_thread.h"

enum { SHARES = MIR_TLOG_SHARES_MAX };

mir_status mir_tlog_numbers_merge(mir_tlog_number_run *runs, uint32_t count, uint64_t limit,
                                  mir_tlog_numbers *numbers,
                                  mir_status (*take)(void *context, const mir_tlog_batch *batch),
                                  void *context)
{
    mir_tlog_batch *batch = &numbers->batch;
    mir_status status = MIR_OK;
    int64_t next_ns = INT64_MAX;
    uint32_t filled = 0;
    *batch = (mir_tlog_batch){.column_count = 1,
                              .times_ns = numbers->times,
                              .devices = numbers->devices,
                              .cells = numbers->cells,
                              .present = numbers->present};
    for (uint32_t i = 0; i < count; i++) {
        if (*runs[i].times < next_ns) next_ns = *runs[i].times;
    }
    while (count > 0 && limit > 0 && status == MIR_OK) {
        const int64_t now_ns = next_ns;
        uint32_t left = 0;
        next_ns = INT64_MAX;
        for (uint32_t i = 0; i < count && limit > 0 && status == MIR_OK; i++) {
            mir_tlog_number_run run = runs[i];
            if (*run.times == now_ns) {
                numbers->times[filled] = now_ns;
                numbers->devices[filled] = run.device;
                numbers->cells[filled].u64 = *run.values++;
                numbers->present[filled++] = *run.present++;
                run.times++;
                limit--;
                if (filled == MIR_TLOG_NUMBERS_ROWS) {
                    batch->row_count = filled;
                    status = take(context, batch);
                    filled = 0;
                }
                if (--run.left == 0) continue;
            }
            if (*run.times < next_ns) next_ns = *run.times;
            runs[left++] = run;
        }
        count = left;
    }
    batch->row_count = filled;
    return status != MIR_OK || filled == 0 ? status : take(context, batch);
}

static mir_status take_bytes(mir_tlog_shares *shares, uint64_t bytes)
{
    const uint64_t before = atomic_fetch_add_explicit(shares->bytes, bytes, memory_order_relaxed);
    shares->bytes_taken += bytes;
    return before + bytes > shares->bytes_max ? MIR_E_TOO_LARGE : MIR_OK;
}

/* The first row from `from` on that is not before `time_ns`. Parts are alike: it is at `guess` most
 * of the time. */
static uint32_t first_from(const mir_tlog_part *part, uint32_t from, uint32_t guess,
                           int64_t time_ns)
{
    uint32_t low = from;
    uint32_t high = part->row_count;
    if (guess >= low && guess < high && part->times[guess] >= time_ns &&
        (guess == low || part->times[guess - 1] < time_ns)) {
        return guess;
    }
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (part->times[middle] < time_ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Stretches have about as many rows each as the longest part says. */
static void cut(mir_tlog_shares *shares, const mir_tlog_part *longest)
{
    uint32_t guesses[SHARES] = {0};
    for (uint32_t i = 0; i < shares->count; i++) {
        const mir_tlog_part *part = &shares->parts[shares->with_rows[i]];
        uint32_t *cuts = shares->cuts + (size_t)i * SHARES;
        uint32_t from = 0;
        for (uint32_t s = 0; s + 1 < SHARES; s++) {
            const uint64_t row = (uint64_t)longest->row_count * (s + 1) / SHARES;
            from = first_from(part, from, guesses[s], longest->times[row]);
            cuts[s] = guesses[s] = from;
        }
        cuts[SHARES - 1] = part->row_count;
    }
}

mir_status mir_tlog_shares_init(mir_tlog_shares *shares)
{
    const mir_tlog_part *longest = &shares->parts[0];
    for (uint32_t i = 0; i < shares->part_count; i++) {
        const mir_tlog_part *part = &shares->parts[i];
        if (part->row_count == 0) continue;
        MIR_ASSERT(part->column_count == 1);
        shares->count++;
        shares->rows += part->row_count;
        if (part->row_count > longest->row_count) longest = part;
    }
    MIR_ASSERT(shares->count > 0);
    const size_t places_size = shares->count * sizeof *shares->with_rows;
    const size_t cuts_size = (size_t)shares->count * SHARES * sizeof *shares->cuts;
    const mir_status status = take_bytes(shares, places_size + cuts_size);
    if (status != MIR_OK) return status;
    shares->with_rows = calloc(shares->count, sizeof *shares->with_rows);
    shares->cuts = malloc(cuts_size);
    if (shares->with_rows == NULL || shares->cuts == NULL) return MIR_E_NO_MEMORY;
    for (uint32_t i = 0, at = 0; i < shares->part_count; i++) {
        if (shares->parts[i].row_count > 0) shares->with_rows[at++] = i;
    }
    cut(shares, longest);
    return MIR_OK;
}

mir_status mir_tlog_shares_measure(mir_tlog_shares *shares)
{
    const mir_tlog_sink *sink = shares->sink;
    const mir_tlog_part *first = NULL;
    size_t sizes[SHARES] = {0};
    for (uint32_t i = 0; i < shares->count; i++) {
        const mir_tlog_part *part = &shares->parts[shares->with_rows[i]];
        const mir_tlog_rows_column column = {
            .column = shares->column, .values = part->values, .present = part->present};
        const mir_tlog_rows rows = {.device = part->number,
                                    .row_count = part->row_count,
                                    .column_count = 1,
                                    .times_ns = part->times,
                                    .columns = &column};
        const mir_status status =
            sink->measure(sink->context, &rows, shares->cuts + (size_t)i * SHARES, SHARES, sizes);
        if (status != MIR_OK) return status;
        if (first == NULL || part->times[0] < first->times[0]) first = part;
    }
    MIR_ASSERT(first != NULL);
    size_t all = 0;
    for (uint32_t s = 0; s < SHARES; s++) all += sizes[s];
    const mir_status status =
        sink->reserve(sink->context, first->number, shares->rows, all, &shares->places[0]);
    if (status != MIR_OK) return status;
    for (uint32_t s = 0; s < SHARES; s++) shares->places[s + 1] = shares->places[s] + sizes[s];
    return MIR_OK;
}

void mir_tlog_shares_fini(mir_tlog_shares *shares)
{
    free(shares->with_rows);
    free(shares->cuts);
    (void)atomic_fetch_sub_explicit(shares->bytes, shares->bytes_taken, memory_order_relaxed);
}

mir_status mir_tlog_shares_status(const mir_tlog_shares *shares)
{
    return (mir_status)atomic_load_explicit(&shares->failed, memory_order_relaxed);
}

static void fail(mir_tlog_shares *shares, mir_status status)
{
    unsigned none = MIR_OK;
    (void)atomic_compare_exchange_strong_explicit(&shares->failed, &none, status,
                                                  memory_order_relaxed, memory_order_relaxed);
}

/* Where a thread writes to. */
typedef struct stretch {
    const mir_tlog_shares *shares;
    uint8_t *at;
    const uint8_t *end;
} stretch;

static mir_status batch_place(void *context, const mir_tlog_batch *batch)
{
    stretch *to = context;
    const mir_tlog_shares *shares = to->shares;
    const mir_status failed = mir_tlog_shares_status(shares);
    if (failed != MIR_OK) return failed;
    if (shares->cancel != NULL && atomic_load_explicit(shares->cancel, memory_order_relaxed)) {
        return MIR_E_CANCELLED;
    }
    mir_thread_offer();
    return shares->sink->place(shares->sink->context, batch, &to->at, to->end);
}

static uint32_t runs_of(const mir_tlog_shares *shares, uint32_t number, mir_tlog_number_run *runs)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < shares->count; i++) {
        const mir_tlog_part *part = &shares->parts[shares->with_rows[i]];
        const uint32_t *cuts = shares->cuts + (size_t)i * SHARES;
        const uint32_t first = number == 0 ? 0 : cuts[number - 1];
        if (first == cuts[number]) continue;
        runs[count++] =
            (mir_tlog_number_run){part->times + first, part->values + first, part->present + first,
                                  cuts[number] - first, part->number};
    }
    return count;
}

static mir_status stretch_give(mir_tlog_shares *shares, uint32_t number, mir_tlog_number_run *runs,
                               mir_tlog_numbers *numbers)
{
    stretch to = {shares, shares->places[number], shares->places[number + 1]};
    const uint32_t count = runs_of(shares, number, runs);
    const mir_status status =
        mir_tlog_numbers_merge(runs, count, UINT64_MAX, numbers, batch_place, &to);
    MIR_ASSERT(status != MIR_OK || to.at == to.end);
    return status;
}

mir_status mir_tlog_shares_give(mir_tlog_shares *shares)
{
    mir_tlog_number_run *runs = NULL;
    mir_tlog_numbers *numbers = NULL;
    const uint64_t bytes = shares->count * sizeof *runs + sizeof *numbers;
    const uint64_t before = atomic_fetch_add_explicit(shares->bytes, bytes, memory_order_relaxed);
    mir_status status = before + bytes > shares->bytes_max ? MIR_E_TOO_LARGE : MIR_OK;
    if (status == MIR_OK) {
        runs = malloc(shares->count * sizeof *runs);
        numbers = malloc(sizeof *numbers);
        if (runs == NULL || numbers == NULL) status = MIR_E_NO_MEMORY;
    }
    const bool has_room = status == MIR_OK;
    while (status == MIR_OK) {
        const uint32_t number = atomic_fetch_add_explicit(&shares->next, 1, memory_order_relaxed);
        if (number >= SHARES) break;
        status = stretch_give(shares, number, runs, numbers);
    }
    free(runs);
    free(numbers);
    (void)atomic_fetch_sub_explicit(shares->bytes, bytes, memory_order_relaxed);
    if (!has_room) return status;
    if (status != MIR_OK) fail(shares, status);
    return MIR_OK;
}
