//! What templates find when they start: globals, libraries, and the members of `ctx`. A test
//! compares the lists with a VM.

/// Something whose members are known.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::runtime::luau) struct Known {
    pub(in crate::runtime::luau) name: &'static str,
    pub(in crate::runtime::luau) kind: MemberKind,
    /// Their names, with a space between two.
    pub(in crate::runtime::luau) members: &'static str,
}

impl Known {
    /// The names of the members.
    pub(in crate::runtime::luau) fn members(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.members.split(' ')
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

const fn fields(name: &'static str, members: &'static str) -> Known {
    Known { name, kind: MemberKind::Fields, members }
}

const fn methods(name: &'static str, members: &'static str) -> Known {
    Known { name, kind: MemberKind::Methods, members }
}

/// What a template's function gets.
pub(in crate::runtime::luau) static CTX: Known =
    fields("ctx", "Feed GlobalKV KV Messages Runtime event log tenant");

/// What `ctx:event()` returns.
pub(in crate::runtime::luau) static EVENT: Known = fields("the event", "author data name");

static CTX_MEMBERS: [Known; 7] = [
    methods("ctx.Feed", "publish"),
    methods("ctx.GlobalKV", "create delete find get unwatch watch watched"),
    methods("ctx.KV", "delete find get getrecord list_scopes set update"),
    methods("ctx.Messages", "allow allowed disallow send"),
    methods("ctx.Runtime", "gettenantstate settenantstate stats"),
    methods("ctx.log", "debug error info warn"),
    fields("ctx.tenant", "id type"),
];

/// The member of `ctx`, if it has members itself.
pub(in crate::runtime::luau) fn ctx_member(name: &str) -> Option<&'static Known> {
    CTX_MEMBERS.iter().find(|known| known.name.strip_prefix("ctx.") == Some(name))
}

/// What a method of `ctx` cannot do without.
pub(in crate::runtime::luau) fn parameters(of: &Known, method: &str) -> &'static [&'static str] {
    match (of.name, method) {
        ("ctx.KV", "get" | "getrecord" | "delete") => &["key", "scopes"],
        ("ctx.KV", "set") => &["key", "value", "scopes"],
        ("ctx.KV", "find") => &["pattern", "scopes"],
        ("ctx.KV", "update") => &["key", "scopes", "change"],
        ("ctx.Feed", "publish") => &["topic"],
        ("ctx.GlobalKV", "find") => &["query", "scope"],
        ("ctx.GlobalKV", "get" | "delete") => &["key", "version", "scope"],
        ("ctx.GlobalKV", "create") => &["entry"],
        ("ctx.GlobalKV", "watch" | "unwatch") => &["scope", "pattern"],
        ("ctx.Messages", "send") => &["to", "topic"],
        ("ctx.Messages", "allow") => &["rule"],
        ("ctx.Messages", "disallow") => &["from"],
        ("ctx.Runtime", "settenantstate") => &["state"],
        _ => &[],
    }
}

/// Globals without members.
const GLOBALS: &str = "\
    _G _VERSION array assert collectgarbage error getmetatable ipairs next null pairs pcall \
    print rawequal rawget rawlen rawset require select setmetatable tonumber tostring type \
    typeof unpack value xpcall";

static LIBRARIES: [Known; 13] = [
    fields(
        "bit32",
        "arshift band bnot bor btest bxor byteswap countlz countrz extract lrotate lshift \
         replace rrotate rshift",
    ),
    fields(
        "buffer",
        "copy create fill fromstring len readbits readf32 readf64 readi16 readi32 readi8 \
         readstring readu16 readu32 readu8 tostring writebits writef32 writef64 writei16 \
         writei32 writei8 writestring writeu16 writeu32 writeu8",
    ),
    fields("coroutine", "close create isyieldable resume running status wrap yield"),
    fields("integer", "from parse"),
    fields("interval", "from"),
    fields(
        "math",
        "abs acos asin atan atan2 ceil clamp cos cosh deg e exp floor fmod frexp huge isfinite \
         isinf isnan ldexp lerp log log10 map max min modf nan noise phi pi pow rad random \
         randomseed round sign sin sinh sqrt sqrt2 tan tanh tau",
    ),
    fields(
        "string",
        "byte char find format gmatch gsub len lower match pack packsize rep reverse split sub \
         unpack upper",
    ),
    fields(
        "table",
        "clear clone concat create find foreach foreachi freeze getn insert isfrozen maxn move \
         pack remove sort unpack",
    ),
    fields("task", "cancel defer delay spawn wait"),
    fields("timestamp", "from now parse"),
    fields("timezone", "from"),
    fields("utf8", "char charpattern codepoint codes len offset"),
    fields(
        "vector",
        "abs angle ceil clamp create cross dot floor lerp magnitude max min normalize one sign \
         zero",
    ),
];

/// A library by its name.
pub(in crate::runtime::luau) fn library(name: &str) -> Option<&'static Known> {
    LIBRARIES.iter().find(|known| known.name == name)
}

/// All globals.
pub(in crate::runtime::luau) fn globals() -> impl Iterator<Item = &'static str> {
    GLOBALS.split(' ').chain(LIBRARIES.iter().map(|library| library.name))
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
