// The stream: what the client does, against a master of our own whose every frame is told.

import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, test } from "node:test";
import { Client, MesophyllError, type Stream, type StreamOptions } from "mesophyll";
import { WebSocketServer, type WebSocket } from "ws";

/** A link of a master that does what a test tells it. */
class Link {
  private readonly events: any[] = [];
  private heard = () => {};

  constructor(readonly socket: WebSocket) {
    socket.on("message", (text) => {
      this.events.push(JSON.parse(String(text)));
      this.heard();
    });
  }

  say(frame: object): void {
    this.socket.send(JSON.stringify(frame));
  }

  answer(event: { id: number }, ok: unknown = null): void {
    this.say({ id: event.id, ok });
  }

  refuse(event: { id: number }, kind: string, sent = false): void {
    this.say({ id: event.id, error: { kind, sent, message: "told" } });
  }

  async event(): Promise<any> {
    while (this.events.length === 0) await new Promise<void>((resolve) => (this.heard = resolve));
    return this.events.shift();
  }

  async take(count: number): Promise<any[]> {
    const taken = [];
    while (taken.length < count) taken.push(await this.event());
    return taken;
  }

  /** Nothing more comes: what would is there before a ping is answered. */
  async quiet(): Promise<void> {
    this.socket.ping();
    await once(this.socket, "pong");
    assert.deepEqual(this.events, []);
  }
}

let server: WebSocketServer;
let client: Client;
const streams: Stream[] = [];
let hellos: ((link: Link) => void)[] = [];
let early: Link[] = [];

beforeEach(async () => {
  [hellos, early] = [[], []];
  server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  await once(server, "listening");
  server.on("connection", (socket) => {
    const link = new Link(socket);
    const hello = hellos.shift();
    hello ? hello(link) : early.push(link);
  });
  client = new Client({
    addresses: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: "t",
  });
});

afterEach(async () => {
  await Promise.all(streams.splice(0).map((stream) => stream.close(0)));
  for (const socket of server.clients) socket.terminate();
  server.close();
});

/** The next link, greeted. */
async function nextLink(credits = 100, max_bytes = 10_000): Promise<Link> {
  const link = early.shift() ?? (await new Promise<Link>((resolve) => hellos.push(resolve)));
  link.say({ hello: { credits, max_bytes } });
  return link;
}

async function open(
  credits = 100,
  maxBytes = 10_000,
  options: StreamOptions = {},
): Promise<[Stream, Link]> {
  const [link, stream] = await Promise.all([nextLink(credits, maxBytes), client.stream(options)]);
  streams.push(stream);
  return [stream, link];
}

const fails = (answer: Promise<unknown>, kind: string, sent: boolean) =>
  assert.rejects(answer, (error: MesophyllError) => error.kind === kind && error.sent === sent);

test("an event has what was said and its own answer", async () => {
  const [stream, link] = await open();
  const one = await stream.send(
    "guild:1",
    "A",
    { x: 2n ** 63n },
    { author: "8", deadlineMs: 9, key: "k" },
  );
  const other = await stream.send("user:2", "B", undefined, { want: "ack" });
  const events = await link.take(2);
  const said = { tenant: "guild:1", name: "A", data: { x: 2 ** 63 }, want: "result" };
  assert.deepEqual(events[0], { id: 1, ...said, author: "8", deadline_ms: 9, key: "k" });
  assert.deepEqual(events[1], { id: 2, tenant: "user:2", name: "B", data: null, want: "ack" });
  link.answer(events[1], true);
  link.answer(events[0], { $buffer: "AP8=" });
  assert.equal(await other.answer, true);
  assert.deepEqual(await one.answer, new Uint8Array([0, 255]));
});

test("no more are under way than there are credits", async () => {
  const [stream, link] = await open(2);
  const sends = [0, 1, 2, 3].map((n) => stream.dispatch("guild:1", String(n)));
  const first = await link.take(2);
  await link.quiet();
  link.answer(first[1]);
  const third = await link.event();
  await link.quiet();
  [first[0], third].forEach((event) => link.answer(event));
  link.answer(await link.event());
  await Promise.all(sends);
  assert.deepEqual([first[0].name, first[1].name, third.name], ["0", "1", "2"]);
});

test("what was not run goes before what is behind it", async () => {
  const [stream, link] = await open();
  const answers = [stream.dispatch("guild:1", "0"), stream.dispatch("guild:1", "1")];
  const events = await link.take(2);
  link.refuse(events[0], "busy");
  link.refuse(events[1], "no_worker");
  // The first is tried again alone; what comes meanwhile waits, but that of other tenants.
  let again = await link.event();
  answers.push(stream.dispatch("guild:1", "2"), stream.dispatch("guild:2", "other"));
  const other = await link.event();
  await link.quiet();
  assert.deepEqual([again.name, other.name], ["0", "other"]);
  link.refuse(again, "not_sent");
  again = await link.event();
  await link.quiet();
  link.answer(again, "ran");
  const rest = await link.take(2);
  assert.deepEqual([again.name, ...rest.map(({ name }) => name)], ["0", "1", "2"]);
  [other, ...rest].forEach((event) => link.answer(event, "ran"));
  assert.deepEqual(await Promise.all(answers), ["ran", "ran", "ran", "ran"]);
});

test("what may have run is not repeated", async () => {
  const [stream, link] = await open();
  for (const [kind, sent] of [
    ["busy", true],
    ["script", true],
    ["refused", false],
    ["duplicate", true],
  ] as const) {
    const answer = stream.dispatch("guild:1", "A");
    link.refuse(await link.event(), kind, sent);
    await fails(answer, kind, sent);
  }
  await link.quiet();
});

test("what is not run for too long fails", async () => {
  const [stream, link] = await open(100, 10_000, { retryFor: 0 });
  const answer = stream.dispatch("guild:1", "A");
  link.refuse(await link.event(), "busy");
  await fails(answer, "busy", false);
});

test("after a lost link only what has a key is repeated", async () => {
  const [stream, first] = await open();
  const unkeyed = stream.dispatch("guild:1", "0");
  const keyed = ["1", "2"].map((key) => stream.dispatch("guild:1", key, null, { key }));
  const held = stream.dispatch("guild:2", "held");
  const events = await first.take(4);
  first.refuse(events[3], "busy");
  first.refuse(events[1], "busy");
  await first.quiet();
  first.socket.terminate();
  const [link] = await Promise.all([nextLink(), fails(unkeyed, "outcome_unknown", true)]);
  const again = await link.take(3);
  assert.deepEqual(
    again.map(({ name }) => name),
    ["1", "2", "held"],
  );
  again.forEach((event) => link.answer(event, event.name));
  assert.deepEqual(await Promise.all([...keyed, held]), ["1", "2", "held"]);
});

test("after a goodbye new events wait for the next link", async () => {
  const [stream, first] = await open();
  const answers = [stream.dispatch("guild:1", "0"), stream.dispatch("guild:1", "1")];
  const events = await first.take(2);
  first.say({ goodbye: { reason: "it stops" } });
  first.refuse(events[1], "not_sent");
  first.answer(events[0], "ran");
  assert.equal(await answers[0], "ran");
  answers.push(stream.dispatch("guild:1", "2"));
  await first.quiet();
  first.socket.close(1001);
  const link = await nextLink();
  const again = await link.take(2);
  assert.deepEqual(
    again.map(({ name }) => name),
    ["1", "2"],
  );
  again.forEach((event) => link.answer(event, "ran"));
  assert.deepEqual(await Promise.all(answers), ["ran", "ran", "ran"]);
});

test("a link with fewer credits gets no more", async () => {
  const [stream, first] = await open(4);
  const answers = ["0", "1", "2", "3"].map((key) => stream.dispatch("guild:1", key, null, { key }));
  await first.take(4);
  first.socket.terminate();
  const link = await nextLink(1);
  answers.push(stream.dispatch("guild:1", "4"));
  for (let number = 0; number < 5; number += 1) {
    const event = await link.event();
    assert.equal(event.name, String(number));
    await link.quiet();
    link.answer(event);
  }
  await Promise.all(answers);
});

test("what is not waited for is heard of when it fails", async () => {
  let hear: (heard: [string, string]) => void;
  const heard = new Promise((resolve) => (hear = resolve));
  const [stream, link] = await open(100, 10_000, {
    onFailure: (tenant, error) => hear([tenant, error.kind]),
  });
  assert.equal(await stream.dispatch("guild:1", "A", null, { want: "none" }), true);
  const event = await link.event();
  assert.equal(event.want, "ack");
  link.refuse(event, "refused");
  assert.deepEqual(await heard, ["guild:1", "refused"]);
});

test("too large an event is not sent", async () => {
  const [stream, link] = await open(100, 200);
  await fails(stream.dispatch("guild:1", "A", "é".repeat(100)), "bad_input", false);
  const fits = stream.dispatch("guild:1", "A", "é".repeat(10));
  link.answer(await link.event());
  await fits;
});

test("what is under way when it closes is unknown", async () => {
  const [stream, link] = await open(1);
  const answers = [stream.dispatch("guild:1", "A"), stream.dispatch("guild:1", "B")];
  await link.event();
  const ends = [fails(answers[0]!, "outcome_unknown", true), fails(answers[1]!, "not_sent", false)];
  await stream.close(0);
  await Promise.all(ends);
  await fails(stream.dispatch("guild:1", "C"), "not_sent", false);
});
