/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_tally: what retention has removed, over restarts.
 *
 * Why        Who changes a rule wants to see what it has removed since, whatever was restarted.
 * Ownership  Belongs to the log.
 * Affinity   Reading: before the threads start. Writing: the background thread.
 * Bounds     A file of MIR_TLOG_RULES_MAX rules. What was removed in the moment of a crash may be
 *            missing in it: it is written after the rows have gone.
 * Errors     A file that is damaged or cannot be read is told to the log, and counting begins anew; a
 *            newer version is refused. What cannot be written is told and tried again next time. */
#ifndef MIR_TLOG_TALLY_H
#define MIR_TLOG_TALLY_H

#include "mir_tlog_internal.h"

/* Sets tlog->retention. MIR_E_UNSUPPORTED, _NO_MEMORY. */
MIR_MUST_CHECK mir_status mir_tlog_tally_read(mir_tlog *tlog, mir_error *error);
void mir_tlog_tally_write(mir_tlog *tlog);

#endif
