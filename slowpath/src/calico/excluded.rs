//! `interfaceExclude` of FelixConfiguration: interfaces that no host endpoint is about.

use regex::Regex;

/// Interfaces by name and by pattern.
#[derive(Clone, Debug)]
pub struct Excluded {
    /// As FelixConfiguration has them.
    texts: Vec<String>,
    patterns: Vec<Regex>,
}

impl Excluded {
    /// Names, and expressions between slashes. An expression that can't be read excludes nothing: the resource's reader
    /// refuses it.
    pub fn new(texts: Vec<String>) -> Excluded {
        let pattern = |text: &String| match text.strip_prefix('/').and_then(|text| text.strip_suffix('/')) {
            Some(expression) => Regex::new(expression).ok(),
            None => Regex::new(&format!("^{}$", regex::escape(text))).ok(),
        };
        Excluded { patterns: texts.iter().filter_map(pattern).collect(), texts }
    }

    /// Is it about this interface?
    pub fn has(&self, interface: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_match(interface))
    }
}

impl Default for Excluded {
    /// Calico's: the interface that kube-proxy keeps addresses of services on.
    fn default() -> Excluded {
        Excluded::new(vec!["kube-ipvs0".to_owned()])
    }
}

impl PartialEq for Excluded {
    fn eq(&self, other: &Excluded) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Excluded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_interface_and_an_expression_any_that_it_matches() {
        let excluded = Excluded::new(vec!["veth1".to_owned(), "/^kube/".to_owned()]);
        assert!(excluded.has("veth1") && !excluded.has("veth11") && !excluded.has("xveth1"));
        assert!(excluded.has("kube-ipvs0") && excluded.has("kube") && !excluded.has("mykube"));
        assert!(Excluded::default().has("kube-ipvs0") && !Excluded::default().has("eth0"));
    }
}
