/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_devices.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_map.h"

typedef struct kept_list {
    mir_tlm_device_list list;
    atomic_uint references;
    uint64_t changes; /* of the fleet, before it was read */
    uint64_t hash;
    uint64_t used; /* when, by the count of all uses */
    mir_view key;
    size_t bytes;
    mir_arena arena; /* all of it but this */
} kept_list;

struct mir_tlm_devices {
    mir_state *state;
    pthread_mutex_t lock;
    kept_list *lists[MIR_TLM_DEVICES_KEPT]; /* the first `count` */
    unsigned count;
    size_t bytes;
    uint64_t uses;
};

mir_status mir_tlm_devices_create(mir_state *state, mir_tlm_devices **devices)
{
    mir_tlm_devices *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    fresh->state = state;
    (void)pthread_mutex_init(&fresh->lock, NULL);
    *devices = fresh;
    return MIR_OK;
}

static void release(kept_list *kept)
{
    /* Release orders our reads before the end; the acquire of the last one sees them all. */
    if (atomic_fetch_sub_explicit(&kept->references, 1, memory_order_acq_rel) != 1) return;
    mir_arena_free(&kept->arena);
    free(kept);
}

void mir_tlm_device_list_release(const mir_tlm_device_list *list)
{
    if (list != NULL) release(MIR_CONTAINER(list, kept_list, list));
}

void mir_tlm_devices_destroy(mir_tlm_devices *devices)
{
    if (devices == NULL) return;
    for (unsigned i = 0; i < devices->count; i++) release(devices->lists[i]);
    (void)pthread_mutex_destroy(&devices->lock);
    free(devices);
}

/* --- what is remembered; under the lock ------------------------------------------------------- */

static void forget(mir_tlm_devices *devices, unsigned at)
{
    devices->bytes -= devices->lists[at]->bytes;
    release(devices->lists[at]);
    devices->lists[at] = devices->lists[--devices->count];
}

static kept_list *look_up(mir_tlm_devices *devices, mir_view key, uint64_t hash, uint64_t changes)
{
    for (unsigned i = 0; i < devices->count; i++) {
        kept_list *kept = devices->lists[i];
        if (kept->hash != hash || !mir_view_eq(kept->key, key)) continue;
        if (kept->changes != changes) {
            forget(devices, i);
            return NULL;
        }
        atomic_fetch_add_explicit(&kept->references, 1, memory_order_relaxed);
        kept->used = ++devices->uses;
        return kept;
    }
    return NULL;
}

static void remember(mir_tlm_devices *devices, kept_list *kept)
{
    /* Two may have read it at once. */
    for (unsigned i = 0; i < devices->count; i++)
        if (mir_view_eq(devices->lists[i]->key, kept->key)) forget(devices, i--);
    while (devices->count == MIR_TLM_DEVICES_KEPT ||
           (devices->count != 0 && kept->bytes > MIR_TLM_DEVICES_BYTES_MAX - devices->bytes)) {
        unsigned oldest = 0;
        for (unsigned i = 1; i < devices->count; i++)
            if (devices->lists[i]->used < devices->lists[oldest]->used) oldest = i;
        forget(devices, oldest);
    }
    atomic_fetch_add_explicit(&kept->references, 1, memory_order_relaxed);
    kept->used = ++devices->uses;
    devices->bytes += kept->bytes;
    devices->lists[devices->count++] = kept;
}

/* --- what is read from the store -------------------------------------------------------------- */

static int compare_ids(const void *a, const void *b)
{
    const MirStore__V1__DeviceRecord *const *left = a;
    const MirStore__V1__DeviceRecord *const *right = b;
    return mir_view_compare(mir_view_cstr((*left)->device_id), mir_view_cstr((*right)->device_id));
}

static char *copy_text(mir_arena *arena, const char *text)
{
    return mir_arena_strdup(arena, mir_view_cstr(text));
}

static MirStore__V1__DeviceRecord *copy_record(mir_arena *arena,
                                               const MirStore__V1__DeviceRecord *from)
{
    typedef MirStore__V1__DeviceRecord__LabelsEntry label;
    MirStore__V1__DeviceRecord *made = mir_arena_alloc(arena, sizeof *made);
    label **labels = mir_arena_alloc(arena, (from->n_labels + 1) * sizeof(label *));
    label *entries = mir_arena_alloc(arena, (from->n_labels + 1) * sizeof *entries);
    uint8_t *hash = mir_arena_alloc(arena, from->schema_hash.len + 1);
    if (made == NULL || labels == NULL || entries == NULL || hash == NULL) return NULL;
    mir_store__v1__device_record__init(made);
    made->device_id = copy_text(arena, from->device_id);
    made->name = copy_text(arena, from->name);
    made->namespace_ = copy_text(arena, from->namespace_);
    if (made->device_id == NULL || made->name == NULL || made->namespace_ == NULL) return NULL;
    made->labels = labels;
    for (size_t i = 0; i < from->n_labels; i++) {
        mir_store__v1__device_record__labels_entry__init(&entries[i]);
        entries[i].key = copy_text(arena, from->labels[i]->key);
        entries[i].value = copy_text(arena, from->labels[i]->value);
        if (entries[i].key == NULL || entries[i].value == NULL) return NULL;
        labels[made->n_labels++] = &entries[i];
    }
    made->has_schema_hash = from->has_schema_hash;
    made->schema_hash = from->schema_hash;
    made->schema_hash.data = hash;
    if (from->has_schema_hash && from->schema_hash.len != 0)
        memcpy(hash, from->schema_hash.data, from->schema_hash.len);
    return made;
}

static mir_status fill(kept_list *kept, const mir_view *key, MirStore__V1__DeviceRecord **records,
                       size_t count)
{
    mir_arena *arena = &kept->arena;
    MirStore__V1__DeviceRecord **copies = mir_arena_alloc(arena, (count + 1) * sizeof *copies);
    mir_view *ids = mir_arena_alloc(arena, (count + 1) * sizeof *ids);
    if (copies == NULL || ids == NULL) return MIR_E_NO_MEMORY;
    if (count > 1) qsort(records, count, sizeof(MirStore__V1__DeviceRecord *), compare_ids);
    for (size_t i = 0; i < count; i++) {
        copies[i] = copy_record(arena, records[i]);
        if (copies[i] == NULL) return MIR_E_NO_MEMORY;
        ids[i] = mir_view_cstr(copies[i]->device_id);
    }
    if (key != NULL) {
        const char *copy = mir_arena_strdup(arena, *key);
        if (copy == NULL) return MIR_E_NO_MEMORY;
        kept->key = mir_view_of(copy, key->size);
    }
    kept->list = (mir_tlm_device_list){.records = copies, .ids = ids, .count = count};
    kept->bytes = sizeof *kept + arena->bytes_used;
    return MIR_OK;
}

static mir_status read_list(mir_tlm_devices *devices, const mir_view *key,
                            const MirApi__V1__DeviceTarget *target, kept_list **list,
                            mir_error *error)
{
    kept_list *kept = calloc(1, sizeof *kept);
    if (kept == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "the server is out of memory");
    atomic_init(&kept->references, 1);
    MirStore__V1__DeviceRecord **records;
    size_t count;
    mir_arena whole = {0};
    mir_status status = mir_state_list(devices->state, target, &whole, &records, &count, error);
    if (status == MIR_OK) {
        status = fill(kept, key, records, count);
        if (status != MIR_OK) (void)mir_error_set(error, status, "the server is out of memory");
    }
    mir_arena_free(&whole);
    if (status == MIR_OK)
        *list = kept;
    else
        release(kept);
    return status;
}

mir_status mir_tlm_devices_find(mir_tlm_devices *devices, const mir_view *key,
                                const MirApi__V1__DeviceTarget *target,
                                const mir_tlm_device_list **list, mir_error *error)
{
    kept_list *kept = NULL;
    /* Before the store is read: what changes meanwhile makes the list outdated at once. */
    const uint64_t changes = mir_state_changes_of_fleet(devices->state);
    const uint64_t hash = key == NULL ? 0 : mir_hash_view(*key);
    if (key != NULL) {
        (void)pthread_mutex_lock(&devices->lock);
        kept = look_up(devices, *key, hash, changes);
        (void)pthread_mutex_unlock(&devices->lock);
    }
    if (kept == NULL) {
        const mir_status status = read_list(devices, key, target, &kept, error);
        if (status != MIR_OK) return status;
        kept->changes = changes;
        kept->hash = hash;
        if (key != NULL && kept->bytes <= MIR_TLM_DEVICES_LIST_BYTES_MAX) {
            (void)pthread_mutex_lock(&devices->lock);
            remember(devices, kept);
            (void)pthread_mutex_unlock(&devices->lock);
        }
    }
    *list = &kept->list;
    return MIR_OK;
}
