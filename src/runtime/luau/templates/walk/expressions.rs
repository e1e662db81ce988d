//! Expressions: what they stand for, as far as it is known, and what is called in them.

use super::SourceWalk;
use crate::runtime::luau::templates::lexer::LuauToken;
use crate::runtime::luau::templates::names::{Arguments, Root, Value};

/// An expression that may be assigned to: its value, the variable that it begins with, and whether
/// it is just that.
pub(super) struct Place<'a> {
    pub(super) value: Value<'a>,
    pub(super) root: Option<Root<'a>>,
    pub(super) is_variable: bool,
}

const OPERATORS: [&str; 16] =
    ["+", "-", "*", "/", "//", "%", "^", "..", "==", "~=", "<", "<=", ">", ">=", "and", "or"];

impl<'a> SourceWalk<'_, 'a> {
    pub(super) fn expressions(&mut self) -> Vec<Value<'a>> {
        let mut values = vec![self.expression()];
        while self.take(",") {
            values.push(self.expression());
        }
        values
    }

    pub(super) fn expression(&mut self) -> Value<'a> {
        self.operands(false)
    }

    /// An expression that decides what is done.
    pub(super) fn condition(&mut self) {
        self.operands(true);
    }

    fn operands(&mut self, is_condition: bool) -> Value<'a> {
        let mut is_simple = true;
        // The operator in front, and whether what stands before it is `null` or `nil`.
        let (mut before, mut other) = ("", "");
        loop {
            let at = self.place();
            let mut prefix = "";
            while let Some(sign) = ["not", "-", "#"].into_iter().find(|sign| self.is(sign)) {
                prefix = sign;
                self.at += 1;
                is_simple = false;
            }
            let word = self.nothing();
            let mut value = self.simple();
            while self.take("::") {
                self.type_();
                value = value.cast();
            }
            let after =
                OPERATORS.into_iter().find(|operator| self.is(operator)).unwrap_or_default();
            let is_left = prefix.is_empty() && matches!(before, "" | "and" | "or");
            let decides = matches!(after, "and" | "or") || (after.is_empty() && is_condition);
            if prefix == "not" || (is_left && decides) {
                self.names.test(at, &value);
            }
            self.at += usize::from(!after.is_empty());
            // What is known to be this or not to be null is not null where that matters.
            if is_comparison(before, other) || is_comparison(after, self.nothing()) {
                self.names.settle(&value);
            }
            if after.is_empty() {
                return if is_simple { value } else { Value::default() };
            }
            (before, other, is_simple) = (after, word, false);
        }
    }

    /// The word for nothing that comes next, if one does.
    fn nothing(&self) -> &'static str {
        ["null", "nil"].into_iter().find(|word| self.is(word)).unwrap_or_default()
    }

    fn simple(&mut self) -> Value<'a> {
        match self.peek(0) {
            Some(LuauToken::Sign("...")) => {
                self.is_script |= self.functions == 0;
                self.at += 1;
            }
            Some(LuauToken::Number) => return self.literal("a number"),
            Some(LuauToken::Word("nil")) => return self.literal("nil"),
            Some(LuauToken::Word("true" | "false")) => return self.literal("a boolean"),
            Some(LuauToken::Sign("{")) => return self.written().unwrap_or_default(),
            Some(LuauToken::Sign("@")) => {
                self.other_statement();
                return self.simple();
            }
            Some(LuauToken::Word("function")) => {
                self.at += 1;
                self.function_body(false, false);
            }
            Some(LuauToken::Word("if")) => {
                while self.take("if") || self.take("elseif") {
                    self.condition();
                    self.take("then");
                    self.expression();
                }
                self.take("else");
                self.expression();
            }
            _ => return self.suffixed().value,
        }
        Value::default()
    }

    fn literal(&mut self, kind: &'static str) -> Value<'a> {
        self.at += 1;
        Value::literal(kind)
    }

    fn table(&mut self) {
        self.at += 1;
        while self.peek(0).is_some() && !self.is("}") {
            let before = self.at;
            if self.take("[") {
                self.expression();
                self.take("]");
                self.take("=");
            } else if self.name_ahead(0).is_some()
                && matches!(self.peek(1), Some(LuauToken::Sign("=")))
            {
                self.at += 2;
            }
            self.expression();
            if !self.take(",") {
                self.take(";");
            }
            self.at += usize::from(self.at == before);
        }
        self.take("}");
    }

    /// A name, a string or something in parentheses, and what is asked of it.
    pub(super) fn suffixed(&mut self) -> Place<'a> {
        let mut place = self.primary();
        loop {
            let was_variable = std::mem::take(&mut place.is_variable);
            match self.peek(0) {
                Some(LuauToken::Sign(sign @ ("." | ":"))) => {
                    self.at += 1;
                    let (at, is_method) = (self.place(), sign == ":");
                    let Some(name) = self.name_or_keyword() else { return place };
                    place.value = self.names.member(at, place.value, name, is_method);
                    if is_method {
                        self.angles();
                        let arguments = self.arguments(None);
                        place.value = self.names.call(at, place.value, &arguments);
                    }
                }
                Some(LuauToken::Sign("[")) => {
                    let from = self.at;
                    self.at += 1;
                    self.expression();
                    self.take("]");
                    let index = format!(
                        "{:?}",
                        self.tokens[from..self.at]
                            .iter()
                            .map(|(_, token)| token)
                            .collect::<Vec<_>>()
                    );
                    place.value = place.value.index(&index);
                }
                Some(LuauToken::Sign("<"))
                    if matches!(self.peek(1), Some(LuauToken::Sign("<"))) =>
                {
                    self.angles()
                }
                Some(
                    LuauToken::Sign("(" | "{") | LuauToken::Text(_) | LuauToken::InterpolationStart,
                ) => {
                    let at = self.place();
                    let arguments = self.arguments(place.root);
                    place.value = self.names.call(at, place.value, &arguments);
                    place.root = None;
                }
                _ => {
                    place.is_variable = was_variable;
                    return place;
                }
            }
        }
    }

    fn name_or_keyword(&mut self) -> Option<&'a str> {
        let Some(LuauToken::Word(word)) = self.peek(0) else { return None };
        self.at += 1;
        Some(word)
    }

    fn primary(&mut self) -> Place<'a> {
        let at = self.place();
        let mut root = None;
        let value = match self.peek(0) {
            Some(LuauToken::Sign("(")) => {
                self.at += 1;
                let value = self.expression();
                self.take(")");
                value
            }
            Some(LuauToken::Text(_) | LuauToken::InterpolationStart) => {
                self.written().unwrap_or_default()
            }
            _ => match self.name() {
                Some(name) => {
                    let variable = self.names.root(name);
                    root = Some(variable);
                    // What is only assigned to is not read, but then it is known anyway.
                    self.names.read(at, variable)
                }
                None => Value::default(),
            },
        };
        Place { value, root, is_variable: root.is_some() }
    }

    fn interpolation(&mut self) {
        self.at += 1;
        loop {
            self.expression();
            match self.peek(0) {
                Some(LuauToken::InterpolationMiddle) => self.at += 1,
                Some(LuauToken::InterpolationEnd) => return self.at += 1,
                _ => return,
            }
        }
    }

    /// The arguments of a call of what begins with `root`.
    fn arguments(&mut self, root: Option<Root<'a>>) -> Arguments<'a> {
        let is_require = matches!(root, Some(Root::Global("require")));
        let text = match (self.tokens.get(self.at), self.tokens.get(self.at + 1)) {
            (Some((at, LuauToken::Text(text))), _) | (_, Some((at, LuauToken::Text(text)))) => {
                Some((*at, text))
            }
            _ => None,
        };
        // An escape could spell any name; a script with one here is on its own.
        if is_require
            && let Some((at, text)) = text
            && let Ok(text) = std::str::from_utf8(text)
            && !text.contains('\\')
        {
            self.requires.push((at, text.to_owned()));
        }
        let values = if !self.take("(") {
            vec![self.written().unwrap_or_default()]
        } else if self.take(")") {
            Vec::new()
        } else {
            let values = self.expressions();
            // A call may have several results, or none.
            let ends_in_call = !matches!(
                self.tokens.get(self.at - 1),
                Some((_, LuauToken::Word(_) | LuauToken::Number))
            );
            self.take(")");
            let is_open = ends_in_call && values.last().is_some_and(Value::is_unknown);
            return self.settled(root, Arguments { values, is_open });
        };
        self.settled(root, Arguments { values, is_open: false })
    }

    /// A table or a string that is written out, as it stands behind a name that is called without
    /// parentheses, too.
    fn written(&mut self) -> Option<Value<'a>> {
        match self.peek(0)? {
            LuauToken::Sign("{") => {
                self.table();
                Some(Value::literal("a table"))
            }
            LuauToken::Text(_) => Some(self.literal("a string")),
            LuauToken::InterpolationStart => {
                self.interpolation();
                Some(Value::literal("a string"))
            }
            _ => None,
        }
    }

    /// What is asked for its type or for its value is not null where that matters.
    fn settled(&mut self, root: Option<Root<'a>>, arguments: Arguments<'a>) -> Arguments<'a> {
        if matches!(root, Some(Root::Global("type" | "typeof" | "value")))
            && let Some(first) = arguments.values.first()
        {
            self.names.settle(first);
        }
        arguments
    }
}

/// Whether an operator, with this word for nothing on its other side, says of what is on this side
/// that it is not null.
fn is_comparison(operator: &str, other: &str) -> bool {
    matches!((operator, other), ("==", "" | "null") | ("~=", "null"))
}
