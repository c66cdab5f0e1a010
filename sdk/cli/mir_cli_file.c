/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

mir_status mir_cli_file_read(const char *path, mir_bytes *out, mir_error *error)
{
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mir_error_os(error, errno, "cannot open %s", path);
    mir_status status = MIR_OK;
    for (;;) {
        uint8_t chunk[16384];
        ssize_t size = read(fd, chunk, sizeof chunk);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) status = mir_error_os(error, errno, "cannot read %s", path);
        if (size <= 0) break;
        mir_bytes_append(out, chunk, (size_t)size);
        if (!mir_bytes_ok(out)) {
            status = mir_error_set(error, MIR_E_TOO_LARGE, "%s is larger than %zu bytes", path,
                                   out->size_max);
            break;
        }
    }
    if (!standard) (void)close(fd);
    return status;
}
