/* SPDX-License-Identifier: Apache-2.0 */
/* mir event watch: events as they happen, without a gap and without a double.
 *
 * What is shown always comes out of the store, in the order of its numbers: the events that are
 * published are only the bell. A ring with a number says up to where the store must show events;
 * until it does, and for a while after a ring without a number, the store is asked again. With
 * filters the cursor moves over what does not match as well, as soon as the number that rang is
 * seen in the store: else each question would walk over the same events anew. */
#include "mir_cli_events.h"

#include "mir_clock.h"
#include "mir_nats.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define GATHER_NS    (50 * MIR_NS_PER_MS)  /* rings this close are one question */
#define IDLE_NS      (30 * MIR_NS_PER_S)   /* then it is asked without a ring */
#define AGAIN_NS     (200 * MIR_NS_PER_MS) /* first pause before a new connection */
#define AGAIN_MAX_NS (5 * MIR_NS_PER_S)

typedef struct watcher {
    mir_cli_session session;
    mir_arena arena; /* of the query, which outlives the session */
    mir_cli_event_query query;
    const mir_cli_args *args;
    const char *format;
    bool utc;
    int stop_fd;
    bool has_cursor;
    uint64_t cursor; /* everything up to here was shown, or does not match */
    uint64_t rung;   /* the highest number that was published */
    bool rung_blank; /* something without a number was published */
} watcher;

static void heard(void *context, const char *subject, mir_view headers, mir_view payload)
{
    watcher *to = context;
    (void)subject, (void)payload;
    mir_view text = mir_nats_header(headers, MIR_VIEW_LITERAL("mir-event-sequence"));
    uint64_t number = 0;
    for (size_t i = 0; i < text.size && i < 19; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            number = 0;
            break;
        }
        number = number * 10 + (uint64_t)(text.data[i] - '0');
    }
    if (number == 0) to->rung_blank = true;
    if (number > to->rung) to->rung = number;
}

/* Whether the store shows the event of that number, or a later one. */
MIR_MUST_CHECK static mir_status is_stored(watcher *at, uint64_t number, bool *stored,
                                           mir_error *error)
{
    MirApi__V1__EventTarget everything = MIR_API__V1__EVENT_TARGET__INIT;
    MirApi__V1__ListEventsRequest request = MIR_API__V1__LIST_EVENTS_REQUEST__INIT;
    MirApi__V1__Events *answer = NULL;
    const char *refusal = NULL;
    everything.has_after_sequence = 1;
    everything.after_sequence = number - 1;
    everything.has_filter_limit = everything.filter_limit = 1;
    request.target = &everything;
    mir_status status = mir_cli_connect_try(&at->session, "evt.v1alpha.list", &request.base,
                                            &mir_api__v1__list_events_response__descriptor, NULL,
                                            &answer, &refusal, error);
    *stored = status == MIR_OK && answer->n_events > 0;
    return status;
}

/* The number of the newest event, to begin behind it. */
MIR_MUST_CHECK static mir_status find_end(watcher *at, mir_error *error)
{
    MirApi__V1__EventTarget everything = MIR_API__V1__EVENT_TARGET__INIT;
    MirApi__V1__ListEventsRequest request = MIR_API__V1__LIST_EVENTS_REQUEST__INIT;
    MirApi__V1__Events *answer = NULL;
    const char *refusal = NULL;
    everything.has_filter_limit = everything.filter_limit = 1;
    request.target = &everything;
    mir_status status = mir_cli_connect_try(&at->session, "evt.v1alpha.list", &request.base,
                                            &mir_api__v1__list_events_response__descriptor, NULL,
                                            &answer, &refusal, error);
    if (status != MIR_OK) return status;
    at->cursor = answer->n_events > 0 ? mir_cli_events_sequence(answer->events[0]) : 0;
    if (answer->n_events > 0 && at->cursor == 0)
        return mir_error_set(error, MIR_E_UNSUPPORTED,
                             "the server does not number its events: they cannot be watched");
    at->has_cursor = true;
    mir_cli_note("Watching events behind %" PRIu64 ". Ctrl-C ends.", at->cursor);
    return MIR_OK;
}

/* Shows everything that the store has behind the cursor. */
MIR_MUST_CHECK static mir_status show_new(watcher *at, mir_error *error)
{
    uint64_t rung = at->rung;
    bool stored = false;
    mir_status status = MIR_OK;
    bool filtered = at->query.stated && rung > at->cursor;
    if (filtered) status = is_stored(at, rung, &stored, error);
    mir_cli_events events = {.more = true};
    while (status == MIR_OK && events.more) {
        status = mir_cli_events_behind(&at->session, &at->query, at->cursor, &events, error);
        if (status != MIR_OK) break;
        for (size_t i = 0; i < events.count; i++)
            mir_cli_events_print_line(events.items[i], at->format, at->utc);
        if (events.count > 0) at->cursor = mir_cli_events_sequence(events.items[events.count - 1]);
        (void)fflush(stdout);
        mir_arena_free(&at->session.arena);
    }
    /* It was in the store before the question, so all that matches up to there was in the answer. */
    if (status == MIR_OK && stored && rung > at->cursor) at->cursor = rung;
    return status;
}

/* Waits for a ring, or until it is time to ask without one. */
MIR_MUST_CHECK static mir_status await_ring(watcher *at, size_t *tries, mir_error *error)
{
    static const int64_t pauses_ns[] = {100 * MIR_NS_PER_MS, 250 * MIR_NS_PER_MS,
                                        500 * MIR_NS_PER_MS, MIR_NS_PER_S,
                                        2 * MIR_NS_PER_S,    5 * MIR_NS_PER_S};
    const size_t last = sizeof pauses_ns / sizeof pauses_ns[0] - 1;
    bool behind = at->rung > at->cursor;
    if (!behind && (!at->rung_blank || *tries > last)) at->rung_blank = false;
    bool again = behind || at->rung_blank;
    mir_status status = mir_client_listen(
        at->session.client, again ? pauses_ns[*tries < last ? *tries : last] : IDLE_NS, error);
    if (status == MIR_E_TIMEOUT) {
        *tries = again ? *tries + 1 : 0;
        return MIR_OK;
    }
    if (status != MIR_OK) return status;
    *tries = 0;
    int64_t until_ns = mir_clock_mono_ns() + GATHER_NS;
    for (int64_t left_ns = GATHER_NS; status == MIR_OK && left_ns > 0;
         left_ns = until_ns - mir_clock_mono_ns())
        status = mir_client_listen(at->session.client, left_ns, error);
    return status == MIR_E_TIMEOUT ? MIR_OK : status;
}

/* As long as the connection lasts. */
MIR_MUST_CHECK static mir_status watch(watcher *at, mir_error *error)
{
    size_t tries = 0;
    at->rung = 0;
    at->rung_blank = false;
    mir_client_stop_on(at->session.client, at->stop_fd);
    mir_status status = mir_client_subscribe(at->session.client, "event.>", heard, at, error);
    if (status == MIR_OK && !at->has_cursor) status = find_end(at, error);
    while (status == MIR_OK) {
        status = show_new(at, error);
        if (status == MIR_OK) status = await_ring(at, &tries, error);
    }
    return status;
}

static bool stopped(const watcher *at, int64_t wait_ns)
{
    struct pollfd wait = {.fd = at->stop_fd, .events = POLLIN};
    int ready = poll(&wait, 1, (int)(wait_ns / MIR_NS_PER_MS));
    return ready > 0;
}

/* Until there is a connection again, or the wish to stop. */
MIR_MUST_CHECK static bool connect_again(watcher *at)
{
    int64_t pause_ns = AGAIN_NS;
    mir_error error;
    for (;;) {
        mir_cli_connect_close(&at->session);
        if (stopped(at, pause_ns)) return false;
        at->session = MIR_CLI_SESSION_INIT;
        mir_status status =
            mir_cli_connect_quietly(at->args, MIR_CONNECT_TIMEOUT_NS, &at->session, &error);
        if (status == MIR_OK) return true;
        pause_ns = pause_ns * 2 < AGAIN_MAX_NS ? pause_ns * 2 : AGAIN_MAX_NS;
    }
}

static bool may_pass(mir_status status)
{
    return status == MIR_E_CLOSED || status == MIR_E_UNREACHABLE || status == MIR_E_TIMEOUT ||
           status == MIR_E_IO;
}

static int run(watcher *at)
{
    mir_error error = {0};
    for (;;) {
        mir_status status = watch(at, &error);
        if (status == MIR_E_CANCELLED) return MIR_EXIT_OK;
        if (!may_pass(status) || !at->has_cursor) {
            (void)mir_cli_fail("%s", error.text);
            return mir_cli_exit_code(status);
        }
        mir_cli_note("The connection is lost (%s); trying again.", error.text);
        if (!connect_again(at)) return MIR_EXIT_OK;
        mir_cli_note("Connected again; going on behind event %" PRIu64 ".", at->cursor);
    }
}

int mir_cli_event_watch(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    const char *after = mir_cli_value(args, MIR_OPT_AFTER);
    mir_error error = {0};
    sigset_t signals;
    watcher at = {.session = MIR_CLI_SESSION_INIT,
                  .args = args,
                  .format = format != NULL ? format : "table",
                  .utc = mir_cli_flag(args, MIR_OPT_UTC),
                  .has_cursor = after != NULL};
    int code = MIR_EXIT_OK;
    if (after != NULL && !mir_cli_number(after, true, &at.cursor))
        code =
            mir_cli_usage(cli, "--after is the number of an event, or 0 to begin with the first");
    else if (mir_cli_events_query(args, &at.arena, &at.query, &error) != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    at.stop_fd = -1;
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &at.session);
    if (code == MIR_EXIT_OK && sigprocmask(SIG_BLOCK, &signals, NULL) == 0)
        at.stop_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (code == MIR_EXIT_OK && at.stop_fd < 0) code = mir_cli_fail("cannot wait for signals");
    if (code == MIR_EXIT_OK) code = run(&at);
    if (at.stop_fd >= 0 && stopped(&at, 0) && at.has_cursor)
        mir_cli_note("\nStopped behind event %" PRIu64 "; `mir event watch --after %" PRIu64
                     "` goes on from there.",
                     at.cursor, at.cursor);
    if (at.stop_fd >= 0) (void)close(at.stop_fd);
    mir_cli_connect_close(&at.session);
    mir_arena_free(&at.arena);
    return code;
}
