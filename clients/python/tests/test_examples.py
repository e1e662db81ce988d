"""The examples: a gateway with recorded and with Discord's events, and bridges from brokers.

The bridges need a Redis at 127.0.0.1:6379 and a NATS with JetStream at 127.0.0.1:4222, or elsewhere
by MESOPHYLL_TEST_REDIS_URL and MESOPHYLL_TEST_NATS_URL. What they make there they delete.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import unittest
import uuid

from mesophyll import AsyncClient

from .support import ROOT, SECRET, Master, skipped

sys.path.insert(0, str(ROOT / "examples"))
import gateway  # An example, and no package.

REDIS = os.environ.get("MESOPHYLL_TEST_REDIS_URL", "redis://127.0.0.1:6379")
NATS = os.environ.get("MESOPHYLL_TEST_NATS_URL", "nats://127.0.0.1:4222")
ENVIRONMENT = {
    **os.environ,
    "MESOPHYLL_API_SECRET": SECRET,
    "PYTHONPATH": str(ROOT / "clients/python"),
}
# One that fails, two that cannot run as they are no event or none of a tenant's, and many.
EVENTS = [
    "no event",
    {"tenant": "guild:1", "name": "FAIL"},
    {"tenant": "nobody", "name": "KEEP", "data": -1},
    *(
        {"tenant": f"guild:{number % 3}", "name": "KEEP", "data": number, "author": "8"}
        for number in range(300)
    ),
]


def start(example, *arguments):
    command = [sys.executable, ROOT / "examples" / example, *arguments]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def until(bridge, condition):
    """Waits until a condition holds, while the bridge runs."""
    async with asyncio.timeout(60):
        while not await condition():
            assert bridge.poll() is None, f"the bridge has ended: {bridge.communicate()}"
            await asyncio.sleep(0.05)


class Gateways(unittest.TestCase):
    def test_recorded_events_are_sent_and_counted(self):
        master = Master()
        self.addCleanup(master.stop)
        events = str(ROOT / "examples/events.ndjson")
        process = start("gateway.py", "--api", master.api, "--ndjson", events, "--repeat", "3")
        out, errors = process.communicate(timeout=120)
        said = json.loads(out)
        lines = len((ROOT / "examples/events.ndjson").read_text().splitlines())
        self.assertEqual((process.returncode, said["outcomes"]), (0, {"ok": 3 * lines}), errors)

    def test_a_frame_of_discord_is_an_event_of_its_tenant(self):
        frame = lambda name, data: gateway.event_of({"op": 0, "t": name, "s": 5, "d": data}, "abc")
        message = frame("MESSAGE_CREATE", {"guild_id": "1", "author": {"id": "2"}})
        self.assertEqual(
            (message["tenant"], message["author"], message["key"]), ("guild:1", "2", "abc:5")
        )
        self.assertEqual(frame("MESSAGE_CREATE", {"author": {"id": "2"}})["tenant"], "user:2")
        self.assertEqual(frame("GUILD_CREATE", {"id": "3", "owner_id": "2"})["tenant"], "guild:3")
        self.assertEqual(frame("TYPING_START", {"user_id": "4"})["tenant"], "user:4")
        self.assertIsNone(frame("READY", {"user": {"id": "1"}}))

    def test_what_discord_sends_is_sent_on(self):
        async def receive():
            sent = asyncio.Queue()
            async with gateway.discord_client(lambda **event: sent.put(event)) as client:
                message = {"guild_id": "1", "author": {"id": "2"}, "content": "hello"}
                for name, data in [("READY", {"session_id": "abc"}), ("MESSAGE_CREATE", message)]:
                    client.dispatch(
                        "socket_raw_receive", json.dumps({"op": 0, "t": name, "s": 9, "d": data})
                    )
                return message, await asyncio.wait_for(sent.get(), 20)

        message, event = asyncio.run(receive())
        names = {"tenant": "guild:1", "name": "MESSAGE_CREATE", "author": "2", "key": "abc:9"}
        self.assertEqual(event, {**names, "data": message})


class Bridges(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.master = Master()
        self.addCleanup(self.master.stop)
        self.name = f"mesophyll-test-{uuid.uuid4().hex}"

    async def all_ran_in_order(self):
        async with AsyncClient(**self.master.options()) as client:
            kept = [await client.dispatch(f"guild:{tenant}", "KEPT") for tenant in range(3)]
        self.assertEqual(kept, [list(range(tenant, 300, 3)) for tenant in range(3)])

    def ends_well(self, bridge):
        bridge.send_signal(signal.SIGTERM)
        out, errors = bridge.communicate(timeout=60)
        self.assertEqual(bridge.returncode, 0, errors)
        # The one that failed may have run; the others come again and again.
        self.assertEqual(out.count("script: "), 1)
        self.assertGreater(out.count("bad_input: "), 1)
        self.assertGreater(out.count("no event: "), 1)

    async def test_redis_has_what_did_not_run_and_nothing_else(self):
        try:
            from redis.asyncio import Redis

            redis = Redis.from_url(REDIS)
            await redis.ping()
        except Exception as error:
            skipped(self, f"no Redis at {REDIS}: {error}")
        async with redis:
            for event in EVENTS:
                await redis.xadd(self.name, {"event": json.dumps(event)})
            options = ["--redis", REDIS, "--stream", self.name, "--idle-ms", "500"]
            bridge = start("bridge_redis.py", "--api", self.master.api, *options)
            try:

                async def is_done():
                    groups = await redis.xinfo_groups(self.name)
                    return groups and (groups[0]["lag"], groups[0]["pending"]) == (0, 2)

                async def came_again():
                    pending = await redis.xpending_range(self.name, "mesophyll", "-", "+", 10)
                    return all(entry["times_delivered"] > 2 for entry in pending)

                await until(bridge, is_done)
                await until(bridge, came_again)
                await self.all_ran_in_order()
                self.ends_well(bridge)
            finally:
                bridge.kill()
                bridge.communicate()
                await redis.delete(self.name)

    async def test_nats_has_what_did_not_run_and_nothing_else(self):
        try:
            import nats

            connection = await nats.connect(NATS, connect_timeout=5, allow_reconnect=False)
        except Exception as error:
            skipped(self, f"no NATS at {NATS}: {error}")
        jetstream = connection.jetstream()
        await jetstream.add_stream(name=self.name, subjects=[self.name])
        for event in EVENTS:
            await jetstream.publish(self.name, json.dumps(event).encode())
        options = ["--nats", NATS, "--subject", self.name, "--again-s", "0.5"]
        bridge = start("bridge_nats.py", "--api", self.master.api, *options)
        try:

            async def is_done():
                try:
                    consumer = await jetstream.consumer_info(self.name, "mesophyll")
                except nats.js.errors.NotFoundError:
                    return False
                left = (consumer.num_pending, consumer.num_ack_pending)
                return left == (0, 2) and consumer.num_redelivered == 2

            await until(bridge, is_done)
            await self.all_ran_in_order()
            self.ends_well(bridge)
        finally:
            bridge.kill()
            bridge.communicate()
            await jetstream.delete_stream(self.name)
            await connection.close()


if __name__ == "__main__":
    unittest.main()
