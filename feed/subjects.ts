/**
 * The subject grammar and the stream's fixed settings.
 *   os.v1.<service>.<scope>.<kind>.<key...>   images; <scope> first, so that one prefix is one permission
 *   os.v1.<service>.<scope>._hb, ._manifest   the auditor's word about the whole stream; in the stream like any other subject
 *   os.status.v1.<service>.<site>             status reports, not stored in the service's stream
 *   os.ask.v1.<service>.audit.<site>          questions of a site to the auditor; not stored
 *   os.ask.v1.<service>.site.<site>           questions of the centre to a site; not stored
 *   os.answer.v1.<service>.<site>.<question>  what a site answers; not stored
 * The scope says who may read: "all" is every site.
 */
import { keyFromText, keyText, type AggregateKey } from "../schemas/row.ts";

export const SCOPE_ALL = "all";

/** Name of the service's stream. */
export function streamOf(service: string): string {
  return `HOLDFAST_${service.toUpperCase()}`;
}

/** What every image subject of a scope begins with; the permission of those who may read it. */
export function subjectPrefix(service: string, scope: string): string {
  return `os.v1.${service}.${scope}`;
}

/** The subject of one aggregate. */
export function subjectOf(service: string, scope: string, key: AggregateKey): string {
  return `${subjectPrefix(service, scope)}.${keyText(key)}`;
}

/** The key behind a subject; undefined for control subjects (their first token after the scope starts with "_"). */
export function keyOfSubject(subject: string): AggregateKey | undefined {
  const tail = subject.split(".").slice(4).join(".");
  return tail === "" || tail.startsWith("_") ? undefined : keyFromText(tail);
}

/** Every aggregate of a scope, or of one kind of it. */
export function filterOf(service: string, scope: string, kind?: string): string {
  return kind === undefined ? `${subjectPrefix(service, scope)}.>` : `${subjectPrefix(service, scope)}.${kind}.>`;
}

/** Where a site reports how it is. */
export function statusSubject(service: string, site: string): string {
  return `os.status.v1.${service}.${site}`;
}

/** Where the auditor's heartbeats are. */
export function heartbeatSubject(service: string, scope: string): string {
  return `${subjectPrefix(service, scope)}._hb`;
}

/** Where the auditor's manifests are. */
export function manifestSubject(service: string, scope: string): string {
  return `${subjectPrefix(service, scope)}._manifest`;
}

/** Where `site` asks the auditor; "*" as the site: where the auditor hears all of them. */
export function auditAskSubject(service: string, site: string): string {
  return `os.ask.v1.${service}.audit.${site}`;
}

/** Where the centre asks `site`. */
export function siteAskSubject(service: string, site: string): string {
  return `os.ask.v1.${service}.site.${site}`;
}

/** Everywhere `site` may answer to: one more token for each question. */
export function answersOfSite(service: string, site: string): string {
  return `os.answer.v1.${service}.${site}.>`;
}

/**
 * Where the answer to a question on `askSubject` must go. Undefined: to the asker's inbox, because whoever serves it may write
 * there, as the centre may.
 * @param question  a plain token that no other question has
 */
export function answerSubjectOf(askSubject: string, question: string): string | undefined {
  const [, service, site] = /^os\.ask\.v1\.([^.]+)\.site\.([^.]+)$/.exec(askSubject) ?? [];
  return service === undefined || site === undefined ? undefined : `os.answer.v1.${service}.${site}.${question}`;
}
