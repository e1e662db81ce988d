"""The stream: what the client does, against a master of our own whose every frame is told."""

import asyncio
import json
import unittest

from websockets.asyncio.server import serve

from mesophyll import AsyncStream, MesophyllError
from mesophyll.endpoint import Endpoint


class Told:
    """A master that does what a test tells it, on one link after the other."""

    async def __aenter__(self):
        self.links = asyncio.Queue()
        self.refuse = None
        self.server = await serve(self._handle, "127.0.0.1", 0, process_request=self._greet)
        self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    def _greet(self, connection, request):
        self.authorization = request.headers["Authorization"]
        return self.refuse and connection.respond(self.refuse, "")

    async def _handle(self, link):
        self.links.put_nowait(link)
        await link.wait_closed()

    async def link(self, credits=100, max_bytes=10_000):
        """The next link, greeted."""
        link = await self.links.get()
        await link.send(json.dumps({"hello": {"credits": credits, "max_bytes": max_bytes}}))
        return Link(link)

    def open(self, **options):
        return AsyncStream(Endpoint(self.address, token="t"), **options)


class Link:
    def __init__(self, link):
        self.link = link

    async def event(self):
        async with asyncio.timeout(20):
            return json.loads(await self.link.recv())

    async def events(self, count):
        return [await self.event() for _ in range(count)]

    async def answer(self, event, ok=None, error=None, sent=False):
        frame = {"id": event["id"], "ok": ok}
        if error:
            frame = {"id": event["id"], "error": {"kind": error, "sent": sent, "message": "told"}}
        await self.link.send(json.dumps(frame))

    async def quiet(self):
        """Nothing more comes: what would is there before a ping is answered."""
        await (await self.link.ping())
        try:
            async with asyncio.timeout(0):
                raise AssertionError(f"it sent {await self.link.recv()}")
        except TimeoutError:
            pass


class Streams(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.told = await self.enterAsyncContext(Told())

    async def open(self, credits=100, max_bytes=10_000, **options):
        """A stream and its first link."""
        hello = asyncio.create_task(self.told.link(credits, max_bytes))
        stream = await self.enterAsyncContext(self.told.open(**options))
        return stream, await hello

    async def fails(self, answer, kind, sent):
        with self.assertRaises(MesophyllError) as caught:
            await answer
        self.assertEqual((caught.exception.kind, caught.exception.sent), (kind, sent))

    async def test_an_event_has_what_was_said_and_its_own_answer(self):
        stream, link = await self.open()
        one = await stream.send("guild:1", "A", {"x": 2**63}, author=8, deadline_ms=9, key="k")
        other = await stream.send("user:2", "B", want="ack")
        events = await link.events(2)
        self.assertEqual(self.told.authorization, "Internal t")
        said = {"tenant": "guild:1", "name": "A", "data": {"x": 2**63}, "want": "result"}
        self.assertEqual(events[0], {"id": 1, **said, "author": "8", "deadline_ms": 9, "key": "k"})
        self.assertEqual(
            events[1], {"id": 2, "tenant": "user:2", "name": "B", "data": None, "want": "ack"}
        )
        await link.answer(events[1], True)
        await link.answer(events[0], {"$buffer": "AP8="})
        self.assertEqual(await other, True)
        self.assertEqual(await one, b"\x00\xff")

    async def test_no_more_are_under_way_than_there_are_credits(self):
        stream, link = await self.open(credits=2)
        sends = [asyncio.create_task(stream.send("guild:1", str(n))) for n in range(4)]
        first = await link.events(2)
        await link.quiet()
        await link.answer(first[1])
        third = await link.event()
        await link.quiet()
        for event in [first[0], third]:
            await link.answer(event)
        await link.answer(await link.event())
        answers = [await send for send in sends]
        await asyncio.gather(*answers)
        self.assertEqual([first[0]["name"], first[1]["name"], third["name"]], ["0", "1", "2"])

    async def test_what_was_not_run_goes_before_what_is_behind_it(self):
        stream, link = await self.open()
        answers = [await stream.send("guild:1", "0"), await stream.send("guild:1", "1")]
        events = await link.events(2)
        await link.answer(events[0], error="busy")
        await link.answer(events[1], error="no_worker")
        # The first is tried again alone; what comes meanwhile waits, but that of other tenants.
        again = await link.event()
        answers += [await stream.send("guild:1", "2"), await stream.send("guild:2", "other")]
        other = await link.event()
        await link.quiet()
        self.assertEqual((again["name"], other["name"]), ("0", "other"))
        await link.answer(again, error="not_sent")
        again = await link.event()
        await link.quiet()
        await link.answer(again, "ran")
        rest = await link.events(2)
        self.assertEqual([again["name"], *(event["name"] for event in rest)], ["0", "1", "2"])
        for event in [other, *rest]:
            await link.answer(event, "ran")
        self.assertEqual(await asyncio.gather(*answers), ["ran"] * 4)

    async def test_what_may_have_run_is_not_repeated(self):
        stream, link = await self.open()
        for kind, sent in [
            ("busy", True),
            ("script", True),
            ("refused", False),
            ("duplicate", False),
        ]:
            answer = await stream.send("guild:1", "A")
            await link.answer(await link.event(), error=kind, sent=sent)
            await self.fails(answer, kind, sent)
        await link.quiet()

    async def test_what_is_not_run_for_too_long_fails(self):
        stream, link = await self.open(retry_for=0)
        answer = await stream.send("guild:1", "A")
        await link.answer(await link.event(), error="busy")
        await self.fails(answer, "busy", False)

    async def test_after_a_lost_link_only_what_has_a_key_is_repeated(self):
        stream, link = await self.open()
        unkeyed = await stream.send("guild:1", "0")
        keyed = [await stream.send("guild:1", str(n), key=str(n)) for n in (1, 2)]
        held = await stream.send("guild:2", "held")
        events = await link.events(4)
        await link.answer(events[3], error="busy")
        await link.answer(events[1], error="busy")
        await link.quiet()
        link.link.transport.abort()
        link = await self.told.link()
        await self.fails(unkeyed, "outcome_unknown", True)
        events = await link.events(3)
        self.assertEqual([event["name"] for event in events], ["1", "2", "held"])
        for event in events:
            await link.answer(event, event["name"])
        self.assertEqual([await keyed[0], await keyed[1], await held], ["1", "2", "held"])

    async def test_after_a_goodbye_new_events_wait_for_the_next_link(self):
        stream, link = await self.open()
        first, refused = await stream.send("guild:1", "0"), await stream.send("guild:1", "1")
        events = await link.events(2)
        await link.link.send('{"goodbye":{"reason":"it stops"}}')
        await link.answer(events[1], error="not_sent")
        await link.answer(events[0], "ran")
        self.assertEqual(await first, "ran")
        late = await stream.send("guild:1", "2")
        await link.quiet()
        await link.link.close(1001)
        link = await self.told.link()
        events = await link.events(2)
        self.assertEqual([event["name"] for event in events], ["1", "2"])
        for event in events:
            await link.answer(event, "ran")
        self.assertEqual([await refused, await late], ["ran", "ran"])

    async def test_a_link_with_fewer_credits_gets_no_more(self):
        stream, link = await self.open(credits=4)
        answers = [await stream.send("guild:1", str(n), key=str(n)) for n in range(4)]
        await link.events(4)
        link.link.transport.abort()
        link = await self.told.link(credits=1)
        last = asyncio.create_task(stream.send("guild:1", "4"))
        for number in range(5):
            event = await link.event()
            self.assertEqual(event["name"], str(number))
            await link.quiet()
            await link.answer(event)
        await asyncio.gather(*answers, await last)

    async def test_what_nobody_waits_for_is_heard_of_when_it_fails(self):
        heard = asyncio.Queue()
        stream, link = await self.open(
            on_failure=lambda tenant, error: heard.put_nowait((tenant, error.kind))
        )
        answer = await stream.send("guild:1", "A", want="none")
        self.assertIs(await answer, True)
        event = await link.event()
        self.assertEqual(event["want"], "ack")
        await link.answer(event, error="refused")
        self.assertEqual(await heard.get(), ("guild:1", "refused"))

    async def test_too_large_an_event_is_not_sent(self):
        stream, link = await self.open(max_bytes=200)
        await self.fails(await stream.send("guild:1", "A", "é" * 100), "bad_input", False)
        self.assertFalse((await stream.send("guild:1", "A", "é" * 10)).done())
        await link.answer(await link.event())

    async def test_a_stream_that_is_refused_says_so(self):
        self.told.refuse = 401
        with self.assertRaises(MesophyllError) as caught:
            await self.told.open().__aenter__()
        self.assertEqual(caught.exception.kind, "refused")

    async def test_what_is_under_way_when_it_closes_is_unknown(self):
        hello = asyncio.create_task(self.told.link(credits=1))
        async with self.told.open() as stream:
            link = await hello
            answer = await stream.send("guild:1", "A")
            waits = asyncio.create_task(stream.send("guild:1", "B"))
            await link.event()
            await stream.close(0)
            await self.fails(answer, "outcome_unknown", True)
            await self.fails(waits, "not_sent", False)
            await self.fails(stream.send("guild:1", "C"), "not_sent", False)


if __name__ == "__main__":
    unittest.main()
