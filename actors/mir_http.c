/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mir_actors.h"
#include "mir_clock.h"
#include "mir_http_request.h"
#include "mir_influx.h"
#include "mir_log.h"
#include "mir_nats.h"
#include "mir_notices.h"
#include "mir_thread.h"

enum {
    CONNECTION_BYTES = 320 * 1024, /* of memory for a request's line and head: a long query in it */
    POST_BUFFER_BYTES = 4096,
    WATCH_MS = 50,
    LOGINS_MAX = 64, /* that are remembered */
    SALT_BYTES = 16,
};

/* Credentials that were right, as their salted SHA-256. Dashboards send them with each of many requests,
 * and each check of a bcrypt hash costs a worker as much as a large query. */
typedef struct known_login {
    bool used;
    uint8_t digest[MIR_STATE_HASH_BYTES];
    mir_login login;
} known_login;

typedef enum phase {
    READING = 0,
    RUNNING,
    DONE,
} phase;

/* One request, from its first line to its answer's last byte. */
typedef struct exchange {
    mir_job job;
    mir_http *http;
    struct MHD_Connection *connection;
    int fd;
    _Atomic int phase;
    struct MHD_PostProcessor *post;
    bool raw; /* the body is the query */
    bool is_post;
    size_t body_bytes;
    mir_http_request asked;
    char address[INET6_ADDRSTRLEN];
    /* While it runs, under the lock: */
    struct exchange *previous, *next;
    uint64_t number;
    int64_t deadline_ns;
    atomic_bool cancel, timed_out;
    mir_bytes answer;
    size_t answer_counted;
    unsigned code;
} exchange;

struct mir_http {
    mir_hub *hub;
    const mir_auth *auth;
    mir_http_counters *counters;
    int64_t timeout_ns;
    unsigned connections_max;
    struct MHD_Daemon *daemon;
    int listener; /* after mir_http_quiesce; the daemon's before */
    mir_workers *workers;
    pthread_t watcher;
    bool watching;
    atomic_bool draining;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    exchange *running;
    uint64_t numbers;
    bool stopping;
    known_login logins[LOGINS_MAX]; /* under the lock */
    unsigned login_next;            /* makes room */
    uint8_t salt[SALT_BYTES];
};

static void count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

static void count_down(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_fetch_sub_explicit(counter, by, memory_order_relaxed);
}

/* --- answers --------------------------------------------------------------------------------- */

static void answer_error(exchange *e, unsigned code, const char *text)
{
    e->answer.size = 0;
    e->answer.failed = false;
    mir_influx_json_error(&e->answer, text);
    e->code = code;
    count(&e->http->counters->errors, 1);
}

static enum MHD_Result respond(exchange *e)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(e->answer.size, e->answer.data, MHD_RESPMEM_PERSISTENT);
    if (response == NULL) return MHD_NO;
    if (e->answer.size != 0)
        (void)MHD_add_response_header(response, "Content-Type", "application/json");
    (void)MHD_add_response_header(response, "X-Influxdb-Version", "1.8.0-mir-" MIR_VERSION);
    (void)MHD_add_response_header(response, "X-Influxdb-Build", "Mir");
    if (e->code == MHD_HTTP_UNAUTHORIZED)
        (void)MHD_add_response_header(response, "WWW-Authenticate", "Basic realm=\"Mir\"");
    if (atomic_load_explicit(&e->http->draining, memory_order_relaxed))
        (void)MHD_add_response_header(response, "Connection", "close");
    count(&e->http->counters->bytes_out, e->answer.size);
    const enum MHD_Result result = MHD_queue_response(e->connection, e->code, response);
    MHD_destroy_response(response);
    return result;
}

/* --- the query, on a worker ------------------------------------------------------------------- */

typedef struct refusal {
    mir_post post;
    mir_hub *hub;
    char user[MIR_NOTICE_USER_BYTES_MAX];
    size_t user_size;
    char address[MIR_NOTICE_ADDRESS_BYTES_MAX];
} refusal;

static void tell_refusal(mir_shard *shard, mir_post *post)
{
    refusal *r = MIR_CONTAINER(post, refusal, post);
    const mir_notice notice = {.reason = MIR_NOTICE_AUTHENTICATION_FAILED,
                               .text = MIR_VIEW_LITERAL("wrong user or password"),
                               .user = mir_view_of(r->user, r->user_size),
                               .address = mir_view_cstr(r->address),
                               .count = 1};
    if (!shard->stopping) mir_notices_tell(shard, &notice);
    mir_hub_end(r->hub);
    free(r);
}

/* As an event, beside those of other connections; without memory it is counted alone. */
static void report_refusal(const exchange *e)
{
    mir_hub *hub = e->http->hub;
    count(&e->http->counters->auth_failures, 1);
    refusal *r = calloc(1, sizeof *r);
    if (r == NULL) return;
    r->post.run = tell_refusal;
    r->hub = hub;
    const mir_view user = mir_http_request_credentials(&e->asked).user;
    r->user_size = user.size < sizeof r->user ? user.size : sizeof r->user;
    if (r->user_size != 0) memcpy(r->user, user.data, r->user_size);
    (void)snprintf(r->address, sizeof r->address, "%s", e->address);
    mir_hub_begin(hub);
    mir_shard_post(hub->shards[0], &r->post);
}

/* Whether the user may ask for telemetry with a message, as a client that is called like the user. */
static bool may_query(const mir_login *login)
{
    char subject[512];
    char name[256];
    const size_t size = login->name.size < sizeof name - 1 ? login->name.size : sizeof name - 1;
    for (size_t i = 0; i < size; i++) {
        const uint8_t byte = login->name.data[i];
        name[i] = byte <= ' ' || byte == '.' || byte == '*' || byte == '>' ? '_' : (char)byte;
    }
    name[size] = '\0';
    const int length = snprintf(subject, sizeof subject, "client.%s.tlm.v1alpha.query", name);
    return mir_permissions_publish(login->permissions, mir_view_of(subject, (size_t)length));
}

static bool digest_of(const mir_http *http, const mir_credentials *credentials,
                      uint8_t digest[MIR_STATE_HASH_BYTES])
{
    const mir_view parts[] = {credentials->user, credentials->password, credentials->token};
    mir_bytes all = {0};
    mir_bytes_append(&all, http->salt, sizeof http->salt);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        mir_bytes_printf(&all, "%zu:", parts[i].size);
        mir_bytes_view(&all, parts[i]);
    }
    const bool ok = mir_bytes_ok(&all);
    if (ok) mir_state_schema_hash(mir_bytes_as_view(&all), digest);
    mir_bytes_free(&all);
    return ok;
}

/* What is right stays right as long as the server runs. */
static bool check_login(mir_http *http, const mir_credentials *credentials, mir_login *login)
{
    uint8_t digest[MIR_STATE_HASH_BYTES];
    if (!mir_auth_is_slow(http->auth, credentials) || !digest_of(http, credentials, digest))
        return mir_auth_check(http->auth, credentials, login);
    bool found = false;
    (void)pthread_mutex_lock(&http->lock);
    for (unsigned i = 0; i < LOGINS_MAX && !found; i++) {
        const known_login *known = &http->logins[i];
        found = known->used && memcmp(known->digest, digest, sizeof digest) == 0;
        if (found) *login = known->login;
    }
    (void)pthread_mutex_unlock(&http->lock);
    if (found) return true;
    if (!mir_auth_check(http->auth, credentials, login)) return false;
    (void)pthread_mutex_lock(&http->lock);
    known_login *place = &http->logins[http->login_next++ % LOGINS_MAX];
    place->used = true;
    memcpy(place->digest, digest, sizeof digest);
    place->login = *login;
    (void)pthread_mutex_unlock(&http->lock);
    return true;
}

static bool log_in(exchange *e)
{
    mir_login login;
    const mir_credentials credentials = mir_http_request_credentials(&e->asked);
    if (!check_login(e->http, &credentials, &login)) {
        answer_error(e, MHD_HTTP_UNAUTHORIZED, "authorization failed");
        report_refusal(e);
        return false;
    }
    if (!may_query(&login)) {
        answer_error(e, MHD_HTTP_FORBIDDEN,
                     "this user may not query telemetry: it takes the permission to publish to "
                     "client.USER.tlm.v1alpha.query");
        return false;
    }
    return true;
}

static void indent(exchange *e)
{
    mir_bytes pretty = {.size_max = MIR_HTTP_ANSWER_BYTES_MAX};
    if (mir_influx_json_indent(mir_bytes_as_view(&e->answer), &pretty) == MIR_OK) {
        mir_bytes_free(&e->answer);
        e->answer = pretty;
        return;
    }
    mir_bytes_free(&pretty);
    answer_error(e, MHD_HTTP_BAD_REQUEST,
                 "the answer is too large with line breaks: leave pretty out");
}

static void run_query(exchange *e)
{
    mir_http *http = e->http;
    const mir_config *config = http->hub->config;
    mir_influx_request request = {.state = http->hub->state,
                                  .tlog = http->hub->tlog,
                                  .schemas = http->hub->schemas,
                                  .text = mir_bytes_as_view(&e->asked.query),
                                  .database = mir_bytes_as_view(&e->asked.database),
                                  .now_ns = mir_clock_wall_ns(),
                                  .chunk_rows = mir_http_request_chunk_rows(&e->asked),
                                  .keep_ns = config->telemetry.retention_age_ns,
                                  .memory_bytes_max = MIR_HTTP_QUERY_BYTES_MAX,
                                  .answer_bytes_max = MIR_HTTP_ANSWER_BYTES_MAX,
                                  .cancel = &e->cancel};
    if (e->asked.query.size == 0) {
        answer_error(e, MHD_HTTP_BAD_REQUEST, "missing required parameter \"q\"");
        return;
    }
    if (!mir_http_request_epoch(&e->asked, &request.epoch_ns)) {
        answer_error(e, MHD_HTTP_BAD_REQUEST, "epoch is one of ns, u, ms, s, m and h");
        return;
    }
    mir_influx_info info;
    count(&http->counters->queries, 1);
    const int64_t began_ns = mir_clock_mono_ns();
    const mir_status status = mir_influx_answer(&request, &e->answer, &info);
    count(&http->counters->busy_ns, (uint64_t)(mir_clock_mono_ns() - began_ns));
    count(&http->counters->rows, info.rows);
    if (info.damaged) {
        count(&http->counters->damaged, 1);
        mir_log_warn("the answer to a query over HTTP is incomplete: damaged chunks were left out; "
                     "`mir storage verify` says which");
    }
    e->code = status == MIR_OK ? MHD_HTTP_OK : MHD_HTTP_BAD_REQUEST;
    if (atomic_load(&e->timed_out)) {
        char text[160];
        (void)snprintf(text, sizeof text,
                       "the query took longer than %" PRId64
                       " s (http.timeout): ask for a shorter time, or fewer devices",
                       http->timeout_ns / MIR_NS_PER_S);
        answer_error(e, MHD_HTTP_SERVICE_UNAVAILABLE, text);
    } else if (status == MIR_E_NO_MEMORY) {
        answer_error(e, MHD_HTTP_SERVICE_UNAVAILABLE, "the server is out of memory");
    } else {
        if (status != MIR_OK || info.failed != 0) count(&http->counters->errors, 1);
        if (mir_http_request_pretty(&e->asked)) indent(e);
    }
}

static void run_job(mir_job *job)
{
    exchange *e = MIR_CONTAINER(job, exchange, job);
    mir_http *http = e->http;
    if (!atomic_load(&e->cancel)) {
        if (log_in(e)) run_query(e);
    } else {
        answer_error(e, MHD_HTTP_SERVICE_UNAVAILABLE,
                     atomic_load(&e->timed_out) ? "the server is busy: other queries took too long"
                                                : "the server is stopping");
    }
    e->answer_counted = e->answer.size;
    count(&http->counters->answer_bytes, e->answer_counted);
    (void)pthread_mutex_lock(&http->lock);
    if (e->previous != NULL)
        e->previous->next = e->next;
    else
        http->running = e->next;
    if (e->next != NULL) e->next->previous = e->previous;
    (void)pthread_mutex_unlock(&http->lock);
    count_down(&http->counters->running, 1);
    atomic_store(&e->phase, DONE);
    /* From here on it belongs to the thread of the connections. */
    MHD_resume_connection(e->connection);
}

/* --- who waits ------------------------------------------------------------------------------- */

/* Under the lock: those that still run, and whose client may go. */
static unsigned watch_list(mir_http *http, uint64_t *numbers, struct pollfd *polls)
{
    unsigned used = 0;
    const int64_t now_ns = mir_clock_mono_ns();
    for (exchange *e = http->running; e != NULL && used < http->connections_max; e = e->next) {
        if (atomic_load(&e->cancel)) continue;
        if (now_ns >= e->deadline_ns) {
            count(&http->counters->timeouts, 1);
            atomic_store(&e->timed_out, true);
            atomic_store(&e->cancel, true);
            continue;
        }
        numbers[used] = e->number;
        polls[used++] = (struct pollfd){.fd = e->fd, .events = POLLRDHUP};
    }
    return used;
}

/* A socket may have been closed since, and its number may be another's: what counts is whether the
 * exchange is still there. */
static void cancel_gone(mir_http *http, uint64_t number)
{
    for (exchange *e = http->running; e != NULL; e = e->next) {
        if (e->number != number || atomic_load(&e->cancel)) continue;
        count(&http->counters->gone, 1);
        atomic_store(&e->cancel, true);
    }
}

static void *watch(void *context)
{
    mir_http *http = context;
    (void)pthread_setname_np(pthread_self(), "http-watch");
    uint64_t *numbers = calloc(http->connections_max, sizeof *numbers);
    struct pollfd *polls = calloc(http->connections_max, sizeof *polls);
    (void)pthread_mutex_lock(&http->lock);
    while (!http->stopping && numbers != NULL && polls != NULL) {
        if (http->running == NULL) {
            (void)pthread_cond_wait(&http->changed, &http->lock);
            continue;
        }
        const unsigned used = watch_list(http, numbers, polls);
        (void)pthread_mutex_unlock(&http->lock);
        const int found = poll(polls, used, WATCH_MS);
        (void)pthread_mutex_lock(&http->lock);
        for (unsigned i = 0; found > 0 && i < used; i++)
            if (polls[i].revents != 0) cancel_gone(http, numbers[i]);
    }
    (void)pthread_mutex_unlock(&http->lock);
    free(numbers);
    free(polls);
    return NULL;
}

/* --- requests -------------------------------------------------------------------------------- */

static enum MHD_Result take_argument(void *context, enum MHD_ValueKind kind, const char *key,
                                     size_t key_size, const char *value, size_t size)
{
    (void)kind;
    (void)key_size;
    mir_http_request_take(context, key, value, size, 0);
    return MHD_YES;
}

static enum MHD_Result take_posted(void *context, enum MHD_ValueKind kind, const char *key,
                                   const char *file, const char *type, const char *encoding,
                                   const char *data, uint64_t offset, size_t size)
{
    (void)kind;
    (void)file;
    (void)type;
    (void)encoding;
    mir_http_request_take(context, key, data, size, offset);
    return MHD_YES;
}

static void take_address(exchange *e)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(e->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(e->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    e->fd = fd == NULL ? -1 : fd->connect_fd;
    if (info == NULL || info->client_addr == NULL) return;
    if (info->client_addr->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, info->client_addr, sizeof in6);
        (void)inet_ntop(AF_INET6, &in6.sin6_addr, e->address, sizeof e->address);
    } else {
        struct sockaddr_in in;
        memcpy(&in, info->client_addr, sizeof in);
        (void)inet_ntop(AF_INET, &in.sin_addr, e->address, sizeof e->address);
    }
}

/* False: the exchange was answered. */
static bool start_query(exchange *e)
{
    mir_http *http = e->http;
    mir_http_counters *counters = http->counters;
    (void)MHD_get_connection_values_n(e->connection, MHD_GET_ARGUMENT_KIND, take_argument,
                                      &e->asked);
    mir_http_request_authorize(
        &e->asked, MHD_lookup_connection_value(e->connection, MHD_HEADER_KIND, "Authorization"));
    take_address(e);
    if (e->asked.too_large) {
        answer_error(e, MHD_HTTP_CONTENT_TOO_LARGE, "the request is larger than it may be");
        return false;
    }
    if (atomic_load_explicit(&counters->answer_bytes, memory_order_relaxed) >
        MIR_HTTP_ANSWERS_BYTES_MAX) {
        answer_error(e, MHD_HTTP_SERVICE_UNAVAILABLE,
                     "too many large answers wait for their clients: try again later");
        return false;
    }
    e->deadline_ns = mir_clock_mono_ns() + http->timeout_ns;
    e->job.run = run_job;
    (void)pthread_mutex_lock(&http->lock);
    const bool stopping = http->stopping;
    if (!stopping) {
        e->number = ++http->numbers;
        e->next = http->running;
        if (http->running != NULL) http->running->previous = e;
        http->running = e;
        count(&counters->running, 1);
        atomic_store(&e->phase, RUNNING);
        /* Until the worker resumes it, the connection is not touched. */
        MHD_suspend_connection(e->connection);
        mir_workers_submit(http->workers, &e->job);
        (void)pthread_cond_signal(&http->changed);
    }
    (void)pthread_mutex_unlock(&http->lock);
    if (stopping) answer_error(e, MHD_HTTP_SERVICE_UNAVAILABLE, "the server is stopping");
    return !stopping;
}

static bool is_get(const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
}

static enum MHD_Result finish_request(exchange *e, const char *url, const char *method)
{
    if (atomic_load(&e->phase) == DONE) return respond(e);
    if (atomic_load(&e->phase) == RUNNING) return MHD_YES;
    count(&e->http->counters->requests, 1);
    if (strcmp(url, "/query") == 0 && (is_get(method) || e->is_post)) {
        if (start_query(e)) return MHD_YES;
    } else if (strcmp(url, "/ping") == 0 && is_get(method)) {
        e->code = MHD_HTTP_NO_CONTENT;
    } else if (strcmp(url, "/health") == 0 && is_get(method)) {
        mir_bytes_text(&e->answer,
                       "{\"name\":\"mir\",\"message\":\"ready for queries\",\"status\":\"pass\","
                       "\"checks\":[],\"version\":\"" MIR_VERSION "\"}\n");
        e->code = MHD_HTTP_OK;
    } else if (strcmp(url, "/write") == 0) {
        answer_error(e, MHD_HTTP_METHOD_NOT_ALLOWED,
                     "nothing is written here: devices publish their telemetry");
    } else if (strcmp(url, "/query") == 0 || strcmp(url, "/ping") == 0 ||
               strcmp(url, "/health") == 0) {
        answer_error(e, MHD_HTTP_METHOD_NOT_ALLOWED, "this method is not supported here");
    } else {
        answer_error(e, MHD_HTTP_NOT_FOUND, "there are /query, /ping and /health");
    }
    return respond(e);
}

static exchange *new_exchange(mir_http *http, struct MHD_Connection *connection, const char *method)
{
    exchange *e = calloc(1, sizeof *e);
    if (e == NULL) return NULL;
    e->http = http;
    e->connection = connection;
    e->is_post = strcmp(method, "POST") == 0;
    if (!e->is_post) return e;
    const char *type = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Type");
    e->post = MHD_create_post_processor(connection, POST_BUFFER_BYTES, take_posted, &e->asked);
    e->raw =
        e->post == NULL && type != NULL && strncasecmp(type, "application/vnd.influxql", 24) == 0;
    return e;
}

static void name_thread(void)
{
    static _Thread_local bool named;
    if (named) return;
    named = true;
    (void)pthread_setname_np(pthread_self(), "http");
    mir_thread_give_way(0);
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **place)
{
    (void)version;
    exchange *e = *place;
    name_thread();
    if (e == NULL) {
        *place = e = new_exchange(context, connection, method);
        return e == NULL ? MHD_NO : MHD_YES;
    }
    if (*size != 0) {
        e->body_bytes += *size;
        if (e->body_bytes > MIR_HTTP_BODY_BYTES_MAX)
            e->asked.too_large = true;
        else if (e->post != NULL)
            (void)MHD_post_process(e->post, data, *size);
        else if (e->raw)
            mir_http_request_take(&e->asked, "q", data, *size, e->body_bytes - *size);
        *size = 0;
        return MHD_YES;
    }
    if (e->post != NULL) {
        /* What it still holds comes now. */
        (void)MHD_destroy_post_processor(e->post);
        e->post = NULL;
    }
    return finish_request(e, url, method);
}

static void complete(void *context, struct MHD_Connection *connection, void **place,
                     enum MHD_RequestTerminationCode why)
{
    (void)context;
    (void)connection;
    (void)why;
    exchange *e = *place;
    if (e == NULL) return;
    if (e->post != NULL) (void)MHD_destroy_post_processor(e->post);
    count_down(&e->http->counters->answer_bytes, e->answer_counted);
    mir_http_request_free(&e->asked);
    mir_bytes_free(&e->answer);
    free(e);
    *place = NULL;
}

static void notice_connection(void *context, struct MHD_Connection *connection, void **place,
                              enum MHD_ConnectionNotificationCode code)
{
    mir_http *http = context;
    (void)connection;
    (void)place;
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        count(&http->counters->connections, 1);
    else
        count_down(&http->counters->connections, 1);
}

static void log_line(void *context, const char *format, va_list args) MIR_PRINTF(2, 0);
static void log_line(void *context, const char *format, va_list args)
{
    char text[512];
    (void)context;
    (void)vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    mir_log_debug("http: %s", text);
}

/* --- life ------------------------------------------------------------------------------------ */

static mir_status start_daemon(mir_http *http, int listener, mir_error *error)
{
    /* The library says with `errno` alone why not. With epoll, 0.9.75 does not notice that a client has
     * gone when the news came together with bytes, and keeps its place until it has been idle for too
     * long. */
    errno = 0;
    http->daemon = MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        handle, http, MHD_OPTION_EXTERNAL_LOGGER, log_line, NULL, MHD_OPTION_LISTEN_SOCKET,
        (MHD_socket)listener, MHD_OPTION_CONNECTION_LIMIT, http->connections_max,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)MIR_HTTP_IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_NOTIFY_COMPLETED,
        complete, NULL, MHD_OPTION_NOTIFY_CONNECTION, notice_connection, http, MHD_OPTION_END);
    if (http->daemon != NULL) return MIR_OK;
    return mir_error_os(error, errno, "the HTTP interface cannot start");
}

mir_status mir_http_start(struct mir_hub *hub, const mir_auth *auth, int listener, mir_http **http,
                          mir_error *error)
{
    const mir_config *config = hub->config;
    mir_http *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) {
        (void)close(listener);
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    fresh->hub = hub;
    fresh->listener = -1;
    fresh->auth = auth;
    fresh->counters = &hub->http;
    fresh->timeout_ns = config->http.timeout_ns;
    fresh->connections_max = (unsigned)config->http.max_connections;
    if (getrandom(fresh->salt, sizeof fresh->salt, 0) != (ssize_t)sizeof fresh->salt) {
        (void)close(listener);
        free(fresh);
        return mir_error_os(error, errno, "getrandom");
    }
    (void)pthread_mutex_init(&fresh->lock, NULL);
    (void)pthread_cond_init(&fresh->changed, NULL);
    mir_status status = mir_workers_create((unsigned)config->http.threads, MIR_THREAD_NICE_LAST,
                                           "http-query", &fresh->workers);
    if (status != MIR_OK)
        (void)mir_error_set(error, status, "the HTTP interface cannot start: %s",
                            mir_status_name(status));
    if (status == MIR_OK) {
        const int rc = pthread_create(&fresh->watcher, NULL, watch, fresh);
        fresh->watching = rc == 0;
        if (rc != 0) status = mir_error_os(error, rc, "the HTTP interface cannot start");
    }
    if (status == MIR_OK) status = start_daemon(fresh, listener, error);
    if (status != MIR_OK) {
        (void)close(listener);
        mir_http_stop(fresh);
        return status;
    }
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    (void)getsockname(listener, (struct sockaddr *)&bound, &size);
    struct sockaddr_in in; /* both families have the port in the same place */
    memcpy(&in, &bound, sizeof in);
    atomic_store(&fresh->counters->port, ntohs(in.sin_port));
    mir_log_info("http on %s%s%s:%u, for dashboards", config->http.listen.ipv6 ? "[" : "",
                 config->http.listen.host, config->http.listen.ipv6 ? "]" : "", ntohs(in.sin_port));
    *http = fresh;
    return MIR_OK;
}

void mir_http_quiesce(mir_http *http)
{
    if (http == NULL || atomic_exchange(&http->draining, true)) return;
    http->listener = MHD_quiesce_daemon(http->daemon);
    /* Refuses connections at once. The library's thread may be about to name it still: its number stays
     * taken until that thread has ended. */
    if (http->listener >= 0) (void)shutdown(http->listener, SHUT_RDWR);
}

void mir_http_stop(mir_http *http)
{
    if (http == NULL) return;
    if (http->daemon != NULL) mir_http_quiesce(http);
    (void)pthread_mutex_lock(&http->lock);
    http->stopping = true;
    for (exchange *e = http->running; e != NULL; e = e->next) atomic_store(&e->cancel, true);
    (void)pthread_cond_signal(&http->changed);
    (void)pthread_mutex_unlock(&http->lock);
    if (http->watching) (void)pthread_join(http->watcher, NULL);
    /* Every query that was taken ends, and its connection is resumed. */
    mir_workers_destroy(http->workers);
    if (http->daemon != NULL) MHD_stop_daemon(http->daemon);
    if (http->listener >= 0) (void)close(http->listener);
    atomic_store(&http->counters->port, 0);
    (void)pthread_cond_destroy(&http->changed);
    (void)pthread_mutex_destroy(&http->lock);
    free(http);
}
