/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_thread.h"

#include <sched.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mir_clock.h"

/* As the kernel had it first, which every kernel takes. The C library has no name for it yet, or one
 * that would clash with the kernel's. */
typedef struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
} attributes;

void mir_thread_lower(pid_t thread)
{
    (void)setpriority(PRIO_PROCESS, (id_t)thread, MIR_THREAD_NICE_LAST);
}

void mir_thread_give_way(int nice_level)
{
    if (nice_level != 0) (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice_level);
    attributes now = {0};
    if (syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) != 0) return;
    now.runtime_ns = (uint64_t)MIR_THREAD_SLICE_US * 1000;
    (void)syscall(SYS_sched_setattr, 0, &now, 0);
}

void mir_thread_offer(void)
{
    static _Thread_local int64_t offered_ns;
    const int64_t now_ns = mir_clock_mono_ns();
    if (now_ns - offered_ns < MIR_THREAD_OFFER_US * MIR_NS_PER_US) return;
    offered_ns = now_ns;
    (void)sched_yield();
}

bool mir_thread_beside(pthread_attr_t *fresh)
{
    cpu_set_t allowed;
    const int here = sched_getcpu();
    if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return false;
    CPU_CLR(here, &allowed);
    return CPU_COUNT(&allowed) > 0 &&
           pthread_attr_setaffinity_np(fresh, sizeof allowed, &allowed) == 0;
}
