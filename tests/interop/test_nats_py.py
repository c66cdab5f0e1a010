# SPDX-License-Identifier: Apache-2.0
"""nats-py, unmodified, against a running server."""

import asyncio

import nats
import nats.errors
import nats.js.errors
import pytest

from wire import PATIENCE

DEADLINE_S = 10 * PATIENCE


def scenario(coroutine):
    """Runs a coroutine to its end, bounded."""

    async def bounded():
        return await asyncio.wait_for(coroutine, 4 * DEADLINE_S)

    return asyncio.run(bounded())


async def connect(server, **options):
    return await nats.connect(server.url, **{"allow_reconnect": False, **options})


async def flush(client):
    """This client writes a PING past what it still buffers, so only the second one is a barrier."""
    await client.flush()
    await client.flush()


async def until(condition):
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.002)
    assert condition()


def test_publish_and_subscribe(routed):
    async def body():
        receiver, sender = await connect(routed), await connect(routed)
        news = await receiver.subscribe("news.*")
        limited = await receiver.subscribe("news.>")
        await limited.unsubscribe(limit=3)
        await flush(receiver)
        for n in range(2000):
            await sender.publish(f"news.{n % 3}", b"%d" % n)
        await flush(sender)
        for n in range(2000):
            msg = await news.next_msg(DEADLINE_S)
            assert (msg.subject, msg.data) == (f"news.{n % 3}", b"%d" % n)
        for n in range(3):
            assert (await limited.next_msg(DEADLINE_S)).data == b"%d" % n
        await news.unsubscribe()
        await flush(receiver)
        await sender.publish("news.1", b"late")
        await flush(sender)
        await flush(receiver)
        assert news.pending_msgs == 0
        assert limited.pending_msgs == 0
        assert receiver.is_connected and receiver.last_error is None
        await receiver.close()
        await sender.close()

    scenario(body())


def test_queue_groups(routed):
    async def body():
        total, counts, full = 2000, [0, 0, 0], asyncio.Event()
        members = [await connect(routed) for _ in counts]
        for at, member in enumerate(members):

            async def handle(_, at=at):
                counts[at] += 1
                if sum(counts) == total:
                    full.set()

            await member.subscribe("work.>", queue="q", cb=handle)
            await flush(member)
        sender = await connect(routed)
        for n in range(total):
            await sender.publish(f"work.{n}", b"")
        await flush(sender)
        await asyncio.wait_for(full.wait(), DEADLINE_S)
        for member in members:
            await flush(member)
        assert sum(counts) == total and all(counts)
        for client in [*members, sender]:
            await client.close()

    scenario(body())


def test_requests_headers_and_no_responders(routed):
    async def body():
        service, asker = await connect(routed), await connect(routed)

        async def answer(msg):
            headers = {"mir-msg": "answer", "asked": msg.headers["mir-msg"]}
            await service.publish(msg.reply, msg.data, headers=headers)

        await service.subscribe("svc.echo", cb=answer)
        await flush(service)
        for n in range(200):
            got = await asker.request("svc.echo", b"%d" % n, DEADLINE_S, headers={"mir-msg": f"q{n}"})
            assert got.data == b"%d" % n
            assert got.headers == {"mir-msg": "answer", "asked": f"q{n}"}
        many = await asyncio.gather(
            *(asker.request("svc.echo", b"%d" % n, DEADLINE_S, headers={"mir-msg": "x"}) for n in range(300))
        )
        assert [msg.data for msg in many] == [b"%d" % n for n in range(300)]
        with pytest.raises(nats.errors.NoRespondersError):
            await asker.request("svc.nobody", b"", DEADLINE_S)
        with pytest.raises(nats.errors.NoRespondersError):
            await asker.request("svc.nobody", b"", DEADLINE_S, old_style=True)
        with pytest.raises(nats.js.errors.ServiceUnavailableError):
            await asker.jetstream().account_info()
        assert asker.is_connected
        await service.close()
        await asker.close()

    scenario(body())


def test_drain_loses_nothing(routed):
    async def body():
        closed, got = asyncio.Event(), []

        async def on_close():
            closed.set()

        async def handle(msg):
            got.append(msg.data)
            await asyncio.sleep(0)

        receiver, sender = await connect(routed, closed_cb=on_close), await connect(routed)
        await receiver.subscribe("drain", cb=handle)
        await flush(receiver)
        for n in range(1000):
            await sender.publish("drain", b"%d" % n)
        await flush(sender)
        await receiver.drain()
        await asyncio.wait_for(closed.wait(), DEADLINE_S)
        assert got == [b"%d" % n for n in range(1000)]
        with pytest.raises(nats.errors.NoRespondersError):
            await sender.request("drain", b"", DEADLINE_S)
        await sender.close()

    scenario(body())


def test_max_payload(shared):
    async def body():
        client = await connect(shared({"limits.max_payload": "64KiB"}))
        assert client.max_payload == 65536
        with pytest.raises(nats.errors.MaxPayloadError):
            await client.publish("a", b"x" * 65537)
        sub = await client.subscribe("a")
        await client.publish("a", b"x" * 65536)
        assert len((await sub.next_msg(DEADLINE_S)).data) == 65536
        await client.close()

    scenario(body())


@pytest.mark.deviation("its reset may overtake its error")
def test_max_payload_is_enforced(shared):
    """The client is told to believe in a larger limit: the server ends it with its reason."""

    async def body():
        closed = asyncio.Event()

        async def on_close():
            closed.set()

        client = await connect(shared({"limits.max_payload": "64KiB"}), closed_cb=on_close)
        client._max_payload = 1 << 20
        await client.publish("a", b"x" * 65537)
        await asyncio.wait_for(closed.wait(), DEADLINE_S)
        assert "maximum payload violation" in str(client.last_error).lower()

    scenario(body())


def test_permission_errors_leave_the_connection_open(shared):
    permissions = {"publish": {"allow": ["ok.>"]}, "subscribe": {"allow": ["ok.>"]}}
    users = [{"user": "u", "password": "p", "permissions": permissions}]

    async def body():
        server = shared({"auth.mode": "users", "auth.users": users})
        errors = []

        async def on_error(error):
            errors.append(str(error).lower())

        client = await connect(server, user="u", password="p", error_cb=on_error)
        await client.publish("no.publish", b"")
        await client.subscribe("no.plain")
        await client.subscribe("no.queued", queue="work")
        await flush(client)
        for text in (
            'permissions violation for publish to "no.publish"',
            'permissions violation for subscription to "no.plain"',
            'permissions violation for subscription to "no.queued" using queue "work"',
        ):
            await until(lambda text=text: any(text in error for error in errors))
        sub = await client.subscribe("ok.x")
        await client.publish("ok.x", b"still")
        assert (await sub.next_msg(DEADLINE_S)).data == b"still"
        assert client.is_connected
        await client.close()

    scenario(body())


def test_wrong_credentials(shared):
    async def body():
        server = shared({"auth.mode": "token", "auth.token": "s3cret"})
        for options in ({}, {"token": "wrong"}, {"user": "a", "password": "s3cret"}):
            with pytest.raises(nats.errors.Error) as refused:
                await connect(server, **options)
            assert "authorization violation" in str(refused.value).lower()
        client = await connect(server, token="s3cret")
        await flush(client)
        await client.close()

    scenario(body())


def test_42_reconnects_and_subscribes_again(launch):
    server = launch()

    async def body():
        reconnected = asyncio.Event()

        async def on_reconnect():
            reconnected.set()

        async def on_error(_):
            pass

        client = await connect(
            server, allow_reconnect=True, reconnect_time_wait=0.05, max_reconnect_attempts=-1,
            reconnected_cb=on_reconnect, error_cb=on_error,
        )  # fmt: skip
        plain = await client.subscribe("self.*")
        queued = await client.subscribe("self.*", queue="q")
        await flush(client)
        for turn in range(3):
            await client.publish("self.x", b"%d" % turn)
            assert (await plain.next_msg(DEADLINE_S)).data == b"%d" % turn
            assert (await queued.next_msg(DEADLINE_S)).data == b"%d" % turn
            if turn < 2:
                reconnected.clear()
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await asyncio.wait_for(reconnected.wait(), DEADLINE_S)
        await client.close()

    scenario(body())
