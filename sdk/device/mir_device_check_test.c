/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "mir_device.h"
#include "mir_device_check.h"

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static void ids(void **state)
{
    (void)state;
    const char *const good[] = {"host",         "pump-7", "a",      "0xcafe",
                                "plant/pump_7", "Gerät",  "devices"};
    const char *const bad[] = {NULL,  "",       "a.b",    "*",     "a>",     "a b",  "a\tb",
                               "a\n", "client", "device", "event", "_INBOX", "a\x7f"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(mir_device_check_id(good[i], NULL), MIR_OK);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(mir_device_check_id(bad[i], NULL), MIR_E_INVALID);
    char longest[MIR_DEVICE_ID_BYTES_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[MIR_DEVICE_ID_BYTES_MAX] = '\0';
    assert_int_equal(mir_device_check_id(longest, NULL), MIR_OK);
    longest[MIR_DEVICE_ID_BYTES_MAX] = 'a';
    longest[MIR_DEVICE_ID_BYTES_MAX + 1] = '\0';
    assert_int_equal(mir_device_check_id(longest, NULL), MIR_E_INVALID);
}

static void targets(void **state)
{
    (void)state;
    const char *const good[] = {"nats://127.0.0.1:4222",      "nats://localhost",
                                "tls://mir.example.org:4443", "nats://user:pa:ss@host:1",
                                "nats://[::1]:4222",          "nats://[::1]",
                                "nats://a:1,nats://b:2"};
    const char *const bad[] = {"",           "localhost:4222",  "nats://",        "nats://:4222",
                               "nats://a:",  "nats://a:0",      "nats://a:65536", "nats://a:4x",
                               "nats://a b", "http://a",        "nats://a:1,",    "nats://[::1",
                               "nats://[]",  "nats://[::1]x:1", "nats://u:p@",    "nats://u:p@:1"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(mir_device_check_target(good[i], NULL), MIR_OK);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(mir_device_check_target(bad[i], NULL), MIR_E_INVALID);
}

static void a_bad_target_keeps_its_secret(void **state)
{
    (void)state;
    mir_error error;
    assert_int_equal(mir_device_check_target("nats://user:hidden@host:bad", &error), MIR_E_INVALID);
    assert_null(strstr(error.text, "hidden"));
    assert_non_null(strstr(error.text, "@host:bad"));
}

static void routes(void **state)
{
    (void)state;
    const char *const good[] = {"a.v1.f", "meter.v1alpha.read.more.tokens"};
    const char *const bad[] = {NULL,     "",       "a",     "a.b",   "a..b",
                               ".a.b.c", "a.b.c.", "a.b.*", "a.>.c", "a.b c.d"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(mir_device_check_route(good[i], NULL), MIR_OK);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(mir_device_check_route(bad[i], NULL), MIR_E_INVALID);
}

static void headers(void **state)
{
    (void)state;
    assert_int_equal(mir_device_check_header("x-unit", "any: thing", NULL), MIR_OK);
    assert_int_equal(mir_device_check_header("x", "", NULL), MIR_OK);
    assert_int_equal(mir_device_check_header("", "v", NULL), MIR_E_INVALID);
    assert_int_equal(mir_device_check_header("a:b", "v", NULL), MIR_E_INVALID);
    assert_int_equal(mir_device_check_header("a b", "v", NULL), MIR_E_INVALID);
    assert_int_equal(mir_device_check_header("a", "v\r\nmir-msg: x", NULL), MIR_E_INVALID);
    assert_int_equal(mir_device_check_header(NULL, "v", NULL), MIR_E_INVALID);
    assert_int_equal(mir_device_check_header("a", NULL, NULL), MIR_E_INVALID);
}

static void message_names(void **state)
{
    (void)state;
    const char *const good[] = {"pump.v1.Flow", "Flow", "_a.b2"};
    const char *const bad[] = {NULL,   "",    ".pump.Flow", "pump.", "a..b",
                               "a.2b", "a b", "a\n",        "a-b"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(mir_device_check_message_name(good[i], NULL), MIR_OK);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(mir_device_check_message_name(bad[i], NULL), MIR_E_INVALID);
}

static void create_tells_every_problem_at_once(void **state)
{
    (void)state;
    mir_device_options options = {.id = "a.b",
                                  .target = "nowhere",
                                  .user = "u",
                                  .token = "t",
                                  .credentials_file = "/does/not/exist",
                                  .heartbeat_ns = 5};
    mir_device *device = NULL;
    mir_error error = {{0}};
    assert_int_equal(mir_device_create(&options, &device, &error), MIR_E_INVALID);
    assert_null(device);
    assert_non_null(strstr(error.text, "device id"));
    assert_non_null(strstr(error.text, "no target"));
    assert_non_null(strstr(error.text, "not several"));
    assert_non_null(strstr(error.text, "/does/not/exist"));
    assert_non_null(strstr(error.text, "heartbeat"));
}

static void create_refuses_storage_that_it_does_not_have(void **state)
{
    (void)state;
    mir_device *device = NULL;
    mir_error error = {{0}};
    const mir_device_options offline = {.id = "a", .persistence = MIR_DEVICE_PERSIST_IFOFFLINE};
    assert_int_equal(mir_device_create(&offline, &device, &error), MIR_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "nostorage"));
    const mir_device_options always = {.id = "a", .persistence = MIR_DEVICE_PERSIST_ALWAYS};
    assert_int_equal(mir_device_create(&always, &device, &error), MIR_E_UNSUPPORTED);
    const mir_device_options none = {.id = "a", .persistence = MIR_DEVICE_PERSIST_NOSTORAGE};
    assert_int_equal(mir_device_create(&none, &device, &error), MIR_OK);
    mir_device_destroy(device);
}

static void a_device_that_was_not_launched_sends_nothing(void **state)
{
    (void)state;
    mir_device *device = NULL;
    mir_error error = {{0}};
    const mir_device_options options = {.id = "a"};
    assert_int_equal(mir_device_create(&options, &device, &error), MIR_OK);
    mir_view nothing = {NULL, 0};
    assert_int_equal(mir_device_send_custom(device, "a.v1.f", NULL, 0, nothing, &error),
                     MIR_E_CLOSED);
    assert_int_equal(mir_device_send_telemetry_raw(device, "no.v1.Such", nothing, &error),
                     MIR_E_NOT_FOUND);
    assert_int_equal(mir_device_await_ready(device, 0), MIR_E_CLOSED);
    assert_false(mir_device_is_connected(device));
    mir_device_close(device);
    assert_int_equal(mir_device_launch(device, &error), MIR_E_EXISTS);
    mir_device_destroy(device);
}

static void what_is_not_utf8_is_replaced(void **state)
{
    (void)state;
    const char *const cases[][2] = {
        {"", ""},
        {"plain", "plain"},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"cut \xc3", "cut ?"},
        {"cut \xf0\x9f\x98", "cut ???"},
        {"\xc3(", "?("},
        {"\x80\xbf", "??"},
        {"\xc0\x80", "??"}, /* longer than need be */
        {"\xe0\x9f\xbf", "???"},
        {"\xed\xa0\x80", "???"},      /* a surrogate */
        {"\xf4\x90\x80\x80", "????"}, /* beyond Unicode */
        {"\xf8\x88\x80\x80\x80", "?????"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "%s", cases[i][0]);
        mir_device_make_utf8(text);
        assert_string_equal(text, cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),
        cmocka_unit_test(targets),
        cmocka_unit_test(a_bad_target_keeps_its_secret),
        cmocka_unit_test(routes),
        cmocka_unit_test(headers),
        cmocka_unit_test(message_names),
        cmocka_unit_test(create_tells_every_problem_at_once),
        cmocka_unit_test(create_refuses_storage_that_it_does_not_have),
        cmocka_unit_test(a_device_that_was_not_launched_sends_nothing),
        cmocka_unit_test(what_is_not_utf8_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
