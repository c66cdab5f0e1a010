/* SPDX-License-Identifier: Apache-2.0 */
/* mir_client: requests to a Mir server over the NATS client protocol, one at a time.
 *
 * Why        A command line asks a question and waits. It needs no threads and no reconnect, but
 *            exact words about what went wrong. An answer may come in parts, and one subscription
 *            tells that something happened.
 * Ownership  mir_client_connect gives the caller a client, mir_client_close takes it back. A reply
 *            is appended to the caller's buffer.
 * Affinity   One thread at a time. Calls block, each no longer than its timeout.
 * Units      Monotonic nanoseconds.
 * Bounds     Control lines MIR_CLIENT_LINE_BYTES_MAX, replies MIR_CLIENT_REPLY_BYTES_MAX; requests
 *            what the server's INFO allows. The lookup of a host name is bounded by the resolver.
 * Errors     MIR_E_UNREACHABLE: nothing listens there, or nobody serves the subject (503).
 *            MIR_E_PERMISSION: the login or the subject was refused. MIR_E_TIMEOUT. MIR_E_INVALID:
 *            the peer does not speak the protocol. MIR_E_TOO_LARGE, MIR_E_CLOSED, MIR_E_UNSUPPORTED.
 *            MIR_E_CANCELLED when the stop descriptor was readable.
 *            After any error but 503 and a timeout of mir_client_listen the client is of no more use than to be closed. */
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

/* The views are valid during the call. `headers` is the whole block, or empty. */
typedef void (*mir_client_message_fn)(void *context, const char *subject, mir_view headers,
                                      mir_view payload);

/* What happens while an answer is on its way. */
typedef struct mir_client_parts {
    mir_client_message_fn part;  /* each message with the header `mir-stream: partial` */
    void (*tick)(void *context); /* now and then while nothing comes */
    void *context;
} mir_client_parts;

/* As mir_client_request, for an answer that may come in parts before the whole one; each part
 * starts the timeout anew. */
MIR_MUST_CHECK mir_status mir_client_request_parts(mir_client *client, const char *subject,
                                                   mir_view request, const mir_client_parts *parts,
                                                   mir_bytes *reply, mir_error *error);
/* Of the requests that follow. */
void mir_client_set_timeout(mir_client *client, int64_t timeout_ns);
/* Ends every wait as soon as the descriptor is readable. */
void mir_client_stop_on(mir_client *client, int fd);

/* Publishes under a header block (`NATS/1.0\r\n...\r\n\r\n`). Bytes are gathered, and are on their
 * way when mir_client_flush returns. MIR_E_TOO_LARGE, for more than the server takes, harms nothing.
 */
MIR_MUST_CHECK mir_status mir_client_publish(mir_client *client, const char *subject,
                                             mir_view headers, mir_view payload, mir_error *error);
/* Returns when the server has taken everything that was published. */
MIR_MUST_CHECK mir_status mir_client_flush(mir_client *client, mir_error *error);
/* The same in two steps, with more published between them: sends what was published, and waits until
 * the server has taken what went before the mark. Marks ascend; requests
 * may be asked in between. */
MIR_MUST_CHECK mir_status mir_client_mark(mir_client *client, uint64_t *mark, mir_error *error);
MIR_MUST_CHECK mir_status mir_client_await_mark(mir_client *client, uint64_t mark,
                                                mir_error *error);

/* From now on what is published there goes to `heard`, out of any call that waits. Once for each
 * client. Returns when the server has taken it. */
MIR_MUST_CHECK mir_status mir_client_subscribe(mir_client *client, const char *pattern,
                                               mir_client_message_fn heard, void *context,
                                               mir_error *error);
/* Waits until something was heard; MIR_E_TIMEOUT when nothing was. */
MIR_MUST_CHECK mir_status mir_client_listen(mir_client *client, int64_t timeout_ns,
                                            mir_error *error);

#endif
