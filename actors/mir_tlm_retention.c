/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_retention.h"

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_clock.h"
#include "mir_timestamp.h"

static mir_view pattern_of(const char *text)
{
    return text == NULL ? (mir_view){0} : mir_view_cstr(text);
}

static mir_status namespace_of(void *context, mir_view device_id, mir_bytes *name_space)
{
    const mir_hub *hub = context;
    mir_arena arena = {0};
    MirStore__V1__DeviceRecord *record;
    mir_status status = mir_state_get(hub->state, device_id, &arena, &record, NULL);
    if (status == MIR_OK) {
        mir_bytes_append(name_space, record->namespace_, strlen(record->namespace_));
        if (!mir_bytes_ok(name_space)) {
            mir_bytes_free(name_space);
            status = MIR_E_NO_MEMORY;
        }
    }
    mir_arena_free(&arena);
    return status;
}

void mir_tlm_retention_options(mir_hub *hub, mir_tlog_options *options)
{
    _Static_assert((int)MIR_CONFIG_RULES_MAX <= (int)MIR_TLOG_RULES_MAX, "rules fit");
    const mir_config *config = hub->config;
    for (size_t i = 0; i < config->telemetry.rule_count; i++) {
        const mir_config_rule *from = &config->telemetry.rules[i];
        hub->telemetry_rules[i] = (mir_tlog_rule){.name_space = pattern_of(from->name_space),
                                                  .measurement = pattern_of(from->message),
                                                  .deleted = from->deleted,
                                                  .nothing_stays = from->no_rollup,
                                                  .age_ns = (uint64_t)from->age_ns};
    }
    options->rules = hub->telemetry_rules;
    options->rule_count = (uint32_t)config->telemetry.rule_count;
    options->retention_age_ns = (uint64_t)config->telemetry.retention_age_ns;
    options->retention_bytes_max = (uint64_t)config->telemetry.retention_size_bytes;
    /* 0 writes nothing down: then the next start would not know that the clock was right. */
    options->clock_wait_ns =
        config->telemetry.clock_wait_ns == 0 ? 1 : (uint64_t)config->telemetry.clock_wait_ns;
    for (int i = 0; i < MIR_TLOG_ROLLUPS; i++) {
        const int64_t keep_ns = config->telemetry.rollup_ns[i];
        options->rollups[i] =
            (mir_tlog_rollup_option){keep_ns >= 0, keep_ns < 0 ? 0 : (uint64_t)keep_ns};
    }
    options->namespace_of = namespace_of;
    options->namespace_context = hub;
}

static mir_status set_rules(const mir_config *config, const mir_tlog_retention *state,
                            mir_arena *arena, MirApi__V1__TelemetryRetention *to)
{
    const size_t count = config->telemetry.rule_count;
    to->rules = mir_arena_alloc(arena, (count + 1) * sizeof *to->rules);
    MirApi__V1__TelemetryRetention__Rule *made = mir_arena_alloc(arena, (count + 1) * sizeof *made);
    if (to->rules == NULL || made == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i <= count; i++) {
        mir_api__v1__telemetry_retention__rule__init(&made[i]);
        int64_t age_ns = config->telemetry.retention_age_ns;
        if (i < count) {
            const mir_config_rule *rule = &config->telemetry.rules[i];
            made[i].namespace_ = rule->name_space;
            made[i].message = rule->message;
            made[i].has_deleted = made[i].deleted = rule->deleted;
            made[i].has_rollup = 1;
            made[i].rollup = !rule->no_rollup && !rule->deleted;
            age_ns = rule->age_ns;
        }
        made[i].has_keep_seconds = made[i].has_rows_removed = 1;
        made[i].keep_seconds = (uint64_t)((age_ns + MIR_NS_PER_S - 1) / MIR_NS_PER_S);
        made[i].rows_removed = state->rows_removed[i];
        to->rules[i] = &made[i];
    }
    to->n_rules = count + 1;
    return MIR_OK;
}

static mir_status set_rollups(const mir_config *config, const mir_tlog_retention *state,
                              mir_arena *arena, MirApi__V1__TelemetryRetention *to)
{
    static const uint64_t seconds[MIR_TLOG_ROLLUPS] = {60, 600, 3600};
    to->rollups = mir_arena_alloc(arena, MIR_TLOG_ROLLUPS * sizeof *to->rollups);
    MirApi__V1__TelemetryRetention__Rollup *made =
        mir_arena_alloc(arena, MIR_TLOG_ROLLUPS * sizeof *made);
    if (to->rollups == NULL || made == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < MIR_TLOG_ROLLUPS; i++) {
        const int64_t keep_ns = config->telemetry.rollup_ns[i];
        if (keep_ns < 0 && state->rollup_rows[i] == 0) continue;
        MirApi__V1__TelemetryRetention__Rollup *rollup = &made[to->n_rollups];
        mir_api__v1__telemetry_retention__rollup__init(rollup);
        rollup->has_step_seconds = rollup->has_rows = 1;
        rollup->step_seconds = seconds[i];
        rollup->has_keep_seconds = keep_ns >= 0;
        rollup->keep_seconds = (uint64_t)(keep_ns / MIR_NS_PER_S);
        rollup->rows = state->rollup_rows[i];
        to->rollups[to->n_rollups++] = rollup;
    }
    return MIR_OK;
}

void mir_tlm_retention(mir_request *request)
{
    MirApi__V1__TelemetryRetentionRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__telemetry_retention_request__descriptor,
                            &input)) {
        mir_request_finish(request);
        return;
    }
    const mir_config *config = request->hub->config;
    mir_arena *arena = &request->arena;
    mir_tlog_retention state;
    mir_tlog_retention_read(request->hub->tlog, &state);
    MirApi__V1__TelemetryRetention retention = MIR_API__V1__TELEMETRY_RETENTION__INIT;
    if (set_rules(config, &state, arena, &retention) == MIR_OK &&
        set_rollups(config, &state, arena, &retention) == MIR_OK) {
        retention.has_size_max = config->telemetry.retention_size_bytes != 0;
        retention.size_max = (uint64_t)config->telemetry.retention_size_bytes;
        retention.has_rows_removed_size = retention.has_bytes_removed = 1;
        retention.has_rows_repeated = 1;
        retention.rows_repeated = state.rows_repeated;
        retention.counted_since = mir_timestamp_new(arena, state.since_ns);
        retention.rows_removed_size = state.rows_removed_size;
        retention.bytes_removed = state.bytes_removed;
        retention.has_rows = retention.has_bytes = 1;
        retention.rows = state.rows;
        retention.bytes = state.bytes;
        retention.has_rollup_bytes = 1;
        retention.rollup_bytes = state.rollup_bytes;
        if (state.oldest_ns != INT64_MAX)
            retention.oldest = mir_timestamp_new(arena, state.oldest_ns);
        if (state.removed_ns != 0)
            retention.last_removal = mir_timestamp_new(arena, state.removed_ns);
        if (state.run_ns != 0) retention.last_run = mir_timestamp_new(arena, state.run_ns);
        MirApi__V1__TelemetryRetentionResponse response =
            MIR_API__V1__TELEMETRY_RETENTION_RESPONSE__INIT;
        response.response_case = MIR_API__V1__TELEMETRY_RETENTION_RESPONSE__RESPONSE_OK;
        response.ok = &retention;
        mir_request_answer(request, &response.base);
    } else {
        mir_request_fail(request, "the server is out of memory");
    }
    mir_request_finish(request);
}
