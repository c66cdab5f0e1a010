/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mir_nats.h"

enum { LINE_MAX = 4096 };

static mir_nats_outcome parse_exact(bool server, const void *data, size_t size, size_t line_max,
                                    mir_nats_op *op)
{
    /* The bytes sit at the very end of a block, so that a sanitizer sees a read past them. */
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    assert_non_null(copy);
    if (size != 0) memcpy(copy, data, size);
    mir_nats_outcome outcome = server ? mir_nats_parse_server(copy, size, line_max, op)
                                      : mir_nats_parse(copy, size, line_max, op);
    mir_view *views[] = {&op->subject, &op->reply, &op->queue, &op->sid, &op->text};
    for (unsigned i = 0; i < 5; i++)
        if (views[i]->size != 0) views[i]->data = (const uint8_t *)data + (views[i]->data - copy);
    free(copy);
    return outcome;
}

typedef struct line_case {
    const char *line;
    mir_nats_kind kind;
    const char *subject, *reply, *queue, *sid, *text;
    uint32_t header_size, total_size;
    uint64_t max;
} line_case;

static void check_line(bool server, const line_case *c)
{
    size_t size = strlen(c->line);
    mir_nats_op op;
    for (size_t cut = 0; cut < size; cut++)
        if (parse_exact(server, c->line, cut, LINE_MAX, &op) != MIR_NATS_NEED_MORE)
            fail_msg("cut at %zu of: %s", cut, c->line);
    char longer[512];
    (void)snprintf(longer, sizeof longer, "%sPING\r\n%40s", c->line, "");
    for (size_t have = size; have <= size + 40; have++) {
        if (parse_exact(server, longer, have, LINE_MAX, &op) != MIR_NATS_DONE)
            fail_msg("not parsed: %s", c->line);
        assert_int_equal(op.kind, c->kind);
        assert_int_equal(op.line_bytes, size);
        assert_true(mir_view_eq_cstr(op.subject, c->subject == NULL ? "" : c->subject));
        assert_true(mir_view_eq_cstr(op.reply, c->reply == NULL ? "" : c->reply));
        assert_true(mir_view_eq_cstr(op.queue, c->queue == NULL ? "" : c->queue));
        assert_true(mir_view_eq_cstr(op.sid, c->sid == NULL ? "" : c->sid));
        assert_true(mir_view_eq_cstr(op.text, c->text == NULL ? "" : c->text));
        assert_int_equal(op.header_size, c->header_size);
        assert_int_equal(op.total_size, c->total_size);
        assert_int_equal(op.max, c->max);
        assert_int_equal(op.has_max, c->max != 0);
    }
}

static void lines_of_a_client_are_read_at_every_split(void **state)
{
    (void)state;
    static const line_case cases[] = {
        {.line = "PUB a.b 5\r\n", .kind = MIR_NATS_PUB, .subject = "a.b", .total_size = 5},
        {.line = "PUB a _INBOX.x 0\r\n", .kind = MIR_NATS_PUB, .subject = "a", .reply = "_INBOX.x"},
        {.line = "pub\ta\t \tb  000000007 \t\n",
         .kind = MIR_NATS_PUB,
         .subject = "a",
         .reply = "b",
         .total_size = 7},
        {.line = "PuB  a 999999999\r\n",
         .kind = MIR_NATS_PUB,
         .subject = "a",
         .total_size = 999999999},
        {.line = "PUB a..b. 1\r\n", .kind = MIR_NATS_PUB, .subject = "a..b.", .total_size = 1},
        {.line = "HPUB a 12 14\r\n",
         .kind = MIR_NATS_HPUB,
         .subject = "a",
         .header_size = 12,
         .total_size = 14},
        {.line = "hpub a r 0 14\n",
         .kind = MIR_NATS_HPUB,
         .subject = "a",
         .reply = "r",
         .total_size = 14},
        {.line = "HPUB\ta r 14 14\r\n",
         .kind = MIR_NATS_HPUB,
         .subject = "a",
         .reply = "r",
         .header_size = 14,
         .total_size = 14},
        {.line = "SUB foo  1\r\n", .kind = MIR_NATS_SUB, .subject = "foo", .sid = "1"},
        {.line = "SUB foo.* workers abc\r\n",
         .kind = MIR_NATS_SUB,
         .subject = "foo.*",
         .queue = "workers",
         .sid = "abc"},
        {.line = "sub a>b *a\n", .kind = MIR_NATS_SUB, .subject = "a>b", .sid = "*a"},
        {.line = "UNSUB 1\r\n", .kind = MIR_NATS_UNSUB, .sid = "1"},
        {.line = "UNSUB 1 \r\n", .kind = MIR_NATS_UNSUB, .sid = "1"},
        {.line = "UNSUB 1 5\r\n", .kind = MIR_NATS_UNSUB, .sid = "1", .max = 5},
        {.line = "UNSUB 1 many\r\n", .kind = MIR_NATS_UNSUB, .sid = "1"},
        {.line = "unsub 1 0\n", .kind = MIR_NATS_UNSUB, .sid = "1"},
        {.line = "PING\r\n", .kind = MIR_NATS_PING},
        {.line = "ping and more\n", .kind = MIR_NATS_PING},
        {.line = "PONG\r\n", .kind = MIR_NATS_PONG},
        {.line = "CONNECT {\"verbose\":false}\r\n",
         .kind = MIR_NATS_CONNECT,
         .text = "{\"verbose\":false}"},
        {.line = "connect{}\n", .kind = MIR_NATS_CONNECT, .text = "{}"},
        {.line = "CONNECT \t {} \t\r\n", .kind = MIR_NATS_CONNECT, .text = "{}"},
        {.line = "INFO {}\r\n", .kind = MIR_NATS_INFO, .text = "{}"},
        {.line = "+OK\r\n", .kind = MIR_NATS_OK},
        {.line = "-ERR 'Stale Connection'\r\n", .kind = MIR_NATS_ERR, .text = "'Stale Connection'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_line(false, &cases[i]);
}

static void lines_of_a_server_are_read_at_every_split(void **state)
{
    (void)state;
    static const line_case cases[] = {
        {.line = "MSG a.b 1 5\r\n",
         .kind = MIR_NATS_MSG,
         .subject = "a.b",
         .sid = "1",
         .total_size = 5},
        {.line = "MSG a 1 _INBOX.x 0\r\n",
         .kind = MIR_NATS_MSG,
         .subject = "a",
         .sid = "1",
         .reply = "_INBOX.x"},
        {.line = "HMSG a 9 12 14\r\n",
         .kind = MIR_NATS_HMSG,
         .subject = "a",
         .sid = "9",
         .header_size = 12,
         .total_size = 14},
        {.line = "HMSG a 9 r 12 14\r\n",
         .kind = MIR_NATS_HMSG,
         .subject = "a",
         .sid = "9",
         .reply = "r",
         .header_size = 12,
         .total_size = 14},
        {.line = "INFO {\"max_payload\":1}\r\n",
         .kind = MIR_NATS_INFO,
         .text = "{\"max_payload\":1}"},
        {.line = "PING\r\n", .kind = MIR_NATS_PING},
        {.line = "PONG\r\n", .kind = MIR_NATS_PONG},
        {.line = "+OK\r\n", .kind = MIR_NATS_OK},
        {.line = "-ERR 'Maximum Payload Violation'\r\n",
         .kind = MIR_NATS_ERR,
         .text = "'Maximum Payload Violation'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_line(true, &cases[i]);
}

static void check_refusal(bool server, const char *line, mir_nats_outcome want)
{
    mir_nats_op op;
    size_t size = strlen(line);
    if (parse_exact(server, line, size, LINE_MAX, &op) != want) fail_msg("judged wrong: %s", line);
    /* Cut anywhere the answer is the same one, or not known yet. */
    for (size_t cut = 0; cut < size; cut++) {
        mir_nats_outcome outcome = parse_exact(server, line, cut, LINE_MAX, &op);
        if (outcome != MIR_NATS_NEED_MORE && outcome != want)
            fail_msg("cut at %zu judged wrong: %s", cut, line);
    }
}

/* What lies behind a line decides how it is read, and never what it says. */
static void a_publish_is_the_same_whatever_follows_it(void **state)
{
    (void)state;
    static const char bytes[] = " \t\r\n\x01"
                                "0123456789abc....    ";
    char tail[64];
    uint32_t random = 1;
    unsigned done = 0;
    memset(tail, ' ', sizeof tail);
    for (unsigned round = 0; round < 100000; round++) {
        char line[160];
        size_t size = 0;
        random = random * 1664525 + 1013904223;
        const unsigned length = random >> 25;
        size += (size_t)sprintf(line, "%s", (random & 0x10000) != 0 ? "PUB " : "HPUB ");
        for (unsigned i = 0; i < length % 40; i++) {
            random = random * 1664525 + 1013904223;
            line[size++] = bytes[(random >> 16) % (sizeof bytes - 1)];
        }
        (void)sprintf(line + size, "%s%u %u\r\n", (random & 0x20000) != 0 ? " " : "", length,
                      length * 2);
        const size_t whole = (size_t)(strchr(line, '\n') - line) + 1;
        mir_nats_op alone, followed;
        const mir_nats_outcome outcome = parse_exact(false, line, whole, 24, &alone);
        memcpy(line + whole, tail, sizeof tail);
        assert_int_equal(parse_exact(false, line, whole + sizeof tail, 24, &followed), outcome);
        if (outcome != MIR_NATS_DONE) continue;
        done++;
        assert_memory_equal(&alone, &followed, sizeof alone);
    }
    assert_true(done > 1000);
}

static void unknown_operations_are_refused(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "\r\n",     "\n",          " PING\r\n",        "X\r\n",     "MSG a 1 1\r\n",
        "RMSG a\r", "RS+ a b\r\n", "A+ x\r\n",         "UNSUB\r\n", "PUBa 1\r\n",
        "PUB\r\n",  "SUB\n",       "HPUBa 12 12\r\n",  "PIN\r\n",   "+O\r\n",
        "\xff",     "GET / HTTP",  "HMSG a 1 12 12\r", "PUBLISH a", "-ER\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        check_refusal(false, lines[i], MIR_NATS_UNKNOWN_OP);
    static const char *const to_clients[] = {"PUB a 1\r\n", "SUB a 1\r\n", "CONNECT {}\r\n",
                                             "HPUB a 1 1\r\n", "UNSUB 1\r\n"};
    for (size_t i = 0; i < sizeof to_clients / sizeof to_clients[0]; i++)
        check_refusal(true, to_clients[i], MIR_NATS_UNKNOWN_OP);
}

static void malformed_arguments_are_refused(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "PUB a\rb 0\r\n",
        "SUB a\rb 1\r\n",
        "PUB a 0\r\r\n",
        "PUB \r\n",
        "PUB a\r\n",
        "PUB a b c 1\r\n",
        "PUB a b c d e f 1\r\n",
        "PUB a -1\r\n",
        "PUB a +1\r\n",
        "PUB a 1x\r\n",
        "PUB a 1234567890\r\n",
        "PUB a 0000000001\n",
        "PUB a b\r\n",
        "HPUB a 12\r\n",
        "HPUB a 12 11\r\n",
        "HPUB a x 12\r\n",
        "HPUB a b c 1 1\r\n",
        "HPUB a 12 x\r\n",
        "HPUB \n",
        "SUB a\r\n",
        "SUB a b c d\r\n",
        "SUB \r\n",
        "UNSUB \r\n",
        "UNSUB 1 2 3\r\n",
        "HPUB a -1 3\r\n",
        "PUB a\rb\r 1\r2\r\n",
        "PUB a 1 \r \r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        check_refusal(false, lines[i], MIR_NATS_MALFORMED);
    static const char *const to_clients[] = {"MSG a 1\r\n",        "MSG a 1 b c 1\r\n",
                                             "MSG a 1 x\r\n",      "HMSG a 1 12\r\n",
                                             "HMSG a 1 12 11\r\n", "HMSG a 1 b c 12 12\r\n"};
    for (size_t i = 0; i < sizeof to_clients / sizeof to_clients[0]; i++)
        check_refusal(true, to_clients[i], MIR_NATS_MALFORMED);
}

static void a_control_line_carries_its_limit_of_arguments_and_no_more(void **state)
{
    (void)state;
    enum { LIMIT = 64 };
    static const char *const ends[] = {"\r\n", "\n"};
    static const char *const words[] = {"PUB ", "hpub ", "SUB\t", "CONNECT ", "UNSUB ", "-ERR "};
    for (unsigned w = 0; w < 6; w++) {
        for (unsigned e = 0; e < 2; e++) {
            for (size_t arguments = LIMIT - 3; arguments <= LIMIT + 3; arguments++) {
                char line[256];
                size_t head = strlen(words[w]);
                memcpy(line, words[w], head);
                memset(line + head, 'x', arguments);
                if (w == 1) memcpy(line + head + arguments - 6, " 1 100", 6);
                if (w == 0 || w == 2) memcpy(line + head + arguments - 2, " 1", 2);
                strcpy(line + head + arguments, ends[e]);
                size_t size = strlen(line);
                mir_nats_op op;
                mir_nats_outcome want = arguments <= LIMIT ? MIR_NATS_DONE : MIR_NATS_LINE_TOO_LONG;
                assert_int_equal(parse_exact(false, line, size, LIMIT, &op), want);
                for (size_t cut = 0; cut < size; cut++) {
                    mir_nats_outcome outcome = parse_exact(false, line, cut, LIMIT, &op);
                    assert_true(outcome == MIR_NATS_NEED_MORE || outcome == want);
                }
            }
            /* Without an end it is judged as soon as it cannot become right. */
            char flood[256];
            memset(flood, 'x', sizeof flood);
            size_t head = strlen(words[w]);
            memcpy(flood, words[w], head);
            mir_nats_op op;
            assert_int_equal(parse_exact(false, flood, head + LIMIT + 2, LIMIT, &op),
                             MIR_NATS_LINE_TOO_LONG);
            assert_int_equal(parse_exact(false, flood, sizeof flood, LIMIT, &op),
                             MIR_NATS_LINE_TOO_LONG);
        }
    }
}

static mir_view block_of(const char *text)
{
    return mir_view_cstr(text);
}

static void the_first_value_of_a_header_is_found(void **state)
{
    (void)state;
    mir_view block = block_of("NATS/1.0 503 No Responders\r\nA: 1\r\na:two words \t\r\nA: 3\r\n"
                              "Empty:\r\nColons: a:b:c\r\n\r\nB: after the end\r\n");
    assert_true(mir_view_eq_cstr(mir_nats_header(block, block_of("A")), "1"));
    assert_true(mir_view_eq_cstr(mir_nats_header(block, block_of("a")), "two words"));
    assert_true(mir_view_eq_cstr(mir_nats_header(block, block_of("Colons")), "a:b:c"));
    mir_view empty = mir_nats_header(block, block_of("Empty"));
    assert_non_null(empty.data);
    assert_int_equal(empty.size, 0);
    assert_null(mir_nats_header(block, block_of("B")).data);
    assert_null(mir_nats_header(block, block_of("Colon")).data);
    assert_null(mir_nats_header((mir_view){NULL, 0}, block_of("A")).data);
}

static void a_malformed_header_line_ends_the_block(void **state)
{
    (void)state;
    static const char *const blocks[] = {"NATS/1.0\r\nno colon\r\nA: 1\r\n\r\n",
                                         "NATS/1.0\r\n\r\nA: 1\r\n",
                                         "NATS/1.0\r\nA: 1",
                                         "A: 1\r\n",
                                         "",
                                         "\n",
                                         "NATS/1.0"};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        assert_null(mir_nats_header(block_of(blocks[i]), block_of("A")).data);
}

static void a_cut_header_block_gives_a_prefix_of_its_lines(void **state)
{
    (void)state;
    static const char text[] = "NATS/1.0\r\nA: 1\r\nB: 2\nC:3\r\n\r\n";
    for (size_t cut = 0; cut < sizeof text; cut++) {
        uint8_t *copy = malloc(cut + 1);
        assert_non_null(copy);
        memcpy(copy, text, cut);
        uint8_t *exact = realloc(copy, cut == 0 ? 1 : cut);
        assert_non_null(exact);
        size_t at = 0;
        mir_view name, value;
        unsigned lines = 0;
        while (mir_nats_header_next((mir_view){exact, cut}, &at, &name, &value)) {
            assert_int_equal(name.size, 1);
            assert_int_equal(name.data[0], 'A' + lines);
            assert_int_equal(value.size, 1);
            assert_int_equal(value.data[0], '1' + lines);
            lines++;
        }
        assert_int_equal(lines, (cut >= 16) + (cut >= 21) + (cut >= 26));
        free(exact);
    }
}

/* --- subjects ------------------------------------------------------------------------------- */

static void subjects_are_tokens_joined_by_dots(void **state)
{
    (void)state;
    static const char *const literal[] = {"a", "a.b", "*a", "a>b.c", "a.>>", "**", "\xc3\xa4.$x"};
    for (size_t i = 0; i < sizeof literal / sizeof literal[0]; i++) {
        assert_true(mir_nats_subject_valid(block_of(literal[i])));
        assert_true(mir_nats_subject_literal(block_of(literal[i])));
    }
    static const char *const patterns[] = {"*", ">", "a.*", "*.b", "a.>", "*.>", "*.*.*"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        assert_true(mir_nats_subject_valid(block_of(patterns[i])));
        assert_false(mir_nats_subject_literal(block_of(patterns[i])));
    }
    static const char *const neither[] = {"", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a.>."};
    for (size_t i = 0; i < sizeof neither / sizeof neither[0]; i++) {
        assert_false(mir_nats_subject_valid(block_of(neither[i])));
        assert_false(mir_nats_subject_literal(block_of(neither[i])));
    }
}

static void tokens_are_counted_and_taken(void **state)
{
    (void)state;
    mir_view subject = block_of("device.d1.tlm");
    assert_int_equal(mir_nats_token_count(subject), 3);
    assert_true(mir_view_eq_cstr(mir_nats_token(subject, 0), "device"));
    assert_true(mir_view_eq_cstr(mir_nats_token(subject, 2), "tlm"));
    assert_int_equal(mir_nats_token(subject, 3).size, 0);
    assert_int_equal(mir_nats_token_count(block_of("")), 0);
    assert_int_equal(mir_nats_token_count(block_of("a")), 1);
    assert_int_equal(mir_nats_token_count(block_of("a.")), 2);
    assert_int_equal(mir_nats_token_count(block_of("..")), 3);
    assert_int_equal(mir_nats_token(block_of(".b"), 0).size, 0);
    assert_true(mir_view_eq_cstr(mir_nats_token(block_of(".b"), 1), "b"));
}

/* All texts of up to `depth` tokens out of a list. */
static size_t all_texts(const char *const *words, unsigned word_count, unsigned depth,
                        char texts[][16], size_t texts_max)
{
    size_t count = 0;
    for (unsigned tokens = 1; tokens <= depth; tokens++) {
        unsigned combinations = 1;
        for (unsigned i = 0; i < tokens; i++) combinations *= word_count;
        for (unsigned c = 0; c < combinations; c++) {
            char text[16] = "";
            unsigned left = c;
            for (unsigned i = 0; i < tokens; i++, left /= word_count) {
                if (i > 0) strcat(text, ".");
                strcat(text, words[left % word_count]);
            }
            assert_true(count < texts_max);
            strcpy(texts[count++], text);
        }
    }
    return count;
}

/* The definition, token by token. */
static bool matches(const char *pattern, const char *literal)
{
    for (;;) {
        size_t p = strcspn(pattern, "."), l = strcspn(literal, ".");
        if (p == 1 && pattern[0] == '>') return true;
        if (!(p == 1 && pattern[0] == '*') && (p != l || strncmp(pattern, literal, p) != 0))
            return false;
        bool p_ends = pattern[p] == '\0', l_ends = literal[l] == '\0';
        if (p_ends || l_ends) return p_ends && l_ends;
        pattern += p + 1;
        literal += l + 1;
    }
}

static void match_subset_and_overlap_agree_with_every_literal_subject(void **state)
{
    (void)state;
    /* Patterns of three tokens over a and b; literals one token deeper and with a third word tell
     * apart every two of them. */
    static const char *const pattern_words[] = {"a", "b", "*", ">"};
    static const char *const literal_words[] = {"a", "b", "c"};
    static char patterns[128][16], literals[128][16];
    static bool table[128][128];
    size_t all = all_texts(pattern_words, 4, 3, patterns, 128), pattern_count = 0;
    for (size_t i = 0; i < all; i++)
        if (mir_nats_subject_valid(block_of(patterns[i])))
            memmove(patterns[pattern_count++], patterns[i], sizeof patterns[i]);
    size_t literal_count = all_texts(literal_words, 3, 4, literals, 128);
    assert_true(pattern_count > 40 && literal_count == 120);
    for (size_t p = 0; p < pattern_count; p++) {
        for (size_t l = 0; l < literal_count; l++) {
            table[p][l] = matches(patterns[p], literals[l]);
            if (mir_nats_match(block_of(patterns[p]), block_of(literals[l])) != table[p][l])
                fail_msg("%s against %s", patterns[p], literals[l]);
        }
    }
    for (size_t a = 0; a < pattern_count; a++) {
        for (size_t b = 0; b < pattern_count; b++) {
            bool subset = true, overlap = false;
            for (size_t l = 0; l < literal_count; l++) {
                if (table[a][l] && !table[b][l]) subset = false;
                if (table[a][l] && table[b][l]) overlap = true;
            }
            if (mir_nats_subset(block_of(patterns[a]), block_of(patterns[b])) != subset)
                fail_msg("%s within %s", patterns[a], patterns[b]);
            if (mir_nats_overlap(block_of(patterns[a]), block_of(patterns[b])) != overlap)
                fail_msg("%s and %s", patterns[a], patterns[b]);
        }
    }
}

static void numbers_are_written_in_their_shortest_form(void **state)
{
    (void)state;
    static const uint64_t values[] = {0, 1, 9, 10, 99, 100, 4294967295u, UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char want[32];
        uint8_t text[20];
        int size = snprintf(want, sizeof want, "%llu", (unsigned long long)values[i]);
        assert_int_equal(mir_nats_put_number(text, values[i]), size);
        assert_memory_equal(text, want, (size_t)size);
    }
}

/* Wherever ends and blanks fall in the words of eight bytes that are looked at at once. */
static void lines_of_any_length_are_read(void **state)
{
    (void)state;
    char subject[80] = "";
    for (size_t size = 1; size < sizeof subject; size++) {
        subject[size - 1] = (char)('a' + size % 26);
        subject[size] = '\0';
        for (int form = 0; form < 6; form++) {
            static const struct {
                const char *before, *after;
            } forms[] = {{"HPUB ", " 12 34\r\n"},    {"HPUB ", "\t12\t34\n"},
                         {"HPUB  ", "  12 34 \r\n"}, {"HPUB ", "\r 12 34\r\n"},
                         {"HPUB ", " 12 34\r\r\n"},  {"HPUB ", " 12 34\r"}};
            char line[128];
            const int bytes = snprintf(line, sizeof line, "%s%s%s", forms[form].before, subject,
                                       forms[form].after);
            /* Nothing behind it: what is read past the end is seen by a sanitizer. */
            uint8_t *exact = malloc((size_t)bytes);
            assert_non_null(exact);
            memcpy(exact, line, (size_t)bytes);
            mir_nats_op op;
            const mir_nats_outcome outcome = mir_nats_parse(exact, (size_t)bytes, 4096, &op);
            if (form < 3) {
                assert_int_equal(outcome, MIR_NATS_DONE);
                assert_int_equal(op.line_bytes, bytes);
                assert_int_equal(op.subject.size, size);
                assert_memory_equal(op.subject.data, subject, size);
                assert_int_equal(op.header_size, 12);
                assert_int_equal(op.total_size, 34);
            } else {
                assert_int_equal(outcome, form < 5 ? MIR_NATS_MALFORMED : MIR_NATS_NEED_MORE);
            }
            free(exact);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_any_length_are_read),
        cmocka_unit_test(lines_of_a_client_are_read_at_every_split),
        cmocka_unit_test(lines_of_a_server_are_read_at_every_split),
        cmocka_unit_test(a_publish_is_the_same_whatever_follows_it),
        cmocka_unit_test(unknown_operations_are_refused),
        cmocka_unit_test(malformed_arguments_are_refused),
        cmocka_unit_test(a_control_line_carries_its_limit_of_arguments_and_no_more),
        cmocka_unit_test(the_first_value_of_a_header_is_found),
        cmocka_unit_test(a_malformed_header_line_ends_the_block),
        cmocka_unit_test(a_cut_header_block_gives_a_prefix_of_its_lines),
        cmocka_unit_test(subjects_are_tokens_joined_by_dots),
        cmocka_unit_test(tokens_are_counted_and_taken),
        cmocka_unit_test(match_subset_and_overlap_agree_with_every_literal_subject),
        cmocka_unit_test(numbers_are_written_in_their_shortest_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
