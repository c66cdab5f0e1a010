/* SPDX-License-Identifier: Apache-2.0 */
/* One mutex around everything, the disk included: commands with ids are rare, and each of them has
 * to be on the disk before it runs. */
#include "mir_device_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mir_hash.h"

enum {
    HEADER_BYTES = 32,
    HEADER_CHECKED = 24,
    RECORD_HEADER_BYTES = 16,
    VERSION = 1,
    BEGUN = 1,
    ANSWER = 2,
    PAYLOAD_BYTES_MAX = 4 + MIR_DEVICE_COMMAND_ID_BYTES_MAX + MIR_DEVICE_JOURNAL_NAME_BYTES_MAX +
                        MIR_DEVICE_JOURNAL_ANSWER_BYTES_MAX,
    REWRITE_BYTES_MIN = 64 << 10, /* a smaller file is not worth the work */
};
static const uint8_t file_magic[8] = "MIRCMDS";
static const uint8_t record_magic[4] = "MCMD";

/* ---- Numbers ---- */

static uint64_t get_number(const uint8_t *from, int size)
{
    uint64_t value = 0;
    for (int i = size - 1; i >= 0; i--) value = value << 8 | from[i];
    return value;
}

static void put_number(uint8_t *to, uint64_t value, int size)
{
    for (int i = 0; i < size; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static void append_number(mir_bytes *bytes, uint64_t value, int size)
{
    uint8_t text[8];
    put_number(text, value, size);
    mir_bytes_append(bytes, text, (size_t)size);
}

/* ---- The table ---- */

static mir_device_journal_entry *entry_at(const mir_device_journal *journal, size_t number)
{
    return &journal->entries[(journal->first + number) % journal->capacity];
}

static mir_device_journal_entry *find(const mir_device_journal *journal, const char *id)
{
    uint64_t hash = mir_hash_bytes(id, strlen(id));
    for (size_t i = journal->count; i-- > 0;) {
        mir_device_journal_entry *entry = entry_at(journal, i);
        if (entry->hash == hash && strcmp(entry->id, id) == 0) return entry;
    }
    return NULL;
}

void mir_device_answer_free(mir_device_answer *answer)
{
    free(answer->name);
    mir_bytes_free(&answer->bytes);
    *answer = (mir_device_answer){0};
}

MIR_MUST_CHECK static mir_status copy_answer(mir_device_answer *to, const char *name,
                                             mir_view bytes)
{
    mir_device_answer copy = {.name = strdup(name)};
    mir_bytes_view(&copy.bytes, bytes);
    if (copy.name == NULL || !mir_bytes_ok(&copy.bytes)) {
        mir_device_answer_free(&copy);
        return MIR_E_NO_MEMORY;
    }
    *to = copy;
    return MIR_OK;
}

static size_t answer_size(const mir_device_journal_entry *entry)
{
    return entry->answer.name == NULL ? 0 : strlen(entry->answer.name) + entry->answer.bytes.size;
}

static uint64_t record_size(const mir_device_journal_entry *entry)
{
    uint64_t size = RECORD_HEADER_BYTES + 2 + strlen(entry->id);
    return entry->state == MIR_DEVICE_ANSWERED ? size + 2 + answer_size(entry) : size;
}

static void forget_answer(mir_device_journal *journal, mir_device_journal_entry *entry)
{
    journal->live_size -= record_size(entry);
    journal->answer_bytes -= answer_size(entry);
    mir_device_answer_free(&entry->answer);
    entry->state = MIR_DEVICE_UNKNOWN;
    journal->live_size += record_size(entry);
}

static void free_waiters(mir_device_waiter *waiter)
{
    while (waiter != NULL) {
        mir_device_waiter *next = waiter->next;
        free(waiter);
        waiter = next;
    }
}

/* The oldest or the newest. */
static void remove_entry(mir_device_journal *journal, size_t number)
{
    mir_device_journal_entry *gone = entry_at(journal, number);
    journal->live_size -= record_size(gone);
    journal->answer_bytes -= answer_size(gone);
    mir_device_answer_free(&gone->answer);
    free_waiters(gone->waiters);
    if (number == 0 && journal->count > 1)
        journal->first = (journal->first + 1) % journal->capacity;
    journal->count--;
}

/* Of a full table. What still runs is not forgotten but becomes the newest, in the file as well:
 * who reads that forgets the oldest, too. */
MIR_MUST_CHECK static mir_status forget_oldest(mir_device_journal *journal)
{
    for (size_t i = 0; i < journal->count; i++) {
        if (entry_at(journal, 0)->state != MIR_DEVICE_RUNNING) {
            remove_entry(journal, 0);
            return MIR_OK;
        }
        journal->first = (journal->first + 1) % journal->capacity;
        journal->outdated = true;
    }
    return MIR_E_FULL;
}

MIR_MUST_CHECK static mir_status add_entry(mir_device_journal *journal, const char *id,
                                           mir_device_verdict state)
{
    if (journal->count == MIR_DEVICE_JOURNAL_IDS_MAX) {
        mir_status status = forget_oldest(journal);
        if (status != MIR_OK) return status;
    }
    if (journal->count == journal->capacity) {
        /* The ring begins at 0 as long as it grows: only a full one loses its oldest. */
        size_t capacity = journal->capacity == 0 ? 16 : 2 * journal->capacity;
        mir_device_journal_entry *entries =
            realloc(journal->entries, capacity * sizeof *journal->entries);
        if (entries == NULL) return MIR_E_NO_MEMORY;
        journal->entries = entries;
        journal->capacity = capacity;
    }
    mir_device_journal_entry *entry = entry_at(journal, journal->count++);
    *entry = (mir_device_journal_entry){.state = state, .hash = mir_hash_bytes(id, strlen(id))};
    (void)snprintf(entry->id, sizeof entry->id, "%s", id);
    journal->live_size += record_size(entry);
    return MIR_OK;
}

/* Makes the entry answered, or unknown if the answer cannot be kept: none, or too large. */
MIR_MUST_CHECK static mir_status keep_answer(mir_device_journal *journal,
                                             mir_device_journal_entry *entry, const char *name,
                                             mir_view bytes)
{
    size_t size = strlen(name) + bytes.size;
    if (entry->state == MIR_DEVICE_ANSWERED) forget_answer(journal, entry);
    entry->state = MIR_DEVICE_UNKNOWN; /* of the same size on the disk as one that runs */
    if (name[0] == '\0' || strlen(name) > MIR_DEVICE_JOURNAL_NAME_BYTES_MAX ||
        bytes.size > MIR_DEVICE_JOURNAL_ANSWER_BYTES_MAX)
        return MIR_E_TOO_LARGE;
    mir_device_answer answer;
    mir_status status = copy_answer(&answer, name, bytes);
    if (status != MIR_OK) return status;
    for (size_t i = 0; journal->answer_bytes + size > MIR_DEVICE_JOURNAL_ANSWERS_BYTES_MAX; i++)
        if (entry_at(journal, i)->state == MIR_DEVICE_ANSWERED)
            forget_answer(journal, entry_at(journal, i));
    journal->live_size -= record_size(entry);
    entry->answer = answer;
    entry->state = MIR_DEVICE_ANSWERED;
    journal->answer_bytes += size;
    journal->live_size += record_size(entry);
    return MIR_OK;
}

mir_status mir_device_journal_check_id(const char *id)
{
    size_t size = strnlen(id, MIR_DEVICE_COMMAND_ID_BYTES_MAX + 1);
    if (size == 0 || size > MIR_DEVICE_COMMAND_ID_BYTES_MAX) return MIR_E_INVALID;
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)id[i] <= ' ' || id[i] == 0x7f) return MIR_E_INVALID;
    return MIR_OK;
}

/* ---- Records ---- */

static void write_record(mir_bytes *to, uint64_t seed, const mir_device_journal_entry *entry)
{
    size_t size = (size_t)record_size(entry) - RECORD_HEADER_BYTES;
    mir_bytes_append(to, record_magic, sizeof record_magic);
    append_number(to, size, 4);
    append_number(to, 0, 8);
    bool answered = entry->state == MIR_DEVICE_ANSWERED;
    mir_bytes_u8(to, answered ? ANSWER : BEGUN);
    mir_bytes_u8(to, (uint8_t)strlen(entry->id));
    mir_bytes_text(to, entry->id);
    if (answered) {
        append_number(to, strlen(entry->answer.name), 2);
        mir_bytes_text(to, entry->answer.name);
        mir_bytes_view(to, mir_bytes_as_view(&entry->answer.bytes));
    }
    if (!mir_bytes_ok(to)) return;
    const uint8_t *payload = to->data + to->size - size;
    put_number(to->data + to->size - size - 8, XXH3_64bits_withSeed(payload, size, seed + size), 8);
}

static void write_header(mir_bytes *to, uint64_t seed)
{
    uint8_t header[HEADER_BYTES] = {0};
    memcpy(header, file_magic, sizeof file_magic);
    put_number(header + 8, VERSION, 4);
    put_number(header + 16, seed, 8);
    put_number(header + HEADER_CHECKED, mir_hash_fixed(header, HEADER_CHECKED), 8);
    mir_bytes_append(to, header, sizeof header);
}

void mir_device_journal_write(const mir_device_journal *journal, mir_bytes *file)
{
    write_header(file, journal->seed);
    for (size_t i = 0; i < journal->count; i++)
        write_record(file, journal->seed, entry_at(journal, i));
}

/* The payload of the record that the bytes begin with; false for anything else. */
static bool next_record(mir_view bytes, uint64_t seed, mir_view *payload)
{
    if (bytes.size < RECORD_HEADER_BYTES ||
        memcmp(bytes.data, record_magic, sizeof record_magic) != 0)
        return false;
    uint64_t size = get_number(bytes.data + 4, 4);
    if (size > PAYLOAD_BYTES_MAX || size > bytes.size - RECORD_HEADER_BYTES) return false;
    *payload = mir_view_of(bytes.data + RECORD_HEADER_BYTES, (size_t)size);
    return get_number(bytes.data + 8, 8) ==
           XXH3_64bits_withSeed(payload->data, payload->size, seed + size);
}

/* A text of `size` bytes at the front, without zero bytes. */
static bool take_text(mir_view *rest, size_t size, char *text)
{
    if (size > rest->size || (size > 0 && memchr(rest->data, '\0', size) != NULL)) return false;
    if (size > 0) memcpy(text, rest->data, size);
    text[size] = '\0';
    *rest = mir_view_from(*rest, size);
    return true;
}

/* MIR_E_CORRUPT: a record that no version writes. */
MIR_MUST_CHECK static mir_status take_in(mir_device_journal *journal, mir_view payload)
{
    if (payload.size < 2) return MIR_E_CORRUPT;
    uint8_t kind = payload.data[0];
    size_t id_size = payload.data[1];
    char id[MIR_DEVICE_COMMAND_ID_BYTES_MAX + 1];
    mir_view rest = mir_view_from(payload, 2);
    if ((kind != BEGUN && kind != ANSWER) || id_size > MIR_DEVICE_COMMAND_ID_BYTES_MAX ||
        !take_text(&rest, id_size, id) || mir_device_journal_check_id(id) != MIR_OK)
        return MIR_E_CORRUPT;
    char name[MIR_DEVICE_JOURNAL_NAME_BYTES_MAX + 1];
    if (kind == ANSWER) {
        if (rest.size < 2) return MIR_E_CORRUPT;
        size_t name_size = (size_t)get_number(rest.data, 2);
        rest = mir_view_from(rest, 2);
        if (name_size == 0 || name_size > MIR_DEVICE_JOURNAL_NAME_BYTES_MAX ||
            !take_text(&rest, name_size, name) || rest.size > MIR_DEVICE_JOURNAL_ANSWER_BYTES_MAX)
            return MIR_E_CORRUPT;
    } else if (rest.size != 0) {
        return MIR_E_CORRUPT;
    }
    mir_device_journal_entry *entry = find(journal, id);
    if (entry == NULL) {
        mir_status status = add_entry(journal, id, MIR_DEVICE_UNKNOWN);
        if (status != MIR_OK) return status;
        entry = entry_at(journal, journal->count - 1);
    }
    return kind == ANSWER ? keep_answer(journal, entry, name, rest) : MIR_OK;
}

mir_status mir_device_journal_read(mir_device_journal *journal, mir_view file, mir_error *error)
{
    if (file.size < HEADER_BYTES || memcmp(file.data, file_magic, sizeof file_magic) != 0)
        return mir_error_set(error, MIR_E_CORRUPT, "this is no journal of commands");
    if (get_number(file.data + 8, 4) != VERSION)
        return mir_error_set(error, MIR_E_UNSUPPORTED, "version %u is not known to this program",
                             (unsigned)get_number(file.data + 8, 4));
    if (get_number(file.data + HEADER_CHECKED, 8) != mir_hash_fixed(file.data, HEADER_CHECKED))
        return mir_error_set(error, MIR_E_CORRUPT, "the header fails its checksum");
    journal->seed = get_number(file.data + 16, 8);
    mir_view rest = mir_view_from(file, HEADER_BYTES);
    while (rest.size > 0) {
        mir_view payload;
        mir_status status = MIR_E_CORRUPT;
        if (next_record(rest, journal->seed, &payload)) status = take_in(journal, payload);
        if (status == MIR_OK) {
            rest = mir_view_from(rest, RECORD_HEADER_BYTES + payload.size);
            continue;
        }
        if (status != MIR_E_CORRUPT)
            return mir_error_set(error, status, "read: %s", mir_status_name(status));
        /* A torn end, most likely. Should there be more behind it, an id that is not taken in
         * could run again: look for the next record at every byte. */
        const uint8_t *next =
            memmem(rest.data + 1, rest.size - 1, record_magic, sizeof record_magic);
        size_t skipped = next == NULL ? rest.size : (size_t)(next - rest.data);
        journal->damaged += skipped;
        rest = mir_view_from(rest, skipped);
    }
    return MIR_OK;
}

/* ---- The disk ---- */

MIR_MUST_CHECK static mir_status path_of(const mir_device_journal *journal, const char *name,
                                         char *path, mir_error *error)
{
    int size = snprintf(path, PATH_MAX, "%s/%s", journal->dir, name);
    if (size < 0 || size >= PATH_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "the path of the state directory is too long");
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status sync_dir(const char *path, mir_error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return mir_error_os(error, errno, "open %.300s", path);
    mir_status status = MIR_OK;
    if (fsync(fd) != 0) status = mir_error_os(error, errno, "sync %.300s", path);
    (void)close(fd);
    return status;
}

/* Every folder of the path that is missing; each is in its parent for good before the next. */
MIR_MUST_CHECK static mir_status make_dirs(char *path, mir_error *error)
{
    for (char *at = path + 1;; at++) {
        if (*at != '/' && *at != '\0') continue;
        char end = *at;
        *at = '\0';
        mir_status status = MIR_OK;
        if (mkdir(path, 0700) == 0) {
            char *slash = strrchr(path, '/');
            if (slash != NULL && slash != path) {
                *slash = '\0';
                status = sync_dir(path, error);
                *slash = '/';
            } else {
                status = sync_dir(slash == NULL ? "." : "/", error);
            }
        } else if (errno != EEXIST) {
            status = mir_error_os(error, errno, "make %.300s", path);
        }
        *at = end;
        if (status != MIR_OK || end == '\0') return status;
    }
}

MIR_MUST_CHECK static mir_status write_all(int fd, mir_view bytes, uint64_t offset,
                                           mir_error *error)
{
    while (bytes.size > 0) {
        ssize_t done = pwrite(fd, bytes.data, bytes.size, (off_t)offset);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return mir_error_os(error, errno, "write the journal of commands");
        if (done == 0) return mir_error_set(error, MIR_E_IO, "write the journal of commands");
        offset += (uint64_t)done;
        bytes = mir_view_from(bytes, (size_t)done);
    }
    return MIR_OK;
}

/* Replaces the file by one that says what the table says. */
MIR_MUST_CHECK static mir_status rewrite(mir_device_journal *journal, mir_error *error)
{
    char path[PATH_MAX];
    char new_path[PATH_MAX];
    mir_status status = path_of(journal, "commands", path, error);
    if (status == MIR_OK) status = path_of(journal, "commands.tmp", new_path, error);
    if (status != MIR_OK) return status;
    mir_bytes file = {0};
    mir_device_journal_write(journal, &file);
    if (!mir_bytes_ok(&file)) {
        mir_bytes_free(&file);
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    journal->outdated = true; /* until all of it has been done */
    int fd = open(new_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) status = mir_error_os(error, errno, "open %.300s", new_path);
    if (status == MIR_OK) status = write_all(fd, mir_bytes_as_view(&file), 0, error);
    if (status == MIR_OK && fdatasync(fd) != 0)
        status = mir_error_os(error, errno, "sync %.300s", new_path);
    if (status == MIR_OK && rename(new_path, path) != 0)
        status = mir_error_os(error, errno, "rename %.300s", new_path);
    if (status == MIR_OK) status = sync_dir(journal->dir, error);
    if (status == MIR_OK) {
        if (journal->fd >= 0) (void)close(journal->fd);
        journal->fd = fd;
        fd = -1;
        journal->file_size = journal->live_size = file.size;
        journal->outdated = false;
    }
    if (fd >= 0) (void)close(fd);
    mir_bytes_free(&file);
    return status;
}

/* On the disk, and not only on its way there, when this returns MIR_OK. */
MIR_MUST_CHECK static mir_status record(mir_device_journal *journal,
                                        const mir_device_journal_entry *entry, mir_error *error)
{
    if (journal->dir == NULL) return MIR_OK;
    if (journal->outdated ||
        (journal->file_size > REWRITE_BYTES_MIN && journal->file_size / 2 > journal->live_size))
        return rewrite(journal, error);
    mir_bytes bytes = {0};
    write_record(&bytes, journal->seed, entry);
    mir_status status = MIR_OK;
    if (!mir_bytes_ok(&bytes)) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    } else {
        journal->outdated = true;
        status = write_all(journal->fd, mir_bytes_as_view(&bytes), journal->file_size, error);
        if (status == MIR_OK && fdatasync(journal->fd) != 0)
            status = mir_error_os(error, errno, "sync the journal of commands");
        if (status == MIR_OK) {
            journal->file_size += bytes.size;
            journal->outdated = false;
        }
    }
    mir_bytes_free(&bytes);
    return status;
}

MIR_MUST_CHECK static mir_status read_file(mir_device_journal *journal, mir_error *error)
{
    char path[PATH_MAX];
    mir_status status = path_of(journal, "commands", path, error);
    if (status != MIR_OK) return status;
    journal->fd = open(path, O_RDWR | O_CLOEXEC);
    if (journal->fd < 0 && errno == ENOENT) return rewrite(journal, error); /* the first time */
    if (journal->fd < 0) return mir_error_os(error, errno, "open %.300s", path);
    struct stat about;
    if (fstat(journal->fd, &about) != 0) return mir_error_os(error, errno, "size of %.300s", path);
    if (about.st_size > MIR_DEVICE_JOURNAL_FILE_BYTES_MAX)
        return mir_error_set(error, MIR_E_CORRUPT, "%.300s has over %d bytes", path,
                             MIR_DEVICE_JOURNAL_FILE_BYTES_MAX);
    mir_bytes file = {0};
    uint8_t *to = mir_bytes_reserve(&file, (size_t)about.st_size + 1);
    if (to == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    while (file.size < (size_t)about.st_size) {
        ssize_t got = pread(journal->fd, file.data + file.size, (size_t)about.st_size - file.size,
                            (off_t)file.size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = mir_error_os(error, errno, "read %.300s", path);
        if (got <= 0) break;
        file.size += (size_t)got;
    }
    if (status == MIR_OK) {
        mir_error why;
        status = mir_device_journal_read(journal, mir_bytes_as_view(&file), &why);
        if (status != MIR_OK)
            (void)mir_error_set(error, status,
                                "%.300s: %s. Moved away, the device starts without knowing which "
                                "commands it ran",
                                path, why.text);
    }
    journal->file_size = file.size;
    mir_bytes_free(&file);
    /* What is appended behind bytes that make no sense might not be found. */
    return status == MIR_OK && journal->damaged > 0 ? rewrite(journal, error) : status;
}

/* A name for a folder: as it is, but for what a path would take for something else. */
MIR_MUST_CHECK static mir_status folder_of(const char *state_dir, const char *device_id,
                                           char **path, mir_error *error)
{
    mir_bytes text = {0};
    mir_bytes_printf(&text, "%s/", state_dir);
    size_t start = text.size;
    for (const char *c = device_id; *c != '\0'; c++) {
        if (strchr("/%.", *c) != NULL)
            mir_bytes_printf(&text, "%%%02X", (unsigned)(unsigned char)*c);
        else
            mir_bytes_u8(&text, (uint8_t)*c);
    }
    mir_bytes_u8(&text, '\0');
    if (!mir_bytes_ok(&text)) {
        mir_bytes_free(&text);
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    if (text.size - start - 1 > NAME_MAX || text.size + sizeof "/commands.tmp" > PATH_MAX) {
        mir_bytes_free(&text);
        return mir_error_set(error, MIR_E_TOO_LARGE, "the path of the state directory is too long");
    }
    *path = (char *)text.data;
    return MIR_OK;
}

/* Held as long as the process lives: two that run under one id would not see each other's. */
MIR_MUST_CHECK static mir_status take_lock(mir_device_journal *journal, mir_error *error)
{
    char path[PATH_MAX];
    mir_status status = path_of(journal, "lock", path, error);
    if (status != MIR_OK) return status;
    journal->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (journal->lock_fd < 0) return mir_error_os(error, errno, "open %.300s", path);
    if (flock(journal->lock_fd, LOCK_EX | LOCK_NB) == 0) return MIR_OK;
    if (errno == EWOULDBLOCK)
        return mir_error_set(error, MIR_E_EXISTS,
                             "the state directory %.300s is used by another process", journal->dir);
    return mir_error_os(error, errno, "lock %.300s", path);
}

void mir_device_journal_init(mir_device_journal *journal)
{
    *journal = (mir_device_journal){
        .lock = PTHREAD_MUTEX_INITIALIZER, .lock_fd = -1, .fd = -1, .live_size = HEADER_BYTES};
}

mir_status mir_device_journal_open(mir_device_journal *journal, const char *state_dir,
                                   const char *device_id, mir_error *error)
{
    if (state_dir == NULL) return MIR_OK;
    mir_status status = MIR_OK;
    if (getrandom(&journal->seed, sizeof journal->seed, 0) != sizeof journal->seed)
        status = mir_error_os(error, errno, "random bytes");
    if (status == MIR_OK) status = folder_of(state_dir, device_id, &journal->dir, error);
    if (status == MIR_OK) status = make_dirs(journal->dir, error);
    if (status == MIR_OK) status = take_lock(journal, error);
    if (status == MIR_OK) status = read_file(journal, error);
    if (status != MIR_OK) mir_device_journal_close(journal);
    return status;
}

void mir_device_journal_close(mir_device_journal *journal)
{
    for (size_t i = 0; i < journal->count; i++) {
        mir_device_answer_free(&entry_at(journal, i)->answer);
        free_waiters(entry_at(journal, i)->waiters);
    }
    free(journal->entries);
    free(journal->dir);
    if (journal->fd >= 0) (void)close(journal->fd);
    if (journal->lock_fd >= 0) (void)close(journal->lock_fd);
    mir_device_journal_init(journal);
}

/* ---- Commands ---- */

static mir_status add_waiter(mir_device_journal_entry *entry, const char *to, bool zstd)
{
    if (to == NULL) return MIR_OK;
    mir_device_waiter **end = &entry->waiters;
    for (int count = 0; *end != NULL; end = &(*end)->next)
        if (++count == MIR_DEVICE_JOURNAL_WAITERS_MAX) return MIR_E_FULL;
    mir_device_waiter *waiter = malloc(sizeof *waiter + strlen(to) + 1);
    if (waiter == NULL) return MIR_E_NO_MEMORY;
    waiter->next = NULL;
    waiter->zstd = zstd;
    memcpy(waiter->to, to, strlen(to) + 1);
    *end = waiter;
    return MIR_OK;
}

static mir_status begin(mir_device_journal *journal, const char *id, const char *to, bool zstd,
                        mir_device_verdict *verdict, mir_device_answer *answer, mir_error *error)
{
    mir_device_journal_entry *entry = find(journal, id);
    mir_status status = MIR_OK;
    if (entry != NULL) {
        if (entry->state == MIR_DEVICE_RUNNING) status = add_waiter(entry, to, zstd);
        if (entry->state == MIR_DEVICE_ANSWERED)
            status =
                copy_answer(answer, entry->answer.name, mir_bytes_as_view(&entry->answer.bytes));
        *verdict = entry->state;
    } else {
        status = add_entry(journal, id, MIR_DEVICE_RUNNING);
        *verdict = MIR_DEVICE_RUN;
        if (status == MIR_OK) {
            status = record(journal, entry_at(journal, journal->count - 1), error);
            if (status != MIR_OK) remove_entry(journal, journal->count - 1);
            return status;
        }
    }
    return status == MIR_OK ? MIR_OK : mir_error_set(error, status, "%s", mir_status_name(status));
}

mir_status mir_device_journal_begin(mir_device_journal *journal, const char *id, const char *to,
                                    bool zstd, mir_device_verdict *verdict,
                                    mir_device_answer *answer, mir_error *error)
{
    (void)pthread_mutex_lock(&journal->lock);
    mir_status status = begin(journal, id, to, zstd, verdict, answer, error);
    (void)pthread_mutex_unlock(&journal->lock);
    return status;
}

mir_status mir_device_journal_finish(mir_device_journal *journal, const char *id, const char *name,
                                     mir_view bytes, mir_device_waiter **waiters, mir_error *error)
{
    *waiters = NULL;
    (void)pthread_mutex_lock(&journal->lock);
    mir_device_journal_entry *entry = find(journal, id);
    mir_status status = MIR_E_NOT_FOUND;
    if (entry != NULL && entry->state == MIR_DEVICE_RUNNING) {
        *waiters = entry->waiters;
        entry->waiters = NULL;
        status = keep_answer(journal, entry, name, bytes);
    }
    if (status != MIR_OK)
        (void)mir_error_set(error, status, "keep the answer: %s", mir_status_name(status));
    else
        status = record(journal, entry, error);
    (void)pthread_mutex_unlock(&journal->lock);
    return status;
}
