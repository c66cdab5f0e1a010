/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of runtime schemas share: the sets that the build compiled from tests/data, and
 * protoc as the independent peer that encodes and decodes messages of them. Not for the product. */
#ifndef MIR_SCHEMA_TESTING_H
#define MIR_SCHEMA_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_bytes.h"
#include "mir_pbwire.h"
#include "mir_schema.h"

#define SET(name) MIR_BINARY_DIR "/schema_sets/" name ".binpb"

static inline mir_bytes testing_read(const char *path)
{
    mir_bytes bytes = {0};
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t buffer[4096];
    size_t size;
    while ((size = fread(buffer, 1, sizeof buffer, file)) > 0) {
        mir_bytes_append(&bytes, buffer, size);
    }
    assert_int_equal(fclose(file), 0);
    assert_true(mir_bytes_ok(&bytes));
    return bytes;
}

static inline mir_schema *testing_load(const char *path)
{
    mir_bytes bytes = testing_read(path);
    mir_schema *schema = NULL;
    mir_error error = {0};
    mir_status status = mir_schema_load(mir_bytes_as_view(&bytes), NULL, &schema, &error);
    if (status != MIR_OK) fail_msg("%s: %s", path, error.text);
    mir_bytes_free(&bytes);
    return schema;
}

static inline const mir_schema_message *testing_message(const mir_schema *schema, const char *name)
{
    const mir_schema_message *message = NULL;
    mir_error error = {0};
    if (mir_schema_find(schema, mir_view_cstr(name), &message, &error) != MIR_OK) {
        fail_msg("%s: %s", name, error.text);
    }
    return message;
}

/* Runs protoc with --encode or --decode over the input. */
static inline mir_bytes testing_protoc(const char *set, const char *mode, const char *message,
                                       mir_view input)
{
    char path[] = "/tmp/mir-schema-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, input.data, input.size), input.size);
    assert_int_equal(close(fd), 0);
    char command[1024];
    (void)snprintf(command, sizeof command, "%s --descriptor_set_in=%s --%s=%s < %s", MIR_PROTOC,
                   set, mode, message, path);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    mir_bytes output = {0};
    uint8_t buffer[4096];
    size_t size;
    while ((size = fread(buffer, 1, sizeof buffer, pipe)) > 0) {
        mir_bytes_append(&output, buffer, size);
    }
    int result = pclose(pipe);
    assert_int_equal(unlink(path), 0);
    if (result != 0) fail_msg("%s", command);
    return output;
}

static inline mir_bytes testing_encode(const char *set, const char *message, const char *text)
{
    return testing_protoc(set, "encode", message, mir_view_cstr(text));
}

#endif
