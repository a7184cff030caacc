/**
 * Head sections of messages: what travels on, what stays at this hop, what must be refused. Pure; one pass per message.
 *
 * Invariants: names keep their case, order and multiplicity in both directions; every rule treats "_" in a name as "-",
 * because WSGI servers fold both into one variable; a head that two parsers could frame differently is refused, never mended.
 * Sources: RFC 9110 7.6.1 (hop-by-hop), RFC 9112 6 (framing); uWSGI lets Content_Length overrule Content-Length and believes
 * X-Forwarded-Proto from anybody (both seen on a running Keystone).
 * Not here: writing heads (forward.ts, refuse.ts), reading them off the wire (Node's parser, server.ts).
 */

/** What a name means to a proxy. */
type Rule = "keep" | "drop" | "host" | "length" | "transfer" | "connection" | "expect" | "ambiguous";

const RULES: Readonly<Record<string, Rule>> = {
  "host": "host", "content-length": "length", "transfer-encoding": "transfer", "connection": "connection", "expect": "expect",
  // Hop-by-hop. "proxy" is no standard header; CGI servers turn it into HTTP_PROXY, which their HTTP clients obey.
  "keep-alive": "drop", "te": "drop", "trailer": "drop", "upgrade": "drop", "http2-settings": "drop", "proxy": "drop",
  "proxy-connection": "drop", "proxy-authenticate": "drop", "proxy-authorization": "drop", "proxy-authentication-info": "drop",
  "forwarded": "drop",
};

/** Names that a Connection header may never nominate: dropping them would change what the request means. */
const NEVER_NOMINATED: ReadonlySet<string> = new Set(["host", "content-length", "content-type", "content-encoding",
  "authorization", "x-auth-token", "x-subject-token", "x-service-token", "openstack-auth-receipt", "openstack-api-version",
  "if-match", "range", "accept"]);
/** Headers of the platform itself: API versions, request ids. */
const NEVER_NOMINATED_PREFIX = "x-openstack-";

const mayBeNominated = (name: string): boolean => !NEVER_NOMINATED.has(name) && !name.startsWith(NEVER_NOMINATED_PREFIX);

/** Names remembered with their rule; beyond it (clients inventing names) rules are worked out each time. */
const KNOWN_NAMES_MAX = 1024;
const knownNames = new Map<string, Rule>();

function workOutRule(name: string): Rule {
  const lower = name.toLowerCase();
  const dashed = lower.replaceAll("_", "-");
  if (dashed.startsWith("x-forwarded-")) return "drop";
  const rule = RULES[dashed] ?? "keep";
  // A misspelt framing header is kept apart by one parser and folded in by the next: exactly what smuggling needs.
  return lower === dashed || rule === "keep" || rule === "drop" || rule === "expect" ? rule : "ambiguous";
}

function ruleOf(name: string): Rule {
  const known = knownNames.get(name);
  if (known !== undefined) return known;
  const rule = workOutRule(name);
  if (knownNames.size < KNOWN_NAMES_MAX) knownNames.set(name, rule);
  return rule;
}

/** Why a request head is refused: the status and a sentence for the client. */
export interface HeadFault {
  readonly status: 400 | 417 | 501;
  readonly message: string;
}

/** The head of a request, as far as a proxy needs it. */
export interface RequestHead {
  /** Flat name, value list that travels on; without forwarding headers (see forwardedFields). */
  readonly fields: readonly string[];
  readonly host: string | undefined;
  readonly body: "none" | "length" | "chunked";
  /** Bytes of a body with a length; 0 otherwise. */
  readonly lengthBytes: number;
  /** The client waits for 100 before it sends the body. */
  readonly expectsContinue: boolean;
  readonly fault: HeadFault | undefined;
}

interface Findings {
  readonly hosts: string[];
  readonly lengths: string[];
  readonly transfers: string[];
  readonly nominated: string[];
  readonly expectations: string[];
  ambiguous: string | undefined;
}

function takeToken(list: string[], value: string): void {
  for (const token of value.split(",")) {
    const name = token.trim().toLowerCase().replaceAll("_", "-");
    if (name !== "" && name !== "close" && name !== "keep-alive") list.push(name);
  }
}

function faultOf(found: Findings, version: string): HeadFault | undefined {
  const bad = (message: string): HeadFault => ({ status: 400, message });
  if (found.ambiguous !== undefined) return bad(`The header ${found.ambiguous} must be written with dashes.`);
  if (found.hosts.length > 1) return bad("There is more than one Host header.");
  if (found.hosts.length === 0 && version !== "1.0") return bad("The Host header is missing.");
  if (found.lengths.length > 1 || found.lengths.some((length) => !/^[0-9]{1,15}$/.test(length))) {
    return bad("The Content-Length header is not one number.");
  }
  if (found.transfers.length > 0) {
    if (found.lengths.length > 0) return bad("Content-Length and Transfer-Encoding exclude each other.");
    if (version === "1.0") return bad("HTTP/1.0 knows no Transfer-Encoding.");
    if (found.transfers.length > 1 || found.transfers[0]?.trim().toLowerCase() !== "chunked") {
      return { status: 501, message: "The only Transfer-Encoding understood here is chunked." };
    }
  }
  const stolen = found.nominated.find((name) => !mayBeNominated(name));
  if (stolen !== undefined) return bad(`The Connection header may not name ${stolen}.`);
  if (found.expectations.some((expectation) => expectation.trim().toLowerCase() !== "100-continue")) {
    return { status: 417, message: "The only expectation understood here is 100-continue." };
  }
  return undefined;
}

function withoutNominated(fields: readonly string[], nominated: readonly string[]): readonly string[] {
  const kept: string[] = [];
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const name = fields[at] ?? "";
    if (!nominated.includes(name.toLowerCase().replaceAll("_", "-"))) kept.push(name, fields[at + 1] ?? "");
  }
  return kept;
}

/**
 * Reads the head of a request. `raw` is the flat name, value list as it came; `version` is "1.0" or "1.1". Of Expect only
 * the wish is kept: it is answered at this hop. Transfer-Encoding is removed, Content-Length stays.
 */
export function readRequestHead(raw: readonly string[], version: string): RequestHead {
  const found: Findings = { hosts: [], lengths: [], transfers: [], nominated: [], expectations: [], ambiguous: undefined };
  const fields: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const value = raw[at + 1] ?? "";
    switch (ruleOf(name)) {
      case "keep": fields.push(name, value); break;
      case "host": found.hosts.push(value); fields.push(name, value); break;
      case "length": found.lengths.push(value); fields.push(name, value); break;
      case "transfer": found.transfers.push(value); break;
      case "connection": takeToken(found.nominated, value); break;
      case "expect": found.expectations.push(value); break;
      case "ambiguous": found.ambiguous = name; break;
      case "drop": break;
    }
  }
  const lengthBytes = Number(found.lengths[0] ?? 0);
  return {
    fields: found.nominated.length === 0 ? fields : withoutNominated(fields, found.nominated),
    host: found.hosts[0],
    body: found.transfers.length > 0 ? "chunked" : lengthBytes > 0 ? "length" : "none",
    lengthBytes,
    expectsContinue: found.expectations.length > 0 && version !== "1.0",
    fault: faultOf(found, version),
  };
}

/** The forwarding headers that replace whatever the client claimed: one address, one scheme, never a host (Host is right). */
export function forwardedFields(peerAddress: string | undefined, scheme: "http" | "https"): readonly string[] {
  const address = peerAddress?.startsWith("::ffff:") === true ? peerAddress.slice(7) : peerAddress;
  return address === undefined ? ["X-Forwarded-Proto", scheme] : ["X-Forwarded-For", address, "X-Forwarded-Proto", scheme];
}

/** The head of an answer, as far as a proxy needs it. */
export interface AnswerHead {
  /** Flat name, value list that travels on; Content-Length included when the upstream gave one. */
  readonly fields: string[];
  /** "close": the body ends where the upstream closes, so nothing tells a whole body from a cut one. */
  readonly framing: "length" | "chunked" | "close";
  readonly lengthBytes: number | undefined;
  readonly type: string | undefined;
}

/** Reads the head of an answer from the raw name, value list of the wire (latin-1 bytes or text). */
export function readAnswerHead(raw: readonly (Uint8Array | string)[]): AnswerHead {
  const fields: string[] = [];
  const nominated: string[] = [];
  let lengthBytes: number | undefined;
  let chunked = false;
  let type: string | undefined;
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = latin1(raw[at]);
    const value = latin1(raw[at + 1]);
    switch (ruleOf(name)) {
      case "length": lengthBytes = Number(value); fields.push(name, value); break;
      case "transfer": chunked = true; break;
      case "connection": takeToken(nominated, value); break;
      case "drop": break;
      default:
        fields.push(name, value);
        if (name.length === 12 && name.toLowerCase() === "content-type") type = value;
    }
  }
  const local = nominated.filter(mayBeNominated);
  const kept = local.length === 0 ? fields : [...withoutNominated(fields, local)];
  return { fields: kept, framing: lengthBytes !== undefined ? "length" : chunked ? "chunked" : "close", lengthBytes, type };
}

function latin1(part: Uint8Array | string | undefined): string {
  if (typeof part === "string") return part;
  return part === undefined ? "" : Buffer.from(part.buffer, part.byteOffset, part.byteLength).toString("latin1");
}

/** True for application/json and its relatives ("application/json-home", "application/vnd.x+json"). */
export function isJson(type: string | undefined): boolean {
  return type !== undefined && /^\s*application\/(?:[^;]*\+)?json/i.test(type);
}
