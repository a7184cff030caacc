/**
 * Reflection of a PostgreSQL database from pg_catalog: tables of the current schema with columns, keys, unique keys and foreign
 * keys. Own queries because Sequelize 6 pairs the columns of composite foreign keys wrongly and drops precisions.
 * Unique indexes count as unique keys whether or not a constraint stands behind them; partial and expression indexes do not.
 */
import { present } from "../core/assert.ts";
import type { Catalog, Cell, ColumnFacts, Run } from "./dialect.ts";
import type { LiveColumn, LiveTable } from "./rows.ts";

const COLUMNS = `
  SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1),
    coalesce(b.typname, t.typname), coalesce(b.typtype, t.typtype), a.attnotnull OR t.typnotnull, a.atttypmod,
    (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = coalesce(b.oid, t.oid))
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_type b ON b.oid = t.typbasetype
  WHERE c.relkind IN ('r', 'p') ORDER BY c.relname, a.attnum`;

const UNIQUE_KEYS = `
  SELECT c.relname, i.indisprimary, (SELECT json_agg(a.attname ORDER BY k.position)
    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.position <= i.indnkeyatts)
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indrelid AND c.relkind IN ('r', 'p')
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
  WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL ORDER BY c.relname, i.indexrelid`;

const FOREIGN_KEYS = `
  SELECT c.relname, p.relname, f.confdeltype,
    (SELECT json_agg(a.attname ORDER BY k.position) FROM unnest(f.conkey) WITH ORDINALITY AS k(attnum, position)
      JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum),
    (SELECT json_agg(a.attname ORDER BY k.position) FROM unnest(f.confkey) WITH ORDINALITY AS k(attnum, position)
      JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum)
  FROM pg_constraint f
  JOIN pg_class c ON c.oid = f.conrelid AND c.relkind IN ('r', 'p')
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
  JOIN pg_class p ON p.oid = f.confrelid
  WHERE f.contype = 'f' AND f.conparentid = 0 ORDER BY c.relname, f.oid`;

/** Wire kinds by internal type name. Floating point carries nothing: its text differs between engines. */
const CARRIES: Readonly<Record<string, readonly string[]>> = {
  varchar: ["text"], text: ["text"], bpchar: ["text"], name: ["text"], citext: ["text"], uuid: ["text"], json: ["text"],
  jsonb: ["text"], inet: ["text"], cidr: ["text"], macaddr: ["text"],
  int2: ["integer", "bigint"], int4: ["integer", "bigint"], int8: ["integer", "bigint"], numeric: ["decimal"], bool: ["boolean"],
  timestamp: ["datetime"], timestamptz: ["datetime"], date: ["date"], bytea: ["bytes"],
};

/** The engine regards "no action" and "restrict" as two; neither lets the parent go, so both are "restrict" here. */
const ON_DELETE: Readonly<Record<string, string>> = {
  a: "restrict", r: "restrict", c: "cascade", n: "set null", d: "set default",
};

const word = (cell: Cell | undefined): string => String(present(cell, "the catalogue names everything"));
const names = (cell: Cell | undefined): readonly string[] => JSON.parse(word(cell)) as readonly string[];

function columnOf(cells: readonly Cell[]): { readonly live: LiveColumn; readonly facts: ColumnFacts } {
  const [, name, type, sqlType, typeName, typeClass, notNull, modifier, labels] = cells;
  const carries = word(typeClass) === "e" ? ["text"] : CARRIES[word(typeName)] ?? [];
  // The type modifier of a timestamp is its precision; -1 stands for the full six digits.
  const digits = word(modifier) === "-1" ? 6 : Number(modifier);
  const fraction = carries.includes("datetime") ? { fractionDigits: digits } : {};
  return {
    live: { name: word(name), type: word(type), carries, nullable: word(notNull) === "f", ...fraction },
    facts: { sqlType: word(sqlType), ...fraction,
      labels: labels === null || labels === undefined ? undefined : new Set(names(labels)) },
  };
}

interface Gathered {
  readonly columns: LiveColumn[];
  readonly facts: Map<string, ColumnFacts>;
  key: readonly string[];
  readonly unique: (readonly string[])[];
  readonly references: LiveTable["references"][number][];
}

/** Every table of the connection's current schema. */
export async function reflectPostgres(run: Run): Promise<Catalog> {
  const tables = new Map<string, Gathered>();
  for (const cells of await run({ text: COLUMNS, values: [] })) {
    const name = word(cells[0]);
    const table: Gathered = tables.get(name) ?? { columns: [], facts: new Map(), key: [], unique: [], references: [] };
    tables.set(name, table);
    const { live, facts } = columnOf(cells);
    table.columns.push(live);
    table.facts.set(live.name, facts);
  }
  for (const [name, isPrimary, columns] of await run({ text: UNIQUE_KEYS, values: [] })) {
    const table = present(tables.get(word(name)), word(name));
    if (word(isPrimary) === "t") table.key = names(columns);
    else table.unique.push(names(columns));
  }
  for (const [name, parent, onDelete, columns, to] of await run({ text: FOREIGN_KEYS, values: [] })) {
    present(tables.get(word(name)), word(name)).references.push({
      columns: names(columns), table: word(parent), to: names(to), onDelete: ON_DELETE[word(onDelete)] ?? word(onDelete),
    });
  }
  const live = [...tables].map(([name, { columns, key, unique, references }]) => ({ name, columns, key, unique, references }));
  return { tables: live, facts: new Map([...tables].map(([name, { facts }]) => [name, facts])) };
}
