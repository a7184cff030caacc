/** The long form of tests/fleet/suspended.test.ts: a minute each. */
import { processesThatHang } from "../fleet/suspended.suite.ts";

processesThatHang(60_000);
