/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_mend: damaged files of the telemetry log, as far as they say enough to be read.
 *
 * Why        A bit in the header, footer or trailer of a segment makes all of it unreadable although its
 *            chunks are whole: what these say can be had from the rest of the file. Nobody who serves
 *            does this; nothing is taken that no checksum proves.
 * Ownership  A mend owns the segment that it shows; nothing is written.
 * Affinity   One thread.
 *            What the disk cannot read of a file's ends is taken for damaged.
 * Bounds     A footer, the first or the second one, is looked for in the last MIR_TLOG_MEND_TAIL_BYTES_MAX of a file,
 *            in a time that is bounded whatever is in it.
 * Errors     MIR_E_CORRUPT: no chunk can be had; _UNSUPPORTED, _IO, _NOT_FOUND, _NO_MEMORY.
 * Source     docs/formats/telemetry-log.md. */
#ifndef MIR_TLOG_MEND_H
#define MIR_TLOG_MEND_H

#include "mir_tlog_segment.h"

enum { MIR_TLOG_MEND_TAIL_BYTES_MAX = 64 << 20 };

/* Stays where it is while it is open: the segment reads through it. */
typedef struct mir_tlog_mend {
    mir_tlog_segment *segment;
    bool header_made; /* again; the generations in it may not be known, and are 0 then */
    bool trailer_made;
    /* Its own. */
    mir_tlog_files files;
    const mir_tlog_files *below;
    uint64_t size;
    uint8_t *footer; /* in the place of the file's own one, right before the trailer, or null */
    size_t footer_size;
    uint8_t header[MIR_TLOG_SEGMENT_HEADER_BYTES];
    uint8_t trailer[MIR_TLOG_SEGMENT_TRAILER_BYTES];
} mir_tlog_mend;

MIR_MUST_CHECK mir_status mir_tlog_mend_open(mir_tlog_mend *mend, const mir_tlog_files *files,
                                             const char *path, uint64_t id, mir_tlog_codec *codec,
                                             mir_error *error);
void mir_tlog_mend_close(mir_tlog_mend *mend);

/* Puts both copies of a log's header right in its bytes; false: no base of its times can be had. */
bool mir_tlog_mend_log(uint8_t *bytes, size_t size, uint64_t generation);

#endif
