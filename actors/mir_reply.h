/* SPDX-License-Identifier: Apache-2.0 */
/* mir_reply: the subjects on which the server answers.
 *
 * Why        Whoever asks chooses the subject of the answer. A device hears everything below its id
 *            and may end on a message that it does not know: the server sends it schema requests,
 *            commands and desired properties, and no answer that somebody pointed at it.
 * Affinity   is_inbox: any thread. allowed: workers, as it reads the store.
 * Errors     None. What cannot be looked up is not answered. */
#ifndef MIR_REPLY_H
#define MIR_REPLY_H

#include "mir_actors.h"

/* Where no device is. Client libraries answer below it unless they are told otherwise. */
bool mir_reply_is_inbox(mir_view subject);
/* Whether the subject is none below the id of a registered device. */
bool mir_reply_allowed(mir_hub *hub, mir_view subject);

#endif
