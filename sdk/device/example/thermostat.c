/* SPDX-License-Identifier: Apache-2.0 */
/* A thermostat in a simulated room: telemetry each second, a command, a property. The guide to
 * devices (docs/device-sdk.md) goes through this file. Usage: thermostat [ID [TARGET]] */
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

#include "mir_clock.h"
#include "mir_device.h"
#include "thermostat.pb-c.h"
#include "thermostat_schema.h"

typedef struct thermostat {
    _Atomic double target;       /* °C; handlers run on threads of the library */
    _Atomic int64_t boost_until; /* seconds since 1970 */
} thermostat;

static mir_status on_boost(mir_device *device, const ProtobufCMessage *command,
                           mir_device_reply *reply, void *context, mir_error *error)
{
    (void)device;
    thermostat *self = context;
    const Thermostat__V1__Boost *boost = (const Thermostat__V1__Boost *)command;
    if (boost->minutes < 1 || boost->minutes > 120)
        return mir_error_set(error, MIR_E_INVALID, "minutes must be between 1 and 120");
    int64_t until = mir_clock_wall_ns() / MIR_NS_PER_S + boost->minutes * INT64_C(60);
    atomic_store(&self->boost_until, until);
    Thermostat__V1__BoostStarted started = THERMOSTAT__V1__BOOST_STARTED__INIT;
    started.until = until;
    return mir_device_reply_message(reply, &started.base);
}

static void on_target(mir_device *device, const ProtobufCMessage *value, void *context)
{
    thermostat *self = context;
    const Thermostat__V1__Target *target = (const Thermostat__V1__Target *)value;
    /* The default of a property that nobody has set yet is zero. */
    double wanted = target->temperature == 0 ? 19 : target->temperature;
    atomic_store(&self->target, wanted);
    Thermostat__V1__TargetStatus status = THERMOSTAT__V1__TARGET_STATUS__INIT;
    status.temperature = wanted;
    mir_error error;
    if (mir_device_send_property(device, &status.base, &error) != MIR_OK)
        mir_log_warn("report target: %s", error.text);
}

static bool is_heating(thermostat *self, double room)
{
    bool boosted = mir_clock_wall_ns() / MIR_NS_PER_S < atomic_load(&self->boost_until);
    return boosted || room < atomic_load(&self->target);
}

int main(int argc, char **argv)
{
    /* Blocked before the library's threads exist: signals wait for sigtimedwait below. */
    sigset_t stop;
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGINT);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &stop, NULL);

    thermostat self = {.target = 19};
    mir_device_options options = {
        .id = argc > 1 ? argv[1] : "thermostat",
        .target = argc > 2 ? argv[2] : NULL,
        .schemas = &thermostat_schema,
        .schema_count = 1,
    };
    mir_device *device = NULL;
    mir_error error = {{0}};
    mir_status status = mir_device_create(&options, &device, &error);
    if (status == MIR_OK)
        status = mir_device_on_command(device, &thermostat__v1__boost__descriptor, on_boost, &self);
    if (status == MIR_OK)
        status =
            mir_device_on_property(device, &thermostat__v1__target__descriptor, on_target, &self);
    if (status == MIR_OK) status = mir_device_launch(device, &error);
    if (status != MIR_OK) {
        fprintf(stderr, "thermostat: %s\n", error.text);
        mir_device_destroy(device);
        return 1;
    }

    double room = 17;
    const struct timespec second = {.tv_sec = 1};
    while (sigtimedwait(&stop, NULL, &second) < 0) {
        bool heating = is_heating(&self, room);
        room += (heating ? 0.1 : 0) + (15 - room) * 0.01;
        Thermostat__V1__Climate climate = THERMOSTAT__V1__CLIMATE__INIT;
        climate.ts = mir_clock_wall_ns();
        climate.temperature = round(room * 100) / 100;
        climate.heating = heating;
        status = mir_device_send_telemetry(device, &climate.base, &error);
        if (status != MIR_OK && status != MIR_E_UNREACHABLE) mir_log_warn("send: %s", error.text);
    }
    mir_device_destroy(device);
    return 0;
}
