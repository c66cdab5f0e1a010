/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <crypt.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mir_auth.h"

enum { USERS_MAX = 4 };

static mir_config config;
static mir_config_user users[USERS_MAX];
static mir_auth *auth;

/* In rounds of bcrypt, which are its cost. */
static uint64_t hashed_work;

/* Comes before the library's. */
char *crypt_r(const char *phrase, const char *setting, struct crypt_data *data)
{
    hashed_work += UINT64_C(1) << strtoul(setting + 4, NULL, 10);
    return crypt_rn(phrase, setting, data, sizeof *data);
}

static int setup(void **state)
{
    (void)state;
    memset(&config, 0, sizeof config);
    memset(users, 0, sizeof users);
    config.auth.users = users;
    auth = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mir_auth_destroy(auth);
    return 0;
}

static mir_view text(const char *value)
{
    return mir_view_cstr(value);
}

/* A list written as "a|b|c"; "" is an empty list, null an absent one. */
static mir_config_strings list(const char *entries)
{
    static char memory[64][64];
    static char *items[64];
    static size_t used;
    mir_config_strings strings = {.given = entries != NULL};
    if (entries == NULL || entries[0] == '\0') return strings;
    if (used > 48) used = 0;
    strings.items = &items[used];
    while (*entries != '\0') {
        size_t size = strcspn(entries, "|");
        assert_true(used < 64 && size < sizeof memory[0]);
        memcpy(memory[used], entries, size);
        memory[used][size] = '\0';
        items[used] = memory[used];
        used++;
        strings.count++;
        entries += size + (entries[size] == '|');
    }
    return strings;
}

static const mir_permissions *log_in(const char *user, const char *password)
{
    mir_login login;
    mir_credentials credentials = {.user = text(user), .password = text(password)};
    assert_true(mir_auth_check(auth, &credentials, &login));
    assert_true(mir_view_eq_cstr(login.name, user));
    return login.permissions;
}

/* One user with these lists. */
static const mir_permissions *with(const char *publish_allow, const char *publish_deny,
                                   const char *subscribe_allow, const char *subscribe_deny)
{
    mir_auth_destroy(auth);
    auth = NULL;
    config.auth.mode = MIR_CONFIG_AUTH_USERS;
    config.auth.user_count = 1;
    users[0].user = (char *)(uintptr_t) "u";
    users[0].password = (char *)(uintptr_t) "p";
    users[0].permissions.given = true;
    users[0].permissions.publish_allow = list(publish_allow);
    users[0].permissions.publish_deny = list(publish_deny);
    users[0].permissions.subscribe_allow = list(subscribe_allow);
    users[0].permissions.subscribe_deny = list(subscribe_deny);
    mir_error error = {{0}};
    assert_int_equal(mir_auth_create(&config, &auth, &error), MIR_OK);
    return log_in("u", "p");
}

static bool may_subscribe(const mir_permissions *p, const char *pattern, const char *queue)
{
    return mir_permissions_subscribe(p, text(pattern), text(queue));
}

static void without_permissions_everything_is_allowed(void **state)
{
    (void)state;
    assert_true(mir_permissions_publish(NULL, text("a")));
    assert_true(mir_permissions_subscribe(NULL, text(">"), text("q")));
    assert_false(mir_permissions_filters(NULL, text(">"), text("")));
    const mir_permissions *p = with(NULL, NULL, NULL, NULL);
    assert_true(mir_permissions_publish(p, text("any.thing")));
    assert_true(may_subscribe(p, ">", ""));
    int64_t max, expires_ns;
    assert_false(mir_permissions_responses(p, &max, &expires_ns));
}

static void an_empty_allow_list_allows_nothing(void **state)
{
    (void)state;
    const mir_permissions *p = with("", NULL, "", NULL);
    assert_false(mir_permissions_publish(p, text("a")));
    assert_false(may_subscribe(p, "a", ""));
    assert_false(may_subscribe(p, "a", "q"));
}

static void publishing_needs_an_allow_entry_and_no_deny_entry(void **state)
{
    (void)state;
    const mir_permissions *p = with("device.d1.>|_INBOX.*", "device.d1.secret.*", NULL, NULL);
    assert_true(mir_permissions_publish(p, text("device.d1.tlm")));
    assert_true(mir_permissions_publish(p, text("_INBOX.x")));
    assert_true(mir_permissions_publish(p, text("device.d1.secret.a.b")));
    assert_false(mir_permissions_publish(p, text("device.d1.secret.a")));
    assert_false(mir_permissions_publish(p, text("device.d1")));
    assert_false(mir_permissions_publish(p, text("device.d2.tlm")));
    assert_false(mir_permissions_publish(p, text("_INBOX.x.y")));
    p = with(NULL, "a.>", NULL, NULL);
    assert_true(mir_permissions_publish(p, text("a")));
    assert_false(mir_permissions_publish(p, text("a.b")));
}

static void a_plain_subscription_must_be_covered_by_an_entry_without_queue(void **state)
{
    (void)state;
    const mir_permissions *p = with(NULL, NULL, "foo.*|bar.>|jobs workers", NULL);
    assert_true(may_subscribe(p, "foo.a", ""));
    assert_true(may_subscribe(p, "foo.*", ""));
    assert_true(may_subscribe(p, "bar.*.x", ""));
    /* Wider than the entry: as a literal it would match. */
    assert_false(may_subscribe(p, "foo.>", ""));
    assert_false(may_subscribe(p, ">", ""));
    assert_false(may_subscribe(p, "*.a", ""));
    assert_false(may_subscribe(p, "jobs", ""));
    /* Entries without a queue hold for queue subscriptions too. */
    assert_true(may_subscribe(p, "foo.a", "any"));
}

static void a_queue_entry_that_covers_decides_for_queue_subscriptions(void **state)
{
    (void)state;
    const mir_permissions *p = with(NULL, NULL, "jobs workers|jobs team.*|jobs|logs dev.>", NULL);
    assert_true(may_subscribe(p, "jobs", "workers"));
    assert_true(may_subscribe(p, "jobs", "team.a"));
    assert_false(may_subscribe(p, "jobs", "team.a.b"));
    assert_false(may_subscribe(p, "jobs", "others"));
    assert_true(may_subscribe(p, "jobs", ""));
    assert_true(may_subscribe(p, "logs", "dev.a.b"));
    assert_false(may_subscribe(p, "logs", "dev"));
    assert_false(may_subscribe(p, "logs", ""));
}

static void deny_wins_where_it_covers_and_its_queue_matches(void **state)
{
    (void)state;
    const mir_permissions *p = with(NULL, NULL, "a.>", "a.secret|a.jobs dev.*");
    assert_false(may_subscribe(p, "a.secret", ""));
    assert_false(may_subscribe(p, "a.secret", "q"));
    assert_true(may_subscribe(p, "a.*", ""));
    assert_true(may_subscribe(p, "a.jobs", ""));
    assert_false(may_subscribe(p, "a.jobs", "dev.1"));
    assert_true(may_subscribe(p, "a.jobs", "prod"));
    p = with(NULL, NULL, NULL, ">");
    assert_false(may_subscribe(p, "a", ""));
    assert_false(may_subscribe(p, ">", ""));
}

static void what_overlaps_a_deny_entry_is_filtered_message_by_message(void **state)
{
    (void)state;
    const mir_permissions *p = with(NULL, NULL, NULL, "a.secret.*|b q.*");
    assert_true(mir_permissions_filters(p, text("a.>"), text("")));
    assert_true(mir_permissions_filters(p, text("*.secret.x"), text("")));
    assert_false(mir_permissions_filters(p, text("a.open.>"), text("")));
    assert_false(mir_permissions_filters(p, text("a.*"), text("")));
    assert_true(mir_permissions_withhold(p, text("a.secret.x"), text("")));
    assert_false(mir_permissions_withhold(p, text("a.secret"), text("")));
    /* An entry with a queue holds for members of such a queue alone. */
    assert_false(mir_permissions_filters(p, text("b"), text("")));
    assert_true(mir_permissions_filters(p, text("*"), text("q.1")));
    assert_true(mir_permissions_withhold(p, text("b"), text("q.1")));
    assert_false(mir_permissions_withhold(p, text("b"), text("r")));
}

static void responses_alone_mean_no_other_publish(void **state)
{
    (void)state;
    users[0].permissions.allow_responses = true;
    users[0].permissions.responses_max = 3;
    users[0].permissions.responses_expires_ns = 77;
    const mir_permissions *p = with(NULL, NULL, NULL, NULL);
    int64_t max = 0, expires_ns = 0;
    assert_true(mir_permissions_responses(p, &max, &expires_ns));
    assert_int_equal(max, 3);
    assert_int_equal(expires_ns, 77);
    assert_false(mir_permissions_publish(p, text("_INBOX.x")));
    p = with("a", NULL, NULL, NULL);
    assert_true(mir_permissions_publish(p, text("a")));
    assert_false(mir_permissions_publish(p, text("b")));
}

static void permissions_that_name_one_device_are_that_devices(void **state)
{
    (void)state;
    assert_int_equal(mir_permissions_device(NULL).size, 0);
    const struct {
        const char *publish, *subscribe, *device;
    } cases[] = {
        {"device.a.>", "a.>|_INBOX.>", "a"},
        {"device.a.core.>|device.a.tlm.>|event.a.>|_INBOX.>", "a.v1alpha.command", "a"},
        {"device.a.>", "", "a"},
        {"", "a.>", "a"},
        {"device.a.>|device.b.>", "a.>", ""},
        {"device.a.>", "b.>", ""},
        {"device.*.>", "a.>", ""},
        {"device.>", "a.>", ""},
        {"client.a.>", "a.>", ""},
        {"device.a.>", "*.>", ""},
        {"device.a.>", ">", ""},
        {"device", "a.>", ""},
        {"_INBOX.>", "_INBOX.>", ""},
        {NULL, "a.>", ""},
        {"device.a.>", NULL, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mir_permissions *p = with(cases[i].publish, NULL, cases[i].subscribe, NULL);
        assert_true(mir_view_eq_cstr(mir_permissions_device(p), cases[i].device));
    }
}

static void an_entry_that_is_no_subject_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const wrong[] = {"a..b", "a.>.b", ".", "a b c", " "};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        config.auth.mode = MIR_CONFIG_AUTH_USERS;
        config.auth.user_count = 1;
        users[0] = (mir_config_user){.user = (char *)(uintptr_t) "somebody",
                                     .password = (char *)(uintptr_t) "p",
                                     .permissions = {.given = true}};
        users[0].permissions.subscribe_allow = list(wrong[i]);
        mir_error error = {{0}};
        mir_auth *none = NULL;
        assert_int_equal(mir_auth_create(&config, &none, &error), MIR_E_INVALID);
        assert_null(none);
        assert_non_null(strstr(error.text, "somebody"));
        assert_non_null(strstr(error.text, wrong[i]));
    }
    /* A queue has no meaning for publishing. */
    users[0].permissions.subscribe_allow = list(NULL);
    users[0].permissions.publish_allow = list("a q");
    mir_error error = {{0}};
    mir_auth *none = NULL;
    assert_int_equal(mir_auth_create(&config, &none, &error), MIR_E_INVALID);
}

static bool passes(const char *user, const char *password, const char *token)
{
    mir_login login;
    mir_credentials credentials = {
        .user = text(user), .password = text(password), .token = text(token)};
    return mir_auth_check(auth, &credentials, &login);
}

static void a_token_must_be_the_token(void **state)
{
    (void)state;
    config.auth.mode = MIR_CONFIG_AUTH_TOKEN;
    config.auth.token = (char *)(uintptr_t) "s3cret";
    mir_error error = {{0}};
    assert_int_equal(mir_auth_create(&config, &auth, &error), MIR_OK);
    assert_true(mir_auth_required(auth));
    assert_true(passes(NULL, NULL, "s3cret"));
    static const char *const wrong[] = {NULL, "", "s3cre", "s3cret1", "S3cret", "s3crets3cret"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(passes(NULL, NULL, wrong[i]));
    assert_false(passes("s3cret", "s3cret", NULL));
}

static void users_pass_with_their_own_password_alone(void **state)
{
    (void)state;
    char hash[CRYPT_OUTPUT_SIZE];
    struct crypt_data *work = calloc(1, sizeof *work);
    assert_non_null(work);
    const char *made = crypt_r("hidden", "$2b$04$abcdefghijklmnopqrstuu", work);
    assert_non_null(made);
    assert_memory_equal(made, "$2b$04$", 7);
    strcpy(hash, made);
    free(work);
    config.auth.mode = MIR_CONFIG_AUTH_USERS;
    config.auth.user_count = 3;
    config.auth.no_auth_user = (char *)(uintptr_t) "guest";
    users[0] =
        (mir_config_user){.user = (char *)(uintptr_t) "a", .password = (char *)(uintptr_t) "x"};
    users[1] = (mir_config_user){.user = (char *)(uintptr_t) "b", .password = hash};
    users[2] =
        (mir_config_user){.user = (char *)(uintptr_t) "guest", .permissions = {.given = true}};
    users[2].permissions.publish_allow = list("");
    mir_error error = {{0}};
    assert_int_equal(mir_auth_create(&config, &auth, &error), MIR_OK);
    assert_false(mir_auth_required(auth));
    assert_true(passes("a", "x", NULL));
    assert_true(passes("b", "hidden", NULL));
    assert_false(passes("a", "hidden", NULL));
    assert_false(passes("b", "x", NULL));
    assert_false(passes("b", hash, NULL));
    assert_false(passes("b", "", NULL));
    assert_false(passes("c", "x", NULL));
    assert_false(passes("", "x", NULL));
    assert_false(passes("guest", "", NULL));
    assert_false(passes(NULL, NULL, "x"));
    mir_login guest;
    mir_credentials nothing = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    assert_false(mir_auth_is_slow(auth, &nothing));
    assert_true(mir_auth_check(auth, &nothing, &guest));
    assert_true(mir_view_eq_cstr(guest.name, "guest"));
    assert_false(mir_permissions_publish(guest.permissions, text("a")));
    assert_null(log_in("a", "x"));
}

static uint64_t work_of(const char *user, const char *password)
{
    mir_credentials credentials = {.user = text(user), .password = text(password)};
    assert_true(mir_auth_is_slow(auth, &credentials));
    hashed_work = 0;
    assert_false(passes(user, password, NULL));
    return hashed_work;
}

static void a_refusal_costs_the_same_whether_there_is_such_a_user(void **state)
{
    (void)state;
    config.auth.mode = MIR_CONFIG_AUTH_USERS;
    config.auth.user_count = 4;
    users[0] = (mir_config_user){
        .user = (char *)(uintptr_t) "costly",
        .password =
            (char *)(uintptr_t) "$2b$07$abcdefghijklmnopqrstuubRTrkxzBf5QHqtrhXEpJ2AYPnERaqim"};
    users[1] = (mir_config_user){
        .user = (char *)(uintptr_t) "cheap",
        .password =
            (char *)(uintptr_t) "$2b$04$abcdefghijklmnopqrstuubRTrkxzBf5QHqtrhXEpJ2AYPnERaqim"};
    users[2] =
        (mir_config_user){.user = (char *)(uintptr_t) "plain", .password = (char *)(uintptr_t) "x"};
    users[3] = (mir_config_user){.user = (char *)(uintptr_t) "none"};
    mir_error error = {{0}};
    assert_int_equal(mir_auth_create(&config, &auth, &error), MIR_OK);
    static const char *const names[] = {"costly", "cheap", "plain", "none", "nobody", ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(work_of(names[i], "wrong"), 1 << 7);
    /* Nobody's password is the empty one, and it is hashed for nobody. */
    for (size_t i = 0; i + 1 < sizeof names / sizeof names[0]; i++)
        assert_int_equal(work_of(names[i], ""), 0);
    assert_true(passes("plain", "x", NULL));
    assert_false(passes("nobody", "abcdefghijklmnopqrstuu", NULL));
    /* Without a hash there is nothing to wait for. */
    mir_auth_destroy(auth);
    auth = NULL;
    users[0].password = users[1].password = (char *)(uintptr_t) "y";
    assert_int_equal(mir_auth_create(&config, &auth, &error), MIR_OK);
    mir_credentials nobody = {.user = text("nobody"), .password = text("y")};
    assert_false(mir_auth_is_slow(auth, &nobody));
    hashed_work = 0;
    assert_false(passes("nobody", "y", NULL));
    assert_int_equal(hashed_work, 0);
}

static void mode_none_asks_nobody(void **state)
{
    (void)state;
    mir_error error = {{0}};
    assert_int_equal(mir_auth_create(&config, &auth, &error), MIR_OK);
    assert_false(mir_auth_required(auth));
    assert_true(passes(NULL, NULL, NULL));
    assert_true(passes("x", "y", "z"));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(without_permissions_everything_is_allowed),
        CASE(an_empty_allow_list_allows_nothing),
        CASE(publishing_needs_an_allow_entry_and_no_deny_entry),
        CASE(a_plain_subscription_must_be_covered_by_an_entry_without_queue),
        CASE(a_queue_entry_that_covers_decides_for_queue_subscriptions),
        CASE(deny_wins_where_it_covers_and_its_queue_matches),
        CASE(what_overlaps_a_deny_entry_is_filtered_message_by_message),
        CASE(responses_alone_mean_no_other_publish),
        CASE(permissions_that_name_one_device_are_that_devices),
        CASE(an_entry_that_is_no_subject_is_refused_by_name),
        CASE(a_token_must_be_the_token),
        CASE(users_pass_with_their_own_password_alone),
        CASE(a_refusal_costs_the_same_whether_there_is_such_a_user),
        CASE(mode_none_asks_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
