"""Runs a WebSocket conformance suite against both ends of the product's link: `make conformance`.

The suite is kosoku (PyPI), which has Autobahn's cases: framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing,
limits. The peer is tests/bin/ws_echo.rs. Cases of compression (12.*, 13.*) are left out, as the link does not offer it. Each
end is run twice: as it is, when no case may fail, and broken on purpose, when some must, or this script sees nothing.

usage: link.py WS_ECHO
"""

import asyncio
import os
import subprocess
import sys

from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver

COMPRESSION = ["12.*", "13.*"]
# Of all cases without compression; fewer would mean that the suite changed under us.
CASES_AT_LEAST = 290
# Where the broken end fails at once, so that its run is short.
SOME = ["1.*"]


async def drive_server(ws_echo, flags, include):
    """The suite's client against our accepting end."""
    server = subprocess.Popen(
        [ws_echo, "server", "127.0.0.1:0", *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        address = server.stdout.readline().strip()
        return await results_of(run_fuzzingclient(f"ws://{address}", include, COMPRESSION))
    finally:
        server.stdin.close()
        assert server.wait(timeout=30) == 0, "the echo server did not end well"


async def drive_client(ws_echo, flags, include):
    """Our connecting end against the suite's server."""
    async with run_fuzzingserver(include, COMPRESSION, host="127.0.0.1", port=0) as server:
        address = f"{server.address}:{server.port}"
        client = await asyncio.create_subprocess_exec(ws_echo, "client", address, *flags)
        results = await results_of(server.get_result())
        assert await asyncio.wait_for(client.wait(), 30) == 0, "the echo client did not end well"
        return results


async def results_of(run):
    """How many cases ran, and what the suite says of those that failed."""
    try:
        return len(await run), None
    except FailureError as failure:
        return len(failure.results), str(failure)


async def main(ws_echo):
    failed = False
    for name, drive in (("accepting end", drive_server), ("connecting end", drive_client)):
        cases, failure = await drive(ws_echo, [], None)
        print(f"{name}: {cases} cases, {'no failure' if failure is None else failure}", flush=True)
        failed |= failure is not None or cases < CASES_AT_LEAST
        cases, failure = await drive(ws_echo, ["--broken"], SOME)
        print(f"{name}, broken on purpose: {cases} cases, {'NOT SEEN' if failure is None else 'seen'}", flush=True)
        failed |= failure is None
    return 1 if failed else 0


if __name__ == "__main__":
    code = asyncio.run(asyncio.wait_for(main(sys.argv[1]), 900))
    # Without the interpreter's own end, at which threads of the suite have been seen to abort it.
    sys.stdout.flush()
    os._exit(code)
