// Plain calls against a real master.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { Client, MesophyllError, toJson } from "mesophyll";

import { Master } from "./support.js";
import { FORMS } from "./forms.js";

let master: Master;
let client: Client;

before(async () => {
  master = await Master.start();
  client = new Client(master.options());
});

after(async () => {
  client.close();
  await master.stop();
});

/** How a call failed. */
async function failure(
  call: Promise<unknown>,
): Promise<[string, string, boolean, number | undefined]> {
  try {
    await call;
  } catch (error) {
    if (error instanceof MesophyllError) return [error.kind, error.code, error.sent, error.status];
    throw error;
  }
  throw new Error("it did not fail");
}

test("an event is answered", async () => {
  const data = { content: "héllo", id: 2n ** 63n + 1n, none: null, list: [1.5, true] };
  assert.deepEqual(await client.dispatch("guild:1", "ECHO", data), data);
  assert.deepEqual(await client.dispatch("user:1", "ECHO", 1, { nowait: true }), {});
  assert.equal(await client.dispatch("guild:1", "AUTHOR"), "7");
});

test("another author needs a token that may name one", async () => {
  const [kind, code] = await failure(client.dispatch("guild:1", "AUTHOR", null, { author: "8" }));
  assert.deepEqual([kind, code], ["refused", "Restricted"]);
  const acting = new Client(master.options({ actAsAny: true }));
  assert.equal(await acting.dispatch("guild:1", "AUTHOR", null, { author: "8" }), "8");
  acting.close();
});

test("errors say why and whether it ran", async () => {
  const late = client.dispatch("guild:1", "WAIT", 9, { deadline_ms: 50 });
  assert.deepEqual(await failure(late), ["deadline", "Deadline", true, 504]);
  assert.deepEqual(await failure(client.dispatch("guild:1", "FAIL")), [
    "script",
    "ScriptError",
    true,
    422,
  ]);
  assert.deepEqual(await failure(client.getTenantState("guild:999")), [
    "not_found",
    "NotFound",
    false,
    404,
  ]);
  const stranger = new Client({
    addresses: master.api,
    secret: "of another master, of 32 bytes or more",
  });
  assert.equal((await failure(stranger.listWorkers()))[0], "invalid_token");
});

test("values come back from records and results", async () => {
  // The store takes finite numbers only, and in Luau all maps are tables.
  const stored = FORMS.filter(([, json]) => !/\$float|\$map|\$string_map/.test(toJson(json))).map(
    ([value]) => value,
  );
  await client.kvSet("guild:2", "values", stored, ["test"]);
  assert.deepEqual((await client.kvGet("guild:2", "values", ["test"]))?.value, stored);
  const code = 'local ctx = ...; return ctx.KV:getrecord("values", {"test"}).value';
  assert.deepEqual(await client.runScript("guild:2", "read", code), stored);
});

test("records are found and deleted", async () => {
  await client.kvSet("guild:3", "one", 1, ["a"]);
  await client.kvSet("guild:3", "other", 2, ["b"]);
  assert.deepEqual(
    (await client.kvFind("guild:3", "o%")).map(({ key }) => key),
    ["one", "other"],
  );
  assert.deepEqual(
    (await client.kvFind("guild:3", "o%", { scopes: ["b"] })).map(({ key }) => key),
    ["other"],
  );
  assert.deepEqual((await client.kvListScopes("guild:3")).sort(), ["a", "b"]);
  assert.equal(await client.kvDelete("guild:3", "one", ["a"]), undefined);
  assert.equal(await client.kvGet("guild:3", "one", ["a"]), null);
});

test("many calls share few connections", async () => {
  const few = new Client(master.options({ connections: 2 }));
  const calls = Array.from({ length: 200 }, (_, n) => few.dispatch(`guild:${n % 5}`, "ECHO", n));
  assert.deepEqual(
    await Promise.all(calls),
    Array.from({ length: 200 }, (_, n) => n),
  );
  few.close();
});

test("a master that starts again is waited for", async () => {
  const other = await Master.start();
  const patient = new Client(other.options({ retryFor: 60_000 }));
  const impatient = new Client(other.options({ retryFor: 0 }));
  assert.equal(await patient.dispatch("guild:1", "ECHO", 1), 1);
  await other.kill();
  assert.deepEqual((await failure(impatient.dispatch("guild:1", "ECHO"))).slice(0, 3), [
    "not_sent",
    "NoWorker",
    false,
  ]);
  const answer = patient.dispatch("guild:1", "ECHO", 2);
  await other.start();
  assert.equal(await answer, 2);
  patient.close();
  await other.stop();
});

test("only what was not sent is repeated", async () => {
  const error = { message: "", code: "Busy", sent: false };
  const cases: [([number, unknown] | null)[], unknown][] = [
    [
      [
        [503, error],
        [503, { ...error, code: "NoWorker" }],
        [200, 5],
      ],
      5,
    ],
    [[[503, { ...error, sent: true }]], "busy"],
    [[[502, { ...error, code: "OutcomeUnknown", sent: true }]], "outcome_unknown"],
    [[[422, { ...error, code: "Refused" }]], "refused"],
    // It died after it had read the request.
    [[null], "outcome_unknown"],
    [[[500, "a proxy's words"]], "outcome_unknown"],
  ];
  for (const [answers, outcome] of cases) {
    let asked = 0;
    // A server of our own: what a master answers when it is busy, stops, or dies.
    const server = createServer((request, response) => {
      request.resume().on("end", () => {
        const answer = answers[asked++];
        if (!answer) return request.socket.destroy();
        response.writeHead(answer[0]).end(JSON.stringify(answer[1]));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const told = new Client({
      addresses: `127.0.0.1:${(server.address() as AddressInfo).port}`,
      token: "t",
    });
    const said = await told
      .dispatch("guild:1", "ECHO")
      .catch((failed: MesophyllError) => failed.kind);
    assert.deepEqual([said, asked], [outcome, answers.length]);
    told.close();
    server.close();
  }
});
