/**
 * The database as oracle: makes calls through the proxy of a real lab and holds what they really changed against what the service
 * file declares for them. A call may change less than is declared, never more, and a route that is left changes nothing but what
 * stays at each site anyway.
 *
 * The declared set is worked out with the product's own rules (route, questions before, touches after), the changed set from
 * whole tables. Not here: the calls (tests/contract/services).
 */
import assert from "node:assert/strict";
import { askedBefore, touchedBy, type CallFacts } from "../../capture/touches.ts";
import { effectOf } from "../../proxy/effect.ts";
import { routerOf, type Routed } from "../../proxy/route.ts";
import { hasRow, keysWhere, readImages } from "../../rows/footprint.ts";
import { present } from "../../core/assert.ts";
import type { Table } from "../../schemas/define.ts";
import { keystone } from "../../schemas/keystone.ts";
import { keyText, type AggregateKey, type Row } from "../../schemas/row.ts";
import type { Reply } from "./keystone-call.ts";
import type { CallOptions, Clouds, ScanCounts } from "./keystone-clouds.ts";
import { changedBetween, readState, stateDifferences, tablesIn, tablesTouched, type State } from "./keystone-state.ts";

const ROUTER = routerOf(keystone);
const ROUTES = [...keystone.captures, ...keystone.leaves].map(({ on }): string => on);

/** A call's token is the one last given to `become` unless said otherwise. */
export interface JudgedCallOptions extends CallOptions {
  /** Statuses that the scenario relies on; any when left out. */
  readonly expect?: number;
}

/** What the walk has seen of one route. */
export interface RouteSeen {
  calls: number;
  /** Calls that changed aggregates. */
  writing: number;
  /** Kinds that were compared whole because of it, as "kind depth". */
  readonly scans: Set<string>;
}

type Captured = Extract<Routed, { route: "capture" }>;

/** What the database said before a call was forwarded. */
interface Asked {
  readonly keys: readonly AggregateKey[];
  readonly needless: ReadonlySet<string>;
}

/** A lab with a running record of what its calls changed. Calls go one after the other. */
export class Oracle {
  readonly clouds: Clouds;
  readonly seen = new Map<string, RouteSeen>();
  readonly problems: string[] = [];
  readonly #tables: readonly Table[];
  #state: State;
  #token: string;

  private constructor(clouds: Clouds, tables: readonly Table[], state: State) {
    this.clouds = clouds;
    this.#tables = tables;
    this.#state = state;
    this.#token = clouds.admin;
  }

  /** Reads the centre's database and starts to watch. */
  static async watching(clouds: Clouds): Promise<Oracle> {
    const tables = await tablesIn(clouds.databases.centre);
    return new Oracle(clouds, tables, await readState(clouds.databases.centre, tables));
  }

  /** Whose token the next calls carry; the administrator's unless said otherwise. */
  become(token = this.clouds.admin): void {
    this.#token = token;
  }

  /** Puts rows into both databases past the API, as one that was damaged or written by hand would have them. */
  async plant(table: string, rows: readonly Row[]): Promise<void> {
    const declared = present(keystone.tables.get(table), table);
    for (const database of Object.values(this.clouds.databases)) {
      await database.transaction((write) => write.insert(declared, rows));
    }
    await this.refresh();
  }

  /** Takes over what was written to the centre's database without a call. */
  async refresh(): Promise<void> {
    this.#state = await readState(this.clouds.databases.centre, this.#tables);
  }

  /** One call through the proxy, judged. Findings are collected, so that one walk shows all of them. */
  async call(method: string, path: string, body?: unknown,
    { token = this.#token, headers = {}, expect }: JudgedCallOptions = {}): Promise<Reply> {
    const routed = ROUTER.route(method, path);
    const on = routeName(routed, method, path);
    const asked = routed.route === "capture" ? await this.#ask(routed) : undefined;
    // What went before without being judged (signing in) must not be laid at this call's door.
    await this.clouds.captured();
    const scansBefore = await this.clouds.scans();
    const answer = await this.clouds.call(method, path, body, { token, headers });
    await this.clouds.captured();
    const scans = differenceOf(scansBefore, await this.clouds.scans());
    const before = this.#state;
    await this.refresh();
    const changed = changedBetween(before, this.#state);
    const report = (problem: string): void => void this.problems.push(`${answer.status} ${method} ${path} (${on}): ${problem}`);
    if (expect !== undefined && expect !== answer.status) report(`expected ${expect}: ${answer.text.slice(0, 300)}`);
    if (routed.route === "capture" && asked !== undefined) await this.#judge(routed, asked, answer, changed, report);
    else if (changed.length > 0) report(`is not captured and changed ${changed.map(keyText).join(", ")}`);
    if (routed.route === "leave") {
      const strange = tablesTouched(before, this.#state).filter((table) => !(table in keystone.local));
      if (strange.length > 0) report(`is left and wrote ${strange.join(", ")}`);
    }
    const seen = this.seen.get(on) ?? { calls: 0, writing: 0, scans: new Set<string>() };
    this.seen.set(on, seen);
    seen.calls += 1;
    if (changed.length > 0) seen.writing += 1;
    for (const scan of scans) seen.scans.add(scan);
    return answer;
  }

  /** Waits until every synchronised table is the same at both clouds, by the event path alone. */
  async inStep(): Promise<void> {
    const { centre, edge1 } = this.clouds.databases;
    const synced = [...keystone.tables.values()];
    let differences: readonly string[] = [];
    await this.clouds.eventually("the site's being in step with the centre", async () => {
      differences = stateDifferences(await readState(centre, synced), await readState(edge1, synced), edge1);
      return differences.length === 0;
    }).catch((error: unknown) => assert.deepEqual(differences, [], String(error)));
  }

  async #ask({ capture, parameters }: Captured): Promise<Asked> {
    const facts: CallFacts = { parameters, request: undefined, answer: undefined };
    return this.clouds.databases.centre.snapshot(async (read) => {
      const keys: AggregateKey[] = [];
      for (const scope of askedBefore(keystone, capture, facts)) {
        keys.push(...await keysWhere(read, keystone, scope.kind, scope.table, scope.where));
      }
      const needless = new Set<string>();
      for (const { kind, table, where } of touchedBy(keystone, capture, facts).conditions) {
        if (!await hasRow(read, present(keystone.tables.get(table), table), where)) needless.add(kind);
      }
      return { keys, needless };
    });
  }

  async #judge({ capture, parameters }: Captured, asked: Asked, answer: Reply, changed: readonly AggregateKey[],
    report: (problem: string) => void): Promise<void> {
    const outcome = answer.status === 0 ? "unknown" : "answered";
    const effect = effectOf(capture, { outcome, status: answer.status });
    if (effect === "none") {
      if (changed.length > 0) report(`is taken for a refusal that wrote nothing, and changed ${changed.map(keyText).join(", ")}`);
      return;
    }
    const touched = touchedBy(keystone, capture, { parameters, request: answer.sent, answer: answer.bytes });
    const declared = await this.clouds.databases.centre.snapshot(async (read) => {
      const keys = [...asked.keys, ...touched.keys];
      for (const scope of touched.scopes) keys.push(...await keysWhere(read, keystone, scope.kind, scope.table, scope.where));
      // Another spelling of a key stands for the row that the engine finds for it.
      const images = await readImages(read, keystone, keys);
      return new Set([...keys.map(keyText), ...[...images.values()].map(({ key }) => keyText(key))]);
    });
    const whole = new Set([...touched.logs, ...[...touched.scans.keys()].filter((kind) => !asked.needless.has(kind))]);
    const missed = changed.filter((key) => !declared.has(keyText(key)) && !whole.has(key.kind));
    if (missed.length > 0) report(`changed what its capture does not declare: ${missed.map(keyText).join(", ")}`);
  }
}

/** The route as the service file writes it, or "unknown" and what was sent. */
function routeName(routed: Routed, method: string, path: string): string {
  if (routed.route === "capture") return routed.capture.on;
  const found = routed.route === "leave" ? ROUTES.find((on) => matches(on, method, path)) : undefined;
  return found ?? `${routed.route}: ${method} ${path}`;
}

function matches(on: string, method: string, path: string): boolean {
  const [declaredMethod, template = ""] = on.split(" ");
  const pattern = template.split("/").map((part) => (part.startsWith("{") ? "[^/]+" : part)).join("/");
  return declaredMethod === method && new RegExp(`^${pattern}$`).test(path);
}

/** Kinds and depths that were compared meanwhile. */
function differenceOf(before: ScanCounts, after: ScanCounts): readonly string[] {
  return [...after].filter(([name, count]) => count > (before.get(name) ?? 0)).map(([name]) => name);
}
