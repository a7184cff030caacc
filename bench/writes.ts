/**
 * Benchmark: a captured call. `PATCH /v3/users/{id}` straight at the upstream, through nginx, and through a proxy that notes an
 * intent, forwards, reads the user's rows and publishes their image. Once in front of an upstream that does one UPDATE, so that
 * the proxy's own cost shows, and once in front of the lab's Keystone.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { present } from "../core/assert.ts";
import { freePort, OTHER_CORE } from "./children.ts";
import type { Table } from "./figures.ts";
import { paced, type Call } from "./paced.ts";
import { waysTo } from "./reads.ts";
import { compete, type Effort, type Variant } from "./rounds.ts";
import { keystonePort, type Stage } from "./stage.ts";

const PROGRAM = fileURLToPath(new URL("./one-update.ts", import.meta.url));
const FAST_CONNECTIONS = 16;
const KEYSTONE_CONNECTIONS = 4;
const FAST_GAP_MS = 5;
/** Long enough that what a proxy does after its answer does not run into the next variant's call. */
const KEYSTONE_GAP_MS = 15;
/** Keystone's calls take tens of milliseconds: fewer are made. */
const KEYSTONE_SHARE = 0.25;
const PACED_COLUMNS = ["p50 ms", "p99 ms", "added p50 ms", "added p99 ms"];

/** Starts the upstream that does one UPDATE in the centre's database; its port. */
export async function startOneUpdate(stage: Stage): Promise<number> {
  const port = await freePort();
  const settings = join(stage.folder, "one-update.json");
  const { host, port: databasePort, user, password, name } = stage.lab.databases.centre;
  const database = { host, port: databasePort, user, password: password.reveal(), name };
  writeFileSync(settings, JSON.stringify({ port, database }), { mode: 0o600 });
  await stage.children.start({ name: "one-update", port, core: OTHER_CORE, log: join(stage.folder, "one-update.log"),
    command: [process.execPath, "--import", import.meta.resolve("tsx"), PROGRAM, settings] });
  return port;
}

/** A PATCH that gives a user the description `text`. */
export function describing(stage: Stage, port: number, user: string, text: string): Call {
  return { method: "PATCH", url: `http://127.0.0.1:${port}/v3/users/${user}`, headers: { "X-Auth-Token": stage.token.reveal() },
    body: JSON.stringify({ user: { description: text } }) };
}

async function both(stage: Stage, label: string, ways: readonly Variant[], connections: number, calls: number, gapMs: number,
  effort: Effort): Promise<readonly Table[]> {
  const atRate = await paced(ways.map(({ name, port }, place) => ({ name, call: (turn: number): Call =>
    describing(stage, port, present(stage.users[(turn * ways.length + place) % stage.users.length], "users are there"),
      `paced-${turn}`) })), calls, gapMs);
  const latency: Table = { title: `PATCH, ${label}, one call at a time`, columns: PACED_COLUMNS,
    rows: ways.map(({ name }) => ({ variant: name, figures: atRate.get(name) ?? {} })) };
  stage.say(`measured: ${latency.title}`);
  const throughput = await compete(stage, { title: `PATCH, ${label}, ${connections} connections`, variants: ways,
    load: { method: "PATCH", users: stage.users, headers: { "X-Auth-Token": stage.token.reveal() } }, connections,
    warmUp: effort.rounds > 1 }, effort);
  return [latency, throughput];
}

/** Tables of captured calls. */
export async function benchWrites(stage: Stage, effort: Effort): Promise<readonly Table[]> {
  const fast = await waysTo(stage, "one-update", await startOneUpdate(stage), true);
  const keystone = await waysTo(stage, "keystone-writes", keystonePort(stage.lab, "centre"), true);
  return [...await both(stage, "upstream of one UPDATE", fast, FAST_CONNECTIONS, effort.pacedCalls, FAST_GAP_MS, effort),
    ...await both(stage, "Keystone", keystone, KEYSTONE_CONNECTIONS, Math.round(effort.pacedCalls * KEYSTONE_SHARE),
      KEYSTONE_GAP_MS, effort)];
}
