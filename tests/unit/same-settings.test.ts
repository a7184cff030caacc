/**
 * Goal: the service's configuration files are read as the service reads them, and a difference that matters is told with what to
 * change. Method: texts, with forms that oslo.config's own parser accepts and refuses.
 */
import assert from "node:assert/strict";
import { isOperating } from "../../core/errors.ts";
import { configurationOf, differencesOf, numberOf, sameSettingsOf, valueOf } from "../../files/settings.ts";
import { keystone } from "../../schemas/keystone.ts";
import type { SameSetting } from "../../schemas/settings.ts";

const read = (...texts: readonly string[]): ReturnType<typeof configurationOf> =>
  configurationOf(texts.map((text, place) => ({ path: `file${place}`, text })));
const at = (section: string, option: string, byDefault = "-"): { section: string; option: string; byDefault: string } =>
  ({ section, option, byDefault });

describe("a service's configuration", () => {
  it("is read with its sections, comments, quotes, colons and continued lines", () => {
    const configuration = read("top = 1\n[auth]\n# methods = no\n; methods = no\nmethods = password,\n  token,\n\ttotp\n\n"
      + "[token]\nexpiration:60\nprovider = \"fernet\"\n[DEFAULT]\nlast = a = b\r\n");
    assert.equal(valueOf(configuration, at("DEFAULT", "top")), "1");
    assert.equal(valueOf(configuration, at("auth", "methods")), "password,\ntoken,\ntotp");
    assert.equal(numberOf(configuration, at("token", "expiration")), 60);
    assert.equal(valueOf(configuration, at("token", "provider")), "fernet");
    assert.equal(valueOf(configuration, at("DEFAULT", "last")), "a = b");
    assert.equal(valueOf(configuration, at("token", "unheard", "default")), "default");
  });

  it("takes the last of several settings and the last of several files", () => {
    assert.equal(valueOf(read("[a]\nb = 1\nb = 2", "[a]\nb = 3"), at("a", "b")), "3");
  });

  it("that cannot be read is an error with file and line, never a default", () => {
    for (const text of ["[a]\nnothing", "[a\n", "  continued", "[a]\n= 1"]) {
      assert.throws(() => read(text), (error) =>
        isOperating(error, "E_SETTINGS_UNREADABLE") && /file0: line \d/.test(error.message));
    }
    assert.throws(() => numberOf(read("[a]\nb = x"), at("a", "b")), (error) => isOperating(error, "E_SETTINGS_UNREADABLE"));
  });
});

describe("settings that must be alike", () => {
  const settings = keystone.sameSettings ?? [];
  const differ = (here: string, centre: string, asked: readonly SameSetting[] = settings): readonly string[] =>
    differencesOf(asked, sameSettingsOf(read(here), asked), sameSettingsOf(read(centre), asked), ["/etc/x.conf"])
      .map(({ message }) => message);

  it("are compared as the service takes them: defaults, blanks, spellings of truth and of numbers do not count", () => {
    assert.deepEqual(differ("", "[token]\nexpiration = 03600\nprovider = fernet\n"
      + "[auth]\nmethods = external, password,token,\n oauth1,mapped,application_credential\n"
      + "[security_compliance]\nchange_password_upon_first_use = No"), []);
  });

  it("tell an order of methods that differs, because a token would mean others, and what to write where", () => {
    const [message, ...others] = differ("[auth]\nmethods = token,password", "[auth]\nmethods = password,token");
    assert.deepEqual(others, []);
    assert.match(message ?? "", /methods is "token,password" here and "password,token" at the centre \(the order counts\)/);
    assert.match(message ?? "", /In \/etc\/x\.conf write methods = password,token, under \[auth\]/);
  });

  it("do not tell the order of what is only a set, and tell what is set here alone", () => {
    const set: SameSetting = { ...at("a", "b", ""), as: "list", because: "it does" };
    assert.deepEqual(differ("[a]\nb = x, y", "[a]\nb = y,x", [set]), []);
    assert.match(differ("[a]\nb = x", "", [set])[0] ?? "", /is "x" here and not set at the centre: it does\. .* remove it/);
  });
});
