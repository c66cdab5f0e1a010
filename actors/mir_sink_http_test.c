/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_sink_http.h"

/* A name server that does not answer: whoever asks it waits here, libcurl's threads as well. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool answers;
    unsigned asked;
    unsigned waiting;
} names = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **result)
{
    (void)node, (void)service, (void)hints, (void)result;
    (void)pthread_mutex_lock(&names.mutex);
    names.asked++;
    names.waiting++;
    (void)pthread_cond_broadcast(&names.changed);
    while (!names.answers) (void)pthread_cond_wait(&names.changed, &names.mutex);
    names.waiting--;
    (void)pthread_cond_broadcast(&names.changed);
    (void)pthread_mutex_unlock(&names.mutex);
    return EAI_AGAIN;
}

typedef struct posting {
    mir_sink_http *http;
    mir_sink_answer answer;
    pthread_t thread;
} posting;

static void *post(void *context)
{
    posting *p = context;
    mir_sink_http_post(p->http, MIR_VIEW_LITERAL("m v=1i 1\n"), &p->answer);
    return NULL;
}

/* A post to a name that nobody knows, which ends by itself or by a stop. */
static void post_ends(int64_t timeout_ns, bool by_stop, const char *text)
{
    atomic_bool stop = false;
    posting p = {0};
    mir_error error = {{0}};
    const mir_sink_http_options options = {
        .url = "http://nobody.invalid:1/write", .timeout_ns = timeout_ns, .stop = &stop};
    names.answers = false;
    const unsigned asked = names.asked;
    assert_int_equal(mir_sink_http_create(&options, &p.http, &error), MIR_OK);
    assert_int_equal(pthread_create(&p.thread, NULL, post, &p), 0);
    (void)pthread_mutex_lock(&names.mutex);
    while (names.asked == asked) (void)pthread_cond_wait(&names.changed, &names.mutex);
    (void)pthread_mutex_unlock(&names.mutex);
    if (by_stop) atomic_store(&stop, true);
    struct timespec until;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &until), 0);
    until.tv_sec += 60;
    const int rc = pthread_timedjoin_np(p.thread, NULL, &until);
    (void)pthread_mutex_lock(&names.mutex);
    const unsigned waiting = names.waiting;
    names.answers = true;
    (void)pthread_cond_broadcast(&names.changed);
    while (names.waiting > 0) (void)pthread_cond_wait(&names.changed, &names.mutex);
    (void)pthread_mutex_unlock(&names.mutex);
    if (rc != 0) assert_int_equal(pthread_join(p.thread, NULL), 0);
    mir_sink_http_destroy(p.http);
    assert_int_equal(rc, 0);
    assert_int_equal(waiting, 1);
    assert_int_equal(p.answer.http_status, 0);
    if (strstr(p.answer.text, text) == NULL) fail_msg("%s", p.answer.text);
}

static void a_stop_does_not_wait_for_a_name_server(void **state)
{
    (void)state;
    post_ends(3600 * MIR_NS_PER_S, true, "abort");
}

static void a_post_ends_in_time_without_a_name_server(void **state)
{
    (void)state;
    post_ends(50 * MIR_NS_PER_MS, false, "timed out");
}

/* Whose system takes the bytes, but who never answers; and nobody. */
static void who_is_slow_is_told_from_nobody(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    char url[64];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/write", ntohs(address.sin_port));
    for (int there = 0; there < 2; there++) {
        if (there != 0) assert_int_equal(listen(fd, 5), 0);
        atomic_bool stop = false;
        mir_sink_http *http = NULL;
        mir_sink_answer answer;
        mir_error error = {{0}};
        const mir_sink_http_options options = {
            .url = url, .timeout_ns = 2 * MIR_NS_PER_S, .stop = &stop};
        assert_int_equal(mir_sink_http_create(&options, &http, &error), MIR_OK);
        mir_sink_http_post(http, MIR_VIEW_LITERAL("m v=1i 1\n"), &answer);
        mir_sink_http_destroy(http);
        assert_int_equal(answer.http_status, 0);
        if (answer.slow != (there != 0)) fail_msg("%d: %s", there, answer.text);
    }
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_slow_is_told_from_nobody),
        cmocka_unit_test(a_stop_does_not_wait_for_a_name_server),
        cmocka_unit_test(a_post_ends_in_time_without_a_name_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
