/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_pb.h"

#include "mir_device_rules.h"

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void *arena_alloc(void *data, size_t size)
{
    return mir_arena_alloc(data, size == 0 ? 1 : size);
}

static void arena_free(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

ProtobufCAllocator mir_pb_allocator(mir_arena *arena)
{
    return (ProtobufCAllocator){arena_alloc, arena_free, arena};
}

static bool read_varint(mir_view wire, size_t end, size_t *at, uint64_t *value)
{
    uint64_t result = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (*at >= end) return false;
        uint8_t byte = wire.data[(*at)++];
        if (shift < 64) result |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *value = result;
            return true;
        }
    }
    return false;
}

mir_status mir_pb_check(const ProtobufCMessageDescriptor *descriptor, mir_view wire,
                        mir_error *error)
{
    struct {
        const ProtobufCMessageDescriptor *descriptor;
        size_t end;
    } stack[MIR_PB_DEPTH_MAX];
    size_t depth = 0;
    size_t at = 0;
    stack[0].descriptor = descriptor;
    stack[0].end = wire.size;
    for (;;) {
        while (at == stack[depth].end) {
            if (depth == 0) return MIR_OK;
            depth--;
        }
        const size_t end = stack[depth].end;
        uint64_t tag = 0;
        if (!read_varint(wire, end, &at, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
            return mir_error_set(error, MIR_E_INVALID, "malformed %s: bad field tag",
                                 stack[depth].descriptor->name);
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(stack[depth].descriptor, (unsigned)(tag >> 3));
        uint64_t size = 0;
        switch (tag & 7) {
        case WIRE_VARINT:
            if (!read_varint(wire, end, &at, &size)) goto truncated;
            continue;
        case WIRE_FIXED64: size = 8; break;
        case WIRE_FIXED32: size = 4; break;
        case WIRE_BYTES:
            if (!read_varint(wire, end, &at, &size)) goto truncated;
            break;
        default:
            return mir_error_set(error, MIR_E_INVALID, "malformed %s: wire type %u",
                                 stack[depth].descriptor->name, (unsigned)(tag & 7));
        }
        if (size > end - at) goto truncated;
        if ((tag & 7) == WIRE_BYTES && field != NULL) {
            mir_view content = mir_view_of(wire.data + at, (size_t)size);
            if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
                if (depth + 1 == MIR_PB_DEPTH_MAX)
                    return mir_error_set(error, MIR_E_INVALID,
                                         "malformed %s: more than %d levels of messages",
                                         descriptor->name, MIR_PB_DEPTH_MAX);
                depth++;
                stack[depth].descriptor = field->descriptor;
                stack[depth].end = at + (size_t)size;
                continue;
            }
            if (field->type == PROTOBUF_C_TYPE_STRING &&
                (!mir_utf8_valid(content) ||
                 (size != 0 && memchr(content.data, 0, content.size) != NULL)))
                return mir_error_set(error, MIR_E_INVALID,
                                     "malformed %s: field %s is not UTF-8 text without zero bytes",
                                     stack[depth].descriptor->name, field->name);
        }
        at += (size_t)size;
    }
truncated:
    return mir_error_set(error, MIR_E_INVALID, "malformed %s: cut short",
                         stack[depth].descriptor->name);
}

struct counted {
    mir_arena *arena;
    bool exhausted;
};

static void *counted_alloc(void *data, size_t size)
{
    struct counted *counted = data;
    void *memory = mir_arena_alloc(counted->arena, size == 0 ? 1 : size);
    if (memory == NULL) counted->exhausted = true;
    return memory;
}

mir_status mir_pb_unpack(const ProtobufCMessageDescriptor *descriptor, mir_view wire,
                         mir_arena *arena, void *message, mir_error *error)
{
    mir_status status = mir_pb_check(descriptor, wire, error);
    if (status != MIR_OK) return status;
    struct counted counted = {arena, false};
    ProtobufCAllocator allocator = {counted_alloc, arena_free, &counted};
    ProtobufCMessage *unpacked =
        protobuf_c_message_unpack(descriptor, &allocator, wire.size, wire.data);
    if (unpacked == NULL && counted.exhausted)
        return mir_error_set(error, MIR_E_NO_MEMORY, "%s of %zu bytes needs too much memory",
                             descriptor->name, wire.size);
    if (unpacked == NULL)
        return mir_error_set(error, MIR_E_INVALID, "malformed %s", descriptor->name);
    memcpy(message, &unpacked, sizeof unpacked);
    return MIR_OK;
}

void mir_pb_pack(const ProtobufCMessage *message, mir_bytes *out)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *to = mir_bytes_reserve(out, size);
    if (to == NULL) return;
    out->size += protobuf_c_message_pack(message, to);
}
