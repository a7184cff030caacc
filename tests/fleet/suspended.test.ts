/** Every process hangs for ten seconds, one after the other, under load; see the suite. */
import { processesThatHang } from "./suspended.suite.ts";

processesThatHang(10_000);
