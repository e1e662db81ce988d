//! Reads the definitions for editors: which types and globals they declare, with which members.
//!
//! For definitions of ours alone: of the forms that a declaration can have it knows those that
//! `mesophyll.d.luau` uses.

use super::SourceWalk;
use crate::runtime::luau::templates::lexer::{LuauToken, tokens};

/// A type or a global.
#[derive(Debug, Clone, Default)]
pub(in crate::runtime::luau::templates) struct Declaration {
    pub(in crate::runtime::luau::templates) name: &'static str,
    pub(in crate::runtime::luau::templates) is_type: bool,
    pub(in crate::runtime::luau::templates) members: Vec<DeclaredMember>,
}

/// A member of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime::luau::templates) struct DeclaredMember {
    pub(in crate::runtime::luau::templates) name: &'static str,
    /// Of a method: what it cannot be called without.
    pub(in crate::runtime::luau::templates) parameters: Option<Vec<&'static str>>,
    /// Of a field: its type, if that is a name.
    pub(in crate::runtime::luau::templates) of: &'static str,
}

impl DeclaredMember {
    /// A field of any type.
    pub(in crate::runtime::luau::templates) fn field(name: &'static str) -> Self {
        Self { name, parameters: None, of: "" }
    }
}

/// All that a text of definitions declares, in its order.
pub(in crate::runtime::luau::templates) fn declarations(text: &'static str) -> Vec<Declaration> {
    let tokens = tokens(text.as_bytes());
    let mut walk = SourceWalk { tokens: &tokens, ..SourceWalk::default() };
    let mut found = Vec::new();
    while walk.peek(0).is_some() {
        let before = walk.at;
        found.extend(walk.declaration());
        walk.at += usize::from(walk.at == before);
    }
    found
}

impl SourceWalk<'_, 'static> {
    fn declaration(&mut self) -> Option<Declaration> {
        let _ = self.take("export") || self.take("declare");
        self.take("extern");
        let is_type = self.take("type");
        if self.take("function") {
            let name = self.name()?;
            self.parameters();
            self.result();
            return Some(Declaration { name, ..Declaration::default() });
        }
        let name = self.name()?;
        let members = if self.take("with") {
            self.members("end")
        } else if (self.take("=") || self.take(":")) && self.take("{") {
            self.members("}")
        } else {
            self.type_();
            Vec::new()
        };
        if self.is_any(&["|", "&"]) {
            self.type_();
        }
        Some(Declaration { name, is_type, members })
    }

    fn members(&mut self, end: &str) -> Vec<DeclaredMember> {
        let mut members = Vec::new();
        while self.peek(0).is_some() && !self.take(end) {
            let before = self.at;
            let is_method = self.take("function");
            if let Some(name) = self.name() {
                let parameters = is_method.then(|| self.parameters());
                let of = self.result();
                members.push(DeclaredMember { name, parameters, of });
            }
            self.take(",");
            self.at += usize::from(self.at == before);
        }
        members
    }

    /// The parameters of a method or a function that a call cannot leave out.
    fn parameters(&mut self) -> Vec<&'static str> {
        let mut parameters = Vec::new();
        self.angles();
        self.take("(");
        while self.peek(0).is_some() && !self.take(")") {
            let before = self.at;
            let name = self.name();
            self.take("...");
            self.result();
            let is_optional =
                matches!(self.tokens.get(self.at - 1), Some((_, LuauToken::Sign("?"))));
            parameters.extend(name.filter(|name| *name != "self" && !is_optional));
            self.take(",");
            self.at += usize::from(self.at == before);
        }
        parameters
    }

    /// Passes over a colon and a type, if they come next: its name, if it is just that.
    fn result(&mut self) -> &'static str {
        if !self.take(":") {
            return "";
        }
        let (from, name) = (self.at, self.name_ahead(0));
        self.type_();
        name.filter(|_| self.at == from + 1).unwrap_or_default()
    }
}
