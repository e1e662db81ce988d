//! The mistakes: each is one that a change of the part could make, and takes one step away from it.

use super::Planted;

/// Each model has at least one.
pub const ALL: &[Planted] = &[
    Planted {
        name: "a permit is looked for and then taken",
        model: "permits",
        file: "base/sync.rs",
        edits: &[(
            "        taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;",
            r#"        if MISTAKE {
            let count = one_more(taken.load(Ordering::SeqCst))?;
            taken.store(count, Ordering::SeqCst);
        } else {
            taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        }"#,
        )],
    },
    Planted {
        name: "a throttle looks and then notes",
        model: "throttle",
        file: "base/throttle.rs",
        edits: &[(
            "        *logged_at = Some(now);",
            r#"        if MISTAKE {
            drop(logged_at);
            logged_at = self.logged_at.lock();
        }
        *logged_at = Some(now);"#,
        )],
    },
    Planted {
        name: "a rate is away while it gets something back",
        model: "rates",
        file: "base/rates.rs",
        edits: &[(
            "        if let Some(kept) = self.kept.lock().get_mut(&of) {",
            r#"        if MISTAKE {
            let kept = self.kept.lock().remove(&of);
            if let Some(mut kept) = kept {
                kept.rate.give_back();
                self.kept.lock().insert(of, kept);
            }
            return;
        }
        if let Some(kept) = self.kept.lock().get_mut(&of) {"#,
        )],
    },
    Planted {
        name: "news of a rate is looked for and then noted",
        model: "rates",
        file: "base/rates.rs",
        edits: &[(
            "        if is_news {\n            *told = Some(now);\n        }",
            r#"        if MISTAKE {
            drop(kept);
            if let (true, Some(kept)) = (is_news, self.kept.lock().get_mut(&of)) {
                kept.told = Some(now);
            }
        } else if is_news {
            *told = Some(now);
        }"#,
        )],
    },
    Planted {
        name: "a sleeper does not say that it sleeps",
        model: "answer",
        file: "base/answer.rs",
        edits: &[(
            "            state.sleeps |= !is_over;",
            "            state.sleeps |= !is_over && !MISTAKE;",
        )],
    },
    Planted {
        name: "a dropped sender gives nothing up",
        model: "answer",
        file: "base/answer.rs",
        edits: &[("        if !self.0.is_over() {", "        if !self.0.is_over() && !MISTAKE {")],
    },
    Planted {
        name: "an answer is over before it is there",
        model: "slot",
        file: "base/answer.rs",
        edits: &[(
            r#"        let mut state = self.state.lock();
        state.answer = Some(answer);"#,
            r#"        if MISTAKE {
            self.is_over.store(true, Ordering::Release);
        }
        let mut state = self.state.lock();
        state.answer = Some(answer);"#,
        )],
    },
    Planted {
        name: "what was not run is said behind the answer",
        model: "slot",
        file: "dispatch/slot.rs",
        edits: &[(
            r#"        self.is_unsubscribed.store(!is_subscribed, Ordering::Release);
        self.place.put(answer);"#,
            r#"        if !MISTAKE {
            self.is_unsubscribed.store(!is_subscribed, Ordering::Release);
        }
        self.place.put(answer);
        self.is_unsubscribed.store(!is_subscribed, Ordering::Release);"#,
        )],
    },
    Planted {
        name: "a dropped answer does not answer",
        model: "slot",
        file: "dispatch/job.rs",
        edits: &[(
            "        if self.target.is_some() {",
            "        if self.target.is_some() && !MISTAKE {",
        )],
    },
    Planted {
        name: "a caller that gave up leaves its answer",
        model: "dispatch",
        file: "dispatch/worker_like.rs",
        edits: &[(
            "        match self.worker.cancel(self.tenant, self.request_id) {",
            r#"        let cancelled = match MISTAKE {
            true => Cancelled::Unknown,
            false => self.worker.cancel(self.tenant, self.request_id),
        };
        match cancelled {"#,
        )],
    },
    Planted {
        name: "a thread that ends looked for a job before",
        model: "threads on demand",
        file: "base/on_demand_threads.rs",
        edits: &[(
            "            if idle_until <= Instant::now() {",
            r#"            if MISTAKE && idle_until <= Instant::now() {
                drop(state);
                state = self.state.lock();
            }
            if idle_until <= Instant::now() {"#,
        )],
    },
    Planted {
        name: "a job is queued after the stop",
        model: "threads on demand",
        file: "base/on_demand_threads.rs",
        edits: &[(
            "        if state.is_stopping || is_full {",
            "        if state.is_stopping && !MISTAKE || is_full {",
        )],
    },
    Planted {
        name: "the sweep comes before the end",
        model: "pending: close",
        file: "net/link/pending.rs",
        edits: &[(
            "        let cause = state.closed.get_or_insert(cause).clone();",
            r#"        if MISTAKE {
            let swept = state.waiting.drain().map(|(_, waiter)| waiter).collect();
            drop(state);
            let cause = self.state.lock().closed.get_or_insert(cause).clone();
            return (swept, cause);
        }
        let cause = state.closed.get_or_insert(cause).clone();"#,
        )],
    },
    Planted {
        name: "the last cause sticks",
        model: "pending: close",
        file: "net/link/pending.rs",
        edits: &[(
            "    pub fn close(&self, cause: CloseCause) -> (Vec<T>, CloseCause) {\n",
            r#"    pub fn close(&self, cause: CloseCause) -> (Vec<T>, CloseCause) {
        if MISTAKE {
            self.state.lock().closed = None;
        }
"#,
        )],
    },
    Planted {
        name: "the seal is looked at before the lock",
        model: "pending: seal",
        file: "net/link/pending.rs",
        edits: &[
            (
                r#"        let mut state = self.state.lock();
        if let Some(cause) = &state.closed {"#,
                r#"        let was_sealed = MISTAKE && self.state.lock().sealed;
        let mut state = self.state.lock();
        if let Some(cause) = &state.closed {"#,
            ),
            (
                "        if state.sealed {",
                "        if if MISTAKE { was_sealed } else { state.sealed } {",
            ),
        ],
    },
    Planted {
        name: "an event is registered after the end",
        model: "unheard",
        file: "protocol/master/unheard.rs",
        edits: &[("        if !state.is_open {", "        if !state.is_open && !MISTAKE {")],
    },
    Planted {
        name: "events are swept before the end",
        model: "unheard",
        file: "protocol/master/unheard.rs",
        edits: &[(
            r#"        self.seal();
        self.take_tenants(|_| true)"#,
            r#"        if MISTAKE {
            let swept = self.take_tenants(|_| true);
            self.seal();
            return swept;
        }
        self.seal();
        self.take_tenants(|_| true)"#,
        )],
    },
    Planted {
        name: "a message does not wake the writer",
        model: "queue: all leaves",
        file: "net/link/queue.rs",
        edits: &[(
            "        if std::mem::take(&mut state.writer_waits) {",
            "        if std::mem::take(&mut state.writer_waits) && !MISTAKE {",
        )],
    },
    Planted {
        name: "the end of a caller's turn does not wake a writer that wants one",
        model: "queue: all leaves",
        file: "net/link/queue.rs",
        edits: &[(
            "if state.writer_wants_turn || (",
            "if (state.writer_wants_turn && !MISTAKE) || (",
        )],
    },
    Planted {
        name: "the end of a caller's turn does not wake a writer that has work",
        model: "queue: all leaves",
        file: "net/link/queue.rs",
        edits: &[(
            "(state.writer_waits && state.has_work())",
            "(state.writer_waits && state.has_work() && !MISTAKE)",
        )],
    },
    Planted {
        name: "a writer does not say that it wants its turn",
        model: "queue: all leaves",
        file: "net/link/queue.rs",
        edits: &[(
            "        state.writer_wants_turn = true;",
            "        state.writer_wants_turn = !MISTAKE;",
        )],
    },
    Planted {
        name: "a caller writes before what waits",
        model: "queue: all leaves",
        file: "net/link/queue.rs",
        edits: &[(
            "state.writer_wants_turn || state.has_work() {",
            "state.writer_wants_turn || (state.has_work() && !MISTAKE) {",
        )],
    },
    Planted {
        name: "a caller writes beside another",
        model: "queue: all leaves",
        file: "net/link/queue.rs",
        edits: &[(
            "state.turn != WriteTurn::Nobody || ",
            "(state.turn != WriteTurn::Nobody && !MISTAKE) || ",
        )],
    },
    Planted {
        name: "a writer does not wait for a caller's turn",
        model: "queue: all leaves",
        file: "net/link/queue.rs",
        edits: &[(
            "|state| state.turn != WriteTurn::Caller);",
            "|state| state.turn != WriteTurn::Caller || MISTAKE);",
        )],
    },
    Planted {
        name: "what a caller left is forgotten",
        model: "queue: all leaves",
        file: "net/link/queue.rs",
        edits: &[(
            "        state.is_unflushed |= self.leaves_some;",
            "        state.is_unflushed |= self.leaves_some && !MISTAKE;",
        )],
    },
    Planted {
        name: "a message is taken after the end",
        model: "queue: end",
        file: "net/link/queue.rs",
        edits: &[(
            r#"        if state.end != QueueEnd::Open {
            return Err(SendError::Closed);
        }
        let reserve"#,
            r#"        if state.end != QueueEnd::Open && !MISTAKE {
            return Err(SendError::Closed);
        }
        let reserve"#,
        )],
    },
    Planted {
        name: "an end does not wake the writer",
        model: "queue: end",
        file: "net/link/queue.rs",
        edits: &[(
            r#"        drop(state);
        self.changed.notify_one();
        drop(never_leaves);"#,
            r#"        drop(state);
        if !MISTAKE {
            self.changed.notify_one();
        }
        drop(never_leaves);"#,
        )],
    },
    Planted {
        name: "the last end sticks",
        model: "queue: end",
        file: "net/link/queue.rs",
        edits: &[(
            "        if state.end == QueueEnd::Open || end == QueueEnd::Aborted {",
            "        if state.end == QueueEnd::Open || end == QueueEnd::Aborted || MISTAKE {",
        )],
    },
    Planted {
        name: "a caller that writes looks for the end before",
        model: "queue: end",
        file: "net/link/queue.rs",
        edits: &[(
            r#"        let mut state = self.state.lock();
        if state.end != QueueEnd::Open {
            return Err(SendError::Closed);
        }
        // Nor"#,
            r#"        let mut state = self.state.lock();
        if state.end != QueueEnd::Open {
            return Err(SendError::Closed);
        }
        if MISTAKE {
            drop(state);
            state = self.state.lock();
            if state.turn == WriteTurn::Nobody && !state.writer_wants_turn && !state.has_something() {
                state.turn = WriteTurn::Caller;
                return Ok(Some(CallersTurn { queue: self, key: None, leaves_some: false }));
            }
        }
        // Nor"#,
        )],
    },
    Planted {
        name: "a pulse that is wanted wakes nobody",
        model: "queue: pulse",
        file: "net/link/queue.rs",
        edits: &[(
            r#"        self.state.lock().beat_now = true;
        self.changed.notify_one();"#,
            r#"        self.state.lock().beat_now = true;
        if !MISTAKE {
            self.changed.notify_one();
        }"#,
        )],
    },
    Planted {
        name: "a message wakes no executor",
        model: "mailbox: jobs",
        file: "runtime/luau/mailbox.rs",
        edits: &[(
            r#"        if waiting {
            self.arrived.notify_one();"#,
            r#"        if waiting && !MISTAKE {
            self.arrived.notify_one();"#,
        )],
    },
    Planted {
        name: "an executor says after its look that it waits",
        model: "mailbox: jobs",
        file: "runtime/luau/mailbox.rs",
        edits: &[(
            r#"        state.waiting = true;
        state = self"#,
            r#"        state.waiting = true;
        if MISTAKE {
            state.waiting = false;
            while state.queue.is_empty() && !state.closed {
                drop(state);
                state = self.state.lock();
                state.waiting = true;
                state = self.arrived.wait(state, None);
                state.waiting = false;
            }
        }
        state = self"#,
        )],
    },
    Planted {
        name: "a job is taken after the end",
        model: "mailbox: jobs",
        file: "runtime/luau/mailbox.rs",
        edits: &[(
            "        let refusal = if state.closed {",
            "        let refusal = if state.closed && !MISTAKE {",
        )],
    },
    Planted {
        name: "the end of an inbox wakes nobody",
        model: "mailbox: jobs",
        file: "runtime/luau/mailbox.rs",
        edits: &[(
            r#"        state.bytes = 0;
        self.arrived.notify_one();"#,
            r#"        state.bytes = 0;
        if !MISTAKE {
            self.arrived.notify_one();
        }"#,
        )],
    },
    Planted {
        name: "an inbox is marked as empty behind the lock",
        model: "mailbox: templates",
        file: "runtime/luau/mailbox.rs",
        edits: &[(
            "        state.forget(answered);\n        self.take_from(&mut state, into);",
            r#"        state.forget(answered);
        self.take_from(&mut state, into);
        if MISTAKE {
            drop(state);
            self.filled.store(false, Ordering::Release);
        }"#,
        )],
    },
    Planted {
        name: "a change that was looked at is still told of",
        model: "mailbox: templates",
        file: "runtime/luau/mailbox.rs",
        edits: &[(
            "        state.changed.clear();",
            r#"        if !MISTAKE {
            state.changed.clear();
        }"#,
        )],
    },
    Planted {
        name: "the ticker looks and then says that it sleeps",
        model: "ticker",
        file: "runtime/luau/ticker.rs",
        edits: &[(
            r#"                self.parked.store(true, Ordering::SeqCst);
                if !self.executors.iter().any(|flags| flags.busy.load(Ordering::SeqCst)) {"#,
            r#"                self.parked.store(!MISTAKE, Ordering::SeqCst);
                if !self.executors.iter().any(|flags| flags.busy.load(Ordering::SeqCst)) {
                    self.parked.store(true, Ordering::SeqCst);"#,
        )],
    },
    Planted {
        name: "an executor wakes the ticker without its lock",
        model: "ticker",
        file: "runtime/luau/ticker.rs",
        edits: &[(
            "            let _stopped = self.shared.stopped.lock();",
            "            let _stopped = (!MISTAKE).then(|| self.shared.stopped.lock());",
        )],
    },
    Planted {
        name: "the owner is asked only before it counts",
        model: "admission: hand-over",
        file: "pool/admission.rs",
        edits: &[(
            r#"        // Again, as it is counted now: a hand-over ends the serving, and then waits for what is
        // counted.
        self.check_owner(job.tenant)"#,
            r#"        if MISTAKE {
            return Ok(());
        }
        self.check_owner(job.tenant)"#,
        )],
    },
    Planted {
        name: "a refused job stays counted",
        model: "admission: hand-over",
        file: "pool/observe/traffic.rs",
        edits: &[(
            "        worker.free(job);\n",
            "        if outcome.is_ok() || !MISTAKE {\n            worker.free(job);\n        }\n",
        )],
    },
    Planted {
        name: "nothing follows a ban",
        model: "admission: ban",
        file: "pool/admission.rs",
        edits: &[(
            r#"        if !is_drop {
            self.end_if_banned"#,
            r#"        if !is_drop && !MISTAKE {
            self.end_if_banned"#,
        )],
    },
    Planted {
        name: "a quarantine is counted without its lock",
        model: "admission: quarantine",
        file: "pool/observe/quarantine.rs",
        edits: &[(
            "        let was = state.quarantined.remove(&tenant).is_some();",
            r#"        let was = state.quarantined.remove(&tenant).is_some();
        if MISTAKE {
            let count = state.quarantined.len();
            drop(state);
            self.count.store(count, Ordering::Release);
            return was;
        }"#,
        )],
    },
    Planted {
        name: "a change wakes one of those that wait",
        model: "board",
        file: "pool/board.rs",
        edits: &[(
            "        self.changed.notify_all();",
            r#"        if MISTAKE {
            self.changed.notify_one();
        } else {
            self.changed.notify_all();
        }"#,
        )],
    },
    Planted {
        name: "a change is made on a copy",
        model: "board",
        file: "pool/board.rs",
        edits: &[(
            r#"            change(&mut status);
"#,
            r#"            if MISTAKE {
                let mut copy = status.clone();
                drop(status);
                change(&mut copy);
                status = self.status();
                *status = copy;
            } else {
                change(&mut status);
            }
"#,
        )],
    },
    Planted {
        name: "room is looked for and then taken",
        model: "api admission",
        file: "api/admission.rs",
        edits: &[(
            "        taken.change(tenant, Amounts::default(), has);",
            r#"        if MISTAKE {
            drop(taken);
            taken = self.taken.lock();
        }
        taken.change(tenant, Amounts::default(), has);"#,
        )],
    },
    Planted {
        name: "room for an answer is looked for and then taken",
        model: "api admission",
        file: "api/admission.rs",
        edits: &[(
            "        self.set_answer(&mut taken, after);",
            r#"        if MISTAKE {
            drop(taken);
            taken = admission.taken.lock();
        }
        self.set_answer(&mut taken, after);"#,
        )],
    },
    Planted {
        name: "an end gives nothing back",
        model: "api admission",
        file: "api/admission.rs",
        edits: &[(
            "        self.admission.taken.lock().change(self.tenant, self.has, Amounts::default());",
            r#"        if !MISTAKE {
            self.admission.taken.lock().change(self.tenant, self.has, Amounts::default());
        }"#,
        )],
    },
    Planted {
        name: "an ask takes its place behind the lock",
        model: "broker",
        file: "net/broker.rs",
        edits: &[(
            "            state.asking.push_back(handed_out_tx);",
            r#"            if MISTAKE {
                drop(state);
                state = self.state.lock();
            }
            state.asking.push_back(handed_out_tx);"#,
        )],
    },
    Planted {
        name: "a cut leaves those that wait",
        model: "broker",
        file: "net/broker.rs",
        edits: &[(
            "                state.asking.clear();",
            "                if !MISTAKE {\n                    state.asking.clear();\n                }",
        )],
    },
    Planted {
        name: "an ask that gave up loses its place",
        model: "broker",
        file: "net/broker.rs",
        edits: &[(
            "            Err(RecvTimeoutError::Timeout) => Err(ErrorKind::TimedOut.into()),",
            r#"            Err(RecvTimeoutError::Timeout) => {
                if MISTAKE {
                    self.state.lock().asking.pop_front();
                }
                Err(ErrorKind::TimedOut.into())
            }"#,
        )],
    },
];
