/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_paths.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

MIR_MUST_CHECK static mir_status join(char *path, const char *a, const char *b, const char *c)
{
    char text[MIR_PATH_BYTES_MAX];
    int size = snprintf(text, sizeof text, "%s%s%s", a, b, c);
    if (size < 0 || (size_t)size >= sizeof text) return MIR_E_TOO_LARGE;
    (void)snprintf(path, MIR_PATH_BYTES_MAX, "%s", text);
    return MIR_OK;
}

static const char *set_variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* The directory that an XDG variable names, or the one below home that stands for it. */
MIR_MUST_CHECK static mir_status xdg_dir(const char *variable, const char *below_home, char *path)
{
    const char *value = set_variable(variable);
    if (value != NULL && value[0] == '/') return join(path, value, "/mir", "");
    const char *home = set_variable("HOME");
    if (home == NULL) {
        const struct passwd *user = getpwuid(getuid());
        if (user != NULL && user->pw_dir != NULL && user->pw_dir[0] != '\0') home = user->pw_dir;
    }
    return home == NULL ? MIR_E_NOT_FOUND : join(path, home, below_home, "/mir");
}

mir_status mir_paths_data_dir(char *path)
{
    const char *value = set_variable("MIR_DATA");
    if (value != NULL) return join(path, value, "", "");
    if (geteuid() == 0) return join(path, "/var/lib/mir", "", "");
    return xdg_dir("XDG_DATA_HOME", "/.local/share", path);
}

mir_status mir_paths_admin_socket(const char *data, char *path)
{
    char dir[MIR_PATH_BYTES_MAX];
    if (data == NULL) {
        mir_status status = mir_paths_data_dir(dir);
        if (status != MIR_OK) return status;
        data = dir;
    }
    return join(path, data, "/admin.sock", "");
}

mir_status mir_paths_config_file(const char *name, char *path)
{
    char dir[MIR_PATH_BYTES_MAX];
    mir_status status = xdg_dir("XDG_CONFIG_HOME", "/.config", dir);
    return status != MIR_OK ? status : join(path, dir, "/", name);
}
