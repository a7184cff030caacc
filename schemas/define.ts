/**
 * The vocabulary of a service file. A service file says which rows of an OpenStack service's database travel, how they
 * group into aggregates, which calls of its API change them, and what stays behind with the reason. It is data: every
 * other room works from it and none knows a service by name.
 *
 * Invariants, checked when a file is loaded: every table belongs to exactly one aggregate kind, or is local or left with
 * a reason; ownership forms trees; every name that is referred to exists; no route is said twice; kinds can be ordered
 * parents first.
 * Not here: reading rows (rows/), matching requests (proxy/route.ts).
 */
import { assert, present } from "../core/assert.ts";
import { checkFiles, type KeyRepository, type SameSetting } from "./settings.ts";

/**
 * Wire type of a column; "?" at the end means it may be NULL. Both engines give the same wire value:
 * text → string as stored; integer → number (|n| < 2^53); bigint and decimal → decimal string; boolean → true/false;
 * datetime → "YYYY-MM-DDTHH:MM:SS.ffffff" (UTC, six digits); date → "YYYY-MM-DD"; bytes → base64.
 */
export type ColumnKind = "text" | "integer" | "bigint" | "decimal" | "boolean" | "datetime" | "date" | "bytes";
export type ColumnType = ColumnKind | `${ColumnKind}?`;

/** A row of another table that a row refers to. `hard`: the database has a foreign key. A soft one is waited for a while. */
export interface Reference {
  readonly columns: readonly string[];
  readonly table: string;
  readonly to: readonly string[];
  readonly hard: boolean;
  /** Values that refer to nothing (markers such as "<<null>>"). */
  readonly markers?: readonly string[];
  /**
   * Only rows whose columns have one of these values refer: a grant's actor is a user or a group as its type says. Ranks
   * count a conditional reference like any other.
   */
  readonly when?: Readonly<Record<string, readonly (string | number | boolean | null)[]>>;
}

export interface TableDeclaration {
  /** Primary key columns. */
  readonly key: readonly string[];
  readonly columns: Readonly<Record<string, ColumnType>>;
  /** Unique keys besides the primary key. */
  readonly unique?: readonly (readonly string[])[];
  readonly references?: readonly Reference[];
  /** Columns each site keeps for itself: never sent, never overwritten, outside digests. With the value of a new row. */
  readonly local?: Readonly<Record<string, string | number | boolean | null>>;
  /** Never logged, masked where a person reads rows. */
  readonly secret?: readonly string[];
  /**
   * Columns that travel and that a site's own service nevertheless moves by itself, one way only: uses left of a trust fall, the
   * time of a renewal rises. A value further that way is no drift, and repairing another column leaves it: a use that was
   * spent is not given back.
   */
  readonly moves?: Readonly<Record<string, "down" | "up">>;
  /** The integer key that the database counts; a site counts its own from SITE_COUNTER_FIRST. */
  readonly counted?: string;
}

/** First value of a counted key for rows that a site makes itself; the centre's stay below. */
export const SITE_COUNTER_FIRST = 2 ** 30;

export interface Table extends Required<Omit<TableDeclaration, "counted">> {
  readonly name: string;
  readonly counted: string | undefined;
  /** Columns that travel: all but the local ones, in declared order. */
  readonly sent: readonly string[];
}

/** A table whose rows belong to the root row whose `by` columns match: { childColumn: parentColumn }. */
export interface Owned {
  readonly table: string;
  /** Defaults to the kind's root table. */
  readonly of?: string;
  readonly by: Readonly<Record<string, string>>;
}

/** Which images of a kind take authority away, so that they must overtake everything else on their way to a site. */
export type Urgency =
  | "always"
  /** Its tombstones, and images whose root row has one of `values` in `column` (or, with `not`, none of them). */
  | { readonly gone: true; readonly when?: { readonly column: string;
      readonly values: readonly (string | number | boolean | null)[]; readonly not?: true } };

export interface KindDeclaration {
  readonly root: string;
  /** Columns of the root table that name the aggregate on the feed; the primary key unless said otherwise. */
  readonly key?: readonly string[];
  readonly owns?: readonly Owned[];
  /** Aggregates that are never synchronised, with the reason. */
  readonly except?: readonly { readonly key: Readonly<Record<string, string>>; readonly because: string }[];
  /**
   * A running service always has some: a table without any row is an accident, never a wish (capture/guard.ts). Only for
   * kinds that a fresh installation has.
   */
  readonly neverEmpty?: boolean;
  /**
   * Tables of the aggregate in which a site's own service makes rows by itself: users who sign in through a provider or a
   * directory. An aggregate with such a row that the centre has never spoken of is no drift and stays.
   */
  readonly siteMade?: readonly string[];
  /** An append log that the service prunes by itself: new rows are found by their rising key column. */
  readonly log?: { readonly rising: string };
  /** Nothing of it is urgent unless said otherwise. */
  readonly urgent?: Urgency;
}

export interface Kind extends Required<Omit<KindDeclaration, "log" | "urgent">> {
  readonly name: string;
  readonly log: { readonly rising: string } | undefined;
  readonly urgent: Urgency | undefined;
  /** Root first, then owned tables, parents before children. */
  readonly tables: readonly string[];
  /** Parents have lower ranks: upserts go by rising rank, tombstones by falling rank. */
  readonly rank: number;
}

/** Where a value of a key comes from. `answer` and `request` are paths into JSON bodies: "$.user.id", "$.limits[*].id". */
export type Source =
  | { readonly from: "path"; readonly name: string; readonly sha256?: boolean }
  | { readonly from: "answer" | "request"; readonly path: string; readonly sha256?: boolean }
  | { readonly from: "form"; readonly name: string }
  | { readonly from: "text"; readonly value: string };

export const path = (name: string): Source => ({ from: "path", name });
export const answer = (jsonPath: string): Source => ({ from: "answer", path: jsonPath });
export const request = (jsonPath: string): Source => ({ from: "request", path: jsonPath });
/** A field of a form-encoded answer. */
export const form = (name: string): Source => ({ from: "form", name });
export const text = (value: string): Source => ({ from: "text", value });
/** The lower-case SHA-256 hex of another source. */
export function sha256(source: Source): Source {
  assert(source.from === "path" || source.from === "answer" || source.from === "request", "only path and body values are hashed");
  return { ...source, sha256: true };
}

/** Which aggregates a call may change. */
export type Touch =
  /** Exactly one aggregate (or one per value when the source gives several). */
  | { readonly touch: "one"; readonly kind: string; readonly key: Readonly<Record<string, Source>> }
  /** Every aggregate with a row whose `column` (of `table`, by default the root) equals the value, before or after the call. */
  | { readonly touch: "every"; readonly kind: string; readonly table: string | undefined;
      readonly where: Readonly<Record<string, Source>> }
  /** New rows of a log. */
  | { readonly touch: "log"; readonly kind: string }
  /** Compare the whole kind with the stream: for cascades that no predicate names. */
  | { readonly touch: "scan"; readonly kind: string; readonly onlyIf?: RowPredicate };

/** True when `table` has a row whose columns equal the values. A source is text and is compared as the column's type. */
export interface RowPredicate {
  readonly table: string;
  readonly where: Readonly<Record<string, Source>>;
}

export const one = (kind: string, key: Readonly<Record<string, Source>>): Touch => ({ touch: "one", kind, key });
export const every = (kind: string, where: Readonly<Record<string, Source>>, table?: string): Touch =>
  ({ touch: "every", kind, table, where });
export const logOf = (kind: string): Touch => ({ touch: "log", kind });
/**
 * Compares the kind. `onlyIf` is asked of the database before the call is forwarded: without such a row nothing is compared.
 * Ignoring it is safe and costs work; so is comparing when the question could not be asked.
 */
export const scan = (kind: string, onlyIf?: RowPredicate): Touch =>
  onlyIf === undefined ? { touch: "scan", kind } : { touch: "scan", kind, onlyIf };

export type Method = "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";

/** A route whose calls may change rows: "DELETE /v3/users/{user_id}". */
export interface Capture {
  readonly on: `${Method} /${string}`;
  readonly touches: readonly Touch[];
  /** Statuses of refusals after which rows may have changed nevertheless. 5xx and unknown outcomes always count. */
  readonly writesOnFailure?: readonly number[];
}

/** A mutating route that is forwarded without capture, with the reason. */
export interface Leave {
  readonly on: `${Method} /${string}`;
  readonly because: string;
}

export interface ServiceDeclaration {
  readonly name: string;
  /** Type in OpenStack's service catalogue. */
  readonly catalogType: string;
  /** Schema revisions this file was verified against, and where the database keeps its own. */
  readonly migrations: { readonly table: string; readonly column: string; readonly verified: readonly string[] };
  readonly tables: Readonly<Record<string, TableDeclaration>>;
  readonly kinds: Readonly<Record<string, KindDeclaration>>;
  /** Tables that each site keeps for itself, and tables that nothing reads; with the reason. */
  readonly local: Readonly<Record<string, string>>;
  readonly captures: readonly Capture[];
  readonly leaves: readonly Leave[];
  /**
   * Routes of captures and leaves that any cloud answers from its own database and that may be asked twice: signing in. What
   * they write besides is each cloud's own.
   */
  readonly anywhere?: readonly Capture["on"][];
  /** How the running service reads a path before it routes it. */
  readonly paths: PathRules;
  /** Keys to delete from the site's memcached after rows changed: cache regions of the service, by name. */
  readonly cacheRegions?: Readonly<Record<string, string>>;
  /** Folders of keys that every cloud must have alike. */
  readonly keyRepositories?: readonly KeyRepository[];
  /** Settings of the service's configuration file that must be alike; none of them is secret. */
  readonly sameSettings?: readonly SameSetting[];
  /** Error body of the service: status, title and message to JSON text. */
  readonly errorShape: "keystone" | "nova" | "neutron" | "glance";
}

/** How a service normalises a path before routing, measured on the running service. */
export interface PathRules {
  /** Prefixes under which the API may be mounted, such as "/identity". */
  readonly mounts: readonly string[];
  /** Slashes at the end are ignored. */
  readonly trailingSlashes: boolean;
  /** Several slashes at the very start count as one. */
  readonly leadingSlashes: boolean;
  /** Several slashes anywhere count as one. */
  readonly innerSlashes: boolean;
  /** "/./" and "/../", written plainly, are resolved before anything is decoded (web servers do, applications seldom). */
  readonly dotSegments?: boolean;
  /** "%2F" is a slash: the path is decoded before it is split. */
  readonly encodedSlashes?: boolean;
}

export interface Service extends Omit<ServiceDeclaration, "tables" | "kinds"> {
  readonly tables: ReadonlyMap<string, Table>;
  /** Parents first. */
  readonly kinds: ReadonlyMap<string, Kind>;
  /** Table name to the kind that owns it. */
  readonly kindOfTable: ReadonlyMap<string, Kind>;
}

/** A table on its own: how Holdfast declares the tables it keeps for itself. */
export function declareTable(name: string, declared: TableDeclaration): Table {
  const columns = Object.keys(declared.columns);
  const local = declared.local ?? {};
  const references = declared.references ?? [];
  const counted = declared.counted === undefined ? [] : [declared.counted];
  const named = [...declared.key, ...(declared.unique ?? []).flat(), ...Object.keys(local), ...(declared.secret ?? []),
    ...Object.keys(declared.moves ?? {}), ...counted,
    ...references.flatMap((reference) => [...reference.columns, ...Object.keys(reference.when ?? {})])];
  for (const column of named) assert(columns.includes(column), `${name}.${column} is not a declared column`);
  assert(declared.key.length > 0, `table ${name} has no key`);
  for (const [column, value] of Object.entries(local)) {
    assert(!declared.key.includes(column), `${name}.${column} is part of the key and cannot be local`);
    assert(value !== null || declared.columns[column]?.endsWith("?"),
      `${name}.${column} may not be NULL: a new row needs a value`);
  }
  for (const column of Object.keys(declared.moves ?? {})) {
    assert(/^(?:integer|datetime)/.test(declared.columns[column] ?? ""), `${name}.${column} moves and has no order known here`);
  }
  for (const column of counted) assert(declared.columns[column] === "integer", `${name}.${column} is counted and not an integer`);
  for (const { columns: from, to, table } of references) {
    assert(from.length > 0 && from.length === to.length,
      `${name} refers to ${table} with ${from.length} columns for ${to.length}`);
  }
  return { name, key: declared.key, columns: declared.columns, unique: declared.unique ?? [],
    references: declared.references ?? [], local, secret: declared.secret ?? [], moves: declared.moves ?? {},
    counted: declared.counted, sent: columns.filter((column) => !(column in local)) };
}

/** Root first, then owned tables in an order in which each follows the table it belongs to. */
function tablesOfKind(name: string, declared: KindDeclaration): readonly string[] {
  const ordered = [declared.root];
  let waiting = [...(declared.owns ?? [])];
  while (waiting.length > 0) {
    const ready = waiting.filter((owned) => ordered.includes(owned.of ?? declared.root));
    assert(ready.length > 0, `kind ${name}: ${waiting.map((owned) => owned.table).join(", ")} belong to no owned table`);
    ordered.push(...ready.map((owned) => owned.table));
    waiting = waiting.filter((owned) => !ready.includes(owned));
  }
  return ordered;
}

/** Kind names, parents first; a kind may refer to itself. */
function rankedKinds(parentsOf: ReadonlyMap<string, ReadonlySet<string>>): readonly string[] {
  const ranked: string[] = [];
  let waiting = [...parentsOf.keys()];
  while (waiting.length > 0) {
    const ready = waiting.filter((kind) =>
      [...present(parentsOf.get(kind), kind)].every((parent) => parent === kind || ranked.includes(parent)));
    assert(ready.length > 0, `kinds refer to each other in a circle: ${waiting.join(", ")}`);
    ranked.push(...ready);
    waiting = waiting.filter((kind) => !ready.includes(kind));
  }
  return ranked;
}

/** Ownership, keys, exceptions and logs name columns that exist. */
function checkKinds(declaration: ServiceDeclaration): void {
  const has = (table: string, column: string, who: string): void =>
    assert(column in present(declaration.tables[table], `${who}: table ${table} is not declared`).columns,
      `${who}: ${table} has no column ${column}`);
  for (const [name, kind] of Object.entries(declaration.kinds)) {
    const who = `kind ${name}`;
    const key = kind.key ?? present(declaration.tables[kind.root], `${who}: table ${kind.root} is not declared`).key;
    for (const column of key) has(kind.root, column, who);
    for (const owned of kind.owns ?? []) {
      for (const [child, parent] of Object.entries(owned.by)) {
        has(owned.table, child, who);
        has(owned.of ?? kind.root, parent, who);
      }
    }
    for (const except of kind.except ?? []) {
      for (const column of Object.keys(except.key)) assert(key.includes(column), `${who} is not named by ${column}`);
    }
    if (kind.log !== undefined) has(kind.root, kind.log.rising, who);
    if (typeof kind.urgent === "object" && kind.urgent.when !== undefined) has(kind.root, kind.urgent.when.column, who);
  }
  for (const [name, table] of Object.entries(declaration.tables)) {
    for (const reference of table.references ?? []) {
      for (const column of reference.to) has(reference.table, column, `reference of ${name}`);
    }
  }
}

const ROUTE = /^(?:GET|HEAD|POST|PUT|PATCH|DELETE) (?:\/(?:[^/{}\s]+|\{\w+\}))+$/;

/** Every route is written well and said once. */
function checkRoutes(declaration: ServiceDeclaration): void {
  const said = new Set<string>();
  for (const { on } of [...declaration.captures, ...declaration.leaves]) {
    assert(ROUTE.test(on), `${on} is not a route`);
    assert(!said.has(on), `${on} is said twice`);
    said.add(on);
  }
  for (const on of declaration.anywhere ?? []) assert(said.has(on), `${on} is answered anywhere and is no route of the file`);
}

function checkTouch(declaration: ServiceDeclaration, on: string, touch: Touch): void {
  const kind = present(declaration.kinds[touch.kind], `${on}: no kind ${touch.kind}`);
  const readable = (sources: Readonly<Record<string, Source>>, tableName: string): void => {
    const table = present(declaration.tables[tableName], `${on}: no table ${tableName}`);
    for (const [column, source] of Object.entries(sources)) {
      assert(column in table.columns, `${on}: ${tableName} has no column ${column}`);
      assert(source.from !== "path" || on.includes(`{${source.name}}`), `${on}: a source names no part of the path`);
    }
  };
  switch (touch.touch) {
    case "one": {
      const key = kind.key ?? present(declaration.tables[kind.root], kind.root).key;
      assert(key.every((column) => column in touch.key), `${on}: ${touch.kind} is named by ${key.join(", ")}`);
      return readable(touch.key, kind.root);
    }
    case "every": {
      const table = touch.table ?? kind.root;
      assert(tablesOfKind(touch.kind, kind).includes(table), `${on}: table ${table} does not belong to ${touch.kind}`);
      return readable(touch.where, table);
    }
    case "log":
      return assert(kind.log !== undefined, `${on}: ${touch.kind} is not a log`);
    case "scan":
      if (touch.onlyIf !== undefined) readable(touch.onlyIf.where, touch.onlyIf.table);
  }
}

/** Checks a service file and gives it the derived parts. Throws AssertionError naming the first mistake: it is a bug. */
export function defineService(declaration: ServiceDeclaration): Service {
  const tables = new Map(Object.entries(declaration.tables).map(([name, table]) => [name, declareTable(name, table)]));
  const ownerOf = new Map<string, string>();
  const tablesByKind = new Map<string, readonly string[]>();
  for (const [name, kind] of Object.entries(declaration.kinds)) {
    const owned = tablesOfKind(name, kind);
    tablesByKind.set(name, owned);
    for (const table of owned) {
      assert(tables.has(table), `kind ${name}: table ${table} is not declared`);
      assert(!ownerOf.has(table), `table ${table} belongs to ${ownerOf.get(table)} and ${name}`);
      ownerOf.set(table, name);
    }
    for (const table of kind.siteMade ?? []) assert(owned.includes(table), `kind ${name} does not have table ${table}`);
  }
  for (const name of tables.keys()) assert(ownerOf.has(name), `table ${name} belongs to no kind`);
  for (const name of Object.keys(declaration.local)) assert(!tables.has(name), `table ${name} is both synchronised and local`);
  const parentsOf = new Map<string, Set<string>>();
  for (const [name, owned] of tablesByKind) {
    const parents = owned.flatMap((table) => present(tables.get(table), table).references)
      .map((reference) => present(ownerOf.get(reference.table), `${name} refers to undeclared table ${reference.table}`));
    parentsOf.set(name, new Set(parents));
  }
  checkKinds(declaration);
  checkRoutes(declaration);
  checkFiles(declaration);
  for (const { on, touches } of declaration.captures) for (const touch of touches) checkTouch(declaration, on, touch);
  const kinds = new Map<string, Kind>();
  for (const [rank, name] of rankedKinds(parentsOf).entries()) {
    const kind = present(declaration.kinds[name], name);
    const root = present(tables.get(kind.root), kind.root);
    kinds.set(name, { name, root: kind.root, key: kind.key ?? root.key, owns: kind.owns ?? [], except: kind.except ?? [],
      neverEmpty: kind.neverEmpty ?? false, siteMade: kind.siteMade ?? [], log: kind.log, urgent: kind.urgent,
      tables: present(tablesByKind.get(name), name), rank });
  }
  const kindOfTable = new Map([...ownerOf].map(([table, name]) => [table, present(kinds.get(name), name)]));
  return { ...declaration, tables, kinds, kindOfTable };
}
