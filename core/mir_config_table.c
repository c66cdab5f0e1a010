/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_config_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_limits.h"

#define MS    MIR_NS_PER_MS
#define S     MIR_NS_PER_S
#define HOUR  (INT64_C(3600) * S)
#define DAY   (24 * HOUR)
#define KIB   (INT64_C(1) << 10)
#define MIB   (INT64_C(1) << 20)
#define GIB   (INT64_C(1) << 30)
#define TIB   (INT64_C(1) << 40)
#define AT(m) offsetof(mir_config, m)

static const char *const levels[] = {"error", "warn", "info", "debug", "trace", NULL};
static const char *const backends[] = {"auto", "uring", "epoll", NULL};
static const char *const auth_modes[] = {"none", "token", "users", NULL};
static const char *const explorers[] = {"flux", "influxql", NULL};
static const char *const compressions[] = {"none", "gzip", NULL};
static const char *const sync_modes[] = {"commit", "interval", "off", NULL};

/* The positions in the lists above are the values of the enums. */
_Static_assert(MIR_LOG_TRACE == 4, "levels");
_Static_assert(MIR_CONFIG_BACKEND_EPOLL == 2, "backends");
_Static_assert(MIR_CONFIG_AUTH_USERS == 2, "auth modes");
_Static_assert(MIR_CONFIG_EXPLORE_INFLUXQL == 1, "explorers");
_Static_assert(MIR_CONFIG_COMPRESSION_GZIP == 1, "compressions");
_Static_assert(MIR_CONFIG_SYNC_OFF == 2, "sync modes");
_Static_assert(sizeof(mir_log_level) == sizeof(int), "choices are stored as int");

/* clang-format off */
const mir_config_key mir_config_keys[] = {
    {"shards", MIR_CONFIG_COUNT, AT(shards), "0", 0, MIR_SHARDS_MAX, NULL, NULL,
     "Threads that serve connections and devices; 0 is one for each core. May change between runs."},
    {"spin_us", MIR_CONFIG_COUNT, AT(spin_us), "auto", 0, 100000, NULL, "auto",
     "How long an idle shard looks for work before it sleeps, in microseconds. Costs a core and saves\n"
     "a wake-up, which dominates a quiet round trip. auto is 0 on two cores or fewer, else 50."},
    {"data", MIR_CONFIG_PATH, AT(data), NULL, 0, 0, NULL, NULL,
     "The directory that holds everything. Without it $MIR_DATA, or /var/lib/mir for root, or\n"
     "$XDG_DATA_HOME/mir, or ~/.local/share/mir."},
    {"listen", MIR_CONFIG_LISTEN, AT(listen), "127.0.0.1:4222", 0, 0, NULL, NULL,
     "Where devices and clients connect. An address that others can reach needs auth.mode. In YAML,\n"
     "quote an address in brackets: \"[::1]:4222\"."},
    {"admin", MIR_CONFIG_PATH, AT(admin), NULL, 0, 0, NULL, NULL,
     "The unix socket for the command line, for root and the owner alone; admin.sock in the data\n"
     "directory unless set."},
    {"log.level", MIR_CONFIG_CHOICE, AT(log.level), "info", 0, 0, levels, NULL,
     "The least important lines that are still written."},
    {"io.backend", MIR_CONFIG_CHOICE, AT(io.backend), "auto", 0, 0, backends, NULL,
     "auto takes io_uring, and epoll where the kernel or a container refuses io_uring."},
    {"io.together", MIR_CONFIG_COUNT, AT(io.together), "4", 0, 1000000, NULL, NULL,
     "How many connections share the first shard before further ones are spread. Two on one shard\n"
     "answer each other with one wake-up less; spread, they use more cores."},
    {"limits.max_connections", MIR_CONFIG_COUNT, AT(limits.max_connections), "64000", 1, 10000000,
     NULL, NULL, "Connections at one time. Each needs a file descriptor (see ulimit -n)."},
    {"limits.max_payload", MIR_CONFIG_SIZE, AT(limits.max_payload_bytes), "8MiB", 1, 64 * MIB,
     NULL, NULL, "The largest message, its headers included."},
    {"limits.max_pending", MIR_CONFIG_SIZE, AT(limits.max_pending_bytes), "64MiB", 1, 16 * GIB,
     NULL, NULL, "What may wait for a connection that reads slowly, before it is closed."},
    {"limits.max_control_line", MIR_CONFIG_SIZE, AT(limits.max_control_line_bytes), "4096", 64,
     64 * KIB, NULL, NULL, "The longest protocol line without its payload."},
    {"limits.max_subscriptions", MIR_CONFIG_COUNT, AT(limits.max_subscriptions), "0", 0, 1000000000,
     NULL, NULL, "Subscriptions of one connection; 0 is no bound."},
    {"limits.max_subscription_tokens", MIR_CONFIG_COUNT, AT(limits.max_subscription_tokens), "0", 0,
     MIR_SUBJECT_TOKENS_MAX, NULL, NULL,
     "Tokens in the subject of a subscription; 0 is no bound but the server's own."},
    {"limits.device_rate", MIR_CONFIG_COUNT, AT(limits.device_rate), "1000000", 0, 1000000000, NULL,
     NULL,
     "Telemetry messages a second that one device may send, averaged over a second; 0: any number.\n"
     "What is more is refused and counted for that device."},
    {"limits.write_deadline", MIR_CONFIG_DURATION, AT(limits.write_deadline_ns), "10s", MS, DAY,
     NULL, NULL, "How long a peer may take to accept what is written to it, before it is closed."},
    {"ping.interval", MIR_CONFIG_DURATION, AT(ping.interval_ns), "2m", 10 * MS, DAY, NULL, NULL,
     "How often a silent connection is asked whether it is there."},
    {"ping.max", MIR_CONFIG_COUNT, AT(ping.max), "2", 1, 1000, NULL, NULL,
     "Questions that may stay unanswered before it is closed."},
    {"auth.mode", MIR_CONFIG_CHOICE, AT(auth.mode), "none", 0, 0, auth_modes, NULL,
     "Who may connect over the network: everybody, who knows auth.token, or auth.users. As long as\n"
     "it is not written out, the server listens on loopback only."},
    {"auth.token", MIR_CONFIG_TEXT, AT(auth.token), NULL, 0, 0, NULL, NULL,
     "The secret of auth.mode token, plain or as a bcrypt hash."},
    {"auth.timeout", MIR_CONFIG_DURATION, AT(auth.timeout_ns), "2s", 10 * MS, HOUR, NULL, NULL,
     "How long a new connection may take to say who it is."},
    {"auth.no_auth_user", MIR_CONFIG_TEXT, AT(auth.no_auth_user), NULL, 0, 0, NULL, NULL,
     "The user of auth.users that a connection without credentials becomes."},
    {"auth.default_permissions", MIR_CONFIG_PERMISSIONS, AT(auth.default_permissions), NULL, 0, 0,
     NULL, NULL, "The permissions of users that have none of their own, in the form shown below."},
    {"auth.users", MIR_CONFIG_USERS, AT(auth.users), NULL, 0, 0, NULL, NULL,
     "Users of auth.mode users. A password is plain or a bcrypt hash. deny wins over allow; without\n"
     "an allow list everything is allowed, with an empty one nothing. Example:\n"
     "  - user: pump-7\n"
     "    password: $2b$11$…\n"
     "    permissions:\n"
     "      publish: {allow: [pump-7.>], deny: [pump-7.secret]}\n"
     "      subscribe: {allow: [pump-7.>, _INBOX.>, \"jobs.* workers\"]}  # subject, or subject queue\n"
     "      allow_responses: {max: 1, expires: 2m}  # or true; -1 is without bound"},
    {"lame_duck.duration", MIR_CONFIG_DURATION, AT(lame_duck.duration_ns), "2m", 0, DAY, NULL, NULL,
     "Over how long connections are closed one by one after SIGUSR2."},
    {"lame_duck.grace_period", MIR_CONFIG_DURATION, AT(lame_duck.grace_period_ns), "10s", 0, DAY,
     NULL, NULL, "How long they stay untouched at first; part of the duration."},
    {"presence.offline_after", MIR_CONFIG_DURATION, AT(presence.offline_after_ns), "30s", 100 * MS,
     DAY, NULL, NULL, "A device without a heartbeat for this long is offline."},
    {"schema.request_timeout", MIR_CONFIG_DURATION, AT(schema.request_timeout_ns), "7s", 10 * MS,
     HOUR, NULL, NULL, "How long a device may take to send its schema when it is asked."},
    {"telemetry.sync", MIR_CONFIG_DURATION, AT(telemetry.sync_ns), "100ms", MS, 60 * S, NULL, NULL,
     "Telemetry is on disk this long after it arrived: what a power cut may cost."},
    {"telemetry.log_bytes_max", MIR_CONFIG_SIZE, AT(telemetry.log_bytes_max), "64MiB", MIB, TIB,
     NULL, NULL, "The unsealed log of one shard; bounds the time that a start takes."},
    {"telemetry.retention.age", MIR_CONFIG_DURATION, AT(telemetry.retention_age_ns), "0", 0,
     36500 * DAY, NULL, NULL, "Telemetry older than this is deleted; 0 keeps it for ever."},
    {"telemetry.retention.size", MIR_CONFIG_SIZE, AT(telemetry.retention_size_bytes), "0", 0,
     1024 * TIB, NULL, NULL, "The oldest telemetry is deleted beyond this size; 0 is no bound."},
    {"telemetry.retention.clock_wait", MIR_CONFIG_DURATION, AT(telemetry.clock_wait_ns), "7d", 0,
     36500 * DAY, NULL, NULL,
     "A clock that is more than a day ahead of the time that was known makes telemetry old only when\n"
     "it has stayed so for this long, or for as long as it is kept; 0 believes it at once."},
    {"telemetry.retention.rules", MIR_CONFIG_RULES, AT(telemetry), NULL, 0, 0, NULL, NULL,
     "How long the telemetry of some namespaces and messages is kept, instead of\n"
     "telemetry.retention.age: the first rule that fits counts. A rule with a namespace fits devices\n"
     "that are in it now, one with `deleted: true` those that are there no more; * is any run of\n"
     "characters. An age of 0 is for ever. With `rollup: false`, and of deleted devices, no rollups stay.\n"
     "Example:\n"
     "  rules:\n"
     "    - {namespace: plant-*, message: env.v1.*, age: 7d}\n"
     "    - {message: audit.v1.Entry, age: 0}\n"
     "    - {deleted: true, age: 1d}"},
    {"telemetry.rollup.1m", MIR_CONFIG_DURATION, AT(telemetry.rollup_ns[0]), "90d", 0, 36500 * DAY,
     NULL, "off",
     "When telemetry goes because of its age, what its minutes came to (count, smallest, largest,\n"
     "sum, first and last of each field) is kept for so long; 0 keeps it for ever, off makes none.\n"
     "Longer steps are kept for at least as long as shorter ones."},
    {"telemetry.rollup.10m", MIR_CONFIG_DURATION, AT(telemetry.rollup_ns[1]), "365d", 0,
     36500 * DAY, NULL, "off", "The same for ten minutes."},
    {"telemetry.rollup.1h", MIR_CONFIG_DURATION, AT(telemetry.rollup_ns[2]), "1825d", 0,
     36500 * DAY, NULL, "off", "The same for hours."},
    {"telemetry.disk_reserve", MIR_CONFIG_SIZE, AT(telemetry.disk_reserve_bytes), "256MiB", 0,
     1024 * TIB, NULL, NULL,
     "With less of the disk free than this, or than a sixteenth of the disk if that is less,\n"
     "telemetry is refused until there is more; 0 is never."},
    {"telemetry.future_limit", MIR_CONFIG_DURATION, AT(telemetry.future_limit_ns), "1d", 0,
     36500 * DAY, NULL, NULL,
     "Telemetry that says it is from so much later than now is refused; 0 is never."},
    {"telemetry.explore", MIR_CONFIG_CHOICE, AT(telemetry.explore), "flux", 0, 0, explorers, NULL,
     "The language of the queries that a list of telemetry comes with, for tools that show it."},
    {"telemetry.sink.url", MIR_CONFIG_TEXT, AT(telemetry.sink.url), NULL, 0, 0, NULL, NULL,
     "Where telemetry is forwarded to as Influx line protocol, from when this is set on, such as\n"
     "http://127.0.0.1:8428/write (VictoriaMetrics) or http://127.0.0.1:8086/write?db=mir (InfluxDB 1).\n"
     "Whatever the other side has not accepted is kept in the data directory."},
    {"telemetry.sink.user", MIR_CONFIG_TEXT, AT(telemetry.sink.user), NULL, 0, 0, NULL, NULL,
     "The name to log in with there."},
    {"telemetry.sink.password", MIR_CONFIG_TEXT, AT(telemetry.sink.password), NULL, 0, 0, NULL, NULL,
     "The password of telemetry.sink.user."},
    {"telemetry.sink.token", MIR_CONFIG_TEXT, AT(telemetry.sink.token), NULL, 0, 0, NULL, NULL,
     "Sent as `Authorization: Token …` instead of a name and a password."},
    {"telemetry.sink.ca_file", MIR_CONFIG_PATH, AT(telemetry.sink.ca_file), NULL, 0, 0, NULL, NULL,
     "The certificates (PEM) that vouch for an https:// URL; those of the system unless set."},
    {"telemetry.sink.compression", MIR_CONFIG_CHOICE, AT(telemetry.sink.compression), "none", 0, 0,
     compressions, NULL,
     "gzip sends about a tenth of the bytes and takes more of a processor. VictoriaMetrics, InfluxDB\n"
     "and Telegraf take it."},
    {"telemetry.sink.rules", MIR_CONFIG_FORWARDS, AT(telemetry.sink), NULL, 0, 0, NULL, NULL,
     "What is forwarded: the first rule that fits counts, and what none fits stays here. Without rules\n"
     "everything goes. A rule with a namespace fits devices that are in it when their rows go out; * is\n"
     "any run of characters. Example:\n"
     "  rules:\n"
     "    - {namespace: test-*, forward: false}\n"
     "    - {message: env.v1.*}"},
    {"telemetry.sink.batch_lines", MIR_CONFIG_COUNT, AT(telemetry.sink.batch_lines), "10000", 1,
     1000000, NULL, NULL, "Rows that one request has at most."},
    {"telemetry.sink.batch_bytes", MIR_CONFIG_SIZE, AT(telemetry.sink.batch_bytes), "2MiB", 1024,
     64 * MIB, NULL, NULL, "Size of one request at most, and one row more."},
    {"telemetry.sink.linger", MIR_CONFIG_DURATION, AT(telemetry.sink.linger_ns), "1s", 10 * MS, HOUR,
     NULL, NULL, "How long rows gather before they are sent when all others are."},
    {"telemetry.sink.timeout", MIR_CONFIG_DURATION, AT(telemetry.sink.timeout_ns), "30s", 10 * MS,
     HOUR, NULL, NULL, "How long one request may take before it is tried again."},
    {"telemetry.sink.spool_bytes_max", MIR_CONFIG_SIZE, AT(telemetry.sink.spool_bytes_max), "1GiB",
     MIB, 1024 * TIB, NULL, NULL,
     "Telemetry that waits to be forwarded takes up to this much of the disk beyond what the log\n"
     "needs itself; the oldest goes first, which is an event and stands in the server's log."},
    {"http.listen", MIR_CONFIG_LISTEN, AT(http.listen), "off", 0, 0, NULL, "off",
     "Where dashboards query telemetry as if this were InfluxDB 1.x, such as 127.0.0.1:8086. They log\n"
     "in as clients do. There is no encryption: beyond this machine, put a proxy with TLS before it."},
    {"http.threads", MIR_CONFIG_COUNT, AT(http.threads), "2", 1, 64, NULL, NULL,
     "Queries over HTTP that run at one time; others wait."},
    {"http.max_connections", MIR_CONFIG_COUNT, AT(http.max_connections), "64", 1, 10000, NULL, NULL,
     "Connections over HTTP at one time."},
    {"http.timeout", MIR_CONFIG_DURATION, AT(http.timeout_ns), "30s", 10 * MS, HOUR, NULL, NULL,
     "How long a query over HTTP may take, with its waiting, before it is cancelled."},
    {"events.retention", MIR_CONFIG_RETENTION, AT(events), NULL, 0, 0, NULL, NULL,
     "How long events are kept, by their reason; `default` is that of all others: 90d unless it is\n"
     "given. 0 is for ever. Example:\n"
     "  retention: {default: 30d, DeviceOnline: 7d, DeviceOffline: 7d, DeviceDeleted: 0}"},
    {"state.sync", MIR_CONFIG_CHOICE, AT(state.sync), "commit", 0, 0, sync_modes, NULL,
     "commit: whatever was answered with ok survives a power cut. interval and off are for\n"
     "benchmarks: a power cut may then lose changes that were answered with ok."},
    {"state.map_size", MIR_CONFIG_SIZE, AT(state.map_size_bytes), "16GiB", MIB, 64 * TIB, NULL, NULL,
     "How large the state store may grow. Address space, not memory: only what is used costs."},
};
/* clang-format on */

const size_t mir_config_key_count = sizeof mir_config_keys / sizeof mir_config_keys[0];
_Static_assert(sizeof mir_config_keys / sizeof mir_config_keys[0] <= MIR_CONFIG_KEYS_MAX,
               "one bit per key marks those that a file has set");

const mir_config_key *mir_config_key_find(const char *name)
{
    for (size_t i = 0; i < mir_config_key_count; i++)
        if (strcmp(mir_config_keys[i].name, name) == 0) return &mir_config_keys[i];
    return NULL;
}

bool mir_config_is_section(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < mir_config_key_count; i++) {
        const char *key = mir_config_keys[i].name;
        if (strncmp(key, name, length) == 0 && key[length] == '.') return true;
    }
    return false;
}

bool mir_config_key_is_scalar(const mir_config_key *key)
{
    return key->kind != MIR_CONFIG_PERMISSIONS && key->kind != MIR_CONFIG_USERS &&
           key->kind != MIR_CONFIG_RETENTION && key->kind != MIR_CONFIG_RULES &&
           key->kind != MIR_CONFIG_FORWARDS;
}

/* The shortest exact spelling: a whole number of the largest unit that divides it. */
static void spell(const mir_config_key *key, int64_t value, char *text, size_t size)
{
    static const struct {
        const char *name;
        int64_t factor;
    } sizes[] = {{"TiB", TIB}, {"GiB", GIB}, {"MiB", MIB}, {"KiB", KIB}, {"B", 1}},
      times[] = {{"d", DAY}, {"h", HOUR}, {"m", 60 * S}, {"s", S}, {"ms", MS}, {"ns", 1}};
    if (value != 0 && key->kind == MIR_CONFIG_SIZE) {
        size_t i = 0;
        while (value % sizes[i].factor != 0) i++;
        (void)snprintf(text, size, "%lld%s", (long long)(value / sizes[i].factor), sizes[i].name);
    } else if (value != 0 && key->kind == MIR_CONFIG_DURATION) {
        size_t i = 0;
        while (value % times[i].factor != 0) i++;
        (void)snprintf(text, size, "%lld%s", (long long)(value / times[i].factor), times[i].name);
    } else {
        (void)snprintf(text, size, "%lld", (long long)value);
    }
}

void mir_config_key_accepted(const mir_config_key *key, char *text, size_t size)
{
    char minimum[32];
    char maximum[32];
    spell(key, key->minimum, minimum, sizeof minimum);
    spell(key, key->maximum, maximum, sizeof maximum);
    switch (key->kind) {
    case MIR_CONFIG_COUNT:
        (void)snprintf(text, size, "%s%sa number from %s to %s",
                       key->automatic != NULL ? key->automatic : "",
                       key->automatic != NULL ? ", or " : "", minimum, maximum);
        break;
    case MIR_CONFIG_DURATION:
        (void)snprintf(text, size, "a duration from %s to %s, such as 100ms, 10s, 2m or 1h30m",
                       minimum, maximum);
        break;
    case MIR_CONFIG_SIZE:
        (void)snprintf(text, size, "a size from %s to %s, in bytes or such as 64KiB, 8MiB or 8MB",
                       minimum, maximum);
        break;
    case MIR_CONFIG_CHOICE: {
        size_t used = 0;
        for (size_t i = 0; key->choices[i] != NULL && used < size; i++) {
            const char *joint = i == 0 ? "" : key->choices[i + 1] == NULL ? " or " : ", ";
            used += (size_t)snprintf(text + used, size - used, "%s%s", joint, key->choices[i]);
        }
        break;
    }
    case MIR_CONFIG_TEXT: (void)snprintf(text, size, "a text"); break;
    case MIR_CONFIG_PATH: (void)snprintf(text, size, "a path"); break;
    case MIR_CONFIG_LISTEN:
        (void)snprintf(
            text, size, "%s%sADDRESS:PORT, such as 127.0.0.1:4222, 0.0.0.0:4222 or \"[::1]:4222\"",
            key->automatic != NULL ? key->automatic : "", key->automatic != NULL ? ", or " : "");
        break;
    case MIR_CONFIG_PERMISSIONS:
        (void)snprintf(text, size,
                       "{publish: {allow: [..], deny: [..]}, subscribe: {allow: [..], "
                       "deny: [..]}, allow_responses: {max: 1, expires: 2m}}");
        break;
    case MIR_CONFIG_USERS:
        (void)snprintf(text, size, "a list of {user: .., password: .., permissions: {..}}");
        break;
    case MIR_CONFIG_RULES:
        (void)snprintf(text, size, "a list of {namespace: .., message: .., age: 7d}");
        break;
    case MIR_CONFIG_FORWARDS:
        (void)snprintf(text, size, "a list of {namespace: .., message: .., forward: true}");
        break;
    case MIR_CONFIG_RETENTION:
        (void)snprintf(text, size,
                       "a time for each reason, such as {default: 90d, DeviceOnline: "
                       "7d}; 0 is for ever");
        break;
    }
}

/* Levenshtein's distance, in one row. */
static size_t distance(const char *a, const char *b)
{
    size_t row[MIR_CONFIG_NAME_BYTES_MAX + 1];
    size_t b_length = strlen(b);
    MIR_ASSERT(b_length <= MIR_CONFIG_NAME_BYTES_MAX);
    for (size_t j = 0; j <= b_length; j++) row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 1; j <= b_length; j++) {
            size_t best = diagonal + (a[i] == b[j - 1] ? 0 : 1);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_length];
}

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot == NULL ? name : dot + 1;
}

/* The nearest key, or null when none is near enough to be meant. */
static const char *nearest(const char *name)
{
    const char *found = NULL;
    size_t found_distance = SIZE_MAX;
    for (size_t i = 0; i < mir_config_key_count; i++) {
        const char *key = mir_config_keys[i].name;
        size_t d = distance(name, key);
        /* Forgetting or mistaking the section is likelier than several slips of the hand. */
        size_t d_last = distance(last_part(name), last_part(key)) + 1;
        if (d_last < d) d = d_last;
        if (d < found_distance) {
            found = key;
            found_distance = d;
        }
    }
    return found_distance <= 1 + strlen(last_part(name)) / 3 ? found : NULL;
}

void mir_config_section_keys(const char *section, char *text, size_t size)
{
    bool top = section[0] == '\0';
    size_t prefix = top ? 0 : strlen(section) + 1;
    int header = top ? snprintf(text, size, "; the keys here are")
                     : snprintf(text, size, "; the keys of %s are", section);
    size_t used = header < 0 ? 0 : (size_t)header;
    const char *previous = "";
    size_t previous_length = 0;
    for (size_t i = 0; i < mir_config_key_count && used < size; i++) {
        const char *key = mir_config_keys[i].name;
        if (!top && (strncmp(key, section, prefix - 1) != 0 || key[prefix - 1] != '.')) continue;
        /* A section inside shows once, by its name. */
        size_t length = strcspn(key + prefix, ".");
        if (length == previous_length && strncmp(previous, key + prefix, length) == 0) continue;
        used += (size_t)snprintf(text + used, size - used, "%s %.*s",
                                 previous_length == 0 ? "" : ",", (int)length, key + prefix);
        previous = key + prefix;
        previous_length = length;
    }
}

void mir_config_key_nearest(const char *name, char *text, size_t size)
{
    const char *found = nearest(name);
    if (found != NULL) {
        (void)snprintf(text, size, "; did you mean %s?", found);
        return;
    }
    char section[MIR_CONFIG_NAME_BYTES_MAX];
    (void)snprintf(section, sizeof section, "%s", name);
    char *dot = strrchr(section, '.');
    if (dot != NULL) *dot = '\0';
    mir_config_section_keys(dot != NULL && mir_config_is_section(section) ? section : "", text,
                            size);
}

MIR_MUST_CHECK static mir_status set_number(const mir_config_key *key, const char *text,
                                            int64_t *value, mir_error *error)
{
    if (key->automatic != NULL && strcmp(text, key->automatic) == 0) {
        *value = -1;
        return MIR_OK;
    }
    int64_t number = 0;
    if (key->kind == MIR_CONFIG_COUNT) {
        char *end;
        errno = 0;
        number = strtoll(text, &end, 10);
        if (errno != 0 || end == text || *end != '\0' || text[0] == '+' || text[0] == ' ')
            return mir_error_set(error, MIR_E_INVALID, "\"%.64s\" is not a number", text);
    } else {
        mir_status status = key->kind == MIR_CONFIG_SIZE
                                ? mir_config_parse_size(text, &number, error)
                                : mir_config_parse_duration(text, &number, error);
        if (status != MIR_OK) return status;
    }
    if (number < key->minimum || number > key->maximum)
        return mir_error_set(error, MIR_E_INVALID, "%.64s is out of bounds", text);
    *value = number;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status set_scalar(const mir_config_key *key, mir_config *config,
                                            const char *text, mir_error *error)
{
    unsigned char *member = (unsigned char *)config + key->offset;
    switch (key->kind) {
    case MIR_CONFIG_COUNT:
    case MIR_CONFIG_DURATION:
    case MIR_CONFIG_SIZE: {
        int64_t value = 0;
        mir_status status = set_number(key, text, &value, error);
        if (status == MIR_OK) memcpy(member, &value, sizeof value);
        return status;
    }
    case MIR_CONFIG_CHOICE:
        for (int i = 0; key->choices[i] != NULL; i++) {
            if (strcmp(key->choices[i], text) != 0) continue;
            memcpy(member, &i, sizeof i);
            return MIR_OK;
        }
        return mir_error_set(error, MIR_E_INVALID, "\"%.64s\" is none of its values", text);
    case MIR_CONFIG_LISTEN: {
        mir_config_listen listen = {.host = ""};
        mir_status status = key->automatic != NULL && strcmp(text, key->automatic) == 0
                                ? MIR_OK
                                : mir_config_parse_listen(text, &listen, error);
        if (status == MIR_OK) memcpy(member, &listen, sizeof listen);
        return status;
    }
    case MIR_CONFIG_TEXT:
    case MIR_CONFIG_PATH: {
        char *copy = NULL;
        if (text[0] == '\0') return mir_error_set(error, MIR_E_INVALID, "is empty");
        if (key->kind == MIR_CONFIG_PATH && text[0] == '~')
            return mir_error_set(error, MIR_E_INVALID, "~ is not expanded here, write it out");
        copy = mir_arena_strdup(&config->arena, mir_view_cstr(text));
        if (copy == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        memcpy(member, &copy, sizeof copy);
        return MIR_OK;
    }
    case MIR_CONFIG_PERMISSIONS:
    case MIR_CONFIG_USERS:
    case MIR_CONFIG_RULES:
    case MIR_CONFIG_FORWARDS:
    case MIR_CONFIG_RETENTION: break;
    }
    return mir_error_set(error, MIR_E_INVALID, "\"%.64s\" is a single value", text);
}

mir_status mir_config_key_set(const mir_config_key *key, mir_config *config, const char *text,
                              mir_error *error)
{
    mir_error reason = {.text = "has no value"};
    mir_status status = text == NULL ? MIR_E_INVALID : set_scalar(key, config, text, &reason);
    if (status == MIR_E_INVALID) {
        char accepted[256];
        mir_config_key_accepted(key, accepted, sizeof accepted);
        return mir_error_set(error, status, "%s: %.160s; expected %s", key->name, reason.text,
                             accepted);
    }
    return status == MIR_OK ? status
                            : mir_error_set(error, status, "%s: %s", key->name, reason.text);
}

static void print_comment(FILE *out, int indent, const char *text)
{
    while (text != NULL) {
        const char *end = strchr(text, '\n');
        int length = end == NULL ? (int)strlen(text) : (int)(end - text);
        (void)fprintf(out, "%*s# %.*s\n", indent, "", length, text);
        text = end == NULL ? NULL : end + 1;
    }
}

/* Whether the accepted values say more than the documentation already does. */
static bool bounded(const mir_config_key *key)
{
    return key->kind <= MIR_CONFIG_CHOICE;
}

void mir_config_print_default(FILE *out)
{
    (void)fprintf(
        out,
        "# Every setting of Mir with its default. Each can also be given as --set key=value "
        "(nested\n"
        "# keys joined by dots) and in the environment (MIR__LIMITS__MAX_PAYLOAD=1MiB). Read in "
        "this\n"
        "# order, the later wins: /etc/mir/mir.yaml, $XDG_CONFIG_HOME/mir/mir.yaml (--config FILE\n"
        "# replaces both), environment, --set, other flags.\n");
    const char *open = ""; /* the previous key, whose sections are open */
    for (size_t i = 0; i < mir_config_key_count; i++) {
        const mir_config_key *key = &mir_config_keys[i];
        (void)fputc('\n', out);
        /* Print the headings of the sections that this key does not share with the one before. */
        int indent = 0;
        bool shared = true;
        const char *part = key->name;
        for (const char *dot; (dot = strchr(part, '.')) != NULL; part = dot + 1, indent += 2) {
            size_t length = (size_t)(dot + 1 - key->name);
            shared = shared && strncmp(open, key->name, length) == 0;
            if (!shared) (void)fprintf(out, "%*s%.*s:\n", indent, "", (int)(dot - part), part);
        }
        open = key->name;
        print_comment(out, indent, key->doc);
        if (bounded(key)) {
            char accepted[256];
            mir_config_key_accepted(key, accepted, sizeof accepted);
            /* The examples belong into error texts; here the default is one. */
            size_t length = strlen(accepted);
            if (key->kind == MIR_CONFIG_DURATION || key->kind == MIR_CONFIG_SIZE)
                length = strcspn(accepted, ",");
            (void)fprintf(out, "%*s# (%.*s)\n", indent, "", (int)length, accepted);
        }
        /* Written out, auth.mode would mean more than its default does. */
        bool value_shown = key->fallback != NULL && key->offset != AT(auth.mode);
        (void)fprintf(out, "%*s%s%s:%s%s\n", indent, "", value_shown ? "" : "# ", part,
                      key->fallback != NULL ? " " : "", key->fallback != NULL ? key->fallback : "");
    }
}
