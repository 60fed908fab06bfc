//! Who may ask: programs on this machine, and no web page. A browser sends a page's requests to loopback, too, and a name that a page
//! controls may resolve to it. It must not know what is asked.

use hyper::header::{HOST, HeaderName, ORIGIN};
use hyper::http::request;

/// Says whether a browser sends a request for a page of another site: <https://www.w3.org/TR/fetch-metadata/>.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused; `None` if it may be served.
pub(crate) fn refusal(head: &request::Parts) -> Option<String> {
    let text = |name: &HeaderName| head.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let named = [head.uri.authority().map(|authority| authority.as_str()), text(&HOST)];
    if named.iter().all(Option::is_none) {
        return Some("the request names no host".to_owned());
    }
    if let Some(host) = named.into_iter().flatten().find(|host| !is_loopback(host)) {
        return Some(format!("the sandbox serves only this machine, as 127.0.0.1 or localhost, and the request names the host `{host}`"));
    }
    if let Some(origin) = text(&ORIGIN)
        && !origin.split_once("://").is_some_and(|(_, host)| is_loopback(host))
    {
        return Some(format!("the sandbox serves no web pages, and the request comes from one of `{origin}`"));
    }
    match text(&SEC_FETCH_SITE) {
        None | Some("none" | "same-origin") => None,
        Some(site) => Some(format!("the sandbox serves no web pages, and the request comes from one (`Sec-Fetch-Site: {site}`)")),
    }
}

/// Whether a host, perhaps with a port, is this machine whatever a name server says.
fn is_loopback(host: &str) -> bool {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    is_address || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_known_and_those_that_look_like_them_are_not() {
        for host in
            ["127.0.0.1:80", "127.0.0.1", "127.1.2.3:9", "localhost:9000", "LOCALHOST", "localhost.", "bucket.localhost:1", "[::1]:80"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "127.0.0.1.example.com:80",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1@example.com",
            "0.0.0.0",
            "[::]:80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
