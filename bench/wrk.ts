/**
 * Saturating load with wrk: as many requests as a number of connections can carry, and what the process under test used for
 * them. Source of the Lua calls: wrk's SCRIPTING file (request, done; latency percentiles in microseconds).
 */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { OperatingError } from "../core/errors.ts";
import { MICROSECONDS_PER_SECOND, OTHER_CORE, onCore, type Usage } from "./children.ts";
import type { Figures } from "./figures.ts";

const MEBIBYTE = 1024 * 1024;
const MILLISECOND_US = 1_000;
/** wrk gives up on an answer after this; a saturated Keystone takes long. */
const ANSWER_TIMEOUT_S = 30;

const DONE = `
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format('RESULT {"requests":%d,"durationUs":%d,"p50Us":%d,"p99Us":%d,"broken":%d,"refused":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
`;

/** What wrk sends: a GET, or PATCHes that go round the given users with a new description each time. */
export type Load = { readonly method: "GET"; readonly target: string; readonly headers: Readonly<Record<string, string>> }
  | { readonly method: "PATCH"; readonly users: readonly string[]; readonly headers: Readonly<Record<string, string>> };

const resultShape = z.object({ requests: z.int(), durationUs: z.int(), p50Us: z.number(), p99Us: z.number(), broken: z.int(),
  refused: z.int() });
type Result = z.infer<typeof resultShape>;

/** Lua texts hold ASCII tokens and identifiers only, for which JSON's quoting is Lua's. */
function scriptOf(load: Load): string {
  const headers = Object.entries(load.headers).map(([name, value]) =>
    `wrk.headers[${JSON.stringify(name)}] = ${JSON.stringify(value)}`).join("\n");
  if (load.method === "GET") return headers + DONE;
  return `${headers}
wrk.headers["Content-Type"] = "application/json"
local users = { ${load.users.map((user) => JSON.stringify(user)).join(", ")} }
local sent = 0
request = function()
  sent = sent + 1
  local body = string.format('{"user": {"description": "load-%d-%d"}}', os.time(), sent)
  return wrk.format("PATCH", "/v3/users/" .. users[sent % #users + 1], nil, body)
end${DONE}`;
}

export interface Shot {
  readonly url: string;
  readonly load: Load;
  readonly connections: number;
  readonly durationS: number;
  readonly cores: number;
  /** Folder for the script. */
  readonly folder: string;
}

function runWrk({ url, load, connections, durationS, cores, folder }: Shot): Promise<Result> {
  const script = join(folder, `${load.method}.lua`);
  writeFileSync(script, scriptOf(load), { mode: 0o600 });
  const [program, ...words] = onCore(OTHER_CORE, cores, ["wrk", "-t1", `-c${connections}`, `-d${durationS}s`,
    "--timeout", `${ANSWER_TIMEOUT_S}s`, "-s", script, url]);
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => { output += chunk.toString("utf8"); });
    child.once("error", reject).once("close", () => {
      const found = /RESULT (\{.*\})/.exec(output)?.[1];
      if (found === undefined) reject(new OperatingError("E_LAB_STEP", `wrk gave no result: ${output.slice(-300)}`));
      else resolve(resultShape.parse(JSON.parse(found)));
    });
  });
}

/**
 * One run at full speed. Figures: requests/s, latency p50 and p99 in ms, processor µs per request and resident MiB of the process
 * behind `usage`, when there is one.
 * @throws E_LAB_STEP when any call failed, for a fast refusal would look like speed; or when none was answered.
 */
export async function saturate(shot: Shot, usage?: () => Usage): Promise<Figures> {
  const before = usage?.();
  const result = await runWrk(shot);
  const after = usage?.();
  const failures = result.broken + result.refused;
  if (result.requests === 0) throw new OperatingError("E_LAB_STEP", `${shot.url} answered nothing in ${shot.durationS} s`);
  if (failures > 0) {
    throw new OperatingError("E_LAB_STEP", `${failures} of ${result.requests} calls to ${shot.url} failed under load ` +
      `(${result.broken} broken, ${result.refused} refused)`);
  }
  const processor: Figures = before === undefined || after === undefined ? {}
    : { "CPU µs/req": (after.processorUs - before.processorUs) / result.requests, "RSS MiB": after.residentBytes / MEBIBYTE };
  return { "req/s": result.requests * MICROSECONDS_PER_SECOND / result.durationUs, "p50 ms": result.p50Us / MILLISECOND_US,
    "p99 ms": result.p99Us / MILLISECOND_US, ...processor };
}
