//! A headless Chromium of a test's own, driven over the DevTools protocol: one tab, what it
//! complains of, keys, pictures.
//!
//! Every wait has a deadline. `MESOPHYLL_TEST_CHROMIUM` names the program.

use std::ffi::OsString;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::binary::Running;
use super::process::eventually;
use super::{DEADLINE, TempDir};

/// How long it may take to close; then it is killed.
const CLOSING: Duration = Duration::from_secs(10);

/// The program, if this machine has one for tests.
pub(crate) fn program() -> Option<OsString> {
    std::env::var_os("MESOPHYLL_TEST_CHROMIUM").filter(|program| !program.is_empty())
}

/// A browser with one tab.
pub(crate) struct Browser {
    socket: WebSocket<TcpStream>,
    session: String,
    calls: u64,
    /// What the tab told of itself that nobody asked for.
    events: Vec<Value>,
    // Ends before its folder goes.
    _running: Running,
    _folder: TempDir,
}

impl Browser {
    /// Starts one, with a tab that tells of errors and violations from its first moment on.
    pub(crate) fn start(program: OsString) -> Self {
        let folder = TempDir::new();
        let mut command = Command::new(program);
        command.env("TMPDIR", folder.path());
        // Without a sandbox of its own, which root cannot have; it loads nothing but the page under
        // test.
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]);
        command.args([
            "--remote-debugging-port=0",
            "--force-device-scale-factor=1",
            "--hide-scrollbars",
            "--lang=en",
        ]);
        command
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg("about:blank");
        let running = Running::start(command);
        let line = running.wait_stderr("DevTools listening on ws://");
        let url = line.split(' ').next_back().expect("a URL").trim().to_owned();
        let address = url.trim_start_matches("ws://").split('/').next().expect("an address");
        let socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let socket = tungstenite::client::client(url.as_str(), socket).expect("a handshake").0;
        let (session, calls, events) = Default::default();
        let mut browser =
            Self { socket, session, calls, events, _running: running, _folder: folder };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and waits for its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            call["sessionId"] = self.session.clone().into();
        }
        self.socket.send(Message::text(call.to_string())).expect("the browser listens");
        loop {
            let message =
                self.socket.read().unwrap_or_else(|error| panic!("no answer to {method}: {error}"));
            let Message::Text(text) = message else { continue };
            let mut message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// Goes to an address.
    pub(crate) fn open(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({"url": url}));
        assert!(gone.get("errorText").is_none(), "{gone}");
        self.wait(
            "the page is there",
            &format!("document.readyState === 'complete' && location.href === '{url}'"),
        );
    }

    /// The value of an expression in the page; of a promise, what it comes to.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// A text of the page.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let found = self.evaluate(&format!("document.querySelector({selector:?}).textContent"));
        found.as_str().expect("a text").to_owned()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait(&mut self, what: &str, expression: &str) {
        let wanted = format!("Boolean({expression})");
        eventually(what, || (self.evaluate(&wanted) == true).then_some(()));
    }

    /// Waits until the text of an element contains this.
    pub(crate) fn wait_text(&mut self, selector: &str, text: &str) {
        let expression =
            format!("document.querySelector({selector:?})?.textContent.includes({text:?})");
        self.wait(&format!("{text:?} in {selector}"), &expression);
    }

    /// Clicks where an element is, so often in a row, as a mouse does: whatever covers it gets the
    /// click.
    pub(crate) fn click(&mut self, selector: &str, times: u32) {
        // The page goes on living: what is at a place may have moved by the time that the mouse is
        // there.
        self.evaluate(&format!(
            "(() => {{ if (!window.hits) document.addEventListener('click', (event) => {{ \
             if (event.target.closest?.(window.hits.selector)) window.hits.count++; }}, true); \
             window.hits = {{selector: {selector:?}, count: 0}}; }})()"
        ));
        for _ in 0..3 {
            self.click_once(selector, times);
            if self.evaluate("window.hits.count") != 0 {
                return;
            }
        }
    }

    fn click_once(&mut self, selector: &str, times: u32) {
        let place = self.evaluate(&format!(
            "(() => {{ const element = document.querySelector({selector:?}); element.scrollIntoView({{block: 'center'}}); \
             const {{x, y, width, height}} = element.getBoundingClientRect(); return [x + width / 2, y + height / 2]; }})()"
        ));
        for count in 1..=times {
            for kind in ["mousePressed", "mouseReleased"] {
                let (x, y) = (&place[0], &place[1]);
                let event =
                    json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": count});
                self.call("Input.dispatchMouseEvent", event);
            }
        }
    }

    /// Types a text into whatever is focused.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key: `Tab`, `Shift+Tab`, `Enter` or `Escape`.
    pub(crate) fn press(&mut self, key: &str) {
        let (modifiers, key) = key.strip_prefix("Shift+").map_or((0, key), |key| (8, key));
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            other => panic!("no such key here: {other}"),
        };
        for kind in ["rawKeyDown", "char", "keyUp"] {
            if kind != "char" || !text.is_empty() {
                let event = json!({
                    "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
                    "modifiers": modifiers,
                });
                self.call("Input.dispatchKeyEvent", event);
            }
        }
    }

    /// Sets the size of what is seen.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Prefers `dark` or `light` colours.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// A picture of what is seen, as PNG in Base64.
    pub(crate) fn picture(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        picture["data"].as_str().expect("a picture").to_owned()
    }

    /// Errors and warnings of the page so far: exceptions, lines of the console, violations of its
    /// policy. That a request was answered with an error, or not at all, is a matter of the test.
    pub(crate) fn problems(&mut self) -> Vec<String> {
        // Whatever happened before this answer has been told before it.
        self.evaluate("0");
        let is_problem = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["source"] != "network",
            _ => false,
        };
        self.events.iter().filter(is_problem).map(ToString::to_string).collect()
    }

    /// The addresses that the page has asked for so far, with their headers.
    pub(crate) fn requests(&mut self) -> Vec<Value> {
        self.evaluate("0");
        let sent =
            self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"].clone()).collect()
    }

    /// How many requests for addresses with this end were under way at once, at most.
    pub(crate) fn most_at_once(&mut self, end: &str) -> usize {
        self.evaluate("0");
        let (mut under_way, mut most) = (std::collections::BTreeSet::new(), 0);
        for event in &self.events {
            let id = event["params"]["requestId"].as_str().unwrap_or_default();
            match event["method"].as_str() {
                Some("Network.requestWillBeSent")
                    if event["params"]["request"]["url"]
                        .as_str()
                        .is_some_and(|url| url.ends_with(end)) =>
                {
                    under_way.insert(id);
                }
                Some("Network.loadingFinished" | "Network.loadingFailed") => {
                    under_way.remove(id);
                }
                _ => {}
            }
            most = most.max(under_way.len());
        }
        most
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to close it takes all its processes with it, and closes this socket as one of the
        // last things; killed it would leave some of them writing into its folder for a moment.
        let _ = self.socket.get_ref().set_read_timeout(Some(CLOSING));
        let _ = self.socket.send(Message::text(r#"{"id":0,"method":"Browser.close"}"#));
        while self.socket.read().is_ok() {}
    }
}

/// The bytes of Base64 without stray characters.
pub(crate) fn from_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=').bytes();
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        let value = ALPHABET.iter().position(|known| *known == digit).expect("Base64");
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
