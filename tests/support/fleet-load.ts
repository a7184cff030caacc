/**
 * A load of mutating calls on a centre's identity API: users, projects, groups, memberships and grants are made, changed and
 * deleted by several workers at once, as a seed decides. What became of every call is counted from the client's side.
 *
 * Every call has a connection of its own, so "refused" (certainly not sent) and "lost" (sent, no whole answer) can be told
 * apart. A worker whose call was refused waits until somebody listens again. Not here: whether the answers were right.
 */
import { connect } from "node:net";
import { request } from "node:http";
import { seededRandom, type Random } from "../../core/random.ts";
import type { Secret } from "../../core/secret.ts";
import { until } from "../../lab/waiting.ts";

export interface LoadOptions {
  /** Addresses of the API, without /v3; workers take turns. */
  readonly urls: readonly string[];
  readonly token: Secret;
  readonly role: string;
  readonly seed: number;
  readonly workers: number;
  /** Read when nobody listens any more for too long. */
  readonly log: string;
}

export interface LoadTally {
  readonly refused: number;
  readonly lost: number;
  /** Answers by status, and the time of the slowest in milliseconds. */
  readonly answered: Readonly<Record<string, number>>;
}

/** Longest that one call may take; longer than any timeout of the product under test. */
const CALL_MS = 60_000;
/** Longest that a worker waits for somebody to listen. */
const LISTEN_MS = 60_000;
/** Things of one sort that are used again; older ones are left alone. */
const KNOWN_MAX = 100;

type Outcome = { readonly kind: "refused" } | { readonly kind: "lost"; readonly reason: string }
  | { readonly kind: "answered"; readonly status: number; readonly text: string };

/** One call; never rejects. */
export function send(url: string, method: string, token: Secret, body?: unknown): Promise<Outcome> {
  const payload = body === undefined ? "" : JSON.stringify(body);
  const headers = { "x-auth-token": token.reveal(), "content-length": String(Buffer.byteLength(payload)),
    ...(body === undefined ? {} : { "content-type": "application/json" }) };
  return new Promise((resolve) => {
    const sent = request(url, { method, agent: false, timeout: CALL_MS, headers }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.once("close", () => resolve(answer.complete
        ? { kind: "answered", status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") }
        : { kind: "lost", reason: "the answer was cut off" }));
    });
    sent.once("timeout", () => sent.destroy(new Error("no answer in time")));
    sent.once("error", (error) => resolve("code" in error && error.code === "ECONNREFUSED" ? { kind: "refused" }
      : { kind: "lost", reason: error.message }));
    sent.end(payload);
  });
}

function listens(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname);
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false)).once("connect", () => socket.destroy());
  });
}

type Sort = "users" | "projects" | "groups";
const SINGULAR: Readonly<Record<Sort, string>> = { users: "user", projects: "project", groups: "group" };

/** Workers that call an API for as long as they are let, and the count of what became of their calls. */
export class Load {
  readonly #options: LoadOptions;
  readonly #random: Random;
  readonly #known: Readonly<Record<Sort, string[]>> = { users: [], projects: [], groups: [] };
  readonly #answered = new Map<string, number>();
  readonly #lostReasons = new Map<string, number>();
  #refused = 0;
  #lost = 0;
  #made = 0;
  #stopping = false;
  #workers: Promise<unknown> = Promise.resolve();

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
  }

  start(): void {
    this.#workers = Promise.all(Array.from({ length: this.#options.workers }, (_, place) => this.#work(place)));
  }

  /** Lets calls under way end; what became of all of them. */
  async stop(): Promise<LoadTally> {
    this.#stopping = true;
    await this.#workers;
    return this.tally();
  }

  tally(): LoadTally {
    return { refused: this.#refused, lost: this.#lost, answered: Object.fromEntries([...this.#answered].sort()) };
  }

  /** Why calls were lost, for the message of a failure. */
  lostReasons(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#lostReasons);
  }

  /** Calls that were answered. */
  get answers(): number {
    return [...this.#answered.values()].reduce((sum, count) => sum + count, 0);
  }

  async #work(place: number): Promise<void> {
    for (let turn = place; !this.#stopping; turn += 1) {
      const url = this.#options.urls[turn % this.#options.urls.length] ?? "";
      if (await this.#act(url)) continue;
      const wait = { what: `somebody listening at ${url}`, withinMs: LISTEN_MS, log: this.#options.log };
      await until(wait, () => (this.#stopping ? Promise.resolve(true) : listens(url)));
    }
  }

  /** One call of a kind that chance decides; false when nobody was there to take it, or it was lost. */
  #act(url: string): Promise<boolean> {
    const pick = this.#random.next();
    const [user, project, group] = [this.#some("users"), this.#some("projects"), this.#some("groups")];
    const { role } = this.#options;
    if (user === undefined || pick < 0.2) return this.#make(url, "users", { password: "no secret", email: "first" });
    if (project === undefined || pick < 0.3) return this.#make(url, "projects", {});
    if (group === undefined || pick < 0.4) return this.#make(url, "groups", {});
    if (pick < 0.55) return this.#call(url, "PATCH", `users/${user}`, { user: { email: `turn ${this.#made += 1}` } });
    if (pick < 0.65) return this.#call(url, "PUT", `groups/${group}/users/${user}`);
    if (pick < 0.7) return this.#call(url, "DELETE", `groups/${group}/users/${user}`);
    if (pick < 0.8) return this.#call(url, "PUT", `projects/${project}/users/${user}/roles/${role}`);
    if (pick < 0.85) return this.#call(url, "PUT", `projects/${project}/groups/${group}/roles/${role}`);
    if (pick < 0.9) return this.#call(url, "DELETE", `projects/${project}/users/${user}/roles/${role}`);
    if (pick < 0.95) return this.#delete(url, "users", user);
    return pick < 0.975 ? this.#delete(url, "groups", group) : this.#delete(url, "projects", project);
  }

  #some(sort: Sort): string | undefined {
    const known = this.#known[sort];
    return known[Math.floor(this.#random.next() * known.length)];
  }

  async #make(url: string, sort: Sort, fields: object): Promise<boolean> {
    const name = `${SINGULAR[sort]}-${this.#options.seed}-${this.#made += 1}`;
    return this.#call(url, "POST", sort, { [SINGULAR[sort]]: { name, domain_id: "default", ...fields } }, (text) => {
      const id = /"id": ?"([0-9a-f]{32})"/.exec(text)?.[1];
      if (id === undefined) return;
      this.#known[sort].push(id);
      if (this.#known[sort].length > KNOWN_MAX) this.#known[sort].shift();
    });
  }

  #delete(url: string, sort: Sort, id: string): Promise<boolean> {
    this.#known[sort].splice(this.#known[sort].indexOf(id), 1);
    return this.#call(url, "DELETE", `${sort}/${id}`);
  }

  async #call(url: string, method: string, path: string, body?: unknown, made?: (text: string) => void): Promise<boolean> {
    const outcome = await send(`${url}/v3/${path}`, method, this.#options.token, body);
    switch (outcome.kind) {
      case "refused":
        this.#refused += 1;
        return false;
      case "lost":
        this.#lost += 1;
        this.#lostReasons.set(outcome.reason, (this.#lostReasons.get(outcome.reason) ?? 0) + 1);
        return false;
      case "answered": {
        const status = String(outcome.status);
        this.#answered.set(status, (this.#answered.get(status) ?? 0) + 1);
        if (outcome.status === 201) made?.(outcome.text);
        return true;
      }
    }
  }
}
