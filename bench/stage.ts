/**
 * What every benchmark needs around it: a running lab, a token, users that both clouds know, a folder, and servers that end with
 * the run.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { OperatingError } from "../core/errors.ts";
import { systemRandom } from "../core/random.ts";
import { Secret } from "../core/secret.ts";
import { buildIfStale } from "../lab/build.ts";
import { issueToken, makeUser } from "../lab/identity.ts";
import { openLab, wipeLab, type Lab } from "../lab/lab.ts";
import { missingPackages, obstacle } from "../lab/packages.ts";
import type { CloudName } from "../lab/options.ts";
import type { DatabaseAccess } from "../lab/record.ts";
import { until } from "../lab/waiting.ts";
import { Children } from "./children.ts";

const PACKAGES = ["wrk", "nginx"] as const;
/** Users that writes go round: enough that calls under way seldom meet on one row. */
const USERS = 50;
const ARRIVAL_MS = 60_000;

export interface Stage {
  readonly lab: Lab;
  /** The administrator's, valid at both clouds. */
  readonly token: Secret;
  readonly users: readonly string[];
  readonly children: Children;
  readonly cores: number;
  readonly folder: string;
  readonly say: (line: string) => void;
  /** Options for Node in the proxies under test. */
  readonly nodeOptions: readonly string[];
}

/** A client of one database of the lab. A benchmark has no use for a pool: it asks one thing at a time. */
export async function openDatabase({ host, port, user, password, name }: DatabaseAccess): Promise<pg.Client> {
  const client = new pg.Client({ host, port, user, password: password.reveal(), database: name });
  // The lab's server is stopped at the end of a run, whoever is still connected.
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

async function ready(labFolder: string, say: (line: string) => void): Promise<Lab> {
  const lacking = missingPackages(PACKAGES);
  const reason = obstacle(["postgres"], "refuse")
    ?? (lacking.length > 0 ? `packages are missing: apt-get install --no-install-recommends ${lacking.join(" ")}` : undefined);
  if (reason !== undefined) throw new OperatingError("E_LAB_MACHINE", reason);
  const lab = await openLab({ folder: labFolder, program: "built", progress: say });
  await buildIfStale(lab.paths.prepareLog);
  await lab.start();
  return lab;
}

async function makeUsers(lab: Lab, token: Secret): Promise<readonly string[]> {
  const made: string[] = [];
  const batch = systemRandom.id().slice(0, 8);
  for (let index = 0; index < USERS; index += 1) {
    made.push(await makeUser(lab.endpoints.centre.proxy, token, `bench-${batch}-${index}`, new Secret(systemRandom.id())));
  }
  const site = await openDatabase(lab.databases.edge1);
  const arrival = { what: "the arrival of the benchmark's users at the site", withinMs: ARRIVAL_MS, log: lab.paths.logs };
  await until(arrival, async () => {
    const { rows } = await site.query<{ found: number }>(`SELECT count(*)::int AS found FROM "user" WHERE id = ANY($1)`, [made]);
    return rows[0]?.found === made.length;
  });
  await site.end();
  return made;
}

export interface StageWanted {
  /** A lab to use and to leave running; without it one is made for the run and removed. */
  readonly labFolder: string | undefined;
  readonly nodeOptions: readonly string[];
  readonly say: (line: string) => void;
}

/** Sets the stage, runs `work` on it, and clears it away whatever happens. */
export async function onStage({ labFolder, nodeOptions, say }: StageWanted,
  work: (stage: Stage) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-bench-"));
  const place = labFolder ?? join(folder, "lab");
  const children = new Children(cpus().length);
  try {
    const lab = await ready(place, say);
    const token = await issueToken(lab.endpoints.centre.direct, lab.admin());
    if (token === undefined) throw new OperatingError("E_LAB_STEP", "the centre refuses the administrator's password");
    const users = await makeUsers(lab, token);
    await work({ lab, token, users, children, cores: cpus().length, folder, say, nodeOptions });
  } finally {
    await children.stop();
    if (labFolder === undefined) await wipeLab(place);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Port of a cloud's own Keystone. */
export function keystonePort(lab: Lab, cloud: CloudName): number {
  return Number(new URL(lab.endpoints[cloud].direct).port);
}
