/**
 * What the centre's database was, commit by commit, as an observer of its rows knows it: every state that each aggregate ever
 * had, in order, and every row that ever was. The measure for what the stream and the sites may say. Knows the service's
 * declaration and nothing of the product's way of reading aggregates.
 */
import { present } from "../../core/assert.ts";
import type { RowChange } from "../../rows/memory-store.ts";
import type { Kind, Service, Table } from "../../schemas/define.ts";
import { keyText, type Row } from "../../schemas/row.ts";

/** The state of an aggregate that does not exist. */
export const GONE = "gone";

/** Text of some columns of a row. */
export function textOf(row: Row, columns: readonly string[]): string {
  return JSON.stringify(columns.map((column) => row[column] ?? null));
}

/** The text of an aggregate's rows by table; equal for equal states. */
export function stateOf(service: Service, kind: Kind, rows: Readonly<Record<string, readonly Row[]>> | undefined): string {
  if (rows === undefined || (rows[kind.root] ?? []).length === 0) return GONE;
  return kind.tables.map((name) => {
    const table = present(service.tables.get(name), name);
    return (rows[name] ?? []).map((row) => textOf(row, table.sent)).sort().join();
  }).join("|");
}

/** The rows of one database, kept up to date by its commits. */
export class Mirror {
  readonly #service: Service;
  readonly #tables = new Map<string, Map<string, Row>>();

  constructor(service: Service) {
    this.#service = service;
    for (const name of service.tables.keys()) this.#tables.set(name, new Map());
  }

  rowsOf(table: string): ReadonlyMap<string, Row> {
    return this.#tables.get(table) ?? new Map<string, Row>();
  }

  apply(changes: readonly RowChange[]): void {
    for (const { table, before, after } of changes) {
      const rows = this.#tables.get(table.name);
      if (before !== undefined) rows?.delete(textOf(before, table.key));
      if (after !== undefined) rows?.set(textOf(after, table.key), after);
    }
  }

  /** The kind and name of the aggregate that a row belongs to; undefined for a row without its root's values. */
  ownerOf(table: Table, row: Row): { readonly kind: Kind; readonly name: string } | undefined {
    const kind = this.#service.kindOfTable.get(table.name);
    if (kind === undefined) return undefined;
    const owned = kind.owns.find((each) => each.table === table.name);
    const named = owned === undefined ? row
      : Object.fromEntries(Object.entries(owned.by).map(([child, parent]) => [parent, row[child] ?? null]));
    return { kind, name: keyText({ kind: kind.name, values: kind.key.map((column) => String(named[column])) }) };
  }

  /** The present state of an aggregate. */
  state(kind: Kind, name: string): string {
    const rows: Record<string, readonly Row[]> = {};
    for (const table of kind.tables) {
      const declared = present(this.#service.tables.get(table), table);
      rows[table] = [...this.rowsOf(table).values()].filter((row) => this.ownerOf(declared, row)?.name === name);
    }
    return stateOf(this.#service, kind, rows);
  }

  /** Every live aggregate's state, by name. */
  states(): ReadonlyMap<string, string> {
    const grouped = new Map<string, { readonly kind: Kind; readonly rows: Record<string, Row[]> }>();
    for (const [table, rows] of this.#tables) {
      const declared = present(this.#service.tables.get(table), table);
      for (const row of rows.values()) {
        const owner = this.ownerOf(declared, row);
        if (owner === undefined) continue;
        let group = grouped.get(owner.name);
        if (group === undefined) grouped.set(owner.name, (group = { kind: owner.kind, rows: {} }));
        (group.rows[table] ??= []).push(row);
      }
    }
    const states = new Map<string, string>();
    for (const [name, { kind, rows }] of grouped) {
      const state = stateOf(this.#service, kind, rows);
      if (state !== GONE) states.set(name, state);
    }
    return states;
  }
}

/** Everything the centre ever held. */
export class CentreHistory {
  readonly mirror: Mirror;
  readonly #service: Service;
  readonly #states = new Map<string, string[]>();
  readonly #rows = new Map<string, Set<string>>();
  readonly #changedMs = new Map<string, number>();
  readonly #nowMs: () => number;

  constructor(service: Service, nowMs: () => number) {
    this.#service = service;
    this.#nowMs = nowMs;
    this.mirror = new Mirror(service);
    for (const name of service.tables.keys()) this.#rows.set(name, new Set());
  }

  /** Takes note of one commit, or of a rewind: what comes back is a new state. */
  observe(changes: readonly RowChange[]): void {
    const own = changes.filter(({ table }) => this.#service.tables.has(table.name));
    if (own.length === 0) return;
    this.mirror.apply(own);
    const touched = new Map<string, Kind>();
    for (const { table, before, after } of own) {
      if (after !== undefined) this.#rows.get(table.name)?.add(textOf(after, table.sent));
      for (const row of [before, after]) {
        const owner = row === undefined ? undefined : this.mirror.ownerOf(table, row);
        if (owner !== undefined) touched.set(owner.name, owner.kind);
      }
    }
    for (const [name, kind] of touched) {
      const states = this.#states.get(name) ?? [GONE];
      const now = this.mirror.state(kind, name);
      if (states.at(-1) !== now) states.push(now);
      this.#changedMs.set(name, this.#nowMs());
      this.#states.set(name, states);
    }
  }

  /** Live aggregates of a kind that nobody changed for `forMs`, or ever since the run began. */
  quietFor(kind: string, forMs: number): readonly string[] {
    const isQuiet = (name: string): boolean => {
      const changedMs = this.#changedMs.get(name) ?? 0;
      return changedMs === 0 || changedMs < this.#nowMs() - forMs;
    };
    return [...this.mirror.states().keys()].filter((name) => name.startsWith(`${kind}.`) && isQuiet(name));
  }

  /** Place of the first state of an aggregate, at or after place `from`, that equals `state`; undefined when there is none. */
  placeOf(name: string, state: string, from: number): number | undefined {
    const place = (this.#states.get(name) ?? [GONE]).indexOf(state, from);
    return place === -1 ? undefined : place;
  }

  /** Has the centre had this aggregate, and never been without it since it first had it? */
  neverDeleted(name: string): boolean {
    const states = this.#states.get(name) ?? [GONE];
    const made = states.findIndex((state) => state !== GONE);
    return made !== -1 && !states.includes(GONE, made);
  }

  /** Was there ever a row of these values? `fit` is how a site's database can hold a value. */
  hadRow(table: Table, row: Row, fit: (row: Row) => Row): boolean {
    const ever = this.#rows.get(table.name);
    if (ever?.has(textOf(row, table.sent)) === true) return true;
    for (const held of ever ?? []) {
      const values = JSON.parse(held) as Row[string][];
      const whole = Object.fromEntries(table.sent.map((column, place) => [column, values[place] ?? null]));
      if (textOf(fit(whole), table.sent) === textOf(row, table.sent)) return true;
    }
    return false;
  }
}
