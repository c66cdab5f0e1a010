/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_thread.h"
#include "mir_tlog_number.h"
#include "mir_tlog_part.h"
#include "mir_tlog_shares.h"
#include "mir_workers.h"

/* Queries: each device's rows are read, or what they come to, by as many threads as there is work
 * for; then the devices' or groups' parts are merged by time. */

enum {
    ROWS_MAX_DEFAULT = 10 * 1000 * 1000,
    BATCH_ROWS = 512,
    WORKERS_MAX = 8,
    /* Fewer rows are written sooner than another thread wakes. */
    SHARED_ROWS_MIN = 2048,
    /* Fewer devices are read sooner than a thread starts. */
    WORKER_DEVICES_MIN = 32,
    DEVICES_AT_ONCE = 8,
};

/* What helpers wait for when all devices are read. */
typedef enum stage {
    STAGE_READ,
    STAGE_GIVE, /* give out the answer, then end */
    STAGE_END,
} stage;

struct query;

typedef struct helper {
    struct query *q;
    mir_tlog_part_maker *worker;
    pthread_t thread;
} helper;

typedef struct query {
    mir_tlog *tlog;
    mir_tlog_query_spec spec; /* with its defaults */
    mir_tlog_version *version;
    atomic_ullong bytes;
    atomic_ullong rows;
    uint32_t *order; /* devices by id, without doubles */
    uint32_t order_count;
    atomic_uint next; /* of the order, to be taken by a worker */
    atomic_bool failed;
    mir_tlog_part *parts; /* in the order of devices, or of groups */
    uint32_t part_count;
    mir_tlog_part_maker workers[WORKERS_MAX];
    uint32_t worker_count;
    helper helpers[WORKERS_MAX];
    uint32_t helper_count;
    pthread_mutex_t mutex; /* of what follows, until the helpers have ended */
    pthread_cond_t changed;
    uint32_t reading; /* helpers */
    stage stage;
    mir_tlog_shares shares;
    mir_tlog_columns columns; /* of the answer */
    mir_tlog_query_info info;
    int64_t given_ns; /* the time of the last row that was given out; not of runs, nor of shares */
    mir_error *error;
} query;

static mir_status no_memory(query *q)
{
    return mir_error_set(q->error, MIR_E_NO_MEMORY, "out of memory");
}

/* ---- The devices ---- */

static mir_status devices_order(query *q)
{
    if (mir_tlog_scan_order(&q->spec, &q->order, &q->order_count) != MIR_OK) return no_memory(q);
    const size_t parts = q->spec.groups == NULL ? q->order_count : q->spec.group_count;
    q->parts = calloc(parts + 1, sizeof *q->parts);
    if (q->parts == NULL) return no_memory(q);
    q->part_count = (uint32_t)parts;
    return MIR_OK;
}

/* The part of the range that a device has rows of the answer in; false: none. A page goes on behind
 * the last row of the one before it, which says for each device where that is. */
static bool device_range(const query *q, mir_view device, int64_t *first_ns, int64_t *last_ns)
{
    *first_ns = q->spec.from_ns;
    *last_ns = q->spec.to_ns - 1;
    if (!q->spec.after) return true;
    const int order = mir_view_compare(device, q->spec.after_device);
    int64_t at = q->spec.after_ns;
    if (q->spec.backward) {
        if (order >= 0 && at == INT64_MIN) return false;
        if (order >= 0) at--;
        if (at < *last_ns) *last_ns = at;
    } else {
        if (order <= 0 && at == INT64_MAX) return false;
        if (order <= 0) at++;
        if (at > *first_ns) *first_ns = at;
    }
    return *first_ns <= *last_ns;
}

static mir_status device_take(query *q, mir_tlog_part_maker *worker, uint32_t place)
{
    const uint32_t device = q->order[place];
    const mir_view id = q->spec.device_ids[device];
    int64_t first_ns;
    int64_t last_ns;
    if (mir_tlog_scan_cancelled(&worker->scan)) {
        return mir_tlog_scan_failed(&worker->scan, MIR_E_CANCELLED);
    }
    if (!device_range(q, id, &first_ns, &last_ns)) return MIR_OK;
    if (q->spec.groups != NULL) {
        return mir_tlog_part_group(worker, id, place, first_ns, last_ns, q->spec.groups[device]);
    }
    mir_tlog_part *part = &q->parts[place];
    part->number = device;
    return mir_tlog_part_device(worker, id, first_ns, last_ns, part);
}

/* Of a helper, which is no thread of a pool. */
static bool is_long(void)
{
    struct timespec used;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) != 0) return false;
    return used.tv_sec != 0 || used.tv_nsec > MIR_WORKERS_BRIEF_US * MIR_NS_PER_US;
}

static void work(query *q, mir_tlog_part_maker *worker)
{
    const bool is_helper = worker != &q->workers[0];
    bool gives_way = false;
    mir_status status = MIR_OK;
    while (status == MIR_OK && !atomic_load_explicit(&q->failed, memory_order_relaxed)) {
        const uint32_t first =
            atomic_fetch_add_explicit(&q->next, DEVICES_AT_ONCE, memory_order_relaxed);
        if (first >= q->order_count) break;
        if (!is_helper) {
            mir_workers_breathe();
        } else if (!gives_way && is_long()) {
            mir_thread_give_way(MIR_THREAD_NICE_LAST);
            gives_way = true;
        }
        uint32_t end = first + DEVICES_AT_ONCE;
        if (end > q->order_count) end = q->order_count;
        for (uint32_t i = first; i < end && status == MIR_OK; i++) {
            mir_thread_offer();
            status = device_take(q, worker, i);
        }
    }
    worker->status = status;
    if (status != MIR_OK) atomic_store_explicit(&q->failed, true, memory_order_relaxed);
}

static void *helper_main(void *context)
{
    const helper *h = context;
    query *q = h->q;
    (void)pthread_setname_np(pthread_self(), "mir-query");
    work(q, h->worker);
    (void)pthread_mutex_lock(&q->mutex);
    if (--q->reading == 0) (void)pthread_cond_broadcast(&q->changed);
    while (q->stage == STAGE_READ) (void)pthread_cond_wait(&q->changed, &q->mutex);
    const stage next = q->stage;
    (void)pthread_mutex_unlock(&q->mutex);
    /* Without memory for it the others go on. */
    if (next == STAGE_GIVE) (void)!mir_tlog_shares_give(&q->shares);
    return NULL;
}

static bool helper_start(helper *h)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    const bool started = mir_thread_beside(&attributes) &&
                         pthread_create(&h->thread, &attributes, helper_main, h) == 0;
    (void)pthread_attr_destroy(&attributes);
    return started;
}

static void helpers_await(query *q)
{
    (void)pthread_mutex_lock(&q->mutex);
    while (q->reading > 0) (void)pthread_cond_wait(&q->changed, &q->mutex);
    (void)pthread_mutex_unlock(&q->mutex);
}

static void helpers_go_on(query *q, stage next)
{
    (void)pthread_mutex_lock(&q->mutex);
    if (q->stage == STAGE_READ) q->stage = next;
    (void)pthread_cond_broadcast(&q->changed);
    (void)pthread_mutex_unlock(&q->mutex);
}

/* As soon as there is nothing more for them to do: other queries may have them. */
static void helpers_end(query *q)
{
    helpers_go_on(q, STAGE_END);
    for (uint32_t i = 0; i < q->helper_count; i++) {
        (void)pthread_join(q->helpers[i].thread, NULL);
        (void)atomic_fetch_sub_explicit(&q->tlog->query_helpers, 1, memory_order_relaxed);
    }
    q->helper_count = 0;
}

static mir_status worker_add(query *q)
{
    mir_tlog_part_maker *worker = &q->workers[q->worker_count++];
    worker->rows = &q->rows;
    worker->scan = (mir_tlog_scan){
        .tlog = q->tlog,
        .spec = &q->spec,
        .version = q->version,
        .bytes = &q->bytes,
        .bytes_max = q->spec.bytes_max,
    };
    const mir_status status = mir_tlog_part_maker_init(worker);
    if (status == MIR_OK) return MIR_OK;
    /* Without a helper it goes on, without the first one it does not. */
    if (q->worker_count == 1 && q->error != NULL) *q->error = worker->scan.error;
    mir_tlog_part_maker_fini(worker);
    *worker = (mir_tlog_part_maker){0};
    q->worker_count--;
    return status;
}

/* As many threads as the devices are worth, and as other queries leave. */
static mir_status work_all(query *q)
{
    mir_status status = worker_add(q);
    uint32_t wanted = q->order_count / WORKER_DEVICES_MIN;
    if (wanted > WORKERS_MAX) wanted = WORKERS_MAX;
    while (status == MIR_OK && q->worker_count < wanted) {
        const uint32_t busy =
            atomic_fetch_add_explicit(&q->tlog->query_helpers, 1, memory_order_relaxed);
        bool running = busy < q->tlog->query_helpers_max && worker_add(q) == MIR_OK;
        if (running) {
            helper *h = &q->helpers[q->helper_count];
            *h = (helper){.q = q, .worker = &q->workers[q->worker_count - 1]};
            (void)pthread_mutex_lock(&q->mutex);
            running = helper_start(h);
            if (running) q->reading++;
            (void)pthread_mutex_unlock(&q->mutex);
        }
        if (!running) {
            /* Then this one does it alone. */
            (void)atomic_fetch_sub_explicit(&q->tlog->query_helpers, 1, memory_order_relaxed);
            break;
        }
        q->helper_count++;
    }
    if (status == MIR_OK) work(q, &q->workers[0]);
    helpers_await(q);
    q->info.chunks_corrupt = mir_tlog_version_damage(q->tlog, q->version);
    for (uint32_t i = 0; i < q->worker_count; i++) {
        const mir_tlog_part_maker *worker = &q->workers[i];
        q->info.rows_read += worker->scan.rows_read;
        q->info.chunks_corrupt += worker->scan.chunks_corrupt;
        if (worker->scan.left_out &&
            (!q->info.left_out || worker->scan.left_out_until_ns > q->info.left_out_until_ns)) {
            q->info.left_out = true;
            q->info.left_out_until_ns = worker->scan.left_out_until_ns;
        }
        if (status == MIR_OK && worker->status != MIR_OK) status = worker->status;
        if (worker->status != MIR_OK && worker->status == status && q->error != NULL) {
            *q->error = worker->scan.error;
        }
    }
    return status;
}

/* ---- Giving out ---- */

static uint32_t part_row(const query *q, const mir_tlog_part *part)
{
    return q->spec.backward ? part->left - 1 : part->row_count - part->left;
}

static bool part_before(const query *q, uint32_t a, uint32_t b)
{
    const mir_tlog_part *left = &q->parts[a];
    const mir_tlog_part *right = &q->parts[b];
    const int64_t left_time = left->times[part_row(q, left)];
    const int64_t right_time = right->times[part_row(q, right)];
    /* Parts are in the order of device ids. */
    const bool before = left_time != right_time ? left_time < right_time : a < b;
    return q->spec.backward ? !before : before;
}

static void heap_down(const query *q, uint32_t *heap, uint32_t count, uint32_t at)
{
    for (;;) {
        uint32_t least = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++) {
            if (part_before(q, heap[child], heap[least])) least = child;
        }
        if (least == at) return;
        const uint32_t other = heap[at];
        heap[at] = heap[least];
        heap[least] = other;
        at = least;
    }
}

static mir_cell cell_of(const mir_tlog_part *part, mir_column_type type, uint64_t bits)
{
    mir_cell cell = {0};
    switch (type) {
    case MIR_COLUMN_I64: cell.i64 = (int64_t)bits; break;
    case MIR_COLUMN_U64: cell.u64 = bits; break;
    case MIR_COLUMN_F64: memcpy(&cell.f64, &bits, sizeof bits); break;
    case MIR_COLUMN_BOOL: cell.boolean = bits != 0; break;
    case MIR_COLUMN_STRING: cell.string = part->texts[bits]; break;
    }
    return cell;
}

static void row_out(const query *q, const mir_tlog_part *part, mir_cell *cells, uint8_t *present)
{
    memset(present, 0, q->columns.count);
    const uint32_t row = part_row(q, part);
    const mir_tlog_part_maker *maker = part->maker;
    MIR_ASSERT(maker->rank != NULL);
    for (uint32_t i = 0; i < part->column_count; i++) {
        const size_t from = (size_t)i * part->stride + row;
        if (part->present[from] == 0) continue;
        const uint32_t to = maker->rank[part->columns[i]];
        present[to] = 1;
        cells[to] =
            cell_of(part, maker->columns.columns[part->columns[i]].type, part->values[from]);
    }
}

static int column_compare(const void *a, const void *b)
{
    return mir_tlog_column_compare(a, b);
}

/* Whether a column of the answer has sums, of numbers that have a name of their own in it. */
static bool is_sum(const query *q, const mir_column *column)
{
    static const char prefix[] = "sum(";
    if (q->spec.functions == MIR_TLOG_SUM) return true;
    return column->name_size >= sizeof prefix - 1 &&
           memcmp(column->name, prefix, sizeof prefix - 1) == 0;
}

/* Sums of one name have one type in all of the answer: parts know of their own alone. */
typedef struct sum_types {
    mir_tlog_columns names;
    uint32_t *types; /* by name: a bit for each */
    uint32_t capacity;
} sum_types;

static mir_status sum_note(sum_types *all, const mir_column *column, uint32_t *number)
{
    const mir_status status =
        mir_tlog_columns_number(&all->names, mir_tlog_column_name(column), MIR_COLUMN_F64, number);
    if (status != MIR_OK || *number < all->capacity) return status;
    const uint32_t capacity = all->capacity * 2 + 16;
    uint32_t *types = realloc(all->types, capacity * sizeof *types);
    if (types == NULL) return MIR_E_NO_MEMORY;
    memset(types + all->capacity, 0, (capacity - all->capacity) * sizeof *types);
    all->types = types;
    all->capacity = capacity;
    return MIR_OK;
}

static void values_widen(mir_tlog_part *part, uint32_t column, mir_column_type type)
{
    uint64_t *values = part->values + (size_t)column * part->stride;
    for (uint32_t row = 0; row < part->row_count; row++) {
        values[row] = mir_tlog_bits_of(mir_tlog_number_of(type, values[row]));
    }
}

/* The columns of one maker's parts that are not to stay as they are become columns of doubles. */
static mir_status maker_widen(query *q, mir_tlog_part_maker *maker, sum_types *all)
{
    const uint32_t count = maker->columns.count;
    maker->moved = calloc((size_t)count + 1, sizeof *maker->moved);
    if (maker->moved == NULL) return MIR_E_NO_MEMORY;
    bool any = false;
    for (uint32_t i = 0; i < count; i++) {
        const mir_column column = maker->columns.columns[i];
        uint32_t number;
        if (!is_sum(q, &column) || column.type == MIR_COLUMN_F64) continue;
        mir_status status = sum_note(all, &column, &number);
        if (status == MIR_OK && __builtin_popcount(all->types[number]) == 1) continue;
        if (status == MIR_OK) {
            status = mir_tlog_columns_number(&maker->columns, mir_tlog_column_name(&column),
                                             MIR_COLUMN_F64, &number);
        }
        if (status != MIR_OK) return status;
        maker->moved[i] = number + 1;
        maker->moved_count = i + 1;
        any = true;
    }
    for (uint32_t p = 0; p < q->part_count && any; p++) {
        mir_tlog_part *part = &q->parts[p];
        for (uint32_t i = 0; part->maker == maker && i < part->column_count; i++) {
            const uint32_t from = part->columns[i];
            if (!mir_tlog_part_moved(maker, from)) continue;
            values_widen(part, i, maker->columns.columns[from].type);
            part->columns[i] = maker->moved[from] - 1;
        }
    }
    return MIR_OK;
}

static mir_status sums_widen(query *q)
{
    if ((q->spec.functions & MIR_TLOG_SUM) == 0) return MIR_OK;
    sum_types all = {0};
    mir_status status = MIR_OK;
    bool any = false;
    for (uint32_t w = 0; w < q->worker_count; w++) {
        const mir_tlog_columns *found = &q->workers[w].columns;
        for (uint32_t i = 0; i < found->count && status == MIR_OK; i++) {
            uint32_t number;
            if (!is_sum(q, &found->columns[i])) continue;
            status = sum_note(&all, &found->columns[i], &number);
            if (status != MIR_OK) break;
            all.types[number] |= 1u << found->columns[i].type;
            any = any || __builtin_popcount(all.types[number]) > 1;
        }
    }
    for (uint32_t w = 0; w < q->worker_count && any && status == MIR_OK; w++) {
        status = maker_widen(q, &q->workers[w], &all);
    }
    mir_tlog_columns_free(&all.names);
    free(all.types);
    return status == MIR_OK ? MIR_OK : no_memory(q);
}

/* The columns that the workers found, in order, and where each worker's are among them. */
static mir_status columns_out(query *q, const mir_tlog_sink *sink)
{
    uint32_t number;
    for (uint32_t w = 0; w < q->worker_count; w++) {
        const mir_tlog_columns *found = &q->workers[w].columns;
        for (uint32_t i = 0; i < found->count; i++) {
            const mir_column *column = &found->columns[i];
            if (mir_tlog_part_moved(&q->workers[w], i)) continue;
            if (mir_tlog_columns_number(&q->columns, mir_tlog_column_name(column), column->type,
                                        &number) != MIR_OK) {
                return no_memory(q);
            }
        }
    }
    mir_column *sorted = malloc((q->columns.count + 1) * sizeof *sorted);
    if (sorted == NULL) return no_memory(q);
    memcpy(sorted, q->columns.columns, q->columns.count * sizeof *sorted);
    qsort(sorted, q->columns.count, sizeof *sorted, column_compare);
    mir_status status = MIR_OK;
    for (uint32_t w = 0; w < q->worker_count && status == MIR_OK; w++) {
        mir_tlog_part_maker *worker = &q->workers[w];
        worker->rank = malloc((worker->columns.count + 1) * sizeof *worker->rank);
        if (worker->rank == NULL) status = no_memory(q);
        for (uint32_t i = 0; i < worker->columns.count && status == MIR_OK; i++) {
            if (mir_tlog_part_moved(worker, i)) continue;
            const mir_column *at = bsearch(&worker->columns.columns[i], sorted, q->columns.count,
                                           sizeof *sorted, column_compare);
            worker->rank[i] = (uint32_t)(at - sorted);
        }
    }
    if (status == MIR_OK) status = sink->columns(sink->context, sorted, q->columns.count);
    free(sorted);
    return status;
}

typedef struct batch_room {
    uint32_t *heap;
    int64_t *times;
    uint32_t *devices;
    mir_cell *cells;
    uint8_t *present;
} batch_room;

static mir_status batch_give(query *q, const mir_tlog_sink *sink, const mir_tlog_batch *batch)
{
    if (mir_tlog_scan_cancelled(&q->workers[0].scan)) {
        return mir_error_set(q->error, MIR_E_CANCELLED, "cancelled");
    }
    q->info.rows += batch->row_count;
    q->given_ns = batch->times_ns[batch->row_count - 1];
    mir_thread_offer();
    return sink->rows(sink->context, batch);
}

/* One batch of the rows that were put in. */
static mir_status batch_out(query *q, const mir_tlog_sink *sink, const batch_room *room,
                            uint32_t filled)
{
    const mir_tlog_batch batch = {.row_count = filled,
                                  .column_count = q->columns.count,
                                  .times_ns = room->times,
                                  .devices = room->devices,
                                  .cells = room->cells,
                                  .present = room->present};
    return filled == 0 ? MIR_OK : batch_give(q, sink, &batch);
}

/* Puts the next row of a part in; true when that was its last. */
static bool row_take(const query *q, mir_tlog_part *part, const batch_room *room, uint32_t filled)
{
    const size_t width = q->columns.count;
    room->times[filled] = part->times[part_row(q, part)];
    room->devices[filled] = part->number;
    row_out(q, part, room->cells + filled * width, room->present + filled * width);
    return --part->left == 0;
}

typedef struct numbers_taker {
    query *q;
    const mir_tlog_sink *sink;
} numbers_taker;

static mir_status numbers_take(void *context, const mir_tlog_batch *batch)
{
    const numbers_taker *to = context;
    return batch_give(to->q, to->sink, batch);
}

/* As aligned_out, forwards, of parts with one column of numbers each. */
static mir_status numbers_out(query *q, const mir_tlog_sink *sink, uint64_t limit)
{
    mir_tlog_number_run *runs = malloc((q->part_count + 1) * sizeof *runs);
    mir_tlog_numbers *numbers = malloc(sizeof *numbers);
    mir_status status = runs == NULL || numbers == NULL ? no_memory(q) : MIR_OK;
    uint32_t count = 0;
    for (uint32_t i = 0; i < q->part_count && status == MIR_OK; i++) {
        const mir_tlog_part *part = &q->parts[i];
        if (part->row_count == 0) continue;
        runs[count++] = (mir_tlog_number_run){part->times, part->values, part->present,
                                              part->row_count, part->number};
    }
    numbers_taker to = {q, sink};
    if (status == MIR_OK) {
        status = mir_tlog_numbers_merge(runs, count, limit, numbers, numbers_take, &to);
    }
    free(runs);
    free(numbers);
    return status;
}

static bool is_one_of_numbers(const query *q)
{
    if (q->columns.count != 1 || q->spec.backward) return false;
    const mir_column_type type = q->columns.columns[0].type;
    return type != MIR_COLUMN_STRING && type != MIR_COLUMN_BOOL;
}

/* Parts whose rows stand at the same times, as windows do: at each time all of them in turn. */
static mir_status aligned_out(query *q, const mir_tlog_sink *sink, const batch_room *room,
                              uint64_t limit)
{
    mir_status status = MIR_OK;
    uint32_t filled = 0;
    uint32_t count = 0;
    uint32_t *open = room->heap;
    for (uint32_t i = 0; i < q->part_count; i++) {
        const uint32_t at = q->spec.backward ? q->part_count - 1 - i : i;
        if (q->parts[at].row_count > 0) open[count++] = at;
    }
    while (count > 0 && limit > 0 && status == MIR_OK) {
        int64_t next_ns = q->parts[open[0]].times[part_row(q, &q->parts[open[0]])];
        for (uint32_t i = 1; i < count; i++) {
            const mir_tlog_part *part = &q->parts[open[i]];
            const int64_t time_ns = part->times[part_row(q, part)];
            if (q->spec.backward ? time_ns > next_ns : time_ns < next_ns) next_ns = time_ns;
        }
        uint32_t left = 0;
        for (uint32_t i = 0; i < count; i++) {
            mir_tlog_part *part = &q->parts[open[i]];
            bool ended = false;
            if (limit > 0 && status == MIR_OK && part->times[part_row(q, part)] == next_ns) {
                ended = row_take(q, part, room, filled++);
                limit--;
                if (filled == BATCH_ROWS) {
                    status = batch_out(q, sink, room, filled);
                    filled = 0;
                }
            }
            if (!ended) open[left++] = open[i];
        }
        count = left;
    }
    return status == MIR_OK ? batch_out(q, sink, room, filled) : status;
}

/* The rows of the one part that has any, column by column. */
static mir_status single_out(query *q, const mir_tlog_sink *sink, const batch_room *room,
                             const mir_tlog_part *part, uint64_t limit)
{
    const size_t width = q->columns.count;
    const mir_tlog_part_maker *maker = part->maker;
    const bool backward = q->spec.backward;
    const uint32_t rows = part->row_count < limit ? part->row_count : (uint32_t)limit;
    mir_status status = MIR_OK;
    MIR_ASSERT(maker->rank != NULL);
    for (uint32_t r = 0; r < BATCH_ROWS; r++) room->devices[r] = part->number;
    for (uint32_t first = 0; first < rows && status == MIR_OK; first += BATCH_ROWS) {
        const uint32_t count = rows - first < BATCH_ROWS ? rows - first : BATCH_ROWS;
        for (uint32_t r = 0; r < count; r++) {
            const uint32_t from = backward ? part->row_count - 1 - first - r : first + r;
            room->times[r] = part->times[from];
        }
        memset(room->present, 0, count * width);
        for (uint32_t i = 0; i < part->column_count; i++) {
            const uint32_t to = maker->rank[part->columns[i]];
            const mir_column_type type = maker->columns.columns[part->columns[i]].type;
            const uint64_t *values = part->values + (size_t)i * part->stride;
            const uint8_t *present = part->present + (size_t)i * part->stride;
            for (uint32_t r = 0; r < count; r++) {
                const uint32_t from = backward ? part->row_count - 1 - first - r : first + r;
                if (present[from] == 0) continue;
                room->present[r * width + to] = 1;
                room->cells[r * width + to] = cell_of(part, type, values[from]);
            }
        }
        status = batch_out(q, sink, room, count);
    }
    return status;
}

/* The same rows as they lie in the part, without a copy. */
static mir_status run_out(query *q, const mir_tlog_sink *sink, const mir_tlog_part *part,
                          uint64_t limit)
{
    const mir_tlog_part_maker *maker = part->maker;
    const uint32_t rows = part->row_count < limit ? part->row_count : (uint32_t)limit;
    mir_tlog_rows_column *columns = malloc((part->column_count + 1) * sizeof *columns);
    if (columns == NULL) return no_memory(q);
    mir_status status = MIR_OK;
    for (uint32_t first = 0; first < rows && status == MIR_OK; first += MIR_TLOG_ROWS_MAX) {
        const uint32_t count = rows - first < MIR_TLOG_ROWS_MAX ? rows - first : MIR_TLOG_ROWS_MAX;
        for (uint32_t i = 0; i < part->column_count; i++) {
            const size_t from = (size_t)i * part->stride + first;
            columns[maker->rank[part->columns[i]]] =
                (mir_tlog_rows_column){.column = maker->columns.columns[part->columns[i]],
                                       .values = part->values + from,
                                       .present = part->present + from};
        }
        const mir_tlog_rows run = {.device = part->number,
                                   .row_count = count,
                                   .column_count = part->column_count,
                                   .times_ns = part->times + first,
                                   .columns = columns,
                                   .texts = part->texts};
        if (mir_tlog_scan_cancelled(&q->workers[0].scan)) {
            status = mir_error_set(q->error, MIR_E_CANCELLED, "cancelled");
            break;
        }
        q->info.rows += count;
        status = sink->run(sink->context, &run);
    }
    free(columns);
    return status;
}

static mir_status merged_out(query *q, const mir_tlog_sink *sink, const batch_room *room,
                             uint64_t limit)
{
    mir_status status = MIR_OK;
    uint32_t filled = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < q->part_count; i++) {
        if (q->parts[i].row_count > 0) room->heap[count++] = i;
    }
    if (count == 1) {
        const mir_tlog_part *part = &q->parts[room->heap[0]];
        /* Columns of a part differ, and it has one for each of the answer if it has so many. */
        if (sink->run != NULL && !q->spec.backward && part->column_count == q->columns.count)
            return run_out(q, sink, part, limit);
        return single_out(q, sink, room, part, limit);
    }
    for (uint32_t i = count / 2; i > 0; i--) heap_down(q, room->heap, count, i - 1);
    for (; count > 0 && limit > 0 && status == MIR_OK; limit--) {
        if (row_take(q, &q->parts[room->heap[0]], room, filled++)) {
            room->heap[0] = room->heap[--count];
        }
        heap_down(q, room->heap, count, 0);
        if (filled < BATCH_ROWS) continue;
        status = batch_out(q, sink, room, filled);
        filled = 0;
    }
    return status == MIR_OK ? batch_out(q, sink, room, filled) : status;
}

/* Whether parts have their rows at the same times for the most part. */
static bool aligned(const query *q)
{
    if (q->spec.window_ns == 0 || q->spec.functions == 0) return false;
    uint64_t rows = 0;
    uint32_t longest = 0;
    uint32_t parts = 0;
    for (uint32_t i = 0; i < q->part_count; i++) {
        rows += q->parts[i].row_count;
        if (q->parts[i].row_count > longest) longest = q->parts[i].row_count;
        parts += q->parts[i].row_count > 0;
    }
    return parts > 1 && rows * 4 > (uint64_t)longest * parts;
}

static mir_status batches_out(query *q, const mir_tlog_sink *sink, const batch_room *room)
{
    const uint64_t limit = q->spec.limit == 0 ? UINT64_MAX : q->spec.limit;
    for (uint32_t i = 0; i < q->part_count; i++) q->parts[i].left = q->parts[i].row_count;
    if (!aligned(q)) return merged_out(q, sink, room, limit);
    return is_one_of_numbers(q) ? numbers_out(q, sink, limit) : aligned_out(q, sink, room, limit);
}

/* Whether to write it is worth more than one thread. */
static bool is_shared(const query *q, const mir_tlog_sink *sink)
{
    return q->helper_count > 0 && sink->place != NULL && q->spec.limit == 0 &&
           atomic_load_explicit(&q->rows, memory_order_relaxed) >= SHARED_ROWS_MIN &&
           is_one_of_numbers(q) && aligned(q);
}

/* In words: those of the sink are its own. */
static mir_status log_failed(query *q, mir_status status)
{
    if (status == MIR_OK) return MIR_OK;
    status = mir_tlog_scan_failed(&q->workers[0].scan, status);
    if (q->error != NULL) *q->error = q->workers[0].scan.error;
    return status;
}

static mir_status shares_out(query *q, const mir_tlog_sink *sink)
{
    q->shares = (mir_tlog_shares){.parts = q->parts,
                                  .part_count = q->part_count,
                                  .column = q->columns.columns[0],
                                  .sink = sink,
                                  .cancel = q->spec.cancel,
                                  .bytes = &q->bytes,
                                  .bytes_max = q->spec.bytes_max};
    mir_status status = log_failed(q, mir_tlog_shares_init(&q->shares));
    if (status == MIR_OK) status = mir_tlog_shares_measure(&q->shares);
    if (status == MIR_OK) {
        helpers_go_on(q, STAGE_GIVE);
        status = log_failed(q, mir_tlog_shares_give(&q->shares));
        helpers_end(q);
        if (status == MIR_OK) status = mir_tlog_shares_status(&q->shares);
        if (status == MIR_E_CANCELLED) status = mir_error_set(q->error, status, "cancelled");
    }
    if (status == MIR_OK) q->info.rows += q->shares.rows;
    mir_tlog_shares_fini(&q->shares);
    return status;
}

static mir_status rows_out(query *q, const mir_tlog_sink *sink)
{
    const size_t width = q->columns.count;
    batch_room room = {
        .heap = malloc((q->part_count + 1) * sizeof *room.heap),
        .times = malloc(BATCH_ROWS * sizeof *room.times),
        .devices = malloc(BATCH_ROWS * sizeof *room.devices),
        .cells = calloc(BATCH_ROWS * width, sizeof *room.cells),
        .present = malloc(BATCH_ROWS * width),
    };
    mir_status status;
    if (room.heap == NULL || room.times == NULL || room.devices == NULL || room.cells == NULL ||
        room.present == NULL) {
        status = no_memory(q);
    } else {
        status = batches_out(q, sink, &room);
    }
    free(room.heap);
    free(room.times);
    free(room.devices);
    free(room.cells);
    free(room.present);
    return status;
}

/* ---- The query ---- */

static mir_status spec_check(query *q)
{
    const mir_tlog_query_spec *spec = &q->spec;
    if (spec->from_ns >= spec->to_ns) {
        return mir_error_set(q->error, MIR_E_INVALID, "the start time is not before the end time");
    }
    if ((spec->functions & ~(uint32_t)MIR_TLOG_FUNCTIONS) != 0) {
        return mir_error_set(q->error, MIR_E_INVALID, "there is no such function");
    }
    if ((spec->functions & MIR_TLOG_PERCENTILE) != 0) {
        if (spec->percentile_count == 0 || spec->percentile_count > MIR_TLOG_PERCENTILES_MAX) {
            return mir_error_set(q->error, MIR_E_INVALID, "name 1 to %d percentiles",
                                 MIR_TLOG_PERCENTILES_MAX);
        }
        for (uint32_t i = 0; i < spec->percentile_count; i++) {
            if (spec->percentiles[i] >= 0 && spec->percentiles[i] <= 100) continue;
            return mir_error_set(q->error, MIR_E_INVALID, "a percentile is from 0 to 100");
        }
    }
    if (spec->functions != 0 && (spec->after || spec->points != 0)) {
        return mir_error_set(q->error, MIR_E_INVALID,
                             "pages and points are of rows as they are: leave the functions out");
    }
    if (spec->functions == 0 && spec->groups != NULL) {
        return mir_error_set(q->error, MIR_E_INVALID, "groups need a function");
    }
    return MIR_OK;
}

static mir_status query_run(query *q, const mir_tlog_sink *sink)
{
    mir_status status = devices_order(q);
    if (status == MIR_OK) status = work_all(q);
    if (q->spec.groups != NULL) helpers_end(q);
    if (status == MIR_OK && q->spec.groups != NULL) {
        status = mir_tlog_part_groups(q->workers, q->worker_count, q->spec.group_count, q->parts);
        if (status != MIR_OK && q->error != NULL) *q->error = q->workers[0].scan.error;
    }
    if (status != MIR_OK) return status;
    if (atomic_load_explicit(&q->rows, memory_order_relaxed) == 0) return MIR_OK;
    status = sums_widen(q);
    if (status == MIR_OK) status = columns_out(q, sink);
    if (status != MIR_OK) return status;
    if (is_shared(q, sink)) return shares_out(q, sink);
    helpers_end(q);
    return rows_out(q, sink);
}

static void query_free(query *q)
{
    helpers_end(q);
    (void)pthread_cond_destroy(&q->changed);
    (void)pthread_mutex_destroy(&q->mutex);
    for (uint32_t i = 0; q->parts != NULL && i < q->part_count; i++) {
        mir_tlog_part_free(&q->parts[i]);
    }
    for (uint32_t i = 0; i < q->worker_count; i++) mir_tlog_part_maker_fini(&q->workers[i]);
    mir_tlog_columns_free(&q->columns);
    free(q->parts);
    free(q->order);
    mir_tlog_version_release(q->version);
    free(q);
}

mir_status mir_tlog_query(mir_tlog *tlog, const mir_tlog_query_spec *spec,
                          const mir_tlog_sink *sink, mir_tlog_query_info *info, mir_error *error)
{
    if (info != NULL) *info = (mir_tlog_query_info){0};
    query *q = calloc(1, sizeof *q);
    if (q == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    q->tlog = tlog;
    q->spec = *spec;
    q->error = error;
    if (q->spec.rows_max == 0) q->spec.rows_max = ROWS_MAX_DEFAULT;
    if (q->spec.bytes_max == 0) q->spec.bytes_max = MIR_TLOG_QUERY_BYTES_DEFAULT;
    if (q->spec.functions == 0 && q->spec.window_ns != 0) q->spec.functions = MIR_TLOG_MEAN;
    /* The same windows, whose numbers are no larger than times. */
    if (q->spec.window_ns != 0 && q->spec.window_ns <= INT64_MAX) {
        q->spec.window_from_ns %= (int64_t)q->spec.window_ns;
    }
    (void)pthread_mutex_init(&q->mutex, NULL);
    (void)pthread_cond_init(&q->changed, NULL);
    q->version = mir_tlog_version_acquire(tlog);
    mir_status status = spec_check(q);
    if (status == MIR_OK) status = query_run(q, sink);
    /* A full page from the newest row on does not reach back to what was left out. */
    if (q->spec.functions == 0 && q->spec.backward && q->spec.limit != 0 &&
        q->info.rows >= q->spec.limit && q->given_ns >= q->info.left_out_until_ns) {
        q->info.left_out = false;
    }
    if (info != NULL) *info = q->info;
    query_free(q);
    return status;
}
