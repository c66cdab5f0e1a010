/* SPDX-License-Identifier: Apache-2.0 */
/* The position of the telemetry sink, of any bytes. Its checksum is repaired first, or no mutation would
 * get past it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_tlog_code.h"
#include "mir_tlog_position.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    if (copy == NULL) return 0;
    if (size > 0) memcpy(copy, data, size);
    if (size >= 24) {
        (void)mir_tlog_put_u32(copy + 12, (uint32_t)(size - 24));
        (void)mir_tlog_put_u64(
            copy + 16, XXH3_64bits_withSeed(copy + 24, size - 24, mir_tlog_get_u64(copy + 8)));
    }
    mir_tlog_position position;
    if (mir_tlog_position_parse(mir_view_of(copy, size), &position, NULL) == MIR_OK) {
        MIR_ASSERT(position.log_count <= MIR_TLOG_POSITION_LOGS_MAX);
        uint64_t sum = 0;
        for (uint32_t i = 0; i < position.log_count; i++) {
            sum += position.logs[i].generation ^ position.logs[i].offset ^ position.logs[i].rows;
        }
        MIR_ASSERT(position.log_count > 0 || sum == 0);
        mir_tlog_position_fini(&position);
    }
    free(copy);
    return 0;
}
