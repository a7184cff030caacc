/**
 * A real nats-server for tests: own directory, free port, users, TLS on demand; stopped, killed and restarted by its pid.
 * Without the binary a test is skipped with the reason, or fails where CI=true: see requireNatsServer.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect as connectSocket, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { present } from "../../core/assert.ts";
import { systemClock } from "../../core/clock.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { Secret } from "../../core/secret.ts";
import { openJetstream, type JetstreamFeed, type JetstreamOptions } from "../../feed/jetstream.ts";
import { sitePermissions, type Permissions } from "../../feed/permissions.ts";

const PLACES = ["/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"];
const READY_TIMEOUT_MS = 10_000;
const READY_POLL_MS = 20;
const PORT_TRIES_MAX = 5;

export interface NatsUser {
  readonly name: string;
  readonly password: string;
  /** Undefined: everything is allowed. */
  readonly permissions?: Permissions | undefined;
}

export interface NatsSettings {
  readonly users: readonly NatsUser[];
  readonly tls?: boolean;
  readonly storageBytesMax?: number;
  readonly maxPayloadBytes?: number;
}

export interface NatsServer {
  readonly port: number;
  readonly server: string;
  readonly directory: string;
  /** Path of the certificate authority; undefined without TLS. */
  readonly caPath: string | undefined;
  readonly pid: number | undefined;
  start(): Promise<void>;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<void>;
  /** SIGKILL, and waits for the end. */
  kill(): Promise<void>;
  /** Freezes (SIGSTOP) or thaws (SIGCONT) the process. */
  freeze(frozen: boolean): void;
  /** Stops it and removes its directory. */
  remove(): Promise<void>;
}

/** Path of the server binary. Call in `before`: skips the suite loudly when there is none, fails it where CI=true. */
export function requireNatsServer(suite: Mocha.Context): string {
  const found = PLACES.find((place) => existsSync(place));
  if (found !== undefined) return found;
  const reason = `nats-server is not installed (looked at ${PLACES.join(", ")}); Debian: apt-get install nats-server`;
  if (process.env["CI"] === "true") throw new Error(reason);
  process.stderr.write(`SKIPPED: ${reason}\n`);
  return suite.skip();
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve, reject) => probe.once("error", reject).listen(0, "127.0.0.1", resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** A certificate authority and a server certificate for 127.0.0.1 and localhost, made with openssl. */
async function makeCertificates(directory: string): Promise<Certificates> {
  const at = (name: string): string => join(directory, name);
  const openssl = (...words: string[]): void => void execFileSync("openssl", words, { cwd: directory, stdio: "pipe" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=holdfast test authority");
  openssl("req", ...key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost");
  await writeFile(at("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
  openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem",
    "-days", "2", "-extfile", "names");
  return { ca: at("ca.pem"), cert: at("server.pem"), key: at("server.key") };
}

function permissionText(permissions: Permissions | undefined): string {
  if (permissions === undefined) return "";
  const lists = [permissions.publish, permissions.subscribe].map((list) => JSON.stringify(list));
  return `, permissions: { publish: ${lists[0]}, subscribe: ${lists[1]} }`;
}

function configuration(directory: string, port: number, settings: NatsSettings, tlsText: string): string {
  const users = settings.users.map((user) =>
    `    { user: ${JSON.stringify(user.name)}, password: ${JSON.stringify(user.password)}${permissionText(user.permissions)} }`);
  return [
    `listen: "127.0.0.1:${port}"`,
    `jetstream { store_dir: ${JSON.stringify(join(directory, "store"))}`,
    `  max_file_store: ${settings.storageBytesMax ?? 1024 ** 3} }`,
    `max_payload: ${settings.maxPayloadBytes ?? 1024 ** 2}`,
    `authorization {\n  users = [\n${users.join("\n")}\n  ]\n}`,
    tlsText,
  ].join("\n");
}

/** Resolves once the server greets on its port; rejects at the deadline or when the process has ended. */
async function greeted(process_: ChildProcess, port: number, logPath: string): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (performance.now() < deadline) {
    if (process_.exitCode !== null) break;
    const greeting = await new Promise<boolean>((resolve) => {
      const socket = connectSocket(port, "127.0.0.1");
      socket.once("data", (chunk) => { socket.destroy(); resolve(chunk.toString().startsWith("INFO")); });
      socket.once("error", () => { socket.destroy(); resolve(false); });
    });
    if (greeting) return;
    await new Promise((resolve) => setTimeout(resolve, READY_POLL_MS));
  }
  throw new Error(`nats-server did not start: ${await readFile(logPath, "utf8").catch(() => "no log")}`);
}

/** Starts a server; remove() it in `after`. */
export async function startNats(binary: string, settings: NatsSettings): Promise<NatsServer> {
  const directory = await mkdtemp(join(tmpdir(), "holdfast-nats-"));
  const certificates = settings.tls === true ? await makeCertificates(directory) : undefined;
  const tlsText = certificates === undefined ? "" :
    `tls { cert_file: ${JSON.stringify(certificates.cert)}, key_file: ${JSON.stringify(certificates.key)}, timeout: 5 }`;
  const configPath = join(directory, "server.conf");
  const logPath = join(directory, "server.log");
  let child: ChildProcess | undefined;
  let port = 0;

  const launch = async (): Promise<void> => {
    child = spawn(binary, ["-c", configPath, "-l", logPath], { stdio: "ignore" });
    await greeted(child, port, logPath);
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const ending = child;
    child = undefined;
    if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return;
    const ended = new Promise((resolve) => ending.once("exit", resolve));
    ending.kill("SIGCONT");
    ending.kill(signal);
    await ended;
  };

  for (let attempt = 1; ; attempt += 1) {
    port = await freePort();
    await writeFile(configPath, configuration(directory, port, settings, tlsText));
    try {
      await launch();
      break;
    } catch (error) {
      await end("SIGKILL");
      if (attempt === PORT_TRIES_MAX) throw error;
    }
  }
  return {
    port, directory, caPath: certificates?.ca,
    server: `${certificates === undefined ? "" : "tls://"}127.0.0.1:${port}`,
    get pid() { return child?.pid; },
    start: launch,
    stop: () => end("SIGTERM"),
    kill: () => end("SIGKILL"),
    freeze: (frozen) => void present(child, "the server runs").kill(frozen ? "SIGSTOP" : "SIGCONT"),
    remove: async () => {
      await end("SIGKILL");
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Users of a server for feed tests: everything for "centre", a site's exact rights for "edge1". Password: "<name>-word". */
export const FEED_USERS: readonly NatsUser[] = [
  { name: "centre", password: "centre-word" },
  { name: "edge1", password: "edge1-word", permissions: sitePermissions("identity", "all", "edge1") },
];

/** A feed on a server with FEED_USERS; impatient, so that tests are quick. */
export function openFeed(nats: NatsServer, role: "centre" | "site", more: Partial<JetstreamOptions> = {}): JetstreamFeed {
  const name = role === "centre" ? "centre" : "edge1";
  return openJetstream({ servers: [nats.server], user: name, password: new Secret(`${name}-word`), service: "identity",
    scope: "all", role, site: name, tls: nats.caPath === undefined ? undefined : { caPath: nats.caPath }, reconnectFirstMs: 20,
    reconnectLastMs: 100, idleHeartbeatMs: 150, requestExpiresMs: 1_000, publishTimeoutMs: 2_000,
    streamBytesMax: 256 * 1024 ** 2, ...more }, { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics });
}

/** Waits until every feed is connected. */
export async function joined(...feeds: readonly JetstreamFeed[]): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const reason = feeds.map((feed) => feed.disconnected()).find((why) => why !== undefined);
    if (reason === undefined) return;
    if (performance.now() > deadline) throw new Error(`not connected in time: ${reason}`);
    await new Promise((resolve) => setTimeout(resolve, READY_POLL_MS));
  }
}

/** Runs `work` on a connection past the adapter, to do what the adapter never does. */
export async function rawly<T>(nats: NatsServer, user: string, work: (raw: NatsConnection) => Promise<T>): Promise<T> {
  const raw = await connect({ servers: nats.server, user, pass: `${user}-word`, inboxPrefix: `_INBOX_${user}`,
    ...(nats.caPath === undefined ? {} : { tls: { caFile: nats.caPath } }) });
  try {
    return await work(raw);
  } finally {
    await raw.close();
  }
}
