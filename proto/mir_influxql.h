/* SPDX-License-Identifier: Apache-2.0 */
/* mir_influxql: the query language of InfluxDB 1.x, as far as it is answered here, as a tree.
 *
 * Why        Dashboards speak it. Reading it needs no server, and what comes in is anybody's bytes.
 * Ownership  Everything of a query is in the arena that is passed, or is a view of the text.
 * Affinity   Any thread; no state.
 * Units      Times and durations are nanoseconds; times since 1970-01-01 UTC. now() is what the caller
 *            says.
 * Bounds     The enumerators below; the arena's bytes_max bounds the memory.
 * Errors     MIR_E_INVALID for what is no such text, with what was found, what was expected and where;
 *            MIR_E_UNSUPPORTED for what InfluxDB understands and this does not, with what to write
 *            instead; MIR_E_TOO_LARGE beyond a bound; MIR_E_NO_MEMORY.
 * Source     The grammar is in docs/formats/influxql.md. */
#ifndef MIR_INFLUXQL_H
#define MIR_INFLUXQL_H

#include "mir_arena.h"
#include "mir_status.h"

enum {
    MIR_INFLUXQL_BYTES_MAX = 256 * 1024,
    MIR_INFLUXQL_STATEMENTS_MAX = 64,
    MIR_INFLUXQL_DEPTH_MAX = 32,        /* of parentheses and calls */
    MIR_INFLUXQL_FIELDS_MAX = 256,      /* of one SELECT */
    MIR_INFLUXQL_TERMS_MAX = 1024,      /* names, numbers, calls and signs of one SELECT's fields */
    MIR_INFLUXQL_CONDITIONS_MAX = 8192, /* of one statement */
    MIR_INFLUXQL_SOURCES_MAX = 64,
    MIR_INFLUXQL_DIMENSIONS_MAX = 64,
    MIR_INFLUXQL_KEYS_MAX = 256, /* of WITH KEY IN */
};

typedef enum mir_influxql_kind {
    MIR_INFLUXQL_SELECT = 1,
    MIR_INFLUXQL_SHOW_DATABASES,
    MIR_INFLUXQL_SHOW_RETENTION_POLICIES,
    MIR_INFLUXQL_SHOW_MEASUREMENTS,
    MIR_INFLUXQL_SHOW_FIELD_KEYS,
    MIR_INFLUXQL_SHOW_TAG_KEYS,
    MIR_INFLUXQL_SHOW_TAG_VALUES,
    MIR_INFLUXQL_SHOW_SERIES,
} mir_influxql_kind;

typedef enum mir_influxql_compare {
    MIR_INFLUXQL_EQUAL = 1,
    MIR_INFLUXQL_DIFFERENT,
    MIR_INFLUXQL_MATCHES,
    MIR_INFLUXQL_MATCHES_NOT,
} mir_influxql_compare;

/* A name, or a pattern between slashes without them. */
typedef struct mir_influxql_name {
    mir_view text;
    bool is_pattern;
} mir_influxql_name;

typedef struct mir_influxql_source {
    mir_view database, policy; /* empty: not named */
    mir_influxql_name name;
} mir_influxql_source;

typedef enum mir_influxql_logic {
    MIR_INFLUXQL_TAG = 1,
    MIR_INFLUXQL_AND, /* of all children */
    MIR_INFLUXQL_OR,
    MIR_INFLUXQL_TIME, /* while it is read; a statement's condition has none */
} mir_influxql_logic;

typedef struct mir_influxql_condition {
    mir_influxql_logic kind;
    mir_influxql_compare compare; /* of a tag */
    mir_view key, value;
    int64_t from_ns, to_ns;
    struct mir_influxql_condition *first, *next; /* children; the next sibling */
} mir_influxql_condition;

typedef enum mir_influxql_function {
    /* Of the values of a field. */
    MIR_INFLUXQL_MEAN = 1,
    MIR_INFLUXQL_MIN,
    MIR_INFLUXQL_MAX,
    MIR_INFLUXQL_SUM,
    MIR_INFLUXQL_COUNT,
    MIR_INFLUXQL_FIRST,
    MIR_INFLUXQL_LAST,
    MIR_INFLUXQL_RATE,       /* of a counter, per second; not InfluxDB's */
    MIR_INFLUXQL_PERCENTILE, /* number */
    MIR_INFLUXQL_SPREAD,
    /* Of one row after the other. */
    MIR_INFLUXQL_DERIVATIVE, /* unit_ns; 0: not said */
    MIR_INFLUXQL_NON_NEGATIVE_DERIVATIVE,
    MIR_INFLUXQL_DIFFERENCE,
    MIR_INFLUXQL_NON_NEGATIVE_DIFFERENCE,
    MIR_INFLUXQL_CUMULATIVE_SUM,
    MIR_INFLUXQL_MOVING_AVERAGE, /* number: of so many */
} mir_influxql_function;

enum { MIR_INFLUXQL_MOVING_AVERAGE_MAX = 1000 };

typedef enum mir_influxql_term {
    MIR_INFLUXQL_INTEGER = 1,
    MIR_INFLUXQL_NUMBER,
    MIR_INFLUXQL_NAME, /* of a field or a tag */
    MIR_INFLUXQL_ALL,  /* `*` */
    MIR_INFLUXQL_CALL, /* of `left` */
    MIR_INFLUXQL_SIGN, /* left, right: `sign` is + - * / % */
} mir_influxql_term;

typedef enum mir_influxql_cast {
    MIR_INFLUXQL_EITHER = 0,
    MIR_INFLUXQL_AS_FIELD,
    MIR_INFLUXQL_AS_TAG,
} mir_influxql_cast;

typedef struct mir_influxql_expression {
    mir_influxql_term kind;
    mir_influxql_function function;
    mir_influxql_cast cast;
    char sign;
    mir_view name;
    int64_t integer;
    double number;
    int64_t unit_ns;
    struct mir_influxql_expression *left, *right;
} mir_influxql_expression;

typedef struct mir_influxql_field {
    mir_influxql_expression *expression;
    mir_view alias; /* empty: none */
} mir_influxql_field;

typedef enum mir_influxql_fill {
    MIR_INFLUXQL_FILL_NULL = 0,
    MIR_INFLUXQL_FILL_NONE,
    MIR_INFLUXQL_FILL_PREVIOUS,
    MIR_INFLUXQL_FILL_LINEAR,
    MIR_INFLUXQL_FILL_NUMBER,
} mir_influxql_fill;

typedef struct mir_influxql_statement {
    mir_influxql_kind kind;
    mir_view database; /* of ON; empty: not named */
    const mir_influxql_source *sources;
    uint32_t source_count;
    const mir_influxql_condition *condition; /* null: none; on tags alone */
    int64_t from_ns, to_ns;                  /* both inclusive; INT64_MIN, INT64_MAX: no bound */
    /* SELECT */
    const mir_influxql_field *fields;
    uint32_t field_count;
    bool aggregates;    /* every field is made of functions of values */
    bool row_by_row;    /* a function of one row after the other is among them */
    uint64_t window_ns; /* GROUP BY time; 0: none */
    int64_t window_from_ns;
    const mir_influxql_name *dimensions;
    uint32_t dimension_count;
    bool group_by_all;
    mir_influxql_fill fill;
    double fill_number;
    bool descending;
    uint64_t limit, offset, series_limit, series_offset; /* 0: none */
    /* SHOW TAG VALUES: keys that equal, or match */
    mir_influxql_compare key_compare;
    const mir_view *keys;
    uint32_t key_count;
} mir_influxql_statement;

typedef struct mir_influxql_query {
    const mir_influxql_statement *statements;
    uint32_t statement_count;
} mir_influxql_query;

/* The error's text has no prefix. */
MIR_MUST_CHECK mir_status mir_influxql_parse(mir_view text, int64_t now_ns, mir_arena *arena,
                                             mir_influxql_query *query, mir_error *error);

bool mir_influxql_is_row_by_row(mir_influxql_function function);
const char *mir_influxql_function_name(mir_influxql_function function);

#endif
