/**
 * Goal: a configuration either loads completely or names every mistake at once, without ever showing a password.
 * Method: real files in a folder of this test's own; the environment is passed in, never changed.
 */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { nearest } from "../../config/check.ts";
import { environmentName } from "../../config/declare.ts";
import { configKindOf, loadProxyConfig, loadSyncdConfig } from "../../config/load.ts";
import { optionsPage } from "../../config/reference.ts";
import { isOperating } from "../../core/errors.ts";

const EXAMPLE_PASSWORDS = {
  HOLDFAST_EXAMPLE_DATABASE_PASSWORD: "correct horse", HOLDFAST_EXAMPLE_FEED_PASSWORD: "battery staple",
};
const EXAMPLES = new URL("../../config/", import.meta.url).pathname;
const FORWARDING = "service: keystone\nsite: edge1\nlisten: { port: 5000 }\nupstream: { url: http://127.0.0.1:15000 }\n"
  + "capture: false\n";

describe("configuration", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "holdfast-config-"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const written = (text: string, name = "proxy.yaml"): string => {
    const file = join(folder, name);
    writeFileSync(file, text);
    return file;
  };

  /** The lines of the mistakes that loading `text` reports, without the folder. */
  const mistakesOf = (
    text: string, environment: Readonly<Record<string, string>> = {},
    load: (...given: Parameters<typeof loadProxyConfig>) => unknown = loadProxyConfig,
  ): readonly string[] => {
    const file = written(text);
    try {
      load(file, environment);
      return [];
    } catch (error) {
      assert.ok(isOperating(error, "E_CONFIG"), String(error));
      return error.message.split("\n").slice(1).map((line) => line.replaceAll(`${folder}/`, ""));
    }
  };

  describe("examples", () => {
    it("the proxy example loads and its unset options have the same values by default", () => {
      const { config, warnings } = loadProxyConfig(join(EXAMPLES, "proxy.example.yaml"), EXAMPLE_PASSWORDS);
      assert.deepEqual(warnings, []);
      assert.equal(config.database?.password?.reveal(), "correct horse");
      const least = loadProxyConfig(written(FORWARDING), {}).config;
      const { upstream, settle, lateMs, dirtyKeysMax, drainTimeoutMs, log, admin } = config;
      assert.deepEqual({ upstream, settle, lateMs, dirtyKeysMax, drainTimeoutMs, log, admin }, {
        upstream: least.upstream, settle: least.settle, lateMs: least.lateMs, dirtyKeysMax: least.dirtyKeysMax,
        drainTimeoutMs: least.drainTimeoutMs, log: least.log, admin: least.admin });
    });

    it("the example of a site's proxy loads and publishes nothing", () => {
      const { config } = loadProxyConfig(join(EXAMPLES, "proxy-site.example.yaml"), {});
      assert.equal(config.capture, false);
      assert.equal(config.feed, undefined);
      const { centre } = config;
      const folder = mkdtempSync(join(tmpdir(), "holdfast-config-"));
      const file = join(folder, "least.yaml");
      writeFileSync(file, `service: keystone\nsite: edge1\nlisten: {port: 5000}\nadmin: {port: 9470}\ncapture: false\n`
        + `upstream: {url: "http://127.0.0.1:15000"}\ncentre: {url: "${centre?.url ?? ""}"}\n`);
      assert.deepEqual(loadProxyConfig(file, {}).config.centre, centre, "the example shows the defaults");
      rmSync(folder, { recursive: true });
    });

    it("a proxy that captures has no centre to serve from", () => {
      const folder = mkdtempSync(join(tmpdir(), "holdfast-config-"));
      const file = join(folder, "both.yaml");
      const text = readFileSync(join(EXAMPLES, "proxy.example.yaml"), "utf8");
      writeFileSync(file, `${text}\ncentre: {url: "http://127.0.0.1:5000"}\n`);
      assert.throws(() => loadProxyConfig(file, EXAMPLE_PASSWORDS), /centre: expected nothing, because capture is true/);
      rmSync(folder, { recursive: true });
    });

    it("the example of the centre's sync daemon loads", () => {
      const { config } = loadSyncdConfig(join(EXAMPLES, "syncd-centre.example.yaml"), EXAMPLE_PASSWORDS);
      assert.equal(config.role, "centre");
      assert.equal(configKindOf(join(EXAMPLES, "syncd-centre.example.yaml")), "syncd");
    });

    it("the sync daemon example loads", () => {
      const { config, warnings } = loadSyncdConfig(join(EXAMPLES, "syncd.example.yaml"), EXAMPLE_PASSWORDS);
      assert.deepEqual(warnings, []);
      assert.deepEqual(config.services.map(({ service, memcached }) => [service, memcached]),
        [["keystone", ["127.0.0.1:11211"]]]);
    });

    it("the kind of a file is known from its content", () => {
      assert.equal(configKindOf(join(EXAMPLES, "proxy.example.yaml")), "proxy");
      assert.equal(configKindOf(join(EXAMPLES, "syncd.example.yaml")), "syncd");
      assert.throws(() => configKindOf(written("log: {}\n")), /found neither/);
    });

    it("every option is on the reference page, and the page is up to date", () => {
      const page = readFileSync(new URL("../../docs/reference/options.md", import.meta.url), "utf8");
      assert.equal(page, optionsPage(), "run npm run docs:reference");
    });
  });

  describe("mistakes", () => {
    it("are all reported at once, each with file, path, what was expected and what was found", () => {
      assert.deepEqual(mistakesOf("service: Keystone\nsite: edge1\nlisten: { port: 70000 }\n"
        + "upstream: { url: ftp://x, poolMax: 1 }\ncapture: maybe\nsettle: { delaysMs: [30, 20] }\n"), [
        "proxy.yaml: service: expected one of keystone, found \"Keystone\"",
        "proxy.yaml: listen.port: expected a whole number from 0 to 65535, found 70000",
        "proxy.yaml: upstream.poolMax: expected one of url, keepAlive, chunkedRequests, connectTimeoutMs, firstByteTimeoutMs, "
          + "idleTimeoutMs, connectionsMax, ca, found the unknown name \"poolMax\"",
        "proxy.yaml: upstream.url: expected an http or https URL without user name, query or fragment, found \"ftp://x\"",
        "proxy.yaml: capture: expected true or false, found \"maybe\"",
        "proxy.yaml: settle.delaysMs: expected ascending delays, found [30, 20]",
      ]);
    });

    it("an unknown name comes with the nearest known one", () => {
      assert.deepEqual(mistakesOf(`${FORWARDING}drainTimoutMs: 5\n`), [
        "proxy.yaml: drainTimoutMs: expected a known name (nearest: drainTimeoutMs), found the unknown name \"drainTimoutMs\""]);
    });

    it("capturing without database, feed and intents names all three", () => {
      const lines = mistakesOf(FORWARDING.replace("capture: false", "capture: true"));
      assert.deepEqual(lines.map((line) => line.split(":")[1]?.trim()), ["database", "feed", "intents"]);
    });

    it("a broken YAML file, a missing file and an empty file are mistakes, not crashes", () => {
      assert.match(mistakesOf("service: [a\nsite: b")[0] ?? "", /^proxy\.yaml: line \d: expected YAML, found a mistake/);
      assert.match(mistakesOf("").join("\n"), /service: expected .*, found nothing/);
      assert.throws(() => loadProxyConfig(join(folder, "absent.yaml"), {}), /no such file/);
      assert.match(mistakesOf("a: 1\na: 2\n")[0] ?? "", /duplicate key/);
    });

    it("late reading before the API has timed out is a mistake", () => {
      assert.match(mistakesOf(`${FORWARDING}lateMs: 75000\n`).join(), /lateMs: expected more than upstream\.firstByteTimeoutMs/);
    });

    it("a daemon that names a service twice is told so", () => {
      const service = "  - { service: keystone, database: { engine: postgres, host: h, name: n, user: u } }\n";
      assert.match(mistakesOf(`site: a\nfeed: { servers: ["nats://h:1"] }\nservices:\n${service}${service}`, {},
        loadSyncdConfig).join(), /services: expected each service once, found keystone twice/);
    });
  });

  describe("environment", () => {
    it("goes before the file", () => {
      const { config } = loadProxyConfig(written(FORWARDING),
        { HOLDFAST_UPSTREAM_CONNECT_TIMEOUT_MS: "1234", HOLDFAST_SETTLE_DELAYS_MS: "10, 20",
          HOLDFAST_UPSTREAM_KEEP_ALIVE: "false" });
      assert.equal(config.upstream.connectTimeoutMs, 1234);
      assert.deepEqual(config.settle.delaysMs, [10, 20]);
      assert.equal(config.upstream.keepAlive, false);
    });

    it("a wrong variable is reported under its own name", () => {
      assert.deepEqual(mistakesOf(FORWARDING, { HOLDFAST_LISTEN_PORT: "http" }), [
        "environment HOLDFAST_LISTEN_PORT: listen.port: expected a whole number from 0 to 65535, found \"http\""]);
    });

    it("a variable that names no option is a warning with the nearest name", () => {
      const { warnings } = loadProxyConfig(written(FORWARDING), { HOLDFAST_LOG_LEVLE: "debug", HOLDFAST_LAB_DB: "postgres" });
      assert.deepEqual(warnings, [
        "environment HOLDFAST_LOG_LEVLE: names no option and is ignored (nearest: HOLDFAST_LOG_LEVEL)"]);
    });

    it("one variable may bring a section that the file leaves out", () => {
      assert.match(mistakesOf(FORWARDING, { HOLDFAST_LISTEN_TLS_CERT: "/cert.pem" }).join(),
        /listen\.tls\.key: expected a path, found nothing/);
    });

    it("no two options share a variable", () => {
      const names = [...optionsPage().matchAll(/`(HOLDFAST_[A-Z0-9_]+)` \|$/gm)].map((match) => match[1]);
      const shared = names.filter((name, place) => names.indexOf(name) !== place);
      const inBoth = new Set(shared);
      for (const name of inBoth) assert.equal(names.filter((other) => other === name).length, 2, `${name} names two options`);
      assert.equal(environmentName(["feed", "tls", "ca"]), "HOLDFAST_FEED_TLS_CA");
    });
  });

  describe("passwords", () => {
    const withDatabase = (password: string): string =>
      `${FORWARDING}database: { engine: postgres, host: h, name: n, user: u, password: ${password} }\n`;

    it("are read from a file beside the configuration, without the line end", () => {
      writeFileSync(join(folder, "secret"), "s3cret with spaces \n", { mode: 0o600 });
      const { config, warnings } = loadProxyConfig(written(withDatabase("{ file: secret }")), {});
      assert.equal(config.database?.password?.reveal(), "s3cret with spaces ");
      assert.deepEqual(warnings, []);
    });

    it("a file that every user may read is a warning that does not show it", () => {
      const file = join(folder, "open-secret");
      writeFileSync(file, "hunter2");
      chmodSync(file, 0o644);
      const { warnings } = loadProxyConfig(written(withDatabase("{ file: open-secret }")), {});
      assert.equal(warnings.length, 1);
      assert.match(warnings[0] ?? "", /every user may read .*open-secret; make it mode 0600$/);
      assert.doesNotMatch(warnings[0] ?? "", /hunter2/);
    });

    it("a missing or empty source is a mistake", () => {
      writeFileSync(join(folder, "empty"), "\n");
      assert.match(mistakesOf(withDatabase("{ file: nowhere }")).join(),
        /database\.password: expected a password in the file .*, found no such file/);
      assert.match(mistakesOf(withDatabase("{ file: empty }")).join(), /found an empty file/);
      assert.match(mistakesOf(withDatabase("{ env: ABSENT }")).join(), /environment variable ABSENT, found nothing/);
    });

    it("written in the file itself they are refused and not repeated", () => {
      for (const wrong of ["hunter2", "{ value: hunter2 }", "[hunter2]", "{ file: a, env: hunter2 }"]) {
        const lines = mistakesOf(withDatabase(wrong)).join("\n");
        assert.match(lines, /database\.password: expected \{ file: path \} or \{ env: NAME \}/);
        assert.doesNotMatch(lines, /hunter2/);
      }
    });

    it("inside a URL they are refused and not repeated", () => {
      const lines = mistakesOf(FORWARDING.replace("http://127.0.0.1", "http://admin:hunter2@127.0.0.1")).join("\n");
      assert.match(lines, /without user name/);
      assert.doesNotMatch(lines, /hunter2/);
    });

    it("a loaded configuration prints them sealed", () => {
      const { config } = loadProxyConfig(written(withDatabase("{ env: PASSWORD }")), { PASSWORD: "hunter2" });
      assert.doesNotMatch(JSON.stringify(config), /hunter2/);
    });
  });

  it("law: any document loads or is refused with E_CONFIG, and nothing else happens", () => {
    const leaf = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null), fc.array(fc.string(), { maxLength: 3 }));
    const names = ["service", "site", "listen", "admin", "upstream", "capture", "database", "feed", "intents", "settle"];
    const inner = fc.dictionary(fc.constantFrom("host", "port", "url", "tls", "servers", "password", "folder"), leaf);
    fc.assert(fc.property(fc.dictionary(fc.constantFrom(...names), fc.oneof(leaf, inner)), (document) => {
      const lines = mistakesOf(JSON.stringify(document));
      for (const line of lines) assert.match(line, /^proxy\.yaml: \S.*: expected .+, found .+$/s);
    }), { numRuns: 200 });
  });

  it("nearest forgives a slip and does not guess wildly", () => {
    assert.equal(nearest("prot", ["port", "host"]), "port");
    assert.equal(nearest("zebra", ["port", "host"]), undefined);
  });
});
