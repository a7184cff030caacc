/**
 * The subject grammar and the stream's fixed settings.
 *   os.v1.<service>.<scope>.<kind>.<key...>   images; <scope> first, so that one prefix is one permission
 *   os.status.v1.<service>.<site>             status reports, not stored in the service's stream
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
