/** A few of each way, and a modest backlog; the long form is tests/soak/revoked.test.ts. */
import { authorityTakenAway } from "./revoked.suite.ts";

authorityTakenAway({ engines: { centre: "mariadb", edge1: "postgres" }, times: 3, backlog: 5_000 });
