//! What the names of a source mean, as far as that can be told without running it; and what is
//! wrong with them.
//!
//! Knows nothing of grammar: `walk` says what comes when. It follows locals, and what of `ctx` and
//! of the libraries they stand for; where it cannot be sure it says nothing. So a variable that is
//! assigned to, or whose members are, belongs to the script alone: all that was found about it is
//! withdrawn.

use std::collections::HashSet;

use super::known::{self, Known, MemberKind};
use super::lexer::At;
use crate::base::nearest::nearest;

/// A value, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Value<'a> {
    shape: Shape,
    /// The variables that this rests on.
    rests_on: Vec<Root<'a>>,
    /// Of the event's data and what is in it: which part of it.
    path: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Shape {
    #[default]
    Unknown,
    Known(&'static Known),
    /// A method of something, which was asked for with a dot.
    Method(&'static Known, &'static str),
    /// A method of something that is called with a colon.
    Called(&'static Known, &'static str),
    /// `ctx.event`
    Event,
    /// The event's data: nil if it is null.
    Data,
    /// A field in it, which may be null.
    Field,
    /// A variable that such a field was put into.
    Held,
    /// What is written out, and of what kind it is.
    Literal(&'static str),
}

/// What something is called with.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    pub(super) values: Vec<Value<'a>>,
    /// The last one may stand for several, or for none.
    pub(super) is_open: bool,
}

impl Arguments<'_> {
    /// What keeps a method from being called with them.
    fn problem(&self, of: &Known, method: &str) -> Option<String> {
        let parameters = of.parameters(method);
        let call = format!("{}:{method}({})", of.name, parameters.join(", "));
        let missing = parameters.get(self.values.len()..).unwrap_or_default();
        if !missing.is_empty() && !self.is_open {
            return Some(format!("{} missing: {call}", missing.join(" and ")));
        }
        let scopes = parameters.iter().position(|parameter| *parameter == "scopes")?;
        match self.values.get(scopes)?.shape {
            Shape::Literal(kind) if kind != "a table" => {
                Some(format!("scopes are a list of strings: {call}"))
            }
            _ => None,
        }
    }
}

impl Value<'_> {
    pub(super) fn literal(kind: &'static str) -> Self {
        Self { shape: Shape::Literal(kind), ..Self::default() }
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.shape == Shape::Unknown
    }

    fn is_data(&self) -> bool {
        matches!(self.shape, Shape::Data | Shape::Field | Shape::Held)
    }

    /// What a type cast leaves of it: the event's data stays what it is, all else is what the cast
    /// says.
    pub(super) fn cast(self) -> Self {
        if self.is_data() { self } else { Self::default() }
    }

    /// What is in it under a key that is not a plain name.
    pub(super) fn index(mut self, key: &str) -> Self {
        if !self.is_data() {
            return Self::default();
        }
        self.shape = Shape::Field;
        self.path.push_str(key);
        self
    }
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
    problems: Vec<NameProblem<'a>>,
    /// Parts of the event's data of which the source knows that they may be null.
    settled: HashSet<String>,
    /// Variables that are assigned to.
    assigned: HashSet<Root<'a>>,
}

/// A global is read that templates do not have.
#[derive(Debug)]
struct Use<'a> {
    at: At,
    name: &'a str,
    /// The local in reach that is most like it.
    like: Option<&'a str>,
}

#[derive(Debug)]
struct NameProblem<'a> {
    at: At,
    message: String,
    rests_on: Vec<Root<'a>>,
    kind: ProblemKind,
}

/// What makes a problem none.
#[derive(Debug)]
enum ProblemKind {
    /// A change of a variable that it rests on, or of a member.
    Member,
    /// This part of the event's data is settled.
    Null(String),
    /// An assignment to a variable that it rests on; or the source is a script.
    Return,
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
    pub(super) fn declare(&mut self, name: &'a str, mut value: Value<'a>) {
        if value.shape == Shape::Field {
            value.shape = Shape::Held;
        }
        self.locals.push((name, self.values.len()));
        self.values.push(value);
    }

    /// A variable begins that holds what a template's function gets, or seems to by its name alone
    /// (`is_guess`).
    pub(super) fn declare_ctx(&mut self, name: &'a str, is_guess: bool) {
        let root = Root::Local(self.values.len());
        if is_guess {
            self.guessed.push(root);
        }
        let shape = Shape::Known(&known::CTX);
        self.declare(name, Value { shape, rests_on: vec![root], ..Value::default() });
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
        if is_variable {
            self.assigned.insert(root);
        }
        if let Root::Global(name) = root
            && is_variable
        {
            self.own.insert(name);
        }
    }

    /// A variable is read.
    pub(super) fn read(&mut self, at: At, root: Root<'a>) -> Value<'a> {
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
                    self.uses.push(Use { at, name, like });
                }
                let shape = known::library(name).map_or(Shape::Unknown, Shape::Known);
                Value { shape, rests_on: vec![root], ..Value::default() }
            }
        }
    }

    /// A member is asked for, with a dot or (`is_method`) with a colon.
    pub(super) fn member(
        &mut self,
        at: At,
        of: Value<'a>,
        name: &'a str,
        is_method: bool,
    ) -> Value<'a> {
        if of.is_data() && !is_method {
            let path = format!("{}.{name}", of.path);
            return Value { shape: Shape::Field, path, ..of };
        }
        let Shape::Known(known) = of.shape else { return Value::default() };
        let Some(member) = known.members().find(|member| *member == name) else {
            let message = format!("{} has no member '{name}'", known.name);
            let message = with_hint(message, nearest(name, known.members()));
            self.problem(at, message, of, ProblemKind::Member);
            return Value::default();
        };
        let shape = match known.kind {
            MemberKind::Methods if is_method => Shape::Called(known, member),
            MemberKind::Methods => Shape::Method(known, member),
            MemberKind::Fields if *known == *known::CTX && name == "event" => Shape::Event,
            MemberKind::Fields if *known == *known::CTX => {
                known::ctx_member(name).map_or(Shape::Unknown, Shape::Known)
            }
            MemberKind::Fields if *known == *known::EVENT && name == "data" => Shape::Data,
            MemberKind::Fields => Shape::Unknown,
        };
        Value { shape, path: name.to_owned(), ..of }
    }

    /// Something is called: what it returns.
    pub(super) fn call(
        &mut self,
        at: At,
        called: Value<'a>,
        arguments: &Arguments<'a>,
    ) -> Value<'a> {
        let first = arguments.values.first();
        let message = match called.shape {
            Shape::Event => return Value { shape: Shape::Known(&known::EVENT), ..called },
            Shape::Method(known, member)
                if first.is_none_or(|first| first.shape != Shape::Known(known)) =>
            {
                Some(format!("call it with a colon: {}:{member}(…)", known.name))
            }
            Shape::Called(known, member) => arguments.problem(known, member),
            _ => None,
        };
        if let Some(message) = message {
            self.problem(at, message, called, ProblemKind::Member);
        }
        Value::default()
    }

    /// A value decides what is done, as true or false.
    pub(super) fn test(&mut self, at: At, value: &Value<'a>) {
        if value.shape == Shape::Field {
            let message =
                "a field of the event may be null, which counts as true; value(…) gives nil for it"
                    .to_owned();
            let kind = ProblemKind::Null(value.path.clone());
            self.problem(at, message, value.clone(), kind);
        }
    }

    /// A value is compared with something, or asked for its type: the source knows that it may be
    /// null.
    pub(super) fn settle(&mut self, value: &Value<'a>) {
        if value.is_data() {
            self.settled.insert(value.path.clone());
        }
    }

    /// The source returns this.
    pub(super) fn returned(&mut self, at: At, value: Value<'a>, is_template: bool) {
        let message = match value.shape {
            Shape::Literal(kind) if is_template => {
                format!("the template must return function(ctx), not {kind}")
            }
            Shape::Literal("nil") => "a module must return something".to_owned(),
            _ => return,
        };
        self.problem(at, message, value, ProblemKind::Return);
    }

    fn problem(&mut self, at: At, message: String, value: Value<'a>, kind: ProblemKind) {
        self.problems.push(NameProblem { at, message, rests_on: value.rests_on, kind });
    }

    /// What is wrong, and where.
    pub(super) fn findings(self, is_script: bool) -> Vec<(At, String)> {
        let Self { mut changed, guessed, own, uses, problems, settled, assigned, .. } = self;
        // A script that treats one `ctx` as a table of its own does not mean ours by the others.
        if guessed.iter().any(|root| changed.contains(root)) {
            changed.extend(guessed);
        }
        let unknown = uses.into_iter().filter(|used| !own.contains(used.name));
        let unknown = unknown.map(|Use { at, name, like }| {
            let message = format!("unknown global '{name}'");
            let globals = known::globals().map(|global| -> &'a str { global });
            let near = like.or_else(|| nearest(name, globals.chain(own.iter().copied())));
            match known::instead(name) {
                Some(instead) => (at, format!("{message}; {instead}")),
                None => (at, with_hint(message, near)),
            }
        });
        let sure = problems.into_iter().filter(|problem| match &problem.kind {
            ProblemKind::Return => {
                !is_script && problem.rests_on.iter().all(|root| !assigned.contains(root))
            }
            ProblemKind::Null(path) if settled.contains(path) => false,
            _ => problem.rests_on.iter().all(|root| !changed.contains(root)),
        });
        let mut findings: Vec<_> =
            unknown.chain(sure.map(|problem| (problem.at, problem.message))).collect();
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
