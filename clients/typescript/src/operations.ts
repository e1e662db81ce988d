// The operations of the internal API. Written by clients/generate.py.

import { encode, pathOf, type Json, type Value } from "./values.js";

/** What goes beside a method and a path. */
export interface CallOptions {
  query?: { [name: string]: string | number | boolean | undefined };
  body?: unknown;
  /** The answer has values that JSON lacks. */
  hasValues?: boolean;
}

export interface Amount {
  bytes: number;
  records: number;
}

export interface Broadcast {
  /** Those of them that are done with. */
  done: number;
  event: string;
  /** Tells it from others. */
  id: string;
  only_live: boolean;
  /** What became of these, by outcome: */
  outcomes: { [name: string]: number };
  /** When it began, in ms before now. */
  since_ms: number;
  /** `stopping`: stopped, and some events have no answer yet. Of the parts of several masters the one that is least over. */
  state: "running" | "stopping" | "stopped" | "finished";
  /** Tenants that it is for. */
  total: number;
}

export type BroadcastOfAll = Broadcast & { masters: ({ error: string | null; master: string | null; part: Broadcast | null })[] };

export interface GlobalEntry {
  created_at: string;
  data?: Json;
  key: string;
  last_updated_at: string;
  /** Not in lists. */
  long?: string | null;
  owner_id: string;
  /** guild, user or staff */
  owner_type: string;
  price: number | null;
  public_data: boolean;
  public_metadata: Json;
  review_state: string;
  scope: string;
  short: string;
  version: number;
}

export interface LogLevel {
  level: "off" | "error" | "warn" | "info" | "debug" | "trace";
}

export interface Master {
  /** Where the others reach its internal API. */
  api: string;
  /** What was left of its lease when this one looked last; 0 of a dead one. */
  lease_ms: number;
  name: string;
  /** Shards that it holds, of 509. */
  shards: number;
  state: "up" | "draining" | "dead";
  version: string;
  /** Shards that it is to hold. */
  wanted: number;
}

export interface Quarantined {
  reason: string;
  since_s: number;
  /** guild:ID or user:ID */
  tenant: string;
}

export interface KvRecord {
  created_at: string | null;
  id: string;
  key: string;
  last_updated_at: string | null;
  scopes: string[];
  value: Value;
}

export interface RollingRestart {
  /** Why it stopped before it had restarted all. */
  error: string | null;
  /** How many there were since the master started. */
  number: number;
  restarted: number[];
  running: boolean;
  /** Workers that an operator stopped. */
  skipped: number[];
}

export interface Route {
  api: string | null;
  /** Grows with each change of master. */
  epoch: number | null;
  /** It is the master that answers. */
  here: boolean;
  /** Null: no master has the tenant at the moment. */
  master: string | null;
}

export interface Status {
  /** Since the master started, for differences. */
  at_ms: number;
  busiest: { seconds: number; tenants: ({ events: number; tenant: string; us: number })[]; us: number };
  /** The one that came last first; the same ones are one. */
  errors: ({ count: number; event: string; first_s: number; id: number; kind: string; last_s: number; message: string; tenant: string })[];
  /** Upper ends of the buckets but the last one, which has none. */
  latency_bounds_us: number[];
  master: { external_workers: boolean; mode: "process-pool" | "thread-pool"; name?: string; pid: number; store: "redb" | "postgres" | "memory"; version: string };
  /** Over the same database; none where the store knows no others. */
  masters: Master[];
  quarantine: Quarantined[];
  rolling: RollingRestart;
  workers: (Worker & { latency: { counts: number[]; sum_us: number }; outcomes: { [name: string]: number } })[];
}

export interface Tenant {
  banned: boolean;
  /** What counts without a state. */
  default_events: string[];
  /** Workers died while its events were in flight. */
  quarantined: boolean;
  quota: Amount;
  state: null | TenantState;
  /** It has a template of its own. */
  template: boolean;
  /** guild:ID or user:ID */
  tenant: string;
  usage: Amount;
}

export interface TenantState {
  data?: Json;
  events: string[];
}

export interface Timer {
  data: Value;
  due: string;
  /** A number of seconds, or five fields as cron has them; null: once. */
  every: string | null;
  id: string;
  /** The event's name. */
  name: string;
}

export interface Worker {
  heartbeat_age_ms: number | null;
  /** The machine that it runs on, by name. Null until it has named it. */
  host: string | null;
  id: number;
  /** Dispatches that left and wait for their answers. */
  in_flight: number;
  /** How its last process ended, and why. */
  last_exit: string | null;
  memory_bytes: number | null;
  /** Its process; in thread-pool mode the master's. */
  pid: number | null;
  /** Whether a tenant's state or template has changed that it does not take up before it is started anew: a worker of another make. */
  restart_needed: boolean;
  restarts: number;
  /** What confines its process: full, files N (Landlock of an older kernel), syscalls or none. Null until it has said so. */
  sandbox: string | null;
  state: "starting" | "connected" | "ready" | "draining" | "dead" | "failed" | "stopped";
  uptime_s: number | null;
  /** Null until it has named it. */
  version: string | null;
  vms: number;
  /** Dispatches that wait for the worker. */
  waiting: number;
}

/** A method for each operation; docs/api.md says more of each. */
export abstract class Operations {
  protected abstract call<T>(method: string, path: string, options?: CallOptions): Promise<T>;

  /** Bans a tenant, which also ends what it has running, or lifts the ban. */
  banTenant(tenant: string, banned: boolean): Promise<void> {
    return this.call("POST", `/i/ban/${pathOf(tenant)}`, { body: { banned } });
  }

  /** Has the broadcast that runs send nothing more; what is under way is still answered. */
  stopBroadcast(): Promise<BroadcastOfAll> {
    return this.call("DELETE", "/i/broadcast");
  }

  /** How the broadcast stands that runs, or was the last since the masters started: the sum of
   * all masters' parts, and each. */
  getBroadcast(): Promise<BroadcastOfAll> {
    return this.call("GET", "/i/broadcast");
  }

  /** Begins to send an event to every tenant whose own state names it, one after the other;
   * nobody waits for their answers. 409 (Conflict) while one is under way. */
  startBroadcast(
    name: string,
    data?: Json,
    more: { only_live?: boolean | null, per_second?: number | null } = {},
  ): Promise<BroadcastOfAll> {
    return this.call("POST", "/i/broadcast", { body: { name, data, ...more } });
  }

  /** Dispatches an event to a tenant and answers with its result. */
  dispatch(
    tenant: string,
    name: string,
    data?: Json,
    more: { author?: string | null, nowait?: boolean, deadline_ms?: number } = {},
  ): Promise<Value> {
    return this.call(
      "POST",
      `/i/dispatch-event/${pathOf(tenant)}`,
      {
        query: { nowait: more.nowait, deadline_ms: more.deadline_ms },
        body: { name, data, author: more.author },
        hasValues: true,
      },
    );
  }

  /** Has this master hand all its tenants over to the others of its cluster; it goes on
   * forwarding. */
  drain(): Promise<{ [name: string]: unknown }> {
    return this.call("POST", "/i/drain");
  }

  /** The same of any master of the cluster. */
  drainMaster(name: string): Promise<{ [name: string]: unknown }> {
    return this.call("POST", `/i/drain/${encodeURIComponent(name)}`);
  }

  /** Ends what a tenant has running and closes its VM; its data stays. */
  dropTenant(tenant: string, more: { deadline_ms?: number } = {}): Promise<void> {
    return this.call(
      "POST",
      `/i/drop-tenant/${pathOf(tenant)}`,
      { query: { deadline_ms: more.deadline_ms } },
    );
  }

  /** The entries of the shop that match; all without a filter. */
  shopList(
    more: { pattern?: string | null, review_state?: string | null, scope?: string | null } = {},
  ): Promise<GlobalEntry[]> {
    return this.call("POST", "/i/global-kv", { body: { op: "list", ...more } });
  }

  /** Reads or deletes an entry of the shop. */
  shopGet(scope: string, key: string, version: number): Promise<GlobalEntry> {
    return this.call("POST", "/i/global-kv", { body: { op: "get", scope, key, version } });
  }

  /** Reads or deletes an entry of the shop. */
  shopDelete(scope: string, key: string, version: number): Promise<void> {
    return this.call("POST", "/i/global-kv", { body: { op: "delete", scope, key, version } });
  }

  /** Puts an entry into the shop. */
  shopCreate(
    scope: string,
    key: string,
    version: number,
    short: string,
    data?: Json,
    more: {
      long?: string | null,
      owner_id?: string | null,
      public_data?: boolean | null,
      public_metadata?: Json,
    } = {},
  ): Promise<void> {
    return this.call(
      "POST",
      "/i/global-kv",
      { body: { op: "create", scope, key, version, short, data, ...more } },
    );
  }

  /** Changes the review state of an entry of the shop. */
  shopReview(scope: string, key: string, version: number, review_state: string): Promise<void> {
    return this.call(
      "POST",
      "/i/global-kv",
      { body: { op: "review", scope, key, version, review_state } },
    );
  }

  /** Changes the price of an entry of the shop; null: it costs nothing. */
  shopPrice(scope: string, key: string, version: number, price: number | null): Promise<void> {
    return this.call("POST", "/i/global-kv", { body: { op: "price", scope, key, version, price } });
  }

  /** For each guild 1 if it has a state, a record or a live VM, else 0. What a worker does not
   * say of its VMs within a second is not known. Live VMs of other masters are not asked for. */
  guildsExist(body: (string | number)[]): Promise<(0 | 1)[]> {
    return this.call("POST", "/i/guilds-exist", { body });
  }

  /** Kills all workers; they stay stopped until they are restarted. */
  killWorkers(): Promise<void> {
    return this.call("POST", "/i/kill-worker");
  }

  /** Kills a worker, or closes the link of one that somebody else started; it stays stopped until
   * it is restarted. */
  killWorker(id: number): Promise<void> {
    return this.call("POST", `/i/kill-worker/${encodeURIComponent(id)}`);
  }

  /** Reads a record; null if there is none. */
  kvGet(tenant: string, key: string, scopes: string[]): Promise<KvRecord | null> {
    return this.call(
      "POST",
      `/i/kv/${pathOf(tenant)}`,
      { body: { op: "get", key, scopes }, hasValues: true },
    );
  }

  /** Writes a record. */
  kvSet(tenant: string, key: string, value: Value, scopes: string[]): Promise<void> {
    return this.call(
      "POST",
      `/i/kv/${pathOf(tenant)}`,
      { body: { op: "set", key, value: encode(value), scopes } },
    );
  }

  /** Deletes a record, if there is one. */
  kvDelete(tenant: string, key: string, scopes: string[]): Promise<void> {
    return this.call("POST", `/i/kv/${pathOf(tenant)}`, { body: { op: "delete", key, scopes } });
  }

  /** The records whose keys are like a pattern. */
  kvFind(
    tenant: string,
    pattern: string,
    more: { scopes?: string[] | null } = {},
  ): Promise<KvRecord[]> {
    return this.call(
      "POST",
      `/i/kv/${pathOf(tenant)}`,
      { body: { op: "find", pattern, ...more }, hasValues: true },
    );
  }

  /** The scopes in which the tenant has records. */
  kvListScopes(tenant: string): Promise<string[]> {
    return this.call("POST", `/i/kv/${pathOf(tenant)}`, { body: { op: "list_scopes" } });
  }

  /** How much the master logs, and its workers with it. */
  getLogLevel(): Promise<LogLevel> {
    return this.call("GET", "/i/log-level");
  }

  /** Changes how much the master and every worker log, until the master stops. */
  setLogLevel(level: "off" | "error" | "warn" | "info" | "debug" | "trace"): Promise<void> {
    return this.call("PUT", "/i/log-level", { body: { level } });
  }

  /** The masters over the same database, by name, those that ended or died within a day included;
   * none where the store knows no others. */
  listMasters(): Promise<Master[]> {
    return this.call("GET", "/i/masters");
  }

  /** Sends a tenant a message as staff: the event TenantMessage. No permission is needed; 202
   * once it is in the tenant's queue. */
  sendMessage(
    tenant: string,
    topic: string,
    data?: Json,
    more: { deadline_ms?: number } = {},
  ): Promise<{ outcome: "accepted" }> {
    return this.call(
      "POST",
      `/i/message/${pathOf(tenant)}`,
      { query: { deadline_ms: more.deadline_ms }, body: { topic, data } },
    );
  }

  /** Notes that a tenant purchased an entry: it may read it from now on. */
  purchase(tenant: string, scope: string, key: string, version: number): Promise<void> {
    return this.call("POST", `/i/purchase/${pathOf(tenant)}`, { body: { scope, key, version } });
  }

  /** The tenants whose events were in flight when workers died, again and again. */
  listQuarantine(): Promise<Quarantined[]> {
    return this.call("GET", "/i/quarantine");
  }

  /** Lets a quarantined tenant run again. */
  liftQuarantine(tenant: string): Promise<void> {
    return this.call("POST", `/i/quarantine/lift/${pathOf(tenant)}`);
  }

  /** Begins to start a worker anew: it answers first what it has in flight. One that failed or
   * was stopped gets another chance. */
  restartWorker(id: number): Promise<{ [name: string]: unknown }> {
    return this.call("POST", `/i/restart-worker/${encodeURIComponent(id)}`);
  }

  /** How the last rolling restart stands. */
  getRollingRestart(): Promise<RollingRestart> {
    return this.call("GET", "/i/rolling-restart");
  }

  /** Begins to start all workers anew, one at a time; stops at the first that does not come back. */
  startRollingRestart(): Promise<RollingRestart> {
    return this.call("POST", "/i/rolling-restart");
  }

  /** Which master of the cluster has a tenant. A caller may go there without a way round, until
   * an answer names another one. */
  getRoute(tenant: string): Promise<Route> {
    return this.call("GET", `/i/route/${pathOf(tenant)}`);
  }

  /** Runs Luau in a tenant's VM and answers with its result. */
  runScript(
    tenant: string,
    name: string,
    code: string,
    data?: Json,
    more: { author?: string | null, deadline_ms?: number } = {},
  ): Promise<Value> {
    return this.call(
      "POST",
      `/i/run-script/${pathOf(tenant)}`,
      {
        query: { deadline_ms: more.deadline_ms },
        body: { name, code, data, author: more.author },
        hasValues: true,
      },
    );
  }

  /** Everything that the status page shows, at one moment. Counts are since the master started. */
  getStatus(more: { history?: boolean } = {}): Promise<Status> {
    return this.call("GET", "/i/status", { query: { history: more.history } });
  }

  /** A tenant's state. */
  getTenantState(tenant: string): Promise<TenantState> {
    return this.call("GET", `/i/tenant-state/${pathOf(tenant)}`);
  }

  /** Replaces a tenant's state; its worker knows at once. */
  putTenantState(tenant: string, events: string[], data?: Json): Promise<void> {
    return this.call("PUT", `/i/tenant-state/${pathOf(tenant)}`, { body: { events, data } });
  }

  /** Everything about a tenant: state, standing, usage. */
  getTenant(tenant: string): Promise<Tenant> {
    return this.call("GET", `/i/tenant/${pathOf(tenant)}`);
  }

  /** The number of workers. */
  countThreads(): Promise<number> {
    return this.call("GET", "/i/threads-count");
  }

  /** A tenant's timers, in the order in which they are due. */
  listTimers(tenant: string): Promise<Timer[]> {
    return this.call("GET", `/i/timers/${pathOf(tenant)}`);
  }

  /** Lets this master take its share of tenants again. */
  undrain(): Promise<{ [name: string]: unknown }> {
    return this.call("POST", "/i/undrain");
  }

  /** The same of any master of the cluster. */
  undrainMaster(name: string): Promise<{ [name: string]: unknown }> {
    return this.call("POST", `/i/undrain/${encodeURIComponent(name)}`);
  }

  /** The workers, in order of their ids. */
  listWorkers(): Promise<Worker[]> {
    return this.call("GET", "/i/workers");
  }

  /** The process answers. */
  livez(): Promise<{ live: true }> {
    return this.call("GET", "/livez");
  }

  /** Every worker that is not failed or stopped is ready, and there is one; in a cluster the
   * master's lease lasts, too. */
  readyz(
    more: { verbose?: boolean } = {},
  ): Promise<{ ready: true; workers?: ({ [name: string]: unknown })[] }> {
    return this.call("GET", "/readyz", { query: { verbose: more.verbose } });
  }
}
