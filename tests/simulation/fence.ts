/**
 * One life of a process, seen from its ports. Everything it asks of the world goes through its fence; to crash is to close the
 * fence: what was asked is never answered, what is asked afterwards never happens, timers never fire, and open transactions are
 * rolled back. Product code does not know; it stops at whatever await it had reached.
 *
 * A fence also counts the calls, so that a test can crash a process at each of them, and makes calls slow where the weather is.
 */
import { sleep, type Cancel, type Clock } from "../../core/clock.ts";
import type { Feed, FeedMessage, Publication, ReadOptions } from "../../feed/feed.ts";
import type { Rows } from "../../rows/rows.ts";
import { altered } from "./altered.ts";
import type { Trace } from "./trace.ts";

/** Where a life ends by plan: at its n-th call, before it was done or after. */
export interface CrashPoint {
  readonly call: number;
  readonly when: "before" | "after";
}

export interface FenceOptions {
  readonly actor: string;
  readonly clock: Clock;
  readonly trace: Trace;
  /** How long a call takes to arrive, drawn anew for each. */
  readonly latencyMs: (verb: string) => number;
  readonly crashAt?: CrashPoint | undefined;
  /** Called when the crash point is reached, with the fence closed. */
  readonly crashed?: () => void;
}

/** Calls that a person wants to see in a trace: what changes something outside the process, or asks somebody to. */
const MAJOR = /^(?:publish|purge|ask|answer|forward)/;

class Crash extends Error {}

function never<T>(): Promise<T> {
  return new Promise(() => undefined);
}

/** The table that a call on a database is about, with the number of rows it is given. */
function tableIn([table, rows]: readonly unknown[]): string {
  const name = typeof table === "object" && table !== null && "name" in table ? String(table.name) : "";
  return Array.isArray(rows) ? `${name} ${rows.length}` : name;
}

/** See the file's head. */
export class Fence {
  readonly #options: FenceOptions;
  readonly #rolledBack = new Set<(crash: Crash) => void>();
  #closed = false;
  #calls = 0;
  #stoppedUntilMs = 0;

  constructor(options: FenceOptions) {
    this.#options = options;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Calls made so far. */
  get calls(): number {
    return this.#calls;
  }

  get actor(): string {
    return this.#options.actor;
  }

  /** A line of this process in the trace. */
  say(text: string): void {
    this.#options.trace.note(this.#options.actor, text);
  }

  /** The process stands still for a while: nothing that it waits for reaches it before. */
  stopFor(durationMs: number): void {
    this.#stoppedUntilMs = Math.max(this.#stoppedUntilMs, this.#options.clock.monotonicMs() + durationMs);
  }

  /** The end of this life. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const crash = new Crash(`${this.#options.actor} crashed`);
    for (const rollBack of [...this.#rolledBack]) rollBack(crash);
    this.#rolledBack.clear();
  }

  /** One call through the fence. Neither resolves nor rejects once the fence is closed. */
  async pass<T>(verb: string, work: () => Promise<T>): Promise<T> {
    if (this.#closed) return never();
    const { latencyMs, clock, trace, actor, crashAt } = this.#options;
    const call = (this.#calls += 1);
    trace.note(actor, verb, !MAJOR.test(verb));
    const waitMs = latencyMs(verb);
    if (waitMs > 0) await sleep(clock, waitMs);
    if (crashAt?.call === call && crashAt.when === "before") this.#crash();
    if (this.#closed) return never();
    try {
      const result = await work();
      while (this.#standsStillMs() > 0) await sleep(clock, this.#standsStillMs());
      if (crashAt?.call === call) this.#crash();
      if (this.#closed) return await never<T>();
      return result;
    } catch (error) {
      if (crashAt?.call === call) this.#crash();
      if (this.#closed) return never();
      throw error;
    }
  }

  /** Work inside a transaction: ends with an error when the fence is closed, so that the transaction ends too. */
  during<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return void reject(new Crash("crashed"));
      this.#rolledBack.add(reject);
      work.then(resolve, reject).finally(() => this.#rolledBack.delete(reject));
    });
  }

  /** The clock of this life: its timers end with it. */
  clock(): Clock {
    const { clock } = this.#options;
    return { nowMs: () => clock.nowMs(), monotonicMs: () => clock.monotonicMs(),
      after: (delayMs, action) => this.#timer(delayMs, action) };
  }

  #timer(delayMs: number, action: () => void): Cancel {
    let cancel = this.#options.clock.after(delayMs, () => {
      if (this.#closed) return;
      const standsStillMs = this.#standsStillMs();
      if (standsStillMs > 0) cancel = this.#timer(standsStillMs, action);
      else action();
    });
    return () => cancel();
  }

  #standsStillMs(): number {
    return this.#stoppedUntilMs - this.#options.clock.monotonicMs();
  }

  /** `feed` as this life sees it. */
  feed(feed: Feed): Feed {
    return altered(feed, {
      ensureStream: () => this.pass("ensure stream", () => feed.ensureStream()),
      state: () => this.pass("stream state", () => feed.state()),
      publish: (publication: Publication) => this.pass(`publish ${publication.subject} expecting ${publication.expected}`,
        () => feed.publish(publication)),
      last: (subject) => this.pass(`last ${subject}`, () => feed.last(subject)),
      read: (options, signal) => this.#reading(feed, options, signal),
      report: (subject, payload) => {
        if (!this.#closed) feed.report(subject, payload);
      },
      purge: (subject, sequence) => this.pass(`purge ${subject} ${sequence}`, () => feed.purge(subject, sequence)),
      ask: (subject, question, timeoutMs) => this.pass(`ask ${subject}`, () => feed.ask(subject, question, timeoutMs)),
      serve: (subject, answer) => feed.serve(subject, (question, askedOn) =>
        this.pass(`answer ${askedOn}`, () => answer(question, askedOn))),
    });
  }

  async *#reading(feed: Feed, options: ReadOptions, signal: AbortSignal): AsyncGenerator<readonly FeedMessage[], void, void> {
    const batches = feed.read(options, signal)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await this.pass(`read ${options.filter} after ${options.after}`, () => batches.next());
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      await batches.return?.();
    }
  }

  /** A database as this life sees it. */
  rows(rows: Rows): Rows {
    return altered(rows, {
      snapshot: (work) => this.pass("snapshot", () => rows.snapshot((read) => this.during(work(this.#guarded(read))))),
      transaction: (work) => this.pass("transaction", () =>
        rows.transaction((write) => this.during(work(this.#guarded(write))))),
      reflect: () => this.pass("reflect", () => rows.reflect()),
      revisions: (table, column) => this.pass("revisions", () => rows.revisions(table, column)),
      ensureTables: (tables) => this.pass("ensure tables", () => rows.ensureTables(tables)),
      ensureCounter: (table, first) => this.pass("ensure counter", () => rows.ensureCounter(table, first)),
    });
  }

  /** A reader or writer whose every call goes through the fence; a savepoint is only a frame around others. */
  #guarded<T extends object>(target: T): T {
    return new Proxy(target, {
      get: (object, name): unknown => {
        const value: unknown = Reflect.get(object, name, object);
        if (typeof value !== "function") return value;
        const call = (...inputs: readonly unknown[]): unknown =>
          (value as (...given: unknown[]) => unknown).apply(object, [...inputs]);
        if (name === "savepoint") return call;
        return (...inputs: readonly unknown[]): unknown =>
          this.pass(`${String(name)} ${tableIn(inputs)}`, () => call(...inputs) as Promise<unknown>);
      },
    });
  }

  #crash(): void {
    if (this.#closed) return;
    this.#options.trace.note(this.#options.actor, "crashes here");
    this.close();
    this.#options.crashed?.();
  }
}
