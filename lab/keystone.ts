/**
 * One Keystone per cloud under uWSGI, with a memcached of its own. Both clouds have the same settings wherever tokens and
 * passwords depend on them: keys, the order of authentication methods, lifetimes, hashing.
 *
 * What would be "simplified" and break:
 * - no public_endpoint: links then follow the Host header, so they name the proxy for those who came through it;
 * - uWSGI's own HTTP closes each connection without saying so, and clients then write into a dead one: it is told to say so;
 * - one memcached per cloud, never shared and never older than its database: entries do not say which database they are from.
 */
import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { ensureFolder, writeWhole } from "./files.ts";
import { answersOk } from "./http.ts";
import type { CloudName } from "./options.ts";
import type { ProcessPlan } from "./processes.ts";
import { endpointsOf, pathsOf, portOf, type LabRecord } from "./record.ts";

/** Two workers: caches and key repositories are then seen to be shared, and a slow call does not stop the others. */
const WORKERS = 2;
const BACKLOG = 100;
const HEADERS_MAX_BYTES = 65_535;
const CACHE_MEBIBYTES = 64;

export interface KeyFolders {
  readonly fernet: string;
  readonly credential: string;
}

export interface KeystoneSettings {
  /** SQLAlchemy URL. */
  readonly database: string;
  readonly keys: KeyFolders;
  /** Path of memcached's socket; without it nothing is cached (for keystone-manage). */
  readonly memcached?: string;
}

/** The text of keystone.conf. */
export function keystoneConfiguration({ database, keys, memcached }: KeystoneSettings): string {
  const cache = memcached === undefined ? "enabled = false"
    : `enabled = true\nbackend = dogpile.cache.pymemcache\nmemcache_servers = unix:${memcached}`;
  // The methods are Keystone's default, written out: a token holds them as bits of this very list.
  return `# Written by the lab at every start; changes are lost.
[DEFAULT]
max_token_size = 512
[auth]
methods = external,password,token,oauth1,mapped,application_credential
[cache]
${cache}
[credential]
key_repository = ${keys.credential}
[database]
connection = ${database}
[fernet_tokens]
key_repository = ${keys.fernet}
[identity]
password_hash_algorithm = bcrypt
password_hash_rounds = 4
[token]
provider = fernet
expiration = 14400
`;
}

function folderOf(record: LabRecord, cloud: CloudName): string {
  return join(pathsOf(record).config, `keystone-${cloud}`);
}

/** Where a cloud's Keystone reads its keys. */
export function keysOf(record: LabRecord, cloud: CloudName): KeyFolders {
  return { fernet: join(folderOf(record, cloud), "fernet"), credential: join(folderOf(record, cloud), "credential") };
}

/** Path of a cloud's keystone.conf. */
export function configurationFileOf(record: LabRecord, cloud: CloudName): string {
  return join(folderOf(record, cloud), "keystone.conf");
}

/** Copies key repositories over whatever is there. Keystone warns about folders that others can read. */
export function copyKeys(from: KeyFolders, to: KeyFolders): void {
  for (const kind of ["fernet", "credential"] as const) {
    rmSync(to[kind], { recursive: true, force: true });
    mkdirSync(to[kind], { recursive: true, mode: 0o700 });
    cpSync(from[kind], to[kind], { recursive: true });
  }
}

/** Writes keystone.conf of a cloud whose database answers to `databaseUrl`. */
export function writeConfiguration(record: LabRecord, cloud: CloudName, databaseUrl: string): void {
  ensureFolder(folderOf(record, cloud), 0o700);
  writeWhole(configurationFileOf(record, cloud), keystoneConfiguration({ database: databaseUrl, keys: keysOf(record, cloud),
    memcached: endpointsOf(record, cloud).memcached }));
}

/** How a cloud's memcached is run: on a unix socket, because it knows no passwords. */
export function memcachedPlan(record: LabRecord, cloud: CloudName): ProcessPlan {
  const socket = endpointsOf(record, cloud).memcached;
  return { name: `memcached-${cloud}`, folder: record.state, ports: [],
    command: ["/usr/bin/memcached", "-u", "root", "-s", socket, "-a", "0700", "-m", String(CACHE_MEBIBYTES)],
    beforeStart: () => Promise.resolve(rmSync(socket, { force: true })),
    isReady: () => answers(socket) };
}

/** True when something accepts connections on the unix socket. */
function answers(socket: string): Promise<boolean> {
  if (!existsSync(socket)) return Promise.resolve(false);
  return new Promise((resolve) => {
    const connection = connect(socket);
    const end = (answered: boolean) => (): void => {
      connection.destroy();
      resolve(answered);
    };
    connection.once("connect", end(true)).once("error", end(false));
  });
}

/** The plan of a cloud's Keystone. `edition` is the installed version: after an upgrade it is started again. */
export function keystonePlan(record: LabRecord, cloud: CloudName, edition: string): ProcessPlan {
  const name = `keystone-${cloud}` as const;
  const port = portOf(record, name);
  const configuration = configurationFileOf(record, cloud);
  return { name, folder: record.state, ports: [port], reads: [configuration], edition,
    environment: { OS_KEYSTONE_CONFIG_FILES: configuration, PYTHONWARNINGS: "ignore" },
    // The program is loaded once and then forked: Keystone opens connections only when it is asked something.
    command: ["/usr/bin/uwsgi", "--plugins", "python3", "--master", "--need-app", "--enable-threads", "--die-on-term",
      "--no-orphans", "--buffer-size", String(HEADERS_MAX_BYTES), "--listen", String(BACKLOG), "--disable-logging",
      "--add-header", "Connection: close", "--procname-prefix-spaced", name, "--processes", String(WORKERS), "--threads", "1",
      "--http-socket", `127.0.0.1:${port}`, "--wsgi-file", "/usr/bin/keystone-wsgi-public"],
    isReady: () => answersOk(`http://127.0.0.1:${port}/v3`) };
}
