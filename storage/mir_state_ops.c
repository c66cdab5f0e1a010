/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_state_ops.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "mir_assert.h"
#include "mir_device_rules.h"
#include "mir_field_names.h"
#include "mir_hash.h"
#include "mir_state_target.h"
#include "mir_timestamp.h"
#include "mir_zstd.h"

typedef MirStore__V1__DeviceRecord record;
typedef MirStore__V1__DeviceRecord__LabelsEntry label_entry;
typedef MirStore__V1__DeviceRecord__AnnotationsEntry annotation_entry;

enum {
    PROBLEMS_SHOWN_MAX = 100,  /* of one create-many request */
    CHANGED_LABELS_MAX = 1024, /* that one update may name */
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

void mir_state_ops_refuse(mir_state_request *request, mir_status status, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = size < 0 ? NULL : mir_arena_alloc(&request->arena, (size_t)size + 1);
    if (text != NULL) (void)vsnprintf(text, (size_t)size + 1, format, again);
    va_end(again);
    request->status = status;
    request->error = text == NULL ? "the request needs too much memory" : text;
    request->changes = NULL;
    request->change_count = 0;
}

static bool refused(const mir_state_ops *ops)
{
    return ops->request->status != MIR_OK;
}

static void *alloc(mir_state_ops *ops, size_t size)
{
    return mir_arena_alloc(&ops->request->arena, size);
}

static const char *text_of(const char *text)
{
    return text == NULL ? "" : text;
}

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* Room for `count` changes; they are filled in order. */
static mir_status reserve_changes(mir_state_ops *ops, size_t count)
{
    if (count == 0) return MIR_OK;
    ops->request->changes = alloc(ops, count * sizeof *ops->request->changes);
    return ops->request->changes == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

static record *copy_record(mir_state_ops *ops, const record *from)
{
    MIR_ASSERT(from != NULL);
    record *copy = alloc(ops, sizeof *copy);
    if (copy != NULL) *copy = *from;
    return copy;
}

/* The device with the time of its heartbeat in memory, if that is later than the stored one: what
 * the event shows of it, now and when it is read. */
static mir_status with_live_heartbeat(mir_state_ops *ops, record **device)
{
    int64_t live_ns = ops->live_ns(ops->live_ctx, (*device)->number);
    if (live_ns <= mir_state_time_ns((*device)->last_heartbeat)) return MIR_OK;
    record *copy = copy_record(ops, *device);
    if (copy == NULL) return MIR_E_NO_MEMORY;
    copy->last_heartbeat = mir_state_time_new(&ops->request->arena, live_ns);
    *device = copy;
    return copy->last_heartbeat == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

/* Appends the event of a change. What a heartbeat changes, its device has caused. */
static mir_status record_event(mir_state_ops *ops, mir_state_change *change)
{
    mir_state_request *request = ops->request;
    if (!ops->context.ready)
        TRY(mir_event_context_make(request->cause, &request->arena, &ops->context));
    bool has_json = mir_state_change_has_json(change->kind);
    if (!has_json)
        TRY(with_live_heartbeat(ops, change->after != NULL ? &change->after : &change->before));
    if (change->kind == MIR_STATE_UPDATED || change->kind == MIR_STATE_DESIRED)
        TRY(mir_event_diff(change->before, change->after, &request->arena, &change->diffs,
                           &change->diff_count));
    char actor[MIR_DEVICE_ID_BYTES_MAX + 16] = "server";
    change->by_device =
        request->op == MIR_STATE_HEARTBEAT || change->kind == MIR_STATE_REPORTED ||
        change->kind == MIR_STATE_OUT_OF_SYNC ||
        (change->kind == MIR_STATE_SCHEMA_CHANGED && request->op == MIR_STATE_SET_SCHEMA);
    if (change->by_device)
        (void)snprintf(actor, sizeof actor, "device %s", change->after->device_id);
    return mir_event_log_change(ops->events, ops->now_ns, change, &ops->context, actor);
}

mir_status mir_state_ops_add_change(mir_state_ops *ops, mir_state_change_kind kind, record *before,
                                    record *after)
{
    MIR_ASSERT(before != NULL || after != NULL);
    mir_state_change *change = &ops->request->changes[ops->request->change_count++];
    *change = (mir_state_change){
        .kind = kind,
        .number = after != NULL ? after->number : before->number,
        .before = before,
        .after = after,
    };
    return ops->request->without_events ? MIR_OK : record_event(ops, change);
}

static bool is_disabled(const record *device)
{
    return device->has_disabled && device->disabled;
}

static bool has_other_schema(const record *before, const record *after)
{
    return before->has_schema_hash && after->has_schema_hash &&
           !mir_view_eq(mir_view_of(before->schema_hash.data, before->schema_hash.len),
                        mir_view_of(after->schema_hash.data, after->schema_hash.len));
}

/* An update, and what else it means; at most UPDATE_CHANGES_MAX changes. */
enum { UPDATE_CHANGES_MAX = 4 };
static mir_status add_update(mir_state_ops *ops, record *before, record *after)
{
    if (has_other_schema(before, after))
        TRY(mir_state_ops_add_change(ops, MIR_STATE_SCHEMA_CHANGED, before, after));
    if (is_disabled(before) != is_disabled(after))
        TRY(mir_state_ops_add_change(
            ops, is_disabled(after) ? MIR_STATE_DISABLED : MIR_STATE_ENABLED, before, after));
    if (is_disabled(after) && before->has_online && before->online)
        TRY(mir_state_ops_add_change(ops, MIR_STATE_OFFLINE_NOW, before, after));
    return mir_state_ops_add_change(ops, MIR_STATE_UPDATED, before, after);
}

/* ── Names, labels, annotations ──────────────────────────────────────────────────────────────── */

/* Map entries of the API and of the store have one shape: key, value. */
typedef struct text_entry {
    ProtobufCMessage base;
    char *key;
    char *value;
} text_entry;

_Static_assert(sizeof(text_entry) == sizeof(label_entry) &&
                   offsetof(text_entry, value) == offsetof(label_entry, value) &&
                   sizeof(text_entry) == sizeof(MirApi__V1__Meta__LabelsEntry),
               "the generated map entries share a shape");

static mir_status new_entry(mir_state_ops *ops, const ProtobufCMessageDescriptor *descriptor,
                            const char *key, const char *value, text_entry **entry)
{
    text_entry *made = alloc(ops, sizeof *made);
    if (made == NULL) return MIR_E_NO_MEMORY;
    protobuf_c_message_init(descriptor, made);
    made->key = mir_arena_strdup(&ops->request->arena, mir_view_cstr(key));
    made->value = mir_arena_strdup(&ops->request->arena, mir_view_cstr(value));
    if (made->key == NULL || made->value == NULL) return MIR_E_NO_MEMORY;
    *entry = made;
    return MIR_OK;
}

/* One text map of a record: what it may hold. */
typedef struct map_rules {
    const char *what;
    const ProtobufCMessageDescriptor *descriptor;
    mir_status (*check)(mir_view key, mir_view value, mir_error *error);
    size_t count_max;
    size_t bytes_max; /* 0: bounded by the entries alone */
} map_rules;

static const map_rules label_rules = {"labels",
                                      &mir_store__v1__device_record__labels_entry__descriptor,
                                      mir_device_label_check, MIR_DEVICE_LABELS_MAX, 0};
static const map_rules annotation_rules = {
    "annotations", &mir_store__v1__device_record__annotations_entry__descriptor,
    mir_device_annotation_check, MIR_DEVICE_ANNOTATIONS_MAX, MIR_DEVICE_ANNOTATIONS_BYTES_MAX};

static mir_status check_map_size(const map_rules *rules, text_entry *const *entries, size_t count,
                                 mir_error *error)
{
    if (count > rules->count_max)
        return mir_error_set(error, MIR_E_INVALID, "a device cannot have %zu %s: use at most %zu",
                             count, rules->what, rules->count_max);
    size_t bytes = 0;
    for (size_t i = 0; i < count && rules->bytes_max != 0; i++)
        bytes += strlen(text_of(entries[i]->key)) + strlen(text_of(entries[i]->value));
    if (rules->bytes_max != 0 && bytes > rules->bytes_max)
        return mir_error_set(error, MIR_E_INVALID,
                             "the %s of a device cannot have %zu bytes: use at most %zu",
                             rules->what, bytes, rules->bytes_max);
    return MIR_OK;
}

/* The map of a new device. MIR_E_INVALID with a text, or MIR_E_NO_MEMORY. */
static mir_status new_map(mir_state_ops *ops, const map_rules *rules, text_entry *const *given,
                          size_t given_count, text_entry ***entries, size_t *count,
                          mir_error *error)
{
    if (given_count == 0) return MIR_OK;
    if (given_count > rules->count_max)
        return mir_error_set(error, MIR_E_INVALID, "a device cannot have %zu %s: use at most %zu",
                             given_count, rules->what, rules->count_max);
    text_entry **made = alloc(ops, given_count * sizeof *made);
    if (made == NULL) return MIR_E_NO_MEMORY;
    size_t used = 0;
    for (size_t i = 0; i < given_count; i++) {
        const char *key = text_of(given[i]->key), *value = text_of(given[i]->value);
        TRY(rules->check(mir_view_cstr(key), mir_view_cstr(value), error));
        text_entry *entry = NULL;
        TRY(new_entry(ops, rules->descriptor, key, value, &entry));
        size_t at = 0; /* the last of several with one key counts */
        while (at < used && strcmp(made[at]->key, key) != 0) at++;
        made[at] = entry;
        if (at == used) used++;
    }
    TRY(check_map_size(rules, made, used, error));
    *entries = made;
    *count = used;
    return MIR_OK;
}

/* A change of one key; `value` null removes it. */
typedef struct text_change {
    const char *key;
    const char *value;
} text_change;

/* Lists what an update names; the last of several with one key counts. */
static mir_status list_changes(mir_state_ops *ops, const map_rules *rules, void *const *given,
                               size_t given_count, text_change **changes, size_t *count,
                               mir_error *error)
{
    if (given_count == 0) return MIR_OK;
    if (given_count > CHANGED_LABELS_MAX)
        return mir_error_set(error, MIR_E_INVALID,
                             "an update cannot name %zu %s: use at most %d, or several updates",
                             given_count, rules->what, CHANGED_LABELS_MAX);
    text_change *made = alloc(ops, given_count * sizeof *made);
    if (made == NULL) return MIR_E_NO_MEMORY;
    size_t used = 0;
    for (size_t i = 0; i < given_count; i++) {
        const MirApi__V1__UpdateDeviceRequest__Meta__LabelsEntry *entry = given[i];
        const char *key = text_of(entry->key);
        const char *value = entry->value == NULL ? NULL : entry->value->value;
        if (!is_set(value)) value = NULL;
        if (value != NULL) TRY(rules->check(mir_view_cstr(key), mir_view_cstr(value), error));
        size_t at = 0;
        while (at < used && strcmp(made[at].key, key) != 0) at++;
        made[at] = (text_change){key, value};
        if (at == used) used++;
    }
    *changes = made;
    *count = used;
    return MIR_OK;
}

/* The map after the changes; the same array when nothing differs. */
static mir_status merge_map(mir_state_ops *ops, const map_rules *rules, const text_change *changes,
                            size_t change_count, text_entry ***entries, size_t *count,
                            mir_error *error)
{
    bool differs = false;
    for (size_t i = 0; i < change_count && !differs; i++) {
        const char *value = NULL;
        for (size_t k = 0; k < *count; k++)
            if (strcmp(text_of((*entries)[k]->key), changes[i].key) == 0)
                value = text_of((*entries)[k]->value);
        differs = (value == NULL) != (changes[i].value == NULL) ||
                  (value != NULL && strcmp(value, changes[i].value) != 0);
    }
    if (!differs) return MIR_OK;
    text_entry **merged = alloc(ops, (*count + change_count) * sizeof *merged);
    if (merged == NULL) return MIR_E_NO_MEMORY;
    size_t used = 0;
    for (size_t i = 0; i < *count; i++) {
        size_t k = 0;
        while (k < change_count && strcmp(text_of((*entries)[i]->key), changes[k].key) != 0) k++;
        if (k == change_count) merged[used++] = (*entries)[i];
    }
    for (size_t i = 0; i < change_count; i++) {
        if (changes[i].value == NULL) continue;
        TRY(new_entry(ops, rules->descriptor, changes[i].key, changes[i].value, &merged[used]));
        used++;
    }
    TRY(check_map_size(rules, merged, used, error));
    *entries = merged;
    *count = used;
    return MIR_OK;
}

/* ── Creating ────────────────────────────────────────────────────────────────────────────────── */

/* '/' is fine in an id and separates name from namespace, so the name made from an id has '-'. */
static char *name_from_id(mir_state_ops *ops, const char *id)
{
    char *name = mir_arena_strdup(&ops->request->arena, mir_view_cstr(id));
    for (char *p = name; p != NULL && *p != '\0'; p++)
        if (*p == '/') *p = '-';
    return name;
}

static record *blank_record(mir_state_ops *ops)
{
    record *made = alloc(ops, sizeof *made);
    if (made == NULL) return NULL;
    mir_store__v1__device_record__init(made);
    made->created = mir_state_time_new(&ops->request->arena, ops->now_ns);
    made->has_disabled = 1;
    made->has_number = 1;
    return made->created == NULL ? NULL : made;
}

typedef struct new_device {
    const char *id;
    const char *name;
    const char *name_space;
    bool disabled;
    text_entry *const *labels;
    size_t label_count;
    text_entry *const *annotations;
    size_t annotation_count;
} new_device;

/* Everything but the number. MIR_E_INVALID with a text, or MIR_E_NO_MEMORY. */
static mir_status build_record(mir_state_ops *ops, const new_device *given, record **out,
                               mir_error *error)
{
    record *made = blank_record(ops);
    if (made == NULL) return MIR_E_NO_MEMORY;
    TRY(mir_device_id_check(mir_view_cstr(given->id), error));
    mir_arena *arena = &ops->request->arena;
    made->device_id = mir_arena_strdup(arena, mir_view_cstr(given->id));
    made->name = is_set(given->name) ? mir_arena_strdup(arena, mir_view_cstr(given->name))
                                     : name_from_id(ops, given->id);
    made->namespace_ = mir_arena_strdup(
        arena, mir_view_cstr(is_set(given->name_space) ? given->name_space : "default"));
    if (made->device_id == NULL || made->name == NULL || made->namespace_ == NULL)
        return MIR_E_NO_MEMORY;
    TRY(mir_device_name_check(mir_view_cstr(made->name), error));
    TRY(mir_device_namespace_check(mir_view_cstr(made->namespace_), error));
    made->disabled = given->disabled;
    TRY(new_map(ops, &label_rules, given->labels, given->label_count, (text_entry ***)&made->labels,
                &made->n_labels, error));
    TRY(new_map(ops, &annotation_rules, given->annotations, given->annotation_count,
                (text_entry ***)&made->annotations, &made->n_annotations, error));
    *out = made;
    return MIR_OK;
}

static new_device from_api(const MirApi__V1__NewDevice *device)
{
    new_device given = {.id = ""};
    if (device == NULL) return given;
    if (device->spec != NULL) {
        given.id = text_of(device->spec->device_id);
        given.disabled = device->spec->disabled;
    }
    if (device->meta != NULL) {
        given.name = device->meta->name;
        given.name_space = device->meta->namespace_;
        given.labels = (text_entry *const *)device->meta->labels;
        given.label_count = device->meta->n_labels;
        given.annotations = (text_entry *const *)device->meta->annotations;
        given.annotation_count = device->meta->n_annotations;
    }
    return given;
}

static mir_status is_taken(mir_state_ops *ops, const record *made, bool *taken)
{
    uint64_t number = 0;
    mir_status status =
        mir_state_db_find_id(ops->db, ops->txn, mir_view_cstr(made->device_id), &number);
    if (status == MIR_E_NOT_FOUND)
        status = mir_state_db_find_name(ops->db, ops->txn, mir_view_cstr(made->name),
                                        mir_view_cstr(made->namespace_), &number);
    *taken = status == MIR_OK;
    return status == MIR_E_NOT_FOUND ? MIR_OK : status;
}

/* Creates one device; refuses with `prefix` before the text. */
static mir_status create_one(mir_state_ops *ops, const new_device *given, const char *prefix,
                             record **out)
{
    mir_error error;
    record *made = NULL;
    mir_status status = build_record(ops, given, &made, &error);
    if (status == MIR_E_INVALID) {
        mir_state_ops_refuse(ops->request, status, "%s%s", prefix, error.text);
        return MIR_OK;
    }
    TRY(status);
    bool taken = false;
    TRY(is_taken(ops, made, &taken));
    if (taken) {
        mir_state_ops_refuse(ops->request, MIR_E_EXISTS,
                             "%sdevice %s/%s with deviceId %s already exist", prefix, made->name,
                             made->namespace_, made->device_id);
        return MIR_OK;
    }
    TRY(mir_state_db_take_numbers(ops->db, ops->txn, 1, &made->number));
    TRY(mir_state_db_store(ops->db, ops->txn, NULL, made, ops->now_ns));
    *out = made;
    return MIR_OK;
}

static mir_status execute_create(mir_state_ops *ops)
{
    record *made = NULL;
    new_device given = from_api(ops->request->create->device);
    TRY(create_one(ops, &given, "", &made));
    if (refused(ops)) return MIR_OK;
    TRY(reserve_changes(ops, 1));
    TRY(mir_state_ops_add_change(ops, MIR_STATE_CREATED, NULL, made));
    return MIR_OK;
}

/* A set of texts, for duplicates inside a request. */
typedef struct text_set {
    const char **first;  /* the texts, null: free */
    const char **second; /* null: single texts */
    size_t mask;
} text_set;

static bool set_insert(text_set *set, const char *first, const char *second)
{
    uint64_t hash = mir_hash_bytes(first, strlen(first));
    if (second != NULL) hash = hash * 31 + mir_hash_bytes(second, strlen(second));
    size_t at = (size_t)hash & set->mask;
    while (set->first[at] != NULL) {
        if (strcmp(set->first[at], first) == 0 &&
            (second == NULL || strcmp(set->second[at], second) == 0))
            return false;
        at = (at + 1) & set->mask;
    }
    set->first[at] = first;
    if (second != NULL) set->second[at] = second;
    return true;
}

static mir_status set_make(mir_state_ops *ops, size_t count, text_set *set)
{
    size_t slots = 16;
    while (slots < count * 2) slots *= 2;
    set->first = alloc(ops, slots * sizeof *set->first);
    set->second = alloc(ops, slots * sizeof *set->second);
    set->mask = slots - 1;
    return set->first == NULL || set->second == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

/* Builds all records and lists every problem of the request in one text. */
static mir_status build_many(mir_state_ops *ops, record **list, size_t count)
{
    const MirApi__V1__CreateDevicesRequest *request = ops->request->create_many;
    text_set ids, names;
    mir_bytes problems = {0};
    size_t problem_count = 0;
    mir_status status = set_make(ops, count, &ids);
    if (status == MIR_OK) status = set_make(ops, count, &names);
    for (size_t i = 0; i < count && status == MIR_OK; i++) {
        mir_error error = {""};
        record *made = NULL;
        new_device given = from_api(request->devices[i]);
        if (given.id[0] == '\0') {
            (void)mir_error_set(&error, MIR_E_INVALID, "device at index %zu is missing its id",
                                i - problem_count);
        } else {
            status = build_record(ops, &given, &made, &error);
            if (status == MIR_E_INVALID) {
                status = MIR_OK;
                made = NULL;
            }
            if (status != MIR_OK) break;
            if (made != NULL && !set_insert(&ids, made->device_id, NULL))
                (void)mir_error_set(&error, MIR_E_EXISTS, "device with id %s is duplicated",
                                    made->device_id);
            else if (made != NULL && !set_insert(&names, made->name, made->namespace_))
                (void)mir_error_set(&error, MIR_E_EXISTS,
                                    "device with name/namespace %s/%s is duplicated", made->name,
                                    made->namespace_);
            else
                list[i] = made;
        }
        if (list[i] != NULL) continue;
        problem_count++;
        if (problem_count <= PROBLEMS_SHOWN_MAX)
            mir_bytes_printf(&problems, "%s%s", problem_count == 1 ? "" : "\n", error.text);
    }
    if (problem_count > PROBLEMS_SHOWN_MAX)
        mir_bytes_printf(&problems, "\nand %zu more", problem_count - PROBLEMS_SHOWN_MAX);
    if (status == MIR_OK && problem_count != 0) {
        mir_bytes_u8(&problems, 0);
        if (mir_bytes_ok(&problems))
            mir_state_ops_refuse(ops->request, MIR_E_INVALID, "error creating devices: %s",
                                 (const char *)problems.data);
        else
            status = MIR_E_NO_MEMORY;
    }
    mir_bytes_free(&problems);
    return status;
}

static mir_status execute_create_many(mir_state_ops *ops)
{
    size_t count = ops->request->create_many->n_devices;
    if (count == 0) return MIR_OK;
    if (count > MIR_STATE_CREATE_MANY_MAX) {
        mir_state_ops_refuse(ops->request, MIR_E_TOO_LARGE,
                             "error creating devices: %zu devices in one request: send at most %d",
                             count, MIR_STATE_CREATE_MANY_MAX);
        return MIR_OK;
    }
    record **list = alloc(ops, count * sizeof *list);
    if (list == NULL) return MIR_E_NO_MEMORY;
    TRY(build_many(ops, list, count));
    if (refused(ops)) return MIR_OK;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool taken = false;
        TRY(is_taken(ops, list[i], &taken));
        if (!taken) list[kept++] = list[i];
    }
    if (kept == 0) return MIR_OK;
    uint64_t number = 0;
    TRY(mir_state_db_take_numbers(ops->db, ops->txn, kept, &number));
    TRY(reserve_changes(ops, kept));
    for (size_t i = 0; i < kept; i++) {
        list[i]->number = number++;
        TRY(mir_state_db_store(ops->db, ops->txn, NULL, list[i], ops->now_ns));
        TRY(mir_state_ops_add_change(ops, MIR_STATE_CREATED, NULL, list[i]));
    }
    return MIR_OK;
}

/* ── Schemas ─────────────────────────────────────────────────────────────────────────────────── */

void mir_state_schema_hash(mir_view raw, uint8_t hash[MIR_STATE_HASH_BYTES])
{
    wc_Sha256 sha;
    (void)wc_InitSha256(&sha); /* fails for bad arguments and devices alone */
    (void)wc_Sha256Update(&sha, raw.data, (word32)raw.size);
    (void)wc_Sha256Final(&sha, hash);
    wc_Sha256Free(&sha);
}

/* What a record gets of a schema, all of it in the arena. */
typedef struct prepared_schema {
    uint8_t *hash; /* null: keep */
    mir_view compressed;
    size_t raw_size;
    bool known;
    char **package_names; /* null: keep */
    size_t package_count;
    MirStore__V1__Time *fetched; /* null: keep */
} prepared_schema;

static mir_status copy_to_arena(mir_state_ops *ops, mir_view from, mir_view *to)
{
    uint8_t *copy = alloc(ops, from.size + 1);
    if (copy == NULL) return MIR_E_NO_MEMORY;
    memcpy(copy, from.data, from.size);
    *to = mir_view_of(copy, from.size);
    return MIR_OK;
}

/* From the uncompressed bytes; `compressed` may come with them. */
static mir_status prepare_raw(mir_state_ops *ops, mir_view raw, mir_view compressed,
                              prepared_schema *out, mir_error *error)
{
    out->hash = alloc(ops, MIR_STATE_HASH_BYTES);
    if (out->hash == NULL) return MIR_E_NO_MEMORY;
    mir_state_schema_hash(raw, out->hash);
    out->raw_size = raw.size;
    mir_status status =
        mir_state_db_schema_exists(ops->db, ops->txn, mir_view_of(out->hash, MIR_STATE_HASH_BYTES));
    out->known = status == MIR_OK;
    if (status != MIR_E_NOT_FOUND) return status;
    if (compressed.size != 0) return copy_to_arena(ops, compressed, &out->compressed);
    mir_bytes frame = {0};
    status = mir_zstd_compress(raw, &frame, error);
    if (status == MIR_OK) status = copy_to_arena(ops, mir_bytes_as_view(&frame), &out->compressed);
    mir_bytes_free(&frame);
    return status;
}

/* MIR_E_INVALID with a text: not a schema that can be stored. */
static mir_status prepare_schema(mir_state_ops *ops, const mir_state_schema *schema,
                                 prepared_schema *out, mir_error *error)
{
    if (schema->raw.size > MIR_DEVICE_SCHEMA_BYTES_MAX ||
        schema->compressed.size > MIR_DEVICE_SCHEMA_BYTES_MAX)
        return mir_error_set(error, MIR_E_INVALID, "the schema has more than %d bytes",
                             MIR_DEVICE_SCHEMA_BYTES_MAX);
    if (schema->package_count > MIR_DEVICE_PACKAGES_MAX)
        return mir_error_set(error, MIR_E_INVALID, "the schema has %zu packages: at most %d",
                             schema->package_count, MIR_DEVICE_PACKAGES_MAX);
    for (size_t i = 0; i < schema->package_count; i++)
        if (is_set(schema->package_names[i]))
            TRY(mir_device_package_check(mir_view_cstr(schema->package_names[i]), error));
    if (schema->raw.size != 0) {
        TRY(prepare_raw(ops, schema->raw, (mir_view){NULL, 0}, out, error));
    } else if (schema->compressed.size != 0) {
        mir_bytes raw = {0};
        mir_status status =
            mir_zstd_decompress(schema->compressed, MIR_DEVICE_SCHEMA_BYTES_MAX, &raw, error);
        if (status == MIR_E_TOO_LARGE) status = MIR_E_INVALID;
        if (status == MIR_OK)
            status = prepare_raw(ops, mir_bytes_as_view(&raw), schema->compressed, out, error);
        mir_bytes_free(&raw);
        TRY(status);
    } else if (schema->hash != NULL) {
        mir_view hash = mir_view_of(schema->hash, MIR_STATE_HASH_BYTES);
        mir_status status = mir_state_db_schema_exists(ops->db, ops->txn, hash);
        if (status == MIR_E_NOT_FOUND)
            return mir_error_set(error, MIR_E_INVALID, "the schema is not known: send its bytes");
        TRY(status);
        mir_view copy;
        TRY(copy_to_arena(ops, hash, &copy));
        out->hash = (uint8_t *)(uintptr_t)copy.data;
        out->known = true;
    }
    if (schema->package_count != 0) {
        out->package_names = alloc(ops, schema->package_count * sizeof *out->package_names);
        if (out->package_names == NULL) return MIR_E_NO_MEMORY;
    }
    for (size_t i = 0; i < schema->package_count; i++) {
        const char *name = schema->package_names[i];
        size_t k = 0; /* each once */
        while (k < out->package_count && strcmp(out->package_names[k], text_of(name)) != 0) k++;
        if (!is_set(name) || k < out->package_count) continue;
        char *copy = mir_arena_strdup(&ops->request->arena, mir_view_cstr(name));
        if (copy == NULL) return MIR_E_NO_MEMORY;
        out->package_names[out->package_count++] = copy;
    }
    if (schema->fetched_ns != 0) {
        out->fetched = mir_state_time_new(&ops->request->arena, schema->fetched_ns);
        if (out->fetched == NULL) return MIR_E_NO_MEMORY;
    }
    return MIR_OK;
}

static mir_status write_schema(mir_state_ops *ops, const prepared_schema *schema)
{
    if (schema->hash == NULL || schema->known) return MIR_OK;
    MirStore__V1__SchemaRecord stored = MIR_STORE__V1__SCHEMA_RECORD__INIT;
    stored.has_compressed = 1;
    stored.compressed = (ProtobufCBinaryData){schema->compressed.size,
                                              (uint8_t *)(uintptr_t)schema->compressed.data};
    stored.has_raw_size = 1;
    stored.raw_size = schema->raw_size;
    stored.n_package_names = schema->package_count;
    stored.package_names = schema->package_names;
    TRY(mir_state_db_schema_put(ops->db, ops->txn, mir_view_of(schema->hash, MIR_STATE_HASH_BYTES),
                                &stored));
    return mir_field_names_note(ops->db, ops->txn, schema->compressed);
}

static bool same_packages(const record *device, const prepared_schema *schema)
{
    if (device->n_package_names != schema->package_count) return false;
    for (size_t i = 0; i < schema->package_count; i++)
        if (strcmp(text_of(device->package_names[i]), schema->package_names[i]) != 0) return false;
    return true;
}

static void apply_schema(record *after, const prepared_schema *schema)
{
    if (schema->hash != NULL) {
        after->has_schema_hash = 1;
        after->schema_hash = (ProtobufCBinaryData){MIR_STATE_HASH_BYTES, schema->hash};
    }
    if (schema->package_count != 0 && !same_packages(after, schema)) {
        after->package_names = schema->package_names;
        after->n_package_names = schema->package_count;
    }
    if (schema->fetched != NULL) after->last_schema_fetch = schema->fetched;
}

static mir_status execute_set_schema(mir_state_ops *ops)
{
    mir_state_request *request = ops->request;
    uint64_t number = 0;
    record *before = NULL;
    mir_status status =
        mir_state_db_find_id(ops->db, ops->txn, request->set_schema.device_id, &number);
    if (status == MIR_E_NOT_FOUND) {
        mir_state_ops_refuse(request, status, "no device found to update");
        return MIR_OK;
    }
    TRY(status);
    TRY(mir_state_db_load(ops->db, ops->txn, number, &request->arena, &before));
    if (is_disabled(before)) {
        mir_state_ops_refuse(request, MIR_E_PERMISSION,
                             "error updating device: the device is disabled");
        return MIR_OK;
    }
    mir_error error;
    prepared_schema schema = {0};
    status = prepare_schema(ops, &request->set_schema.schema, &schema, &error);
    if (status == MIR_E_INVALID) {
        mir_state_ops_refuse(request, status, "error updating device: %s", error.text);
        return MIR_OK;
    }
    TRY(status);
    record *after = copy_record(ops, before);
    if (after == NULL) return MIR_E_NO_MEMORY;
    apply_schema(after, &schema);
    TRY(reserve_changes(ops, UPDATE_CHANGES_MAX));
    TRY(write_schema(ops, &schema));
    TRY(mir_state_db_store(ops->db, ops->txn, before, after, ops->now_ns));
    TRY(add_update(ops, before, after));
    return MIR_OK;
}

/* ── Updating ────────────────────────────────────────────────────────────────────────────────── */

typedef struct update_plan {
    const char *id; /* null: untouched */
    const char *name;
    const char *name_space;
    text_change *labels;
    size_t label_count;
    text_change *annotations;
    size_t annotation_count;
    const MirApi__V1__UpdateDeviceRequest__Spec *spec;     /* null: untouched */
    const MirApi__V1__UpdateDeviceRequest__Status *status; /* null: untouched */
    MirStore__V1__Time *heartbeat;                         /* null: untouched */
    prepared_schema schema;
} update_plan;

static mir_status plan_time(mir_state_ops *ops, const MirApi__V1__Timestamp *given,
                            const char *what, MirStore__V1__Time **time, mir_error *error)
{
    if (given == NULL) return MIR_OK;
    if (!mir_timestamp_valid(given))
        return mir_error_set(error, MIR_E_INVALID, "%s is no time between the years 1 and 9999",
                             what);
    MirStore__V1__Time *made = mir_state_time_new(&ops->request->arena, 0);
    if (made == NULL) return MIR_E_NO_MEMORY;
    made->seconds = given->seconds;
    made->nanos = given->nanos;
    *time = made;
    return MIR_OK;
}

static mir_status plan_meta(mir_state_ops *ops, update_plan *plan, mir_error *error)
{
    const MirApi__V1__UpdateDeviceRequest__Meta *meta = ops->request->update->meta;
    if (meta == NULL) return MIR_OK;
    if (is_set(meta->name)) {
        TRY(mir_device_name_check(mir_view_cstr(meta->name), error));
        plan->name = meta->name;
    }
    if (is_set(meta->namespace_)) {
        TRY(mir_device_namespace_check(mir_view_cstr(meta->namespace_), error));
        plan->name_space = meta->namespace_;
    }
    TRY(list_changes(ops, &label_rules, (void *const *)meta->labels, meta->n_labels, &plan->labels,
                     &plan->label_count, error));
    return list_changes(ops, &annotation_rules, (void *const *)meta->annotations,
                        meta->n_annotations, &plan->annotations, &plan->annotation_count, error);
}

/* Everything that does not depend on a device. MIR_E_INVALID with a text, or MIR_E_NO_MEMORY. */
static mir_status plan_update(mir_state_ops *ops, update_plan *plan, mir_error *error)
{
    const MirApi__V1__UpdateDeviceRequest *update = ops->request->update;
    TRY(plan_meta(ops, plan, error));
    plan->spec = update->spec;
    plan->status = update->status;
    if (update->spec != NULL && is_set(update->spec->device_id)) {
        TRY(mir_device_id_check(mir_view_cstr(update->spec->device_id), error));
        plan->id = update->spec->device_id;
    }
    if (update->status == NULL) return MIR_OK;
    TRY(plan_time(ops, update->status->last_hearthbeat, "status.last_hearthbeat", &plan->heartbeat,
                  error));
    const MirApi__V1__UpdateDeviceRequest__Schema *schema = update->status->schema;
    if (schema == NULL) return MIR_OK;
    mir_state_schema given = {
        .compressed = schema->has_compressed_schema ? mir_view_of(schema->compressed_schema.data,
                                                                  schema->compressed_schema.len)
                                                    : (mir_view){NULL, 0},
        .package_names = (const char *const *)schema->package_names,
        .package_count = schema->n_package_names,
    };
    TRY(prepare_schema(ops, &given, &plan->schema, error));
    return plan_time(ops, schema->last_schema_fetch, "status.schema.last_schema_fetch",
                     &plan->schema.fetched, error);
}

/* The owner of a name, 0 if it is free. */
static mir_status owner_of_name(mir_state_ops *ops, const char *name, const char *name_space,
                                uint64_t *owner)
{
    *owner = 0;
    mir_status status = mir_state_db_find_name(ops->db, ops->txn, mir_view_cstr(name),
                                               mir_view_cstr(name_space), owner);
    return status == MIR_E_NOT_FOUND ? MIR_OK : status;
}

static int compare_by_name(const void *a, const void *b)
{
    const record *x, *y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return strcmp(x->name, y->name);
}

/* Only the namespace is set: no two targets may share a name, and each name must be free there. */
static mir_status check_namespace(mir_state_ops *ops, const char *name_space, record *const *list,
                                  size_t count)
{
    record **sorted = alloc(ops, count * sizeof *sorted);
    if (sorted == NULL) return MIR_E_NO_MEMORY;
    memcpy(sorted, list, count * sizeof *sorted);
    qsort(sorted, count, sizeof(record *), compare_by_name);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) != 0) continue;
        mir_state_ops_refuse(ops->request, MIR_E_EXISTS,
                             "error updating device: cannot update device as multiple device will "
                             "have the same name '%s' in namespace '%s'",
                             sorted[i]->name, name_space);
        return MIR_OK;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t owner = 0;
        TRY(owner_of_name(ops, list[i]->name, name_space, &owner));
        if (owner == 0 || owner == list[i]->number) continue;
        mir_state_ops_refuse(ops->request, MIR_E_EXISTS,
                             "error updating device: cannot update device as name '%s' is already "
                             "in use in namespace '%s'",
                             list[i]->name, name_space);
        return MIR_OK;
    }
    return MIR_OK;
}

/* Only the name is set. The targets come sorted by namespace. */
static mir_status check_name(mir_state_ops *ops, const char *name, record *const *list,
                             size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (strcmp(list[i - 1]->namespace_, list[i]->namespace_) != 0) continue;
        mir_state_ops_refuse(ops->request, MIR_E_EXISTS,
                             "error updating device: cannot update device as multiple device will "
                             "have the same name '%s' in namespace '%s'",
                             name, list[i]->namespace_);
        return MIR_OK;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t owner = 0;
        TRY(owner_of_name(ops, name, list[i]->namespace_, &owner));
        if (owner == 0 || owner == list[i]->number) continue;
        mir_state_ops_refuse(ops->request, MIR_E_EXISTS,
                             "error updating device: cannot update device as name '%s' is already "
                             "in use in namespace '%s'",
                             name, list[i]->namespace_);
        return MIR_OK;
    }
    return MIR_OK;
}

static mir_status check_uniqueness(mir_state_ops *ops, const update_plan *plan, record *const *list,
                                   size_t count)
{
    mir_state_request *request = ops->request;
    if (plan->id != NULL && count > 1) {
        mir_state_ops_refuse(request, MIR_E_EXISTS,
                             "error updating device: cannot update multiple devices as deviceId "
                             "must be unique");
        return MIR_OK;
    }
    if (plan->id != NULL && count == 1) {
        uint64_t owner = 0;
        mir_status status =
            mir_state_db_find_id(ops->db, ops->txn, mir_view_cstr(plan->id), &owner);
        if (status != MIR_E_NOT_FOUND) TRY(status);
        if (status == MIR_OK && owner != list[0]->number) {
            mir_state_ops_refuse(request, MIR_E_EXISTS,
                                 "error updating device: cannot update device has deviceId '%s' is "
                                 "already in use",
                                 plan->id);
            return MIR_OK;
        }
    }
    if (plan->name != NULL && plan->name_space != NULL) {
        if (count > 1) {
            mir_state_ops_refuse(request, MIR_E_EXISTS,
                                 "error updating device: cannot update multiple devices as "
                                 "name/namespace '%s/%s' must be unique",
                                 plan->name, plan->name_space);
            return MIR_OK;
        }
        uint64_t owner = 0;
        TRY(owner_of_name(ops, plan->name, plan->name_space, &owner));
        if (count == 1 && owner != 0 && owner != list[0]->number)
            mir_state_ops_refuse(request, MIR_E_EXISTS,
                                 "error updating device: cannot update device has '%s/%s' is "
                                 "already in use",
                                 plan->name, plan->name_space);
        return MIR_OK;
    }
    if (plan->name_space != NULL) return check_namespace(ops, plan->name_space, list, count);
    if (plan->name != NULL) return check_name(ops, plan->name, list, count);
    return MIR_OK;
}

static mir_status set_heartbeat(mir_state_ops *ops, record *after, int64_t at_ns)
{
    if (at_ns <= mir_state_time_ns(after->last_heartbeat)) return MIR_OK;
    MirStore__V1__Time *time = mir_state_time_new(&ops->request->arena, at_ns);
    if (time == NULL) return MIR_E_NO_MEMORY;
    after->last_heartbeat = time;
    return MIR_OK;
}

static mir_status merge_device(mir_state_ops *ops, const update_plan *plan, const record *before,
                               record **out, mir_error *error)
{
    record *after = copy_record(ops, before);
    if (after == NULL) return MIR_E_NO_MEMORY;
    /* Strings of the request do not outlive it, and the record may. */
    mir_arena *arena = &ops->request->arena;
    if (plan->id != NULL) after->device_id = mir_arena_strdup(arena, mir_view_cstr(plan->id));
    if (plan->name != NULL) after->name = mir_arena_strdup(arena, mir_view_cstr(plan->name));
    if (plan->name_space != NULL)
        after->namespace_ = mir_arena_strdup(arena, mir_view_cstr(plan->name_space));
    if (after->device_id == NULL || after->name == NULL || after->namespace_ == NULL)
        return MIR_E_NO_MEMORY;
    TRY(merge_map(ops, &label_rules, plan->labels, plan->label_count,
                  (text_entry ***)&after->labels, &after->n_labels, error));
    TRY(merge_map(ops, &annotation_rules, plan->annotations, plan->annotation_count,
                  (text_entry ***)&after->annotations, &after->n_annotations, error));
    if (plan->spec != NULL && plan->spec->has_disabled) {
        after->has_disabled = 1;
        after->disabled = plan->spec->disabled;
    }
    if (plan->status != NULL && plan->status->has_online) {
        after->has_online = 1;
        after->online = plan->status->online;
    }
    if (plan->heartbeat != NULL) after->last_heartbeat = plan->heartbeat;
    apply_schema(after, &plan->schema);
    /* It is neither online nor offline, and its last heartbeat is the last one before this. */
    if (is_disabled(after) && after->online) {
        after->online = 0;
        if (plan->heartbeat == NULL)
            TRY(set_heartbeat(ops, after, ops->live_ns(ops->live_ctx, after->number)));
    }
    *out = after;
    return MIR_OK;
}

/* Name and namespace are set and nothing matches: a create with meta and spec of the update. */
static mir_status upsert(mir_state_ops *ops, const update_plan *plan)
{
    text_entry **labels = alloc(ops, (plan->label_count + 1) * sizeof *labels);
    text_entry **annotations = alloc(ops, (plan->annotation_count + 1) * sizeof *annotations);
    if (labels == NULL || annotations == NULL) return MIR_E_NO_MEMORY;
    new_device given = {
        .id = text_of(plan->id),
        .name = plan->name,
        .name_space = plan->name_space,
        .disabled = plan->spec != NULL && plan->spec->has_disabled && plan->spec->disabled,
        .labels = labels,
        .annotations = annotations,
    };
    for (size_t i = 0; i < plan->label_count; i++)
        if (plan->labels[i].value != NULL)
            TRY(new_entry(ops, label_rules.descriptor, plan->labels[i].key, plan->labels[i].value,
                          &labels[given.label_count++]));
    for (size_t i = 0; i < plan->annotation_count; i++)
        if (plan->annotations[i].value != NULL)
            TRY(new_entry(ops, annotation_rules.descriptor, plan->annotations[i].key,
                          plan->annotations[i].value, &annotations[given.annotation_count++]));
    record *made = NULL;
    TRY(create_one(ops, &given, "error creating device: ", &made));
    if (refused(ops)) return MIR_OK;
    TRY(reserve_changes(ops, 2));
    TRY(mir_state_ops_add_change(ops, MIR_STATE_CREATED, NULL, made));
    TRY(mir_state_ops_add_change(ops, MIR_STATE_UPDATED, made, made));
    return MIR_OK;
}

static mir_status refuse_version(mir_state_request *request, const char *name,
                                 const char *name_space, uint64_t version)
{
    mir_state_ops_refuse(request, MIR_E_EXISTS,
                         "error updating device: device %s/%s has version %" PRIu64
                         ", not %" PRIu64,
                         name, name_space, version, request->update->if_version);
    return MIR_OK;
}

static int compare_property(const void *key, const void *property)
{
    const mir_state_property *of = property;
    mir_view id = mir_view_cstr(key);
    size_t size = id.size < of->device_id.size ? id.size : of->device_id.size;
    int order = size == 0 ? 0 : memcmp(id.data, of->device_id.data, size);
    return order != 0 ? order : (id.size > of->device_id.size) - (id.size < of->device_id.size);
}

/* The desired properties that come with an update, into what it makes of its devices. */
static mir_status merge_properties(mir_state_ops *ops, record *const *before, record *const *after,
                                   size_t count)
{
    mir_state_request *request = ops->request;
    mir_state_property *all = request->with, *end = all + request->with_count;
    for (size_t i = 0; i < count && all != NULL; i++) {
        mir_state_property *of =
            bsearch(before[i]->device_id, all, request->with_count, sizeof *all, compare_property);
        if (of == NULL) continue; /* did not match yet when the properties were checked */
        while (of > all && compare_property(before[i]->device_id, of - 1) == 0) of--;
        size_t of_device = 0;
        while (of + of_device < end && compare_property(before[i]->device_id, of + of_device) == 0)
            of_device++;
        TRY(mir_state_props_apply(ops, after[i], of, of_device));
        for (size_t k = 0; k < of_device; k++) {
            of[k].before = before[i];
            of[k].record = after[i];
            if (of[k].status == MIR_OK) continue;
            mir_state_ops_refuse(request, of[k].status, "error updating device: %s", of[k].error);
            return MIR_OK;
        }
    }
    return MIR_OK;
}

static mir_status execute_update(mir_state_ops *ops)
{
    mir_state_request *request = ops->request;
    const MirApi__V1__UpdateDeviceRequest *update = request->update;
    if (request->with == NULL && update->props != NULL && update->props->desired != NULL &&
        update->props->desired->n_fields != 0) {
        mir_state_ops_refuse(request, MIR_E_UNSUPPORTED,
                             "error updating device: desired properties that nobody has checked");
        return MIR_OK;
    }
    if (mir_state_target_is_empty(update->targets)) {
        mir_state_ops_refuse(request, MIR_E_INVALID,
                             "error no target found: No device target provided");
        return MIR_OK;
    }
    mir_error error = {""};
    record **list = NULL;
    size_t count = 0;
    update_plan plan = {0};
    mir_status status = plan_update(ops, &plan, &error);
    if (status == MIR_OK)
        status = mir_state_target_load(ops->db, ops->txn, update->targets, &request->arena, &list,
                                       &count, &error);
    if (status == MIR_E_INVALID || (status == MIR_E_TOO_LARGE && error.text[0] != '\0')) {
        mir_state_ops_refuse(request, status, "error updating device: %s", error.text);
        return MIR_OK;
    }
    TRY(status);
    for (size_t i = 0; i < count && update->has_if_version; i++) {
        if (list[i]->version == update->if_version) continue;
        return refuse_version(request, list[i]->name, list[i]->namespace_, list[i]->version);
    }
    if (count == 0) {
        if (plan.name == NULL || plan.name_space == NULL) return MIR_OK;
        if (update->has_if_version && update->if_version != 0)
            return refuse_version(request, plan.name, plan.name_space, 0);
        return upsert(ops, &plan);
    }
    TRY(check_uniqueness(ops, &plan, list, count));
    if (refused(ops)) return MIR_OK;
    record **after = alloc(ops, count * sizeof *after);
    if (after == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        status = merge_device(ops, &plan, list[i], &after[i], &error);
        if (status == MIR_E_INVALID) {
            mir_state_ops_refuse(request, status, "error updating device: %s", error.text);
            return MIR_OK;
        }
        TRY(status);
    }
    TRY(reserve_changes(ops, count * UPDATE_CHANGES_MAX + request->with_count));
    TRY(merge_properties(ops, list, after, count));
    if (refused(ops)) return MIR_OK;
    TRY(write_schema(ops, &plan.schema));
    for (size_t i = 0; i < count; i++) {
        TRY(mir_state_db_store(ops->db, ops->txn, list[i], after[i], ops->now_ns));
    }
    TRY(mir_state_props_tell(ops, request->with, request->with_count));
    for (size_t i = 0; i < count; i++) TRY(add_update(ops, list[i], after[i]));
    return MIR_OK;
}

/* ── Deleting ────────────────────────────────────────────────────────────────────────────────── */

/* Loads the devices that are to go now, of the candidates; what is behind them is left. */
static mir_status load_deleted(mir_state_ops *ops, const uint64_t *numbers, size_t number_count,
                               bool exact, record ***list, size_t *count)
{
    mir_state_request *request = ops->request;
    const bool resumes = request->numbers != NULL;
    size_t max = request->delete_max == 0 ? number_count : request->delete_max, i = 0;
    if (max > number_count) max = number_count;
    *list = alloc(ops, (max + 1) * sizeof **list);
    if (*list == NULL) return MIR_E_NO_MEMORY;
    for (; i < number_count && *count < max; i++) {
        mir_status status =
            mir_state_db_load(ops->db, ops->txn, numbers[i], &request->arena, &(*list)[*count]);
        if (status == MIR_E_NOT_FOUND && resumes) continue;
        if (status != MIR_OK) return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status;
        if (exact || mir_state_target_matches(request->delete_->targets, (*list)[*count])) ++*count;
    }
    request->left = numbers + i;
    request->left_count = number_count - i;
    if (resumes || request->left_count == 0) return MIR_OK;
    uint64_t *left = alloc(ops, request->left_count * sizeof *left);
    if (left == NULL) return MIR_E_NO_MEMORY;
    memcpy(left, request->left, request->left_count * sizeof *left);
    request->left = left;
    return MIR_OK;
}

static mir_status execute_delete(mir_state_ops *ops)
{
    mir_state_request *request = ops->request;
    const MirApi__V1__DeviceTarget *target = request->delete_->targets;
    if (mir_state_target_is_empty(target)) {
        mir_state_ops_refuse(request, MIR_E_INVALID,
                             "error no target found: No device target provided");
        return MIR_OK;
    }
    mir_error error = {""};
    record **list = NULL;
    size_t count = 0;
    mir_status status = MIR_OK;
    if (request->numbers != NULL) {
        status = load_deleted(ops, request->numbers, request->number_count, false, &list, &count);
    } else {
        mir_state_numbers numbers = {0};
        bool exact = true;
        status = mir_state_target_candidates(ops->db, ops->txn, target, &numbers, &exact, &error);
        if (status == MIR_OK)
            status = load_deleted(ops, numbers.items, numbers.count, exact, &list, &count);
        free(numbers.items);
    }
    if (status == MIR_E_INVALID || (status == MIR_E_TOO_LARGE && error.text[0] != '\0')) {
        mir_state_ops_refuse(request, status, "error deleting device: %s", error.text);
        return MIR_OK;
    }
    TRY(status);
    if (request->left_count == 0) request->left = NULL;
    mir_state_target_sort(list, count);
    TRY(reserve_changes(ops, count));
    for (size_t i = 0; i < count; i++) {
        TRY(mir_state_db_store(ops->db, ops->txn, list[i], NULL, ops->now_ns));
        TRY(mir_state_ops_add_change(ops, MIR_STATE_DELETED, list[i], NULL));
    }
    return MIR_OK;
}

/* ── Presence ────────────────────────────────────────────────────────────────────────────────── */

/* A device that the store does not know yet; `*made` stays null when its name is taken. */
static mir_status provision(mir_state_ops *ops, mir_state_heartbeat *beat, record **made)
{
    char id[MIR_DEVICE_ID_BYTES_MAX + 1];
    memcpy(id, beat->device_id.data, beat->device_id.size);
    id[beat->device_id.size] = '\0';
    mir_error error;
    new_device given = {.id = id};
    record *built = NULL;
    mir_status status = build_record(ops, &given, &built, &error);
    if (status == MIR_E_INVALID) {
        beat->status = status; /* a name cannot be made from this id */
        return MIR_OK;
    }
    TRY(status);
    bool taken = false;
    TRY(is_taken(ops, built, &taken));
    if (taken) {
        beat->status = MIR_E_EXISTS;
        return MIR_OK;
    }
    TRY(mir_state_db_take_numbers(ops->db, ops->txn, 1, &built->number));
    *made = built;
    return MIR_OK;
}

static mir_status one_heartbeat(mir_state_ops *ops, mir_state_heartbeat *beat, bool refresh_only)
{
    mir_state_request *request = ops->request;
    beat->number = 0;
    beat->schema_status = MIR_OK;
    beat->status = mir_device_id_check(beat->device_id, NULL);
    if (beat->status != MIR_OK) return MIR_OK;
    record *before = NULL, *created = NULL;
    uint64_t number = 0;
    mir_status status = mir_state_db_find_id(ops->db, ops->txn, beat->device_id, &number);
    if (status == MIR_OK) {
        TRY(mir_state_db_load(ops->db, ops->txn, number, &request->arena, &before));
    } else if (status != MIR_E_NOT_FOUND) {
        return status;
    } else if (refresh_only) {
        beat->status = MIR_E_NOT_FOUND;
        return MIR_OK;
    } else {
        TRY(provision(ops, beat, &created));
        if (created == NULL) return MIR_OK;
        number = created->number;
    }
    if (before != NULL && is_disabled(before)) {
        beat->status = MIR_E_PERMISSION;
        return MIR_OK;
    }
    beat->number = number;
    record *old = before != NULL ? before : created;
    record *after = copy_record(ops, old);
    if (after == NULL) return MIR_E_NO_MEMORY;
    TRY(set_heartbeat(ops, after, beat->at_ns));
    bool with_schema = false;
    bool was_online = old->has_online && old->online;
    if (!refresh_only) {
        after->has_online = after->online = 1;
        prepared_schema schema = {0};
        mir_error error;
        status = MIR_OK;
        if (beat->schema != NULL) status = prepare_schema(ops, beat->schema, &schema, &error);
        /* A hello whose schema is no good counts as a plain heartbeat. */
        if (status == MIR_E_INVALID) {
            bool by_hash = beat->schema->raw.size == 0 && beat->schema->compressed.size == 0;
            beat->schema_status = by_hash ? MIR_E_NOT_FOUND : MIR_E_INVALID;
        } else {
            TRY(status);
        }
        with_schema = status == MIR_OK && schema.hash != NULL;
        if (with_schema) {
            TRY(write_schema(ops, &schema));
            apply_schema(after, &schema);
        }
    }
    TRY(mir_state_db_store(ops->db, ops->txn, before, after, ops->now_ns));
    if (created != NULL) TRY(mir_state_ops_add_change(ops, MIR_STATE_CREATED, NULL, created));
    if (!refresh_only && !was_online)
        TRY(mir_state_ops_add_change(ops, MIR_STATE_ONLINE, old, after));
    if (with_schema) TRY(add_update(ops, old, after));
    return MIR_OK;
}

static mir_status execute_heartbeat(mir_state_ops *ops)
{
    mir_state_request *request = ops->request;
    size_t count = request->heartbeat.count;
    TRY(reserve_changes(ops, count * (2 + UPDATE_CHANGES_MAX))); /* created, online */
    for (size_t i = 0; i < count; i++)
        TRY(one_heartbeat(ops, &request->heartbeat.beats[i], request->heartbeat.refresh_only));
    return MIR_OK;
}

static mir_status execute_offline(mir_state_ops *ops)
{
    mir_state_request *request = ops->request;
    TRY(reserve_changes(ops, request->offline.count));
    for (size_t i = 0; i < request->offline.count; i++) {
        uint64_t number = 0;
        mir_status status =
            mir_state_db_find_id(ops->db, ops->txn, request->offline.device_ids[i], &number);
        if (status == MIR_E_NOT_FOUND) continue;
        TRY(status);
        record *before = NULL;
        TRY(mir_state_db_load(ops->db, ops->txn, number, &request->arena, &before));
        if (!before->has_online || !before->online) continue;
        record *after = copy_record(ops, before);
        if (after == NULL) return MIR_E_NO_MEMORY;
        after->online = 0;
        TRY(set_heartbeat(ops, after, ops->live_ns(ops->live_ctx, number)));
        TRY(mir_state_db_store(ops->db, ops->txn, before, after, ops->now_ns));
        TRY(mir_state_ops_add_change(ops, MIR_STATE_OFFLINE_NOW, before, after));
    }
    return MIR_OK;
}

static mir_status execute_events(mir_state_ops *ops)
{
    mir_state_request *request = ops->request;
    if (request->events.count > MIR_STATE_EVENTS_MAX) {
        mir_state_ops_refuse(request, MIR_E_TOO_LARGE, "%zu events in one request: send at most %d",
                             request->events.count, MIR_STATE_EVENTS_MAX);
        return MIR_OK;
    }
    for (size_t i = 0; i < request->events.count; i++)
        TRY(mir_event_log_append(ops->events, ops->now_ns, &request->events.items[i]));
    return MIR_OK;
}

mir_status mir_state_ops_execute(mir_state_ops *ops)
{
    switch (ops->request->op) {
    case MIR_STATE_CREATE: return execute_create(ops);
    case MIR_STATE_CREATE_MANY: return execute_create_many(ops);
    case MIR_STATE_UPDATE: return execute_update(ops);
    case MIR_STATE_DELETE: return execute_delete(ops);
    case MIR_STATE_HEARTBEAT: return execute_heartbeat(ops);
    case MIR_STATE_OFFLINE: return execute_offline(ops);
    case MIR_STATE_SET_SCHEMA: return execute_set_schema(ops);
    case MIR_STATE_EVENTS: return execute_events(ops);
    case MIR_STATE_INTERNAL: return ops->request->internal.run(ops, ops->request->internal.ctx);
    case MIR_STATE_PROPERTIES: return mir_state_props_execute(ops);
    }
    mir_state_ops_refuse(ops->request, MIR_E_UNSUPPORTED, "unknown operation of the state store");
    return MIR_OK;
}
