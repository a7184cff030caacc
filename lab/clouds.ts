/**
 * clouds.yaml for the openstack command and SDK: each cloud through its proxy under its own name, and past it under
 * `<cloud>-direct`.
 */
import { stringify } from "yaml";
import type { Secret } from "../core/secret.ts";
import { writeWhole } from "./files.ts";
import { CLOUDS } from "./options.ts";
import { endpointsOf, pathsOf, type LabRecord } from "./record.ts";
import { ADMIN_PROJECT, ADMIN_USER, regionsOf } from "./template.ts";

/** Writes clouds.yaml with the administrator's password. Readable by the owner only. */
export function writeClouds(record: LabRecord, adminPassword: Secret): void {
  const entry = (region: string, url: string): object => ({
    auth: { auth_url: `${url}/v3`, username: ADMIN_USER, password: adminPassword.reveal(), project_name: ADMIN_PROJECT,
      user_domain_id: "default", project_domain_id: "default" },
    region_name: region,
    identity_api_version: "3",
  });
  const clouds = Object.fromEntries(CLOUDS.flatMap((cloud) => {
    const [regions, endpoints] = [regionsOf(cloud), endpointsOf(record, cloud)];
    return [[cloud, entry(regions.proxy, endpoints.proxy)], [`${cloud}-direct`, entry(regions.direct, endpoints.direct)]];
  }));
  writeWhole(pathsOf(record).clouds, stringify({ clouds }));
}
