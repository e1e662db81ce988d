#!/usr/bin/env python3
"""A gateway: takes a bot's events from Discord with discord.py and sends them to a master.

    pip install ./clients/python discord.py
    export MESOPHYLL_API_SECRET=… DISCORD_TOKEN=…
    examples/gateway.py

With `--ndjson FILE` it sends recorded events instead, in the form that `mesophyll replay` reads,
and says how many there were and what became of them.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import sys
import time

from mesophyll import AsyncClient


def event_of(frame, session):
    """What a frame of Discord's says to a tenant: a guild, or a user in a direct message."""
    data = frame["d"] if isinstance(frame["d"], dict) else {}
    guild = (
        data["id"]
        if frame["t"].startswith("GUILD_") and "owner_id" in data
        else data.get("guild_id")
    )
    user = (data.get("author") or data.get("user") or {}).get("id") or data.get("user_id")
    if not (guild or user) or frame["t"] in ("READY", "RESUMED"):
        return None
    # A session that resumes sends events again, with the number that they had.
    key = f"{session}:{frame['s']}"
    tenant = f"guild:{guild}" if guild else f"user:{user}"
    return {"tenant": tenant, "name": frame["t"], "data": data, "author": user, "key": key}


def discord_client(send):
    """A client of Discord that sends each event on."""
    import discord

    class Gateway(discord.Client):
        session = None

        async def on_socket_raw_receive(self, message):
            frame = json.loads(message)
            if frame["t"] == "READY":
                self.session = frame["d"]["session_id"]
            event = frame["op"] == 0 and event_of(frame, self.session)
            if event:
                # Where there is no credit this waits, and events after it behind it.
                await send(**event)

    intents = discord.Intents.default()
    intents.message_content = intents.members = True
    return Gateway(intents=intents, enable_debug_events=True)


async def recorded_events(send, path, repeat):
    """Sends the events of a file, one after the other."""
    for _ in range(repeat):
        with sys.stdin if path == "-" else open(path, encoding="utf-8") as lines:
            for line in lines:
                await send(**json.loads(line))


async def main(arguments):
    outcomes = collections.Counter()

    def count(answer):
        error = answer.exception()
        outcomes[error.kind if error else "ok"] += 1
        if error and outcomes[error.kind] == 1:
            print(f"the first of its kind: {error}", file=sys.stderr)

    # `act_as_any`: each event names its own author.
    client = AsyncClient(arguments.api, user=arguments.user, act_as_any=True)
    async with client, client.stream(credits=arguments.credits) as stream:

        async def send(tenant, name, data=None, author=None, key=None):
            answer = await stream.send(
                tenant, name, data, author=author, want=arguments.want, key=key
            )
            answer.add_done_callback(count)

        started = time.monotonic()
        if arguments.ndjson:
            await recorded_events(send, arguments.ndjson, arguments.repeat)
        else:
            with contextlib.suppress(asyncio.CancelledError):
                async with discord_client(send) as discord:
                    await discord.start(os.environ["DISCORD_TOKEN"])
        await stream.flush()
    seconds = time.monotonic() - started
    print(
        json.dumps({"events": outcomes.total(), "outcomes": outcomes, "seconds": round(seconds, 3)})
    )
    return 0 if set(outcomes) <= {"ok"} else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--api", help="the master's address; else as the commands find it")
    parser.add_argument("--user", default=0, help="the user id of the bot")
    parser.add_argument("--ndjson", metavar="FILE", help="recorded events; '-' is stdin")
    parser.add_argument("--repeat", type=int, default=1, help="read the file so often")
    parser.add_argument(
        "--want", choices=("result", "ack"), default="result", help="what is waited for"
    )
    parser.add_argument("--credits", type=int, help="at most so many events under way")
    sys.exit(asyncio.run(main(parser.parse_args())))
