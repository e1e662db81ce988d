#!/usr/bin/env python3
"""Takes events from a JetStream stream of NATS and sends them to a Mesophyll master.

    pip install ./clients/python nats-py
    nats stream add events --subjects 'events.>' --defaults
    examples/bridge_nats.py --subject 'events.>' &
    nats publish events.discord '{"tenant": "guild:123", "name": "HELLO", "data": null}'

A message is acknowledged once its event has run or may have; one that is not comes again after a
minute. Its number in the stream is the event's key: within five minutes a master does not run it
twice.
"""

import argparse
import asyncio
import json
import signal

import nats
from mesophyll import AsyncClient, MesophyllError
from nats.js.api import ConsumerConfig


async def main(arguments):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = AsyncClient(arguments.api, act_as_any=True)
    connection = await nats.connect(arguments.nats)
    under_way = set()
    async with client, client.stream() as stream:

        async def settle(message, number, answer):
            try:
                await answer
            except MesophyllError as error:
                print(f"{number}: {error}", flush=True)
                if not error.sent:
                    return  # It did not run: it comes again.
            finally:
                under_way.discard(number)
            await message.ack()

        config = ConsumerConfig(ack_wait=arguments.again_s, max_ack_pending=4096)
        reader = await connection.jetstream().pull_subscribe(
            arguments.subject, durable=arguments.durable, config=config
        )
        async with asyncio.TaskGroup() as acknowledgements:
            while not stop.is_set():
                try:
                    messages = await reader.fetch(256, timeout=0.5)
                except nats.errors.TimeoutError:
                    continue
                for message in messages:
                    place, number = message.metadata, message.metadata.sequence.stream
                    if number in under_way:
                        continue  # It has waited here for so long that it came again.
                    try:
                        event = json.loads(message.data)
                        # Waits for a credit: what the master cannot take yet stays in NATS.
                        answer = await stream.send(
                            event["tenant"],
                            event["name"],
                            event.get("data"),
                            author=event.get("author"),
                            key=f"{place.stream}:{number}",
                        )
                    except (ValueError, TypeError, KeyError) as error:
                        print(f"{number}: no event: {error!r}", flush=True)
                        continue
                    under_way.add(number)
                    acknowledgements.create_task(settle(message, number, answer))
    await connection.flush()
    await connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--api", help="the master's address; else as the commands find it")
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--subject", default="events.>")
    parser.add_argument("--durable", default="mesophyll", help="the consumer's name")
    parser.add_argument("--again-s", type=float, default=60, help="when a message comes again")
    asyncio.run(main(parser.parse_args()))
