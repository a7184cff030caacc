/**
 * Reflection of a MariaDB database from information_schema: tables of the current database with columns, keys, unique keys and
 * foreign keys. A unique index over the beginning of a column only is not a unique key.
 */
import { present } from "../core/assert.ts";
import type { Catalog, Cell, ColumnFacts, Run } from "./dialect.ts";
import type { LiveColumn, LiveTable } from "./rows.ts";

const COLUMNS = `
  SELECT c.table_name, c.column_name, c.column_type, c.data_type, c.is_nullable, c.datetime_precision, c.character_set_name
  FROM information_schema.columns c
  JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
  WHERE c.table_schema = DATABASE() AND t.table_type = 'BASE TABLE' ORDER BY c.table_name, c.ordinal_position`;

const UNIQUE_KEYS = `
  SELECT table_name, index_name, column_name, sub_part FROM information_schema.statistics
  WHERE table_schema = DATABASE() AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index`;

const FOREIGN_KEYS = `
  SELECT k.table_name, k.constraint_name, k.column_name, k.referenced_table_name, k.referenced_column_name, r.delete_rule
  FROM information_schema.key_column_usage k
  JOIN information_schema.referential_constraints r ON r.constraint_schema = k.constraint_schema
    AND r.constraint_name = k.constraint_name AND r.table_name = k.table_name
  WHERE k.table_schema = DATABASE() AND k.referenced_table_name IS NOT NULL
  ORDER BY k.table_name, k.constraint_name, k.ordinal_position`;

const WHOLE = ["integer", "bigint"];

/** Wire kinds by type name. Floating point carries nothing: its text differs between engines. */
const CARRIES: Readonly<Record<string, readonly string[]>> = {
  char: ["text"], varchar: ["text"], tinytext: ["text"], text: ["text"], mediumtext: ["text"], longtext: ["text"], enum: ["text"],
  set: ["text"], uuid: ["text"], inet4: ["text"], inet6: ["text"], json: ["text"],
  tinyint: WHOLE, smallint: WHOLE, mediumint: WHOLE, int: WHOLE, bigint: WHOLE, year: WHOLE,
  decimal: ["decimal"], datetime: ["datetime"], timestamp: ["datetime"], date: ["date"],
  binary: ["bytes"], varbinary: ["bytes"], tinyblob: ["bytes"], blob: ["bytes"], mediumblob: ["bytes"], longblob: ["bytes"],
};

const text = (cell: Cell | undefined): string => String(present(cell, "the catalogue names everything"));

function columnOf(cells: readonly Cell[]): { readonly live: LiveColumn; readonly facts: ColumnFacts } {
  const [, name, type, typeName, nullable, precision, charset] = cells;
  // A tinyint is a boolean only when it was declared as one, which MariaDB remembers as tinyint(1).
  const carries = text(type) === "tinyint(1)" ? ["boolean", ...WHOLE] : CARRIES[text(typeName)] ?? [];
  const fraction = carries.includes("datetime") ? { fractionDigits: Number(precision ?? 0) } : {};
  return {
    live: { name: text(name), type: text(type), carries, nullable: text(nullable) === "YES", ...fraction },
    facts: { sqlType: text(typeName), ...fraction, charset: charset === null ? undefined : text(charset) },
  };
}

interface Gathered {
  readonly columns: LiveColumn[];
  readonly facts: Map<string, ColumnFacts>;
  /** Index name to its columns; undefined where one of them is indexed in part. */
  readonly indexes: Map<string, string[] | undefined>;
  readonly references: Map<string, { columns: string[]; table: string; to: string[]; onDelete: string }>;
}

function liveTable(name: string, { columns, indexes, references }: Gathered): LiveTable {
  const key = indexes.get("PRIMARY") ?? [];
  const unique = [...indexes.values()].filter((names) => names !== undefined && names !== key) as readonly (readonly string[])[];
  return { name, columns, key, unique, references: [...references.values()] };
}

/** Every table of the connection's database. */
export async function reflectMariadb(run: Run): Promise<Catalog> {
  const tables = new Map<string, Gathered>();
  for (const cells of await run({ text: COLUMNS, values: [] })) {
    const name = text(cells[0]);
    const table: Gathered = tables.get(name) ?? { columns: [], facts: new Map(), indexes: new Map(), references: new Map() };
    tables.set(name, table);
    const { live, facts } = columnOf(cells);
    table.columns.push(live);
    table.facts.set(live.name, facts);
  }
  for (const [name, index, column, part] of await run({ text: UNIQUE_KEYS, values: [] })) {
    const indexes = present(tables.get(text(name)), text(name)).indexes;
    const before = indexes.has(text(index)) ? indexes.get(text(index)) : [];
    indexes.set(text(index), part === null && before !== undefined ? [...before, text(column)] : undefined);
  }
  for (const [name, constraint, column, parent, to, onDelete] of await run({ text: FOREIGN_KEYS, values: [] })) {
    const references = present(tables.get(text(name)), text(name)).references;
    const rule = text(onDelete).toLowerCase();
    const reference = references.get(text(constraint)) ??
      { columns: [], table: text(parent), to: [], onDelete: rule === "no action" ? "restrict" : rule };
    reference.columns.push(text(column));
    reference.to.push(text(to));
    references.set(text(constraint), reference);
  }
  return {
    tables: [...tables].map(([name, gathered]) => liveTable(name, gathered)),
    facts: new Map([...tables].map(([name, { facts }]) => [name, facts])),
  };
}
