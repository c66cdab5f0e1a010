/* SPDX-License-Identifier: Apache-2.0 */
/* mir-bench: every figure that the project quotes, against a peer, on this machine, now. */
#include "mir_bench.h"
#include "mir_bench_server.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, COMMAND_BYTES_MAX = 1024 };
enum { EVENTS_MIN = 40000, EVENTS_DEFAULT = 1000000, EVENTS_MAX = 100000000 };
enum { VALUES_MIN = 400000, VALUES_DEFAULT = 20000000, VALUES_MAX = 1000000000 };

static const char usage_text[] =
    "Usage: mir-bench BENCH [options]\n"
    "\n"
    "Starts our server and a peer on free loopback ports, measures them in turn with the same\n"
    "generator, and prints ours, the peer, the ratio ours/peer, the bar and the result.\n"
    "\n"
    "Benches:\n"
    "  all        every one of these\n"
    "  ingest     server CPU per telemetry message, 8 and 64 connections, large writes\n"
    "  segments   the same with one message per TCP segment from 1,000 connections\n"
    "  pubsub     messages per second through one queue subscriber\n"
    "  reqrep     request/reply latency at depth 1, rate at depth 64\n"
    "  idle       anonymous memory of an idle connection with its twin\n"
    "  start      time from exec to ready, empty and with 100,000 devices\n"
    "  create     time to create 100,000 devices and to list 1,000 of them by label\n"
    "  commands   a command to a device and back, commands and configuration for 10,000\n"
    "  events     events of modules stored per second, and lists of them\n"
    "  telemetry  telemetry taken in, on disk and read, beside VictoriaMetrics and InfluxDB\n"
    "             (not one of `all`: a quarter of an hour); then `live`\n"
    "  live       memory with 100,000 series, and a paced stream during scans and merges\n"
    "  reopen     a start after kill -9 with so many values stored; 300,000,000 are a GiB\n"
    "\n"
    "Options:\n"
    "  --mir PATH        our server (default: `mir` beside this program; `none`: peer only)\n"
    "  --peer PATH       nats-server (default: from PATH; `none`: ours only)\n"
    "  --set KEY=VALUE   handed to our server, may be repeated\n"
    "  --seconds N       aimed length of one round (default 2)\n"
    "  --rounds N        rounds per server and figure, of which the median counts (default 5)\n"
    "  --events N        how many events are stored and listed (default 1000000)\n"
    "  --values N        how many values of telemetry are stored in each set (default 20000000)\n"
    "  --quick           small sizes and one round: does it work at all\n"
    "  --keep            leave data and logs behind, and say where\n"
    "  --strict          exit with 1 when a bar is missed\n"
    "  -o table|json     form of the result on stdout (default table)\n"
    "  -h, --help        this text\n"
    "\n"
    "Examples:\n"
    "  mir-bench all\n"
    "  mir-bench ingest --seconds 5 --rounds 9\n"
    "  mir-bench reqrep --set spin_us=50\n"
    "  mir-bench events --events 10000000\n"
    "  mir-bench all --mir none -o json > peer.json\n"
    "\n"
    "Data and logs go to a directory below TMPDIR (default /tmp) that is removed at the end.\n"
    "Exit status: 0 measured, 1 failed, 2 wrong usage.\n";

typedef struct bench_entry {
    const char *name;
    mir_bench_function *run;
    bool in_all;
} bench_entry;

static const bench_entry benches[] = {
    {"start", mir_bench_start, false},
    {"create", mir_bench_create, false},
    {"start", mir_bench_start_and_create, true},
    {"reqrep", mir_bench_reqrep, true},
    {"pubsub", mir_bench_pubsub, true},
    {"ingest", mir_bench_ingest, true},
    {"segments", mir_bench_segments, true},
    {"idle", mir_bench_idle, true},
    {"commands", mir_bench_commands, true},
    {"events", mir_bench_events, true},
    {"telemetry", mir_bench_telemetry_and_live, false},
    {"live", mir_bench_live, false},
    {"reopen", mir_bench_reopen, false},
};

enum { BENCH_COUNT = sizeof benches / sizeof benches[0] };

static int wrong(const char *format, const char *what)
{
    (void)fputs("mir-bench: ", stderr);
    (void)fprintf(stderr, "%s %s; see mir-bench --help\n", format, what);
    return EXIT_USAGE;
}

/* `mir` in the directory of this program, or null. */
static const char *beside_us(void)
{
    static char path[MIR_BENCH_PATH_BYTES_MAX * 2];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 8);
    if (size <= 0) return NULL;
    path[size] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL) return NULL;
    memcpy(slash + 1, "mir", sizeof "mir");
    return access(path, X_OK) == 0 ? path : NULL;
}

static void join_command(int argc, char **argv, char *text, size_t text_bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < argc && used < text_bytes; i++) {
        int size = snprintf(text + used, text_bytes - used, "%s%s", i > 0 ? " " : "", argv[i]);
        if (size > 0) used += (size_t)size;
    }
}

typedef struct arguments {
    const char *bench;
    mir_bench_options options;
    bool json;
    bool strict;
    bool keep;
    bool help;
} arguments;

static int parse(int argc, char **argv, arguments *parsed)
{
    enum { MIR = 256, PEER, SET, SECONDS, ROUNDS, EVENTS, VALUES, QUICK, STRICT, KEEP };
    static const struct option long_options[] = {
        {"mir", required_argument, NULL, MIR},
        {"peer", required_argument, NULL, PEER},
        {"set", required_argument, NULL, SET},
        {"seconds", required_argument, NULL, SECONDS},
        {"rounds", required_argument, NULL, ROUNDS},
        {"events", required_argument, NULL, EVENTS},
        {"values", required_argument, NULL, VALUES},
        {"quick", no_argument, NULL, QUICK},
        {"strict", no_argument, NULL, STRICT},
        {"keep", no_argument, NULL, KEEP},
        {"output", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    mir_bench_options *options = &parsed->options;
    const char *mir = NULL;
    char *end;
    options->peer_path = "nats-server";
    for (int c; (c = getopt_long(argc, argv, "o:h", long_options, NULL)) != -1;) {
        switch (c) {
        case MIR: mir = optarg; break;
        case PEER: options->peer_path = strcmp(optarg, "none") == 0 ? NULL : optarg; break;
        case SET:
            if (options->set_count == MIR_BENCH_SETS_MAX) return wrong("too many", "--set");
            options->sets[options->set_count++] = optarg;
            break;
        case SECONDS:
            options->seconds = strtod(optarg, &end);
            if (*end != '\0' || !(options->seconds >= 0.1 && options->seconds <= 60))
                return wrong("--seconds takes 0.1 to 60, not", optarg);
            break;
        case ROUNDS: {
            long rounds = strtol(optarg, &end, 10);
            if (*end != '\0' || rounds < 1 || rounds > MIR_BENCH_ROUNDS_MAX)
                return wrong("--rounds takes 1 to 15, not", optarg);
            options->rounds = (unsigned)rounds;
            break;
        }
        case EVENTS:
            options->events = strtoull(optarg, &end, 10);
            if (*end != '\0' || options->events < EVENTS_MIN || options->events > EVENTS_MAX)
                return wrong("--events takes 40000 to 100000000, not", optarg);
            break;
        case VALUES:
            options->values = strtoull(optarg, &end, 10);
            if (*end != '\0' || options->values < VALUES_MIN || options->values > VALUES_MAX)
                return wrong("--values takes 400000 to 1000000000, not", optarg);
            break;
        case QUICK: options->quick = true; break;
        case STRICT: parsed->strict = true; break;
        case KEEP: parsed->keep = true; break;
        case 'o':
            parsed->json = strcmp(optarg, "json") == 0;
            if (!parsed->json && strcmp(optarg, "table") != 0)
                return wrong("-o takes table or json, not", optarg);
            break;
        case 'h': parsed->help = true; return EXIT_DONE;
        default: return EXIT_USAGE; /* getopt has said why. */
        }
    }
    if (options->seconds == 0) options->seconds = options->quick ? 0.3 : 2;
    if (options->rounds == 0) options->rounds = options->quick ? 1 : 5;
    if (options->events == 0) options->events = options->quick ? EVENTS_MIN : EVENTS_DEFAULT;
    if (options->values == 0) options->values = options->quick ? VALUES_MIN : VALUES_DEFAULT;
    if (mir == NULL)
        options->mir_path = beside_us();
    else if (strcmp(mir, "none") != 0)
        options->mir_path = mir;
    if (options->mir_path != NULL && access(options->mir_path, X_OK) != 0)
        return wrong("no program is at", options->mir_path);
    if (options->mir_path == NULL && options->peer_path == NULL)
        return wrong("nothing to measure:", "neither our server nor the peer");
    if (optind != argc - 1) return wrong("name one bench,", "for example `mir-bench all`");
    parsed->bench = argv[optind];
    return EXIT_DONE;
}

static int run(const arguments *parsed, const char *command)
{
    static mir_bench_report report;
    mir_error error = {0};
    bool all = strcmp(parsed->bench, "all") == 0, known = false, failed = false;
    for (size_t i = 0; i < BENCH_COUNT; i++)
        known = known || strcmp(parsed->bench, benches[i].name) == 0;
    if (!all && !known) return wrong("there is no bench", parsed->bench);
    if (parsed->options.mir_path == NULL) mir_bench_say("our server is not measured");
    if (mir_bench_server_init(parsed->keep, &error) != MIR_OK) {
        mir_bench_say("%s", error.text);
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < BENCH_COUNT; i++) {
        if (all ? !benches[i].in_all : strcmp(parsed->bench, benches[i].name) != 0) continue;
        if (benches[i].run(&parsed->options, &report, &error) != MIR_OK) {
            failed = true;
            mir_bench_say("%s: %s", benches[i].name, error.text);
        }
        if (!all) break;
    }
    if (!parsed->json)
        mir_bench_report_table(&report, &parsed->options, command);
    else if (mir_bench_report_json(&report, &parsed->options, command) != MIR_OK)
        failed = true;
    mir_bench_server_cleanup();
    for (size_t i = 0; i < report.row_count; i++) {
        const char *verdict = mir_bench_row_verdict(&report.rows[i]);
        failed =
            failed || report.rows[i].failed || (parsed->strict && strcmp(verdict, "miss") == 0);
    }
    return failed ? EXIT_FAILED : EXIT_DONE;
}

int main(int argc, char **argv)
{
    static char command[COMMAND_BYTES_MAX];
    arguments parsed = {0};
    join_command(argc, argv, command, sizeof command);
    int code = parse(argc, argv, &parsed);
    if (code != EXIT_DONE) return code;
    if (parsed.help) {
        (void)fputs(usage_text, stdout);
        return EXIT_DONE;
    }
    return run(&parsed, command);
}
