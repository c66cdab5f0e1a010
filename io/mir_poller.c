/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_poller.h"

#include <string.h>

mir_status mir_poller_choose(const char *wanted, const mir_poller_backend **backend, mir_error *why)
{
    if (strcmp(wanted, "epoll") == 0) {
        *backend = &mir_poller_epoll;
        return MIR_OK;
    }
    mir_poller *probe;
    mir_error cause = {{0}};
    mir_status status = mir_poller_uring.create(&probe, &cause);
    if (status == MIR_OK) {
        mir_poller_uring.destroy(probe);
        *backend = &mir_poller_uring;
        return MIR_OK;
    }
    if (strcmp(wanted, "auto") != 0)
        return mir_error_set(why, status, "io.backend: uring is not possible here (%s); use auto",
                             cause.text);
    *backend = &mir_poller_epoll;
    (void)mir_error_set(why, status, "io_uring is not possible here (%s): using epoll", cause.text);
    return MIR_OK;
}
