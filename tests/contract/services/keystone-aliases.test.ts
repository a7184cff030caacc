/**
 * Goal: no spelling of a call that the running Keystone takes for a write goes past capture. Method: raw requests through the
 * proxy
 * of a real lab, byte for byte as a hostile or odd client would write them; whatever Keystone carries out must arrive at the
 * site. The table says what is seen to become of each: a spelling that is refused stands there with who refuses and why.
 */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { cloudsMissing, startClouds, type Clouds } from "../../support/keystone-clouds.ts";

const STARTS_WITHIN_MS = 240_000;
const ARRIVAL_WITHIN_MS = 120_000;
const SILENT_MAX_MS = 60_000;
const ENGINES = { centre: "postgres", edge1: "postgres" } as const;

interface Spelling {
  readonly method?: string;
  /** "{proxy}" stands for the proxy's own address. */
  readonly target: string;
  /** "made": Keystone makes a user, and it arrives. "nothing": no user is made, by whomever the call is refused. */
  readonly outcome: "made" | "nothing";
  /** Who refuses, and why. */
  readonly because?: string;
}

const SPELLINGS: readonly Spelling[] = [
  { target: "/v3/users", outcome: "made" },
  { target: "/v3/users/", outcome: "made" },
  { target: "/v3/users///", outcome: "made" },
  { target: "//v3/users", outcome: "made" },
  { target: "///v3/users//", outcome: "made" },
  { target: "/v3/%75sers", outcome: "made" },
  { target: "/%76%33/users", outcome: "made" },
  { target: "/v3/users%2F", outcome: "made" },
  { target: "/v3%2Fusers", outcome: "made" },
  { target: "/v3%2fusers", outcome: "made" },
  { target: "/x/../v3/users", outcome: "made" },
  { target: "/v3/./users", outcome: "made" },
  { target: "/v3/users?name=x", outcome: "made" },
  { target: "/v3/users?", outcome: "made" },
  { target: "{proxy}/v3/users", outcome: "made" },
  { method: "post", target: "/v3/users", outcome: "made" },
  { method: "Post", target: "/v3/users/", outcome: "made" },
  { target: "http://elsewhere.example/v3/users", outcome: "nothing",
    because: "the proxy refuses (400) a target that names another host than the Host header: servers differ on which counts" },
  { target: "/v3//users", outcome: "nothing", because: "Keystone redirects (308)" },
  { target: "/v3/%2e/users", outcome: "nothing", because: "Keystone does not find it: encoded dots are no dots" },
  { target: "/identity/v3/users", outcome: "nothing", because: "nothing is mounted there" },
];

interface Raw {
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** Sends a request exactly as written; the answer's status. 0: the connection ended without one. */
function sendRaw(url: string, { method, target, headers, body = "" }: Raw): Promise<number> {
  const { hostname, port } = new URL(url);
  const lines = [`${method} ${target.replace("{proxy}", url)} HTTP/1.1`, `Host: ${hostname}:${port}`, "Connection: close",
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`), `Content-Length: ${Buffer.byteLength(body)}`];
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => void socket.write(`${lines.join("\r\n")}\r\n\r\n${body}`));
    const chunks: Buffer[] = [];
    socket.setTimeout(SILENT_MAX_MS, () => socket.destroy(new Error(`${method} ${target}: no answer`)));
    socket.on("data", (chunk) => chunks.push(chunk)).once("error", reject).once("close", () =>
      resolve(Number(/^HTTP\/1\.\d (\d{3})/.exec(Buffer.concat(chunks).toString("latin1"))?.[1] ?? 0)));
  });
}

/** Sign-ins are reads by their method: an alias of one must be known too, because no unknown read is compared. */
const SIGN_IN_SPELLINGS: readonly ((path: string) => string)[] = [
  (path) => path, (path) => `${path}/`, (path) => `/${path}`, (path) => path.replace("/protocols/", "/%70rotocols/"),
  (path) => path.replace("/protocols/", "%2Fprotocols%2f"), (path) => `/x/..${path}`, (path) => path.replace("/v3/", "/v3/./"),
  (path) => `{proxy}${path}`,
];

/** Makes a mapped identity provider; gives the path under which its users sign in. */
async function makeSignIn({ call, mark }: Clouds): Promise<string> {
  const provider = `/v3/OS-FEDERATION/identity_providers/idp-${mark}`;
  const rules = [{ local: [{ user: { name: "{0}" } }], remote: [{ type: "HTTP_X_USER" }] }];
  const statuses = [
    await call("PUT", provider, { identity_provider: { enabled: true, remote_ids: [`rid-${mark}`] } }),
    await call("PUT", `/v3/OS-FEDERATION/mappings/m-${mark}`, { mapping: { rules } }),
    await call("PUT", `${provider}/protocols/mapped`, { protocol: { mapping_id: `m-${mark}` } }),
  ].map(({ status }) => status);
  assert.deepEqual(statuses, [201, 201, 201]);
  return `${provider}/protocols/mapped/auth`;
}

describe("spellings of a call that writes", () => {
  let clouds: Clouds;
  let signIn: string;

  before(async function () {
    this.timeout(STARTS_WITHIN_MS);
    const missing = cloudsMissing(ENGINES);
    if (missing !== undefined) {
      assert.ok(process.env["CI"] !== "true", missing);
      console.warn(`      skipped: ${missing}`);
      return this.skip();
    }
    clouds = await startClouds(ENGINES);
    signIn = await makeSignIn(clouds);
  });

  after(async function () {
    this.timeout(STARTS_WITHIN_MS);
    await clouds?.end();
  });

  const isAt = async (at: "centre" | "edge1", name: string): Promise<boolean> => {
    const { direct } = clouds.lab.endpoints[at];
    const answer = await clouds.direct(direct, "GET", `/v3/users?name=${name}`);
    return answer.text.includes(`"${name}"`);
  };

  for (const [place, { method = "POST", target, outcome, because }] of SPELLINGS.entries()) {
    const ending = outcome === "made" ? "makes a user that arrives at the site" : `makes nothing: ${because}`;
    it(`${method} ${target} ${ending}`, async function () {
      this.timeout(ARRIVAL_WITHIN_MS);
      const name = `alias-${place}-${clouds.mark}`;
      const status = await sendRaw(clouds.lab.endpoints.centre.proxy, { method, target, body: JSON.stringify({ user: { name } }),
        headers: { "Content-Type": "application/json", "X-Auth-Token": clouds.admin } });
      assert.equal(await isAt("centre", name), outcome === "made", `Keystone's answer was ${status}`);
      if (outcome === "nothing") return assert.ok(status >= 300, `answered ${status}`);
      assert.equal(status, 201);
      await clouds.eventually(`the arrival of ${name}`, () => isAt("edge1", name));
    });
  }

  for (const [place, spelling] of SIGN_IN_SPELLINGS.entries()) {
    for (const method of ["GET", "HEAD"]) {
      it(`${method} ${spelling("/v3/…/protocols/mapped/auth")} signs somebody in, who arrives at the site`, async function () {
        this.timeout(ARRIVAL_WITHIN_MS);
        const name = `guest-${method}-${place}-${clouds.mark}`;
        const headers = { "X-User": name, "X-Idp": `rid-${clouds.mark}` };
        const status = await sendRaw(clouds.lab.endpoints.centre.proxy, { method, target: spelling(signIn), headers });
        const isKnown = async (at: "centre" | "edge1"): Promise<boolean> =>
          (await clouds.direct(clouds.lab.endpoints[at].direct, "GET", `/v3/users?unique_id=${name}`)).text.includes(`"${name}"`);
        assert.equal(await isKnown("centre"), true, `Keystone answered ${status} and made nobody`);
        await clouds.eventually(`the arrival of ${name}`, () => isKnown("edge1"));
      });
    }
  }
});
