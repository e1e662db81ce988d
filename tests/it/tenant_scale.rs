//! Many more tenants than a worker may have VMs, touched in turn: memory stays where the cap put it, and the last tenant is
//! served as fast as the first.
//!
//! With `MESOPHYLL_SCALE_TENANTS` and `MESOPHYLL_SCALE_VMS` the figures are other ones, and are printed.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::support::TempDir;
use crate::support::binary::{Running, mesophyll, write};

fn figure(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Memory that a process has in use now, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The middle of some times in ms.
fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
fn memory_is_bounded_and_the_last_tenant_is_served_as_fast_as_the_first() {
    let tenants = figure("MESOPHYLL_SCALE_TENANTS", 6000);
    let vms = figure("MESOPHYLL_SCALE_VMS", 300);
    let folder = TempDir::new();
    let template = "local kept = {} return function(ctx) kept[#kept + 1] = ctx:event().data return #kept end";
    write(folder.path(), "main.luau", template);
    let mut input = String::new();
    for number in 0..tenants {
        let _ = writeln!(input, r#"{{"tenant":"guild:{}","name":"E","data":{{"content":"hello"}}}}"#, number << 22);
    }
    let (templates, max_vms) = (folder.path().to_str().expect("a name in UTF-8"), vms.to_string());
    let replay = ["replay", "-", "--mode", "thread-pool", "--workers", "1", "--executors", "1", "--in-flight", "1"];
    let options = ["--templates", templates, "--max-vms", &max_vms];
    let running = Running::start_on(mesophyll(&[&replay[..], &options].concat()), input);

    let (mut times, mut memory) = (Vec::with_capacity(tenants), Vec::new());
    for number in 1..=tenants {
        let line: serde_json::Value = serde_json::from_str(&running.next_line()).expect("JSON");
        assert_eq!(line["ok"], 1, "{line}");
        times.push(line["ms"].as_f64().expect("a time"));
        // The last ones not, for it may have ended.
        if number % (vms / 10).max(1) == 0 && number < tenants {
            memory.push((number, resident_kib(running.pid())));
        }
    }
    running.wait().expect(0, "failures: 0");
    let at = |wanted: usize| memory.iter().find(|(number, _)| *number >= wanted).expect("looked at").1;
    let (start, full) = (at(1), at(vms));
    let most = memory.iter().map(|(_, kib)| *kib).max().expect("looked at");
    let each = (full - start) as f64 / (vms - vms / 10) as f64;
    // The start has its own costs, so what is compared is behind it.
    let (early, late) = (median(&times[vms / 10..vms]), median(&times[tenants - vms..]));
    let _ = writeln!(
        std::io::stderr(),
        "{tenants} tenants, {vms} VMs: {start} KiB, at the cap {full} KiB ({each:.0} KiB a VM), at most {most} KiB; \
         {early:.3} ms at first, {late:.3} ms at last"
    );
    // Blocks that VMs leave behind are not all of a size that the next ones want, so it takes some time, and twice the
    // memory, until the allocator has found its level; then it stays there.
    assert!(most < full * 3, "{memory:?}");
    assert!(most.saturating_sub(at(tenants * 3 / 4)) < full / 5, "{memory:?}");
    assert!(late < early * 5.0 + 5.0, "{early} ms at first, {late} ms at last");
}
