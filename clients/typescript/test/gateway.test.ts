// The stream against a real master, which stops, dies and starts again; and the example.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { Client, MesophyllError, type Json, type Stream } from "mesophyll";

import { Master, ROOT, SECRET } from "./support.js";

const TENANTS = [1, 2, 3, 4, 5, 6, 7].map((number) => `guild:${number}`);
const COUNT = 700;

let folder: string;
let master: Master;
let client: Client;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "mesophyll-"));
  // On disk: what ran before the master died is to be seen after it.
  master = await Master.start(`redb:${folder}/store.redb`);
  client = new Client(master.options({ retryFor: 60_000 }));
});

afterEach(async () => {
  client.close();
  await master.stop();
  await rm(folder, { recursive: true });
});

/** What each tenant's template was run with, in order. */
function kept(): Promise<number[][]> {
  return Promise.all(
    TENANTS.map(async (tenant) => ((await client.dispatch(tenant, "KEPT")) ?? []) as number[]),
  );
}

/** Sends so many events, and does something in the middle; each event's failure, if it has one. */
async function push(stream: Stream, meanwhile?: () => Promise<void>, prefix?: string) {
  const failed: (MesophyllError | undefined)[] = [];
  let done: Promise<void> | undefined;
  for (let number = 0; number < COUNT; number += 1) {
    if (number === COUNT / 2) done = meanwhile?.();
    const key = prefix && prefix + number;
    const { answer } = await stream.send(TENANTS[number % TENANTS.length]!, "KEEP", number, {
      key,
    });
    answer.catch((error: MesophyllError) => (failed[number] = error));
  }
  await stream.flush();
  await done;
  return failed;
}

const EVERY = TENANTS.map((_, at) =>
  Array.from({ length: COUNT / TENANTS.length }, (_, n) => at + n * TENANTS.length),
);

test("no event is lost or doubled where the master stops", async () => {
  const stream = await client.stream();
  const restart = async () => {
    await master.stop();
    await master.start();
  };
  assert.deepEqual(await push(stream, restart, "k"), []);
  assert.deepEqual(await kept(), EVERY);
  await stream.close();
});

test("what a dead master had is unknown and the rest runs", async () => {
  const stream = await client.stream();
  const restart = async () => {
    await master.kill();
    await master.start();
  };
  const failed = await push(stream, restart);
  const runs = (await kept()).flat();
  assert.equal(new Set(runs).size, runs.length, "nothing ran twice");
  for (let number = 0; number < COUNT; number += 1) {
    const error = failed[number];
    if (error) assert.deepEqual([error.kind, error.sent], ["outcome_unknown", true]);
    else assert.ok(runs.includes(number), `${number} ran`);
  }
  for (const numbers of await kept())
    assert.deepEqual(
      numbers,
      [...numbers].sort((a, b) => a - b),
    );
  await stream.close();
});

test("each event has the answer that it wants", async () => {
  const stream = await client.stream();
  assert.deepEqual(await stream.dispatch("guild:1", "ECHO", { a: [2n ** 60n] }), {
    a: [2n ** 60n],
  });
  for (const want of ["ack", "none"] as const) {
    assert.equal(await stream.dispatch("guild:1", "ECHO", null, { want }), true);
  }
  const fails = (name: string, data: Json, options: object, kind: string, sent: boolean) =>
    assert.rejects(stream.dispatch("guild:1", name, data, options), (error: MesophyllError) => {
      assert.deepEqual([error.kind, error.sent], [kind, sent]);
      return true;
    });
  await fails("FAIL", null, {}, "script", true);
  await fails("WAIT", 9, { deadlineMs: 50 }, "deadline", true);
  await fails("ECHO", null, { author: "8" }, "refused", false);
  await stream.close();
  const stranger = new Client({
    addresses: master.api,
    secret: "of another master, of 32 bytes or more",
  });
  await assert.rejects(stranger.stream(), (error: MesophyllError) => error.kind === "refused");
});

test("the example sends recorded events and counts them", async () => {
  const example = join(import.meta.dirname, "../../../examples/gateway.js");
  const events = `${ROOT}examples/events.ndjson`;
  const gateway = spawn(
    process.execPath,
    [example, "--api", master.api, "--ndjson", events, "--repeat", "3"],
    {
      env: { ...process.env, MESOPHYLL_API_SECRET: SECRET },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  let said = "";
  gateway.stdout.on("data", (text) => (said += text));
  const [code] = await once(gateway, "close");
  const lines = (await readFile(events, "utf8")).trim().split("\n").length;
  assert.deepEqual([code, JSON.parse(said).outcomes], [0, { ok: 3 * lines }]);
});

test("a frame of Discord is an event of its tenant", async () => {
  const { eventOf } = await import("../../../examples/gateway.js");
  const event = (t: string, d: object) => eventOf({ op: 0, t, s: 5, d }, "abc");
  const message = event("MESSAGE_CREATE", { guild_id: "1", author: { id: "2" } });
  assert.deepEqual([message?.tenant, message?.author, message?.key], ["guild:1", "2", "abc:5"]);
  assert.equal(event("MESSAGE_CREATE", { author: { id: "2" } })?.tenant, "user:2");
  assert.equal(event("GUILD_CREATE", { id: "3", owner_id: "2" })?.tenant, "guild:3");
  assert.equal(event("TYPING_START", { user_id: "4" })?.tenant, "user:4");
  assert.equal(event("READY", { user: { id: "1" } }), undefined);
});
