/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_events: which events a command is about, and how events are fetched and shown.
 *
 * Why        list, watch, delete and history share filters and forms. A device that is there is
 *            asked for as a device, which finds its events from before a change of name, too; one
 *            that is gone by the name that its events carry.
 * Ownership  Queries point into the arena and the command line, events live in the session's arena,
 *            JSON values belong to the caller.
 * Affinity   The main thread.
 * Bounds     MIR_EVENTS_PAGE events are asked for at a time.
 * Errors     Functions that return int return an exit code and have told the user. */
#ifndef MIR_CLI_EVENTS_H
#define MIR_CLI_EVENTS_H

#include "mir_api/v1/event.pb-c.h"
#include "mir_cli_connect.h"
#include "mir_cli_target.h"

#include <jansson.h>

enum { MIR_EVENTS_PAGE = 1000 };

/* Alternatives: an event is meant when one of the targets matches. */
typedef struct mir_cli_event_query {
    MirApi__V1__EventTarget **items;
    size_t count;
    bool stated;  /* something narrows it, be it only a star */
    bool by_name; /* devices were named, and may be gone */
    const mir_cli_targets *devices;
    const MirApi__V1__EventTarget *filters; /* what is the same for every target */
} mir_cli_event_query;

typedef struct mir_cli_events {
    MirApi__V1__Event **items;
    size_t count;
    bool more; /* there are others behind the last one */
} mir_cli_events;

/* From the words and flags of the line. */
MIR_MUST_CHECK mir_status mir_cli_events_query(const mir_cli_args *args, mir_arena *arena,
                                               mir_cli_event_query *query, mir_error *error);

/* The newest events, newest first; `limit` 0 is all. Events of devices that are gone are found by
 * name when there are no others. */
int mir_cli_events_newest(mir_cli_session *session, const mir_cli_event_query *query,
                          uint64_t before, size_t limit, mir_arena *arena, mir_cli_events *events);
/* The oldest events behind a sequence, oldest first, in one page, without a word to the user. */
MIR_MUST_CHECK mir_status mir_cli_events_behind(mir_cli_session *session,
                                                const mir_cli_event_query *query, uint64_t after,
                                                mir_cli_events *events, mir_error *error);

/* Parts that are never null. */
uint64_t mir_cli_events_sequence(const MirApi__V1__Event *event);
int64_t mir_cli_events_time(const MirApi__V1__Event *event);
bool mir_cli_events_failed(const MirApi__V1__Event *event);
void mir_cli_events_device(const MirApi__V1__Event *event, char *text, size_t size);

/* When it happened: the time of day for today, else the date, short. */
void mir_cli_events_when(const MirApi__V1__Event *event, bool utc, char *text, size_t size);

json_t *mir_cli_events_json(const MirApi__V1__Event *event);
/* The formats table, wide, json and yaml. */
int mir_cli_events_print(const mir_cli_events *events, const char *format, bool utc);
/* One event as it comes: a line that fits the terminal, a line of JSON, or a document. */
void mir_cli_events_print_line(const MirApi__V1__Event *event, const char *format, bool utc);

#endif
