"""The stream against a real master, which stops, dies and starts again."""

import asyncio
import collections
import tempfile
import unittest

from mesophyll import AsyncClient, Client, MesophyllError

from .support import Master

TENANTS = [f"guild:{number}" for number in range(1, 8)]


class Streams(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        # On disk: what ran before the master died is to be seen after it.
        self.master = Master(store=f"redb:{self.folder.name}/store.redb")
        self.addCleanup(lambda: self.master.stop())

    async def kept(self, client):
        """What each tenant's template was run with, in order."""
        return {tenant: await client.dispatch(tenant, "KEPT") or [] for tenant in TENANTS}

    async def push(self, stream, count, meanwhile=None, after=0, **options):
        """Sends so many events; each event's number with its answer."""
        answers = []
        for number in range(count):
            if number == after and meanwhile:
                await meanwhile()
            tenant = TENANTS[number % len(TENANTS)]
            key = options.get("key") and f"{options['key']}{number}"
            answers.append(await stream.send(tenant, "KEEP", number, key=key))
        await stream.flush()
        return [None if answer.exception() is None else answer.exception() for answer in answers]

    async def test_every_event_runs_once_and_in_order(self):
        async with AsyncClient(**self.master.options()) as client, client.stream() as stream:
            failed = await self.push(stream, 700)
            self.assertEqual([error for error in failed if error], [])
            expected = {
                tenant: list(range(at, 700, len(TENANTS))) for at, tenant in enumerate(TENANTS)
            }
            self.assertEqual(await self.kept(client), expected)

    async def test_each_event_has_the_answer_that_it_wants(self):
        async with AsyncClient(**self.master.options()) as client, client.stream() as stream:
            self.assertEqual(await stream.dispatch("guild:1", "ECHO", {"a": [1]}), {"a": [1]})
            self.assertIs(await stream.dispatch("guild:1", "ECHO", want="ack"), True)
            self.assertIs(await stream.dispatch("guild:1", "ECHO", want="none"), True)
            self.assertEqual(await stream.dispatch("guild:1", "AUTHOR", key="once"), "7")
            for call, kind, sent in [
                (stream.dispatch("guild:1", "FAIL"), "script", True),
                (stream.dispatch("guild:1", "WAIT", 9, deadline_ms=50), "deadline", True),
                (stream.dispatch("guild:1", "ECHO", author="8"), "refused", False),
                (stream.dispatch("nobody", "ECHO"), "bad_input", False),
                (stream.dispatch("guild:1", "AUTHOR", key="once"), "duplicate", True),
            ]:
                with self.assertRaises(MesophyllError) as caught:
                    await call
                self.assertEqual((caught.exception.kind, caught.exception.sent), (kind, sent))

    async def test_no_event_is_lost_or_doubled_where_the_master_stops(self):
        async def restart():
            self.master.process.terminate()
            await asyncio.to_thread(self.master.process.wait)
            self.master.process.stdout.close()
            self.master.start()

        async with (
            AsyncClient(**self.master.options(retry_for=60)) as client,
            client.stream() as stream,
        ):
            restarts = []
            begin = lambda: asyncio.sleep(0, restarts.append(asyncio.create_task(restart())))
            failed = await self.push(stream, 700, begin, after=350, key="k")
            await restarts[0]
            self.assertEqual([error for error in failed if error], [])
            expected = {
                tenant: list(range(at, 700, len(TENANTS))) for at, tenant in enumerate(TENANTS)
            }
            self.assertEqual(await self.kept(client), expected)

    async def test_what_a_dead_master_had_is_unknown_and_the_rest_runs(self):
        async def restart():
            self.master.kill()
            self.master.start()

        async with (
            AsyncClient(**self.master.options(retry_for=60)) as client,
            client.stream() as stream,
        ):
            failed = await self.push(stream, 700, restart, after=350)
            kept = await self.kept(client)
        runs = collections.Counter(number for numbers in kept.values() for number in numbers)
        unknown = {number for number, error in enumerate(failed) if error}
        self.assertEqual(
            {(failed[n].kind, failed[n].sent) for n in unknown} - {("outcome_unknown", True)}, set()
        )
        # It had no more than the credits.
        self.assertLessEqual(len(unknown), 350)
        self.assertEqual({number for number in range(700) if runs[number] != 1} - unknown, set())
        self.assertLessEqual(max(runs.values()), 1)
        for numbers in kept.values():
            self.assertEqual(numbers, sorted(numbers))

    async def test_what_has_a_key_runs_though_the_master_died(self):
        async def restart():
            self.master.kill()
            self.master.start()

        async with (
            AsyncClient(**self.master.options(retry_for=60)) as client,
            client.stream() as stream,
        ):
            failed = await self.push(stream, 700, restart, after=350, key="k")
            self.assertEqual([error for error in failed if error], [])
            kept = await self.kept(client)
        runs = collections.Counter(number for numbers in kept.values() for number in numbers)
        self.assertEqual([number for number in range(700) if not runs[number]], [])

    async def test_a_worker_that_is_restarted_is_waited_for(self):
        async with (
            AsyncClient(**self.master.options(retry_for=60)) as client,
            client.stream() as stream,
        ):

            async def restart():
                await client.kill_worker(0)
                await client.restart_worker(0)

            failed = await self.push(stream, 700, restart, after=350)
            kept = await self.kept(client)
        runs = collections.Counter(number for numbers in kept.values() for number in numbers)
        unknown = {number for number, error in enumerate(failed) if error}
        self.assertEqual({failed[n].kind for n in unknown} - {"outcome_unknown"}, set())
        self.assertEqual({number for number in range(700) if runs[number] != 1} - unknown, set())
        self.assertLessEqual(max(runs.values()), 1)


class Threads(unittest.TestCase):
    def test_the_stream_for_threads_blocks_and_answers(self):
        master = Master()
        with Client(**master.options()) as client, client.stream(credits=3) as stream:
            answers = [stream.send("guild:1", "ECHO", number) for number in range(50)]
            self.assertEqual([answer.result(20) for answer in answers], list(range(50)))
            with self.assertRaises(MesophyllError) as caught:
                stream.dispatch("guild:1", "FAIL")
            self.assertEqual(caught.exception.kind, "script")
        with self.assertRaises(MesophyllError) as caught:
            Client(master.api, secret="of another master, of 32 bytes or more").stream().__enter__()
        self.assertEqual(caught.exception.kind, "refused")
        master.stop()


if __name__ == "__main__":
    unittest.main()
