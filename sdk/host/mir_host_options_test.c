/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_host_options.h"

static mir_host_options options;
static mir_error error;

static mir_status parse(const char *const *words)
{
    char *argv[16] = {(char *)"mir-host"};
    int argc = 1;
    while (words[argc - 1] != NULL) {
        argv[argc] = (char *)words[argc - 1];
        argc++;
    }
    memset(&error, 0, sizeof error);
    return mir_host_options_parse(argc, argv, &options, &error);
}
#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static int clear_environment(void **state)
{
    (void)state;
    (void)unsetenv("MIR__DEVICE__ID");
    (void)unsetenv("MIR__TARGET");
    (void)unsetenv("MIR_TARGET");
    (void)unsetenv("MIR__LOG_LEVEL");
    (void)unsetenv("MIR__LOCAL_STORE__FOLDER_PATH");
    return 0;
}

static void defaults(void **state)
{
    (void)state;
    assert_int_equal(PARSE(NULL), MIR_OK);
    assert_string_equal(options.id, "host");
    assert_string_equal(options.target, "nats://127.0.0.1:4222");
    assert_int_equal(options.interval_ns, MIR_NS_PER_S);
    assert_int_equal(options.action, MIR_HOST_RUN);
    assert_false(options.once);
}

static void flags_with_and_without_equals(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--id", "rack-3", "--target=nats://a:1", "--interval=2m", "--once"),
                     MIR_OK);
    assert_string_equal(options.id, "rack-3");
    assert_string_equal(options.target, "nats://a:1");
    assert_int_equal(options.interval_ns, 120 * MIR_NS_PER_S);
    assert_true(options.once);
}

static void flags_beat_the_environment(void **state)
{
    (void)state;
    (void)setenv("MIR__DEVICE__ID", "from-env", 1);
    (void)setenv("MIR__TARGET", "nats://env:1", 1);
    assert_int_equal(PARSE("--id", "flag"), MIR_OK);
    assert_string_equal(options.id, "flag");
    assert_string_equal(options.target, "nats://env:1");
    (void)setenv("MIR_TARGET", "nats://cli:1", 1);
    assert_int_equal(PARSE("--id", "flag"), MIR_OK);
    assert_string_equal(options.target, "nats://env:1");
    (void)unsetenv("MIR__TARGET");
    assert_int_equal(PARSE("--id", "flag"), MIR_OK);
    assert_string_equal(options.target, "nats://cli:1");
}

static void wrong_usage_is_told(void **state)
{
    (void)state;
    options.id = "untouched";
    assert_int_equal(PARSE("--intervall", "1s"), MIR_E_INVALID);
    assert_string_equal(error.text, "unknown option '--intervall'");
    assert_int_equal(PARSE("--id"), MIR_E_INVALID);
    assert_string_equal(error.text, "--id needs a value");
    assert_int_equal(PARSE("--interval", "5"), MIR_E_INVALID);
    assert_non_null(strstr(error.text, "--interval takes a duration"));
    assert_int_equal(PARSE("--interval", "10ms"), MIR_E_INVALID);
    assert_int_equal(PARSE("--interval", "2h"), MIR_E_INVALID);
    assert_int_equal(PARSE("--log-level", "loud"), MIR_E_INVALID);
    assert_int_equal(PARSE("stray"), MIR_E_INVALID);
    assert_int_equal(PARSE("--"), MIR_E_INVALID);
    assert_string_equal(options.id, "untouched");
}

static void durations(void **state)
{
    (void)state;
    int64_t ns;
    assert_int_equal(mir_host_duration_parse("500ms", &ns), MIR_OK);
    assert_int_equal(ns, 500 * MIR_NS_PER_MS);
    assert_int_equal(mir_host_duration_parse("1h", &ns), MIR_OK);
    assert_int_equal(ns, 3600 * MIR_NS_PER_S);
    const char *const bad[] = {"", "s", "-1s", "1", "1 s", "1S", "99999999999999999999s", "1s "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(mir_host_duration_parse(bad[i], &ns), MIR_E_INVALID);
}

static void the_state_directory(void **state)
{
    (void)state;
    char path[MIR_PATH_BYTES_MAX];
    assert_int_equal(PARSE(NULL), MIR_OK);
    assert_null(options.state_dir);
    assert_int_equal(PARSE("--state", "/var/lib/host"), MIR_OK);
    assert_string_equal(options.state_dir, "/var/lib/host");
    assert_int_equal(PARSE("--state="), MIR_E_INVALID);
    (void)setenv("MIR__LOCAL_STORE__FOLDER_PATH", "/srv/mir", 1);
    assert_int_equal(PARSE(NULL), MIR_OK);
    assert_string_equal(options.state_dir, "/srv/mir");

    (void)setenv("XDG_STATE_HOME", "/state", 1);
    (void)setenv("HOME", "/home/a", 1);
    assert_int_equal(mir_host_default_state_dir(path), MIR_OK);
    assert_string_equal(path, "/state/mir-host");
    (void)setenv("XDG_STATE_HOME", "relative", 1);
    assert_int_equal(mir_host_default_state_dir(path), MIR_OK);
    assert_string_equal(path, "/home/a/.local/state/mir-host");
    (void)unsetenv("XDG_STATE_HOME");
    (void)unsetenv("HOME");
    assert_int_equal(mir_host_default_state_dir(path), MIR_E_NOT_FOUND);
}

static void help_and_version(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--help"), MIR_OK);
    assert_int_equal(options.action, MIR_HOST_HELP);
    assert_int_equal(PARSE("--version"), MIR_OK);
    assert_int_equal(options.action, MIR_HOST_VERSION);
    assert_non_null(strstr(mir_host_help, "Examples:"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults, clear_environment),
        cmocka_unit_test_setup(flags_with_and_without_equals, clear_environment),
        cmocka_unit_test_setup(flags_beat_the_environment, clear_environment),
        cmocka_unit_test_setup(wrong_usage_is_told, clear_environment),
        cmocka_unit_test(durations),
        cmocka_unit_test_setup(the_state_directory, clear_environment),
        cmocka_unit_test_setup(help_and_version, clear_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
