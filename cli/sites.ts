/**
 * `holdfast diff SITE` and `holdfast resync SITE`: how a site's rows differ from the centre's, and reading everything again.
 * Not here: comparing (audit/operations.ts), masking of secrets, which happened before anything came here.
 */
import type { Command } from "commander";
import type { JsonValue } from "../core/operation.ts";
import { EXIT_FAILED, EXIT_OK } from "./run.ts";
import { asking, listAt, numberAt, perform, recordsOf, textAt, type JsonRecord, type Options, type Session,
  type Shown } from "./session.ts";
import { counted, printable } from "./tables.ts";

/** Characters of one value that are shown; --json has the whole. */
const VALUE_CHARACTERS_MAX = 80;

/** Adds the commands. */
export function siteCommands(program: Command, session: Session): void {
  asking(program.command("diff").description("compare a site's rows with the centre's; status 1 when they differ")
    .argument("<site>", "name of the site").option("--kind <kind>", "only this kind of aggregate"))
    .action((site: string, options: Options & { readonly kind?: string }) => perform(session, options,
      { name: "diff", input: { site, service: options.service, kind: options.kind } }, shownDiff));
  asking(program.command("resync").description("have a site read the whole stream again; it goes on serving meanwhile")
    .argument("<site>", "name of the site"))
    .action((site: string, options: Options) => perform(session, options,
      { name: "resync", input: { site, service: options.service } }, shownResync));
}

function shownResync(output: JsonValue): Shown {
  const lines = recordsOf(output).map((one) => one["started"] === true
    ? `${textAt(one, "site")} reads ${textAt(one, "service")} again from the beginning`
    : `${textAt(one, "site")} did not begin to read ${textAt(one, "service")} again`);
  const isStarted = recordsOf(output).every((one) => one["started"] === true);
  return { text: printable(lines.join("; ")), exit: isStarted ? EXIT_OK : EXIT_FAILED };
}

function shownDiff(output: JsonValue): Shown {
  const results = recordsOf(output);
  const isEqual = results.every((result) => listAt(result, "differences").length === 0 && result["more"] !== true);
  return { text: results.flatMap(linesOfResult).map(printable).join("\n"), exit: isEqual ? EXIT_OK : EXIT_FAILED };
}

function linesOfResult(result: JsonRecord): readonly string[] {
  const differences = listAt(result, "differences");
  const more = result["more"] === true;
  const heading = `${textAt(result, "service")} at ${textAt(result, "site")} (position ${textAt(result, "position")}): `
    + `${counted(numberAt(result, "compared"), "aggregate")} compared, ${numberAt(result, "equal")} equal`;
  const kindOf = (difference: JsonRecord): string => textAt(difference, "name").split(".")[0] ?? "";
  const kinds = [...new Set(differences.map(kindOf))].flatMap((kind) => {
    const ofKind = differences.filter((difference) => kindOf(difference) === kind);
    return [`  ${kind}: ${countsOf(ofKind)}`, ...ofKind.flatMap(linesOfAggregate)];
  });
  return [heading, ...kinds, ...(more ? ["  there are more differences than are shown"] : [])];
}

/** "2 different, 1 missing, 0 superfluous", without the zeros. */
function countsOf(differences: readonly JsonRecord[]): string {
  const counts = ["different", "missing", "superfluous"].map((what) =>
    ({ what, count: differences.filter((difference) => difference["what"] === what).length }));
  return counts.filter(({ count }) => count > 0).map(({ what, count }) => `${count} ${what}`).join(", ");
}

function linesOfAggregate(difference: JsonRecord): readonly string[] {
  const rows = listAt(difference, "rows").flatMap((row) => [
    `      ${textAt(row, "table")} ${textAt(row, "key")}`,
    ...listAt(row, "columns").map((column) =>
      `        ${textAt(column, "name")}: centre ${valueIn(column, "centre")}, site ${valueIn(column, "site")}`)]);
  return [`    ${textAt(difference, "name")}: ${textAt(difference, "what")}`, ...rows];
}

/** A column's value on one side; a side that has no such row says so. */
function valueIn(column: JsonRecord, side: "centre" | "site"): string {
  const value = column[side];
  if (value === undefined) return "(no row)";
  const text = JSON.stringify(value);
  return text.length > VALUE_CHARACTERS_MAX ? `${text.slice(0, VALUE_CHARACTERS_MAX)}…` : text;
}
