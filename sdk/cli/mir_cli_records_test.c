/* SPDX-License-Identifier: Apache-2.0 */
/* Files of rows: what is read out of them, whole and cut anywhere, and rows written and read again. */
#include "mir_cli_records.h"

#include "mir_cli_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* Everything that is in the file, a line for each record: its line, what is wrong or its time, device
 * and measurement, then the values. */
static mir_bytes read_all(mir_cli_records_format format, mir_view text)
{
    char path[] = "/tmp/mir-records-test-XXXXXX";
    int fd = mkstemp(path);
    mir_cli_records *records = NULL;
    mir_cli_record record;
    mir_error error = {0};
    mir_bytes out = {0};
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text.data, text.size), text.size);
    assert_int_equal(close(fd), 0);
    assert_int_equal(mir_cli_records_open(path, format, 1, &records, &error), MIR_OK);
    mir_status status;
    while ((status = mir_cli_records_next(records, &record, &error)) == MIR_OK) {
        mir_bytes_printf(&out, "%d ", (int)record.line);
        if (record.cause != NULL) {
            mir_bytes_printf(&out, "%s\n", record.text);
            continue;
        }
        mir_bytes_printf(&out, "%lld %.*s %.*s", (long long)record.time_ns,
                         (int)record.device_id.size, (const char *)record.device_id.data,
                         (int)record.measurement.size, (const char *)record.measurement.data);
        for (size_t i = 0; i < record.count; i++) {
            if (record.values[i].form == MIR_TEXT_ABSENT) continue;
            bool quoted = record.values[i].form == MIR_TEXT_QUOTED;
            mir_bytes_printf(&out, "|%.*s=%s%.*s%s", MIR_VIEW_ARGS(record.columns[i]),
                             quoted ? "'" : "", MIR_VIEW_ARGS(record.values[i].text),
                             quoted ? "'" : "");
        }
        mir_bytes_u8(&out, '\n');
    }
    if (status != MIR_E_EMPTY) mir_bytes_printf(&out, "error %d", (int)status);
    mir_bytes_u8(&out, '\0');
    mir_cli_records_close(records);
    assert_int_equal(unlink(path), 0);
    return out;
}

static void reads(mir_cli_records_format format, const char *text, const char *expected)
{
    mir_bytes out = read_all(format, mir_view_cstr(text));
    assert_string_equal((const char *)out.data, expected);
    mir_bytes_free(&out);
    /* Cut anywhere, it is read to its end, be it with fewer rows. */
    for (size_t size = 0; size < strlen(text); size++) {
        out = read_all(format, mir_view_of(text, size));
        mir_bytes_free(&out);
    }
}

static void csv(void **state)
{
    (void)state;
    reads(MIR_RECORDS_GUESS,
          "_time,__id,_measurement,a,\"b,\"\"c\"\n"
          "1970-01-01T00:00:00.000000001Z,d,m,1,\"x\ny\"\n"
          "2,d,m,,\"\"\r\n"
          "3,d,m,\"q\"\"\"\n"
          "later,d,m,1,2\n"
          "\n"
          "__id,time,z\n"
          "e,-5,\n"
          "e,6,last",
          "2 1 d m|a=1|b,\"c=x\ny\n4 2 d m|b,\"c=\n5 the row has 4 cells and the header 5\n"
          "6 'later' is no time; write for example 2026-01-31T15:04:05Z\n"
          "9 -5 e \n10 6 e |z=last\n");
    reads(MIR_RECORDS_CSV, "_time,a\n1,\"x\n2,y\n", "2 a quote is not closed\n");
    /* Fields may be called so, too: of what tells rows apart the first column counts. */
    reads(MIR_RECORDS_CSV,
          "_time,__id,_measurement,__id,_measurement,_time,time\n1,d,m,e,n,2,3\n"
          "\n"
          "time,_time,time\n1,2,3\n",
          "2 1 d m|__id=e|_measurement=n|_time=2|time=3\n5 2  |time=1|time=3\n");
    reads(MIR_RECORDS_CSV, "a,b\n1,2\n", "error 1");
    reads(MIR_RECORDS_CSV, "\xef\xbb\xbf_time,a\n1,2\n", "2 1  |a=2\n");
}

static void line_protocol(void **state)
{
    (void)state;
    reads(MIR_RECORDS_GUESS,
          "# written by hand\n"
          "m\"m,__id=\\\"q x\\\"\\=\\\"y=1,z=\"\\\"\" 8\n"
          "m\\ 1\\,2,__id=d\\=1\\ x,other=y a\\ b=1i,c=\"x \\\"y\\\", \\\\z=\n# \",d=t -7\n"
          "m,__id=d a=1\n"
          "\n"
          "m,__id a=1 5\n"
          "m a 5\r\n"
          "m a=\"open 5\nm a=1 6",
          "2 8 \\\"q m\"m|x\"=\"y=1|z='\"'\n"
          "3 -7 d=1 x m 1,2|a b=1i|c='x \"y\", \\z=\n# '|d=t\n5 the row has no time\n"
          "7 a tag has no value\n8 this is not measurement,tag=value field=value time\n"
          "9 this is not measurement,tag=value field=value time\n");
    reads(MIR_RECORDS_LINE, "m a=1 9223372036854775808\nm a=1 1.5\nm a=1 5 6\n",
          "1 '9223372036854775808' is no time\n2 '1.5' is no time\n3 '5 6' is no time\n");
}

static void rows_are_read_as_they_were_written(void **state)
{
    (void)state;
    const mir_cli_row_cell cells[] = {
        {MIR_VIEW_LITERAL("i"), MIR_COLUMN_I64, true, {.i64 = INT64_MIN}},
        {MIR_VIEW_LITERAL("u"), MIR_COLUMN_U64, true, {.u64 = UINT64_MAX}},
        {MIR_VIEW_LITERAL("f =,\""), MIR_COLUMN_F64, true, {.f64 = 0.1}},
        {MIR_VIEW_LITERAL("b"), MIR_COLUMN_BOOL, true, {.boolean = true}},
        {MIR_VIEW_LITERAL("absent"), MIR_COLUMN_BOOL, false, {0}},
        {MIR_VIEW_LITERAL("s"),
         MIR_COLUMN_STRING,
         true,
         {.string = MIR_VIEW_LITERAL("a\"\\,\n\r\n b")}}};
    const mir_cli_row row = {INT64_MIN, MIR_VIEW_LITERAL("id\" ,="), MIR_VIEW_LITERAL("p.v1.M"),
                             cells, sizeof cells / sizeof cells[0]};
    mir_bytes text = {0};
    mir_cli_rows_header(cells, row.count, &text);
    assert_int_equal(mir_cli_rows_write(MIR_ROWS_CSV, &row, &text, NULL), MIR_OK);
    mir_bytes got = read_all(MIR_RECORDS_GUESS, mir_bytes_as_view(&text));
    assert_string_equal((const char *)got.data,
                        "2 -9223372036854775808 id\" ,= p.v1.M|i=-9223372036854775808|"
                        "u=18446744073709551615|f =,\"=0.1|b=true|s=a\"\\,\n\r\n b\n");
    mir_bytes_free(&got);
    text.size = 0;
    assert_int_equal(mir_cli_rows_write(MIR_ROWS_LINE, &row, &text, NULL), MIR_OK);
    got = read_all(MIR_RECORDS_GUESS, mir_bytes_as_view(&text));
    assert_string_equal((const char *)got.data,
                        "1 -9223372036854775808 id\" ,= p.v1.M|i=-9223372036854775808i|"
                        "u=18446744073709551615u|f =,\"=0.1|b=true|s='a\"\\,\n\r\n b'\n");
    mir_bytes_free(&got);
    const mir_cli_row_cell odd = {
        MIR_VIEW_LITERAL("a\nb"), MIR_COLUMN_BOOL, true, {.boolean = true}};
    const mir_cli_row bad = {1, row.device_id, row.measurement, &odd, 1};
    mir_error error = {0};
    text.size = 0;
    assert_int_equal(mir_cli_rows_write(MIR_ROWS_LINE, &bad, &text, &error), MIR_E_UNSUPPORTED);
    assert_int_equal(text.size, 0);
    mir_bytes_free(&text);
}

static void a_row_without_an_end_is_bounded(void **state)
{
    (void)state;
    size_t size = (size_t)MIR_RECORD_BYTES_MAX + (1 << 20);
    char *text = malloc(size);
    assert_non_null(text);
    memset(text, 'x', size);
    memcpy(text, "_time,a\n1,\"", 11);
    mir_bytes out = read_all(MIR_RECORDS_CSV, mir_view_of(text, size));
    assert_string_equal((const char *)out.data, "error 2");
    mir_bytes_free(&out);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv),
        cmocka_unit_test(line_protocol),
        cmocka_unit_test(rows_are_read_as_they_were_written),
        cmocka_unit_test(a_row_without_an_end_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
