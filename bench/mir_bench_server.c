/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_bench_server.h"

#include "mir_bench_conn.h"
#include "mir_clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOG_TAIL_BYTES = 300, READY_POLL_NS = 200000, ARGS_MAX = 16 + 2 * MIR_BENCH_SETS_MAX };

static const int64_t start_timeout_ns = 30 * MIR_NS_PER_S;
static const int stop_timeout_ms = 10000;

static char root[MIR_BENCH_PATH_BYTES_MAX / 2];
static unsigned dir_count;
static bool keep_root;
/* Descriptors of running children plus one, 0 for a free slot. A descriptor cannot come to mean
 * another process, as a pid can. */
static _Atomic int live[MIR_BENCH_SERVERS_MAX];

bool mir_bench_server_wanted(const mir_bench_options *options, mir_bench_side side)
{
    return (side == MIR_BENCH_OURS ? options->mir_path : options->peer_path) != NULL;
}

const char *mir_bench_server_root(void)
{
    return root;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    (void)remove(path);
    return 0;
}

static void remove_tree(const char *path)
{
    if (keep_root) return;
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void mir_bench_server_cleanup(void)
{
    for (size_t i = 0; i < MIR_BENCH_SERVERS_MAX; i++) {
        int pidfd = atomic_exchange(&live[i], 0) - 1;
        if (pidfd < 0) continue;
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        struct pollfd ended = {.fd = pidfd, .events = POLLIN};
        (void)poll(&ended, 1, 2000);
    }
    if (keep_root)
        mir_bench_say("data and logs are in %s", root);
    else if (root[0] != '\0')
        remove_tree(root);
}

static void *await_signal(void *context)
{
    (void)context;
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    int signal_number = 0;
    while (sigwait(&set, &signal_number) != 0) {
    }
    mir_bench_server_cleanup();
    _exit(128 + signal_number);
}

mir_status mir_bench_server_init(bool keep, mir_error *error)
{
    keep_root = keep;
    const char *base = getenv("TMPDIR");
    if (base == NULL || base[0] == '\0') base = "/tmp";
    int size = snprintf(root, sizeof root, "%s/mir-bench-XXXXXX", base);
    if (size < 0 || (size_t)size >= sizeof root) {
        root[0] = '\0';
        return mir_error_set(error, MIR_E_TOO_LARGE, "TMPDIR is too long");
    }
    if (mkdtemp(root) == NULL) {
        int saved = errno;
        root[0] = '\0';
        return mir_error_os(error, saved, "cannot make a directory in %s", base);
    }
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_t thread;
    int failure = pthread_create(&thread, NULL, await_signal, NULL);
    if (failure != 0) return mir_error_os(error, failure, "cannot start the signal thread");
    (void)pthread_detach(thread);
    return MIR_OK;
}

static mir_status free_port(uint16_t *port, mir_error *error)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return mir_error_os(error, errno, "socket");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    mir_status status = MIR_OK;
    if (bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        status = mir_error_os(error, errno, "cannot find a free port");
    else
        *port = ntohs(address.sin_port);
    (void)close(fd);
    return status;
}

static mir_status write_config(const char *path, const char *text, mir_error *error)
{
    FILE *file = fopen(path, "we");
    if (file == NULL) return mir_error_os(error, errno, "cannot write %s", path);
    bool good = fputs(text, file) >= 0;
    if (fclose(file) != 0 || !good) return mir_error_set(error, MIR_E_IO, "cannot write %s", path);
    return MIR_OK;
}

static size_t read_log(const char *path, char *text, size_t text_bytes, bool tail)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    off_t end = lseek(fd, 0, SEEK_END);
    off_t from = tail && end > (off_t)text_bytes - 1 ? end - (off_t)text_bytes + 1 : 0;
    ssize_t size = pread(fd, text, text_bytes - 1, from);
    (void)close(fd);
    if (size < 0) size = 0;
    text[size] = '\0';
    return (size_t)size;
}

static mir_status fail_with_log(const char *log_path, const char *what, mir_error *error)
{
    char tail[LOG_TAIL_BYTES] = "";
    (void)read_log(log_path, tail, sizeof tail, true);
    return mir_error_set(error, MIR_E_UNREACHABLE, "%s; it wrote last: %s", what,
                         tail[0] != '\0' ? tail : "(nothing)");
}

/* Ours says on which port it serves; 0 while it has not. */
static uint16_t announced_port(const char *log_path)
{
    char text[8192];
    (void)read_log(log_path, text, sizeof text, false);
    static const char mark[] = "ready on 127.0.0.1:";
    const char *at = strstr(text, mark);
    if (at == NULL || strchr(at, '\n') == NULL) return 0;
    long port = strtol(at + sizeof mark - 1, NULL, 10);
    return port > 0 && port <= UINT16_MAX ? (uint16_t)port : 0;
}

static pid_t spawn(char *const *args, const char *log_path, const char *home)
{
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0) return -1;
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(126);
        sigset_t none;
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)dup2(log, STDOUT_FILENO);
        (void)dup2(log, STDERR_FILENO);
        int null = open("/dev/null", O_RDONLY);
        if (null >= 0) (void)dup2(null, STDIN_FILENO);
        (void)setenv("HOME", home, 1);
        (void)unsetenv("XDG_CONFIG_HOME");
        (void)execvp(args[0], args);
        dprintf(STDERR_FILENO, "cannot run %s: %s\n", args[0], strerror(errno));
        _exit(127);
    }
    int saved = errno;
    (void)close(log);
    errno = saved;
    return pid;
}

static void nap(int64_t duration_ns)
{
    struct timespec wait = {.tv_sec = duration_ns / MIR_NS_PER_S,
                            .tv_nsec = duration_ns % MIR_NS_PER_S};
    (void)nanosleep(&wait, NULL);
}

bool mir_bench_server_alive(const mir_bench_server *server)
{
    if (server->pid == 0) return false;
    struct pollfd ended = {.fd = server->pidfd, .events = POLLIN};
    return poll(&ended, 1, 0) == 0;
}

static mir_status await_ready(mir_bench_server *server, const char *log_path, int64_t from_ns,
                              mir_error *error)
{
    while (mir_clock_mono_ns() - from_ns < start_timeout_ns) {
        if (!mir_bench_server_alive(server))
            return fail_with_log(log_path, "the server ended before it was ready", error);
        if (server->port == 0) server->port = announced_port(log_path);
        mir_bench_conn conn;
        if (server->port != 0 && mir_bench_conn_probe(server->port) == MIR_OK) {
            server->ready_ns = mir_clock_mono_ns() - from_ns;
            if (mir_bench_conn_open(&conn, server->port, "", error) != MIR_OK)
                return fail_with_log(log_path, error->text, error);
            mir_bench_conn_close(&conn);
            return MIR_OK;
        }
        nap(READY_POLL_NS);
    }
    return fail_with_log(log_path, "the server was not ready in time", error);
}

/* Fills `args`, whose strings live in `storage` and the options. */
static mir_status arguments(mir_bench_server *server, const mir_bench_options *options,
                            char (*storage)[MIR_BENCH_PATH_BYTES_MAX + 16], char **args,
                            mir_error *error)
{
    char *config = storage[0], *data = storage[1], *port = storage[2];
    size_t count = 0;
    (void)snprintf(config, sizeof storage[0], "%s/config", server->dir);
    if (server->side == MIR_BENCH_OURS) {
        mir_status status = write_config(config, "log:\n  level: info\n", error);
        if (status != MIR_OK) return status;
        (void)snprintf(data, sizeof storage[1], "%s/data", server->dir);
        const char *fixed[] = {options->mir_path, "serve", "--config", config,
                               "--data",          data,    "--listen", "127.0.0.1:0"};
        for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
            args[count++] = (char *)fixed[i];
        for (size_t i = 0; i < options->set_count; i++) {
            args[count++] = (char *)"--set";
            args[count++] = (char *)options->sets[i];
        }
        server->port = 0;
    } else {
        mir_status status = write_config(config, "max_payload: 8MB\n", error);
        if (status == MIR_OK) status = free_port(&server->port, error);
        if (status != MIR_OK) return status;
        (void)snprintf(port, sizeof storage[2], "%u", server->port);
        const char *fixed[] = {options->peer_path, "-c", config, "-a", "127.0.0.1", "-p", port};
        for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
            args[count++] = (char *)fixed[i];
    }
    args[count] = NULL;
    return MIR_OK;
}

/* Takes a slot and a directory. */
static mir_status prepare(mir_bench_server *fresh, const char *keep_dir, mir_error *error)
{
    fresh->slot = 0;
    while (fresh->slot < MIR_BENCH_SERVERS_MAX && atomic_load(&live[fresh->slot]) != 0)
        fresh->slot++;
    if (fresh->slot == MIR_BENCH_SERVERS_MAX)
        return mir_error_set(error, MIR_E_FULL, "too many servers at once");
    if (keep_dir != NULL) {
        (void)snprintf(fresh->dir, sizeof fresh->dir, "%s", keep_dir);
        return MIR_OK;
    }
    (void)snprintf(fresh->dir, sizeof fresh->dir, "%s/%u", root, dir_count++);
    if (mkdir(fresh->dir, 0700) != 0) return mir_error_os(error, errno, "mkdir %s", fresh->dir);
    return MIR_OK;
}

static mir_status launch(mir_bench_server *fresh, char *const *args, bool keep_dir,
                         mir_bench_ready_fn *ready, mir_error *error)
{
    char log_path[MIR_BENCH_PATH_BYTES_MAX + 16];
    (void)snprintf(log_path, sizeof log_path, "%s/log", fresh->dir);
    int64_t from_ns = mir_clock_mono_ns();
    fresh->pid = spawn(args, log_path, fresh->dir);
    if (fresh->pid < 0) return mir_error_os(error, errno, "cannot start %s", args[0]);
    fresh->pidfd = (int)syscall(SYS_pidfd_open, fresh->pid, 0);
    if (fresh->pidfd < 0) {
        int saved = errno;
        (void)kill(fresh->pid, SIGKILL); /* Not reaped yet, so the pid is still our child's. */
        (void)waitpid(fresh->pid, NULL, 0);
        return mir_error_os(error, saved, "pidfd_open");
    }
    atomic_store(&live[fresh->slot], fresh->pidfd + 1);
    mir_status status = MIR_OK;
    if (clock_getcpuclockid(fresh->pid, &fresh->cpu_clock) != 0)
        status = mir_error_set(error, MIR_E_UNSUPPORTED, "cannot read the CPU time of a child");
    else if (ready == NULL)
        status = await_ready(fresh, log_path, from_ns, error);
    else {
        while (status == MIR_OK && !ready(fresh)) {
            if (!mir_bench_server_alive(fresh))
                status = fail_with_log(log_path, "it ended before it was ready", error);
            else if (mir_clock_mono_ns() - from_ns > start_timeout_ns)
                status = fail_with_log(log_path, "it was not ready in time", error);
            else
                nap(10 * MIR_NS_PER_MS);
        }
        fresh->ready_ns = mir_clock_mono_ns() - from_ns;
    }
    if (status != MIR_OK) mir_bench_server_stop(fresh, keep_dir);
    return status;
}

mir_status mir_bench_server_start(mir_bench_server *server, mir_bench_side side,
                                  const mir_bench_options *options, const char *keep_dir,
                                  mir_error *error)
{
    mir_bench_server fresh = {.side = side};
    char storage[3][MIR_BENCH_PATH_BYTES_MAX + 16];
    char *args[ARGS_MAX];
    mir_status status = prepare(&fresh, keep_dir, error);
    if (status == MIR_OK) status = arguments(&fresh, options, storage, args, error);
    if (status == MIR_OK) status = launch(&fresh, args, keep_dir != NULL, NULL, error);
    if (status == MIR_OK) *server = fresh;
    return status;
}

mir_status mir_bench_server_prepare(mir_bench_server *server, mir_error *error)
{
    *server = (mir_bench_server){.side = MIR_BENCH_PEER};
    mir_status status = prepare(server, NULL, error);
    return status == MIR_OK ? free_port(&server->port, error) : status;
}

mir_status mir_bench_server_launch(mir_bench_server *server, char *const *args,
                                   mir_bench_ready_fn *ready, mir_error *error)
{
    return launch(server, args, false, ready, error);
}

void mir_bench_server_kill(mir_bench_server *server)
{
    (void)syscall(SYS_pidfd_send_signal, server->pidfd, SIGKILL, NULL, 0);
    (void)waitpid(server->pid, NULL, 0);
    atomic_store(&live[server->slot], 0);
    (void)close(server->pidfd);
    server->pid = 0;
}

static void say_last_words(const mir_bench_server *server)
{
    char path[MIR_BENCH_PATH_BYTES_MAX + 16], tail[LOG_TAIL_BYTES];
    tail[0] = '\0';
    (void)snprintf(path, sizeof path, "%s/log", server->dir);
    (void)read_log(path, tail, sizeof tail, true);
    mir_bench_say("%s did not end as it should; it wrote last: %s",
                  server->side == MIR_BENCH_OURS ? "our server" : "the peer",
                  tail[0] != '\0' ? tail : "(nothing)");
}

void mir_bench_server_stop(mir_bench_server *server, bool keep_dir)
{
    if (server->pid == 0) return;
    server->peak_resident_bytes = mir_bench_server_memory(server, "VmHWM");
    bool told = mir_bench_server_alive(server);
    (void)syscall(SYS_pidfd_send_signal, server->pidfd, SIGTERM, NULL, 0);
    struct pollfd ended = {.fd = server->pidfd, .events = POLLIN};
    if (poll(&ended, 1, stop_timeout_ms) != 1) {
        mir_bench_say("process %d did not end within %d s and was killed", (int)server->pid,
                      stop_timeout_ms / 1000);
        (void)syscall(SYS_pidfd_send_signal, server->pidfd, SIGKILL, NULL, 0);
    }
    int ended_by = 0;
    (void)waitpid(server->pid, &ended_by, 0);
    /* A crash may have been under way when it was looked at. */
    if (WIFSIGNALED(ended_by) && WTERMSIG(ended_by) != SIGTERM) told = false;
    if (!told) say_last_words(server);
    atomic_store(&live[server->slot], 0);
    (void)close(server->pidfd);
    server->pid = 0;
    if (!keep_dir) remove_tree(server->dir);
}

int64_t mir_bench_server_cpu_ns(const mir_bench_server *server)
{
    struct timespec spent = {0};
    if (clock_gettime(server->cpu_clock, &spent) != 0) return 0; /* It has ended. */
    return (int64_t)spent.tv_sec * MIR_NS_PER_S + spent.tv_nsec;
}

uint64_t mir_bench_server_memory(const mir_bench_server *server, const char *field)
{
    char path[64], line[256];
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)server->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return 0;
    size_t field_size = strlen(field);
    uint64_t bytes = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, field, field_size) != 0 || line[field_size] != ':') continue;
        bytes = strtoull(line + field_size + 1, NULL, 10) * 1024;
        break;
    }
    (void)fclose(file);
    return bytes;
}

void mir_bench_server_settle(const mir_bench_server *server)
{
    int64_t before_ns = mir_bench_server_cpu_ns(server);
    for (int i = 0; i < 50; i++) {
        nap(100 * MIR_NS_PER_MS);
        int64_t now_ns = mir_bench_server_cpu_ns(server);
        if (now_ns - before_ns < MIR_NS_PER_MS) return;
        before_ns = now_ns;
    }
}

mir_status mir_bench_pair_start(mir_bench_server *servers, const mir_bench_options *options,
                                mir_error *error)
{
    mir_status status = MIR_OK;
    for (unsigned side = 0; side < MIR_BENCH_SIDES && status == MIR_OK; side++)
        if (mir_bench_server_wanted(options, side))
            status = mir_bench_server_start(&servers[side], side, options, NULL, error);
    return status;
}

void mir_bench_pair_stop(mir_bench_server *servers, mir_bench_report *report)
{
    for (unsigned side = 0; side < MIR_BENCH_SIDES; side++) {
        mir_bench_server_stop(&servers[side], false);
        if (side == MIR_BENCH_OURS &&
            servers[side].peak_resident_bytes > report->peak_resident_bytes)
            report->peak_resident_bytes = servers[side].peak_resident_bytes;
    }
}
