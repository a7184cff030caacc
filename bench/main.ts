/**
 * `npm run bench`: every benchmark in one run, as ratios with the raw figures beside them. Prints tables, writes
 * bench/results/<date>.json, and with --record the page docs/benchmarks.md.
 *
 *   --quick          short rounds: shows that everything works, its figures mean little
 *   --only a,b       of reads, writes, visible
 *   --lab <folder>   use the lab there and leave it running, instead of one made for the run and removed
 *   --profile <dir>  proxies under test write a CPU profile into this folder when they end
 *   --record         rewrite the table in docs/benchmarks.md
 *
 * Exit codes: 0 measured, 1 a step failed, 2 wrong arguments or a machine that cannot run it.
 */
import { mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { holdProcess, systemClock } from "../core/clock.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import { markdownOf, type Table } from "./figures.ts";
import { loadNow, machineFacts, machineTime } from "./machine.ts";
import { benchReads } from "./reads.ts";
import { recordPage, type Report } from "./report.ts";
import { EFFORTS, type Effort } from "./rounds.ts";
import { onStage, type Stage } from "./stage.ts";
import { benchVisible } from "./visible.ts";
import { benchWrites } from "./writes.ts";

const RESULTS = fileURLToPath(new URL("./results/", import.meta.url));
const BENCHMARKS: Readonly<Record<string, (stage: Stage, effort: Effort) => Promise<readonly Table[]>>> = {
  reads: benchReads,
  writes: benchWrites,
  visible: async (stage, effort) => [await benchVisible(stage, effort)],
};

interface Wishes {
  readonly quick: boolean;
  readonly only: string;
  readonly lab?: string;
  readonly profile?: string;
  readonly record: boolean;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function chosen(only: string): readonly string[] {
  const names = only.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !(name in BENCHMARKS));
  if (unknown !== undefined) {
    throw new OperatingError("E_CONFIG", `there is no benchmark "${unknown}": there are ${Object.keys(BENCHMARKS).join(", ")}`);
  }
  return names;
}

async function bench(wishes: Wishes): Promise<void> {
  const names = chosen(wishes.only);
  const effort = wishes.quick ? EFFORTS.quick : EFFORTS.full;
  const profile = wishes.profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${resolve(wishes.profile)}`];
  const [startMs, load, before] = [systemClock.nowMs(), loadNow(), machineTime()];
  const tables: Table[] = [];
  await onStage({ labFolder: wishes.lab === undefined ? undefined : realpathSync(wishes.lab), nodeOptions: profile, say },
    async (stage) => {
      for (const name of names) {
        const made = await BENCHMARKS[name]?.(stage, effort) ?? [];
        for (const table of made) say(`\n${markdownOf(table)}\n`);
        tables.push(...made);
        await stage.children.stop();
      }
    });
  const after = machineTime();
  const report: Report = { date: new Date(startMs).toISOString(), effort: wishes.quick ? "quick" : "full",
    tookS: Math.round((systemClock.nowMs() - startMs) / 1000), loadBefore: load, machine: machineFacts(),
    busyShare: (after.busyTicks - before.busyTicks) / (after.allTicks - before.allTicks), tables };
  mkdirSync(RESULTS, { recursive: true });
  const file = join(RESULTS, `${report.date.replaceAll(":", "-").slice(0, 19)}.json`);
  writeFileSync(file, `${JSON.stringify(report, undefined, 2)}\n`);
  say(`${JSON.stringify({ ...report, tables: tables.length }, undefined, 2)}\n${file}`);
  if (wishes.record) recordPage(report);
}

const release = holdProcess();
try {
  await new Command("bench").description("Benchmarks beside nginx and PostgreSQL's own replication.")
    .option("--quick", "short rounds", false).option("--only <list>", "which", Object.keys(BENCHMARKS).join(","))
    .option("--lab <folder>", "an existing lab").option("--profile <folder>", "CPU profiles of the proxies")
    .option("--record", "rewrite docs/benchmarks.md", false).action(bench).parseAsync(process.argv);
} catch (error) {
  if (!isOperating(error)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = error.code === "E_CONFIG" || error.code === "E_LAB_MACHINE" ? 2 : 1;
} finally {
  release();
}
