/* SPDX-License-Identifier: Apache-2.0 */
/* mir_influx_tags: devices as InfluxQL sees them: sets of tags.
 *
 * Why        A query names devices by what they are called now: `__id`, `__name`, `__namespace` and
 *            their labels. So a device that is renamed keeps its history, under the new name.
 * Ownership  Everything is in the arena that is passed.
 * Affinity   Any thread.
 * Bounds     The arena's bytes_max; a pattern has MIR_INFLUX_PATTERN_BYTES_MAX bytes and gives up on a
 *            text after a bounded number of steps.
 * Errors     With a text for whoever wrote the query. */
#ifndef MIR_INFLUX_TAGS_H
#define MIR_INFLUX_TAGS_H

#include <stdatomic.h>

#include "mir_influxql.h"
#include "mir_state.h"

enum { MIR_INFLUX_PATTERN_BYTES_MAX = 32 * 1024, MIR_INFLUX_PATTERN_STEPS_MAX = 100000 };

typedef MirStore__V1__DeviceRecord mir_influx_device;

typedef struct mir_influx_devices {
    mir_influx_device **items; /* by namespace, then name */
    size_t count;
} mir_influx_devices;

/* A regular expression: Perl's, which has that of InfluxDB in it. */
typedef struct mir_influx_pattern mir_influx_pattern;

MIR_MUST_CHECK mir_status mir_influx_pattern_new(mir_view text, mir_arena *arena,
                                                 mir_influx_pattern **pattern, mir_error *error);
/* Anywhere in the text. MIR_E_TOO_LARGE when it takes too many steps. */
MIR_MUST_CHECK mir_status mir_influx_pattern_find(const mir_influx_pattern *pattern, mir_view text,
                                                  bool *found, mir_error *error);

/* Those that meet a condition, which may be null. */
MIR_MUST_CHECK mir_status mir_influx_devices_find(mir_state *state,
                                                  const mir_influxql_condition *condition,
                                                  const atomic_bool *cancel, mir_arena *arena,
                                                  mir_influx_devices *devices, mir_error *error);

/* Empty for a label that the device does not have. */
mir_view mir_influx_tag(const mir_influx_device *device, mir_view key);

typedef struct mir_influx_keys {
    mir_view *items; /* ascending, each once */
    size_t count;
} mir_influx_keys;

/* What these devices have. */
MIR_MUST_CHECK mir_status mir_influx_keys_of(const mir_influx_devices *devices, mir_arena *arena,
                                             mir_influx_keys *keys);

#endif
