/**
 * The OpenAPI 3.1 document: made from the service files and from what the live database says about itself, so that it cannot
 * fall behind either. One path and one schema for every table and every kind. Without the database the document is made from
 * the files alone and says so (x-live: false).
 *
 * Bound: the database is asked at most once in REFLECT_EVERY_MS.
 */
import { isOperating } from "../core/errors.ts";
import type { Clock } from "../core/clock.ts";
import type { Input, JsonValue } from "../core/operation.ts";
import type { LiveTable } from "../rows/rows.ts";
import { schemaMismatches } from "../rows/verify.ts";
import { isNullable, kindOf } from "../rows/wire.ts";
import type { ColumnKind, ColumnType, Kind, Service, Table } from "../schemas/define.ts";
import { describedTable } from "./described.ts";
import { PAGE_BY_DEFAULT, PAGE_MAX } from "./naming.ts";
import { EXPECTED } from "./values.ts";
import type { ServedService } from "./writing.ts";

/** How long what the database said about its tables is believed. */
export const REFLECT_EVERY_MS = 60_000;

const TYPES: Readonly<Record<ColumnKind, Readonly<Record<string, JsonValue>>>> = {
  text: { type: "string" }, integer: { type: "integer", format: "int64" }, bigint: { type: "string", pattern: "^-?[0-9]{1,19}$" },
  decimal: { type: "string", pattern: "^-?[0-9]+(\\.[0-9]+)?$" }, boolean: { type: "boolean" },
  datetime: { type: "string", pattern: "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}$" },
  date: { type: "string", format: "date" }, bytes: { type: "string", contentEncoding: "base64" },
};

function columnSchema(type: ColumnType): Input {
  const kind = kindOf(type);
  const schema = TYPES[kind];
  return { ...schema, ...(isNullable(type) ? { type: [schema["type"] ?? "string", "null"] } : {}), description: EXPECTED[kind] };
}

const ref = (name: string): Input => ({ $ref: `#/components/schemas/${name}` });
const json = (schema: Input): Input => ({ "application/json": { schema } });
const listOf = (items: Input): Input => ({ type: "array", items });
const TEXT: Input = { type: "string" };
const TEXT_OR_NULL: Input = { type: ["string", "null"] };

function objectOf(properties: Readonly<Record<string, JsonValue>>, required: readonly string[] = Object.keys(properties)): Input {
  return { type: "object", properties, required };
}

/** The columns of a row that travel; secret ones are there only for the scope that may see them. */
function rowSchema(service: Service, table: Table, live: LiveTable | undefined): Input {
  const properties = Object.fromEntries(table.sent.map((name) => [name, columnSchema(table.columns[name] ?? "text")]));
  return { ...objectOf(properties, table.sent.filter((name) => !table.secret.includes(name))), additionalProperties: false,
    "x-table": describedTable(service, table, live) };
}

function recordSchema(service: Service, table: Table): Input {
  const local = Object.fromEntries(Object.keys(table.local).map((name) => [name, columnSchema(table.columns[name] ?? "text")]));
  return objectOf({ key: listOf({}), row: ref(`${service.name}.rows.${table.name}`), local: objectOf(local, []),
    hidden: listOf(TEXT), digest: TEXT });
}

function aggregateSchema(service: Service, kind: Kind): Input {
  const rows = Object.fromEntries(kind.tables.map((name) => [name, listOf(ref(`${service.name}.rows.${name}`))]));
  return { ...objectOf(rows), additionalProperties: false };
}

const PLACED = { version: { ...TEXT_OR_NULL, description: "epoch.sequence under which it was published last; null: not known" },
  published: { ...TEXT_OR_NULL, description: "digest of the image that was published under that version" } };

const SHARED: Readonly<Record<string, Input>> = {
  error: objectOf({ error: objectOf({ code: TEXT, message: TEXT, facts: { type: "object" } }, ["code", "message"]) }),
  outcome: objectOf({ outcome: { enum: ["written", "unpublished", "parked", "quarantined"] }, because: TEXT, kind: TEXT,
    key: listOf(TEXT), name: TEXT, ...PLACED }, ["outcome", "kind", "key", "name", "version", "published"]),
  aggregates: objectOf({ aggregates: listOf(objectOf({ key: listOf(TEXT), name: TEXT, digest: TEXT, ...PLACED })), digest: TEXT,
    next: TEXT_OR_NULL }),
};

const REFUSED: Input = { description: "Not done; the code says why.", content: json(ref("error")) };

function answers(...good: readonly (readonly [status: number, description: string, schema: Input])[]): Input {
  return { ...Object.fromEntries(good.map(([status, description, schema]) =>
    [String(status), { description, content: json(schema) }])), default: REFUSED };
}

const PAGING: readonly Input[] = [
  { name: "limit", in: "query", schema: { type: "integer", minimum: 1, maximum: PAGE_MAX, default: PAGE_BY_DEFAULT } },
  { name: "after", in: "query", schema: TEXT, description: "next of the page before" },
];
const STATE: Input = { name: "If-Match", in: "header", schema: TEXT,
  description: "ETag or version that was read; needed at the centre to change what is there" };
const ABSENCE: Input = { name: "If-None-Match", in: "header", schema: { const: "*" }, description: "only if it is not there" };
const VERSION: Input = { name: "version", in: "query", schema: TEXT,
  description: "at sites: epoch.sequence that the tombstone has in the stream" };

function parametersOf(columns: readonly string[]): readonly Input[] {
  return columns.map((name) => ({ name, in: "path", required: true, schema: TEXT,
    description: "the value as text; or = and base64url of its UTF-8 bytes" }));
}

function bodyOf(field: string, schema: Input): Input {
  const version = { ...TEXT, description: "at sites: epoch.sequence that the image has in the stream" };
  return { required: true, content: json({ ...objectOf({ [field]: schema, version }, [field]), additionalProperties: false }) };
}

/** The three things that can be done with one record or one aggregate. */
function singlePath(of: { readonly tag: string; readonly what: string; readonly id: string; readonly key: readonly string[];
  readonly shown: Input; readonly field: string; readonly written: Input }): Input {
  const described = { tags: [of.tag] };
  return {
    parameters: parametersOf(of.key),
    get: { ...described, operationId: `read.${of.id}`, summary: `One ${of.what}.`,
      responses: answers([200, "It, with ETag.", of.shown]) },
    put: { ...described, operationId: `set.${of.id}`, summary: `Sets one ${of.what}.`, parameters: [STATE, ABSENCE],
      requestBody: bodyOf(of.field, of.written), responses: answers([200, "Changed.", ref("outcome")],
        [201, "Made.", ref("outcome")],
        [202, "Kept; published or applied later.", ref("outcome")], [422, "Quarantined.", ref("outcome")]) },
    delete: { ...described, operationId: `remove.${of.id}`, summary: `Removes one ${of.what}.`, parameters: [STATE, VERSION],
      responses: answers([200, "Removed.", ref("outcome")], [202, "Kept; published or applied later.", ref("outcome")]) },
  };
}

function listPath(tag: string, summary: string, id: string, schema: Input): Input {
  return { get: { tags: [tag], summary, operationId: `list.${id}`, parameters: PAGING,
    responses: answers([200, "One page.", schema]) } };
}

function plainPath(tag: string, summary: string, id: string, field: string): Input {
  return { get: { tags: [tag], summary, operationId: id,
    responses: answers([200, "All of them.", objectOf({ [field]: listOf({ type: "object" }) })]) } };
}

const braces = (columns: readonly string[]): string => columns.map((name) => `/{${name}}`).join("");

function pathsOf(service: Service): Readonly<Record<string, Input>> {
  const { name: tag } = service;
  const paths: Record<string, Input> = {
    [`/v1/${tag}/tables`]: plainPath(tag, "Tables that are synchronised.", `${tag}.tables`, "tables"),
    [`/v1/${tag}/kinds`]: plainPath(tag, "Kinds of aggregates, parents first.", `${tag}.kinds`, "kinds"),
  };
  for (const table of service.tables.values()) {
    const [path, id] = [`/v1/${tag}/tables/${table.name}/records`, `${tag}.record.${table.name}`];
    const record = ref(`${tag}.records.${table.name}`);
    paths[path] = listPath(tag, `Records of ${table.name}, by primary key.`, id,
      objectOf({ records: listOf(record), digest: TEXT, next: TEXT_OR_NULL }));
    paths[path + braces(table.key)] = singlePath({ tag, what: `record of ${table.name}`, id, key: table.key, field: "row",
      shown: { allOf: [record, objectOf({ aggregate: { type: ["object", "null"] } })] },
      written: ref(`${tag}.rows.${table.name}`) });
  }
  for (const kind of service.kinds.values()) {
    const [path, id] = [`/v1/${tag}/aggregates/${kind.name}`, `${tag}.aggregate.${kind.name}`];
    const image = ref(`${tag}.images.${kind.name}`);
    paths[path] = listPath(tag, `Aggregates of kind ${kind.name}.`, id, ref("aggregates"));
    paths[path + braces(kind.key)] = singlePath({ tag, what: `${kind.name}, whole`, id, key: kind.key, field: "rows",
      written: image,
      shown: objectOf({ kind: TEXT, key: listOf(TEXT), name: TEXT, rows: image, hidden: listOf(TEXT), digest: TEXT,
        ...PLACED }) });
  }
  return paths;
}

function schemasOf(service: Service, live: readonly LiveTable[]): Readonly<Record<string, Input>> {
  const found = new Map(live.map((table) => [table.name, table]));
  const tables = [...service.tables.values()];
  return Object.fromEntries([
    ...tables.map((table) => [`${service.name}.rows.${table.name}`, rowSchema(service, table, found.get(table.name))] as const),
    ...tables.map((table) => [`${service.name}.records.${table.name}`, recordSchema(service, table)] as const),
    ...[...service.kinds.values()].map((kind) => [`${service.name}.images.${kind.name}`,
      aggregateSchema(service, kind)] as const),
  ]);
}

interface Reflected {
  readonly atMs: number;
  readonly live: readonly LiveTable[] | undefined;
}

/** The document over some services. */
export class OpenapiDocument {
  readonly #served: readonly ServedService[];
  readonly #clock: Clock;
  readonly #reflected = new Map<string, Reflected>();

  constructor(served: readonly ServedService[], clock: Clock) {
    this.#served = served;
    this.#clock = clock;
  }

  /** The document with the services for which `isSeen` says so. */
  async forServices(isSeen: (service: string) => boolean): Promise<Input> {
    const paths: Record<string, Input> = { "/v1/openapi.json": plainPath("api", "This document.", "api.document", "paths") };
    const schemas: Record<string, Input> = { ...SHARED };
    const tags: Input[] = [];
    for (const each of this.#served.filter(({ service }) => isSeen(service.name))) {
      const live = await this.#live(each);
      Object.assign(paths, pathsOf(each.service));
      Object.assign(schemas, schemasOf(each.service, live ?? []));
      const mismatches = live === undefined ? [] : schemaMismatches(each.service, live);
      tags.push({ name: each.service.name, description: `Records of ${each.service.catalogType}.`, "x-live": live !== undefined,
        "x-versioned": each.writing.versioned, "x-schema-revisions": each.service.migrations.verified,
        "x-mismatches": mismatches.map(({ table, expected, found }) => ({ table, expected, found })) });
    }
    return { openapi: "3.1.0", info: { title: "Holdfast database sync API", version: "1" }, tags, paths,
      security: [{ token: [] }],
      components: { schemas, securitySchemes: { token: { type: "http", scheme: "bearer" } } } };
  }

  async #live({ service, rows }: ServedService): Promise<readonly LiveTable[] | undefined> {
    const nowMs = this.#clock.monotonicMs();
    const before = this.#reflected.get(service.name);
    if (before !== undefined && nowMs - before.atMs < REFLECT_EVERY_MS) return before.live;
    const live = await rows.reflect().catch((error: unknown) => {
      if (isOperating(error)) return undefined;
      throw error;
    });
    this.#reflected.set(service.name, { atMs: nowMs, live });
    return live;
  }
}
