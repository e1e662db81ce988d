//! docs/api.md: every route with its body, answers and errors, from the description of the API.

use serde_json::Value;

use super::error::Code;
use super::openapi::description;
use super::routes::{Endpoint, ROUTES, RouteAccess};
use crate::base::generated_page::{assert_current, cell};
use crate::net::http::router::Route;

const HEAD: &str = "# The internal API

`make docs` writes this page from the table of routes and from what `GET /openapi.json` serves; a
test fails when it is stale. [operations.md](operations.md#the-internal-api) says how to call it.

- A request has the header `Authorization: Internal TOKEN`, but where *No token* stands.
- Bodies and answers are JSON where nothing else is said. *?* marks a member that may be left out.
- Each route may also answer `BadRequest`, `Restricted`, `MethodNotAllowed`, `Busy` and
  `InternalError`; and, where it needs a token, `NoAuthToken` and `InvalidToken`.
- *Operation* is the name in the description, as generators and [the clients](clients.md) use it.
- The [errors](#errors) and the [types](#types) stand at the end.
";

fn said(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// The name, type and description of each member of an object.
fn members(schema: &Value) -> impl Iterator<Item = (String, String, &str)> {
    let is_required = |name: &str| {
        schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
    };
    let mark = move |name: &str| if is_required(name) { "" } else { "?" };
    let members = schema["properties"].as_object().into_iter().flatten();
    members
        .map(move |(name, schema)| (format!("`{name}`{}", mark(name)), shape(schema), said(schema)))
}

/// What a schema allows, in a few words.
fn shape(schema: &Value) -> String {
    let one_of = |(key, between): (&str, &str)| match &schema[key] {
        Value::Array(all) => Some(all.iter().map(shape).collect::<Vec<_>>().join(between)),
        name => name.as_str().map(str::to_owned),
    };
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let anchor = if name == "Code" { "errors".to_owned() } else { name.to_lowercase() };
        format!("[{name}](#{anchor})")
    } else if let Some(word) = schema.get("const").or((!schema.is_object()).then_some(schema)) {
        word.as_str().map_or_else(|| word.to_string(), str::to_owned)
    } else if schema["items"].is_object() {
        format!("list of {}", shape(&schema["items"]))
    } else if schema["properties"].is_object() {
        let members: Vec<String> =
            members(schema).map(|(name, shape, _)| format!("{name}: {shape}")).collect();
        format!("{{ {} }}", members.join(", "))
    } else {
        let keys = [("oneOf", " or "), ("allOf", " and "), ("enum", " or "), ("type", " or ")];
        keys.into_iter().find_map(one_of).unwrap_or_else(|| "JSON".to_owned())
    }
}

/// The example of a body or an answer, where it is JSON.
fn example(of: &Value) -> Option<String> {
    let example = &of["content"]["application/json"]["example"];
    (!example.is_null()).then(|| format!("`{example}`"))
}

/// The shape of a body, or its media type where it is not JSON.
fn content(of: &Value) -> Option<String> {
    let (media, content) = of["content"].as_object()?.iter().next()?;
    let schema = &content["schema"];
    Some(if schema.is_object() { shape(schema) } else { format!("`{media}`") })
}

fn route(route: &Route<Endpoint>, operation: &Value) -> String {
    let summary = operation["summary"].as_str().unwrap_or_default();
    let mut lines =
        vec![format!("\n## {} {}\n\n{summary}\n", route.method.as_str(), route.pattern)];
    let queries =
        operation["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "query");
    lines.extend(queries.map(|one| format!("- `?{}=`: {}", shape(&one["name"]), said(one))));
    let with_example = |line: String, of: &Value| match example(of) {
        Some(example) => format!("{line}, such as {example}"),
        None => line,
    };
    let body = &operation["requestBody"];
    lines.extend(content(body).map(|shape| with_example(format!("- Body: {shape}"), body)));
    let answers = operation["responses"].as_object().into_iter().flatten();
    lines.extend(answers.filter(|(status, _)| status.starts_with('2')).map(|(status, answer)| {
        match content(answer) {
            Some(content) => with_example(format!("- {status}: {content}"), answer),
            None => format!("- {status}, without a body"),
        }
    }));
    let codes: Vec<String> = route.handler.codes.iter().map(|code| format!("`{code:?}`")).collect();
    lines.extend((!codes.is_empty()).then(|| format!("- Errors: {}", codes.join(", "))));
    lines.extend((route.handler.access == RouteAccess::Anyone).then(|| "- No token".to_owned()));
    let name = &operation["operationId"];
    lines.extend(name.as_str().map(|name| format!("- Operation: `{name}`")));
    lines.join("\n") + "\n"
}

#[test]
fn the_page_of_the_api_is_what_its_description_says() {
    let description = description();
    let schemas = &description["components"]["schemas"];
    let mut page = HEAD.to_owned();
    let operation = |one: &Route<Endpoint>| {
        &description["paths"][one.pattern][one.method.as_str().to_lowercase()]
    };
    page.extend(ROUTES.iter().map(|one| route(one, operation(one))));
    page.push_str("\n## Errors\n\n| status | code | when |\n|---|---|---|\n");
    let mut codes = Code::ALL;
    codes.sort_by_key(|code| code.status());
    page.extend(codes.into_iter().map(|code| {
        let when = schemas["Code"]["x-meanings"][format!("{code:?}")]
            .as_str()
            .expect("openapi.json has its meaning");
        format!("| {} | `{code:?}` | {} |\n", code.status(), cell(when))
    }));
    page.push_str("\n## Types\n");
    for (name, schema) in
        schemas.as_object().expect("an object").iter().filter(|(name, _)| *name != "Code")
    {
        page.push_str(&format!("\n### {name}\n\n"));
        if !schema["properties"].is_object() {
            page.push_str(&format!("{}: {}\n", shape(schema), said(schema)));
        }
        page.extend(members(schema).map(|(name, shape, said)| {
            format!("- {name}: {shape}. {said}").trim_end().to_owned() + "\n"
        }));
    }
    assert_current("docs/api.md", &page);
}
