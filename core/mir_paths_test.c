/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_paths.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void the_data_directory_follows_the_environment(void **state)
{
    (void)state;
    char path[MIR_PATH_BYTES_MAX];
    setenv("MIR_DATA", "/srv/mir", 1);
    assert_int_equal(mir_paths_data_dir(path), MIR_OK);
    assert_string_equal(path, "/srv/mir");
    assert_int_equal(mir_paths_admin_socket(NULL, path), MIR_OK);
    assert_string_equal(path, "/srv/mir/admin.sock");
    assert_int_equal(mir_paths_admin_socket("/elsewhere", path), MIR_OK);
    assert_string_equal(path, "/elsewhere/admin.sock");

    unsetenv("MIR_DATA");
    setenv("XDG_DATA_HOME", "/x", 1);
    assert_int_equal(mir_paths_data_dir(path), MIR_OK);
    assert_string_equal(path, geteuid() == 0 ? "/var/lib/mir" : "/x/mir");
}

static void a_relative_xdg_directory_is_ignored(void **state)
{
    (void)state;
    char path[MIR_PATH_BYTES_MAX];
    setenv("HOME", "/home/ada", 1);
    setenv("XDG_CONFIG_HOME", "relative", 1);
    assert_int_equal(mir_paths_config_file("cli.yaml", path), MIR_OK);
    assert_string_equal(path, "/home/ada/.config/mir/cli.yaml");
    setenv("XDG_CONFIG_HOME", "/etc/ada", 1);
    assert_int_equal(mir_paths_config_file("cli.yaml", path), MIR_OK);
    assert_string_equal(path, "/etc/ada/mir/cli.yaml");
}

static void a_path_too_long_is_refused_and_leaves_the_buffer(void **state)
{
    (void)state;
    char path[MIR_PATH_BYTES_MAX] = "untouched";
    char *longest = malloc(MIR_PATH_BYTES_MAX + 1);
    assert_non_null(longest);
    memset(longest, 'a', MIR_PATH_BYTES_MAX);
    longest[0] = '/';
    longest[MIR_PATH_BYTES_MAX] = '\0';
    assert_int_equal(mir_paths_admin_socket(longest, path), MIR_E_TOO_LARGE);
    assert_string_equal(path, "untouched");
    free(longest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_data_directory_follows_the_environment),
        cmocka_unit_test(a_relative_xdg_directory_is_ignored),
        cmocka_unit_test(a_path_too_long_is_refused_and_leaves_the_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
