/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_context.h"

#include "mir_cli_file.h"
#include "mir_cli_yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

MIR_MUST_CHECK static mir_status check_shape(mir_cli_context_file *file, mir_error *error)
{
    if (!json_is_object(file->root))
        return mir_error_set(error, MIR_E_INVALID, "is not a map of keys");
    json_t *all = json_object_get(file->root, "contexts");
    if (all == NULL || json_is_null(all)) {
        return json_object_set_new(file->root, "contexts", json_array()) == 0 ? MIR_OK
                                                                              : MIR_E_NO_MEMORY;
    }
    if (!json_is_array(all)) return mir_error_set(error, MIR_E_INVALID, "contexts is not a list");
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *each = json_array_get(all, i);
        if (!json_is_string(json_object_get(each, "name")) ||
            !json_is_string(json_object_get(each, "target")))
            return mir_error_set(error, MIR_E_INVALID, "context %zu has no name or no target",
                                 i + 1);
    }
    return MIR_OK;
}

mir_status mir_cli_context_read(mir_cli_context_file *file, mir_error *error)
{
    mir_cli_context_file made = {0};
    mir_status status = mir_paths_config_file("cli.yaml", made.path);
    if (status != MIR_OK)
        return mir_error_set(error, status, "no home directory for the file of contexts: set HOME");
    mir_bytes text = {.size_max = MIR_YAML_BYTES_MAX};
    json_t *documents = NULL;
    status = mir_cli_file_read(made.path, &text, error);
    if (status == MIR_E_NOT_FOUND) {
        made.root = json_object();
        status = made.root != NULL ? MIR_OK : MIR_E_NO_MEMORY;
    } else if (status == MIR_OK) {
        status = mir_cli_yaml_read(mir_bytes_as_view(&text), &documents, error);
        if (status == MIR_OK)
            made.root = json_array_size(documents) == 0 ? json_object()
                                                        : json_incref(json_array_get(documents, 0));
        json_decref(documents);
    }
    mir_bytes_free(&text);
    if (status == MIR_OK) status = check_shape(&made, error);
    if (status != MIR_OK) {
        mir_error_wrap(error, "%.300s", made.path);
        json_decref(made.root);
        return status;
    }
    *file = made;
    return MIR_OK;
}

/* Makes the directories above the path. */
static void make_parents(const char *path)
{
    char dir[MIR_PATH_BYTES_MAX];
    (void)snprintf(dir, sizeof dir, "%s", path);
    for (char *slash = strchr(dir + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(dir, 0700);
        *slash = '/';
    }
}

mir_status mir_cli_context_write(const mir_cli_context_file *file, mir_error *error)
{
    mir_bytes text = {0};
    char beside[MIR_PATH_BYTES_MAX + 16];
    mir_status status = mir_cli_yaml_write(file->root, false, &text);
    (void)snprintf(beside, sizeof beside, "%s.XXXXXX", file->path);
    make_parents(file->path);
    int fd = -1;
    if (status == MIR_OK) {
        fd = mkstemp(beside); /* mode 0600 */
        if (fd < 0) status = mir_error_os(error, errno, "cannot write beside %s", file->path);
    }
    if (status == MIR_OK && write(fd, text.data, text.size) != (ssize_t)text.size)
        status = mir_error_os(error, errno, "cannot write %s", beside);
    if (status == MIR_OK && fsync(fd) != 0)
        status = mir_error_os(error, errno, "cannot write %s", beside);
    if (status == MIR_OK && rename(beside, file->path) != 0)
        status = mir_error_os(error, errno, "cannot replace %s", file->path);
    if (fd >= 0) {
        (void)close(fd);
        if (status != MIR_OK) (void)unlink(beside);
    }
    mir_bytes_free(&text);
    return status;
}

void mir_cli_context_free(mir_cli_context_file *file)
{
    json_decref(file->root);
    *file = (mir_cli_context_file){0};
}

const char *mir_cli_context_chosen(const mir_cli_context_file *file)
{
    const char *name = json_string_value(json_object_get(file->root, "currentContext"));
    return name != NULL && name[0] != '\0' ? name : NULL;
}

json_t *mir_cli_context_all(const mir_cli_context_file *file)
{
    return json_object_get(file->root, "contexts");
}

json_t *mir_cli_context_find(const mir_cli_context_file *file, const char *name)
{
    json_t *all = mir_cli_context_all(file);
    for (size_t i = 0; i < json_array_size(all); i++) {
        json_t *each = json_array_get(all, i);
        if (strcmp(json_string_value(json_object_get(each, "name")), name) == 0) return each;
    }
    return NULL;
}
