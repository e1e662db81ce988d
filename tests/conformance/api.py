"""Checks a running master's internal API against its own description with schemathesis (PyPI): `make conformance`.

It reads /openapi.json and asks what the description allows, and what it does not; every answer must be one that is described. Run a
second time with a description that is wrong on purpose, it must fail, or this script sees nothing.

usage: api.py MESOPHYLL
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "data" / "schemathesis.toml"
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
# Cases for each route; a route that is wrong mostly shows within a handful.
CASES = os.environ.get("CONFORMANCE_CASES", "25")
# Which cases: the same in each run, or a change could fail for what it did not do. Another number finds other cases.
SEED = os.environ.get("CONFORMANCE_SEED", "1")
# A killed worker stays stopped, and what needs one would only be answered NoWorker from then on. The suite
# cannot write lines of JSON (application/x-ndjson).
LEFT_OUT = "/i/(kill-worker|dispatch-events)"
MINUTES = 15


def start_master(mesophyll, folder):
    arguments = ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--workers", "1", "--store", "memory:"]
    environment = {"MESOPHYLL_API_SECRET": "a secret for this run only, of 32 bytes or more", "PATH": os.environ["PATH"]}
    command = [mesophyll, "master", *arguments, "--default-events", "*", "--deadline", "5s", "--log", "error"]
    log = open(folder / "master.log", "w")
    master = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    ready = json.loads(master.stdout.readline())
    minted = subprocess.run([mesophyll, "token", "--user", "7"], capture_output=True, text=True, env=environment, check=True)
    return master, f"http://{ready['api']}", minted.stdout.strip()


def check(description, api, token, folder, *more):
    """Whether every answer is as described; with what was said."""
    command = [SCHEMATHESIS, "--config-file", CONFIG, "run", description, "--url", api]
    command += ["--header", f"Authorization: Internal {token}", "--max-examples", CASES, "--seed", SEED, "--no-color", *more]
    # Its own folder: it leaves a cache of examples, which would make a run depend on the one before.
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=MINUTES * 60)
    return run.returncode == 0, run.stdout + run.stderr


def main(mesophyll):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        master, api, token = start_master(mesophyll, folder)
        try:
            with urllib.request.urlopen(f"{api}/openapi.json", timeout=30) as answer:
                description = json.load(answer)
            is_well, said = check(f"{api}/openapi.json", api, token, folder, "--exclude-path-regex", f"^{LEFT_OUT}")
            print(said[-1500:] if is_well else said)
            description["paths"]["/livez"]["get"]["responses"] = {"404": {"description": "wrong on purpose"}}
            wrong = folder / "wrong.json"
            wrong.write_text(json.dumps(description))
            passes_anything, _ = check(wrong, api, token, folder, "--include-path", "/livez")
            if passes_anything:
                print("a description that is wrong on purpose passed: the check sees nothing")
        finally:
            master.terminate()
            stopped = master.wait(timeout=60)
        if stopped != 0:
            print(f"the master ended with {stopped}:\n{(folder / 'master.log').read_text()[-3000:]}")
        return is_well and not passes_anything and stopped == 0


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1]) else 1)
