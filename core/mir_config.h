/* SPDX-License-Identifier: Apache-2.0 */
/* mir_config: every setting of the server, typed, checked and with its default.
 *
 * Why        One table names each key with its type, default, bounds and meaning. Files,
 * environment, command line, `--display-default-cfg` and error texts are all driven by it, so none
 * of them can disagree. The rest of the server reads plain struct members. Ownership  The config
 * owns all its strings and lists until mir_config_free. A zeroed one may be freed. mir_config_load
 * fills the caller's struct only when it succeeds. Affinity   One thread while it is changed; any
 * number of readers after that. Units      Durations in nanoseconds (`_ns`), sizes in bytes
 * (`_bytes`, `_bytes_max`), the spin time in microseconds. Durations are written `100ms`, `2m`,
 * `1h30m`; sizes `64KiB`, `8MiB`, `8MB` or plain bytes. Bounds     A file has at most
 * MIR_CONFIG_FILE_BYTES_MAX bytes, lists MIR_CONFIG_LIST_MAX entries. Errors     MIR_E_INVALID for
 * whatever a person wrote wrongly, with `file:line: text` (or the variable, or the flag) that names
 * the accepted values and, for an unknown key, the nearest known one. MIR_E_NOT_FOUND,
 * MIR_E_PERMISSION, MIR_E_IO for a file that cannot be read; MIR_E_TOO_LARGE for one that is too
 * long. */
#ifndef MIR_CONFIG_H
#define MIR_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "mir_arena.h"
#include "mir_log.h"
#include "mir_status.h"

enum {
    MIR_CONFIG_FILE_BYTES_MAX = 4 * 1024 * 1024,
    MIR_CONFIG_LIST_MAX = 65536,
    MIR_CONFIG_KEEP_MAX = 63,
    MIR_CONFIG_RULES_MAX = 64,
    MIR_CONFIG_HOST_BYTES = 48, /* a numeric IPv6 address with its terminator */
};

typedef enum mir_config_backend {
    MIR_CONFIG_BACKEND_AUTO = 0, /* io_uring, or epoll where it is refused */
    MIR_CONFIG_BACKEND_URING,
    MIR_CONFIG_BACKEND_EPOLL,
} mir_config_backend;

typedef enum mir_config_auth {
    MIR_CONFIG_AUTH_NONE = 0,
    MIR_CONFIG_AUTH_TOKEN,
    MIR_CONFIG_AUTH_USERS,
} mir_config_auth;

typedef enum mir_config_explore {
    MIR_CONFIG_EXPLORE_FLUX = 0,
    MIR_CONFIG_EXPLORE_INFLUXQL,
} mir_config_explore;

typedef enum mir_config_compression {
    MIR_CONFIG_COMPRESSION_NONE = 0,
    MIR_CONFIG_COMPRESSION_GZIP,
} mir_config_compression;

typedef enum mir_config_sync {
    MIR_CONFIG_SYNC_COMMIT = 0, /* fdatasync before any reply of a group */
    MIR_CONFIG_SYNC_INTERVAL,
    MIR_CONFIG_SYNC_OFF,
} mir_config_sync;

/* A list of texts. An absent list and an empty one differ: an absent allow list allows everything,
 * an empty one nothing. */
typedef struct mir_config_strings {
    bool given;
    size_t count;
    char **items;
} mir_config_strings;

typedef struct mir_config_permissions {
    bool given; /* false: everything below is unset, and everything is allowed */
    mir_config_strings publish_allow;
    mir_config_strings publish_deny;
    mir_config_strings subscribe_allow; /* entries are "subject" or "subject queue" */
    mir_config_strings subscribe_deny;
    bool allow_responses;
    int64_t responses_max;        /* replies per received request; -1: any number */
    int64_t responses_expires_ns; /* -1: never */
} mir_config_permissions;

typedef struct mir_config_user {
    char *user;
    char *password; /* plain, or a bcrypt hash; null only for auth.no_auth_user */
    mir_config_permissions
        permissions; /* already auth.default_permissions where the user has none */
} mir_config_user;

/* Numeric; `localhost` is read as 127.0.0.1, an empty host or `*` as 0.0.0.0. */
typedef struct mir_config_listen {
    char host[MIR_CONFIG_HOST_BYTES]; /* without brackets */
    uint16_t port;                    /* 0: any free one */
    bool ipv6;
    bool loopback;
} mir_config_listen;

/* How long something is kept, by a name of its kind. */
typedef struct mir_config_keep {
    char *name;
    int64_t keep_ns; /* 0: for ever */
} mir_config_keep;

/* How long telemetry is kept: that of the first rule that fits. Patterns may have `*`. */
typedef struct mir_config_rule {
    char *name_space; /* null: any */
    char *message;    /* null: any */
    bool deleted;     /* of devices that are there no more, and of these alone */
    bool no_rollup;   /* nothing stays of what goes */
    int64_t age_ns;   /* 0: for ever */
} mir_config_rule;

/* Whether telemetry is forwarded: the first rule that fits counts. Patterns may have `*`. */
typedef struct mir_config_forward {
    char *name_space; /* null: any */
    char *message;    /* null: any */
    bool withheld;
} mir_config_forward;

typedef struct mir_config {
    mir_arena arena; /* owns every string and list below */

    int64_t shards;  /* after mir_config_load at least 1: the cores, where it was 0 */
    int64_t spin_us; /* after mir_config_load at least 0 */
    char *data;      /* directory */
    mir_config_listen listen;
    char *admin; /* path of the unix socket */

    struct {
        mir_log_level level;
    } log;
    struct {
        mir_config_backend backend;
        int64_t together; /* connections that share the first shard before others are spread */
    } io;
    struct {
        int64_t max_connections;
        int64_t max_payload_bytes;
        int64_t max_pending_bytes;
        int64_t max_control_line_bytes;
        int64_t max_subscriptions;       /* per connection; 0: no bound */
        int64_t max_subscription_tokens; /* 0: no bound beyond the server's own */
        int64_t write_deadline_ns;
        int64_t device_rate; /* telemetry messages a second of one device; 0: no bound */
    } limits;
    struct {
        int64_t interval_ns;
        int64_t max;
    } ping;
    struct {
        mir_config_auth mode;
        char *token; /* null when unset */
        int64_t timeout_ns;
        char *no_auth_user; /* null when unset */
        mir_config_permissions default_permissions;
        mir_config_user *users;
        size_t user_count;
    } auth;
    bool auth_mode_explicit; /* somebody wrote auth.mode, rather than leaving it at its default */
    struct {
        int64_t duration_ns;
        int64_t grace_period_ns;
    } lame_duck;
    struct {
        int64_t offline_after_ns;
    } presence;
    struct {
        int64_t request_timeout_ns;
    } schema;
    struct {
        int64_t sync_ns;
        int64_t log_bytes_max;        /* unsealed log, per shard */
        int64_t retention_age_ns;     /* 0: keep for ever */
        int64_t retention_size_bytes; /* 0: no bound */
        int64_t clock_wait_ns;        /* 0: a clock that jumps ahead is believed at once */
        mir_config_rule *rules;       /* of retention */
        size_t rule_count;
        int64_t rollup_ns[3]; /* of 1 m, 10 m, 1 h; 0: for ever, -1: none */
        mir_config_explore explore;
        int64_t disk_reserve_bytes; /* 0: none */
        int64_t future_limit_ns;    /* 0: none */
        struct {
            char *url; /* null: off */
            char *user;
            char *password;
            char *token;
            char *ca_file; /* null: those of the system */
            mir_config_compression compression;
            mir_config_forward *rules; /* none: everything is forwarded */
            size_t rule_count;
            int64_t batch_lines;
            int64_t batch_bytes;
            int64_t linger_ns;
            int64_t timeout_ns;
            int64_t spool_bytes_max;
        } sink;
    } telemetry;
    struct {
        mir_config_listen listen; /* an empty host: off */
        int64_t threads;
        int64_t max_connections;
        int64_t timeout_ns;
    } http;
    struct {
        mir_config_keep *retention; /* by reason; without `default` */
        size_t retention_count;
        int64_t default_keep_ns;
    } events;
    struct {
        mir_config_sync sync;
        int64_t map_size_bytes;
    } state;
} mir_config;

/* One dedicated flag of the command line, as it was given. */
typedef struct mir_config_flag {
    const char *flag; /* for the error text, such as "--listen" */
    const char *key;  /* such as "listen" */
    const char *value;
} mir_config_flag;

typedef struct mir_config_options {
    const char *file; /* --config: this file alone; null: the two default files that exist */
    const char *const *environment; /* "NAME=value", null-terminated; null: none is read */
    const char *const *settings;    /* of --set: "key=value" */
    size_t setting_count;
    const mir_config_flag *flags;
    size_t flag_count;
} mir_config_options;

/* Every key at its default; data and admin are still null, shards 0 and spin_us -1 (automatic). */
MIR_MUST_CHECK mir_status mir_config_init_defaults(mir_config *config, mir_error *error);

/* Defaults, then files, environment, settings and flags, each over what came before, then
 * mir_config_finish. Pass `environ` as options->environment. */
MIR_MUST_CHECK mir_status mir_config_load(mir_config *config, const mir_config_options *options,
                                          mir_error *error);

/* Reads one file over what is there. */
MIR_MUST_CHECK mir_status mir_config_read_file(mir_config *config, const char *path,
                                               mir_error *error);

/* Sets one key. A scalar is taken as it stands, or unquoted when it is in quotes; lists and maps
 * are YAML in flow style. */
MIR_MUST_CHECK mir_status mir_config_set(mir_config *config, const char *key, const char *value,
                                         mir_error *error);

/* Fills what depends on the machine or on other keys, and checks what no key can check alone. */
MIR_MUST_CHECK mir_status mir_config_finish(mir_config *config, mir_error *error);

/* Every key with its default, bounds and meaning, as a YAML file that can be read back. */
void mir_config_print_default(FILE *out);

void mir_config_free(mir_config *config);

/* The readers of single values, for flags elsewhere that take the same units. `text` ends with
 * zero. A bare number other than 0 is no duration. The error text does not name the key. */
MIR_MUST_CHECK mir_status mir_config_parse_duration(const char *text, int64_t *duration_ns,
                                                    mir_error *error);
MIR_MUST_CHECK mir_status mir_config_parse_size(const char *text, int64_t *size_bytes,
                                                mir_error *error);
MIR_MUST_CHECK mir_status mir_config_parse_listen(const char *text, mir_config_listen *listen,
                                                  mir_error *error);

#endif
