/**
 * What a site's user may do on the stream server, in the server's own permission lists. Whoever sets up a server grants
 * exactly these; anything else a site tries is refused, so a stolen site password reads one scope and writes nothing that
 * another site believes.
 *
 * Invariants: every list is exact for one site, one service and one scope; a site never gets STREAM.INFO (it lists every
 * subject of the stream) nor a consumer under another name (it could take another site's).
 * What a site answers goes to subjects of its own and not to wherever the asker wishes: a server that is told `allow_responses`
 * remembers the reply subject of every message it delivers, and in 2.9 searches them all at every further one; a site that read
 * 20,000 messages in 0.3 s then took 7 s, and one with 100,000 came to no end.
 * Outside fact: since nats-server 2.9 a consumer's name and filter are part of the request's subject and must match its body.
 */
import { answersOfSite, auditAskSubject, siteAskSubject, streamOf, statusSubject, subjectPrefix } from "./subjects.ts";

/** The reader that follows the stream, and the one for everything else; both have fixed names so that they can be granted. */
export function siteConsumers(site: string): { readonly tail: string; readonly fill: string } {
  return { tail: site, fill: `${site}_fill` };
}

/** Prefix of the subjects at which a connection hears its answers. */
export function inboxPrefixOf(name: string): string {
  return `_INBOX_${name}`;
}

export interface Permissions {
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
}

/** The complete lists for a site's user, for one service and scope; join the lists where a site follows several. */
export function sitePermissions(service: string, scope: string, site: string): Permissions {
  const stream = streamOf(service);
  const prefix = subjectPrefix(service, scope);
  const { tail, fill } = siteConsumers(site);
  const ofConsumer = (name: string): string[] => [
    `$JS.API.CONSUMER.CREATE.${stream}.${name}.${prefix}.>`,
    `$JS.API.CONSUMER.MSG.NEXT.${stream}.${name}`,
    `$JS.API.CONSUMER.DELETE.${stream}.${name}`,
    `$JS.API.CONSUMER.INFO.${stream}.${name}`,
  ];
  return {
    publish: [...ofConsumer(tail), ...ofConsumer(fill), `$JS.API.DIRECT.GET.${stream}.${prefix}.>`, statusSubject(service, site),
      auditAskSubject(service, site), answersOfSite(service, site)],
    subscribe: [`${inboxPrefixOf(site)}.>`, siteAskSubject(service, site)],
  };
}
