//! The status page in a browser, over a real master with two workers: what it shows, what its
//! buttons do, by mouse and by keyboard, and what it says when nobody answers.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use mesophyll::api::token::{Secret, mint};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::binary::{Master, SECRET, get_with, post, token};
use crate::support::browser::{Browser, from_base64, program};
use crate::support::process::{eventually, signal, workers_of};
use crate::support::skip::skipped;

/// A tenant that lives on the worker with this number, of two.
const ON_WORKER: [&str; 2] = ["guild/8388608", "guild/4194304"];

/// A master, and a browser that shows its page.
struct Scene {
    master: Master,
    browser: Browser,
}

impl Scene {
    /// `None` without a browser, which is said loudly.
    fn start(test: &str, args: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            skipped(test, "set MESOPHYLL_TEST_CHROMIUM to a Chromium");
            return None;
        };
        let master = Master::start(args);
        master.wait_ready();
        let mut browser = Browser::start(program);
        browser.resize(1360, 900);
        browser.open(&format!("http://{}/", master.api()));
        Some(Self { master, browser })
    }

    /// Types a token and presses Enter.
    fn enter(&mut self, token: &str) {
        self.browser.wait("the field has the focus", "document.activeElement.id === 'token'");
        self.browser.evaluate("document.activeElement.select()");
        self.browser.type_text(token);
        self.browser.press("Enter");
    }

    fn sign_in(&mut self) {
        self.enter(&token(7));
        self.browser.wait(
            "the workers are there",
            "document.querySelectorAll('#workers tbody tr').length === 2",
        );
    }

    /// The text of one of a worker's cells, by its column.
    fn cell(&mut self, worker: usize, column: &str) -> String {
        self.browser.text(&format!("#workers tr[data-key='{worker}'] [data-label='{column}']"))
    }

    fn wait_state(&mut self, worker: usize, state: &str) {
        self.browser
            .wait_text(&format!("#workers tr[data-key='{worker}'] [data-label='State']"), state);
    }

    fn button(&mut self, label: &str) -> String {
        format!("button[aria-label={label:?}]")
    }

    /// Clicks a button and waits for the question that it asks.
    fn ask(&mut self, selector: &str, title: &str) {
        self.browser.click(selector, 1);
        self.browser.wait("the question is asked", "document.getElementById('ask').open");
        assert_eq!(self.browser.text("#ask-title"), title);
        assert_eq!(
            self.browser.evaluate("document.activeElement.id"),
            "ask-cancel",
            "nothing is done by mistake"
        );
    }

    fn wait_closed(&mut self) {
        self.browser.wait("the dialog is closed", "!document.getElementById('ask').open");
    }

    #[track_caller]
    fn expect_no_problems(&mut self) {
        let problems = self.browser.problems();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}

/// Texts whose contrast with what lies behind them is too low, by the rule of WCAG; disabled
/// buttons are excepted there, too.
const LOW_CONTRAST: &str = r#"(() => {
    const rgb = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
    const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ({ r, g, b }) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = rgb(getComputedStyle(at).backgroundColor);
            if (color.a === 1) return color;
        }
        throw new Error("the page has no colour");
    };
    const found = [];
    let seen = 0;
    for (const element of document.querySelectorAll("body *")) {
        const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "");
        if (!says || element.disabled || element.closest("script, style, noscript, svg") || element.getClientRects().length === 0) continue;
        seen += 1;
        const [one, two] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
        const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        if (ratio < 4.5) found.push(`${element.tagName} ${element.className} ${element.textContent}: ${ratio.toFixed(2)}`);
    }
    return seen > 30 ? found : ["there is nearly no text"];
})()"#;

/// Cells of tables that are so narrow that their text stands letter by letter.
const NARROW_CELLS: &str = "[...document.querySelectorAll('tbody td, tbody th')].filter((cell) => \
    cell.textContent.trim() !== '' && cell.getClientRects().length > 0 && cell.getBoundingClientRect().width < 60)\
    .map((cell) => `${cell.dataset.label}: ${cell.textContent}`)";

/// How many colours a picture has, and how light it is on the whole, from 0 to 255; counted by the
/// page's own canvas.
fn colours(browser: &mut Browser, picture: &str) -> (u64, f64) {
    let counted = browser.evaluate(&format!(
        r#"new Promise((done, fail) => {{
            const image = new Image();
            image.onerror = fail;
            image.onload = () => {{
                const canvas = document.createElement("canvas");
                [canvas.width, canvas.height] = [image.width, image.height];
                const context = canvas.getContext("2d");
                context.drawImage(image, 0, 0);
                const data = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
                let sum = 0;
                for (const pixel of data) sum += (pixel >> 8) & 255;
                done([new Set(data).size, sum / data.length]);
            }};
            image.src = "data:image/png;base64,{picture}";
        }})"#
    ));
    (counted[0].as_u64().expect("a number"), counted[1].as_f64().expect("a number"))
}

/// Kills worker 0 while it runs an event of its tenant's, which is enough with `--quarantine-after
/// 1`.
fn quarantine(master: &Master) {
    master.wait_ready();
    let wait = r#"{"mark":"last","seconds":20}"#;
    assert_eq!(master.dispatch_with(ON_WORKER[0], "WAIT", wait, "?nowait").0, 202);
    master.running.wait_stderr("waiting last");
    signal(workers_of(master.pid())[&0], Signal::KILL);
}

/// Leaves a picture where whoever changes the page can look at it.
fn keep(name: &str, picture: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status-page");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), from_base64(picture)).expect("written");
}

#[test]
fn the_page_shows_all_and_runs_no_text_of_a_tenant() {
    let test = "the_page_shows_all_and_runs_no_text_of_a_tenant";
    let Some(mut scene) = Scene::start(test, &[]) else { return };
    scene.enter("not a token");
    scene.browser.wait_text("#gate-reason", "not a token");
    scene.enter(&format!("7.99999999999.{}", "0".repeat(64)));
    scene.browser.wait_text("#gate-reason", "The token is not valid.");
    assert_eq!(scene.browser.evaluate("document.getElementById('board').hidden"), true);
    scene.sign_in();
    for worker in [0, 1] {
        scene.wait_state(worker, "ready");
        let pid = scene.cell(worker, "Pid");
        assert_eq!(pid, workers_of(scene.master.pid())[&worker].to_string());
    }
    let hostile = "<img src=x onerror=document.title='owned'>\u{202e}\u{7}";
    for _ in 0..20 {
        assert_eq!(scene.master.dispatch(ON_WORKER[0], "ECHO", "1").0, 200);
        assert_eq!(scene.master.dispatch(ON_WORKER[1], "FAIL", "1").0, 422);
    }
    let script =
        serde_json::json!({ "name": hostile, "code": "error('<b>bold</b>')", "data": null })
            .to_string();
    let path = format!("/i/run-script/{}", ON_WORKER[1]);
    assert_eq!(post(scene.master.api(), &path, &token(7), &script).0, 422);
    let browser = &mut scene.browser;
    browser.wait_text("#busiest tbody", "guild:8388608");
    browser.wait_text("#errors tbody", "on purpose");
    browser.wait_text("#errors tbody", "<b>bold</b>");
    let shown = browser.text("#errors [data-label='Event']");
    assert_eq!(shown, "<img src=x onerror=document.title='owned'>⟨U+202E⟩⟨U+0007⟩");
    assert_eq!(
        browser.evaluate("document.querySelectorAll('img, b, script:not([nonce])').length"),
        0
    );
    let folded = "[...document.querySelectorAll('#errors tbody tr')].some((row) => row.textContent.includes('FAIL') && \
        row.querySelector('[data-label=Times]').textContent === '20')";
    browser.wait("the same errors are one line", folded);
    // The window of the rates may have gone on since; whoever looks in time sees them.
    for (worker, event, column) in
        [(0, "ECHO", "Events/s"), (0, "ECHO", "p50"), (1, "FAIL", "Failures/s")]
    {
        eventually("the rates are shown", || {
            scene.master.dispatch(ON_WORKER[worker], event, "1");
            let text = scene.cell(worker, column);
            text.starts_with(|char: char| ('1'..='9').contains(&char) || text.starts_with("0."))
                .then_some(())
        });
    }
    scene.browser.wait(
        "the charts have lines",
        "document.querySelectorAll('.chart path[d^=M]').length >= 6",
    );
    scene.expect_no_problems();
}

#[test]
fn the_page_is_legible_in_both_schemes_and_on_a_phone() {
    let test = "the_page_is_legible_in_both_schemes_and_on_a_phone";
    let Some(mut scene) = Scene::start(test, &[]) else { return };
    scene.sign_in();
    scene.master.dispatch(
        ON_WORKER[0],
        "A_NAME_OF_AN_EVENT_THAT_IS_LONGER_THAN_ANY_THAT_DISCORD_HAS_SO_FAR",
        "1",
    );
    scene.master.dispatch(ON_WORKER[1], "FAIL", "1");
    for number in 0..40 {
        let script =
            format!(r#"{{"name":"script {number}","code":"error('on purpose {number}')"}}"#);
        assert_eq!(
            post(
                scene.master.api(),
                &format!("/i/run-script/{}", ON_WORKER[1]),
                &token(7),
                &script
            )
            .0,
            422
        );
    }
    scene
        .browser
        .wait("the errors are shown", "document.querySelectorAll('#errors tbody tr').length > 40");
    let mut light = Vec::new();
    for scheme in ["light", "dark"] {
        scene.browser.prefer(scheme);
        for (width, height) in [(1360, 900), (360, 740)] {
            scene.browser.resize(width, height);
            let scrolls = scene.browser.evaluate("document.scrollingElement.scrollWidth");
            assert_eq!(scrolls, width, "it scrolls sideways at {width} px");
            assert_eq!(
                scene.browser.evaluate(LOW_CONTRAST),
                Value::Array(vec![]),
                "{scheme} {width}"
            );
            let picture = scene.browser.picture();
            keep(&format!("{scheme}-{width}.png"), &picture);
            let (colours, lightness) = colours(&mut scene.browser, &picture);
            assert!(colours > 50, "{colours} colours: nothing is drawn");
            light.push(lightness);
        }
    }
    for width in [390, 360] {
        scene.browser.resize(width, 844);
        assert_eq!(scene.browser.evaluate(NARROW_CELLS), Value::Array(vec![]), "{width}");
        let height = scene
            .browser
            .evaluate("document.scrollingElement.scrollHeight")
            .as_u64()
            .expect("a number");
        assert!(height < 3000, "{height} px high at {width} px");
    }
    assert!(
        light[0] > 200.0 && light[1] > 200.0 && light[2] < 60.0 && light[3] < 60.0,
        "{light:?}"
    );
    // The same of what is seen before, and of a question.
    scene.ask("#roll", "Restart all 2 workers, one by one?");
    assert_eq!(scene.browser.evaluate("document.scrollingElement.scrollWidth"), 360);
    assert_eq!(scene.browser.evaluate(LOW_CONTRAST), Value::Array(vec![]));
    scene.expect_no_problems();
}

#[test]
fn a_page_just_opened_shows_the_minutes_before_it() {
    let Some(mut scene) = Scene::start("a_page_just_opened_shows_the_minutes_before_it", &[])
    else {
        return;
    };
    assert_eq!(scene.master.dispatch(ON_WORKER[0], "ECHO", "1").0, 200);
    eventually("the master has kept three samples", || {
        let (_, body) = get_with(scene.master.api(), "/i/status?history", &token(7));
        let status: Value = serde_json::from_str(&body).expect("JSON");
        (status["history"].as_array().expect("a list").len() >= 3).then_some(())
    });
    scene.sign_in();
    // The chart is 300 wide for five minutes; a page without a past begins its line at the right
    // edge.
    let first = "Number(document.querySelector('.chart path:not(.area)').getAttribute('d').match(/^M([\\d.]+)/)[1])";
    let begins = scene.browser.evaluate(first).as_f64().expect("a number");
    assert!(begins < 296.0, "it begins at {begins}");
    scene.expect_no_problems();
}

#[test]
fn its_buttons_ask_first_and_do_it_once() {
    let Some(mut scene) =
        Scene::start("its_buttons_ask_first_and_do_it_once", &["--quarantine-after", "1"])
    else {
        return;
    };
    scene.sign_in();
    let before = workers_of(scene.master.pid());
    let kill = scene.button("Kill worker 1");
    scene.ask(&kill, "Kill worker 1?");
    scene.browser.click("#ask-cancel", 1);
    scene.wait_closed();
    scene.ask(&kill, "Kill worker 1?");
    scene.browser.press("Escape");
    scene.wait_closed();
    assert_eq!(
        scene.browser.evaluate("document.activeElement.getAttribute('aria-label')"),
        "Kill worker 1"
    );
    assert_eq!(workers_of(scene.master.pid()), before, "cancelled twice");
    scene.ask(&kill, "Kill worker 1?");
    assert!(
        scene.browser.text("#ask-text").contains("fail at once"),
        "what happens to its tenants' events"
    );
    // The event of a closed dialog may come when the next question is asked already; that one is
    // still answered.
    let asked_again = scene.browser.evaluate(&format!(
        "new Promise((done) => {{ const ask = document.getElementById('ask'); \
         ask.addEventListener('close', () => done(ask.open), {{once: true}}); \
         ask.close(); document.querySelector({kill:?}).click(); }})"
    ));
    assert_eq!(asked_again, true, "the question was asked before the event came");
    scene.browser.click("#ask-go", 1);
    scene.wait_closed();
    scene.wait_state(1, "stopped");
    scene.browser.wait_text("#workers-summary", "1 ready, 1 stopped");
    scene.browser.wait_text("#notice", "Worker 1 was killed");
    assert!(!workers_of(scene.master.pid()).contains_key(&1));
    let start = scene.button("Start worker 1");
    scene.ask(&start, "Start worker 1?");
    scene.browser.click("#ask-go", 1);
    scene.wait_state(1, "ready");
    // A double click opens the dialog and answers nothing, also if its second half falls on the
    // answer.
    scene.browser.click("#roll", 2);
    scene.browser.evaluate(
        "document.getElementById('ask-go').dispatchEvent(new MouseEvent('click', {detail: 2}))",
    );
    assert_eq!(scene.browser.evaluate("document.getElementById('ask').open"), true);
    assert_eq!(scene.browser.text("#ask-go"), "Restart all");
    // Whoever presses again and again restarts them once.
    scene
        .browser
        .evaluate("for (let at = 0; at < 5; at++) document.getElementById('ask-go').click()");
    scene.wait_closed();
    scene.browser.wait_text("#rolling", "Last rolling restart: 2 of 2 restarted");
    let rolled = scene
        .browser
        .requests()
        .iter()
        .filter(|sent| sent["url"].to_string().contains("/i/rolling"))
        .count();
    assert_eq!(rolled, 1);
    let after = workers_of(scene.master.pid());
    assert!([0, 1].iter().all(|id| after[id] != before[id]), "{before:?} {after:?}");
    quarantine(&scene.master);
    scene.browser.wait_text("#quarantine tbody", "guild:8388608");
    let lift = scene.button("Lift the quarantine of guild:8388608");
    // Somebody else is faster: the dialog says what the master answered, and stays.
    scene.ask(&lift, "Lift the quarantine of guild:8388608?");
    let path = format!("/i/quarantine/lift/{}", ON_WORKER[0]);
    assert_eq!(post(scene.master.api(), &path, &token(7), "").0, 204);
    scene.browser.click("#ask-go", 1);
    scene.browser.wait_text("#ask-reason", "The tenant is not quarantined.");
    scene.browser.wait_text("#quarantine-summary", "No tenant is quarantined.");
    scene.browser.press("Escape");
    scene.wait_closed();
    quarantine(&scene.master);
    scene.browser.wait_text("#quarantine tbody", "guild:8388608");
    scene.ask(&lift, "Lift the quarantine of guild:8388608?");
    scene.browser.click("#ask-go", 1);
    scene.browser.wait_text("#notice", "guild:8388608 is no longer quarantined.");
    scene.browser.wait_text("#quarantine-summary", "No tenant is quarantined.");
    scene.wait_state(0, "ready");
    assert_eq!(scene.master.dispatch(ON_WORKER[0], "CALLS", "1"), (200, 1.into()));
    let drop = scene.button("Drop guild:8388608");
    scene.browser.wait("it is among the busiest", &format!("document.querySelector('{drop}')"));
    scene.ask(&drop, "Drop guild:8388608?");
    scene.browser.click("#ask-go", 1);
    scene.browser.wait_text("#notice", "guild:8388608 was dropped.");
    assert_eq!(
        scene.master.dispatch(ON_WORKER[0], "CALLS", "1"),
        (200, 1.into()),
        "a new VM counts from one"
    );
    scene.expect_no_problems();
}

#[test]
fn the_keyboard_is_enough_and_the_token_is_in_memory_only() {
    let Some(mut scene) =
        Scene::start("the_keyboard_is_enough_and_the_token_is_in_memory_only", &[])
    else {
        return;
    };
    scene.sign_in();
    let focused = |scene: &mut Scene| {
        let name = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()";
        scene.browser.evaluate(name).as_str().expect("a name").to_owned()
    };
    let mut seen = Vec::new();
    for _ in 0..6 {
        scene.browser.press("Tab");
        assert_eq!(
            scene.browser.evaluate("document.activeElement.matches(':focus-visible')"),
            true,
            "{seen:?}"
        );
        let outline = "getComputedStyle(document.activeElement).outlineStyle";
        assert_eq!(scene.browser.evaluate(outline), "solid", "what has the focus shows it");
        seen.push(focused(&mut scene));
    }
    let order = [
        "Restart all, one by one…",
        "Table of workers",
        "Restart worker 0",
        "Kill worker 0",
        "Restart worker 1",
        "Kill worker 1",
    ];
    assert_eq!(seen, order);
    // Back and forth again: nothing holds the focus.
    for key in ["Shift+Tab", "Shift+Tab", "Tab", "Tab"] {
        scene.browser.press(key);
    }
    assert_eq!(focused(&mut scene), order[5]);
    scene.browser.press("Enter");
    scene.browser.wait("the question is asked", "document.getElementById('ask').open");
    scene.browser.press("Tab");
    assert_eq!(focused(&mut scene), "Kill worker 1");
    scene.browser.press("Enter");
    scene.wait_state(1, "stopped");
    scene.wait_closed();
    let everywhere = "JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage}, \
        history.state, window.name, document.documentElement.outerHTML, \
        [...document.querySelectorAll('input')].map((input) => input.value)])";
    let kept = scene.browser.evaluate(everywhere);
    let signature = token(7).rsplit('.').next().expect("a signature").to_owned();
    assert!(!kept.to_string().contains(&signature), "{kept}");
    for request in scene.browser.requests() {
        assert!(!request["url"].to_string().contains(&signature), "{request}");
        let is_ours = request["url"].as_str().is_some_and(|url| {
            url.starts_with(&format!("http://{}/", scene.master.api()))
                || url.starts_with("data:")
                || url == "about:blank"
        });
        assert!(is_ours, "{request}");
    }
    scene.browser.click("#sign-out", 1);
    scene.browser.wait("the field is back", "document.activeElement.id === 'token'");
    assert_eq!(
        scene.browser.evaluate("document.querySelectorAll('tbody tr').length"),
        0,
        "nothing stays behind"
    );
    let asked = scene.browser.requests().len();
    scene.browser.evaluate("new Promise((done) => setTimeout(done, 2500))");
    assert_eq!(scene.browser.requests().len(), asked, "nobody is asked any more");
    scene.expect_no_problems();
}

#[test]
fn an_unanswering_master_is_told_with_the_age_of_the_data() {
    let test = "an_unanswering_master_is_told_with_the_age_of_the_data";
    let Some(mut scene) = Scene::start(test, &[]) else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    // Long enough for a busy machine to show the workers before it has expired.
    let short = mint(&Secret::new(SECRET.as_bytes().to_vec()).expect("long enough"), 7, now + 15);
    scene.enter(&short);
    scene.browser.wait(
        "it is good for a moment",
        "document.querySelectorAll('#workers tbody tr').length === 2",
    );
    scene.browser.wait_text("#gate-reason", "The token has expired.");
    scene.sign_in();
    scene.browser.wait_text("#link-state", "Live");
    signal(scene.master.pid(), Signal::STOP);
    scene.browser.wait_text("#link-state", "Connection lost");
    scene.browser.wait(
        "the age grows",
        "/is ([6-9]|1\\d) s old/.test(document.getElementById('lost').textContent)",
    );
    let asked = "performance.getEntriesByType('resource').filter((entry) => entry.name.endsWith('/i/status')).length";
    let before = scene.browser.evaluate(asked).as_u64().expect("a number");
    signal(scene.master.pid(), Signal::CONT);
    scene.browser.wait_text("#link-state", "Live");
    assert_eq!(scene.browser.evaluate("document.getElementById('lost').hidden"), true);
    scene.browser.wait("it asks on", &format!("{asked} > {before}"));
    scene.expect_no_problems();
    let Scene { master, mut browser } = scene;
    let (stopped, _folder) = master.stop();
    stopped.expect(0, "");
    browser.wait_text("#link-state", "Connection lost");
    browser.wait_text("#lost", "the master does not answer");
    assert_eq!(browser.most_at_once("/i/status"), 1);
    assert_eq!(browser.text("title"), "Mesophyll: connection lost");
}
