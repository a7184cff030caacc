/**
 * Tables and kinds of a service for callers: what the service file declares beside what the live database has. Pure.
 */
import type { Input, JsonValue } from "../core/operation.ts";
import type { LiveColumn, LiveTable } from "../rows/rows.ts";
import { isNullable, kindOf } from "../rows/wire.ts";
import type { Kind, Reference, Service, Table } from "../schemas/define.ts";

function describedColumn(table: Table, name: string, live: LiveColumn | undefined): Input {
  const type = table.columns[name] ?? "text";
  const kept: Record<string, JsonValue> = live?.fractionDigits === undefined ? {} : { fractionDigits: live.fractionDigits };
  return { name, kind: kindOf(type), nullable: isNullable(type), local: name in table.local, secret: table.secret.includes(name),
    counted: table.counted === name, live: live?.type ?? null, ...kept };
}

function describedReference({ columns, table, to, hard }: Reference): Input {
  return { columns, table, to, enforced: hard };
}

/** One table; `live` is undefined when the database has no such table. */
export function describedTable(service: Service, table: Table, live: LiveTable | undefined): Input {
  const columns = new Map(live?.columns.map((column) => [column.name, column]));
  return { name: table.name, kind: service.kindOfTable.get(table.name)?.name ?? null, key: table.key, unique: table.unique,
    columns: Object.keys(table.columns).map((name) => describedColumn(table, name, columns.get(name))),
    references: table.references.map(describedReference) };
}

/** Every table that is synchronised. */
export function describedTables(service: Service, live: readonly LiveTable[]): readonly Input[] {
  const found = new Map(live.map((table) => [table.name, table]));
  return [...service.tables.values()].map((table) => describedTable(service, table, found.get(table.name)));
}

function describedKind(kind: Kind): Input {
  return { name: kind.name, root: kind.root, key: kind.key, tables: kind.tables, rank: kind.rank, neverEmpty: kind.neverEmpty,
    log: kind.log !== undefined, except: kind.except.map(({ key, because }) => ({ key, because })) };
}

/** Every kind, parents first. */
export function describedKinds(service: Service): readonly Input[] {
  return [...service.kinds.values()].map(describedKind);
}
