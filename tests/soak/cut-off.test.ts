/** The long form of tests/fleet/cut-off.test.ts: each way of cutting twenty times, at fifty calls a second, in both profiles. */
import { sitesCutOff } from "../fleet/cut-off.suite.ts";

for (const profile of ["centre-first", "local-first"] as const) {
  sitesCutOff({ engines: { centre: "postgres", edge1: "postgres" }, times: 20, callsPerSecond: 50, profile });
}
