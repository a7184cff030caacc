/**
 * What a tempest run said, test by test, and how two runs differ. Pure.
 * Source of the lines: `tempest run` prints one line per test through subunit-trace, "{worker} name [seconds] ... outcome", and
 * "{worker} setUpClass (class) ... SKIPPED: reason" when a whole class was skipped. Read from tempest 33.
 */

export type Verdict = "passed" | "failed" | "skipped";

/** Verdict by test. */
export type Verdicts = ReadonlyMap<string, Verdict>;

const LINE = /^\{\d+\} (.+?)(?: \[\d+(?:\.\d+)?s\])? \.\.\. (ok|FAILED|SKIPPED|\*\*\* FAILED)/;
const VERDICT_OF: Readonly<Record<string, Verdict>> = { ok: "passed", FAILED: "failed", "*** FAILED": "failed",
  SKIPPED: "skipped" };

/** The verdicts in the output of `tempest run`. Names lose their attributes ("[id-…,smoke]"), which differ between releases. */
export function verdictsIn(output: string): Verdicts {
  const verdicts = new Map<string, Verdict>();
  for (const line of output.split("\n")) {
    const [, name, outcome] = LINE.exec(line.trim()) ?? [];
    const verdict = VERDICT_OF[outcome ?? ""];
    if (name !== undefined && verdict !== undefined) verdicts.set(name.replace(/\[[^\]]*\]$/, ""), verdict);
  }
  return verdicts;
}

/** How many tests tempest itself says it ran: as many verdicts must have been read. */
export function testsRun(output: string): number {
  return Number(/^Ran: (\d+) tests/m.exec(output)?.[1] ?? 0);
}

/** How many tests ended that way. */
export function countOf(verdicts: Verdicts, verdict: Verdict): number {
  return [...verdicts.values()].filter((each) => each === verdict).length;
}

/** A test that did not end alike on both ways; "absent" when it did not run. */
export interface VerdictDifference {
  readonly test: string;
  readonly direct: Verdict | "absent";
  readonly proxied: Verdict | "absent";
}

/** Every test that ended differently, by name. */
export function differencesOf(direct: Verdicts, proxied: Verdicts): readonly VerdictDifference[] {
  const names = [...new Set([...direct.keys(), ...proxied.keys()])].sort();
  return names.map((test): VerdictDifference =>
    ({ test, direct: direct.get(test) ?? "absent", proxied: proxied.get(test) ?? "absent" }))
    .filter((each) => each.direct !== each.proxied);
}

/**
 * Failed tests whose traceback is a broken connection. Debian's uWSGI closes connections as it pleases, and once in thousands of
 * calls a client that goes straight to it writes into a closing one.
 */
export function brokenConnections(output: string, verdicts: Verdicts): readonly string[] {
  // subunit-trace prints a failed test's name alone on a line, a line of dashes, then what was captured.
  const chapters = output.split(/^(?=\S+\n-{10,}$)/m);
  return [...verdicts].filter(([, verdict]) => verdict === "failed").map(([test]) => test).filter((test) =>
    chapters.some((chapter) => chapter.startsWith(test) && BROKEN.test(chapter)));
}

const BROKEN = /ConnectionResetError|ConnectionRefusedError|Connection aborted|ECONNRESET|ProtocolError/;
