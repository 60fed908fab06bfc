//! How the pages of one answer follow each other.

use repair_core::{Error, Result};
use reqwest::Url;
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::http::answers::check_pointer;
use crate::http::api::{place, text};
use crate::secret::{Secret, without};
use crate::template::Argument;

/// What becomes of the address of a next page that is of another host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtherHosts {
    /// The whole answer is rejected: keys are sent to no other host.
    #[default]
    Refuse,
    /// Its path and its query are asked for at `base_url`.
    AskHere,
}

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
    /// With `next` and `link`, what becomes of an address of another host: `refuse` (the default), or `ask_here`: its path and query are asked for at
    /// `base_url`, for an API that, behind a proxy, names itself as it knows itself.
    pub other_hosts: OtherHosts,
    /// With `next` and `link`, the path below which each next page must be, such as `v1/rows/{key}`, so that the pages of one answer are of one request.
    pub below: Option<String>,
    /// With `next` and `link`, parameters of the query that are left out of addresses, in capitals or not, such as those with a key.
    pub without: Vec<String>,
}

/// How further pages are asked for.
#[derive(Debug, Clone)]
pub(super) enum Pages {
    One,
    Token { at: Place, parameter: String },
    Next { at: Place, other_hosts: OtherHosts, below: Option<Vec<Argument>>, without: Vec<String> },
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

/// Where the pages of one request may be.
pub(super) struct Bounds<'a> {
    /// What messages call the API.
    pub(super) provider: &'a str,
    /// Where the API is.
    pub(super) base: &'a Url,
    /// The address below which they are, if that is declared.
    pub(super) below: Option<&'a Url>,
    /// What may not be shown.
    pub(super) secrets: &'a [Secret],
}

impl Pages {
    /// # Errors
    /// `invalid` if the configuration makes no sense.
    pub(super) fn new(config: Option<&PagesConfig>, parse: impl Fn(&str) -> Result<Argument>) -> Result<Self> {
        let Some(config) = config else { return Ok(Self::One) };
        let PagesConfig { token, token_header, parameter, next, link, page, first, after, form, other_hosts, below, without } =
            config.clone();
        let given = [token.is_some(), token_header.is_some(), next.is_some(), link, page.is_some(), after.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(Error::invalid("`pages` must have one of `token`, `token_header`, `next`, `link: true`, `page` and `after`"));
        }
        for at in [&token, &next].into_iter().flatten() {
            check_pointer(at)?;
        }
        let is_token = token.is_some() || token_header.is_some();
        let is_address = next.is_some() || link;
        for (name, is_given, fits) in [
            ("parameter", parameter.is_some(), is_token),
            ("first", first.is_some(), page.is_some()),
            ("form", form.is_some(), after.is_some()),
            ("other_hosts", other_hosts != OtherHosts::Refuse, is_address),
            ("below", below.is_some(), is_address),
            ("without", !without.is_empty(), is_address),
        ] {
            if is_given && !fits {
                return Err(Error::invalid(format!("`{name}` has no meaning for these `pages`; remove it")));
            }
        }
        let parameter = parameter.unwrap_or_else(|| "page_token".to_owned());
        let parts = |path: String| path.split('/').filter(|part| !part.is_empty()).map(&parse).collect::<Result<Vec<_>>>();
        let below = below.map(parts).transpose()?;
        Ok(match (token, token_header, next, page, after) {
            (Some(at), ..) => Self::Token { at: Place::Body(at), parameter },
            (_, Some(name), ..) => Self::Token { at: Place::Header(name), parameter },
            (_, _, Some(at), ..) => Self::Next { at: Place::Body(at), other_hosts, below, without },
            (_, _, _, Some(parameter), _) => Self::Number { parameter, first: first.unwrap_or(1) },
            (.., Some(parameter)) => Self::After { parameter, form },
            _ => Self::Next { at: Place::Link, other_hosts, below, without },
        })
    }

    /// What a reply says of the next page: a token, or an address. Pages that are numbered, or asked for by time, say nothing.
    pub(super) fn onward(&self, bounds: &Bounds<'_>, asked: &Url, headers: &HeaderMap, body: Option<&Value>) -> Result<Option<Onward>> {
        match self {
            Self::One | Self::Number { .. } | Self::After { .. } => Ok(None),
            Self::Token { at, parameter } => Ok(found(at, headers, body)?.map(|token| Onward::Parameter(parameter.clone(), token))),
            Self::Next { at, other_hosts, without, .. } => {
                let Some(next) = found(at, headers, body)? else { return Ok(None) };
                let provider = bounds.provider;
                let url = asked
                    .join(&next)
                    .map_err(|error| Error::invalid(format!("{provider} leads to a next page that is no URL ({error})")))?;
                let url = match other_hosts {
                    OtherHosts::Refuse => bounds.same_host(asked, url)?,
                    OtherHosts::AskHere => bounds.at_base(&url)?,
                };
                Ok(Some(Onward::Address(without_parameters(url, without))))
            }
        }
    }
}

impl Bounds<'_> {
    /// Refuses an address of another host, or one that is not below what is declared.
    fn same_host(&self, asked: &Url, url: Url) -> Result<Url> {
        let is_ours = url.scheme() == asked.scheme()
            && url.host_str() == asked.host_str()
            && url.port_or_known_default() == asked.port_or_known_default()
            && url.username().is_empty()
            && url.password().is_none();
        if !is_ours {
            return Err(self.elsewhere(&url, "which is not where it was asked; keys are sent to no other host"));
        }
        match self.below {
            Some(below) if !url.path().starts_with(&folder(below)) => Err(self.astray(&url, below)),
            _ => Ok(url),
        }
    }

    /// The path and the query of an address of any host, at the address of the API.
    fn at_base(&self, url: &Url) -> Result<Url> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(self.elsewhere(url, "which is not where it was asked; keys are sent to no other host"));
        }
        let prefix = self.base.path().trim_end_matches('/');
        let path = match self.below {
            // Wherever the API believes to be, from there on the path is the same.
            Some(below) => {
                let way = folder(below);
                let own = way.strip_prefix(prefix).unwrap_or(&way);
                let rest = url.path().find(own).and_then(|at| url.path().get(at..)).ok_or_else(|| self.astray(url, below))?;
                format!("{prefix}{rest}")
            }
            None if url.path().starts_with(&format!("{prefix}/")) => url.path().to_owned(),
            None => format!("{prefix}{}", url.path()),
        };
        let mut here = self.base.clone();
        here.set_path(&path);
        here.set_query(url.query());
        Ok(here)
    }

    fn astray(&self, url: &Url, below: &Url) -> Error {
        self.elsewhere(url, &format!("which does not hold what was asked for: that is below {}", place(below)))
    }

    fn elsewhere(&self, url: &Url, why: &str) -> Error {
        let at = without(&place(url), self.secrets);
        Error::invalid(format!("{} leads to a next page at {at}, {why}, so the whole answer is rejected", self.provider))
    }
}

/// The path of an address as that of a folder.
fn folder(url: &Url) -> String {
    format!("{}/", url.path().trim_end_matches('/'))
}

/// An address without some parameters of its query.
fn without_parameters(mut url: Url, names: &[String]) -> Url {
    let is_kept = |name: &str| !names.iter().any(|own| own.eq_ignore_ascii_case(name));
    let all: Vec<(String, String)> = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    if all.iter().any(|(name, _)| !is_kept(name)) {
        url.set_query(None);
        let kept: Vec<&(String, String)> = all.iter().filter(|(name, _)| is_kept(name)).collect();
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept.iter().map(|(name, value)| (name, value)));
        }
    }
    url
}

fn found(at: &Place, headers: &HeaderMap, body: Option<&Value>) -> Result<Option<String>> {
    let there = match at {
        Place::Header(name) => return Ok(text(headers, name).filter(|text| !text.is_empty()).map(str::to_owned)),
        Place::Link => {
            for value in headers.get_all("link") {
                let text = value.to_str().map_err(|_| Error::invalid("a header `Link` that is not text"))?;
                if let Some(next) = next_link(text)? {
                    return Ok(Some(next));
                }
            }
            return Ok(None);
        }
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
///
/// # Errors
/// `invalid` if the header is not of that form: it may be the one that leads on.
fn next_link(header: &str) -> Result<Option<String>> {
    let odd =
        || Error::invalid("a header `Link` that is not of the form `<address>; rel=\"next\"`, so it is not known whether a page follows");
    let mut rest = header.trim_start_matches([',', ' ', '\t']);
    while !rest.is_empty() {
        let (target, after) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or_else(odd)?;
        let (parameters, after) = parameters(after).ok_or_else(odd)?;
        let is_next = |(name, value): &(String, String)| {
            name.eq_ignore_ascii_case("rel") && value.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
        };
        if parameters.iter().any(is_next) {
            return Ok(Some(target.trim().to_owned()));
        }
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
    Ok(None)
}

/// The parameters of a link, and what is behind the comma after them. Within quotes, commas and semicolons are part of a value. Quotes are sometimes written as
/// apostrophes.
fn parameters(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    loop {
        rest = match rest.chars().next() {
            None => return Some((found, "")),
            Some(',') => return Some((found, rest.get(1..)?)),
            Some(';') => rest.get(1..)?.trim_start(),
            Some(_) => return None,
        };
        let end = rest.find(['=', ';', ',']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(value) = after.strip_prefix('=') else {
            found.push((name.trim().to_owned(), String::new()));
            rest = after.trim_start();
            continue;
        };
        let value = value.trim_start();
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
        let (value, after) = match quote {
            Some(quote) => {
                let (mut text, mut is_escaped, mut end) = (String::new(), false, None);
                for (at, character) in value.char_indices().skip(1) {
                    match character {
                        '\\' if !is_escaped => is_escaped = true,
                        _ if character == quote && !is_escaped => {
                            end = Some(at + 1);
                            break;
                        }
                        _ => {
                            text.push(character);
                            is_escaped = false;
                        }
                    }
                }
                (text, value.get(end?..)?)
            }
            None => {
                let end = value.find([';', ',']).unwrap_or(value.len());
                let (text, after) = value.split_at(end);
                (text.trim().to_owned(), after)
            }
        };
        found.push((name.trim().to_owned(), value));
        rest = after.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        for (header, expected) in [
            (r#"<https://a/b?page=2>; rel="next", <https://a/b?page=9>; rel="last""#, Some("https://a/b?page=2")),
            (r#"<https://a/b?page=1>; rel="prev", </b?x=1,2>; title="x"; rel=next"#, Some("/b?x=1,2")),
            (r#"<https://a/b>; rel="next first""#, Some("https://a/b")),
            (r#"<https://a/b>; rel="nextish""#, None),
            (r#"<https://a/b?page=2>; title="a, b; rel=\"prev\""; rel="next""#, Some("https://a/b?page=2")),
            (r#"<https://a/a>; rel=first ,<https://a/b>; crossorigin; rel='next'"#, Some("https://a/b")),
            (r#"<https://a/b>;rel="last";title="<https://a/c>; rel=next""#, None),
            (r#"</x>, </b>; REL=Next"#, Some("/b")),
            ("", None),
        ] {
            assert_eq!(next_link(header).unwrap().as_deref(), expected, "{header}");
        }
        for odd in ["<", "https://a/b; rel=next", r#"<https://a/b>; title="a"#, "<a> rel=next", r#"<a>; rel="next" x"#] {
            assert!(next_link(odd).unwrap_err().message().contains("not of the form"), "{odd}");
        }
    }

    fn pages(config: Value) -> Result<Pages> {
        Pages::new(Some(&serde_json::from_value(config).unwrap()), |text| Argument::parse(text, &["key"]))
    }

    fn onward(config: Value, base: &str, below: Option<&str>, next: &str) -> Result<Option<Onward>> {
        let [base, asked] = [base.to_owned(), format!("{base}/v1/rows/A?from=1")].map(|url| url.parse::<Url>().unwrap());
        let below = below.map(|below| below.parse::<Url>().unwrap());
        let bounds = Bounds { provider: "it", base: &base, below: below.as_ref(), secrets: &[] };
        pages(config)?.onward(&bounds, &asked, &HeaderMap::new(), Some(&json!({ "next": next })))
    }

    #[test]
    fn a_next_page_is_of_the_same_host_or_refused() {
        let onward = |next: &str| onward(json!({ "next": "/next" }), "https://api.example", None, next);
        for (next, url) in [
            ("https://api.example/v1/rows?page=2", "https://api.example/v1/rows?page=2"),
            ("?page=2", "https://api.example/v1/rows/A?page=2"),
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

    #[test]
    fn a_next_page_is_of_the_same_request_where_that_is_declared() {
        let config = json!({ "next": "/next", "below": "v1/rows/{key}" });
        let onward = |next: &str| onward(config.clone(), "https://api.example", Some("https://api.example/v1/rows/A"), next);
        assert_eq!(onward("/v1/rows/A/2").unwrap(), Some(Onward::Address("https://api.example/v1/rows/A/2".parse().unwrap())));
        for next in ["/v1/rows/B/2", "/v1/rows/AB", "/v1/rows/A/../B/2", "/v1/rows/A/%2e%2e/B", "/x/v1/rows/A/2", "/v1/account"] {
            assert!(onward(next).unwrap_err().to_string().contains("that is below https://api.example/v1/rows/A"), "{next}");
        }
    }

    #[test]
    fn a_next_page_behind_a_proxy_is_asked_for_at_the_proxy() {
        for (base, below) in
            [("https://proxy.example/api", None), ("https://proxy.example/api", Some("v1/rows/A")), ("https://proxy.example", None)]
        {
            let config = json!({ "next": "/next", "other_hosts": "ask_here", "below": below, "without": ["apikey"] });
            let way = below.map(|below| format!("{base}/{below}"));
            let onward = |next: &str| onward(config.clone(), base, way.as_deref(), next);
            for next in [
                "http://own.example:9/v1/rows/A/2?cursor=3&apiKey=K",
                "https://proxy.example/v1/rows/A/2?APIKEY=K&cursor=3",
                "/v1/rows/A/2?cursor=3",
                &format!("{base}/v1/rows/A/2?cursor=3"),
            ] {
                let expected = format!("{base}/v1/rows/A/2?cursor=3").parse().unwrap();
                assert_eq!(onward(next).unwrap(), Some(Onward::Address(expected)), "{base} {below:?} {next}");
            }
            let bare = onward("http://own.example/v1/rows/A/2?apiKey=K").unwrap();
            assert_eq!(bare, Some(Onward::Address(format!("{base}/v1/rows/A/2").parse().unwrap())));
            assert!(onward("data:text/plain,x").unwrap_err().to_string().contains("not where it was asked"));
            assert_eq!(onward("http://own.example/v1/account").is_err(), below.is_some(), "{base}");
        }
    }

    #[test]
    fn what_only_addresses_have_is_refused_for_other_pages() {
        for more in [json!({ "below": "x" }), json!({ "without": ["x"] }), json!({ "other_hosts": "ask_here" })] {
            let mut config = json!({ "token": "/next" });
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert!(pages(config).unwrap_err().to_string().contains("no meaning for these `pages`"), "{more}");
        }
        assert!(pages(json!({ "next": "/next", "below": "{kye}" })).unwrap_err().to_string().contains("did you mean `{key}`?"));
    }
}
