/* SPDX-License-Identifier: Apache-2.0 */
/* mir device apply: devices from files, created or updated. */
#include "mir_cli_devices.h"

#include "mir_cli_file.h"
#include "mir_cli_yaml.h"
#include "mir_device_json.h"

#include <ctype.h>

enum { DEVICES_MAX = 100000 };

/* JSON texts one after the other, or one array of them. */
MIR_MUST_CHECK static mir_status read_json(mir_view text, json_t **documents, mir_error *error)
{
    json_t *all = json_array();
    size_t at = 0;
    mir_status status = all != NULL ? MIR_OK : MIR_E_NO_MEMORY;
    while (status == MIR_OK) {
        while (at < text.size && isspace(text.data[at])) at++;
        if (at == text.size) break;
        json_error_t problem;
        json_t *value = json_loadb((const char *)text.data + at, text.size - at,
                                   JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &problem);
        if (value == NULL) {
            size_t line = 0;
            for (size_t i = 0; i < at; i++) line += text.data[i] == '\n';
            status = mir_error_set(error, MIR_E_INVALID, "line %zu: %s",
                                   line + (size_t)problem.line, problem.text);
        } else if (json_array_append_new(all, value) != 0) {
            status = MIR_E_NO_MEMORY;
        } else {
            at += (size_t)problem.position;
        }
    }
    if (status != MIR_OK) {
        json_decref(all);
        return status;
    }
    *documents = all;
    return MIR_OK;
}

/* Appends the devices of one file to the array. */
MIR_MUST_CHECK static mir_status read_file(const char *path, json_t *devices, mir_error *error)
{
    mir_bytes text = {.size_max = MIR_YAML_BYTES_MAX};
    json_t *documents = NULL;
    mir_status status = mir_cli_file_read(path, &text, error);
    if (status == MIR_OK) {
        size_t at = 0;
        while (at < text.size && isspace(text.data[at])) at++;
        bool json = at < text.size && (text.data[at] == '{' || text.data[at] == '[');
        mir_error ignored;
        if (json && read_json(mir_bytes_as_view(&text), &documents, error) != MIR_OK) {
            /* YAML may begin with a bracket too. */
            if (mir_cli_yaml_read(mir_bytes_as_view(&text), &documents, &ignored) != MIR_OK)
                status = MIR_E_INVALID;
        } else if (!json) {
            status = mir_cli_yaml_read(mir_bytes_as_view(&text), &documents, error);
        }
        if (status != MIR_OK) mir_error_wrap(error, "%.200s", path);
    }
    mir_bytes_free(&text);
    for (size_t i = 0; status == MIR_OK && i < json_array_size(documents); i++) {
        json_t *document = json_array_get(documents, i);
        size_t count = json_is_array(document) ? json_array_size(document) : 1;
        for (size_t j = 0; status == MIR_OK && j < count; j++) {
            json_t *each = json_is_array(document) ? json_array_get(document, j) : document;
            if (json_array_size(devices) >= DEVICES_MAX)
                status = mir_error_set(error, MIR_E_TOO_LARGE, "more than %d devices", DEVICES_MAX);
            else if (json_array_append(devices, each) != 0)
                status = MIR_E_NO_MEMORY;
        }
    }
    json_decref(documents);
    return status;
}

/* People write `floor: 2`; labels are texts. Nulls, which remove a key, go to `removed`. */
static void normalize_map(json_t *meta, const char *name, json_t *removed)
{
    json_t *map = json_object_get(meta, name);
    if (!json_is_object(map)) return;
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(map, next, key, value)
    {
        if (json_is_integer(value)) {
            (void)json_object_set_new(map, key,
                                      json_sprintf("%lld", (long long)json_integer_value(value)));
        } else if (json_is_boolean(value)) {
            (void)json_object_set_new(map, key,
                                      json_string(json_is_true(value) ? "true" : "false"));
        } else if (json_is_null(value)) {
            (void)json_object_set_new(removed, key, json_null());
            (void)json_object_del(map, key);
        }
    }
}

typedef struct definition {
    MirApi__V1__Device *device;
    MirApi__V1__DeviceTarget target;
    MirApi__V1__UpdateDeviceRequest__Meta meta;
    MirApi__V1__UpdateDeviceRequest__Spec spec;
    MirApi__V1__UpdateDeviceRequest__Properties properties;
} definition;

MIR_MUST_CHECK static MirApi__V1__OptString *some_text(mir_arena *arena, char *value)
{
    MirApi__V1__OptString *made = mir_arena_alloc(arena, sizeof *made);
    if (made == NULL) return NULL;
    mir_api__v1__opt_string__init(made);
    made->value = value;
    return made;
}

MIR_MUST_CHECK static mir_status set_label(mir_arena *arena, definition *to, const char *key,
                                           char *value)
{
    MirApi__V1__UpdateDeviceRequest__Meta__LabelsEntry *entry =
        mir_arena_alloc(arena, sizeof *entry);
    if (entry == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__update_device_request__meta__labels_entry__init(entry);
    entry->key = mir_arena_strdup(arena, mir_view_cstr(key));
    entry->value = some_text(arena, value);
    if (entry->key == NULL || entry->value == NULL) return MIR_E_NO_MEMORY;
    to->meta.labels[to->meta.n_labels++] = entry;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status set_annotation(mir_arena *arena, definition *to, const char *key,
                                                char *value)
{
    MirApi__V1__UpdateDeviceRequest__Meta__AnnotationsEntry *entry =
        mir_arena_alloc(arena, sizeof *entry);
    if (entry == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__update_device_request__meta__annotations_entry__init(entry);
    entry->key = mir_arena_strdup(arena, mir_view_cstr(key));
    entry->value = some_text(arena, value);
    if (entry->key == NULL || entry->value == NULL) return MIR_E_NO_MEMORY;
    to->meta.annotations[to->meta.n_annotations++] = entry;
    return MIR_OK;
}

/* One element of a list that holds a single text. */
static char **list_of_one(mir_arena *arena, char *text, size_t *count)
{
    char **list = mir_arena_alloc(arena, sizeof *list);
    if (list == NULL) return NULL;
    list[0] = text;
    *count = 1;
    return list;
}

MIR_MUST_CHECK static mir_status define(json_t *value, mir_arena *arena, definition *out,
                                        mir_error *error)
{
    static char default_namespace[] = "default";
    json_t *meta = json_object_get(value, "meta");
    json_t *labels_gone = json_object();
    json_t *annotations_gone = json_object();
    normalize_map(meta, "labels", labels_gone);
    normalize_map(meta, "annotations", annotations_gone);
    mir_status status = mir_device_json_read_value(value, arena, &out->device, error);
    if (status != MIR_OK) goto out;
    const MirApi__V1__Meta *from = out->device->meta;
    const MirApi__V1__DeviceSpec *spec = out->device->spec;
    char *id = spec->device_id != NULL && spec->device_id[0] != '\0' ? spec->device_id : NULL;
    char *name = from->name != NULL && from->name[0] != '\0' ? from->name : id;
    char *space = from->namespace_ != NULL && from->namespace_[0] != '\0' ? from->namespace_
                                                                          : default_namespace;
    if (name == NULL) {
        status =
            mir_error_set(error, MIR_E_INVALID, "meta.name and spec.deviceId are both missing");
        goto out;
    }
    (void)mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    status = MIR_E_NO_MEMORY;
    mir_api__v1__device_target__init(&out->target);
    mir_api__v1__update_device_request__meta__init(&out->meta);
    mir_api__v1__update_device_request__spec__init(&out->spec);
    mir_api__v1__update_device_request__properties__init(&out->properties);
    out->target.names = list_of_one(arena, name, &out->target.n_names);
    out->target.namespaces = list_of_one(arena, space, &out->target.n_namespaces);
    if (id != NULL) out->target.ids = list_of_one(arena, id, &out->target.n_ids);
    out->meta.labels = mir_arena_alloc(arena, (from->n_labels + json_object_size(labels_gone) + 1) *
                                                  sizeof(*out->meta.labels));
    out->meta.annotations =
        mir_arena_alloc(arena, (from->n_annotations + json_object_size(annotations_gone) + 1) *
                                   sizeof(*out->meta.annotations));
    if (out->target.n_names == 0 || out->target.n_namespaces == 0 ||
        (id != NULL && out->target.n_ids == 0) || out->meta.labels == NULL ||
        out->meta.annotations == NULL)
        goto out;
    out->meta.name = name;
    out->meta.namespace_ = space;
    out->spec.device_id = id;
    out->spec.has_disabled = spec->has_disabled;
    out->spec.disabled = spec->disabled;
    if (out->device->properties != NULL && out->device->properties->desired != NULL &&
        out->device->properties->desired->n_fields > 0)
        out->properties.desired = out->device->properties->desired;
    status = MIR_OK;
    for (size_t i = 0; status == MIR_OK && i < from->n_labels; i++)
        status = set_label(arena, out, from->labels[i]->key, from->labels[i]->value);
    for (size_t i = 0; status == MIR_OK && i < from->n_annotations; i++)
        status = set_annotation(arena, out, from->annotations[i]->key, from->annotations[i]->value);
    const char *key;
    json_t *ignored;
    json_object_foreach(labels_gone, key, ignored)
    {
        if (status == MIR_OK) status = set_label(arena, out, key, NULL);
    }
    json_object_foreach(annotations_gone, key, ignored)
    {
        if (status == MIR_OK) status = set_annotation(arena, out, key, NULL);
    }
out:
    json_decref(labels_gone);
    json_decref(annotations_gone);
    return status;
}

/* Applies one definition; what the server has afterwards is appended to `results`. */
static int apply(mir_cli_session *session, const definition *from, bool dry_run, const char *format,
                 mir_cli_devices *results)
{
    MirApi__V1__DeviceTarget *one = (MirApi__V1__DeviceTarget *)(uintptr_t)&from->target;
    mir_cli_targets targets = {.items = &one, .count = 1};
    mir_cli_devices found = {0};
    int code = mir_cli_devices_list(session, &targets, MIR_DEVICES_PLAIN, &found);
    if (code != MIR_EXIT_OK) return code;
    bool table = strcmp(format, "table") == 0;
    if (dry_run) {
        (void)printf("would %s ", found.count > 0 ? "update" : "create");
        (void)printf("%s/%s\n", from->meta.name, from->meta.namespace_);
        return MIR_EXIT_OK;
    }
    MirApi__V1__UpdateDeviceRequest request = MIR_API__V1__UPDATE_DEVICE_REQUEST__INIT;
    request.targets = one;
    request.meta = (MirApi__V1__UpdateDeviceRequest__Meta *)(uintptr_t)&from->meta;
    request.spec = (MirApi__V1__UpdateDeviceRequest__Spec *)(uintptr_t)&from->spec;
    if (from->properties.desired != NULL)
        request.props = (MirApi__V1__UpdateDeviceRequest__Properties *)(uintptr_t)&from->properties;
    MirApi__V1__DeviceList *answer = NULL;
    code = mir_cli_connect_ask(session, "core.v1alpha.update", &request.base,
                               &mir_api__v1__update_device_response__descriptor, &answer);
    if (code != MIR_EXIT_OK) {
        mir_cli_note("  in the definition of %s/%s", from->meta.name, from->meta.namespace_);
        return code;
    }
    if (table) {
        mir_cli_devices done = {answer->devices, answer->n_devices};
        return mir_cli_devices_report(&done, found.count > 0 ? "updated" : "created", format);
    }
    return mir_cli_devices_append(&session->arena, results, answer) == MIR_OK
               ? MIR_EXIT_OK
               : mir_cli_fail("no memory");
}

int mir_cli_device_apply(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_error error = {0};
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    if (format == NULL) format = "table";
    if (!mir_cli_flag(args, MIR_OPT_FILE))
        return mir_cli_usage(cli, "needs -f FILE, or -f - for standard input");
    json_t *values = json_array();
    mir_status status = values != NULL ? MIR_OK : MIR_E_NO_MEMORY;
    for (size_t i = 0; status == MIR_OK && i < args->options_count; i++)
        if (args->options[i].id == MIR_OPT_FILE)
            status = read_file(args->options[i].value, values, &error);
    size_t count = json_array_size(values);
    definition *all =
        status == MIR_OK ? mir_arena_alloc(&session.arena, (count + 1) * sizeof *all) : NULL;
    /* Everything is checked before anything is sent. */
    for (size_t i = 0; all != NULL && status == MIR_OK && i < count; i++) {
        status = define(json_array_get(values, i), &session.arena, &all[i], &error);
        if (status != MIR_OK) mir_error_wrap(&error, "device %zu", i + 1);
    }
    int code = MIR_EXIT_OK;
    if (status != MIR_OK || all == NULL)
        code = mir_cli_fail("%s; nothing was changed", error.text);
    else if (count == 0)
        code = mir_cli_fail("there is no device in the input");
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    mir_cli_devices results = {0};
    bool dry_run = mir_cli_flag(args, MIR_OPT_DRY_RUN);
    for (size_t i = 0; all != NULL && code == MIR_EXIT_OK && i < count; i++)
        code = apply(&session, &all[i], dry_run, format, &results);
    if (code == MIR_EXIT_OK && !dry_run && strcmp(format, "table") != 0)
        code = mir_cli_devices_print(&results, format);
    json_decref(values);
    mir_cli_connect_close(&session);
    return code;
}
