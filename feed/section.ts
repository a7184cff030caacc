/** The feed section of a configuration file, as options of a JetStream feed: every process reads it the same way. Pure. */
import { Secret } from "../core/secret.ts";
import type { JetstreamOptions } from "./jetstream.ts";

/** What a configuration file says about the feed (config/options.ts); files are paths. */
export interface FeedSection {
  readonly servers: readonly string[];
  readonly user: string | undefined;
  readonly password: Secret | undefined;
  readonly tls: { readonly ca: string; readonly cert: string | undefined; readonly key: string | undefined } | undefined;
  readonly scope: string;
  readonly replicas: number;
  readonly streamBytesMax: number;
  readonly imageBytesMax: number;
  readonly publishTimeoutMs: number;
  readonly reconnectJitterMs: number;
}

/** Options for `who`; what the section leaves out becomes what the server takes for "none". */
export function jetstreamOptionsOf(section: FeedSection, who: Pick<JetstreamOptions, "service" | "role"
  | "site">): JetstreamOptions {
  const { tls } = section;
  return {
    ...who, servers: section.servers, user: section.user ?? "", password: section.password ?? new Secret(""),
      scope: section.scope,
    tls: tls === undefined ? undefined : { caPath: tls.ca, certPath: tls.cert, keyPath: tls.key },
    publishTimeoutMs: section.publishTimeoutMs, reconnectLastMs: Math.max(250, section.reconnectJitterMs),
    replicas: section.replicas, streamBytesMax: section.streamBytesMax, maxImageBytes: section.imageBytesMax,
  };
}
