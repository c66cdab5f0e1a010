/* SPDX-License-Identifier: Apache-2.0 */
/* mir_limits: the bounds that are not configuration. Each line says what it protects. */
#ifndef MIR_LIMITS_H
#define MIR_LIMITS_H

enum {
    MIR_SHARDS_MAX = 64,               /* fits the shard field of a subscription reference */
    MIR_PARTITIONS = 64,               /* device ids hash to these; a shard owns several */
    MIR_RING_SLOTS = 4096,             /* parcels between one ordered pair of shards */
    MIR_RING_SLOTS_RESERVED = 1024,    /* of which kept for what the server itself sends */
    MIR_RECV_BUFFER_BYTES = 16 * 1024, /* one receive; a longer message is assembled */
    MIR_RECV_BUFFERS = 1024,           /* per shard */
    MIR_TURN_EVENTS_MAX = 1024,        /* completions handled before the other phases run */
    MIR_TURN_PARCELS_MAX = 4096,       /* from each neighbour in one drain: all that a ring holds */
    MIR_TIMER_TICK_MS = 10,
    MIR_SUBJECT_TOKENS_MAX = 2048, /* as many as a control line of the default size holds */
    MIR_DEVICE_ID_BYTES_MAX = 128,
    MIR_CLOSE_LINGER_MS = 1000, /* reading on after an error text was sent */
};

#endif
