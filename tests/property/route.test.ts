/** Laws of the router: every spelling that the rules allow means the same call, and reads are never taken for writes. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { routerOf } from "../../proxy/route.ts";
import type { Capture, PathRules } from "../../schemas/define.ts";

const literal = fc.stringMatching(/^[a-z][a-z0-9_-]{0,8}$/);
const value = fc.string({ unit: fc.constantFrom(..."abcXYZ019-._~ @:+%?#é€"), minLength: 1, maxLength: 8 })
  .filter((text) => text !== "." && text !== "..");
const segment = fc.oneof(literal.map((text) => ({ literal: text })), value.map((text) => ({ value: text })));
const method = fc.constantFrom("POST", "PUT", "PATCH", "DELETE");
const rulesOf = fc.record({ mounts: fc.constantFrom([], ["/identity"], ["/a", "/a/b"]), trailingSlashes: fc.boolean(),
  leadingSlashes: fc.boolean(), innerSlashes: fc.boolean() });

type Segment = { readonly literal: string } | { readonly value: string };

const templateOf = (segments: readonly Segment[]): string =>
  segments.map((each, at) => ("literal" in each ? `/${each.literal}` : `/{p${at}}`)).join("");
const valuesOf = (segments: readonly Segment[]): Record<string, string> =>
  Object.fromEntries(segments.flatMap((each, at) => ("value" in each ? [[`p${at}`, each.value]] : [])));

/** Percent-encodes every character that must be, and those that `chosen` picks. */
function encode(text: string, chosen: (at: number) => boolean): string {
  return [...text].map((character, at) => {
    const needed = encodeURIComponent(character);
    if (needed !== character || !chosen(at)) return needed;
    const hex = character.charCodeAt(0).toString(16);
    return `%${at % 2 === 0 ? hex : hex.toUpperCase()}`;
  }).join("");
}

/** A spelling of the path that `rules` allow, shaped by the bits of `choice`. */
function alias(segments: readonly Segment[], rules: PathRules, choice: number): string {
  const bit = (at: number): boolean => ((choice >>> at % 31) & 1) === 1;
  const slash = (allowed: boolean, at: number): string => (allowed && bit(at) ? "///".slice(0, 1 + (choice % 3)) : "/");
  const mount = bit(1) ? rules.mounts[choice % Math.max(1, rules.mounts.length)] ?? "" : "";
  const path = segments.map((each, at) => {
    const text = encode("literal" in each ? each.literal : each.value, (place) => bit(at + place));
    const first = at === 0 && mount === "";
    return slash(first ? rules.leadingSlashes || rules.innerSlashes : rules.innerSlashes, at + 3) + text;
  }).join("");
  const end = rules.trailingSlashes && bit(2) ? "//".slice(0, 1 + (choice % 2)) : "";
  const query = bit(5) ? "?a=/x/../y&b=%zz" : "";
  const origin = bit(7) ? "http://cloud.example:5000" : "";
  return `${origin}${mount}${path}${end}${query}`;
}

describe("laws of the router", () => {
  const segmentsOf = fc.array(segment, { minLength: 1, maxLength: 6 });
  const call = fc.record({ segments: segmentsOf, rules: rulesOf, method, choice: fc.nat() });

  it("every allowed spelling of a call finds the same capture with the same parameters", () => {
    fc.assert(fc.property(call, ({ segments, rules, method: verb, choice }) => {
      const on = `${verb} ${templateOf(segments)}` as Capture["on"];
      const router = routerOf({ captures: [{ on, touches: [] }], leaves: [], paths: rules });
      const target = alias(segments, rules, choice);
      for (const written of [verb, verb.toLowerCase()]) {
        const routed = router.route(written, target);
        assert.equal(routed.route, "capture", target);
        if (routed.route === "capture") assert.deepEqual({ ...routed.parameters }, valuesOf(segments), target);
      }
    }), { numRuns: 2_000 });
  });

  it("reads match nothing that does not declare GET, whatever they look like", () => {
    const read = fc.constantFrom("GET", "HEAD", "OPTIONS", "TRACE", "head");
    fc.assert(fc.property(call, read, fc.string(), ({ segments, rules, choice }, verb, noise) => {
      const captures = ["POST", "PUT", "PATCH", "DELETE"].map((each) =>
        ({ on: `${each} ${templateOf(segments)}` as Capture["on"], touches: [] }));
      const router = routerOf({ captures, leaves: [], paths: rules });
      assert.equal(router.route(verb, alias(segments, rules, choice)).route, "pass");
      assert.equal(router.route(verb, noise).route, "pass");
    }));
  });

  it("a call that may write is never passed, whatever its target looks like", () => {
    const write = fc.oneof(method, fc.constantFrom("MKCOL", "purge", "CONNECT", ""));
    fc.assert(fc.property(rulesOf, write, fc.oneof(fc.string(), fc.webPath()), (rules, verb, target) => {
      const router = routerOf({ captures: [{ on: "POST /v3/users", touches: [] }], leaves: [], paths: rules });
      assert.notEqual(router.route(verb, target).route, "pass");
    }));
  });
});
