/**
 * Runs Debian's tempest against one way to a cloud's Keystone: through its proxy, or past it. The two ways differ in the address
 * and in the region whose catalogue entry tempest then follows, and in nothing else.
 *
 * Source of the options: tempest 33's sample configuration. Not here: what the output means (results.ts).
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { OperatingError } from "../../core/errors.ts";
import { CHILD_ENVIRONMENT, run } from "../../lab/commands.ts";
import type { Lab } from "../../lab/lab.ts";
import { regionsOf } from "../../lab/template.ts";
import { testsRun, verdictsIn, type Verdicts } from "./results.ts";

export type Way = "direct" | "proxy";

/** Two workers: Keystone has two processes, and the machine may have two cores. */
const CONCURRENCY = 2;
/** Longest piece of tempest's output that a failure quotes, in characters. */
const OUTPUT_SHOWN_MAX = 500;
/** Longest run of the whole selection. */
const RUN_MS = 20 * 60_000;

function configuration(lab: Lab, way: Way, folder: string): string {
  const admin = lab.admin();
  return `[DEFAULT]
log_dir = ${folder}
log_file = tempest.log
[oslo_concurrency]
lock_path = ${join(folder, "lock")}
[auth]
use_dynamic_credentials = true
admin_username = ${admin.user}
admin_password = ${admin.password.reveal()}
admin_project_name = ${admin.project}
admin_domain_name = Default
create_isolated_networks = false
[identity]
uri_v3 = ${lab.endpoints.centre[way]}/v3
auth_version = v3
region = ${regionsOf("centre")[way]}
v3_endpoint_type = public
catalog_type = identity
[identity-feature-enabled]
api_v3 = true
trust = true
project_tags = true
application_credentials = true
access_rules = true
[service_available]
glance = false
nova = false
neutron = false
cinder = false
swift = false
[validation]
run_validation = false
`;
}

export interface TempestRun {
  readonly verdicts: Verdicts;
  readonly output: string;
  readonly tookMs: number;
}

/** Makes tempest's workspace for one way to the centre, in a folder of its own; the path of it. */
export async function makeWorkspace(lab: Lab, way: Way, parent: string): Promise<string> {
  const folder = join(parent, `tempest-${way}`);
  // init leaves a log in the folder it is called from.
  await run(["/usr/bin/tempest", "init", "--config-dir", "/etc/tempest", folder], { log: join(parent, "tempest-init.log"),
    folder: parent, environment: { HOME: parent } });
  mkdirSync(join(folder, "lock"), { recursive: true });
  writeFileSync(join(folder, "etc", "tempest.conf"), configuration(lab, way, folder), { mode: 0o600 });
  return folder;
}

/**
 * Runs the tests that `selection` (a regular expression) matches. Failed tests are part of the result, not an error.
 * @throws E_LAB_STEP when it reports no test, or not as many as it ran: it was ended after RUN_MS, or its output is not
 * understood.
 */
export async function runTempest(workspace: string, selection: string): Promise<TempestRun> {
  const startMs = performance.now();
  const output = await new Promise<string>((resolve, reject) => {
    const child = spawn("/usr/bin/tempest", ["run", "--config-file", join(workspace, "etc", "tempest.conf"), "--regex", selection,
      "--concurrency", String(CONCURRENCY)], { cwd: workspace, stdio: ["ignore", "pipe", "pipe"], timeout: RUN_MS,
      env: { ...CHILD_ENVIRONMENT, HOME: join(workspace, "..") } });
    const chunks: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.once("error", reject).once("close", () => resolve(Buffer.concat(chunks).toString("utf8")));
  });
  const log = join(workspace, "output.txt");
  writeFileSync(log, output);
  const verdicts = verdictsIn(output);
  if (verdicts.size === 0 || verdicts.size !== testsRun(output)) {
    throw new OperatingError("E_LAB_STEP", `tempest ran ${testsRun(output)} tests and ${verdicts.size} verdicts were read: ` +
      output.slice(-OUTPUT_SHOWN_MAX), { log });
  }
  return { verdicts, output, tookMs: performance.now() - startMs };
}
