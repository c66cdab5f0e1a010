/* SPDX-License-Identifier: Apache-2.0 */
/* mir_config_table: the one list of settings, and what can be done with one of them.
 *
 * Why        A key is added in one line; how it is read, bounded, explained, printed and suggested
 *            follows from that line.
 * Ownership  The table is constant; strings that are set go into the config's arena.
 * Affinity   Any thread.
 * Units      minimum and maximum are in the unit of the member: nanoseconds, bytes or a count.
 * Bounds     mir_config_key_accepted, _nearest and _section_keys write at most the size that they
 * are given. Errors     MIR_E_INVALID with a text that names the accepted values, MIR_E_NO_MEMORY.
 */
#ifndef MIR_CONFIG_TABLE_H
#define MIR_CONFIG_TABLE_H

#include "mir_config.h"

typedef enum mir_config_kind {
    MIR_CONFIG_COUNT,    /* int64_t */
    MIR_CONFIG_DURATION, /* int64_t, nanoseconds */
    MIR_CONFIG_SIZE,     /* int64_t, bytes */
    MIR_CONFIG_CHOICE,   /* an enum whose values count from 0 */
    MIR_CONFIG_TEXT,     /* char *, null when unset */
    MIR_CONFIG_PATH,     /* the same */
    MIR_CONFIG_LISTEN,   /* mir_config_listen */
    MIR_CONFIG_PERMISSIONS,
    MIR_CONFIG_USERS,
    MIR_CONFIG_RETENTION, /* mir_config_retention */
    MIR_CONFIG_RULES,     /* mir_config_rule of telemetry */
    MIR_CONFIG_FORWARDS,  /* mir_config_forward of its sink */
} mir_config_kind;

typedef struct mir_config_key {
    const char *name; /* dotted; keys of one section stand together */
    mir_config_kind kind;
    size_t offset;        /* of the member in mir_config */
    const char *fallback; /* the default as a person would write it; null: unset */
    int64_t minimum;
    int64_t maximum;
    const char *const *choices; /* null-terminated, for MIR_CONFIG_CHOICE */
    const char *automatic;      /* a word that is read as -1, or null */
    const char *doc;
} mir_config_key;

enum { MIR_CONFIG_NAME_BYTES_MAX = 64, MIR_CONFIG_KEYS_MAX = 64 };

extern const mir_config_key mir_config_keys[];
extern const size_t mir_config_key_count;

const mir_config_key *mir_config_key_find(const char *name);
bool mir_config_is_section(const char *name);
bool mir_config_key_is_scalar(const mir_config_key *key);
/* "a size from 1B to 64MiB, such as 8MiB" */
void mir_config_key_accepted(const mir_config_key *key, char *text, size_t size);
/* "; the keys of limits are max_connections, …"; at the top for an empty section. */
void mir_config_section_keys(const char *section, char *text, size_t size);
/* "; did you mean limits.max_payload?" or "; the keys of limits are …". */
void mir_config_key_nearest(const char *name, char *text, size_t size);
/* Reads a scalar; `text` null means that no value was written. */
MIR_MUST_CHECK mir_status mir_config_key_set(const mir_config_key *key, mir_config *config,
                                             const char *text, mir_error *error);

#endif
