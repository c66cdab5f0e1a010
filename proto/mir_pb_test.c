/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_pb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mir_api/v1/core.pb-c.h"
#include "mir_device_json.h"

static mir_view packed_device(mir_arena *arena, mir_bytes *wire)
{
    mir_error error;
    MirApi__V1__Device *device = NULL;
    static const char text[] =
        "{\"meta\":{\"name\":\"n\",\"labels\":{\"a\":\"b\"}},\"spec\":{\"deviceId\":\"d\"},"
        "\"properties\":{\"desired\":{\"x\":{\"l\":[1,[2,\"s\"]]}}},\"status\":{\"online\":true,"
        "\"schema\":{\"compressedSchema\":\"AAECAwQ=\"}}}";
    assert_int_equal(mir_device_json_read(mir_view_cstr(text), arena, &device, &error), MIR_OK);
    MIR_PB_PACK(device, wire);
    assert_true(mir_bytes_ok(wire));
    return mir_bytes_as_view(wire);
}

static void a_message_survives_both_ways(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_bytes wire = {0}, again = {0};
    mir_error error;
    MirApi__V1__Device *device = NULL;
    mir_view packed = packed_device(&arena, &wire);
    assert_int_equal(
        mir_pb_unpack(&mir_api__v1__device__descriptor, packed, &arena, &device, &error), MIR_OK);
    assert_string_equal(device->meta->labels[0]->value, "b");
    MIR_PB_PACK(device, &again);
    assert_true(mir_view_eq(mir_bytes_as_view(&again), packed));
    assert_int_equal(
        mir_pb_unpack(&mir_api__v1__device__descriptor, (mir_view){NULL, 0}, &arena, &device, NULL),
        MIR_OK);
    mir_bytes_free(&wire);
    mir_bytes_free(&again);
    mir_arena_free(&arena);
}

/* A cut may end at a field, and then it is a smaller message; it never harms. */
static void every_cut_and_every_flipped_byte_is_answered(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_bytes wire = {0};
    mir_view packed = packed_device(&arena, &wire);
    unsigned refused = 0;
    for (size_t size = 0; size < packed.size; size++) {
        for (int flip = 0; flip < 9; flip++) {
            uint8_t *copy = malloc(size + 1);
            assert_non_null(copy);
            memcpy(copy, packed.data, size);
            if (flip != 0 && size != 0) copy[size - 1] ^= (uint8_t)(1 << (flip - 1));
            mir_arena inner = {.bytes_max = 1 << 20};
            MirApi__V1__Device *device = NULL;
            mir_error error;
            if (mir_pb_unpack(&mir_api__v1__device__descriptor, mir_view_of(copy, size), &inner,
                              &device, &error) != MIR_OK)
                refused++;
            mir_arena_free(&inner);
            free(copy);
        }
    }
    assert_true(refused > packed.size);
    mir_bytes_free(&wire);
    mir_arena_free(&arena);
}

/* A list in a list in a list ...: 5 bytes a level at first, then more. */
static void nested(mir_bytes *out, int levels)
{
    mir_bytes inner = {0};
    for (int i = 0; i < levels; i++) {
        mir_bytes outer = {0};
        for (int part = 0; part < 2; part++) { /* Value.list_value, ListValue.values */
            mir_bytes_u8(&outer, part == 0 ? 0x0a : 0x32);
            uint64_t size = inner.size;
            do {
                mir_bytes_u8(&outer, (uint8_t)((size & 0x7f) | (size > 0x7f ? 0x80 : 0)));
                size >>= 7;
            } while (size != 0);
            mir_bytes_view(&outer, mir_bytes_as_view(&inner));
            mir_bytes_free(&inner);
            inner = outer;
            outer = (mir_bytes){0};
        }
    }
    mir_bytes_view(out, mir_bytes_as_view(&inner));
    mir_bytes_free(&inner);
}

static void depth_is_bounded(void **state)
{
    (void)state;
    for (int levels = 40; levels <= 4000; levels *= 10) {
        mir_bytes wire = {0};
        nested(&wire, levels);
        mir_arena arena = {0};
        mir_error error = {""};
        Google__Protobuf__Value *value = NULL;
        mir_status status = mir_pb_unpack(&google__protobuf__value__descriptor,
                                          mir_bytes_as_view(&wire), &arena, &value, &error);
        assert_int_equal(status, levels == 40 ? MIR_OK : MIR_E_INVALID);
        if (levels != 40) assert_non_null(strstr(error.text, "more than 100 levels"));
        mir_arena_free(&arena);
        mir_bytes_free(&wire);
    }
}

static void memory_is_bounded(void **state)
{
    (void)state;
    mir_bytes wire = {0};
    for (int i = 0; i < 10000; i++) mir_bytes_append(&wire, "\x0a\x00", 2); /* empty NewDevices */
    mir_arena arena = {.bytes_max = 64 * 1024};
    mir_error error;
    MirApi__V1__CreateDevicesRequest *request = NULL;
    assert_int_equal(mir_pb_unpack(&mir_api__v1__create_devices_request__descriptor,
                                   mir_bytes_as_view(&wire), &arena, &request, &error),
                     MIR_E_NO_MEMORY);
    assert_true(arena.bytes_used <= arena.bytes_max);
    mir_arena_free(&arena);
    mir_bytes_free(&wire);
}

static void strings_are_text(void **state)
{
    (void)state;
    static const struct {
        const char *wire;
        size_t size;
    } bad[] = {{"\x0a\x02\xc3\x28", 4},
               {"\x0a\x03"
                "a\0b",
                5},
               {"\x0a\x05"
                "ab",
                4},
               {"\x0b", 1},
               {"\x02\x00", 2}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        mir_arena arena = {0};
        mir_error error = {""};
        MirApi__V1__NameNamespace *message = NULL;
        assert_int_equal(mir_pb_unpack(&mir_api__v1__name_namespace__descriptor,
                                       mir_view_of(bad[i].wire, bad[i].size), &arena, &message,
                                       &error),
                         MIR_E_INVALID);
        assert_true(strncmp(error.text, "malformed mir_api.v1.NameNamespace: ", 36) == 0);
        mir_arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_survives_both_ways),
        cmocka_unit_test(every_cut_and_every_flipped_byte_is_answered),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(strings_are_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
