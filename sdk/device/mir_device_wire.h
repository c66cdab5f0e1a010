/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_wire: protobuf's wire format, field by field, without a schema.
 *
 * Why        Descriptor sets are joined and searched as bytes; messages of the server are measured
 *            before the generated code, which recurses without a limit, unpacks them.
 * Ownership  Views into the caller's bytes. No allocation.
 * Errors     MIR_E_EMPTY at the end; MIR_E_INVALID for what is no field (groups included), after
 *            which the reader must not be used further. */
#ifndef MIR_DEVICE_WIRE_H
#define MIR_DEVICE_WIRE_H

#include <protobuf-c/protobuf-c.h>

#include "mir_status.h"
#include "mir_view.h"

enum { MIR_DEVICE_DEPTH_MAX = 100 };

typedef struct mir_device_field {
    uint32_t number;
    bool is_bytes;  /* length-delimited; else `bytes` is empty */
    mir_view bytes; /* without the length */
} mir_device_field;

MIR_MUST_CHECK mir_status mir_device_wire_next(mir_view *rest, mir_device_field *field);

/* Unpacks after checking that messages nest at most MIR_DEVICE_DEPTH_MAX deep. Null when the bytes
 * are no such message; free with protobuf_c_message_free_unpacked(message, NULL). */
ProtobufCMessage *mir_device_unpack(const ProtobufCMessageDescriptor *type, mir_view bytes);

#endif
