"""Starts real masters. `MESOPHYLL` names the program: `make clients-test` sets it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = os.environ.get("MESOPHYLL", ROOT / "target/debug/mesophyll")
SECRET = "a secret of these tests, of 32 bytes or more"


class Master:
    """A master with one worker. Killed and started again it has the same address."""

    def __init__(self, *arguments, store="memory:"):
        self.arguments = [f"--store={store}", "--workers=1", "--default-events=*", *arguments]
        self.api = "127.0.0.1:0"
        self.log = tempfile.TemporaryFile("w+")
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [
                PROGRAM,
                "master",
                f"--api={self.api}",
                "--listen=127.0.0.1:0",
                "--log=error",
                f"--templates={ROOT / 'clients/template'}",
                *self.arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={"PATH": os.environ["PATH"], "MESOPHYLL_API_SECRET": SECRET},
        )
        ready = self.process.stdout.readline()
        if not ready:
            self.log.seek(0)
            raise AssertionError(f"the master did not start: {self.log.read()}")
        self.api = json.loads(ready)["api"]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        self.log.seek(0)
        log = self.log.read()
        self.log.close()
        assert code == 0, f"the master ended with {code}: {log[-3000:]}"

    def options(self, **more):
        return {"addresses": self.api, "secret": SECRET, "user": 7, **more}


def skipped(test, why):
    """Says loudly that a test could not run; CI fails over it (tests/it/support/skip.rs)."""
    line = f"SKIPPED: {test}: {why}\n"
    # Not what `unittest -b` keeps to itself.
    sys.__stderr__.write(f"\n{line}")
    if path := os.environ.get("MESOPHYLL_TEST_SKIPPED_FILE"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
    test.skipTest(why)
