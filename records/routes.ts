/**
 * What can be asked, as a table: method, path, scope, answer. Knows nothing of HTTP servers; api.ts brings the calls.
 *
 *   GET  /v1/openapi.json                                  this API for machines (openapi.ts)
 *   GET  /v1/{service}/tables                              tables that are synchronised, and how
 *   GET  /v1/{service}/tables/{table}/records              one page of records, ?limit&after
 *   GET, PUT, DELETE  .../records/{key}/...                one record
 *   GET  /v1/{service}/kinds                               kinds of aggregates
 *   GET  /v1/{service}/aggregates/{kind}                   one page of names, digests, versions, ?limit&after
 *   GET, PUT, DELETE  .../aggregates/{kind}/{key}/...      one aggregate
 *
 * Invariants: the scope is asked for before anything is looked up; a write is logged with who and which aggregate, never with
 * values.
 */
import { keyText } from "../schemas/row.ts";
import type { JsonValue } from "../core/operation.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import { isExcepted } from "../rows/footprint.ts";
import { changeAggregate, changeRecord, type Changed, type Wish } from "./changing.ts";
import { aggregateKey, kindNamed, pageOf, recordKey, segmentsOf, tableNamed, valueOfSegment } from "./naming.ts";
import { OpenapiDocument } from "./openapi.ts";
import { preconditionOf } from "./precondition.ts";
import { describedKinds, describedTables } from "./described.ts";
import { listAggregates, listRecords, readAggregate, readRecord } from "./reading.ts";
import { Refusal, unknown } from "./refusal.ts";
import { mustMay, type Bearer, type Scope } from "./tokens.ts";
import type { ServedService } from "./writing.ts";

/** One call, as far as it is HTTP. */
export interface Call {
  readonly method: string;
  /** Path as it was sent, without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly bearer: Bearer;
}

export interface Answer {
  readonly status: number;
  readonly body: JsonValue;
  readonly etag?: string | undefined;
}

/** A call that was found in the table and that its bearer may make. `body`: what was sent with it, parsed. */
export interface Admitted {
  readonly takesBody: boolean;
  answer(body: unknown): Promise<Answer>;
}

interface Target {
  readonly service: string | undefined;
  readonly what: "document" | "tables" | "kinds" | "records" | "record" | "aggregates" | "aggregate";
  /** Table or kind. */
  readonly name: string;
  readonly key: readonly string[];
}

const READ_ONLY = ["GET"];
const METHODS: Readonly<Record<Target["what"], readonly string[]>> = {
  document: READ_ONLY, tables: READ_ONLY, kinds: READ_ONLY, records: READ_ONLY, aggregates: READ_ONLY,
  record: ["GET", "PUT", "DELETE"], aggregate: ["GET", "PUT", "DELETE"],
};

/** What a path names. @throws E_RECORD_UNKNOWN, E_REQUEST_MALFORMED */
function targetOf(path: string): Target {
  const [edition, service, sort, name, ...rest] = segmentsOf(path);
  if (edition !== "v1" || service === undefined) throw unknown("path");
  if (sort === undefined && service === "openapi.json") return { service: undefined, what: "document", name: "", key: [] };
  if (name === undefined && (sort === "tables" || sort === "kinds")) return { service, what: sort, name: "", key: [] };
  if (name === undefined) throw unknown("path");
  if (sort === "aggregates") {
    return rest.length === 0 ? { service, what: "aggregates", name, key: [] }
      : { service, what: "aggregate", name, key: rest.map(valueOfSegment) };
  }
  if (sort !== "tables" || rest[0] !== "records") throw unknown("path");
  const key = rest.slice(1).map(valueOfSegment);
  return { service, what: key.length === 0 ? "records" : "record", name, key };
}

/** The table of calls over some services. */
export class Routes {
  readonly #services: ReadonlyMap<string, ServedService>;
  readonly #world: World;
  readonly #document: OpenapiDocument;

  constructor(served: readonly ServedService[], world: World) {
    this.#services = new Map(served.map((each) => [each.service.name, each]));
    this.#world = world;
    this.#document = new OpenapiDocument(served, world.clock);
  }

  /** Finds the call, and holds its bearer's scopes against it. @throws E_RECORD_UNKNOWN, E_ACCESS_DENIED, E_REQUEST_MALFORMED */
  admit(call: Call): Admitted {
    const target = targetOf(call.path);
    const method = call.method === "HEAD" ? "GET" : call.method;
    const scope: Scope = method === "GET" ? "read" : "write";
    mustMay(call.bearer, scope, target.service);
    const allowed = METHODS[target.what];
    if (!allowed.includes(method)) {
      throw new Refusal(405, "E_OPERATION_INPUT", `only ${allowed.join(", ")} can be done with this`,
        { allow: allowed.join(", ") });
    }
    if (target.service === undefined) return { takesBody: false, answer: async () => this.#documentFor(call.bearer) };
    const served = this.#services.get(target.service);
    if (served === undefined) throw unknown("service");
    if (method === "GET") return { takesBody: false, answer: () => this.#read(served, target, call) };
    const isRemoval = method === "DELETE";
    return { takesBody: !isRemoval,
      answer: (body) => this.#change(served, target, call, isRemoval ? undefined : body ?? null) };
  }

  async #documentFor(bearer: Bearer): Promise<Answer> {
    const isSeen = (service: string): boolean => bearer.services.length === 0 || bearer.services.includes(service);
    return { status: 200, body: await this.#document.forServices(isSeen) };
  }

  async #read(served: ServedService, { what, name, key }: Target, call: Call): Promise<Answer> {
    const { service } = served;
    const maySeeSecrets = call.bearer.scopes.includes("secrets");
    switch (what) {
      case "tables":
        return { status: 200, body: { tables: describedTables(service, await served.rows.reflect()) } };
      case "kinds":
        return { status: 200, body: { kinds: describedKinds(service) } };
      case "records": {
        const table = tableNamed(service, name);
        return { status: 200, body: await listRecords(served, table, pageOf(table, call.query), maySeeSecrets) };
      }
      case "aggregates": {
        const kind = kindNamed(service, name);
        const root = tableNamed(service, kind.root);
        return { status: 200, body: await listAggregates(served, kind, root, pageOf(root, call.query)) };
      }
      case "record": {
        const table = tableNamed(service, name);
        const kind = service.kindOfTable.get(table.name);
        if (kind === undefined) throw unknown("table");
        const found = await readRecord(served, kind, table, recordKey(table, key), maySeeSecrets);
        return { status: 200, body: found.shown, etag: found.digest };
      }
      case "aggregate": {
        const kind = kindNamed(service, name);
        const named = aggregateKey(service, kind, key);
        if (isExcepted(kind, named)) throw unknown("record");
        const found = await readAggregate(served, named, maySeeSecrets);
        return { status: 200, body: found.shown, etag: found.digest };
      }
      case "document":
        throw unknown("path");
    }
  }

  async #change(served: ServedService, { what, name, key }: Target, call: Call, body: unknown): Promise<Answer> {
    const said = { token: call.bearer.name, service: served.service.name, method: call.method };
    const wish: Wish = { precondition: preconditionOf(call.ifMatch, call.ifNoneMatch), body,
      version: call.query.get("version") ?? undefined, maySeeSecrets: call.bearer.scopes.includes("secrets") };
    try {
      const done: Changed = await (what === "record" ? changeRecord(served, name, key, wish)
        : changeAggregate(served, name, key, wish));
      this.#world.log.info("a record was written through the API",
        { ...said, key: keyText(done.key), version: String(done.body["version"] ?? ""), outcome: done.outcome });
      return { status: done.status, body: done.body, etag: done.etag };
    } catch (error) {
      this.#world.log.warn("a record was not written through the API",
        { ...said, target: `${what} of ${name}`, ...factsOf(error) });
      throw error;
    }
  }
}
