"""The stream of events (`GET /i/stream`): one connection, many events under way, in order.

Every event that is not settled holds one of the credits that the master gave, from `send` until its
answer: where there is none, `send` waits, and so does its caller's source. Nothing is dropped.
"""

import asyncio
import bisect
import concurrent.futures
import itertools
import json
import logging
import threading
import time
from collections import deque

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from .endpoint import backoff
from .errors import MesophyllError
from .values import decode, given

log = logging.getLogger(__name__)
to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
ANSWER_MAX_BYTES = 64 * 1024 * 1024
# The token, or the address, is wrong: to come again does not help.
REFUSALS = (400, 401, 403, 404)


class Event:
    """An event that is not settled. `number` counts them in the order of `send`."""

    __slots__ = ("number", "tenant", "text", "key", "answer", "give_up", "attempts")

    def __init__(self, number, tenant, text, key, answer):
        self.number, self.tenant, self.text = number, tenant, text
        self.key, self.answer, self.give_up, self.attempts = key, answer, None, 0

    def __lt__(self, other):
        return self.number < other.number


class Lane:
    """What waits of a tenant whose event was refused: that one goes first, and alone."""

    __slots__ = ("events", "first")

    def __init__(self):
        self.events, self.first = [], None


class AsyncStream:
    """A stream for asyncio; `async with` opens and closes it.

    `credits`: at most so many events under way, if the master allows more. `retry_for`: how long an
    event is repeated that was not run, in seconds, and the first link tried.
    `on_failure(tenant, error)` hears of events that were sent with want="none"; without it the log
    does.
    """

    def __init__(self, endpoint, *, credits=None, retry_for=30.0, on_failure=None):
        self._endpoint, self._most, self._retry_for = endpoint, credits, retry_for
        self._on_failure = on_failure or (
            lambda tenant, error: log.warning("%s: %s", tenant, error)
        )
        self._numbers, self._ids = itertools.count(), itertools.count(1)
        # Of the master's hello: how many may be under way, and how large one may be.
        self._credits = self._max_bytes = 0
        self._room = asyncio.Semaphore(0)
        # So many credits more were handed out than there are.
        self._debt = 0
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        # Where an event is: under way, by the id on the link; ready, in order; or held back.
        self._under_way, self._ready, self._lanes = {}, deque(), {}
        # Ids whose frames have not been written.
        self._unwritten, self._written = deque(), asyncio.Event()
        self._is_up = self._is_closed = False
        self._failed = None
        self._runner = None

    async def __aenter__(self):
        self._hello = asyncio.get_running_loop().create_future()
        self._runner = asyncio.create_task(self._run())
        try:
            await asyncio.wait_for(asyncio.shield(self._hello), max(self._retry_for, 1))
        except BaseException:
            await self.close(0)
            raise
        return self

    async def __aexit__(self, kind, *_):
        await self.close(60.0 if kind is None else 0)

    async def send(
        self, tenant, name, data=None, *, author=None, deadline_ms=None, want="result", key=None
    ):
        """Hands an event over as soon as there is a credit; its answer is the future's result.

        Of `want` "ack" and "none" that is True once the event is in its tenant's queue; of "none"
        it is there at once. An event with a `key` may be repeated after the link broke: within five
        minutes a master runs what has the same key only once.
        """
        # For its credit to come back, a master has to say that it took the event.
        asked = "ack" if want == "none" else want
        author = None if author is None else str(author)
        text = to_json(
            {
                "tenant": tenant,
                "name": name,
                "data": data,
                "want": asked,
                **given(author=author, deadline_ms=deadline_ms, key=key),
            }
        )
        await self._room.acquire()
        if self._failed or self._is_closed:
            self._room.release()
            raise self._failed or MesophyllError("not_sent", "the stream is closed", sent=False)
        answer = asyncio.get_running_loop().create_future()
        event = Event(next(self._numbers), tenant, text, key, answer)
        self._open += 1
        self._idle.clear()
        if len(text) + 24 > self._max_bytes and len(text.encode()) + 24 > self._max_bytes:
            self._fail(
                event, MesophyllError("bad_input", "larger than an event may be", sent=False)
            )
        elif tenant in self._lanes:
            self._lanes[tenant].events.append(event)
        else:
            self._ready.append(event)
            self._pump()
        if want == "none":
            answer.add_done_callback(lambda answer: self._hear(tenant, answer))
            answer = asyncio.get_running_loop().create_future()
            answer.set_result(True)
        return answer

    async def dispatch(self, tenant, name, data=None, **options):
        """Sends an event and waits for its result."""
        return await (await self.send(tenant, name, data, **options))

    async def flush(self):
        """Waits until every event is settled."""
        await self._idle.wait()

    async def close(self, timeout=60.0):
        """Waits for what is under way, but no longer than this, and closes the link."""
        try:
            await asyncio.wait_for(self.flush(), timeout)
        except asyncio.TimeoutError:
            pass
        self._is_closed = True
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)
        self._end(MesophyllError("not_sent", "the stream was closed", sent=False))

    # --- The link ---------------------------------------------------------------------------------

    async def _run(self):
        attempt = 0
        while True:
            host, port, is_tls = place = self._endpoint.place
            url = f"{'wss' if is_tls else 'ws'}://{host}:{port}/i/stream"
            options = {"ssl": self._endpoint.ssl} if is_tls and self._endpoint.ssl else {}
            headers = {"Authorization": self._endpoint.authorization()}
            try:
                async with connect(
                    url,
                    additional_headers=headers,
                    compression=None,
                    proxy=None,
                    max_size=ANSWER_MAX_BYTES,
                    **options,
                ) as link:
                    self._greet(json.loads(await asyncio.wait_for(link.recv(), 20))["hello"])
                    attempt = 0
                    await self._serve(link)
            except InvalidStatus as error:
                if error.response.status_code in REFUSALS:
                    message = f"the master refuses the stream: {error.response.status_code}"
                    return self._end(MesophyllError("refused", message, sent=False))
            except (
                OSError,
                ValueError,
                KeyError,
                asyncio.TimeoutError,
                WebSocketException,
            ) as error:
                log.info("the stream to %s:%s: %r", host, port, error)
            self._lose()
            self._endpoint.leave(place)
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async def _serve(self, link):
        writer = asyncio.create_task(self._write(link))
        try:
            async for text in link:
                frame = json.loads(text)
                if "goodbye" in frame:
                    # It answers what is under way and closes; what is new waits for the next link.
                    self._is_up = False
                    self._recall()
                else:
                    self._take(frame)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, link):
        while True:
            await self._written.wait()
            self._written.clear()
            while self._unwritten:
                identity = self._unwritten.popleft()
                await link.send(f'{{"id":{identity},{self._under_way[identity].text[1:]}')

    def _greet(self, hello):
        credits = min(hello["credits"], self._most or hello["credits"])
        self._max_bytes = hello["max_bytes"]
        more, self._credits = credits - self._credits, credits
        self._debt -= more
        while self._debt < 0:
            self._debt += 1
            self._room.release()
        self._is_up = True
        self._pump()
        if not self._hello.done():
            self._hello.set_result(True)

    def _recall(self):
        """What has not been written is ready again."""
        self._ready.extend(self._under_way.pop(identity) for identity in self._unwritten)
        self._unwritten.clear()

    def _lose(self):
        """The link is lost: what may be repeated is ready again, in its order."""
        self._is_up = False
        self._recall()
        under_way, self._under_way = self._under_way, {}
        lanes, self._lanes = self._lanes, {}
        again = [event for lane in lanes.values() for event in lane.events]
        for event in under_way.values():
            if event.key is not None:
                again.append(event)
            else:
                text = "the link broke before an answer came"
                self._fail(event, MesophyllError("outcome_unknown", text, sent=True))
        self._ready = deque(sorted([*self._ready, *again]))

    def _end(self, error):
        """No link will come again: everything is settled."""
        self._failed = self._failed or error
        self._lose()
        while self._ready:
            self._fail(self._ready.popleft(), self._failed)
        # Each that waits for a credit hands it on.
        self._room.release()
        if not self._hello.done():
            self._hello.set_exception(error)
            self._hello.exception()  # It is not an error that this one is not looked at.

    # --- Events -----------------------------------------------------------------------------------

    def _pump(self):
        while self._is_up and self._ready and len(self._under_way) < self._credits:
            event = self._ready.popleft()
            lane = self._lanes.get(event.tenant)
            if lane:
                bisect.insort(lane.events, event)
            else:
                self._start(event)

    def _start(self, event):
        identity = next(self._ids)
        self._under_way[identity] = event
        self._unwritten.append(identity)
        self._written.set()

    def _take(self, frame):
        event = self._under_way.pop(frame.get("id"), None)
        if event is None:
            raise ValueError(f"an answer to nothing that was asked: {frame}")
        said = frame.get("error")
        error = said and MesophyllError(said["kind"], said["message"], sent=said["sent"])
        if error and error.passes and not self._is_late(event):
            self._hold(event)
        else:
            if error:
                self._fail(event, error)
            else:
                self._settle(event, frame["ok"])
            lane = self._lanes.get(event.tenant)
            if lane and lane.first is event:
                # It was taken: those behind it may go.
                del self._lanes[event.tenant]
                self._ready = deque(sorted([*lane.events, *self._ready]))
        self._pump()

    def _is_late(self, event):
        now = time.monotonic()
        event.give_up = event.give_up or now + self._retry_for
        return now >= event.give_up

    def _hold(self, event):
        """The event was not run: it is repeated, before those of its tenant that come after it."""
        lane = self._lanes.get(event.tenant)
        is_first = lane is None or lane.first is event
        lane = self._lanes.setdefault(event.tenant, Lane())
        bisect.insort(lane.events, event)
        if is_first:
            lane.first = None
            loop = asyncio.get_running_loop()
            loop.call_later(backoff(event.attempts), self._try_again, event.tenant, lane)

    def _try_again(self, tenant, lane):
        # Where the link ended meanwhile, all of them are ready again.
        if self._is_up and self._lanes.get(tenant) is lane:
            lane.first = lane.events.pop(0)
            lane.first.attempts += 1
            self._start(lane.first)

    def _settle(self, event, answer):
        if not event.answer.done():
            event.answer.set_result(decode(answer))
        self._release()

    def _fail(self, event, error):
        if not event.answer.done():
            event.answer.set_exception(error)
        self._release()

    def _release(self):
        self._open -= 1
        if self._open == 0:
            self._idle.set()
        if self._debt > 0:
            self._debt -= 1
        else:
            self._room.release()

    def _hear(self, tenant, answer):
        error = None if answer.cancelled() else answer.exception()
        if error:
            self._on_failure(tenant, error)


class Stream:
    """The same for threads: `send` blocks until there is a credit, and its answer is a
    `concurrent.futures.Future`. Runs an `AsyncStream` on a thread of its own."""

    def __init__(self, endpoint, **options):
        self._stream = AsyncStream(endpoint, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="mesophyll", daemon=True
        )

    def __enter__(self):
        self._thread.start()
        try:
            self._wait(self._stream.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind, *_):
        self.close(60.0 if kind is None else 0)

    def send(self, tenant, name, data=None, **options):
        """Hands an event over as soon as there is a credit: see `AsyncStream.send`."""
        answer = concurrent.futures.Future()

        async def send():
            sent = await self._stream.send(tenant, name, data, **options)
            sent.add_done_callback(lambda done: _copy(done, answer))

        self._wait(send())
        return answer

    def dispatch(self, tenant, name, data=None, **options):
        """Sends an event and waits for its result."""
        return self.send(tenant, name, data, **options).result()

    def flush(self):
        """Waits until every event is settled."""
        self._wait(self._stream.flush())

    def close(self, timeout=60.0):
        """Waits for what is under way, but no longer than this, and closes the link."""
        try:
            self._wait(self._stream.close(timeout))
        finally:
            self._stop()

    def _wait(self, task):
        return asyncio.run_coroutine_threadsafe(task, self._loop).result()

    def _stop(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _copy(done, answer):
    error = done.exception()
    if error:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
