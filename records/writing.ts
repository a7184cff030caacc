/**
 * Port: how a changed aggregate gets into the database of this cloud. The API composes whole images and says what it saw when
 * it composed them; the room behind the port decides. At the centre rows are written and then published like any other change
 * (audit/records-writing.ts); at a site a change carries the version it has in the stream and takes the way of every change
 * (syncd/records-writing.ts).
 *
 * Adapters guarantee:
 * - nothing is written unless the stored image still has the digest `expected`, or at a site unless the version replaces the
 *   held one; otherwise E_RECORD_CONFLICT with what is held in its facts;
 * - one change is one transaction; asked twice, the second is a conflict or changes nothing;
 * - the image travels afterwards as if OpenStack had written the rows itself.
 */
import type { RowReader, Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import type { Version } from "../schemas/position.ts";
import type { AggregateKey, Image } from "../schemas/row.ts";

/** The version under which an aggregate was published, and the digest of the image that was published. */
export interface Placed {
  readonly version: Version;
  readonly digest: string;
}

export interface RecordChange {
  /** What shall be; a tombstone takes the aggregate away. */
  readonly image: Image;
  /** Digest of the image that was there when this one was composed; undefined: there was none. */
  readonly expected: string | undefined;
  /** The version that the image has in the stream; given exactly where the port is `versioned`. */
  readonly version: Version | undefined;
}

export type WriteOutcome =
  /** Stored, and on its way. `placed` is undefined when somebody changed the aggregate again at once. */
  | { readonly outcome: "written"; readonly placed: Placed | undefined }
  /** Stored; the stream cannot take it now and gets it later. */
  | { readonly outcome: "unpublished" }
  /** Kept, and applied when what it waits for is there. */
  | { readonly outcome: "parked"; readonly because: string }
  /** Kept, and never applied as it is. */
  | { readonly outcome: "quarantined"; readonly because: string };

export interface RecordWriting {
  /** True where a change must carry the version it has in the stream: at sites. */
  readonly versioned: boolean;
  /** What is known of the newest published images of these aggregates, by keyText; those that nobody knows are absent. */
  placedOf(read: RowReader, keys: readonly AggregateKey[]): Promise<ReadonlyMap<string, Placed>>;
  /** @throws E_RECORD_CONFLICT, and what the database or the stream says */
  write(change: RecordChange): Promise<WriteOutcome>;
}

/** One service whose records are served. */
export interface ServedService {
  readonly service: Service;
  readonly rows: Rows;
  readonly writing: RecordWriting;
}
