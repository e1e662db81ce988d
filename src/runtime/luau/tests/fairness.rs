//! What tenants that hurt cost the others: a hundred are called steadily, each again as soon as it
//! has answered, while others do their worst beside them on the same executor.
//!
//! Bounds here are wide, because the machine may be busy. With `MESOPHYLL_MEASURE` set it takes
//! longer and says what it measured, for docs/benchmarks.md.

use std::io::Write;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::support::*;
use crate::base::process_figures::ProcessFigures;
use crate::dispatch::{Answer, DispatchResult, Job, RequestId};
use crate::runtime::TemplateRuntime;
use crate::runtime::luau::LuauConfig;
use crate::wire::data::TenantId;

/// Does a little work, as templates do.
const TEMPLATE: &str = "return function(ctx)
    local data, words = ctx:event().data, {}
    for word in string.gmatch(data.content, '%a+') do
        words[#words + 1] = string.lower(word)
    end
    return { words = #words, first = words[1], author = data.author.id }
end";

const EVENT: &str =
    r#"{"content": "Hello there, it is a fine day", "author": {"id": "7", "username": "ann"}}"#;

const STEADY: u64 = 100;

/// Scripts that do their worst, each again as soon as it has ended.
fn attacks() -> Vec<(&'static str, String)> {
    let slow_to_compile =
        format!("local t = {{}} {} return 1", "t[#t+1]=function()return#t end ".repeat(6000));
    [
        ("a loop", "while true do end"),
        ("a loop in pcall", "while true do pcall(function() while true do end end) end"),
        ("a comparator that loops", "table.sort({ 3, 2, 1 }, function() while true do end end)"),
        (
            "a pattern bomb",
            "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 41))",
        ),
        ("a long pattern bomb", "return string.match(string.rep('a', 50000), '.-.-.-.-b')"),
        ("a string.rep bomb", "return string.rep('x', 2 ^ 30)"),
        ("string.rep in a loop", "while true do pcall(string.rep, 'x', 2 ^ 24) end"),
        ("a table that grows", "local t = {} while true do t[#t + 1] = {} end"),
        (
            "a table that grows in pcall",
            "while true do pcall(function() local t = {} while true do t[#t + 1] = {} end end) end",
        ),
        (
            "deep recursion",
            "local function f(n) return 1 + f(n + 1) end while true do pcall(f, 1) end",
        ),
        (
            "a coroutine bomb",
            "local all = {} while true do all[#all + 1] = coroutine.create(print) end",
        ),
        (
            "an error in __tostring",
            "error(setmetatable({}, { __tostring = function() error('in it') end }))",
        ),
        (
            "a task.spawn storm",
            "local function f() task.spawn(f) end while true do task.spawn(function() end) end",
        ),
        ("a template that waits", "coroutine.yield()"),
    ]
    .into_iter()
    .map(|(name, code)| (name, code.to_owned()))
    .chain([("a source slow to compile", slow_to_compile)])
    .collect()
}

/// How often a phase looks at the executor and at the process, where there is no answer to take.
const LOOK: Duration = Duration::from_millis(1);

/// What the steady tenants got in a phase.
pub(super) struct Measured {
    pub(super) per_second: f64,
    sorted: Vec<Duration>,
    attacks_ended: usize,
    /// The longest that the executor was seen away from its loop.
    pub(super) hold: Duration,
    /// The most memory that the process was seen to have, beyond what it began with.
    pub(super) memory: u64,
}

impl Measured {
    pub(super) fn percentile(&self, hundredths: usize) -> Duration {
        let index =
            (self.sorted.len() * hundredths / 10_000).min(self.sorted.len().saturating_sub(1));
        // Where none was answered in time, the executor was away for all of it.
        self.sorted.get(index).copied().unwrap_or(self.hold)
    }

    pub(super) fn report(&self, name: &str, before: f64) {
        let line = format!(
            "{name:32} {:8.0}/s ({:3.0} %)  p50 {:8.3?}  p99 {:8.3?}  worst {:8.3?}  hold {:8.3?}  \
             {:4} MiB more  {} attacks ended\n",
            self.per_second,
            100.0 * self.per_second / before,
            self.percentile(5000),
            self.percentile(9900),
            self.percentile(10_000),
            self.hold,
            self.memory >> 20,
            self.attacks_ended,
        );
        // Not `print`, which is for results of commands.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn resident_bytes() -> u64 {
    ProcessFigures::read().resident_bytes
}

type Answered = (TenantId, RequestId, Instant, DispatchResult);

pub(super) struct Arena {
    pub(super) world: World,
    answers: (Sender<Answered>, Receiver<Answered>),
    request_ids: u64,
}

impl Arena {
    pub(super) fn new() -> Self {
        let files = vec![("main.luau".to_owned(), TEMPLATE.to_owned())];
        let templates = crate::runtime::luau::TemplateSource::Files(files);
        let world = World::with_config(LuauConfig { templates, ..LuauConfig::default() });
        Self { world, answers: unbounded(), request_ids: 0 }
    }

    fn submit(&mut self, tenant: TenantId, job: Job) -> RequestId {
        self.request_ids += 1;
        let (answer_tx, submitted) = (self.answers.0.clone(), Instant::now());
        let request_id = RequestId(self.request_ids);
        let answer = Answer::callback(move |result| {
            drop(answer_tx.send((tenant, request_id, submitted, result)))
        });
        self.world.runtime.submit(tenant, request_id, job, answer);
        request_id
    }

    fn call(&mut self, tenant: TenantId) {
        self.submit(tenant, Job::Dispatch(event("MESSAGE_CREATE", EVENT)));
    }

    fn script(&mut self, tenant: TenantId, code: &str) -> RequestId {
        let job = Job::RunScript {
            name: "attack".to_owned(),
            code: code.to_owned(),
            event: event("Test", "null"),
        };
        self.submit(tenant, job)
    }

    /// Measures the steady tenants while each of the attackers runs its script again and again. A
    /// tenant that is among them several times runs as many at once.
    pub(super) fn phase(&mut self, attackers: &[(TenantId, &str)], time: Duration) -> Measured {
        let mut under_way: Vec<_> =
            attackers.iter().map(|(tenant, code)| (*tenant, self.script(*tenant, code))).collect();
        for id in 0..STEADY {
            self.call(TenantId::Guild(id));
        }
        let (mut sorted, mut attacks_ended, mut hold) = (Vec::new(), 0, Duration::ZERO);
        let (began_with, mut most) = (resident_bytes(), 0);
        let patience = Instant::now() + SOON + time;
        // The first tenth is for getting warm.
        let (from, until) = (Instant::now() + time / 10, Instant::now() + time);
        let mut open = STEADY as usize + attackers.len();
        while open > 0 {
            let answered = self.answers.1.recv_timeout(LOOK);
            hold = hold.max(self.world.runtime.stats().stalest_executor);
            let Ok((tenant, request_id, submitted, result)) = answered else {
                assert!(Instant::now() < patience, "everybody is answered");
                most = most.max(resident_bytes());
                continue;
            };
            open -= 1;
            let now = Instant::now();
            let is_over = now >= until;
            if let TenantId::User(_) = tenant {
                attacks_ended += 1;
                let ended = under_way.iter().position(|(_, last)| *last == request_id);
                if !is_over && let Some(place) = ended {
                    under_way[place].1 = self.script(tenant, attackers[place].1);
                    open += 1;
                }
                continue;
            }
            assert!(result.is_ok(), "{tenant}: {result:?}");
            if submitted >= from && !is_over {
                sorted.push(now - submitted);
            }
            if is_over {
                // The attackers may go on for as long as their limits let them.
                for (tenant, request_id) in under_way.drain(..) {
                    self.world.runtime.cancel(tenant, request_id);
                }
            } else {
                self.call(tenant);
                open += 1;
            }
        }
        sorted.sort_unstable();
        let per_second = sorted.len() as f64 / (time * 9 / 10).as_secs_f64();
        let memory = most.max(resident_bytes()).saturating_sub(began_with);
        Measured { per_second, sorted, attacks_ended, hold, memory }
    }

    /// Each attacker works again at its next event.
    fn assert_alive(&mut self, attackers: &[(TenantId, &str)]) {
        for (tenant, code) in attackers {
            self.script(*tenant, "return 'alive'");
            let (answered, .., result) = self.answers.1.recv_timeout(SOON).expect("an answer");
            assert_eq!(
                (answered, result.map(|value| json(&value))),
                (*tenant, Ok(r#""alive""#.to_owned())),
                "{code}"
            );
        }
    }
}

#[test]
fn tenants_that_hurt_cost_the_others_half_of_the_time_at_most() {
    let measures = std::env::var_os("MESOPHYLL_MEASURE").is_some();
    let time = Duration::from_millis(if measures { 3000 } else { 500 });
    let mut arena = Arena::new();
    arena.phase(&[], time);
    let before = arena.phase(&[], time).per_second;

    let attacks = attacks();
    let one = |index: usize| (TenantId::User(index as u64), attacks[index].1.as_str());
    let mut phases: Vec<(String, Vec<(TenantId, &str)>)> = vec![("nobody".to_owned(), Vec::new())];
    phases.extend((0..attacks.len()).map(|index| (attacks[index].0.to_owned(), vec![one(index)])));
    let ten = (0..10).map(|id| (TenantId::User(100 + id), attacks[0].1.as_str())).collect();
    phases.push(("ten loops".to_owned(), ten));
    phases.push(("all together".to_owned(), (0..attacks.len()).map(one).collect()));
    for (name, attackers) in phases {
        // On a quiet machine 40 of a hundred and more; here others may have taken theirs, and for
        // all of a short phase: then a longer one tells. Where the lanes fail it is one of a
        // hundred in any.
        let is_enough = |measured: &Measured| measured.per_second > before / 25.0;
        let mut measured = arena.phase(&attackers, time);
        for factor in [4, 16].into_iter().take_while(|_| !measures) {
            if !is_enough(&measured) {
                measured = arena.phase(&attackers, time * factor);
            }
        }
        if measures {
            measured.report(&name, before);
        }
        assert!(is_enough(&measured), "{name}: {} of {before}", measured.per_second);
        arena.assert_alive(&attackers);
    }
    // A request is forgotten a moment after its answer.
    eventually(|| arena.world.runtime.stats().in_flight == 0);
}
