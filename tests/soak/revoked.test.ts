/** The long form of tests/fleet/revoked.test.ts: two hundred of each way, and a long backlog. */
import { authorityTakenAway } from "../fleet/revoked.suite.ts";

authorityTakenAway({ engines: { centre: "postgres", edge1: "mariadb" }, times: 200, backlog: 20_000 });
