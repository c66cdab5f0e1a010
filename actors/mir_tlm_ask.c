/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_tlm_table.h"

enum { SHOWN_BYTES_MAX = 64 };

static const struct {
    const char *name;
    mir_tlog_function function;
} functions[] = {
    {"mean", MIR_TLOG_MEAN}, {"min", MIR_TLOG_MIN},     {"max", MIR_TLOG_MAX},
    {"sum", MIR_TLOG_SUM},   {"count", MIR_TLOG_COUNT}, {"first", MIR_TLOG_FIRST},
    {"last", MIR_TLOG_LAST}, {"rate", MIR_TLOG_RATE},
};

static const char use_functions[] = "use mean, min, max, sum, count, first, last, rate, or p0 to "
                                    "p100 for percentiles";

/* `p99.9`: digits, perhaps with a point. */
static bool percentile_of(const char *text, double *percentile)
{
    if (text[0] != 'p' || text[1] < '0' || text[1] > '9') return false;
    if (strspn(text + 1, "0123456789.") != strlen(text + 1) || strlen(text) > 16) return false;
    char *end;
    *percentile = strtod(text + 1, &end);
    return *end == '\0' && *percentile <= 100;
}

static mir_status take_function(const char *text, mir_tlog_query_spec *spec, mir_error *error)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (strcmp(text, functions[i].name) != 0) continue;
        spec->functions |= functions[i].function;
        return MIR_OK;
    }
    double percentile;
    if (!percentile_of(text, &percentile)) {
        return mir_error_set(error, MIR_E_INVALID, "there is no function '%.*s': %s",
                             SHOWN_BYTES_MAX, text, use_functions);
    }
    for (uint32_t i = 0; i < spec->percentile_count; i++)
        if (spec->percentiles[i] == percentile) return MIR_OK;
    if (spec->percentile_count == MIR_TLOG_PERCENTILES_MAX) {
        return mir_error_set(error, MIR_E_INVALID, "ask for at most %d percentiles at once",
                             MIR_TLOG_PERCENTILES_MAX);
    }
    spec->percentiles[spec->percentile_count++] = percentile;
    spec->functions |= MIR_TLOG_PERCENTILE;
    return MIR_OK;
}

/* --- groups ---------------------------------------------------------------------------------- */

typedef struct member {
    mir_view name;
    uint32_t device;
} member;

static int member_compare(const void *a, const void *b)
{
    return mir_view_compare(((const member *)a)->name, ((const member *)b)->name);
}

static mir_view label_of(const MirStore__V1__DeviceRecord *record, const char *key)
{
    for (size_t i = 0; i < record->n_labels; i++)
        if (strcmp(record->labels[i]->key, key) == 0)
            return mir_view_cstr(record->labels[i]->value);
    return (mir_view){0};
}

static mir_status set_groups(const char *by, MirStore__V1__DeviceRecord *const *records,
                             size_t count, mir_arena *arena, mir_tlog_query_spec *spec,
                             mir_tlm_groups *groups, mir_error *error)
{
    static const char label_prefix[] = "label:";
    const char *label = NULL;
    bool everything = strcmp(by, "all") == 0;
    if (strncmp(by, label_prefix, sizeof label_prefix - 1) == 0 &&
        by[sizeof label_prefix - 1] != '\0') {
        label = by + sizeof label_prefix - 1;
    } else if (!everything && strcmp(by, "namespace") != 0) {
        return mir_error_set(error, MIR_E_INVALID,
                             "rows cannot be grouped by '%.*s': use device, namespace, label:<key> "
                             "or all",
                             SHOWN_BYTES_MAX, by);
    }
    member *members = mir_arena_alloc(arena, (count + 1) * sizeof *members);
    mir_view *names = mir_arena_alloc(arena, (count + 1) * sizeof *names);
    uint32_t *numbers = mir_arena_alloc(arena, (count + 1) * sizeof *numbers);
    size_t header_size = label == NULL ? sizeof "__namespace" : sizeof "__label_" + strlen(label);
    char *header = mir_arena_alloc(arena, header_size);
    if (members == NULL || names == NULL || numbers == NULL || header == NULL)
        return mir_error_set(error, MIR_E_NO_MEMORY, "the server is out of memory");
    for (size_t i = 0; i < count; i++) {
        mir_view name = everything      ? MIR_VIEW_LITERAL("all")
                        : label != NULL ? label_of(records[i], label)
                                        : mir_view_cstr(records[i]->namespace_);
        members[i] = (member){name, (uint32_t)i};
    }
    if (count > 1) qsort(members, count, sizeof *members, member_compare);
    uint32_t group_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || mir_view_compare(members[i].name, members[i - 1].name) != 0)
            names[group_count++] = members[i].name;
        numbers[members[i].device] = group_count - 1;
    }
    (void)snprintf(header, header_size, "%s%s",
                   everything      ? "__group"
                   : label != NULL ? "__label_"
                                   : "__namespace",
                   label == NULL ? "" : label);
    groups->header = header;
    groups->names = names;
    spec->groups = numbers;
    spec->group_count = group_count;
    return MIR_OK;
}

/* --- pages ----------------------------------------------------------------------------------- */

static mir_status set_cursor(const char *cursor, mir_tlog_query_spec *spec, mir_error *error)
{
    char *end = NULL;
    int64_t time_ns = strtoll(cursor, &end, 10);
    if (end == cursor || *end != ':' || strlen(cursor) > MIR_TLM_CURSOR_BYTES_MAX) {
        return mir_error_set(error, MIR_E_INVALID,
                             "this is no cursor: give the one of the answer before, as it is");
    }
    spec->after = true;
    spec->after_ns = time_ns;
    spec->after_device = mir_view_cstr(end + 1);
    return MIR_OK;
}

mir_status mir_tlm_ask(const MirApi__V1__QueryTelemetryRequest *input,
                       MirStore__V1__DeviceRecord *const *records, size_t count, mir_arena *arena,
                       mir_tlog_query_spec *spec, mir_tlm_groups *groups, mir_error *error)
{
    *groups = (mir_tlm_groups){0};
    if (input->n_functions > MIR_TLM_FUNCTIONS_MAX) {
        return mir_error_set(error, MIR_E_INVALID, "ask for at most %d functions at once",
                             MIR_TLM_FUNCTIONS_MAX);
    }
    for (size_t i = 0; i < input->n_functions; i++) {
        mir_status status = take_function(input->functions[i], spec, error);
        if (status != MIR_OK) return status;
    }
    if (spec->functions == 0 && spec->window_ns != 0) spec->functions = MIR_TLOG_MEAN;
    spec->limit = input->has_limit ? input->limit : 0;
    spec->backward = input->has_descending && input->descending;
    spec->points = input->has_points ? input->points : 0;
    bool is_cursor = input->cursor != NULL && input->cursor[0] != '\0';
    bool is_grouped = input->group_by != NULL && input->group_by[0] != '\0' &&
                      strcmp(input->group_by, "device") != 0;
    if (spec->functions != 0 && (is_cursor || spec->points != 0)) {
        return mir_error_set(error, MIR_E_INVALID,
                             "cursor and points are for rows as they are: leave functions and "
                             "aggregation window out");
    }
    if (spec->functions == 0 && is_grouped) {
        return mir_error_set(error, MIR_E_INVALID,
                             "rows as they are cannot be grouped: add a function, %s",
                             use_functions);
    }
    if (spec->points != 0 && (spec->limit != 0 || is_cursor)) {
        return mir_error_set(error, MIR_E_INVALID,
                             "points are of the whole range: leave limit and cursor out");
    }
    if (input->has_stream && input->stream &&
        (spec->functions != 0 || spec->points != 0 || spec->limit != 0 || spec->backward)) {
        return mir_error_set(error, MIR_E_INVALID,
                             "a stream is of all rows as they are, device by device: leave "
                             "functions, aggregation window, limit, descending and points out");
    }
    if (is_cursor) {
        mir_status status = set_cursor(input->cursor, spec, error);
        if (status != MIR_OK) return status;
    }
    if (!is_grouped) return MIR_OK;
    return set_groups(input->group_by, records, count, arena, spec, groups, error);
}

mir_view mir_tlm_ask_field(const mir_tlog_query_spec *spec, mir_view column,
                           mir_tlog_function *function)
{
    *function = (mir_tlog_function)0;
    if (spec->functions == 0) return column;
    uint32_t others = spec->functions & ~(uint32_t)MIR_TLOG_PERCENTILE;
    uint32_t percentiles = others == spec->functions ? 0 : spec->percentile_count;
    if ((uint32_t)__builtin_popcount(others) + percentiles == 1) {
        *function = (mir_tlog_function)spec->functions;
        return column;
    }
    const uint8_t *open = memchr(column.data, '(', column.size);
    if (open == NULL || column.data[column.size - 1] != ')') return column;
    size_t name_size = (size_t)(open - column.data);
    *function = MIR_TLOG_PERCENTILE;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (mir_view_eq(mir_view_of(column.data, name_size), mir_view_cstr(functions[i].name)))
            *function = functions[i].function;
    }
    return mir_view_of(open + 1, column.size - name_size - 2);
}
