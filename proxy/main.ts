/** One proxy in front of one OpenStack API: configuration in, rooms wired and started. No logic beyond the order of starting and draining. */
import { adminServer } from "../admin/server.ts";
import { CaptureRoom, CAPTURE_DEFAULTS } from "../capture/capture.ts";
import { captureOfUnknown } from "../capture/touches.ts";
import { present } from "../core/assert.ts";
import { sleep } from "../core/clock.ts";
import { Faults } from "../core/faults.ts";
import { lifecycleOf, type Lifecycle, type Part, type RunningProcess } from "../core/lifecycle.ts";
import { stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import type { ProxyConfig } from "../config/load.ts";
import { openJetstream } from "../feed/jetstream.ts";
import { jetstreamOptionsOf } from "../feed/section.ts";
import { openRows } from "../rows/open.ts";
import { serviceNamed } from "../schemas/catalog.ts";
import type { Service } from "../schemas/define.ts";
import type { Exchange } from "./exchange.ts";
import { forwarderTo, type Forwarder } from "./forward.ts";
import { openJournal, type Journal } from "./intent.ts";
import { carryMutation, type MutationRooms } from "./mutation.ts";
import { replayIntents } from "./replay.ts";
import { routerOf } from "./route.ts";
import { proxyServer } from "./server.ts";
import { carefulProfile, keepLearning } from "./upstream.ts";

/** The rooms of a proxy that captures; one that only forwards has none of them. */
interface CapturingRooms {
  readonly parts: readonly Part[];
  readonly handle: (exchange: Exchange) => Promise<void>;
  readonly status: () => object;
}

/** Calls whose story goes on after their answer: waited for when the process stops, within its drain time. */
class Afterwards {
  readonly #open = new Set<Promise<void>>();

  get size(): number {
    return this.#open.size;
  }

  follow(story: Promise<void>): void {
    const tracked: Promise<void> = story.then(() => void this.#open.delete(tracked));
    this.#open.add(tracked);
  }

  async settled(): Promise<void> {
    await Promise.all(this.#open);
  }
}

function capturing(config: ProxyConfig, service: Service, forward: Forwarder, faults: Faults, world: World): CapturingRooms {
  const law = "checked when the configuration was loaded";
  const [databaseAt, feedAt, intentsAt] = [present(config.database, law), present(config.feed, law), present(config.intents, law)];
  const rows = openRows(databaseAt, world);
  const feed = openJetstream(jetstreamOptionsOf(feedAt, { service: service.name, role: "centre", site: config.site }), world);
  const capture = new CaptureRoom({ service, scope: feedAt.scope, rows, feed, faults }, world,
    { ...CAPTURE_DEFAULTS, settle: { ...CAPTURE_DEFAULTS.settle, delaysMs: config.settle.delaysMs }, dirtyKeysMax: config.dirtyKeysMax });
  const router = routerOf(service);
  const unknown = captureOfUnknown(service);
  const afterwards = new Afterwards();
  const stopping = stopSignal();
  const holder: { journal?: Journal } = {};
  const roomsNow = (): MutationRooms => ({ forward, intents: present(holder.journal, "calls are taken after the journal is open"), capture, faults,
    whenUnwritable: intentsAt.whenUnwritable, lateMs: config.lateMs, signal: stopping.signal });

  const handle = async (exchange: Exchange): Promise<void> => {
    const routed = router.route(exchange.method, exchange.target);
    if (routed.route === "pass" || routed.route === "leave") {
      await forward.relay(exchange, { keepAnswerBytes: 0, keepRequestBytes: 0 });
      return;
    }
    const call = routed.route === "capture" ? { exchange, declared: routed.capture, parameters: routed.parameters }
      : { exchange, declared: unknown, parameters: {} };
    if (routed.route === "unknown") world.metrics.count("holdfast_unknown_routes_total");
    const { captured } = await carryMutation(call, roomsNow(), world);
    afterwards.follow(captured);
  };
  world.metrics.gauge("holdfast_calls_uncaptured", () => afterwards.size);

  const connections: Part = { name: "connections", start: () => Promise.resolve(),
    stop: async () => void (await Promise.all([feed.close(), rows.close()])) };
  const intents: Part = {
    name: "intents",
    async start() {
      holder.journal = await openJournal({ folder: intentsAt.folder, segmentBytesMax: intentsAt.segmentBytesMax, sizeBytesMax: intentsAt.sizeBytesMax }, world);
      afterwards.follow(replayIntents({ service, intents: holder.journal, capture, lateMs: config.lateMs, signal: stopping.signal }, world));
    },
    async stop() {
      await Promise.race([afterwards.settled(), sleep(world.clock, config.drainTimeoutMs)]);
      stopping.abort();
      await holder.journal?.stop();
    },
  };
  const status = (): object => ({ ...capture.status(), calls: afterwards.size, openIntents: holder.journal?.opened().length ?? 0 });
  return { parts: [connections, capture, intents], handle, status };
}

/** Starts the proxy. It takes calls as soon as it listens; what is away is waited for in the background and named on /readyz. */
export async function runProxy(config: ProxyConfig, world: World): Promise<RunningProcess> {
  const service = serviceNamed(config.service);
  const faults = new Faults(world.clock);
  const forward = forwarderTo(carefulProfile(config.upstream, service.errorShape), world);
  const upstream = keepLearning(config.upstream, service.errorShape, forward, world);
  const rooms = config.capture ? capturing(config, service, forward, faults, world) : undefined;
  const handle = rooms?.handle ?? (async (exchange: Exchange): Promise<void> =>
    void (await forward.relay(exchange, { keepAnswerBytes: 0, keepRequestBytes: 0 })));
  const server = proxyServer({ ...config.listen, errorShape: service.errorShape, drainTimeoutMs: config.drainTimeoutMs, handle }, world);
  const holder: { lifecycle?: Lifecycle } = {};
  const admin = adminServer({ ...config.admin, facts: { process: "proxy", site: config.site, service: service.name },
    notReady: () => present(holder.lifecycle, "asked only once started").notReady(),
    status: () => ({ faults: faults.list(), ...rooms?.status() }), metrics: world.metrics }, world.log);
  const lifecycle = lifecycleOf([admin, upstream, ...(rooms?.parts ?? []), server], world.log);
  holder.lifecycle = lifecycle;
  await lifecycle.start();
  return lifecycle;
}
