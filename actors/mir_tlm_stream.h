/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlm_stream: rows of the telemetry log as messages of columns, for answers of any length.
 *
 * Why        A table has a message for each cell and has to fit into one answer. As columns a row of
 *            four integers takes nine bytes, and an answer is as many messages as it takes; what is
 *            more than MIR_TLM_STREAM_BYTES_MAX goes on with a cursor, so that neither the server nor
 *            the connection of who asks has to hold more.
 * Ownership  Messages are letters of the caller's list. Device ids are the caller's.
 * Affinity   One thread at a time.
 * Bounds     message_bytes_max for each message; a single row larger than that is an error. Rows that
 *            come at once are written before it is noticed that they are more.
 * Errors     take: MIR_E_EMPTY when no more is taken, MIR_E_TOO_LARGE, MIR_E_NO_MEMORY. */
#ifndef MIR_TLM_STREAM_H
#define MIR_TLM_STREAM_H

#include "mir_bytes.h"
#include "mir_letter.h"
#include "mir_tlog.h"

enum { MIR_TLM_STREAM_BYTES_MAX = 4 << 20, MIR_TLM_STREAM_MESSAGE_BYTES = 256 << 10 };

typedef struct mir_tlm_stream {
    mir_letters *letters;
    mir_view subject;
    mir_view header; /* of each message */
    const mir_view *device_ids;
    size_t message_bytes_max;
    size_t bytes_max;
    /* Its own: */
    mir_bytes blocks; /* of the message that is being written, behind room for its lead */
    size_t bytes;
    uint64_t rows;
    int64_t last_ns;
    uint32_t last_device;
    bool cut; /* there may be more rows */
} mir_tlm_stream;

/* A mir_tlog_rows_fn, with the stream as its context. */
mir_status mir_tlm_stream_take(void *context, const mir_tlog_rows *rows);
/* Sends what is left; then the last message is to follow. */
MIR_MUST_CHECK mir_status mir_tlm_stream_end(mir_tlm_stream *stream);
void mir_tlm_stream_free(mir_tlm_stream *stream);

#endif
