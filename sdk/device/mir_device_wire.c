/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_wire.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static bool read_varint(mir_view *rest, uint64_t *value)
{
    uint64_t result = 0;
    for (size_t i = 0; i < 10 && i < rest->size; i++) {
        result |= (uint64_t)(rest->data[i] & 0x7f) << (7 * i);
        if (rest->data[i] < 0x80) {
            *rest = mir_view_from(*rest, i + 1);
            *value = result;
            return true;
        }
    }
    return false;
}

mir_status mir_device_wire_next(mir_view *rest, mir_device_field *field)
{
    if (rest->size == 0) return MIR_E_EMPTY;
    uint64_t key;
    if (!read_varint(rest, &key) || key > UINT32_MAX || key >> 3 == 0) return MIR_E_INVALID;
    *field = (mir_device_field){.number = (uint32_t)(key >> 3)};
    uint64_t skip = 0;
    switch (key & 7) {
    case VARINT:
        if (!read_varint(rest, &skip)) return MIR_E_INVALID;
        return MIR_OK;
    case FIXED64: skip = 8; break;
    case FIXED32: skip = 4; break;
    case BYTES:
        if (!read_varint(rest, &skip)) return MIR_E_INVALID;
        field->is_bytes = true;
        break;
    default: return MIR_E_INVALID;
    }
    if (skip > rest->size) return MIR_E_INVALID;
    if (field->is_bytes) field->bytes = mir_view_of(rest->data, (size_t)skip);
    *rest = mir_view_from(*rest, (size_t)skip);
    return MIR_OK;
}

static bool is_shallow(const ProtobufCMessageDescriptor *type, mir_view bytes, int depth)
{
    if (depth > MIR_DEVICE_DEPTH_MAX) return false;
    mir_device_field field;
    mir_status status;
    while ((status = mir_device_wire_next(&bytes, &field)) == MIR_OK) {
        if (!field.is_bytes) continue;
        const ProtobufCFieldDescriptor *known =
            protobuf_c_message_descriptor_get_field(type, field.number);
        if (known != NULL && known->type == PROTOBUF_C_TYPE_MESSAGE &&
            !is_shallow(known->descriptor, field.bytes, depth + 1))
            return false;
    }
    return status == MIR_E_EMPTY;
}

ProtobufCMessage *mir_device_unpack(const ProtobufCMessageDescriptor *type, mir_view bytes)
{
    static const uint8_t nothing;
    if (!is_shallow(type, bytes, 1)) return NULL;
    return protobuf_c_message_unpack(type, NULL, bytes.size,
                                     bytes.size == 0 ? &nothing : bytes.data);
}
