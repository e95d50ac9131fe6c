//! A table of nftables as a value: sets and chains by name, and the transaction that leads from one value to another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Elements that one command carries.
const ELEMENTS_A_COMMAND: usize = 1000;
/// Longest comment of a chain or rule in bytes (`NFTNL_UDATA_COMMENT_MAXLEN` less the terminating zero).
const COMMENT_BYTES_MAX: usize = 127;

/// Everything in our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// By name.
    pub sets: BTreeMap<String, Set>,
    /// By name.
    pub chains: BTreeMap<String, Chain>,
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What nft calls its type and flags.
    pub definition: &'static str,
    /// As nft writes them; of networks, none is within another.
    pub elements: BTreeSet<String>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come in, such as `input priority filter`; `None` for one that others jump to.
    pub hook: Option<&'static str>,
    /// What it is about.
    pub about: About,
    /// In order.
    pub lines: Vec<Line>,
}

/// One rule of nft's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As nft reads it, without the comment.
    pub text: String,
    /// What its counter counts; `None` where it has none.
    pub counts: Option<Counts>,
}

/// What a chain is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// All packets of a hook.
    Hook,
    /// What an endpoint is asked.
    Endpoint {
        /// Its name.
        name: String,
        /// Its interface; `*` for every one without an endpoint of its own.
        interface: String,
        /// `untracked`, `pre-dnat`, `forward`, `normal`, or `translated`: normal, of what DNAT has sent elsewhere.
        class: &'static str,
        /// `ingress` or `egress`.
        direction: &'static str,
    },
    /// A policy, for all endpoints that it applies to.
    Policy {
        /// As Calico names it.
        name: String,
        /// Of this class.
        class: &'static str,
        /// `ingress` or `egress`.
        direction: &'static str,
    },
    /// A profile, likewise.
    Profile {
        /// As Calico names it.
        name: String,
        /// `ingress` or `egress`.
        direction: &'static str,
    },
    /// What comes before all policy.
    Before {
        /// As of [`About::Endpoint`].
        class: &'static str,
        /// `ingress` or `egress`.
        direction: &'static str,
    },
}

/// What a counter counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counts {
    /// Packets that a rule matched. Rules that nft needs several lines for have several counters.
    Rule {
        /// Its number in its policy, from 0.
        number: usize,
        /// `allow`, `deny`, `pass` or `log`.
        action: &'static str,
    },
    /// Packets that something else than a rule decided.
    Other {
        /// Such as `end of tier default`.
        what: String,
        /// `allow` or `deny`.
        action: &'static str,
    },
}

impl Line {
    /// A line that counts nothing.
    pub fn plain(text: impl Into<String>) -> Line {
        Line { text: text.into(), counts: None }
    }

    fn comment(&self) -> Option<String> {
        match self.counts.as_ref()? {
            Counts::Rule { number, .. } => Some(format!("rule {number}")),
            Counts::Other { what, .. } => Some(quotable(what)),
        }
    }
}

impl About {
    fn comment(&self) -> Option<String> {
        match self {
            About::Hook => None,
            About::Endpoint { name, interface, class, direction } => {
                Some(format!("host endpoint {name}, {interface}, {class} {direction}"))
            }
            About::Policy { name, class, direction } => Some(format!("policy {name}, {class} {direction}")),
            About::Profile { name, direction } => Some(format!("profile {name}, {direction}")),
            About::Before { class, direction } => Some(format!("before policy, {class} {direction}")),
        }
        .map(|comment| quotable(&comment))
    }
}

/// The text as it may stand between quotes in nft's language: nothing that ends them or stands for a variable, and no longer
/// than the kernel takes.
pub fn quotable(text: &str) -> String {
    let is_fine = |char: &char| char.is_ascii_graphic() && !matches!(char, '"' | '\\' | '$') || *char == ' ';
    let mut fine: String = text.chars().map(|char| if is_fine(&char) { char } else { '?' }).collect();
    fine.truncate(COMMENT_BYTES_MAX);
    fine
}

impl Ruleset {
    /// The transaction that makes the table `inet NAME` hold exactly this, whatever it holds.
    pub fn replacement(&self, table: &str) -> String {
        let mut script = removal(table);
        let _ =
            writeln!(script, "add table inet {table} {{ comment \"host endpoints' policy, by tortie\" ; }}");
        self.changes(&Ruleset::default(), table, &mut script);
        script
    }

    /// The transaction from `old`, which is in force, to this: chains and sets that don't change keep their counters and
    /// are not loaded again. Empty where nothing changes; `None` where only a replacement leads there.
    pub fn transaction(&self, old: &Ruleset, table: &str) -> Option<String> {
        let same_frame = (self.chains.iter())
            .filter_map(|(name, chain)| Some((chain, old.chains.get(name)?)))
            .all(|(new, old)| (new.hook, &new.about) == (old.hook, &old.about));
        let same_kinds = (self.sets.iter())
            .filter_map(|(name, set)| Some((set, old.sets.get(name)?)))
            .all(|(new, old)| new.definition == old.definition);
        let mut script = String::new();
        if same_frame && same_kinds {
            self.changes(old, table, &mut script);
            return Some(script);
        }
        None
    }

    /// In the order that nft needs: what is referred to is there before those who refer to it, and goes after them.
    fn changes(&self, old: &Ruleset, table: &str, script: &mut String) {
        self.change_sets(old, table, script);
        for (name, chain) in &self.chains {
            if !old.chains.contains_key(name) {
                let hook = chain
                    .hook
                    .map(|hook| format!(" type filter hook {hook} ; policy accept ;"))
                    .unwrap_or_default();
                let comment =
                    chain.about.comment().map(|text| format!(" comment \"{text}\" ;")).unwrap_or_default();
                let _ = writeln!(script, "add chain inet {table} {name} {{{hook}{comment} }}");
            }
        }
        let is_changed =
            |name: &String, chain: &Chain| self.chains.get(name).is_none_or(|new| new.lines != chain.lines);
        for (name, _) in old.chains.iter().filter(|(name, chain)| is_changed(name, chain)) {
            let _ = writeln!(script, "flush chain inet {table} {name}");
        }
        for (name, chain) in &self.chains {
            if old.chains.get(name).is_some_and(|old| old.lines == chain.lines) {
                continue;
            }
            for line in &chain.lines {
                let comment = line.comment().map(|text| format!(" comment \"{text}\"")).unwrap_or_default();
                let _ = writeln!(script, "add rule inet {table} {name} {}{comment}", line.text);
            }
        }
        for name in old.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            let _ = writeln!(script, "delete chain inet {table} {name}");
        }
        for name in old.sets.keys().filter(|name| !self.sets.contains_key(*name)) {
            let _ = writeln!(script, "delete set inet {table} {name}");
        }
    }

    fn change_sets(&self, old: &Ruleset, table: &str, script: &mut String) {
        let none = BTreeSet::new();
        for (name, set) in &self.sets {
            let before = old.sets.get(name).map(|set| &set.elements);
            if before.is_none() {
                let _ = writeln!(script, "add set inet {table} {name} {{ {} }}", set.definition);
            }
            let before = before.unwrap_or(&none);
            // First what goes: a network that comes may lie within one that goes.
            elements(script, "delete", table, name, before.difference(&set.elements));
            elements(script, "add", table, name, set.elements.difference(before));
        }
    }
}

/// The transaction that removes the table. Declaring it first makes deleting it valid where there is none.
pub fn removal(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

fn elements<'a>(
    script: &mut String,
    verb: &str,
    table: &str,
    set: &str,
    elements: impl Iterator<Item = &'a String>,
) {
    let elements: Vec<&str> = elements.map(String::as_str).collect();
    for some in elements.chunks(ELEMENTS_A_COMMAND) {
        let _ = writeln!(script, "{verb} element inet {table} {set} {{ {} }}", some.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(lines: &[&str]) -> Chain {
        Chain { hook: None, about: About::Hook, lines: lines.iter().map(|text| Line::plain(*text)).collect() }
    }

    fn ruleset(chains: &[(&str, &[&str])], elements: &[&str]) -> Ruleset {
        let elements = elements.iter().map(|text| (*text).to_owned()).collect();
        Ruleset {
            sets: BTreeMap::from([("some".to_owned(), Set { definition: "type ipv4_addr;", elements })]),
            chains: chains.iter().map(|(name, lines)| ((*name).to_owned(), chain(lines))).collect(),
        }
    }

    #[test]
    fn what_stays_the_same_is_not_touched() {
        let old = ruleset(&[("a-1", &["accept"]), ("b-1", &["jump a-1"])], &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(old.transaction(&old, "t").as_deref(), Some(""));
        let new = ruleset(&[("a-1", &["accept"]), ("b-1", &["drop"])], &["10.0.0.2", "10.0.0.3"]);
        assert_eq!(
            new.transaction(&old, "t").unwrap().lines().collect::<Vec<_>>(),
            [
                "delete element inet t some { 10.0.0.1 }",
                "add element inet t some { 10.0.0.3 }",
                "flush chain inet t b-1",
                "add rule inet t b-1 drop",
            ]
        );
    }

    #[test]
    fn what_goes_goes_after_those_who_refer_to_it() {
        let old = ruleset(&[("a-1", &["accept"]), ("b-1", &["jump a-1"])], &[]);
        let new =
            Ruleset { sets: BTreeMap::new(), ..ruleset(&[("b-1", &["jump c-1"]), ("c-1", &["drop"])], &[]) };
        assert_eq!(
            new.transaction(&old, "t").unwrap().lines().collect::<Vec<_>>(),
            [
                "add chain inet t c-1 { }",
                "flush chain inet t a-1",
                "flush chain inet t b-1",
                "add rule inet t b-1 jump c-1",
                "add rule inet t c-1 drop",
                "delete chain inet t a-1",
                "delete set inet t some",
            ]
        );
    }

    #[test]
    fn another_hook_or_kind_takes_a_replacement() {
        let old = ruleset(&[("a-1", &[])], &[]);
        let mut new = old.clone();
        new.chains.get_mut("a-1").unwrap().hook = Some("input priority filter");
        assert_eq!(new.transaction(&old, "t"), None);
        let mut new = old.clone();
        new.sets.get_mut("some").unwrap().definition = "type ipv6_addr;";
        assert_eq!(new.transaction(&old, "t"), None);
    }

    #[test]
    fn no_name_ends_the_quotes_it_stands_in() {
        assert_eq!(quotable("a\"; drop\\\n\u{e9}$x"), "a?; drop????x");
        assert_eq!(quotable(&"x".repeat(300)).len(), COMMENT_BYTES_MAX);
    }
}
