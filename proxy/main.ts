/**
 * One proxy in front of one OpenStack API: configuration in, rooms wired and started. No logic beyond the order of starting and
 * draining.
 */
import { adminServer } from "../admin/server.ts";
import { present } from "../core/assert.ts";
import { Faults } from "../core/faults.ts";
import { lifecycleOf, type Lifecycle, type Part, type RunningProcess } from "../core/lifecycle.ts";
import type { World } from "../core/world.ts";
import type { ProxyConfig } from "../config/load.ts";
import { serviceNamed } from "../schemas/catalog.ts";
import { CapturingRooms, type CapturingSettings } from "./capturing.ts";
import type { Exchange } from "./exchange.ts";
import { forwarderTo } from "./forward.ts";
import { proxyServer } from "./server.ts";
import { carefulProfile, keepLearning } from "./upstream.ts";

/**
 * Starts the proxy. It takes calls as soon as it listens; what is away is waited for in the background and named on /readyz.
 */
export async function runProxy(config: ProxyConfig, world: World): Promise<RunningProcess> {
  const service = serviceNamed(config.service);
  const faults = new Faults(world.clock);
  const forward = forwarderTo(carefulProfile(config.upstream, service.errorShape), world);
  const upstream = keepLearning(config.upstream, service.errorShape, forward, world);
  const rooms = config.capture ? new CapturingRooms(capturingSettings(config), service, forward, faults, world) : undefined;
  const handle = async (exchange: Exchange): Promise<void> => {
    if (rooms === undefined) await forward.relay(exchange, { keepAnswerBytes: 0, keepRequestBytes: 0 });
    else await rooms.handle(exchange);
  };
  const { errorShape } = service;
  const server = proxyServer({ ...config.listen, errorShape, drainTimeoutMs: config.drainTimeoutMs, handle }, world);
  const connections: Part = { name: "upstream connections", start: () => Promise.resolve(), stop: () => forward.close() };
  const holder: { lifecycle?: Lifecycle } = {};
  const admin = adminServer({ ...config.admin, facts: { process: "proxy", site: config.site, service: service.name },
    notReady: () => present(holder.lifecycle, "asked only once started").notReady(),
    status: () => ({ faults: faults.list(), ...rooms?.status() }), metrics: world.metrics }, world.log);
  const lifecycle = lifecycleOf([admin, connections, upstream, ...(rooms?.parts ?? []), server], world.log);
  holder.lifecycle = lifecycle;
  await lifecycle.start();
  return lifecycle;
}

function capturingSettings(config: ProxyConfig): CapturingSettings {
  const law = "the configuration was checked for it when it was loaded";
  const { database, feed, intents } = config;
  return { ...config, database: present(database, law), feed: present(feed, law), intents: present(intents, law) };
}
