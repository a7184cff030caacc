/**
 * Triggers for MariaDB: per table one for insert, update and delete. Pure but for reading the catalogue.
 *
 * Cascades of foreign keys fire no triggers here, so the delete of a row marks what goes with it, before it goes. TRUNCATE fires
 * none either: the next audit finds it. Triggers run with the rights of whoever installed them.
 * Invariants: marks are written by plain single-row inserts, because INSERT … SELECT would hold the counter's table lock to the
 * end of the service's statement; only a missing table of marks is passed over: after any other error (a deadlock has rolled
 * everything back) the service has to hear of it. Text is compared by its bytes, or a change of letter case would be none.
 */
import { present } from "../core/assert.ts";
import type { Cell, Run } from "./dialect.ts";
import { mariadbDialect } from "./mariadb-sql.ts";
import type { FoundTrigger, TriggerDialect, WantedTrigger } from "./triggers.ts";
import { MARKS_TABLE, triggerName, type NamePart, type TableMarks, type Trail } from "./trigger-plan.ts";
import { hashOf, literal, rowAt, wayOf } from "./trigger-sql.ts";
import { columnKind } from "./wire.ts";

const { quote } = mariadbDialect;

/** A table that is in use for longer is left for the next try: whoever writes it would wait behind us. */
const LOCK_WAIT_SECONDS = 1;
const PATIENCE = `SET STATEMENT lock_wait_timeout = ${LOCK_WAIT_SECONDS} FOR`;

/** ER_NO_SUCH_TABLE */
const NO_SUCH_TABLE = 1146;

type Event = "insert" | "update" | "delete";

const WHEN: Readonly<Record<Event, string>> = { insert: "AFTER INSERT", update: "AFTER UPDATE", delete: "BEFORE DELETE" };

function nameText({ step, column, kind }: NamePart, changed: string): string {
  const value = `${rowAt(step, changed)}.${quote(column)}`;
  if (kind === "text") return value;
  return kind === "boolean" ? `IF(${value}, 'true', 'false')` : `CAST(${value} AS CHAR)`;
}

const insert = (kind: string, names: string): string =>
  `INSERT INTO ${quote(MARKS_TABLE.name)} (\`kind\`, \`names\`) VALUES (${literal(kind)}, ${names});`;

/** The statement that marks what `trail` leads to from the row `changed` (OLD or NEW). */
function mark(trail: Trail, changed: string): string {
  const { from, where } = wayOf(trail, changed, quote, quote);
  const parts = trail.names?.map((part) => nameText(part, changed));
  const names = parts === undefined ? "NULL" : `JSON_ARRAY(${parts.join(", ")})`;
  if (from === undefined) {
    return where.length === 0 ? insert(trail.kind, names) : `IF ${where.join(" AND ")} THEN ${insert(trail.kind, names)} END IF;`;
  }
  const rest = `FROM ${from} WHERE ${where.join(" AND ")}`;
  if (parts === undefined) return `IF EXISTS (SELECT 1 ${rest}) THEN ${insert(trail.kind, "NULL")} END IF;`;
  return `FOR found IN (SELECT ${names} AS names ${rest}) DO ${insert(trail.kind, "found.names")} END FOR;`;
}

function differs(marks: TableMarks, columns: readonly string[]): string {
  const same = columns.map((column) => {
    const bytes = columnKind(marks.table, column) === "text" ? "BINARY " : "";
    return `${bytes}OLD.${quote(column)} <=> ${bytes}NEW.${quote(column)}`;
  });
  return `NOT (${same.join(" AND ")})`;
}

function stepsOf(event: Event, marks: TableMarks): readonly string[] {
  const { own, leading, watched, dependents, rekeyed } = marks;
  switch (event) {
    case "insert":
      return [mark(own, "NEW")];
    case "delete":
      return [mark(own, "OLD"), ...dependents.map((trail) => mark(trail, "OLD"))];
    case "update":
      return [`IF ${differs(marks, watched)} THEN`, mark(own, "OLD"),
        `IF ${differs(marks, leading)} THEN ${mark(own, "NEW")} END IF;`,
        ...rekeyed.map(({ columns, kinds }) =>
          `IF ${differs(marks, columns)} THEN ${kinds.map((kind) => insert(kind, "NULL")).join(" ")} END IF;`),
        "END IF;"];
  }
}

/** White space apart, which clients may change. */
const comparable = (body: string): string => body.trim().replaceAll(/\s+/g, " ");

function wantedTrigger(event: Event, marks: TableMarks): WantedTrigger {
  const { name: table } = marks.table;
  const name = triggerName(table, event, hashOf);
  const body = ["BEGIN", `DECLARE CONTINUE HANDLER FOR ${NO_SUCH_TABLE} BEGIN END;`, ...stepsOf(event, marks), "END"].join("\n");
  return { name, table, body: comparable(`${WHEN[event]} ${body}`), create: [
    `${PATIENCE} CREATE OR REPLACE TRIGGER ${quote(name)} ${WHEN[event]} ON ${quote(table)} FOR EACH ROW\n${body}`] };
}

const EVENTS: readonly Event[] = ["insert", "update", "delete"];

const TRIGGERS = `
  SELECT trigger_name, event_object_table, action_timing, event_manipulation, action_statement
  FROM information_schema.triggers WHERE trigger_schema = DATABASE() AND LEFT(trigger_name, 9) = 'holdfast_'
  ORDER BY event_object_table, trigger_name`;

const word = (cell: Cell | undefined): string => String(present(cell, "the catalogue names everything"));

async function found(run: Run): Promise<readonly FoundTrigger[]> {
  return (await run({ text: TRIGGERS, values: [] })).map(([name, table, timing, event, body]): FoundTrigger => ({
    name: word(name), table: word(table), body: comparable(`${word(timing)} ${word(event)} ${word(body)}`), isActive: true,
    drop: [`${PATIENCE} DROP TRIGGER IF EXISTS ${quote(word(name))}`] }));
}

/** MariaDB 10.5 and later. */
export const mariadbTriggers: TriggerDialect = {
  begin: [],
  replaces: true,
  schema: { text: "SELECT DATABASE()", values: [] },
  wanted: (plan) => plan.flatMap((marks) => EVENTS.map((event) => wantedTrigger(event, marks))),
  found,
  dropTable: `${PATIENCE} DROP TABLE IF EXISTS ${quote(MARKS_TABLE.name)}`,
  script: (statements) => ["SET NAMES utf8mb4", "SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES'",
    ...statements].map((text) => `DELIMITER $$\n${text} $$\nDELIMITER ;\n`).join(""),
};
