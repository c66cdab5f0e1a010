/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_client.h"

#include "mir_clock.h"
#include "mir_nats.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    INBOX_BYTES = 48,
    READ_BYTES = 64 * 1024,
    WRITE_BYTES = 64 * 1024,
    ARGUMENTS_MAX = 5,
};
#define TICK_NS (200 * MIR_NS_PER_MS)

struct mir_client {
    int fd;
    int64_t timeout_ns;
    int64_t max_payload;
    uint64_t requests;
    char instance[MIR_CLIENT_INSTANCE_BYTES];
    char inbox[INBOX_BYTES];
    mir_bytes in; /* bytes read; those before `taken` are done with */
    size_t taken;
    mir_bytes out; /* published and not sent yet */
    uint64_t pings, pongs;
    int stop_fd;
    mir_client_message_fn heard; /* null: nothing is subscribed */
    void *heard_context;
    uint64_t heard_count;
};

/* Random letters and digits. 62 does not divide 256; an inbox name needs no exact evenness. */
static void random_text(char *text, size_t size)
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint8_t raw[64] = {0};
    if (size > sizeof raw) size = sizeof raw;
    if (getrandom(raw, size, 0) != (ssize_t)size) {
        uint64_t seed = (uint64_t)mir_clock_wall_ns() ^ ((uint64_t)getpid() << 40);
        for (size_t i = 0; i < size; i++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            raw[i] = (uint8_t)(seed >> 56);
        }
    }
    for (size_t i = 0; i < size; i++) text[i] = letters[raw[i] % (sizeof letters - 1)];
    text[size] = '\0';
}

/* Waits until the socket is ready for `events`. A `stop_fd` of -1 is none. */
MIR_MUST_CHECK static mir_status await(int fd, int stop_fd, short events, int64_t deadline_ns,
                                       mir_error *error)
{
    for (;;) {
        int64_t left_ns = deadline_ns - mir_clock_mono_ns();
        if (left_ns <= 0) return mir_error_set(error, MIR_E_TIMEOUT, "no answer in time");
        struct pollfd wait[] = {{.fd = fd, .events = events}, {.fd = stop_fd, .events = POLLIN}};
        int64_t left_ms = left_ns / MIR_NS_PER_MS + 1;
        int ready = poll(wait, 2, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
        if (ready > 0 && wait[1].revents != 0)
            return mir_error_set(error, MIR_E_CANCELLED, "stopped");
        if (ready > 0) return MIR_OK;
        if (ready < 0 && errno != EINTR) return mir_error_os(error, errno, "cannot wait");
    }
}

MIR_MUST_CHECK static mir_status write_all(mir_client *client, mir_view bytes, int64_t deadline_ns,
                                           mir_error *error)
{
    while (bytes.size > 0) {
        ssize_t written = send(client->fd, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (written >= 0) {
            bytes = mir_view_from(bytes, (size_t)written);
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            return mir_error_os(error, errno, "the connection broke");
        mir_status status = await(client->fd, client->stop_fd, POLLOUT, deadline_ns, error);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

/* Reads at least one more byte. */
MIR_MUST_CHECK static mir_status read_more(mir_client *client, int64_t deadline_ns,
                                           mir_error *error)
{
    if (client->taken > 0) {
        memmove(client->in.data, client->in.data + client->taken, client->in.size - client->taken);
        client->in.size -= client->taken;
        client->taken = 0;
    }
    uint8_t *room = mir_bytes_reserve(&client->in, READ_BYTES);
    if (room == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory for the answer");
    for (;;) {
        ssize_t size = recv(client->fd, client->in.data + client->in.size, READ_BYTES, 0);
        if (size > 0) {
            client->in.size += (size_t)size;
            return MIR_OK;
        }
        if (size == 0)
            return mir_error_set(error, MIR_E_CLOSED, "the server closed the connection");
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            return mir_error_os(error, errno, "the connection broke");
        mir_status status = await(client->fd, client->stop_fd, POLLIN, deadline_ns, error);
        if (status != MIR_OK) return status;
    }
}

/* The next control line without its line end; valid until the next read. */
MIR_MUST_CHECK static mir_status read_line(mir_client *client, mir_view *line, int64_t deadline_ns,
                                           mir_error *error)
{
    size_t seen = 0;
    for (;;) {
        const uint8_t *start = client->in.data + client->taken;
        size_t have = client->in.size - client->taken;
        const uint8_t *end = have > seen ? memchr(start + seen, '\n', have - seen) : NULL;
        if (end != NULL) {
            size_t size = (size_t)(end - start);
            client->taken += size + 1;
            if (size > 0 && start[size - 1] == '\r') size--;
            *line = mir_view_of(start, size);
            return MIR_OK;
        }
        if (have > MIR_CLIENT_LINE_BYTES_MAX)
            return mir_error_set(error, MIR_E_INVALID, "what answers there is not a Mir server");
        seen = have;
        mir_status status = read_more(client, deadline_ns, error);
        if (status != MIR_OK) return status;
    }
}

/* The next `size` bytes and the line end behind them; valid until the next read. */
MIR_MUST_CHECK static mir_status read_body(mir_client *client, size_t size, mir_view *body,
                                           int64_t deadline_ns, mir_error *error)
{
    while (client->in.size - client->taken < size + 2) {
        mir_status status = read_more(client, deadline_ns, error);
        if (status != MIR_OK) return status;
    }
    const uint8_t *start = client->in.data + client->taken;
    if (start[size] != '\r' || start[size + 1] != '\n')
        return mir_error_set(error, MIR_E_INVALID, "a message from the server is malformed");
    *body = mir_view_of(start, size);
    client->taken += size + 2;
    return MIR_OK;
}

static bool line_is(mir_view line, const char *op)
{
    size_t size = strlen(op);
    return line.size >= size && strncasecmp((const char *)line.data, op, size) == 0 &&
           (line.size == size || line.data[size] == ' ' || line.data[size] == '\t');
}

/* What `-ERR 'text'` says, as an outcome. */
MIR_MUST_CHECK static mir_status refused(mir_view line, mir_error *error)
{
    mir_view text = mir_view_from(line, 4);
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\''))
        text = mir_view_from(text, 1);
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\''))
        text.size--;
    char words[256];
    (void)snprintf(words, sizeof words, "%.*s", MIR_VIEW_ARGS(text));
    bool denied = strncasecmp(words, "authorization", 13) == 0 ||
                  strncasecmp(words, "authentication", 14) == 0 ||
                  strncasecmp(words, "user authentication", 19) == 0 ||
                  strncasecmp(words, "permissions violation", 21) == 0;
    return mir_error_set(error, denied ? MIR_E_PERMISSION : MIR_E_CLOSED, "the server says: %s",
                         words);
}

/* The blank-separated words behind the op. */
static size_t split(mir_view line, mir_view *words, size_t words_max)
{
    size_t count = 0;
    size_t at = 0;
    while (at < line.size) {
        while (at < line.size && (line.data[at] == ' ' || line.data[at] == '\t')) at++;
        size_t start = at;
        while (at < line.size && line.data[at] != ' ' && line.data[at] != '\t') at++;
        if (at == start) break;
        if (count == words_max) return words_max + 1;
        words[count++] = mir_view_of(line.data + start, at - start);
    }
    return count;
}

static bool parse_size(mir_view text, size_t *value)
{
    if (text.size == 0 || text.size > 9) return false;
    size_t sum = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') return false;
        sum = sum * 10 + (size_t)(text.data[i] - '0');
    }
    *value = sum;
    return true;
}

typedef struct message {
    char subject[256]; /* cut when longer: then it is none of ours; empty: no message came */
    int code;          /* of the status line, 0 when there is none */
    mir_view headers;
    mir_view payload;
} message;

typedef enum wait_for {
    FOR_PONG,
    FOR_ANYTHING, /* one line and what belongs to it, whatever it is */
} wait_for;

/* The ids of the two subscriptions that a client can have. */
#define INBOX_SID "1"
#define HEARD_SID "2"

/* Reads and answers pings, hands out what is subscribed, and leaves an answer in `out`. */
MIR_MUST_CHECK static mir_status next_message(mir_client *client, wait_for what, message *out,
                                              int64_t deadline_ns, mir_error *error)
{
    for (bool first = true;; first = false) {
        mir_view line;
        out->subject[0] = '\0';
        if (!first && what == FOR_ANYTHING) return MIR_OK;
        mir_status status = read_line(client, &line, deadline_ns, error);
        if (status != MIR_OK) return status;
        if (line_is(line, "-ERR")) return refused(line, error);
        if (line_is(line, "PING")) {
            status = write_all(client, MIR_VIEW_LITERAL("PONG\r\n"), deadline_ns, error);
            if (status != MIR_OK) return status;
            continue;
        }
        if (line_is(line, "PONG")) {
            if (client->pongs < client->pings) client->pongs++;
            if (what == FOR_PONG) return MIR_OK;
            continue;
        }
        if (line_is(line, "+OK") || line_is(line, "INFO")) continue;
        bool headers = line_is(line, "HMSG");
        if (!headers && !line_is(line, "MSG"))
            return mir_error_set(error, MIR_E_INVALID, "what answers there is not a Mir server");

        mir_view words[ARGUMENTS_MAX];
        size_t count = split(mir_view_from(line, headers ? 4 : 3), words, ARGUMENTS_MAX);
        size_t least = headers ? 4 : 3;
        size_t header_size = 0;
        size_t total_size = 0;
        if (count < least || count > least + 1 || !parse_size(words[count - 1], &total_size) ||
            (headers && !parse_size(words[count - 2], &header_size)) || header_size > total_size)
            return mir_error_set(error, MIR_E_INVALID, "a message from the server is malformed");
        if (total_size > MIR_CLIENT_REPLY_BYTES_MAX)
            return mir_error_set(error, MIR_E_TOO_LARGE, "an answer of %zu bytes is too large",
                                 total_size);
        (void)snprintf(out->subject, sizeof out->subject, "%.*s", MIR_VIEW_ARGS(words[0]));
        bool heard = mir_view_eq_cstr(words[1], HEARD_SID);
        mir_view body = {0};
        status = read_body(client, total_size, &body, deadline_ns, error);
        if (status != MIR_OK) return status;
        out->code = 0;
        if (header_size >= 12 && mir_view_starts(body, MIR_VIEW_LITERAL("NATS/1.0 "))) {
            for (size_t i = 9; i < 12; i++) {
                if (body.data[i] < '0' || body.data[i] > '9') break;
                out->code = out->code * 10 + (body.data[i] - '0');
            }
        }
        out->headers = mir_view_of(body.data, header_size);
        out->payload = mir_view_from(body, header_size);
        if (!heard) {
            if (what == FOR_ANYTHING) return MIR_OK;
            continue;
        }
        client->heard_count++;
        if (client->heard != NULL)
            client->heard(client->heard_context, out->subject, out->headers, out->payload);
    }
}

MIR_MUST_CHECK static mir_status start_connect(const struct sockaddr *address, socklen_t size,
                                               int64_t deadline_ns, int *out, mir_error *error)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return mir_error_os(error, errno, "cannot open a socket");
    if (connect(fd, address, size) != 0) {
        int failure = errno;
        if (failure == EINPROGRESS) {
            mir_status status = await(fd, -1, POLLOUT, deadline_ns, error);
            socklen_t failure_size = sizeof failure;
            failure = 0;
            if (status != MIR_OK) {
                (void)close(fd);
                return status;
            }
            if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &failure_size) != 0) failure = errno;
        }
        if (failure != 0) {
            (void)close(fd);
            char text[128];
            return mir_error_set(error, MIR_E_UNREACHABLE, "%s",
                                 strerror_r(failure, text, sizeof text));
        }
    }
    *out = fd;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status connect_unix(const char *path, int64_t deadline_ns, int *fd,
                                              mir_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return mir_error_set(error, MIR_E_UNREACHABLE,
                             "the path of a socket has at most %zu bytes, choose a shorter one",
                             sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    return start_connect((const struct sockaddr *)&address, sizeof address, deadline_ns, fd, error);
}

MIR_MUST_CHECK static mir_status connect_tcp(const char *host, const char *port,
                                             int64_t deadline_ns, int *fd, mir_error *error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(host, port, &hints, &found);
    if (failure != 0)
        return mir_error_set(error, MIR_E_UNREACHABLE, "cannot look up '%s': %s", host,
                             gai_strerror(failure));
    mir_status status = mir_error_set(error, MIR_E_UNREACHABLE, "'%s' has no address", host);
    for (const struct addrinfo *each = found; each != NULL; each = each->ai_next) {
        status = start_connect(each->ai_addr, each->ai_addrlen, deadline_ns, fd, error);
        if (status == MIR_OK) {
            int on = 1;
            (void)setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            break;
        }
    }
    freeaddrinfo(found);
    return status;
}

typedef struct endpoint {
    char path[256]; /* a unix socket, when not empty */
    char host[256];
    char port[8];
    char user[256];
    char password[256];
    bool has_user;
    bool has_password;
} endpoint;

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Copies with %XX decoded; false when it does not fit or is malformed. */
static bool decode_part(const char *text, size_t size, char *out, size_t out_size)
{
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < size ? hex_value(text[i + 1]) : -1;
            int low = high >= 0 ? hex_value(text[i + 2]) : -1;
            if (low < 0 || (high | low) == 0) return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (used + 1 >= out_size) return false;
        out[used++] = c;
    }
    out[used] = '\0';
    return true;
}

MIR_MUST_CHECK static mir_status parse_address(const char *address, endpoint *out, mir_error *error)
{
    *out = (endpoint){0};
    const char *rest = address;
    if (strncmp(rest, "unix://", 7) == 0) rest += 7;
    if (rest[0] == '/' || (rest[0] == '.' && strchr(rest, '/') != NULL)) {
        if (strlen(rest) >= sizeof out->path)
            return mir_error_set(error, MIR_E_INVALID, "the path '%s' is too long", rest);
        (void)snprintf(out->path, sizeof out->path, "%s", rest);
        return MIR_OK;
    }
    const char *scheme_end = strstr(address, "://");
    if (scheme_end != NULL) {
        if (strncmp(address, "tls://", 6) == 0 || strncmp(address, "nats+tls://", 11) == 0)
            return mir_error_set(
                error, MIR_E_UNSUPPORTED,
                "this version of mir does not speak TLS: use nats://, or the admin "
                "socket on the server's own machine");
        if (strncmp(address, "nats://", 7) != 0)
            return mir_error_set(error, MIR_E_INVALID,
                                 "'%s' is not nats://HOST:PORT, unix:///PATH or HOST:PORT",
                                 address);
        rest = scheme_end + 3;
    }
    size_t size = strcspn(rest, "/");
    const char *at = memrchr(rest, '@', size);
    if (at != NULL) {
        size_t login_size = (size_t)(at - rest);
        const char *colon = memchr(rest, ':', login_size);
        size_t user_size = colon != NULL ? (size_t)(colon - rest) : login_size;
        if (!decode_part(rest, user_size, out->user, sizeof out->user) ||
            (colon != NULL && !decode_part(colon + 1, login_size - user_size - 1, out->password,
                                           sizeof out->password)))
            return mir_error_set(error, MIR_E_INVALID, "the login in the address is malformed");
        out->has_user = true;
        out->has_password = colon != NULL;
        size -= login_size + 1;
        rest = at + 1;
    }
    const char *host = rest;
    size_t host_size = size;
    const char *port = NULL;
    if (size > 0 && rest[0] == '[') {
        const char *close_bracket = memchr(rest, ']', size);
        if (close_bracket == NULL)
            return mir_error_set(error, MIR_E_INVALID, "']' is missing in '%s'", address);
        host = rest + 1;
        host_size = (size_t)(close_bracket - host);
        if (close_bracket + 1 < rest + size && close_bracket[1] == ':') port = close_bracket + 2;
    } else {
        const char *colon = memrchr(rest, ':', size);
        if (colon != NULL) {
            host_size = (size_t)(colon - rest);
            port = colon + 1;
        }
    }
    if (host_size == 0 || host_size >= sizeof out->host)
        return mir_error_set(error, MIR_E_INVALID, "'%s' names no host", address);
    memcpy(out->host, host, host_size);
    out->host[host_size] = '\0';
    (void)snprintf(out->port, sizeof out->port, "4222");
    if (port != NULL) {
        size_t port_size = (size_t)(rest + size - port);
        size_t number = 0;
        if (port_size > 5 || !parse_size(mir_view_of(port, port_size), &number) || number == 0 ||
            number > 65535)
            return mir_error_set(error, MIR_E_INVALID, "'%s' has no valid port", address);
        (void)snprintf(out->port, sizeof out->port, "%zu", number);
    }
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_info(mir_client *client, int64_t deadline_ns,
                                           mir_error *error)
{
    mir_view line;
    mir_status status = read_line(client, &line, deadline_ns, error);
    if (status != MIR_OK) return status;
    if (line_is(line, "-ERR")) return refused(line, error);
    if (!line_is(line, "INFO"))
        return mir_error_set(error, MIR_E_INVALID, "what answers there is not a Mir server");
    json_t *info = json_loadb((const char *)line.data + 4, line.size - 4, 0, NULL);
    if (info == NULL)
        return mir_error_set(error, MIR_E_INVALID, "what answers there is not a Mir server");
    client->max_payload = json_integer_value(json_object_get(info, "max_payload"));
    if (json_is_true(json_object_get(info, "tls_required")))
        status = mir_error_set(error, MIR_E_UNSUPPORTED,
                               "the server asks for TLS, which this version of mir does not speak");
    else if (!json_is_true(json_object_get(info, "headers")))
        status = mir_error_set(error, MIR_E_UNSUPPORTED, "the server does not support headers");
    json_decref(info);
    return status;
}

MIR_MUST_CHECK static mir_status log_in(mir_client *client, const mir_client_options *options,
                                        const endpoint *where, int64_t deadline_ns,
                                        mir_error *error)
{
    json_t *login = json_pack("{s:b s:b s:b s:b s:b s:i s:s s:s s:s}", "verbose", 0, "pedantic", 0,
                              "headers", 1, "no_responders", 1, "tls_required", 0, "protocol", 1,
                              "name", options->name, "lang", "c", "version", MIR_VERSION);
    const char *user = where->has_user ? where->user : options->user;
    const char *password = where->has_user ? where->password : options->password;
    const char *token = where->has_user && !where->has_password ? where->user : options->token;
    int failures = login == NULL;
    if (where->has_user && !where->has_password) user = NULL;
    if (user != NULL) {
        failures += json_object_set_new(login, "user", json_string(user)) != 0;
        failures += json_object_set_new(login, "pass", json_string(password ? password : "")) != 0;
    } else if (token != NULL) {
        failures += json_object_set_new(login, "auth_token", json_string(token)) != 0;
    }
    char *text = failures == 0 ? json_dumps(login, JSON_COMPACT) : NULL;
    json_decref(login);
    if (text == NULL) return mir_error_set(error, MIR_E_INVALID, "the login is not valid UTF-8");
    mir_bytes out = {0};
    mir_bytes_printf(&out, "CONNECT %s\r\nSUB %s.* " INBOX_SID "\r\nPING\r\n", text, client->inbox);
    free(text);
    mir_status status = MIR_E_NO_MEMORY;
    if (mir_bytes_ok(&out)) status = write_all(client, mir_bytes_as_view(&out), deadline_ns, error);
    if (out.data != NULL) explicit_bzero(out.data, out.size);
    mir_bytes_free(&out);
    if (status != MIR_OK) return status;
    message unused;
    client->pings++;
    status = next_message(client, FOR_PONG, &unused, deadline_ns, error);
    if (status == MIR_E_CLOSED) mir_error_wrap(error, "the login failed");
    return status;
}

mir_status mir_client_connect(const mir_client_options *options, mir_client **client,
                              mir_error *error)
{
    endpoint where;
    mir_status status = parse_address(options->address, &where, error);
    if (status != MIR_OK) return status;
    mir_client *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    made->fd = made->stop_fd = -1;
    made->timeout_ns = options->timeout_ns;
    made->in.size_max = (size_t)MIR_CLIENT_REPLY_BYTES_MAX + 2 * (size_t)MIR_CLIENT_LINE_BYTES_MAX +
                        2 * (size_t)READ_BYTES;
    char letters[24];
    random_text(letters, 7);
    (void)snprintf(made->instance, sizeof made->instance, "%.32s-%s", options->name, letters);
    random_text(letters, 22);
    (void)snprintf(made->inbox, sizeof made->inbox, "_INBOX.%s", letters);

    int64_t deadline_ns = mir_clock_mono_ns() + options->connect_timeout_ns;
    status = where.path[0] != '\0'
                 ? connect_unix(where.path, deadline_ns, &made->fd, error)
                 : connect_tcp(where.host, where.port, deadline_ns, &made->fd, error);
    if (status == MIR_OK) status = read_info(made, deadline_ns, error);
    if (status == MIR_OK) status = log_in(made, options, &where, deadline_ns, error);
    if (status != MIR_OK) {
        mir_client_close(made);
        return status;
    }
    *client = made;
    return MIR_OK;
}

const char *mir_client_instance(const mir_client *client)
{
    return client->instance;
}

mir_status mir_client_request_parts(mir_client *client, const char *subject, mir_view request,
                                    const mir_client_parts *parts, mir_bytes *reply,
                                    mir_error *error)
{
    char headers[128];
    int headers_size = snprintf(headers, sizeof headers,
                                "NATS/1.0\r\nmir-trigger-chain: %s\r\n\r\n", client->instance);
    if (client->max_payload > 0 &&
        request.size + (size_t)headers_size > (size_t)client->max_payload)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "the request has %zu bytes and the server takes %lld: ask for less",
                             request.size, (long long)client->max_payload);
    uint64_t id = ++client->requests;
    char inbox[INBOX_BYTES + 24];
    (void)snprintf(inbox, sizeof inbox, "%s.%llu", client->inbox, (unsigned long long)id);
    mir_bytes out = {0};
    mir_bytes_printf(&out, "HPUB %s %s %d %zu\r\n%s", subject, inbox, headers_size,
                     (size_t)headers_size + request.size, headers);
    mir_bytes_view(&out, request);
    mir_bytes_text(&out, "\r\n");
    int64_t deadline_ns = mir_clock_mono_ns() + client->timeout_ns;
    mir_status status = mir_bytes_ok(&out)
                            ? write_all(client, mir_bytes_as_view(&out), deadline_ns, error)
                            : mir_error_set(error, MIR_E_NO_MEMORY, "no memory for the request");
    mir_bytes_free(&out);
    if (status != MIR_OK) return status;
    message answer = {0};
    for (;;) {
        status = MIR_OK;
        if (client->in.size == client->taken && parts != NULL) {
            int64_t now_ns = mir_clock_mono_ns();
            bool rest = deadline_ns - now_ns < TICK_NS;
            status = await(client->fd, client->stop_fd, POLLIN,
                           rest ? deadline_ns : now_ns + TICK_NS, error);
            if (status == MIR_E_TIMEOUT && !rest) {
                if (parts->tick != NULL) parts->tick(parts->context);
                continue;
            }
        }
        if (status == MIR_OK)
            status = next_message(client, FOR_ANYTHING, &answer, deadline_ns, error);
        if (status == MIR_E_TIMEOUT)
            return mir_error_set(error, status, "the server did not answer within %lld s",
                                 (long long)(client->timeout_ns / MIR_NS_PER_S));
        if (status != MIR_OK) return status;
        /* The answers of requests that were given up, and second answers, pass by. */
        if (strcmp(answer.subject, inbox) != 0) continue;
        mir_view stream = mir_nats_header(answer.headers, MIR_VIEW_LITERAL("mir-stream"));
        if (!mir_view_eq_cstr(stream, "partial")) break;
        if (parts != NULL && parts->part != NULL)
            parts->part(parts->context, answer.subject, answer.headers, answer.payload);
        deadline_ns = mir_clock_mono_ns() + client->timeout_ns;
    }
    if (answer.code == 503 && answer.payload.size == 0)
        return mir_error_set(error, MIR_E_UNREACHABLE, "nobody there serves %s", subject);
    mir_bytes_view(reply, answer.payload);
    return mir_bytes_ok(reply) ? MIR_OK
                               : mir_error_set(error, MIR_E_NO_MEMORY, "no memory for the answer");
}

mir_status mir_client_request(mir_client *client, const char *subject, mir_view request,
                              mir_bytes *reply, mir_error *error)
{
    return mir_client_request_parts(client, subject, request, NULL, reply, error);
}

void mir_client_set_timeout(mir_client *client, int64_t timeout_ns)
{
    client->timeout_ns = timeout_ns;
}

void mir_client_stop_on(mir_client *client, int fd)
{
    client->stop_fd = fd;
}

MIR_MUST_CHECK static mir_status send_published(mir_client *client, mir_error *error)
{
    mir_status status = mir_bytes_ok(&client->out)
                            ? write_all(client, mir_bytes_as_view(&client->out),
                                        mir_clock_mono_ns() + client->timeout_ns, error)
                            : mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    client->out.size = 0;
    if (status == MIR_E_TIMEOUT)
        return mir_error_set(error, status, "the server takes nothing any more");
    return status;
}

mir_status mir_client_publish(mir_client *client, const char *subject, mir_view headers,
                              mir_view payload, mir_error *error)
{
    size_t size = headers.size + payload.size;
    if (client->max_payload > 0 && size > (size_t)client->max_payload)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "the message has %zu bytes and the server takes %lld", size,
                             (long long)client->max_payload);
    mir_bytes_printf(&client->out, "HPUB %s %zu %zu\r\n", subject, headers.size, size);
    mir_bytes_view(&client->out, headers);
    mir_bytes_view(&client->out, payload);
    mir_bytes_text(&client->out, "\r\n");
    return client->out.size < WRITE_BYTES && mir_bytes_ok(&client->out)
               ? MIR_OK
               : send_published(client, error);
}

mir_status mir_client_mark(mir_client *client, uint64_t *mark, mir_error *error)
{
    mir_bytes_text(&client->out, "PING\r\n");
    mir_status status = send_published(client, error);
    if (status == MIR_OK) *mark = ++client->pings;
    return status;
}

mir_status mir_client_await_mark(mir_client *client, uint64_t mark, mir_error *error)
{
    message unused;
    mir_status status = MIR_OK;
    int64_t deadline_ns = mir_clock_mono_ns() + client->timeout_ns;
    while (status == MIR_OK && client->pongs < mark)
        status = next_message(client, FOR_PONG, &unused, deadline_ns, error);
    if (status == MIR_E_TIMEOUT)
        return mir_error_set(error, status, "the server did not answer within %lld s",
                             (long long)(client->timeout_ns / MIR_NS_PER_S));
    return status;
}

mir_status mir_client_flush(mir_client *client, mir_error *error)
{
    uint64_t mark = 0;
    mir_status status = mir_client_mark(client, &mark, error);
    return status == MIR_OK ? mir_client_await_mark(client, mark, error) : status;
}

mir_status mir_client_subscribe(mir_client *client, const char *pattern,
                                mir_client_message_fn heard, void *context, mir_error *error)
{
    mir_bytes out = {0};
    message unused;
    client->heard = heard;
    client->heard_context = context;
    int64_t deadline_ns = mir_clock_mono_ns() + client->timeout_ns;
    mir_bytes_printf(&out, "SUB %s " HEARD_SID "\r\nPING\r\n", pattern);
    mir_status status = mir_bytes_ok(&out)
                            ? write_all(client, mir_bytes_as_view(&out), deadline_ns, error)
                            : mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    mir_bytes_free(&out);
    if (status == MIR_OK) client->pings++;
    while (status == MIR_OK && client->pongs < client->pings)
        status = next_message(client, FOR_PONG, &unused, deadline_ns, error);
    return status;
}

mir_status mir_client_listen(mir_client *client, int64_t timeout_ns, mir_error *error)
{
    int64_t until_ns = mir_clock_mono_ns() + timeout_ns;
    uint64_t before = client->heard_count;
    message unused;
    while (client->heard_count == before) {
        mir_status status = MIR_OK;
        if (client->in.size == client->taken)
            status = await(client->fd, client->stop_fd, POLLIN, until_ns, error);
        /* What has begun to arrive is read to its end. */
        if (status == MIR_OK)
            status = next_message(client, FOR_ANYTHING, &unused,
                                  mir_clock_mono_ns() + client->timeout_ns, error);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

void mir_client_close(mir_client *client)
{
    if (client == NULL) return;
    if (client->fd >= 0) (void)close(client->fd);
    mir_bytes_free(&client->in);
    mir_bytes_free(&client->out);
    free(client);
}
