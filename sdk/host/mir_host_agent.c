/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_host_agent.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host.pb-c.h"
#include "mir_clock.h"
#include "mir_host_options.h"
#include "mir_host_top.h"

enum { TOP_DEFAULT = 10 };
#define TOP_WINDOW_NS (250 * MIR_NS_PER_MS)

static double seconds(int64_t ns)
{
    return (double)ns / (double)MIR_NS_PER_S;
}

static mir_status on_ping(mir_device *device, const ProtobufCMessage *command,
                          mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    (void)command;
    (void)error;
    const mir_host_agent *agent = context;
    char time[MIR_CLOCK_TEXT_BYTES];
    (void)mir_clock_rfc3339(mir_clock_wall_ns(), time);
    Host__V1__Pong pong = HOST__V1__PONG__INIT;
    pong.time = time;
    pong.uptime = seconds(mir_clock_read(CLOCK_BOOTTIME));
    pong.agent_uptime = seconds(mir_clock_mono_ns() - agent->started_ns);
    return mir_device_reply_message(reply, &pong.base);
}

static mir_status on_top_processes(mir_device *device, const ProtobufCMessage *command,
                                   mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    const mir_host_agent *agent = context;
    uint32_t count = ((const Host__V1__TopProcesses *)command)->count;
    mir_host_top top;
    mir_status status = mir_host_top_read(agent->proc, TOP_WINDOW_NS,
                                          count == 0 ? TOP_DEFAULT : count, &top, error);
    if (status != MIR_OK) return status;
    Host__V1__Processes__Process items[MIR_HOST_TOP_MAX];
    Host__V1__Processes__Process *list[MIR_HOST_TOP_MAX];
    for (size_t i = 0; i < top.count; i++) {
        host__v1__processes__process__init(&items[i]);
        items[i].pid = top.items[i].pid;
        items[i].name = top.items[i].name;
        items[i].cpu = top.items[i].cpu;
        items[i].memory = top.items[i].memory;
        list[i] = &items[i];
    }
    Host__V1__Processes processes = HOST__V1__PROCESSES__INIT;
    processes.n_process = top.count;
    processes.process = list;
    processes.total = (uint32_t)top.total;
    return mir_device_reply_message(reply, &processes.base);
}

int64_t mir_host_agent_interval(uint32_t interval_ms, int64_t own_interval_ns)
{
    int64_t ns = (int64_t)interval_ms * MIR_NS_PER_MS;
    if (ns == 0) return own_interval_ns;
    if (ns < MIR_HOST_INTERVAL_MIN_NS) return MIR_HOST_INTERVAL_MIN_NS;
    return ns > MIR_HOST_INTERVAL_MAX_NS ? MIR_HOST_INTERVAL_MAX_NS : ns;
}

static void on_sampling(mir_device *device, const ProtobufCMessage *value, void *context)
{
    (void)device;
    mir_host_agent *agent = context;
    uint32_t wanted = ((const Host__V1__Sampling *)value)->interval_ms;
    atomic_store(&agent->interval_ns, mir_host_agent_interval(wanted, agent->own_interval_ns));
    atomic_store(&agent->unreported, true);
    /* It can only fail when it is readable anyway. */
    (void)eventfd_write(agent->wake, 1);
}

mir_status mir_host_agent_init(mir_host_agent *agent, const char *proc, int64_t interval_ns,
                               mir_error *error)
{
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake < 0) return mir_error_os(error, errno, "eventfd");
    *agent = (mir_host_agent){.proc = proc,
                              .started_ns = mir_clock_mono_ns(),
                              .own_interval_ns = interval_ns,
                              .interval_ns = interval_ns,
                              .unreported = true,
                              .wake = wake};
    return MIR_OK;
}

void mir_host_agent_fini(mir_host_agent *agent)
{
    (void)close(agent->wake);
}

mir_status mir_host_agent_register(mir_host_agent *agent, mir_device *device, mir_error *error)
{
    mir_status status = mir_device_on_command(device, &host__v1__ping__descriptor, on_ping, agent);
    if (status == MIR_OK)
        status = mir_device_on_command(device, &host__v1__top_processes__descriptor,
                                       on_top_processes, agent);
    if (status == MIR_OK)
        status =
            mir_device_on_property(device, &host__v1__sampling__descriptor, on_sampling, agent);
    return status == MIR_OK
               ? MIR_OK
               : mir_error_set(error, status, "register handlers: %s", mir_status_name(status));
}

void mir_host_agent_report(mir_host_agent *agent, mir_device *device)
{
    /* Not before the launch is through: what is in force until then is not what will be. */
    if (!atomic_load(&agent->unreported) || mir_device_await_ready(device, 0) != MIR_OK) return;
    atomic_store(&agent->unreported, false); /* first: a value that comes now is reported, too */
    Host__V1__Sampling sampling = HOST__V1__SAMPLING__INIT;
    sampling.interval_ms = (uint32_t)(atomic_load(&agent->interval_ns) / MIR_NS_PER_MS);
    mir_error error = {{0}};
    mir_status status = mir_device_send_property(device, &sampling.base, &error);
    if (status == MIR_OK) return;
    atomic_store(&agent->unreported, true);
    if (status != MIR_E_UNREACHABLE) mir_log_warn("report the sampling: %s", error.text);
}
