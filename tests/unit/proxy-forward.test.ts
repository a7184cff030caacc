/** What the proxy promises about bytes and outcomes, against an upstream that is scripted byte by byte. */
import assert from "node:assert/strict";
import { HELD_BYTES_MAX } from "../../proxy/relay.ts";
import { UPSTREAM_DEFAULTS } from "../../proxy/upstream.ts";
import { RawUpstream, startProxy, testWorld, type ProxySetting, type ProxyUnderTest } from "../support/upstream.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const HOST = "Host: cloud.example:5000\r\n";

describe("the relay between client and upstream", () => {
  let proxy: ProxyUnderTest;
  const start = async (setting: ProxySetting = {}): Promise<ProxyUnderTest> => (proxy = await startProxy(setting));
  afterEach(() => proxy.close());

  it("hands target, Host, case, order and duplicates of a request on, and replaces forwarding headers", async () => {
    await start();
    const client = await proxy.client();
    client.send("GET /v3//a%2Fb/../c%2e?q=%20+a&&x HTTP/1.1\r\nhOST: cloud.example:5000\r\nX-Dup: 1\r\nx-AUTH-token: t\r\n"
      + "X-Dup: 2\r\nForwarded: for=9.9.9.9\r\nX_Forwarded_Proto: https\r\nX-Forwarded-Host: evil\r\n"
      + "Connection: close, X-Hop\r\nX-Hop: 1\r\nProxy: evil\r\n\r\n");
    const seen = (await proxy.upstream.next()).received;
    assert.deepEqual(seen.split("\r\n"), ["GET /v3//a%2Fb/../c%2e?q=%20+a&&x HTTP/1.1", "host: cloud.example:5000",
      "connection: close", "X-Dup: 1", "x-AUTH-token: t", "X-Dup: 2", "X-Forwarded-For: 127.0.0.1",
      "X-Forwarded-Proto: http", "", ""]);
  });

  it("hands reason, case, order and duplicates of an answer on", async () => {
    await start();
    const client = await proxy.client();
    client.send(`GET / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
    (await proxy.upstream.next()).end("HTTP/1.1 207 Fine Indeed\r\nX-OpenStack-Request-ID: req-1\r\nLink: <a>\r\nVary: X-A\r\n"
      + "Link: <b>\r\nConnection: close\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok");
    await client.gone();
    assert.deepEqual(client.received.split("\r\n"), ["HTTP/1.1 207 Fine Indeed", "X-OpenStack-Request-ID: req-1", "Link: <a>",
      "Vary: X-A", "Link: <b>", "Content-Length: 2", "Connection: close", "", "ok"]);
  });

  it("hands every byte value of an answer on, however the answer is framed and cut into pieces", async () => {
    await start();
    const bytes = Array.from({ length: 256 }, (_, value) => String.fromCharCode(value)).join("");
    for (const [head, body] of [["Content-Length: 256", bytes], ["Transfer-Encoding: chunked", `100\r\n${bytes}\r\n0\r\n\r\n`],
      ["Connection: close", bytes]] as const) {
      for (const cut of [0, 100]) {
        const client = await proxy.client();
        client.send(`GET / HTTP/1.0\r\n${HOST}\r\n`);
        const upstream = await proxy.upstream.next();
        upstream.send(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n${body.slice(0, cut)}`);
        if (cut > 0) await client.has("\u0001");
        upstream.end(body.slice(cut));
        await client.gone();
        assert.equal(client.received.slice(client.received.indexOf("\r\n\r\n") + 4), bytes);
      }
    }
  });

  it("gives a close-delimited JSON answer a length, and keeps it for the caller", async () => {
    await start();
    const client = await proxy.client();
    client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
    (await proxy.upstream.next()).end("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\":\"}\"}");
    await client.has("{\"a\":\"}\"}");
    assert.match(client.received, /Content-Length: 9\r\n/);
    const relayed = await proxy.outcome();
    assert.equal(relayed.outcome, "answered");
    assert.equal(Buffer.from(relayed.answer ?? []).toString(), "{\"a\":\"}\"}");
    assert.equal(relayed.answerType, "application/json");
  });

  it("turns a cut JSON answer into 502, and says that the outcome of a write is unknown", async () => {
    await start();
    const client = await proxy.client();
    client.send(`POST / HTTP/1.1\r\n${HOST}Content-Length: 2\r\n\r\n{}`);
    (await proxy.upstream.next()).end("HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n\r\n{\"user\":{\"id\":\"");
    await client.has("unknown");
    assert.match(client.received, /^HTTP\/1.1 502 Bad Gateway\r\n/);
    assert.match(client.received, /"error":\{"code":502/);
    const relayed = await proxy.outcome();
    assert.deepEqual([relayed.outcome, relayed.status, relayed.answer], ["unknown", 201, undefined]);
  });

  it("does not take a reset for the end of an answer whose end only the close tells", async () => {
    await start();
    const client = await proxy.client();
    client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
    const upstream = await proxy.upstream.next();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello");
    await client.has("hello");
    upstream.reset();
    await client.gone();
    assert.ok(!client.received.endsWith("0\r\n\r\n"), "a cut body must not look whole");
    assert.equal((await proxy.outcome()).outcome, "unknown");
  });

  it("cuts the client off when a stream breaks, instead of finishing it", async () => {
    for (const head of ["Content-Length: 1000", "Transfer-Encoding: chunked"]) {
      await start();
      const client = await proxy.client();
      client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
      const upstream = await proxy.upstream.next();
      const body = head.startsWith("T") ? "5\r\nhello\r\n" : "hello";
      upstream.send(`HTTP/1.1 200 OK\r\nContent-Type: image/x\r\n${head}\r\n\r\n${body}`);
      await client.has("hello");
      upstream.reset();
      await client.gone();
      assert.ok(!client.received.endsWith("0\r\n\r\n"), "a cut body must not look whole");
      assert.equal((await proxy.outcome()).outcome, "unknown");
      if (head.startsWith("C")) await proxy.close();
    }
  });

  it("says 503 and not executed when the upstream refuses the connection", async () => {
    const gone = new RawUpstream();
    const port = await gone.listen();
    await gone.close();
    await start({ profile: { url: `http://127.0.0.1:${port}` }, errorShape: "nova" });
    const client = await proxy.client();
    client.send(`POST / HTTP/1.1\r\n${HOST}Content-Length: 2\r\n\r\n{}`);
    await client.has("not executed");
    assert.match(client.received, /^HTTP\/1.1 503 Service Unavailable\r\n/);
    assert.match(client.received, /Retry-After: 5\r\n/);
    assert.match(client.received, /\{"serviceUnavailable":\{"code":503,/);
    assert.match(client.received, /x-openstack-request-id: req-[0-9a-f-]{36}\r\n/);
    assert.equal((await proxy.outcome()).outcome, "refused");
  });

  it("never sends a write twice, and says 502 unknown when the connection breaks before the answer", async () => {
    await start({ profile: { keepAlive: true, chunkedRequests: true } });
    const client = await proxy.client();
    client.send(`DELETE /x HTTP/1.1\r\n${HOST}\r\n`);
    (await proxy.upstream.next()).reset();
    await client.has("unknown");
    assert.match(client.received, /^HTTP\/1.1 502/);
    assert.equal((await proxy.outcome()).outcome, "unknown");
    assert.equal(proxy.upstream.connections.length, 1);
  });

  it("says 504 when the first byte does not come in time", async () => {
    const clock = new VirtualClock();
    await start({ world: { ...testWorld, clock } });
    const client = await proxy.client();
    client.send(`POST / HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\n`);
    const upstream = await proxy.upstream.next();
    await clock.pass(UPSTREAM_DEFAULTS.firstByteTimeoutMs - 1);
    assert.equal(client.received, "");
    await clock.pass(1);
    await client.has("unknown");
    assert.match(client.received, /^HTTP\/1.1 504 Gateway Timeout\r\n/);
    await upstream.gone();
  });

  it("cuts an answer off that falls silent, but waits for a client that uploads slowly", async () => {
    const clock = new VirtualClock();
    await start({ world: { ...testWorld, clock } });
    const reader = await proxy.client();
    reader.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
    const upstream = await proxy.upstream.next();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: image/x\r\nContent-Length: 9\r\n\r\nhello");
    await reader.has("hello");
    await clock.pass(UPSTREAM_DEFAULTS.idleTimeoutMs + UPSTREAM_DEFAULTS.firstByteTimeoutMs);
    await reader.gone();
    assert.equal((await proxy.outcome()).outcome, "unknown");
    const writer = await proxy.client();
    writer.send(`PUT / HTTP/1.1\r\n${HOST}Content-Length: 4\r\n\r\nab`);
    const storing = await (await proxy.upstream.next()).has("ab");
    await clock.pass(3 * UPSTREAM_DEFAULTS.firstByteTimeoutMs);
    writer.send("cd");
    await storing.has("abcd");
    storing.end("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    await writer.has("201 Created");
  });

  it("gives a client up that sends nothing more of its body", async () => {
    const clock = new VirtualClock();
    await start({ world: { ...testWorld, clock } });
    const client = await proxy.client();
    client.send(`PUT / HTTP/1.1\r\n${HOST}Content-Length: 4\r\n\r\nab`);
    const upstream = await (await proxy.upstream.next()).has("ab");
    await clock.pass(UPSTREAM_DEFAULTS.idleTimeoutMs);
    await upstream.gone();
    await client.gone();
    assert.equal((await proxy.outcome()).outcome, "unknown");
  });

  it("retries a read once when a reused connection was dead", async () => {
    await start({ profile: { keepAlive: true } });
    const client = await proxy.client();
    client.send(`GET /1 HTTP/1.1\r\n${HOST}\r\n`);
    const first = await proxy.upstream.next();
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await client.has("ok");
    client.send(`GET /2 HTTP/1.1\r\n${HOST}\r\n`);
    await first.has("GET /2 ");
    first.reset();
    (await proxy.upstream.next()).send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain");
    await client.has("again");
    assert.equal(proxy.upstream.connections.length, 2);
  });

  it("gives every write a connection of its own", async () => {
    await start({ profile: { keepAlive: true } });
    const client = await proxy.client();
    client.send(`GET /1 HTTP/1.1\r\n${HOST}\r\n`);
    const first = await proxy.upstream.next();
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await client.has("ok");
    client.send(`PUT /2 HTTP/1.1\r\n${HOST}Content-Length: 1\r\n\r\nx`);
    const second = await proxy.upstream.next();
    assert.match(second.received, /^PUT \/2 /);
    second.end("HTTP/1.1 204 No Content\r\n\r\n");
    await client.has("204 No Content");
  });

  it("gathers a chunked body for an upstream that loses them, and streams it to one that does not", async () => {
    await start();
    const client = await proxy.client();
    client.send(`POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n`);
    client.send("2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n");
    const upstream = await proxy.upstream.next();
    await upstream.has("abcde");
    assert.match(upstream.received, /content-length: 5\r\n/);
    assert.doesNotMatch(upstream.received, /transfer-encoding|X-Trailer/i);
    upstream.end("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    const relayed = await proxy.outcome();
    assert.equal(Buffer.from(relayed.requestBody ?? []).toString(), "abcde");
    await proxy.close();
    await start({ profile: { chunkedRequests: true } });
    const second = await proxy.client();
    second.send(`POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`);
    const streamed = await (await proxy.upstream.next()).has("abc");
    assert.match(streamed.received, /transfer-encoding: chunked\r\n/);
    second.send("0\r\n\r\n");
    await streamed.has("0\r\n\r\n");
    streamed.end("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert.equal((await proxy.outcome()).outcome, "answered");
  });

  it("refuses a chunked body above the bound with 413 in the service's shape, and never calls the upstream", async () => {
    await start({ errorShape: "neutron" });
    const client = await proxy.client();
    client.send(`POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n20000\r\n${"x".repeat(0x20000)}\r\n0\r\n\r\n`);
    await client.has("NeutronError");
    assert.match(client.received, /^HTTP\/1.1 413 /);
    assert.equal((await proxy.outcome()).outcome, "refused");
    assert.equal(proxy.upstream.connections.length, 0);
  });

  it("relays an answer that comes before the body was sent", async () => {
    await start();
    const client = await proxy.client();
    client.send(`PUT / HTTP/1.1\r\n${HOST}Content-Length: 100000\r\n\r\n${"x".repeat(2000)}`);
    const upstream = await proxy.upstream.next();
    upstream.end("HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno");
    await client.has("\r\n\r\nno");
    assert.match(client.received, /^HTTP\/1.1 409 Conflict/);
    assert.equal((await proxy.outcome()).outcome, "answered");
  });

  it("breaks the upload off when the client does, and never ends a chunked body for it", async () => {
    await start({ profile: { chunkedRequests: true } });
    const client = await proxy.client();
    client.send(`PUT / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`);
    const upstream = await (await proxy.upstream.next()).has("hello");
    client.reset();
    await upstream.gone();
    assert.ok(!upstream.received.endsWith("0\r\n\r\n"));
    assert.equal((await proxy.outcome()).outcome, "unknown");
  });

  it("sees a write through when the client leaves after its body, and keeps the answer", async () => {
    await start();
    const client = await proxy.client();
    client.send(`POST / HTTP/1.1\r\n${HOST}Content-Length: 2\r\n\r\n{}`);
    const upstream = await (await proxy.upstream.next()).has("{}");
    client.reset();
    await client.gone();
    await new Promise((resolve) => setImmediate(resolve));
    upstream.end("HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n\r\n{\"id\":1}");
    const relayed = await proxy.outcome();
    assert.deepEqual([relayed.outcome, relayed.status], ["answered", 201]);
    assert.equal(Buffer.from(relayed.answer ?? []).toString(), "{\"id\":1}");
  });

  it("tells the upstream when the client of a read leaves", async () => {
    await start();
    const client = await proxy.client();
    client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
    const upstream = await proxy.upstream.next();
    client.reset();
    await upstream.gone();
    assert.equal((await proxy.outcome()).outcome, "unknown");
  });

  it("answers the expectation itself and keeps Expect from the upstream", async () => {
    await start();
    const client = await proxy.client();
    client.send(`PUT / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n`);
    await client.has("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    const upstream = await (await proxy.upstream.next()).has("hello");
    assert.doesNotMatch(upstream.received, /expect/i);
    upstream.end("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    await client.has("201 Created");
  });

  it("keeps HEAD, 204 and 304 without bodies, and drops 1xx answers", async () => {
    await start();
    const client = await proxy.client();
    client.send(`HEAD / HTTP/1.1\r\n${HOST}\r\n`);
    (await proxy.upstream.next()).end("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
    await client.has("Content-Length: 12345");
    client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
    (await proxy.upstream.next()).end("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"
      + "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n");
    await client.has("304 Not Modified");
    client.send(`DELETE / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
    (await proxy.upstream.next()).end("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    await client.gone();
    assert.doesNotMatch(client.received, /chunked|Early/);
  });

  it("sends on the body of a GET and of a DELETE", async () => {
    await start();
    for (const method of ["GET", "DELETE"]) {
      const client = await proxy.client();
      client.send(`${method} / HTTP/1.1\r\n${HOST}Content-Length: 7\r\n\r\n{"a":1}`);
      const upstream = await (await proxy.upstream.next()).has("{\"a\":1}");
      assert.match(upstream.received, /content-length: 7\r\n/);
      upstream.end("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
  });

  it("holds back only so much of an answer without length, then streams it and still notices a cut", async () => {
    await start();
    const client = await proxy.client();
    client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
    const upstream = await proxy.upstream.next();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[");
    upstream.end(`"${"x".repeat(HELD_BYTES_MAX + 10)}"`);
    await client.gone();
    assert.match(client.received, /Transfer-Encoding: chunked/);
    assert.ok(!client.received.endsWith("0\r\n\r\n"));
    assert.equal((await proxy.outcome()).outcome, "unknown");
  });

  it("stops reading the upstream when the client stops reading", async () => {
    await start();
    const client = await proxy.client();
    client.socket.pause();
    client.send(`GET / HTTP/1.1\r\n${HOST}\r\n`);
    const upstream = await proxy.upstream.next();
    const mebibyte = Buffer.alloc(1024 * 1024, "x");
    upstream.send(`HTTP/1.1 200 OK\r\nContent-Type: image/x\r\nContent-Length: ${64 * mebibyte.length}\r\n\r\n`);
    for (let count = 0; count < 64; count += 1) upstream.send(mebibyte);
    // The kernel takes a few MiB on each hop; the rest has to wait at the upstream.
    await upstream.until("back-pressure", ({ socket }) => socket.writableLength > 32 * mebibyte.length);
    assert.ok(proxy.relayed.length === 0);
    client.socket.resume();
    await client.until("the whole body", ({ received }) => received.length > 64 * mebibyte.length);
    assert.equal((await proxy.outcome()).outcome, "answered");
  });

  it("answers pipelined calls one after the other, in order", async () => {
    await start();
    const client = await proxy.client();
    client.send(`POST /1 HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\nDELETE /2 HTTP/1.1\r\n${HOST}\r\n`);
    const first = await proxy.upstream.next();
    assert.match(first.received, /^POST \/1/);
    assert.equal(proxy.upstream.connections.length, 1);
    first.end("HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\none");
    const second = await proxy.upstream.next();
    assert.match(second.received, /^DELETE \/2/);
    second.end("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    await client.has("two");
    assert.ok(client.received.indexOf("one") < client.received.indexOf("two"));
  });

  it("refuses calls beyond the connections and the waiting room, without sending them", async () => {
    const clock = new VirtualClock();
    let arrived = 0;
    const before = (): Promise<void> => Promise.resolve(void (arrived += 1));
    await start({ profile: { connectionsMax: 1 }, world: { ...testWorld, clock }, before });
    const first = await proxy.client();
    first.send(`GET /1 HTTP/1.1\r\n${HOST}\r\n`);
    const upstream = await proxy.upstream.next();
    const second = await proxy.client();
    second.send(`POST /2 HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\n`);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: image/x\r\n\r\nslow");
    await first.has("slow");
    while (arrived < 2) await new Promise((resolve) => setImmediate(resolve));
    await clock.pass(UPSTREAM_DEFAULTS.firstByteTimeoutMs);
    await second.has("not executed");
    assert.match(second.received, /^HTTP\/1.1 503/);
    assert.equal(proxy.upstream.connections.length, 1);
  });
});
