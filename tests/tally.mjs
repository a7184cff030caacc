/**
 * A mocha reporter for tests/run.mjs: shows what the spec reporter shows only where something went wrong or was skipped, and
 * leaves the counts as JSON in the file named by HOLDFAST_TEST_TALLY.
 */
import { writeFileSync } from "node:fs";
import Mocha from "mocha";

const { EVENT_RUN_END, EVENT_TEST_FAIL, EVENT_TEST_PENDING } = Mocha.Runner.constants;

/** Mocha looks for a constructor as the module's default; it is the one place where this house has one. */
class Tally extends Mocha.reporters.Base {
  constructor(runner, options) {
    super(runner, options);
    const skipped = [];
    runner.on(EVENT_TEST_PENDING, (test) => skipped.push(test.fullTitle()));
    runner.on(EVENT_TEST_FAIL, (test) => process.stdout.write(`    failed: ${test.fullTitle()}\n`));
    runner.once(EVENT_RUN_END, () => {
      if (runner.stats.failures > 0) this.epilogue();
      for (const title of skipped) process.stdout.write(`    skipped: ${title}\n`);
      const file = process.env.HOLDFAST_TEST_TALLY;
      const { passes: passed, failures: failed } = runner.stats;
      if (file !== undefined) writeFileSync(file, JSON.stringify({ passed, failed, skipped: skipped.length }));
    });
  }
}

export { Tally as default };
