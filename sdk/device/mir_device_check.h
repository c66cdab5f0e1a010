/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_check: what may stand in an id, a target, a route, a header, a message name.
 *
 * Why        All of them end up in subjects and header lines, where a stray character would address
 *            something else or be refused far away. Pure functions. The text says what is wrong. */
#ifndef MIR_DEVICE_CHECK_H
#define MIR_DEVICE_CHECK_H

#include "mir_status.h"

MIR_MUST_CHECK mir_status mir_device_check_id(const char *id, mir_error *error);
/* One or more URLs, commas between them. */
MIR_MUST_CHECK mir_status mir_device_check_target(const char *target, mir_error *error);
MIR_MUST_CHECK mir_status mir_device_check_route(const char *route, mir_error *error);
MIR_MUST_CHECK mir_status mir_device_check_header(const char *name, const char *value,
                                                  mir_error *error);
/* A full protobuf name, without a leading dot. */
MIR_MUST_CHECK mir_status mir_device_check_message_name(const char *name, mir_error *error);
/* Every byte that is no part of a UTF-8 character becomes '?': protobuf strings are UTF-8. */
void mir_device_make_utf8(char *text);

#endif
