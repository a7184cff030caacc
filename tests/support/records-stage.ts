/**
 * The database sync API of a centre for tests: the real listener with a certificate of its own, the real capture room, rows as
 * given, the stream in memory. Goal: what a caller sees is what happens to rows and stream.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import request, { type Test } from "supertest";
import { CentreRecordWriting } from "../../audit/records-writing.ts";
import { CAPTURE_DEFAULTS, CaptureRoom } from "../../capture/capture.ts";
import { systemClock, type Clock } from "../../core/clock.ts";
import type { Facts } from "../../core/errors.ts";
import { Faults } from "../../core/faults.ts";
import type { Log } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { Secret } from "../../core/secret.ts";
import type { World } from "../../core/world.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { memoryFeed, type MemoryFeed } from "../../feed/memory.ts";
import { recordsServer, type RecordsServer } from "../../records/api.ts";
import type { Scope, TokenSection } from "../../records/tokens.ts";
import type { ServedService } from "../../records/writing.ts";
import type { Rows } from "../../rows/rows.ts";
import type { Service } from "../../schemas/define.ts";

/** Long for a stream in memory, short for a test in which there is none. */
const PUBLISH_WITHIN_MS = 500;

/** Tokens by what they may do; each is long enough. */
export const TOKENS = {
  reader: "reader-reader-reader-reader-reader", auditor: "auditor-auditor-auditor-auditor-aud",
  writer: "writer-writer-writer-writer-writer", admin: "admin-admin-admin-admin-admin-admin",
  elsewhere: "elsewhere-elsewhere-elsewhere-else",
} as const;

const SCOPES: Readonly<Record<keyof typeof TOKENS, readonly Scope[]>> = {
  reader: ["read"], auditor: ["read", "secrets"], writer: ["read", "write"], admin: ["read", "secrets", "write"],
  elsewhere: ["read", "write"],
};

/** The token sections of a configuration with all of TOKENS; "elsewhere" is for another service. */
export function tokenSections(): readonly TokenSection[] {
  return (Object.keys(TOKENS) as (keyof typeof TOKENS)[]).map((name) => ({ name, token: new Secret(TOKENS[name]),
    scopes: SCOPES[name], services: name === "elsewhere" ? ["another"] : [] }));
}

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly facts: Facts;
}

/** A log that keeps its lines. */
export function keptLog(lines: LogLine[]): Log {
  const at = (level: string) => (message: string, facts: Facts = {}): void => void lines.push({ level, message, facts });
  const log: Log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), with: () => log };
  return log;
}

/** A listener with a certificate that is made for it. */
export class RecordsListener {
  readonly #folder = mkdtempSync(join(tmpdir(), "holdfast-records-"));
  readonly certificate: string;
  readonly server: RecordsServer;

  constructor(served: readonly ServedService[], world: World) {
    const [cert, key] = [join(this.#folder, "cert.pem"), join(this.#folder, "key.pem")];
    execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
      "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], { stdio: "ignore" });
    this.certificate = readFileSync(cert, "utf8");
    this.server = recordsServer({ host: "127.0.0.1", port: 0, tls: { cert, key }, tokens: tokenSections() }, served, world);
  }

  get url(): string {
    return `https://127.0.0.1:${this.server.port()}`;
  }

  call(method: "get" | "put" | "delete" | "post" | "head", path: string, token: keyof typeof TOKENS | undefined): Test {
    const asked = request(this.url)[method](path).ca(this.certificate);
    return token === undefined ? asked : asked.set("Authorization", `Bearer ${TOKENS[token]}`);
  }

  async stop(): Promise<void> {
    await this.server.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A centre: one service, its rows, its stream, its capture room, and the API over them. */
export class CentreStage {
  readonly lines: LogLine[] = [];
  readonly world: World;
  readonly stream: MemoryStream;
  readonly feed: MemoryFeed;
  readonly capture: CaptureRoom;
  readonly listener: RecordsListener;

  constructor(service: Service, rows: Rows, clock: Clock = systemClock) {
    this.world = { clock, random: systemRandom, log: keptLog(this.lines), metrics: noMetrics };
    this.stream = new MemoryStream(service.name, clock);
    this.feed = memoryFeed(this.stream, clock);
    this.capture = new CaptureRoom({ service, scope: "all", rows, feed: this.feed, faults: new Faults(clock) }, this.world,
      CAPTURE_DEFAULTS);
    const writing = new CentreRecordWriting({ service, scope: "all", rows, feed: this.feed,
      publish: (keys, wish) => this.capture.publish(keys, wish) }, this.world, PUBLISH_WITHIN_MS);
    this.listener = new RecordsListener([{ service, rows, writing }], this.world);
  }

  async start(): Promise<void> {
    await this.capture.start();
    await this.capture.ready(new AbortController().signal);
    await this.listener.server.start();
  }

  async stop(): Promise<void> {
    await this.listener.stop();
    await this.capture.stop();
    await this.feed.close();
  }
}
