/**
 * Owned rows whose owner is not there. An image begins at its root row, so no reading of images sees them; and they are not
 * harmless: an orphan keeps its primary key, and the owner that comes one day with a row of that key is refused.
 *
 * Only for owned tables without a foreign key to their owner: everywhere else the database itself forbids orphans (a dump
 * that was loaded with foreign keys switched off aside: then the owner's next image brings its rows in order).
 * Not here: when to look, and whether so many may be removed (row-audit.ts).
 */
import { present } from "../core/assert.ts";
import type { Page, RowReader } from "../rows/rows.ts";
import type { Kind, Owned, Service, Table } from "../schemas/define.ts";
import { rowText, type Row, type Value } from "../schemas/row.ts";

/** An owned table that can hold orphans. */
export interface LooseTable {
  readonly kind: Kind;
  readonly table: Table;
  readonly parent: Table;
  readonly columns: readonly string[];
  readonly parentColumns: readonly string[];
}

/** One page of orphans; `next` is undefined after the last one. */
export interface OrphanPage {
  readonly orphans: readonly Row[];
  readonly rowsRead: number;
  readonly next: Page | undefined;
}

function isGuarded(table: Table, owned: Owned, parent: Table): boolean {
  return table.references.some((reference) => reference.hard && reference.table === parent.name &&
    Object.entries(owned.by).every(([column, to]) =>
      reference.columns.some((each, place) => each === column && reference.to[place] === to)));
}

/** The owned tables of a service that can hold orphans; logs are their service's own affair. */
export function looseTables(service: Service): readonly LooseTable[] {
  const named = (name: string): Table => present(service.tables.get(name), name);
  return [...service.kinds.values()].filter((kind) => kind.log === undefined).flatMap((kind) =>
    kind.owns.flatMap((owned) => {
      const [table, parent] = [named(owned.table), named(owned.of ?? kind.root)];
      if (isGuarded(table, owned, parent)) return [];
      return [{ kind, table, parent, columns: Object.keys(owned.by), parentColumns: Object.values(owned.by) }];
    }));
}

/** Of `rows`, those whose owner is not there. Rows that name no owner at all (NULL) belong to nothing, and to nobody. */
export async function orphansAmong(read: RowReader, loose: LooseTable, rows: readonly Row[]): Promise<readonly Row[]> {
  const { columns, parent, parentColumns } = loose;
  const tupleOf = (row: Row): readonly Value[] => columns.map((column) => row[column] ?? null);
  const owned = rows.filter((row) => !tupleOf(row).includes(null));
  const tuples = new Map(owned.map((row) => [rowText(row, columns), tupleOf(row)]));
  const owners = await read.select(parent, { columns: parentColumns, values: [...tuples.values()] }, parentColumns);
  for (const owner of owners) tuples.delete(rowText(owner, parentColumns));
  // What is left has no owner, or one that the engine takes for equal although it is spelled differently. Only it can say.
  const lost = new Set<string>();
  for (const [text, tuple] of tuples) {
    if ((await read.select(parent, { columns: parentColumns, values: [tuple] }, parentColumns)).length === 0) lost.add(text);
  }
  return owned.filter((row) => lost.has(rowText(row, columns)));
}

/** Looks at one page of the table. */
export async function readOrphans(read: RowReader, loose: LooseTable, page: Page): Promise<OrphanPage> {
  const rows = await read.page(loose.table, page, [...new Set([...loose.table.key, ...loose.columns])]);
  const next = rows.length < page.limit ? undefined : { after: present(rows.at(-1), "a full page"), limit: page.limit };
  return { orphans: await orphansAmong(read, loose, rows), rowsRead: rows.length, next };
}
