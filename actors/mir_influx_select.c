/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_influx.h"
#include "mir_tlm_renames.h"

/* SELECT, of one measurement: what the log has to find (slots), the rows that it found, group by
 * group filled, calculated and written. */

enum {
    TYPES_MAX = 5,
    NAME_BYTES_MAX = MIR_TLOG_COLUMN_NAME_BYTES_MAX + 32,
    CANCEL_LOOK_ROWS = 4096
};

/* A column of the log, whatever its type; or a tag. */
typedef struct slot {
    mir_influxql_function function; /* 0: the rows as they are */
    mir_view field;
    double percentile;
    bool is_tag;
    bool is_end;                 /* of a spread, which is filled by itself */
    uint32_t columns[TYPES_MAX]; /* of the query that runs */
    uint32_t column_count;
} slot;

/* A calculation. */
typedef struct node {
    mir_influxql_term
        kind; /* INTEGER, NUMBER, NAME (a slot), CALL (of one row after the other), SIGN */
    mir_influxql_function function;
    char sign;
    mir_influx_value constant;
    uint32_t slot;
    double unit_ns;
    uint32_t window;
    struct node *left, *right;
    /* Of the rows before, within one group. */
    bool has_before;
    mir_influx_value before;
    int64_t before_ns;
    double sum;
    double *last;
    uint32_t last_count, last_at;
} node;

typedef struct output {
    mir_view name;
    node *root;
    bool is_count; /* windows without values count none of them */
} output;

typedef struct selection {
    mir_influx_work *work;
    const mir_influxql_statement *statement;
    mir_view measurement;
    const mir_influx_devices *devices;
    slot *slots;
    uint32_t slot_count, slot_capacity;
    output *outputs;
    uint32_t output_count, output_capacity;
    mir_column *fields; /* of the measurement, when `*` asks for them */
    uint32_t field_count, field_capacity;
    mir_tlog_query_spec today; /* its renames, when all fields are asked for */
    mir_influx_keys dimensions;
    mir_view *ids;      /* of all devices */
    uint32_t *group_of; /* of each device */
    uint32_t *by_group; /* devices, group by group */
    uint32_t *group_at; /* where each group begins there; one more at the end */
    uint32_t group_count;
    bool each_alone; /* every group is one device */
    /* The rows that were found. */
    const uint32_t *part; /* what the indices of the query mean: devices; null: groups */
    int64_t *times;
    uint32_t *owners; /* a device, or a group */
    mir_influx_value *values;
    uint32_t row_count, row_capacity;
    size_t bytes; /* of these */
    bool backward;
    uint64_t chunks_corrupt;
    /* Of the answer: */
    mir_view *columns;
    mir_view *tags; /* of one group after the other */
} selection;

mir_status mir_influx_no_memory(mir_influx_work *work)
{
    return mir_error_set(work->error, MIR_E_TOO_LARGE,
                         "the query needs more than %zu bytes: ask for a shorter time, longer "
                         "windows, fewer fields or fewer devices, or set a LIMIT",
                         work->request->memory_bytes_max);
}

static mir_status no_memory(selection *s)
{
    return mir_influx_no_memory(s->work);
}

static void *take(selection *s, size_t count, size_t size)
{
    return mir_arena_alloc(&s->work->arena, (count + 1) * size);
}

static bool is_cancelled(const selection *s)
{
    const atomic_bool *cancel = s->work->request->cancel;
    return cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed);
}

static mir_status cancelled(selection *s)
{
    return mir_error_set(s->work->error, MIR_E_CANCELLED, "cancelled");
}

/* --- what is wanted -------------------------------------------------------------------------- */

static mir_status add_slot(selection *s, const slot *wanted, uint32_t *place)
{
    for (uint32_t i = 0; i < s->slot_count; i++) {
        const slot *known = &s->slots[i];
        if (known->function == wanted->function && known->is_tag == wanted->is_tag &&
            known->is_end == wanted->is_end && known->percentile == wanted->percentile &&
            mir_view_eq(known->field, wanted->field)) {
            *place = i;
            return MIR_OK;
        }
    }
    if (s->slot_count == s->slot_capacity) {
        const uint32_t capacity = s->slot_capacity == 0 ? 16 : s->slot_capacity * 2;
        slot *grown = take(s, capacity, sizeof *grown);
        if (grown == NULL) return no_memory(s);
        if (s->slot_count != 0) memcpy(grown, s->slots, s->slot_count * sizeof *grown);
        s->slots = grown;
        s->slot_capacity = capacity;
    }
    *place = s->slot_count;
    s->slots[s->slot_count++] = *wanted;
    return MIR_OK;
}

static bool is_known_field(const selection *s, mir_view name)
{
    for (uint32_t i = 0; i < s->field_count; i++)
        if (mir_view_eq(name, mir_view_of(s->fields[i].name, s->fields[i].name_size))) return true;
    return false;
}

static bool is_tag(const selection *s, const mir_influxql_expression *term)
{
    if (term->cast != MIR_INFLUXQL_EITHER) return term->cast == MIR_INFLUXQL_AS_TAG;
    if (is_known_field(s, term->name)) return false;
    for (size_t i = 0; i < s->devices->count; i++)
        if (mir_influx_tag(s->devices->items[i], term->name).size != 0) return true;
    return false;
}

static bool takes(mir_influxql_function function, mir_column_type type)
{
    if (function == MIR_INFLUXQL_COUNT || function == MIR_INFLUXQL_FIRST ||
        function == MIR_INFLUXQL_LAST)
        return true;
    return type != MIR_COLUMN_STRING && type != MIR_COLUMN_BOOL;
}

/* A field of texts or booleans alone has no mean: nothing would come of it, and nobody would know why. */
static mir_status check_types(const selection *s, const slot *wanted)
{
    const mir_column *unfit = NULL;
    for (uint32_t i = 0; i < s->field_count; i++) {
        const mir_column *field = &s->fields[i];
        if (!mir_view_eq(wanted->field, mir_view_of(field->name, field->name_size))) continue;
        if (takes(wanted->function, field->type)) return MIR_OK;
        unfit = field;
    }
    if (unfit == NULL) return MIR_OK;
    return mir_error_set(s->work->error, MIR_E_UNSUPPORTED,
                         "%s(%.*s): the field's values are %s, of which there are count, first "
                         "and last",
                         mir_influxql_function_name(wanted->function), MIR_VIEW_ARGS(wanted->field),
                         unfit->type == MIR_COLUMN_BOOL ? "booleans" : "texts");
}

/* The slot that a term without function, or with one of values, stands for. `all`: what `*` means. */
static mir_status make_leaf(selection *s, const mir_influxql_expression *term, mir_view all,
                            node *made)
{
    slot wanted = {.field = term->name};
    made->kind = MIR_INFLUXQL_NAME;
    if (term->kind == MIR_INFLUXQL_CALL) {
        wanted.function = term->function;
        wanted.field = term->left->kind == MIR_INFLUXQL_ALL ? all : term->left->name;
        if (term->function == MIR_INFLUXQL_PERCENTILE) wanted.percentile = term->number;
        const mir_status status = check_types(s, &wanted);
        if (status != MIR_OK) return status;
    } else {
        if (term->kind == MIR_INFLUXQL_ALL) wanted.field = all;
        wanted.is_tag = term->kind == MIR_INFLUXQL_NAME && is_tag(s, term);
    }
    if (wanted.function != MIR_INFLUXQL_SPREAD) return add_slot(s, &wanted, &made->slot);
    /* The largest less the smallest. */
    made->kind = MIR_INFLUXQL_SIGN;
    made->sign = '-';
    wanted.is_end = true;
    for (int i = 0; i < 2; i++) {
        node *end = take(s, 1, sizeof *end);
        if (end == NULL) return no_memory(s);
        end->kind = MIR_INFLUXQL_NAME;
        wanted.function = i == 0 ? MIR_INFLUXQL_MAX : MIR_INFLUXQL_MIN;
        const mir_status status = add_slot(s, &wanted, &end->slot);
        if (status != MIR_OK) return status;
        if (i == 0)
            made->left = end;
        else
            made->right = end;
    }
    return MIR_OK;
}

static mir_status make_node(selection *s, const mir_influxql_expression *term, mir_view all,
                            node **out)
{
    node *made = take(s, 1, sizeof *made);
    if (made == NULL) return no_memory(s);
    *out = made;
    made->kind = term->kind;
    switch (term->kind) {
    case MIR_INFLUXQL_INTEGER:
        made->constant = (mir_influx_value){.type = MIR_COLUMN_I64, .i64 = term->integer};
        return MIR_OK;
    case MIR_INFLUXQL_NUMBER:
        made->constant = (mir_influx_value){.type = MIR_COLUMN_F64, .f64 = term->number};
        return MIR_OK;
    case MIR_INFLUXQL_NAME:
    case MIR_INFLUXQL_ALL: return make_leaf(s, term, all, made);
    case MIR_INFLUXQL_CALL: break;
    case MIR_INFLUXQL_SIGN: {
        made->sign = term->sign;
        const mir_status status = make_node(s, term->left, all, &made->left);
        return status == MIR_OK ? make_node(s, term->right, all, &made->right) : status;
    }
    }
    if (!mir_influxql_is_row_by_row(term->function)) return make_leaf(s, term, all, made);
    made->function = term->function;
    made->unit_ns = term->unit_ns != 0             ? (double)term->unit_ns
                    : s->statement->window_ns != 0 ? (double)s->statement->window_ns
                                                   : (double)MIR_NS_PER_S;
    if (term->function == MIR_INFLUXQL_MOVING_AVERAGE) {
        made->window = (uint32_t)term->number;
        made->last = take(s, made->window, sizeof *made->last);
        if (made->last == NULL) return no_memory(s);
    }
    return make_node(s, term->left, all, &made->left);
}

/* What a column is called that has no alias: its functions and names with _ between them. */
static void default_name(const mir_influxql_expression *term, mir_bytes *name)
{
    if (term == NULL || !mir_bytes_ok(name)) return;
    if (term->kind == MIR_INFLUXQL_NAME || term->kind == MIR_INFLUXQL_CALL) {
        if (name->size != 0) mir_bytes_u8(name, '_');
        if (term->kind == MIR_INFLUXQL_NAME)
            mir_bytes_view(name, term->name);
        else
            mir_bytes_text(name, mir_influxql_function_name(term->function));
        return;
    }
    default_name(term->left, name);
    default_name(term->right, name);
}

static bool has_output(const selection *s, mir_view name)
{
    if (mir_view_eq_cstr(name, "time")) return true;
    for (uint32_t i = 0; i < s->output_count; i++)
        if (mir_view_eq(s->outputs[i].name, name)) return true;
    return false;
}

static mir_status add_output(selection *s, mir_view name, node *root, bool is_count)
{
    mir_bytes unique = {0};
    mir_bytes_view(&unique, name);
    for (unsigned i = 1; has_output(s, mir_bytes_as_view(&unique)) && mir_bytes_ok(&unique); i++) {
        unique.size = name.size;
        mir_bytes_printf(&unique, "_%u", i);
    }
    const char *kept = mir_arena_strdup(&s->work->arena, mir_bytes_as_view(&unique));
    const size_t size = unique.size;
    const bool ok = mir_bytes_ok(&unique) && kept != NULL;
    mir_bytes_free(&unique);
    if (ok && s->output_count == s->output_capacity) {
        const uint32_t capacity = s->output_capacity == 0 ? 16 : s->output_capacity * 2;
        output *grown = take(s, capacity, sizeof *grown);
        if (grown == NULL) return no_memory(s);
        if (s->output_count != 0) memcpy(grown, s->outputs, s->output_count * sizeof *grown);
        s->outputs = grown;
        s->output_capacity = capacity;
    }
    if (!ok) return no_memory(s);
    s->outputs[s->output_count++] = (output){mir_view_of(kept, size), root, is_count};
    return MIR_OK;
}

static mir_status add_one(selection *s, const mir_influxql_field *field, mir_view all)
{
    const mir_influxql_expression *term = field->expression;
    node *root = NULL;
    mir_bytes name = {0};
    if (field->alias.size != 0 && all.size == 0)
        mir_bytes_view(&name, field->alias);
    else if (term->kind == MIR_INFLUXQL_ALL)
        mir_bytes_view(&name, all);
    else if (field->alias.size != 0)
        mir_bytes_view(&name, field->alias);
    else
        default_name(term, &name);
    if (all.size != 0 && term->kind == MIR_INFLUXQL_CALL) {
        mir_bytes_u8(&name, '_');
        mir_bytes_view(&name, all);
    }
    mir_status status = make_node(s, term, all, &root);
    if (status == MIR_OK && !mir_bytes_ok(&name)) status = no_memory(s);
    if (status == MIR_OK)
        status =
            add_output(s, mir_bytes_as_view(&name), root,
                       term->kind == MIR_INFLUXQL_CALL && term->function == MIR_INFLUXQL_COUNT);
    mir_bytes_free(&name);
    return status;
}

static bool is_dimension(const selection *s, mir_view key)
{
    for (size_t i = 0; i < s->dimensions.count; i++)
        if (mir_view_eq(s->dimensions.items[i], key)) return true;
    return false;
}

static int compare_views(const void *a, const void *b)
{
    return mir_view_compare(*(const mir_view *)a, *(const mir_view *)b);
}

static mir_status take_column(void *context, const mir_column *column)
{
    selection *s = context;
    if (s->field_count == s->field_capacity) {
        const uint32_t capacity = s->field_capacity == 0 ? 32 : s->field_capacity * 2;
        mir_column *grown = take(s, capacity, sizeof *grown);
        if (grown == NULL) return no_memory(s);
        if (s->field_count != 0) memcpy(grown, s->fields, s->field_count * sizeof *grown);
        s->fields = grown;
        s->field_capacity = capacity;
    }
    mir_column *to = &s->fields[s->field_count];
    *to = *column;
    to->name = mir_arena_strdup(&s->work->arena, mir_view_of(column->name, column->name_size));
    if (to->name == NULL) return no_memory(s);
    s->field_count++;
    return MIR_OK;
}

/* The names of today, under which a field that had others is answered, are known, too. */
static mir_status fields_today(selection *s)
{
    const mir_tlm_sources sources = {s->work->request->state, s->work->request->schemas,
                                     s->work->request->tlog};
    s->today = (mir_tlog_query_spec){.measurement = s->measurement};
    mir_status status = mir_tlm_renames(&sources, s->devices->items, s->devices->count,
                                        &s->work->arena, &s->today, s->work->error);
    const uint32_t count = s->field_count;
    for (uint32_t i = 0; i < count && status == MIR_OK; i++) {
        mir_column column = s->fields[i];
        const mir_view stored = mir_view_of(column.name, column.name_size);
        const mir_view name = mir_tlm_renamed(&s->today, stored);
        if (mir_view_eq(name, stored)) continue;
        column.name = (const char *)name.data;
        column.name_size = (uint32_t)name.size;
        status = take_column(s, &column);
    }
    return status;
}

/* Fields and, without a function, tags that no series is named by, in the order of their names. */
static mir_status add_all(selection *s, const mir_influxql_field *field)
{
    const mir_influxql_expression *term = field->expression;
    const bool call = term->kind == MIR_INFLUXQL_CALL;
    const mir_influxql_cast cast = call ? MIR_INFLUXQL_AS_FIELD : term->cast;
    mir_influx_keys keys = {0};
    if (cast != MIR_INFLUXQL_AS_FIELD &&
        mir_influx_keys_of(s->devices, &s->work->arena, &keys) != MIR_OK)
        return no_memory(s);
    mir_view *names = take(s, s->field_count + keys.count, sizeof *names);
    if (names == NULL) return no_memory(s);
    size_t count = 0;
    for (uint32_t i = 0; i < s->field_count && cast != MIR_INFLUXQL_AS_TAG; i++) {
        const mir_view name = mir_view_of(s->fields[i].name, s->fields[i].name_size);
        if (!mir_view_eq(name, mir_tlm_renamed(&s->today, name))) continue;
        if (!call || takes(term->function, s->fields[i].type)) names[count++] = name;
    }
    for (size_t i = 0; i < keys.count; i++)
        if (!is_dimension(s, keys.items[i])) names[count++] = keys.items[i];
    if (count > 1) qsort(names, count, sizeof *names, compare_views);
    for (size_t i = 0; i < count; i++) {
        if (i != 0 && mir_view_eq(names[i], names[i - 1])) continue;
        mir_status status;
        if (call || is_known_field(s, names[i])) {
            status = add_one(s, field, names[i]);
        } else {
            node *root = take(s, 1, sizeof *root);
            slot tag = {.field = names[i], .is_tag = true};
            if (root == NULL) return no_memory(s);
            root->kind = MIR_INFLUXQL_NAME;
            status = add_slot(s, &tag, &root->slot);
            if (status == MIR_OK) status = add_output(s, names[i], root, false);
        }
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

static mir_status make_outputs(selection *s)
{
    mir_status status = mir_tlog_field_types(s->work->request->tlog, s->measurement,
                                             s->statement->from_ns, take_column, s, s->work->error);
    if (status == MIR_OK) status = fields_today(s);
    for (uint32_t i = 0; i < s->statement->field_count && status == MIR_OK; i++) {
        const mir_influxql_field *field = &s->statement->fields[i];
        const mir_influxql_expression *term = field->expression;
        if (term->kind == MIR_INFLUXQL_ALL ||
            (term->kind == MIR_INFLUXQL_CALL && term->left->kind == MIR_INFLUXQL_ALL))
            status = add_all(s, field);
        else if (term->kind != MIR_INFLUXQL_NAME || !mir_view_eq_cstr(term->name, "time"))
            status = add_one(s, field, (mir_view){0});
    }
    return status;
}

/* --- groups ---------------------------------------------------------------------------------- */

static mir_status make_dimensions(selection *s)
{
    const mir_influxql_statement *q = s->statement;
    mir_influx_keys keys = {0};
    bool patterns = q->group_by_all;
    for (uint32_t i = 0; i < q->dimension_count; i++)
        patterns = patterns || q->dimensions[i].is_pattern;
    if (patterns && mir_influx_keys_of(s->devices, &s->work->arena, &keys) != MIR_OK)
        return no_memory(s);
    const size_t room = q->dimension_count + keys.count * (q->dimension_count + 1);
    s->dimensions.items = take(s, room, sizeof *s->dimensions.items);
    if (s->dimensions.items == NULL) return no_memory(s);
    size_t count = 0;
    for (size_t k = 0; k < keys.count && q->group_by_all; k++)
        s->dimensions.items[count++] = keys.items[k];
    for (uint32_t i = 0; i < q->dimension_count; i++) {
        if (!q->dimensions[i].is_pattern) {
            s->dimensions.items[count++] = q->dimensions[i].text;
            continue;
        }
        mir_influx_pattern *pattern = NULL;
        mir_status status = mir_influx_pattern_new(q->dimensions[i].text, &s->work->arena, &pattern,
                                                   s->work->error);
        for (size_t k = 0; k < keys.count && status == MIR_OK; k++) {
            bool found = false;
            status = mir_influx_pattern_find(pattern, keys.items[k], &found, s->work->error);
            if (found) s->dimensions.items[count++] = keys.items[k];
        }
        if (status != MIR_OK) return status;
    }
    if (count > 1) qsort(s->dimensions.items, count, sizeof(mir_view), compare_views);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || !mir_view_eq(s->dimensions.items[i], s->dimensions.items[i - 1]))
            s->dimensions.items[s->dimensions.count++] = s->dimensions.items[i];
    return MIR_OK;
}

static int compare_devices(const selection *s, uint32_t a, uint32_t b)
{
    for (size_t i = 0; i < s->dimensions.count; i++) {
        const int order =
            mir_view_compare(mir_influx_tag(s->devices->items[a], s->dimensions.items[i]),
                             mir_influx_tag(s->devices->items[b], s->dimensions.items[i]));
        if (order != 0) return order;
    }
    return 0;
}

static int compare_places(const void *a, const void *b, void *context)
{
    const uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    const int order = compare_devices(context, left, right);
    if (order != 0) return order;
    return left < right ? -1 : left > right;
}

static mir_status make_groups(selection *s)
{
    const uint32_t count = (uint32_t)s->devices->count;
    s->ids = take(s, count, sizeof *s->ids);
    s->group_of = take(s, count, sizeof *s->group_of);
    s->by_group = take(s, count, sizeof *s->by_group);
    s->group_at = take(s, (size_t)count + 1, sizeof *s->group_at);
    if (s->ids == NULL || s->group_of == NULL || s->by_group == NULL || s->group_at == NULL)
        return no_memory(s);
    for (uint32_t i = 0; i < count; i++) {
        s->ids[i] = mir_view_cstr(s->devices->items[i]->device_id);
        s->by_group[i] = i;
    }
    if (s->dimensions.count != 0) qsort_r(s->by_group, count, sizeof(uint32_t), compare_places, s);
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || compare_devices(s, s->by_group[i - 1], s->by_group[i]) != 0)
            s->group_at[s->group_count++] = i;
        s->group_of[s->by_group[i]] = s->group_count - 1;
    }
    s->group_at[s->group_count] = count;
    s->each_alone = s->group_count == count;
    return MIR_OK;
}

/* --- the log --------------------------------------------------------------------------------- */

static const struct {
    mir_influxql_function function;
    mir_tlog_function bit;
} bits[] = {
    {MIR_INFLUXQL_MEAN, MIR_TLOG_MEAN},
    {MIR_INFLUXQL_MIN, MIR_TLOG_MIN},
    {MIR_INFLUXQL_MAX, MIR_TLOG_MAX},
    {MIR_INFLUXQL_SUM, MIR_TLOG_SUM},
    {MIR_INFLUXQL_COUNT, MIR_TLOG_COUNT},
    {MIR_INFLUXQL_FIRST, MIR_TLOG_FIRST},
    {MIR_INFLUXQL_LAST, MIR_TLOG_LAST},
    {MIR_INFLUXQL_RATE, MIR_TLOG_RATE},
    {MIR_INFLUXQL_PERCENTILE, MIR_TLOG_PERCENTILE},
};

static mir_status set_functions(selection *s, mir_tlog_query_spec *spec)
{
    for (uint32_t i = 0; i < s->slot_count; i++) {
        const slot *one = &s->slots[i];
        for (size_t b = 0; b < sizeof bits / sizeof bits[0]; b++)
            if (bits[b].function == one->function) spec->functions |= (uint32_t)bits[b].bit;
        if (one->function != MIR_INFLUXQL_PERCENTILE) continue;
        uint32_t p = 0;
        while (p < spec->percentile_count && spec->percentiles[p] != one->percentile) p++;
        if (p < spec->percentile_count) continue;
        if (p == MIR_TLOG_PERCENTILES_MAX)
            return mir_error_set(s->work->error, MIR_E_UNSUPPORTED,
                                 "more than %d different percentiles in one SELECT",
                                 MIR_TLOG_PERCENTILES_MAX);
        spec->percentiles[spec->percentile_count++] = one->percentile;
    }
    return MIR_OK;
}

/* The fields that have to be read: all for a `*`, in which they are named anyway. */
static mir_status set_fields(selection *s, mir_tlog_query_spec *spec)
{
    mir_view *names = take(s, s->slot_count, sizeof *names);
    if (names == NULL) return no_memory(s);
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (!s->slots[i].is_tag) names[spec->field_count++] = s->slots[i].field;
    spec->fields = names;
    return MIR_OK;
}

static bool is_single(const mir_tlog_query_spec *spec)
{
    const uint32_t others = spec->functions & ~(uint32_t)MIR_TLOG_PERCENTILE;
    return (uint32_t)__builtin_popcount(others) + spec->percentile_count == 1;
}

typedef struct finding {
    selection *s;
    const mir_tlog_query_spec *spec;
} finding;

static mir_status found_columns(void *context, const mir_column *columns, uint32_t count)
{
    const finding *f = context;
    const bool plain = f->spec->functions == 0 || is_single(f->spec);
    for (uint32_t i = 0; i < f->s->slot_count; i++) {
        slot *one = &f->s->slots[i];
        char name[NAME_BYTES_MAX];
        one->column_count = 0;
        if (one->is_tag) continue;
        int size;
        if (plain)
            size = snprintf(name, sizeof name, "%.*s", MIR_VIEW_ARGS(one->field));
        else if (one->function == MIR_INFLUXQL_PERCENTILE) {
            char function[MIR_TLOG_PERCENTILE_NAME_BYTES];
            mir_tlog_percentile_name(one->percentile, function);
            size = snprintf(name, sizeof name, "%s(%.*s)", function, MIR_VIEW_ARGS(one->field));
        } else
            size = snprintf(name, sizeof name, "%s(%.*s)",
                            mir_influxql_function_name(one->function), MIR_VIEW_ARGS(one->field));
        if (size < 0 || (size_t)size >= sizeof name) continue; /* no field has such a name */
        const mir_view wanted = mir_view_of(name, (size_t)size);
        for (uint32_t c = 0; c < count && one->column_count < TYPES_MAX; c++)
            if (mir_view_eq(wanted, mir_view_of(columns[c].name, columns[c].name_size)))
                one->columns[one->column_count++] = c | (uint32_t)columns[c].type << 24;
    }
    return MIR_OK;
}

static mir_status more_rows(selection *s, uint32_t count)
{
    if (count <= s->row_capacity - s->row_count) return MIR_OK;
    size_t capacity = s->row_capacity == 0 ? 1024 : (size_t)s->row_capacity * 2;
    if (capacity < (size_t)s->row_count + count) capacity = (size_t)s->row_count + count;
    const size_t row = sizeof(int64_t) + sizeof(uint32_t) + s->slot_count * sizeof *s->values;
    const size_t bytes = capacity * row;
    if (capacity > UINT32_MAX || bytes + s->work->arena.bytes_used > s->work->arena.bytes_max)
        return no_memory(s);
    int64_t *times = realloc(s->times, capacity * sizeof *times);
    if (times != NULL) s->times = times;
    uint32_t *owners = realloc(s->owners, capacity * sizeof *owners);
    if (owners != NULL) s->owners = owners;
    mir_influx_value *values = realloc(s->values, (capacity * s->slot_count + 1) * sizeof *values);
    if (values != NULL) s->values = values;
    if (times == NULL || owners == NULL || values == NULL) return no_memory(s);
    s->row_capacity = (uint32_t)capacity;
    s->bytes = bytes;
    return MIR_OK;
}

static mir_status take_cell(selection *s, const slot *one, const mir_tlog_batch *batch,
                            uint32_t row, mir_influx_value *value)
{
    *value = (mir_influx_value){0};
    for (uint32_t i = 0; i < one->column_count; i++) {
        const uint32_t column = one->columns[i] & 0xffffff;
        const size_t at = (size_t)row * batch->column_count + column;
        if (batch->present[at] == 0) continue;
        const mir_cell *cell = &batch->cells[at];
        value->type = one->columns[i] >> 24;
        switch ((mir_column_type)value->type) {
        case MIR_COLUMN_I64: value->i64 = cell->i64; break;
        case MIR_COLUMN_U64: value->u64 = cell->u64; break;
        case MIR_COLUMN_F64: value->f64 = cell->f64; break;
        case MIR_COLUMN_BOOL: value->boolean = cell->boolean; break;
        case MIR_COLUMN_STRING: {
            if (s->bytes + s->work->arena.bytes_used + cell->string.size > s->work->arena.bytes_max)
                return no_memory(s);
            const char *copy = mir_arena_strdup(&s->work->arena, cell->string);
            if (copy == NULL) return no_memory(s);
            *value = mir_influx_text(mir_view_of(copy, cell->string.size));
            break;
        }
        }
        break;
    }
    return MIR_OK;
}

static int64_t window_start(const mir_influxql_statement *q, int64_t time_ns)
{
    const __int128 window_ns = (__int128)q->window_ns;
    const __int128 since_ns = (__int128)time_ns - q->window_from_ns;
    const __int128 start_ns = time_ns - ((since_ns % window_ns) + window_ns) % window_ns;
    return start_ns < INT64_MIN ? INT64_MIN : (int64_t)start_ns;
}

static mir_status found_rows(void *context, const mir_tlog_batch *batch)
{
    const finding *f = context;
    selection *s = f->s;
    mir_status status = more_rows(s, batch->row_count);
    for (uint32_t r = 0; r < batch->row_count && status == MIR_OK; r++) {
        /* Windows are called by their ends in the log, by their beginnings here. */
        s->times[s->row_count] = s->statement->window_ns != 0
                                     ? window_start(s->statement, batch->times_ns[r] - 1)
                                     : batch->times_ns[r];
        s->owners[s->row_count] = s->part == NULL ? batch->devices[r] : s->part[batch->devices[r]];
        mir_influx_value *values = s->values + (size_t)s->row_count * s->slot_count;
        for (uint32_t i = 0; i < s->slot_count && status == MIR_OK; i++)
            status = take_cell(s, &s->slots[i], batch, r, &values[i]);
        if (status == MIR_OK) s->row_count++;
    }
    return status;
}

static mir_status query_log(selection *s, mir_tlog_query_spec *spec)
{
    finding f = {s, spec};
    const mir_tlog_sink sink = {.context = &f, .columns = found_columns, .rows = found_rows};
    mir_tlog_query_info info = {0};
    const mir_status status =
        mir_tlog_query(s->work->request->tlog, spec, &sink, &info, s->work->error);
    s->work->info->rows += info.rows_read;
    s->chunks_corrupt += info.chunks_corrupt;
    if (info.left_out) s->work->info->rolled_up = true;
    if (status != MIR_OK && s->work->error->text[0] == '\0')
        (void)mir_error_set(s->work->error, status, "%s", mir_status_name(status));
    return status;
}

/* Rows as they are, group by group: a query for each, which ends early if there is a limit, and in which
 * groups are not sorted by time among each other. */
static mir_status find_by_group(selection *s, mir_tlog_query_spec *spec)
{
    const mir_influxql_statement *q = s->statement;
    if (q->limit != 0 && !q->row_by_row && q->limit < UINT32_MAX && q->offset < UINT32_MAX) {
        spec->limit = q->limit + q->offset;
        spec->backward = s->backward = q->descending;
    }
    mir_view *ids = take(s, s->devices->count, sizeof *ids);
    if (ids == NULL) return no_memory(s);
    for (uint32_t g = 0; g < s->group_count; g++) {
        s->part = s->by_group + s->group_at[g];
        spec->device_count = s->group_at[g + 1] - s->group_at[g];
        for (uint32_t i = 0; i < spec->device_count; i++) ids[i] = s->ids[s->part[i]];
        spec->device_ids = ids;
        const mir_status status = query_log(s, spec);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

static bool is_number(const mir_influx_value *value)
{
    return value->type == MIR_COLUMN_I64 || value->type == MIR_COLUMN_U64 ||
           value->type == MIR_COLUMN_F64;
}

static double number_of(const mir_influx_value *value)
{
    switch (value->type) {
    case MIR_COLUMN_I64: return (double)value->i64;
    case MIR_COLUMN_U64: return (double)value->u64;
    case MIR_COLUMN_F64: return value->f64;
    default: return 0;
    }
}

/* Of numbers. */
static bool equals(const mir_influx_value *a, const mir_influx_value *b)
{
    if (a->type == b->type && a->type != MIR_COLUMN_F64) return a->i64 == b->i64;
    const double left = number_of(a), right = number_of(b);
    return left == right || (isnan(left) && isnan(right));
}

static int64_t range_time(const mir_influxql_statement *q)
{
    return q->from_ns == INT64_MIN ? 0 : q->from_ns;
}

/* Whether it is one value of the rows, whose time the answer has. */
static bool is_choice(const selection *s)
{
    if (s->slot_count != 1) return false;
    switch (s->slots[0].function) {
    case MIR_INFLUXQL_FIRST:
    case MIR_INFLUXQL_LAST:
    case MIR_INFLUXQL_MIN:
    case MIR_INFLUXQL_MAX:
    case MIR_INFLUXQL_PERCENTILE: return true;
    default: return false;
    }
}

/* Where a value that was chosen stands is looked for in so many windows first. */
enum { CHOICE_WINDOWS = 1024, CHOICE_PARTS = 64 };

/* The first row with a value that was chosen. */
typedef struct choice {
    finding finding;
    const mir_influx_value *wanted; /* null: any */
    int64_t time_ns;
    bool found;
    mir_error error;
} choice;

static mir_status choice_columns(void *context, const mir_column *columns, uint32_t count)
{
    choice *c = context;
    return found_columns(&c->finding, columns, count);
}

static mir_status choice_rows(void *context, const mir_tlog_batch *batch)
{
    choice *c = context;
    selection *s = c->finding.s;
    for (uint32_t r = 0; r < batch->row_count; r++) {
        mir_influx_value value;
        const mir_status status = take_cell(s, &s->slots[0], batch, r, &value);
        if (status != MIR_OK) return status;
        if (value.type == 0 ||
            (c->wanted != NULL && (!is_number(&value) || !equals(&value, c->wanted))))
            continue;
        c->time_ns = batch->times_ns[r];
        c->found = true;
        return MIR_E_EMPTY; /* enough */
    }
    return MIR_OK;
}

static mir_status choice_look(choice *c, const mir_tlog_query_spec *spec)
{
    const mir_tlog_sink sink = {.context = c, .columns = choice_columns, .rows = choice_rows};
    c->finding.spec = spec;
    const mir_status status =
        mir_tlog_query(c->finding.s->work->request->tlog, spec, &sink, NULL, &c->error);
    return c->found ? MIR_OK : status;
}

/* The earliest window that the value is the least or the greatest one of, or none. */
static mir_status choice_narrow(choice *c, mir_tlog_query_spec *spec, uint32_t function,
                                const uint32_t *one_group)
{
    const uint64_t span_ns = (uint64_t)spec->to_ns - (uint64_t)spec->from_ns;
    mir_tlog_query_spec windows = *spec;
    windows.functions = function;
    windows.window_ns = span_ns / CHOICE_WINDOWS + 1;
    windows.window_from_ns = spec->from_ns;
    windows.groups = one_group;
    windows.group_count = 1;
    const mir_status status = choice_look(c, &windows);
    if (!c->found) return status;
    /* Windows are called by their ends. */
    const uint64_t last = (uint64_t)c->time_ns - (uint64_t)spec->from_ns - 1;
    spec->from_ns = (int64_t)((uint64_t)spec->from_ns + last - last % windows.window_ns);
    spec->to_ns = c->time_ns;
    return MIR_OK;
}

/* Among the rows as they are: where these have no room, one part of the time after the other. */
static mir_status choice_find(choice *c, mir_tlog_query_spec spec)
{
    const mir_status status = choice_look(c, &spec);
    if (status != MIR_E_TOO_LARGE) return status;
    const int64_t to_ns = spec.to_ns;
    const uint64_t step_ns = ((uint64_t)to_ns - (uint64_t)spec.from_ns) / CHOICE_PARTS + 1;
    if (step_ns == 1 && (uint64_t)to_ns - (uint64_t)spec.from_ns == 1) return MIR_OK;
    while (spec.from_ns < to_ns && !c->found) {
        const uint64_t left_ns = (uint64_t)to_ns - (uint64_t)spec.from_ns;
        spec.to_ns = left_ns <= step_ns ? to_ns : (int64_t)((uint64_t)spec.from_ns + step_ns);
        const mir_status part = choice_find(c, spec);
        if (part != MIR_OK) return part;
        spec.from_ns = spec.to_ns;
    }
    return MIR_OK;
}

/* What is found has the value and no time: where that stands is looked for. Where only rollups are
 * left, it stands nowhere. */
static mir_status find_choices(selection *s, const mir_tlog_query_spec *found)
{
    const mir_influxql_function function = s->slots[0].function;
    mir_view *ids = take(s, s->devices->count, sizeof *ids);
    uint32_t *one_group = take(s, s->devices->count, sizeof *one_group);
    if (ids == NULL || one_group == NULL) return no_memory(s);
    memset(one_group, 0, s->devices->count * sizeof *one_group);
    for (uint32_t row = 0; row < s->row_count; row++) {
        const uint32_t g = s->owners[row];
        const mir_influx_value *value = &s->values[row];
        mir_tlog_query_spec spec = *found;
        choice c = {.finding = {s, &spec}, .wanted = function == MIR_INFLUXQL_FIRST ? NULL : value};
        spec.device_ids = ids;
        spec.device_count = s->group_at[g + 1] - s->group_at[g];
        for (uint32_t i = 0; i < spec.device_count; i++)
            ids[i] = s->ids[s->by_group[s->group_at[g] + i]];
        spec.functions = spec.percentile_count = spec.group_count = 0;
        spec.groups = NULL;
        mir_status status = MIR_OK;
        bool somewhere = true;
        if (function == MIR_INFLUXQL_FIRST) spec.limit = 1;
        if (function == MIR_INFLUXQL_MIN || function == MIR_INFLUXQL_MAX) {
            status = choice_narrow(
                &c, &spec, function == MIR_INFLUXQL_MIN ? MIR_TLOG_MIN : MIR_TLOG_MAX, one_group);
            somewhere = c.found;
            c.found = false;
        }
        if (status == MIR_OK && somewhere) status = choice_find(&c, spec);
        if (status != MIR_OK) {
            *s->work->error = c.error;
            return status;
        }
        s->times[row] = c.found ? c.time_ns : range_time(s->statement);
    }
    return MIR_OK;
}

static mir_status find_rows(selection *s)
{
    const mir_influxql_statement *q = s->statement;
    const int64_t to_ns =
        q->window_ns != 0 && q->to_ns == INT64_MAX ? s->work->request->now_ns : q->to_ns;
    mir_tlog_query_spec spec = {
        .device_ids = s->ids,
        .device_count = (uint32_t)s->devices->count,
        .measurement = s->measurement,
        .from_ns = q->from_ns,
        .to_ns = to_ns == INT64_MAX ? to_ns : to_ns + 1,
        .window_ns = q->window_ns,
        .window_from_ns = q->window_from_ns,
        .bytes_max = s->work->arena.bytes_max,
        .cancel = s->work->request->cancel,
    };
    mir_status status = set_fields(s, &spec);
    if (status == MIR_OK) status = set_functions(s, &spec);
    const mir_tlm_sources sources = {s->work->request->state, s->work->request->schemas,
                                     s->work->request->tlog};
    if (status == MIR_OK && spec.field_count != 0)
        status = mir_tlm_renames(&sources, s->devices->items, s->devices->count, &s->work->arena,
                                 &spec, s->work->error);
    if (status != MIR_OK || spec.from_ns >= spec.to_ns || spec.field_count == 0) return status;
    if (q->aggregates && !s->each_alone) {
        spec.groups = s->group_of;
        spec.group_count = s->group_count;
    } else if (q->aggregates) {
        s->part = s->group_of; /* of each device alone: its group */
    } else {
        return find_by_group(s, &spec);
    }
    status = query_log(s, &spec);
    if (status == MIR_OK && q->window_ns == 0 && is_choice(s) &&
        s->slots[0].function != MIR_INFLUXQL_LAST)
        status = find_choices(s, &spec);
    return status;
}

/* --- calculations ---------------------------------------------------------------------------- */

static __int128 integer_of(const mir_influx_value *value)
{
    return value->type == MIR_COLUMN_U64 ? (__int128)value->u64 : (__int128)value->i64;
}

static mir_influx_value of_double(double number)
{
    return (mir_influx_value){.type = MIR_COLUMN_F64, .f64 = number};
}

static mir_influx_value of_integer(__int128 number)
{
    if (number >= INT64_MIN && number <= INT64_MAX)
        return (mir_influx_value){.type = MIR_COLUMN_I64, .i64 = (int64_t)number};
    if (number > 0 && number <= UINT64_MAX)
        return (mir_influx_value){.type = MIR_COLUMN_U64, .u64 = (uint64_t)number};
    return of_double((double)number);
}

/* Of whole numbers exact; a quotient is a double, and one by nothing is nothing. */
static mir_influx_value calculate(char sign, const mir_influx_value *left,
                                  const mir_influx_value *right)
{
    const mir_influx_value nothing = {0};
    if (!is_number(left) || !is_number(right)) return nothing;
    const bool whole = left->type != MIR_COLUMN_F64 && right->type != MIR_COLUMN_F64;
    const double a = number_of(left), b = number_of(right);
    switch (sign) {
    case '+': return whole ? of_integer(integer_of(left) + integer_of(right)) : of_double(a + b);
    case '-': return whole ? of_integer(integer_of(left) - integer_of(right)) : of_double(a - b);
    case '*': {
        __int128 product;
        if (!whole || __builtin_mul_overflow(integer_of(left), integer_of(right), &product))
            return of_double(a * b);
        return of_integer(product);
    }
    case '/': return b == 0 ? nothing : of_double(a / b);
    default:
        if (b == 0) return nothing;
        return whole ? of_integer(integer_of(left) % integer_of(right)) : of_double(fmod(a, b));
    }
}

static mir_influx_value moving_average(node *n, double number)
{
    if (n->last_count == n->window)
        n->sum -= n->last[n->last_at];
    else
        n->last_count++;
    n->last[n->last_at] = number;
    n->sum += number;
    if (++n->last_at >= n->window) {
        /* What large numbers have cost the sum of its digits is made good. */
        n->last_at = 0;
        n->sum = 0;
        for (uint32_t i = 0; i < n->last_count; i++) n->sum += n->last[i];
    }
    return n->last_count < n->window ? (mir_influx_value){0} : of_double(n->sum / n->window);
}

static mir_influx_value row_by_row(node *n, int64_t time_ns, const mir_influx_value *value)
{
    const mir_influx_value nothing = {0};
    /* What is no number would be in every sum from then on. */
    if (!is_number(value) || !isfinite(number_of(value))) return nothing;
    if (n->function == MIR_INFLUXQL_CUMULATIVE_SUM) {
        n->before = n->has_before ? calculate('+', &n->before, value) : *value;
        n->has_before = true;
        return n->before;
    }
    if (n->function == MIR_INFLUXQL_MOVING_AVERAGE) return moving_average(n, number_of(value));
    mir_influx_value result = nothing;
    const double elapsed_ns = (double)((__int128)time_ns - n->before_ns);
    if (n->has_before) {
        result = calculate('-', value, &n->before);
        if (n->function == MIR_INFLUXQL_DERIVATIVE ||
            n->function == MIR_INFLUXQL_NON_NEGATIVE_DERIVATIVE)
            /* In this order of divisions, which InfluxDB has: the last digits are the same. */
            result = elapsed_ns == 0 ? nothing
                                     : of_double(number_of(&result) / (elapsed_ns / n->unit_ns));
        const bool non_negative = n->function == MIR_INFLUXQL_NON_NEGATIVE_DERIVATIVE ||
                                  n->function == MIR_INFLUXQL_NON_NEGATIVE_DIFFERENCE;
        if (non_negative && number_of(&result) < 0) result = nothing;
    }
    n->has_before = true;
    n->before = *value;
    n->before_ns = time_ns;
    return result;
}

typedef struct row_view {
    int64_t time_ns;
    const mir_influx_value *values;
    const mir_influx_device *device; /* whose tags a slot may ask for */
} row_view;

static mir_influx_value evaluate(const selection *s, node *n, const row_view *row)
{
    switch (n->kind) {
    case MIR_INFLUXQL_NAME: {
        const slot *one = &s->slots[n->slot];
        if (!one->is_tag) return row->values[n->slot];
        const mir_view text = mir_influx_tag(row->device, one->field);
        return text.size == 0 ? (mir_influx_value){0} : mir_influx_text(text);
    }
    case MIR_INFLUXQL_CALL: {
        const mir_influx_value value = evaluate(s, n->left, row);
        return row_by_row(n, row->time_ns, &value);
    }
    case MIR_INFLUXQL_SIGN: {
        const mir_influx_value left = evaluate(s, n->left, row);
        const mir_influx_value right = evaluate(s, n->right, row);
        return calculate(n->sign, &left, &right);
    }
    default: return n->constant;
    }
}

static void begin_group(node *n)
{
    if (n == NULL) return;
    n->has_before = false;
    n->sum = 0;
    n->last_count = n->last_at = 0;
    begin_group(n->left);
    begin_group(n->right);
}

/* --- fill ------------------------------------------------------------------------------------ */

/* A group's rows, in ascending time. */
typedef struct rows {
    int64_t *times;
    mir_influx_value *values;
    uint32_t *devices; /* null: of a group */
    size_t count;
} rows;

/* With as much room as the largest group needs; the memory is one group's after the other. */
static mir_status make_rows(selection *s, size_t count, rows *made)
{
    const size_t row =
        sizeof(int64_t) + sizeof(uint32_t) + s->slot_count * sizeof(mir_influx_value);
    if (count > s->work->arena.bytes_max / row ||
        count * row + s->bytes + s->work->arena.bytes_used > s->work->arena.bytes_max)
        return no_memory(s);
    made->times = malloc((count + 1) * sizeof *made->times);
    made->values = malloc((count * s->slot_count + 1) * sizeof *made->values);
    made->devices = malloc((count + 1) * sizeof *made->devices);
    return made->times == NULL || made->values == NULL || made->devices == NULL ? no_memory(s)
                                                                                : MIR_OK;
}

static void free_rows(rows *made)
{
    free(made->times);
    free(made->values);
    free(made->devices);
}

/* Between the values before and behind, at its place of the line between them. */
static mir_influx_value between(const mir_influx_value *before, const mir_influx_value *behind,
                                size_t place, size_t places)
{
    const double share = (double)place / (double)places;
    const double a = number_of(before), b = number_of(behind);
    if (before->type == MIR_COLUMN_F64 || behind->type == MIR_COLUMN_F64)
        return of_double(a + (b - a) * share);
    const double value = trunc(a + (b - a) * share);
    return value >= -0x1p63 && value < 0x1p63 ? of_integer((__int128)value) : of_double(value);
}

static void fill_slot(const selection *s, rows *group, uint32_t i)
{
    const uint32_t width = s->slot_count;
    const mir_influxql_fill fill = s->statement->fill;
    size_t before = SIZE_MAX;
    for (size_t r = 0; r < group->count; r++) {
        mir_influx_value *value = &group->values[r * width + i];
        if (value->type != 0) {
            if (fill == MIR_INFLUXQL_FILL_LINEAR && before != SIZE_MAX && is_number(value) &&
                is_number(&group->values[before * width + i]))
                for (size_t gap = before + 1; gap < r; gap++)
                    group->values[gap * width + i] = between(&group->values[before * width + i],
                                                             value, gap - before, r - before);
            before = r;
        } else if (fill == MIR_INFLUXQL_FILL_NUMBER) {
            const bool low = s->slots[i].is_end && s->slots[i].function == MIR_INFLUXQL_MIN;
            *value = of_double(low ? 0 : s->statement->fill_number);
        } else if (fill == MIR_INFLUXQL_FILL_PREVIOUS && before != SIZE_MAX) {
            *value = group->values[before * width + i];
        } else if (fill == MIR_INFLUXQL_FILL_NULL && s->slots[i].function == MIR_INFLUXQL_COUNT) {
            *value = of_integer(0);
        }
    }
}

typedef struct windows {
    bool filled;
    int64_t first_ns;
    size_t count;
} windows;

static bool counts(const selection *s)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->slots[i].function == MIR_INFLUXQL_COUNT) return true;
    return false;
}

/* The windows that an answer has whether there are values or not. What comes of one row after the other
 * has those with values alone, unless they are counted: then none is a value. */
static mir_status make_windows(selection *s, windows *made)
{
    const mir_influxql_statement *q = s->statement;
    *made = (windows){0};
    if (q->window_ns == 0 || q->fill == MIR_INFLUXQL_FILL_NONE ||
        (q->row_by_row && q->fill == MIR_INFLUXQL_FILL_NULL && !counts(s)) || s->row_count == 0)
        return MIR_OK;
    int64_t first_ns = s->times[0], last_ns = s->times[0];
    for (uint32_t i = 1; i < s->row_count; i++) {
        if (s->times[i] < first_ns) first_ns = s->times[i];
        if (s->times[i] > last_ns) last_ns = s->times[i];
    }
    if (q->from_ns != INT64_MIN) first_ns = window_start(q, q->from_ns);
    const int64_t to_ns = q->to_ns == INT64_MAX ? s->work->request->now_ns : q->to_ns;
    if (window_start(q, to_ns) > last_ns) last_ns = window_start(q, to_ns);
    const __int128 count = ((__int128)last_ns - first_ns) / (__int128)q->window_ns + 1;
    if (count > MIR_INFLUX_WINDOWS_MAX)
        return mir_error_set(s->work->error, MIR_E_TOO_LARGE,
                             "the time has more than %d windows: ask for a shorter time or longer "
                             "windows, or use fill(none)",
                             MIR_INFLUX_WINDOWS_MAX);
    *made = (windows){true, first_ns, (size_t)count};
    return MIR_OK;
}

/* Rows `from` to `end` - 1 of `order` are the group's. */
static void gather(const selection *s, const uint32_t *order, size_t from, size_t end,
                   const windows *all, rows *group)
{
    const uint32_t width = s->slot_count;
    const bool backward = s->backward;
    group->count = all->filled ? all->count : end - from;
    if (all->filled) {
        memset(group->values, 0, all->count * width * sizeof *group->values);
        for (size_t w = 0; w < all->count; w++)
            group->times[w] = (int64_t)(all->first_ns + (__int128)w * s->statement->window_ns);
    }
    for (size_t i = from; i < end; i++) {
        const uint32_t row = order[backward ? end - 1 - (i - from) : i];
        const size_t to = all->filled ? (size_t)(((__int128)s->times[row] - all->first_ns) /
                                                 (__int128)s->statement->window_ns)
                                      : i - from;
        group->times[to] = s->times[row];
        group->devices[to] = s->owners[row];
        memcpy(group->values + to * width, s->values + (size_t)row * width,
               width * sizeof *group->values);
    }
    for (uint32_t i = 0; i < width && all->filled; i++) fill_slot(s, group, i);
}

/* --- what is written ------------------------------------------------------------------------- */

/* Without windows the time is the beginning of what was asked for, or that of the one value chosen. */
static int64_t time_of(const selection *s, int64_t found_ns)
{
    const mir_influxql_statement *q = s->statement;
    return !q->aggregates || q->window_ns != 0 || is_choice(s) ? found_ns : range_time(q);
}

static mir_status write_row(selection *s, int64_t time_ns, const mir_influx_value *values)
{
    const mir_status status = mir_influx_json_row(s->work->json, &time_ns, values, s->output_count);
    if (status == MIR_E_TOO_LARGE)
        return mir_error_set(s->work->error, status,
                             "the answer is larger than %zu bytes: ask for a shorter time, longer "
                             "windows, fewer fields or fewer devices, or set a LIMIT",
                             s->work->json->bytes_max);
    return status == MIR_OK ? status : no_memory(s);
}

/* What the heads of all groups have: made once, so that no group fails for want of memory half written. */
static mir_status make_head(selection *s)
{
    s->columns = take(s, (size_t)s->output_count + 1, sizeof *s->columns);
    s->tags = take(s, s->dimensions.count, sizeof *s->tags);
    if (s->columns == NULL || s->tags == NULL) return no_memory(s);
    s->columns[0] = MIR_VIEW_LITERAL("time");
    for (uint32_t i = 0; i < s->output_count; i++) s->columns[i + 1] = s->outputs[i].name;
    return MIR_OK;
}

static void write_head(selection *s, uint32_t g)
{
    const mir_influx_device *device = s->devices->items[s->by_group[s->group_at[g]]];
    for (size_t i = 0; i < s->dimensions.count; i++)
        s->tags[i] = mir_influx_tag(device, s->dimensions.items[i]);
    mir_influx_json_series(s->work->json, s->measurement, s->dimensions.items, s->tags,
                           s->dimensions.count, s->columns, (size_t)s->output_count + 1);
}

/* Calculates every row, and keeps what is not empty in place. */
static void calculate_rows(selection *s, uint32_t g, rows *group, mir_influx_value *results)
{
    const mir_influx_device *first = s->devices->items[s->by_group[s->group_at[g]]];
    size_t kept = 0;
    for (uint32_t i = 0; i < s->output_count; i++) begin_group(s->outputs[i].root);
    for (size_t r = 0; r < group->count; r++) {
        const row_view row = {group->times[r], group->values + r * s->slot_count,
                              s->statement->aggregates ? first
                                                       : s->devices->items[group->devices[r]]};
        bool any = false;
        for (uint32_t i = 0; i < s->output_count; i++) {
            mir_influx_value *to = &results[kept * s->output_count + i];
            *to = evaluate(s, s->outputs[i].root, &row);
            any = any || to->type != 0;
        }
        if (!any && s->statement->row_by_row) continue;
        group->times[kept++] = group->times[r];
    }
    group->count = kept;
}

static mir_status write_group(selection *s, uint32_t g, rows *group, mir_influx_value *results,
                              uint64_t *series)
{
    const mir_influxql_statement *q = s->statement;
    calculate_rows(s, g, group, results);
    if (group->count == 0) return MIR_OK;
    const uint64_t number = (*series)++;
    if (number < q->series_offset ||
        (q->series_limit != 0 && number - q->series_offset >= q->series_limit))
        return MIR_OK;
    if (q->offset >= group->count) return MIR_OK;
    size_t count = group->count - (size_t)q->offset;
    if (q->limit != 0 && q->limit < count) count = (size_t)q->limit;
    write_head(s, g);
    for (size_t i = 0; i < count; i++) {
        const size_t place = (size_t)q->offset + i;
        const size_t r = q->descending ? group->count - 1 - place : place;
        if (i % CANCEL_LOOK_ROWS == 0 && is_cancelled(s)) return cancelled(s);
        const mir_status status =
            write_row(s, time_of(s, group->times[r]), results + r * s->output_count);
        if (status != MIR_OK) return status;
    }
    mir_influx_json_series_end(s->work->json);
    return MIR_OK;
}

static uint32_t group_of_row(const selection *s, uint32_t row)
{
    return s->statement->aggregates ? s->owners[row] : s->group_of[s->owners[row]];
}

static mir_status write_groups(selection *s, uint64_t *series)
{
    /* Rows come in the order of time; by group, they stay in it. */
    size_t *ends = calloc((size_t)s->group_count + 2, sizeof *ends);
    uint32_t *order = malloc(((size_t)s->row_count + 1) * sizeof *order);
    rows group = {0};
    windows all = {0};
    mir_influx_value *results = NULL;
    mir_status status = ends == NULL || order == NULL ? no_memory(s) : make_head(s);
    if (status == MIR_OK) status = make_windows(s, &all);
    size_t longest = all.count;
    if (status == MIR_OK) {
        for (uint32_t i = 0; i < s->row_count; i++) ends[group_of_row(s, i) + 1]++;
        for (uint32_t g = 0; g < s->group_count; g++) {
            if (!all.filled && ends[g + 1] > longest) longest = ends[g + 1];
            ends[g + 1] += ends[g];
        }
        for (uint32_t i = 0; i < s->row_count; i++) order[ends[group_of_row(s, i)]++] = i;
        status = make_rows(s, longest, &group);
    }
    if (status == MIR_OK) {
        const size_t row = (s->slot_count + s->output_count) * sizeof *results;
        const size_t held = s->bytes + s->work->arena.bytes_used;
        if (held < s->work->arena.bytes_max && longest <= (s->work->arena.bytes_max - held) / row)
            results = malloc((longest * s->output_count + 1) * sizeof *results);
        if (results == NULL) status = no_memory(s);
    }
    size_t from = 0;
    for (uint32_t g = 0; g < s->group_count && status == MIR_OK; g++) {
        const size_t end = ends[g];
        if (is_cancelled(s)) status = cancelled(s);
        if (status == MIR_OK && end > from) {
            gather(s, order, from, end, &all, &group);
            status = write_group(s, g, &group, results, series);
        }
        from = end;
    }
    free(ends);
    free(order);
    free(results);
    free_rows(&group);
    return status;
}

mir_status mir_influx_select(mir_influx_work *work, mir_view measurement,
                             const mir_influx_devices *devices, uint64_t *series)
{
    if (devices->count == 0) return MIR_OK;
    if (devices->count > UINT32_MAX / 2) return mir_influx_no_memory(work);
    selection s = {
        .work = work, .statement = work->statement, .measurement = measurement, .devices = devices};
    mir_status status = make_dimensions(&s);
    if (status == MIR_OK) status = make_groups(&s);
    if (status == MIR_OK) status = make_outputs(&s);
    if (status == MIR_OK && s.output_count != 0) {
        status = find_rows(&s);
        if (status == MIR_OK && s.row_count != 0) status = write_groups(&s, series);
    }
    if (s.chunks_corrupt != 0) work->info->damaged = true;
    free(s.times);
    free(s.owners);
    free(s.values);
    return status;
}
