/**
 * Goal: the document says what the API does: every table and kind, every path answered, nothing that does not exist. Method: the
 * document of real service files, checked for its own consistency and against the table of routes.
 */
import assert from "node:assert/strict";
import { OperatingError } from "../../core/errors.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { OpenapiDocument, REFLECT_EVERY_MS } from "../../records/openapi.ts";
import { Routes } from "../../records/routes.ts";
import type { RecordWriting, ServedService } from "../../records/writing.ts";
import { memoryRows } from "../../rows/memory.ts";
import { SERVICES } from "../../schemas/catalog.ts";
import type { Service } from "../../schemas/define.ts";
import { toy } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

type Schema = Readonly<Record<string, unknown>>;
interface Described {
  readonly openapi: string;
  readonly tags: readonly Schema[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Schema>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

const METHODS = ["get", "put", "delete"];
const writing: RecordWriting = { versioned: false, placedOf: () => Promise.resolve(new Map()),
  write: () => Promise.resolve({ outcome: "unpublished" }) };
const served = (service: Service): ServedService =>
  ({ service, rows: memoryRows([...service.tables.values()]), writing });
const ALL = [...SERVICES.values(), toy].map(served);

async function documentOf(services: readonly ServedService[]): Promise<Described> {
  const made = await new OpenapiDocument(services, new VirtualClock()).forServices(() => true);
  return JSON.parse(JSON.stringify(made)) as Described;
}

/** Every value under `name` anywhere in the document. */
function valuesOf(found: unknown, name: string): readonly unknown[] {
  if (typeof found !== "object" || found === null) return [];
  return Object.entries(found).flatMap(([key, value]) => [...(key === name ? [value as unknown] : []), ...valuesOf(value, name)]);
}

describe("the OpenAPI document", () => {
  it("is consistent: every reference leads somewhere, every operation has one name, every parameter of a path is declared",
    async () => {
    const document = await documentOf(ALL);
    assert.equal(document.openapi, "3.1.0");
    for (const ref of valuesOf(document, "$ref")) {
      const name = /^#\/components\/schemas\/([^/]+)$/.exec(String(ref))?.[1];
      assert.ok(name !== undefined && name in document.components.schemas, String(ref));
    }
    const ids = valuesOf(document, "operationId");
    assert.equal(new Set(ids).size, ids.length);
    for (const [path, item] of Object.entries(document.paths)) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      const declared = (item["parameters"] as unknown as readonly Schema[] | undefined ?? []).map(({ name }) => name);
      assert.deepEqual(declared, named, path);
      for (const method of METHODS.filter((each) => each in item)) {
        const responses = item[method]?.["responses"] as Readonly<Record<string, Schema>>;
        assert.ok("default" in responses && Object.keys(responses).some((status) => status.startsWith("2")), `${method} ${path}`);
      }
    }
  });

  it("has every table and every kind, with the columns that travel", async () => {
    const document = await documentOf(ALL);
    for (const { service } of ALL) {
      for (const table of service.tables.values()) {
        const schema = document.components.schemas[`${service.name}.rows.${table.name}`];
        assert.deepEqual(Object.keys(schema?.["properties"] as object), table.sent, table.name);
        assert.ok(`/v1/${service.name}/tables/${table.name}/records` in document.paths);
      }
      for (const kind of service.kinds.values()) {
        const path = `/v1/${service.name}/aggregates/${kind.name}${kind.key.map((column) => `/{${column}}`).join("")}`;
        assert.deepEqual(Object.keys(document.paths[path] ?? {}).sort(), ["delete", "get", "parameters", "put"], path);
      }
    }
  });

  it("names only calls that are answered, and all that are", async () => {
    const document = await documentOf(ALL);
    const world = { clock: new VirtualClock(), random: systemRandom, log: silentLog, metrics: noMetrics };
    const routes = new Routes(ALL, world);
    const bearer = { name: "t", scopes: ["read", "write"] as const, services: [] };
    for (const [template, item] of Object.entries(document.paths)) {
      const path = template.replace(/\{\w+\}/g, "x");
      for (const method of METHODS) {
        const call = { method: method.toUpperCase(), path, query: new URLSearchParams(), ifMatch: undefined,
          ifNoneMatch: undefined, bearer };
        const admitted = ((): boolean => {
          try {
            routes.admit(call);
            return true;
          } catch {
            return false;
          }
        })();
        assert.equal(admitted, method in item, `${method} ${path}`);
      }
    }
  });

  it("shows what the database says of itself, and does without it when it is away", async () => {
    const service = served(toy);
    let isAway = false;
    let asked = 0;
    const rows = new Proxy(service.rows, { get: (target, name) => name !== "reflect" ? Reflect.get(target, name,
      target) as unknown
      : () => {
        asked += 1;
        return isAway ? Promise.reject(new OperatingError("E_ROWS_UNAVAILABLE", "away")) : target.reflect();
      } });
    const clock = new VirtualClock();
    const document = new OpenapiDocument([{ ...service, rows }], clock);
    const read = async (): Promise<Schema | undefined> => {
      const made = await document.forServices(() => true);
      return (JSON.parse(JSON.stringify(made)) as Described).tags[0];
    };
    assert.deepEqual([(await read())?.["x-live"], (await read())?.["x-mismatches"], asked], [true, [], 1]);
    isAway = true;
    await clock.pass(REFLECT_EVERY_MS);
    assert.deepEqual([(await read())?.["x-live"], asked], [false, 2]);
  });

  it("shows only the services that its reader may use", async () => {
    const document = await new OpenapiDocument(ALL, new VirtualClock()).forServices((name) => name === toy.name);
    const paths = Object.keys((document as unknown as Described).paths);
    assert.ok(paths.length > 10 && paths.every((path) => path === "/v1/openapi.json" || path.startsWith("/v1/toy/")));
  });
});
