/**
 * One work at a time on a site's applier: batches of the tail, sweeps, checks, repairs and what operators ask for queue up
 * here in order of arrival, so that no commit falls between a look at the ledger and what is concluded from it. Works while the
 * feed is cut as well: only the works that need the feed fail then.
 *
 * Bound: WORKS_WAITING_MAX; every caller waits for its own work before it brings the next, so reaching it is a bug.
 */
import { assert } from "../core/assert.ts";

const WORKS_WAITING_MAX = 1_000;

/** See the file's head. */
export class Works {
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** Does `work` when everything that was brought before is done; gives what it gives and throws what it throws. */
  run<T>(work: () => Promise<T>): Promise<T> {
    assert(this.#waiting < WORKS_WAITING_MAX, `at most ${WORKS_WAITING_MAX} works wait for a site's applier`);
    this.#waiting += 1;
    const done = this.#last.then(work).finally(() => (this.#waiting -= 1));
    this.#last = done.catch(() => undefined);
    return done;
  }
}
