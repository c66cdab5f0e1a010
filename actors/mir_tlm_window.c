/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_window.h"

#include "mir_clock.h"

enum { SHOWN_BYTES_MAX = 64 };

typedef struct unit {
    const char *name;
    int64_t length_ns; /* 0: not fixed */
} unit;

static const unit units[] = {
    {"ns", 1},
    {"us", MIR_NS_PER_US},
    {"ms", MIR_NS_PER_MS},
    {"s", MIR_NS_PER_S},
    {"m", 60 * MIR_NS_PER_S},
    {"h", 3600 * MIR_NS_PER_S},
    {"d", 24 * 3600 * MIR_NS_PER_S},
    {"w", 7 * 24 * 3600 * MIR_NS_PER_S},
    {"mo", 0},
    {"y", 0},
};

static const unit *unit_of(mir_view name)
{
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (mir_view_eq_cstr(name, units[i].name)) return &units[i];
    return NULL;
}

static mir_status refuse(mir_view literal, mir_error *error, mir_status status, const char *why)
{
    mir_view shown = {literal.data,
                      literal.size < SHOWN_BYTES_MAX ? literal.size : SHOWN_BYTES_MAX};
    return mir_error_set(error, status, "invalid aggregation window '%.*s': %s",
                         MIR_VIEW_ARGS(shown), why);
}

mir_status mir_tlm_window_parse(mir_view literal, uint64_t *window_ns, mir_error *error)
{
    int64_t total_ns = 0;
    size_t at = 0;
    if (literal.size == 0) return refuse(literal, error, MIR_E_INVALID, "it is empty");
    while (at < literal.size) {
        int64_t number = 0;
        size_t start = at;
        bool fits = true;
        for (; at < literal.size && literal.data[at] >= '0' && literal.data[at] <= '9'; at++) {
            fits = fits && !__builtin_mul_overflow(number, 10, &number) &&
                   !__builtin_add_overflow(number, literal.data[at] - '0', &number);
        }
        if (at == start)
            return refuse(literal, error, MIR_E_INVALID, "a number is expected before each unit");
        start = at;
        while (at < literal.size && literal.data[at] >= 'a' && literal.data[at] <= 'z') at++;
        const unit *found = unit_of(mir_view_of(literal.data + start, at - start));
        if (found == NULL) {
            return refuse(literal, error, MIR_E_INVALID,
                          "each number takes one of the units ns, us, ms, s, m, h, d, w");
        }
        if (found->length_ns == 0) {
            return refuse(literal, error, MIR_E_UNSUPPORTED,
                          "months and years differ in length; use d or w");
        }
        int64_t part_ns;
        if (!fits || __builtin_mul_overflow(number, found->length_ns, &part_ns) ||
            __builtin_add_overflow(total_ns, part_ns, &total_ns)) {
            return refuse(literal, error, MIR_E_INVALID, "it is longer than 292 years");
        }
    }
    if (total_ns == 0) return refuse(literal, error, MIR_E_INVALID, "it has no length");
    *window_ns = (uint64_t)total_ns;
    return MIR_OK;
}
