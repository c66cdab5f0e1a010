/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_nats.h"

#include <endian.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { ARGS_MAX = 6, SIZE_DIGITS_MAX = 9 };

static inline bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* The high bit of each byte of `word` that is `byte`; above the lowest such byte there may be others
 * by mistake. Source: S. E. Anderson, Bit Twiddling Hacks, "Determine if a word has a byte equal to
 * n". */
static inline uint64_t bytes_equal(uint64_t word, uint8_t byte)
{
    word ^= UINT64_C(0x0101010101010101) * byte;
    return (word - UINT64_C(0x0101010101010101)) & ~word & UINT64_C(0x8080808080808080);
}

/* The first of two bytes, or `end`. */
static inline const uint8_t *find_either(const uint8_t *at, const uint8_t *end, uint8_t a,
                                         uint8_t b)
{
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        word = le64toh(word);
        const uint64_t found = bytes_equal(word, a) | bytes_equal(word, b);
        if (found != 0) return at + (unsigned)__builtin_ctzll(found) / 8;
    }
    while (at < end && *at != a && *at != b) at++;
    return at;
}

/* Splits at blanks; counts arguments past the array too, so that too many are noticed. */
static unsigned split(const uint8_t *at, const uint8_t *end, mir_view *args)
{
    unsigned count = 0;
    for (;;) {
        while (at < end && is_blank(*at)) at++;
        if (at == end) return count;
        const uint8_t *start = at;
        at = find_either(at, end, ' ', '\t');
        if (count == ARGS_MAX) return ARGS_MAX + 1;
        args[count++] = (mir_view){start, (size_t)(at - start)};
    }
}

static bool parse_size(mir_view text, uint32_t *value)
{
    if (text.size == 0 || text.size > SIZE_DIGITS_MAX) return false;
    uint32_t sum = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (digit > 9) return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

static mir_view trim(const uint8_t *at, const uint8_t *end)
{
    while (at < end && is_blank(*at)) at++;
    while (end > at && is_blank(end[-1])) end--;
    return (mir_view){at, (size_t)(end - at)};
}

static inline uint32_t fold4(const uint8_t *data)
{
    uint32_t word;
    memcpy(&word, data, 4);
    return word | UINT32_C(0x20202020); /* lower case for letters; blank and digits are kept */
}

static inline uint32_t word4(const char *text)
{
    uint32_t word;
    memcpy(&word, text, 4);
    return word;
}

static inline uint8_t fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* Whether the bytes at hand can still become `name`; all of it: 1, so far: 0, no: -1. */
static int keyword(const uint8_t *data, size_t size, const char *name)
{
    for (size_t i = 0; name[i] != '\0'; i++) {
        if (i == size) return 0;
        if (fold(data[i]) != (uint8_t)name[i]) return -1;
    }
    return 1;
}

typedef struct keyword_rule {
    const char *name; /* lower case */
    mir_nats_kind kind;
    bool blank_after; /* the keyword must be followed by a blank */
    bool has_line;    /* arguments count against the control line limit */
    bool from_client;
    bool from_server;
} keyword_rule;

static const keyword_rule rules[] = {
    {"pub", MIR_NATS_PUB, true, true, true, false},
    {"hpub", MIR_NATS_HPUB, true, true, true, false},
    {"msg", MIR_NATS_MSG, true, true, false, true},
    {"hmsg", MIR_NATS_HMSG, true, true, false, true},
    {"sub", MIR_NATS_SUB, true, true, true, false},
    {"unsub", MIR_NATS_UNSUB, true, true, true, false},
    {"ping", MIR_NATS_PING, false, false, true, true},
    {"pong", MIR_NATS_PONG, false, false, true, true},
    {"connect", MIR_NATS_CONNECT, false, true, true, false},
    {"info", MIR_NATS_INFO, false, true, true, true},
    {"+ok", MIR_NATS_OK, false, false, true, true},
    {"-err", MIR_NATS_ERR, false, true, true, true},
};

static mir_nats_outcome take_arguments(mir_nats_op *op, const uint8_t *at, const uint8_t *end)
{
    mir_view args[ARGS_MAX];
    unsigned count;
    switch (op->kind) {
    case MIR_NATS_PUB:
        count = split(at, end, args);
        if (count < 2 || count > 3) return MIR_NATS_MALFORMED;
        op->subject = args[0];
        if (count == 3) op->reply = args[1];
        return parse_size(args[count - 1], &op->total_size) ? MIR_NATS_DONE : MIR_NATS_MALFORMED;
    case MIR_NATS_HPUB:
        count = split(at, end, args);
        if (count < 3 || count > 4) return MIR_NATS_MALFORMED;
        op->subject = args[0];
        if (count == 4) op->reply = args[1];
        if (!parse_size(args[count - 2], &op->header_size) ||
            !parse_size(args[count - 1], &op->total_size) || op->header_size > op->total_size)
            return MIR_NATS_MALFORMED;
        return MIR_NATS_DONE;
    case MIR_NATS_MSG:
        count = split(at, end, args);
        if (count < 3 || count > 4) return MIR_NATS_MALFORMED;
        op->subject = args[0];
        op->sid = args[1];
        if (count == 4) op->reply = args[2];
        return parse_size(args[count - 1], &op->total_size) ? MIR_NATS_DONE : MIR_NATS_MALFORMED;
    case MIR_NATS_HMSG:
        count = split(at, end, args);
        if (count < 4 || count > 5) return MIR_NATS_MALFORMED;
        op->subject = args[0];
        op->sid = args[1];
        if (count == 5) op->reply = args[2];
        if (!parse_size(args[count - 2], &op->header_size) ||
            !parse_size(args[count - 1], &op->total_size) || op->header_size > op->total_size)
            return MIR_NATS_MALFORMED;
        return MIR_NATS_DONE;
    case MIR_NATS_SUB:
        count = split(at, end, args);
        if (count < 2 || count > 3) return MIR_NATS_MALFORMED;
        op->subject = args[0];
        if (count == 3) op->queue = args[1];
        op->sid = args[count - 1];
        return MIR_NATS_DONE;
    case MIR_NATS_UNSUB: {
        count = split(at, end, args);
        if (count < 1 || count > 2) return MIR_NATS_MALFORMED;
        op->sid = args[0];
        uint32_t max = 0;
        /* A maximum that is not a number counts as none: remove at once. */
        if (count == 2 && parse_size(args[1], &max) && max > 0) {
            op->has_max = true;
            op->max = max;
        }
        return MIR_NATS_DONE;
    }
    case MIR_NATS_CONNECT:
    case MIR_NATS_INFO:
    case MIR_NATS_ERR: op->text = trim(at, end); return MIR_NATS_DONE;
    case MIR_NATS_PING:
    case MIR_NATS_PONG:
    case MIR_NATS_OK: return MIR_NATS_DONE;
    }
    return MIR_NATS_UNKNOWN_OP;
}

static mir_nats_outcome finish_line(const uint8_t *data, size_t size, size_t keyword_bytes,
                                    bool has_line, size_t control_line_max, mir_nats_op *op)
{
    const uint8_t *args = data + keyword_bytes;
    size_t left = size - keyword_bytes;
    /* The limit counts arguments: blanks, CR and LF around them come on top. */
    size_t window = has_line && left > control_line_max + 3 ? control_line_max + 3 : left;
    const uint8_t *stop = args + window;
    /* One pass: a line nearly always ends at its first CR, with the LF behind it. */
    const uint8_t *mark = find_either(args, stop, '\n', '\r');
    const uint8_t *lf = mark;
    if (mark < stop && *mark == '\r') lf = memchr(mark, '\n', (size_t)(stop - mark));
    if (lf == NULL || lf == stop) {
        if (has_line && left > control_line_max + 2) return MIR_NATS_LINE_TOO_LONG;
        return MIR_NATS_NEED_MORE;
    }
    const uint8_t *end = lf;
    if (end > args && end[-1] == '\r') end--;
    const uint8_t *first = args;
    if (first < end && is_blank(*first)) first++;
    if (has_line && (size_t)(end - first) > control_line_max) return MIR_NATS_LINE_TOO_LONG;
    /* It would be echoed to others, whose line it would end. */
    if (has_line && mark < end) return MIR_NATS_MALFORMED;
    op->line_bytes = (size_t)(lf - data) + 1;
    return take_arguments(op, args, end);
}

#ifdef __SSE2__
/* The line of nearly every publish, in one pass of sixteen bytes at a time: arguments between single
 * blanks, then CR and LF, with bytes of the payload behind them. False: it may be anything else, and
 * is not judged here. */
static bool usual_publish(const uint8_t *data, size_t size, size_t keyword_bytes,
                          size_t control_line_max, mir_nats_op *op)
{
    const unsigned sizes = op->kind == MIR_NATS_HPUB ? 2 : 1;
    const uint8_t *const first = data + keyword_bytes + 1;
    const uint8_t *const end = data + size;
    const uint8_t *start = first;
    mir_view args[4];
    unsigned count = 0;
    for (const uint8_t *at = first; end - at >= 16; at += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        const __m128i blank = _mm_set1_epi8(' ');
        uint32_t low =
            (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(bytes, blank), bytes));
        for (; low != 0; low &= low - 1) {
            const uint8_t *mark = at + (unsigned)__builtin_ctz(low);
            if (mark == start || count == 4) return false;
            args[count++] = (mir_view){start, (size_t)(mark - start)};
            start = mark + 1;
            if (*mark == ' ') continue;
            if (*mark != '\r' || start == end || *start != '\n') return false;
            if (count - sizes < 1 || count - sizes > 2 ||
                (size_t)(mark - first) > control_line_max ||
                !parse_size(args[count - 1], &op->total_size)) {
                return false;
            }
            if (sizes == 2 && (!parse_size(args[count - 2], &op->header_size) ||
                               op->header_size > op->total_size)) {
                return false;
            }
            op->subject = args[0];
            if (count - sizes == 2) op->reply = args[1];
            op->line_bytes = (size_t)(start - data) + 1;
            return true;
        }
    }
    return false;
}
#else
static bool usual_publish(const uint8_t *data, size_t size, size_t keyword_bytes,
                          size_t control_line_max, mir_nats_op *op)
{
    (void)data;
    (void)size;
    (void)keyword_bytes;
    (void)control_line_max;
    (void)op;
    return false;
}
#endif

static mir_nats_outcome publish(const uint8_t *data, size_t size, size_t keyword_bytes,
                                mir_nats_kind kind, size_t control_line_max, mir_nats_op *op)
{
    *op = (mir_nats_op){.kind = kind};
    if (__builtin_expect(usual_publish(data, size, keyword_bytes, control_line_max, op), 1)) {
        return MIR_NATS_DONE;
    }
    *op = (mir_nats_op){.kind = kind};
    return finish_line(data, size, keyword_bytes, true, control_line_max, op);
}

static mir_nats_outcome parse(const uint8_t *data, size_t size, size_t control_line_max,
                              bool from_client, mir_nats_op *op)
{
    *op = (mir_nats_op){0};
    bool possible = false;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const keyword_rule *rule = &rules[i];
        if (from_client ? !rule->from_client : !rule->from_server) continue;
        int is = keyword(data, size, rule->name);
        if (is < 0) continue;
        if (is == 0) {
            possible = true;
            continue;
        }
        size_t name_size = strlen(rule->name);
        if (rule->blank_after) {
            if (size == name_size) return MIR_NATS_NEED_MORE;
            if (!is_blank(data[name_size])) return MIR_NATS_UNKNOWN_OP;
        }
        op->kind = rule->kind;
        return finish_line(data, size, name_size, rule->has_line, control_line_max, op);
    }
    return possible ? MIR_NATS_NEED_MORE : MIR_NATS_UNKNOWN_OP;
}

mir_nats_outcome mir_nats_parse(const uint8_t *data, size_t size, size_t control_line_max,
                                mir_nats_op *op)
{
    /* The two publishes are nearly all of the traffic. */
    if (size > 5) {
        uint32_t word = fold4(data);
        if (word == word4("hpub") && data[4] == ' ') {
            return publish(data, size, 4, MIR_NATS_HPUB, control_line_max, op);
        }
        if (word == word4("pub ") && data[3] == ' ') {
            return publish(data, size, 3, MIR_NATS_PUB, control_line_max, op);
        }
    }
    return parse(data, size, control_line_max, true, op);
}

mir_nats_outcome mir_nats_parse_server(const uint8_t *data, size_t size, size_t control_line_max,
                                       mir_nats_op *op)
{
    return parse(data, size, control_line_max, false, op);
}

bool mir_nats_header_next(mir_view header, size_t *at, mir_view *name, mir_view *value)
{
    if (*at == 0) {
        const uint8_t *lf = header.size == 0 ? NULL : memchr(header.data, '\n', header.size);
        if (lf == NULL) return false;
        *at = (size_t)(lf - header.data) + 1;
    }
    if (*at >= header.size) return false;
    const uint8_t *start = header.data + *at;
    const uint8_t *lf = memchr(start, '\n', header.size - *at);
    if (lf == NULL) return false;
    const uint8_t *end = lf > start && lf[-1] == '\r' ? lf - 1 : lf;
    if (end == start) return false; /* the empty line */
    const uint8_t *colon = memchr(start, ':', (size_t)(end - start));
    if (colon == NULL) return false;
    *name = (mir_view){start, (size_t)(colon - start)};
    const uint8_t *from = colon + 1;
    while (from < end && is_blank(*from)) from++;
    while (end > from && is_blank(end[-1])) end--;
    *value = (mir_view){from, (size_t)(end - from)};
    *at = (size_t)(lf - header.data) + 1;
    return true;
}

mir_view mir_nats_header(mir_view header, mir_view name)
{
    size_t at = 0;
    mir_view key, value;
    while (mir_nats_header_next(header, &at, &key, &value))
        if (mir_view_eq(key, name)) return value;
    return (mir_view){NULL, 0};
}

/* Takes the token at *at; false when there is none left. A trailing dot gives an empty token. */
static bool next_token(mir_view subject, size_t *at, mir_view *token)
{
    if (*at > subject.size || subject.size == 0) return false;
    const uint8_t *start = subject.data + *at;
    size_t left = subject.size - *at;
    const uint8_t *dot = left == 0 ? NULL : memchr(start, '.', left);
    size_t size = dot == NULL ? left : (size_t)(dot - start);
    *token = (mir_view){start, size};
    *at += size + 1;
    return true;
}

static inline bool is_star(mir_view token)
{
    return token.size == 1 && token.data[0] == '*';
}

static inline bool is_rest(mir_view token)
{
    return token.size == 1 && token.data[0] == '>';
}

bool mir_nats_subject_valid(mir_view pattern)
{
    size_t at = 0;
    mir_view token;
    if (pattern.size == 0) return false;
    while (next_token(pattern, &at, &token)) {
        if (token.size == 0) return false;
        if (is_rest(token) && at <= pattern.size) return false;
    }
    return true;
}

bool mir_nats_subject_literal(mir_view subject)
{
    size_t at = 0;
    mir_view token;
    if (subject.size == 0) return false;
    while (next_token(subject, &at, &token))
        if (token.size == 0 || is_star(token) || is_rest(token)) return false;
    return true;
}

bool mir_nats_match(mir_view pattern, mir_view literal)
{
    size_t pattern_at = 0, literal_at = 0;
    mir_view p, l;
    for (;;) {
        bool has_p = next_token(pattern, &pattern_at, &p);
        bool has_l = next_token(literal, &literal_at, &l);
        if (!has_p || !has_l) return has_p == has_l;
        if (is_rest(p)) return true;
        if (!is_star(p) && !mir_view_eq(p, l)) return false;
    }
}

bool mir_nats_subset(mir_view inner, mir_view outer)
{
    size_t inner_at = 0, outer_at = 0;
    mir_view i = {0}, o = {0}; /* gcc does not see at -O2 that both are set before use */
    for (;;) {
        bool has_i = next_token(inner, &inner_at, &i);
        bool has_o = next_token(outer, &outer_at, &o);
        if (!has_i || !has_o) return has_i == has_o;
        if (is_rest(o)) return true;
        if (is_rest(i)) return false;
        if (is_star(o)) continue;
        if (is_star(i) || !mir_view_eq(i, o)) return false;
    }
}

bool mir_nats_overlap(mir_view a, mir_view b)
{
    size_t a_at = 0, b_at = 0;
    mir_view x = {0}, y = {0};
    for (;;) {
        bool has_x = next_token(a, &a_at, &x);
        bool has_y = next_token(b, &b_at, &y);
        if (!has_x || !has_y) return has_x == has_y;
        if (is_rest(x) || is_rest(y)) return true;
        if (!is_star(x) && !is_star(y) && !mir_view_eq(x, y)) return false;
    }
}

unsigned mir_nats_token_count(mir_view subject)
{
    unsigned count = 0;
    size_t at = 0;
    mir_view token;
    while (next_token(subject, &at, &token)) count++;
    return count;
}

mir_view mir_nats_token(mir_view subject, unsigned n)
{
    size_t at = 0;
    mir_view token;
    while (next_token(subject, &at, &token))
        if (n-- == 0) return token;
    return (mir_view){NULL, 0};
}

size_t mir_nats_put_number(uint8_t *to, uint64_t value)
{
    uint8_t digits[20];
    size_t count = 0;
    do {
        digits[count++] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    for (size_t i = 0; i < count; i++) to[i] = digits[count - 1 - i];
    return count;
}
