//! Many more tenants than a worker may have VMs, touched in turn: memory stays where the cap put
//! it, and the last tenant is served as fast as the first.
//!
//! With `MESOPHYLL_SCALE_TENANTS` and `MESOPHYLL_SCALE_VMS` the figures are other ones, and are
//! printed.

use std::io::Write as _;

use crate::support::TempDir;
use crate::support::binary::{Running, mesophyll, write};

fn figure(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Memory of a process, in KiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// What it has asked for, stacks and all.
    mapped: u64,
    /// What of that it has touched.
    resident: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let kib = |name: &str| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells it");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Self { mapped: kib("VmData:"), resident: kib("VmRSS:") }
    }
}

/// The middle of some times in ms.
fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
fn memory_is_bounded_and_the_last_tenant_is_served_fast() {
    let tenants = figure("MESOPHYLL_SCALE_TENANTS", 6000);
    let vms = figure("MESOPHYLL_SCALE_VMS", 300);
    let folder = TempDir::new();
    let template =
        "local kept = {} return function(ctx) kept[#kept + 1] = ctx:event().data return #kept end";
    write(folder.path(), "main.luau", template);
    let (templates, max_vms) = (folder.path().to_str().expect("a name in UTF-8"), vms.to_string());
    let replay = [
        "replay",
        "-",
        "--mode",
        "thread-pool",
        "--workers",
        "1",
        "--executors",
        "1",
        "--in-flight",
        "1",
    ];
    let options = ["--templates", templates, "--max-vms", &max_vms];
    let (running, mut stdin) = Running::start_open(mesophyll(&[&replay[..], &options].concat()));

    let (mut times, mut memory) = (Vec::with_capacity(tenants), Vec::new());
    for number in 1..=tenants {
        // One at a time, so that the process is where its figures say, and there.
        writeln!(
            stdin,
            r#"{{"tenant":"guild:{}","name":"E","data":{{"content":"hello"}}}}"#,
            (number - 1) << 22
        )
        .expect("it reads");
        let line: serde_json::Value = serde_json::from_str(&running.next_line()).expect("JSON");
        assert_eq!(line["ok"], 1, "{line}");
        times.push(line["ms"].as_f64().expect("a time"));
        if number % (vms / 10).max(1) == 0 {
            memory.push((number, Memory::of(running.pid())));
        }
    }
    drop(stdin);
    running.wait().expect(0, "failures: 0");
    let at =
        |wanted: usize| memory.iter().find(|(number, _)| *number >= wanted).expect("looked at").1;
    let (start, full, last) = (at(1), at(vms), at(tenants - vms / 10));
    let most = memory.iter().map(|(_, memory)| memory.resident).max().expect("looked at");
    let each = |from: u64, to: u64| (to - from) as f64 / (vms - vms / 10) as f64;
    // The start has its own costs, so what is compared is behind it.
    let (early, late) = (median(&times[vms / 10..vms]), median(&times[tenants - vms..]));
    let _ = writeln!(
        std::io::stderr(),
        "{tenants} tenants, {vms} VMs: {start:?}, at the cap {full:?} ({:.0} KiB mapped a VM, {:.0} resident), \
         at last {last:?}, at most {most} KiB resident; {early:.3} ms at first, {late:.3} ms at last",
        each(start.mapped, full.mapped),
        each(start.resident, full.resident),
    );
    // Nothing stays of a VM that is closed: the next ones live in what it was mapped for.
    let growth = last.mapped.saturating_sub(full.mapped);
    assert!(growth < (full.mapped - start.mapped) / 4, "{growth} KiB more are mapped: {memory:?}");
    // They touch other parts of it: a VM uses half of its pages, and not the same half as its
    // predecessor. So what is resident grows towards what is mapped, and stays there.
    assert!(most < full.resident * 3, "{memory:?}");
    assert!(most.saturating_sub(at(tenants * 3 / 4).resident) < full.resident / 5, "{memory:?}");
    assert!(late < early * 5.0 + 5.0, "{early} ms at first, {late} ms at last");
}
