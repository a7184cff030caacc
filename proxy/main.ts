/**
 * One proxy in front of one OpenStack API: configuration in, rooms wired and started. No logic beyond the order of starting and
 * draining.
 */
import { adminServer } from "../admin/server.ts";
import { readAuthorities } from "../admin/tls-files.ts";
import { present } from "../core/assert.ts";
import { Faults } from "../core/faults.ts";
import { lifecycleOf, type Lifecycle, type Part, type RunningProcess } from "../core/lifecycle.ts";
import type { World } from "../core/world.ts";
import type { ProxyConfig } from "../config/load.ts";
import { serviceNamed } from "../schemas/catalog.ts";
import { CapturingRooms, type CapturingSettings } from "./capturing.ts";
import type { Service } from "../schemas/define.ts";
import type { Exchange } from "./exchange.ts";
import { forwarderTo, type Forwarder } from "./forward.ts";
import { Freshness } from "./freshness.ts";
import { peek } from "./peek.ts";
import { Reach } from "./reach.ts";
import { proxyServer } from "./server.ts";
import { Site } from "./site.ts";
import { carefulProfile, keepLearning } from "./upstream.ts";

/** From here on an answer says that the service cannot answer. */
const FAILING_STATUS = 500;
/** The daemon beside the proxy answers at once or not at all. */
const SYNCD_TIMEOUT_MS = 1_000;

/**
 * Starts the proxy. It takes calls as soon as it listens; what is away is waited for in the background and named on /readyz.
 */
export async function runProxy(config: ProxyConfig, world: World): Promise<RunningProcess> {
  const service = serviceNamed(config.service);
  const faults = new Faults(world.clock);
  const { forward, parts } = reached(config.upstream, "upstream", service, world);
  const rooms = config.capture ? new CapturingRooms(capturingSettings(config), service, forward, faults, world)
    : config.centre === undefined ? undefined : siteOf(config.centre, config.site, service, forward, world);
  const handle = async (exchange: Exchange): Promise<void> => {
    if (rooms === undefined) await forward.relay(exchange, { keepAnswerBytes: 0, keepRequestBytes: 0 });
    else await rooms.handle(exchange);
  };
  const { errorShape } = service;
  const server = proxyServer({ ...config.listen, errorShape, drainTimeoutMs: config.drainTimeoutMs, handle }, world);
  const holder: { lifecycle?: Lifecycle } = {};
  const admin = adminServer({ ...config.admin, facts: { process: "proxy", site: config.site, service: service.name },
    notReady: () => present(holder.lifecycle, "asked only once started").notReady(),
    status: () => ({ faults: faults.list(), ...rooms?.status() }), metrics: world.metrics }, world.log);
  const lifecycle = lifecycleOf([admin, ...parts, ...(rooms?.parts ?? []), server], world.log);
  holder.lifecycle = lifecycle;
  await lifecycle.start();
  return lifecycle;
}

type ApiSection = ProxyConfig["upstream"];

/** The way to an API, and the parts that keep it. */
function reached(section: ApiSection, name: string, service: Service, world: World):
  { readonly forward: Forwarder; readonly parts: readonly Part[] } {
  const settings = { ...section, authorities: readAuthorities(section.ca) };
  const forward = forwarderTo(carefulProfile(settings, service.errorShape), world, name);
  const connections: Part = { name: `${name} connections`, start: () => Promise.resolve(), stop: () => forward.close() };
  return { forward, parts: [connections, keepLearning(settings, service.errorShape, forward, world, name)] };
}

function siteOf(section: NonNullable<ProxyConfig["centre"]>, site: string, service: Service, local: Forwarder, world: World):
  Pick<Site, "handle" | "status" | "parts"> {
  const { forward: centre, parts } = reached(section, "centre", service, world);
  const authorities = readAuthorities(section.ca);
  const probe = async (timeoutMs: number): Promise<boolean> => {
    const peeked = await peek({ url: section.url, timeoutMs, authorities }, world.clock);
    return peeked !== undefined && peeked.status < FAILING_STATUS;
  };
  const ask = async (): Promise<string | undefined> =>
    (await peek({ url: `${section.syncd}/status`, timeoutMs: SYNCD_TIMEOUT_MS }, world.clock))?.text;
  const rooms = new Site({ site, service, centre, local, reach: new Reach({ world, probe }, section.reach),
    freshness: new Freshness({ service: service.name, world, ask }), world }, section);
  return { handle: (exchange) => rooms.handle(exchange), status: () => rooms.status(), parts: [...parts, ...rooms.parts] };
}

function capturingSettings(config: ProxyConfig): CapturingSettings {
  const law = "the configuration was checked for it when it was loaded";
  const { database, feed, intents } = config;
  return { ...config, database: present(database, law), feed: present(feed, law), intents: present(intents, law) };
}
