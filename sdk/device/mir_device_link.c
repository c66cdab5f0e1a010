/* SPDX-License-Identifier: Apache-2.0 */
/* The connection and the thread that looks after it. nats.c reconnects by itself; what it gives up
 * for good (it does after two refused logins) the agent tries again, at a slower pace: a device
 * that nobody can reach must come back when its account is mended. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_device_state.h"

enum { FLUSH_MS = 300, JITTER_MS = 100, JITTER_TLS_MS = 1000, REASON_BYTES = 256 };
#define SETTLE_NS          (1 * MIR_NS_PER_S)
#define REQUEST_TIMEOUT_NS (30 * MIR_NS_PER_S)
#define REFUSED_WAIT_NS    (30 * MIR_NS_PER_S)

/* ": <text>", or nothing. */
static const char *last_error(natsConnection *wire, char *reason)
{
    const char *text = NULL;
    (void)natsConnection_GetLastError(wire, &text);
    reason[0] = '\0';
    if (text != NULL && text[0] != '\0') (void)snprintf(reason, REASON_BYTES, ": %s", text);
    return reason;
}

/* The target without secrets. */
static const char *shown(const mir_device *device)
{
    const char *at = strrchr(device->target, '@');
    return at == NULL ? device->target : at + 1;
}

/* ---- Callbacks of nats.c: they only leave a note ---- */

static void came_up(natsConnection *wire, void *closure)
{
    (void)wire;
    mir_device *device = closure;
    (void)pthread_mutex_lock(&device->lock);
    device->came_up = true;
    (void)pthread_cond_broadcast(&device->changed);
    (void)pthread_mutex_unlock(&device->lock);
}

static void went_down(natsConnection *wire, void *closure)
{
    mir_device *device = closure;
    (void)pthread_mutex_lock(&device->lock);
    bool stopping = device->stopping;
    (void)pthread_mutex_unlock(&device->lock);
    if (stopping) return;
    char reason[REASON_BYTES];
    mir_device_say(device, MIR_LOG_WARN, "connection lost%s; trying again",
                   last_error(wire, reason));
}

static void gave_up(natsConnection *wire, void *closure)
{
    (void)wire;
    mir_device *device = closure;
    (void)pthread_mutex_lock(&device->lock);
    device->closed = true;
    (void)pthread_cond_broadcast(&device->changed);
    (void)pthread_mutex_unlock(&device->lock);
}

static void complain(natsConnection *wire, natsSubscription *subscription, natsStatus status,
                     void *closure)
{
    (void)subscription;
    char reason[REASON_BYTES];
    mir_device_say(closure, MIR_LOG_WARN, "connection: %s%s", natsStatus_GetText(status),
                   last_error(wire, reason));
}

static void delivery_ended(void *closure)
{
    mir_device *device = closure;
    (void)pthread_mutex_lock(&device->lock);
    device->deliveries--;
    (void)pthread_cond_broadcast(&device->changed);
    (void)pthread_mutex_unlock(&device->lock);
}

static void on_message(natsConnection *wire, natsSubscription *subscription, natsMsg *message,
                       void *closure)
{
    (void)wire;
    (void)subscription;
    mir_device_receive(closure, message);
    natsMsg_Destroy(message);
}

static void on_answer(natsConnection *wire, natsSubscription *subscription, natsMsg *message,
                      void *closure)
{
    (void)wire;
    (void)subscription;
    mir_device_receive_properties(closure, message);
    natsMsg_Destroy(message);
}

/* ---- Publishing ---- */

static mir_status status_of(natsStatus status)
{
    switch (status) {
    case NATS_OK: return MIR_OK;
    case NATS_MAX_PAYLOAD: return MIR_E_TOO_LARGE;
    case NATS_NO_MEMORY: return MIR_E_NO_MEMORY;
    case NATS_INVALID_ARG:
    case NATS_INVALID_SUBJECT: return MIR_E_INVALID;
    case NATS_CONNECTION_CLOSED: return MIR_E_CLOSED;
    case NATS_TIMEOUT: return MIR_E_TIMEOUT;
    default: return MIR_E_IO;
    }
}

mir_status mir_device_publish(mir_device *device, const char *subject, const char *reply,
                              const mir_device_header *headers, size_t header_count, mir_view bytes,
                              mir_error *error)
{
    if (bytes.size > INT32_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "a message of %zu bytes", bytes.size);
    natsMsg *message = NULL;
    natsStatus failed =
        natsMsg_Create(&message, subject, reply, (const char *)bytes.data, (int)bytes.size);
    for (size_t i = 0; failed == NATS_OK && i < header_count; i++)
        failed = natsMsgHeader_Add(message, headers[i].name, headers[i].value);
    bool online = false;
    if (failed == NATS_OK) {
        (void)pthread_rwlock_rdlock(&device->wire_lock);
        /* Not into the buffer that nats.c keeps for reconnections: what is sent after an outage,
         * and in which order, is for the persistence option to decide. */
        online = device->wire != NULL &&
                 natsConnection_Status(device->wire) == NATS_CONN_STATUS_CONNECTED;
        if (online) failed = natsConnection_PublishMsg(device->wire, message);
        (void)pthread_rwlock_unlock(&device->wire_lock);
    }
    natsMsg_Destroy(message);
    if (failed != NATS_OK)
        return mir_error_set(error, status_of(failed), "publish to %s: %s", subject,
                             natsStatus_GetText(failed));
    if (!online)
        return mir_error_set(error, MIR_E_UNREACHABLE, "not connected to %s", shown(device));
    return MIR_OK;
}

/* ---- Connecting ---- */

/* Servers of a target, in place; the text is the caller's scratch. */
static natsStatus set_servers(natsOptions *options, char *target)
{
    const char *servers[64];
    int count = 0;
    for (char *rest = target; rest != NULL && count < 64;) servers[count++] = strsep(&rest, ",");
    return natsOptions_SetServers(options, servers, count);
}

static natsStatus make_options(mir_device *device, natsOptions **out)
{
    natsOptions *options = NULL;
    char *target = strdup(device->target);
    natsStatus failed = target == NULL ? NATS_NO_MEMORY : natsOptions_Create(&options);
    if (failed == NATS_OK) failed = set_servers(options, target);
    if (failed == NATS_OK)
        failed = natsOptions_SetTimeout(options, device->connect_timeout_ns / MIR_NS_PER_MS);
    if (failed == NATS_OK) failed = natsOptions_SetMaxReconnect(options, -1);
    if (failed == NATS_OK)
        failed = natsOptions_SetReconnectWait(options, device->reconnect_wait_ns / MIR_NS_PER_MS);
    if (failed == NATS_OK)
        failed = natsOptions_SetReconnectJitter(options, JITTER_MS, JITTER_TLS_MS);
    if (failed == NATS_OK)
        failed = natsOptions_SetRetryOnFailedConnect(options, true, came_up, device);
    if (failed == NATS_OK) failed = natsOptions_SetReconnectedCB(options, came_up, device);
    if (failed == NATS_OK) failed = natsOptions_SetDisconnectedCB(options, went_down, device);
    if (failed == NATS_OK) failed = natsOptions_SetClosedCB(options, gave_up, device);
    if (failed == NATS_OK) failed = natsOptions_SetErrorHandler(options, complain, device);
    if (failed == NATS_OK && device->user != NULL)
        failed = natsOptions_SetUserInfo(options, device->user,
                                         device->password == NULL ? "" : device->password);
    if (failed == NATS_OK && device->token != NULL)
        failed = natsOptions_SetToken(options, device->token);
    if (failed == NATS_OK && device->credentials_file != NULL)
        failed = natsOptions_SetUserCredentialsFromFiles(options, device->credentials_file, NULL);
    if (failed == NATS_OK && device->root_ca_file != NULL)
        failed = natsOptions_LoadCATrustedCertificates(options, device->root_ca_file);
    if (failed == NATS_OK && device->certificate_file != NULL)
        failed =
            natsOptions_LoadCertificatesChain(options, device->certificate_file, device->key_file);
    free(target);
    if (failed == NATS_OK)
        *out = options;
    else
        natsOptions_Destroy(options);
    return failed;
}

static natsStatus subscribe(mir_device *device, natsSubscription **out, const char *subject,
                            natsMsgHandler handler)
{
    /* Counted before: the delivery thread may end at once. */
    (void)pthread_mutex_lock(&device->lock);
    device->deliveries++;
    (void)pthread_mutex_unlock(&device->lock);
    natsSubscription *subscription = NULL;
    natsStatus failed =
        natsConnection_Subscribe(&subscription, device->wire, subject, handler, device);
    if (failed == NATS_OK)
        failed = natsSubscription_SetOnCompleteCB(subscription, delivery_ended, device);
    if (failed != NATS_OK) {
        delivery_ended(device);
        natsSubscription_Destroy(subscription);
        return failed;
    }
    *out = subscription;
    return NATS_OK;
}

static mir_status link_up(mir_device *device)
{
    natsOptions *options = NULL;
    natsConnection *wire = NULL;
    natsInbox *inbox = NULL;
    char subject[MIR_DEVICE_SUBJECT_BYTES];
    char reason[REASON_BYTES];
    const char *step = "read options";
    natsStatus failed = make_options(device, &options);
    (void)pthread_mutex_lock(&device->lock);
    device->closed = false;
    (void)pthread_mutex_unlock(&device->lock);
    bool at_once = false;
    if (failed == NATS_OK) {
        step = "connect";
        failed = natsConnection_Connect(&wire, options);
        at_once = failed == NATS_OK;
        if (failed == NATS_NOT_YET_CONNECTED) {
            mir_device_say(device, MIR_LOG_WARN, "no connection to %s yet%s; trying again",
                           shown(device), last_error(wire, reason));
            failed = NATS_OK;
        }
    }
    if (failed == NATS_OK) {
        (void)pthread_rwlock_wrlock(&device->wire_lock);
        device->wire = wire;
        (void)pthread_rwlock_unlock(&device->wire_lock);
        step = "subscribe";
        (void)snprintf(subject, sizeof subject, "%s.>", device->id);
        failed = subscribe(device, &device->down, subject, on_message);
    }
    if (failed == NATS_OK) failed = natsInbox_Create(&inbox);
    if (failed == NATS_OK) {
        (void)snprintf(device->inbox, sizeof device->inbox, "%s", inbox);
        (void)snprintf(subject, sizeof subject, "%s.*", device->inbox);
        failed = subscribe(device, &device->answers, subject, on_answer);
    }
    natsInbox_Destroy(inbox);
    natsOptions_Destroy(options);
    if (failed != NATS_OK) {
        mir_device_say(device, MIR_LOG_ERROR, "%s: %s", step, natsStatus_GetText(failed));
        mir_device_link_down(device);
        return status_of(failed);
    }
    if (at_once) came_up(NULL, device);
    return MIR_OK;
}

void mir_device_link_down(mir_device *device)
{
    (void)pthread_rwlock_wrlock(&device->wire_lock);
    natsConnection *wire = device->wire;
    device->wire = NULL;
    (void)pthread_rwlock_unlock(&device->wire_lock);
    if (wire == NULL) return;
    if (natsConnection_Status(wire) == NATS_CONN_STATUS_CONNECTED)
        (void)natsConnection_FlushTimeout(wire, FLUSH_MS);
    natsConnection_Close(wire);
    /* nats.c still calls back after Close: the device must outlive the last of it. */
    (void)pthread_mutex_lock(&device->lock);
    while (!device->closed || device->deliveries > 0)
        (void)pthread_cond_wait(&device->changed, &device->lock);
    device->came_up = false;
    (void)pthread_mutex_unlock(&device->lock);
    natsSubscription_Destroy(device->down);
    natsSubscription_Destroy(device->answers);
    device->down = device->answers = NULL;
    natsConnection_Destroy(wire);
}

/* ---- The agent ---- */

static void heartbeat(mir_device *device, bool hello)
{
    static const mir_device_header headers[] = {{MIR_DEVICE_HEADER_CONTENT, "mir-hello"},
                                                {MIR_DEVICE_HEADER_ENCODING, MIR_DEVICE_ZSTD}};
    mir_view body = hello ? mir_bytes_as_view(&device->hello) : (mir_view){NULL, 0};
    mir_error error = {{0}};
    mir_status status = mir_device_publish(device, device->heartbeat_subject, NULL, headers,
                                           hello ? 2 : 0, body, &error);
    if (status == MIR_OK)
        atomic_fetch_add_explicit(&device->stats.heartbeats, 1, memory_order_relaxed);
    else if (status != MIR_E_UNREACHABLE)
        mir_device_say(device, MIR_LOG_WARN, "%s: %s", hello ? "hello" : "heartbeat", error.text);
}

static void greet(mir_device *device)
{
    char url[256] = "";
    (void)pthread_rwlock_rdlock(&device->wire_lock);
    if (device->wire != NULL) (void)natsConnection_GetConnectedUrl(device->wire, url, sizeof url);
    (void)pthread_rwlock_unlock(&device->wire_lock);
    const char *at = strrchr(url, '@'); /* what is before is secret */
    atomic_fetch_add_explicit(&device->stats.connects, 1, memory_order_relaxed);
    mir_device_say(device, MIR_LOG_INFO, "%s %s",
                   device->greeted ? "reconnected to" : "connected to", at == NULL ? url : at + 1);
    if (device->greeted) return;
    device->greeted = true;
    heartbeat(device, !device->no_schema_on_boot);
}

static bool request_properties(mir_device *device)
{
    char reply[sizeof device->inbox + 24];
    (void)pthread_mutex_lock(&device->lock);
    uint64_t number = device->request = ++device->request_count;
    (void)pthread_mutex_unlock(&device->lock);
    (void)snprintf(reply, sizeof reply, "%s.%" PRIu64, device->inbox, number);
    mir_error error = {{0}};
    if (mir_device_publish(device, device->desired_subject, reply, NULL, 0, (mir_view){NULL, 0},
                           &error) == MIR_OK)
        return true;
    mir_device_say(device, MIR_LOG_WARN, "request for desired properties: %s", error.text);
    (void)pthread_mutex_lock(&device->lock);
    device->request = 0;
    (void)pthread_mutex_unlock(&device->lock);
    return false;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* With `lock` held. */
static void wait_until(mir_device *device, int64_t mono_ns)
{
    struct timespec at = {.tv_sec = mono_ns / MIR_NS_PER_S, .tv_nsec = mono_ns % MIR_NS_PER_S};
    (void)pthread_cond_timedwait(&device->changed, &device->lock, &at);
}

void *mir_device_agent(void *argument)
{
    mir_device *device = argument;
    int64_t beat_at = mir_clock_mono_ns() + device->heartbeat_ns;
    int64_t connect_at = 0;    /* when there is no connection at all */
    int64_t request_at = 0;    /* desired properties; 0: not planned */
    int64_t request_until = 0; /* of the open request; 0: none */
    uint64_t request_number = 0;
    (void)pthread_mutex_lock(&device->lock);
    while (!device->stopping) {
        int64_t now = mir_clock_mono_ns();
        bool begun = device->came_up;
        bool over = device->closed;
        device->came_up = false;
        if (request_until != 0 && device->request != request_number)
            request_until = 0; /* answered */
        bool late = request_until != 0 && now >= request_until;
        if (late) device->request = request_until = 0;
        (void)pthread_mutex_unlock(&device->lock);

        if (over && device->wire != NULL) {
            char reason[REASON_BYTES];
            mir_device_say(device, MIR_LOG_ERROR, "%s refuses this device%s; trying again in %d s",
                           shown(device), last_error(device->wire, reason),
                           (int)(REFUSED_WAIT_NS / MIR_NS_PER_S));
            mir_device_link_down(device);
            connect_at = now + REFUSED_WAIT_NS;
        } else if (device->wire == NULL && now >= connect_at) {
            if (link_up(device) != MIR_OK) connect_at = now + device->reconnect_wait_ns;
            now = mir_clock_mono_ns();
        } else if (begun) {
            greet(device);
            request_at = now + SETTLE_NS;
        }
        if (late) {
            mir_device_say(device, MIR_LOG_WARN, "desired properties: no answer within %d s",
                           (int)(REQUEST_TIMEOUT_NS / MIR_NS_PER_S));
            mir_device_deliver_stored(device);
        }
        if (request_at != 0 && now >= request_at) {
            request_at = 0;
            if (request_properties(device)) {
                request_number = device->request_count; /* only this thread changes it */
                request_until = now + REQUEST_TIMEOUT_NS;
            }
        }
        if (now >= beat_at) {
            heartbeat(device, false);
            beat_at += device->heartbeat_ns;
            if (beat_at <= now) beat_at = now + device->heartbeat_ns; /* the machine slept */
        }

        (void)pthread_mutex_lock(&device->lock);
        if (device->stopping || device->came_up || (device->closed && device->wire != NULL))
            continue;
        int64_t wake_at = beat_at;
        if (device->wire == NULL) wake_at = sooner(wake_at, connect_at);
        if (request_at != 0) wake_at = sooner(wake_at, request_at);
        if (request_until != 0) wake_at = sooner(wake_at, request_until);
        wait_until(device, wake_at);
    }
    (void)pthread_mutex_unlock(&device->lock);
    return NULL;
}
