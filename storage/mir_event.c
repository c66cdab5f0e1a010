/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_event.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "mir_clock.h"
#include "mir_device_rules.h"
#include "mir_event_log.h"
#include "mir_hash.h"
#include "mir_pb.h"
#include "mir_pbwire.h"
#include "mir_zstd.h"

enum {
    COMPRESS_BYTES_MIN = 512, /* below, a frame hardly pays for its head */
    CAUSE_BYTES_MAX = 4096,   /* actor, address, request id */
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

static const mir_event_wording kinds[] = {
    [MIR_STATE_CREATED] = {"core.v1alpha.devicecreated", "normal", "DeviceCreated",
                           "A device has been created successfully"},
    [MIR_STATE_UPDATED] = {"core.v1alpha.deviceupdated", "normal", "DeviceUpdated",
                           "A device has been updated successfully"},
    [MIR_STATE_DELETED] = {"core.v1alpha.devicedeleted", "normal", "DeviceDeleted",
                           "A device has been deleted successfully"},
    [MIR_STATE_ONLINE] = {"core.v1alpha.deviceonline", "normal", "DeviceOnline",
                          "Device is now online"},
    [MIR_STATE_OFFLINE_NOW] = {"core.v1alpha.deviceoffline", "normal", "DeviceOffline",
                               "Device is now offline"},
    [MIR_STATE_DESIRED] = {"cfg.v1alpha.desiredproperties", "normal", "DeviceDesiredProps",
                           "Device desired properties updated successfully"},
    [MIR_STATE_REPORTED] = {"cfg.v1alpha.reportedproperties", "normal", "DeviceReportedProps",
                            "Device reported properties updated successfully"},
    [MIR_STATE_OUT_OF_SYNC] = {"cfg.v1alpha.outofsync", "warning", "DeviceConfigOutOfSync",
                               "Device reports by an older configuration than the desired one"},
    [MIR_STATE_DISABLED] = {"core.v1alpha.devicedisabled", "normal", "DeviceDisabled",
                            "Device is disabled and cut off"},
    [MIR_STATE_ENABLED] = {"core.v1alpha.deviceenabled", "normal", "DeviceEnabled",
                           "Device is enabled"},
    [MIR_STATE_SCHEMA_CHANGED] = {"core.v1alpha.schemachanged", "normal", "SchemaChanged",
                                  "Device has another schema"},
};

const mir_event_wording *mir_event_wording_of(unsigned change)
{
    if (change >= sizeof kinds / sizeof kinds[0] || kinds[change].reason == NULL) return NULL;
    return &kinds[change];
}

/* ── Terms ───────────────────────────────────────────────────────────────────────────────────── */

static uint32_t hash_part(uint64_t hash)
{
    uint32_t part = (uint32_t)hash;
    return part == 0 ? 1 : part;
}

uint32_t mir_event_hash(mir_view text)
{
    return text.size == 0 ? 0 : hash_part(mir_hash_fixed(text.data, text.size));
}

uint32_t mir_event_hash_device(mir_view name_space, mir_view name)
{
    if (name.size == 0 || name.size > MIR_EVENT_NAME_BYTES_MAX ||
        name_space.size > MIR_EVENT_NAME_BYTES_MAX)
        return 0;
    uint8_t pair[2 * MIR_EVENT_NAME_BYTES_MAX + 1];
    if (name_space.size != 0) memcpy(pair, name_space.data, name_space.size);
    pair[name_space.size] = 0;
    memcpy(pair + name_space.size + 1, name.data, name.size);
    return hash_part(mir_hash_fixed(pair, name_space.size + 1 + name.size));
}

static mir_view second_token(mir_view route)
{
    const uint8_t *dot = route.size == 0 ? NULL : memchr(route.data, '.', route.size);
    if (dot == NULL) return (mir_view){NULL, 0};
    mir_view rest = mir_view_from(route, (size_t)(dot - route.data) + 1);
    const uint8_t *end = rest.size == 0 ? NULL : memchr(rest.data, '.', rest.size);
    if (end != NULL) rest.size = (size_t)(end - rest.data);
    return rest;
}

static mir_view related_name(const MirApi__V1__Object *related)
{
    if (related == NULL || related->meta == NULL) return (mir_view){NULL, 0};
    return mir_view_cstr(related->meta->name);
}

mir_view mir_event_subject_id(const MirStore__V1__EventRecord *record)
{
    return second_token(mir_view_cstr(record->route));
}

mir_view mir_event_base_name(const MirStore__V1__EventRecord *record)
{
    mir_view name = related_name(record->related);
    return name.size != 0 ? name : mir_event_subject_id(record);
}

mir_view mir_event_name_space(const MirStore__V1__EventRecord *record)
{
    mir_view name_space = {NULL, 0};
    if (record->related != NULL && record->related->meta != NULL)
        name_space = mir_view_cstr(record->related->meta->namespace_);
    return name_space.size != 0 ? name_space : MIR_VIEW_LITERAL("default");
}

void mir_event_describe(const MirStore__V1__EventRecord *record, uint8_t *flags,
                        uint32_t terms[MIR_EVENT_TERMS])
{
    memset(terms, 0, MIR_EVENT_TERMS * sizeof *terms);
    *flags = record->device != NULL ? MIR_EVENT_HAS_DEVICE : 0;
    if (record->removal != NULL) {
        *flags = MIR_EVENT_IS_REMOVAL;
        return;
    }
    mir_view name = mir_event_base_name(record), name_space = mir_event_name_space(record);
    terms[MIR_EVENT_NAME] = mir_event_hash(name);
    terms[MIR_EVENT_DEVICE] = mir_event_hash_device(name_space, name);
    terms[MIR_EVENT_ID] = mir_event_hash(mir_event_subject_id(record));
    terms[MIR_EVENT_NAMESPACE] = mir_event_hash(name_space);
    terms[MIR_EVENT_REASON] = mir_event_hash(mir_view_cstr(record->reason));
    terms[MIR_EVENT_TYPE] = mir_event_hash(mir_view_cstr(record->type));
    if (record->audit == NULL) return;
    terms[MIR_EVENT_ACTOR] = mir_event_hash(mir_view_cstr(record->audit->actor));
    terms[MIR_EVENT_OUTCOME] = mir_event_hash(mir_view_cstr(record->audit->outcome));
}

/* The field of a message on the wire, if it is there; the last counts, as for a decoder. */
static bool peek_field(mir_view wire_bytes, uint32_t number, mir_view *out)
{
    mir_pbwire wire = mir_pbwire_of(wire_bytes);
    const uint32_t want = mir_pbwire_make_tag(number, MIR_PBWIRE_BYTES);
    *out = (mir_view){NULL, 0};
    while (mir_pbwire_more(&wire)) {
        uint32_t tag = 0;
        mir_view bytes;
        if (!mir_pbwire_tag(&wire, &tag)) return false;
        /* Fields are written in the order of their numbers. */
        if (tag >> 3 > number) return true;
        if (tag != want) {
            if (!mir_pbwire_skip(&wire, tag)) return false;
            continue;
        }
        if (!mir_pbwire_bytes(&wire, &bytes)) return false;
        *out = bytes;
    }
    return true;
}

bool mir_event_peek_name(mir_view record, mir_view *name)
{
    enum { RELATED = 1, ROUTE = 2, META = 3, NAME = 1 };
    mir_view related, meta, route;
    if (!peek_field(record, RELATED, &related) || !peek_field(related, META, &meta) ||
        !peek_field(meta, NAME, name))
        return false;
    if (name->size != 0) return true;
    if (!peek_field(record, ROUTE, &route)) return false;
    *name = second_token(route);
    return true;
}

bool mir_event_peek_reason(mir_view record, mir_view *reason)
{
    enum { REASON = 5 };
    return peek_field(record, REASON, reason);
}

/* ── Hashes ──────────────────────────────────────────────────────────────────────────────────── */

void mir_event_leaf(mir_view record, uint8_t leaf[MIR_EVENT_HASH_BYTES])
{
    static const uint8_t zero = 0;
    wc_Sha256 sha;
    (void)wc_InitSha256(&sha); /* fails for bad arguments and devices alone */
    (void)wc_Sha256Update(&sha, &zero, 1);
    (void)wc_Sha256Update(&sha, record.data, (word32)record.size);
    (void)wc_Sha256Final(&sha, leaf);
    wc_Sha256Free(&sha);
}

void mir_event_link(uint8_t link[MIR_EVENT_HASH_BYTES], int64_t at_ns,
                    const uint8_t leaf[MIR_EVENT_HASH_BYTES])
{
    uint8_t bytes[1 + 8 + 2 * MIR_EVENT_HASH_BYTES];
    bytes[0] = 1;
    memcpy(bytes + 1, link, MIR_EVENT_HASH_BYTES);
    mir_state_u64_write(bytes + 1 + MIR_EVENT_HASH_BYTES, (uint64_t)at_ns);
    memcpy(bytes + 9 + MIR_EVENT_HASH_BYTES, leaf, MIR_EVENT_HASH_BYTES);
    wc_Sha256 sha;
    (void)wc_InitSha256(&sha);
    (void)wc_Sha256Update(&sha, bytes, sizeof bytes);
    (void)wc_Sha256Final(&sha, link);
    wc_Sha256Free(&sha);
}

/* 48 bits that no other event of that name has, as good as surely: SplitMix64 from a random start
 * for each thread. */
uint64_t mir_event_suffix_new(void)
{
    static _Thread_local uint64_t state;
    if (state == 0 && getrandom(&state, sizeof state, 0) != (ssize_t)sizeof state)
        state = (uint64_t)mir_clock_wall_ns() ^ (uint64_t)(uintptr_t)&state;
    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) >> 16;
}

/* ── Making one ──────────────────────────────────────────────────────────────────────────────── */

static mir_status check_text(const char *what, mir_view text, size_t bytes_max, mir_error *error)
{
    if (text.size > bytes_max)
        return mir_error_set(error, MIR_E_TOO_LARGE, "%s of an event has %zu bytes: at most %zu",
                             what, text.size, bytes_max);
    if (!mir_utf8_valid(text) || (text.size != 0 && memchr(text.data, 0, text.size) != NULL))
        return mir_error_set(error, MIR_E_INVALID,
                             "%s of an event is not UTF-8 text without zero bytes", what);
    return MIR_OK;
}

static mir_status check_input(const mir_event_input *input, mir_error *error)
{
    const MirApi__V1__EventSpec *spec = input->spec;
    mir_view id = second_token(input->route);
    if (id.size == 0)
        return mir_error_set(error, MIR_E_INVALID, "the subject of an event has no id");
    TRY(check_text("the id in the subject", id, MIR_EVENT_NAME_BYTES_MAX, error));
    TRY(check_text("the subject", input->route, MIR_EVENT_TEXT_BYTES_MAX, error));
    TRY(check_text("the type", mir_view_cstr(spec->type), MIR_EVENT_TEXT_BYTES_MAX, error));
    TRY(check_text("the reason", mir_view_cstr(spec->reason), MIR_EVENT_TEXT_BYTES_MAX, error));
    TRY(check_text("the message", mir_view_cstr(spec->message), MIR_EVENT_TEXT_BYTES_MAX, error));
    TRY(check_text("the error", input->error, MIR_EVENT_TEXT_BYTES_MAX, error));
    if (spec->has_json_payload && spec->json_payload.len > MIR_EVENT_PAYLOAD_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "the payload of an event has %zu bytes: at most %d",
                             spec->json_payload.len, MIR_EVENT_PAYLOAD_BYTES_MAX);
    if (spec->related_object == NULL || spec->related_object->meta == NULL) return MIR_OK;
    const MirApi__V1__Meta *meta = spec->related_object->meta;
    TRY(check_text("the related name", mir_view_cstr(meta->name), MIR_EVENT_NAME_BYTES_MAX, error));
    return check_text("the related namespace", mir_view_cstr(meta->namespace_),
                      MIR_EVENT_NAME_BYTES_MAX, error);
}

/* A text of a cause comes from a peer: what is no text is left out, what is too long is cut. */
static mir_status cause_text(mir_view text, mir_arena *arena, char **out)
{
    if (text.size == 0) return MIR_OK;
    if (text.size > CAUSE_BYTES_MAX) text.size = CAUSE_BYTES_MAX;
    while (text.size != 0 && !mir_utf8_valid(text) && text.size > CAUSE_BYTES_MAX - 4) text.size--;
    if (!mir_utf8_valid(text) || memchr(text.data, 0, text.size) != NULL) return MIR_OK;
    *out = mir_arena_strdup(arena, text);
    return *out == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

mir_status mir_event_context_make(const mir_event_cause *cause, mir_arena *arena,
                                  mir_event_context *context)
{
    mir_event_context made = {.ready = true};
    if (cause != NULL) {
        TRY(cause_text(cause->actor, arena, &made.actor));
        TRY(cause_text(cause->address, arena, &made.address));
        TRY(cause_text(cause->request_id, arena, &made.request_id));
        size_t count = cause->chain_count;
        if (count >= MIR_EVENT_CHAIN_MAX) count = MIR_EVENT_CHAIN_MAX - 1;
        made.chain = mir_arena_alloc(arena, (count + 1) * sizeof *made.chain);
        if (made.chain == NULL) return MIR_E_NO_MEMORY;
        for (size_t i = 0; i <= count; i++) {
            char *value = NULL;
            TRY(cause_text(i < count ? cause->chain[i] : cause->instance, arena, &value));
            if (value != NULL) made.chain[made.chain_count++] = value;
        }
    }
    *context = made;
    return MIR_OK;
}

static mir_status set_payload(const MirApi__V1__EventSpec *spec, mir_bytes *frame,
                              MirStore__V1__EventRecord *record, mir_error *error)
{
    if (!spec->has_json_payload || spec->json_payload.len == 0) return MIR_OK;
    record->has_json = 1;
    record->json = spec->json_payload;
    if (record->json.len < COMPRESS_BYTES_MIN) return MIR_OK;
    TRY(mir_zstd_compress(mir_view_of(record->json.data, record->json.len), frame, error));
    if (frame->size > record->json.len - record->json.len / 8) return MIR_OK;
    record->has_json = 0;
    record->has_json_zstd = 1;
    record->json_zstd = (ProtobufCBinaryData){frame->size, frame->data};
    return MIR_OK;
}

mir_status mir_event_make(const mir_event_input *input, mir_arena *arena, mir_event_item *event,
                          mir_error *error)
{
    TRY(check_input(input, error));
    const MirApi__V1__EventSpec *spec = input->spec;
    MirStore__V1__EventRecord record = MIR_STORE__V1__EVENT_RECORD__INIT;
    MirApi__V1__EventAudit audit = MIR_API__V1__EVENT_AUDIT__INIT;
    mir_event_context context;
    mir_bytes frame = {0};
    mir_status status = mir_event_context_make(input->cause, arena, &context);
    if (status != MIR_OK) goto out;
    record.related = spec->related_object;
    record.route = mir_arena_strdup(arena, input->route);
    record.has_suffix = 1;
    record.suffix = mir_event_suffix_new();
    record.type = spec->type;
    record.reason = spec->reason;
    record.message = spec->message;
    record.trigger_chain = context.chain;
    record.n_trigger_chain = context.chain_count;
    audit.actor = context.actor != NULL ? context.actor : (char *)(uintptr_t) "server";
    audit.address = context.address;
    audit.request_id = context.request_id;
    audit.outcome = (char *)(uintptr_t)(input->failed ? "failed" : "ok");
    if (input->error.size != 0) audit.error = mir_arena_strdup(arena, input->error);
    audit.changes = (MirApi__V1__EventChange **)(uintptr_t)input->changes;
    audit.n_changes = input->change_count;
    record.audit = &audit;
    status = MIR_E_NO_MEMORY;
    if (record.route == NULL || (input->error.size != 0 && audit.error == NULL)) goto out;
    status = set_payload(spec, &frame, &record, error);
    if (status != MIR_OK) goto out;
    size_t size = mir_store__v1__event_record__get_packed_size(&record);
    uint8_t *packed = mir_arena_alloc(arena, size);
    if (packed == NULL) {
        status = MIR_E_NO_MEMORY;
        goto out;
    }
    (void)mir_store__v1__event_record__pack(&record, packed);
    *event = (mir_event_item){.record = mir_view_of(packed, size)};
    uint8_t flags = 0;
    uint32_t terms[MIR_EVENT_TERMS];
    mir_event_describe(&record, &flags, terms);
    mir_event_head_write(event->head, flags, terms);
    mir_event_leaf(event->record, event->head + MIR_EVENT_LEAF_AT);
out:
    mir_bytes_free(&frame);
    if (status == MIR_E_NO_MEMORY) (void)mir_error_set(error, status, "out of memory");
    return status;
}
