/* SPDX-License-Identifier: Apache-2.0 */
/* mir_client: requests to a Mir server over the NATS client protocol, one at a time.
 *
 * Why        A command line asks a question and waits. It needs no callbacks, no threads and no
 *            reconnect, but exact words about what went wrong.
 * Ownership  mir_client_connect gives the caller a client, mir_client_close takes it back. A reply
 *            is appended to the caller's buffer.
 * Affinity   One thread at a time. Calls block, each no longer than its timeout.
 * Units      Monotonic nanoseconds.
 * Bounds     Control lines MIR_CLIENT_LINE_BYTES_MAX, replies MIR_CLIENT_REPLY_BYTES_MAX; requests
 *            what the server's INFO allows. The lookup of a host name is bounded by the resolver.
 * Errors     MIR_E_UNREACHABLE: nothing listens there, or nobody serves the subject (503).
 *            MIR_E_PERMISSION: the login or the subject was refused. MIR_E_TIMEOUT. MIR_E_INVALID:
 *            the peer does not speak the protocol. MIR_E_TOO_LARGE, MIR_E_CLOSED, MIR_E_UNSUPPORTED.
 *            After any error but 503 the client is of no more use than to be closed. */
#ifndef MIR_CLIENT_H
#define MIR_CLIENT_H

#include "mir_bytes.h"

enum {
    MIR_CLIENT_LINE_BYTES_MAX = 64 * 1024,
    MIR_CLIENT_REPLY_BYTES_MAX = 64 * 1024 * 1024,
    MIR_CLIENT_INSTANCE_BYTES = 48,
};

typedef struct mir_client mir_client;

typedef struct mir_client_options {
    /* nats://[user[:password]@|token@]host[:port], host[:port], unix:///path, or a path that has a
     * slash in front ("/run/mir/admin.sock", "./admin.sock"). */
    const char *address;
    const char *name; /* of the connection, at most 32 bytes; the instance name begins with it */
    const char *user; /* null: none, unless the address carries one */
    const char *password;
    const char *token;
    int64_t connect_timeout_ns;
    int64_t timeout_ns; /* of each request */
} mir_client_options;

MIR_MUST_CHECK mir_status mir_client_connect(const mir_client_options *options, mir_client **client,
                                             mir_error *error);
/* `<name>-<7 random characters>`; the client id in subjects, and the trigger of the request. */
const char *mir_client_instance(const mir_client *client);
MIR_MUST_CHECK mir_status mir_client_request(mir_client *client, const char *subject,
                                             mir_view request, mir_bytes *reply, mir_error *error);
void mir_client_close(mir_client *client);

#endif
