//! Whether a program can do useful work, and how it says so.

use grip::Publisher;

/// What a program can't do now, although it does useful work.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Degraded {
    /// What is missing.
    pub part: String,
    /// Why, and what that means.
    pub reason: String,
}

/// The Pushpins that can't be reached, and what that means to this program.
pub(crate) fn lost_pushpins(publisher: Option<&Publisher>, meaning: &str) -> Vec<Degraded> {
    let Some(publisher) = publisher else { return Vec::new() };
    let lost = (0..publisher.pushpins()).filter(|pushpin| !publisher.link_up(*pushpin));
    lost.filter_map(|pushpin| publisher.endpoint(pushpin))
        .map(|endpoint| Degraded {
            part: format!("pushpin {endpoint}"),
            reason: format!("the link to it is down: {meaning}"),
        })
        .collect()
}

/// Routes that say whether a program lives, and whether it can do useful work. `ready` gives the reason when it
/// can't, and else what it can't do beside that.
///
/// `/readyz` answers with `{"ready":true,"degraded":[{"part":…,"reason":…}]}`, or with 503 and
/// `{"ready":false,"reason":…}`.
#[cfg(feature = "front")]
pub fn health_routes(
    ready: impl Fn() -> Result<Vec<Degraded>, String> + Send + Sync + 'static,
) -> axum::Router {
    use axum::response::IntoResponse;
    let ready = std::sync::Arc::new(ready);
    let readyz = move || {
        let ready = ready.clone();
        async move { readiness(ready()).into_response() }
    };
    axum::Router::new()
        .route("/livez", axum::routing::get(|| async { http::StatusCode::OK }))
        .route("/readyz", axum::routing::get(readyz))
}

#[cfg(feature = "front")]
fn readiness(ready: Result<Vec<Degraded>, String>) -> axum::response::Response {
    use axum::response::IntoResponse;
    let json = [(http::header::CONTENT_TYPE, "application/json")];
    match ready {
        Ok(degraded) => {
            let body = serde_json::json!({ "ready": true, "degraded": degraded }).to_string();
            (http::StatusCode::OK, json, body).into_response()
        }
        Err(reason) => {
            let body = serde_json::json!({ "ready": false, "reason": reason }).to_string();
            (http::StatusCode::SERVICE_UNAVAILABLE, json, body).into_response()
        }
    }
}
