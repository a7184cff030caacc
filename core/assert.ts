/**
 * Programmer errors. A failed assertion is a bug in Holdfast: it is thrown, caught by nobody, and ends the process;
 * the supervisor restarts it, and no data is at risk because durable state only moves in transactions.
 * What can go wrong outside this program is not a bug: see core/errors.ts.
 */

/** A statement that only a bug in Holdfast can make false. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** Throws an AssertionError with `law` unless `truth` holds. `law` names what must always be so. */
export function assert(truth: unknown, law: string): asserts truth {
  if (truth === false || truth === undefined || truth === null) throw new AssertionError(law);
}

/** Marks a branch that the types prove to be dead; reaching it at run time is a bug. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${String(value)}`);
}

/** The value, which only a bug could have left undefined. */
export function present<T>(value: T | undefined | null, law: string): T {
  assert(value !== undefined && value !== null, law);
  return value;
}
