/**
 * Goal: whoever calls a site's proxy gets an answer when only a read or a sign-in is asked for, in the same call, whatever
 * becomes of the centre meanwhile; a change is sent to the centre alone, once, or refused truthfully; and nobody is told that an
 * answer of the site is the centre's. Method: the product's own handler between two scripted services.
 */
import assert from "node:assert/strict";
import { until } from "../../lab/waiting.ts";
import { startSiteProxy, type SiteProxy } from "../support/site-proxy.ts";
import type { RawConnection } from "../support/upstream.ts";

const HOST = "Host: cloud.example:5000\r\n";
const GET = `GET /v3/users HTTP/1.1\r\n${HOST}\r\n`;
const SIGN_IN = `POST /v3/auth/tokens HTTP/1.1\r\n${HOST}Content-Type: application/json\r\nContent-Length: 11\r\n\r\n{"auth":{}}`;
const CHANGE = `PATCH /v3/users/u HTTP/1.1\r\n${HOST}X-Auth-Token: t1\r\nContent-Length: 2\r\n\r\n{}`;
const answer = (who: string, status = "200 OK"): string =>
  `HTTP/1.1 ${status}\r\nContent-Length: ${who.length}\r\nX-From: ${who}\r\n\r\n${who}`;
const as = (token: string): string => `GET /v3/users HTTP/1.1\r\n${HOST}X-Auth-Token: ${token}\r\n\r\n`;

describe("a site's proxy", () => {
  let proxy: SiteProxy;
  afterEach(() => proxy.close());

  const send = async (text: string): Promise<RawConnection> => (await proxy.client()).send(text);
  const reaches = (state: string): Promise<void> =>
    until({ what: `reach ${state}`, withinMs: 5_000, log: "" }, () => Promise.resolve(proxy.reach.state === state));
  /** The centre is gone, and the proxy knows. */
  const cut = async (): Promise<void> => {
    proxy.isThere = false;
    proxy.reach.doubted();
    await reaches("cut");
  };

  it("passes the centre's answer on, untouched", async () => {
    proxy = await startSiteProxy();
    const client = await send(GET);
    (await proxy.centre.next()).send(answer("centre"));
    await client.has("\r\n\r\ncentre");
    assert.doesNotMatch(client.received, /Holdfast/i);
    assert.equal(proxy.local.connections.length, 0);
  });

  it("answers a read itself, in the same call, when the centre breaks off or says that its service is away", async () => {
    proxy = await startSiteProxy();
    proxy.isThere = true;
    for (const fail of [(centre: RawConnection) => centre.reset(), (centre: RawConnection) => centre.end(),
      (centre: RawConnection) => void centre.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").end(),
      (centre: RawConnection) => void centre.send(answer("away", "503 Service Unavailable")),
      (centre: RawConnection) => void centre.send(answer("away", "502 Bad Gateway"))]) {
      const client = await send(GET);
      fail(await proxy.centre.next());
      (await proxy.local.next()).send(answer("edge1"));
      await client.has("\r\n\r\nedge1");
      assert.match(client.received, /^HTTP\/1\.1 200 OK\r\n/);
      await reaches("connected");
    }
  });

  it("sends a sign-in with its whole body to the site when the centre breaks off", async () => {
    proxy = await startSiteProxy();
    const client = await send(SIGN_IN);
    const centre = await proxy.centre.next();
    await centre.has("{\"auth\":{}}");
    centre.reset();
    const local = await proxy.local.next();
    await local.has("{\"auth\":{}}");
    local.send(answer("token", "201 Created"));
    await client.has("\r\n\r\ntoken");
  });

  it("gives a silent centre up as soon as a probe has failed, for all who wait, and says whose answer they get", async () => {
    proxy = await startSiteProxy({ patienceMs: 500 });
    const clients = [await send(GET), await send(GET)];
    await proxy.centre.next();
    await proxy.centre.next();
    proxy.isThere = false;
    for (const client of clients) {
      (await proxy.local.next()).send(answer("edge1"));
      await client.has("\r\n\r\nedge1");
      assert.match(client.received, /X-Holdfast-Served-By: edge1\r\nX-Holdfast-Data-Age: \d+\r\nX-Holdfast-Position: 2:71\r\n/);
    }
    assert.equal(proxy.reach.state, "cut");
  });

  it("waits for a slow centre that is there", async () => {
    proxy = await startSiteProxy();
    const client = await send(GET);
    const centre = await proxy.centre.next();
    const before = proxy.probes;
    await until({ what: "a probe", withinMs: 5_000, log: "" }, () => Promise.resolve(proxy.probes > before));
    await reaches("connected");
    centre.send(answer("centre"));
    await client.has("\r\n\r\ncentre");
    assert.equal(proxy.local.connections.length, 0);
  });

  it("answers by itself while cut off, asks the centre for nothing, and goes back when the centre answers again", async () => {
    proxy = await startSiteProxy();
    await cut();
    for (const text of [GET, SIGN_IN]) {
      const client = await send(text);
      (await proxy.local.next()).send(answer("edge1"));
      await client.has("\r\n\r\nedge1");
      assert.match(client.received, /X-Holdfast-Served-By: edge1/);
    }
    assert.equal(proxy.centre.connections.length, 0);
    proxy.isThere = true;
    await reaches("connected");
    const client = await send(GET);
    (await proxy.centre.next()).send(answer("centre"));
    await client.has("\r\n\r\ncentre");
  });

  it("says that the age is unknown while the daemon does not know it, and nothing where headers are off", async () => {
    for (const truthHeaders of [true, false]) {
      proxy = await startSiteProxy({ truthHeaders });
      proxy.ageSeconds = undefined;
      await until({ what: "the daemon's answer", withinMs: 5_000, log: "" }, async () => {
        await cut();
        const client = await send(GET);
        (await proxy.local.next()).send(answer("edge1"));
        await client.has("\r\n\r\nedge1");
        return truthHeaders ? /X-Holdfast-Data-Age: unknown/.test(client.received) : !/Holdfast/i.test(client.received);
      });
      if (truthHeaders) await proxy.close();
    }
  });

  it("refuses changes while cut off, before a byte of them was sent, and says when to try again", async () => {
    proxy = await startSiteProxy();
    await cut();
    const client = await send(CHANGE);
    await client.has("was not made");
    assert.match(client.received, /^HTTP\/1\.1 503 Service Unavailable\r\n[^]*\r\nRetry-After: 30\r\n/);
    assert.match(client.received, /"error":\{"code":503/);
    assert.deepEqual([proxy.centre.connections.length, proxy.local.connections.length], [0, 0]);
  });

  it("never repeats a change, and says that its outcome is unknown", async () => {
    proxy = await startSiteProxy();
    const client = await send(CHANGE);
    (await proxy.centre.next()).reset();
    await client.has("unknown");
    assert.match(client.received, /^HTTP\/1\.1 502 /);
    assert.deepEqual([proxy.centre.connections.length, proxy.local.connections.length], [1, 0]);
  });

  it("answers from fresh rows by itself with local-first, but not whoever has just changed something", async () => {
    proxy = await startSiteProxy({ profile: "local-first" });
    const served = async (text: string, by: "centre" | "local"): Promise<void> => {
      const client = await send(text);
      (await proxy[by].next()).send(answer(by));
      await client.has(`\r\n\r\n${by}`);
    };
    await until({ what: "the daemon's answer", withinMs: 5_000, log: "" }, () =>
      Promise.resolve(proxy.freshness.age() !== undefined));
    const writer = await send(CHANGE);
    (await proxy.centre.next()).send(answer("done"));
    await writer.has("\r\n\r\ndone");
    await served(as("t1"), "centre");
    await served(as("t2"), "local");
    await served(SIGN_IN, "centre");
  });

  it("asks the centre when the site's own service is away, with local-first", async () => {
    proxy = await startSiteProxy({ profile: "local-first" });
    await proxy.local.close();
    const client = await send(GET);
    (await proxy.centre.next()).send(answer("centre"));
    await client.has("\r\n\r\ncentre");
  });

  it("is not talked into cutting itself off by clients that leave or break their bodies off", async () => {
    proxy = await startSiteProxy();
    proxy.isThere = true;
    for (let times = 0; times < 5; times += 1) {
      const client = await send(GET);
      await proxy.centre.next();
      client.reset();
    }
    const client = await send(GET);
    (await proxy.centre.next()).send(answer("centre"));
    await client.has("\r\n\r\ncentre");
    assert.equal(proxy.local.connections.length, 0);
  });
});
