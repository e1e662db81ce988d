"""A host process: what templates may do at Discord, by ctx.Host (docs/operations.md).

    mesophyll token --user 7 --serve discord.send,discord.mute     → MESOPHYLL_HOST_TOKEN
    mesophyll host allow guild:123 discord.send
    python3 host_discord.py

    ctx.Host:call("discord.send", { channel = "9", text = "hello" })   → the message's id
    ctx.Host:call("discord.mute", { user = "7", seconds = 600 })       → nothing

Needs the package websockets. The variables: MESOPHYLL_API (default ws://127.0.0.1:7451),
MESOPHYLL_HOST_TOKEN, DISCORD_TOKEN, DISCORD_API (default https://discord.com/api/v10).

It decides what a tenant may do: a guild sends to its own channels and mutes its own members, and
nobody mentions everyone. Discord limits how often each route may be called, and says so with 429;
calls of one route wait their turn here, and a call that would wait longer than its deadline fails
before anything was sent.
"""

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone

import websockets

API = os.environ.get("DISCORD_API", "https://discord.com/api/v10")
CREDITS = 64
# A call is not begun if less than this is left of its time.
RESERVE_SECONDS = 2.0


class Refused(Exception):
    """What the template is told."""


class Route:
    """Calls of one route: one at a time, and none before Discord wants it."""

    def __init__(self):
        self.turn = asyncio.Lock()
        self.not_before = 0.0

    async def ask(self, method, path, body, until):
        async with self.turn:
            while True:
                wait = self.not_before - time.monotonic()
                if time.monotonic() + max(wait, 0.0) > until - RESERVE_SECONDS:
                    raise Refused("Discord wants us to wait longer than the call may take")
                if wait > 0:
                    await asyncio.sleep(wait)
                status, headers, answer = await asyncio.to_thread(request, method, path, body)
                if headers.get("X-RateLimit-Remaining") == "0":
                    self.put_off(headers.get("X-RateLimit-Reset-After"))
                if status == 429:
                    # Nothing was done: it may be asked again.
                    self.put_off((answer or {}).get("retry_after", 1.0))
                    continue
                if status >= 400:
                    raise Refused(f"Discord says {status}: {(answer or {}).get('message', '')}")
                return answer

    def put_off(self, seconds):
        self.not_before = max(self.not_before, time.monotonic() + float(seconds or 1.0))


def request(method, path, body):
    """Blocks: until Discord has answered, or 10 s."""
    asked = urllib.request.Request(
        API + path,
        method=method,
        data=json.dumps(body).encode(),
        headers={
            "Authorization": "Bot " + os.environ.get("DISCORD_TOKEN", ""),
            "Content-Type": "application/json",
            "User-Agent": "DiscordBot (https://example.com, 1.0)",
        },
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            text = answer.read()
            return answer.status, answer.headers, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        text = error.read()
        try:
            return error.code, error.headers, json.loads(text)
        except ValueError:
            return error.code, error.headers, None


def snowflake(args, name):
    value = args.get(name) if isinstance(args, dict) else None
    if not isinstance(value, str) or not value.isdecimal() or len(value) > 20:
        raise Refused(f"{name} is an id, a text of digits")
    return value


class Discord:
    def __init__(self):
        self.routes = {}
        self.guild_of = {}

    def route(self, name):
        if len(self.routes) > 10_000:
            busy = {name: route for name, route in self.routes.items() if route.turn.locked()}
            self.routes = busy
        return self.routes.setdefault(name, Route())

    async def check_channel(self, guild, channel, until):
        """A guild sends to its own channels only."""
        if channel not in self.guild_of:
            if len(self.guild_of) > 10_000:
                self.guild_of.clear()
            # A guild that asks for many waits for itself only.
            route = self.route(f"channels of {guild}")
            found = await route.ask("GET", f"/channels/{channel}", None, until)
            self.guild_of[channel] = found.get("guild_id")
        if self.guild_of[channel] != guild:
            raise Refused("this channel is not of your guild")

    async def send(self, guild, args, until):
        channel, text = snowflake(args, "channel"), args.get("text")
        if not isinstance(text, str) or not 1 <= len(text) <= 2000:
            raise Refused("text has 1 to 2,000 characters")
        await self.check_channel(guild, channel, until)
        body = {"content": text, "allowed_mentions": {"parse": ["users"]}}
        path = f"/channels/{channel}/messages"
        return (await self.route(path).ask("POST", path, body, until))["id"]

    async def mute(self, guild, args, until):
        user, seconds = snowflake(args, "user"), args.get("seconds")
        if not isinstance(seconds, (int, float)) or not 0 <= seconds <= 28 * 86_400:
            raise Refused("seconds are a number of at most 28 days")
        ends = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        body = {"communication_disabled_until": ends.isoformat()}
        path = f"/guilds/{guild}/members/{user}"
        await self.route(f"/guilds/{guild}/members").ask("PATCH", path, body, until)


async def answer(discord, socket, call):
    kind, _, guild = call["tenant"].partition(":")
    until = time.monotonic() + call["deadline_ms"] / 1000
    serves = {"discord.send": discord.send, "discord.mute": discord.mute}
    try:
        if kind != "guild":
            raise Refused("only guilds may do this")
        line = {"id": call["id"], "ok": await serves[call["name"]](guild, call["args"], until)}
    except Refused as error:
        line = {"id": call["id"], "error": str(error)}
    except Exception as error:  # One call's fault is not that of the others.
        print(f"{call['name']} of {call['tenant']}: {error!r}", flush=True)
        line = {"id": call["id"], "error": "the host process failed"}
    try:
        await socket.send(json.dumps(line))
    except websockets.ConnectionClosed:
        pass


async def serve(discord, names):
    url = os.environ.get("MESOPHYLL_API", "ws://127.0.0.1:7451") + "/i/host"
    headers = {"Authorization": "Internal " + os.environ["MESOPHYLL_HOST_TOKEN"]}
    async with websockets.connect(url, additional_headers=headers) as socket:
        await socket.send(json.dumps({"serve": names, "credits": CREDITS}))
        first = json.loads(await socket.recv())
        if first.get("ok") is not True:
            raise SystemExit(f"the master refuses: {first}")
        print("serving " + ", ".join(names), flush=True)
        under_way = set()
        async for text in socket:
            line = json.loads(text)
            if "id" in line:
                task = asyncio.create_task(answer(discord, socket, line))
                under_way.add(task)
                task.add_done_callback(under_way.discard)


async def main():
    discord, pause = Discord(), 1.0
    while True:
        try:
            await serve(discord, ["discord.send", "discord.mute"])
            pause = 1.0
        except (OSError, websockets.WebSocketException) as error:
            print(f"no connection: {error}; again in {pause:.0f} s", flush=True)
        await asyncio.sleep(pause)
        pause = min(2 * pause, 30.0)


if __name__ == "__main__":
    asyncio.run(main())
