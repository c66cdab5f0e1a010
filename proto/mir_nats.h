/* SPDX-License-Identifier: Apache-2.0 */
/* mir_nats: the NATS client protocol, as pure functions over bytes.
 *
 * Why        The gateway and every client of ours read and write the same lines.
 * Ownership  Views point into the bytes given; writers append to memory of the caller.
 * Affinity   Any thread; no state.
 * Bounds     A control line carries at most control_line_max bytes of arguments. Parsing looks at
 *            each byte of the line a bounded number of times and never past it.
 * Errors     The parser judges and never answers: the outcome says what the peer is to be told.
 * Source     docs/formats/nats.md. */
#ifndef MIR_NATS_H
#define MIR_NATS_H

#include "mir_status.h"
#include "mir_view.h"

typedef enum mir_nats_kind {
    MIR_NATS_CONNECT = 1,
    MIR_NATS_INFO,
    MIR_NATS_PUB,
    MIR_NATS_HPUB,
    MIR_NATS_SUB,
    MIR_NATS_UNSUB,
    MIR_NATS_PING,
    MIR_NATS_PONG,
    MIR_NATS_OK,
    MIR_NATS_ERR,
    MIR_NATS_MSG,  /* server to client only */
    MIR_NATS_HMSG, /* server to client only */
} mir_nats_kind;

typedef enum mir_nats_outcome {
    MIR_NATS_DONE = 0,     /* op is filled; line_bytes were used; a body may follow */
    MIR_NATS_NEED_MORE,    /* the line is not complete */
    MIR_NATS_UNKNOWN_OP,   /* "Unknown Protocol Operation", close */
    MIR_NATS_MALFORMED,    /* close without a text */
    MIR_NATS_LINE_TOO_LONG /* "maximum control line exceeded", close */
} mir_nats_outcome;

typedef struct mir_nats_op {
    mir_nats_kind kind;
    size_t line_bytes;    /* the control line with its end */
    mir_view subject;     /* PUB HPUB SUB MSG HMSG */
    mir_view reply;       /* PUB HPUB MSG HMSG; empty: none */
    mir_view queue;       /* SUB; empty: none */
    mir_view sid;         /* SUB UNSUB MSG HMSG */
    mir_view text;        /* CONNECT INFO -ERR: the argument, trimmed */
    uint32_t header_size; /* HPUB HMSG */
    uint32_t total_size;  /* PUB HPUB MSG HMSG: header and payload, without CRLF */
    uint64_t max;         /* UNSUB; 0: at once */
    bool has_max;
} mir_nats_op;

/* One control line as a server reads it from a client. */
mir_nats_outcome mir_nats_parse(const uint8_t *data, size_t size, size_t control_line_max,
                                mir_nats_op *op);
/* One control line as a client reads it from a server (MSG and HMSG are known, PUB is not). */
mir_nats_outcome mir_nats_parse_server(const uint8_t *data, size_t size, size_t control_line_max,
                                       mir_nats_op *op);

/* The first value of a header, or an empty view with null data. `header` is the whole block. */
mir_view mir_nats_header(mir_view header, mir_view name);
/* Goes through the lines of a block: *at is 0 first. False at the end or at a malformed line. */
bool mir_nats_header_next(mir_view header, size_t *at, mir_view *name, mir_view *value);

/* Subjects and patterns. */
bool mir_nats_subject_valid(mir_view pattern);   /* tokens not empty, `>` only last */
bool mir_nats_subject_literal(mir_view subject); /* valid and without wildcard tokens */
bool mir_nats_match(mir_view pattern, mir_view literal);
/* Everything that `inner` matches, `outer` matches. */
bool mir_nats_subset(mir_view inner, mir_view outer);
/* Some literal subject is matched by both. */
bool mir_nats_overlap(mir_view a, mir_view b);
unsigned mir_nats_token_count(mir_view subject);
/* The n-th token from 0, or an empty view. */
mir_view mir_nats_token(mir_view subject, unsigned n);

/* Decimal digits of a number, written at `to` (at most 20 bytes); returns how many. */
size_t mir_nats_put_number(uint8_t *to, uint64_t value);

#endif
