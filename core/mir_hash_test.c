/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mir_hash.h"

enum { BUCKETS = 1024, COLLIDING = 64 };

static const char *program;

static unsigned bucket_of(const char *name)
{
    return (unsigned)mir_hash_view(mir_view_cstr(name)) % BUCKETS;
}

static void names_that_collide_in_one_process_do_not_in_another(void **state)
{
    (void)state;
    static char names[COLLIDING][32];
    mir_hash_reseed(1);
    unsigned found = 0;
    for (unsigned i = 0; found < COLLIDING; i++) {
        (void)snprintf(names[found], sizeof names[0], "device-%u", i);
        if (bucket_of(names[found]) == 0) found++;
    }
    mir_hash_reseed(2);
    unsigned counts[BUCKETS] = {0}, most = 0;
    for (unsigned i = 0; i < COLLIDING; i++) {
        unsigned count = ++counts[bucket_of(names[i])];
        if (count > most) most = count;
    }
    assert_true(most <= 4);
    mir_hash_reseed(1);
    for (unsigned i = 0; i < COLLIDING; i++) assert_int_equal(bucket_of(names[i]), 0);
}

static uint64_t seed_of_another_process(void)
{
    char command[4096];
    (void)snprintf(command, sizeof command, "'%s' seed", program);
    FILE *pipe = popen(command, "r"); // NOLINT(cert-env33-c)
    assert_non_null(pipe);
    char line[64] = "";
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(pclose(pipe), 0);
    return strtoull(line, NULL, 16);
}

static void each_process_draws_its_own_seed(void **state)
{
    (void)state;
    uint64_t one = seed_of_another_process(), other = seed_of_another_process();
    assert_int_not_equal(one, 0);
    assert_int_not_equal(other, 0);
    assert_int_not_equal(one, other);
}

static void what_is_stored_has_the_same_hash_for_ever(void **state)
{
    (void)state;
    uint8_t bytes[512];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)i;
    for (uint64_t seed = 0; seed < 3; seed++) {
        mir_hash_reseed(seed);
        /* Of xxHash's own program: XXH3, 64 bits. */
        assert_true(mir_hash_fixed("", 0) == UINT64_C(0x2d06800538d394c2));
        assert_true(mir_hash_fixed("abc", 3) == UINT64_C(0x78af5f94892f3950));
        assert_true(mir_hash_fixed(bytes, sizeof bytes) == UINT64_C(0x1059105ad19bfa09));
    }
}

int main(int count, char **arguments)
{
    if (count > 1 && strcmp(arguments[1], "seed") == 0) {
        printf("%016llx\n", (unsigned long long)mir_hash_keyed.seed);
        return 0;
    }
    program = arguments[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_that_collide_in_one_process_do_not_in_another),
        cmocka_unit_test(each_process_draws_its_own_seed),
        cmocka_unit_test(what_is_stored_has_the_same_hash_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
