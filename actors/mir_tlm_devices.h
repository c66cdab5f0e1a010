/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlm_devices: the devices that queries of telemetry are of, remembered by their targets.
 *
 * Why        Who looks at telemetry asks for the same devices again and again. To find a thousand of
 *            them in the store takes as long as to compute what their rows of a day come to.
 * Ownership  A list belongs to all who hold it, and is not changed. Its records have what telemetry
 *            needs: id, name, namespace, labels and schema.
 * Affinity   Any thread; a mutex inside, held for as long as a target is looked up among few.
 * Bounds     MIR_TLM_DEVICES_KEPT lists of MIR_TLM_DEVICES_LIST_BYTES_MAX each and
 *            MIR_TLM_DEVICES_BYTES_MAX together; the one unused for longest makes room. What is larger is
 *            found each time.
 * Errors     Those of the store, with a text. What was changed and answered before a query arrives is
 *            seen by it. */
#ifndef MIR_TLM_DEVICES_H
#define MIR_TLM_DEVICES_H

#include "mir_state.h"

enum {
    MIR_TLM_DEVICES_KEPT = 32,
    MIR_TLM_DEVICES_LIST_BYTES_MAX = 2 << 20,
    MIR_TLM_DEVICES_BYTES_MAX = 8 << 20,
};

typedef struct mir_tlm_devices mir_tlm_devices;

typedef struct mir_tlm_device_list {
    MirStore__V1__DeviceRecord *const *records;
    const mir_view *ids; /* of the records: ascending, each once */
    size_t count;
} mir_tlm_device_list;

MIR_MUST_CHECK mir_status mir_tlm_devices_create(mir_state *state, mir_tlm_devices **devices);
/* Nobody holds a list any more. */
void mir_tlm_devices_destroy(mir_tlm_devices *devices);

/* All that match. `key` is what `target` was read from: equal keys have equal targets. Null: unknown,
 * and the list is not remembered. */
MIR_MUST_CHECK mir_status mir_tlm_devices_find(mir_tlm_devices *devices, const mir_view *key,
                                               const MirApi__V1__DeviceTarget *target,
                                               const mir_tlm_device_list **list, mir_error *error);
void mir_tlm_device_list_release(const mir_tlm_device_list *list);

#endif
