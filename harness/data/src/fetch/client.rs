//! One HTTP request for the rest of a file, and what the answer means.

use std::io::Read;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderMap, Response, header};

use super::error::{FetchError, FetchResult};
use crate::account::inert;

/// Time to reach a server, name look-up and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a connection is taken for broken.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Servers of datasets redirect to storage, and that to a region; more than this is a loop.
const REDIRECTS_MAX: usize = 8;

/// Where an address may lead to.
#[derive(Clone, Copy, Debug)]
pub enum Follow<'a> {
    /// To any host: a checksum tells what came from there.
    AnyHost,
    /// To the same host and to these: nothing vouches for the bytes but who sends them.
    Hosts(&'a [String]),
}

/// Talks to servers.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
}

/// What tells two versions of a file apart.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validator {
    /// A strong entity tag.
    Etag(String),
    /// The time of the last change.
    LastModified(String),
}

impl Validator {
    /// The value as it stands in a header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Etag(text) | Self::LastModified(text) => text,
        }
    }
}

/// A successful answer.
pub struct Answer {
    /// Where in the file its bytes begin; 0 if the server sends the whole.
    pub offset: u64,
    /// Length of the whole file, if the server says so.
    pub total: Option<u64>,
    /// Tells versions apart.
    pub validator: Option<Validator>,
    /// The bytes.
    pub body: Box<dyn Read>,
}

/// Answers to a request for the rest of a file.
pub enum Asked {
    /// Bytes follow.
    Bytes(Answer),
    /// The server has no bytes at that offset. It may say how long its file is.
    NothingThere(Option<u64>),
}

impl Client {
    /// With the time-outs of a downloader. Proxies are taken from the environment, as usual.
    #[must_use]
    pub fn new() -> Self {
        Self::with(SILENCE_TIMEOUT, ureq::Proxy::try_from_env())
    }

    /// With another patience for a silent server, and this proxy.
    #[must_use]
    pub fn with(silence: Duration, proxy: Option<ureq::Proxy>) -> Self {
        let config = Agent::config_builder()
            .proxy(proxy)
            .timeout_connect(Some(CONNECT_TIMEOUT.min(silence)))
            .timeout_recv_response(Some(silence))
            // per read, so that a download may take as long as it takes
            .timeout_per_read(Some(silence))
            // followed here, where it can be seen to whom
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("harness/", env!("CARGO_PKG_VERSION")))
            // sizes and checksums are those of the bytes as published
            .accept_encoding("identity")
            .build();
        Self { agent: config.new_agent() }
    }

    /// Breaks all connections, so that threads waiting for bytes return.
    pub fn shut_down(&self) {
        self.agent.clone().shutdown();
    }

    /// Asks for the bytes of `url` from `offset` on; with a validator, only if the file is still that version, and for
    /// the whole if it is not.
    ///
    /// # Errors
    /// `Network`, `Status`, or `Answer` for what is no answer to this request.
    pub fn ask(&self, url: &str, offset: u64, same: Option<&Validator>, follow: Follow) -> FetchResult<Asked> {
        let mut address = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.call(&address, offset, same)?;
            match redirect(&address, &response, follow)? {
                Some(next) => address = next,
                None => return Self::understand(url, offset, response),
            }
        }
        let expected = format!("at most {REDIRECTS_MAX} redirects");
        Err(FetchError::Answer { url: url.into(), expected, got: "one redirect after the other".into() })
    }

    fn call(&self, url: &str, offset: u64, same: Option<&Validator>) -> FetchResult<Response<ureq::Body>> {
        let mut request = self.agent.get(url);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
            if let Some(validator) = same {
                request = request.header(header::IF_RANGE, validator.as_str());
            }
        }
        request.call().map_err(|e| {
            let (url, message) = (url.to_owned(), e.to_string());
            if is_permanent(&e) {
                FetchError::Answer { url, expected: "a server that answers this address".into(), got: message }
            } else {
                FetchError::Network { url, message, received_bytes: offset }
            }
        })
    }

    fn understand(url: &str, offset: u64, response: Response<ureq::Body>) -> FetchResult<Asked> {
        let headers = response.headers();
        let wrong =
            |expected: &str, got: String| FetchError::Answer { url: url.into(), expected: expected.into(), got };
        if let Some(coding) = text(headers, &header::CONTENT_ENCODING).filter(|c| !c.eq_ignore_ascii_case("identity")) {
            return Err(wrong("the file's own bytes", format!("the answer is encoded as {coding}")));
        }
        match response.status().as_u16() {
            200 => {
                let total = text(headers, &header::CONTENT_LENGTH).and_then(|n| n.parse().ok());
                let chunked = headers.contains_key(header::TRANSFER_ENCODING);
                if total.is_none() && !chunked {
                    return Err(wrong("an answer with its length", "an answer whose end cannot be told".into()));
                }
                Ok(Asked::Bytes(answer(0, total, response)))
            }
            206 => {
                let range = text(headers, &header::CONTENT_RANGE).unwrap_or_default();
                let Some((first, total)) = content_range(range).filter(|&(first, _)| first == offset) else {
                    return Err(wrong(&format!("bytes from {offset} on"), format!("the range {range:?}")));
                };
                Ok(Asked::Bytes(answer(first, total, response)))
            }
            416 => {
                let range = text(headers, &header::CONTENT_RANGE).unwrap_or_default();
                Ok(Asked::NothingThere(range.strip_prefix("bytes */").and_then(|n| n.parse().ok())))
            }
            status => {
                let retry_after_s = text(headers, &header::RETRY_AFTER).and_then(|n| n.parse().ok());
                Err(FetchError::Status { url: url.to_owned(), status, retry_after_s })
            }
        }
    }
}

/// Whether asking again cannot help: what is wrong is the address, the proxy's address or the server's certificate.
fn is_permanent(error: &ureq::Error) -> bool {
    use ureq::Error as E;
    if let E::Io(refused) = error {
        // the resolver's answer comes as text: there is no such name, or it could not be asked just now
        let text = refused.to_string();
        return text.contains("failed to lookup address") && !text.to_ascii_lowercase().contains("temporary");
    }
    matches!(
        error,
        E::BadUri(_) | E::Http(_) | E::HostNotFound | E::InvalidProxyUrl | E::Tls(_) | E::Rustls(_) | E::TlsRequired
    )
}

/// Where an answer sends to, if it does and may.
fn redirect(from: &str, response: &Response<ureq::Body>, follow: Follow) -> FetchResult<Option<String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let refuse = |expected: String, got: String| FetchError::Answer { url: from.to_owned(), expected, got };
    let location = text(response.headers(), &header::LOCATION).unwrap_or_default();
    let Some(to) = resolve(from, location) else {
        let got = format!("a redirect to `{}`", inert(location));
        return Err(refuse("a redirect to an http or https address".into(), got));
    };
    let (host, secure) = (host(&to), |address: &str| address.starts_with("https://"));
    if secure(from) && !secure(&to) {
        return Err(refuse("an address that stays with https".into(), format!("a redirect to `{}`", inert(&to))));
    }
    match follow {
        Follow::Hosts(allowed) if !is_same_host(&to, from) && !allowed.iter().any(|name| names(name, &to)) => {
            Err(refuse(
                format!(
                    "the bytes from {} itself, since no checksum is published that could vouch for others; allow the other host with \
                 --allow-host {} if you trust it",
                    inert(self::host(from)),
                    inert(host)
                ),
                format!("a redirect to the host {}", inert(host)),
            ))
        }
        Follow::AnyHost | Follow::Hosts(_) => Ok(Some(to)),
    }
}

/// The address that a `Location` means.
fn resolve(from: &str, location: &str) -> Option<String> {
    let graphic = !location.is_empty() && location.bytes().all(|byte| byte.is_ascii_graphic());
    let (scheme, rest) = from.split_once("://").filter(|_| graphic)?;
    let known = |known: &&str| location.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known));
    if let Some(scheme) = ["http://", "https://"].into_iter().find(known) {
        return Some(format!("{scheme}{}", location.get(scheme.len()..)?));
    }
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    if location.split(['/', '?', '#']).next()?.contains(':') {
        return None; // another scheme
    }
    let whole_path = rest.strip_prefix(authority)?;
    let path = whole_path.split(['?', '#']).next()?;
    if location.starts_with('?') {
        return Some(format!("{scheme}://{authority}{path}{location}")); // another query of the same path
    }
    if location.starts_with('#') {
        return Some(from.to_owned()); // a place within the answer
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(format!("{scheme}://{authority}{folder}/{location}"))
}

/// Host and port of an address.
fn host(address: &str) -> &str {
    let authority = address.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?', '#']).next();
    let authority = authority.unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Name and port of an address; no port where it is the one that its scheme has anyway.
fn name_and_port(address: &str) -> (&str, &str) {
    let whole = host(address);
    let default = if address.starts_with("https://") { "443" } else { "80" };
    // an address of IPv6 has colons within its brackets
    let (name, port) = whole.rsplit_once(':').filter(|(_, port)| !port.contains(']')).unwrap_or((whole, ""));
    (name, if port == default { "" } else { port })
}

/// Whether two addresses are of one host and port; case and a port that goes without saying make no difference.
fn is_same_host(a: &str, b: &str) -> bool {
    let ((a, of_a), (b, of_b)) = (name_and_port(a), name_and_port(b));
    a.eq_ignore_ascii_case(b) && of_a == of_b
}

/// Whether `host`, as a person wrote it, is that of an address: with a port that one, without one the default of the scheme.
fn names(host: &str, address: &str) -> bool {
    let scheme = address.split_once("://").map_or("https", |(scheme, _)| scheme);
    is_same_host(&format!("{scheme}://{host}"), address)
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

fn answer(offset: u64, total: Option<u64>, response: Response<ureq::Body>) -> Answer {
    let headers = response.headers();
    // a weak tag does not promise the same bytes
    let etag = text(headers, &header::ETAG).filter(|t| t.starts_with('"')).map(|t| Validator::Etag(t.to_owned()));
    let changed = || text(headers, &header::LAST_MODIFIED).map(|t| Validator::LastModified(t.to_owned()));
    let validator = etag.or_else(changed);
    Answer { offset, total, validator, body: Box::new(response.into_body().into_reader()) }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// First byte and total of `bytes FIRST-LAST/TOTAL`, whose total may be `*`. A range that ends before the file does is
/// not what was asked for.
fn content_range(range: &str) -> Option<(u64, Option<u64>)> {
    let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    if total == "*" {
        return (first <= last).then_some((first, None));
    }
    let total: u64 = total.parse().ok()?;
    (first <= last && last.checked_add(1) == Some(total)).then_some((first, Some(total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_as_browsers_do() {
        let from = "https://h:1/a/b?c=d/e";
        for (location, expected) in [
            ("https://x/y", Some("https://x/y")),
            ("http://x/y", Some("http://x/y")),
            ("//x/y", Some("https://x/y")),
            ("/y?z", Some("https://h:1/y?z")),
            ("y", Some("https://h:1/a/y")),
            ("?token=1", Some("https://h:1/a/b?token=1")),
            ("?a=/x/y", Some("https://h:1/a/b?a=/x/y")),
            ("#part", Some(from)),
            ("HTTPS://x/y", Some("https://x/y")),
            ("", None),
            ("file:///etc/passwd", None),
            ("a b", None),
        ] {
            assert_eq!(resolve(from, location).as_deref(), expected, "{location}");
        }
        assert_eq!([host(from), host("http://user@h/x"), host("https://h?x")], ["h:1", "h", "h"]);
    }

    #[test]
    fn a_host_is_the_same_in_any_case_and_with_the_port_that_goes_without_saying() {
        for (a, b) in [
            ("https://host/a", "https://host:443/b"),
            ("https://host/a", "https://HOST/b?c"),
            ("http://host:80", "http://Host/"),
            ("http://host", "https://host"),
            ("https://user@host:/a", "https://host/a"),
            ("https://[::1]/a", "https://[::1]:443/a"),
        ] {
            assert!(is_same_host(a, b) && is_same_host(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("https://host", "https://host:80"),
            ("https://host", "https://host.org"),
            ("https://host", "https://host:443:443"),
            ("https://host", "https://host@other"),
            ("https://[::1]", "https://[::2]"),
            ("http://host:443", "https://host"),
        ] {
            assert!(!is_same_host(a, b) && !is_same_host(b, a), "{a} {b}");
        }
        assert!(
            names("Storage", "https://storage/a") && names("h:8080", "http://h:8080/a") && names("h:443", "https://h/")
        );
        assert!(!names("h", "http://h:8080/a") && !names("h:8080", "https://h/a"));
    }

    #[test]
    fn ranges_are_taken_literally() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes 5-8/10", "bytes 9-5/10", "5-9/10", "bytes 0-18446744073709551615/1", "bytes */10"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
