/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_rules: what ids, names, namespaces, labels and annotations may be.
 *
 * Why        An id is a token of subjects, names are typed by people as name/namespace, and all of
 *            them are keys of indexes: what would be ambiguous or dangerous there is refused where
 *            it enters, with a text that says what to do instead.
 * Ownership  Values.
 * Affinity   Any thread.
 * Bounds     The constants below; they keep every index key of the state store within 511 bytes.
 * Errors     MIR_E_INVALID with a text. */
#ifndef MIR_DEVICE_RULES_H
#define MIR_DEVICE_RULES_H

#include "mir_limits.h"
#include "mir_status.h"
#include "mir_utf8.h"
#include "mir_view.h"

enum {
    MIR_DEVICE_NAME_BYTES_MAX = 128, /* namespaces too */
    MIR_DEVICE_LABELS_MAX = 128,
    MIR_DEVICE_LABEL_KEY_BYTES_MAX = 128,
    MIR_DEVICE_LABEL_VALUE_BYTES_MAX = 1024,
    MIR_DEVICE_ANNOTATIONS_MAX = 256,
    MIR_DEVICE_ANNOTATION_KEY_BYTES_MAX = 256,
    MIR_DEVICE_ANNOTATION_VALUE_BYTES_MAX = 64 * 1024,
    MIR_DEVICE_ANNOTATIONS_BYTES_MAX = 256 * 1024, /* keys and values of one device */
    MIR_DEVICE_PACKAGES_MAX = 256,
    MIR_DEVICE_PACKAGE_BYTES_MAX = 255,
    MIR_DEVICE_SCHEMA_BYTES_MAX = 4 * 1024 * 1024, /* compressed or not */
};

/* One subject token that is no wildcard and no reserved word: not empty, UTF-8, at most
 * MIR_DEVICE_ID_BYTES_MAX; without `.`, `*`, `>`, white space and control characters; not client,
 * device, event or _INBOX. `error` may be null. */
MIR_MUST_CHECK mir_status mir_device_id_check(mir_view id, mir_error *error);
/* Not empty, UTF-8, without `/`, `*` and control characters. */
MIR_MUST_CHECK mir_status mir_device_name_check(mir_view name, mir_error *error);
MIR_MUST_CHECK mir_status mir_device_namespace_check(mir_view name, mir_error *error);
/* Keys: not empty, no control characters. Values of labels: no control characters; values of
 * annotations: any UTF-8 text. */
MIR_MUST_CHECK mir_status mir_device_label_check(mir_view key, mir_view value, mir_error *error);
MIR_MUST_CHECK mir_status mir_device_annotation_check(mir_view key, mir_view value,
                                                      mir_error *error);
MIR_MUST_CHECK mir_status mir_device_package_check(mir_view package, mir_error *error);

/* The pattern language of targets: no `*` is exact, otherwise an anchored glob in which `*` is any
 * run of bytes. Time is bounded by the product of both lengths. */
bool mir_pattern_has_star(mir_view pattern);
bool mir_pattern_match(mir_view pattern, mir_view text);

#endif
