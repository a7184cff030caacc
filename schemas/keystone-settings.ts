/**
 * Files of Keystone that must be alike at every cloud: the keys of tokens, receipts and credentials, and the settings without
 * which a token of one cloud means something else, or nothing, at another. Defaults are those of release Zed.
 */
import type { KeyRepository, SameSetting, Setting } from "./settings.ts";

const setting = (section: string, option: string, byDefault: string): Setting => ({ section, option, byDefault });
const KEY_FOLDER = "/etc/keystone/fernet-keys/";

export const KEYSTONE_KEY_REPOSITORIES: readonly KeyRepository[] = [
  { name: "fernet", folder: setting("fernet_tokens", "key_repository", KEY_FOLDER),
    keysMax: setting("fernet_tokens", "max_active_keys", "3"),
    // Services may show a token that has expired for a while longer.
    lives: [setting("token", "expiration", "3600"), setting("token", "allow_expired_window", "172800")] },
  { name: "receipt", folder: setting("fernet_receipts", "key_repository", KEY_FOLDER),
    keysMax: setting("fernet_receipts", "max_active_keys", "3"), lives: [setting("receipt", "expiration", "300")] },
  // Keystone fixes the number itself.
  { name: "credential", folder: setting("credential", "key_repository", "/etc/keystone/credential-keys/"),
    keysMax: setting("credential", "max_active_keys", "3"), lives: [],
    rotatedOtherwise: "every stored credential has to be encrypted again between two rotations: use `keystone-manage "
      + "credential_rotate` and `credential_migrate` at the centre; the keys are distributed all the same" },
];

const LOCKOUT = "a password or a failed sign-in counts otherwise than at the centre";

export const KEYSTONE_SAME_SETTINGS: readonly SameSetting[] = [
  { ...setting("token", "provider", "fernet"), as: "text", because: "tokens of one cloud cannot be read at another" },
  { ...setting("auth", "methods", "external,password,token,oauth1,mapped,application_credential"), as: "order",
    because: "a token names its methods by their places in this list, so it means other methods at the other cloud" },
  { ...setting("token", "expiration", "3600"), as: "number", because: "tokens live for another time than the centre's" },
  { ...setting("token", "allow_expired_window", "172800"), as: "number",
    because: "long operations of services end at another time than at the centre" },
  { ...setting("revoke", "expiration_buffer", "1800"), as: "number",
    because: "revocations may be forgotten while tokens they speak of still live" },
  { ...setting("identity", "password_hash_algorithm", "bcrypt"), as: "text",
    because: "passwords are hashed otherwise than at the centre" },
  { ...setting("identity", "default_domain_id", "default"), as: "text",
    because: "who names no domain means another one than at the centre" },
  { ...setting("identity", "domain_specific_drivers_enabled", "false"), as: "flag",
    because: "users of some domains are looked for elsewhere than at the centre" },
  { ...setting("identity", "domain_configurations_from_database", "false"), as: "flag",
    because: "users of some domains are looked for elsewhere than at the centre" },
  { ...setting("federation", "default_authorization_ttl", "0"), as: "number",
    because: "memberships of federated users end at another time than at the centre" },
  { ...setting("DEFAULT", "max_project_tree_depth", "5"), as: "number", because: "projects may be nested otherwise" },
  { ...setting("unified_limit", "enforcement_model", "flat"), as: "text", because: "limits are counted otherwise" },
  { ...setting("security_compliance", "disable_user_account_days_inactive", ""), as: "number", because: LOCKOUT },
  { ...setting("security_compliance", "lockout_failure_attempts", ""), as: "number", because: LOCKOUT },
  { ...setting("security_compliance", "lockout_duration", "1800"), as: "number", because: LOCKOUT },
  { ...setting("security_compliance", "password_expires_days", ""), as: "number", because: LOCKOUT },
  { ...setting("security_compliance", "unique_last_password_count", "0"), as: "number", because: LOCKOUT },
  { ...setting("security_compliance", "minimum_password_age", "0"), as: "number", because: LOCKOUT },
  { ...setting("security_compliance", "password_regex", ""), as: "text", because: LOCKOUT },
  { ...setting("security_compliance", "change_password_upon_first_use", "false"), as: "flag", because: LOCKOUT },
];
