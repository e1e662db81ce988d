//! Luau's grammar, as far as it takes to know what each name in a source means; `names` judges
//! them.
//!
//! For sources that the compiler has accepted, which is also what bounds how deep this recurses:
//! there is nothing to complain about here. Precedence does not matter, types are passed over.
//! Where a future grammar is not understood it goes on with the next token.

mod definitions;
mod expressions;
#[cfg(test)]
mod tests;
mod types;

pub(super) use self::definitions::{Declaration, DeclaredMember, declarations};
use self::expressions::Place;
use super::lexer::{At, LuauToken, tokens};
use super::names::{Names, Root, Value};

/// What was found in a source.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What is wrong, and where.
    pub(super) findings: Vec<(At, String)>,
    /// The names that it requires by a plain string, with their places. What is computed cannot be
    /// known.
    pub(super) requires: Vec<(At, String)>,
}

/// Goes through a source. `is_template`: the function that it returns gets `ctx`, under any
/// name.
pub(super) fn walk(source: &[u8], is_template: bool) -> Seen {
    seen(source, SourceWalk { is_template, ..SourceWalk::default() })
}

/// As [`walk`] of a file of tests: nothing need be returned, and there is `test`.
pub(super) fn walk_tests(source: &[u8]) -> Seen {
    let mut walk = SourceWalk { returns: true, ..SourceWalk::default() };
    walk.names.change(Root::Global("test"), true);
    seen(source, walk)
}

fn seen<'s>(source: &'s [u8], walk: SourceWalk<'_, 's>) -> Seen {
    let tokens = tokens(source);
    let mut walk = SourceWalk { tokens: &tokens, ..walk };
    walk.names.open_block();
    while walk.at < tokens.len() {
        walk.statements();
        // What ends a block ends none here.
        walk.at += 1;
    }
    let SourceWalk { mut names, requires, returns, is_script, is_template, .. } = walk;
    if !returns {
        names.returned(At::default(), Value::literal("nil"), is_template);
    }
    Seen { findings: names.findings(is_script), requires }
}

#[derive(Default)]
struct SourceWalk<'t, 'a> {
    tokens: &'t [(At, LuauToken<'a>)],
    at: usize,
    names: Names<'a>,
    requires: Vec<(At, String)>,
    /// Functions around this place.
    functions: usize,
    is_template: bool,
    /// The source itself returns something.
    returns: bool,
    /// The source itself has arguments, as a script that is sent has.
    is_script: bool,
}

const KEYWORDS: [&str; 21] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

const ASSIGNMENTS: [&str; 9] = ["=", "+=", "-=", "*=", "/=", "//=", "%=", "^=", "..="];

impl<'a> SourceWalk<'_, 'a> {
    fn peek(&self, ahead: usize) -> Option<LuauToken<'a>> {
        self.tokens.get(self.at + ahead).map(|(_, token)| *token)
    }

    fn place(&self) -> At {
        self.tokens.get(self.at).map_or_else(At::default, |(at, _)| *at)
    }

    fn is(&self, what: &str) -> bool {
        matches!(self.peek(0), Some(LuauToken::Word(word) | LuauToken::Sign(word)) if word == what)
    }

    fn is_any(&self, of: &[&str]) -> bool {
        of.iter().any(|what| self.is(what))
    }

    /// Takes a token, if it is this one.
    fn take(&mut self, what: &str) -> bool {
        let is_it = self.is(what);
        self.at += usize::from(is_it);
        is_it
    }

    fn name_ahead(&self, ahead: usize) -> Option<&'a str> {
        match self.peek(ahead) {
            Some(LuauToken::Word(word)) if !KEYWORDS.contains(&word) => Some(word),
            _ => None,
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let name = self.name_ahead(0);
        self.at += usize::from(name.is_some());
        name
    }

    /// Statements up to what ends the block, in a scope of their own.
    fn block(&mut self) {
        self.names.open_block();
        self.statements();
        self.names.close_block();
    }

    fn statements(&mut self) {
        while self.peek(0).is_some() {
            if self.is_any(&["end", "else", "elseif", "until"]) {
                return;
            }
            let before = self.at;
            self.statement();
            self.at += usize::from(self.at == before);
        }
    }

    fn statement(&mut self) {
        let Some(LuauToken::Word(word)) = self.peek(0) else { return self.other_statement() };
        match word {
            "local" | "const" if self.declares() => self.local(),
            "function" => self.function_statement(),
            "if" => self.if_statement(),
            "while" => {
                self.at += 1;
                self.condition();
                self.take("do");
                self.block();
                self.take("end");
            }
            "do" => {
                self.at += 1;
                self.block();
                self.take("end");
            }
            "for" => self.for_statement(),
            "repeat" => {
                self.at += 1;
                self.names.open_block();
                self.statements();
                self.take("until");
                // The condition sees the locals of the block.
                self.condition();
                self.names.close_block();
            }
            "return" => self.return_statement(),
            "break" => self.at += 1,
            "continue" if !self.goes_on() => self.at += 1,
            "export" if matches!(self.peek(1), Some(LuauToken::Word("type"))) => {
                self.type_statement(1)
            }
            "type"
                if self.name_ahead(1).is_some()
                    || matches!(self.peek(1), Some(LuauToken::Word("function"))) =>
            {
                self.type_statement(0);
            }
            _ => self.other_statement(),
        }
    }

    /// Whether `local` or `const` begins a declaration.
    fn declares(&self) -> bool {
        self.is("local")
            || self.name_ahead(1).is_some()
            || matches!(self.peek(1), Some(LuauToken::Word("function")))
    }

    /// Whether a name that may be a keyword is a variable here.
    fn goes_on(&self) -> bool {
        match self.peek(1) {
            Some(LuauToken::Sign(sign)) => {
                ASSIGNMENTS.contains(&sign) || [".", ":", "[", "(", "{", ","].contains(&sign)
            }
            Some(LuauToken::Text(_)) => true,
            _ => false,
        }
    }

    fn local(&mut self) {
        self.at += 1;
        if self.take("function") {
            if let Some(name) = self.name() {
                self.names.declare(name, Value::default());
            }
            return self.function_body(false, false);
        }
        let names = self.bindings();
        let is_args = self.functions == 0 && matches!(self.peek(1), Some(LuauToken::Sign("...")));
        let values = if self.take("=") { self.expressions() } else { Vec::new() };
        let mut values = values.into_iter();
        for (number, name) in names.into_iter().enumerate() {
            let value = values.next().unwrap_or_default();
            if number == 0 && is_args && name == "ctx" {
                self.names.declare_ctx(name, false);
            } else {
                self.names.declare(name, value);
            }
        }
    }

    /// Names with types, separated by commas.
    fn bindings(&mut self) -> Vec<&'a str> {
        let mut names = Vec::new();
        while let Some(name) = self.name() {
            names.push(name);
            if self.take(":") {
                self.type_();
            }
            if !self.take(",") {
                break;
            }
        }
        names
    }

    fn function_statement(&mut self) {
        self.at += 1;
        let at = self.place();
        let Some(name) = self.name() else { return };
        let root = self.names.root(name);
        let is_variable = !self.is_any(&[".", ":"]);
        let mut is_method = false;
        while self.is_any(&[".", ":"]) {
            is_method = self.is(":");
            self.at += 1;
            self.name();
        }
        if !is_variable {
            self.names.read(at, root);
        }
        self.names.change(root, is_variable);
        self.function_body(is_method, false);
    }

    /// From the generics on.
    fn function_body(&mut self, is_method: bool, gets_ctx: bool) {
        self.angles();
        self.names.open_block();
        if is_method {
            self.names.declare("self", Value::default());
        }
        self.take("(");
        let mut gets_ctx = gets_ctx;
        for name in self.bindings() {
            // Under its own name `ctx` is taken for what it says, unless the script treats it as
            // something of its own.
            let is_sure = std::mem::take(&mut gets_ctx);
            if is_sure || name == "ctx" {
                self.names.declare_ctx(name, !is_sure);
            } else {
                self.names.declare(name, Value::default());
            }
        }
        if self.take("...") && self.take(":") {
            self.type_();
        }
        self.take(")");
        if self.take(":") {
            self.type_();
        }
        self.functions += 1;
        self.statements();
        self.functions -= 1;
        self.take("end");
        self.names.close_block();
    }

    fn if_statement(&mut self) {
        while self.take("if") || self.take("elseif") {
            self.condition();
            self.take("then");
            self.block();
        }
        if self.take("else") {
            self.block();
        }
        self.take("end");
    }

    fn for_statement(&mut self) {
        self.at += 1;
        let names = self.bindings();
        if !self.take("=") {
            self.take("in");
        }
        self.expressions();
        self.take("do");
        self.names.open_block();
        names.into_iter().for_each(|name| self.names.declare(name, Value::default()));
        self.statements();
        self.take("end");
        self.names.close_block();
    }

    fn return_statement(&mut self) {
        let at = self.place();
        self.at += 1;
        self.returns |= self.functions == 0;
        if self.functions == 0 && self.is_template && self.take("function") {
            return self.function_body(false, true);
        }
        let is_empty =
            self.is_any(&["end", "else", "elseif", "until", ";"]) || self.peek(0).is_none();
        let values = if is_empty { vec![Value::literal("nil")] } else { self.expressions() };
        if self.functions == 0 {
            let first = values.into_iter().next().unwrap_or_default();
            self.names.returned(at, first, self.is_template);
        }
    }

    fn type_statement(&mut self, exported: usize) {
        self.at += exported + 1;
        if self.take("function") {
            // It runs when types are checked, with other globals, and that never happens here.
            let before = std::mem::take(&mut self.names);
            self.name();
            self.function_body(false, false);
            self.names = before;
            return;
        }
        self.name();
        self.angles();
        if self.take("=") {
            self.type_();
        }
    }

    /// An assignment or a call; also an attribute, and what is not known.
    fn other_statement(&mut self) {
        if self.take("@") {
            if self.is("[") {
                self.brackets();
            } else {
                self.name();
            }
            return;
        }
        let mut places = vec![self.suffixed()];
        while self.take(",") {
            places.push(self.suffixed());
        }
        if self.is_any(&ASSIGNMENTS) {
            self.at += 1;
            self.expressions();
            for Place { root, is_variable, .. } in places {
                root.into_iter().for_each(|root| self.names.change(root, is_variable));
            }
        }
    }
}
