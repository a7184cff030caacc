/**
 * How fast a site catches up: thousands of changed aggregates wait in the stream when its sync daemon starts, on each of the two
 * site engines. Prints one row per engine; centre and site are compared row for row before a figure is shown. `npm run
 * bench:backlog`; HOLDFAST_BACKLOG is the number of users (three rows each).
 */
import type { Engines } from "../lab/options.ts";
import { catchUp, makeBacklog } from "../tests/support/fleet-backlog.ts";
import { Fleet } from "../tests/support/fleet.ts";

const USERS = Number(process.env["HOLDFAST_BACKLOG"] ?? 20_000);
const PAIRINGS: readonly Engines[] = [{ centre: "mariadb", edge1: "postgres" }, { centre: "postgres", edge1: "mariadb" }];

async function measure(engines: Engines): Promise<readonly string[]> {
  const fleet = await Fleet.open({ skip: (reason) => { throw new Error(reason); } }, engines);
  try {
    const figures = await catchUp(fleet, USERS, await makeBacklog(fleet, "backlog", USERS));
    await fleet.equal();
    return [engines.edge1, String(figures.aggregates), String(figures.rows), figures.aggregatesPerSecond.toFixed(0),
      figures.rowsPerSecond.toFixed(0), (figures.caughtUpMs / 1000).toFixed(1), (figures.publishedMs / 1000).toFixed(1)];
  } finally {
    await fleet.close();
  }
}

const lines: (readonly string[])[] = [["site", "aggregates", "rows", "aggregates/s", "rows/s", "caught up s", "published s"]];
for (const engines of PAIRINGS) lines.push(await measure(engines));
const widths = lines[0]?.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0))) ?? [];
const table = lines.map((line) => line.map((cell, column) => cell.padStart(widths[column] ?? 0)).join("  ")).join("\n");
process.stdout.write(`${table}\n`);
