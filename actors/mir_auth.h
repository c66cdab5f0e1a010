/* SPDX-License-Identifier: Apache-2.0 */
/* mir_auth: who may log in, and what a connection may publish and subscribe to.
 *
 * Why        The gateway asks; this decides, from configuration alone.
 * Ownership  mir_auth owns users and permissions; sessions borrow a mir_login until the end.
 * Affinity   Immutable after create: any thread. mir_auth_check may take tens of
 *            milliseconds (bcrypt): on a worker.
 * Bounds     Lists as long as the configuration's.
 * Errors     create: MIR_E_INVALID with the entry that is wrong.
 *
 * Secrecy    How long a refusal takes does not tell whether there is such a user: with a hashed
 *            password in the configuration every refusal costs as much as the costliest one. */
#ifndef MIR_AUTH_H
#define MIR_AUTH_H

#include "mir_config.h"
#include "mir_view.h"

typedef struct mir_auth mir_auth;
typedef struct mir_permissions mir_permissions;

typedef struct mir_credentials {
    mir_view user, password, token; /* empty when absent */
} mir_credentials;

/* What a connection is after its login. */
typedef struct mir_login {
    const mir_permissions *permissions; /* null: everything is allowed */
    mir_view name;                      /* of the user; "token" or "anonymous" without users */
} mir_login;

MIR_MUST_CHECK mir_status mir_auth_create(const mir_config *config, mir_auth **auth,
                                          mir_error *error);
void mir_auth_destroy(mir_auth *auth);
bool mir_auth_required(const mir_auth *auth);
/* What a connection is before its CONNECT where none is required. */
mir_login mir_auth_unnamed(const mir_auth *auth);
/* Whether checking these credentials costs enough to need a worker. Says nothing about users. */
bool mir_auth_is_slow(const mir_auth *auth, const mir_credentials *credentials);
/* True when they are right. */
bool mir_auth_check(const mir_auth *auth, const mir_credentials *credentials, mir_login *login);

/* The one id below which they allow anything, beside inboxes; empty when there is none. */
mir_view mir_permissions_device(const mir_permissions *permissions);
bool mir_permissions_publish(const mir_permissions *permissions, mir_view subject);
bool mir_permissions_subscribe(const mir_permissions *permissions, mir_view pattern,
                               mir_view queue);
/* Whether messages of this subscription must be filtered one by one. */
bool mir_permissions_filters(const mir_permissions *permissions, mir_view pattern, mir_view queue);
/* Whether a message on this subject is withheld from such a subscription. */
bool mir_permissions_withhold(const mir_permissions *permissions, mir_view subject, mir_view queue);
/* False when there are none. */
bool mir_permissions_responses(const mir_permissions *permissions, int64_t *max,
                               int64_t *expires_ns);

#endif
