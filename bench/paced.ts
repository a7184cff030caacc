/**
 * Latency at a moderate rate: one call at a time, the variants taking turns call by call, so that whatever else the machine does
 * hits them alike. The difference between two variants is then what lies between them.
 *
 * Each variant has one kept connection, as an OpenStack client has; a server that closes it costs its clients a new one, and
 * that is part of what they wait for.
 */
import { Agent, request } from "node:http";
import { sleep, systemClock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import { percentile, turns, type Figures } from "./figures.ts";

/** One call to be made. */
export interface Call {
  readonly method: "GET" | "PATCH";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** A client with one connection. */
export class Caller {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });

  /**
   * Makes one call; ms until its whole answer was there.
   * @throws E_LAB_STEP unless it answers 200.
   */
  call({ method, url, headers, body }: Call): Promise<number> {
    const startMs = systemClock.monotonicMs();
    const describing: Readonly<Record<string, string>> = body === undefined ? {}
      : { "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) };
    return new Promise((resolve, reject) => {
      const sent = request(url, { method, agent: this.#agent, headers: { ...headers, ...describing } }, (answer) => {
        answer.resume().once("error", reject).once("end", () => {
          const tookMs = systemClock.monotonicMs() - startMs;
          if (answer.statusCode === 200) resolve(tookMs);
          else reject(new OperatingError("E_LAB_STEP", `${method} ${url} answered ${answer.statusCode}`));
        });
      });
      sent.once("error", reject).end(body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

export interface PacedVariant {
  readonly name: string;
  /** The call number `turn` of this variant. */
  readonly call: (turn: number) => Call;
}

/** Calls per variant that are made and not counted: code is compiled and connections are open after them. */
const WARM_UP_CALLS = 50;

/**
 * Makes `calls` calls of each variant with `gapMs` of rest between any two. The first variant is what the others are compared
 * with: figures are p50 and p99 in ms, and what they add to the first one's.
 */
export async function paced(variants: readonly PacedVariant[], calls: number, gapMs: number):
Promise<ReadonlyMap<string, Figures>> {
  const callers = new Map(variants.map(({ name }) => [name, new Caller()]));
  const times = new Map<string, number[]>(variants.map(({ name }) => [name, []]));
  const warmUp = Math.min(WARM_UP_CALLS, Math.ceil(calls / 4));
  try {
    for (let turn = 0; turn < warmUp + calls; turn += 1) {
      for (const { name, call } of turns(variants, turn)) {
        await sleep(systemClock, gapMs);
        const tookMs = await callers.get(name)?.call(call(turn)) ?? 0;
        if (turn >= warmUp) times.get(name)?.push(tookMs);
      }
    }
  } finally {
    for (const caller of callers.values()) caller.close();
  }
  const at = (name: string | undefined, share: number): number => percentile(times.get(name ?? "") ?? [], share);
  const first = variants[0]?.name;
  return new Map(variants.map(({ name }) => [name, { "p50 ms": at(name, 0.5), "p99 ms": at(name, 0.99),
    "added p50 ms": at(name, 0.5) - at(first, 0.5), "added p99 ms": at(name, 0.99) - at(first, 0.99) }]));
}
