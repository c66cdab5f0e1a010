/* SPDX-License-Identifier: Apache-2.0 */
/* mir-host: this machine as a device. An example to start from, and an agent to run.
 *
 * A device program has four parts: its messages (host.proto), its own work (mir_host_sampler), what
 * it can be asked (mir_host_agent), and what is here: create, register, launch, send, destroy. The
 * rest is the DeviceSDK's business. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "host_schema.h" /* generated from host.proto, see CMakeLists.txt */
#include "mir_clock.h"
#include "mir_device.h"
#include "mir_host_agent.h"
#include "mir_host_options.h"
#include "mir_host_sampler.h"

enum { EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };
#define ONCE_TIMEOUT_NS (10 * MIR_NS_PER_S)
#define REPORT_WAIT_NS  (500 * MIR_NS_PER_MS) /* between two looks whether a report can be sent */

typedef struct program {
    mir_device *device;
    mir_host_agent agent;
    int stop;        /* signalfd */
    bool discarding; /* no server: said once, not each second */
} program;

static void send(const ProtobufCMessage *message, void *context)
{
    program *self = context;
    mir_error error = {{0}};
    mir_status status = mir_device_send_telemetry(self->device, message, &error);
    if (status == MIR_E_UNREACHABLE) {
        if (!self->discarding) mir_log_warn("readings are discarded until there is a connection");
        self->discarding = true;
        return;
    }
    self->discarding = false;
    if (status != MIR_OK) mir_log_warn("%s: %s", message->descriptor->name, error.text);
}

typedef enum wake { WAKE_TIME, WAKE_AGENT, WAKE_STOP } wake;

/* Waits until `mono_ns`, a signal to stop, or something new for the agent. */
static wake wait_until(program *self, int64_t mono_ns)
{
    for (;;) {
        int64_t left = mono_ns - mir_clock_mono_ns();
        if (left < 0) left = 0;
        struct timespec time = {.tv_sec = left / MIR_NS_PER_S, .tv_nsec = left % MIR_NS_PER_S};
        struct pollfd waiting[] = {{.fd = self->stop, .events = POLLIN},
                                   {.fd = self->agent.wake, .events = POLLIN}};
        int ready = ppoll(waiting, 2, &time, NULL);
        if (ready < 0 && errno == EINTR) continue;
        struct signalfd_siginfo signal;
        if (ready > 0 && waiting[0].revents != 0 &&
            read(self->stop, &signal, sizeof signal) == sizeof signal) {
            mir_log_info("%s: stopping", strsignal((int)signal.ssi_signo));
            return WAKE_STOP;
        }
        eventfd_t count;
        if (ready > 0 && waiting[1].revents != 0 && eventfd_read(self->agent.wake, &count) == 0)
            return WAKE_AGENT;
        if (ready == 0) return WAKE_TIME;
    }
}

static void run(program *self, mir_host_sampler *sampler)
{
    int64_t interval = atomic_load(&self->agent.interval_ns);
    /* Beats of a fixed raster: work and lateness do not add up. */
    int64_t next = mir_clock_mono_ns() + interval;
    for (;;) {
        int64_t until = next;
        if (atomic_load(&self->agent.unreported)) {
            int64_t again = mir_clock_mono_ns() + REPORT_WAIT_NS;
            if (again < until) until = again;
        }
        if (wait_until(self, until) == WAKE_STOP) return;
        int64_t wanted = atomic_load(&self->agent.interval_ns);
        if (wanted != interval) {
            mir_log_info("a reading every %g s", (double)wanted / (double)MIR_NS_PER_S);
            next += wanted - interval; /* from the reading before, not from now */
            interval = wanted;
        }
        mir_host_agent_report(&self->agent, self->device);
        int64_t now = mir_clock_mono_ns();
        if (now < next) continue;
        (void)mir_host_sampler_sample(sampler, send, self);
        now = mir_clock_mono_ns();
        next += interval;
        if (next <= now) next = now + interval; /* the machine slept: what is past is past */
    }
}

static bool has_greeted(mir_device *device)
{
    mir_device_stats stats;
    mir_device_get_stats(device, &stats);
    return stats.heartbeats > 0;
}

/* Waits for a moment; the agent may be woken meanwhile. */
static bool stopped_before(program *self, int64_t mono_ns)
{
    wake why;
    while ((why = wait_until(self, mono_ns)) == WAKE_AGENT) {
    }
    return why == WAKE_STOP;
}

/* Waits for the hello first: a reading sent before the connection would be discarded. */
static int run_once(program *self, mir_host_sampler *sampler)
{
    int64_t until = mir_clock_mono_ns() + ONCE_TIMEOUT_NS;
    while (!has_greeted(self->device)) {
        if (stopped_before(self, mir_clock_mono_ns() + 20 * MIR_NS_PER_MS)) return EXIT_FAILURE;
        if (mir_clock_mono_ns() < until) continue;
        mir_log_error("no server reached");
        return EXIT_UNREACHABLE;
    }
    (void)mir_host_sampler_sample(sampler, NULL, NULL);
    if (stopped_before(self, mir_clock_mono_ns() + self->agent.own_interval_ns))
        return EXIT_FAILURE;
    int count = mir_host_sampler_sample(sampler, send, self);
    return count == 0 || self->discarding ? EXIT_FAILURE : EXIT_SUCCESS;
}

static volatile sig_atomic_t exit_code;

static void leave(int number)
{
    (void)number;
    _exit((int)exit_code);
}

/* A state directory that was named must be usable. The one that nobody named is a matter of luck:
 * a container may have no home, and a second agent of one id its own server. */
static mir_status create(const mir_host_options *options, mir_device **device, mir_error *error)
{
    char state_dir[MIR_PATH_BYTES_MAX];
    mir_device_options device_options = {
        .id = options->id,
        .target = options->target,
        .credentials_file = options->credentials_file,
        .root_ca_file = options->root_ca_file,
        .schemas = &host_schema,
        .schema_count = 1,
        .heartbeat_ns = options->heartbeat_ns,
        .reconnect_wait_ns = options->reconnect_wait_ns,
        .state_dir = options->state_dir,
    };
    if (options->state_dir != NULL) return mir_device_create(&device_options, device, error);
    mir_error why = {"no home directory is known; see --state"};
    if (mir_host_default_state_dir(state_dir) == MIR_OK) {
        device_options.state_dir = state_dir;
        mir_status status = mir_device_create(&device_options, device, &why);
        if (status == MIR_OK) return MIR_OK;
        device_options.state_dir = NULL;
    }
    mir_status status = mir_device_create(&device_options, device, error);
    if (status == MIR_OK)
        mir_log_warn("which commands ran is known as long as this process lives: %s", why.text);
    return status;
}

static int serve(const mir_host_options *options, const sigset_t *stop)
{
    program self = {.stop = signalfd(-1, stop, SFD_CLOEXEC | SFD_NONBLOCK)};
    mir_error error = {{0}};
    mir_host_sampler *sampler = malloc(sizeof *sampler);
    if (sampler == NULL || self.stop < 0 ||
        mir_host_agent_init(&self.agent, options->proc, options->interval_ns, &error) != MIR_OK) {
        fprintf(stderr, "mir-host: out of memory or of descriptors\n");
        if (self.stop >= 0) (void)close(self.stop);
        free(sampler);
        return EXIT_FAILURE;
    }
    mir_status status = create(options, &self.device, &error);
    int code = status == MIR_E_INVALID ? EXIT_USAGE : EXIT_FAILURE;
    if (status == MIR_OK) status = mir_host_agent_register(&self.agent, self.device, &error);
    if (status == MIR_OK) {
        mir_host_sampler_init(sampler, options->proc, options->sys);
        status = mir_device_launch(self.device, &error);
        if (status == MIR_OK) {
            mir_log_info("device %s, a reading every %g s", options->id,
                         (double)options->interval_ns / (double)MIR_NS_PER_S);
            code = EXIT_SUCCESS;
            if (options->once)
                code = run_once(&self, sampler);
            else
                run(&self, sampler);
        }
        mir_host_sampler_fini(sampler);
    }
    if (status != MIR_OK) fprintf(stderr, "mir-host: %s\n", error.text);
    /* A connection attempt to a host that does not answer holds mir_device_close for two seconds.
     * Nothing is left to save by then, and who stops an agent should not wait. */
    exit_code = code;
    (void)alarm(1);
    mir_device_destroy(self.device);
    (void)alarm(0);
    mir_host_agent_fini(&self.agent);
    (void)close(self.stop);
    free(sampler);
    return code;
}

int main(int argc, char **argv)
{
    mir_host_options options;
    mir_error error = {{0}};
    if (mir_host_options_parse(argc, argv, &options, &error) != MIR_OK) {
        fprintf(stderr, "mir-host: %s\nTry 'mir-host --help'.\n", error.text);
        return EXIT_USAGE;
    }
    if (options.action == MIR_HOST_HELP) {
        fputs(mir_host_help, stdout);
        return EXIT_SUCCESS;
    }
    if (options.action == MIR_HOST_VERSION) {
        printf("mir-host %s\n", MIR_VERSION);
        return EXIT_SUCCESS;
    }
    mir_log_set_level(options.log_level);
    /* Blocked before any thread exists, and read from a signalfd: no handler, no race. */
    sigset_t stop;
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGINT);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &stop, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGALRM, leave);
    return serve(&options, &stop);
}
