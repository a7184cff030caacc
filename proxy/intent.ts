/**
 * The intent journal: durable notes of calls that may change rows, written before the call is forwarded and closed when its
 * changes are on the feed. What is open after a crash is looked at again. A note says where to look, never what was changed.
 *
 * On disk: "segment-<n>" files of records; a record is a header of 12 bytes (payload length, CRC-32 of the payload, CRC-32 of
 * those 8 bytes; little endian) and a JSON payload. Every new segment begins with all open intents, so older ones can go.
 *
 * Invariants: open resolves only after fdatasync of its record; waiting records share one write and one sync;
 * after a failed write its file is never used again (what the disk holds of it is unknown); a torn end is normal and cut
 * off, any other damage is kept as "damaged-<n>" until repaired() and makes the caller compare everything.
 * Errors: E_INTENT_UNAVAILABLE (disk away or full, or a bound reached); it ends by itself when the disk is back.
 * Not here: the disk (journal-file.ts), what an intent means (mutation.ts, replay.ts).
 */
import { crc32 } from "node:zlib";
import type { Cancel } from "../core/clock.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import { diskFolder, type JournalFile, type JournalFolder } from "./journal-file.ts";

/** Where to look after a call. */
export interface IntentNote {
  /** Capture.on, or "unknown". */
  readonly capture: string;
  readonly parameters: Readonly<Record<string, string>>;
  /** keyText of aggregates. */
  readonly keys: readonly string[];
  /** Kinds to compare whole. */
  readonly scans: readonly string[];
  /** Milliseconds since the epoch, for people. */
  readonly startedMs: number;
}

export interface Intent {
  readonly id: number;
  readonly note: IntentNote;
}

export interface JournalOptions {
  readonly folder: string;
  readonly segmentBytesMax: number;
  /** The whole journal; open notes may take a quarter of it: a segment holds up to twice as much, and compaction a copy. */
  readonly sizeBytesMax: number;
}

export const JOURNAL_DEFAULTS = { segmentBytesMax: 16 * 1024 * 1024, sizeBytesMax: 256 * 1024 * 1024 } as const;

export interface Journal {
  /** Notes a call. Durable when it resolves. @throws E_INTENT_UNAVAILABLE. */
  open(note: IntentNote): Promise<Intent>;
  /** Replaces parts of the note. Written with the next batch; if that is lost, the former note stays. */
  amend(intent: Intent, note: Partial<IntentNote>): void;
  /** The call's changes are on the feed. Written with the next batch; if that is lost, the intent is looked at once more. */
  close(intent: Intent): void;
  /** All open intents, oldest first; right after openJournal those of an earlier life. */
  opened(): readonly Intent[];
  /** Records of an earlier life were lost: compare everything, then call repaired(). */
  damaged(): boolean;
  repaired(): Promise<void>;
  /** Undefined while the journal can be written, else the reason. */
  unavailable(): string | undefined;
  /** Writes what waits and lets the folder go. */
  stop(): Promise<void>;
}

/** Records that wait for the disk at most. */
export const WAITING_BYTES_MAX = 8 * 1024 * 1024;
/** After a failed write the disk is tried again at most this often; notes in between fail at once. */
export const RETRY_MS = 1_000;
/** Closing records are written at the latest after this long. */
export const CLOSE_DELAY_MS = 200;

const HEADER_BYTES = 12;
const SEGMENT = /^segment-([0-9]+)$/;
const DAMAGED = /^damaged-([0-9]+)$/;

type JournalRecord = readonly ["note", number, IntentNote] | readonly ["close", number];

/** One record as bytes. */
export function encodeRecord(record: JournalRecord): Uint8Array {
  const payload = Buffer.from(JSON.stringify(record));
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.byteLength);
  bytes.writeUInt32LE(payload.byteLength, 0);
  bytes.writeUInt32LE(crc32(payload), 4);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 8)), 8);
  payload.copy(bytes, HEADER_BYTES);
  return bytes;
}

interface DecodedSegment {
  readonly records: readonly JournalRecord[];
  readonly end: "whole" | "torn" | "damaged";
}

/**
 * The records of a segment. "whole": they fill it; "torn": the last one was cut off, as a crash during a write does;
 * "damaged": something was there and is not what was written. Records before that are good in each case.
 */
export function decodeSegment(segment: Uint8Array): DecodedSegment {
  const bytes = Buffer.from(segment.buffer, segment.byteOffset, segment.byteLength);
  const records: JournalRecord[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const rest = bytes.subarray(at);
    // A crash may leave a longer file whose end was never written: zeros.
    if (rest.byteLength < HEADER_BYTES || rest.every((byte) => byte === 0)) return { records, end: "torn" };
    if (crc32(rest.subarray(0, 8)) !== rest.readUInt32LE(8)) return { records, end: "damaged" };
    const lengthBytes = rest.readUInt32LE(0);
    if (rest.byteLength < HEADER_BYTES + lengthBytes) return { records, end: "torn" };
    const payload = rest.subarray(HEADER_BYTES, HEADER_BYTES + lengthBytes);
    if (crc32(payload) !== rest.readUInt32LE(4)) return { records, end: "damaged" };
    // The checksum vouches that this is what encodeRecord wrote.
    records.push(JSON.parse(payload.toString("utf8")) as JournalRecord);
    at += HEADER_BYTES + lengthBytes;
  }
  return { records, end: "whole" };
}

interface Waiting {
  readonly bytes: Uint8Array;
  readonly durable: boolean;
  readonly settle: (error: OperatingError | undefined) => void;
}

interface OpenIntent {
  readonly intent: Intent;
  readonly sizeBytes: number;
}

class FileJournal implements Journal {
  readonly #folder: JournalFolder;
  readonly #options: JournalOptions;
  readonly #world: World;
  readonly #open = new Map<number, OpenIntent>();
  readonly #oldFiles = new Set<string>();
  readonly #damagedFiles = new Set<string>();
  #openBytes = 0;
  #nextId = 1;
  #nextSegment = 1;
  #file: { readonly name: string; readonly file: JournalFile; sizeBytes: number } | undefined;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #writing: Promise<void> | undefined;
  #failure: { readonly reason: string; readonly sinceMs: number } | undefined;
  #cancelClose: Cancel | undefined;
  #stopped = false;

  constructor(folder: JournalFolder, options: JournalOptions, world: World) {
    this.#folder = folder;
    this.#options = options;
    this.#world = world;
    world.metrics.gauge("holdfast_intents_open", () => this.#open.size);
    world.metrics.gauge("holdfast_intents_open_bytes", () => this.#openBytes);
    world.metrics.gauge("holdfast_intents_segment_bytes", () => this.#file?.sizeBytes ?? 0);
    world.metrics.gauge("holdfast_intents_waiting_bytes", () => this.#waitingBytes);
  }

  /** Reads what an earlier life left. Errors of the disk are thrown: without them nobody knows what is open. */
  async recover(): Promise<void> {
    const numbered: number[] = [];
    for (const name of await this.#folder.list()) {
      const number = SEGMENT.exec(name)?.[1] ?? DAMAGED.exec(name)?.[1];
      if (number === undefined) continue;
      this.#nextSegment = Math.max(this.#nextSegment, Number(number) + 1);
      if (DAMAGED.test(name)) this.#damagedFiles.add(name);
      else numbered.push(Number(number));
    }
    for (const number of numbered.sort((left, right) => left - right)) await this.#recoverSegment(`segment-${number}`);
  }

  async #recoverSegment(name: string): Promise<void> {
    const bytes = await this.#folder.read(name);
    const { records, end } = decodeSegment(bytes);
    for (const record of records) {
      this.#nextId = Math.max(this.#nextId, record[1] + 1);
      if (record[0] === "note") this.#remember({ id: record[1], note: record[2] });
      else this.#forget(record[1]);
    }
    this.#oldFiles.add(name);
    if (end === "torn") this.#world.log.info("the end of a journal segment was cut off", { segment: name });
    if (end !== "damaged") return;
    this.#world.log.error("a journal segment is damaged", { code: "E_INTENT_DAMAGED", segment: name, records: records.length });
    await this.#keepDamaged(name.replace("segment", "damaged"), bytes);
  }

  /** The mark must outlive this process: the comparison it asks for may not be finished in it. */
  async #keepDamaged(name: string, bytes: Uint8Array): Promise<void> {
    this.#damagedFiles.add(name);
    try {
      const copy = await this.#folder.create(name);
      await copy.append(bytes);
      await copy.sync();
      await copy.close();
    } catch (error) {
      // The segment itself stays until there is room for the copy, and is found damaged again.
      this.#oldFiles.delete(name.replace("damaged", "segment"));
      this.#world.log.warn("a damaged journal segment could not be set aside", factsOf(error));
    }
  }

  open(note: IntentNote): Promise<Intent> {
    const intent = { id: this.#nextId, note };
    this.#nextId += 1;
    const bytes = encodeRecord(["note", intent.id, note]);
    if (this.#openBytes + bytes.byteLength > this.#options.sizeBytesMax / 4) {
      return Promise.reject(unavailable("the journal is full of open intents", { openIntents: this.#open.size }));
    }
    return new Promise((resolve, reject) => {
      this.#enqueue({ bytes, durable: true, settle: (error) => {
        if (error !== undefined) return reject(error);
        this.#remember(intent);
        resolve(intent);
      } });
    });
  }

  amend(intent: Intent, note: Partial<IntentNote>): void {
    if (!this.#open.has(intent.id)) return;
    const amended = { id: intent.id, note: { ...intent.note, ...note } };
    if (this.#writeSoon(encodeRecord(["note", intent.id, amended.note]))) this.#remember(amended);
  }

  close(intent: Intent): void {
    if (this.#forget(intent.id)) this.#writeSoon(encodeRecord(["close", intent.id]));
  }

  /** Adds a record to the next batch, which comes after CLOSE_DELAY_MS at the latest; false when it cannot be taken. */
  #writeSoon(bytes: Uint8Array): boolean {
    if (this.#stopped || this.#waitingBytes >= WAITING_BYTES_MAX) return false;
    this.#waitingBytes += bytes.byteLength;
    this.#waiting.push({ bytes, durable: false, settle: () => undefined });
    this.#cancelClose ??= this.#world.clock.after(CLOSE_DELAY_MS, () => this.#write());
    return true;
  }

  opened(): readonly Intent[] {
    return [...this.#open.values()].map(({ intent }) => intent).sort((left, right) => left.id - right.id);
  }

  damaged(): boolean {
    return this.#damagedFiles.size > 0;
  }

  async repaired(): Promise<void> {
    for (const name of [...this.#damagedFiles]) {
      await this.#folder.remove(name);
      this.#damagedFiles.delete(name);
    }
  }

  unavailable(): string | undefined {
    return this.#failure?.reason;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelClose?.();
    this.#write();
    await this.#writing;
    await this.#file?.file.close().catch(() => undefined);
    this.#file = undefined;
    await this.#folder.release().catch(() => undefined);
  }

  #remember(intent: Intent): void {
    this.#forget(intent.id);
    const sizeBytes = encodeRecord(["note", intent.id, intent.note]).byteLength;
    this.#open.set(intent.id, { intent, sizeBytes });
    this.#openBytes += sizeBytes;
  }

  #forget(id: number): boolean {
    const noted = this.#open.get(id);
    if (noted === undefined) return false;
    this.#open.delete(id);
    this.#openBytes -= noted.sizeBytes;
    return true;
  }

  #enqueue(waiting: Waiting): void {
    if (this.#stopped) return waiting.settle(unavailable("the journal is stopped"));
    if (this.#waitingBytes + waiting.bytes.byteLength > WAITING_BYTES_MAX) {
      return waiting.settle(unavailable("the disk does not keep up"));
    }
    if (this.#failure !== undefined && this.#world.clock.monotonicMs() - this.#failure.sinceMs < RETRY_MS) {
      return waiting.settle(unavailable(this.#failure.reason));
    }
    this.#waitingBytes += waiting.bytes.byteLength;
    this.#waiting.push(waiting);
    this.#write();
  }

  /** Starts the one writer unless it runs. */
  #write(): void {
    if (this.#writing !== undefined || this.#waiting.length === 0) return;
    this.#writing = this.#writeBatches();
  }

  async #writeBatches(): Promise<void> {
    // Everything asked for in this turn of the event loop shares the first write.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      this.#waitingBytes = 0;
      this.#cancelClose?.();
      this.#cancelClose = undefined;
      const failure = await this.#writeBatch(batch).then(() => undefined, (error: unknown) => this.#failed(error));
      for (const waiting of batch) waiting.settle(failure);
    }
    // In the same turn as the last look at the queue: whoever comes later must find no writer and start one.
    this.#writing = undefined;
  }

  async #writeBatch(batch: readonly Waiting[]): Promise<void> {
    // Rotation pays for itself: at least as much again must have been written as it copies.
    const fullBytes = Math.max(this.#options.segmentBytesMax, 2 * this.#openBytes);
    if (this.#file === undefined || this.#file.sizeBytes > fullBytes) await this.#rotate();
    const current = this.#file;
    if (current === undefined) throw unavailable("there is no segment");
    const bytes = Buffer.concat(batch.map((waiting) => waiting.bytes));
    await current.file.append(bytes);
    current.sizeBytes += bytes.byteLength;
    if (batch.some((waiting) => waiting.durable)) await current.file.sync();
    if (this.#failure !== undefined) this.#world.log.info("the intent journal can be written again");
    this.#failure = undefined;
  }

  /** A new segment that begins with everything open; the older ones are removed once it is on the disk. */
  async #rotate(): Promise<void> {
    const before = this.#file;
    this.#file = undefined;
    if (before !== undefined) {
      this.#oldFiles.add(before.name);
      await before.file.close();
    }
    const name = `segment-${this.#nextSegment}`;
    this.#nextSegment += 1;
    const file = await this.#folder.create(name);
    const bytes = Buffer.concat(this.opened().map(({ id, note }) => encodeRecord(["note", id, note])));
    try {
      await file.append(bytes);
      await file.sync();
    } catch (error) {
      await file.close().catch(() => undefined);
      await this.#folder.remove(name).catch(() => undefined);
      throw error;
    }
    this.#file = { name, file, sizeBytes: bytes.byteLength };
    for (const old of [...this.#oldFiles]) {
      await this.#folder.remove(old);
      this.#oldFiles.delete(old);
    }
  }

  #failed(error: unknown): OperatingError {
    const broken = this.#file;
    this.#file = undefined;
    if (broken !== undefined) {
      this.#oldFiles.add(broken.name);
      void broken.file.close().catch(() => undefined);
    }
    const reason = error instanceof Error ? error.message : String(error);
    if (this.#failure === undefined) this.#world.log.error("the intent journal cannot be written", factsOf(error));
    this.#failure = { reason, sinceMs: this.#world.clock.monotonicMs() };
    this.#world.metrics.count("holdfast_intents_write_failures");
    return isOperating(error) ? error : unavailable(reason, {}, error);
  }
}

function unavailable(reason: string, facts: Readonly<Record<string, number>> = {}, cause?: unknown): OperatingError {
  return new OperatingError("E_INTENT_UNAVAILABLE", reason, facts, cause);
}

/**
 * Takes the folder, reads what is open and is ready for notes; a full disk is found out by the first note.
 * @throws E_INTENT_UNAVAILABLE when another process holds the folder, or it cannot be made or read.
 */
export async function openJournal(options: JournalOptions, world: World,
  folder: JournalFolder = diskFolder(options.folder)): Promise<Journal> {
  const journal = new FileJournal(folder, options, world);
  try {
    await folder.claim();
    await journal.recover();
  } catch (error) {
    throw isOperating(error) ? error : unavailable(error instanceof Error ? error.message : String(error), {}, error);
  }
  return journal;
}
