/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_http_request.h"
#include "mir_influxql.h"

static void take(mir_http_request *request, const char *name, const char *value)
{
    mir_http_request_take(request, name, value, strlen(value), 0);
}

static void is(mir_view view, const char *text)
{
    assert_int_equal(view.size, strlen(text));
    if (view.size != 0) assert_memory_equal(view.data, text, view.size);
}

/* Forms come as the network cuts them: a value may be there in two parts or more. */
static void values_are_taken_in_pieces(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
    } sent[] = {{"q", "SELECT 1"}, {"db", "mir"},       {"u", "ann"},           {"p", "secret"},
                {"epoch", "ms"},   {"chunked", "true"}, {"chunk_size", "1234"}, {"pretty", "true"}};
    for (size_t cut = 0; cut <= 8; cut++) {
        mir_http_request r = {0};
        for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++) {
            const size_t size = strlen(sent[i].value);
            const size_t first = cut < size ? cut : size;
            mir_http_request_take(&r, sent[i].name, sent[i].value, first, 0);
            mir_http_request_take(&r, sent[i].name, sent[i].value + first, size - first, first);
        }
        int64_t epoch_ns = 0;
        is(mir_bytes_as_view(&r.query), "SELECT 1");
        is(mir_bytes_as_view(&r.database), "mir");
        is(mir_http_request_credentials(&r).user, "ann");
        is(mir_http_request_credentials(&r).password, "secret");
        assert_true(mir_http_request_epoch(&r, &epoch_ns));
        assert_int_equal(epoch_ns, MIR_NS_PER_MS);
        assert_int_equal(mir_http_request_chunk_rows(&r), 1234);
        assert_true(mir_http_request_pretty(&r));
        assert_false(r.too_large);
        mir_http_request_free(&r);
    }
}

static void the_last_value_of_a_name_counts_and_unknown_names_do_not(void **state)
{
    (void)state;
    mir_http_request r = {0};
    take(&r, "q", "a long first one");
    take(&r, "q", "second");
    take(&r, "Q", "third");
    take(&r, "", "fourth");
    mir_http_request_take(&r, "q", NULL, 0, 0);
    mir_http_request_take(&r, NULL, "fifth", 5, 0);
    is(mir_bytes_as_view(&r.query), "second");
    mir_http_request_free(&r);
}

static void values_have_bounds(void **state)
{
    (void)state;
    char *large = malloc(MIR_INFLUXQL_BYTES_MAX);
    assert_non_null(large);
    memset(large, 'x', MIR_INFLUXQL_BYTES_MAX);
    mir_http_request r = {0};
    mir_http_request_take(&r, "q", large, MIR_INFLUXQL_BYTES_MAX, 0);
    mir_http_request_take(&r, "db", large, MIR_HTTP_PARAMETER_BYTES_MAX, 0);
    assert_false(r.too_large);
    mir_http_request_take(&r, "db", large, 1, MIR_HTTP_PARAMETER_BYTES_MAX);
    assert_true(r.too_large);
    mir_http_request_free(&r);
    mir_http_request_take(&r, "q", large, MIR_INFLUXQL_BYTES_MAX, 0);
    mir_http_request_take(&r, "q", large, 1, MIR_INFLUXQL_BYTES_MAX);
    assert_true(r.too_large);
    /* Nothing makes it good again. */
    take(&r, "q", "SELECT 1");
    assert_true(r.too_large);
    mir_http_request_free(&r);
    free(large);
}

static void answers_are_in_parts_of_as_many_rows_as_was_said(void **state)
{
    (void)state;
    static const struct {
        const char *chunked, *size;
        uint64_t rows;
    } cases[] = {
        {"", "", 0},
        {"false", "10", 0},
        {"true", "", MIR_HTTP_CHUNK_ROWS},
        {"true", "0", MIR_HTTP_CHUNK_ROWS},
        {"true", "-5", MIR_HTTP_CHUNK_ROWS},
        {"true", "many", MIR_HTTP_CHUNK_ROWS},
        {"true", "7", 7},
        {"true", "4294967295", UINT32_MAX},
        {"true", "99999999999999999999999999", UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mir_http_request r = {0};
        take(&r, "chunked", cases[i].chunked);
        take(&r, "chunk_size", cases[i].size);
        assert_int_equal(mir_http_request_chunk_rows(&r), cases[i].rows);
        mir_http_request_free(&r);
    }
}

static void times_are_numbers_of_units_that_there_are(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"", 0},
                 {"rfc3339", 0},
                 {"ns", 1},
                 {"\xc2\xb5", 1000},
                 {"us", 1000},
                 {"ms", 1000000},
                 {"h", INT64_C(3600000000000)}};
    mir_http_request r = {0};
    int64_t ns = -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        take(&r, "epoch", units[i].name);
        assert_true(mir_http_request_epoch(&r, &ns));
        assert_int_equal(ns, units[i].ns);
    }
    take(&r, "epoch", "d");
    assert_false(mir_http_request_epoch(&r, &ns));
    mir_http_request_take(&r, "epoch", "s\0", 2, 0);
    assert_false(mir_http_request_epoch(&r, &ns));
    mir_http_request_free(&r);
}

static void who_asks_is_in_the_header_or_in_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *header, *user, *password, *token;
    } cases[] = {
        {NULL, "u", "p", "p"},
        {"Basic YW5uOnNlY3JldA==", "ann", "secret", "secret"},
        {"basic  YW5uOmE6Yg==", "ann", "a:b", "a:b"},
        {"Basic Og==", "", "", ""},
        {"Token ann:secret", "ann", "secret", "ann:secret"},
        {"Token abc", "u", "p", "abc"},
        {"Bearer abc", "u", "p", "abc"},
        {"Bearer ann:secret", "u", "p", "ann:secret"},
        /* These say nothing. */
        {"", "u", "p", "p"},
        {"Basic", "u", "p", "p"},
        {"Basic !!!!", "u", "p", "p"},
        {"Basic YW5u", "u", "p", "p"},
        {"BasicYW5uOnNlY3JldA==", "u", "p", "p"},
        {"Digest username=ann", "u", "p", "p"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mir_http_request r = {0};
        take(&r, "u", "u");
        take(&r, "p", "p");
        mir_http_request_authorize(&r, cases[i].header);
        const mir_credentials who = mir_http_request_credentials(&r);
        is(who.user, cases[i].user);
        is(who.password, cases[i].password);
        is(who.token, cases[i].token);
        mir_http_request_free(&r);
    }
}

static void a_header_that_is_too_long_says_nothing(void **state)
{
    (void)state;
    char header[MIR_HTTP_PARAMETER_BYTES_MAX + 2];
    memset(header, 'x', sizeof header);
    memcpy(header, "Bearer ", 7);
    header[sizeof header - 1] = '\0';
    mir_http_request r = {0};
    mir_http_request_authorize(&r, header);
    assert_int_equal(r.token.size, 0);
    header[sizeof header - 2] = '\0';
    mir_http_request_authorize(&r, header);
    assert_int_equal(r.token.size, MIR_HTTP_PARAMETER_BYTES_MAX - 7);
    assert_false(r.too_large);
    mir_http_request_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_taken_in_pieces),
        cmocka_unit_test(the_last_value_of_a_name_counts_and_unknown_names_do_not),
        cmocka_unit_test(values_have_bounds),
        cmocka_unit_test(answers_are_in_parts_of_as_many_rows_as_was_said),
        cmocka_unit_test(times_are_numbers_of_units_that_there_are),
        cmocka_unit_test(who_asks_is_in_the_header_or_in_parameters),
        cmocka_unit_test(a_header_that_is_too_long_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
