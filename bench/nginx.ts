/**
 * nginx, twice: as the fastest upstream there is (1 KB of JSON from a file) and as the proxy that others are measured against.
 * Both run with one worker, keep connections on both sides and log nothing, so that what is compared is forwarding alone.
 * Source of the directives: nginx.org, ngx_http_core_module, ngx_http_proxy_module, ngx_http_upstream_module.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const NGINX = "/usr/sbin/nginx";
const BODY_BYTES = 1024;

function shell(folder: string, name: string, http: string): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) =>
    `  ${kind}_temp_path ${join(folder, `${name}-${kind}`)};`).join("\n");
  return `worker_processes 1;
daemon off;
user root;
pid ${join(folder, `${name}.pid`)};
error_log ${join(folder, `${name}.log`)};
events { worker_connections 8192; }
http {
  access_log off;
  server_tokens off;
  tcp_nodelay on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
${temporary}
${http}
}
`;
}

function written(folder: string, name: string, http: string): readonly [string, ...string[]] {
  const file = join(folder, `${name}.conf`);
  writeFileSync(file, shell(folder, name, http));
  return [NGINX, "-c", file, "-p", folder, "-e", join(folder, `${name}.log`)];
}

/** Command of an nginx that answers `GET /document` with 1 KB of JSON from the kernel's file cache. */
export function staticUpstream(folder: string, port: number): readonly [string, ...string[]] {
  const documents = join(folder, "documents");
  mkdirSync(documents, { recursive: true });
  const frame = JSON.stringify({ text: "" }).length;
  writeFileSync(join(documents, "document"), JSON.stringify({ text: "x".repeat(BODY_BYTES - frame) }));
  return written(folder, "nginx-upstream", `  default_type application/json;
  sendfile on;
  open_file_cache max=10 inactive=600s;
  server { listen 127.0.0.1:${port} backlog=4096; root ${documents}; }`);
}

/** Command of an nginx that forwards everything to `127.0.0.1:upstreamPort`, Host and path as they came. */
export function forwardingNginx(folder: string, name: string, port: number, upstreamPort: number):
readonly [string, ...string[]] {
  return written(folder, name, `  upstream api { server 127.0.0.1:${upstreamPort}; keepalive 512; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
    }
  }`);
}
