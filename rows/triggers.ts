/**
 * Triggers as part of the row port: the engine itself notes, in the transaction that changes rows, which aggregates changed. What
 * is installed is compared with what the service file asks for by the text of the definitions, so that a partial, older or
 * foreign installation is seen.
 *
 * Invariants: installing what is there changes nothing; an installation that broke off is finished by the next one; removing
 * takes away everything that begins with holdfast_ among the triggers, their functions, and the table of marks; nobody
 * else's triggers are touched. A lock that is not free at once is given up, never waited for in front of the service.
 * Not here: which rows lead to which aggregates (trigger-plan.ts), reading marks (capture/triggers.ts).
 */
import type { Service } from "../schemas/define.ts";
import { present } from "../core/assert.ts";
import type { Run, Statement } from "./dialect.ts";
import { MARKS_TABLE, planMarks, type TableMarks } from "./trigger-plan.ts";
import type { LiveTable } from "./rows.ts";

/** The triggers of one service in one database. */
export interface RowTriggers {
  /** What installing would run, for the engine's own command-line client. */
  script(): Promise<string>;
  /** Installs what is missing or differs. @throws E_ROWS_CONTENDED when tables are in use just now: try again */
  install(): Promise<void>;
  /** Removes triggers, functions and marks. @throws E_ROWS_CONTENDED as above */
  remove(): Promise<void>;
  /** What keeps the marks from being complete, one line each; empty: everything is as the service file says. */
  missing(): Promise<readonly string[]>;
}

/** One trigger as it should be. */
export interface WantedTrigger {
  readonly name: string;
  readonly table: string;
  /** The text by which an installed one is recognised. */
  readonly body: string;
  readonly create: readonly string[];
}

/** One trigger as it is. `table` undefined: a function that no trigger calls. */
export interface FoundTrigger {
  readonly name: string;
  readonly table: string | undefined;
  readonly body: string;
  readonly isActive: boolean;
  readonly drop: readonly string[];
}

/** What an engine must say about triggers. */
export interface TriggerDialect {
  /** Statements before any other: bounds on waiting for locks. */
  readonly begin: readonly string[];
  /** True when `create` puts itself in the place of a trigger of the same name. */
  readonly replaces: boolean;
  wanted(plan: readonly TableMarks[], schema: string): readonly WantedTrigger[];
  /** The schema that tables are in, as the engine calls it. */
  readonly schema: Statement;
  found(run: Run): Promise<readonly FoundTrigger[]>;
  readonly dropTable: string;
  script(statements: readonly string[]): string;
}

/** What the adapter lends. */
export interface TriggerSurroundings {
  readonly dialect: TriggerDialect;
  readonly createTable: Statement;
  readonly reflect: () => Promise<readonly LiveTable[]>;
  /** Runs reading work. */
  readonly reading: <T>(work: (run: Run) => Promise<T>) => Promise<T>;
  /** Runs schema work while no other process does any. */
  readonly changing: (work: (run: Run) => Promise<void>) => Promise<void>;
}

interface Comparison {
  readonly wanted: readonly WantedTrigger[];
  readonly found: ReadonlyMap<string, FoundTrigger>;
}

function isAsWanted(wanted: WantedTrigger, found: FoundTrigger | undefined): boolean {
  return found !== undefined && found.isActive && found.table === wanted.table && found.body === wanted.body;
}

/** What to run so that everything is as wanted: superfluous ones go, others are made anew. */
function statementsOf({ wanted, found }: Comparison, replaces: boolean): readonly string[] {
  const names = new Set(wanted.map(({ name }) => name));
  const superfluous = [...found.values()].filter(({ name }) => !names.has(name)).flatMap(({ drop }) => drop);
  const made = wanted.filter((each) => !isAsWanted(each, found.get(each.name))).flatMap((each) => {
    const before = found.get(each.name);
    const inPlace = replaces && before?.table === each.table;
    return [...(before === undefined || inPlace ? [] : before.drop), ...each.create];
  });
  return [...superfluous, ...made];
}

/** The triggers of `service` in a relational database. */
export function relationalTriggers(service: Service, surroundings: TriggerSurroundings): RowTriggers {
  const { dialect, createTable, reflect, reading, changing } = surroundings;
  const compare = async (run: Run, live: readonly LiveTable[]): Promise<Comparison> => {
    const [cells] = await run(dialect.schema);
    const schema = String(present(cells?.[0], "a session has a schema"));
    const found = new Map((await dialect.found(run)).map((each) => [each.name, each]));
    return { wanted: dialect.wanted(planMarks(service, live), schema), found };
  };
  return {
    async script() {
      const live = await reflect();
      const statements = await reading(async (run) => statementsOf(await compare(run, live), dialect.replaces));
      return dialect.script([createTable.text, ...statements]);
    },

    async install() {
      const live = await reflect();
      await changing(async (run) => {
        for (const text of dialect.begin) await run({ text, values: [] });
        await run(createTable);
        for (const text of statementsOf(await compare(run, live), dialect.replaces)) await run({ text, values: [] });
      });
    },

    async remove() {
      await changing(async (run) => {
        for (const text of dialect.begin) await run({ text, values: [] });
        for (const { drop } of await dialect.found(run)) for (const text of drop) await run({ text, values: [] });
        await run({ text: dialect.dropTable, values: [] });
      });
    },

    async missing() {
      const live = await reflect();
      const { wanted, found } = await reading((run) => compare(run, live));
      const table = live.some(({ name }) => name === MARKS_TABLE.name) ? [] : [`table ${MARKS_TABLE.name} is missing`];
      const triggers = wanted.filter((each) => !isAsWanted(each, found.get(each.name))).map(({ name }) =>
        `trigger ${name} ${found.get(name)?.table === undefined ? "is missing" : "is not as the service file says"}`);
      return [...table, ...triggers];
    },
  };
}
