/** `holdfast audit`: what the centre's last comparison of databases and streams found, or a new one. */
import type { Command } from "commander";
import { wireDatetime } from "../core/clock.ts";
import type { JsonValue } from "../core/operation.ts";
import { EXIT_FAILED, EXIT_OK } from "./run.ts";
import { asking, numberAt, perform, recordsOf, textAt, type JsonRecord, type Options, type Session,
  type Shown } from "./session.ts";
import { tableOf } from "./tables.ts";

const HEADING = ["SERVICE", "AT (UTC)", "TOOK", "AGGREGATES", "MISSING", "STALE", "SUPERFLUOUS", "PUBLISHED", "HELD", "EPOCH",
  "ROOT"];
/** Digits of a root digest that tell two of them apart at a glance. */
const ROOT_DIGITS = 12;

/** Adds the command. */
export function auditCommand(program: Command, session: Session): void {
  asking(program.command("audit").description("what the last audit at the centre found; status 1 when there were differences")
    .option("--now", "audit now, and wait for it"))
    .action((options: Options & { readonly now?: boolean }) => perform(session, options,
      { name: "audit", input: { now: options.now ?? false, service: options.service } }, shownAudit));
}

/** Differences were published by the time this is shown, unless they are held. */
function shownAudit(output: JsonValue): Shown {
  const reports = recordsOf(output);
  if (reports.length === 0) return { text: "no audit has ended yet", exit: EXIT_FAILED };
  const found = reports.map(differencesOf);
  const rows = reports.map((report, place) => [textAt(report, "service"),
    wireDatetime(numberAt(report, "atMs")).slice(0, 19), `${(numberAt(report, "tookMs") / 1000).toFixed(1)} s`,
    textAt(report, "aggregates"), ...(found[place] ?? []).map(String), textAt(report, "published"), textAt(report, "held"),
    textAt(report, "epoch"), textAt(report, "root").slice(0, ROOT_DIGITS)]);
  const isClean = reports.every((report) => numberAt(report, "held") === 0) && found.flat().every((count) => count === 0);
  return { text: tableOf([HEADING, ...rows]).join("\n"), exit: isClean ? EXIT_OK : EXIT_FAILED };
}

function differencesOf(report: JsonRecord): readonly number[] {
  const [differences = {}] = recordsOf(report["differences"]);
  return ["missing", "stale", "superfluous"].map((name) => numberAt(differences, name));
}
