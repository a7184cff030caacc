/**
 * The sync daemon of the centre: configuration in; one auditor per service and the admin server out. No logic. Options that speak
 * of applying changes at a site mean nothing here.
 */
import { adminServer } from "../admin/server.ts";
import { DRAIN_DEFAULTS, TriggerDrain } from "../capture/triggers.ts";
import { present } from "../core/assert.ts";
import { Faults } from "../core/faults.ts";
import { lifecycleOf, type Lifecycle, type Part, type RunningProcess } from "../core/lifecycle.ts";
import type { World } from "../core/world.ts";
import type { SyncdConfig } from "../config/load.ts";
import { openJetstream } from "../feed/jetstream.ts";
import { jetstreamOptionsOf } from "../feed/section.ts";
import { openRecords } from "../records/open.ts";
import type { ServedService } from "../records/writing.ts";
import { openRows } from "../rows/open.ts";
import { serviceNamed } from "../schemas/catalog.ts";
import { Auditor, AUDITOR_DEFAULTS, type AuditorOptions } from "./auditor.ts";
import { centreOperations, type AuditedService } from "./operations.ts";
import { CentreRecordWriting } from "./records-writing.ts";

function auditorOptions({ audit, guard }: SyncdConfig): AuditorOptions {
  const { capture } = AUDITOR_DEFAULTS;
  return { ...AUDITOR_DEFAULTS, everyMs: audit.everyMs, heartbeatEveryMs: audit.heartbeatEveryMs,
    rereadEveryMs: audit.rereadEveryMs, tombstonesKeptMs: audit.tombstonesKeptMs,
    capture: { ...capture, guard, scan: { ...capture.scan, pageKeysMax: audit.pageKeysMax } } };
}

function audited(config: SyncdConfig, entry: SyncdConfig["services"][number], faults: Faults, world: World): AuditedService {
  const service = serviceNamed(entry.service);
  const who = { service: service.name, role: "centre" as const, site: config.site };
  const feed = openJetstream(jetstreamOptionsOf(config.feed, who), world);
  const rows = openRows(entry.database, world);
  const auditor = new Auditor({ service, scope: config.feed.scope, rows, feed, faults }, world, auditorOptions(config));
  return { service, rows, feed, auditor };
}

function served({ service, rows, feed, auditor }: AuditedService, scope: string, world: World): ServedService {
  const writing = new CentreRecordWriting({ service, scope, rows, feed,
    publish: (keys, wish) => auditor.capture.publish(keys, wish) }, world);
  return { service, rows, writing };
}

/** Trigger capture for the services that want it; what it finds goes the auditor's way to the stream. */
function drains(config: SyncdConfig, services: readonly AuditedService[], faults: Faults, world: World): readonly TriggerDrain[] {
  return config.services.flatMap(({ capture }, place) => {
    const { service, rows, auditor } = present(services[place], "one per entry");
    const rooms = { service, rows, faults, capture: auditor.capture };
    return capture === "proxy" ? [] : [new TriggerDrain(rooms, world, { ...DRAIN_DEFAULTS, guard: config.guard })];
  });
}

/** Starts the daemon; everything that is away is waited for in the background and named on /readyz. */
export async function runCentre(config: SyncdConfig, world: World): Promise<RunningProcess> {
  const faults = new Faults(world.clock);
  const services = config.services.map((entry) => audited(config, entry, faults, world));
  const connections: Part = { name: "connections", start: () => Promise.resolve(), stop: async () => {
    await Promise.all(services.map(async ({ feed, rows }) => {
      await feed.close();
      await rows.close();
    }));
  } };
  const holder: { lifecycle?: Lifecycle } = {};
  const admin = adminServer({ ...config.admin, facts: { process: "syncd", site: config.site },
    notReady: () => present(holder.lifecycle, "asked only once started").notReady(),
    status: () => ({ faults: faults.list(), services: services.map(({ auditor }) => auditor.status()) }),
    metrics: world.metrics, operations: centreOperations(services, world) }, world.log);
  const records = openRecords(config.records, services.map((each) => served(each, config.feed.scope, world)), world);
  const lifecycle = lifecycleOf([connections, admin, ...services.map(({ auditor }) => auditor),
    ...drains(config, services, faults, world), ...records], world.log);
  holder.lifecycle = lifecycle;
  await lifecycle.start();
  return lifecycle;
}
