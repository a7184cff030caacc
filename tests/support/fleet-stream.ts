/**
 * The stream of a fleet, seen from outside: what its images say, row by row; which acknowledged images a killed server has
 * lost; and what may befall the stream itself. Nothing here is the product's comparison: images are decoded and their rows laid
 * beside those of the databases.
 */
import { connect } from "@nats-io/transport-node";
import { readFileSync } from "node:fs";
import type { Feed } from "../../feed/feed.ts";
import { openJetstream } from "../../feed/jetstream.ts";
import { filterOf, keyOfSubject, SCOPE_ALL, streamOf, subjectPrefix } from "../../feed/subjects.ts";
import { CENTRE } from "../../lab/options.ts";
import type { StreamAccess } from "../../lab/record.ts";
import { until } from "../../lab/waiting.ts";
import { decodeChange } from "../../schemas/change.ts";
import type { Service } from "../../schemas/define.ts";
import { keystone } from "../../schemas/keystone.ts";
import { pickColumns, rowText } from "../../schemas/row.ts";
import { quietWorld, type Content } from "./fleet-compare.ts";

const BATCH = { batchMessagesMax: 1_000, batchBytesMax: 4 * 1024 * 1024 };
const READ_MS = 60_000;
const PUBLISH_MS = 5_000;

/** A feed with the centre's rights and a connection of its own. */
export function openFeed(access: StreamAccess, site: string, service: Service = keystone): Feed {
  return openJetstream({ servers: [access.url], user: CENTRE, password: access.passwords.centre,
    tls: { caPath: access.authority, certPath: undefined, keyPath: undefined }, service: service.name, scope: SCOPE_ALL,
    role: "centre", site, publishTimeoutMs: PUBLISH_MS, reconnectLastMs: 500 }, quietWorld);
}

/** Every row that the stream's live images hold, by table, as compareDatabases has them of a database. */
export async function contentOfStream(feed: Feed, service: Service = keystone): Promise<Content> {
  const content = new Map([...service.tables.keys()].map((table) => [table, new Map<string, string>()]));
  const newest = new Map<string, ReadonlyMap<string, readonly [string, string][]>>();
  const options = { filter: filterOf(service.name, SCOPE_ALL), after: 0, untilTip: true, ...BATCH };
  for await (const batch of feed.read(options, AbortSignal.timeout(READ_MS))) {
    for (const { subject, headers, payload } of batch) {
      if (keyOfSubject(subject) === undefined) continue;
      const rows = headers["Hf-Deleted"] === undefined ? decodeChange(service, subject, payload).image.rows ?? {} : {};
      newest.set(subject, new Map(Object.entries(rows).map(([name, found]) => {
        const table = service.tables.get(name);
        return [name, table === undefined ? [] : found.map((row): [string, string] =>
          [rowText(row, table.key), rowText(pickColumns(row, table.sent), table.sent)])];
      })));
    }
  }
  for (const tables of newest.values()) {
    for (const [name, rows] of tables) for (const [key, text] of rows) content.get(name)?.set(key, text);
  }
  return content;
}

/** What the stream holds of every image subject: its sequence. Read from the messages themselves, without an index. */
export async function sequencesOf(access: StreamAccess, service: Service = keystone): Promise<ReadonlyMap<string, number>> {
  const feed = openFeed(access, "witness", service);
  const found = new Map<string, number>();
  try {
    const wait = { what: "a connection to the stream server", withinMs: READ_MS, log: access.authority };
    await until(wait, () => Promise.resolve(feed.disconnected() === undefined));
    const options = { filter: filterOf(service.name, SCOPE_ALL), after: 0, untilTip: true, headersOnly: true, ...BATCH };
    for await (const batch of feed.read(options, AbortSignal.timeout(READ_MS))) {
      for (const { subject, sequence } of batch) found.set(subject, Math.max(sequence, found.get(subject) ?? 0));
    }
    return found;
  } finally {
    await feed.close();
  }
}

/** Deletes the service's stream, as an operator would by mistake. */
export async function deleteStream(access: StreamAccess, service: Service = keystone): Promise<void> {
  const connection = await connect({ servers: [access.url], user: CENTRE, pass: access.passwords.centre.reveal(),
    tls: { ca: readFileSync(access.authority, "utf8") } });
  try {
    const answer = await connection.request(`$JS.API.STREAM.DELETE.${streamOf(service.name)}`, "", { timeout: PUBLISH_MS });
    const { success } = answer.json<{ readonly success?: boolean }>();
    if (success !== true) throw new Error(`the stream was not deleted: ${answer.string()}`);
  } finally {
    await connection.close();
  }
}

/** The prefix of every image subject of the service. */
export function imagesOf(service: Service = keystone): string {
  return `${subjectPrefix(service.name, SCOPE_ALL)}.`;
}
