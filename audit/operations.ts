/**
 * What the centre's daemon does when it is asked, by a person at this machine (main.ts), for the service named in the input or
 * for each in turn. Questions about a site are passed on to it over the stream server.
 *
 *   audit {now?, service?}                          the last report of each service, or a new one
 *   diff {site, service?, kind?}                    the site's rows beside the centre's (diff.ts)
 *   resync {site}, quarantine.* {site, name?}       done by the site (syncd/operations.ts)
 *   held.list|release|reject {kind?, site?}         at the centre, or by the site
 *
 * Invariants: input is checked here or where it is passed on to; an answer is a list; everything may be asked twice. Where
 * several services were asked, those that have nothing under that name are left out.
 */
import { isOperating, OperatingError } from "../core/errors.ts";
import type { Input, JsonValue, Operation, Operations } from "../core/operation.ts";
import type { World } from "../core/world.ts";
import { relayToSite } from "../feed/asking.ts";
import type { Feed } from "../feed/feed.ts";
import type { Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import type { Auditor } from "./auditor.ts";
import { Diff } from "./diff.ts";
import { decideAtCentre, heldAtCentre } from "./holdings.ts";
import { untilStopped } from "./patience.ts";

/** One service at the centre, as operations need it. */
export interface AuditedService {
  readonly service: Service;
  readonly rows: Rows;
  readonly feed: Feed;
  readonly auditor: Auditor;
}

/** Longest wait for a site; a database that has to think may need it. */
const SITE_TIMEOUT_MS = 60_000;
const SITE_NAME = /^[0-9A-Za-z_-]{1,64}$/;

function refuse(message: string): OperatingError {
  return new OperatingError("E_OPERATION_INPUT", message);
}

/** Does something for one service. */
type OfService = (audited: AuditedService) => Operation;

/** The operations of these services together. */
export function centreOperations(services: readonly AuditedService[], world: World): Operations {
  const ofServices = (work: OfService): Operation => async (input, progress, signal) => {
    const asked = services.filter(({ service }) => input["service"] === undefined || input["service"] === service.name);
    if (asked.length === 0) throw refuse(`there is no service "${String(input["service"])}" here`);
    const answers: JsonValue[] = [];
    let refusal: OperatingError | undefined;
    for (const each of asked) {
      try {
        const answer = await work(each)(input, progress, signal);
        answers.push(...(Array.isArray(answer) ? answer as readonly JsonValue[] : [answer]));
      } catch (error) {
        if (!isOperating(error, "E_OPERATION_INPUT")) throw error;
        refusal = error;
      }
    }
    if (answers.length === 0 && refusal !== undefined) throw refusal;
    return answers;
  };
  const relayed = (op: string): OfService => ({ feed, service }) => relayToSite(feed, service.name, op, SITE_TIMEOUT_MS);
  const operations: Readonly<Record<string, OfService>> = {
    audit: ({ auditor }) => (input, progress, signal) => auditOperation(auditor, input, progress, signal),
    diff: (audited) => (input, progress, signal) => diffOperation(audited, world, input, progress, signal),
    ...Object.fromEntries(["resync", "quarantine.list", "quarantine.show", "quarantine.retry", "quarantine.drop"]
      .map((op) => [op, relayed(op)])),
    "held.list": (audited) => atCentreOrSite(relayed("held.list")(audited), () => heldAtCentre(audited)),
    "held.release": (audited) => atCentreOrSite(relayed("held.release")(audited), async (input) => {
      const note = await decideAtCentre(audited, kindIn(audited.service, input), "released");
      void audited.auditor.compareKind(kindIn(audited.service, input));
      return note;
    }),
    "held.reject": (audited) => atCentreOrSite(relayed("held.reject")(audited), (input) =>
      decideAtCentre(audited, kindIn(audited.service, input), "rejected")),
  };
  return new Map(Object.entries(operations).map(([name, work]) => [name, ofServices(work)]));
}

function atCentreOrSite(atSite: Operation, atCentre: (input: Input) => Promise<JsonValue>): Operation {
  return (input, progress, signal) => (input["site"] === undefined ? atCentre(input) : atSite(input, progress, signal));
}

function kindIn(service: Service, input: Input): string {
  const { kind } = input;
  if (typeof kind === "string" && service.kinds.has(kind)) return kind;
  throw refuse(`${service.name} has no kind "${String(kind)}"`);
}

const auditOperation = async (auditor: Auditor, input: Input, progress: Parameters<Operation>[1],
  signal: AbortSignal): Promise<JsonValue> => {
  const { now = false } = input;
  if (typeof now !== "boolean") throw refuse('"now" has to be true or false');
  const report = now ? await untilStopped(auditor.auditNow(progress), signal) : auditor.report;
  return report === undefined ? [] : { ...report };
};

function diffOperation({ service, rows, feed }: AuditedService, world: World, input: Input, progress: Parameters<Operation>[1],
  signal: AbortSignal): Promise<JsonValue> {
  const { site, kind } = input;
  if (typeof site !== "string" || !SITE_NAME.test(site)) throw refuse('"diff" needs the name of a site');
  const kinds = kind === undefined ? [...service.kinds.keys()] : [kindIn(service, input)];
  return new Diff({ service, rows, feed }, world, { site, kinds, progress, signal }).run();
}
