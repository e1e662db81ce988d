// A gateway: takes a bot's events from Discord with discord.js and sends them to a master.
//
//     (cd clients/typescript && npm ci && npm run build)
//     npm install ./clients/typescript discord.js
//     export MESOPHYLL_API_SECRET=… DISCORD_TOKEN=…
//     node examples/gateway.ts        # from Node 22.18 on; with an older one compile it first
//
// With `--ndjson FILE` it sends recorded events instead, in the form that `mesophyll replay` reads,
// and says how many there were and what became of them.

import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { Client, fromJson, MesophyllError, type Json } from "mesophyll";

interface TenantEvent {
  tenant: string;
  name: string;
  data?: Json;
  author?: string;
  key?: string;
}

/** A frame of Discord's gateway. */
interface Frame {
  op: number;
  t: string;
  s: number;
  d: any;
}

/** What a frame says to a tenant: a guild, or a user in a direct message. */
export function eventOf(frame: Frame, session: string): TenantEvent | undefined {
  const { t: name, s, d: data } = frame;
  const guild = name.startsWith("GUILD_") && "owner_id" in data ? data.id : data.guild_id;
  const user = (data.author ?? data.user)?.id ?? data.user_id;
  if (name === "READY" || name === "RESUMED" || !(guild ?? user)) return undefined;
  // A session that resumes sends events again, with the number that they had.
  const key = `${session}:${s}`;
  return { tenant: guild ? `guild:${guild}` : `user:${user}`, name, data, author: user, key };
}

async function main(): Promise<number> {
  const options = {
    api: { type: "string" },
    ndjson: { type: "string" },
    repeat: { type: "string", default: "1" },
  } as const;
  const { values } = parseArgs({ options });
  // `actAsAny`: each event names its own author.
  const client = new Client({ addresses: values.api, actAsAny: true });
  const stream = await client.stream();
  const outcomes: { [kind: string]: number } = {};
  const count = (kind: string) => (outcomes[kind] = (outcomes[kind] ?? 0) + 1);

  async function send({ tenant, name, data, author, key }: TenantEvent): Promise<void> {
    const { answer } = await stream.send(tenant, name, data, { author, key });
    answer.then(
      () => count("ok"),
      (error: MesophyllError) =>
        count(error.kind) === 1 && console.error(`the first of its kind: ${error.message}`),
    );
  }

  const started = Date.now();
  if (values.ndjson !== undefined) {
    for (let round = 0; round < Number(values.repeat); round += 1) {
      for await (const line of createInterface({ input: createReadStream(values.ndjson) })) {
        await send(fromJson(line) as unknown as TenantEvent);
      }
    }
  } else {
    const discord = await import("discord.js");
    const { Guilds, GuildMembers, GuildMessages, MessageContent, DirectMessages } =
      discord.GatewayIntentBits;
    const bot = new discord.Client({
      intents: [Guilds, GuildMembers, GuildMessages, MessageContent, DirectMessages],
    });
    const sessions = new Map<number, string>();
    // Every frame as Discord sent it. Where there is no credit it waits, and those after it.
    bot.on(discord.Events.Raw as any, (frame: Frame, shard: number) => {
      if (frame.t === "READY") sessions.set(shard, frame.d.session_id);
      const event = frame.op === 0 ? eventOf(frame, sessions.get(shard) ?? "") : undefined;
      if (event) send(event).catch(console.error);
    });
    await bot.login(process.env["DISCORD_TOKEN"]);
    await new Promise((resolve) => process.once("SIGTERM", resolve));
    await bot.destroy();
  }
  await stream.close();
  client.close();
  const events = Object.values(outcomes).reduce((sum, some) => sum + some, 0);
  console.log(JSON.stringify({ events, outcomes, seconds: (Date.now() - started) / 1000 }));
  return events === (outcomes["ok"] ?? 0) ? 0 : 1;
}

if (process.argv[1] === new URL(import.meta.url).pathname) process.exitCode = await main();
