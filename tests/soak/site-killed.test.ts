/**
 * The long form of tests/fleet/site-killed.test.ts: on each pairing of engines a hundred deaths of the sync daemon, and a
 * hundred of each database server. HOLDFAST_KILLS changes the number.
 */
import { sitesKilled } from "../fleet/site-killed.suite.ts";

const KILLS = Number(process.env["HOLDFAST_KILLS"] ?? 100);

sitesKilled({ daemon: KILLS, server: KILLS });
