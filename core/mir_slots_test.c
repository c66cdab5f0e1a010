/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mir_slots.h"

typedef struct object {
    mir_slot slot;
    char bytes[100];
} object;

static void a_table_holds_its_bound_and_refuses_the_next(void **state)
{
    (void)state;
    enum { MAX = 700 };
    mir_slots slots;
    mir_slots_init(&slots, sizeof(object), MAX);
    static object *taken[MAX];
    for (unsigned i = 0; i < MAX; i++) {
        taken[i] = mir_slots_take(&slots);
        assert_non_null(taken[i]);
        assert_true(taken[i]->slot.index < MAX);
        memset(taken[i]->bytes, 0xff, sizeof taken[i]->bytes);
    }
    assert_null(mir_slots_take(&slots));
    for (unsigned i = 0; i < MAX; i++)
        assert_ptr_equal(mir_slots_get(&slots, taken[i]->slot.index, taken[i]->slot.generation),
                         taken[i]);
    mir_slots_give(&slots, taken[5]);
    object *again = mir_slots_take(&slots);
    assert_non_null(again);
    for (unsigned i = 0; i < sizeof again->bytes; i++) assert_int_equal(again->bytes[i], 0);
    assert_null(mir_slots_take(&slots));
    mir_slots_free(&slots);
    assert_int_equal(slots.used, 0);
    assert_non_null(mir_slots_take(&slots));
    mir_slots_free(&slots);
}

static void the_number_of_one_that_is_gone_finds_nothing(void **state)
{
    (void)state;
    mir_slots slots;
    mir_slots_init(&slots, sizeof(object), 1);
    uint32_t before = 0;
    for (int i = 0; i < 10; i++) {
        object *o = mir_slots_take(&slots);
        uint32_t index = o->slot.index, generation = o->slot.generation;
        assert_int_equal(generation, before + 1);
        assert_null(mir_slots_get(&slots, index, before));
        before = generation;
        mir_slots_give(&slots, o);
        assert_null(mir_slots_get(&slots, index, generation));
        assert_null(mir_slots_get(&slots, index, 0));
    }
    assert_null(mir_slots_get(&slots, 64, 1));
    assert_null(mir_slots_get(&slots, UINT32_MAX, 1));
    mir_slots_free(&slots);
}

static void a_generation_wraps_to_one(void **state)
{
    (void)state;
    mir_slots slots;
    mir_slots_init(&slots, sizeof(object), 1);
    object *o = mir_slots_take(&slots);
    mir_slots_give(&slots, o);
    slots.generations[0] = (1u << 28) - 2;
    o = mir_slots_take(&slots);
    assert_int_equal(o->slot.generation, (1u << 28) - 1);
    mir_slots_give(&slots, o);
    o = mir_slots_take(&slots);
    assert_int_equal(o->slot.generation, 1);
    mir_slots_free(&slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_holds_its_bound_and_refuses_the_next),
        cmocka_unit_test(the_number_of_one_that_is_gone_finds_nothing),
        cmocka_unit_test(a_generation_wraps_to_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
