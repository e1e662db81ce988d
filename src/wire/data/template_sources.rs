//! A tenant's own template, as its record says it: the text of `main`, or the texts of several
//! modules by name.

use super::KhronosValue;
use crate::base::limits::{MODULE_NAME_MAX_BYTES, TENANT_MODULES_MAX};

/// The key of the record.
pub const TEMPLATE_KEY: &str = "main";

/// Its only scope.
pub const TEMPLATE_SCOPE: &str = "template";

/// The only scope of the versions that were replaced, whose keys are their numbers.
pub const TEMPLATE_HISTORY_SCOPE: &str = "#template";

/// A template's modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSources {
    /// What the tenant's events run.
    pub main: String,
    /// The modules beside it: names as `require` has them, and sources.
    pub modules: Vec<(String, String)>,
}

impl TemplateSources {
    /// Those that a record's value says.
    ///
    /// # Errors
    /// It says none; the text says why.
    pub fn of(value: KhronosValue) -> Result<Self, String> {
        let text = KhronosValue::Text;
        let pairs: Vec<_> = match value {
            KhronosValue::Text(main) => return Ok(Self { main, modules: Vec::new() }),
            KhronosValue::Map(pairs) => pairs,
            KhronosValue::LazyStringMap(pairs) => {
                pairs.into_iter().map(|(name, source)| (text(name), text(source))).collect()
            }
            _ => return Err("a template is a text, or a map from modules' names to texts".into()),
        };
        if pairs.len() > TENANT_MODULES_MAX {
            return Err(format!("a template has at most {TENANT_MODULES_MAX} modules"));
        }
        let (mut main, mut modules) = (None, Vec::<(String, String)>::new());
        for pair in pairs {
            let (KhronosValue::Text(name), KhronosValue::Text(source)) = pair else {
                return Err("a template's modules are texts by name".into());
            };
            if !is_module_name(&name) {
                return Err(format!("{name:?} is not the name of a module"));
            }
            let is_twice = modules.iter().any(|(other, _)| *other == name);
            if is_twice || (name == TEMPLATE_KEY && main.is_some()) {
                return Err(format!("the module {name:?} is there twice"));
            } else if name == TEMPLATE_KEY {
                main = Some(source);
            } else {
                modules.push((name, source));
            }
        }
        let main = main.ok_or("a template of several modules needs one that is called main")?;
        Ok(Self { main, modules })
    }
}

/// Whether `require` can find a module of this name: `words`, `lib/words`.
fn is_module_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && !part.starts_with('@')
            && !part.contains(['\\', ':'])
            && !part.contains(char::is_control)
    };
    name.len() <= MODULE_NAME_MAX_BYTES && name.split('/').all(is_part) && !name.ends_with(".luau")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> KhronosValue {
        KhronosValue::Text(text.to_owned())
    }

    fn of(pairs: &[(&str, &str)]) -> Result<TemplateSources, String> {
        let pairs = pairs.iter().map(|(name, source)| (text(name), text(source))).collect();
        TemplateSources::of(KhronosValue::Map(pairs))
    }

    #[test]
    fn a_template_is_a_text_or_modules_by_name() {
        let lone = TemplateSources { main: "return 1".to_owned(), modules: Vec::new() };
        assert_eq!(TemplateSources::of(text("return 1")), Ok(lone.clone()));
        assert_eq!(of(&[("main", "return 1")]), Ok(lone));
        let several = of(&[("lib/words", "a"), ("main", "b"), ("init", "c")]).expect("a template");
        assert_eq!(several.main, "b");
        let modules = [("lib/words", "a"), ("init", "c")];
        assert_eq!(several.modules, modules.map(|(name, text)| (name.into(), text.into())));
    }

    #[test]
    fn what_require_could_not_find_is_refused() {
        for name in [
            "", "/x", "x/", "a//b", ".", "..", "../x", "a/../b", "@self/x", "a\\b", "C:x", "x.luau",
        ] {
            let refusal = of(&[("main", ""), (name, "")]).expect_err(name);
            assert_eq!(refusal, format!("{name:?} is not the name of a module"));
        }
        let long = "x".repeat(MODULE_NAME_MAX_BYTES + 1);
        assert!(of(&[("main", ""), (&long, "")]).is_err());
        assert!(of(&[("main", ""), (&long[1..], "")]).is_ok());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let many: Vec<String> =
            (0..TENANT_MODULES_MAX).map(|number| format!("m{number}")).collect();
        let mut many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
        many.push(("main", ""));
        assert!(of(&many).is_err_and(|why| why.contains("at most 64")));
        assert!(of(&many[1..]).is_ok());
        assert!(of(&[("x", "")]).is_err_and(|why| why.contains("called main")));
        for twice in ["main", "x"] {
            let refusal = of(&[("main", ""), ("x", ""), (twice, "")]).expect_err(twice);
            assert!(refusal.ends_with("is there twice"), "{refusal}");
        }
        let pairs = vec![(text("main"), KhronosValue::Null)];
        for value in [KhronosValue::Null, KhronosValue::Integer(1), KhronosValue::Map(pairs)] {
            assert!(TemplateSources::of(value).is_err());
        }
    }
}
