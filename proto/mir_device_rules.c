/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_rules.h"

#include <stdio.h>

/* A shown value is cut, so that the advice behind it always fits the error text. */
enum { SHOWN_BYTES_MAX = 100 };
#define SHOWN(view)                                                                                \
    (int)((view).size > SHOWN_BYTES_MAX ? SHOWN_BYTES_MAX : (view).size), (const char *)(view).data

/* C0, DEL and C1 (U+0080 to U+009F, in valid UTF-8 always c2 80 to c2 9f). */
static bool has_control(mir_view text)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c < 0x20 || c == 0x7f) return true;
        if (c == 0xc2 && i + 1 < text.size && text.data[i + 1] < 0xa0) return true;
    }
    return false;
}

/* The white space of Unicode, in UTF-8. */
static bool has_space(mir_view text)
{
    for (size_t i = 0; i < text.size; i++) {
        const uint8_t *p = text.data + i;
        size_t left = text.size - i;
        if (p[0] == ' ' || (p[0] >= '\t' && p[0] <= '\r')) return true;
        if (left >= 2 && p[0] == 0xc2 && (p[1] == 0x85 || p[1] == 0xa0)) return true;
        if (left < 3) continue;
        if (p[0] == 0xe1 && p[1] == 0x9a && p[2] == 0x80) return true;
        if (p[0] == 0xe2 && p[1] == 0x80 &&
            ((p[2] >= 0x80 && p[2] <= 0x8a) || p[2] == 0xa8 || p[2] == 0xa9 || p[2] == 0xaf))
            return true;
        if (p[0] == 0xe2 && p[1] == 0x81 && p[2] == 0x9f) return true;
        if (p[0] == 0xe3 && p[1] == 0x80 && p[2] == 0x80) return true;
    }
    return false;
}

static bool has_byte(mir_view text, char c)
{
    return text.size != 0 && memchr(text.data, c, text.size) != NULL;
}

mir_status mir_device_id_check(mir_view id, mir_error *error)
{
    static const char *const reserved[] = {"client", "device", "event", "_INBOX"};
    if (id.size == 0) return mir_error_set(error, MIR_E_INVALID, "device id is missing");
    if (id.size > MIR_DEVICE_ID_BYTES_MAX)
        return mir_error_set(error, MIR_E_INVALID,
                             "device id '%.*s...' has %zu bytes: use at most %d", SHOWN(id),
                             id.size, MIR_DEVICE_ID_BYTES_MAX);
    if (!mir_utf8_valid(id))
        return mir_error_set(error, MIR_E_INVALID,
                             "device id is not UTF-8: use letters, digits, '-' and '_'");
    if (has_control(id) || has_space(id))
        return mir_error_set(error, MIR_E_INVALID,
                             "device id '%.*s' contains white space or a control character: use "
                             "letters, digits, '-' and '_'",
                             SHOWN(id));
    if (has_byte(id, '.') || has_byte(id, '*') || has_byte(id, '>'))
        return mir_error_set(error, MIR_E_INVALID,
                             "device id '%.*s' contains '.', '*' or '>', which subjects give a "
                             "meaning to: use letters, digits, '-' and '_'",
                             SHOWN(id));
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (mir_view_eq_cstr(id, reserved[i]))
            return mir_error_set(error, MIR_E_INVALID,
                                 "device id '%s' is a reserved word: choose another one",
                                 reserved[i]);
    return MIR_OK;
}

static mir_status check_name(const char *what, mir_view name, mir_error *error)
{
    if (name.size == 0) return mir_error_set(error, MIR_E_INVALID, "%s is empty", what);
    if (name.size > MIR_DEVICE_NAME_BYTES_MAX)
        return mir_error_set(error, MIR_E_INVALID, "%s '%.*s...' has %zu bytes: use at most %d",
                             what, SHOWN(name), name.size, MIR_DEVICE_NAME_BYTES_MAX);
    if (!mir_utf8_valid(name)) return mir_error_set(error, MIR_E_INVALID, "%s is not UTF-8", what);
    if (has_control(name))
        return mir_error_set(error, MIR_E_INVALID,
                             "%s '%.*s' contains a control character: remove it", what,
                             SHOWN(name));
    if (has_byte(name, '/'))
        return mir_error_set(error, MIR_E_INVALID,
                             "%s '%.*s' contains '/', which separates name and namespace: use "
                             "another character",
                             what, SHOWN(name));
    if (has_byte(name, '*'))
        return mir_error_set(error, MIR_E_INVALID,
                             "%s '%.*s' contains '*', which is the wildcard of targets: use "
                             "another character",
                             what, SHOWN(name));
    return MIR_OK;
}

mir_status mir_device_name_check(mir_view name, mir_error *error)
{
    return check_name("name", name, error);
}

mir_status mir_device_namespace_check(mir_view name, mir_error *error)
{
    return check_name("namespace", name, error);
}

static mir_status check_key(const char *what, mir_view key, size_t bytes_max, mir_error *error)
{
    if (key.size == 0) return mir_error_set(error, MIR_E_INVALID, "a %s key is empty", what);
    if (key.size > bytes_max)
        return mir_error_set(error, MIR_E_INVALID,
                             "%s key '%.*s...' has %zu bytes: use at most %zu", what, SHOWN(key),
                             key.size, bytes_max);
    if (!mir_utf8_valid(key) || has_control(key))
        return mir_error_set(error, MIR_E_INVALID,
                             "a %s key contains a control character or is not UTF-8", what);
    return MIR_OK;
}

mir_status mir_device_label_check(mir_view key, mir_view value, mir_error *error)
{
    mir_status status = check_key("label", key, MIR_DEVICE_LABEL_KEY_BYTES_MAX, error);
    if (status != MIR_OK) return status;
    if (value.size > MIR_DEVICE_LABEL_VALUE_BYTES_MAX)
        return mir_error_set(error, MIR_E_INVALID,
                             "label '%.*s' has a value of %zu bytes: use at most %d, or an "
                             "annotation",
                             SHOWN(key), value.size, MIR_DEVICE_LABEL_VALUE_BYTES_MAX);
    if (!mir_utf8_valid(value) || has_control(value))
        return mir_error_set(error, MIR_E_INVALID,
                             "the value of label '%.*s' contains a control character or is not "
                             "UTF-8: remove it, or use an annotation",
                             SHOWN(key));
    return MIR_OK;
}

mir_status mir_device_annotation_check(mir_view key, mir_view value, mir_error *error)
{
    mir_status status = check_key("annotation", key, MIR_DEVICE_ANNOTATION_KEY_BYTES_MAX, error);
    if (status != MIR_OK) return status;
    if (value.size > MIR_DEVICE_ANNOTATION_VALUE_BYTES_MAX)
        return mir_error_set(error, MIR_E_INVALID,
                             "annotation '%.*s' has a value of %zu bytes: use at most %d",
                             SHOWN(key), value.size, MIR_DEVICE_ANNOTATION_VALUE_BYTES_MAX);
    if (!mir_utf8_valid(value))
        return mir_error_set(error, MIR_E_INVALID, "the value of annotation '%.*s' is not UTF-8",
                             SHOWN(key));
    return MIR_OK;
}

mir_status mir_device_package_check(mir_view package, mir_error *error)
{
    return check_key("schema package", package, MIR_DEVICE_PACKAGE_BYTES_MAX, error);
}

bool mir_pattern_has_star(mir_view pattern)
{
    return has_byte(pattern, '*');
}

/* Backtracks to the last star only: what stands before it matched already, and a later star can
 * always take over. */
bool mir_pattern_match(mir_view pattern, mir_view text)
{
    size_t p = 0, t = 0;
    size_t star = SIZE_MAX, retry = 0;
    while (t < text.size) {
        if (p < pattern.size && pattern.data[p] == '*') {
            star = p++;
            retry = t;
        } else if (p < pattern.size && pattern.data[p] == text.data[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++retry;
        } else {
            return false;
        }
    }
    while (p < pattern.size && pattern.data[p] == '*') p++;
    return p == pattern.size;
}
