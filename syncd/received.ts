/** From a message of the feed to a change at its place, with the text that the ledger keeps. Pure. */
import { isOperating, OperatingError } from "../core/errors.ts";
import type { FeedMessage } from "../feed/feed.ts";
import { heartbeatSubject, keyOfSubject, manifestSubject } from "../feed/subjects.ts";
import { changeOf, decodeChange, type PlacedChange } from "../schemas/change.ts";
import type { Service } from "../schemas/define.ts";
import { decodeHeartbeat, decodeManifest, type Manifest } from "../schemas/manifest.ts";
import type { Version } from "../schemas/position.ts";
import { keyText, type AggregateKey } from "../schemas/row.ts";
import type { PlacedHeartbeat } from "./heard.ts";

/** A change on its way into the database. `payload` is the message's own text; undefined for a tombstone. */
export interface Received extends PlacedChange {
  readonly payload: string | undefined;
}

/** A message of an aggregate that cannot be read as a change: quarantined under its key. */
export interface Unreadable {
  readonly key: AggregateKey;
  readonly version: Version;
  readonly payload: string;
  readonly error: OperatingError;
}

export type Arrival = { readonly kind: "change"; readonly change: Received }
  | { readonly kind: "unreadable"; readonly unreadable: Unreadable }
  | { readonly kind: "heartbeat"; readonly heartbeat: PlacedHeartbeat }
  | { readonly kind: "manifest"; readonly manifest: Manifest }
  /** A word of the centre about the whole stream that this release does not know, or cannot read. */
  | { readonly kind: "control"; readonly because: string | undefined };

/** Epoch of a message; 0 when the header is absent, so that it loses to every proper one. */
export function epochOf(message: FeedMessage): number {
  const epoch = Number(message.headers["Hf-Epoch"] ?? "0");
  return Number.isSafeInteger(epoch) && epoch >= 0 ? epoch : 0;
}

/** Reads one message. A schema revision that the service file was not verified against makes it unreadable here. */
export function receive(service: Service, message: FeedMessage): Arrival {
  const key = keyOfSubject(message.subject);
  if (key === undefined) return receiveControl(service, message);
  const version = { epoch: epochOf(message), sequence: message.sequence };
  const payload = Buffer.from(message.payload.buffer, message.payload.byteOffset, message.payload.byteLength).toString("utf8");
  try {
    const change = decodeChange(service, message.subject, message.payload);
    const unknown = change.schema.split("+").filter((revision) => !service.migrations.verified.includes(revision));
    if (unknown.length > 0) {
      throw new OperatingError("E_SCHEMA_UNKNOWN",
        `read under schema revision ${unknown.join(", ")}, which this version was not verified against`);
    }
    if (keyText(change.image.key) !== keyText(key)) throw new OperatingError("E_CHANGE_UNREADABLE",
      "the payload names another aggregate than the subject");
    return { kind: "change", change: { ...change, version, payload: change.image.rows === undefined ? undefined : payload } };
  } catch (error) {
    if (!isOperating(error)) throw error;
    return { kind: "unreadable", unreadable: { key, version, payload, error } };
  }
}

/** Control messages are about everything, so one that cannot be read is nobody's to quarantine: it says nothing. */
function receiveControl(service: Service, message: FeedMessage): Arrival {
  const { subject, payload, sequence } = message;
  const scope = subject.split(".")[3] ?? "";
  try {
    if (subject === heartbeatSubject(service.name, scope)) {
      return { kind: "heartbeat", heartbeat: { ...decodeHeartbeat(subject, payload), sequence } };
    }
    if (subject === manifestSubject(service.name, scope)) return { kind: "manifest", manifest: decodeManifest(subject, payload) };
    return { kind: "control", because: undefined };
  } catch (error) {
    if (!isOperating(error)) throw error;
    return { kind: "control", because: error.message };
  }
}

/** A change read back from the ledger's text. */
export function receiveAgain(service: Service,
  waiting: { readonly key: AggregateKey; readonly version: Version; readonly payload: string | undefined }): Arrival {
  const payload = Buffer.from(waiting.payload ?? tombstoneText(service, waiting.key));
  return receive(service, { subject: `os.v1.${service.name}.all.${keyText(waiting.key)}`, sequence: waiting.version.sequence,
    headers: { "Hf-Epoch": String(waiting.version.epoch) }, payload });
}

/** What this site itself concludes: the aggregate is gone. The version is the one that the conclusion is about. */
export function removalOf(service: Service, key: AggregateKey, version: Version): Received {
  return { ...changeOf({ key, rows: undefined }, service.migrations.verified[0] ?? ""), version, payload: undefined };
}

function tombstoneText(service: Service, key: AggregateKey): string {
  return JSON.stringify({ wire: 1, kind: key.kind, key: key.values, schema: service.migrations.verified[0] ?? "" });
}
