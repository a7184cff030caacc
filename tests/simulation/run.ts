/**
 * One seeded run: calls under weather, then calm, then comparison. The oracles read only databases: rows of centre and site
 * (I5), and the versions that the site notes (I2).
 */
import { compareVersions, type Version } from "../../schemas/position.ts";
import { rowText, type Row } from "../../schemas/row.ts";
import type { Rows } from "../../rows/rows.ts";
import type { Service } from "../../schemas/define.ts";
import { APPLIED_TABLE } from "../../syncd/ledger.ts";
import { toy } from "../support/toy-service.ts";
import type { Sabotage } from "./sabotage.ts";
import { SimulatedService } from "./service.ts";
import { SimulatedCloud } from "./world.ts";

const CALLS_PER_SEED = 40;
/** Virtual time allowed for everything to settle once faults have ended. */
const CALM_MS = 900_000;
const ROWS_MAX = 100_000;

/** Rows that two databases do not have in common, as far as the second can hold them. */
async function difference(service: Service, centre: Rows, site: Rows): Promise<readonly string[]> {
  const differing: string[] = [];
  for (const table of service.tables.values()) {
    const read = (rows: Rows): Promise<Row[]> => rows.snapshot((reader) => reader.page(table, { limit: ROWS_MAX }, table.sent));
    const texts = (found: readonly Row[]): ReadonlySet<string> => new Set(found.map((row) => rowText(row, table.sent)));
    const wanted = texts((await read(centre)).map((row) => site.fit(table, row)));
    const held = texts(await read(site));
    for (const text of wanted) if (!held.has(text)) differing.push(`missing in ${table.name}: ${text}`);
    for (const text of held) if (!wanted.has(text)) differing.push(`too much in ${table.name}: ${text}`);
  }
  return differing;
}

/** Names of aggregates whose applied version went back since the last look; `seen` is brought up to date. */
async function versionsGoneBack(cloud: SimulatedCloud, seen: Map<string, Version>): Promise<readonly string[]> {
  const rows = await cloud.quietly(() => cloud.site.snapshot((read) => read.page(APPLIED_TABLE, { limit: ROWS_MAX })));
  const gone: string[] = [];
  for (const row of rows) {
    const name = String(row["name"]);
    const version = { epoch: Number(row["epoch"]), sequence: Number(row["sequence"]) };
    const before = seen.get(name);
    if (before !== undefined && compareVersions(version, before) < 0) gone.push(`I2: the version of ${name} went back`);
    seen.set(name, version);
  }
  return gone;
}

/** What is wrong after the run of `seed`; nothing when it is right. */
export async function runSeed(seed: number, sabotage?: Sabotage): Promise<readonly string[]> {
  const cloud = new SimulatedCloud(seed, sabotage);
  const service = new SimulatedService(cloud);
  const seen = new Map<string, Version>();
  const wrong: string[] = [];
  for (let call = 0; call < CALLS_PER_SEED; call += 1) {
    await service.call();
    cloud.disturb();
    if (cloud.random.next() < 0.6) await cloud.clock.pass(cloud.random.next() * 3_000);
    wrong.push(...await versionsGoneBack(cloud, seen));
  }
  cloud.calm();
  let differing: readonly string[] = ["not compared yet"];
  const deadlineMs = cloud.clock.monotonicMs() + CALM_MS;
  while (differing.length > 0 && cloud.clock.monotonicMs() < deadlineMs) {
    await cloud.clock.pass(5_000);
    differing = cloud.idle ? await difference(toy, cloud.centre, cloud.site) : ["L3: capture is still at work"];
  }
  await cloud.stop();
  return [...wrong, ...differing.map((each) => `I5: ${each}`)];
}
