/**
 * Clients of the simulated service: each call goes through one of the proxies, and the weather decides what becomes of its
 * answer and when its rows are committed.
 */
import { isOperating } from "../../core/errors.ts";
import { seededRandom, type Random } from "../../core/random.ts";
import type { Capture } from "../../schemas/define.ts";
import type { SimulatedCloud } from "./cloud.ts";
import { isClientsTrouble, type Upstream } from "./processes.ts";
import { SimulatedCall, type Write } from "./service.ts";

/** A commit that comes this much after the service's answer, at most; the last look comes later. */
const LATE_COMMIT_MS = 4_000;
/** A commit that comes this much after a good answer, at most; the first settle re-read comes later. */
const EARLY_ANSWER_MS = 1_500;

/** Makes calls; knows how many are under way. */
export class Clients {
  readonly #cloud: SimulatedCloud;
  #underWay = 0;

  constructor(cloud: SimulatedCloud) {
    this.#cloud = cloud;
  }

  /** True when no call and no late commit is under way. */
  get isIdle(): boolean {
    return this.#underWay === 0;
  }

  /** One client's wish; everything about it is decided by `pick`. */
  call(pick: number): void {
    const random = seededRandom(pick);
    const send = (declared: Capture, parameters: Readonly<Record<string, string>>, write: Write): Promise<void> =>
      this.#send(declared, parameters, write, random);
    void this.#counted(() => new SimulatedCall({ rows: this.#cloud.serviceRows, clock: this.#cloud.clock, send }, random).make());
  }

  async #counted(work: () => Promise<void>): Promise<void> {
    this.#underWay += 1;
    try {
      await work();
    } catch (error) {
      if (!isClientsTrouble(error)) throw error;
    } finally {
      this.#underWay -= 1;
    }
  }

  async #send(declared: Capture, parameters: Readonly<Record<string, string>>, write: Write, random: Random): Promise<void> {
    const { proxies, trace } = this.#cloud;
    const proxy = proxies[Math.floor(random.next() * proxies.length)];
    if (proxy?.isOpen !== true) return trace.note("service", `${declared.on} finds no proxy`);
    // What a call itself asks to take away, or may take with it, is not the guard's to protect.
    const asked = Object.values(parameters);
    const isAsked = (name: string): boolean => declared.on.startsWith("DELETE /domains") ||
      name.split(".").some((part) => asked.includes(part));
    if (declared.on.startsWith("DELETE ")) for (const { oracle } of this.#cloud.sites) oracle.unspare(isAsked);
    trace.note("service", `${declared.on} ${Object.values(parameters).join()} through ${proxy.fence.actor}`);
    await proxy.call(declared, parameters, this.#upstream(declared, write, random));
  }

  /** The service behind the proxy. */
  #upstream(declared: Capture, write: Write, random: Random): Upstream {
    const { weather, stormy } = this.#cloud;
    const happens = (share: number): boolean => stormy && random.next() < share;
    const status = declared.on.startsWith("POST ") ? 201 : declared.on.startsWith("DELETE ") ? 204 : 200;
    if (happens(weather.lateCommits)) {
      return async () => {
        this.#later(random.next() * LATE_COMMIT_MS, write);
        return { outcome: "unknown", status: undefined, answer: undefined };
      };
    }
    // A new aggregate's id is in the answer, which is made with the row: only calls on known keys are answered early here. Kinds
    // that a call compares whole are not compared again when it settles: what is late there is the auditor's to find.
    const mayBeEarly = !declared.on.startsWith("POST ") &&
      (weather.auditors > 0 || declared.touches.every(({ touch }) => touch !== "scan"));
    if (mayBeEarly && happens(weather.earlyAnswers)) {
      return async () => {
        this.#later(random.next() * EARLY_ANSWER_MS, write);
        return { outcome: "answered", status, answer: Buffer.from("{}") };
      };
    }
    return async () => {
      const answer = await this.#commit(write);
      if (answer === undefined) return { outcome: "answered", status: 409, answer: Buffer.from("{}") };
      if (happens(weather.lostAnswers)) return { outcome: "unknown", status: undefined, answer: undefined };
      if (happens(weather.lostAnswers / 4)) return { outcome: "answered", status: 500, answer: undefined };
      return { outcome: "answered", status, answer: Buffer.from(answer) };
    };
  }

  #later(delayMs: number, write: Write): void {
    this.#underWay += 1;
    this.#cloud.clock.after(delayMs, () => {
      this.#underWay -= 1;
      void this.#counted(async () => void await this.#commit(write));
    });
  }

  /** The service's own transaction; undefined when it refuses the call, or its database went away. */
  async #commit(write: Write): Promise<string | undefined> {
    try {
      return await write();
    } catch (error) {
      if (!isOperating(error, "E_ROWS_UNIQUE", "E_ROWS_REFERENCE", "E_ROWS_UNAVAILABLE")) throw error;
      return undefined;
    }
  }
}
