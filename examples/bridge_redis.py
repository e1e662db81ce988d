#!/usr/bin/env python3
"""Takes events from a Redis stream and sends them to a Mesophyll master.

    pip install ./clients/python redis
    examples/bridge_redis.py --stream events &
    redis-cli XADD events '*' event '{"tenant": "guild:123", "name": "HELLO", "data": null}'

An entry is acknowledged once its event has run or may have; until then it stays pending in the
group, and is taken again after a minute. Its id is the event's key: within five minutes a master
does not run it twice.
"""

import argparse
import asyncio
import functools
import json
import signal

from mesophyll import AsyncClient
from redis.asyncio import Redis
from redis.exceptions import ResponseError


async def main(arguments):
    name, group, stop = arguments.stream, arguments.group, asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = AsyncClient(arguments.api, act_as_any=True)
    async with Redis.from_url(arguments.redis) as redis, client, client.stream() as stream:
        try:
            await redis.xgroup_create(name, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

        under_way, done = set(), []

        def settle(entry, answer):
            under_way.discard(entry)
            error = answer.exception()
            if error:
                print(f"{entry.decode()}: {error}", flush=True)
            if error is None or error.sent:
                done.append(entry)  # What did not run stays pending.

        async def acknowledge():
            entries, done[:] = done[:], []
            if entries:
                await redis.xack(name, group, *entries)

        while not stop.is_set():
            # What a reader that is gone has left, and what is new.
            idle = {"min_idle_time": arguments.idle_ms, "count": 100}
            _, entries, *_ = await redis.xautoclaim(name, group, arguments.consumer, **idle)
            new = await redis.xreadgroup(
                group, arguments.consumer, {name: ">"}, count=256, block=100
            )
            for entry, fields in entries + (new[0][1] if new else []):
                if entry in under_way:
                    continue  # It has waited here for so long that it was taken again.
                try:
                    event = json.loads(fields[b"event"])
                    # Waits for a credit: what the master cannot take yet stays in Redis.
                    answer = await stream.send(
                        event["tenant"],
                        event["name"],
                        event.get("data"),
                        author=event.get("author"),
                        key=f"{name}:{entry.decode()}",
                    )
                except (ValueError, TypeError, KeyError) as error:
                    print(f"{entry.decode()}: no event: {error!r}", flush=True)
                    continue
                under_way.add(entry)
                answer.add_done_callback(functools.partial(settle, entry))
            await acknowledge()
        await stream.flush()
        await acknowledge()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--api", help="the master's address; else as the commands find it")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379")
    parser.add_argument("--stream", default="events")
    parser.add_argument("--group", default="mesophyll")
    parser.add_argument("--consumer", default="bridge", help="this reader's name in the group")
    parser.add_argument(
        "--idle-ms", type=int, default=60_000, help="when pending entries are taken again"
    )
    asyncio.run(main(parser.parse_args()))
