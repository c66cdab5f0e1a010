/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int descriptor = -1;
static volatile sig_atomic_t happened;

static void take(int signal)
{
    int before = errno;
    uint64_t one = 1;
    (void)signal;
    happened = 1;
    ssize_t size = write(descriptor, &one, sizeof one);
    (void)size; /* it is readable already, then */
    errno = before;
}

mir_status mir_cli_interrupt_begin(mir_error *error)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    const struct sigaction once = {.sa_handler = take, .sa_flags = (int)SA_RESETHAND};
    if (descriptor < 0) descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (descriptor < 0) return mir_error_os(error, errno, "cannot wait for signals");
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction before;
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            (void)sigaction(signals[i], &once, NULL);
    }
    return MIR_OK;
}

bool mir_cli_interrupted(void)
{
    return happened != 0;
}

int mir_cli_interrupt_fd(void)
{
    return descriptor;
}
