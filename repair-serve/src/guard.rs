//! Who may read, and who may start something.
//!
//! - Off loopback, and wherever a token is set, nothing is answered without the token: as the password of basic authentication, or as a bearer token.
//! - On loopback, only requests for `127.0.0.1`, `localhost` and `[::1]` with our port are answered. A page whose name is made to mean this machine (DNS
//!   rebinding) asks for its own name.
//! - What changes something is asked by `POST`, from this origin, with a secret that only a page of this server knows. A program that sends the bearer
//!   token needs neither, since no page of another origin can send that.

use std::net::SocketAddr;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The rules for requests.
pub(crate) struct Guard {
    hosts: Option<Vec<String>>,
    token: Option<blake3::Hash>,
    /// The secret of this process's pages.
    pub(crate) secret: String,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It has no token, or another.
    Token,
    /// It is for another host.
    Host,
    /// It comes from another page.
    Origin,
}

impl Refused {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Token => "this server asks for its token\n",
            Self::Host => "this server answers only for its own name; open it as 127.0.0.1 or localhost\n",
            Self::Origin => "only a page of this server may ask for this; open the page again\n",
        }
    }
}

impl Guard {
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        let port = address.port();
        let hosts = address.ip().is_loopback().then(|| {
            let names = ["127.0.0.1".to_owned(), "localhost".to_owned(), "[::1]".to_owned(), host_of(address)];
            names
                .iter()
                .flat_map(|name| [format!("{name}:{port}"), name.clone()])
                .filter(|name| port == 80 || name.ends_with(&format!(":{port}")))
                .collect()
        });
        // Each of them has 74 random bits.
        let random = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()].map(|id| id.to_string()).concat();
        let secret = blake3::hash(random.as_bytes()).to_hex().to_string();
        Self { hosts, token: token.map(|token| blake3::hash(token.as_bytes())), secret }
    }

    /// Checks a request that only reads.
    pub(crate) fn reads(&self, headers: &HeaderMap) -> Result<(), Refused> {
        if let Some(hosts) = &self.hosts {
            let host = text(headers, &HOST).unwrap_or_default();
            if !hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
                return Err(Refused::Host);
            }
        }
        match &self.token {
            // Hashes are compared in constant time.
            Some(token) if given(headers).is_none_or(|(given, _)| blake3::hash(given.as_bytes()) != *token) => Err(Refused::Token),
            _ => Ok(()),
        }
    }

    /// Checks a request that changes something, after [`Guard::reads`].
    pub(crate) fn changes(&self, headers: &HeaderMap, secret: Option<&str>) -> Result<(), Refused> {
        if self.token.is_some() && given(headers).is_some_and(|(_, is_bearer)| is_bearer) {
            return Ok(());
        }
        let host = text(headers, &HOST).unwrap_or_default();
        let is_ours = text(headers, &ORIGIN)
            .is_some_and(|origin| ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host)));
        let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
        let is_same = site.is_none_or(|site| site == "same-origin");
        let knows = secret.is_some_and(|secret| blake3::hash(secret.as_bytes()) == blake3::hash(self.secret.as_bytes()));
        if is_ours && is_same && knows { Ok(()) } else { Err(Refused::Origin) }
    }
}

fn host_of(address: SocketAddr) -> String {
    if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() }
}

fn text<'a>(headers: &'a HeaderMap, name: &axum::http::HeaderName) -> Option<&'a str> {
    // Several of them are none: whoever forwards requests may look at another one.
    let mut all = headers.get_all(name).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    only.to_str().ok()
}

/// The token of a request, and whether it is a bearer token.
fn given(headers: &HeaderMap) -> Option<(String, bool)> {
    let (scheme, rest) = text(headers, &AUTHORIZATION)?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((rest.trim().to_owned(), true));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| (password.to_owned(), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_this_machine_is_answered_on_loopback() {
        let guard = Guard::new("127.0.0.1:8080".parse().unwrap(), None);
        for good in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080"] {
            assert_eq!(guard.reads(&headers(&[("host", good)])), Ok(()), "{good}");
        }
        for bad in ["evil.example:8080", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil.example:8080", "", "localhost:8080.evil.example"] {
            assert_eq!(guard.reads(&headers(&[("host", bad)])), Err(Refused::Host), "{bad}");
        }
        let mut two = headers(&[("host", "127.0.0.1:8080")]);
        two.append("host", "evil.example".parse().unwrap());
        assert_eq!(guard.reads(&two), Err(Refused::Host));
    }

    #[test]
    fn a_change_needs_our_origin_and_our_secret() {
        let guard = Guard::new("127.0.0.1:8080".parse().unwrap(), None);
        let secret = Some(guard.secret.as_str());
        let ours = [("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")];
        assert_eq!(guard.changes(&headers(&ours), secret), Ok(()));
        assert_eq!(guard.changes(&headers(&ours), None), Err(Refused::Origin));
        assert_eq!(guard.changes(&headers(&ours), Some("guess")), Err(Refused::Origin));
        assert_eq!(guard.changes(&headers(&ours[..1]), secret), Err(Refused::Origin));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8081", "http://127.0.0.1:8080.evil.example"] {
            assert_eq!(guard.changes(&headers(&[ours[0], ("origin", origin)]), secret), Err(Refused::Origin), "{origin}");
        }
        let cross = [ours[0], ours[1], ("sec-fetch-site", "cross-site")];
        assert_eq!(guard.changes(&headers(&cross), secret), Err(Refused::Origin));
    }

    #[test]
    fn elsewhere_nothing_is_answered_without_the_token() {
        let guard = Guard::new("0.0.0.0:8080".parse().unwrap(), Some("correct horse battery".to_owned()));
        let asks = |authorization: &str| guard.reads(&headers(&[("host", "lake.example"), ("authorization", authorization)]));
        assert_eq!(guard.reads(&headers(&[("host", "lake.example")])), Err(Refused::Token));
        assert_eq!(asks("Bearer correct horse battery"), Ok(()));
        // "any:correct horse battery"
        assert_eq!(asks("Basic YW55OmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ=="), Ok(()));
        for bad in ["Bearer ", "Bearer correct horse", "Basic YW55OmE=", "Basic !!", "Digest x", "correct horse battery"] {
            assert_eq!(asks(bad), Err(Refused::Token), "{bad}");
        }
        // What a browser sends by itself is not enough to change something.
        let basic = headers(&[("host", "lake.example"), ("authorization", "Basic YW55OmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ==")]);
        assert_eq!(guard.changes(&basic, None), Err(Refused::Origin));
        assert_eq!(guard.changes(&headers(&[("authorization", "Bearer correct horse battery")]), None), Ok(()));
    }
}
