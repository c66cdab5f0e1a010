# SPDX-License-Identifier: Apache-2.0
"""Who may come in and what they may do. Statements 43 and 49 to 52."""

import pytest

import wire_cases as cases
from wire import QUIET, connect_line, let_pass, raw_of

# Made by crypt(3) from "tokenword" and "userword", with a low cost so that the tests are quick.
TOKEN_HASH = "$2b$04$1O1obcvDU6z3uWF1Ioqm1O4uCEZTz3z/pRAC4sSXJV13cWc9A4a/q"
USER_HASH = "$2b$04$yNXgYmO.Ob1SsLhn8w5VueEyxDbjPJNVb6AtpkvMbFwMcfNsuyxy2"

TOKEN = {"auth.mode": "token", "auth.token": "s3cret"}
HASHED_TOKEN = {"auth.mode": "token", "auth.token": TOKEN_HASH}
USERS = {
    "auth.mode": "users",
    "auth.users": [
        {"user": "plain", "password": "word"},
        {"user": "hashed", "password": USER_HASH},
        {"user": "2a", "password": USER_HASH.replace("$2b$", "$2a$")},
        {"user": "2y", "password": USER_HASH.replace("$2b$", "$2y$")},
        {"user": "long", "password": "p" * 300},
    ],
}


def login(wire, **options):
    """True when it passes, False for the one text that a refusal has."""
    wire.send(connect_line(**{**QUIET, **options}) + b"PING\r\n")
    frame = wire.frame()
    if frame.op == "PONG":
        return True
    assert frame.raw == cases.DENIED
    assert wire.rest() == []
    return False


def may(**permissions):
    """Settings of a server with one user `u`."""
    return {"auth.mode": "users", "auth.users": [{"user": "u", "password": "p", "permissions": permissions}]}


def enter(dial, server, user="u", password="p", **options):
    return dial.quiet(server, user=user, **{"pass": password}, **options)


def texts(wire):
    return [frame.text or frame.op for frame in wire.flush()]


def publish_violation(subject):
    return f'Permissions Violation for Publish to "{subject}"'


def subscribe_violation(subject, queue=None):
    tail = f' using queue "{queue}"' if queue else ""
    return f'Permissions Violation for Subscription to "{subject}"{tail}'


# Logging in


@pytest.mark.parametrize(
    "settings, options, passes",
    [
        (TOKEN, {"auth_token": "s3cret"}, True),
        (TOKEN, {"auth_token": "s3creT"}, False),
        (TOKEN, {"auth_token": "s3cre"}, False),
        (TOKEN, {"auth_token": "s3cret "}, False),
        (TOKEN, {"auth_token": ""}, False),
        (TOKEN, {}, False),
        (TOKEN, {"user": "s3cret"}, False),
        (TOKEN, {"user": "s3cret", "pass": "s3cret"}, False),
        (HASHED_TOKEN, {"auth_token": "tokenword"}, True),
        (HASHED_TOKEN, {"auth_token": "tokenworD"}, False),
        (HASHED_TOKEN, {"auth_token": TOKEN_HASH}, False),
        (HASHED_TOKEN, {}, False),
        (USERS, {"user": "plain", "pass": "word"}, True),
        (USERS, {"user": "plain", "pass": "Word"}, False),
        (USERS, {"user": "plain", "pass": ""}, False),
        (USERS, {"user": "plain"}, False),
        (USERS, {"user": "Plain", "pass": "word"}, False),
        (USERS, {"user": "nobody", "pass": "word"}, False),
        (USERS, {"user": "", "pass": "word"}, False),
        (USERS, {"pass": "word"}, False),
        (USERS, {"auth_token": "word"}, False),
        (USERS, {}, False),
        (USERS, {"user": "hashed", "pass": "userword"}, True),
        (USERS, {"user": "hashed", "pass": "userwor"}, False),
        (USERS, {"user": "hashed", "pass": USER_HASH}, False),
        (USERS, {"user": "hashed"}, False),
        (USERS, {"user": "2a", "pass": "userword"}, True),
        (USERS, {"user": "2y", "pass": "userword"}, True),
        (USERS, {"user": "long", "pass": "p" * 300}, True),
        (USERS, {"user": "long", "pass": "p" * 299}, False),
    ],
)
def test_43_credentials(shared, dial, settings, options, passes):
    wire = dial(shared(settings))
    assert wire.info["auth_required"] is True
    assert login(wire, **options) is passes


def test_43_wrong_logins_leave_the_others_alone(shared, dial):
    server = shared(USERS)
    good = enter(dial, server, "plain", "word").sub("a", 1).settle()
    for _ in range(50):
        assert not login(dial(server), user="hashed", **{"pass": "wrong"})
    good.pub("a", b"x")
    assert len(good.flush()) == 1


def test_43_nothing_works_before_the_login(shared, dial):
    """Ops behind a wrong CONNECT have no effect."""
    server = shared(USERS)
    good = enter(dial, server, "plain", "word").sub(">", 1).settle()
    wire = dial(server)
    wire.try_send(connect_line(**QUIET, user="plain", **{"pass": "no"}) + b"PUB a 1\r\nx\r\nSUB > 1\r\nPING\r\n")
    assert raw_of(wire.rest()) == cases.DENIED
    good.settle()


def test_43_ops_behind_a_slow_login_wait_for_it(shared, dial):
    """Checking a hash takes time; what came in the same segment is done afterwards, in order."""
    wire = dial(shared(USERS))
    wire.send(
        connect_line(**{**QUIET, "verbose": True}, user="hashed", **{"pass": "userword"})
        + b"PING\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n"
    )
    wire.exactly(b"+OK\r\nPONG\r\n+OK\r\n+OK\r\nMSG a 1 2\r\nhi\r\nPONG\r\n")


def test_43_without_authentication_credentials_are_ignored(server, dial):
    assert login(dial(server), user="a", **{"pass": "b"}, auth_token="c")


def test_43_a_second_connect_is_judged_again(shared, dial):
    server = shared(USERS)
    wire = enter(dial, server, "plain", "word")
    assert not login(wire, user="plain", **{"pass": "no"})


CHANGING = {
    "auth.mode": "users",
    "auth.users": [
        {"user": "wide", "password": "p"},
        {"user": "same", "password": "p"},
        {"user": "hashed", "password": USER_HASH, "permissions": {"subscribe": {"allow": ["ok.>"]}}},
        {"user": "narrow", "password": "p", "permissions": {"publish": {"allow": ["ok.>"]}, "subscribe": {"allow": ["ok.>"]}}},
        {"user": "deny", "password": "p", "permissions": {"subscribe": {"deny": ["a.secret"]}}},
    ],
}  # fmt: skip


@pytest.mark.deviation("2.9 keeps the subscriptions, as later ones do not")
@pytest.mark.parametrize("queue", [None, "q"])
@pytest.mark.parametrize(
    "before, after, password",
    [
        ("wide", "narrow", "p"),
        ("wide", "deny", "p"),
        ("wide", "same", "p"),
        ("wide", "wide", "p"),
        ("wide", "hashed", "userword"),
        ("deny", "wide", "p"),
        ("deny", "narrow", "p"),
    ],
)
def test_43_a_second_connect_ends_the_subscriptions(shared, dial, before, after, password, queue):
    """They were allowed, or filtered, for somebody else."""
    server = shared(CHANGING)
    wire = enter(dial, server, before).sub("a.*", 1, queue=queue).sub("ok.*", 2, queue=queue).settle()
    publisher = enter(dial, server, "wide")
    publisher.pub("a.b").settle()
    assert len(wire.flush()) == 1
    wire.connect(user=after, **{"pass": password})
    publisher.pub("a.secret").pub("a.b").pub("ok.x").settle()
    wire.settle()
    # Their ids are free again.
    wire.sub("ok.*", 1, queue=queue).settle()
    publisher.pub("ok.x").settle()
    assert raw_of(wire.flush()) == b"MSG ok.x 1 0\r\n\r\n"


@pytest.mark.deviation("2.9 keeps the subscriptions, as later ones do not")
def test_43_the_limit_of_subscriptions_begins_anew_with_a_second_connect(shared, dial):
    wire = dial.quiet(shared({"limits.max_subscriptions": 2}))
    for _ in range(3):
        wire.sub("a", 1).sub("b", 2).settle()
        wire.connect()


def test_43_a_first_connect_keeps_the_subscriptions(server, dial):
    """Where nobody needs a login the same nobody goes on."""
    wire = dial(server).sub("a", 1)
    wire.exactly(b"+OK\r\n")
    assert raw_of(wire.connect().pub("a").flush()) == b"MSG a 1 0\r\n\r\n"


NO_AUTH = {
    "auth.mode": "users",
    "auth.users": [
        {"user": "guest", "password": "g", "permissions": {"publish": {"allow": ["public.>"]}}},
        {"user": "plain", "password": "word"},
    ],
    "auth.no_auth_user": "guest",
}


def test_43_no_auth_user(shared, dial):
    server = shared(NO_AUTH)
    wire = dial(server)
    assert not wire.info.get("auth_required")
    wire.connect()
    wire.pub("public.x").pub("private.x")
    assert texts(wire) == [publish_violation("private.x")]
    # Who presents something is judged by it.
    assert not login(dial(server), user="plain", **{"pass": "no"})
    wire = enter(dial, server, "plain", "word").pub("private.x").settle()


@pytest.mark.deviation("it keeps the subscriptions")
@pytest.mark.parametrize("after", ["plain", "narrow"])
def test_43_what_no_auth_user_subscribed_ends_with_the_login(shared, dial, after):
    users = [
        {"user": "guest", "password": "g", "permissions": {"subscribe": {"deny": ["a.secret"]}}},
        {"user": "plain", "password": "p"},
        {"user": "narrow", "password": "p", "permissions": {"subscribe": {"allow": ["ok.>"]}}},
    ]
    server = shared({"auth.mode": "users", "auth.users": users, "auth.no_auth_user": "guest"})
    wire = dial(server).sub("a.*", 1)
    wire.exactly(b"+OK\r\n")
    wire.connect(user=after, **{"pass": "p"})
    enter(dial, server, "plain").pub("a.b").pub("a.secret").settle()
    wire.settle()


# Permission texts


OK_ONLY = may(publish={"allow": ["ok.>"]}, subscribe={"allow": ["ok.>"]})


def test_49_texts_and_the_connection_stays(shared, dial):
    wire = enter(dial, shared(OK_ONLY))
    wire.pub("no.a").sub("no.b", 1).sub("no.c", 2, queue="work").pub("no.d", b"x", reply="ok.r")
    wire.send(b"HPUB no.e 12 12\r\nNATS/1.0\r\n\r\n\r\n")
    assert texts(wire) == [
        publish_violation("no.a"),
        subscribe_violation("no.b"),
        subscribe_violation("no.c", "work"),
        publish_violation("no.d"),
        publish_violation("no.e"),
    ]
    wire.sub("ok.*", 1).pub("ok.a", b"x")
    assert raw_of(wire.flush()) == b"MSG ok.a 1 1\r\nx\r\n"


def test_49_permission_is_asked_before_the_syntax(shared, dial):
    wire = enter(dial, shared(OK_ONLY)).sub("no..x", 1)
    assert texts(wire) == [subscribe_violation("no..x")]


def test_49_names_are_quoted(shared, dial):
    """Clients find the subject between double quotes."""
    wire = enter(dial, shared(OK_ONLY))
    wire.send(b'PUB a"b 0\r\n\r\nSUB c\\d 1\r\nSUB e q"r 2\r\nPUB f\x01g 0\r\n\r\n' + "PUB ü 0\r\n\r\n".encode())
    assert texts(wire) == [
        publish_violation(r"a\"b"),
        subscribe_violation(r"c\\d"),
        subscribe_violation("e", r"q\"r"),
        publish_violation(r"f\x01g"),
        publish_violation("ü"),
    ]


def test_49_a_refused_publish_is_dropped(shared, dial):
    settings = {"auth.mode": "users", "auth.users": OK_ONLY["auth.users"] + [{"user": "all", "password": "p"}]}
    server = shared(settings)
    listener = enter(dial, server, "all").sub(">", 1).settle()
    wire = enter(dial, server).sub("ok.inbox", 1)
    wire.pub("no", b"x", reply="ok.inbox")
    # Refused, hence not "nobody there".
    assert texts(wire) == [publish_violation("no")]
    listener.settle()


def test_49_default_permissions(shared, dial):
    server = shared({
        "auth.mode": "users",
        "auth.default_permissions": {"publish": {"allow": ["d"]}, "subscribe": {"allow": ["d"]}},
        "auth.users": [
            {"user": "u", "password": "p"},
            {"user": "own", "password": "p", "permissions": {"publish": {"allow": ["o"]}}},
        ],
    })  # fmt: skip
    wire = enter(dial, server).pub("d").pub("o").sub("d", 1).sub("o", 2)
    assert texts(wire) == [publish_violation("o"), subscribe_violation("o")]
    wire = enter(dial, server, "own").pub("o").pub("d").sub("d", 1).sub("o", 2)
    assert texts(wire) == [publish_violation("d")]


# What the lists mean


@pytest.mark.parametrize(
    "rules, allowed, refused",
    [
        ({"allow": ["a", "b.*", "c.>"]}, ["a", "b.x", "c.x", "c.x.y"], ["b", "c", "b.x.y", "d", "A"]),
        ({"deny": ["a", "b.*"]}, ["b", "c", "b.x.y"], ["a", "b.x"]),
        ({"allow": ["a.>"], "deny": ["a.secret", "a.*.x"]}, ["a.b", "a.b.c"], ["a.secret", "a.b.x", "b"]),
        # A published wildcard is text, and covered by the wildcards that match it.
        ({"allow": ["b.*"]}, ["b.*", "b.>"], ["*", ">"]),
    ],
)
def test_49_publish_lists(shared, dial, rules, allowed, refused):
    wire = enter(dial, shared(may(publish=rules)))
    for subject in allowed:
        wire.pub(subject).settle()
    for subject in refused * 2:
        wire.pub(subject)
        assert texts(wire) == [publish_violation(subject)]


@pytest.mark.deviation("it takes an empty list for none")
def test_49_an_empty_allow_list_allows_nothing(shared, dial):
    wire = enter(dial, shared(may(publish={"allow": []}, subscribe={"allow": ["x"]})))
    wire.pub("a")
    assert texts(wire) == [publish_violation("a")]


@pytest.mark.parametrize(
    "rules, allowed, refused",
    [
        ({"allow": ["foo.*"]}, ["foo.a", "foo.*"], ["foo", "foo.a.b", "bar", "*.a", "*"]),
        ({"allow": ["foo.>"]}, ["foo.a", "foo.*", "foo.>", "foo.*.>", "foo.a.b"], ["foo", "bar"]),
        ({"allow": ["*.b"]}, ["a.b", "*.b"], ["a.c", "b"]),
        ({"deny": ["foo.secret"]}, ["foo.*", "foo.>", ">", "foo.a"], ["foo.secret"]),
        ({"deny": ["foo.*"]}, ["foo.a.b", ">", "foo"], ["foo.a", "foo.*"]),
        ({"allow": ["foo.>"], "deny": ["foo.secret.>"]}, ["foo.a", "foo.>"], ["foo.secret.a", "foo.secret.>", "bar"]),
    ],
)
def test_50_subscribe_lists(shared, dial, rules, allowed, refused):
    wire = enter(dial, shared(may(subscribe=rules)))
    for n, subject in enumerate(allowed):
        wire.sub(subject, f"a{n}").settle()
        wire.sub(subject, f"q{n}", queue="q").settle()
    for subject in refused:
        wire.sub(subject, "r")
        assert texts(wire) == [subscribe_violation(subject)]
        wire.sub(subject, "r", queue="q")
        assert texts(wire) == [subscribe_violation(subject, "q")]


@pytest.mark.deviation("it lets a wildcard through that its entry does not cover")
@pytest.mark.parametrize(
    "allow, subject",
    [("foo.*", "foo.>"), ("foo.*", "*.>"), ("foo.*", ">"), ("*", ">"), ("*.>", ">"), ("foo.*.bar", "foo.>")],
)
def test_50_an_allowed_pattern_covers_no_broader_one(shared, dial, allow, subject):
    server = shared(may(subscribe={"allow": [allow]}))
    wire = enter(dial, server).sub(subject, 1)
    assert texts(wire) == [subscribe_violation(subject)]
    wire.pub("foo.a.b").pub("foo.a").pub("foo").settle()


def test_50_denied_messages_are_withheld(shared, dial):
    server = shared(may(subscribe={"deny": ["foo.secret", "bar.*.x"]}))
    wire = enter(dial, server).sub("foo.*", 1).sub("foo.>", 2).sub("bar.>", 3, queue="q")
    for subject in ("foo.secret", "foo.open", "foo.secret.not", "bar.a.x", "bar.a.y", "foo.secret"):
        wire.pub(subject)
    got = [(frame.subject, frame.sid) for frame in wire.flush()]
    assert sorted(got) == [(b"bar.a.y", b"3"), (b"foo.open", b"1"), (b"foo.open", b"2"), (b"foo.secret.not", b"2")]


def test_50_a_withheld_message_goes_to_another_member(shared, dial):
    users = [
        {"user": "u", "password": "p", "permissions": {"subscribe": {"deny": ["foo.secret"]}}},
        {"user": "all", "password": "p"},
    ]
    server = shared({"auth.mode": "users", "auth.users": users})
    blind = [enter(dial, server).sub("foo.*", 1, queue="q").settle() for _ in range(3)]
    seeing = enter(dial, server, "all").sub("foo.*", 1, queue="q").settle()
    sender = enter(dial, server, "all")
    sender.send(b"PUB foo.secret 0\r\n\r\n" * 100).settle()
    assert len(seeing.flush()) == 100
    for wire in blind:
        wire.settle()


# Entries with a queue

QUEUES = may(subscribe={"allow": ["foo q1", "bar", "baz q.*", "mix", "mix q1", "wild.> w.>"]})
QUEUES_DENIED = may(subscribe={"allow": [">"], "deny": ["foo qd", "bar", "baz q.*"]})


@pytest.mark.parametrize(
    "settings, subject, queue, passes",
    [
        (QUEUES, "foo", None, False),
        (QUEUES, "foo", "q1", True),
        (QUEUES, "foo", "q2", False),
        (QUEUES, "bar", None, True),
        (QUEUES, "bar", "any", True),
        (QUEUES, "baz", None, False),
        (QUEUES, "baz", "q.x", True),
        (QUEUES, "baz", "q.x.y", False),
        (QUEUES, "baz", "q", False),
        (QUEUES, "mix", None, True),
        (QUEUES, "mix", "q1", True),
        (QUEUES, "mix", "q2", False),
        (QUEUES, "wild.a.b", "w.x", True),
        (QUEUES, "wild.>", "w.x.y", True),
        (QUEUES, "wild.a", "v", False),
        (QUEUES, "other", None, False),
        (QUEUES, "other", "q1", False),
        (QUEUES_DENIED, "foo", None, True),
        (QUEUES_DENIED, "foo", "qe", True),
        (QUEUES_DENIED, "foo", "qd", False),
        (QUEUES_DENIED, "bar", None, False),
        (QUEUES_DENIED, "bar", "q", False),
        (QUEUES_DENIED, "baz", None, True),
        (QUEUES_DENIED, "baz", "q.x", False),
        (QUEUES_DENIED, "baz", "q.x.y", True),
    ],
)
def test_51_entries_with_a_queue(shared, dial, settings, subject, queue, passes):
    wire = enter(dial, shared(settings)).sub(subject, 1, queue=queue)
    assert texts(wire) == ([] if passes else [subscribe_violation(subject, queue)])


# Permission to answer


def answering(**rule):
    return {
        "auth.mode": "users",
        "auth.users": [
            {"user": "u", "password": "p", "permissions": {"subscribe": {"allow": ["ask.>"]}, "allow_responses": rule}},
            {"user": "all", "password": "p"},
        ],
    }


def test_52_one_answer_is_allowed(shared, dial):
    server = shared(answering(max=1, expires="1m"))
    service = enter(dial, server).sub("ask.*", 1).settle()
    asker = enter(dial, server, "all").sub("in.*", 1).settle()
    for turn in range(3):
        reply = f"in.{turn}"
        # Nothing may be said unasked.
        service.pub(reply)
        assert texts(service) == [publish_violation(reply)]
        asker.pub("ask.x", b"?", reply=reply).settle()
        assert [frame.reply.decode() for frame in service.flush()] == [reply]
        service.pub(reply, b"one").pub(reply, b"two").pub("in.other")
        assert texts(service) == [publish_violation(reply), publish_violation("in.other")]
        assert raw_of(asker.flush()) == b"MSG in.%d 1 3\r\none\r\n" % turn


def test_52_as_many_as_configured(shared, dial):
    server = shared(answering(max=3, expires="1m"))
    service = enter(dial, server).sub("ask.*", 1).settle()
    asker = enter(dial, server, "all").sub("in.*", 1)
    asker.pub("ask.x", reply="in.1").pub("ask.y", reply="in.2").settle()
    assert len(service.flush()) == 2
    for _ in range(4):
        service.pub("in.1").pub("in.2")
    assert texts(service) == [publish_violation("in.1"), publish_violation("in.2")]
    assert len(asker.flush()) == 6


def test_52_not_after_its_time(shared, dial):
    server = shared(answering(max=5, expires="300ms"))
    service = enter(dial, server).sub("ask.*", 1).settle()
    asker = enter(dial, server, "all").sub("in.*", 1)
    asker.pub("ask.x", reply="in.1").settle()
    assert len(service.flush()) == 1
    service.pub("in.1").settle()
    assert len(asker.flush()) == 1
    let_pass(0.4)
    service.pub("in.1")
    assert texts(service) == [publish_violation("in.1")]
    asker.settle()


def test_52_the_answer_is_of_the_connection_that_was_asked(shared, dial):
    server = shared(answering(max=1, expires="1m"))
    service, stranger = enter(dial, server).sub("ask.*", 1).settle(), enter(dial, server)
    asker = enter(dial, server, "all").sub("in.*", 1)
    asker.pub("ask.x", reply="in.1").settle()
    assert len(service.flush()) == 1
    stranger.pub("in.1")
    assert texts(stranger) == [publish_violation("in.1")]
    service.pub("in.1").settle()
    assert len(asker.flush()) == 1


def test_52_a_second_connect_forgets_the_questions(shared, dial):
    server = shared(answering(max=2, expires="1m"))
    service = enter(dial, server).sub("ask.*", 1).settle()
    asker = enter(dial, server, "all").sub("in.*", 1)
    asker.pub("ask.x", reply="in.1").settle()
    assert len(service.flush()) == 1
    service.pub("in.1").settle()
    service.connect(user="u", **{"pass": "p"}).pub("in.1")
    assert texts(service) == [publish_violation("in.1")]
    assert len(asker.flush()) == 1


# The roles that are used in practice

ROLES = {
    "auth.mode": "users",
    "auth.users": [
        {"user": "dev1", "password": "p", "permissions": {
            "publish": {"allow": ["_INBOX.>", "device.dev1.>"]}, "subscribe": {"allow": ["_INBOX.>", "dev1.>"]}}},
        {"user": "module", "password": "p", "permissions": {
            "publish": {"allow": ["_INBOX.>", "client.*.>", "event.*.>", "*.>"]},
            "subscribe": {"allow": ["_INBOX.>", "client.*.>", "event.*.>", "device.*.>"]}}},
        {"user": "client", "password": "p", "permissions": {
            "publish": {"allow": ["_INBOX.>", "client.*.>"]}, "subscribe": {"allow": ["_INBOX.>"]}}},
    ],
}  # fmt: skip


def test_roles_of_devices_modules_and_clients(shared, dial):
    server = shared(ROLES)
    device = enter(dial, server, "dev1").sub("dev1.>", 1).sub("_INBOX.d.*", 2).settle()
    module = enter(dial, server, "module").sub("device.*.x.>", 1, queue="svc").sub("client.*.x.>", 2, queue="svc").settle()
    client = enter(dial, server, "client").sub("_INBOX.c.*", 1).settle()

    device.pub("device.dev1.x.v1.hello", b"h", reply="_INBOX.d.1").settle()
    assert module.msg().reply == b"_INBOX.d.1"
    module.pub("_INBOX.d.1", b"answer").pub("dev1.cmd", b"go").settle()
    assert [frame.body for frame in device.flush()] == [b"answer", b"go"]
    client.pub("client.dev1.x.v1.list", reply="_INBOX.c.1").settle()
    assert module.msg().reply == b"_INBOX.c.1"

    device.pub("device.dev2.x").sub("dev2.>", 3).sub(">", 4).sub("device.dev1.>", 5)
    assert texts(device) == [
        publish_violation("device.dev2.x"),
        subscribe_violation("dev2.>"),
        subscribe_violation(">"),
        subscribe_violation("device.dev1.>"),
    ]
    client.pub("dev1.cmd").sub("client.>", 3)
    assert texts(client) == [publish_violation("dev1.cmd"), subscribe_violation("client.>")]
