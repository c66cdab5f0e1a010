# SPDX-License-Identifier: Apache-2.0
"""What the server answers to which bytes, as data.

A case is sent on a fresh connection after INFO. One that stays open is followed by a PING, so that
`expect` is everything up to the PONG; one that closes is read to the end.
"""

from typing import NamedTuple

OPENING = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'
VERBOSE = b'CONNECT {"verbose":true,"pedantic":false,"headers":true}\r\n'
PEDANTIC = b'CONNECT {"verbose":false,"pedantic":true,"headers":true}\r\n'
VERBOSE_PEDANTIC = b'CONNECT {"verbose":true,"pedantic":true,"headers":true}\r\n'

OK = b"+OK\r\n"
PONG = b"PONG\r\n"
UNKNOWN = b"-ERR 'Unknown Protocol Operation'\r\n"
INVALID_SUBJECT = b"-ERR 'Invalid Subject'\r\n"
INVALID_PUBLISH = b"-ERR 'Invalid Publish Subject'\r\n"
TOO_LARGE = b"-ERR 'Maximum Payload Violation'\r\n"
LINE_TOO_LONG = b"-ERR 'maximum control line exceeded'\r\n"
DENIED = b"-ERR 'Authorization Violation'\r\n"

# The connection ends. Nothing has to be said before; the one thing that may be said is UNKNOWN.
SILENT = object()


class Case(NamedTuple):
    name: str
    send: bytes
    expect: object
    closes: bool = False
    before: bytes = OPENING
    deviation: str = ""


def stays(name, send, expect, before=OPENING, deviation=""):
    return Case(name, send, expect, False, before, deviation)


def ends(name, send, expect, before=OPENING):
    return Case(name, send, expect, True, before)


HEADER = b"NATS/1.0\r\nmir-msg: a\r\nMir-Msg: b\r\nmir-msg: c\r\n\r\n"
H = len(HEADER)


def long_sub(length):
    """SUB with this many bytes of arguments."""
    return b"SUB " + b"x" * (length - 2) + b" 1\r\n"


def long_connect(length):
    """CONNECT with this many bytes of arguments."""
    head, tail = b'{"verbose":false,"pad":"', b'"}'
    return b"CONNECT " + head + b"x" * (length - len(head) - len(tail)) + tail + b"\r\n"


LEXICAL = [
    stays("lower case", b"sub a 1\r\npub a 2\r\nhi\r\nunsub 1\r\nping\r\npong\r\n", b"MSG a 1 2\r\nhi\r\n" + PONG),
    stays("mixed case", b"SuB a 1\r\npUb a 2\r\nhi\r\nUnSuB 1\r\nPinG\r\n", b"MSG a 1 2\r\nhi\r\n" + PONG),
    stays("lower case hpub", b"sub a 1\r\nhpub a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", b"HMSG a 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
    stays("lower case connect", b'SUB a 1\r\nPUB a 0\r\n\r\n', b"MSG a 1 0\r\n\r\n", before=b'connect {"verbose":false}\r\n'),
    stays("connect without a blank", b"PING\r\n", PONG, before=b'CONNECT{"verbose":false}\r\n'),
    stays("tabs", b"SUB\ta\t1\r\nPUB\ta\t2\r\nhi\r\nUNSUB\t1\r\n", b"MSG a 1 2\r\nhi\r\n"),
    stays("tabs and blanks", b"SUB \t a \t\t q \t 1\r\nPUB \t a  \t2\r\nhi\r\n", b"MSG a 1 2\r\nhi\r\n"),
    stays("repeated blanks", b"SUB   a    1\r\nPUB   a     r   2\r\nhi\r\n", b"MSG a 1 r 2\r\nhi\r\n"),
    stays("sub with two blanks", b"SUB foo  1\r\nPUB foo 0\r\n\r\n", b"MSG foo 1 0\r\n\r\n"),
    stays("unsub with a trailing blank", b"SUB a 1\r\nUNSUB 1 \r\nPUB a 0\r\n\r\n", b""),
    stays("trailing blanks", b"SUB a 1 \t\r\nPUB a 2 \t \r\nhi\r\n", b"MSG a 1 2\r\nhi\r\n"),
    stays("bare LF", b"SUB a 1\nPUB a 2\nhi\r\nPING\n", b"MSG a 1 2\r\nhi\r\n" + PONG),
    stays("connect with bare LF", b"PING\r\n", PONG, before=b'CONNECT {"verbose":false}\n'),
    stays("leading zeros", b"SUB a 1\r\nPUB a 000000002\r\nhi\r\n", b"MSG a 1 2\r\nhi\r\n", deviation="it echoes the zeros"),
    stays("ping with trailing bytes", b"PING with more\r\nPINGx\r\nPONG 7\r\n", PONG + PONG),
    stays("utf-8 subject", "SUB ü.ß 1\r\nPUB ü.ß 0\r\n\r\n".encode(), "MSG ü.ß 1 0\r\n\r\n".encode()),
    stays("odd bytes in names", b'SUB a"\\$\x01 %|~\r\nPUB a"\\$\x01 (r) 0\r\n\r\n', b'MSG a"\\$\x01 %|~ (r) 0\r\n\r\n'),
]

MESSAGES = [
    stays("pub", b"SUB a 1\r\nPUB a 2\r\nhi\r\n", b"MSG a 1 2\r\nhi\r\n"),
    stays("pub with reply", b"SUB a 1\r\nPUB a b.c 2\r\nhi\r\n", b"MSG a 1 b.c 2\r\nhi\r\n"),
    stays("empty payload", b"SUB a 1\r\nPUB a 0\r\n\r\n", b"MSG a 1 0\r\n\r\n"),
    stays("payload of line ends and zeros", b"SUB a 1\r\nPUB a 8\r\n\r\n\x00\n\r\r\n\xff\r\n", b"MSG a 1 8\r\n\r\n\x00\n\r\r\n\xff\r\n"),
    stays("payload that looks like an op", b"SUB a 1\r\nPUB a 6\r\nPING\r\n\r\n", b"MSG a 1 6\r\nPING\r\n\r\n"),
    stays("the subject is the published one", b"SUB a.* 1\r\nSUB > 2\r\nUNSUB 2\r\nPUB a.b 0\r\n\r\n", b"MSG a.b 1 0\r\n\r\n"),
    stays("headers", b"SUB a 1\r\nHPUB a %d %d\r\n%bhi\r\n" % (H, H + 2, HEADER), b"HMSG a 1 %d %d\r\n%bhi\r\n" % (H, H + 2, HEADER)),
    stays("headers with reply", b"SUB a 1\r\nHPUB a r %d %d\r\n%b\r\n" % (H, H, HEADER), b"HMSG a 1 r %d %d\r\n%b\r\n" % (H, H, HEADER)),
    stays("smallest header block", b"SUB a 1\r\nHPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n", b"HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
    stays("header with a status", b"SUB a 1\r\nHPUB a 21 21\r\nNATS/1.0 100 Idle\r\n\r\n\r\n", b"HMSG a 1 21 21\r\nNATS/1.0 100 Idle\r\n\r\n\r\n"),
    stays("header length zero is a plain message", b"SUB a 1\r\nHPUB a 0 2\r\nhi\r\n", b"MSG a 1 2\r\nhi\r\n"),
    stays("header bytes are not judged", b"SUB a 1\r\nHPUB a 4 6\r\nXXXXhi\r\n", b"HMSG a 1 4 6\r\nXXXXhi\r\n"),
]

UNKNOWN_OPS = [
    ends(f"unknown {line!r}", line + b"\r\n", UNKNOWN)
    for line in (
        b"FOO", b"", b" PING", b"\tPING", b"MSG a 1 0", b"HMSG a 1 0 0", b"RMSG $G a 0", b"RS+ $G a", b"RS- $G a",
        b"LS+ a", b"LS- a", b"LMSG a 0", b"A+ a", b"A- a", b"UNSUB", b"SUB", b"PUB", b"HPUB",
        b"PUBx a 0", b"SUBa 1", b"P", b"PIN", b"+O", b"-E x", b"\x00", b"\xff\xfe", b"GET / HTTP/1.1",
    )
] + [ends("empty line of a bare LF", b"\n", UNKNOWN)]

MALFORMED = [
    ends(f"malformed {line!r}", line + b"\r\n", SILENT)
    for line in (
        b"PUB ", b"PUB a", b"PUB a b c 2", b"HPUB a", b"HPUB a 12", b"HPUB a b c 12 12", b"SUB ", b"SUB a",
        b"SUB a b c d", b"UNSUB ", b"UNSUB 1 2 3",
        b"PUB a -1", b"PUB a +1", b"PUB a x", b"PUB a 1x", b"PUB a 1.0", b"PUB a 0x1", b"PUB a 1234567890",
        b"PUB a 0000000002", b"PUB a 18446744073709551618", b"HPUB a 13 12", b"HPUB a -1 12", b"HPUB a 12 -1",
        b"HPUB a x 12", b"HPUB a 12 x", b"HPUB a 1234567890 1234567891",
        b'CONNECT {"verbose":fal', b"CONNECT", b"CONNECT ", b"CONNECT []", b"CONNECT 5", b'CONNECT "x"',
        b'CONNECT {"verbose":"no"}', b'CONNECT {"user":5}', b'CONNECT {"protocol":"1"}', b"CONNECT {} x", b"INFO x", b"-ERR 'x'",
    )
] + [
    ends("hpub without headers in CONNECT", b"HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n", SILENT, before=b'CONNECT {"verbose":false}\r\n'),
]

PAYLOAD_ENDS = [
    ends("payload too long", b"PUB a 2\r\nhix\r\n", UNKNOWN),
    ends("payload too short", b"PUB a 4\r\nhi\r\nPING\r\n", UNKNOWN),
    ends("payload ended by LF", b"PUB a 2\r\nhi\nPING\r\n", UNKNOWN),
    ends("payload ended by CR and more", b"PUB a 2\r\nhi\rx", UNKNOWN),
    ends("payload of headers too long", b"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhix\r\n", UNKNOWN),
]

SUBSCRIPTIONS = [
    stays(f"sub {subject!r} is invalid", b"SUB " + subject + b" 1\r\nPUB a 0\r\n\r\nPUB a..b 0\r\n\r\n", INVALID_SUBJECT)
    for subject in (b"a..b", b".a", b"a.", b".", b"a.>.b", b">.a", b"a..>", b"*..*")
] + [
    stays("sub a>b is a literal", b"SUB a>b 1\r\nPUB a>b 0\r\n\r\nPUB a.b 0\r\n\r\n", b"MSG a>b 1 0\r\n\r\n"),
    stays("sub *a is a literal", b"SUB *a 1\r\nPUB *a 0\r\n\r\nPUB xa 0\r\n\r\n", b"MSG *a 1 0\r\n\r\n"),
    stays("sub a*.> mixes both", b"SUB a*.> 1\r\nPUB a*.x 0\r\n\r\nPUB ab.x 0\r\n\r\n", b"MSG a*.x 1 0\r\n\r\n"),
    stays("a sid in use keeps the first", b"SUB a 1\r\nSUB b 1\r\nPUB b 0\r\n\r\nPUB a 0\r\n\r\n", b"MSG a 1 0\r\n\r\n"),
    stays("a sid can be used again after unsub", b"SUB a 1\r\nUNSUB 1\r\nSUB b 1\r\nPUB a 0\r\n\r\nPUB b 0\r\n\r\n", b"MSG b 1 0\r\n\r\n"),
    stays("unsub of an unknown sid", b"UNSUB 9\r\nUNSUB 9 5\r\n", b""),
    stays("unsub with a max that is no number", b"SUB a 1\r\nUNSUB 1 x\r\nPUB a 0\r\n\r\n", b""),
    stays("an opaque sid", b"SUB a dev/7-x\r\nPUB a 0\r\n\r\nUNSUB dev/7-x\r\nPUB a 0\r\n\r\n", b"MSG a dev/7-x 0\r\n\r\n"),
    stays("pub to empty tokens matches nothing", b"SUB > 1\r\nUNSUB 1\r\nSUB a.*.b 2\r\nPUB a..b 0\r\n\r\nPUB .a 0\r\n\r\nPUB a. 0\r\n\r\n", b""),
    stays("pub to wildcards is literal", b"SUB a.b 1\r\nSUB a.* 2\r\nPUB a.* 0\r\n\r\nPUB a.> 0\r\n\r\n", b"MSG a.* 2 0\r\n\r\nMSG a.> 2 0\r\n\r\n"),
    stays("answers of a client are ignored", b"+OK\r\nPONG\r\nINFO {}\r\nPONG\r\n", b""),
]

VERBOSE_ANSWERS = [
    stays("verbose connect", b"PING\r\n", OK + PONG, before=VERBOSE),
    stays("verbose sub", b"SUB a 1\r\n", OK + OK, before=VERBOSE),
    stays("verbose sub with a sid in use", b"SUB a 1\r\nSUB a 1\r\n", OK * 3, before=VERBOSE),
    stays("verbose unsub", b"SUB a 1\r\nUNSUB 1\r\n", OK * 3, before=VERBOSE),
    stays("verbose unsub with max", b"SUB a 1\r\nUNSUB 1 4\r\n", OK * 3, before=VERBOSE),
    stays("verbose unsub of an unknown sid", b"UNSUB 1\r\n", OK * 2, before=VERBOSE),
    stays("verbose pub", b"PUB a 0\r\n\r\n", OK * 2, before=VERBOSE),
    stays("verbose hpub", b"HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n", OK * 2, before=VERBOSE),
    stays("verbose +OK precedes the echo", b"SUB a 1\r\nPUB a 2\r\nhi\r\n", OK * 3 + b"MSG a 1 2\r\nhi\r\n", before=VERBOSE),
    stays("verbose sub of an invalid subject", b"SUB a. 1\r\n", OK + INVALID_SUBJECT, before=VERBOSE),
    stays("verbose never for ping, pong, +OK, INFO", b"PING\r\nPONG\r\n+OK\r\nINFO {}\r\n", OK + PONG, before=VERBOSE),
    stays("verbose is the default", b"SUB a 1\r\n", OK + OK, before=b"CONNECT {}\r\n"),
]

PEDANTIC_ANSWERS = [
    stays("pedantic wildcard publish is processed", b"SUB a.* 1\r\nPUB a.* 2\r\nhi\r\n", INVALID_PUBLISH + b"MSG a.* 1 2\r\nhi\r\n", before=PEDANTIC),
    stays("pedantic > publish", b"PUB a.> 0\r\n\r\n", INVALID_PUBLISH, before=PEDANTIC),
    stays("pedantic empty token", b"PUB a..b 0\r\n\r\n", INVALID_PUBLISH, before=PEDANTIC),
    stays("pedantic literal publish", b"SUB a.b 1\r\nPUB a.b 0\r\n\r\n", b"MSG a.b 1 0\r\n\r\n", before=PEDANTIC),
    stays("pedantic and verbose", b"PUB a.* 0\r\n\r\n", OK + INVALID_PUBLISH + OK, before=VERBOSE_PEDANTIC),
    stays("pedantic is the default", b"PUB a.* 0\r\n\r\n", OK + INVALID_PUBLISH + OK, before=b"CONNECT {}\r\n"),
]

# For a server with a payload limit of 1024 and the ordinary limit of lines.
LIMITS = [
    stays("payload of the limit", b"SUB a 1\r\nPUB a 1024\r\n%b\r\n" % (b"x" * 1024), b"MSG a 1 1024\r\n%b\r\n" % (b"x" * 1024)),
    stays("header and payload of the limit", b"HPUB a 12 1024\r\nNATS/1.0\r\n\r\n%b\r\n" % (b"x" * 1012), b""),
    ends("payload over the limit", b"PUB a 1025\r\n%b\r\n" % (b"x" * 1025), TOO_LARGE),
    ends("payload over the limit, judged before it comes", b"PUB a 1025\r\n", TOO_LARGE),
    ends("header and payload over the limit", b"HPUB a 12 1025\r\n", TOO_LARGE),
    ends("nine digits", b"PUB a 999999999\r\n", TOO_LARGE),
    stays("4096 bytes of arguments", long_sub(4096), b""),
    ends("4097 bytes of arguments", long_sub(4097), LINE_TOO_LONG),
    ends("too many bytes without LF", b"SUB " + b"x" * 5000, LINE_TOO_LONG),
    stays("4096 bytes of CONNECT", b"", b"", before=long_connect(4096)),
    ends("4097 bytes of CONNECT", b"", LINE_TOO_LONG, before=long_connect(4097)),
    ends("70 KiB of CONNECT", b"", LINE_TOO_LONG, before=long_connect(70 << 10)),
    ends("too many bytes in PUB", b"PUB " + b"x" * 4095 + b" 0\r\n\r\n", LINE_TOO_LONG),
]

CONNECTS = [
    ends("protocol 2", b"", b"-ERR 'invalid client protocol'\r\n", before=b'CONNECT {"verbose":false,"protocol":2}\r\n'),
    ends("protocol -1", b"", b"-ERR 'invalid client protocol'\r\n", before=b'CONNECT {"verbose":false,"protocol":-1}\r\n'),
    ends("no_responders without headers", b"", b"-ERR 'no responders requires headers support'\r\n", before=b'CONNECT {"verbose":false,"no_responders":true}\r\n'),
    ends("an account in CONNECT", b"", DENIED, before=b'CONNECT {"verbose":false,"account":"x"}\r\n'),
    ends("a new account in CONNECT", b"", DENIED, before=b'CONNECT {"verbose":false,"new_account":true}\r\n'),
    stays("unknown keys", b"PING\r\n", PONG, before=b'CONNECT {"verbose":false,"zzz":{"a":[1,null,"\\u0026"]},"tls_required":false}\r\n'),
    stays("keys in any case", b"PING\r\n", PONG, before=b'CONNECT {"VERBOSE":false,"Pedantic":false}\r\n'),
    stays("blanks in the object", b"PING\r\n", PONG, before=b'CONNECT  \t { "verbose" : false , "lang" : "x" }  \r\n'),
    stays("a second CONNECT replaces the options", VERBOSE + b"PUB a 0\r\n\r\n" + OPENING + b"PUB a 0\r\n\r\n", OK * 2),
    stays("no CONNECT at all", b"SUB a 1\r\nPUB a 0\r\n\r\n", OK + OK + b"MSG a 1 0\r\n\r\n", before=b""),
]
