/**
 * How a stream of images must be set up, and which server is fit to hold it. Pure decisions; feed/jetstream.ts acts on them.
 *
 * Invariants: a stream that could drop an image by itself (by age, by number, by making room for others, by keeping it in
 * memory only) is never used and never silently changed: a person decides. Settings that only make it smaller or slower
 * are raised. Outside facts, each observed on nats-server 2.9.10 or read in its issue tracker: "discard old" deletes the
 * only image of other aggregates when the stream is full; expectations in a cluster are checked at one place only since
 * 2.11; below 2.10 a killed server may show an older image of a subject afterwards.
 */
import { DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig, type StreamInfo } from "@nats-io/jetstream";
import type { StreamState } from "./feed.ts";
import { streamOf } from "./subjects.ts";

/** Time in which the server recognises the very same message. */
export const DUPLICATE_WINDOW_MS = 120_000;
const NANOSECONDS_PER_MS = 1_000_000;
/** Bytes below which no stream is made: a server with less to give is an operator's matter. */
export const STREAM_BYTES_LEAST = 64 * 1024 * 1024;

export interface StreamWish {
  readonly service: string;
  readonly replicas: number;
  readonly sizeBytesMax: number;
}

type Wanted = Pick<StreamConfig, "name" | "subjects" | "storage" | "retention" | "discard" | "max_msgs_per_subject" | "max_msgs" |
  "max_age" | "max_bytes" | "max_msg_size" | "allow_direct" | "deny_delete" | "deny_purge" | "duplicate_window" | "num_replicas">;

/** The stream's settings as the server writes them. Purging stays allowed: tombstones are collected by it. */
export function streamSettings(wish: StreamWish): Wanted {
  return {
    name: streamOf(wish.service), subjects: [`os.v1.${wish.service}.>`], storage: StorageType.File,
    retention: RetentionPolicy.Limits, discard: DiscardPolicy.New, max_msgs_per_subject: 1, max_msgs: -1, max_age: 0,
    max_bytes: wish.sizeBytesMax, max_msg_size: -1, allow_direct: true, deny_delete: true, deny_purge: false,
    duplicate_window: DUPLICATE_WINDOW_MS * NANOSECONDS_PER_MS, num_replicas: wish.replicas,
  };
}

/** Every setting of an existing stream with which it could lose or misplace images, as sentences; none when it is safe. */
export function unsafeSettings(found: StreamConfig, wanted: Wanted): readonly string[] {
  const faults: string[] = [];
  const expect = (name: string, actual: unknown, expected: unknown): void => {
    if (actual !== expected) faults.push(`${name} is ${String(actual)} and must be ${String(expected)}`);
  };
  expect("subjects", [...(found.subjects ?? [])].sort().join(" "), wanted.subjects.join(" "));
  expect("storage", found.storage, wanted.storage);
  expect("retention", found.retention, wanted.retention);
  expect("discard", found.discard, wanted.discard);
  expect("max_msgs_per_subject", found.max_msgs_per_subject, wanted.max_msgs_per_subject);
  expect("max_msgs", found.max_msgs, wanted.max_msgs);
  expect("max_age", found.max_age, wanted.max_age);
  expect("max_msg_size", found.max_msg_size, wanted.max_msg_size);
  if (found.mirror !== undefined || (found.sources ?? []).length > 0) faults.push("it copies other streams and must not");
  if (found.sealed) faults.push("it is sealed and must take messages");
  if (found.no_ack) faults.push("no_ack is true and must be false");
  return faults;
}

/** What to change of a safe stream so that it is large and quick enough; undefined when nothing. Never makes it smaller. */
export function streamRepairs(found: StreamConfig, wanted: Wanted): Partial<StreamConfig> | undefined {
  const repairs: Partial<StreamConfig> = {
    ...(found.max_bytes < wanted.max_bytes ? { max_bytes: wanted.max_bytes } : {}),
    ...(found.num_replicas < wanted.num_replicas ? { num_replicas: wanted.num_replicas } : {}),
    ...(found.duplicate_window < wanted.duplicate_window ? { duplicate_window: wanted.duplicate_window } : {}),
    ...(found.allow_direct ? {} : { allow_direct: true }),
    ...(found.deny_delete ? {} : { deny_delete: true }),
    ...(found.deny_purge ? { deny_purge: false } : {}),
  };
  return Object.keys(repairs).length === 0 ? undefined : repairs;
}

/** The port's view of a stream; times as the server writes them. */
export function stateOf(found: StreamInfo): StreamState {
  return {
    created: found.created, firstSequence: found.state.first_seq, lastSequence: found.state.last_seq,
    sizeBytes: found.state.bytes, sizeBytesMax: found.config.max_bytes, messages: found.state.messages,
  };
}

/** -1, 0 or 1 as the dotted version `left` is older than, the same as, or newer than `right`; suffixes do not count. */
export function compareServerVersions(left: string, right: string): number {
  const parts = (version: string): number[] => (version.match(/\d+/g) ?? []).slice(0, 3).map(Number);
  const [ours, theirs] = [parts(left), parts(right)];
  for (let place = 0; place < 3; place += 1) {
    const order = (ours[place] ?? 0) - (theirs[place] ?? 0);
    if (order !== 0) return Math.sign(order);
  }
  return 0;
}

/** Why a server of this version needs care, as a sentence; undefined when it does not. */
export function versionWarning(version: string, clustered: boolean): string | undefined {
  if (clustered && compareServerVersions(version, "2.11.5") < 0) {
    return "before 2.11.5 servers in a cluster may accept two images that expect the same one";
  }
  if (compareServerVersions(version, "2.10.0") < 0) {
    return "before 2.10 a killed server may show older images of some aggregates afterwards; the audit repairs them";
  }
  return undefined;
}
