//! Who may pass the HTTP door: every request says who it is, and is believed or not before anything
//! of it is done. Step 1 of a transaction's life.
//!
//! ```text
//!  request ─► Host, Origin ─► Authorization ─► a place among those that are served ─► its route
//!               403             401              503
//! ```
//!
//! A browser on the same machine is a danger of its own: any web page may send requests to a
//! loopback address, where no password may be needed. A request whose `Host` is not a loopback name
//! (DNS rebinding), or that another origin's page sent, is refused, and no CORS header is ever
//! given. Over TLS the certificate has shown the name to be right.
//!
//! Nor does a proxy on the same machine speak for itself: where a loopback address is enough, a
//! request that says it was passed on needs a password all the same.
//!
//! What needs no login: whether the server is usable, for load balancers, what there is to read at
//! `/`, and envelopes, which their own signers have signed.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::connections::Arrival;
use super::{Door, refuse};
use crate::auth::Denied;

/// How a client is asked for a name and a password.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"rota\"");

/// After how many seconds a client may try again that found no place.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What a request needs before it is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    /// Nothing: it is answered at once.
    Nothing,
    /// A place among those that are served; it shows by itself who it is from.
    Place,
    /// A user as well.
    Login,
}

/// Lets a request in whose user is known, and tells its handler who it is: an `Extension<Login>`.
pub(super) async fn let_in<B>(
    door: &Door,
    arrival: &Arrival,
    request: &mut Request<B>,
) -> Result<(), Response> {
    if let Some(reason) = stranger(door.address, arrival.encrypted, request.headers()) {
        return Err(refuse(StatusCode::FORBIDDEN, reason));
    }
    let needs = needs(request.method(), request.uri().path());
    let administrator = match needs {
        Needs::Nothing => return Ok(()),
        Needs::Place => false,
        Needs::Login => {
            let said = request.headers().get(header::AUTHORIZATION);
            let said = said.map(|said| said.to_str().unwrap_or_default());
            let passed_on = is_passed_on(request.headers());
            let login = door.credentials.basic(arrival.from, passed_on, said).await;
            let login = login.map_err(denied)?;
            let administrator = login.administrator;
            request.extensions_mut().insert(login);
            administrator
        }
    };
    arrival.pace.guest.admit(administrator).map_err(|refusal| {
        let retry = [(header::RETRY_AFTER, RETRY_AFTER)];
        (retry, refuse(StatusCode::SERVICE_UNAVAILABLE, &refusal.message)).into_response()
    })
}

fn needs(method: &Method, path: &str) -> Needs {
    match path {
        "/" | "/readyz" => Needs::Nothing,
        // libSQL's clients ask what is spoken before they say who they are.
        "/v2" | "/v3" if method == Method::GET => Needs::Nothing,
        "/chain" | "/chain/genesis" if method == Method::GET => Needs::Place,
        "/chain/transactions" if method == Method::POST => Needs::Place,
        _ => Needs::Login,
    }
}

/// rqlite's answer has no body either.
fn denied(denied: Denied) -> Response {
    match denied {
        Denied::Unavailable | Denied::Busy => {
            let retry = [(header::RETRY_AFTER, RETRY_AFTER)];
            (retry, refuse(StatusCode::SERVICE_UNAVAILABLE, &denied.to_string())).into_response()
        }
        _ => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, CHALLENGE)]).into_response(),
    }
}

/// Whether a proxy says that it has the request from somebody else.
fn is_passed_on(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        matches!(name, "forwarded" | "via") || name.starts_with("x-forwarded-")
    })
}

/// Why a request is not from whom it should be, if so.
fn stranger(address: SocketAddr, encrypted: bool, headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if address.ip().is_loopback() && !encrypted && !is_loopback_name(host) {
        return Some(
            "this server listens on a loopback address: the Host header must name it (localhost, \
             127.0.0.1 or [::1])",
        );
    }
    let own = |origin: &str| {
        let bare = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        bare.is_some_and(|bare| bare.eq_ignore_ascii_case(host))
    };
    if headers.contains_key(header::ORIGIN) && !text(header::ORIGIN).is_some_and(own) {
        return Some("requests by the pages of other web sites are refused");
    }
    None
}

fn is_loopback_name(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = without_port.to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            map.insert(name, value.parse().unwrap());
        }
        map
    }

    fn told(address: &str, headers: &[(&str, &str)]) -> bool {
        stranger(address.parse().unwrap(), false, &map(headers)).is_some()
    }

    #[test]
    fn a_proxy_is_known_by_its_headers() {
        for name in ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-host"]
        {
            assert!(is_passed_on(&map(&[("host", "localhost"), (name, "")])), "{name}");
        }
        assert!(!is_passed_on(&map(&[("host", "localhost"), ("accept", "*/*")])));
    }

    #[test]
    fn only_loopback_names_reach_a_loopback_address() {
        for host in ["localhost:4001", "127.0.0.1:4001", "[::1]:4001", "127.0.0.1", "db.localhost"]
        {
            assert!(!told("127.0.0.1:4001", &[("host", host)]), "{host}");
        }
        for host in ["evil.example:4001", "", "127.0.0.1.evil.example", "localhost.evil:4001"] {
            assert!(told("127.0.0.1:4001", &[("host", host)]), "{host}");
        }
        assert!(!told("10.0.0.1:4001", &[("host", "db.example")]));
    }

    #[test]
    fn pages_of_other_origins_are_refused_everywhere() {
        let own = [("host", "localhost:4001"), ("origin", "http://localhost:4001")];
        assert!(!told("127.0.0.1:4001", &own));
        for origin in ["http://evil.example", "null", "http://localhost:9999"] {
            assert!(told("127.0.0.1:4001", &[("host", "localhost:4001"), ("origin", origin)]));
            assert!(told("10.0.0.1:4001", &[("host", "db.example"), ("origin", origin)]));
        }
    }
}
