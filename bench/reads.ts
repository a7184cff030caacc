/**
 * Benchmark: calls that change nothing. A static 1 KB answer, so that the proxy is all there is to see, at 1, 32 and 256
 * connections and at a moderate rate; and Keystone's own list of users, so that it is seen in proportion.
 */
import { join } from "node:path";
import { freePort, OTHER_CORE, TESTED_CORE } from "./children.ts";
import type { Table } from "./figures.ts";
import { forwardingNginx, staticUpstream } from "./nginx.ts";
import { paced } from "./paced.ts";
import { startProxy } from "./proxies.ts";
import { compete, type Effort, type Variant } from "./rounds.ts";
import { keystonePort, type Stage } from "./stage.ts";

const CONNECTIONS = [1, 32, 256] as const;
/** Keystone has two workers: more connections only wait. */
const KEYSTONE_CONNECTIONS = 4;
const PACED_GAP_MS = 2;
const PACED_COLUMNS = ["p50 ms", "p99 ms", "added p50 ms", "added p99 ms"];

/** Direct, nginx, Holdfast without and with capture, all in front of what listens on `upstreamPort`. */
export async function waysTo(stage: Stage, label: string, upstreamPort: number, captureOnly: boolean):
Promise<readonly Variant[]> {
  const { children, folder, lab, nodeOptions } = stage;
  const nginxPort = await freePort();
  const nginx = await children.start({ name: `nginx-${label}`, port: nginxPort, core: TESTED_CORE,
    command: forwardingNginx(folder, `nginx-${label}`, nginxPort, upstreamPort), log: join(folder, `nginx-${label}.log`) });
  const proxy = async (capture: boolean): Promise<Variant> => {
    const name = `proxy-${label}-${capture ? "captures" : "forwards"}`;
    const started = await startProxy(children, { name, upstreamPort, capture, lab, folder, nodeOptions });
    return { name: capture ? "holdfast, capture" : "holdfast, forward only", port: started.port, tested: started };
  };
  return [{ name: "direct", port: upstreamPort }, { name: "nginx", port: nginxPort, tested: nginx },
    ...(captureOnly ? [] : [await proxy(false)]), await proxy(true)];
}

/** Tables of all calls that change nothing. */
export async function benchReads(stage: Stage, effort: Effort): Promise<readonly Table[]> {
  const upstreamPort = await freePort();
  await stage.children.start({ name: "nginx-upstream", port: upstreamPort, core: OTHER_CORE,
    command: staticUpstream(stage.folder, upstreamPort), log: join(stage.folder, "nginx-upstream.log") });
  const ways = await waysTo(stage, "static", upstreamPort, false);
  // The header that every OpenStack call carries: it is parsed and forwarded like any other.
  const headers = { "X-Auth-Token": stage.token.reveal() };
  const tables: Table[] = [];
  for (const connections of CONNECTIONS) {
    tables.push(await compete(stage, { title: `GET, static 1 KB, ${connections} connections`, variants: ways,
      load: { method: "GET", target: "/document", headers }, connections, warmUp: true }, effort));
  }
  const calls = ways.map(({ name, port }) =>
    ({ name, call: () => ({ method: "GET" as const, url: `http://127.0.0.1:${port}/document`, headers }) }));
  const atRate = await paced(calls, effort.pacedCalls, PACED_GAP_MS);
  tables.push({ title: "GET, static 1 KB, one call at a time", columns: PACED_COLUMNS,
    rows: ways.map(({ name }) => ({ variant: name, figures: atRate.get(name) ?? {} })) });
  const keystone = await waysTo(stage, "keystone-reads", keystonePort(stage.lab, "centre"), true);
  tables.push(await compete(stage, { title: `Keystone's GET /v3/users, ${KEYSTONE_CONNECTIONS} connections`, variants: keystone,
    load: { method: "GET", target: "/v3/users", headers }, connections: KEYSTONE_CONNECTIONS, warmUp: true },
  effort));
  return tables;
}
