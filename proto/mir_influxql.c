/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_influxql.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "mir_clock.h"
#include "mir_timestamp.h"

enum { SHOWN_BYTES_MAX = 48, NUMBER_BYTES_MAX = 64 };

/* --- words ---------------------------------------------------------------------------------- */

typedef enum token_kind {
    TOKEN_END = 0,
    TOKEN_WORD,   /* without quotes: a keyword or a name */
    TOKEN_QUOTED, /* "name" */
    TOKEN_STRING, /* 'text' */
    TOKEN_INTEGER,
    TOKEN_NUMBER,
    TOKEN_DURATION,
    TOKEN_SIGN, /* one or two characters, in `sign` */
    TOKEN_BAD,  /* says why in the error */
} token_kind;

typedef struct token {
    token_kind kind;
    size_t at, end;
    mir_view text; /* unescaped */
    char sign[3];
    int64_t integer; /* also of a duration */
    double number;
} token;

typedef struct parser {
    mir_view text;
    mir_arena *arena;
    mir_error *error;
    int64_t now_ns;
    token token; /* the one that is looked at */
    unsigned depth;
    unsigned terms;
    unsigned conditions;
    mir_status status; /* the first failure */
} parser;

static bool failed(const parser *p)
{
    return p->status != MIR_OK;
}

static void fail(parser *p, mir_status status, const char *text)
{
    if (failed(p)) return;
    p->status = mir_error_set(p->error, status, "%s", text);
}

static void no_memory(parser *p)
{
    fail(p, MIR_E_NO_MEMORY, "the query needs more memory than it may have: make it shorter");
}

static void *take(parser *p, size_t size)
{
    void *memory = mir_arena_alloc(p->arena, size);
    if (memory == NULL) no_memory(p);
    return memory;
}

static void place_of(const parser *p, size_t at, unsigned *line, unsigned *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at && i < p->text.size; i++) {
        if (p->text.data[i] == '\n') {
            ++*line;
            *column = 1;
        } else {
            ++*column;
        }
    }
}

/* What stands at the token, printable. */
static void show(const parser *p, char *shown, size_t size)
{
    if (p->token.kind == TOKEN_END) {
        (void)snprintf(shown, size, "EOF");
        return;
    }
    size_t used = 0;
    for (size_t i = p->token.at; i < p->token.end && used + 1 < size; i++) {
        const uint8_t byte = p->text.data[i];
        shown[used++] = byte >= 0x20 && byte < 0x7f ? (char)byte : '?';
    }
    shown[used] = '\0';
}

static void expected(parser *p, const char *what)
{
    if (failed(p)) return;
    char shown[SHOWN_BYTES_MAX];
    unsigned line, column;
    show(p, shown, sizeof shown);
    place_of(p, p->token.at, &line, &column);
    p->status = mir_error_set(p->error, MIR_E_INVALID, "found %s, expected %s at line %u, char %u",
                              shown, what, line, column);
}

static void unsupported(parser *p, const char *what)
{
    if (failed(p)) return;
    unsigned line, column;
    place_of(p, p->token.at, &line, &column);
    p->status =
        mir_error_set(p->error, MIR_E_UNSUPPORTED, "%s (line %u, char %u)", what, line, column);
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static bool is_letter(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_';
}

static int peek_byte(const parser *p, size_t at)
{
    return at < p->text.size ? p->text.data[at] : -1;
}

static void bad_token(parser *p, size_t at, const char *what)
{
    if (!failed(p)) {
        unsigned line, column;
        place_of(p, at, &line, &column);
        p->status =
            mir_error_set(p->error, MIR_E_INVALID, "%s at line %u, char %u", what, line, column);
    }
    p->token.kind = TOKEN_BAD;
    p->token.end = p->text.size;
}

static size_t skip_blanks(parser *p, size_t at)
{
    for (;;) {
        const int byte = peek_byte(p, at);
        if (byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r') {
            at++;
        } else if (byte == '-' && peek_byte(p, at + 1) == '-') {
            while (at < p->text.size && p->text.data[at] != '\n') at++;
        } else if (byte == '/' && peek_byte(p, at + 1) == '*') {
            const size_t start = at;
            at += 2;
            while (at < p->text.size && !(p->text.data[at] == '*' && peek_byte(p, at + 1) == '/'))
                at++;
            if (at >= p->text.size) {
                bad_token(p, start, "a comment does not end");
                return p->text.size;
            }
            at += 2;
        } else {
            return at;
        }
    }
}

/* 'text' or "name", with \n, \\ and the quote behind a backslash. */
static void read_quoted(parser *p, uint8_t quote)
{
    token *t = &p->token;
    size_t at = t->at + 1;
    bool escaped = false;
    while (at < p->text.size && p->text.data[at] != quote && p->text.data[at] != '\n') {
        if (p->text.data[at] == '\\' && at + 1 < p->text.size) {
            escaped = true;
            at++;
        }
        at++;
    }
    if (at >= p->text.size || p->text.data[at] != quote) {
        bad_token(p, t->at,
                  quote == '"' ? "a name in double quotes does not end"
                               : "a text in single quotes does not end");
        return;
    }
    t->kind = quote == '"' ? TOKEN_QUOTED : TOKEN_STRING;
    t->end = at + 1;
    t->text = mir_view_of(p->text.data + t->at + 1, at - t->at - 1);
    if (!escaped) return;
    uint8_t *copy = take(p, t->text.size);
    if (copy == NULL) return;
    size_t used = 0;
    for (size_t i = 0; i < t->text.size; i++) {
        uint8_t byte = t->text.data[i];
        if (byte == '\\') {
            byte = t->text.data[++i];
            if (byte == 'n') {
                byte = '\n';
            } else if (byte != '\\' && byte != '"' && byte != '\'') {
                bad_token(p, t->at, "only \\n, \\\\, \\' and \\\" may stand behind a backslash");
                return;
            }
        }
        copy[used++] = byte;
    }
    t->text = mir_view_of(copy, used);
}

static const struct {
    const char *name;
    int64_t length_ns;
} units[] = {
    {"ns", 1},
    {"u", MIR_NS_PER_US},
    {"us", MIR_NS_PER_US},
    {"\xc2\xb5", MIR_NS_PER_US},
    {"\xc2\xb5s", MIR_NS_PER_US},
    {"ms", MIR_NS_PER_MS},
    {"s", MIR_NS_PER_S},
    {"m", 60 * MIR_NS_PER_S},
    {"h", 3600 * MIR_NS_PER_S},
    {"d", 24 * 3600 * MIR_NS_PER_S},
    {"w", 7 * 24 * 3600 * MIR_NS_PER_S},
};

static bool is_unit_byte(int byte)
{
    return (byte >= 'a' && byte <= 'z') || byte == 0xc2 || byte == 0xb5;
}

/* 1h30m: the first number and its unit are at `at`. */
static void read_duration(parser *p, size_t at)
{
    token *t = &p->token;
    t->kind = TOKEN_DURATION;
    int64_t total_ns = 0;
    while (is_digit((uint8_t)(peek_byte(p, at) < 0 ? 0 : peek_byte(p, at)))) {
        int64_t number = 0, part_ns = 0;
        bool fits = true;
        for (; at < p->text.size && is_digit(p->text.data[at]); at++)
            fits = fits && !__builtin_mul_overflow(number, 10, &number) &&
                   !__builtin_add_overflow(number, p->text.data[at] - '0', &number);
        const size_t start = at;
        while (is_unit_byte(peek_byte(p, at))) at++;
        const mir_view unit = mir_view_of(p->text.data + start, at - start);
        size_t i = 0;
        while (i < sizeof units / sizeof units[0] && !mir_view_eq_cstr(unit, units[i].name)) i++;
        if (i == sizeof units / sizeof units[0]) {
            bad_token(p, t->at, "a duration takes the units ns, u, ms, s, m, h, d and w");
            return;
        }
        if (!fits || __builtin_mul_overflow(number, units[i].length_ns, &part_ns) ||
            __builtin_add_overflow(total_ns, part_ns, &total_ns)) {
            bad_token(p, t->at, "a duration is longer than 292 years");
            return;
        }
    }
    t->end = at;
    t->integer = total_ns;
}

static void read_number(parser *p)
{
    token *t = &p->token;
    size_t at = t->at;
    bool whole = true;
    while (at < p->text.size && is_digit(p->text.data[at])) at++;
    if (is_unit_byte(peek_byte(p, at))) {
        read_duration(p, t->at);
        return;
    }
    if (peek_byte(p, at) == '.' &&
        is_digit((uint8_t)(at + 1 < p->text.size ? p->text.data[at + 1] : 0))) {
        whole = false;
        at++;
        while (at < p->text.size && is_digit(p->text.data[at])) at++;
    }
    char digits[NUMBER_BYTES_MAX];
    if (at - t->at >= sizeof digits) {
        bad_token(p, t->at, "a number is too long");
        return;
    }
    memcpy(digits, p->text.data + t->at, at - t->at);
    digits[at - t->at] = '\0';
    t->end = at;
    errno = 0;
    t->number = strtod(digits, NULL);
    t->kind = TOKEN_NUMBER;
    if (!whole) return;
    errno = 0;
    t->integer = strtoll(digits, NULL, 10);
    if (errno == 0) t->kind = TOKEN_INTEGER;
}

static void read_sign(parser *p, int byte)
{
    token *t = &p->token;
    const int next = peek_byte(p, t->at + 1);
    static const char pairs[][3] = {"!=", "<>", "<=", ">=", "=~", "!~", "::"};
    t->kind = TOKEN_SIGN;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (byte != pairs[i][0] || next != pairs[i][1]) continue;
        memcpy(t->sign, pairs[i], 3);
        t->end = t->at + 2;
        return;
    }
    t->end = t->at + 1;
    t->sign[0] = (char)byte;
    if (byte == 0 || strchr("(),;.+-*/%=<>", byte) == NULL)
        bad_token(p, t->at,
                  byte == '$' ? "parameters ($name) are not supported: write the value in its place"
                              : "a character that belongs to no query");
}

static void next(parser *p)
{
    token *t = &p->token;
    if (failed(p)) return;
    const size_t at = skip_blanks(p, t->end);
    if (failed(p)) return;
    *t = (token){.at = at, .end = at};
    const int byte = peek_byte(p, at);
    if (byte < 0) return;
    if (is_letter((uint8_t)byte)) {
        while (t->end < p->text.size &&
               (is_letter(p->text.data[t->end]) || is_digit(p->text.data[t->end])))
            t->end++;
        t->kind = TOKEN_WORD;
        t->text = mir_view_of(p->text.data + at, t->end - at);
    } else if (byte == '"' || byte == '\'') {
        read_quoted(p, (uint8_t)byte);
    } else if (is_digit((uint8_t)byte)) {
        read_number(p);
    } else {
        read_sign(p, byte);
    }
}

static bool is_sign(const parser *p, const char *sign)
{
    return !failed(p) && p->token.kind == TOKEN_SIGN && strcmp(p->token.sign, sign) == 0;
}

static bool accept_sign(parser *p, const char *sign)
{
    if (!is_sign(p, sign)) return false;
    next(p);
    return true;
}

static void want_sign(parser *p, const char *sign)
{
    if (!accept_sign(p, sign)) expected(p, sign);
}

static bool is_word(const parser *p, const char *word)
{
    return !failed(p) && p->token.kind == TOKEN_WORD && strlen(word) == p->token.text.size &&
           strncasecmp((const char *)p->token.text.data, word, p->token.text.size) == 0;
}

static bool accept_word(parser *p, const char *word)
{
    if (!is_word(p, word)) return false;
    next(p);
    return true;
}

static void want_word(parser *p, const char *word)
{
    if (!accept_word(p, word)) expected(p, word);
}

static const char *const keywords[] = {
    "ALL",     "AND",   "AS",   "ASC",    "BY",   "DESC",   "FROM",   "GROUP", "IN",
    "INTO",    "LIMIT", "ON",   "OFFSET", "OR",   "ORDER",  "SELECT", "SHOW",  "SLIMIT",
    "SOFFSET", "WHERE", "WITH", "KEY",    "KEYS", "VALUES", "FIELD",  "TAG",
};

static bool is_name(const parser *p)
{
    if (failed(p)) return false;
    if (p->token.kind == TOKEN_QUOTED) return true;
    if (p->token.kind != TOKEN_WORD) return false;
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        if (is_word(p, keywords[i])) return false;
    return true;
}

static mir_view want_name(parser *p)
{
    if (!is_name(p)) {
        expected(p, "a name (in double quotes)");
        return (mir_view){0};
    }
    mir_view name = p->token.text;
    next(p);
    return name;
}

static bool is_pattern(const parser *p)
{
    return is_sign(p, "/");
}

/* /pattern/: its slash is the token. */
static mir_view want_pattern(parser *p)
{
    token *t = &p->token;
    if (!is_pattern(p)) {
        expected(p, "a regular expression between slashes");
        return (mir_view){0};
    }
    size_t at = t->at + 1;
    bool escaped = false;
    while (at < p->text.size && p->text.data[at] != '/' && p->text.data[at] != '\n') {
        if (p->text.data[at] == '\\' && peek_byte(p, at + 1) == '/') {
            escaped = true;
            at++;
        }
        at++;
    }
    if (peek_byte(p, at) != '/') {
        bad_token(p, t->at, "a regular expression does not end");
        return (mir_view){0};
    }
    mir_view pattern = mir_view_of(p->text.data + t->at + 1, at - t->at - 1);
    if (escaped) {
        uint8_t *copy = take(p, pattern.size);
        size_t used = 0;
        if (copy == NULL) return (mir_view){0};
        for (size_t i = 0; i < pattern.size; i++) {
            if (pattern.data[i] == '\\' && i + 1 < pattern.size && pattern.data[i + 1] == '/') i++;
            copy[used++] = pattern.data[i];
        }
        pattern = mir_view_of(copy, used);
    }
    t->end = at + 1;
    next(p);
    return pattern;
}

static void deeper(parser *p)
{
    if (++p->depth > MIR_INFLUXQL_DEPTH_MAX)
        fail(p, MIR_E_TOO_LARGE, "parentheses and calls are nested more than 32 deep");
}

/* `"a"`, `a.b`: bare words joined by dots are one name. */
static mir_view want_dotted(parser *p)
{
    mir_view name = want_name(p);
    while (is_sign(p, ".")) {
        next(p);
        const mir_view more = want_name(p);
        if (failed(p)) return name;
        uint8_t *joined = take(p, name.size + 1 + more.size);
        if (joined == NULL) return name;
        if (name.size != 0) memcpy(joined, name.data, name.size);
        joined[name.size] = '.';
        if (more.size != 0) memcpy(joined + name.size + 1, more.data, more.size);
        name = mir_view_of(joined, name.size + 1 + more.size);
    }
    return name;
}

/* ::tag and ::field say what a name is. */
static mir_influxql_cast read_cast(parser *p)
{
    if (!accept_sign(p, "::")) return MIR_INFLUXQL_EITHER;
    if (accept_word(p, "tag")) return MIR_INFLUXQL_AS_TAG;
    if (accept_word(p, "field")) return MIR_INFLUXQL_AS_FIELD;
    if (is_word(p, "float") || is_word(p, "integer") || is_word(p, "unsigned") ||
        is_word(p, "string") || is_word(p, "boolean"))
        unsupported(p, "casts are not supported: leave out what follows the ::, values come with "
                       "the type that they have");
    else
        expected(p, "tag or field");
    return MIR_INFLUXQL_EITHER;
}

/* --- FROM ------------------------------------------------------------------------------------ */

/* "name", "policy"."name", "database"."policy"."name", "database".."name", or a pattern last. */
static mir_influxql_source read_source(parser *p)
{
    mir_influxql_source source = {0};
    if (is_sign(p, "(")) {
        unsupported(p, "subqueries are not supported: query the measurement itself");
        return source;
    }
    mir_view parts[3] = {{0}};
    unsigned count = 0;
    for (;;) {
        if (is_pattern(p)) {
            source.name.is_pattern = true;
            parts[count++] = want_pattern(p);
            break;
        }
        if (count == 1 && is_sign(p, "."))
            parts[count++] = (mir_view){0};
        else
            parts[count++] = want_name(p);
        if (failed(p) || count == 3 || !accept_sign(p, ".")) break;
    }
    if (is_sign(p, ".") && !failed(p))
        expected(p, "the end of the measurement; a name with dots stands in double quotes");
    source.name.text = parts[count - 1];
    if (count > 1) source.policy = parts[count - 2];
    if (count > 2) source.database = parts[0];
    return source;
}

static void read_sources(parser *p, mir_influxql_statement *statement)
{
    mir_influxql_source *sources = take(p, MIR_INFLUXQL_SOURCES_MAX * sizeof *sources);
    if (sources == NULL) return;
    do {
        if (statement->source_count == MIR_INFLUXQL_SOURCES_MAX) {
            fail(p, MIR_E_TOO_LARGE, "more than 64 measurements: name them by a pattern");
            return;
        }
        sources[statement->source_count++] = read_source(p);
    } while (accept_sign(p, ","));
    statement->sources = sources;
}

/* --- WHERE ----------------------------------------------------------------------------------- */

static int64_t clamped(__int128 ns)
{
    if (ns > INT64_MAX) return INT64_MAX;
    return ns < INT64_MIN ? INT64_MIN : (int64_t)ns;
}

/* RFC 3339, or a date, or a date and a time in UTC. */
static bool parse_time(mir_view text, int64_t *time_ns)
{
    char full[MIR_CLOCK_TEXT_BYTES + 16];
    int64_t seconds;
    int32_t nanos;
    if (text.size == 0 || text.size > MIR_CLOCK_TEXT_BYTES) return false;
    if (mir_timestamp_parse(text, &seconds, &nanos) != MIR_OK) {
        const int size = snprintf(full, sizeof full, "%.*s%s", MIR_VIEW_ARGS(text),
                                  text.size == 10 ? "T00:00:00Z" : "Z");
        if (mir_timestamp_parse(mir_view_of(full, (size_t)size), &seconds, &nanos) != MIR_OK)
            return false;
    }
    *time_ns = clamped((__int128)seconds * MIR_NS_PER_S + nanos);
    return true;
}

static int64_t want_duration(parser *p)
{
    int64_t ns = 0;
    if (p->token.kind == TOKEN_DURATION)
        ns = p->token.integer;
    else
        expected(p, "a duration such as 10s");
    next(p);
    return ns;
}

static void accept_call_of_nothing(parser *p)
{
    next(p);
    want_sign(p, "(");
    want_sign(p, ")");
}

/* now() - 1h, '2026-01-02T03:04:05Z', 1700000000000ms, 1700000000000000000 */
static int64_t want_time(parser *p)
{
    __int128 time_ns = 0;
    const bool negative = accept_sign(p, "-");
    if (is_word(p, "now")) {
        if (negative) expected(p, "a time");
        accept_call_of_nothing(p);
        time_ns = p->now_ns;
    } else if (!failed(p) && p->token.kind == TOKEN_STRING && !negative) {
        int64_t ns = 0;
        if (!parse_time(p->token.text, &ns)) expected(p, "a time such as '2026-01-02T03:04:05Z'");
        time_ns = ns;
        next(p);
    } else if (!failed(p) && (p->token.kind == TOKEN_INTEGER || p->token.kind == TOKEN_DURATION)) {
        time_ns = negative ? -(__int128)p->token.integer : p->token.integer;
        next(p);
    } else {
        expected(p, "a time: now() - 1h, '2026-01-02T03:04:05Z', 1700000000000ms or nanoseconds");
    }
    while (is_sign(p, "+") || is_sign(p, "-")) {
        const bool minus = is_sign(p, "-");
        next(p);
        const int64_t ns = want_duration(p);
        if (failed(p)) return 0;
        time_ns = clamped(minus ? time_ns - ns : time_ns + ns);
    }
    return clamped(time_ns);
}

static mir_influxql_condition *new_condition(parser *p, mir_influxql_logic kind)
{
    if (++p->conditions > MIR_INFLUXQL_CONDITIONS_MAX) {
        fail(p, MIR_E_TOO_LARGE, "more than 8192 conditions: use a regular expression");
        return NULL;
    }
    mir_influxql_condition *made = take(p, sizeof *made);
    if (made == NULL) return NULL;
    made->kind = kind;
    made->from_ns = INT64_MIN;
    made->to_ns = INT64_MAX;
    return made;
}

static mir_influxql_condition *read_time_condition(parser *p)
{
    char sign[3] = "";
    if (!failed(p) && p->token.kind == TOKEN_SIGN) memcpy(sign, p->token.sign, sizeof sign);
    if (strcmp(sign, "=") != 0 && sign[0] != '<' && sign[0] != '>') {
        expected(p, "=, <, <=, > or >= behind time");
        return NULL;
    }
    if (strcmp(sign, "<>") == 0) {
        unsupported(p, "time <> is not supported: use < and > with two statements");
        return NULL;
    }
    next(p);
    const int64_t time_ns = want_time(p);
    mir_influxql_condition *made = new_condition(p, MIR_INFLUXQL_TIME);
    if (made == NULL) return NULL;
    if (sign[0] == '=') {
        made->from_ns = made->to_ns = time_ns;
    } else if (sign[0] == '<') {
        made->to_ns = clamped((__int128)time_ns - (sign[1] == '=' ? 0 : 1));
        if (sign[1] != '=' && time_ns == INT64_MIN) made->from_ns = INT64_MAX; /* none at all */
    } else {
        made->from_ns = clamped((__int128)time_ns + (sign[1] == '=' ? 0 : 1));
        if (sign[1] != '=' && time_ns == INT64_MAX) made->to_ns = INT64_MIN;
    }
    return made;
}

static const char on_fields[] =
    "conditions on the values of fields are not supported: WHERE takes time and tags, which are "
    "__id, __name, __namespace and the devices' labels, compared with =, != <> and 'text', or =~ "
    "!~ and /pattern/";

static mir_influxql_condition *read_comparison(parser *p)
{
    if (!failed(p) && !is_name(p)) {
        expected(p, "time or the name of a tag (in double quotes)");
        return NULL;
    }
    const mir_view key = want_dotted(p);
    if (failed(p)) return NULL;
    if (mir_view_eq_cstr(key, "time")) return read_time_condition(p);
    if (read_cast(p) == MIR_INFLUXQL_AS_FIELD) {
        unsupported(p, on_fields);
        return NULL;
    }
    mir_influxql_condition *made = new_condition(p, MIR_INFLUXQL_TAG);
    if (made == NULL) return NULL;
    made->key = key;
    if (is_sign(p, "="))
        made->compare = MIR_INFLUXQL_EQUAL;
    else if (is_sign(p, "!=") || is_sign(p, "<>"))
        made->compare = MIR_INFLUXQL_DIFFERENT;
    else if (is_sign(p, "=~"))
        made->compare = MIR_INFLUXQL_MATCHES;
    else if (is_sign(p, "!~"))
        made->compare = MIR_INFLUXQL_MATCHES_NOT;
    else if (is_sign(p, "<") || is_sign(p, "<=") || is_sign(p, ">") || is_sign(p, ">="))
        unsupported(p, on_fields);
    else
        expected(p, "=, !=, =~ or !~");
    next(p);
    if (made->compare >= MIR_INFLUXQL_MATCHES) {
        made->value = want_pattern(p);
    } else if (!failed(p) && p->token.kind == TOKEN_STRING) {
        made->value = p->token.text;
        next(p);
    } else if (!failed(p) && (p->token.kind == TOKEN_INTEGER || p->token.kind == TOKEN_NUMBER ||
                              is_sign(p, "-") || is_word(p, "true") || is_word(p, "false"))) {
        unsupported(p, on_fields);
    } else {
        expected(p, "a text in single quotes");
    }
    return failed(p) ? NULL : made;
}

static mir_influxql_condition *read_condition(parser *p);

static mir_influxql_condition *read_primary(parser *p)
{
    if (!accept_sign(p, "(")) return read_comparison(p);
    deeper(p);
    mir_influxql_condition *inside = read_condition(p);
    p->depth--;
    want_sign(p, ")");
    return failed(p) ? NULL : inside;
}

/* One or more of what `read` reads, with a word between them. */
static mir_influxql_condition *read_list(parser *p, const char *word, mir_influxql_logic kind,
                                         mir_influxql_condition *(*read)(parser *p))
{
    mir_influxql_condition *only = read(p);
    if (failed(p) || !is_word(p, word)) return only;
    mir_influxql_condition *all = new_condition(p, kind);
    if (all == NULL) return NULL;
    all->first = only;
    mir_influxql_condition *last = only;
    while (accept_word(p, word)) {
        last->next = read(p);
        if (failed(p)) return NULL;
        last = last->next;
    }
    return all;
}

static mir_influxql_condition *read_conjunction(parser *p)
{
    return read_list(p, "AND", MIR_INFLUXQL_AND, read_primary);
}

static mir_influxql_condition *read_condition(parser *p)
{
    return read_list(p, "OR", MIR_INFLUXQL_OR, read_conjunction);
}

static bool mentions_time(const mir_influxql_condition *condition)
{
    if (condition->kind == MIR_INFLUXQL_TIME) return true;
    for (const mir_influxql_condition *child = condition->first; child != NULL; child = child->next)
        if (mentions_time(child)) return true;
    return false;
}

/* Moves what is said of the time into the statement; what is left, or null. */
static mir_influxql_condition *split_time(parser *p, mir_influxql_condition *condition,
                                          mir_influxql_statement *statement)
{
    if (condition->kind == MIR_INFLUXQL_TIME) {
        if (condition->from_ns > statement->from_ns) statement->from_ns = condition->from_ns;
        if (condition->to_ns < statement->to_ns) statement->to_ns = condition->to_ns;
        return NULL;
    }
    if (condition->kind == MIR_INFLUXQL_OR && mentions_time(condition))
        unsupported(p, "time within OR is not supported: use two statements with ; between them");
    if (condition->kind != MIR_INFLUXQL_AND) return condition;
    mir_influxql_condition **link = &condition->first;
    for (mir_influxql_condition *child = condition->first, *after; child != NULL; child = after) {
        after = child->next;
        mir_influxql_condition *left = split_time(p, child, statement);
        if (left == NULL) continue;
        *link = left;
        link = &left->next;
    }
    *link = NULL;
    if (condition->first == NULL || condition->first->next == NULL) return condition->first;
    return condition;
}

static void read_where(parser *p, mir_influxql_statement *statement)
{
    if (!accept_word(p, "WHERE")) return;
    p->conditions = 0;
    mir_influxql_condition *condition = read_condition(p);
    if (!failed(p)) statement->condition = split_time(p, condition, statement);
}

/* --- what is selected ------------------------------------------------------------------------ */

typedef struct function_name {
    const char *name;
    mir_influxql_function function;
} function_name;

static const function_name functions[] = {
    {"mean", MIR_INFLUXQL_MEAN},
    {"min", MIR_INFLUXQL_MIN},
    {"max", MIR_INFLUXQL_MAX},
    {"sum", MIR_INFLUXQL_SUM},
    {"count", MIR_INFLUXQL_COUNT},
    {"first", MIR_INFLUXQL_FIRST},
    {"last", MIR_INFLUXQL_LAST},
    {"rate", MIR_INFLUXQL_RATE},
    {"percentile", MIR_INFLUXQL_PERCENTILE},
    {"spread", MIR_INFLUXQL_SPREAD},
    {"derivative", MIR_INFLUXQL_DERIVATIVE},
    {"non_negative_derivative", MIR_INFLUXQL_NON_NEGATIVE_DERIVATIVE},
    {"difference", MIR_INFLUXQL_DIFFERENCE},
    {"non_negative_difference", MIR_INFLUXQL_NON_NEGATIVE_DIFFERENCE},
    {"cumulative_sum", MIR_INFLUXQL_CUMULATIVE_SUM},
    {"moving_average", MIR_INFLUXQL_MOVING_AVERAGE},
};

bool mir_influxql_is_row_by_row(mir_influxql_function function)
{
    return function >= MIR_INFLUXQL_DERIVATIVE;
}

const char *mir_influxql_function_name(mir_influxql_function function)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (functions[i].function == function) return functions[i].name;
    return "";
}

static mir_influxql_expression *new_term(parser *p, mir_influxql_term kind)
{
    if (++p->terms > MIR_INFLUXQL_TERMS_MAX) {
        fail(p, MIR_E_TOO_LARGE, "more than 1024 names, numbers and signs in what is selected");
        return NULL;
    }
    mir_influxql_expression *made = take(p, sizeof *made);
    if (made != NULL) made->kind = kind;
    return made;
}

static mir_influxql_expression *read_sum(parser *p);

static void read_parameter(parser *p, mir_influxql_expression *call)
{
    const mir_influxql_function function = call->function;
    if (function == MIR_INFLUXQL_PERCENTILE || function == MIR_INFLUXQL_MOVING_AVERAGE) {
        want_sign(p, ",");
        if (!failed(p) && (p->token.kind == TOKEN_INTEGER ||
                           (p->token.kind == TOKEN_NUMBER && function == MIR_INFLUXQL_PERCENTILE)))
            call->number = p->token.number;
        else
            expected(p, function == MIR_INFLUXQL_PERCENTILE ? "a number from 0 to 100"
                                                            : "a whole number");
        if (function == MIR_INFLUXQL_PERCENTILE && !(call->number <= 100))
            expected(p, "a number from 0 to 100");
        if (function == MIR_INFLUXQL_MOVING_AVERAGE &&
            !(call->number >= 2 && call->number <= MIR_INFLUXQL_MOVING_AVERAGE_MAX))
            expected(p, "a whole number from 2 to 1000");
        next(p);
    } else if (function == MIR_INFLUXQL_DERIVATIVE ||
               function == MIR_INFLUXQL_NON_NEGATIVE_DERIVATIVE) {
        if (!accept_sign(p, ",")) return;
        call->unit_ns = want_duration(p);
        if (!failed(p) && call->unit_ns == 0) expected(p, "a duration longer than nothing");
    }
}

static bool is_plain(const mir_influxql_expression *term)
{
    return term->kind == MIR_INFLUXQL_NAME || term->kind == MIR_INFLUXQL_ALL;
}

static mir_influxql_expression *read_call(parser *p, mir_view name)
{
    mir_influxql_expression *call = new_term(p, MIR_INFLUXQL_CALL);
    if (call == NULL) return NULL;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (strlen(functions[i].name) == name.size &&
            strncasecmp(functions[i].name, (const char *)name.data, name.size) == 0)
            call->function = functions[i].function;
    if (call->function == 0) {
        unsupported(p, "this function is not supported; there are mean, min, max, sum, count, "
                       "first, last, spread, percentile(field, n), rate, derivative, difference, "
                       "their non_negative forms, cumulative_sum and moving_average(field, n)");
        return NULL;
    }
    next(p);
    deeper(p);
    const bool by_row = mir_influxql_is_row_by_row(call->function);
    if (is_pattern(p)) unsupported(p, "a function of a pattern is not supported: use * or names");
    if (is_word(p, "distinct")) unsupported(p, "distinct is not supported");
    if (accept_sign(p, "*")) {
        call->left = new_term(p, MIR_INFLUXQL_ALL);
        if (call->left != NULL) call->left->cast = read_cast(p);
    } else {
        call->left = read_sum(p);
    }
    p->depth--;
    if (failed(p)) return NULL;
    const mir_influxql_expression *of = call->left;
    const bool of_function = of->kind == MIR_INFLUXQL_CALL && by_row &&
                             !mir_influxql_is_row_by_row(of->function) &&
                             of->left->kind == MIR_INFLUXQL_NAME;
    if (by_row && of->kind == MIR_INFLUXQL_ALL)
        unsupported(p, "this function of * is not supported: name the field");
    else if (of->cast == MIR_INFLUXQL_AS_TAG)
        unsupported(p, "functions take fields, not tags");
    else if (!is_plain(of) && !of_function)
        unsupported(p, by_row ? "this function takes a field, or a function of a field such as "
                                "mean(\"f\")"
                              : "this function takes the name of a field");
    read_parameter(p, call);
    want_sign(p, ")");
    return failed(p) ? NULL : call;
}

static mir_influxql_expression *read_factor(parser *p)
{
    mir_influxql_expression *made = NULL;
    if (accept_sign(p, "(")) {
        deeper(p);
        made = read_sum(p);
        p->depth--;
        want_sign(p, ")");
    } else if (is_sign(p, "-") || is_sign(p, "+")) {
        const bool minus = is_sign(p, "-");
        next(p);
        deeper(p);
        mir_influxql_expression *of = read_factor(p);
        p->depth--;
        if (!minus || failed(p)) return failed(p) ? NULL : of;
        made = new_term(p, MIR_INFLUXQL_SIGN);
        mir_influxql_expression *factor = new_term(p, MIR_INFLUXQL_INTEGER);
        if (made == NULL || factor == NULL) return NULL;
        factor->integer = -1;
        factor->number = -1;
        made->sign = '*';
        made->left = factor;
        made->right = of;
    } else if (!failed(p) && (p->token.kind == TOKEN_INTEGER || p->token.kind == TOKEN_NUMBER)) {
        made = new_term(p, p->token.kind == TOKEN_INTEGER ? MIR_INFLUXQL_INTEGER
                                                          : MIR_INFLUXQL_NUMBER);
        if (made == NULL) return NULL;
        made->integer = p->token.integer;
        made->number = p->token.number;
        next(p);
    } else if (is_pattern(p)) {
        unsupported(p, "a pattern of fields is not supported: use * or names");
    } else if (is_name(p)) {
        const bool bare = p->token.kind == TOKEN_WORD;
        const mir_view name = want_dotted(p);
        if (bare && is_sign(p, "(")) return read_call(p, name);
        made = new_term(p, MIR_INFLUXQL_NAME);
        if (made == NULL) return NULL;
        made->name = name;
        made->cast = read_cast(p);
    } else {
        expected(p, "a field (in double quotes), a function or a number");
    }
    return failed(p) ? NULL : made;
}

static mir_influxql_expression *read_signs(parser *p, const char *signs,
                                           mir_influxql_expression *(*read)(parser *p))
{
    mir_influxql_expression *left = read(p);
    /* Each sign makes the tree one deeper. */
    unsigned taken = 0;
    while (!failed(p) && p->token.kind == TOKEN_SIGN && p->token.sign[1] == '\0' &&
           strchr(signs, p->token.sign[0]) != NULL) {
        mir_influxql_expression *made = new_term(p, MIR_INFLUXQL_SIGN);
        if (made == NULL) return NULL;
        deeper(p);
        taken++;
        made->sign = p->token.sign[0];
        next(p);
        made->left = left;
        made->right = read(p);
        left = made;
    }
    p->depth -= taken;
    return failed(p) ? NULL : left;
}

static mir_influxql_expression *read_product(parser *p)
{
    return read_signs(p, "*/%", read_factor);
}

static mir_influxql_expression *read_sum(parser *p)
{
    return read_signs(p, "+-", read_product);
}

typedef struct contents {
    bool names, functions, all, row_by_row;
} contents;

static void look_into(const mir_influxql_expression *term, contents *has)
{
    if (term == NULL) return;
    if (term->kind == MIR_INFLUXQL_NAME) has->names = true;
    if (term->kind == MIR_INFLUXQL_ALL) has->all = true;
    if (term->kind == MIR_INFLUXQL_CALL) {
        if (mir_influxql_is_row_by_row(term->function)) {
            has->row_by_row = true;
            look_into(term->left, has);
        } else {
            has->functions = true;
            if (term->left->kind == MIR_INFLUXQL_ALL) has->all = true;
        }
        return;
    }
    look_into(term->left, has);
    look_into(term->right, has);
}

static void read_field(parser *p, mir_influxql_field *field)
{
    if (accept_sign(p, "*")) {
        field->expression = new_term(p, MIR_INFLUXQL_ALL);
        if (field->expression != NULL) field->expression->cast = read_cast(p);
        return;
    }
    field->expression = read_sum(p);
    if (failed(p)) return;
    contents has = {0};
    look_into(field->expression, &has);
    if (has.all && field->expression->kind != MIR_INFLUXQL_CALL)
        unsupported(p, "* within a calculation is not supported: name the fields");
    else if (!has.names && !has.functions && !has.all)
        fail(p, MIR_E_INVALID, "a constant alone cannot be selected: name a field");
    if (accept_word(p, "AS")) field->alias = want_name(p);
}

static void read_fields(parser *p, mir_influxql_statement *statement)
{
    mir_influxql_field *fields = take(p, MIR_INFLUXQL_FIELDS_MAX * sizeof *fields);
    if (fields == NULL) return;
    contents has = {0};
    p->terms = 0;
    do {
        if (statement->field_count == MIR_INFLUXQL_FIELDS_MAX) {
            fail(p, MIR_E_TOO_LARGE, "more than 256 fields: use * or several statements");
            return;
        }
        mir_influxql_field *field = &fields[statement->field_count++];
        read_field(p, field);
        if (failed(p)) return;
        const mir_influxql_expression *term = field->expression;
        contents one = {0};
        look_into(term, &one);
        has.row_by_row = has.row_by_row || one.row_by_row;
        has.functions = has.functions || one.functions;
        has.names = has.names || one.names || (one.all && !one.functions);
    } while (accept_sign(p, ","));
    if (has.names && has.functions)
        unsupported(p,
                    "functions beside fields without one are not supported: give each field a "
                    "function, such as last(\"f\"), and group by tags instead of selecting them");
    statement->fields = fields;
    statement->aggregates = has.functions;
    statement->row_by_row = has.row_by_row;
}

/* --- GROUP BY and what follows --------------------------------------------------------------- */

static void read_windows(parser *p, mir_influxql_statement *statement)
{
    accept_sign(p, "(");
    if (statement->window_ns != 0) fail(p, MIR_E_INVALID, "time() is there twice in GROUP BY");
    statement->window_ns = (uint64_t)want_duration(p);
    if (!failed(p) && statement->window_ns == 0) expected(p, "an interval longer than nothing");
    if (accept_sign(p, ",")) {
        if (is_word(p, "now")) {
            accept_call_of_nothing(p);
            statement->window_from_ns = p->now_ns;
        } else {
            const bool minus = accept_sign(p, "-");
            const int64_t ns = want_duration(p);
            statement->window_from_ns = minus ? -ns : ns;
        }
        if (failed(p)) return;
        const int64_t window_ns = (int64_t)statement->window_ns;
        int64_t from_ns = statement->window_from_ns % window_ns;
        if (from_ns < 0) from_ns += window_ns;
        statement->window_from_ns = from_ns;
    }
    want_sign(p, ")");
}

static void read_group(parser *p, mir_influxql_statement *statement)
{
    if (!accept_word(p, "GROUP")) return;
    want_word(p, "BY");
    mir_influxql_name *dimensions = take(p, MIR_INFLUXQL_DIMENSIONS_MAX * sizeof *dimensions);
    if (dimensions == NULL) return;
    do {
        if (statement->dimension_count == MIR_INFLUXQL_DIMENSIONS_MAX) {
            fail(p, MIR_E_TOO_LARGE, "more than 64 tags in GROUP BY: use *");
            return;
        }
        if (accept_sign(p, "*")) {
            statement->group_by_all = true;
            (void)read_cast(p);
            continue;
        }
        mir_influxql_name *dimension = &dimensions[statement->dimension_count];
        if (is_pattern(p)) {
            dimension->is_pattern = true;
            dimension->text = want_pattern(p);
        } else {
            const bool bare = !failed(p) && p->token.kind == TOKEN_WORD;
            const bool is_time = bare && is_word(p, "time");
            dimension->text = want_dotted(p);
            if (bare && is_sign(p, "(")) {
                if (!is_time) unsupported(p, "time(interval) is the only call that GROUP BY takes");
                read_windows(p, statement);
                if (failed(p)) return;
                continue;
            }
            if (read_cast(p) == MIR_INFLUXQL_AS_FIELD)
                unsupported(p, "GROUP BY takes time() and tags, not fields");
        }
        if (failed(p)) return;
        statement->dimension_count++;
    } while (accept_sign(p, ","));
    statement->dimensions = dimensions;
}

static void read_fill(parser *p, mir_influxql_statement *statement)
{
    if (!accept_word(p, "FILL")) return;
    want_sign(p, "(");
    if (accept_word(p, "null")) {
        statement->fill = MIR_INFLUXQL_FILL_NULL;
    } else if (accept_word(p, "none")) {
        statement->fill = MIR_INFLUXQL_FILL_NONE;
    } else if (accept_word(p, "previous")) {
        statement->fill = MIR_INFLUXQL_FILL_PREVIOUS;
    } else if (accept_word(p, "linear")) {
        statement->fill = MIR_INFLUXQL_FILL_LINEAR;
    } else {
        const bool minus = accept_sign(p, "-");
        if (failed(p) || (p->token.kind != TOKEN_INTEGER && p->token.kind != TOKEN_NUMBER)) {
            expected(p, "null, none, previous, linear or a number");
            return;
        }
        statement->fill = MIR_INFLUXQL_FILL_NUMBER;
        statement->fill_number = minus ? -p->token.number : p->token.number;
        next(p);
    }
    want_sign(p, ")");
}

static void read_order(parser *p, mir_influxql_statement *statement)
{
    if (!accept_word(p, "ORDER")) return;
    want_word(p, "BY");
    if (!failed(p) && p->token.kind != TOKEN_END && !is_word(p, "ASC") && !is_word(p, "DESC")) {
        const mir_view name = want_name(p);
        if (!failed(p) && !mir_view_eq_cstr(name, "time"))
            unsupported(p, "only ORDER BY time is supported");
    }
    if (accept_word(p, "DESC"))
        statement->descending = true;
    else
        (void)accept_word(p, "ASC");
}

static void read_count(parser *p, const char *word, uint64_t *count)
{
    if (!accept_word(p, word)) return;
    if (!failed(p) && p->token.kind == TOKEN_INTEGER)
        *count = (uint64_t)p->token.integer;
    else
        expected(p, "a whole number");
    next(p);
}

static void read_counts(parser *p, mir_influxql_statement *statement)
{
    read_count(p, "LIMIT", &statement->limit);
    read_count(p, "OFFSET", &statement->offset);
    read_count(p, "SLIMIT", &statement->series_limit);
    read_count(p, "SOFFSET", &statement->series_offset);
}

static void read_zone(parser *p)
{
    if (!accept_word(p, "TZ")) return;
    want_sign(p, "(");
    static const char *const utc[] = {"", "UTC", "Etc/UTC", "GMT", "Etc/GMT", "Z"};
    bool known = false;
    if (!failed(p) && p->token.kind == TOKEN_STRING) {
        for (size_t i = 0; i < sizeof utc / sizeof utc[0]; i++)
            known = known || mir_view_eq_cstr(p->token.text, utc[i]);
        if (!known)
            unsupported(p, "time zones other than UTC are not supported: leave tz() out, and begin "
                           "windows elsewhere with GROUP BY time(1d, -2h)");
    } else {
        expected(p, "a time zone in single quotes");
    }
    next(p);
    want_sign(p, ")");
}

static void read_select(parser *p, mir_influxql_statement *statement)
{
    statement->kind = MIR_INFLUXQL_SELECT;
    read_fields(p, statement);
    if (is_word(p, "INTO"))
        unsupported(p, "INTO is not supported: nothing is written here, devices publish telemetry");
    want_word(p, "FROM");
    if (failed(p)) return;
    read_sources(p, statement);
    read_where(p, statement);
    read_group(p, statement);
    if (!failed(p) && statement->window_ns != 0 && !statement->aggregates)
        fail(p, MIR_E_INVALID, "GROUP BY time() needs functions, such as mean(\"f\")");
    read_fill(p, statement);
    read_order(p, statement);
    read_counts(p, statement);
    read_zone(p);
}

/* --- SHOW ------------------------------------------------------------------------------------ */

static void read_on(parser *p, mir_influxql_statement *statement)
{
    if (accept_word(p, "ON")) statement->database = want_name(p);
}

static void read_with_measurement(parser *p, mir_influxql_statement *statement)
{
    if (!accept_word(p, "WITH")) return;
    want_word(p, "MEASUREMENT");
    mir_influxql_source *source = take(p, sizeof *source);
    if (source == NULL || failed(p)) return;
    const bool pattern = is_sign(p, "=~");
    if (!pattern && !is_sign(p, "=")) {
        expected(p, "= or =~");
        return;
    }
    next(p);
    if (is_pattern(p) != pattern) {
        expected(p, pattern ? "a regular expression between slashes" : "a measurement");
        return;
    }
    *source = read_source(p);
    statement->sources = source;
    statement->source_count = 1;
}

static void read_with_key(parser *p, mir_influxql_statement *statement)
{
    want_word(p, "WITH");
    want_word(p, "KEY");
    if (failed(p)) return;
    mir_view *keys = take(p, MIR_INFLUXQL_KEYS_MAX * sizeof *keys);
    if (keys == NULL) return;
    statement->keys = keys;
    statement->key_compare = MIR_INFLUXQL_EQUAL;
    if (accept_word(p, "IN")) {
        want_sign(p, "(");
        do {
            if (statement->key_count == MIR_INFLUXQL_KEYS_MAX) {
                fail(p, MIR_E_TOO_LARGE, "more than 256 keys: use WITH KEY =~ /pattern/");
                return;
            }
            keys[statement->key_count++] = want_name(p);
        } while (accept_sign(p, ","));
        want_sign(p, ")");
        return;
    }
    if (is_sign(p, "!=") || is_sign(p, "<>"))
        statement->key_compare = MIR_INFLUXQL_DIFFERENT;
    else if (is_sign(p, "=~"))
        statement->key_compare = MIR_INFLUXQL_MATCHES;
    else if (is_sign(p, "!~"))
        statement->key_compare = MIR_INFLUXQL_MATCHES_NOT;
    else if (!is_sign(p, "="))
        expected(p, "=, !=, =~, !~ or IN");
    next(p);
    statement->key_count = 1;
    keys[0] = statement->key_compare >= MIR_INFLUXQL_MATCHES ? want_pattern(p) : want_name(p);
}

static void read_show_rest(parser *p, mir_influxql_statement *statement)
{
    if (is_word(p, "CARDINALITY") || is_word(p, "EXACT")) {
        unsupported(p, "cardinalities are not supported: `mir status` counts devices");
        return;
    }
    read_on(p, statement);
    if (statement->kind == MIR_INFLUXQL_SHOW_MEASUREMENTS)
        read_with_measurement(p, statement);
    else if (accept_word(p, "FROM"))
        read_sources(p, statement);
    if (statement->kind == MIR_INFLUXQL_SHOW_TAG_VALUES) read_with_key(p, statement);
    if (statement->kind != MIR_INFLUXQL_SHOW_FIELD_KEYS) read_where(p, statement);
    read_order(p, statement);
    read_counts(p, statement);
}

static void read_show(parser *p, mir_influxql_statement *statement)
{
    if (accept_word(p, "DATABASES")) {
        statement->kind = MIR_INFLUXQL_SHOW_DATABASES;
        return;
    }
    if (accept_word(p, "RETENTION")) {
        statement->kind = MIR_INFLUXQL_SHOW_RETENTION_POLICIES;
        want_word(p, "POLICIES");
        read_on(p, statement);
        return;
    }
    if (accept_word(p, "MEASUREMENTS") || accept_word(p, "MEASUREMENT")) {
        statement->kind = MIR_INFLUXQL_SHOW_MEASUREMENTS;
    } else if (accept_word(p, "FIELD")) {
        statement->kind = MIR_INFLUXQL_SHOW_FIELD_KEYS;
        if (!accept_word(p, "KEY")) want_word(p, "KEYS");
    } else if (accept_word(p, "SERIES")) {
        statement->kind = MIR_INFLUXQL_SHOW_SERIES;
    } else if (accept_word(p, "TAG")) {
        statement->kind = MIR_INFLUXQL_SHOW_TAG_KEYS;
        if (accept_word(p, "VALUES"))
            statement->kind = MIR_INFLUXQL_SHOW_TAG_VALUES;
        else if (!accept_word(p, "KEY"))
            want_word(p, "KEYS");
    } else if (!failed(p) && p->token.kind == TOKEN_WORD) {
        unsupported(p, "there are SHOW DATABASES, RETENTION POLICIES, MEASUREMENTS, FIELD KEYS, "
                       "TAG KEYS, TAG VALUES and SERIES; `mir status` shows the rest");
    } else {
        expected(p, "DATABASES, RETENTION POLICIES, MEASUREMENTS, FIELD KEYS, TAG KEYS, TAG "
                    "VALUES or SERIES");
    }
    read_show_rest(p, statement);
}

static void read_statement(parser *p, mir_influxql_statement *statement)
{
    static const char *const others[] = {"CREATE", "DROP",   "DELETE", "ALTER",   "GRANT",
                                         "REVOKE", "INSERT", "KILL",   "EXPLAIN", "SET"};
    statement->from_ns = INT64_MIN;
    statement->to_ns = INT64_MAX;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (is_word(p, others[i]))
            unsupported(p, "only SELECT and SHOW are supported: nothing is changed here");
    if (accept_word(p, "SELECT"))
        read_select(p, statement);
    else if (accept_word(p, "SHOW"))
        read_show(p, statement);
    else
        expected(p, "SELECT or SHOW");
}

mir_status mir_influxql_parse(mir_view text, int64_t now_ns, mir_arena *arena,
                              mir_influxql_query *query, mir_error *error)
{
    if (text.size > MIR_INFLUXQL_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "the query is longer than %d bytes",
                             MIR_INFLUXQL_BYTES_MAX);
    parser p = {.text = text, .arena = arena, .error = error, .now_ns = now_ns};
    mir_influxql_statement *statements = take(&p, MIR_INFLUXQL_STATEMENTS_MAX * sizeof *statements);
    uint32_t count = 0;
    next(&p);
    while (!failed(&p)) {
        while (accept_sign(&p, ";")) {
        }
        if (failed(&p) || p.token.kind == TOKEN_END) break;
        if (count == MIR_INFLUXQL_STATEMENTS_MAX) {
            fail(&p, MIR_E_TOO_LARGE, "more than 64 statements");
            break;
        }
        read_statement(&p, &statements[count++]);
        if (!failed(&p) && p.token.kind != TOKEN_END && !is_sign(&p, ";"))
            expected(&p, "; or the end of the query");
    }
    if (!failed(&p) && count == 0) expected(&p, "SELECT or SHOW");
    if (failed(&p)) return p.status;
    *query = (mir_influxql_query){statements, count};
    return MIR_OK;
}
