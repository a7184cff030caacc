/**
 * The SQL that triggers of both engines have in common: names, and the way from a changed row to the rows a trail leads to. Pure.
 * Invariant: names come from declarations and are quoted by the engine's own rule.
 */
import { createHash } from "node:crypto";
import type { Trail } from "./trigger-plan.ts";

/** A text in SQL. Only for words of declarations: neither engine's other rules of escaping are followed. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** Sixteen characters that stand for a longer text. */
export const hashOf = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16);

/** The row that step `step` of a trail reached; `changed` is the row of the trigger itself. */
export const rowAt = (step: number, changed: string): string => (step === 0 ? changed : `t${step}`);

/** Where a trail leads from the row `changed` (OLD or NEW); `from` undefined: nowhere but to that row itself. */
export interface Way {
  /** "table t1 JOIN table t2 ON …" */
  readonly from: string | undefined;
  /** What must hold besides: the first step's join, and names that are there. */
  readonly where: readonly string[];
}

/** The way of a trail; `place` writes the name of a table, `quote` that of a column. */
export function wayOf(trail: Trail, changed: string, place: (table: string) => string, quote: (column: string) => string): Way {
  const named = (trail.names ?? []).filter(({ nullable }) => nullable)
    .map(({ step, column }) => `${rowAt(step, changed)}.${quote(column)} IS NOT NULL`);
  const [first, ...rest] = trail.steps.map(({ table, on }, before) => {
    const name = rowAt(before + 1, changed);
    const same = on.map(([here, there]) => `${name}.${quote(here)} = ${rowAt(before, changed)}.${quote(there)}`);
    return { name: `${place(table)} ${name}`, same: same.join(" AND ") };
  });
  if (first === undefined) return { from: undefined, where: named };
  const joined = rest.map(({ name, same }) => `JOIN ${name} ON ${same}`);
  return { from: [first.name, ...joined].join(" "), where: [first.same, ...named] };
}
