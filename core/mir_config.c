/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_config.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <yaml.h>

#include "mir_bytes.h"
#include "mir_config_table.h"
#include "mir_limits.h"
#include "mir_paths.h"

#define SYSTEM_FILE     "/etc/mir/mir.yaml"
#define VARIABLE_PREFIX "MIR__"

static const int64_t EVENTS_KEPT_NS = INT64_C(90) * 24 * 3600 * 1000000000;

enum {
    ARENA_BYTES_MAX = 64 * 1024 * 1024, /* aliases can make a small file large */
    SPIN_US_MANY_CORES = 50,
    RESPONSES_MAX = 1000000,
};

/* Where a value comes from, for the text of an error. */
struct origin {
    mir_config *config;
    const char *name; /* a file, a variable or a flag */
    bool has_lines;   /* a file: the line of the node is worth telling */
    yaml_document_t *document;
    uint64_t keys_seen; /* bit per entry of the table */
    mir_error *error;
};

MIR_PRINTF(3, 4)
MIR_MUST_CHECK static mir_status refuse(const struct origin *source, const yaml_node_t *node,
                                        const char *format, ...)
{
    if (source->error == NULL) return MIR_E_INVALID;
    char text[MIR_ERROR_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (source->has_lines && node != NULL)
        return mir_error_set(source->error, MIR_E_INVALID, "%s:%zu: %s", source->name,
                             node->start_mark.line + 1, text);
    return mir_error_set(source->error, MIR_E_INVALID, "%s: %s", source->name, text);
}

MIR_MUST_CHECK static mir_status no_memory(const struct origin *source)
{
    return mir_error_set(source->error, MIR_E_NO_MEMORY,
                         "%s: more text than a configuration may hold (%d MiB)", source->name,
                         ARENA_BYTES_MAX >> 20);
}

static yaml_node_t *node_at(const struct origin *source, int index)
{
    return yaml_document_get_node(source->document, index);
}

static bool is_mapping(const yaml_node_t *node)
{
    return node->type == YAML_MAPPING_NODE;
}

static bool is_list(const yaml_node_t *node)
{
    return node->type == YAML_SEQUENCE_NODE;
}

/* The text of a scalar that ends where its first zero byte is, else null. */
static const char *scalar_text(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE) return NULL;
    const char *text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length ? text : NULL;
}

static bool is_null(const yaml_node_t *node)
{
    const char *text = scalar_text(node);
    return text != NULL && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

/* The value of a key in a mapping of few keys, or null. */
static yaml_node_t *member(const struct origin *source, const yaml_node_t *mapping,
                           const char *name)
{
    const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
    for (; pair < mapping->data.mapping.pairs.top; pair++) {
        const char *key = scalar_text(node_at(source, pair->key));
        if (key != NULL && strcmp(key, name) == 0) return node_at(source, pair->value);
    }
    return NULL;
}

/* Refuses keys that are not among `names` (null-terminated), and those that stand there twice. */
MIR_MUST_CHECK static mir_status only_members(const struct origin *source,
                                              const yaml_node_t *mapping, const char *where,
                                              const char *const *names)
{
    const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
    for (; pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = node_at(source, pair->key);
        const char *text = scalar_text(key);
        size_t i = 0;
        while (text != NULL && names[i] != NULL && strcmp(text, names[i]) != 0) i++;
        if (text == NULL || names[i] == NULL) {
            char list[128] = "";
            for (size_t n = 0, used = 0; names[n] != NULL && used < sizeof list; n++)
                used += (size_t)snprintf(list + used, sizeof list - used, "%s%s",
                                         n == 0 ? "" : ", ", names[n]);
            return refuse(source, key, "%s: unknown key \"%.64s\"; the keys here are %s", where,
                          text == NULL ? "" : text, list);
        }
        if (member(source, mapping, text) != node_at(source, pair->value))
            return refuse(source, key, "%s: %s is there twice", where, text);
    }
    return MIR_OK;
}

/* A subject whose tokens are not empty and where `>` stands at the end only; after it, where
 * queues are allowed, a space and the name of a queue. */
static bool pattern_valid(const char *text, bool queue_allowed)
{
    size_t length = strcspn(text, " ");
    for (size_t start = 0;;) {
        size_t end = start;
        while (end < length && text[end] != '.') {
            if ((unsigned char)text[end] <= ' ' || text[end] == 127) return false;
            end++;
        }
        if (end == start) return false;
        if (end == start + 1 && text[start] == '>' && end != length) return false;
        if (end == length) break;
        start = end + 1;
    }
    if (text[length] == '\0') return true;
    const char *queue = text + length + 1;
    return queue_allowed && queue[0] != '\0' && queue[strcspn(queue, " \t\r\n")] == '\0';
}

MIR_MUST_CHECK static mir_status read_patterns(const struct origin *source, const yaml_node_t *node,
                                               const char *where, bool queue_allowed,
                                               mir_config_strings *strings)
{
    const char *single = scalar_text(node);
    if ((single == NULL && !is_list(node)) || is_null(node))
        return refuse(source, node, "%s: expected a list of subjects; [] allows or denies none",
                      where);
    yaml_node_item_t *items = node->data.sequence.items.start;
    size_t count = single != NULL
                       ? 1
                       : (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (count > MIR_CONFIG_LIST_MAX)
        return refuse(source, node, "%s: more than %d entries", where, MIR_CONFIG_LIST_MAX);
    mir_config_strings result = {.given = true, .count = count};
    result.items = mir_arena_alloc(&source->config->arena, (count + 1) * sizeof *result.items);
    if (result.items == NULL) return no_memory(source);
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *item = single != NULL ? node : node_at(source, items[i]);
        const char *text = scalar_text(item);
        if (text == NULL || !pattern_valid(text, queue_allowed))
            return refuse(source, item, "%s: \"%.64s\" is not %s", where, text == NULL ? "" : text,
                          queue_allowed ? "a subject, or a subject, a space and a queue"
                                        : "a subject");
        result.items[i] = mir_arena_strdup(&source->config->arena, mir_view_cstr(text));
        if (result.items[i] == NULL) return no_memory(source);
    }
    *strings = result;
    return MIR_OK;
}

/* `publish:` and `subscribe:`: {allow, deny}, or what is allowed alone. */
MIR_MUST_CHECK static mir_status read_side(const struct origin *source, const yaml_node_t *node,
                                           const char *where, bool queue_allowed,
                                           mir_config_strings *allow, mir_config_strings *deny)
{
    static const char *const names[] = {"allow", "deny", NULL};
    char inner[96];
    if (!is_mapping(node)) return read_patterns(source, node, where, queue_allowed, allow);
    mir_status status = only_members(source, node, where, names);
    const yaml_node_t *list = member(source, node, "allow");
    if (status == MIR_OK && list != NULL) {
        (void)snprintf(inner, sizeof inner, "%s.allow", where);
        status = read_patterns(source, list, inner, queue_allowed, allow);
    }
    list = member(source, node, "deny");
    if (status == MIR_OK && list != NULL) {
        (void)snprintf(inner, sizeof inner, "%s.deny", where);
        status = read_patterns(source, list, inner, queue_allowed, deny);
    }
    return status;
}

MIR_MUST_CHECK static mir_status read_responses(const struct origin *source,
                                                const yaml_node_t *node,
                                                mir_config_permissions *permissions)
{
    static const char *const names[] = {"max", "expires", NULL};
    permissions->responses_max = 1;
    permissions->responses_expires_ns = 120 * INT64_C(1000000000);
    const char *text = scalar_text(node);
    if (text != NULL && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)) {
        permissions->allow_responses = text[0] == 't';
        return MIR_OK;
    }
    if (!is_mapping(node))
        return refuse(source, node,
                      "allow_responses: expected true, false or {max: 1, expires: 2m}");
    mir_status status = only_members(source, node, "allow_responses", names);
    if (status != MIR_OK) return status;
    permissions->allow_responses = true;
    const yaml_node_t *max = member(source, node, "max");
    if (max != NULL) {
        const char *number = scalar_text(max);
        char *end = NULL;
        long long value = number == NULL ? 0 : strtoll(number, &end, 10);
        if (number == NULL || end == number || *end != '\0' || value < -1 || value == 0 ||
            value > RESPONSES_MAX)
            return refuse(source, max,
                          "allow_responses.max: expected a number from 1 to %d, or -1 for any",
                          RESPONSES_MAX);
        permissions->responses_max = value;
    }
    const yaml_node_t *expires = member(source, node, "expires");
    if (expires != NULL) {
        const char *duration = scalar_text(expires);
        mir_error reason = {.text = "expected a duration such as 2m, or -1 for never"};
        if (duration != NULL && strcmp(duration, "-1") == 0)
            permissions->responses_expires_ns = -1;
        else if (duration == NULL ||
                 mir_config_parse_duration(duration, &permissions->responses_expires_ns, &reason))
            return refuse(source, expires, "allow_responses.expires: %s", reason.text);
    }
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_permissions(const struct origin *source,
                                                  const yaml_node_t *node,
                                                  mir_config_permissions *permissions)
{
    static const char *const names[] = {"publish", "subscribe", "allow_responses", NULL};
    mir_config_permissions result = {.given = true};
    if (!is_mapping(node)) {
        char accepted[256];
        mir_config_key_accepted(mir_config_key_find("auth.default_permissions"), accepted,
                                sizeof accepted);
        return refuse(source, node, "permissions: expected %s", accepted);
    }
    mir_status status = only_members(source, node, "permissions", names);
    const yaml_node_t *part = member(source, node, "publish");
    if (status == MIR_OK && part != NULL)
        status =
            read_side(source, part, "publish", false, &result.publish_allow, &result.publish_deny);
    part = member(source, node, "subscribe");
    if (status == MIR_OK && part != NULL)
        status = read_side(source, part, "subscribe", true, &result.subscribe_allow,
                           &result.subscribe_deny);
    part = member(source, node, "allow_responses");
    if (status == MIR_OK && part != NULL) status = read_responses(source, part, &result);
    if (status == MIR_OK) *permissions = result;
    return status;
}

MIR_MUST_CHECK static mir_status read_user(const struct origin *source, const yaml_node_t *node,
                                           mir_config_user *user)
{
    static const char *const names[] = {"user", "password", "permissions", NULL};
    static const struct {
        const char *name;
        size_t offset;
    } texts[] = {{"user", offsetof(mir_config_user, user)},
                 {"password", offsetof(mir_config_user, password)}};
    if (!is_mapping(node))
        return refuse(source, node,
                      "auth.users: expected {user: .., password: .., permissions: {..}}");
    mir_status status = only_members(source, node, "auth.users", names);
    if (status != MIR_OK) return status;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const yaml_node_t *value = member(source, node, texts[i].name);
        if (value == NULL) continue;
        const char *text = scalar_text(value);
        if (text == NULL || text[0] == '\0' || is_null(value))
            return refuse(source, value, "auth.users: %s: expected a text", texts[i].name);
        char *copy = mir_arena_strdup(&source->config->arena, mir_view_cstr(text));
        if (copy == NULL) return no_memory(source);
        memcpy((unsigned char *)user + texts[i].offset, &copy, sizeof copy);
    }
    if (user->user == NULL) return refuse(source, node, "auth.users: an entry has no user");
    const yaml_node_t *permissions = member(source, node, "permissions");
    return permissions == NULL ? MIR_OK : read_permissions(source, permissions, &user->permissions);
}

MIR_MUST_CHECK static mir_status read_users(const struct origin *source, const yaml_node_t *node)
{
    if (!is_list(node))
        return refuse(source, node,
                      "auth.users: expected a list of {user: .., password: .., permissions: {..}}");
    yaml_node_item_t *items = node->data.sequence.items.start;
    size_t count = (size_t)(node->data.sequence.items.top - items);
    if (count > MIR_CONFIG_LIST_MAX)
        return refuse(source, node, "auth.users: more than %d entries", MIR_CONFIG_LIST_MAX);
    mir_config_user *users = mir_arena_alloc(&source->config->arena, (count + 1) * sizeof *users);
    if (users == NULL) return no_memory(source);
    for (size_t i = 0; i < count; i++) {
        mir_status status = read_user(source, node_at(source, items[i]), &users[i]);
        if (status != MIR_OK) return status;
    }
    source->config->auth.users = users;
    source->config->auth.user_count = count;
    return MIR_OK;
}

/* A duration, or 0 for ever. */
MIR_MUST_CHECK static mir_status read_age(const struct origin *source, const yaml_node_t *node,
                                          const char *where, int64_t *age_ns)
{
    const char *text = scalar_text(node);
    mir_error reason = {.text = "expected a duration such as 90d, or 0 for ever"};
    *age_ns = 0;
    if (text != NULL && strcmp(text, "0") == 0) return MIR_OK;
    if (text == NULL || is_null(node) || mir_config_parse_duration(text, age_ns, &reason) != MIR_OK)
        return refuse(source, node, "%s: %s", where, reason.text);
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_retention(const struct origin *source,
                                                const yaml_node_t *node)
{
    char accepted[256];
    mir_config_key_accepted(mir_config_key_find("events.retention"), accepted, sizeof accepted);
    if (!is_mapping(node)) return refuse(source, node, "events.retention: expected %s", accepted);
    yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
    if (count > MIR_CONFIG_KEEP_MAX)
        return refuse(source, node, "events.retention: more than %d reasons", MIR_CONFIG_KEEP_MAX);
    mir_config_keep *list = mir_arena_alloc(&source->config->arena, (count + 1) * sizeof *list);
    if (list == NULL) return no_memory(source);
    int64_t default_ns = source->config->events.default_keep_ns;
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *key = node_at(source, pairs[i].key);
        const yaml_node_t *value = node_at(source, pairs[i].value);
        const char *name = scalar_text(key);
        if (name == NULL || name[0] == '\0')
            return refuse(source, node, "events.retention: expected %s", accepted);
        char where[2 * MIR_CONFIG_NAME_BYTES_MAX];
        (void)snprintf(where, sizeof where, "events.retention: %.64s", name);
        int64_t keep_ns;
        mir_status status = read_age(source, value, where, &keep_ns);
        if (status != MIR_OK) return status;
        if (strcmp(name, "default") == 0) {
            default_ns = keep_ns;
            continue;
        }
        for (size_t other = 0; other < used; other++)
            if (strcmp(list[other].name, name) == 0)
                return refuse(source, key, "events.retention: %s is given twice", name);
        list[used].keep_ns = keep_ns;
        list[used].name = mir_arena_strdup(&source->config->arena, mir_view_cstr(name));
        if (list[used++].name == NULL) return no_memory(source);
    }
    source->config->events.retention = list;
    source->config->events.retention_count = used;
    source->config->events.default_keep_ns = default_ns;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_pattern(const struct origin *source,
                                              const yaml_node_t *mapping, const char *where,
                                              const char *name, char **pattern)
{
    const yaml_node_t *node = member(source, mapping, name);
    if (node == NULL) return MIR_OK;
    const char *text = scalar_text(node);
    if (text == NULL || text[0] == '\0' || is_null(node))
        return refuse(source, node, "%s: %s: expected a text such as %s", where, name,
                      strcmp(name, "message") == 0 ? "env.v1.*" : "plant-*");
    *pattern = mir_arena_strdup(&source->config->arena, mir_view_cstr(text));
    return *pattern == NULL ? no_memory(source) : MIR_OK;
}

MIR_MUST_CHECK static mir_status read_flag(const struct origin *source, const yaml_node_t *mapping,
                                           const char *where, const char *name, bool *flag)
{
    const yaml_node_t *node = member(source, mapping, name);
    if (node == NULL) return MIR_OK;
    const char *text = scalar_text(node);
    if (text == NULL || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0))
        return refuse(source, node, "%s: %s: expected true or false", where, name);
    *flag = strcmp(text, "true") == 0;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_rule(const struct origin *source, const yaml_node_t *node,
                                           mir_config_rule *rule)
{
    static const char *const names[] = {"namespace", "message", "deleted", "age", "rollup", NULL};
    static const char where[] = "telemetry.retention.rules";
    if (!is_mapping(node))
        return refuse(source, node, "%s: expected {namespace: .., message: .., age: 7d}", where);
    *rule = (mir_config_rule){0};
    mir_status status = only_members(source, node, where, names);
    if (status == MIR_OK)
        status = read_pattern(source, node, where, "namespace", &rule->name_space);
    if (status == MIR_OK) status = read_pattern(source, node, where, "message", &rule->message);
    if (status != MIR_OK) return status;
    bool rollup = true;
    status = read_flag(source, node, where, "deleted", &rule->deleted);
    if (status == MIR_OK) status = read_flag(source, node, where, "rollup", &rollup);
    if (status != MIR_OK) return status;
    rule->no_rollup = !rollup;
    if (rule->deleted && rule->name_space != NULL)
        return refuse(source, node,
                      "%s: a device that is deleted has no namespace: give one of them", where);
    const yaml_node_t *age = member(source, node, "age");
    if (age == NULL)
        return refuse(source, node,
                      "%s: a rule has no age: expected a duration such as 7d, or 0 "
                      "for ever",
                      where);
    return read_age(source, age, "telemetry.retention.rules: age", &rule->age_ns);
}

MIR_MUST_CHECK static mir_status read_rules(const struct origin *source, const yaml_node_t *node)
{
    static const char where[] = "telemetry.retention.rules";
    if (!is_list(node))
        return refuse(source, node, "%s: expected a list of {namespace: .., message: .., age: 7d}",
                      where);
    yaml_node_item_t *items = node->data.sequence.items.start;
    const size_t count = (size_t)(node->data.sequence.items.top - items);
    if (count > MIR_CONFIG_RULES_MAX)
        return refuse(source, node, "%s: more than %d rules", where, MIR_CONFIG_RULES_MAX);
    mir_config_rule *rules = mir_arena_alloc(&source->config->arena, (count + 1) * sizeof *rules);
    if (rules == NULL) return no_memory(source);
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *item = node_at(source, items[i]);
        const mir_config_rule *before = i == 0 ? NULL : &rules[i - 1];
        if (before != NULL && before->name_space == NULL && before->message == NULL &&
            !before->deleted)
            return refuse(source, item, "%s: rule %zu fits everything, so no rule behind it counts",
                          where, i);
        mir_status status = read_rule(source, item, &rules[i]);
        if (status != MIR_OK) return status;
    }
    source->config->telemetry.rules = rules;
    source->config->telemetry.rule_count = count;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_forward(const struct origin *source, const yaml_node_t *node,
                                              mir_config_forward *rule)
{
    static const char *const names[] = {"namespace", "message", "forward", NULL};
    static const char where[] = "telemetry.sink.rules";
    if (!is_mapping(node))
        return refuse(source, node, "%s: expected {namespace: .., message: .., forward: true}",
                      where);
    *rule = (mir_config_forward){0};
    bool forward = true;
    mir_status status = only_members(source, node, where, names);
    if (status == MIR_OK)
        status = read_pattern(source, node, where, "namespace", &rule->name_space);
    if (status == MIR_OK) status = read_pattern(source, node, where, "message", &rule->message);
    if (status == MIR_OK) status = read_flag(source, node, where, "forward", &forward);
    rule->withheld = !forward;
    return status;
}

MIR_MUST_CHECK static mir_status read_forwards(const struct origin *source, const yaml_node_t *node)
{
    static const char where[] = "telemetry.sink.rules";
    if (!is_list(node))
        return refuse(source, node,
                      "%s: expected a list of {namespace: .., message: .., forward: true}", where);
    yaml_node_item_t *items = node->data.sequence.items.start;
    const size_t count = (size_t)(node->data.sequence.items.top - items);
    if (count > MIR_CONFIG_RULES_MAX)
        return refuse(source, node, "%s: more than %d rules", where, MIR_CONFIG_RULES_MAX);
    mir_config_forward *rules =
        mir_arena_alloc(&source->config->arena, (count + 1) * sizeof *rules);
    if (rules == NULL) return no_memory(source);
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *item = node_at(source, items[i]);
        if (i > 0 && rules[i - 1].name_space == NULL && rules[i - 1].message == NULL)
            return refuse(source, item, "%s: rule %zu fits everything, so no rule behind it counts",
                          where, i);
        mir_status status = read_forward(source, item, &rules[i]);
        if (status != MIR_OK) return status;
        any |= !rules[i].withheld;
    }
    if (count > 0 && !any)
        return refuse(source, node,
                      "%s: nothing would be forwarded: what no rule fits stays here; end them with "
                      "{forward: true} to forward all others",
                      where);
    source->config->telemetry.sink.rules = rules;
    source->config->telemetry.sink.rule_count = count;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_scalar(const struct origin *source, const mir_config_key *key,
                                             const yaml_node_t *node, const char *text)
{
    mir_error reason = {.text = ""};
    mir_status status = mir_config_key_set(key, source->config, text, &reason);
    if (status == MIR_E_NO_MEMORY) return no_memory(source);
    return status == MIR_OK ? status : refuse(source, node, "%s", reason.text);
}

MIR_MUST_CHECK static mir_status read_value(const struct origin *source, const mir_config_key *key,
                                            const yaml_node_t *node)
{
    if (key->kind == MIR_CONFIG_USERS) return read_users(source, node);
    if (key->kind == MIR_CONFIG_RETENTION) return read_retention(source, node);
    if (key->kind == MIR_CONFIG_RULES) return read_rules(source, node);
    if (key->kind == MIR_CONFIG_FORWARDS) return read_forwards(source, node);
    if (key->kind == MIR_CONFIG_PERMISSIONS)
        return read_permissions(source, node, &source->config->auth.default_permissions);
    return read_scalar(source, key, node, is_null(node) ? NULL : scalar_text(node));
}

static void note_explicit(const struct origin *source, const mir_config_key *key)
{
    if (strcmp(key->name, "auth.mode") == 0) source->config->auth_mode_explicit = true;
}

/* One level of a file; `section` is its dotted name, empty at the top. */
MIR_MUST_CHECK static mir_status read_section(struct origin *source, const yaml_node_t *mapping,
                                              const char *section)
{
    const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
    for (; pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name_node = node_at(source, pair->key);
        const yaml_node_t *value = node_at(source, pair->value);
        const char *text = scalar_text(name_node);
        if (text == NULL) return refuse(source, name_node, "expected the name of a key");
        char name[2 * MIR_CONFIG_NAME_BYTES_MAX];
        (void)snprintf(name, sizeof name, "%s%s%.63s", section, section[0] == '\0' ? "" : ".",
                       text);
        const mir_config_key *key = mir_config_key_find(name);
        mir_status status;
        if (key != NULL) {
            uint64_t bit = UINT64_C(1) << (key - mir_config_keys);
            if ((source->keys_seen & bit) != 0)
                return refuse(source, name_node, "%s is there twice", name);
            source->keys_seen |= bit;
            status = read_value(source, key, value);
            if (status == MIR_OK) note_explicit(source, key);
        } else if (mir_config_is_section(name)) {
            /* A section whose keys are all commented out is null. */
            if (is_null(value)) continue;
            if (!is_mapping(value)) {
                char keys[256];
                mir_config_section_keys(name, keys, sizeof keys);
                return refuse(source, value, "%s is a section%s", name, keys);
            }
            status = read_section(source, value, name);
        } else {
            char hint[320];
            mir_config_key_nearest(name, hint, sizeof hint);
            return refuse(source, name_node, "unknown key %s%s", name, hint);
        }
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

/* Parses one document; an empty text gives one without a root node. */
MIR_MUST_CHECK static mir_status parse(const struct origin *source, const char *text, size_t size,
                                       yaml_document_t *document)
{
    mir_status status = MIR_OK;
    yaml_parser_t parser;
    yaml_document_t second;
    if (!yaml_parser_initialize(&parser)) return no_memory(source);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    if (!yaml_parser_load(&parser, document)) goto broken;
    if (yaml_document_get_root_node(document) != NULL) {
        if (!yaml_parser_load(&parser, &second)) {
            yaml_document_delete(document);
            goto broken;
        }
        yaml_node_t *root = yaml_document_get_root_node(&second);
        if (root != NULL) {
            status = refuse(source, root, "expected a single YAML document");
            yaml_document_delete(document);
        }
        yaml_document_delete(&second);
    }
    yaml_parser_delete(&parser);
    return status;

broken:
    if (parser.error == YAML_MEMORY_ERROR) {
        status = no_memory(source);
    } else {
        yaml_node_t place = {.start_mark = parser.problem_mark};
        status =
            refuse(source, &place, "not valid YAML: %s%s%s",
                   parser.problem == NULL ? "unreadable" : parser.problem,
                   parser.context == NULL ? "" : " ", parser.context == NULL ? "" : parser.context);
    }
    yaml_parser_delete(&parser);
    return status;
}

MIR_MUST_CHECK static mir_status read_whole_file(const char *path, mir_bytes *bytes,
                                                 mir_error *error)
{
    mir_status status = MIR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mir_error_os(error, errno, "cannot read the configuration %s", path);
    for (;;) {
        enum { CHUNK = 16384 };
        uint8_t *room = mir_bytes_reserve(bytes, CHUNK);
        if (room == NULL) {
            status = mir_error_set(error, MIR_E_TOO_LARGE, "%s: longer than %d MiB", path,
                                   MIR_CONFIG_FILE_BYTES_MAX >> 20);
            break;
        }
        ssize_t size = read(fd, room, CHUNK);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) status = mir_error_os(error, errno, "cannot read the configuration %s", path);
        if (size <= 0) break;
        bytes->size += (size_t)size;
    }
    (void)close(fd);
    return status;
}

/* Takes back everything but the arena, which keeps what it handed out until the end. */
static void restore(mir_config *config, const mir_config *before)
{
    mir_arena arena = config->arena;
    *config = *before;
    config->arena = arena;
}

mir_status mir_config_read_file(mir_config *config, const char *path, mir_error *error)
{
    struct origin source = {.config = config, .name = path, .has_lines = true, .error = error};
    mir_config before = *config;
    mir_bytes bytes = {.size_max = MIR_CONFIG_FILE_BYTES_MAX};
    yaml_document_t document;
    mir_status status = read_whole_file(path, &bytes, error);
    if (status == MIR_OK)
        status = parse(&source, bytes.data == NULL ? "" : (const char *)bytes.data, bytes.size,
                       &document);
    if (status == MIR_OK) {
        source.document = &document;
        const yaml_node_t *root = yaml_document_get_root_node(&document);
        if (root != NULL && is_mapping(root))
            status = read_section(&source, root, "");
        else if (root != NULL && !is_null(root))
            status = refuse(&source, root, "expected keys and their values, such as \"shards: 2\"");
        yaml_document_delete(&document);
    }
    if (status != MIR_OK) restore(config, &before);
    mir_bytes_free(&bytes);
    return status;
}

MIR_MUST_CHECK static mir_status set_yaml(struct origin *source, const mir_config_key *key,
                                          const char *value)
{
    yaml_document_t document;
    mir_status status = parse(source, value, strlen(value), &document);
    if (status != MIR_OK) return status;
    source->document = &document;
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    status = root == NULL ? read_scalar(source, key, NULL, NULL) : read_value(source, key, root);
    yaml_document_delete(&document);
    source->document = NULL;
    return status;
}

/* `label` is what an error text begins with. */
MIR_MUST_CHECK static mir_status set_labelled(mir_config *config, const char *label,
                                              const char *name, const char *value, mir_error *error)
{
    struct origin source = {.config = config, .name = label, .error = error};
    const mir_config_key *key = mir_config_key_find(name);
    if (key == NULL) {
        char hint[320];
        mir_config_key_nearest(name, hint, sizeof hint);
        return refuse(&source, NULL, "unknown key %.128s%s", name, hint);
    }
    mir_config before = *config;
    size_t length = strlen(value);
    bool quoted =
        length >= 2 && (value[0] == '"' || value[0] == '\'') && value[length - 1] == value[0];
    mir_status status = mir_config_key_is_scalar(key) && !quoted
                            ? read_scalar(&source, key, NULL, value)
                            : set_yaml(&source, key, value);
    if (status == MIR_OK)
        note_explicit(&source, key);
    else
        restore(config, &before);
    return status;
}

mir_status mir_config_set(mir_config *config, const char *key, const char *value, mir_error *error)
{
    return set_labelled(config, "setting", key, value, error);
}

MIR_MUST_CHECK static mir_status set_from_argument(mir_config *config, const char *setting,
                                                   mir_error *error)
{
    char name[2 * MIR_CONFIG_NAME_BYTES_MAX];
    const char *equals = strchr(setting, '=');
    if (equals == NULL || equals == setting || (size_t)(equals - setting) >= sizeof name)
        return mir_error_set(error, MIR_E_INVALID,
                             "--set %.128s: expected key=value, such as limits.max_payload=1MiB",
                             setting);
    (void)snprintf(name, sizeof name, "%.*s", (int)(equals - setting), setting);
    return set_labelled(config, "--set", name, equals + 1, error);
}

/* Devices read these, and may share an environment with the server. */
static bool variable_is_for_devices(const char *variable, size_t length)
{
    static const char *const names[] = {"MIR__TARGET", "MIR__CREDENTIALS", "MIR__ROOT_CA",
                                        "MIR__LOG_LEVEL"};
    static const char prefix[] = "MIR__DEVICE__";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i]) == length && strncmp(names[i], variable, length) == 0) return true;
    return strncmp(variable, prefix, sizeof prefix - 1) == 0;
}

/* MIR__LIMITS__MAX_PAYLOAD=1MiB is limits.max_payload. Variables of other names are not ours. */
MIR_MUST_CHECK static mir_status set_from_variable(mir_config *config, const char *variable,
                                                   mir_error *error)
{
    const size_t prefix = sizeof VARIABLE_PREFIX - 1;
    char label[2 * MIR_CONFIG_NAME_BYTES_MAX];
    char name[2 * MIR_CONFIG_NAME_BYTES_MAX];
    const char *equals = strchr(variable, '=');
    if (equals == NULL || strncmp(variable, VARIABLE_PREFIX, prefix) != 0) return MIR_OK;
    size_t length = (size_t)(equals - variable);
    if (variable_is_for_devices(variable, length)) return MIR_OK;
    if (length >= sizeof label)
        return mir_error_set(error, MIR_E_INVALID, "%.*s: unknown key", (int)sizeof label,
                             variable);
    (void)snprintf(label, sizeof label, "%.*s", (int)length, variable);
    size_t used = 0;
    for (size_t i = prefix; i < length; i++) {
        if (variable[i] == '_' && variable[i + 1] == '_') {
            name[used++] = '.';
            i++;
        } else {
            char c = variable[i];
            name[used++] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        }
    }
    name[used] = '\0';
    return set_labelled(config, label, name, equals + 1, error);
}

mir_status mir_config_init_defaults(mir_config *config, mir_error *error)
{
    mir_config result = {.arena = {.bytes_max = ARENA_BYTES_MAX},
                         .events = {.default_keep_ns = EVENTS_KEPT_NS}};
    for (size_t i = 0; i < mir_config_key_count; i++) {
        const mir_config_key *key = &mir_config_keys[i];
        if (key->fallback == NULL) continue;
        mir_status status = mir_config_key_set(key, &result, key->fallback, error);
        if (status != MIR_OK) {
            mir_config_free(&result);
            return status;
        }
    }
    *config = result;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_files(mir_config *config, const char *file, mir_error *error)
{
    char user_file[MIR_PATH_BYTES_MAX];
    if (file != NULL) return mir_config_read_file(config, file, error);
    const char *files[] = {SYSTEM_FILE, user_file};
    size_t count = mir_paths_config_file("mir.yaml", user_file) == MIR_OK ? 2 : 1;
    for (size_t i = 0; i < count; i++) {
        mir_status status = mir_config_read_file(config, files[i], error);
        if (status != MIR_OK && status != MIR_E_NOT_FOUND) return status;
    }
    return MIR_OK;
}

mir_status mir_config_load(mir_config *config, const mir_config_options *options, mir_error *error)
{
    mir_config result;
    mir_status status = mir_config_init_defaults(&result, error);
    if (status != MIR_OK) return status;
    status = read_files(&result, options->file, error);
    for (size_t i = 0;
         status == MIR_OK && options->environment != NULL && options->environment[i] != NULL; i++)
        status = set_from_variable(&result, options->environment[i], error);
    for (size_t i = 0; status == MIR_OK && i < options->setting_count; i++)
        status = set_from_argument(&result, options->settings[i], error);
    for (size_t i = 0; status == MIR_OK && i < options->flag_count; i++)
        status = set_labelled(&result, options->flags[i].flag, options->flags[i].key,
                              options->flags[i].value, error);
    if (status == MIR_OK) status = mir_config_finish(&result, error);
    if (status == MIR_OK)
        *config = result;
    else
        mir_config_free(&result);
    return status;
}

static int64_t core_count(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online;
}

MIR_MUST_CHECK static mir_status finish_paths(mir_config *config, mir_error *error)
{
    char path[MIR_PATH_BYTES_MAX];
    mir_status status;
    if (config->data == NULL) {
        status = mir_paths_data_dir(path);
        if (status != MIR_OK)
            return mir_error_set(
                error, status, "no home directory is known: say where the data goes (--data DIR)");
        config->data = mir_arena_strdup(&config->arena, mir_view_cstr(path));
        if (config->data == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    if (config->admin == NULL) {
        status = mir_paths_admin_socket(config->data, path);
        if (status != MIR_OK) return mir_error_set(error, status, "data: the path is too long");
        config->admin = mir_arena_strdup(&config->arena, mir_view_cstr(path));
        if (config->admin == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    size_t socket_path_max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
    if (strlen(config->admin) > socket_path_max)
        return mir_error_set(error, MIR_E_INVALID,
                             "admin: the path of a unix socket has at most %zu bytes, and %.200s "
                             "has more; name a shorter one (--admin PATH)",
                             socket_path_max, config->admin);
    return MIR_OK;
}

static int compare_users(const void *a, const void *b)
{
    const mir_config_user *const *left = a;
    const mir_config_user *const *right = b;
    return strcmp((*left)->user, (*right)->user);
}

MIR_MUST_CHECK static mir_status finish_users(mir_config *config, mir_error *error)
{
    const char *anonymous = config->auth.no_auth_user;
    size_t count = config->auth.user_count;
    bool anonymous_found = anonymous == NULL;
    for (size_t i = 0; i < count; i++) {
        mir_config_user *user = &config->auth.users[i];
        bool is_anonymous = anonymous != NULL && strcmp(user->user, anonymous) == 0;
        if (user->password == NULL && !is_anonymous)
            return mir_error_set(error, MIR_E_INVALID, "auth.users: %.64s has no password",
                                 user->user);
        if (!user->permissions.given) user->permissions = config->auth.default_permissions;
        anonymous_found = anonymous_found || is_anonymous;
    }
    if (!anonymous_found)
        return mir_error_set(error, MIR_E_INVALID, "auth.no_auth_user: %.64s is not in auth.users",
                             anonymous);
    if (count < 2) return MIR_OK;
    mir_config_user **sorted = malloc(count * sizeof *sorted);
    if (sorted == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < count; i++) sorted[i] = &config->auth.users[i];
    qsort(sorted, count, sizeof *sorted, compare_users);
    mir_status status = MIR_OK;
    for (size_t i = 1; i < count && status == MIR_OK; i++)
        if (compare_users(&sorted[i - 1], &sorted[i]) == 0)
            status = mir_error_set(error, MIR_E_INVALID, "auth.users: %.64s is there twice",
                                   sorted[i]->user);
    free(sorted);
    return status;
}

MIR_MUST_CHECK static mir_status finish_auth(mir_config *config, mir_error *error)
{
    mir_config_auth mode = config->auth.mode;
    bool has_users = config->auth.user_count != 0;
    bool has_token = config->auth.token != NULL;
    if (!config->auth_mode_explicit && (has_users || has_token))
        return mir_error_set(error, MIR_E_INVALID,
                             "auth.%s is set but auth.mode is not: write auth.mode: %s",
                             has_users ? "users" : "token", has_users ? "users" : "token");
    if (!config->auth_mode_explicit && !config->listen.loopback)
        return mir_error_set(error, MIR_E_INVALID,
                             "listen: %s can be reached by others, and nothing says who may "
                             "connect: set auth.mode to token or users, or write out auth.mode: "
                             "none if everybody may",
                             config->listen.host);
    const mir_config_listen *http = &config->http.listen;
    if (!config->auth_mode_explicit && http->host[0] != '\0' && !http->loopback)
        return mir_error_set(error, MIR_E_INVALID,
                             "http.listen: %s can be reached by others, and nothing says who may "
                             "query: set auth.mode to token or users, or write out auth.mode: "
                             "none if everybody may",
                             http->host);
    if (mode == MIR_CONFIG_AUTH_TOKEN && !has_token)
        return mir_error_set(error, MIR_E_INVALID, "auth.mode is token: auth.token must be set");
    if (mode == MIR_CONFIG_AUTH_USERS && !has_users)
        return mir_error_set(error, MIR_E_INVALID,
                             "auth.mode is users: auth.users must name at least one");
    if (config->auth.no_auth_user != NULL && mode != MIR_CONFIG_AUTH_USERS)
        return mir_error_set(error, MIR_E_INVALID, "auth.no_auth_user needs auth.mode: users");
    return finish_users(config, error);
}

mir_status mir_config_finish(mir_config *config, mir_error *error)
{
    int64_t cores = core_count();
    if (config->shards == 0) config->shards = cores < MIR_SHARDS_MAX ? cores : MIR_SHARDS_MAX;
    if (config->spin_us < 0) config->spin_us = cores <= 2 ? 0 : SPIN_US_MANY_CORES;
    if (config->limits.max_pending_bytes < config->limits.max_payload_bytes)
        return mir_error_set(error, MIR_E_INVALID,
                             "limits.max_pending (%lld bytes) must be at least "
                             "limits.max_payload (%lld bytes)",
                             (long long)config->limits.max_pending_bytes,
                             (long long)config->limits.max_payload_bytes);
    if (config->telemetry.log_bytes_max < config->limits.max_payload_bytes)
        return mir_error_set(error, MIR_E_INVALID,
                             "telemetry.log_bytes_max (%lld bytes) must be at least "
                             "limits.max_payload (%lld bytes)",
                             (long long)config->telemetry.log_bytes_max,
                             (long long)config->limits.max_payload_bytes);
    if (config->lame_duck.grace_period_ns > config->lame_duck.duration_ns)
        return mir_error_set(error, MIR_E_INVALID,
                             "lame_duck.grace_period must not be longer than lame_duck.duration");
    mir_status status = finish_auth(config, error);
    return status == MIR_OK ? finish_paths(config, error) : status;
}

void mir_config_free(mir_config *config)
{
    mir_arena_free(&config->arena);
    *config = (mir_config){.arena = {.bytes_max = 0}};
}
