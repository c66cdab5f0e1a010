/* SPDX-License-Identifier: Apache-2.0 */
/* mir-host: this machine as a device. An example to start from, and an agent to run.
 *
 * A device program has three parts: its messages (host.proto), its own work (mir_host_sampler), and
 * what is here: create, launch, send, destroy. The rest is the DeviceSDK's business. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "host_schema.h" /* generated from host.proto, see CMakeLists.txt */
#include "mir_clock.h"
#include "mir_device.h"
#include "mir_host_options.h"
#include "mir_host_sampler.h"

enum { EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };
#define ONCE_TIMEOUT_NS (10 * MIR_NS_PER_S)

typedef struct agent {
    mir_device *device;
    bool discarding; /* no server: said once, not each second */
} agent;

static void send(const ProtobufCMessage *message, void *context)
{
    agent *self = context;
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

/* Waits for `mono_ns` or a signal to stop; true for the signal. */
static bool stopped_before(const sigset_t *stop, int64_t mono_ns)
{
    for (;;) {
        int64_t left = mono_ns - mir_clock_mono_ns();
        if (left < 0) left = 0;
        struct timespec wait = {.tv_sec = left / MIR_NS_PER_S, .tv_nsec = left % MIR_NS_PER_S};
        int got = sigtimedwait(stop, NULL, &wait);
        if (got > 0) {
            mir_log_info("%s: stopping", strsignal(got));
            return true;
        }
        if (errno == EAGAIN) return false; /* EINTR: another signal, go on */
    }
}

static void run(agent *self, mir_host_sampler *sampler, const sigset_t *stop, int64_t interval_ns)
{
    /* Beats of a fixed raster: work and lateness do not add up. */
    int64_t next = mir_clock_mono_ns() + interval_ns;
    while (!stopped_before(stop, next)) {
        (void)mir_host_sampler_sample(sampler, send, self);
        int64_t now = mir_clock_mono_ns();
        next += interval_ns;
        if (next <= now) next = now + interval_ns; /* the machine slept: what is past is past */
    }
}

static bool has_greeted(mir_device *device)
{
    mir_device_stats stats;
    mir_device_get_stats(device, &stats);
    return stats.heartbeats > 0;
}

/* Waits for the hello first: a reading sent before the connection would be discarded. */
static int run_once(agent *self, mir_host_sampler *sampler, const sigset_t *stop,
                    int64_t interval_ns)
{
    int64_t until = mir_clock_mono_ns() + ONCE_TIMEOUT_NS;
    while (!has_greeted(self->device)) {
        if (stopped_before(stop, mir_clock_mono_ns() + 20 * MIR_NS_PER_MS)) return EXIT_FAILURE;
        if (mir_clock_mono_ns() < until) continue;
        mir_log_error("no server reached");
        return EXIT_UNREACHABLE;
    }
    (void)mir_host_sampler_sample(sampler, NULL, NULL);
    if (stopped_before(stop, mir_clock_mono_ns() + interval_ns)) return EXIT_FAILURE;
    int count = mir_host_sampler_sample(sampler, send, self);
    return count == 0 || self->discarding ? EXIT_FAILURE : EXIT_SUCCESS;
}

static volatile sig_atomic_t exit_code;

static void leave(int number)
{
    (void)number;
    _exit((int)exit_code);
}

static int serve(const mir_host_options *options, const sigset_t *stop)
{
    mir_device_options device_options = {
        .id = options->id,
        .target = options->target,
        .credentials_file = options->credentials_file,
        .root_ca_file = options->root_ca_file,
        .schemas = &host_schema,
        .schema_count = 1,
        .heartbeat_ns = options->heartbeat_ns,
        .reconnect_wait_ns = options->reconnect_wait_ns,
    };
    agent self = {0};
    mir_error error = {{0}};
    mir_host_sampler *sampler = malloc(sizeof *sampler);
    if (sampler == NULL) {
        fprintf(stderr, "mir-host: out of memory\n");
        return EXIT_FAILURE;
    }
    mir_status status = mir_device_create(&device_options, &self.device, &error);
    int code = status == MIR_E_INVALID ? EXIT_USAGE : EXIT_FAILURE;
    if (status == MIR_OK) {
        mir_host_sampler_init(sampler, options->proc, options->sys);
        status = mir_device_launch(self.device, &error);
        if (status == MIR_OK) {
            mir_log_info("device %s, a reading every %g s", options->id,
                         (double)options->interval_ns / (double)MIR_NS_PER_S);
            code = EXIT_SUCCESS;
            if (options->once)
                code = run_once(&self, sampler, stop, options->interval_ns);
            else
                run(&self, sampler, stop, options->interval_ns);
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
    /* Blocked before any thread exists, and waited for in sigtimedwait: no handler, no race. */
    sigset_t stop;
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGINT);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &stop, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGALRM, leave);
    return serve(&options, &stop);
}
