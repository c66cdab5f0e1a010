/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_events.h"

#include "mir_cli_devices.h"
#include "mir_cli_message.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_cli_yaml.h"
#include "mir_clock.h"
#include "mir_device_json.h"
#include "mir_timestamp.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

static const char no_memory[] = "no memory";
/* How the server says that a selection of devices matches none. */
static const char no_device_text[] = "no device found with current targets criteria";

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

/* ── Which events ────────────────────────────────────────────────────────────────────────────── */

MIR_MUST_CHECK static mir_status read_dates(const mir_cli_args *args, mir_arena *arena,
                                            MirApi__V1__EventTarget *out, mir_error *error)
{
    const char *from = mir_cli_value(args, MIR_OPT_FROM);
    const char *to = mir_cli_value(args, MIR_OPT_TO);
    const char *since = mir_cli_value(args, MIR_OPT_SINCE);
    int64_t from_ns = 0, to_ns = 0, since_ns = 0;
    mir_status status = MIR_OK;
    if (from == NULL && to == NULL && since == NULL) return MIR_OK;
    if (from != NULL && since != NULL)
        return mir_error_set(error, MIR_E_INVALID, "--from and --since exclude each other");
    if (from != NULL) status = mir_cli_when_time(from, &from_ns, error);
    if (status == MIR_OK && to != NULL) status = mir_cli_when_time(to, &to_ns, error);
    if (status == MIR_OK && since != NULL) status = mir_cli_when_duration(since, &since_ns, error);
    if (status != MIR_OK) return status;
    if (since != NULL) from_ns = mir_clock_wall_ns() - since_ns;
    bool begins = from != NULL || since != NULL;
    if (begins && to != NULL && to_ns < from_ns)
        return mir_error_set(error, MIR_E_INVALID, "the time ends before it begins");
    out->filter_date = mir_arena_alloc(arena, sizeof *out->filter_date);
    if (out->filter_date == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    mir_api__v1__date_filter__init(out->filter_date);
    if (begins) out->filter_date->from = mir_timestamp_new(arena, from_ns);
    if (to != NULL) out->filter_date->to = mir_timestamp_new(arena, to_ns);
    if ((begins && out->filter_date->from == NULL) || (to != NULL && out->filter_date->to == NULL))
        return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    return MIR_OK;
}

/* What is the same for every target. */
MIR_MUST_CHECK static mir_status read_filters(const mir_cli_args *args, mir_arena *arena,
                                              MirApi__V1__EventTarget *out, mir_error *error)
{
    const char *text = mir_cli_value(args, MIR_OPT_TEXT);
    mir_status status =
        mir_cli_target_list(args, MIR_OPT_REASON, arena, &out->reasons, &out->n_reasons, error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_TYPE, arena, &out->types, &out->n_types, error);
    if (status == MIR_OK)
        status =
            mir_cli_target_list(args, MIR_OPT_ACTOR, arena, &out->actors, &out->n_actors, error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_OUTCOME, arena, &out->outcomes, &out->n_outcomes,
                                     error);
    for (size_t i = 0; status == MIR_OK && i < out->n_outcomes; i++)
        if (strcmp(out->outcomes[i], "ok") != 0 && strcmp(out->outcomes[i], "failed") != 0)
            status = mir_error_set(error, MIR_E_INVALID, "--outcome is ok or failed, not '%s'",
                                   out->outcomes[i]);
    if (status == MIR_OK) status = read_dates(args, arena, out, error);
    if (status == MIR_OK && text != NULL) {
        out->text = mir_arena_strdup(arena, mir_view_cstr(text));
        if (out->text == NULL) status = mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    }
    return status;
}

static bool has_star(char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strchr(list[i], '*') != NULL) return true;
    return false;
}

/* Events are named after their device: pump-7-0123456789ab. */
MIR_MUST_CHECK static mir_status event_names(const MirApi__V1__DeviceTarget *from, mir_arena *arena,
                                             MirApi__V1__Targets *to, mir_error *error)
{
    to->names = mir_arena_alloc(arena, (from->n_names + 1) * sizeof(*to->names));
    if (to->names == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    for (size_t i = 0; i < from->n_names; i++) {
        size_t size = strlen(from->names[i]) + sizeof "-*";
        char *name = mir_arena_alloc(arena, size);
        if (name == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
        (void)snprintf(name, size, "%s-*", from->names[i]);
        to->names[to->n_names++] = name;
    }
    return MIR_OK;
}

/* `gone` looks for the names that the events carry instead of for the devices. */
MIR_MUST_CHECK static mir_status make_target(const MirApi__V1__EventTarget *filters,
                                             const MirApi__V1__DeviceTarget *from, bool gone,
                                             mir_arena *arena, MirApi__V1__EventTarget **out,
                                             mir_error *error)
{
    MirApi__V1__EventTarget *to = mir_arena_alloc(arena, sizeof *to);
    MirApi__V1__Targets *events = mir_arena_alloc(arena, sizeof *events);
    MirApi__V1__DeviceTarget *devices = mir_arena_alloc(arena, sizeof *devices);
    if (to == NULL || events == NULL || devices == NULL)
        return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    *to = *filters;
    *devices = *from;
    mir_api__v1__targets__init(events);
    bool by_event = from->n_names == 0 || gone || has_star(from->names, from->n_names);
    if (!has_star(from->ids, from->n_ids)) {
        to->device_ids = from->ids;
        to->n_device_ids = from->n_ids;
        devices->n_ids = 0;
    }
    if (by_event) {
        mir_status status = event_names(from, arena, events, error);
        if (status != MIR_OK) return status;
        events->namespaces = from->namespaces;
        events->n_namespaces = from->n_namespaces;
        devices->n_names = devices->n_namespaces = 0;
    }
    if (events->n_names + events->n_namespaces > 0) to->targets = events;
    if (devices->n_ids + devices->n_names + devices->n_namespaces + devices->n_labels +
            devices->n_schemas + devices->n_liveness >
        0)
        to->devices = devices;
    *out = to;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status make_targets(const MirApi__V1__EventTarget *filters,
                                              const mir_cli_targets *devices, bool gone,
                                              mir_arena *arena, mir_cli_event_query *query,
                                              mir_error *error)
{
    query->items = mir_arena_alloc(arena, devices->count * sizeof(*query->items));
    query->count = 0;
    if (query->items == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    for (size_t i = 0; i < devices->count; i++) {
        mir_status status =
            make_target(filters, devices->items[i], gone, arena, &query->items[i], error);
        if (status != MIR_OK) return status;
        query->count++;
    }
    return MIR_OK;
}

mir_status mir_cli_events_query(const mir_cli_args *args, mir_arena *arena,
                                mir_cli_event_query *query, mir_error *error)
{
    MirApi__V1__EventTarget *filters = mir_arena_alloc(arena, sizeof *filters);
    mir_cli_targets *devices = mir_arena_alloc(arena, sizeof *devices);
    if (filters == NULL || devices == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    mir_api__v1__event_target__init(filters);
    mir_status status = mir_cli_target_parse(args, arena, devices, error);
    if (status == MIR_OK) status = read_filters(args, arena, filters, error);
    if (status != MIR_OK) return status;
    mir_cli_event_query out = {
        .stated =
            devices->stated ||
            filters->n_reasons + filters->n_types + filters->n_actors + filters->n_outcomes > 0 ||
            filters->text != NULL || filters->filter_date != NULL,
        .devices = devices,
        .filters = filters,
    };
    for (size_t i = 0; i < devices->count; i++)
        out.by_name |= devices->items[i]->n_names > 0 &&
                       !has_star(devices->items[i]->names, devices->items[i]->n_names);
    status = make_targets(filters, devices, false, arena, &out, error);
    if (status == MIR_OK) *query = out;
    return status;
}

/* ── Fetching ────────────────────────────────────────────────────────────────────────────────── */

uint64_t mir_cli_events_sequence(const MirApi__V1__Event *event)
{
    return event->status != NULL && event->status->has_sequence ? event->status->sequence : 0;
}

int64_t mir_cli_events_time(const MirApi__V1__Event *event)
{
    return mir_timestamp_ns(event->status != NULL ? event->status->first_at : NULL);
}

static int newest_first(const void *left, const void *right)
{
    const MirApi__V1__Event *a = *(MirApi__V1__Event *const *)left;
    const MirApi__V1__Event *b = *(MirApi__V1__Event *const *)right;
    uint64_t a_sequence = mir_cli_events_sequence(a), b_sequence = mir_cli_events_sequence(b);
    if (a_sequence != b_sequence) return a_sequence > b_sequence ? -1 : 1;
    int64_t a_ns = mir_cli_events_time(a), b_ns = mir_cli_events_time(b);
    return a_ns > b_ns ? -1 : a_ns < b_ns;
}

/* By sequence, each once; a server that has none gives them in order. */
static void merge(mir_cli_events *events)
{
    if (events->count < 2 || mir_cli_events_sequence(events->items[0]) == 0) return;
    qsort(events->items, events->count, sizeof *events->items, newest_first);
    size_t kept = 1;
    for (size_t i = 1; i < events->count; i++)
        if (mir_cli_events_sequence(events->items[i]) !=
            mir_cli_events_sequence(events->items[kept - 1]))
            events->items[kept++] = events->items[i];
    events->count = kept;
}

MIR_MUST_CHECK static bool append(mir_arena *arena, mir_cli_events *to,
                                  const MirApi__V1__Events *from)
{
    /* Doubling, so that many pages are not copied over and over. */
    size_t need = to->count + from->n_events;
    size_t room = MIR_EVENTS_PAGE;
    while (room < to->count) room *= 2;
    if (to->items == NULL || need > room) {
        while (room < need) room *= 2;
        MirApi__V1__Event **items = mir_arena_alloc(arena, room * sizeof *items);
        if (items == NULL) return false;
        if (to->count > 0) memcpy(items, to->items, to->count * sizeof *items);
        to->items = items;
    }
    if (from->n_events > 0)
        memcpy(to->items + to->count, from->events, from->n_events * sizeof(*from->events));
    to->count = need;
    return true;
}

/* One request. That no device matches is no event. */
MIR_MUST_CHECK static mir_status ask(mir_cli_session *session, MirApi__V1__EventTarget *target,
                                     MirApi__V1__Events **answer, mir_error *error)
{
    static MirApi__V1__Events none = MIR_API__V1__EVENTS__INIT;
    MirApi__V1__ListEventsRequest request = MIR_API__V1__LIST_EVENTS_REQUEST__INIT;
    const char *refusal = NULL;
    request.target = target;
    mir_status status = mir_cli_connect_try(session, "evt.v1alpha.list", &request.base,
                                            &mir_api__v1__list_events_response__descriptor, NULL,
                                            answer, &refusal, error);
    if (refusal == NULL || strstr(refusal, no_device_text) == NULL) return status;
    *answer = &none;
    return MIR_OK;
}

/* All of one target, page by page, at most `limit` (0: all). */
MIR_MUST_CHECK static mir_status ask_pages(mir_cli_session *session,
                                           const MirApi__V1__EventTarget *from, uint64_t before,
                                           size_t limit, mir_cli_events *to, mir_error *error)
{
    MirApi__V1__EventTarget target = *from;
    for (size_t got = 0;;) {
        size_t want = limit == 0 || limit - got > MIR_EVENTS_PAGE ? MIR_EVENTS_PAGE : limit - got;
        MirApi__V1__Events *answer = NULL;
        target.has_filter_limit = 1;
        target.filter_limit = (int32_t)want;
        target.has_before_sequence = before > 0;
        target.before_sequence = before;
        mir_status status = ask(session, &target, &answer, error);
        if (status != MIR_OK) return status;
        if (!append(&session->arena, to, answer))
            return mir_error_set(error, MIR_E_NO_MEMORY, "no memory for so many events");
        got += answer->n_events;
        /* A page may end early because a message had no room for more. */
        bool cut = answer->has_cut && answer->cut;
        if ((answer->n_events < want && !cut) || (limit > 0 && got >= limit)) return MIR_OK;
        if (cut)
            before = answer->cut_sequence;
        else if (answer->n_events != 0)
            before = mir_cli_events_sequence(answer->events[answer->n_events - 1]);
        if (before == 0)
            return mir_error_set(error, MIR_E_UNSUPPORTED,
                                 "the server does not number its events: ask for at most %d",
                                 MIR_EVENTS_PAGE);
        if (before == 1) return MIR_OK;
    }
}

static bool is_named(const MirApi__V1__Event *event, const mir_cli_targets *devices)
{
    const MirApi__V1__Meta *meta = event->spec != NULL && event->spec->related_object != NULL
                                       ? event->spec->related_object->meta
                                       : NULL;
    for (size_t i = 0; meta != NULL && i < devices->count; i++)
        for (size_t n = 0; n < devices->items[i]->n_names; n++)
            if (strcmp(devices->items[i]->names[n], or_empty(meta->name)) == 0) return true;
    return false;
}

/* Leaves out those of pump-7-b, whose names begin like those of pump-7. */
static void keep_named(mir_cli_events *events, const mir_cli_targets *devices)
{
    size_t kept = 0;
    for (size_t i = 0; i < events->count; i++)
        if (is_named(events->items[i], devices)) events->items[kept++] = events->items[i];
    events->count = kept;
}

int mir_cli_events_newest(mir_cli_session *session, const mir_cli_event_query *query,
                          uint64_t before, size_t limit, mir_arena *arena, mir_cli_events *events)
{
    mir_error error = {0};
    mir_status status = MIR_OK;
    size_t want = limit > 0 ? limit + 1 : 0; /* one more tells whether there are more */
    mir_cli_events out = {0};
    for (size_t i = 0; status == MIR_OK && i < query->count; i++)
        status = ask_pages(session, query->items[i], before, want, &out, &error);
    if (status == MIR_OK && out.count == 0 && query->by_name && query->count > 0) {
        mir_cli_event_query gone = *query;
        status = make_targets(query->filters, query->devices, true, arena, &gone, &error);
        for (size_t i = 0; status == MIR_OK && i < gone.count; i++)
            status = ask_pages(session, gone.items[i], before, want, &out, &error);
        keep_named(&out, query->devices);
    }
    if (status != MIR_OK) {
        (void)mir_cli_fail("%s", error.text);
        return mir_cli_exit_code(status);
    }
    merge(&out);
    out.more = limit > 0 && out.count > limit;
    if (out.more) out.count = limit;
    *events = out;
    return MIR_EXIT_OK;
}

mir_status mir_cli_events_behind(mir_cli_session *session, const mir_cli_event_query *query,
                                 uint64_t after, mir_cli_events *events, mir_error *error)
{
    mir_cli_events out = {0};
    uint64_t common = UINT64_MAX; /* up to here every target has answered in full */
    for (size_t i = 0; i < query->count; i++) {
        MirApi__V1__EventTarget target = *query->items[i];
        MirApi__V1__Events *answer = NULL;
        target.has_after_sequence = 1;
        target.after_sequence = after;
        target.has_filter_limit = 1;
        target.filter_limit = MIR_EVENTS_PAGE;
        mir_status status = ask(session, &target, &answer, error);
        if (status != MIR_OK) return status;
        if (!append(&session->arena, &out, answer))
            return mir_error_set(error, MIR_E_NO_MEMORY, "no memory for so many events");
        if (answer->n_events == 0) continue;
        uint64_t last = mir_cli_events_sequence(answer->events[answer->n_events - 1]);
        if (last == 0)
            return mir_error_set(error, MIR_E_UNSUPPORTED,
                                 "the server does not number its events: they cannot be watched");
        if (mir_cli_events_sequence(answer->events[0]) > last)
            return mir_error_set(error, MIR_E_UNSUPPORTED,
                                 "the server does not list events behind a sequence: they cannot "
                                 "be watched");
        if (answer->n_events >= MIR_EVENTS_PAGE) {
            out.more = true;
            if (last < common) common = last;
        }
    }
    merge(&out);
    for (size_t i = 0; i < out.count / 2; i++) {
        MirApi__V1__Event *other = out.items[out.count - 1 - i];
        out.items[out.count - 1 - i] = out.items[i];
        out.items[i] = other;
    }
    while (out.more && out.count > 0 && mir_cli_events_sequence(out.items[out.count - 1]) > common)
        out.count--;
    *events = out;
    return MIR_OK;
}

/* ── Showing ─────────────────────────────────────────────────────────────────────────────────── */

bool mir_cli_events_failed(const MirApi__V1__Event *event)
{
    const MirApi__V1__EventAudit *audit = event->spec != NULL ? event->spec->audit : NULL;
    return audit != NULL && audit->outcome != NULL && strcmp(audit->outcome, "failed") == 0;
}

void mir_cli_events_device(const MirApi__V1__Event *event, char *text, size_t size)
{
    const MirApi__V1__Object *object = event->spec != NULL ? event->spec->related_object : NULL;
    const MirApi__V1__Meta *meta = object != NULL ? object->meta : NULL;
    const char *name = meta != NULL ? or_empty(meta->name) : "";
    const char *name_space = meta != NULL ? or_empty(meta->namespace_) : "";
    (void)snprintf(text, size, "%s%s%s", name, name_space[0] != '\0' ? "/" : "", name_space);
}

static void set_text(json_t *to, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0') (void)json_object_set_new(to, key, json_string(text));
}

static void set_time(json_t *to, const char *key, const MirApi__V1__Timestamp *time)
{
    char text[MIR_CLOCK_TEXT_BYTES];
    if (time != NULL && mir_timestamp_format(time->seconds, time->nanos, text) > 0)
        (void)json_object_set_new(to, key, json_string(text));
}

static void set_value(json_t *to, const char *key, const char *text)
{
    if (text != NULL) (void)json_object_set_new(to, key, mir_cli_message_json(text, strlen(text)));
}

static json_t *meta_json(const MirApi__V1__Meta *meta)
{
    json_t *out = json_object();
    json_t *labels = json_object();
    json_t *annotations = json_object();
    if (meta != NULL) {
        set_text(out, "name", meta->name);
        set_text(out, "namespace", meta->namespace_);
        for (size_t i = 0; i < meta->n_labels; i++)
            set_text(labels, or_empty(meta->labels[i]->key), meta->labels[i]->value);
        for (size_t i = 0; i < meta->n_annotations; i++)
            set_text(annotations, or_empty(meta->annotations[i]->key), meta->annotations[i]->value);
    }
    if (json_object_size(labels) > 0) (void)json_object_set(out, "labels", labels);
    if (json_object_size(annotations) > 0) (void)json_object_set(out, "annotations", annotations);
    json_decref(labels);
    json_decref(annotations);
    return out;
}

static json_t *audit_json(const MirApi__V1__EventAudit *audit)
{
    json_t *out = json_object();
    set_text(out, "actor", audit->actor);
    set_text(out, "address", audit->address);
    set_text(out, "requestId", audit->request_id);
    set_text(out, "outcome", audit->outcome);
    set_text(out, "error", audit->error);
    if (audit->n_changes == 0) return out;
    json_t *changes = json_array();
    for (size_t i = 0; i < audit->n_changes; i++) {
        json_t *change = json_object();
        set_text(change, "path", audit->changes[i]->path);
        set_value(change, "from", audit->changes[i]->from);
        set_value(change, "to", audit->changes[i]->to);
        (void)json_array_append_new(changes, change);
    }
    (void)json_object_set_new(out, "changes", changes);
    return out;
}

static json_t *spec_json(const MirApi__V1__EventSpec *spec)
{
    json_t *out = json_object();
    if (spec == NULL) return out;
    set_text(out, "type", spec->type);
    set_text(out, "reason", spec->reason);
    set_text(out, "message", spec->message);
    if (spec->has_json_payload && spec->json_payload.len > 0)
        (void)json_object_set_new(
            out, "jsonPayload",
            mir_cli_message_json((const char *)spec->json_payload.data, spec->json_payload.len));
    if (spec->related_object != NULL) {
        json_t *object = json_object();
        set_text(object, "apiVersion", spec->related_object->api_version);
        set_text(object, "kind", spec->related_object->kind);
        (void)json_object_set_new(object, "meta", meta_json(spec->related_object->meta));
        (void)json_object_set_new(out, "relatedObject", object);
    }
    if (spec->audit != NULL) (void)json_object_set_new(out, "audit", audit_json(spec->audit));
    return out;
}

json_t *mir_cli_events_json(const MirApi__V1__Event *event)
{
    json_t *out = json_object();
    json_t *status = json_object();
    const MirApi__V1__EventStatus *from = event->status;
    set_text(out, "apiVersion", event->object != NULL ? event->object->api_version : NULL);
    (void)json_object_set_new(out, "kind", json_string("event"));
    (void)json_object_set_new(out, "meta",
                              meta_json(event->object != NULL ? event->object->meta : NULL));
    (void)json_object_set_new(out, "spec", spec_json(event->spec));
    if (from != NULL) {
        if (from->has_sequence)
            (void)json_object_set_new(status, "sequence", json_integer((json_int_t)from->sequence));
        if (from->has_count) (void)json_object_set_new(status, "count", json_integer(from->count));
        set_time(status, "firstAt", from->first_at);
        set_time(status, "lastAt", from->last_at);
        if (from->has_leaf && from->leaf.len > 0) {
            mir_bytes hex = {0};
            for (size_t i = 0; i < from->leaf.len; i++)
                mir_bytes_printf(&hex, "%02x", from->leaf.data[i]);
            if (mir_bytes_ok(&hex))
                (void)json_object_set_new(status, "leaf",
                                          json_stringn((const char *)hex.data, hex.size));
            mir_bytes_free(&hex);
        }
    }
    (void)json_object_set_new(out, "status", status);
    return out;
}

/* Never mistaken for one another: a time of day is of today. */
void mir_cli_events_when(const MirApi__V1__Event *event, bool utc, char *text, size_t size)
{
    struct tm at, now;
    time_t at_s = (time_t)(mir_cli_events_time(event) / MIR_NS_PER_S);
    time_t now_s = (time_t)(mir_clock_wall_ns() / MIR_NS_PER_S);
    (void)(utc ? gmtime_r(&at_s, &at) : localtime_r(&at_s, &at));
    (void)(utc ? gmtime_r(&now_s, &now) : localtime_r(&now_s, &now));
    if (at.tm_year != now.tm_year)
        (void)strftime(text, size, "%Y-%m-%d", &at);
    else if (at.tm_yday != now.tm_yday)
        (void)strftime(text, size, "%b %d %H:%M", &at);
    else
        (void)strftime(text, size, "%H:%M:%S", &at);
}

/* What went wrong, or the first thing that changed, or what the event says. */
static void message_text(const MirApi__V1__Event *event, char *text, size_t size)
{
    const MirApi__V1__EventSpec *spec = event->spec;
    const MirApi__V1__EventAudit *audit = spec != NULL ? spec->audit : NULL;
    bool failed = audit != NULL && audit->error != NULL && audit->error[0] != '\0';
    (void)snprintf(text, size, "%s",
                   failed         ? audit->error
                   : spec != NULL ? or_empty(spec->message)
                                  : "");
    for (char *c = text; *c != '\0'; c++)
        if (*c == '\n' || *c == '\r' || *c == '\t') *c = ' ';
}

static mir_cli_table_tone tone_of(const MirApi__V1__Event *event)
{
    bool warning = event->spec != NULL && event->spec->type != NULL &&
                   strcmp(event->spec->type, "warning") == 0;
    return warning || mir_cli_events_failed(event) ? MIR_TONE_BAD : MIR_TONE_PLAIN;
}

static void add_row(mir_cli_table *table, const MirApi__V1__Event *event, bool wide, bool utc)
{
    char text[512];
    const MirApi__V1__EventSpec *spec = event->spec;
    const MirApi__V1__EventAudit *audit = spec != NULL ? spec->audit : NULL;
    uint64_t sequence = mir_cli_events_sequence(event);
    text[0] = '\0';
    if (sequence > 0) (void)snprintf(text, sizeof text, "%" PRIu64, sequence);
    mir_cli_table_cell(table, MIR_TONE_DIM, text);
    if (wide)
        mir_cli_when_clock(mir_cli_events_time(event), true, 3, utc, text, sizeof text);
    else
        mir_cli_events_when(event, utc, text, sizeof text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
    mir_cli_table_cell(table, tone_of(event), spec != NULL ? or_empty(spec->reason) : "");
    mir_cli_events_device(event, text, sizeof text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, audit != NULL ? or_empty(audit->actor) : "");
    if (wide) {
        mir_cli_table_cell(table, MIR_TONE_PLAIN, spec != NULL ? or_empty(spec->type) : "");
        mir_cli_table_cell(table, tone_of(event), audit != NULL ? or_empty(audit->outcome) : "");
        mir_cli_table_cell(table, MIR_TONE_PLAIN, audit != NULL ? or_empty(audit->address) : "");
    }
    message_text(event, text, sizeof text);
    mir_cli_table_cell(table, mir_cli_events_failed(event) ? MIR_TONE_BAD : MIR_TONE_PLAIN, text);
}

static int print_table(const mir_cli_events *events, bool wide, bool utc)
{
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "SEQ", NULL, MIR_TABLE_NUMBER);
    mir_cli_table_column(table, mir_cli_when_title(utc), NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "REASON", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "DEVICE", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "ACTOR", NULL, MIR_TABLE_TEXT);
    if (wide) {
        mir_cli_table_column(table, "TYPE", NULL, MIR_TABLE_TEXT);
        mir_cli_table_column(table, "OUTCOME", NULL, MIR_TABLE_TEXT);
        mir_cli_table_column(table, "ADDRESS", NULL, MIR_TABLE_TEXT);
    }
    mir_cli_table_column(table, "MESSAGE", NULL, MIR_TABLE_TEXT);
    for (size_t i = 0; i < events->count; i++) add_row(table, events->items[i], wide, utc);
    mir_status status =
        mir_cli_table_print(table, stdout, wide ? 0 : mir_cli_text_terminal_columns(stdout),
                            mir_cli_text_colours(stdout), NULL);
    mir_cli_table_free(table);
    return status == MIR_OK ? MIR_EXIT_OK : mir_cli_fail("no memory for the table");
}

/* For people: the twin in a payload goes without the bytes of its schema, as any twin in YAML. */
static json_t *readable_json(const MirApi__V1__Event *event)
{
    json_t *out = mir_cli_events_json(event);
    json_t *payload = json_object_get(json_object_get(out, "spec"), "jsonPayload");
    json_t *schema = json_object_get(json_object_get(payload, "status"), "schema");
    if (json_is_object(schema)) (void)json_object_del(schema, "compressedSchema");
    return out;
}

int mir_cli_events_print(const mir_cli_events *events, const char *format, bool utc)
{
    if (strcmp(format, "json") == 0) {
        json_t *all = json_array();
        for (size_t i = 0; i < events->count; i++)
            (void)json_array_append_new(all, mir_cli_events_json(events->items[i]));
        int code = mir_cli_devices_print_value(all, format);
        json_decref(all);
        return code;
    }
    if (strcmp(format, "yaml") == 0) {
        for (size_t i = 0; i < events->count; i++) {
            if (i > 0) (void)fputs("---\n", stdout);
            json_t *each = readable_json(events->items[i]);
            int code = mir_cli_devices_print_value(each, format);
            json_decref(each);
            if (code != MIR_EXIT_OK) return code;
        }
        return MIR_EXIT_OK;
    }
    return events->count > 0 ? print_table(events, strcmp(format, "wide") == 0, utc) : MIR_EXIT_OK;
}

static void print_columns(const MirApi__V1__Event *event, bool wide, bool utc)
{
    char time[64], device[512], message[512];
    const MirApi__V1__EventSpec *spec = event->spec;
    const MirApi__V1__EventAudit *audit = spec != NULL ? spec->audit : NULL;
    const char *actor = audit != NULL ? or_empty(audit->actor) : "";
    bool colours = mir_cli_text_colours(stdout);
    size_t columns = wide ? 0 : mir_cli_text_terminal_columns(stdout);
    mir_cli_events_when(event, utc, time, sizeof time);
    mir_cli_events_device(event, device, sizeof device);
    message_text(event, message, sizeof message);
    mir_bytes head = {0};
    mir_bytes tail = {0};
    mir_bytes line = {0};
    mir_bytes_printf(&head, "%6" PRIu64 "  %s%-*s ", mir_cli_events_sequence(event), time,
                     12 - (int)strlen(time), utc ? "Z" : "");
    mir_bytes_printf(&tail, "%s  %s%s%s%s", device, actor[0] != '\0' ? "[" : "", actor,
                     actor[0] != '\0' ? "] " : "", message);
    mir_bytes_u8(&tail, '\0');
    const char *rest = mir_bytes_ok(&tail) ? (const char *)tail.data : device;
    mir_cli_table_tone tone = tone_of(event);
    const char *reason = spec != NULL ? or_empty(spec->reason) : "";
    mir_bytes_view(&line, mir_bytes_as_view(&head));
    mir_bytes_text(&line, mir_cli_table_tone_on(tone, colours));
    size_t used = head.size + mir_cli_text_fit(&line, reason, 24);
    mir_bytes_text(&line, mir_cli_table_tone_off(tone, colours));
    for (bool first = true; first || used < head.size + 20; first = false, used++)
        mir_bytes_u8(&line, ' ');
    (void)mir_cli_text_fit(&line, rest,
                           columns == 0 ? mir_cli_text_columns(rest)
                                        : (columns > used ? columns - used : 1));
    mir_bytes_u8(&line, '\n');
    if (mir_bytes_ok(&line)) (void)fwrite(line.data, 1, line.size, stdout);
    mir_bytes_free(&head);
    mir_bytes_free(&tail);
    mir_bytes_free(&line);
}

void mir_cli_events_print_line(const MirApi__V1__Event *event, const char *format, bool utc)
{
    if (strcmp(format, "json") == 0 || strcmp(format, "yaml") == 0) {
        json_t *value = format[0] == 'y' ? readable_json(event) : mir_cli_events_json(event);
        mir_bytes text = {0};
        if (format[0] == 'j') {
            mir_json_write(value, MIR_JSON_COMPACT, &text);
            mir_bytes_u8(&text, '\n');
        } else if (mir_cli_yaml_write(value, true, &text) != MIR_OK) {
            text.size = 0;
        }
        json_decref(value);
        if (mir_bytes_ok(&text)) (void)fwrite(text.data, 1, text.size, stdout);
        mir_bytes_free(&text);
        return;
    }
    print_columns(event, strcmp(format, "wide") == 0, utc);
}
