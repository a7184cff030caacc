/**
 * One event per line: a fixed message, facts as fields. Normal operation is quiet; a warning means somebody should look,
 * an error means somebody must. Values of type Secret print as "[sealed]". This file and cli/ are the only homes of
 * standard output.
 */
import { pino } from "pino";
import { isOperating, type Facts } from "./errors.ts";

export interface Log {
  debug(message: string, facts?: Facts): void;
  info(message: string, facts?: Facts): void;
  warn(message: string, facts?: Facts): void;
  error(message: string, facts?: Facts): void;
  /** The same log with `facts` on every line. */
  with(facts: Facts): Log;
}

export type LogLevel = "debug" | "info" | "warn" | "error";

interface Sink {
  debug(facts: object, message: string): void;
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
  child(facts: object): Sink;
}

function logTo(sink: Sink): Log {
  return {
    debug: (message, facts = {}) => sink.debug(facts, message),
    info: (message, facts = {}) => sink.info(facts, message),
    warn: (message, facts = {}) => sink.warn(facts, message),
    error: (message, facts = {}) => sink.error(facts, message),
    with: (facts) => logTo(sink.child(facts)),
  };
}

/** JSON lines on standard output, from `level` upwards. */
export function processLog(level: LogLevel, facts: Facts): Log {
  return logTo(pino({ level, base: { ...facts }, timestamp: pino.stdTimeFunctions.isoTime }));
}

const NOTHING: Log = { debug() {}, info() {}, warn() {}, error() {}, with: () => NOTHING };

/** For tests and simulation: says nothing. */
export const silentLog: Log = NOTHING;

/** What a log line may say about an error: its code and facts, or its message; never a stack of a known error. */
export function factsOf(error: unknown): Facts {
  if (isOperating(error)) return { code: error.code, reason: error.message, ...error.facts };
  if (error instanceof Error) return { reason: error.message, stack: error.stack };
  return { reason: String(error) };
}
