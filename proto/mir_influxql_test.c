/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_influxql.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mir_bytes.h"

static const int64_t now_ns = INT64_C(1700000000000000000);

typedef struct parsed {
    mir_arena arena;
    mir_influxql_query query;
    mir_error error;
    mir_status status;
} parsed;

static parsed parse(const char *text)
{
    parsed made = {0};
    made.status =
        mir_influxql_parse(mir_view_cstr(text), now_ns, &made.arena, &made.query, &made.error);
    return made;
}

/* --- trees as texts -------------------------------------------------------------------------- */

static void write_expression(mir_bytes *out, const mir_influxql_expression *term)
{
    switch (term->kind) {
    case MIR_INFLUXQL_INTEGER: mir_bytes_printf(out, "%lld", (long long)term->integer); break;
    case MIR_INFLUXQL_NUMBER: mir_bytes_printf(out, "%g", term->number); break;
    case MIR_INFLUXQL_NAME:
        mir_bytes_printf(out, "%s%.*s",
                         term->cast == MIR_INFLUXQL_AS_TAG     ? "tag:"
                         : term->cast == MIR_INFLUXQL_AS_FIELD ? "field:"
                                                               : "",
                         MIR_VIEW_ARGS(term->name));
        break;
    case MIR_INFLUXQL_ALL: mir_bytes_text(out, "*"); break;
    case MIR_INFLUXQL_CALL:
        mir_bytes_printf(out, "%s[", mir_influxql_function_name(term->function));
        write_expression(out, term->left);
        if (term->number != 0) mir_bytes_printf(out, " %g", term->number);
        if (term->unit_ns != 0) mir_bytes_printf(out, " %lldns", (long long)term->unit_ns);
        mir_bytes_text(out, "]");
        break;
    case MIR_INFLUXQL_SIGN:
        mir_bytes_text(out, "(");
        write_expression(out, term->left);
        mir_bytes_u8(out, (uint8_t)term->sign);
        write_expression(out, term->right);
        mir_bytes_text(out, ")");
        break;
    }
}

static void write_condition(mir_bytes *out, const mir_influxql_condition *condition)
{
    static const char *const compares[] = {"", "=", "!=", "=~", "!~"};
    if (condition->kind == MIR_INFLUXQL_TAG) {
        mir_bytes_printf(out, "%.*s%s%.*s", MIR_VIEW_ARGS(condition->key),
                         compares[condition->compare], MIR_VIEW_ARGS(condition->value));
        return;
    }
    assert_true(condition->kind == MIR_INFLUXQL_AND || condition->kind == MIR_INFLUXQL_OR);
    mir_bytes_u8(out, '(');
    for (const mir_influxql_condition *c = condition->first; c != NULL; c = c->next) {
        if (c != condition->first)
            mir_bytes_text(out, condition->kind == MIR_INFLUXQL_AND ? " & " : " | ");
        write_condition(out, c);
    }
    mir_bytes_u8(out, ')');
}

static void write_name(mir_bytes *out, const mir_influxql_name *name)
{
    mir_bytes_printf(out, name->is_pattern ? "/%.*s/" : "%.*s", MIR_VIEW_ARGS(name->text));
}

static void write_statement(mir_bytes *out, const mir_influxql_statement *s)
{
    static const char *const kinds[] = {"",         "select",       "databases",
                                        "policies", "measurements", "field keys",
                                        "tag keys", "tag values",   "series"};
    static const char *const compares[] = {"", "=", "!=", "=~", "!~"};
    mir_bytes_text(out, kinds[s->kind]);
    for (uint32_t i = 0; i < s->field_count; i++) {
        mir_bytes_text(out, i == 0 ? " " : ",");
        write_expression(out, s->fields[i].expression);
        if (s->fields[i].alias.size != 0)
            mir_bytes_printf(out, " as %.*s", MIR_VIEW_ARGS(s->fields[i].alias));
    }
    if (s->database.size != 0) mir_bytes_printf(out, " on %.*s", MIR_VIEW_ARGS(s->database));
    for (uint32_t i = 0; i < s->source_count; i++) {
        const mir_influxql_source *source = &s->sources[i];
        mir_bytes_text(out, i == 0 ? " from " : ",");
        if (source->database.size != 0)
            mir_bytes_printf(out, "%.*s>", MIR_VIEW_ARGS(source->database));
        if (source->policy.size != 0) mir_bytes_printf(out, "%.*s>", MIR_VIEW_ARGS(source->policy));
        write_name(out, &source->name);
    }
    for (uint32_t i = 0; i < s->key_count; i++)
        mir_bytes_printf(out, "%s%.*s", i == 0 ? compares[s->key_compare] : ",",
                         MIR_VIEW_ARGS(s->keys[i]));
    if (s->condition != NULL) {
        mir_bytes_text(out, " where ");
        write_condition(out, s->condition);
    }
    if (s->from_ns != INT64_MIN) mir_bytes_printf(out, " from %lld", (long long)s->from_ns);
    if (s->to_ns != INT64_MAX) mir_bytes_printf(out, " to %lld", (long long)s->to_ns);
    if (s->window_ns != 0) mir_bytes_printf(out, " every %llu", (unsigned long long)s->window_ns);
    if (s->window_from_ns != 0) mir_bytes_printf(out, " + %lld", (long long)s->window_from_ns);
    for (uint32_t i = 0; i < s->dimension_count; i++) {
        mir_bytes_text(out, i == 0 ? " by " : ",");
        write_name(out, &s->dimensions[i]);
    }
    if (s->group_by_all) mir_bytes_text(out, " by *");
    static const char *const fills[] = {"", " none", " previous", " linear", " number"};
    mir_bytes_text(out, fills[s->fill]);
    if (s->fill == MIR_INFLUXQL_FILL_NUMBER) mir_bytes_printf(out, " %g", s->fill_number);
    if (s->descending) mir_bytes_text(out, " desc");
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {{"limit", s->limit},
                  {"offset", s->offset},
                  {"slimit", s->series_limit},
                  {"soffset", s->series_offset}};
    for (size_t i = 0; i < 4; i++)
        if (counts[i].value != 0)
            mir_bytes_printf(out, " %s %llu", counts[i].name, (unsigned long long)counts[i].value);
    if (s->row_by_row) mir_bytes_text(out, " row by row");
    if (s->aggregates) mir_bytes_text(out, " aggregates");
}

typedef struct reading {
    const char *text;
    const char *tree;
} reading;

static void check(const reading *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        parsed made = parse(cases[i].text);
        if (made.status != MIR_OK) fail_msg("%s: %s", cases[i].text, made.error.text);
        mir_bytes tree = {0};
        for (uint32_t s = 0; s < made.query.statement_count; s++) {
            if (s != 0) mir_bytes_text(&tree, "; ");
            write_statement(&tree, &made.query.statements[s]);
        }
        mir_bytes_u8(&tree, 0);
        if (strcmp((const char *)tree.data, cases[i].tree) != 0)
            fail_msg("%s\nis   %s\nwant %s", cases[i].text, tree.data, cases[i].tree);
        mir_bytes_free(&tree);
        mir_arena_free(&made.arena);
    }
}

#define CHECK(cases) check(cases, sizeof(cases) / sizeof(cases)[0])

static void listings_are_read(void **state)
{
    (void)state;
    static const reading cases[] = {
        {"SHOW DATABASES", "databases"},
        {"show retention policies on \"mir\"", "policies on mir"},
        {"SHOW RETENTION POLICIES", "policies"},
        {"SHOW MEASUREMENTS LIMIT 100", "measurements limit 100"},
        {"SHOW MEASUREMENTS ON \"mir\" WITH MEASUREMENT =~ /(?i)env/ LIMIT 5 OFFSET 2",
         "measurements on mir from /(?i)env/ limit 5 offset 2"},
        {"SHOW MEASUREMENTS WITH MEASUREMENT = \"a.v1.B\" WHERE \"site\" = 'x'",
         "measurements from a.v1.B where site=x"},
        {"SHOW FIELD KEYS FROM \"autogen\".\"a.v1.B\"", "field keys from autogen>a.v1.B"},
        {"SHOW FIELD KEYS", "field keys"},
        {"SHOW TAG KEYS FROM /^a/ WHERE \"site\" !~ /x\\/y/", "tag keys from /^a/ where site!~x/y"},
        {"SHOW TAG VALUES FROM \"m\" WITH KEY = \"__name\"", "tag values from m=__name"},
        {"SHOW TAG VALUES WITH KEY IN (\"a\", b) WHERE time > now() - 1h",
         "tag values=a,b from 1699996400000000001"},
        {"SHOW TAG VALUES WITH KEY !~ /__.*/", "tag values!~__.*"},
        {"SHOW SERIES FROM \"m\" WHERE a = '' LIMIT 3", "series from m where a= limit 3"},
        {" SHOW DATABASES ; -- both\n /* of */ SHOW SERIES;;", "databases; series"},
    };
    CHECK(cases);
}

static void selections_are_read(void **state)
{
    (void)state;
    static const reading cases[] = {
        /* As the query builder writes them. */
        {"SELECT mean(\"temperature\") FROM \"bench.v1.Env\" WHERE (\"__name\"::tag =~ /^pump.*$/) "
         "AND time >= 1700000000000ms and time <= 1700003600000ms GROUP BY time(10s), "
         "\"__name\"::tag fill(null) ORDER BY time ASC",
         "select mean[temperature] from bench.v1.Env where __name=~^pump.*$ from "
         "1700000000000000000 to 1700003600000000000 every 10000000000 by __name aggregates"},
        {"SELECT * FROM \"m\"", "select * from m"},
        {"SELECT \"a\", b::field, \"__name\"::tag AS \"n\" FROM m, \"x\".\"y\".\"z\", d..e LIMIT 1 "
         "OFFSET 2 SLIMIT 3 SOFFSET 4",
         "select a,field:b,tag:__name as n from m,x>y>z,d>e limit 1 offset 2 slimit 3 soffset 4"},
        {"SELECT percentile(\"v\", 99.9) / 2 + -1 * (max(v) - min(v)) FROM m",
         "select ((percentile[v 99.9]/2)+((-1*1)*(max[v]-min[v]))) from m aggregates"},
        {"SELECT non_negative_derivative(mean(\"v\"), 1s) AS rate FROM m GROUP BY time(1m, -30s), "
         "* "
         "FILL(previous)",
         "select non_negative_derivative[mean[v] 1000000000ns] as rate from m every 60000000000 + "
         "30000000000 by * previous row by row aggregates"},
        {"SELECT difference(v) FROM m", "select difference[v] from m row by row"},
        {"SELECT moving_average(mean(v), 3) FROM m GROUP BY time(1s) fill(-1.5)",
         "select moving_average[mean[v] 3] from m every 1000000000 number -1.5 row by row "
         "aggregates"},
        {"SELECT MEAN(*), count(v) FROM /^a.*\\/b$/ GROUP BY /^l/ fill(linear) ORDER BY time DESC "
         "tz('UTC')",
         "select mean[*],count[v] from /^a.*/b$/ by /^l/ linear desc aggregates"},
        {"SELECT v FROM m WHERE a = 'x' AND (b != 'y' OR c <> 'z' OR (d =~ /q/ AND e !~ /r/)) AND "
         "time < '2023-11-14T22:13:20Z' AND time >= '2023-11-14'",
         "select v from m where (a=x & (b!=y | c!=z | (d=~q & e!~r))) from 1699920000000000000 to "
         "1699999999999999999"},
        {"SELECT v FROM m WHERE time > 5 AND time < 10 AND time <= 7",
         "select v from m from 6 to 7"},
        {"SELECT v FROM m WHERE time = '2023-11-14 22:13:20.5'",
         "select v from m from 1700000000500000000 to 1700000000500000000"},
        {"SELECT v FROM m WHERE time >= now() - 1h30m + 1u AND time <= now()",
         "select v from m from 1699994600000001000 to 1700000000000000000"},
        {"SELECT a.b, \"it\\\"s\" FROM m WHERE x = 'it\\'s\\n'",
         "select a.b,it\"s from m where x=it's\n"},
        {"SELECT spread(v), rate(v), first(v), last(v), sum(v) FROM m GROUP BY time(1w2d) "
         "fill(none)",
         "select spread[v],rate[v],first[v],last[v],sum[v] from m every 777600000000000 none "
         "aggregates"},
        {"SELECT v FROM m WHERE time > -10ms AND time < 9223372036854775807ns",
         "select v from m from -9999999 to 9223372036854775806"},
        {"SELECT 2 * v % 3 - 1 FROM m", "select (((2*v)%3)-1) from m"},
    };
    CHECK(cases);
}

static void what_is_wrong_is_said_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        mir_status status;
        const char *says;
    } cases[] = {
        {"", MIR_E_INVALID, "found EOF, expected SELECT or SHOW at line 1, char 1"},
        {" ;; ", MIR_E_INVALID, "found EOF"},
        {"SELEC x", MIR_E_INVALID, "found SELEC, expected SELECT or SHOW at line 1, char 1"},
        {"SELECT v\nFRM m", MIR_E_INVALID, "found FRM, expected FROM at line 2, char 1"},
        {"SELECT v FROM m WHERE", MIR_E_INVALID, "found EOF, expected time or the name of a tag"},
        {"SELECT v FROM m x", MIR_E_INVALID, "expected ; or the end of the query"},
        {"SELECT v FROM a.b.c.d", MIR_E_INVALID, "a name with dots stands in double quotes"},
        {"SELECT v FROM \"m", MIR_E_INVALID, "does not end"},
        {"SELECT v FROM m WHERE a =~ /x", MIR_E_INVALID, "regular expression does not end"},
        {"SELECT v FROM m WHERE a =~ 'x'", MIR_E_INVALID, "regular expression between slashes"},
        {"SELECT v FROM m WHERE a = x", MIR_E_INVALID, "a text in single quotes"},
        {"SELECT v FROM m /* ", MIR_E_INVALID, "a comment does not end"},
        {"SELECT v FROM m WHERE time > 'yesterday'", MIR_E_INVALID, "a time such as"},
        {"SELECT v FROM m WHERE time > now() - 1", MIR_E_INVALID, "a duration such as 10s"},
        {"SELECT mean(v) FROM m GROUP BY time(0s)", MIR_E_INVALID, "longer than nothing"},
        {"SELECT mean(v) FROM m GROUP BY time(10x)", MIR_E_INVALID, "units ns, u, ms"},
        {"SELECT mean(v) FROM m GROUP BY time(99999999w)", MIR_E_INVALID, "longer than 292 years"},
        {"SELECT mean(v) FROM m GROUP BY time(1s), time(2s)", MIR_E_INVALID, "twice"},
        {"SELECT v FROM m GROUP BY time(1s)", MIR_E_INVALID, "needs functions"},
        {"SELECT percentile(v, 101) FROM m", MIR_E_INVALID, "from 0 to 100"},
        {"SELECT percentile(v) FROM m", MIR_E_INVALID, "expected ,"},
        {"SELECT 1 FROM m", MIR_E_INVALID, "constant alone"},
        {"SELECT v FROM m LIMIT 1.5", MIR_E_INVALID, "a whole number"},
        {"SELECT v FROM m WHERE a ~ 'x'", MIR_E_INVALID, "belongs to no query"},
        {"SELECT v FROM m WHERE a = $x", MIR_E_INVALID,
         "write the value in its place at line 1, char 27"},
        {"SHOW TAG VALUES FROM m", MIR_E_INVALID, "expected WITH"},
        {"SELECT v FROM (SELECT v FROM m)", MIR_E_UNSUPPORTED, "subqueries are not supported"},
        {"SELECT v INTO n FROM m", MIR_E_UNSUPPORTED, "INTO is not supported"},
        {"SELECT median(v) FROM m", MIR_E_UNSUPPORTED, "this function is not supported"},
        {"SELECT count(distinct(v)) FROM m", MIR_E_UNSUPPORTED, "distinct"},
        {"SELECT mean(v), w FROM m", MIR_E_UNSUPPORTED, "beside fields without one"},
        {"SELECT mean(mean(v)) FROM m", MIR_E_UNSUPPORTED, "takes the name of a field"},
        {"SELECT mean(v + 1) FROM m", MIR_E_UNSUPPORTED, "takes the name of a field"},
        {"SELECT derivative(difference(v)) FROM m", MIR_E_UNSUPPORTED, "takes a field, or a"},
        {"SELECT * + 1 FROM m", MIR_E_INVALID, "expected FROM"},
        {"SELECT v::float FROM m", MIR_E_UNSUPPORTED, "casts"},
        {"SELECT v FROM m WHERE v > 5", MIR_E_UNSUPPORTED, "values of fields"},
        {"SELECT v FROM m WHERE v = 5", MIR_E_UNSUPPORTED, "values of fields"},
        {"SELECT v FROM m WHERE a = 'x' OR time > 5", MIR_E_UNSUPPORTED, "time within OR"},
        {"SELECT v FROM m WHERE time != 5", MIR_E_INVALID, "=, <, <=, > or >="},
        {"SELECT v FROM m ORDER BY v", MIR_E_UNSUPPORTED, "only ORDER BY time"},
        {"SELECT v FROM m tz('Europe/Berlin')", MIR_E_UNSUPPORTED, "other than UTC"},
        {"DROP MEASUREMENT m", MIR_E_UNSUPPORTED, "nothing is changed here"},
        {"SHOW USERS", MIR_E_UNSUPPORTED, "SHOW DATABASES"},
        {"SHOW SERIES CARDINALITY", MIR_E_UNSUPPORTED, "cardinalities"},
        {"SELECT v FROM m WHERE \xff", MIR_E_INVALID, "belongs to no query"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        parsed made = parse(cases[i].text);
        if (made.status != cases[i].status || strstr(made.error.text, cases[i].says) == NULL)
            fail_msg("%s: %s: %s", cases[i].text, mir_status_name(made.status), made.error.text);
        mir_arena_free(&made.arena);
    }
}

static void expect_too_large(const char *head, const char *part, unsigned count, const char *tail,
                             bool too_large)
{
    mir_bytes text = {0};
    mir_bytes_text(&text, head);
    for (unsigned i = 0; i < count; i++) mir_bytes_text(&text, part);
    mir_bytes_text(&text, tail);
    mir_bytes_u8(&text, 0);
    parsed made = parse((const char *)text.data);
    if (made.status != (too_large ? MIR_E_TOO_LARGE : MIR_OK))
        fail_msg("%s %s × %u: %s: %s", head, part, count, mir_status_name(made.status),
                 made.error.text);
    mir_arena_free(&made.arena);
    mir_bytes_free(&text);
}

static void everything_has_a_bound(void **state)
{
    (void)state;
    expect_too_large("", "SHOW DATABASES;", 64, "", false);
    expect_too_large("", "SHOW DATABASES;", 65, "", true);
    expect_too_large("SELECT a", ",a", 255, " FROM m", false);
    expect_too_large("SELECT a", ",a", 256, " FROM m", true);
    expect_too_large("SELECT a", "+a", 32, " FROM m", false);
    expect_too_large("SELECT a", "+a", 33, " FROM m", true);
    expect_too_large("SELECT ", "- ", 100000, "a FROM m", true);
    expect_too_large("SELECT ", "(", 33, "a FROM m", true);
    expect_too_large("SELECT a FROM m WHERE ", "(", 33, "a='b'", true);
    expect_too_large("SELECT a FROM m WHERE a='b'", " OR a='b'", 8190, "", false);
    expect_too_large("SELECT a FROM m WHERE a='b'", " OR a='b'", 8192, "", true);
    expect_too_large("SELECT a FROM m", ",m", 63, "", false);
    expect_too_large("SELECT a FROM m", ",m", 64, "", true);
    expect_too_large("SELECT a FROM m GROUP BY a", ",a", 64, "", true);
    expect_too_large("SHOW TAG VALUES WITH KEY IN (a", ",a", 256, ")", true);
    expect_too_large("SELECT a FROM m", " ", MIR_INFLUXQL_BYTES_MAX, "", true);
    mir_arena small = {.bytes_max = 1000};
    mir_influxql_query query;
    mir_error error;
    assert_int_equal(
        mir_influxql_parse(MIR_VIEW_LITERAL("SELECT a FROM m"), 0, &small, &query, &error),
        MIR_E_NO_MEMORY);
    mir_arena_free(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listings_are_read),
        cmocka_unit_test(selections_are_read),
        cmocka_unit_test(what_is_wrong_is_said_with_its_place),
        cmocka_unit_test(everything_has_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
