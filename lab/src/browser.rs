//! A browser without a screen: Debian's Chromium, driven by the Chrome DevTools Protocol over a pair of pipes, so that it
//! listens nowhere. https://chromedevtools.github.io/devtools-protocol/

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command};

/// Debian's name of the program.
pub const PROGRAM: &str = "chromium";
/// How long an answer may take; a busy machine takes seconds to start a page.
const ANSWER: Duration = Duration::from_secs(90);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// One window with one page.
pub struct Browser {
    process: Process,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    next: u64,
    complaints: Vec<String>,
}

impl Browser {
    /// Starts it in a namespace, with a profile of its own.
    ///
    /// # Errors
    /// It doesn't start, or doesn't answer.
    pub fn start(lab: &Lab, namespace: &Namespace) -> Result<Browser> {
        let folder = lab.directory().join("browser");
        std::fs::create_dir_all(&folder)?;
        let [to, from] = ["to", "from"].map(|name| folder.join(name));
        command::run(std::process::Command::new("mkfifo").args([&to, &from]), ANSWER)?;
        // Opened for both directions: opening waits for nobody then.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let (to_end, from_end) = (open(&to)?, open(&from)?);
        let mut shell = namespace.command("sh");
        // Chromium reads commands from file 3 and writes answers to file 4.
        shell.arg("-c").arg(format!(
            "HOME={0} exec {PROGRAM} --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --disable-background-networking --disable-component-update --no-proxy-server --hide-scrollbars --mute-audio \
             --user-data-dir={0}/profile --remote-debugging-pipe about:blank 3<{0}/to 4>{0}/from",
            folder.display()
        ));
        let process = lab.spawn("browser", shell)?;
        let from = messages(from_end);
        let mut browser =
            Browser { process, to: to_end, from, session: None, next: 0, complaints: Vec::new() };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Goes to an address and waits until the condition, in the page's own language, holds.
    ///
    /// # Errors
    /// It can't go there, or the condition doesn't come to hold.
    pub fn visit(&mut self, address: &str, condition: &str) -> Result<()> {
        let visited = self.call("Page.navigate", json!({"url": address}))?;
        ensure!(visited["errorText"].is_null(), "{address}: {}", visited["errorText"]);
        self.wait(condition)
    }

    /// What an expression of the page's language comes to.
    ///
    /// # Errors
    /// It throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("`{expression}` throws {}", thrown["exception"]["description"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// It isn't in time; what the page shows is told.
    pub fn wait(&mut self, condition: &str) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < ANSWER {
            // While a page is being left, there is nothing to ask.
            if self.evaluate(condition).is_ok_and(|value| value == true) {
                return Ok(());
            }
            self.process.must_run()?;
            thread::sleep(LOOK);
        }
        let shown = self.text("body").unwrap_or_default();
        bail!("the page never comes to `{condition}`; it shows: {shown:.2000}")
    }

    /// The text that an element shows.
    ///
    /// # Errors
    /// There is no such element.
    pub fn text(&mut self, selector: &str) -> Result<String> {
        let selector = serde_json::to_string(selector)?;
        let text = self.evaluate(&format!("document.querySelector({selector}).innerText"))?;
        text.as_str().map(str::to_owned).with_context(|| format!("{selector} shows no text"))
    }

    /// Types a text where the focus is.
    ///
    /// # Errors
    /// The browser refuses.
    pub fn types(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({"text": text})).map(drop)
    }

    /// Presses a key: `Tab` or `Enter`.
    ///
    /// # Errors
    /// The browser refuses.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = if key == "Enter" { (13, "\r") } else { (9, "") };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Shows pages in a window of this size, light or dark.
    ///
    /// # Errors
    /// The browser refuses.
    pub fn window(&mut self, width: u32, height: u32, dark: bool) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media).map(drop)
    }

    /// The window as a PNG picture.
    ///
    /// # Errors
    /// The browser refuses.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        Ok(STANDARD.decode(shot["data"].as_str().context("no picture")?)?)
    }

    /// What the browser has complained of so far: scripts that failed, and what a page's policy has kept from running.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Sends a command and waits for its answer; what comes meanwhile is looked through.
    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut octets = serde_json::to_vec(&message)?;
        octets.push(0);
        self.to.write_all(&octets)?;
        let begin = Instant::now();
        loop {
            let message = match self.from.recv_timeout(LOOK) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) if begin.elapsed() < ANSWER => {
                    self.process.must_run()?;
                    continue;
                }
                Err(error) => bail!("the browser doesn't answer {method}: {error}"),
            };
            if message["id"] == self.next {
                ensure!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.complaints.extend(complaint(&message));
        }
    }
}

/// What an event says that should not be.
fn complaint(message: &Value) -> Option<String> {
    let parameters = &message["params"];
    match message["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(parameters["exceptionDetails"].to_string()),
        "Page.javascriptDialogOpening" => Some(format!("a dialog: {}", parameters["message"])),
        // Answers other than 200 are the page's business.
        "Log.entryAdded" if parameters["entry"]["source"] == "network" => None,
        "Log.entryAdded" if parameters["entry"]["level"] == "error" => {
            Some(parameters["entry"]["text"].to_string())
        }
        _ => None,
    }
}

/// Messages that end in a zero octet, read by a thread of their own that ends with the pipe or with us.
fn messages(from: File) -> Receiver<Value> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let mut octets = Vec::new();
            if from.read_until(0, &mut octets).unwrap_or(0) == 0 {
                return;
            }
            octets.pop();
            let Ok(message) = serde_json::from_slice(&octets) else { continue };
            if tell.send(message).is_err() {
                return;
            }
        }
    });
    told
}
