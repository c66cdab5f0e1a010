/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cmd_sending: one command on its way to many devices, and their answers on the way back.
 *
 * Why        Devices are checked, sent to and waited for independently: the slowest delays only the
 *            end of the whole answer. With `stream` the others' results are out before that.
 * Ownership  A sending is in its request's arena and finishes it. While a device is asked, its target
 *            belongs to the shard that asks; it comes back through the sending's inbox.
 * Affinity   An actor of its own: whatever comes back is handled by one worker at a time. Questions
 *            and answers are on the shards of the devices. A command to one device is asked on the
 *            shard of its request, and a small answer is handled there at once: nothing of that waits
 *            or reads the store.
 * Units      Time-outs in seconds, as in the request; 0 means 10.
 * Bounds     MIR_CMD_TARGETS_MAX devices at a time in all requests together, MIR_CMD_TIMEOUT_S_MAX.
 *            However many devices one request has: MIR_CMD_PER_PASS of them while a worker is at it,
 *            then others have their turn; MIR_CMD_SENT_PER_TURN questions and as many letters in a
 *            turn of a shard; MIR_CMD_STORED_AT_ONCE in one request to the store. What comes back from
 *            a device costs the same however many others there are.
 * Errors     In the entry of each device; the texts are those of docs/formats/api.md.
 *
 *   mir_cmd_sending_begin ── schema known ──▶ checked ──┬─▶ sent ──▶ answered ──▶ entry
 *                        └── asked for it ──▶ checked ──┘
 *   With queue a command is stored first, and given to the queue of its device (mir_cmd_queue.h): the
 *   entry is the device's answer, if it is there, or says that the command is queued.
 *   Unless force_push is set, nothing is sent before all are checked, nor when one is in error. */
#ifndef MIR_CMD_SENDING_H
#define MIR_CMD_SENDING_H

#include "mir_api/v1/cmd.pb-c.h"
#include "mir_request.h"

enum {
    MIR_CMD_TARGETS_MAX = 262144,
    MIR_CMD_TIMEOUT_S_DEFAULT = 10,
    MIR_CMD_TIMEOUT_S_MAX = 3600,
    MIR_CMD_TTL_S_DEFAULT = 24 * 3600,
    MIR_CMD_TTL_S_MAX = 365 * 24 * 3600,
    MIR_CMD_PER_PASS = 256,
    MIR_CMD_SENT_PER_TURN = 256,
    MIR_CMD_STORED_AT_ONCE = 1024,
    MIR_CMD_NAME_BYTES_MAX = 512,
    MIR_CMD_QUEUED_BYTES_MAX = 64 * 1024 * 1024, /* payloads of one request, together */
};

/* `records` are those of the devices, at least one. `schema`, that of the first, is null unless it is
 * at hand. On a worker, or for one device and with its schema on the shard of the request. */
void mir_cmd_sending_begin(mir_request *request, MirApi__V1__SendCommandRequest *input,
                           MirStore__V1__DeviceRecord **records, size_t count, mir_schema *schema);

#endif
