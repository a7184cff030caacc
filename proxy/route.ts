/**
 * Which calls may change rows. A request target is brought into one normal form by the service's own path rules and looked
 * up in a trie of the routes its file declares. Pure.
 *
 * Invariants: every spelling that the rules allow finds the same capture with the same parameters; a read finds a capture
 * only where a file declares GET or HEAD; a call that may write and whose meaning cannot be proved is "unknown", never
 * "pass", and is answered with a comparison of the whole service. The bytes that are forwarded never come from here.
 * Not here: bodies and keys (mutation.ts), what to do with the outcome.
 */
import { assert } from "../core/assert.ts";
import type { Capture, PathRules, Service } from "../schemas/define.ts";

export type Routed =
  | { readonly route: "pass" }
  | { readonly route: "leave"; readonly on: string; readonly because: string }
  | { readonly route: "capture"; readonly capture: Capture; readonly parameters: Readonly<Record<string, string>> }
  | { readonly route: "unknown" };

/** What a call means to a site that could answer it: read what is shared, sign in (see ServiceDeclaration.anywhere), change. */
export type RouteClass = "read" | "sign-in" | "write";
export const ROUTE_CLASSES: readonly RouteClass[] = ["read", "sign-in", "write"];

export interface Router {
  /** `method` and `target` as they stand in the request line. */
  route(method: string, target: string): Routed;
  /** A call whose meaning cannot be proved is a write. */
  classOf(method: string, target: string): RouteClass;
}

type Declared = { readonly capture: Capture } | { readonly on: string; readonly because: string };
interface Leaf {
  readonly declared: Declared;
  /** Names of the parameters on the way, in path order. */
  readonly names: readonly string[];
}
interface Node {
  readonly literal: Map<string, Node>;
  parameter: Node | undefined;
  readonly leaves: Map<string, Leaf>;
}

const PASS: Routed = { route: "pass" };
const UNKNOWN: Routed = { route: "unknown" };
const READS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);
const PARAMETER = /^\{([a-z][a-z0-9_]*)\}$/;

const newNode = (): Node => ({ literal: new Map(), parameter: undefined, leaves: new Map() });

function insert(root: Node, on: string, declared: Declared): void {
  const [method = "", template = ""] = on.split(" ");
  const names: string[] = [];
  let node = root;
  for (const segment of template.split("/").slice(1)) {
    const name = PARAMETER.exec(segment)?.[1];
    assert(name !== undefined || !/[{}]/.test(segment), `${on}: a parameter is a whole segment`);
    let next: Node | undefined;
    if (name === undefined) {
      next = node.literal.get(segment) ?? newNode();
      node.literal.set(segment, next);
    } else {
      names.push(name);
      next = node.parameter ??= newNode();
    }
    node = next;
  }
  assert(!node.leaves.has(method), `${on} is declared twice`);
  assert(new Set(names).size === names.length, `${on} names a parameter twice`);
  node.leaves.set(method, { declared, names });
}

/** The leaf for `method` under `node` for the segments from `at` on; literals win over parameters. Fills `values`. */
function find(node: Node, method: string, segments: readonly string[], at: number, values: string[]): Leaf | undefined {
  const segment = segments[at];
  if (segment === undefined) return node.leaves.get(method);
  const literal = node.literal.get(segment);
  if (literal !== undefined) {
    const leaf = find(literal, method, segments, at + 1, values);
    if (leaf !== undefined) return leaf;
  }
  if (node.parameter === undefined || segment === "") return undefined;
  values.push(segment);
  const leaf = find(node.parameter, method, segments, at + 1, values);
  if (leaf === undefined) values.pop();
  return leaf;
}

/** The path of a target in origin or absolute form, without query; undefined when there is none. */
function pathOf(target: string): string | undefined {
  let path = target;
  if (!target.startsWith("/")) {
    const scheme = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/[^/?#]*/.exec(target);
    if (scheme === null) return undefined;
    path = target.slice(scheme[0].length);
  }
  const query = path.indexOf("?");
  if (query !== -1) path = path.slice(0, query);
  return path === "" ? "/" : path;
}

/** Raw characters after which servers disagree about what the path is: fragments, path parameters, backslashes, non-ASCII. */
// eslint-disable-next-line no-control-regex -- control characters are what it looks for
const DOUBTFUL_RAW = /[#;\\\x00-\x20\x7f-\uffff]/;
// eslint-disable-next-line no-control-regex -- control characters are what it looks for
const DOUBTFUL_DECODED = /[/\\;\x00-\x1f\x7f]/;

const DOT_SEGMENT = /\/\.{1,2}(?:\/|$)/;

/** A path whose plain "." and ".." are resolved; undefined when they lead above the root or past an empty segment. */
function withoutDots(path: string): string | undefined {
  if (!DOT_SEGMENT.test(path)) return path;
  const kept: string[] = [];
  const pieces = path.split("/").slice(1);
  for (const [at, piece] of pieces.entries()) {
    const isLast = at === pieces.length - 1;
    if (piece === ".." && (kept.pop() ?? "") === "") return undefined;
    if (piece !== "." && piece !== "..") kept.push(piece);
    else if (isLast) kept.push("");
  }
  return `/${kept.join("/")}`;
}

/** One segment decoded once; undefined when its meaning depends on who reads it. */
function decodeSegment(segment: string): string | undefined {
  let decoded = segment;
  if (segment.includes("%")) {
    try {
      decoded = decodeURIComponent(segment);
    } catch {
      return undefined;
    }
    if (DOUBTFUL_DECODED.test(decoded)) return undefined;
  }
  return decoded === "." || decoded === ".." ? undefined : decoded;
}

/**
 * The decoded segments of a target under a service's path rules; undefined when they cannot be proved. Slashes that the
 * rules do not forgive stay as empty segments, which match nothing.
 */
export function normalSegments(rules: PathRules, target: string): readonly string[] | undefined {
  const path = pathOf(target);
  if (path === undefined || DOUBTFUL_RAW.test(path)) return undefined;
  const plain = rules.dotSegments === true ? withoutDots(path) : path;
  if (plain === undefined) return undefined;
  // Dots are resolved first and decoding comes after: a dot behind an encoded slash stays a doubtful segment.
  const pieces = (rules.encodedSlashes === true ? plain.replace(/%2f/gi, "/") : plain).split("/");
  const segments: string[] = [];
  let last = pieces.length;
  if (rules.trailingSlashes) while (last > 1 && pieces[last - 1] === "") last -= 1;
  let leading = true;
  for (let at = 1; at < last; at += 1) {
    const piece = pieces[at] ?? "";
    if (piece === "" && (rules.innerSlashes || (leading && rules.leadingSlashes)) && at < last - 1) continue;
    if (piece !== "") leading = false;
    const decoded = decodeSegment(piece);
    if (decoded === undefined) return undefined;
    segments.push(decoded);
  }
  return segments;
}

/** What of a service file says which calls there are. */
export type RoutedService = Pick<Service, "captures" | "leaves" | "paths" | "anywhere">;

class TrieRouter implements Router {
  readonly #root = newNode();
  readonly #rules: PathRules;
  readonly #mounts: readonly (readonly string[])[];
  readonly #readsMayWrite: boolean;
  readonly #anywhere: ReadonlySet<string>;

  constructor(service: RoutedService) {
    this.#anywhere = new Set(service.anywhere);
    this.#rules = service.paths;
    this.#mounts = service.paths.mounts.map((mount) => mount.split("/").filter((segment) => segment !== ""));
    for (const capture of service.captures) insert(this.#root, capture.on, { capture });
    for (const leave of service.leaves) insert(this.#root, leave.on, leave);
    this.#readsMayWrite = [...service.captures, ...service.leaves].some(({ on }) => /^(?:GET|HEAD) /.test(on));
  }

  route(method: string, target: string): Routed {
    // Some services run a lower-case method as if it were upper case; treating it so for all can only find more.
    const wanted = method.toUpperCase();
    const read = READS.has(wanted);
    if (read && (!this.#readsMayWrite || wanted === "OPTIONS" || wanted === "TRACE")) return PASS;
    const otherwise = read ? PASS : UNKNOWN;
    const segments = normalSegments(this.#rules, target);
    if (segments === undefined) return otherwise;
    // A service carries out a HEAD like the GET beside it, unless its file says something of its own about HEAD.
    const declared = this.#lookUp(wanted, segments) ?? (wanted === "HEAD" ? this.#lookUp("GET", segments) : undefined);
    return declared ?? otherwise;
  }

  classOf(method: string, target: string): RouteClass {
    const routed = this.route(method, target);
    if (routed.route === "pass") return "read";
    if (routed.route === "unknown") return "write";
    return this.#anywhere.has(routed.route === "capture" ? routed.capture.on : routed.on) ? "sign-in" : "write";
  }

  #lookUp(method: string, segments: readonly string[]): Routed | undefined {
    const direct = this.#match(method, segments);
    if (direct !== undefined) return direct;
    for (const mount of this.#mounts) {
      if (!mount.every((part, at) => segments[at] === part)) continue;
      const mounted = this.#match(method, segments.slice(mount.length));
      if (mounted !== undefined) return mounted;
    }
    return undefined;
  }

  #match(method: string, segments: readonly string[]): Routed | undefined {
    const values: string[] = [];
    const leaf = find(this.#root, method, segments, 0, values);
    if (leaf === undefined) return undefined;
    if ("because" in leaf.declared) return { route: "leave", on: leaf.declared.on, because: leaf.declared.because };
    const parameters: Record<string, string> = {};
    for (const [at, name] of leaf.names.entries()) parameters[name] = values[at] ?? "";
    return { route: "capture", capture: leaf.declared.capture, parameters };
  }
}

/** The router of a service file. Throws AssertionError when two routes of the file are the same: a bug in the file. */
export function routerOf(service: RoutedService): Router {
  return new TrieRouter(service);
}
