//! `ctx.Timers`: what is asked of the database, and which errors there are.

use super::support::*;

#[test]
fn what_a_script_sets_is_what_it_lists() {
    let world = World::new();
    let code = "local ctx = ...
        local due = timestamp.from(4e9)
        local id = ctx.Timers:at(due, 'At', { when = due, big = integer.parse('9007199254740993') })
        local ids = {
            id,
            ctx.Timers:every(interval.from(90), 'Every'),
            ctx.Timers:every('0 9 * * 1-5', 'Cron', 'x'),
            ctx.Timers:after(60.5, 'After', null),
            ctx.Timers:after(interval.from(-5), 'Now'),
        }
        local found = {}
        for _, timer in ctx.Timers:list() do
            found[timer.name] = timer
            assert(table.find(ids, timer.id))
        end
        assert(found.At.due == due and found.At.data.when == due)
        assert(found.At.id == id and found.At.every == nil)
        assert(tostring(found.At.data.big) == '9007199254740993')
        assert(found.Now.due < found.After.due)
        return { #ids, found.Every.every, found.Cron.every, found.Cron.data, #id,
            ctx.Timers:cancel(id), ctx.Timers:cancel(id), #ctx.Timers:list() }";
    assert_eq!(world.ok(code), r#"[5,"90","0 9 * * 1-5","x",32,true,false,4]"#);
}

#[test]
fn what_will_not_do_is_an_error_at_the_scripts_line() {
    let world = World::new();
    let error = |call: &str| world.err(&format!("local ctx = ... ctx.Timers:{call}"));
    for (call, why) in [
        ("at('5', 'E')", "the time must be a timestamp, not string"),
        ("after('5', 'E')", "the time must be a number of seconds, not string"),
        ("after(0 / 0, 'E')", "the time must be a number of seconds"),
        ("every({}, 'E')", "the schedule must be a number of seconds, not table"),
        ("after(5)", "the event's name must be a string, not nil"),
        ("after(5, 'E', print)", "function"),
        ("after(5, 'E', string.rep('x', 2 ^ 14))", "16 KiB"),
        ("cancel({})", "the timer's id must be a string, not table"),
        ("cancle('x')", "ctx.Timers has no member 'cancle'"),
    ] {
        let error = error(call);
        assert!(error.contains(why) && error.contains(":1:"), "{call}: {error}");
    }
}
