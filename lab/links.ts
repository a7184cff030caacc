/**
 * The link between the centre and each site: everything that a site's processes say to the centre goes through one process, so
 * that the lab can cut it. What goes through: the stream, and the API that the site's proxy forwards to.
 */
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { answersOk } from "./http.ts";
import { CENTRE, type SiteName } from "./options.ts";
import type { ProcessPlan } from "./processes.ts";
import { portOf, type LabRecord } from "./record.ts";

const PROGRAM = fileURLToPath(new URL("./relay.ts", import.meta.url));
// By its own address: the process does not work in the checkout, and the loader would be looked for there. Not with
// import.meta.resolve, which is missing where a test runner loads this file as CommonJS.
const LOADER = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;

/** Name of the process that is a site's link. */
export function linkOf(site: SiteName): string {
  return `link-${site}`;
}

/** How a site's link is run. */
export function linkPlan(record: LabRecord, site: SiteName): ProcessPlan {
  const pairs = [[`link-${site}-nats`, "nats"], [`link-${site}-api`, `proxy-${CENTRE}`]] as const;
  const health = portOf(record, `link-${site}-admin`);
  return { name: linkOf(site), folder: record.state, ports: [health, ...pairs.map(([from]) => portOf(record, from))],
    command: [process.execPath, "--import", LOADER, PROGRAM, String(health),
      ...pairs.map(([from, to]) => `${portOf(record, from)}:${portOf(record, to)}`)],
    isReady: () => answersOk(`http://127.0.0.1:${health}/`) };
}
