/**
 * MariaDB's SQL: inserts are multi-row VALUES, updates join a list of values, everything else compares row tuples with IN,
 * which MariaDB 10.3 and later answer by ranges of the index. Pure.
 *
 * Invariants: NULL in a match tuple means IS NULL; a match value that the column's character set cannot hold matches nothing
 * (MariaDB would refuse the comparison); datetimes are cut before they get here, because MariaDB cuts them silently.
 * The driver writes values into the text as literals: the session's sql_mode and character set, on which its escaping
 * relies, are set for every connection (mariadb.ts).
 */
import { assert, present } from "../core/assert.ts";
import { OperatingError } from "../core/errors.ts";
import type { ColumnKind, Table } from "../schemas/define.ts";
import type { Row, Value } from "../schemas/row.ts";
import { decodeText, type Cell, type Dialect, type Statement, type Target } from "./dialect.ts";
import { keyMatch, patternsOf } from "./match.ts";
import type { Match } from "./rows.ts";
import { columnKind, isNullable, kindOf } from "./wire.ts";

/** Characters of values in one statement at most: it stays well below the server's default packet of 16 MiB. */
export const STATEMENT_CHARACTERS_MAX = 2_000_000;

function quote(name: string): string {
  // The driver looks for placeholders everywhere in the text.
  assert(!name.includes("?"), `${name} is not a name that can be written here`);
  return `\`${name.replaceAll("`", "``")}\``;
}

const list = (names: readonly string[], prefix = ""): string => names.map((name) => prefix + quote(name)).join(", ");

const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
const BEYOND_BMP = /[\ud800-\udfff]/;
const BEYOND_ASCII = /[^\0-\x7f]/;

/** The value as the driver shall write it: whole numbers bare, bytes as a buffer, the rest as text. */
function literal(kind: ColumnKind, value: Value): unknown {
  if (value === null) return null;
  if (kind === "bigint") return BigInt(value);
  if (kind === "bytes") return Buffer.from(String(value), "base64");
  // Half a surrogate pair has no UTF-8 form; written anyway it would turn into another character without a word.
  if (kind === "text" && LONE_SURROGATE.test(String(value))) {
    throw new OperatingError("E_ROWS_REFUSED", "a text is not valid Unicode");
  }
  return value;
}

/** Literals compared with a column of `kind` are cast where MariaDB would otherwise compare as floating point or as text. */
function comparable(kind: ColumnKind): string {
  if (kind === "decimal") return "CAST(? AS DECIMAL(65,30))";
  return kind === "datetime" ? "CAST(? AS DATETIME(6))" : "?";
}

/** False when the column's character set cannot hold the value. */
function canEqual(target: Target, column: string, value: Value): boolean {
  if (typeof value !== "string" || columnKind(target.table, column) !== "text") return true;
  const charset = target.facts.get(column)?.charset ?? "utf8mb4";
  if (charset === "utf8mb4") return !LONE_SURROGATE.test(value);
  return !(charset === "utf8mb3" || charset === "utf8" ? BEYOND_BMP : BEYOND_ASCII).test(value);
}

interface Condition {
  readonly text: string;
  readonly values: readonly unknown[];
}

/** Conditions that together cover the match and exclude each other. `prefix` stands before column names. */
function conditionsOf(target: Target, match: Match, prefix: string): readonly Condition[] {
  return patternsOf(match, (column, value) => canEqual(target, column, value)).map(({ compared, isNull, tuples }) => {
    const nulls = isNull.map((column) => `${prefix}${quote(column)} IS NULL`);
    if (compared.length === 0) return { text: nulls.join(" AND "), values: [] };
    const kinds = compared.map((column) => columnKind(target.table, column));
    const bracket = (parts: readonly string[]): string => (parts.length === 1 ? parts.join() : `(${parts.join(", ")})`);
    const tuple = bracket(kinds.map(comparable));
    const equal = `${bracket(compared.map((column) => prefix + quote(column)))} IN (${tuples.map(() => tuple).join(", ")})`;
    const values = tuples.flatMap((one) => kinds.map((kind, position) => literal(kind, one[position] ?? null)));
    return { text: [equal, ...nulls].join(" AND "), values };
  });
}

/** Rows as a flat list of literals, for one statement. */
interface LiteralRun {
  count: number;
  readonly values: unknown[];
}

/** Rows as literals, in lists that each fit into one statement. */
function literalRuns(target: Target, columns: readonly string[], rows: readonly Row[]): readonly LiteralRun[] {
  const kinds = columns.map((column) => columnKind(target.table, column));
  const runs: LiteralRun[] = [];
  let characters = Number.POSITIVE_INFINITY;
  for (const row of rows) {
    const size = columns.reduce((sum, column) => sum + (typeof row[column] === "string" ? row[column].length : 8), 0);
    if (characters + size > STATEMENT_CHARACTERS_MAX) {
      runs.push({ count: 0, values: [] });
      characters = 0;
    }
    characters += size;
    const run = present(runs.at(-1), "a run");
    run.count++;
    for (const [position, column] of columns.entries()) run.values.push(literal(kinds[position] ?? "text", row[column] ?? null));
  }
  return runs;
}

const tuples = (count: number, width: number): string =>
  Array.from({ length: count }, () => `(${Array.from({ length: width }, () => "?").join(",")})`).join(",");

/** Type of a column in Holdfast's own tables. Whole numbers are 64 bits wide: stream sequences outgrow 32. */
function ownType(table: Table, column: string, kind: ColumnKind): string {
  if (column === table.counted) return "bigint AUTO_INCREMENT";
  const isKey = [...table.key, ...table.unique.flat()].includes(column);
  const types: Readonly<Record<ColumnKind, string>> = {
    text: isKey ? "varchar(255)" : "longtext", integer: "bigint", bigint: "bigint", decimal: "decimal(38,9)",
    boolean: "tinyint(1)", datetime: "datetime(6)", date: "date", bytes: isKey ? "varbinary(255)" : "longblob",
  };
  return types[kind];
}

function decode(kind: ColumnKind, cell: Cell): Value {
  if (cell === null) return null;
  const bytes = Buffer.isBuffer(cell) ? cell : Buffer.from(cell, "utf8");
  if (kind === "bytes") return bytes.toString("base64");
  if (kind === "boolean") return bytes.toString("latin1") !== "0";
  return decodeText(kind, bytes.toString(kind === "text" ? "utf8" : "latin1"));
}

/** Rows after `after` in key order, written so that MariaDB uses the index: a >= x AND (a > x OR (b >= y AND …)). */
function afterCondition(target: Target, after: Row): Condition {
  const { key } = target.table;
  const values: unknown[] = [];
  const holder = (column: string): string => {
    const kind = columnKind(target.table, column);
    values.push(literal(kind, after[column] ?? null));
    return comparable(kind);
  };
  const from = (position: number): string => {
    const column = present(key[position], "a key column");
    const name = `t.${quote(column)}`;
    if (position === key.length - 1) return `${name} > ${holder(column)}`;
    return `${name} >= ${holder(column)} AND (${name} > ${holder(column)} OR ${from(position + 1)})`;
  };
  return { text: from(0), values };
}

/** MariaDB 10.5 and later. */
export const mariadbDialect: Dialect = {
  quote,
  decode,

  select(target, columns, match, lock) {
    const head = `SELECT ${list(columns, "t.")} FROM ${quote(target.table.name)} AS t WHERE`;
    // Locks are taken in key order, so that two transactions with overlapping sets wait instead of deadlocking.
    const tail = lock ? ` ORDER BY ${list(target.table.key, "t.")} FOR UPDATE` : "";
    return conditionsOf(target, match, "t.").map(({ text, values }) => ({ text: `${head} ${text}${tail}`, values }));
  },

  page(target, columns, { after, limit }) {
    const where = after === undefined ? undefined : afterCondition(target, after);
    const text = `SELECT ${list(columns, "t.")} FROM ${quote(target.table.name)} AS t` +
      `${where === undefined ? "" : ` WHERE ${where.text}`} ORDER BY ${list(target.table.key, "t.")} LIMIT ?`;
    return { text, values: [...(where?.values ?? []), limit] };
  },

  above(target, columns, column, floor, limit) {
    const text = `SELECT ${list(columns, "t.")} FROM ${quote(target.table.name)} AS t WHERE t.${quote(column)} > ? ` +
      `ORDER BY t.${quote(column)} LIMIT ?`;
    return { text, values: [floor, limit] };
  },

  checksum(target, columns) {
    // As bytes: columns of different character sets do not mix. 15 digits: the sum must not leave what a DECIMAL holds.
    const cells = columns.map((column) => `IFNULL(CAST(t.${quote(column)} AS BINARY), 0x01)`);
    const hash = `CAST(CONV(LEFT(MD5(CONCAT_WS(0x1f, ${cells.join(", ")})), 15), 16, 10) AS UNSIGNED)`;
    const text = `SELECT CONCAT(COUNT(*), ':', COALESCE(SUM(${hash}), 0)) FROM ${quote(target.table.name)} AS t`;
    return { text, values: [] };
  },

  insert(target, columns, rows) {
    const head = `INSERT INTO ${quote(target.table.name)} (${list(columns)}) VALUES`;
    return literalRuns(target, columns, rows)
      .map(({ count, values }) => ({ text: `${head} ${tuples(count, columns.length)}`, values }));
  },

  update(target, rows, columns) {
    const { key, name } = target.table;
    const named = [...key, ...columns];
    const found = rows.filter((row) => key.every((column) => canEqual(target, column, row[column] ?? null)));
    // The list's columns get names of their own: v.c0, v.c1, …; a derived table cannot be given any, a common table can.
    const names = named.map((_, position) => `c${position}`);
    const same = key.map((column, position) =>
      `t.${quote(column)} = ${comparable(columnKind(target.table, column)).replace("?", `v.c${position}`)}`).join(" AND ");
    const set = columns.map((column, position) => `t.${quote(column)} = v.c${key.length + position}`).join(", ");
    return literalRuns(target, named, found).map(({ count, values }): Statement => ({
      text: `UPDATE (WITH w(${names.join(",")}) AS (VALUES ${tuples(count, named.length)}) SELECT * FROM w) AS v ` +
        `STRAIGHT_JOIN ${quote(name)} AS t ON ${same} SET ${set}`,
      values,
    }));
  },

  remove(target, rows) {
    return conditionsOf(target, keyMatch(target.table, rows), "")
      .map(({ text, values }): Statement => ({ text: `DELETE FROM ${quote(target.table.name)} WHERE ${text}`, values }));
  },

  createTable(table) {
    const columns = Object.entries(table.columns).map(([column, type]) =>
      `${quote(column)} ${ownType(table, column, kindOf(type))}${isNullable(type) ? " NULL" : " NOT NULL"}`);
    const counted = table.counted !== undefined && table.key[0] !== table.counted ? [`UNIQUE (${quote(table.counted)})`] : [];
    const keys = [`PRIMARY KEY (${list(table.key)})`, ...table.unique.map((unique) => `UNIQUE (${list(unique)})`), ...counted];
    // Compared byte by byte and without padding, as PostgreSQL does: "a" and "a " are two keys.
    return { text: `CREATE TABLE IF NOT EXISTS ${quote(table.name)} (${[...columns, ...keys].join(", ")}) ENGINE=InnoDB ` +
      "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin", values: [] };
  },
};
