/**
 * Holdfast's own processes in the lab: one proxy in front of each cloud's Keystone and one sync daemon at each cloud, which
 * audits at the centre and follows at the site, with configuration files written from the lab's record. The product knows nothing
 * of the lab; it reads these files as it would an operator's.
 */
import { join } from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { stringify } from "yaml";
import type { Secret } from "../core/secret.ts";
import { ensureFolder, writeWhole } from "./files.ts";
import { answersOk } from "./http.ts";
import { CENTRE, CLOUDS, type CloudName } from "./options.ts";
import type { ProcessPlan } from "./processes.ts";
import { databaseOf, endpointsOf, pathsOf, portOf, type LabRecord, type PortName } from "./record.ts";

/** The services that the lab synchronises, by the names of their files under schemas/. */
export const SYNCED = ["keystone"] as const;
const CHECKOUT = fileURLToPath(new URL("..", import.meta.url));
/** A fleet spreads its return over a minute; one site comes back at once. */
const RECONNECT_JITTER_MS = 500;

/** Which Holdfast runs: the build and its digest, or the sources. */
export type Program = { readonly from: "built"; readonly edition: string } | { readonly from: "source" };

export type HoldfastName = `proxy-${CloudName}` | `syncd-${CloudName}`;

function fileOf(record: LabRecord, name: HoldfastName): string {
  return join(pathsOf(record).config, `${name}.yaml`);
}

function writePassword(record: LabRecord, name: string, password: Secret): { readonly file: string } {
  const folder = join(pathsOf(record).config, "passwords");
  ensureFolder(folder, 0o700);
  const file = join(folder, name);
  writeWhole(file, password.reveal());
  return { file };
}

function listening(record: LabRecord, name: PortName): object {
  return { host: "127.0.0.1", port: portOf(record, name) };
}

/** A site reaches the stream server over its link, which can be cut. */
function feedOf(record: LabRecord, cloud: CloudName): object {
  const port = portOf(record, cloud === CENTRE ? "nats" : `link-${cloud}-nats`);
  return { servers: [`tls://127.0.0.1:${port}`], user: cloud,
    password: writePassword(record, `nats-${cloud}`, record.natsPasswords[cloud]), tls: { ca: pathsOf(record).natsAuthority },
    reconnectJitterMs: RECONNECT_JITTER_MS };
}

function databaseSection(record: LabRecord, cloud: CloudName): object {
  const { engine, host, port, name, user, password } = databaseOf(record, cloud);
  return { engine, host, port, name, user, password: writePassword(record, `database-${cloud}`, password) };
}

function proxyDocument(record: LabRecord, cloud: CloudName): object {
  const shared = { service: "keystone", site: cloud, listen: listening(record, `proxy-${cloud}`),
    admin: listening(record, `proxy-${cloud}-admin`), log: { level: "info" } };
  const { direct } = endpointsOf(record, CENTRE);
  // The site's clients are served by the centre, through its proxy, as long as it can be reached, and by the site otherwise.
  if (cloud !== CENTRE) {
    return { ...shared, capture: false, upstream: { url: endpointsOf(record, cloud).direct },
      centre: { url: `http://127.0.0.1:${portOf(record, `link-${cloud}-api`)}`,
        syncd: `http://127.0.0.1:${portOf(record, `syncd-${cloud}-admin`)}` } };
  }
  return { ...shared, capture: true, upstream: { url: direct }, database: databaseSection(record, CENTRE),
    feed: feedOf(record, CENTRE), intents: { folder: join(pathsOf(record).intents, "keystone") } };
}

function syncdDocument(record: LabRecord, cloud: CloudName): object {
  const memcached = cloud === CENTRE ? {} : { memcached: [`unix:${endpointsOf(record, cloud).memcached}`] };
  return { site: cloud, role: cloud === CENTRE ? "centre" : "site", admin: listening(record, `syncd-${cloud}-admin`),
    feed: feedOf(record, cloud), log: { level: "info" },
    services: [{ service: "keystone", database: databaseSection(record, cloud), ...memcached }] };
}

/** Writes the configuration file of every Holdfast process. */
export function writeHoldfastFiles(record: LabRecord): void {
  const write = (name: HoldfastName, document: object): void =>
    writeWhole(fileOf(record, name), `# Written by the lab at every start; changes are lost.\n${stringify(document)}`);
  for (const cloud of CLOUDS) {
    write(`proxy-${cloud}`, proxyDocument(record, cloud));
    write(`syncd-${cloud}`, syncdDocument(record, cloud));
  }
}

function planOf(record: LabRecord, name: HoldfastName, ports: readonly PortName[], program: Program): ProcessPlan {
  const entry = program.from === "built" ? [join(CHECKOUT, "dist/cli/holdfast.js")]
    // By its own address: the process does not work in the checkout, and the loader would be looked for there. Not with
    // import.meta.resolve, which is missing where a test runner loads this file as CommonJS.
    : ["--import", pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href, join(CHECKOUT, "cli/holdfast.ts")];
  const file = fileOf(record, name);
  return { name, folder: record.state, ports: ports.map((port) => portOf(record, port)), reads: [file],
    command: [process.execPath, "--enable-source-maps", ...entry, name.startsWith("proxy") ? "proxy" : "syncd", "--config", file],
    ...(program.from === "built" ? { edition: program.edition } : {}),
    // Alive is enough here: whether all it depends on is there as well, is awaited once everything runs.
    isReady: () => answersOk(`http://127.0.0.1:${portOf(record, `${name}-admin`)}/healthz`) };
}

/** How the proxy in front of a cloud's Keystone is run. */
export function proxyPlan(record: LabRecord, cloud: CloudName, program: Program): ProcessPlan {
  return planOf(record, `proxy-${cloud}`, [`proxy-${cloud}`, `proxy-${cloud}-admin`], program);
}

/** How a cloud's sync daemon is run. */
export function syncdPlan(record: LabRecord, cloud: CloudName, program: Program): ProcessPlan {
  return planOf(record, `syncd-${cloud}`, [`syncd-${cloud}-admin`], program);
}
