/* SPDX-License-Identifier: Apache-2.0 */
/* mir_bench_http: requests to the databases that telemetry is measured beside.
 *
 * Ownership  A client keeps its connection and the last answer; both go with close.
 * Affinity   One thread.
 * Bounds     A request may take two minutes.
 * Errors     MIR_E_UNREACHABLE, MIR_E_INVALID for an answer that is no success, with what it says. */
#ifndef MIR_BENCH_HTTP_H
#define MIR_BENCH_HTTP_H

#include "mir_bytes.h"
#include "mir_status.h"

typedef struct mir_bench_http {
    void *curl;
    char base[64]; /* http://127.0.0.1:PORT */
    mir_bytes answer;
} mir_bench_http;

MIR_MUST_CHECK mir_status mir_bench_http_open(mir_bench_http *http, uint16_t port,
                                              mir_error *error);
void mir_bench_http_close(mir_bench_http *http);
/* Whether somebody answers `path` with success, without words. */
bool mir_bench_http_answers(uint16_t port, const char *path);
/* GET, or POST with a body; parameters are a name and a value in turn up to a null, and are escaped
 * here. The answer is in http->answer. */
MIR_MUST_CHECK mir_status mir_bench_http_get(mir_bench_http *http, const char *path,
                                             const char *const *parameters, mir_error *error);
MIR_MUST_CHECK mir_status mir_bench_http_post(mir_bench_http *http, const char *path, mir_view body,
                                              mir_error *error);

#endif
