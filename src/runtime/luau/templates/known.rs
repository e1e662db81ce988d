//! What templates find when they start: globals, libraries, and the members of `ctx`. What is
//! Mesophyll's own is read from the definitions for editors (`mesophyll.d.luau`), so that `check`
//! and an editor know the same; tests compare both with a VM.

use std::sync::LazyLock;

use super::walk::{Declaration, DeclaredMember, declarations};

/// The definitions of what is Mesophyll's own, for analysers of Luau.
const OWN: &str = include_str!("mesophyll.d.luau");

/// Something whose members are known.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::runtime::luau) struct Known {
    pub(in crate::runtime::luau) name: String,
    pub(in crate::runtime::luau) kind: MemberKind,
    members: Vec<DeclaredMember>,
}

impl Known {
    fn new(name: String, declared: &Declaration) -> Self {
        let is_method = |member: &DeclaredMember| member.parameters.is_some();
        let kind = if declared.members.iter().all(is_method) {
            MemberKind::Methods
        } else {
            MemberKind::Fields
        };
        Self { name, kind, members: declared.members.clone() }
    }

    /// The names of the members.
    pub(in crate::runtime::luau) fn members(&self) -> impl Iterator<Item = &'static str> + use<'_> {
        self.members.iter().map(|member| member.name)
    }

    /// What a method cannot do without.
    pub(super) fn parameters(&self, method: &str) -> &[&'static str] {
        let member = self.members.iter().find(|member| member.name == method);
        member.and_then(|member| member.parameters.as_deref()).unwrap_or_default()
    }
}

/// What members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime::luau) enum MemberKind {
    /// Fields and plain functions.
    Fields,
    /// Methods, which are called with a colon.
    Methods,
}

/// What a template's function gets.
pub(in crate::runtime::luau) static CTX: LazyLock<Known> = LazyLock::new(|| of_type("Ctx", "ctx"));

/// What `ctx:event()` returns.
pub(in crate::runtime::luau) static EVENT: LazyLock<Known> =
    LazyLock::new(|| of_type("Event", "the event"));

static DECLARATIONS: LazyLock<Vec<Declaration>> = LazyLock::new(|| declarations(OWN));

static CTX_MEMBERS: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let with_type = CTX.members.iter().filter(|member| member.parameters.is_none());
    with_type.map(|member| of_type(member.of, &format!("ctx.{}", member.name))).collect()
});

/// What the definitions call this; nothing, if they do not have it.
fn of_type(name: &str, shown: &str) -> Known {
    let declared = DECLARATIONS.iter().find(|declared| declared.is_type && declared.name == name);
    Known::new(shown.to_owned(), declared.unwrap_or(&Declaration::default()))
}

/// The member of `ctx`, if it has members itself.
pub(in crate::runtime::luau) fn ctx_member(name: &str) -> Option<&'static Known> {
    CTX_MEMBERS.iter().find(|known| known.name.strip_prefix("ctx.") == Some(name))
}

/// Globals without members that Luau itself has, and analysers know.
const LUAU_GLOBALS: &str = "\
    _G _VERSION assert error getmetatable ipairs next pairs pcall print rawequal rawget rawlen \
    rawset require select setmetatable tonumber tostring type typeof unpack xpcall";

/// Likewise its libraries, with what they have.
const LUAU_LIBRARIES: [(&str, &str); 8] = [
    (
        "bit32",
        "arshift band bnot bor btest bxor byteswap countlz countrz extract lrotate lshift \
         replace rrotate rshift",
    ),
    (
        "buffer",
        "copy create fill fromstring len readbits readf32 readf64 readi16 readi32 readi8 \
         readstring readu16 readu32 readu8 tostring writebits writef32 writef64 writei16 \
         writei32 writei8 writestring writeu16 writeu32 writeu8",
    ),
    ("coroutine", "close create isyieldable resume running status wrap yield"),
    (
        "math",
        "abs acos asin atan atan2 ceil clamp cos cosh deg e exp floor fmod frexp huge isfinite \
         isinf isnan ldexp lerp log log10 map max min modf nan noise phi pi pow rad random \
         randomseed round sign sin sinh sqrt sqrt2 tan tanh tau",
    ),
    (
        "string",
        "byte char find format gmatch gsub len lower match pack packsize rep reverse split sub \
         unpack upper",
    ),
    (
        "table",
        "clear clone concat create find foreach foreachi freeze getn insert isfrozen maxn move \
         pack remove sort unpack",
    ),
    ("utf8", "char charpattern codepoint codes len offset"),
    (
        "vector",
        "abs angle ceil clamp create cross dot floor lerp magnitude max min normalize one sign \
         zero",
    ),
];

static LIBRARIES: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let luau = LUAU_LIBRARIES.iter().map(|(name, members)| {
        let members = members.split(' ').map(DeclaredMember::field).collect();
        Declaration { name, is_type: false, members }
    });
    let own = DECLARATIONS.iter().filter(|declared| !declared.is_type).cloned();
    let libraries = luau.chain(own).filter(|declared| !declared.members.is_empty());
    libraries.map(|declared| Known::new(declared.name.to_owned(), &declared)).collect()
});

/// A library by its name.
pub(in crate::runtime::luau) fn library(name: &str) -> Option<&'static Known> {
    LIBRARIES.iter().find(|known| known.name == name)
}

/// All globals.
pub(in crate::runtime::luau) fn globals() -> impl Iterator<Item = &'static str> {
    let luau = LUAU_GLOBALS.split(' ').chain(LUAU_LIBRARIES.iter().map(|(name, _)| *name));
    let own = DECLARATIONS.iter().filter(|declared| !declared.is_type);
    luau.chain(own.map(|declared| declared.name))
}

/// `mesophyll types`: the definitions of all that templates find, for editors and analysers.
pub fn definitions() -> String {
    let mut text = format!(
        "-- What a template finds in Mesophyll {}, for luau-lsp and other analysers of Luau\n\
         -- (docs/templates.md). Written by: mesophyll types > mesophyll.d.luau\n\n{OWN}\n\
         -- What Luau itself has, which they know, is there as far as it is named here:\n\
         -- {LUAU_GLOBALS}\n",
        env!("CARGO_PKG_VERSION")
    );
    for (library, members) in LUAU_LIBRARIES {
        text.push_str(&format!("-- {library}: {members}\n"));
    }
    text
}

/// What users of Luau elsewhere look for, and what there is instead.
pub(in crate::runtime::luau) fn instead(global: &str) -> Option<&'static str> {
    Some(match global {
        "wait" => "task.wait waits",
        "spawn" | "delay" | "defer" => "task has it",
        "warn" => "ctx.log:warn writes a warning",
        "os" => "timestamp.now() tells the time",
        "ctx" => "ctx is what the template's function is called with",
        "loadstring" | "load" | "loadfile" | "dofile" => "code comes from modules, by require",
        "getfenv" | "setfenv" | "newproxy" | "debug" | "io" | "package" => {
            "it is not there for templates"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::nearest::nearest;

    #[test]
    fn the_nearest_name_is_like_it() {
        for (wrong, right) in [
            ("pritn", Some("print")),
            ("tostirng", Some("tostring")),
            ("strng", Some("string")),
            ("Print", Some("print")),
            ("x", None),
            ("message", None),
            ("tpye", Some("type")),
            ("no", None),
        ] {
            assert_eq!(nearest(wrong, globals()), right, "{wrong}");
        }
    }
}
