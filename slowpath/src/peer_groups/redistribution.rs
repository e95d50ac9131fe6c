//! Routes of the box's own that peers are told besides Calico's: its networks, and what its kernel's table holds.

use std::collections::BTreeSet;

use model::Prefix;

use crate::offers::Offers;
use crate::peer_groups::BgpSettings;
use crate::rib::Source;

/// Most routes that are told so; each is asked of every route that a peer may be told.
pub(crate) const REDISTRIBUTED: usize = 1024;

/// Where routes come from that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Redistribute {
    /// Networks that this box has an address in.
    Connected,
    /// Routes that somebody wrote into the kernel's table (`proto static` or `boot`).
    Static,
    /// Routes that other programs put there.
    Kernel,
}

impl Redistribute {
    fn source(self) -> Source {
        match self {
            Redistribute::Connected => Source::Connected,
            Redistribute::Static => Source::Static,
            Redistribute::Kernel => Source::Kernel,
        }
    }
}

/// What of the offers peers are told: the first in order of prefixes, if they are too many. A default route is promised by
/// `default_route`, never told in passing.
pub(crate) fn redistributed(settings: &BgpSettings, offers: &Offers) -> BTreeSet<Prefix> {
    let wanted = |source: &Source| settings.redistribute.iter().any(|told| told.source() == *source);
    let told = offers.keys().filter(|(prefix, source)| prefix.len() > 0 && wanted(source));
    told.map(|(prefix, _)| *prefix).take(REDISTRIBUTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    #[test]
    fn only_what_was_asked_for_is_told_and_never_a_default_route() {
        let mut offers = Offers::new();
        for (prefix, source) in [
            ("10.1.0.0/24", Source::Connected),
            ("10.2.0.0/24", Source::Static),
            ("10.3.0.0/24", Source::Kernel),
            ("10.1.0.1/32", Source::Local),
            ("0.0.0.0/0", Source::Static),
        ] {
            offers.insert((prefix.parse().unwrap(), source), (Target::Blackhole, 0));
        }
        let told = |redistribute: &[Redistribute]| {
            let settings = BgpSettings { redistribute: redistribute.to_vec(), ..BgpSettings::default() };
            redistributed(&settings, &offers).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(&[]), [""; 0]);
        assert_eq!(told(&[Redistribute::Connected, Redistribute::Static]), ["10.1.0.0/24", "10.2.0.0/24"]);
        assert_eq!(told(&[Redistribute::Kernel]), ["10.3.0.0/24"]);
    }
}
