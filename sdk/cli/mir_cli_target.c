/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_target.h"

static const char no_memory[] = "no memory";

/* The next comma-separated element with `\,` and `\\` decoded, or null without memory. */
static char *take_element(const char **at, mir_arena *arena)
{
    char *out = mir_arena_alloc(arena, strlen(*at) + 1);
    if (out == NULL) return NULL;
    size_t size = 0;
    const char *from = *at;
    while (*from != '\0' && *from != ',') {
        if (from[0] == '\\' && (from[1] == ',' || from[1] == '\\')) from++;
        out[size++] = *from++;
    }
    out[size] = '\0';
    *at = *from == ',' ? from + 1 : NULL;
    return out;
}

mir_status mir_cli_target_list(const mir_cli_args *args, mir_cli_option_id id, mir_arena *arena,
                               char ***list, size_t *count, mir_error *error)
{
    *count = 0;
    size_t upper = 0;
    for (size_t i = 0; i < args->options_count; i++) {
        if (args->options[i].id != id) continue;
        upper++;
        for (const char *c = args->options[i].value; *c != '\0'; c++) upper += *c == ',';
    }
    *list = NULL;
    if (upper == 0) return MIR_OK;
    if (upper > MIR_TARGET_VALUES_MAX)
        return mir_error_set(error, MIR_E_INVALID, "more than %d values", MIR_TARGET_VALUES_MAX);
    *list = mir_arena_alloc(arena, upper * sizeof **list);
    if (*list == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    for (size_t i = 0; i < args->options_count; i++) {
        if (args->options[i].id != id) continue;
        for (const char *at = args->options[i].value; at != NULL;) {
            char *element = take_element(&at, arena);
            if (element == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
            if (element[0] == '\0')
                return mir_error_set(error, MIR_E_INVALID, "'%s' has an empty value",
                                     args->options[i].value);
            (*list)[(*count)++] = element;
        }
    }
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status split_pairs(char **list, size_t elements, mir_arena *arena,
                                             mir_cli_target_pair **pairs, size_t *count,
                                             mir_error *error)
{
    *pairs = mir_arena_alloc(arena, (elements + 1) * sizeof **pairs);
    if (*pairs == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    for (size_t i = 0; i < elements; i++) {
        char *equals = strchr(list[i], '=');
        if (equals == NULL || equals == list[i])
            return mir_error_set(error, MIR_E_INVALID, "'%s' is not KEY=VALUE", list[i]);
        *equals = '\0';
        size_t at = 0;
        while (at < *count && strcmp((*pairs)[at].key, list[i]) != 0) at++;
        (*pairs)[at] = (mir_cli_target_pair){list[i], equals + 1};
        if (at == *count) (*count)++;
    }
    return MIR_OK;
}

mir_status mir_cli_target_pairs(const mir_cli_args *args, mir_cli_option_id id, mir_arena *arena,
                                mir_cli_target_pair **pairs, size_t *count, mir_error *error)
{
    char **list = NULL;
    size_t elements = 0;
    *count = 0;
    *pairs = NULL;
    mir_status status = mir_cli_target_list(args, id, arena, &list, &elements, error);
    if (status != MIR_OK || elements == 0) return status;
    return split_pairs(list, elements, arena, pairs, count, error);
}

mir_status mir_cli_target_split(const char *word, mir_arena *arena, char **name, char **name_space,
                                mir_error *error)
{
    const char *slash = strchr(word, '/');
    size_t name_size = slash != NULL ? (size_t)(slash - word) : strlen(word);
    if (name_size == 0 || (slash != NULL && slash[1] == '\0'))
        return mir_error_set(error, MIR_E_INVALID,
                             "'%s' is not NAME/NAMESPACE; a star stands for any: '*/NAMESPACE'",
                             word);
    if (slash != NULL && strchr(slash + 1, '/') != NULL)
        return mir_error_set(error, MIR_E_INVALID,
                             "'%s' has more than one '/'; did the shell expand a star? quote it",
                             word);
    char *made_name = mir_arena_strdup(arena, mir_view_of(word, name_size));
    char *made_space = slash != NULL ? mir_arena_strdup(arena, mir_view_cstr(slash + 1)) : NULL;
    if (made_name == NULL || (slash != NULL && made_space == NULL))
        return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    *name = made_name;
    *name_space = made_space;
    return MIR_OK;
}

static const char liveness_key[] = "status";
static const char liveness_label_key[] = "labels.status";

static bool is_liveness(const char *value)
{
    return strcmp(value, "online") == 0 || strcmp(value, "offline") == 0 ||
           strcmp(value, "disabled") == 0;
}

/* `status=online` and the like are taken out of the elements and put into `out->liveness`. */
MIR_MUST_CHECK static mir_status take_liveness(char **elements, size_t *count, mir_arena *arena,
                                               MirApi__V1__DeviceTarget *out, mir_error *error)
{
    size_t kept = 0;
    out->liveness = mir_arena_alloc(arena, (*count + 1) * sizeof(*out->liveness));
    if (out->liveness == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    for (size_t i = 0; i < *count; i++) {
        size_t key_size = strcspn(elements[i], "=");
        bool is_status =
            key_size == sizeof liveness_key - 1 && memcmp(elements[i], liveness_key, key_size) == 0;
        if (!is_status || elements[i][key_size] != '=') {
            bool is_label = key_size == sizeof liveness_label_key - 1 &&
                            memcmp(elements[i], liveness_label_key, key_size) == 0;
            elements[kept++] = is_label
                                   ? elements[i] + (sizeof liveness_label_key - sizeof liveness_key)
                                   : elements[i];
            continue;
        }
        if (!is_liveness(elements[i] + key_size + 1))
            return mir_error_set(error, MIR_E_INVALID,
                                 "status is online, offline or disabled, not '%s'; a label of that "
                                 "name is labels.status=%s",
                                 elements[i] + key_size + 1, elements[i] + key_size + 1);
        out->liveness[out->n_liveness++] = elements[i] + key_size + 1;
    }
    *count = kept;
    return MIR_OK;
}

static char star[] = "*";
static char *star_list[] = {star};

void mir_cli_target_state_everything(const mir_cli_targets *targets)
{
    for (size_t i = 0; i < targets->count; i++) {
        MirApi__V1__DeviceTarget *each = targets->items[i];
        if (each->n_ids + each->n_names + each->n_namespaces + each->n_labels > 0) continue;
        each->names = star_list;
        each->n_names = 1;
    }
}

/* What the flags say; words are added to copies of it. */
MIR_MUST_CHECK static mir_status from_flags(const mir_cli_args *args, mir_arena *arena,
                                            MirApi__V1__DeviceTarget *out, mir_error *error)
{
    mir_cli_target_pair *labels = NULL;
    size_t labels_count = 0;
    mir_status status = mir_cli_target_list(args, MIR_OPT_ID, arena, &out->ids, &out->n_ids, error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_NAME, arena, &out->names, &out->n_names, error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_NAMESPACE, arena, &out->namespaces,
                                     &out->n_namespaces, error);
    if (status == MIR_OK)
        status =
            mir_cli_target_list(args, MIR_OPT_SCHEMA, arena, &out->schemas, &out->n_schemas, error);
    char **elements = NULL;
    size_t elements_count = 0;
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_LABEL, arena, &elements, &elements_count, error);
    if (status == MIR_OK && elements_count > 0)
        status = take_liveness(elements, &elements_count, arena, out, error);
    if (status == MIR_OK && elements_count > 0)
        status = split_pairs(elements, elements_count, arena, &labels, &labels_count, error);
    if (status != MIR_OK || labels_count == 0) return status;
    out->labels = mir_arena_alloc(arena, labels_count * sizeof(*out->labels));
    MirApi__V1__DeviceTarget__LabelsEntry *entries =
        mir_arena_alloc(arena, labels_count * sizeof *entries);
    if (out->labels == NULL || entries == NULL)
        return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    for (size_t i = 0; i < labels_count; i++) {
        mir_api__v1__device_target__labels_entry__init(&entries[i]);
        entries[i].key = labels[i].key;
        entries[i].value = labels[i].value;
        out->labels[i] = &entries[i];
    }
    out->n_labels = labels_count;
    return MIR_OK;
}

typedef struct word {
    char *name;
    char *name_space; /* null: any */
} word;

static bool same_space(const word *a, const word *b)
{
    if (a->name_space == NULL || b->name_space == NULL) return a->name_space == b->name_space;
    return strcmp(a->name_space, b->name_space) == 0;
}

mir_status mir_cli_target_parse(const mir_cli_args *args, mir_arena *arena,
                                mir_cli_targets *targets, mir_error *error)
{
    MirApi__V1__DeviceTarget flags = MIR_API__V1__DEVICE_TARGET__INIT;
    mir_status status = from_flags(args, arena, &flags, error);
    if (status != MIR_OK) return status;
    size_t words_count = args->words_count;
    if (words_count > MIR_CLI_WORDS_MAX)
        return mir_error_set(error, MIR_E_INVALID, "more than %d targets", MIR_CLI_WORDS_MAX);
    if (words_count > 0 && (flags.n_names > 0 || flags.n_namespaces > 0))
        return mir_error_set(error, MIR_E_INVALID,
                             "give names and namespaces either as TARGET or as flags, not as both");
    size_t groups_max = words_count > 0 ? words_count : 1;
    word *words = mir_arena_alloc(arena, groups_max * sizeof *words);
    mir_cli_targets out = {.items = mir_arena_alloc(arena, groups_max * sizeof(*out.items))};
    if (words == NULL || out.items == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
    bool narrowed = flags.n_ids + flags.n_names + flags.n_namespaces + flags.n_labels +
                        flags.n_schemas + flags.n_liveness >
                    0;
    out.stated = narrowed || words_count > 0;
    out.literal = words_count > 0;
    out.everything = !narrowed && words_count == 0;
    for (size_t i = 0; i < words_count; i++) {
        status = mir_cli_target_split(args->words[i], arena, &words[i].name, &words[i].name_space,
                                      error);
        if (status != MIR_OK) return status;
        if (strchr(args->words[i], '*') != NULL) out.literal = false;
        if (words[i].name_space != NULL && strcmp(words[i].name_space, "*") == 0)
            words[i].name_space = NULL;
        if (!narrowed && words[i].name_space == NULL && strcmp(words[i].name, "*") == 0)
            out.everything = true;
    }
    for (size_t i = 0; i < groups_max; i++) {
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++) seen = same_space(&words[j], &words[i]);
        if (seen) continue;
        MirApi__V1__DeviceTarget *target = mir_arena_alloc(arena, sizeof *target);
        if (target == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
        *target = flags;
        out.items[out.count++] = target;
        if (words_count == 0) break;
        if (words[i].name_space != NULL) {
            target->namespaces = mir_arena_alloc(arena, sizeof(*target->namespaces));
            if (target->namespaces == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
            target->namespaces[0] = words[i].name_space;
            target->n_namespaces = 1;
        }
        target->names = mir_arena_alloc(arena, words_count * sizeof(*target->names));
        if (target->names == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, no_memory);
        bool any_name = false;
        for (size_t j = i; j < words_count; j++) {
            if (!same_space(&words[i], &words[j])) continue;
            if (strcmp(words[j].name, "*") == 0) any_name = true;
            target->names[target->n_names++] = words[j].name;
        }
        if (any_name) target->n_names = 0;
    }
    *targets = out;
    return MIR_OK;
}
