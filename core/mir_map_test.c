/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mir_map.h"

enum { COUNT = 3000 };

typedef struct thing {
    uint64_t before;
    mir_map_node node;
    bool in;
} thing;

static thing things[COUNT];

static uint64_t hash_of(unsigned i)
{
    return (uint64_t)(i / 3) * UINT64_C(0x9E3779B97F4A7C15); /* three of each hash */
}

static unsigned times_found(const mir_map *map, const thing *wanted, uint64_t hash)
{
    unsigned count = 0;
    for (mir_map_node *n = mir_map_first(map, hash); n != NULL; n = mir_map_next(n)) {
        assert_int_equal(n->hash, hash);
        if (MIR_CONTAINER(n, thing, node) == wanted) count++;
    }
    return count;
}

static void every_node_that_is_in_is_found_once_while_the_map_grows_and_shrinks(void **state)
{
    (void)state;
    mir_map map = {0};
    uint32_t random = 7;
    unsigned in = 0;
    for (unsigned step = 0; step < 20000; step++) {
        random = random * 1664525u + 1013904223u;
        unsigned i = (random >> 8) % (step < 3000 ? 20 : COUNT);
        thing *t = &things[i];
        assert_int_equal(times_found(&map, t, hash_of(i)), t->in);
        if (t->in) {
            mir_map_remove(&map, &t->node);
            in--;
        } else {
            mir_map_add(&map, &t->node, hash_of(i));
            in++;
        }
        t->in = !t->in;
        assert_int_equal(map.count, in);
        assert_int_equal(times_found(&map, t, hash_of(i)), t->in);
    }
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(times_found(&map, &things[i], hash_of(i)), things[i].in);
    assert_true(map.bucket_count >= 1024);
    mir_map_free(&map);
}

static void an_empty_map_finds_nothing_and_can_be_freed_and_used_again(void **state)
{
    (void)state;
    mir_map map = {0};
    mir_map_node nodes[64];
    for (int round = 0; round < 2; round++) {
        assert_null(mir_map_first(&map, 0));
        for (unsigned i = 0; i < 64; i++) mir_map_add(&map, &nodes[i], i << 7);
        for (unsigned i = 0; i < 64; i++) assert_ptr_equal(mir_map_first(&map, i << 7), &nodes[i]);
        mir_map_free(&map);
        mir_map_free(&map);
    }
}

static void any_empties_a_map_whatever_goes_and_comes_meanwhile(void **state)
{
    (void)state;
    static mir_map_node nodes[COUNT], late[COUNT];
    for (unsigned count = 0; count <= COUNT; count = count * 3 + 1) {
        mir_map map = {0};
        bool in[COUNT] = {false};
        for (unsigned i = 0; i < count; i++) {
            mir_map_add(&map, &nodes[i], hash_of(i));
            in[i] = true;
        }
        uint32_t from = 0;
        unsigned taken = 0, came = 0;
        mir_map_node *n;
        while ((n = mir_map_any(&map, &from)) != NULL) {
            mir_map_remove(&map, n);
            taken++;
            if (n >= late && n < late + COUNT) continue;
            unsigned i = (unsigned)(n - nodes);
            assert_true(in[i]);
            in[i] = false;
            /* The neighbour goes with it, and a stranger comes. */
            if (i + 1 < count && in[i + 1]) {
                mir_map_remove(&map, &nodes[i + 1]);
                in[i + 1] = false;
                taken++;
            }
            if (i % 7 == 0) mir_map_add(&map, &late[came++], hash_of(i * 31));
        }
        assert_int_equal(taken, count + came);
        assert_int_equal(map.count, 0);
        mir_map_free(&map);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_node_that_is_in_is_found_once_while_the_map_grows_and_shrinks),
        cmocka_unit_test(an_empty_map_finds_nothing_and_can_be_freed_and_used_again),
        cmocka_unit_test(any_empties_a_map_whatever_goes_and_comes_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
