//! Finds a request's route in a table. Pure; knows nothing of framing.
//!
//! A table is data, so that tests and descriptions (OpenAPI) can walk it.

use super::Method;

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct Route<H> {
    /// The method; a GET route answers HEAD too.
    pub method: Method,
    /// The path, such as `/i/workers/{id}`: a segment in braces matches any one segment that is not
    /// empty.
    pub pattern: &'static str,
    /// What it leads to.
    pub handler: H,
}

/// What a path matched: the names in braces with their values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathParams<'p>(Vec<(&'static str, &'p str)>);

impl<'p> PathParams<'p> {
    /// The value of a name in the route's pattern.
    pub fn get(&self, name: &str) -> Option<&'p str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// Where a request leads.
#[derive(Debug)]
pub enum Found<'r, 'p, H> {
    /// To this route.
    Route(&'r Route<H>, PathParams<'p>),
    /// The path exists, but not with this method: 405 with these in `Allow`.
    WrongMethod {
        /// The methods that the path has, separated by commas.
        allow: String,
    },
    /// Nowhere: 404.
    Nothing,
}

/// Finds the first route that matches.
pub fn find<'r, 'p, H>(routes: &'r [Route<H>], method: Method, path: &'p str) -> Found<'r, 'p, H> {
    let mut allow: Vec<&str> = Vec::new();
    for route in routes {
        let Some(params) = matches(route.pattern, path) else { continue };
        if route.method == method || (route.method == Method::Get && method == Method::Head) {
            return Found::Route(route, params);
        }
        allow.push(route.method.as_str());
        if route.method == Method::Get {
            allow.push(Method::Head.as_str());
        }
    }
    if allow.is_empty() { Found::Nothing } else { Found::WrongMethod { allow: allow.join(", ") } }
}

fn matches<'p>(pattern: &'static str, path: &'p str) -> Option<PathParams<'p>> {
    let mut params = PathParams::default();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !segment.is_empty() => params.0.push((name, segment)),
            None if segment == expected => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: [Route<u8>; 4] = [
        Route { method: Method::Get, pattern: "/livez", handler: 1 },
        Route { method: Method::Post, pattern: "/i/kill/{id}", handler: 2 },
        Route { method: Method::Put, pattern: "/i/state/{kind}/{id}", handler: 3 },
        Route { method: Method::Get, pattern: "/i/state/{kind}/{id}", handler: 4 },
    ];

    fn lead(method: Method, path: &str) -> Result<u8, String> {
        match find(&ROUTES, method, path) {
            Found::Route(route, _) => Ok(route.handler),
            Found::WrongMethod { allow } => Err(allow),
            Found::Nothing => Err(String::new()),
        }
    }

    #[test]
    fn a_request_leads_to_its_route() {
        assert_eq!(lead(Method::Get, "/livez"), Ok(1));
        assert_eq!(lead(Method::Head, "/livez"), Ok(1));
        assert_eq!(lead(Method::Post, "/i/kill/7"), Ok(2));
        assert_eq!(lead(Method::Put, "/i/state/guild/7"), Ok(3));
        assert_eq!(lead(Method::Get, "/i/state/guild/7"), Ok(4));
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        assert_eq!(lead(Method::Post, "/livez"), Err("GET, HEAD".to_owned()));
        assert_eq!(lead(Method::Head, "/i/kill/7"), Err("POST".to_owned()));
        assert_eq!(lead(Method::Other, "/i/state/guild/7"), Err("PUT, GET, HEAD".to_owned()));
    }

    #[test]
    fn unknown_paths_lead_nowhere() {
        for path in
            ["/", "/livez/", "/Livez", "/i/kill", "/i/kill/", "/i/kill/7/8", "/i/state/guild", "/i"]
        {
            assert_eq!(lead(Method::Get, path), Err(String::new()), "{path}");
        }
    }

    #[test]
    fn names_in_braces_get_their_segments() {
        let Found::Route(_, params) = find(&ROUTES, Method::Put, "/i/state/guild/7") else {
            panic!("no route")
        };
        assert_eq!(
            (params.get("kind"), params.get("id"), params.get("x")),
            (Some("guild"), Some("7"), None)
        );
    }
}
