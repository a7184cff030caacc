/** The short form of tests/soak/site-killed.test.ts. */
import { sitesKilled } from "./site-killed.suite.ts";

sitesKilled({ daemon: 25, server: 3 });
