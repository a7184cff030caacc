/**
 * Holdfast's own proxy as a benchmark runs it: the built program, with a configuration file as an operator would write it. One
 * that captures is a second proxy of the lab's centre: it reads the centre's database and publishes to the same stream.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { call } from "../lab/http.ts";
import type { Lab } from "../lab/lab.ts";
import { CENTRE } from "../lab/options.ts";
import { freePort, TESTED_CORE, type Child, type Children } from "./children.ts";

const PROGRAM = fileURLToPath(new URL("../dist/cli/holdfast.js", import.meta.url));

export interface ProxyWanted {
  readonly name: string;
  readonly upstreamPort: number;
  readonly capture: boolean;
  readonly lab: Lab;
  /** Configuration, log and intents go here. */
  readonly folder: string;
  /** Options of Node itself, such as --cpu-prof. */
  readonly nodeOptions: readonly string[];
}

function secretFile(folder: string, name: string, text: string): { readonly file: string } {
  const file = join(folder, name);
  writeFileSync(file, text, { mode: 0o600 });
  return { file };
}

function capturing(folder: string, name: string, lab: Lab): object {
  const { engine, host, port, user, password, name: database } = lab.databases.centre;
  const intents = join(folder, `${name}-intents`);
  mkdirSync(intents, { recursive: true });
  return {
    database: { engine, host, port, user, name: database, password: secretFile(folder, `${name}-database`, password.reveal()) },
    feed: { servers: [lab.nats.url], user: CENTRE, tls: { ca: lab.nats.authority },
      password: secretFile(folder, `${name}-feed`, lab.nats.passwords.centre.reveal()) },
    intents: { folder: intents },
  };
}

/** Starts a proxy and waits until it is ready: the upstream learnt, and with capture the database and the stream there. */
export async function startProxy(children: Children, { name, upstreamPort, capture, lab, folder, nodeOptions }: ProxyWanted):
Promise<Child> {
  const [port, adminPort] = [await freePort(), await freePort()];
  const file = join(folder, `${name}.yaml`);
  const document = { service: "keystone", site: CENTRE, listen: { host: "127.0.0.1", port },
    admin: { host: "127.0.0.1", port: adminPort }, upstream: { url: `http://127.0.0.1:${upstreamPort}` }, capture,
    ...(capture ? capturing(folder, name, lab) : {}) };
  writeFileSync(file, stringify(document), { mode: 0o600 });
  return children.start({ name, port, core: TESTED_CORE, log: join(folder, `${name}.log`),
    command: [process.execPath, ...nodeOptions, PROGRAM, "proxy", "--config", file],
    isReady: async () => (await call({ url: `http://127.0.0.1:${adminPort}/readyz` })).status === 200 });
}
