/** How the simulator stands between the product and its ports: an object that differs from another in some of its methods. */

/** An object whose methods are those of `target` except the given ones, bound to the target so that private fields work. */
export function altered<T extends object>(target: T, methods: Partial<T>): T {
  return new Proxy(target, {
    get(object, name): unknown {
      const own: unknown = Reflect.get(methods, name);
      if (own !== undefined) return own;
      const value: unknown = Reflect.get(object, name, object);
      return typeof value === "function" ? (value as (...inputs: unknown[]) => unknown).bind(object) : value;
    },
  });
}
