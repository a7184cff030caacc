/** Each way of cutting twice, at a modest rate; the long form is tests/soak/cut-off.test.ts. */
import { sitesCutOff } from "./cut-off.suite.ts";

sitesCutOff({ engines: { centre: "postgres", edge1: "mariadb" }, times: 2, callsPerSecond: 20, profile: "centre-first" });
