/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_storage_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mir_hash.h"

/* The list of a backup: text, so that a person can read what there is, with a checksum at its end. */

enum { MARKER_VERSION = 1, MARKER_BYTES_MAX = 256 << 20, HASH_DIGITS = 16 };

void mir_storage_marker_fini(mir_storage_marker *marker)
{
    free(marker->entries);
    *marker = (mir_storage_marker){0};
}

void mir_storage_marker_format(const mir_storage_marker *marker, mir_bytes *text)
{
    mir_bytes_printf(text, "mir backup %d\nat %" PRId64 "\n", MARKER_VERSION, marker->at_ns);
    for (uint32_t i = 0; i < marker->count; i++) {
        const mir_storage_entry *entry = &marker->entries[i];
        mir_bytes_printf(text, "file %s %" PRIu64 " ", entry->name, entry->size);
        if (entry->hashed)
            mir_bytes_printf(text, "%016" PRIx64 "\n", entry->hash);
        else
            mir_bytes_text(text, "-\n");
    }
    if (mir_bytes_ok(text))
        mir_bytes_printf(text, "end %016" PRIx64 "\n", mir_hash_fixed(text->data, text->size));
}

mir_status mir_storage_marker_add(mir_storage_marker *marker, const mir_storage_entry *entry)
{
    if ((marker->count & (marker->count - 1)) == 0) { /* full at each power of two */
        const size_t room = marker->count == 0 ? 1 : marker->count * (size_t)2;
        mir_storage_entry *more = realloc(marker->entries, room * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        marker->entries = more;
    }
    marker->entries[marker->count++] = *entry;
    marker->bytes += entry->size;
    return MIR_OK;
}

/* ---- Reading; each take leaves the rest, and takes nothing that does not fit ---- */

static bool word_take(mir_view *rest, const char *word)
{
    const mir_view wanted = mir_view_cstr(word);
    if (!mir_view_starts(*rest, wanted)) return false;
    *rest = mir_view_from(*rest, wanted.size);
    return true;
}

static bool number_take(mir_view *rest, uint64_t *number)
{
    uint64_t made = 0;
    size_t size = 0;
    for (; size < rest->size && rest->data[size] >= '0' && rest->data[size] <= '9'; size++) {
        const uint64_t digit = rest->data[size] - (uint64_t)'0';
        if (made > (UINT64_MAX - digit) / 10) return false;
        made = made * 10 + digit;
    }
    if (size == 0) return false;
    *rest = mir_view_from(*rest, size);
    *number = made;
    return true;
}

static bool hash_take(mir_view *rest, uint64_t *hash)
{
    uint64_t made = 0;
    if (rest->size < HASH_DIGITS) return false;
    for (size_t i = 0; i < HASH_DIGITS; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = memchr(digits, rest->data[i], sizeof digits - 1);
        if (digit == NULL) return false;
        made = made << 4 | (uint64_t)(digit - digits);
    }
    *rest = mir_view_from(*rest, HASH_DIGITS);
    *hash = made;
    return true;
}

/* Only what a backup has: a name never leads out of it. */
static bool name_take(mir_view *rest, char *name)
{
    mir_view all = *rest;
    if (!word_take(&all, "telemetry/") && !word_take(&all, "state/")) return false;
    if (all.size == 0 || all.data[0] == '.') return false;
    const size_t folder = rest->size - all.size;
    size_t size = 0;
    for (; size < all.size && all.data[size] != ' '; size++) {
        const uint8_t at = all.data[size];
        const bool fits = (at >= '0' && at <= '9') || (at >= 'a' && at <= 'z') ||
                          (at >= 'A' && at <= 'Z') || at == '.' || at == '-' || at == '_';
        if (!fits) return false;
    }
    if (size == 0 || folder + size >= MIR_STORAGE_NAME_BYTES_MAX) return false;
    memcpy(name, rest->data, folder + size);
    name[folder + size] = '\0';
    *rest = mir_view_from(all, size);
    return true;
}

static bool entry_take(mir_view *rest, mir_storage_entry *entry)
{
    *entry = (mir_storage_entry){0};
    if (!word_take(rest, "file ") || !name_take(rest, entry->name) || !word_take(rest, " ") ||
        !number_take(rest, &entry->size) || !word_take(rest, " "))
        return false;
    entry->hashed = !word_take(rest, "-");
    return (!entry->hashed || hash_take(rest, &entry->hash)) && word_take(rest, "\n");
}

/* Takes the last line off, whose checksum covers what is before it. */
static bool end_take(mir_view *text)
{
    enum { END_BYTES = 4 + HASH_DIGITS + 1 };
    uint64_t sum;
    if (text->size < END_BYTES) return false;
    const mir_view lines = mir_view_of(text->data, text->size - END_BYTES);
    mir_view last = mir_view_from(*text, lines.size);
    if (!word_take(&last, "end ") || !hash_take(&last, &sum) || !word_take(&last, "\n") ||
        sum != mir_hash_fixed(lines.data, lines.size))
        return false;
    *text = lines;
    return true;
}

mir_status mir_storage_marker_parse(mir_view text, mir_storage_marker *marker, mir_error *error)
{
    mir_storage_marker made = {0};
    mir_view rest = text;
    uint64_t version = 0;
    uint64_t at = 0;
    if (!end_take(&rest) || !word_take(&rest, "mir backup ") || !number_take(&rest, &version) ||
        !word_take(&rest, "\n"))
        return mir_error_set(error, MIR_E_CORRUPT, "the list of the backup is damaged");
    if (version != MARKER_VERSION)
        return mir_error_set(error, MIR_E_UNSUPPORTED,
                             "the backup has format version %" PRIu64
                             ", this program reads version %d: use the newer mir that made it",
                             version, MARKER_VERSION);
    bool whole = word_take(&rest, "at ");
    const bool before_1970 = whole && word_take(&rest, "-");
    whole = whole && number_take(&rest, &at) && word_take(&rest, "\n") && at <= INT64_MAX;
    made.at_ns = before_1970 ? -(int64_t)at : (int64_t)at;
    mir_status status = MIR_OK;
    while (whole && rest.size > 0 && status == MIR_OK) {
        mir_storage_entry entry;
        whole = entry_take(&rest, &entry) && entry.size <= UINT64_MAX - made.bytes;
        if (whole) status = mir_storage_marker_add(&made, &entry);
    }
    if (status == MIR_OK && whole) {
        *marker = made;
        return MIR_OK;
    }
    mir_storage_marker_fini(&made);
    return status != MIR_OK
               ? mir_error_set(error, status, "out of memory")
               : mir_error_set(error, MIR_E_CORRUPT, "the list of the backup is damaged");
}

mir_status mir_storage_marker_read(const char *backup, mir_storage_marker *marker, mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_storage_path(path, backup, MIR_STORAGE_MARKER, error);
    if (status != MIR_OK) return status;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mir_error_os(error, errno, "cannot open %s", path);
    struct stat about;
    if (fstat(fd, &about) != 0 || about.st_size > MARKER_BYTES_MAX) {
        (void)close(fd);
        return mir_error_set(error, MIR_E_CORRUPT, "%s is no list of a backup", path);
    }
    uint8_t *bytes = malloc((size_t)about.st_size + 1);
    if (bytes == NULL) {
        (void)close(fd);
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    const int result =
        mir_tlog_file_read(&mir_tlog_files_posix, fd, bytes, (size_t)about.st_size, 0);
    (void)close(fd);
    status = result < 0 ? mir_error_os(error, -result, "cannot read %s", path)
                        : mir_storage_marker_parse(mir_view_of(bytes, (size_t)about.st_size),
                                                   marker, error);
    free(bytes);
    return status;
}
