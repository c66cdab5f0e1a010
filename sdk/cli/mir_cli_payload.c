/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_payload.h"

#include "mir_cli_file.h"
#include "mir_clock.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SILENCE_MS = 1000, COMMENT_LINE_MAX = 400 };

static bool is_blank(mir_view text)
{
    for (size_t i = 0; i < text.size; i++)
        if (!isspace(text.data[i])) return false;
    return true;
}

/* Whether standard input has something for us; `*silent` when it may have and says nothing. */
static bool input_waits(bool *silent)
{
    struct stat about;
    *silent = false;
    if (fstat(STDIN_FILENO, &about) != 0) return false;
    if (S_ISREG(about.st_mode)) return lseek(STDIN_FILENO, 0, SEEK_CUR) == 0;
    if (!S_ISFIFO(about.st_mode) && !S_ISSOCK(about.st_mode)) return false;
    int64_t until_ns = mir_clock_mono_ns() + SILENCE_MS * MIR_NS_PER_MS;
    for (;;) {
        struct pollfd wait = {.fd = STDIN_FILENO, .events = POLLIN};
        int64_t left_ms = (until_ns - mir_clock_mono_ns()) / MIR_NS_PER_MS;
        int ready = poll(&wait, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready < 0 && errno == EINTR) continue;
        *silent = ready == 0;
        return ready > 0;
    }
}

/* Bytes pass as they are: whoever gives them knows what they are, and none is a message too. */
static bool is_raw(const mir_cli_args *args)
{
    return mir_cli_flag(args, MIR_OPT_PROTOBUF);
}

int mir_cli_payload_read(const mir_cli *cli, const mir_cli_args *args, mir_cli_payload *payload)
{
    const char *value = mir_cli_value(args, MIR_OPT_PAYLOAD);
    mir_error error = {0};
    mir_status status = MIR_OK;
    const char *from = "--payload";
    *payload = (mir_cli_payload){.text.size_max = MIR_PAYLOAD_BYTES_MAX};
    if (value != NULL && value[0] == '@') {
        from = value + 1;
        status = mir_cli_file_read(from, &payload->text, &error);
    } else if (value != NULL && strcmp(value, "-") != 0) {
        mir_bytes_text(&payload->text, value);
        if (!mir_bytes_ok(&payload->text))
            status = mir_error_set(&error, MIR_E_TOO_LARGE, "the payload is too large");
    } else if (value != NULL || input_waits(&payload->silent)) {
        from = "standard input";
        status = mir_cli_file_read("-", &payload->text, &error);
    }
    if (status != MIR_OK) return mir_cli_fail("%s", error.text);
    payload->given = !is_blank(mir_bytes_as_view(&payload->text));
    if (is_raw(args)) {
        payload->given = payload->given || payload->text.size > 0 || value != NULL;
        return MIR_EXIT_OK;
    }
    if (value != NULL && !payload->given)
        return mir_cli_usage(cli, "the payload is empty; an empty message is '{}'");
    if (payload->given &&
        mir_cli_payload_check(mir_bytes_as_view(&payload->text), &error) != MIR_OK)
        return mir_cli_usage(cli, "%s: %s", from, error.text);
    return MIR_EXIT_OK;
}

mir_status mir_cli_payload_check(mir_view text, mir_error *error)
{
    json_error_t detail;
    /* Numbers of any size pass: the server reads them by the type of their field. */
    json_t *value = json_loadb((const char *)text.data, text.size,
                               JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &detail);
    if (value == NULL)
        return mir_error_set(error, MIR_E_INVALID, "this is no JSON: line %d, column %d: %s",
                             detail.line, detail.column, detail.text);
    bool object = json_is_object(value);
    json_decref(value);
    return object ? MIR_OK
                  : mir_error_set(error, MIR_E_INVALID,
                                  "a message is a JSON object, such as '{\"field\": 1}'");
}

void mir_cli_payload_free(mir_cli_payload *payload)
{
    mir_bytes_free(&payload->text);
}

/* Leaves out lines whose first characters are # or //. */
static void without_comments(mir_view text, mir_bytes *out)
{
    while (text.size > 0) {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        size_t size = end != NULL ? (size_t)(end - text.data) + 1 : text.size;
        size_t at = 0;
        while (at < size && (text.data[at] == ' ' || text.data[at] == '\t')) at++;
        bool comment = (at < size && text.data[at] == '#') ||
                       (at + 1 < size && text.data[at] == '/' && text.data[at + 1] == '/');
        if (!comment) mir_bytes_append(out, text.data, size);
        text = mir_view_from(text, size);
    }
}

/* Equal but for white space at the ends. */
static bool same_text(mir_view a, mir_view b)
{
    while (a.size > 0 && isspace(a.data[a.size - 1])) a.size--;
    while (b.size > 0 && isspace(b.data[b.size - 1])) b.size--;
    while (a.size > 0 && isspace(a.data[0])) a = mir_view_from(a, 1);
    while (b.size > 0 && isspace(b.data[0])) b = mir_view_from(b, 1);
    return mir_view_eq(a, b);
}

int mir_cli_payload_edit_begin(mir_cli_payload_edit *edit)
{
    const char *folder = getenv("TMPDIR");
    if (folder == NULL || folder[0] == '\0') folder = "/tmp";
    *edit = (mir_cli_payload_edit){0};
    int size = snprintf(edit->path, sizeof edit->path, "%s/mir-XXXXXX.json", folder);
    int fd = size > 0 && (size_t)size < sizeof edit->path ? mkstemps(edit->path, 5) : -1;
    if (fd < 0) {
        edit->path[0] = '\0';
        return mir_cli_fail("cannot make a file to edit in %s", folder);
    }
    (void)close(fd);
    return MIR_EXIT_OK;
}

void mir_cli_payload_edit_end(mir_cli_payload_edit *edit)
{
    if (edit->path[0] != '\0') (void)unlink(edit->path);
    mir_bytes_free(&edit->last);
    edit->path[0] = '\0';
}

static int write_file(const char *path, const char *comment, mir_view json)
{
    FILE *file = fopen(path, "we");
    if (file == NULL) return mir_cli_fail("cannot write %s", path);
    while (comment != NULL && *comment != '\0') {
        size_t size = strcspn(comment, "\n");
        (void)fprintf(file, "// %.*s\n", (int)(size < COMMENT_LINE_MAX ? size : COMMENT_LINE_MAX),
                      comment);
        comment += size + (comment[size] == '\n');
    }
    (void)fwrite(json.data, 1, json.size, file);
    if (json.size == 0 || json.data[json.size - 1] != '\n') (void)fputc('\n', file);
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed) return mir_cli_fail("cannot write %s", path);
    return MIR_EXIT_OK;
}

/* Runs the editor on the terminal, whatever standard input is. */
static int run_editor(const char *path)
{
    const char *editor = getenv("VISUAL");
    if (editor == NULL || editor[0] == '\0') editor = getenv("EDITOR");
    if (editor == NULL || editor[0] == '\0') editor = "vi";
    (void)fflush(stdout);
    pid_t child = fork();
    if (child < 0) return mir_cli_fail("cannot start the editor");
    if (child == 0) {
        char command[1024];
        /* The shell splits an editor with arguments, such as "code --wait". */
        int size = snprintf(command, sizeof command, "exec %s \"$1\"", editor);
        if (size > 0 && (size_t)size < sizeof command)
            (void)execl("/bin/sh", "sh", "-c", command, "mir", path, (char *)NULL);
        _exit(127);
    }
    int outcome = 0;
    while (waitpid(child, &outcome, 0) < 0)
        if (errno != EINTR) return mir_cli_fail("the editor was lost");
    if (!WIFEXITED(outcome) || WEXITSTATUS(outcome) != 0)
        return mir_cli_fail("the editor '%s' failed; nothing was sent. $VISUAL or $EDITOR names "
                            "another one",
                            editor);
    return MIR_EXIT_OK;
}

int mir_cli_payload_edit_open(mir_cli_payload_edit *edit, const char *comment, mir_view json,
                              mir_bytes *text)
{
    mir_bytes saved = {.size_max = MIR_PAYLOAD_BYTES_MAX};
    mir_error error = {0};
    edit->last.size = 0;
    mir_bytes_view(&edit->last, json);
    int code = write_file(edit->path, comment, json);
    if (code == MIR_EXIT_OK) code = run_editor(edit->path);
    if (code == MIR_EXIT_OK && mir_cli_file_read(edit->path, &saved, &error) != MIR_OK)
        code = mir_cli_fail("%s", error.text);
    text->size = 0;
    if (code == MIR_EXIT_OK) {
        without_comments(mir_bytes_as_view(&saved), text);
        if (!mir_bytes_ok(text) || !mir_bytes_ok(&edit->last))
            code = mir_cli_fail("no memory for the text");
        else if (is_blank(mir_bytes_as_view(text)))
            code = mir_cli_fail("the text is empty; nothing was sent");
        else if (same_text(mir_bytes_as_view(text), mir_bytes_as_view(&edit->last)))
            code = mir_cli_fail("the text was not changed; nothing was sent");
    }
    mir_bytes_free(&saved);
    return code;
}
