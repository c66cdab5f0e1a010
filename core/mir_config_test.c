/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "mir_clock.h"
#include "mir_config_table.h"

#define S MIR_NS_PER_S

static char file_path[] = "/tmp/mir_config_test.XXXXXX";

static void write_bytes(const char *text, size_t size)
{
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static mir_status load_text(const char *text, mir_config *config, mir_error *error)
{
    write_bytes(text, strlen(text));
    return mir_config_load(config, &(mir_config_options){.file = file_path}, error);
}

/* The text must be refused with these words, and leave the caller's config alone. */
static void refused(const char *text, const char *words)
{
    mir_config config;
    mir_config untouched;
    mir_error error = {.text = ""};
    memset(&config, 0x5a, sizeof config);
    memcpy(&untouched, &config, sizeof config);
    assert_int_equal(load_text(text, &config, &error), MIR_E_INVALID);
    if (strstr(error.text, words) == NULL) fail_msg("\"%s\" is not in \"%s\"", words, error.text);
    assert_memory_equal(&config, &untouched, sizeof config);
}

static void refused_at(const char *text, int line, const char *words)
{
    char place[128];
    (void)snprintf(place, sizeof place, "%s:%d: ", file_path, line);
    refused(text, place);
    refused(text, words);
}

static void refused_setting(const char *setting, const char *words)
{
    mir_config config;
    mir_error error = {.text = ""};
    write_bytes("", 0);
    assert_int_equal(
        mir_config_load(
            &config,
            &(mir_config_options){.file = file_path, .settings = &setting, .setting_count = 1},
            &error),
        MIR_E_INVALID);
    if (strstr(error.text, words) == NULL) fail_msg("\"%s\" is not in \"%s\"", words, error.text);
}

static mir_config loaded(const char *text)
{
    mir_config config;
    mir_error error = {.text = ""};
    if (load_text(text, &config, &error) != MIR_OK) fail_msg("%s", error.text);
    return config;
}

static void an_empty_file_gives_the_defaults(void **state)
{
    (void)state;
    mir_config config = loaded("");
    assert_true(config.shards >= 1);
    assert_true(config.spin_us == 0 || config.spin_us == 50);
    assert_string_equal(config.data, "/srv/mir");
    assert_string_equal(config.admin, "/srv/mir/admin.sock");
    assert_string_equal(config.listen.host, "127.0.0.1");
    assert_int_equal(config.listen.port, 4222);
    assert_true(config.listen.loopback);
    assert_string_equal(config.http.listen.host, "");
    assert_int_equal(config.http.timeout_ns, 30 * S);
    assert_int_equal(config.telemetry.explore, MIR_CONFIG_EXPLORE_FLUX);
    assert_int_equal(config.log.level, MIR_LOG_INFO);
    assert_int_equal(config.io.backend, MIR_CONFIG_BACKEND_AUTO);
    assert_int_equal(config.limits.max_connections, 64000);
    assert_int_equal(config.limits.max_payload_bytes, 8 << 20);
    assert_int_equal(config.limits.max_pending_bytes, 64 << 20);
    assert_int_equal(config.limits.max_control_line_bytes, 4096);
    assert_int_equal(config.limits.max_subscriptions, 0);
    assert_int_equal(config.limits.write_deadline_ns, 10 * S);
    assert_int_equal(config.ping.interval_ns, 120 * S);
    assert_int_equal(config.ping.max, 2);
    assert_int_equal(config.auth.mode, MIR_CONFIG_AUTH_NONE);
    assert_false(config.auth_mode_explicit);
    assert_null(config.auth.token);
    assert_null(config.auth.no_auth_user);
    assert_int_equal(config.auth.user_count, 0);
    assert_int_equal(config.auth.timeout_ns, 2 * S);
    assert_int_equal(config.lame_duck.duration_ns, 120 * S);
    assert_int_equal(config.lame_duck.grace_period_ns, 10 * S);
    assert_int_equal(config.presence.offline_after_ns, 30 * S);
    assert_int_equal(config.schema.request_timeout_ns, 7 * S);
    assert_int_equal(config.telemetry.sync_ns, S / 10);
    assert_int_equal(config.telemetry.log_bytes_max, 64 << 20);
    assert_int_equal(config.telemetry.retention_age_ns, 0);
    assert_int_equal(config.telemetry.retention_size_bytes, 0);
    assert_int_equal(config.telemetry.clock_wait_ns, INT64_C(7) * 86400 * S);
    assert_int_equal(config.state.sync, MIR_CONFIG_SYNC_COMMIT);
    assert_int_equal(config.state.map_size_bytes, INT64_C(16) << 30);
    mir_config_free(&config);
}

static void a_file_sets_what_it_names_and_nothing_else(void **state)
{
    (void)state;
    mir_config config = loaded("# a comment\n"
                               "shards: 3\n"
                               "spin_us: 20\n"
                               "data: /tmp/x\n"
                               "listen: \"[::1]:0\"\n"
                               "log: {level: trace}\n"
                               "limits:\n"
                               "  max_payload: 1MiB\n"
                               "  write_deadline: 1h30m\n"
                               "telemetry:\n"
                               "  retention:\n"
                               "    age: 30d\n"
                               "    size: 2GB\n"
                               "ping:\n" /* a section that is commented out */
                               "state:\n"
                               "  sync: interval\n");
    assert_int_equal(config.shards, 3);
    assert_int_equal(config.spin_us, 20);
    assert_string_equal(config.admin, "/tmp/x/admin.sock");
    assert_string_equal(config.listen.host, "::1");
    assert_true(config.listen.ipv6 && config.listen.loopback);
    assert_int_equal(config.log.level, MIR_LOG_TRACE);
    assert_int_equal(config.limits.max_payload_bytes, 1 << 20);
    assert_int_equal(config.limits.write_deadline_ns, 5400 * S);
    assert_int_equal(config.telemetry.retention_age_ns, INT64_C(30) * 86400 * S);
    assert_int_equal(config.telemetry.retention_size_bytes, 2000000000);
    assert_int_equal(config.state.sync, MIR_CONFIG_SYNC_INTERVAL);
    assert_int_equal(config.ping.max, 2);
    mir_config_free(&config);
}

static void later_sources_win(void **state)
{
    (void)state;
    const char *environment[] = {"HOME=/nowhere", "MIR__PING__MAX=4",
                                 "MIR__LIMITS__MAX_PAYLOAD=2MiB", "MIR_DATA=/srv/mir", NULL};
    const char *settings[] = {"limits.max_payload=3MiB", "log.level=debug", "log.level=warn"};
    mir_config_flag flags[] = {{"--log-level", "log.level", "error"}};
    mir_config_options options = {.file = file_path,
                                  .environment = environment,
                                  .settings = settings,
                                  .setting_count = 3,
                                  .flags = flags,
                                  .flag_count = 1};
    const char *text = "ping: {max: 3, interval: 1m}\nlimits: {max_payload: 1MiB}\n";
    mir_config config;
    mir_error error;
    write_bytes(text, strlen(text));
    assert_int_equal(mir_config_load(&config, &options, &error), MIR_OK);
    assert_int_equal(config.ping.interval_ns, 60 * S);
    assert_int_equal(config.ping.max, 4);
    assert_int_equal(config.limits.max_payload_bytes, 3 << 20);
    assert_int_equal(config.log.level, MIR_LOG_ERROR);
    mir_config_free(&config);
}

static void the_user_file_is_found_and_config_replaces_it(void **state)
{
    (void)state;
    char dir[] = "/tmp/mir_config_test_dir.XXXXXX";
    char path[128];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/mir", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/mir/mir.yaml", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs("ping: {max: 7}\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    setenv("XDG_CONFIG_HOME", dir, 1);

    mir_config config;
    mir_error error = {.text = ""};
    if (mir_config_load(&config, &(mir_config_options){.file = NULL}, &error) != MIR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(config.ping.max, 7);
    mir_config_free(&config);
    config = loaded("");
    assert_int_equal(config.ping.max, 2);
    mir_config_free(&config);

    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/mir", dir);
    (void)rmdir(path);
    (void)rmdir(dir);
    unsetenv("XDG_CONFIG_HOME");
}

static void a_named_file_must_exist(void **state)
{
    (void)state;
    mir_config config;
    mir_error error;
    mir_config_options options = {.file = "/nonexistent/mir.yaml"};
    assert_int_equal(mir_config_load(&config, &options, &error), MIR_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nonexistent/mir.yaml: No such file"));
    options.file = "/tmp";
    assert_int_equal(mir_config_load(&config, &options, &error), MIR_E_IO);
}

static void the_printed_defaults_read_back_as_the_defaults(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    mir_config_print_default(out);
    assert_int_equal(fclose(out), 0);
    mir_config config = loaded(text);
    mir_config expected = loaded("");
    assert_false(config.auth_mode_explicit);
    for (size_t i = 0; i < mir_config_key_count; i++) {
        const mir_config_key *key = &mir_config_keys[i];
        const char *last = strrchr(key->name, '.');
        char word[96];
        (void)snprintf(word, sizeof word, "%s:", last == NULL ? key->name : last + 1);
        if (strstr(text, word) == NULL) fail_msg("%s is not printed", key->name);
        if (key->kind > MIR_CONFIG_SIZE) continue;
        assert_memory_equal((char *)&config + key->offset, (char *)&expected + key->offset,
                            sizeof(int64_t));
    }
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1)
        assert_true(strcspn(line, "\n") <= 110);
    mir_config_free(&config);
    mir_config_free(&expected);
    free(text);
}

static void unknown_keys_are_refused_with_the_nearest(void **state)
{
    (void)state;
    refused_at("shards: 1\nlimits:\n  max_paylod: 1MiB\n", 3, "did you mean limits.max_payload?");
    refused_at("max_payload: 1MiB\n", 1, "did you mean limits.max_payload?");
    refused_at("limit:\n  max_payload: 1\n", 1, "unknown key limit");
    refused_at("ping:\n  zebra: 1\n", 2,
               "unknown key ping.zebra; the keys of ping are interval, max");
    refused_at("entirely_else: 1\n", 1,
               "the keys here are shards, spin_us, data, listen, admin, log,");
    refused_at("listen:\n  port: 1\n", 2, "listen: has no value; expected ADDRESS:PORT");
    refused_at("limits: 5\n", 1, "limits is a section; the keys of limits are max_connections,");
    refused_at("telemetry: {retention: 5d}\n", 1,
               "the keys of telemetry.retention are age, size, clock_wait, rules");
    refused_at("? [a]\n: b\n", 1, "expected the name of a key");
    refused_setting("ping.maximum=1", "--set: unknown key ping.maximum");
    refused_setting("ping.max", "expected key=value");
    refused_setting("=1", "expected key=value");
}

static void bad_values_are_refused_with_the_accepted_ones(void **state)
{
    (void)state;
    refused_at("log:\n  level: loud\n", 2, "expected error, warn, info, debug or trace");
    refused_at("shards: many\n", 1, "\"many\" is not a number; expected a number from 0 to 64");
    refused_at("shards: 65\n", 1, "65 is out of bounds");
    refused_at("shards: -1\n", 1, "out of bounds");
    refused_at("shards: 1.5\n", 1, "is not a number");
    refused_at("shards:\n", 1, "shards: has no value");
    refused_at("spin_us: some\n", 1, "expected auto, or a number from 0 to 100000");
    refused_at("limits: {max_payload: 8XB}\n", 1, "expected a size from 1B to 64MiB");
    refused_at("limits: {max_payload: 65MiB}\n", 1, "out of bounds");
    refused_at("ping: {interval: 30}\n", 1, "30 has no unit (did you mean 30s?)");
    refused_at("ping: {interval: soon}\n", 1, "expected a duration from 10ms to 1d");
    refused_at("data: ~/mir\n", 1, "~ is not expanded");
    refused_at("data: \"\"\n", 1, "is empty");
    refused_at("data: \"a\\0b\"\n", 1, "data: has no value");
    refused_at("auth: {token: [a]}\n", 1, "auth.token: has no value; expected a text");
    refused_setting("listen=4222", "does not end in :PORT");
    refused_setting("auth.users=5", "expected a list of {user: ..");
}

static void a_key_that_is_there_twice_is_refused(void **state)
{
    (void)state;
    refused_at("shards: 1\nshards: 2\n", 2, "shards is there twice");
    refused_at("ping: {max: 1}\nping: {max: 1}\n", 2, "ping.max is there twice");
}

static void text_that_is_not_one_document_is_refused(void **state)
{
    (void)state;
    refused_at("shards: [1\n", 2, "not valid YAML");
    refused_at("shards: 1\n---\nshards: 2\n", 3, "a single YAML document");
    refused_at("- 1\n", 1, "expected keys and their values");
    refused_at("word\n", 1, "expected keys and their values");
    refused("\xff\xfe\xff", "not valid YAML");

    mir_config config = loaded("null\n");
    mir_config_free(&config);
    size_t size = MIR_CONFIG_FILE_BYTES_MAX + 1;
    char *spaces = malloc(size);
    assert_non_null(spaces);
    memset(spaces, '\n', size);
    write_bytes(spaces, size);
    free(spaces);
    mir_error error;
    assert_int_equal(mir_config_load(&config, &(mir_config_options){.file = file_path}, &error),
                     MIR_E_TOO_LARGE);
}

static void aliases_cannot_make_a_config_of_any_size(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    (void)fputs("auth:\n  mode: users\n  default_permissions:\n    publish: &p\n      allow: &a [x",
                out);
    for (int i = 0; i < 1000; i++) (void)fputs(",x", out);
    (void)fputs("]\n  users:\n", out);
    for (int i = 0; i < 20000; i++)
        (void)fprintf(out, "  - {user: u%d, password: p, permissions: {publish: *p}}\n", i);
    assert_int_equal(fclose(out), 0);
    mir_config config;
    mir_error error;
    assert_int_equal(load_text(text, &config, &error), MIR_E_NO_MEMORY);
    assert_non_null(strstr(error.text, "more text than a configuration may hold"));
    free(text);
    refused("ping: &a\n  max: *a\n", "ping.max: has no value");
    refused("auth: &a {users: [*a]}\n", "unknown key");
}

static void users_are_read_with_their_permissions(void **state)
{
    (void)state;
    mir_config config = loaded("auth:\n"
                               "  mode: users\n"
                               "  no_auth_user: guest\n"
                               "  default_permissions:\n"
                               "    subscribe: {deny: [secret.>]}\n"
                               "  users:\n"
                               "  - user: pump-7\n"
                               "    password: $2b$04$abcdefghijklmnopqrstuv\n"
                               "    permissions:\n"
                               "      publish: {allow: [], deny: ['a.*']}\n"
                               "      subscribe: ['pump-7.>', jobs.* workers]\n"
                               "      allow_responses: {max: 3, expires: 5s}\n"
                               "  - {user: guest}\n"
                               "  - {user: b, password: b, permissions: {allow_responses: true}}\n"
                               "  - {user: c, password: c, permissions: {}}\n");
    assert_int_equal(config.auth.user_count, 4);
    const mir_config_user *user = &config.auth.users[0];
    assert_string_equal(user->user, "pump-7");
    assert_string_equal(user->password, "$2b$04$abcdefghijklmnopqrstuv");
    const mir_config_permissions *permissions = &user->permissions;
    assert_true(permissions->publish_allow.given);
    assert_int_equal(permissions->publish_allow.count, 0);
    assert_int_equal(permissions->publish_deny.count, 1);
    assert_string_equal(permissions->publish_deny.items[0], "a.*");
    assert_int_equal(permissions->subscribe_allow.count, 2);
    assert_string_equal(permissions->subscribe_allow.items[1], "jobs.* workers");
    assert_false(permissions->subscribe_deny.given);
    assert_true(permissions->allow_responses);
    assert_int_equal(permissions->responses_max, 3);
    assert_int_equal(permissions->responses_expires_ns, 5 * S);

    assert_null(config.auth.users[1].password);
    assert_string_equal(config.auth.users[1].permissions.subscribe_deny.items[0], "secret.>");
    permissions = &config.auth.users[2].permissions;
    assert_true(permissions->allow_responses);
    assert_int_equal(permissions->responses_max, 1);
    assert_int_equal(permissions->responses_expires_ns, 120 * S);
    assert_false(permissions->publish_allow.given || permissions->subscribe_deny.given);
    assert_true(config.auth.users[3].permissions.given);
    mir_config_free(&config);
}

static void broken_users_are_refused_where_they_stand(void **state)
{
    (void)state;
    refused_at("auth:\n  users:\n  - {user: a, pasword: b}\n", 3,
               "unknown key \"pasword\"; the keys here are user, password, permissions");
    refused_at("auth:\n  users:\n  - {password: b}\n", 3, "an entry has no user");
    refused_at("auth:\n  users:\n  - {user: a, user: b}\n", 3, "user is there twice");
    refused_at("auth:\n  users: {user: a}\n", 2, "expected a list");
    refused_at("auth:\n  users: [a]\n", 2, "expected {user: ..");
    refused_at("auth:\n  users:\n  - user: a\n    permissions:\n      publish: [a b]\n", 5,
               "publish: \"a b\" is not a subject");
    refused_at("auth:\n  users:\n  - user: a\n    permissions: {subscribe: {allow: ['a..b']}}\n", 4,
               "subscribe.allow: \"a..b\" is not");
    refused_at("auth:\n  default_permissions: {publish: {allow: ['>.a']}}\n", 2,
               "is not a subject");
    refused_at("auth:\n  default_permissions: {publish: {allow: }}\n", 2, "expected a list");
    refused_at("auth:\n  default_permissions: [a]\n", 2, "permissions: expected {publish:");
    refused_at("auth:\n  default_permissions: {allow_responses: {max: 0}}\n", 2, "or -1 for any");
    refused_at("auth:\n  default_permissions: {allow_responses: {expires: 5}}\n", 2, "has no unit");
    refused_at("auth:\n  default_permissions: {allow_responses: maybe}\n", 2, "true, false or");
}

static void telemetry_is_kept_by_rules(void **state)
{
    (void)state;
    const int64_t day_ns = INT64_C(86400) * S;
    mir_config config = loaded("telemetry: {retention: {age: 30d}}\n");
    assert_int_equal(config.telemetry.rule_count, 0);
    assert_int_equal(config.telemetry.rollup_ns[0], 90 * day_ns);
    assert_int_equal(config.telemetry.rollup_ns[2], 1825 * day_ns);
    mir_config_free(&config);
    config = loaded("telemetry: {rollup: {1m: off, 10m: 20d, 1h: 0}}\n");
    assert_int_equal(config.telemetry.rollup_ns[0], -1);
    assert_int_equal(config.telemetry.rollup_ns[1], 20 * day_ns);
    assert_int_equal(config.telemetry.rollup_ns[2], 0);
    mir_config_free(&config);
    config = loaded("telemetry:\n"
                    "  retention:\n"
                    "    rules:\n"
                    "      - {namespace: plant-*, message: env.v1.*, age: 7d}\n"
                    "      - {message: audit.v1.Entry, age: 0, rollup: false}\n"
                    "      - {deleted: true, age: 36h}\n"
                    "      - {age: 90d}\n");
    assert_int_equal(config.telemetry.rule_count, 4);
    const mir_config_rule *rules = config.telemetry.rules;
    assert_string_equal(rules[0].name_space, "plant-*");
    assert_string_equal(rules[0].message, "env.v1.*");
    assert_false(rules[0].deleted);
    assert_int_equal(rules[0].age_ns, 7 * day_ns);
    assert_null(rules[1].name_space);
    assert_int_equal(rules[1].age_ns, 0);
    assert_true(rules[1].no_rollup && !rules[0].no_rollup);
    assert_true(rules[2].deleted);
    assert_int_equal(rules[2].age_ns, day_ns + day_ns / 2);
    assert_null(rules[3].message);
    mir_error error;
    assert_int_equal(
        mir_config_set(&config, "telemetry.retention.rules", "[{namespace: a, age: 1h}]", &error),
        MIR_OK);
    assert_int_equal(config.telemetry.rule_count, 1);
    assert_string_equal(config.telemetry.rules[0].name_space, "a");
    mir_config_free(&config);

    static const struct {
        const char *rules, *says;
    } bad[] = {
        {"7d", "expected a list of {namespace: .., message: .., age: 7d}"},
        {"[7d]", "expected {namespace: .., message: .., age: 7d}"},
        {"[{namespace: a}]", "a rule has no age"},
        {"[{namespace: a, age: soon}]", "age: "},
        {"[{namespace: a, age: 5}]", "has no unit"},
        {"[{namespace: a, age: }]", "expected a duration"},
        {"[{namespaces: a, age: 1d}]", "unknown key \"namespaces\""},
        {"[{namespace: , age: 1d}]", "namespace: expected a text such as plant-*"},
        {"[{message: [a], age: 1d}]", "message: expected a text such as env.v1.*"},
        {"[{rollup: maybe, age: 1d}]", "rollup: expected true or false"},
        {"[{deleted: maybe, age: 1d}]", "deleted: expected true or false"},
        {"[{deleted: true, namespace: a, age: 1d}]", "has no namespace"},
        {"[{message: a, age: 1d}, {age: 1d}, {message: b, age: 2d}]", "rule 2 fits everything"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "telemetry:\n  retention:\n    rules: %s\n",
                       bad[i].rules);
        refused_at(text, 3, bad[i].says);
    }
}

static void what_is_forwarded_has_rules(void **state)
{
    (void)state;
    mir_config config = loaded("telemetry:\n"
                               "  sink:\n"
                               "    rules:\n"
                               "      - {namespace: test-*, forward: false}\n"
                               "      - {message: env.v1.*}\n"
                               "      - {namespace: plant, message: a.B, forward: true}\n");
    assert_int_equal(config.telemetry.sink.rule_count, 3);
    const mir_config_forward *rules = config.telemetry.sink.rules;
    assert_string_equal(rules[0].name_space, "test-*");
    assert_null(rules[0].message);
    assert_true(rules[0].withheld && !rules[1].withheld && !rules[2].withheld);
    assert_string_equal(rules[2].message, "a.B");
    mir_config_free(&config);
    static const struct {
        const char *rules, *says;
    } bad[] = {
        {"env", "expected a list of {namespace: .., message: .., forward: true}"},
        {"[env]", "expected {namespace: .., message: .., forward: true}"},
        {"[{namespace: a, age: 5d}]", "unknown key \"age\""},
        {"[{message: }]", "message: expected a text such as env.v1.*"},
        {"[{forward: maybe}]", "telemetry.sink.rules: forward: expected true or false"},
        {"[{message: a}, {}, {message: b}]", "rule 2 fits everything"},
        {"[{message: a, forward: false}]", "nothing would be forwarded"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "telemetry:\n  sink:\n    rules: %s\n", bad[i].rules);
        refused_at(text, 3, bad[i].says);
    }
}

static void retention_is_a_time_for_each_reason(void **state)
{
    (void)state;
    static const int64_t day_ns = INT64_C(24) * 3600 * 1000000000;
    mir_config config = loaded("ping: {max: 3}\n");
    assert_int_equal(config.events.default_keep_ns, 90 * day_ns);
    assert_int_equal(config.events.retention_count, 0);
    mir_config_free(&config);
    config = loaded("events:\n  retention: {default: 30d, DeviceOnline: 36h, DeviceDeleted: 0}\n");
    assert_int_equal(config.events.default_keep_ns, 30 * day_ns);
    assert_int_equal(config.events.retention_count, 2);
    assert_string_equal(config.events.retention[0].name, "DeviceOnline");
    assert_int_equal(config.events.retention[0].keep_ns, day_ns + day_ns / 2);
    assert_string_equal(config.events.retention[1].name, "DeviceDeleted");
    assert_int_equal(config.events.retention[1].keep_ns, 0);
    mir_error error = {.text = ""};
    /* The later one replaces the reasons; a default that it does not give stays. */
    assert_int_equal(mir_config_set(&config, "events.retention", "{A: 1d}", &error), MIR_OK);
    assert_int_equal(config.events.retention_count, 1);
    assert_int_equal(config.events.default_keep_ns, 30 * day_ns);
    mir_config_free(&config);
    refused_at("events:\n  retention: 90d\n", 2, "such as {default: 90d");
    refused_at("events:\n  retention: {default: soon}\n", 2, "default: ");
    refused_at("events:\n  retention: {default: }\n", 2, "expected a duration");
    refused_at("events:\n  retention: {default: 5}\n", 2, "has no unit");
    refused_at("events:\n  retention: {A: 1d, A: 2d}\n", 2, "A");
}

static void settings_take_flow_values_and_plain_text(void **state)
{
    (void)state;
    mir_config config;
    mir_error error = {.text = ""};
    assert_int_equal(mir_config_init_defaults(&config, &error), MIR_OK);
    assert_int_equal(mir_config_set(&config, "auth.users",
                                    "[{\"user\": \"a\", \"password\": \"b: c\"}]", &error),
                     MIR_OK);
    assert_int_equal(config.auth.user_count, 1);
    assert_string_equal(config.auth.users[0].password, "b: c");
    /* As JSON would quote it, and as a shell user would not. */
    assert_int_equal(mir_config_set(&config, "auth.token", "\"a\\tb\"", &error), MIR_OK);
    assert_string_equal(config.auth.token, "a\tb");
    assert_int_equal(mir_config_set(&config, "auth.token", "{x: [#", &error), MIR_OK);
    assert_string_equal(config.auth.token, "{x: [#");
    assert_int_equal(mir_config_set(&config, "listen", "[::]:1", &error), MIR_OK);
    assert_string_equal(config.listen.host, "::");
    assert_false(config.auth_mode_explicit);
    assert_int_equal(mir_config_set(&config, "auth.mode", "none", &error), MIR_OK);
    assert_true(config.auth_mode_explicit);

    mir_config_user *users = config.auth.users;
    assert_int_equal(mir_config_set(&config, "auth.users", "[{user: z}, {bad: 1}]", &error),
                     MIR_E_INVALID);
    assert_ptr_equal(config.auth.users, users);
    assert_int_equal(mir_config_set(&config, "auth.users", "[", &error), MIR_E_INVALID);
    assert_int_equal(mir_config_set(&config, "auth.users", "", &error), MIR_E_INVALID);
    mir_config_free(&config);
}

static void a_broken_variable_is_named_and_one_for_devices_ignored(void **state)
{
    (void)state;
    const char *environment[] = {"MIR__LIMITS__MAX_PAYLOD=1", NULL};
    mir_config_options options = {.file = file_path, .environment = environment};
    mir_config config;
    mir_error error;
    write_bytes("", 0);
    assert_int_equal(mir_config_load(&config, &options, &error), MIR_E_INVALID);
    assert_string_equal(error.text, "MIR__LIMITS__MAX_PAYLOD: unknown key limits.max_paylod; did "
                                    "you mean limits.max_payload?");
    environment[0] = "MIR__DEVICE__ID=host";
    assert_int_equal(mir_config_load(&config, &options, &error), MIR_OK);
    mir_config_free(&config);
    environment[0] = "MIR__LOG_LEVEL=debug";
    assert_int_equal(mir_config_load(&config, &options, &error), MIR_OK);
    mir_config_free(&config);
    environment[0] = "MIR__LOG__LEVEL=x";
    assert_int_equal(mir_config_load(&config, &options, &error), MIR_E_INVALID);
    assert_non_null(strstr(error.text, "MIR__LOG__LEVEL: log.level: \"x\" is none of its values"));
}

static void everybody_may_connect_only_when_that_was_written_out(void **state)
{
    (void)state;
    refused("listen: 0.0.0.0:4222\n", "write out auth.mode: none if everybody may");
    refused("listen: \"[::]:4222\"\n", "can be reached by others");
    refused("http: {listen: \"0.0.0.0:8086\"}\n", "http.listen: 0.0.0.0 can be reached by others");
    mir_config config = loaded("listen: 0.0.0.0:4222\nauth: {mode: none}\n");
    assert_true(config.auth_mode_explicit);
    mir_config_free(&config);
    config = loaded("listen: 127.9.9.9:4222\n");
    mir_config_free(&config);
}

static void what_contradicts_itself_is_refused(void **state)
{
    (void)state;
    refused("limits: {max_pending: 4MiB}\n", "limits.max_pending (4194304 bytes) must be at least");
    refused("telemetry: {log_bytes_max: 4MiB}\n", "telemetry.log_bytes_max");
    refused("lame_duck: {duration: 5s}\n", "lame_duck.grace_period must not be longer");
    refused("auth: {mode: token}\n", "auth.token must be set");
    refused("auth: {token: a}\n", "write auth.mode: token");
    refused("auth: {users: [{user: a, password: b}]}\n", "write auth.mode: users");
    refused("auth: {mode: users}\n", "auth.users must name at least one");
    refused("auth: {mode: users, users: [{user: a}]}\n", "a has no password");
    refused("auth: {mode: users, users: [{user: a, password: b}], no_auth_user: c}\n",
            "c is not in auth.users");
    refused("auth: {no_auth_user: c}\n", "needs auth.mode: users");
    refused("auth: {mode: users, users: [{user: a, password: b}, {user: a, password: c}]}\n",
            "a is there twice");
    char text[300];
    (void)snprintf(text, sizeof text, "data: /%0200d\n", 1);
    refused(text, "the path of a unix socket has at most 107 bytes");
}

static void durations_add_up_and_carry_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t expected; /* -1: refused */
    } cases[] = {{"0", 0},
                 {"1ns", 1},
                 {"5us", 5000},
                 {"100ms", S / 10},
                 {"2m", 120 * S},
                 {"1h30m", 5400 * S},
                 {"1.5s", S + S / 2},
                 {"0.000000001s", 1},
                 {"106751d", INT64_C(106751) * 86400 * S},
                 {"106752d", -1},
                 {"99999999999999999999s", -1},
                 {"5", -1},
                 {"", -1},
                 {"s", -1},
                 {"1.s", -1},
                 {".5s", -1},
                 {"-1s", -1},
                 {"1 s", -1},
                 {"1s ", -1},
                 {"1sm", -1},
                 {"1S", -1},
                 {"1.0000000001s", -1},
                 {"00", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = -7;
        mir_status status = mir_config_parse_duration(cases[i].text, &value, NULL);
        if (status != (cases[i].expected < 0 ? MIR_E_INVALID : MIR_OK) ||
            value != (cases[i].expected < 0 ? -7 : cases[i].expected))
            fail_msg("%s gave %lld", cases[i].text, (long long)value);
    }
}

static void sizes_are_binary_or_decimal_as_written(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t expected;
    } cases[] = {{"0", 0},           {"4096", 4096},    {"10B", 10},
                 {"64KiB", 65536},   {"8MiB", 8 << 20}, {"8MB", 8000000},
                 {"1.5KiB", 1536},   {"1kB", 1000},     {"8388607TiB", INT64_C(8388607) << 40},
                 {"8388608TiB", -1}, {"8M", -1},        {"8mib", -1},
                 {"", -1},           {"B", -1},         {"1 MiB", -1},
                 {"-1", -1},         {"1KiB2B", -1},    {"9223372036854775808", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = -7;
        mir_status status = mir_config_parse_size(cases[i].text, &value, NULL);
        if (status != (cases[i].expected < 0 ? MIR_E_INVALID : MIR_OK) ||
            value != (cases[i].expected < 0 ? -7 : cases[i].expected))
            fail_msg("%s gave %lld", cases[i].text, (long long)value);
    }
}

static void addresses_are_numeric_with_a_port(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *host; /* null: refused */
        int port;
        bool ipv6;
        bool loopback;
    } cases[] = {{"127.0.0.1:0", "127.0.0.1", 0, false, true},
                 {"localhost:4222", "127.0.0.1", 4222, false, true},
                 {":4222", "0.0.0.0", 4222, false, false},
                 {"*:65535", "0.0.0.0", 65535, false, false},
                 {"10.0.0.1:1", "10.0.0.1", 1, false, false},
                 {"[::1]:4222", "::1", 4222, true, true},
                 {"[0:0::1]:4222", "::1", 4222, true, true},
                 {"[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1, true, true},
                 {"[fe80::1]:1", "fe80::1", 1, true, false},
                 {"127.0.0.1:65536", NULL, 0, false, false},
                 {"127.0.0.1:", NULL, 0, false, false},
                 {"127.0.0.1:-1", NULL, 0, false, false},
                 {"127.0.0.1:123456", NULL, 0, false, false},
                 {"4222", NULL, 0, false, false},
                 {"::1:4222", NULL, 0, false, false},
                 {"[]:1", NULL, 0, false, false},
                 {"[127.0.0.1]:1", NULL, 0, false, false},
                 {"example.org:1", NULL, 0, false, false},
                 {"", NULL, 0, false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mir_config_listen listen;
        mir_error error;
        mir_status status = mir_config_parse_listen(cases[i].text, &listen, &error);
        if (cases[i].host == NULL) {
            if (status != MIR_E_INVALID) fail_msg("%s was accepted", cases[i].text);
            continue;
        }
        if (status != MIR_OK) fail_msg("%s: %s", cases[i].text, error.text);
        assert_string_equal(listen.host, cases[i].host);
        assert_int_equal(listen.port, cases[i].port);
        assert_int_equal(listen.ipv6, cases[i].ipv6);
        assert_int_equal(listen.loopback, cases[i].loopback);
    }
}

static void an_address_may_be_off_where_nothing_needs_it(void **state)
{
    (void)state;
    mir_config config = loaded("http: {listen: 127.0.0.1:8086}\n");
    assert_string_equal(config.http.listen.host, "127.0.0.1");
    assert_int_equal(config.http.listen.port, 8086);
    mir_error error;
    assert_int_equal(mir_config_set(&config, "http.listen", "off", &error), MIR_OK);
    assert_string_equal(config.http.listen.host, "");
    mir_config_free(&config);
    refused("listen: off\n", "listen: ");
    refused("http: {listen: on}\n", "expected off, or ADDRESS:PORT");
}

static int prepare(void **state)
{
    (void)state;
    int fd = mkstemp(file_path);
    if (fd < 0) return -1;
    (void)close(fd);
    (void)unsetenv("XDG_CONFIG_HOME");
    return setenv("MIR_DATA", "/srv/mir", 1);
}

static int clean(void **state)
{
    (void)state;
    return unlink(file_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_file_gives_the_defaults),
        cmocka_unit_test(a_file_sets_what_it_names_and_nothing_else),
        cmocka_unit_test(later_sources_win),
        cmocka_unit_test(the_user_file_is_found_and_config_replaces_it),
        cmocka_unit_test(a_named_file_must_exist),
        cmocka_unit_test(the_printed_defaults_read_back_as_the_defaults),
        cmocka_unit_test(unknown_keys_are_refused_with_the_nearest),
        cmocka_unit_test(bad_values_are_refused_with_the_accepted_ones),
        cmocka_unit_test(a_key_that_is_there_twice_is_refused),
        cmocka_unit_test(text_that_is_not_one_document_is_refused),
        cmocka_unit_test(aliases_cannot_make_a_config_of_any_size),
        cmocka_unit_test(users_are_read_with_their_permissions),
        cmocka_unit_test(broken_users_are_refused_where_they_stand),
        cmocka_unit_test(what_is_forwarded_has_rules),
        cmocka_unit_test(retention_is_a_time_for_each_reason),
        cmocka_unit_test(telemetry_is_kept_by_rules),
        cmocka_unit_test(settings_take_flow_values_and_plain_text),
        cmocka_unit_test(a_broken_variable_is_named_and_one_for_devices_ignored),
        cmocka_unit_test(everybody_may_connect_only_when_that_was_written_out),
        cmocka_unit_test(what_contradicts_itself_is_refused),
        cmocka_unit_test(durations_add_up_and_carry_units),
        cmocka_unit_test(sizes_are_binary_or_decimal_as_written),
        cmocka_unit_test(addresses_are_numeric_with_a_port),
        cmocka_unit_test(an_address_may_be_off_where_nothing_needs_it),
    };
    return cmocka_run_group_tests(tests, prepare, clean);
}
