//! A real browser without a window, driven through its debugging protocol: what a page is after its scripts ran.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::installed;

/// How long an answer may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    last: u64,
    /// What the browser reported since the start, besides answers.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts `chromium`; says on standard error that the test is skipped, and gives `None`, when there is none.
    pub fn start() -> Option<Self> {
        if !installed("chromium") {
            return None;
        }
        let profile = tempfile::tempdir().expect("a temporary directory");
        // The protocol is spoken on descriptors 3 and 4; nothing of it goes over a network.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
            --hide-scrollbars --remote-debugging-pipe --user-data-dir=\"$1\" about:blank 3<&0 4>&1 </dev/null >/dev/null";
        let mut process = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        let to = process.stdin.take().expect("piped");
        let out = process.stdout.take().expect("piped");
        let (sender, from) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("the protocol is JSON");
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser =
            Self { process, to, from, session: String::new(), last: 0, events: Vec::new(), _profile: profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let answer = self.next(method);
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn next(&mut self, waiting_for: &str) -> Value {
        match self.from.recv_timeout(PATIENCE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => panic!("the browser does not answer to {waiting_for}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the browser ended during {waiting_for}"),
        }
    }

    /// Shows a page in a window of this size and waits until it is loaded.
    pub fn open(&mut self, page: &Path, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        self.events.clear();
        self.ask("Page.navigate", json!({ "url": format!("file://{}", page.display()) }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.next("the page");
            self.events.push(event);
        }
    }

    /// Shows pages in the colours of the day or the night.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What an expression is in the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let result = self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Insists that the page complained of nothing and asked for nothing but itself.
    pub fn is_quiet(&mut self) {
        // Whatever was still to come has come when this is answered.
        self.eval("1");
        let mut requests = 0;
        for event in &self.events {
            match event["method"].as_str() {
                Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded") => {
                    panic!("the page complains: {event:#}")
                }
                Some("Network.requestWillBeSent") => {
                    let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
                    assert!(url.starts_with("file://") || url.starts_with("data:"), "the page asks for {url}");
                    requests += u32::from(url.starts_with("file://"));
                }
                _ => {}
            }
        }
        assert_eq!(requests, 1, "the page asks for another file");
    }

    /// Keeps a picture of the page in the directory that `AMPOULE_SCREENSHOTS` names, for people; else does nothing.
    pub fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("AMPOULE_SCREENSHOTS") else { return };
        let width = self.eval("innerWidth");
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": 2400, "scale": 1 });
        let options = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let shot = self.ask("Page.captureScreenshot", options);
        let bytes = data_encoding::BASE64.decode(shot["data"].as_str().unwrap_or_default().as_bytes());
        fs::create_dir_all(&directory).expect("the directory can be made");
        let file = PathBuf::from(directory).join(format!("{name}.png"));
        fs::write(file, bytes.expect("base64")).expect("a picture can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
