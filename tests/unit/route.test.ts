/** Which calls are captured, passed, left or unknown, by examples. The laws are in tests/property/route.test.ts. */
import assert from "node:assert/strict";
import { routerOf, type Router } from "../../proxy/route.ts";
import { one, path, type Capture, type PathRules } from "../../schemas/define.ts";

const STRICT: PathRules = { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false };
const KEYSTONE: PathRules = { mounts: ["/identity"], trailingSlashes: true, leadingSlashes: true, innerSlashes: false };

const capture = (on: Capture["on"]): Capture => ({ on, touches: [one("user", { id: path("user_id") })] });
const CAPTURES = [capture("POST /v3/users"), capture("PATCH /v3/users/{user_id}"), capture("POST /v3/users/{user_id}/password"),
  capture("POST /v3/users/special/password"), capture("GET /v3/federation/{idp}/auth")];
const LEAVES = [{ on: "POST /v3/auth/tokens" as const, because: "nothing shared" }];

const router = (paths: PathRules = KEYSTONE): Router => routerOf({ captures: CAPTURES, leaves: LEAVES, paths });
const shown = (method: string, target: string, paths?: PathRules): string => {
  const routed = router(paths).route(method, target);
  return routed.route === "capture" ? `${routed.capture.on} ${JSON.stringify(routed.parameters)}` : routed.route;
};

describe("the router", () => {
  it("finds a capture and decodes its parameters once", () => {
    assert.equal(shown("POST", "/v3/users"), "POST /v3/users {}");
    assert.equal(shown("PATCH", "/v3/users/a%20b%2525"), "PATCH /v3/users/{user_id} {\"user_id\":\"a b%25\"}");
    assert.equal(shown("PATCH", "/v3/%75sers/x?enabled=false"), "PATCH /v3/users/{user_id} {\"user_id\":\"x\"}");
  });

  it("prefers a literal to a parameter, and comes back from it", () => {
    assert.equal(shown("POST", "/v3/users/special/password"), "POST /v3/users/special/password {}");
    assert.equal(shown("PATCH", "/v3/users/special"), "PATCH /v3/users/{user_id} {\"user_id\":\"special\"}");
  });

  it("forgives what the rules forgive", () => {
    for (const target of ["/v3/users/", "/v3/users///", "//v3/users", "/identity/v3/users", "//identity/v3/users/",
      "http://cloud.example:5000/v3/users", "HTTP://x/v3/users?a=/b/"]) {
      assert.equal(shown("POST", target), "POST /v3/users {}", target);
    }
    assert.equal(shown("post", "/v3/users"), "POST /v3/users {}");
    assert.equal(shown("POST", "/v3//users", { ...STRICT, innerSlashes: true }), "POST /v3/users {}");
  });

  it("resolves plain dots and reads encoded slashes where the service does", () => {
    const rules: PathRules = { ...KEYSTONE, dotSegments: true, encodedSlashes: true };
    for (const target of ["/x/../v3/users", "/v3/./users", "/v3/users/.", "/v3/users/x/..", "/v3%2Fusers", "/v3/users%2f",
      "/%2Fv3/users", "/x/../v3%2Fusers/"]) {
      assert.equal(shown("POST", target, rules), "POST /v3/users {}", target);
    }
    assert.equal(shown("GET", "/x/../v3/federation%2Fx/auth", rules), "GET /v3/federation/{idp}/auth {\"idp\":\"x\"}");
    assert.equal(shown("PATCH", "/v3/users/a%252Fb", rules), "PATCH /v3/users/{user_id} {\"user_id\":\"a%2Fb\"}");
    for (const target of ["/../v3/users", "/v3/%2e%2e/v3/users", "/x/..%2Fv3/users", "/v3//../v3/users", "/v3/users%2Fa%2Fb"]) {
      assert.equal(shown("POST", target, rules), "unknown", target);
    }
  });

  it("looks a HEAD up as HEAD before it takes it for a GET", () => {
    const both = [...CAPTURES, capture("HEAD /v3/federation/{idp}/auth")];
    const routed = routerOf({ captures: both, leaves: [], paths: KEYSTONE }).route("HEAD", "/v3/federation/x/auth");
    assert.equal(routed.route === "capture" ? routed.capture.on : routed.route, "HEAD /v3/federation/{idp}/auth");
  });

  it("calls a write unknown when the rules do not forgive its spelling", () => {
    assert.equal(shown("POST", "/v3//users"), "unknown");
    for (const target of ["/v3/users/", "//v3/users", "/identity/v3/users"]) {
      assert.equal(shown("POST", target, STRICT), "unknown", target);
    }
  });

  it("calls a write unknown when its path cannot be proved", () => {
    for (const segment of ["%zz", "%", "%00", "%2F", "%2f", "..", ".", "%2e%2E", "a;b", "a%3Bb", "%c0%af", "%ff", "a\\b",
      "%5c", "#x",
      "\u00e9", "a%0Ab", "%7f"]) {
      assert.equal(shown("PATCH", `/v3/users/${segment}`), "unknown", segment);
    }
    for (const target of ["*", "", "v3/users", "http:/v3/users"]) assert.equal(shown("POST", target), "unknown", target);
  });

  it("calls a write unknown on routes and methods that no file names", () => {
    assert.equal(shown("POST", "/v3/others"), "unknown");
    assert.equal(shown("DELETE", "/v3/users"), "unknown");
    assert.equal(shown("MKCOL", "/v3/users"), "unknown");
    assert.equal(shown("PATCH", "/v3/users//"), "unknown");
  });

  it("leaves what the file leaves", () => {
    assert.equal(shown("POST", "/v3/auth/tokens"), "leave");
  });

  it("passes reads, but for the ones that a file declares", () => {
    for (const method of ["GET", "HEAD", "OPTIONS", "TRACE", "get"]) assert.equal(shown(method, "/v3/users"), "pass");
    assert.equal(shown("GET", "/v3/federation/x/auth"), "GET /v3/federation/{idp}/auth {\"idp\":\"x\"}");
    assert.equal(shown("HEAD", "/v3/federation/x/auth/"), "GET /v3/federation/{idp}/auth {\"idp\":\"x\"}");
    assert.equal(shown("OPTIONS", "/v3/federation/x/auth"), "pass");
    assert.equal(shown("GET", "/v3/federation/%zz/auth"), "pass");
  });

  it("does not know a route twice", () => {
    const made = (...ons: Capture["on"][]) => () => routerOf({ captures: ons.map(capture), leaves: [], paths: STRICT });
    assert.throws(made("POST /a/{x}", "POST /a/{y}"), /declared twice/);
    assert.throws(made("POST /a/x{y}"), /whole segment/);
  });
});
