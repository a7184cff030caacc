/**
 * What a Keystone database holds, as the service file sees it: every table before and after a call, the aggregates in it, and
 * how a site's database differs from the centre's. Read through the row adapters, so both engines give the same values.
 *
 * Not here: which rows a call may change (keystone-oracle.ts).
 */
import { present } from "../../core/assert.ts";
import { isExcepted } from "../../rows/footprint.ts";
import { type Rows, ROWS_PER_CALL_MAX } from "../../rows/rows.ts";
import { declareTable, type ColumnType, type Kind, type Table } from "../../schemas/define.ts";
import { keystone } from "../../schemas/keystone.ts";
import { canonicalImage, digestOf, keyOfRoot, keyText, pickColumns, rowText, type AggregateKey,
  type Row } from "../../schemas/row.ts";

/** Rows of every table, by its name. */
export type State = ReadonlyMap<string, readonly Row[]>;

/** Every Keystone table of a database: declared ones as declared, all others as the database describes itself. */
export async function tablesIn(rows: Rows): Promise<readonly Table[]> {
  return (await rows.reflect()).filter(({ name }) => !name.startsWith("holdfast_")).map((live) => {
    const columns = Object.fromEntries(live.columns.map(({ name, carries, nullable }) =>
      [name, `${present(carries[0], `${live.name}.${name}`)}${nullable ? "?" : ""}` as ColumnType]));
    return keystone.tables.get(live.name) ?? declareTable(live.name, { key: live.key, columns });
  });
}

/** Reads all rows of `tables` in one state of the database. */
export function readState(rows: Rows, tables: readonly Table[]): Promise<State> {
  return rows.snapshot(async (read) => {
    const state = new Map<string, readonly Row[]>();
    for (const table of tables) {
      const found: Row[] = [];
      for (let page: Row[] = [], first = true; first || page.length === ROWS_PER_CALL_MAX; first = false) {
        page = await read.page(table, { after: found.at(-1), limit: ROWS_PER_CALL_MAX });
        found.push(...page);
      }
      state.set(table.name, found);
    }
    return state;
  });
}

function ownedRows(kind: Kind, root: Row, state: State): Readonly<Record<string, readonly Row[]>> {
  const rows: Record<string, readonly Row[]> = { [kind.root]: [root] };
  for (const { table, of = kind.root, by } of kind.owns) {
    rows[table] = (state.get(table) ?? []).filter((row) => (rows[of] ?? []).some((parent) =>
      Object.entries(by).every(([column, parentColumn]) => row[column] === parent[parentColumn])));
  }
  return rows;
}

/** Digests of all aggregates of some kinds by key text. Worked out from whole tables, independently of the product's reading. */
function aggregatesOf(state: State, kinds: readonly Kind[]): ReadonlyMap<string,
  { readonly key: AggregateKey; readonly digest: string }> {
  const aggregates = new Map<string, { key: AggregateKey; digest: string }>();
  for (const kind of kinds) {
    for (const root of state.get(kind.root) ?? []) {
      const key = keyOfRoot(kind, root);
      if (isExcepted(kind, key)) continue;
      aggregates.set(keyText(key), { key, digest: digestOf(canonicalImage(keystone, key, ownedRows(kind, root, state))) });
    }
  }
  return aggregates;
}

/** Aggregates that differ between two states. Rows that a log pruned are no change: every site prunes by itself. */
export function changedBetween(before: State, after: State): readonly AggregateKey[] {
  const touched = new Set(tablesTouched(before, after));
  const kinds = [...keystone.kinds.values()].filter(({ tables }) => tables.some((table) => touched.has(table)));
  const [left, right] = [aggregatesOf(before, kinds), aggregatesOf(after, kinds)];
  const isPruned = ({ kind }: AggregateKey): boolean => keystone.kinds.get(kind)?.log !== undefined;
  const gone = [...left].filter(([name, { key }]) => !right.has(name) && !isPruned(key)).map(([, { key }]) => key);
  const written = [...right].filter(([name, { digest }]) => left.get(name)?.digest !== digest).map(([, { key }]) => key);
  return [...gone, ...written];
}

/** Names of tables whose rows differ in any column between two states. */
export function tablesTouched(before: State, after: State): readonly string[] {
  return [...after].filter(([name, rows]) => JSON.stringify(rows) !== JSON.stringify(before.get(name))).map(([name]) => name);
}

/**
 * Rows that the centre and a site do not have alike, one line each: every synchronised table, all columns but the declared local
 * ones, with the centre's values as the site's database can hold them. Empty when the site is in step.
 */
export function stateDifferences(centre: State, site: State, siteRows: Rows): readonly string[] {
  const differences: string[] = [];
  for (const table of keystone.tables.values()) {
    const texts = (state: State, fitted: boolean): ReadonlySet<string> => new Set((state.get(table.name) ?? []).map((row) =>
      rowText(fitted ? siteRows.fit(table, pickColumns(row, table.sent)) : row, table.sent)));
    const [wanted, held] = [texts(centre, true), texts(site, false)];
    differences.push(...[...wanted].filter((row) => !held.has(row)).map((row) => `${table.name}: only at the centre ${row}`),
      ...[...held].filter((row) => !wanted.has(row)).map((row) => `${table.name}: only at the site ${row}`));
  }
  return differences;
}
