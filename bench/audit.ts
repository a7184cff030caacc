/**
 * What it costs to compare: an auditor at the centre over 10,000 and 100,000 users on each engine, when nothing differs, when
 * ten aggregates do and when ten thousand do; and what its word costs every site. `npm run bench:audit`; `-- --sizes 1000000
 * --engines postgres` says how many users, and on what.
 *
 * Processor time is that of whole processes, read from /proc: the daemon's and, beside it, the database server's. Rows are
 * written past every API, as a data migration would; no proxy and no site run meanwhile. The first audit of a process compares
 * images; later ones read again only kinds that may have changed, so both are shown.
 */
import { readFileSync } from "node:fs";
import { Command, InvalidArgumentError } from "commander";
import { present } from "../core/assert.ts";
import { systemClock } from "../core/clock.ts";
import { heartbeatSubject, manifestSubject, SCOPE_ALL } from "../feed/subjects.ts";
import { residentBytes } from "../lab/proc.ts";
import { ENGINES, type EngineName } from "../lab/options.ts";
import { until } from "../lab/waiting.ts";
import { AUDIT, Fleet, PATIENT } from "../tests/support/fleet.ts";
import { clones } from "../tests/support/fleet-backlog.ts";
import { markdownOf, type Figures, type Table } from "./figures.ts";
import { loadNow } from "./machine.ts";

const SIZES = [10_000, 100_000];
const DIFFERING = [10, 10_000];
/** The default cycle, for what a site reads when nothing is wrong. */
const CYCLE_S = 600;
const CLONES_AT_ONCE = 50_000;
/** Longest until a started daemon has audited; a million aggregates take minutes. */
const FIRST_AUDIT_MS = 1_800_000;
const HEARTBEAT_S = 15;
const MEBIBYTE = 1024 * 1024;
/** Clock ticks in /proc are hundredths of a second on every Linux architecture (USER_HZ, proc(5)). */
const TICKS_PER_S = 100;
/** Audits only when asked; nothing is held: ten thousand of ten thousand rewrites are what is measured. */
const DAY_MS = 86_400_000;
const SETUP = { ...PATIENT, audited: { guard: { sharePercentMax: 100, windowMs: 0 },
  audit: { ...AUDIT, everyMs: DAY_MS, heartbeatEveryMs: 60_000, rereadEveryMs: DAY_MS } } };

/** Seconds that a process has worked, with its children that have ended. proc(5): fields 14 to 17 of /proc/[pid]/stat. */
function workedSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_S;
}

/** Seconds that the database server and every process of it have worked. */
function serverSeconds(fleet: Fleet, engine: EngineName): number {
  return fleet.lab.family(engine).reduce((sum, pid) => sum + workedSeconds(pid), 0);
}

async function measured(fleet: Fleet, engine: EngineName, work: () => Promise<unknown>): Promise<Figures> {
  const pid = present(fleet.auditor.pid, "the auditor runs");
  const [startMs, worked, server] = [systemClock.monotonicMs(), workedSeconds(pid), serverSeconds(fleet, engine)];
  await work();
  return { "took s": (systemClock.monotonicMs() - startMs) / 1000, "daemon CPU s": workedSeconds(pid) - worked,
    "database CPU s": serverSeconds(fleet, engine) - server, "daemon MiB": residentBytes(pid) / MEBIBYTE };
}

/** One audit; fails when it did not find just what was changed, or something was held. */
async function audit(fleet: Fleet, stale: number): Promise<void> {
  const reports = await fleet.auditor.operate("audit", { now: true });
  const [{ differences, held }] = reports as [{ readonly differences: { readonly stale: number }; readonly held: number }];
  if (differences.stale !== stale || held !== 0) throw new Error(`${stale} should differ: ${JSON.stringify(reports)}`);
}

/** From the start of the daemon until it has read the stream, and until its first audit has ended. */
async function started(fleet: Fleet, note: (what: string, figures: Figures) => void): Promise<void> {
  const startMs = systemClock.monotonicMs();
  await fleet.auditor.start(FIRST_AUDIT_MS);
  const pid = present(fleet.auditor.pid, "the auditor runs");
  const soFar = (): Figures => ({ "took s": (systemClock.monotonicMs() - startMs) / 1000, "daemon CPU s": workedSeconds(pid),
    "daemon MiB": residentBytes(pid) / MEBIBYTE });
  note("start, until the stream is read", soFar());
  await until({ what: "the first audit", withinMs: FIRST_AUDIT_MS, log: fleet.folder }, async () => {
    const { services } = await fleet.auditor.status();
    return (services as readonly { readonly lastAudit?: unknown }[])[0]?.lastAudit !== undefined;
  });
  note("start, until the first audit is over", soFar());
}

/** Changes `count` users by one statement. */
function change(fleet: Fleet, engine: EngineName, count: number, turn: string): Promise<string> {
  const user = engine === "postgres" ? "\"user\"" : "user";
  const chosen = `SELECT id FROM ${user} WHERE extra LIKE '%email%' ORDER BY id LIMIT ${count}`;
  return fleet.sql("centre",
    `UPDATE ${user} SET extra = '{"email": "${turn}"}' WHERE id IN (SELECT id FROM (${chosen}) AS chosen);`);
}

/** Bytes of the messages that every site reads in a cycle in which nothing changes. */
async function wordOf(fleet: Fleet): Promise<Figures> {
  const bytesOf = async (subject: string): Promise<number> => {
    const message = present(await fleet.rooms.feed.last(subject), subject);
    const headers = Object.entries(message.headers).reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
    return message.subject.length + headers + message.payload.byteLength;
  };
  const manifest = await bytesOf(manifestSubject("keystone", SCOPE_ALL));
  const heartbeat = await bytesOf(heartbeatSubject("keystone", SCOPE_ALL));
  return { "manifest B": manifest, "heartbeat B": heartbeat,
    "a cycle B": manifest + Math.ceil(CYCLE_S / HEARTBEAT_S) * heartbeat };
}

async function measure(engine: EngineName, sizes: readonly number[], say: (line: string) => void):
  Promise<readonly Table["rows"][number][]> {
  const fleet = await Fleet.open({ skip: (reason) => { throw new Error(reason); } }, { centre: engine, edge1: engine }, SETUP);
  const rows: Table["rows"][number][] = [];
  const note = (size: number, what: string, figures: Figures): void => {
    rows.push({ variant: `${engine}, ${size}: ${what}`, figures });
    say(`${engine} ${size} ${what} ${JSON.stringify(figures)} load ${loadNow().toFixed(1)}`);
  };
  try {
    await fleet.syncd.end("SIGTERM");
    await fleet.proxy.end("SIGTERM");
    let made = 0;
    for (const size of sizes) {
      for (let part = 0; made < size; part += 1) {
        const count = Math.min(CLONES_AT_ONCE, size - made);
        await fleet.sql("centre", clones(engine, `size-${size}-${part}`, count));
        made += count;
      }
      note(size, "new users are published", await measured(fleet, engine, () => audit(fleet, 0)));
      await fleet.auditor.end("SIGTERM");
      await started(fleet, (what, figures) => note(size, what, figures));
      note(size, "nothing differs", await measured(fleet, engine, () => audit(fleet, 0)));
      for (const count of DIFFERING) {
        await change(fleet, engine, count, `turn-${size}-${count}`);
        note(size, `${count} differ`, await measured(fleet, engine, () => audit(fleet, count)));
      }
      note(size, "said to every site", await wordOf(fleet));
    }
    return rows;
  } finally {
    await fleet.close();
  }
}

/** Rising numbers, separated by commas. */
function sizesFrom(text: string): readonly number[] {
  const sizes = text.split(",").map(Number);
  if (sizes.every((size, at) => Number.isSafeInteger(size) && size > (sizes[at - 1] ?? 0))) return sizes;
  throw new InvalidArgumentError("rising numbers of users, such as 10000,100000");
}

function enginesFrom(text: string): readonly EngineName[] {
  return text.split(",").map((name) => {
    const engine = ENGINES.find((each) => each === name);
    if (engine === undefined) throw new InvalidArgumentError(`some of ${ENGINES.join(",")}`);
    return engine;
  });
}

async function bench({ sizes, engines }: { readonly sizes: readonly number[]; readonly engines: readonly EngineName[] }):
  Promise<void> {
  const say = (line: string): void => void process.stderr.write(`${line}\n`);
  const rows: Table["rows"][number][] = [];
  for (const engine of engines) rows.push(...await measure(engine, sizes, say));
  const columns = ["took s", "daemon CPU s", "database CPU s", "daemon MiB", "manifest B", "heartbeat B", "a cycle B"];
  process.stdout.write(`${markdownOf({ title: "Audits", columns, rows })}\n`);
}

await new Command("npm run bench:audit --").description("what an audit costs")
  .option("--sizes <numbers>", "users, one run after the other", sizesFrom, SIZES)
  .option("--engines <names>", "database engines", enginesFrom, ENGINES).action(bench).parseAsync(process.argv);
