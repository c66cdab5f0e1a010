/* SPDX-License-Identifier: Apache-2.0 */
/* Usage: probe ID TARGET CALLS [STATE_DIR]. Every call of a handler becomes a line of the file
 * CALLS, written with one write, so that it is there whatever happens to the process next. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "mir_clock.h"
#include "mir_device.h"
#include "probe.pb-c.h"
#include "probe_schema.h"

static int calls;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned met;
static bool released;

static void called(const char *who, const char *what)
{
    char line[256];
    int size = snprintf(line, sizeof line, "%s %s\n", who, what);
    if (write(calls, line, (size_t)size) != size) _exit(9);
}

static void stay(void)
{
    (void)pthread_mutex_lock(&lock);
    while (!released) (void)pthread_cond_wait(&changed, &lock);
    (void)pthread_mutex_unlock(&lock);
}

static mir_status on_echo(mir_device *device, const ProtobufCMessage *command,
                          mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    (void)error;
    called(context, ((const Probe__V1__Echo *)command)->text);
    return mir_device_reply_message(reply, command);
}

static mir_status on_echo_raw(mir_device *device, const char *name, mir_view command,
                              mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    (void)context;
    (void)error;
    called("raw", name);
    return mir_device_reply_raw(reply, name, command);
}

static mir_status on_nothing(mir_device *device, const ProtobufCMessage *command,
                             mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    (void)command;
    (void)reply;
    (void)context;
    (void)error;
    called("nothing", "");
    return MIR_OK;
}

static mir_status on_fail(mir_device *device, const ProtobufCMessage *command,
                          mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    (void)context;
    const Probe__V1__Fail *fail = (const Probe__V1__Fail *)command;
    /* What was answered before the failure does not count. */
    mir_status status = mir_device_reply_message(reply, command);
    if (status != MIR_OK || fail->text.len == 0) return MIR_E_TIMEOUT;
    return mir_error_set(error, MIR_E_INVALID, "%.*s", (int)fail->text.len,
                         (const char *)fail->text.data);
}

static mir_status on_meet(mir_device *device, const ProtobufCMessage *command,
                          mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    (void)context;
    (void)error;
    unsigned count = ((const Probe__V1__Meet *)command)->count;
    (void)pthread_mutex_lock(&lock);
    met++;
    (void)pthread_cond_broadcast(&changed);
    while (met < count) (void)pthread_cond_wait(&changed, &lock);
    (void)pthread_mutex_unlock(&lock);
    return mir_device_reply_message(reply, command);
}

static mir_status on_stay(mir_device *device, const ProtobufCMessage *command,
                          mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    (void)context;
    (void)error;
    called("stay", ((const Probe__V1__Stay *)command)->text);
    stay();
    return mir_device_reply_message(reply, command);
}

static mir_status on_release(mir_device *device, const ProtobufCMessage *command,
                             mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    (void)command;
    (void)reply;
    (void)context;
    (void)error;
    (void)pthread_mutex_lock(&lock);
    released = true;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
    return MIR_OK;
}

static void on_mode(mir_device *device, const ProtobufCMessage *value, void *context)
{
    (void)device;
    const char *text = ((const Probe__V1__Mode *)value)->text;
    called(context, text);
    if (strcmp(text, "stay") == 0) stay();
}

static void on_level(mir_device *device, const ProtobufCMessage *value, void *context)
{
    (void)device;
    char text[16];
    (void)snprintf(text, sizeof text, "%d", ((const Probe__V1__Level *)value)->level);
    called(context, text);
}

static mir_status on_register_late(mir_device *device, const ProtobufCMessage *command,
                                   mir_device_reply *reply, void *context, mir_error *error)
{
    (void)command;
    (void)reply;
    (void)context;
    (void)error;
    mir_status status =
        mir_device_on_property(device, &probe__v1__mode__descriptor, on_mode, (void *)"late");
    if (status == MIR_OK)
        status = mir_device_on_property(device, &probe__v1__level__descriptor, on_level,
                                        (void *)"level");
    if (status == MIR_OK)
        status = mir_device_on_command(device, &probe__v1__echo__descriptor, on_echo,
                                       (void *)"echo-late");
    return status;
}

static mir_status on_report(mir_device *device, const ProtobufCMessage *command,
                            mir_device_reply *reply, void *context, mir_error *error)
{
    (void)reply;
    (void)context;
    Probe__V1__Level level = PROBE__V1__LEVEL__INIT;
    level.level = ((const Probe__V1__Report *)command)->level;
    return mir_device_send_property(device, &level.base, error);
}

static mir_status register_all(mir_device *device)
{
    const struct {
        const ProtobufCMessageDescriptor *type;
        mir_device_command_handler handler;
        const char *context;
    } commands[] = {{&probe__v1__echo__descriptor, on_echo, "echo-replaced"},
                    {&probe__v1__echo__descriptor, on_echo, "echo"},
                    {&probe__v1__nothing__descriptor, on_nothing, NULL},
                    {&probe__v1__fail__descriptor, on_fail, NULL},
                    {&probe__v1__meet__descriptor, on_meet, NULL},
                    {&probe__v1__stay__descriptor, on_stay, NULL},
                    {&probe__v1__release__descriptor, on_release, NULL},
                    {&probe__v1__register_late__descriptor, on_register_late, NULL},
                    {&probe__v1__report__descriptor, on_report, NULL}};
    mir_status status = mir_device_on_command_raw(device, "probe.v1.EchoRaw", on_echo_raw, NULL);
    for (size_t i = 0; status == MIR_OK && i < sizeof commands / sizeof commands[0]; i++)
        status = mir_device_on_command(device, commands[i].type, commands[i].handler,
                                       (void *)commands[i].context);
    if (status == MIR_OK)
        status =
            mir_device_on_property(device, &probe__v1__mode__descriptor, on_mode, (void *)"first");
    if (status == MIR_OK)
        status =
            mir_device_on_property(device, &probe__v1__mode__descriptor, on_mode, (void *)"second");
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    sigset_t stop;
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &stop, NULL);
    calls = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    mir_device_options options = {
        .id = argv[1],
        .target = argv[2],
        .schemas = &probe_schema,
        .schema_count = 1,
        .reconnect_wait_ns = 20 * MIR_NS_PER_MS,
        .heartbeat_ns = 500 * MIR_NS_PER_MS,
        .state_dir = argc > 4 ? argv[4] : NULL,
    };
    mir_device *device = NULL;
    mir_error error = {{0}};
    mir_status status = mir_device_create(&options, &device, &error);
    if (status == MIR_OK) status = register_all(device);
    if (status == MIR_OK) status = mir_device_launch(device, &error);
    if (status == MIR_OK) {
        int number;
        (void)sigwait(&stop, &number);
    } else {
        fprintf(stderr, "probe: %s\n", error.text);
    }
    mir_device_destroy(device);
    return status == MIR_OK ? 0 : 1;
}
