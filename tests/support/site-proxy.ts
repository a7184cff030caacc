/** A site's proxy in this process, between a scripted centre and a scripted local service; the way to the centre obeys a test. */
import { keystone } from "../../schemas/keystone.ts";
import { forwarderTo } from "../../proxy/forward.ts";
import { Freshness } from "../../proxy/freshness.ts";
import { Reach, type ReachOptions } from "../../proxy/reach.ts";
import { proxyServer } from "../../proxy/server.ts";
import { Site, type SiteServing } from "../../proxy/site.ts";
import { UPSTREAM_DEFAULTS } from "../../proxy/upstream.ts";
import { rawClient, RawUpstream, testWorld, type RawConnection } from "./upstream.ts";

export const SERVING: SiteServing = { profile: "centre-first", freshWithinMs: 20_000, ownWritesMs: 10_000, patienceMs: 50,
  retryAfterMs: 30_000, truthHeaders: true };
/** Nothing is probed but when it is doubted. */
const REACH: ReachOptions = { probeEveryMs: 3_600_000, probeAgainMs: 10, probeTimeoutMs: 50, failuresMax: 2, goodProbesMin: 2 };

export interface SiteProxy {
  readonly centre: RawUpstream;
  readonly local: RawUpstream;
  readonly reach: Reach;
  readonly freshness: Freshness;
  /** Probes so far. */
  readonly probes: number;
  /** What probes find. */
  isThere: boolean;
  /** What the daemon beside the proxy says: seconds, or nothing. */
  ageSeconds: number | undefined;
  client(): Promise<RawConnection>;
  close(): Promise<void>;
}

/** Started, and connected. */
export async function startSiteProxy(serving: Partial<SiteServing> = {}): Promise<SiteProxy> {
  const [centre, local] = [new RawUpstream(), new RawUpstream()];
  const world = testWorld;
  const forwardTo = async (upstream: RawUpstream) => forwarderTo({ ...UPSTREAM_DEFAULTS, errorShape: "keystone",
    keepAlive: false, chunkedRequests: false, url: `http://127.0.0.1:${await upstream.listen()}` }, world);
  const [toCentre, toLocal] = [await forwardTo(centre), await forwardTo(local)];
  const state = { isThere: true, ageSeconds: 3 as number | undefined, probes: 0 };
  const probe = (): Promise<boolean> => {
    state.probes += 1;
    return Promise.resolve(state.isThere);
  };
  const reach = new Reach({ world, probe }, REACH);
  const freshness = new Freshness({ service: "keystone", world, ask: () => Promise.resolve(JSON.stringify(
    { status: { services: [{ service: "keystone", epoch: 2, sequence: 71, ageSeconds: state.ageSeconds }] } })) });
  const site = new Site({ site: "edge1", service: keystone, centre: toCentre, local: toLocal, reach, freshness, world },
    { ...SERVING, ...serving });
  const server = proxyServer({ host: "127.0.0.1", port: 0, errorShape: "keystone", drainTimeoutMs: 1_000,
    handle: (exchange) => site.handle(exchange) }, world);
  for (const part of [...site.parts, server]) await part.start();
  const clients: RawConnection[] = [];
  return {
    centre, local, reach, freshness,
    get probes() { return state.probes; },
    get isThere() { return state.isThere; },
    set isThere(isThere) { state.isThere = isThere; },
    get ageSeconds() { return state.ageSeconds; },
    set ageSeconds(ageSeconds) { state.ageSeconds = ageSeconds; },
    async client() {
      const client = await rawClient(server.address()?.port ?? 0);
      clients.push(client);
      return client;
    },
    async close() {
      for (const { socket } of clients) socket.destroy();
      for (const part of [server, ...site.parts]) await part.stop();
      for (const forward of [toCentre, toLocal]) await forward.close();
      await Promise.all([centre.close(), local.close()]);
    },
  };
}
