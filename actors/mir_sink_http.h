/* SPDX-License-Identifier: Apache-2.0 */
/* mir_sink_http: one POST after the other to one URL.
 *
 * Why        The transfer itself is libcurl's; here is what of it the sink needs: one connection that is
 *            kept, a time limit, an answer that is bounded, and an end when the server stops.
 * Ownership  Options are copied.
 * Affinity   create: before other threads use libcurl. post: one thread at a time.
 * Units      *_ns: nanoseconds.
 * Bounds     What of an answer is kept; the whole of a post ends after timeout_ns. With gzip a second
 *            buffer, somewhat larger than the largest body.
 * Errors     create: MIR_E_NO_MEMORY, _INVALID, also of a CA file that cannot be read. A post has an answer in any case. */
#ifndef MIR_SINK_HTTP_H
#define MIR_SINK_HTTP_H

#include <stdatomic.h>
#include <stdbool.h>

#include "mir_sink_delivery.h"

typedef struct mir_sink_http mir_sink_http;

typedef struct mir_sink_http_options {
    const char *url;      /* http or https */
    const char *user;     /* null: no login by name */
    const char *password; /* may be null */
    const char *token;    /* null: none; sent as `Authorization: Token …` */
    const char *ca_file;  /* null: the certificates of the system */
    bool gzip;
    int64_t timeout_ns;
    const atomic_bool *stop; /* ends a post soon */
} mir_sink_http_options;

MIR_MUST_CHECK mir_status mir_sink_http_create(const mir_sink_http_options *options,
                                               mir_sink_http **http, mir_error *error);
void mir_sink_http_post(mir_sink_http *http, mir_view body, mir_sink_answer *answer);
void mir_sink_http_destroy(mir_sink_http *http);

#endif
