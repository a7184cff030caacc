/** What a run leaves behind: a report for programs, and the part of docs/benchmarks.md that is written by a run. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { assert } from "../core/assert.ts";
import { writeWhole } from "../lab/files.ts";
import { markdownOf, type Table } from "./figures.ts";
import type { MachineFacts } from "./machine.ts";

/** One run. The shape of bench/results/*.json. */
export interface Report {
  /** When it began, ISO 8601, UTC. */
  readonly date: string;
  readonly effort: "full" | "quick";
  readonly tookS: number;
  /** Load average of the minute before it began. */
  readonly loadBefore: number;
  /** Share of the machine's processor time that was used during the run, by whomever. */
  readonly busyShare: number;
  readonly machine: MachineFacts;
  readonly tables: readonly Table[];
}

const PAGE = fileURLToPath(new URL("../docs/benchmarks.md", import.meta.url));
const FROM = "<!-- figures: written by `npm run bench -- --record` -->";
const TO = "<!-- end of figures -->";

/** The report as the figures section of the page. Pure. */
export function figuresSection({ date, effort, tookS, loadBefore, machine, tables }: Report): string {
  const facts = Object.entries(machine).map(([name, value]) => `${name} ${value}`).join("; ");
  const when = `Run of ${date.slice(0, 10)} (${effort}, ${tookS} s; load of the minute before: ${loadBefore.toFixed(1)})`;
  return [FROM, "", `${when}.`, "",
    `Machine: ${facts}.`, "", ...tables.flatMap((table) => [markdownOf(table), ""]), TO].join("\n");
}

/** Replaces the figures section of docs/benchmarks.md; the prose around it stays. */
export function recordPage(report: Report): void {
  const page = readFileSync(PAGE, "utf8");
  const [from, to] = [page.indexOf(FROM), page.indexOf(TO)];
  assert(from >= 0 && to > from, "docs/benchmarks.md marks where its figures go");
  writeWhole(PAGE, page.slice(0, from) + figuresSection(report) + page.slice(to + TO.length));
}
