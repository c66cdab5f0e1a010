/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_bench_conn.h"
#include "mir_clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    WAIT_SECONDS = 30,
    IN_BYTES_MIN = 4096,
    IN_BYTES_MAX = 64 << 20,
    LINE_BYTES_MAX = 65536, /* an INFO with everything in it is a few kB */
    WORDS_MAX = 5,
};

static const char hello_text[] =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,"
    "\"protocol\":1,\"lang\":\"c\",\"version\":\"" MIR_VERSION "\",\"name\":\"mir-bench\"}\r\n";

static _Atomic uint64_t inbox_count;

static mir_status connect_to(uint16_t port, int *fd, mir_error *error)
{
    int one = 1;
    int new_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (new_fd < 0) return mir_error_os(error, errno, "socket");
    struct timeval wait = {.tv_sec = WAIT_SECONDS};
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (setsockopt(new_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        setsockopt(new_fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) != 0 ||
        setsockopt(new_fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0 ||
        connect(new_fd, (struct sockaddr *)&address, sizeof address) != 0) {
        mir_status status = mir_error_os(error, errno, "connect to port %u", port);
        (void)close(new_fd);
        return status;
    }
    *fd = new_fd;
    return MIR_OK;
}

mir_status mir_bench_conn_probe(uint16_t port)
{
    int fd;
    char first[5];
    mir_status status = connect_to(port, &fd, NULL);
    if (status != MIR_OK) return status;
    ssize_t size = recv(fd, first, sizeof first, MSG_WAITALL);
    (void)close(fd);
    return size == (ssize_t)sizeof first && memcmp(first, "INFO ", sizeof first) == 0
               ? MIR_OK
               : MIR_E_UNREACHABLE;
}

mir_status mir_bench_conn_write(mir_bench_conn *conn, const void *data, size_t size,
                                mir_error *error)
{
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t sent = send(conn->fd, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return mir_error_os(error, errno, "send");
        at += sent;
        size -= (size_t)sent;
    }
    return MIR_OK;
}

mir_status mir_bench_conn_stamp(mir_bench_conn *conn, mir_error *error)
{
    const int on = 1;
    if (setsockopt(conn->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0)
        return mir_error_os(error, errno, "setsockopt SO_TIMESTAMPNS");
    conn->stamped = true;
    return MIR_OK;
}

static ssize_t receive(mir_bench_conn *conn, void *to, size_t size_max)
{
    if (!conn->stamped) return recv(conn->fd, to, size_max, 0);
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
    } control;
    struct iovec part = {.iov_base = to, .iov_len = size_max};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    const ssize_t size = recvmsg(conn->fd, &message, 0);
    const struct cmsghdr *head = size < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SO_TIMESTAMPNS) {
        struct timespec at;
        memcpy(&at, CMSG_DATA(head), sizeof at);
        conn->arrived_ns = at.tv_sec * MIR_NS_PER_S + at.tv_nsec;
    }
    return size;
}

static mir_status fill(mir_bench_conn *conn, mir_error *error)
{
    if (conn->in_start > 0) {
        memmove(conn->in, conn->in + conn->in_start, conn->in_size - conn->in_start);
        conn->in_size -= conn->in_start;
        conn->in_start = 0;
    }
    if (conn->in_size == conn->in_capacity) {
        size_t capacity = conn->in_capacity == 0 ? IN_BYTES_MIN : conn->in_capacity * 2;
        if (capacity > IN_BYTES_MAX)
            return mir_error_set(error, MIR_E_TOO_LARGE, "a reply of more than %d bytes",
                                 IN_BYTES_MAX / 2);
        uint8_t *in = realloc(conn->in, capacity);
        if (in == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        conn->in = in;
        conn->in_capacity = capacity;
    }
    for (;;) {
        ssize_t size = receive(conn, conn->in + conn->in_size, conn->in_capacity - conn->in_size);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN)
            return mir_error_set(error, MIR_E_TIMEOUT, "no answer within %d s", WAIT_SECONDS);
        if (size < 0) return mir_error_os(error, errno, "recv");
        if (size == 0) return mir_error_set(error, MIR_E_CLOSED, "the server closed a connection");
        conn->in_size += (size_t)size;
        return MIR_OK;
    }
}

/* The length of the next line with its end, reading until it is complete. */
static mir_status line_size(mir_bench_conn *conn, size_t *size, mir_error *error)
{
    size_t seen = 0;
    for (;;) {
        size_t available = conn->in_size - conn->in_start;
        const uint8_t *from = conn->in + conn->in_start;
        const uint8_t *end = available > seen ? memchr(from + seen, '\n', available - seen) : NULL;
        if (end != NULL) {
            *size = (size_t)(end - from) + 1;
            return MIR_OK;
        }
        if (available > LINE_BYTES_MAX)
            return mir_error_set(error, MIR_E_INVALID, "the server sent an endless line");
        seen = available;
        mir_status status = fill(conn, error);
        if (status != MIR_OK) return status;
    }
}

static bool number(mir_view word, size_t *value)
{
    if (word.size == 0 || word.size > 9) return false;
    size_t result = 0;
    for (size_t i = 0; i < word.size; i++) {
        if (word.data[i] < '0' || word.data[i] > '9') return false;
        result = result * 10 + (size_t)(word.data[i] - '0');
    }
    *value = result;
    return true;
}

static size_t split(mir_view line, mir_view *words)
{
    size_t count = 0, at = 0;
    while (at < line.size && count < WORDS_MAX) {
        while (at < line.size && line.data[at] == ' ') at++;
        size_t from = at;
        while (at < line.size && line.data[at] != ' ') at++;
        if (at > from) words[count++] = mir_view_of(line.data + from, at - from);
    }
    return count;
}

/* MSG and HMSG: `size` is the length of the line, which is in the buffer. */
static mir_status read_message(mir_bench_conn *conn, size_t size, bool with_header,
                               mir_bench_message *message, mir_error *error)
{
    mir_view words[WORDS_MAX];
    size_t verb = with_header ? 5 : 4, total = 0, header = 0;
    mir_view line = mir_view_of(conn->in + conn->in_start + verb, size - verb - 2);
    size_t count = split(line, words);
    size_t fixed = with_header ? 4 : 3;
    if ((count != fixed && count != fixed + 1) || !number(words[count - 1], &total) ||
        (with_header && (!number(words[count - 2], &header) || header > total)))
        return mir_error_set(error, MIR_E_INVALID, "the server sent a bad message line");
    size_t subject_at = (size_t)(words[0].data - conn->in) - conn->in_start;
    size_t subject_size = words[0].size, reply_at = 0, reply_size = 0;
    if (count == fixed + 1) {
        reply_at = (size_t)(words[2].data - conn->in) - conn->in_start;
        reply_size = words[2].size;
    }
    while (conn->in_size - conn->in_start < size + total + 2) {
        mir_status status = fill(conn, error);
        if (status != MIR_OK) return status;
    }
    const uint8_t *base = conn->in + conn->in_start;
    *message = (mir_bench_message){
        .subject = mir_view_of(base + subject_at, subject_size),
        .reply = mir_view_of(base + reply_at, reply_size),
        .header = mir_view_of(base + size, header),
        .payload = mir_view_of(base + size + header, total - header),
    };
    conn->in_start += size + total + 2;
    return MIR_OK;
}

mir_status mir_bench_conn_read(mir_bench_conn *conn, mir_bench_message *message, mir_error *error)
{
    for (;;) {
        size_t size = 0;
        mir_status status = line_size(conn, &size, error);
        if (status != MIR_OK) return status;
        mir_view line = mir_view_of(conn->in + conn->in_start, size);
        if (size >= 6 && memcmp(line.data, "MSG ", 4) == 0)
            return read_message(conn, size, false, message, error);
        if (size >= 7 && memcmp(line.data, "HMSG ", 5) == 0)
            return read_message(conn, size, true, message, error);
        if (mir_view_starts(line, MIR_VIEW_LITERAL("-ERR")))
            return mir_error_set(error, MIR_E_INVALID, "the server answered %.*s",
                                 (int)(size > 200 ? 200 : size), (const char *)line.data);
        bool ping = mir_view_starts(line, MIR_VIEW_LITERAL("PING"));
        bool pong = mir_view_starts(line, MIR_VIEW_LITERAL("PONG"));
        conn->in_start += size;
        if (ping) {
            status = mir_bench_conn_write(conn, "PONG\r\n", 6, error);
            if (status != MIR_OK) return status;
        }
        if (pong) {
            *message = (mir_bench_message){.pong = true};
            return MIR_OK;
        }
    }
}

mir_status mir_bench_conn_await_pong(mir_bench_conn *conn, mir_error *error)
{
    mir_bench_message message = {0};
    while (!message.pong) {
        mir_status status = mir_bench_conn_read(conn, &message, error);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

mir_status mir_bench_conn_flush(mir_bench_conn *conn, mir_error *error)
{
    mir_status status = mir_bench_conn_write(conn, "PING\r\n", 6, error);
    return status == MIR_OK ? mir_bench_conn_await_pong(conn, error) : status;
}

mir_status mir_bench_conn_open(mir_bench_conn *conn, uint16_t port, const char *first,
                               mir_error *error)
{
    char text[1024];
    mir_bench_conn fresh = {.fd = -1};
    int size = snprintf(text, sizeof text, "%s%sPING\r\n", hello_text, first);
    if (size < 0 || (size_t)size >= sizeof text)
        return mir_error_set(error, MIR_E_TOO_LARGE, "too much to say while connecting");
    mir_status status = connect_to(port, &fresh.fd, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_write(&fresh, text, (size_t)size, error);
    if (status == MIR_OK) status = mir_bench_conn_await_pong(&fresh, error);
    if (status != MIR_OK) {
        mir_bench_conn_close(&fresh);
        return status;
    }
    *conn = fresh;
    return MIR_OK;
}

void mir_bench_conn_close(mir_bench_conn *conn)
{
    if (conn->fd >= 0) (void)close(conn->fd);
    free(conn->in);
    *conn = (mir_bench_conn){.fd = -1};
}

void mir_bench_conn_trim(mir_bench_conn *conn)
{
    if (conn->in_start != conn->in_size) return;
    free(conn->in);
    conn->in = NULL;
    conn->in_start = conn->in_size = conn->in_capacity = 0;
}

mir_status mir_bench_conn_request(mir_bench_conn *conn, const char *subject, mir_view body,
                                  mir_view *reply, mir_error *error)
{
    char line[512], inbox[64];
    mir_status status = MIR_OK;
    if (!conn->inbox_ready) {
        conn->request_count = atomic_fetch_add(&inbox_count, 1) << 32;
        int size = snprintf(line, sizeof line, "SUB _INBOX.bench%llx.* 900\r\n",
                            (unsigned long long)(conn->request_count >> 32));
        status = mir_bench_conn_write(conn, line, (size_t)size, error);
        if (status != MIR_OK) return status;
        conn->inbox_ready = true;
    }
    (void)snprintf(inbox, sizeof inbox, "_INBOX.bench%llx.%llx",
                   (unsigned long long)(conn->request_count >> 32),
                   (unsigned long long)(conn->request_count & UINT32_MAX));
    conn->request_count++;
    int size = snprintf(line, sizeof line, "PUB %s %s %zu\r\n", subject, inbox, body.size);
    if (size < 0 || (size_t)size >= sizeof line)
        return mir_error_set(error, MIR_E_TOO_LARGE, "the subject is too long");
    status = mir_bench_conn_write(conn, line, (size_t)size, error);
    if (status == MIR_OK) status = mir_bench_conn_write(conn, body.data, body.size, error);
    if (status == MIR_OK) status = mir_bench_conn_write(conn, "\r\n", 2, error);
    while (status == MIR_OK) {
        mir_bench_message message;
        status = mir_bench_conn_read(conn, &message, error);
        if (status != MIR_OK || message.pong || !mir_view_eq_cstr(message.subject, inbox)) continue;
        if (mir_view_starts(message.header, MIR_VIEW_LITERAL("NATS/1.0 503")))
            return mir_error_set(error, MIR_E_UNREACHABLE, "nobody answers on %s", subject);
        *reply = message.payload;
        return MIR_OK;
    }
    return status;
}
