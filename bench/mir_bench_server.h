/* SPDX-License-Identifier: Apache-2.0 */
/* mir_bench_server: one server process under measurement, ours or the peer, started and ended here.
 *
 * Why        Both are started the same way, on a free loopback port with a directory of their own,
 *            so that nothing of the machine's configuration leaks into a figure.
 * Ownership  The struct is the caller's; a zeroed one is "not running" and may be stopped. All
 *            directories lie in one root that mir_bench_server_cleanup removes.
 * Affinity   The main thread starts and stops (a child is killed when the thread that started it
 *            ends). Readings may come from any thread. cleanup: the signal thread or main.
 * Units      ns of CPU (user and system of all threads), bytes.
 * Bounds     MIR_BENCH_SERVERS_MAX at once; a start that is not ready in 30 s is a failure; a stop
 *            that takes more than 10 s is ended by SIGKILL.
 * Errors     A start that fails carries the last lines that the server wrote. */
#ifndef MIR_BENCH_SERVER_H
#define MIR_BENCH_SERVER_H

#include "mir_bench.h"

#include <sys/types.h>
#include <time.h>

enum { MIR_BENCH_SERVERS_MAX = 4, MIR_BENCH_PATH_BYTES_MAX = 256 };

typedef enum mir_bench_side { MIR_BENCH_OURS, MIR_BENCH_PEER, MIR_BENCH_SIDES } mir_bench_side;

typedef struct mir_bench_server {
    mir_bench_side side;
    pid_t pid; /* 0: not running */
    int pidfd;
    size_t slot;
    uint16_t port;
    clockid_t cpu_clock;
    int64_t ready_ns;             /* from exec until a client had read INFO */
    uint64_t peak_resident_bytes; /* valid after stop */
    char dir[MIR_BENCH_PATH_BYTES_MAX];
} mir_bench_server;

/* True when the options ask for this side. */
bool mir_bench_server_wanted(const mir_bench_options *options, mir_bench_side side);

/* Creates the root directory below TMPDIR and takes over SIGINT, SIGTERM and SIGHUP: on one of them
 * every server is killed, the root removed and the process ended. Call once, before any thread.
 * With `keep` nothing is removed, and cleanup says where it is. */
MIR_MUST_CHECK mir_status mir_bench_server_init(bool keep, mir_error *error);
void mir_bench_server_cleanup(void);
const char *mir_bench_server_root(void);

/* `keep_dir` null: a fresh directory. Otherwise the `dir` of a stopped server, whose data it opens.
 */
MIR_MUST_CHECK mir_status mir_bench_server_start(mir_bench_server *server, mir_bench_side side,
                                                 const mir_bench_options *options,
                                                 const char *keep_dir, mir_error *error);
/* Another program: prepare makes its directory and finds a port (server->dir, ->port), launch runs it
 * and returns when `ready` says so. */
typedef bool mir_bench_ready_fn(const mir_bench_server *server);
MIR_MUST_CHECK mir_status mir_bench_server_prepare(mir_bench_server *server, mir_error *error);
MIR_MUST_CHECK mir_status mir_bench_server_launch(mir_bench_server *server, char *const *args,
                                                  mir_bench_ready_fn *ready, mir_error *error);
/* As a power cut would, but for what the kernel has: kill -9. The directory stays. */
void mir_bench_server_kill(mir_bench_server *server);
/* Ends the process and reads its peak; the directory is removed unless it is to be kept. */
void mir_bench_server_stop(mir_bench_server *server, bool keep_dir);
/* One of each side that the options ask for, and their end; the report takes our peak. */
MIR_MUST_CHECK mir_status mir_bench_pair_start(mir_bench_server *servers,
                                               const mir_bench_options *options, mir_error *error);
void mir_bench_pair_stop(mir_bench_server *servers, mir_bench_report *report);
bool mir_bench_server_alive(const mir_bench_server *server);

int64_t mir_bench_server_cpu_ns(const mir_bench_server *server);
/* A field of /proc/<pid>/status that is given in kB, in bytes; 0 when it cannot be read. */
uint64_t mir_bench_server_memory(const mir_bench_server *server, const char *field);
/* Returns when a tenth of a second has passed in which the server used less than 1 ms of CPU: what
 * it does after the last reply (syncs, sealing, garbage collection) has been paid for. At most 5 s.
 */
void mir_bench_server_settle(const mir_bench_server *server);

#endif
