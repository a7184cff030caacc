/**
 * clouds.yaml for the openstack command and SDK: each cloud through its proxy under its own name, and past it under
 * `<cloud>-direct`.
 */
import { stringify } from "yaml";
import type { Secret } from "../core/secret.ts";
import { writeWhole } from "./files.ts";
import { CLOUDS, type CloudName } from "./options.ts";
import { endpointsOf, pathsOf, type LabRecord } from "./record.ts";
import { ADMIN_PROJECT, ADMIN_USER } from "./template.ts";

/** Writes clouds.yaml with the administrator's password. Readable by the owner only. */
export function writeClouds(record: LabRecord, adminPassword: Secret): void {
  const entry = (cloud: CloudName, url: string): object => ({
    auth: { auth_url: `${url}/v3`, username: ADMIN_USER, password: adminPassword.reveal(), project_name: ADMIN_PROJECT,
      user_domain_id: "default", project_domain_id: "default" },
    region_name: cloud,
    identity_api_version: "3",
  });
  const clouds = Object.fromEntries(CLOUDS.flatMap((cloud) => {
    const { proxy, direct } = endpointsOf(record, cloud);
    const past = { ...entry(cloud, direct), identity_endpoint_override: `${direct}/v3` };
    return [[cloud, entry(cloud, proxy)], [`${cloud}-direct`, past]];
  }));
  writeWhole(pathsOf(record).clouds, stringify({ clouds }));
}
