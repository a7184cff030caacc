/**
 * A real centre and a real site whose Holdfast processes belong to the test: the lab's servers and Keystones, and a proxy and a
 * sync daemon of this very checkout that can be killed at chosen places. Only the test's own folder is used; everything is
 * stopped and removed by close(), by handle or by the lab's own records.
 *
 * Without an auditor the centre's database keeps every commit that it acknowledged, even when its server is killed: a centre
 * that loses commits is the auditor's matter. The site's may lose its last ones: its position goes back with them.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { present } from "../../core/assert.ts";
import { systemClock } from "../../core/clock.ts";
import type { Secret } from "../../core/secret.ts";
import type { Feed } from "../../feed/feed.ts";
import { call } from "../../lab/http.ts";
import { writeHoldfastFiles } from "../../lab/holdfast.ts";
import { issueToken } from "../../lab/identity.ts";
import { labObstacle, openLab, wipeLab, type Lab } from "../../lab/lab.ts";
import { CENTRE, type CloudName, type Engines } from "../../lab/options.ts";
import { databaseOf, readRecord, type LabRecord } from "../../lab/record.ts";
import { serverOf } from "../../lab/servers.ts";
import { until } from "../../lab/waiting.ts";
import { JOURNAL_DEFAULTS, openJournal } from "../../proxy/intent.ts";
import type { Rows } from "../../rows/rows.ts";
import { compareDatabases, contentOfDatabase, differencesOf, isExceptedRow, openDatabase, quietWorld, shownOf,
  type Comparison } from "./fleet-compare.ts";
import { Load } from "./fleet-load.ts";
import { FleetProcess } from "./fleet-process.ts";
import { frozenProgram } from "./fleet-program.ts";
import { contentOfStream, openFeed } from "./fleet-stream.ts";
import { freePort, missing } from "./postgres.ts";

/** Longest until two clouds are equal once nothing changes any more. */
const EQUAL_MS = 90_000;
/** When rows are read again after an answer: as by default, but sooner. */
const SETTLE_MS = [1_000, 4_000] as const;

/** A section of a configuration file. */
type Document = Readonly<Record<string, unknown>>;

/** How long a proxy waits for an answer, and when it looks again at what became of a call without one. */
export interface Patience {
  readonly firstByteTimeoutMs: number;
  readonly lateMs: number;
  /** Runs an auditor at the centre as well, whose configuration is changed by this. */
  readonly audited?: Document;
}

/** Short, so that a killed proxy's intents are closed soon after its next start; long against any call of an idle Keystone. */
export const HASTY: Patience = { firstByteTimeoutMs: 4_000, lateMs: 4_500 };
/** For tests in which every call must be answered, however busy the machine is. */
export const PATIENT: Patience = { firstByteTimeoutMs: 59_000, lateMs: 60_000 };

/** As by default, but sooner: the default audit is every ten minutes. */
export const AUDIT = { everyMs: 5_000, heartbeatEveryMs: 1_000, rereadEveryMs: 60_000 };
const ROW_AUDIT = { rowsPerSecondMax: 20_000, restMs: 1_000 };
/** With an auditor. */
export const AUDITED: Patience = { ...PATIENT, audited: { audit: AUDIT } };

/** What a second proxy, or one with another journal, has that the lab's has not. */
export interface ProxyChanges {
  readonly intents?: object;
  readonly listenPort?: number;
  readonly adminPort?: number;
}

function merged(document: Document, changes: Document): Document {
  const entries = Object.entries(changes).map(([name, value]): [string, unknown] => {
    const before = document[name];
    const isSection = (part: unknown): part is Document => typeof part === "object" && part !== null && !Array.isArray(part);
    return [name, isSection(before) && isSection(value) ? merged(before, value) : value];
  });
  return { ...document, ...Object.fromEntries(entries) };
}

/** A centre and a site that run; make it with Fleet.open and end it with close(). */
export class Fleet {
  readonly lab: Lab;
  readonly folder: string;
  readonly proxy: FleetProcess;
  readonly syncd: FleetProcess;
  /** Runs in an audited fleet only. */
  readonly auditor: FleetProcess;
  readonly #record: LabRecord;
  readonly #program: string;
  readonly #patience: Patience;
  readonly #databases: Readonly<Record<CloudName, Rows>>;
  readonly #feed: Feed;
  readonly #others: FleetProcess[] = [];

  private constructor(lab: Lab, folder: string, patience: Patience) {
    this.#patience = patience;
    this.lab = lab;
    this.folder = folder;
    this.#record = present(readRecord(lab.paths.folder), "an open lab has a record");
    this.#program = frozenProgram(join(folder, "program"));
    writeHoldfastFiles(this.#record);
    this.#databases = { centre: openDatabase(lab.databases.centre), edge1: openDatabase(lab.databases.edge1) };
    this.proxy = this.#proxyFrom("proxy-centre", {}, lab.endpoints.centre.proxyAdmin);
    this.#feed = openFeed(lab.nats, "onlooker");
    this.syncd = this.#from("syncd-edge1", { audit: AUDIT, rowAudit: ROW_AUDIT }, lab.endpoints.edge1.syncdAdmin);
    this.auditor = this.#from("syncd-centre", patience.audited ?? {}, lab.endpoints.centre.syncdAdmin);
  }

  /**
   * Starts servers, Keystones, proxy and sync daemon, and waits until the site has everything.
   * @param asker  is told, and must throw, when this machine cannot run a lab.
   */
  static async open(asker: { readonly skip: (reason: string) => never }, engines: Engines,
    patience: Patience = HASTY): Promise<Fleet> {
    const obstacle = labObstacle(Object.values(engines));
    if (obstacle !== undefined) return asker.skip(obstacle);
    const folder = mkdtempSync(join(tmpdir(), "holdfast-fleet-"));
    const lab = await openLab({ folder: join(folder, "lab"), engines, only: ["databases", "nats", "keystone"] });
    await lab.start().catch(async (error: unknown) => {
      await wipeLab(lab.paths.folder);
      throw error;
    });
    const fleet = new Fleet(lab, folder, patience);
    try {
      if (patience.audited === undefined) await fleet.keepCentralCommits();
      await fleet.proxy.start();
      if (patience.audited !== undefined) await fleet.auditor.start();
      await fleet.syncd.start();
      await fleet.equal();
      return fleet;
    } catch (error) {
      await fleet.close();
      throw error;
    }
  }

  get centreUrl(): string {
    return this.lab.endpoints.centre.proxy;
  }

  /** A further proxy in front of the centre's API, with a journal of its own; not started. */
  async secondProxy(name: string): Promise<FleetProcess & { readonly url: string }> {
    const [listenPort, adminPort] = [await freePort(), await freePort()];
    const changes = { listenPort, adminPort, intents: { folder: join(this.folder, `intents-${name}`) } };
    const proxy = this.#proxyFrom(name, changes, `http://127.0.0.1:${adminPort}`);
    this.#others.push(proxy);
    return Object.assign(proxy, { url: `http://127.0.0.1:${listenPort}` });
  }

  /** The centre's proxy with another configuration, on the same ports; not started. End the other one first. */
  changedProxy(name: string, changes: ProxyChanges): FleetProcess {
    const proxy = this.#proxyFrom(name, changes, this.lab.endpoints.centre.proxyAdmin);
    this.#others.push(proxy);
    return proxy;
  }

  /** The proxy in front of the site's Keystone, which serves from the centre or from the site; not started. */
  siteProxy(changes: Document = {}): FleetProcess & { readonly url: string } {
    const { proxy: url, proxyAdmin } = this.lab.endpoints.edge1;
    const proxy = this.#from("proxy-edge1", changes, proxyAdmin);
    this.#others.push(proxy);
    return Object.assign(proxy, { url });
  }

  /** A further sync daemon for the same site and the same database; not started. */
  async secondSyncd(name: string): Promise<FleetProcess> {
    const port = await freePort();
    const second = this.#from("syncd-edge1", { audit: AUDIT, rowAudit: ROW_AUDIT, admin: { port } },
      `http://127.0.0.1:${port}`, name);
    this.#others.push(second);
    return second;
  }

  /** Workers that call the centre's API through `urls`; not started. */
  async load(seed: number, urls: readonly string[] = [this.centreUrl], workers = 6): Promise<Load> {
    const token = await this.token();
    const { text } = await call({ url: `${this.lab.endpoints.centre.direct}/v3/roles?name=member`,
      headers: { "x-auth-token": token.reveal() } });
    const role = present(/"id": ?"([0-9a-f]{32})"/.exec(text)?.[1], `Keystone has a role "member": ${text}`);
    return new Load({ urls, token, role, seed, workers, log: this.proxy.plan.log });
  }

  /** An administrator's token. */
  async token(): Promise<Secret> {
    return present(await issueToken(this.lab.endpoints.centre.direct, this.lab.admin()), "the centre knows its administrator");
  }

  /** Runs SQL in a cloud's Keystone database. */
  sql(cloud: CloudName, text: string): Promise<string> {
    return serverOf(this.#record, this.#record.engines[cloud]).query(databaseOf(this.#record, cloud).name, text);
  }

  /** Makes the central server write what it acknowledges; call again after it was started again. */
  async keepCentralCommits(): Promise<void> {
    await this.sql(CENTRE, this.#record.engines.centre === "postgres"
      ? `ALTER DATABASE ${databaseOf(this.#record, CENTRE).name} SET synchronous_commit = on;`
      : "SET GLOBAL innodb_flush_log_at_trx_commit = 2;");
  }

  /** Intents in the journal of the centre's proxy, which must not run. */
  async openIntents(): Promise<number> {
    const journal = await openJournal({ ...JOURNAL_DEFAULTS, folder: join(this.lab.paths.intents, "keystone") }, quietWorld);
    const open = journal.opened().length;
    await journal.stop();
    return open;
  }

  /** Waits until these proxies have nothing left to capture: no call, no open intent, nothing dirty, no look to come. */
  quiet(...proxies: readonly FleetProcess[]): Promise<void> {
    const wait = { what: "the end of capturing", withinMs: EQUAL_MS, log: this.proxy.plan.log };
    return until(wait, async () => {
      for (const proxy of proxies) {
        const { calls, openIntents, dirty, scans } = await proxy.status();
        const settling = await proxy.counted("holdfast_settling_aggregates");
        const left = { calls, openIntents, dirty, scans, settling };
        if (Object.values(left).some((count) => count !== 0)) throw new Error(JSON.stringify(left));
      }
      return true;
    });
  }

  compare(): Promise<Comparison> {
    return compareDatabases(this.#databases.centre, this.#databases.edge1);
  }

  /** The databases of both clouds and a feed with the centre's rights, for a test's own looks and changes. */
  get rooms(): { readonly databases: Readonly<Record<CloudName, Rows>>; readonly feed: Feed } {
    return { databases: this.#databases, feed: this.#feed };
  }

  /** What stands in the centre's rows and not, or otherwise, in the stream's images, and the reverse. */
  async compareStream(): Promise<readonly string[]> {
    const { centre } = this.#databases;
    await centre.reflect();
    const [rows, images] = [await contentOfDatabase(centre, centre), await contentOfStream(this.#feed)];
    return shownOf(differencesOf(rows, images, ["centre", "stream"], isExceptedRow));
  }

  /** Waits until centre, stream and site are equal; gives the seconds that it took. The failure names what differs. */
  async converged(withinMs = EQUAL_MS): Promise<number> {
    const startMs = systemClock.monotonicMs();
    await until({ what: "centre = stream = site", withinMs, log: this.folder }, async () => {
      const { differences } = await this.compare();
      const ofStream = differences.length > 0 ? [] : await this.compareStream();
      if (differences.length + ofStream.length > 0) throw new Error([...differences, ...ofStream].join("; "));
      return true;
    });
    return Math.round((systemClock.monotonicMs() - startMs) / 100) / 10;
  }

  /** Waits until centre and site are equal row for row; gives the number of rows. The failure names the rows that differ. */
  async equal(): Promise<number> {
    let rows = 0;
    await until({ what: "the equality of centre and site", withinMs: EQUAL_MS, log: this.syncd.plan.log }, async () => {
      const comparison = await this.compare();
      rows = comparison.rows;
      if (comparison.differences.length > 0) throw new Error(comparison.differences.join("; "));
      return true;
    });
    return rows;
  }

  /** Stops everything in good order and removes it. */
  async close(): Promise<void> {
    for (const each of [...this.#others, this.proxy, this.auditor, this.syncd]) await each.end("SIGTERM");
    await this.#feed.close();
    await Promise.all(Object.values(this.#databases).map((rows) => rows.close()));
    await wipeLab(this.lab.paths.folder);
    if (process.env["HOLDFAST_KEEP_LOGS"] === undefined) rmSync(this.folder, { recursive: true, force: true });
  }

  #proxyFrom(name: string, changes: ProxyChanges, admin: string): FleetProcess {
    const written = parse(readFileSync(join(this.lab.paths.config, "proxy-centre.yaml"), "utf8")) as Document;
    const document = merged(written, {
      upstream: { firstByteTimeoutMs: this.#patience.firstByteTimeoutMs }, lateMs: this.#patience.lateMs,
      settle: { delaysMs: SETTLE_MS },
      ...(changes.intents === undefined ? {} : { intents: changes.intents }),
      ...(changes.listenPort === undefined ? {} : { listen: { port: changes.listenPort } }),
      ...(changes.adminPort === undefined ? {} : { admin: { port: changes.adminPort } }),
    });
    const file = join(this.folder, `${name}.yaml`);
    writeFileSync(file, stringify(document));
    return this.#process(name, file, admin);
  }

  #from(written: string, changes: Document, admin: string, name = written): FleetProcess {
    const document = parse(readFileSync(join(this.lab.paths.config, `${written}.yaml`), "utf8")) as Document;
    const file = join(this.folder, `${name}.yaml`);
    writeFileSync(file, stringify(merged(document, changes)));
    return this.#process(name, file, admin);
  }

  #process(name: string, file: string, admin: string): FleetProcess {
    const kind = name.startsWith("syncd") ? "syncd" : "proxy";
    return new FleetProcess({ name, words: ["--enable-source-maps", this.#program, kind, file], admin,
      log: join(this.folder, `${name}.log`) });
  }
}

/** For tests: skips with the reason, and says so. */
export function orSkip(context: Mocha.Context): { readonly skip: (reason: string) => never } {
  return { skip: (reason) => missing(context, reason) };
}
