#!/usr/bin/env python3
"""Makes events.ndjson: a few hundred Discord events of many tenants, the same bytes every time.

It starts with the 22 recorded payloads of discord.ndjson as they are and goes on with variations of them: ten guilds in
which several people write messages and commands, react, join and leave, and four users who open the settings of a web
page. Needs nothing but Python's standard library.

    python3 examples/make_events.py            write events.ndjson
    python3 examples/make_events.py --check    exit 1 if events.ndjson is not what this script makes
"""

import copy
import itertools
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
RECORDED = HERE / "discord.ndjson"
EVENTS = HERE / "events.ndjson"

# A snowflake's upper bits are milliseconds since 2015; a tenant lives on worker (snowflake >> 22) % workers. Guild i gets
# a time that leaves i when divided by ten, so two workers, five and ten all get their share.
DISCORD_EPOCH_TIME_MS = 91_000_000_000
COMMANDS = ["!help", "!stats", "!top", "!joins", "!reactions", "!count", "!help stats", "!nosuchcommand"]
CHAT = [
    "good morning", "has anyone seen my keys?", "the release is out 🎉", "lol", "that is not how it works",
    "who wants to play tonight?", "ничего страшного", "今日はいい天気ですね", "`cargo build` takes an age here", "brb",
    "same", "I have fixed it, I think", "*looks around*", "can somebody review this, please?", "ok", "",
]
EMOJI = [{"id": None, "name": "👍"}, {"id": None, "name": "🎉"}, {"id": "238039508006862848", "name": "AkaShrug"}]
ROUNDS = 10


def snowflake(time_ms, low_bits):
    return (time_ms << 22) | low_bits


class Dice:
    """Random enough, and the same on every version of Python, which its own module does not promise."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % bound

    def one_of(self, choices):
        return choices[self.below(len(choices))]


class Guild:
    """One guild: who is in it, and the variations of recorded payloads that happen there."""

    def __init__(self, number, recorded, dice):
        self.id = str(snowflake(DISCORD_EPOCH_TIME_MS + 987_654_320 * number + number, 4096 + number))
        self.channel = str(int(self.id) + 1)
        self.number = number
        self.recorded = recorded
        self.dice = dice
        self.messages = 0
        self.members = [self.new_user(index) for index in range(4 + number)]

    def new_user(self, index):
        user_id = snowflake(DISCORD_EPOCH_TIME_MS + 5_000_000 * self.number + 7_000 * index, index + 1)
        return {
            "avatar": None,
            "discriminator": "0",
            "id": str(user_id),
            "username": "user-%04d" % ((user_id >> 22) % 9973),
        }

    def event(self, name, data, author=None):
        event = {"tenant": "guild:" + self.id, "name": name, "data": data}
        if author:
            event["author"] = author["id"]
        return event

    def like(self, name):
        """A copy of a recorded payload of this name, moved to this guild."""
        data = copy.deepcopy(self.recorded[name])
        for key, value in (("guild_id", self.id), ("channel_id", self.channel)):
            if key in data:
                data[key] = value
        return data

    def somebody(self):
        # The first members say more than the last ones, so that a list of who writes most has an order.
        return self.members[min(self.dice.below(len(self.members)), self.dice.below(len(self.members)))]

    def create(self):
        guild = self.like("GUILD_UPDATE")
        guild.update(id=self.id, name="guild %d" % self.number, owner_id=self.members[0]["id"], large=False)
        guild["member_count"] = len(self.members)
        guild["members"] = [
            {"user": member, "roles": [], "mute": False, "deaf": False, "joined_at": "2017-01-01T12:00:00.000000+00:00"}
            for member in self.members
        ]
        guild["channels"] = [{"id": self.channel, "name": "general", "position": 0, "type": 0}]
        return self.event("GUILD_CREATE", guild)

    def message(self, content, author=None):
        author = author or self.somebody()
        self.messages += 1
        data = self.like("MESSAGE_CREATE")
        data.update(
            id=str(int(self.channel) + 1000 + self.messages),
            author=author,
            content=content,
            guild_id=self.id,
            type=0,
            timestamp="2026-11-01T12:%02d:%02d.000000+00:00" % divmod(self.messages % 3600, 60),
        )
        return self.event("MESSAGE_CREATE", data, author)

    def reaction(self, name):
        user = self.somebody()
        data = self.like(name)
        data.update(
            guild_id=self.id,
            user_id=user["id"],
            message_id=str(int(self.channel) + 1000 + 1 + self.dice.below(max(1, self.messages))),
            emoji=self.dice.one_of(EMOJI),
        )
        return self.event(name, data, user)

    def join(self):
        user = self.new_user(len(self.members) + self.messages)
        self.members.append(user)
        data = {
            "guild_id": self.id, "user": user, "roles": [], "nick": None, "mute": False, "deaf": False,
            "joined_at": "2026-11-01T12:00:00.000000+00:00",
        }
        return self.event("GUILD_MEMBER_ADD", data, user)

    def leave(self):
        data = self.like("GUILD_MEMBER_REMOVE")
        data["user"] = self.members.pop()
        return self.event("GUILD_MEMBER_REMOVE", data, data["user"])

    def round(self, number):
        """What happens in one round: mostly talk, and one of the rarer things."""
        yield self.message(self.dice.one_of(CHAT))
        yield self.message(COMMANDS[(number + self.number) % len(COMMANDS)])
        yield self.reaction("MESSAGE_REACTION_ADD")
        rarer = (number * 3 + self.number) % 6
        if rarer == 0:
            yield self.join()
        elif rarer == 1 and len(self.members) > 3:
            yield self.leave()
        elif rarer == 2:
            yield self.reaction("MESSAGE_REACTION_REMOVE")
        elif rarer == 3:
            yield self.event("TYPING_START", self.like("TYPING_START"), self.somebody())
        elif rarer == 4:
            yield self.event("CHANNEL_PINS_UPDATE", self.like("CHANNEL_PINS_UPDATE"))
        else:
            yield self.message(self.dice.one_of(CHAT))


def user_events(number):
    """What a user tenant sees: a visit to the settings page of a web site."""
    user = str(snowflake(DISCORD_EPOCH_TIME_MS + 60_000 * number + number, 77))
    tenant = {"tenant": "user:" + user, "author": user}
    yield dict(tenant, name="WebGetSettings", data={"path": "/settings"})
    yield dict(tenant, name="WebExecuteSetting", data={"setting": "theme", "value": "dark" if number % 2 else "light"})
    yield dict(tenant, name="INTERACTION_CREATE", data={"type": 2, "data": {"name": "stats"}, "user": {"id": user}})


def all_events():
    recorded = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    yield from recorded
    payloads = {event["name"]: event["data"] for event in reversed(recorded)}
    # The longest recorded message has embeds of two KiB: one of those is enough.
    payloads["MESSAGE_CREATE"] = min((e["data"] for e in recorded if e["name"] == "MESSAGE_CREATE"), key=lambda d: len(str(d)))
    guilds = [Guild(number, payloads, Dice(number)) for number in range(10)]
    for guild in guilds:
        yield guild.create()
    for number in range(ROUNDS):
        # All guilds at once, as they come in from a gateway.
        for at_once in itertools.zip_longest(*(guild.round(number) for guild in guilds)):
            yield from filter(None, at_once)
        if number < 4:
            yield from user_events(number)
    for guild in guilds:
        yield guild.message("!top", guild.members[0])
        yield guild.message("!stats", guild.members[1])


def main():
    lines = [json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in all_events()]
    text = "".join(lines).encode()
    if sys.argv[1:] == ["--check"]:
        if EVENTS.read_bytes() != text:
            sys.exit("examples/events.ndjson is not what examples/make_events.py makes: run it")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        EVENTS.write_bytes(text)
        print("%d events, %d bytes" % (len(lines), len(text)))


if __name__ == "__main__":
    main()
