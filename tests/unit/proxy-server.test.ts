/** What the proxy accepts from clients, what it refuses and how, on raw sockets. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { present } from "../../core/assert.ts";
import { RawConnection, startProxy, type ProxySetting, type ProxyUnderTest } from "../support/upstream.ts";

const HOST = "Host: cloud.example:5000\r\n";

/** Requests that must reach no upstream: what is sent, and the status that comes back. */
const REFUSED: readonly (readonly [string, string, number])[] = [
  ["Content-Length and Transfer-Encoding together",
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
  ["two equal lengths", `POST / HTTP/1.1\r\n${HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx`, 400],
  ["a length with a sign", `POST / HTTP/1.1\r\n${HOST}Content-Length: +1\r\n\r\nx`, 400],
  ["a length spelt with an underscore", `POST / HTTP/1.1\r\n${HOST}Content_Length: 1\r\n\r\nx`, 400],
  ["a Transfer-Encoding other than chunked", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, 501],
  ["a misspelt chunked", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`, 501],
  ["two Host headers", `GET / HTTP/1.1\r\n${HOST}Host: other\r\n\r\n`, 400],
  ["no Host header", "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", 400],
  ["a space before the colon", `GET / HTTP/1.1\r\n${HOST}X-A : 1\r\n\r\n`, 400],
  ["a folded header", `GET / HTTP/1.1\r\n${HOST}X-A: 1\r\n 2\r\n\r\n`, 400],
  ["a bare line feed", `GET / HTTP/1.1\r\n${HOST}X-A: 1\n\r\n`, 400],
  ["a Connection header that takes the token away",
    `GET / HTTP/1.1\r\n${HOST}X-Auth-Token: t\r\nConnection: x-auth_token\r\n\r\n`, 400],
  ["an unknown expectation", `PUT / HTTP/1.1\r\n${HOST}Expect: tea\r\nContent-Length: 1\r\n\r\nx`, 417],
  ["HTTP/2.0 in the request line", `GET / HTTP/2.0\r\n${HOST}\r\n`, 505],
  ["an invented version", `GET / HTTP/9.9\r\n${HOST}\r\n`, 505],
  ["CONNECT", `CONNECT cloud.example:443 HTTP/1.1\r\n${HOST}\r\n`, 405],
  ["an unknown method", `BREW /pot HTTP/1.1\r\n${HOST}\r\n`, 501],
  ["an absolute target for another host", `POST http://other.example/v3 HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\n`, 400],
  ["a target that is no path", `GET v3/users HTTP/1.1\r\n${HOST}\r\n`, 400],
  ["a head above the bound", `GET / HTTP/1.1\r\n${HOST}X-Big: ${"z".repeat(140_000)}\r\n\r\n`, 431],
];

describe("the server side of the proxy", () => {
  let proxy: ProxyUnderTest;
  const start = async (setting: ProxySetting = {}): Promise<ProxyUnderTest> => (proxy = await startProxy(setting));
  afterEach(() => proxy.close());

  for (const [what, request, status] of REFUSED) {
    it(`refuses ${what} with ${status} in the service's shape, and closes`, async () => {
      await start();
      const client = await proxy.client();
      client.send(request);
      await client.gone();
      assert.match(client.received, new RegExp(`^HTTP/1\\.1 ${status} `));
      assert.match(client.received, /\r\nx-openstack-request-id: req-[0-9a-f-]{36}\r\n/);
      assert.match(client.received, new RegExp(`"error":\\{"code":${status},`));
      assert.equal(proxy.upstream.connections.length, 0);
    });
  }

  it("forwards an absolute target for its own host in origin form", async () => {
    await start();
    const client = await proxy.client();
    client.send(`GET http://CLOUD.example:5000/v3?x=1 HTTP/1.1\r\n${HOST}\r\n`);
    assert.match((await proxy.upstream.next()).received, /^GET \/v3\?x=1 HTTP\/1.1\r\n/);
  });

  it("answers OPTIONS * itself and serves Upgrade as plain HTTP", async () => {
    await start();
    const client = await proxy.client();
    client.send(`OPTIONS * HTTP/1.1\r\n${HOST}\r\n`);
    await client.has("204 No Content");
    client.send(`GET /v3 HTTP/1.1\r\n${HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n`);
    const upstream = await proxy.upstream.next();
    assert.doesNotMatch(upstream.received, /upgrade|settings/i);
    upstream.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await client.has("\r\n\r\nok");
  });

  it("forwards heads with thousands of headers whole", async () => {
    await start();
    const client = await proxy.client();
    const many = Array.from({ length: 3000 }, (_, count) => `X-${count}: 1\r\n`).join("");
    client.send(`GET / HTTP/1.1\r\n${HOST}${many}\r\n`);
    const upstream = await proxy.upstream.next();
    assert.equal(upstream.received.match(/^X-[0-9]+: 1$/gm)?.length, 3000);
  });

  it("serves HTTP/1.0 and closes", async () => {
    await start();
    const client = await proxy.client();
    client.send("GET /v3 HTTP/1.0\r\n\r\n");
    (await proxy.upstream.next()).end("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello");
    await client.gone();
    assert.ok(client.received.endsWith("\r\n\r\nhello"));
    assert.doesNotMatch(client.received, /chunked/);
  });

  it("answers a client that closed its sending half", async () => {
    await start();
    const client = await proxy.client();
    client.end(`POST / HTTP/1.1\r\n${HOST}Content-Length: 2\r\n\r\n{}`);
    const upstream = await (await proxy.upstream.next()).has("{}");
    upstream.end("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    assert.equal((await proxy.outcome()).outcome, "answered");
  });

  it("carries a lower-case method as it was written, with its body, and closes after it", async () => {
    let method = "";
    await start({ before: (exchange) => {
      method = exchange.method;
      return Promise.resolve();
    } });
    const client = await proxy.client();
    client.send(`post /v3/users HTTP/1.1\r\n${HOST}Content-Length: 10\r\n\r\n{"a":`);
    const upstream = await proxy.upstream.next();
    client.send("true}");
    await upstream.has("{\"a\":true}");
    assert.match(upstream.received, /^post \/v3\/users HTTP\/1.1\r\n/);
    assert.match(upstream.received, /X-Forwarded-For: 127.0.0.1\r\n/);
    assert.equal(method, "post");
    upstream.end("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    await client.gone();
    assert.match(client.received, /^HTTP\/1.1 201 Created\r\n/);
    assert.match(client.received, /\r\nConnection: close\r\n/);
    assert.ok(client.received.endsWith("\r\n\r\nok"));
  });

  it("carries a lower-case method on a connection that was used before", async () => {
    await start();
    const client = await proxy.client();
    client.send(`GET /1 HTTP/1.1\r\n${HOST}\r\n`);
    (await proxy.upstream.next()).end("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    await client.has("one");
    client.send(`dElete /2 HTTP/1.1\r\n${HOST}\r\n`);
    const second = await proxy.upstream.next();
    assert.match(second.received, /^dElete \/2 /);
    second.end("HTTP/1.1 204 No Content\r\n\r\n");
    await client.gone();
    assert.match(client.received, /204 No Content/);
  });

  it("refuses a broken chunk as the answer of its own request and destroys the upload", async () => {
    await start({ profile: { chunkedRequests: true } });
    const client = await proxy.client();
    client.send(`PUT / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`);
    const upstream = await (await proxy.upstream.next()).has("hello");
    client.send("0x7\r\nabc");
    await client.has("HTTP/1.1 400 ");
    await upstream.gone();
    assert.ok(!upstream.received.endsWith("0\r\n\r\n"));
  });

  it("keeps the answer of a write whose successor on the connection is broken", async () => {
    await start();
    const client = await proxy.client();
    client.send(`POST /1 HTTP/1.1\r\n${HOST}Content-Length: 2\r\n\r\n{}`);
    const upstream = await (await proxy.upstream.next()).has("{}");
    client.send("garbage without end\r\n\r\n");
    upstream.end("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    await client.gone();
    assert.match(client.received, /^HTTP\/1.1 201 Created[^]*\r\n\r\nokHTTP\/1.1 501 /);
  });

  it("drains: finishes what was begun, takes nothing new, closes", async () => {
    await start();
    const idle = await proxy.client();
    const client = await proxy.client();
    client.send(`POST /1 HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\n`);
    const upstream = await proxy.upstream.next();
    const stopped = proxy.server.stop();
    await idle.gone();
    upstream.end("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    await stopped;
    await client.gone();
    assert.ok(client.received.endsWith("\r\n\r\nok"));
    await assert.rejects(proxy.client());
  });

  it("drains: answers a call that was on its way on an idle connection, and closes it", async () => {
    await start();
    const client = await proxy.client();
    const stopped = proxy.server.stop();
    client.send(`POST /late HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\n`);
    (await proxy.upstream.next()).end("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    await stopped;
    await client.gone();
    assert.match(client.received, /^HTTP\/1.1 201 Created[^]*\r\nConnection: close\r\n[^]*ok$/i);
  });

  it("drains: answers calls of connections that the system had taken and nobody had accepted yet", async () => {
    await start();
    const { port } = present(proxy.server.address(), "it listens");
    const clients = Array.from({ length: 20 }, () => new RawConnection(connect(port, "127.0.0.1")));
    for (const client of clients) client.send(`OPTIONS * HTTP/1.1\r\n${HOST}\r\n`);
    await Promise.any(clients.map(({ socket }) => once(socket, "connect")));
    await proxy.server.stop();
    for (const client of clients) await client.has("204 No Content");
  });

  it("drains: cuts off what does not finish in time", async () => {
    await start({ drainTimeoutMs: 50 });
    const client = await proxy.client();
    client.send(`GET /1 HTTP/1.1\r\n${HOST}\r\n`);
    await proxy.upstream.next();
    await proxy.server.stop();
    await client.gone();
    assert.equal(client.received, "");
  });

  it("speaks TLS and says so to the upstream", async function () {
    const folder = mkdtempSync(join(tmpdir(), "holdfast-tls-"));
    try {
      const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
      execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "1", "-subj", "/CN=localhost", "-keyout", key, "-out", cert], { stdio: "ignore" });
      await start({ tls: { cert, key } });
      const socket = connectTls({ port: proxy.port, host: "127.0.0.1", rejectUnauthorized: false });
      await new Promise((resolve) => socket.once("secureConnect", resolve));
      const client = new RawConnection(socket);
      client.send(`post /v3 HTTP/1.1\r\n${HOST}X-Forwarded-Proto: http\r\nContent-Length: 0\r\n\r\n`);
      const upstream = await proxy.upstream.next();
      assert.match(upstream.received, /^post [^]*X-Forwarded-Proto: https\r\n/);
      upstream.end("HTTP/1.1 204 No Content\r\n\r\n");
      await client.gone();
      assert.match(client.received, /^HTTP\/1.1 204/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
