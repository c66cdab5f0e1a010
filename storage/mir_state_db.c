/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_state_db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_pb.h"

enum { READERS_MAX = 1024, DATABASES_MAX = 32 };

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

void mir_state_key_view(mir_state_key *key, mir_view view)
{
    if (view.size > sizeof key->data - key->size) {
        key->failed = true;
        return;
    }
    if (view.size != 0) memcpy(key->data + key->size, view.data, view.size);
    key->size += view.size;
}

void mir_state_key_u8(mir_state_key *key, uint8_t byte)
{
    mir_state_key_view(key, mir_view_of(&byte, 1));
}

void mir_state_key_u64(mir_state_key *key, uint64_t value)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, value);
    mir_state_key_view(key, mir_view_of(bytes, sizeof bytes));
}

uint64_t mir_state_u64_read(const void *data)
{
    const uint8_t *p = data;
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | p[i];
    return value;
}

void mir_state_u64_write(void *data, uint64_t value)
{
    uint8_t *p = data;
    for (int i = 7; i >= 0; i--) {
        p[i] = (uint8_t)value;
        value >>= 8;
    }
}

mir_status mir_state_db_status(int rc)
{
    switch (rc) {
    case MDB_SUCCESS: return MIR_OK;
    case MDB_NOTFOUND: return MIR_E_NOT_FOUND;
    case MDB_KEYEXIST: return MIR_E_EXISTS;
    case MDB_MAP_FULL: return MIR_E_FULL;
    case MDB_TXN_FULL: return MIR_E_TOO_LARGE;
    case MDB_READERS_FULL: return MIR_E_AGAIN;
    case MDB_PANIC: return MIR_E_CLOSED;
    case MDB_PAGE_NOTFOUND:
    case MDB_CORRUPTED:
    case MDB_INVALID:
    case MDB_BAD_TXN: return MIR_E_CORRUPT;
    case MDB_VERSION_MISMATCH: return MIR_E_UNSUPPORTED;
    case EFBIG: return MIR_E_NO_SPACE; /* over the largest size that this process may write */
    default: return rc > 0 ? mir_status_from_errno(rc) : MIR_E_IO;
    }
}

static const char *show_size(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    unsigned unit = 0;
    while (unit < 4 && bytes >= 1024 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    (void)snprintf(text, 32, "%llu %s", (unsigned long long)bytes, units[unit]);
    return text;
}

void mir_state_db_explain(const mir_state_db *db, mir_status status, mir_error *error)
{
    char size[32];
    switch (status) {
    case MIR_E_FULL:
        (void)mir_error_set(error, status,
                            "state store is full (%s map): raise state.map_size, or delete events "
                            "or devices",
                            show_size(db->map_bytes, size));
        break;
    case MIR_E_NO_SPACE:
        (void)mir_error_set(error, status,
                            "state store cannot grow, its disk is full: free some space");
        break;
    case MIR_E_TOO_LARGE:
    case MIR_E_NO_MEMORY:
        (void)mir_error_set(error, status,
                            "the request touches too much for one step: narrow its target, or send "
                            "it in several");
        break;
    case MIR_E_AGAIN:
        (void)mir_error_set(error, status,
                            "state store has too many readers at once: try again later");
        break;
    case MIR_E_CLOSED:
        (void)mir_error_set(error, status,
                            "state store stopped after a write failed: look at its disk, then "
                            "restart the server");
        break;
    case MIR_E_CORRUPT:
        (void)mir_error_set(error, status,
                            "state store is damaged: restore it from a backup, or start with an "
                            "empty one");
        break;
    default:
        (void)mir_error_set(error, status, "state store failed: %s", mir_status_name(status));
        break;
    }
}

/* ── Opening ─────────────────────────────────────────────────────────────────────────────────── */

static const struct {
    const char *name;
    size_t offset;
} databases[] = {
    {"meta", offsetof(mir_state_db, meta)},
    {"device", offsetof(mir_state_db, device)},
    {"id", offsetof(mir_state_db, id)},
    {"name", offsetof(mir_state_db, name)},
    {"namespace", offsetof(mir_state_db, name_space)},
    {"label", offsetof(mir_state_db, label)},
    {"package", offsetof(mir_state_db, package)},
    {"online", offsetof(mir_state_db, online)},
    {"schema", offsetof(mir_state_db, schema)},
    {"schema_refs", offsetof(mir_state_db, schema_refs)},
    {"schema_unused", offsetof(mir_state_db, schema_unused)},
    {"field_names", offsetof(mir_state_db, field_names)},
    {"event", offsetof(mir_state_db, event)},
    {"event_block", offsetof(mir_state_db, event_block)},
    {"event_index", offsetof(mir_state_db, event_index)},
    {"event_name", offsetof(mir_state_db, event_name)},
    {"command", offsetof(mir_state_db, command)},
    {"command_waiting", offsetof(mir_state_db, command_waiting)},
    {"command_due", offsetof(mir_state_db, command_due)},
};

static MDB_val val(mir_view view)
{
    return (MDB_val){view.size, (void *)(uintptr_t)view.data};
}

static MDB_val key_val(const mir_state_key *key)
{
    return (MDB_val){key->size, (void *)(uintptr_t)key->data};
}

static mir_status get_u64(MDB_txn *txn, MDB_dbi dbi, mir_view key, uint64_t *value)
{
    MDB_val k = val(key), v;
    TRY(mir_state_db_status(mdb_get(txn, dbi, &k, &v)));
    if (v.mv_size != 8) return MIR_E_CORRUPT;
    *value = mir_state_u64_read(v.mv_data);
    return MIR_OK;
}

static mir_status put_u64(MDB_txn *txn, MDB_dbi dbi, mir_view key, uint64_t value, unsigned flags)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, value);
    MDB_val k = val(key), v = {sizeof bytes, bytes};
    return mir_state_db_status(mdb_put(txn, dbi, &k, &v, flags));
}

static const mir_view format_key = {(const uint8_t *)"format", 6};
static const mir_view next_key = {(const uint8_t *)"next", 4};

static mir_status open_databases(mir_state_db *db, const char *path, mir_error *error)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(db->env, NULL, 0, &txn);
    if (rc != 0) goto failed;
    /* Before anything else is created: a newer format may mean something else by the same names. */
    rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &db->meta);
    if (rc != 0) goto failed;
    uint64_t format = 0;
    mir_status status = get_u64(txn, db->meta, format_key, &format);
    if (status == MIR_OK && format > MIR_STATE_FORMAT_VERSION) {
        mdb_txn_abort(txn);
        return mir_error_set(error, MIR_E_UNSUPPORTED,
                             "state store %s has format %llu, this version of mir reads up to %d: "
                             "use the newer mir that wrote it",
                             path, (unsigned long long)format, MIR_STATE_FORMAT_VERSION);
    }
    if (status == MIR_E_NOT_FOUND) {
        status = put_u64(txn, db->meta, format_key, MIR_STATE_FORMAT_VERSION, 0);
        if (status == MIR_OK) status = put_u64(txn, db->meta, next_key, 1, 0);
    } else if (status == MIR_OK && format < MIR_STATE_FORMAT_VERSION) {
        /* Older formats lack databases that are made below. From here on a program that does not
         * know of them must not write: it would change devices without telling of it. */
        status = put_u64(txn, db->meta, format_key, MIR_STATE_FORMAT_VERSION, 0);
    }
    if (status != MIR_OK) {
        mdb_txn_abort(txn);
        mir_state_db_explain(db, status, error);
        return status;
    }
    for (size_t i = 0; i < sizeof databases / sizeof databases[0]; i++) {
        rc = mdb_dbi_open(txn, databases[i].name, MDB_CREATE,
                          (MDB_dbi *)(void *)((uint8_t *)db + databases[i].offset));
        if (rc != 0) goto failed;
    }
    rc = mdb_txn_commit(txn);
    txn = NULL;
    if (rc == 0) return MIR_OK;
failed:
    if (txn != NULL) mdb_txn_abort(txn);
    return mir_error_set(error, mir_state_db_status(rc), "cannot open state store %s: %s", path,
                         mdb_strerror(rc));
}

/* LMDB maps its table of readers, and makes its file long without giving it blocks: on a full disk
 * the first touch would be a SIGBUS. With the blocks there it cannot be. */
static mir_status reserve_reader_table(const char *path, mir_error *error)
{
    enum { ENTRY_BYTES = 64, HEAD_BYTES = 4096 };
    char table_path[4096];
    if ((size_t)snprintf(table_path, sizeof table_path, "%s/lock.mdb", path) >= sizeof table_path)
        return mir_error_set(error, MIR_E_INVALID, "the path of the state store is too long");
    int fd = open(table_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return mir_error_os(error, errno,
                            "cannot write state store %s, choose a writable data directory", path);
    int rc = posix_fallocate(fd, 0, HEAD_BYTES + READERS_MAX * ENTRY_BYTES);
    (void)close(fd);
    if (rc != 0)
        return mir_error_os(error, rc, "cannot open state store %s%s", path,
                            rc == ENOSPC ? ", free some space on its disk" : "");
    return MIR_OK;
}

/* LMDB writes to a deletion's pages what it keeps of them, elsewhere: without free pages nothing can be
 * deleted. A slice of removals that lie far apart copies some 600 pages. */
static uint64_t reserve_of(uint64_t map_bytes)
{
    const uint64_t most = UINT64_C(64) << 20, least = UINT64_C(4) << 20;
    uint64_t bytes = map_bytes / 16;
    if (bytes > most) return most;
    return bytes < least ? least : bytes / 4096 * 4096;
}

/* More may be stored than the map and its reserve were ever to hold, since state.map_size can be
 * lowered: that needs a reserve too, or nothing could be deleted. */
static mir_status set_room(mir_state_db *db, const char *path, mir_error *error)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn);
    db->deletes_max_bytes = db->map_bytes + db->reserve_bytes / 2;
    if (rc == 0) {
        const uint64_t used = mir_state_db_used_bytes(db, txn);
        mdb_txn_abort(txn);
        if (used <= db->map_bytes + db->reserve_bytes) return MIR_OK;
        db->deletes_max_bytes = used + db->reserve_bytes / 2;
        rc = mdb_env_set_mapsize(db->env, (size_t)(used + db->reserve_bytes));
    }
    if (rc == 0) return MIR_OK;
    return mir_error_set(error, mir_state_db_status(rc), "cannot open state store %s: %s", path,
                         mdb_strerror(rc));
}

mir_status mir_state_db_open(const char *path, uint64_t map_bytes, mir_state_sync sync,
                             mir_state_db *db, mir_error *error)
{
    mir_state_db opened = {
        .lock_fd = -1, .map_bytes = map_bytes, .reserve_bytes = reserve_of(map_bytes)};
    char lock_path[4096];
    mir_status status = MIR_OK;
    int rc = 0;
    if ((size_t)snprintf(lock_path, sizeof lock_path, "%s/owner", path) >= sizeof lock_path)
        return mir_error_set(error, MIR_E_INVALID, "the path of the state store is too long");
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return mir_error_os(error, errno,
                            "cannot create state store %s, choose a writable data directory", path);
    opened.lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (opened.lock_fd < 0)
        return mir_error_os(error, errno,
                            "cannot write state store %s, choose a writable data directory", path);
    if (flock(opened.lock_fd, LOCK_EX | LOCK_NB) != 0) {
        status = errno == EWOULDBLOCK
                     ? mir_error_set(error, MIR_E_EXISTS,
                                     "state store %s is in use by another process: stop it, or "
                                     "choose another data directory",
                                     path)
                     : mir_error_os(error, errno, "cannot lock state store %s", path);
        goto failed;
    }
    status = reserve_reader_table(path, error);
    if (status != MIR_OK) goto failed;
    unsigned flags = MDB_NOTLS;
    if (sync != MIR_STATE_SYNC_COMMIT) flags |= MDB_NOSYNC;
    rc = mdb_env_create(&opened.env);
    if (rc == 0) rc = mdb_env_set_maxdbs(opened.env, DATABASES_MAX);
    if (rc == 0) rc = mdb_env_set_maxreaders(opened.env, READERS_MAX);
    if (rc == 0) rc = mdb_env_set_mapsize(opened.env, (size_t)(map_bytes + opened.reserve_bytes));
    char file[4096];
    struct stat found;
    if (rc == 0 && (size_t)snprintf(file, sizeof file, "%s/data.mdb", path) >= sizeof file)
        rc = ENAMETOOLONG;
    const bool is_new = rc == 0 && (stat(file, &found) != 0 ? errno == ENOENT : found.st_size == 0);
    if (rc == 0) rc = mdb_env_open(opened.env, path, flags, 0600);
    if (rc != 0) {
        status = mir_error_set(error, mir_state_db_status(rc), "cannot open state store %s: %s",
                               path, mdb_strerror(rc));
        /* Its first pages, half-written on a full disk, would be no store for the next start. */
        if (is_new) (void)unlink(file);
        goto failed;
    }
    int dead = 0; /* readers of a process that was killed would keep old pages for good */
    (void)mdb_reader_check(opened.env, &dead);
    status = open_databases(&opened, path, error);
    if (status == MIR_OK) status = set_room(&opened, path, error);
    if (status != MIR_OK) goto failed;
    /* Commits sync the file; that it is there at all is the folder's to remember. */
    int folder_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0 || fsync(folder_fd) != 0) {
        status = mir_error_os(error, errno, "cannot sync state store %s", path);
        if (folder_fd >= 0) (void)close(folder_fd);
        goto failed;
    }
    (void)close(folder_fd);
    *db = opened;
    return MIR_OK;
failed:
    mir_state_db_close(&opened);
    return status;
}

static mir_status open_databases_reader(mir_state_db *db, const char *path, mir_error *error)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn);
    if (rc == 0) rc = mdb_dbi_open(txn, "meta", 0, &db->meta);
    uint64_t format = 0;
    mir_status status = rc == 0 ? get_u64(txn, db->meta, format_key, &format) : MIR_OK;
    for (size_t i = 0; i < sizeof databases / sizeof databases[0] && rc == 0; i++) {
        rc = mdb_dbi_open(txn, databases[i].name, 0,
                          (MDB_dbi *)(void *)((uint8_t *)db + databases[i].offset));
        if (rc == MDB_NOTFOUND && format < MIR_STATE_FORMAT_VERSION) rc = 0;
    }
    if (rc == 0 && status == MIR_OK)
        rc = mdb_txn_commit(txn);
    else if (txn != NULL)
        mdb_txn_abort(txn);
    if (rc != 0)
        return mir_error_set(error, rc == MDB_NOTFOUND ? MIR_E_CORRUPT : mir_state_db_status(rc),
                             "cannot read state store %s: %s", path, mdb_strerror(rc));
    if (status != MIR_OK)
        return mir_error_set(error, MIR_E_CORRUPT, "state store %s does not say its format", path);
    if (format > MIR_STATE_FORMAT_VERSION)
        return mir_error_set(error, MIR_E_UNSUPPORTED,
                             "state store %s has format %llu, this version of mir reads up to %d: "
                             "use the newer mir that wrote it",
                             path, (unsigned long long)format, MIR_STATE_FORMAT_VERSION);
    return MIR_OK;
}

mir_status mir_state_db_open_reader(const char *path, mir_state_db *db, mir_error *error)
{
    mir_state_db opened = {.lock_fd = -1};
    int rc = mdb_env_create(&opened.env);
    if (rc == 0) rc = mdb_env_set_maxdbs(opened.env, DATABASES_MAX);
    if (rc == 0) rc = mdb_env_set_maxreaders(opened.env, READERS_MAX);
    /* Without a table of readers nobody writes; one of its own might belong to the wrong user. */
    char table[4096];
    if ((size_t)snprintf(table, sizeof table, "%s/lock.mdb", path) >= sizeof table)
        rc = ENAMETOOLONG;
    const unsigned lock = rc == 0 && access(table, F_OK) != 0 && errno == ENOENT ? MDB_NOLOCK : 0;
    if (rc == 0) rc = mdb_env_open(opened.env, path, MDB_NOTLS | MDB_RDONLY | lock, 0600);
    mir_status status = MIR_OK;
    if (rc != 0) {
        status = rc == ENOENT ? MIR_E_NOT_FOUND : mir_state_db_status(rc);
        (void)mir_error_set(error, status, "cannot open state store %s: %s", path,
                            mdb_strerror(rc));
    } else {
        int dead = 0; /* readers of a process that was killed would keep old pages for good */
        (void)mdb_reader_check(opened.env, &dead);
        status = open_databases_reader(&opened, path, error);
    }
    if (status != MIR_OK) {
        mir_state_db_close(&opened);
        return status;
    }
    *db = opened;
    return MIR_OK;
}

void mir_state_db_close(mir_state_db *db)
{
    if (db->env != NULL) mdb_env_close(db->env);
    if (db->lock_fd >= 0) (void)close(db->lock_fd);
    db->env = NULL;
    db->lock_fd = -1;
}

uint64_t mir_state_db_used_bytes(const mir_state_db *db, MDB_txn *txn)
{
    enum { FREE_PAGES, NAMES, UNNAMED }; /* LMDB's own */
    uint64_t pages = 2, page_bytes = 0;  /* two that are no tree's */
    for (size_t i = 0; i < UNNAMED + sizeof databases / sizeof databases[0]; i++) {
        MDB_dbi dbi = (MDB_dbi)i;
        if (i >= UNNAMED)
            memcpy(&dbi, (const uint8_t *)db + databases[i - UNNAMED].offset, sizeof dbi);
        MDB_stat stat;
        if (mdb_stat(txn, dbi, &stat) != 0) continue;
        pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
        page_bytes = stat.ms_psize;
    }
    return pages * page_bytes;
}

/* ── Reading ─────────────────────────────────────────────────────────────────────────────────── */

mir_status mir_state_db_find_id(const mir_state_db *db, MDB_txn *txn, mir_view id, uint64_t *number)
{
    if (id.size == 0 || id.size > MIR_STATE_KEY_BYTES_MAX) return MIR_E_NOT_FOUND;
    return get_u64(txn, db->id, id, number);
}

static mir_state_key pair_key(mir_view first, mir_view second)
{
    mir_state_key key;
    key.size = 0;
    key.failed = false;
    mir_state_key_view(&key, first);
    mir_state_key_u8(&key, 0);
    mir_state_key_view(&key, second);
    return key;
}

mir_status mir_state_db_find_name(const mir_state_db *db, MDB_txn *txn, mir_view name,
                                  mir_view name_space, uint64_t *number)
{
    mir_state_key key = pair_key(name, name_space);
    if (key.failed) return MIR_E_NOT_FOUND;
    return get_u64(txn, db->name, mir_view_of(key.data, key.size), number);
}

/* MIR_E_NO_MEMORY is told from damage by whether the arena still gives. */
static mir_status unpack(const ProtobufCMessageDescriptor *descriptor, MDB_val packed,
                         mir_arena *arena, void *message)
{
    ProtobufCAllocator allocator = mir_pb_allocator(arena);
    ProtobufCMessage *unpacked =
        protobuf_c_message_unpack(descriptor, &allocator, packed.mv_size, packed.mv_data);
    if (unpacked == NULL)
        return mir_arena_alloc(arena, packed.mv_size * 4 + 4096) == NULL ? MIR_E_NO_MEMORY
                                                                         : MIR_E_CORRUPT;
    memcpy(message, &unpacked, sizeof unpacked);
    return MIR_OK;
}

mir_status mir_state_db_load(const mir_state_db *db, MDB_txn *txn, uint64_t number,
                             mir_arena *arena, MirStore__V1__DeviceRecord **record)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, number);
    MDB_val k = {sizeof bytes, bytes}, v;
    TRY(mir_state_db_status(mdb_get(txn, db->device, &k, &v)));
    MirStore__V1__DeviceRecord *loaded = NULL;
    TRY(unpack(&mir_store__v1__device_record__descriptor, v, arena, &loaded));
    if (loaded->number != number || loaded->device_id == NULL || loaded->name == NULL ||
        loaded->namespace_ == NULL)
        return MIR_E_CORRUPT;
    if (loaded->has_schema_hash && loaded->schema_hash.len != MIR_STATE_HASH_BYTES)
        return MIR_E_CORRUPT;
    *record = loaded;
    return MIR_OK;
}

int64_t mir_state_time_ns(const MirStore__V1__Time *time)
{
    if (time == NULL) return 0;
    if (time->seconds >= INT64_MAX / MIR_NS_PER_S) return INT64_MAX;
    if (time->seconds <= INT64_MIN / MIR_NS_PER_S) return INT64_MIN;
    return time->seconds * MIR_NS_PER_S + time->nanos;
}

MirStore__V1__Time *mir_state_time_new(mir_arena *arena, int64_t ns)
{
    MirStore__V1__Time *time = mir_arena_alloc(arena, sizeof *time);
    if (time == NULL) return NULL;
    mir_store__v1__time__init(time);
    int64_t seconds = ns / MIR_NS_PER_S, nanos = ns % MIR_NS_PER_S;
    if (nanos < 0) {
        nanos += MIR_NS_PER_S;
        seconds--;
    }
    time->has_seconds = time->has_nanos = 1;
    time->seconds = seconds;
    time->nanos = (int32_t)nanos;
    return time;
}

/* ── Writing ─────────────────────────────────────────────────────────────────────────────────── */

mir_status mir_state_db_take_numbers(const mir_state_db *db, MDB_txn *txn, uint64_t count,
                                     uint64_t *first)
{
    uint64_t next = 0;
    mir_status status = get_u64(txn, db->meta, next_key, &next);
    if (status == MIR_E_NOT_FOUND || next == 0) return MIR_E_CORRUPT;
    TRY(status);
    TRY(put_u64(txn, db->meta, next_key, next + count, 0));
    *first = next;
    return MIR_OK;
}

static mir_status put(MDB_txn *txn, MDB_dbi dbi, const mir_state_key *key, mir_view data)
{
    if (key->failed) return MIR_E_INVALID;
    MDB_val k = key_val(key), v = val(data);
    return mir_state_db_status(mdb_put(txn, dbi, &k, &v, 0));
}

/* What an index should hold is not there: the indexes are damaged. */
static mir_status del(MDB_txn *txn, MDB_dbi dbi, const mir_state_key *key)
{
    if (key->failed) return MIR_E_CORRUPT;
    MDB_val k = key_val(key);
    mir_status status = mir_state_db_status(mdb_del(txn, dbi, &k, NULL));
    return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status;
}

static bool same_text(const char *a, const char *b)
{
    return strcmp(a == NULL ? "" : a, b == NULL ? "" : b) == 0;
}

static mir_status store_id(const mir_state_db *db, MDB_txn *txn,
                           const MirStore__V1__DeviceRecord *before,
                           const MirStore__V1__DeviceRecord *after)
{
    if (before != NULL && after != NULL && same_text(before->device_id, after->device_id))
        return MIR_OK;
    mir_state_key key;
    if (before != NULL) {
        key = (mir_state_key){.size = 0};
        mir_state_key_view(&key, mir_view_cstr(before->device_id));
        TRY(del(txn, db->id, &key));
    }
    if (after == NULL) return MIR_OK;
    return put_u64(txn, db->id, mir_view_cstr(after->device_id), after->number, MDB_NOOVERWRITE);
}

static mir_status store_names(const mir_state_db *db, MDB_txn *txn,
                              const MirStore__V1__DeviceRecord *before,
                              const MirStore__V1__DeviceRecord *after)
{
    if (before != NULL && after != NULL && same_text(before->name, after->name) &&
        same_text(before->namespace_, after->namespace_))
        return MIR_OK;
    mir_state_key key;
    if (before != NULL) {
        mir_view name = mir_view_cstr(before->name), space = mir_view_cstr(before->namespace_);
        key = pair_key(name, space);
        TRY(del(txn, db->name, &key));
        key = pair_key(space, name);
        TRY(del(txn, db->name_space, &key));
    }
    if (after == NULL) return MIR_OK;
    mir_view name = mir_view_cstr(after->name), space = mir_view_cstr(after->namespace_);
    key = pair_key(name, space);
    if (key.failed) return MIR_E_INVALID;
    TRY(put_u64(txn, db->name, mir_view_of(key.data, key.size), after->number, MDB_NOOVERWRITE));
    key = pair_key(space, name);
    return put_u64(txn, db->name_space, mir_view_of(key.data, key.size), after->number, 0);
}

void mir_state_key_label(mir_state_key *key, mir_view label, mir_view value)
{
    mir_state_key_view(key, label);
    mir_state_key_u8(key, 0);
    if (value.size <= MIR_STATE_LABEL_INLINE_BYTES_MAX) {
        mir_state_key_view(key, value);
        mir_state_key_u8(key, 0);
        return;
    }
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(value.data, value.size));
    mir_state_key_u8(key, MIR_STATE_LABEL_HASHED);
    mir_state_key_view(key, mir_view_of(hash.digest, MIR_STATE_LABEL_HASH_BYTES));
}

static mir_state_key label_key(const MirStore__V1__DeviceRecord__LabelsEntry *label,
                               uint64_t number)
{
    mir_state_key key;
    key.size = 0;
    key.failed = false;
    mir_state_key_label(&key, mir_view_cstr(label->key), mir_view_cstr(label->value));
    mir_state_key_u64(&key, number);
    return key;
}

static bool has_label(const MirStore__V1__DeviceRecord *record,
                      const MirStore__V1__DeviceRecord__LabelsEntry *label)
{
    for (size_t i = 0; record != NULL && i < record->n_labels; i++) {
        const MirStore__V1__DeviceRecord__LabelsEntry *other = record->labels[i];
        if (other == label ||
            (same_text(other->key, label->key) && same_text(other->value, label->value)))
            return true;
    }
    return false;
}

static bool indexed(const MirStore__V1__DeviceRecord__LabelsEntry *label)
{
    return label->value != NULL && label->value[0] != '\0';
}

static mir_status store_labels(const mir_state_db *db, MDB_txn *txn,
                               const MirStore__V1__DeviceRecord *before,
                               const MirStore__V1__DeviceRecord *after)
{
    if (before != NULL && after != NULL && before->labels == after->labels) return MIR_OK;
    for (size_t i = 0; before != NULL && i < before->n_labels; i++) {
        if (!indexed(before->labels[i]) || has_label(after, before->labels[i])) continue;
        mir_state_key key = label_key(before->labels[i], before->number);
        TRY(del(txn, db->label, &key));
    }
    for (size_t i = 0; after != NULL && i < after->n_labels; i++) {
        if (!indexed(after->labels[i]) || has_label(before, after->labels[i])) continue;
        mir_state_key key = label_key(after->labels[i], after->number);
        mir_view value = mir_view_cstr(after->labels[i]->value);
        TRY(put(txn, db->label, &key,
                value.size > MIR_STATE_LABEL_INLINE_BYTES_MAX ? value : (mir_view){NULL, 0}));
    }
    return MIR_OK;
}

static bool has_package(const MirStore__V1__DeviceRecord *record, const char *package)
{
    for (size_t i = 0; record != NULL && i < record->n_package_names; i++)
        if (same_text(record->package_names[i], package)) return true;
    return false;
}

static mir_status store_packages(const mir_state_db *db, MDB_txn *txn,
                                 const MirStore__V1__DeviceRecord *before,
                                 const MirStore__V1__DeviceRecord *after)
{
    if (before != NULL && after != NULL && before->package_names == after->package_names)
        return MIR_OK;
    for (size_t i = 0; before != NULL && i < before->n_package_names; i++) {
        if (has_package(after, before->package_names[i])) continue;
        mir_state_key key = pair_key(mir_view_cstr(before->package_names[i]), (mir_view){NULL, 0});
        mir_state_key_u64(&key, before->number);
        TRY(del(txn, db->package, &key));
    }
    for (size_t i = 0; after != NULL && i < after->n_package_names; i++) {
        if (has_package(before, after->package_names[i])) continue;
        mir_state_key key = pair_key(mir_view_cstr(after->package_names[i]), (mir_view){NULL, 0});
        mir_state_key_u64(&key, after->number);
        TRY(put(txn, db->package, &key, (mir_view){NULL, 0}));
    }
    return MIR_OK;
}

/* number -> last heartbeat, id: a start reads this alone. */
static mir_status store_online(const mir_state_db *db, MDB_txn *txn,
                               const MirStore__V1__DeviceRecord *before,
                               const MirStore__V1__DeviceRecord *after)
{
    bool was = before != NULL && before->has_online && before->online;
    bool is = after != NULL && after->has_online && after->online;
    mir_state_key key;
    key.size = 0;
    key.failed = false;
    mir_state_key_u64(&key, before != NULL ? before->number : after->number);
    if (was && !is) return del(txn, db->online, &key);
    if (!is) return MIR_OK;
    int64_t at_ns = mir_state_time_ns(after->last_heartbeat);
    if (was && at_ns == mir_state_time_ns(before->last_heartbeat) &&
        same_text(before->device_id, after->device_id))
        return MIR_OK;
    mir_state_key data;
    data.size = 0;
    data.failed = false;
    mir_state_key_u64(&data, (uint64_t)at_ns);
    mir_state_key_view(&data, mir_view_cstr(after->device_id));
    return put(txn, db->online, &key, mir_view_of(data.data, data.size));
}

static mir_view hash_of(const MirStore__V1__DeviceRecord *record)
{
    if (record == NULL || !record->has_schema_hash) return (mir_view){NULL, 0};
    return mir_view_of(record->schema_hash.data, record->schema_hash.len);
}

static mir_status store_schema_refs(const mir_state_db *db, MDB_txn *txn,
                                    const MirStore__V1__DeviceRecord *before,
                                    const MirStore__V1__DeviceRecord *after, int64_t now_ns)
{
    mir_view old = hash_of(before), new = hash_of(after);
    if (mir_view_eq(old, new)) return MIR_OK;
    uint64_t refs = 0;
    if (new.size != 0) {
        mir_status status = get_u64(txn, db->schema_refs, new, &refs);
        if (status != MIR_OK && status != MIR_E_NOT_FOUND) return status;
        TRY(put_u64(txn, db->schema_refs, new, refs + 1, 0));
    }
    if (old.size == 0) return MIR_OK;
    mir_status status = get_u64(txn, db->schema_refs, old, &refs);
    if (status == MIR_E_NOT_FOUND || (status == MIR_OK && refs == 0)) return MIR_E_CORRUPT;
    TRY(status);
    if (refs > 1) return put_u64(txn, db->schema_refs, old, refs - 1, 0);
    MDB_val k = val(old);
    TRY(mir_state_db_status(mdb_del(txn, db->schema_refs, &k, NULL)));
    mir_state_key key;
    key.size = 0;
    key.failed = false;
    mir_state_key_u64(&key, (uint64_t)now_ns);
    mir_state_key_view(&key, old);
    return put(txn, db->schema_unused, &key, (mir_view){NULL, 0});
}

/* Whether the record as it is, its version included, is what is stored. */
static mir_status record_is_stored(const mir_state_db *db, MDB_txn *txn, MDB_val key,
                                   const MirStore__V1__DeviceRecord *record, bool *same)
{
    MDB_val stored;
    TRY(mir_state_db_status(mdb_get(txn, db->device, &key, &stored)));
    *same = false;
    if (mir_store__v1__device_record__get_packed_size(record) != stored.mv_size) return MIR_OK;
    uint8_t *packed = malloc(stored.mv_size);
    if (packed == NULL) return MIR_E_NO_MEMORY;
    (void)mir_store__v1__device_record__pack(record, packed);
    *same = memcmp(packed, stored.mv_data, stored.mv_size) == 0;
    free(packed);
    return MIR_OK;
}

static mir_status store_record(const mir_state_db *db, MDB_txn *txn, bool is_new,
                               const MirStore__V1__DeviceRecord *after)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, after->number);
    MDB_val k = {sizeof bytes, bytes};
    MDB_val v = {mir_store__v1__device_record__get_packed_size(after), NULL};
    /* LMDB hands out the place in its page: the record is packed there without a copy. */
    unsigned flags = MDB_RESERVE | (is_new ? MDB_APPEND : 0);
    TRY(mir_state_db_status(mdb_put(txn, db->device, &k, &v, flags)));
    (void)mir_store__v1__device_record__pack(after, v.mv_data);
    return MIR_OK;
}

unsigned mir_state_count_of_id(mir_view id)
{
    return (unsigned)(mir_hash_view(id) % MIR_STATE_CHANGE_COUNTS);
}

unsigned mir_state_count_of_name(mir_view name, mir_view name_space)
{
    return (unsigned)(((mir_hash_view(name) << 1) ^ mir_hash_view(name_space)) %
                      MIR_STATE_CHANGE_COUNTS);
}

static void note_changed(const mir_state_db *db, const MirStore__V1__DeviceRecord *record)
{
    if (db->changed == NULL || record == NULL) return;
    unsigned counts[] = {
        mir_state_count_of_id(mir_view_cstr(record->device_id)),
        mir_state_count_of_name(mir_view_cstr(record->name), mir_view_cstr(record->namespace_))};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        db->changed[counts[i] / 64] |= UINT64_C(1) << counts[i] % 64;
}

/* Whether a target that means the one means the other, and both are called the same. */
static bool is_alike(const MirStore__V1__DeviceRecord *a, const MirStore__V1__DeviceRecord *b)
{
    if (!same_text(a->device_id, b->device_id) || !same_text(a->name, b->name) ||
        !same_text(a->namespace_, b->namespace_) || a->n_labels != b->n_labels ||
        a->n_package_names != b->n_package_names || a->has_disabled != b->has_disabled ||
        a->disabled != b->disabled || a->has_online != b->has_online || a->online != b->online ||
        a->has_schema_hash != b->has_schema_hash)
        return false;
    if (a->has_schema_hash && !mir_view_eq(mir_view_of(a->schema_hash.data, a->schema_hash.len),
                                           mir_view_of(b->schema_hash.data, b->schema_hash.len)))
        return false;
    for (size_t i = 0; i < a->n_labels; i++)
        if (!same_text(a->labels[i]->key, b->labels[i]->key) ||
            !same_text(a->labels[i]->value, b->labels[i]->value))
            return false;
    for (size_t i = 0; i < a->n_package_names; i++)
        if (!same_text(a->package_names[i], b->package_names[i])) return false;
    return true;
}

static void note_fleet_changed(const mir_state_db *db, const MirStore__V1__DeviceRecord *before,
                               const MirStore__V1__DeviceRecord *after)
{
    if (db->changed == NULL) return;
    if (before == NULL || after == NULL || !is_alike(before, after))
        db->changed[MIR_STATE_COUNT_OF_FLEET / 64] |= UINT64_C(1) << MIR_STATE_COUNT_OF_FLEET % 64;
}

mir_status mir_state_db_store(const mir_state_db *db, MDB_txn *txn,
                              const MirStore__V1__DeviceRecord *before,
                              MirStore__V1__DeviceRecord *after, int64_t now_ns)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, before != NULL ? before->number : after->number);
    MDB_val k = {sizeof bytes, bytes};
    if (before != NULL && after != NULL) {
        bool same = false;
        TRY(record_is_stored(db, txn, k, after, &same));
        if (same) return MIR_OK;
    }
    note_changed(db, before);
    note_changed(db, after);
    note_fleet_changed(db, before, after);
    TRY(store_id(db, txn, before, after));
    TRY(store_names(db, txn, before, after));
    TRY(store_labels(db, txn, before, after));
    TRY(store_packages(db, txn, before, after));
    TRY(store_online(db, txn, before, after));
    TRY(store_schema_refs(db, txn, before, after, now_ns));
    if (after == NULL) {
        mir_status status = mir_state_db_status(mdb_del(txn, db->device, &k, NULL));
        return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status;
    }
    /* Heartbeats are no changes of a device, only their times are written down with it. */
    bool is_change = true;
    if (before != NULL && after->last_heartbeat != before->last_heartbeat) {
        MirStore__V1__DeviceRecord otherwise = *after;
        otherwise.last_heartbeat = before->last_heartbeat;
        TRY(record_is_stored(db, txn, k, &otherwise, &is_change));
        is_change = !is_change;
    }
    after->has_version = 1;
    after->version += is_change;
    return store_record(db, txn, before == NULL, after);
}

/* ── Schemas ─────────────────────────────────────────────────────────────────────────────────── */

mir_status mir_state_db_schema_exists(const mir_state_db *db, MDB_txn *txn, mir_view hash)
{
    if (hash.size != MIR_STATE_HASH_BYTES) return MIR_E_NOT_FOUND;
    MDB_val k = val(hash), v;
    return mir_state_db_status(mdb_get(txn, db->schema, &k, &v));
}

mir_status mir_state_db_schema_load(const mir_state_db *db, MDB_txn *txn, mir_view hash,
                                    mir_arena *arena, MirStore__V1__SchemaRecord **record)
{
    if (hash.size != MIR_STATE_HASH_BYTES) return MIR_E_NOT_FOUND;
    MDB_val k = val(hash), v;
    TRY(mir_state_db_status(mdb_get(txn, db->schema, &k, &v)));
    return unpack(&mir_store__v1__schema_record__descriptor, v, arena, record);
}

mir_status mir_state_db_schema_put(const mir_state_db *db, MDB_txn *txn, mir_view hash,
                                   const MirStore__V1__SchemaRecord *record)
{
    MDB_val k = val(hash);
    MDB_val v = {mir_store__v1__schema_record__get_packed_size(record), NULL};
    mir_status status =
        mir_state_db_status(mdb_put(txn, db->schema, &k, &v, MDB_RESERVE | MDB_NOOVERWRITE));
    if (status == MIR_E_EXISTS) return MIR_OK;
    TRY(status);
    (void)mir_store__v1__schema_record__pack(record, v.mv_data);
    return MIR_OK;
}

mir_status mir_state_db_schema_sweep(const mir_state_db *db, MDB_txn *txn, int64_t before_ns,
                                     unsigned count_max)
{
    MDB_cursor *cursor = NULL;
    TRY(mir_state_db_status(mdb_cursor_open(txn, db->schema_unused, &cursor)));
    mir_status status = MIR_OK;
    for (unsigned i = 0; i < count_max && status == MIR_OK; i++) {
        MDB_val k, v;
        status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_FIRST));
        if (status != MIR_OK) break;
        if (k.mv_size != 8 + MIR_STATE_HASH_BYTES) {
            status = MIR_E_CORRUPT;
            break;
        }
        if ((int64_t)mir_state_u64_read(k.mv_data) >= before_ns) break;
        uint8_t hash[MIR_STATE_HASH_BYTES];
        memcpy(hash, (const uint8_t *)k.mv_data + 8, sizeof hash);
        uint64_t refs = 0;
        status = get_u64(txn, db->schema_refs, mir_view_of(hash, sizeof hash), &refs);
        if (status == MIR_E_NOT_FOUND) {
            MDB_val name = {sizeof hash, hash};
            status = mir_state_db_status(mdb_del(txn, db->schema, &name, NULL));
            if (status == MIR_E_NOT_FOUND) status = MIR_OK; /* swept under an earlier entry */
        }
        if (status == MIR_OK) status = mir_state_db_status(mdb_cursor_del(cursor, 0));
    }
    mdb_cursor_close(cursor);
    return status == MIR_E_NOT_FOUND ? MIR_OK : status;
}

/* ── Checking ────────────────────────────────────────────────────────────────────────────────── */

static mir_status expect(const mir_state_db *db, MDB_txn *txn, MDB_dbi dbi,
                         const mir_state_key *key, const char *what,
                         const MirStore__V1__DeviceRecord *record, mir_error *error)
{
    (void)db;
    MDB_val k = key_val(key), v;
    mir_status status = mir_state_db_status(mdb_get(txn, dbi, &k, &v));
    if (status == MIR_E_NOT_FOUND)
        return mir_error_set(error, MIR_E_CORRUPT, "device '%s' is missing in the index of %s",
                             record->device_id, what);
    return status;
}

static mir_status entries_of(MDB_txn *txn, MDB_dbi dbi, uint64_t want, const char *what,
                             mir_error *error)
{
    MDB_stat stat;
    TRY(mir_state_db_status(mdb_stat(txn, dbi, &stat)));
    if (stat.ms_entries == want) return MIR_OK;
    return mir_error_set(error, MIR_E_CORRUPT, "%llu entries of %s where %llu belong",
                         (unsigned long long)stat.ms_entries, what, (unsigned long long)want);
}

mir_status mir_state_db_check(const mir_state_db *db, MDB_txn *txn, mir_error *error)
{
    uint64_t devices = 0, labels = 0, packages = 0, online = 0;
    MDB_cursor *cursor = NULL;
    mir_arena arena = {0};
    TRY(mir_state_db_status(mdb_cursor_open(txn, db->device, &cursor)));
    MDB_val k, v;
    mir_status status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_FIRST));
    while (status == MIR_OK) {
        MirStore__V1__DeviceRecord *record = NULL;
        status = k.mv_size == 8
                     ? mir_state_db_load(db, txn, mir_state_u64_read(k.mv_data), &arena, &record)
                     : MIR_E_CORRUPT;
        if (status != MIR_OK) {
            (void)mir_error_set(error, status, "a device record cannot be read");
            break;
        }
        devices++;
        uint64_t number = 0;
        status = mir_state_db_find_id(db, txn, mir_view_cstr(record->device_id), &number);
        if (status != MIR_OK || number != record->number) {
            status = mir_error_set(error, MIR_E_CORRUPT, "id '%s' does not lead to its device",
                                   record->device_id);
            break;
        }
        status = mir_state_db_find_name(db, txn, mir_view_cstr(record->name),
                                        mir_view_cstr(record->namespace_), &number);
        if (status != MIR_OK || number != record->number) {
            status = mir_error_set(error, MIR_E_CORRUPT, "name '%s' does not lead to its device",
                                   record->name);
            break;
        }
        mir_state_key key =
            pair_key(mir_view_cstr(record->namespace_), mir_view_cstr(record->name));
        status = expect(db, txn, db->name_space, &key, "namespaces", record, error);
        for (size_t i = 0; i < record->n_labels && status == MIR_OK; i++) {
            if (!indexed(record->labels[i])) continue;
            labels++;
            key = label_key(record->labels[i], record->number);
            status = expect(db, txn, db->label, &key, "labels", record, error);
        }
        for (size_t i = 0; i < record->n_package_names && status == MIR_OK; i++) {
            packages++;
            key = pair_key(mir_view_cstr(record->package_names[i]), (mir_view){NULL, 0});
            mir_state_key_u64(&key, record->number);
            status = expect(db, txn, db->package, &key, "schema packages", record, error);
        }
        if (status == MIR_OK && record->has_online && record->online) {
            online++;
            key = (mir_state_key){.size = 0};
            mir_state_key_u64(&key, record->number);
            status = expect(db, txn, db->online, &key, "online devices", record, error);
        }
        if (status == MIR_OK && record->has_schema_hash) {
            status = mir_state_db_schema_exists(db, txn, hash_of(record));
            if (status == MIR_E_NOT_FOUND)
                status = mir_error_set(error, MIR_E_CORRUPT, "device '%s' lost its schema",
                                       record->device_id);
        }
        mir_arena_free(&arena);
        if (status == MIR_OK)
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    mir_arena_free(&arena);
    if (status != MIR_E_NOT_FOUND) return status;
    TRY(entries_of(txn, db->id, devices, "ids", error));
    TRY(entries_of(txn, db->name, devices, "names", error));
    TRY(entries_of(txn, db->name_space, devices, "namespaces", error));
    TRY(entries_of(txn, db->label, labels, "labels", error));
    TRY(entries_of(txn, db->package, packages, "schema packages", error));
    return entries_of(txn, db->online, online, "online devices", error);
}
