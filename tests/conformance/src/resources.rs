//! The resources.

use rmcp::{
    ErrorData,
    model::{ReadResourceResponse, ReadResourceResult},
};
use serde_json::{Value, json};

use crate::{media, typed};

const TEXTS: [(&str, &str, &str); 3] = [
    ("test://static-text", "Static text", "This is the content of the static text resource."),
    ("test://watched-resource", "Watched resource", "This resource can be subscribed to."),
    ("test://stateless-static-text", "Stateless static text", "This text is the same for every request."),
];
const BINARY: &str = "test://static-binary";

pub(crate) fn list() -> Value {
    let binary = json!({"uri": BINARY, "name": "Static binary", "mimeType": "image/png",
        "description": "A picture of one pixel"});
    let texts = TEXTS.map(
        |(uri, name, _)| json!({"uri": uri, "name": name, "mimeType": "text/plain", "description": name}),
    );
    texts.into_iter().chain([binary]).collect()
}

pub(crate) fn templates() -> Value {
    json!([{"uriTemplate": "test://template/{id}/data", "name": "Template", "mimeType": "application/json",
        "description": "Data about any id"}])
}

pub(crate) fn read(uri: &str) -> Result<ReadResourceResponse, ErrorData> {
    let text = TEXTS.iter().find(|(known, ..)| *known == uri).map(|(.., text)| *text);
    let content = if let Some(text) = text {
        json!({"uri": uri, "mimeType": "text/plain", "text": text})
    } else if uri == BINARY {
        json!({"uri": uri, "mimeType": "image/png", "blob": media::PNG})
    } else if let Some(id) = templated(uri) {
        let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
        json!({"uri": uri, "mimeType": "application/json", "text": data.to_string()})
    } else {
        return Err(unknown(uri));
    };
    Ok(typed::<ReadResourceResult>(json!({"contents": [content]}))?.into())
}

pub(crate) fn exists(uri: &str) -> Result<(), ErrorData> {
    let known = TEXTS.iter().any(|(known, ..)| *known == uri) || uri == BINARY || templated(uri).is_some();
    if known { Ok(()) } else { Err(unknown(uri)) }
}

fn templated(uri: &str) -> Option<&str> {
    let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

fn unknown(uri: &str) -> ErrorData {
    ErrorData::resource_not_found(format!("there is no resource {uri}"), Some(json!({"uri": uri})))
}
