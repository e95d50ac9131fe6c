//! The looking glass in a real browser: what it shows of a running router, that it can be used by keyboard and on a phone, and
//! that names from outside stay text. With `TORTIE_SCREENSHOTS=FOLDER`, the pictures of the operator's guide are made.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use model::Family;
use serde_json::Value;

use super::{GLASS, MYSQL, Site};
use crate::browser::{self, Browser};
use crate::scenario::{Options, Scenario, Store};
use crate::{Lab, books};

pub(in crate::scenarios) const LOOKING_GLASS: Scenario = Scenario {
    name: "looking-glass",
    about: "the looking glass in a browser: ports, drops, sessions, routes, policy, flows; hostile names stay text",
    programs: &["ping", "bird", "birdc", "mkfifo", browser::PROGRAM],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

/// What a peer says when it shuts down (RFC 9003): text of a stranger's. Without blanks, as BIRD's client is asked by words.
const SHUTDOWN: &str = "<img/src=x/onerror=alert(1)></script>";
/// What a browser would make of it.
const MARKUP: &str = "document.querySelectorAll('main img, main script').length === 0";
/// How wide a phone is, in pixels of the page. A page that is wider is shown smaller, and its window calls itself wider.
const PHONE: u32 = 390;

struct Glass<'a> {
    lab: &'a Lab,
    site: &'a Site<'a>,
    browser: Browser,
    pictures: Option<PathBuf>,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab)?;
    lab.step("starting the browser");
    let browser = Browser::start(lab, &site.gateway().namespace)?;
    let pictures = std::env::var_os("TORTIE_SCREENSHOTS").map(PathBuf::from);
    let mut glass = Glass { lab, site: &site, browser, pictures };
    glass.browser.window(1200, 660, false)?;
    glass.overview()?;
    glass.drops()?;
    glass.route()?;
    glass.policy_by_keyboard()?;
    glass.flows()?;
    glass.on_a_phone()?;
    glass.a_hostile_peer()?;
    glass.what_is_wrong_is_said()?;
    let complaints = glass.browser.complaints();
    ensure!(complaints.is_empty(), "the browser complains: {}", complaints.join("; "));
    lab.proved(
        "the browser had nothing to complain of: no script failed, and the page's policy had nothing to stop",
    );
    // Looking has changed nothing.
    books::settled(lab, site.gateway().tortie()?).map(drop)
}

impl Glass<'_> {
    /// Goes to a view and waits until the page has turned to it and laid it out with what the router says: words that
    /// it is known by may stand in the view before, too.
    fn see(&mut self, view: &str, condition: &str) -> Result<()> {
        let name = view.split('?').next().unwrap_or(view);
        let turned = format!("document.querySelector('a[aria-current=page]')?.hash === '#{name}'");
        self.browser.visit(&format!("http://{GLASS}/#{view}"), &format!("{turned} && ({condition})"))
    }

    fn shows(&mut self, selector: &str, parts: &[&str]) -> Result<()> {
        let text = self.browser.text(selector)?;
        for part in parts {
            ensure!(text.contains(part), "{selector} lacks `{part}`: {text}");
        }
        Ok(())
    }

    fn picture(&mut self, name: &str) -> Result<()> {
        let Some(folder) = self.pictures.clone() else { return Ok(()) };
        let picture = self.browser.picture()?;
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join(format!("looking-glass-{name}.png")), picture)?)
    }

    fn overview(&mut self) -> Result<()> {
        // Rates are there with the second look.
        self.see(
            "overview",
            "Number(document.body.dataset.looks) >= 4 && document.querySelector('main').innerText.includes('the books balance')",
        )?;
        self.shows("header", &["gateway", "ready"])?;
        self.shows("main", &["eth0", "caligateway-w1", "default/gateway", "/s", "4 of 4"])?;
        let rows =
            self.browser.evaluate("document.querySelectorAll('main table')[0].tBodies[0].rows.length")?;
        ensure!(rows == 5, "an uplink, three workloads and the host are {rows} ports");
        let elsewhere = "performance.getEntriesByType('resource').filter((e) => !e.name.startsWith(location.origin)).length";
        ensure!(self.browser.evaluate(elsewhere)? == 0, "the page asks somebody else for something");
        self.browser.wait("document.body.dataset.looks > 12")?;
        self.picture("overview")?;
        self.lab.proved("the overview shows the router's ports with their rates, sessions, routes and balanced books, and asks nobody else");
        Ok(())
    }

    fn drops(&mut self) -> Result<()> {
        self.see("drops", "document.querySelector('main').innerText.includes('ingress_denied')")?;
        let shown = "Number([...document.querySelectorAll('main tbody tr')].find((r) => r.cells[0].textContent === 'ingress_denied').cells[1].textContent.replace(/\\s/g, ''))";
        let shown = self.browser.evaluate(shown)?.as_f64().context("a number")?;
        let drops: crate::tortie::ShowDrops = self.site.gateway().tortie()?.show("drops")?;
        let denied = drops.dropped.of("ingress_denied");
        ensure!(shown > 0.0 && shown <= denied as f64, "{shown} are shown, and there are {denied}");
        let meant = "[...document.querySelectorAll('main tbody tr')].every((r) => r.cells[3].textContent.length > 10)";
        ensure!(self.browser.evaluate(meant)? == true, "a reason without a meaning");
        self.lab.proved("drops stand by reason, each with its rate and its meaning");
        Ok(())
    }

    fn route(&mut self) -> Result<()> {
        let address = self.site.cluster.nodes[1].workloads[0].address(Family::V4)?;
        self.see(
            &format!("route?address={address}"),
            "document.querySelector('.verdict')?.innerText.includes('forwarded')",
        )?;
        self.browser.wait("document.querySelector('main').innerText.includes('best')")?;
        self.shows(
            "main",
            &[
                "covered by 10.65.0.64/26 of bgp, preference 100",
                "172.18.0.3",
                "eth0",
                "Mesh_172_18_0_3",
                "it won",
            ],
        )?;
        self.picture("route")?;
        self.see(
            "route?address=192.0.2.77",
            "document.querySelector('.verdict')?.innerText.includes('no route covers it')",
        )?;
        self.lab.proved("a route is looked up by a link: its source, next hops and BGP's paths; an address without one is said to have none");
        Ok(())
    }

    /// As somebody who has no mouse.
    fn policy_by_keyboard(&mut self) -> Result<()> {
        let workloads = &self.site.gateway().workloads;
        let [frontend, database, stranger] = [0, 1, 2].map(|index| workloads[index].address(Family::V4));
        let (frontend, database, stranger) = (frontend?, database?, stranger?);
        self.see(
            "policy",
            "document.querySelector('main form') && document.querySelector('datalist').options.length > 3",
        )?;
        self.browser.evaluate("document.querySelector('main input[name=in]').focus()")?;
        for text in ["", &frontend.to_string(), "", &database.to_string(), &MYSQL.to_string()] {
            if !text.is_empty() {
                self.browser.types(text)?;
            }
            self.browser.press("Tab")?;
        }
        // Past the protocol, to the button.
        self.browser.press("Tab")?;
        ensure!(
            self.browser.evaluate("document.activeElement.textContent")? == "Explain",
            "the keyboard doesn't come to the button"
        );
        self.browser.press("Enter")?;
        self.browser.wait("document.querySelector('.verdict')?.innerText === 'Forwarded'")?;
        self.shows("main", &["database", "ingress[0]", "allow", "Allow TCP", "lockdown", "staged"])?;
        self.browser.window(1200, 760, true)?;
        let question = format!("policy?src={stranger}&dst={database}&proto=tcp&dport={MYSQL}");
        self.see(&question, "document.querySelector('.verdict')?.innerText === 'Dropped'")?;
        self.shows("main", &["ingress_denied", "end of tier", "deny"])?;
        self.picture("policy")?;
        self.browser.window(1200, 660, false)?;
        self.lab.proved("policy is explained by keyboard alone: the rule that allows a frontend, and the tier's end that denies a stranger");
        Ok(())
    }

    fn flows(&mut self) -> Result<()> {
        let database = self.site.gateway().workloads[1].address(Family::V4)?;
        self.see(
            &format!("flows?address={database}"),
            "document.querySelector('main').innerText.includes('established')",
        )?;
        self.shows("main", &["tcp", &format!("{database}:{MYSQL}"), "established"])?;
        self.browser.evaluate("(() => { const i = document.querySelector('input[name=text]'); i.value = 'nothing has this'; i.dispatchEvent(new Event('input')); })()")?;
        self.browser.wait("document.querySelector('main caption').innerText.includes('0 of')")?;
        self.lab.proved("flows are found by an address and by words, with the sources that have most");
        Ok(())
    }

    fn on_a_phone(&mut self) -> Result<()> {
        self.browser.window(PHONE, 780, true)?;
        self.see("overview", "Number(document.body.dataset.looks) >= 2")?;
        for view in ["overview", "drops", "bgp", "route?address=10.65.0.70", "policy", "flows", "workers"] {
            self.see(view, "document.querySelector('main').children.length > 0")?;
            let fits = self.browser.evaluate(&format!("document.documentElement.scrollWidth <= {PHONE}"))?;
            ensure!(fits == true, "{view} is wider than a phone");
        }
        self.see("overview", "document.querySelector('main').innerText.includes('eth0')")?;
        self.browser.wait("document.body.dataset.looks > 16")?;
        self.picture("phone")?;
        self.browser.window(1200, 660, false)?;
        self.lab.proved("every view fits a phone's width");
        Ok(())
    }

    /// A peer goes and leaves words that a page must not take for its own.
    fn a_hostile_peer(&mut self) -> Result<()> {
        self.site.cluster.nodes[2].bird()?.ask(&format!("disable all \"{SHUTDOWN}\""))?;
        self.see(
            "bgp",
            &format!("document.querySelector('main').innerText.includes({})", Value::from(SHUTDOWN)),
        )?;
        ensure!(self.browser.evaluate(MARKUP)? == true, "a peer's words have become markup");
        // One of its sessions may have gone before the other.
        self.browser.wait("document.querySelector('main').innerText.includes('2 of 4 established')")?;
        self.shows("main", &["Established"])?;
        self.browser.window(1440, 420, false)?;
        self.picture("bgp")?;
        self.browser.window(1200, 660, false)?;
        // And what stands in the page's own address.
        let hostile = "route?address=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E";
        self.see(
            hostile,
            "document.querySelector('.answer')?.innerText.includes('no IPv4 or IPv6 address')",
        )?;
        ensure!(self.browser.evaluate(MARKUP)? == true, "an address of the page's has become markup");
        self.lab.proved(
            "what a peer says at its shutdown, and what stands in a link, is shown as it is and runs nothing",
        );
        Ok(())
    }

    /// The router ends while somebody looks.
    fn what_is_wrong_is_said(&mut self) -> Result<()> {
        let tortie = self.site.gateway().tortie()?;
        books::settled(self.lab, tortie)?;
        self.see("overview", "document.querySelector('main').innerText.includes('eth0')")?;
        tortie.stop()?;
        self.browser.wait("document.querySelector('#trouble').innerText.includes(\"doesn't answer\")")?;
        tortie.start(self.lab)?;
        self.browser.wait("document.querySelector('#trouble').hidden")?;
        self.lab.proved("a page that is open says when the router has gone, and goes on when it is back");
        Ok(())
    }
}
