/* SPDX-License-Identifier: Apache-2.0 */
/* mir_state: the devices and their schemas on disk, with one writer.
 *
 * Why        Ids and names are unique across everything, so each change is matched, checked, merged
 *            and written in one place: a thread that takes requests from all others, executes them
 *            in order within one LMDB transaction, commits, and only then says that they are done.
 *            Reads are snapshots and wait for nobody.
 *
 *              any thread ── submit ──▶ queue ──▶ writer: execute, execute, … commit ──▶ done,
 * done, … any thread ── get, list, … ──▶ snapshot of the last commit
 *
 * Ownership  A request belongs to the store from mir_state_submit (MIR_OK) until its `done` is
 *            called; then it is the submitter's again. Its inputs must stay as they are until then.
 *            Outputs are in the request's arena, which the submitter frees. Results of reads are in
 *            the arena that is passed.
 * Affinity   open, close: one thread, nobody else inside. `done` runs on the writer thread: it must
 *            be short and must not wait for the store. Everything else: any thread.
 * Units      Times are wall nanoseconds. A device's number is never given to another device.
 * Bounds     Requests in flight: options.requests_max, beyond which submit answers MIR_E_FULL.
 *            A group: MIR_STATE_GROUP_REQUESTS_MAX requests, and no further one after
 *            MIR_STATE_GROUP_DEVICES_MAX changed devices. One request's memory: its arena's
 *            bytes_max (set to MIR_STATE_REQUEST_BYTES_MAX if it is 0). Targets: see
 *            mir_state_target.h.
 * Errors     A request that fails leaves no trace, and the others of its group are not affected.
 * When the disk or the map is full or a commit fails, the requests of the group fail with a text
 * that says what to do; the store stays as it was before them and usable. Source
 * docs/formats/state.md draws the databases. */
#ifndef MIR_STATE_H
#define MIR_STATE_H

#include "mir_api/v1/core.pb-c.h"
#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_event.h"
#include "mir_mpsc.h"
#include "mir_state_props.h"
#include "mir_status.h"
#include "mir_store/v1/store.pb-c.h"
#include "mir_view.h"

enum {
    MIR_STATE_NEARLY_FULL_PERCENT = 90, /* of state.map_size: the log warns */
    MIR_STATE_FORMAT_VERSION = 2,
    MIR_STATE_HASH_BYTES = 32, /* SHA-256 of a schema's uncompressed bytes */
    MIR_STATE_GROUP_REQUESTS_MAX = 1024,
    MIR_STATE_GROUP_DEVICES_MAX = 10000,
    MIR_STATE_CREATE_MANY_MAX = 65536,
    MIR_STATE_EVENTS_MAX = 16384, /* of one request */
    MIR_STATE_REQUEST_BYTES_MAX = 512 * 1024 * 1024,
    MIR_STATE_SYNC_INTERVAL_MS = 100,
    MIR_STATE_GATHER_MS = 10, /* what may wait waits no longer for company */
    MIR_STATE_GATHER_REQUESTS = 256,
};

typedef struct mir_state mir_state;

typedef enum mir_state_sync {
    MIR_STATE_SYNC_COMMIT,   /* fdatasync before done: survives a power cut */
    MIR_STATE_SYNC_INTERVAL, /* every 100 ms: survives a killed process; a power cut may damage it
                              */
    MIR_STATE_SYNC_OFF,      /* when the kernel likes: the same, for longer */
} mir_state_sync;

typedef struct mir_state_options {
    const char *path;   /* the folder, made if its parent exists */
    uint64_t map_bytes; /* 0: 16 GiB. Address space, not memory; what is stored is no more. The file
                         * may grow beyond it by a sixteenth, 4 to 64 MiB, so that there is always
                         * room to delete something; beyond what is stored if that is more
                         * already. */
    mir_state_sync sync;
    uint32_t requests_max;         /* in flight; 0: 65,536 */
    mir_event_retention retention; /* of events; zeroed: everything is kept for ever */
    uint64_t event_names_max;      /* 0: MIR_EVENT_NAMES_KEPT_MAX */
} mir_state_options;

/* Starts the writer thread. Refuses a store of a newer format and one that another process holds.
 */
MIR_MUST_CHECK mir_status mir_state_open(const mir_state_options *options, mir_state **state,
                                         mir_error *error);
/* Executes what was submitted, syncs, stops the writer. A null pointer is fine. */
void mir_state_close(mir_state *state);

/* ── Changes ─────────────────────────────────────────────────────────────────────────────────── */

typedef enum mir_state_op {
    MIR_STATE_CREATE = 1,
    MIR_STATE_CREATE_MANY,
    MIR_STATE_UPDATE,
    MIR_STATE_DELETE,
    MIR_STATE_HEARTBEAT,
    MIR_STATE_OFFLINE,
    MIR_STATE_SET_SCHEMA,
    MIR_STATE_PROPERTIES,
    MIR_STATE_EVENTS,   /* appends events that are no changes of devices */
    MIR_STATE_INTERNAL, /* the store's own */
} mir_state_op;

typedef enum mir_state_change_kind {
    MIR_STATE_CREATED = 1,    /* after */
    MIR_STATE_UPDATED,        /* before, after; also when nothing changed */
    MIR_STATE_DELETED,        /* before */
    MIR_STATE_ONLINE,         /* before, after: was not online */
    MIR_STATE_OFFLINE_NOW,    /* before, after: was online */
    MIR_STATE_DESIRED,        /* before, after: a desired property was set */
    MIR_STATE_REPORTED,       /* before, after: a reported property was set */
    MIR_STATE_OUT_OF_SYNC,    /* before, after: the device goes by an older desired property */
    MIR_STATE_DISABLED,       /* before, after; with its UPDATED. One that is created so has none */
    MIR_STATE_ENABLED,        /* the same */
    MIR_STATE_SCHEMA_CHANGED, /* before, after: it had another schema */
} mir_state_change_kind;

typedef struct mir_state_change {
    mir_state_change_kind kind;
    uint64_t number;
    MirStore__V1__DeviceRecord *before; /* null for CREATED */
    MirStore__V1__DeviceRecord *after;  /* null for DELETED */
    /* Of its event; 0 with `without_events`. The device that the event shows, `after` or else
     * `before`, then has the live heartbeat of the commit: mir_state_device_as_stored shows it as
     * it will be read back. */
    uint64_t sequence;
    int64_t at_ns;
    bool by_device; /* the device itself is the actor, unless the request has a cause with one */
    MirApi__V1__EventChange **diffs; /* UPDATED, DESIRED: what changed from what to what */
    size_t diff_count;
} mir_state_change;

/* A schema: `raw` (a FileDescriptorSet), or `compressed` (zstd of one), or, for one that the store
 * has already, its `hash` alone. package_names replaces the device's list unless it is empty. */
typedef struct mir_state_schema {
    mir_view raw;
    mir_view compressed;
    const uint8_t *hash;
    const char *const *package_names;
    size_t package_count;
    int64_t fetched_ns; /* 0: leave the time of the last fetch as it is */
} mir_state_schema;

typedef struct mir_state_heartbeat {
    mir_view device_id;
    int64_t at_ns;
    const mir_state_schema *schema; /* null: none came with it */
    /* Outputs. MIR_E_INVALID: no usable id. MIR_E_EXISTS: unknown, and the name that it would get
     * belongs to another device. MIR_E_NOT_FOUND (refresh): unknown. MIR_E_PERMISSION: disabled,
     * nothing was written. */
    mir_status status;
    uint64_t number;
    /* Whether the schema was taken. A schema that is no good makes a plain heartbeat: MIR_E_INVALID,
     * or MIR_E_NOT_FOUND for a `hash` alone that the store does not know. */
    mir_status schema_status;
} mir_state_heartbeat;

struct mir_state_ops;
typedef struct mir_state_request mir_state_request;
struct mir_state_request {
    mir_mpsc_node node;
    mir_state_op op;
    union {
        const MirApi__V1__CreateDeviceRequest *create;
        const MirApi__V1__CreateDevicesRequest *create_many;
        const MirApi__V1__UpdateDeviceRequest *update;
        const MirApi__V1__DeleteDeviceRequest *delete_;
        struct {
            mir_state_heartbeat *beats;
            size_t count;
            /* Only write down the time of devices that are there: no change is reported, and what
             * is offline stays so. For the lazy refresh of what lives in heartbeat cells. */
            bool refresh_only;
        } heartbeat; /* unknown ids are created: name = id, namespace `default` */
        struct {
            const mir_view *device_ids;
            size_t count;
        } offline; /* writes the live heartbeat with it; ids that are unknown or offline: nothing */
        struct {
            mir_view device_id;
            mir_state_schema schema;
        } set_schema; /* an update of one device: UPDATED. Unknown: `no device found to update`.
                         Disabled: MIR_E_PERMISSION */
        struct {
            mir_state_property *list;
            size_t count;
        } properties;
        struct {
            mir_event_item *items; /* from mir_event_make; sequence and at_ns are outputs */
            size_t count;
        } events;
        struct {
            mir_status (*run)(struct mir_state_ops *ops, void *ctx);
            void *ctx;
        } internal;
    };
    /* DELETE: no more than `delete_max` devices (0: all that match), so that others have their turn.
     * The candidates that it did not come to are the output `left`, and the `numbers` of another
     * request with the same target: what is gone by then, or does not match any more, is passed over. */
    size_t delete_max;
    const uint64_t *numbers;
    size_t number_count;
    /* UPDATE: desired properties of its devices, in the order of the devices' ids; DESIRED for each
     * that is set, before UPDATED. One that is refused refuses the update. */
    mir_state_property *with;
    size_t with_count;
    /* Who causes the changes, for their events. Null: nobody is named, see mir_event_cause. */
    const mir_event_cause *cause;
    bool without_events; /* changes are not recorded as events */
    bool makes_room;     /* INTERNAL: it may use what is kept for that when the store is full */
    /* Nobody waits for it: it is committed with what comes within MIR_STATE_GATHER_MS, or with the
     * next one that does not wait, whichever is first. The order stays that of submission. */
    bool may_wait;
    void (*done)(mir_state_request *request, void *ctx);
    void *ctx;

    /* Outputs. `error` is null if and only if status is MIR_OK; otherwise it is the whole text of
     * the reply's error arm. Changes are in the order in which their events go out. The reply lists
     * CREATED for creates, UPDATED for updates (an upsert has CREATED and UPDATED), DELETED. */
    mir_arena arena;
    mir_status status;
    const char *error;
    mir_state_change *changes;
    size_t change_count;
    const uint64_t *left; /* in the arena, or a part of `numbers` */
    size_t left_count;
};

/* MIR_OK, MIR_E_FULL (too many in flight) or MIR_E_CLOSED; on the latter two done is not called. */
MIR_MUST_CHECK mir_status mir_state_submit(mir_state *state, mir_state_request *request);

/* For tests and tools: submits and waits; `done` and `ctx` are overwritten. Never from `done`. */
MIR_MUST_CHECK mir_status mir_state_execute(mir_state *state, mir_state_request *request);

/* ── Reads ───────────────────────────────────────────────────────────────────────────────────── */

/* MIR_E_NOT_FOUND without a text when there is no such device. `error` may be null. */
MIR_MUST_CHECK mir_status mir_state_get(mir_state *state, mir_view device_id, mir_arena *arena,
                                        MirStore__V1__DeviceRecord **record, mir_error *error);

/* These count up when the device of this id, or of this name and namespace, was changed, created or
 * deleted (and with others' changes: they share counts): after the commit, before `done` of the
 * request that changed it. What was read after the count holds as long as the count stands still. */
uint64_t mir_state_changes_of_id(const mir_state *state, mir_view id);
uint64_t mir_state_changes_of_name(const mir_state *state, mir_view name, mir_view name_space);
/* The same of all devices, and of what targets mean and a device is called alone: ids, names,
 * namespaces, labels, packages, schemas, and whether they are disabled or online. */
uint64_t mir_state_changes_of_fleet(const mir_state *state);

/* Absent, or no list has an entry. */
bool mir_state_target_is_empty(const MirApi__V1__DeviceTarget *target);
/* All that match, sorted by namespace, then name. An absent or empty target matches everything. */
MIR_MUST_CHECK mir_status mir_state_list(mir_state *state, const MirApi__V1__DeviceTarget *target,
                                         mir_arena *arena, MirStore__V1__DeviceRecord ***records,
                                         size_t *count, mir_error *error);
MIR_MUST_CHECK mir_status mir_state_count(mir_state *state, const MirApi__V1__DeviceTarget *target,
                                          uint64_t *count, mir_error *error);

/* Appends the schema, compressed or not. `hash` has MIR_STATE_HASH_BYTES. */
MIR_MUST_CHECK mir_status mir_state_schema_get(mir_state *state, mir_view hash, bool compressed,
                                               mir_bytes *out, mir_error *error);
/* The name of a schema's uncompressed bytes. */
void mir_state_schema_hash(mir_view raw, uint8_t hash[MIR_STATE_HASH_BYTES]);

/* Every device that is stored as online; stops early when `visit` answers something else than
 * MIR_OK, and returns that. */
typedef mir_status (*mir_state_online_visit)(void *ctx, mir_view device_id, uint64_t number,
                                             int64_t last_heartbeat_ns);
MIR_MUST_CHECK mir_status mir_state_online_each(mir_state *state, mir_state_online_visit visit,
                                                void *ctx, mir_error *error);

/* ── Devices as the API shows them ───────────────────────────────────────────────────────────── */

/* With every sub-message that clients rely on, the schema's bytes and the live heartbeat. The
 * result shares strings with the records, and one copy of a schema is shared by the devices of a
 * call: all of them live in arenas that must outlive the result. */
MIR_MUST_CHECK mir_status mir_state_devices_of(mir_state *state,
                                               MirStore__V1__DeviceRecord *const *records,
                                               size_t count, mir_arena *arena,
                                               MirApi__V1__Device ***devices, mir_error *error);
MIR_MUST_CHECK mir_status mir_state_device_of(mir_state *state, MirStore__V1__DeviceRecord *record,
                                              mir_arena *arena, MirApi__V1__Device **device,
                                              mir_error *error);

/* The same with the heartbeat of the record alone: a device as it was, of a change or an event. */
MIR_MUST_CHECK mir_status mir_state_device_as_stored(mir_state *state,
                                                     MirStore__V1__DeviceRecord *record,
                                                     mir_arena *arena, MirApi__V1__Device **device,
                                                     mir_error *error);

/* The time of a device's last heartbeat in memory, 0 if none since the start. The cell stays where
 * it is until the store is closed; null without memory or beyond 2^30 numbers. Store with release,
 * read with acquire or relaxed: it orders nothing else. */
_Atomic int64_t *mir_state_heartbeat_cell(mir_state *state, uint64_t number);

/* ── What is going on ────────────────────────────────────────────────────────────────────────── */

typedef struct mir_state_stats {
    uint64_t devices;
    uint64_t online;
    uint64_t schemas;
    uint64_t map_bytes;
    uint64_t map_bytes_used;  /* by what is stored; the file keeps its size when things go */
    uint64_t requests;        /* done since the start */
    uint64_t requests_failed; /* of these, with another status than MIR_OK */
    uint64_t requests_in_flight;
    uint64_t commits;
    uint64_t commits_failed;
    uint64_t group_last; /* requests in the last commit, and the most so far */
    uint64_t group_max;
    int64_t commit_last_ns; /* how long the last commit took, and the longest */
    int64_t commit_max_ns;
    uint64_t events;         /* that are stored, without removed ones */
    uint64_t event_sequence; /* of the newest */
    uint64_t events_removed;
    uint64_t event_index_lag;       /* events behind the last one that is in an index */
    uint64_t event_keeper_failures; /* of indexing and retention since the start */
} mir_state_stats;

void mir_state_stats_get(mir_state *state, mir_state_stats *stats);

#endif
