/**
 * The services that Holdfast knows, by the name their files give them. The one list to extend for a new service.
 * Not here: which of them a deployment uses (config/).
 */
import { assert } from "../core/assert.ts";
import type { Service } from "./define.ts";
import { keystone } from "./keystone.ts";

/** Every known service by name. */
export const SERVICES: ReadonlyMap<string, Service> = new Map([keystone].map((service) => [service.name, service]));

/** The service called `name`. Names come from checked configuration, so an unknown one is a bug: AssertionError. */
export function serviceNamed(name: string): Service {
  const service = SERVICES.get(name);
  assert(service !== undefined, `no service ${name}; known are ${[...SERVICES.keys()].join(", ")}`);
  return service;
}
