//! How the pages of one answer follow each other.

use repair_core::{Error, Result};
use reqwest::Url;
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::http::answers::check_pointer;
use crate::http::api::{place, text};

/// How further pages are asked for: one of `token`, `token_header`, `next`, `link`, `page` and `after`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PagesConfig {
    /// Where the body has a token for the next page, as a JSON Pointer; null, an empty text or nothing on the last page.
    pub token: Option<String>,
    /// The header with a token for the next page.
    pub token_header: Option<String>,
    /// The parameter of the query in which a token is sent back; `page_token` by default.
    pub parameter: Option<String>,
    /// Where the body has the address of the next page, as a JSON Pointer. It must be of the same host.
    pub next: Option<String>,
    /// Whether the header `Link` (RFC 8288) has the address of the next page, as `rel="next"`. It must be of the same host.
    pub link: bool,
    /// The parameter of the query with the number of the page. A page without rows is the last.
    pub page: Option<String>,
    /// The number of the first page; 1 by default.
    pub first: Option<u64>,
    /// The parameter of the query that says from when rows are wanted: the time of the last row, until a page has no later one. `form` says how it is written.
    pub after: Option<String>,
    /// With `after`, how times are written, as in `{from:…}`; RFC 3339 by default.
    pub form: Option<String>,
}

/// How further pages are asked for.
#[derive(Debug, Clone)]
pub(super) enum Pages {
    One,
    Token { at: Place, parameter: String },
    Next(Place),
    Number { parameter: String, first: u64 },
    After { parameter: String, form: Option<String> },
}

/// Where something stands in a reply.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Body(String),
    Header(String),
    Link,
}

/// What leads to the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Onward {
    /// A parameter of the first request.
    Parameter(String, String),
    /// Another address of the same host.
    Address(Url),
}

impl Pages {
    pub(super) fn new(config: Option<&PagesConfig>) -> Result<Self> {
        let Some(config) = config else { return Ok(Self::One) };
        let PagesConfig { token, token_header, parameter, next, link, page, first, after, form } = config.clone();
        let given = [token.is_some(), token_header.is_some(), next.is_some(), link, page.is_some(), after.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(Error::invalid("`pages` must have one of `token`, `token_header`, `next`, `link: true`, `page` and `after`"));
        }
        for at in [&token, &next].into_iter().flatten() {
            check_pointer(at)?;
        }
        let is_token = token.is_some() || token_header.is_some();
        for (name, is_given, fits) in [
            ("parameter", parameter.is_some(), is_token),
            ("first", first.is_some(), page.is_some()),
            ("form", form.is_some(), after.is_some()),
        ] {
            if is_given && !fits {
                return Err(Error::invalid(format!("`{name}` has no meaning for these `pages`; remove it")));
            }
        }
        let parameter = parameter.unwrap_or_else(|| "page_token".to_owned());
        Ok(match (token, token_header, next, page, after) {
            (Some(at), ..) => Self::Token { at: Place::Body(at), parameter },
            (_, Some(name), ..) => Self::Token { at: Place::Header(name), parameter },
            (_, _, Some(at), ..) => Self::Next(Place::Body(at)),
            (_, _, _, Some(parameter), _) => Self::Number { parameter, first: first.unwrap_or(1) },
            (.., Some(parameter)) => Self::After { parameter, form },
            _ => Self::Next(Place::Link),
        })
    }

    /// What a reply says of the next page: a token, or an address. Pages that are numbered, or asked for by time, say nothing.
    pub(super) fn onward(&self, provider: &str, asked: &Url, headers: &HeaderMap, body: Option<&Value>) -> Result<Option<Onward>> {
        match self {
            Self::One | Self::Number { .. } | Self::After { .. } => Ok(None),
            Self::Token { at, parameter } => Ok(found(at, headers, body)?.map(|token| Onward::Parameter(parameter.clone(), token))),
            Self::Next(at) => match found(at, headers, body)? {
                None => Ok(None),
                Some(next) => {
                    let url = asked
                        .join(&next)
                        .map_err(|error| Error::invalid(format!("{provider} leads to a next page that is no URL ({error})")))?;
                    let is_ours = url.scheme() == asked.scheme()
                        && url.host_str() == asked.host_str()
                        && url.port_or_known_default() == asked.port_or_known_default()
                        && url.username().is_empty()
                        && url.password().is_none();
                    if is_ours {
                        return Ok(Some(Onward::Address(url)));
                    }
                    Err(Error::invalid(format!(
                        "{provider} leads to a next page at {}, which is not where it was asked; keys are sent to no other host, so the whole answer is \
                         rejected",
                        place(&url)
                    )))
                }
            },
        }
    }
}

fn found(at: &Place, headers: &HeaderMap, body: Option<&Value>) -> Result<Option<String>> {
    let there = match at {
        Place::Header(name) => return Ok(text(headers, name).filter(|text| !text.is_empty()).map(str::to_owned)),
        Place::Link => return Ok(headers.get_all("link").iter().filter_map(|value| value.to_str().ok()).find_map(next_link)),
        Place::Body(at) => body.and_then(|body| body.pointer(at)),
    };
    match there {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(Error::invalid("what leads to the next page is neither a text nor a number; the whole answer is rejected")),
    }
}

/// The target of `rel="next"` in a header `Link` (RFC 8288, section 3).
fn next_link(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let end = after.find(",").filter(|_| !after.is_empty()).unwrap_or(after.len());
        let parameters = after.get(..end).unwrap_or_default();
        let is_next = parameters.split(';').map(str::trim).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(target.trim().to_owned());
        }
        rest = after.get(end..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        for (header, expected) in [
            (r#"<https://a/b?page=2>; rel="next", <https://a/b?page=9>; rel="last""#, Some("https://a/b?page=2")),
            (r#"<https://a/b?page=1>; rel="prev", </b?x=1,2>; title="x"; rel=next"#, Some("/b?x=1,2")),
            (r#"<https://a/b>; rel="next first""#, Some("https://a/b")),
            (r#"<https://a/b>; rel="nextish""#, None),
            ("", None),
            ("<", None),
        ] {
            assert_eq!(next_link(header).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn a_next_page_is_of_the_same_host_or_refused() {
        let pages = Pages::new(Some(&PagesConfig { next: Some("/next".into()), ..PagesConfig::default() })).unwrap();
        let asked: Url = "https://api.example/v1/rows?from=1".parse().unwrap();
        let onward = |next: &str| pages.onward("it", &asked, &HeaderMap::new(), Some(&serde_json::json!({ "next": next })));
        for (next, url) in [
            ("https://api.example/v1/rows?page=2", "https://api.example/v1/rows?page=2"),
            ("?page=2", "https://api.example/v1/rows?page=2"),
        ] {
            assert_eq!(onward(next).unwrap(), Some(Onward::Address(url.parse().unwrap())));
        }
        for next in [
            "http://api.example/v1",
            "https://evil.example/v1",
            "file:///etc/passwd",
            "//evil.example/",
            "https://api.example:444/",
            "https://x@api.example/",
        ] {
            assert!(onward(next).unwrap_err().to_string().contains("not where it was asked"), "{next}");
        }
        assert_eq!(onward("").unwrap(), None);
    }
}
