/**
 * Answers that the proxy makes itself, in the error shape of the service it stands for, so that unchanged clients show the
 * message instead of tripping over it. The shape comes from the service file; no service is named here.
 *
 * Meaning of statuses on calls that write: 503 certainly not executed; 502 and 504 unknown, and the text says so.
 * Sources: bodies recorded from running services and tried with their clients. WWW-Authenticate is never made here: an
 * answer of 401 comes from the service alone.
 */
import { STATUS_CODES } from "node:http";
import type { ServerResponse } from "node:http";
import { unreachable } from "../core/assert.ts";
import type { Service } from "../schemas/define.ts";

export type ErrorShape = Service["errorShape"];

/** What is told to the client. */
export interface Refusal {
  readonly status: number;
  /** A sentence or two for a person. */
  readonly message: string;
  /** Whole seconds after which trying again makes sense; undefined when it never does by itself. */
  readonly retryAfterSeconds?: number | undefined;
}

/** A refusal ready for the wire: status, reason phrase, flat header list with Content-Length, UTF-8 body. */
export interface WrittenRefusal {
  readonly status: number;
  readonly reason: string;
  readonly fields: readonly string[];
  readonly body: Uint8Array;
}

/** Fault names of the compute shape; every other status is a computeFault. */
const COMPUTE_FAULTS: Readonly<Record<number, string>> = { 400: "badRequest", 401: "unauthorized", 403: "forbidden",
  404: "itemNotFound", 405: "badMethod", 409: "conflictingRequest", 413: "overLimit", 415: "badMediaType", 429: "overLimit",
  501: "notImplemented",
  503: "serviceUnavailable" };

function bodyOf(shape: ErrorShape, status: number, title: string, message: string): object {
  switch (shape) {
    case "keystone": return { error: { code: status, message, title } };
    case "nova": return { [COMPUTE_FAULTS[status] ?? "computeFault"]: { code: status, message } };
    case "neutron": return { NeutronError: { type: title.replaceAll(/[^A-Za-z]/g, ""), message, detail: "" } };
    case "glance": return { message, code: `${status} ${title}`, title };
    default: return unreachable(shape);
  }
}

/** The refusal in the service's shape. `requestId` is a bare UUID; clients and logs see "req-<uuid>". */
export function writeRefusal(shape: ErrorShape, refusal: Refusal, requestId: string): WrittenRefusal {
  const reason = STATUS_CODES[refusal.status] ?? "Error";
  const body = Buffer.from(JSON.stringify(bodyOf(shape, refusal.status, reason, refusal.message)));
  const fields = ["Content-Type", shape === "nova" ? "application/json; charset=UTF-8" : "application/json",
    "Content-Length", String(body.byteLength), "Cache-Control", "no-store", "x-openstack-request-id", `req-${requestId}`];
  if (refusal.retryAfterSeconds !== undefined) fields.push("Retry-After", String(refusal.retryAfterSeconds));
  return { status: refusal.status, reason, fields, body };
}

/** Answers a request whose head was not answered yet. `close` ends the connection after the answer. */
export function refuse(response: ServerResponse, shape: ErrorShape, refusal: Refusal, requestId: string, close = false): void {
  if (response.headersSent || response.destroyed) return;
  const written = writeRefusal(shape, refusal, requestId);
  if (close) response.shouldKeepAlive = false;
  response.writeHead(written.status, written.reason, [...written.fields]);
  response.end(written.body);
}

/** The same as bytes, for a connection on which no request could be read. Always announces the end of the connection. */
export function refusalBytes(shape: ErrorShape, refusal: Refusal, requestId: string): Uint8Array {
  const { status, reason, fields, body } = writeRefusal(shape, refusal, requestId);
  const lines = [`HTTP/1.1 ${status} ${reason}`, "Connection: close"];
  for (let at = 0; at + 1 < fields.length; at += 2) lines.push(`${fields[at]}: ${fields[at + 1]}`);
  return Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), body]);
}
