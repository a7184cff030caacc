/**
 * From a declared capture and the facts of one call to what must be looked at: exact aggregates, predicates to ask the
 * database, logs, and kinds to compare whole. Pure. A value that a body should have given but did not (a failed or unknown
 * call, a body too long to keep) turns into a comparison of that kind's keys with the stream, never into a guess.
 */
import { createHash } from "node:crypto";
import { present } from "../core/assert.ts";
import type { Capture, Service, Source, Touch } from "../schemas/define.ts";
import type { AggregateKey } from "../schemas/row.ts";

/** What is known of a call. Bodies are undefined when they were not kept (too long) or not received. */
export interface CallFacts {
  readonly parameters: Readonly<Record<string, string>>;
  readonly request: Uint8Array | undefined;
  readonly answer: Uint8Array | undefined;
}

/** Aggregates of `kind` with a row in `table` whose columns take one of the values. */
export interface Scope {
  readonly kind: string;
  readonly table: string | undefined;
  readonly where: Readonly<Record<string, readonly string[]>>;
}

/** "keys": compare which aggregates exist. "images": compare what they hold as well. */
export type ScanDepth = "keys" | "images";

export interface Touched {
  readonly keys: readonly AggregateKey[];
  readonly scopes: readonly Scope[];
  readonly logs: readonly string[];
  readonly scans: ReadonlyMap<string, ScanDepth>;
  /** Kinds whose scan is needless unless such a row was there before the call. */
  readonly conditions: readonly { readonly kind: string; readonly table: string; readonly where: Readonly<Record<string,
    readonly string[]>> }[];
}

/** Follows "$.a.b[*].c" into parsed JSON; every scalar it reaches, as text. */
export function valuesAt(document: unknown, jsonPath: string): readonly string[] {
  let reached: readonly unknown[] = [document];
  for (const step of jsonPath.replace(/^\$\.?/, "").split(".").filter((part) => part !== "")) {
    const name = step.replace(/\[\*\]$/, "");
    reached = reached.flatMap((value) => {
      if (typeof value !== "object" || value === null) return [];
      const next = (value as Record<string, unknown>)[name];
      return step.endsWith("[*]") ? (Array.isArray(next) ? (next as readonly unknown[]) : []) : [next];
    });
  }
  return reached.filter((value) => typeof value === "string" || typeof value === "number").map(String);
}

/** Parses each body at most once. */
class Bodies {
  readonly #facts: CallFacts;
  readonly #parsed = new Map<string, unknown>();

  constructor(facts: CallFacts) {
    this.#facts = facts;
  }

  text(which: "request" | "answer"): string | undefined {
    const bytes = this.#facts[which];
    return bytes === undefined ? undefined : Buffer.from(bytes).toString("utf8");
  }

  /** The source is in a body that was not kept, not received, or is not what it should be: nobody knows what it said. */
  isUnknown(source: Source): boolean {
    if (source.from !== "request" && source.from !== "answer") return false;
    return this.json(source.from) === undefined;
  }

  /** The client's own words were read and do not name the thing: an optional part of a request that was left out. */
  saysNothingOf(source: Source): boolean {
    return source.from === "request" && this.json("request") !== undefined &&
      valuesAt(this.json("request"), source.path).length === 0;
  }

  /** The parsed body; undefined when there is none or it is not JSON. */
  json(which: "request" | "answer"): unknown {
    if (!this.#parsed.has(which)) {
      let value: unknown;
      try {
        value = JSON.parse(this.text(which) ?? "");
      } catch {
        value = undefined;
      }
      this.#parsed.set(which, value);
    }
    return this.#parsed.get(which);
  }
}

function valuesOf(source: Source, facts: CallFacts, bodies: Bodies): readonly string[] {
  const hashed = (values: readonly string[], wanted: boolean | undefined): readonly string[] =>
    wanted === true ? values.map((value) => createHash("sha256").update(value).digest("hex")) : values;
  switch (source.from) {
    case "text":
      return [source.value];
    case "path": {
      const value = facts.parameters[source.name];
      return value === undefined ? [] : hashed([value], source.sha256);
    }
    case "request":
    case "answer":
      return hashed(valuesAt(bodies.json(source.from), source.path), source.sha256);
    case "form": {
      const value = new URLSearchParams(bodies.text("answer") ?? "").get(source.name);
      return value === null ? [] : [value];
    }
  }
}

/** Every combination of one value from each list, in order. */
function combinations(lists: readonly (readonly string[])[]): readonly (readonly string[])[] {
  return lists.reduce<readonly (readonly string[])[]>(
    (sofar, list) => sofar.flatMap((head) => list.map((value) => [...head, value])), [[]]);
}

interface Gathering {
  readonly keys: AggregateKey[];
  readonly scopes: Scope[];
  readonly logs: Set<string>;
  readonly scans: Map<string, ScanDepth>;
  readonly conditions: { kind: string; table: string; where: Readonly<Record<string, readonly string[]>> }[];
}

function gather(service: Service, touch: Touch, facts: CallFacts, bodies: Bodies, into: Gathering): void {
  const compare = (depth: ScanDepth): void => {
    if (into.scans.get(touch.kind) !== "images") into.scans.set(touch.kind, depth);
  };
  const valuesBy = (sources: Readonly<Record<string, Source>>): Readonly<Record<string, readonly string[]>> =>
    Object.fromEntries(Object.entries(sources).map(([column, source]) => [column, valuesOf(source, facts, bodies)]));
  switch (touch.touch) {
    case "one": {
      const kind = present(service.kinds.get(touch.kind), touch.kind);
      const lists = kind.key.map((column) => valuesOf(present(touch.key[column], column), facts, bodies));
      const found = combinations(lists);
      if (found.length === 0 && !Object.values(touch.key).some((source) => bodies.saysNothingOf(source))) compare("keys");
      for (const values of found) into.keys.push({ kind: touch.kind, values });
      return;
    }
    case "every": {
      const where = valuesBy(touch.where);
      if (Object.values(touch.where).some((source) => bodies.isUnknown(source))) return compare("images");
      if (Object.values(where).some((values) => values.length === 0)) return;
      into.scopes.push({ kind: touch.kind, table: touch.table, where });
      return;
    }
    case "log":
      into.logs.add(touch.kind);
      return;
    case "scan":
      compare("images");
      if (touch.onlyIf !== undefined) into.conditions.push({ kind: touch.kind, table: touch.onlyIf.table,
        where: valuesBy(touch.onlyIf.where) });
  }
}

/** Everything that a call of `capture` with these facts may have changed. */
export function touchedBy(service: Service, capture: Capture, facts: CallFacts): Touched {
  const into: Gathering = { keys: [], scopes: [], logs: new Set(), scans: new Map(), conditions: [] };
  const bodies = new Bodies(facts);
  for (const touch of capture.touches) gather(service, touch, facts, bodies, into);
  return { keys: into.keys, scopes: into.scopes, logs: [...into.logs], scans: into.scans, conditions: into.conditions };
}

const PLAIN_VALUE = /^[0-9a-z_-]+$/;

/**
 * What must be asked of the database before the call is forwarded, because the call may take it away: the predicates, and
 * exact keys whose spelling in the path may differ from the stored one (case, padding: engines compare more loosely than we
 * do).
 */
export function askedBefore(service: Service, capture: Capture, facts: CallFacts): readonly Scope[] {
  const removing = capture.on.startsWith("DELETE ");
  const touched = touchedBy(service, capture, { ...facts, answer: undefined, request: undefined });
  const loose = touched.keys.filter((key) => removing && !key.values.every((value) => PLAIN_VALUE.test(value)));
  const asScopes = loose.map((key): Scope => {
    const kind = present(service.kinds.get(key.kind), key.kind);
    return { kind: key.kind, table: undefined,
      where: Object.fromEntries(kind.key.map((column, index) => [column, [present(key.values[index], column)]])) };
  });
  return [...touched.scopes, ...asScopes];
}

/** A capture that stands for a mutating call on an unknown route: every kind of the service is compared with the stream. */
export function captureOfUnknown(service: Service): Capture {
  return { on: "POST /", touches: [...service.kinds.keys()].map((kind) => ({ touch: "scan", kind })) };
}
