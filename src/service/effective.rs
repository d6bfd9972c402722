use serde_json::Value as Json;

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

/// A URL without user name, password and query; any other text as it is.
fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?[redacted]"));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or_else(|| authority.to_owned(), |(_, host)| format!("[redacted]@{host}"));
    format!("{scheme}://{host}{path}{query}")
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
