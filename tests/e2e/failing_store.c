/* SPDX-License-Identifier: Apache-2.0 */
/* To be loaded before a server: writes to its state store fail while the file FAILING_STORE names is
 * there. If that says "head", only those of the page that makes a commit valid do. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { HEADS_BYTES = 2 * 4096 };

static bool fails(int fd, bool is_head)
{
    const char *path = getenv("FAILING_STORE");
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    if (file == NULL) return false;
    char what[8] = "", link[64], name[4096];
    const bool heads = fgets(what, sizeof what, file) != NULL && strcmp(what, "head") == 0;
    (void)fclose(file);
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, name, sizeof name - 1);
    name[size < 0 ? 0 : size] = '\0';
    return (is_head || !heads) && strstr(name, "/data.mdb") != NULL;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    if (fails(fd, offset < HEADS_BYTES)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (fails(fd, false)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_writev, fd, parts, count);
}
