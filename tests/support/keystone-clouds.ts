/**
 * A lab of its own for tests that need a real Keystone at a centre and at a site: started in a fresh folder, with both
 * databases open, a client that goes through the centre's proxy, and waits on conditions instead of time.
 *
 * Invariants: nothing of it survives `end`; every wait has a deadline; passwords and tokens stay in Secret or inside here.
 * The Keystones get what some routes need beyond the lab's configuration (single sign-on, redelegation, password history).
 * Not here: what tables hold (keystone-state.ts), what a call may change (keystone-oracle.ts).
 */
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../core/clock.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import type { World } from "../../core/world.ts";
import { labObstacle, openLab, wipeLab, type Lab } from "../../lab/lab.ts";
import { CLOUDS, type CloudName, type Engines } from "../../lab/options.ts";
import { until } from "../../lab/waiting.ts";
import { openRows } from "../../rows/open.ts";
import type { Rows } from "../../rows/rows.ts";
import { send, type Headers, type Reply } from "./keystone-call.ts";

/** Longest until a change is at the site, or a Keystone notices something. Generous: a busy machine is not a broken one. */
export const ARRIVES_WITHIN_MS = 60_000;
/** Longest until the proxy has published what one call changed. */
export const CAPTURED_WITHIN_MS = 60_000;

const WORLD: World = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };
const DATABASE = { socketPath: undefined, poolMax: 4, connectTimeoutMs: 10_000, statementTimeoutMs: 60_000 } as const;

export interface SignIn {
  readonly id?: string;
  readonly name?: string;
  readonly password: string;
  /** What the token is for, as Keystone's API writes it; unscoped without it. */
  readonly scope?: object;
}

/** How often the proxy has compared a kind with the stream, by `kind depth`. */
export type ScanCounts = ReadonlyMap<string, number>;

export interface CallOptions {
  /** The administrator's unless said otherwise; "" sends none. */
  readonly token?: string;
  readonly headers?: Headers;
}

export interface Clouds {
  readonly lab: Lab;
  readonly databases: Readonly<Record<CloudName, Rows>>;
  /** A token of the administrator, good at both clouds. */
  readonly admin: string;
  /** Part of every name that this run makes. */
  readonly mark: string;
  /** One call through the centre's proxy; by default as the administrator. */
  call(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Reply>;
  /** One call to the site's own Keystone, past every proxy; by default as the administrator. */
  atSite(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Reply>;
  /** One call to the API at `url`, as the administrator. */
  direct(url: string, method: string, path: string): Promise<Reply>;
  signIn(at: "centre" | "site", who: SignIn): Promise<Reply>;
  /** The token of a sign-in at the centre that Keystone accepts; waits out revocations of the same second. */
  tokenOf(who: SignIn): Promise<string>;
  /** True when the site's own Keystone accepts the token. */
  siteAccepts(token: string): Promise<boolean>;
  /** Resolves once the proxy has published everything that finished calls changed. */
  captured(): Promise<void>;
  scans(): Promise<ScanCounts>;
  eventually(what: string, holds: () => Promise<boolean>): Promise<void>;
  end(): Promise<void>;
}

/** Why these pairings cannot be tried here; undefined when they can. */
export function cloudsMissing(engines: Engines): string | undefined {
  return labObstacle(Object.values(engines));
}

/** Passwords as Keystone's API takes them. */
export function passwordAuth({ id, name, password, scope }: SignIn): object {
  const user = id === undefined ? { name, domain: { id: "default" }, password } : { id, password };
  return { auth: { identity: { methods: ["password"], password: { user } }, ...(scope === undefined ? {} : { scope }) } };
}

function numbersNamed(text: string, name: string, label: RegExp): readonly (readonly [string, number])[] {
  return text.split("\n").filter((line) => line.startsWith(`${name}{`)).map((line) =>
    [[...line.matchAll(label)].map((match) => match[1]).join(" "), Number(line.slice(line.lastIndexOf(" ") + 1))]);
}

const SIGN_ON_PAGE = "<html>$host $token</html>";

/** How soon the proxy looks a first time again, milliseconds: a call counts as captured only after that. */
const SETTLE_DELAYS_MS = [50, 30_000];

/** What some routes need of a Keystone beyond what the lab configures, and what keeps hundreds of calls in a row short. */
function extendConfiguration(lab: Lab): void {
  appendFileSync(join(lab.paths.config, "proxy-centre.yaml"), `settle:\n  delaysMs: [${SETTLE_DELAYS_MS.join(", ")}]\n`);
  const page = join(lab.paths.config, "sign-on.html");
  writeFileSync(page, SIGN_ON_PAGE);
  for (const cloud of CLOUDS) {
    appendFileSync(join(lab.paths.config, `keystone-${cloud}`, "keystone.conf"),
      `[federation]\ntrusted_dashboard = http://dash.example/auth/\nsso_callback_template = ${page}\n`
      + "remote_id_attribute = HTTP_X_IDP\n[trust]\nallow_redelegation = true\n"
      + "[security_compliance]\nunique_last_password_count = 2\n");
  }
}

function openDatabase(lab: Lab, cloud: CloudName): Rows {
  const { engine, host, port, name, user, password } = lab.databases[cloud];
  return openRows({ ...DATABASE, engine, host, port, name, user, password }, WORLD);
}

/** Starts a lab in a folder of its own. Takes 20 to 60 s. */
export async function startClouds(engines: Engines): Promise<Clouds> {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-keystone-"));
  const lab = await openLab({ folder, engines, program: "source" });
  const wipe = async (): Promise<void> => {
    await wipeLab(folder);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await lab.start();
    extendConfiguration(lab);
    for (const changed of ["keystone-centre", "keystone-edge1", "proxy-centre"]) await lab.restart(changed);
    await until({ what: "the proxy's readiness", withinMs: ARRIVES_WITHIN_MS, log: lab.paths.logs }, async () =>
      (await send(`${lab.endpoints.centre.proxyAdmin}/readyz`, { method: "GET" })).status === 200);
    const databases = { centre: openDatabase(lab, "centre"), edge1: openDatabase(lab, "edge1") };
    for (const cloud of CLOUDS) await databases[cloud].reflect();
    return await connected(lab, databases, async () => {
      for (const cloud of CLOUDS) await databases[cloud].close();
      await wipe();
    });
  } catch (error) {
    await wipe();
    throw error;
  }
}

async function connected(lab: Lab, databases: Clouds["databases"], end: () => Promise<void>): Promise<Clouds> {
  const { centre, edge1 } = lab.endpoints;
  const log = lab.paths.logs;
  const holder = { admin: "" };
  const calling = (url: string): Clouds["call"] => (method, path, body, { token = holder.admin, headers = {} } = {}) =>
    send(`${url}${path}`, { method, body, headers: { ...(token === "" ? {} : { "x-auth-token": token }), ...headers } });
  const [call, atSite] = [calling(centre.proxy), calling(edge1.direct)];
  const metrics = async (): Promise<string> => (await send(`${centre.proxyAdmin}/metrics`, { method: "GET" })).text;
  const signIn: Clouds["signIn"] = (at, who) =>
    (at === "centre" ? call : atSite)("POST", "/v3/auth/tokens", passwordAuth(who), { token: "" });
  const clouds: Clouds = {
    lab, databases, call, atSite, signIn, end,
    direct: (url, method, path) => calling(url)(method, path),
    mark: systemRandom.id().slice(0, 6),
    get admin() {
      return holder.admin;
    },
    async tokenOf(who) {
      let token = "";
      await clouds.eventually("a token that Keystone accepts", async () => {
        const answer = await signIn("centre", who);
        if (answer.subject === undefined) throw new Error(`${answer.status} ${answer.text}`);
        token = answer.subject;
        return (await call("GET", "/v3/auth/tokens", undefined, { token, headers: { "x-subject-token": token } })).status === 200;
      });
      return token;
    },
    siteAccepts: async (token) =>
      (await atSite("GET", "/v3/auth/tokens", undefined, { token, headers: { "x-subject-token": token } })).status === 200,
    async captured() {
      await until({ what: "the capture of finished calls", withinMs: CAPTURED_WITHIN_MS, log }, async () => {
        const text = await metrics();
        const [[, open] = ["", 0]] = numbersNamed(text, "holdfast_calls_uncaptured", /x/g);
        const [[, dirty] = ["", 0]] = numbersNamed(text, "holdfast_dirty_aggregates", /x/g);
        return open === 0 && dirty === 0;
      });
    },
    scans: async () => new Map(numbersNamed(await metrics(), "holdfast_class_scans_total", /(?:kind|depth)="([^"]*)"/g)),
    eventually: (what, holds) => until({ what, withinMs: ARRIVES_WITHIN_MS, log }, holds),
  };
  const { user, password, project } = lab.admin();
  holder.admin = await clouds.tokenOf({ name: user, password: password.reveal(),
    scope: { project: { name: project, domain: { id: "default" } } } });
  await clouds.captured();
  return clouds;
}
