/**
 * Entry: a proxy or a sync daemon as the command line runs it, which kills itself with SIGKILL at a chosen place. The product
 * knows nothing of it: the places are the events that it counts anyway, and its world comes from outside.
 *
 * Arguments: "proxy" or "syncd", and the configuration file. It loads everything and then waits for its orders from the parent,
 * so that a successor can stand by while the last one dies.
 */
import { loadProxyConfig, loadSyncdConfig } from "../../config/load.ts";
import { systemClock } from "../../core/clock.ts";
import type { Metrics } from "../../core/metrics.ts";
import { runCentre } from "../../audit/main.ts";
import { endOnBugs, realWorld, runUntilSignal } from "../../cli/run.ts";
import { runProxy } from "../../proxy/main.ts";
import { runSyncd } from "../../syncd/main.ts";

/** Longest that a sync daemon may take to stop; the command line's own bound. */
const SYNCD_DRAIN_TIMEOUT_MS = 30_000;

/** No handler, no buffer written, no file closed: what a power switch would leave of this process. */
function die(): never {
  process.kill(process.pid, "SIGKILL");
  // The signal is delivered before the system call returns to this thread; nothing below may ever run.
  for (;;);
}

/** Counts as `metrics` does, and dies at the `times`-th occurrence of `place`. */
function dyingMetrics(metrics: Metrics, place: string, times: number): Metrics {
  let seen = 0;
  return {
    count(name, amount, labels) {
      const here = labels?.["step"] === undefined ? name : `${name}/${labels["step"]}`;
      // Some events are counted by the batch.
      if (here === place && (amount ?? 1) > 0 && (seen += 1) >= times) die();
      metrics.count(name, amount, labels);
    },
    observe: (name, seconds, labels) => metrics.observe(name, seconds, labels),
    gauge: (name, value, labels) => metrics.gauge(name, value, labels),
    render: () => metrics.render(),
  };
}

/** Where to die; an empty one lives until it is told to stop. */
export interface Orders {
  /** An event, or "event/step" for a counter with that label. */
  readonly place?: string;
  /** At which occurrence of the event. */
  readonly times?: number;
  /** Or how long after its start. */
  readonly afterMs?: number;
}

/** The parent's orders; the parent's end is the end of this process as well, as long as it waits. */
function orders(): Promise<Orders> {
  return new Promise((resolve) => {
    process.once("disconnect", () => process.exit(1));
    process.once("message", (message: Orders) => {
      process.removeAllListeners("disconnect");
      process.channel?.unref();
      resolve(message);
    });
  });
}

async function main(): Promise<number> {
  const [kind, file = ""] = process.argv.slice(2);
  const { place, times = 1, afterMs } = await orders();
  const real = realWorld("info", { process: kind ?? "", diesAt: place ?? String(afterMs ?? "never") });
  endOnBugs(real.log);
  const world = place === undefined ? real : { ...real, metrics: dyingMetrics(real.metrics, place, times) };
  if (afterMs !== undefined) systemClock.after(afterMs, die);
  if (kind === "syncd") {
    const { config } = loadSyncdConfig(file);
    return runUntilSignal(world, SYNCD_DRAIN_TIMEOUT_MS,
      () => (config.role === "centre" ? runCentre(config, world) : runSyncd(config, world)));
  }
  const { config } = loadProxyConfig(file);
  return runUntilSignal(world, config.drainTimeoutMs, () => runProxy(config, world));
}

process.exit(await main());
