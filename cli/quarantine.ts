/** `holdfast quarantine`: the changes that a site's database refused, and what a person decides about them. */
import type { Command } from "commander";
import type { JsonValue } from "../core/operation.ts";
import { EXIT_FAILED, EXIT_OK } from "./run.ts";
import { asking, listAt, perform, recordsOf, textAt, type Options, type Session, type Shown } from "./session.ts";
import { printable, tableOf } from "./tables.ts";

const HEADING = ["SITE", "SERVICE", "NAME", "CODE", "SINCE (UTC)", "VERSION", "REASON"];
const COLUMNS = ["name", "code", "since", "version", "reason"];

/** Adds the commands. */
export function quarantineCommands(program: Command, session: Session): void {
  const family = program.command("quarantine").description("changes that a site's database refused");
  asking(family.command("list").description("what is quarantined; status 1 when anything is")
    .argument("<site>", "name of the site"))
    .action((site: string, options: Options) => perform(session, options,
      { name: "quarantine.list", input: { site, service: options.service } }, shownList));
  const one = (word: string, meaning: string, shown: (output: JsonValue) => Shown): void => {
    asking(family.command(word).description(meaning).argument("<site>", "name of the site")
      .argument("<name>", "name of the aggregate, as the list shows it"))
      .action((site: string, name: string, options: Options) => perform(session, options,
        { name: `quarantine.${word}`, input: { site, name, service: options.service } }, shown));
  };
  one("show", "one of them with its image, secrets masked", shownEntry);
  one("retry", "try to apply it again now; status 1 when it is refused again", shownOutcome);
  one("drop", "forget it; the next comparison brings back what the centre still says", shownOutcome);
}

function shownList(output: JsonValue): Shown {
  const rows = recordsOf(output).flatMap((result) => listAt(result, "entries").map((entry) =>
    [textAt(result, "site"), textAt(result, "service"), ...COLUMNS.map((column) => textAt(entry, column))]));
  if (rows.length === 0) return { text: "nothing is quarantined", exit: EXIT_OK };
  const isCut = recordsOf(output).some((result) => result["more"] === true);
  const lines = [...tableOf([HEADING, ...rows]), ...(isCut ? ["there are more than are shown"] : [])];
  return { text: lines.join("\n"), exit: EXIT_FAILED };
}

function shownEntry(output: JsonValue): Shown {
  const lines = recordsOf(output).flatMap((entry) => [
    ...tableOf(Object.keys(entry).filter((name) => name !== "image").map((name) => [name, textAt(entry, name)])),
    ...JSON.stringify(entry["image"] ?? null, null, 2).split("\n").map(printable)]);
  return { text: lines.join("\n"), exit: EXIT_OK };
}

function shownOutcome(output: JsonValue): Shown {
  const results = recordsOf(output);
  const isRefused = results.some((result) => textAt(result, "outcome").startsWith("quarantined"));
  return { text: results.map((result) => printable(`${textAt(result, "name")}: ${textAt(result, "outcome")}`)).join("\n"),
    exit: isRefused ? EXIT_FAILED : EXIT_OK };
}
