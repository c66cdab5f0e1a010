/* SPDX-License-Identifier: Apache-2.0 */
/* The chain of events: what is found when bytes of the store are changed, and what a kill leaves. */
#include "mir_event_testing.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static const mir_view no_head = {NULL, 0};

/* Writes another value, past the store. */
static void tamper(fixture *f, MDB_dbi dbi, mir_view key, mir_view value)
{
    MDB_txn *txn = NULL;
    MDB_val k = {key.size, (void *)(uintptr_t)key.data};
    MDB_val v = {value.size, (void *)(uintptr_t)value.data};
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, 0, &txn), 0);
    assert_int_equal(
        value.data == NULL ? mdb_del(txn, dbi, &k, NULL) : mdb_put(txn, dbi, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}

static size_t raw(fixture *f, MDB_dbi dbi, mir_view key, uint8_t *out, size_t size_max)
{
    MDB_txn *txn = NULL;
    MDB_val k = {key.size, (void *)(uintptr_t)key.data}, v;
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_get(txn, dbi, &k, &v), 0);
    assert_true(v.mv_size <= size_max);
    memcpy(out, v.mv_data, v.mv_size);
    size_t size = v.mv_size;
    mdb_txn_abort(txn);
    return size;
}

static void the_chain_is_what_the_format_says(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    MirApi__V1__EventsProof *proof = verify(f, no_head);
    uint8_t link[MIR_EVENT_HASH_BYTES] = {0};
    assert_true(proof->intact);
    assert_int_equal(proof->links, 0);
    assert_memory_equal(proof->head.data, link, sizeof link);
    for (uint64_t i = 1; i <= 3; i++) {
        (void)tell(f, (told){.message = "hello"});
        /* Computed here from the bytes, with the hash function of the schemas. */
        uint8_t key[8], value[4096], bytes[4096], leaf[MIR_EVENT_HASH_BYTES];
        mir_state_u64_write(key, i);
        size_t size = raw(f, f->state->db.event, mir_view_of(key, 8), value, sizeof value);
        bytes[0] = 0;
        memcpy(bytes + 1, value + 81, size - 81);
        mir_state_schema_hash(mir_view_of(bytes, size - 80), leaf);
        assert_memory_equal(value + 9, leaf, sizeof leaf);
        bytes[0] = 1;
        memcpy(bytes + 1, link, 32);
        memcpy(bytes + 33, value + 1, 8);
        memcpy(bytes + 41, leaf, 32);
        mir_state_schema_hash(mir_view_of(bytes, 73), link);
        assert_memory_equal(value + 41, link, 8);
        proof = verify(f, no_head);
        assert_int_equal(proof->links, i);
        assert_memory_equal(proof->head.data, link, sizeof link);
    }
    events_free(f);
}

static void every_changed_byte_is_found_where_it_is(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    for (int i = 0; i < 5; i++)
        (void)tell(f, (told){.name = "pump", .message = "short", .actor = "alice"});
    mir_event_list list;
    mir_error error;
    uint64_t removed = 0;
    assert_int_equal(mir_event_remove(f->state, event_target(f, "{\"after\":3,\"before\":5}"), NULL,
                                      NULL, &f->arena, &list, &removed, &error),
                     MIR_OK);
    assert_int_equal(removed, 1); /* event 4, told of by 6 */
    for (uint64_t sequence = 1; sequence <= 6; sequence++) {
        uint8_t key[8], value[4096];
        mir_state_u64_write(key, sequence);
        mir_view at = mir_view_of(key, sizeof key);
        size_t size = raw(f, f->state->db.event, at, value, sizeof value);
        for (size_t i = 0; i < size; i++) {
            value[i] ^= 0x10;
            tamper(f, f->state->db.event, at, mir_view_of(value, size));
            MirApi__V1__EventsProof *proof = verify(f, no_head);
            if (proof->intact) fail_msg("byte %zu of event %u", i, (unsigned)sequence);
            /* What the removed one points to is looked at where it stands. */
            if (proof->broken_sequence != sequence &&
                !(sequence == 6 && proof->broken_sequence == 4))
                fail_msg("byte %zu of event %u: broken at %u, %s", i, (unsigned)sequence,
                         (unsigned)proof->broken_sequence, proof->broken_text);
            assert_non_null(proof->broken_text);
            assert_non_null(strstr(proof->text, "The chain is broken at link"));
            value[i] ^= 0x10;
        }
        /* Shorter, longer, not there. */
        tamper(f, f->state->db.event, at, mir_view_of(value, size - 1));
        assert_false(verify(f, no_head)->intact);
        value[size] = 0;
        tamper(f, f->state->db.event, at, mir_view_of(value, size + 1));
        assert_false(verify(f, no_head)->intact);
        tamper(f, f->state->db.event, at, no_head);
        MirApi__V1__EventsProof *proof = verify(f, no_head);
        assert_false(proof->intact);
        assert_true(proof->broken_sequence == sequence || sequence == 6);
        tamper(f, f->state->db.event, at, mir_view_of(value, size));
        assert_true(verify(f, no_head)->intact);
    }
    /* What is noted of the end. */
    uint8_t head[68];
    mir_view at = MIR_VIEW_LITERAL("event_head");
    assert_int_equal(raw(f, f->state->db.meta, at, head, sizeof head), sizeof head);
    for (size_t i = 0; i < 64; i++) {
        head[i] ^= 1;
        tamper(f, f->state->db.meta, at, mir_view_of(head, sizeof head));
        assert_false(verify(f, no_head)->intact);
        head[i] ^= 1;
    }
    tamper(f, f->state->db.meta, at, mir_view_of(head, sizeof head));
    events_free(f);
}

/* A record in place of another, with its hash, its link and all that stands in the head. */
static void an_exchanged_event_breaks_the_next_link(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    for (int i = 0; i < 4; i++) (void)tell(f, (told){.message = "true"});
    mir_event_item other;
    mir_error error;
    assert_int_equal(make(f, &(told){.message = "false"}, &other, &error), MIR_OK);
    uint8_t key[8], before[4096], value[4096], link[MIR_EVENT_HASH_BYTES] = {0};
    mir_state_u64_write(key, 1);
    (void)raw(f, f->state->db.event, mir_view_of(key, 8), before, sizeof before);
    memcpy(value, other.head, MIR_EVENT_HEAD_BYTES);
    memcpy(value + MIR_EVENT_HEAD_BYTES, other.record.data, other.record.size);
    memcpy(value + 1, before + 1, 8);
    mir_event_link(link, (int64_t)mir_state_u64_read(value + 1), value + MIR_EVENT_LEAF_AT);
    memcpy(value + 41, link, 8);
    tamper(f, f->state->db.event, mir_view_of(key, 8),
           mir_view_of(value, MIR_EVENT_HEAD_BYTES + other.record.size));
    MirApi__V1__EventsProof *proof = verify(f, no_head);
    assert_false(proof->intact);
    assert_int_equal(proof->broken_sequence, 2);
    fixture_free(f);
}

static void a_removal_without_its_record_is_found(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    for (int i = 0; i < 6; i++) (void)tell(f, (told){.reason = i % 2 == 0 ? "Even" : "Odd"});
    mir_event_list list;
    mir_error error;
    uint64_t removed = 0;
    assert_int_equal(mir_event_remove(f->state, event_target(f, "{\"reasons\":[\"Odd\"]}"), NULL,
                                      NULL, &f->arena, &list, &removed, &error),
                     MIR_OK);
    assert_true(verify(f, no_head)->intact);
    /* Event 3 is made to look like one that was removed with the others. */
    uint8_t key[8], value[4096];
    mir_state_u64_write(key, 3);
    (void)raw(f, f->state->db.event, mir_view_of(key, 8), value, sizeof value);
    value[0] = MIR_EVENT_IS_TOMB;
    mir_state_u64_write(value + 49, 7);
    tamper(f, f->state->db.event, mir_view_of(key, 8), mir_view_of(value, MIR_EVENT_TOMB_BYTES));
    MirApi__V1__EventsProof *proof = verify(f, no_head);
    assert_int_equal(proof->broken_sequence, 3);
    assert_string_equal(proof->broken_text, "it is removed, and record 7 does not tell of that");
    fixture_free(f);
}

static void a_noted_head_has_its_place(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    uint8_t heads[4][MIR_EVENT_HASH_BYTES];
    for (size_t i = 0; i < 4; i++) {
        memcpy(heads[i], verify(f, no_head)->head.data, sizeof heads[i]);
        (void)tell(f, (told){.message = "x"});
    }
    for (size_t i = 0; i < 4; i++) {
        MirApi__V1__EventsProof *proof = verify(f, mir_view_of(heads[i], sizeof heads[i]));
        assert_true(proof->intact);
        assert_true(proof->has_head_sequence);
        assert_int_equal(proof->head_sequence, i);
    }
    heads[2][31] ^= 1;
    MirApi__V1__EventsProof *proof = verify(f, mir_view_of(heads[2], sizeof heads[2]));
    assert_false(proof->intact);
    assert_false(proof->has_head_sequence);
    assert_false(proof->has_broken_sequence);
    assert_non_null(strstr(proof->text, "is not in this chain"));
    mir_error error;
    assert_int_equal(mir_event_verify(f->state, mir_view_of(heads[2], 31), NULL, NULL, &f->arena,
                                      &proof, &error),
                     MIR_E_INVALID);
    events_free(f);
}

typedef struct watched {
    unsigned calls, until;
} watched;

static bool watch(void *ctx, uint64_t done, uint64_t total)
{
    watched *w = ctx;
    assert_true(done < total);
    return ++w->calls < w->until;
}

static void blocks_are_verified_and_it_can_be_cancelled(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    fill_block(f, (told){.reason = "Noise"});
    fill(f, (told){.reason = "Noise"}, 10);
    MirApi__V1__EventsProof *proof = NULL;
    mir_error error;
    watched w = {.until = 2};
    assert_int_equal(mir_event_verify(f->state, no_head, watch, &w, &f->arena, &proof, &error),
                     MIR_E_CANCELLED);
    w = (watched){.until = 99};
    assert_int_equal(mir_event_verify(f->state, no_head, watch, &w, &f->arena, &proof, &error),
                     MIR_OK);
    assert_int_equal(w.calls, 2);
    assert_true(proof->intact);
    assert_int_equal(proof->links, MIR_EVENT_BLOCK + 10);
    uint8_t key[8] = {0}, value[36];
    assert_int_equal(raw(f, f->state->db.event_block, mir_view_of(key, 8), value, sizeof value),
                     36);
    value[5] ^= 1;
    tamper(f, f->state->db.event_block, mir_view_of(key, 8), mir_view_of(value, 36));
    proof = verify(f, no_head);
    assert_false(proof->intact);
    assert_int_equal(proof->broken_sequence, MIR_EVENT_BLOCK);
    value[5] ^= 1;
    value[35] ^= 1;
    tamper(f, f->state->db.event_block, mir_view_of(key, 8), mir_view_of(value, 36));
    assert_false(verify(f, no_head)->intact);
    value[35] ^= 1;
    tamper(f, f->state->db.event_block, mir_view_of(key, 8), mir_view_of(value, 36));
    events_free(f);
}

/* ── kill -9 ─────────────────────────────────────────────────────────────────────────────────── */

/* The child: appends and removes until it is killed; says the newest sequence that was done. */
static _Noreturn void tell_stream(fixture *f, int pipe_fd)
{
    fixture_open(f, MIR_STATE_SYNC_COMMIT, 256 << 20);
    enum { AT_ONCE = 512 };
    mir_event_item one, *items = calloc(AT_ONCE, sizeof *items);
    mir_error error;
    if (items == NULL || make(f, &(told){.reason = "Stream"}, &one, &error) != MIR_OK) _exit(3);
    for (uint64_t round = 0;; round++) {
        for (size_t i = 0; i < AT_ONCE; i++) items[i] = one;
        append(f, items, AT_ONCE);
        uint64_t newest = items[AT_ONCE - 1].sequence;
        (void)!write(pipe_fd, &newest, sizeof newest);
        if (round % 8 != 7) continue;
        uint64_t gone[2] = {newest - 5, newest - 3};
        size_t removed = 0;
        if (mir_event_remove_slice(f->state, gone, 2, "request", NULL, &removed, &error) != MIR_OK)
            _exit(4);
    }
}

static void a_kill_leaves_a_whole_chain(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_COMMIT, 256 << 20);
    mir_state_close(f->state);
    f->state = NULL;
    for (unsigned round = 0; round < 4; round++) {
        int pipe_fds[2];
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)close(pipe_fds[0]);
            tell_stream(f, pipe_fds[1]);
        }
        (void)close(pipe_fds[1]);
        /* In the middle of appending, indexing or removing, whatever it is. */
        uint64_t done = 0, newest = 0;
        for (unsigned i = 0; i < 30 + 17 * round; i++)
            assert_int_equal(read(pipe_fds[0], &done, sizeof done), sizeof done);
        assert_int_equal(kill(child, SIGKILL), 0);
        while (read(pipe_fds[0], &newest, sizeof newest) == sizeof newest) done = newest;
        (void)close(pipe_fds[0]);
        int child_status = 0;
        assert_int_equal(waitpid(child, &child_status, 0), child);
        assert_true(WIFSIGNALED(child_status));
        fixture_open(f, MIR_STATE_SYNC_COMMIT, 256 << 20);
        MirApi__V1__EventsProof *proof = verify(f, no_head);
        if (!proof->intact) fail_msg("round %u: %s", round, proof->text);
        assert_true(proof->links >= done);
        index_them(f);
        mir_event_list list = {0};
        mir_error error;
        MirApi__V1__EventTarget *target = event_target(f, "{\"reasons\":[\"Stream\"],\"limit\":1}");
        assert_int_equal(mir_event_list_get(f->state, target, NULL, &f->arena, &list, &error),
                         MIR_OK);
        assert_int_equal(list.count, 1);
        assert_true(list.events[0]->status->sequence >= done);
        mir_state_close(f->state);
        f->state = NULL;
    }
    fixture_open(f, MIR_STATE_SYNC_COMMIT, 256 << 20);
    events_free(f);
}

/* ── Threads ─────────────────────────────────────────────────────────────────────────────────── */

typedef struct crowd {
    fixture *f;
    atomic_bool stop;
    atomic_uint wrong, reads;
} crowd;

static void *read_along(void *opaque)
{
    crowd *c = opaque;
    while (!atomic_load(&c->stop)) {
        mir_arena arena = {0};
        mir_error error;
        mir_event_list list = {0};
        MirApi__V1__EventTarget target = MIR_API__V1__EVENT_TARGET__INIT;
        MirApi__V1__EventsProof *proof = NULL;
        char *reasons[] = {text("Stream")};
        target.reasons = reasons;
        target.n_reasons = 1;
        target.filter_limit = 50;
        bool ok = mir_event_list_get(c->f->state, &target, NULL, &arena, &list, &error) == MIR_OK;
        for (size_t i = 1; ok && i < list.count; i++)
            ok = list.events[i]->status->sequence < list.events[i - 1]->status->sequence;
        ok = ok &&
             mir_event_verify(c->f->state, no_head, NULL, NULL, &arena, &proof, &error) == MIR_OK &&
             proof->intact;
        if (!ok) atomic_fetch_add(&c->wrong, 1);
        atomic_fetch_add(&c->reads, 1);
        mir_arena_free(&arena);
    }
    return NULL;
}

static void readers_see_whole_chains_while_it_grows(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    crowd c = {.f = f};
    pthread_t readers[2];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_along, &c), 0);
    mir_event_list list;
    mir_error error;
    uint64_t removed = 0;
    for (unsigned i = 0; i < 20; i++) {
        fill(f, (told){.reason = "Stream"}, 2000);
        assert_int_equal(mir_event_remove(f->state, event_target(f, "{\"to\":1}"), NULL, NULL,
                                          &f->arena, &list, &removed, &error),
                         MIR_OK);
        MirApi__V1__EventTarget *target = event_target(f, "{\"reasons\":[\"Stream\"]}");
        target->has_after_sequence = target->has_before_sequence = 1;
        target->after_sequence = i * 1500;
        target->before_sequence = i * 1500 + 1300;
        assert_int_equal(
            mir_event_remove(f->state, target, NULL, NULL, &f->arena, &list, &removed, &error),
            MIR_OK);
    }
    while (atomic_load(&c.reads) < 4) sched_yield();
    atomic_store(&c.stop, true);
    for (unsigned i = 0; i < 2; i++) (void)pthread_join(readers[i], NULL);
    assert_int_equal(atomic_load(&c.wrong), 0);
    events_free(f);
}

static void removed_events_are_room_again(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    char text[300];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 3000; i++) (void)tell(f, (told){.reason = "Odd", .message = text});
    mir_state_stats before, after;
    mir_state_stats_get(f->state, &before);
    mir_event_list list;
    mir_error error;
    uint64_t removed = 0;
    assert_int_equal(mir_event_remove(f->state, event_target(f, "{\"reasons\":[\"Odd\"]}"), NULL,
                                      NULL, &f->arena, &list, &removed, &error),
                     MIR_OK);
    assert_int_equal(removed, 3000);
    mir_state_stats_get(f->state, &after);
    print_message("3000 events: %llu KiB, removed: %llu KiB\n",
                  (unsigned long long)before.map_bytes_used >> 10,
                  (unsigned long long)after.map_bytes_used >> 10);
    assert_true(after.map_bytes_used < before.map_bytes_used / 2);
    assert_true(verify(f, no_head)->intact);
    events_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_chain_is_what_the_format_says),
        cmocka_unit_test(every_changed_byte_is_found_where_it_is),
        cmocka_unit_test(an_exchanged_event_breaks_the_next_link),
        cmocka_unit_test(a_removal_without_its_record_is_found),
        cmocka_unit_test(a_noted_head_has_its_place),
        cmocka_unit_test(blocks_are_verified_and_it_can_be_cancelled),
        cmocka_unit_test(a_kill_leaves_a_whole_chain),
        cmocka_unit_test(removed_events_are_room_again),
        cmocka_unit_test(readers_see_whole_chains_while_it_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
