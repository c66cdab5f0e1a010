/* SPDX-License-Identifier: Apache-2.0 */
/* mir_http_request: what a request for a query says: its parameters, and who asks.
 *
 * Why        Parameters come from the URL, from forms in pieces of any size, and as a body that is the
 *            query; credentials from parameters or a header. All of it is bytes of strangers.
 * Ownership  The caller owns the struct; a zeroed one is empty and ready. mir_http_request_free releases.
 *            What is read out of it lasts until it is changed or released.
 * Affinity   One thread at a time.
 * Bounds     The query MIR_INFLUXQL_BYTES_MAX, all others MIR_HTTP_PARAMETER_BYTES_MAX each.
 * Errors     `too_large` says that a bound was passed, or that memory could not be had: then nothing in it
 *            is of use.
 * Source     docs/formats/influxql.md */
#ifndef MIR_HTTP_REQUEST_H
#define MIR_HTTP_REQUEST_H

#include "mir_auth.h"
#include "mir_bytes.h"

enum {
    MIR_HTTP_PARAMETER_BYTES_MAX = 1024,
    MIR_HTTP_CHUNK_ROWS = 10000, /* unless chunk_size says otherwise */
};

typedef struct mir_http_request {
    mir_bytes query, database, user, password, token;
    mir_bytes epoch, chunked, chunk_size, pretty;
    bool too_large;
} mir_http_request;

/* A piece of a parameter's value, `offset` bytes of which came before. Whoever is named twice has the last
 * value; names that mean nothing are passed over, as are null ones (a part of a form may have none) and null
 * values. */
void mir_http_request_take(mir_http_request *request, const char *name, const char *value,
                           size_t size, uint64_t offset);
/* The header Authorization: Basic, or Token USER:PASSWORD, or Token or Bearer with a token. It counts more
 * than parameters; what is none of these says nothing. */
void mir_http_request_authorize(mir_http_request *request, const char *header);

/* A password may stand for a token, as dashboards have no place of their own for one. */
mir_credentials mir_http_request_credentials(const mir_http_request *request);
/* What times are numbers of; 0: they are RFC 3339. False: there is no such unit. */
bool mir_http_request_epoch(const mir_http_request *request, int64_t *epoch_ns);
/* How many rows a part of the answer has; 0: it is one document. */
uint64_t mir_http_request_chunk_rows(const mir_http_request *request);
bool mir_http_request_pretty(const mir_http_request *request);

void mir_http_request_free(mir_http_request *request);

#endif
