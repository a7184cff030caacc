/**
 * What every command that asks a running process shares: where it asks, how it says what came of it, and its exit status.
 *
 * Exit status: 0 done, and nothing a person has to look at · 1 failed, or differences, quarantined changes or held differences
 * were found · 2 mistakes on the command line, or input that the process does not take · 3 the process, or the site it asked,
 * could not be reached · 70 a bug in Holdfast.
 * Invariants: standard output carries the result alone, with --json exactly what the process answered; standard error carries
 * progress and what went wrong.
 */
import type { Command } from "commander";
import type { Clock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import type { Input, JsonValue } from "../core/operation.ts";
import { askAdmin } from "./operation.ts";
import { ProgressLine, type Terminal } from "./progress.ts";
import { printable } from "./tables.ts";

/** Where a sync daemon listens unless its configuration says otherwise. */
const ADMIN_DEFAULT = "http://127.0.0.1:9480";

/** The surroundings of a command, which a test brings itself. */
export interface Session {
  readonly clock: Clock;
  readonly terminal: Terminal;
  say(text: string): void;
  complain(text: string): void;
  finish(exit: number): void;
}

export interface Options {
  readonly admin: string;
  readonly json?: boolean;
  readonly service?: string;
  readonly site?: string;
}

/** What a person sees of an output, and the exit status. */
export interface Shown {
  readonly text: string;
  readonly exit: number;
}

/** Adds the options that every such command has. */
export function asking(command: Command): Command {
  return command.option("--service <name>", "only this service")
    .option("--admin <url>", "admin server of the sync daemon to ask", ADMIN_DEFAULT)
    .option("--json", "print the whole answer as JSON");
}

/** Asks for one operation and shows what came of it. Input that is undefined is left out. */
export async function perform(session: Session, options: Options,
  asked: { readonly name: string; readonly input: Readonly<Record<string, JsonValue | undefined>> },
  shown: (output: JsonValue) => Shown): Promise<void> {
  const line = new ProgressLine(session.terminal, session.clock);
  const input = Object.fromEntries(Object.entries(asked.input).filter((entry): entry is [string, JsonValue] =>
    entry[1] !== undefined)) satisfies Input;
  const answer = await askAdmin({ admin: options.admin, name: asked.name, input, onProgress: (at) => line.show(at) },
    session.clock);
  line.clear();
  if (!answer.ok) {
    session.complain(printable(answer.because));
    return session.finish(answer.exit);
  }
  const { text, exit } = shown(answer.output);
  session.say(options.json === true ? JSON.stringify(answer.output, null, 2) : text);
  session.finish(exit);
}

export type JsonRecord = Readonly<Record<string, JsonValue>>;

function unreadable(what: string): OperatingError {
  return new OperatingError("E_ASK_UNANSWERED", `the answer cannot be read: ${what}; is the process of another version?`);
}

/** The records in an output that is a list, or is one of them. @throws E_ASK_UNANSWERED for anything else */
export function recordsOf(output: JsonValue | undefined): readonly JsonRecord[] {
  const list: readonly JsonValue[] = Array.isArray(output) ? output as readonly JsonValue[] : [output ?? null];
  return list.map((one) => {
    if (typeof one !== "object" || one === null || Array.isArray(one)) throw unreadable("a record is missing");
    return one as JsonRecord;
  });
}

/** A number that the answer must have. @throws E_ASK_UNANSWERED */
export function numberAt(record: JsonRecord, name: string): number {
  const value = record[name];
  if (typeof value !== "number") throw unreadable(`"${name}" is no number`);
  return value;
}

/** A list that the answer must have. @throws E_ASK_UNANSWERED */
export function listAt(record: JsonRecord, name: string): readonly JsonRecord[] {
  if (!Array.isArray(record[name])) throw unreadable(`"${name}" is no list`);
  return recordsOf(record[name]);
}

/** A value as text; "-" where it is missing. */
export function textAt(record: JsonRecord, name: string): string {
  const value = record[name];
  if (value === undefined || value === null) return "-";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
