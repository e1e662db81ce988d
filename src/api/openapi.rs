//! `GET /openapi.json`: a description of the API in OpenAPI 3.1, put together from the table of
//! routes and, for what a table does not say (summaries, bodies, answers), `openapi.json`.
//!
//! Methods, paths, parameters, the access and which errors there are come from [`ROUTES`] alone,
//! so they cannot differ from what is served; a test sees to it that each route has a description
//! and each description a route.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::error::{ApiError, Code};
use super::routes::{Endpoint, ROUTES, RouteAccess};
use super::{Api, Call};
use crate::net::http::router::Route;
use crate::net::http::{Body, Response};

/// What the routes' table does not say.
const WORDS: &str = include_str!("openapi.json");

pub(super) fn openapi(
    _api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    Ok(Response::json(200, TEXT.get_or_init(|| description().to_string()).as_str()))
}

/// The whole description.
pub(super) fn description() -> Value {
    // A test reads it too: it is JSON.
    let words: Value = serde_json::from_str(WORDS).unwrap_or_default();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let method = route.method.as_str().to_lowercase();
        paths.entry(route.pattern).or_default().insert(method, operation(route, &words));
    }
    let mut info = words["info"].clone();
    info["version"] = env!("CARGO_PKG_VERSION").into();
    let mut components = words["components"].clone();
    components["schemas"]["Code"]["enum"] = Code::ALL.iter().map(|code| json!(code)).collect();
    json!({
        "openapi": "3.1.0",
        "info": info,
        "servers": words["servers"],
        "tags": words["tags"],
        "paths": paths,
        "components": components,
    })
}

fn name_of(route: &Route<Endpoint>) -> String {
    format!("{} {}", route.method.as_str(), route.pattern)
}

fn operation(route: &Route<Endpoint>, words: &Value) -> Value {
    let said = &words["operations"][name_of(route)];
    let mut operation = json!({
        "operationId": said["id"],
        "tags": [said["tag"]],
        "summary": said["summary"],
        "parameters": parameters(route, words),
        "responses": responses(route, said),
        "security": match route.handler.access {
            RouteAccess::Anyone => json!([]),
            RouteAccess::Token | RouteAccess::Host => json!([{ "internalToken": [] }]),
        },
    });
    if let Some(body) = said.get("body") {
        let content = media_type(body, said.get("example"));
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

/// The content of a body: what stands for its media type is that of JSON, or its schema.
fn media_type(content: &Value, example: Option<&Value>) -> Value {
    let (media, mut described) = match content {
        Value::String(media) => (media.as_str(), json!({})),
        schema => ("application/json", json!({ "schema": schema })),
    };
    if let Some(example) = example {
        described["example"] = example.clone();
    }
    json!({ media: described })
}

/// The names in braces of a route's path.
fn path_parameters(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn parameters(route: &Route<Endpoint>, words: &Value) -> Vec<Value> {
    let in_path = path_parameters(route.pattern).map(|name| (name, "path"));
    let in_query = route.handler.query.iter().map(|name| (*name, "query"));
    let described = |(name, place): (&str, &str)| {
        let said = &words["parameters"][name];
        let mut parameter = json!({
            "name": name,
            "in": place,
            "required": place == "path",
            "description": said["description"],
            "schema": said["schema"],
        });
        if let Some(example) = said.get("example") {
            parameter["example"] = example.clone();
        }
        parameter
    };
    in_path.chain(in_query).map(described).collect()
}

fn responses(route: &Route<Endpoint>, said: &Value) -> Map<String, Value> {
    let mut responses = Map::new();
    for (status, content) in said["ok"].as_object().into_iter().flatten() {
        let mut content = match content {
            Value::Null => json!({ "description": "It is done." }),
            content => {
                let example = said["answers"].get(status);
                json!({ "description": "As asked.", "content": media_type(content, example) })
            }
        };
        if let Some(headers) = said["headers"].get(status) {
            content["headers"] = headers.clone();
        }
        responses.insert(status.clone(), content);
    }
    for (status, codes) in errors(route) {
        let content =
            json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
        responses.insert(
            status.to_string(),
            json!({ "description": codes.join(", "), "content": content }),
        );
    }
    responses
}

/// The errors that a route may answer, by status, with the names of their codes.
pub(super) fn errors(route: &Route<Endpoint>) -> BTreeMap<u16, Vec<String>> {
    let mut errors: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    let mut add = |status: u16, code: Code| {
        let codes = errors.entry(status).or_default();
        let name = format!("{code:?}");
        if !codes.contains(&name) {
            codes.push(name);
        }
    };
    let everywhere = [
        Code::BadRequest,
        Code::Restricted,
        Code::MethodNotAllowed,
        Code::InternalError,
        Code::Busy,
    ];
    everywhere.into_iter().for_each(|code| add(code.status(), code));
    // What HTTP itself has a status for: a head that is slow or too large.
    add(408, Code::Deadline);
    add(431, Code::TooLarge);
    if route.handler.access != RouteAccess::Anyone {
        [Code::NoAuthToken, Code::InvalidToken]
            .into_iter()
            .for_each(|code| add(code.status(), code));
    }
    if route.handler.tenant.is_some() {
        // Of a master in a cluster: the tenant is nowhere, or at another one.
        [Code::NoWorker, Code::NotOwner, Code::Unavailable, Code::OutcomeUnknown]
            .into_iter()
            .for_each(|code| add(code.status(), code));
    }
    route.handler.codes.iter().for_each(|code| add(code.status(), *code));
    if route.handler.codes.contains(&Code::TooLarge) {
        // It reads a body, which needs a length.
        add(411, Code::BadRequest);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::Method;

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let words: Value = serde_json::from_str(WORDS).expect("JSON");
        let described = words["operations"].as_object().expect("an object");
        for route in ROUTES {
            let said = described.get(&name_of(route));
            let said =
                said.unwrap_or_else(|| panic!("openapi.json says nothing of {}", name_of(route)));
            assert!(said["summary"].is_string(), "{}", name_of(route));
            assert!(said["ok"].as_object().is_some_and(|ok| !ok.is_empty()), "{}", name_of(route));
            let takes_body = route.handler.codes.contains(&Code::TooLarge);
            let has = ["body", "example"].map(|member| said.get(member).is_some());
            assert_eq!(
                has,
                [takes_body; 2],
                "{}: a body with an example, and codes with TooLarge",
                name_of(route)
            );
            let answers = said["answers"].as_object().into_iter().flatten();
            answers.for_each(|(status, _)| assert!(!said["ok"][status].is_null(), "{status}"));
        }
        for name in described.keys() {
            assert!(ROUTES.iter().any(|route| name_of(route) == *name), "there is no route {name}");
        }
    }

    #[test]
    fn the_description_follows_the_table_of_routes() {
        let description = description();
        let paths = description["paths"].as_object().expect("an object");
        let count: usize = paths.values().map(|path| path.as_object().map_or(0, Map::len)).sum();
        assert_eq!(count, ROUTES.len());
        for route in ROUTES {
            let operation =
                &description["paths"][route.pattern][route.method.as_str().to_lowercase()];
            let parameters = operation["parameters"].as_array().expect("a list");
            let names: Vec<&str> =
                parameters.iter().filter_map(|parameter| parameter["name"].as_str()).collect();
            let expected: Vec<&str> =
                path_parameters(route.pattern).chain(route.handler.query.iter().copied()).collect();
            assert_eq!(names, expected, "{}", name_of(route));
            for parameter in parameters {
                assert!(
                    parameter["schema"].is_object() && parameter["description"].is_string(),
                    "{parameter}"
                );
            }
            for code in route.handler.codes {
                let answer = &operation["responses"][code.status().to_string()]["description"];
                assert!(
                    answer.as_str().is_some_and(|text| text.contains(&format!("{code:?}"))),
                    "{code:?}"
                );
            }
            let needs_token = operation["security"] != json!([]);
            assert_eq!(
                needs_token,
                route.handler.access != RouteAccess::Anyone,
                "{}",
                name_of(route)
            );
        }
    }

    #[test]
    fn references_resolve_and_operation_names_are_unique() {
        let description = description();
        let tags = description["tags"].as_array().expect("a list");
        let is_tag = |named: &Value| tags.iter().any(|tag| tag["name"] == *named);
        let mut ids = Vec::new();
        let mut open = vec![&description];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let target = description.pointer(reference.trim_start_matches('#'));
                        assert!(target.is_some(), "{reference}");
                    }
                    if let Some(Value::String(id)) = members.get("operationId") {
                        // Generators make names of functions of them.
                        assert!(id.bytes().all(|byte| byte.is_ascii_alphabetic()), "{id}");
                        assert!(is_tag(&members["tags"][0]), "{id} has a tag that is described");
                        ids.push(id.as_str());
                    }
                    open.extend(members.values());
                }
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), count), (ROUTES.len(), ROUTES.len()));
        assert!(ROUTES.iter().any(|route| route.method == Method::Put));
    }
}
