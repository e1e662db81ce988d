//! What goes wrong in a run, and what its operators wish for: drawn from the seed.

use std::time::Duration;

use crate::pool::process::supervisor::{Cause, Event, Policy, Why};
use crate::wire::data::TenantId;

use super::books::Broken;
use super::dice::millis;
use super::master::Note;
use super::world::{Happening, TENANTS, World};

impl World {
    pub(super) fn fault(&mut self) -> Broken {
        if !self.has_faults {
            return Ok(());
        }
        let pause = self.clock.dice.between(20, 2_500);
        self.clock.after(pause, Happening::Fault);
        match self.clock.dice.below(16) {
            0..=2 => self.cut_some(),
            3 | 4 => self.kill_some(),
            5 | 6 => self.hang_some(),
            7 => self.stick_some(),
            8 => {
                self.count("links were slow");
                self.slow_until = self.clock.now + self.clock.dice.between(100, 4_000);
            }
            9..=11 => return self.wish_some(),
            12 => self.suspend(),
            13 => return self.stop_some(),
            14 => {
                let at = self.clock.dice.index(self.masters.len());
                if self.masters[at].is_up {
                    self.count("a master died");
                    self.master_dies(at);
                }
            }
            _ => self.lift_quarantines(),
        }
        Ok(())
    }

    fn cut_some(&mut self) {
        let open = self.open_links.clone();
        if open.is_empty() {
            return;
        }
        let link = open[self.clock.dice.index(open.len())];
        let is_noticed = !self.clock.dice.one_in(3);
        self.count(if is_noticed { "a link was cut" } else { "a link went silent" });
        self.cut(link, is_noticed);
    }

    fn some_process(&mut self) -> Option<usize> {
        let alive: Vec<usize> =
            (0..self.processes.len()).filter(|id| self.processes[*id].is_alive).collect();
        (!alive.is_empty()).then(|| alive[self.clock.dice.index(alive.len())])
    }

    fn kill_some(&mut self) {
        let Some(id) = self.some_process() else { return };
        self.count("a worker was killed");
        self.processes[id].kill(&mut self.clock, id, "killed by signal 11");
    }

    fn hang_some(&mut self) {
        let Some(id) = self.some_process() else { return };
        self.count("a worker stood still");
        let long = self.clock.dice.between(50, 40_000);
        self.hang(id, long);
    }

    fn stick_some(&mut self) {
        let Some(id) = self.some_process() else { return };
        self.count("an executor hung");
        self.stick(id, Policy::default().hang_timeout);
    }

    fn wish_some(&mut self) -> Broken {
        let workers = self.all_workers();
        let (master, worker) = workers[self.clock.dice.index(workers.len())];
        if !self.masters[master].is_up {
            return Ok(());
        }
        let event = match self.clock.dice.below(5) {
            0 => Event::Kill,
            1 | 2 => Event::Restart(Why::new(Cause::Operator, "wanted")),
            _ => Event::Restart(Why::new(Cause::Rolling, "wanted")),
        };
        self.count("an operator had a wish");
        self.wish(master, worker, event)
    }

    /// The machine sleeps: everything that was due meanwhile happens at its end.
    fn suspend(&mut self) {
        self.count("the clock jumped");
        self.clock.slept_until = self.clock.now + self.clock.dice.between(100, 8_000);
    }

    fn stop_some(&mut self) -> Broken {
        let at = self.clock.dice.index(self.masters.len());
        if !self.masters[at].is_up || self.masters[at].stops_by.is_some() {
            return Ok(());
        }
        self.count("a master was stopped");
        let (now, drains) = (self.clock.now, millis(self.clock.dice.below(5_000)));
        let grace = Policy::default().term_grace;
        self.masters[at].stops_by = Some(now + drains + grace + Duration::from_secs(2));
        let drain_until = self.clock.instant(now + drains);
        for worker in 0..self.masters[at].loops.len() {
            let place = self.masters[at].loops[worker].place;
            self.turn(place, Some(Note::End(Event::Stop { drain_until })))?;
        }
        Ok(())
    }

    fn lift_quarantines(&mut self) {
        self.count("quarantines were lifted");
        for master in &self.masters {
            for tenant in 0..TENANTS {
                master.quarantine.lift(TenantId::Guild(tenant << 22));
            }
        }
    }
}
