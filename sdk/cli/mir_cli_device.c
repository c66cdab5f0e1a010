/* SPDX-License-Identifier: Apache-2.0 */
/* mir device list, create, update, delete. */
#include "mir_cli_devices.h"

#include "mir_cli_message.h"
#include "mir_cli_payload.h"
#include "mir_cli_text.h"
#include "mir_device_json.h"

#include <strings.h>
#include <unistd.h>

enum { NAMES_SHOWN_MAX = 10 };

static const char *format_of(const mir_cli_args *args)
{
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    return format != NULL ? format : "table";
}

static int nothing_found(void)
{
    return mir_cli_fail("no device matches; `mir device list` shows all devices");
}

int mir_cli_device_list(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_targets targets = {0};
    mir_cli_devices devices;
    mir_error error = {0};
    int code = MIR_EXIT_OK;
    if (mir_cli_target_parse(args, &session.arena, &targets, &error) != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK) {
        unsigned parts = mir_cli_flag(args, MIR_OPT_EVENTS) ? MIR_DEVICES_EVENTS : 0;
        if (strcmp(format_of(args), "json") == 0) parts |= MIR_DEVICES_SCHEMA;
        code = mir_cli_devices_list(&session, &targets, parts, &devices);
        if (code == MIR_EXIT_OK) code = mir_cli_devices_print(&devices, format_of(args));
        if (code == MIR_EXIT_OK && devices.count == 0) {
            if (targets.literal)
                code = nothing_found();
            else if (targets.everything)
                mir_cli_note("There are no devices yet. One appears when it connects, or with "
                             "`mir device create NAME/NAMESPACE`.");
            else
                mir_cli_note("No device matches.");
        }
    }
    mir_cli_connect_close(&session);
    return code;
}

int mir_cli_device_create(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_error error = {0};
    MirApi__V1__Meta meta = MIR_API__V1__META__INIT;
    MirApi__V1__DeviceSpec spec = MIR_API__V1__DEVICE_SPEC__INIT;
    MirApi__V1__NewDevice new_device = MIR_API__V1__NEW_DEVICE__INIT;
    MirApi__V1__CreateDeviceRequest request = MIR_API__V1__CREATE_DEVICE_REQUEST__INIT;
    mir_cli_target_pair *labels = NULL, *annotations = NULL;
    size_t labels_count = 0, annotations_count = 0;
    mir_arena *arena = &session.arena;
    mir_status status =
        mir_cli_target_split(args->words[0], arena, &meta.name, &meta.namespace_, &error);
    if (status == MIR_OK)
        status =
            mir_cli_target_pairs(args, MIR_OPT_SET_LABELS, arena, &labels, &labels_count, &error);
    if (status == MIR_OK)
        status = mir_cli_target_pairs(args, MIR_OPT_SET_ANNOTATIONS, arena, &annotations,
                                      &annotations_count, &error);
    if (status != MIR_OK) {
        mir_cli_connect_close(&session);
        return mir_cli_usage(cli, "%s", error.text);
    }
    MirApi__V1__Meta__LabelsEntry *label_entries =
        mir_arena_alloc(arena, (labels_count + 1) * sizeof *label_entries);
    MirApi__V1__Meta__AnnotationsEntry *annotation_entries =
        mir_arena_alloc(arena, (annotations_count + 1) * sizeof *annotation_entries);
    meta.labels = mir_arena_alloc(arena, (labels_count + 1) * sizeof(*meta.labels));
    meta.annotations = mir_arena_alloc(arena, (annotations_count + 1) * sizeof(*meta.annotations));
    if (label_entries == NULL || annotation_entries == NULL || meta.labels == NULL ||
        meta.annotations == NULL) {
        mir_cli_connect_close(&session);
        return mir_cli_fail("no memory");
    }
    for (size_t i = 0; i < labels_count; i++) {
        mir_api__v1__meta__labels_entry__init(&label_entries[i]);
        label_entries[i].key = labels[i].key;
        label_entries[i].value = labels[i].value;
        meta.labels[i] = &label_entries[i];
    }
    for (size_t i = 0; i < annotations_count; i++) {
        mir_api__v1__meta__annotations_entry__init(&annotation_entries[i]);
        annotation_entries[i].key = annotations[i].key;
        annotation_entries[i].value = annotations[i].value;
        meta.annotations[i] = &annotation_entries[i];
    }
    meta.n_labels = labels_count;
    meta.n_annotations = annotations_count;
    const char *id = mir_cli_value(args, MIR_OPT_SET_ID);
    spec.device_id = id != NULL ? mir_arena_strdup(arena, mir_view_cstr(id)) : meta.name;
    spec.has_disabled = spec.disabled = mir_cli_flag(args, MIR_OPT_DISABLE);
    new_device.meta = &meta;
    new_device.spec = &spec;
    request.device = &new_device;
    MirApi__V1__Device *made = NULL;
    int code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK)
        code = mir_cli_connect_ask(&session, "core.v1alpha.create", &request.base,
                                   &mir_api__v1__create_device_response__descriptor, &made);
    if (code == MIR_EXIT_OK) {
        mir_cli_devices devices = {&made, 1};
        code = mir_cli_devices_report(&devices, "created", format_of(args));
    }
    mir_cli_connect_close(&session);
    return code;
}

/* An absent value removes the key. */
static MirApi__V1__OptString *option_text(mir_arena *arena, char *value)
{
    MirApi__V1__OptString *made = mir_arena_alloc(arena, sizeof *made);
    if (made == NULL) return NULL;
    mir_api__v1__opt_string__init(made);
    if (strcasecmp(value, "null") != 0) made->value = value;
    return made;
}

/* Fills the change from the flags; `*changes` counts what is to change. */
MIR_MUST_CHECK static mir_status read_changes(const mir_cli_args *args, mir_arena *arena,
                                              MirApi__V1__UpdateDeviceRequest__Meta *meta,
                                              MirApi__V1__UpdateDeviceRequest__Spec *spec,
                                              size_t *changes, mir_error *error)
{
    mir_cli_target_pair *labels = NULL, *annotations = NULL;
    size_t labels_count = 0, annotations_count = 0;
    mir_status status =
        mir_cli_target_pairs(args, MIR_OPT_SET_LABELS, arena, &labels, &labels_count, error);
    if (status == MIR_OK)
        status = mir_cli_target_pairs(args, MIR_OPT_SET_ANNOTATIONS, arena, &annotations,
                                      &annotations_count, error);
    if (status != MIR_OK) return status;
    (void)mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    meta->labels = mir_arena_alloc(arena, (labels_count + 1) * sizeof(*meta->labels));
    meta->annotations =
        mir_arena_alloc(arena, (annotations_count + 1) * sizeof(*meta->annotations));
    if (meta->labels == NULL || meta->annotations == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < labels_count; i++) {
        MirApi__V1__UpdateDeviceRequest__Meta__LabelsEntry *entry =
            mir_arena_alloc(arena, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__update_device_request__meta__labels_entry__init(entry);
        entry->key = labels[i].key;
        entry->value = option_text(arena, labels[i].value);
        if (entry->value == NULL) return MIR_E_NO_MEMORY;
        meta->labels[meta->n_labels++] = entry;
    }
    for (size_t i = 0; i < annotations_count; i++) {
        MirApi__V1__UpdateDeviceRequest__Meta__AnnotationsEntry *entry =
            mir_arena_alloc(arena, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__update_device_request__meta__annotations_entry__init(entry);
        entry->key = annotations[i].key;
        entry->value = option_text(arena, annotations[i].value);
        if (entry->value == NULL) return MIR_E_NO_MEMORY;
        meta->annotations[meta->n_annotations++] = entry;
    }
    const char *name = mir_cli_value(args, MIR_OPT_SET_NAME);
    const char *name_space = mir_cli_value(args, MIR_OPT_SET_NAMESPACE);
    const char *id = mir_cli_value(args, MIR_OPT_SET_ID);
    if (name != NULL) meta->name = mir_arena_strdup(arena, mir_view_cstr(name));
    if (name_space != NULL) meta->namespace_ = mir_arena_strdup(arena, mir_view_cstr(name_space));
    if (id != NULL) spec->device_id = mir_arena_strdup(arena, mir_view_cstr(id));
    const char *set = mir_cli_value(args, MIR_OPT_SET_DISABLED);
    bool disable = mir_cli_flag(args, MIR_OPT_DISABLE) || (set != NULL && set[0] == 't');
    bool enable = mir_cli_flag(args, MIR_OPT_ENABLE) || (set != NULL && set[0] == 'f');
    if (disable && enable)
        return mir_error_set(error, MIR_E_INVALID, "--disable and --enable exclude each other");
    spec->has_disabled = disable || enable;
    spec->disabled = disable;
    *changes = labels_count + annotations_count + (name != NULL) + (name_space != NULL) +
               (id != NULL) + (disable || enable);
    return MIR_OK;
}

/* The desired properties of the line: --desired NAME=JSON, and -p with several by name. */
static int read_desired(const mir_cli *cli, const mir_cli_args *args, json_t **desired)
{
    mir_error error = {0};
    mir_cli_payload payload = {0};
    int code = MIR_EXIT_OK;
    json_t *all = NULL;
    if (mir_cli_flag(args, MIR_OPT_PAYLOAD)) {
        code = mir_cli_payload_read(cli, args, &payload);
        if (code == MIR_EXIT_OK &&
            mir_json_parse(mir_bytes_as_view(&payload.text), &all, &error) != MIR_OK)
            code = mir_cli_usage(cli, "--properties: %s", error.text);
        mir_cli_payload_free(&payload);
    }
    for (size_t i = 0; code == MIR_EXIT_OK && i < args->options_count; i++) {
        if (args->options[i].id != MIR_OPT_DESIRED) continue;
        const char *text = args->options[i].value;
        size_t name_size = strcspn(text, "=");
        json_t *value = NULL;
        if (all == NULL) all = json_object();
        if (name_size == 0 || text[name_size] != '=')
            code =
                mir_cli_usage(cli, "'%s' is not NAME=JSON, such as 'pkg.v1.Msg={\"a\": 1}'", text);
        else if (mir_json_parse(mir_view_cstr(text + name_size + 1), &value, &error) != MIR_OK)
            code = mir_cli_usage(cli, "--desired %.*s: %s", (int)name_size, text, error.text);
        else if (json_object_setn_new(all, text, name_size, value) != 0)
            code = mir_cli_usage(cli, "the name in '%s' is no text", text);
    }
    const char *key;
    json_t *value;
    json_object_foreach(all, key, value)
    {
        if (code == MIR_EXIT_OK && !json_is_object(value))
            code = mir_cli_usage(cli, "the value of %s is no JSON object, such as '{\"field\": 1}'",
                                 key);
    }
    if (code == MIR_EXIT_OK)
        *desired = all;
    else
        json_decref(all);
    return code;
}

/* Full names in place of those that leave out their package. */
static int resolve_desired(mir_cli_session *session, const mir_cli_targets *targets,
                           json_t **desired)
{
    bool any = false;
    const char *key;
    json_t *value;
    json_object_foreach(*desired, key, value)
    {
        any |= mir_cli_message_is_short(key);
    }
    if (!any) return MIR_EXIT_OK;
    mir_cli_message_list list = {0};
    json_t *full = json_object();
    int code = mir_cli_message_fetch(session, MIR_MESSAGE_CONFIG, targets, NULL, 0, false, &list);
    json_object_foreach(*desired, key, value)
    {
        const char *name = key;
        if (code == MIR_EXIT_OK && mir_cli_message_is_short(key))
            code = mir_cli_message_resolve(MIR_MESSAGE_CONFIG, &list, key, &name);
        (void)json_object_set(full, name, value);
    }
    mir_cli_message_free(&list);
    json_decref(*desired);
    *desired = full;
    return code;
}

int mir_cli_device_update(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_targets targets = {0};
    mir_error error = {0};
    int code = MIR_EXIT_OK;
    MirApi__V1__UpdateDeviceRequest__Meta meta = MIR_API__V1__UPDATE_DEVICE_REQUEST__META__INIT;
    MirApi__V1__UpdateDeviceRequest__Spec spec = MIR_API__V1__UPDATE_DEVICE_REQUEST__SPEC__INIT;
    MirApi__V1__UpdateDeviceRequest__Properties properties =
        MIR_API__V1__UPDATE_DEVICE_REQUEST__PROPERTIES__INIT;
    json_t *desired = NULL;
    size_t changes = 0;
    uint64_t version = 0;
    const char *version_text = mir_cli_value(args, MIR_OPT_IF_VERSION);
    mir_status status = mir_cli_target_parse(args, &session.arena, &targets, &error);
    if (status == MIR_OK)
        status = read_changes(args, &session.arena, &meta, &spec, &changes, &error);
    if (status != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    else
        code = read_desired(cli, args, &desired);
    changes += json_object_size(desired);
    if (code == MIR_EXIT_OK && !targets.stated)
        code = mir_cli_usage(cli, "which devices? '*/*' means all");
    else if (code == MIR_EXIT_OK && changes == 0)
        code = mir_cli_usage(cli, "nothing to change; for example --labels floor=2");
    else if (code == MIR_EXIT_OK && version_text != NULL &&
             !mir_cli_number(version_text, true, &version))
        code = mir_cli_usage(cli, "--if-version is a number: status.version of the device");
    if (code == MIR_EXIT_OK) {
        mir_cli_target_state_everything(&targets);
        code = mir_cli_connect_open(cli, args, &session);
    }
    if (code == MIR_EXIT_OK) code = resolve_desired(&session, &targets, &desired);
    if (code == MIR_EXIT_OK && desired != NULL &&
        mir_struct_from_json(desired, &session.arena, &properties.desired) != MIR_OK)
        code = mir_cli_fail("the properties are too large");
    mir_cli_devices devices = {0};
    for (size_t i = 0; code == MIR_EXIT_OK && i < targets.count; i++) {
        MirApi__V1__UpdateDeviceRequest request = MIR_API__V1__UPDATE_DEVICE_REQUEST__INIT;
        MirApi__V1__DeviceList *answer = NULL;
        request.targets = targets.items[i];
        request.meta = &meta;
        request.spec = &spec;
        if (desired != NULL) request.props = &properties;
        request.has_if_version = version_text != NULL;
        request.if_version = version;
        code = mir_cli_connect_ask(&session, "core.v1alpha.update", &request.base,
                                   &mir_api__v1__update_device_response__descriptor, &answer);
        if (code == MIR_EXIT_OK &&
            mir_cli_devices_append(&session.arena, &devices, answer) != MIR_OK)
            code = mir_cli_fail("no memory for so many devices");
    }
    if (code == MIR_EXIT_OK) {
        mir_cli_devices_sort(&devices);
        code = devices.count == 0 ? nothing_found()
                                  : mir_cli_devices_report(&devices, "updated", format_of(args));
    }
    json_decref(desired);
    mir_cli_connect_close(&session);
    return code;
}

/* Asks on the terminal; only a clear yes is one. */
static bool confirmed(const mir_cli_devices *devices)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "Delete %zu device%s?\n", devices->count, devices->count == 1 ? "" : "s");
    for (size_t i = 0; i < devices->count && i < NAMES_SHOWN_MAX; i++)
        mir_cli_note("  %s/%s (id %s)", mir_cli_devices_name(devices->items[i]),
                     mir_cli_devices_namespace(devices->items[i]),
                     mir_cli_devices_id(devices->items[i]));
    if (devices->count > NAMES_SHOWN_MAX)
        (void)fprintf(stderr, "  and %zu more\n", devices->count - NAMES_SHOWN_MAX);
    (void)fputs("Type y to delete, anything else to leave them: ", stderr);
    char answer[16];
    if (fgets(answer, sizeof answer, stdin) == NULL) return false;
    return strcasecmp(answer, "y\n") == 0 || strcasecmp(answer, "yes\n") == 0;
}

int mir_cli_device_delete(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    bool yes = mir_cli_flag(args, MIR_OPT_YES);
    if (!yes && !isatty(STDIN_FILENO))
        return mir_cli_usage(cli, "there is no terminal to ask on; say --yes to delete");
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_targets targets = {0};
    mir_error error = {0};
    int code = MIR_EXIT_OK;
    mir_cli_devices devices = {0};
    MirApi__V1__DeviceTarget shown = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__DeviceTarget *shown_list[] = {&shown};
    if (mir_cli_target_parse(args, &session.arena, &targets, &error) != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    else if (!targets.stated)
        code = mir_cli_usage(cli, "which devices? '*/*' means all");
    else
        mir_cli_target_state_everything(&targets);
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);

    if (code == MIR_EXIT_OK && !yes) {
        code = mir_cli_devices_list(&session, &targets, MIR_DEVICES_PLAIN, &devices);
        if (code == MIR_EXIT_OK && devices.count == 0) code = nothing_found();
        if (code == MIR_EXIT_OK && !confirmed(&devices)) code = mir_cli_fail("nothing was deleted");
        /* What was shown is deleted, not what matches by now. */
        shown.ids = mir_arena_alloc(&session.arena, (devices.count + 1) * sizeof(*shown.ids));
        if (shown.ids == NULL && code == MIR_EXIT_OK) code = mir_cli_fail("no memory");
        for (size_t i = 0; code == MIR_EXIT_OK && shown.ids != NULL && i < devices.count; i++)
            if (mir_cli_devices_id(devices.items[i])[0] != '\0')
                shown.ids[shown.n_ids++] = devices.items[i]->spec->device_id;
        targets.items = shown_list;
        targets.count = 1;
        devices = (mir_cli_devices){0};
    }
    for (size_t i = 0; code == MIR_EXIT_OK && i < targets.count; i++) {
        MirApi__V1__DeleteDeviceRequest request = MIR_API__V1__DELETE_DEVICE_REQUEST__INIT;
        MirApi__V1__DeviceList *answer = NULL;
        request.targets = targets.items[i];
        code = mir_cli_connect_ask(&session, "core.v1alpha.delete", &request.base,
                                   &mir_api__v1__delete_device_response__descriptor, &answer);
        if (code == MIR_EXIT_OK &&
            mir_cli_devices_append(&session.arena, &devices, answer) != MIR_OK)
            code = mir_cli_fail("no memory for so many devices");
    }
    if (code == MIR_EXIT_OK) {
        mir_cli_devices_sort(&devices);
        code = devices.count == 0 ? nothing_found()
                                  : mir_cli_devices_report(&devices, "deleted", format_of(args));
    }
    mir_cli_connect_close(&session);
    return code;
}
