//! Types, which are passed over: nothing in them is there when a template runs.

use super::SourceWalk;
use crate::runtime::luau::templates::lexer::LuauToken;

impl SourceWalk<'_, '_> {
    /// Passes over a type.
    pub(super) fn type_(&mut self) {
        loop {
            while self.is_any(&["|", "&", "..."]) {
                self.at += 1;
            }
            self.angles();
            match self.peek(0) {
                Some(LuauToken::Sign("(")) => {
                    self.brackets();
                    if self.take("->") {
                        continue;
                    }
                }
                Some(LuauToken::Sign("{")) => self.brackets(),
                Some(LuauToken::Word(_)) => {
                    self.at += 1;
                    while self.take(".") {
                        self.at += 1;
                    }
                    if self.is("(")
                        && matches!(
                            self.tokens.get(self.at - 1),
                            Some((_, LuauToken::Word("typeof")))
                        )
                    {
                        self.brackets();
                    }
                    self.angles();
                }
                Some(LuauToken::Text(_)) => self.at += 1,
                _ => return,
            }
            while self.is_any(&["?", "..."]) {
                self.at += 1;
            }
            if !self.is_any(&["|", "&"]) {
                return;
            }
        }
    }

    /// Passes over what is in angle brackets, if they come next.
    pub(super) fn angles(&mut self) {
        if !self.is("<") {
            return;
        }
        let mut depth = 0_usize;
        while self.peek(0).is_some() {
            if self.is_any(&["(", "{", "["]) {
                self.brackets();
                continue;
            }
            depth = if self.is("<") {
                depth + 1
            } else {
                depth.saturating_sub(usize::from(self.is(">")))
            };
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Passes over what is in brackets of any other kind.
    pub(super) fn brackets(&mut self) {
        let mut depth = 0_usize;
        while self.peek(0).is_some() {
            if self.is_any(&["(", "{", "["]) {
                depth += 1;
            } else if self.is_any(&[")", "}", "]"]) {
                depth = depth.saturating_sub(1);
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }
}
