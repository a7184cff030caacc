/**
 * What a lab decided when it was made and keeps for life: its engines, ports, passwords and folders; and everything that
 * follows from these by calculation (addresses, database access). lab.json is the record, followed by those addresses for
 * people and programs to read; only the record is ever read back.
 *
 * Databases, the stream's store and sockets live outside the lab's folder, under /var/tmp: the users postgres and mysql cannot
 * enter every checkout, and a unix socket's path may have 107 bytes at most.
 */
import { createHash } from "node:crypto";
import { existsSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { OperatingError } from "../core/errors.ts";
import { systemRandom } from "../core/random.ts";
import { Secret } from "../core/secret.ts";
import { ensureFolder, readIfThere, writeWhole } from "./files.ts";
import { CLOUDS, ENGINES, ENGINES_BY_DEFAULT, SITES } from "./options.ts";
import type { CloudName, EngineName, Engines, LabOptions } from "./options.ts";
import { pickPorts } from "./ports.ts";

/** Order decides each one's port; new names go to the end, so that a lab made by an older version keeps its ports. */
const PORT_NAMES = ["postgres", "mariadb", "nats", "nats-monitor", "keystone-centre", "keystone-edge1", "proxy-centre",
  "proxy-centre-admin", "proxy-edge1", "proxy-edge1-admin", "syncd-edge1-admin", "syncd-centre-admin", "link-edge1-admin",
  "link-edge1-nats", "link-edge1-api"] as const;
export type PortName = (typeof PORT_NAMES)[number];

const engine = z.enum(ENGINES);
const recordShape = z.object({
  made: z.object({
    folder: z.string(),
    state: z.string(),
    engines: z.object({ centre: engine, edge1: engine }),
    firstPort: z.int(),
    databasePassword: z.string(),
    natsPasswords: z.object({ centre: z.string(), edge1: z.string() }),
  }),
});

export interface LabRecord {
  readonly folder: string;
  readonly state: string;
  readonly engines: Engines;
  readonly firstPort: number;
  readonly databasePassword: Secret;
  readonly natsPasswords: Readonly<Record<CloudName, Secret>>;
}

/** How to reach one cloud's Keystone database. The user may do everything on its server; it exists in labs only. */
export interface DatabaseAccess {
  readonly engine: EngineName;
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: Secret;
  readonly name: string;
}

export interface LabPaths {
  readonly folder: string;
  readonly state: string;
  readonly record: string;
  readonly clouds: string;
  /** One log per process, `<process>.log`, and one of every preparing command, `prepare.log`. */
  readonly logs: string;
  /** One file per running process. */
  readonly run: string;
  readonly config: string;
  readonly intents: string;
  /** Empty files: preparations that are complete. They lie beside what they speak of. */
  readonly done: string;
  readonly natsAuthority: string;
  readonly prepareLog: string;
}

export interface CloudEndpoints {
  /** Identity API through the proxy, without /v3. */
  readonly proxy: string;
  /** The cloud's own Keystone, past the proxy. */
  readonly direct: string;
  /** Health and metrics of the proxy. */
  readonly proxyAdmin: string;
  /** Health, metrics and operations of the sync daemon: the auditor at the centre, the follower at a site. */
  readonly syncdAdmin: string;
  /** Path of the unix socket of the cloud's memcached. */
  readonly memcached: string;
}

/** How to reach the stream server. */
export interface StreamAccess {
  /** TLS only. */
  readonly url: string;
  /** nats-server's own monitoring, plain HTTP. */
  readonly monitor: string;
  /** Path of the certificate (PEM) that signed the server's. */
  readonly authority: string;
  /** Passwords by user; a cloud's user has the cloud's name. */
  readonly passwords: Readonly<Record<CloudName, Secret>>;
}

export const LAB_USER = "lab";

/** Where everything of a lab lies. */
export function pathsOf(record: Pick<LabRecord, "folder" | "state">): LabPaths {
  const { folder, state } = record;
  return { folder, state, record: join(folder, "lab.json"), clouds: join(folder, "clouds.yaml"), logs: join(folder, "logs"),
    run: join(folder, "run"), config: join(folder, "config"), intents: join(folder, "intents"), done: join(state, "done"),
    natsAuthority: join(folder, "config", "tls", "authority.pem"), prepareLog: join(folder, "logs", "prepare.log") };
}

/** The port that belongs to `name`, used or not. */
export function portOf(record: LabRecord, name: PortName): number {
  return record.firstPort + PORT_NAMES.indexOf(name);
}

/** Access to a cloud's Keystone database. */
export function databaseOf(record: LabRecord, cloud: CloudName): DatabaseAccess {
  const engine = record.engines[cloud];
  return { engine, host: "127.0.0.1", port: portOf(record, engine), user: LAB_USER, password: record.databasePassword,
    name: `keystone_${cloud}` };
}

/** Addresses of a cloud. */
export function endpointsOf(record: LabRecord, cloud: CloudName): CloudEndpoints {
  const url = (name: PortName): string => `http://127.0.0.1:${portOf(record, name)}`;
  return { proxy: url(`proxy-${cloud}`), direct: url(`keystone-${cloud}`), proxyAdmin: url(`proxy-${cloud}-admin`),
    syncdAdmin: url(`syncd-${cloud}-admin`), memcached: join(record.state, `memcached-${cloud}.sock`) };
}

/** Access to the stream server. */
export function streamOf(record: LabRecord): StreamAccess {
  return { url: `tls://127.0.0.1:${portOf(record, "nats")}`, monitor: `http://127.0.0.1:${portOf(record, "nats-monitor")}`,
    authority: pathsOf(record).natsAuthority, passwords: record.natsPasswords };
}

/** Engines that need a server, each once. */
export function enginesOf(record: LabRecord): readonly EngineName[] {
  return [...new Set(Object.values(record.engines))];
}

function digestOfFolder(folder: string): string {
  return createHash("sha256").update(folder).digest("hex");
}

/** Where the databases of the lab in `folder` (as realpath gives it) live: the same place whenever the folder is the same. */
export function stateFolderOf(folder: string): string {
  return `/var/tmp/holdfast-lab-${digestOfFolder(folder).slice(0, 10)}`;
}

/**
 * The record of the lab in `folder`; undefined when there is none.
 * @throws E_LAB_STEP when lab.json is there and is not a record.
 */
export function readRecord(folder: string): LabRecord | undefined {
  const file = join(folder, "lab.json");
  const text = readIfThere(file);
  if (text === undefined) return undefined;
  let made: z.infer<typeof recordShape>["made"];
  try {
    made = recordShape.parse(JSON.parse(text)).made;
  } catch (error) {
    throw new OperatingError("E_LAB_STEP", "lab.json is damaged: remove it, run `npm run down -- --wipe` and start again",
      { log: file }, error);
  }
  const { centre, edge1 } = made.natsPasswords;
  return { ...made, databasePassword: new Secret(made.databasePassword),
    natsPasswords: { centre: new Secret(centre), edge1: new Secret(edge1) } };
}

function freshPassword(): Secret {
  return new Secret(systemRandom.id().replaceAll("-", ""));
}

/** The record of the lab in the folder of `options`, made now if there is none. Makes the folders as well. */
export async function openRecord(options: LabOptions): Promise<LabRecord> {
  ensureFolder(options.folder, 0o755);
  const folder = realpathSync(options.folder);
  const found = readRecord(folder);
  if (found !== undefined && options.engines !== undefined) {
    const differs = CLOUDS.find((cloud) => found.engines[cloud] !== options.engines?.[cloud]);
    if (differs !== undefined) {
      throw new OperatingError("E_CONFIG", `this lab was made with ${found.engines[differs]} at ${differs}: ` +
        "wipe it first (`npm run down -- --wipe`), or give HOLDFAST_LAB_DIR another folder", { folder });
    }
  }
  const record: LabRecord = found ?? {
    folder, state: stateFolderOf(folder), engines: options.engines ?? ENGINES_BY_DEFAULT,
    firstPort: await pickPorts(Number.parseInt(digestOfFolder(folder).slice(0, 8), 16)),
    databasePassword: freshPassword(), natsPasswords: { centre: freshPassword(), edge1: freshPassword() },
  };
  if (found === undefined && existsSync(record.state)) {
    throw new OperatingError("E_LAB_STEP",
      `${record.state} is left over from a lab whose lab.json is gone: run \`npm run down -- --wipe\``);
  }
  const paths = pathsOf(record);
  ensureFolder(paths.state, 0o755);
  for (const each of [paths.logs, paths.run, paths.config, paths.intents, paths.done]) ensureFolder(each, 0o700);
  // From here on the lab can be found and wiped, whatever happens next.
  if (found === undefined) writeRecord(record, undefined, []);
  return record;
}

/** What is shown of one process in lab.json. */
export interface ShownProcess {
  readonly name: string;
  readonly pid: number | undefined;
  readonly log: string;
}

function databaseText(access: DatabaseAccess): object {
  const scheme = access.engine === "postgres" ? "postgresql" : "mysql";
  const password = access.password.reveal();
  return { ...access, password, url: `${scheme}://${access.user}:${password}@${access.host}:${access.port}/${access.name}` };
}

/** Writes lab.json: the record, then every address, password and pid that follows from it. Readable by the owner only. */
export function writeRecord(record: LabRecord, admin: { readonly user: string; readonly password: Secret } | undefined,
  processes: readonly ShownProcess[]): void {
  const paths = pathsOf(record);
  const made = { folder: record.folder, state: record.state, engines: record.engines, firstPort: record.firstPort,
    databasePassword: record.databasePassword.reveal(),
    natsPasswords: { centre: record.natsPasswords.centre.reveal(), edge1: record.natsPasswords.edge1.reveal() } };
  const clouds = Object.fromEntries(CLOUDS.map((cloud) => [cloud,
    { region: cloud, ...endpointsOf(record, cloud), database: databaseText(databaseOf(record, cloud)) }]));
  writeWhole(paths.record, `${JSON.stringify({
    made,
    clouds,
    sites: SITES,
    admin: admin === undefined ? undefined : { ...admin, password: admin.password.reveal(), project: "admin", domain: "default" },
    nats: { ...streamOf(record), passwords: made.natsPasswords },
    ports: Object.fromEntries(PORT_NAMES.map((name) => [name, portOf(record, name)])),
    paths,
    processes: Object.fromEntries(processes.map(({ name, pid, log }) => [name, { pid: pid ?? null, log }])),
  }, undefined, 2)}\n`);
}
