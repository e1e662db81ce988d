// Starts real masters. `MESOPHYLL` names the program: `make clients-test` sets it.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { ClientOptions } from "mesophyll";

// Of the folder in which tsc writes this file.
export const ROOT = new URL("../../../../../..", import.meta.url).pathname;
export const PROGRAM = process.env["MESOPHYLL"] ?? `${ROOT}target/debug/mesophyll`;
export const SECRET = "a secret of these tests, of 32 bytes or more";

/** A master with one worker. Killed and started again it has the same address. */
export class Master {
  api = "127.0.0.1:0";
  process!: ChildProcess;
  private log = "";

  static async start(store = "memory:"): Promise<Master> {
    const master = new Master(store);
    await master.start();
    return master;
  }

  private constructor(private readonly store: string) {}

  async start(): Promise<void> {
    const options = [`--store=${this.store}`, "--workers=1", "--default-events=*", "--log=error"];
    const places = [
      `--api=${this.api}`,
      "--listen=127.0.0.1:0",
      `--templates=${ROOT}clients/template`,
    ];
    const env = { PATH: process.env["PATH"], MESOPHYLL_API_SECRET: SECRET };
    this.process = spawn(PROGRAM, ["master", ...places, ...options], {
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.process.stderr?.on("data", (text) => (this.log += text));
    for await (const line of createInterface({ input: this.process.stdout! })) {
      this.api = JSON.parse(line).api;
      return;
    }
    throw new Error(`the master did not start: ${this.log}`);
  }

  async kill(): Promise<void> {
    const ended = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await ended;
  }

  async stop(): Promise<void> {
    const ended = once(this.process, "exit");
    this.process.kill("SIGTERM");
    const [code] = await ended;
    if (code !== 0) throw new Error(`the master ended with ${code}: ${this.log.slice(-3000)}`);
  }

  options(more: ClientOptions = {}): ClientOptions {
    return { addresses: this.api, secret: SECRET, user: 7, ...more };
  }
}
