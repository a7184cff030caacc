/**
 * The sync daemon of a site: configuration in; one follower per service, their companions, the report and the admin server out.
 * No logic.
 */
import { adminServer } from "../admin/server.ts";
import { present } from "../core/assert.ts";
import { Faults } from "../core/faults.ts";
import { lifecycleOf, type Lifecycle, type Part, type RunningProcess } from "../core/lifecycle.ts";
import type { Operations } from "../core/operation.ts";
import type { World } from "../core/world.ts";
import type { SyncdConfig } from "../config/load.ts";
import { serveOperations } from "../feed/asking.ts";
import { openJetstream } from "../feed/jetstream.ts";
import { jetstreamOptionsOf } from "../feed/section.ts";
import { siteAskSubject } from "../feed/subjects.ts";
import { openRecords } from "../records/open.ts";
import type { ServedService } from "../records/writing.ts";
import { openRows } from "../rows/open.ts";
import { serviceNamed } from "../schemas/catalog.ts";
import { APPLIER_DEFAULTS } from "./applier.ts";
import { CacheInvalidation } from "./companions.ts";
import { confirmGone } from "./confirm.ts";
import { FOLLOW_DEFAULTS, Follower } from "./follow.ts";
import { deleteKeys } from "./memcached.ts";
import { operationsOfServices, siteOperations } from "./operations.ts";
import { SiteRecordWriting } from "./records-writing.ts";
import { Reporter, siteReport, type ReportedFollower } from "./report.ts";
import { RowAudit, ROW_AUDIT_DEFAULTS } from "./row-audit.ts";

/** Longest wait for the centre's word on what a row audit found too much. */
const CONFIRM_MS = 5_000;

interface Followed extends ReportedFollower {
  readonly follower: Follower;
  readonly rowAudit: RowAudit;
  readonly operations: Operations;
  readonly served: ServedService;
  readonly release: () => Promise<void>;
}

function follow(config: SyncdConfig, entry: SyncdConfig["services"][number], faults: Faults, world: World): Followed {
  const service = serviceNamed(entry.service);
  const { scope } = config.feed;
  const feed = openJetstream(jetstreamOptionsOf(config.feed, { service: service.name, role: "site", site: config.site }), world);
  const rows = openRows(entry.database, world);
  const cache = new CacheInvalidation({ servers: entry.memcached, keys: Object.values(service.cacheRegions ?? {}),
    againMs: config.invalidateAgainMs },
    world, faults, (server, keys) => deleteKeys(server, keys, world.clock));
  const follower = new Follower({ service, scope, site: config.site, rows, feed, faults, committed: () => cache.rowsChanged() },
    world, config.batch,
    { ...APPLIER_DEFAULTS, parkedMax: config.parkedMax, quarantinedMax: config.quarantinedMax, softWaitMs: config.softWaitMs,
      retry: config.retry },
    { ...FOLLOW_DEFAULTS, guard: config.guard, heartbeatEveryMs: config.audit.heartbeatEveryMs,
      manifestChecks: config.manifestChecks });
  const rowAudit = new RowAudit({ service, rows, stream: feed.stream, faults, holding: follower.holding,
    isFollowing: () => follower.isFilled, isProven: () => follower.isProven, committed: () => cache.rowsChanged(),
    confirmGone: (names, signal) =>
      confirmGone({ service, site: config.site, feed }, names, follower.status().epoch, CONFIRM_MS, signal),
    repair: (changes) => follower.repair(changes) },
    world, { ...ROW_AUDIT_DEFAULTS, ...config.rowAudit, retry: config.retry });
  const operations = siteOperations({ service, rows, site: config.site, follower, rowAudit }, world);
  const writing = new SiteRecordWriting({ service, scope, rows, feed,
    applyNow: (change, mayApply, signal) => follower.applyNow(change, mayApply, signal) }, world);
  const unserve = serveOperations(feed, siteAskSubject(service.name, config.site), operations, world.log);
  const release = async (): Promise<void> => {
    unserve();
    cache.stop();
    await feed.close();
    await rows.close();
  };
  const served: ServedService = { service, rows, writing };
  return { feed, follower, rowAudit, operations, served, status: () => follower.status(), release };
}

/** Starts the daemon; everything that is away is waited for in the background and named on /readyz. */
export async function runSyncd(config: SyncdConfig, world: World): Promise<RunningProcess> {
  const faults = new Faults(world.clock);
  const followed = config.services.map((entry) => follow(config, entry, faults, world));
  const connections: Part = { name: "connections", start: () => Promise.resolve(),
    stop: async () => void (await Promise.all(followed.map((each) => each.release()))) };
  const holder: { lifecycle?: Lifecycle } = {};
  const admin = adminServer({ ...config.admin, facts: { process: "syncd", site: config.site },
    notReady: () => present(holder.lifecycle, "asked only once started").notReady(),
    status: () => ({ services: followed.map((each) => siteReport(config.site, each, faults, world.clock.nowMs())) }),
    metrics: world.metrics,
    operations: operationsOfServices(new Map(followed.map((each) => [each.follower.status().service, each.operations]))) },
    world.log);
  const report = new Reporter(config.site, followed, faults, world, config.statusEveryMs);
  const lifecycle = lifecycleOf([connections, admin, ...followed.map((each) => each.follower),
    ...followed.map((each) => each.rowAudit), report,
    ...openRecords(config.records, followed.map((each) => each.served), world)], world.log);
  holder.lifecycle = lifecycle;
  await lifecycle.start();
  return lifecycle;
}
