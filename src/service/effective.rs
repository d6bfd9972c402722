use serde_json::Value as Json;

use crate::foreign::without_secrets;

/// A configuration as it is printed: what is off is left out (an empty section would switch it on), secrets in URLs are
/// redacted, and text that looks like an expression is escaped, so that what is printed can be read again.
pub(super) fn printable(effective: Json) -> Json {
    match effective {
        Json::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, printable(value))).collect(),
        Json::Array(items) => items.into_iter().map(printable).collect(),
        Json::String(text) => Json::String(without_secrets(&text).replace('$', "$$")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_printed_can_be_read_again() {
        let effective = json!({ "a": null, "b": ["$x", { "c": null }], "url": "https://user:hunter2@host:1/path?key=hunter3", "plain": "a@b?c" });
        let printed = json!({ "b": ["$$x", {}], "url": "https://[redacted]@host:1/path?[redacted]", "plain": "a@b?c" });
        assert_eq!(printable(effective), printed);
    }
}
