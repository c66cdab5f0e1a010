/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_mend.h"

#include <errno.h>
#include <stdlib.h>
#include <zstd.h>

#include "mir_hash.h"
#include "mir_tlog_log.h"

/* What a search may cost whatever is in the file: a whole segment's frames have far fewer blocks. */
enum { BLOCKS_MAX = 1 << 24, TRIED_BYTES_MAX = 1 << 30 };

enum { EDGE_BYTES = 64 }; /* header and trailer of a segment, and a copy of a log's header */

static const uint8_t header_magic[8] = {'M', 'I', 'R', 'T', 'S', 'E', 'G', 0};
static const uint8_t trailer_magic[8] = {'M', 'I', 'R', 'T', 'E', 'N', 'D', 0};

/* ---- The file as it should be: its first and last bytes come from memory ---- */

static int overlay_open(void *context, const char *path, int *handle)
{
    const mir_tlog_mend *mend = context;
    return mend->below->open(mend->below->context, path, handle);
}

static int overlay_close(void *context, int handle)
{
    const mir_tlog_mend *mend = context;
    return mend->below->close(mend->below->context, handle);
}

static int overlay_size(void *context, int handle, uint64_t *size)
{
    const mir_tlog_mend *mend = context;
    (void)handle;
    *size = mend->size;
    return 0;
}

static void overlay_copy(uint8_t *to, size_t size, uint64_t offset, const uint8_t *edge,
                         size_t edge_size, uint64_t edge_at)
{
    const uint64_t from = offset > edge_at ? offset : edge_at;
    const uint64_t end = offset + size < edge_at + edge_size ? offset + size : edge_at + edge_size;
    if (from < end) memcpy(to + (from - offset), edge + (from - edge_at), (size_t)(end - from));
}

static int64_t overlay_pread(void *context, int handle, void *data, size_t size, uint64_t offset)
{
    const mir_tlog_mend *mend = context;
    if (offset >= mend->size) return 0;
    if (size > mend->size - offset) size = (size_t)(mend->size - offset);
    if (offset + size <= EDGE_BYTES) { /* the disk may be unable to read it */
        memcpy(data, mend->header + offset, size);
        return (int64_t)size;
    }
    const uint64_t trailer_at = mend->size - EDGE_BYTES;
    const uint64_t made_at = trailer_at - mend->footer_size;
    size_t below = size; /* the file may end before what is made */
    if (offset + size > made_at) below = offset < made_at ? (size_t)(made_at - offset) : 0;
    int64_t count = 0;
    if (below > 0) {
        count = mend->below->pread(mend->below->context, handle, data, below, offset);
        if (count < 0) return count;
        /* What a file that was cut off has lost is read as zeros, of which no checksum is right. */
        if ((size_t)count < below && mend->footer_size > 0)
            memset((uint8_t *)data + count, 0, below - (size_t)count);
        else if ((size_t)count < below)
            size = (size_t)count;
    }
    overlay_copy(data, size, offset, mend->header, EDGE_BYTES, 0);
    overlay_copy(data, size, offset, mend->footer, mend->footer_size, made_at);
    overlay_copy(data, size, offset, mend->trailer, EDGE_BYTES, trailer_at);
    return (int64_t)size;
}

/* ---- Header and trailer ---- */

static bool edge_whole(const uint8_t *edge, const uint8_t *magic, size_t magic_at)
{
    return memcmp(edge + magic_at, magic, 8) == 0 &&
           mir_tlog_get_u64(edge + 56) == mir_hash_fixed(edge, 56);
}

/* What can be wrong with a header is its version above all: chunks are found by it. Made again, one of
 * the versions may be proved by the checksum that was there; false: none is. */
static bool header_make(mir_tlog_mend *mend, uint64_t id)
{
    const uint64_t sum = mir_tlog_get_u64(mend->header + 56);
    mend->header_made = true;
    memcpy(mend->header, header_magic, sizeof header_magic);
    (void)mir_tlog_put_u32(mend->header + 12, 0);
    (void)mir_tlog_put_u64(mend->header + 16, id);
    memset(mend->header + 40, 0, 16);
    for (uint32_t version = 1; version <= MIR_TLOG_SEGMENT_VERSION; version++) {
        (void)mir_tlog_put_u32(mend->header + 8, version);
        if (mir_hash_fixed(mend->header, 56) == sum) return true;
    }
    memset(mend->header + 24, 0, 16);
    (void)mir_tlog_put_u64(mend->header + 56, mir_hash_fixed(mend->header, 56));
    return false;
}

/* Whether the index, read as one of that version's, has of each shape the rows that the footer says. */
static mir_status version_try(mir_tlog_segment *segment, uint32_t version, mir_tlog_codec *codec)
{
    uint64_t *rows = calloc((size_t)segment->shape_count + 1, sizeof *rows);
    if (rows == NULL) return MIR_E_NO_MEMORY;
    mir_tlog_index_cursor cursor = {.segment = segment};
    mir_status status = MIR_OK;
    segment->version = version;
    while (status == MIR_OK) {
        status = mir_tlog_index_next(&cursor, codec);
        for (uint32_t i = 0; status == MIR_OK && i < cursor.chunk_count; i++)
            rows[cursor.chunks[i].shape] += cursor.chunks[i].rows;
    }
    mir_tlog_index_fini(&cursor);
    if (status == MIR_E_EMPTY) status = MIR_OK;
    for (uint32_t i = 0; status == MIR_OK && i < segment->shape_count; i++)
        if (rows[i] != segment->shapes[i].rows) status = MIR_E_CORRUPT;
    free(rows);
    return status;
}

/* The version of a segment whose header does not tell. To take one of version 1 for a later one, or the
 * other way round, would give its chunks the columns of others; the later ones are read alike. */
static mir_status version_find(mir_tlog_mend *mend, mir_tlog_codec *codec)
{
    const bool twice =
        mend->footer != NULL || (!mend->trailer_made && mend->segment->has_spare_footer);
    if (twice) return MIR_OK; /* those before had no second footer */
    mir_status status = version_try(mend->segment, MIR_TLOG_SEGMENT_VERSION, codec);
    if (status == MIR_E_CORRUPT) status = version_try(mend->segment, 1, codec);
    return status;
}

static void trailer_make(mir_tlog_mend *mend, uint64_t id, uint64_t index_offset,
                         uint64_t footer_offset, mir_view footer, uint32_t raw_size, uint64_t more)
{
    uint8_t *trailer = mend->trailer;
    memset(trailer, 0, sizeof mend->trailer);
    (void)mir_tlog_put_u64(trailer, index_offset);
    (void)mir_tlog_put_u64(trailer + 8, footer_offset);
    (void)mir_tlog_put_u32(trailer + 16, (uint32_t)footer.size);
    (void)mir_tlog_put_u32(trailer + 20, raw_size);
    (void)mir_tlog_put_u64(trailer + 24, mir_hash_fixed(footer.data, footer.size));
    (void)mir_tlog_put_u64(trailer + 32, id);
    (void)mir_tlog_put_u64(trailer + 40, more);
    memcpy(trailer + 48, trailer_magic, sizeof trailer_magic);
    (void)mir_tlog_put_u64(trailer + 56, mir_hash_fixed(trailer, 56));
    mend->size = footer_offset + footer.size + EDGE_BYTES;
    mend->trailer_made = true;
}

/* No checksum in a footer covers it: what is left of the trailer has to. */
static bool footer_proved(const mir_tlog_mend *mend, mir_view left)
{
    return (left.size >= 32 &&
            mir_tlog_get_u64(left.data + 24) == mir_tlog_get_u64(mend->trailer + 24)) ||
           (left.size == EDGE_BYTES &&
            mir_tlog_get_u64(left.data + 56) == mir_tlog_get_u64(mend->trailer + 56));
}

/* With a footer that begins there, opens the segment. Where its index begins follows from the sizes
 * of the blocks, which the footer has. */
static mir_status footer_try(mir_tlog_mend *mend, const char *path, uint64_t id,
                             uint64_t footer_offset, mir_view footer, uint32_t raw_size,
                             mir_view left, mir_tlog_codec *codec, mir_error *error)
{
    uint64_t index_offset = EDGE_BYTES;
    /* Nothing depends on its being right but what is tried where something else is damaged. */
    const uint64_t more = left.size >= 48 ? mir_tlog_get_u64(left.data + 40) : 0;
    for (int tries = 0; tries < 2; tries++) {
        trailer_make(mend, id, index_offset, footer_offset, footer, raw_size, more);
        mir_tlog_segment *segment;
        const mir_status status =
            mir_tlog_segment_open(&mend->files, path, id, codec, &segment, error);
        if (status != MIR_OK) return status;
        uint64_t blocks = 0;
        for (uint32_t i = 0; i < segment->block_count; i++) blocks += segment->blocks[i].size;
        if (index_offset + blocks == footer_offset && footer_proved(mend, left)) {
            mend->segment = segment;
            return MIR_OK;
        }
        mir_tlog_segment_release(segment);
        index_offset = footer_offset - blocks; /* the blocks end before the footer: it was parsed */
    }
    return MIR_E_CORRUPT;
}

/* What is in the file twice a damaged trailer does not tell: the head before the index does. */
static void spares_note(mir_tlog_segment *segment, uint64_t id, uint64_t size, const uint8_t *bytes,
                        size_t tail)
{
    const uint64_t begins = size - tail;
    for (int kind = 0; kind < 4; kind++) {
        const bool twice = (kind & 1) != 0;
        const uint32_t gap = (kind & 2) != 0 ? MIR_TLOG_SPARE_GAP_BYTES : 0;
        const uint64_t before = MIR_TLOG_SPARE_HEAD_BYTES + (uint64_t)segment->footer_bytes + gap +
                                (twice ? segment->index_bytes : 0);
        mir_tlog_spare spare;
        if (before > segment->index_offset || segment->index_offset - before < begins) continue;
        if (!mir_tlog_spare_read(bytes + (segment->index_offset - before - begins), id, &spare) ||
            spare.index_offset != segment->index_offset)
            continue;
        segment->has_spare_footer = true;
        segment->has_spare_index = twice;
        segment->spare_gap = gap;
    }
}

/* The bytes of the zstd frame that begins there, 0 if it is none or ends elsewhere. One may lie within
 * the other a thousand times: *blocks is what may be looked at still. RFC 8878, 3.1.1. */
static size_t frame_size(const uint8_t *bytes, size_t size, uint32_t *blocks)
{
    static const uint8_t dictionary_bytes[4] = {0, 1, 2, 4};
    static const uint8_t content_bytes[4] = {0, 2, 4, 8};
    enum { REPEATED = 1, RESERVED = 3 };
    if (size < 6) return 0;
    const uint8_t form = bytes[4];
    const bool one_segment = (form >> 5 & 1) != 0;
    size_t at = (size_t)5 + dictionary_bytes[form & 3] + content_bytes[form >> 6] +
                (!one_segment || form >> 6 == 0 ? 1 : 0);
    for (bool last = false; !last;) {
        if (*blocks == 0 || at > size || size - at < 3) return 0;
        --*blocks;
        const uint32_t head =
            bytes[at] | (uint32_t)bytes[at + 1] << 8 | (uint32_t)bytes[at + 2] << 16;
        const uint32_t kind = head >> 1 & 3;
        const uint32_t stored = kind == REPEATED ? 1 : head >> 3;
        last = (head & 1) != 0;
        at += 3;
        if (kind == RESERVED || stored > size - at) return 0;
        at += stored;
    }
    at += (form >> 2 & 1) != 0 ? 4 : 0; /* its checksum */
    return at <= size ? at : 0;
}

/* Whether so much may be unpacked and hashed still. */
static bool tried_take(uint64_t *tried, uint64_t bytes)
{
    if (*tried > TRIED_BYTES_MAX) return false;
    *tried += bytes;
    return true;
}

/* The last zstd frame that ends where a trailer could begin, or did before it was cut off. `bytes` are
 * the last `tail` of the file. */
static mir_status footer_find(mir_tlog_mend *mend, const char *path, uint64_t id, uint64_t size,
                              const uint8_t *bytes, size_t tail, mir_tlog_codec *codec)
{
    static const uint8_t frame_magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    mir_status status = MIR_E_CORRUPT;
    uint32_t blocks = BLOCKS_MAX;
    uint64_t tried = 0;
    for (size_t at = tail; status == MIR_E_CORRUPT && at-- > 0;) {
        if (tail - at < sizeof frame_magic ||
            memcmp(bytes + at, frame_magic, sizeof frame_magic) != 0)
            continue;
        const unsigned long long raw = ZSTD_getFrameContentSize(bytes + at, tail - at);
        if (raw > MIR_TLOG_FOOTER_BYTES_MAX || size - tail + at < EDGE_BYTES) continue;
        const size_t stored = frame_size(bytes + at, tail - at, &blocks);
        if (stored == 0 || tail - at - stored > EDGE_BYTES) continue;
        if (!tried_take(&tried, stored + raw)) break;
        status = footer_try(mend, path, id, size - tail + at, mir_view_of(bytes + at, stored),
                            (uint32_t)raw, mir_view_of(bytes + at + stored, tail - at - stored),
                            codec, NULL);
    }
    if (status == MIR_OK) spares_note(mend->segment, id, size, bytes, tail);
    return status;
}

/* The footer that stands before the index, put behind the end of the file in memory. */
static mir_status spare_try(mir_tlog_mend *mend, const char *path, uint64_t id, uint64_t size,
                            uint64_t spare_offset, const mir_tlog_spare *spare,
                            const uint8_t *footer, mir_tlog_codec *codec)
{
    const uint64_t spare_end = spare_offset + MIR_TLOG_SPARE_HEAD_BYTES + spare->stored;
    const uint64_t between = spare->index_offset - spare_end;
    if (spare->index_offset < spare_end || spare->index_bytes > MIR_TLOG_MEND_TAIL_BYTES_MAX)
        return MIR_E_CORRUPT;
    /* No index of that size has a gap but no second one. */
    const bool twice = between != 0 && (between == spare->index_bytes ||
                                        between == spare->index_bytes + MIR_TLOG_SPARE_GAP_BYTES);
    const uint64_t gap = between - (twice ? spare->index_bytes : 0);
    if (gap != 0 && gap != MIR_TLOG_SPARE_GAP_BYTES) return MIR_E_CORRUPT;
    mend->footer = malloc((size_t)spare->stored + 1);
    if (mend->footer == NULL) return MIR_E_NO_MEMORY;
    memcpy(mend->footer, footer, spare->stored);
    mend->footer_size = spare->stored;
    const uint64_t index_end = spare->index_offset + spare->index_bytes;
    trailer_make(mend, id, spare->index_offset, index_end > size ? index_end : size,
                 mir_view_of(footer, spare->stored), spare->raw_size, 0);
    mir_status status = mir_tlog_segment_open(&mend->files, path, id, codec, &mend->segment, NULL);
    if (status == MIR_OK) {
        mend->segment->has_spare_index = twice;
        mend->segment->spare_gap = (uint32_t)gap;
        return MIR_OK;
    }
    free(mend->footer);
    mend->footer = NULL;
    mend->footer_size = 0;
    mend->size = size;
    mend->trailer_made = false;
    return status;
}

static mir_status spare_find(mir_tlog_mend *mend, const char *path, uint64_t id, uint64_t size,
                             const uint8_t *bytes, size_t tail, mir_tlog_codec *codec)
{
    mir_status status = MIR_E_CORRUPT;
    uint64_t tried = 0;
    for (size_t at = tail; status == MIR_E_CORRUPT && at-- > 0;) {
        mir_tlog_spare spare;
        if (bytes[at] != 'M' || tail - at < MIR_TLOG_SPARE_HEAD_BYTES ||
            !mir_tlog_spare_read(bytes + at, id, &spare) ||
            spare.stored > tail - at - MIR_TLOG_SPARE_HEAD_BYTES)
            continue;
        if (!tried_take(&tried, spare.stored + spare.raw_size)) break;
        const uint8_t *footer = bytes + at + MIR_TLOG_SPARE_HEAD_BYTES;
        if (spare.hash != mir_hash_fixed(footer, spare.stored)) continue;
        status = spare_try(mend, path, id, size, size - tail + at, &spare, footer, codec);
    }
    return status;
}

static mir_status end_find(mir_tlog_mend *mend, int handle, const char *path, uint64_t id,
                           uint64_t size, bool has_trailer, mir_tlog_codec *codec, mir_error *error)
{
    const uint64_t tail_max =
        size < MIR_TLOG_MEND_TAIL_BYTES_MAX ? size : MIR_TLOG_MEND_TAIL_BYTES_MAX;
    const size_t tail = (size_t)tail_max;
    uint8_t *bytes = malloc(tail + 1);
    if (bytes == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    uint64_t unread = 0;
    const int result =
        mir_tlog_file_salvage(mend->below, handle, bytes, tail, size - tail, &unread);
    mir_status status = result < 0 ? mir_error_os(error, -result, "read %s", path) : MIR_E_CORRUPT;
    if (status == MIR_E_CORRUPT && !has_trailer)
        status = footer_find(mend, path, id, size, bytes, tail, codec);
    if (status == MIR_E_CORRUPT) status = spare_find(mend, path, id, size, bytes, tail, codec);
    free(bytes);
    return status;
}

mir_status mir_tlog_mend_open(mir_tlog_mend *mend, const mir_tlog_files *files, const char *path,
                              uint64_t id, mir_tlog_codec *codec, mir_error *error)
{
    *mend = (mir_tlog_mend){.below = files};
    mend->files = (mir_tlog_files){.context = mend,
                                   .open = overlay_open,
                                   .close = overlay_close,
                                   .pread = overlay_pread,
                                   .size = overlay_size};
    int handle;
    int result = files->open(files->context, path, &handle);
    if (result < 0) return mir_error_os(error, -result, "open %s", path);
    uint64_t size = 0;
    mir_status status = MIR_OK;
    result = files->size(files->context, handle, &size);
    if (result == 0 && size <= 2 * EDGE_BYTES)
        status = mir_error_set(error, MIR_E_CORRUPT, "%s is too short", path);
    uint64_t unread = 0;
    if (result == 0 && status == MIR_OK)
        result = mir_tlog_file_salvage(files, handle, mend->header, EDGE_BYTES, 0, &unread);
    if (result == 0 && status == MIR_OK)
        result = mir_tlog_file_salvage(files, handle, mend->trailer, EDGE_BYTES, size - EDGE_BYTES,
                                       &unread);
    if (result < 0) status = mir_error_os(error, -result, "read %s", path);
    if (status != MIR_OK) goto out;
    mend->size = size;
    /* What a newer version wrote is refused by the opening, like all else that is no damage. */
    const bool proved =
        (edge_whole(mend->header, header_magic, 0) && mir_tlog_get_u64(mend->header + 16) == id) ||
        header_make(mend, id);
    const bool has_trailer = edge_whole(mend->trailer, trailer_magic, 48);
    status = has_trailer
                 ? mir_tlog_segment_open(&mend->files, path, id, codec, &mend->segment, error)
                 : MIR_E_CORRUPT;
    /* What else it says is there twice. */
    if (status == MIR_E_IO) status = MIR_E_CORRUPT;
    if (status == MIR_E_CORRUPT)
        status = end_find(mend, handle, path, id, size, has_trailer, codec, error);
    if (status == MIR_E_CORRUPT)
        (void)mir_error_set(error, status,
                            "%s has lost its footer, which says what its chunks belong to", path);
    if (status == MIR_OK && !proved) {
        status = version_find(mend, codec);
        if (status != MIR_OK)
            (void)mir_error_set(error, status,
                                "%s has lost its header, and its index does not tell its version",
                                path);
    }
out:
    (void)files->close(files->context, handle);
    return status;
}

void mir_tlog_mend_close(mir_tlog_mend *mend)
{
    if (mend->segment != NULL) mir_tlog_segment_release(mend->segment);
    mend->segment = NULL;
    free(mend->footer);
    mend->footer = NULL;
}

/* ---- Logs ---- */

bool mir_tlog_mend_log(uint8_t *bytes, size_t size, uint64_t generation)
{
    enum { BASE_AT = 24, SUM_AT = 56 };
    if (size < MIR_TLOG_LOG_HEADER_BYTES) return false;
    uint8_t made[MIR_TLOG_LOG_HEADER_BYTES];
    const uint64_t bases[2] = {mir_tlog_get_u64(bytes + BASE_AT),
                               mir_tlog_get_u64(bytes + EDGE_BYTES + BASE_AT)};
    const uint64_t sums[2] = {mir_tlog_get_u64(bytes + SUM_AT),
                              mir_tlog_get_u64(bytes + EDGE_BYTES + SUM_AT)};
    for (int base = 0; base < 2; base++) {
        mir_tlog_log_header(made, generation, (int64_t)bases[base]);
        const uint64_t sum = mir_tlog_get_u64(made + SUM_AT);
        /* A checksum proves it; so do two copies that say the same. */
        if (sum != sums[0] && sum != sums[1] && (bases[0] != bases[1] || bases[0] == 0)) continue;
        memcpy(bytes, made, sizeof made);
        return true;
    }
    return false;
}
