/**
 * People who only read and sign in, at a steady rate, each call on a connection of its own: tokens are made and validated, a
 * user is shown, a catalogue is read. What went wrong is told call by call, and how long the slowest answer took.
 */
import { request } from "node:http";
import { systemClock } from "../../core/clock.ts";
import type { Secret } from "../../core/secret.ts";
import type { Credentials } from "../../lab/identity.ts";

export interface Reading {
  /** Address of the API, without /v3. */
  readonly url: string;
  readonly admin: Credentials & { readonly project: string };
  /** An administrator's token and id, made before. */
  readonly token: Secret;
  readonly userId: string;
  readonly callsPerSecond: number;
}

export interface ReadingTally {
  readonly answered: number;
  /** Answers of the site itself, by their header. */
  readonly local: number;
  /** What went wrong, the first few. */
  readonly failed: readonly string[];
  readonly slowestMs: number;
}

/** Longer than any timeout of the product. */
const CALL_MS = 60_000;
const FAILURES_SHOWN_MAX = 20;
const DEFAULT_DOMAIN = { id: "default" };

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** See the file's head. */
export class Readers {
  readonly #reading: Reading;
  readonly #asked: readonly Asked[];
  readonly #open = new Set<Promise<void>>();
  readonly #failed: string[] = [];
  #answered = 0;
  #local = 0;
  #slowestMs = 0;
  #stopping = false;
  #pacing: Promise<void> = Promise.resolve();

  constructor(reading: Reading) {
    this.#reading = reading;
    const { user, password, project } = reading.admin;
    const token = reading.token.reveal();
    const who = { name: user, domain: DEFAULT_DOMAIN, password: password.reveal() };
    const body = JSON.stringify({ auth: { identity: { methods: ["password"], password: { user: who } },
      scope: { project: { name: project, domain: DEFAULT_DOMAIN } } } });
    const own = { "x-auth-token": token };
    this.#asked = [
      { method: "POST", path: "/v3/auth/tokens", status: 201, body, headers: { "content-type": "application/json" } },
      { method: "GET", path: "/v3/auth/tokens", status: 200, headers: { ...own, "x-subject-token": token } },
      { method: "GET", path: `/v3/users/${reading.userId}`, status: 200, headers: own },
      { method: "GET", path: "/v3/auth/catalog", status: 200, headers: own },
    ];
  }

  start(): void {
    this.#pacing = this.#pace();
  }

  /** Lets calls under way end. */
  async stop(): Promise<ReadingTally> {
    this.#stopping = true;
    await this.#pacing;
    await Promise.all(this.#open);
    return this.tally();
  }

  tally(): ReadingTally {
    return { answered: this.#answered, local: this.#local, failed: this.#failed.slice(0, FAILURES_SHOWN_MAX),
      slowestMs: Math.round(this.#slowestMs) };
  }

  /** As many as are due by now, however late the timer is. */
  async #pace(): Promise<void> {
    const startMs = systemClock.monotonicMs();
    for (let begun = 0; !this.#stopping;) {
      const due = ((systemClock.monotonicMs() - startMs) / 1000) * this.#reading.callsPerSecond;
      for (; begun < due; begun += 1) this.#begin(this.#asked[begun % this.#asked.length]);
      await new Promise<void>((resolve) => setTimeout(resolve, 1000 / this.#reading.callsPerSecond));
    }
  }

  #begin(asked: Asked | undefined): void {
    if (asked === undefined) return;
    const startMs = systemClock.monotonicMs();
    const call = this.#call(asked).then((wrong) => {
      this.#open.delete(call);
      this.#slowestMs = Math.max(this.#slowestMs, systemClock.monotonicMs() - startMs);
      if (wrong === undefined) this.#answered += 1;
      else this.#failed.push(`${asked.method} ${asked.path}: ${wrong}`);
    });
    this.#open.add(call);
  }

  /** What is wrong with the answer; undefined when nothing is. */
  #call({ method, path, status, headers, body }: Asked): Promise<string | undefined> {
    return new Promise((resolve) => {
      const length = body === undefined ? {} : { "content-length": String(Buffer.byteLength(body)) };
      const sent = request(`${this.#reading.url}${path}`, { method, agent: false, timeout: CALL_MS,
        headers: { ...headers, ...length } }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk)).once("close", () => {
          if (answer.headers["x-holdfast-served-by"] !== undefined) this.#local += 1;
          const text = Buffer.concat(chunks).toString("utf8");
          if (!answer.complete) resolve("the answer was cut off");
          else resolve(answer.statusCode === status ? undefined : `${answer.statusCode}: ${text.slice(0, 200)}`);
        });
      });
      sent.once("timeout", () => sent.destroy(new Error("no answer in time"))).once("error", (error) => resolve(error.message));
      sent.end(body);
    });
  }
}
