/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_auth.h"

#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_log.h"
#include "mir_nats.h"

typedef struct rule {
    mir_view subject;
    mir_view queue; /* empty: holds for plain and queue subscriptions */
} rule;

typedef struct rule_list {
    bool given;
    size_t count;
    rule *rules;
} rule_list;

struct mir_permissions {
    rule_list publish_allow, publish_deny, subscribe_allow, subscribe_deny;
    bool responses;
    int64_t responses_max, responses_expires_ns;
    mir_view device; /* see mir_permissions_device */
};

typedef struct user {
    mir_view name;
    const char *password;
    bool hashed;
    mir_permissions *permissions;
} user;

struct mir_auth {
    mir_arena arena;
    mir_config_auth mode;
    const char *token;
    bool token_hashed;
    user *users;
    size_t user_count;
    user *no_auth_user;
    unsigned cost_max; /* of the passwords' hashes; 0: none is hashed */
};

static bool is_hash(const char *text)
{
    return text[0] == '$' && text[1] == '2' && strchr("abxy", text[2]) != NULL && text[2] != '\0' &&
           text[3] == '$' && text[4] >= '0' && text[4] <= '9' && text[5] >= '0' && text[5] <= '9' &&
           text[6] == '$';
}

static unsigned cost_of(const char *hash)
{
    return (unsigned)(hash[4] - '0') * 10 + (unsigned)(hash[5] - '0');
}

static mir_status read_rules(mir_arena *arena, const mir_config_strings *from, bool queues,
                             const char *where, rule_list *list, mir_error *error)
{
    list->given = from->given;
    list->count = from->count;
    list->rules = mir_arena_alloc(arena, (from->count + 1) * sizeof *list->rules);
    if (list->rules == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < from->count; i++) {
        char *text = mir_arena_strdup(arena, mir_view_cstr(from->items[i]));
        if (text == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        rule *r = &list->rules[i];
        char *save = NULL;
        char *subject = strtok_r(text, " \t", &save);
        char *queue = strtok_r(NULL, " \t", &save);
        r->subject = mir_view_cstr(subject);
        r->queue = mir_view_cstr(queue);
        if (subject == NULL || !mir_nats_subject_valid(r->subject) ||
            strtok_r(NULL, " \t", &save) != NULL || (queue != NULL && !queues))
            return mir_error_set(error, MIR_E_INVALID,
                                 "%s: \"%s\" is not a subject: tokens joined by dots, `*` for one "
                                 "token, `>` for the rest%s",
                                 where, from->items[i],
                                 queues ? ", then optionally a blank and a queue" : "");
    }
    return MIR_OK;
}

static mir_view token_at(mir_view subject, unsigned index)
{
    const uint8_t *at = subject.data, *end = at + subject.size;
    for (;; index--) {
        const uint8_t *dot = at == end ? NULL : memchr(at, '.', (size_t)(end - at));
        if (index == 0) return mir_view_of(at, (size_t)((dot == NULL ? end : dot) - at));
        if (dot == NULL) return (mir_view){0};
        at = dot + 1;
    }
}

/* False when an entry names something else than inboxes and this one id. */
static bool names_one(const rule_list *list, bool publish, mir_view *id)
{
    if (!list->given) return false;
    for (size_t i = 0; i < list->count; i++) {
        mir_view subject = list->rules[i].subject, first = token_at(subject, 0);
        if (mir_view_eq_cstr(first, "_INBOX")) continue;
        if (publish && !mir_view_eq_cstr(first, "device") && !mir_view_eq_cstr(first, "event"))
            return false;
        mir_view named = publish ? token_at(subject, 1) : first;
        if (named.size == 0 || mir_view_eq_cstr(named, "*") || mir_view_eq_cstr(named, ">"))
            return false;
        if (id->size != 0 && !mir_view_eq(named, *id)) return false;
        *id = named;
    }
    return true;
}

static mir_view device_of(const mir_permissions *p)
{
    mir_view id = {0};
    bool only_answers = !p->publish_allow.given && p->responses;
    bool is_one = (only_answers || names_one(&p->publish_allow, true, &id)) &&
                  names_one(&p->subscribe_allow, false, &id);
    return is_one ? id : (mir_view){0};
}

static mir_status read_permissions(mir_arena *arena, const mir_config_permissions *from,
                                   const char *who, mir_permissions **permissions, mir_error *error)
{
    *permissions = NULL;
    if (!from->given) return MIR_OK;
    mir_permissions *p = mir_arena_alloc(arena, sizeof *p);
    if (p == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    mir_status status =
        read_rules(arena, &from->publish_allow, false, who, &p->publish_allow, error);
    if (status == MIR_OK)
        status = read_rules(arena, &from->publish_deny, false, who, &p->publish_deny, error);
    if (status == MIR_OK)
        status = read_rules(arena, &from->subscribe_allow, true, who, &p->subscribe_allow, error);
    if (status == MIR_OK)
        status = read_rules(arena, &from->subscribe_deny, true, who, &p->subscribe_deny, error);
    p->responses = from->allow_responses;
    p->responses_max = from->responses_max;
    p->responses_expires_ns = from->responses_expires_ns;
    if (status == MIR_OK) p->device = device_of(p);
    if (status == MIR_OK) *permissions = p;
    return status;
}

mir_status mir_auth_create(const mir_config *config, mir_auth **auth, mir_error *error)
{
    mir_auth *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    mir_status status = MIR_OK;
    fresh->mode = config->auth.mode;
    if (fresh->mode == MIR_CONFIG_AUTH_TOKEN) {
        fresh->token = mir_arena_strdup(&fresh->arena, mir_view_cstr(config->auth.token));
        if (fresh->token == NULL) goto memory;
        fresh->token_hashed = is_hash(fresh->token);
        if (!fresh->token_hashed)
            mir_log_warn("auth.token is written in plain text: a bcrypt hash is safer");
    } else if (fresh->mode == MIR_CONFIG_AUTH_USERS) {
        fresh->user_count = config->auth.user_count;
        fresh->users =
            mir_arena_alloc(&fresh->arena, (fresh->user_count + 1) * sizeof *fresh->users);
        if (fresh->users == NULL) goto memory;
        unsigned plain = 0;
        for (size_t i = 0; i < fresh->user_count; i++) {
            const mir_config_user *from = &config->auth.users[i];
            user *u = &fresh->users[i];
            char *name = mir_arena_strdup(&fresh->arena, mir_view_cstr(from->user));
            if (name == NULL) goto memory;
            u->name = mir_view_cstr(name);
            if (from->password != NULL) {
                u->password = mir_arena_strdup(&fresh->arena, mir_view_cstr(from->password));
                if (u->password == NULL) goto memory;
                u->hashed = is_hash(u->password);
                if (!u->hashed)
                    plain++;
                else if (cost_of(u->password) > fresh->cost_max)
                    fresh->cost_max = cost_of(u->password);
            }
            status =
                read_permissions(&fresh->arena, &from->permissions, name, &u->permissions, error);
            if (status != MIR_OK) goto out;
            if (config->auth.no_auth_user != NULL &&
                mir_view_eq_cstr(u->name, config->auth.no_auth_user))
                fresh->no_auth_user = u;
        }
        if (plain > 0)
            mir_log_warn("%u password%s written in plain text: bcrypt hashes are safer", plain,
                         plain == 1 ? " is" : "s are");
    }
    *auth = fresh;
    return MIR_OK;
memory:
    status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
out:
    mir_auth_destroy(fresh);
    return status;
}

void mir_auth_destroy(mir_auth *auth)
{
    if (auth == NULL) return;
    mir_arena_free(&auth->arena);
    free(auth);
}

bool mir_auth_required(const mir_auth *auth)
{
    return auth->mode != MIR_CONFIG_AUTH_NONE && auth->no_auth_user == NULL;
}

mir_login mir_auth_unnamed(const mir_auth *auth)
{
    if (auth->no_auth_user != NULL)
        return (mir_login){auth->no_auth_user->permissions, auth->no_auth_user->name};
    return (mir_login){NULL, MIR_VIEW_LITERAL("anonymous")};
}

/* In time that depends on the length given alone, not on where the first difference is. */
static bool same_secret(const char *known, mir_view given)
{
    size_t known_size = strlen(known);
    uint8_t difference = known_size == given.size ? 0 : 1;
    for (size_t i = 0; i < given.size; i++)
        difference |=
            (uint8_t)(given.data[i] ^ (uint8_t)known[known_size == 0 ? 0 : i % known_size]);
    return difference == 0;
}

static bool secret_matches(const char *known, bool hashed, mir_view given)
{
    if (!hashed) return same_secret(known, given);
    char text[256];
    if (given.size == 0 || given.size >= sizeof text) return false;
    if (memchr(given.data, '\0', given.size) != NULL) return false;
    memcpy(text, given.data, given.size);
    text[given.size] = '\0';
    struct crypt_data *work = calloc(1, sizeof *work);
    if (work == NULL) return false;
    const char *hash = crypt_r(text, known, work);
    bool same = hash != NULL && hash[0] != '*' && same_secret(known, mir_view_cstr(hash));
    free(work);
    return same;
}

/* Work that no login can pass. */
static void hash_for_nothing(unsigned cost, mir_view given)
{
    char setting[32];
    (void)snprintf(setting, sizeof setting, "$2b$%02u$abcdefghijklmnopqrstuu", cost);
    (void)secret_matches(setting, true, given);
}

/* A refusal takes the time of the costliest hash, whether there is such a user or not. Each step of
 * the cost doubles the work: c, c, c + 1, … m - 1 together are as much as m. */
static bool password_matches(const mir_auth *auth, const user *u, mir_view given)
{
    bool known = u != NULL && u->password != NULL;
    bool hashed = known && u->hashed;
    if (secret_matches(known ? u->password : "", hashed, given) && known) return true;
    if (auth->cost_max == 0) return false;
    if (!hashed) hash_for_nothing(auth->cost_max, given);
    for (unsigned cost = hashed ? cost_of(u->password) : auth->cost_max; cost < auth->cost_max;
         cost++)
        hash_for_nothing(cost, given);
    return false;
}

static const user *find_user(const mir_auth *auth, mir_view name)
{
    for (size_t i = 0; i < auth->user_count; i++)
        if (mir_view_eq(auth->users[i].name, name)) return &auth->users[i];
    return NULL;
}

static bool is_nothing(const mir_credentials *credentials)
{
    return credentials->user.size == 0 && credentials->password.size == 0 &&
           credentials->token.size == 0;
}

bool mir_auth_is_slow(const mir_auth *auth, const mir_credentials *credentials)
{
    if (auth->mode == MIR_CONFIG_AUTH_TOKEN) return auth->token_hashed;
    return auth->cost_max != 0 && !is_nothing(credentials);
}

bool mir_auth_check(const mir_auth *auth, const mir_credentials *credentials, mir_login *login)
{
    *login = (mir_login){NULL, MIR_VIEW_LITERAL("anonymous")};
    switch (auth->mode) {
    case MIR_CONFIG_AUTH_NONE: return true;
    case MIR_CONFIG_AUTH_TOKEN:
        login->name = MIR_VIEW_LITERAL("token");
        return secret_matches(auth->token, auth->token_hashed, credentials->token);
    case MIR_CONFIG_AUTH_USERS: {
        const user *u;
        if (is_nothing(credentials)) {
            u = auth->no_auth_user;
            if (u == NULL) return false;
        } else {
            u = find_user(auth, credentials->user);
            if (!password_matches(auth, u, credentials->password)) return false;
        }
        *login = (mir_login){u->permissions, u->name};
        return true;
    }
    }
    return false;
}

static bool any_matches(const rule_list *list, mir_view subject)
{
    for (size_t i = 0; i < list->count; i++)
        if (mir_nats_match(list->rules[i].subject, subject)) return true;
    return false;
}

mir_view mir_permissions_device(const mir_permissions *permissions)
{
    return permissions == NULL ? (mir_view){0} : permissions->device;
}

bool mir_permissions_publish(const mir_permissions *p, mir_view subject)
{
    if (p == NULL) return true;
    if (p->publish_allow.given) {
        if (!any_matches(&p->publish_allow, subject)) return false;
    } else if (p->responses) {
        /* With a response permission and no allow list only responses may be published. */
        return false;
    }
    return !any_matches(&p->publish_deny, subject);
}

static bool queue_matches(mir_view rule_queue, mir_view queue)
{
    return mir_view_eq(rule_queue, queue) || mir_nats_match(rule_queue, queue);
}

bool mir_permissions_subscribe(const mir_permissions *p, mir_view pattern, mir_view queue)
{
    if (p == NULL) return true;
    if (p->subscribe_allow.given) {
        bool covered = false, qualified = false, qualified_match = false;
        for (size_t i = 0; i < p->subscribe_allow.count; i++) {
            const rule *r = &p->subscribe_allow.rules[i];
            if (!mir_nats_subset(pattern, r->subject)) continue;
            if (r->queue.size == 0) {
                covered = true;
            } else if (queue.size != 0) {
                qualified = true;
                if (queue_matches(r->queue, queue)) qualified_match = true;
            }
        }
        if (qualified ? !qualified_match : !covered) return false;
    }
    for (size_t i = 0; i < p->subscribe_deny.count; i++) {
        const rule *r = &p->subscribe_deny.rules[i];
        if (!mir_nats_subset(pattern, r->subject)) continue;
        if (r->queue.size == 0 || (queue.size != 0 && queue_matches(r->queue, queue))) return false;
    }
    return true;
}

static bool deny_applies(const rule *r, mir_view queue)
{
    return r->queue.size == 0 || (queue.size != 0 && queue_matches(r->queue, queue));
}

bool mir_permissions_filters(const mir_permissions *p, mir_view pattern, mir_view queue)
{
    if (p == NULL) return false;
    for (size_t i = 0; i < p->subscribe_deny.count; i++)
        if (deny_applies(&p->subscribe_deny.rules[i], queue) &&
            mir_nats_overlap(pattern, p->subscribe_deny.rules[i].subject))
            return true;
    return false;
}

bool mir_permissions_withhold(const mir_permissions *p, mir_view subject, mir_view queue)
{
    for (size_t i = 0; i < p->subscribe_deny.count; i++)
        if (deny_applies(&p->subscribe_deny.rules[i], queue) &&
            mir_nats_match(p->subscribe_deny.rules[i].subject, subject))
            return true;
    return false;
}

bool mir_permissions_responses(const mir_permissions *p, int64_t *max, int64_t *expires_ns)
{
    if (p == NULL || !p->responses) return false;
    *max = p->responses_max;
    *expires_ns = p->responses_expires_ns;
    return true;
}
