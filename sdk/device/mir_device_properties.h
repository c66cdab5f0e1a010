/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_properties: the desired values that a device knows, by message name.
 *
 * Why        Pushes and answers to requests overtake each other; the time that the server gave to
 *            a value decides, and an older one must never undo a newer one.
 * Ownership  Copies what it is given. A zeroed table is empty; mir_device_properties_free releases.
 * Affinity   The caller's lock.
 * Bounds     MIR_DEVICE_PROPERTIES_MAX names.
 * Errors     put: MIR_OK accepted, MIR_E_EXISTS not later than what is there (nothing changes),
 *            MIR_E_FULL, MIR_E_NO_MEMORY. */
#ifndef MIR_DEVICE_PROPERTIES_H
#define MIR_DEVICE_PROPERTIES_H

#include "mir_bytes.h"

enum { MIR_DEVICE_PROPERTIES_MAX = 1024 };

/* Seconds and nanoseconds apart: the year 1, a server's "no time", does not fit nanoseconds. */
typedef struct mir_device_time {
    int64_t seconds;
    int32_t nanos;
    char text[40]; /* as it was written */
} mir_device_time;

/* RFC 3339 with up to nine digits of fraction. */
MIR_MUST_CHECK mir_status mir_device_time_parse(const char *text, mir_device_time *time);

typedef struct mir_device_property {
    char *name;
    mir_device_time time;
    mir_bytes value;
    /* Of the value that the handlers were last called with; a text of no size: none. */
    char handled[sizeof((mir_device_time){0}.text)];
} mir_device_property;

typedef struct mir_device_properties {
    mir_device_property *items;
    size_t count;
} mir_device_properties;

MIR_MUST_CHECK mir_status mir_device_properties_put(mir_device_properties *properties,
                                                    const char *name, mir_device_time time,
                                                    mir_view value);
/* Null when unknown; until the next put. */
mir_device_property *mir_device_properties_get(const mir_device_properties *properties,
                                               const char *name);
void mir_device_properties_free(mir_device_properties *properties);

#endif
