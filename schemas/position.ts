/**
 * Versions and positions. A version is (epoch, sequence): the sequence is the stream's own, the epoch rises whenever
 * sequences could have started again. Order is by epoch, then sequence; clocks are never compared.
 */

export interface Version {
  readonly epoch: number;
  readonly sequence: number;
}

/** How far a site has read a stream: everything up to `sequence` of `epoch` was decided. */
export interface Position extends Version {
  readonly stream: string;
}

/** Negative, zero or positive as `left` is older than, the same as, or newer than `right`. */
export function compareVersions(left: Version, right: Version): number {
  return left.epoch === right.epoch ? left.sequence - right.sequence : left.epoch - right.epoch;
}

/** May an image of version `incoming` replace one of version `held`? Only a strictly newer one may. */
export function replaces(incoming: Version, held: Version | undefined): boolean {
  return held === undefined || compareVersions(incoming, held) > 0;
}
