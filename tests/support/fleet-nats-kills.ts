/**
 * nats-server killed with SIGKILL again and again under many writers. Debian's 2.9.10 then loses images that it acknowledged,
 * or shows the ones before them: what it holds after each death is read from the stream itself, at once, and held against its own
 * acknowledgements.
 */
import { strict as assert } from "node:assert";
import { present } from "../../core/assert.ts";
import { sleep, systemClock } from "../../core/clock.ts";
import { seededRandom } from "../../core/random.ts";
import { until } from "../../lab/waiting.ts";
import { ROWS_PER_CALL_MAX } from "../../rows/rows.ts";
import { keystone } from "../../schemas/keystone.ts";
import type { Row } from "../../schemas/row.ts";
import { clones } from "./fleet-backlog.ts";
import { openDatabase } from "./fleet-compare.ts";
import type { Fleet } from "./fleet.ts";
import { openFeed, sequencesOf } from "./fleet-stream.ts";
import { Writers } from "./fleet-writers.ts";

const WRITERS = 64;
/** How long a server lives. */
const LIFE_MS = { least: 4_000, most: 8_500 } as const;
const GO_ON_MS = 60_000;

export interface NatsKills {
  /** Subjects whose acknowledged image was gone after a death, summed over all deaths. */
  readonly lost: number;
  /** Subjects that showed an older image than the acknowledged one. */
  readonly wentBack: number;
  /** Deaths after which either was seen. */
  readonly damaging: number;
  /** Images that the writers published. */
  readonly written: number;
  /** From the end of the last write until centre = stream = site. */
  readonly convergedSeconds: number;
}

/** The users that clones() has made, as whole rows. */
async function usersOf(fleet: Fleet, series: string): Promise<readonly Row[]> {
  const table = present(keystone.tables.get("user"), "Keystone has users");
  const { centre } = fleet.rooms.databases;
  await centre.reflect();
  const users: Row[] = [];
  await centre.snapshot(async (read) => {
    for (let after: Row | undefined; ; ) {
      const page = await read.page(table, { after, limit: ROWS_PER_CALL_MAX });
      users.push(...page.filter((row) => String(row["extra"]).includes(series)));
      after = page.at(-1);
      if (page.length < ROWS_PER_CALL_MAX) return;
    }
  });
  return users;
}

/** Kills the stream server `count` times under writers over `users` users; everything must be equal afterwards. */
export async function killNats(fleet: Fleet, count: number, users: number, seed: number): Promise<NatsKills> {
  const series = `kills-${seed}`;
  await fleet.sql("centre", clones(fleet.lab.databases.centre.engine, series, users));
  const random = seededRandom(seed);
  const [rows, feed] = [openDatabase(fleet.lab.databases.centre), openFeed(fleet.lab.nats, "writers")];
  const found = await usersOf(fleet, series);
  assert.equal(found.length, users, "the users were made");
  const writers = new Writers({ rows, feed }, found, WRITERS);
  const seen = { lost: 0, wentBack: 0, damaging: 0 };
  try {
    await writers.start();
    for (let kill = 0; kill < count; kill += 1) {
      await progress(writers, fleet);
      await sleep(systemClock, LIFE_MS.least + random.next() * (LIFE_MS.most - LIFE_MS.least));
      const acknowledged = writers.acknowledged();
      await fleet.lab.kill("nats");
      await fleet.lab.startOne("nats");
      const held = await sequencesOf(fleet.lab.nats);
      const lost = [...acknowledged.keys()].filter((subject) => !held.has(subject)).length;
      const wentBack = [...acknowledged].filter(([subject, sequence]) => (held.get(subject) ?? sequence) < sequence).length;
      seen.lost += lost;
      seen.wentBack += wentBack;
      if (lost + wentBack > 0) seen.damaging += 1;
    }
    await progress(writers, fleet);
    await writers.stop();
    return { ...seen, written: writers.written, convergedSeconds: await fleet.converged() };
  } finally {
    writers.halt();
    await feed.close();
    await rows.close();
  }
}

/** Waits until the writers publish: they wait for the stream server as every proxy does. */
function progress(writers: Writers, fleet: Fleet): Promise<void> {
  const before = writers.written;
  return until({ what: "a write", withinMs: GO_ON_MS, log: fleet.folder }, () => Promise.resolve(writers.written > before));
}
