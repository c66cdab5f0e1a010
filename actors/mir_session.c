/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_gateway.h"
#include "mir_hash.h"
#include "mir_limits.h"
#include "mir_log.h"

enum {
    ASSEMBLE_STEP_BYTES = 64 * 1024, /* memory follows what has come, not what was announced */
    PARK_MS = 5,
    ACCEPT_TOLD_AGAIN_S = 60,
    RTT_VALID_S = 3600,
    SHARED_BYTES_MIN = 16 * 1024, /* of payloads: shorter ones are copied sooner than kept */
    LINE_SLACK_BYTES = 64,        /* op name and blanks before the arguments of a control line */
};

static void on_timer(mir_timer *timer, void *context);
static void subscription_remove(mir_session *session, mir_subscription *sub);

static mir_loop *loop_of(const mir_session *session)
{
    return session->shard->loop;
}

mir_session *mir_session_find(mir_shard *shard, mir_ref ref)
{
    mir_session *session =
        mir_slots_get(&shard->sessions, mir_ref_slot(ref), mir_ref_generation(ref));
    return session == NULL || session->closing ? NULL : session;
}

/* --- output -------------------------------------------------------------------------------- */

static void mark_dirty(mir_session *session)
{
    if (session->is_dirty || session->gone) return;
    session->is_dirty = true;
    session->next_dirty = session->shard->dirty;
    session->shard->dirty = session;
}

/* Room for `need` bytes in one piece at the end of the output; null without memory. */
static uint8_t *out_reserve(mir_session *session, size_t need)
{
    mir_chunk *last = session->out_last;
    if (last == NULL || need > last->capacity - last->size) {
        mir_chunk *chunk = mir_shard_chunk_take(session->shard, need, session->out_bytes > 1024);
        if (chunk == NULL) return NULL;
        if (last == NULL)
            session->out = chunk;
        else
            last->next = chunk;
        session->out_last = last = chunk;
    }
    return last->data + last->size;
}

static void out_append(mir_session *session, mir_chunk *chunk)
{
    session->out_last->next = chunk;
    session->out_last = chunk;
    session->out_bytes += chunk->size;
}

static void out_commit(mir_session *session, size_t used)
{
    session->out_last->size += (uint32_t)used;
    session->out_bytes += used;
    mark_dirty(session);
}

static void out_text(mir_session *session, const char *text, size_t size)
{
    if (session->gone) return;
    uint8_t *to = out_reserve(session, size);
    if (to == NULL) return;
    memcpy(to, text, size);
    out_commit(session, size);
}

#define OUT_LITERAL(session, text) out_text((session), (text), sizeof(text) - 1)

static void out_ok(mir_session *session)
{
    if (session->verbose) OUT_LITERAL(session, "+OK\r\n");
}

static void out_error(mir_session *session, const char *text)
{
    char line[5200];
    int used = snprintf(line, sizeof line, "-ERR '%s'\r\n", text);
    if (used >= (int)sizeof line) used = (int)sizeof line - 1;
    out_text(session, line, (size_t)used);
}

/* A subject in the error texts: quotes, backslashes and what cannot be printed are escaped. */
static void quote(mir_view subject, char *to, size_t size)
{
    size_t at = 0;
    for (size_t i = 0; i < subject.size && at + 5 < size; i++) {
        uint8_t c = subject.data[i];
        if (c == '"' || c == '\\') {
            to[at++] = '\\';
            to[at++] = (char)c;
        } else if (c < 0x20 || c == 0x7f) {
            at += (size_t)snprintf(to + at, size - at, "\\x%02x", c);
        } else {
            to[at++] = (char)c;
        }
    }
    to[at] = '\0';
}

static void sending_link(mir_session *session)
{
    mir_shard *shard = session->shard;
    session->send_began_ns = shard->loop->now_ns;
    session->prev_sending = NULL;
    session->next_sending = shard->sending;
    if (shard->sending != NULL) shard->sending->prev_sending = session;
    shard->sending = session;
}

static void sending_unlink(mir_session *session)
{
    mir_shard *shard = session->shard;
    if (session->prev_sending != NULL)
        session->prev_sending->next_sending = session->next_sending;
    else
        shard->sending = session->next_sending;
    if (session->next_sending != NULL) session->next_sending->prev_sending = session->prev_sending;
    session->next_sending = session->prev_sending = NULL;
}

static void finish_closing(mir_session *session);
static void sent(mir_session *session);

void mir_session_flush(mir_session *session)
{
    if (session->gone || session->send_inflight) return;
    if (session->out == NULL) {
        if (session->closing) finish_closing(session);
        return;
    }
    struct iovec vectors[MIR_SEND_VECTORS_MAX];
    unsigned count = 0;
    mir_chunk *last = NULL;
    for (mir_chunk *chunk = session->out; chunk != NULL && count < MIR_SEND_VECTORS_MAX;
         chunk = chunk->next) {
        vectors[count++] = (struct iovec){(void *)(uintptr_t)chunk->bytes, chunk->size};
        last = chunk;
    }
    session->in_flight = session->out;
    session->out = last->next;
    last->next = NULL;
    if (session->out == NULL) session->out_last = NULL;
    session->send_inflight = true;
    sending_link(session);
    if (session->shard->backend->send(session->shard->poller, session->io_id, vectors, count))
        sent(session);
}

static void chunks_give(mir_session *session, mir_chunk *chunk)
{
    while (chunk != NULL) {
        mir_chunk *next = chunk->next;
        mir_shard_chunk_give(session->shard, chunk);
        chunk = next;
    }
}

/* What was in flight is gone, one way or the other. */
static void sent(mir_session *session)
{
    if (session->send_inflight) {
        session->send_inflight = false;
        sending_unlink(session);
    }
    size_t bytes = 0;
    for (mir_chunk *chunk = session->in_flight; chunk != NULL; chunk = chunk->next)
        bytes += chunk->size;
    chunks_give(session, session->in_flight);
    session->in_flight = NULL;
    session->out_bytes -= bytes;
    session->shard->stats.bytes_out += bytes;
    if (!session->gone && (session->out != NULL || session->closing)) mir_session_flush(session);
}

static void on_sent(mir_session *session, int32_t result)
{
    if (result < 0 && !session->gone) mir_session_drop(session, "Write Error");
    sent(session);
}

void mir_session_sweep(mir_shard *shard)
{
    int64_t limit_ns = shard->config->limits.write_deadline_ns;
    mir_session *session = shard->sending;
    while (session != NULL) {
        mir_session *next = session->next_sending;
        if (!session->gone && shard->loop->now_ns - session->send_began_ns > limit_ns) {
            shard->stats.slow_consumers++;
            mir_session_drop(session, "Slow Consumer (Write Deadline)");
        }
        session = next;
    }
}

/* --- closing ------------------------------------------------------------------------------- */

static void pending_discard(mir_session *session)
{
    while (session->pending != NULL) {
        mir_pending *entry = session->pending;
        session->pending = entry->next;
        mir_buffer_release(entry->buffer);
        free(entry);
    }
    session->pending_last = NULL;
}

static void input_discard(mir_session *session)
{
    pending_discard(session);
    if (session->assembling != NULL) mir_buffer_release(session->assembling);
    session->assembling = NULL;
    free(session->line);
    session->line = NULL;
    session->line_size = session->line_capacity = 0;
}

/* The session takes no part any more: no input, no deliveries. Its output may still go out. */
static void retire(mir_session *session, const char *reason)
{
    MIR_ASSERT(!session->closing);
    session->closing = true;
    session->close_reason = reason;
    mir_log_debug("connection %llu from %s closes: %s", (unsigned long long)session->client_id,
                  session->address, reason);
    while (session->subscriptions != NULL) subscription_remove(session, session->subscriptions);
    /* The op that caused this may still be looked at by the caller: while bytes are being
     * processed, their buffers are discarded afterwards. */
    if (!session->processing) input_discard(session);
    session->pause = MIR_PAUSE_NONE;
}

void mir_session_drop(mir_session *session, const char *reason)
{
    if (session->gone) return;
    if (!session->closing) retire(session, reason);
    session->gone = true;
    mir_timer_cancel(&loop_of(session)->timers, &session->timer);
    chunks_give(session, session->out);
    session->out = session->out_last = NULL;
    session->shard->backend->close(session->shard->poller, session->io_id);
}

void mir_session_fail(mir_session *session, const char *text, const char *reason)
{
    if (session->closing) return;
    if (text != NULL) out_error(session, text);
    retire(session, reason);
    /* Read on and discard: closing with unread input would reset the connection and the peer
     * could lose the text. */
    if (session->receive_paused) {
        session->receive_paused = false;
        session->shard->backend->receive_resume(session->shard->poller, session->io_id);
    }
    mir_timer_set(&loop_of(session)->timers, &session->timer,
                  loop_of(session)->now_ns + MIR_CLOSE_LINGER_MS * MIR_NS_PER_MS);
    mark_dirty(session);
}

/* Everything was flushed: tell the peer, and wait for its end for a moment. */
static void finish_closing(mir_session *session)
{
    if (session->ended) {
        mir_session_drop(session, session->close_reason);
    } else if (!session->shut) {
        session->shut = true;
        session->shard->backend->shutdown_write(session->shard->poller, session->io_id);
    }
}

static void tell_refused(mir_shard *shard, bool is_login, const char *text, mir_view user,
                         const char *address)
{
    if (shard->endpoints->refused == NULL) return;
    shard->endpoints->refused(shard, &(mir_refusal){.is_login = is_login,
                                                    .text = mir_view_cstr(text),
                                                    .user = user,
                                                    .address = mir_view_cstr(address)});
}

static void on_closed(mir_session *session)
{
    mir_shard *shard = session->shard;
    if (session->is_waiting) {
        mir_session **place = &shard->waiting;
        while (*place != session) place = &(*place)->next_waiting;
        *place = session->next_waiting;
    }
    if (session->is_dirty) {
        mir_session **place = &shard->dirty;
        while (*place != session) place = &(*place)->next_dirty;
        *place = session->next_dirty;
    }
    if (session->send_inflight) sending_unlink(session);
    chunks_give(session, session->in_flight);
    chunks_give(session, session->out);
    input_discard(session);
    mir_timer_cancel(&shard->loop->timers, &session->timer);
    mir_responses_destroy(session->responses);
    free(session->settle_targets);
    free(session->name);
    atomic_fetch_sub_explicit(&shard->gateway->connections, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&shard->gateway->shard_connections[shard->id], 1,
                              memory_order_relaxed);
    shard->stats.connections--;
    mir_slots_give(&shard->sessions, session);
}

/* --- accepting ----------------------------------------------------------------------------- */

static void send_info(mir_session *session, bool lame_duck)
{
    const mir_gateway *gateway = session->shard->gateway;
    bool auth = mir_auth_required(gateway->auth) && !session->local;
    char line[1024];
    int used = snprintf(
        line, sizeof line,
        "INFO {\"server_id\":\"%s\",\"server_name\":\"%s\",\"version\":\"%s\",\"proto\":1,"
        "\"go\":\"none\",\"host\":\"%s\",\"port\":%u,\"headers\":true,\"max_payload\":%lld,"
        "\"client_id\":%llu,\"client_ip\":\"%s\"%s%s,\"mir_version\":\"%s\"}\r\n",
        gateway->server_id, gateway->server_id, MIR_NATS_LEVEL, gateway->host, gateway->port,
        (long long)gateway->config->limits.max_payload_bytes,
        (unsigned long long)session->client_id, session->address,
        auth ? ",\"auth_required\":true" : "", lame_duck ? ",\"ldm\":true" : "", MIR_VERSION);
    MIR_ASSERT(used > 0 && used < (int)sizeof line);
    out_text(session, line, (size_t)used);
}

void mir_session_announce_lame_duck(mir_session *session)
{
    if (session->closing || !session->ponged || session->protocol < 1) return;
    send_info(session, true);
}

static void peer_address(int fd, char *text, size_t size)
{
    struct sockaddr_storage peer = {0};
    socklen_t peer_size = sizeof peer;
    text[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&peer, &peer_size) != 0) return;
    if (peer.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&peer;
        (void)inet_ntop(AF_INET, &in->sin_addr, text, (socklen_t)size);
    } else if (peer.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)&peer;
        (void)inet_ntop(AF_INET6, &in6->sin6_addr, text, (socklen_t)size);
    }
}

/* Where a new connection lives. Few connections share the shard that accepts: a message between two
 * of them then wakes one thread, not two. From then on the shard with the fewest takes it. */
static mir_shard *place(mir_shard *shard)
{
    mir_gateway *gateway = shard->gateway;
    unsigned count = shard->loop->count;
    uint64_t least =
        atomic_load_explicit(&gateway->shard_connections[shard->id], memory_order_relaxed);
    if (least < (uint64_t)shard->config->io.together) return shard;
    mir_shard *best = shard;
    for (unsigned i = 0; i < count; i++) {
        uint64_t has = atomic_load_explicit(&gateway->shard_connections[i], memory_order_relaxed);
        if (has < least) {
            least = has;
            best = shard->peers[i];
        }
    }
    return best;
}

typedef struct handed_over {
    mir_post post;
    int fd;
} handed_over;

static void accept_socket(mir_shard *shard, int fd, bool local, bool placed);

static void take_over(mir_shard *shard, mir_post *post)
{
    handed_over *h = MIR_CONTAINER(post, handed_over, post);
    atomic_fetch_sub_explicit(&shard->gateway->shard_connections[shard->id], 1,
                              memory_order_relaxed);
    accept_socket(shard, h->fd, false, true);
    free(h);
}

static void hand_over(mir_shard *to, int fd)
{
    handed_over *h = malloc(sizeof *h);
    if (h == NULL) {
        (void)close(fd);
        return;
    }
    *h = (handed_over){.post = {.run = take_over}, .fd = fd};
    /* Counted on its way, so that a burst spreads. */
    atomic_fetch_add_explicit(&to->gateway->shard_connections[to->id], 1, memory_order_relaxed);
    mir_shard_post(to, &h->post);
}

void mir_session_accept(mir_shard *shard, int fd, bool local)
{
    accept_socket(shard, fd, local, false);
}

static void accept_socket(mir_shard *shard, int fd, bool local, bool placed)
{
    if (fd < 0) {
        shard->stats.refused_connections++;
        /* When it begins, and seldom while it lasts. */
        int64_t now_ns = shard->loop->now_ns;
        bool news = shard->accept_failed_ns == 0 ||
                    now_ns - shard->accept_failed_ns > ACCEPT_TOLD_AGAIN_S * MIR_NS_PER_S;
        if (news) shard->accept_failed_ns = now_ns;
        if (news)
            mir_log_error("cannot accept a connection: %s%s", strerror(-fd),
                          fd == -EMFILE || fd == -ENFILE
                              ? "; raise the limit of open files (ulimit -n, LimitNOFILE)"
                              : "");
        return;
    }
    if (shard->refusing) {
        (void)close(fd);
        return;
    }
    if (!placed && !local) {
        mir_shard *better = place(shard);
        if (better != shard) {
            hand_over(better, fd);
            return;
        }
    }
    if (local) {
        struct ucred credentials;
        socklen_t size = sizeof credentials;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0 ||
            (credentials.uid != geteuid() && credentials.uid != 0)) {
            mir_log_warn("admin socket: refused a process of user %u", (unsigned)credentials.uid);
            shard->stats.refused_connections++;
            char text[64];
            (void)snprintf(text, sizeof text, "a process of user %u at the admin socket",
                           (unsigned)credentials.uid);
            tell_refused(shard, false, text, (mir_view){0}, "admin socket");
            (void)close(fd);
            return;
        }
    } else {
        int one = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    mir_session *session = mir_slots_take(&shard->sessions);
    if (session == NULL) {
        shard->stats.refused_connections++;
        (void)close(fd);
        return;
    }
    session->shard = shard;
    session->local = local;
    session->verbose = session->pedantic = session->echo = true;
    session->accepted_ns = session->last_input_ns = shard->loop->now_ns;
    session->timer.fire = on_timer;
    session->client_id =
        atomic_fetch_add_explicit(&shard->gateway->next_client_id, 1, memory_order_relaxed) &
        0x7fffffff;
    peer_address(fd, session->address, sizeof session->address);
    if (shard->backend->add(shard->poller, fd, session, &session->io_id) != MIR_OK) {
        mir_log_error("cannot take a connection: out of memory or over the poller's bound");
        shard->stats.refused_connections++;
        (void)close(fd);
        mir_slots_give(&shard->sessions, session);
        return;
    }
    session->authenticated = local || !mir_auth_required(shard->gateway->auth);
    /* Who need not name itself may leave CONNECT out, and is no_auth_user until then. */
    mir_login login = {NULL, MIR_VIEW_LITERAL("admin")};
    if (!local) login = mir_auth_unnamed(shard->gateway->auth);
    session->permissions = login.permissions;
    session->user = login.name;
    atomic_fetch_add_explicit(&shard->gateway->shard_connections[shard->id], 1,
                              memory_order_relaxed);
    shard->stats.connections++;
    shard->stats.connections_total++;
    uint64_t connections =
        atomic_fetch_add_explicit(&shard->gateway->connections, 1, memory_order_relaxed) + 1;
    send_info(session, false);
    if (!local && connections > (uint64_t)shard->config->limits.max_connections) {
        shard->stats.refused_connections++;
        tell_refused(shard, false, "more connections than limits.max_connections allows",
                     (mir_view){0}, session->address);
        mir_session_fail(session, "maximum connections exceeded", "Maximum Connections Exceeded");
        return;
    }
    int64_t wait_ns =
        session->authenticated ? shard->config->ping.interval_ns : shard->config->auth.timeout_ns;
    mir_timer_set(&shard->loop->timers, &session->timer, shard->loop->now_ns + wait_ns);
}

/* --- timers -------------------------------------------------------------------------------- */

static void on_timer(mir_timer *timer, void *context)
{
    (void)context;
    mir_session *session = MIR_CONTAINER(timer, mir_session, timer);
    mir_loop *loop = loop_of(session);
    const mir_config *config = session->shard->config;
    if (session->closing) {
        mir_session_drop(session, session->close_reason);
        return;
    }
    if (!session->authenticated) {
        mir_session_fail(session, "Authentication Timeout", "Authentication Timeout");
        return;
    }
    bool lively = session->pinged &&
                  loop->now_ns - session->last_input_ns < config->ping.interval_ns &&
                  loop->now_ns - session->rtt_at_ns < RTT_VALID_S * MIR_NS_PER_S;
    if (!session->ponged && loop->now_ns - session->accepted_ns <= 2 * MIR_NS_PER_S) lively = true;
    if (!lively) {
        if (session->pings_out + 1 > config->ping.max) {
            session->shard->stats.stale++;
            mir_session_fail(session, "Stale Connection", "Stale Connection");
            return;
        }
        session->pings_out++;
        session->pinged = true;
        OUT_LITERAL(session, "PING\r\n");
    }
    mir_timer_set(&loop->timers, timer, loop->now_ns + config->ping.interval_ns);
}

/* --- subscriptions ------------------------------------------------------------------------- */

static mir_view sub_pattern(const mir_subscription *sub)
{
    return (mir_view){sub->strings, sub->pattern_size};
}

/* The first token of a pattern of several, when it is a word. */
static mir_view first_word(mir_view pattern)
{
    const uint8_t *dot = memchr(pattern.data, '.', pattern.size);
    size_t size = dot == NULL ? 0 : (size_t)(dot - pattern.data);
    if (size == 1 && (pattern.data[0] == '*' || pattern.data[0] == '>')) size = 0;
    return mir_view_of(pattern.data, size);
}

bool mir_session_is_of(const mir_session *session, mir_view device_id)
{
    if (mir_view_eq(mir_permissions_device(session->permissions), device_id)) return true;
    if (session->subscription_count > MIR_SESSION_OF_SUBSCRIPTIONS_MAX) return false;
    bool any = false;
    for (const mir_subscription *sub = session->subscriptions; sub != NULL; sub = sub->next) {
        mir_view word = first_word(sub_pattern(sub));
        if (mir_view_eq_cstr(word, "_INBOX")) continue;
        if (!mir_view_eq(word, device_id)) return false;
        any = true;
    }
    return any;
}

static mir_view sub_queue(const mir_subscription *sub)
{
    return (mir_view){sub->strings + sub->pattern_size, sub->queue_size};
}

static mir_view sub_sid(const mir_subscription *sub)
{
    return (mir_view){sub->strings + sub->pattern_size + sub->queue_size, sub->sid_size};
}

static mir_ref sub_ref(const mir_session *session, const mir_subscription *sub)
{
    return mir_ref_make(session->shard->id, sub->slot.generation, sub->slot.index);
}

static uint64_t sid_hash(const mir_session *session, mir_view sid)
{
    return mir_hash_view(sid) ^ ((uint64_t)session->slot.index * UINT64_C(0x9E3779B97F4A7C15));
}

static mir_subscription *find_sid(mir_session *session, mir_view sid)
{
    mir_map_node *node = mir_map_first(&session->shard->sids, sid_hash(session, sid));
    for (; node != NULL; node = mir_map_next(node)) {
        mir_subscription *sub = MIR_CONTAINER(node, mir_subscription, by_sid);
        if (sub->session == session && mir_view_eq(sub_sid(sub), sid)) return sub;
    }
    return NULL;
}

static void subscription_remove(mir_session *session, mir_subscription *sub)
{
    mir_shard *shard = session->shard;
    mir_status status = mir_router_unsubscribe(shard->router, shard->loop->epoch, sub_pattern(sub),
                                               sub_queue(sub), sub_ref(session, sub));
    MIR_ASSERT(status == MIR_OK);
    mir_map_remove(&shard->sids, &sub->by_sid);
    if (sub->prev != NULL)
        sub->prev->next = sub->next;
    else
        session->subscriptions = sub->next;
    if (sub->next != NULL) sub->next->prev = sub->prev;
    session->subscription_count--;
    shard->stats.subscriptions--;
    free(sub->strings);
    mir_slots_give(&shard->subscriptions, sub);
}

static void refuse_subscription(mir_session *session, const mir_nats_op *op, const char *suffix)
{
    char subject[4200], queue[600], text[5000];
    quote(op->subject, subject, sizeof subject);
    session->shard->stats.permission_refusals++;
    if (op->queue.size != 0 && suffix[0] == '\0') {
        quote(op->queue, queue, sizeof queue);
        (void)snprintf(text, sizeof text,
                       "Permissions Violation for Subscription to \"%s\" using queue \"%s\"",
                       subject, queue);
    } else {
        (void)snprintf(text, sizeof text, "Permissions Violation for Subscription to \"%s\"%s",
                       subject, suffix);
    }
    out_error(session, text);
}

static void handle_sub(mir_session *session, const mir_nats_op *op)
{
    mir_shard *shard = session->shard;
    if (!mir_permissions_subscribe(session->permissions, op->subject, op->queue) ||
        mir_view_eq_cstr(op->queue, "_sys_")) {
        refuse_subscription(session, op, "");
        return;
    }
    int64_t tokens_max = shard->config->limits.max_subscription_tokens;
    if (tokens_max <= 0 || tokens_max > MIR_SUBJECT_TOKENS_MAX) tokens_max = MIR_SUBJECT_TOKENS_MAX;
    if (mir_nats_token_count(op->subject) > tokens_max) {
        refuse_subscription(session, op, ", too many tokens");
        return;
    }
    int64_t count_max = shard->config->limits.max_subscriptions;
    if (find_sid(session, op->sid) != NULL) {
        out_ok(session);
        return;
    }
    if (count_max > 0 && session->subscription_count >= count_max) {
        out_error(session, "maximum subscriptions exceeded");
        return;
    }
    if (!mir_nats_subject_valid(op->subject)) {
        out_error(session, "Invalid Subject");
        return;
    }
    mir_subscription *sub = mir_slots_take(&shard->subscriptions);
    uint8_t *strings = malloc(op->subject.size + op->queue.size + op->sid.size);
    if (sub == NULL || strings == NULL) {
        if (sub != NULL) mir_slots_give(&shard->subscriptions, sub);
        free(strings);
        out_error(session, "maximum subscriptions exceeded");
        return;
    }
    memcpy(strings, op->subject.data, op->subject.size);
    if (op->queue.size != 0) memcpy(strings + op->subject.size, op->queue.data, op->queue.size);
    memcpy(strings + op->subject.size + op->queue.size, op->sid.data, op->sid.size);
    sub->session = session;
    sub->strings = strings;
    sub->pattern_size = (uint32_t)op->subject.size;
    sub->queue_size = (uint32_t)op->queue.size;
    sub->sid_size = (uint32_t)op->sid.size;
    sub->filtered = mir_permissions_filters(session->permissions, op->subject, op->queue);
    mir_status status = mir_router_subscribe(shard->router, shard->loop->epoch, sub_pattern(sub),
                                             sub_queue(sub), sub_ref(session, sub));
    if (status != MIR_OK) {
        free(strings);
        mir_slots_give(&shard->subscriptions, sub);
        out_error(session,
                  status == MIR_E_INVALID ? "Invalid Subject" : "maximum subscriptions exceeded");
        return;
    }
    mir_map_add(&shard->sids, &sub->by_sid, sid_hash(session, op->sid));
    sub->next = session->subscriptions;
    if (sub->next != NULL) sub->next->prev = sub;
    session->subscriptions = sub;
    session->subscription_count++;
    shard->stats.subscriptions++;
    out_ok(session);
    mir_view word = first_word(op->subject);
    if (shard->endpoints->subscribed != NULL && word.size != 0 &&
        !mir_view_eq_cstr(word, "_INBOX") && mir_session_is_of(session, word))
        shard->endpoints->subscribed(shard, word);
}

static void handle_unsub(mir_session *session, const mir_nats_op *op)
{
    mir_subscription *sub = find_sid(session, op->sid);
    if (sub != NULL) {
        sub->max = op->has_max ? op->max : 0;
        if (!op->has_max || sub->delivered >= sub->max) subscription_remove(session, sub);
    }
    out_ok(session);
}

/* --- responses ----------------------------------------------------------------------------- */

static void responses_note(mir_session *session, mir_view reply)
{
    int64_t max, expires_ns;
    if (reply.size == 0 || !mir_permissions_responses(session->permissions, &max, &expires_ns) ||
        mir_permissions_publish(session->permissions, reply))
        return;
    if (session->responses == NULL) session->responses = mir_responses_create();
    if (session->responses == NULL) return;
    mir_responses_note(session->responses, reply, max, expires_ns, loop_of(session)->now_ns);
}

/* --- delivering ---------------------------------------------------------------------------- */

static uint8_t *put(uint8_t *to, mir_view view)
{
    memcpy(to, view.data, view.size);
    return to + view.size;
}

/* A long payload is sent from where it lies. One in a buffer that the shard receives into is copied all
 * the same: who reads slowly would keep it from receiving. */
static mir_chunk *share(mir_buffer *buffer, mir_view payload)
{
    if (buffer == NULL || buffer->pool != NULL || payload.size < SHARED_BYTES_MIN) return NULL;
    return mir_shard_chunk_share(buffer, payload);
}

/* Writes one MSG or HMSG; false when the session had to be dropped. `buffer`, if not null, is what the
 * payload lies in. */
static bool write_message(mir_session *session, mir_view subject, mir_view sid, mir_view reply,
                          mir_view header, mir_view payload, mir_buffer *buffer)
{
    bool with_header = header.size != 0 && session->headers;
    size_t body = payload.size + (with_header ? header.size : 0);
    mir_chunk *shared = share(buffer, payload);
    size_t need = subject.size + sid.size + reply.size + body + 48;
    if (shared != NULL) need -= payload.size;
    uint8_t *start = out_reserve(session, need);
    if (start == NULL) {
        if (shared != NULL) mir_shard_chunk_give(session->shard, shared);
        session->shard->stats.slow_consumers++;
        mir_session_drop(session, "Slow Consumer (Pending Bytes)");
        return false;
    }
    uint8_t *to = start;
    if (with_header) *to++ = 'H';
    to = put(to, MIR_VIEW_LITERAL("MSG "));
    to = put(to, subject);
    *to++ = ' ';
    to = put(to, sid);
    *to++ = ' ';
    if (reply.size != 0) {
        to = put(to, reply);
        *to++ = ' ';
    }
    if (with_header) {
        to += mir_nats_put_number(to, header.size);
        *to++ = ' ';
    }
    to += mir_nats_put_number(to, body);
    *to++ = '\r';
    *to++ = '\n';
    if (with_header) to = put(to, header);
    if (shared != NULL) {
        out_commit(session, (size_t)(to - start));
        out_append(session, shared);
        start = to = out_reserve(session, 2);
        if (start == NULL) {
            mir_session_drop(session, "Slow Consumer (Pending Bytes)");
            return false;
        }
    } else if (payload.size != 0) {
        to = put(to, payload);
    }
    *to++ = '\r';
    *to++ = '\n';
    out_commit(session, (size_t)(to - start));
    session->shard->stats.messages_out++;
    return true;
}

mir_delivery mir_session_deliver(mir_shard *shard, mir_ref ref, const mir_message *message)
{
    mir_subscription *sub =
        mir_slots_get(&shard->subscriptions, mir_ref_slot(ref), mir_ref_generation(ref));
    if (sub == NULL) return MIR_NOT_DELIVERED;
    mir_session *session = sub->session;
    if (session->closing) return MIR_NOT_DELIVERED;
    if (!session->echo && message->publisher == mir_session_ref(session)) return MIR_NOT_DELIVERED;
    if (sub->filtered &&
        mir_permissions_withhold(session->permissions, message->subject, sub_queue(sub)))
        return MIR_NOT_DELIVERED;
    sub->delivered++;
    if (!write_message(session, message->subject, sub_sid(sub), message->reply, message->header,
                       message->payload, message->buffer))
        return MIR_NOT_DELIVERED;
    if (session->permissions != NULL) responses_note(session, message->reply);
    if (sub->max != 0 && sub->delivered >= sub->max) subscription_remove(session, sub);
    size_t limit = (size_t)shard->config->limits.max_pending_bytes;
    if (session->out_bytes > limit) {
        shard->stats.slow_consumers++;
        mir_session_drop(session, "Slow Consumer (Pending Bytes)");
        return MIR_DELIVERED;
    }
    return session->out_bytes > limit / 4 * 3 ? MIR_DELIVERED_CONGESTED : MIR_DELIVERED;
}

void mir_session_no_responders(mir_session *session, const mir_message *message)
{
    if (!session->no_responders || !session->headers || session->closing) return;
    mir_subscription *found = NULL;
    if (session->subscription_count <= 16) {
        for (mir_subscription *sub = session->subscriptions; sub != NULL; sub = sub->next)
            if (sub->queue_size == 0 && mir_nats_match(sub_pattern(sub), message->reply))
                found = sub;
    } else {
        mir_match match = {0};
        mir_router_match(session->shard->router, message->reply, &match);
        for (uint32_t i = 0; i < match.plain_count && found == NULL; i++) {
            if (mir_ref_shard(match.plain[i]) != session->shard->id) continue;
            mir_subscription *sub =
                mir_slots_get(&session->shard->subscriptions, mir_ref_slot(match.plain[i]),
                              mir_ref_generation(match.plain[i]));
            if (sub != NULL && sub->session == session) found = sub;
        }
        mir_match_free(&match);
    }
    if (found == NULL) return;
    char header[4400];
    int used = snprintf(header, sizeof header, "NATS/1.0 503\r\nNats-Subject: %.*s\r\n\r\n",
                        MIR_VIEW_ARGS(message->subject));
    if (used < 0 || used >= (int)sizeof header)
        used = snprintf(header, sizeof header, "NATS/1.0 503\r\n\r\n");
    found->delivered++;
    if (!write_message(session, message->reply, sub_sid(found), (mir_view){0},
                       mir_view_of(header, (size_t)used), (mir_view){0}, NULL))
        return;
    if (found->max != 0 && found->delivered >= found->max) subscription_remove(session, found);
}

/* --- pausing ------------------------------------------------------------------------------- */

static void pause_session(mir_session *session, mir_pause why)
{
    MIR_ASSERT(session->pause == MIR_PAUSE_NONE && !session->closing);
    session->pause = (uint8_t)why;
    if (why != MIR_PAUSE_CHECK && !session->is_waiting) {
        session->is_waiting = true;
        session->next_waiting = session->shard->waiting;
        session->shard->waiting = session;
    }
    if (!session->receive_paused) {
        session->receive_paused = true;
        session->shard->backend->receive_pause(session->shard->poller, session->io_id);
    }
}

void mir_session_park(mir_session *session)
{
    if (session->closing || session->pause != MIR_PAUSE_NONE) return;
    mir_loop *loop = loop_of(session);
    session->shard->stats.parked++;
    session->parked_until_ns = loop->now_ns + PARK_MS * MIR_NS_PER_MS;
    pause_session(session, MIR_PAUSE_PARKED);
    if (!mir_timer_is_set(&session->shard->unpark))
        mir_timer_set(&loop->timers, &session->shard->unpark, session->parked_until_ns);
}

static bool settled(const mir_session *session)
{
    const mir_loop *loop = loop_of(session);
    for (unsigned i = 0; i < loop->count; i++) {
        if ((session->touched >> i & 1) == 0) continue;
        uint64_t target = session->settle_targets[i];
        if (i == loop->id ? !mir_holding_passed(&session->shard->holding[i], target)
                          : mir_loop_settled(loop, i) < target)
            return false;
    }
    return true;
}

static void send_pong(mir_session *session)
{
    session->touched = 0;
    session->ponged = true;
    session->shard->acknowledges = true;
    OUT_LITERAL(session, "PONG\r\n");
}

static void handle_ping(mir_session *session)
{
    mir_shard *shard = session->shard;
    mir_loop *loop = shard->loop;
    if (loop->count == 1 && mir_holding_is_empty(&shard->holding[0])) {
        send_pong(session);
        return;
    }
    mir_shard_flush_parcels(shard);
    /* What other publishers were acknowledged for lies in our inbound rings by now; it goes out
     * before this PONG. */
    mir_loop_drain(loop);
    if (session->closing) return;
    mir_shard_flush_parcels(shard);
    if (session->touched != 0) {
        if (session->settle_targets == NULL)
            session->settle_targets = calloc(loop->count, sizeof *session->settle_targets);
        if (session->settle_targets == NULL) {
            mir_session_fail(session, NULL, "Read Error");
            return;
        }
        for (unsigned i = 0; i < loop->count; i++)
            session->settle_targets[i] =
                i == loop->id ? mir_holding_mark(&shard->holding[i]) : mir_loop_sent(loop, i);
        if (!settled(session)) {
            for (unsigned i = 0; i < loop->count; i++)
                if (i != loop->id && (session->touched >> i & 1) != 0) mir_loop_urge(loop, i);
            /* What was drained may have parked this very session: a PONG that is owed outlives that,
             * and the next message parks it again if the subscriber is still congested. */
            session->pause = MIR_PAUSE_NONE;
            pause_session(session, MIR_PAUSE_SETTLE);
            return;
        }
    }
    send_pong(session);
}

/* --- CONNECT ------------------------------------------------------------------------------- */

typedef struct connect_options {
    bool verbose, pedantic, echo, headers, no_responders;
    long long protocol;
    bool obsolete; /* `account` or `new_account` is used */
    mir_credentials credentials;
    const char *name, *lang, *version;
} connect_options;

static bool take_bool(const json_t *value, bool *into)
{
    if (!json_is_boolean(value)) return false;
    *into = json_is_true(value);
    return true;
}

static bool take_string(const json_t *value, mir_view *into)
{
    if (!json_is_string(value)) return false;
    *into = mir_view_of(json_string_value(value), json_string_length(value));
    return true;
}

/* False for a known key with a value of the wrong type. */
static bool read_options(json_t *object, connect_options *options)
{
    *options = (connect_options){.verbose = true, .pedantic = true, .echo = true};
    const char *key;
    json_t *value;
    mir_view text;
    json_object_foreach(object, key, value)
    {
        if (json_is_null(value)) continue;
        bool good = true;
        if (strcasecmp(key, "verbose") == 0) {
            good = take_bool(value, &options->verbose);
        } else if (strcasecmp(key, "pedantic") == 0) {
            good = take_bool(value, &options->pedantic);
        } else if (strcasecmp(key, "echo") == 0) {
            good = take_bool(value, &options->echo);
        } else if (strcasecmp(key, "headers") == 0) {
            good = take_bool(value, &options->headers);
        } else if (strcasecmp(key, "no_responders") == 0) {
            good = take_bool(value, &options->no_responders);
        } else if (strcasecmp(key, "tls_required") == 0) {
            bool ignored;
            good = take_bool(value, &ignored);
        } else if (strcasecmp(key, "protocol") == 0) {
            good = json_is_integer(value);
            options->protocol = json_integer_value(value);
        } else if (strcasecmp(key, "user") == 0) {
            good = take_string(value, &options->credentials.user);
        } else if (strcasecmp(key, "pass") == 0) {
            good = take_string(value, &options->credentials.password);
        } else if (strcasecmp(key, "auth_token") == 0) {
            good = take_string(value, &options->credentials.token);
        } else if (strcasecmp(key, "name") == 0) {
            good = json_is_string(value);
            options->name = json_string_value(value);
        } else if (strcasecmp(key, "lang") == 0) {
            good = json_is_string(value);
            options->lang = json_string_value(value);
        } else if (strcasecmp(key, "version") == 0) {
            good = json_is_string(value);
            options->version = json_string_value(value);
        } else if (strcasecmp(key, "account") == 0) {
            good = take_string(value, &text);
            if (good && text.size != 0) options->obsolete = true;
        } else if (strcasecmp(key, "new_account") == 0) {
            bool fresh = false;
            good = take_bool(value, &fresh);
            if (fresh) options->obsolete = true;
        }
        if (!good) return false;
    }
    return true;
}

/* What was allowed, or filtered, for another login goes with it. */
static void forget_login(mir_session *session)
{
    while (session->subscriptions != NULL) subscription_remove(session, session->subscriptions);
    mir_responses_destroy(session->responses);
    session->responses = NULL;
}

/* `tried`: by which name. */
static void login_done(mir_session *session, bool accepted, const mir_login *login, mir_view tried)
{
    mir_shard *shard = session->shard;
    mir_loop *loop = shard->loop;
    if (!accepted) {
        shard->stats.auth_failures++;
        mir_log_info("login refused for a connection from %s",
                     session->address[0] == '\0' ? "the admin socket" : session->address);
        tell_refused(shard, true, tried.size == 0 ? "no user was named" : "wrong user or password",
                     tried, session->address);
        mir_session_fail(session, "Authorization Violation", "Authentication Failure");
        return;
    }
    session->authenticated = true;
    session->greeted = true;
    /* Who was no_auth_user until this first CONNECT may have become somebody else. */
    if (session->permissions != login->permissions) forget_login(session);
    session->permissions = login->permissions;
    session->user = login->name;
    /* A first estimate; the first PING measures it. */
    session->rtt_at_ns = loop->now_ns;
    session->pinged = false;
    int64_t first_ns = shard->config->ping.interval_ns;
    if (first_ns > 2 * MIR_NS_PER_S) first_ns = 2 * MIR_NS_PER_S;
    first_ns += first_ns / 5 * (mir_shard_random(shard) % 1000) / 1000;
    mir_timer_set(&loop->timers, &session->timer, loop->now_ns + first_ns);
    out_ok(session);
}

typedef struct login_check {
    mir_job job;
    mir_post post;
    mir_shard *shard;
    mir_ref session;
    const mir_auth *auth;
    json_t *object; /* keeps the credentials' bytes */
    mir_credentials credentials;
    mir_login login;
    bool accepted;
} login_check;

static void login_checked(mir_shard *shard, mir_post *post)
{
    login_check *check = MIR_CONTAINER(post, login_check, post);
    mir_session *session = mir_session_find(shard, check->session);
    if (session != NULL && session->pause == MIR_PAUSE_CHECK) {
        session->pause = MIR_PAUSE_NONE;
        login_done(session, check->accepted, &check->login, check->credentials.user);
        if (!session->closing && !session->is_waiting) {
            session->is_waiting = true;
            session->next_waiting = shard->waiting;
            shard->waiting = session;
        }
    }
    json_decref(check->object);
    free(check);
}

static void login_run(mir_job *job)
{
    login_check *check = MIR_CONTAINER(job, login_check, job);
    check->accepted = mir_auth_check(check->auth, &check->credentials, &check->login);
    mir_shard_post(check->shard, &check->post);
}

static void handle_connect(mir_session *session, mir_view text)
{
    mir_gateway *gateway = session->shard->gateway;
    json_error_t error;
    json_t *object = json_loadb((const char *)text.data, text.size, 0, &error);
    connect_options options;
    if (object == NULL || !json_is_object(object) || !read_options(object, &options)) {
        json_decref(object);
        session->shard->stats.parse_errors++;
        mir_session_fail(session, NULL, "Parse Error");
        return;
    }
    if (options.protocol < 0 || options.protocol > 1) {
        mir_session_fail(session, "invalid client protocol", "Bad Client Protocol Version");
    } else if (options.no_responders && !options.headers) {
        mir_session_fail(session, "no responders requires headers support",
                         "No Responders Requires Headers");
    }
    if (session->closing) {
        json_decref(object);
        return;
    }
    if (session->greeted) forget_login(session);
    session->verbose = options.verbose;
    session->pedantic = options.pedantic;
    session->echo = options.echo;
    session->headers = options.headers;
    session->no_responders = options.no_responders;
    session->protocol = (uint8_t)options.protocol;
    char name[160];
    (void)snprintf(name, sizeof name, "%.60s/%.30s/%.30s", options.name == NULL ? "" : options.name,
                   options.lang == NULL ? "" : options.lang,
                   options.version == NULL ? "" : options.version);
    free(session->name);
    session->name = options.name == NULL ? NULL : strdup(name);
    if (session->local) {
        json_decref(object);
        login_done(session, true, &(mir_login){NULL, MIR_VIEW_LITERAL("admin")}, (mir_view){0});
        return;
    }
    if (!options.obsolete && mir_auth_is_slow(gateway->auth, &options.credentials)) {
        login_check *check = calloc(1, sizeof *check);
        if (check != NULL) {
            *check = (login_check){.job = {.run = login_run},
                                   .post = {.run = login_checked},
                                   .shard = session->shard,
                                   .session = mir_session_ref(session),
                                   .auth = gateway->auth,
                                   .object = object,
                                   .credentials = options.credentials};
            pause_session(session, MIR_PAUSE_CHECK);
            mir_workers_submit(gateway->workers, &check->job);
            return;
        }
    }
    mir_login login;
    bool accepted =
        !options.obsolete && mir_auth_check(gateway->auth, &options.credentials, &login);
    login_done(session, accepted, &login, options.credentials.user);
    json_decref(object);
}

/* --- publishing ---------------------------------------------------------------------------- */

static void refuse_publish(mir_session *session, const char *what, mir_view subject)
{
    char quoted[4200], text[4400];
    quote(subject, quoted, sizeof quoted);
    (void)snprintf(text, sizeof text, "Permissions Violation for Publish%s \"%s\"", what, quoted);
    session->shard->stats.permission_refusals++;
    out_error(session, text);
}

static bool reserved_subject(mir_view subject)
{
    return mir_view_starts(subject, MIR_VIEW_LITERAL("_GR_.")) ||
           mir_view_starts(subject, MIR_VIEW_LITERAL("$NRG."));
}

static bool reserved_reply(mir_view reply)
{
    return mir_view_starts(reply, MIR_VIEW_LITERAL("_R_.")) ||
           mir_view_starts(reply, MIR_VIEW_LITERAL("_GR_.")) ||
           mir_view_starts(reply, MIR_VIEW_LITERAL("$JS.ACK."));
}

static void handle_publish(mir_session *session, const mir_nats_op *op, const uint8_t *body,
                           mir_buffer *buffer)
{
    mir_shard *shard = session->shard;
    shard->stats.messages_in++;
    if (__builtin_expect(op->subject.data[0] == '$' || op->subject.data[0] == '_', 0) &&
        reserved_subject(op->subject)) {
        refuse_publish(session, " to", op->subject);
        return;
    }
    if (session->permissions != NULL &&
        !mir_permissions_publish(session->permissions, op->subject) &&
        (session->responses == NULL ||
         !mir_responses_take(session->responses, op->subject, loop_of(session)->now_ns))) {
        refuse_publish(session, " to", op->subject);
        return;
    }
    if (op->reply.size != 0 && reserved_reply(op->reply)) {
        refuse_publish(session, " with Reply of", op->reply);
        return;
    }
    if (session->pedantic && !mir_nats_subject_literal(op->subject))
        out_error(session, "Invalid Publish Subject");
    out_ok(session);
    mir_message message = {.subject = op->subject,
                           .reply = op->reply,
                           .header = {body, op->header_size},
                           .payload = {body + op->header_size, op->total_size - op->header_size},
                           .buffer = buffer};
    (void)mir_shard_publish(shard, &message, session);
}

/* --- input --------------------------------------------------------------------------------- */

typedef enum verdict {
    GO_ON,
    STOP, /* paused or closing; the op was taken */
    HOLD, /* paused; the op was not taken */
} verdict;

/* Judges a PUB or HPUB by its line; false when the session fails. */
static bool publish_is_possible(mir_session *session, const mir_nats_op *op)
{
    if ((int64_t)op->total_size > session->shard->config->limits.max_payload_bytes) {
        mir_session_fail(session, "Maximum Payload Violation", "Maximum Message Payload Exceeded");
        return false;
    }
    if (op->kind == MIR_NATS_HPUB && !session->headers) {
        session->shard->stats.parse_errors++;
        mir_session_fail(session, NULL, "Protocol Violation");
        return false;
    }
    return true;
}

static void unknown_operation(mir_session *session)
{
    session->shard->stats.parse_errors++;
    mir_session_fail(session, "Unknown Protocol Operation", "Parse Error");
}

/* Any op but a publish. */
static verdict handle_op(mir_session *session, const mir_nats_op *op)
{
    switch (op->kind) {
    case MIR_NATS_CONNECT: handle_connect(session, op->text); break;
    case MIR_NATS_SUB: handle_sub(session, op); break;
    case MIR_NATS_UNSUB: handle_unsub(session, op); break;
    case MIR_NATS_PING: handle_ping(session); break;
    case MIR_NATS_PONG:
        session->pings_out = 0;
        session->rtt_at_ns = loop_of(session)->now_ns;
        break;
    case MIR_NATS_INFO: {
        json_error_t error;
        json_t *object = json_loadb((const char *)op->text.data, op->text.size, 0, &error);
        if (object == NULL) mir_session_fail(session, NULL, "Parse Error");
        json_decref(object);
        break;
    }
    case MIR_NATS_ERR:
        mir_log_info("client %llu reports an error: %.*s", (unsigned long long)session->client_id,
                     op->text.size > 200 ? 200 : (int)op->text.size, (const char *)op->text.data);
        mir_session_fail(session, NULL, "Client Closed");
        break;
    case MIR_NATS_OK: break;
    case MIR_NATS_PUB:
    case MIR_NATS_HPUB:
    case MIR_NATS_MSG:
    case MIR_NATS_HMSG: MIR_ASSERT(false);
    }
    return session->closing || session->pause != MIR_PAUSE_NONE ? STOP : GO_ON;
}

static void judge_failure(mir_session *session, mir_nats_outcome outcome)
{
    switch (outcome) {
    case MIR_NATS_UNKNOWN_OP: unknown_operation(session); break;
    case MIR_NATS_MALFORMED:
        session->shard->stats.parse_errors++;
        mir_session_fail(session, NULL, "Parse Error");
        break;
    case MIR_NATS_LINE_TOO_LONG:
        session->shard->stats.parse_errors++;
        mir_session_fail(session, "maximum control line exceeded", "Maximum Control Line Exceeded");
        break;
    case MIR_NATS_DONE:
    case MIR_NATS_NEED_MORE: MIR_ASSERT(false);
    }
}

static size_t line_max(const mir_session *session)
{
    return (size_t)session->shard->config->limits.max_control_line_bytes;
}

static bool line_append(mir_session *session, const uint8_t *data, size_t size)
{
    size_t need = session->line_size + size;
    if (need > session->line_capacity) {
        size_t want = need < 128 ? 128 : need * 2;
        uint8_t *grown = realloc(session->line, want);
        if (grown == NULL) return false;
        session->line = grown;
        session->line_capacity = (uint32_t)want;
    }
    memcpy(session->line + session->line_size, data, size);
    session->line_size += (uint32_t)size;
    return true;
}

/* Begins to assemble a publish whose line is complete and whose body is not. */
static bool assemble_begin(mir_session *session, const uint8_t *line, const mir_nats_op *op)
{
    size_t need = op->line_bytes + op->total_size + 2;
    size_t capacity = need;
    if (capacity > ASSEMBLE_STEP_BYTES) capacity = ASSEMBLE_STEP_BYTES;
    if (capacity < op->line_bytes) capacity = op->line_bytes;
    mir_buffer *buffer = mir_buffer_heap(capacity);
    if (buffer == NULL) {
        mir_session_fail(session, NULL, "Read Error");
        return false;
    }
    memcpy(buffer->data, line, op->line_bytes);
    session->assembling = buffer;
    session->assembled = op->line_bytes;
    session->assembling_need = need;
    return true;
}

static bool assemble_grow(mir_session *session)
{
    size_t capacity = session->assembling->capacity * 2;
    if (capacity > session->assembling_need) capacity = session->assembling_need;
    mir_buffer *grown = mir_buffer_heap(capacity);
    if (grown == NULL) {
        mir_session_fail(session, NULL, "Read Error");
        return false;
    }
    memcpy(grown->data, session->assembling->data, session->assembled);
    mir_buffer_release(session->assembling);
    session->assembling = grown;
    return true;
}

/* Publishes a message that lies in one piece at `data`. */
static verdict publish_whole(mir_session *session, const uint8_t *data, const mir_nats_op *op,
                             mir_buffer *buffer)
{
    if (session->shard->tight) {
        pause_session(session, MIR_PAUSE_ROOM);
        return HOLD;
    }
    const uint8_t *body = data + op->line_bytes;
    if (body[op->total_size] != '\r' || body[op->total_size + 1] != '\n') {
        unknown_operation(session);
        return STOP;
    }
    handle_publish(session, op, body, buffer);
    return session->closing || session->pause != MIR_PAUSE_NONE ? STOP : GO_ON;
}

static verdict assembled_whole(mir_session *session)
{
    mir_buffer *buffer = session->assembling;
    mir_nats_op op;
    mir_nats_outcome outcome =
        mir_nats_parse(buffer->data, session->assembled, line_max(session), &op);
    MIR_ASSERT(outcome == MIR_NATS_DONE);
    verdict v = publish_whole(session, buffer->data, &op, buffer);
    if (v != HOLD) {
        session->assembling = NULL;
        mir_buffer_release(buffer);
    }
    return v;
}

/* Takes bytes for the message being assembled; returns how many. */
static size_t assemble(mir_session *session, const uint8_t *data, size_t size, verdict *v)
{
    size_t taken = 0;
    while (taken < size && session->assembled < session->assembling_need) {
        if (session->assembled == session->assembling->capacity && !assemble_grow(session)) {
            *v = STOP;
            return size;
        }
        size_t part = session->assembling->capacity - session->assembled;
        if (part > size - taken) part = size - taken;
        memcpy(session->assembling->data + session->assembled, data + taken, part);
        session->assembled += part;
        taken += part;
    }
    size_t end = session->assembling_need;
    if (session->assembled == end - 1 && session->assembling->data[end - 2] != '\r') {
        unknown_operation(session);
        *v = STOP;
        return size;
    }
    *v = session->assembled == end ? assembled_whole(session) : GO_ON;
    return taken;
}

/* Completes the control line whose beginning is kept; returns the bytes taken. */
static size_t continue_line(mir_session *session, const uint8_t *data, size_t size, verdict *v)
{
    size_t limit = line_max(session) + LINE_SLACK_BYTES;
    size_t want = size;
    const uint8_t *lf = memchr(data, '\n', size);
    if (lf != NULL) want = (size_t)(lf - data) + 1;
    bool too_long = session->line_size + want > limit;
    if (too_long) want = limit > session->line_size ? limit - session->line_size : 0;
    if (!line_append(session, data, want)) {
        mir_session_fail(session, NULL, "Read Error");
        *v = STOP;
        return size;
    }
    mir_nats_op op;
    mir_nats_outcome outcome =
        mir_nats_parse(session->line, session->line_size, line_max(session), &op);
    *v = GO_ON;
    if (outcome == MIR_NATS_NEED_MORE) {
        if (too_long) {
            judge_failure(session, MIR_NATS_LINE_TOO_LONG);
            *v = STOP;
        }
        return want;
    }
    if (outcome != MIR_NATS_DONE) {
        judge_failure(session, outcome);
        *v = STOP;
        return want;
    }
    /* The line ends with the LF just appended, so all of it is this op. */
    MIR_ASSERT(op.line_bytes == session->line_size);
    if (!session->authenticated && op.kind != MIR_NATS_CONNECT) {
        mir_session_fail(session, "Authorization Violation", "Authentication Failure");
        *v = STOP;
    } else if (op.kind == MIR_NATS_PUB || op.kind == MIR_NATS_HPUB) {
        if (!publish_is_possible(session, &op) || !assemble_begin(session, session->line, &op))
            *v = STOP;
    } else {
        *v = handle_op(session, &op);
    }
    session->line_size = 0;
    return want;
}

/* Takes what it can; returns the bytes taken. Less than `size` means paused or closing. */
static size_t process(mir_session *session, mir_buffer *buffer, const uint8_t *data, size_t size)
{
    size_t at = 0;
    verdict v = GO_ON;
    while (at < size && v == GO_ON) {
        if (session->assembling != NULL) {
            at += assemble(session, data + at, size - at, &v);
            continue;
        }
        if (session->line_size != 0) {
            at += continue_line(session, data + at, size - at, &v);
            continue;
        }
        if (!session->authenticated && (data[at] | 0x20) != 'c') {
            mir_session_fail(session, "Authorization Violation", "Authentication Failure");
            break;
        }
        mir_nats_op op;
        mir_nats_outcome outcome = mir_nats_parse(data + at, size - at, line_max(session), &op);
        if (outcome == MIR_NATS_NEED_MORE) {
            if (size - at > line_max(session) + LINE_SLACK_BYTES) {
                judge_failure(session, MIR_NATS_LINE_TOO_LONG);
                break;
            }
            if (!line_append(session, data + at, size - at)) {
                mir_session_fail(session, NULL, "Read Error");
                break;
            }
            at = size;
        } else if (outcome != MIR_NATS_DONE) {
            judge_failure(session, outcome);
            break;
        } else if (op.kind == MIR_NATS_PUB || op.kind == MIR_NATS_HPUB) {
            if (!session->authenticated) {
                mir_session_fail(session, "Authorization Violation", "Authentication Failure");
                break;
            }
            if (!publish_is_possible(session, &op)) break;
            size_t need = op.line_bytes + op.total_size + 2;
            if (size - at >= need) {
                v = publish_whole(session, data + at, &op, buffer);
                if (v != HOLD) at += need;
            } else {
                if (!assemble_begin(session, data + at, &op)) break;
                at += op.line_bytes;
            }
        } else {
            if (!session->authenticated && op.kind != MIR_NATS_CONNECT) {
                mir_session_fail(session, "Authorization Violation", "Authentication Failure");
                break;
            }
            v = handle_op(session, &op);
            at += op.line_bytes;
        }
    }
    return at;
}

static void process_guarded(mir_session *session, mir_buffer *buffer, size_t from, size_t size,
                            size_t *at)
{
    session->processing = true;
    *at = from + process(session, buffer, buffer->data + from, size - from);
    session->processing = false;
    /* Answers count as deliveries do: who sends operations and reads nothing would pile them up. */
    if (!session->gone &&
        session->out_bytes > (size_t)session->shard->config->limits.max_pending_bytes) {
        session->shard->stats.slow_consumers++;
        mir_session_drop(session, "Slow Consumer (Pending Bytes)");
    }
    if (session->closing) input_discard(session);
}

static void pending_add(mir_session *session, mir_buffer *buffer, size_t at, size_t size)
{
    mir_pending *entry = malloc(sizeof *entry);
    if (entry == NULL) {
        mir_buffer_release(buffer);
        mir_session_fail(session, NULL, "Read Error");
        return;
    }
    *entry = (mir_pending){.buffer = buffer, .at = at, .size = size};
    if (session->pending_last == NULL)
        session->pending = entry;
    else
        session->pending_last->next = entry;
    session->pending_last = entry;
}

static void on_received(mir_session *session, const mir_event *event)
{
    mir_shard *shard = session->shard;
    if (event->result <= 0) {
        session->ended = true;
        if (session->closing) {
            if (session->out == NULL && !session->send_inflight)
                mir_session_drop(session, session->close_reason);
            return;
        }
        /* What came before the end is still taken. */
        if (session->pending == NULL && session->pause == MIR_PAUSE_NONE) {
            if (event->result == 0)
                mir_session_fail(session, NULL, "Client Closed");
            else
                mir_session_drop(session, "Read Error");
        }
        return;
    }
    if (session->closing) {
        mir_buffer_release(event->buffer);
        return;
    }
    session->last_input_ns = shard->loop->now_ns;
    shard->stats.bytes_in += (uint64_t)event->result;
    size_t size = (size_t)event->result;
    if (session->pause != MIR_PAUSE_NONE || session->pending != NULL) {
        pending_add(session, event->buffer, 0, size);
        return;
    }
    size_t at;
    process_guarded(session, event->buffer, 0, size, &at);
    if (!session->closing && at < size)
        pending_add(session, event->buffer, at, size);
    else
        mir_buffer_release(event->buffer);
}

bool mir_session_resume(mir_session *session)
{
    mir_loop *loop = loop_of(session);
    if (session->closing) return true;
    switch ((mir_pause)session->pause) {
    case MIR_PAUSE_NONE: break;
    case MIR_PAUSE_CHECK: return true; /* the answer brings it back */
    case MIR_PAUSE_SETTLE:
        if (!settled(session)) return false;
        send_pong(session);
        break;
    case MIR_PAUSE_ROOM:
        if (session->shard->tight) return false;
        break;
    case MIR_PAUSE_PARKED:
        if (loop->now_ns < session->parked_until_ns) {
            if (!mir_timer_is_set(&session->shard->unpark))
                mir_timer_set(&loop->timers, &session->shard->unpark, session->parked_until_ns);
            return false;
        }
        break;
    }
    session->pause = MIR_PAUSE_NONE;
    if (session->assembling != NULL && session->assembled == session->assembling_need) {
        session->processing = true;
        (void)assembled_whole(session);
        session->processing = false;
        if (session->closing) input_discard(session);
    }
    while (session->pending != NULL && session->pause == MIR_PAUSE_NONE && !session->closing) {
        mir_pending *entry = session->pending;
        process_guarded(session, entry->buffer, entry->at, entry->size, &entry->at);
        if (session->closing) return true; /* pending was discarded */
        if (entry->at < entry->size) break;
        session->pending = entry->next;
        if (session->pending == NULL) session->pending_last = NULL;
        mir_buffer_release(entry->buffer);
        free(entry);
    }
    if (session->closing) return true;
    if (session->pause != MIR_PAUSE_NONE) return session->pause == MIR_PAUSE_CHECK;
    if (session->ended) {
        mir_session_fail(session, NULL, "Client Closed");
        return true;
    }
    if (session->receive_paused) {
        session->receive_paused = false;
        session->shard->backend->receive_resume(session->shard->poller, session->io_id);
    }
    return true;
}

void mir_session_event(mir_shard *shard, const mir_event *event)
{
    (void)shard;
    mir_session *session = event->user;
    switch (event->kind) {
    case MIR_EVENT_RECEIVED:
        if (session->gone) {
            if (event->buffer != NULL) mir_buffer_release(event->buffer);
            break;
        }
        on_received(session, event);
        break;
    case MIR_EVENT_SENT: on_sent(session, event->result); break;
    case MIR_EVENT_CLOSED: on_closed(session); break;
    case MIR_EVENT_ACCEPTED: MIR_ASSERT(false);
    }
}
