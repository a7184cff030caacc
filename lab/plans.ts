/** Which processes a lab has, by part, and how each is run. Pure: it looks at the record only. */
import type { ProcessPlan } from "./processes.ts";
import { proxyPlan, syncdPlan, type Program } from "./holdfast.ts";
import { linkOf, linkPlan } from "./links.ts";
import { keystonePlan, memcachedPlan } from "./keystone.ts";
import { natsPlan } from "./nats.ts";
import { CLOUDS, SITES, type Part } from "./options.ts";
import { enginesOf, type LabRecord } from "./record.ts";
import { serverOf } from "./servers.ts";

/** Versions of the programs; a running process of another one is started again. */
export interface Editions {
  readonly keystone: string;
  readonly holdfast: Program;
}

/** Names of a part's processes, in the order in which they are shown. */
export function namesOf(record: LabRecord, part: Part): readonly string[] {
  switch (part) {
    case "databases": return enginesOf(record);
    case "nats": return ["nats", ...SITES.map(linkOf)];
    case "keystone": return [...CLOUDS.map((cloud) => `memcached-${cloud}`), ...CLOUDS.map((cloud) => `keystone-${cloud}`)];
    case "proxies": return CLOUDS.map((cloud) => `proxy-${cloud}`);
    case "syncd": return CLOUDS.map((cloud) => `syncd-${cloud}`);
  }
}

/** Plans of a part's processes, in the same order. */
export function plansOf(record: LabRecord, part: Part, editions: Editions): readonly ProcessPlan[] {
  switch (part) {
    case "databases": return enginesOf(record).map((engine) => serverOf(record, engine).plan);
    case "nats": return [natsPlan(record), ...SITES.map((site) => linkPlan(record, site))];
    case "keystone": return [...CLOUDS.map((cloud) => memcachedPlan(record, cloud)),
      ...CLOUDS.map((cloud) => keystonePlan(record, cloud, editions.keystone))];
    case "proxies": return CLOUDS.map((cloud) => proxyPlan(record, cloud, editions.holdfast));
    case "syncd": return CLOUDS.map((cloud) => syncdPlan(record, cloud, editions.holdfast));
  }
}
