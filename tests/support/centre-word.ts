/** What the centre says when a row audit asks whether something is really gone, for tests without a centre's database. */

/** The ledger is whole, and the centre has nothing of what is asked about. */
export const PROVEN = { isProven: () => true, confirmGone: (names: readonly string[]): Promise<ReadonlySet<string>> =>
  Promise.resolve(new Set(names)) };
