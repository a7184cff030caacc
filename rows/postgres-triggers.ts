/**
 * Triggers for PostgreSQL: per table one trigger function each for insert, update, delete and truncate. Pure but for reading the
 * catalogue.
 *
 * Invariants: functions run with their owner's rights and a fixed search path, so the service's own user needs no right on the
 * marks and cannot divert them; without the table of marks they do nothing, so that nobody's write fails because of it; updates
 * that change local columns only never reach a function. Cascades fire the triggers of the rows they reach.
 */
import { present } from "../core/assert.ts";
import type { Cell, Run } from "./dialect.ts";
import { postgresDialect } from "./postgres-sql.ts";
import type { FoundTrigger, TriggerDialect, WantedTrigger } from "./triggers.ts";
import { MARKS_TABLE, triggerName, type NamePart, type TableMarks, type Trail } from "./trigger-plan.ts";
import { hashOf, literal, rowAt, wayOf } from "./trigger-sql.ts";
import { columnKind } from "./wire.ts";

const { quote } = postgresDialect;

/** Shorter than the server's own search for deadlocks (1 s): we give way before anybody else is chosen as the victim. */
const LOCK_WAIT_MS = 500;

type Event = "insert" | "update" | "delete" | "truncate";

function namesText(names: readonly NamePart[], changed: string): string {
  const parts = names.map(({ step, column }) => `${rowAt(step, changed)}.${quote(column)}::text`);
  return `json_build_array(${parts.join(", ")})::text`;
}

/** The statement that marks what `trail` leads to from the row `changed` (OLD or NEW). */
function mark(trail: Trail, changed: string, schema: string): string {
  const place = (table: string): string => `${quote(schema)}.${quote(table)}`;
  const { from, where } = wayOf(trail, changed, place, quote);
  const insert = `INSERT INTO ${place(MARKS_TABLE.name)} ("kind", "names")`;
  const values = `${literal(trail.kind)}, ${trail.names === undefined ? "NULL" : namesText(trail.names, changed)}`;
  if (from !== undefined) return `${insert} SELECT ${values} FROM ${from} WHERE ${where.join(" AND ")};`;
  const direct = `${insert} VALUES (${values});`;
  return where.length === 0 ? direct : `IF ${where.join(" AND ")} THEN ${direct} END IF;`;
}

/** True in SQL when one of `columns` differs between OLD and NEW. Text is compared as text: JSON has no equality. */
function differs(marks: TableMarks, columns: readonly string[]): string {
  const cast = (column: string): string => (columnKind(marks.table, column) === "text" ? "::text" : "");
  return columns.map((column) => `OLD.${quote(column)}${cast(column)} IS DISTINCT FROM NEW.${quote(column)}${cast(column)}`)
    .join(" OR ");
}

function stepsOf(event: Event, marks: TableMarks, schema: string): readonly string[] {
  const { own, leading, kind } = marks;
  switch (event) {
    case "insert":
      return [mark(own, "NEW", schema)];
    case "delete":
      return [mark(own, "OLD", schema)];
    case "update":
      return [mark(own, "OLD", schema), `IF ${differs(marks, leading)} THEN ${mark(own, "NEW", schema)} END IF;`];
    case "truncate":
      return [mark({ kind, steps: [], names: undefined }, "OLD", schema)];
  }
}

function wantedTrigger(event: Event, marks: TableMarks, schema: string): WantedTrigger {
  const { table, watched } = marks;
  const name = triggerName(table.name, event, hashOf);
  const each = event === "truncate" ? "FOR EACH STATEMENT" : "FOR EACH ROW";
  const when = event === "update" ? ` WHEN (${differs(marks, watched)})` : "";
  const on = `AFTER ${event.toUpperCase()} ON ${quote(schema)}.${quote(table.name)} ${each}${when}`;
  const called = `${quote(schema)}.${quote(name)}()`;
  const rights = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp";
  const text = ["BEGIN",
    `IF to_regclass(${literal(`${quote(schema)}.${quote(MARKS_TABLE.name)}`)}) IS NULL THEN RETURN NULL; END IF;`,
    ...stepsOf(event, marks, schema), "RETURN NULL;", "END"];
  // The condition and the rights are no part of the function's text: the mark in it stands for them.
  const body = `\n-- holdfast ${hashOf([on, rights, ...text].join("\n"))}\n${text.join("\n")}\n`;
  return { name, table: table.name, body, create: [
    `CREATE OR REPLACE FUNCTION ${called} RETURNS trigger ${rights} AS $holdfast$${body}$holdfast$`,
    `CREATE TRIGGER ${quote(name)} ${on} EXECUTE FUNCTION ${called}`,
  ] };
}

const EVENTS: readonly Event[] = ["insert", "update", "delete", "truncate"];

const TRIGGERS = `
  SELECT t.tgname, c.relname, p.prosrc, t.tgenabled IN ('O', 'A') AND p.prosecdef AND p.proname = t.tgname
  FROM pg_trigger t
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
  JOIN pg_proc p ON p.oid = t.tgfoid
  WHERE NOT t.tgisinternal AND left(t.tgname, 9) = 'holdfast_' ORDER BY c.relname, t.tgname`;

const FUNCTIONS = `
  SELECT p.proname FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = current_schema()
  WHERE left(p.proname, 9) = 'holdfast_' AND p.prorettype = 'trigger'::regtype AND p.pronargs = 0 ORDER BY p.proname`;

const word = (cell: Cell | undefined): string => String(present(cell, "the catalogue names everything"));

async function found(run: Run): Promise<readonly FoundTrigger[]> {
  const functions = new Set((await run({ text: FUNCTIONS, values: [] })).map(([name]) => word(name)));
  const triggers = (await run({ text: TRIGGERS, values: [] })).map(([name, table, body, isActive]): FoundTrigger => {
    const drop = [`DROP TRIGGER ${quote(word(name))} ON ${quote(word(table))}`];
    if (functions.delete(word(name))) drop.push(`DROP FUNCTION ${quote(word(name))}()`);
    return { name: word(name), table: word(table), body: word(body), isActive: word(isActive) === "t", drop };
  });
  const idle = [...functions].map((name): FoundTrigger =>
    ({ name, table: undefined, body: "", isActive: false, drop: [`DROP FUNCTION ${quote(name)}()`] }));
  return [...triggers, ...idle];
}

/** PostgreSQL 12 and later. */
export const postgresTriggers: TriggerDialect = {
  begin: [`SET LOCAL lock_timeout = ${LOCK_WAIT_MS}`],
  replaces: false,
  schema: { text: "SELECT current_schema()", values: [] },
  wanted: (plan, schema) => plan.flatMap((marks) => EVENTS.map((event) => wantedTrigger(event, marks, schema))),
  found,
  dropTable: `DROP TABLE IF EXISTS ${quote(MARKS_TABLE.name)}`,
  script: (statements) => ["BEGIN", ...postgresTriggers.begin, ...statements, "COMMIT"].map((text) => `${text};\n`).join(""),
};
