//! Expressions: what they stand for, as far as it is known, and what is called in them.

use super::Walk;
use crate::runtime::luau::templates::lexer::Token;
use crate::runtime::luau::templates::names::{Root, Value};

/// An expression that may be assigned to: its value, the variable that it begins with, and whether it is just that.
pub(super) struct Place<'a> {
    pub(super) value: Value<'a>,
    pub(super) root: Option<Root<'a>>,
    pub(super) is_variable: bool,
}

const OPERATORS: [&str; 16] = ["+", "-", "*", "/", "//", "%", "^", "..", "==", "~=", "<", "<=", ">", ">=", "and", "or"];

impl<'a> Walk<'_, 'a> {
    pub(super) fn expressions(&mut self) -> Vec<Value<'a>> {
        let mut values = vec![self.expression()];
        while self.take(",") {
            values.push(self.expression());
        }
        values
    }

    pub(super) fn expression(&mut self) -> Value<'a> {
        let mut is_simple = true;
        loop {
            while self.is_any(&["not", "-", "#"]) {
                self.at += 1;
                is_simple = false;
            }
            let value = self.simple();
            while self.take("::") {
                self.type_();
                is_simple = false;
            }
            if !self.is_any(&OPERATORS) {
                return if is_simple { value } else { Value::default() };
            }
            self.at += 1;
            is_simple = false;
        }
    }

    fn simple(&mut self) -> Value<'a> {
        match self.peek(0) {
            Some(Token::Number | Token::Sign("...") | Token::Word("nil" | "true" | "false")) => self.at += 1,
            Some(Token::Sign("{")) => self.table(),
            Some(Token::Sign("@")) => {
                self.other_statement();
                return self.simple();
            }
            Some(Token::Word("function")) => {
                self.at += 1;
                self.function_body(false, false);
            }
            Some(Token::Word("if")) => {
                while self.take("if") || self.take("elseif") {
                    self.expression();
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

    fn table(&mut self) {
        self.at += 1;
        while self.peek(0).is_some() && !self.is("}") {
            let before = self.at;
            if self.take("[") {
                self.expression();
                self.take("]");
                self.take("=");
            } else if self.name_ahead(0).is_some() && matches!(self.peek(1), Some(Token::Sign("="))) {
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
            let line = self.line();
            let was_variable = std::mem::take(&mut place.is_variable);
            match self.peek(0) {
                Some(Token::Sign(".")) => {
                    self.at += 1;
                    let Some(name) = self.name_or_keyword() else { return place };
                    place.value = self.names.member(line, place.value, name, false);
                }
                Some(Token::Sign(":")) => {
                    self.at += 1;
                    let Some(name) = self.name_or_keyword() else { return place };
                    let method = self.names.member(line, place.value, name, true);
                    if self.is("<") {
                        self.angles();
                    }
                    self.arguments(line, None);
                    place.value = self.names.call(line, method, None);
                }
                Some(Token::Sign("[")) => {
                    self.at += 1;
                    self.expression();
                    self.take("]");
                    place.value = Value::default();
                }
                Some(Token::Sign("<")) if matches!(self.peek(1), Some(Token::Sign("<"))) => self.angles(),
                Some(Token::Sign("(" | "{") | Token::Text(_) | Token::InterpolationStart) => {
                    let first = self.arguments(line, place.root);
                    place.value = self.names.call(line, place.value, first.as_ref());
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
        let Some(Token::Word(word)) = self.peek(0) else { return None };
        self.at += 1;
        Some(word)
    }

    fn primary(&mut self) -> Place<'a> {
        let line = self.line();
        let mut root = None;
        let value = match self.peek(0) {
            Some(Token::Sign("(")) => {
                self.at += 1;
                let value = self.expression();
                self.take(")");
                value
            }
            Some(Token::Text(_)) => {
                self.at += 1;
                Value::default()
            }
            Some(Token::InterpolationStart) => {
                self.interpolation();
                Value::default()
            }
            _ => match self.name() {
                Some(name) => {
                    let variable = self.names.root(name);
                    root = Some(variable);
                    // What is only assigned to is not read, but then it is known anyway.
                    self.names.read(line, variable)
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
                Some(Token::InterpolationMiddle) => self.at += 1,
                Some(Token::InterpolationEnd) => return self.at += 1,
                _ => return,
            }
        }
    }

    /// The arguments of a call of what begins with `root`; the first of them.
    fn arguments(&mut self, line: usize, root: Option<Root<'a>>) -> Option<Value<'a>> {
        let is_require = matches!(root, Some(Root::Global("require")));
        let text = match (self.peek(0), self.peek(1)) {
            (Some(Token::Text(text)), _) => Some((line, text)),
            (_, Some(Token::Text(text))) => self.tokens.get(self.at + 1).map(|(line, _)| (*line, text)),
            _ => None,
        };
        // An escape could spell any name; who writes one here is on their own.
        if is_require
            && let Some((line, text)) = text
            && let Ok(text) = std::str::from_utf8(text)
            && !text.contains('\\')
        {
            self.requires.push((line, text.to_owned()));
        }
        match self.peek(0) {
            Some(Token::Sign("{")) => self.table(),
            Some(Token::Text(_)) => self.at += 1,
            Some(Token::InterpolationStart) => self.interpolation(),
            _ if self.take("(") => {
                if self.take(")") {
                    return None;
                }
                let values = self.expressions();
                self.take(")");
                return values.into_iter().next();
            }
            _ => {}
        }
        None
    }
}
