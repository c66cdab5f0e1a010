/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one scenario with the C client and prints what it saw, a fact a line. */

#include <inttypes.h>
#include <nats/nats.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { deadline_ms = 10000, messages = 5000, members = 3 };

static void must(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        fprintf(stderr, "failed: %s: %s\n", what, natsStatus_GetText(status));
        exit(1);
    }
}

static void fact_int(const char *name, int64_t value)
{
    printf("%s=%" PRId64 "\n", name, value);
    fflush(stdout);
}

static void fact_text(const char *name, const char *value)
{
    printf("%s=%s\n", name, value);
    fflush(stdout);
}

static natsConnection *connect_to(const char *url)
{
    natsConnection *connection = NULL;
    must(natsConnection_ConnectTo(&connection, url), "connect");
    return connection;
}

static void flush(natsConnection *connection)
{
    must(natsConnection_FlushTimeout(connection, deadline_ms), "flush");
}

/* Awaits a counter that a callback raises. */
static bool await_count(atomic_int *counter, int wanted)
{
    int64_t end = nats_Now() + deadline_ms;
    while (atomic_load(counter) < wanted && nats_Now() < end) nats_Sleep(1);
    return atomic_load(counter) >= wanted;
}

static void pubsub(const char *url)
{
    natsConnection *receiver = connect_to(url);
    natsConnection *sender = connect_to(url);
    natsSubscription *subscription = NULL;
    must(natsConnection_SubscribeSync(&subscription, receiver, "news.*"), "subscribe");
    flush(receiver);
    char text[16];
    for (int i = 0; i < messages; i++) {
        snprintf(text, sizeof text, "%d", i);
        must(natsConnection_PublishString(sender, "news.x", text), "publish");
    }
    flush(sender);
    for (int i = 0; i < messages; i++) {
        natsMsg *message = NULL;
        must(natsSubscription_NextMsg(&message, subscription, deadline_ms), "next message");
        snprintf(text, sizeof text, "%d", i);
        if (strcmp(natsMsg_GetData(message), text) != 0 ||
            strcmp(natsMsg_GetSubject(message), "news.x") != 0)
            must(NATS_ERR, "order");
        natsMsg_Destroy(message);
    }
    fact_int("received", messages);
    must(natsSubscription_AutoUnsubscribe(subscription, messages + 2), "auto unsubscribe");
    flush(receiver);
    for (int i = 0; i < 6; i++)
        must(natsConnection_PublishString(sender, "news.x", "more"), "publish");
    flush(sender);
    int more = 0;
    natsMsg *message = NULL;
    while (natsSubscription_NextMsg(&message, subscription, 200) == NATS_OK) {
        more++;
        natsMsg_Destroy(message);
    }
    fact_int("limited", more);
    natsSubscription_Destroy(subscription);
    natsConnection_Destroy(receiver);
    natsConnection_Destroy(sender);
}

static void count_message(natsConnection *connection, natsSubscription *subscription,
                          natsMsg *message, void *closure)
{
    (void)connection;
    (void)subscription;
    natsMsg_Destroy(message);
    atomic_fetch_add((atomic_int *)closure, 1);
}

static void queue(const char *url)
{
    atomic_int counts[members] = {0};
    natsConnection *connections[members];
    natsSubscription *subscriptions[members];
    for (int i = 0; i < members; i++) {
        connections[i] = connect_to(url);
        must(natsConnection_QueueSubscribe(&subscriptions[i], connections[i], "work.>", "q",
                                           count_message, &counts[i]),
             "queue subscribe");
        flush(connections[i]);
    }
    natsConnection *sender = connect_to(url);
    for (int i = 0; i < messages; i++)
        must(natsConnection_PublishString(sender, "work.x", "w"), "publish");
    flush(sender);
    int64_t end = nats_Now() + deadline_ms;
    int sum = 0;
    while (sum < messages && nats_Now() < end) {
        nats_Sleep(1);
        sum = 0;
        for (int i = 0; i < members; i++) sum += atomic_load(&counts[i]);
    }
    int idle = 0;
    for (int i = 0; i < members; i++) {
        flush(connections[i]);
        idle += atomic_load(&counts[i]) == 0;
    }
    fact_int("received", sum);
    fact_int("idle_members", idle);
    for (int i = 0; i < members; i++) {
        natsSubscription_Destroy(subscriptions[i]);
        natsConnection_Destroy(connections[i]);
    }
    natsConnection_Destroy(sender);
}

static void answer(natsConnection *connection, natsSubscription *subscription, natsMsg *message,
                   void *closure)
{
    (void)subscription;
    (void)closure;
    natsMsg *reply = NULL;
    const char *asked = NULL;
    if (natsMsgHeader_Get(message, "mir-msg", &asked) != NATS_OK) asked = "";
    must(natsMsg_Create(&reply, natsMsg_GetReply(message), NULL, natsMsg_GetData(message),
                        natsMsg_GetDataLength(message)),
         "create reply");
    must(natsMsgHeader_Set(reply, "mir-msg", "answer"), "set header");
    must(natsMsgHeader_Set(reply, "asked", asked), "set header");
    must(natsConnection_PublishMsg(connection, reply), "publish reply");
    natsMsg_Destroy(reply);
    natsMsg_Destroy(message);
}

static void request(const char *url)
{
    natsConnection *service = connect_to(url);
    natsSubscription *subscription = NULL;
    must(natsConnection_QueueSubscribe(&subscription, service, "svc.echo", "svc", answer, NULL),
         "subscribe");
    flush(service);
    natsConnection *asker = connect_to(url);
    natsMsg *ask = NULL, *reply = NULL;
    must(natsMsg_Create(&ask, "svc.echo", NULL, "payload", 7), "create");
    must(natsMsgHeader_Set(ask, "mir-msg", "question"), "set header");
    must(natsConnection_RequestMsg(&reply, asker, ask, deadline_ms), "request");
    const char *value = "";
    fact_text("data", natsMsg_GetData(reply));
    must(natsMsgHeader_Get(reply, "mir-msg", &value), "header");
    fact_text("header", value);
    must(natsMsgHeader_Get(reply, "asked", &value), "header");
    fact_text("asked", value);
    natsMsg_Destroy(reply);
    natsMsg_Destroy(ask);
    int good = 0;
    for (int i = 0; i < 500; i++) {
        natsStatus status =
            natsConnection_RequestString(&reply, asker, "svc.echo", "again", deadline_ms);
        good += status == NATS_OK && strcmp(natsMsg_GetData(reply), "again") == 0;
        natsMsg_Destroy(reply);
        reply = NULL;
    }
    fact_int("repeated", good);
    natsStatus status = natsConnection_RequestString(&reply, asker, "svc.nobody", "", deadline_ms);
    fact_text("no_responders", natsStatus_GetText(status));
    natsSubscription_Destroy(subscription);
    natsConnection_Destroy(service);
    natsConnection_Destroy(asker);
}

static void count_event(natsConnection *connection, void *closure)
{
    (void)connection;
    atomic_fetch_add((atomic_int *)closure, 1);
}

static void drain(const char *url)
{
    static atomic_int received, closed;
    natsOptions *options = NULL;
    natsConnection *receiver = NULL;
    natsSubscription *subscription = NULL;
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, url), "url");
    must(natsOptions_SetClosedCB(options, count_event, &closed), "closed callback");
    must(natsConnection_Connect(&receiver, options), "connect");
    must(natsConnection_Subscribe(&subscription, receiver, "drain", count_message, &received),
         "subscribe");
    flush(receiver);
    natsConnection *sender = connect_to(url);
    for (int i = 0; i < messages; i++)
        must(natsConnection_PublishString(sender, "drain", "x"), "publish");
    flush(sender);
    must(natsConnection_Drain(receiver), "drain");
    fact_text("closed", await_count(&closed, 1) ? "true" : "false");
    fact_int("received", atomic_load(&received));
    natsMsg *reply = NULL;
    natsStatus status = natsConnection_RequestString(&reply, sender, "drain", "", deadline_ms);
    fact_text("gone", natsStatus_GetText(status));
    natsSubscription_Destroy(subscription);
    natsConnection_Destroy(receiver);
    natsConnection_Destroy(sender);
    natsOptions_Destroy(options);
}

static void limits(const char *url)
{
    natsConnection *connection = connect_to(url);
    int64_t payload_bytes_max = natsConnection_GetMaxPayload(connection);
    fact_int("max_payload", payload_bytes_max);
    char *body = calloc(1, (size_t)payload_bytes_max + 1);
    if (body == NULL) must(NATS_NO_MEMORY, "body");
    natsStatus status = natsConnection_Publish(connection, "a", body, (int)payload_bytes_max + 1);
    fact_text("too_large", natsStatus_GetText(status));
    natsSubscription *subscription = NULL;
    natsMsg *message = NULL;
    must(natsConnection_SubscribeSync(&subscription, connection, "a"), "subscribe");
    must(natsConnection_Publish(connection, "a", body, (int)payload_bytes_max), "publish");
    must(natsSubscription_NextMsg(&message, subscription, deadline_ms), "next message");
    fact_int("largest", natsMsg_GetDataLength(message));
    natsMsg_Destroy(message);
    natsSubscription_Destroy(subscription);
    natsConnection_Destroy(connection);
    free(body);
}

static void note_error(natsConnection *connection, natsSubscription *subscription,
                       natsStatus status, void *closure)
{
    (void)subscription;
    const char *text = "";
    (void)natsConnection_GetLastError(connection, &text);
    fact_text("status", natsStatus_GetText(status));
    fact_text("text", text);
    atomic_fetch_add((atomic_int *)closure, 1);
}

static void permissions(const char *url)
{
    static atomic_int errors;
    natsOptions *options = NULL;
    natsConnection *connection = NULL;
    natsSubscription *plain = NULL, *queued = NULL;
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, url), "url");
    must(natsOptions_SetUserInfo(options, "u", "p"), "user");
    must(natsOptions_SetErrorHandler(options, note_error, &errors), "error handler");
    must(natsConnection_Connect(&connection, options), "connect");
    must(natsConnection_PublishString(connection, "no.publish", ""), "publish");
    flush(connection);
    (void)await_count(&errors, 1);
    must(natsConnection_SubscribeSync(&plain, connection, "no.plain"), "subscribe");
    flush(connection);
    (void)await_count(&errors, 2);
    must(natsConnection_QueueSubscribeSync(&queued, connection, "no.queued", "work"), "subscribe");
    flush(connection);
    fact_text("errors", await_count(&errors, 3) ? "3" : "fewer");
    flush(connection);
    fact_text("connected",
              natsConnection_Status(connection) == NATS_CONN_STATUS_CONNECTED ? "true" : "false");
    natsSubscription_Destroy(plain);
    natsSubscription_Destroy(queued);
    natsConnection_Destroy(connection);
    must(natsOptions_SetUserInfo(options, "u", "wrong"), "user");
    natsStatus status = natsConnection_Connect(&connection, options);
    fact_text("wrong_password", natsStatus_GetText(status));
    natsOptions_Destroy(options);
}

/* Lines on standard input say what to do next; the test kills and restarts the server meanwhile. */
static void reconnect(const char *url)
{
    static atomic_int reconnected, received;
    natsOptions *options = NULL;
    natsConnection *connection = NULL;
    natsSubscription *plain = NULL, *queued = NULL;
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, url), "url");
    must(natsOptions_SetMaxReconnect(options, 1000), "max reconnect");
    must(natsOptions_SetReconnectWait(options, 50), "reconnect wait");
    must(natsOptions_SetReconnectedCB(options, count_event, &reconnected), "callback");
    must(natsConnection_Connect(&connection, options), "connect");
    must(natsConnection_Subscribe(&plain, connection, "self.>", count_message, &received),
         "subscribe");
    must(
        natsConnection_QueueSubscribe(&queued, connection, "queued", "q", count_message, &received),
        "subscribe");
    flush(connection);
    fact_text("ready", "true");
    char line[64];
    int rounds = 0, wanted = 0;
    while (fgets(line, sizeof line, stdin) != NULL && strncmp(line, "end", 3) != 0) {
        if (strncmp(line, "await-reconnect", 15) == 0) {
            if (!await_count(&reconnected, ++rounds)) must(NATS_TIMEOUT, "reconnect");
            fact_text("reconnected", "true");
        } else if (strncmp(line, "publish", 7) == 0) {
            must(natsConnection_PublishString(connection, "self.x", "x"), "publish");
            must(natsConnection_PublishString(connection, "queued", "x"), "publish");
            flush(connection);
            wanted += 2;
            if (!await_count(&received, wanted)) must(NATS_TIMEOUT, "messages");
            fact_int("received", atomic_load(&received));
        }
    }
    natsSubscription_Destroy(plain);
    natsSubscription_Destroy(queued);
    natsConnection_Destroy(connection);
    natsOptions_Destroy(options);
}

static void lameduck(const char *url)
{
    static atomic_int notices;
    natsOptions *options = NULL;
    natsConnection *connection = NULL;
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, url), "url");
    must(natsOptions_SetAllowReconnect(options, false), "no reconnect");
    must(natsOptions_SetLameDuckModeCB(options, count_event, &notices), "callback");
    must(natsConnection_Connect(&connection, options), "connect");
    fact_text("ready", "true");
    fact_text("notice", await_count(&notices, 1) ? "true" : "false");
    natsConnection_Destroy(connection);
    natsOptions_Destroy(options);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const char *url);
    } scenarios[] = {
        {"pubsub", pubsub},       {"queue", queue},       {"request", request},
        {"drain", drain},         {"limits", limits},     {"permissions", permissions},
        {"reconnect", reconnect}, {"lameduck", lameduck},
    };
    for (size_t i = 0; argc == 3 && i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(scenarios[i].name, argv[1]) == 0) {
            scenarios[i].run(argv[2]);
            fact_text("done", "true");
            nats_Close();
            return 0;
        }
    }
    fprintf(stderr, "usage: interop SCENARIO URL\n");
    return 2;
}
