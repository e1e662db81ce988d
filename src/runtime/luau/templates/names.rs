//! What the names of a source mean, as far as that can be told without running it; and what is wrong with them.
//!
//! Knows nothing of grammar: `walk` says what comes when. It follows locals, and what of `ctx` and of the libraries they
//! stand for; where it cannot be sure it says nothing. So a variable that is assigned to, or whose members are, is
//! nobody's but the script's: whatever was found about it is withdrawn.

use std::collections::HashSet;

use super::known::{self, Kind, Known};
use crate::nearest::nearest;

/// A value, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Value<'a> {
    shape: Shape,
    /// The variables that this rests on.
    rests_on: Vec<Root<'a>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Shape {
    #[default]
    Unknown,
    Known(&'static Known),
    /// A method of something, which was asked for with a dot.
    Method(&'static Known, usize),
    /// `ctx.event`
    Event,
}

/// A variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Root<'a> {
    /// A local, by its number.
    Local(usize),
    Global(&'a str),
}

/// The names of one source.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    /// Locals in reach, the innermost last: name and number.
    locals: Vec<(&'a str, usize)>,
    values: Vec<Value<'a>>,
    blocks: Vec<usize>,
    changed: HashSet<Root<'a>>,
    /// Variables that are taken for `ctx` by their name alone.
    guessed: Vec<Root<'a>>,
    /// Globals that the source makes.
    own: HashSet<&'a str>,
    uses: Vec<Use<'a>>,
    problems: Vec<Problem<'a>>,
}

/// A global is read that templates do not have.
#[derive(Debug)]
struct Use<'a> {
    line: usize,
    name: &'a str,
    /// The local in reach that is most like it.
    like: Option<&'a str>,
}

#[derive(Debug)]
struct Problem<'a> {
    line: usize,
    message: String,
    rests_on: Vec<Root<'a>>,
}

impl<'a> Names<'a> {
    pub(super) fn open_block(&mut self) {
        self.blocks.push(self.locals.len());
    }

    pub(super) fn close_block(&mut self) {
        let len = self.blocks.pop().unwrap_or_default();
        self.locals.truncate(len);
    }

    /// A local begins.
    pub(super) fn declare(&mut self, name: &'a str, value: Value<'a>) {
        self.locals.push((name, self.values.len()));
        self.values.push(value);
    }

    /// A variable begins that holds what a template's function gets, or seems to by its name alone (`is_guess`).
    pub(super) fn declare_ctx(&mut self, name: &'a str, is_guess: bool) {
        let root = Root::Local(self.values.len());
        if is_guess {
            self.guessed.push(root);
        }
        self.declare(name, Value { shape: Shape::Known(&known::CTX), rests_on: vec![root] });
    }

    /// The variable that a name means here.
    pub(super) fn root(&self, name: &'a str) -> Root<'a> {
        match self.locals.iter().rev().find(|(local, _)| *local == name) {
            Some((_, number)) => Root::Local(*number),
            None => Root::Global(name),
        }
    }

    /// A variable (`is_variable`) is assigned to, or one of its members.
    pub(super) fn change(&mut self, root: Root<'a>, is_variable: bool) {
        self.changed.insert(root);
        if let Root::Global(name) = root
            && is_variable
        {
            self.own.insert(name);
        }
    }

    /// A variable is read.
    pub(super) fn read(&mut self, line: usize, root: Root<'a>) -> Value<'a> {
        match root {
            Root::Local(number) => {
                let mut value = self.values[number].clone();
                if value.shape != Shape::Unknown && !value.rests_on.contains(&root) {
                    value.rests_on.push(root);
                }
                value
            }
            Root::Global(name) => {
                if !known::globals().any(|global| global == name) {
                    let like = nearest(name, self.locals.iter().map(|(local, _)| *local));
                    self.uses.push(Use { line, name, like });
                }
                let shape = known::library(name).map_or(Shape::Unknown, Shape::Known);
                Value { shape, rests_on: vec![root] }
            }
        }
    }

    /// A member is asked for, with a dot or (`is_method`) with a colon.
    pub(super) fn member(&mut self, line: usize, of: Value<'a>, name: &'a str, is_method: bool) -> Value<'a> {
        let Shape::Known(known) = of.shape else { return Value::default() };
        let Some(index) = known.members.iter().position(|member| *member == name) else {
            let message = format!("{} has no member '{name}'", known.name);
            self.problem(line, with_hint(message, nearest(name, known.members.iter().copied())), of);
            return Value::default();
        };
        let shape = match known.kind {
            Kind::Methods if is_method => Shape::Unknown,
            Kind::Methods => Shape::Method(known, index),
            Kind::Fields if *known == known::CTX && name == "event" => Shape::Event,
            Kind::Fields if *known == known::CTX => known::ctx_member(name).map_or(Shape::Unknown, Shape::Known),
            Kind::Fields => Shape::Unknown,
        };
        Value { shape, ..of }
    }

    /// Something is called, with this as its first argument: what it returns.
    pub(super) fn call(&mut self, line: usize, called: Value<'a>, first: Option<&Value<'a>>) -> Value<'a> {
        match called.shape {
            Shape::Event => Value { shape: Shape::Known(&known::EVENT), ..called },
            Shape::Method(known, index) if first.is_none_or(|first| first.shape != Shape::Known(known)) => {
                let message = format!("call it with a colon: {}:{}(…)", known.name, known.members[index]);
                self.problem(line, message, called);
                Value::default()
            }
            _ => Value::default(),
        }
    }

    fn problem(&mut self, line: usize, message: String, value: Value<'a>) {
        self.problems.push(Problem { line, message, rests_on: value.rests_on });
    }

    /// What is wrong, with lines.
    pub(super) fn findings(self) -> Vec<(usize, String)> {
        let Self { mut changed, guessed, own, uses, problems, .. } = self;
        // Who treats one `ctx` as a table of their own does not mean ours by the others.
        if guessed.iter().any(|root| changed.contains(root)) {
            changed.extend(guessed);
        }
        let unknown = uses.into_iter().filter(|used| !own.contains(used.name));
        let unknown = unknown.map(|Use { line, name, like }| {
            let message = format!("unknown global '{name}'");
            let near = like.or_else(|| nearest(name, known::globals()));
            match known::instead(name) {
                Some(instead) => (line, format!("{message}; {instead}")),
                None => (line, with_hint(message, near)),
            }
        });
        let sure = problems.into_iter().filter(|problem| problem.rests_on.iter().all(|root| !changed.contains(root)));
        let mut findings: Vec<_> = unknown.chain(sure.map(|problem| (problem.line, problem.message))).collect();
        findings.sort();
        findings.dedup();
        findings
    }
}

fn with_hint(message: String, near: Option<&str>) -> String {
    match near {
        Some(near) => format!("{message}; did you mean '{near}'?"),
        None => message,
    }
}
