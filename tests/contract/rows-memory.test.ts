/** The memory twin keeps the row contract, in both of its moods: as PostgreSQL compares and keeps values, and as MariaDB does. */
import { memoryRows } from "../../rows/memory.ts";
import { CONTRACT_TABLES } from "./rows-samples.ts";
import { rowsSuite } from "./rows.suite.ts";

describe("memory rows", () => {
  const rows = memoryRows(CONTRACT_TABLES);
  rowsSuite(() => ({ rows, ignoresCase: false, coarseDigits: 6, hasRowLocks: false }));
});

describe("memory rows that compare like MariaDB", () => {
  const rows = memoryRows(CONTRACT_TABLES, { ignoresCase: true });
  rowsSuite(() => ({ rows, ignoresCase: true, coarseDigits: 6, hasRowLocks: false }));
});
