/** `holdfast held`: differences too large to be believed, and a person's word on them. Without --site: those of the centre. */
import type { Command } from "commander";
import type { JsonValue } from "../core/operation.ts";
import { EXIT_FAILED, EXIT_OK } from "./run.ts";
import { asking, perform, recordsOf, textAt, type Options, type Session, type Shown } from "./session.ts";
import { printable, tableOf } from "./tables.ts";

const HEADING = ["WHERE", "SERVICE", "KIND", "STATE", "DELETES", "REWRITES", "OF", "CAUSE", "CODE", "SINCE (UTC)"];
const COLUMNS = ["service", "kind", "state", "deletes", "rewrites", "live", "cause", "code", "since"];

/** Adds the commands. */
export function heldCommands(program: Command, session: Session): void {
  const family = program.command("held")
    .description("differences that wait for a person because they would delete or rewrite much");
  const asked = (command: Command): Command =>
    asking(command.option("--site <site>", "at this site (default: at the centre, or where the asked process is)"));
  asked(family.command("list").description("what is held; status 1 when anything waits for a decision"))
    .action((options: Options) => perform(session, options,
      { name: "held.list", input: { site: options.site, service: options.service } }, shownList));
  const decision = (word: string, meaning: string): void => {
    asked(family.command(word).description(meaning).argument("<kind>", "kind of aggregate, as the list shows it"))
      .action((kind: string, options: Options) => perform(session, options,
        { name: `held.${word}`, input: { kind, site: options.site, service: options.service } }, shownDecision));
  };
  decision("release", "do it: the next comparison may delete and rewrite as much as the list shows");
  decision("reject", "do not do it: nothing of the kind is deleted or rewritten until the difference is gone");
}

function shownList(output: JsonValue): Shown {
  const notes = recordsOf(output);
  if (notes.length === 0) return { text: "nothing is held", exit: EXIT_OK };
  const rows = notes.map((note) => [note["site"] === undefined || note["site"] === null ? "centre" : textAt(note, "site"),
    ...COLUMNS.map((column) => textAt(note, column))]);
  const reasons = notes.map((note) => printable(`${textAt(note, "kind")}: ${textAt(note, "reason")}, such as ${sampleOf(note)}`));
  return { text: [...tableOf([HEADING, ...rows]), "", ...reasons].join("\n"),
    exit: notes.some((note) => note["state"] === "held") ? EXIT_FAILED : EXIT_OK };
}

function sampleOf(note: Readonly<Record<string, JsonValue>>): string {
  const sample = note["sample"];
  return Array.isArray(sample) && sample.length > 0 ? sample.map(String).join(", ") : "-";
}

function shownDecision(output: JsonValue): Shown {
  return { text: recordsOf(output).map((note) => printable(`${textAt(note, "kind")}: ${textAt(note, "state")}`)).join("\n"),
    exit: EXIT_OK };
}
