/**
 * The Keystone service file against what was recorded from a running Keystone Zed: the schema of its database on both engines
 * (keystone-tables.*.json) and the URL map of its application (keystone-routes.json). The URL map is dumped again from the
 * installed python3-keystone where there is one. Tables are recorded as { columns: { name: type, "?" if NULL is allowed }, key,
 * unique, references } from pg_constraint and information_schema.
 * Not here: what calls write in a live database (the footprint test).
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { ColumnKind } from "../../../schemas/define.ts";
import { describeService } from "../../../schemas/describe.ts";
import { keystone } from "../../../schemas/keystone.ts";

interface RecordedTable {
  readonly columns: Readonly<Record<string, string>>;
  readonly key: readonly string[];
  readonly unique: readonly (readonly string[])[];
  readonly references: readonly { readonly columns: readonly string[]; readonly table: string; readonly to: readonly string[] }[];
}

interface RecordedRoute {
  readonly path: string;
  readonly methods: readonly string[];
}

const here = (name: string): URL => new URL(name, import.meta.url);
const recorded = <T>(name: string): T => JSON.parse(readFileSync(here(name), "utf8")) as T;
const ROUTES = recorded<readonly RecordedRoute[]>("keystone-routes.json");
const PAGE = new URL("../../../docs/reference/keystone.md", import.meta.url);

/** Types of the engines' own columns that carry each wire kind. */
const CARRIERS: Readonly<Record<string, Readonly<Partial<Record<ColumnKind, RegExp>>>>> = {
  postgres: { text: /^(text|character varying\(\d+\)|type|entity_type)$/, integer: /^integer$/, bigint: /^bigint$/,
    boolean: /^boolean$/, datetime: /^timestamp without time zone$/, date: /^date$/ },
  mariadb: { text: /^(text|varchar\(\d+\)|enum\(.*\))$/, integer: /^int\(11\)$/, bigint: /^bigint\(20\)$/,
    boolean: /^tinyint\(1\)$/, datetime: /^datetime$/, date: /^date$/ },
};

const sorted = (values: readonly unknown[]): readonly string[] => values.map((value) => JSON.stringify(value)).sort();

for (const engine of ["postgres", "mariadb"] as const) {
  describe(`Keystone's tables on ${engine}`, () => {
    const tables = recorded<Readonly<Record<string, RecordedTable>>>(`keystone-tables.${engine}.json`);

    it("are each synchronised or local with a reason, and nothing else is", () => {
      assert.deepEqual([...keystone.tables.keys(), ...Object.keys(keystone.local)].sort(), Object.keys(tables).sort());
      assert.equal(Object.keys(tables).length, 48);
    });

    for (const declared of keystone.tables.values()) {
      it(`${declared.name} is declared as it is`, () => {
        const live = tables[declared.name];
        assert.ok(live !== undefined);
        assert.deepEqual(Object.keys(declared.columns), Object.keys(live.columns));
        for (const [column, type] of Object.entries(declared.columns)) {
          const kind = type.replace("?", "") as ColumnKind;
          const held: string = live.columns[column] ?? "";
          assert.match(held.replace(/\?$/, ""), CARRIERS[engine]?.[kind] ?? /^$/, `${column} is ${held}`);
          assert.equal(type.endsWith("?"), held.endsWith("?"), `${column} may be NULL or not`);
        }
        assert.deepEqual(declared.key, live.key);
        const unique = live.unique.filter((columns) => JSON.stringify(columns) !== JSON.stringify(live.key));
        assert.deepEqual(sorted(declared.unique), sorted(unique));
        const hard = declared.references.filter((reference) => reference.hard);
        assert.deepEqual(sorted(hard.map(({ columns, table, to }) => ({ columns, table, to }))),
          sorted(live.references.map(({ columns, table, to }) => ({ columns, table, to }))));
      });
    }
  });
}

describe("Keystone's calls", () => {
  const declared = [...keystone.captures, ...keystone.leaves].map((call): string => call.on);
  const real = ROUTES.flatMap((route) => route.methods.map((method) => `${method} ${route.path}`));

  it("name every mutating route of the URL map", () => {
    assert.equal(ROUTES.filter((route) => route.methods.some((method) => method !== "GET")).length, 78);
    assert.deepEqual(real.filter((on) => !on.startsWith("GET ") && !declared.includes(on)), []);
  });

  it("name no route that does not exist", () => {
    const heads = real.filter((on) => on.startsWith("GET ")).map((on) => on.replace("GET", "HEAD"));
    assert.deepEqual(declared.filter((on) => !real.includes(on) && !heads.includes(on)), []);
  });

  it("come as GET and HEAD alike where reading writes", () => {
    const reading = (method: string): readonly string[] =>
      declared.filter((on) => on.startsWith(`${method} `)).map((on) => on.slice(method.length)).sort();
    assert.deepEqual(reading("GET"), reading("HEAD"));
  });

  it("are those of the installed Keystone", function () {
    const missing = existsSync("/usr/lib/python3/dist-packages/keystone") ? undefined : "python3-keystone is not installed";
    if (missing !== undefined) {
      assert.ok(process.env["CI"] !== "true", missing);
      console.warn(`      skipped: ${missing}`);
      this.skip();
    }
    assert.deepEqual(installedRoutes(), ROUTES);
  });
});

const DUMP = `
import json, re, warnings
warnings.simplefilter("ignore")
import keystone.conf
keystone.conf.configure()
from keystone.server.flask.application import application_factory
rules = application_factory("public").url_map.iter_rules()
print(json.dumps(sorted(([re.sub(r"<(?:\\w+:)?(\\w+)>", r"{\\1}", rule.rule), sorted(rule.methods - {"HEAD", "OPTIONS"})]
                         for rule in rules))))
`;

/** The URL map of the installed Keystone, sorted by path. Takes about three seconds. */
function installedRoutes(): readonly RecordedRoute[] {
  const written = execFileSync("/usr/bin/python3", ["-c", DUMP],
    { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], timeout: 60_000 });
  return (JSON.parse(written) as readonly [string, string[]][]).map(([path, methods]) => ({ path, methods }));
}

describe("Keystone's caches", () => {
  it("keep the id of each region under the SHA-1 of its marked name", () => {
    for (const [name, key] of Object.entries(keystone.cacheRegions ?? {})) {
      assert.equal(createHash("sha1").update(`<<<region>>>:${name}`).digest("hex"), key, name);
    }
  });
});

describe("docs/reference/keystone.md", () => {
  it("says what the service file says (HOLDFAST_REWRITE_DOCS=1 writes it)", () => {
    const page = describeService(keystone);
    if (process.env["HOLDFAST_REWRITE_DOCS"] === "1") writeFileSync(PAGE, page);
    assert.equal(readFileSync(PAGE, "utf8"), page);
  });
});
